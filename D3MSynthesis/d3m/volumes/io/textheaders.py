"""NRRD and MetaImage (MHA, MHD) headers: lines of text before raw or packed voxels, in LPS or a named space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from d3m.errors import D3MError
from d3m.volumes.io.files import beside, damaged, label
from d3m.volumes.io.headers import NO_ORIENTATION_HINT, Header, check_affine, three_axes
from d3m.volumes.types import Affine

MAX_HEADER_BYTES = 2**17
MAX_LINE_BYTES = 2**14
NRRD_TYPES = {
    "signed char": "i1", "int8": "i1", "int8_t": "i1",
    "uchar": "u1", "unsigned char": "u1", "uint8": "u1", "uint8_t": "u1",
    "short": "i2", "short int": "i2", "signed short": "i2", "signed short int": "i2", "int16": "i2", "int16_t": "i2",
    "ushort": "u2", "unsigned short": "u2", "unsigned short int": "u2", "uint16": "u2", "uint16_t": "u2",
    "int": "i4", "signed int": "i4", "int32": "i4", "int32_t": "i4", "uint": "u4", "unsigned int": "u4", "uint32": "u4",
    "uint32_t": "u4", "longlong": "i8", "long long": "i8", "long long int": "i8", "signed long long": "i8",
    "signed long long int": "i8", "int64": "i8", "int64_t": "i8", "ulonglong": "u8", "unsigned long long": "u8",
    "unsigned long long int": "u8", "uint64": "u8", "uint64_t": "u8", "float": "f4", "double": "f8",
}  # fmt: skip
META_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
NRRD_ENCODINGS = {"raw": "raw", "gz": "gzip", "gzip": "gzip", "bz2": "bzip2", "bzip2": "bzip2"}
UNITS_MM = {"mm": 1.0, "m": 1000.0, "cm": 10.0, "um": 0.001, "µm": 0.001, "micron": 0.001, "nm": 1e-6}
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class TextHeader:
    """A header, and where its voxels are."""

    header: Header
    encoding: str
    """"raw", "gzip", "zlib" or "bzip2"."""
    data_file: Path | None = None
    """File of the voxels, or None: they follow the header."""
    skip_bytes: int = 0
    """Bytes before the voxels; -1: the voxels are the file's last bytes."""
    skip_lines: int = 0


def _lines(stream: BinaryIO, contrast: str) -> list[str]:
    """Lines up to an empty one or `ElementDataFile`; the stream then stands at the voxels."""
    lines: list[str] = []
    total = 0
    while total < MAX_HEADER_BYTES:
        line = stream.readline(MAX_LINE_BYTES)
        total += len(line)
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if not line or not text.strip():
            return lines
        lines.append(text)
        if text.replace(" ", "").lower().startswith("elementdatafile="):
            return lines
    raise damaged(contrast, "its header does not end")


def _numbers(text: str, contrast: str, what: str) -> list[float]:
    try:
        return [float(word) for word in text.replace(",", " ").replace("(", " ").replace(")", " ").split()]
    except ValueError as error:
        raise damaged(contrast, f"the {what} in its header is not a list of numbers") from error


def _whole(text: str, contrast: str, what: str) -> list[int]:
    try:
        return [int(word) for word in text.split()]
    except ValueError as error:
        raise damaged(contrast, f"the {what} in its header is not a list of whole numbers") from error


def _data_file(text: str, header_path: Path, contrast: str) -> Path:
    """The voxels' file, beside the header or below."""
    if text.upper().split()[:1] == ["LIST"] or "%" in text:
        raise D3MError(
            f"{label(contrast)} keeps its slices in separate files, which is not supported.",
            "Save it as one NIfTI or NRRD file.",
        )
    return beside(header_path, text, contrast)


def parse_nrrd(stream: BinaryIO, path: Path, contrast: str) -> TextHeader:
    """Read an NRRD header; raises `D3MError` for what cannot be one scan."""
    name = label(contrast)
    fields: dict[str, str] = {}
    for line in _lines(stream, contrast)[1:]:
        if line.startswith("#") or ":=" in line:
            continue
        key, colon, value = line.partition(":")
        if colon:
            fields[key.strip().lower()] = value.strip()
    sizes = _whole(fields.get("sizes", ""), contrast, "size")
    kinds = fields.get("kinds", "").lower().split()
    directions = _directions(fields.get("space directions", ""), contrast)
    if len(sizes) != len(directions) and directions:
        raise damaged(contrast, "its header gives another number of directions than of sizes")
    spatial = [axis for axis, direction in enumerate(directions) if direction is not None]
    for axis in range(len(sizes)):
        if directions and axis not in spatial and sizes[axis] > 1:
            colour = axis < len(kinds) and ("color" in kinds[axis] or "vector" in kinds[axis])
            what = "a colour (RGB) or vector image" if colour else f"4-D ({' x '.join(map(str, sizes))})"
            raise D3MError(f"{name} is {what}, not one volume of grey values.", "Save one scan as a 3-D file.")
    shape = three_axes(tuple(sizes[axis] for axis in spatial) if directions else tuple(sizes), contrast)
    affine = _nrrd_affine(fields, [d for d in directions if d is not None], contrast)
    unit = UNITS_MM.get(fields.get("space units", "").replace('"', " ").strip().split(" ")[0], 1.0)
    affine, notices = check_affine(affine, shape, unit, contrast)
    kind = " ".join(fields.get("type", "").lower().split())
    if kind not in NRRD_TYPES:
        raise damaged(contrast, f"its header names an unknown or unsupported data type ({kind[:40] or 'none'})")
    order: Literal["<", ">"] = ">" if fields.get("endian", "little").lower() == "big" else "<"
    encoding = NRRD_ENCODINGS.get(fields.get("encoding", "").lower())
    if encoding is None:
        raise D3MError(
            f"{name} uses the NRRD encoding {fields.get('encoding', 'none')[:20]!r}, which is not supported.",
            "Save it with the encoding raw or gzip.",
        )
    detached = fields.get("data file", fields.get("datafile"))
    return TextHeader(
        Header(shape, np.dtype(NRRD_TYPES[kind]).newbyteorder(order), affine, notices=notices),
        encoding,
        None if detached is None else _data_file(detached, path, contrast),
        _whole(fields.get("byte skip", fields.get("byteskip", "0")), contrast, "byte skip")[0],
        _whole(fields.get("line skip", fields.get("lineskip", "0")), contrast, "line skip")[0],
    )


