"""Keeps the marks in the views true as long as Slicer runs: whichever module is shown, and if the panel never was."""

from __future__ import annotations

from typing import Any

import qt
import vtk
from slicer.util import VTKObservationMixin

import slicer
from D3MSynthesisLib import Captions, Comparison, Copies, Masks, Pictures, Runs
from D3MSynthesisLib.Handlers import guarded
from D3MSynthesisLib.MaskSources import keepScan, keepSource
from D3MSynthesisLib.Places import keepPlace

BUSY_MS = 500
"""A scene that is being read or closed is looked at later; scans, which may be dragged, at most so often."""


class Marks(VTKObservationMixin):
    """Follows everything in a scene that decides what is seen of a run.

    Args:
        scene: The scene.
    """

    def __init__(self, scene: Any) -> None:
        VTKObservationMixin.__init__(self)
        self._scene = scene
        self._in3D: dict[str, tuple[Any, ...]] = {}
        """Of each slice view whether it is shown in 3-D views, and in which."""
        self._edited: list[Any] = []
        """Segmentations that have changed since masks were looked at."""
        self._grown: list[Any] = []
        """Those of them that have got segments."""
        self._moved: list[Any] = []
        """Volumes, segmentations and runs' fields that were moved or changed since scans were looked at."""
        self._coming = False
        self._arrived: list[Any] = []
        """Volumes, segmentations and models that nobody has looked at yet."""
        self.addObserver(scene, scene.NodeAddedEvent, self._onNodeAdded)
        # before the data tree forgets it
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self._onNodeLeaves, priority=1.0)
        self.addObserver(scene, scene.EndImportEvent, self._onImported)
        for event in (scene.EndCloseEvent, scene.EndRestoreEvent):
            self.addObserver(scene, event, self._mark)  # views are restored before their images are there
        for index in range(scene.GetNumberOfNodes()):
            self._follow(scene.GetNthNode(index))
            self._welcome(scene.GetNthNode(index))

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeAdded(self, _caller: Any, _event: str, node: Any) -> None:
        self._follow(node)
        self._welcome(node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeLeaves(self, _caller: Any, _event: str, node: Any) -> None:
        """What a scan says of the masks that were drawn on it stays with them."""
        if node.IsA("vtkMRMLScalarVolumeNode") and not self._scene.IsClosing():
            keepScan(node)

    def _welcome(self, node: Any) -> None:
        """What a file tells of a node is kept with it, before the scene is saved, or the node renamed or copied."""
        placed = node.IsA("vtkMRMLScalarVolumeNode") or node.IsA("vtkMRMLSegmentationNode")
        if not any(node.IsA(kind) for kind in Copies.MADE) or slicer.vtkMRMLSliceLogic.IsSliceModelNode(node):
            return
        if placed and self._scene.IsImporting():
            keepPlace(node, fromScene=True)
        if not self._arrived:
            qt.QTimer.singleShot(0, guarded(self._lookAtArrived))  # a node has no file yet when it is announced
        self._arrived.append(node)

    def _lookAtArrived(self) -> None:
        if self._scene.IsBatchProcessing():
            qt.QTimer.singleShot(BUSY_MS, guarded(self._lookAtArrived))
            return
        arrived, self._arrived = self._arrived, []
        there = [node for node in arrived if node.GetScene() is not None]
        for node in there:
            if not node.IsA("vtkMRMLModelNode"):
                keepPlace(node)
        sourced = [keepSource(node) for node in there if node.IsA("vtkMRMLSegmentationNode")]
        if Copies.keepMarks(there) or any(sourced):
            Captions.markViews()

    def _follow(self, node: Any) -> None:
        """Observe a node as VTK does: `VTKObservationMixin` would keep every node, and its voxels, for ever."""
        if node.IsA("vtkMRMLSliceCompositeNode"):
            node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._onImages)
        elif node.IsA("vtkMRMLVolumeRenderingDisplayNode"):
            node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._mark)
        elif node.IsA("vtkMRMLSliceNode"):
            node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._onSlice)
        elif node.IsA("vtkMRMLLayoutNode"):
            node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._onArranged)
        elif node.IsA("vtkMRMLSequenceBrowserNode"):
            node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._onBrowser)
        elif node.IsA("vtkMRMLScalarVolumeNode"):
            for event in (vtk.vtkCommand.ModifiedEvent, node.TransformModifiedEvent, node.ImageDataModifiedEvent):
                node.AddObserver(event, self._onMoved)
            node.AddObserver(node.DisplayModifiedEvent, self._onDisplay)
        elif node.IsA("vtkMRMLTransformNode"):
            node.AddObserver(node.DisplayModifiedEvent, self._markSoon)
            node.AddObserver(node.TransformModifiedEvent, self._onFieldMoved)
        elif node.IsA("vtkMRMLModelNode") and not slicer.vtkMRMLSliceLogic.IsSliceModelNode(node):
            for event in (node.DisplayModifiedEvent, vtk.vtkCommand.ModifiedEvent):
                node.AddObserver(event, self._markSoon)
        elif node.IsA("vtkMRMLSegmentationNode"):
            node.AddObserver(node.DisplayModifiedEvent, self._markSoon)
            node.AddObserver(node.TransformModifiedEvent, self._onMoved)
            segmentation, kind = node.GetSegmentation(), slicer.vtkSegmentation
            for event in (kind.ContainedRepresentationNamesModified, kind.SegmentModified):
                segmentation.AddObserver(event, self._markSoon)
            segmentation.AddObserver(kind.SegmentAdded, self._onGrown)
            for event in (kind.SourceRepresentationModified, kind.SegmentAdded, kind.SegmentRemoved):
                segmentation.AddObserver(event, self._onEdited)

    def _onGrown(self, segmentation: Any, _event: str) -> None:
        """A segment may have been imported from a label map, or copied: the views look at it after it was edited."""
        if not any(known is segmentation for known in self._grown):
            self._grown.append(segmentation)

    def _onEdited(self, segmentation: Any, _event: str) -> None:
        """Who edits a mask without the panel, another run's than it shows, or a copy, has it named, too."""
        if not self._edited:
            qt.QTimer.singleShot(0, guarded(self._lookAtMasks))
        if not any(known is segmentation for known in self._edited):
            self._edited.append(segmentation)

    def _lookAtMasks(self) -> None:
        if self._scene.IsBatchProcessing():
            qt.QTimer.singleShot(BUSY_MS, guarded(self._lookAtMasks))
            return
        edited, self._edited = self._edited, []
        grown, self._grown = self._grown, []
        runs = {nodes.segmentation: nodes for nodes in Runs.findRuns(self._scene) if Runs.alive(nodes.segmentation)}
        for node in Runs.nodesOf(self._scene, "vtkMRMLSegmentationNode"):
            if not any(node.GetSegmentation() is one for one in edited):
                continue
            if node not in runs:
                new = any(node.GetSegmentation() is one for one in grown)
                if new and (keepSource(node) | Copies.tagSegments(node)):
                    Captions.markViews()
                Masks.noticeCopies(node)
            elif runs[node].cemri.GetImageData() is not None:
                Masks.noticeEdit(runs[node])

    def _onMoved(self, volume: Any, event: str) -> None:
        """A run's T1 or real T1c may be moved or changed while no panel follows it: right after a scene was read, say.

        A panel that is shown looks at once, and says more.
        """
        if event == "ModifiedEvent" and volume.GetAttribute(Runs.RUN):
            return  # what is kept with a result changes often; only where it lies is of interest
        if not self._moved:
            qt.QTimer.singleShot(BUSY_MS, guarded(self._lookAtScans))
        if not any(known is volume for known in self._moved):
            self._moved.append(volume)

    def _onFieldMoved(self, transform: Any, event: str) -> None:
        """Other transforms than a run's field move what is told by itself."""
        if transform.GetAttribute(Runs.ROLE) == "deformation":
            self._onMoved(transform, event)

    def _lookAtScans(self) -> None:
        if self._scene.IsBatchProcessing():
            qt.QTimer.singleShot(BUSY_MS, guarded(self._lookAtScans))
            return
        moved, self._moved = self._moved, []
        for nodes in Runs.findRuns(self._scene):
            there = nodes.cemri.GetImageData() is not None
            if there and nodes.cemri in moved:
                Pictures.follow(nodes)  # a transform may have been hardened onto it
            scans = [nodes.cemri, *(getattr(nodes, name) for name in Runs.INPUTS)]
            looked = there and any(scan in scans for scan in moved)
            if looked and Comparison.lookAtScans(nodes)["reference"]:
                Pictures.hideError(nodes)
        Captions.markViews()  # a part of a run may have been moved alone, or a scan that hid a synthetic image

    def _onImported(self, _caller: Any, _event: str) -> None:
        Captions.markViews()
        qt.QTimer.singleShot(0, guarded(self._onTree))

    def _onTree(self) -> None:
        """The data tree has what was read by now: it may be on the same event that it is told of."""
        Runs.separateCopies(self._scene)
        Captions.markViews()

    def _mark(self, _caller: Any = None, _event: str = "") -> None:
        Captions.markViews()

    def _markSoon(self, _caller: Any, _event: str) -> None:
        """Segmentations of other modules have hundreds of segments, which are shown and named one by one."""
        if not self._coming:
            self._coming = True
            qt.QTimer.singleShot(0, guarded(self._markNow))

    def _markNow(self) -> None:
        self._coming = False
        Captions.markViews()

    def _onImages(self, composite: Any, _event: str) -> None:
        """A view has other images: it is marked at once, so that no picture is taken of it in between."""
        Captions.markViews(composite.GetLayoutName())

    def _onDisplay(self, volume: Any, event: str) -> None:
        """A threshold lets see what a scan hid. A run's images hide nothing, and their windows are dragged often."""
        if not volume.GetAttribute(Runs.RUN):
            self._markSoon(volume, event)

    def _onSlice(self, node: Any, _event: str) -> None:
        """A slice tells every millimetre that it is moved; only what is seen of it in 3-D is of interest."""
        shown = (node.GetSliceVisible(), *(node.GetNthThreeDViewID(n) for n in range(node.GetNumberOfThreeDViewIDs())))
        if self._in3D.get(node.GetID(), (0,)) != shown:
            self._in3D[node.GetID()] = shown
            Captions.markViews()

    def _onArranged(self, _layout: Any, _event: str) -> None:
        qt.QTimer.singleShot(0, guarded(Captions.markViews))  # views may be made after their nodes have told it

    def _onBrowser(self, browser: Any, _event: str) -> None:
        """Another step of a run is replayed, by the Sequences toolbar, say: what is written of it follows."""
        if browser.GetAttribute(Runs.RUN):
            qt.QTimer.singleShot(0, guarded(Captions.markViews))  # the images may be filled after this
