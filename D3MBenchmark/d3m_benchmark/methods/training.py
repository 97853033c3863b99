"""Train one method by itself, as `d3m-benchmark train` does."""

from __future__ import annotations

import torch
from torch import nn

from d3m.errors import D3MError
from d3m.models.recipes import DEFAULT, PAPER
from d3m.system.devices import fastest_dtype
from d3m_benchmark.methods.registry import METHODS
from d3m_training.data.batches import BatchSettings
from d3m_training.train.method import Method, Size
from d3m_training.train.runs import Task, training_device


def fresh_method(name: str, size: Size, context: tuple[int, ...], device: torch.device, seed: int) -> Method:
    """A method with the weights that a seed gives it, in the number format that is fastest on a device.

    Args:
        name: Of `methods.registry`.
        size: Of its network.
        context: Slices of the condition.
        device: Where it will run; it is not moved there.
        seed: Decides the weights.
    """
    torch.manual_seed(seed)
    return _build(name, size, context, device)


def _build(name: str, size: Size, context: tuple[int, ...], device: torch.device) -> Method:
    method = METHODS[name].build(size, context, fastest_dtype(device))
    method.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return method


def method_task(name: str, size: Size) -> Task:
    """The training of a method, on recipe `default`'s grid and target, which all methods share.

    Args:
        name: Of `methods.registry`.
        size: Of its network.

    Raises:
        D3MError: no such method.
    """
    if name not in METHODS:
        raise D3MError(f"There is no method {name!r}.", f"Choose one of {', '.join(METHODS)}.")
    spec, context = METHODS[name], (DEFAULT if size == "small" else PAPER).network.context

    def build() -> nn.Module:
        method = _build(name, size, context, training_device())
        assert isinstance(method, nn.Module)
        return method

    described = {"method": name, "size": size}
    return Task(spec.title, DEFAULT, spec.settings(size), BatchSettings(context=context), build, described)
