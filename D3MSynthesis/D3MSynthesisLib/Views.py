"""The slice views: which there are, how they are arranged, where they look, and the mark in them. MRML alone.

Views are reached through their composite and slice nodes, so this works in the application and without a window.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import vtk

import slicer
from D3MSynthesisLib.Assignment import contrastOf, furtherOf, isSynthetic
from D3MSynthesisLib.Belonging import ORIGIN, UNKNOWN, apart, wasRead
from D3MSynthesisLib.Grids import gridPoints, liesBy, matrixOf, rasBounds, transformed, worldFrom
from D3MSynthesisLib.Identity import Gone, identityOf
from D3MSynthesisLib.MaskBelonging import isOfSynthesis, maskBelongs, severalPatients
from D3MSynthesisLib.Runs import (
    DATES,
    INPUTS,
    PREFIX,
    ROLE,
    RUN,
    T1_PLACE,
    Nodes,
    alive,
    differenceOf,
    nodesOf,
    sizeOf,
)
from D3MSynthesisLib.Seen import (
    blended,
    composites,
    further,
    images,
    imagesIn3D,
    labelOf,
    layersOf,
    masksShown,
    modelsShown,
    named,
    outlines,
    owners,
    segmentsShown,
    sliceNodes,
    volumes,
)
from D3MSynthesisLib.Texts import _

MARK = "synthetic, research use only"
CAPTION = "D3M.Caption"
"""Attribute of a node: what else is written into the views that show it."""
BEFORE = "D3M.Before"
"""Attribute of a slice node that `link` has changed: its group, its axes, whether it was linked."""
UPPER_EDGE = 7
"""Place in a view's corner annotation that Slicer's own annotations leave free (vtkCornerAnnotation::UpperEdge)."""
LOWER_EDGE = 4
"""Another such place (vtkCornerAnnotation::LowerEdge)."""
LINE_SPACING = 1.25
"""Of the texts in a view with a text of ours: by VTK's own, letters that hang down touch the line below."""
MASK = "mask of a synthesis"
"""Beginning of what is written there where a run's mask lies over acquired scans alone."""
STRANGE = "of another patient, examination or run"
UNSAID = "nothing says of which patient"
"""Beginning of what is written there where such a thing lies over a result, or under it."""
MADE_FROM = {"t1": "T1", "t2": "T2", "flair": "FLAIR", "adc": "ADC", "swi": "SWI", "brainMask": "the brain mask",
             "givenMask": "the given mask"}  # fmt: skip
"""What a synthetic image is made from, and how it is called."""
CHANGED = {name: f"{PREFIX}Changed{INPUTS[name]}" for name in ("reference", *MADE_FROM)}
"""Attributes of a synthetic image: "yes" where a scan is no longer what was compared, or what it was made from."""
SINCE = "moved or changed since"
"""Part of what is written there where such a scan is seen."""
APART = "not where the synthetic image lies"
"""Beginning of what is written there where a part of its run is seen that was moved, or left behind, alone."""
ONE_GRID = ("subtraction", "probability", "uncertainty", "wholeTumour")
"""Roles of a run's images that have the synthetic one's grid."""
SAME_MM = 0.01
"""Places that are nearer to each other are the same."""
MARGIN = 1.35
"""Views that are fitted are so much larger than the brain: the legend is beside it."""
TWO = ("Red", "Yellow")
"""Slice views of Slicer's layout "side by side" (vtkMRMLLayoutLogic.cxx)."""
FOUR = ("Red", "Slice4", "Green", "Yellow")
"""Slice views of Slicer's layout "two over two", row by row (vtkMRMLLayoutLogic.cxx)."""
SIX = ("Red", "Green", "Yellow", "Red+", "Green+", "Yellow+")
"""Slice views of Slicer's layout "three over three", row by row (vtkMRMLLayoutLogic.cxx)."""


def identifier(node: Any) -> str | None:
    """A node's identifier, None for one that is gone."""
    return node.GetID() if alive(node) else None


