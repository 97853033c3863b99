"""What Slicer makes of a result's nodes keeps the mark: clones, conversions, exports, copied segments. MRML alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from D3MSynthesisLib.Assignment import SYNTHETIC, isSynthetic, keepMark
from D3MSynthesisLib.ExportTags import tagArrived
from D3MSynthesisLib.Masks import remember, segmentsOf, shapeOf, shapeOfSegment, tagOf
from D3MSynthesisLib.Places import fileOf
from D3MSynthesisLib.Runs import RUN, nodesOf

_WORDS = "segmentation|label(?:map)?|copy|cropped|resampled|hardened|transformed|masked|models?"
BEHIND = re.compile(rf"(?i)(?:[ _-]+(?:{_WORDS})(?:_\d+)?)+")
"""What Slicer writes behind the name of a node when it makes another one from it."""
MADE = ("vtkMRMLScalarVolumeNode", "vtkMRMLSegmentationNode", "vtkMRMLModelNode")
"""What is made, and of what."""


def keepMarks(arrived: Iterable[Any]) -> bool:
    """Keep with nodes that have come that they are synthetic: by what they say, else by what they were made from.

    Returns:
        Whether any of this is new.
    """
    new = False
    for node in arrived:
        marked = keepMark(node)
        if not marked and node.GetAttribute(SYNTHETIC) is None and not _hasSource(node) and _isNamedAfterOurs(node):
            node.SetAttribute(SYNTHETIC, "yes")
            marked = True
        if node.IsA("vtkMRMLScalarVolumeNode") and node.GetAttribute(SYNTHETIC) is not None:
            tagArrived(node)
        tagged = node.IsA("vtkMRMLSegmentationNode") and tagSegments(node)
        new = new or marked or tagged
    return new


def tagSegments(node: Any) -> bool:
    """Tag segments that are a synthesis' own, so that they are known in whatever segmentation they are copied to.

    All of a marked segmentation, unless it has tags that tell them apart; elsewhere those that have exactly the voxels
    of a marked label map, or of a tagged segment: Slicer names an imported segment by its colour.

    Returns:
        Whether a tag is new.
    """
    if node.GetAttribute(RUN):
        return False  # it was made with them
    segments = segmentsOf(node.GetSegmentation())
    bare = [segment for segment in segments if tagOf(segment) is None]
    if node.GetAttribute(SYNTHETIC) is None or len(bare) < len(segments):
        ours = set() if _hasSource(node) or not bare else _shapes(node.GetScene())
        bare = [segment for segment in bare if ours and shapeOfSegment(segment) in ours]
    for segment in bare:
        remember(segment)
    return bool(bare)


def _hasSource(node: Any) -> bool:
    """Whether a node came from outside: then that says what it is, and its name may be another patient's, too."""
    return fileOf(node) is not None or bool(node.GetAttribute("DICOM.instanceUIDs"))


def _isNamedAfterOurs(node: Any) -> bool:
    """Whether a node has the name of a synthetic one with what Slicer writes behind it, and of no other one's."""
    name = node.GetName() or ""
    found: list[tuple[int, bool]] = []
    for base, ours in _bases(node):
        rest = name[len(base) :]
        if base and name.startswith(base) and (BEHIND.fullmatch(rest) or (not rest and node.IsA("vtkMRMLModelNode"))):
            found.append((len(base), ours))
    longest = max((length for length, _ours in found), default=0)
    return any(ours for length, ours in found if length == longest)


def _bases(node: Any) -> Iterator[tuple[str, bool]]:
    """Names that what Slicer makes of other nodes and segments begins with, and whether those are synthetic."""
    for kind in MADE:
        for other in nodesOf(node.GetScene(), kind):
            if other is node:
                continue
            name, ours = other.GetName() or "", isSynthetic(other)
            yield name, ours
            if other.IsA("vtkMRMLSegmentationNode"):
                for segment in segmentsOf(other.GetSegmentation()):
                    own, tag = segment.GetName() or "", tagOf(segment)
                    theirs = ours if tag is None else not tag.endswith(" given")
                    yield from ((text, theirs) for text in (own, f"{name}-{own}", f"{name}_{own}") if own)


def _shapes(scene: Any) -> set[str]:
    """What tells the voxels of marked label maps and of tagged segments from others; without what a person gave."""
    from vtk.util.numpy_support import vtk_to_numpy

    ours, given = set(), {"empty"}
    for node in nodesOf(scene, "vtkMRMLLabelMapVolumeNode"):
        image = node.GetImageData()
        if node.GetAttribute(SYNTHETIC) is not None and image is not None and image.GetPointData().GetScalars():
            array = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
            ours.add(shapeOf(array != 0))
    for node in nodesOf(scene, "vtkMRMLSegmentationNode"):
        for segment in segmentsOf(node.GetSegmentation()):
            shape, *person = (tagOf(segment) or "empty").split()
            (given if person else ours).add(shape)
    return ours - given
