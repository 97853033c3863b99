"""The volumes that go in: whether they can be used, and how they are written for the engine.

Everything is written in the local frame of T1, that is, before any transform that T1 is under. T2 and FLAIR are brought
into that frame as they are *shown*, so that a registration which is not hardened counts; results are then put under the
transform of T1. So nothing is used untransformed in silence, and nothing is transformed twice.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import vtk

import slicer
from D3MSynthesisLib.Assignment import contrastOf, isSynthetic, nodeDescription
from D3MSynthesisLib.Belonging import apart, disagreement, doubt, namedOtherwise, sameExamination, severalPatients
from D3MSynthesisLib.Counted import Counted, countedOf
from D3MSynthesisLib.Frames import frameOf
from D3MSynthesisLib.Grids import matrixOf, resampledOn, resliced, segmentOn
from D3MSynthesisLib.Identity import identityOf, putBeside, stemOf
from D3MSynthesisLib.MaskBelonging import maskBelongs
from D3MSynthesisLib.MaskSources import othersThan
from D3MSynthesisLib.Places import keepPlace, ofOtherExamination, wasRead
from D3MSynthesisLib.Runs import RUN, alive, findRuns
from D3MSynthesisLib.Texts import _

MAX_SHEAR = 1e-3
"""Cosine between two axes above which a volume is resampled rather than written with its own axes."""
CONTRASTS = ("T1", "T2", "FLAIR", "T1 with contrast")
NOTHING: Mapping[str, Any] = {}


def readiness(
    t1: Any,
    t2: Any,
    flair: Any,
    brainMask: Any = None,
    reference: Any = None,
    referenceMask: Any = None,
    acrossStudies: bool = False,
    enhancementMask: Any = None,
    optional: Collection[str] = (),
    further: Mapping[str, Any] = NOTHING,
) -> str | None:
    """Why the synthesis cannot run with these nodes yet, in one sentence; None if it can.

    Scans of two patients never run; scans of two examinations of one patient only with `acrossStudies`. Of `optional`
    ("t2", "flair": what the model's card allows) one may be None, and every one of `further` ("adc", "swi").
    """
    scans = list(zip(CONTRASTS, (t1, t2, flair), strict=False))
    missing = [name for name, node in scans if node is None]
    spare = [name for name in missing if name.lower() in optional]
    if len(spare) == 1:
        missing.remove(spare[0])
    elif spare and spare == missing:
        return _("Choose {first} or {last}, or both.").format(first=missing[0], last=missing[1])
    if missing:
        return _("Choose {scans}.").format(scans=_and(missing))
    named = [*scans, *_named(further), ("The real T1c", reference)]
    seen: dict[str, str] = {}
    masks = [("The brain mask", brainMask), ("The real tumour", referenceMask), ("The given mask", enhancementMask)]
    for name, node in [*named, *masks]:
        if node is None:
            continue
        if node.GetID() in seen:
            other = name[0].lower() + name[1:] if name.startswith("The") else name
            return _("{first} and {second} are the same volume.").format(first=seen[node.GetID()], second=other)
        seen[node.GetID()] = name
        fault = _fault(name, node)
        if fault:
            return fault
    for node in (referenceMask, enhancementMask):
        fault = countedOf(node).fault if node is not None else None
        if fault:
            return fault
    for name, node in named:
        if isSynthetic(node):
            return _("{scan} is a synthetic image; choose an acquired scan.").format(scan=name)
    if isSynthetic(referenceMask):
        return _("The real tumour is what a synthesis made; choose what a person drew on an acquired scan.")
    if contrastOf(nodeDescription(t1)) == "t1c":
        return _("The volume chosen as T1 says that it is with contrast; choose the T1 before contrast.")
    others = [*named[1:], *masks]
    stranger = _otherThanT1(t1, others, "patient")
    if stranger:
        return _("{scan} is of another patient than T1.").format(scan=stranger)
    stranger = None if acrossStudies else _otherThanT1(t1, others, "study")
    if stranger:
        return _("{scan} is of another examination than T1.").format(scan=stranger)
    for name, node in masks:
        owner = ownerOf(node)
        strange = not sameExamination(owner, t1) and apart(owner, t1) if owner is not None else _namesAnother(node, t1)
        if strange:
            text = _("{scan} is of a result of another patient than T1, by its name or folder: {name}.")
            return text.format(scan=name, name=(node if owner is None else owner).GetName())
    return None


def ownerOf(mask: Any) -> Any:
    """The T1 of the run that a mask was made by; None if it is of none, or if that is gone."""
    run = mask.GetAttribute(RUN) if mask is not None else None
    found = [nodes.t1 for nodes in findRuns(mask.GetScene()) if nodes.runID == run] if run and alive(mask) else []
    return found[0] if found and alive(found[0]) else None


def maskNotice(t1: Any, masks: Iterable[Any]) -> str | None:
    """Sentences for panel and result where nothing says that a mask is of T1's patient.

    It is of a run of another T1, its result, name or folder speaks of another patient, or it came from a file, and T1
    from none. None if there is no such mask.
    """
    found = []
    for mask in masks:
        owner = ownerOf(mask)
        if owner is not None and owner is not t1 and not sameExamination(owner, t1):
            text = _("{mask} belongs to a result of another T1, {name}: nothing says that it is of the same patient.")
            found.append(text.format(mask=mask.GetName(), name=owner.GetName()))
        elif owner is None and doubtfulMask(mask, t1):
            found.append(_doubtOf(mask, t1).format(mask=mask.GetName(), name=t1.GetName()))
    return " ".join(dict.fromkeys(found)) or None


def _doubtOf(mask: Any, t1: Any) -> str:
    """Why it is doubted that a mask is of T1's patient, with places for both names."""
    if ofOtherExamination(mask, t1):
        return _("{mask} is of a result of another examination than T1, {name}: make sure that the patient is one.")
    if maskBelongs(mask, t1) is None:
        return _("Nothing says that {mask} is of the patient of T1, {name}: make sure that it is.")
    return _("{mask} may be of another patient or date than T1, {name}: make sure that it is not.")


def doubtfulMask(mask: Any, t1: Any) -> bool:
    """Whether a mask's result, name or folder speaks of another patient than T1's, and no identifiers say more.

    Of a mask that was read from a file, and of any where scans of several patients are in the scene, something has to
    say that it is of T1's.
    """
    if mask is None or t1 is None or (identityOf(mask).known and identityOf(t1).known):
        return False
    belongs = maskBelongs(mask, t1)
    if belongs is None:
        return wasRead(mask) or othersThan(t1, t1.GetScene())
    return not belongs


def _namesAnother(mask: Any, t1: Any) -> bool:
    """Whether the name of a mask that a synthesis made speaks of another patient than T1's."""
    if mask is None or not isSynthetic(mask) or not re.search(r"(?i)(?<![a-z])t1", mask.GetName() or ""):
        return False
    stems = {stemOf(mask.GetName()), stemOf(t1.GetName() or "")}
    return "" not in stems and len(stems) > 1


def leftOut(t1: Any, t2: Any, flair: Any, optional: Collection[str], further: Mapping[str, Any] = NOTHING) -> list[str]:
    """Scans that are not chosen and that the model can do without: "T2" or "FLAIR", and those of `further`.

    None where too many are missing.
    """
    missing = [name for name, node in zip(CONTRASTS, (t1, t2, flair), strict=False) if node is None]
    if len(missing) > 1 or not {name.lower() for name in missing} <= set(optional):
        return []
    return missing + [name for name, node in _named(further) if node is None]


def _named(further: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name.upper(), node) for name, node in further.items()]


