"""The engine's output folder as arrays, and a run in the scene as files for the user."""

from __future__ import annotations

import gzip
import json
import os
import re
import secrets
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import slicer

NUMBER_TYPES = {2: "u1", 4: "<i2", 8: "<i4", 16: "<f4", 64: "<f8"}
VOLUMES = ("cemri", "subtraction", "enhancement_probability", "enhancement_mask")
STEP_IMAGES = ("before", "after", "mask", "field")
MAX_NAME = 60


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


def safeName(name: str) -> str:
    """A part of a file name that every system takes, from any name of a node."""
    text = re.sub(r"[^\w.+-]+", "_", name, flags=re.UNICODE).strip("._ ")[:MAX_NAME].strip("._ ")
    return text or "result"


def saveRun(nodes: Any, folder: Path) -> Path:
    """Write a run as files into a new folder: volumes as NRRD, segmentation, transform, provenance.

    The files lie in the same frame as T1's own file: transforms that the nodes are under are not applied.

    Args:
        nodes: The run's `Runs.Nodes`.
        folder: An existing folder; in it a folder with the run's name is made, with a number if the name is taken.

    Returns:
        The new folder. It exists whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    target = _freeName(folder, safeName(nodes.cemri.GetName()))
    temporary = folder / f".d3m-partial-{secrets.token_hex(6)}"
    temporary.mkdir()  # with the rights that any folder gets there
    try:
        for name, node in savedNodes(nodes):
            storage = _storageFor(node)
            storage.SetFileName(str(temporary / name))
            storage.SetUseCompression(True)
            if not storage.WriteData(node):
                raise OSError(f"{name} cannot be written.")
        content = nodes.provenance | {"mask": maskRecord(nodes)}
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        (temporary / "provenance.json").write_text(text, encoding="utf-8", newline="\n")
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def maskRecord(nodes: Any) -> dict[str, Any]:
    """What the mask that is saved is, for the provenance: predicted, or changed by a person."""
    return {
        "edited": nodes.edited,
        "threshold": nodes.threshold,
        "enhancing_volume_ml": round(nodes.enhancingVolumeMl, 3),
    }


def savedNodes(nodes: Any) -> Iterator[tuple[str, Any]]:
    """File names and nodes of what is saved."""
    for name, node in (
        ("synthetic_cemri.nrrd", nodes.cemri),
        ("subtraction.nrrd", nodes.subtraction),
        ("enhancement_probability.nrrd", nodes.probability),
        ("enhancement.seg.nrrd", nodes.segmentation),
        ("first_sample.nrrd", nodes.sample),
        ("deformation.nii.gz", nodes.deformation),
        ("deformation_magnitude.nrrd", nodes.magnitude),
        ("uncertainty.nrrd", nodes.uncertainty),
        ("whole_tumour_probability.nrrd", nodes.wholeTumour),
    ):
        if node is not None:
            yield name, node


def _storageFor(node: Any) -> Any:
    """A storage node outside the scene, so that saving does not change where the scene keeps its own files."""
    if node.IsA("vtkMRMLSegmentationNode"):
        return slicer.vtkMRMLSegmentationStorageNode()
    if node.IsA("vtkMRMLTransformNode"):
        return slicer.vtkMRMLTransformStorageNode()
    return slicer.vtkMRMLVolumeArchetypeStorageNode()


def _freeName(folder: Path, name: str) -> Path:
    path, number = folder / name, 2
    while os.path.lexists(path):
        path, number = folder / f"{name}_{number}", number + 1
    return path
