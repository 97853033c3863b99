"""Bytes from files that may be missing, packed, shortened or hostile; every failure becomes one sentence."""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import hashlib
import io
import math
import re
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from d3m.errors import D3MError
from d3m.system.limits import free_memory
from d3m.volumes.types import Affine, Floats

MAX_VOXELS = 2**28
"""More than any scan of a head: 0.5 mm over half a metre has half as many. What claims more is a damaged header."""
MAX_DEFLATE_RATIO = 1100
"""Deflate cannot pack more than 1032 bytes into one."""
SMALLEST = float(np.finfo(np.float32).tiny)
MAX_OUTSIDE = 0.01
"""Share of a scan's values that float32 need not hold."""
MAX_SCAN_RATIO, FREE_RATIO_BYTES = 200, 2**26
"""A scan of this size and more does not pack better: a stripped brain in a large empty box reaches 60. Masks may."""
FLAT = ("brain_mask", "labels")
WORK_BYTES = 12
"""Memory that a voxel needs until its scan is known to be of use: itself, and what it is compared with."""
CHUNK_VOXELS = 2**20
"""Voxels converted at a time, so that a wide storage type never stands in memory as a whole."""
NAMES = {
    "brain_mask": "The brain mask",
    "after": "The later T1",
    "enhancement_mask": "The enhancement mask",
    "reference": "The reference",
    "labels": "The label map",
    "t1c": "T1c",
}
ARCHIVES = {
    b"PK\x03\x04": "a ZIP archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"7z\xbc\xaf": "a 7z archive",
}
PICTURES = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"%PDF": "a PDF document",
    b"BM": "a bitmap",
}


def content_hash(data: Floats, affine: Affine) -> str:
    """Of values and geometry, whatever the format or the storage type."""
    digest = hashlib.sha256(repr(data.shape).encode())
    digest.update(np.ascontiguousarray(data.T).data)
    digest.update(np.round(affine, 5).tobytes())
    return digest.hexdigest()


def label(contrast: str) -> str:
    """How a message calls a contrast: "T2", "FLAIR", "The brain mask"."""
    return NAMES.get(contrast, contrast.upper())


def truncated(contrast: str, have: int | None, need: int) -> D3MError:
    """The error for a file that ends before its header says so."""
    amount = "" if have is None else f": it holds {have:,} of {need:,} bytes"
    return D3MError(
        f"{label(contrast)} is truncated{amount}.", "Copy or export the file again: it was not transferred completely."
    )


def damaged(contrast: str, reason: str) -> D3MError:
    """The error for a file whose header or packing makes no sense."""
    return D3MError(f"{label(contrast)} is damaged: {reason}.", "Copy or export the file again.")


@contextlib.contextmanager
def reading(contrast: str) -> Iterator[None]:
    """Turn what reading and unpacking may raise into `D3MError`."""
    try:
        yield
    except EOFError as error:
        raise truncated(contrast, None, 0) from error
    except (zlib.error, gzip.BadGzipFile) as error:
        raise damaged(contrast, f"its compressed data cannot be unpacked ({error})") from error
    except MemoryError as error:
        raise D3MError(
            f"There is not enough memory to read {label(contrast)}.", "Close other programs and run again.", "machine"
        ) from error
    except OSError as error:
        raise D3MError(
            f"{label(contrast)} could not be read: {error.strerror or error}.",
            "Check the disk, and copy the file again.",
        ) from error


@contextlib.contextmanager
def open_file(path: Path, contrast: str) -> Iterator[BinaryIO]:
    """Open a regular file for reading.

    Raises:
        D3MError: missing, a folder, a device or pipe, forbidden, empty.
    """
    name = label(contrast)
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise D3MError(f"{name} does not exist: {path}.", "Check the path that you gave.") from error
    except PermissionError as error:
        raise D3MError(
            f"You have no permission to read {name}: {path}.", "Ask for permission to read this file and its folder."
        ) from error
    except (OSError, ValueError) as error:
        reason = "its name is too long" if getattr(error, "errno", 0) == errno.ENAMETOOLONG else str(error)
        raise D3MError(f"{name} cannot be opened: {reason}.", "Check the path that you gave.") from error
    if stat.S_ISDIR(status.st_mode):
        raise D3MError(
            f"{name} is a folder, where a file is needed: {path}.",
            "Give one NIfTI, NRRD or MetaImage file.",
        )
    if not stat.S_ISREG(status.st_mode):
        raise D3MError(f"{name} is not a file but a device or pipe: {path}.", "Give a file on a disk.")
    if status.st_size == 0:
        raise D3MError(f"{name} is empty (0 bytes): {path}.", "Copy or export the file again.")
    try:
        stream = path.open("rb")
    except PermissionError as error:
        raise D3MError(
            f"You have no permission to read {name}: {path}.", "Ask for permission to read this file."
        ) from error
    except OSError as error:
        raise D3MError(f"{name} cannot be opened: {error.strerror}.", "Check the path that you gave.") from error
    with stream:
        yield stream


def beside(header: Path, name: str, contrast: str) -> Path:
    """The file of the voxels that a header names: it must lie in the header's own folder or below.

    A header from elsewhere could otherwise have any file of this machine read, and shown in the result.

    Raises:
        D3MError: an absolute path, a way up, or a link that leads out of the folder.
    """
    folder = header.parent
    parts = re.split(r"[/\\]", name)
    try:
        place = folder / name
        inside = place.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a loop of links, a character that no path has
        inside = False
    if not inside or ".." in parts or not parts[0] or re.match(r"[A-Za-z]:", name):
        raise D3MError(
            f"The header of {label(contrast)} names a file outside of its own folder, which is not read.",
            "Put the file with the voxels itself (no link) beside the header, or save both as one NIfTI or NRRD file.",
        )
    return place


