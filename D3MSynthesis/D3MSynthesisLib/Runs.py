"""A run of the scene: which nodes belong to it, where its numbers are, and the nodes that replay its steps."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass, fields
from typing import Any

import vtk

import slicer
from D3MSynthesisLib.Grids import fieldOf, gridTransform, matrixOf, movedField, resampledOn
from D3MSynthesisLib.Results import STEP_IMAGES
from D3MSynthesisLib.Texts import _

PREFIX = "D3M."
RUN, ROLE = PREFIX + "Run", PREFIX + "Role"
SEGMENT_ID = "EnhancingTumour"
INPUTS = {"t1": "T1", "t2": "T2", "flair": "FLAIR", "adc": "ADC", "swi": "SWI", "reference": "T1c",
          "brainMask": "BrainMask", "referenceMask": "Tumour", "givenMask": "GivenMask"}  # fmt: skip
"""Scans that a run refers to, and the names of the references."""
CEMRI = "synthetic CEMRI"
"""What the name of a run's image says behind T1's."""
T1_NAME = PREFIX + "T1Name"
"""Attribute of a synthetic image: what T1 was called when the run was started."""
T1_PLACE = PREFIX + "T1Origin"
"""Attribute of a synthetic image: `Places.placeOf` of T1 when the run was started."""
DATES = ("earlierDate", "laterDate", "changeMap")
"""Roles of what two dates are shown by; such a run has no scans in the scene."""
_NAMED = re.compile(rf"(.+) {CEMRI}(?:_(\d+))?", re.DOTALL)
"""Earlier versions let Slicer number the runs of a T1."""
FRAME = PREFIX + "Frame"
"""Attribute of a synthetic image: rows of its voxels' matrix, and its size, when what is not hardened with it followed
it last."""
SIZE = PREFIX + "Size"
"""Attribute of a synthetic image: how many voxels it had along each axis when the synthesis made it."""
GRID = PREFIX + "Grid"
"""Attribute of what has a grid of its own: rows of its voxel index to the synthetic image's, and its
size, when both were made."""
NOT_MADE = {"runID", "folderItem", "segmentID", *INPUTS}
"""Of a run's fields those that no node was made for."""


