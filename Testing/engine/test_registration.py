"""T2 and FLAIR onto T1: what is aligned stays, what moved is found, what cannot fit is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.hospital import add_head
from d3m.errors import D3MError
from d3m.models.store import find_sample
from d3m.volumes.grid import resample
from d3m.volumes.io.read import read_raw
from d3m.volumes.preprocess.matching import largest_motion, nearest_rotation, picture, rotation_about, search
from d3m.volumes.preprocess.registration import align
from d3m.volumes.types import Volume
from engine.volume_helpers import brains, lps_affine, rotation

SPACING = (3.2, 3.2, 3.2)
"""The helper's brain becomes as large as a small human one."""
NAMES = ("t1", "t2", "flair")


def scans(seed=0, affines=None):
    """t1, t2, flair and the brain in each."""
    affine = lps_affine(spacing=SPACING)
    made = {
        name: Volume(scan, affine if affines is None else affines.get(name, affine))
        for name, scan in zip(NAMES, brains(seed=seed), strict=True)
    }
    return made, {name: volume.data > 0 for name, volume in made.items()}


def places():
    """(3, N) RAS millimetres of T1's brain."""
    volumes, shown = scans()
    return picture(volumes["t1"], shown["t1"], 4.0).places()


def test_aligned_scans_are_left_alone():
    """Scans that agree are the very same objects afterwards, without a notice."""
    volumes, shown = scans()
    moved, notices = align(volumes, shown)
    assert not notices
    assert all(moved[name] is volumes[name] for name in NAMES)


@pytest.mark.parametrize(("degrees", "millimetres"), [(4, 5), (18, 25)])
def test_known_motion_is_found(degrees, millimetres):
    """A moved head is brought back to 1.5 mm at the brain's surface; voxels are untouched and the motion is said."""
    motion = rotation_about(np.array([5.0, -8.0, 3.0]), (degrees, -degrees / 2, degrees / 3))
    motion[:3, 3] += np.array([0.6, -0.7, 0.4]) * millimetres
    affine = lps_affine(spacing=SPACING)
    volumes, shown = scans(affines={"t2": motion @ affine})
    moved, notices = align(volumes, shown)
    assert [(notice.code, notice.volume) for notice in notices] == [("registered", "t2")]
    assert moved["flair"] is volumes["flair"]
    assert moved["t2"].data is volumes["t2"].data
    left = moved["t2"].affine @ np.linalg.inv(affine)
    assert largest_motion(motion, places()) > 5
    assert largest_motion(left, places()) < 1.5
    angle = np.degrees(Rotation.from_matrix(motion[:3, :3]).magnitude())
    assert f"{angle:.0f}." in notices[0].message or f"{angle - 1:.0f}." in notices[0].message


@pytest.mark.long
def test_thick_slices_are_registered():
    """A FLAIR with slices of 13 mm, its head turned, is brought back to half a slice."""
    motion = rotation(7, 0)
    motion[:3, 3] = [4, -3, 5]
    volumes, shown = scans()
    affine = volumes["t1"].affine.copy()
    affine[:3, 3] += 1.5 * affine[:3, 2]
    affine[:3, 2] *= 4
    data = volumes["flair"].data.reshape(48, 56, 10, 4).mean(axis=3)
    volumes["flair"], shown["flair"] = Volume(data, motion @ affine), data > 1
    moved, notices = align(volumes, shown)
    assert [notice.volume for notice in notices] == ["flair"]
    assert largest_motion(moved["flair"].affine @ np.linalg.inv(affine), places()) < 6


