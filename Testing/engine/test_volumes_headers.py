"""Geometry in NIfTI headers: which affine counts, units, shear, and headers full of nonsense."""

from __future__ import annotations

import struct

import nibabel
import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d3m.errors import D3MError
from d3m.volumes.preprocess.case import read_case, read_volume
from engine.volume_helpers import brains, lps_affine, nifti_bytes, put, rotation

AFFINE = rotation(7, 2) @ lps_affine()


@pytest.fixture(scope="module")
def scans():
    """T1, T2, FLAIR."""
    return brains()


def codes(volume):
    """Codes of the notices."""
    return [notice.code for notice in volume.notices]


def test_sform_counts_else_qform(tmp_path, scans):
    """The sform is used if its code is set, else the qform; what disagrees by more than rounding is reported."""
    other = rotation(10, 2) @ AFFINE
    both = read_volume(put(tmp_path / "a.nii", scans[0], AFFINE, qform=other), "t1")
    np.testing.assert_allclose(both.affine, AFFINE, atol=1e-4)
    assert codes(both) == ["two-orientations"]
    assert "T1" in both.notices[0].message
    quaternion = read_volume(put(tmp_path / "b.nii", scans[0], AFFINE, qform=other, scode=0), "t1")
    np.testing.assert_allclose(quaternion.affine, other, atol=1e-4)
    assert (quaternion.qform_code, quaternion.sform_code, codes(quaternion)) == (1, 0, [])
    rows = read_volume(put(tmp_path / "c.nii", scans[0], AFFINE, qform=other, qcode=0, scode=2), "t1")
    np.testing.assert_allclose(rows.affine, AFFINE, atol=1e-4)
    assert (rows.qform_code, rows.sform_code, codes(rows)) == (0, 2, [])
    rounded = read_volume(put(tmp_path / "d.nii", scans[0], AFFINE, sform=np.round(AFFINE, 4)), "t1")
    assert not rounded.notices


def test_unusable_sform_falls_back_to_qform(tmp_path, scans):
    """An sform of zeros under a set code is none; without a qform the file is refused."""
    volume = read_volume(put(tmp_path / "a.nii", scans[0], AFFINE, sform=np.zeros((4, 4))), "t1")
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-4)
    path = put(tmp_path / "b.nii", scans[0], AFFINE, sform=np.zeros((4, 4)), qcode=0)
    with pytest.raises(D3MError, match="T1"):
        read_volume(path, "t1")
    with pytest.raises(D3MError, match="T1"):
        read_volume(put(tmp_path / "c.nii", scans[0], AFFINE, sform=AFFINE * np.nan, qcode=0), "t1")


def test_no_orientation_is_refused(tmp_path, scans):
    """With both codes zero left and right cannot be known: the contrast is refused by name, one or all of them."""
    paths = [put(tmp_path / f"{i}.nii.gz", scan, AFFINE) for i, scan in enumerate(scans)]
    lost = put(tmp_path / "lost.nii.gz", scans[1], AFFINE, qcode=0, scode=0)
    with pytest.raises(D3MError, match=r"T2 has no orientation.*left and right"):
        read_case(paths[0], lost, paths[2])
    for path, scan in zip(paths, scans, strict=True):
        put(path, scan, AFFINE, qcode=0, scode=0)
    with pytest.raises(D3MError, match="no orientation") as caught:
        read_case(*paths)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("code", "factor"), [(1, 0.001), (3, 1000.0), (2, 1.0), (0, 1.0)])
@pytest.mark.parametrize("scode", [0, 1])
def test_units(tmp_path, scans, code, factor, scode):
    """Metres and micrometres become millimetres, in sform and qform; an unknown unit is millimetres."""
    stored = AFFINE.copy()
    stored[:3] *= factor
    volume = read_volume(put(tmp_path / "a.nii.gz", scans[0], stored, units=code, scode=scode), "t1")
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-4)
    assert not volume.notices


def test_unit_that_makes_no_sense(tmp_path, scans):
    """Metres over numbers that are millimetres: reported; a voxel of a micrometre or a metre: refused."""
    volume = read_volume(put(tmp_path / "a.nii", scans[0], AFFINE, units=1), "t1")
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-4)
    assert codes(volume) == ["unit"]
    for factor in (0.001, 1000):
        stored = AFFINE.copy()
        stored[:3] *= factor
        with pytest.raises(D3MError, match="T1 has an impossible voxel size"):
            read_volume(put(tmp_path / "b.nii", scans[0], stored), "t1")


@pytest.mark.parametrize("axes", [(1, 0), (2, 0), (2, 1), (0, 2)])
def test_shear(tmp_path, scans, axes):
    """Axes nearly at right angles are straightened about the middle of the volume; a real shear is refused."""
    one, two = axes
    for amount, expected in ((0.0005, []), (0.003, ["shear"])):
        sheared = AFFINE.copy()
        sheared[:3, one] += amount * sheared[:3, two]
        volume = read_volume(put(tmp_path / "a.nii.gz", scans[1], AFFINE, sform=sheared, qcode=0), "t2")
        rotation = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
        np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-9)
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in scans[1].shape])).reshape(3, -1)
        corners = np.vstack([corners, np.ones(8)])
        assert np.abs(volume.affine @ corners - sheared @ corners).max() < amount * 56
        assert codes(volume) == expected
    for amount in (0.02, 0.15, 0.6):
        sheared = AFFINE.copy()
        sheared[:3, one] += amount * sheared[:3, two]
        with pytest.raises(D3MError, match=r"T2 has axes that are not at right angles.*sheared"):
            read_volume(put(tmp_path / "b.nii.gz", scans[1], AFFINE, sform=sheared, qcode=0), "t2")


