"""The DICOM output: where it belongs, marked as synthetic, nothing that would pass for an acquired image."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import generate_uid

from conftest import AFFINE, TinyCase, tiny_volumes
from d3m.errors import D3MError
from d3m.results.dicom.write import DicomContent, check_dicom_output, content_of_files, write_dicom
from d3m.results.files import write_nifti
from d3m.results.ours import is_our_name
from d3m.volumes.preprocess.case import read_volume
from engine.command_helpers import d3m_command
from engine.dicom_helpers import to_enhanced, write_series

ACQUISITION = (
    "ContrastBolusAgent", "ContrastBolusVolume", "ContrastBolusAgentSequence", "ContrastBolusRoute", "AcquisitionDate",
    "AcquisitionTime", "AcquisitionDateTime", "AcquisitionNumber", "ProtocolName", "SequenceName",
    "MagneticFieldStrength",
    "FlipAngle", "InversionTime", "NumberOfAverages", "PixelBandwidth", "ReceiveCoilName", "TransmitCoilName",
    "DeviceSerialNumber", "StationName", "InstitutionName", "OperatorsName", "ImagedNucleus",
)  # fmt: skip
"""Attributes that describe an acquisition."""
EMPTY = ("EchoTime", "RepetitionTime", "EchoTrainLength", "ScanOptions", "MRAcquisitionType")
"""Such that the MR module demands: present, and empty."""
BLOCK = np.s_[20:26, 22:30, 14:19]
"""Voxels of the predicted tumour."""


def content(affine: np.ndarray = AFFINE) -> DicomContent:
    """A synthetic image with a bright block that is also the mask."""
    image = tiny_volumes()["t1"].astype(np.float32) / 7
    mask = np.zeros(image.shape, bool)
    mask[BLOCK] = True
    image[mask] = 150.0
    return DicomContent(image, mask, affine, "Model tiny, quality preview.")


def source(folder: Path, affine: np.ndarray = AFFINE, **options: Any) -> Path:
    """T1's DICOM series."""
    write_series(np.rint(tiny_volumes()["t1"]), affine, folder, "AX T1", generate_uid(), generate_uid(), **options)
    return folder


def on_grid_of(volume: Any, made: DicomContent) -> DicomContent:
    """The content on the grid that a T1 series was read on."""
    from d3m.volumes.grid import resample

    shape = volume.data.shape
    image, mask = (
        resample(data, made.affine, volume.affine, shape, order=order)
        for data, order in ((made.cemri, 1), (made.mask, 0))
    )
    return DicomContent(image, mask, volume.affine, made.settings)


def images(out: Path) -> list[pydicom.Dataset]:
    """The written slices."""
    return [pydicom.dcmread(path) for path in sorted((out / "cemri").iterdir())]


def centroid(points: np.ndarray) -> np.ndarray:
    return points.mean(axis=0)


def frame_points(dataset: Any, mask: np.ndarray, position: Any, orientation: Any, spacing: Any) -> np.ndarray:
    """LPS millimetres of a slice's marked pixels, from the slice's own position, orientation and spacing."""
    del dataset
    rows, columns = np.nonzero(mask)
    along, down = np.array(orientation, float).reshape(2, 3)
    return (
        np.array(position, float)
        + columns[:, None] * along * float(spacing[1])
        + rows[:, None] * down * float(spacing[0])
    )


def tilt(degrees: float) -> np.ndarray:
    """The tiny case's affine turned about the front-back axis."""
    angle = np.radians(degrees)
    rotation = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    matrix = AFFINE.copy()
    matrix[:3, :3] = rotation @ AFFINE[:3, :3]
    return matrix


ORDERS: dict[str, dict[str, Any]] = {
    "axial": {},
    "downwards": {"axes": ("L", "P", "I")},
    "rows reversed": {"axes": ("L", "A", "S")},
    "coronal": {"axes": ("L", "I", "A")},
    "sagittal": {"axes": ("P", "I", "R")},
}


