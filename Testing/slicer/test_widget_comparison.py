"""The panel's table beside a real T1c: what its numbers are of, and that of what is gone none are told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from slicer_helpers import MadeOutput, save, write_provenance

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from panel_helpers import SCANS, label_map, opened, press, slow  # noqa: E402
from qt_host import Host  # noqa: E402


def real(made: MadeOutput, name: str, factor: float = 1.0) -> object:
    """A real T1c."""
    return slicer.util.addVolumeFromArray((factor * made.cemri.T).copy(), ijkToRAS=made.matrix, name=name)


def table(panel: object) -> list[list[str]]:
    """What the table says, its header first."""
    found = panel.ui.comparisonTable
    rows = [[found.item(row, column).text() for column in range(3)] for row in range(found.rowCount)]
    return [[found.horizontalHeaderItem(column).text() for column in range(3)], *rows]


def test_numbers_are_told_with_what_they_are_of(host: Host, made: MadeOutput) -> None:
    """Another real T1c is chosen: the table and the slider name the one that was compared, and say so."""
    panel = opened(host, made)
    p = panel.parameters
    p.reference = real(made, "p_t1c")
    tumour = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "drawn tumour")
    slicer.util.updateVolumeFromArray(tumour, made.mask.T.astype(np.uint8))
    tumour.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(made.matrix))
    p.referenceMask = tumour
    host.settle()
    press(host, panel)
    panel.ui.compareButton.click()
    rows = table(panel)
    assert rows[0][2] == "compared with p_t1c"
    assert "p_t1c" in panel.ui.fadeSlider.toolTip
    assert [row[2] for row in rows if row[0] == "missed (ml)"] == ["drawn tumour"]
    p.reference = real(made, "p_t1c_second", 3)
    host.settle()
    again = table(panel)
    assert again[2:] == rows[1:]
    assert "numbers of p_t1c:" in again[1][0]
    assert "p_t1c_second" in again[1][0]
    panel.ui.compareButton.click()
    assert table(panel)[0][2] == "compared with p_t1c_second"
    assert "numbers of" not in table(panel)[1][0]
    host.scene.RemoveNode(tumour)
    host.settle()
    assert ["Real tumour changed since", "compare again", ""] in table(panel)
    assert "missed (ml)" not in [row[0] for row in table(panel)]
    host.scene.RemoveNode(p.reference)
    host.settle()
    assert table(panel)[1:] == [["The real T1c that was compared is no longer in the scene.", "", ""]]


def test_a_deleted_real_scan_does_not_reach_the_engine(host: Host, made: MadeOutput) -> None:
    """A picture from a mask is made without the real T1c that was deleted; a script that gives one is told."""
    from D3MSynthesisLib.Engine import SynthesisError

    panel = opened(host, made)
    press(host, panel)
    gone = panel.parameters.reference = real(made, "p_t1c")
    panel.ui.compareButton.click()
    host.scene.RemoveNode(gone)
    host.settle()
    engine = slow(host, panel, made, panel.ui.steerButton)
    assert "--reference" not in json.loads((engine / "arguments.json").read_text())
    (engine / "go.txt").write_text("")
    host.until(lambda: not panel.logic.running, 20)
    with pytest.raises(SynthesisError, match="p_t1c is no longer in the scene"):
        panel.logic.run(*(getattr(panel.parameters, name) for name in SCANS), reference=gone)


def test_a_deleted_brain_mask_is_told(host: Host, made: MadeOutput) -> None:
    """The run's scans cannot be used again without the brain mask that they were used with."""
    panel = opened(host, made)
    brain = label_map((made.t1.T > 40).astype(np.uint8), made.matrix, "brain")
    panel.parameters.brainMask = brain
    press(host, panel)
    assert panel.ui.steerButton.enabled
    host.scene.RemoveNode(brain)
    host.settle()
    assert not panel.ui.steerButton.enabled
    assert "brain mask" in panel.ui.steerButton.toolTip