def setImages(scene: Any, background: dict[str, Any], default: Any, foreground: Any, opacity: float) -> None:
    """Put images into the slice views.

    Args:
        scene: The scene.
        background: By view: its own image, without anything over it.
        default: The image of all other views.
        foreground: What lies over it.
        opacity: Of the foreground, 0 to 1.
    """
    for composite in composites(scene):
        own = composite.GetLayoutName() in background
        over = None if own or opacity == 0 else foreground
        composite.SetBackgroundVolumeID(identifier(background[composite.GetLayoutName()] if own else default))
        composite.SetForegroundVolumeID(identifier(over))
        composite.SetForegroundOpacity(opacity if alive(over) else 0.0)
        if alive(over):
            composite.SetCompositing(composite.Alpha)  # a person may have subtracted two images in this view before


def opacityOf(image: Any) -> float:
    """How much of an image lies over others in the slice views, 0 to 1."""
    shown = [one for one in composites(image.GetScene()) if one.GetForegroundVolumeID() == image.GetID()]
    return max((one.GetForegroundOpacity() for one in shown), default=0.0)


def dropStrangers(result: Any) -> None:
    """Take what is known to be of another patient or examination, or run, out of the views of a result.

    Args:
        result: The synthetic image. Label maps and layers of our own are dropped; segmentations, models, rendered
            volumes and markups are hidden.
    """
    scene = result.GetScene()
    for composite in composites(scene):
        label = scene.GetNodeByID(composite.GetLabelVolumeID() or "")
        if _strangeness(label, result):
            composite.SetLabelVolumeID(None)
        for layer in layersOf(composite):
            if _isStrange(scene.GetNodeByID(composite.GetNthLayerVolumeID(layer) or ""), result):
                composite.SetNthLayerVolumeID(layer, None)
    for node in (*nodesOf(scene, "vtkMRMLSegmentationNode"), *nodesOf(scene, "vtkMRMLModelNode")):
        if _strangeness(node, result):
            _hide(node)
    for display in nodesOf(scene, "vtkMRMLVolumeRenderingDisplayNode"):
        if _isStrange(display.GetDisplayableNode(), result):
            display.SetVisibility(False)
    for node in nodesOf(scene, "vtkMRMLMarkupsNode"):  # rulers and points know the image that they were put on
        points = range(node.GetNumberOfControlPoints())
        images = {node.GetNthControlPointAssociatedNodeID(point) for point in points} - {"", None}
        if any(_isStrange(scene.GetNodeByID(one), result) for one in images):
            _hide(node)


def _hide(node: Any) -> None:
    for index in range(node.GetNumberOfDisplayNodes()):
        node.GetNthDisplayNode(index).SetVisibility(False)


def _isStrange(node: Any, result: Any) -> bool:
    """Whether a node is of another run than a result, or is known to be of another patient or examination."""
    return _strangeness(node, result) == STRANGE


def _strangeness(node: Any, result: Any) -> str:
    """What is to be said of a node beside a result: `STRANGE`, `UNSAID`, or nothing.

    Of masks, label maps and what is called a scan names and folders tell it as well. `UNSAID` is a mask that was read
    from a file and says nothing, where scans of several patients are in the scene.
    """
    if node is None or node is result:
        return ""
    run = node.GetAttribute(RUN)
    if run:
        return STRANGE if run != result.GetAttribute(RUN) else ""
    mine, theirs = identityOf(result), identityOf(node)
    told = [pair for pair in ((mine.patient, theirs.patient), (mine.study, theirs.study)) if all(pair)]
    if told:  # who drew it may have put it beside the examinations of a patient
        return STRANGE if any(one != other for one, other in told) else ""
    isMask = node.IsA("vtkMRMLSegmentationNode") or node.IsA("vtkMRMLLabelMapVolumeNode")
    if result.GetAttribute(ROLE) in DATES:  # nobody knows whose they are: no mask is known to be theirs
        return STRANGE if isMask else ""
    given = [result.GetNodeReference(PREFIX + INPUTS[name]) for name in INPUTS]
    t1 = _t1Of(result)
    if t1 is None or node in given:  # who chose it was told
        return ""
    if isMask:
        belongs = maskBelongs(node, t1)
        if belongs is None and wasRead(node):
            if isOfSynthesis(node) and not _isOfRun(node, result):
                return STRANGE
            return UNSAID if not theirs.patient and severalPatients(node.GetScene()) else ""
        return STRANGE if belongs is False else ""
    name = node.GetName() or ""  # of maps and atlases names say nothing about a patient
    isScan = node.IsA("vtkMRMLScalarVolumeNode") and bool(contrastOf(name) or furtherOf(name))
    return STRANGE if isScan and apart(node, t1) else ""


