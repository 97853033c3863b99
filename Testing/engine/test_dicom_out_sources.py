"""DICOM output from sources as archives and anonymisers leave them: kept as they are, and never an obstacle."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, generate_uid

from conftest import AFFINE, tiny_volumes
from d3m.errors import D3MError
from d3m.results.dicom.write import DicomContent, check_dicom_output, content_of_files, write_dicom
from d3m.results.files import write_nifti
from d3m.volumes.preprocess.case import read_volume
from engine.dicom_helpers import write_series
from engine.test_dicom_out import content, images, on_grid_of

Files = Callable[[Path], None]


def source(folder: Path, text: str = "AX T1", **options: Any) -> Path:
    """A T1 series, written although its header breaks rules."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_series(np.rint(tiny_volumes()["t1"]), AFFINE, folder, text, generate_uid(), generate_uid(), **options)
    return folder


def written(tmp_path: Path, folder: Path) -> tuple[list[Any], Any, list[str]]:
    """Slices, segmentation and codes of notices; no warning may be shown, since it could show a name."""
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        made = on_grid_of(read_volume(folder, "t1"), content())
        notices = write_dicom(tmp_path / "out", made, [folder])
    assert [str(one.message) for one in shown] == []
    return images(tmp_path / "out"), pydicom.dcmread(tmp_path / "out/enhancement_seg.dcm"), [n.code for n in notices]


def setting(**values: Any) -> Callable[[Any, int], Any]:
    """Write values into each header, allowed or not."""

    def edit(dataset: Any, _: int) -> Any:
        for name, value in values.items():
            tag = pydicom.datadict.tag_for_keyword(name)
            dataset[tag] = pydicom.DataElement(tag, pydicom.datadict.dictionary_VR(tag), value)
        return dataset

    return edit


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PatientSex", "U"), ("PatientSex", "male"), ("PatientBirthDate", "31.01.1950"), ("StudyTime", "10:11:12"),
        ("StudyDate", "unknown"), ("PatientName", "MUELLER"), ("PatientName", "M" * 80), ("PatientID", "4711-" * 20),
        ("AccessionNumber", "A" * 30), ("StudyInstanceUID", "STUDY1"), ("FrameOfReferenceUID", "1." + "3" * 80),
        ("PatientAge", "50"), ("StudyDescription", "x" * 80), ("IssuerOfPatientID", "Klinikum"),
    ],
)  # fmt: skip
def test_what_the_header_says_is_kept(tmp_path: Path, name: str, value: str) -> None:
    """Values that break the standard's rules come back as they are, in image and segmentation."""
    slices, segmentation, _ = written(tmp_path, source(tmp_path / "t1", edit=setting(**{name: value})))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert {str(one.get(name)) for one in (*slices, segmentation)} == {value}


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"), ("GB18030", "Wang^XiaoDong=王^小东"),
        ("ISO_IR 126", "Διονυσιος"), ("ISO_IR 100", "Möller^Änne"), ("ISO_IR 192", "Łódź^Ž"),
    ],
)  # fmt: skip
def test_names_of_every_script(tmp_path: Path, charset: Any, name: str) -> None:
    """A name and its character set are T1's."""
    slices, segmentation, _ = written(
        tmp_path, source(tmp_path / "t1", edit=setting(SpecificCharacterSet=charset, PatientName=name))
    )
    assert {str(one.PatientName) for one in (*slices, segmentation)} == {name}


def big_endian(folder: Path) -> None:
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").byteswap().tobytes()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=False, enforce_file_format=True)


def implicit(folder: Path) -> None:
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        pydicom.dcmwrite(path, dataset, implicit_vr=True, little_endian=True, enforce_file_format=True)


def bare(folder: Path) -> None:
    for path in folder.iterdir():
        dataset, packed = pydicom.dcmread(path), io.BytesIO()
        del dataset.file_meta
        pydicom.dcmwrite(packed, dataset, implicit_vr=False, little_endian=True, enforce_file_format=False)
        path.write_bytes(packed.getvalue())