@pytest.mark.parametrize("what", ["node", "segments"])
def test_no_mask_is_not_an_empty_one(host: Host, made: MadeOutput, tmp_path: Path, what: str) -> None:
    """A mask that was deleted is told so in the panel, in what is saved, and in the comparison."""
    from D3MSynthesisLib import Saving

    panel = opened(host, made)
    panel.parameters.reference = real(made, "p_t1c")
    press(host, panel)
    panel.ui.compareButton.click()
    nodes = panel.result.nodes
    if what == "node":
        host.scene.RemoveNode(nodes.segmentation)
    else:
        nodes.segmentation.GetSegmentation().RemoveAllSegments()
    host.settle(0.1)
    nodes = panel.result.nodes
    label = panel.ui.volumeLabel.text
    assert "deleted" in label
    assert " ml" not in label
    assert ["Enhancing tumour (ml)", "mask deleted"] in [row[:2] for row in table(panel)]
    saved = json.loads((Saving.saveRun(nodes, tmp_path) / "provenance.json").read_text())["mask"]
    assert saved["deleted"]
    assert saved["enhancing_volume_ml"] is None
    panel.ui.compareButton.click()
    numbers = nodes.comparison
    assert numbers["psnr_brain"] is not None
    for name in ("predicted_enhancing_volume_ml", "false_positive_ml", "false_negative_ml", "dice"):
        assert numbers[name] is None
    assert ["Enhancing tumour (ml)", "mask deleted"] in [row[:2] for row in table(panel)]


@pytest.mark.parametrize("when", ["before", "after"])
def test_volumes_under_a_transform_with_scale_agree(host: Host, made: MadeOutput, when: str) -> None:
    """The label and the engine's comparison tell one volume, wherever the run lies."""
    ml = made.mask.sum() * abs(np.linalg.det(made.matrix[:3, :3])) / 1000
    numbers = {"psnr_brain": 30.0, "psnr_brain_t1": 25.0, "predicted_enhancing_volume_ml": ml,
               "real_enhancing_volume_ml": ml, "false_positive_ml": 0.0, "false_negative_ml": 0.0, "dice": 1.0,
               "real_enhancement": "estimated"}  # fmt: skip
    (made.folder / "comparison.json").write_text(json.dumps(numbers))
    (made.folder / "provenance.json").unlink()
    write_provenance(made.folder)
    panel = opened(host, made)
    p = panel.parameters
    p.reference = real(made, "p_t1c")
    scaled = host.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    if when == "before":
        scaled.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.diag([1.2, 1.2, 1.2, 1])))
    for name in (*SCANS, "reference"):
        getattr(p, name).SetAndObserveTransformNodeID(scaled.GetID())
    host.settle()
    press(host, panel)
    if when == "after":
        scaled.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.diag([1.2, 1.2, 1.2, 1])))
        host.settle(0.1)
    told = f"{ml * 1.2**3:.1f}"
    assert f"<b>{told} ml" in panel.ui.volumeLabel.text
    assert [row[1] for row in table(panel) if row[0] == "Enhancing tumour (ml)"] == [told]


