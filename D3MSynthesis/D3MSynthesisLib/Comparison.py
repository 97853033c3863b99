"""A run beside a real T1c that was chosen after it: the numbers that the engine gives when it is chosen before."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import vtk

import slicer
from D3MSynthesisLib import Frames
from D3MSynthesisLib.Assignment import isSynthetic
from D3MSynthesisLib.Captions import CHANGED
from D3MSynthesisLib.Counted import countedOf, labelsOf
from D3MSynthesisLib.Engine import SynthesisError
from D3MSynthesisLib.Grids import gridPoints, matrixOf, resampledOn, transformed, voxelMl
from D3MSynthesisLib.Identity import identityOf
from D3MSynthesisLib.Inputs import maskOnGrid
from D3MSynthesisLib.Masks import maskOf, measure
from D3MSynthesisLib.Runs import INPUTS, PREFIX, Nodes, alive, brainOf, findRuns, sizeOf
from D3MSynthesisLib.Texts import _

WHOLE = 0.95
"""Share of the brain: of a real T1c that covers less it is told that the numbers are of a part."""
COMPARED = PREFIX + "ComparedT1c"
"""Attribute of a run: the imprint of the real T1c that was compared."""
MADE_FROM = {name: f"{PREFIX}MadeFrom{INPUTS[name]}" for name in CHANGED if name != "reference"}
"""Attributes of a run: the imprints of scans and masks that it was made from, when it was started."""
COMPARED_TUMOUR = PREFIX + "ComparedTumour"
"""Attribute of a run: the imprint of the real tumour that its mask was compared with."""
COMPARED_VOXEL = PREFIX + "ComparedVoxelMl"
"""Attribute of a run: the volume of a voxel when it was compared; the engine's comparison is under no transform."""
SAME_MM = 1e-3
"""Places that are nearer to each other are the same: files keep numbers of limited precision."""
MAX_KEPT = 32
_digests: dict[int, str] = {}
"""Of the images that were looked at last, by the time of their last change, which no two have."""


def compareRun(nodes: Nodes, reference: Any, referenceMask: Any = None, acrossStudies: bool = False) -> dict[str, Any]:
    """Measure a run against a real T1c and keep the numbers with it.

    Args:
        nodes: The run; its mask counts as it is now.
        reference: The real T1c; it is used as it is shown, and resampled onto the synthetic image's grid.
        referenceMask: The real enhancing tumour, volume or segmentation node; else it is estimated from brightness.
        acrossStudies: They may be of another examination of the patient.

    Raises:
        SynthesisError: it is synthetic, another patient's or examination's, does not show this brain, T1 is gone, or
            the synthetic image was cropped.
    """
    import numpy as np

    from d3m import metrics

    if not alive(nodes.t1):
        raise SynthesisError(
            _("The T1 of this run is no longer in the scene."), _("Load it again and run the synthesis again.")
        )
    if nodes.resampled:  # numbers of a part of the brain would be told as the whole one's
        raise SynthesisError(
            _("The synthetic image was cropped or resampled, and cannot be compared."), _("Run the synthesis again.")
        )
    mine = identityOf(nodes.t1)
    if isSynthetic(reference) or isSynthetic(referenceMask):
        raise SynthesisError(
            _("The real T1c and its tumour cannot be what a synthesis made."), _("Choose an acquired scan and its own.")
        )
    for name, node in ((_("The real T1c"), reference), (_("The real tumour"), referenceMask)):
        theirs = identityOf(node)
        if mine.patient and theirs.patient and mine.patient != theirs.patient:
            text = _("{scan} is of another patient than T1.").format(scan=name)
            raise SynthesisError(text, _("Choose this patient's."))
        if not acrossStudies and mine.study and theirs.study and mine.study != theirs.study:
            text = _("{scan} is of another examination than T1.").format(scan=name)
            raise SynthesisError(text, _("Choose this examination's, or allow scans of several examinations."))
    counted = None if referenceMask is None else countedOf(referenceMask)
    if counted is not None and counted.fault:
        raise SynthesisError(counted.fault)
    real = resampledOn(reference, nodes.cemri)
    order = _sliceLast(matrixOf(nodes.cemri))

    def axial(array: Any) -> Any:
        return np.transpose(array, order)

    cemri, t1 = slicer.util.arrayFromVolume(nodes.cemri), resampledOn(nodes.t1, nodes.cemri)
    ml, predicted = voxelMl(nodes.cemri), maskOf(nodes)
    true = None if referenceMask is None else maskOnGrid(referenceMask, nodes.cemri)
    content = metrics.beside(cemri, t1, real, brainOf(nodes), predicted, true, ml, axial)
    if content is None:
        raise SynthesisError(
            _("The real T1c does not overlap the brain in T1."), _("Choose a T1c of the same examination.")
        )
    if nodes.maskDeleted:  # no mask is not an empty one
        content |= dict.fromkeys(
            ("predicted_enhancing_volume_ml", "false_positive_ml", "false_negative_ml", "dice"), None
        )
    if counted is not None and counted.text:
        content["real_tumour_counted"] = counted.text
    measure(nodes, predicted)
    nodes.cemri.SetAttribute(PREFIX + "ComparedMask", nodes.maskDigest)
    nodes.cemri.SetAttribute(COMPARED_VOXEL, f"{ml:.9g}")
    nodes.cemri.SetAttribute(PREFIX + "Comparison", json.dumps(content))
    nodes.reference = reference = _kept(nodes, reference)
    nodes.cemri.SetAttribute(COMPARED, imprint(reference, nodes.cemri))
    nodes.referenceMask = referenceMask = _keptMask(nodes, referenceMask)
    mark = None if referenceMask is None else maskImprint(referenceMask, nodes.cemri)
    nodes.cemri.SetAttribute(COMPARED_TUMOUR, mark)
    for name in ("reference", "referenceMask"):
        node = getattr(nodes, name)
        nodes.cemri.SetNodeReferenceID(PREFIX + INPUTS[name], None if node is None else node.GetID())
    lookAtScans(nodes)
    return content


