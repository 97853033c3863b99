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


def unpacked(path: Path) -> Any:
    """The stored values of a file.

    Returns:
        (rows, columns) or (frames, rows, columns), whole numbers.

    Raises:
        ValueError: the compressed pixels declare another size than the header, or more frames than it has places for.
        Exception: whatever pydicom and its decoders raise for damaged files.
    """
    pydicom = require_pydicom()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they may show what stands in the header
        dataset = pydicom.dcmread(path, force=True)
        syntax = transfer_syntax(dataset)
        dataset.file_meta.TransferSyntaxUID = syntax
        frames = int(dataset.get("NumberOfFrames") or 1)
        if frames > len(dataset.get("PerFrameFunctionalGroupsSequence") or "1"):
            raise ValueError("more frames than places")
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
