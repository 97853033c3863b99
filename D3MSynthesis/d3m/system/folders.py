"""Folders that are written whole or not at all, and never over somebody's work: the one way to write one.

`check_output` says before the work what would be refused after it; `whole_folder` writes.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from d3m.errors import D3MError, Kind
from d3m.system.locks import held, lock, sweep
from d3m.system.manifest import (
    JUNK,
    LOCK,
    MANIFEST,
    PARTIAL,
    READY,
    FolderKind,
    Standing,
    read_manifest,
    standing,
    write_manifest,
    written_files,
)
from d3m.system.storage import OF_THE_MACHINE, disk_error, writing

OLDER = "-old"
"""End of the folder in which an older result waits while the new one takes its place."""
ANOTHER = "Choose another --out."
AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""Numbers of the system's interface; macOS calls the second one RENAME_SWAP."""


def check_output(out: Path, kind: FolderKind, force: bool, inputs: Iterable[Path] = ()) -> None:
    """Find out before the work whether a folder can be written.

    A folder that is not there, or empty, can. One that we wrote and nobody changed can with `force`.

    Args:
        out: The folder; a link to one is followed.
        kind: What is to be written.
        force: Whether an earlier folder of this kind may be replaced.
        inputs: Files and folders that are read: the output must not hold them.

    Raises:
        D3MError: one of these is not so, or the place cannot be written.
    """
    try:
        place = followed(out)
        _keep_inputs(place, inputs)
        found = standing(place, kind)
        _refuse(found, kind, force)
        parent = place if found.state == "empty" or _stays(place, kind) else existing_parent(place)
    except (OSError, ValueError) as error:  # a name that is too long or not possible here, a folder without rights
        whose: Kind = "machine" if isinstance(error, OSError) and error.errno in OF_THE_MACHINE else "input"
        raise D3MError(f"The output folder cannot be used ({error}).", ANOTHER, whose) from error
    if not parent.is_dir():
        raise D3MError("The place of the output folder is a file.", ANOTHER)
    try:
        _new_folder(parent, PARTIAL).rmdir()
    except OSError as error:
        raise D3MError(
            f"The output folder cannot be written ({error.strerror or error}).",
            "Choose another --out, or change the folder's permissions.",
            "machine",
        ) from error


def check_place_of_work(folder: Path, ours: bool, what: str, option: str) -> None:
    """Find out whether work that is resumed may begin or go on in a folder, where it adds and replaces files.

    Args:
        folder: One that is not there, an empty one, or one in which such work was begun.
        ours: Whether a mark in it says that it was.
        what: As in "The folder holds something other than <what>."
        option: Names the folder.

    Raises:
        D3MError: somebody's files lie there, or its name is a file's or a link to nothing.
    """
    hint = f"Choose another {option}: a new folder."
    try:
        place = followed(folder)
    except D3MError as error:
        raise D3MError(f"{option} is a link to nothing.", hint) from error
    if not os.path.lexists(place):
        return
    if not place.is_dir():
        raise D3MError(f"{option} is a file.", hint)
    if ours:
        return
    with writing():
        others = sorted(path.name for path in place.iterdir() if path.name not in JUNK and not _is_left(path.name))
    if others:
        message = f"The folder holds something other than {what} ({others[0]!r}); nothing is written there."
        raise D3MError(message, hint)


def _is_left(name: str) -> bool:
    """Whether a file is what a run leaves that was killed as it began: a lock, or a part of its first file."""
    return name.startswith(".d3m-") or (name.startswith(".") and name.endswith(".partial"))


def check_space(out: Path, needed: int) -> None:
    """Find out before the work whether a disk has room.

    Args:
        out: The folder that is to be written.
        needed: Bytes, at the least.

    Raises:
        D3MError: it has not.
    """
    place = followed(out)
    with writing():
        free = shutil.disk_usage(place if place.is_dir() else existing_parent(place)).free
    if free < needed:
        raise D3MError(
            f"The disk is full: {free / 1e6:.0f} MB are free, and the result needs at least {needed / 1e6:.0f} MB.",
            "Free some space, or choose another --out.",
            "machine",
        )


def _refuse(found: Standing, kind: FolderKind, force: bool) -> None:
    if found.state == "file":
        raise D3MError(f"{found.name!r} is a file, not a folder for the output.", ANOTHER)
    if found.state == "foreign" or (found.state == "changed" and found.added):
        raise D3MError(
            f"The output folder holds something other than {kind.title} ({found.name!r}); it will not be replaced.",
            ANOTHER,
        )
    if found.state == "changed":
        raise D3MError(
            f"{found.name!r} in the output folder was changed after it was written; it will not be replaced.", ANOTHER
        )
    if found.state == "ours" and not force:
        raise D3MError("The output folder exists already.", "Choose another folder, or add --force to replace it.")


