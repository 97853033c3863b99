"""From a scanner's DICOM folder (skull, three grids, tilted head) to a DICOM series, by the command that users have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from benchmarks.hospital import (
    KINDS,
    Measured,
    Visit,
    acquire,
    carried_back,
    inputs,
    random_rotation,
    table,
    visit,
    write_study,
)
from d3m.models.store import find_sample
from d3m.volumes.preprocess.case import read_volume
from d3m.volumes.types import CONTRASTS, Volume
from engine.command_helpers import d3m_command

COARSE = 5
"""Voxels that become one, so that the test takes seconds; they still count as 1 mm."""


@pytest.fixture(scope="module")
def small_sample() -> dict[str, Volume]:
    """The bundled simulated patient, a fifth as large."""
    sample = find_sample()
    scans = {name: read_volume(getattr(sample, name), name) for name in CONTRASTS}
    return {
        name: Volume(np.ascontiguousarray(v.data[::COARSE, ::COARSE, ::COARSE]), v.affine) for name, v in scans.items()
    }


@pytest.fixture(scope="module")
def made(small_sample: dict[str, Volume]) -> Visit:
    """That patient as a scanner gives him."""
    return visit(small_sample, KINDS["dicom"], seed=3)


def test_scans_lie_where_the_pose_says(small_sample: dict[str, Volume], made: Visit):
    """The brain, carried back by the known pose, lies where it was; around it there is a head; grids differ."""
    assert len({scan.data.shape for scan in made.scans.values()}) == 3
    codes = [np.abs(scan.affine[:3, :3]).argmax(axis=0).tolist() for scan in made.scans.values()]
    assert codes == [[1, 2, 0], [0, 1, 2], [0, 2, 1]]
    brain = small_sample["t2"].data != 0
    for name in CONTRASTS:
        scan, original = made.scans[name], small_sample[name]

        def agreement(*shift: float, scan: Volume = scan, original: Volume = original) -> float:
            pose = made.pose.copy()
            pose[:3, 3] += shift
            found = sitk.Resample(_image(scan), _image(original), _moved(pose), sitk.sitkLinear, 0.0)
            return float(np.corrcoef(sitk.GetArrayFromImage(found).T[brain], original.data[brain])[0, 1])

        best = agreement(0, 0, 0)
        assert best > 0.6
        for shift in np.vstack([np.eye(3), -np.eye(3)]):  # a millimetre to any side is worse
            assert agreement(*shift) < best, (name, shift)
        bright = 0.3 * original.data.max()
        assert (scan.data > bright).sum() > 1.5 * (original.data > bright).sum()


def _image(volume: Volume) -> sitk.Image:
    """With SimpleITK's LPS geometry."""
    to_lps = np.diag([-1.0, -1.0, 1.0])
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(volume.data.T)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((to_lps @ volume.affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin((to_lps @ volume.affine[:3, 3]).tolist())
    return image


def _moved(pose: np.ndarray) -> sitk.AffineTransform:
    """The pose (RAS) as SimpleITK's map of points (LPS)."""
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    matrix = flip @ pose @ flip
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix[:3, :3].ravel().tolist())
    transform.SetTranslation(matrix[:3, 3].tolist())
    return transform


def test_thick_slices_are_averaged(small_sample: dict[str, Volume]):
    """Without a turn, a slice of 5 mm is the mean of five positions, centred on it."""
    scan = small_sample["t1"]
    thick = acquire(scan, np.eye(4), KINDS["thick"].protocols["t1"])
    thin = acquire(scan, np.eye(4), KINDS["tilted"].protocols["t1"])
    for volume in (thick, thin):  # a sum of values times volume does not depend on the grid
        assert volume.data.sum() * abs(np.linalg.det(volume.affine[:3, :3])) == pytest.approx(scan.data.sum(), rel=0.03)
    assert np.linalg.norm(thick.affine[:3, 2]) == 5
    centre = random_rotation(np.random.default_rng(0), np.array([10.0, 20, 30]), 0, 0)
    np.testing.assert_allclose(centre, np.eye(4), atol=1e-12)


def test_dicom_folder_is_what_was_scanned(made: Visit, tmp_path: Path):
    """An independent reader finds three series of one study, with the geometry and values of the scans."""
    write_study(tmp_path / "study", made.scans)
    reader = sitk.ImageSeriesReader()
    series = reader.GetGDCMSeriesIDs(str(tmp_path / "study"))
    assert len(series) == 3
    for one in series:
        files = reader.GetGDCMSeriesFileNames(str(tmp_path / "study"), one)
        reader.SetFileNames(files)
        image = reader.Execute()
        name = {"t1_mprage": "t1", "t2_tse": "t2"}.get(pydicom.dcmread(files[0]).SeriesDescription, "flair")
        expected = _image(made.scans[name])
        np.testing.assert_allclose(image.GetOrigin(), expected.GetOrigin(), atol=1e-3)
        np.testing.assert_allclose(image.GetDirection(), expected.GetDirection(), atol=1e-5)
        top = made.scans[name].data.max()
        np.testing.assert_allclose(sitk.GetArrayFromImage(image).T, made.scans[name].data, atol=top / 4000)


@pytest.mark.long
def test_scanner_dicom_becomes_a_series_over_t1(
    small_sample: dict[str, Volume], made: Visit, tiny_model: Path, tmp_path: Path
):
    """`d3m synthesize --dicom ... --dicom-out ...` makes a series that lies over the original T1, slice by slice."""
    arguments = inputs(tmp_path / "study", made, KINDS["dicom"], small_sample["t1"])
    series = tmp_path / "series"
    done = d3m_command(
        "synthesize", *arguments, "--out", tmp_path / "out", "--dicom-out", series, "--model", tiny_model,
        "--quality", "preview", "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    given = [pydicom.dcmread(p) for p in (tmp_path / "study").iterdir()]
    t1 = {tuple(map(float, d.ImagePositionPatient)): d for d in given if d.SeriesDescription == "t1_mprage"}
    found = [pydicom.dcmread(p) for p in (series / "cemri").iterdir()]
    assert len(found) == len(t1)
    assert {tuple(map(float, d.ImagePositionPatient)) for d in found} == set(t1)
    assert {d.FrameOfReferenceUID for d in found} == {given[0].FrameOfReferenceUID}
    assert {d.StudyInstanceUID for d in found} == {given[0].StudyInstanceUID}
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(series / "cemri")))
    scan = made.scans["t1"]
    assert image.GetSize() == scan.data.shape
    values = sitk.GetArrayFromImage(image).T.astype(np.float32)
    # the head around the brain is T1's own: the series lies over it, not beside it
    brain = carried_back(tmp_path / "brain.nii.gz", np.eye(4), Volume(scan.data, scan.affine)) > 0
    assert np.corrcoef(values[~brain], scan.data[~brain])[0, 1] > 0.99
    assert not np.allclose(values[brain], scan.data[brain], atol=scan.data.max() / 500)


def test_the_table_has_the_mean_and_the_worst_change():
    """Changes are a patient's own, against her prepared input; who has no result is counted, not averaged."""
    nan = float("nan")
    rows = [
        Measured("a", "prepared", 20.0, 15.0, 0.6, 0.4, 0.5, ""),
        Measured("b", "prepared", 18.0, 13.0, 0.5, 0.3, nan, ""),
        Measured("a", "thick", 19.0, 14.5, 0.55, 0.41, 0.4, "thick-slices"),
        Measured("b", "thick", 17.8, 13.3, 0.5, 0.3, nan, "thick-slices"),
        Measured("a", "skull", nan, nan, nan, nan, nan, "no result: refused"),
        Measured("b", "skull", 18.1, 13.1, 0.5, 0.3, nan, ""),
    ]
    prepared, thick, skull = (line.split(" | ") for line in table(rows).splitlines()[2:])
    assert prepared[2:4] == ["19.00", "14.00"]
    assert thick[1:4] == ["2", "-0.60 (worst -1.00)", "-0.10 (worst -0.50)"]
    assert thick[6:] == ["-0.100 (worst -0.100)", "0 |"]
    assert (skull[2], skull[7]) == ("+0.10 (worst +0.10)", "1 |")