def _otherThanT1(t1: Any, others: list[tuple[str, Any]], what: str) -> str | None:
    """The first scan whose patient, or examination, is known to be another than T1's."""
    mine = getattr(identityOf(t1), what)
    for name, node in others:
        theirs = getattr(identityOf(node), what) or getattr(identityOf(ownerOf(node)), what)
        if mine and theirs and mine != theirs:
            return name
    return None


def studiesDiffer(nodes: Iterable[Any]) -> bool:
    """Whether scans are of several examinations of one patient, which is asked about."""
    found = [identityOf(node) for node in nodes if node is not None]
    patients = {identity.patient for identity in found if identity.patient}
    return len(patients) <= 1 and len({identity.study for identity in found if identity.study}) > 1


def whose(nodes: Iterable[Any]) -> str:
    """A sentence about whose scans are chosen, for the panel; empty if nothing can be said."""
    chosen = [node for node in nodes if node is not None]
    identities = [identityOf(node) for node in chosen]
    titles = sorted({identity.title for identity in identities if identity.title})
    if titles and all(identity.known for identity in identities):
        return _("Scans of {patient}.").format(patient="; ".join(titles))
    if titles:
        return _("Scans of {patient}, and scans that do not say whose they are.").format(patient="; ".join(titles))
    return "" if all(identity.known for identity in identities) else doubt(chosen)


