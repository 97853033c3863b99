"""From a map to the patient: does anything enhance, and how many millilitres. Does not import torch.

The map is the whole-brain stage's or, without one, the mask's probability. Both numbers are fitted on patients that the
model had not seen; the coefficients are in the model's card. [ours]
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from d3m.volumes.types import Floats

PEAK_ML = 0.5
"""The peak is the mean probability of the likeliest half millilitre: less than that nobody measures."""
FEATURES = ("log_volume", "peak")
"""What the estimate is made from: ln(1 + expected millilitres), and the mean probability of the likeliest `PEAK_ML`."""


@dataclass(frozen=True)
class PatientEstimate:
    """What the model says about the patient as a whole; for research use only."""

    enhancement_probability: float
    """That the tumour enhances at all, 0 to 1."""
    volume_ml: float
    """Enhancing tumour in millilitres: as often too much as too little."""
    volume_interval_ml: tuple[float, float]
    """Millilitres, lowest and highest of the interval; the lowest is 0 where nothing may enhance."""
    interval_level: float
    """Share of patients whose true volume lies in the interval, such as 0.8."""

    def sentence(self) -> str:
        """What it says, in words, for captions, notices and DICOM."""
        low, high = self.volume_interval_ml
        text = (
            f"Estimate for the patient: {100 * self.enhancement_probability:.0f} % likely that tumour enhances; about "
            f"{self.volume_ml:.1f} ml ({100 * self.interval_level:.0f} % interval {low:.1f} to {high:.1f} ml)."
        )
        return text + (" The interval includes zero: this cannot be told from no enhancement." if low <= 0 else "")


@dataclass(frozen=True)
class PatientCalibration:
    """How the estimate follows from `FEATURES`; a part of the model's card."""

    enhancement_intercept: float
    enhancement_weights: tuple[float, ...]
    """Logistic regression of "enhances": its log odds are the intercept plus the weighted `FEATURES`."""
    volume_intercept: float
    volume_weights: tuple[float, ...]
    """Linear regression of ln(1 + true millilitres) on `FEATURES`."""
    residuals: tuple[float, float]
    """Quantiles of ln(1 + true millilitres) minus its regression, on patients that were not trained on."""
    level: float = 0.8
    """Share of patients between the two `residuals`."""
    least_ml: float = 0.5
    """From how many true millilitres a patient counted as enhancing."""
    patients: int = 0
    """On how many it was fitted."""

    def problem(self) -> str:
        """What is wrong with it, or an empty text."""
        numbers = (
            self.enhancement_intercept, *self.enhancement_weights, self.volume_intercept, *self.volume_weights,
            *self.residuals, self.level, self.least_ml,
        )  # fmt: skip
        if len(self.enhancement_weights) != len(FEATURES) or len(self.volume_weights) != len(FEATURES):
            return f"does not have {len(FEATURES)} weights"
        if not all(math.isfinite(number) for number in numbers) or max(map(abs, numbers)) > 1e6:
            return "has a number that makes no sense"
        if not self.residuals[0] <= self.residuals[1]:
            return "has quantiles in the wrong order"
        if not 0 < self.level < 1:
            return "has a level that is not between 0 and 1"
        return ""

    def estimate(self, features: tuple[float, ...]) -> PatientEstimate:
        """The estimate for one patient.

        Args:
            features: From `patient_features`.
        """
        odds = self.enhancement_intercept + float(np.dot(self.enhancement_weights, features))
        middle = self.volume_intercept + float(np.dot(self.volume_weights, features))
        low, volume, high = (_ml(middle + shift) for shift in (self.residuals[0], 0.0, self.residuals[1]))
        if low < self.least_ml:  # no difference from nothing
            low = 0.0
        probability = 1 / (1 + math.exp(-min(max(odds, -50.0), 50.0)))
        return PatientEstimate(probability, volume, (low, max(high, volume)), self.level)


def _ml(log_volume: float) -> float:
    """Millilitres from ln(1 + millilitres); none below zero, none above a head's."""
    return max(0.0, math.expm1(min(log_volume, math.log1p(2000.0))))


def patient_features(enhancing: Floats, voxel_ml: float) -> tuple[float, ...]:
    """`FEATURES` of one patient.

    Args:
        enhancing: Probability of enhancing tumour, any shape, 0 outside the brain.
        voxel_ml: Millilitres of a voxel.
    """
    count = max(1, min(enhancing.size, round(PEAK_ML / voxel_ml)))
    values = enhancing[enhancing > 0]  # most of a head's voxels have none
    first = max(0, len(values) - count)
    likeliest = np.partition(values, first)[first:] if first else values
    total, peak = (float(some.sum(dtype=np.float64)) for some in (values, likeliest))
    return float(np.log1p(total * voxel_ml)), peak / count
