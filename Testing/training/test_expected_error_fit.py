"""The fit of the expected error, on errors that were drawn from a known law."""

from __future__ import annotations

import numpy as np

from d3m.models.expected_error import FEATURES
from d3m_training.expected_error import Errors, fit_expected_error, without_each


def patient(seed: int, informative: bool = True) -> tuple[Errors, np.ndarray]:
    """Errors whose mean is exp(-2 + 0.5 a - 0.2 a^2 + 0.3 b) of the first and the last feature, and that mean."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(len(FEATURES), 20_000))
    mean = np.exp(-2 + 0.5 * features[0] - 0.2 * features[0] ** 2 + 0.3 * features[-1])
    if not informative:
        mean = np.full_like(mean, 0.1)
    return Errors(features.astype(np.float32), rng.exponential(mean)), mean


def test_a_known_law_is_found() -> None:
    """On a patient who was not seen the expected error is the mean that the errors were drawn with."""
    fit = fit_expected_error([patient(seed)[0] for seed in range(4)])
    other, mean = patient(9)
    np.testing.assert_allclose(fit(other.features), mean, rtol=0.15)
    assert fit.patients == 4
    assert fit.problem() == ""


def test_each_patient_is_measured_without_the_patient() -> None:
    """The mean is right; the ranks agree as far as such errors let them, and not at all where nothing can be known."""
    for one in without_each([patient(seed)[0] for seed in range(3)]):
        assert 0.9 < one.ratio < 1.1
        assert one.correlation > 0.35
    for one in without_each([patient(seed, informative=False)[0] for seed in range(3)]):
        assert abs(one.correlation) < 0.05


def test_a_patient_with_other_errors_shows() -> None:
    """Twice the error in one patient: the others' fit expects half of it."""
    usual = [patient(seed)[0] for seed in range(3)]
    found = without_each([*usual, Errors(patient(7)[0].features, 2 * patient(7)[0].error)])
    assert 0.4 < found[-1].ratio < 0.6


def test_features_that_nobody_has() -> None:
    """All patients without FLAIR: the fit has no say of it, and is sound."""
    blind = []
    for seed in range(2):
        one = patient(seed)[0]
        one.features[3:5] = np.nan
        blind.append(one)
    fit = fit_expected_error(blind)
    assert fit.problem() == ""
    assert (fit.linear[3], fit.linear[4]) == (0.0, 0.0)
