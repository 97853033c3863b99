"""The panel and the real T1c that a result is compared with: moved, changed, of another patient, in a saved scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from slicer_helpers import MadeOutput

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from panel_helpers import SCANS, examination, moved, opened, press  # noqa: E402
from qt_host import Host  # noqa: E402


def test_a_real_scan_of_the_next_patient_is_asked_about(host: Host, made: MadeOutput) -> None:
    """Scans without identifiers: the next patient's are chosen, and the last one's result is still shown."""
    panel = opened(host, made)
    asked: list[str] = []
    panel.confirm = lambda question: bool(asked.append(question))  # no
    press(host, panel)
    nodes, p = panel.result.nodes, panel.parameters
    own, other = (slicer.util.addVolumeFromArray(made.cemri.T.copy(), ijkToRAS=made.matrix, name=f"{name}_t1c")
                  for name in "pq")  # fmt: skip
    p.t1 = slicer.util.addVolumeFromArray(made.t1.T + 9, ijkToRAS=made.matrix, name="q_t1")
    p.reference = other
    panel.ui.compareButton.click()
    assert nodes.comparison is None or nodes.reference is not other
    assert not panel.ui.fadeSlider.enabled
    assert len(asked) == 1
    assert "q_t1c" in asked[0]
    p.reference = own
    panel.ui.compareButton.click()
    assert (nodes.reference, len(asked)) == (own, 1)
    p.referenceMask = slicer.util.addVolumeFromArray(made.mask.T.astype(np.uint8), ijkToRAS=made.matrix, name="tumour")
    told = dict(nodes.comparison)
    panel.ui.compareButton.click()
    assert "tumour" in asked[-1], "the scan is this patient's, the mask may be the next one's"
    assert nodes.comparison == told
    p.reference, p.referenceMask = other, None
    panel.confirm = lambda _question: True
    panel.ui.compareButton.click()
    assert nodes.reference is other


@pytest.mark.parametrize("how", ["names", "folders", "identifiers"])
def test_a_real_scan_does_not_stay_for_the_next_patient(host: Host, made: MadeOutput, tmp_path: Path, how: str) -> None:
    """Jones has no T1c: Smith's, which was chosen for him, is not compared with the synthetic image of Jones."""
    chosen = {}
    for who in ("smith", "jones"):
        for scan in (*SCANS, "t1c"):
            name = f"{who}_{scan}" if how == "names" else scan.upper() + ("_1" if who == "jones" else "")
            node = slicer.util.addVolumeFromArray(made.t1.T + 9, ijkToRAS=made.matrix, name=name)
            if how == "folders":
                node.AddDefaultStorageNode()
                node.GetStorageNode().SetFileName(str(tmp_path / who / f"{scan.upper()}.nii.gz"))
            chosen[who, scan] = node
        if how == "identifiers":
            examination(who, [chosen[who, scan] for scan in (*SCANS, "t1c")])
    p = host.openModule("D3MSynthesis").panel.parameters

    def choose(who: str, *scans: str) -> None:
        for scan in scans:
            setattr(p, "reference" if scan == "t1c" else scan, chosen[who, scan])
            host.settle()

    choose("smith", *SCANS, "t1c")
    assert p.reference is chosen["smith", "t1c"]
    host.scene.RemoveNode(chosen["jones", "t1c"])
    choose("jones", *SCANS)
    assert p.reference is None
    choose("smith", "t1c", *SCANS)
    assert p.reference is chosen["smith", "t1c"], "who chooses it before T1 keeps it"


def test_a_real_scan_of_another_date_is_asked_about(host: Host, made: MadeOutput) -> None:
    """The inputs are folded away after a run; without identifiers the name alone says that it is of another date."""
    panel = opened(host, made, ("smith_2020_t1", "smith_2020_t2", "smith_2020_flair"))
    press(host, panel)
    asked: list[str] = []
    panel.confirm = lambda question: bool(asked.append(question))
    own, other = (slicer.util.addVolumeFromArray(made.cemri.T.copy(), ijkToRAS=made.matrix, name=f"smith_{year}_t1c")
                  for year in (2020, 2021))  # fmt: skip
    panel.parameters.reference = other
    panel.ui.compareButton.click()
    assert len(asked) == 1
    assert "smith_2021_t1c" in asked[0]
    assert panel.result.nodes.comparison is None
    panel.parameters.reference = own
    panel.ui.compareButton.click()
    assert (panel.result.nodes.reference, len(asked)) == (own, 1)
    panel.confirm = lambda _question: True
    panel.parameters.reference = other
    panel.ui.compareButton.click()
    panel.confirm = lambda question: bool(asked.append(question))
    panel.ui.compareButton.click()
    assert (panel.result.nodes.reference, len(asked)) == (other, 1), "once"


