"""Palette: a conditional diffusion model that predicts the noise, told the noise level instead of the time.

Source: Saharia et al. 2022, arXiv:2111.05826 (training by continuous noise levels: Chen et al. 2021, arXiv:2009.00713);
schedules of the re-implementation Janspiry/Palette-Image-to-Image-Diffusion-Models: training with 2,000 steps from
1e-6 to 1e-2, sampling with fewer, wider ones, ancestral, the data prediction clipped. The error is taken in the brain
alone, as for all methods.
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

TIME_SCALE = 1000.0
"""The noise level in [0, 1] times this is what the network embeds."""
STEPS: dict[Size, int] = {"published": 1000, "small": 20}


def linear_gamma(steps: int, first: float, last: float) -> Tensor:
    """(steps + 1,) float64: 1, then the running product of 1 - beta for betas rising linearly."""
    beta = torch.linspace(first, last, steps, dtype=torch.float64)
    return torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - beta, 0)])


def training_gamma() -> Tensor:
    """2,000 steps; the last gamma is 4.4e-5."""
    return linear_gamma(2000, 1e-6, 1e-2)


def sampling_gamma(steps: int) -> Tensor:
    """1,000 steps from 1e-4 to 0.09 as published; fewer take some of these gammas, the first and the last among them.

    The published gammas fall to 7e-21. The network has learnt down to 4.4e-5, which is noise alone already and the
    469th of them: below it nothing forms. Few steps are spread evenly above it, after one from the end to there.

    Args:
        steps: 1 to 1000.
    """
    gamma = linear_gamma(1000, 1e-4, 0.09)
    learnt = int((gamma >= training_gamma()[-1]).sum()) - 1
    inside = min(steps - 1, learnt)
    places = [torch.linspace(0, learnt, inside + 1), torch.linspace(learnt, 1000, steps - inside + 1)[1:]]
    return gamma[torch.cat(places).round().long()]


@dataclass(frozen=True)
class PaletteTerms:
    """Mean loss terms of a batch."""

    total: Tensor
    noise: Tensor
    """Mean squared error of the noise in the brain."""
    mask: Tensor


class Palette(nn.Module):
    """See `d3m_training.train.method.Method`.

    Args:
        network: (x, t) to (N, 2, H, W): noise, and mask logits; x is the noisy image and the condition.
        dtype: Number format of the convolutions.
        steps: Of the reverse process.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype, steps: int) -> None:
        super().__init__()
        self.network = network
        self.stride: int = network.stride  # type: ignore[assignment]
        self.steps = steps
        self.dtype = dtype
        self.gamma = training_gamma()

    def forward(self, batch: Batch, generator: torch.Generator) -> PaletteTerms:
        """Loss terms of a batch: gamma is drawn evenly between two neighbouring steps."""
        x0 = to_range(batch.target)
        eps = torch.randn(x0.shape, generator=generator).to(x0.device)
        t = torch.randint(1, len(self.gamma), (len(x0),), generator=generator)
        share = torch.rand(len(x0), generator=generator, dtype=torch.float64)
        gamma = (self.gamma[t - 1] + share * (self.gamma[t] - self.gamma[t - 1])).float().to(x0.device)
        level = gamma[:, None, None, None]
        predicted, logits = self.predict_noise(level.sqrt() * x0 + (1 - level).sqrt() * eps, batch.condition, gamma)
        noise = losses.mean_over((predicted - eps).square(), batch.brain)
        mask = mask_term(logits, batch)
        return PaletteTerms(losses.finite(noise + 0.1 * mask), noise.detach(), mask.detach())

    def predict_noise(self, x: Tensor, condition: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
        """Noise and mask logits, (N, 1, H, W) float32; gamma (N,) in [0, 1]."""
        return image_and_mask(self.network, x, condition, TIME_SCALE * gamma, self.dtype)

    @torch.inference_mode()
    def predict(self, condition: Condition, seed: int) -> Prediction:
        """Ancestral sampling (Ho et al. 2020, arXiv:2006.11239, eq. 6 and 7); all noise is the same for every slice.

        With gamma_t, gamma_s, alpha = gamma_t / gamma_s: the mean is
        sqrt(gamma_s) (1 - alpha) / (1 - gamma_t) x0 + sqrt(alpha) (1 - gamma_s) / (1 - gamma_t) x_t, the variance
        (1 - gamma_s) (1 - alpha) / (1 - gamma_t).
        """
        generator, shape = torch.Generator().manual_seed(seed), condition.t1.shape
        device = condition.t1.device

        def draw() -> Tensor:
            return torch.randn(1, 1, *shape[2:], generator=generator).to(device)

        gammas = [float(g) for g in sampling_gamma(self.steps)]
        x = draw().expand(shape)
        x0, logits = x, x
        for k in range(self.steps, 0, -1):
            at, to = gammas[k], gammas[k - 1]
            eps, logits = self.predict_noise(x, condition.slices, torch.full((len(x),), at, device=device))
            x0 = ((x - (1 - at) ** 0.5 * eps) / at**0.5).clamp(-1, 1)
            x0 = torch.where(condition.brain, x0, -1.0)  # known, and the training's images are so
            alpha = at / to
            x = (to**0.5 * (1 - alpha) * x0 + alpha**0.5 * (1 - to) * x) / (1 - at)
            if k > 1:
                x = x + ((1 - to) * (1 - alpha) / (1 - at)) ** 0.5 * draw()
        return to_prediction(x0, logits, condition.brain)


def build_palette(size: Size, context: tuple[int, ...], dtype: torch.dtype) -> Palette:
    """Palette, see `d3m_training.train.method.Method`."""
    return Palette(diffusion_network(size, context), dtype, STEPS[size])


def palette_settings(size: Size) -> TrainSettings:
    """The published rate and average; for "small" those of D3M, since the network is D3M's."""
    if size == "small":
        return TrainSettings(weight_decay=0.0)
    return TrainSettings(learning_rate=5e-5, constant_rate=True, betas=(0.9, 0.999), weight_decay=0.0, ema=0.9999)