def _keep_inputs(place: Path, inputs: Iterable[Path]) -> None:
    if not place.is_dir():
        return
    for given in inputs:
        for path in {Path(os.path.abspath(given)), Path(os.path.realpath(given))}:  # noqa: PTH100 (links are kept)
            for folder in (path, *path.parents):
                if folder.exists() and folder.samefile(place):
                    raise D3MError(
                        f"The output folder is or holds an input ({given.name!r}).",
                        "Choose another --out: a folder of its own.",
                    )


def followed(out: Path) -> Path:
    """The absolute path that a folder's name stands for: links are followed.

    Raises:
        D3MError: it is a link to nothing.
    """
    place = Path(os.path.realpath(out))
    if place.is_symlink() or (out.is_symlink() and not place.exists()):
        raise D3MError("The output folder is a link to nothing.", "Repair or remove the link, or choose another --out.")
    return place


@contextlib.contextmanager
def whole_folder(out: Path, kind: FolderKind, replace: bool = True) -> Iterator[Path]:
    """A temporary folder that becomes `out` when the block ends well, and vanishes otherwise.

    An older folder of that name is only removed once the new one stands in its place. A folder that must stay what it
    is (empty, a mount point, the shell's own, one with files of others) gets the new files into it instead.
    `put_in_order` repairs what a kill leaves.

    Args:
        out: The folder; a link to one is followed.
        kind: What is written. Ask `check_output` before the work.
        replace: Whether an earlier folder of this kind, which nobody changed, is replaced.

    Raises:
        D3MError: the disk is full or cannot be written; the folder is there and must not be replaced: then what was
            made is kept beside it.
    """
    place = followed(out)
    partial: Path | None = None
    made: list[Path] = []
    try:
        made = [parent for parent in place.parents if not parent.exists()]
        place.parent.mkdir(parents=True, exist_ok=True)
        if sys.platform != "win32":  # there it cannot be known who is alive
            tidy(place)
        _refuse(standing(place, kind), kind, replace)
        inside = place.is_dir() and (standing(place, kind).state == "empty" or _stays(place, kind))
        partial = _new_folder(*((place, PARTIAL + _tag("")) if inside else (place.parent, PARTIAL + _tag(place.name))))
        with _marked(partial):
            yield partial
            write_manifest(partial, kind)
            _still_replaceable(partial, place, kind, replace)
            if inside:
                _move_in(partial, place, kind)
            elif place.exists():
                _exchange(partial, place)
            else:
                partial.rename(place)
    except BrokenPipeError:  # no disk's error: whoever read our progress is gone
        raise
    except OSError as error:
        raise disk_error(error) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
        if made and not place.exists():
            for parent in made:  # the innermost first; those that others use by now stay
                with contextlib.suppress(OSError):
                    parent.rmdir()


def _still_replaceable(partial: Path, place: Path, kind: FolderKind, replace: bool) -> None:
    """Look again after the work; where the folder must be left alone by now, keep what was made under another name."""
    try:
        _refuse(standing(place, kind), kind, replace)
    except D3MError as error:
        free = next(p for k in range(1, 10**6) if not os.path.lexists(p := place.with_name(f"{place.name}-{k}")))
        partial.rename(free)
        raise D3MError(
            "The output folder appeared or was changed meanwhile; it was left as it is.",
            f"The new result is in {free.name!r} beside it.",
        ) from error


def _stays(place: Path, kind: FolderKind) -> bool:
    """Whether a folder must stay what it is, so that new files are moved into it."""
    return place.is_dir() and (kind.shared or _is_fixed(place) or _is_underfoot(place))


def _is_fixed(place: Path) -> bool:
    """Whether a folder cannot be renamed: a mount point, or one whose parent cannot be written."""
    return place.is_dir() and (os.path.ismount(place) or not os.access(place.parent, os.W_OK | os.X_OK))


def _is_underfoot(place: Path) -> bool:
    """Whether this process, and so most likely the shell that started it, works in that folder."""
    try:
        here = Path.cwd().resolve()
    except OSError:  # a folder that is gone
        return False
    return place == here or place in here.parents


def _new_folder(parent: Path, prefix: str) -> Path:
    """Make a folder with a name of its own, with the rights that any program's folder gets there."""
    while True:
        folder = parent / f"{prefix}{secrets.token_hex(6)}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder


def _exchange(partial: Path, out: Path) -> None:
    """Put a whole folder in the place of an older one, which is gone afterwards."""
    if swap(partial, out):
        return
    older = partial.with_name(partial.name + OLDER)
    older.mkdir()
    try:  # a signal may come between any two of these lines
        out.rename(older / out.name)
        partial.rename(out)
    finally:
        if not out.exists():
            (older / out.name).rename(out)
        shutil.rmtree(older, ignore_errors=True)


