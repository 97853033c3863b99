"""How nodes look: window, colours, overlays, layouts, the replay of the steps. MRML alone.

Slice views are reached through their composite nodes, so all of this works in the application and without a window.
"""

from __future__ import annotations

from typing import Any

import vtk

import slicer
from D3MSynthesisLib.Colours import colourNode
from D3MSynthesisLib.Inputs import SYNTHETIC
from D3MSynthesisLib.Runs import Nodes, proxies, updateProxies

MARK = "synthetic, research use only"
UPPER_EDGE = 7
"""Place in a view's corner annotation that Slicer's own annotations leave free (vtkCornerAnnotation::UpperEdge)."""
OVERLAYS = ("none", "subtraction", "probability", "magnitude", "uncertainty")
PROBABILITY_FLOOR = 0.05
"""Below this the probability is transparent."""
SEEN_MM = 3.0
"""Length at which a long arrow is drawn at least."""
MAX_ENLARGEMENT = 20

_LENGTHS = ((0.30, 0.50, 0.60), (0.25, 0.85, 0.55), (1.00, 0.90, 0.20))
"""Colours of grid and arrows, from no deformation to the longest."""
_TITLES = {
    "subtraction": "CEMRI - T1", "probability": "probability", "magnitude": "moved by (mm)", "uncertainty": "spread",
}  # fmt: skip


def applyDefaults(nodes: Nodes) -> None:
    """First look of a run's nodes."""
    import numpy as np

    image = slicer.util.arrayFromVolume(nodes.cemri)
    change = slicer.util.arrayFromVolume(nodes.subtraction)
    brain = change != 0  # only the brain is synthesised
    if not brain.any():
        brain = image != 0
    inside = image[brain] if brain.any() else image.ravel()
    low, high = (float(value) for value in np.percentile(inside, (1, 99.5)))
    _window(nodes.cemri, low, max(high, low + 1e-6))
    limit = float(np.percentile(np.abs(change[brain]), 99.5)) if brain.any() else 1.0
    _colours(nodes.subtraction, "diverging", -limit or -1.0, limit or 1.0)
    _colours(nodes.probability, "sequential", 0.0, 1.0, PROBABILITY_FLOOR)
    lengths = slicer.util.arrayFromVolume(nodes.magnitude)
    top = _upper(lengths[lengths > 0])
    _colours(nodes.magnitude, "magnitude", 0.0, top, 0.02 * top)
    if nodes.uncertainty is not None:
        spread = slicer.util.arrayFromVolume(nodes.uncertainty)
        top = _upper(spread[spread > 0])
        _colours(nodes.uncertainty, "sequential", 0.0, top, 0.05 * top)
    _transformDisplay(nodes.deformation, nodes)
    display = nodes.segmentation.GetDisplayNode()
    display.SetOpacity2DFill(0.3)
    display.SetOpacity2DOutline(1.0)
    _stepsDisplay(nodes, low, high)


def _upper(values: Any) -> float:
    """Upper end of a colour range: the 99th percentile of what is not zero."""
    import numpy as np

    return max(float(np.percentile(values, 99)), 1e-3) if values.size else 1.0


def _window(volume: Any, low: float, high: float) -> None:
    display = volume.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(low, high)


def _colours(volume: Any, kind: str, low: float, high: float, floor: float | None = None) -> None:
    display = volume.GetDisplayNode()
    display.SetAndObserveColorNodeID(colourNode(volume.GetScene(), kind).GetID())
    display.SetInterpolate(True)
    _window(volume, low, high)
    if floor is not None:
        display.SetThreshold(floor, 1e9)
        display.SetApplyThreshold(True)


def enlargement(nodes: Nodes) -> int:
    """How many times grid and arrows are drawn enlarged: most fields are fractions of a millimetre."""
    top = nodes.magnitude.GetDisplayNode().GetWindowLevelMax()
    return min(max(round(SEEN_MM / top), 1), MAX_ENLARGEMENT)


