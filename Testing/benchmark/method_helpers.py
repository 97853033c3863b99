"""A small batch and a condition that every method can be tried with."""

from __future__ import annotations

import torch

from d3m.diffusion.sampler import Condition
from d3m_training.data.batches import Batch
from d3m_training.data.cache import ENHANCING

CONTEXT = (-1, 0, 1)


def small_batch(count: int = 3, shape: tuple[int, int] = (32, 64), seed: int = 0) -> Batch:
    """Discs with a bright spot in them; the last slice's label is not known."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(*(torch.arange(n) - n / 2 for n in shape), indexing="ij")
    brain = (torch.hypot(y, x) < 0.45 * shape[0]).float().expand(count, 1, *shape)
    spot = (torch.hypot(y - 3, x + 2) < 5).expand(count, 1, *shape)
    condition = torch.rand(count, 3 * len(CONTEXT), *shape, generator=generator) * brain
    t1 = condition[:, 3:4]
    target = (t1 + 0.7 * spot) * brain
    labelled = torch.ones(count)
    labelled[-1] = 0
    return Batch(condition, t1, target, brain, ENHANCING * spot.long(), labelled)


def condition_of(batch: Batch) -> Condition:
    """What prediction sees of a batch."""
    return Condition(batch.condition, batch.t1, batch.brain > 0)
