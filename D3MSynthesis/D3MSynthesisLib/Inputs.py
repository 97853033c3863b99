"""The volumes that go in: which node is which scan, whether they can be used, and how they are written for the engine.

Everything is written in the local frame of T1, that is, before any transform that T1 is under. T2 and FLAIR are brought
into that frame as they are *shown*, so that a registration which is not hardened counts; results are then put under the
transform of T1. So nothing is used untransformed in silence, and nothing is transformed twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vtk

import slicer
from D3MSynthesisLib.Texts import _

SYNTHETIC = "D3M.Synthetic"
"""Attribute of every node that this module made."""
MAX_SHEAR = 1e-3
"""Cosine between two axes above which a volume is resampled rather than written with its own axes."""
CONTRASTS = ("T1", "T2", "FLAIR", "T1 with contrast")


@dataclass(frozen=True)
class Assignment:
    """Which node is which scan; None where no node fits."""

    t1: Any = None
    t2: Any = None
    flair: Any = None
    t1c: Any = None

    def __iter__(self) -> Iterator[Any]:
        return iter((self.t1, self.t2, self.flair, self.t1c))


def contrastOf(description: str) -> str | None:
    """Which scan a name or description speaks of: see `d3m.volumes.io.dicom.descriptions.contrast_of`."""
    from d3m.volumes.io.dicom.descriptions import contrast_of

    return contrast_of(description)


def nodeDescription(node: Any) -> str:
    """What a node says about itself: its name, and the descriptions of its DICOM series if it came from one."""
    texts = [node.GetName() or ""]
    instances = node.GetAttribute("DICOM.instanceUIDs")
    database = getattr(slicer, "dicomDatabase", None)
    if instances and database is not None:
        for tag in ("0008,103E", "0018,1030"):
            texts.append(database.instanceValue(instances.split()[0], tag) or "")
        if database.instanceValue(instances.split()[0], "0018,0010"):
            texts.append("with contrast")
    return " ; ".join(text for text in texts if text)


def assignInputs(nodes: Iterable[Any], describe: Callable[[Any], str] = nodeDescription) -> Assignment:
    """Find T1, T2, FLAIR, and a real T1 with contrast, among volume nodes, by what they say about themselves.

    Args:
        nodes: In the order of the scene; nodes made by this module are left out.
        describe: Gives the text for a node.

    Returns:
        The group of nodes with a common name (such as the patient's in BraTS names) that fills most places; within
        a group the first node of a kind.
    """
    groups: dict[str, dict[str, Any]] = {}
    everything: dict[str, Any] = {}
    for node in nodes:
        if node is None or node.GetAttribute(SYNTHETIC):
            continue
        text = describe(node)
        kind = contrastOf(text)
        if kind is None:
            continue
        stem = re.sub(r"(?i)[ _-]*(t1|t2|flair|mprage).*$", "", node.GetName() or "")
        groups.setdefault(stem, {}).setdefault(kind, node)
        everything.setdefault(kind, node)
    best = max(groups.values(), key=lambda found: sum(kind in found for kind in ("t1", "t2", "flair")), default={})
    if not {"t1", "t2", "flair"} <= best.keys():
        best = everything
    return Assignment(**best)


def readiness(
    t1: Any, t2: Any, flair: Any, brainMask: Any = None, reference: Any = None, referenceMask: Any = None
) -> str | None:
    """Why the synthesis cannot run with these nodes yet, in one sentence; None if it can."""
    scans = list(zip(CONTRASTS, (t1, t2, flair), strict=False))
    missing = [name for name, node in scans if node is None]
    if missing:
        return _("Choose {scans}.").format(scans=_and(missing))
    named = [*scans, ("The real T1c", reference)]
    seen: dict[str, str] = {}
    for name, node in [*named, ("The brain mask", brainMask), ("The real tumour", referenceMask)]:
        if node is None:
            continue
        if node.GetID() in seen:
            other = name[0].lower() + name[1:] if name.startswith("The") else name
            return _("{first} and {second} are the same volume.").format(first=seen[node.GetID()], second=other)
        seen[node.GetID()] = name
        fault = _fault(name, node)
        if fault:
            return fault
    for name, node in scans:
        if node.GetAttribute(SYNTHETIC):
            return _("{scan} is a synthetic image; choose an acquired scan.").format(scan=name)
    if contrastOf(nodeDescription(t1)) == "t1c":
        return _("The volume chosen as T1 says that it is with contrast; choose the T1 before contrast.")
    return None


def _fault(name: str, node: Any) -> str | None:
    if node.IsA("vtkMRMLSegmentationNode"):
        return None if node.GetSegmentation().GetNumberOfSegments() else _("{scan} has no segment.").format(scan=name)
    image = node.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0:
        return _("{scan} has no voxels.").format(scan=name)
    if image.GetNumberOfScalarComponents() != 1:
        return _("{scan} is a colour or vector volume, not a scan.").format(scan=name)
    if min(image.GetDimensions()) < 2:
        return _("{scan} is a single slice; a volume is needed.").format(scan=name)
    return None


def _and(names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    return _("{first} and {last}").format(first=", ".join(names[:-1]), last=names[-1])


def transformNotice(t1: Any, t2: Any, flair: Any) -> str | None:
    """A sentence for the panel when inputs are under transforms: what is done about it; None if none is."""
    named = [(name, node) for name, node in zip(CONTRASTS, (t1, t2, flair), strict=False) if node is not None]
    under = [name for name, node in named if node.GetParentTransformNode() is not None]
    if not under:
        return None
    resampled = [name for name, node in named if t1 is not None and toFrameOf(node, t1) is None]
    text = _("Under a transform, and used as shown: {scans}. The volumes themselves stay unchanged.")
    if resampled:
        text = _(
            "Under a transform, and used as shown: {scans}; resampled onto T1, since the transform is not rigid: "
            "{resampled}. The volumes themselves stay unchanged."
        )
    return text.format(scans=_and(under), resampled=_and(resampled) if resampled else "")


def hardenedCopies(nodes: Iterable[Any]) -> list[Any]:
    """Copies of volume nodes with the transforms that they are under applied to them; the nodes stay as they are."""
    copies = []
    for node in nodes:
        copy = slicer.mrmlScene.AddNewNodeByClass(node.GetClassName(), f"{node.GetName()} hardened")
        image = vtk.vtkImageData()
        image.DeepCopy(node.GetImageData())
        copy.CopyOrientation(node)
        copy.SetAndObserveImageData(image)
        copy.CreateDefaultDisplayNodes()
        copy.SetAndObserveTransformNodeID(node.GetTransformNodeID())
        copy.HardenTransform()
        copies.append(copy)
    return copies


def matrixOf(node: Any) -> Any:
    """Voxel index to RAS in the node's local frame, as numpy (4, 4)."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def toFrameOf(node: Any, t1: Any) -> Any:
    """The matrix from a node's local frame to T1's; None if it is not linear, or shears the voxels."""
    import numpy as np

    matrix = vtk.vtkMatrix4x4()
    source, target = node.GetParentTransformNode(), t1.GetParentTransformNode()
    if not slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(source, target, matrix):
        return None
    result = slicer.util.arrayFromVTKMatrix(matrix)
    axes = (result @ matrixOf(node))[:3, :3] if hasattr(node, "GetIJKToRASMatrix") else result[:3, :3]
    axes = axes / np.linalg.norm(axes, axis=0)
    return result if abs(axes.T @ axes - np.eye(3)).max() <= MAX_SHEAR else None


def writeInput(node: Any, t1: Any, path: Path) -> None:
    """Write a volume or a segmentation without loss, in T1's local frame, as NRRD.

    Args:
        node: A volume; of a segmentation all visible segments are written as one mask on T1's grid.
        t1: Its frame is written in.
        path: Ends with .nrrd.

    Raises:
        OSError: it cannot be written.
    """
    if node.IsA("vtkMRMLSegmentationNode"):
        image, matrix = _maskOnT1(node, t1), matrixOf(t1)
    else:
        frame = toFrameOf(node, t1)
        if frame is None:
            image, matrix = _resampled(node, t1), matrixOf(t1)
        else:
            image, matrix = node.GetImageData(), frame @ matrixOf(node)
    copy = slicer.vtkMRMLScalarVolumeNode()  # outside the scene: nobody sees it, and a proxy node cannot change it
    copy.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    copy.SetAndObserveImageData(image)
    storage = slicer.vtkMRMLNRRDStorageNode()
    storage.SetFileName(str(path))
    storage.SetUseCompression(True)
    storage.SetCompressionParameter(storage.GetCompressionParameterFastest())
    if not storage.WriteData(copy) or not path.is_file():
        raise OSError("The temporary folder cannot be written.")


def _maskOnT1(segmentation: Any, t1: Any) -> Any:
    """All visible segments as one binary image on T1's grid; the exporter honours transforms."""
    import numpy as np
    from vtk.util.numpy_support import numpy_to_vtk

    shape = t1.GetImageData().GetDimensions()[::-1]
    mask = np.zeros(shape, np.uint8)
    display = segmentation.GetDisplayNode()
    for index in range(segmentation.GetSegmentation().GetNumberOfSegments()):
        identifier = segmentation.GetSegmentation().GetNthSegmentID(index)
        if display is None or display.GetSegmentVisibility(identifier):
            mask |= slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, identifier, t1).astype(np.uint8)
    image = vtk.vtkImageData()
    image.SetDimensions(shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(mask.reshape(-1), deep=True))
    return image