@dataclass
class Nodes:
    """The nodes of one run. Nodes that a run has not, or that the user deleted, are None."""

    runID: str
    folderItem: int
    t1: Any
    cemri: Any
    subtraction: Any = None
    probability: Any = None
    segmentation: Any = None
    deformation: Any = None
    magnitude: Any = None
    uncertainty: Any = None
    wholeTumour: Any = None
    """Probability of tumour, oedema included, of models with a whole-brain stage."""
    sample: Any = None
    """The first sample by itself, on the model's grid: the picture that the deformation and the steps end in."""
    t2: Any = None
    flair: Any = None
    reference: Any = None
    """The real T1c that the run was compared with."""
    brainMask: Any = None
    referenceMask: Any = None
    """The real enhancing tumour that the run's mask was compared with."""
    adc: Any = None
    swi: Any = None
    givenMask: Any = None
    """What a person gave the picture to be made with: the node, which may have been edited since."""
    drawn: Any = None
    """What grid and arrows are drawn from: a field in world coordinates, under no transform."""
    fieldMap: Any = None
    """Length or volume change of the field that is shown."""
    error: Any = None
    """How far the synthetic image is from the real T1c."""
    brain: Any = None
    """The brain's surface, as a segmentation."""
    browser: Any = None
    stepBefore: Any = None
    stepAfter: Any = None
    stepMask: Any = None
    stepField: Any = None
    """Sequences over steps done."""
    segmentID: str = SEGMENT_ID

    @property
    def title(self) -> str:
        """What the run is called: T1's name, and which run of it."""
        match = _NAMED.fullmatch(self.cemri.GetName() or "")
        if match is None:  # a person gave it another name
            return str(self.cemri.GetName())
        return match[1] if match[2] is None else f"{match[1]} (run {int(match[2]) + 1})"

    @property
    def t1Name(self) -> str:
        """Name of the T1 that the run was made from, or what it was called then."""
        match = _NAMED.fullmatch(self.cemri.GetName() or "")
        kept = self.cemri.GetAttribute(T1_NAME) or (self.title if match is None else match[1])
        return str((self.t1.GetName() if alive(self.t1) else None) or kept)

    @property
    def steps(self) -> int:
        """Number of steps that can be replayed; 0 without a trace, or where the user deleted a part of it."""
        sequences = (self.stepBefore, self.stepAfter, self.stepMask, self.stepField)
        counts = {sequence.GetNumberOfDataNodes() for sequence in sequences if alive(sequence)}
        whole = alive(self.browser) and all(alive(sequence) for sequence in sequences) and len(counts) == 1
        return int(counts.pop()) if whole else 0  # beside a step that lacks its field another one's would be shown

    @property
    def threshold(self) -> float:
        """Probability, 0 to 1, from which a voxel belongs to the mask."""
        return float(self.cemri.GetAttribute(PREFIX + "Threshold") or 0.5)

    @property
    def enhancingVolumeMl(self) -> float:
        """Volume of the mask in ml, in the space that the results are shown in; 0 also where it was deleted."""
        return float(self.cemri.GetAttribute(PREFIX + "EnhancingVolumeMl") or 0.0)

    @property
    def maskDeleted(self) -> bool:
        """Whether there is no mask any more, which is not an empty one: a person deleted it, or all of its segments."""
        return not alive(self.segmentation) or self.segmentation.GetSegmentation().GetNumberOfSegments() == 0

    @property
    def resampled(self) -> bool:
        """Whether a person has cropped or resampled the synthetic image, or hardened a warp onto it."""
        return (self.cemri.GetAttribute(SIZE) or sizeOf(self.cemri)) != sizeOf(self.cemri)

    @property
    def grid(self) -> Any:
        """The volume whose grid the mask is measured on: the synthetic image may have been cropped."""
        return self.probability if alive(self.probability) else self.cemri

    @property
    def maskDigest(self) -> str:
        """What tells the mask from others of its volume; empty in scenes of earlier versions."""
        return self.cemri.GetAttribute(PREFIX + "MaskDigest") or ""

    @property
    def maskCompared(self) -> bool:
        """Whether the comparison is of the mask as it is now, as far as it can be told."""
        return (self.cemri.GetAttribute(PREFIX + "ComparedMask") or self.maskDigest) == self.maskDigest

    @property
    def edited(self) -> bool:
        """Whether the mask is no longer what the model predicted at the threshold."""
        return self.cemri.GetAttribute(PREFIX + "MaskEdited") == "yes"

    @property
    def given(self) -> bool:
        """Whether a person gave the mask that the picture was made with."""
        return self.provenance.get("given_mask") is not None

    @property
    def samples(self) -> int:
        """Samples that the synthetic image is the mean of."""
        return int(self.provenance.get("settings", {}).get("samples") or 1)

    @property
    def errorExpected(self) -> bool:
        """Whether the uncertainty is the error to be expected; else it is by how much the samples differ."""
        from d3m.models.expected_error import EXPECTED_ERROR

        return str(self.provenance.get("uncertainty") or "").startswith(EXPECTED_ERROR)

    @property
    def provenance(self) -> dict[str, Any]:
        """What the run was made from, with what, and how."""
        return json.loads(self.cemri.GetAttribute(PREFIX + "Provenance") or "{}")

    @property
    def estimate(self) -> str:
        """What the model says about the patient as a whole, in words; empty if it says nothing."""
        from d3m.models.patient import PatientEstimate

        stated = self.provenance.get("patient_estimate")
        try:
            low, high = stated["volume_interval_ml"]
            return PatientEstimate(
                stated["enhancement_probability"], stated["volume_ml"], (low, high), stated["interval_level"]
            ).sentence()
        except (KeyError, TypeError, ValueError):  # a result without one, or of another version
            return ""

    @property
    def comparison(self) -> dict[str, Any] | None:
        """Numbers beside a real T1c, if one was given."""
        text = self.cemri.GetAttribute(PREFIX + "Comparison")
        return json.loads(text) if text else None

    @property
    def missing(self) -> list[str]:
        """Of "t2", "flair" and what else the model takes those that the run was made without."""
        return [str(name) for name in self.provenance.get("missing", [])]

    @property
    def without(self) -> str:
        """What the run was made without, for titles: "without FLAIR"; empty if nothing was left out."""
        return f"without {', '.join(self.missing).upper()}" if self.missing else ""

    @property
    def notices(self) -> list[str]:
        """Sentences that the user should read with the result."""
        return [_toldHere(notice) for notice in self.provenance.get("notices", [])]

    def all(self) -> list[Any]:
        """Every node that the run made."""
        roles = {field.name for field in fields(self)} - NOT_MADE
        return [node for node in (getattr(self, role) for role in sorted(roles)) if node is not None]