@pytest.mark.parametrize("order", [*ORDERS, "oblique"])
def test_image_and_mask_lie_where_they_belong(tmp_path: Path, order: str) -> None:
    """Centroids computed from each frame's own geometry agree with the voxels, for image and segmentation."""
    affine = tilt(7) if order == "oblique" else AFFINE
    folder = source(tmp_path / "t1", affine, **ORDERS.get(order, {}))
    made = on_grid_of(read_volume(folder, "t1"), content(affine))
    write_dicom(tmp_path / "out", made, [folder])
    index = np.argwhere(made.mask)
    expected = (index @ made.affine[:3, :3].T + made.affine[:3, 3]).mean(axis=0) * [-1, -1, 1]
    points = []
    for one in images(tmp_path / "out"):
        values = one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept)
        points.append(frame_points(one, values > 140, one.ImagePositionPatient, one.ImageOrientationPatient,
                                   one.PixelSpacing))  # fmt: skip
    np.testing.assert_allclose(centroid(np.concatenate(points)), expected, atol=0.5)
    seg = pydicom.dcmread(tmp_path / "out/enhancement_seg.dcm")
    shared, points = seg.SharedFunctionalGroupsSequence[0], []
    pixels = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    for frame, group in zip(pixels, seg.PerFrameFunctionalGroupsSequence, strict=True):
        points.append(frame_points(seg, frame > 0, group.PlanePositionSequence[0].ImagePositionPatient,
                                   shared.PlaneOrientationSequence[0].ImageOrientationPatient,
                                   shared.PixelMeasuresSequence[0].PixelSpacing))  # fmt: skip
    np.testing.assert_allclose(centroid(np.concatenate(points)), expected, atol=0.5)


def test_others_read_the_same_picture(tmp_path: Path) -> None:
    """SimpleITK reads T1's grid and the values to half a level; highdicom reads the mask voxel for voxel."""
    folder = source(tmp_path / "t1", tilt(5))
    made = on_grid_of(read_volume(folder, "t1"), content(tilt(5)))
    write_dicom(tmp_path / "out", made, [folder])
    reader, t1 = sitk.ImageSeriesReader(), sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "out/cemri")))
    t1.SetFileNames(t1.GetGDCMSeriesFileNames(str(folder)))
    found, wanted = reader.Execute(), t1.Execute()
    np.testing.assert_allclose(found.GetOrigin(), wanted.GetOrigin(), atol=1e-3)
    np.testing.assert_allclose(found.GetDirection(), wanted.GetDirection(), atol=1e-5)
    level = float(made.cemri.max() - made.cemri.min()) / 65535
    np.testing.assert_allclose(sitk.GetArrayFromImage(found).T, made.cemri, atol=0.51 * level)
    volume = highdicom.seg.segread(tmp_path / "out/enhancement_seg.dcm").get_volume(combine_segments=True)
    assert volume.array.sum() == made.mask.sum()


