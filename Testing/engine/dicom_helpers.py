"""DICOM series written for the tests, slice by slice, with pydicom alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

Edit = Callable[[Dataset, int], Any]


def write_series(
    data: np.ndarray,
    affine: np.ndarray,
    folder: Path,
    description: str,
    study: str,
    frame: str,
    number: int = 1,
    edit: Edit = lambda dataset, _: dataset,
    axes: tuple[str, str, str] = ("L", "P", "S"),
    names: Callable[[int], str] = lambda index: f"{index:04d}.dcm",
) -> None:
    """Write a volume as one series of whole numbers.

    Args:
        data: (X, Y, Z), at least 0.
        affine: Voxel index to RAS millimetres.
        folder: Is made.
        description: Of the series.
        study: Study instance UID.
        frame: Frame of reference UID.
        number: Of the series.
        edit: May change a slice; returns it, None (left out) or a list.
        axes: Directions in which columns, rows and slices run: ("L", "P", "S") is axial.
        names: File names.
    """
    reorientation = nibabel.orientations.ornt_transform(
        nibabel.orientations.io_orientation(affine), nibabel.orientations.axcodes2ornt(axes)
    )
    matrix = np.diag([-1, -1, 1, 1]) @ affine @ nibabel.orientations.inv_ornt_aff(reorientation, data.shape)
    data = nibabel.orientations.apply_orientation(data, reorientation)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    directions = matrix[:3, :3] / spacing
    series, count = generate_uid(), 0
    folder.mkdir(parents=True, exist_ok=True)
    for z in range(data.shape[2]):
        pixels = np.ascontiguousarray(np.clip(np.rint(data[:, :, z].T), 0, 65535).astype("<u2"))
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = MRImageStorage, generate_uid(), "MR"
        dataset.PatientName, dataset.PatientID = "Möller^Änne", "PID-4711"
        dataset.PatientBirthDate, dataset.PatientSex = "19500101", "F"
        dataset.SpecificCharacterSet = "ISO_IR 192"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = study, series, frame
        dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber, dataset.StudyID = "20240101", "101010", "A1", "1"
        dataset.SeriesDescription, dataset.SeriesNumber, dataset.InstanceNumber = description, number, z + 1
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M"]
        dataset.ImagePositionPatient = [f"{value:.6f}" for value in (matrix @ [0, 0, z, 1])[:3]]
        dataset.ImageOrientationPatient = [f"{value:.6f}" for value in directions[:, :2].T.ravel()]
        dataset.PixelSpacing = [f"{spacing[1]:.6f}", f"{spacing[0]:.6f}"]
        dataset.SliceThickness = f"{spacing[2]:.6f}"
        dataset.Rows, dataset.Columns, dataset.PixelData = *pixels.shape, pixels.tobytes()
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
        edited = edit(dataset, z)
        for one in [] if edited is None else edited if isinstance(edited, list) else [edited]:
            one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
            one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
            one.save_as(folder / names(count), enforce_file_format=True)
            count += 1


def to_enhanced(folder: Path, out: Path, backwards: bool = False) -> None:
    """The slices of a folder as one Enhanced MR file whose geometry stands only in its functional groups."""
    slices = [pydicom.dcmread(path) for path in sorted(folder.iterdir(), reverse=backwards)]
    first = slices[0]

    def item(**values: Any) -> list[Dataset]:
        dataset = Dataset()
        for name, value in values.items():
            setattr(dataset, name, value)
        return [dataset]

    per_frame = []
    for one in slices:
        group = Dataset()
        group.PlanePositionSequence = item(ImagePositionPatient=one.ImagePositionPatient)
        per_frame.append(group)
    shared = Dataset()
    shared.PlaneOrientationSequence = item(ImageOrientationPatient=first.ImageOrientationPatient)
    shared.PixelMeasuresSequence = item(PixelSpacing=first.PixelSpacing, SliceThickness=first.SliceThickness)
    first.PixelData, first.NumberOfFrames = b"".join(one.PixelData for one in slices), len(slices)
    first.SharedFunctionalGroupsSequence, first.PerFrameFunctionalGroupsSequence = [shared], per_frame
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(first, name)
    first.SOPClassUID = first.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    first.SOPInstanceUID = first.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    first.save_as(out, enforce_file_format=True)
