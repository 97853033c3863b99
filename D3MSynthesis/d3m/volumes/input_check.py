"""Is this case like those that the model has seen? Names what is unusual. Numpy alone, well below a second.

Each feature is one number of a case on the model's grid; a model's card says between which limits the features of
ordinary patients lie (`d3m-training input-check` measures them). One feature is a weighted sum of others: how much T1
looks as if it was taken after contrast agent, which no single number tells well. What the checks on reading already
report (swapped contrasts, thick slices, gaps) is not said twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from d3m.errors import Notice
from d3m.volumes.types import CONTRASTS, Case, Floats, Mask, ModelInput

SAMPLES = 100_000
"""Voxels of the brain that histograms and ranks are taken over."""
MIN_VOXELS = 1000
"""A brain with fewer tells nothing."""
BRIGHT, TOP = 0.9, 0.99
"""Shares of the brain's voxels below which a scan is not bright, and is not among its very brightest."""
RIM = 2
"""Steps of 2 mm that the brain's outer rim is thick."""
THIN = 3
"""Voxels from a bright one to neighbours that are darker if it is thin as a vessel is."""
CONTRAST_SCORE = "t1_contrast"
CONTRAST_FEATURES = ("t1_median", "t1_tail", "t1_top_thin", "t1_top_at_rim", "t2_at_t1_top", "flair_at_t1_top")
"""What the score is a weighted sum of: agent shows in vessels, which are bright, thin, often at the brain's surface."""


@dataclass(frozen=True)
class FeatureLimit:
    """Between which values a feature of ordinary patients lies."""

    name: str
    """One of `FEATURES`."""
    low: float
    high: float


@dataclass(frozen=True)
class InputLimits:
    """What is usual for a model; a part of its card."""

    limits: tuple[FeatureLimit, ...]
    contrast_weights: tuple[float, ...] = ()
    """Weights of `CONTRAST_FEATURES` in the score; empty: it is not measured."""
    patients: int = 0
    """How many the limits were taken from."""

    def problem(self) -> str:
        """Why this cannot be used; empty if it can."""
        names = [limit.name for limit in self.limits]
        numbers = [n for limit in self.limits for n in (limit.low, limit.high)] + list(self.contrast_weights)
        if any(name not in FEATURES for name in names):
            return "names a feature that is not measured"
        if len(set(names)) < len(names):
            return "has two limits for one feature"
        if not np.isfinite(numbers).all() or any(limit.low > limit.high for limit in self.limits):
            return "has a limit that is not a number, or whose low end is above its high one"
        if len(self.contrast_weights) not in (0, len(CONTRAST_FEATURES)):
            return f"does not have {len(CONTRAST_FEATURES)} contrast_weights"
        return ""


@dataclass(frozen=True)
class Feature:
    """What is said of a case whose feature lies outside its limits."""

    code: str
    """Of the notice. Of several features with one code and volume only the one that is farthest out is reported."""
    below: str = ""
    """Said below the low limit, with {value} and {limit}; empty: that is no concern."""
    above: str = ""
    """Said above the high limit."""
    volume: str | None = None


def _shading(way: str) -> Feature:
    text = (
        f"T1, T2 and FLAIR all grow brighter {way} by more than in the training patients: correct the bias field first."
    )
    return Feature("unusual-shading", text, text)


def _order(one: str, other: str) -> Feature:
    text = f"The grey levels of {one} and {other} relate differently than in the training patients: one of the two may "
    text += "not be what it is called, or may be inverted or windowed."
    return Feature("unusual-contrast", text, text)


def _own(contrast: Literal["t1", "t2", "flair"]) -> dict[str, Feature]:
    name = contrast.upper()
    text = f"The grey levels of {name} are distributed differently than in the training patients: is it really {name}?"
    noise = f"{name} is noisier than in the training patients."
    return {
        f"{contrast}_median": Feature("unusual-intensities", text, text, contrast),
        f"{contrast}_noise": Feature("unusual-noise", "", noise, contrast),
    }


