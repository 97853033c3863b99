"""A run in the scene as files for the user."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import slicer
from d3m.results.ours import PROVENANCE, SAVED
from D3MSynthesisLib import Masks
from D3MSynthesisLib.Runs import alive

MAX_NAME = 60


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
        files = dict(savedNodes(nodes))
        content = nodes.provenance | {
            "mask": Masks.record(nodes),
            SAVED: list(files),
        }  # it names an edited mask so, before it is written
        for name, node in files.items():
            storage = _storageFor(node)
            storage.SetFileName(str(temporary / name))
            storage.SetUseCompression(True)
            if not storage.WriteData(node):
                raise OSError(f"{name} cannot be written.")
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        (temporary / PROVENANCE).write_text(text, encoding="utf-8", newline="\n")
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def savedNodes(nodes: Any) -> Iterator[tuple[str, Any]]:
    """File names and nodes of what is saved."""
    for name, node in (
        ("synthetic_cemri.nrrd", nodes.cemri),
        ("synthetic_subtraction.nrrd", nodes.subtraction),
        ("enhancement_probability.nrrd", nodes.probability),
        ("enhancement.seg.nrrd", nodes.segmentation),
        ("synthetic_first_sample.nrrd", nodes.sample),
        ("deformation.nii.gz", nodes.deformation),
        ("deformation_magnitude.nrrd", nodes.magnitude),
        ("uncertainty.nrrd", nodes.uncertainty),
        ("whole_tumour_probability.nrrd", nodes.wholeTumour),
    ):
        if alive(node):
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
