"""Saving DICOM from the panel: in the background, cancelled, and into Slicer's DICOM database."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from slicer_helpers import fake_engine, make_output

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from qt_host import Host  # noqa: E402


@pytest.fixture
def panel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Host, object]]:
    """The panel with a result of a simulated engine."""
    monkeypatch.setenv("D3M_MODELS", str(tmp_path / "models"))
    made = make_output(tmp_path / "made")
    with Host((120, 120)) as host:
        found = host.openModule("D3MSynthesis").panel
        for number, scan in enumerate(("t1", "t2", "flair")):
            array = np.ascontiguousarray(made.t1.T + number)
            node = slicer.util.addVolumeFromArray(array, ijkToRAS=made.matrix, name=f"p_{scan}")
            setattr(found.parameters, scan, node)
        host.settle()
        found.logic._engine = fake_engine(tmp_path / "engine", "finish", made.folder)
        found.ui.applyButton.click()
        host.until(lambda: not found.logic.running, 60)
        found.ui.dicomBox.setChecked(True)
        (tmp_path / "saved").mkdir()
        found.ui.saveFolder.directory = str(tmp_path / "saved")
        yield host, found


def test_the_panel_is_free_while_dicom_is_written(panel: tuple[Host, object], tmp_path: Path) -> None:
    """The button returns at once; the series is written by the engine's process, and its end is told."""
    host, found = panel
    found.ui.saveButton.click()
    assert found.result.save.export is not None, "it goes on in the background"
    assert "Writing DICOM" in found.ui.savedLabel.text
    assert found.ui.saveButton.text == "Cancel DICOM"
    assert found.ui.pictureBox.enabled
    host.until(lambda: found.result.save.export is None, 120)
    assert found.ui.errorLabel.text == ""
    assert found.ui.saveButton.text == "Save result"
    (saved,) = (tmp_path / "saved").iterdir()
    assert list((saved / "dicom" / "cemri").iterdir())
    assert (saved / "dicom" / "enhancement_seg.dcm").is_file()


@pytest.mark.parametrize("full", [False, True], ids=["taken", "not taken"])
def test_files_enter_the_database_on_request(
    panel: tuple[Host, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    """Who ticks it has the files copied into Slicer's DICOM database; where that fails, that is said."""
    host, found = panel
    calls: list[tuple[str, bool]] = []
    known: dict[str, str] = {}

    def importDicom(dicomDataDir: str, dicomDatabase: object = None, copyFiles: bool = False) -> bool:
        """As the real one: what goes wrong is printed, and it returns False (DICOMUtils.py, lines 490 to 505)."""
        del dicomDatabase
        calls.append((dicomDataDir, copyFiles))
        files = [] if full else Path(dicomDataDir).rglob("*.dcm")
        known.update({str(pydicom.dcmread(file).SOPInstanceUID): str(file) for file in files})
        return not full

    library = types.ModuleType("DICOMLib")
    library.DICOMUtils = types.SimpleNamespace(importDicom=importDicom)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "DICOMLib", library)
    database = types.SimpleNamespace(
        isOpen=True, instanceValue=lambda *_: "", fileForInstance=lambda uid: known.get(uid, "")
    )
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    assert not found.ui.databaseBox.checked, "on request only"
    found.ui.databaseBox.setChecked(True)
    found.ui.saveButton.click()
    host.until(lambda: found.result.save.export is None, 120)
    ((folder, copied),) = calls
    assert copied
    assert Path(folder).is_dir()
    assert str(tmp_path) in folder
    assert ("has not taken the files" if full else "Added to Slicer's DICOM database") in found.ui.savedLabel.text


def test_cancelled_dicom_leaves_nothing(panel: tuple[Host, object], tmp_path: Path) -> None:
    """The volumes are saved, of the DICOM folder nothing is there, and it is told."""
    host, found = panel
    found.ui.saveButton.click()
    found.ui.saveButton.click()
    host.until(lambda: found.result.save.export is None, 30)
    (saved,) = (tmp_path / "saved").iterdir()
    assert not (saved / "dicom").exists()
    assert "cancelled" in found.ui.savedLabel.text
    assert found.ui.errorLabel.text == ""


def test_dicom_without_a_mask_is_refused(panel: tuple[Host, object], tmp_path: Path) -> None:
    """A deleted mask is not written as an empty one; it is told, and the button saves again."""
    host, found = panel
    host.scene.RemoveNode(found.result.nodes.segmentation)
    host.settle()
    found.ui.saveButton.click()
    assert "mask was deleted" in found.ui.errorLabel.text
    assert found.result.save.export is None
    assert found.ui.saveButton.text == "Save result"
    (saved,) = (tmp_path / "saved").iterdir()
    assert not (saved / "dicom").exists()
    found.ui.dicomBox.setChecked(False)
    found.ui.saveButton.click()
    assert len(list((tmp_path / "saved").iterdir())) == 2
