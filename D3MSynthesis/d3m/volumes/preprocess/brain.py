"""Where the brain is: in skull-stripped scans of any background, or in a given mask.

"Not zero" is not a brain: backgrounds may be -1024, 100 or not a number. The background is what fills most of a
volume's outer faces with one value, and whatever of that value hangs together with the faces.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from d3m.arrays import values_in
from d3m.errors import D3MError, Notice
from d3m.system.threads import side_by_side
from d3m.volumes.geometry import box_of, spacing_mm, voxel_mm3
from d3m.volumes.grid import resample
from d3m.volumes.io.files import label
from d3m.volumes.preprocess.checks import share_of_smaller
from d3m.volumes.preprocess.coverage import acquired, gap_notice, gap_of, left_out, reaching, without_filling
from d3m.volumes.types import ALL_CONTRASTS, Affine, Floats, Mask, Volume

MIN_EMPTY_FACES = 0.5
"""Share of a stripped volume's faces that is background; 0.986 to 1 in 79 patients, 0.2 in a defaced head."""
NEARLY = 0.001
"""Backgrounds that ripple by this share of the faces' distance to the brightest values are still one value."""
MAX_BRAIN_ML = 2300.0
"""No brain is larger; 1150 to 1750 in 79 patients."""
MAX_SKULL = 0.5
"""A shell this dark, against what lies outside and inside it, is a skull (0.78 and more in 79 stripped patients)."""
MIN_VOXELS, MIN_SHELL = 64, 100
"""A brain, and a shell of it, with fewer voxels tells nothing."""
MIN_PIECE = 0.8
"""Share of all that is not background that hangs together in a stripped brain; specks of noise do not."""
MIN_ALIGNED = 0.93
"""Registered brains share this much of the smaller one; 0.98 and more in 79 patients, 0.90 after 8 mm."""
MAX_GAP = 0.5
"""Share of the brain in a gap from which a scan is refused."""
EXTRACT = (
    "Run a brain extraction tool first (for instance HD-BET or SynthStrip) on scans that are registered to each other, "
    "or give the brain with --brain-mask."
)


@dataclass(frozen=True)
class Seen:
    """What one scan shows, before anybody knows where the brain is."""

    inside: Mask
    """(X, Y, Z), on the scan's own grid: not background, holes filled."""
    background: float
    """Value around it; not a number if that is what stands there."""
    problem: str = ""
    """Why this is not a skull-stripped scan; empty if it is one."""


def foreground(data: Floats) -> Mask:
    """Voxels of a skull-stripped scan that are not its constant background; holes filled, largest piece kept.

    Args:
        data: (X, Y, Z); the background is the most frequent value on the volume's faces.
    """
    return solid(look(Volume(data, np.eye(4))).inside)


def solid(mask: Mask) -> Mask:
    """The largest connected piece of `mask` without holes."""
    result = np.zeros_like(mask)
    box = box_of(mask)
    if box is None:
        return result
    piece = mask[box]
    labels, count = ndimage.label(piece.T)
    if count > 1:
        piece = (labels == np.bincount(labels.ravel())[1:].argmax() + 1).T
    result[box] = ~_touching_faces(~piece)
    return result


def _touching_faces(mask: Mask) -> Mask:
    """The pieces of `mask` (of any number of axes) that reach its outer border."""
    # turned, since volumes that were read lie so in memory: that takes half the time
    labels, _ = ndimage.label(np.pad(mask.T, 1, constant_values=True))
    inner = (slice(1, -1),) * mask.ndim
    return np.asarray(labels == labels.flat[0])[inner].T


def _faces(data: np.ndarray) -> np.ndarray:
    sides = (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1], np.s_[:, :, 0], np.s_[:, :, -1])
    return np.concatenate([data[side].ravel() for side in sides])


def look(volume: Volume) -> Seen:
    """Tell a skull-stripped scan from a head, and what it shows from its background.

    Args:
        volume: May hold values that are not finite; these count as background.
    """
    data = volume.data
    faces = _faces(data)
    finite = faces[np.isfinite(faces)]
    value, nearby = float("nan"), 0.0
    if finite.size:
        values, counts = np.unique(finite, return_counts=True)
        value = float(values[counts.argmax()])
        if (counts.max() + faces.size - finite.size) / faces.size < MIN_EMPTY_FACES:
            value = float(np.median(finite))
            spread = np.abs(np.percentile(data[::4, ::4, ::4][np.isfinite(data[::4, ::4, ::4])], (0.5, 99.5)) - value)
            nearby = NEARLY * float(spread.max())
    with np.errstate(invalid="ignore"):
        empty = ~np.isfinite(data) | (np.abs(data - np.float32(value)) <= nearby if nearby else data == value)
    if _faces(empty).mean() < MIN_EMPTY_FACES:
        return Seen(np.isfinite(data), value, "the surroundings are not empty")
    box = box_of(~empty)
    inside = np.zeros_like(data, bool)
    if box is None:
        return Seen(inside, value, "nothing is shown")
    inside[box] = ~_touching_faces(empty[box])
    # values that are not finite next to a constant background leave that background as it is
    if np.isfinite(value) and not (data == value).any():
        value = float("nan")
    return Seen(inside, value, _why_not_brain(volume, inside, box))


