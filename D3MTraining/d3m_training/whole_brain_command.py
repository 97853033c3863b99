"""`d3m-training whole-brain`: prepare, train and finish the stage that looks at the whole brain first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from d3m.system.console import require_torch
from d3m_training.console import Mode, ParentOption, ProgressOption, telling

app = typer.Typer(
    help="The whole-brain stage: 3-D networks at 2 mm that say whether, how much and about where a tumour enhances.",
    no_args_is_help=True,
)
CacheOption = Annotated[Path, typer.Option(help="From `whole-brain prepare`.")]


@app.command()
def prepare(
    data: Annotated[list[Path], typer.Argument(help="Folders of BraTS-style patients, or CSV manifests.")],
    cache: Annotated[Path, typer.Option(help="Folder for the prepared arrays; outside the source tree.")],
    enhancing_label: Annotated[
        Optional[int], typer.Option(help="Value of the enhancing tumour.", show_default=False)
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out patients with faulty files.")] = False,
    progress: ProgressOption = Mode.auto,
    parent_pid: ParentOption = None,
) -> None:
    """Put every annotated patient at 2 mm, once.

    In a manifest T2 may be empty, and "whole" in the column labels says that the labels show the whole tumour alone:
    what enhances is then taken from T1c minus T1 inside it.
    """
    with telling("prepare", progress, parent_pid) as tell:
        from d3m_training.data.whole_brain import prepare_coarse

        done = prepare_coarse(data, cache, enhancing_label, skip_bad, tell)
        tell(f"{done} patients are prepared.")


@app.command()
def train(
    cache: CacheOption,
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and logs; training resumes from it.")],
    fold: Annotated[int, typer.Option(help="Fold whose patients are held out.", min=0)],
    folds: Annotated[int, typer.Option(help="Number of folds, and of the stage's members.", min=3)] = 5,
    iterations: Annotated[int, typer.Option(help="Number of volumes; 3000 take one core an hour.", min=1)] = 3000,
    threads: Annotated[Optional[int], typer.Option(help="Cores to use (default: all).", show_default=False)] = None,
    init: Annotated[
        Optional[str],
        typer.Option(help="A model's name or folder: go on from its member of this fold.", show_default=False),
    ] = None,
    progress: ProgressOption = Mode.auto,
    parent_pid: ParentOption = None,
) -> None:
    """Train the member of one fold; started again with the same folder it resumes exactly where it was."""
    with telling("train", progress, parent_pid) as tell:
        require_torch()
        from d3m_training.train.whole_brain import train_fold

        weights = train_fold(cache, out, fold, folds, iterations, threads, tell, init)
        tell(f"Weights: {weights}")


@app.command()
def maps(
    runs: Annotated[list[Path], typer.Argument(help="Folders of all folds' trainings.")],
    cache: Annotated[Path, typer.Option(help="From `d3m-training prepare`.")],
    progress: ProgressOption = Mode.auto,
    parent_pid: ParentOption = None,
) -> None:
    """Give each patient of a slice cache the maps of members that have not seen it, for `d3m-training train --maps`."""
    with telling("maps", progress, parent_pid) as tell:
        require_torch()
        from d3m_training.train.maps import add_maps

        add_maps(cache, runs, tell)


@app.command()
def finish(
    runs: Annotated[list[Path], typer.Argument(help="Folders of the folds' trainings.")],
    cache: CacheOption,
    model: Annotated[
        Optional[str], typer.Option(help="A model's name or folder that gets the stage.", show_default=False)
    ] = None,
    progress: ProgressOption = Mode.auto,
    parent_pid: ParentOption = None,
) -> None:
    """Measure and calibrate the folds on what each held out, and put the stage into a model's folder."""
    with telling("finish", progress, parent_pid) as tell:
        require_torch()
        from d3m_training.train.whole_brain_stage import finish_stage

        finish_stage(cache, runs, model, tell)
