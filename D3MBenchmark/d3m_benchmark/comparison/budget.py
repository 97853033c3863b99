"""What a method costs: parameters, multiplications, and how many iterations fit into a time."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from d3m.diffusion.sampler import Condition
from d3m_training.data.batches import Batches
from d3m_training.train.method import Method

WARM_UP, TIMED = 2, 6
"""Iterations before the clock starts, and the fewest on the clock."""
TIMED_SHARE = 0.04
"""Of the budget, for the clock: a few iterations alone are off by a tenth, since they are not all alike."""


def clock(device: torch.device, threads: int) -> float:
    """Seconds of work: on a CPU what each core has done, so that a busy machine does not shorten a budget."""
    return time.process_time() / threads if device.type == "cpu" else time.perf_counter()


def iterations_in(
    minutes: float, build: Callable[[], Method], batches: Batches, device: torch.device, threads: int
) -> int:
    """Training iterations that fit into a time on this machine; at least 1.

    Args:
        minutes: The budget.
        build: A throwaway copy of the method.
        batches: As in the training.
        device: Where it will train.
        threads: Cores.
    """
    method = build()
    assert isinstance(method, nn.Module)
    method.to(device).train()
    generator = torch.Generator().manual_seed(0)
    seconds, started, number = 60 * minutes, 0.0, 0
    while number < WARM_UP + TIMED or clock(device, threads) - started < TIMED_SHARE * seconds:
        if number == WARM_UP:
            started = clock(device, threads)
        method(batches.draw(number).to(device), generator).total.backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        number += 1
    return max(1, int(seconds * (number - WARM_UP) / (clock(device, threads) - started)))


def giga_macs(method: Method, context: tuple[int, ...], shape: tuple[int, int], device: torch.device) -> float:
    """Billions of multiply-accumulates for one slice, all of `Method.steps` included.

    Args:
        method: On the device.
        context: Slices of the condition.
        shape: (H, W) of the slice.
        device: The method's.
    """
    slices = torch.zeros(1, 3 * len(context), *shape, device=device)
    condition = Condition(slices, slices[:, :1], torch.ones(1, 1, *shape, dtype=torch.bool, device=device))
    counter = FlopCounterMode(display=False)
    with counter:
        method.predict(condition, 0)
    return counter.get_total_flops() / 2e9


def parameters(network: nn.Module, without: str = "discriminator.") -> int:
    """Trained numbers that prediction uses.

    Args:
        network: A method's.
        without: Names that begin with it serve training alone.
    """
    return sum(p.numel() for name, p in network.named_parameters() if not name.startswith(without))
