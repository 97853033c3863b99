"""What the slice views show of a run: one picture, what lies over it, the mask, the deformation. MRML alone.

A picture is always inspected with what belongs to it. The synthetic image is the mean of samples, enlarged and
smoothed as the model's card says; the deformation and the steps are those of the first sample. They are shown over that
sample's own picture, and the views say so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import slicer
from D3MSynthesisLib import Captions, Comparison, Field, Looks, Seen, Strangers, Views
from D3MSynthesisLib.Assignment import SYNTHETIC
from D3MSynthesisLib.Grids import resampledOn
from D3MSynthesisLib.Identity import putBeside
from D3MSynthesisLib.Runs import ROLE, RUN, Nodes, alive, brainOf, findRuns, followHardened, proxies, updateProxies
from D3MSynthesisLib.Texts import _

OVERLAYS = ("none", "subtraction", "probability", "uncertainty", "wholeTumour")
PICTURES = ("cemri", "subtraction", "sample")
LAYOUTS = ("all", "sideBySide", "fourUp", "beforeAfter", "contrasts", "comparison")
ARRANGEMENTS = {
    "sideBySide": slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView,
    "beforeAfter": slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView,
    "contrasts": slicer.vtkMRMLLayoutNode.SlicerLayoutTwoOverTwoView,
    "comparison": slicer.vtkMRMLLayoutNode.SlicerLayoutThreeOverThreeView,
    "fourUp": slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView,
}
"""Slicer's layouts that are chosen for ours."""
UNKNOWN = -1.0
"""In the map of differences where the real T1c shows nothing of the brain; no difference is 0."""
THREE = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}


@dataclass(frozen=True)
class Look:
    """Everything that a person can choose about how a run is shown."""

    picture: str = "cemri"
    """One of `PICTURES`: the synthetic image, its subtraction in grey, or the first sample by itself."""
    step: int | None = None
    """Steps done, 1 to `Nodes.steps`, of the sample's picture; None: the sample after the last one."""
    stepImage: str = "after"
    """"before" or "after" the warp of the step."""
    overlay: str = "none"
    """One of `OVERLAYS`; the synthetic image's and its subtraction's."""
    overlayOpacity: float = 0.6
    deformation: str = "off"
    """One of `Field.MODES`; over the sample's picture alone."""
    maskVisible: bool = True
    maskFill: bool = False
    maskOutline: bool = True
    maskOpacity: float = 0.3
    fade: float = 0.0
    """0: synthetic, 1: the real T1c."""
    layout: str = "all"
    """One of `LAYOUTS`: what each view shows."""
    referenceChanged: bool = False
    """The real T1c is no longer what was compared: no difference from it is shown."""


def canInspect(nodes: Nodes) -> bool:
    """Whether the picture that the deformation belongs to is there."""
    return alive(nodes.sample) or nodes.steps > 0


def show(nodes: Nodes, look: Look) -> int:
    """Show a run in the slice views.

    Args:
        nodes: The run.
        look: How; what the run has not is left out.

    Returns:
        How many times the deformation is drawn enlarged; 0 if it is not drawn.

    Raises:
        ValueError: there is no such picture, overlay, step or layout.
    """
    _check(nodes, look)
    scene = nodes.cemri.GetScene()
    inspecting, done = _inspected(nodes, look)
    if nodes.steps:
        selectStep(nodes, look.step or nodes.steps)
    picture = _picture(nodes, look, done)
    over, share = _over(nodes, look, done, inspecting)
    if look.fade > 0 and not inspecting and alive(nodes.reference):
        over, share = (nodes.reference, look.fade) if look.fade < 1 else (None, 0.0)
        picture = picture if look.fade < 1 else nodes.reference
    Views.setImages(scene, _backgrounds(nodes, look), picture, over, share)
    showMask(nodes, look)
    factor = draw(nodes, look)
    _legends(nodes, over, look)
    Captions.markViews()
    return factor


def _check(nodes: Nodes, look: Look) -> None:
    for value, known in (
        (look.picture, PICTURES),
        (look.overlay, OVERLAYS),
        (look.deformation, Field.MODES),
        (look.layout, LAYOUTS),
        (look.stepImage, ("before", "after")),
    ):
        if value not in known:
            raise ValueError(f"There is no {value!r} to be shown.")
    if look.step is not None and not 1 <= look.step <= nodes.steps:
        raise ValueError("There is no such step.")


def draw(nodes: Nodes, look: Look) -> int:
    """Draw the deformation of the picture alone; see `show` for what is returned."""
    inspecting, done = _inspected(nodes, look)
    return Field.draw(nodes, look.deformation if inspecting else "off", done)


