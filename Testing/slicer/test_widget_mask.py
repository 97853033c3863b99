"""The panel and the mask that people change by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from slicer_helpers import MadeOutput

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from panel_helpers import opened, press  # noqa: E402
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
    assert "deleted" in ui.volumeLabel.text
    assert " ml" not in ui.volumeLabel.text, "no mask is not an empty one"
    assert "deleted" in ui.editedLabel.text
    ui.thresholdSlider.setValue(0.32)
    assert nodes.enhancingVolumeMl > 0


def test_the_patients_estimate_beside_a_mask(host: Host, made: MadeOutput) -> None:
    """It stays the model's, whatever is done to the mask, and says so where a person has changed that."""
    from D3MSynthesisLib import Grids

    path = made.folder / "provenance.json"
    content = json.loads(path.read_text())
    estimate = {"enhancement_probability": 0.87, "volume_ml": 12.0, "volume_interval_ml": [4.0, 20.0],
                "interval_level": 0.8}  # fmt: skip
    path.write_text(json.dumps(content | {"patient_estimate": estimate}))
    panel = opened(host, made)
    press(host, panel)
    nodes, ui = panel.result.nodes, panel.ui
    ui.thresholdSlider.setValue(0.6)
    host.settle()
    assert "87 % likely" in ui.volumeLabel.text
    assert "does not know" not in ui.volumeLabel.text
    Grids.writeMask(nodes.segmentation, nodes.segmentID, np.zeros_like(made.mask.T), Grids.matrixOf(nodes.cemri))
    host.settle()
    assert "edited: <b>0.0 ml</b>" in ui.volumeLabel.text
    assert "87 % likely" in ui.volumeLabel.text
    assert "does not know what was changed" in ui.volumeLabel.text
    for stated in (None, {}, {"volume_interval_ml": [1, 2]}, estimate | {"volume_ml": None}, "text"):
        nodes.cemri.SetAttribute("D3M.Provenance", json.dumps(content | {"patient_estimate": stated}))
        panel.exit()
        panel.enter()
        assert "likely" not in ui.volumeLabel.text
        assert "ml" in ui.volumeLabel.text


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


@pytest.mark.parametrize("hardened", ["images", "mask", "none"])
def test_a_threshold_after_a_part_of_the_run_was_hardened(host: Host, made: MadeOutput, hardened: str) -> None:
    """The mask is made where the probability lies, and is no edit; the transform is not applied to it twice."""
    from D3MSynthesisLib import Masks, Runs

    panel = opened(host, made)
    press(host, panel)
    nodes = panel.result.nodes
    transform = host.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    matrix[:3, 3] = [4.3, -2, 1]
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    parts = [node for node in nodes.all() if node.IsA("vtkMRMLTransformableNode")]
    for node in [*parts, *Runs.proxies(nodes).values()]:
        node.SetAndObserveTransformNodeID(transform.GetID())
    for node in parts:
        kind = "mask" if node is nodes.segmentation else "images"
        if kind == hardened and not node.IsA("vtkMRMLTransformNode"):
            node.HardenTransform()
    host.settle()
    panel.ui.thresholdSlider.setValue(0.5)
    host.settle()
    assert (Masks.maskOf(nodes) == (made.probability.T >= 0.5)).all()
    assert "Predicted" in panel.ui.volumeLabel.text


def test_segments_that_were_added_are_named_beside_the_volume(host: Host, made: MadeOutput) -> None:
    """Segment Editor adds to the mask of the run what is drawn next, oedema, say: its volume is not told in silence."""
    from D3MSynthesisLib import Grids

    panel = opened(host, made)
    press(host, panel)
    nodes = panel.result.nodes
    assert "count" not in panel.ui.volumeLabel.text
    segments = nodes.segmentation.GetSegmentation()
    segments.AddEmptySegment("o", "Oedema <left>")
    Grids.writeMask(nodes.segmentation, "o", made.t1.T > 60, made.matrix)
    host.settle()
    assert "count: Enhancing tumour (edited), Oedema &lt;left&gt;." in panel.ui.volumeLabel.text
    assert "Oedema" in panel.ui.steerLabel.text, "a picture from it enhances there, too"
    nodes.segmentation.GetDisplayNode().SetSegmentVisibility("o", False)
    panel.update()
    assert "hidden ones, too: Enhancing tumour (edited), Oedema" in panel.ui.volumeLabel.text
    segments.RemoveSegment("o")
    host.settle()
    assert "count" not in panel.ui.volumeLabel.text


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
