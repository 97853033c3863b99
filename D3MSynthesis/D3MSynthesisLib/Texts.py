"""Translation of texts; Slicer's MRML core by itself has none, and the parts that need no window run there too."""

try:
    from slicer.i18n import tr as _
except ImportError:

    def _(text: str) -> str:
        """The text as it is."""
        return text


__all__ = ["_"]
