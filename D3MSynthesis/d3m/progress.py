"""The one progress event type, and an estimate of the time that remains."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where a run stands. Its fields are the keys of the `--progress json` lines."""

    stage: str
    """What is being done: "read", "prepare", "model", "sample", "restore", "write"; for a batch also "case"."""
    fraction: float
    """Share of the whole run that is done, 0 to 1."""
    step: int | None = None
    """Reverse steps (over all samples) done so far, in stage "sample"."""
    steps: int | None = None
    """Reverse steps (over all samples) in all."""
    eta_s: float | None = None
    """Seconds that remain, estimated; None while unknown."""
    message: str = ""
    """A short text for a person."""


ProgressCallback = Callable[[Progress], None]
"""Called from the thread that works; may raise `D3MError(kind="interrupted")` to end the run."""


def ignore_progress(_: Progress) -> None:
    """Callback of those who do not want to know."""


class Remaining:
    """Remaining seconds from the share of work that is done, counted from construction."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, fraction: float) -> float | None:
        """Seconds that remain when `fraction` (0 to 1) is done, or None at the very beginning."""
        if fraction <= 0.0:
            return None
        elapsed = time.monotonic() - self._start
        return elapsed * (1.0 - min(fraction, 1.0)) / fraction
