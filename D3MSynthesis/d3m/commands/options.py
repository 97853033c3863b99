"""Options that several commands of `d3m` share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields
from enum import Enum
from typing import Annotated, Any, cast, get_type_hints

import typer

from d3m.options import SynthesisOptions, flag
from d3m.system.console import Reporter, session

INPUT, OUTPUT, RUNNING = "Input", "Output", "Running"


class Mode(str, Enum):
    """How progress is shown."""

    auto = "auto"
    json = "json"
    none = "none"


class Naming(str, Enum):
    """Names of a batch's results."""

    folder = "folder"
    brats = "brats"


ProgressOption = Annotated[
    Mode, typer.Option("--progress", help="json prints one object per line on stdout.", rich_help_panel=RUNNING)
]
ParentOption = Annotated[
    int | None,
    typer.Option("--parent-pid", min=1, help="For programs: stop when this process has ended.", hidden=True),
]


def if_given(text: str, panel: str = INPUT, **more: Any) -> Any:
    """An option without a default: nothing is used unless it is given.

    Args:
        text: Help.
        panel: Heading that it stands under in the help.
        more: As `typer.Option` takes it.
    """
    return typer.Option(help=text, rich_help_panel=panel, show_default=False, **more)


def scan(name: str, whose: str = "") -> Any:
    """A scan's file or folder; `whose` ends its help."""
    return if_given(f"{name} scan: NIfTI, NRRD, MetaImage, or a DICOM series' folder.{whose}")


def synthesis_command(*without: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of `SynthesisOptions`, of progress, and a session around it.

    The command itself has the arguments `reporter` and `options`, and those that are its own.

    Args:
        without: Fields of `SynthesisOptions` that the command cannot use.
    """
    kinds = get_type_hints(SynthesisOptions)
    shared = [one for one in fields(SynthesisOptions) if one.name not in without]

    def parameter(name: str, kind: Any, default: Any) -> inspect.Parameter:
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)

    def option(one: Any) -> inspect.Parameter:
        kind, default, make = kinds[one.name], one.default, cast(Any, Enum)
        if one.metadata["choices"]:
            kind = make(one.name, {choice: choice for choice in one.metadata["choices"]}, type=str)
            default = kind(default)
        info = typer.Option(
            flag(one),
            help=one.metadata["help"],
            rich_help_panel=one.metadata["panel"],
            show_default=default is not None,
        )
        return parameter(one.name, Annotated[kind, info], default)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [one for one in signature.parameters.values() if one.name not in ("reporter", "options")]
        added = [option(one) for one in shared]
        added += [parameter("progress", ProgressOption, Mode.auto), parameter("parent_pid", ParentOption, None)]

        @functools.wraps(command)
        def run(**values: Any) -> None:
            reporter = Reporter(values.pop("progress").value)
            taken = {one.name: values.pop(one.name) for one in shared}
            chosen = {name: value.value if isinstance(value, Enum) else value for name, value in taken.items()}
            with session(reporter, values.pop("parent_pid")):
                command(reporter=reporter, options=SynthesisOptions(**chosen), **values)

        parameters = [*own, *added]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return decorate
