"""What the views show: images, label maps, masks and surfaces, which of them are ours, and of which run. MRML alone."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import vtk

import slicer
from D3MSynthesisLib.Assignment import isSynthetic
from D3MSynthesisLib.Grids import gridPoints, matrixOf, transformed
from D3MSynthesisLib.Places import wasRead
from D3MSynthesisLib.Runs import ROLE, RUN, Nodes, alive, nodesOf

EDGE_MM = 1.0
"""What an image leaves free of another one's edge does not count."""


def composites(scene: Any) -> list[Any]:
    """The composite nodes of all slice views."""
    return nodesOf(scene, "vtkMRMLSliceCompositeNode")


def sliceNodes(scene: Any) -> list[Any]:
    """The slice nodes of all slice views."""
    return nodesOf(scene, "vtkMRMLSliceNode")


def named(nodes: list[Any], view: str) -> Any:
    return next((node for node in nodes if node.GetLayoutName() == view), None)


def images(scene: Any, view: str) -> tuple[Any, Any, float]:
    """What is seen in a view: the image below, the one over it, and how much of that one; None where none is."""
    composite = named(composites(scene), view)
    if composite is None:
        return None, None, 0.0
    share = composite.GetForegroundOpacity()
    under = scene.GetNodeByID(composite.GetBackgroundVolumeID() or "")
    over = scene.GetNodeByID(composite.GetForegroundVolumeID() or "") if share > 0 else None
    if over is not None and share >= 1 and blended(scene, view) and not isSynthetic(over) and _covers(over, under):
        under = None  # nothing is left of it
    return under, over, share


def labelOf(scene: Any, view: str) -> Any:
    """The label map that is seen over a view's images; None without one."""
    composite = named(composites(scene), view)
    if composite is None or composite.GetLabelOpacity() <= 0:
        return None
    return scene.GetNodeByID(composite.GetLabelVolumeID() or "")


def layersOf(composite: Any) -> range:
    """What newer versions of Slicer have over background, foreground and labels: layers of their own."""
    if not hasattr(composite, "GetNumberOfAdditionalLayers"):
        return range(0)
    first = composite.LayerLabel + 1
    return range(first, first + composite.GetNumberOfAdditionalLayers())


def further(scene: Any, view: str) -> list[Any]:
    """What is seen in such layers of a view."""
    composite = named(composites(scene), view)
    layers = [] if composite is None else layersOf(composite)
    seen = [composite.GetNthLayerVolumeID(layer) for layer in layers if composite.GetNthLayerOpacity(layer) > 0]
    return [node for identity in seen if (node := scene.GetNodeByID(identity or "")) is not None]


def blended(scene: Any, view: str) -> bool:
    """Whether the image over the other one covers it by its opacity: Slicer can add and subtract them, too."""
    composite = named(composites(scene), view)
    return bool(composite.GetCompositing() == composite.Alpha)


def imagesIn3D(scene: Any, view: str | None) -> list[str]:
    """Names of synthetic images in a 3-D view: of slices that are shown there, and of volumes that are rendered."""
    found = []
    for node in sliceNodes(scene):
        if node.GetSliceVisible() and (view is None or node.IsDisplayableInThreeDView(view)):
            view2D = node.GetLayoutName()
            seen = (*images(scene, view2D)[:2], labelOf(scene, view2D), *further(scene, view2D))
            found += [image for image in seen if isSynthetic(image)]
    for display in nodesOf(scene, "vtkMRMLVolumeRenderingDisplayNode"):
        visible = display.GetVisibility() and (view is None or display.IsDisplayableInView(view))
        if visible and isSynthetic(display.GetDisplayableNode()):
            found.append(display.GetDisplayableNode())
    return list(dict.fromkeys(node.GetName() for node in found))


