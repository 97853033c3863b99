"""Nodes from results. MRML alone: runs in Slicer as under its core without a window.

Geometry: what lies on T1's grid gets T1's own geometry; the field and the steps lie on the model's grid. Everything is
put under the transform that T1 is under, so results follow T1. The field is stored once, as a transform *from* parent:
at a point of the result it leads, in RAS millimetres, to the point that the value was taken from.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
from D3MSynthesisLib import Display
from D3MSynthesisLib.Grids import gridTransform, thresholdOf, voxelMl, writeMask
from D3MSynthesisLib.Inputs import SYNTHETIC, matrixOf
from D3MSynthesisLib.Results import STEP_IMAGES, Image, Output, readOutput
from D3MSynthesisLib.Runs import PREFIX, RUN, SEGMENT_ID, Nodes, proxies, updateProxies

SEGMENT_NAME = "Enhancing tumour (predicted)"
SEGMENT_COLOUR = (0.95, 0.35, 0.15)
TERMINOLOGY = (
    "Segmentation category and type - DICOM master list"
    "~SCT^49755003^Morphologically Altered Structure~SCT^86049000^Neoplasm, Primary~^^"
    "~Anatomic codes - DICOM master list~SCT^12738006^Brain~^^"
)
MAX_NAME = 80
"""Characters of T1's name that results bear: file names are made of node names when a scene is saved."""


@dataclass(frozen=True)
class Frame:
    """Where results go: what is remembered of T1 from the start of the run, since its node may be gone."""

    name: str
    ijkToRAS: Any
    """(4, 4), T1's voxels to its local frame."""
    t1: Any = None
    parentTransform: Any = None


def isSynthetic(node: Any) -> bool:
    """Whether a node was made by a synthesis."""
    return node is not None and node.GetAttribute(SYNTHETIC) is not None


def addRun(scene: Any, folder: Path, frame: Frame, reference: Any = None, threshold: float | None = None) -> Nodes:
    """Make the nodes of a run from the engine's output folder.

    Args:
        scene: The scene that gets them.
        folder: A complete output folder.
        frame: T1's name, geometry and transform.
        reference: The real T1c that was given for comparison.
        threshold: Of the mask; the engine's own by default.

    Raises:
        ValueError: the folder is not complete. The scene is unchanged then.
    """
    output = readOutput(folder)
    made: list[Any] = []
    scene.StartState(scene.BatchProcessState)
    try:
        builder = _Builder(scene, output, frame, made)
        return builder.run(reference, threshold)
    except BaseException:
        for node in made:
            scene.RemoveNode(node)
        raise
    finally:
        scene.EndState(scene.BatchProcessState)