def _directions(text: str, contrast: str) -> list[list[float] | None]:
    """One vector an axis, or None for an axis that is not one of space."""
    result: list[list[float] | None] = []
    for word in text.replace("none", "(none)").replace(")", "(").split("("):
        if word.strip() == "none":
            result.append(None)
        elif word.strip():
            vector = _numbers(word, contrast, "direction")
            if len(vector) != 3:
                raise damaged(contrast, "a direction in its header has not three numbers")
            result.append(vector)
    return result


def _nrrd_affine(fields: dict[str, str], directions: list[list[float]], contrast: str) -> Affine:
    """(4, 4), index to RAS in the file's unit."""
    space = fields.get("space", "").lower().removesuffix("-time")
    words = {"ras": "right-anterior-superior", "las": "left-anterior-superior", "lps": "left-posterior-superior"}
    signs = {"right": 1, "left": -1, "anterior": 1, "posterior": -1, "superior": 1, "inferior": -1}
    parts = words.get(space.removesuffix("t") if len(space) == 4 else space, space).split("-")
    origin = _numbers(fields.get("space origin", ""), contrast, "origin")
    if len(directions) != 3 or len(parts) != 3 or any(part not in signs for part in parts):
        raise D3MError(
            f"{label(contrast)} has no orientation (its NRRD header names no anatomical space): left could be right.",
            NO_ORIENTATION_HINT,
        )
    order = [
        next(i for i, part in enumerate(parts) if part in pair) for pair in _PAIRS if any(p in pair for p in parts)
    ]
    if len(order) != 3 or len(origin) != 3:
        raise damaged(contrast, "its header has no usable space and origin")
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = np.array(directions).T, origin
    affine[:3] = affine[:3][order] * np.array([signs[parts[i]] for i in order])[:, None]
    return affine


_PAIRS = (("right", "left"), ("anterior", "posterior"), ("superior", "inferior"))


def parse_meta(stream: BinaryIO, path: Path, contrast: str) -> TextHeader:
    """Read a MetaImage header; raises `D3MError` for what cannot be one scan."""
    name = label(contrast)
    fields: dict[str, str] = {}
    for line in _lines(stream, contrast):
        key, equals, value = line.partition("=")
        if equals:
            fields[key.strip().lower()] = value.strip()
    if fields.get("elementnumberofchannels", "1") != "1":
        raise D3MError(
            f"{name} is a colour (RGB) or vector image, not a scan.", "Export the scan itself, in grey values."
        )
    sizes = _whole(fields.get("dimsize", ""), contrast, "size")
    shape = three_axes(tuple(sizes), contrast)
    affine = _meta_affine(fields, len(sizes), contrast)
    affine, notices = check_affine(affine, shape, 1.0, contrast)
    kind = fields.get("elementtype", "").upper()
    if kind not in META_TYPES:
        raise damaged(contrast, f"its header names an unknown or unsupported data type ({kind[:40] or 'none'})")
    if fields.get("binarydata", "true").lower() == "false":
        raise D3MError(f"{name} stores its voxels as text, which is not supported.", "Save it as binary data.")
    big = fields.get("elementbyteordermsb", fields.get("binarydatabyteordermsb", "false")).lower() == "true"
    data = fields.get("elementdatafile", "")
    if not data:
        raise damaged(contrast, "its header does not say where the voxels are")
    return TextHeader(
        Header(shape, np.dtype(META_TYPES[kind]).newbyteorder(">" if big else "<"), affine, notices=notices),
        "zlib" if fields.get("compresseddata", "false").lower() == "true" else "raw",
        None if data.upper() == "LOCAL" else _data_file(data, path, contrast),
        _whole(fields.get("headersize", "0"), contrast, "header size")[0],
    )


def _meta_affine(fields: dict[str, str], axes: int, contrast: str) -> Affine:
    """(4, 4), index to RAS millimetres. The matrix lists the axes' directions one after another, in LPS."""
    matrix = next((fields[key] for key in ("transformmatrix", "rotation", "orientation") if key in fields), None)
    if matrix is None:
        raise D3MError(
            f"{label(contrast)} has no orientation (no TransformMatrix in its header): left could be right.",
            NO_ORIENTATION_HINT,
        )
    directions = _numbers(matrix, contrast, "TransformMatrix")
    origin = _numbers(
        next((fields[k] for k in ("offset", "position", "origin") if k in fields), ""), contrast, "offset"
    )
    spacing = _numbers(fields.get("elementspacing", fields.get("elementsize", "")), contrast, "spacing")
    if len(directions) != axes**2 or len(origin) != axes or len(spacing) != axes:
        raise damaged(contrast, "its header has no complete TransformMatrix, Offset and ElementSpacing")
    affine = np.eye(4)
    affine[:3, :3] = LPS_TO_RAS @ (np.array(directions).reshape(axes, axes)[:3, :3].T * np.array(spacing[:3]))
    affine[:3, 3] = LPS_TO_RAS @ np.array(origin[:3])
    return affine
