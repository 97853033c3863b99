"""The engine's output folder as arrays."""

from __future__ import annotations

import gzip
import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NUMBER_TYPES = {2: "u1", 4: "<i2", 8: "<i4", 16: "<f4", 64: "<f8"}
VOLUMES = ("cemri", "subtraction", "enhancement_probability", "enhancement_mask")
STEP_IMAGES = ("before", "after", "mask", "field")


@dataclass(frozen=True)
class Image:
    """Voxels as Slicer orders them, and where they lie."""

    array: Any
    """(K, J, I), or (K, J, I, 3) for vectors of RAS millimetres."""
    ijkToRAS: Any
    """(4, 4)."""


@dataclass(frozen=True)
class Output:
    """A complete output folder."""

    folder: Path
    provenance: dict[str, Any]
    comparison: dict[str, Any] | None
    steps: tuple[int, ...] = field(default=())
    """Steps done of the trace, ascending; empty without one."""

    def image(self, name: str) -> Image:
        """One image: a name of `VOLUMES`, "deformation" or "uncertainty"."""
        return readNifti(self.folder / f"{name}.nii.gz")

    def has(self, name: str) -> bool:
        """Whether there is such an image."""
        return (self.folder / f"{name}.nii.gz").is_file()

    def step(self, done: int, name: str) -> Image:
        """One image of a step: a name of `STEP_IMAGES`."""
        return readNifti(self.folder / "trace" / f"step_{done:03d}_{name}.nii.gz")


def readOutput(folder: Path) -> Output:
    """Look at an output folder.

    Raises:
        ValueError: it is not complete, or a file is not what the provenance says.
    """
    try:
        provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
        for name, entry in provenance["files"].items():
            if (folder / name).stat().st_size != entry["bytes"]:
                raise ValueError(f"The result is not complete: {name}.")
        path = folder / "comparison.json"
        comparison = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, KeyError, TypeError, AttributeError) as error:
        raise ValueError("The result is not complete.") from error
    missing = [name for name in (*VOLUMES, "deformation") if not (folder / f"{name}.nii.gz").is_file()]
    if missing:
        raise ValueError(f"The result is not complete: {missing[0]}.")
    steps = sorted(int(path.name[5:-14]) for path in (folder / "trace").glob("step_*_before.nii.gz"))
    return Output(folder, provenance, comparison, tuple(steps))


def readNifti(path: Path) -> Image:
    """Read a NIfTI-1 file as the engine writes it: little endian, gzip, sform, three axes, or five with vectors.

    Raises:
        ValueError: it is not such a file, or shorter than it says.
    """
    import numpy as np

    with gzip.open(path) as f:
        raw = f.read()
    if len(raw) < 352 or raw[344:347] != b"n+1" or raw[:4] != b"\x5c\x01\x00\x00":
        raise ValueError(f"{path.name} is not a NIfTI file of the engine.")
    dims = struct.unpack_from("<8h", raw, 40)
    kind = struct.unpack_from("<h", raw, 70)[0]
    offset = int(struct.unpack_from("<f", raw, 108)[0])
    rows = np.frombuffer(raw, "<f4", 12, 280).reshape(3, 4).astype(float)
    shape = dims[1 : dims[0] + 1]
    vectors = len(shape) == 5 and shape[3:] == (1, 3)
    if kind not in NUMBER_TYPES or not (len(shape) == 3 or vectors):
        raise ValueError(f"{path.name} has an unexpected kind of voxels.")
    count = int(np.prod(shape))
    if len(raw) < offset + count * np.dtype(NUMBER_TYPES[kind]).itemsize:
        raise ValueError(f"{path.name} is cut off.")
    array = np.frombuffer(raw, NUMBER_TYPES[kind], count, offset).reshape(shape[::-1])
    if vectors:
        array = np.moveaxis(array[:, 0], 0, -1)
    return Image(np.ascontiguousarray(array), np.vstack([rows, [0, 0, 0, 1]]))
