"""The child process: what it says, how it ends, and that nothing of it stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from slicer_helpers import fake_engine

from D3MSynthesisLib.Worker import Outcome, Worker, childEnvironment, explainEnd, findPython, parseEvent

LIBRARY = str(Path(__file__).resolve().parents[2] / "D3MSynthesis")


class Heard:
    """A worker and what it told."""

    def __init__(
        self, folder: Path, behaviour: str, arguments: tuple[str, ...] = (), python: str | None = None
    ) -> None:
        self.events: list[dict[str, object]] = []
        self.outcomes: list[Outcome] = []
        self.package = fake_engine(folder, behaviour)
        self.folder = folder / "run"
        self.folder.mkdir()
        self.worker = Worker(self.events.append, self.outcomes.append, qt=False)
        self.worker.start(["synthesize", *arguments], self.folder, python, self.package)

    def until(self, name: str) -> str:
        """Wait for a file that the child writes; its contents."""
        path = self.package / name
        end = time.monotonic() + 60
        while not path.exists() or not path.read_text():
            self.worker.poll()
            assert time.monotonic() < end
            time.sleep(0.02)
        return path.read_text()

    def end(self) -> Outcome:
        """The outcome, which is told once."""
        assert self.worker.wait(30)
        (outcome,) = self.outcomes
        return outcome


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not fetched does not."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def gone(pid: int, seconds: float) -> bool:
    """Whether a process ends within this time."""
    end = time.monotonic() + seconds
    while alive(pid):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_success(tmp_path: Path) -> None:
    """Progress comes in order, the last line decides, and no process is left."""
    heard = Heard(tmp_path, "success")
    assert heard.end().status == "done"
    assert [event["stage"] for event in heard.events] == ["read", "sample"]
    assert not heard.worker.running


def test_garbage_goes_to_the_log(tmp_path: Path) -> None:
    """Lines that are no progress, broken UTF-8 and half lines disturb nothing and can be read in the log."""
    heard = Heard(tmp_path, "garbage")
    outcome = heard.end()
    assert outcome.status == "done"
    assert "not text" in heard.worker.log
    assert "{broken" in heard.worker.log
    assert "山 on stderr" in heard.worker.log


@pytest.mark.parametrize(
    "line", ["", "text", "{", "[]", "{}", '{"stage": 1}', "null", '{"stage": "a"', "[" * 100000, '{"a":' * 50000 + "}"]
)
def test_lines_that_are_no_events(line: str) -> None:
    """Nothing but an object with a stage is an event, and nothing makes the reader fail."""
    assert parseEvent(line) is None


def test_error_is_told_in_its_own_words(tmp_path: Path) -> None:
    """The engine's last line becomes kind, message and hint; stderr is kept for the details."""
    outcome = Heard(tmp_path, "error").end()
    assert (outcome.status, outcome.kind, outcome.exitCode) == ("error", "input", 2)
    assert (outcome.message, outcome.hint) == ("T2 has no orientation.", "Export it again.")
    assert "cannot be read" in outcome.details


def test_cancel_is_done_at_once_when_the_child_obeys(tmp_path: Path) -> None:
    """A child that obeys ends long before it would be killed."""
    heard = Heard(tmp_path, "slow")
    pid = int(heard.until("pid.txt"))
    start = time.monotonic()
    heard.worker.cancel()
    assert heard.worker.cancelling
    assert heard.end().status == "cancelled"
    assert time.monotonic() - start < 0.9
    assert gone(pid, 0.5)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no signals to ignore")
def test_cancel_kills_the_whole_tree_within_two_seconds(tmp_path: Path) -> None:
    """A child that ignores the request, and its own child, are gone in two seconds."""
    heard = Heard(tmp_path, "stubborn")
    pid, grandchild = int(heard.until("pid.txt")), int(heard.until("grandchild.txt"))
    start = time.monotonic()
    heard.worker.cancel()
    heard.worker.cancel()
    assert heard.end().status == "cancelled"
    assert gone(pid, 0.5)
    assert gone(grandchild, 0.5)
    assert time.monotonic() - start < 2


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_cancel_reaches_the_child_of_a_launcher(tmp_path: Path) -> None:
    """PythonSlicer is a launcher: the process that works is its child, and that one ends."""
    launcher = tmp_path / "PythonSlicer"
    launcher.write_text(f'#!/bin/sh\ntrap "" TERM\n"{sys.executable}" "$@"\nexit $?\n')
    launcher.chmod(0o755)
    heard = Heard(tmp_path, "stubborn", python=str(launcher))
    pid, grandchild = int(heard.until("pid.txt")), int(heard.until("grandchild.txt"))
    start = time.monotonic()
    heard.worker.cancel()
    assert heard.end().status == "cancelled"
    assert gone(pid, 0.5)
    assert gone(grandchild, 0.5)
    assert time.monotonic() - start < 2