def test_numbers_of_series_of_one_name_say_whose_they_are(host: Host, made: MadeOutput) -> None:
    """DICOM names series by the protocol: beside Doe's numbers the real T1c that is chosen is Roe's, by name."""
    names = ("5: t1", "6: t2", "7: flair")
    panel = opened(host, made, names)
    array = np.ascontiguousarray(made.cemri.T)
    people = {"Doe": [getattr(panel.parameters, scan) for scan in SCANS]}
    people["Roe"] = [slicer.util.addVolumeFromArray(array.copy(), ijkToRAS=made.matrix, name=name) for name in names]
    for who, nodes in people.items():
        nodes.append(slicer.util.addVolumeFromArray(array.copy(), ijkToRAS=made.matrix, name="9: t1 KM"))
        examination(who, nodes)
        for scan, node in zip((*SCANS, "reference"), nodes, strict=True):
            setattr(panel.parameters, scan, node)
        host.settle()
        if who == "Doe":
            press(host, panel)
            panel.ui.compareButton.click()
    told = panel.ui.comparisonTable.item(0, 0).text()
    assert "numbers of 9: t1 KM (Doe, Doe study): press Compare for those of 9: t1 KM (Roe, Roe study)" in told


def test_another_real_scan_is_seen_at_once(host: Host, made: MadeOutput) -> None:
    """Beside the synthetic image stand the real one that was compared last, and the difference from that one."""
    panel = opened(host, made)
    real = [slicer.util.addVolumeFromArray(made.cemri.T[::step].copy(), ijkToRAS=made.matrix, name=f"p_t1c_{step}")
            for step in (1, -1)]  # fmt: skip
    press(host, panel)
    errors = []
    for node in real:
        panel.parameters.reference = node
        panel.ui.compareButton.click()
        if node is real[0]:
            panel.ui.comparisonButton.click()
        composite = host.views["Green+"].logic.GetSliceCompositeNode()
        assert composite.GetBackgroundVolumeID() == node.GetID()
        errors.append(slicer.util.arrayFromVolume(panel.result.nodes.error).copy())
    assert errors[0].max() < 0.1 < errors[1].max(), "the first is the synthetic image itself"


@pytest.mark.parametrize(
    ("how", "away", "before"),
    [(how, False, False) for how in ("transform", "origin", "voxels", "grid")]
    + [("transform", True, False), ("voxels", True, False), ("transform", False, True)],
)
def test_a_real_scan_that_moved_is_not_told_with_old_numbers(
    host: Host, made: MadeOutput, how: str, away: bool, before: bool
) -> None:
    """Numbers and difference are of the real T1c as it was, beside a run or after it; another module may be open."""
    from D3MSynthesisLib import Seen

    panel = opened(host, made)
    real = slicer.util.addVolumeFromArray(made.cemri.T.copy(), ijkToRAS=made.matrix, name="p_t1c")
    panel.parameters.reference = real
    if before:
        (made.folder / "comparison.json").write_text('{"psnr_brain": 30.0}')
    press(host, panel)
    ui, nodes = panel.ui, panel.result.nodes
    if not before:
        ui.compareButton.click()
    ui.comparisonButton.click()
    table = ui.comparisonTable

    def rows() -> list[str]:
        return [table.item(row, 0).text() for row in range(table.rowCount)]

    def seen() -> bool:
        return nodes.error.GetID() in {view.GetBackgroundVolumeID() for view in Seen.composites(host.scene)}

    sentence = ["The real T1c has moved or changed since: press Compare again."]
    assert "PSNR, brain (dB)" in rows()
    assert seen()
    if away:
        panel.exit()
    moved(real, how)
    host.settle()
    if away:
        panel.enter()
        host.settle()
    nodes = panel.result.nodes
    assert rows() == sentence
    assert not seen()
    ui.compareButton.click()
    assert "PSNR, brain (dB)" in rows()
    assert seen()