def _why_not_brain(volume: Volume, inside: Mask, box: tuple[slice, ...]) -> str:
    """A reason why `inside`, which lies in `box`, is a whole head, or nothing."""
    turned, count = ndimage.label(inside[box].T)
    pieces, sizes = turned.T, np.bincount(turned.ravel())[1:] if count else np.zeros(1)
    if sizes.max() < MIN_VOXELS:
        return "next to nothing is shown"
    if sizes.max() < MIN_PIECE * sizes.sum():
        return "the surroundings are not empty"
    spacing = spacing_mm(volume.affine)
    step = np.maximum(1, np.floor(2.0 / spacing)).astype(int)
    thin = tuple(slice(-side.start % int(s), None, int(s)) for side, s in zip(box, step, strict=True))
    mask = _filled_in_planes(pieces[thin] == sizes.argmax() + 1)
    millilitres = float(mask.sum() * (spacing * step).prod() / 1000)
    if millilitres > MAX_BRAIN_ML:
        return f"{millilitres:.0f} ml are shown, more than any brain has"
    if _skull_darkness(volume.data[box][thin], mask, inside[box][thin], spacing * step) < MAX_SKULL:
        return "a bright shell (scalp) with a dark one below (skull) surrounds the brain"
    return ""


def _filled_in_planes(mask: Mask) -> Mask:
    """`mask` with all that it encloses within some plane of voxels: a skull is open at the neck, never in a plane."""
    filled = mask.copy()
    in_planes = np.zeros((3, 3, 3), bool)
    in_planes[1] = ndimage.generate_binary_structure(2, 1)
    for axis in range(3):
        empty = np.pad(~np.moveaxis(mask, axis, 0), ((0, 0), (1, 1), (1, 1)), constant_values=True)
        labels, _ = ndimage.label(empty, in_planes)
        np.moveaxis(filled, axis, 0)[labels[:, 1:-1, 1:-1] != labels[:, :1, :1]] = True
    return filled


