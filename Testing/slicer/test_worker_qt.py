"""The worker over a QProcess, as in the application; PySide stands in for Slicer's own Qt bindings."""

from __future__ import annotations

import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import pytest
from slicer_helpers import fake_engine

from D3MSynthesisLib.Worker import Outcome, Worker

core = pytest.importorskip("PySide6.QtCore")
widgets = pytest.importorskip("PySide6.QtWidgets")


class Process(core.QProcess):
    """A QProcess whose signals are connected by their signatures, as Slicer's bindings have it."""

    def connect(self, signature: str, slot: Callable[..., None]) -> None:
        """Connect a signal that is named as in C++."""
        getattr(self, signature.split("(")[0]).connect(slot)


QT = types.SimpleNamespace(QProcess=Process, QProcessEnvironment=core.QProcessEnvironment, QTimer=core.QTimer)


class Run:
    """A run of the fake engine that is watched through Qt's event loop."""

    def __init__(self, folder: Path, behaviour: str) -> None:
        self.application = widgets.QApplication.instance() or widgets.QApplication([])
        self.engine = fake_engine(folder, behaviour)
        self.folder = folder
        self.events: list[dict[str, object]] = []
        self.ends: list[Outcome] = []
        self.worker = Worker(self.events.append, self.ends.append, qt=QT)
        self.worker.start(["synthesize"], folder, sys.executable, self.engine)

    def until(self, condition: Callable[[], object], seconds: float = 30) -> None:
        """Let Qt work until something is so."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.worker.log
            self.application.processEvents()
            time.sleep(0.01)


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has reaped yet counts."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def test_success(tmp_path: Path) -> None:
    """Events and the end come by themselves, without anybody asking."""
    run = Run(tmp_path, "finish")
    run.until(lambda: run.ends)
    assert run.ends[0].status == "done"
    assert [event["stage"] for event in run.events] == ["read", "sample"]
    assert not run.worker.running


def test_garbage_and_split_characters(tmp_path: Path) -> None:
    """What is no progress goes to the log, whole characters whatever the pieces it came in."""
    run = Run(tmp_path, "garbage")
    run.until(lambda: run.ends)
    assert run.ends[0].status == "done"
    assert "山 on stderr" in run.worker.log
    assert "no newline yet" in run.worker.log


@pytest.mark.parametrize(
    ("behaviour", "kind", "part"),
    [("error", "input", "T2 has no orientation."), ("killed", "machine", "signal 9"), ("memory", "machine", "memory")],
)
def test_errors(behaviour: str, kind: str, part: str, tmp_path: Path) -> None:
    """An error line, a crash and too little memory are told apart as with a plain subprocess."""
    run = Run(tmp_path, behaviour)
    run.until(lambda: run.ends)
    assert (run.ends[0].status, run.ends[0].kind) == ("error", kind)
    assert part in run.ends[0].message


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks processes up in /proc")
def test_cancel_kills_the_whole_tree_within_two_seconds(tmp_path: Path) -> None:
    """A child that does not listen, and what it has started, are gone; the loop stays alive meanwhile."""
    run = Run(tmp_path, "stubborn")
    run.until((run.engine / "pid.txt").exists)
    pids = [int((run.engine / name).read_text()) for name in ("pid.txt", "grandchild.txt")]
    asked = time.monotonic()
    run.worker.cancel()
    assert time.monotonic() - asked < 0.2
    run.until(lambda: run.ends, 5)
    assert time.monotonic() - asked < 2
    assert run.ends[0].status == "cancelled"
    run.until(lambda: all(map(gone, pids)), 2)


def test_shutdown_does_not_need_the_loop(tmp_path: Path) -> None:
    """When the application closes, no event is handled any more: the child ends nevertheless, and is told once."""
    run = Run(tmp_path, "stubborn")
    run.until((run.engine / "pid.txt").exists)
    asked = time.monotonic()
    run.worker.shutdown()
    assert time.monotonic() - asked < 2.5
    assert len(run.ends) == 1
    run.application.processEvents()
    assert len(run.ends) == 1


def test_interpreter_that_is_not_there(tmp_path: Path) -> None:
    """An error at once, and the worker can be used again."""
    worker = Worker(print, print, qt=QT)
    with pytest.raises(OSError, match="interpreter"):
        worker.start([], tmp_path, str(tmp_path / "no-python"))
    assert not worker.running