def test_it_joins_the_study_and_is_marked(tmp_path: Path) -> None:
    """Patient, study and frame of reference are T1's; UIDs are new; it says synthetic and research in every slice."""
    folder = source(tmp_path / "t1")
    made = on_grid_of(read_volume(folder, "t1"), content())
    write_dicom(tmp_path / "out", made, [folder])
    first = pydicom.dcmread(folder / "0000.dcm")
    known = {str(pydicom.dcmread(path).SOPInstanceUID) for path in folder.iterdir()}
    seg = pydicom.dcmread(tmp_path / "out/enhancement_seg.dcm")
    slices = images(tmp_path / "out")
    for one in [*slices, seg]:
        for name in ("PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID", "FrameOfReferenceUID"):
            assert one.get(name) == first.get(name), name
        assert one.SeriesInstanceUID != first.SeriesInstanceUID
        assert one.SOPInstanceUID not in known
        assert "SYNTHETIC" in one.SeriesDescription
        assert one[0x0008001C].value == "YES"
        assert one.ContentQualification == "RESEARCH"
    for one in slices:
        assert list(one.ImageType) == ["DERIVED", "SECONDARY", "OTHER"]
        assert one.BurnedInAnnotation == "NO"
        assert "No contrast agent was given" in one.DerivationDescription
        assert {item.ReferencedSOPInstanceUID for item in one.SourceImageSequence} <= known
        assert one.ContributingEquipmentSequence[0].Manufacturer == "D3M for 3D Slicer"
    referred = {item.ReferencedSOPInstanceUID for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert referred <= {one.SOPInstanceUID for one in slices}


def test_nothing_passes_for_an_acquired_scan(tmp_path: Path) -> None:
    """Acquisition, scanner and contrast agent of the source are not taken over; what must be there is empty."""

    def edit(dataset: Any, _: int) -> Any:
        for name in ACQUISITION:
            keyword = pydicom.datadict.dictionary_VR(pydicom.datadict.tag_for_keyword(name))
            if keyword != "SQ":
                setattr(dataset, name, "20240101" if keyword in ("DA", "DT") else "101010" if keyword == "TM" else "3")
        dataset.EchoTime, dataset.RepetitionTime, dataset.ScanningSequence = "12", "500", "SE"
        dataset.add_new(0x00091001, "LO", "private")
        return dataset

    folder = source(tmp_path / "t1", edit=edit)
    write_dicom(tmp_path / "out", on_grid_of(read_volume(folder, "t1"), content()), [folder])
    for one in images(tmp_path / "out"):
        assert [name for name in ACQUISITION if name in one] == []
        assert all(name in one and one.get(name) in (None, "") for name in EMPTY)
        assert one.ScanningSequence == "RM"
        assert not any(element.tag.is_private for element in one)


@pytest.mark.parametrize(
    "name",
    ["StudyID", "AccessionNumber", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "SliceThickness",
     "SeriesDescription", "PatientName", "all"],
)  # fmt: skip
def test_sources_that_lack_attributes(tmp_path: Path, name: str) -> None:
    """De-identified sources without type 2 attributes work; what must be there is there, and empty."""
    missing = (
        ("StudyID", "AccessionNumber", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime")
        if name == "all"
        else (name,)
    )

    def edit(dataset: Any, _: int) -> Any:
        for one in missing:
            delattr(dataset, one)
        return dataset

    folder = source(tmp_path / "t1", edit=edit)
    write_dicom(tmp_path / "out", on_grid_of(read_volume(folder, "t1"), content()), [folder])
    for one in images(tmp_path / "out"):
        for attribute in ("StudyID", "AccessionNumber", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"):
            assert attribute in one
    assert (tmp_path / "out/enhancement_seg.dcm").is_file()


def test_source_without_frame_of_reference(tmp_path: Path) -> None:
    """Image and segmentation share one new frame of reference, and it is said."""

    def edit(dataset: Any, _: int) -> Any:
        del dataset.FrameOfReferenceUID
        return dataset

    folder = source(tmp_path / "t1", edit=edit)
    notices = write_dicom(tmp_path / "out", on_grid_of(read_volume(folder, "t1"), content()), [folder])
    assert [notice.code for notice in notices] == ["dicom-no-frame"]
    frames = {one.FrameOfReferenceUID for one in images(tmp_path / "out")}
    assert {pydicom.dcmread(tmp_path / "out/enhancement_seg.dcm").FrameOfReferenceUID} == frames


def test_enhanced_source(tmp_path: Path) -> None:
    """From a multi-frame T1 the study, frame of reference and frame numbers are taken."""
    folder = source(tmp_path / "slices")
    (tmp_path / "t1").mkdir()
    to_enhanced(folder, tmp_path / "t1/one.dcm")
    made = on_grid_of(read_volume(tmp_path / "t1", "t1"), content())
    write_dicom(tmp_path / "out", made, [tmp_path / "t1"])
    t1 = pydicom.dcmread(tmp_path / "t1/one.dcm")
    for one in images(tmp_path / "out"):
        (reference,) = one.SourceImageSequence
        assert one.StudyInstanceUID == t1.StudyInstanceUID
        assert reference.ReferencedSOPInstanceUID == t1.SOPInstanceUID
        group = t1.PerFrameFunctionalGroupsSequence[int(reference.ReferencedFrameNumber) - 1]
        position = group.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(
            [float(v) for v in position], [float(v) for v in one.ImagePositionPatient], atol=1e-3
        )


def test_empty_mask_writes_the_image_alone(tmp_path: Path) -> None:
    """No enhancing tumour is an answer, not an error."""
    made = content()
    notices = write_dicom(tmp_path / "out", DicomContent(made.cemri, made.mask & False, made.affine, ""), [])
    assert [notice.code for notice in notices] == ["dicom-empty-mask"]
    assert not (tmp_path / "out/enhancement_seg.dcm").exists()
    assert len(images(tmp_path / "out")) == made.cemri.shape[2]


def test_without_dicom_source_it_is_axial_in_a_study_of_its_own(tmp_path: Path) -> None:
    """From a NIfTI file of any orientation the series is axial, and nobody's patient."""
    made = content()
    turned = DicomContent(
        np.ascontiguousarray(made.cemri.transpose(2, 0, 1)), made.mask.transpose(2, 0, 1), AFFINE[:, [2, 0, 1, 3]], ""
    )
    write_dicom(tmp_path / "out", turned, [])
    for one in images(tmp_path / "out"):
        np.testing.assert_allclose([float(v) for v in one.ImageOrientationPatient], [1, 0, 0, 0, 1, 0], atol=1e-6)
        assert str(one.PatientName) == "SYNTHETIC^D3M"


def test_large_values_are_whole_numbers(tmp_path: Path) -> None:
    """Scanner units that are fine enough are stored as they are, for viewers that forget slopes in MR images."""
    made = content()
    write_dicom(tmp_path / "out", DicomContent(made.cemri * 30, made.mask, made.affine, ""), [])
    one = images(tmp_path / "out")[16]
    assert "RescaleSlope" not in one
    assert abs(int(one.pixel_array.max()) - 4500) <= 1


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="the validator dciodvfy is not installed")
def test_an_independent_validator_agrees(tmp_path: Path) -> None:
    """dciodvfy finds no error but the new tag that it does not know, and the side of a head, which has none."""
    folder = source(tmp_path / "t1")
    write_dicom(tmp_path / "out", on_grid_of(read_volume(folder, "t1"), content()), [folder])
    for path in (tmp_path / "out/cemri/0010.dcm", tmp_path / "out/enhancement_seg.dcm"):
        done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, errors="replace", check=False)
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]
        assert [line for line in lines if "0x0008,0x001c" not in line and "<Laterality>" not in line] == []