def _kept(nodes: Nodes, reference: Any) -> Any:
    """The real T1c, or of a frame of a sequence a copy: that of the last comparison, if it was the same frame."""
    if Frames.frameOf(reference) is None:
        return reference
    last = nodes.reference
    if alive(last) and last.GetImageData() is not None and Frames.frameOf(last) is None:
        marks = [json.loads(imprint(node, nodes.cemri)) for node in (last, reference)]
        if _same(*marks):
            return last
    scans = {"reference": reference}
    Frames.keep(scans)
    return scans["reference"]


def _keptMask(nodes: Nodes, mask: Any) -> Any:
    """The real tumour, or of a frame of a sequence a copy, as `_kept` has it."""
    if mask is None or Frames.frameOf(mask) is None:
        return mask
    last = nodes.referenceMask
    own = alive(last) and Frames.frameOf(last) is None and last.GetClassName() == mask.GetClassName()
    if own and maskImprint(last, nodes.cemri) == maskImprint(mask, nodes.cemri):
        return last
    scans = {"referenceMask": mask}
    Frames.keep(scans)
    return scans["referenceMask"]


def imprint(reference: Any, target: Any) -> str:
    """What tells a scan, where it lies, from others and other places, as JSON.

    Args:
        reference: The real T1c, or T1.
        target: The volume whose frame counts: both may move together, and be hardened.
    """
    import numpy as np

    shape = slicer.util.arrayFromVolume(reference).shape
    mark = {
        "shape": shape, "voxels": _voxels(reference), "places": np.round(_places(reference, target), 5).tolist(),
        "frame": matrixOf(target).tolist(), "size": sizeOf(target),
    }  # fmt: skip
    return json.dumps(mark)


def _voxels(volume: Any) -> str:
    """What tells a volume's voxels from others; it is worked out once after each change, for a scan may be dragged."""
    import numpy as np

    when = volume.GetImageData().GetMTime()
    if when not in _digests:
        while len(_digests) >= MAX_KEPT:
            _digests.pop(next(iter(_digests)))
        array = np.ascontiguousarray(slicer.util.arrayFromVolume(volume), np.float32)
        _digests[when] = hashlib.blake2b(array, digest_size=8).hexdigest()
    return _digests[when]


def maskImprint(mask: Any, target: Any) -> str:
    """What tells a mask, volume or segmentation, as it lies on a volume's grid, from others."""
    import numpy as np

    volume = not mask.IsA("vtkMRMLSegmentationNode")
    if volume and mask.GetImageData() is None:
        return "empty"
    labels = labelsOf(mask) if volume else ()
    if labels is None or len(labels) > 1:  # of a brain mask all of them count, of a tumour one
        return hashlib.blake2b(resampledOn(mask, target, nearest=True).tobytes(), digest_size=8).hexdigest()
    return hashlib.blake2b(np.packbits(maskOnGrid(mask, target)).tobytes(), digest_size=8).hexdigest()


def inputImprint(name: str, node: Any, target: Any) -> str:
    """What tells a scan or mask of a run, by its role, from others and other places."""
    return maskImprint(node, target) if name.endswith("Mask") else imprint(node, target)


