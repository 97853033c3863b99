"""Run many cases on this machine with one loaded model."""

from __future__ import annotations

import csv
import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from d3m.batch.cases import CaseFiles
from d3m.errors import D3MError, is_out_of_memory
from d3m.progress import Progress, ProgressCallback, Remaining
from d3m.results.files import check_output, disk_error, write_result
from d3m.results.provenance import read_provenance
from d3m.synthesis import Synthesis
from d3m.volumes.read import read_case, read_volume
from d3m.volumes.types import CONTRASTS

SUMMARY_NAME = "summary.csv"
LOCK_NAME = ".d3m-batch.lock"


@dataclass(frozen=True)
class Row:
    """One case in `summary.csv`."""

    id: str
    status: Literal["done", "skipped", "failed"]
    reason: str
    mend: str
    seconds: float
    enhancing_ml: float | None
    notices: str


def run_batch(
    cases: list[CaseFiles], out: Path, synthesis: Synthesis, brats_names: bool, progress: ProgressCallback
) -> list[Row]:
    """Synthesise every case whose result is not whole yet.

    Args:
        cases: From `find_cases`.
        out: One folder a case is made in it.
        synthesis: With the model loaded.
        brats_names: Also write `<ID>-t1c.nii.gz` beside the folders.
        progress: Told about the whole batch.

    Returns:
        A row for each case, in order; also written to `summary.csv` after each case.

    Raises:
        D3MError: the output folder cannot be used, the disk is full, or the run was interrupted.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error) from error
    rows: list[Row] = []
    with _lock(out):
        for left_over in out.glob(".d3m-partial-*"):
            shutil.rmtree(left_over, ignore_errors=True)
        remaining = Remaining()
        for number, case in enumerate(cases):
            row = _one(case, out, synthesis, brats_names, _share(progress, number, len(cases), case.id, remaining))
            rows.append(row)
            _write_summary(out / SUMMARY_NAME, rows)
    return rows


def _share(
    progress: ProgressCallback, number: int, count: int, identifier: str, remaining: Remaining
) -> ProgressCallback:
    """The progress of one case as a part of the batch's."""

    def tell(event: Progress) -> None:
        fraction = (number + event.fraction) / count
        message = f"Case {number + 1} of {count} ({identifier}): {event.message}"
        progress(Progress("case", fraction, event.step, event.steps, remaining(fraction), message))

    return tell


def _one(case: CaseFiles, out: Path, synthesis: Synthesis, brats_names: bool, progress: ProgressCallback) -> Row:
    """Run one case, or skip it; what is wrong with it becomes its row."""
    started = time.monotonic()
    folder = out / case.id
    try:
        if case.t1 is None or case.t2 is None or case.flair is None:
            missing = [name.upper() for name in CONTRASTS if getattr(case, name) is None]
            verb = "is" if len(missing) == 1 else "are"
            raise D3MError(f"{' and '.join(missing)} {verb} missing.", "Add the file, or leave the case out.")
        paths = (case.t1, case.t2, case.flair)
        progress(Progress("read", 0.0, message="Reading the scans"))
        whole = read_provenance(folder)
        if whole is not None and _same_request(whole, synthesis, paths):
            row = Row(case.id, "skipped", "", "", 0.0, whole.get("predicted_enhancing_volume_ml"), "")
        else:
            check_output(folder, force=True)
            scans = read_case(*paths)
            result = synthesis.run(scans, progress)
            row = Row(
                case.id, "done", "", "", 0.0, result.enhancing_volume_ml, " ".join(n.message for n in result.notices)
            )
    except Exception as error:
        reason, mend = _explain(error)
        return Row(case.id, "failed", reason, mend, time.monotonic() - started, None, "")
    if row.status == "done":
        progress(Progress("write", 0.98, message="Writing the result"))
        write_result(folder, result, scans, time.monotonic() - started)  # a full disk ends the batch: no case would fit
    if brats_names:
        _copy_brats(folder / "cemri.nii.gz", out / f"{case.id}-t1c.nii.gz")
    return replace(row, seconds=time.monotonic() - started)


def _explain(error: Exception) -> tuple[str, str]:
    """Reason and mend of a case that failed.

    Raises:
        D3MError: the user stopped the run.
    """
    if isinstance(error, D3MError):
        if error.kind == "interrupted":
            raise error
        return error.message, error.mend
    if is_out_of_memory(error):
        return "The memory does not suffice for this case.", "Close other programs, or run it on another machine."
    traceback.print_exception(error)  # a defect of ours, but the other cases can do without this one
    return f"The program has a defect ({type(error).__name__}).", "Please report it with the text on the terminal."


def _same_request(provenance: dict[str, Any], synthesis: Synthesis, paths: tuple[Path, Path, Path]) -> bool:
    """Whether a whole result was made from these scans by this model with these settings.

    Raises:
        D3MError: a scan cannot be read.
    """
    sampling = synthesis.sampling
    wanted = {"steps": sampling.steps, "samples": sampling.samples, "solver": sampling.solver, "seed": synthesis.seed}
    try:
        same = (
            provenance["model"]["weights_sha256"] == synthesis.model.card.weights_sha256
            and {name: provenance["settings"][name] for name in wanted} == wanted
            and (not synthesis.trace or any(name.startswith("trace/") for name in provenance["files"]))
        )
        hashes = [provenance["inputs"][name]["sha256"] for name in CONTRASTS]
    except (KeyError, TypeError):  # written by another version
        return False
    return same and hashes == [read_volume(p, name).sha256 for name, p in zip(CONTRASTS, paths, strict=True)]


def _copy_brats(source: Path, target: Path) -> None:
    partial = target.with_name(f".{target.name}.partial")
    try:
        shutil.copyfile(source, partial)
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise disk_error(error) from error


def _write_summary(path: Path, rows: list[Row]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", newline="", encoding="utf-8") as f:
            writer = csv.DictWriter(f, [field.name for field in fields(Row)])
            writer.writeheader()
            for row in rows:
                content = asdict(row) | {"seconds": f"{row.seconds:.1f}"}
                writer.writerow(
                    content | {"enhancing_ml": "" if row.enhancing_ml is None else f"{row.enhancing_ml:.2f}"}
                )
            f.flush()
            os.fsync(f.fileno())
        partial.replace(path)
    except OSError as error:
        raise disk_error(error) from error


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    """Keep a second batch out of the folder; the system frees the lock when its process is gone, however it ended."""
    try:
        file = (out / LOCK_NAME).open("wb")
    except OSError as error:
        raise disk_error(error) from error
    with file:
        try:
            _lock_file(file.fileno())
        except OSError as error:
            raise D3MError(
                "Another batch is running into this output folder.", "Wait for it, or choose another --out."
            ) from error
        yield


def _lock_file(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
