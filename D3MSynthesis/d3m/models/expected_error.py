"""How far off the synthetic image is likely to be, voxel by voxel. Does not import torch or scipy.

Samples of one model err together: where they agree the image may still be wrong. So the expected error is a regression
on what is known without the real image: how much was added to T1, how much the samples differ, how uneven the scans
are around the voxel and how near the surface it lies. It is fitted on patients that the model had not seen; the
coefficients are in the model's card. [ours: a generalised linear model, McCullagh and Nelder 1989]
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from d3m.volumes.types import Floats

SPREAD, EXPECTED_ERROR = "standard deviation over the samples", "expected absolute error"
"""What an uncertainty is."""
FEATURES = ("difference", "size_of_difference", "spread", "flair", "flair_unevenness", "t1_unevenness", "brain_around")
"""What the error is expected from, for each voxel of the model's grid; see `d3m.volumes.error_features`."""
FURTHEST = 4.0
"""Standard deviations beyond which a feature says no more: a fit must not be followed to where it saw nothing."""


@dataclass(frozen=True)
class ExpectedError:
    """How the expected error follows from `FEATURES`; a part of the model's card."""

    means: tuple[float, ...]
    deviations: tuple[float, ...]
    """By which each feature is put to mean 0 and deviation 1."""
    intercept: float
    linear: tuple[float, ...]
    squares: tuple[float, ...]
    """ln(expected error) is the intercept plus the weighted features plus their weighted squares."""
    patients: int = 0
    """On how many it was fitted."""

    def problem(self) -> str:
        """What is wrong with it, or an empty text."""
        lists = (self.means, self.deviations, self.linear, self.squares)
        if any(len(one) != len(FEATURES) for one in lists):
            return f"does not have {len(FEATURES)} numbers for each of its lists"
        numbers = [self.intercept, *(number for one in lists for number in one)]
        if not all(math.isfinite(number) for number in numbers) or max(map(abs, numbers)) > 1e6:
            return "has a number that makes no sense"
        if min(self.deviations) <= 0:
            return "has a deviation that is not positive"
        return ""

    def __call__(self, features: Floats) -> Floats:
        """The expected absolute error.

        Args:
            features: (7, ...) as from `d3m.volumes.error_features`; NaN where it is not known, which tells nothing.

        Returns:
            (...) float32, on the scale of T1 that has 0 and 1 at its percentiles.
        """
        line = np.full(features.shape[1:], self.intercept, np.float32)
        for values, mean, deviation, linear, square in zip(
            features, self.means, self.deviations, self.linear, self.squares, strict=True
        ):
            z = standardised(values, mean, deviation)
            line += np.float32(linear) * z + np.float32(square) * z**2
        # an error beyond the whole scale is none that a linear predictor was fitted for
        expected: Floats = np.exp(np.minimum(line, 0))
        return expected


def standardised(values: np.ndarray, mean: float, deviation: float) -> np.ndarray:
    """Values to mean 0 and deviation 1, within `FURTHEST`; what is not known is 0."""
    return np.nan_to_num(np.clip((values - mean) / deviation, -FURTHEST, FURTHEST), nan=0.0)