def _t1Of(result: Any) -> Any:
    """The T1 that a result was made from; where it is gone what is kept of it, None if nothing is."""
    t1 = result.GetNodeReference(PREFIX + INPUTS["t1"])
    if alive(t1):
        return t1
    if result.GetAttribute(ROLE) != "cemri":  # the synthetic image alone keeps it
        return None
    identity = identityOf(result)  # it lies in T1's examination
    attributes = {ORIGIN: result.GetAttribute(T1_PLACE) or UNKNOWN}
    if identity.study:  # scans of one came from DICOM
        attributes["DICOM.instanceUIDs"] = "gone"
    return Gone(Nodes("", 0, None, result).t1Name, identity, attributes)


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


def runsShown(scene: Any) -> set[str]:
    """The runs of which an image is in a slice view of the layout; views that nobody sees keep theirs."""
    found = set()
    for composite in _arranged(scene):
        for identity in (composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID()):
            node = scene.GetNodeByID(identity or "")
            found.add("" if node is None else node.GetAttribute(RUN) or "")
    return found - {""}


def withoutRun(nodes: Nodes) -> list[str]:
    """Names of synthetic images of no run, as files have them, in slice views of the layout.

    What was made of a run's own image in the scene, "... cropped", is no other result.
    """
    if not alive(nodes.cemri):  # its scene is being closed
        return []
    scene, own = nodes.cemri.GetScene(), nodes.cemri.GetName() or ""
    shown = [node for view in _arranged(scene) for node in images(scene, view.GetLayoutName())[:2]]
    names = [
        node.GetName() or ""
        for node in shown
        if isSynthetic(node) and not node.GetAttribute(RUN) and (wasRead(node) or not node.GetName().startswith(own))
    ]
    return list(dict.fromkeys(names))


def _arranged(scene: Any) -> list[Any]:
    """The composite nodes of the slice views of the layout; all of them where there is none."""
    seen = {node.GetLayoutName() for node in sliceNodes(scene) if node.IsMappedInLayout()}
    return [composite for composite in composites(scene) if not seen or composite.GetLayoutName() in seen]


def acquired(scene: Any) -> list[Any]:
    """Images in the slice views that no synthesis has made."""
    shown = [node for view in composites(scene) for node in images(scene, view.GetLayoutName())[:2]]
    return [node for node in shown if node is not None and not isSynthetic(node)]


def layoutNode(scene: Any) -> Any:
    """The node that says how views are arranged; None in an application without views."""
    return scene.GetFirstNodeByClass("vtkMRMLLayoutNode")


def arrange(scene: Any, arrangement: int) -> None:
    """Choose one of Slicer's layouts."""
    layout = layoutNode(scene)
    if layout is not None:
        layout.SetViewArrangement(arrangement)


def orient(scene: Any, orientations: dict[str, str]) -> None:
    """Turn views: "Axial", "Sagittal" or "Coronal" by view."""
    for node in sliceNodes(scene):
        if node.GetLayoutName() in orientations and node.GetOrientation() != orientations[node.GetLayoutName()]:
            node.SetOrientation(orientations[node.GetLayoutName()])


def link(scene: Any, views: tuple[str, ...]) -> None:
    """Let views follow each other, the first one turned axial; `copyPosition` has the others look where it does.

    Views follow each other within one group (vtkMRMLSliceLinkLogic.cxx, BroadcastSliceNodeEvent); the lower row of
    Slicer's layout "three over three" is a group of its own. `release` undoes it.
    """
    for view in views:
        node, composite = named(sliceNodes(scene), view), named(composites(scene), view)
        if node is None or composite is None:
            continue
        if node.GetAttribute(BEFORE) is None:
            turned = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())[:3, :3]
            before = [node.GetViewGroup(), turned.tolist(), bool(composite.GetLinkedControl())]
            node.SetAttribute(BEFORE, json.dumps(before))
        composite.SetLinkedControl(True)
    orient(scene, {views[0]: "Axial"})


