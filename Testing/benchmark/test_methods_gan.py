"""Pix2Pix as published: takes slices and crops of any size."""

from __future__ import annotations

import torch

from benchmark.method_helpers import CONTEXT, condition_of, small_batch
from d3m_benchmark.methods.pix2pix import build_pix2pix


def test_published_pix2pix_takes_slices_of_the_cache() -> None:
    """Eight halvings ask for multiples of 256; a slice and a crop of another size can be used all the same."""
    method = build_pix2pix("published", CONTEXT, torch.float32)
    batch = small_batch(1, shape=(96, 80))
    assert torch.isfinite(method(batch, torch.Generator()).total)
    assert method.eval().predict(condition_of(batch), 0).image.shape == (1, 1, 96, 80)
