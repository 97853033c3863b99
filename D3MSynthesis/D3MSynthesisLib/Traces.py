"""What a run leaves behind: its temporary folder, and what may be told of it in a report."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

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
