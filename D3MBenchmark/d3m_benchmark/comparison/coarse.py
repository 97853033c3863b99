"""Patients made from those of the cache: coarser in the plane, say, where a short budget reaches further."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from d3m.volumes.types import GridRecipe
from d3m_training.data.cache import ENHANCING, Entry, Prepared, fingerprint, is_whole, open_entry, write_entry


def _blocks(array: np.ndarray, factor: int) -> np.ndarray:
    """(..., H, W) to (..., H // factor, W // factor, factor * factor)."""
    height, width = array.shape[-2] // factor, array.shape[-1] // factor
    cut = array[..., : height * factor, : width * factor]
    split = cut.reshape(*array.shape[:-2], height, factor, width, factor)
    return np.moveaxis(split, -3, -2).reshape(*array.shape[:-2], height, width, factor * factor)


def coarser(entry: Entry, factor: int, stride: int) -> Prepared:
    """An entry at a `factor` times coarser resolution in the plane.

    Intensities are the mean over what of a block is brain; a block is brain where half of it is; its label is the one
    that most of it has (the enhancing tumour before others in a draw, so that thin rims stay).

    Args:
        entry: Of the cache.
        factor: At least 1.
        stride: Rows and columns are padded with background to a multiple of it.
    """
    scans, regions = np.asarray(entry.scans, np.float32), np.asarray(entry.regions)
    inside = _blocks(regions[:, 0] > 0, factor)
    brain = inside.mean(axis=-1) >= 0.5
    weight = inside[:, None] / np.maximum(inside.sum(axis=-1), 1)[:, None, ..., None]
    means = (_blocks(scans, factor) * weight).sum(axis=-1) * brain[:, None]
    labels = _blocks(regions[:, 1], factor)
    shares = np.stack([(labels == value).mean(axis=-1) for value in range(ENHANCING + 1)])
    shares[ENHANCING] += 1e-6
    label = np.where(brain, shares.argmax(axis=0), 0)
    pad = [(0, 0), (0, 0), *((0, -size % stride) for size in brain.shape[1:])]
    return Prepared(
        entry.id,
        np.pad(means, pad).astype(np.float16),
        np.pad(np.stack([brain, label], axis=1).astype(np.uint8), pad),
        entry.labelled,
    )


def made_entries(
    cache: Path, folder: Path, ids: Sequence[str], make: Callable[[Entry], Prepared], how: str, recipe: GridRecipe,
    stride: int,
) -> Path:  # fmt: skip
    """Entries that are made from others, where they are missing or those have changed.

    Args:
        cache: The entries that they are made from.
        folder: For the new ones.
        ids: Which.
        make: Makes one.
        how: What `make` does, in words that differ wherever its results do.
        recipe: What the cache was prepared for.
        stride: Rows and columns are a multiple of it.

    Returns:
        `folder`.
    """
    for identifier in ids:
        source = json.loads((cache / identifier / "entry.json").read_text(encoding="utf-8"))["sha256"]
        key = fingerprint([source, how], recipe, stride)
        if not is_whole(folder, identifier, key):
            write_entry(folder, make(open_entry(cache, identifier)), key)
    return folder
