"""Three scans into a case: the brain under any background, heads, swaps, gaps, fields of view."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from nibabel import orientations
from scipy import ndimage

from d3m.errors import D3MError
from d3m.volumes.grid import to_model_input
from d3m.volumes.preprocess.case import read_case, read_volume
from d3m.volumes.types import GridRecipe
from engine.volume_helpers import SHAPE, brains, lps_affine, put, rotation, with_head

AFFINE = lps_affine()
ROOM = (72, 80, 64)
"""Room for a head around the same brain."""


@pytest.fixture(scope="module")
def scans():
    """T1, T2, FLAIR of a stripped brain."""
    return brains()


@pytest.fixture(scope="module")
def clean(tmp_path_factory, scans):
    """The untouched case."""
    return case_of(tmp_path_factory.mktemp("clean"), scans)


def files(folder, scans, affines=(AFFINE,) * 3, **fields):
    """The three scans as files."""
    return [
        put(folder / f"{name}.nii.gz", scan, affine, **fields)
        for name, scan, affine in zip(("t1", "t2", "flair"), scans, affines, strict=True)
    ]


def case_of(folder, scans, affines=(AFFINE,) * 3, mask=None, **fields):
    """The case read from files of the three scans."""
    return read_case(*files(folder, scans, affines, **fields), mask)


def codes(case):
    """(code, volume) of all notices."""
    return [(notice.code, notice.volume) for notice in case.notices]


def same_picture(case, clean, tolerance=1e-4):
    """The model sees the same."""
    one, other = (to_model_input(c, GridRecipe(), 8) for c in (case, clean))
    np.testing.assert_array_equal(one.brain, other.brain)
    assert np.abs(one.slices - other.slices).max() <= tolerance
    np.testing.assert_allclose(one.grid.affine, other.grid.affine, atol=1e-4)


def test_untouched(clean, scans):
    """A plain case is read without a notice, and its brain is what is not background."""
    assert not clean.notices
    np.testing.assert_array_equal(clean.brain, ndimage.binary_fill_holes(scans[0] > 0))
    assert clean.t1.data.dtype == np.float32


@pytest.mark.parametrize("background", [0.0, -1024.0, 100.0, 3000.0, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", [(0,), (1,), (2,), (0, 1, 2)])
def test_any_background(tmp_path, scans, clean, background, which):
    """A background of any value, NaN included, is none of the brain's business."""
    changed = [np.where(s == 0, np.float32(background), s) if i in which else s for i, s in enumerate(scans)]
    case = case_of(tmp_path, changed)
    same_picture(case, clean)
    expected = [] if np.isfinite(background) else [("nan-background", ("t1", "t2", "flair")[i]) for i in which]
    assert codes(case) == expected
    assert all(np.isfinite(volume.data).all() for volume in case.contrasts())
    if 0 in which and np.isfinite(background):
        assert (case.t1.data[~case.brain] == background).all()


def test_offsets_and_negative_scans(tmp_path, scans, clean):
    """Scans that are shifted as a whole, all negative, or z-scored with NaN around give the same picture."""
    shifts = (0.0, 100.0, -1024.0)
    same_picture(case_of(tmp_path, [s + np.float32(o) for s, o in zip(scans, shifts, strict=True)]), clean)
    same_picture(case_of(tmp_path, [s - s.max() for s in scans]), clean, 1e-3)
    scored = [np.where(s > 0, (s - s[s > 0].mean()) / s[s > 0].std(), np.nan).astype("f4") for s in scans]
    case = case_of(tmp_path, scored)
    same_picture(case, clean, 1e-3)
    assert case.t1.data[0, 0, 0] <= case.t1.data.min()


def test_holes_are_brain(tmp_path, scans):
    """Zeros inside the brain do not make holes in it."""
    pierced = [s.copy() for s in scans]
    for scan in pierced:
        scan[20:23, 24:27, 18:21] = 0
    case = case_of(tmp_path, pierced)
    assert case.brain[20:23, 24:27, 18:21].all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_not_a_number_in_the_brain(tmp_path, scans, value, which):
    """Values in the brain that are not finite are refused with their number."""
    changed = [s.copy() for s in scans]
    changed[which][22:27, 28, 20] = value
    name = ("T1", "T2", "FLAIR")[which]
    with pytest.raises(D3MError, match=rf"^{name} has 5 voxels inside the brain") as caught:
        case_of(tmp_path, changed)
    assert caught.value.exit_code == 2
    with pytest.raises(D3MError, match="5 voxels"):
        read_volume(tmp_path / f"{name.lower()}.nii.gz", name.lower())


