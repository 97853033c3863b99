"""Tags that the DICOM outputs share: whose they are, and the marks that say what they are.

Patient and study are copied from T1's header byte for byte, whatever a scanner or an anonymiser wrote there: nothing
is parsed, so nothing can be refused, changed or shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import d3m
from d3m.errors import Notice
from d3m.volumes.io.dicom.headers import is_utf8, require_pydicom

PRODUCT, MODEL_NAME = "D3M for 3D Slicer", "D3M"
SYNTHETIC_DATA = 0x0008001C
"""Synthetic Data (DICOM PS3.3, SOP Common): YES if the content was made artificially."""
NOBODY = {
    "PatientName": "SYNTHETIC^D3M", "PatientID": "SYNTHETIC", "PatientBirthDate": "", "PatientSex": "",
    "StudyDate": "", "StudyTime": "", "StudyID": "", "AccessionNumber": "", "ReferringPhysicianName": "",
}  # fmt: skip
"""Type 1 and 2 attributes of patient and study, and what they are without a DICOM source."""
OF_PATIENT_AND_STUDY = (
    *NOBODY, "SpecificCharacterSet", "StudyInstanceUID", "FrameOfReferenceUID", "IssuerOfPatientID", "PatientAge",
    "PatientWeight", "PatientIdentityRemoved", "DeidentificationMethod", "StudyDescription",
)  # fmt: skip
"""Copied from T1's header, if it has them."""
OF_THE_IMAGE = ("PatientPosition", "PositionReferenceIndicator")
"""Copied, too, and left empty where T1 has none: they belong to the frame of reference."""
LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")


@dataclass(frozen=True)
class Identity:
    """Whose image it is."""

    subject: Any
    """Dataset: patient, study and frame of reference, as T1's header has them."""
    position: Any
    """Dataset: what images have besides, but not the segmentation."""


def identity(header: Any | None, same_place: bool, notices: list[Notice]) -> Identity:
    """Patient, study and frame of reference of T1's header.

    Args:
        header: T1's, without pixels; None: a study of its own, nobody's.
        same_place: Whether the image lies on T1's grid; if not, it gets a frame of reference of its own.
        notices: What was unusual is added.
    """
    pydicom = require_pydicom()
    subject, position = pydicom.Dataset(), pydicom.Dataset()
    for name, default in NOBODY.items():
        setattr(subject, name, default if header is None else "")
    for name in OF_THE_IMAGE:
        setattr(position, name, "")
    for element in _copied(header, OF_PATIENT_AND_STUDY):
        subject[element.tag] = element
    for element in _copied(header if same_place else None, OF_THE_IMAGE):
        position[element.tag] = element
    if header is None or ("SpecificCharacterSet" not in subject and _says_utf8(header)):
        subject.SpecificCharacterSet = "ISO_IR 192"
    if "StudyInstanceUID" not in subject:
        subject.StudyInstanceUID = pydicom.uid.generate_uid()
        if header is not None:
            text = "T1's DICOM series has no study UID: the synthetic series got a study of its own."
            notices.append(Notice("dicom-no-study", text, "t1"))
    if "FrameOfReferenceUID" not in subject or not same_place:
        has_one = "FrameOfReferenceUID" in subject
        subject.FrameOfReferenceUID = pydicom.uid.generate_uid()
        if header is not None and not has_one:
            text = "T1's DICOM series has no frame of reference: the synthetic series got one of its own."
            notices.append(Notice("dicom-no-frame", text, "t1"))
        elif header is not None:
            text = "The image does not lie on the grid of T1's DICOM series: it got a frame of reference of its own."
            notices.append(Notice("dicom-other-grid", text, "t1"))
    return Identity(subject, position)


def _copied(header: Any | None, names: Sequence[str]) -> Iterator[Any]:
    """Elements of a header with their bytes as they are; those without a value are left out."""
    pydicom = require_pydicom()
    if header is None:
        return
    for name in names:
        tag = pydicom.datadict.tag_for_keyword(name)
        if tag not in header:
            continue
        element = header.get_item(tag)
        if isinstance(element, pydicom.dataelem.RawDataElement):
            vr = pydicom.datadict.dictionary_VR(tag)
            element = element._replace(VR=vr, is_implicit_VR=False, is_little_endian=True)
            filled = bool((element.value or b"").strip(b" \0"))
        else:
            filled = not element.is_empty
        if filled:
            yield element


def read_header(path: Path) -> Any:
    """A DICOM file's header, also of one without a preamble; only what is copied from it."""
    tags = [*OF_PATIENT_AND_STUDY, *OF_THE_IMAGE, *LOSSY]
    return require_pydicom().dcmread(path, stop_before_pixels=True, specific_tags=tags, force=True)


def _says_utf8(header: Any) -> bool:
    """Whether the texts that are copied are UTF-8, although the header names no character set."""
    values = [header.get_item(tag).value for tag in list(header.keys())]
    texts = b" ".join(value for value in values if isinstance(value, bytes))
    return not texts.isascii() and is_utf8(texts)


def lossy(headers: Sequence[Any]) -> Any:
    """What says that an input was compressed with losses: so is all that is made from it (PS3.3, C.7.6.1.1.5)."""
    pydicom = require_pydicom()
    dataset = pydicom.Dataset()
    for header in headers:
        if str(header.get(LOSSY[0]) or "") == "01":
            for element in _copied(header, LOSSY):
                dataset[element.tag] = element
            break
    return dataset


def marks(now: datetime) -> Any:
    """Dataset of what every image says: synthetic, for research, made by this software, now."""
    dataset = require_pydicom().Dataset()
    dataset.Modality, dataset.BodyPartExamined = "MR", "BRAIN"
    dataset.Manufacturer, dataset.ManufacturerModelName = PRODUCT, MODEL_NAME
    dataset.SoftwareVersions = d3m.__version__
    date, time = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    dataset.InstanceCreationDate = dataset.SeriesDate = dataset.ContentDate = date
    dataset.InstanceCreationTime = dataset.SeriesTime = dataset.ContentTime = time
    dataset.add_new(SYNTHETIC_DATA, "CS", "YES")
    dataset.BurnedInAnnotation, dataset.ContentQualification = "NO", "RESEARCH"
    dataset.ImageComments = "SYNTHETIC, research use only"
    equipment = require_pydicom().Dataset()
    equipment.PurposeOfReferenceCodeSequence = [code("109102", "Processing Equipment")]
    equipment.Manufacturer, equipment.ManufacturerModelName = PRODUCT, MODEL_NAME
    equipment.SoftwareVersions = d3m.__version__
    equipment.ContributionDescription = "Synthesis by a diffusion model"
    dataset.ContributingEquipmentSequence = [equipment]
    return dataset


def code(value: str, meaning: str) -> Any:
    """A code of DICOM's own vocabulary."""
    dataset = require_pydicom().Dataset()
    dataset.CodeValue, dataset.CodingSchemeDesignator, dataset.CodeMeaning = value, "DCM", meaning
    return dataset


def decimal(value: float) -> str:
    """A decimal string (VR DS): at most sixteen characters."""
    text = f"{float(value):.10g}"
    return text if len(text) <= 16 else f"{float(value):.8e}"
