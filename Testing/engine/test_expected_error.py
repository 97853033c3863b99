"""How far off an image is said to be: what it is told from, how it comes into the result, and what a card may say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import TinyCase
from d3m.errors import D3MError
from d3m.models.card import Card
from d3m.models.expected_error import FEATURES, ExpectedError
from d3m.models.load import load_model
from d3m.models.recipes import RECIPES
from d3m.options import SynthesisOptions
from d3m.results.files import write_result
from d3m.synthesis import Synthesis
from d3m.volumes.error_features import error_features
from d3m.volumes.preprocess.case import read_case

FIT = ExpectedError(
    (0.1, 0.2, 0.01, 0.5, 0.1, 0.1, 0.8), (0.2, 0.1, 0.02, 0.3, 0.1, 0.05, 0.2), -2.0,
    (0.3, 0.2, 0.1, 0.05, 0.2, 0.1, -0.1), (0.02, 0.0, -0.03, 0.0, 0.01, 0.0, 0.04), 12,
)  # fmt: skip


def test_features_are_what_they_are_called() -> None:
    """Of a voxel in the middle, against numpy on the boxes around it; FLAIR is the third channel."""
    rng = np.random.default_rng(1)
    slices = rng.random((17, 3, 19, 21)).astype(np.float32)
    difference, spread = rng.normal(size=(17, 19, 21)), rng.random((17, 19, 21))
    brain = rng.random((17, 19, 21)) > 0.4
    found = error_features(slices, difference, spread, brain)[:, 8, 9, 10]

    def box(volume: np.ndarray, edge: int) -> np.ndarray:
        half = edge // 2
        return volume[8 - half : 9 + half, 9 - half : 10 + half, 10 - half : 11 + half]

    flair = box(slices[:, 2], 7)
    expected = [
        difference[8, 9, 10], abs(difference[8, 9, 10]), spread[8, 9, 10], flair.mean(), flair.std(),
        box(slices[:, 0], 3).std(), box(brain, 15).mean(),
    ]  # fmt: skip
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_expected_error_follows_the_formula() -> None:
    """Of any voxel, by hand; beyond four standard deviations nothing changes, and what is not known tells nothing."""
    values = [0.3, 0.3, 0.02, 0.2, 0.15, 0.12, 0.9]
    z = [(v - m) / d for v, m, d in zip(values, FIT.means, FIT.deviations, strict=True)]
    line = -2.0 + sum(a * x + b * x**2 for a, b, x in zip(FIT.linear, FIT.squares, z, strict=True))
    features = np.array(values, np.float32)[:, None]
    assert FIT(features)[0] == pytest.approx(np.exp(line), rel=1e-5)
    far, further = features.copy(), features.copy()
    far[0], further[0] = FIT.means[0] + 4 * FIT.deviations[0], 1e6
    np.testing.assert_allclose(FIT(far), FIT(further), rtol=1e-6)
    unknown, usual = features.copy(), features.copy()
    unknown[3], usual[3] = np.nan, FIT.means[3]
    np.testing.assert_allclose(FIT(unknown), FIT(usual), rtol=1e-6)


def test_a_result_says_how_far_off_it_may_be(tiny_model: Path, tiny_case: TinyCase, tmp_path: Path) -> None:
    """In T1's units and inside the brain alone; what the number is, is said in the provenance."""
    model = load_model(tiny_model)
    case = read_case(tiny_case.t1, tiny_case.t2, tiny_case.flair)
    options = SynthesisOptions(device="cpu", quality="preview", samples=2)
    plain = Synthesis(model, options).run(case)
    synthesis = Synthesis(replace(model, card=replace(model.card, expected_error=FIT)), options)
    result = synthesis.run(case)
    assert plain.uncertainty is not None
    assert result.uncertainty is not None
    np.testing.assert_array_equal(plain.cemri, result.cemri)  # the image does not depend on it
    assert not np.allclose(plain.uncertainty, result.uncertainty)
    assert not result.uncertainty[~case.brain].any()
    low, high = synthesis.prepare(case).scales[0]
    inside = result.uncertainty[case.brain] / (high - low)
    assert (inside > 0).all()
    assert inside.max() <= 1
    write_result(tmp_path / "a", plain, case, 1.0)
    write_result(tmp_path / "b", result, case, 1.0)
    said = [json.loads((tmp_path / name / "provenance.json").read_text())["uncertainty"] for name in "ab"]
    assert said == ["standard deviation over the samples, in T1's units", "expected absolute error, in T1's units"]


def test_one_sample_says_nothing_of_it(tiny_model: Path, tiny_case: TinyCase) -> None:
    """The fit counts with samples that differ."""
    model = load_model(tiny_model)
    model = replace(model, card=replace(model.card, expected_error=FIT))
    case = read_case(tiny_case.t1, tiny_case.t2, tiny_case.flair)
    assert Synthesis(model, SynthesisOptions(device="cpu", quality="preview")).run(case).uncertainty is None


def test_without_flair_its_features_tell_nothing(able_model: Path, tiny_case: TinyCase) -> None:
    """Of a FLAIR that is not there nothing is made up: another weight of it changes nothing."""
    model, case = load_model(able_model), read_case(tiny_case.t1, tiny_case.t2, None)
    options = SynthesisOptions(device="cpu", quality="preview", samples=2)
    other = replace(FIT, linear=(*FIT.linear[:3], 2.0, -1.0, *FIT.linear[5:]))
    one, two = (
        Synthesis(replace(model, card=replace(model.card, expected_error=fit)), options).run(case).uncertainty
        for fit in (FIT, other)
    )
    assert one is not None
    assert two is not None
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"linear": FIT.linear[:-1]}, f"expected_error does not have {len(FEATURES)} numbers"),
        ({"deviations": (0.0, *FIT.deviations[1:])}, "expected_error has a deviation that is not positive"),
        ({"squares": (1e9, *FIT.squares[1:])}, "expected_error has a number that makes no sense"),
    ],
)
def test_a_bad_fit_is_refused_by_name(wrong: dict[str, tuple[float, ...]], problem: str) -> None:
    """A card is not trusted; a good one survives JSON."""
    card = Card("m", "T", RECIPES["default"], "a" * 64, expected_error=FIT)
    assert Card.from_json(card.to_json()) == card
    with pytest.raises(D3MError, match=problem):
        Card.from_json(replace(card, expected_error=replace(FIT, **wrong)).to_json())
