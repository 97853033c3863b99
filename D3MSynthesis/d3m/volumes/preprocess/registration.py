"""T2 and FLAIR onto T1: rigid registration that corrects where a scan lies and leaves its voxels alone.

What is aligned already stays as it is, bit for bit. Whether a registration succeeded is judged by something that it
did not look at: how well edges inside the brain run along each other (after Haber and Modersitzki 2006), compared with
how well they do so by chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from scipy import ndimage

from d3m.errors import D3MError, Notice
from d3m.system.threads import side_by_side
from d3m.volumes.geometry import voxel_mm3
from d3m.volumes.grid import resample
from d3m.volumes.io.files import label
from d3m.volumes.preprocess.heads import middle_of_brain
from d3m.volumes.preprocess.matching import (
    Match,
    Picture,
    degrees_of,
    dilated,
    largest_motion,
    picture,
    rotation_about,
    search,
)
from d3m.volumes.types import Affine, Floats, Mask, Volume

COARSE_MM = 4.0
"""Voxels that whether anything moved is judged by: 20,000 of them in a brain."""
COARSE_VOXELS = 20_000
SMALLEST_MM = 1.5
"""Voxels of the coarse picture of a small brain; noise rules below."""
RIM_MM = 5.0
"""What is compared beyond the brain: its outline guides the search, what lies farther out does not."""
SUSPECT_MM = 2.2
"""At `COARSE_MM`, a scan that moves less at its brain's surface is aligned: up to 2.0 mm in patients that are."""
MOVED_MM = 1.6
"""At half of it, what moves less is aligned: 0.4 to 1.2 mm in patients that are."""
EASY_MM = 15.0
"""A small motion with edges that agree needs no other starts."""
STARTS_DEGREES = ((0, 0, 0), (20, 0, 0), (-20, 0, 0), (0, 20, 0), (0, -20, 0), (0, 0, 20), (0, 0, -20))
"""Turns about the world's axes that the search starts from."""
REFINED = 3
"""The best starts that are looked at more closely."""
SHIFT_MM = 12.0
"""Two pictures shifted by this agree by chance."""
HOPELESS = 1.02
"""As pictures that have nothing to do with each other: not even scans that lie on each other are taken then. A blurred
scan of one of 79 prepared patients has 1.05."""
MIN_AGREEMENT = 1.2
"""Agreement of edges below which two scans do not show the same brain: 1.33 and more in 13 patients. Two different
patients reach 1.30, and in 5 of 47 pairs this limit: most mix-ups are refused, not all."""
FAR_AGREEMENT = 1.3
"""The same for a scan that would have to move by more than `EASY_MM`: what two patients can reach is not enough. 1.34
and more in 13 patients with simulated heads, and in thick slices."""
JUDGED_MM = 3.0
"""Smaller brains (540 ml) have too few edges to refuse a scan for them; a notice is given."""
BETTER = 1.02
"""A scan is moved only where that makes edges agree better by this factor."""
DOUBTFUL = 1.6
"""Agreement below which the mirror image is tried as well: it reaches 1.34, since brains are nearly symmetric."""
MIRRORED, SURE = 1.1, 1.35
"""A scan whose mirror image agrees better by this factor, and as well as scans of one patient do, is mirrored."""
MIN_MASK_VOXELS = 200
"""Fewer voxels of a coarse picture tell nothing."""


def align(volumes: Mapping[str, Volume], shown: Mapping[str, Mask]) -> tuple[dict[str, Volume], list[Notice]]:
    """Correct where the other scans lie, so that they agree with T1.

    Args:
        volumes: t1, and any others.
        shown: For each the part that is compared, on its own grid: of T1 the brain; of the others the brain, or all
            that they show.

    Returns:
        The volumes, those that moved with another affine and a notice that says by how much.

    Raises:
        D3MError: scans that cannot be brought into agreement; one that is mirrored.
    """
    result = dict(volumes)
    notices: list[Notice] = []
    spacing = _coarse_spacing(volumes["t1"], shown["t1"])
    fixed = picture(volumes["t1"], shown["t1"], spacing)
    if fixed.mask.sum() < MIN_MASK_VOXELS:
        return result, notices
    others = {name: volume for name, volume in volumes.items() if name != "t1"}
    places = side_by_side(lambda name, _: _place(name, volumes, shown, fixed), others)
    for name, (transform, notice) in places.items():
        if transform is not None:
            result[name] = replace(volumes[name], affine=np.linalg.inv(transform) @ volumes[name].affine)
        notices += [] if notice is None else [notice]
    return result, notices