def test_values_too_large_count_as_infinite(tmp_path, scans):
    """64-bit values beyond 32-bit range inside the brain are refused, not turned into infinity."""
    huge = scans[1].astype("f8")
    huge[24, 28, 20] = 1e300
    paths = files(tmp_path, scans)
    put(paths[1], huge, AFFINE, "f8")
    with pytest.raises(D3MError, match="T2 has 1 voxels inside the brain"):
        read_case(*paths)


def test_storage_of_all_sorts(tmp_path, scans, clean):
    """Big-endian integers, 8 bits and tiny 64-bit values give a similar picture, on T1's own scale."""
    paths = files(tmp_path, scans)
    put(paths[0], np.rint(scans[0]), AFFINE, "i4", order=">")
    put(paths[1], scans[1] / scans[1].max() * 255, AFFINE, "u1")
    for factor in (1e-6, 1e-12, 1e5):
        put(paths[2], scans[2].astype("f8") * factor, AFFINE, "f8")
        case = read_case(*paths)
        assert not case.notices
        one, other = (to_model_input(c, GridRecipe(), 8) for c in (case, clean))
        for channel in range(3):
            pair = np.corrcoef(one.slices[:, channel].ravel(), other.slices[:, channel].ravel())
            assert pair[0, 1] > 0.998
    put(paths[0], scans[0] * 1e5, AFFINE, "i4")
    np.testing.assert_allclose(read_case(*paths).t1.data, scans[0] * 1e5, atol=2)


def test_stored_orientations(tmp_path, scans):
    """T1, T2 and FLAIR stored in different orientations: one world, sides kept, nothing interpolated."""
    marked = [s.copy() for s in scans]
    for scan in marked:
        scan[30:34, 14:18, 20:24] = 1.5 * scan.max()
    straight = case_of(tmp_path, marked)
    turned, affines = [], []
    start = orientations.io_orientation(AFFINE)
    for scan, axes in zip(marked, ("PIR", "LAS", "RSA"), strict=True):
        way = orientations.ornt_transform(start, orientations.axcodes2ornt(axes))
        turned.append(np.ascontiguousarray(orientations.apply_orientation(scan, way)))
        affines.append(AFFINE @ orientations.inv_ornt_aff(way, scan.shape))
    case = case_of(tmp_path, turned, affines)
    assert not case.notices
    same_picture(case, straight)
    assert case.brain.shape == case.t1.data.shape == turned[0].shape


def test_thick_and_sparse_scans(tmp_path, scans):
    """A FLAIR of 5 mm slices and a T2 of every second column run on T1's grid, with the thickness said."""
    flair = scans[2].reshape(48, 56, 8, 5).mean(axis=3)
    thick, sparse = AFFINE.copy(), AFFINE.copy()
    thick[:3, 3] += 2 * thick[:3, 2]
    thick[:3, 2] *= 5
    sparse[:3, 0] *= 2
    case = case_of(tmp_path, (scans[0], scans[1][::2], flair), (AFFINE, sparse, thick))
    assert codes(case) == [("thick-slices", "flair")]
    assert "FLAIR" in case.notices[0].message
    assert "5 mm" in case.notices[0].message
    np.testing.assert_array_equal(case.brain, ndimage.binary_fill_holes(scans[0] > 0))


def test_all_thick_and_tilted(tmp_path):
    """Three thick, tilted scans run; T1's notice says that this is outside the validated range."""
    whole = brains((48, 56, 48))
    affine = rotation(12, 0) @ lps_affine((48, 56, 8), (1, 1, 6))
    case = case_of(tmp_path, [s.reshape(48, 56, 8, 6).mean(axis=3) for s in whole], (affine,) * 3)
    assert codes(case) == [("thick-slices", name) for name in ("t1", "t2", "flair")]
    assert "validated range" in case.notices[0].message
    assert case.brain.shape == (48, 56, 8)


def in_room(folder, heads):
    """Files with room for a head; `heads` are the scans (0, 1, 2) that have one."""
    scans = brains(ROOM)
    return files(folder, [with_head(s, i) if i in heads else s for i, s in enumerate(scans)], (lps_affine(ROOM),) * 3)


