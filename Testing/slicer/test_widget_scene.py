"""The panel and what users do to the scene: odd names, saving, reopening, deleting midway, leaving the module."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from slicer_helpers import MadeOutput, fake_engine, save, write_provenance

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from panel_helpers import SCANS, background, opened, press, slow  # noqa: E402
from qt_host import Host  # noqa: E402


@pytest.mark.parametrize(
    "names",
    [("MR", "MR", "MR"), ('T1/ax: "Ö" [1]*?', "T2 <b> %s {0}", "FLAIR\\..\\x"), ("x" * 300, "山田\n2", "")],
    ids=["equal", "special", "long"],
)
def test_names_of_nodes_are_only_names(
    host: Host, made: MadeOutput, tmp_path: Path, names: tuple[str, str, str]
) -> None:
    """Whatever the nodes are called, the right ones are used, the result is theirs, and the saved scene opens again."""
    panel = opened(host, made, names)
    chosen = [getattr(panel.parameters, scan) for scan in SCANS]
    press(host, panel)
    assert panel.ui.errorLabel.text == ""
    assert [getattr(panel.parameters, scan) for scan in SCANS] == chosen
    result = panel.result.nodes
    assert result.t1 is chosen[0]
    assert "synthetic CEMRI" in result.cemri.GetName()
    np.testing.assert_allclose(slicer.util.arrayFromVolume(result.cemri), made.cemri.T)
    assert host.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    host.clear()
    host.scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    host.settle()
    np.testing.assert_allclose(slicer.util.arrayFromVolume(panel.result.nodes.cemri), made.cemri.T)


def next_patient_during_the_run(host: Host, panel: object, made: MadeOutput, engine: Path) -> list[object]:
    """Scans of the next patient, which are chosen and seen before the run that goes on ends."""
    others = [slicer.util.addVolumeFromArray(made.t1.T + 9, ijkToRAS=made.matrix, name=f"q_{scan}") for scan in SCANS]
    for scan, node in zip(SCANS, others, strict=True):
        setattr(panel.parameters, scan, node)
    slicer.util.setSliceViewerLayers(background=others[0])
    (engine / "go.txt").write_text("")
    host.until(lambda: not panel.logic.running, 20)
    return others


def test_second_run_of_equal_names_is_a_second_result(host: Host, made: MadeOutput) -> None:
    """Two runs of nodes that are all called MR have two results with names of their own."""
    panel = opened(host, made, ("MR", "MR", "MR"))
    press(host, panel)
    press(host, panel)
    names = [panel.ui.runBox.itemText(index) for index in range(panel.ui.runBox.count)]
    assert len(set(names)) == 2
    assert all("standard, tiny" in name for name in names)


def test_result_comes_back_with_a_saved_scene(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """After reopening, the run is in the panel, its steps replay, its deformation is the same, and it can run again."""
    panel = opened(host, made)
    press(host, panel)
    assert host.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    centre = (made.field_matrix @ [14, 16, 10, 1])[:3]  # of a voxel: between voxels Slicer interpolates files otherwise
    point = [float(value) for value in centre]
    before = panel.result.nodes.deformation.GetTransformFromParent().TransformPoint(*point)
    host.clear()
    assert panel.result.nodes is None
    assert not panel.ui.resultsSection.enabled
    host.scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    host.settle()
    nodes, ui = panel.result.nodes, panel.ui
    assert nodes.cemri.GetAttribute("D3M.Synthetic") == "yes"
    assert nodes.t1 is panel.parameters.t1
    after = nodes.deformation.GetTransformFromParent().TransformPoint(*point)
    np.testing.assert_allclose(after, before, atol=1e-4)
    assert np.abs(np.subtract(after, point)).max() > 0.5, "a field that moves nothing would prove nothing"
    assert f"{nodes.enhancingVolumeMl:.1f} ml" in ui.volumeLabel.text
    assert ui.stepSlider.maximum == 3
    ui.stepSlider.setValue(2)
    np.testing.assert_allclose(
        slicer.util.arrayFromVolume(background(host)),
        slicer.util.arrayFromVolume(nodes.stepAfter.GetNthDataNode(1)),
    )
    press(host, panel)
    assert ui.runBox.count == 2


@pytest.mark.parametrize("lost", ["enhancement probability", "synthetic subtraction", "synthetic CEMRI"])
def test_a_scene_that_lacks_a_file(host: Host, made: MadeOutput, tmp_path: Path, lost: str) -> None:
    """A file was not saved, or not sent along: the run is what is left of it, and nothing stays of the one before."""
    panel = opened(host, made)
    press(host, panel)
    whole = panel.ui.volumeLabel.text
    assert host.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    host.clear()
    with zipfile.ZipFile(tmp_path / "scene.mrb") as bundle:
        bundle.extractall(tmp_path)
    (file,) = tmp_path.glob(f"*/Data/p_t1 {lost}.nrrd")
    file.unlink()
    host.scene.SetURL(str(next(tmp_path.glob("*/*.mrml"))))
    host.scene.Connect()
    host.settle(0.6)
    assert panel.ui.runBox.count == (0 if lost == "synthetic CEMRI" else 1)
    assert panel.ui.volumeLabel.text == ("" if lost == "synthetic CEMRI" else whole)


def test_what_was_drawn_is_not_saved(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """What is made for the views alone is not in the scene's file, nor what coloured it."""
    panel = opened(host, made)
    press(host, panel)

    def saved() -> list[str]:
        host.scene.SetURL(str(tmp_path / "scene.mrml"))
        host.scene.Commit()
        text = (tmp_path / "scene.mrml").read_text()
        return sorted(re.findall(r"<(\w+)\s+id=", text))

    before = saved()
    for index in (1, 2, 3, 4, 0):
        panel.ui.deformationBox.setCurrentIndex(index)
    assert panel.result.nodes.drawn is not None
    assert panel.result.nodes.fieldMap is not None
    assert [name for name in saved() if "Legend" not in name] == [name for name in before if "Legend" not in name]


