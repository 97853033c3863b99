"""What the commands of training and benchmark share: lines for a person, or progress events for a program."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Annotated, Optional

import typer

from d3m.progress import Progress
from d3m.system.console import Reporter, session
from d3m.system.text import for_terminal


class Mode(str, Enum):
    """How progress is shown."""

    auto = "auto"
    json = "json"


ProgressOption = Annotated[Mode, typer.Option("--progress", help="json prints one object per line on stdout.")]
MAX_SEED = 10**9
"""A training's seed times a million, and the iteration, must be a number that generators take."""
ParentOption = Annotated[
    Optional[int], typer.Option("--parent-pid", min=1, help="Stop when this process has ended.", show_default=False)
]


@contextmanager
def telling(stage: str, mode: Mode, parent_pid: int | None) -> Iterator[Callable[[str], None]]:
    """A session whose lines for a person become progress events for a program.

    A line that begins with k/n says which share is done; any other leaves the share as it was.
    """
    reporter = Reporter(mode.value)
    share = 0.0

    def tell(line: str) -> None:
        nonlocal share
        if counted := re.match(r"(\d+)/([1-9]\d*) ", line):
            share = min(int(counted[1]) / int(counted[2]), 1.0)
        reporter.progress(Progress(stage, share, message=line))

    with session(reporter, parent_pid):
        yield tell if mode is Mode.json else echo
        reporter.done()


def echo(line: str) -> None:
    """Show a line, whatever the data set's names hold."""
    typer.echo(for_terminal(line))
