"""Stand-ins for the part of Slicer's Python layer that the modules use, where Slicer's own files are not at hand.

They are as strict as the real ones where the modules depend on it: values are checked when they are set (Slicer's
Base/Python/slicer/parameterNodeWrapper/validators.py, line 93), a widget must be of a kind that the value can be bound
to (guiConnectors.py, line 145), and a parameter node is a node of the scene (ScriptedLoadableModule.py, lines 310 to
362). The same tests run over the real files: SLICER_BASE_PYTHON=<folder> make test-slicer.
"""

from __future__ import annotations

import enum
import types
import typing
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import vtk

import slicer
from qt_host.bindings import qt_module
from qt_host.widgets import StandInNodeComboBox, StandInSliderWidget

qt = qt_module()


def tr(text: str) -> str:
    """For slicer.i18n.tr: no translations."""
    return text


def translate(_context: str, text: str) -> str:
    """For slicer.i18n.translate."""
    return text


class ScriptedLoadableModule:
    """For slicer.ScriptedLoadableModule.ScriptedLoadableModule."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent


class ScriptedLoadableModuleWidget:
    """For the base of a module's widget."""

    def __init__(self, parent: Any = None) -> None:
        self.parent = parent
        self.layout = parent.layout()
        self.moduleName = type(self).__name__.removesuffix("Widget")

    def setup(self) -> None:
        """The real one adds buttons for developers."""

    def resourcePath(self, filename: str) -> str:
        """Absolute path of one of the module's resources."""
        return str(Path(getattr(slicer.modules, self.moduleName.lower()).path).parent / "Resources" / filename)