def test_an_earlier_result_is_not_replaced_unasked(tmp_path: Path) -> None:
    """Before any work the folder is looked at; foreign files are never removed."""
    write_dicom(tmp_path / "out", content(), [])
    with pytest.raises(D3MError, match="exists already"):
        check_dicom_output(tmp_path / "out", False)
    check_dicom_output(tmp_path / "out", True)
    (tmp_path / "out/mine.txt").write_text("")
    with pytest.raises(D3MError, match="something other"):
        check_dicom_output(tmp_path / "out", True)


def test_command_from_dicom_to_dicom(tmp_path: Path, tiny_model: Path) -> None:
    """A study's folder in, a marked series out, through the command line; a second run is refused before the work."""
    volumes, study, frame = tiny_volumes(), generate_uid(), generate_uid()
    for number, (name, text) in enumerate((("t1", "AX T1"), ("t2", "AX T2"), ("flair", "FLAIR")), 1):
        write_series(np.rint(volumes[name]), AFFINE, tmp_path / f"study/{number}", text, study, frame, number)
    arguments = ("synthesize", "--dicom", tmp_path / "study", "--model", tiny_model, "--quality", "preview",
                 "--device", "cpu", "--out", tmp_path / "out", "--dicom-out", tmp_path / "dicom")  # fmt: skip
    done = d3m_command(*arguments)
    assert done.returncode == 0, done.stderr
    assert "T2 is series 2" in done.stderr
    written = images(tmp_path / "dicom")
    assert {one.StudyInstanceUID for one in written} == {study}
    assert all(len(one.SourceImageSequence) == 3 for one in written)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "dicom/cemri")))
    found, wanted = reader.Execute(), sitk.ReadImage(str(tmp_path / "out/cemri.nii.gz"))
    np.testing.assert_allclose(found.GetOrigin(), wanted.GetOrigin(), atol=1e-3)
    shutil.rmtree(tmp_path / "out")
    again = d3m_command(*arguments)
    assert again.returncode == 2
    assert "DICOM folder exists already" in again.stderr
    assert not (tmp_path / "out").exists()