FEATURES: Mapping[str, Feature] = {
    "brain_ml": Feature(
        "unusual-size",
        "The brain measures {value:.0f} ml, less than in the training patients ({limit:.0f} ml and more): a part of it "
        "may be missing, or the voxel size wrong.",
        "The brain measures {value:.0f} ml, more than in the training patients (up to {limit:.0f} ml): it may hold "
        "more than brain, or the voxel size is wrong.",
    ),
    "height_mm": Feature(
        "unusual-extent",
        "The brain is {value:.0f} mm high, less than in the training patients ({limit:.0f} mm and more): a part of it "
        "may be cut off.",
    ),
    "cut_area": Feature(
        "unusual-extent",
        above="The brain is cut off at the edge of T1 over a larger area than in the training patients.",
        volume="t1",
    ),
    "asymmetry": Feature(
        "unusual-asymmetry",
        above="The left and right sides of the brain differ by {value:.0%} of it, by up to {limit:.0%} in the training "
        "patients: a part of one may be missing or removed.",
    ),
    "t1_t2_correlation": _order("T1", "T2"),
    "t1_flair_correlation": _order("T1", "FLAIR"),
    "t2_flair_correlation": _order("T2", "FLAIR"),
    "t1_where_t2_bright": _order("T1", "T2"),
    "t2_where_flair_bright": _order("T2", "FLAIR"),
    "flair_where_t1_bright": _order("T1", "FLAIR"),
    "flair_where_t2_bright": _order("T2", "FLAIR"),
    "shading_x": _shading("from one side to the other"),
    "shading_y": _shading("between front and back"),
    "shading_z": _shading("between bottom and top"),
    **_own("t1"),
    **_own("t2"),
    **_own("flair"),
    CONTRAST_SCORE: Feature(
        "contrast-in-t1",
        above="T1 looks as if it was taken after contrast agent: the model needs the one from before.",
        volume="t1",
    ),
}


def check(case: Case, model_input: ModelInput, usual: InputLimits) -> tuple[Notice, ...]:
    """Name what is unusual about a case.

    Args:
        case: As read; what its notices already say is left out.
        model_input: The case on the model's grid.
        usual: Of the model's card.

    Returns:
        One notice for each thing that is unusual.
    """
    if case.missing:  # the limits were measured on patients with all three scans
        return ()
    return judge(measure(case, model_input), usual, frozenset(n.code for n in case.notices))


def judge(features: Mapping[str, float], usual: InputLimits, said: frozenset[str] = frozenset()) -> tuple[Notice, ...]:
    """The notices for a case's features.

    Args:
        features: From `measure`.
        usual: Of the model's card.
        said: Codes of the notices that the case has already.
    """
    values = dict(features)
    if usual.contrast_weights and all(name in values for name in CONTRAST_FEATURES):
        values[CONTRAST_SCORE] = float(np.dot(usual.contrast_weights, [values[name] for name in CONTRAST_FEATURES]))
    worst: dict[tuple[str, str | None], tuple[float, Notice]] = {}
    for limit in usual.limits:
        feature, value = FEATURES[limit.name], values.get(limit.name, limit.low)
        end, text = (limit.low, feature.below) if value < limit.low else (limit.high, feature.above)
        if limit.low <= value <= limit.high or not text:
            continue
        out = abs(value - end) / max(limit.high - limit.low, 1e-9)
        notice = Notice(feature.code, text.format(value=value, limit=end), feature.volume)
        key = (feature.code, feature.volume)
        if key not in worst or out > worst[key][0]:
            worst[key] = (out, notice)
    found = {notice.code for _, notice in worst.values()} | said
    hidden = set()
    if "contrasts-swapped" in said:
        hidden |= {"unusual-contrast", "unusual-intensities"}
    if found & {"contrasts-swapped", "unusual-contrast", "unusual-noise"}:
        hidden.add("contrast-in-t1")  # vessels are not all that can be bright and thin in what is no T1
    if "contrast-in-t1" in found - hidden:
        hidden.add("unusual-intensities")  # that is what the agent does to them
    return tuple(notice for _, notice in worst.values() if notice.code not in hidden)


