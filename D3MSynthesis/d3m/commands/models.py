"""`d3m models`: list, import, export and remove models."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from d3m.errors import D3MError
from d3m.system.console import Reporter, require_torch, session
from d3m.system.text import for_terminal


class Format(str, Enum):
    """What a model can be exported as."""

    onnx = "onnx"
    monai = "monai"
    huggingface = "huggingface"


models_app = typer.Typer(help="List, import, export and remove models.", invoke_without_command=True)


@models_app.callback()
def models(context: typer.Context) -> None:
    """List, import, export and remove models."""
    if context.invoked_subcommand is None:
        list_()


@models_app.command("list")
def list_() -> None:
    """List the models that are found."""
    reporter = Reporter("none")
    with session(reporter):
        from d3m.models.store import list_models, read_card

        for entry in list_models():
            try:
                title = read_card(entry.folder).title
            except D3MError as error:
                title = f"cannot be used: {error.message}"
            typer.echo(for_terminal(f"{entry.name}{' (imported)' if entry.removable else ''}: {title}"))


@models_app.command("import")
def import_(
    folder: Annotated[
        Path,
        typer.Argument(help="A model's folder: card.json and weights.safetensors, or what `d3m models export` wrote."),
    ],
) -> None:
    """Copy a model into the user's folder."""
    with session(Reporter("none")):
        from d3m.models.store import import_model

        typer.echo(f"Imported {import_model(folder).name}.")


@models_app.command("export")
def export(
    model: Annotated[str, typer.Argument(help="Name or folder of a model.")],
    out: Annotated[Path, typer.Argument(help="Folder that is made; it appears whole or not at all.")],
    format_: Annotated[
        Format,
        typer.Option(
            "--format", help="onnx: one reverse step as a graph; monai: a bundle; huggingface: a folder for the Hub."
        ),
    ],
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
) -> None:
    """Write a model in a form that other programs read."""
    with session(Reporter("none")):
        require_torch()
        from d3m.models.exchange import export_model

        typer.echo(export_model(model, out, format_.value, force))


@models_app.command("remove")
def remove(name: Annotated[str, typer.Argument(help="Name of an imported model.")]) -> None:
    """Remove an imported model."""
    with session(Reporter("none")):
        from d3m.models.store import remove_model

        remove_model(name)
        typer.echo(for_terminal(f"Removed {name}."))