class _Builder:
    """Makes the nodes of one run."""

    def __init__(self, scene: Any, output: Output, frame: Frame, made: list[Any]) -> None:
        self.scene, self.output, self.frame, self.made = scene, output, frame, made
        name = " ".join(frame.name.split()) or "T1"
        self.name = name if len(name) <= MAX_NAME else name[: MAX_NAME - 1].rstrip() + "…"
        self.runID = uuid.uuid4().hex[:12]

    def run(self, reference: Any, threshold: float | None) -> Nodes:
        import numpy as np

        output = self.output
        images = {name: output.image(name) for name in ("cemri", "subtraction", "enhancement_probability")}
        cemri = self.volume("cemri", "synthetic CEMRI", images["cemri"], self.frame.ijkToRAS)
        subtraction = self.volume("subtraction", "synthetic subtraction", images["subtraction"], self.frame.ijkToRAS)
        probability = self.volume(
            "probability", "enhancement probability", images["enhancement_probability"], self.frame.ijkToRAS
        )
        mask = output.image("enhancement_mask").array > 0
        if threshold is None:
            threshold = thresholdOf(images["enhancement_probability"].array, mask)
        field = output.image("deformation")
        deformation = self.transform("deformation", "deformation (last step)", field)
        length = np.linalg.norm(field.array.astype(np.float64), axis=-1).astype(np.float32)
        magnitude = self.volume("magnitude", "deformation magnitude (mm)", Image(length, field.ijkToRAS))
        uncertainty = None
        if output.has("uncertainty"):
            uncertainty = self.volume("uncertainty", "uncertainty", output.image("uncertainty"), self.frame.ijkToRAS)
        segmentation = self.segmentation(cemri, mask)
        nodes = Nodes(self.runID, 0, self.frame.t1, cemri, subtraction, probability, segmentation, deformation,
                      magnitude, uncertainty, reference)  # fmt: skip
        if output.steps:
            self.steps(nodes)
        content = {name: value for name, value in output.provenance.items() if name != "files"}
        cemri.SetAttribute(PREFIX + "Provenance", json.dumps(content, ensure_ascii=False))
        if output.comparison is not None:
            cemri.SetAttribute(PREFIX + "Comparison", json.dumps(output.comparison))
        for role, node in (("T1", self.frame.t1), ("T1c", reference)):
            if node is not None:
                cemri.SetNodeReferenceID(PREFIX + role, node.GetID())
        _setVolumeOfMask(nodes, threshold, mask)
        nodes.folderItem = self.hierarchy(nodes)
        Display.applyDefaults(nodes)
        return nodes

    def node(self, className: str, role: str, suffix: str) -> Any:
        """A new, marked node under T1's transform."""
        node = self.scene.AddNewNodeByClass(className, self.scene.GenerateUniqueName(f"{self.name} {suffix}"))
        self.made.append(node)
        self.mark(node, role)
        return node

    def mark(self, node: Any, role: str) -> None:
        settings, model = self.output.provenance.get("settings", {}), self.output.provenance.get("model", {})
        for name, value in (
            ("Synthetic", "yes"),
            ("Run", self.runID),
            ("Role", role),
            ("Seed", settings.get("seed")),
            ("Quality", settings.get("quality")),
            ("Steps", settings.get("steps")),
            ("Model", model.get("name")),
            ("ModelSha256", model.get("weights_sha256")),
            ("Version", self.output.provenance.get("software", {}).get("version")),
        ):
            node.SetAttribute(PREFIX + name, str(value))
        node.SetDescription("Synthetic, made by D3M; research use only")

    def volume(self, role: str, suffix: str, image: Image, ijkToRAS: Any = None) -> Any:
        """A scalar volume; T1's own matrix is more exact than the file's 32 bits."""
        node = self.node("vtkMRMLScalarVolumeNode", role, suffix)
        _fill(node, image, image.ijkToRAS if ijkToRAS is None else ijkToRAS)
        self.place(node)
        node.CreateDefaultDisplayNodes()
        return node

    def transform(self, role: str, suffix: str, image: Image) -> Any:
        node = self.node("vtkMRMLTransformNode", role, suffix)
        node.SetAndObserveTransformFromParent(gridTransform(image))
        self.place(node)
        node.CreateDefaultDisplayNodes()
        return node

    def place(self, node: Any) -> None:
        parent = self.frame.parentTransform
        if parent is not None and parent.GetScene() is not None:
            node.SetAndObserveTransformNodeID(parent.GetID())

    def segmentation(self, cemri: Any, mask: Any) -> Any:
        node = self.node("vtkMRMLSegmentationNode", "segmentation", "enhancing tumour (predicted)")
        node.CreateDefaultDisplayNodes()
        self.place(node)
        node.SetReferenceImageGeometryParameterFromVolumeNode(cemri)
        segmentation = node.GetSegmentation()
        segmentation.SetSourceRepresentationName("Binary labelmap")
        identifier = segmentation.AddEmptySegment(SEGMENT_ID, SEGMENT_NAME, SEGMENT_COLOUR)
        segment = segmentation.GetSegment(identifier)
        segment.SetTag(segment.GetTerminologyEntryTagName(), TERMINOLOGY)
        writeMask(node, identifier, mask, self.frame.ijkToRAS)
        return node

    def steps(self, nodes: Nodes) -> None:
        """Sequences of every step: image before and after the warp, mask, field; in one browser."""
        browser = self.node("vtkMRMLSequenceBrowserNode", "browser", "steps")
        texts = {"before": "before warp", "after": "after warp", "mask": "mask at step", "field": "deformation at step"}
        sequences = {}
        for name in STEP_IMAGES:
            sequence = self.node("vtkMRMLSequenceNode", f"step{name.capitalize()}", texts[name])
            sequence.SetIndexName("steps done")
            sequence.SetIndexUnit("")
            sequence.SetIndexType(sequence.NumericIndex)
            sequences[name] = sequence
            for done in self.output.steps:
                image = self.output.step(done, name)
                kind = "vtkMRMLTransformNode" if name == "field" else "vtkMRMLScalarVolumeNode"
                node = slicer.mrmlScene.CreateNodeByClass(kind)
                node.UnRegister(None)
                node.SetName(f"{self.name} {texts[name]}")
                self.mark(node, f"proxy{name.capitalize()}")
                if name == "field":
                    node.SetAndObserveTransformFromParent(gridTransform(image))
                else:
                    _fill(node, image, image.ijkToRAS)
                sequence.SetDataNodeAtValue(node, str(done))
        browser.SetIndexDisplayFormat("%.0f")
        for sequence in sequences.values():
            browser.AddSynchronizedSequenceNode(sequence)
            browser.SetRecording(sequence, False)
            browser.SetOverwriteProxyName(sequence, False)
            browser.SetSaveChanges(sequence, False)
        nodes.browser = browser
        nodes.stepBefore, nodes.stepAfter, nodes.stepMask, nodes.stepField = (sequences[name] for name in STEP_IMAGES)
        browser.SetSelectedItemNumber(len(self.output.steps) - 1)
        updateProxies(nodes)
        self.made += proxies(nodes).values()

    def hierarchy(self, nodes: Nodes) -> int:
        """A folder for the run under T1's study, or beside T1."""
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)
        parent = hierarchy.GetSceneItemID()
        if self.frame.t1 is not None and self.frame.t1.GetScene() is not None:
            item = _item(hierarchy, self.frame.t1)
            level = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMLevelStudy()
            parent = hierarchy.GetItemAncestorAtLevel(item, level) or hierarchy.GetItemParent(item) or parent
        settings = self.output.provenance.get("settings", {})
        title = f"{nodes.cemri.GetName()} ({settings.get('quality')}, seed {settings.get('seed')})"
        folder = hierarchy.CreateFolderItem(parent, hierarchy.GenerateUniqueItemName(title))
        hierarchy.SetItemAttribute(folder, RUN, self.runID)
        hierarchy.SetItemAttribute(folder, SYNTHETIC, "yes")
        for node in [*nodes.all(), *proxies(nodes).values()]:
            hierarchy.SetItemParent(_item(hierarchy, node), folder)
        return int(folder)