def beside_t2(folder: Path) -> None:
    first = pydicom.dcmread(folder / "0000.dcm")
    data = np.rint(tiny_volumes()["t2"])
    write_series(data, AFFINE, folder / "t2", "AX T2", first.StudyInstanceUID, first.FrameOfReferenceUID, 2)


@pytest.mark.parametrize("store", [big_endian, implicit, bare, beside_t2])
def test_however_the_source_is_stored(tmp_path: Path, store: Files) -> None:
    """Byte order, encoding, a missing preamble or further series in the folder do not lose the patient."""
    folder = source(tmp_path / "t1")
    study = pydicom.dcmread(folder / "0000.dcm").StudyInstanceUID
    store(folder)
    slices, segmentation, notices = written(tmp_path, folder)
    assert {str(one.PatientName) for one in (*slices, segmentation)} == {"Möller^Änne"}
    assert {one.StudyInstanceUID for one in (*slices, segmentation)} == {study}
    assert notices == []


def test_only_the_scan_is_referred_to(tmp_path: Path) -> None:
    """A localiser in T1's series is no source."""
    scouts = []

    def edit(dataset: Any, z: int) -> Any:
        if z:
            return dataset
        scout = copy.deepcopy(dataset)
        scout.SOPInstanceUID, scout.ImageType = generate_uid(), ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        scout.ImageOrientationPatient, scout.ImagePositionPatient = [0, 1, 0, 0, 0, -1], [0, -28, 20]
        scouts.append(scout.SOPInstanceUID)
        return [scout, dataset]

    slices, _, _ = written(tmp_path, source(tmp_path / "t1", edit=edit))
    referred = [item.ReferencedSOPInstanceUID for one in slices for item in one.SourceImageSequence]
    assert len(set(referred)) == len(slices)
    assert not set(scouts) & set(referred)


def test_further_contrasts_are_referred_to(tmp_path: Path) -> None:
    """SWI comes after T1, T2, FLAIR and ADC; each of its slices is a source of a slice."""
    t1, swi = source(tmp_path / "t1"), source(tmp_path / "swi", "AX SWI")
    made = on_grid_of(read_volume(t1, "t1"), content())
    write_dicom(tmp_path / "out", made, [t1, None, None, None, swi])
    referred = [i.ReferencedSOPInstanceUID for one in images(tmp_path / "out") for i in one.SourceImageSequence]
    for folder in (t1, swi):
        assert {pydicom.dcmread(path).SOPInstanceUID for path in folder.iterdir()} <= set(referred)


def test_losses_are_passed_on(tmp_path: Path) -> None:
    """What was compressed with losses stays so called (DICOM PS3.3, C.7.6.1.1.5)."""
    slices, _, _ = written(
        tmp_path, source(tmp_path / "t1", edit=setting(LossyImageCompression="01", LossyImageCompressionRatio="8"))
    )
    assert {(one.LossyImageCompression, float(one.LossyImageCompressionRatio)) for one in slices} == {("01", 8.0)}


def test_another_grid_gets_a_frame_of_reference_of_its_own(tmp_path: Path) -> None:
    """An image that was moved since T1 was read is not laid over T1; the study stays, and it is said."""
    folder = source(tmp_path / "t1")
    made = on_grid_of(read_volume(folder, "t1"), content())
    moved = made.affine.copy()
    moved[:3, 3] += [0, 20, 0]
    notices = write_dicom(tmp_path / "out", DicomContent(made.cemri, made.mask, moved, ""), [folder])
    first = pydicom.dcmread(folder / "0000.dcm")
    assert [notice.code for notice in notices] == ["dicom-other-grid"]
    for one in images(tmp_path / "out"):
        assert one.StudyInstanceUID == first.StudyInstanceUID
        assert one.FrameOfReferenceUID != first.FrameOfReferenceUID


