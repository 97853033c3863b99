"""What is written into the views: the mark of synthetic pictures, and what is to be known of what lies in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import vtk

import slicer
from D3MSynthesisLib.Assignment import isSynthetic
from D3MSynthesisLib.Grids import fieldGrid, liesBy, matrixIn, matrixOf, outermost, transformed, worldFrom
from D3MSynthesisLib.Places import wasRead
from D3MSynthesisLib.Runs import INPUTS, PREFIX, ROLE, RUN, gridOn, nodesOf
from D3MSynthesisLib.Seen import (
    blended,
    composites,
    further,
    images,
    imagesIn3D,
    labelOf,
    masksShown,
    modelsShown,
    named,
    outlines,
    owners,
    segmentsShown,
    volumes,
)
from D3MSynthesisLib.Strangers import STRANGE, UNSAID, isStrange, strangeness
from D3MSynthesisLib.Texts import _

MARK = "synthetic, research use only"
CAPTION = "D3M.Caption"
"""Attribute of a node: what else is written into the views that show it."""
UPPER_EDGE = 7
"""Place in a view's corner annotation that Slicer's own annotations leave free (vtkCornerAnnotation::UpperEdge)."""
LOWER_EDGE = 4
"""Another such place (vtkCornerAnnotation::LowerEdge)."""
LINE_SPACING = 1.25
"""Of the texts in a view with a text of ours: by VTK's own, letters that hang down touch the line below."""
MASK = "mask of a synthesis"
"""Beginning of what is written there where a run's mask lies over acquired scans alone."""
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
OWN_GRID = ("sample", "magnitude", "deformation")
"""Roles of those whose place on the synthetic image is kept with them: `Runs.gridOn`."""
STEPS = ("proxyBefore", "proxyAfter", "proxyMask")
"""Roles of the images of a step, which are under the synthetic image's transform."""
DRAWN_FROM = f"{PREFIX}DrawnFrom"
"""Reference of a drawn deformation: the transform node whose field it shows."""
SAME_MM = 0.01
"""Places that are nearer to each other are the same."""


def markViews(only: str | None = None) -> None:
    """Write the mark at the upper edge of every view that shows a synthetic image or surface, and wipe it from others.

    Beside it stands what is to be known of the picture: which sample, how much the deformation is enlarged, how much
    of the real image is mixed in. Without the application's views nothing is done.

    Args:
        only: The slice view whose images have changed, where no other one can have; 3-D views may show it, too.
    """
    application = getattr(slicer, "app", None)
    manager = application.layoutManager() if hasattr(application, "layoutManager") else None
    if manager is None:
        return
    views = {}
    for name in manager.sliceViewNames():
        widget = manager.sliceWidget(name) if only in (None, name) else None
        if widget is not None:
            views[name] = widget.sliceView()
    for name, view in views.items():  # all marks before anything else: whatever fails there costs none of them
        _write(view, UPPER_EDGE, (MARK,), "\n".join(caption(slicer.mrmlScene, name)))
    for index in range(manager.threeDViewCount):
        widget = manager.threeDWidget(index)
        if widget is not None:
            view = widget.threeDView()
            _write(view, UPPER_EDGE, (MARK,), surfaceCaption(slicer.mrmlScene, view.mrmlViewNode()))
    for name, view in views.items():
        lower = (one(slicer.mrmlScene, name) for one in (maskCaption, strangeCaption, apartCaption, changedCaption))
        text = "\n".join(text for text in lower if text)
        text += _aboveNames(slicer.mrmlScene, name) if text else ""
        _write(view, LOWER_EDGE, (MASK, STRANGE, UNSAID, APART, SINCE), text)


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
    """What of another patient, examination or run is seen together with a result, by name; empty without it.

    Where no run's image is seen the result is one that was read from a file.
    """
    shown = [*images(scene, view)[:2], labelOf(scene, view), *further(scene, view)]
    shown = [node for node in shown if node is not None]
    results = [node for node in shown if node.GetAttribute(RUN)]
    results += [node for node in shown if wasRead(node) and isSynthetic(node)]
    if not results:
        return ""
    result = results[0]
    result = _results(scene).get(result.GetAttribute(RUN), result)  # it alone knows the scans that it was made from
    nodes = nodesOf(scene, "vtkMRMLSegmentationNode")  # runs' masks are told by `maskCaption`
    shown += [node for node in nodes if not node.GetAttribute(RUN) and segmentsShown(node, outlines)]
    said = [(node.GetName(), strangeness(node, result)) for node in shown]
    found = [name for name, sentence in said if sentence == STRANGE]
    found += modelsShown(scene, lambda display: display.GetVisibility2D(), lambda node: isStrange(node, result))
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
    parts = [
        node
        for node in shown
        if node is not None and node.GetAttribute(ROLE) in ("cemri", *ONE_GRID, *OWN_GRID, *STEPS)
    ]
    parts = [node for node in parts if node.GetImageData() is not None]  # a scene may be read just now
    fields = _fieldsDrawn(scene)
    results = _results(scene) if parts or fields else {}
    found = []
    for part in parts:
        image = results.get(part.GetAttribute(RUN))
        if image is not None and not _liesOn(part, image):
            found.append(part.GetName())
    runs = {part.GetAttribute(RUN) for part in parts}
    runs = {run for run in runs & results.keys() if results[run].GetImageData() is not None}
    for mask in nodesOf(scene, "vtkMRMLSegmentationNode") if runs else []:
        own = mask.GetAttribute(RUN) in runs and mask.GetAttribute(ROLE) == "segmentation"
        if own and segmentsShown(mask, outlines) and not liesBy(mask, results[mask.GetAttribute(RUN)]):
            found.append(mask.GetName())
    for field in fields:  # it is drawn over scans, too
        image = results.get(field.GetAttribute(RUN))
        if image is not None and not _liesOn(field, image):
            found.append(field.GetName())
    return f"{APART}: {', '.join(dict.fromkeys(found))}" if found else ""