def _item(hierarchy: Any, node: Any) -> int:
    """A node's item; under Slicer's core nobody else makes it."""
    return int(hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(hierarchy.GetSceneItemID(), node))


def _fill(node: Any, image: Image, ijkToRAS: Any) -> None:
    slicer.util.updateVolumeFromArray(node, image.array)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(ijkToRAS))


def _setVolumeOfMask(nodes: Nodes, threshold: float, mask: Any) -> float:
    volume = float(mask.sum()) * voxelMl(nodes.cemri)
    nodes.cemri.SetAttribute(PREFIX + "Threshold", f"{threshold:.6g}")
    nodes.cemri.SetAttribute(PREFIX + "EnhancingVolumeMl", f"{volume:.6g}")
    return volume


def setThreshold(nodes: Nodes, threshold: float) -> float:
    """Make the mask anew from the probability.

    Args:
        nodes: The run.
        threshold: Probability from 0 to 1.

    Returns:
        The enhancing volume in ml.
    """
    probability = slicer.util.arrayFromVolume(nodes.probability)
    mask = (probability >= threshold) & (probability > 0)
    writeMask(nodes.segmentation, nodes.segmentID, mask, matrixOf(nodes.probability))
    return _setVolumeOfMask(nodes, threshold, mask)


def removeRun(nodes: Nodes) -> None:
    """Take a run out of the scene: nodes, what displays and stores them, and its folder."""
    scene = nodes.cemri.GetScene()
    # the browser goes before the nodes that it fills, or it would fill new ones
    doomed = [node for node in [*nodes.all(), *proxies(nodes).values()] if node.GetScene() is not None]
    helpers = []
    for node in doomed:
        if node.IsA("vtkMRMLDisplayableNode"):
            displays = [node.GetNthDisplayNode(index) for index in range(node.GetNumberOfDisplayNodes())]
            helpers += displays
            if node.IsA("vtkMRMLTransformNode"):  # each display of a transform has colours of its own
                helpers += [display.GetColorNode() for display in displays if display is not None]
        if node.IsA("vtkMRMLStorableNode"):
            helpers += [node.GetNthStorageNode(index) for index in range(node.GetNumberOfStorageNodes())]
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    for node in doomed:
        item = hierarchy.GetItemByDataNode(node)
        if item:
            hierarchy.RemoveItem(item, False, False)
    if nodes.folderItem and hierarchy.GetItemAttribute(nodes.folderItem, RUN) == nodes.runID:
        hierarchy.RemoveItem(nodes.folderItem, False, False)
    for node in [*doomed, *helpers]:
        if node is not None and node.GetScene() is not None:
            scene.RemoveNode(node)