def test_scans_of_several_examinations_are_told(tmp_path: Path, tiny_model: Path) -> None:
    """The FLAIR is of another examination than T1, whose study the series joins: the series says so."""
    volumes, studies = tiny_volumes(), [generate_uid(), generate_uid()]
    scans = (("t1", "AX T1", 0), ("t2", "AX T2", 0), ("flair", "FLAIR", 1))
    for number, (name, text, study) in enumerate(scans, 1):
        write_series(np.rint(volumes[name]), AFFINE, tmp_path / name, text, studies[study], generate_uid(), number)
    given = [word for name, _, _ in scans for word in (f"--{name}", tmp_path / name)]
    done = d3m_command("synthesize", *given, "--model", tiny_model, "--quality", "preview", "--device", "cpu",
                       "--out", tmp_path / "out", "--dicom-out", tmp_path / "dicom")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all("different examinations" in str(one) for one in images(tmp_path / "dicom"))


def test_saved_images_become_dicom(tmp_path: Path, tiny_case: TinyCase) -> None:
    """`d3m dicom` turns saved files into the same; a mask from elsewhere is refused."""
    made = content()
    write_nifti(tmp_path / "cemri.nii.gz", made.cemri, AFFINE)
    write_nifti(tmp_path / "mask.nii.gz", made.mask.astype(np.uint8), AFFINE)
    done = d3m_command("dicom", tmp_path / "cemri.nii.gz", tmp_path / "mask.nii.gz", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert highdicom.seg.segread(tmp_path / "out/enhancement_seg.dcm").get_volume().array.sum() == made.mask.sum()
    far = AFFINE.copy()
    far[:3, 3] += 1000
    nibabel.save(nibabel.Nifti1Image(made.mask.astype(np.uint8), far), tmp_path / "far.nii.gz")
    done = d3m_command("dicom", tmp_path / "cemri.nii.gz", tmp_path / "far.nii.gz", "--out", tmp_path / "no")
    assert done.returncode == 2
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("origin", "kind"), [("predicted", "AUTOMATIC"), ("edited", "SEMIAUTOMATIC"), ("given", "MANUAL")]
)
def test_segmentation_says_whose_mask_it_is(tmp_path: Path, origin: str, kind: str) -> None:
    """Calculated, calculated with a user's help, or entered by a user (DICOM PS3.3, C.8.20.2), by the provenance."""
    made = content()
    write_nifti(tmp_path / "cemri.nii.gz", made.cemri, AFFINE)
    write_nifti(tmp_path / "mask.nii.gz", made.mask.astype(np.uint8), AFFINE)
    stated = {
        "model": {"name": "tiny"}, "settings": {"quality": "standard", "steps": 3, "samples": 1, "seed": 7},
        "notices": [], "given_mask": {"sha256": "0" * 64, "way": "stream"} if origin == "given" else None,
        "mask": {"edited": origin == "edited"},
    }  # fmt: skip
    (tmp_path / "provenance.json").write_text(json.dumps(stated))
    files = (tmp_path / "cemri.nii.gz", tmp_path / "mask.nii.gz", tmp_path / "provenance.json")
    write_dicom(tmp_path / "out", content_of_files(*files), [])
    seg = pydicom.dcmread(tmp_path / "out/enhancement_seg.dcm")
    (segment,) = seg.SegmentSequence
    assert segment.SegmentLabel == f"Enhancing tumour ({origin})"
    assert segment.SegmentAlgorithmType == kind
    assert ("SegmentAlgorithmName" in segment) == (kind != "MANUAL")
    assert segment.TrackingID == f"{origin} enhancing tumour"
    texts = f"{seg.SeriesDescription} {seg.ContentDescription}".lower()
    assert origin in texts
    assert ("predicted" in texts) == (origin != "given")
    assert is_our_name(seg.SeriesDescription)
    assert is_our_name(images(tmp_path / "out")[0].SeriesDescription)


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without highdicom the sentence names it, before the work."""
    import builtins

    real: Callable[..., Any] = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.split(".")[0] == "highdicom":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(D3MError, match="highdicom") as caught:
        check_dicom_output(tmp_path / "out", False)
    assert caught.value.kind == "machine"
