"""What a method's images of one patient are worth, with the project's one definition of each metric."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from d3m import metrics
from d3m.diffusion.sampler import Condition, gather_context
from d3m.volumes.types import Floats, Mask
from d3m_training.data.cache import ENHANCING, Entry
from d3m_training.evaluate import THRESHOLDS
from d3m_training.train.method import Prediction

Predict = Callable[[Condition], Prediction]
SLICES = 16
"""Predicted at once."""


@dataclass(frozen=True)
class Predicted:
    """A method's volume of one patient, on the entry's grid; 0 outside the brain."""

    image: Floats
    """(S, H, W) on T1's scale."""
    probability: Floats
    """(S, H, W) in [0, 1]."""
    seconds: float


def predict_volume(predict: Predict, entry: Entry, context: tuple[int, ...], device: torch.device) -> Predicted:
    """Every slice with brain of one patient.

    Args:
        predict: A method with its seed.
        entry: The patient.
        context: Slices of the condition.
        device: Where the method is.
    """
    slices = torch.from_numpy(np.asarray(entry.scans[:, :3], np.float32))
    brain = torch.from_numpy(np.asarray(entry.regions[:, 0]) > 0)
    image, probability = torch.zeros(brain.shape), torch.zeros(brain.shape)
    started = time.perf_counter()
    for index in torch.nonzero(brain.flatten(1).any(dim=1))[:, 0].split(SLICES):
        on_cpu = gather_context(slices, brain, index, context)
        predicted = predict(Condition(*(part.to(device) for part in (on_cpu.slices, on_cpu.t1, on_cpu.brain))))
        image[index], probability[index] = predicted.image[:, 0].cpu(), predicted.probability[:, 0].cpu()
    return Predicted(image.numpy(), probability.numpy(), time.perf_counter() - started)


@dataclass(frozen=True)
class Measures:
    """One patient; see `d3m.metrics` and `evaluate.Evaluated`. NaN where something is not defined."""

    psnr_brain: float
    psnr_tumour: float
    psnr_enhancing: float
    ssim_brain: float
    ssim_tumour: float
    error_enhancing: float
    """Mean absolute error of the fitted image in the enhancing tumour."""
    flicker: float
    dice: float
    fp_ml: float
    fn_ml: float


def measure(predicted: Predicted, entry: Entry, threshold: float, voxel_ml: float) -> Measures:
    """Measure one labelled patient.

    Args:
        predicted: Of this patient.
        entry: With the real image and labels.
        threshold: From which probability a voxel counts as enhancing tumour.
        voxel_ml: Volume of a voxel in millilitres.
    """
    brain, label, target = _axial(entry)
    where = metrics.regions(brain, label > 0, label == ENHANCING)
    real = np.where(brain, metrics.scale_by_percentiles(target, brain), 0)
    fitted = metrics.fit(_xyz(predicted.image), real, brain)
    alike = metrics.similarity(fitted, real, where)
    masks = metrics.overlap(_xyz(predicted.probability) >= threshold, where.enhancing, brain, voxel_ml)
    return Measures(
        alike.psnr_brain,
        alike.psnr_tumour,
        alike.psnr_enhancing,
        alike.ssim_brain,
        alike.ssim_tumour,
        metrics.mean_in(np.abs(fitted - real), where.enhancing),
        metrics.slice_difference(fitted, brain) / max(metrics.slice_difference(real, brain), 1e-12),
        masks.dice,
        masks.false_positive_ml,
        masks.false_negative_ml,
    )


def dice_curve(predicted: Predicted, entry: Entry) -> tuple[float, ...]:
    """Dice at each of `evaluate.THRESHOLDS`; NaN where there is too little enhancing tumour."""
    true = np.asarray(entry.regions[:, 1]) == ENHANCING
    if true.sum() < metrics.MIN_DICE_VOXELS:
        return (float("nan"),) * len(THRESHOLDS)
    return tuple(metrics.dice(predicted.probability >= cut, true) for cut in THRESHOLDS)


def _xyz(volume: np.ndarray) -> np.ndarray:
    """(S, H, W) to (X, Y, Z)."""
    return volume.transpose(2, 1, 0)


def _axial(entry: Entry) -> tuple[Mask, np.ndarray, Floats]:
    """Brain, label and real image as (X, Y, Z)."""
    regions, target = np.asarray(entry.regions), np.asarray(entry.scans[:, 3], np.float32)
    return _xyz(regions[:, 0]) > 0, _xyz(regions[:, 1]), _xyz(target)