def scansNotice(nodes: Iterable[Any]) -> str | None:
    """Sentences for the result where its scans are of several examinations, or names or folders of several patients.

    Or where some say nothing and the scene has several patients, or are named for somebody else than those that do.
    None if all is well. Where every scan has identifiers, `readiness` compares these. It names nobody: files of the
    result have it. DICOM files tell the examinations by `Identity.agreement`.
    """
    chosen = [node for node in nodes if node is not None]
    told = [_("The scans are of several examinations.")] if studiesDiffer(chosen) else []
    if not all(identityOf(node).known for node in chosen) and disagreement(chosen):
        told.append(
            _("The names or folders of the scans spoke of different patients or dates: make sure that they are of one.")
        )
    elif len({identityOf(node).known for node in chosen}) > 1 and (
        severalPatients(chosen[0].GetScene()) or any(namedOtherwise(*pair) for pair in combinations(chosen, 2))
    ):
        told.append(_("Nothing said of some scans whose they are: make sure that they are of one patient."))
    return " ".join(told) or None


def _fault(name: str, node: Any) -> str | None:
    if node.IsA("vtkMRMLSegmentationNode"):
        return None if node.GetSegmentation().GetNumberOfSegments() else _("{scan} has no segment.").format(scan=name)
    image = node.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0:
        return _("{scan} has no voxels.").format(scan=name)
    if image.GetNumberOfScalarComponents() != 1:
        return _("{scan} is a colour or vector volume, not a scan.").format(scan=name)
    if min(image.GetDimensions()) < 2:
        return _("{scan} is a single slice; a volume is needed.").format(scan=name)
    return None


