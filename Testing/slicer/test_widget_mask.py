"""The panel and what people change: the mask by hand, the scans that a run is compared with, a picture from a mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from slicer_helpers import MadeOutput, save, write_provenance

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from panel_helpers import SCANS, opened, press, slow  # noqa: E402
from qt_host import Host  # noqa: E402


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


def test_segments_that_were_added_are_not_lost_unasked(host: Host, made: MadeOutput) -> None:
    """A segment of its own, whether it takes voxels from the predicted one or not, is asked about by its name."""
    from D3MSynthesisLib import Grids

    panel = opened(host, made)
    press(host, panel)
    nodes, asked = panel.result.nodes, []
    panel.confirm = lambda question: bool(asked.append(question))
    segments = nodes.segmentation.GetSegmentation()
    segments.AddEmptySegment("core", "necrotic core")
    for mask, identifier in ((made.mask.T & (made.t1.T > 100), "core"), (made.mask.T, nodes.segmentID)):
        Grids.writeMask(nodes.segmentation, identifier, mask, made.matrix)
    host.settle()
    panel.ui.thresholdSlider.setValue(0.5)
    assert len(asked) == 1
    assert "necrotic core" in asked[0]
    assert segments.GetSegment("core") is not None
    panel.confirm = lambda question: True
    panel.ui.thresholdSlider.setValue(0.5)
    assert segments.GetNumberOfSegments() == 1


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


def drawn(made: MadeOutput, name: str = "p_tumour") -> object:
    """What a person drew as the real tumour: a segmentation on the scans' grid."""
    from D3MSynthesisLib import Grids

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    for segment, mask in (("a", made.mask), ("b", np.roll(made.mask, 2, 0))):
        node.GetSegmentation().AddEmptySegment(segment, segment, (1, 0, 0))
        Grids.writeMask(node, segment, np.ascontiguousarray(mask.T), made.matrix)
    return node


@pytest.mark.parametrize("how", ["edited", "moved", "hidden", "volume"])
@pytest.mark.parametrize("before", [False, True])
def test_a_real_tumour_that_changed_is_not_told_with_old_numbers(
    host: Host, made: MadeOutput, how: str, before: bool
) -> None:
    """False and missed enhancement are of the tumour as it was drawn then; those of the whole image stay."""
    from D3MSynthesisLib import Grids

    panel = opened(host, made)
    p, ui = panel.parameters, panel.ui
    p.reference = slicer.util.addVolumeFromArray(made.cemri.T.copy(), ijkToRAS=made.matrix, name="p_t1c")
    if how == "volume":
        real = slicer.util.addVolumeFromArray(made.mask.T.astype(np.uint8), ijkToRAS=made.matrix, name="p_tumour")
    else:
        real = drawn(made)
    p.referenceMask = real
    if before:
        numbers = '{"psnr_brain": 30.0, "false_positive_ml": 1.0, "predicted_enhancing_volume_ml": %s}'
        (made.folder / "comparison.json").write_text(numbers % (made.mask.sum() * 1.54 / 1000))
    press(host, panel)
    if not before:
        ui.compareButton.click()

    def rows() -> list[str]:
        return [ui.comparisonTable.item(row, 0).text() for row in range(ui.comparisonTable.rowCount)]

    assert "falsely enhancing (ml)" in rows()
    panel.exit()
    if how == "edited":
        Grids.writeMask(real, "b", np.ascontiguousarray(made.mask.T[::-1]), made.matrix)
    elif how == "hidden":
        real.GetDisplayNode().SetSegmentVisibility("b", False)
    elif how == "volume":
        slicer.util.arrayFromVolume(real)[:4] = 1
        slicer.util.arrayFromVolumeModified(real)
    else:
        moved(real, "transform")
    host.settle()
    panel.enter()
    assert "falsely enhancing (ml)" not in rows()
    assert "Real tumour changed since" in rows()
    assert "PSNR, brain (dB)" in rows()
    ui.compareButton.click()
    assert "falsely enhancing (ml)" in rows()
    if how == "moved":
        real.SetAndObserveTransformNodeID(None)
        host.settle()
        assert "Real tumour changed since" in rows()


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


