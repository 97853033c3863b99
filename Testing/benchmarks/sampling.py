"""How fast a reverse step is here, against this machine's own peak and against MONAI's sampler; one run, ratios.

    python Testing/benchmarks/sampling.py

Prints milliseconds for a slice and step, GFLOP/s as a share of the fastest convolution measured here, and the ratio to
MONAI's `DiffusionModelUNet` of equal multiply-adds under its own DDIM inferer. All on the CPU, in the number format
that the engine chooses.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from monai.inferers import DiffusionInferer
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import DDIMScheduler
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from d3m.diffusion.networks.slice import build_network
from d3m.diffusion.precision import MixedPrecision
from d3m.diffusion.recipe import Sampling
from d3m.diffusion.volume import VolumeSampler
from d3m.models.recipes import DEFAULT
from d3m.system.devices import fastest_dtype

HEIGHT, WIDTH, SLICES, STEPS, REPEATS = 192, 160, 16, 2, 5
CPU = torch.device("cpu")


def fastest(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Seconds of the fastest of several calls, after one to warm up."""
    work()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def macs(network: nn.Module, *inputs: torch.Tensor) -> float:
    """Multiply-adds of one forward pass."""
    with FlopCounterMode(display=False) as counter:
        network(*inputs)
    return counter.get_total_flops() / 2


def peak(dtype: torch.dtype) -> float:
    """FLOP/s of the fastest 3 x 3 convolution among some ordinary ones, in channels-last."""
    best = 0.0
    for channels, size in ((64, 96), (128, 48), (256, 48)):
        conv = nn.Conv2d(channels, channels, 3, padding=1).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        image = torch.randn(8, channels, size, size).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            seconds = fastest(lambda conv=conv, image=image: conv(image))  # type: ignore[misc]
        best = max(best, 2 * 8 * size**2 * 9 * channels**2 / seconds)
    return best


def monai_network(wanted: float) -> tuple[nn.Module, float]:
    """MONAI's diffusion U-Net with the width that comes closest to `wanted` multiply-adds a slice."""
    found: tuple[float, nn.Module, float] | None = None
    for width in (8, 12, 16, 20, 24, 28, 32, 40):
        network = DiffusionModelUNet(
            spatial_dims=2, in_channels=10, out_channels=1, channels=(width, 2 * width, 4 * width), num_res_blocks=1,
            attention_levels=(False, False, False), norm_num_groups=4,
        )  # fmt: skip
        count = macs(network, torch.zeros(1, 10, HEIGHT, WIDTH), torch.zeros(1))
        if found is None or abs(count - wanted) < found[0]:
            found = (abs(count - wanted), network, count)
    assert found is not None
    return found[1], found[2]


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    torch.manual_seed(0)
    dtype = fastest_dtype(CPU)
    network = build_network(DEFAULT.network).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image, condition = torch.zeros(1, 1, HEIGHT, WIDTH), torch.zeros(1, 9, HEIGHT, WIDTH)
    work = macs(network, image, image, condition, torch.zeros(1))
    slices, brain = torch.rand(SLICES, 3, HEIGHT, WIDTH), torch.ones(SLICES, HEIGHT, WIDTH, dtype=torch.bool)
    sampler = VolumeSampler(
        MixedPrecision(network, dtype), DEFAULT.diffusion, DEFAULT.network.context, Sampling(STEPS), batch=8
    )
    ours = fastest(lambda: sampler(slices, brain)) / (SLICES * STEPS)
    highest = peak(dtype)
    theirs_network, theirs_work = monai_network(work)
    scheduler = DDIMScheduler(1000, prediction_type="v_prediction", clip_sample=False)
    scheduler.set_timesteps(STEPS)
    noise, given = torch.randn(8, 1, HEIGHT, WIDTH), torch.rand(8, 9, HEIGHT, WIDTH)
    theirs_network.eval()

    def their_sampling() -> None:
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            inferer = DiffusionInferer(scheduler)
            inferer.sample(noise, theirs_network, scheduler, conditioning=given, mode="concat", verbose=False)

    theirs = fastest(their_sampling, 3) / (8 * STEPS)
    rate = 2 * work / ours
    print(f"number format            {str(dtype).removeprefix('torch.')}, {torch.get_num_threads()} threads")
    print(f"ours                     {1000 * ours:.1f} ms a slice and step, {work / 1e9:.2f} GMAC without deformation")
    print(f"rate                     {rate / 1e9:.0f} GFLOP/s, {rate / highest:.2f} of this machine's convolution peak")
    print(f"MONAI, DDIM inferer      {1000 * theirs:.1f} ms a slice and step, {theirs_work / 1e9:.2f} GMAC")
    print(f"ratio MONAI / ours       {theirs / ours * work / theirs_work:.2f} at equal GMAC")


if __name__ == "__main__":
    main()
