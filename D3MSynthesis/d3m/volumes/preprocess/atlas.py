"""How a head is tilted, against the space in which the models were trained.

The patients that the models learnt from stand upright in the SRI24 atlas' space, and slices are axial there. A small
average brain (ICBM 152; `data/README.md` has its copyright notice) tells how far another head is turned from that.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import nibabel
import numpy as np
from nibabel import orientations

from d3m.arrays import values_in
from d3m.errors import Notice
from d3m.volumes.geometry import volume_ml
from d3m.volumes.grid import resample
from d3m.volumes.preprocess.matching import (
    Match,
    Picture,
    degrees_of,
    dilated,
    nearest_rotation,
    picture,
    rotation_about,
    search,
)
from d3m.volumes.preprocess.registration import STARTS_DEGREES, edge_agreement
from d3m.volumes.types import Affine, Floats, Mask, Volume

ATLAS = Path(__file__).with_name("data") / "atlas.nii.gz"
PICTURE_MM = 6.0
"""Voxels that the tilt is judged by."""
RIM_MM = 8.0
"""What is compared around the atlas' brain: nothing in a stripped scan, fluid and skull (both dark in T1) in a head."""
TRAINING_PITCH = 12.0
"""Degrees about the axis to the patient's right by which the training patients are turned against the atlas: their
mean; 78 of 79 lie within 15 degrees of it, one at 16."""
MAX_TILT = 17.0
"""Degrees. Heads that are turned less against T1's own axes keep these, as the training patients do; an upright head in
the atlas' own space, such as the sample's, is among them."""
ROUGH_MM = 10.0
"""Voxels of the search over many orientations."""
BRAIN_ML = (700.0, 2300.0)
"""Brains of other sizes are not compared with the atlas: a part of one, or none."""
MIN_AGREEMENT = 1.1
"""Agreement of edges below which the atlas was not found in a scan."""
SURE_AGREEMENT = 1.25
"""Agreement of edges from which no other orientations are tried; 1.17 to 1.7 in patients. Brains in a wrong one of the
24 orientations reach 1.13."""
TURNED = 45.0
"""Degrees from which it is the header that is wrong rather than the head tilted."""


@lru_cache(maxsize=1)
def atlas() -> tuple[Volume, Volume]:
    """T1 of an average brain (0 outside), and the share of each voxel that is brain."""
    image = nibabel.load(ATLAS)
    data: Floats = np.asarray(image.dataobj, np.float32)
    share: Floats = np.divide(data[..., 1], np.float32(255))
    return Volume(data[..., 0], image.affine), Volume(share, image.affine)


def atlas_picture(spacing: float) -> Picture:
    """The atlas' T1; its mask is the brain."""
    t1, brain = atlas()
    return picture(t1, brain.data > 0.5, spacing)


def find_pose(t1: Volume, brain: Mask, others: Sequence[Volume] = ()) -> tuple[Affine, list[Notice]]:
    """The rigid transform that sets a tilted head upright.

    Args:
        t1: Any orientation.
        brain: (X, Y, Z) on T1's grid.
        others: Further scans of the head, registered to T1: asked where T1 does not tell (a blurred one may not).

    Returns:
        (4, 4), RAS to RAS millimetres, about the brain's centre, from T1's space to one whose axes are those of the
        training patients; the identity if T1's own axes are (to `MAX_TILT`), or if that cannot be told. A notice if
        the head is turned, and if it cannot be told; not for brains too small or large to be whole, since other checks
        name these.
    """
    millilitres = volume_ml(brain, t1.affine)
    if not BRAIN_ML[0] <= millilitres <= BRAIN_ML[1]:
        return np.eye(4), []
    moving, match = atlas_in(t1, brain, any_turn=True)
    for other in others:
        if match is None:
            fill = float(other.data.min())
            data = resample(other.data, other.affine, t1.affine, t1.data.shape, fill=fill)
            moving, match = atlas_in(Volume(data, t1.affine), brain, any_turn=True)
    if match is None:
        text = "It cannot be told how the head lies in T1: its brain was not found to agree with an average one in any "
        text += (
            "orientation. Slices are cut along T1's own axes; check that front, top and sides are where they belong."
        )
        return np.eye(4), [Notice("pose-unknown", text, "t1")]
    head = nearest_rotation(match.transform[:3, :3]) @ training_axes().T
    tilt = degrees_of(head @ own_axes(t1.affine).T)
    if tilt < MAX_TILT:
        return np.eye(4), []
    centre = moving.places().mean(axis=1)
    pose = np.eye(4)
    pose[:3, :3] = head.T
    pose[:3, 3] = centre - head.T @ centre
    text = f"The head lies {tilt:.0f}° off the axes of T1; slices are cut along the head's own axes."
    if tilt > TURNED:
        text += " The orientation in the header seems to be wrong; whether left and right are exchanged cannot be told."
    return pose, [Notice("tilted-head", text, "t1")]