def _toldHere(notice: dict[str, Any]) -> str:
    """A notice's sentences; where they lead to a file of the engine's folder, to what the panel has instead."""
    message = str(notice["message"])
    if notice.get("code") in ("brain-extracted", "brain-doubtful"):
        from d3m.volumes.preprocess.extraction import LOOK

        message = message.replace(LOOK, _("Show 3D has its surface; a better one can be chosen as brain mask."))
    return message


def alive(node: Any) -> bool:
    """Whether a node is there and in a scene."""
    return node is not None and node.GetScene() is not None


def sizeOf(volume: Any) -> str:
    """Voxels of a volume along i, j and k."""
    image = volume.GetImageData()
    return "" if image is None else " ".join(map(str, image.GetDimensions()))


def gridOn(part: Any, image: Any, size: tuple[int, int, int]) -> Any:
    """A part's voxel index to RAS where it lay on the synthetic image, in that image's own frame, as numpy (4, 4).

    Args:
        part: What has a grid of its own.
        image: The synthetic image of its run.
        size: Voxels of the part along i, j and k.

    Returns:
        None where nobody knows any more: one of the two was cropped or resampled, or an earlier version made them.
    """
    import numpy as np

    kept = part.GetAttribute(GRID)
    if kept is None or image.GetAttribute(SIZE) != sizeOf(image):
        return None
    *onImage, then = json.loads(kept)
    return matrixOf(image) @ np.array(onImage) if list(size) == then else None


def nodesOf(scene: Any, kind: str) -> list[Any]:
    """The nodes of a class in a scene; `slicer.util.getNodesByClass` always looks into the application's."""
    found = scene.GetNodesByClass(kind)  # GetNthNodeByClass goes through the whole scene for each node
    found.UnRegister(scene)  # it is a new reference, as in `slicer.util`
    return list(found)


def brainOf(nodes: Nodes) -> Any:
    """What was synthesised, (K, J, I) bool on the synthetic image's grid: only there it differs from T1.

    Inside it some voxels do not differ either: dark ones that the model would have made darker than anything is.
    """
    from scipy import ndimage

    differs = differenceOf(nodes)
    return ndimage.binary_fill_holes(ndimage.binary_closing(differs, iterations=2) | differs)


def differenceOf(nodes: Nodes) -> Any:
    """Where the synthetic image differs from T1, (K, J, I) bool on its grid; it reaches as far as `brainOf`."""
    if alive(nodes.subtraction):
        same = sizeOf(nodes.subtraction) == sizeOf(nodes.cemri)
        change = slicer.util.arrayFromVolume(nodes.subtraction) if same else resampledOn(nodes.subtraction, nodes.cemri)
        differs = change != 0
    else:
        image = slicer.util.arrayFromVolume(nodes.cemri)
        t1 = slicer.util.arrayFromVolume(nodes.t1) if alive(nodes.t1) and nodes.t1.GetImageData() is not None else None
        differs = image != (t1 if t1 is not None and t1.shape == image.shape else 0)  # voxels of one grid
    return differs


def sequencesLogic(scene: Any) -> Any:
    """The logic that fills proxy nodes: the application's, or one of our own without it."""
    modules = getattr(slicer, "modules", None)
    if modules is not None and hasattr(modules, "sequences"):
        logic = modules.sequences.logic()
        if logic.GetMRMLScene() is scene:
            return logic
    logic = slicer.vtkSlicerSequencesLogic()
    logic.SetMRMLScene(scene)
    return logic


def updateProxies(nodes: Nodes) -> None:
    """Fill the nodes that show the chosen step, and keep them where the synthetic image is."""
    scene = nodes.browser.GetScene()
    followHardened(nodes)
    sequencesLogic(scene).UpdateProxyNodesFromSequences(nodes.browser)
    parent = nodes.cemri.GetTransformNodeID()
    for node in proxies(nodes).values():
        if node.GetTransformNodeID() != parent:
            node.SetAndObserveTransformNodeID(parent)


