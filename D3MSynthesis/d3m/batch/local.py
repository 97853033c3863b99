"""Run many cases on this machine with one loaded model."""

from __future__ import annotations

import csv
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from d3m.batch.cases import CaseFiles
from d3m.errors import D3MError
from d3m.progress import Progress, ProgressCallback, Remaining
from d3m.results.files import disk_error, write_result
from d3m.results.provenance import read_provenance
from d3m.synthesis import Synthesis
from d3m.volumes.read import read_case

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


def _share(progress: ProgressCallback, number: int, count: int, identifier: str, remaining: Remaining) -> ProgressCallback:
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
    whole = read_provenance(folder)
    if whole is not None and _same_request(whole, synthesis):
        ml = whole.get("predicted_enhancing_volume_ml")
        if brats_names:
            _copy_brats(folder / "cemri.nii.gz", out / f"{case.id}-t1c.nii.gz")
        return Row(case.id, "skipped", "", "", 0.0, ml, "")
    try:
        missing = [name for name in ("t1", "t2", "flair") if getattr(case, name) is None]
        if missing or case.t1 is None or case.t2 is None or case.flair is None:
            raise D3MError(f"{', '.join(missing).upper()} is missing.", "Add the file, or leave the case out.")
        progress(Progress("read", 0.0, message="Reading the scans"))
        scans = read_case(case.t1, case.t2, case.flair)
        result = synthesis.run(scans, progress)
        progress(Progress("write", 0.98, message="Writing the result"))
        write_result(folder, result, scans, time.monotonic() - started)
        if brats_names:
            _copy_brats(folder / "cemri.nii.gz", out / f"{case.id}-t1c.nii.gz")
    except D3MError as error:
        if error.kind != "input":  # the machine's fault, or the user's wish: the next case would fare no better
            raise
        return Row(case.id, "failed", error.message, error.mend, time.monotonic() - started, None, "")
    notices = " ".join(notice.message for notice in result.notices)
    return Row(case.id, "done", "", "", time.monotonic() - started, result.enhancing_volume_ml, notices)


def _same_request(provenance: dict[str, object], synthesis: Synthesis) -> bool:
    """Whether a whole result was made by this model with these settings."""
    model, settings = provenance.get("model"), provenance.get("settings")
    if not isinstance(model, dict) or not isinstance(settings, dict):
        return False
    wanted = (synthesis.model.card.weights_sha256, synthesis.sampling.steps, synthesis.sampling.samples, synthesis.seed)
    return (model.get("weights_sha256"), *(settings.get(k) for k in ("steps", "samples", "seed"))) == wanted


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
                writer.writerow(content | {"enhancing_ml": "" if row.enhancing_ml is None else f"{row.enhancing_ml:.2f}"})
            f.flush()
            os.fsync(f.fileno())
        partial.replace(path)
    except OSError as error:
        raise disk_error(error) from error


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    """Keep a second batch out of the folder; a lock whose process is gone is taken over."""
    path = out / LOCK_NAME
    try:
        descriptor = _take(path)
    except OSError as error:
        raise disk_error(error) from error
    try:
        os.write(descriptor, str(os.getpid()).encode())
        os.close(descriptor)
        yield
    finally:
        path.unlink(missing_ok=True)


def _take(path: Path) -> int:
    for _ in range(2):
        try:
            return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            try:
                os.kill(int(path.read_text()), 0)
            except (ValueError, ProcessLookupError):
                path.unlink(missing_ok=True)
                continue
            except (PermissionError, FileNotFoundError):
                break  # it lives, under another user; or it went away this moment
            break
    raise D3MError(
        "Another batch is running into this output folder.", f"Wait for it, or remove {LOCK_NAME} if that is not so."
    )
