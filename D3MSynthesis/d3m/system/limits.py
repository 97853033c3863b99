"""How much memory and how many cores this process may really use. Does not import torch.

A container, a batch system or `ulimit` often grants less than the machine has, and ends who takes more.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from d3m.errors import D3MError

CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")
UNLIMITED = 2**60
"""Bytes; cgroup v1 writes a number of this size for "no limit"."""


def memory_limit() -> int | None:
    """Bytes that all processes of this run may have together; None if unknown.

    The smallest of the machine's memory, the limits of control groups (v1 and v2, each group above, too), and
    `ulimit -m`, which Linux itself does not enforce, but batch systems do.
    """
    return min(_limits(), default=None)


def process_limit() -> int | None:
    """Bytes of address space that one process may have (`ulimit -v`, `ulimit -d`); None for as many as it likes."""
    return min(_resource("RLIMIT_AS", "RLIMIT_DATA"), default=None)


def free_together() -> int | None:
    """Bytes that all processes of this run can still have without any being swapped or ended; None if unknown."""
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError), (PROC / "meminfo").open(encoding="ascii") as f:
        found += [int(line.split()[1]) * 1024 for line in f if line.startswith("MemAvailable")]
    for group, v2 in _groups("memory"):
        limit = _number(group / ("memory.max" if v2 else "memory.limit_in_bytes"))
        used = _number(group / ("memory.current" if v2 else "memory.usage_in_bytes"))
        if limit is not None and used is not None:
            found.append(max(0, limit - used + _reclaimable(group)))
    found += _resource("RLIMIT_RSS")
    return min(found, default=None)


def free_memory() -> int | None:
    """As `free_together`, for this process alone: with what is left of its address space."""
    found = [free_together()]
    limit = process_limit()
    if limit is not None:
        with contextlib.suppress(OSError, ValueError, IndexError):
            pages = int((PROC / "self/statm").read_text(encoding="ascii").split()[0])
            found.append(max(0, limit - pages * os.sysconf("SC_PAGE_SIZE")))
    return min((one for one in found if one is not None), default=None)


def cores() -> int:
    """Cores that this process may keep busy: those that it is bound to, or fewer by a container's quota."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = []
    for group, v2 in _groups("cpu"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            if v2:
                quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
            else:
                quota = (group / "cpu.cfs_quota_us").read_text(encoding="ascii")
                period = (group / "cpu.cfs_period_us").read_text(encoding="ascii")
            if int(quota) > 0 and int(period) > 0:  # "max" is no number; -1 is none
                quotas.append(int(quota) / int(period))
    return max(1, min([bound, *(round(quota) for quota in quotas)]))


def check_memory(need: int, what: str) -> None:
    """Find out before the work whether memory can suffice: who takes more than a limit is killed without a word.

    Args:
        need: Bytes.
        what: What needs them: "A case".

    Raises:
        D3MError: the limit of memory is below the need; which one is named.
    """
    together, alone = memory_limit(), process_limit()
    if together is not None and together < need:
        raise D3MError(
            f"{what} needs about {_gib(need)} of memory, and this run may use {_gib(together)}.",
            "Raise the limit of the container, the batch system or `ulimit -m`, or use a machine with more memory.",
            "machine",
        )
    if alone is not None and alone < need:
        raise D3MError(
            f"{what} needs about {_gib(need)} of memory, and `ulimit -v` or `-d` grants {_gib(alone)}.",
            "Raise that limit: `ulimit -v unlimited`.",
            "machine",
        )


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def _limits() -> Iterator[int]:
    with contextlib.suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        yield os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for group, v2 in _groups("memory"):
        for name in ("memory.max", "memory.high") if v2 else ("memory.limit_in_bytes",):
            number = _number(group / name)
            if number is not None:
                yield number
    yield from _resource("RLIMIT_RSS")


def _resource(*names: str) -> list[int]:
    """Soft limits of the process; those that are not set are left out."""
    if sys.platform == "win32":
        return []
    import resource

    found = []
    for name in names:
        if hasattr(resource, name):
            soft = resource.getrlimit(getattr(resource, name))[0]
            found += [soft] if 0 <= soft < UNLIMITED else []
    return found


def _number(path: Path) -> int | None:
    """A limit, or None for "max", for what stands for it, and for what cannot be read."""
    try:
        number = int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return number if 0 < number < UNLIMITED else None


def _reclaimable(group: Path) -> int:
    """Bytes of files that a group keeps in memory and would give back."""
    with contextlib.suppress(OSError, ValueError, IndexError), (group / "memory.stat").open(encoding="ascii") as f:
        kept = [int(line.split()[1]) for line in f if line.startswith(("inactive_file ", "total_inactive_file "))]
        return max(kept, default=0)
    return 0


def _groups(controller: str) -> Iterator[tuple[Path, bool]]:
    """Folders of this process's control groups, the innermost first, and whether they are of version 2.

    Inside a container the path that the kernel names may not be there: its own group is then the top.
    """
    try:
        lines = (PROC / "self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" and not names:
            top, v2 = CGROUPS, True
        elif controller in names.split(","):
            top, v2 = next((p for p in (CGROUPS / controller, CGROUPS / names) if p.is_dir()), CGROUPS), False
        else:
            continue
        inner = top / path.lstrip("/")
        while inner != top and top in inner.parents:
            if inner.is_dir():
                yield inner, v2
            inner = inner.parent
        yield top, v2
