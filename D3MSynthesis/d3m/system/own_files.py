"""Single files of ours in a folder that others use, too: what somebody put in their place or changed is kept."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from d3m.system.manifest import file_sha256
from d3m.system.storage import write_text

LIST = ".d3m-files.json"
"""Names the files of ours in a folder, each with the hashes of its last two contents: a kill may leave either."""
ABANDONED_S = 3600.0
"""A file is written in seconds; what is so old belongs to no living run."""
NOTE = "Files that were written here, by hash. One that differs is somebody's and is kept under another name."


def write_own(path: Path, text: str) -> Path | None:
    """Write a text file whole or not at all over its earlier self.

    Args:
        path: The file, which several processes may write.
        text: Its content.

    Returns:
        Where a file that lay there and was not as we wrote it is now; None if there was none.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    with owning(path, hashlib.sha256(text.encode()).hexdigest()) as (partial, kept):
        write_text(partial, text)
    return kept


@contextlib.contextmanager
def owning(path: Path, sha256: str) -> Iterator[tuple[Path, Path | None]]:
    """A temporary file that takes the place of `path` when the block ends well.

    Args:
        path: The file.
        sha256: Hash of what the block writes.

    Yields:
        The temporary file, and where a file of somebody else is now that lay at `path`.
    """
    kept = None
    if os.path.lexists(path) and not is_own(path, sha256):
        kept = next(p for k in range(1, 10**6) if not os.path.lexists(p := _numbered(path, k)))
        path.rename(kept)
    partial = _beside(path)
    try:
        yield partial, kept
        _note(path, sha256)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def is_own(path: Path, *also: str) -> bool:
    """Whether a file is as we wrote it, or has one of the hashes given."""
    if path.is_symlink() or not path.is_file():
        return False
    return file_sha256(path) in {*_listed(path.parent).get(path.name, []), *also}


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


def _beside(path: Path) -> Path:
    """A name for a temporary file; what runs that were killed long ago left under such a name is removed."""
    for older in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        with contextlib.suppress(OSError):
            if time.time() - older.lstat().st_mtime > ABANDONED_S:
                older.unlink()
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")


def _listed(folder: Path) -> dict[str, list[str]]:
    try:
        content = json.loads((folder / LIST).read_text(encoding="utf-8"))
        return {str(name): [str(one) for one in hashes] for name, hashes in content["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _note(path: Path, sha256: str) -> None:
    listed = _listed(path.parent)
    before = listed.get(path.name, [])
    if before[-1:] == [sha256]:
        return
    listed[path.name] = [*before[-1:], sha256]
    partial = _beside(path.parent / LIST)
    try:
        write_text(partial, json.dumps({"note": NOTE, "files": listed}, indent=1, ensure_ascii=False) + "\n")
        partial.replace(path.parent / LIST)
    finally:
        partial.unlink(missing_ok=True)