@pytest.mark.long
def test_whole_heads_far_apart_are_registered():
    """A T2 and a FLAIR with skull and scalp, 35 degrees and 4 cm off, are brought onto T1's brain."""
    files = find_sample()
    sample = {name: read_raw(getattr(files, name), name) for name in NAMES}
    heads = add_head(sample, np.random.default_rng(0))
    brain = resample(sample["t1"].data != 0, sample["t1"].affine, heads["t1"].affine, heads["t1"].data.shape, order=0)
    shown = {name: np.ones(head.data.shape, bool) for name, head in heads.items()} | {"t1": brain}
    where = picture(heads["t1"], brain, 4.0).places()
    motion = rotation_about(where.mean(axis=1), (0, 30, -20))
    motion[:3, 3] += [-30, 0, 30]
    moved = {name: head if name == "t1" else Volume(head.data, motion @ head.affine) for name, head in heads.items()}
    found, notices = align(moved, shown)
    assert [(notice.code, notice.volume) for notice in notices] == [("registered", "t2"), ("registered", "flair")]
    for name in ("t2", "flair"):
        left = found[name].affine @ np.linalg.inv(heads[name].affine)
        assert largest_motion(left, where) < 2


def test_mirrored_scan_is_refused():
    """A T2 whose left and right are exchanged is refused by name, not registered."""
    volumes, shown = scans()
    volumes["t1"], volumes["t2"], volumes["flair"] = (
        Volume(one_sided(volume.data, bright), volume.affine)
        for volume, bright in zip(volumes.values(), (30, 110, 90), strict=True)
    )
    assert not align(volumes, shown)[1]
    volumes["t2"] = Volume(volumes["t2"].data[::-1].copy(), volumes["t2"].affine)
    with pytest.raises(D3MError, match="T2 shows the head mirrored") as caught:
        align(volumes, {name: volume.data > 0 for name, volume in volumes.items()})
    assert caught.value.exit_code == 2


def one_sided(data, bright):
    """The scan with many structures that its other half has not."""
    random = np.random.default_rng(7)
    x, y, z = np.meshgrid(*map(np.arange, data.shape), indexing="ij")
    result = data.copy()
    for _ in range(60):
        centre = random.uniform((12, 12, 10), (36, 44, 30))
        near = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 < random.uniform(2, 4) ** 2
        result[near & (data > 0)] = bright
    return result


def test_scan_of_something_else_is_refused():
    """A FLAIR that shows no brain at all, but noise of its shape, cannot be registered."""
    volumes, shown = scans()
    noise = np.random.default_rng(3).uniform(20, 90, shown["flair"].shape).astype(np.float32)
    volumes["flair"] = Volume(np.where(shown["flair"], noise, 0).astype(np.float32), volumes["flair"].affine)
    with pytest.raises(D3MError, match="FLAIR could not be registered to T1") as caught:
        align(volumes, shown)
    assert "one patient" in caught.value.hint


def test_cut_scan_stays_in_place():
    """A T2 of which the lower half is missing is not dragged to where its half fits better."""
    volumes, shown = scans()
    data = volumes["t2"].data.copy()
    data[:, :, :18] = 0
    volumes["t2"], shown["t2"] = Volume(data, volumes["t2"].affine), data > 0
    moved, _ = align(volumes, shown)
    assert moved["t2"] is volumes["t2"]


def test_search_agrees_with_the_analytic_shift():
    """The search finds a shift of one and the same picture to a twentieth of its voxels."""
    volumes, shown = scans()
    one = picture(volumes["t1"], shown["t1"], 4.0)
    shifted = Volume(volumes["t1"].data, volumes["t1"].affine + np.array([[0, 0, 0, v] for v in (3, -2, 4, 0)]))
    match = search(one, picture(shifted, shown["t1"], 4.0), np.eye(4), step=1.0, masked=False)
    np.testing.assert_allclose(match.transform[:3, 3], [3, -2, 4], atol=0.2)
    np.testing.assert_allclose(match.transform[:3, :3], np.eye(3), atol=0.005)


def test_nearest_rotation_never_mirrors():
    """The polar factor of a stretched, mirrored matrix is a proper rotation; of a stretched rotation it is that."""
    rotation = Rotation.from_euler("xyz", (20, -30, 40), degrees=True).as_matrix()
    np.testing.assert_allclose(nearest_rotation(rotation @ np.diag([1.1, 0.9, 1.0])), rotation, atol=0.06)
    np.testing.assert_allclose(nearest_rotation(1.3 * rotation), rotation, atol=1e-9)
    assert np.linalg.det(nearest_rotation(rotation @ np.diag([-1.0, 1, 1]))) > 0.999