def _and(names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    return _("{first} and {last}").format(first=", ".join(names[:-1]), last=names[-1])


def transformNotice(t1: Any, t2: Any, flair: Any, further: Mapping[str, Any] = NOTHING) -> str | None:
    """A sentence for the panel when inputs are under transforms: what is done about it; None if none is."""
    scans = [*zip(CONTRASTS, (t1, t2, flair), strict=False), *_named(further)]
    named = [(name, node) for name, node in scans if node is not None]
    under = [name for name, node in named if node.GetParentTransformNode() is not None]
    if not under:
        return None
    resampled = [name for name, node in named if t1 is not None and toFrameOf(node, t1) is None]
    text = _("Under a transform, and used as shown: {scans}. The volumes themselves stay unchanged.")
    if resampled:
        text = _(
            "Under a transform, and used as shown: {scans}; resampled onto T1, since the transform is not rigid: "
            "{resampled}. The volumes themselves stay unchanged."
        )
    return text.format(scans=_and(under), resampled=_and(resampled) if resampled else "")


def hardenedCopies(nodes: Iterable[Any]) -> list[Any]:
    """Copies of volume nodes with the transforms that they are under applied to them; the nodes stay as they are."""
    copies = []
    for node in nodes:
        frame = frameOf(node)
        name = f"{node.GetName()} ({frame.title})" if frame is not None else node.GetName()
        copy = slicer.mrmlScene.AddNewNodeByClass(node.GetClassName(), f"{name} hardened")
        image = vtk.vtkImageData()
        image.DeepCopy(node.GetImageData())
        copy.CopyOrientation(node)
        copy.SetAndObserveImageData(image)
        copy.CreateDefaultDisplayNodes()
        copy.SetAndObserveTransformNodeID(node.GetTransformNodeID())
        copy.HardenTransform()
        putBeside(copy, node)
        keepPlace(copy, like=node)
        copies.append(copy)
    return copies


def toFrameOf(node: Any, t1: Any) -> Any:
    """The matrix from a node's local frame to T1's; None if it is not linear, or shears the voxels."""
    import numpy as np

    matrix = vtk.vtkMatrix4x4()
    source, target = node.GetParentTransformNode(), t1.GetParentTransformNode()
    if not slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(source, target, matrix):
        return None
    result = slicer.util.arrayFromVTKMatrix(matrix)
    axes = (result @ matrixOf(node))[:3, :3] if hasattr(node, "GetIJKToRASMatrix") else result[:3, :3]
    axes = axes / np.linalg.norm(axes, axis=0)
    return result if abs(axes.T @ axes - np.eye(3)).max() <= MAX_SHEAR else None


def writeInput(node: Any, t1: Any, path: Path, counted: Counted | None = None) -> None:
    """Write a volume or a segmentation without loss, in T1's local frame, as NRRD.

    Args:
        node: A volume; of a segmentation the segments that count are written as one mask on T1's grid.
        t1: Its frame is written in.
        path: Ends with .nrrd.
        counted: What of a mask counts; None for scans.

    Raises:
        OSError: it cannot be written.
    """
    if node.IsA("vtkMRMLSegmentationNode"):
        image, matrix = _maskOnT1(node, t1), matrixOf(t1)
    else:
        frame = toFrameOf(node, t1)
        if frame is None:
            image, matrix = resliced(node, t1, nearest=counted is not None), matrixOf(t1)
        else:
            image, matrix = node.GetImageData(), frame @ matrixOf(node)
        if counted is not None and counted.label is not None:
            image = _labelAlone(image, counted.label)
    copy = slicer.vtkMRMLScalarVolumeNode()  # outside the scene: nobody sees it, and a proxy node cannot change it
    copy.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    copy.SetAndObserveImageData(image)
    storage = slicer.vtkMRMLNRRDStorageNode()
    storage.SetFileName(str(path))
    storage.SetUseCompression(True)
    storage.SetCompressionParameter(storage.GetCompressionParameterFastest())
    if not storage.WriteData(copy) or not path.is_file():
        raise OSError("The temporary folder cannot be written.")


def _labelAlone(image: Any, label: int) -> Any:
    """One label of an image as a binary one."""
    import numpy as np
    from vtk.util.numpy_support import vtk_to_numpy

    array = vtk_to_numpy(image.GetPointData().GetScalars())
    return _imageOf((np.rint(array) == label).reshape(image.GetDimensions()[::-1]))


def _maskOnT1(segmentation: Any, t1: Any) -> Any:
    """The segments that count as one binary image on T1's grid."""
    return _imageOf(maskOnGrid(segmentation, t1))


def _imageOf(mask: Any) -> Any:
    """A mask, (K, J, I) bool, as VTK image."""
    import numpy as np
    from vtk.util.numpy_support import numpy_to_vtk

    image = vtk.vtkImageData()
    image.SetDimensions(mask.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(mask.astype(np.uint8).reshape(-1), deep=True))
    return image


def maskOnGrid(node: Any, target: Any) -> Any:
    """The enhancing tumour as a mask, (K, J, I) bool, on a volume's grid: what counts of a volume or segmentation.

    Transforms that both are under count.
    """
    import numpy as np

    counted = countedOf(node)
    if not node.IsA("vtkMRMLSegmentationNode"):
        array = resampledOn(node, target, nearest=True)
        return array != 0 if counted.label is None else np.rint(array) == counted.label
    mask = np.zeros(target.GetImageData().GetDimensions()[::-1], bool)
    for identifier in counted.segments:
        mask |= segmentOn(node, identifier, target)
    return mask