def release(scene: Any) -> None:
    """Turn, group and link views as they were before `link`; they stay where they look."""
    for node in sliceNodes(scene):
        if node.GetAttribute(BEFORE) is None:
            continue
        group, turned, linked = json.loads(node.GetAttribute(BEFORE))
        node.SetAttribute(BEFORE, None)
        composite = named(composites(scene), node.GetLayoutName())
        if composite is not None:
            composite.SetLinkedControl(linked)
        node.SetViewGroup(group)
        matrix = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS()).copy()
        matrix[:3, :3] = turned
        node.GetSliceToRAS().DeepCopy(slicer.util.vtkMatrixFromArray(matrix))
        node.UpdateMatrices()


def copyPosition(scene: Any, source: str, targets: tuple[str, ...]) -> None:
    """Let views look at the same place as another one, as large, in its group."""
    master = named(sliceNodes(scene), source)
    if master is None:
        return
    perPixel = [master.GetFieldOfView()[axis] / max(master.GetDimensions()[axis], 1) for axis in (0, 1)]
    for name in targets:
        node = named(sliceNodes(scene), name)
        if node is None or node is master:
            continue
        node.SetViewGroup(master.GetViewGroup())
        node.GetSliceToRAS().DeepCopy(master.GetSliceToRAS())
        node.SetXYZOrigin(*master.GetXYZOrigin())
        size = node.GetDimensions()
        node.SetFieldOfView(size[0] * perPixel[0], size[1] * perPixel[1], master.GetFieldOfView()[2])
        node.UpdateMatrices()


