"""Fits how far off an image is likely to be, on patients that were not trained on, and measures it without each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from d3m.models.expected_error import FEATURES, ExpectedError, standardised

ROUNDS = 15
"""Of the iteratively reweighted least squares, which have converged long before."""
RIDGE = 1e-3
"""Penalty on the weights, for each voxel: features that say the same must not be given large opposite weights."""


@dataclass(frozen=True)
class Errors:
    """Some voxels of a patient's brain."""

    features: np.ndarray
    """(7, N) see `d3m.models.expected_error.FEATURES`."""
    error: np.ndarray
    """(N,) absolute error on T1's scale."""


@dataclass(frozen=True)
class Expectation:
    """How good the expected error of one patient is."""

    correlation: float
    """Rank correlation with the error over the voxels."""
    ratio: float
    """Mean of the expected over the mean error."""


def fit_expected_error(patients: Sequence[Errors]) -> ExpectedError:
    """Gamma regression with logarithmic link: the mean of an error that is never negative.

    Source: McCullagh and Nelder, Generalized Linear Models, 1989, section 8; by iteratively reweighted least squares,
    whose weights are equal for this link and distribution.

    Args:
        patients: Each counts by its number of voxels.
    """
    features = np.concatenate([one.features for one in patients], axis=1).astype(np.float64)
    error = np.maximum(np.concatenate([one.error for one in patients]).astype(np.float64), 1e-6)
    means, deviations = np.zeros(len(FEATURES)), np.ones(len(FEATURES))
    for k, values in enumerate(features):
        known = values[np.isfinite(values)]
        if len(known):
            means[k], deviations[k] = known.mean(), max(known.std(), 1e-6)
    z = np.stack([standardised(*one) for one in zip(features, means, deviations, strict=True)])
    design = np.concatenate([np.ones((1, z.shape[1])), z, z**2]).T
    gram = design.T @ design + RIDGE * len(error) * np.diag([0.0] + [1.0] * (2 * len(FEATURES)))
    line = np.full(len(error), np.log(error.mean()))
    for _ in range(ROUNDS):
        expected = np.exp(line)
        # a step is bounded: single voxels with twenty times the expected error would throw the first ones about
        weights = np.linalg.solve(gram, design.T @ (line + np.minimum((error - expected) / expected, 3.0)))
        line = design @ weights
    intercept = weights[0] + np.log(error.mean() / np.exp(line).mean())  # what the bound left out
    linear, squares = weights[1 : 1 + len(FEATURES)], weights[1 + len(FEATURES) :]
    return ExpectedError(
        _told(means), _told(deviations), _told([intercept])[0], _told(linear), _told(squares), len(patients)
    )


def _told(values: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    """As many digits as a card needs."""
    return tuple(float(f"{value:.6g}") for value in values)


def without_each(patients: Sequence[Errors]) -> list[Expectation]:
    """Each patient by a fit without the patient."""
    found = []
    for k, one in enumerate(patients):
        expected = fit_expected_error([*patients[:k], *patients[k + 1 :]])(one.features.astype(np.float32))
        correlation = float(spearmanr(expected, one.error).statistic)
        found.append(Expectation(correlation, float(expected.mean() / max(one.error.mean(), 1e-9))))
    return found
