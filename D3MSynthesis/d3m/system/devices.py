"""Which devices torch can really use here, and in which number format they are fastest."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from d3m.errors import D3MError, Notice
from d3m.system import limits
from d3m.system.text import counted, plain

BF16_GAIN = 1.25
"""bfloat16 is chosen when it is this much faster: twice as fast on processors that have it, slower elsewhere."""


@dataclass(frozen=True)
class DeviceInfo:
    """One device as the panel and `d3m info` show it."""

    name: str
    """What `--device` takes: "cpu", "cuda:0", "mps"."""
    title: str
    """What a person calls it."""
    memory_bytes: int | None
    """All of its memory, or None if unknown."""
    usable: bool
    """Whether a small computation on it succeeded."""
    reason: str = ""
    """Why it is not usable."""


def list_devices() -> list[DeviceInfo]:
    """The devices of this machine, those that `auto` prefers first."""
    found = []
    count, fault = _count_gpus()
    if fault:
        found.append(DeviceInfo("cuda:0", "The GPU", None, False, fault))
    for index in range(count):
        name = f"cuda:{index}"
        try:
            properties = torch.cuda.get_device_properties(index)
            title, memory = str(properties.name), int(properties.total_memory)
        except Exception as error:  # a driver fails in every imaginable way
            found.append(DeviceInfo(name, name, None, False, _first_line(error)))
            continue
        reason = _why_unusable(name)
        found.append(DeviceInfo(name, title, memory, not reason, reason))
    if torch.backends.mps.is_available():
        reason = _why_unusable("mps")
        found.append(DeviceInfo("mps", "Apple GPU", None, not reason, reason))
    threads = torch.get_num_threads()
    title = f"{processor()}, {counted(threads, 'thread')}"
    found.append(DeviceInfo("cpu", title, limits.memory_limit(), True))
    return found


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES must say for each GPU that can be used here."""
    count, _ = _count_gpus()
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return visible[:count] or [str(number) for number in range(count)]


def _count_gpus() -> tuple[int, str]:
    """GPUs that CUDA shows, and why it could not be asked: a library that cannot be loaded raises OSError, say."""
    try:
        return (torch.cuda.device_count() if torch.cuda.is_available() else 0), ""
    except Exception as error:
        return 0, _first_line(error)


def _why_unusable(name: str) -> str:
    """Empty if a convolution works on the device, else the first line of what it said."""
    try:
        conv = nn.Conv2d(1, 1, 3).to(name)
        with torch.inference_mode():
            value = conv(torch.ones(1, 1, 4, 4, device=name)).sum().item()
    except Exception as error:  # a driver fails in every imaginable way, a library that cannot be loaded among them
        return _first_line(error)
    return "" if value == value else "it computes NaN"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def processor() -> str:
    """The processor as its maker calls it, where the system tells, else its kind."""
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as f:
        for line in f:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def free_memory(device: torch.device) -> int | None:
    """Bytes that a computation on the device can still have; None if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return limits.free_memory() if device.type == "cpu" else None


def all_memory(device: torch.device) -> int | None:
    """Bytes of memory that a device has; None if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return limits.memory_limit() if device.type == "cpu" else None


def choose_device(request: str = "auto") -> tuple[torch.device, tuple[Notice, ...]]:
    """The device to compute on.

    Args:
        request: "auto" (a usable GPU, else the CPU), "cpu", "cuda", "cuda:N" or "mps".

    Returns:
        The device, and a notice for each GPU that is there but cannot be used.

    Raises:
        D3MError: a device was asked for by name and is not there or not usable (the machine is at fault), or there is
            no device of that name.
    """
    devices = list_devices()
    if request == "auto":
        notices = tuple(
            Notice("device-unusable", f"{d.title} cannot be used ({d.reason}); the computation runs on another device.")
            for d in devices
            if not d.usable
        )
        return torch.device(next(d.name for d in devices if d.usable)), notices
    if not re.fullmatch(r"cpu|mps|cuda(:\d{1,4})?", request):
        raise D3MError(f"There is no device {plain(request)!r}.", "Use --device auto, cpu, cuda, cuda:N or mps.")
    wanted = "cuda:0" if request == "cuda" else request
    names = [d.name for d in devices if d.usable]
    if wanted not in names:
        reason = next((f" ({d.reason})" for d in devices if d.name == wanted and d.reason), "")
        raise D3MError(
            f"The device {request} is not available here{reason}.",
            f"Use --device auto or one of: {', '.join(names)}.",
            "machine",
        )
    return torch.device(wanted), ()


def fastest_dtype(device: torch.device) -> torch.dtype:
    """Number format of the convolutions: what the processor has units for, half precision on a GPU, float32 elsewhere.

    Where the system does not tell what an x86 processor has, and on other processors, it is measured. That could come
    out otherwise on a busy machine, and the same seed would give another picture.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type != "cpu":
        return torch.float32
    flags = _x86_flags()
    if flags:
        return torch.bfloat16 if flags & {"avx512_bf16", "amx_bf16"} else torch.float32
    return _measured_dtype()


def _x86_flags() -> frozenset[str]:
    """What an x86 processor says that it can; empty for others, or where the system does not tell."""
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as f:
        for line in f:
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    return frozenset()


def _measured_dtype() -> torch.dtype:
    """bfloat16 if it is much faster, by the best of several tries in turn."""
    conv = nn.Conv2d(64, 64, 3, padding=1).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.randn(2, 64, 64, 64).contiguous(memory_format=torch.channels_last)
    best = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    for _ in range(8):
        for dtype in best:
            half = dtype == torch.bfloat16
            with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                start = time.perf_counter()
                conv(image)
                best[dtype] = min(best[dtype], time.perf_counter() - start)
    return torch.bfloat16 if best[torch.float32] > BF16_GAIN * best[torch.bfloat16] else torch.float32