def _transformDisplay(transform: Any, nodes: Nodes) -> None:
    """Slicer draws where tissue was moved *to*; colours are over the range of the magnitude."""
    factor, top = enlargement(nodes), nodes.magnitude.GetDisplayNode().GetWindowLevelMax()
    display = transform.GetDisplayNode()
    display.SetVisibility(False)
    display.SetVisibility2D(False)
    display.SetVisibility3D(False)
    display.SetGridSpacingMm(6.0)
    display.SetGridResolutionMm(1.0)
    display.SetGridScalePercent(100 * factor)
    display.SetGridShowNonWarped(False)
    display.SetGlyphSpacingMm(4.0)
    display.SetGlyphScalePercent(100 * factor)
    display.SetGlyphDisplayRangeMinMm(0.5 / factor)
    display.SetGlyphDisplayRangeMaxMm(50.0)
    colours = vtk.vtkColorTransferFunction()  # Slicer's own has everything below a millimetre in dark grey
    for share, colour in zip((0.0, 0.3, 1.0), _LENGTHS, strict=True):
        colours.AddRGBPoint(share * top, *colour)
    display.SetColorMap(colours)


def _stepsDisplay(nodes: Nodes, low: float, high: float) -> None:
    for name, node in proxies(nodes).items():
        node.CreateDefaultDisplayNodes()
        if name == "field":
            _transformDisplay(node, nodes)
        elif name == "mask":
            _colours(node, "sequential", 0.0, 1.0, PROBABILITY_FLOOR)
        else:
            _window(node, low, high)


def composites(scene: Any) -> list[Any]:
    """The composite nodes of all slice views."""
    return [
        scene.GetNthNodeByClass(index, "vtkMRMLSliceCompositeNode")
        for index in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode"))
    ]


def _composite(scene: Any, view: str) -> Any:
    return next((node for node in composites(scene) if node.GetLayoutName() == view), None)


def _alive(node: Any) -> bool:
    return node is not None and node.GetScene() is not None


def _id(node: Any) -> str | None:
    return node.GetID() if _alive(node) else None


def _setForeground(scene: Any, node: Any, opacity: float) -> None:
    for composite in composites(scene):
        composite.SetForegroundVolumeID(_id(node))
        composite.SetForegroundOpacity(opacity)


def _setBackground(scene: Any, node: Any) -> None:
    for composite in composites(scene):
        composite.SetBackgroundVolumeID(_id(node))


def showResult(nodes: Nodes) -> None:
    """The synthetic image in every slice view, the mask over it; T1 gets the same window, to be compared by eye."""
    scene = nodes.cemri.GetScene()
    _setBackground(scene, nodes.cemri)
    setOverlay(nodes, "none")
    setDeformation(nodes, "off")
    setMask(nodes)
    for volume in (nodes.t1, nodes.reference):
        if _alive(volume) and volume.GetDisplayNode() is not None:
            display = nodes.cemri.GetDisplayNode()
            _window(volume, display.GetWindowLevelMin(), display.GetWindowLevelMax())
    markViews()


def setMask(nodes: Nodes, visible: bool = True, fill: bool = True, outline: bool = True, opacity: float = 0.3) -> None:
    """Show the predicted mask: filled, as outline, or both; `opacity` is that of the filling."""
    display = nodes.segmentation.GetDisplayNode() if _alive(nodes.segmentation) else None
    if display is None:
        return
    display.SetVisibility(visible)
    display.SetVisibility2DFill(fill)
    display.SetVisibility2DOutline(outline)
    display.SetOpacity2DFill(opacity)


def setOverlay(nodes: Nodes, name: str, opacity: float = 0.6) -> None:
    """Lay one image over the slice views, with a colour legend.

    Args:
        nodes: The run.
        name: One of `OVERLAYS`.
        opacity: 0 to 1.

    Raises:
        ValueError: there is no such overlay.
    """
    if name not in OVERLAYS:
        raise ValueError(f"There is no overlay {name!r}.")
    scene = nodes.cemri.GetScene()
    chosen = None if name == "none" else getattr(nodes, name)
    _setForeground(scene, chosen, opacity if _alive(chosen) else 0.0)
    for other in OVERLAYS[1:]:
        _legend(getattr(nodes, other), _TITLES[other], other == name)