def _coarse_spacing(t1: Volume, brain: Mask) -> float:
    """mm; a small brain is looked at more closely."""
    volume = float(brain.sum() * voxel_mm3(t1.affine))
    return float(np.clip((volume / COARSE_VOXELS) ** (1 / 3), SMALLEST_MM, COARSE_MM))


def _place(
    name: str, volumes: Mapping[str, Volume], shown: Mapping[str, Mask], fixed: Picture
) -> tuple[Affine | None, Notice | None]:
    """Where T1's places lie in the scan, or None if it is aligned; and what is to be said about it."""
    unit = fixed.spacing / COARSE_MM
    moving = picture(volumes[name], shown[name], fixed.spacing)
    match = _climb(fixed, moving, np.eye(4))
    agreement = edge_agreement(fixed, moving, match.transform)
    motion = largest_motion(match.transform, fixed.places())
    stays = motion <= EASY_MM * unit  # brains that lie on each other may be too blurred for their edges to tell
    if agreement < MIN_AGREEMENT or motion > EASY_MM * unit:
        match = _from_many_starts(volumes, shown, name, fixed, moving, match)
        agreement = edge_agreement(fixed, moving, match.transform)
        motion = largest_motion(match.transform, fixed.places())
    if agreement < DOUBTFUL and fixed.spacing >= JUDGED_MM:
        _check_mirror(name, fixed, moving, match, agreement)
    if agreement < (FAR_AGREEMENT if motion > EASY_MM * unit else MIN_AGREEMENT):
        if fixed.spacing >= JUDGED_MM and (not stays or agreement < HOPELESS):
            raise D3MError(
                f"{label(name)} could not be registered to T1: they do not show the same brain in any position.",
                "Check that both are scans of one patient and show the brain; if so, register them with another "
                "program and give the registered files.",
            )
        text = f"{label(name)} and T1 hardly show the same structures; check that both are of one patient."
        return None, Notice("unlike-scans", text, name)
    if motion < SUSPECT_MM * unit:
        return None, None
    finest = [picture(volumes[key], shown[key], fixed.spacing / 2) for key in ("t1", name)]
    match = _climb(finest[0], finest[1], match.transform)
    motion = largest_motion(match.transform, fixed.places())
    better = edge_agreement(fixed, moving, match.transform) > BETTER * edge_agreement(fixed, moving, np.eye(4))
    if motion < MOVED_MM * unit or not better:
        return None, None
    angle = degrees_of(match.transform[:3, :3])
    text = f"{label(name)} lay up to {motion:.1f} mm and {angle:.1f}° off T1 in the brain; it was registered to T1."
    return match.transform, Notice("registered", text, name)


def _climb(fixed: Picture, moving: Picture, start: Affine) -> Match:
    """A search from nearby, over the brains and their rims."""
    return search(dilated(fixed, RIM_MM), dilated(moving, RIM_MM), start, step=0.5, iterations=40)


def _from_many_starts(
    volumes: Mapping[str, Volume],
    shown: Mapping[str, Mask],
    name: str,
    fixed: Picture,
    moving: Picture,
    first: Match,
) -> Match:
    """The best match of searches from turned and shifted positions, the first one included."""
    spacing = 2 * fixed.spacing
    brain, seen = (picture(volumes[key], shown[key], spacing) for key in ("t1", name))
    if brain.mask.sum() < MIN_MASK_VOXELS or not seen.mask.any():
        return first
    best = _by_brain(brain, seen)
    if not (np.isfinite(volumes[name].data) & ~shown[name]).any():
        best += _by_head(picture(volumes["t1"], np.isfinite(volumes["t1"].data), spacing), seen)
    refined = [_climb(fixed, moving, match.transform) for match in best]
    candidates = [match for match in [first, *refined] if np.isfinite(match.mutual_information)]
    return max(candidates, key=lambda match: edge_agreement(fixed, moving, match.transform), default=first)


def _by_brain(brain: Picture, seen: Picture) -> list[Match]:
    """T1's brain and a narrow rim of it, looked for in what the scan shows."""
    wide = dilated(brain, brain.spacing)
    return _from_turns(wide, seen, brain.places().mean(axis=1), seen.places().mean(axis=1))


