"""DICOM series into Volumes, and which series of a study is which scan.

Slices are ordered by their place along the normal of their plane, never by number or name. What is left out or
chosen is said in a notice; what cannot be known (two different images at one place, a missing slice) is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from d3m.errors import D3MError, Notice
from d3m.volumes.descriptions import contrast_of
from d3m.volumes.dicom_headers import Frame, Series, find_series, require_pydicom
from d3m.volumes.files import check_size, label
from d3m.volumes.types import CONTRASTS, Affine, Floats, Volume

SAME_PLANE = 0.02
"""Largest difference of direction cosines within a stack: headers are rounded to three digits."""
SAME_PLACE = 0.1
"""Share of the slice spacing below which two images lie at one place."""
GAP = 1.5
"""Share of the slice spacing above which a slice is missing."""
UNEVEN = 0.1
"""Largest unevenness of the spacing that rounding may explain."""
MIN_SLICES = 8
"""A series with fewer is a localiser or a sample, not a scan of a brain."""
PACKAGES = {
    "1.2.840.10008.1.2.4.50": ("JPEG", "python-gdcm"),
    "1.2.840.10008.1.2.4.51": ("JPEG", "python-gdcm"),
    "1.2.840.10008.1.2.4.57": ("JPEG Lossless", "python-gdcm"),
    "1.2.840.10008.1.2.4.70": ("JPEG Lossless", "python-gdcm"),
    "1.2.840.10008.1.2.4.80": ("JPEG-LS", "pyjpegls"),
    "1.2.840.10008.1.2.4.81": ("JPEG-LS", "pyjpegls"),
    "1.2.840.10008.1.2.4.90": ("JPEG 2000", "pylibjpeg pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.91": ("JPEG 2000", "pylibjpeg pylibjpeg-openjpeg"),
}
"""Compressed transfer syntaxes (DICOM PS3.5) and packages, free of the GPL, that decode them."""


@dataclass(frozen=True)
class Choice:
    """The series of a study that serve as inputs."""

    t1: Series
    t2: Series
    flair: Series
    notices: tuple[Notice, ...] = ()


def choose_series(study: Path) -> Choice:
    """Choose T1 before contrast, T2 and FLAIR among a study's series.

    By description, and where that says nothing by echo, repetition and inversion time. Derived images, localisers and
    series with a contrast agent are never chosen.

    Args:
        study: A folder, with folders inside it or not.

    Raises:
        D3MError: no series fits one of the three (all are listed), or the folder holds several patients or studies.
    """
    found = find_series(study)
    if len({(one.patient, one.study_uid) for one in found}) > 1:
        raise D3MError(
            "The folder holds more than one patient or study.", "Give the folder of one study (--dicom), or one "
            "folder for each scan (--t1, --t2, --flair).",
        )  # fmt: skip
    chosen, notices = {}, []
    for contrast in CONTRASTS:
        fitting = [one for one in found if _usable(one) and _kind(one) == contrast]
        if not fitting:
            raise _none_fits(contrast, found)
        # the thinnest slices make the most images; of equals the first that was acquired
        best = min(fitting, key=lambda one: (-len(one.frames), one.number is None, one.number or 0))
        chosen[contrast] = best
        text = f"{label(contrast)} is {best.line()}"
        if len(fitting) > 1:
            others = "; ".join(one.line() for one in fitting if one is not best)
            text += f", chosen for its number of images; also possible: {others}"
        notices.append(Notice("dicom-choice", text + ".", contrast))
    return Choice(chosen["t1"], chosen["t2"], chosen["flair"], tuple(notices))


def _usable(series: Series) -> bool:
    return not series.derived and len(series.frames) >= MIN_SLICES and series.modality in ("MR", "")


def _kind(series: Series) -> str | None:
    """By description; by times where it says nothing. Echo and repetition times of usual protocols, milliseconds."""
    kind = contrast_of(series.description)
    if kind is None and not _says_something(series.description):
        te, tr, ti = series.echo_time, series.repetition_time, series.inversion_time
        if te is not None and tr is not None:
            if ti is not None and ti > 1500 and te > 60:
                kind = "flair"
            elif te > 60 and tr > 2000:
                kind = "t2"
            elif te < 30 and tr < 3000:
                kind = "t1"
    return "t1c" if kind == "t1" and series.contrast_agent else kind


def _says_something(description: str) -> bool:
    """Whether a description has a word, rather than only a plane or a number."""
    words = [word for word in description.lower().replace("_", " ").split() if word.isalpha()]
    return any(word not in ("ax", "axial", "tra", "sag", "cor", "brain", "head", "series") for word in words)


def _none_fits(contrast: str, found: Sequence[Series]) -> D3MError:
    listed = "; ".join(one.line() for one in found[:30])
    return D3MError(
        f"No series of this study is a {label(contrast)} that can be used. Found: {listed}.",
        f"Give the folder of each scan yourself: --t1, --t2, --flair (here: --{contrast}).",
    )


def read_series(source: Path | Series, contrast: str) -> Volume:
    """Read one series.

    Args:
        source: A folder, one of its files, or a series from `choose_series`. Of a folder with several series the one
            whose description says that it is `contrast` is taken, and said.
        contrast: "t1", "t2", "flair", ...: what messages call it.

    Returns:
        (X, Y, Z) with columns along X and rows along Y, RAS millimetres, rescaled values as float32.

    Raises:
        D3MError: whatever keeps the series from being one scan, with the way to mend it.
    """
    notices: list[Notice] = []
    series = (
        source if isinstance(source, Series) else _only(find_series(Path(source), label(contrast)), contrast, notices)
    )
    _check_kind(series, contrast)
    frames, left_out = _one_stack(series, contrast)
    notices += left_out
    _check_decoder(frames, contrast)
    rows, columns = frames[0].shape
    check_size((columns, rows, len(frames)), 2, sum(path.stat().st_size for path in series.files), True, contrast)
    frames = _ordered(frames)
    images = _decode(frames, contrast)
    frames, images, doubled = _without_duplicates(frames, images, contrast)
    if doubled:
        notices.append(
            Notice("dicom-duplicates", f"{doubled} duplicate images of {label(contrast)} ignored.", contrast)
        )
    affine = _affine(frames, contrast)
    if contrast == "t1" and series.contrast_agent:
        text = "The DICOM header of T1 names a contrast agent: it may already show what is to be predicted."
        notices.append(Notice("t1-contrast-agent", text, "t1"))
    data = np.ascontiguousarray(np.stack(images, axis=2))
    return Volume(data, affine, _hash(data, affine), notices=tuple(notices))


def _only(found: Sequence[Series], contrast: str, notices: list[Notice]) -> Series:
    if len(found) == 1:
        return found[0]
    fitting = [one for one in found if _usable(one) and _kind(one) == contrast]
    if len(fitting) != 1:
        listed = "; ".join(one.line() for one in found[:30])
        raise D3MError(
            f"The folder given as {label(contrast)} holds {len(found)} series: {listed}.",
            f"Put the series you mean into a folder of its own, or give one of its files as --{contrast}.",
        )
    notices.append(Notice("dicom-choice", f"{label(contrast)} is {fitting[0].line()}.", contrast))
    return fitting[0]


def _check_kind(series: Series, contrast: str) -> None:
    name = label(contrast)
    if any(part.upper() == "MOSAIC" for part in series.image_type):
        raise D3MError(f"{name} is a mosaic of slices in one image.", "Convert the series to NIfTI with dcm2niix.")
    if series.samples != 1 or series.photometric not in ("MONOCHROME2", "MONOCHROME1"):
        raise D3MError(f"{name} is a colour image, not a scan.", "Give the acquired series, not a screen shot.")
    if series.photometric == "MONOCHROME1":
        raise D3MError(f"{name} has inverted greys (MONOCHROME1).", "Convert the series to NIfTI with dcm2niix.")
    if not series.frames or series.unplaced > len(series.frames) / 4:
        raise D3MError(
            f"Images of {name} lack position, orientation or pixel spacing.",
            "Export the original series from the archive; screen shots and scanned films have no geometry.",
        )


def _key(frame: Frame) -> tuple[Any, ...]:
    """What images of one stack have in common, orientation and echo apart."""
    return frame.shape, frame.extra


def _one_stack(series: Series, contrast: str) -> tuple[list[Frame], list[Notice]]:
    """The images that make up the scan: the largest group of one orientation and size; then one echo."""
    name, groups = label(contrast), list[list[Frame]]()
    for frame in series.frames:
        for group in groups:
            near = np.abs(frame.orientation - group[0].orientation).max() <= SAME_PLANE
            if near and _key(frame) == _key(group[0]):
                group.append(frame)
                break
        else:
            groups.append([frame])
    groups.sort(key=len, reverse=True)
    frames, others = groups[0], groups[1:]
    notices = []
    rest = sum(len(group) for group in others) + series.unplaced
    if others and len(others[0]) > len(frames) / 4:
        raise D3MError(
            f"{name} holds several stacks of images ({', '.join(str(len(group)) for group in groups[:6])} images of "
            "different plane, size, phase or time).",
            "Give a series with one stack: a localiser, a dynamic or a diffusion series is not a scan of this kind.",
        )
    if rest:
        text = f"{rest} image{'s' if rest > 1 else ''} of another orientation, size or kind in {name} left out."
        notices.append(Notice("dicom-left-out", text, contrast))
    echoes = sorted({frame.echo_time for frame in frames if frame.echo_time is not None})
    if len(echoes) > 1 and len(frames) % len(echoes) == 0 and _interleaved(frames, len(echoes)):
        kept = echoes[-1] if contrast == "t2" else echoes[0]
        frames = [frame for frame in frames if frame.echo_time == kept]
        text = f"{name} has {len(echoes)} echoes; the one at {kept:g} ms is used."
        notices.append(Notice("dicom-echo", text, contrast))
    if len(frames) < 2:
        raise D3MError(f"{name} is a single slice; a volume is needed.", "Give the folder of the whole series.")
    return frames, notices


def _interleaved(frames: Sequence[Frame], echoes: int) -> bool:
    """Whether every place has one image of each echo."""
    counts: dict[tuple[float, ...], int] = {}
    for frame in frames:
        place = tuple(np.round(frame.position, 2))
        counts[place] = counts.get(place, 0) + 1
    return set(counts.values()) == {echoes}


def _check_decoder(frames: Sequence[Frame], contrast: str) -> None:
    """Before any work: can these pixels be unpacked here?"""
    pydicom = require_pydicom()
    for syntax in {frame.transfer_syntax for frame in frames}:
        uid = pydicom.uid.UID(syntax)
        if not uid.is_encapsulated:
            continue
        try:
            available = pydicom.pixels.get_decoder(uid).is_available
        except NotImplementedError:
            available = False
        if not available:
            kind, package = PACKAGES.get(syntax, (uid.name, ""))
            mend = f"Install it with: pip install {package}" if package else "Convert the series to NIfTI with dcm2niix"
            raise D3MError(f"{label(contrast)} is compressed ({kind}), and no decoder for it is installed.", f"{mend}.",
                           "machine")  # fmt: skip


def _normal(frames: Sequence[Frame]) -> np.ndarray:
    directions = np.mean([frame.orientation for frame in frames], axis=0)
    normal: np.ndarray = np.cross(directions[:3], directions[3:])
    length = float(np.linalg.norm(normal))
    if not 0.5 < length < 2:
        raise D3MError("The directions in a DICOM header make no plane.", "Export the series from the archive again.")
    return normal / length


def sorted_frames(series: Series) -> list[Frame]:
    """The images of a series in the order of their places, from the foot of the normal on; no checks."""
    return _ordered(list(series.frames))


def _ordered(frames: list[Frame]) -> list[Frame]:
    normal = _normal(frames)
    return sorted(frames, key=lambda frame: (float(normal @ frame.position), frame.uid))


def _decode(frames: Sequence[Frame], contrast: str) -> list[Floats]:
    """(columns, rows) of every frame, rescaled; each file is read once."""
    pydicom = require_pydicom()
    wanted: dict[Path, list[int]] = {}
    for number, frame in enumerate(frames):
        wanted.setdefault(frame.path, []).append(number)
    images: dict[int, Floats] = {}
    for path, numbers in wanted.items():
        try:
            pixels = pydicom.dcmread(path).pixel_array
        except MemoryError as error:
            raise D3MError(f"There is not enough memory to read {label(contrast)}.", "Close other programs.",
                           "machine") from error  # fmt: skip
        except Exception as error:  # decoders and damaged files raise what they like
            raise D3MError(
                f"An image of {label(contrast)} cannot be unpacked ({type(error).__name__}).",
                "Export the series from the archive again.",
            ) from error
        for number in numbers:
            frame = frames[number]
            image = pixels if frame.index is None else pixels[frame.index] if pixels.ndim == 3 else pixels
            if image.shape != frame.shape:
                raise D3MError(f"An image of {label(contrast)} is damaged.", "Export the series again.")
            images[number] = (image.astype(np.float32) * np.float32(frame.slope) + np.float32(frame.intercept)).T
    return [images[number] for number in range(len(frames))]


def _without_duplicates(
    frames: list[Frame], images: list[Floats], contrast: str
) -> tuple[list[Frame], list[Floats], int]:
    """Each place once. Two different images at one place are not a scan: which one is right cannot be known."""
    normal = _normal(frames)
    places = np.array([normal @ frame.position for frame in frames])
    steps = np.diff(places)
    real = steps[steps > 0.05]
    limit = SAME_PLACE * float(np.median(real)) if len(real) else 0.05
    kept = [0]
    for number in range(1, len(frames)):
        if places[number] - places[kept[-1]] > limit:
            kept.append(number)
        elif not np.array_equal(images[number], images[kept[-1]]):
            raise D3MError(
                f"{label(contrast)} has two different images at one place.",
                "Export the series again, or give a series with one image for each place (no dynamic series).",
            )
    return [frames[k] for k in kept], [images[k] for k in kept], len(frames) - len(kept)


def _affine(frames: Sequence[Frame], contrast: str) -> Affine:
    """Voxel index (column, row, slice) to RAS millimetres, from all positions at once (DICOM PS3.3, C.7.6.2.1.1)."""
    name = label(contrast)
    if len(frames) < 2:
        raise D3MError(f"{name} is a single slice; a volume is needed.", "Give the folder of the whole series.")
    normal = _normal(frames)
    positions = np.array([frame.position for frame in frames])
    steps = np.diff(positions @ normal)
    spacing = float(np.median(steps))
    missing = int(np.round(steps / spacing).sum()) - len(steps)
    if steps.max() > GAP * spacing:
        raise D3MError(
            f"{name} lacks {missing} slice{'s' if missing > 1 else ''} inside the stack.",
            "Transfer the series from the archive again: it is not complete.",
        )
    if np.abs(steps - spacing).max() > UNEVEN * spacing:
        raise D3MError(
            f"The slices of {name} are unevenly spaced ({steps.min():.2f} to {steps.max():.2f} mm).",
            "Convert the series to NIfTI with dcm2niix, which can resample such stacks.",
        )
    row, column = np.mean([frame.orientation for frame in frames], axis=0).reshape(2, 3)
    row, column = row / np.linalg.norm(row), column / np.linalg.norm(column)
    between_rows, between_columns = np.mean([frame.spacing for frame in frames], axis=0)
    index = np.arange(len(frames)) - (len(frames) - 1) / 2
    step = index @ (positions - positions.mean(axis=0)) / (index @ index)  # least squares: headers are rounded
    if abs(float(step @ normal)) > 0.9999 * float(np.linalg.norm(step)):
        step = normal * float(step @ normal)  # sideways rounding is not a shear
    lps: Affine = np.eye(4)
    lps[:3, 0], lps[:3, 1], lps[:3, 2] = row * between_columns, column * between_rows, step
    lps[:3, 3] = positions.mean(axis=0) - step * (len(frames) - 1) / 2
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def _hash(data: Floats, affine: Affine) -> str:
    """As for other files: of values and geometry."""
    digest = hashlib.sha256(repr(data.shape).encode())
    digest.update(np.ascontiguousarray(data.T).data)
    digest.update(np.round(affine, 5).tobytes())
    return digest.hexdigest()


def with_notices(volume: Volume, notices: Sequence[Notice]) -> Volume:
    """The volume with further notices before its own."""
    return replace(volume, notices=(*notices, *volume.notices))