def test_a_predicted_mask_is_no_real_tumour(host: Host, made: MadeOutput) -> None:
    """What another run has predicted is refused, before a run and after it; so is a synthetic image from a file."""
    panel = opened(host, made)
    press(host, panel)
    first = panel.result.nodes
    p, ui = panel.parameters, panel.ui
    p.reference = slicer.util.addVolumeFromArray(made.cemri.T.copy(), ijkToRAS=made.matrix, name="p_t1c")
    press(host, panel)
    p.referenceMask = first.segmentation
    ui.compareButton.click()
    assert "what a synthesis made" in ui.errorLabel.text
    assert panel.result.nodes.comparison is None
    assert not ui.applyButton.enabled
    assert "what a synthesis made" in ui.stateLabel.text
    p.referenceMask = None
    p.reference = slicer.util.addVolumeFromArray(made.cemri.T.copy(), ijkToRAS=made.matrix, name="synthetic_cemri")
    ui.compareButton.click()
    assert "what a synthesis made" in ui.errorLabel.text
    assert "synthetic image" in ui.stateLabel.text


def test_a_hidden_part_of_the_mask_is_synthesized_from(host: Host, made: MadeOutput) -> None:
    """The volume that is told is of the whole mask, and so is the picture, whatever the eye of a segment says."""
    import json

    from d3m.volumes.preprocess.case import read_volume

    panel = opened(host, made)
    press(host, panel)
    nodes = panel.result.nodes
    nodes.segmentation.GetDisplayNode().SetSegmentVisibility(nodes.segmentID, False)
    engine = slow(host, panel, made, panel.ui.steerButton)
    host.until((engine / "arguments.json").exists, 20)
    arguments = json.loads((engine / "arguments.json").read_text())
    given = read_volume(Path(arguments[arguments.index("--enhancement-mask") + 1]), "brain_mask")
    (engine / "go.txt").write_text("")
    host.until(lambda: not panel.logic.running, 30)
    np.testing.assert_array_equal(given.data > 0, made.mask)


def test_masks_of_scans_without_names_are_not_kept(host: Host, made: MadeOutput) -> None:
    """Two T1 that say nothing of a patient may be of two; the same T1 with its transform applied is one."""
    panel = opened(host, made, ("T1", "T2", "FLAIR"))
    p = panel.parameters
    p.brainMask = mask = slicer.util.addVolumeFromArray(made.mask.T.astype(np.uint8), ijkToRAS=made.matrix, name="m")
    moved(p.t1, "transform")
    panel.ui.hardenButton.click()
    assert p.t1.GetName() == "T1 hardened"
    assert p.brainMask is mask
    p.t1 = slicer.util.addVolumeFromArray(made.t1.T + 9, ijkToRAS=made.matrix, name="T1 (2)")
    assert p.brainMask is None


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
    from D3MSynthesisLib import Runs, Views

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
    assert Views.changedCaption(host.scene, "Red") == ""
    slicer.util.setSliceViewerLayers(background=run.t1)
    assert Views.changedCaption(host.scene, "Red") == "T1 moved or changed since the synthesis"


def test_a_predicted_mask_from_a_file_is_no_real_tumour(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """Saved and loaded again it has no attributes; its segment's name is enough, and it is told over a scan."""
    from D3MSynthesisLib import Saving

    panel = opened(host, made)
    press(host, panel)
    saved = Saving.saveRun(panel.result.nodes, tmp_path)
    loaded = slicer.util.loadSegmentation(str(saved / "enhancement.seg.nrrd"))
    assert loaded.GetAttribute("D3M.Synthetic") is None
    panel.parameters.reference = slicer.util.addVolumeFromArray(made.cemri.T.copy(), ijkToRAS=made.matrix, name="p_t1c")
    panel.parameters.referenceMask = loaded
    panel.ui.compareButton.click()
    assert "what a synthesis made" in panel.ui.errorLabel.text
    panel.result.nodes.segmentation.GetDisplayNode().SetVisibility(False)
    loaded.CreateDefaultDisplayNodes()
    loaded.GetDisplayNode().SetVisibility(True)
    slicer.util.setSliceViewerLayers(background=panel.parameters.t1)
    text = host.application.layoutManager().sliceWidget("Red").sliceView().cornerAnnotation().GetText(4)
    assert text.rstrip() == "mask of a synthesis: Enhancing tumour (predicted)"