def measure(case: Case, model_input: ModelInput) -> dict[str, float]:
    """The features of a case.

    Args:
        case: For T1's field of view.
        model_input: The rest: slices in [0, 1], 0 outside the brain.

    Returns:
        Numbers by name: those of `FEATURES` without the score, and `CONTRAST_FEATURES`; none for next to no brain.
    """
    brain = model_input.brain
    places = np.flatnonzero(brain)
    if len(places) < MIN_VOXELS:
        return {}
    places = places[:: max(1, len(places) // SAMPLES)]
    index = np.array(np.unravel_index(places, brain.shape))
    values = np.stack([model_input.slices[:, k].ravel()[places] for k in range(len(CONTRASTS))])
    ranks = np.argsort(np.argsort(values, axis=1), axis=1) / values.shape[1]
    features = {**_shape(case, model_input), **_relations(ranks), **_shades(values, index, model_input)}
    for k, name in enumerate(CONTRASTS):
        features[f"{name}_median"] = float(np.median(values[k]))
        features[f"{name}_noise"] = _noise(model_input.slices[:, k], brain)
    return features | _top(values, ranks, index, model_input)


def _shape(case: Case, model_input: ModelInput) -> dict[str, float]:
    """Size, height and symmetry of the brain, and how much of it lies on T1's outermost planes."""
    brain, spacing = model_input.brain, model_input.grid.spacing
    count = int(brain.sum())
    millilitres = count * float(spacing.prod()) / 1000
    slices, columns = np.flatnonzero(brain.any(axis=(1, 2))), brain.sum(axis=(0, 1))
    occupied = np.flatnonzero(columns)
    middle = (occupied[0] + occupied[-1]) / 2
    place = np.arange(len(columns))
    sides = int(columns[place < middle].sum()) - int(columns[place > middle].sum())
    mask, sizes = case.brain, np.linalg.norm(case.t1.affine[:3, :3], axis=0)
    ends = [np.moveaxis(mask, k, 0)[[0, -1]] for k in range(3)]
    faces = [float(end.sum() * np.delete(sizes, k).prod()) for k, end in enumerate(ends)]
    return {
        "brain_ml": millilitres,
        "height_mm": float((slices[-1] - slices[0] + 1) * spacing[2]),
        "asymmetry": abs(sides) / count,
        "cut_area": sum(faces) / (1000 * millilitres) ** (2 / 3),
    }


def _relations(ranks: Floats) -> dict[str, float]:
    """How the contrasts go together; ranks do not depend on scale or window.

    Args:
        ranks: (3, N), 0 to 1.
    """
    correlation = np.atleast_2d(np.corrcoef(ranks))
    t1, t2, flair = ranks
    return {
        "t1_t2_correlation": float(correlation[0, 1]),
        "t1_flair_correlation": float(correlation[0, 2]),
        "t2_flair_correlation": float(correlation[1, 2]),
        "t1_where_t2_bright": float(t1[t2 > BRIGHT].mean()),
        "t2_where_flair_bright": float(t2[flair > BRIGHT].mean()),
        "flair_where_t1_bright": float(flair[t1 > BRIGHT].mean()),
        "flair_where_t2_bright": float(flair[t2 > BRIGHT].mean()),
    }


def _shades(values: Floats, index: np.ndarray, model_input: ModelInput) -> dict[str, float]:
    """Slope of the logarithm of the middle grey levels along x, y and z, a 100 mm; the mean of the contrasts, since a
    tumour brightens some and darkens others, and a coil's sensitivity does the same to all."""
    place = index[::-1] * model_input.grid.spacing[:, None] / 100  # columns, rows, slices
    design = np.stack([np.ones(place.shape[1]), *(place - place.mean(axis=1, keepdims=True))], axis=1)
    slopes = []
    for row in np.log(values.clip(0.02) + 0.1):  # what is next to black has no logarithm
        low, high = np.percentile(row, (10, 90))
        middle = (row > low) & (row < high)
        slopes.append(np.linalg.lstsq(design[middle], row[middle], rcond=None)[0][1:])
    return dict(zip(("shading_x", "shading_y", "shading_z"), map(float, np.mean(slopes, axis=0)), strict=True))


def _noise(slices: Floats, brain: Mask) -> float:
    """log10 of the median size of second differences within slices, along rows or columns, whichever is smaller.

    Args:
        slices: (S, H, W) in [0, 1].
        brain: (S, H, W).
    """

    def roughness(data: Floats, inside: Mask) -> float:  # along the last axis
        whole = inside[..., 2:] & inside[..., 1:-1] & inside[..., :-2]
        found = np.abs(data[..., 2:] - 2 * data[..., 1:-1] + data[..., :-2])[whole]
        return float(np.median(found)) if found.size else 0.0

    rows = roughness(slices[::2, ::2], brain[::2, ::2])
    columns = roughness(slices[::2, :, ::2].swapaxes(1, 2), brain[::2, :, ::2].swapaxes(1, 2))
    return float(np.log10(min(rows, columns) + 1e-4))


def _top(values: Floats, ranks: Floats, index: np.ndarray, model_input: ModelInput) -> dict[str, float]:
    """Where T1's brightest voxels are, and how they look."""
    t1, brain = model_input.slices[:, 0], model_input.brain
    median, high = np.percentile(values[0], (50, 90))
    brightest = ranks[0] > TOP
    at = index[:, brightest]
    around = []
    for axis in range(3):
        for step in (-THIN, THIN):
            moved = at.copy()
            moved[axis] = (moved[axis] + step).clip(0, brain.shape[axis] - 1)
            around.append(t1[tuple(moved)])
    small = brain[::2, ::2, ::2]
    rim = small & ~_eroded(small, RIM)
    return {
        "t1_tail": float((1 - median) / (high - median + 1e-3)),
        "t1_top_thin": float((t1[tuple(at)] - np.mean(around, axis=0)).mean()),
        "t1_top_at_rim": float(rim[tuple(at // 2)].mean()),
        "t2_at_t1_top": float(ranks[1][brightest].mean()),
        "flair_at_t1_top": float(ranks[2][brightest].mean()),
    }


def _eroded(mask: Mask, steps: int) -> Mask:
    """What is in `mask`, and still is when moved by `steps` along each axis, either way."""
    padded = np.pad(mask, steps)
    result = mask.copy()
    for axis in range(3):
        for start in (0, 2 * steps):
            window = [slice(steps, -steps)] * 3
            window[axis] = slice(start, start + mask.shape[axis])
            result &= padded[tuple(window)]
    return result