def test_a_real_scan_is_the_same_in_a_saved_scene(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """Writing and reading changes neither its voxels nor its place; what is done to it later is seen."""
    from D3MSynthesisLib import Comparison

    panel = opened(host, made)
    panel.parameters.reference = slicer.util.addVolumeFromArray(made.cemri.T.copy(), ijkToRAS=made.matrix, name="t1c")
    press(host, panel)
    panel.ui.compareButton.click()
    assert host.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    host.clear()
    host.scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    host.settle()
    nodes = panel.result.nodes
    assert nodes.reference.GetName() == "t1c"
    assert not Comparison.referenceChanged(nodes)
    moved(nodes.reference, "voxels")
    host.settle()
    assert Comparison.referenceChanged(nodes)
    assert panel.ui.comparisonTable.rowCount == 1


def test_a_real_scan_that_moved_with_the_run_is_where_it_was(host: Host, made: MadeOutput) -> None:
    """The whole patient is put under a transform, which is hardened in the scan: nothing is withdrawn."""
    from D3MSynthesisLib import Comparison

    panel = opened(host, made)
    real = slicer.util.addVolumeFromArray(made.cemri.T.copy(), ijkToRAS=made.matrix, name="p_t1c")
    press(host, panel)
    panel.parameters.reference = real
    panel.ui.compareButton.click()
    nodes = panel.result.nodes
    node = host.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    turn = np.array([[0.8, -0.6, 0, 10], [0.6, 0.8, 0, -20], [0, 0, 1, 5], [0, 0, 0, 1]])
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(turn))
    nodes.cemri.SetAndObserveTransformNodeID(node.GetID())
    assert Comparison.referenceChanged(nodes), "the run alone has moved"
    real.SetAndObserveTransformNodeID(node.GetID())
    assert not Comparison.referenceChanged(nodes)
    real.SetAndObserveTransformNodeID(None)
    real.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(turn @ made.matrix))
    assert not Comparison.referenceChanged(nodes)
    host.settle()
    assert "PSNR, brain (dB)" in [panel.ui.comparisonTable.item(row, 0).text() for row in range(2)]


def test_views_say_that_a_real_scan_changed(host: Host, made: MadeOutput) -> None:
    """Faded to, or beside the synthetic image, it is no longer what the numbers were of; nowhere else it is written."""

    def told(view: str) -> str:
        return (
            host.application.layoutManager().sliceWidget(view).sliceView().cornerAnnotation().GetText(4) or ""
        ).rstrip()

    panel = opened(host, made)
    real = slicer.util.addVolumeFromArray(made.cemri.T.copy(), ijkToRAS=made.matrix, name="p_t1c")
    press(host, panel)
    panel.parameters.maskVisible = False
    panel.parameters.reference = real
    panel.ui.compareButton.click()
    panel.ui.fadeSlider.setValue(0.5)
    assert told("Red") == ""
    moved(real, "transform")
    host.settle()
    sentence = "real T1c moved or changed since it was compared"
    assert told("Red") == sentence
    panel.ui.fadeSlider.setValue(1)
    assert told("Red") == sentence
    panel.ui.comparisonButton.click()
    assert (told("Green+"), told("Red"), told("Red+")) == (sentence, "", "")
    panel.ui.compareButton.click()
    assert told("Green+") == ""
    panel.exit()
    real.SetAndObserveTransformNodeID(None)
    host.settle()
    assert told("Green+") == sentence, "another module may be shown"


def test_a_difference_is_of_the_place_that_is_told(host: Host, made: MadeOutput) -> None:
    """The scan is moved, the layout chosen, the scan moved back: the difference is the one at its place."""
    panel = opened(host, made)
    real = slicer.util.addVolumeFromArray(made.cemri.T.copy(), ijkToRAS=made.matrix, name="p_t1c")
    press(host, panel)
    panel.parameters.reference = real
    panel.ui.compareButton.click()
    moved(real, "transform")
    host.settle()
    panel.ui.comparisonButton.click()
    real.SetAndObserveTransformNodeID(None)
    host.settle()
    composite = host.views["Yellow+"].logic.GetSliceCompositeNode()
    assert composite.GetBackgroundVolumeID() == panel.result.nodes.error.GetID()
    assert slicer.util.arrayFromVolume(panel.result.nodes.error).max() < 0.1, "it is the synthetic image itself"


