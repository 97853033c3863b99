"""Do the scans belong together, and is each what it is called?"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from scipy import ndimage

from d3m.errors import D3MError, Notice
from d3m.volumes.geometry import spacing_mm
from d3m.volumes.io.files import label
from d3m.volumes.types import ALL_CONTRASTS, CONTRASTS, Affine, Floats, Mask, Volume

MIN_OVERLAP = 0.5
"""Share of the smaller field of view that must lie in the other one."""
THICK_MM = 3.5
"""Slices from this thickness on are reported: the models were trained at 1 mm."""
SAME_CORRELATION = 0.98
"""Above it two contrasts are one image stored twice; different contrasts reach 0.80 in 79 patients."""
MIN_VALUES = 7
"""A scan has more values than this; a label map has not."""
SAMPLES = 200_000
"""Voxels of the brain that contrasts are compared over."""


def check_content(data: Floats, contrast: str) -> None:
    """Refuse a volume that shows nothing: no numbers at all, all zero, or one value everywhere."""
    finite = np.isfinite(data)
    values = data if finite.all() else data[finite]
    if not values.size:
        raise D3MError(f"{label(contrast)} holds no valid number (all are NaN or infinite).", "Export the scan again.")
    low, high = float(values.min()), float(values.max())
    if low == high:
        what = "only zeros" if low == 0 else f"the same value everywhere ({low:g})"
        raise D3MError(f"{label(contrast)} holds {what}.", "Choose another file: this one shows nothing.")


def check_paths(paths: dict[str, Path]) -> None:
    """Refuse one file (also through links) as two contrasts; a folder may hold the series of all three."""
    names = list(paths)
    for index, one in enumerate(names):
        for other in names[index + 1 :]:
            if _same_file(paths[one], paths[other]):
                raise same_image(one, other)


def _same_file(one: Path, other: Path) -> bool:
    try:
        return not one.is_dir() and one.samefile(other)
    except (OSError, ValueError):
        return False  # what cannot be looked at is reported by name when it is read


def same_image(one: str, other: str) -> D3MError:
    """The error for one image under two names."""
    return D3MError(
        f"{label(one)} and {label(other)} hold the same image.",
        f"Give the patient's own {label(other)} scan as {label(other)}.",
    )


def check_fields_of_view(volumes: dict[str, Volume]) -> None:
    """Refuse scans whose boxes hardly overlap in world space."""
    t1 = volumes["t1"]
    for name, volume in volumes.items():
        share = max(_share_inside(t1, volume), _share_inside(volume, t1))
        if share < MIN_OVERLAP:
            what = f"overlap by only {100 * share:.0f} %" if share > 0 else "do not overlap (0 %)"
            raise D3MError(
                f"{label(name)} and T1 {what}.",
                "Give scans of one examination in one frame of reference, or register them to T1 first.",
            )


def _share_inside(one: Volume, other: Volume) -> float:
    """Share of the field of view of `one` that lies in that of `other`."""
    positions = np.stack(
        np.meshgrid(*[np.linspace(-0.5, n - 0.5, 25)[:-1] + n / 48 for n in one.data.shape], indexing="ij")
    ).reshape(3, -1)
    mapping: Affine = np.linalg.inv(other.affine) @ one.affine
    index = mapping[:3, :3] @ positions + mapping[:3, 3:]
    size = np.array(other.data.shape)[:, None]
    return float(((index >= -0.5 - 1e-6) & (index <= size - 0.5 + 1e-6)).all(axis=0).mean())


def share_of_smaller(one: Mask, other: Mask) -> float:
    """Voxels that two masks share, over those of the smaller one (1 if that is empty)."""
    smaller = min(int(one.sum()), int(other.sum()))
    return float((one & other).sum() / smaller) if smaller else 1.0


def thick_slices(volumes: dict[str, Volume]) -> list[Notice]:
    """A notice for each scan with slices much thicker than what the models were trained on."""
    notices = []
    for name, volume in volumes.items():
        thickness = float(spacing_mm(volume.affine).max())
        if thickness >= THICK_MM:
            text = f"{label(name)} has slices of {thickness:.3g} mm; the models were trained and validated at 1 mm"
            text += ", so the result is outside the validated range." if name == "t1" else "."
            notices.append(Notice("thick-slices", text, name))
    return notices


def compare_contrasts(volumes: dict[str, Volume], brain: Mask) -> list[Notice]:
    """Refuse one image given twice and label maps; report contrasts that look swapped.

    The signs of a swap, each without a false alarm in 79 patients: T1's histogram has its tail on the dark side
    when compared with T2's (fluid is dark in T1, bright in T2); what T2 shows brightest FLAIR shows brighter than
    T1 does (oedema); what T1 shows darkest T2 shows brighter than FLAIR does (fluid).

    Args:
        volumes: t1, and t2 and flair or one of them, and further ones; finite.
        brain: (X, Y, Z) on T1's grid.

    Raises:
        D3MError: two contrasts hold one image; a contrast is a label map.
    """
    names = [name for name in ALL_CONTRASTS if name in volumes]
    values, known = _at_brain([volumes[name] for name in names], brain)
    if known.sum() < 500:
        return []
    values = values[:, known]
    for index, name in enumerate(names):
        distinct = len(np.unique(values[index]))
        if distinct < MIN_VALUES:
            raise D3MError(
                f"{label(name)} holds {distinct} different values in the brain: a label map or mask, not a scan.",
                f"Give the {label(name)} scan itself.",
            )
    correlation = np.atleast_2d(np.corrcoef(values))
    for one, other in itertools.combinations(range(len(names)), 2):
        if correlation[one, other] > SAME_CORRELATION:
            raise same_image(names[one], names[other])
    return _swaps(values[: len(CONTRASTS)]) if set(CONTRASTS) <= set(names) else []


def _at_brain(volumes: list[Volume], brain: Mask) -> tuple[Floats, Mask]:
    """((scans, N) values at voxels of the brain spread evenly, (N,) whether all scans reach there); T1 comes first."""
    chosen = np.flatnonzero(brain.ravel())
    chosen = chosen[:: max(1, len(chosen) // SAMPLES)]
    index = np.array(np.unravel_index(chosen, brain.shape))
    world = volumes[0].affine[:3, :3] @ index + volumes[0].affine[:3, 3:]
    values = np.empty((len(volumes), len(chosen)), np.float32)
    known = np.ones(len(chosen), bool)
    for row, volume in enumerate(volumes):
        inverse = np.linalg.inv(volume.affine)
        place = inverse[:3, :3] @ world + inverse[:3, 3:]
        values[row] = ndimage.map_coordinates(volume.data, place, order=1, mode="nearest")
        known &= ((place >= -0.5) & (place <= np.array(volume.data.shape)[:, None] - 0.5)).all(axis=0)
    return values, known


def _swaps(values: Floats) -> list[Notice]:
    low, middle, high = (np.percentile(values, share, axis=1) for share in (2, 50, 98))
    tail: np.ndarray = (high + low - 2 * middle) / np.maximum(high - low, 1e-12)
    if tail[0] > tail[1]:
        text = "T1 looks like a T2 (bright fluid), and T2 like a T1: they may be swapped."
        return [Notice("contrasts-swapped", text, "t1")]
    ranks = np.argsort(np.argsort(values, axis=1), axis=1) / values.shape[1]
    bright, dark = ranks[1] > 0.9, ranks[0] < 0.05
    if ranks[0, bright].mean() - ranks[2, bright].mean() > 0.12:
        text = "T1 looks like a FLAIR (what T2 shows bright is brighter in T1 than in FLAIR): they may be swapped."
        return [Notice("contrasts-swapped", text, "t1")]
    if ranks[2, dark].mean() - ranks[1, dark].mean() > 0.1:
        text = "FLAIR looks like a T2 (bright fluid), and T2 like a FLAIR: they may be swapped."
        return [Notice("contrasts-swapped", text, "flair")]
    return []
