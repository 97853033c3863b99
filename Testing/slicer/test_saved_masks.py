"""Masks and images of saved results: their provenance says whose they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from slicer_helpers import MadeOutput, save

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from panel_helpers import SCANS, choose, dicom, panel_of, press, read, scans, steered, store  # noqa: E402
from qt_host import Host  # noqa: E402

from D3MSynthesisLib import Captions  # noqa: E402


def savedMask(host: Host, panel: object, folder: Path) -> Path:
    """The file of the mask of a run, saved with a threshold of its own; the scene is closed."""
    press(host, panel)
    panel.ui.thresholdSlider.setValue(0.8)
    folder.mkdir(exist_ok=True)
    panel.ui.saveFolder.directory = str(folder)
    panel.ui.saveButton.click()
    path = Path(panel.ui.savedLabel.text.split("in ", 1)[1]) / "enhancement.seg.nrrd"
    host.clear()
    return path


def test_the_saved_mask_of_another_patient(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """Doe's saved mask does not stay over Poe's result, and is told before and after Poe's picture is made from it."""
    panel = panel_of(host, made, tmp_path)
    dicom(host, made, "Doe")
    path = savedMask(host, panel, tmp_path / "saved")
    dicom(host, made, "Poe")
    mask = slicer.util.loadSegmentation(str(path))
    host.settle()
    press(host, panel)
    assert not mask.GetDisplayNode().GetVisibility()
    mask.GetDisplayNode().SetVisibility(True)
    assert mask.GetName() in Captions.strangeCaption(host.scene, "Red")
    before, notices = steered(host, panel, mask)
    assert "another examination than T1" in before
    assert any("another examination than T1" in notice for notice in notices)
    assert not any("Doe" in notice for notice in notices)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_ones_own_saved_mask(host: Host, made: MadeOutput, tmp_path: Path, elsewhere: bool) -> None:
    """Doe's mask beside Doe's scans again is his without a word, also after it was saved elsewhere."""
    panel = panel_of(host, made, tmp_path)
    dicom(host, made, "Doe")
    path = savedMask(host, panel, tmp_path / "saved")
    dicom(host, made, "Doe")
    mask = slicer.util.loadSegmentation(str(path))
    host.settle()
    if elsewhere:
        store(mask, tmp_path / "mine.seg.nrrd")
    press(host, panel)
    assert mask.GetDisplayNode().GetVisibility()
    assert Captions.strangeCaption(host.scene, "Red") == ""
    before, notices = steered(host, panel, mask)
    assert "make sure" not in " ".join([before, *notices, panel.ui.whoseLabel.text])


@pytest.mark.parametrize("told", ["provenance without identifiers", "no provenance"])
def test_a_synthesis_mask_of_nobody_knows_whom(host: Host, made: MadeOutput, tmp_path: Path, told: str) -> None:
    """Where the result's folder does not say whose the mask is, it is taken out of the views and doubted."""
    panel = panel_of(host, made, tmp_path)
    dicom(host, made, "Doe")
    path = savedMask(host, panel, tmp_path / "saved")
    if told == "no provenance":
        path = Path(shutil.copy(path, tmp_path))
    else:
        provenance = path.parent / "provenance.json"
        content = json.loads(provenance.read_text(encoding="utf-8"))
        content["identity"]["hashes"] = []
        provenance.write_text(json.dumps(content), encoding="utf-8")
    dicom(host, made, "Poe")
    mask = slicer.util.loadSegmentation(str(path))
    host.settle()
    press(host, panel)
    assert not mask.GetDisplayNode().GetVisibility()
    before, notices = steered(host, panel, mask)
    assert "Nothing says" in before
    assert any("Nothing says" in notice for notice in notices)


