"""Handlers of signals: an error in one is shown to the user with its details, not left to the console alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from slicer.i18n import tr as _

import slicer


def guarded(handler: Callable[..., Any]) -> Callable[..., Any]:
    """A handler that shows what went wrong in it; when Slicer runs tests, nothing is shown and the error goes on."""

    @functools.wraps(handler)
    def call(*arguments: Any) -> Any:
        with slicer.util.tryWithErrorDisplay(_("D3M Synthesis: this did not work.")):
            return handler(*arguments)

    return call


def connect(widget: Any, signal: str, handler: Callable[..., Any]) -> None:
    """Connect a signal, named as in C++, to a guarded handler."""
    widget.connect(signal, guarded(handler))


def askUser(question: str) -> bool:
    """Ask; closing the window or Escape is a no. Nobody is asked where there is nobody to answer."""
    if slicer.app.testingEnabled() or slicer.util.mainWindow() is None:
        return False
    return bool(slicer.util.confirmYesNoDisplay(question))


def tellUser(text: str) -> bool | None:
    """Show something to be read before one goes on; None where there is nobody to read it.

    Returns:
        Whether the user goes on; closing the window or Escape is a no.
    """
    if slicer.app.testingEnabled() or slicer.util.mainWindow() is None:
        return None
    return bool(slicer.util.confirmOkCancelDisplay(text))
