"""Single files of ours among files of others: what somebody changed or put there keeps its content."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from d3m.batch.derivatives import start_derivatives
from d3m.batch.run import Row, copy_whole, write_summary
from d3m.system.own_files import LIST, is_own, write_own


def texts(folder: Path) -> dict[str, str]:
    """Names and contents, without our list."""
    return {path.name: path.read_text() for path in sorted(folder.iterdir()) if path.name != LIST}


def test_only_our_own_content_is_replaced(tmp_path: Path) -> None:
    """Our earlier text gives way; a user's file of that name, and a text that a user changed, get a number."""
    path = tmp_path / "summary.csv"
    path.write_text("mine")
    assert write_own(path, "one") == tmp_path / "summary-1.csv"
    assert write_own(path, "two") is None
    path.write_text("two, and my notes")
    assert write_own(path, "three") == tmp_path / "summary-2.csv"
    assert texts(tmp_path) == {"summary-1.csv": "mine", "summary-2.csv": "two, and my notes", "summary.csv": "three"}


def test_links_and_folders_are_not_ours(tmp_path: Path) -> None:
    """A link under that name is kept as a link, and what it leads to is not touched; so is a folder."""
    (tmp_path / "diary").write_text("dear diary")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.txt").symlink_to("../diary")
    (tmp_path / "out/b.txt").mkdir()
    for name in ("a.txt", "b.txt"):
        write_own(tmp_path / "out" / name, "ours")
        assert (tmp_path / "out" / name).read_text() == "ours"
    assert (tmp_path / "out/a-1.txt").is_symlink()
    assert (tmp_path / "out/b-1.txt").is_dir()
    assert (tmp_path / "diary").read_text() == "dear diary"


def test_a_kill_in_between_is_not_taken_for_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list names the new content before it is there: whichever a kill leaves is still known as ours."""
    path = tmp_path / "a.txt"
    write_own(path, "old")

    class KilledError(Exception):
        pass

    real = Path.replace

    def kill(self: Path, target: Path) -> Path:
        if Path(target).name == "a.txt":
            raise KilledError
        return real(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", kill)
        with pytest.raises(KilledError):
            write_own(path, "new")
    assert path.read_text() == "old"
    assert is_own(path)
    assert write_own(path, "newer") is None
    assert texts(tmp_path) == {"a.txt": "newer"}


def test_table_and_derivatives(tmp_path: Path) -> None:
    """A batch's table with a column of notes, and a README that was extended, survive the next run."""
    row = Row("a", "done", "", "", 1.0, 2.0, "")
    assert write_summary(tmp_path / "summary.csv", [row]) is None
    (tmp_path / "summary.csv").write_text("id,notes\na,looks fine\n")
    assert write_summary(tmp_path / "summary.csv", [row, row]) == tmp_path / "summary-1.csv"
    assert (tmp_path / "summary-1.csv").read_text() == "id,notes\na,looks fine\n"
    (tmp_path / "bids").mkdir()
    (tmp_path / "bids/dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    out = tmp_path / "derivatives"
    start_derivatives(tmp_path / "bids", out)
    start_derivatives(tmp_path / "bids", out)
    assert not list(out.glob("*-1*"))
    (out / "README").write_text("our lab's words")
    start_derivatives(tmp_path / "bids", out)
    assert (out / "README-1").read_text() == "our lab's words"
    copy_whole(tmp_path / "summary.csv", tmp_path / "copy.csv")
    assert is_own(tmp_path / "copy.csv")


def test_what_a_killed_run_left_goes_in_time(tmp_path: Path) -> None:
    """A temporary file of an hour ago is removed, one of a run that may still write is not."""
    old, new = tmp_path / ".summary.csv.0123456789ab.partial", tmp_path / ".summary.csv.ba9876543210.partial"
    for path in (old, new):
        path.write_text("half")
    os.utime(old, (old.stat().st_mtime - 7200,) * 2)
    write_own(tmp_path / "summary.csv", "whole")
    assert not old.exists()
    assert new.exists()
