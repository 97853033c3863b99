"""Pixels of one DICOM file, unpacked; what would unpack to more than its header declares is refused before."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import Any

from d3m.volumes.io.dicom.headers import require_pydicom
from d3m.volumes.io.dicom.series import transfer_syntax

_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
"""JPEG markers that are followed by the size of the image (ITU-T T.81, B.2.2; T.87, C.2.2 for JPEG-LS)."""

UNDEFINED = 2**32 - 1
MAX_OTHERS = 2**26
"""Bytes of a file that are not its pixels: of many frames a header may be long."""
LARGE = 2**20
"""Bytes of an element that is only read once it is known to be wanted."""
TAGS = (
    "SpecificCharacterSet", "SOPClassUID", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation",
    "PlanarConfiguration", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "NumberOfFrames",
    "PerFrameFunctionalGroupsSequence", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData",
)  # fmt: skip
"""What is read of a file: its private elements may be of any size."""


def unpacked(path: Path) -> Any:
    """The stored values of a file.

    Returns:
        (rows, columns) or (frames, rows, columns), whole numbers.

    Raises:
        ValueError: the pixels take more room, or compressed ones declare another size, than the header says; more
            frames than it has places for.
        Exception: whatever pydicom and its decoders raise for damaged files.
    """
    pydicom = require_pydicom()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they may show what is in the header
        dataset = pydicom.dcmread(path, defer_size=LARGE, specific_tags=list(TAGS), force=True)
        syntax = transfer_syntax(dataset)
        dataset.file_meta.TransferSyntaxUID = syntax
        frames = int(dataset.get("NumberOfFrames") or 1)
        if frames > len(dataset.get("PerFrameFunctionalGroupsSequence") or "1"):
            raise ValueError("more frames than places")
        stored = frames * int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated) / 8
        length = dataset.get_item("PixelData", keep_deferred=True).length
        if length == UNDEFINED:  # in pieces: no more than the file
            length = path.stat().st_size - MAX_OTHERS
        if length > 2 * stored + LARGE:  # packed noise grows a little
            raise ValueError("the pixels take more room than the header says")
        if pydicom.uid.UID(syntax).is_encapsulated and syntax != pydicom.uid.RLELossless:
            for packed in pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=frames):
                if declared_size(packed) not in (None, (int(dataset.Rows), int(dataset.Columns))):
                    raise ValueError("the compressed pixels have another size than the header")
        return dataset.pixel_array


def declared_size(packed: bytes) -> tuple[int, int] | None:
    """(rows, columns) that a JPEG, JPEG-LS or JPEG 2000 stream declares; None if it declares none."""
    start = packed.find(b"\xff\x4f\xff\x51", 0, 4096)  # JPEG 2000, ITU-T T.800, A.5.1: SOC, then SIZ
    if start >= 0:
        if len(packed) < start + 24:
            return None
        right, bottom, left, top = struct.unpack(">4I", packed[start + 8 : start + 24])
        return bottom - top, right - left
    place = 2
    while packed[:2] == b"\xff\xd8" and place + 9 <= len(packed) and packed[place] == 0xFF:
        marker, length = packed[place + 1], int.from_bytes(packed[place + 2 : place + 4], "big")
        if marker in _SIZES:
            rows, columns = struct.unpack(">2H", packed[place + 5 : place + 9])
            return rows, columns
        place += 1 if marker == 0xFF else 2 + length
    return None
