"""Old spellings of commands and options: they work for one more version, with a notice."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperGroup


@dataclass(frozen=True)
class Renamed:
    """A word of the command line that is spelt differently now."""

    command: str
    """The command that it belongs to; empty for a command itself."""
    old: str
    new: str
    option: str = ""
    """The option whose value it is; empty for an option or a command."""


D3M = (Renamed("synthesize", "--sample", "--example"),)
TRAINING = (
    Renamed("prepare", "seed", "step-warp", "--recipe"),
    Renamed("train", "seed", "step-warp", "--recipe"),
    Renamed("", "familiarity", "input-check"),
)


def program(text: str, renamed: Sequence[Renamed] = ()) -> typer.Typer:
    """The command line of a program, as all of ours look; its commands understand old spellings, too.

    Args:
        text: For its `--help`.
        renamed: `D3M` or `TRAINING`.
    """

    class Group(TyperGroup):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # its class depends on typer's version
            return super().parse_args(ctx, respelt(args, renamed))

    return typer.Typer(
        cls=Group,
        help=text,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def respelt(arguments: Sequence[str], renamed: Sequence[Renamed]) -> list[str]:
    """A command line's arguments in today's spelling; each old one is told on stderr.

    Args:
        arguments: Without the program's name.
        renamed: `D3M` or `TRAINING`.
    """
    words = list(arguments)
    command = words[0] if words else ""
    for one in renamed:
        if one.command not in ("", command):
            continue
        for k, word in enumerate(words):
            if one.option and word == f"{one.option}={one.old}":
                words[k] = f"{one.option}={one.new}"
            elif word == one.old and (
                k == 0 if not one.command else not one.option or (k > 0 and words[k - 1] == one.option)
            ):
                words[k] = one.new
            else:
                continue
            where = f"{one.option} " if one.option else ""
            print(
                f"{where}{one.old} is now called {where}{one.new}; the old name goes with the next version.",
                file=sys.stderr,
            )
    return words
