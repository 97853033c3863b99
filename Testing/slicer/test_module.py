"""The module as the application sees it: what it says about itself, and its own tests with the default model."""

from __future__ import annotations

import subprocess
import sys
import unittest
from collections.abc import Iterator
from pathlib import Path

import pytest

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from qt_host import Host  # noqa: E402


@pytest.fixture
def host() -> Iterator[Host]:
    """The host."""
    with Host((120, 120)) as found:
        yield found


def test_module_introduces_itself(host: Host) -> None:
    """Title, category, help and thanks are there; the method is cited and the research use said."""
    host.openModule("D3MSynthesis")
    parent = slicer.modules.d3msynthesis.parent
    assert parent.title == "D3M Synthesis"
    assert parent.categories == ["Image Synthesis"]
    assert "research use only" in parent.helpText
    assert "MICCAI 2025" in parent.acknowledgementText


@pytest.mark.long
def test_own_tests_pass_with_the_default_model(host: Host) -> None:
    """What a person runs in Slicer: a result on the sample, the sign of its deformation, the panel."""
    host.openModule("D3MSynthesis")
    sys.modules["D3MSynthesis"].D3MSynthesisTest().runTest()


def test_own_tests_are_skipped_without_torch(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the engine's packages are missing, as in the build factory, the tests are skipped and say why."""
    host.openModule("D3MSynthesis")
    from D3MSynthesisLib import Install

    monkeypatch.setattr(Install, "torchMissing", lambda: True)
    tests = sys.modules["D3MSynthesis"].D3MSynthesisTest()
    with pytest.raises(unittest.SkipTest, match="torch"):
        tests.runTest()


def test_opening_the_module_loads_nothing_heavy() -> None:
    """Slicer imports every module at its start: torch is loaded neither then nor by the panel."""
    here = Path(__file__).resolve().parent
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]; from qt_host import Host\n"
        "with Host((60, 60)) as host: host.openModule('D3MSynthesis')\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'monai', 'nibabel', 'safetensors'}))"
    )
    folders = [str(here), str(here.parents[1] / "D3MSynthesis")]
    done = subprocess.run([sys.executable, "-c", code, *folders], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr[-2000:]
