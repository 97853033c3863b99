"""Options that several commands of `d3m` share."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

INPUT, OUTPUT, SAMPLING, RUNNING = "Input", "Output", "Sampling", "Running"


class Quality(str, Enum):
    """How much sampling a user pays for."""

    preview = "preview"
    standard = "standard"
    best = "best"


class Brain(str, Enum):
    """What finds the brain in scans with the skull on; `d3m.volumes.preprocess.extraction.EXTRACTORS`."""

    auto = "auto"
    deepbet = "deepbet"
    hd_bet = "hd-bet"
    synthstrip = "synthstrip"
    own = "own"


class Mode(str, Enum):
    """How progress is shown."""

    auto = "auto"
    json = "json"
    none = "none"


class Naming(str, Enum):
    """Names of a batch's results."""

    folder = "folder"
    brats = "brats"


BrainOption = Annotated[
    Brain,
    typer.Option(
        "--brain",
        help="What finds the brain where the skull is still on; auto: deepbet, else HD-BET, else our own.",
        rich_help_panel=INPUT,
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        help="A model's name or folder. (default: the one that ships)", rich_help_panel=SAMPLING, show_default=False
    ),
]
QualityOption = Annotated[
    Quality,
    typer.Option(
        help="How much sampling: preview is fastest, best averages several samples.", rich_help_panel=SAMPLING
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option(help="Reverse steps. (default: the quality's)", rich_help_panel=SAMPLING, show_default=False),
]
SamplesOption = Annotated[
    int | None,
    typer.Option(
        help="Samples: mean and uncertainty. (default: the quality's)", rich_help_panel=SAMPLING, show_default=False
    ),
]
SeedOption = Annotated[
    int, typer.Option(help="Decides the noise; the same seed gives the same image.", rich_help_panel=SAMPLING)
]
TraceOption = Annotated[bool, typer.Option("--trace", help="Keep every reverse step.", rich_help_panel=OUTPUT)]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=RUNNING)]
ProgressOption = Annotated[
    Mode, typer.Option("--progress", help="json prints one object a line on stdout.", rich_help_panel=RUNNING)
]
ParentOption = Annotated[
    int | None,
    typer.Option(
        "--parent-pid", min=1, help="End when this process is gone.", rich_help_panel=RUNNING, show_default=False
    ),
]


def scan(name: str) -> object:
    text = f"{name} scan: NIfTI, NRRD, MetaImage, or a DICOM series' folder."
    return typer.Option(help=text, rich_help_panel=INPUT, show_default=False)
