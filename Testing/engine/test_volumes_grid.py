"""Onto the model's grid and back: exact where it can be, and as SimpleITK resamples elsewhere."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK
from nibabel import orientations
from scipy.ndimage import gaussian_filter, map_coordinates

from d3m.volumes.grid import displacement_mm, plan_grid, resample, restore_cemri, to_model_input, to_t1_grid
from d3m.volumes.preprocess.brain import foreground
from d3m.volumes.preprocess.case import read_case
from d3m.volumes.types import Case, GridRecipe, ModelGrid, Volume
from engine.volume_helpers import brains, lps_affine, put, rotation

ORIENTATIONS = [
    "".join(letters)
    for order in permutations(((("L", "R")), ("P", "A"), ("S", "I")))
    for letters in product(*order)
]  # fmt: skip
AFFINE = rotation(9, 2) @ rotation(6, 0) @ lps_affine()
FLIP = np.diag([-1.0, -1.0, 1.0])


@pytest.fixture(scope="module")
def scans():
    """T1, T2, FLAIR."""
    return brains()


def turned(data, affine, axes):
    """The same world stored along other axes."""
    way = orientations.ornt_transform(orientations.io_orientation(affine), orientations.axcodes2ornt(axes))
    moved = np.ascontiguousarray(orientations.apply_orientation(data, way))
    return moved, affine @ orientations.inv_ornt_aff(way, data.shape)


def itk(data, affine, vector=False):
    """SimpleITK image of (X, Y, Z[, 3]) data with an affine in RAS."""
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(data.swapaxes(0, 2)), isVector=vector)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin((FLIP @ affine[:3, 3]).tolist())
    image.SetDirection((FLIP @ (affine[:3, :3] / spacing)).ravel().tolist())
    return image


def itk_resample(data, source, target, shape):
    """Linear resampling by SimpleITK; NaN where `data` does not reach."""
    reference = itk(np.zeros(shape, np.float32), target)
    result = SimpleITK.Resample(itk(data, source), reference, SimpleITK.Transform(), SimpleITK.sitkLinear, float("nan"))
    return SimpleITK.GetArrayFromImage(result).transpose(2, 1, 0)


@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_round_trip_is_exact_in_all_orientations(scans, axes):
    """A 1 mm scan stored along any axes goes onto the model's grid and back without a change, sides kept."""
    assert len(ORIENTATIONS) == 48
    volumes = []
    for scan in scans:
        scan = scan.copy()
        scan[32:36, 14:18, 20:24] = 150
        volumes.append(Volume(*turned(scan, AFFINE, axes)))
    brain = foreground(volumes[0].data)
    case = Case(*volumes, brain)
    model_input = to_model_input(case, GridRecipe(), 8)
    low, high = model_input.scales[0]
    back = low + (high - low) * to_t1_grid(model_input.slices[:, 0], model_input.grid)
    clipped = np.clip(volumes[0].data, low, high)
    np.testing.assert_allclose(back[brain], clipped[brain], atol=1e-4)
    np.testing.assert_array_equal(to_t1_grid(model_input.brain, model_input.grid, order=0, fill=0), brain)
    straight = [Volume(*turned(volume.data, volume.affine, "LPS")) for volume in volumes]
    reference = to_model_input(Case(*straight, foreground(straight[0].data)), GridRecipe(), 8)
    np.testing.assert_array_equal(model_input.slices, reference.slices)
    np.testing.assert_allclose(model_input.grid.affine, reference.grid.affine, atol=1e-9)


