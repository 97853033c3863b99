"""The mask of a run: made from the probability, edited by a person, measured. MRML alone."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import vtk

import slicer
from D3MSynthesisLib.Grids import matrixIn, segmentOn, voxelMl, writeMask
from D3MSynthesisLib.Runs import PREFIX, Nodes, alive

SEGMENT_NAME = "Enhancing tumour (predicted)"
EDITED_NAME = "Enhancing tumour (edited)"
GIVEN_NAME = "Enhancing tumour (given)"
NAMED = re.compile(r"(?i)(?<=enhancing tumour) \((?:predicted|edited|given)\)")
"""What says in the name of a segment, or of a node, where its mask comes from."""
ORIGINAL = PREFIX + "Original"
"""Tag of a segment: what tells the mask that the synthesis gave, and if a person had; copies and files have it, too."""
DELETED = "deleted"
"""In place of what tells a mask from others, where there is none any more."""
ROUNDING = 1e-6
"""The threshold is kept with so many digits: which side of it a voxel is on cannot be told when it is nearer."""
SEGMENT_COLOUR = (0.95, 0.35, 0.15)
TERMINOLOGY = (
    "Segmentation category and type - DICOM master list"
    "~SCT^49755003^Morphologically Altered Structure~SCT^86049000^Neoplasm, Primary~^^"
    "~Anatomic codes - DICOM master list~SCT^12738006^Brain~^^"
)


def addSegment(nodes_segmentation: Any, identifier: str, name: str = SEGMENT_NAME) -> None:
    """Make the run's segment, with its colour and terminology."""
    segmentation = nodes_segmentation.GetSegmentation()
    segmentation.AddEmptySegment(identifier, name, SEGMENT_COLOUR)
    segment = segmentation.GetSegment(identifier)
    segment.SetTag(segment.GetTerminologyEntryTagName(), TERMINOLOGY)


def maskOf(nodes: Nodes, grid: Any = None) -> Any:
    """The mask as it is now, (K, J, I) bool: every segment of the run's segmentation.

    Segments that a person has added count; nothing is left of segments that were deleted.

    Args:
        nodes: The run.
        grid: The volume whose grid it is given on; the synthetic image by default.
    """
    import numpy as np

    grid = nodes.cemri if grid is None else grid
    shape = grid.GetImageData().GetDimensions()[::-1]
    mask = np.zeros(shape, bool)
    if not alive(nodes.segmentation):
        return mask
    segmentation = nodes.segmentation.GetSegmentation()
    for index in range(segmentation.GetNumberOfSegments()):
        mask |= segmentOn(nodes.segmentation, segmentation.GetNthSegmentID(index), grid)
    return mask


def predictedMask(nodes: Nodes) -> Any:
    """The mask that the probability gives at the threshold, (K, J, I) bool."""
    probability = slicer.util.arrayFromVolume(nodes.probability)
    return (probability >= nodes.threshold) & (probability > 0)


def setThreshold(nodes: Nodes, threshold: float) -> float:
    """Make the mask again from the probability; what a person drew is gone (`drawnBy`), names and colours stay.

    Args:
        nodes: The run.
        threshold: Probability from 0 to 1.

    Returns:
        The enhancing volume in ml.
    """
    probability = slicer.util.arrayFromVolume(nodes.probability)
    mask = (probability >= threshold) & (probability > 0)
    segmentation = nodes.segmentation.GetSegmentation()
    for index in reversed(range(segmentation.GetNumberOfSegments())):
        if segmentation.GetNthSegmentID(index) != nodes.segmentID:
            segmentation.RemoveSegment(segmentation.GetNthSegmentID(index))
    if segmentation.GetSegment(nodes.segmentID) is None:
        addSegment(nodes.segmentation, nodes.segmentID)
    name = segmentation.GetSegment(nodes.segmentID).GetName() or ""
    named = SEGMENT_NAME if NAMED.search(name) else name  # a person may have given it another one
    place = matrixIn(nodes.segmentation, nodes.probability)  # a transform may have been hardened onto one of them
    writeOriginal(nodes.segmentation, nodes.segmentID, mask, place, named)
    _call(nodes.segmentation, SEGMENT_NAME)
    nodes.cemri.SetAttribute(PREFIX + "MaskEdited", None)
    nodes.cemri.SetAttribute(PREFIX + "Threshold", f"{threshold:.6g}")
    return measure(nodes, mask)


def measure(nodes: Nodes, mask: Any) -> float:
    """Keep the volume of a mask on `Nodes.grid`, and what tells it from others, with the run; returns it in ml."""
    import numpy as np

    volume = float(mask.sum()) * voxelMl(nodes.grid)
    nodes.cemri.SetAttribute(PREFIX + "EnhancingVolumeMl", f"{volume:.6g}")
    digest = hashlib.blake2b(np.packbits(mask).tobytes(), digest_size=8).hexdigest()
    if nodes.maskDeleted:
        digest = DELETED
    nodes.cemri.SetAttribute(PREFIX + "MaskDigest", digest)
    return volume


def drawnBy(nodes: Nodes) -> tuple[bool, list[str]]:
    """What a person has made of the run's mask and a new threshold would wipe.

    Returns:
        Whether voxels were changed, and the names of segments that were added.
    """
    own = nodes.segmentation.GetSegmentation().GetSegment(nodes.segmentID)
    return nodes.edited, [segment.GetName() or "" for segment in _segments(nodes) if segment is not own]


def _segments(nodes: Nodes) -> list[Any]:
    """The segments of the run's segmentation, those of a person, too; none where it was deleted."""
    return segmentsOf(nodes.segmentation.GetSegmentation()) if alive(nodes.segmentation) else []


