"""DICOM series into Volumes.

Slices are ordered by their place along the normal of their plane, never by number or name. What is left out or
chosen is told in a notice; what cannot be known (two different images at one place, a missing slice) is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from d3m.errors import D3MError, Notice
from d3m.system.text import counted
from d3m.volumes.io.dicom.choice import Choice, choose_series, kind_of, series_in
from d3m.volumes.io.dicom.headers import require_pydicom
from d3m.volumes.io.dicom.pixels import unpacked
from d3m.volumes.io.dicom.series import Frame, Series
from d3m.volumes.io.files import check_size, content_hash, label
from d3m.volumes.io.headers import check_affine, three_axes
from d3m.volumes.types import CONTRASTS, Affine, Floats, Volume

__all__ = ["Choice", "choose_series", "read_series", "sorted_frames"]

SAME_PLANE = 0.02
"""Largest difference of direction cosines within a stack: headers are rounded to three digits."""
SAME_PLACE = 0.1
"""Share of the slice spacing below which two images lie at one place."""
GAP = 1.5
"""Share of the slice spacing above which a slice is missing."""
UNEVEN = 0.1
"""Largest unevenness of the spacing that rounding may explain."""
SIDEWAYS = 0.25
"""Share of a pixel by which images may lie beside the line through all of them."""
SAME_ECHO = (0.5, 0.05)
"""Milliseconds, and share, by which echo times of one echo may differ."""
USUAL_ECHO = 100.0
"""Milliseconds; of several echoes the nearest is the T2 (FLAIR), the first one is the T1."""
MAX_STACKS = 64
MASKS = ("brain_mask", "enhancement_mask", "labels")
PACKAGES = {
    "1.2.840.10008.1.2.4.50": ("JPEG", "python-gdcm"),
    "1.2.840.10008.1.2.4.51": ("JPEG", "python-gdcm"),
    "1.2.840.10008.1.2.4.57": ("JPEG Lossless", "python-gdcm"),
    "1.2.840.10008.1.2.4.70": ("JPEG Lossless", "python-gdcm"),
    "1.2.840.10008.1.2.4.80": ("JPEG-LS", "pyjpegls"),
    "1.2.840.10008.1.2.4.81": ("JPEG-LS", "pyjpegls"),
    "1.2.840.10008.1.2.4.90": ("JPEG 2000", "pylibjpeg pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.91": ("JPEG 2000", "pylibjpeg pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.201": ("High-Throughput JPEG 2000", "pylibjpeg pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.202": ("High-Throughput JPEG 2000", "pylibjpeg pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.203": ("High-Throughput JPEG 2000", "pylibjpeg pylibjpeg-openjpeg"),
}
"""Compressed transfer syntaxes (DICOM PS3.5) and packages, free of the GPL, that decode them."""


def read_series(source: Path | Series, contrast: str) -> Volume:
    """Read one series.

    Args:
        source: A folder, one of its files, or a series from `choose_series`. Of a folder with several series the one
            whose description says that it is `contrast` is taken, with a notice.
        contrast: "t1", "t2", "flair", ...: what messages call it.

    Returns:
        (X, Y, Z) with columns along X and rows along Y, RAS millimetres, rescaled values as float32.

    Raises:
        D3MError: whatever keeps the series from being one scan, with the way to put it right.
    """
    series = source if isinstance(source, Series) else series_in(Path(source), contrast)
    notices = list(series.notices)
    _check_kind(series, contrast)
    notices += _what_it_says(series, contrast)
    frames, left_out = _one_stack(series, contrast)
    notices += left_out
    _check_decoder(frames, contrast)
    rows, columns = frames[0].shape
    shape = three_axes((columns, rows, len(frames)), contrast)
    check_size(shape, 2, sum(path.stat().st_size for path in series.files), True, contrast)
    frames = _ordered(frames)
    images = _decode(frames, contrast)
    frames, images, doubled = _without_duplicates(frames, images, contrast)
    if doubled:
        notices.append(
            Notice("dicom-duplicates", f"{doubled} duplicate images of {label(contrast)} ignored.", contrast)
        )
    affine, straightened = check_affine(_affine(frames, contrast), (columns, rows, len(frames)), 1.0, contrast)
    notices += straightened
    data = np.ascontiguousarray(np.stack(images, axis=2))
    return Volume(data, affine, content_hash(data, affine), notices=tuple(notices))


def _what_it_says(series: Series, contrast: str) -> list[Notice]:
    """Notices for a series whose header says that it is something else than it was given for."""
    name, said, notices = label(contrast), kind_of(series), []
    if contrast == "t1" and (series.contrast_agent or said == "t1c"):
        where = "The DICOM header" if series.contrast_agent else "The description"
        text = f"{where} of T1 names a contrast agent: it may already show what is to be predicted."
        notices.append(Notice("t1-contrast-agent", text, "t1"))
    elif contrast in CONTRASTS and said is not None and said != contrast:
        text = f"The series given as {name} calls itself a {label(said)}."
        notices.append(Notice("dicom-description", text, contrast))
    if contrast in CONTRASTS and series.derived:
        text = f"{name} is a series of derived images: computed, not acquired."
        notices.append(Notice("dicom-derived", text, contrast))
    if series.damaged:
        text = f"{counted(series.damaged, 'DICOM file')} beside {name} cannot be read: slices "
        notices.append(Notice("dicom-damaged", text + "may be missing at its ends.", contrast))
    if series.broken:
        text = f"{counted(series.broken, 'file')} beside {name} "
        text += "are links to nothing (not fetched?): slices may be missing at its ends."
        notices.append(Notice("dicom-broken-links", text, contrast))
    return notices


def _check_kind(series: Series, contrast: str) -> None:
    name = label(contrast)
    if series.modality not in ("MR", "OT", "") and contrast not in MASKS:
        raise D3MError(f"{name} is not an MRI (its modality is {series.modality[:16]}).", f"Give the {name} series.")
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


def _alike(one: Frame, other: Frame) -> bool:
    """Whether two images can lie in one stack, their kind and echo apart."""
    near = np.abs(one.orientation - other.orientation).max() <= SAME_PLANE
    return bool(near and one.shape == other.shape and np.allclose(one.spacing, other.spacing, rtol=0.01))


def _one_stack(series: Series, contrast: str) -> tuple[list[Frame], list[Notice]]:
    """The images that make up the scan: the largest group of one orientation and size; then one echo."""
    name, groups = label(contrast), list[list[Frame]]()
    for frame in series.frames:
        for group in groups:
            if frame.extra == group[0].extra and _alike(frame, group[0]):
                group.append(frame)
                break
        else:
            groups.append([frame])
            if len(groups) > MAX_STACKS:
                raise D3MError(
                    f"{name} holds images of more than {MAX_STACKS} planes, sizes or kinds.",
                    "Give one series: images one behind the other.",
                )
    groups.sort(key=len, reverse=True)
    large = [group for group in groups if len(group) > len(groups[0]) / 4]
    if len(large) > 1:
        # of magnitude and phase, real and imaginary part the magnitude is the scan
        rest = {frame.extra[1:] for group in large for frame in group}
        magnitude = [group for group in large if group[0].extra[0] == "M"]
        if len(magnitude) != 1 or len(rest) > 1 or not all(_alike(group[0], large[0][0]) for group in large):
            raise D3MError(
                f"{name} holds several stacks of images ({', '.join(str(len(group)) for group in groups[:6])} images "
                "of different plane, size, phase or time).",
                "Give a series with one stack: a localiser, a dynamic or a diffusion series is not a scan of this "
                "kind.",
            )
        large = magnitude
    frames, notices = large[0], list[Notice]()
    rest_count = len(series.frames) - len(frames) + series.unplaced
    if rest_count:
        text = f"{counted(rest_count, 'image')} of another orientation, size or kind in {name} "
        notices.append(Notice("dicom-left-out", text + "left out.", contrast))
    return _one_echo(frames, contrast, notices), notices


def _one_echo(frames: list[Frame], contrast: str, notices: list[Notice]) -> list[Frame]:
    """One echo, where the same places were imaged at several."""
    echoes = list[list[Frame]]()
    for frame in sorted(frames, key=lambda frame: frame.echo_time or 0.0):
        time = frame.echo_time or 0.0
        if echoes and time - (echoes[-1][0].echo_time or 0.0) <= max(SAME_ECHO[0], SAME_ECHO[1] * time):
            echoes[-1].append(frame)
        else:
            echoes.append([frame])
    whole = [echo for echo in echoes if len(echo) > max(map(len, echoes)) / 2]
    places = [{tuple(np.round(frame.position, 0)) for frame in echo} for echo in whole]
    if len(whole) < 2 or any(len(places[0] & other) < len(other) / 2 for other in places[1:]):
        return frames
    wanted = 0.0 if contrast == "t1" else USUAL_ECHO
    kept = min(whole, key=lambda echo: abs((echo[0].echo_time or 0.0) - wanted))
    text = f"{label(contrast)} has {len(whole)} echoes; the one at {kept[0].echo_time or 0.0:g} ms is used."
    notices.append(Notice("dicom-echo", text, contrast))
    return kept


def _check_decoder(frames: Sequence[Frame], contrast: str) -> None:
    """Before any work: can these pixels be unpacked here?"""
    pydicom = require_pydicom()
    for syntax in {frame.transfer_syntax for frame in frames}:
        uid = pydicom.uid.UID(syntax)
        try:
            if not uid.is_encapsulated:
                continue
            available = pydicom.pixels.get_decoder(uid).is_available
        except (NotImplementedError, ValueError):  # no transfer syntax, or none of images
            available = False
        if not available:
            kind, package = PACKAGES.get(syntax, (uid.name[:64], ""))
            hint = f"Install it with: pip install {package}" if package else "Convert the series to NIfTI with dcm2niix"
            raise D3MError(f"{label(contrast)} is compressed ({kind}), and no decoder for it is installed.", f"{hint}.",
                           "machine")  # fmt: skip


def _normal(frames: Sequence[Frame]) -> np.ndarray:
    directions = np.mean([frame.orientation for frame in frames], axis=0)
    normal: np.ndarray = np.cross(directions[:3], directions[3:])
    length = float(np.linalg.norm(normal))
    if not 0.5 < length < 2:
        raise D3MError("The directions in a DICOM header make no plane.", "Export the series from the archive again.")
    return normal / length


def sorted_frames(series: Series, contrast: str) -> list[Frame]:
    """The images that `read_series` makes the volume of, in the order of their places along the normal.

    Raises:
        D3MError: they make no stack.
    """
    return _ordered(_one_stack(series, contrast)[0])


def _ordered(frames: list[Frame]) -> list[Frame]:
    normal = _normal(frames)
    return sorted(frames, key=lambda frame: (float(normal @ frame.position), frame.uid))


def _decode(frames: Sequence[Frame], contrast: str) -> list[Floats]:
    """(columns, rows) of every frame, rescaled; each file is read once."""
    wanted: dict[Path, list[int]] = {}
    for number, frame in enumerate(frames):
        wanted.setdefault(frame.path, []).append(number)
    images: dict[int, Floats] = {}
    for path, numbers in wanted.items():
        try:
            pixels = unpacked(path)
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


def _gaps(steps: np.ndarray, spacing: float) -> str:
    """Where slices are missing, in millimetres from the first slice; the first three gaps."""
    places = np.concatenate([[0.0], np.cumsum(steps)])
    gaps = [f"{places[k]:.0f} to {places[k + 1]:.0f} mm" for k in np.flatnonzero(steps > GAP * spacing)]
    more = f" and {len(gaps) - 3} more" if len(gaps) > 3 else ""
    return f"from {', '.join(gaps[:3])}{more} behind its first slice"


def _affine(frames: Sequence[Frame], contrast: str) -> Affine:
    """Voxel index (column, row, slice) to RAS millimetres, from all positions at once (DICOM PS3.3, C.7.6.2.1.1)."""
    name = label(contrast)
    three_axes((*frames[0].shape, len(frames)), contrast)
    normal = _normal(frames)
    positions = np.array([frame.position for frame in frames])
    steps = np.diff(positions @ normal)
    spacing = float(np.median(steps))
    missing = int(np.round(steps / spacing).sum()) - len(steps)
    if steps.max() > GAP * spacing:
        raise D3MError(
            f"{name} lacks {counted(missing, 'slice')} inside the stack, {_gaps(steps, spacing)}.",
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
    beside = positions - positions.mean(axis=0) - np.outer(index, step)
    beside -= np.outer(beside @ normal, normal)
    if np.abs(beside).max() > max(SIDEWAYS * min(between_rows, between_columns), 0.1):
        raise D3MError(
            f"The images of {name} do not lie one behind the other (up to {np.abs(beside).max():.2g} mm beside).",
            "Give a series whose images share one field of view.",
        )
    lps: Affine = np.eye(4)
    lps[:3, 0], lps[:3, 1], lps[:3, 2] = row * between_columns, column * between_rows, step
    lps[:3, 3] = positions.mean(axis=0) - step * (len(frames) - 1) / 2
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps
