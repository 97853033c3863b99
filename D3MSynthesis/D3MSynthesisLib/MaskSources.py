"""What a mask of the scene was made on or from, kept with it: that says whose it is, and may leave the scene."""

from __future__ import annotations

from typing import Any

import slicer
from D3MSynthesisLib.Belonging import acquiredIn, isOfOtherVisit, saysNothing
from D3MSynthesisLib.Copies import BEHIND
from D3MSynthesisLib.Grids import SAME_VOXEL, matrixOf
from D3MSynthesisLib.Identity import Gone, identityOf, putBeside
from D3MSynthesisLib.Masks import segmentsOf, shapeOf, shapeOfSegment
from D3MSynthesisLib.Places import ORIGIN, UNKNOWN, keepPlace, placeOf, wasRead
from D3MSynthesisLib.Runs import INPUTS, PREFIX, ROLE, RUN, T1_PLACE, Nodes, alive, nodesOf, sizeOf

SCAN, SCAN_PLACE = PREFIX + "DrawnOn", PREFIX + "DrawnOnPlace"
"""Attributes of a segmentation: name of the scan that it was drawn on, and `Places.placeOf` of it."""


def t1Of(result: Any) -> Any:
    """The T1 that a result was made from; where it is gone what is kept of it, None if nothing is."""
    t1 = result.GetNodeReference(PREFIX + INPUTS["t1"])
    if alive(t1):
        return t1
    if result.GetAttribute(ROLE) != "cemri":  # the synthetic image alone keeps it
        return None
    identity = identityOf(result)  # it lies in T1's examination
    attributes = {ORIGIN: result.GetAttribute(T1_PLACE) or UNKNOWN}
    if identity.study:  # scans of one came from DICOM
        attributes["DICOM.instanceUIDs"] = "gone"
    return Gone(Nodes("", 0, None, result).t1Name, identity, attributes)


def drawnOn(mask: Any) -> Any:
    """The scan that a segmentation was drawn on in Segment Editor, of a synthetic image its T1; None if unknown.

    Of a scan that has left the scene it is what `keepScan` has kept.
    """
    if not mask.IsA("vtkMRMLSegmentationNode"):
        return None
    image, name = _imageOf(mask), mask.GetAttribute(SCAN)
    scan = None if image is None else t1Of(image) or image
    if name and (scan is None or scan.GetAttribute(RUN)):  # of a run's other images the synthetic one may be gone
        return Gone(name, identityOf(mask), {ORIGIN: mask.GetAttribute(SCAN_PLACE) or UNKNOWN})
    return scan


def _imageOf(mask: Any) -> Any:
    """The image that a segmentation was drawn on; of a run's other images its synthetic one."""
    image = mask.GetNodeReference(mask.GetReferenceImageGeometryReferenceRole())
    run = None if image is None else image.GetAttribute(RUN)
    images = nodesOf(image.GetScene(), "vtkMRMLScalarVolumeNode") if run and alive(image) else []
    results = [node for node in images if node.GetAttribute(RUN) == run and node.GetAttribute(ROLE) == "cemri"]
    return results[0] if results else image


def keepScan(image: Any) -> None:
    """Keep with the masks that were drawn on an image whose it is: it is about to leave the scene."""
    for mask in nodesOf(image.GetScene(), "vtkMRMLSegmentationNode"):
        if mask.GetAttribute(RUN) or _imageOf(mask) is not image:
            continue
        scan = drawnOn(mask)
        mask.SetAttribute(SCAN, scan.GetName())
        mask.SetAttribute(SCAN_PLACE, placeOf(scan) or None)
        if identityOf(scan).known and not identityOf(mask).known:
            putBeside(mask, scan if alive(scan) else image)


def keepSource(mask: Any) -> bool:
    """Keep with a segmentation what a mask that was read has, if it was imported or copied from that.

    Returns:
        Whether it was.
    """
    if mask.GetAttribute(RUN) or mask.GetAttribute(ORIGIN) or _imageOf(mask) is not None:
        return False
    source = _copiedFrom(mask)
    if source is None:
        return False
    keepPlace(mask, like=source)
    if identityOf(source).known and not identityOf(mask).known:
        putBeside(mask, source)
    return True