def test_what_is_shown_follows_the_run(host: Host, made: MadeOutput) -> None:
    """The run's folder is put under a transform, node by node as the data tree does: nothing stays where it was."""
    panel = opened(host, made)
    panel.parameters.reference = slicer.util.addVolumeFromArray(made.cemri.T.copy(), ijkToRAS=made.matrix, name="p_t1c")
    press(host, panel)
    nodes, ui = panel.result.nodes, panel.ui
    ui.compareButton.click()
    ui.comparisonButton.click()
    ui.show3DButton.click()
    ui.deformationBox.setCurrentIndex(2)
    ui.deformationBox.setCurrentIndex(4)

    def corner() -> np.ndarray:
        return np.array(nodes.drawn.GetTransformToParent().GetDisplacementGrid().GetOrigin())

    before = corner()
    transform = host.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = np.eye(4)
    matrix[:3, 3] = 30, -20, 10
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    for node in (nodes.cemri, nodes.deformation, nodes.segmentation):
        node.SetAndObserveTransformNodeID(transform.GetID())
        host.settle(0.02)
    np.testing.assert_allclose(corner() - before, matrix[:3, 3], atol=1e-4)
    for node in (nodes.fieldMap, nodes.error, nodes.brain, nodes.browser.GetProxyNode(nodes.stepAfter)):
        assert node.GetTransformNodeID() == transform.GetID(), node.GetName()


def test_another_layout_of_slicer_ends_ours(host: Host, made: MadeOutput) -> None:
    """Who chooses a layout in the toolbar has views as before, all with the picture at the panel's next change."""
    panel = opened(host, made)
    press(host, panel)
    panel.ui.fourUpButton.click()
    panel.ui.contrastsButton.click()
    green = host.views["Green"]
    assert green.node.GetOrientation() == "Axial"
    layout = host.scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    layout.SetViewArrangement(layout.SlicerLayoutFourUpView)
    assert green.node.GetOrientation() == "Coronal"
    panel.ui.overlayBox.setCurrentIndex(2)
    assert green.logic.GetSliceCompositeNode().GetBackgroundVolumeID() == panel.result.nodes.cemri.GetID()


