"""Train one method by itself, as `d3m-benchmark train` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import torch
from torch import nn

from d3m.errors import D3MError
from d3m.models.recipes import DEFAULT, PAPER
from d3m.system.devices import fastest_dtype
from d3m_benchmark.methods.registry import METHODS
from d3m_training.data.batches import Batches, BatchSettings
from d3m_training.data.cache import open_entry
from d3m_training.data.preparation import SPLIT_NAME, check_grid
from d3m_training.data.splits import read_split
from d3m_training.train.method import Method, Size
from d3m_training.train.trainer import is_first_process, train, training_in


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
    method = METHODS[name].build(size, context, fastest_dtype(device))
    method.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return method


def train_method(
    cache: Path, out: Path, name: str, size: str, iterations: int | None, batch: int | None, seed: int,
    threads: int | None, report: Callable[[str], None],
) -> Path:  # fmt: skip
    """Train on the cache's training part.

    Args:
        cache: Prepared for recipe `default`, whose grid and target all methods share.
        out: For checkpoints and logs; training resumes from it.
        name: Of `methods.registry`.
        size: "small" or "published".
        iterations: Batches; None takes the method's own number.
        batch: Slices in a batch; None takes the usual number.
        seed: Decides weights, batches and noise.
        threads: Cores; None for all.
        report: Gets lines.

    Returns:
        The averaged weights.

    Raises:
        D3MError: no such method; the cache is not prepared.
    """
    if name not in METHODS:
        raise D3MError(f"There is no method {name!r}.", f"Choose one of {', '.join(METHODS)}.")
    if threads:
        torch.set_num_threads(threads)
    check_grid(cache, DEFAULT.name)
    entries = [open_entry(cache, i) for i in read_split(cache / SPLIT_NAME).train]
    if not entries:
        raise D3MError("No patient is in the training part.", "Make another split.")
    spec, device = METHODS[name], torch.device("cuda" if torch.cuda.is_available() else "cpu")
    settings = spec.settings(cast(Size, size))
    settings = replace(settings, iterations=iterations or settings.iterations, seed=seed, validate_every=0)
    context = (DEFAULT if size == "small" else PAPER).network.context
    batch_settings = BatchSettings(context=context)
    batch_settings = replace(batch_settings, size=batch or batch_settings.size)
    method = fresh_method(name, cast(Size, size), context, device, seed)
    assert isinstance(method, nn.Module)
    description = {
        "method": name, "size": size, "train": asdict(settings), "batch": asdict(batch_settings),
        "patients": len(entries),
    }  # fmt: skip
    if is_first_process():
        report(f"{spec.title}: {len(entries)} patients, {settings.iterations} iterations.")
    with training_in(out, description):
        return train(method, Batches(entries, batch_settings, seed), settings, out, report=report)
