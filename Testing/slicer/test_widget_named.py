"""What is shown is called what it is: kinds of uncertainty, another date, copies for export."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from slicer_helpers import MadeOutput, fake_engine, save, write_provenance

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from panel_helpers import SCANS, choose, opened, press, scans, smith_and_jones  # noqa: E402
from qt_host import Host  # noqa: E402

from d3m.models.expected_error import EXPECTED_ERROR, SPREAD  # noqa: E402


def two_dates(made: MadeOutput, folder: Path) -> dict[tuple[str, str], object]:
    """Smith's scans of 2019 and of 2021, as files of equal names in a folder for each date."""
    found = {}
    for year, add in (("2019", 0), ("2021", 20)):
        for name in (*SCANS, "t1c"):
            path = folder / "smith" / year / f"smith_{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            save(path, made.t1 + add, made.matrix)
            found[year, name] = slicer.util.loadVolume(str(path))
    return found


@pytest.mark.parametrize("kind", [SPREAD, EXPECTED_ERROR])
def test_the_spread_of_samples_is_not_called_an_error(host: Host, made: MadeOutput, kind: str) -> None:
    """A model whose card knows no expected error gives by how much its samples differ: panel and legend say so."""
    save(made.folder / "uncertainty.nii.gz", (np.abs(made.cemri) * 0.05).astype(np.float32), made.matrix)
    path = made.folder / "provenance.json"
    path.unlink()
    write_provenance(made.folder)
    content = json.loads(path.read_text())
    content["uncertainty"] = f"{kind}, in T1's units"
    path.write_text(json.dumps(content))
    panel = opened(host, made)
    press(host, panel)
    panel.ui.overlayBox.setCurrentIndex(3)
    host.settle()
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(panel.result.nodes.uncertainty)
    assert ("samples differ" in legend.GetTitleText()) == (kind == SPREAD)
    assert ("samples differ" in panel.ui.pictureLabel.text) == (kind == SPREAD)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_real_scan_of_another_date_is_asked_about(host: Host, made: MadeOutput, tmp_path: Path, when: str) -> None:
    """Files of equal names in a folder for each date: 2019's T1c is not compared with 2021's result in silence."""
    panel = host.openModule("D3MSynthesis").panel
    asked: list[str] = []
    panel.confirm = lambda question: bool(asked.append(question))  # no
    panel.logic._engine = fake_engine(tmp_path / "engine", "finish", made.folder)
    found = two_dates(made, tmp_path)
    host.settle()
    choose(panel, [found["2021", name] for name in SCANS])
    host.settle()
    if when == "before":
        panel.parameters.reference = found["2019", "t1c"]
    press(host, panel)
    panel.parameters.reference = found["2019", "t1c"]
    host.settle()
    panel.ui.compareButton.click()
    if when == "after":
        assert len(asked) == 1
        assert panel.result.nodes.comparison is None
    asked.clear()
    panel.parameters.reference = found["2021", "t1c"]
    host.settle()
    panel.ui.compareButton.click()
    assert asked == []
    assert panel.result.nodes.comparison is not None


def test_the_last_dates_real_scan_does_not_stay(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """T1 becomes the one of 2021: 2019's T1c, which was chosen for it, does not stay chosen."""
    panel = host.openModule("D3MSynthesis").panel
    found = two_dates(made, tmp_path)
    choose(panel, [found["2019", name] for name in SCANS])
    panel.parameters.reference = found["2019", "t1c"]
    host.settle()
    panel.parameters.t1 = found["2021", "t1"]
    host.settle()
    assert panel.parameters.reference is not found["2019", "t1c"]


def test_copies_are_marked_for_slicers_own_exporter(host: Host, made: MadeOutput) -> None:
    """A clone, a crop and a file of a result: the exporter finds the mark, and not the modality CT."""
    panel = opened(host, made)
    press(host, panel)
    cemri = panel.result.nodes.cemri
    clone = host.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "x")
    clone.CopyContent(cemri)
    clone.SetName(cemri.GetName() + " Copy")
    copies = [
        clone,
        *scans(made, cemri.GetName() + " cropped"),
        slicer.util.loadVolume(str(made.folder / "cemri.nii.gz")),
    ]
    (own,) = scans(made, "acquired")
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(host.scene)
    for node in (*copies, own):  # the application makes the items at once
        if not tree.GetItemByDataNode(node):
            tree.CreateItem(tree.GetSceneItemID(), node)
    host.settle()
    host.settle()
    for node in copies:
        item = tree.GetItemByDataNode(node)
        assert tree.GetItemAttribute(item, "DICOM.Modality") == "OT", node.GetName()
        assert "SYNTHETIC" in tree.GetItemAttribute(item, "DICOM.SeriesDescription").upper()
    assert not tree.GetItemAttribute(tree.GetItemByDataNode(own), "DICOM.SeriesDescription")


def test_a_rendering_of_the_last_patient_is_hidden(host: Host, made: MadeOutput) -> None:
    """Smith's T1 is rendered in 3-D; when Jones's result comes it is not to be seen beside that."""
    panel = opened(host, made, ("smith_t1", "smith_t2", "smith_flair"))
    kind = "vtkMRMLGPURayCastVolumeRenderingDisplayNode"
    host.scene.RegisterNodeClass(getattr(slicer, kind)())
    display = host.scene.AddNewNodeByClass(kind)
    panel.parameters.t1.AddAndObserveDisplayNodeID(display.GetID())
    display.SetVisibility(True)
    choose(panel, scans(made, "jones_t1", "jones_t2", "jones_flair"))
    host.settle()
    press(host, panel)
    assert not display.GetVisibility()


def test_views_that_nobody_sees_do_not_count(host: Host, made: MadeOutput) -> None:
    """Red is the only view on the screen and shows Smith, hidden ones still hold Jones: his numbers say so."""
    panel, smith = smith_and_jones(host, made)
    host.views["Red"].node.SetMappedInLayout(1)
    told = "views show another result"
    assert told not in panel.ui.volumeLabel.text
    host.views["Red"].logic.GetSliceCompositeNode().SetBackgroundVolumeID(smith.cemri.GetID())
    host.settle()
    assert told in panel.ui.volumeLabel.text
    host.views["Red"].logic.GetSliceCompositeNode().SetBackgroundVolumeID(panel.result.nodes.cemri.GetID())
    host.settle()
    assert told not in panel.ui.volumeLabel.text