def _by_head(head: Picture, seen: Picture) -> list[Match]:
    """Two whole heads: their outlines guide the search from far away, where brains inside of heads do not."""
    here, there = middle_of_brain(head), middle_of_brain(seen)
    return [] if here is None or there is None else _from_turns(head, seen, here, there)


def _from_turns(fixed: Picture, moving: Picture, here: np.ndarray, there: np.ndarray) -> list[Match]:
    """The best matches of searches from turned positions, each as it is and with the centres on each other."""
    between = np.eye(4)
    between[:3, 3] = there - here
    starts = [shift @ rotation_about(here, rotation) for shift in (np.eye(4), between) for rotation in STARTS_DEGREES]
    found = [search(fixed, moving, start, step=fixed.spacing / 2, iterations=30, masked=False) for start in starts]
    return sorted(found, key=lambda match: -match.mutual_information)[:REFINED]


def edge_agreement(fixed: Picture, moving: Picture, transform: Affine) -> float:
    """How well edges inside the brain run along each other, relative to the pictures shifted against each other.

    The squared cosine between gradients, damped where there is no edge, averaged over the inside of the mask; divided
    by its mean under shifts of `SHIFT_MM` along each axis.

    Args:
        fixed: Its mask is the brain.
        moving: The other scan.
        transform: (4, 4), RAS millimetres, fixed to moving.

    Returns:
        1 for pictures that have nothing to do with each other; 1.3 to 2.5 for two contrasts of one brain.
    """
    depth = ndimage.distance_transform_edt(np.pad(fixed.mask, 1))[1:-1, 1:-1, 1:-1]
    inner = depth > 1.5
    fill = float(moving.data.min())
    shape = (fixed.data.shape[0], fixed.data.shape[1], fixed.data.shape[2])
    place = np.linalg.inv(transform) @ moving.affine
    moved = resample(moving.data, place, fixed.affine, shape, fill=fill)
    seen = resample(moving.mask, place, fixed.affine, shape, order=0)
    inner &= np.asarray(ndimage.binary_erosion(seen, iterations=2, border_value=1))
    if inner.sum() < MIN_MASK_VOXELS // 2:
        return 0.0
    here, there = _directions(fixed.data, inner), _directions(moved, inner)
    true = _cosines(here, there, inner)
    voxels = max(1, round(SHIFT_MM / COARSE_MM))
    coincidence = []
    for axis in range(3):
        for sign in (-voxels, voxels):
            rolled = np.roll(there, sign, axis + 1)
            both = inner & np.roll(inner, sign, axis)
            if both.any():
                coincidence.append(_cosines(here, rolled, both))
    by_chance = float(np.mean(coincidence)) if coincidence else 0.0
    return true / by_chance if by_chance > 0 else 0.0


def _directions(data: Floats, inner: Mask) -> Floats:
    """(3, X, Y, Z) gradients, of length near 1 at edges and near 0 elsewhere."""
    gradient = np.stack(list(np.gradient(data)))
    length = np.sqrt((gradient**2).sum(axis=0))
    damping = 0.5 * float(np.median(length[inner])) + 1e-9
    result: Floats = gradient / np.sqrt(length**2 + damping**2)
    return result


def _cosines(one: Floats, other: Floats, where: Mask) -> float:
    return float(((one * other).sum(axis=0)[where] ** 2).mean())


def _check_mirror(name: str, fixed: Picture, moving: Picture, match: Match, agreement: float) -> None:
    """Refuse a scan whose mirror image agrees with T1 better than it does itself."""
    if not moving.mask.any():
        return
    affine = moving.affine.copy()
    far = moving.affine[0, 3] + moving.spacing * (moving.data.shape[0] - 1)
    affine[0, 3] = 2 * float(moving.places()[0].mean()) - far
    mirrored = Picture(moving.data[::-1], moving.mask[::-1], affine)
    found = _climb(fixed, mirrored, match.transform)
    if edge_agreement(fixed, mirrored, found.transform) >= max(SURE, MIRRORED * agreement):
        raise D3MError(
            f"{label(name)} shows the head mirrored against T1: left and right are exchanged in one of them.",
            "Convert both scans from DICOM again; a program in between turned the picture, but not its header.",
        )