def test_a_turned_file_is_written_as_t1_runs(tmp_path: Path) -> None:
    """Voxels that another program turned meanwhile become slices, rows and columns like T1's."""
    folder = source(tmp_path / "t1", axes=("P", "I", "R"))
    made = on_grid_of(read_volume(folder, "t1"), content())
    turned = DicomContent(
        np.ascontiguousarray(made.cemri.transpose(2, 0, 1)[::-1]),
        made.mask.transpose(2, 0, 1)[::-1],
        made.affine[:, [2, 0, 1, 3]] @ np.array([[-1, 0, 0, made.cemri.shape[2] - 1], *np.eye(4)[1:]]),
        "",
    )
    assert write_dicom(tmp_path / "one", made, [folder]) == write_dicom(tmp_path / "two", turned, [folder]) == ()
    for one, other in zip(images(tmp_path / "one"), images(tmp_path / "two"), strict=True):
        assert one.ImagePositionPatient == other.ImagePositionPatient
        assert one.ImageOrientationPatient == other.ImageOrientationPatient
        np.testing.assert_array_equal(one.pixel_array, other.pixel_array)


@pytest.mark.parametrize(("scale", "shift"), [(1 / 450, 0.0), (1e-6, 0.0), (1 / 100, -2.0), (300, 0.0), (1, -1024.0)])
def test_units_are_kept_to_half_a_level(tmp_path: Path, scale: float, shift: float) -> None:
    """Whatever T1's scale is, values come back to half a level, and the window is one that viewers can use."""
    made = content()
    image = (made.cemri * scale + shift).astype(np.float32)
    write_dicom(tmp_path / "out", DicomContent(image, made.mask, made.affine, ""), [])
    level = max(float(image.max() - image.min()) / 65535, 1.0 if scale == 300 else 0.0)
    slices = images(tmp_path / "out")
    found = np.stack([
        one.pixel_array.T * float(one.get("RescaleSlope", 1)) + float(one.get("RescaleIntercept", 0)) for one in slices
    ], axis=2)  # fmt: skip
    np.testing.assert_allclose(found, image, rtol=1e-6, atol=0.51 * level)
    width, center = float(slices[0].WindowWidth), float(slices[0].WindowCenter)
    assert image.min() <= center <= image.max()
    assert width >= 1 if slices[0].get("VOILUTFunction", "LINEAR") == "LINEAR" else width > 0


def test_folders_in_each_other_are_refused(tmp_path: Path) -> None:
    """Neither folder may hold the other: the later one would replace the earlier one."""
    for dicom, result in (("a", "a"), ("a", "a/b"), ("a/b", "a"), ("a/../c", "c")):
        with pytest.raises(D3MError, match="lie in each other"):
            check_dicom_output(tmp_path / dicom, True, tmp_path / result)
    check_dicom_output(tmp_path / "ab", False, tmp_path / "a")


def test_foreign_files_among_the_slices_stay(tmp_path: Path) -> None:
    """A file of somebody else's inside an earlier result keeps it from being replaced."""
    write_dicom(tmp_path / "out", content(), [])
    (tmp_path / "out/cemri/mine.dcm").write_text("")
    with pytest.raises(D3MError, match="something other"):
        check_dicom_output(tmp_path / "out", True)
    with pytest.raises(D3MError, match="something other"):
        write_dicom(tmp_path / "out", content(), [])
    assert (tmp_path / "out/cemri/mine.dcm").exists()


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    """An image that was damaged since is not rounded to something that looks right."""
    made = content()
    made.cemri[10, 10, 10] = np.nan
    write_nifti(tmp_path / "cemri.nii.gz", made.cemri, AFFINE)
    write_nifti(tmp_path / "mask.nii.gz", made.mask.astype(np.uint8), AFFINE)
    with pytest.raises(D3MError, match="no numbers"):
        content_of_files(tmp_path / "cemri.nii.gz", tmp_path / "mask.nii.gz", None)