def test_a_difference_goes_while_another_module_is_shown(host: Host, made: MadeOutput) -> None:
    """Scans are moved in the module Transforms: the difference from where it was does not stay in the view."""
    panel = opened(host, made)
    real = slicer.util.addVolumeFromArray(made.cemri.T.copy(), ijkToRAS=made.matrix, name="p_t1c")
    press(host, panel)
    panel.parameters.reference = real
    panel.ui.compareButton.click()
    panel.ui.comparisonButton.click()
    composite = host.views["Yellow+"].logic.GetSliceCompositeNode()
    assert composite.GetBackgroundVolumeID() == panel.result.nodes.error.GetID()
    panel.exit()
    moved(real, "transform")
    host.settle()
    assert not composite.GetBackgroundVolumeID()


def test_a_label_of_another_patient_leaves_the_views(host: Host, made: MadeOutput) -> None:
    """A result takes image and overlay of every view; a label map that is known to be somebody else's goes, too."""
    panel = opened(host, made)
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(host.scene)
    studies = {name: tree.CreateStudyItem(tree.CreateSubjectItem(tree.GetSceneItemID(), name), "1") for name in "pq"}

    def belong(node: object, patient: str) -> object:
        item = tree.GetItemByDataNode(node) or tree.CreateItem(tree.GetSceneItemID(), node)
        tree.SetItemParent(item, studies[patient])
        return node

    def label(name: str) -> object:
        array = made.mask.T.astype(np.uint8)
        kind = "vtkMRMLLabelMapVolumeNode"
        return slicer.util.addVolumeFromArray(array, ijkToRAS=made.matrix, name=name, nodeClassName=kind)

    for scan in ("t1", "t2", "flair"):
        belong(getattr(panel.parameters, scan), "p")
    labels = [belong(label("p"), "p"), belong(label("q"), "q"), label("nobody's")]
    views = [host.views[name].logic.GetSliceCompositeNode() for name in ("Red", "Yellow", "Green")]
    for view, node in zip(views, labels, strict=True):
        view.SetLabelVolumeID(node.GetID())
    press(host, panel)
    assert [view.GetLabelVolumeID() for view in views] == [labels[0].GetID(), None, labels[2].GetID()]


def test_a_scan_that_changed_for_one_run_alone(host: Host, made: MadeOutput) -> None:
    """T1 is moved between two runs: the second one is of it as it is, and the views say whose T1 it no longer is."""

    def told() -> str:
        return (
            host.application.layoutManager().sliceWidget("Red").sliceView().cornerAnnotation().GetText(4) or ""
        ).rstrip()

    panel = opened(host, made)
    panel.parameters.maskVisible = False
    press(host, panel)
    first, t1 = panel.result.nodes, panel.parameters.t1
    before = slicer.util.arrayFromVolume(t1).copy()
    slicer.util.arrayFromVolume(t1)[:] += 1
    slicer.util.arrayFromVolumeModified(t1)
    host.settle()
    panel.ui.sideBySideButton.click()
    assert told() == "T1 moved or changed since the synthesis"
    press(host, panel)
    second = panel.result.nodes
    assert second.runID != first.runID
    panel.ui.sideBySideButton.click()
    assert told() == f"T1 moved or changed since the synthesis\n{first.cemri.GetName()}"
    slicer.util.arrayFromVolume(t1)[:] = before
    slicer.util.arrayFromVolumeModified(t1)
    host.settle()
    assert told() == f"T1 moved or changed since the synthesis\n{second.cemri.GetName()}"


def test_a_scan_that_changed_is_known_in_an_imported_scene(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """Identifiers are others after an import: no scan of another patient is said to have changed."""
    from D3MSynthesisLib import Captions, Runs

    panel = opened(host, made)
    panel.parameters.maskVisible = False
    press(host, panel)
    t1 = panel.parameters.t1
    slicer.util.arrayFromVolume(t1)[:] += 1
    slicer.util.arrayFromVolumeModified(t1)
    host.settle()
    identifier = t1.GetID()
    assert host.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    panel.exit()
    host.clear()
    others = []
    while not others or others[-1].GetID() != identifier:
        others.append(slicer.util.addVolumeFromArray(made.t1.T.copy(), ijkToRAS=made.matrix, name="q_t2"))
        assert len(others) < 50
    host.scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    host.settle()
    (run,) = Runs.findRuns(host.scene)
    assert run.t1.GetID() != identifier
    slicer.util.setSliceViewerLayers(background=others[-1])
    assert Captions.changedCaption(host.scene, "Red") == ""
    slicer.util.setSliceViewerLayers(background=run.t1)
    assert Captions.changedCaption(host.scene, "Red") == "T1 moved or changed since the synthesis"
