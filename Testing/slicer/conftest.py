"""Lets the tests of this folder import their helpers; the folder's own name would be taken for Slicer's package."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
with contextlib.suppress(ImportError):  # before pytest gives the name `slicer` to this folder
    import slicer.util  # noqa: F401
