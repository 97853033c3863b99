"""`d3m-benchmark`: train one method, compare them all, and use nnU-Net as the larger segmenter."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import typer

from d3m.system.console import Reporter, require_torch, run_program, session
from d3m.system.spellings import program
from d3m_benchmark.comparison.nnunet_command import app as nnunet_app
from d3m_training.console import MAX_SEED, Mode, ParentOption, ProgressOption, telling

app = program("Compare D3M with its ablations and with other methods. For research use only.")
app.add_typer(nnunet_app, name="nnunet")


class MethodSize(str, Enum):
    """How large a method's network is."""

    small = "small"
    published = "published"


@app.command()
def methods() -> None:
    """List the methods that can be trained and compared."""
    with session(Reporter("auto")):
        require_torch()
        from d3m_benchmark.methods.registry import METHODS

        for name, spec in METHODS.items():
            typer.echo(f"{name:24} {spec.title} ({spec.source})")


@app.command()
def train(
    method: Annotated[str, typer.Argument(help="Name of a method, see `d3m-benchmark methods`.")],
    cache: Annotated[Path, typer.Option(help="Folder made by `d3m-training prepare`.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and logs; training resumes from it.")],
    size: Annotated[MethodSize, typer.Option(help="Size of the network.")] = MethodSize.small,
    iterations: Annotated[
        Optional[int], typer.Option(help="Number of batches (default: the method's).", show_default=False)
    ] = None,
    batch: Annotated[
        Optional[int], typer.Option(help="Slices per batch (default: the method's).", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of slices, augmentation and noise.")] = 0,
    threads: Annotated[Optional[int], typer.Option(help="Cores to use (default: all).", show_default=False)] = None,
    progress: ProgressOption = Mode.auto,
    parent_pid: ParentOption = None,
) -> None:
    """Train one method; started again with the same folder it resumes exactly where it was."""
    with telling("train", progress, parent_pid) as tell:
        require_torch()
        from d3m_benchmark.methods.training import method_task
        from d3m_training.train.runs import TrainOptions, run_training

        options = TrainOptions(cache, out, iterations, batch, seed, threads)
        weights = run_training(method_task(method, size.value), options, tell)
        tell(f"Weights: {weights}")


@app.command()
def compare(
    config: Annotated[Path, typer.Option(help="JSON that says what is compared; see the documentation.")],
    progress: ProgressOption = Mode.auto,
    parent_pid: ParentOption = None,
) -> None:
    """Train, measure and report every method of a comparison; started again it resumes where it was."""
    with telling("compare", progress, parent_pid) as tell:
        require_torch()
        from d3m_benchmark.comparison.config import read_config
        from d3m_benchmark.comparison.run import run_comparison

        run_comparison(read_config(config), tell)


def main() -> None:
    """Entry point of the command."""
    run_program(app, "d3m-benchmark", ("--help", "-h"))