PARTS = ("subtraction", "probability", "segmentation", "deformation", "sample", "browser", "stepBefore", "t1",
         "reference")  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_a_run_may_be_deleted(host: Host, made: MadeOutput, part: str) -> None:
    """Whatever the user deletes in the data tree, before the panel shows it or while: every choice still works."""
    panel = opened(host, made)
    panel.parameters.reference = slicer.util.addVolumeFromArray(made.cemri.T.copy(), ijkToRAS=made.matrix, name="p_t1c")
    press(host, panel)
    ui = panel.ui
    ui.compareButton.click()
    ui.comparisonButton.click()
    for again in range(2):
        if not again:
            host.scene.RemoveNode(getattr(panel.result.nodes, part))
            host.settle(0.01)
        for box in (ui.pictureBox, ui.overlayBox, ui.deformationBox, ui.stepImageBox):
            for index in range(box.count):
                box.setCurrentIndex(index)
        for name in ("sideBySide", "contrasts", "comparison", "beforeAfter", "fourUp", "show3D", "flip", "compare"):
            getattr(ui, f"{name}Button").click()
        ui.fadeSlider.setValue(0.5)
        ui.stepSlider.setValue(1)
        ui.thresholdSlider.setValue(0.4 + 0.1 * again)
        panel.result.onRun(0)
        host.settle(0.01)
    assert ui.steerButton.enabled == (part not in ("t1", "t2", "segmentation"))
    panel.result.save.saveInto(made.folder.parent, False)
    assert host.faults == []


def test_a_step_that_lacks_a_part_is_not_replayed(host: Host, made: MadeOutput) -> None:
    """The module Sequences can delete one image of a sequence: another step's field would be drawn in its place."""
    panel = opened(host, made)
    press(host, panel)
    nodes = panel.result.nodes
    assert nodes.steps == 3
    nodes.stepField.RemoveDataNodeAtValue("1")
    assert nodes.steps == 0
    panel.result.refresh(nodes)
    assert not panel.ui.stepSlider.enabled
    for index in range(panel.ui.deformationBox.count):
        panel.ui.deformationBox.setCurrentIndex(index)
        assert "step 1" not in panel.ui.enlargementLabel.text
    assert host.faults == []


def test_whole_brain_estimate_is_told(host: Host, made: MadeOutput) -> None:
    """What the model says of the patient stands below the mask's volume, and its map of the tumour can be shown."""
    import json

    save(made.folder / "whole_tumour_probability.nii.gz", (made.probability / 2).astype(np.float32), made.matrix)
    (made.folder / "provenance.json").unlink()
    write_provenance(made.folder)
    content = json.loads((made.folder / "provenance.json").read_text())
    content["patient_estimate"] = {
        "enhancement_probability": 0.83, "volume_ml": 2.14, "volume_interval_ml": [0.0, 5.6], "interval_level": 0.8,
    }  # fmt: skip
    (made.folder / "provenance.json").write_text(json.dumps(content))
    panel = opened(host, made)
    press(host, panel)
    text = panel.ui.volumeLabel.text
    for part in ("83 % likely", "2.1 ml", "80 % interval 0.0 to 5.6 ml", "includes zero"):
        assert part in text
    panel.ui.overlayBox.setCurrentIndex(4)
    shown = host.scene.GetNodeByID(host.views["Red"].logic.GetSliceCompositeNode().GetForegroundVolumeID())
    np.testing.assert_allclose(slicer.util.arrayFromVolume(shown), made.probability.T / 2)
    assert panel.ui.pictureLabel.text == ""
    panel.result.show(None)
    assert panel.ui.volumeLabel.text == ""


def test_a_brain_that_was_found_is_looked_at_here(host: Host, made: MadeOutput) -> None:
    """The panel names no file of the engine's folder, which is gone, but what shows the brain in Slicer."""
    import json

    from d3m.volumes.preprocess.extraction import LOOK

    (made.folder / "provenance.json").unlink()
    write_provenance(made.folder)
    content = json.loads((made.folder / "provenance.json").read_text())
    said = f"T1 is not brain-extracted; its brain (1402 ml) was found with deepbet 1.0.2. {LOOK}"
    content["notices"] = [{"code": "brain-extracted", "message": said, "volume": "t1"}]
    (made.folder / "provenance.json").write_text(json.dumps(content))
    panel = opened(host, made)
    press(host, panel)
    text = panel.ui.noticesLabel.text
    assert "(1402 ml) was found with deepbet 1.0.2. Show 3D has its surface" in text
    assert "brain.png" not in text


