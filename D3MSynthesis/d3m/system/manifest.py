"""What we wrote into a folder, and whether it is still just that: only then may the folder be replaced.

Each folder that is written holds a manifest with size and hash of its files. A file that somebody changed, added or put
a link to is theirs, hidden ones included, and so is an empty folder that we did not make.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from d3m.system.storage import replace_text, write_text

MANIFEST = ".d3m-manifest.json"
PARTIAL = ".d3m-partial-"
"""Temporary folders begin with it; whatever is called so is not whole."""
READY = ".d3m-ready-"
"""So begin folders that are whole, and whose files are just being moved into the folder that they lie in."""
LOCK = ".d3m-lock-"
JUNK = frozenset((".DS_Store", "Thumbs.db", "desktop.ini"))
"""What file managers leave in every folder that they show."""
MAX_MANIFEST_BYTES = 1 << 26
NOTE = "What was written here. Files that differ from this list are never replaced or removed."


@dataclass(frozen=True)
class Written:
    """One file as it was written."""

    bytes: int
    sha256: str


Files = Mapping[str, Written]
"""Files by their path in the folder, with `/`."""


def _no_files(_: Path) -> Files:
    return {}


@dataclass(frozen=True)
class FolderKind:
    """A kind of folder that we write; only one of the same kind may be replaced."""

    name: str
    title: str
    """As in "The folder holds something other than <title>."."""
    earlier: Callable[[Path], Files] = _no_files
    """The files of a folder that a version without manifests wrote, as far as they are known by something else."""
    shared: bool = False
    """Whether files of others may lie in it; they stay where they are."""


@dataclass(frozen=True)
class Standing:
    """What lies under the name of a folder that is to be written."""

    state: Literal["nothing", "file", "empty", "ours", "changed", "foreign"]
    """`changed`: we wrote it, and somebody worked on it since. `foreign`: it is not of this kind at all."""
    name: str = ""
    """Of the first thing in it that is not as we wrote it."""
    added: bool = False
    """Whether we did not write that thing at all."""

    def reason(self) -> str:
        """In words, why a folder that was changed is left alone."""
        return f"{self.name!r} was {'added' if self.added else 'changed'} after the result was written."


def file_sha256(path: Path) -> str:
    """Content hash of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as f:
        for block in iter(lambda: f.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def write_manifest(folder: Path, kind: FolderKind, files: Files | None = None) -> None:
    """List what lies in a folder.

    Args:
        folder: The folder.
        kind: Its kind.
        files: What is listed; None: all files that are there now.

    Raises:
        OSError: it cannot be written.
    """
    if files is None:
        files = {
            name: Written(path.stat().st_size, file_sha256(path)) for name, path in _items(folder) if path.is_file()
        }
    listed = {name: {"bytes": entry.bytes, "sha256": entry.sha256} for name, entry in sorted(files.items())}
    content = {"software": "D3M for 3D Slicer", "note": NOTE, "kind": kind.name, "files": listed}
    write_text(folder / MANIFEST, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def relist(folder: Path, name: str) -> Iterator[None]:
    """While the block replaces a file of ours by a newer one: the manifest follows, unless somebody had changed it."""
    before = read_manifest(folder)
    path = folder / name
    ours = before is not None and name in before and path.is_file() and file_sha256(path) == before[name].sha256
    yield
    if before is not None and ours:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        content["files"][name] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        replace_text(folder / MANIFEST, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_manifest(folder: Path, kind: FolderKind | None = None) -> Files | None:
    """The files that a folder's manifest lists.

    Args:
        folder: The folder.
        kind: The manifest must be one of this kind; None: of any.

    Returns:
        None: it has no manifest, a damaged one, or one of another kind.
    """
    path = folder / MANIFEST
    try:
        if not stat.S_ISREG(path.lstat().st_mode) or path.stat().st_size > MAX_MANIFEST_BYTES:
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
        if kind is not None and content["kind"] != kind.name:
            return None
        files = {
            str(name): Written(int(entry["bytes"]), str(entry["sha256"])) for name, entry in content["files"].items()
        }
        inside = all(not PurePosixPath(name).is_absolute() and ".." not in name.split("/") for name in files)
        return files if inside else None  # one that leads out of its folder was made by somebody else
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def written_files(folder: Path, kind: FolderKind) -> Files:
    """The files of a folder as we wrote them, by its manifest, or else by what an earlier version left."""
    found = read_manifest(folder, kind)
    if found is None and not os.path.lexists(folder / MANIFEST):
        found = kind.earlier(folder)
    return found or {}


def standing(folder: Path, kind: FolderKind) -> Standing:
    """Find out whether a folder can be replaced without losing anything; links are not followed.

    Raises:
        OSError: it cannot be read.
    """
    if not os.path.lexists(folder):
        return Standing("nothing")
    if not stat.S_ISDIR(folder.lstat().st_mode):
        return Standing("file", folder.name, True)
    items = list(_items(folder))
    if not items:
        return Standing("empty")
    known = [written_files(folder, kind)]
    known += [read_manifest(ready, kind) or {} for ready in folder.glob(READY + "*")]  # a kill while it was replaced
    ours = {name: [files[name] for files in known if name in files] for files in known for name in files}
    if not ours:
        return Standing("foreign", items[0][0], True)
    folders = {"/".join(name.split("/")[:depth]) for name in ours for depth in range(1, name.count("/") + 1)}
    for name, path in items:
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode) and name in folders:
            continue
        if name not in ours:
            if kind.shared:
                continue
            return Standing("changed", name, True)
        if not stat.S_ISREG(mode) or not any(_unchanged(path, written) for written in ours[name]):
            return Standing("changed", name)
    return Standing("ours")


def _items(folder: Path) -> Iterator[tuple[str, Path]]:
    """Everything in a folder but what belongs to the writing itself: relative name and path; links not followed."""
    pending = [folder]
    while pending:
        place = pending.pop()
        for path in sorted(place.iterdir()):
            if path.name in JUNK:
                continue
            if place == folder and (path.name == MANIFEST or path.name.startswith((PARTIAL, READY, LOCK))):
                continue
            yield path.relative_to(folder).as_posix(), path
            if stat.S_ISDIR(path.lstat().st_mode):
                pending.append(path)


def _unchanged(path: Path, written: Written) -> bool:
    """Whether a file is as we wrote it, or damaged so that nobody's work can be in it: cut to nothing, or no gzip."""
    size = path.stat().st_size
    if size == written.bytes and file_sha256(path) == written.sha256:
        return True
    return size == 0 or (path.name.endswith(".gz") and size <= written.bytes and _is_cut(path))


def _is_cut(path: Path) -> bool:
    try:
        with gzip.open(path) as f:
            while f.read(1 << 20):
                pass
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return True
    return False
