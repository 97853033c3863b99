"""The panel and what users do to the scene: odd names, saving, reopening, deleting midway, leaving the module."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from slicer_helpers import MadeOutput, fake_engine, make_output, save, write_provenance

slicer = pytest.importorskip("slicer")
vtk = pytest.importorskip("vtk")
pytest.importorskip("PySide6.QtUiTools")
from qt_host import Host  # noqa: E402

SCANS = ("t1", "t2", "flair")
MARK = "synthetic, research use only"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """The host with the user's folder of models in a place of its own."""
    monkeypatch.setenv("D3M_MODELS", str(tmp_path / "models"))
    with Host((120, 120)) as found:
        yield found


@pytest.fixture
def made(tmp_path: Path) -> MadeOutput:
    """What the engine is going to write."""
    return make_output(tmp_path / "made")


def opened(host: Host, made: MadeOutput, names: tuple[str, str, str] = ("p_t1", "p_t2", "p_flair")) -> object:
    """The panel with three scans of these names chosen, and an engine that gives `made`."""
    panel = host.openModule("D3MSynthesis").panel
    for number, (scan, name) in enumerate(zip(SCANS, names, strict=True)):
        array = np.ascontiguousarray(made.t1.T + number)
        node = slicer.util.addVolumeFromArray(array, ijkToRAS=made.matrix, name=name)
        node.SetName(name)  # an empty name, too
        setattr(panel.parameters, scan, node)
    host.settle()
    panel.logic._engine = fake_engine(made.folder.parent / "engine", "finish", made.folder)
    return panel


def press(host: Host, panel: object) -> None:
    """Press the button and wait until the run has ended."""
    assert panel.ui.applyButton.enabled, panel.ui.stateLabel.text
    panel.ui.applyButton.click()
    host.until(lambda: not panel.logic.running, 30)


def slow(host: Host, panel: object, made: MadeOutput, button: object = None) -> Path:
    """Start a run that goes on until it is let go; returns the engine's folder."""
    engine = fake_engine(made.folder.parent / "slow", "waits", made.folder)
    panel.logic._engine = engine
    (button or panel.ui.applyButton).click()
    host.until((engine / "pid.txt").exists, 20)
    return engine


def background(host: Host) -> object:
    """The image in the red view."""
    composite = host.views["Red"].logic.GetSliceCompositeNode()
    return host.scene.GetNodeByID(composite.GetBackgroundVolumeID() or "")


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


