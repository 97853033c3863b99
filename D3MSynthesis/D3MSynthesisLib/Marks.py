"""Keeps the marks in the views true as long as Slicer runs: whichever module is shown, and if the panel never was."""

from __future__ import annotations

from typing import Any

import qt
import vtk
from slicer.util import VTKObservationMixin

import slicer
from D3MSynthesisLib import Pictures, Runs, Views
from D3MSynthesisLib.Handlers import guarded


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
        self.addObserver(scene, scene.NodeAddedEvent, self._onNodeAdded)
        for event in (scene.EndCloseEvent, scene.EndImportEvent):
            self.addObserver(scene, event, self._mark)  # views are restored before their images are there
        for index in range(scene.GetNumberOfNodes()):
            self._follow(scene.GetNthNode(index))

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeAdded(self, _caller: Any, _event: str, node: Any) -> None:
        self._follow(node)

    def _follow(self, node: Any) -> None:
        if node.IsA("vtkMRMLSliceCompositeNode") or node.IsA("vtkMRMLVolumeRenderingDisplayNode"):
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._mark)
        elif node.IsA("vtkMRMLSliceNode"):
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._onSlice)
        elif node.IsA("vtkMRMLLayoutNode"):
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._onArranged)
        elif node.IsA("vtkMRMLSequenceBrowserNode"):
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._onBrowser)
        elif node.IsA("vtkMRMLSegmentationNode"):
            self.addObserver(node, node.DisplayModifiedEvent, self._mark)
            kind = slicer.vtkSegmentation
            for event in (kind.ContainedRepresentationNamesModified, kind.SegmentModified):
                self.addObserver(node.GetSegmentation(), event, self._mark)

    def _mark(self, _caller: Any = None, _event: str = "") -> None:
        Views.markViews()

    def _onSlice(self, node: Any, _event: str) -> None:
        """A slice tells every millimetre that it is moved; only what is seen of it in 3-D is of interest."""
        shown = (node.GetSliceVisible(), *(node.GetNthThreeDViewID(n) for n in range(node.GetNumberOfThreeDViewIDs())))
        if self._in3D.get(node.GetID(), (0,)) != shown:
            self._in3D[node.GetID()] = shown
            Views.markViews()

    def _onArranged(self, _layout: Any, _event: str) -> None:
        qt.QTimer.singleShot(0, guarded(Views.markViews))  # views may be made after their nodes have told it

    def _onBrowser(self, browser: Any, _event: str) -> None:
        """Another step of a run is replayed, by the Sequences toolbar, say: what is written of it follows."""
        run = browser.GetAttribute(Runs.RUN)
        nodes = next((found for found in Runs.findRuns(self._scene) if found.runID == run), None) if run else None
        if nodes is not None and nodes.steps:
            Pictures.nameStep(nodes)
            Views.markViews()