def _legend(volume: Any, title: str, visible: bool) -> None:
    if not _alive(volume):
        return
    logic = getattr(slicer, "vtkSlicerColorLogic", None)
    if logic is None:
        return
    legend = logic.GetColorLegendDisplayNode(volume)
    if legend is None:
        if not visible:
            return
        legend = logic.AddDefaultColorLegendDisplayNode(volume)
        if legend is None:
            return
        legend.SetTitleText(title)
        legend.SetLabelFormat("%.3g")
        legend.SetNumberOfLabels(5)
    legend.SetVisibility(visible)


def setDeformation(nodes: Nodes, mode: str, opacity: float = 0.6) -> None:
    """Show the deformation of the last step, or of the step that is replayed.

    Args:
        nodes: The run.
        mode: "off"; "magnitude": colours, by how many millimetres; "grid": a grid that was moved with the tissue;
            "arrows": where tissue was moved to.
        opacity: Of the colours.

    Raises:
        ValueError: there is no such mode.
    """
    if mode not in ("off", "magnitude", "grid", "arrows"):
        raise ValueError(f"There is no such picture of the deformation: {mode!r}.")
    scene = nodes.cemri.GetScene()
    shown = _foreground(scene)
    if mode == "magnitude":
        setOverlay(nodes, "magnitude", opacity)
    elif shown is not None and shown is nodes.magnitude:
        setOverlay(nodes, "none")
    step = proxies(nodes).get("field")
    replaying = step is not None and _background(scene) in _stepImages(nodes)
    for transform, active in ((nodes.deformation, not replaying), (step, replaying)):
        display = transform.GetDisplayNode() if _alive(transform) else None
        if display is None:
            continue
        visible = active and mode in ("grid", "arrows")
        if visible:
            display.SetVisualizationMode(display.VIS_MODE_GRID if mode == "grid" else display.VIS_MODE_GLYPH)
        display.SetVisibility(visible)
        display.SetVisibility2D(visible)
    nodes.cemri.SetAttribute("D3M.DeformationShown", mode)


def _foreground(scene: Any) -> Any:
    found = composites(scene)
    return scene.GetNodeByID(found[0].GetForegroundVolumeID()) if found and found[0].GetForegroundVolumeID() else None


def _background(scene: Any) -> Any:
    found = composites(scene)
    return scene.GetNodeByID(found[0].GetBackgroundVolumeID()) if found and found[0].GetBackgroundVolumeID() else None


def setFade(nodes: Nodes, fraction: float) -> None:
    """Fade from the synthetic image (0) to the real T1c (1), if there is one."""
    if not _alive(nodes.reference):
        return
    scene = nodes.cemri.GetScene()
    setOverlay(nodes, "none")
    _setBackground(scene, nodes.cemri)
    _setForeground(scene, nodes.reference, min(max(fraction, 0.0), 1.0))


def _stepImages(nodes: Nodes) -> list[Any]:
    found = proxies(nodes)
    return [found[name] for name in ("before", "after") if name in found]


def showStep(nodes: Nodes, done: int, image: str = "after", mask: bool = True) -> None:
    """Show one step of the reverse process in every slice view.

    Args:
        nodes: The run; it must have kept its steps.
        done: Steps done, from 1 (nearly noise) to `nodes.steps` (the result).
        image: "before" or "after" the warp of this step.
        mask: Lay the probability of this step over it.

    Raises:
        ValueError: there is no such step or image.
    """
    if not 1 <= done <= nodes.steps or image not in ("before", "after"):
        raise ValueError("There is no such step.")
    scene = nodes.cemri.GetScene()
    selectStep(nodes, done)
    found = proxies(nodes)
    display = nodes.cemri.GetDisplayNode()
    for name in ("before", "after"):
        _window(found[name], display.GetWindowLevelMin(), display.GetWindowLevelMax())
    _setBackground(scene, found[image])
    _setForeground(scene, found["mask"] if mask else None, 0.5 if mask else 0.0)
    for other in OVERLAYS[1:]:
        _legend(getattr(nodes, other), _TITLES[other], False)
    setMask(nodes, visible=False)
    mode = nodes.cemri.GetAttribute("D3M.DeformationShown") or "off"
    setDeformation(nodes, "off" if mode == "magnitude" else mode)


