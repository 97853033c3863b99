"""Run many cases on this machine with one loaded model."""

from __future__ import annotations

import os
from pathlib import Path

from d3m.batch.cases import CaseFiles
from d3m.batch.run import Row, copy_whole, run_case, write_summary
from d3m.progress import Progress, ProgressCallback, Remaining
from d3m.results.provenance import RESULT
from d3m.synthesis import Synthesis
from d3m.system.folders import check_place_of_work, put_in_order
from d3m.system.locks import held
from d3m.system.manifest import written_files
from d3m.system.own_files import is_own
from d3m.system.storage import writing

SUMMARY_NAME = "summary.csv"
LOCK_NAME = ".d3m-batch.lock"
CEMRI = "cemri.nii.gz"


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
    check_place_of_work(out, True, "results", "--out")  # beside whatever is there
    with writing():
        out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    with held(out / LOCK_NAME, "Another batch is running into this output folder."):
        with writing():
            put_in_order(out)
        remaining = Remaining()
        for number, case in enumerate(cases):
            tell = _share(progress, number, len(cases), case.id, remaining)
            copy = out / f"{case.id}-t1c.nii.gz"
            row = _not_our_copy(case, copy) if brats_names else None
            row = row or run_case(case, out / case.id, synthesis, tell).row
            if brats_names and row.status in ("done", "skipped"):
                copy_whole(out / case.id / CEMRI, copy)
            rows.append(row)
            kept = write_summary(out / SUMMARY_NAME, rows)
            if kept is not None:
                message = f"{SUMMARY_NAME} in the output folder was not as it was written: it is {kept.name} now."
                progress(Progress("case", (number + 1) / len(cases), message=message))
    return rows


def _not_our_copy(case: CaseFiles, copy: Path) -> Row | None:
    """The row of a case beside whose result lies a T1c that is none of ours: a real one, say; else None."""
    if not os.path.lexists(copy):
        return None
    written = written_files(copy.parent / case.id, RESULT).get(CEMRI)
    if is_own(copy, *([] if written is None else [written.sha256])):
        return None
    reason = f"{copy.name!r} is in the output folder already and is not from this batch; it will not be replaced."
    return Row(case.id, "failed", reason, "Choose another --out, or move the file away.", 0.0, None, "")


def _share(
    progress: ProgressCallback, number: int, count: int, identifier: str, remaining: Remaining
) -> ProgressCallback:
    """The progress of one case as a part of the batch's."""

    def tell(event: Progress) -> None:
        fraction = (number + event.fraction) / count
        message = f"Case {number + 1} of {count} ({identifier}): {event.message}"
        progress(Progress("case", fraction, event.step, event.steps, remaining(fraction), message))

    return tell
