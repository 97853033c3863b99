"""How much memory this process may still have: the machine's, the container's, and the limit of the user's shell.

Does not import torch.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
V2, V1 = ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")
"""Limit and use in control groups of versions 2 and 1 (Linux, Documentation/admin-guide/cgroup-v2.rst, cgroup-v1)."""


def free_bytes() -> int | None:
    """Bytes that this process can still get; None where the system does not tell."""
    known = [amount for amount in (_machine(), _container(), _shell()) if amount is not None]
    return min(known, default=None)


def _field(path: str, name: str) -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError), Path(path).open(encoding="ascii") as file:
        return next((int(line.split()[1]) * 1024 for line in file if line.startswith(name)), None)
    return None


def _machine() -> int | None:
    return _field("/proc/meminfo", "MemAvailable:")


def _container() -> int | None:
    """What the nearest control group with a limit leaves; the page cache in its use can be had back."""
    places = [(ROOT, V2), (ROOT / "memory", V1)]
    with contextlib.suppress(OSError, ValueError), Path("/proc/self/cgroup").open(encoding="utf-8") as file:
        for line in file:
            _, kinds, path = line.strip().split(":", 2)
            own = (ROOT, V2) if not kinds else (ROOT / "memory", V1) if "memory" in kinds.split(",") else None
            if own is not None:
                inner = own[0] / path.lstrip("/")
                places += [
                    (folder, own[1]) for folder in (inner, *inner.parents) if own[0] in (folder, *folder.parents)
                ]
    left = []
    for folder, (limit, used) in places:
        with contextlib.suppress(OSError, ValueError):  # no such group, or "max"
            most = int((folder / limit).read_text(encoding="ascii"))
            cache = _cache(folder / "memory.stat")
            left.append(max(most - int((folder / used).read_text(encoding="ascii")) + cache, 0))
    return min(left, default=None)


def _cache(statistics: Path) -> int:
    names = ("inactive_file", "total_inactive_file")
    with contextlib.suppress(OSError, ValueError), statistics.open(encoding="ascii") as file:
        return max((int(line.split()[1]) for line in file if line.split()[0] in names), default=0)
    return 0


def _shell() -> int | None:
    """What `ulimit -v` leaves."""
    if sys.platform == "win32":
        return None
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY:
        return None
    return max(most - (_field("/proc/self/status", "VmSize:") or 0), 0)
