"""The headless module D3MTraining: what Slicer reads of it, its own tests, and how a step ends otherwise."""

from __future__ import annotations

import sys
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from qt_host import Host  # noqa: E402


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """An application with the module loaded."""
    with Host() as host:
        assert host.openModule("D3MTraining") is None, "it has no widget"
        yield host


@pytest.fixture
def training(host: Host, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module's file as Slicer has imported it."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return sys.modules["D3MTraining"]


def test_what_slicer_reads(host: Host) -> None:
    """Hidden, in our category, with help and citation, and loaded after the module whose library it uses."""
    parent = slicer.modules.d3mtraining.parent
    assert parent.hidden is True
    assert parent.widgetRepresentationCreationEnabled is False
    assert parent.categories == ["Image Synthesis"]
    assert parent.dependencies == ["D3MSynthesis"]
    assert "MICCAI 2025" in parent.acknowledgementText
    assert "research use only" in parent.helpText


@pytest.mark.long
@pytest.mark.parametrize("name", ["test_fromFilesToModel", "test_cancel"])
def test_own_tests(training: Any, name: str) -> None:
    """The tests that a person runs in Slicer pass here: a whole training on patients made from the sample case."""
    result = unittest.TestResult()
    training.D3MTrainingTest(name).run(result)
    assert result.testsRun == 1
    assert not result.failures + result.errors, "\n".join(text for _, text in result.failures + result.errors)


def test_run_test_runs_them_all(training: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slicer calls `runTest` alone; no test is forgotten there."""
    names = [name for name in vars(training.D3MTrainingTest) if name.startswith("test")]
    called: list[str] = []
    for name in names:
        monkeypatch.setattr(training.D3MTrainingTest, name, lambda self, name=name: called.append(name))
    training.D3MTrainingTest("runTest").runTest()
    assert sorted(called) == sorted(names)


def test_a_fault_of_the_data_is_told_with_its_mend(training: Any, tmp_path: Path) -> None:
    """What the training's command line refuses becomes an error with kind, sentence and hint, not an exit code."""
    logic = training.D3MTrainingLogic()
    with pytest.raises(Exception, match="BraTS") as caught:
        logic.prepare(tmp_path, tmp_path / "cache")
    assert (type(caught.value).__name__, caught.value.kind) == ("SynthesisError", "input")
    with pytest.raises(Exception, match="cannot be started") as caught:
        logic.prepare(tmp_path, tmp_path / "cache", python=str(tmp_path / "python"))
    assert caught.value.kind == "machine"


def test_packages_that_are_missing(training: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without accelerate the user is told to install first; installing asks for it together with the engine's."""
    from D3MSynthesisLib import Install, Packages

    monkeypatch.setattr(Packages, "loaded", set)  # other tests of this process have imported it
    version = Packages.version
    monkeypatch.setattr(Packages, "version", lambda name: None if name == "accelerate" else version(name))
    with pytest.raises(Exception, match=r"install\(\) first"):
        training.D3MTrainingLogic().prepare(tmp_path, tmp_path / "cache")
    asked: list[str] = []
    with pytest.raises(Exception, match="did not agree"):
        training.D3MTrainingLogic.install(lambda question: bool(asked.append(question)))
    assert "accelerate" in asked[0]
    assert "nibabel" not in asked[0]
    assert Install.incomplete(*training._requirements())


def test_one_step_at_a_time(training: Any, tmp_path: Path) -> None:
    """A step that is started from another's progress is refused; the error ends the first, and no process is left."""
    logic = training.D3MTrainingLogic()
    data = training._patients(tmp_path / "data")

    def again(_event: object) -> None:
        logic.export(tmp_path / "run", tmp_path / "model")

    with pytest.raises(Exception, match="already running"):
        logic.prepare(data, tmp_path / "cache", progress=again)
    assert logic._worker is None
    assert not (tmp_path / "model").exists()