@pytest.mark.parametrize("spacing", [(1, 1, 5), (0.5, 0.5, 0.5), (1.2, 0.9, 1.5), (0.45, 0.45, 6.5)])
@pytest.mark.parametrize("axes", ["LPS", "RAS", "PIR", "ASL"])
def test_plan_covers_the_brain_at_one_millimetre(spacing, axes):
    """Whatever T1's voxels, the model's are 1 mm along T1's own axes (LPS), and the whole brain lies inside."""
    shape = tuple(int(n / s) + 1 for n, s in zip((48, 56, 40), spacing, strict=True))
    affine = rotation(9, 2) @ rotation(6, 0) @ lps_affine(shape, spacing)
    brain, affine = turned(resample(brains()[0] > 0, AFFINE, affine, shape, order=0), affine, axes)
    grid = plan_grid(Volume(brain.astype("f4"), affine), brain, GridRecipe(), 8)
    np.testing.assert_allclose(grid.spacing, 1.0, atol=1e-9)
    assert grid.shape[0] % 8 == 0
    assert grid.shape[1] % 8 == 0
    assert orientations.aff2axcodes(grid.affine) == ("L", "P", "S")
    directions = np.abs(np.linalg.inv(grid.affine[:3, :3]) @ (affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)))
    np.testing.assert_allclose(np.sort(directions, axis=0), [[0] * 3, [0] * 3, [1] * 3], atol=1e-9)
    index = np.argwhere(brain)
    place = index @ affine[:3, :3].T + affine[:3, 3]
    inverse = np.linalg.inv(grid.affine)
    place = place @ inverse[:3, :3].T + inverse[:3, 3]
    assert (place >= 0).all()
    assert (place <= np.array(grid.shape) - 1).all()


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 5.0), (1.3, 1.3, 1.3), (2.0, 1.0, 1.0)])
def test_resampling_as_itk(scans, spacing):
    """Linear resampling between oblique grids agrees with SimpleITK's wherever the source reaches."""
    shape = tuple(int(n / s) for n, s in zip((48, 56, 40), spacing, strict=True))
    source = rotation(4, 1) @ lps_affine(shape, spacing)
    data = resample(scans[1], AFFINE, source, shape)
    result = resample(data, source, AFFINE, (48, 56, 40))
    expected = itk_resample(data, source, AFFINE, (48, 56, 40))
    reached = np.isfinite(expected)
    assert reached.mean() > 0.8
    assert np.abs(result - expected)[reached].max() < 1e-2
    assert np.median(np.abs(result - expected)[reached]) < 1e-4


def test_back_from_one_millimetre_as_itk(scans):
    """The way back onto a thick, oblique, flipped T1 agrees with SimpleITK."""
    for axes, spacing in (("LPS", (1, 1, 5)), ("RAI", (1.5, 1.2, 3)), ("PIR", (1.2, 1.3, 1.1))):
        shape = tuple(int(n / s) for n, s in zip((48, 56, 40), spacing, strict=True))
        affine = rotation(9, 2) @ rotation(6, 0) @ lps_affine(shape, spacing)
        data, affine = turned(resample(scans[0], AFFINE, affine, shape), affine, axes)
        brain = foreground(data)
        grid = plan_grid(Volume(data, affine), brain, GridRecipe(), 8)
        smooth = gaussian_filter(np.random.default_rng(0).normal(size=grid.shape[::-1]), 4.0).astype("f4")
        result = to_t1_grid(smooth, grid)
        expected = itk_resample(smooth.transpose(2, 1, 0), grid.affine, affine, data.shape)
        assert np.isfinite(expected[brain]).all()
        assert np.abs(result - expected)[brain].max() < 1e-4


@pytest.mark.parametrize("spacing", [(1, 1, 5), (0.5, 0.5, 0.5), (1.2, 0.9, 1.5)])
def test_no_change_leaves_any_t1_untouched(scans, spacing):
    """If the model returns T1 itself, the CEMRI is T1 exactly, whatever its grid and background."""
    shape = tuple(int(n / s) for n, s in zip((48, 56, 40), spacing, strict=True))
    affine = rotation(9, 2) @ lps_affine(shape, spacing)
    volumes = [Volume(resample(scan, AFFINE, affine, shape) - 1024, affine) for scan in scans]
    brain = foreground(volumes[0].data)
    model_input = to_model_input(Case(*volumes, brain), GridRecipe(), 8)
    result = restore_cemri(model_input.slices[:, 0], model_input, volumes[0], brain)
    np.testing.assert_array_equal(result, volumes[0].data)
    brighter = restore_cemri(model_input.slices[:, 0] + 0.5, model_input, volumes[0], brain)
    low, high = model_input.scales[0]
    np.testing.assert_allclose((brighter - volumes[0].data)[brain], 0.5 * (high - low), rtol=1e-3)
    assert (brighter[~brain] == volumes[0].data[~brain]).all()


