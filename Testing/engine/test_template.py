"""Tilted heads: the model's slices follow the head, the field and the way back follow the slices."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from d3m.results.files import write_displacement
from d3m.volumes.grid import displacement_mm, plan_grid, restore_cemri, to_model_input, to_t1_grid
from d3m.volumes.preprocess.atlas import ATLAS, MAX_TILT, atlas, find_pose, own_axes, quarter_turns, training_axes
from d3m.volumes.preprocess.matching import degrees_of, nearest_rotation
from d3m.volumes.types import Case, GridRecipe, Volume
from engine.volume_helpers import brains, lps_affine, rotation


def upright_head(rotated=None, spacing=1):
    """The average brain as the training patients stand, then turned; T1 and brain on its own lattice."""
    t1, share = atlas()
    stand = np.eye(4)
    stand[:3, :3] = training_axes()
    rotated = np.eye(4) if rotated is None else rotated
    affine = rotated @ stand @ t1.affine
    # on a lattice along the axes of the world, as a scanner stores a tilted head
    count = (80, 84, 80 // spacing)
    world = np.diag([-3.0, -3.0, 3.0 * spacing, 1.0])
    world[:3, 3] = -world[:3, :3] @ ((np.array(count) - 1) / 2)
    centre = affine[:3, :3] @ ((np.array(t1.data.shape) - 1) / 2) + affine[:3, 3]
    affine[:3, 3] -= centre
    mapping = np.linalg.inv(affine) @ world
    data, brain = (
        ndimage.affine_transform(v.data, mapping[:3, :3], mapping[:3, 3], output_shape=count, order=1)
        for v in (t1, share)
    )
    return Volume(np.where(brain > 0.5, data, 0).astype(np.float32), world), brain > 0.5


def test_atlas_ships_with_its_notice():
    """The average brain lies beside the code, small, with the copyright notice that its licence asks for."""
    assert ATLAS.stat().st_size < 300_000
    assert "McConnell Brain Imaging Centre" in ATLAS.with_name("README.md").read_text(encoding="utf-8")
    brain = atlas()[1]
    assert 1700 < (brain.data > 0.5).sum() * 0.027 < 2000


def test_upright_heads_keep_their_own_lattice():
    """A head as in training gives the identity itself, so that its slices are those of T1, bit for bit."""
    pose, notices = find_pose(*upright_head())
    assert np.array_equal(pose, np.eye(4))
    assert not notices
    slightly, notices = find_pose(*upright_head(rotation(7, 0)))
    assert np.array_equal(slightly, np.eye(4))
    assert not notices


@pytest.mark.parametrize("number", [1, *(pytest.param(n, marks=pytest.mark.long) for n in (6, 9, 14, 19, 22))])
def test_heads_that_lie_otherwise_than_their_header_says(number):
    """A patient on the back or the side, a stack turned by a quarter or half: found among the 24 turns, and said."""
    rotated = np.eye(4)
    rotated[:3, :3] = quarter_turns()[number]
    volume, brain = upright_head()
    pose, notices = find_pose(Volume(volume.data, rotated @ volume.affine), brain)
    assert [notice.code for notice in notices] == ["tilted-head"]
    assert "seems to be wrong" in notices[0].message
    assert degrees_of(nearest_rotation(pose[:3, :3] @ rotated[:3, :3])) < MAX_TILT


def test_all_quarter_turns():
    """The turns of a cube, each once, and none that mirrors."""
    turns = quarter_turns()
    assert len({tuple(rotated.ravel()) for rotated in turns}) == 23
    assert all(np.isclose(np.linalg.det(rotated), 1) for rotated in turns)


@pytest.mark.parametrize(("degrees", "axis", "spacing"), [(25, 0, 1), (-22, 1, 1), (24, 2, 2)])
def test_tilted_heads_are_set_upright(degrees, axis, spacing):
    """A head turned in the scanner, also under thick slices, is found to be turned by that, to 3 degrees."""
    rotated = rotation(degrees, axis)
    pose, notices = find_pose(*upright_head(rotated, spacing))
    assert [notice.code for notice in notices] == ["tilted-head"]
    assert degrees_of(pose[:3, :3] @ rotated[:3, :3]) < 3
    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-9)
    assert np.linalg.det(pose[:3, :3]) > 0


def test_oblique_lattice_with_the_head_is_not_tilted():
    """Slices that were planned along a tilted head are true axial: the scan's own lattice is kept."""
    volume, brain = upright_head()
    pose, notices = find_pose(Volume(volume.data, rotation(25, 0) @ volume.affine), brain)
    assert np.array_equal(pose, np.eye(4))
    assert not notices


def test_small_or_strange_brains_are_left_alone():
    """What is too small to be a brain is not looked at; what resembles none is not turned, and that is said."""
    small = brains()[0]
    for spacing, said in ((1.0, []), (4.0, ["pose-unknown"])):
        volume = Volume(small, lps_affine(spacing=(spacing,) * 3))
        pose, notices = find_pose(volume, small > 0)
        assert np.array_equal(pose, np.eye(4))
        assert [notice.code for notice in notices] == said


