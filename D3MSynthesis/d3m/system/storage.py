"""Writing that survives a kill, a full disk and a second run: whole or not at all. Does not import torch."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from d3m.errors import D3MError

PARTIAL = ".d3m-partial-"
"""Temporary folders begin with it; whatever is called so is not whole."""
OLDER = "-old"
"""End of the folder in which an older result waits while the new one takes its place."""
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
        "Choose another --out, or change the rights.",
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
def whole_folder(out: Path, replace: bool = True) -> Iterator[Path]:
    """A temporary folder beside `out` that takes its name when the block ends well, and vanishes otherwise.

    An older folder of that name is only removed once the new one stands in its place; `put_in_order` mends what a
    kill between the two leaves.

    Args:
        out: The folder.
        replace: Whether it may be there already.

    Raises:
        D3MError: the disk is full or cannot be written; the folder is there and must not be replaced.
    """
    out = out.absolute()
    partial: Path | None = None
    made: list[Path] = []
    try:
        made = [parent for parent in out.parents if not parent.exists()]
        out.parent.mkdir(parents=True, exist_ok=True)
        if sys.platform != "win32":  # there it cannot be known who is alive
            put_in_order(out.parent, out.name)
        partial = Path(tempfile.mkdtemp(prefix=PARTIAL + _tag(out.name), dir=out.parent))
        partial.chmod(0o755)
        with _marked(partial):
            yield partial
            if not out.exists():
                partial.rename(out)
            elif replace:
                _exchange(partial, out)
            else:
                raise D3MError("Another run made the output folder meanwhile.", "Choose another --out.")
    except BrokenPipeError:  # no disk's error: whoever read our progress is gone
        raise
    except OSError as error:
        raise disk_error(error) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
        if made and not out.exists():
            for parent in made:  # the innermost first; those that others use by now stay
                with contextlib.suppress(OSError):
                    parent.rmdir()


def _exchange(partial: Path, out: Path) -> None:
    older = partial.with_name(partial.name + OLDER)
    older.mkdir()
    try:  # a signal may come between any two of these lines
        out.rename(older / out.name)
        partial.rename(out)
    finally:
        if not out.exists():
            (older / out.name).rename(out)
        shutil.rmtree(older, ignore_errors=True)


@contextlib.contextmanager
def _marked(folder: Path) -> Iterator[None]:
    """Mark a temporary folder as in use: by a lock on the folder itself, which ends with its process."""
    if sys.platform == "win32":  # there nothing can be removed while a file in it is open
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _in_use(folder: Path) -> bool:
    """Whether a living process writes a temporary folder."""
    if sys.platform == "win32" or not folder.is_dir():
        return False
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _tag(name: str) -> str:
    """What tells a folder's own temporary folders from others'; short, since names have a limit."""
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:8] + "-"


def put_in_order(parent: Path, name: str | None = None) -> None:
    """Remove what killed runs left; an older result that one was replacing comes back.

    Args:
        parent: Where results are written.
        name: Of the one whose left-overs are meant; None: everybody's.

    Raises:
        OSError: an older result cannot be put back.
    """
    for path in sorted(parent.glob(PARTIAL + ("" if name is None else _tag(name)) + "*")):
        if _in_use(path.with_name(path.name.removesuffix(OLDER))):
            continue
        if path.name.endswith(OLDER):
            for older in path.iterdir():
                if not (parent / older.name).exists():
                    older.rename(parent / older.name)
        shutil.rmtree(path, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder so that it is gone at once, even when this process is killed meanwhile; raises `OSError`."""
    gone = Path(tempfile.mkdtemp(prefix=PARTIAL + _tag(folder.name), dir=folder.parent))
    folder.rename(gone / folder.name)
    shutil.rmtree(gone)


def existing_parent(path: Path) -> Path:
    """The nearest folder above that is there."""
    path = path.absolute().parent
    while not path.exists():
        path = path.parent
    return path


@contextlib.contextmanager
def claim(out: Path) -> Iterator[None]:
    """Keep other runs out of a folder from the first minute on; what a killed run left there is put in order.

    Args:
        out: The folder; it need not exist.

    Raises:
        D3MError: another run is writing it; the disk cannot be written.
    """
    out = out.absolute()
    parent = existing_parent(out)
    key = hashlib.sha256(os.fsencode(out)).hexdigest()[:16]
    with held(parent / f".d3m-lock-{key}", "Another run is writing into this output folder."):
        if parent == out.parent:
            with writing():
                put_in_order(parent, out.name)
        yield


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
            _lock(file.fileno())
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


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
