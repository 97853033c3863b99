"""What a run leaves behind: its temporary folder, and what may be told of it in a report."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import vtk

import slicer

FOLDER_PREFIX = "d3m-run-"


def withoutNames(text: str, names: list[str]) -> str:
    """A text without these names, without paths, and without the user's name."""
    text = re.sub(r'File "[^"]*?([\w.]+\.py)"', r'File "\1"', text)  # which line of the code it was may be told
    text = re.sub(r"(?:[A-Za-z]:)?(?:[\\/][^\\/\s'\":;,()<>|]+)+[\\/]?", _shortPath, text)
    for name in sorted({name for name in names if len(name) > 2}, key=len, reverse=True):
        text = text.replace(name, "<node>")
    user = Path("~").expanduser().name
    return re.sub(rf"\b{re.escape(user)}\b", "<user>", text) if len(user) > 2 and user != "root" else text


def _shortPath(found: re.Match[str]) -> str:
    return "<path>" if len(re.findall(r"[\\/]", found.group())) > 1 or found.start() == 0 else found.group()


def newFolder() -> Path:
    """A new temporary folder for one run, with this process's number in its name."""
    application = getattr(slicer, "app", None)
    place = getattr(application, "temporaryPath", None)
    parent = place if isinstance(place, str) and Path(place).is_dir() else None
    return Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid()}-", dir=parent))


def removeStaleFolders() -> None:
    """Remove the folders of runs whose Slicer died: they hold scans of patients."""
    if sys.platform == "win32":
        return  # there a signal 0 would end the process that is asked for
    places = {tempfile.gettempdir(), getattr(getattr(slicer, "app", None), "temporaryPath", None)}
    for place in places:
        if not isinstance(place, str):
            continue
        for folder in Path(place).glob(f"{FOLDER_PREFIX}*"):
            number = folder.name[len(FOLDER_PREFIX) :].split("-")[0]
            if not number.isdigit() or int(number) == os.getpid():
                continue
            try:
                os.kill(int(number), 0)
            except ProcessLookupError:
                shutil.rmtree(folder, ignore_errors=True)
            except (PermissionError, OverflowError):
                continue


def reportText(error: Any, info: Any, log: str) -> str:
    """Versions, device, error and log, for a report; names are taken out afterwards.

    Args:
        error: A `SynthesisError`, or None.
        info: What the engine said about itself, or None.
        log: What it wrote.
    """
    application = getattr(slicer, "app", None)
    version = getattr(application, "applicationVersion", None)
    lines = [
        "D3M for 3D Slicer: report (synthetic images, research use only)",
        f"Slicer {version if isinstance(version, str) else 'core'}; VTK {vtk.vtkVersion.GetVTKVersion()}; "
        f"Python {platform.python_version()}; {platform.system()} {platform.machine()}",
    ]
    with contextlib.suppress(ImportError):
        import d3m

        lines.append(f"D3M {d3m.__version__}")
    if info is not None:
        lines.append(f"torch {info.torch}; devices: " + "; ".join(f"{d.name} {d.title}" for d in info.devices))
    if error is not None:
        lines += [f"Error ({error.kind}): {error.message}", f"Hint: {error.hint}"]
    lines += ["Log:", (error.details if error is not None else "") or log or "(empty)"]
    return "\n".join(lines)