def inputChanged(name: str, kept: str, node: Any, target: Any) -> bool:
    """Whether a scan or mask is no longer what, or where, it was when its imprint was taken."""
    if name.endswith("Mask"):
        return maskImprint(node, target) != kept
    return node.GetImageData() is None or not _same(json.loads(kept), json.loads(imprint(node, target)))


def tumourChanged(nodes: Nodes) -> bool:
    """Whether the real tumour is gone, or not what, or where, it was when it was compared, as far as it can be told."""
    if not alive(nodes.referenceMask):
        return (nodes.comparison or {}).get("real_enhancement") == "labels"
    kept = nodes.cemri.GetAttribute(COMPARED_TUMOUR)
    return bool(kept and maskImprint(nodes.referenceMask, nodes.cemri) != kept)


def scaleOf(nodes: Nodes) -> float:
    """By how much volumes are larger now than when the run was compared: a transform that it is under counts."""
    kept = nodes.cemri.GetAttribute(COMPARED_VOXEL)
    return voxelMl(nodes.grid) / (float(kept) if kept else voxelMl(nodes.grid, world=False))


def lookAtScans(nodes: Nodes) -> dict[str, bool]:
    """Look which scans are no longer what, or where, they were, and keep it with the run, so that views can tell it.

    Returns:
        "reference": the real T1c since it was compared; of `MADE_FROM`: since the run; as far as it can be told.
    """
    changed = _lookAt(nodes)
    for other in findRuns(nodes.cemri.GetScene()):  # what was told of them may be over: scans are moved back
        if other.runID != nodes.runID and any(other.cemri.GetAttribute(key) is not None for key in CHANGED.values()):
            _lookAt(other)
    return changed


def _lookAt(nodes: Nodes) -> dict[str, bool]:
    changed = {"reference": referenceChanged(nodes)}
    for name, attribute in MADE_FROM.items():
        kept, node = nodes.cemri.GetAttribute(attribute), getattr(nodes, name)
        changed[name] = bool(kept) and alive(node) and inputChanged(name, kept, node, nodes.cemri)
    for name, is_so in changed.items():
        nodes.cemri.SetAttribute(CHANGED[name], "yes" if is_so else None)
    return changed


def errorIsOld(nodes: Nodes) -> bool:
    """Whether the map of differences is of another real T1c, or of another place of it."""
    kept = nodes.error.GetAttribute(COMPARED)
    now = nodes.cemri.GetAttribute(COMPARED) or imprint(nodes.reference, nodes.cemri)
    return kept is None or not _same(json.loads(kept), json.loads(now))


def referenceChanged(nodes: Nodes) -> bool:
    """Whether the real T1c is no longer what, or where, it was when it was compared, as far as it can be told."""
    kept = nodes.cemri.GetAttribute(COMPARED)
    return bool(kept) and alive(nodes.reference) and inputChanged("reference", kept, nodes.reference, nodes.cemri)


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    import numpy as np

    alike = (one["shape"], one["voxels"]) == (other["shape"], other["voxels"])
    places = np.array(other["places"])
    sizes = {mark["size"] for mark in (one, other) if "size" in mark}
    if "frame" in one and "frame" in other and len(sizes) < 2:  # earlier versions had none; one that was cropped stayed
        moved = np.array(one["frame"]) @ np.linalg.inv(other["frame"])  # the target was hardened, if it is not 1
        places = places @ moved[:3, :3].T + moved[:3, 3]
    return alike and np.allclose(one["places"], places, rtol=0, atol=SAME_MM)


def _places(reference: Any, target: Any) -> Any:
    """Corners, edges and middle of a volume in another one's local frame, (27, 3) mm: warps count, too."""
    import numpy as np

    matrix = matrixOf(reference)
    matrix = matrix @ np.diag([*((size - 1) / 2 for size in reference.GetImageData().GetDimensions()), 1.0])
    toTarget = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(
        reference.GetParentTransformNode(), target.GetParentTransformNode(), toTarget
    )
    return transformed(gridPoints((3, 3, 3), matrix), toTarget).reshape(-1, 3)


def _sliceLast(ijkToRAS: Any) -> tuple[int, int, int]:
    """Order of array axes, of (k, j, i), that has the one nearest to head-foot last."""
    import numpy as np

    across = 2 - int(np.argmax(np.abs(ijkToRAS[2, :3]) / np.linalg.norm(ijkToRAS[:3, :3], axis=0)))
    first, second = (axis for axis in range(3) if axis != across)
    return first, second, across
