"""Run many cases on this machine with one loaded model."""

from __future__ import annotations

from pathlib import Path

from d3m.batch.cases import CaseFiles
from d3m.batch.run import Row, copy_whole, run_case, write_summary
from d3m.progress import Progress, ProgressCallback, Remaining
from d3m.synthesis import Synthesis
from d3m.system.storage import held, put_in_order, writing

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
    with writing():
        out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    with held(out / LOCK_NAME, "Another batch is running into this output folder."):
        with writing():
            put_in_order(out)
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