def followHardened(nodes: Nodes) -> bool:
    """Move what lies by the synthetic image as its own voxels were moved, by a transform that was hardened onto it.

    Nobody can harden the steps: they are in sequences, not in the scene. What was made for the views alone, and is
    still under the transform, is hardened, too. An image that was cropped or resampled has not moved.

    Returns:
        Whether the voxels were moved since it was looked at last.
    """
    import numpy as np

    kept, now, size = nodes.cemri.GetAttribute(FRAME), matrixOf(nodes.cemri), sizeOf(nodes.cemri)
    rows = json.loads(kept) if kept else []
    before, last = rows[:4], rows[4] if len(rows) > 4 else size  # scenes of earlier versions have no size
    if kept and last == size and np.allclose(before, now, rtol=0, atol=1e-6):
        return False
    nodes.cemri.SetAttribute(FRAME, json.dumps([*now.tolist(), size]))
    if not kept:
        nodes.cemri.SetAttribute(SIZE, size)
    if not kept or last != size:
        return False
    moved = now @ np.linalg.inv(before)
    for sequence in (nodes.stepBefore, nodes.stepAfter, nodes.stepMask, nodes.stepField):
        for index in range(sequence.GetNumberOfDataNodes() if alive(sequence) else 0):
            _move(sequence.GetNthDataNode(index), moved)
    for node in (nodes.fieldMap, nodes.error, nodes.brain):
        if alive(node) and node.GetParentTransformNode() is not None:
            node.HardenTransform()
    return True


def _move(step: Any, matrix: Any) -> None:
    if step.IsA("vtkMRMLVolumeNode"):
        step.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix @ matrixOf(step)))
        return
    field = fieldOf(step)
    if field is not None:
        step.SetAndObserveTransformFromParent(gridTransform(movedField(field, matrix)))


def proxies(nodes: Nodes) -> dict[str, Any]:
    """The nodes that show the chosen step: "before", "after", "mask", "field"."""
    if not alive(nodes.browser):
        return {}
    sequences = dict(
        zip(STEP_IMAGES, (nodes.stepBefore, nodes.stepAfter, nodes.stepMask, nodes.stepField), strict=True)
    )
    found = {name: nodes.browser.GetProxyNode(sequence) for name, sequence in sequences.items() if sequence is not None}
    return {name: node for name, node in found.items() if node is not None}


def separateCopies(scene: Any) -> None:
    """Give runs that were read twice, from an earlier copy of a scene that was added to it, identifiers of their own.

    Each copy has a folder of its own in the data tree; the one that was there first keeps its identifier.
    """
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), items, True)
    known: set[str] = set()
    for item in sorted(items.GetId(index) for index in range(items.GetNumberOfIds())):
        run = hierarchy.GetItemAttribute(item, RUN) if hierarchy.GetItemDataNode(item) is None else ""
        if run and run in known:
            _renumber(hierarchy, item, run, uuid.uuid4().hex[:12])
        known.add(run)


def _renumber(hierarchy: Any, folder: int, run: str, new: str) -> None:
    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(folder, items, True)
    nodes = [hierarchy.GetItemDataNode(items.GetId(index)) for index in range(items.GetNumberOfIds())]
    for node in list(nodes):
        if node is not None and node.IsA("vtkMRMLSequenceNode"):
            nodes += [node.GetNthDataNode(index) for index in range(node.GetNumberOfDataNodes())]
    for node in nodes:
        if node is not None and node.GetAttribute(RUN) == run:
            node.SetAttribute(RUN, new)
    hierarchy.SetItemAttribute(folder, RUN, new)


def findRuns(scene: Any) -> list[Nodes]:
    """The runs of a scene, the newest last; after a scene was opened again, too, but for what its files lack."""
    roles = {field.name for field in fields(Nodes)} - NOT_MADE
    runs: dict[str, dict[str, Any]] = {}
    for index in range(scene.GetNumberOfNodes()):
        node = scene.GetNthNode(index)
        run, role = node.GetAttribute(RUN), node.GetAttribute(ROLE)
        hollow = node.IsA("vtkMRMLVolumeNode") and node.GetImageData() is None  # its file was not there
        if run and role in roles and not hollow:
            runs.setdefault(run, {}).setdefault(role, node)  # copies that a person made bear its attributes, too
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    result = []
    for run, found in runs.items():
        cemri = found.get("cemri")
        if cemri is None:
            continue
        item = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(cemri)) if hierarchy.GetItemByDataNode(cemri) else 0
        inputs = {name: cemri.GetNodeReference(PREFIX + role) for name, role in INPUTS.items()}
        result.append(Nodes(runID=run, folderItem=int(item), **inputs, **found))
    return result
