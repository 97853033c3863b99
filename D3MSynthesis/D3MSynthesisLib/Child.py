"""What the engine's process needs and says: the interpreter, a clean environment, lines of progress, how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from D3MSynthesisLib.Texts import _

BOOTSTRAP = Path(__file__).with_name("bootstrap.py")
"""What the child runs first."""

SLICER_VARIABLES = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONEXECUTABLE", "LD_LIBRARY_PATH", "LD_PRELOAD",
                    "DYLD_LIBRARY_PATH", "DYLD_FRAMEWORK_PATH", "QT_PLUGIN_PATH", "SSL_CERT_FILE",
                    "PYTHONUSERBASE", "PYTHONPLATLIBDIR")  # fmt: skip
"""Variables that Slicer's launcher, or a user's shell, sets for one Python and that break another."""


NO_WINDOW = getattr(subprocess, "CREATE_NO_WINDOW", 0)
"""Flag for Windows, which would open a console for every child of a program that has none itself."""


def findPython(userChoice: str | None = None) -> str:
    """The interpreter for the child: the user's, inside Slicer PythonSlicer, else the running one."""
    if userChoice:
        return userChoice
    return shutil.which("PythonSlicer") or sys.executable


def childEnvironment(python: str) -> dict[str, str]:
    """The environment of the child.

    Slicer's own settings for Python and for libraries are taken away: PythonSlicer is a launcher that sets what it
    needs by itself, and any other interpreter would die of them. Packages of the user's home are not looked at.
    """
    environment = {name: value for name, value in os.environ.items() if name not in SLICER_VARIABLES}
    for name in os.environ:  # the launcher keeps what it found under this name
        if name.startswith("LAUNCHER_") and not isSlicerPython(python):
            environment.pop(name, None)
    environment |= {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8", "PYTHONNOUSERSITE": "1", "PYTHONUNBUFFERED": "1",
                    "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip
    return environment


def isSlicerPython(python: str) -> bool:
    """Whether this is the launcher of Slicer's own Python."""
    return Path(python).stem.startswith("PythonSlicer")


def engineFolder() -> Path:
    """The folder of the package `d3m`, beside this one in the checkout as in Slicer's installed layout."""
    return Path(__file__).resolve().parents[1] / "d3m"


def parseEvent(line: str) -> dict[str, Any] | None:
    """The JSON object of a line of progress, or None for any other line."""
    text = line.strip()
    if not (text.startswith("{") and text.endswith("}")):
        return None
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("stage"), str) else None


def explainEnd(exitCode: int | None, log: str) -> tuple[str, str, str]:
    """Kind, message and hint for a child that ended without saying why."""
    missing = re.findall(r"(?:ModuleNotFoundError|ImportError).*?'([\w.]+)'", log)
    if missing:
        message = _("A Python package that the synthesis needs is missing or damaged ({package}).")
        return "machine", message.format(package=missing[-1]), _("Press Synthesize to install what is missing.")
    lowered = log.lower()
    if "memoryerror" in lowered or "bad_alloc" in lowered or "out of memory" in lowered or "cannot allocate" in lowered:
        hint = _("Close other programs, choose the quality preview, or do not keep the steps.")
        return "machine", _("Not enough memory on this machine."), hint
    if (exitCode is not None and exitCode < 0) or exitCode in (137, 134, 139):
        number = -exitCode if exitCode is not None and exitCode < 0 else (exitCode or 128) - 128
        message = _("The engine's process was stopped from outside or crashed (signal {number}).").format(number=number)
        if number == 9:
            message += " " + _("Most often the system ends it because memory has run out.")
        return "machine", message, _("Close other programs or choose the quality preview, then try again.")
    return "defect", _("The engine's process ended without a result."), _("See the details, and report them.")


def signalTree(pids: set[int], kill: bool) -> None:
    """Ask the groups that these processes lead, and the processes, to end; or kill them."""
    if os.name == "nt":
        if kill:  # there is no gentle way for a console program without a window
            for pid in pids:
                subprocess.run(
                    ["taskkill", "/T", "/F", "/PID", str(pid)],
                    capture_output=True,
                    check=False,
                    creationflags=NO_WINDOW,
                )
        return
    number = signal.SIGKILL if kill else signal.SIGTERM
    for pid in pids:
        with contextlib.suppress(OSError):
            if os.getpgid(pid) == pid:
                os.killpg(pid, number)
            else:
                os.kill(pid, number)
