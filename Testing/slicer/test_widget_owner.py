"""The panel and results of several patients: whose mask, whose result, whose views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from slicer_helpers import MadeOutput, fake_engine, save

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from panel_helpers import (  # noqa: E402
    SCANS,
    background,
    choose,
    examination,
    opened,
    press,
    scans,
    slow,
    smith_and_jones,
)
from qt_host import Host  # noqa: E402

from D3MSynthesisLib import Captions, Seen  # noqa: E402


@pytest.mark.parametrize("who", ["jones", "smith", ""])
def test_a_file_beside_scans_of_a_dicom_patient(host: Host, made: MadeOutput, who: str) -> None:
    """Named for somebody else, by hand chosen: the result says so, and a comparison asks."""
    panel = host.openModule("D3MSynthesis").panel
    panel.logic._engine = fake_engine(made.folder.parent / "engine", "finish", made.folder)
    nodes = scans(made, "5: t1_mprage", "6: t2_tse")
    examination("SMITH", nodes)
    flair, t1c = scans(made, *(f"{who}_{kind}".strip("_") for kind in ("FLAIR", "T1c")))
    choose(panel, [*nodes, flair])
    host.settle()
    press(host, panel)
    assert ("whose they are" in " ".join(panel.result.nodes.notices)) is (who == "jones")
    asked: list[str] = []
    panel.confirm = lambda text: asked.append(text) or False
    panel.parameters.reference = t1c
    panel.ui.compareButton.click()
    assert bool(asked) is (who == "jones")


def test_a_real_scan_of_another_examination_is_told_with_its_numbers(host: Host, made: MadeOutput) -> None:
    """The box allows it; the numbers say it as long as they are shown."""
    panel = host.openModule("D3MSynthesis").panel
    panel.logic._engine = fake_engine(made.folder.parent / "engine", "finish", made.folder)
    first = scans(made, "5: t1_mprage", "6: t2_tse", "7: t2_flair", "9: t1_mprage km")
    examination("SMITH", first, "2020")
    later = scans(made, "9: t1_mprage km")
    examination("SMITH", later, "2021")
    choose(panel, first[:3])
    host.settle()
    press(host, panel)
    panel.parameters.acrossStudies = True
    for real in (first[3], later[0]):
        panel.parameters.reference = real
        panel.ui.compareButton.click()
        assert panel.ui.errorLabel.text == ""
        panel.parameters.reference = None
        table = panel.ui.comparisonTable
        told = " ".join(table.item(row, 0).text() for row in range(table.rowCount))
        assert ("another examination" in told) is (real is later[0])


@pytest.mark.parametrize("copied", [False, True])
def test_a_mask_of_another_patients_result_is_refused(host: Host, made: MadeOutput, copied: bool) -> None:
    """Smith's predicted mask is none to synthesize from for Jones; another result's of Jones is one."""
    panel, smith = smith_and_jones(host, made)
    first = panel.result.nodes
    press(host, panel)
    assert first.t1.GetName() == "jones_t1"
    mask = smith.segmentation
    if copied:
        mask = host.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", smith.segmentation.GetName())
        mask.GetSegmentation().DeepCopy(smith.segmentation.GetSegmentation())
    panel.parameters.enhancementMask = mask
    host.settle()
    count = panel.ui.runBox.count
    panel.ui.steerButton.click()
    host.until(lambda: not panel.logic.running, 30)
    assert "another patient" in panel.ui.errorLabel.text
    assert panel.ui.runBox.count == count
    panel.parameters.enhancementMask = first.segmentation
    panel.ui.steerButton.click()
    host.until(lambda: not panel.logic.running, 30)
    assert panel.ui.errorLabel.text == ""
    assert panel.ui.runBox.count == count + 1
    assert not any("another T1" in notice for notice in panel.result.nodes.notices)


def test_a_mask_of_nobody_knows_whose_result_is_told(host: Host, made: MadeOutput) -> None:
    """Where names say nothing, the mask is taken, and the result says that it may be another patient's."""
    panel = opened(host, made, SCANS)
    press(host, panel)
    other = panel.result.nodes
    choose(panel, scans(made, "T1", "T2", "FLAIR"))
    host.settle()
    press(host, panel)
    panel.parameters.enhancementMask = other.segmentation
    host.settle()
    panel.ui.steerButton.click()
    host.until(lambda: not panel.logic.running, 30)
    assert any("another T1" in notice for notice in panel.result.nodes.notices), panel.ui.errorLabel.text


