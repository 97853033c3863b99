"""What a run will cost here: measured on one batch of slices, not guessed from the processor's name."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from d3m.diffusion.networks.slice import slice_memory_mb
from d3m.diffusion.precision import MixedPrecision
from d3m.models.load import load_model
from d3m.options import QUALITY_NAMES
from d3m.system.devices import choose_device, fastest_dtype

SLICES, HEIGHT, WIDTH = 145, 192, 160
"""A brain of ordinary size at 1 mm."""
FIXED_SECONDS = 8.0
"""Starting Python and torch, reading, bringing back and writing; measured on two cores."""
BASE_MEMORY_MB = 1050.0
"""Python, torch and the volumes of a case of 240 x 240 x 155 voxels; measured."""
BATCH = 4
SLOW_S = 3.0
"""A network that takes longer for one batch is not measured twice: warming up matters little then."""


@dataclass(frozen=True)
class Cost:
    """Estimate for one quality."""

    quality: str
    device: str
    seconds: float
    memory_mb: float


def measure_costs(folder: Path, device: str = "auto") -> list[Cost]:
    """Estimate the cost of each quality of a model on a device.

    Args:
        folder: The model's.
        device: What `choose_device` takes.
    """
    chosen, _ = choose_device(device)
    model = load_model(folder)
    recipe = model.card.recipe
    height, width = (recipe.grid.size, recipe.grid.size) if recipe.grid.size else (HEIGHT, WIDTH)
    network = MixedPrecision(model.network.to(chosen, memory_format=torch.channels_last), fastest_dtype(chosen))  # type: ignore[call-overload]
    image = torch.zeros(BATCH, 1, height, width, device=chosen)
    condition = torch.zeros(BATCH, 3 * len(recipe.network.context), height, width, device=chosen)
    t = torch.full((BATCH,), recipe.diffusion.timesteps, device=chosen)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(2):
            start = time.perf_counter()
            network(image, image, condition, t)
            network.deform(image, image, image)
            if chosen.type == "cuda":
                torch.cuda.synchronize(chosen)
            best = min(best, time.perf_counter() - start)
            if best > SLOW_S:
                break
    memory = BASE_MEMORY_MB + 8 * slice_memory_mb(recipe.network, height * width)
    return [
        Cost(name, str(chosen), FIXED_SECONDS + best / BATCH * SLICES * quality.steps * quality.samples, memory)
        for name, quality in zip(QUALITY_NAMES, recipe.qualities, strict=True)
    ]
