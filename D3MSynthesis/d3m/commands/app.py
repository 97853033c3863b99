"""`d3m`: the engine's command line. Each command is a thin call; torch is imported when it is needed."""

from __future__ import annotations

from typing import Annotated

import typer

import d3m
from d3m.commands.batch import batch
from d3m.commands.bids import bids
from d3m.commands.dicom import dicom
from d3m.commands.follow_up import follow_up
from d3m.commands.info import info
from d3m.commands.lists import BidsAppCommand
from d3m.commands.models import models_app
from d3m.commands.synthesize import synthesize
from d3m.system.console import run_program
from d3m.system.spellings import D3M, program

app = program(
    "Synthetic contrast-enhanced brain MRI from T1, T2 and FLAIR. Synthetic images, for research use only.", D3M
)
app.command()(synthesize)
app.command()(batch)
app.command(cls=BidsAppCommand)(bids)
app.command()(dicom)
app.command()(follow_up)
app.add_typer(models_app, name="models")
app.command()(info)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(d3m.__version__)
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Synthetic contrast-enhanced brain MRI from T1, T2 and FLAIR. Synthetic images, for research use only."""
    del version


def main() -> None:
    """Entry point of the command."""
    run_program(app, "d3m", ("info", "models", "--version", "--help", "-h"))