def selectStep(nodes: Nodes, done: int) -> None:
    """Fill the nodes of the replay with one step."""
    nodes.browser.SetSelectedItemNumber(nodes.stepAfter.GetItemNumberFromIndexValue(str(done), False))
    updateProxies(nodes)


def showFinal(nodes: Nodes) -> None:
    """Leave the replay: the result again, the deformation as it was chosen."""
    mode = nodes.cemri.GetAttribute("D3M.DeformationShown") or "off"
    showResult(nodes)
    setDeformation(nodes, mode)


def setLayout(nodes: Nodes, name: str) -> None:
    """Arrange the views.

    Args:
        nodes: The run.
        name: "sideBySide": T1 and the synthetic image, axial and linked; "fourUp": the synthetic image in three
            directions and the mask as a surface; "beforeAfter": the image before and after the last warp, linked.

    Raises:
        ValueError: there is no such layout, or no steps were kept for "beforeAfter".
    """
    scene = nodes.cemri.GetScene()
    if name == "sideBySide":
        _pair(scene, nodes.t1 if _alive(nodes.t1) else nodes.cemri, nodes.cemri)
    elif name == "beforeAfter":
        if not nodes.steps:
            raise ValueError("The steps were not kept.")
        selectStep(nodes, nodes.steps)
        before, after = _stepImages(nodes)
        display = nodes.cemri.GetDisplayNode()
        for node in (before, after):
            _window(node, display.GetWindowLevelMin(), display.GetWindowLevelMax())
        _pair(scene, before, after)
    elif name == "fourUp":
        _arrange(scene, slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        _orient(scene, {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"})
        _setBackground(scene, nodes.cemri)
        if _alive(nodes.segmentation):
            nodes.segmentation.CreateClosedSurfaceRepresentation()
    else:
        raise ValueError(f"There is no layout {name!r}.")


def _pair(scene: Any, left: Any, right: Any) -> None:
    _arrange(scene, slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView)
    _orient(scene, {"Red": "Axial", "Yellow": "Axial"})
    shown = _foreground(scene)
    if shown is not None and shown.GetAttribute("D3M.Role") not in OVERLAYS:
        _setForeground(scene, None, 0.0)  # a fade or a step would cover one of the two
    for view, node in (("Red", left), ("Yellow", right)):
        composite = _composite(scene, view)
        if composite is not None:
            composite.SetBackgroundVolumeID(_id(node))
            composite.SetLinkedControl(False)  # else the second choice would change the first view too
    for composite in composites(scene):
        composite.SetLinkedControl(True)


def _arrange(scene: Any, arrangement: int) -> None:
    layout = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    if layout is not None:
        layout.SetViewArrangement(arrangement)


def _orient(scene: Any, orientations: dict[str, str]) -> None:
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceNode")):
        node = scene.GetNthNodeByClass(index, "vtkMRMLSliceNode")
        if node.GetLayoutName() in orientations:
            node.SetOrientation(orientations[node.GetLayoutName()])


def markViews(text: str = MARK) -> None:
    """Write the mark at the upper edge of every slice view that shows a synthetic image, and wipe it from the others.

    Without the application's views nothing is done.
    """
    application = getattr(slicer, "app", None)
    manager = application.layoutManager() if hasattr(application, "layoutManager") else None
    if manager is None:
        return
    for name in manager.sliceViewNames():
        view = manager.sliceWidget(name).sliceView()
        written = view.cornerAnnotation().GetText(UPPER_EDGE) or ""
        wanted = text if _showsSynthetic(slicer.mrmlScene, name) else ""
        if wanted != written and written in ("", text):  # another module's text stays
            view.cornerAnnotation().SetText(UPPER_EDGE, wanted)
            view.scheduleRender()


def _showsSynthetic(scene: Any, view: str) -> bool:
    composite = _composite(scene, view)
    if composite is None:
        return False
    shown = [composite.GetBackgroundVolumeID()]
    if composite.GetForegroundOpacity() > 0:
        shown.append(composite.GetForegroundVolumeID())
    nodes = [scene.GetNodeByID(identifier) for identifier in shown if identifier]
    return any(node is not None and node.GetAttribute(SYNTHETIC) for node in nodes)