def _copiedFrom(mask: Any) -> Any:
    """The mask from outside that has the voxels of all segments; of several the one that this one is named after."""
    scene, name = mask.GetScene(), mask.GetName() or ""
    shapes = {(shapeOfSegment(one), one.GetLabelValue()) for one in segmentsOf(mask.GetSegmentation())}
    shapes = {(shape, value) for shape, value in shapes if shape != "empty"}
    others = [*nodesOf(scene, "vtkMRMLLabelMapVolumeNode"), *nodesOf(scene, "vtkMRMLSegmentationNode")]
    others = [one for one in others if one is not mask and not one.GetAttribute(RUN)]
    others = [one for one in others if shapes and (wasRead(one) or identityOf(one).known)]
    found = [one for one in others if all(_has(one, *shape) for shape in shapes)]
    named = [one for one in found if name == one.GetName() or _isMadeName(name, one.GetName() or "")]
    return next(iter([*named, *(found if len(found) == 1 else [])]), None)


def _isMadeName(name: str, base: str) -> bool:
    """Whether a name is another one with what Slicer writes behind it."""
    return name.startswith(base) and BEHIND.fullmatch(name[len(base) :]) is not None


def _has(mask: Any, shape: str, value: int) -> bool:
    """Whether a mask has a segment or label of a shape; labels keep their value when they are imported."""
    if mask.IsA("vtkMRMLSegmentationNode"):
        return shape in map(shapeOfSegment, segmentsOf(mask.GetSegmentation()))
    if mask.GetImageData() is None:
        return False
    array = slicer.util.arrayFromVolume(mask)
    return shape in (shapeOf(array == value), shapeOf(array != 0))


def isOf(scan: Any, t1: Any) -> bool | None:
    """Whether the scan that a mask was drawn on is of T1's patient and date; None where nothing says it."""
    if isOfOtherVisit(scan, t1) or isOfOtherRuns(scan, t1):
        return False
    return True if not saysNothing(scan, t1) or _goesWith(scan, t1) else None


def isOfOtherRuns(scan: Any, t1: Any) -> bool:
    """Whether a scan was used with T1s of another patient or date, and never with this one."""
    if not (alive(scan) and alive(t1)):
        return False
    images = nodesOf(t1.GetScene(), "vtkMRMLScalarVolumeNode")
    used = [node for node in images if any(node.GetNodeReference(PREFIX + role) is scan for role in INPUTS.values())]
    owners = [owner for owner in map(t1Of, used) if owner is not None]
    return any(isOfOtherVisit(owner, t1) for owner in owners) and not any(owner is t1 for owner in owners)


def _goesWith(scan: Any, t1: Any) -> bool:
    """Whether a scan was used with T1, or has T1's voxels, as what is registered has, and no other patient's has."""
    if not (alive(scan) and alive(t1)):
        return False
    images = nodesOf(t1.GetScene(), "vtkMRMLScalarVolumeNode")
    results = [node for node in images if node.GetNodeReference(PREFIX + INPUTS["t1"]) is t1]
    if any(node.GetNodeReference(PREFIX + role) is scan for node in results for role in INPUTS.values()):
        return True
    if not wasRead(t1) and not identityOf(t1).known and othersThan(t1, t1.GetScene()):
        return False  # "T1 registered" may be of either date
    return _onGrid(t1, scan) and not any(
        _onGrid(node, scan) and isFromElsewhere(node, t1) for node in acquiredIn(t1.GetScene())
    )


def _onGrid(one: Any, other: Any) -> bool:
    same = sizeOf(one) == sizeOf(other)
    return same and bool(abs(matrixOf(one) - matrixOf(other)).max() <= SAME_VOXEL)


def othersThan(t1: Any, scene: Any) -> bool:
    """Whether scans of other patients or dates than T1's are in a scene, or scans that came otherwise than T1."""
    from D3MSynthesisLib.Assignment import contrastOf, furtherOf, nodeDescription

    known = [identityOf(node) for node in acquiredIn(scene)]
    if any(
        len({text for text in texts if text}) > 1 for texts in ([i.patient for i in known], [i.study for i in known])
    ):
        return True
    described = [(node, nodeDescription(node)) for node in acquiredIn(scene)]
    found = [node for node, text in described if contrastOf(text) or furtherOf(text)]
    return any(isFromElsewhere(node, t1) for node in found)


def isFromElsewhere(scan: Any, t1: Any) -> bool:
    """Whether a scan is of another patient or date than T1, or one came with a scene and the other from a file."""
    origins = [node.GetAttribute(ORIGIN) for node in (scan, t1)]
    known = identityOf(scan).known and identityOf(t1).known
    return isOfOtherVisit(scan, t1) or (not known and all(origins) and origins.count(UNKNOWN) == 1)