def test_the_same_saved_mask_beside_the_run_that_made_it(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """Without identifiers the voxels tell that a mask is what the result's own was made as: it stays in the views."""
    panel = panel_of(host, made, tmp_path)
    choose(panel, scans(made, "T1", "T2", "FLAIR"))
    host.settle()
    press(host, panel)
    panel.ui.saveFolder.directory = str(tmp_path)
    panel.ui.saveButton.click()
    mask = slicer.util.loadSegmentation(panel.ui.savedLabel.text.split("in ", 1)[1] + "/enhancement.seg.nrrd")
    host.settle()
    assert Captions.strangeCaption(host.scene, "Red") == ""
    panel.ui.thresholdSlider.setValue(0.8)
    assert mask.GetName() in Captions.strangeCaption(host.scene, "Red")


@pytest.mark.parametrize(
    ("names", "where", "silent"),
    [("t1 t2 flair", "doe", True), ("doe_t1 doe_t2 doe_flair", "results", True), ("t1 t2 flair", "results", False),
     ("poe_t1 poe_t2 poe_flair", "doe", False)],
)  # fmt: skip
def test_a_saved_mask_of_scans_from_files(
    host: Host, made: MadeOutput, tmp_path: Path, names: str, where: str, silent: bool
) -> None:
    """A result that was saved below its scans, or is called after them, is theirs; elsewhere nothing says it."""

    def read() -> None:
        for scan, name in zip(SCANS, names.split(), strict=True):
            save(tmp_path / "doe" / f"{name}.nii.gz", made.t1, made.matrix)
            setattr(panel.parameters, scan, slicer.util.loadVolume(str(tmp_path / "doe" / f"{name}.nii.gz")))
        host.settle()

    (tmp_path / "doe").mkdir()
    panel = panel_of(host, made, tmp_path)
    read()
    path = savedMask(host, panel, tmp_path / where)
    if not silent and where == "doe":  # another's result in this patient's folder
        path = path.parent.rename(path.parent.with_name("smith_t1_synthetic_CEMRI")) / path.name
    read()
    mask = slicer.util.loadSegmentation(str(path))
    host.settle()
    press(host, panel)
    assert bool(mask.GetDisplayNode().GetVisibility()) is silent
    before, notices = steered(host, panel, mask)
    assert ("make sure" not in before) is silent
    assert any("make sure" in notice for notice in notices) is not silent


@pytest.mark.parametrize("run", [False, True])
def test_saved_results_of_two_patients(host: Host, made: MadeOutput, tmp_path: Path, run: bool) -> None:
    """Poe's saved image or mask over Doe's saved image, or over Doe's run, is told by name; Doe's own is not."""
    saved = {}
    for who in ("doe", "poe"):
        panel = panel_of(host, made, tmp_path / f"of_{who}")
        choose(panel, read(host, made, tmp_path / who, *(f"{who}_{scan}" for scan in SCANS)))
        host.settle()
        saved[who] = savedMask(host, panel, tmp_path / "results").parent
    panel = panel_of(host, made, tmp_path / "again")
    if run:
        choose(panel, read(host, made, tmp_path / "doe", *(f"doe_{scan}" for scan in SCANS)))
        host.settle()
    images, masks = {}, {}
    for who, folder in saved.items():
        images[who] = slicer.util.loadVolume(str(folder / "synthetic_cemri.nrrd"))
        images[who].SetName(f"image {who}")
        masks[who] = slicer.util.loadSegmentation(str(folder / "enhancement.seg.nrrd"))
        masks[who].CreateDefaultDisplayNodes()
        masks[who].SetName(f"mask {who}")
    host.settle()
    if run:
        press(host, panel)
        assert [bool(masks[who].GetDisplayNode().GetVisibility()) for who in ("doe", "poe")] == [True, False]
    seen = panel.result.nodes.cemri if run else images["doe"]
    for other in ("poe", "doe"):
        slicer.util.setSliceViewerLayers(background=seen, foreground=images[other], foregroundOpacity=0.5)
        for who, mask in masks.items():
            mask.GetDisplayNode().SetVisibility(who == other)
        told = Captions.strangeCaption(host.scene, "Red")
        assert told == ("of another patient, examination or run: image poe, mask poe" if other == "poe" else "")


@pytest.mark.parametrize("run", [False, True])
@pytest.mark.parametrize("who", ["Doe", "Poe"])
def test_a_saved_image_over_acquired_scans(host: Host, made: MadeOutput, tmp_path: Path, who: str, run: bool) -> None:
    """Doe's saved synthetic image, mixed with Poe's DICOM scan, is not taken for one patient; with Doe's own it is."""
    panel = panel_of(host, made, tmp_path)
    dicom(host, made, "Doe")
    path = savedMask(host, panel, tmp_path / "saved").with_name("synthetic_cemri.nrrd")
    panel = panel_of(host, made, tmp_path / "again")
    nodes = dicom(host, made, who)
    if run:
        press(host, panel)
    image = slicer.util.loadVolume(str(path))
    host.settle()
    slicer.util.setSliceViewerLayers(background=nodes[2], foreground=image, foregroundOpacity=0.5)
    told = Captions.strangeCaption(host.scene, "Red")
    assert ("of another patient" in told) is (who == "Poe")


@pytest.mark.parametrize("ofSlicer", [False, True])
@pytest.mark.parametrize("who", ["smith", "jones"])
def test_a_saved_image_over_scans_from_files(
    host: Host, made: MadeOutput, tmp_path: Path, who: str, ofSlicer: bool
) -> None:
    """Smith's image, saved by the panel or by Slicer, and mixed with a scan of Jones, is not taken for one patient."""
    panel = panel_of(host, made, tmp_path)
    choose(panel, read(host, made, tmp_path / "scans", *(f"smith_{name}" for name in SCANS)))
    if ofSlicer:  # under the node's name
        press(host, panel)
        path = tmp_path / f"{panel.result.nodes.cemri.GetName()}.nrrd"
        store(panel.result.nodes.cemri, path)
        host.clear()
    else:
        path = savedMask(host, panel, tmp_path / "saved").with_name("synthetic_cemri.nrrd")
    panel_of(host, made, tmp_path / "again")
    nodes = read(host, made, tmp_path / "again", *(f"{who}_{name}" for name in SCANS))
    image = slicer.util.loadVolume(str(path))
    host.settle()
    slicer.util.setSliceViewerLayers(background=nodes[2], foreground=image, foregroundOpacity=0.5)
    assert ("of another patient" in Captions.strangeCaption(host.scene, "Red")) is (who == "jones")
