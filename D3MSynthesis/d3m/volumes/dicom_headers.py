"""DICOM files as frames: what each image says about itself, read without its pixels. pydicom is imported here only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d3m.errors import D3MError

MAX_FILES = 50_000
"""Files looked at in a folder; a study of a head has some thousands."""
MAX_FRAMES = 20_000
ENHANCED = ("1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4")
"""SOP classes Enhanced MR Image Storage and Legacy Converted Enhanced MR Image Storage (DICOM PS3.4, B.5)."""
TAGS = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription",
    "ProtocolName", "Modality", "ImageType", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation",
    "BitsAllocated", "NumberOfFrames", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient",
    "SpacingBetweenSlices", "EchoTime", "EchoNumbers", "RepetitionTime", "InversionTime", "ContrastBolusAgent",
    "DiffusionBValue", "TemporalPositionIdentifier", "RescaleSlope", "RescaleIntercept", "FrameOfReferenceUID",
    "PatientID", "InstanceNumber", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
"""What is read of a header. The patient's identifier serves to refuse folders of two patients and goes nowhere."""


def require_pydicom() -> Any:
    """The package pydicom.

    Raises:
        D3MError: it is not installed.
    """
    try:
        import pydicom
    except ImportError as error:
        raise D3MError(
            "DICOM files cannot be read: the package pydicom is not installed.",
            'Install it with "pip install pydicom", or convert the series to NIfTI with dcm2niix.',
            "machine",
        ) from error
    return pydicom


def is_dicom(path: Path) -> bool:
    """Whether this is a folder, or a DICOM file by its content."""
    try:
        if path.is_dir():
            return True
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except (OSError, ValueError):
        return False  # what cannot be opened is reported by the reader of files


@dataclass(frozen=True)
class Frame:
    """One image of a series."""

    path: Path
    index: int | None
    """Number of the frame in a multi-frame file, from 0; None in a file of one image."""
    uid: str
    """SOP instance UID."""
    sop_class: str
    shape: tuple[int, int]
    """(rows, columns)."""
    orientation: NDArray[np.float64]
    """(6,) direction of a row, then of a column, in LPS."""
    position: NDArray[np.float64]
    """(3,) centre of the first pixel, LPS millimetres."""
    spacing: tuple[float, float]
    """Millimetres between rows, then between columns."""
    slope: float
    intercept: float
    echo_time: float | None
    """Milliseconds."""
    extra: tuple[str, ...]
    """What further tells stacks of one series apart: kind of image (magnitude, phase), b-value, temporal position."""
    transfer_syntax: str


@dataclass(frozen=True)
class Series:
    """One series of a folder."""

    uid: str
    study_uid: str
    patient: str
    """Only to compare; never shown or stored."""
    number: int | None
    description: str
    image_type: tuple[str, ...]
    modality: str
    repetition_time: float | None
    inversion_time: float | None
    echo_time: float | None
    contrast_agent: bool
    samples: int
    photometric: str
    frames: tuple[Frame, ...]
    unplaced: int
    """Images without position, orientation or pixel spacing."""

    @property
    def derived(self) -> bool:
        """Whether it was computed from other images, or is a localiser or screen shot."""
        kinds = {part.upper() for part in self.image_type}
        return bool(kinds & {"DERIVED", "SECONDARY", "LOCALIZER", "MPR", "PROJECTION IMAGE", "SUBTRACTION", "MOSAIC"})

    @property
    def files(self) -> tuple[Path, ...]:
        """The files, each once."""
        return tuple(dict.fromkeys(frame.path for frame in self.frames))

    def line(self) -> str:
        """A line for a person: number, description, count, kind. No patient, no path."""
        kind = "DERIVED" if self.derived else "ORIGINAL"
        number = "?" if self.number is None else self.number
        return f"series {number} ({self.description or 'no description'}; {len(self.frames)} images, {kind})"


def find_series(place: Path, name: str = "The study") -> list[Series]:
    """The series of MR images in a folder and the folders inside it; other files are passed over.

    Links to folders are not followed, so that loops end.

    Args:
        place: A folder, or one DICOM file: then its series among the files beside it.
        name: What messages call it.

    Raises:
        D3MError: nothing there is DICOM; too many files; a folder that cannot be read.
    """
    wanted = None
    if place.is_file():
        head = _read_header(place)
        if head is None:
            raise D3MError(f"{name} is not a DICOM image that can be read: {place}.", "Export the series again.")
        wanted, place = str(head.get("SeriesInstanceUID", "")), place.parent
    found: dict[str, list[tuple[Path, Any]]] = {}
    for path in _files(place):
        header = _read_header(path)
        if header is None or not header.get("Rows") or not header.get("Columns"):
            continue
        uid = str(header.get("SeriesInstanceUID", ""))
        if wanted is None or uid == wanted:
            found.setdefault(uid, []).append((path, header))
    series = [_series(uid, headers) for uid, headers in found.items()]
    if not series:
        raise D3MError(
            f"{name} is a folder without any DICOM image.",
            "Give a NIfTI, NRRD or MetaImage file, or the folder of a DICOM series.",
        )
    return sorted(series, key=lambda one: (one.number is None, one.number or 0, one.uid))


