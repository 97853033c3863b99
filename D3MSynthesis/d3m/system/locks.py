"""Locks between processes, on one machine and on several that share a file system.

A lock is a file that its holder locks through the operating system (`flock`): the system frees it when the process is
gone, however it ended, and no clock is asked. Some network file systems lock within one machine only, or not at all, so
the file is also made by exclusive creation, says whose it is, and is touched by its holder every few seconds: a lock of
another machine counts as abandoned when it is old *and* is not touched while one looks on. A clock that jumps makes a
lock look old; it does not stop its holder.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from d3m.errors import D3MError
from d3m.system.processes import alive
from d3m.system.storage import disk_error

BUSY = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
"""What locking says when another process holds the lock; anything else means that locks do not work there."""
BEAT_S = 10.0
"""A holder touches its lock this often."""
STALE_S = 180.0
"""A lock of another machine that was touched within this time has a holder; clocks may differ by less."""
WATCH_S = 2.5 * BEAT_S
"""An older one is watched for so long: its holder touches it meanwhile."""
LOOK_S = 0.5
FAR = 1 << 30
"""Where Windows locks the file: what is locked cannot be read there, and others must read whose it is."""


@contextlib.contextmanager
def hold(path: Path) -> Iterator[bool]:
    """Hold a lock while the block runs.

    Args:
        path: The lock's file; its folder is made. The file is gone afterwards.

    Yields:
        Whether the lock is ours; if not, another process holds it.

    Raises:
        D3MError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire(path)
    except OSError as error:
        raise disk_error(error) from error
    if descriptor is None:
        yield False
        return
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, descriptor, ended), daemon=True)
    beat.start()
    try:
        yield True
    finally:
        ended.set()
        beat.join()
        _release(path, descriptor)


@contextlib.contextmanager
def held(path: Path, refusal: str) -> Iterator[None]:
    """Hold a lock, or refuse.

    Args:
        path: The lock's file.
        refusal: What the user is told when another process holds it.

    Raises:
        D3MError: another process holds it; the file cannot be made.
    """
    with hold(path) as ours:
        if not ours:
            raise D3MError(refusal, "Wait for it, or choose another --out.")
        yield


def sweep(folder: Path, prefix: str) -> None:
    """Remove the locks in a folder whose holders are gone from this machine; those of others stay."""
    for path in folder.glob(prefix + "*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                if _try(descriptor) and _same(descriptor, path) and _of_this_machine(_owner(path)):
                    path.unlink()
            finally:
                os.close(descriptor)


def lock(descriptor: int) -> None:
    """Lock an open file or folder for this process alone; raises `OSError` if another one has it."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, FAR, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _try(descriptor: int) -> bool | None:
    """Whether the lock was got; None: the file system knows no locks."""
    try:
        lock(descriptor)
    except OSError as error:
        return False if error.errno in BUSY else None
    return True


def _acquire(path: Path) -> int | None:
    """The descriptor of a lock that is ours now, or None if somebody holds it; raises `OSError`."""
    while True:
        try:
            descriptor, made = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            made = False
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:  # given back just now
                continue
            except PermissionError:  # another user's, who lets nobody read
                return None
        try:
            got = _try(descriptor)
            if got is False:
                return None
            if made and _same(descriptor, path):
                os.write(descriptor, json.dumps(_me()).encode())
                descriptor, ours = -1, descriptor
                return ours
            if _same(descriptor, path):
                if not _abandoned(path, got is True):
                    return None
                if not _remove(path, descriptor):
                    return None
        finally:
            if descriptor >= 0:
                os.close(descriptor)


def _remove(path: Path, descriptor: int) -> bool:
    """Remove an abandoned lock; a second one keeps two processes from doing so at once where locks do not work."""
    guard = path.with_name(f"{path.name}.guard")
    try:
        os.close(os.open(guard, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    except FileExistsError:
        if _age(guard) > STALE_S:
            guard.unlink(missing_ok=True)  # the next one who asks can go on
        return False
    try:
        if _same(descriptor, path):  # else another one was faster; a lock that is alive must never be removed here
            path.unlink()
        return True
    finally:
        guard.unlink(missing_ok=True)


def _abandoned(path: Path, decided: bool) -> bool:
    """Whether a lock's holder is gone.

    Args:
        path: The lock, whose file is there.
        decided: Whether the system gave us its lock, so that no process of this machine holds it.
    """
    owner = _owner(path)
    if decided and (owner is None or _of_this_machine(owner)):
        return True
    if not decided and owner is not None and owner["place"] == _place():
        return not alive(int(str(owner["pid"])))
    if abs(_age(path)) < STALE_S:
        return False
    return not _is_touched(path)


def _is_touched(path: Path) -> bool:
    """Look on whether somebody touches a lock, by a clock that does not jump."""
    until, first = time.monotonic() + WATCH_S, _touched(path)
    while time.monotonic() < until:
        time.sleep(LOOK_S)
        if _touched(path) != first:
            return True
    return False


def _touched(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _age(path: Path) -> float:
    """Seconds since a lock was touched, by clocks that may be wrong."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _same(descriptor: int, path: Path) -> bool:
    """Whether an open file still has its name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _release(path: Path, descriptor: int) -> None:
    ours = _same(descriptor, path)  # a process that was suspended for long may have lost its lock
    if sys.platform == "win32":  # there an open file cannot be removed
        os.close(descriptor)
    if ours:
        with contextlib.suppress(OSError):  # the lock counts, not the file
            path.unlink()
    if sys.platform != "win32":
        os.close(descriptor)


def _owner(path: Path) -> dict[str, object] | None:
    """Who holds a lock; None while it is being written, or if it is gone."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {"machine": content["machine"], "place": content["place"], "pid": int(content["pid"])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _of_this_machine(owner: dict[str, object] | None) -> bool:
    return owner is not None and owner["machine"] == _machine()


def _me() -> dict[str, object]:
    return {"machine": _machine(), "place": _place(), "pid": os.getpid()}


def _machine() -> str:
    """What processes that see each other's locks have in common: a running system, whatever container they are in."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return platform.node()


def _place() -> str:
    """Where a process number means something: a machine, and on Linux the container's own numbers on it."""
    try:
        numbers = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        numbers = 0
    return f"{_machine()}:{numbers}"


def _beat(path: Path, descriptor: int, ended: threading.Event) -> None:
    while not ended.wait(BEAT_S):
        with contextlib.suppress(OSError):  # a network file system that hangs for a moment
            if _same(descriptor, path):
                os.utime(path)
