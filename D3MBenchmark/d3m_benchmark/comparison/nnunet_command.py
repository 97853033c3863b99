"""`d3m-benchmark nnunet`: the larger segmenter, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from d3m.system.console import Reporter, session
from d3m.system.text import for_terminal

app = typer.Typer(
    help="nnU-Net as the fixed segmenter: install, export, plan, train, cases, predict.", no_args_is_help=True
)
DataArgument = Annotated[list[Path], typer.Argument(help="Folders of BraTS-style patients, or CSV manifests.")]
EnvironmentOption = Annotated[Path, typer.Option("--env", help="Environment that has nnU-Net, from `install`.")]
WorkOption = Annotated[Path, typer.Option("--work", help="Folder for nnU-Net's data, plans and weights.")]
ConfigurationOption = Annotated[str, typer.Option(help="2d or 3d_fullres.")]
FoldOption = Annotated[str, typer.Option(help="0 to 4, or all.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or mps.")]


def _echo(line: str) -> None:
    typer.echo(for_terminal(line))


@app.command()
def install(environment: EnvironmentOption) -> None:
    """Install nnU-Net into an environment of its own (needs the network)."""
    with session(Reporter("auto")):
        from d3m_benchmark.comparison import nnunet

        nnunet.install(environment, _echo)


@app.command()
def export(
    data: DataArgument,
    work: WorkOption,
    enhancing_label: Annotated[
        Optional[int], typer.Option(help="Value of the enhancing tumour.", show_default=False)
    ] = None,
) -> None:
    """Write annotated patients as nnU-Net's training data."""
    with session(Reporter("auto")):
        from d3m_benchmark.comparison import nnunet

        written = nnunet.export(data, work, enhancing_label, _echo)
        typer.echo(f"{len(written)} patients are exported.")


@app.command()
def plan(environment: EnvironmentOption, work: WorkOption, configuration: ConfigurationOption = "2d") -> None:
    """Let nnU-Net plan and preprocess."""
    with session(Reporter("auto")):
        from d3m_benchmark.comparison import nnunet

        nnunet.plan(environment, work, configuration)


@app.command()
def train(
    environment: EnvironmentOption,
    work: WorkOption,
    configuration: ConfigurationOption = "2d",
    fold: FoldOption = "0",
    epochs: Annotated[int, typer.Option(min=1, help="Epochs.")] = 1000,
    iterations: Annotated[int, typer.Option(min=1, help="Batches of an epoch.")] = 250,
    device: DeviceOption = "cpu",
) -> None:
    """Train one fold."""
    with session(Reporter("auto")):
        from d3m_benchmark.comparison import nnunet

        nnunet.child(
            environment, work, "train", configuration=configuration, fold=fold, epochs=epochs, iterations=iterations,
            device=device,
        )  # fmt: skip


@app.command()
def cases(
    data: DataArgument,
    out: Annotated[Path, typer.Option(help="New folder.")],
    synthetic: Annotated[
        Optional[Path],
        typer.Option(help="Results of `d3m batch`; without it the real T1c is written.", show_default=False),
    ] = None,
) -> None:
    """Write patients for prediction, with their real T1c or the synthetic one."""
    with session(Reporter("auto")):
        from d3m_benchmark.comparison import nnunet

        typer.echo(f"{nnunet.write_cases(data, out, synthetic, _echo)} patients are written.")


@app.command()
def predict(
    environment: EnvironmentOption,
    work: WorkOption,
    cases: Annotated[Path, typer.Option(help="From `cases`.")],
    out: Annotated[Path, typer.Option(help="Folder for the label maps.")],
    configuration: ConfigurationOption = "2d",
    fold: FoldOption = "0",
    device: DeviceOption = "cpu",
) -> None:
    """Segment cases: 1 necrosis, 2 oedema, 3 enhancing tumour."""
    with session(Reporter("auto")):
        from d3m_benchmark.comparison import nnunet

        nnunet.predict(environment, work, cases, out, configuration=configuration, fold=fold, device=device)