def _inspected(nodes: Nodes, look: Look) -> tuple[bool, int | None]:
    """Whether the sample's own picture is shown, and the step of it."""
    inspecting = look.picture == "sample" and canInspect(nodes)
    return inspecting, _stepOf(nodes, look) if inspecting else None


def _stepOf(nodes: Nodes, look: Look) -> int | None:
    """The step that is replayed; None for the sample as it ended."""
    if not nodes.steps:
        return None
    step = look.step or nodes.steps
    return None if step == nodes.steps and look.stepImage == "after" and alive(nodes.sample) else step


def _picture(nodes: Nodes, look: Look, done: int | None) -> Any:
    display = nodes.cemri.GetDisplayNode()
    window = (display.GetWindowLevelMin(), display.GetWindowLevelMax())
    if look.picture == "subtraction" and alive(nodes.subtraction):
        if look.overlay != "subtraction" and not Looks.isGrey(nodes.subtraction):
            Looks.grey(nodes.subtraction, 0.0, nodes.subtraction.GetDisplayNode().GetWindowLevelMax())
        return nodes.subtraction
    if look.picture == "sample" and canInspect(nodes):
        node = nodes.sample if done is None else proxies(nodes)[look.stepImage]
        Looks.window(node, *window)
        if done is None:
            node.SetAttribute(Captions.CAPTION, sampleText(nodes))
        return node
    return nodes.cemri


def sampleText(nodes: Nodes) -> str:
    """Which picture the deformation and the steps belong to."""
    if nodes.samples > 1:
        return _("sample 1 of {n} by itself").format(n=nodes.samples)
    return _("the sample by itself")


def stepText(nodes: Nodes, done: int | None, when: str) -> str:
    """Which image of which step a node of the replay shows; `when` is "before" or "after"."""
    form = {"before": _("{sample}, before the warp of {step}"), "after": _("{sample}, after the warp of {step}")}[when]
    return form.format(sample=sampleText(nodes), step=Field.stepName(nodes, done))


def nameSteps(nodes: Nodes) -> None:
    """Keep with every image of a step which it is: whatever fills the nodes of the replay brings it into the views.

    Sequences are what a scene's file has; the nodes that show them are filled anew (vtkSlicerSequencesLogic.cxx, 509).
    """
    for name, sequence in (("before", nodes.stepBefore), ("after", nodes.stepAfter)):
        for index in range(nodes.steps):
            text = stepText(nodes, int(sequence.GetNthIndexValue(index)), name)
            sequence.GetNthDataNode(index).SetAttribute(Captions.CAPTION, text)


def _over(nodes: Nodes, look: Look, done: int | None, inspecting: bool) -> tuple[Any, float]:
    """The image over the picture, and its opacity."""
    if inspecting:
        if look.deformation in ("magnitude", "jacobian"):
            return Field.mapNode(nodes, look.deformation, done), look.overlayOpacity
        mask = proxies(nodes).get("mask")
        return (mask, 0.5) if look.maskVisible and done is not None and mask is not None else (None, 0.0)
    if look.overlay == "subtraction" and alive(nodes.subtraction):
        if look.picture == "subtraction":
            return None, 0.0
        if Looks.isGrey(nodes.subtraction):
            limit = nodes.subtraction.GetDisplayNode().GetWindowLevelMax()
            Looks.colours(nodes.subtraction, "diverging", -limit, limit)
    chosen = None if look.overlay == "none" else getattr(nodes, look.overlay)
    return (chosen, look.overlayOpacity) if alive(chosen) else (None, 0.0)


def _backgrounds(nodes: Nodes, look: Look) -> dict[str, Any]:
    """Views with an image of their own: acquired scans, and what else the layout compares with."""
    if look.layout == "sideBySide":
        return {"Red": nodes.t1}
    if look.layout == "beforeAfter" and nodes.steps and look.picture == "sample":
        found = proxies(nodes)
        display = nodes.cemri.GetDisplayNode()
        for name in ("before", "after"):
            Looks.window(found[name], display.GetWindowLevelMin(), display.GetWindowLevelMax())
        return {"Red": found["before"], "Yellow": found["after"]}
    if look.layout == "contrasts":
        return dict(zip(Views.FOUR[:3], (nodes.t1, nodes.t2, nodes.flair), strict=True))
    if look.layout == "comparison":
        scans = (nodes.t1, nodes.t2, nodes.flair)
        if look.referenceChanged:
            return dict(zip(Views.SIX[:3], scans, strict=True)) | {Views.SIX[4]: nodes.reference, Views.SIX[5]: None}
        if alive(nodes.reference) and (not alive(nodes.error) or Comparison.errorIsOld(nodes)):
            makeError(nodes)  # another run than that whose layout was chosen, or another place of the scan
        return dict(zip(Views.SIX[:3], scans, strict=True)) | {Views.SIX[4]: nodes.reference, Views.SIX[5]: nodes.error}
    return {}