@pytest.mark.parametrize("axes", ["oblique", "sagittal"])
def test_own_axes(axes):
    """The axes are those that nibabel's closest canonical orientation has."""
    affine = rotation(20, 1) @ lps_affine()
    if axes == "sagittal":
        affine = affine[:, [1, 2, 0, 3]]
    canonical = nibabel.as_closest_canonical(nibabel.Nifti1Image(np.zeros((4, 5, 6)), affine)).affine
    expected = nearest_rotation(canonical[:3, :3] / np.linalg.norm(canonical[:3, :3], axis=0))
    np.testing.assert_allclose(own_axes(affine), expected, atol=1e-9)


def tilted_case():
    """A case whose pose turns it by 25 degrees about x and 10 about z."""
    t1, t2, flair = brains()
    affine = lps_affine()
    pose = rotation(25, 0) @ rotation(10, 2)
    volumes = (Volume(data, affine) for data in (t1, t2, flair))
    return Case(*volumes, t1 > 0, pose=pose)


def test_grid_along_the_head():
    """The lattice is 1 mm, LPS where the head is upright, holds the whole brain, and the identity changes nothing."""
    case = tilted_case()
    grid = plan_grid(case.t1, case.brain, GridRecipe(), 8, case.pose)
    upright = case.pose @ grid.affine
    np.testing.assert_allclose(upright[:3, :3], np.diag([-1.0, -1, 1]), atol=1e-9)
    assert grid.shape[0] % 8 == grid.shape[1] % 8 == 0
    index = np.linalg.inv(grid.affine) @ case.t1.affine @ np.vstack([np.nonzero(case.brain), np.ones(case.brain.sum())])
    assert (index[:3] >= 1.99).all()
    assert (index[:3] <= np.array(grid.shape)[:, None] - 2.99).all()
    plain = plan_grid(case.t1, case.brain, GridRecipe(), 8)
    same = plan_grid(case.t1, case.brain, GridRecipe(), 8, np.eye(4))
    assert plain.shape == same.shape
    np.testing.assert_array_equal(plain.affine, same.affine)


def test_input_and_way_back_as_itk():
    """What the model sees, and an image brought back from there, are SimpleITK's resampling between them."""
    case = tilted_case()
    model_input = to_model_input(case, GridRecipe(), 8)
    grid = model_input.grid
    low, high = model_input.scales[1]
    expected = itk_resample(case.t2.data, case.t2.affine, grid.affine, grid.shape)
    seen = model_input.slices[:, 1].transpose(2, 1, 0)
    inside = model_input.brain.transpose(2, 1, 0)
    np.testing.assert_allclose(seen[inside], np.clip((expected[inside] - low) / (high - low), 0, 1), atol=1e-4)
    back = to_t1_grid(model_input.slices[:, 1], grid)
    again = itk_resample(seen, grid.affine, case.t1.affine, case.t1.data.shape)
    inner = ndimage.binary_erosion(case.brain, iterations=2)
    np.testing.assert_allclose(back[inner], again[inner], atol=1e-4)
    # no change in the model leaves T1 as it was: the image is resampled once, T1 itself never
    unchanged = restore_cemri(model_input.slices[:, 0], model_input, case.t1, case.brain)
    np.testing.assert_array_equal(unchanged, case.t1.data)


def itk_image(data, affine):
    """The array as SimpleITK sees a NIfTI with this affine (LPS)."""
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(data.transpose(2, 1, 0), np.float32))
    image.SetSpacing([float(v) for v in spacing])
    image.SetOrigin([float(v) for v in lps[:3, 3]])
    image.SetDirection([float(v) for v in (lps[:3, :3] / spacing).ravel()])
    return image


def itk_resample(data, source, target, shape):
    """SimpleITK's linear interpolation from one lattice to another."""
    reference = itk_image(np.zeros(shape, np.float32), target)
    moved = sitk.Resample(itk_image(data, source), reference, sitk.Transform(), sitk.sitkLinear, 0.0)
    return sitk.GetArrayFromImage(moved).transpose(2, 1, 0)


def test_field_on_a_tilted_grid_as_itk(tmp_path):
    """SimpleITK, given the written field, moves an image as the slices were moved; nothing goes through the slices."""
    case = tilted_case()
    model_input = to_model_input(case, GridRecipe(), 8)
    grid = model_input.grid
    pixels = np.zeros((grid.shape[2], 2, grid.shape[1], grid.shape[0]), np.float32)
    pixels[:, 0], pixels[:, 1] = 1.5, -0.75
    field = displacement_mm(pixels, grid)
    through = case.pose[:3, :3] @ field.reshape(-1, 3).T
    np.testing.assert_allclose(through[2], 0, atol=1e-5)
    np.testing.assert_allclose(through[:2].T, np.broadcast_to([-1.5, 0.75], (through.shape[1], 2)), atol=1e-5)
    assert np.abs(field[..., 2]).min() > 0.1  # in the world it is not in the plane
    path = tmp_path / "deformation.nii.gz"
    write_displacement(path, field, grid.affine)
    image = sitk.Cast(sitk.ReadImage(str(path)), sitk.sitkVectorFloat64)
    transform = sitk.DisplacementFieldTransform(image)
    picture = model_input.slices[:, 0].transpose(2, 1, 0)
    moved = sitk.GetArrayFromImage(
        sitk.Resample(itk_image(picture, grid.affine), itk_image(picture, grid.affine), transform, sitk.sitkLinear)
    )
    expected = ndimage.shift(model_input.slices[:, 0], (0, 0.75, -1.5), order=1)
    inner = np.s_[4:-4, 4:-4, 4:-4]
    np.testing.assert_allclose(moved[inner], expected[inner], atol=1e-3)