def _files(place: Path) -> Iterator[Path]:
    count = 0

    def refuse(error: OSError) -> None:
        raise D3MError(f"A folder cannot be read ({error.strerror}).", "Check its rights.") from error

    for folder, inner, names in os.walk(place, onerror=refuse, followlinks=False):
        inner.sort()
        for name in sorted(names):
            path = Path(folder) / name
            if path.is_file():
                count += 1
                if count > MAX_FILES:
                    raise D3MError(f"There are more than {MAX_FILES} files in this folder.", "Give one study's folder.")
                yield path


def _read_header(path: Path) -> Any:
    """The header of a DICOM image; None for any other file."""
    pydicom = require_pydicom()
    try:
        with path.open("rb") as file:
            start = file.read(132)
        if start[128:] != b"DICM":
            return None
        # a damaged header may raise anything; such a file is no image of a series
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(TAGS))
        list(header)
    except Exception:
        return None
    return None if "DirectoryRecordSequence" in header else header


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _numbers(value: Any, count: int) -> NDArray[np.float64] | None:
    try:
        numbers = np.array([float(part) for part in value], float)
    except (TypeError, ValueError):
        return None
    return numbers if numbers.shape == (count,) and np.isfinite(numbers).all() else None


def _series(uid: str, headers: list[tuple[Path, Any]]) -> Series:
    first = headers[0][1]
    found = [frame for path, header in headers for frame in _frames(path, header)]
    frames = [frame for frame in found if frame is not None]
    number = _number(first.get("SeriesNumber"))
    texts = [str(first.get(name) or "") for name in ("SeriesDescription", "ProtocolName")]
    groups = _group(first.get("SharedFunctionalGroupsSequence"))
    timing = _inner(groups, "MRTimingAndRelatedParametersSequence")
    repetition = first.get("RepetitionTime", timing.get("RepetitionTime") if timing is not None else None)
    return Series(
        uid,
        str(first.get("StudyInstanceUID", "")),
        str(first.get("PatientID", "")),
        None if number is None else int(number),
        " ".join(texts[0].split()) or " ".join(texts[1].split()),
        tuple(str(part) for part in first.get("ImageType") or ()),
        str(first.get("Modality", "")),
        _number(repetition),
        _number(first.get("InversionTime")),
        next((frame.echo_time for frame in frames if frame.echo_time is not None), None),
        any(str(header.get("ContrastBolusAgent") or "").strip() for _, header in headers),
        int(first.get("SamplesPerPixel") or 1),
        str(first.get("PhotometricInterpretation") or "MONOCHROME2"),
        tuple(frames),
        len(found) - len(frames),
    )


def _group(sequence: Any) -> Any:
    return sequence[0] if sequence is not None and len(sequence) else None


def _inner(group: Any, name: str) -> Any:
    return None if group is None else _group(group.get(name))


def _frames(path: Path, header: Any) -> list[Frame | None]:
    syntax = str(getattr(header.file_meta, "TransferSyntaxUID", ""))
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    if per_frame is None:
        return [_frame(path, None, header, header, header, header, header, header, syntax)]
    if len(per_frame) > MAX_FRAMES:
        return []
    shared = _group(header.get("SharedFunctionalGroupsSequence"))
    frames: list[Frame | None] = []
    for index, own in enumerate(per_frame):
        orientation, position, measures, transformation, echo = (
            _inner(own, name) or _inner(shared, name)
            for name in (
                "PlaneOrientationSequence", "PlanePositionSequence", "PixelMeasuresSequence",
                "PixelValueTransformationSequence", "MREchoSequence",
            )
        )  # fmt: skip
        frames.append(_frame(path, index, header, orientation, position, measures, transformation, echo, syntax))
    return frames


def _frame(
    path: Path,
    index: int | None,
    header: Any,
    orientation: Any,
    position: Any,
    measures: Any,
    transformation: Any,
    echo: Any,
    syntax: str,
) -> Frame | None:
    def of(part: Any, name: str) -> Any:
        return None if part is None else part.get(name)

    spacing = _numbers(of(measures, "PixelSpacing"), 2)
    slope, intercept = _number(of(transformation, "RescaleSlope")), _number(of(transformation, "RescaleIntercept"))
    time = of(echo, "EffectiveEchoTime") if index is not None else of(echo, "EchoTime")
    kinds = [str(part).upper() for part in header.get("ImageType") or ()]
    part = next((kind for kind in kinds[2:] if kind in ("M", "P", "R", "I", "MAGNITUDE", "PHASE", "REAL")), "")
    extra = [str(header.get(name) or "") for name in ("DiffusionBValue", "TemporalPositionIdentifier")]
    directions, place = of(orientation, "ImageOrientationPatient"), of(position, "ImagePositionPatient")
    cosines, corner = _numbers(directions, 6), _numbers(place, 3)
    if cosines is None or corner is None or spacing is None or (spacing <= 0).any():
        return None
    return Frame(
        path,
        index,
        str(header.get("SOPInstanceUID", "")),
        str(header.get("SOPClassUID", "")),
        (int(header.Rows), int(header.Columns)),
        cosines,
        corner,
        (float(spacing[0]), float(spacing[1])),
        1.0 if slope is None else slope,
        0.0 if intercept is None else intercept,
        _number(time),
        (part, *extra),
        syntax,
    )