def coloured(nodes: Nodes) -> bool:
    """Whether a view has the colours of the deformation's length or volume change now."""
    return inViews(nodes, nodes.fieldMap, nodes.magnitude)


def inspected(nodes: Nodes) -> bool:
    """Whether a view has the sample's own picture, or that of a step, now."""
    found = proxies(nodes)
    return inViews(nodes, nodes.sample, found.get("before"), found.get("after"))


def inViews(nodes: Nodes, *images: Any) -> bool:
    """Whether one of these images of a run, where it has them, is seen in a slice view now."""
    seen = Seen.arranged(nodes.cemri.GetScene())
    return any(alive(image) and image in seen for image in images)


def showMask(nodes: Nodes, look: Look) -> None:
    """Show the mask alone as chosen; it is the mean's, and no slice of the sample's picture has it.

    There lies that sample's own probability instead.
    """
    display = nodes.segmentation.GetDisplayNode() if alive(nodes.segmentation) else None
    if display is None:
        return
    display.SetVisibility(look.maskVisible)
    display.SetVisibility2D(not (look.picture == "sample" and canInspect(nodes)))
    display.SetVisibility2DFill(look.maskFill)
    display.SetVisibility2DOutline(look.maskOutline)
    display.SetOpacity2DFill(look.maskOpacity)


def _legends(nodes: Nodes, over: Any, look: Look) -> None:
    for name in (*OVERLAYS[1:], "magnitude"):
        node = getattr(nodes, name)
        title = "spread" if name == "uncertainty" and not nodes.errorExpected else name
        Looks.legend(node, Looks.TITLES[title], node is not None and node is over)
    Looks.legend(nodes.error, Looks.TITLES["error"], look.layout == "comparison" and not look.referenceChanged)
    if alive(nodes.fieldMap):
        jacobian = nodes.fieldMap.GetDisplayNode().GetWindowLevelMin() != 0
        title = Looks.TITLES["jacobian" if jacobian else "magnitude"]
        Looks.legend(nodes.fieldMap, title, nodes.fieldMap is over)


def selectStep(nodes: Nodes, done: int) -> None:
    """Fill the nodes of the replay with one step."""
    number = nodes.stepAfter.GetItemNumberFromIndexValue(str(done), False)
    if nodes.browser.GetSelectedItemNumber() != number:
        nodes.browser.SetSelectedItemNumber(number)
    if nodes.stepAfter.GetNthDataNode(0).GetAttribute(Captions.CAPTION) is None:
        nameSteps(nodes)  # a scene of an earlier version
    updateProxies(nodes)


def first(nodes: Nodes) -> None:
    """A run that has just ended or was chosen: windows of its scans, every view at the largest enhancement.

    Nothing of another run, which may be another patient's, stays over its pictures.
    """
    for other in findRuns(nodes.cemri.GetScene()):
        if other.runID != nodes.runID:
            hide(other)
    Strangers.dropStrangers(nodes.cemri)
    Looks.windowInputs(nodes)
    Views.lookAt(nodes)


def hide(nodes: Nodes) -> None:
    """Take away what lies over every view's picture, whosever that is: mask, surfaces and drawing of a run."""
    for node in (nodes.segmentation, nodes.brain, nodes.drawn):
        if alive(node) and node.GetDisplayNode() is not None:
            node.GetDisplayNode().SetVisibility(False)


def setLayout(nodes: Nodes, name: str) -> None:
    """Arrange the views for one of `LAYOUTS`; `show` fills them.

    Raises:
        ValueError: there is no such layout, or the run has not what it compares.
    """
    if name not in ARRANGEMENTS:
        raise ValueError(f"There is no layout {name!r}.")
    if name == "beforeAfter" and not nodes.steps:
        raise ValueError("The steps were not kept.")
    if name == "comparison":
        if not alive(nodes.reference):
            raise ValueError("There is no real T1c.")
        makeError(nodes)
    scene = nodes.cemri.GetScene()
    Views.release(scene)
    Views.arrange(scene, ARRANGEMENTS[name])
    if name == "fourUp":
        Views.orient(scene, THREE)
        Views.lookAt(nodes)
        return
    views = {"contrasts": Views.FOUR, "comparison": Views.SIX}.get(name, Views.TWO)
    Views.link(scene, views)
    Views.lookAt(nodes, jump=False)
    Views.copyPosition(scene, views[0], views[1:])


def hideError(nodes: Nodes) -> None:
    """Take the difference from the real T1c out of the views: it is of what that was before."""
    if not alive(nodes.error):
        return
    Looks.legend(nodes.error, Looks.TITLES["error"], False)
    for view in Seen.composites(nodes.cemri.GetScene()):
        if view.GetBackgroundVolumeID() == nodes.error.GetID():
            view.SetBackgroundVolumeID(None)
        if view.GetForegroundVolumeID() == nodes.error.GetID():
            view.SetForegroundVolumeID(None)


