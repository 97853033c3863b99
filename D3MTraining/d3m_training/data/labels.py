"""Tumour labels of BraTS-style data sets, brought to one coding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from d3m.errors import D3MError
from d3m.volumes.types import Floats
from d3m_training.data.cache import ENHANCING, NECROSIS, OEDEMA

ROUNDING = 0.01
"""Labels stored as floating point may be this far from a whole number."""
MAX_VALUES = 8
"""More different values than this make an image, not a label map."""
NAMES_SHOWN = 5
"""Patients that a message names before it says how many more there are."""


@dataclass(frozen=True)
class Scheme:
    """What the values of a label map mean."""

    name: str
    enhancing: int
    """Value of the enhancing tumour."""
    values: frozenset[int]
    """Values that may occur, 0 included."""
    ignored: frozenset[int] = frozenset()
    """Values that are no tumour tissue: a resection cavity does not enhance and has no oedema."""


UNTIL_2021 = Scheme("BraTS until 2021: enhancing tumour = 4", 4, frozenset({0, 1, 2, 4}))
FROM_2023 = Scheme("BraTS from 2023: enhancing tumour = 3", 3, frozenset({0, 1, 2, 3}))
POST_TREATMENT = Scheme(
    "BraTS 2024 after treatment: enhancing tumour = 3, cavity = 4", 3, frozenset({0, 1, 2, 3, 4}), frozenset({4})
)
NO_ENHANCEMENT = Scheme("no patient has enhancing tumour: neither 3 nor 4 occurs", 3, frozenset({0, 1, 2}))
"""The values 1 and 2 mean the same in every scheme, so there is nothing to decide."""


def label_values(data: Floats, who: str) -> frozenset[int]:
    """The values of a label map.

    Args:
        data: (X, Y, Z).
        who: Names the patient in messages.

    Raises:
        D3MError: values are not finite, no whole numbers, not within 0 to 4, or so many that it is an image.
    """
    if not np.isfinite(data).all():
        raise D3MError(
            f"The label file of {who} holds values that are not finite (NaN or infinite).",
            "Store the labels as whole numbers.",
        )
    values = np.unique(data)
    rounded = np.rint(values)
    if len(values) > 1000 or len(np.unique(rounded)) > MAX_VALUES:
        raise D3MError(
            f"The label file of {who} holds {len(values)} different values: it is an image, not a label map.",
            "Give the segmentation, or leave the column empty.",
        )
    far = np.abs(values - rounded)
    if far.max() > ROUNDING:
        raise D3MError(
            f"The label file of {who} holds the value {float(values[far.argmax()]):g}, which is not a whole number.",
            "Store the labels as whole numbers; do not interpolate them.",
        )
    whole = frozenset(int(v) for v in rounded)
    if not whole <= POST_TREATMENT.values:
        raise D3MError(
            f"The label file of {who} holds the values {_shown(whole)}; BraTS has 0 to 4.", "Give BraTS-style labels."
        )
    return whole


def decide_schemes(
    values: Mapping[str, frozenset[int]], stated: Mapping[str, int], enhancing: int | None = None
) -> dict[str, Scheme]:
    """The scheme of every annotated patient: one for all, unless the manifest states values of its own.

    Args:
        values: For each annotated patient the values that occur.
        stated: Value of the enhancing tumour for those patients for whom the manifest states it.
        enhancing: The same for all others, where the user states it.

    Raises:
        D3MError: as `decide_scheme` does.
    """
    said = {who: stated.get(who, enhancing) for who in values}
    schemes: dict[str, Scheme] = {}
    for value in dict.fromkeys(said.values()):
        members = {who: values[who] for who in values if said[who] == value}
        schemes |= dict.fromkeys(members, decide_scheme(members, value))
    return schemes


def decide_scheme(values: Mapping[str, frozenset[int]], enhancing: int | None = None) -> Scheme:
    """The scheme of patients who share one; a single patient without enhancement does not tell it.

    Args:
        values: For each patient the values that occur, within 0 to 4.
        enhancing: Value of the enhancing tumour where it is stated: 3 or 4.

    Returns:
        The scheme. Where 3 and 4 occur in one patient, 3 is enhancing and 4 a resection cavity.

    Raises:
        D3MError: a mixture of schemes, or values that contradict what is stated.
    """
    both = [who for who, v in values.items() if {3, 4} <= v]
    three = [who for who, v in values.items() if 3 in v and 4 not in v]
    four = [who for who, v in values.items() if 4 in v and 3 not in v]
    if enhancing is not None:
        return _stated(enhancing, both, three, four)
    if four and (three or both):
        others = "3 and 4" if both else "3"
        raise D3MError(
            "The set mixes label schemes, or its value 4 cannot be told: enhancing tumour (BraTS until 2021) or a "
            f"cavity (2024)? There are {_listed(four)} with 4 but not 3, and {_listed(both + three)} with {others}.",
            "If 3 is enhancing in all of them, add --enhancing-label 3; else prepare the sets apart, or state each "
            "patient's value in a manifest's column enhancing_label.",
        )
    if both:
        return POST_TREATMENT
    if three:
        return FROM_2023
    return UNTIL_2021 if four else NO_ENHANCEMENT


def _stated(enhancing: int, both: list[str], three: list[str], four: list[str]) -> Scheme:
    if enhancing == 4:
        if both or three:
            raise D3MError(
                f"4 is stated as enhancing tumour, but the value 3 occurs too: {_listed(both + three)}.",
                "Check the labels, or state 3.",
            )
        return UNTIL_2021
    if enhancing == 3:
        return POST_TREATMENT if both or four else FROM_2023
    raise D3MError(f"The value {enhancing} is stated as enhancing tumour.", "It is 4 until BraTS 2021 and 3 from 2023.")


def _shown(values: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(values)))


def _listed(who: list[str]) -> str:
    """Number of patients and the first of their ids."""
    names = ", ".join(who[:NAMES_SHOWN]) + (", ..." if len(who) > NAMES_SHOWN else "")
    return f"{len(who)} {'patient' if len(who) == 1 else 'patients'} ({names})"


def unify(data: Floats, scheme: Scheme) -> Floats:
    """Labels in the cache's coding: 0 none, `NECROSIS`, `OEDEMA`, `ENHANCING`; what is ignored becomes 0.

    Args:
        data: (X, Y, Z) values of `scheme`.
        scheme: From `decide_schemes`.

    Raises:
        ValueError: a value that `scheme` does not know.
    """
    whole = np.rint(data).astype(np.int64)
    table = np.full(max(scheme.values) + 1, np.nan, np.float32)
    table[0], table[1], table[2] = 0, NECROSIS, OEDEMA
    if scheme.enhancing in scheme.values:
        table[scheme.enhancing] = ENHANCING
    table[list(scheme.ignored)] = 0
    if whole.min() < 0 or whole.max() >= len(table) or np.isnan(table[whole]).any():
        raise ValueError(f"values that are not of the scheme {scheme.name!r}")
    return table[whole]


def relabelling(scheme: Scheme | None) -> Callable[[Floats], Floats]:
    """What brings labels into the cache's coding; without a scheme they show the whole tumour: not 0 becomes 1."""
    return partial(unify, scheme=scheme) if scheme else lambda data: (data != 0).astype(np.float32)