def _results(scene: Any) -> dict[str, Any]:
    """The synthetic image of each run; no copies that a person made."""
    found: dict[str, Any] = {}
    for node in volumes(scene):
        if node.GetAttribute(ROLE) == "cemri":
            found.setdefault(node.GetAttribute(RUN), node)
    return found


def _liesOn(part: Any, image: Any) -> bool:
    """Whether a part of a run lies where it lay on the synthetic image; what was cropped or resampled does."""
    if part is image or image.GetImageData() is None:
        return True
    role = part.GetAttribute(ROLE)
    if role in STEPS:  # what fills them leaves them where they are
        return bool(abs(matrixIn(image, part) - matrixOf(part)).max() <= SAME_MM)
    drawn = part.IsA("vtkMRMLTransformNode")
    grid = fieldGrid(part) if drawn else (part.GetImageData().GetDimensions(), matrixOf(part))
    if grid is None:  # a warp was hardened onto it
        return True
    size, here = grid
    if role in OWN_GRID:
        there = gridOn(part, image, size)
    else:
        there = matrixOf(image) if size == image.GetImageData().GetDimensions() else None
    if there is None:
        return True
    apart = transformed(outermost(size, here), worldFrom(part)) - transformed(outermost(size, there), worldFrom(image))
    return bool(abs(apart).max() <= SAME_MM)


def _fieldsDrawn(scene: Any) -> list[Any]:
    """The fields of runs that are drawn in slice views, but for those of steps, which are kept where they belong."""
    drawn = _transformsDrawn(scene, lambda display: display.GetVisibility2D())
    fields = [node.GetNodeReference(DRAWN_FROM) or node for node in drawn]
    return [field for field in fields if field.GetAttribute(ROLE) == "deformation"]


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
    for node in _transformsDrawn(scene, shown):
        found.append(node.GetAttribute(CAPTION) or node.GetName())
        if node.GetAttribute(RUN) not in runs:
            found += owners(scene, {node.GetAttribute(RUN)})
    return found


def _transformsDrawn(scene: Any, shown: Callable[[Any], bool]) -> list[Any]:
    """A synthesis' transforms that are drawn; `shown` as in `_drawings`."""
    found = []
    for node in nodesOf(scene, "vtkMRMLTransformNode"):
        display = node.GetDisplayNode() if isSynthetic(node) else None
        if display is not None and display.GetVisibility() and shown(display):
            found.append(node)
    return found
