"""How much memory and how many cores a run may use: control groups of both versions, limits of the shell, quotas."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from d3m.batch import workers
from d3m.errors import D3MError
from d3m.system import limits
from engine.command_helpers import environment

GIB = 2**30


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 64 cores and 200 GiB, without limits: its folder of control groups."""
    monkeypatch.setattr(limits, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(limits, "PROC", tmp_path / "proc")
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 200 * GIB // 4096}[name])
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    monkeypatch.setattr(limits, "_resource", lambda *names: [])
    write(tmp_path / "proc/meminfo", f"MemTotal: {200 * 2**20} kB\nMemAvailable: {180 * 2**20} kB\n")
    write(tmp_path / "proc/self/cgroup", "0::/\n")
    (tmp_path / "cgroup").mkdir()
    return tmp_path


def write(path: Path, text: str) -> None:
    """A file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_no_limits(machine: Path) -> None:
    """Where nothing is limited the machine's own numbers hold."""
    assert limits.memory_limit() == 200 * GIB
    assert limits.free_together() == 180 * GIB
    assert limits.cores() == 64
    limits.check_memory(2 * GIB, "A case")


def test_version_2(machine: Path) -> None:
    """The group's own files, and those of the groups above it: the tightest counts."""
    write(machine / "proc/self/cgroup", "0::/jobs/one\n")
    write(machine / "cgroup/jobs/one/memory.max", "max\n")
    write(machine / "cgroup/jobs/memory.max", f"{3 * GIB}\n")
    write(machine / "cgroup/jobs/memory.current", f"{2 * GIB}\n")
    write(machine / "cgroup/jobs/memory.stat", f"anon 1\ninactive_file {GIB}\n")
    write(machine / "cgroup/jobs/one/cpu.max", "200000 100000\n")
    write(machine / "cgroup/jobs/cpu.max", "max 100000\n")
    assert limits.memory_limit() == 3 * GIB
    assert limits.free_together() == 2 * GIB  # what is kept of files would be given back
    assert limits.cores() == 2


def test_version_1(machine: Path) -> None:
    """Separate controllers; a huge number stands for no limit; a container sees its own group as the top."""
    write(machine / "proc/self/cgroup", "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/x\n")
    write(machine / "cgroup/memory/memory.limit_in_bytes", f"{4 * GIB}\n")
    write(machine / "cgroup/memory/memory.usage_in_bytes", f"{GIB}\n")
    write(machine / "cgroup/cpu,cpuacct/cpu.cfs_quota_us", "150000\n")
    write(machine / "cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    assert limits.memory_limit() == 4 * GIB
    assert limits.free_together() == 3 * GIB
    assert limits.cores() == 2
    write(machine / "cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    write(machine / "cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n")
    assert limits.memory_limit() == 200 * GIB
    assert limits.cores() == 64


@pytest.mark.parametrize("text", ["", "odd", "-5", "\xff", "1e9"])
def test_odd_files_are_no_limits(text: str, machine: Path) -> None:
    """What a kernel of tomorrow may write there costs nobody a run."""
    for name in ("memory.max", "memory.high", "memory.current", "memory.stat", "cpu.max"):
        (machine / "cgroup" / name).write_bytes(text.encode("latin-1"))
    write(machine / "proc/self/cgroup", text or "0::/\n")
    assert limits.memory_limit() == 200 * GIB
    assert limits.cores() == 64


def test_workers_go_by_memory(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 visible cores in a container of 3 GiB: two workers, not 32 that are killed; at least one in any case."""
    monkeypatch.setattr("d3m.system.devices.visible_gpus", list)
    assert workers.count_workers("cpu", GIB) == 32
    write(machine / "cgroup/memory.max", f"{3 * GIB}\n")
    assert workers.count_workers("cpu", int(1.3 * GIB)) == 2
    assert workers.count_workers("cpu", 5 * GIB) == 1
    write(machine / "cgroup/memory.max", "max\n")
    write(machine / "cgroup/cpu.max", "800000 100000\n")
    assert workers.count_workers("cpu", GIB) == 4


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
@pytest.mark.parametrize(("limit", "expected"), [("-m 3145728", 3 * GIB), ("-v 2097152", 2 * GIB)])
def test_limits_of_the_shell(limit: str, expected: int) -> None:
    """`ulimit -m` counts for all processes together, `ulimit -v` for each of them."""
    name = "memory_limit" if limit.startswith("-m") else "process_limit"
    code = f"from d3m.system.limits import {name}; print({name}())"
    done = subprocess.run(
        ["bash", "-c", f'ulimit {limit}; "{sys.executable}" -c "{code}"'],
        capture_output=True, text=True, timeout=120, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= expected
    assert int(done.stdout) == expected or limit.startswith("-m")  # the machine may have less


def test_too_little_memory_is_a_sentence(machine: Path) -> None:
    """Both numbers, what to change, and the exit code of the machine's faults."""
    write(machine / "cgroup/memory.max", f"{GIB}\n")
    with pytest.raises(
        D3MError, match=r"A case needs about 1\.3 GiB of memory, and this run may use 1\.0 GiB"
    ) as caught:
        limits.check_memory(int(1.3 * GIB), "A case")
    assert caught.value.exit_code == 3
