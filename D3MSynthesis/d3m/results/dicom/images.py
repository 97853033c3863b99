"""The slices of the synthetic series and its segmentation, as DICOM datasets without a patient."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np

import d3m
from d3m.errors import D3MError
from d3m.results.dicom.tags import MODEL_NAME, NOBODY, PRODUCT, SYNTHETIC_DATA, code, decimal, marks
from d3m.results.ours import DESCRIPTION, segmentation_description
from d3m.volumes.geometry import spacing_mm
from d3m.volumes.io.dicom.headers import require_pydicom
from d3m.volumes.io.dicom.series import Frame
from d3m.volumes.types import Affine, Floats, Mask

ALGORITHM_TYPES = {"predicted": "AUTOMATIC", "edited": "SEMIAUTOMATIC", "given": "MANUAL"}
MADE = {
    "predicted": "Predicted by a model, research only",
    "edited": "Predicted by a model, edited by a person, research only",
    "given": "Given by a person, research only",
}
"""Of each of `ours.MASKS` what a segmentation says of it; a content description has at most 64 characters."""
STATEMENT = (
    "Synthetic contrast-enhanced T1 image computed from T1, T2 and FLAIR by a deformation-driven diffusion model "
    "(D3M). No contrast agent was given. For research only, not for the care of a patient."
)
SERIES_NUMBER, SEG_NUMBER = 9101, 9102
LEVELS = 65535
WHOLE_NUMBERS = 2000
"""Images that reach this far are stored as whole numbers: the rounding is below a fortieth of a per cent."""
NARROW = 256.0
"""Windows narrower than this are marked as exact: the usual formula is off by half a unit, and fails below one."""
PARALLEL = 0.99
"""Cosine above which two stacks count as parallel: then a slice is made from the nearest slice, else from all."""


def slices(image: Floats, affine: Affine, settings: str, sources: Sequence[Sequence[Frame]]) -> list[Any]:
    """One dataset for each slice of the third axis.

    Args:
        image: (X, Y, Z): columns along X, rows along Y.
        affine: (4, 4), voxel index to RAS millimetres.
        settings: What the image was made with, in words.
        sources: The images of each input series.
    """
    pydicom = require_pydicom()
    low, high = float(image.min()), float(image.max())
    slope, intercept = _scale(low, high)
    stored = np.clip(np.rint((image.astype(np.float64) - intercept) / slope), 0, LEVELS).astype(np.uint16)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = spacing_mm(lps)
    directions = lps[:3, :3] / spacing
    inside = image[image != image.min()] if low < high else image
    dark, bright = (float(value) for value in np.percentile(inside, (1, 99.5)))
    window = max(bright - dark, slope)
    now = datetime.now()
    uid, study, frame_of_reference = (pydicom.uid.generate_uid() for _ in range(3))
    text = f"{STATEMENT} {settings}".strip().encode("ascii", "replace").decode()[:1024]
    datasets = []
    for k in range(image.shape[2]):
        dataset = marks(now)
        for name, value in NOBODY.items():
            setattr(dataset, name, value)
        dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = study, frame_of_reference
        dataset.SOPInstanceUID, dataset.SOPClassUID = pydicom.uid.generate_uid(), pydicom.uid.MRImageStorage
        dataset.SeriesInstanceUID, dataset.SeriesNumber, dataset.InstanceNumber = uid, SERIES_NUMBER, k + 1
        dataset.SeriesDescription = DESCRIPTION
        dataset.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
        dataset.ScanningSequence, dataset.SequenceVariant = "RM", "NONE"  # research mode: nothing was acquired
        for name in ("ScanOptions", "MRAcquisitionType", "EchoTime", "EchoTrainLength", "RepetitionTime"):
            setattr(dataset, name, None)  # type 2: present, and empty
        place = (lps @ [0, 0, k, 1])[:3]
        dataset.ImagePositionPatient = [decimal(value) for value in place]
        dataset.ImageOrientationPatient = [decimal(value) for value in directions[:, :2].T.ravel()]
        dataset.PixelSpacing = [decimal(spacing[1]), decimal(spacing[0])]
        dataset.SliceThickness = dataset.SpacingBetweenSlices = decimal(spacing[2])
        pixels = np.ascontiguousarray(stored[:, :, k].T)
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
        dataset.PixelData = pixels.astype("<u2").tobytes()
        if (slope, intercept) != (1.0, 0.0):
            dataset.RescaleSlope, dataset.RescaleIntercept = decimal(slope), decimal(intercept)
            dataset.RescaleType = "US"
        dataset.WindowCenter, dataset.WindowWidth = decimal((dark + bright) / 2), decimal(window)
        if window < NARROW:
            dataset.VOILUTFunction = "LINEAR_EXACT"
        dataset.DerivationDescription = text
        references = [_reference(frame) for frames in sources for frame in _made_from(frames, place, directions)]
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
    return float(decimal((high - low) / LEVELS or 1.0)), float(decimal(low))


def _made_from(frames: Sequence[Frame], place: np.ndarray, directions: np.ndarray) -> list[Frame]:
    """The images of an input that a slice was made from; only such that have a name."""
    named = [frame for frame in frames if frame.uid and frame.sop_class]
    if not named:
        return []
    normal = np.cross(named[0].orientation[:3], named[0].orientation[3:])
    if abs(float(normal @ np.cross(directions[:, 0], directions[:, 1]))) < PARALLEL:
        return named
    return [min(named, key=lambda frame: abs(float(normal @ (frame.position - place))))]


def _reference(frame: Frame) -> Any:
    reference = require_pydicom().Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = frame.sop_class, frame.uid
    if frame.index is not None:
        reference.ReferencedFrameNumber = frame.index + 1
    reference.PurposeOfReferenceCodeSequence = [code("121322", "Source image for image processing operation")]
    return reference


def require_highdicom() -> Any:
    """The package highdicom.

    Raises:
        D3MError: it is not installed.
    """
    try:
        import highdicom
    except ImportError as error:
        raise D3MError(
            "DICOM segmentations cannot be written: the package highdicom is not installed.",
            'Install it with "pip install highdicom" (3D Slicer has it from 5.12 on), or do without DICOM.',
            "machine",
        ) from error
    return highdicom


def segmentation(datasets: Sequence[Any], mask: Mask, origin: str = "predicted") -> Any:
    """A binary DICOM SEG over the synthetic series, by highdicom.

    Args:
        datasets: From `slices`.
        mask: (X, Y, Z), not empty.
        origin: Where the mask comes from, of `ours.MASKS`: by whom it is said to be made (PS3.3, C.8.20.2: calculated,
            calculated with a user's help, entered by a user).
    """
    highdicom = require_highdicom()
    from pydicom.sr.codedict import codes

    identification = highdicom.AlgorithmIdentificationSequence(
        name="D3M", version=d3m.__version__, family=codes.DCM.ArtificialIntelligence
    )
    description = highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label=f"Enhancing tumour ({origin})",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues[ALGORITHM_TYPES[origin]],
        algorithm_identification=None if origin == "given" else identification,
        tracking_uid=highdicom.UID(),
        tracking_id=f"{origin} enhancing tumour",
    )
    dataset = highdicom.seg.Segmentation(
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
        content_description=MADE[origin],
        series_description=segmentation_description(origin),
    )
    dataset.add_new(SYNTHETIC_DATA, "CS", "YES")
    dataset.ContentQualification = "RESEARCH"
    return dataset