def masksShown(
    scene: Any, shown: Callable[[Any, Any, str], bool], without: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """Segments of the runs' masks that are shown in such a way, and names of the synthetic images that they are of.

    Args:
        scene: The scene.
        shown: See `segmentsShown`.
        without: Runs that are of no interest.
    """
    names: list[str] = []
    runs: set[str] = set()
    for node in nodesOf(scene, "vtkMRMLSegmentationNode"):
        run = node.GetAttribute(RUN) or ""  # none in a mask from a file
        if run in without or node.GetAttribute(ROLE) == "brain" or not isSynthetic(node):
            continue
        seen = segmentsShown(node, shown)
        names += seen
        if seen:
            runs.add(run)
    return names, owners(scene, runs)


def segmentsShown(node: Any, shown: Callable[[Any, Any, str], bool]) -> list[str]:
    """Names of the segments of a segmentation that are shown in such a way.

    Args:
        node: The segmentation.
        shown: Whether of a segmentation, with one of its display nodes, a segment that is not hidden is shown so.
    """
    if not slicer.vtkMRMLFolderDisplayNode.GetHierarchyVisibility(node):
        return []
    displays = [node.GetNthDisplayNode(index) for index in range(node.GetNumberOfDisplayNodes())]
    displays = [display for display in displays if display is not None and display.GetVisibility()]
    segmentation = node.GetSegmentation()
    found = [segmentation.GetNthSegmentID(number) for number in range(segmentation.GetNumberOfSegments())]
    return [
        segmentation.GetSegment(one).GetName()
        for one in found
        if any(display.GetSegmentVisibility(one) and shown(node, display, one) for display in displays)
    ]


def outlines(_node: Any, display: Any, _segment: str) -> bool:
    """Whether segments are drawn in the slice views; see `segmentsShown`."""
    drawn = display.GetVisibility2DFill() or display.GetVisibility2DOutline()
    return bool(display.GetVisibility2D() and drawn)


def modelsShown(scene: Any, shown: Callable[[Any], bool], meant: Callable[[Any], bool] = isSynthetic) -> list[str]:
    """Names of models that are visible.

    Args:
        scene: The scene.
        shown: Whether a display node that is visible shows its model so.
        meant: Whether a model is of interest; by default whether it is a surface that was made of a run's mask.
    """
    found = []
    for node in nodesOf(scene, "vtkMRMLModelNode"):
        displays = [node.GetNthDisplayNode(index) for index in range(node.GetNumberOfDisplayNodes())]
        visible = [display for display in displays if display is not None and display.GetVisibility()]
        seen = any(shown(display) for display in visible) and meant(node)
        if seen and slicer.vtkMRMLFolderDisplayNode.GetHierarchyVisibility(node):
            found.append(node.GetName())
    return found


def volumes(scene: Any) -> list[Any]:
    return nodesOf(scene, "vtkMRMLScalarVolumeNode")


def owners(scene: Any, runs: set[str]) -> list[str]:
    """Names of the synthetic images of runs; of two dates that of the earlier one."""
    return [
        node.GetName()
        for node in (volumes(scene) if runs else [])
        if node.GetAttribute(ROLE) in ("cemri", "earlierDate") and node.GetAttribute(RUN) in runs
    ]


def _covers(over: Any, under: Any) -> bool:
    """Whether nothing of the image below can be seen: no transparent values, and no part beyond the edge."""
    import numpy as np

    if _isTransparent(over.GetDisplayNode()):
        return False
    if under is None or under.GetImageData() is None:
        return True
    if over.GetImageData() is None:
        return False
    ends = np.array(under.GetImageData().GetDimensions())
    rim = matrixOf(under) @ np.array([*np.c_[np.diag(ends / 2), [-0.5] * 3], [0, 0, 0, 1]])
    toOver = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(
        under.GetParentTransformNode(), over.GetParentTransformNode(), toOver
    )
    matrix = matrixOf(over)
    points = transformed(gridPoints((3, 3, 3), rim), toOver) - matrix[:3, 3]
    index = points @ np.linalg.inv(matrix[:3, :3]).T  # the edges of a volume that is turned are not along its bounds
    spare = 0.5 + EDGE_MM / np.linalg.norm(matrix[:3, :3], axis=0)
    return bool((index >= -spare).all() and (index <= np.array(over.GetImageData().GetDimensions()) - 1 + spare).all())


def _isTransparent(display: Any) -> bool:
    """Whether some values of an image are not drawn: by a threshold or by its colours, as zero of a label map."""
    from vtk.util.numpy_support import vtk_to_numpy

    if display is None or display.IsA("vtkMRMLLabelMapVolumeDisplayNode"):
        return display is not None
    colours = display.GetColorNode()
    table = None if colours is None else colours.GetLookupTable()
    return bool(display.GetApplyThreshold() or (table is not None and vtk_to_numpy(table.GetTable())[:, 3].min() < 255))


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
    own = nodes.cemri.GetName() or ""
    names = [
        node.GetName() or ""
        for node in arranged(nodes.cemri.GetScene())
        if isSynthetic(node) and not node.GetAttribute(RUN) and (wasRead(node) or not node.GetName().startswith(own))
    ]
    return list(dict.fromkeys(names))


def arranged(scene: Any) -> list[Any]:
    """Images that are seen in the slice views of the layout; None where a view has none."""
    return [node for view in _arranged(scene) for node in images(scene, view.GetLayoutName())[:2]]


def _arranged(scene: Any) -> list[Any]:
    """The composite nodes of the slice views of the layout; all of them where there is none."""
    seen = {node.GetLayoutName() for node in sliceNodes(scene) if node.IsMappedInLayout()}
    return [composite for composite in composites(scene) if not seen or composite.GetLayoutName() in seen]


def acquired(scene: Any) -> list[Any]:
    """Images in the slice views that no synthesis has made."""
    shown = [node for view in composites(scene) for node in images(scene, view.GetLayoutName())[:2]]
    return [node for node in shown if node is not None and not isSynthetic(node)]
