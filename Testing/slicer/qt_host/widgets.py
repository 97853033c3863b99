"""Stand-ins for the CTK and qMRML widgets that the panels use, with the properties and signals that are used."""

from __future__ import annotations

import types
from collections.abc import Iterable
from typing import Any

import vtk
from PySide6 import QtCore, QtWidgets

from qt_host.bindings import UiLoader, adopt, qt_module

qt = qt_module()

CLOSED_HEIGHT = 22
"""Pixels of a closed section: its title."""


class StandInCollapsibleButton(qt.QGroupBox):
    """For ctkCollapsibleButton: a titled box that can be closed; what it holds keeps its state (`test_standins`)."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._text, self._collapsed = "", False

    def event(self, event: QtCore.QEvent) -> bool:
        """Take over what the .ui file says."""
        adopt(self, event, ("text", "collapsed"))
        return super().event(event)

    def _draw(self) -> None:
        self.setTitle(f"{'▸' if self._collapsed else '▾'} {self._text}")
        self.setMaximumHeight(CLOSED_HEIGHT if self._collapsed else 16777215)
        self.setFlat(self._collapsed)

    @property
    def text(self) -> str:
        """Title."""
        return self._text

    @text.setter
    def text(self, value: str) -> None:
        self._text = value
        self._draw()

    @property
    def collapsed(self) -> bool:
        """Whether only the title is seen."""
        return self._collapsed

    @collapsed.setter
    def collapsed(self, value: bool) -> None:
        self._collapsed = value
        self._draw()


class StandInSliderWidget(qt.QWidget):
    """For ctkSliderWidget: a slider with a number beside it (`test_standins`)."""

    valueChanged = QtCore.Signal(float)
    NUMBERS = ("minimum", "maximum", "singleStep", "decimals", "value")

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal)
        self._slider.setRange(0, 1000)
        self._box = QtWidgets.QDoubleSpinBox()
        layout.addWidget(self._slider)
        layout.addWidget(self._box)
        self._slider.sliderMoved.connect(self._moved)
        self._box.valueChanged.connect(self._changed)

    def _moved(self, place: int) -> None:
        low, high = self._box.minimum(), self._box.maximum()
        self._box.setValue(low + (high - low) * place / 1000)

    def _changed(self, value: float) -> None:
        low, high = self._box.minimum(), self._box.maximum()
        self._slider.setValue(round(1000 * (value - low) / (high - low)) if high > low else 0)
        self.valueChanged.emit(value)

    def event(self, event: QtCore.QEvent) -> bool:
        """Take over what the .ui file says."""
        adopt(self, event, self.NUMBERS)
        return super().event(event)


def _number(name: str) -> None:
    setter = "set" + name[0].upper() + name[1:]

    def write(self: StandInSliderWidget, value: float) -> None:
        getattr(self._box, setter)(int(value) if name == "decimals" else value)

    setattr(StandInSliderWidget, name, property(lambda self: getattr(self._box, name)(), write))
    if name in ("value", "decimals"):  # of CTK's setters these are slots; PythonQt does not see the others
        setattr(StandInSliderWidget, setter, write)


for _name in StandInSliderWidget.NUMBERS:
    _number(_name)


class StandInDirectoryButton(qt.QPushButton):
    """For ctkDirectoryButton: a folder (`test_standins`)."""

    directoryChanged = QtCore.Signal(str)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.directory = "."

    @property
    def directory(self) -> str:
        """The chosen folder."""
        return self._directory

    @directory.setter
    def directory(self, value: str) -> None:
        self._directory = value
        self.setText(value)
        self.directoryChanged.emit(value)


class StandInWidget(qt.QWidget):
    """For qMRMLWidget: hands its scene to what it holds, which the .ui file's connections do in the application.

    qMRMLWidget.cxx, lines 61 to 70: a new scene is told by mrmlSceneChanged.
    """

    mrmlSceneChanged = QtCore.Signal("vtkMRMLScene*")

    def setMRMLScene(self, scene: Any) -> None:
        """Give every selector the scene."""
        for child in self.findChildren(QtWidgets.QWidget):
            if isinstance(child, StandInNodeComboBox):
                child.setMRMLScene(scene)


class StandInNodeComboBox(qt.QComboBox):
    """For qMRMLNodeComboBox: the nodes of some classes; what it does is checked in `test_standins`."""

    currentNodeChanged = QtCore.Signal(object)
    PROPERTIES = ("nodeTypes", "noneEnabled", "addEnabled", "removeEnabled", "renameEnabled", "showChildNodeTypes")

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.nodeTypes: list[str] = []
        self.noneEnabled, self.addEnabled, self.removeEnabled, self.renameEnabled = False, True, True, False
        self.showChildNodeTypes = True
        self._scene: Any = None
        self._observations: list[int] = []
        self._identifiers: list[str] = []
        self.currentIndexChanged.connect(self._picked)

    def event(self, event: QtCore.QEvent) -> bool:
        """Take over what the .ui file says."""
        adopt(self, event, self.PROPERTIES)
        return super().event(event)

    def setMRMLScene(self, scene: Any) -> None:
        """List the nodes of this scene, now and later; None lets go of it."""
        for observation in self._observations:
            self._scene.RemoveObserver(observation)
        self._scene, self._observations = scene, []
        if scene is None:
            return
        ends = (scene.EndCloseEvent, scene.EndImportEvent)
        self._observations = [scene.AddObserver(event, lambda *_: self._refresh()) for event in ends]
        changes = (scene.NodeAddedEvent, scene.NodeRemovedEvent)
        self._observations += [scene.AddObserver(event, self._changes) for event in changes]
        self._observations.append(scene.AddObserver(scene.NodeAboutToBeRemovedEvent, self._leaves, -10.0))
        self._refresh()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _changes(self, _scene: Any, _event: str, node: Any) -> None:
        if self._fitting([node]):
            self._refresh()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _leaves(self, scene: Any, _event: str, node: Any) -> None:
        """The row of a node goes before the node; what is chosen then is Qt's affair: the row above."""
        if not scene.IsClosing() and node.GetID() in self._identifiers:
            row = self._identifiers.index(node.GetID())
            del self._identifiers[row]
            self.removeItem(row)

    def _fitting(self, nodes: Iterable[Any]) -> list[Any]:
        kinds, exactly = list(self.nodeTypes), not self.showChildNodeTypes
        if exactly:
            return [node for node in nodes if node.GetClassName() in kinds]
        return [node for node in nodes if any(map(node.IsA, kinds))]

    def _refresh(self) -> None:
        kept = self.currentNodeID
        self.blockSignals(True)
        self.clear()
        listed = [node for node in self._fitting(self._scene.GetNodes()) if not node.GetHideFromEditors()]
        self._identifiers = ([""] if self.noneEnabled else []) + [node.GetID() for node in listed]
        self.addItems((["None"] if self.noneEnabled else []) + [node.GetName() or "" for node in listed])
        self.setCurrentIndex(self._identifiers.index(kept) if kept in self._identifiers else 0)
        self.blockSignals(False)
        if self.currentNodeID != kept:
            self.currentNodeChanged.emit(self.currentNode())

    def _picked(self, _index: int) -> None:
        self.currentNodeChanged.emit(self.currentNode())

    @property
    def currentNodeID(self) -> str:
        """Of the chosen node; empty for none."""
        index = QtWidgets.QComboBox.currentIndex(self)
        return self._identifiers[index] if 0 <= index < len(self._identifiers) else ""

    def currentNode(self) -> Any:
        """The chosen node, or None."""
        return self._scene.GetNodeByID(self.currentNodeID) if self._scene is not None and self.currentNodeID else None

    def setCurrentNode(self, node: Any) -> None:
        """Choose a node of the list, or none."""
        identifier = node.GetID() if node is not None else ""
        if identifier not in self._identifiers:
            self._refresh()
        if identifier in self._identifiers:
            self.setCurrentIndex(self._identifiers.index(identifier))


