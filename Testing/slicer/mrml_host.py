"""The least that stands in for the application around Slicer's MRML core: scene, logics, slice views off screen."""

from __future__ import annotations

import contextlib
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import slicer.util
import vtk
from vtk.util.numpy_support import vtk_to_numpy

import slicer

MANAGERS = (
    "vtkMRMLVolumeGlyphSliceDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLTransformsDisplayableManager2D",
    "vtkMRMLColorLegendDisplayableManager",
)
LAYOUTS = {
    slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView: ("Red", "Yellow", "Green"),
    slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView: ("Red", "Yellow"),
    slicer.vtkMRMLLayoutNode.SlicerLayoutTwoOverTwoView: ("Red", "Slice4", "Green", "Yellow"),
    slicer.vtkMRMLLayoutNode.SlicerLayoutThreeOverThreeView: ("Red", "Green", "Yellow", "Red+", "Green+", "Yellow+"),
}
"""Slice views of the layouts that the panel chooses."""
VIEWS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}
CLOSED: list[MRMLHost] = []


@contextlib.contextmanager
def _rules_once() -> Iterator[None]:
    """The rules that convert segmentations are the process', where an application has one logic that registers them.

    Every segmentation has copies of all of them: after hundreds of hosts it would take seconds to make one.
    """
    factory = slicer.vtkSegmentationConverterFactory.GetInstance()
    before = factory.GetConverterRules()
    yield
    for rule in factory.GetConverterRules()[len(before) :] if before else ():
        factory.UnregisterConverterRule(rule)


class MRMLHost:
    """A scene with the logics that the application gives it, under the names of the application."""

    def __init__(self, size: tuple[int, int] = (240, 240)) -> None:
        output = vtk.vtkOutputWindow()
        output.SetDisplayModeToAlwaysStdErr()
        vtk.vtkOutputWindow.SetInstance(output)
        self.size = size
        self.cache = tempfile.TemporaryDirectory(prefix="mrml-host-")
        self.views: dict[str, SliceView] = {}
        self.application = slicer.vtkSlicerApplicationLogic()
        self.application.SetSliceLogics(vtk.vtkCollection())
        self.application.SetViewLogics(vtk.vtkCollection())
        self.openScene()

    def openScene(self) -> Any:
        """A fresh scene; the module namespace follows it."""
        self.views = {}
        self.application.GetSliceLogics().RemoveAllItems()
        scene = slicer.vtkMRMLScene()
        self.scene = scene
        cache, data = slicer.vtkCacheManager(), slicer.vtkDataIOManager()
        cache.SetRemoteCacheDirectory(self.cache.name)
        cache.SetMRMLScene(scene)
        data.SetCacheManager(cache)
        scene.SetCacheManager(cache)
        scene.SetDataIOManager(data)
        self._managers = (cache, data)
        self.application.SetMRMLScene(scene)
        scene.RegisterNodeClass(slicer.vtkMRMLColorLegendDisplayNode())
        self.application.GetColorLogic().SetMRMLScene(scene)
        self.application.GetColorLogic().AddDefaultColorNodes()
        # the data tree is made anew, or put together, before others are told (qSlicerSubjectHierarchyPluginLogic.cxx)
        for event, priority in ((scene.EndImportEvent, 10.0), (scene.EndCloseEvent, 0.0)):
            scene.AddObserver(event, self._resolveTree, priority)
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
        layout = slicer.vtkMRMLLayoutNode()
        layout.SetSingletonTag("vtkMRMLLayoutNode")
        for arrangement in LAYOUTS:
            layout.AddLayoutDescription(arrangement, '<layout type="horizontal"/>')
        layout.AddObserver(vtk.vtkCommand.ModifiedEvent, self._arranged)
        scene.AddNode(layout)
        self.logics = {}
        for module, kind in (
            ("Colors", "vtkMRMLColorLogic"),
            ("Volumes", "vtkSlicerVolumesLogic"),
            ("Transforms", "vtkSlicerTransformLogic"),
            ("Segmentations", "vtkSlicerSegmentationsModuleLogic"),
            ("SubjectHierarchy", "vtkSlicerSubjectHierarchyModuleLogic"),
            ("Sequences", "vtkSlicerSequencesLogic"),
        ):
            logic = getattr(slicer, kind)()
            logic.SetMRMLApplicationLogic(self.application)
            with _rules_once():
                logic.SetMRMLScene(scene)
            self.application.SetModuleLogic(module, logic)
            self.logics[module] = logic
        slicer.mrmlScene = scene
        slicer.modules = types.SimpleNamespace(
            **{
                name.lower(): types.SimpleNamespace(logic=lambda kept=logic: kept)
                for name, logic in self.logics.items()
            }
        )
        return scene

    def addViews(self) -> dict[str, SliceView]:
        """Red, Yellow and Green, rendering off screen."""
        for name, orientation in VIEWS.items():
            self.views[name] = SliceView(self, name, orientation)
        return self.views

    def close(self) -> None:
        """Give back what voxels and pictures take, which is most of it.

        The rest stays: taken apart in whatever order Python finds, scene, logics and views crash.
        """
        self.scene.Clear(1)
        for view in self.views.values():
            view.close()
        CLOSED.append(self)

    def _resolveTree(self, scene: Any, _event: str) -> None:
        if scene is self.scene:  # one that is left is closed when it ends
            slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)

    def _arranged(self, layout: Any, _event: str) -> None:
        """The views that a layout needs are made when it is chosen, as the layout manager does.

        The layout manager updates the layout at once (qMRMLLayoutManager.cxx, line 611, onLayoutNodeModifiedEvent), and
        the views' factory makes the slice nodes by their tags, with the properties that the layout gives to new ones
        (vtkMRMLLayoutLogic.cxx, lines 296 to 353, threeOverThreeView: the lower row is turned as the upper one and is
        in group 1; 558 to 592, twoOverTwoView; 1585 to 1627, ApplyProperty).
        """
        for name in LAYOUTS.get(layout.GetViewArrangement(), ()):
            if self.views and name not in self.views:
                self.views[name] = SliceView(self, name, VIEWS.get(name.removesuffix("+"), "Axial"))
                self.views[name].node.SetViewGroup(int(name.endswith("+")))

    def picture(self, position: tuple[float, float, float]) -> np.ndarray:
        """All views side by side, fitted to their background, at a point in RAS: (height, width, 3) uint8."""
        views = [self.views[name] for name in VIEWS]
        for view in views:
            view.fit(position)
        return np.concatenate([view.grab() for view in views], 1)


