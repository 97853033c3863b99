"""Volumes that are one frame of a sequence: named, and kept as they were when the run was started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import slicer
from D3MSynthesisLib.Runs import sequencesLogic
from D3MSynthesisLib.Texts import _


@dataclass(frozen=True)
class FrameOfSequence:
    """Which frame of which sequence a node shows now."""

    browser: Any
    sequence: Any
    number: int
    """From 0."""
    count: int

    @property
    def title(self) -> str:
        """What the frame is called: counted from 1, with its time or other index."""
        value = self.sequence.GetNthIndexValue(self.number)
        unit = self.sequence.GetIndexUnit() or ""
        return _("frame {n} of {m}, {name} {value}").format(
            n=self.number + 1, m=self.count, name=self.sequence.GetIndexName() or "", value=f"{value} {unit}".strip()
        )


def frameOf(node: Any) -> FrameOfSequence | None:
    """The frame that a node shows; None if it is no proxy of a sequence."""
    scene = None if node is None else node.GetScene()
    if scene is None:
        return None
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLSequenceBrowserNode")):
        browser = scene.GetNthNodeByClass(index, "vtkMRMLSequenceBrowserNode")
        sequence = browser.GetSequenceNode(node)
        if sequence is not None and sequence.GetNumberOfDataNodes():
            return FrameOfSequence(
                browser, sequence, max(browser.GetSelectedItemNumber(), 0), sequence.GetNumberOfDataNodes()
            )
    return None


def keep(scans: dict[str, Any]) -> list[Any]:
    """Replace scans that are frames of sequences by copies, which bear the frame in their names.

    Args:
        scans: By role; changed in place.

    Returns:
        The copies. They stay where the proxies are, under the same transforms.
    """
    copies = []
    for role, node in scans.items():
        frame = frameOf(node)
        if frame is None:
            continue
        scene = node.GetScene()
        name = scene.GenerateUniqueName(f"{node.GetName()} ({frame.title})")
        copy = scene.AddNewNodeByClass(node.GetClassName(), name)
        image = node.GetImageData().NewInstance()
        image.DeepCopy(node.GetImageData())
        copy.CopyOrientation(node)
        copy.SetAndObserveImageData(image)
        copy.CreateDefaultDisplayNodes()
        copy.SetAndObserveTransformNodeID(node.GetTransformNodeID())
        for attribute in ("DICOM.instanceUIDs",):
            copy.SetAttribute(attribute, node.GetAttribute(attribute))
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
        item = hierarchy.GetItemByDataNode(node)
        if item:
            parent = hierarchy.GetItemParent(item)
            own = hierarchy.GetItemByDataNode(copy) or hierarchy.CreateItem(parent, copy)
            hierarchy.SetItemParent(own, parent)
        scans[role] = copy
        copies.append(copy)
    return copies


def select(frame: FrameOfSequence, number: int) -> None:
    """Show another frame; browsers that play together follow as they do in the application."""
    frame.browser.SetSelectedItemNumber(number)
    sequencesLogic(frame.browser.GetScene()).UpdateProxyNodesFromSequences(frame.browser)
