"""PySide6 in the manner of PythonQt, Slicer's Qt bindings.

A property is an attribute (`button.text`, `box.enabled`), its setter stays (`button.setText`), and signals are
connected by their C++ signatures (`connect("clicked(bool)", slot)`). What a slot raises is printed, and the application
goes on (commontk/PythonQt, branch patched-9, PythonQtSignalReceiver.cpp, lines 62 to 139); a slot that takes
`*arguments` is given all that the signal has (lines 74 to 78).
"""

from __future__ import annotations

import functools
import os
import types
from collections.abc import Callable
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

KEPT = {"objectName", "sizeHint", "minimumSizeHint"}
"""Properties that stay methods: Qt calls the size hints itself, the name has its own property below."""
GETTERS = {
    "enabled": "isEnabled", "visible": "isVisible", "checked": "isChecked", "checkable": "isCheckable",
    "readOnly": "isReadOnly", "down": "isDown", "flat": "isFlat", "textVisible": "isTextVisible",
}  # fmt: skip
"""Properties whose reader is not called like them."""


class Bound:
    """What every object of the bindings has."""

    def __getattribute__(self, name: str) -> Any:
        """Signals by signature; PySide finds its own `connect` past a base class's method, so it is caught here."""
        found = super().__getattribute__(name)
        if name not in ("connect", "disconnect"):
            return found

        def by_signature(first: Any, *rest: Any) -> Any:
            if isinstance(first, str) and not first.startswith("2"):  # PySide's signals use the other form themselves
                signal = super(Bound, self).__getattribute__(first.split("(")[0])
                return getattr(signal, name)(*rest)
            return found(first, *rest)

        return by_signature

    @property
    def name(self) -> str:
        """The object's name."""
        return QtCore.QObject.objectName(self)

    objectName = name

    def className(self) -> str:
        """The C++ class that this is, or stands in for."""
        return type(self).__name__


def _property(base: type, name: str) -> property:
    reader = getattr(base, GETTERS.get(name, name), None)
    writer = getattr(base, "set" + name[0].upper() + name[1:], None)

    def read(self: Any) -> Any:
        return reader(self) if callable(reader) else QtCore.QObject.property(self, name)

    def write(self: Any, value: Any) -> None:
        if writer is not None:
            writer(self, value)
        else:
            QtCore.QObject.setProperty(self, name, value)

    return property(read, write)


@functools.cache
def bound(base: type) -> type:
    """The class of the bindings for a class of PySide6."""
    meta = base.staticMetaObject
    names = {meta.property(index).name() for index in range(meta.propertyCount())} - KEPT
    return type(base)(base.__name__, (Bound, base), {name: _property(base, name) for name in sorted(names)})


def adopt(widget: Any, event: QtCore.QEvent, names: tuple[str, ...]) -> None:
    """Properties that PySide does not know and the .ui file sets arrive as dynamic ones: hand them to the stand-in."""
    if event.type() == QtCore.QEvent.Type.DynamicPropertyChange:
        name = bytes(event.propertyName().data()).decode()
        if name in names:
            setattr(widget, name, QtCore.QObject.property(widget, name))


@functools.cache
def qt_module() -> types.ModuleType:
    """The module that the code under test imports as `qt`."""
    module = types.ModuleType("qt")
    for source in (QtCore, QtGui, QtWidgets):
        for name in dir(source):
            if name.startswith("Q") and name != "QApplication":
                setattr(module, name, getattr(source, name))
    kinds = (QtWidgets.QWidget, QtWidgets.QLayout, QtCore.QProcess, QtGui.QShortcut)
    for name, found in list(vars(module).items()):
        if isinstance(found, type) and issubclass(found, kinds) and found is not QtWidgets.QLayout:
            setattr(module, name, bound(found))
    module.QApplication = QtWidgets.QApplication  # type: ignore[attr-defined]
    module.QUiLoader = UiLoader  # type: ignore[attr-defined]
    return module


class UiLoader(QtUiTools.QUiLoader):
    """Makes widgets of the bindings' classes, and the stand-ins that were registered."""

    classes: dict[str, Callable[[Any], Any]] = {}  # noqa: RUF012 - shared by all loaders, as custom widgets are
    alive: list[Any] = []  # noqa: RUF012 - PySide would let go of a loaded panel that only C++ holds

    def createWidget(self, name: str, parent: Any = None, object_name: str = "") -> Any:
        """One widget of the .ui file."""
        make = self.classes.get(name) or getattr(qt_module(), name, None)
        if make is None:
            raise ValueError(f"The panel uses {name}, for which there is no stand-in.")
        widget = make(parent)
        widget.setObjectName(object_name)
        return widget

    def createLayout(self, name: str, parent: Any = None, object_name: str = "") -> Any:
        """One layout of the .ui file."""
        make = getattr(qt_module(), name)
        layout = make(parent) if parent is not None and parent.layout() is None else make()
        layout.setObjectName(object_name)
        return layout

    def load(self, file: Any, parent: Any = None) -> Any:
        """The whole panel."""
        panel = super().load(file, parent)
        self.alive.append(panel)
        return panel