class SliceView:
    """One slice view without a window."""

    def __init__(self, host: MRMLHost, name: str, orientation: str) -> None:
        # The image has a renderer below that of the displayable managers, or fills are not blended with it.
        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.SetNumberOfLayers(2)
        self.window.SetAlphaBitPlanes(1)
        self.window.SetSize(*host.size)
        self.below, self.above = below, above = vtk.vtkRenderer(), vtk.vtkRenderer()
        for layer, renderer in enumerate((below, above)):
            renderer.SetLayer(layer)
            renderer.GetActiveCamera().ParallelProjectionOn()
            self.window.AddRenderer(renderer)
        self.interactor = vtk.vtkRenderWindowInteractor()
        self.interactor.SetRenderWindow(self.window)
        self.interactor.Initialize()
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        factory.SetMRMLApplicationLogic(host.application)
        for manager in MANAGERS:
            if not factory.IsDisplayableManagerRegistered(manager):
                factory.RegisterDisplayableManager(manager)
        self.group = slicer.vtkMRMLDisplayableManagerGroup()
        self.group.SetRenderer(above)
        self.group.Initialize(factory, above)
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(host.application)
        host.application.GetSliceLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(host.scene)
        self.node = self.logic.AddSliceNode(name)
        self.node.SetOrientation(orientation)
        self.group.SetMRMLDisplayableNode(self.node)
        self.mapper = vtk.vtkImageMapper()
        self.mapper.SetColorWindow(255)
        self.mapper.SetColorLevel(127.5)
        self.actor = vtk.vtkActor2D()
        self.actor.SetMapper(self.mapper)
        self.actor.GetProperty().SetDisplayLocationToBackground()
        below.AddViewProp(self.actor)
        self.interactor.UpdateSize(*host.size)
        self.logic.ResizeSliceNode(*host.size)

    def close(self) -> None:
        """Let go of the window, which takes 8 MB by itself."""
        for renderer in (self.below, self.above):
            self.window.RemoveRenderer(renderer)
        self.interactor.SetRenderWindow(None)
        del self.window, self.interactor

    def fit(self, position: tuple[float, float, float]) -> None:
        """Show the whole background image, cut at a point in RAS."""
        self.logic.FitSliceToBackground()
        self.node.JumpSliceByOffsetting(*position)

    def grab(self) -> np.ndarray:
        """The picture, (height, width, 3) uint8."""
        self.logic.UpdatePipeline()
        source = self.logic.GetImageDataConnection()
        self.mapper.SetInputConnection(source)
        self.actor.SetVisibility(source is not None)
        self.window.Render()
        grabber = vtk.vtkWindowToImageFilter()
        grabber.SetInput(self.window)
        grabber.SetInputBufferTypeToRGB()
        grabber.ReadFrontBufferOff()
        grabber.Update()
        image = grabber.GetOutput()
        width, height, _ = image.GetDimensions()
        return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, 3)[::-1].copy()


def savePicture(path: Path, pixels: np.ndarray) -> None:
    """Write a picture as PNG."""
    from PIL import Image

    Image.fromarray(pixels).save(path, optimize=True)


def readPicture(path: Path) -> np.ndarray:
    """Read a picture as signed integers, so that differences do not overflow."""
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB")).astype(int)
