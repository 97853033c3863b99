"""Run many cases on this machine with one loaded model."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from d3m.batch.cases import CaseFiles
from d3m.batch.one import Row, copy_whole, run_case, write_summary
from d3m.errors import D3MError
from d3m.progress import Progress, ProgressCallback, Remaining
from d3m.results.files import disk_error
from d3m.synthesis import Synthesis

SUMMARY_NAME = "summary.csv"
LOCK_NAME = ".d3m-batch.lock"


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
            tell = _share(progress, number, len(cases), case.id, remaining)
            row = run_case(case, out / case.id, synthesis, tell).row
            if brats_names and row.status != "failed":
                copy_whole(out / case.id / "cemri.nii.gz", out / f"{case.id}-t1c.nii.gz")
            rows.append(row)
            write_summary(out / SUMMARY_NAME, rows)
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