def brainBounds(nodes: Nodes) -> Any:
    """Lowest and highest corner, (2, 3), of what was synthesised, in the world: RAS millimetres."""
    import numpy as np

    brain = differenceOf(nodes)
    if not brain.any():
        brain = np.ones_like(brain)
    found = [np.flatnonzero(brain.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    ends = np.array([[index[0], index[-1]] for index in found])  # of k, j, i
    corners = np.array([[ends[2, a], ends[1, b], ends[0, c]] for a in (0, 1) for b in (0, 1) for c in (0, 1)], float)
    matrix = vtk.vtkMatrix4x4()
    nodes.cemri.GetIJKToRASMatrix(matrix)
    affine = slicer.util.arrayFromVTKMatrix(matrix)
    return rasBounds(transformed(corners @ affine[:3, :3].T + affine[:3, 3], worldFrom(nodes.cemri)))


def lesion(nodes: Nodes) -> Any:
    """A point of the predicted mask of a run: see `largestPart`."""
    from D3MSynthesisLib.Masks import maskOf

    return largestPart(maskOf(nodes), nodes.cemri)


def largestPart(mask: Any, volume: Any) -> Any:
    """A point, RAS millimetres in the world, in the middle of the largest connected part of a mask.

    It lies in the part's largest axial slice of the volume, on the voxel nearest to that slice's centre; None without
    a mask.

    Args:
        mask: (K, J, I) bool.
        volume: The volume whose grid it is on.
    """
    import numpy as np
    from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

    if not mask.any():
        return None
    image = vtk.vtkImageData()
    image.SetDimensions(mask.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(mask.astype(np.uint8).reshape(-1), deep=True))
    parts = vtk.vtkImageConnectivityFilter()
    parts.SetInputData(image)
    parts.SetScalarRange(1, 1)
    parts.SetExtractionModeToLargestRegion()
    parts.Update()
    largest = vtk_to_numpy(parts.GetOutput().GetPointData().GetScalars()).reshape(mask.shape) > 0
    k = int(largest.sum(axis=(1, 2)).argmax())
    inside = np.argwhere(largest[k])
    j, i = inside[np.abs(inside - inside.mean(0)).sum(1).argmin()]
    point = matrixOf(volume) @ np.array([i, j, k, 1.0])
    return transformed(point[None, :3], worldFrom(volume))[0]


def lookAt(nodes: Nodes, fit: bool = False, jump: bool = True) -> None:
    """Cut every view at the largest predicted enhancement; fit those that do not show the whole brain.

    Args:
        nodes: The run. Without enhancement the slices stay, unless they miss the brain.
        fit: Fit all views.
        jump: Cut all views there; else only those that are fitted.
    """
    bounds = brainBounds(nodes)
    point = lesion(nodes)
    for node in sliceNodes(nodes.cemri.GetScene()):
        fitted = fit or not _shows(node, bounds)
        if fitted:
            _fit(node, bounds)
        if point is not None and (jump or fitted):
            node.JumpSliceByOffsetting(*point)
        elif fitted:
            node.JumpSliceByOffsetting(*bounds.mean(0))


def _shows(node: Any, bounds: Any) -> bool:
    """Whether a view has the whole brain in its frame, larger than a fifth of it, and cuts it."""
    import numpy as np

    matrix = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
    low, high = _inPlane(matrix, bounds)
    half = np.array(node.GetFieldOfView()[:2]) / 2 + 1
    origin = np.array(node.GetXYZOrigin()[:2])
    seen = (low[:2] >= origin - half).all() and (high[:2] <= origin + half).all()
    large = ((high - low)[:2] > 0.2 * 2 * half).any()
    return bool(seen and large and low[2] <= 0 <= high[2])


def _inPlane(sliceToRAS: Any, bounds: Any) -> tuple[Any, Any]:
    """The brain's box in a view's coordinates: lowest and highest corner, right, up, through the plane; mm."""
    import numpy as np

    corners = np.array([[bounds[a, 0], bounds[b, 1], bounds[c, 2]] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
    local = (corners - sliceToRAS[:3, 3]) @ sliceToRAS[:3, :3]
    return local.min(0), local.max(0)


def _fit(node: Any, bounds: Any) -> None:
    """Show the whole brain with a margin, its middle in the middle."""
    matrix = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS()).copy()
    low, high = _inPlane(matrix, bounds)
    size = node.GetDimensions()
    perPixel = MARGIN * max((high[axis] - low[axis]) / max(size[axis], 1) for axis in (0, 1))
    middle = (low + high) / 2
    middle[2] = 0.0  # the slice stays
    matrix[:3, 3] += matrix[:3, :3] @ middle
    node.GetSliceToRAS().DeepCopy(slicer.util.vtkMatrixFromArray(matrix))
    node.SetXYZOrigin(0, 0, 0)
    node.SetFieldOfView(size[0] * perPixel, size[1] * perPixel, node.GetFieldOfView()[2])
    node.UpdateMatrices()


def markViews() -> None:
    """Write the mark at the upper edge of every view that shows a synthetic image or surface, and wipe it from others.

    Beside it stands what is to be known of the picture: which sample, how much the deformation is enlarged, how much
    of the real image is mixed in. Without the application's views nothing is done.
    """
    application = getattr(slicer, "app", None)
    manager = application.layoutManager() if hasattr(application, "layoutManager") else None
    if manager is None:
        return
    for name in manager.sliceViewNames():
        widget = manager.sliceWidget(name)
        if widget is None:
            continue
        view = widget.sliceView()
        _write(view, UPPER_EDGE, (MARK,), "\n".join(caption(slicer.mrmlScene, name)))
        lower = (one(slicer.mrmlScene, name) for one in (maskCaption, strangeCaption, apartCaption, changedCaption))
        text = "\n".join(text for text in lower if text)
        _write(
            view,
            LOWER_EDGE,
            (MASK, STRANGE, UNSAID, APART, SINCE),
            text + _aboveNames(slicer.mrmlScene, name) if text else "",
        )
    for index in range(manager.threeDViewCount):
        widget = manager.threeDWidget(index)
        if widget is not None:
            view = widget.threeDView()
            _write(view, UPPER_EDGE, (MARK,), surfaceCaption(slicer.mrmlScene, view.mrmlViewNode()))


def _write(view: Any, place: int, own: tuple[str, ...], wanted: str) -> None:
    written = view.cornerAnnotation().GetText(place) or ""
    lines = written.split("\n") if written else []
    found = (number for number, line in enumerate(lines) if any(one in line for one in own))
    others = lines[: next(found, len(lines))]  # another module's text stays, and takes no mark away
    wanted = "\n".join([*others, wanted] if wanted else others)
    if wanted != written:
        annotation = view.cornerAnnotation()
        annotation.SetText(place, wanted)
        ours = any(annotation.GetText(edge) for edge in (UPPER_EDGE, LOWER_EDGE))
        spacing = LINE_SPACING if ours else vtk.vtkTextProperty().GetLineSpacing()
        annotation.GetTextProperty().SetLineSpacing(spacing)
        view.scheduleRender()


def _aboveNames(scene: Any, view: str) -> str:
    """Lines below what is written at the lower edge: Slicer's own names of the images would lie over it.

    They stand in the corner beside it, a line for each of label, foreground and background, and an empty one
    (SliceViewAnnotations.py, makeAnnotationText and drawCornerAnnotations).
    """
    composite = named(composites(scene), view)
    if composite is None:  # a view without images
        return ""
    shown = (composite.GetLabelVolumeID(), composite.GetForegroundVolumeID(), composite.GetBackgroundVolumeID())
    return "\n " * (1 + sum(scene.GetNodeByID(identity or "") is not None for identity in shown))


def caption(scene: Any, view: str) -> list[str]:
    """Lines at the upper edge of a view; none where only acquired images are seen."""
    under, over, share = images(scene, view)
    shown = [node for node in (under, over, *further(scene, view)) if isSynthetic(node)]
    runs = {node.GetAttribute(RUN) for node in shown}
    drawings = _drawings(scene, runs, lambda display: display.GetVisibility2D())
    if not shown:  # over an acquired scan the drawing alone is ours
        return [f"drawing: {MARK}", *drawings] if drawings else []
    lines = [MARK]
    real = [node for node in (under, over) if node is not None and not isSynthetic(node)]
    if over is not None and len(real) == 1 and share < 1 and blended(scene, view):
        lines.append(_("{n} % of it real").format(n=round(100 * (share if not isSynthetic(over) else 1 - share))))
    return lines + [text for node in shown if (text := node.GetAttribute(CAPTION))] + drawings


def changedCaption(scene: Any, view: str) -> str:
    """That a scan which is seen is no longer what was compared, or what a run was made from; else empty.

    Of a scan that several runs have in common it is said of which synthetic image it is so.
    """
    shown = (*images(scene, view)[:2], labelOf(scene, view), *further(scene, view))
    seen = {node.GetID() for node in shown if node is not None and not isSynthetic(node)}
    results = _results(scene) if seen else {}
    texts = {name: f"{title} {SINCE} the synthesis" for name, title in MADE_FROM.items()}
    texts["reference"] = f"real T1c {SINCE} it was compared"
    found = []
    for name, key in CHANGED.items():
        of = [node for node in results.values() if node.GetNodeReferenceID(PREFIX + INPUTS[name]) in seen]
        changed = [node for node in of if node.GetAttribute(key) is not None]
        if changed:
            found += [texts[name], *(node.GetName() for node in changed if len(of) > 1)]
    return "\n".join(found)


def maskCaption(scene: Any, view: str) -> str:
    """What lies over images of anything but its own run, and of which synthetic image it is; empty elsewhere.

    An outline alone looks as if somebody had drawn it by the scan, and the picture may be the next patient's.
    """
    runs = {node.GetAttribute(RUN) for node in images(scene, view)[:2] if node is not None}
    label = labelOf(scene, view)
    names, found = masksShown(scene, outlines, runs)
    names += modelsShown(scene, lambda display: display.GetVisibility2D())
    if isSynthetic(label) and label.GetAttribute(RUN) not in runs - {None}:
        names.append(label.GetName())
    return "\n".join([f"{MASK}: {', '.join(names)}", *found]) if names else ""


def strangeCaption(scene: Any, view: str) -> str:
    """What of another patient, examination or run is seen together with a result, by name; empty without it."""
    shown = [*images(scene, view)[:2], labelOf(scene, view), *further(scene, view)]
    shown = [node for node in shown if node is not None]
    result = next((node for node in shown if node.GetAttribute(RUN)), None)
    if result is None:
        return ""
    result = _results(scene).get(result.GetAttribute(RUN), result)  # it alone knows the scans that it was made from
    nodes = nodesOf(scene, "vtkMRMLSegmentationNode")  # runs' masks are told by `maskCaption`
    shown += [node for node in nodes if not node.GetAttribute(RUN) and segmentsShown(node, outlines)]
    said = [(node.GetName(), _strangeness(node, result)) for node in shown]
    found = [name for name, sentence in said if sentence == STRANGE]
    found += modelsShown(scene, lambda display: display.GetVisibility2D(), lambda node: _isStrange(node, result))
    unsaid = [name for name, sentence in said if sentence == UNSAID and name not in found]
    lines = [
        f"{sentence}: {', '.join(dict.fromkeys(names))}"
        for sentence, names in ((STRANGE, found), (UNSAID, unsaid))
        if names
    ]
    return "\n".join(lines)


def apartCaption(scene: Any, view: str) -> str:
    """Which parts of a run are seen that do not lie on its synthetic image: a transform is put on one node alone."""
    shown = (*images(scene, view)[:2], *further(scene, view))
    parts = [node for node in shown if node is not None and node.GetAttribute(ROLE) in ("cemri", *ONE_GRID)]
    parts = [node for node in parts if node.GetImageData() is not None]  # a scene may be read just now
    results = _results(scene) if parts else {}
    found = []
    for part in parts:
        image = results.get(part.GetAttribute(RUN))
        same = image is not None and sizeOf(part) == sizeOf(image)  # else it was cropped
        if same and abs(_corners(part) - _corners(image)).max() > SAME_MM:
            found.append(part.GetName())
    runs = {part.GetAttribute(RUN) for part in parts}
    runs = {run for run in runs & results.keys() if results[run].GetImageData() is not None}
    for mask in nodesOf(scene, "vtkMRMLSegmentationNode") if runs else []:
        own = mask.GetAttribute(RUN) in runs and mask.GetAttribute(ROLE) == "segmentation"
        if own and segmentsShown(mask, outlines) and not liesBy(mask, results[mask.GetAttribute(RUN)]):
            found.append(mask.GetName())
    return f"{APART}: {', '.join(dict.fromkeys(found))}" if found else ""


def _results(scene: Any) -> dict[str, Any]:
    """The synthetic image of each run; no copies that a person made."""
    found: dict[str, Any] = {}
    for node in volumes(scene):
        if node.GetAttribute(ROLE) == "cemri":
            found.setdefault(node.GetAttribute(RUN), node)
    return found


def _corners(volume: Any) -> Any:
    """The middles of a volume's outermost voxels in the world, (2, 2, 2, 3) mm."""
    import numpy as np

    last = np.array([*volume.GetImageData().GetDimensions(), 2]) - 1
    return transformed(gridPoints((2, 2, 2), matrixOf(volume) * last), worldFrom(volume))


def surfaceCaption(scene: Any, view: Any) -> str:
    """The mark of a 3-D view, and what is synthetic in it: slices, volumes that are rendered, surfaces of masks."""

    def solid(node: Any, display: Any, segment: str) -> bool:
        return bool(
            display.GetVisibility3D()
            and display.GetSegmentVisibility3D(segment)
            and display.GetOpacity3D() > 0
            and (view is None or display.IsDisplayableInView(view.GetID()))
            and node.GetSegmentation().ContainsRepresentation("Closed surface")
        )

    found = imagesIn3D(scene, None if view is None else view.GetID())
    lines = [MARK, *found] if found else []
    drawings = _drawings(
        scene,
        set(),
        lambda display: display.GetVisibility3D() and (view is None or display.IsDisplayableInView(view.GetID())),
    )
    lines += [f"drawing: {MARK}", *drawings] if drawings else []
    names, of = masksShown(scene, solid)
    names += modelsShown(
        scene,
        lambda display: (
            display.GetVisibility3D()
            and display.GetOpacity() > 0
            and (view is None or display.IsDisplayableInView(view.GetID()))
        ),
    )
    return "\n".join([*lines, f"surface: {MARK}", ", ".join(names), *of] if names else lines)


def _drawings(scene: Any, runs: set[str], shown: Callable[[Any], bool]) -> list[str]:
    """Captions, else names, of a synthesis' transforms that are drawn, with the synthetic image that they are of.

    Whoever shows a run's own field in Slicer's module Transforms has it drawn over whatever lies in the views.

    Args:
        scene: The scene.
        runs: Of which an image is seen: their own drawings need no name.
        shown: Whether a display node that is visible draws in the views that are meant.
    """
    found = []
    for node in nodesOf(scene, "vtkMRMLTransformNode"):
        display = node.GetDisplayNode() if isSynthetic(node) else None
        if display is not None and display.GetVisibility() and shown(display):
            found.append(node.GetAttribute(CAPTION) or node.GetName())
            if node.GetAttribute(RUN) not in runs:
                found += owners(scene, {node.GetAttribute(RUN)})
    return found