def ctk_module() -> types.ModuleType:
    """The module `ctk` of the code under test; classes that only `parameterNodeWrapper` names do nothing."""
    module = types.ModuleType("ctk")
    plain = {
        "ctkCheckBox": qt.QCheckBox, "ctkComboBox": qt.QComboBox, "ctkDoubleSpinBox": qt.QDoubleSpinBox,
        "ctkDoubleSlider": qt.QSlider, "ctkCheckablePushButton": qt.QPushButton, "ctkRangeWidget": qt.QWidget,
        "ctkDoubleRangeSlider": qt.QWidget, "ctkPathLineEdit": qt.QLineEdit, "ctkColorPickerButton": qt.QPushButton,
    }  # fmt: skip
    for name, base in plain.items():
        setattr(module, name, type(base)(f"StandIn{name[3:]}", (base,), {}))
    module.ctkCollapsibleButton = StandInCollapsibleButton  # type: ignore[attr-defined]
    module.ctkSliderWidget = StandInSliderWidget  # type: ignore[attr-defined]
    module.ctkDirectoryButton = StandInDirectoryButton  # type: ignore[attr-defined]
    return module


def qmrml_classes() -> dict[str, type]:
    """Classes that the application puts into the package `slicer`."""
    return {
        "qMRMLWidget": StandInWidget,
        "qMRMLNodeComboBox": StandInNodeComboBox,
        "qMRMLSliderWidget": type(StandInSliderWidget)("StandInMRMLSliderWidget", (StandInSliderWidget,), {}),
        "qMRMLSpinBox": type(qt.QDoubleSpinBox)("StandInMRMLSpinBox", (qt.QDoubleSpinBox,), {}),
        "qMRMLRangeWidget": type(qt.QWidget)("StandInMRMLRangeWidget", (qt.QWidget,), {}),
    }


def register(ctk: types.ModuleType, classes: dict[str, type]) -> None:
    """Let the .ui loader know the stand-ins."""
    UiLoader.classes.update({name: found for name, found in vars(ctk).items() if name.startswith("ctk")})
    UiLoader.classes.update(classes)
