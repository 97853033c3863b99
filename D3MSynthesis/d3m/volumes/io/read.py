"""One scan from a file of any known format, a DICOM series, or an image in memory: voxels and where they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from d3m.errors import D3MError
from d3m.volumes.io import nifti, textheaders
from d3m.volumes.io.dicom import study as dicom
from d3m.volumes.io.dicom.choice import series_in
from d3m.volumes.io.dicom.headers import is_dicom, starts_like_dicom
from d3m.volumes.io.dicom.series import Series
from d3m.volumes.io.files import (
    ARCHIVES,
    PICTURES,
    beside,
    check_size,
    content_hash,
    damaged,
    decoded,
    label,
    open_file,
    read_numbers,
    reading,
    skip,
    truncated,
    unpack,
)
from d3m.volumes.io.headers import Header
from d3m.volumes.io.images import volume_of
from d3m.volumes.types import Floats, Volume

KNOWN_FORMATS = "Give a NIfTI (.nii, .nii.gz), NRRD or MetaImage (.mha, .mhd) file, or a DICOM series' folder."

Scan = Path | Series | Volume
"""Where a scan is: a file, a folder with a DICOM series, a series that was chosen, or the scan itself."""
Source = Any
"""A `Scan`, a path as text, or what `d3m.volumes.io.images.volume_of` takes."""


def resolve(scan: Source, contrast: str) -> Scan:
    """The series in a DICOM folder or of a DICOM file, the volume of an image in memory; a path as it is.

    Raises:
        D3MError: no series, or several that fit; an object that is no image.
    """
    if isinstance(scan, (Series, Volume)):
        return scan
    if not isinstance(scan, (str, Path)):
        return volume_of(scan, contrast)
    return series_in(Path(scan), contrast) if is_dicom(Path(scan)) else Path(scan)


def read_raw(scan: Source, contrast: str) -> Volume:
    """Read any content: values may be infinite or not a number, or all the same; see `read_volume` for the rest."""
    found = resolve(scan, contrast)
    if isinstance(found, Volume):
        return found
    if isinstance(found, Series):
        return dicom.read_series(found, contrast)
    path = found
    pair = nifti.pair_files(path)
    with open_file(path if pair is None else pair[0], contrast) as file, reading(contrast):
        size = _size(file)
        stream, packed = unpack(file)
        head = stream.read(544)
        stream.seek(0)
        if nifti.version(head):
            header, flat = _nifti(stream, size, packed, pair, contrast)
        elif head.startswith(b"NRRD"):
            header, flat = _text(textheaders.parse_nrrd(stream, path, contrast), stream, size, packed, contrast)
        elif b"NDims" in head and b"=" in head:
            header, flat = _text(textheaders.parse_meta(stream, path, contrast), stream, size, packed, contrast)
        else:
            raise _unknown(head, contrast, path)
    data = flat.reshape(header.shape, order="F")
    codes = (header.qform_code, header.sform_code)
    return Volume(data, header.affine, content_hash(data, header.affine), *codes, header.notices, header.qform)


def _size(file: BinaryIO) -> int:
    end = file.seek(0, 2)
    file.seek(0)
    return end


def _nifti(
    stream: BinaryIO, size: int, packed: bool, pair: tuple[Path, Path] | None, contrast: str
) -> tuple[Header, Floats]:
    """Header and values; `stream` is at the header."""
    block = stream.read(544)
    stream.seek(0)
    if len(block) < (348 if nifti.version(block) == 1 else 540):
        raise truncated(contrast, len(block), 348)
    header, offset, separate = nifti.parse(block, contrast)
    if not separate:
        return header, _values(stream, header, offset, size, packed, contrast)
    if pair is None:
        raise D3MError(
            f"{label(contrast)} is only the header of a NIfTI pair.", "Give the .hdr file with its .img file beside it."
        )
    with open_file(beside(pair[0], pair[1].name, contrast), contrast) as voxels:
        inner, inner_packed = unpack(voxels)
        return header, _values(inner, header, offset, _file_size(pair[1]), inner_packed, contrast)


def _file_size(path: Path) -> int:
    return path.stat().st_size


def _values(stream: BinaryIO, header: Header, offset: int, size: int, packed: bool, contrast: str) -> Floats:
    """(count,) from the byte `offset` of `stream` on; `size` is that of the file on disk."""
    check_size(header.shape, header.dtype.itemsize, size if packed else size - offset, packed, contrast)
    skip(stream, offset)
    count = int(np.prod(header.shape, dtype=np.int64))
    return read_numbers(stream, count, header.dtype, header.slope, header.intercept, contrast)


def _text(
    found: textheaders.TextHeader, stream: BinaryIO, size: int, packed: bool, contrast: str
) -> tuple[Header, Floats]:
    """Header and values of NRRD and MetaImage; `stream` is behind the header."""
    if found.data_file is None:
        return found.header, _encoded(found, stream, size, packed, contrast, stream.tell())
    with open_file(found.data_file, contrast) as file:
        return found.header, _encoded(found, file, _file_size(found.data_file), False, contrast, 0)


def _encoded(
    found: textheaders.TextHeader, stream: BinaryIO, size: int, packed: bool, contrast: str, start: int
) -> Floats:
    """(count,) values; `start` is where `stream` stands."""
    header = found.header
    for _ in range(min(found.skip_lines, 1000)):
        stream.readline(textheaders.MAX_LINE_BYTES)
    if found.skip_bytes < 0:
        if packed or found.encoding != "raw":
            raise damaged(contrast, "its header counts the voxels from the end of a packed file")
        start = size - int(np.prod(header.shape, dtype=np.int64)) * header.dtype.itemsize
        check_size(header.shape, header.dtype.itemsize, size, False, contrast)
        stream.seek(start)
    elif found.encoding == "raw":
        skip(stream, min(found.skip_bytes, size * 1100))
        start += found.skip_bytes
    stream = decoded(stream, found.encoding)
    if found.encoding != "raw" and found.skip_bytes > 0:
        skip(stream, min(found.skip_bytes, nifti.MAX_OFFSET))
    is_packed = packed or found.encoding != "raw"
    check_size(header.shape, header.dtype.itemsize, size if is_packed else size - start, is_packed, contrast)
    count = int(np.prod(header.shape, dtype=np.int64))
    return read_numbers(stream, count, header.dtype, 1.0, 0.0, contrast)


def _unknown(head: bytes, contrast: str, path: Path) -> D3MError:
    """The error for content that is none of the known formats, naming what it is instead."""
    name = label(contrast)
    if starts_like_dicom(head):
        return D3MError(f"{name} is a packed DICOM file: {path}.", "Unpack it first, with the others of its series.")
    if nifti.is_analyze(head):
        return D3MError(
            f"{name} is an Analyze 7.5 file, which cannot tell left from right.",
            "Convert the scan from DICOM to NIfTI again.",
        )
    for magic, kind in {**ARCHIVES, **PICTURES}.items():
        if head.startswith(magic):
            return D3MError(f"{name} is {kind}, not a scan: {path}.", KNOWN_FORMATS)
    return D3MError(f"{name} is not an image that can be read: {path}.", KNOWN_FORMATS)
