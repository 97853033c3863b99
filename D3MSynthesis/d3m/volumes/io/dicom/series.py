"""What DICOM images say about themselves: frames with their places, grouped into series. No pixels, no folders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d3m.errors import Notice
from d3m.system.text import plain
from d3m.volumes.io.dicom.identifiers import without_identifiers

MAX_FRAMES = 20_000
NO_AGENT = ("", "no", "none", "n", "na", "n/a", "nil", "0", "-", "without", "no contrast", "ohne", "unknown",
            "kein", "keine", "keins", "nein", "nativ", "native", "non", "aucun", "sans", "sin", "ninguno", "nessuno",
            "senza", "geen", "ingen", "brak", "false", "nicht gegeben", "not given", "w/o", "pre")  # fmt: skip
"""What stands for the contrast agent where there was none."""
MAX_WORDS, MAX_DESCRIPTION = 1000, 64
DERIVED_KINDS = ("DERIVED", "SECONDARY", "LOCALIZER", "MPR", "PROJECTION", "REFORMATTED", "MIP", "MNIP", "MIN IP",
                 "MAX_IP", "SUBTRACT", "MOSAIC")  # fmt: skip
"""Values of Image Type, or their starts, that no acquired scan has."""


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
    """What further tells stacks of one series apart: kind of image (M, P, ...), b-value, temporal position."""
    transfer_syntax: str


@dataclass(frozen=True)
class Series:
    """One series of a folder."""

    uid: str
    study_uid: str
    patient: str = field(repr=False)
    """Only to compare; never shown or stored."""
    number: int | None
    description: str
    """To be shown: it names nobody."""
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
    damaged: int = 0
    """DICOM files in the same folder that cannot be read."""
    broken: int = 0
    """Files in the folders of its images that are links to nothing."""
    notices: tuple[Notice, ...] = ()
    """Why it was chosen."""
    words: str = field(default="", repr=False)
    """What it calls itself; only to choose by, never shown or stored."""

    @property
    def derived(self) -> bool:
        """Whether it was computed from other images, or is a localiser or screen shot."""
        return any(part.upper().startswith(DERIVED_KINDS) for part in self.image_type)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files, each once."""
        return tuple(dict.fromkeys(frame.path for frame in self.frames))

    def line(self) -> str:
        """A line for a person: number, description, count, kind. No patient, no path."""
        kind = "DERIVED" if self.derived else "ORIGINAL"
        kind += ", contrast agent" if self.contrast_agent else ""
        kind += f", {self.modality}" if self.modality not in ("MR", "") else ""
        number = "?" if self.number is None else self.number
        return f"series {number} ({self.description or 'no description'}; {len(self.frames)} images, {kind})"


def transfer_syntax(dataset: Any) -> str:
    """Its UID; where a file does not say, what its elements were read as."""
    uid = str(dataset.file_meta.get("TransferSyntaxUID") or "") if hasattr(dataset, "file_meta") else ""
    implicit = bool(dataset.original_encoding[0])
    return uid or ("1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1")


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


def _texts(value: Any) -> tuple[str, ...]:
    """The values of a text element, one or many."""
    if value is None or isinstance(value, str):
        return (value,) if value else ()
    return tuple(str(part) for part in value) if isinstance(value, Iterable) else (str(value),)


def _words(header: Any) -> str:
    """What the series calls itself."""
    return " ".join(str(header.get("SeriesDescription") or header.get("ProtocolName") or "")[:MAX_WORDS].split())


def _agent(header: Any) -> bool:
    """Whether a header names a contrast agent; enhanced images have a sequence for it."""
    given = header.get("ContrastBolusAgentSequence")
    if given is not None and len(given) > 0:
        return True
    if any((_number(header.get(name)) or 0) > 0 for name in ("ContrastBolusVolume", "ContrastBolusTotalDose")):
        return True
    named = (*_texts(header.get("ContrastBolusAgent")), *_texts(header.get("ContrastBolusIngredient")))
    return any(text.strip().lower() not in NO_AGENT for text in named)


