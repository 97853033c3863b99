"""Volumes that are one frame of a sequence: named, and kept as they were when the run was started."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import slicer
from d3m.progress import Progress
from D3MSynthesisLib.Engine import SynthesisError
from D3MSynthesisLib.Identity import putBeside
from D3MSynthesisLib.Runs import nodesOf, sequencesLogic
from D3MSynthesisLib.Texts import _


@dataclass(frozen=True)
class FrameOfSequence:
    """Which frame of which sequence a node shows now."""

    browser: Any
    sequence: Any
    number: int
    """From 0, in the node's own sequence; -1 if it cannot be told."""
    count: int

    @property
    def title(self) -> str:
        """What the frame is called: counted from 1, with its time or other index."""
        if self.number < 0:
            return _("one of {m} frames").format(m=self.count)
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
    found = []
    for browser in nodesOf(scene, "vtkMRMLSequenceBrowserNode"):
        sequence = browser.GetSequenceNode(node)
        if sequence is not None and sequence.GetNumberOfDataNodes():
            number = _shown(node, browser, sequence)
            found.append(FrameOfSequence(browser, sequence, number, sequence.GetNumberOfDataNodes()))
    if len(found) > 1:  # browsers share a proxy: it shows what the one has put there that was moved last
        found.sort(key=lambda frame: not _alike(node, frame.sequence.GetNthDataNode(frame.number)))
    return found[0] if found else None


def _shown(node: Any, browser: Any, sequence: Any) -> int:
    """Which frame of its own sequence a proxy shows: the browser counts those of its master sequence."""
    selected, master = browser.GetSelectedItemNumber(), browser.GetMasterSequenceNode()
    if master is not None and 0 <= selected < master.GetNumberOfDataNodes():
        number = _numberAt(browser, sequence, selected)
        if number >= 0:
            return number
    # the master has a frame that this sequence lacks: the proxy may be left as it was
    count = sequence.GetNumberOfDataNodes()
    return next((number for number in range(count) if _alike(node, sequence.GetNthDataNode(number))), -1)


def _numberAt(browser: Any, sequence: Any, item: int) -> int:
    """The frame that a sequence shows at an item of the browser; -1 if it has none (UpdateProxyNodesFromSequences)."""
    value = browser.GetMasterSequenceNode().GetNthIndexValue(item)
    nearest = browser.GetMissingItemMode(sequence) == browser.MissingItemCreateFromPrevious
    return int(sequence.GetItemNumberFromIndexValue(value, not nearest))


def _alike(node: Any, other: Any) -> bool:
    """Whether two nodes show the same: voxels of volumes; of other nodes it is not looked at."""
    if not (node.IsA("vtkMRMLVolumeNode") and other is not None and other.IsA("vtkMRMLVolumeNode")):
        return False
    if node.GetImageData() is None or other.GetImageData() is None:
        return False
    import numpy as np

    return np.array_equal(slicer.util.arrayFromVolume(node), slicer.util.arrayFromVolume(other))