def test_degenerate_axes(tmp_path, scans):
    """Two axes in one direction, or one of length zero, are refused."""
    flat = AFFINE.copy()
    flat[:3, 1] = flat[:3, 0]
    with pytest.raises(D3MError, match="T1"):
        read_volume(put(tmp_path / "a.nii", scans[0], AFFINE, sform=flat, qcode=0), "t1")
    none = AFFINE.copy()
    none[:3, 2] = 0
    with pytest.raises(D3MError, match="T1"):
        read_volume(put(tmp_path / "b.nii", scans[0], AFFINE, sform=none, qcode=0), "t1")


def test_rounded_headers_share_a_grid(tmp_path, scans):
    """Headers that differ by rounding, or that store one affine in another way, are one grid: nothing is blurred."""
    for digits in (4, 3):
        paths = [
            put(tmp_path / "1.nii.gz", scans[0], AFFINE),
            put(tmp_path / "2.nii.gz", scans[1], AFFINE, sform=np.round(AFFINE, digits), qcode=0),
            put(tmp_path / "3.nii.gz", scans[2], AFFINE, scode=0),
        ]
        case = read_case(*paths)
        for volume, scan in zip(case.contrasts(), scans, strict=True):
            np.testing.assert_array_equal(volume.affine, case.t1.affine)
            np.testing.assert_array_equal(volume.data, scan)
        assert not case.notices


def test_same_world_as_itk(tmp_path, scans):
    """Oblique and flipped files lie where SimpleITK puts them."""
    for flips in np.ndindex(2, 2, 2):
        affine = rotation(12, 0) @ rotation(5, 1) @ AFFINE @ np.diag([*(1.0 - 2 * np.array(flips)), 1.0])
        path = put(tmp_path / "a.nii.gz", scans[0], affine)
        image = SimpleITK.ReadImage(str(path))
        world = np.array(image.TransformIndexToPhysicalPoint((30, 4, 11))) * (-1, -1, 1)
        np.testing.assert_allclose((read_volume(path, "t1").affine @ (30, 4, 11, 1))[:3], world, atol=1e-3)


SMALL = np.random.default_rng(1).uniform(1, 9, (6, 7, 5)).astype("f4")
WHOLE = nifti_bytes(SMALL, lps_affine(SMALL.shape))


def read_or_refused(path):
    """Read whole and finite, or refuse in a sentence with the way to put it right; nothing else may be raised."""
    refusal = None
    try:
        volume = read_volume(path, "t1")
    except D3MError as error:
        refusal = error
    if refusal is None:
        assert np.isfinite(volume.data).all()
        assert np.isfinite(volume.affine).all()
        assert abs(np.linalg.det(volume.affine[:3, :3])) > 0
    else:
        assert refusal.exit_code == 2
        assert refusal.message.endswith(".")
        assert refusal.hint


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=6),
    length=st.one_of(st.just(len(WHOLE)), st.integers(0, len(WHOLE))),
)
def test_any_header_is_read_or_refused(tmp_path, changes, length):
    """Whatever stands in the header, the file is read whole and finite or refused in a sentence; nothing else."""
    content = bytearray(WHOLE)
    for position, value in changes:
        content[position] = value
    path = tmp_path / "fuzz.nii"
    path.write_bytes(bytes(content[:length]))
    read_or_refused(path)


FIELDS = {
    "dim": ("8h", 40),
    "datatype": ("h", 70),
    "pixdim": ("8f", 76),
    "vox_offset": ("f", 108),
    "scaling": ("2f", 112),
    "units": ("b", 123),
    "codes": ("2h", 252),
    "quaternion": ("6f", 256),
    "sform": ("12f", 280),
}


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_field_value_is_read_or_refused(tmp_path, data):
    """The same for whole fields set to extreme but typical values."""
    name = data.draw(st.sampled_from(sorted(FIELDS)))
    layout, position = FIELDS[name]
    count = int(layout[:-1] or 1)
    if layout[-1] == "f":
        values = st.sampled_from([0.0, 1.0, -1.0, 0.5, 352.0, 1e-30, 1e30, 3.4e38, float("nan"), float("inf"), -1e9])
    elif layout[-1] == "b":
        values = st.integers(-128, 127)
    else:
        values = st.sampled_from([0, 1, 2, 3, 4, 5, 7, 8, 16, 64, 128, 512, 1536, 32767, -1, -32768])
    content = bytearray(WHOLE)
    struct.pack_into("<" + layout, content, position, *[data.draw(values) for _ in range(count)])
    path = tmp_path / "fuzz.nii"
    path.write_bytes(bytes(content))
    read_or_refused(path)


def test_helper_writes_what_nibabel_reads(tmp_path, scans):
    """The helper's own headers are right, so that the faults above are the only ones."""
    image = nibabel.load(put(tmp_path / "a.nii", scans[0], AFFINE))
    np.testing.assert_allclose(image.get_sform(), AFFINE, atol=1e-5)
    np.testing.assert_allclose(image.get_qform(), AFFINE, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(image.dataobj), scans[0])
