"""Files that survive a kill, a full disk and a second run: whole or not at all. Does not import torch."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from d3m.errors import D3MError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OF_THE_MACHINE = (*FULL, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE)
"""Errors of the disk or the system, never of this program."""
ABANDONED_S = 3600.0
"""A file is written in seconds; what is so old belongs to no living run."""


def disk_error(error: OSError) -> D3MError:
    """What a user is told when writing failed."""
    if error.errno in FULL or (error.errno is None and "requested and" in str(error)):  # numpy's way to say it
        return D3MError("The disk is full.", "Free some space, or choose another --out.", "machine")
    return D3MError(
        f"The result cannot be written ({error.strerror or error}).",
        "Choose another --out, or change the folder's permissions.",
        "machine",
    )


def usual_rights(path: Path) -> None:
    """Give a file that a library made for its owner alone the rights that any file gets in its folder.

    Where rights cannot be changed, as on many mounts, it stays as it is; the umask is asked of the system itself, by
    making a file.
    """
    probe = path.with_name(f".{secrets.token_hex(6)}.partial")
    with contextlib.suppress(OSError):
        probe.touch(exist_ok=False)
        try:
            path.chmod(stat.S_IMODE(probe.stat().st_mode))
        finally:
            probe.unlink()


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


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path`, which takes its place when the block ends well; several processes may do so at once.

    What runs that were killed long ago left beside it is removed.
    """
    for older in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        with contextlib.suppress(OSError):
            if time.time() - older.lstat().st_mtime > ABANDONED_S:
                older.unlink()
    partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all; an older one is replaced at once. Raises `OSError`."""
    with replacing(path) as partial:
        write_text(partial, text)
