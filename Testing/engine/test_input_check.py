"""The check that names what is unusual about a case."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from d3m.errors import D3MError, Notice
from d3m.models.card import Card
from d3m.models.recipes import DEFAULT
from d3m.options import SynthesisOptions
from d3m.volumes.grid import to_model_input
from d3m.volumes.input_check import (
    CONTRAST_FEATURES,
    CONTRAST_SCORE,
    FEATURES,
    FeatureLimit,
    InputLimits,
    check,
    judge,
    measure,
)
from d3m.volumes.preprocess.case import read_case
from d3m.volumes.types import Case, Volume
from engine.volume_helpers import lps_affine

CARD = Card("tiny", "Tiny", DEFAULT, "0" * 64)


def ball_case(radii=(30, 34, 28), shape=(72, 80, 64), spacing=(1.0, 1.0, 1.0), noise=0.01, seed=0):
    """T1, T2 and FLAIR of an ellipsoid with smooth structures; radii in millimetres."""
    random = np.random.default_rng(seed)
    place = np.meshgrid(*((np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij")
    brain = sum((p / r) ** 2 for p, r in zip(place, radii, strict=True)) < 1
    fluid = np.exp(-sum(p**2 for p in place) / 60)
    waves = np.sin(place[0] / 3) * np.cos(place[1] / 4) * np.sin(place[2] / 3 + 1)
    images = (2 + 0.5 * waves - 1.5 * fluid, 1 - 0.3 * waves + 2 * fluid, 1.5 + 0.2 * waves**2 - fluid)
    scans = [np.where(brain, 100 * (i + noise * random.standard_normal(shape)), 0).astype(np.float32) for i in images]
    return Case(*(Volume(s, lps_affine(shape, spacing)) for s in scans), brain)


def features_of(case):
    """As synthesis measures them."""
    return measure(case, to_model_input(case, DEFAULT.grid, 8))


def usual_about(features, *names, width=0.3):
    """Limits around what one case has, for some features."""
    return InputLimits(
        tuple(
            FeatureLimit(n, features[n] - width * abs(features[n]), features[n] + width * abs(features[n]))
            for n in names
        )
    )


def codes(notices):
    """Codes in the order given."""
    return [notice.code for notice in notices]


def test_size_and_height_are_millimetres_whatever_the_voxels():
    """Volume and height of an ellipsoid agree with its formula, also from a T1 of other voxels."""
    for shape, spacing in (
        ((72, 80, 64), (1.0, 1.0, 1.0)),
        ((80, 72, 24), (0.8, 1.1, 2.5)),
        ((70, 76, 62), (1.05,) * 3),
    ):
        features = features_of(ball_case(shape=shape, spacing=spacing))
        assert features["brain_ml"] == pytest.approx(4 / 3 * np.pi * 30 * 34 * 28 / 1000, rel=0.03)
        assert features["height_mm"] == pytest.approx(56, abs=3)
        assert features["asymmetry"] < 0.01
        assert features["cut_area"] == 0


def test_correlations_are_rank_correlations():
    """How contrasts go together is Spearman's correlation over the brain, as SciPy has it."""
    case = ball_case()
    features = features_of(case)
    t1, t2, flair = (volume.data[case.brain] for volume in case.contrasts())
    assert features["t1_t2_correlation"] == pytest.approx(stats.spearmanr(t1, t2).statistic, abs=0.02)
    assert features["t2_flair_correlation"] == pytest.approx(stats.spearmanr(t2, flair).statistic, abs=0.02)


def test_features_do_not_depend_on_the_scale_of_the_values():
    """Scans in other units have the same features: only the anatomy and its contrast count."""
    case = ball_case()
    other = replace(
        case, t1=replace(case.t1, data=case.t1.data * 7), flair=replace(case.flair, data=case.flair.data / 50)
    )
    one, two = features_of(case), features_of(other)
    assert two == pytest.approx(one, abs=1e-3)


def test_missing_half_is_named():
    """A hemisphere that is not there is reported as size and as asymmetry; the whole brain is not."""
    case = ball_case()
    usual = usual_about(features_of(case), "brain_ml", "height_mm")
    usual = replace(usual, limits=(*usual.limits, FeatureLimit("asymmetry", 0, 0.1)))
    assert check(case, to_model_input(case, DEFAULT.grid, 8), usual) == ()
    lesser = case.brain.copy()
    lesser[:36, :, 24:] = False  # what is left of one side is its lower part
    found = check(replace(case, brain=lesser), to_model_input(replace(case, brain=lesser), DEFAULT.grid, 8), usual)
    assert set(codes(found)) == {"unusual-size", "unusual-asymmetry"}
    assert f"{lesser.sum() / 1000:.0f} ml" in found[0].message


def test_cut_at_the_edge_is_named():
    """A brain that ends at the border of T1's field of view is reported, with its area in the right units."""
    whole = ball_case()
    cut = Case(
        *(replace(v, data=v.data[:, :, :40]) for v in whole.contrasts()),
        whole.brain[:, :, :40],
    )
    features = features_of(cut)
    area = whole.brain[:, :, 39].sum()
    assert features["cut_area"] == pytest.approx(area / whole.brain[:, :, :40].sum() ** (2 / 3), rel=0.01)
    usual = InputLimits((FeatureLimit("cut_area", 0, 0.2), FeatureLimit("height_mm", 50, 60)))
    assert codes(check(cut, to_model_input(cut, DEFAULT.grid, 8), usual)) == ["unusual-extent"] * 2