@pytest.mark.parametrize(
    ("flair", "told"), [("smith_flair", True), ("jones_flair", False), ("jones_sag_space_flair_4", False)]
)
def test_a_result_of_scans_with_names_of_two_patients_says_so(
    host: Host, made: MadeOutput, flair: str, told: bool
) -> None:
    """The inputs fold away after a run, and a scene is opened by others: the result itself tells it, without a name."""
    panel = opened(host, made, ("jones_t1", "jones_ax_t2", flair))
    assert ("different patients" in panel.ui.whoseLabel.text) is told
    press(host, panel)
    assert ("different patients" in panel.ui.noticesLabel.text) is told
    assert "smith" not in panel.ui.noticesLabel.text


def test_a_result_whose_t1_is_gone_says_whose_it_is(host: Host, made: MadeOutput) -> None:
    """Under another T1 the volume never stands alone, also after the module was left."""
    panel = opened(host, made, ("smith_t1", "smith_t2", "smith_flair"))
    press(host, panel)
    host.scene.RemoveNode(panel.parameters.t1)
    choose(panel, scans(made, "jones_t1", "jones_t2", "jones_flair"))
    host.settle()
    assert "result of smith_t1" in panel.ui.volumeLabel.text
    panel.exit()
    panel.enter()
    host.settle()
    assert "result of smith_t1" in panel.ui.volumeLabel.text


def test_numbers_beside_another_result_in_the_views_say_so(host: Host, made: MadeOutput) -> None:
    """Who picks Smith's image in a view by hand reads Jones's volume beside it; back again nothing is said."""
    panel, smith = smith_and_jones(host, made)
    jones, told = panel.result.nodes, "views show another result"
    assert told not in panel.ui.volumeLabel.text
    slicer.util.setSliceViewerLayers(background=smith.cemri)
    host.settle()
    assert f"{told}: smith_t1 synthetic CEMRI." in panel.ui.volumeLabel.text
    for image in (jones.t1, jones.subtraction):
        slicer.util.setSliceViewerLayers(background=image)
        host.settle()
        assert told not in panel.ui.volumeLabel.text
    panel.result.onRun(1)
    host.settle()
    assert told not in panel.ui.volumeLabel.text


