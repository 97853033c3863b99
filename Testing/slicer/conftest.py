"""Lets the tests of this folder import their helpers; the folder's own name would be taken for Slicer's package."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from qt_host import Host
    from slicer_helpers import MadeOutput

sys.path.append(str(Path(__file__).parent))
with contextlib.suppress(ImportError):  # before pytest gives the name `slicer` to this folder
    import slicer.util  # noqa: F401


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """The application's stand-in, with the user's folder of models in a place of its own."""
    pytest.importorskip("slicer")
    pytest.importorskip("PySide6.QtUiTools")
    from qt_host import Host

    monkeypatch.setenv("D3M_MODELS", str(tmp_path / "models"))
    with Host((120, 120)) as found:
        yield found


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOutput:
    """Written and packed once; each test has a copy."""
    from slicer_helpers import make_output

    return make_output(tmp_path_factory.mktemp("once") / "made")


@pytest.fixture
def made(tmp_path: Path, made_once: MadeOutput) -> MadeOutput:
    """What the engine is going to write."""
    return dataclasses.replace(deepcopy(made_once), folder=shutil.copytree(made_once.folder, tmp_path / "made"))