def swap(one: Path, other: Path) -> bool:
    """Exchange two names in a single step, so that a kill finds either the old or the new; False where that is unknown.

    Linux (renameat2) and macOS (renamex_np) can; some file systems, network shares above all, cannot.

    Raises:
        OSError: the names cannot be exchanged.
    """
    first, second = os.fsencode(one), os.fsencode(other)
    if sys.platform == "linux" and (rename := getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)):
        failed = rename(AT_FDCWD, first, AT_FDCWD, second, RENAME_EXCHANGE)
    elif sys.platform == "darwin" and (rename := getattr(ctypes.CDLL(None, use_errno=True), "renamex_np", None)):
        failed = rename(first, second, RENAME_EXCHANGE)
    else:
        return False
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), str(other))


def _move_in(partial: Path, place: Path, kind: FolderKind) -> None:
    """Move a whole folder's files into one that stays; from the renaming on it is finished even after a kill."""
    older = written_files(place, kind)
    for name in read_manifest(partial) or {}:
        if name not in older and os.path.lexists(place / name):
            raise D3MError(
                f"The output folder holds {name!r}, which was not written by D3M; it will not be replaced.", ANOTHER
            )
    if older and not (place / MANIFEST).exists():  # of an earlier version: now its files are known in any case
        write_manifest(place, kind, older)
    ready = partial.with_name(READY + secrets.token_hex(6))
    partial.rename(ready)
    _finish_moving(ready, place)


def _finish_moving(ready: Path, place: Path) -> None:
    new = read_manifest(ready)
    if new is not None:
        here = [(path.stat().st_mtime_ns, name) for name in new if (path := ready / name).is_file()]
        for _, name in sorted(here):  # in the order in which they were written
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (ready / name).replace(place / name)
        for name in (read_manifest(place) or {}).keys() - new.keys():
            _remove_ours(place, name)
        (ready / MANIFEST).replace(place / MANIFEST)
    elif os.path.lexists(ready / MANIFEST):  # which cannot be read, perhaps only now: the result in it is kept
        return
    shutil.rmtree(ready, ignore_errors=True)


def _remove_ours(place: Path, name: str) -> None:
    """Remove a file that the new result does not have, and the folders that are empty then."""
    path = place / name
    path.unlink(missing_ok=True)
    for folder in path.parents:
        if folder == place:
            break
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextlib.contextmanager
def _marked(folder: Path) -> Iterator[None]:
    """Mark a temporary folder as in use: by a lock on the folder itself, which ends with its process."""
    if sys.platform == "win32":  # there nothing can be removed while a file in it is open
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _in_use(folder: Path) -> bool:
    """Whether a living process writes a temporary folder."""
    if sys.platform == "win32" or not folder.is_dir():
        return False
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        lock(descriptor)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _tag(name: str) -> str:
    """What tells a folder's own temporary folders from others'; short, since names have a limit."""
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:8] + "-"


def tidy(place: Path) -> None:
    """Put in order what killed runs left of one folder, beside it and in it; raises `OSError`."""
    put_in_order(place.parent, place.name)
    if place.is_dir():
        for ready in place.glob(READY + "*"):
            if not _in_use(ready):
                _finish_moving(ready, place)
        put_in_order(place, "")


def put_in_order(parent: Path, name: str | None = None) -> None:
    """Remove what killed runs left; an older result that one was replacing comes back.

    Args:
        parent: Where results are written.
        name: Of the one whose left-overs are meant; None: everybody's.

    Raises:
        OSError: an older result cannot be put back.
    """
    for path in sorted(parent.glob(PARTIAL + ("" if name is None else _tag(name)) + "*")):
        if path.is_symlink() or _in_use(path.with_name(path.name.removesuffix(OLDER))):
            continue
        if path.name.endswith(OLDER):
            for older in path.iterdir():
                if not (parent / older.name).exists():
                    older.rename(parent / older.name)
        shutil.rmtree(path, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder so that it is gone at once, even when this process is killed meanwhile; raises `OSError`."""
    gone = _new_folder(folder.parent, PARTIAL + _tag(folder.name))
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
    place = followed(out)
    parent = place if _is_fixed(place) else existing_parent(place)
    key = hashlib.sha256(os.fsencode(place)).hexdigest()[:16]
    with held(parent / f"{LOCK}{key}", "Another run is writing into this output folder."):
        if place.parent.is_dir():
            with writing():
                tidy(place)
        sweep(parent, LOCK)
        yield
