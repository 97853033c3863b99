"""`d3m bids`: a BIDS data set in, BIDS derivatives out, as a BIDS App."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from d3m.commands.options import RUNNING, if_given, synthesis_command
from d3m.errors import D3MError, Notice
from d3m.options import SynthesisOptions
from d3m.progress import Progress
from d3m.system import limits
from d3m.system.console import Reporter, require_torch
from d3m.system.streams import scratch_beside
from d3m.system.text import for_terminal

if TYPE_CHECKING:
    from d3m.batch.bids import BidsCase
    from d3m.batch.derivatives import BidsWork
    from d3m.batch.run import Outcome, Row


class Level(str, Enum):
    """Levels of a BIDS App."""

    participant = "participant"
    group = "group"


@dataclass(frozen=True)
class Workers:
    """Where cases run."""

    count: int | None
    """None: what suits this machine."""
    scheduler: str | None
    device: str


@synthesis_command("trace")  # BIDS has no name for steps
def bids(
    reporter: Reporter,
    options: SynthesisOptions,
    bids_dir: Annotated[Path, typer.Argument(help="Top folder of a BIDS data set; nothing is written into it.")],
    output_dir: Annotated[Path, typer.Argument(help="Folder of the derivatives.")],
    level: Annotated[
        Level, typer.Argument(help="participant makes the images; group makes the table and the review page.")
    ],
    participant_label: Annotated[
        list[str] | None,
        if_given("Only these participants: one or several."),
    ] = None,
    session_label: Annotated[
        list[str] | None,
        if_given("Only these sessions: one or several."),
    ] = None,
    bids_filter_file: Annotated[
        Path | None,
        if_given('JSON that chooses among images, as other BIDS Apps take it: {"t1w": {"acquisition": "mprage"}}.'),
    ] = None,
    enhancement_masks: Annotated[
        Path | None,
        if_given("Folder of a BIDS derivative with masks of the enhancing tumour: the pictures follow them."),
    ] = None,
    n_jobs: Annotated[
        int | None,
        if_given("Cases at once (default: one per GPU, or one per two cores, as memory allows).", RUNNING, min=1),
    ] = None,
    scheduler: Annotated[
        str | None,
        if_given("Address or scheduler file of a running Dask cluster.", RUNNING),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run, what is missing and what it costs; write nothing.")
    ] = False,
) -> None:
    """Synthesise a BIDS data set. A later run resumes where this one stopped; several runs share the cases.

    A participant's result is skipped when it is whole. One bad case stops nothing; the exit code is 2 when any failed.
    Images are synthetic and for research only.
    """
    from d3m.batch.bids import check_places, find_bids_cases
    from d3m.batch.bids_choice import read_filters
    from d3m.batch.bids_masks import with_masks

    bids_dir, output_dir = bids_dir.absolute(), output_dir.absolute()
    filters = None if bids_filter_file is None else read_filters(bids_filter_file)
    further = () if level is Level.group else _further(options)
    cases = find_bids_cases(bids_dir, participant_label or (), session_label or (), filters, further)
    if enhancement_masks is not None:
        cases = with_masks(cases, enhancement_masks.absolute())
    check_places(bids_dir, output_dir)
    with scratch_beside(output_dir):  # also around the imports: matplotlib's needs it
        if level is Level.group:
            _group(reporter, cases, output_dir, dry_run)
            return
        require_torch()
        from d3m.batch.derivatives import BidsWork
        from d3m.batch.run import check_rows, counts
        from d3m.models.store import find_model, read_card

        options = replace(options, model=str(find_model(options.model).absolute()))
        _check_cases(cases, read_card(find_model(options.model)).optional_contrasts)
        work = BidsWork(bids_dir, output_dir, options)
        workers = Workers(n_jobs, scheduler, options.device)
        if dry_run:
            _describe(reporter, cases, work, workers)
            return
        rows = _participants(reporter, cases, work, workers, reporter.auto)
    check_rows(rows, "Run the level `group` for a table of all.")
    reporter.done(out=str(output_dir))
    if not reporter.json:
        typer.echo(f"{len(rows)} cases: {counts(rows)}. Next: d3m bids {bids_dir} {output_dir} group")


def _further(options: SynthesisOptions) -> tuple[str, ...]:
    """What the model takes beside T1, T2 and FLAIR."""
    from d3m.models.store import find_model, read_card
    from d3m.volumes.types import FURTHER_CONTRASTS

    card = read_card(find_model(options.model))
    return tuple(name for name in FURTHER_CONTRASTS if name in card.contrasts)


def _check_cases(cases: list[BidsCase], optional: tuple[str, ...]) -> None:
    """Say what is wrong before anything is written if no case at all can run.

    Args:
        cases: All.
        optional: Contrasts that the model can do without, one at a time.

    Raises:
        D3MError: with what is wrong with the first.
    """
    for case in cases:
        lacking = [name for name in ("t2", "flair") if getattr(case, name) is None]
        if case.t1 and len(lacking) < 2 and set(lacking) <= set(optional) and not case.problem:
            return
    first = cases[0]
    missing = [name for name in ("T1", "T2", "FLAIR") if getattr(first, name.lower()) is None]
    reason = first.problem or f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing."
    raise D3MError(f"No case can run; {first.id}: {reason}", "A case needs T1w (without ce-), T2w and FLAIR in anat.")


def _participants(
    reporter: Reporter, cases: list[BidsCase], work: BidsWork, workers: Workers, verbose: bool
) -> list[Row]:
    from d3m.batch.derivatives import start_derivatives, store_row

    work.load()  # what is wrong with the model or the settings is reported before anything is written
    start_derivatives(work.root, work.out)
    for case in cases:
        for notice in case.notices:
            reporter.notice(Notice(notice.code, f"{case.id}: {notice.message}", notice.volume))
    board = _Board(reporter, len(cases), verbose)
    rows = []
    for outcome in _outcomes(cases, work, workers, board):
        if outcome.row.status == "failed":
            store_row(work.out, outcome.row)  # a worker that was killed could not
        rows.append(outcome.row)
        board.ended(outcome.row)
    return rows


def _outcomes(cases: list[BidsCase], work: BidsWork, workers: Workers, board: _Board) -> Iterator[Outcome]:
    """Run the cases where they are to be run."""
    from d3m.batch import workers as cluster

    need = cluster.worker_memory(work.options.model)
    count = workers.count or (1 if workers.scheduler else cluster.count_workers(workers.device, need))
    fits = None if workers.scheduler else limits.memory_limit()
    if fits is not None and 1 < count * need > fits:
        text = f"{count} workers need about {count * need / 2**30:.1f} GiB of memory, and this run may have "
        text += f"{fits / 2**30:.1f} GiB: some may be ended. Use --n-jobs {max(1, fits // need)}, or leave it out."
        board.tell(Notice("memory", text))
    if count == 1 and workers.scheduler is None:
        synthesis = work.load()
        for case in cases:
            outcome = work.run(case, synthesis, board.within)
            if outcome.kind == "machine":  # as on workers: what may be gone at a second try gets one
                outcome = work.run(case, synthesis, board.within)
            yield outcome
        return
    with ExitStack() as stack:
        if workers.scheduler is None:
            client = stack.enter_context(cluster.local_workers(count, workers.device))
        else:
            client = stack.enter_context(cluster.attached_workers(workers.scheduler))
        board.at_once = count
        yield from cluster.run_on_workers(client, cases, work, count, board.tell)


class _Board:
    """Tells how far the cases are."""

    def __init__(self, reporter: Reporter, count: int, verbose: bool) -> None:
        self.at_once = 1
        self._reporter, self._count, self._verbose = reporter, count, verbose
        self._rows: list[Row] = []
        self._started = time.monotonic()

    def tell(self, notice: Notice) -> None:
        """Something about all cases."""
        self._reporter.notice(notice)

    def within(self, event: Progress) -> None:
        """Progress inside of a case, where there is one at a time."""
        self._tell(event.fraction, f"{len(self._rows) + 1} of {self._count}: {event.message}")

    def ended(self, row: Row) -> None:
        """A case has ended."""
        self._rows.append(row)
        if row.status == "failed":
            self._reporter.notice(Notice("case-failed", f"{row.id} failed: {row.reason} {row.hint}".strip()))
        if row.status == "kept":
            self._reporter.notice(Notice("case-kept", f"{row.id}: {row.reason} {row.hint}"))
        if self._verbose and not self._reporter.console.is_terminal:
            seconds = f" in {row.seconds:.0f} s" if row.status == "done" else ""
            self._reporter.say(f"{len(self._rows)}/{self._count} {row.id}: {row.status}{seconds}")
        from d3m.batch.run import counts

        self._tell(0.0, f"{len(self._rows)} of {self._count}: {counts(self._rows)}")

    def _tell(self, within: float, message: str) -> None:
        done = len(self._rows)
        fraction = min((done + within) / self._count, 1.0)
        self._reporter.progress(Progress("case", fraction, eta_s=self._left(within), message=message))

    def _left(self, within: float) -> float | None:
        """Seconds that remain, by the cases that took time: those that were there already say nothing."""
        took = [row.seconds for row in self._rows if row.status in ("done", "failed") and row.seconds > 0]
        if not took:
            return None
        return sum(took) / len(took) * max(self._count - len(self._rows) - within, 0.0) / self.at_once


def _describe(reporter: Reporter, cases: list[BidsCase], work: BidsWork, workers: Workers) -> None:
    """What would run, what is missing, and what it would cost."""
    from d3m.batch import workers as cluster
    from d3m.models.cost import FIXED_SECONDS, measure_costs
    from d3m.results.provenance import read_provenance

    synthesis = work.load()
    waiting = 0
    for case in cases:
        missing = [name for name in ("T1", "T2", "FLAIR") if getattr(case, name.lower()) is None]
        if case.problem or missing:
            state = case.problem or f"{' and '.join(missing)} missing"
        elif read_provenance(case.folder(work.out), hashes=False) is not None:
            state = "there already (checked when it runs)"
        else:
            state, waiting = "would run", waiting + 1
        told = "".join(f"  [{notice.message}]" for notice in case.notices)
        typer.echo(for_terminal(f"{case.id}: {state}{told}"))
    cost = next(
        c for c in measure_costs(synthesis.model.folder, work.options.device) if c.quality == work.options.quality
    )
    usual = synthesis.model.card.recipe.quality(work.options.quality)
    share = synthesis.sampling.work / usual.work
    seconds = FIXED_SECONDS + (cost.seconds - FIXED_SECONDS) * share
    count = workers.count or cluster.count_workers(workers.device, cluster.worker_memory(work.options.model))
    typer.echo(
        f"{waiting} of {len(cases)} cases would run: about {seconds:.0f} s per case on {cost.device}, "
        f"{seconds * waiting / 3600:.1f} hours by one worker, {seconds * waiting / count / 3600:.1f} by {count} if the "
        f"machine has the cores; {cost.memory_mb / 1024:.1f} GiB of memory per worker. Nothing was written."
    )
    reporter.done(
        cases=len(cases), would_run=waiting, seconds_a_case=round(seconds, 1), memory_mb=round(cost.memory_mb)
    )


def _group(reporter: Reporter, cases: list[BidsCase], out: Path, dry_run: bool) -> None:
    from d3m.batch.bids import is_ours
    from d3m.batch.review import collect, write_review

    if not is_ours(out):
        raise D3MError("The output folder holds no derivatives yet.", "Run the level `participant` first.")
    entries = collect(cases, out)
    if dry_run:
        typer.echo(f"The page would show {len(entries)} cases. Nothing was written.")
        return
    write_review(entries, out)
    reporter.done(out=str(out))
    if not reporter.json:
        typer.echo(f"{len(entries)} cases\nPage:  {out / 'review.html'}\nTable: {out / 'summary.tsv'}")