def unpack(stream: BinaryIO) -> tuple[BinaryIO, bool]:
    """The stream behind gzip, whatever the file is called; also when it was packed twice.

    Returns:
        The stream at its start, and whether it is packed.
    """
    packed = False
    for _ in range(2):
        magic = stream.read(2)
        stream.seek(0)
        if magic != b"\x1f\x8b":
            break
        stream, packed = cast(BinaryIO, gzip.GzipFile(fileobj=stream, mode="rb")), True
    return stream, packed


class _Inflating(io.RawIOBase):
    """A zlib stream (as MetaImage packs its voxels), unpacked as it is read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._engine = stream, zlib.decompressobj(wbits=47)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object, /) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        while not self._engine.eof:
            piece = self._engine.unconsumed_tail or self._stream.read(2**16)
            data = self._engine.decompress(piece, len(view))
            if data:
                view[: len(data)] = data
                return len(data)
            if not piece:
                raise EOFError
        return 0


def decoded(stream: BinaryIO, encoding: str) -> BinaryIO:
    """The voxels' bytes from where `stream` stands.

    Args:
        stream: At the first byte of the voxels.
        encoding: "raw", "gzip", "zlib" or "bzip2".
    """
    if encoding == "gzip":
        return cast(BinaryIO, gzip.GzipFile(fileobj=stream, mode="rb"))
    if encoding == "zlib":
        return io.BufferedReader(_Inflating(stream), 2**16)
    if encoding == "bzip2":
        return cast(BinaryIO, bz2.BZ2File(stream))
    return stream


def check_size(shape: tuple[int, ...], itemsize: int, available: int, packed: bool, contrast: str) -> None:
    """Compare what a header declares with what the file can hold, before any memory is asked for.

    Args:
        shape: Declared size.
        itemsize: Bytes per voxel.
        available: Bytes of the file that may hold voxels.
        packed: Whether these are compressed.
        contrast: For the message.

    Raises:
        D3MError: an absurd size; a file too short for it; more than the free memory.
    """
    size = " x ".join(str(n) for n in shape)
    if len(size) > 60:
        size = size[:60] + "..."
    if any(n < 1 for n in shape):
        raise damaged(contrast, f"its header declares {size} voxels")
    need = math.prod(shape) * itemsize
    if math.prod(shape) > MAX_VOXELS:
        raise damaged(contrast, f"its header declares {size} voxels, more than any scan has")
    if not packed and available < need:
        raise truncated(contrast, max(available, 0), need)
    if packed and available * MAX_DEFLATE_RATIO < need:
        raise damaged(contrast, f"its header declares {size} voxels, more than a file of this size can hold")
    if packed and contrast not in FLAT and need > max(available * MAX_SCAN_RATIO, FREE_RATIO_BYTES):
        raise damaged(contrast, f"its header declares {size} voxels, but next to nothing is packed in it")
    free = free_memory()
    if free is not None and math.prod(shape) * WORK_BYTES > free:
        raise D3MError(
            f"{label(contrast)} has {size} voxels: {math.prod(shape) * WORK_BYTES / 2**30:.1f} GiB of memory would be "
            f"needed, and {free / 2**30:.1f} GiB are free.",
            "Close other programs, take another machine, or resample the scan to 1 mm.",
            "machine",
        )


def skip(stream: BinaryIO, count: int) -> None:
    """Pass over `count` bytes, a little at a time."""
    while count > 0:
        piece = stream.read(min(count, 2**20))
        if not piece:
            raise EOFError
        count -= len(piece)


def read_numbers(
    stream: BinaryIO, count: int, dtype: np.dtype, slope: float, intercept: float, contrast: str
) -> Floats:
    """`count` values from where `stream` stands, as float32 after slope and intercept.

    Never reads more than declared, apart from one byte that makes a packed stream check itself.

    Returns:
        (count,); values beyond float32 become infinite.

    Raises:
        D3MError: the stream ends early; more than a few values are too large or too small for float32.
    """
    result = np.empty(count, np.float32)
    done = seen = large = small = 0
    with np.errstate(over="ignore", invalid="ignore"):
        while done < count:
            wanted = min(CHUNK_VOXELS, count - done) * dtype.itemsize
            piece = stream.read(wanted)
            if len(piece) < wanted:
                raise truncated(contrast, done * dtype.itemsize + len(piece), count * dtype.itemsize)
            values = np.frombuffer(piece, dtype)
            if slope != 1.0 or intercept != 0.0:
                values = values.astype(np.float64) * slope + intercept
            result[done : done + len(values)] = values
            if values.dtype.kind == "f" and values.dtype.itemsize > 4:
                made = result[done : done + len(values)]
                seen += int(np.count_nonzero(values))
                large += int(np.count_nonzero(np.isinf(made) & np.isfinite(values)))
                small += int(np.count_nonzero((np.abs(made) < SMALLEST) & (values != 0)))
            done += len(values)
    stream.read(1)
    for many, what in ((large, "large"), (small, "small")):
        if many > MAX_OUTSIDE * seen:  # a few are how some programs mark what is missing
            raise D3MError(
                f"{label(contrast)} has {many:,} values that are too {what} for a scan: beyond what float32 holds.",
                "Export the scan again, or scale it: only relations between its intensities matter.",
            )
    return result