def test_a_run_is_not_taken_for_another_patients(host: Host, made: MadeOutput) -> None:
    """The line names the T1 of the run; its result is listed but does not take the views from the next patient."""
    panel = opened(host, made)
    press(host, panel)
    first = panel.result.nodes
    engine = slow(host, panel, made)
    host.until(lambda: "p_t1: " in panel.ui.stateLabel.text, 20)
    others = next_patient_during_the_run(host, panel, made, engine)
    assert background(host) is others[0]
    from D3MSynthesisLib import Runs

    late = next(run for run in Runs.findRuns(host.scene) if run.runID != first.runID)
    assert not late.segmentation.GetDisplayNode().GetVisibility(), "its outline would lie over the next patient"
    assert panel.ui.runBox.count == 2
    assert panel.result.nodes.runID == first.runID
    assert "result of p_t1" in panel.ui.volumeLabel.text
    panel.result.onRun(0)
    assert panel.result.nodes.t1.GetName() == "p_t1"
    assert background(host) is panel.result.nodes.cemri
    assert panel.result.nodes.segmentation.GetDisplayNode().GetVisibility()


def test_scan_changed_in_the_middle_of_a_run(host: Host, made: MadeOutput) -> None:
    """A result of voxels that are no longer there says so."""
    panel = opened(host, made)
    engine = slow(host, panel, made)
    slicer.util.arrayFromVolume(panel.parameters.t1)[:] = 3
    slicer.util.arrayFromVolumeModified(panel.parameters.t1)
    (engine / "go.txt").write_text("")
    host.until(lambda: not panel.logic.running, 20)
    assert "T1 was changed" in panel.ui.noticesLabel.text
    assert "T2 was changed" not in panel.ui.noticesLabel.text