def makeError(nodes: Nodes) -> Any:
    """How far the synthetic image is from the real T1c, brought onto its scale: absolute, in T1's units.

    The real image's brightness is fitted to the synthetic one's in the brain (least squares), since two acquisitions
    have no common scale. Brain that the real T1c does not show is transparent, with the value `UNKNOWN`.
    """
    import numpy as np

    from d3m.metrics import shown

    image = slicer.util.arrayFromVolume(nodes.cemri)
    real = resampledOn(nodes.reference, nodes.cemri)
    whole = brainOf(nodes)
    brain = whole & shown(real, whole)
    error = np.where(whole, UNKNOWN, 0).astype(np.float32)
    if brain.sum() > 1:
        gain, offset = np.polyfit(real[brain].astype(float), image[brain].astype(float), 1)
        error[brain] = np.abs(image[brain] - (gain * real[brain] + offset))
    node = nodes.error
    if not alive(node):
        scene = nodes.cemri.GetScene()
        name = scene.GenerateUniqueName(f"{nodes.cemri.GetName()} minus real T1c")
        node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        for key, value in ((RUN, nodes.runID), (ROLE, "error"), (SYNTHETIC, "yes")):
            node.SetAttribute(key, value)
        putBeside(node, nodes.cemri)
        nodes.error = node
    slicer.util.updateVolumeFromArray(node, error)
    matrix = slicer.util.vtkMatrixFromArray(np.eye(4))
    nodes.cemri.GetIJKToRASMatrix(matrix)
    node.SetIJKToRASMatrix(matrix)
    node.SetAttribute(Comparison.COMPARED, Comparison.imprint(nodes.reference, nodes.cemri))
    share = brain.sum() / max(whole.sum(), 1)
    caption = _("difference from the real T1c")
    if share < Comparison.WHOLE:
        caption = _("difference from the real T1c, in {n} % of the brain")
    node.SetAttribute(Captions.CAPTION, caption.format(n=int(100 * share)))
    follow(nodes)
    node.CreateDefaultDisplayNodes()
    Looks.colours(node, "sequential", 0.0, Looks.upper(error[brain]), 0.0)
    return node


def follow(nodes: Nodes) -> None:
    """Keep what shows a step, or was made for the views alone, where the synthetic image is."""
    if followHardened(nodes) and nodes.steps:
        updateProxies(nodes)
    for node in (nodes.fieldMap, nodes.error, nodes.brain, *proxies(nodes).values()):
        if alive(node) and node.GetTransformNodeID() != nodes.cemri.GetTransformNodeID():
            node.SetAndObserveTransformNodeID(nodes.cemri.GetTransformNodeID())


def show3D(nodes: Nodes) -> None:
    """Surfaces of the enhancing tumour and of the brain, in Slicer's layout with a 3-D view."""
    from D3MSynthesisLib.Grids import matrixOf, writeMask

    scene = nodes.cemri.GetScene()
    if alive(nodes.segmentation):
        nodes.segmentation.CreateClosedSurfaceRepresentation()
        nodes.segmentation.GetDisplayNode().SetVisibility(True)
        nodes.segmentation.GetDisplayNode().SetVisibility3D(True)
    if not alive(nodes.brain):
        name = scene.GenerateUniqueName(f"{nodes.cemri.GetName()} brain surface")
        node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        for key, value in ((RUN, nodes.runID), (ROLE, "brain"), (SYNTHETIC, "yes")):
            node.SetAttribute(key, value)
        node.CreateDefaultDisplayNodes()
        putBeside(node, nodes.cemri)
        node.SetReferenceImageGeometryParameterFromVolumeNode(nodes.cemri)
        node.GetSegmentation().SetSourceRepresentationName("Binary labelmap")
        node.GetSegmentation().AddEmptySegment("Brain", "Brain (synthesised part)", (0.8, 0.75, 0.7))
        writeMask(node, "Brain", brainOf(nodes), matrixOf(nodes.cemri))
        nodes.brain = node
    follow(nodes)
    nodes.brain.CreateClosedSurfaceRepresentation()
    display = nodes.brain.GetDisplayNode()
    display.SetVisibility(True)
    display.SetVisibility2D(False)
    display.SetVisibility3D(True)
    display.SetOpacity3D(0.25)
    Views.release(scene)
    Views.arrange(scene, ARRANGEMENTS["fourUp"])
    Views.orient(scene, THREE)
    manager = getattr(getattr(slicer, "app", None), "layoutManager", lambda: None)()
    if manager is not None and getattr(manager, "threeDViewCount", 0):
        view = manager.threeDWidget(0).threeDView()
        view.resetFocalPoint()
        view.resetCamera()
