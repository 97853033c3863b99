"""Validation in the middle of a training: on the cache, with few steps, cheap enough to be done often."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from d3m import metrics
from d3m.diffusion.networks.slice import build_network
from d3m.diffusion.precision import MixedPrecision
from d3m.diffusion.volume import VolumeSample, VolumeSampler
from d3m.models.recipes import Recipe
from d3m.system.devices import fastest_dtype
from d3m_training.data.cache import ENHANCING, Entry
from d3m_training.evaluate import THRESHOLDS, threshold_of

PICTURES = 4
"""Patients that are drawn at each validation."""


def quick_validation(
    recipe: Recipe,
    entries: Sequence[Entry],
    out: Path,
    report: Callable[[str], None],
    weights: dict[str, Tensor],
    iteration: int,
) -> float:
    """Sample the validation patients with `preview` quality and measure.

    Args:
        recipe: The model's.
        entries: Validation patients of the cache.
        out: Pictures go into `out/pictures`.
        report: Gets a line.
        weights: Averaged weights.
        iteration: Named in the line and the pictures.

    Returns:
        Mean ET Dice at the threshold that `evaluate.threshold_of` chooses, plus a tenth of the mean fitted tumour PSNR;
        NaN where neither is defined.
    """
    network = build_network(replace(recipe.network, auxiliary_regions=0))
    network.load_state_dict({k: v for k, v in weights.items() if not k.startswith("auxiliary.")})
    device = next(iter(weights.values())).device
    network = network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    sampler = VolumeSampler(
        MixedPrecision(network, fastest_dtype(device)), recipe.diffusion, recipe.network.context,
        replace(recipe.qualities[0], slice_interval=1), device=device,
    )  # fmt: skip
    dices, psnrs = [], []
    for number, entry in enumerate(entries):
        slices = torch.from_numpy(np.delete(np.asarray(entry.scans, np.float32), 3, axis=1))
        brain = np.asarray(entry.regions[:, 0]) > 0
        with torch.inference_mode():
            sample = sampler(slices, torch.from_numpy(brain))
        target = np.asarray(entry.scans[:, 3], np.float32)
        label = np.asarray(entry.regions[:, 1])
        real = np.where(brain, metrics.scale_by_percentiles(target, brain), 0)
        fitted = metrics.fit(sample.image.numpy(), real, brain)
        if entry.labelled and (label > 0).any():
            psnrs.append(metrics.psnr(fitted, real, label > 0))
        true = label == ENHANCING
        if true.sum() >= metrics.MIN_DICE_VOXELS:
            dices.append([metrics.dice(sample.probability.numpy() >= cut, true) for cut in THRESHOLDS])
        if number < PICTURES:
            _draw(out / "pictures" / f"{iteration:07d}_{number}.png", slices, target, label, sample)
    cut = threshold_of(dices)
    dice = float("nan") if cut is None else float(np.mean(dices, axis=0)[THRESHOLDS.index(cut)])
    tumour = float(np.mean(psnrs)) if psnrs else float("nan")
    report(
        f"validation at {iteration}: ET Dice {dice:.3f} (n={len(dices)}), tumour PSNR {tumour:.2f} dB (n={len(psnrs)})"
    )
    return dice + 0.1 * tumour


def _draw(path: Path, slices: Tensor, target: np.ndarray, label: np.ndarray, sample: VolumeSample) -> None:
    """The slice with most enhancing tumour: T1, FLAIR, real, synthetic, probability with the true outline."""
    path.parent.mkdir(exist_ok=True)
    z = int((label == ENHANCING).sum(axis=(1, 2)).argmax()) or len(label) // 2
    figure = Figure(figsize=(12.5, 2.8), facecolor="black")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 5, gridspec_kw={"left": 0, "right": 1, "top": 1, "bottom": 0, "wspace": 0.01})
    images = (slices[z, 0], slices[z, 2], target[z], sample.image[z], sample.probability[z])
    for ax, image, highest in zip(axes, images, (1, 1, 1.6, 1.6, 1), strict=True):
        ax.imshow(np.asarray(image), cmap="gray", vmin=0, vmax=highest)
        ax.set_axis_off()
    if (label[z] == ENHANCING).any():
        axes[4].contour((label[z] == ENHANCING).astype(float), levels=[0.5], colors=["red"], linewidths=0.7)
    figure.savefig(path, facecolor="black", dpi=70)
