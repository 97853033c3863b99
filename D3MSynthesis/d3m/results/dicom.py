"""A result as DICOM: an MR series that says everywhere that it is synthetic, and a segmentation of the predicted
tumour.

The series joins the study and the frame of reference of T1's DICOM series, so that a viewer lays it over T1; without
one it makes a study of its own. No tag says how an image was acquired, since none was. pydicom and highdicom are
imported where they are needed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel import orientations

import d3m
from d3m.errors import D3MError, Notice
from d3m.results.files import check_output
from d3m.storage import whole_folder
from d3m.volumes.dicom import sorted_frames
from d3m.volumes.dicom_choice import series_in
from d3m.volumes.dicom_headers import is_dicom, require_pydicom
from d3m.volumes.dicom_series import Frame, Series
from d3m.volumes.grid import resample
from d3m.volumes.read import Source, read_raw
from d3m.volumes.types import CONTRASTS, Affine, Floats, Mask

if TYPE_CHECKING:
    from d3m.synthesis import Result

SERIES_FOLDER, SEG_NAME = "cemri", "enhancement_seg.dcm"
DESCRIPTION = "SYNTHETIC CEMRI (D3M), research only"
SEG_DESCRIPTION = "SYNTHETIC predicted enhancing tumour"
STATEMENT = (
    "Synthetic contrast-enhanced T1 image computed from T1, T2 and FLAIR by a deformation-driven diffusion model "
    "(D3M). No contrast agent was given. For research only, not for the care of a patient."
)
PRODUCT, MODEL_NAME = "D3M for 3D Slicer", "D3M"
SERIES_NUMBER, SEG_NUMBER = 9101, 9102
LEVELS = 65535
WHOLE_NUMBERS = 2000
"""Images that reach this far are stored as whole numbers: the rounding is below a fortieth of a per cent."""
SYNTHETIC_DATA = 0x0008001C
"""Synthetic Data (DICOM PS3.3, SOP Common): YES if the content was made artificially."""
OF_PATIENT_AND_STUDY = {
    "PatientName": "SYNTHETIC^D3M", "PatientID": "SYNTHETIC", "PatientBirthDate": "", "PatientSex": "",
    "StudyDate": "", "StudyTime": "", "StudyID": "", "AccessionNumber": "", "ReferringPhysicianName": "",
}  # fmt: skip
"""Type 1 and 2 attributes of patient and study, copied from T1's series; what they are where it has none."""
OPTIONAL = ("SpecificCharacterSet", "PatientAge", "PatientWeight", "StudyDescription", "PatientPosition",
            "PositionReferenceIndicator")  # fmt: skip


@dataclass(frozen=True)
class DicomContent:
    """What goes into the series."""

    cemri: Floats
    """(X, Y, Z), T1's units."""
    mask: Mask
    """(X, Y, Z), predicted enhancing tumour."""
    affine: Affine
    """(4, 4), voxel index to RAS millimetres."""
    settings: str
    """Model, quality, steps, samples and seed, in words."""


def content_of(result: Result) -> DicomContent:
    """The content of a result."""
    s = result.settings
    text = f"Model {result.model_name}, quality {s.quality}, {s.steps} steps, {s.samples} samples, seed {s.seed}."
    return DicomContent(result.cemri, result.enhancement_mask, result.t1.affine, text)


def content_of_files(cemri: Path, mask: Path, provenance: Path | None) -> DicomContent:
    """The content of images that were saved before.

    Raises:
        D3MError: a file cannot be read, or the mask does not belong to the image.
    """
    image, marked = read_raw(cemri, "cemri"), read_raw(mask, "labels")
    shape = image.data.shape
    inside = resample(marked.data != 0, marked.affine, image.affine, shape, order=0)
    if (marked.data != 0).any() and not inside.any():
        raise D3MError("The mask does not lie on the synthetic image.", "Give the mask of the same result.")
    text = ""
    if provenance is not None:
        try:
            content = json.loads(provenance.read_text(encoding="utf-8"))
            s = content["settings"]
            text = f"Model {content['model']['name']}, quality {s['quality']}, {s['steps']} steps, "
            text += f"{s['samples']} samples, seed {s['seed']}."
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise D3MError("The provenance cannot be read.", "Give the provenance.json of the same result.") from error
    return DicomContent(image.data, inside, image.affine, text)


