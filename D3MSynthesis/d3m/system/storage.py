"""Files that survive a kill, a full disk and a second run: whole or not at all. Does not import torch."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from d3m.errors import D3MError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OF_THE_MACHINE = (*FULL, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE)
"""Errors of the disk or the system, never of this program."""
BUSY = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
"""What locking says when another process holds the lock; anything else means that locks do not work there."""


def disk_error(error: OSError) -> D3MError:
    """What a user is told when writing failed."""
    if error.errno in FULL or (error.errno is None and "requested and" in str(error)):  # numpy's way to say it
        return D3MError("The disk is full.", "Free some space, or choose another --out.", "machine")
    return D3MError(
        f"The result cannot be written ({error.strerror or error}).",
        "Choose another --out, or change the folder's permissions.",
        "machine",
    )


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Turn the errors of writing into `D3MError`."""
    try:
        yield
    except BrokenPipeError:  # no disk's error: whoever read our progress is gone
        raise
    except OSError as error:
        raise disk_error(error) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file and wait until it is on the disk; raises `OSError`."""
    with path.open("w", encoding="utf-8", newline="\n") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())


def replace_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all; an older one is replaced at once. Raises `OSError`."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        write_text(partial, text)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def held(path: Path, refusal: str) -> Iterator[None]:
    """Hold a lock file; the system frees the lock when its process is gone, however it ended.

    Where the file system knows no locks, everybody gets it.

    Raises:
        D3MError: another process holds it (`refusal`); the file cannot be made.
    """
    while True:
        try:
            file = path.open("ab")
        except OSError as error:
            raise disk_error(error) from error
        try:
            lock(file.fileno())
        except OSError as error:
            if error.errno in BUSY:
                file.close()
                raise D3MError(refusal, "Wait for it, or choose another --out.") from error
        try:
            ours = os.path.samestat(os.fstat(file.fileno()), path.stat())
        except OSError:  # whoever held it has just removed it
            ours = False
        if ours:
            break
        file.close()
    try:
        yield
    finally:
        if sys.platform == "win32":  # there an open file cannot be removed
            file.close()
        with contextlib.suppress(OSError):  # the lock counts, not the file
            path.unlink()
        file.close()


def lock(descriptor: int) -> None:
    """Lock an open file or folder for this process alone; raises `OSError` if another one has it."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
