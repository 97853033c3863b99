"""The methods by their names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from d3m_benchmark.methods import ablations
from d3m_benchmark.methods.i2sb import build_i2sb, i2sb_settings
from d3m_benchmark.methods.palette import build_palette, palette_settings
from d3m_benchmark.methods.pix2pix import adversarial_settings, build_pix2pix
from d3m_benchmark.methods.resvit import build_resvit
from d3m_training.train.method import Method, Size
from d3m_training.train.trainer import TrainSettings

T1_COPY = "t1-copy"
"""T1 itself, with the best fit of its intensities: what every method must beat. Nothing is trained."""


@dataclass(frozen=True)
class MethodSpec:
    """How a method is made and trained."""

    title: str
    source: str
    """Paper or what it is for, in a few words."""
    build: Callable[[Size, tuple[int, ...], torch.dtype], Method]
    """From size, context and number format; with fresh weights."""
    settings: Callable[[Size], TrainSettings]


def d3m_settings(size: Size) -> TrainSettings:
    """Recipe `default`'s for "small", the published ones otherwise."""
    if size == "small":
        return TrainSettings()
    return TrainSettings(iterations=200_000, learning_rate=8e-5, constant_rate=True, weight_decay=0.0, ema=0.995)


METHODS: dict[str, MethodSpec] = {
    "d3m": MethodSpec("D3M", "MICCAI 2025", ablations.build_d3m, d3m_settings),
    "d3m-no-mssdm": MethodSpec(
        "D3M without MSSDM", "ablation: nothing is moved", ablations.build_without_mssdm, d3m_settings
    ),
    "d3m-no-mssdm-no-dsimd": MethodSpec(
        "D3M without MSSDM and DSIMD", "ablation: one decoder", ablations.build_without_both, d3m_settings
    ),
    "d3m-residual": MethodSpec(
        "D3M, correction added", "control: adds instead of moving", ablations.build_residual, d3m_settings
    ),
    "d3m-blur": MethodSpec("D3M, fixed blur", "control: blurs instead of moving", ablations.build_blur, d3m_settings),
    "regression": MethodSpec(
        "One-step regression", "control: the same network, no noise", ablations.build_regression, d3m_settings
    ),
    "pix2pix": MethodSpec("Pix2Pix", "Isola et al. 2017", build_pix2pix, adversarial_settings),
    "resvit": MethodSpec("ResViT", "Dalmaz et al. 2022, from scratch", build_resvit, adversarial_settings),
    "palette": MethodSpec("Palette", "Saharia et al. 2022", build_palette, palette_settings),
    "i2sb": MethodSpec("I2SB", "Liu et al. 2023", build_i2sb, i2sb_settings),
}
