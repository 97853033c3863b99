"""Single files of ours in a folder that others use, too: what somebody put in their place or changed is kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from d3m.system.manifest import file_sha256
from d3m.system.storage import replace_text, replacing, write_text

LIST = ".d3m-files.json"
"""Names the files of ours in a folder, each with the hashes of its last two contents: a kill may leave either."""
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
    with replacing(path) as partial:
        yield partial, kept
        _note(path, sha256)


def is_own(path: Path, *also: str) -> bool:
    """Whether a file is as we wrote it, or has one of the hashes given."""
    if path.is_symlink() or not path.is_file():
        return False
    return file_sha256(path) in {*_listed(path.parent).get(path.name, []), *also}


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


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
    content = {"note": NOTE, "files": listed}
    replace_text(path.parent / LIST, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