def check_dicom_output(out: Path, force: bool) -> None:
    """Find out before the work whether DICOM can be written.

    Raises:
        D3MError: a package is missing; the folder is there, or cannot be written.
    """
    require_pydicom()
    _highdicom()
    if force and out.is_dir():
        names = {path.name for path in out.iterdir()}
        if names <= {SERIES_FOLDER, SEG_NAME}:
            return
        raise D3MError("The DICOM folder holds something other than an earlier result.", "Choose another --dicom-out.")
    try:
        check_output(out, False)
    except D3MError as error:
        raise D3MError(error.message.replace("output folder", "DICOM folder"), "Choose another --dicom-out.",
                       error.kind) from error  # fmt: skip


def _highdicom() -> Any:
    try:
        import highdicom
    except ImportError as error:
        raise D3MError(
            "DICOM segmentations cannot be written: the package highdicom is not installed.",
            'Install it with "pip install highdicom" (3D Slicer has it from 5.12 on), or do without DICOM.',
            "machine",
        ) from error
    return highdicom


def write_dicom(out: Path, content: DicomContent, sources: Sequence[Source]) -> tuple[Notice, ...]:
    """Write series and segmentation into a new folder, whole or not at all.

    Args:
        out: The folder: `cemri/0001.dcm`, ... and `enhancement_seg.dcm` (none for an empty mask).
        content: Image and mask on one grid.
        sources: T1, T2 and FLAIR as they were read; those that are DICOM are referred to, and T1's decides patient,
            study and frame of reference.

    Returns:
        What was unusual.

    Raises:
        D3MError: a package is missing, or the disk is full or cannot be written.
    """
    series = [_series_of(source, contrast) for source, contrast in zip(sources, CONTRASTS, strict=False)]
    t1 = series[0] if series else None
    notices: list[Notice] = []
    image, mask, affine = (content.cemri, content.mask, content.affine) if t1 is not None else _axial(content)
    template = _template(t1, notices)
    datasets = _images(image, affine, content.settings, template, [one for one in series if one is not None])
    segmentation = None
    if mask.any():
        segmentation = _segmentation(datasets, mask)
    else:
        text = "No enhancing tumour is predicted: the DICOM segmentation is left out."
        notices.append(Notice("dicom-empty-mask", text))
    with whole_folder(out) as folder:
        (folder / SERIES_FOLDER).mkdir()
        for number, dataset in enumerate(datasets, 1):
            dataset.save_as(folder / SERIES_FOLDER / f"{number:04d}.dcm", enforce_file_format=True)
        if segmentation is not None:
            segmentation.save_as(folder / SEG_NAME, enforce_file_format=True)
    return tuple(notices)


def _series_of(source: Source, contrast: str) -> Series | None:
    if isinstance(source, Series):
        return source
    return series_in(Path(source), contrast) if is_dicom(Path(source)) else None


def _axial(content: DicomContent) -> tuple[Floats, Mask, Affine]:
    """Turned so that columns run to the left, rows to posterior and slices upwards; no values change."""
    turn = orientations.ornt_transform(
        orientations.io_orientation(content.affine), orientations.axcodes2ornt(("L", "P", "S"))
    )
    affine: Affine = content.affine @ orientations.inv_ornt_aff(turn, content.cemri.shape)
    image, mask = (orientations.apply_orientation(data, turn) for data in (content.cemri, content.mask))
    return image, mask, affine