def test_outside_the_brain_is_zero_for_any_background(scans):
    """The model's input is 0 outside the brain and in [0, 1] inside, also with offsets, on unequal grids."""
    thick = AFFINE.copy()
    thick[:3, 3] += 2 * thick[:3, 2]
    thick[:3, 2] *= 5
    flair = resample(scans[2], AFFINE, thick, (48, 56, 8)) - 1024
    volumes = (Volume(scans[0], AFFINE), Volume(scans[1] + 100, AFFINE), Volume(flair, thick))
    model_input = to_model_input(Case(*volumes, foreground(scans[0])), GridRecipe(), 8)
    outside = ~model_input.brain
    assert (model_input.slices.transpose(1, 0, 2, 3)[:, outside] == 0).all()
    assert 0 <= model_input.slices.min() <= model_input.slices.max() <= 1
    assert model_input.slices[:, 2][model_input.brain].std() > 0.1


@pytest.mark.parametrize("axes", ["LPS", "RAI", "ASR"])
@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.9, 1.2, 3)])
def test_displacement_as_itk(axes, spacing):
    """The field in millimetres moves an image through SimpleITK's transform as the pixels' field moves its slices."""
    shape = (30, 36, 24)
    affine = rotation(9, 2) @ rotation(12, 0) @ lps_affine(shape, spacing)
    data, affine = turned(np.zeros(shape, "f4"), affine, axes)
    brain = np.zeros(data.shape, bool)
    brain[4:-4, 4:-4, 4:-4] = True
    grid = plan_grid(Volume(data, affine), brain, GridRecipe(), 4)
    w, h, s = grid.shape
    random = np.random.default_rng(3)
    image = random.uniform(size=(s, h, w)).astype("f4")
    pixels = np.empty((s, 2, h, w), "f4")
    pixels[:, 0], pixels[:, 1] = 1.5, -0.75
    pixels += random.uniform(-0.3, 0.3, pixels.shape).astype("f4")
    field = displacement_mm(pixels, grid)
    assert field.shape == (w, h, s, 3)

    lps = (field * (-1, -1, 1)).astype(np.float64)
    transform = SimpleITK.DisplacementFieldTransform(itk(lps, grid.affine, vector=True))
    scan = itk(image.transpose(2, 1, 0), grid.affine)
    moved = SimpleITK.Resample(scan, transform, SimpleITK.sitkLinear, float("nan"))
    moved = SimpleITK.GetArrayFromImage(moved)

    rows, columns = np.mgrid[0:h, 0:w]
    expected = np.stack(
        [
            map_coordinates(image[k], (rows + pixels[k, 1], columns + pixels[k, 0]), order=1, mode="nearest")
            for k in range(s)
        ]
    )
    inner = np.s_[1:-1, 3:-3, 3:-3]
    assert np.abs(moved[inner] - expected[inner]).max() < 1e-3


@pytest.mark.parametrize("background", [0.0, -1024.0, -9999.0, 4000.0])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_background_does_not_bleed_into_resampled_brains(tmp_path, scans, background, which):
    """On unequal grids too the picture hardly depends on the value around the brain."""
    spacing = (1.2, 1.2, 3.0) if which == 0 else (1.0, 1.0, 2.0)
    shape = tuple(int(n / s) for n, s in zip((48, 56, 40), spacing, strict=True))
    affine = rotation(3, 2) @ lps_affine(shape, spacing)
    data = resample(scans[which], AFFINE, affine, shape)
    inputs = []
    for value in (0.0, background):
        paths = [put(tmp_path / f"{k}.nii", scan, AFFINE) for k, scan in enumerate(scans)]
        put(paths[which], np.where(data == 0, value, data), affine)
        inputs.append(to_model_input(read_case(*paths), GridRecipe(), 8))
    np.testing.assert_array_equal(inputs[0].brain, inputs[1].brain)
    difference = np.abs(inputs[0].slices - inputs[1].slices)[:, which][inputs[0].brain]
    assert difference.mean() < 0.01


def test_displacement_in_numbers():
    """One pixel to the patient's left is minus 1 mm of R; one row to posterior minus 1 mm of A."""
    grid = ModelGrid((4, 6, 3), lps_affine((4, 6, 3)), (4, 6, 3), lps_affine((4, 6, 3)))
    pixels = np.zeros((3, 2, 6, 4), "f4")
    pixels[:, 0], pixels[:, 1] = 1, 2
    np.testing.assert_allclose(displacement_mm(pixels, grid), np.broadcast_to([-1, -2, 0], (4, 6, 3, 3)))