def test_noise_and_shading_are_seen():
    """More noise raises the noise feature by the logarithm of its factor; a coil's drift raises the slope along it."""
    quiet, loud = (features_of(ball_case(noise=n)) for n in (0.08, 0.2))
    assert loud["t2_noise"] - quiet["t2_noise"] == pytest.approx(np.log10(2.5), abs=0.12)
    case = ball_case()
    drift = np.exp(np.linspace(-0.4, 0.4, 64))[None, None]  # from bottom to top
    shaded = Case(*(replace(v, data=(v.data * drift).astype(np.float32)) for v in case.contrasts()), case.brain)
    before, after = features_of(case), features_of(shaded)
    assert after["shading_z"] - before["shading_z"] > 0.3
    assert abs(after["shading_x"] - before["shading_x"]) < 0.05


def test_inverted_scan_is_named_once():
    """An inverted FLAIR raises one notice about the order of contrasts, though several features are out."""
    case = ball_case()
    names = [n for n, f in FEATURES.items() if f.code == "unusual-contrast"]
    usual = usual_about(features_of(case), *names, width=0.2)
    top = case.flair.data.max()
    inverted = replace(case, flair=replace(case.flair, data=np.where(case.brain, top - case.flair.data, 0)))
    assert codes(check(inverted, to_model_input(inverted, DEFAULT.grid, 8), usual)) == ["unusual-contrast"]
    told = replace(inverted, notices=(Notice("contrasts-swapped", "They may be swapped.", "flair"),))
    assert check(told, to_model_input(told, DEFAULT.grid, 8), usual) == ()


def test_contrast_score_is_the_weighted_sum_of_its_features():
    """A T1 that looks as after contrast agent is named alone, and not where T1 is no T1 at all."""
    features = dict.fromkeys(CONTRAST_FEATURES, 1.0) | {"t1_median": 0.5, "t1_t2_correlation": 0.0}
    weights = (-2.0, 1.0, 1.0, 1.0, 1.0, 1.0)  # -1 + 5 = 4
    limits = (FeatureLimit(CONTRAST_SCORE, -3, 3.9), FeatureLimit("t1_median", 0.6, 0.7))
    assert codes(judge(features, InputLimits(limits, weights))) == ["contrast-in-t1"]
    assert codes(judge(features, InputLimits((FeatureLimit(CONTRAST_SCORE, -3, 4.1), limits[1]), weights))) == [
        "unusual-intensities"
    ]
    mixed = (*limits, FeatureLimit("t1_t2_correlation", -0.9, -0.1))
    assert "contrast-in-t1" not in codes(judge(features, InputLimits(mixed, weights)))


def test_next_to_no_brain_says_nothing():
    """Too few voxels have no features, and no notice is made up for them."""
    case = ball_case(radii=(5, 5, 5), shape=(16, 16, 16))
    usual = InputLimits((FeatureLimit("brain_ml", 1000, 2000),))
    assert check(case, to_model_input(case, DEFAULT.grid, 8), usual) == ()


def test_card_keeps_the_limits_and_old_cards_load():
    """The limits survive the card's file; a card without them is still a card."""
    usual = InputLimits((FeatureLimit("brain_ml", 1000.5, 1900),), (1.0,) * 6, 68)
    assert Card.from_json(replace(CARD, input_check=usual).to_json()).input_check == usual
    old = json.loads(CARD.to_json())
    del old["input_check"]
    assert Card.from_json(json.dumps(old)).input_check is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"limits": [{"name": "iq", "low": 0, "high": 1}]}, "not measured"),
        ({"limits": [{"name": "brain_ml", "low": 2, "high": 1}]}, "above its high"),
        ({"limits": [{"name": "brain_ml", "low": 0, "high": float("nan")}]}, "not a number"),
        ({"limits": [{"name": "brain_ml", "low": 0, "high": 1}] * 2}, "two limits"),
        ({"limits": [], "contrast_weights": [1, 2]}, "contrast_weights"),
        ({"limits": "all"}, "not a list"),
        ({}, "lacks limits"),
    ],
)
def test_bad_limits_in_a_card_are_refused(change, reason):
    """A card with limits that mean nothing is refused by name, not used."""
    with pytest.raises(D3MError, match=reason):
        Card.from_json(json.dumps(json.loads(CARD.to_json()) | {"input_check": change}))


def test_notice_reaches_the_result(tiny_case, tiny_model):
    """What is unusual travels with the result of a synthesis, as every notice does."""
    from d3m.models.load import load_model
    from d3m.synthesis import Synthesis

    model = load_model(tiny_model)
    usual = InputLimits((FeatureLimit("brain_ml", 1000, 2000),))
    model = replace(model, card=replace(model.card, input_check=usual))
    result = Synthesis(model, SynthesisOptions(device="cpu", quality="preview")).run(
        read_case(tiny_case.t1, tiny_case.t2, tiny_case.flair)
    )
    assert "unusual-size" in codes(result.notices)


def test_bundled_sample_is_familiar_to_the_bundled_model():
    """The simulated patient that ships raises no alarm with the model that ships."""
    from d3m.models.store import find_model, find_sample, read_card

    sample = find_sample()
    card = read_card(find_model(None))
    assert card.input_check is not None
    case = read_case(sample.t1, sample.t2, sample.flair)
    assert check(case, to_model_input(case, card.recipe.grid, 32), card.input_check) == ()
