"""How the mask's threshold is chosen on validation patients."""

from __future__ import annotations

import math

from d3m_training.evaluate import THRESHOLDS, MaskCurve, best_threshold, threshold_of


def curve(dice: list[float]) -> MaskCurve:
    """A patient with these Dice values at the first thresholds, 0 at the others."""
    values = tuple(dice + [0.0] * (len(THRESHOLDS) - len(dice)))
    return MaskCurve(values, values, values, values)


def test_threshold_of_equal_dice_is_the_one_with_less_false_enhancement() -> None:
    """The mean over patients decides; what is within 0.02 of the best is equal, and the largest of those is taken."""
    patients = [curve([0.30, 0.50, 0.52, 0.50]), curve([0.50, 0.40, 0.40, 0.41])]
    assert best_threshold(patients) == THRESHOLDS[3]
    assert best_threshold([curve([0.30, 0.50, 0.47])]) == THRESHOLDS[1]


def test_patients_without_enhancement_do_not_choose() -> None:
    """Their Dice is not defined; with nobody else there is no threshold to choose."""
    nothing = curve([math.nan] * len(THRESHOLDS))
    assert best_threshold([nothing, curve([0.2, 0.6])]) == THRESHOLDS[1]
    assert best_threshold([nothing]) is None


def test_one_rule_for_validation_and_comparison() -> None:
    """From the bare Dice values the same threshold follows as from whole curves; none without any patient."""
    patients = [curve([0.30, 0.50, 0.495, 0.1]), curve([0.2, 0.6, 0.6, 0.2])]
    assert threshold_of([one.dice for one in patients]) == best_threshold(patients) == THRESHOLDS[2]
    assert threshold_of([]) is None