def test_a_mask_that_is_edited_is_kept(host: Host, made: MadeOutput) -> None:
    """The volume follows the edit and says so; the threshold asks before it wipes it; a deleted segment comes back."""
    from D3MSynthesisLib import Grids

    panel = opened(host, made)
    press(host, panel)
    nodes, ui, questions = panel.result.nodes, panel.ui, []
    before = nodes.enhancingVolumeMl
    edited = made.mask.T.copy()
    edited[: len(edited) // 2] = False
    Grids.writeMask(nodes.segmentation, nodes.segmentID, edited, Grids.matrixOf(nodes.cemri))
    host.settle()
    ml = edited.sum() * np.prod(nodes.cemri.GetSpacing()) / 1000
    assert f"edited: <b>{ml:.1f} ml</b>" in ui.volumeLabel.text
    assert "Edited" in ui.editedLabel.text
    threshold = nodes.threshold
    panel.confirm = lambda question: bool(questions.append(question))
    ui.thresholdSlider.setValue(0.7)
    assert len(questions) == 1
    assert ui.thresholdSlider.value == pytest.approx(threshold, abs=0.01)
    found = slicer.util.arrayFromSegmentBinaryLabelmap(nodes.segmentation, nodes.segmentID, nodes.cemri)
    np.testing.assert_array_equal(found > 0, edited)
    panel.confirm = lambda question: True
    ui.thresholdSlider.setValue(0.31)
    ui.thresholdSlider.setValue(threshold)
    assert nodes.enhancingVolumeMl == pytest.approx(before, rel=0.05)
    assert not ui.editedLabel.isVisibleTo(ui.editedLabel.parent())
    nodes.segmentation.GetSegmentation().RemoveSegment(nodes.segmentID)
    host.settle()
    assert "<b>0.0 ml</b>" in ui.volumeLabel.text
    assert "deleted" in ui.editedLabel.text
    ui.thresholdSlider.setValue(0.32)
    assert nodes.enhancingVolumeMl > 0


def test_a_mask_that_is_edited_in_another_module(host: Host, made: MadeOutput) -> None:
    """Back from Segment Editor, the panel tells the volume of what was drawn there, and asks before it wipes it."""
    from D3MSynthesisLib import Grids

    panel = opened(host, made)
    press(host, panel)
    nodes = panel.result.nodes
    panel.exit()
    half = made.mask.T.copy()
    half[: len(half) // 2] = False
    Grids.writeMask(nodes.segmentation, nodes.segmentID, half, made.matrix)
    panel.enter()
    ml = half.sum() * abs(np.linalg.det(made.matrix[:3, :3])) / 1000
    assert f"edited: <b>{ml:.1f} ml" in panel.ui.volumeLabel.text
    asked: list[str] = []
    panel.confirm = lambda text: bool(asked.append(text))
    panel.ui.thresholdSlider.setValue(0.9)
    assert len(asked) == 1
    assert panel.result.nodes.enhancingVolumeMl == pytest.approx(ml, rel=1e-4)


def test_reading_the_mask_leaves_the_scene_alone(host: Host, made: MadeOutput) -> None:
    """An edit is looked at without a node that selectors would list for a moment, and nothing is left behind."""
    from D3MSynthesisLib import Grids, Inputs

    panel = opened(host, made)
    press(host, panel)
    nodes, added = panel.result.nodes, []
    tag = host.scene.AddObserver(host.scene.NodeAddedEvent, lambda *_: added.append(1))
    before = host.scene.GetNumberOfNodes()
    Grids.writeMask(nodes.segmentation, nodes.segmentID, made.mask.T[::-1].copy(), Grids.matrixOf(nodes.cemri))
    host.settle()
    assert nodes.edited
    np.testing.assert_array_equal(Inputs.maskOnGrid(nodes.segmentation, nodes.cemri), made.mask.T[::-1])
    host.scene.RemoveObserver(tag)
    assert (host.scene.GetNumberOfNodes(), added) == (before, [])


def test_a_mask_that_changed_is_not_told_with_old_numbers(host: Host, made: MadeOutput) -> None:
    """The table counts false and missed enhancement of a mask; when that is another one, it says so."""
    panel = opened(host, made)
    panel.parameters.reference = slicer.util.addVolumeFromArray(made.cemri.T.copy(), ijkToRAS=made.matrix, name="p_t1c")
    press(host, panel)
    ui = panel.ui
    ui.compareButton.click()
    table = ui.comparisonTable

    def rows() -> list[str]:
        return [table.item(row, 0).text() for row in range(table.rowCount)]

    assert "missed (ml)" in rows()
    ui.thresholdSlider.setValue(0.7)
    assert "missed (ml)" not in rows()
    assert "Mask changed since" in rows()
    ui.compareButton.click()
    assert "missed (ml)" in rows()
    measured = table.item(rows().index("Enhancing tumour (ml)"), 1).text()
    assert measured == f"{panel.result.nodes.enhancingVolumeMl:.1f}"


def test_a_mask_of_equal_volume_is_another_mask(host: Host, made: MadeOutput) -> None:
    """The mask is moved, not made larger: its old numbers are not told, and with the old place they are back."""
    from D3MSynthesisLib import Grids, Masks

    panel = opened(host, made)
    panel.parameters.reference = slicer.util.addVolumeFromArray(made.cemri.T.copy(), ijkToRAS=made.matrix, name="p_t1c")
    press(host, panel)
    nodes, ui = panel.result.nodes, panel.ui
    ui.compareButton.click()
    table, mask = ui.comparisonTable, Masks.maskOf(nodes)

    def place(array: np.ndarray) -> list[str]:
        Grids.writeMask(nodes.segmentation, nodes.segmentID, array, Grids.matrixOf(nodes.cemri))
        host.settle()
        return [table.item(row, 0).text() for row in range(table.rowCount)]

    ml = nodes.enhancingVolumeMl
    assert "Mask changed since" in place(mask[::-1].copy())
    assert nodes.enhancingVolumeMl == ml
    assert "Mask changed since" not in place(mask)
    ui.thresholdSlider.setValue(0.7)
    host.scene.RemoveNode(nodes.probability)
    host.settle()
    nodes = panel.result.nodes
    assert not nodes.edited
    place(Masks.maskOf(nodes)[::-1].copy())
    assert nodes.edited, "nothing but the mask before tells it"


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


def test_a_mask_to_synthesize_from_is_not_another_patients(host: Host, made: MadeOutput) -> None:
    """It was chosen beside one patient's result; beside another one's it would make a picture unasked."""
    panel = opened(host, made)
    press(host, panel)
    for scan in SCANS:
        node = slicer.util.addVolumeFromArray(made.t1.T + 9, ijkToRAS=made.matrix, name=f"q_{scan}")
        setattr(panel.parameters, scan, node)
    press(host, panel)
    press(host, panel)
    mask = slicer.util.addVolumeFromArray(made.mask.T.astype(np.uint8), ijkToRAS=made.matrix, name="drawn")
    panel.parameters.enhancementMask = mask
    panel.result.onRun(1)
    assert panel.parameters.enhancementMask is mask, "another run of the same patient"
    panel.exit()
    panel.enter()
    assert panel.parameters.enhancementMask is mask
    panel.result.onRun(2)
    assert panel.result.nodes.t1.GetName() == "p_t1"
    assert panel.parameters.enhancementMask is None


def test_a_mask_over_an_acquired_scan_is_named(host: Host, made: MadeOutput) -> None:
    """The outline beside the synthetic image lies over T1 as well; hidden or edited it is told so; nobody else's is."""
    from D3MSynthesisLib import Grids

    def told(view: str = "Red") -> str:
        return host.application.layoutManager().sliceWidget(view).sliceView().cornerAnnotation().GetText(4) or ""

    panel = opened(host, made)
    press(host, panel)
    assert told() == "", "the view has the mark"
    panel.ui.sideBySideButton.click()
    predicted = "mask of a synthesis: Enhancing tumour (predicted)\np_t1 synthetic CEMRI"
    assert (told("Red"), told("Yellow")) == (predicted, "")
    panel.parameters.maskVisible = False
    assert told() == ""
    panel.parameters.maskVisible = True
    assert told() == predicted
    nodes = panel.result.nodes
    Grids.writeMask(nodes.segmentation, nodes.segmentID, made.mask.T[::-1].copy(), Grids.matrixOf(nodes.cemri))
    host.settle()
    assert told() == predicted.replace("predicted", "edited")
    own = host.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn by hand")
    own.CreateDefaultDisplayNodes()
    own.GetSegmentation().AddEmptySegment("a", "Tumour", (1, 0, 0))
    nodes.segmentation.GetDisplayNode().SetVisibility(False)
    assert told() == ""


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


def moved(real: object, how: str) -> None:
    """What people do to a scan in other modules."""
    if how == "transform":
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        real.SetAndObserveTransformNodeID(node.GetID())
        matrix = np.eye(4)
        matrix[0, 3] = 4
        node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    elif how == "origin":
        real.SetOrigin(*np.add(real.GetOrigin(), (0, 3, 0)))
    elif how == "voxels":
        slicer.util.arrayFromVolume(real)[4] *= 2
        slicer.util.arrayFromVolumeModified(real)
    else:  # resampled to half as many slices
        slicer.util.updateVolumeFromArray(real, slicer.util.arrayFromVolume(real)[::2].copy())


@pytest.mark.parametrize(
    ("how", "away", "before"),
    [(how, False, False) for how in ("transform", "origin", "voxels", "grid")]
    + [("transform", True, False), ("voxels", True, False), ("transform", False, True)],
)
def test_a_real_scan_that_moved_is_not_told_with_old_numbers(
    host: Host, made: MadeOutput, how: str, away: bool, before: bool
) -> None:
    """Numbers and difference are of the real T1c as it was, beside a run or after it; another module may be open."""
    from D3MSynthesisLib import Views

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
        return nodes.error.GetID() in {view.GetBackgroundVolumeID() for view in Views.composites(host.scene)}

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


def test_tumour_is_in_the_3d_view(host: Host, made: MadeOutput) -> None:
    """Surfaces of brain and tumour are shown whatever was switched off in the slices."""
    panel = opened(host, made)
    press(host, panel)
    nodes, ui = panel.result.nodes, panel.ui
    ui.maskBox.setChecked(False)
    ui.deformationBox.setCurrentIndex(3)
    ui.show3DButton.click()
    for node in (nodes.segmentation, nodes.brain):
        display = node.GetDisplayNode()
        assert display.GetVisibility()
        assert display.GetVisibility3D()
        assert node.GetSegmentation().ContainsRepresentation("Closed surface")
        assert not display.GetVisibility2D(), "over the sample's picture lies its own probability"
    assert ui.maskBox.checked


def test_a_surface_in_a_3d_view_is_marked(host: Host, made: MadeOutput, monkeypatch: pytest.MonkeyPatch) -> None:
    """A predicted tumour in 3-D says that it is synthetic, as long as it is seen; another module's text stays."""
    corner, other = vtk.vtkCornerAnnotation(), vtk.vtkCornerAnnotation()
    nodes = [host.scene.AddNewNodeByClass("vtkMRMLViewNode") for _ in range(2)]
    widgets = []
    for text, node in zip((corner, other), nodes, strict=True):
        view = SimpleNamespace(
            cornerAnnotation=lambda text=text: text,
            mrmlViewNode=lambda node=node: node,
            scheduleRender=lambda: None,
            resetFocalPoint=lambda: None,
            resetCamera=lambda: None,
        )
        widgets.append(SimpleNamespace(threeDView=lambda view=view: view))
    manager = host.application.layoutManager()
    monkeypatch.setattr(manager, "threeDViewCount", 2, raising=False)
    monkeypatch.setattr(manager, "threeDWidget", lambda index: widgets[index], raising=False)
    other.SetText(7, "of another module")
    panel = opened(host, made)
    press(host, panel)
    result = panel.result.nodes
    display = result.segmentation.GetDisplayNode()
    assert not corner.GetText(7), "no surface was made yet"
    result.segmentation.CreateClosedSurfaceRepresentation()
    told = f"surface: {MARK}\nEnhancing tumour (predicted)\np_t1 synthetic CEMRI"
    assert corner.GetText(7) == told
    result.segmentation.RemoveClosedSurfaceRepresentation()
    assert not corner.GetText(7)
    panel.ui.show3DButton.click()
    assert (corner.GetText(7), other.GetText(7)) == (told, "of another module")
    display.SetVisibility3D(False)
    assert not corner.GetText(7), "the brain alone is not predicted"
    display.SetVisibility3D(True)
    assert corner.GetText(7) == told
    display.SetSegmentVisibility(result.segmentID, False)
    assert not corner.GetText(7)
    display.SetSegmentVisibility(result.segmentID, True)
    display.SetSegmentVisibility3D(result.segmentID, False)
    assert not corner.GetText(7)
    display.SetSegmentVisibility3D(result.segmentID, True)
    display.AddViewNodeID(nodes[1].GetID())
    assert not corner.GetText(7), "it is in the other view alone"
    display.RemoveAllViewNodeIDs()
    assert corner.GetText(7) == told
    host.scene.Clear(0)
    host.settle()
    assert not corner.GetText(7)


def test_the_mask_alone_is_changed_by_its_switches(host: Host, made: MadeOutput) -> None:
    """Who has put an image of his own into a view keeps it when the mask is filled or hidden."""
    panel = opened(host, made)
    press(host, panel)
    t2 = panel.parameters.t2
    host.views["Yellow"].logic.GetSliceCompositeNode().SetBackgroundVolumeID(t2.GetID())
    panel.ui.fillBox.setChecked(True)
    panel.ui.maskOpacitySlider.setValue(0.7)
    panel.ui.maskBox.setChecked(False)
    assert host.views["Yellow"].logic.GetSliceCompositeNode().GetBackgroundVolumeID() == t2.GetID()
    assert not panel.result.nodes.segmentation.GetDisplayNode().GetVisibility()


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


def test_views_that_come_later_are_marked(host: Host, made: MadeOutput, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layout's new view may be made after its nodes have told of their image; it has the mark all the same.

    qMRMLLayoutManager.cxx, line 611: the layout is updated when its node tells its change, whoever is told first.
    """
    panel = opened(host, made)
    press(host, panel)
    manager = host.application.layoutManager()
    whole = manager.sliceWidget
    monkeypatch.setattr(manager, "sliceWidget", lambda name: None if name == "Slice4" else whole(name))
    layout = host.scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    layout.SetViewArrangement(layout.SlicerLayoutTwoOverTwoView)
    slicer.util.setSliceViewerLayers(background=panel.result.nodes.cemri)
    monkeypatch.undo()
    host.settle()
    assert MARK in whole("Slice4").sliceView().cornerAnnotation().GetText(7)


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


def test_synthesis_from_an_edited_mask(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """The card says how it is done; the mask as edited reaches the engine, and the result is called given."""
    import json
    from dataclasses import dataclass

    from d3m.volumes.preprocess.case import read_volume
    from D3MSynthesisLib import Grids

    panel = opened(host, made)
    press(host, panel)
    ui, nodes = panel.ui, panel.result.nodes
    assert "changed afterwards" in ui.steerButton.toolTip, "this model's card does not say that it follows a mask"

    @dataclass
    class Card:
        """A card that says so."""

        mask_steering: bool = True

        def __getattr__(self, name: str) -> object:
            return getattr(kept, name)

    kept = panel.models.card
    panel.models.card = Card()
    panel.update()
    assert "by itself." in ui.steerButton.toolTip
    assert ui.steerButton.enabled
    edited = made.mask.T.copy()
    edited[: len(edited) // 2] = False
    Grids.writeMask(nodes.segmentation, nodes.segmentID, edited, Grids.matrixOf(nodes.cemri))
    host.settle()
    (made.folder / "provenance.json").unlink()  # the engine gives a mask that it was given as probabilities of 0 and 1
    save(made.folder / "enhancement_probability.nii.gz", made.mask.astype(np.float32), made.matrix)
    write_provenance(made.folder)
    content = json.loads((made.folder / "provenance.json").read_text())
    content["given_mask"] = {"sha256": "0" * 64, "way": "stream"}
    (made.folder / "provenance.json").write_text(json.dumps(content))
    engine = slow(host, panel, made, ui.steerButton)
    host.until((engine / "arguments.json").exists, 20)
    arguments = json.loads((engine / "arguments.json").read_text())
    given = read_volume(Path(arguments[arguments.index("--enhancement-mask") + 1]), "brain_mask")
    np.testing.assert_array_equal(given.data > 0, edited.T)
    (engine / "go.txt").write_text("")
    host.until(lambda: not panel.logic.running, 30)
    assert panel.ui.errorLabel.text == ""
    assert "given: <b>" in ui.volumeLabel.text
    assert "made from this mask" in ui.editedLabel.text
    assert not ui.thresholdSlider.enabled, "there is no probability to be cut"
    segment = panel.result.nodes.segmentation.GetSegmentation().GetSegment(panel.result.nodes.segmentID)
    assert segment.GetName() == "Enhancing tumour (given)"


def test_a_run_is_not_taken_for_another_patients(host: Host, made: MadeOutput) -> None:
    """The line names the T1 of the run; its result is listed but does not take the views from the next patient."""
    panel = opened(host, made)
    press(host, panel)
    first = panel.result.nodes
    engine = slow(host, panel, made)
    host.until(lambda: "p_t1: " in panel.ui.stateLabel.text, 20)
    others = [slicer.util.addVolumeFromArray(made.t1.T + 9, ijkToRAS=made.matrix, name=f"q_{scan}") for scan in SCANS]
    for scan, node in zip(SCANS, others, strict=True):
        setattr(panel.parameters, scan, node)
    slicer.util.setSliceViewerLayers(background=others[0])
    (engine / "go.txt").write_text("")
    host.until(lambda: not panel.logic.running, 20)
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


def test_masks_of_an_earlier_patient_are_not_kept(host: Host, made: MadeOutput) -> None:
    """The next patient's T1 is chosen by hand: masks go; another T1 of the same patient leaves them."""
    panel = opened(host, made)
    p = panel.parameters
    mask = slicer.util.addVolumeFromArray(made.mask.T.astype(np.uint8), ijkToRAS=made.matrix, name="brain mask")
    again, other = (
        slicer.util.addVolumeFromArray(made.t1.T + 9, ijkToRAS=made.matrix, name=name) for name in ("p_t1w", "q_t1")
    )
    p.brainMask = p.enhancementMask = mask
    p.acrossStudies = True
    p.t1 = again
    assert p.brainMask is mask
    p.t1 = other
    assert (p.brainMask, p.enhancementMask, p.acrossStudies) == (None, None, False)
    p.brainMask = mask
    panel.exit()
    panel.enter()
    assert panel.parameters.t1 is other
    assert panel.parameters.brainMask is mask


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


def test_mark_follows_the_scene(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """A scene that is opened again has the mark in its views; acquired images, the next patient's too, have not."""

    def mark(view: str = "Red") -> str:
        return host.application.layoutManager().sliceWidget(view).sliceView().cornerAnnotation().GetText(7) or ""

    panel = opened(host, made)
    press(host, panel)
    assert mark() == MARK
    panel.ui.sideBySideButton.click()
    assert (mark("Red"), mark("Yellow")) == ("", MARK)
    panel.ui.fourUpButton.click()
    assert host.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    host.clear()
    node = slicer.util.addVolumeFromArray(made.t1, name="next patient")
    slicer.util.setSliceViewerLayers(background=node)
    host.settle()
    assert mark() == ""
    host.clear()
    host.scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    host.settle()
    slicer.util.setSliceViewerLayers(background=panel.result.nodes.cemri)
    assert mark() == MARK
    panel.exit()
    assert mark() == MARK


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
