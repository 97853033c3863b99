"""What tells results from acquired images, by their files and their names. Pure: Slicer's own process imports it.

Whoever writes an image takes its mark from here, so that no output is forgotten where results are recognised.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from pathlib import Path
from typing import Any

MARK = b"synthetic, research use only"
"""NIfTI description of every image that is written."""
DESCRIPTION = "SYNTHETIC CEMRI (D3M), research only"
"""Of the DICOM series."""
EXPORT = "SYNTHETIC, research only"
"""Beginning of the description of a series that Slicer's own exporter writes: what comes behind it may be cut off."""
MASKS = ("predicted", "edited", "given")
"""Where the mask of a result comes from: the model, a person who changed the model's, a person alone."""
PROVENANCE = "provenance.json"
"""Lies in the folder of every result."""
SAVED = "saved"
"""Of the provenance that Slicer's panel saves: names of the files beside it."""

_NAMES = re.compile(
    rf"(?i)synthetic[ _,]+(?:cemri|subtraction|first[ _]sample|predicted|edited|(?:before|after)[ _]warp)|{EXPORT}"
    r"|desc-synth(?:t1c|subtraction|uncertainty|spread|firstsample)|enhancing tumour \((?:predicted|edited)\)"
    r"|[ _]enhancement[ _]probability(?:[ _]at[ _]step)?(?:_\d+)?$|predicted[ _]tumour[ _]probability"
    r"|[ _]deformation[ _]magnitude[ _]\(mm\)(?:_\d+)?$"
)
"""Names that results have in the scene, in files, BIDS derivatives and DICOM; scanners make synthetic contrasts of
their own."""
_IN_RESULT = re.compile(
    r"(?i)(?:cemri|subtraction|first_sample|enhancement|enhancement_(?:probability|mask)|uncertainty"
    r"|whole_tumour_probability|deformation(?:_magnitude)?|(?P<step>step_\d+_(?:before|after|mask)))(?:_\d+)?"
)
"""Names in a result's folder that others may use, too: for files that other programs have written again in formats that
do not carry `MARK`. Slicer numbers a second node of a name."""
_NIFTI = (".nii", ".nii.gz")
_DESCRIPTION_AT, _HEADER = 148, 348
"""Bytes of a NIfTI-1 header."""
_MAX_PROVENANCE_BYTES = 10_000_000


def segmentation_description(mask: str) -> str:
    """Series description of the DICOM segmentation of a mask of `MASKS`."""
    return "Given enhancing tumour of SYNTHETIC CEMRI" if mask == "given" else f"SYNTHETIC {mask} enhancing tumour"


def is_our_name(name: str) -> bool:
    """Whether a name or description is one that results alone have."""
    return _NAMES.search(name) is not None


def is_our_file(path: Path, name: str = "") -> bool:
    """Whether a file is an image of a result, wherever it lies and whatever it is called now.

    Args:
        path: The file; it may be gone.
        name: What it is called by who has read it.
    """
    if _is_marked(path):
        return True
    above = path.parent.parent  # steps lie one folder deeper
    for folder in (path.parent, above):
        if path.relative_to(folder).as_posix() in (_listed(folder) or ()):
            return True
    if path.name.lower().endswith(_NIFTI):  # it would carry the mark: what lies beside a result may be a real scan
        return False
    found = [named for text in (name, path.name.split(".")[0]) if (named := _IN_RESULT.fullmatch(text))]
    return any(_listed(above if named["step"] else path.parent) is not None for named in found)


def _is_marked(path: Path) -> bool:
    """Whether a NIfTI file's description is ours."""
    if not path.name.lower().endswith(_NIFTI):
        return False
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            header = file.read(_HEADER)
    except (OSError, EOFError, zlib.error):
        return False
    return header[_DESCRIPTION_AT:].startswith(MARK)


def provenance_in(folder: Path) -> dict[str, Any] | None:
    """What a result's folder says of it; None if it is none."""
    path = folder / PROVENANCE
    try:
        if path.stat().st_size > _MAX_PROVENANCE_BYTES:
            return None
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and content.get("synthetic") else None


def _listed(folder: Path) -> set[str] | None:
    """The files that the provenance of a result's folder speaks of; None if it is none."""
    content = provenance_in(folder)
    if content is None:
        return None
    try:
        return {*map(str, content.get("files", ())), *map(str, content.get(SAVED, ()))}
    except TypeError:
        return None
