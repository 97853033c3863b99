"""Whether and how much enhances in the patient: fitted on patients that were not trained on, measured without each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from d3m import metrics
from d3m.errors import D3MError
from d3m.models.card import ValidationRow
from d3m.models.patient import FEATURES, PatientCalibration

LEVEL = 0.8
LEAST_ML = 0.5
"""A patient counts as enhancing from so many millilitres on."""
RIDGE = 0.1
"""Penalty on the squared weights of standardised features: two folds more or less must not turn them round."""


@dataclass(frozen=True)
class HeldOut:
    """One patient, predicted by a model that had not seen it."""

    id: str
    fold: int
    """Patients of one fold are left out together."""
    labelled: bool
    """A person has drawn the enhancing tumour; else T1c minus T1 says what enhances."""
    features: tuple[float, ...]
    true_ml: float
    mask_ml: float
    """Volume of the predicted mask: at the card's threshold, of the whole-brain stage at 0.5."""


def calibrate(seen: Sequence[HeldOut]) -> PatientCalibration:
    """Logistic and linear regression on the features, with a ridge; quantiles of the residuals across folds.

    The interval comes from residuals of fits that leave the patient's fold out, so that it is not too narrow.

    Raises:
        D3MError: no patient enhances, or all do, or there are fewer than two folds.
    """
    folds = sorted({one.fold for one in seen})
    enhances = np.array([one.true_ml >= LEAST_ML for one in seen])
    if len(folds) < 2 or enhances.all() or not enhances.any():
        raise D3MError(
            "The patient's numbers need two folds, with patients that enhance and patients that do not.",
            "Give more patients, or train more folds.",
        )
    residuals = np.concatenate(
        [
            _log_ml(held) - _linear(_fit([one for one in seen if one.fold != fold])[1], held)
            for fold in folds
            for held in [[one for one in seen if one.fold == fold]]
        ]
    )
    tail = (1 - LEVEL) / 2
    low, high = (float(q) for q in np.quantile(residuals, (tail, 1 - tail)))
    logistic, linear = _fit(seen)
    return PatientCalibration(
        float(logistic[0]), tuple(float(w) for w in logistic[1:]), float(linear[0]),
        tuple(float(w) for w in linear[1:]), (low, high), LEVEL, LEAST_ML, len(seen),
    )  # fmt: skip


def _features(seen: Sequence[HeldOut]) -> np.ndarray:
    return np.array([one.features for one in seen]).reshape(len(seen), len(FEATURES))


def _log_ml(seen: Sequence[HeldOut]) -> np.ndarray:
    return np.log1p([one.true_ml for one in seen])


def _linear(weights: np.ndarray, seen: Sequence[HeldOut]) -> np.ndarray:
    line: np.ndarray = weights[0] + _features(seen) @ weights[1:]
    return line


def _fit(seen: Sequence[HeldOut]) -> tuple[np.ndarray, np.ndarray]:
    """Intercept and weights of the logistic and of the linear regression, for features as they are."""
    x = _features(seen)
    mean, scale = x.mean(0), np.maximum(x.std(0), 1e-6)
    z = np.c_[np.ones(len(x)), (x - mean) / scale]
    y = np.array([one.true_ml >= LEAST_ML for one in seen], float)

    def cost(w: np.ndarray) -> float:
        line = z @ w
        return float((np.logaddexp(0, line) - y * line).mean() + RIDGE / len(x) * (w[1:] ** 2).sum())

    logistic = minimize(cost, np.zeros(z.shape[1]), method="BFGS").x
    penalty = np.diag([0.0] + [RIDGE * len(FEATURES)] * len(FEATURES))
    linear = np.linalg.solve(z.T @ z + penalty, z.T @ _log_ml(seen))

    def unscaled(w: np.ndarray) -> np.ndarray:
        return np.r_[w[0] - (w[1:] * mean / scale).sum(), w[1:] / scale]

    return unscaled(logistic), unscaled(linear)


def patient_table(seen: Sequence[HeldOut]) -> tuple[ValidationRow, ...]:
    """How good the patient's numbers are, by fits without their fold."""
    truth = np.array([one.true_ml for one in seen])
    enhances = truth >= LEAST_ML
    likely, usual, volume, inside = (np.empty(len(seen)) for _ in range(4))
    for fold in sorted({one.fold for one in seen}):
        others = [one for one in seen if one.fold != fold]
        fitted = calibrate(others)
        for k, one in enumerate(seen):
            if one.fold == fold:
                estimate = fitted.estimate(one.features)
                low, high = estimate.volume_interval_ml
                likely[k], volume[k] = estimate.enhancement_probability, estimate.volume_ml
                usual[k] = np.mean([other.true_ml >= LEAST_ML for other in others])
                inside[k] = low - 1e-9 <= one.true_ml <= high
    right = [float(np.mean((likely >= 0.5)[group] == enhances[group])) for group in (enhances, ~enhances)]
    labelled = np.array([one.labelled for one in seen])

    def r2(group: np.ndarray) -> float:
        spread = ((truth[group] - truth[group].mean()) ** 2).sum()
        return float(1 - ((truth[group] - volume[group]) ** 2).sum() / max(spread, 1e-9))

    return (
        ValidationRow("enhances_balanced_accuracy", round(float(np.mean(right)), 4), 0.0, len(seen)),
        ValidationRow("enhances_sensitivity", round(right[0], 4), 0.0, int(enhances.sum())),
        ValidationRow("enhances_specificity", round(right[1], 4), 0.0, int((~enhances).sum())),
        ValidationRow("enhances_auc", round(metrics.auc(likely, enhances, np.ones_like(enhances)), 4), 0.0, len(seen)),
        mean_row("enhances_squared_error", (likely - enhances) ** 2),
        mean_row("enhances_squared_error_of_the_usual_share", (usual - enhances) ** 2),
        ValidationRow("volume_r2", round(r2(np.ones(len(seen), bool)), 4), 0.0, len(seen)),
        ValidationRow("volume_r2_labelled", round(r2(labelled), 4), 0.0, int(labelled.sum())),
        mean_row("volume_error_ml", np.abs(volume - truth)),
        mean_row("interval_coverage", inside),
        mean_row("mask_ml_of_the_others", np.array([one.mask_ml for one in seen])[~enhances]),
    )


def mean_row(name: str, values: np.ndarray) -> ValidationRow:
    """Mean and standard deviation of the values that are defined."""
    defined = values[np.isfinite(values)]
    spread = float(defined.std(ddof=1)) if len(defined) > 1 else 0.0
    return ValidationRow(name, round(float(defined.mean()), 4), round(spread, 4), len(defined))