def _resampled(node: Any, t1: Any) -> Any:
    """The voxels of a volume on T1's grid, through whatever transforms both are under, linearly interpolated."""
    toNode = vtk.vtkGeneralTransform()  # T1's local frame to the node's
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(
        t1.GetParentTransformNode(), node.GetParentTransformNode(), toNode
    )
    rasToIjk = vtk.vtkMatrix4x4()
    node.GetRASToIJKMatrix(rasToIjk)
    whole = vtk.vtkGeneralTransform()
    whole.PostMultiply()
    whole.Concatenate(slicer.util.vtkMatrixFromArray(matrixOf(t1)))
    whole.Concatenate(toNode)
    whole.Concatenate(rasToIjk)
    plain = vtk.vtkImageData()  # voxel indices are the coordinates
    plain.ShallowCopy(node.GetImageData())
    plain.SetSpacing(1, 1, 1)
    plain.SetOrigin(0, 0, 0)
    reslice = vtk.vtkImageReslice()
    reslice.SetInputData(plain)
    reslice.SetResliceTransform(whole)
    reslice.SetInterpolationModeToLinear()
    reslice.SetOutputSpacing(1, 1, 1)
    reslice.SetOutputOrigin(0, 0, 0)
    reslice.SetOutputExtent(*(bound for size in t1.GetImageData().GetDimensions() for bound in (0, size - 1)))
    reslice.Update()
    return reslice.GetOutput()