@pytest.mark.parametrize(
    "air", ["noisy", "defaced", *(pytest.param(air, marks=pytest.mark.long) for air in ("empty", "skull empty"))]
)
def test_heads_are_refused(tmp_path, air):
    """Whole heads (also defaced, also with air set to zero) are refused with the way to put it right."""
    heads = [with_head(s) for s in brains(ROOM)]
    for head, scan in zip(heads, brains(ROOM), strict=True):
        if air == "empty":
            head[ndimage.distance_transform_edt(scan == 0) > 12] = 0
        if air == "skull empty":
            head[head < 0.1 * head.max()] = 0
        if air == "defaced":
            head[:, : ROOM[1] // 2, : ROOM[2] // 2][scan[:, : ROOM[1] // 2, : ROOM[2] // 2] == 0] = 0
    with pytest.raises(D3MError, match="brain-extracted") as caught:
        case_of(tmp_path, heads, (lps_affine(ROOM),) * 3)
    assert "HD-BET" in caught.value.hint
    assert "--brain-mask" in caught.value.hint


@pytest.mark.parametrize("heads", [(0,), (1,), (0, 2), (1, 2)])
def test_some_heads_use_the_other_brains(tmp_path, heads):
    """Where one scan is stripped its brain serves for all, and the heads are named."""
    case = read_case(*in_room(tmp_path, heads))
    assert codes(case) == [("not-stripped", ("t1", "t2", "flair")[i]) for i in heads]
    np.testing.assert_array_equal(case.brain, ndimage.binary_fill_holes(brains(ROOM)[0] > 0))


def test_heads_with_a_brain_mask(tmp_path):
    """Whole heads with a mask run; a NaN in their air is background, one in the brain is refused."""
    heads = [with_head(s) for s in brains(ROOM)]
    brain = brains(ROOM)[0] > 0
    affine = lps_affine(ROOM)
    mask = put(tmp_path / "mask.nii.gz", brain * 1.0, affine, "u1")
    case = case_of(tmp_path, heads, (affine,) * 3, mask)
    np.testing.assert_array_equal(case.brain, brain)
    assert not case.notices
    heads[2][1, 1, 1] = np.nan
    case = case_of(tmp_path, heads, (affine,) * 3, mask)
    assert codes(case) == [("nan-background", "flair")]
    heads[2][36, 40, 32] = np.nan
    with pytest.raises(D3MError, match="FLAIR has 1 voxels inside the brain"):
        case_of(tmp_path, heads, (affine,) * 3, mask)


def test_brain_mask_on_another_grid(tmp_path, scans):
    """A mask of 0 and 255 on a grid of its own is put on T1's."""
    affine = AFFINE.copy()
    affine[:3, :3] *= 2
    affine[:3, 3] += 0.5 * AFFINE[:3, :3].sum(axis=1)
    mask = put(tmp_path / "mask.nii.gz", (scans[0][::2, ::2, ::2] > 0) * 255.0, affine, "u1")
    case = case_of(tmp_path, scans, mask=mask)
    truth = scans[0] > 0
    assert 2 * (case.brain & truth).sum() / (case.brain.sum() + truth.sum()) > 0.94


def test_unfit_brain_masks(tmp_path, scans):
    """Masks that are empty, full, of many values, elsewhere, or no file are refused by name."""
    brain = (scans[0] > 0) * 1.0
    away = AFFINE.copy()
    away[0, 3] += 200
    bad = {
        "not binary": put(tmp_path / "a.nii", brain * np.arange(40), AFFINE),
        "empty": put(tmp_path / "b.nii", brain * 0, AFFINE),
        "whole volume": put(tmp_path / "c.nii", brain * 0 + 1, AFFINE),
        "overlap by only 0 %": put(tmp_path / "d.nii", brain, away),
        "does not exist": tmp_path / "none.nii",
        "no orientation": put(tmp_path / "e.nii", brain, AFFINE, qcode=0, scode=0),
    }
    for word, path in bad.items():
        with pytest.raises(D3MError, match=f"(?i)brain mask.*{word}"):
            case_of(tmp_path, scans, mask=path)


def test_one_image_twice(tmp_path, scans):
    """One image as two contrasts is refused: the same file, a link, a copy, another storage type or scale."""
    t1, t2, flair = files(tmp_path, scans)
    shutil.copy(flair, tmp_path / "copy.nii.gz")
    (tmp_path / "link.nii.gz").symlink_to(flair)
    put(tmp_path / "bytes.nii.gz", scans[2] / scans[2].max() * 255, AFFINE, "u1")
    put(tmp_path / "scaled.nii", scans[2] * 3 + 7, AFFINE, "f8")
    flipped = AFFINE @ np.diag([-1.0, 1, 1, 1])
    flipped[:3, 3] += 47 * AFFINE[:3, 0]
    put(tmp_path / "turned.nii", scans[2][::-1], flipped)
    for name in ("flair.nii.gz", "copy.nii.gz", "link.nii.gz", "bytes.nii.gz", "scaled.nii", "turned.nii"):
        with pytest.raises(D3MError, match="T2 and FLAIR hold the same image"):
            read_case(t1, tmp_path / name, flair)
    with pytest.raises(D3MError, match="T1 and T2 hold the same image"):
        read_case(t2, t2, flair)


def test_swapped_contrasts(tmp_path, scans):
    """Contrasts in each other's place are reported with the reason, and run."""
    t1, t2, flair = files(tmp_path, scans)
    case = read_case(t2, t1, flair)
    assert codes(case) == [("contrasts-swapped", "t1")]
    assert "T1 looks like a T2 (bright fluid)" in case.notices[0].message
    assert codes(read_case(t1, flair, t2)) == [("contrasts-swapped", "flair")]
    t1, t2, flair = files(tmp_path, brains(lesion=12))
    assert not read_case(t1, t2, flair).notices
    case = read_case(flair, t2, t1)
    assert codes(case) == [("contrasts-swapped", "t1")]
    assert "T1 looks like a FLAIR" in case.notices[0].message


def test_label_map_as_scan(tmp_path, scans):
    """A segmentation given as a scan is refused."""
    t1, t2, _ = files(tmp_path, scans)
    labels = put(tmp_path / "seg.nii.gz", np.digitize(scans[2], (0.5, 40, 80)), AFFINE, "u1")
    with pytest.raises(D3MError, match="FLAIR holds 3 different values"):
        read_case(t1, t2, labels)


@pytest.mark.parametrize(("shift", "words"), [(500, "do not overlap"), (36, "overlap by only 25 %")])
def test_fields_of_view(tmp_path, scans, shift, words):
    """Scans of different places are refused with the share that they have in common."""
    away = AFFINE.copy()
    away[0, 3] += shift
    with pytest.raises(D3MError, match=f"T2 and T1 {words}"):
        case_of(tmp_path, scans, (AFFINE, away, AFFINE))


def test_brains_in_different_places(tmp_path):
    """Brains that lie apart within overlapping fields of view are brought together, and a notice says so."""
    shape = (64, 56, 40)
    affine = (lps_affine(shape),) * 3
    t1, _, flair = brains(shape, offset=(-8, 0, 0))
    for offset in (-2, 12):
        t2 = brains(shape, offset=(offset, 0, 0))[1]
        case = case_of(tmp_path, (t1, t2, flair), affine)
        assert codes(case) == [("registered", "t2")]
        np.testing.assert_allclose(case.t2.affine[:3, 3] - affine[1][:3, 3], [offset + 8, 0, 0], atol=1.0)


@pytest.mark.parametrize("how", ["zeros", "nan", "short"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_gap_in_one_contrast(tmp_path, scans, how, which):
    """Where one contrast was cut off, the brain is too: nothing is invented there, and a notice says so."""
    changed, affines = [s.copy() for s in scans], [AFFINE] * 3
    if how == "short":
        changed[which] = changed[which][:, :, 14:]
        affines[which] = AFFINE.copy()
        affines[which][:3, 3] += 14 * AFFINE[:3, 2]
    else:
        changed[which][:, :, :14] = 0 if how == "zeros" else np.nan
    case = case_of(tmp_path, changed, affines)
    slices = case.brain.any(axis=(0, 1))
    covered = slices if how == "short" and which == 0 else slices[14:]
    assert covered.any()
    if not (how == "short" and which == 0):
        assert case.brain[:, :, :14].sum() < 20
        assert ("gap", ("t1", "t2", "flair")[which]) in codes(case)
        assert np.abs(case.brain[:, :, 14:] ^ clean_brain(scans)[:, :, 14:]).sum() < 50
    most = [s.copy() for s in scans]
    most[which][:, :, :25] = 0
    with pytest.raises(D3MError, match="shows only"):
        case_of(tmp_path, most)


def clean_brain(scans):
    """The whole brain."""
    return ndimage.binary_fill_holes(scans[0] > 0)


def test_folder_and_missing_name_their_option(tmp_path, scans):
    """A folder or a missing file is refused with the contrast's name."""
    t1, t2, _ = files(tmp_path, scans)
    with pytest.raises(D3MError, match="FLAIR is a folder"):
        read_case(t1, t2, tmp_path)
    with pytest.raises(D3MError, match="FLAIR does not exist"):
        read_case(t1, t2, tmp_path / "none.nii.gz")


def test_brain_that_touches_the_faces(tmp_path, scans):
    """A tightly cropped brain, without any margin, is still recognised."""
    low = [np.flatnonzero((scans[0] > 0).any(axis=tuple(a for a in range(3) if a != k))) for k in range(3)]
    box = tuple(slice(f[0], f[-1] + 1) for f in low)
    affine = AFFINE.copy()
    affine[:3, 3] = (AFFINE @ [*(b.start for b in box), 1])[:3]
    case = case_of(tmp_path, [np.ascontiguousarray(s[box]) for s in scans], (affine,) * 3)
    assert not case.notices
    np.testing.assert_array_equal(case.brain, clean_brain(scans)[box])


def test_shape_of_the_helper():
    """The synthetic brain leaves a margin in its box."""
    brain = brains()[0] > 0
    assert brain.shape == SHAPE
    assert not brain[[0, -1]].any()
