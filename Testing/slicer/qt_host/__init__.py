"""A small host for the panel, without Slicer's application.

It is made of Slicer's own MRML core, rendering and `slicer.util`, PySide6 in the manner of Slicer's Qt bindings, and
stand-ins for what only the application has: CTK and qMRML widgets, the application object, and the Python layer (or
Slicer's own files in its place, if SLICER_BASE_PYTHON names their folder).
"""

from qt_host.host import Host

__all__ = ["Host"]