@pytest.mark.parametrize("labels", ["whole", "slab", "none"])
def test_a_real_scan_of_a_part_of_the_brain(host: Host, made: MadeOutput, labels: str) -> None:
    """Tumour that the real T1c does not show is not falsely enhancing, and the map is not "no difference" there."""
    from D3MSynthesisLib import Captions
    from D3MSynthesisLib.Runs import brainOf

    panel = opened(host, made)
    press(host, panel)
    truth, matrix = made.mask.T.astype(np.uint8), made.matrix.copy()
    slices = np.flatnonzero(truth.any((1, 2)))
    cut = (slices.min() + slices.max()) // 2
    matrix[:3, 3] += matrix[:3, 2] * cut
    p = panel.parameters
    p.reference = slicer.util.addVolumeFromArray(made.cemri.T[cut:].copy(), ijkToRAS=matrix, name="p_t1c")
    if labels != "none":
        p.referenceMask = label_map(*((truth, made.matrix) if labels == "whole" else (truth[cut:].copy(), matrix)))
    host.settle()
    panel.ui.compareButton.click()
    nodes, ml = panel.result.nodes, abs(np.linalg.det(made.matrix[:3, :3])) / 1000
    brain, seen = brainOf(nodes), np.arange(truth.shape[0])[:, None, None] >= cut
    numbers, share = nodes.comparison, (brain & seen).sum() / brain.sum()
    assert numbers["covered_share"] == pytest.approx(share, abs=1e-3)
    assert numbers["predicted_enhancing_volume_ml"] == pytest.approx(truth[cut:].sum() * ml, abs=1e-3)
    if labels != "none":
        assert (numbers["false_positive_ml"], numbers["false_negative_ml"], numbers["dice"]) == (0, 0, 1)
    rows = table(panel)
    assert [f"The real T1c covers {int(100 * share)} % of the brain: the numbers are of that part.", "", ""] in rows
    assert "Mask changed since" not in [row[0] for row in rows]
    panel.ui.comparisonButton.click()
    host.settle()
    error, display = slicer.util.arrayFromVolume(nodes.error), nodes.error.GetDisplayNode()
    seen = seen & np.ones_like(brain)
    assert display.GetApplyThreshold()
    assert error[brain & ~seen].max() < display.GetLowerThreshold() <= error[brain & seen].min()
    assert f"in {int(100 * share)} % of the brain" in nodes.error.GetAttribute(Captions.CAPTION)
    p.reference = real(made, "p_t1c_whole")
    host.settle()
    panel.ui.compareButton.click()
    assert nodes.comparison["covered_share"] == 1
    assert not any("covers" in row[0] for row in table(panel))
    assert "%" not in nodes.error.GetAttribute(Captions.CAPTION)


def test_the_saved_volume_is_that_of_the_saved_mask(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """Files have no transform: their volume is not the scaled one that the panel tells, and the panel says so."""
    from D3MSynthesisLib import Saving

    panel = opened(host, made)
    press(host, panel)
    assert panel.ui.volumeLabel.toolTip == ""
    scaled = host.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    scaled.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.diag([1.15, 1.15, 1.15, 1])))
    for name in SCANS:
        getattr(panel.parameters, name).SetAndObserveTransformNodeID(scaled.GetID())
    host.settle(0.1)
    press(host, panel)
    folder = Saving.saveRun(panel.result.nodes, tmp_path)
    mask = sitk.ReadImage(str(folder / "enhancement.seg.nrrd"))
    ml = (sitk.GetArrayFromImage(mask) > 0).sum() * np.prod(mask.GetSpacing()) / 1000
    saved = json.loads((folder / "provenance.json").read_text())["mask"]["enhancing_volume_ml"]
    assert saved == pytest.approx(ml, abs=2e-3)
    assert f"<b>{ml * 1.15**3:.1f} ml" in panel.ui.volumeLabel.text
    assert "as scaled by the transform" in panel.ui.volumeLabel.toolTip
    assert f"saved has {ml:.1f} ml" in panel.ui.volumeLabel.toolTip


def test_the_brain_is_known_without_the_subtraction(host: Host, made: MadeOutput) -> None:
    """The numbers of the brain are of the brain, also after the subtraction was deleted."""
    inside = np.zeros(made.t1.shape, bool)
    inside[5:-5, 6:-6, 4:-4] = True
    for name, array in (("cemri", np.where(inside, made.cemri, made.t1)),
                        ("subtraction", np.where(inside, made.cemri - made.t1, 0))):  # fmt: skip
        save(made.folder / f"{name}.nii.gz", array.astype(np.float32), made.matrix)
    (made.folder / "provenance.json").unlink()
    write_provenance(made.folder)
    panel = opened(host, made)
    press(host, panel)
    panel.parameters.reference = real(made, "p_t1c", 1.1)
    panel.ui.compareButton.click()
    nodes = panel.result.nodes
    before = nodes.comparison
    host.scene.RemoveNode(nodes.subtraction)
    host.settle()
    panel.ui.compareButton.click()
    for name in ("psnr_brain", "ssim_brain"):
        assert panel.result.nodes.comparison[name] == pytest.approx(before[name], abs=0.02)