def test_result_says_whose_scans_it_was_made_from(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """The agreement of the identifiers stands in the provenance that is saved, without an identifier."""
    import json

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(host.scene)
    panel = opened(host, made)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Doe")
    hierarchy.SetItemUID(patient, "DICOM", "4711")
    study = hierarchy.CreateStudyItem(patient, "MR Brain")
    hierarchy.SetItemUID(study, "DICOM", "1.2.3.4")
    for scan in SCANS:
        node = getattr(panel.parameters, scan)
        item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(study, node)
        hierarchy.SetItemParent(item, study)
    panel.update()
    assert panel.ui.whoseLabel.text == "Scans of Doe, MR Brain."
    press(host, panel)
    assert panel.result.nodes.provenance["identity"]["patient"] == "agree"
    (tmp_path / "saved").mkdir()
    panel.result.save.saveInto(tmp_path / "saved", False)
    (saved,) = (tmp_path / "saved").glob("*/provenance.json")
    text = saved.read_text(encoding="utf-8")
    assert json.loads(text)["identity"]["study"] == "agree"
    assert "4711" not in text
    assert "1.2.3.4" not in text


def test_result_of_several_examinations_says_so(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """Who allowed scans of two examinations is told with the result, and whoever gets its DICOM series, too."""
    import pydicom

    from D3MSynthesisLib.DicomExport import saveDicom

    panel = opened(host, made)
    nodes = [getattr(panel.parameters, scan) for scan in SCANS]
    told = "The scans are of several examinations."
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(host.scene)
    patient = tree.CreateSubjectItem(tree.GetSceneItemID(), "Doe")
    first, second = (tree.CreateStudyItem(patient, year) for year in ("2019", "2021"))  # nobody but the tree knows them
    for other in (first, second):
        for node, study in zip(nodes, (first, first, other), strict=True):
            tree.SetItemParent(tree.GetItemByDataNode(node) or tree.CreateItem(study, node), study)
        panel.parameters.acrossStudies = True
        host.settle()
        press(host, panel)
        assert (told in panel.ui.noticesLabel.text) == (other is second)
        folder = tmp_path / str(other)
        folder.mkdir()
        files = sorted((saveDicom(panel.result.nodes, folder).folder / "cemri").iterdir())
        assert (told in str(pydicom.dcmread(files[0]))) == (other is second)


def test_licence_is_shown_once(host: Host, made: MadeOutput) -> None:
    """The licence of the weights is read before the first use, and once; who closes it runs nothing."""
    panel = opened(host, made)
    shown: list[str] = []
    panel.acknowledge = lambda text: bool(shown.append(text))
    panel.ui.applyButton.click()
    assert not panel.logic.running
    assert panel.models.card.licence in shown[0]
    assert "licence" in panel.ui.errorLabel.text
    panel.acknowledge = lambda text: shown.append(text) is None
    press(host, panel)
    press(host, panel)
    assert len(shown) == 2


def test_inputs_fold_after_a_run(host: Host, made: MadeOutput) -> None:
    """What a person looks at next fits the screen: the inputs are folded away, and open again on demand."""
    panel = opened(host, made)
    assert not panel.ui.inputsSection.collapsed
    press(host, panel)
    assert panel.ui.inputsSection.collapsed
    assert panel.ui.settingsSection.collapsed
    panel.ui.deformationSection.collapsed = False
    panel.ui.deformationBox.setCurrentIndex(3)
    host.settle()
    widget = slicer.modules.d3msynthesis.widgetRepresentation().self()
    assert len(host.panelPicture(widget)) <= 800, "it fits a screen of 800 pixels"
    assert panel.ui.overlayOpacitySlider._slider.width() >= 60, "a longer name of an overlay leaves it no room"


@pytest.mark.parametrize("scan", ["t1", "t2"])
def test_scan_deleted_in_the_middle_of_a_run(host: Host, made: MadeOutput, scan: str) -> None:
    """The result still comes, on the grid that T1 had; the deleted scan must be chosen again, or is left out."""
    panel = opened(host, made)
    engine = slow(host, panel, made)
    host.scene.RemoveNode(getattr(panel.parameters, scan))
    host.settle()
    (engine / "go.txt").write_text("")
    host.until(lambda: not panel.logic.running, 20)
    assert panel.ui.errorLabel.text == ""
    np.testing.assert_allclose(slicer.util.arrayFromVolume(panel.result.nodes.cemri), made.cemri.T)
    if scan == "t1":
        assert not panel.ui.applyButton.enabled
        assert panel.ui.stateLabel.text == "Choose T1."
    else:  # the default model can do without T2; the panel says that it would
        assert panel.ui.leftOutLabel.text.startswith("T2 is left out")


def test_older_result_deleted_in_the_middle_of_a_run(host: Host, made: MadeOutput) -> None:
    """The nodes of an older run may go while another runs; the panel shows the new one."""
    panel = opened(host, made)
    press(host, panel)
    old = panel.result.nodes
    engine = slow(host, panel, made)
    for node in old.all():
        host.scene.RemoveNode(node)
        host.settle(0.01)
    (engine / "go.txt").write_text("")
    host.until(lambda: not panel.logic.running, 20)
    assert panel.ui.errorLabel.text == ""
    assert panel.result.nodes.runID != old.runID
    assert panel.ui.runBox.count == 1


def test_leaving_the_module_does_not_lose_the_result(host: Host, made: MadeOutput) -> None:
    """A run that ends while the user is in another module is shown when the user comes back."""
    panel = opened(host, made)
    engine = slow(host, panel, made)
    panel.exit()
    (engine / "go.txt").write_text("")
    host.until(lambda: not panel.logic.running, 20)
    panel.enter()
    host.settle()
    assert panel.result.nodes is not None
    assert background(host) is panel.result.nodes.cemri
    assert panel.ui.applyButton.text == "Synthesize"


def test_leaving_and_coming_back_changes_nothing(host: Host, made: MadeOutput) -> None:
    """The look that the user gave a result stays when another module is visited."""
    panel = opened(host, made)
    press(host, panel)
    panel.ui.overlayBox.setCurrentIndex(1)
    slicer.util.setSliceViewerLayers(background=panel.parameters.t1)
    panel.exit()
    panel.enter()
    host.settle()
    assert background(host) is panel.parameters.t1
    assert panel.ui.overlayBox.currentIndex == 1


def test_the_layout_is_known_after_coming_back(host: Host, made: MadeOutput) -> None:
    """T1 stays beside the synthetic image when something is changed then; another scene starts anew."""
    panel = opened(host, made)
    press(host, panel)
    panel.ui.sideBySideButton.click()
    panel.exit()
    panel.enter()
    panel.ui.overlayBox.setCurrentIndex(1)
    assert background(host) is panel.result.nodes.t1
    host.clear()
    for scan in SCANS:
        setattr(panel.parameters, scan, slicer.util.addVolumeFromArray(made.t1.T, ijkToRAS=made.matrix, name=scan))
    press(host, panel)
    assert background(host) is panel.result.nodes.cemri


def test_coming_back_to_the_run_that_is_in_the_views(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """An older run stays the panel's, with its step and its drawing as they are seen, after other modules or a file."""
    panel = opened(host, made)
    press(host, panel)
    older, ui = panel.result.nodes.runID, panel.ui
    press(host, panel)
    panel.result.onRun(1)
    ui.stepSlider.setValue(2)
    ui.deformationBox.setCurrentIndex(3)
    told = ui.enlargementLabel.text
    assert "step 2 of 3" in told
    assert "Drawn" in told

    def shown() -> tuple[object, ...]:
        return panel.result.nodes.runID, ui.runBox.currentIndex, ui.stepSlider.value, ui.enlargementLabel.text

    panel.exit()
    panel.enter()
    assert shown() == (older, 1, 2, told)
    assert host.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    host.clear()
    host.scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    host.settle()
    assert panel.result.nodes.drawn is None
    assert shown() == (older, 1, 2, "")
    panel.result.onOnly("t1")
    panel.exit()
    panel.enter()
    assert panel.result.nodes.runID == older


def test_engine_that_reads_its_input_does_not_wait(host: Host, made: MadeOutput) -> None:
    """Nobody answers an engine that asks something: it meets the end of its input and goes on."""
    panel = opened(host, made)
    panel.logic._engine = fake_engine(made.folder.parent / "asks", "asks", made.folder)
    press(host, panel)
    assert panel.result.nodes is not None


def test_the_first_result_does_not_take_the_next_patients_views(host: Host, made: MadeOutput) -> None:
    """The next patient is chosen, or seen with nothing chosen, when the first run ends: it is listed, and no more."""
    panel = opened(host, made)
    engine = slow(host, panel, made)
    others = next_patient_during_the_run(host, panel, made, engine)
    assert background(host) is others[0]
    assert not panel.result.nodes.segmentation.GetDisplayNode().GetVisibility()
    assert "result of p_t1" in panel.ui.volumeLabel.text


def test_a_result_of_a_patient_who_is_gone_does_not_take_the_views(host: Host, made: MadeOutput) -> None:
    """Scans are deleted while they are used, and the next patient's loaded: these are chosen, and stay in the views."""
    panel = opened(host, made)
    engine = slow(host, panel, made)
    for scan in SCANS:
        host.scene.RemoveNode(getattr(panel.parameters, scan))
    others = [slicer.util.addVolumeFromArray(made.t1.T + 9, ijkToRAS=made.matrix, name=f"q_{scan}") for scan in SCANS]
    slicer.util.setSliceViewerLayers(background=others[0])
    host.settle()
    (engine / "go.txt").write_text("")
    host.until(lambda: not panel.logic.running, 20)
    assert background(host) is others[0]
    assert panel.ui.runBox.count == 1
    assert [getattr(panel.parameters, scan) for scan in SCANS] == others


@pytest.mark.parametrize("how", ["moved", "voxels"])
def test_a_t1_that_is_no_longer_what_the_result_was_made_from(host: Host, made: MadeOutput, how: str) -> None:
    """The panel says so, and so does every view that shows it; moved with its result it is where it was."""

    def told(view: str = "Red") -> str:
        return (
            host.application.layoutManager().sliceWidget(view).sliceView().cornerAnnotation().GetText(4) or ""
        ).rstrip()

    panel = opened(host, made)
    press(host, panel)
    panel.parameters.maskVisible = False
    panel.ui.sideBySideButton.click()
    nodes = panel.result.nodes
    assert (told(), "since" in panel.ui.volumeLabel.text) == ("", False)
    panel.exit()
    node = host.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = np.eye(4)
    matrix[0, 3] = 4
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    if how == "moved":
        nodes.t1.SetAndObserveTransformNodeID(node.GetID())
    else:
        slicer.util.arrayFromVolume(nodes.t1)[4] += 5
        slicer.util.arrayFromVolumeModified(nodes.t1)
    host.settle()
    panel.enter()
    assert (told("Red"), told("Yellow")) == ("T1 moved or changed since the synthesis", "")
    assert "no longer what this result was made from" in panel.ui.volumeLabel.text
    if how == "moved":
        nodes.cemri.SetAndObserveTransformNodeID(node.GetID())
        host.settle()
        assert told() == ""
        assert "T2 and FLAIR have moved" in panel.ui.volumeLabel.text, "they do not lie by the result any more"
        for scan in (nodes.t2, nodes.flair):
            scan.SetAndObserveTransformNodeID(node.GetID())
        host.settle()
        assert (told(), "since" in panel.ui.volumeLabel.text) == ("", False)


def test_a_transform_that_is_hardened_takes_everything_along(host: Host, made: MadeOutput) -> None:
    """Steps and drawing lie by the image after the data tree's "Harden transform"; nothing is said to have moved."""
    from D3MSynthesisLib import Field, Grids, Runs
    from D3MSynthesisLib.Parameters import Deformation

    panel = opened(host, made)
    p = panel.parameters
    p.reference = slicer.util.addVolumeFromArray(made.cemri.T.copy(), ijkToRAS=made.matrix, name="p_t1c")
    turned = np.eye(4)
    turned[:2, :2] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    turned[:3, 3] = [30, -20, 10]
    transform = host.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(turned))
    scans = [getattr(p, name) for name in (*SCANS, "reference")]
    for scan in scans:
        scan.SetAndObserveTransformNodeID(transform.GetID())
    host.settle()
    press(host, panel)
    panel.ui.compareButton.click()
    panel.ui.comparisonButton.click()
    nodes = panel.result.nodes

    def places() -> list[np.ndarray]:
        """Corners of the replayed image and of the difference, and where the drawn field leads, in the world."""
        found = []
        for node in (Runs.proxies(nodes)["after"], nodes.error):
            bounds = np.zeros(6)
            node.GetRASBounds(bounds)
            found.append(bounds)
        points = Grids.gridPoints((5, 5, 5), np.diag([4, 4, 4, 1])) + transform.GetTransformToParent().TransformPoint(
            -5, -10, -4
        )
        return [*found, Grids.transformed(points, nodes.drawn.GetTransformToParent()) - points]

    panel.ui.stepSlider.setValue(2)
    p.deformation = Deformation.GRID
    host.settle()
    before, whole = places(), Field.worldField(nodes.deformation)
    assert np.abs(before[-1]).max() > 0.1
    for node in [*scans, *nodes.all()]:
        if node.IsA("vtkMRMLTransformableNode") and node.GetParentTransformNode() is not None:
            node.HardenTransform()
    host.settle(0.1)
    for found, known in zip(places(), before, strict=True):
        np.testing.assert_allclose(found, known, atol=1e-3)
    panel.ui.stepSlider.setValue(1)
    panel.ui.stepSlider.setValue(2)
    for found, known in zip(places(), before, strict=True):
        np.testing.assert_allclose(found, known, atol=1e-3)
    again = Field.worldField(nodes.deformation)  # it was hardened, too
    np.testing.assert_allclose(again.ijkToRAS, whole.ijkToRAS, atol=1e-3)
    np.testing.assert_allclose(again.array, whole.array, atol=1e-3)
    assert "since" not in panel.ui.volumeLabel.text
    assert "PSNR" in panel.ui.comparisonTable.item(0, 0).text()


def test_a_warp_that_is_hardened_onto_the_field_is_told(host: Host, made: MadeOutput) -> None:
    """What is no field of vectors any more is not drawn."""
    from D3MSynthesisLib.Parameters import Deformation

    panel = opened(host, made)
    press(host, panel)
    nodes = panel.result.nodes
    warp = host.scene.AddNewNodeByClass("vtkMRMLTransformNode")
    warp.SetAndObserveTransformFromParent(nodes.deformation.GetTransformFromParent())
    nodes.deformation.SetAndObserveTransformNodeID(warp.GetID())
    nodes.deformation.HardenTransform()
    host.settle()
    panel.parameters.deformation = Deformation.GRID
    host.settle()
    assert "cannot be drawn" in panel.ui.enlargementLabel.text