def _template(t1: Series | None, notices: list[Notice]) -> Any:
    """What every image of the series has in common: patient, study, frame of reference."""
    pydicom = require_pydicom()
    source = pydicom.Dataset() if t1 is None else pydicom.dcmread(t1.files[0], stop_before_pixels=True)
    dataset = pydicom.Dataset()
    for name, default in OF_PATIENT_AND_STUDY.items():
        value = source.get(name)
        setattr(dataset, name, (default if t1 is None else "") if value is None else value)
    for name in OPTIONAL:
        if source.get(name) not in (None, ""):
            setattr(dataset, name, source.get(name))
    if "SpecificCharacterSet" not in dataset:
        dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.StudyInstanceUID = source.get("StudyInstanceUID") or pydicom.uid.generate_uid()
    frame = source.get("FrameOfReferenceUID")
    if not frame:
        frame = pydicom.uid.generate_uid()
        if t1 is not None:
            text = "T1's DICOM series has no frame of reference: the synthetic series got one of its own."
            notices.append(Notice("dicom-no-frame", text, "t1"))
    dataset.FrameOfReferenceUID = frame
    for name in ("PositionReferenceIndicator", "PatientPosition"):
        if name not in dataset:
            setattr(dataset, name, "")
    return dataset


def _images(image: Floats, affine: Affine, settings: str, template: Any, series: Sequence[Series]) -> list[Any]:
    """One dataset for each slice of the third axis."""
    pydicom = require_pydicom()
    low, high = float(image.min()), float(image.max())
    slope, intercept = _scale(low, high)
    stored = np.clip(np.rint((image - intercept) / slope), 0, LEVELS).astype(np.uint16)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    cosines = (lps[:3, :3] / spacing)[:, :2].T.ravel()
    inside = image[image != image.min()] if low < high else image
    dark, bright = (float(value) for value in np.percentile(inside, (1, 99.5)))
    now, uid = datetime.now(), pydicom.uid.generate_uid()
    frames = [sorted_frames(one) for one in series]
    datasets = []
    for k in range(image.shape[2]):
        dataset = _common(template, now)
        dataset.SOPClassUID = pydicom.uid.MRImageStorage
        dataset.SeriesInstanceUID, dataset.SeriesNumber, dataset.InstanceNumber = uid, SERIES_NUMBER, k + 1
        dataset.SeriesDescription = DESCRIPTION
        dataset.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
        dataset.ScanningSequence, dataset.SequenceVariant = "RM", "NONE"  # research mode: nothing was acquired
        for name in ("ScanOptions", "MRAcquisitionType", "EchoTime", "EchoTrainLength", "RepetitionTime"):
            setattr(dataset, name, None)  # type 2: present, and empty
        place = (lps @ [0, 0, k, 1])[:3]
        dataset.ImagePositionPatient = [_decimal(value) for value in place]
        dataset.ImageOrientationPatient = [_decimal(value) for value in cosines]
        dataset.PixelSpacing = [_decimal(spacing[1]), _decimal(spacing[0])]
        dataset.SliceThickness = dataset.SpacingBetweenSlices = _decimal(spacing[2])
        pixels = np.ascontiguousarray(stored[:, :, k].T)
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
        dataset.PixelData = pixels.astype("<u2").tobytes()
        if (slope, intercept) != (1.0, 0.0):
            dataset.RescaleSlope, dataset.RescaleIntercept = _decimal(slope), _decimal(intercept)
            dataset.RescaleType = "US"
        dataset.WindowCenter, dataset.WindowWidth = _decimal((dark + bright) / 2), _decimal(max(bright - dark, slope))
        dataset.DerivationDescription = f"{STATEMENT} {settings}".strip()[:1024]
        references = [_reference(_nearest(one, place)) for one in frames]
        if references:
            dataset.SourceImageSequence = references
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        datasets.append(dataset)
    return datasets


