"""Nodes from results. MRML alone: runs in Slicer as under its core without a window.

Geometry: what lies on T1's grid gets T1's own geometry; the field and the steps lie on the model's grid. Everything is
put under the transform that T1 is under, so results follow T1. The field is stored once, as a transform *from* parent:
at a point of the result it leads, in RAS millimetres, to the point that the value was taken from.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import slicer
from D3MSynthesisLib import Looks, Masks, Pictures
from D3MSynthesisLib.Assignment import SYNTHETIC
from D3MSynthesisLib.Comparison import COMPARED, COMPARED_TUMOUR, MADE_FROM
from D3MSynthesisLib.ExportTags import tagForExport
from D3MSynthesisLib.Grids import gridTransform, thresholdOf
from D3MSynthesisLib.Results import STEP_IMAGES, Image, Output, readOutput
from D3MSynthesisLib.Runs import (
    CEMRI,
    GRID,
    INPUTS,
    PREFIX,
    RUN,
    SEGMENT_ID,
    T1_NAME,
    T1_PLACE,
    Nodes,
    findRuns,
    followHardened,
    proxies,
    updateProxies,
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
    t2: Any = None
    flair: Any = None
    identity: dict[str, Any] | None = None
    """`Identity.agreement` of the scans at the start of the run."""
    notices: tuple[str, ...] = ()
    """What else should be known of the result, such as that T1 was changed meanwhile."""
    brainMask: Any = None
    compared: str | None = None
    """`Comparison.imprint` of the real T1c at the start of the run."""
    referenceMask: Any = None
    comparedTumour: str | None = None
    """`Comparison.maskImprint` of the real tumour at the start of the run."""
    madeFrom: dict[str, str] = field(default_factory=dict)
    """`Comparison.inputImprint` of every scan and mask at the start of the run, by role."""
    adc: Any = None
    swi: Any = None
    givenMask: Any = None
    place: str = ""
    """`Places.placeOf` of T1."""


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
        self.name = self._numbered(name if len(name) <= MAX_NAME else name[: MAX_NAME - 1].rstrip() + "…")
        self.runID = uuid.uuid4().hex[:12]

    def _numbered(self, name: str) -> str:
        """A name for all nodes of the run: Slicer's own "_1" behind the second would be that of another T1."""
        known, number, free = {run.cemri.GetName() for run in findRuns(self.scene)}, 1, name
        while f"{free} {CEMRI}" in known:
            number += 1
            free = f"{name} (run {number})"
        return free

    def run(self, reference: Any, threshold: float | None) -> Nodes:
        import numpy as np

        output = self.output
        images = {name: output.image(name) for name in ("cemri", "subtraction", "enhancement_probability")}
        cemri = self.volume("cemri", CEMRI, images["cemri"], self.frame.ijkToRAS)
        cemri.SetAttribute(T1_NAME, " ".join(self.frame.name.split()) or "T1")
        if self.frame.place:
            cemri.SetAttribute(T1_PLACE, self.frame.place)
        subtraction = self.volume("subtraction", "synthetic subtraction", images["subtraction"], self.frame.ijkToRAS)
        probability = self.volume(
            "probability", "enhancement probability", images["enhancement_probability"], self.frame.ijkToRAS
        )
        mask = output.image("enhancement_mask").array > 0
        if threshold is None:
            threshold = thresholdOf(images["enhancement_probability"].array, mask)
        vectors = output.image("deformation")
        deformation = self.transform("deformation", "deformation (last step)", vectors)
        _keepGrid(deformation, vectors, self.frame)
        length = np.linalg.norm(vectors.array.astype(np.float64), axis=-1).astype(np.float32)
        magnitude = self.volume("magnitude", "deformation magnitude (mm)", Image(length, vectors.ijkToRAS))
        _keepGrid(magnitude, vectors, self.frame)
        uncertainty = None
        if output.has("uncertainty"):
            uncertainty = self.volume(
                "uncertainty", f"{CEMRI} uncertainty", output.image("uncertainty"), self.frame.ijkToRAS
            )
        whole = None
        if output.has("whole_tumour_probability"):
            image = output.image("whole_tumour_probability")
            whole = self.volume("wholeTumour", "predicted tumour probability", image, self.frame.ijkToRAS)
        sample = None
        if output.has("first_sample"):
            image = output.image("first_sample")
            sample = self.volume("sample", "synthetic, first sample", image)
            _keepGrid(sample, image, self.frame)
        cemri.SetAttribute(PREFIX + "Provenance", json.dumps(self.provenance(), ensure_ascii=False))
        nodes = Nodes(
            self.runID, 0, self.frame.t1, cemri, subtraction, probability, None, deformation, magnitude, uncertainty,
            whole, sample, self.frame.t2, self.frame.flair, reference, self.frame.brainMask, self.frame.referenceMask,
        )  # fmt: skip
        nodes.adc, nodes.swi, nodes.givenMask = self.frame.adc, self.frame.swi, self.frame.givenMask
        nodes.segmentation = self.segmentation(cemri, mask, Masks.GIVEN_NAME if nodes.given else Masks.SEGMENT_NAME)
        if output.steps:
            self.steps(nodes)
        if output.comparison is not None:
            cemri.SetAttribute(PREFIX + "Comparison", json.dumps(output.comparison))
        for name, role in INPUTS.items():
            if getattr(nodes, name) is not None:
                cemri.SetNodeReferenceID(PREFIX + role, getattr(nodes, name).GetID())
        cemri.SetAttribute(PREFIX + "Threshold", f"{threshold:.6g}")
        Masks.measure(nodes, mask)
        if output.comparison is not None:
            cemri.SetAttribute(PREFIX + "ComparedMask", nodes.maskDigest)
            cemri.SetAttribute(COMPARED, self.frame.compared)
            cemri.SetAttribute(COMPARED_TUMOUR, self.frame.comparedTumour)
        for name, mark in self.frame.madeFrom.items():
            cemri.SetAttribute(MADE_FROM[name], mark)
        followHardened(nodes)  # from now on
        nodes.folderItem = self.hierarchy(nodes)
        Looks.applyDefaults(nodes)
        return nodes

    def provenance(self) -> dict[str, Any]:
        """The engine's, with what the scene alone knows: whose scans they are, and what happened meanwhile."""
        content = {name: value for name, value in self.output.provenance.items() if name != "files"}
        if self.frame.identity is not None:
            content["identity"] = self.frame.identity
        own = [{"code": "scene", "message": text, "volume": None} for text in self.frame.notices]
        return content | {"notices": [*content.get("notices", []), *own]}

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
            ("Missing", " ".join(self.output.provenance.get("missing", [])) or "none"),
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

    def segmentation(self, cemri: Any, mask: Any, name: str) -> Any:
        node = self.node("vtkMRMLSegmentationNode", "segmentation", name[0].lower() + name[1:])
        node.CreateDefaultDisplayNodes()
        self.place(node)
        node.SetReferenceImageGeometryParameterFromVolumeNode(cemri)
        node.GetSegmentation().SetSourceRepresentationName("Binary labelmap")
        Masks.addSegment(node, SEGMENT_ID, name)
        Masks.writeOriginal(node, SEGMENT_ID, mask, self.frame.ijkToRAS, name)
        return node

    def steps(self, nodes: Nodes) -> None:
        """Sequences of every step: image before and after the warp, mask, field; in one browser."""
        browser = self.node("vtkMRMLSequenceBrowserNode", "browser", "steps")
        texts = {
            "before": "synthetic, before warp", "after": "synthetic, after warp",
            "mask": "enhancement probability at step", "field": "deformation at step",
        }  # fmt: skip
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
        Pictures.nameSteps(nodes)
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
        parts = [settings.get("quality"), f"seed {settings.get('seed')}", nodes.without]
        title = f"{nodes.cemri.GetName()} ({', '.join(str(part) for part in parts if part)})"
        folder = hierarchy.CreateFolderItem(parent, hierarchy.GenerateUniqueItemName(title))
        hierarchy.SetItemAttribute(folder, RUN, self.runID)
        hierarchy.SetItemAttribute(folder, SYNTHETIC, "yes")
        for node in [*nodes.all(), *proxies(nodes).values()]:
            item = _item(hierarchy, node)
            hierarchy.SetItemParent(item, folder)
            if node.IsA("vtkMRMLVolumeNode"):
                tagForExport(hierarchy, item, node, nodes.without)
        return int(folder)


def _item(hierarchy: Any, node: Any) -> int:
    """A node's item; under Slicer's core nobody else makes it."""
    return int(hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(hierarchy.GetSceneItemID(), node))


def _fill(node: Any, image: Image, ijkToRAS: Any) -> None:
    slicer.util.updateVolumeFromArray(node, image.array)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(ijkToRAS))


def _keepGrid(node: Any, image: Image, frame: Frame) -> None:
    import numpy as np

    onImage = np.linalg.inv(frame.ijkToRAS) @ image.ijkToRAS
    node.SetAttribute(GRID, json.dumps([*onImage.tolist(), image.array.shape[2::-1]]))


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
