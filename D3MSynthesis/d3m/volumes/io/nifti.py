"""NIfTI-1 and NIfTI-2 headers, single files and pairs.

One rule for the two affines: the sform if its code is above zero, else the qform if its code is above zero,
else the file has no orientation and is refused.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError

from d3m.errors import D3MError, Notice
from d3m.volumes.io.files import damaged, label
from d3m.volumes.io.headers import NO_ORIENTATION_HINT, Header, check_affine, corner_distance, three_axes
from d3m.volumes.types import Affine

NUMBER_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
"""NIfTI data type codes that hold one real number a voxel."""
COLOUR_TYPES, COMPLEX_TYPES = (128, 2304, 511), (32, 1792, 2048)
UNITS_MM = {1: 1000.0, 3: 0.001}
"""Spatial unit codes other than millimetres, in millimetres; an unknown unit is taken for millimetres."""
MAX_DISAGREEMENT_VOXELS = 0.5
"""qform and sform that place a corner farther apart are reported."""
MAX_OFFSET = 2**26
"""Bytes that header extensions may take."""


def version(head: bytes) -> int:
    """1 or 2 for the start of a NIfTI header of either byte order, 0 for anything else (Analyze included)."""
    sizes = {int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")}
    if head[344:347] in (b"n+1", b"ni1"):
        return 1
    if 540 in sizes and head[4:7] in (b"n+2", b"ni2"):
        return 2
    return 0


def is_analyze(head: bytes) -> bool:
    """Whether this is the header of an Analyze 7.5 pair, which cannot tell left from right."""
    return 348 in {int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")} and version(head) == 0


def parse(block: bytes, contrast: str) -> tuple[Header, int, bool]:
    """Read a header.

    Args:
        block: The first 348 (version 1) or 540 bytes.
        contrast: For messages.

    Returns:
        The header, the offset of the voxels in bytes, and whether they lie in a file of their own (.img).

    Raises:
        D3MError: whatever makes the header unusable, by name.
    """
    number = version(block)
    size = 348 if number == 1 else 540
    little = int.from_bytes(block[:4], "little") == size
    big = int.from_bytes(block[:4], "big") == size
    if not (little or big):
        raise damaged(contrast, "its header does not state its own length")
    order: Literal["<", ">"] = "<" if little else ">"
    header = _header(block[:size], order, number)
    axes = int(header["dim"][0])
    if not 1 <= axes <= 7:
        raise damaged(contrast, f"its header declares {axes} axes")
    shape = three_axes(tuple(int(n) for n in header["dim"][1 : axes + 1]), contrast)
    dtype = _number_type(int(header["datatype"]), contrast).newbyteorder(order)
    slope, intercept = _scaling(float(header["scl_slope"]), float(header["scl_inter"]), contrast)
    stored, qform, notices = _orientation(header, shape, contrast)
    unit = UNITS_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    affine, more = check_affine(stored, shape, unit, contrast)
    if qform is not None:
        to_mm = np.linalg.norm(affine[:3, 0]) / np.linalg.norm(stored[:3, 0])
        qform = np.vstack([qform[:3] * to_mm, qform[3:]])
    codes = (int(header["qform_code"]), int(header["sform_code"]))
    pair = block[344:347] == b"ni1" if number == 1 else block[4:7] == b"ni2"
    offset = float(header["vox_offset"])
    if not math.isfinite(offset) or not 0 <= offset <= MAX_OFFSET or offset != int(offset):
        raise damaged(contrast, f"its header places the voxels at byte {offset:g}")
    first = int(offset) if pair else max(int(offset), 352 if number == 1 else 544)
    if not pair and 0 < offset < size:
        raise damaged(contrast, f"its header places the voxels at byte {offset:g}, inside the header")
    return Header(shape, dtype, affine, slope, intercept, *codes, notices + more, qform), first, pair


def _header(block: bytes, order: str, number: int) -> nibabel.nifti1.Nifti1Header:
    """nibabel's view of the header, unchecked: it must not repair in silence."""
    if number == 1:
        return nibabel.nifti1.Nifti1Header(block, endianness=order, check=False)
    return nibabel.nifti2.Nifti2Header(block, endianness=order, check=False)


def _number_type(code: int, contrast: str) -> np.dtype:
    name = label(contrast)
    if code in COLOUR_TYPES:
        raise D3MError(f"{name} is a colour (RGB) picture, not a scan.", "Export the scan itself, in grey values.")
    if code in COMPLEX_TYPES:
        raise D3MError(f"{name} holds complex numbers.", "Save its magnitude as a file of its own.")
    if code not in NUMBER_TYPES:
        raise damaged(contrast, f"its header names an unknown or unsupported data type ({code})")
    return np.dtype(NUMBER_TYPES[code])


def _scaling(slope: float, intercept: float, contrast: str) -> tuple[float, float]:
    """By the standard a slope of zero (or none at all) means that the stored values are meant."""
    if slope == 0.0 or not math.isfinite(slope):
        return 1.0, 0.0
    if not math.isfinite(intercept):
        raise damaged(contrast, "the intercept in its header is not a number")
    return slope, intercept


def _orientation(
    header: nibabel.nifti1.Nifti1Header, shape: tuple[int, int, int], contrast: str
) -> tuple[Affine, Affine | None, tuple[Notice, ...]]:
    """The affine by the rule of this module, and the quaternion's, in the file's unit."""
    name = label(contrast)
    sform: Affine | None = None
    qform: Affine | None = None
    if int(header["sform_code"]) > 0:
        sform = _regular(np.asarray(header.get_sform(), np.float64))
    if int(header["qform_code"]) > 0:
        try:
            with np.errstate(all="ignore"):
                qform = _regular(np.asarray(header.get_qform(), np.float64))
        except (ValueError, ArithmeticError, HeaderDataError):
            qform = None  # an impossible quaternion: as good as none
    if sform is None and qform is None:
        if int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0:
            raise damaged(contrast, "the orientation in its header is degenerate")
        raise D3MError(
            f"{name} has no orientation (qform and sform codes are both 0), so left and right cannot be known.",
            NO_ORIENTATION_HINT,
        )
    if sform is None or qform is None:
        return (qform if sform is None else sform), qform, ()  # type: ignore[return-value]
    spacing = np.linalg.norm(sform[:3, :3], axis=0)
    distance = corner_distance(sform, qform, shape)
    if distance <= MAX_DISAGREEMENT_VOXELS * spacing.min():
        return sform, qform, ()
    text = f"{name} holds two orientations that lie up to {distance:.3g} units apart; the sform is used."
    return sform, qform, (Notice("two-orientations", text, contrast),)


def _regular(affine: Affine) -> Affine | None:
    """The affine, or None if it cannot be inverted."""
    if not np.isfinite(affine).all():
        return None
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if (spacing == 0).any() or abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-3:
        return None
    return affine


def pair_files(path: Path) -> tuple[Path, Path] | None:
    """(header, voxels) if the name is that of either half of a pair."""
    name = path.name
    ending = ".gz" if name.lower().endswith(".gz") else ""
    stem = name[: len(name) - len(ending)]
    if stem.lower().endswith((".hdr", ".img")):
        upper = stem[-3:].isupper()
        halves = [path.with_name(stem[:-3] + (half.upper() if upper else half)) for half in ("hdr", "img")]
        packed = [half.with_name(half.name + ".gz") for half in halves]
        header, voxels = (p if p.exists() and not h.exists() else h for h, p in zip(halves, packed, strict=True))
        return header, voxels
    return None
