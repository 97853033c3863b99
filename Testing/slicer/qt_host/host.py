"""The host itself: brings the parts up, opens a module as the application does, and takes pictures of the window."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import slicer.util
import vtk
from mrml_host import MRMLHost, savePicture
from PySide6 import QtCore, QtGui

import slicer
from qt_host import layer, widgets
from qt_host.application import StandInApplication
from qt_host.bindings import qt_module

ROOT = Path(__file__).resolve().parents[3]
LAYER = ("i18n", "packaging", "ScriptedLoadableModule", "parameterNodeWrapper")
BASE_PYTHON = "SLICER_BASE_PYTHON"
"""Environment variable: the folder Base/Python of Slicer's sources, whose files replace our stand-ins."""
PANEL_WIDTH = 460


class Host:
    """One application without a window. Use it as a context: what it puts into `sys.modules` goes again at the end.

    Args:
        size: Width and height of a slice view, in pixels.
    """

    def __init__(self, size: tuple[int, int] = (240, 240)) -> None:
        self.mrml = MRMLHost(size)
        self.views = self.mrml.addViews()
        self.qt = qt_module()
        self.application = StandInApplication(self.views)
        self.samples: list[dict[str, Any]] = []
        self._undo = contextlib.ExitStack()
        self._open: list[Any] = []
        self.faults: list[BaseException] = []
        """What was raised in handlers of signals and events, where Qt and VTK only print it."""

    @property
    def scene(self) -> Any:
        """The application's one scene."""
        return self.mrml.scene

    def __enter__(self) -> Host:
        ctk, classes = widgets.ctk_module(), widgets.qmrml_classes()
        widgets.register(ctk, classes)
        source = types.SimpleNamespace(registerCustomSampleDataSource=lambda **given: self.samples.append(given))
        sample_data = types.ModuleType("SampleData")
        sample_data.SampleDataLogic = source  # type: ignore[attr-defined]
        self._put({"qt": self.qt, "ctk": ctk, "SampleData": sample_data})
        modules = types.ModuleType("slicer.modules")
        vars(modules).update(vars(slicer.modules))
        self._set(slicer, "modules", modules)
        self._set(slicer, "app", self.application)
        self._set(slicer, "mrmlScene", self.scene)
        for name, found in classes.items():
            self._set(slicer, name, found)
        base = os.environ.get(BASE_PYTHON)
        if base:
            slicer.__path__.append(str(Path(base) / "slicer"))
            self._undo.callback(slicer.__path__.remove, str(Path(base) / "slicer"))
            there = [name for name in LAYER if importlib.util.find_spec(f"slicer.{name}")]  # 5.10 has no packaging
            made = {name: importlib.import_module(f"slicer.{name}") for name in there}
        else:
            made = layer.modules()
            self._put({f"slicer.{name}": module for name, module in made.items()})
        for name, module in made.items():
            self._set(slicer, name, module)
        self._undo.enter_context(self._fresh())
        self._set(sys, "excepthook", lambda _kind, error, _trace: self.faults.append(error))
        return self

    def __exit__(self, kind: object, *_error: object) -> None:
        for widget in list(self._open):
            self.closeModule(widget)
        self.mrml.close()
        self._undo.close()
        if self.faults and kind is None:
            raise AssertionError("A handler has failed.") from self.faults[0]

    @staticmethod
    @contextlib.contextmanager
    def _fresh() -> Iterator[None]:
        """Modules of the panel are imported again, so that they find what is there now; later tests find their own."""
        own = ("D3MSynthesis", "D3MTraining")

        def ours() -> list[str]:
            return [name for name in sys.modules if name.split(".")[0].startswith(own)]

        kept = {name: sys.modules.pop(name) for name in ours()}
        try:
            yield
        finally:
            for name in ours():
                del sys.modules[name]
            sys.modules.update(kept)

    def _put(self, modules: dict[str, types.ModuleType]) -> None:
        for name, module in modules.items():
            before = sys.modules.get(name)
            sys.modules[name] = module
            self._undo.callback(self._restore, name, before)

    @staticmethod
    def _restore(name: str, before: types.ModuleType | None) -> None:
        if before is None:
            sys.modules.pop(name, None)
        else:
            sys.modules[name] = before

    def _set(self, where: Any, name: str, value: Any) -> None:
        missing = object()
        before = getattr(where, name, missing)
        setattr(where, name, value)
        self._undo.callback(lambda: delattr(where, name) if before is missing else setattr(where, name, before))

    def openModule(self, name: str) -> Any:
        """Import a module's file, build it and its widget, and show it; returns the widget (None without one)."""
        path = ROOT / name / f"{name}.py"
        with self._path(path.parent):
            module = importlib.import_module(name)
        parent = types.SimpleNamespace(path=str(path), title="", icon=None, hidden=False)
        getattr(module, name)(parent)
        self.application.startup()
        info = types.SimpleNamespace(path=str(path), name=name, parent=parent)
        setattr(slicer.modules, name.lower(), info)
        if not hasattr(module, f"{name}Widget"):
            return None
        holder = widgets.StandInWidget()
        holder.setLayout(self.qt.QVBoxLayout())
        holder.setMRMLScene = lambda _scene: None
        widget = getattr(module, f"{name}Widget")(holder)
        widget.setup()
        info.widgetRepresentation = lambda: types.SimpleNamespace(self=lambda: widget)
        widget.enter()
        self._open.append(widget)
        self.settle()
        return widget

    def closeModule(self, widget: Any) -> None:
        """What the application does before a module is reloaded, and at its end."""
        widget.cleanup()
        self._open.remove(widget)
        for selector in widget.parent.findChildren(widgets.StandInNodeComboBox):
            selector.setMRMLScene(None)
        self.settle()

    def reloadModule(self, widget: Any) -> Any:
        """Reload as the developer's button does: clean up, run the module's file anew (its library stays), set up."""
        name = type(widget).__name__.removesuffix("Widget")
        self.closeModule(widget)
        del sys.modules[name]
        return self.openModule(name)

    @contextlib.contextmanager
    def _path(self, folder: Path) -> Iterator[None]:
        sys.path.insert(0, str(folder))
        try:
            yield
        finally:
            sys.path.remove(str(folder))

    def settle(self, seconds: float = 0.0, rounds: int = 10) -> None:
        """Let Qt work for a while, and for these rounds: what an event puts off comes in the next one."""
        end = time.monotonic() + seconds
        while rounds > 0 or time.monotonic() < end:
            self.application.processEvents()
            time.sleep(0.001)
            rounds -= 1

    def until(self, condition: Callable[[], object], seconds: float = 60) -> None:
        """Let Qt work until something is so.

        Raises:
            AssertionError: it did not become so in this time.
        """
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not happen in time"
            self.application.processEvents()
            time.sleep(0.005)

    def clear(self) -> None:
        """Close the scene, as File > Close Scene does."""
        self.scene.Clear(0)
        self.settle()

    def picture(
        self, widget: Any, path: Path, columns: list[list[str]], position: tuple[float, float, float] | None = None
    ) -> None:
        """The whole window: the panel, and slice views beside it.

        Args:
            widget: From `openModule`.
            path: PNG file to write.
            columns: Names of the views, column by column, from top to bottom.
            position: RAS point that the views are cut at, fitted to their images; None: they stay where they look.
        """
        savePicture(path, self.window(widget, columns, position))

    def window(
        self, widget: Any, columns: list[list[str]], position: tuple[float, float, float] | None = None
    ) -> np.ndarray:
        """What `picture` writes, (height, width, 3) uint8."""
        for name in (name for column in columns for name in column):
            if position is not None:
                self.views[name].fit(position)
            self._tellVolumes(name)
        grabbed = [[self.views[name].grab() for name in column] for column in columns]
        parts = [self.panelPicture(widget), *(np.concatenate(column) for column in grabbed)]
        height = max(len(part) for part in parts)
        window = [np.pad(part, ((0, height - len(part)), (0, 4), (0, 0))) for part in parts]
        window[0][len(parts[0]) :, :-4] = parts[0][-1, 0]
        return np.concatenate(window, 1)

    def _tellVolumes(self, name: str) -> None:
        """In the lower left corner of a view, the images in it, as Slicer's own annotations have them.

        SliceViewAnnotations.py, makeAnnotationText (an image with no share is named, too) and drawCornerAnnotations
        (there is an empty line at the end).
        """
        composite = self.views[name].logic.GetSliceCompositeNode()
        label, over = composite.GetLabelOpacity(), composite.GetForegroundOpacity()
        shown = (
            ("L", composite.GetLabelVolumeID(), f" ({int(100 * label)}%)"),
            ("F", composite.GetForegroundVolumeID(), f" ({int(100 * over)}%)"),
            ("B", composite.GetBackgroundVolumeID(), ""),
        )
        text = "".join(
            f"{layer}: {self.scene.GetNodeByID(found).GetName()}{share}\n" for layer, found, share in shown if found
        )
        view = self.application.layoutManager().sliceWidget(name).sliceView()
        view.cornerAnnotation().SetText(vtk.vtkCornerAnnotation.LowerLeft, text)

    def panelPicture(self, widget: Any) -> np.ndarray:
        """The panel alone, (height, width, 3) uint8."""
        parent = widget.parent
        parent.setAttribute(QtCore.Qt.WidgetAttribute.WA_DontShowOnScreen, True)
        parent.show()
        self.settle()
        for _ in range(2):  # lines of text are broken again when their width is known
            height = max(parent.layout().minimumSize().height(), parent.layout().totalHeightForWidth(PANEL_WIDTH))
            parent.resize(PANEL_WIDTH, height)
            self.settle()
        image = parent.grab().toImage().convertToFormat(QtGui.QImage.Format.Format_RGB888)
        rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
        return rows[:, : 3 * image.width()].reshape(image.height(), image.width(), 3).copy()
