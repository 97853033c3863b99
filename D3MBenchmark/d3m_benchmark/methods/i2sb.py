"""I2SB: a diffusion bridge that starts at T1 instead of noise and ends at T1c.

Source: Liu et al. 2023, arXiv:2302.05872, written from the paper's equations; betas and step counts as in the public
code (NVlabs/I2SB): the first half of a quadratic ramp, mirrored. The published network is another, ADM for 256 x 256
with 552.8 million parameters that start from ImageNet; here it is Palette's, so that the processes are compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from d3m.diffusion.sampler import Condition
from d3m_benchmark.methods.networks import diffusion_network, image_and_mask
from d3m_training.data.batches import Batch
from d3m_training.train import losses
from d3m_training.train.method import Prediction, Size, mask_term, to_prediction, to_range
from d3m_training.train.trainer import TrainSettings

TIMES = 1000
BETA_MAX = 0.3
STEPS: dict[Size, int] = {"published": 999, "small": 10}


@dataclass(frozen=True)
class Bridge:
    """Accumulated variances at the times 0 (T1c) to N (T1), float64 (N + 1,)."""

    from_start: Tensor
    """s^2: the betas summed from 0 up to the time."""
    to_end: Tensor
    """r^2: the betas summed from the time to N."""


def make_bridge(times: int = TIMES, beta_max: float = BETA_MAX) -> Bridge:
    """Symmetric betas: linspace(sqrt(1e-4), sqrt(beta_max / N), N)^2, its first half and the mirror of it.

    Args:
        times: N, even.
        beta_max: Of the whole ramp, whose second half is not used.
    """
    ramp = torch.linspace(1e-4**0.5, (beta_max / times) ** 0.5, times, dtype=torch.float64) ** 2
    half = ramp[: times // 2]
    beta = torch.cat([half, half.flip(0)])
    sums = torch.cat([torch.zeros(1, dtype=torch.float64), beta.cumsum(0)])
    return Bridge(sums, sums[-1] - sums)


def between(x0: Tensor, x1: Tensor, before: float | Tensor, after: float | Tensor, z: Tensor) -> Tensor:
    """A draw from q(x_t | x0, x1), the product of two Gaussians (eq. 11).

    Mean (r^2 x0 + s^2 x1) / (s^2 + r^2), variance s^2 r^2 / (s^2 + r^2), with s^2 the variance gathered between x0
    and x_t (`before`), r^2 that between x_t and x1 (`after`). The step of the sampler is the same with x_n for x1.

    Args:
        x0: (N, 1, H, W).
        x1: Same shape.
        before: s^2, a number or (N, 1, 1, 1).
        after: r^2.
        z: Standard normal, same shape; zeros give the mean.
    """
    whole = before + after
    deviation = torch.as_tensor(before * after / whole, dtype=z.dtype, device=z.device).sqrt()
    return (after * x0 + before * x1) / whole + deviation * z


@dataclass(frozen=True)
class BridgeTerms:
    """Mean loss terms of a batch."""

    total: Tensor
    direction: Tensor
    """Mean squared error of (x_t - x0) / s_t in the brain."""
    mask: Tensor


class ImageBridge(nn.Module):
    """See `d3m_training.train.method.Method`.

    Args:
        network: (x, t) to (N, 2, H, W): (x_t - x0) / s_t, and mask logits; x is x_t and the condition.
        dtype: Number format of the convolutions.
        steps: Of the sampler, at most `TIMES`.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype, steps: int) -> None:
        super().__init__()
        self.network = network
        self.stride: int = network.stride  # type: ignore[assignment]
        self.steps = steps
        self.dtype = dtype
        self.bridge = make_bridge()

    def forward(self, batch: Batch, generator: torch.Generator) -> BridgeTerms:
        """Loss terms of a batch (eq. 12)."""
        x0, x1 = to_range(batch.target), to_range(batch.t1)
        z = torch.randn(x0.shape, generator=generator).to(x0.device)
        t = torch.randint(1, TIMES + 1, (len(x0),), generator=generator)
        before, after = (
            values[t].float().to(x0.device)[:, None, None, None]
            for values in (self.bridge.from_start, self.bridge.to_end)
        )
        x = between(x0, x1, before, after, z)
        predicted, logits = self.predict_direction(x, batch.condition, t.to(x0.device))
        direction = losses.mean_over((predicted - (x - x0) / before.sqrt()).square(), batch.brain)
        mask = mask_term(logits, batch)
        return BridgeTerms(losses.finite(direction + 0.1 * mask), direction.detach(), mask.detach())

    def predict_direction(self, x: Tensor, condition: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(x_t - x0) / s_t and mask logits, (N, 1, H, W) float32; the condition holds T1, as `cond_x1` does."""
        return image_and_mask(self.network, x, condition, t, self.dtype)

    @torch.inference_mode()
    def predict(self, condition: Condition, seed: int) -> Prediction:
        """Sample the bridge from T1; all noise is the same for every slice, the last step has none."""
        generator, device = torch.Generator().manual_seed(seed), condition.t1.device
        times = torch.linspace(0, TIMES, self.steps + 1).round().long()
        sums = [float(self.bridge.from_start[k]) for k in times]
        x = to_range(condition.t1)
        x0, logits = x, x
        for k in range(self.steps, 0, -1):
            t = times[k].repeat(len(x)).to(device)
            direction, logits = self.predict_direction(x, condition.slices, t)
            x0 = torch.where(condition.brain, x - sums[k] ** 0.5 * direction, -1.0)
            z = torch.randn(1, 1, *x.shape[2:], generator=generator).to(device)
            x = between(x0, x, sums[k - 1], sums[k] - sums[k - 1], z)
        return to_prediction(x0, logits, condition.brain)


def build_i2sb(size: Size, context: tuple[int, ...], dtype: torch.dtype) -> ImageBridge:
    """I2SB, see `d3m_training.train.method.Method`."""
    return ImageBridge(diffusion_network(size, context), dtype, STEPS[size])


def i2sb_settings(size: Size) -> TrainSettings:
    """The published rate (without its factor 0.99 every 1,000 iterations) and average; for "small" those of D3M."""
    if size == "small":
        return TrainSettings(weight_decay=0.0)
    return TrainSettings(learning_rate=5e-5, constant_rate=True, betas=(0.9, 0.999), weight_decay=0.0, ema=0.99)
