"""The batch script, as a process without Slicer, over the real engine and over one that only speaks its protocol."""

from __future__ import annotations

import csv
import importlib.util
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from slicer_helpers import fake_engine

from conftest import TinyCase

pytestmark = pytest.mark.long

SCRIPT = Path(__file__).parents[2] / "D3MSynthesis" / "Resources" / "Scripts" / "batch_synthesis.py"


def call(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the script as a user does."""
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", cwd=cwd, timeout=240)


def script() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("batch_synthesis", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_folder_of_cases_with_a_bad_one_and_again(tiny_case: TinyCase, tiny_model: Path, tmp_path: Path) -> None:
    """A bad case is told and stops nothing; relative paths hold; the second run skips what is done."""
    for name in ("A", "B"):
        folder = tmp_path / "cases" / name
        folder.mkdir(parents=True)
        for kind in ("t1", "t2", "flair"):
            shutil.copy(getattr(tiny_case, kind), folder / f"{name}_{kind}.nii.gz")
    (tmp_path / "cases" / "B" / "B_t2.nii.gz").write_bytes(b"no scan")
    options = ("--model", tiny_model, "--quality", "preview", "--device", "cpu")
    first = call("cases", "out", *options, cwd=tmp_path)
    assert first.returncode == 2, first.stderr
    assert "1 of 2 cases failed" in first.stderr
    assert "Traceback" not in first.stderr
    with (tmp_path / "out" / "summary.csv").open(encoding="utf-8") as f:
        rows = {row["id"]: row["status"] for row in csv.DictReader(f)}
    assert rows == {"A": "done", "B": "failed"}
    assert (tmp_path / "out" / "A" / "cemri.nii.gz").is_file()
    shutil.copy(tiny_case.t2, tmp_path / "cases" / "B" / "B_t2.nii.gz")
    second = call("cases", "out", *options, cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    with (tmp_path / "out" / "summary.csv").open(encoding="utf-8") as f:
        rows = {row["id"]: row["status"] for row in csv.DictReader(f)}
    assert rows == {"A": "skipped", "B": "done"}


def test_wrong_requests_end_with_a_sentence(tmp_path: Path) -> None:
    """Nothing given, nothing found, and an interpreter that is not there: an exit code and a sentence, no traceback."""
    assert call().returncode == 2
    ended = call(tmp_path / "nothing", tmp_path / "out")
    assert ended.returncode == 2
    assert "'nothing' does not exist" in ended.stderr
    assert "Traceback" not in ended.stderr
    ended = call(tmp_path, tmp_path / "out", "--python", tmp_path / "python-that-is-not-there")
    assert ended.returncode == 3
    assert "cannot be started" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("behaviour", "code"), [("finish", 0), ("garbage", 0), ("error", 2), ("killed", 3), ("memory", 3)]
)
def test_exit_code_tells_how_it_ended(behaviour: str, code: int, tmp_path: Path) -> None:
    """Whatever the engine does, the exit code says what it was."""
    engine = fake_engine(tmp_path, behaviour)
    assert script().runBatch(tmp_path, tmp_path / "out", [], engine=engine) == code


@pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX")
def test_interrupt_leaves_no_process(tmp_path: Path) -> None:
    """Ctrl+C ends the engine, also one that does not listen, and what it has started, and exits with 130."""
    engine = fake_engine(tmp_path, "stubborn")
    code = f"""
import importlib.util, pathlib, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
spec = importlib.util.spec_from_file_location("batch_synthesis", {str(SCRIPT)!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
folder = pathlib.Path({str(tmp_path)!r})
sys.exit(module.runBatch(folder, folder / "out", [], engine=folder / "d3m"))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 30
    while not (engine / "pid.txt").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 130, text
    assert "again" in text
    for name in ("pid.txt", "grandchild.txt"):
        assert ended(int((engine / name).read_text())), name


def ended(pid: int) -> bool:
    """Whether a process is gone, or only waits to be reaped, within ten seconds: the machine may be busy."""
    stat = Path(f"/proc/{pid}/stat")
    for _ in range(200):
        if not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False