def test_numbers_beside_a_result_from_a_file_say_so(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """A saved synthetic image, which no run of the scene has made, lies in the views; the run's own parts say nothing.

    What Slicer makes of the run's own image has its name, and is no other result.
    """
    panel = opened(host, made)
    press(host, panel)
    nodes, told = panel.result.nodes, "views show another result"
    save(tmp_path / "synthetic_cemri.nii.gz", made.cemri, made.matrix)
    image = slicer.util.loadVolume(str(tmp_path / "synthetic_cemri.nii.gz"))
    slicer.util.setSliceViewerLayers(background=image)
    host.settle()
    assert f"{told}: synthetic_cemri." in panel.ui.volumeLabel.text
    (cropped,) = scans(made, f"{nodes.cemri.GetName()} cropped")
    for other in (nodes.t1, nodes.cemri, cropped):
        slicer.util.setSliceViewerLayers(background=other)
        host.settle()
        assert told not in panel.ui.volumeLabel.text
    slicer.util.setSliceViewerLayers(background=nodes.t1, foreground=image, foregroundOpacity=0.5)
    host.settle()
    assert f"{told}: synthetic_cemri." in panel.ui.volumeLabel.text


@pytest.mark.parametrize(
    ("owner", "name", "prefix", "silent"),
    [("jones", "jones_seg", "smith_", False), ("jones", "seg", "", False), ("smith", "smith_seg", "smith_", True),
     ("smith", "seg", "", True)],
)  # fmt: skip
def test_a_mask_over_a_result_whose_t1_is_gone(
    host: Host, made: MadeOutput, tmp_path: Path, owner: str, name: str, prefix: str, silent: bool
) -> None:
    """Smith's scans were removed: name and folder of his T1 are kept with his result, and Jones's tumour is told."""
    panel = host.openModule("D3MSynthesis").panel
    panel.logic._engine = fake_engine(tmp_path / "engine", "finish", made.folder)
    for who in ("smith", "jones"):
        (tmp_path / who).mkdir()
    for scan in SCANS:
        save(tmp_path / "smith" / f"{prefix}{scan}.nii.gz", made.t1, made.matrix)
        setattr(panel.parameters, scan, slicer.util.loadVolume(str(tmp_path / "smith" / f"{prefix}{scan}.nii.gz")))
    host.settle()
    press(host, panel)
    for scan in SCANS:
        host.scene.RemoveNode(getattr(panel.parameters, scan))
    path = tmp_path / owner / f"{name}.nii.gz"
    save(path, (made.t1 > 60).astype(np.uint8), made.matrix)
    mask = slicer.util.loadSegmentation(str(path))
    mask.CreateDefaultDisplayNodes()
    host.settle()
    panel.result.onRun(0)
    host.settle()
    assert bool(mask.GetDisplayNode().GetVisibility()) is silent
    mask.GetDisplayNode().SetVisibility(True)
    assert ("of another patient" in Captions.strangeCaption(host.scene, "Red")) is not silent


@pytest.mark.parametrize("owner", ["Doe", "Poe"])
def test_a_saved_mask_over_a_result_whose_dicom_scans_are_gone(
    host: Host, made: MadeOutput, tmp_path: Path, owner: str
) -> None:
    """The examination is that of the result's folder in the data tree: Doe's own saved mask is no stranger."""
    panel = opened(host, made, ("5: t1_mprage", "6: t2_tse", "7: t2_flair"))
    examination(owner, [getattr(panel.parameters, scan) for scan in SCANS])
    press(host, panel)
    panel.ui.saveFolder.directory = str(tmp_path)
    panel.ui.saveButton.click()
    path = Path(panel.ui.savedLabel.text.split("in ", 1)[1]) / "enhancement.seg.nrrd"
    host.clear()
    choose(panel, nodes := scans(made, "5: t1_mprage", "6: t2_tse", "7: t2_flair"))
    examination("Doe", nodes)
    host.settle()
    press(host, panel)
    panel.ui.thresholdSlider.setValue(0.8)  # else the mask is the run's own by its voxels
    for node in nodes:
        host.scene.RemoveNode(node)
    mask = slicer.util.loadSegmentation(str(path))
    host.settle()
    panel.result.onRun(0)
    host.settle()
    assert bool(mask.GetDisplayNode().GetVisibility()) is (owner == "Doe")


def test_an_ending_run_leaves_another_patients_result_in_the_views(host: Host, made: MadeOutput) -> None:
    """No T1 is chosen and Smith's synthetic image is looked at: Jones's result waits in the list."""
    panel = opened(host, made, ("smith_t1", "smith_t2", "smith_flair"))
    press(host, panel)
    smith = panel.result.nodes
    choose(panel, scans(made, "jones_t1", "jones_t2", "jones_flair"))
    host.settle()
    engine = slow(host, panel, made)
    panel.parameters.t1 = None
    slicer.util.setSliceViewerLayers(background=smith.cemri)
    host.settle()
    (engine / "go.txt").write_text("")
    host.until(lambda: not panel.logic.running, 20)
    assert background(host) is smith.cemri
    assert panel.ui.runBox.count == 2


@pytest.mark.parametrize("turned", [True, False])
def test_a_picture_from_a_mask_leaves_another_patients_result_in_the_views(
    host: Host, made: MadeOutput, turned: bool
) -> None:
    """Smith's mask is synthesized from while Jones is chosen: who turns to Jones meanwhile goes on looking at him."""
    panel = opened(host, made, ("smith_t1", "smith_t2", "smith_flair"))
    press(host, panel)
    choose(panel, scans(made, "jones_t1", "jones_t2", "jones_flair"))
    host.settle()
    press(host, panel)
    jones = panel.result.nodes
    panel.result.onRun(1)
    smith = panel.result.nodes
    assert smith.t1.GetName() == "smith_t1"
    engine = slow(host, panel, made, panel.ui.steerButton)
    if turned:
        panel.result.onRun(0)
    (engine / "go.txt").write_text("")
    host.until(lambda: not panel.logic.running, 20)
    assert panel.ui.runBox.count == 3
    assert background(host) is panel.result.nodes.cemri
    if turned:
        assert panel.result.nodes.runID == jones.runID
    else:
        assert panel.result.nodes.t1 is smith.t1
        assert panel.result.nodes.runID != smith.runID


def test_scans_that_are_dragged_to_another_patient(host: Host, made: MadeOutput) -> None:
    """The panel names the patient of the data tree as it is now."""
    panel = opened(host, made, ("5: t1", "6: t2", "7: flair"))
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(host.scene)
    for who in ("Doe", "Roe"):
        study = tree.CreateStudyItem(tree.CreateSubjectItem(tree.GetSceneItemID(), who), "MR")
        for scan in SCANS:
            node = getattr(panel.parameters, scan)
            tree.SetItemParent(tree.GetItemByDataNode(node) or tree.CreateItem(tree.GetSceneItemID(), node), study)
        host.settle()
        assert panel.ui.whoseLabel.text == f"Scans of {who}, MR."


def test_results_of_two_patients_with_series_of_one_name(host: Host, made: MadeOutput) -> None:
    """DICOM names series by the protocol: the list of runs, and whose result is looked at, have patient and visit."""
    names = ("5: t1", "6: t2", "7: flair")
    panel = opened(host, made, names)
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(host.scene)
    first = [getattr(panel.parameters, scan) for scan in SCANS]
    second = scans(made, *names)
    for who, nodes in (("Doe", first), ("Roe", second)):
        study = tree.CreateStudyItem(tree.CreateSubjectItem(tree.GetSceneItemID(), who), "MR 2020")
        for node in nodes:
            tree.SetItemParent(tree.GetItemByDataNode(node) or tree.CreateItem(tree.GetSceneItemID(), node), study)
        host.settle()
        choose(panel, nodes)
        host.settle()
        press(host, panel)
    listed = [panel.ui.runBox.itemText(index) for index in range(2)]
    assert ["Roe, MR 2020" in listed[0], "Doe, MR 2020" in listed[1]] == [True, True]
    panel.result.onRun(1)
    host.settle()
    assert "result of 5: t1 (Doe, MR 2020)" in panel.ui.volumeLabel.text


@pytest.mark.parametrize("label", [False, True])
@pytest.mark.parametrize(
    ("owner", "name"),
    [("smith", "smith_tumour"), ("smith", "tumour"), ("jones", "jones_tumour_final"), ("jones", "mask")],
)
def test_a_mask_of_another_patient_by_name_or_folder(
    host: Host, made: MadeOutput, tmp_path: Path, label: bool, owner: str, name: str
) -> None:
    """Smith's tumour does not stay over Jones's result, is told as a brain mask, and asked about as the real tumour."""
    panel = host.openModule("D3MSynthesis").panel
    for who in ("jones", owner):
        (tmp_path / who).mkdir(exist_ok=True)
    for scan in (*SCANS, "t1c"):
        path = tmp_path / "jones" / f"jones_{scan}.nii.gz"
        save(path, made.t1, made.matrix)
        setattr(panel.parameters, "reference" if scan == "t1c" else scan, slicer.util.loadVolume(str(path)))
    path = tmp_path / owner / f"{name}.nii.gz"
    save(path, (made.t1 > 60).astype(np.uint8), made.matrix)
    mask = slicer.util.loadVolume(str(path), {"labelmap": True}) if label else slicer.util.loadSegmentation(str(path))
    mask.CreateDefaultDisplayNodes()
    host.settle()
    strange = owner == "smith"

    def show() -> None:
        if label:
            slicer.util.setSliceViewerLayers(label=mask)
        else:
            mask.GetDisplayNode().SetVisibility(True)

    show()
    panel.logic._engine = fake_engine(tmp_path / "engine", "finish", made.folder)
    press(host, panel)
    composite = Seen.composites(host.scene)[0]
    seen = bool(composite.GetLabelVolumeID()) if label else bool(mask.GetDisplayNode().GetVisibility())
    assert seen is not strange
    show()
    assert (mask.GetName() in Captions.strangeCaption(host.scene, "Red")) is strange
    asked: list[str] = []
    panel.confirm = lambda question: asked.append(question) or False
    panel.parameters.referenceMask = mask
    host.settle()
    panel.ui.compareButton.click()
    assert bool(asked) is strange
    panel.parameters.referenceMask = None
    panel.parameters.brainMask = mask
    host.settle()
    assert ("may be of another patient" in panel.ui.whoseLabel.text) is strange
