"""One case of a batch: the same for one machine, for many workers, and for every layout of the results."""

from __future__ import annotations

import csv
import io
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from d3m.batch.cases import CaseFiles
from d3m.errors import D3MError, Kind, Notice, is_out_of_memory
from d3m.models.needs import check_further
from d3m.progress import Progress, ProgressCallback
from d3m.results.files import needed_bytes, write_result
from d3m.results.provenance import RESULT, read_provenance
from d3m.results.view_page import FILE_NAME as VIEW
from d3m.synthesis import Result, Synthesis
from d3m.system.folders import check_output, check_space, followed
from d3m.system.manifest import Standing, file_sha256, standing
from d3m.system.own_files import owning, write_own
from d3m.system.storage import writing
from d3m.system.text import for_csv
from d3m.volumes.io.read import read_raw
from d3m.volumes.preprocess.case import read_case
from d3m.volumes.types import ALL_CONTRASTS, CONTRASTS, FURTHER_CONTRASTS, Case

Status = Literal["done", "skipped", "kept", "failed", "elsewhere"]
"""`kept`: somebody changed the result, so it stays as it is; `elsewhere`: another run has this case in hand."""


@dataclass(frozen=True)
class Row:
    """One case in the table."""

    id: str
    status: Status
    reason: str
    hint: str
    seconds: float
    enhancing_ml: float | None
    notices: str
    enhancement_probability: float | None = None
    """That the tumour enhances at all, from the whole brain; None where the model has no such stage."""
    estimated_ml: float | None = None
    """Enhancing tumour from the whole brain, with the ends of its interval."""
    estimated_low_ml: float | None = None
    estimated_high_ml: float | None = None


NUMBERS = ("enhancing_ml", "enhancement_probability", "estimated_ml", "estimated_low_ml", "estimated_high_ml")
"""Columns of the table that have two decimals, and are empty where there is none."""


@dataclass(frozen=True)
class Outcome:
    """How one case ended."""

    row: Row
    kind: Kind | None = None
    """Who is at fault when it failed; a fault of the "machine" may be gone at a second try."""


def counts(rows: Sequence[Row]) -> str:
    """How many cases ended in which way, for a person."""
    words = {
        "done": "done",
        "skipped": "there already",
        "kept": "kept because they were changed",
        "failed": "failed",
        "elsewhere": "being made by another run",
    }
    numbers = {word: sum(row.status == status for row in rows) for status, word in words.items()}
    return ", ".join(f"{number} {word}" for word, number in numbers.items() if number)


def check_rows(rows: Sequence[Row], hint: str) -> None:
    """How a run over many cases ends.

    Raises:
        D3MError: a case failed; the first is named, and `hint` says where the others are.
    """
    failed = [row for row in rows if row.status == "failed"]
    if failed:
        text = f"{len(failed)} of {len(rows)} cases failed, {failed[0].id} first: {failed[0].reason}"
        raise D3MError(text, hint)


class Work(Protocol):
    """What is done with each case; it travels to the workers, so it holds settings and places, no model."""

    def load(self) -> Synthesis:
        """The model, loaded: called once by each process that works."""
        ...

    def run(self, case: CaseFiles, synthesis: Synthesis, progress: ProgressCallback) -> Outcome:
        """One case; what is wrong with it is in the outcome.

        Raises:
            D3MError: the disk is full or cannot be written: no case could be kept; the user stopped the run.
        """
        ...


def run_case(
    case: CaseFiles,
    folder: Path,
    synthesis: Synthesis,
    progress: ProgressCallback,
    finish: Callable[[Path, Result, Case], None] | None = None,
) -> Outcome:
    """Run one case, or skip it if its result is whole; what is wrong with it becomes its row.

    Args:
        case: Its files.
        folder: Of its result.
        synthesis: With the model loaded.
        progress: Told about this case.
        finish: What `write_result` calls before it closes the folder.

    Raises:
        D3MError: the disk is full or cannot be written: no other case would fit; the user stopped the run.
    """
    started = time.monotonic()
    disk: D3MError | None = None
    try:
        if case.problem:
            raise D3MError(case.problem, "Correct the data set, or leave the case out.")
        given = [getattr(case, name) for name in CONTRASTS]
        missing = [name for name, path in zip(CONTRASTS, given, strict=True) if path is None]
        if case.t1 is None or not set(missing) <= set(synthesis.model.card.optional_contrasts) or len(missing) > 1:
            verb = "is" if len(missing) == 1 else "are"
            names = " and ".join(name.upper() for name in missing)
            raise D3MError(f"{names} {verb} missing.", "Add the file, or leave the case out.")
        files = _files(case)
        paths, further = list(files.values()), {name: files[name] for name in FURTHER_CONTRASTS if name in files}
        check_further(synthesis.model.card, further)
        progress(Progress("read", 0.0, message="Reading the scans"))
        whole = read_provenance(folder)
        if whole is not None and _same_request(whole, synthesis, case):
            return Outcome(_skipped(case, whole, time.monotonic() - started))
        if (found := standing(followed(folder), RESULT)).state == "changed":
            return Outcome(_kept(case, found, time.monotonic() - started))
        check_output(folder, RESULT, force=True, inputs=paths)
        options = synthesis.options
        scans = read_case(
            case.t1,
            case.t2,
            case.flair,
            extractor=options.brain,
            enhancement_mask=case.enhancement_mask,
            enhancing_label=options.enhancing_label,
            further=further,
        )
        scans = replace(scans, notices=(*scans.notices, *case.notices))
        try:
            check_space(folder, needed_bytes(scans, synthesis.sampling.steps, synthesis.options.trace))
        except D3MError as error:
            disk = error
            raise
        result = synthesis.run(scans, progress)
        progress(Progress("write", 0.98, message="Writing the result"))
        try:
            write_result(folder, result, scans, time.monotonic() - started, finish=finish)
        except D3MError as error:
            disk = error if error.kind == "machine" else None
            raise
    except Exception as error:
        if disk is not None:
            raise disk from error
        reason, hint, kind = explain(error)
        row = Row(
            case.id, "failed", _without_paths(reason, case), hint, time.monotonic() - started, None, _text(case.notices)
        )
        return Outcome(row, kind)
    seconds = time.monotonic() - started
    estimate = estimate_of(None if result.patient is None else asdict(result.patient))
    notices = _text(result.notices)
    return Outcome(Row(case.id, "done", "", "", seconds, result.enhancing_volume_ml, notices, *estimate))


