"""A lock file for each case, so that several runs into one folder share its cases.

Made by exclusive creation, which is atomic on network file systems too, where locks of the system often are not. Its
holder touches it; a lock whose holder is gone is taken over.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from d3m.system.console import alive
from d3m.system.storage import disk_error

BEAT_S = 10.0
"""A holder touches its lock this often."""
STALE_S = 180.0
"""A lock that was not touched for so long has no holder; clocks of machines may differ by less."""


@contextlib.contextmanager
def hold(path: Path) -> Iterator[bool]:
    """Hold a lock while the block runs.

    Args:
        path: The lock's file; its folder is made.

    Yields:
        Whether the lock is ours; if not, another process holds it.

    Raises:
        D3MError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        ours = _claim(path) or _take_over(path)
    except OSError as error:
        raise disk_error(error) from error
    if not ours:
        yield False
        return
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, ended), daemon=True)
    beat.start()
    try:
        yield True
    finally:
        ended.set()
        beat.join()
        if _owner(path) == _me():  # a process that was suspended for long may have lost its lock
            path.unlink(missing_ok=True)


def _claim(path: Path) -> bool:
    try:
        with path.open("x", encoding="utf-8") as f:
            json.dump(_me(), f)
    except FileExistsError:
        return False
    return True


def _take_over(path: Path) -> bool:
    """Claim a lock whose holder is gone; a second lock keeps two processes from doing so at once."""
    if not _stale(path):
        return _claim(path)  # it may have been given back meanwhile
    guard = path.with_name(f"{path.name}.guard")
    if not _claim(guard):
        if _stale(guard):
            guard.unlink(missing_ok=True)  # the next one who asks can go on
        return False
    try:
        if not _stale(path):  # another one was faster; a lock that is alive must never be removed here
            return False
        path.unlink(missing_ok=True)
        return _claim(path)
    finally:
        guard.unlink(missing_ok=True)


def _stale(path: Path) -> bool:
    """Whether the holder is gone: it is not among this machine's processes, or the lock was not touched for long."""
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return False
    owner = _owner(path)
    if owner is not None and owner["place"] == _place() and not alive(int(str(owner["pid"]))):
        return True
    return age > STALE_S


def _owner(path: Path) -> dict[str, object] | None:
    """Who holds a lock; None while it is being written, or if it is gone."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {"place": content["place"], "pid": int(content["pid"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _me() -> dict[str, object]:
    return {"place": _place(), "pid": os.getpid()}


def _place() -> str:
    """Where a process number means something: a machine, and on Linux the container's own numbers on it."""
    try:
        numbers = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        numbers = 0
    return f"{platform.node()}:{numbers}"


def _beat(path: Path, ended: threading.Event) -> None:
    while not ended.wait(BEAT_S):
        with contextlib.suppress(OSError):  # a network file system that hangs for a moment
            os.utime(path)