def keep(scans: dict[str, Any]) -> list[Any]:
    """Replace scans and masks that are frames of sequences by copies, which bear the frame in their names.

    Args:
        scans: Volumes or segmentations by role; changed in place.

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
        if node.IsA("vtkMRMLSegmentationNode"):
            _copySegments(node, copy)
        else:
            image = node.GetImageData().NewInstance()
            image.DeepCopy(node.GetImageData())
            copy.CopyOrientation(node)
            copy.SetAndObserveImageData(image)
            copy.CreateDefaultDisplayNodes()
        copy.SetAndObserveTransformNodeID(node.GetTransformNodeID())
        for attribute in ("DICOM.instanceUIDs",):
            copy.SetAttribute(attribute, node.GetAttribute(attribute))
        putBeside(copy, node)
        scans[role] = copy
        copies.append(copy)
    return copies


def _copySegments(node: Any, copy: Any) -> None:
    """Segments with their visibility, which decides whether they belong to the mask; not shown beside the others."""
    copy.GetSegmentation().DeepCopy(node.GetSegmentation())
    copy.CreateDefaultDisplayNodes()
    copy.GetDisplayNode().SetVisibility(False)
    display = node.GetDisplayNode()
    for index in range(node.GetSegmentation().GetNumberOfSegments() if display is not None else 0):
        segment = node.GetSegmentation().GetNthSegmentID(index)
        copy.GetDisplayNode().SetSegmentVisibility(segment, display.GetSegmentVisibility(segment))


def select(browser: Any, item: int) -> None:
    """Show an item of a browser; browsers that play together follow as they do in the application."""
    browser.SetSelectedItemNumber(item)
    sequencesLogic(browser.GetScene()).UpdateProxyNodesFromSequences(browser)


def _items(frame: FrameOfSequence) -> list[int]:
    """The item of the browser that shows each frame of a sequence, at its own time where there is such an item.

    Raises:
        SynthesisError: the browser cannot show every one.
    """
    master = frame.browser.GetMasterSequenceNode()
    first: dict[int, int] = {}
    for item in range(master.GetNumberOfDataNodes()):
        number = _numberAt(frame.browser, frame.sequence, item)
        exact = frame.sequence.GetItemNumberFromIndexValue(master.GetNthIndexValue(item), True) >= 0
        first[number] = item if exact else first.get(number, item)
    lacking = [number for number in range(frame.count) if number not in first]
    if lacking:
        text = _("{n} of the {m} frames of T1 cannot be shown: the sequence browser {browser} has no such {index}.")
        raise SynthesisError(
            text.format(n=len(lacking), m=frame.count, browser=frame.browser.GetName(),
                        index=frame.sequence.GetIndexName() or _("item")),
            _("Make T1's sequence the master of the browser, in the module Sequences."),
        )  # fmt: skip
    return [first[number] for number in range(frame.count)]


def runFrames(
    logic: Any,
    t1: Any,
    t2: Any,
    flair: Any,
    quality: str = "standard",
    wait: bool = True,
    *,
    progress: Callable[[Progress], None] | None = None,
    finished: Callable[[Any, Any], None] | None = None,
    **settings: Any,
) -> list[Any]:
    """Synthesise every frame of the sequence that T1 is a proxy of, one after the other; else T1 as it is.

    Args:
        logic: A `SynthesisLogic`; the other arguments are those of its `run`.
        t1: T1; scans that are proxies of the same browser follow.
        t2: T2; None: left out.
        flair: FLAIR; None: left out.
        quality: See `run`.
        wait: See `run`.
        progress: Called with every event; fractions are of the whole.
        finished: Called after each frame with its nodes, and once with the error that ended it.
        settings: See `run`.

    Returns:
        The nodes of each frame; empty without `wait`.

    Raises:
        SynthesisError: see `run`; the frames that are done stay in the scene. Or a frame of T1 cannot be shown.
    """
    frame = frameOf(t1)
    items = [] if frame is None else _items(frame)
    count, shown = (1, 0) if frame is None else (frame.count, frame.browser.GetSelectedItemNumber())
    done: list[Any] = []

    def tell(event: Progress) -> None:
        if progress is not None:
            rest = event.eta_s if count == 1 else None
            progress(replace(event, fraction=(len(done) + event.fraction) / count, eta_s=rest))

    def start() -> None:
        if frame is not None:
            select(frame.browser, items[len(done)])
        logic.run(t1, t2, flair, quality, wait, progress=tell, finished=ended, **settings)

    def ended(nodes: Any, error: Any) -> None:
        there = t1.GetScene() is logic.scene
        if nodes is not None:
            done.append(nodes)
            if not wait and len(done) < count and there:
                try:
                    start()
                except SynthesisError as fault:
                    error = fault
        if frame is not None and there and (error is not None or len(done) == count):
            select(frame.browser, shown)
        if finished is not None:
            finished(nodes, error)

    start()
    while wait and len(done) < count:
        start()
    return done if wait else []
