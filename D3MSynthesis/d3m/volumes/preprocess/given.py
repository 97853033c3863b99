"""A mask of the enhancing tumour that somebody gives: read, told from other masks, and brought onto T1's grid."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d3m.errors import D3MError, Notice
from d3m.volumes.geometry import voxel_mm3
from d3m.volumes.grid import resample
from d3m.volumes.types import Mask, Volume

MAX_VALUES = 64
"""A label map has fewer values; a map of probabilities has more."""
MIN_IN_VIEW, MIN_IN_BRAIN = 0.9, 0.5
"""Share of the mask that must lie within T1's field of view, and within the brain."""
TOLD_OUTSIDE = 0.02
"""Share outside the brain from which on it is said that this part was cut."""
MAX_OF_BRAIN = 0.5
"""No enhancing tumour fills more of the brain: that is a brain mask."""
HEADER_BYTES = 200_000
"""Of a .seg.nrrd file; its segments' names stand there."""


@dataclass(frozen=True)
class GivenMask:
    """The enhancing tumour as a person gave it."""

    mask: Mask
    """(X, Y, Z) on T1's grid, within the brain."""
    sha256: str
    """Content hash of the file's voxels and geometry."""


def enhancement_from_file(
    volume: Volume, t1: Volume, brain: Mask, label: str | None, names: dict[str, int] | None = None
) -> tuple[GivenMask, list[Notice]]:
    """The enhancing tumour of a label map.

    Args:
        volume: The label map, on any grid of T1's frame of reference.
        t1: Any orientation.
        brain: (X, Y, Z) on T1's grid.
        label: Which labels are the enhancing tumour: a value, a segment's name, or several with commas between; None:
            the only one that there is.
        names: Values of the file's named segments.

    Raises:
        D3MError: no label map; several labels and no choice; the chosen one is not there; nothing marked; a mask that
            lies elsewhere, or marks the brain.
    """
    chosen = np.isin(np.rint(volume.data), _values(volume, label, names or {}))
    cell = voxel_mm3(volume.affine) / voxel_mm3(t1.affine)
    same = volume.data.shape == t1.data.shape and np.array_equal(volume.affine, t1.affine)
    # the share of each voxel that is marked: a finer or thicker mask keeps its volume
    on_t1 = chosen if same else resample(chosen.astype(np.float32), volume.affine, t1.affine, _shape(t1)) >= 0.5
    notices = []
    if not same:
        text = "The enhancement mask has a grid of its own; it was brought onto T1's."
        notices.append(Notice("mask-resampled", text, "enhancement_mask"))
    share = float(on_t1.sum() / (chosen.sum() * cell))
    if share < MIN_IN_VIEW and (chosen.sum() * cell > 8 or share == 0):
        raise D3MError(
            f"Only {100 * share:.0f} % of the enhancement mask lies where T1 was scanned.",
            "Give the mask of this patient, in T1's frame of reference (--enhancement-mask).",
        )
    inside = on_t1 & brain
    within = float(inside.sum() / max(on_t1.sum(), 1))
    if within < MIN_IN_BRAIN:
        raise D3MError(
            f"Only {100 * within:.0f} % of the enhancement mask lies in the brain.",
            "Give the mask of this patient, in T1's frame of reference (--enhancement-mask).",
        )
    if inside.sum() > MAX_OF_BRAIN * brain.sum():
        raise D3MError(
            f"The enhancement mask marks {100 * inside.sum() / brain.sum():.0f} % of the brain.",
            "Give the mask of the enhancing tumour alone; a brain mask goes to --brain-mask.",
        )
    if 1 - within > TOLD_OUTSIDE:
        text = f"{100 * (1 - within):.0f} % of the enhancement mask lies outside the brain; that part was left out."
        notices.append(Notice("mask-cut", text, "enhancement_mask"))
    return GivenMask(inside, volume.sha256), notices


def _shape(t1: Volume) -> tuple[int, int, int]:
    x, y, z = t1.data.shape
    return x, y, z


def _values(volume: Volume, label: str | None, names: dict[str, int]) -> list[int]:
    """The values that are the enhancing tumour."""
    data = volume.data
    if not np.isfinite(data).all():
        raise D3MError("The enhancement mask holds values that are not numbers.", "Save it as a label map.")
    found = np.unique(data)
    if len(found) > MAX_VALUES or np.abs(found - np.rint(found)).max() > 1e-3:
        raise D3MError(
            f"The enhancement mask holds {len(found)} different values: it is not a label map.",
            "Give a map with one whole number for each tissue, 0 for none; cut a map of probabilities at a threshold.",
        )
    there = [int(value) for value in np.rint(found) if value]
    if not there:
        raise D3MError(
            "The enhancement mask is empty.", "Mark the enhancing tumour in it, or leave --enhancement-mask out."
        )
    described = f"holds {', '.join(map(str, there))}" + (f" ({', '.join(names)})" if names else "")
    if label is None:
        if len(there) > 1:
            raise D3MError(
                f"The enhancement mask {described}: which of them is the enhancing tumour was not given.",
                "Give it with --enhancing-label (BraTS: 4 until 2021, 3 since 2023).",
            )
        return there
    known = {name.lower(): value for name, value in names.items()}
    wanted = []
    for text in (part.strip() for part in label.split(",")):
        value = known.get(text.lower(), int(text) if re.fullmatch(r"\d{1,6}", text) else None)
        if value is None or value not in there:
            raise D3MError(
                f"The enhancement mask has no label {text}: it {described}.", "Choose another --enhancing-label."
            )
        wanted.append(value)
    return wanted


def segment_names(path: Path) -> dict[str, int]:
    """Names and values of the segments of a .seg.nrrd file (3D Slicer); empty for any other file."""
    try:
        with path.open("rb") as file:
            head = file.read(HEADER_BYTES)
    except OSError:
        return {}
    if not head.startswith(b"NRRD"):
        return {}
    text = head.partition(b"\n\n")[0].decode("utf-8", "replace")
    fields = dict(re.findall(r"^(Segment\d{1,4}_(?:Name|LabelValue)):=(.{1,200}?)\r?$", text, re.MULTILINE))
    names = {}
    for key, name in fields.items():
        value = fields.get(key.replace("_Name", "_LabelValue"), "1")
        if key.endswith("_Name") and re.fullmatch(r"\d{1,6}", value):
            names[name] = int(value)
    return names
