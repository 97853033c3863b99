"""Locks: one holder, whatever the clocks say, and none after its process is gone."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from d3m.system import locks
from d3m.system.folders import claim
from d3m.system.manifest import LOCK
from engine.command_helpers import environment

HOLDER = (
    "import sys; from pathlib import Path; from d3m.system.locks import hold\n"
    "with hold(Path(sys.argv[1])) as ours: print(ours, flush=True); input()\n"
)


def holder(path: Path) -> subprocess.Popen[str]:
    """A process that holds a lock."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment())
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("container", [False, True])
@pytest.mark.parametrize("jump", [-86400, 3600, 10 * 365 * 86400])
def test_clock_that_jumps(jump: int, container: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock looks old, or from the future, since a clock was set: its living holder keeps it, even a suspended one.

    So does one in another container, whose process number says nothing here.
    """
    monkeypatch.setattr(locks, "LOOK_S", 0.02)
    monkeypatch.setattr(locks, "WATCH_S", 0.2)
    path = tmp_path / "case"
    process = holder(path)
    try:
        os.kill(process.pid, signal.SIGSTOP)  # it cannot touch its lock meanwhile
        if container:
            owner = json.loads(path.read_text())
            path.write_text(json.dumps(owner | {"place": owner["place"] + "1"}))
        os.utime(path, (time.time() - jump,) * 2)
        with locks.hold(path) as ours:
            assert not ours
        os.kill(process.pid, signal.SIGCONT)
        process.communicate("\n")
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_killed_holder_blocks_nobody(tmp_path: Path) -> None:
    """After kill -9 the lock is free at once, and its file does not stay behind, nor does that of a sibling."""
    path = tmp_path / f"{LOCK}1"
    process = holder(path)
    process.kill()
    process.communicate()
    assert path.exists()
    with locks.hold(path) as ours:
        assert ours
    assert list(tmp_path.iterdir()) == []
    for name in ("gone", "living"):
        process = holder(tmp_path / f"{LOCK}{name}")
        if name == "gone":
            process.kill()
            process.communicate()
    with claim(tmp_path / "out"):
        assert {path.name for path in tmp_path.glob(f"{LOCK}*")} >= {f"{LOCK}living"}
        assert not (tmp_path / f"{LOCK}gone").exists()
    process.communicate("\n")
    assert list(tmp_path.iterdir()) == []


def _race(path: Path, found: Path, barrier: Barrier) -> None:
    barrier.wait()
    with locks.hold(path) as ours:
        if ours:
            (found / str(os.getpid())).touch()
        barrier.wait()  # held until all have tried


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.parametrize("works", [True, False])
def test_one_of_many_takes_over_a_dead_holder(works: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight processes find the lock of a process that is gone: exactly one gets it, also where no system locks work."""
    if not works:
        monkeypatch.setattr(locks, "_try", lambda descriptor: None)
    context = multiprocessing.get_context("fork")
    dead = context.Process(target=time.sleep, args=(0,))
    dead.start()
    pid = dead.pid
    dead.join()
    lock, found = tmp_path / "locks/case", tmp_path / "found"
    found.mkdir()
    lock.parent.mkdir()
    for _ in range(3):
        lock.write_text(json.dumps({"machine": locks._machine(), "place": locks._place(), "pid": pid}))
        barrier = context.Barrier(8)
        racers = [context.Process(target=_race, args=(lock, found, barrier)) for _ in range(8)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        (winner,) = found.iterdir()
        winner.unlink()
        assert list(lock.parent.iterdir()) == []


@pytest.mark.parametrize("works", [True, False])
def test_lock_of_another_machine(works: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether its process lives cannot be seen: it holds while it is young, and while somebody is seen touching it."""
    monkeypatch.setattr(locks, "LOOK_S", 0.02)
    monkeypatch.setattr(locks, "WATCH_S", 0.6)
    if not works:
        monkeypatch.setattr(locks, "_try", lambda descriptor: None)
    lock = tmp_path / "case"
    lock.write_text(json.dumps({"machine": "elsewhere", "place": "elsewhere:0", "pid": 1}))
    with locks.hold(lock) as ours:
        assert not ours
    old = time.time() - locks.STALE_S - 1
    os.utime(lock, (old, old))
    touching = threading.Timer(0.2, lambda: os.utime(lock, (old + 1, old + 1)))  # by a clock that is behind
    touching.start()
    with locks.hold(lock) as ours:
        assert not ours
    touching.join()
    with locks.hold(lock) as ours:
        assert ours
    assert not lock.exists()
