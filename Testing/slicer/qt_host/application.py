"""Stand-ins for the application object and for its views.

Files and lines are of Slicer 583e9b37 (5.13, August 2026) and of CTK 868d56c7.
"""

from __future__ import annotations

import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import vtk
from mrml_host import SliceView
from PySide6 import QtCore, QtWidgets

import slicer


class StandInIO:
    """For the application's readers: volumes and segmentations, through Slicer's own storage nodes.

    qSlicerCoreIOManager.cxx, lines 242 (fileType) and 615 (loadNodes, called by util.py, line 1008, which turns False
    into RuntimeError).
    """

    def fileType(self, path: str) -> str:
        """Which reader a file needs."""
        return "SegmentationFile" if ".seg." in str(path) else "VolumeFile"

    def loadNodes(self, kind: str, properties: dict[str, Any], loaded: Any, _messages: Any = None) -> bool:
        """Read one file into a new node, and show a volume as the application does.

        qSlicerVolumesReader.cxx, lines 177 to 181 (the node is called as the file up to its first dot, or "name") and
        203 to 250 ("show"; a label map does not become the background).
        """
        scene, path = slicer.mrmlScene, Path(properties["fileName"])
        names = ("vtkMRMLSegmentationNode", "vtkMRMLSegmentationStorageNode")
        if kind == "VolumeFile":
            label = properties.get("labelmap")
            names = ("vtkMRMLLabelMapVolumeNode" if label else "vtkMRMLScalarVolumeNode",
                     "vtkMRMLVolumeArchetypeStorageNode")  # fmt: skip
        if not path.is_file():
            return False
        storage = scene.AddNewNodeByClass(names[1])
        storage.SetFileName(str(path))
        wanted = properties.get("name") or path.name.split(".")[0]
        node = scene.AddNewNodeByClass(names[0], scene.GenerateUniqueName(wanted))
        if not storage.ReadData(node):
            scene.RemoveNode(node)
            scene.RemoveNode(storage)
            return False
        node.SetAndObserveStorageNodeID(storage.GetID())
        node.CreateDefaultDisplayNodes()
        if loaded is not None:
            loaded.AddItem(node)
        if names[0] == "vtkMRMLScalarVolumeNode" and properties.get("show", True):
            for index in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")):
                composite = scene.GetNthNodeByClass(index, "vtkMRMLSliceCompositeNode")
                composite.SetBackgroundVolumeID(node.GetID())
        return True


class StandInSliceView:
    """For ctkVTKSliceView: the texts in the corners of one rendered view.

    ctkVTKAbstractView.h, line 174 (cornerAnnotation); the object is VTK's own, and so is what is written into it.
    """

    def __init__(self, view: SliceView) -> None:
        self._annotation = vtk.vtkCornerAnnotation()
        self._annotation.GetTextProperty().SetColor(1.0, 0.9, 0.4)
        self._annotation.SetMaximumFontSize(13)
        renderers = view.window.GetRenderers()
        renderers.InitTraversal()
        top = [renderers.GetNextItem() for _ in range(renderers.GetNumberOfItems())][-1]
        top.AddViewProp(self._annotation)

    def cornerAnnotation(self) -> Any:
        """Slicer's own object for the texts."""
        return self._annotation

    def scheduleRender(self) -> None:
        """Views are drawn when a picture is taken."""


class StandInLayoutManager:
    """For the layout manager: which slice views there are. There is no 3-D view.

    qMRMLLayoutManager.h, lines 87 (threeDViewCount), 134 (sliceWidget; None for a view that is not made yet:
    qMRMLLayoutManager.cxx, line 871) and 142 (sliceViewNames, those of hidden views too).
    """

    threeDViewCount = 0

    def __init__(self, views: dict[str, SliceView]) -> None:
        self._views = views
        self._widgets: dict[str, StandInSliceView] = {}

    def sliceViewNames(self) -> tuple[str, ...]:
        """Names of the slice views."""
        return tuple(self._views)

    def sliceWidget(self, name: str) -> Any:
        """A view's widget."""
        if name not in self._widgets:
            self._widgets[name] = StandInSliceView(self._views[name])
        return types.SimpleNamespace(sliceView=lambda: self._widgets[name])


class StandInModuleManager(QtCore.QObject):
    """For the module manager: what Slicer's own Python layer connects to.

    qSlicerModuleManager.h, line 60; ScriptedLoadableModule.py, line 110.
    """

    moduleAboutToBeUnloaded = QtCore.Signal(str)

    def connect(self, signature: str, slot: Callable[..., None]) -> None:
        """Connect a signal that is named as in C++."""
        getattr(self, signature.split("(")[0]).connect(slot)

    def disconnect(self, signature: str, slot: Callable[..., None]) -> None:
        """Undo `connect`."""
        getattr(self, signature.split("(")[0]).disconnect(slot)


class StandInApplication:
    """For slicer.app.

    qSlicerCoreApplication.h, lines 76 to 78 (defaultScenePath, temporaryPath) and 455 (userSettings);
    qSlicerApplication.h, lines 104 (layoutManager) and 248 (startupCompleted).
    """

    def __init__(self, views: dict[str, SliceView]) -> None:
        self.qt = QtWidgets.QApplication.instance() or QtWidgets.QApplication([])
        self.qt.setStyle("Fusion")
        self._layout = StandInLayoutManager(views)
        self._modules = StandInModuleManager()
        self._startup: list[Callable[[], None]] = []
        self._folder = tempfile.TemporaryDirectory(prefix="qt-host-")
        self.temporaryPath = self._folder.name
        self.applicationVersion = "5.13 (stand-in)"
        self.majorVersion, self.minorVersion, self.applicationName, self.revision = 5, 13, "Slicer", "stand-in"

    def connect(self, signature: str, slot: Callable[[], None]) -> None:
        """Remember who waits for the end of the start-up."""
        if signature == "startupCompleted()":
            self._startup.append(slot)

    def startup(self) -> None:
        """Tell those who wait that the application has started."""
        for slot in self._startup:
            slot()
        self._startup.clear()

    def processEvents(self) -> None:
        """Let Qt work."""
        self.qt.processEvents()

    def coreIOManager(self) -> StandInIO:
        """Readers."""
        return StandInIO()

    ioManager = coreIOManager

    def layoutManager(self) -> StandInLayoutManager:
        """Views."""
        return self._layout

    def moduleManager(self) -> StandInModuleManager:
        """Modules."""
        return self._modules

    def topLevelWidgets(self) -> list[Any]:
        """There is no main window: slicer.util.mainWindow (util.py, lines 502 to 530) looks for it here."""
        return []

    def testingEnabled(self) -> bool:
        """As when Slicer runs tests: nobody is asked.

        qSlicerBaseQTCorePythonQtDecorators.h, line 54. Slicer's own questions would then be answered with yes (util.py,
        lines 3372 to 3399), so the panel asks for this itself.
        """
        return True

    def pauseRender(self) -> None:
        """Nothing is rendered in between."""

    resumeRender = pauseRender

    def userSettings(self) -> Any:
        """Settings of the user: none."""
        return QtCore.QSettings(str(Path(self.temporaryPath) / "settings.ini"), QtCore.QSettings.Format.IniFormat)

    settings = userSettings

    def translate(self, _context: str, text: str) -> str:
        """No translations."""
        return text
