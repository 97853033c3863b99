"""What does not belong beside a result: of another patient, examination or run, or of nobody knows whom. MRML alone."""

from __future__ import annotations

from typing import Any

from D3MSynthesisLib.Assignment import contrastOf, furtherOf, isSynthetic
from D3MSynthesisLib.Belonging import isOfOtherVisit
from D3MSynthesisLib.Identity import identityOf
from D3MSynthesisLib.MaskBelonging import isNamedAfter, isOfSynthesis, maskBelongs
from D3MSynthesisLib.MaskSources import othersThan, t1Of
from D3MSynthesisLib.Places import ofOtherExamination, placeOf, wasRead
from D3MSynthesisLib.Runs import DATES, INPUTS, PREFIX, ROLE, RUN, nodesOf
from D3MSynthesisLib.Seen import composites, layersOf

STRANGE = "of another patient, examination or run"
UNSAID = "nothing says of which patient"
"""Beginning of what is written there where such a thing lies over a result, or under it."""


def dropStrangers(result: Any) -> None:
    """Take what is known to be of another patient or examination, or run, out of the views of a result.

    Args:
        result: The synthetic image. Label maps and layers of our own are dropped; segmentations, models, rendered
            volumes and markups are hidden.
    """
    scene = result.GetScene()
    for composite in composites(scene):
        label = scene.GetNodeByID(composite.GetLabelVolumeID() or "")
        if strangeness(label, result):
            composite.SetLabelVolumeID(None)
        for layer in layersOf(composite):
            if isStrange(scene.GetNodeByID(composite.GetNthLayerVolumeID(layer) or ""), result):
                composite.SetNthLayerVolumeID(layer, None)
    for node in (*nodesOf(scene, "vtkMRMLSegmentationNode"), *nodesOf(scene, "vtkMRMLModelNode")):
        if strangeness(node, result):
            _hide(node)
    for display in nodesOf(scene, "vtkMRMLVolumeRenderingDisplayNode"):
        if isStrange(display.GetDisplayableNode(), result):
            display.SetVisibility(False)
    for node in nodesOf(scene, "vtkMRMLMarkupsNode"):  # rulers and points know the image that they were put on
        points = range(node.GetNumberOfControlPoints())
        images = {node.GetNthControlPointAssociatedNodeID(point) for point in points} - {"", None}
        if any(isStrange(scene.GetNodeByID(one), result) for one in images):
            _hide(node)


def _hide(node: Any) -> None:
    for index in range(node.GetNumberOfDisplayNodes()):
        node.GetNthDisplayNode(index).SetVisibility(False)


def isStrange(node: Any, result: Any) -> bool:
    """Whether a node is of another run than a result, or is known to be of another patient or examination."""
    return strangeness(node, result) == STRANGE


def strangeness(node: Any, result: Any) -> str:
    """What is to be said of a node beside a result: `STRANGE`, `UNSAID`, or nothing.

    Of masks, label maps, synthetic images from files and what is called a scan names and folders tell it as well.
    `UNSAID` is one of the first three that says nothing, where scans of several patients are in the scene. The result
    may be an image that was read from a file itself: then what else was saved is compared with it by folders, scans by
    the examination that it was made from, or by names.
    """
    if node is None or node is result:
        return ""
    run = node.GetAttribute(RUN)
    if run:
        return STRANGE if run != result.GetAttribute(RUN) else ""
    if node in [result.GetNodeReference(PREFIX + INPUTS[name]) for name in INPUTS]:  # who chose it was told
        return ""
    mine, theirs = identityOf(result), identityOf(node)
    told = [pair for pair in ((mine.patient, theirs.patient), (mine.study, theirs.study)) if all(pair)]
    if told:  # who drew it may have put it beside the examinations of a patient
        return STRANGE if any(one != other for one, other in told) else ""
    isMask = node.IsA("vtkMRMLSegmentationNode") or node.IsA("vtkMRMLLabelMapVolumeNode")
    isSaved = wasRead(node) and isSynthetic(node)
    name = node.GetName() or ""  # of maps and atlases names say nothing about a patient
    isScan = node.IsA("vtkMRMLScalarVolumeNode") and bool(contrastOf(name) or furtherOf(name))
    if not result.GetAttribute(RUN):
        other = ofOtherExamination(result, node)
        if other is None and isScan and not isMask and not isSaved:
            other = isNamedAfter(result, node) is False
        return STRANGE if other or (isSaved and placeOf(node) != placeOf(result)) else ""
    if result.GetAttribute(ROLE) in DATES:  # nobody knows whose they are: no mask is known to be theirs
        return STRANGE if isMask else ""
    t1 = t1Of(result)
    if t1 is None:
        return ""
    if isMask or isSaved:
        belongs = maskBelongs(node, t1)
        if belongs is None:
            if isMask and isOfSynthesis(node):  # copies of a run's own are told by `Captions.maskCaption`
                return STRANGE if wasRead(node) and not _isOfRun(node, result) else ""
            return UNSAID if not theirs.patient and othersThan(t1, node.GetScene()) else ""
        return STRANGE if belongs is False else ""
    return STRANGE if isScan and isOfOtherVisit(node, t1) else ""


def _isOfRun(mask: Any, result: Any) -> bool:
    """Whether a mask that was read from a file is what a result's own one was made as."""
    from D3MSynthesisLib.Masks import segmentsOf, tagOf

    def tags(node: Any) -> set[str | None]:
        return {tagOf(segment) for segment in segmentsOf(node.GetSegmentation())} - {None, "empty"}

    if not mask.IsA("vtkMRMLSegmentationNode"):
        return False
    run, own = result.GetAttribute(RUN), nodesOf(result.GetScene(), "vtkMRMLSegmentationNode")
    own = [node for node in own if node.GetAttribute(RUN) == run and node.GetAttribute(ROLE) == "segmentation"]
    return any(tags(mask) & tags(node) for node in own)
