"""What the values of a label map mean: a wrong guess trains on the wrong tissue."""

from __future__ import annotations

import numpy as np
import pytest

from d3m.errors import D3MError
from d3m_training.data.cache import ENHANCING, NECROSIS, OEDEMA
from d3m_training.data.labels import (
    FROM_2023,
    NO_ENHANCEMENT,
    POST_TREATMENT,
    UNTIL_2021,
    Scheme,
    decide_scheme,
    decide_schemes,
    label_values,
    unify,
)

OLD, NEW, AFTER, NONE = (
    frozenset({0, 1, 2, 4}),
    frozenset({0, 1, 2, 3}),
    frozenset({0, 1, 2, 3, 4}),
    frozenset({0, 1, 2}),
)


def _labels(*values: float) -> np.ndarray:
    return np.array(values, np.float32).reshape(1, 1, -1)


@pytest.mark.parametrize(
    ("sets", "scheme"),
    [
        ([OLD, OLD], UNTIL_2021),
        ([OLD, NONE], UNTIL_2021),
        ([NONE, OLD, frozenset({0})], UNTIL_2021),
        ([NEW, NONE], FROM_2023),
        ([AFTER], POST_TREATMENT),
        ([AFTER, NEW, NONE], POST_TREATMENT),
        ([NONE, frozenset({0, 2})], NO_ENHANCEMENT),
        ([frozenset({0})], NO_ENHANCEMENT),
        ([frozenset({0, 4})], UNTIL_2021),
    ],
)
def test_the_set_decides(sets: list[frozenset[int]], scheme: Scheme) -> None:
    """The scheme comes from all patients together, whatever the order; one without enhancement follows the others."""
    for order in (sets, sets[::-1]):
        assert decide_scheme({f"p{k}": values for k, values in enumerate(order)}) == scheme


@pytest.mark.parametrize("sets", [[OLD, NEW], [NEW, OLD, NONE], [OLD, AFTER], [AFTER, NEW, OLD, NONE], [{0, 4}, {3}]])
def test_a_mixture_is_refused_with_its_patients(sets: list[frozenset[int]]) -> None:
    """4 is enhancing tumour in one set and a cavity in another: the user is asked, with the patients of either kind."""
    with pytest.raises(D3MError) as error:
        decide_scheme({f"patient{k}": frozenset(values) for k, values in enumerate(sets)})
    for k, values in enumerate(sets):
        assert (f"patient{k}" in error.value.message) == bool(set(values) & {3, 4})
    assert "--enhancing-label" in error.value.hint
    assert error.value.exit_code == 2


def test_what_is_stated_goes_first() -> None:
    """With 3 stated, a patient with 4 and no 3 has a cavity; with 4 stated, a 3 contradicts it."""
    assert decide_scheme({"a": OLD, "b": AFTER}, 3) == POST_TREATMENT
    assert decide_scheme({"a": OLD, "b": NONE}, 4) == UNTIL_2021
    assert decide_scheme({"a": NONE}, 3) == FROM_2023
    for values in (NEW, AFTER):
        with pytest.raises(D3MError, match="4 is stated .* b"):
            decide_scheme({"a": OLD, "b": values}, 4)
    with pytest.raises(D3MError, match="value 2"):
        decide_scheme({"a": NONE}, 2)


def test_each_patient_may_state_its_own() -> None:
    """Sets of different years are trained on together when a manifest says which is which."""
    values = {"old": OLD, "old_none": NONE, "new": NEW, "after": AFTER}
    schemes = decide_schemes(values, {"old": 4, "old_none": 4, "new": 3, "after": 3})
    assert schemes == {"old": UNTIL_2021, "old_none": UNTIL_2021, "new": POST_TREATMENT, "after": POST_TREATMENT}
    mixed = decide_schemes(values, {"old": 4}, enhancing=3)
    assert (mixed["old"], mixed["old_none"]) == (UNTIL_2021, POST_TREATMENT)
    assert decide_schemes(values, {"old": 4})["after"] == POST_TREATMENT
    assert decide_schemes({}, {}) == {}


def test_one_coding_for_all() -> None:
    """Necrosis, oedema and enhancing tumour mean the same after unification; a cavity is none of them."""
    np.testing.assert_array_equal(unify(_labels(0, 1, 2, 4), UNTIL_2021), _labels(0, NECROSIS, OEDEMA, ENHANCING))
    np.testing.assert_array_equal(unify(_labels(0, 1, 2, 3), FROM_2023), _labels(0, NECROSIS, OEDEMA, ENHANCING))
    np.testing.assert_array_equal(
        unify(_labels(0, 1, 2, 3, 4), POST_TREATMENT), _labels(0, NECROSIS, OEDEMA, ENHANCING, 0)
    )
    np.testing.assert_array_equal(unify(_labels(0, 1, 2), NO_ENHANCEMENT), _labels(0, NECROSIS, OEDEMA))
    for values, scheme in (((0, 3), UNTIL_2021), ((0, 4), FROM_2023), ((0, 3), NO_ENHANCEMENT), ((-1, 0), FROM_2023)):
        with pytest.raises(ValueError, match="not of the scheme"):
            unify(_labels(*values), scheme)


def test_floating_labels_are_rounded_only_if_they_are_close() -> None:
    """3.9999 is a 4 of a converted file; 3.5 was interpolated and is refused."""
    data = _labels(0, 0.9999, 2.004, 3.9999)
    assert label_values(data, "p") == OLD
    np.testing.assert_array_equal(unify(data, UNTIL_2021), _labels(0, NECROSIS, OEDEMA, ENHANCING))
    for value in (3.5, 3.98, 0.02):
        with pytest.raises(D3MError, match=f"patient7 holds the value {value:g}, which is not a whole number"):
            label_values(_labels(0, 1, value), "patient7")


@pytest.mark.parametrize("kind", ["mr", "whole numbers", "probability"])
def test_an_image_as_labels_is_refused_by_name(kind: str) -> None:
    """An MR image or a probability map in the place of the labels is named, not trained on."""
    data = np.random.default_rng(0).normal(300, 80, (16, 16, 16)).astype(np.float32)
    if kind == "whole numbers":
        data = np.rint(data)
    if kind == "probability":
        data = 1 / (1 + np.exp(-(data - 300) / 80))
    with pytest.raises(D3MError, match="label file of patient7 holds .* image"):
        label_values(data, "patient7")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((0, 1, 255), "0, 1, 255"),
        ((0, 5), "0, 5"),
        ((-1, 0, 1), "-1, 0, 1"),
        ((0, np.nan), "not finite"),
        ((0, np.inf), "not finite"),
    ],
)
def test_values_that_are_no_labels(values: tuple[float, ...], words: str) -> None:
    """Values of other tools' codings, and NaN, are refused with the patient's name."""
    with pytest.raises(D3MError, match=f"patient7.*{words}"):
        label_values(_labels(*values), "patient7")
