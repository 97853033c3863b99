"""What a run will cost here: measured on some slices, not guessed from the processor's name."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from d3m.diffusion.alone import each_alone
from d3m.diffusion.networks.slice import slice_memory_mb, together_on_cpu
from d3m.diffusion.networks.whole_brain import POOLING
from d3m.diffusion.precision import MixedPrecision
from d3m.models.card import Card
from d3m.models.load import load_model
from d3m.options import QUALITY_NAMES
from d3m.system.devices import choose_device, fastest_dtype

SLICES, HEIGHT, WIDTH = 145, 192, 160
"""A brain of ordinary size at 1 mm."""
FIXED_SECONDS = 8.0
"""Starting Python and torch, reading, bringing back and writing; measured on two cores."""
BASE_MEMORY_MB = 1050.0
"""Python, torch and the volumes of a case of 240 x 240 x 155 voxels; measured."""
WHOLE_BRAIN_MAPS = 10
"""Feature maps as wide as the first level, in float32, that a run of the whole-brain stage's network takes at its peak;
measured on a CPU: 325 MB for 16 channels and 72 x 96 x 80 voxels."""
GPU_BATCH = 4
SLOW_S = 3.0
"""A network that takes longer is not measured twice: warming up matters little then."""


@dataclass(frozen=True)
class Cost:
    """Estimate for one quality."""

    quality: str
    device: str
    seconds: float
    memory_mb: float


def case_memory(card: Card, threads: int) -> int:
    """Bytes of the computer's memory that a case of ordinary size needs, Python and torch included.

    Args:
        card: The model's.
        threads: Calls with slices, or runs of the whole-brain stage's networks, at once on a CPU; 0 on a GPU.
    """
    size = card.recipe.grid.size
    height, width = (size, size) if size else (HEIGHT, WIDTH)
    together = together_on_cpu(card.recipe.network)
    slices, stage = threads * together * slice_memory_mb(card.recipe.network, height * width), 0.0
    if card.whole_brain is not None:  # the two follow each other
        voxels = SLICES * height * width // POOLING**3
        runs = min(threads, 2 * card.whole_brain.members)
        stage = runs * WHOLE_BRAIN_MAPS * card.whole_brain.sizes.widths[0] * voxels * 4 / 2**20
    return int((BASE_MEMORY_MB + max(slices, stage)) * 2**20)


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
    threads = torch.get_num_threads() if chosen.type == "cpu" else 0
    each = together_on_cpu(recipe.network) if threads else GPU_BATCH
    image = torch.zeros(each, 1, height, width, device=chosen)
    condition = torch.zeros(each, recipe.network.condition_channels, height, width, device=chosen)
    t = torch.full((each,), recipe.diffusion.timesteps, device=chosen)

    def one(_: int) -> Iterator[int]:
        network(image, image, condition, t)
        network.deform(image, image, image)
        yield each

    best = float("inf")
    with torch.inference_mode():
        for _ in range(2):
            start = time.perf_counter()
            each_alone(one, range(max(threads, 1)), max(threads, 1), lambda _: None)
            if chosen.type == "cuda":
                torch.cuda.synchronize(chosen)
            best = min(best, time.perf_counter() - start)
            if best > SLOW_S:
                break
    memory = case_memory(model.card, threads) / 2**20
    return [
        Cost(name, str(chosen), FIXED_SECONDS + best / (each * max(threads, 1)) * SLICES * quality.work, memory)
        for name, quality in zip(QUALITY_NAMES, recipe.qualities, strict=True)
    ]