def _scale(low: float, high: float) -> tuple[float, float]:
    """Slope and intercept that keep T1's units, as decimal strings have them.

    None where whole numbers are fine enough, since some viewers forget them in MR images; else all 65536 levels.
    """
    if low >= 0 and WHOLE_NUMBERS <= high <= LEVELS:
        return 1.0, 0.0
    return float(_decimal((high - low) / LEVELS or 1.0)), float(_decimal(low))


def _common(template: Any, now: datetime) -> Any:
    """Patient, study and the marks."""
    pydicom = require_pydicom()
    dataset = pydicom.Dataset()
    dataset.update(template)
    dataset.SOPInstanceUID = pydicom.uid.generate_uid()
    dataset.Modality, dataset.BodyPartExamined = "MR", "BRAIN"
    dataset.Manufacturer, dataset.ManufacturerModelName = PRODUCT, MODEL_NAME
    dataset.SoftwareVersions = d3m.__version__
    date, time = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    dataset.InstanceCreationDate = dataset.SeriesDate = dataset.ContentDate = date
    dataset.InstanceCreationTime = dataset.SeriesTime = dataset.ContentTime = time
    dataset.add_new(SYNTHETIC_DATA, "CS", "YES")
    dataset.BurnedInAnnotation, dataset.ContentQualification = "NO", "RESEARCH"
    dataset.ImageComments = "SYNTHETIC, research use only"
    equipment = pydicom.Dataset()
    equipment.PurposeOfReferenceCodeSequence = [_code("109102", "Processing Equipment")]
    equipment.Manufacturer, equipment.ManufacturerModelName = PRODUCT, MODEL_NAME
    equipment.SoftwareVersions = d3m.__version__
    equipment.ContributionDescription = "Synthesis by a diffusion model"
    dataset.ContributingEquipmentSequence = [equipment]
    return dataset


def _decimal(value: float) -> str:
    """A decimal string (VR DS): at most sixteen characters."""
    text = f"{float(value):.10g}"
    return text if len(text) <= 16 else f"{float(value):.8e}"


def _code(value: str, meaning: str) -> Any:
    code = require_pydicom().Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code


def _nearest(frames: Sequence[Frame], place: np.ndarray) -> Frame:
    """The image of a series whose plane is nearest to a point."""
    normal = np.cross(frames[0].orientation[:3], frames[0].orientation[3:])
    return min(frames, key=lambda frame: abs(float(normal @ (frame.position - place))))


def _reference(frame: Frame) -> Any:
    reference = require_pydicom().Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = frame.sop_class, frame.uid
    if frame.index is not None:
        reference.ReferencedFrameNumber = frame.index + 1
    reference.PurposeOfReferenceCodeSequence = [_code("121322", "Source image for image processing operation")]
    return reference


def _segmentation(datasets: Sequence[Any], mask: Mask) -> Any:
    """A binary DICOM SEG over the synthetic series, by highdicom."""
    highdicom = _highdicom()
    from pydicom.sr.codedict import codes

    identification = highdicom.AlgorithmIdentificationSequence(
        name="D3M", version=d3m.__version__, family=codes.DCM.ArtificialIntelligence
    )
    description = highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label="Enhancing tumour (predicted)",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=identification,
        tracking_uid=highdicom.UID(),
        tracking_id="predicted enhancing tumour",
    )
    segmentation = highdicom.seg.Segmentation(
        source_images=list(datasets),
        pixel_array=np.ascontiguousarray(np.transpose(mask, (2, 1, 0))),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[description],
        series_instance_uid=highdicom.UID(),
        series_number=SEG_NUMBER,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer=PRODUCT,
        manufacturer_model_name=MODEL_NAME,
        software_versions=d3m.__version__,
        device_serial_number="none",
        content_description="Predicted by a model, research only",
        series_description=SEG_DESCRIPTION,
    )
    segmentation.add_new(SYNTHETIC_DATA, "CS", "YES")
    segmentation.ContentQualification = "RESEARCH"
    return segmentation