def _skull_darkness(values: Floats, mask: Mask, shown: Mask, spacing: np.ndarray) -> float:
    """Intensity of the darkest shell 5 to 17 mm below the surface of `mask`, relative to the darker of what lies
    outside it and inside it; infinite where there is too little to tell."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing)[1:-1, 1:-1, 1:-1][mask]
    seen = values_in(values, shown & np.isfinite(values))
    if seen.size < MIN_SHELL:
        return float("inf")
    floor = np.float32(np.percentile(seen, 1))
    level = np.fmax(values[mask], floor) - floor

    def shell(low: float, high: float) -> list[float]:
        chosen = level[(depth > low) & (depth <= high)]
        return [float(np.median(chosen))] if chosen.size >= MIN_SHELL else []

    outer = shell(0, 3) + shell(3, 5) + shell(5, 7)
    inner = shell(19, np.inf) or shell(13, np.inf)
    skull = [median for low in range(5, 17, 2) for median in shell(low, low + 2)]
    if not outer or not inner or not skull:
        return float("inf")
    around = min(max(outer), inner[0])
    return min(skull) / around if around > 0 else float("inf")


def settle(
    volume: Volume, contrast: str, seen: Seen, brain: Mask | None = None, t1_affine: Affine | None = None
) -> Volume:
    """Make all values finite, and the background of all contrasts but T1 a little darker than the brain.

    Args:
        volume: As read.
        contrast: For messages. T1 keeps its own background, which the result shows again.
        seen: What `look` says of the volume.
        brain: On T1's grid; None: all that is seen.
        t1_affine: Index of `brain` to RAS millimetres.

    Raises:
        D3MError: values inside the brain that are not finite, with their number.
    """
    data, name = volume.data, label(contrast)
    bad = ~np.isfinite(data)
    notices = volume.notices
    count = int(bad.sum())
    if count:
        within = bad & seen.inside if not seen.problem else bad
        if brain is not None and t1_affine is not None:
            within &= resample(brain, t1_affine, volume.affine, data.shape, order=0)
        if within.any():
            raise D3MError(
                f"{name} has {int(within.sum())} voxels inside the brain that are not a number (NaN) or infinite.",
                "Find out where they come from and save the scan with numbers there.",
            )
        fill = seen.background if np.isfinite(seen.background) else min(0.0, float(data[~bad].min()))
        data = np.where(bad, np.float32(fill), data)
        text = f"{name} has {count} voxels outside the brain that are NaN or infinite; they become background."
        notices = (*notices, Notice("nan-background", text, contrast))
    if contrast in ALL_CONTRASTS[1:] and not seen.problem and np.isfinite(seen.background):
        # a background far from the brain's values, on either side, would bleed into its border when resampled
        darkest, brightest = np.percentile(values_in(data, seen.inside), (1, 99))
        if not 2 * darkest - brightest <= seen.background <= darkest:
            data = np.where(seen.inside, data, np.float32(darkest))
    return volume if data is volume.data and notices == volume.notices else replace(volume, data=data, notices=notices)


def find_brain(volumes: dict[str, Volume], seen: dict[str, Seen], mask: Mask | None) -> tuple[Mask, list[Notice]]:
    """The brain on T1's grid: the mask, or what the skull-stripped scans show together.

    Where a scan has a gap the brain has one too, so that nothing is invented there.

    Raises:
        D3MError: only heads and no mask; scans of different places; half of the brain in a gap.
    """
    t1 = volumes["t1"]
    own = side_by_side(
        lambda name, v: acquired(v) if seen[name].problem else without_filling(seen[name].inside, v), volumes
    )
    shown = {name: _on_t1(own[name], volume, t1) for name, volume in volumes.items()}
    stripped = [name for name in volumes if not seen[name].problem]
    notices: list[Notice] = []
    if mask is None and not stripped:
        reasons = {seen[name].problem for name in volumes}
        raise D3MError(f"T1, T2 and FLAIR are not brain-extracted (skull-stripped): {sorted(reasons)[0]}.", EXTRACT)
    if mask is not None:
        brain = mask
        notices += left_out(mask, {name: shown[name] for name in stripped}, t1)
    else:
        brain = shown["t1"] if "t1" in stripped else shown[stripped[0]]
        for name in stripped:
            notices += _same_place(name, stripped[0], shown)
            if _same_lattice(volumes[name], t1) and not notices:
                brain = brain | shown[name]
        brain = solid(brain)
        names = " and ".join(label(name) for name in stripped)
        for name in volumes:
            if name not in stripped:
                reason = f"{label(name)} is not brain-extracted ({seen[name].problem})"
                text = f"{reason}; the brain of {names} is used for all."
                notices.append(Notice("not-stripped", text, name))
    whole = int(brain.sum())
    if whole < MIN_VOXELS:
        raise D3MError("There is no brain where T1, T2 and FLAIR overlap.", "Check that the files belong together.")
    complete = brain
    displaced = {notice.volume for notice in notices if notice.code == "not-aligned"}
    for name in volumes:
        if name in displaced:
            continue  # it shows the whole brain, but elsewhere
        gap = gap_of(brain, reaching(own[name], volumes[name], t1), volumes[name], t1)
        share = gap.sum() / whole
        if share > MAX_GAP:
            raise D3MError(
                f"{label(name)} shows only {100 * (1 - share):.0f} % of the brain.",
                "Give a scan that covers the whole brain.",
            )
        said = gap_notice(name, gap, complete, t1)
        notices += [] if said is None else [said]
        brain = brain & ~gap
    return brain, notices


def _same_lattice(one: Volume, other: Volume) -> bool:
    return one.data.shape == other.data.shape and np.array_equal(one.affine, other.affine)


def _on_t1(mask: Mask, volume: Volume, t1: Volume) -> Mask:
    """(X, Y, Z) of T1's grid."""
    if _same_lattice(volume, t1):
        return mask
    return resample(mask, volume.affine, t1.affine, t1.data.shape, order=0)


def _same_place(name: str, first: str, shown: dict[str, Mask]) -> list[Notice]:
    """Compare two brains; scans that are not registered show theirs in different places."""
    share = share_of_smaller(shown[name], shown[first])
    pair = f"{label(name)} and {label(first)}"
    if share < 0.5:
        raise D3MError(
            f"The brains in {pair} overlap by only {100 * share:.0f} %.",
            "Give scans of one patient, registered to each other (one frame of reference).",
        )
    if share < MIN_ALIGNED:
        text = f"The brains in {pair} overlap by only {100 * share:.0f} %; the scans do not seem to be registered."
        return [Notice("not-aligned", text, name)]
    return []


def mask_from_file(volume: Volume, t1: Volume) -> Mask:
    """A given brain mask on T1's grid.

    Raises:
        D3MError: more than two values, nothing or everything marked, hardly any overlap with T1.
    """
    data = volume.data
    top = float(np.nanmax(data)) if np.isfinite(data).any() else 0.0
    marked = data > 0.5 * top
    if not np.isfinite(data).all() or float(np.abs(data - np.where(marked, top, 0)).max()) > 1e-3 * max(top, 1e-6):
        count = len(np.unique(data))
        raise D3MError(
            f"The brain mask is not binary: it holds {count} different values.",
            "Give a mask that is 0 outside the brain and 1 inside (--brain-mask).",
        )
    if not top > 0 or not marked.any():
        raise D3MError("The brain mask is empty.", "Give a mask that is 1 inside the brain (--brain-mask).")
    if marked.all():
        raise D3MError(
            "The brain mask marks the whole volume.", "Give a mask that is 0 outside the brain (--brain-mask)."
        )
    result = _on_t1(marked, volume, t1)
    cell = voxel_mm3(volume.affine) / voxel_mm3(t1.affine)
    share = float(result.sum() / (marked.sum() * cell))
    if share < 0.5:
        raise D3MError(
            f"The brain mask and T1 overlap by only {100 * share:.0f} %.",
            "Give a mask in T1's own frame of reference (--brain-mask).",
        )
    return result