def _without_paths(text: str, case: CaseFiles) -> str:
    """A message for a table that is kept: paths often name a patient, and the id and the scan say which file it is."""
    for path in _files(case).values():
        text = text.replace(f": {path}", "").replace(str(path), "the file")
    return text


def _files(case: CaseFiles) -> dict[str, Path]:
    """What a case is made from, by the names of the contrasts and "enhancement_mask"."""
    return {name: path for name in (*ALL_CONTRASTS, "enhancement_mask") if (path := getattr(case, name)) is not None}


def _text(notices: Sequence[Notice]) -> str:
    return " ".join(notice.message for notice in notices)


def estimate_of(stated: Any) -> tuple[float | None, ...]:
    """The last fields of a row: the patient's estimate as a provenance states it; Nones where there is none."""
    try:
        low, high = stated["volume_interval_ml"]
        return float(stated["enhancement_probability"]), float(stated["volume_ml"]), float(low), float(high)
    except (TypeError, KeyError, ValueError):
        return None, None, None, None


def _skipped(case: CaseFiles, whole: dict[str, Any], seconds: float) -> Row:
    """The row of a result that is there already, with what was said about it when it was made."""
    notices = [str(notice.get("message", "")) for notice in whole.get("notices", ())]
    predicted, estimate = whole.get("predicted_enhancing_volume_ml"), estimate_of(whole.get("patient_estimate"))
    return Row(case.id, "skipped", "", "", seconds, predicted, " ".join(notices), *estimate)


def _kept(case: CaseFiles, found: Standing, seconds: float) -> Row:
    """The row of a result that somebody worked on: a corrected mask, say, or notes beside it."""
    hint = "It is left as it is. To have it made again, move its folder away."
    return Row(case.id, "kept", found.reason(), hint, seconds, None, "")


def explain(error: BaseException) -> tuple[str, str, Kind]:
    """Reason, hint and kind of a case that failed.

    Raises:
        D3MError: the user stopped the run.
    """
    if isinstance(error, D3MError):
        if error.kind == "interrupted":
            raise error
        return error.message, error.hint, error.kind
    if is_out_of_memory(error):
        hint = "Close other programs, or run it on another machine."
        return "Not enough memory for this case.", hint, "machine"
    traceback.print_exception(error)  # a defect of ours, but the other cases can do without this one
    hint = "Please report it with the text on the terminal."
    return f"The program has a defect ({type(error).__name__}).", hint, "machine"


def _same_request(provenance: dict[str, Any], synthesis: Synthesis, case: CaseFiles) -> bool:
    """Whether a whole result was made from these scans by this model with these settings.

    Raises:
        D3MError: a scan cannot be read.
    """
    sampling, options = synthesis.sampling, synthesis.options
    wanted = asdict(sampling) | {"seed": options.seed}
    try:
        # versions before 0.2 computed every slice, and no mirror image
        stated = {"slice_interval": 1, "mirrored": False} | provenance["settings"]
        same = (
            provenance["model"]["weights_sha256"] == synthesis.model.card.weights_sha256
            and {name: stated[name] for name in wanted} == wanted
            and (not options.trace or any(name.startswith("trace/") for name in provenance["files"]))
            and (not options.page or any(name.endswith(VIEW) for name in provenance["files"]))
        )
        used = {name: one["sha256"] for name, one in provenance["inputs"].items()}
        drawn = provenance.get("given_mask")
        used |= {"enhancement_mask": drawn["sha256"]} if drawn else {}
        same = same and (not drawn or provenance["settings"].get("enhancing_label") == options.enhancing_label)
    except (KeyError, TypeError):  # written by another version
        return False
    files = _files(case)
    return same and files.keys() == used.keys() and all(
        read_raw(path, name).sha256 == used[name] for name, path in files.items()
    )  # fmt: skip


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file so that it exists whole or not at all; ask `own_files.is_own` before whether it may be replaced.

    Raises:
        D3MError: the disk is full or cannot be written.
    """
    with writing(), owning(target, file_sha256(source)) as (partial, _):
        shutil.copyfile(source, partial)


def write_summary(path: Path, rows: list[Row]) -> Path | None:
    """Write the table of a batch; an older one is replaced at once or not at all.

    Returns:
        Where a table that somebody changed, or another file of that name, is now; None if there was none.

    Raises:
        D3MError: the disk is full or cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in fields(Row)])
    writer.writeheader()
    for row in rows:
        content = asdict(row) | {"seconds": f"{row.seconds:.1f}"}
        numbers = {name: value for name, value in asdict(row).items() if name in NUMBERS}
        content |= {name: "" if value is None else f"{value:.2f}" for name, value in numbers.items()}
        writer.writerow({name: for_csv(value) for name, value in content.items()})
    with writing():
        return write_own(path, text.getvalue())