def segmentsOf(segmentation: Any) -> list[Any]:
    """The segments of a `vtkSegmentation`."""
    return [segmentation.GetNthSegment(index) for index in range(segmentation.GetNumberOfSegments())]


def noticeEdit(nodes: Nodes) -> bool:
    """Look whether a person has changed the mask; if so its volume follows, and its segment is named so.

    Returns:
        Whether the mask is now another one than before.
    """
    import numpy as np

    before = (nodes.edited, nodes.enhancingVolumeMl, nodes.maskDigest)
    mask = maskOf(nodes, nodes.grid)
    now = measure(nodes, mask)
    if alive(nodes.probability):
        original = originalMask(nodes)
        changed = mask != original
        if len(_segments(nodes)) > 1:  # voxels that were given to another segment are still in the whole
            own = nodes.segmentation.GetSegmentation().GetSegment(nodes.segmentID) is not None
            changed |= (segmentOn(nodes.segmentation, nodes.segmentID, nodes.grid) if own else False) != original
        near = np.abs(slicer.util.arrayFromVolume(nodes.probability) - nodes.threshold) <= ROUNDING
        edited = bool((changed & ~near).any())
    else:  # it was deleted: what was edited stays so, and a mask that is not the one before is another one
        moved = bool(before[2]) and nodes.maskDigest != before[2]
        edited = before[0] or moved or abs(now - before[1]) > 1e-3 * voxelMl(nodes.grid)
    nodes.cemri.SetAttribute(PREFIX + "MaskEdited", "yes" if edited else None)
    if alive(nodes.segmentation):
        name = EDITED_NAME if edited else (GIVEN_NAME if nodes.given else SEGMENT_NAME)
        for named in (nodes.segmentation, *_segments(nodes)):
            _call(named, name)
    return (nodes.edited, nodes.enhancingVolumeMl, nodes.maskDigest) != before


def _call(named: Any, name: str) -> None:
    """Say in the name of a segment or node, where it speaks of our mask, what `name` says of it."""
    old = named.GetName() or ""
    new = NAMED.sub(NAMED.search(name).group(), old)  # type: ignore[union-attr]
    if new != old:
        named.SetName(new)


def writeOriginal(segmentation: Any, identifier: str, mask: Any, ijkToRAS: Any, name: str) -> None:
    """Make a mask that a synthesis gave, (K, J, I) bool, the contents of a segment, which remembers it."""
    writeMask(segmentation, identifier, mask, ijkToRAS)
    segment = segmentation.GetSegmentation().GetSegment(identifier)
    segment.SetName(name)
    remember(segment, name == GIVEN_NAME)


def remember(segment: Any, given: bool = False) -> None:
    """Tag a segment with what its mask is now, as the one that a synthesis gave."""
    segment.SetTag(ORIGINAL, f"{shapeOfSegment(segment)} given" if given else shapeOfSegment(segment))


def tagOf(segment: Any) -> str | None:
    """What `remember` has tagged a segment with; None: it was never one that a synthesis gave."""
    kept = vtk.reference("")
    return str(kept) if segment.GetTag(ORIGINAL, kept) else None


def shapeOfSegment(segment: Any) -> str:
    """What tells a segment's voxels from others, as a text; where they lie does not count."""
    from vtk.util.numpy_support import vtk_to_numpy

    image = segment.GetRepresentation("Binary labelmap")
    if image is None or image.GetNumberOfPoints() == 0 or image.GetPointData().GetScalars() is None:
        return "empty"
    array = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
    return shapeOf(array == segment.GetLabelValue())  # segments may share an image


def shapeOf(mask: Any) -> str:
    """The same of a mask, (K, J, I) bool."""
    import numpy as np

    if not mask.any():
        return "empty"
    found = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    mask = mask[tuple(slice(index[0], index[-1] + 1) for index in found)]
    return hashlib.blake2b(repr(mask.shape).encode() + np.packbits(mask).tobytes(), digest_size=8).hexdigest()


def noticeCopies(segmentation: Any) -> None:
    """Name the copies of runs' masks in a segmentation node by what they are now: as they were given, or edited."""
    names = []
    for segment in segmentsOf(segmentation.GetSegmentation()):
        tag = tagOf(segment)
        if tag is None:
            continue
        shape, *given = tag.split()
        names.append(EDITED_NAME if shapeOfSegment(segment) != shape else GIVEN_NAME if given else SEGMENT_NAME)
        _call(segment, names[-1])
    if names:
        _call(segmentation, EDITED_NAME if EDITED_NAME in names else names[0])


def record(nodes: Nodes) -> dict[str, Any]:
    """What the mask is as it is now, for the provenance of files: predicted, or changed or deleted by a person."""
    noticeEdit(nodes)
    return {
        "edited": nodes.edited,
        "deleted": nodes.maskDeleted,
        "threshold": nodes.threshold,
        "enhancing_volume_ml": None if nodes.maskDeleted else round(savedVolumeMl(nodes), 3),
    }


def savedVolumeMl(nodes: Nodes) -> float:
    """Volume of the mask in ml as it lies in files: these have no transform, so none counts that the run is under."""
    return float(maskOf(nodes, nodes.grid).sum()) * voxelMl(nodes.grid, world=False)


def originalMask(nodes: Nodes) -> Any:
    """The mask that the engine gave with the run at this threshold: predicted, or given to it by a person."""
    if nodes.given:
        return slicer.util.arrayFromVolume(nodes.probability) >= 0.5
    return predictedMask(nodes)
