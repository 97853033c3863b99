"""Do a scan's values make physical sense? Asked before anything is concluded from them.

Numbers that wrapped around and Hounsfield units would otherwise be explained as something else.
"""

from __future__ import annotations

import numpy as np

from d3m.arrays import values_in
from d3m.errors import D3MError
from d3m.volumes.io.files import label
from d3m.volumes.types import Floats, Mask

AIR = 1000.0
"""Hounsfield units that air lies below water."""
SOFT, BONE, BETWEEN = (-10.0, 90.0), 300.0, (-700.0, -200.0)
"""Hounsfield units: brain, blood and muscle; from where bone begins; where no tissue of a head lies."""
CT_SOFT, CT_BONE, CT_BETWEEN = 0.3, (0.02, 0.6), 0.15
"""Shares of what is not air in a CT of a head: at least, from and to, at most."""
WHOLE_TURNS = (2.0**16, 2.0**8)
"""What was lost of a number of 16 or 8 bits that was too large for a signed one."""
BALANCE = 0.05
"""Wrapped numbers reach from minus to plus one limit, to this share, also where a header scales them."""
SMOOTHER = 0.85
"""Putting that back makes a picture smoother, to this share of its differences between neighbours and less; it makes
any other picture with negative values much rougher."""
MIN_NEGATIVE, MAX_NEGATIVE = 2e-4, 0.25
"""Share of the brain: of fewer nothing is concluded; a scan with more may have a mean of zero."""
AT_LIMIT = 0.95
"""Share of the most negative number: whole numbers around a background of 0 do not come so near to it by chance."""
STRONG = 0.1
"""Share of the highest value: more than interpolation makes negative."""
SAMPLES = 400_000


def check_values(data: Floats, inside: Mask, stripped: bool, contrast: str) -> None:
    """Refuse a CT, and numbers of 16 bits that wrapped around.

    Args:
        data: (X, Y, Z).
        inside: (X, Y, Z), what is not background.
        stripped: Whether that is a brain; of a head only the middle is looked at.
        contrast: For messages.

    Raises:
        D3MError: the scan looks like one of the two.
    """
    if _is_ct(data):
        raise D3MError(
            f"{label(contrast)} looks like a CT: air lies 1000 below soft tissue and bone far above it, as in "
            "Hounsfield units.",
            f"Give the patient's {label(contrast)} from an MRI.",
        )
    count = _wrapped(data, inside, stripped)
    if count:
        raise D3MError(
            f"{label(contrast)} has {count:,} voxels that are strongly negative right beside its brightest ones: its "
            "16-bit numbers have wrapped around.",
            "Convert it from DICOM again, as unsigned 16-bit or floating-point numbers (for instance with dcm2niix).",
        )


def _is_ct(data: Floats) -> bool:
    """Whether the histogram is that of a head in Hounsfield units, with any offset."""
    step = max(1, round((data.size / SAMPLES) ** (1 / 3)))
    values = data[::step, ::step, ::step]
    values = values[np.isfinite(values)]
    if values.size < 1000:
        return False
    faces = np.concatenate([data[sides].ravel() for sides in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1])])
    faces = faces[np.isfinite(faces)]
    if not faces.size:
        return False
    units = values - np.median(faces) - AIR
    shown = units[units > BETWEEN[0]]
    if shown.size < 500:
        return False

    def share(low: float, high: float) -> float:
        return float(((shown > low) & (shown < high)).mean())

    bone = share(BONE, np.inf)
    return share(*SOFT) >= CT_SOFT and CT_BONE[0] <= bone <= CT_BONE[1] and share(*BETWEEN) <= CT_BETWEEN


def _wrapped(data: Floats, inside: Mask, stripped: bool) -> int:
    """How many voxels are negative because they were too bright for a signed number; 0 if none are."""
    if not stripped:
        middle = tuple(slice(n // 4, n - n // 4) for n in data.shape)
        data, inside = data[middle], inside[middle]
    values = values_in(data, inside & np.isfinite(data))
    if values.size < 1000:
        return 0
    low, high = float(values.min()), float(values.max())
    negative = values < 0
    count = int(negative.sum())
    if not high > 0 or count < MIN_NEGATIVE * values.size:
        return 0
    scaled = (high - low,) if abs(high + low) < BALANCE * high else ()
    before = _roughness(data, inside, 0.0)
    if any(_roughness(data, inside, period) < SMOOTHER * before for period in (*WHOLE_TURNS, *scaled)):
        return count
    plain = stripped and bool((values_in(data, ~inside) == 0).all())
    whole_numbers = plain and bool((values == np.rint(values)).all())
    strong = float((values < -STRONG * high).mean())
    at_limit = any(-period / 2 <= low < -AT_LIMIT * period / 2 and high < period / 2 for period in WHOLE_TURNS)
    return count if whole_numbers and (at_limit or MIN_NEGATIVE < strong < MAX_NEGATIVE) else 0


def _roughness(data: Floats, inside: Mask, period: float) -> float:
    """Sum of the differences between neighbours, with `period` added to what is negative."""
    whole = np.where(data < 0, data + np.float32(period), data)
    total = 0.0
    for axis in range(3):
        one, other = np.moveaxis(whole, axis, 0)[1:], np.moveaxis(whole, axis, 0)[:-1]
        both = np.moveaxis(inside, axis, 0)[1:] & np.moveaxis(inside, axis, 0)[:-1]
        with np.errstate(invalid="ignore"):
            steps = np.abs(one[both] - other[both])
        total += float(steps[np.isfinite(steps)].sum(dtype=np.float64))
    return total