class ScriptedLoadableModuleLogic:
    """For the base of a module's logic."""

    def __init__(self, parent: Any = None) -> None:
        del parent
        self.moduleName = type(self).__name__.removesuffix("Logic")

    def getParameterNode(self) -> Any:
        """The module's parameter node in the scene; made if it is not there."""
        scene = slicer.mrmlScene
        node = scene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = scene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
            node.UnRegister(None)
            node.SetSingletonTag(self.moduleName)
            node.SetModuleName(self.moduleName)
            node = scene.AddNode(node)
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """For the base of a module's tests."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*(arguments or ("runTest",)))


class Default:
    """For parameterNodeWrapper.Default."""

    def __init__(self, value: Any) -> None:
        self.value = value


class WithinRange:
    """For parameterNodeWrapper.WithinRange."""

    def __init__(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum

    def check(self, value: float) -> None:
        """Raise ValueError outside the range, as the real one does."""
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within range [{self.minimum}, {self.maximum}], is {value}")


class Field:
    """One parameter: its type, default and checks, kept as text or reference in the node."""

    def __init__(self, name: str, annotation: Any) -> None:
        self.name = name
        self.annotations = getattr(annotation, "__metadata__", ())
        plain = typing.get_args(annotation)[0] if self.annotations else annotation
        union = typing.get_origin(plain) in (typing.Union, types.UnionType)
        self.kinds = tuple(kind for kind in (typing.get_args(plain) if union else (plain,)) if kind is not type(None))
        self.node = all(issubclass(kind, slicer.vtkMRMLNode) for kind in self.kinds)

    @property
    def default(self) -> Any:
        """What an unset parameter reads as."""
        given = [annotation.value for annotation in self.annotations if isinstance(annotation, Default)]
        if given or self.node:
            return given[0] if given else None
        kind = self.kinds[0]
        return next(iter(kind)) if issubclass(kind, enum.Enum) else kind()

    def read(self, parameterNode: Any) -> Any:
        """The value that the node holds."""
        if self.node:
            return parameterNode.GetNodeReference(self.name)
        text, kind = parameterNode.GetParameter(self.name), self.kinds[0]
        if not parameterNode.GetParameterNames() or self.name not in parameterNode.GetParameterNames():
            return self.default
        if issubclass(kind, enum.Enum):
            return kind[text]
        return text == "True" if kind is bool else kind(text)

    def write(self, parameterNode: Any, value: Any) -> None:
        """Check a value and keep it."""
        if self.node:
            if value is not None and not isinstance(value, self.kinds):
                raise ValueError(f"{self.name} cannot be a {type(value).__name__}")
            parameterNode.SetNodeReferenceID(self.name, None if value is None else value.GetID())
            return
        kind = self.kinds[0]
        if not isinstance(value, kind) and not (kind is float and isinstance(value, int)):
            raise ValueError(f"{self.name} cannot be a {type(value).__name__}")
        for annotation in self.annotations:
            if isinstance(annotation, WithinRange):
                annotation.check(value)
        parameterNode.SetParameter(self.name, value.name if isinstance(value, enum.Enum) else str(value))


class Binding:
    """One parameter and one widget, both ways."""

    def __init__(self, field: Field, widget: Any, changed: Callable[[], None]) -> None:
        self.field, self.widget = field, widget
        kind = field.kinds[0]
        if isinstance(widget, StandInNodeComboBox) and field.node:
            self._read, self._write = widget.currentNode, widget.setCurrentNode
            self._signal = widget.currentNodeChanged
        elif type(widget) is qt.QCheckBox and kind is bool:
            self._read, self._write = (lambda: widget.checked), widget.setChecked
            self._signal = widget.toggled
        elif type(widget) is qt.QLineEdit and kind is str:
            self._read, self._write = (lambda: widget.text), widget.setText
            self._signal = widget.textChanged
        elif type(widget) is qt.QComboBox and isinstance(kind, enum.EnumMeta):
            values = list(kind)
            widget.clear()
            widget.addItems([value.label() for value in values])
            self._read = lambda: values[widget.currentIndex]
            self._write = lambda value: widget.setCurrentIndex(values.index(value))
            self._signal = widget.currentIndexChanged
        elif isinstance(widget, (StandInSliderWidget, qt.QSpinBox)) and kind in (int, float):
            for annotation in field.annotations:
                if isinstance(annotation, WithinRange):
                    widget.minimum, widget.maximum = annotation.minimum, annotation.maximum
            self._read, self._write = (lambda: kind(widget.value)), widget.setValue
            self._signal = widget.valueChanged
        else:
            raise RuntimeError(f"{field.name} cannot be bound to a {type(widget).__name__}")
        self._slot = lambda *_: changed()
        self.show = self._write
        self.value = self._read
        self._signal.connect(self._slot)

    def end(self) -> None:
        """Let go of the widget."""
        self._signal.disconnect(self._slot)


def parameterNodeWrapper(kind: type) -> type:
    """For slicer.parameterNodeWrapper.parameterNodeWrapper: typed attributes on a parameter node."""
    parameters = {name: Field(name, annotation) for name, annotation in kind.__annotations__.items()}

    def init(self: Any, parameterNode: Any) -> None:
        self.parameterNode = parameterNode
        self._bindings, self._showing = {}, False

    def connectGui(self: Any, gui: Any) -> int:
        bindings: list[Binding] = []
        for widget in list(vars(gui).values()):
            name = widget.property("SlicerParameterName")
            if not name:
                continue
            if name not in parameters:
                raise ValueError(f"There is no parameter {name}")
            binding = Binding(parameters[name], widget, lambda name=name: changed(name))
            bindings.append(binding)

        def changed(name: str) -> None:
            if not self._showing:
                binding = next(found for found in bindings if found.field.name == name)
                setattr(self, name, binding.value())

        def show(*_arguments: Any) -> None:
            if self._showing:
                return
            self._showing = True
            try:
                for binding in bindings:
                    binding.show(getattr(self, binding.field.name))
            finally:
                self._showing = False

        show()
        tag = self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, show)
        self._bindings[tag] = bindings
        return int(tag)

    def disconnectGui(self: Any, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)
        for binding in self._bindings.pop(tag):
            binding.end()

    kind.__init__ = init  # type: ignore[misc]
    kind.connectGui, kind.disconnectGui = connectGui, disconnectGui  # type: ignore[attr-defined]
    kind.__getattr__ = lambda self, name: getattr(self.__dict__["parameterNode"], name)  # type: ignore[attr-defined]
    for name, found in parameters.items():
        setattr(kind, name, property(
            lambda self, found=found: found.read(self.parameterNode),
            lambda self, value, found=found: found.write(self.parameterNode, value),
        ))  # fmt: skip
    return kind


def modules() -> dict[str, types.ModuleType]:
    """The stand-in modules by their names in the package `slicer`."""
    contents: dict[str, dict[str, Any]] = {
        "i18n": {"tr": tr, "translate": translate},
        "ScriptedLoadableModule": {
            "ScriptedLoadableModule": ScriptedLoadableModule,
            "ScriptedLoadableModuleWidget": ScriptedLoadableModuleWidget,
            "ScriptedLoadableModuleLogic": ScriptedLoadableModuleLogic,
            "ScriptedLoadableModuleTest": ScriptedLoadableModuleTest,
        },
        "parameterNodeWrapper": {
            "parameterNodeWrapper": parameterNodeWrapper, "Default": Default, "WithinRange": WithinRange,
        },
    }  # fmt: skip
    made = {}
    for name, content in contents.items():
        module = types.ModuleType(f"slicer.{name}")
        vars(module).update(content)
        made[name] = module
    return made