def test_killed_child(tmp_path: Path) -> None:
    """A child that the system ended is an error of the machine, with memory as the likely reason."""
    outcome = Heard(tmp_path, "killed").end()
    assert (outcome.status, outcome.kind) == ("error", "machine")
    assert "memory" in outcome.message


def test_child_without_memory(tmp_path: Path) -> None:
    """A traceback about memory is told as such."""
    outcome = Heard(tmp_path, "memory").end()
    assert (outcome.kind, outcome.message) == ("machine", "Not enough memory on this machine.")


def test_missing_package_is_named(tmp_path: Path) -> None:
    """A package that is not installed is named, with the way to get it."""
    outcome = Heard(tmp_path, "missing").end()
    assert "a_package_that_is_not_there" in outcome.message
    assert "install" in outcome.hint


def test_end_without_a_word() -> None:
    """Whatever a child ends with, there is a sentence."""
    for code in (0, 1, 3, -9, -11, 137, None):
        kind, message, hint = explainEnd(code, "")
        assert kind in ("machine", "defect")
        assert message
        assert hint


def test_interpreter_that_is_not_there(tmp_path: Path) -> None:
    """A Python that cannot be started leaves the worker ready for another try."""
    worker = Worker(print, print, qt=False)
    for _ in range(2):
        with pytest.raises(OSError, match="no-python"):
            worker.start([], tmp_path, str(tmp_path / "no-python"))
        assert not worker.running


def test_poisoned_environment_does_not_reach_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables and packages of another Python, and a module beside the run's files, are not seen by the child."""
    poison = tmp_path / "poison"
    poison.mkdir()
    for name in ("numpy", "torch", "json", "d3m", "re"):
        (poison / f"{name}.py").write_text("raise ImportError('poisoned')")
    monkeypatch.setenv("PYTHONPATH", str(poison))
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(poison))
    monkeypatch.setenv("PYTHONUSERBASE", str(poison))
    monkeypatch.setenv("PYTHONSTARTUP", str(poison / "re.py"))
    monkeypatch.chdir(poison)
    heard = Heard(tmp_path, "environment")
    (heard.folder / "numpy.py").write_text("raise ImportError('poisoned')")
    outcome = heard.end()
    assert outcome.status == "done", outcome.details
    seen = json.loads(outcome.output)
    for name in ("PYTHONHOME", "PYTHONPATH", "LD_LIBRARY_PATH", "PYTHONUSERBASE", "PYTHONSTARTUP"):
        assert name not in seen["env"]
    assert (seen["env"]["PYTHONNOUSERSITE"], seen["env"]["PYTHONUTF8"], seen["flags"]) == ("1", "1", 1)
    assert Path(seen["file"]).parent == heard.package
    assert not [
        path for path in seen["path"] if path in ("", ".", str(poison), str(heard.folder), str(heard.package.parent))
    ]


def test_slicers_python_is_preferred_and_the_users_choice_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside Slicer it is this interpreter."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert findPython() == sys.executable
    launcher = tmp_path / "PythonSlicer"
    launcher.write_text("#!/bin/sh\n")
    launcher.chmod(0o755)
    assert findPython() == str(launcher)
    assert findPython("/usr/bin/python3") == "/usr/bin/python3"
    monkeypatch.setenv("LAUNCHER_PYTHONHOME", "x")
    assert "LAUNCHER_PYTHONHOME" in childEnvironment(str(launcher))
    assert "LAUNCHER_PYTHONHOME" not in childEnvironment("/usr/bin/python3")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_parent_killed(tmp_path: Path) -> None:
    """When Slicer is killed, the real engine's child ends within five seconds and takes the run's folder with it."""
    package = fake_engine(tmp_path, "slow")
    main = package / "__main__.py"
    main.write_text(  # the engine's own watch over its parent, around a long sleep
        "import pathlib, sys, time\n"
        f"sys.path.insert(0, {LIBRARY!r})\n"
        "del sys.modules['d3m']\n"
        "from d3m.system.console import Reporter, session\n"
        "(pathlib.Path(__file__).parent / 'pid.txt').write_text(str(__import__('os').getpid()))\n"
        "with session(Reporter('json'), int(sys.argv[1])):\n    time.sleep(60)\n"
    )
    run = tmp_path / "run"
    run.mkdir()
    script = (
        f"import sys; sys.path.insert(0, {LIBRARY!r})\nimport os\nfrom pathlib import Path\n"
        "from D3MSynthesisLib.Worker import Worker\n"
        "w = Worker(print, print, qt=False)\n"
        f"w.start([str(os.getpid())], Path({str(run)!r}), None, Path({str(package)!r}))\n"
        "w.wait()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL)
    try:
        path, end = package / "pid.txt", time.monotonic() + 60
        while not path.exists() or not path.read_text():
            assert time.monotonic() < end
            time.sleep(0.05)
        time.sleep(0.3)
        pid = int(path.read_text())
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        assert gone(pid, 5)
        assert not run.exists()
    finally:
        parent.kill()
