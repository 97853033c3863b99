"""A few scans side by side: numpy, scipy and zlib let other threads work while they compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")

AT_ONCE = 2
"""More would only need more memory: most machines have few cores to spare, and a case has three scans."""


def side_by_side(work: Callable[[str, Given], Made], items: Mapping[str, Given]) -> dict[str, Made]:
    """`work(name, item)` for each item; an error is that of the first item that has one."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(items, pool.map(work, items.keys(), items.values()), strict=True))
