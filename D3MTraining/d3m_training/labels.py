"""Tumour labels of BraTS-style data sets, brought to one coding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from d3m.errors import D3MError
from d3m.volumes.types import Floats
from d3m_training.cache import ENHANCING, NECROSIS, OEDEMA

ROUNDING = 0.01
"""Labels stored as floating point may be this far from a whole number."""
MAX_VALUES = 8
"""More different values than this make an image, not a label map."""


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
POST_TREATMENT = Scheme("BraTS 2024 after treatment: enhancing tumour = 3, cavity = 4", 3, frozenset({0, 1, 2, 3, 4}), frozenset({4}))
SCHEMES = (UNTIL_2021, FROM_2023, POST_TREATMENT)


def label_values(data: Floats, who: str) -> frozenset[int]:
    """The values of a label map.

    Args:
        data: (X, Y, Z).
        who: Names the patient in messages.

    Raises:
        D3MError: values are no whole numbers, or so many that it is an image.
    """
    values = np.unique(data)
    rounded = np.rint(values)
    if len(values) > 1000 or len(np.unique(rounded)) > MAX_VALUES:
        raise D3MError(
            f"The label file of {who} holds {len(values)} different values: it is an image, not a label map.",
            "Give the segmentation, or leave the column empty.",
        )
    if np.abs(values - rounded).max() > ROUNDING or rounded.min() < 0:
        worst = float(values[np.abs(values - rounded).argmax()])
        raise D3MError(
            f"The label file of {who} holds the value {worst:g}, which is no label.",
            "Store the labels as whole numbers; do not interpolate them.",
        )
    return frozenset(int(v) for v in rounded)


def decide_scheme(values: Mapping[str, frozenset[int]], enhancing: int | None = None) -> Scheme | None:
    """The scheme of a whole data set; a single patient without enhancement does not tell it.

    Args:
        values: For each annotated patient the values that occur.
        enhancing: Value of the enhancing tumour where the user states it: 3 or 4.

    Returns:
        The scheme, or None where no patient is annotated.

    Raises:
        D3MError: values of no scheme, a mixture of schemes, or nothing that tells them apart.
    """
    odd = {who: v for who, v in values.items() if not v <= {0, 1, 2, 3, 4}}
    if odd:
        who, seen = next(iter(odd.items()))
        raise D3MError(f"The labels of {who} are {_shown(seen)}; BraTS has 0 to 4.", "Give BraTS-style labels.")
    if not values:
        return None
    both = [who for who, v in values.items() if {3, 4} <= v]
    three = [who for who, v in values.items() if 3 in v and 4 not in v]
    four = [who for who, v in values.items() if 4 in v and 3 not in v]
    if enhancing is not None:
        return _stated(enhancing, both, three, four)
    if both:  # 4 is a cavity in this set; a patient who has 4 without 3 has a cavity and no enhancing tumour
        return POST_TREATMENT
    if three and four:
        counts = Counter({"3": len(three), "4": len(four)})
        raise D3MError(
            f"The set mixes label schemes: {counts['3']} patients have the value 3 ({three[0]}, ...) and {counts['4']} the "
            f"value 4 ({four[0]}, ...), which both can mean enhancing tumour.",
            "Prepare the sets apart, or state the value in the manifest's column enhancing_label.",
        )
    if three:
        return FROM_2023
    if four:
        return UNTIL_2021
    raise D3MError(
        "No patient has a label 3 or 4, so the value of the enhancing tumour cannot be known.",
        "State it with --enhancing-label.",
    )


def _stated(enhancing: int, both: list[str], three: list[str], four: list[str]) -> Scheme:
    if enhancing == 4:
        if both or three:
            raise D3MError(f"4 is stated as enhancing tumour, but {(both + three)[0]} has the value 3 too.", "Check the labels.")
        return UNTIL_2021
    if enhancing == 3:
        return POST_TREATMENT if both or four else FROM_2023
    raise D3MError(f"The value {enhancing} is stated as enhancing tumour.", "It is 4 until BraTS 2021 and 3 from 2023.")


def _shown(values: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(values)))


def unify(data: Floats, scheme: Scheme) -> Floats:
    """Labels in the cache's coding: 0 none, `NECROSIS`, `OEDEMA`, `ENHANCING`; what is ignored becomes 0.

    Args:
        data: (X, Y, Z) values of `scheme`.
        scheme: From `decide_scheme`.
    """
    whole = np.rint(data).astype(np.int64)
    table = np.zeros(5, np.float32)
    table[1], table[2], table[scheme.enhancing] = NECROSIS, OEDEMA, ENHANCING
    for value in scheme.ignored:
        table[value] = 0
    return table[whole]