def series_of(
    uid: str, images: list[tuple[Path, Any, list[Frame | None]]], damaged: int, broken: Mapping[Path, int]
) -> Series:
    first = images[0][1]
    found = [frame for _, _, frames in images for frame in frames]
    frames = [frame for frame in found if frame is not None]
    number, samples = _number(first.get("SeriesNumber")), _number(first.get("SamplesPerPixel"))
    groups = _group(first.get("SharedFunctionalGroupsSequence"))
    timing, modifier = _inner(groups, "MRTimingAndRelatedParametersSequence"), _inner(groups, "MRModifierSequence")
    repetition = first.get("RepetitionTime", timing.get("RepetitionTime") if timing is not None else None)
    inversion = first.get("InversionTime", modifier.get("InversionTimes") if modifier is not None else None)
    return Series(
        uid,
        str(first.get("StudyInstanceUID", "")),
        str(first.get("PatientID", "")),
        None if number is None else int(number),
        plain(without_identifiers(_words(first), [first]))[:MAX_DESCRIPTION],
        _texts(first.get("ImageType")),
        plain(without_identifiers(str(first.get("Modality") or ""), [first])).upper()[:16],
        _number(repetition),
        _number(inversion),
        next((frame.echo_time for frame in frames if frame.echo_time is not None), None),
        any(_agent(header) for _, header, _ in images),
        1 if samples is None else int(samples),
        str(first.get("PhotometricInterpretation") or "MONOCHROME2"),
        tuple(frames),
        len(found) - len(frames),
        damaged,
        sum(broken.get(folder, 0) for folder in {path.parent for path, _, _ in images}),
        words=_words(first),
    )


def _group(sequence: Any) -> Any:
    return sequence[0] if sequence is not None and len(sequence) else None


def _inner(group: Any, name: str) -> Any:
    return None if group is None else _group(group.get(name))


def frames_of(path: Path, header: Any) -> list[Frame | None]:
    syntax = transfer_syntax(header)
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    if per_frame is None:
        kind = (_part(_texts(header.get("ImageType"))), *(_text(header, name) for name in KINDS))
        return [_frame(path, None, header, header, header, header, header, header, kind, syntax)]
    if len(per_frame) > MAX_FRAMES:
        raise ValueError("more frames than any scan has")
    shared = _group(header.get("SharedFunctionalGroupsSequence"))
    frames: list[Frame | None] = []
    for index, own in enumerate(per_frame):
        orientation, position, measures, transformation, echo, content, diffusion, type_ = (
            _inner(own, name) or _inner(shared, name)
            for name in (
                "PlaneOrientationSequence", "PlanePositionSequence", "PixelMeasuresSequence",
                "PixelValueTransformationSequence", "MREchoSequence", "FrameContentSequence", "MRDiffusionSequence",
                "MRImageFrameTypeSequence",
            )
        )  # fmt: skip
        kind = (
            _text(type_, "ComplexImageComponent")[:1],
            _text(diffusion, "DiffusionBValue"),
            _text(content, "TemporalPositionIndex"),
        )
        frames.append(_frame(path, index, header, orientation, position, measures, transformation, echo, kind, syntax))
    return frames


KINDS = ("DiffusionBValue", "TemporalPositionIdentifier")


def _part(image_type: Sequence[str]) -> str:
    """Magnitude, phase, real or imaginary part, by its letter; empty if it is not said."""
    return next((kind.upper()[:1] for kind in image_type[2:] if kind.upper() in PARTS), "")


PARTS = ("M", "P", "R", "I", "MAGNITUDE", "PHASE", "REAL", "IMAGINARY")


def _text(group: Any, name: str) -> str:
    value = None if group is None else group.get(name)
    return "" if value is None else str(value)


def _frame(
    path: Path,
    index: int | None,
    header: Any,
    orientation: Any,
    position: Any,
    measures: Any,
    transformation: Any,
    echo: Any,
    kind: tuple[str, ...],
    syntax: str,
) -> Frame | None:
    def of(part: Any, name: str) -> Any:
        return None if part is None else part.get(name)

    spacing = _numbers(of(measures, "PixelSpacing"), 2)
    slope, intercept = _number(of(transformation, "RescaleSlope")), _number(of(transformation, "RescaleIntercept"))
    time = of(echo, "EffectiveEchoTime") if index is not None else of(echo, "EchoTime")
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
        kind,
        syntax,
    )