def atlas_in(t1: Volume, brain: Mask, any_turn: bool = False) -> tuple[Picture, Match | None]:
    """Find the average brain in a scan.

    Args:
        t1: Any orientation.
        brain: (X, Y, Z) on T1's grid; nothing else of the scan is looked at.
        any_turn: Try all 24 orientations along T1's axes where it is not found in the usual one.

    Returns:
        What was looked at, and where the average brain lies in it; None if it is not there.
    """
    stripped = np.where(brain, t1.data, np.float32(np.percentile(values_in(t1.data, brain), 0.5)))
    moving = picture(Volume(stripped, t1.affine), brain, PICTURE_MM)
    return moving, _match(moving, own_axes(t1.affine) @ training_axes(), any_turn)


def training_axes() -> np.ndarray:
    """(3, 3) rotation from the atlas' axes to those of the space in which the models were trained."""
    return rotation_about(np.zeros(3), (TRAINING_PITCH, 0, 0))[:3, :3]


def own_axes(affine: Affine) -> np.ndarray:
    """(3, 3); columns are the directions (RAS) of a scan's own axes that run most to the right, front and top."""
    ornt = orientations.io_orientation(affine)
    axes = np.empty((3, 3))
    for column, (axis, sign) in enumerate(ornt):
        axes[:, int(axis)] = sign * affine[:3, column] / np.linalg.norm(affine[:3, column])
    return nearest_rotation(axes)


def _match(moving: Picture, rotation: np.ndarray, any_turn: bool) -> Match | None:
    """The atlas in a stripped scan, first sought in the orientation `rotation`, or None if it is not found."""
    average = atlas_picture(PICTURE_MM)
    wide = dilated(average, RIM_MM)
    centre, there = average.places().mean(axis=1), moving.places().mean(axis=1)
    upright = _placed(rotation, centre, there)
    first = _refined(wide, moving, upright)
    tilt = degrees_of(nearest_rotation(first.transform[:3, :3]) @ rotation.T)
    if tilt < MAX_TILT / 2 and edge_agreement(average, moving, first.transform) >= SURE_AGREEMENT:
        return first
    rough = dilated(atlas_picture(ROUGH_MM), RIM_MM)
    coarse = picture(Volume(moving.data, moving.affine), moving.mask, ROUGH_MM)
    starts = [upright @ rotation_about(centre, degrees) for degrees in STARTS_DEGREES]
    found = [search(rough, coarse, s, kind="similarity", step=4.0, iterations=25, masked=False) for s in starts]
    others = [_refined(wide, moving, max(found, key=lambda match: match.mutual_information).transform)]
    agreement, best = _agreeing(average, moving, [first, *others])
    if any_turn and agreement < SURE_AGREEMENT:
        turned = [_refined(wide, moving, _placed(quarter @ rotation, centre, there)) for quarter in quarter_turns()]
        sure, other = _agreeing(average, moving, turned)
        if sure >= SURE_AGREEMENT:  # less is what a wrong orientation may reach
            return other
    return best if agreement >= MIN_AGREEMENT else None


def _agreeing(average: Picture, moving: Picture, matches: Sequence[Match]) -> tuple[float, Match]:
    """The best agreement of edges, and the match that has it."""
    found = ((edge_agreement(average, moving, match.transform), match) for match in matches)
    return max(found, key=lambda pair: pair[0])


def _placed(rotation: np.ndarray, centre: np.ndarray, there: np.ndarray) -> Affine:
    """(4, 4): the rotation that takes one centre to the other."""
    placed = np.eye(4)
    placed[:3, :3] = rotation
    placed[:3, 3] = there - rotation @ centre
    return placed


def quarter_turns() -> list[np.ndarray]:
    """The (3, 3) rotations that take the axes to each other, without the identity."""
    turns = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            matrix = np.eye(3)[:, order] * np.array(signs)
            if np.linalg.det(matrix) > 0 and not np.array_equal(matrix, np.eye(3)):
                turns.append(matrix)
    return turns


def _refined(average: Picture, moving: Picture, start: Affine) -> Match:
    return search(average, moving, start, kind="similarity", step=2.0, smallest=0.1, masked=False)
