"""What of a mask counts, and that it is told: hidden segments, several labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from slicer_helpers import MadeOutput

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from panel_helpers import imported, label_map, opened, press, slow, tissues  # noqa: E402
from qt_host import Host  # noqa: E402

VOXEL_ML = 1.0 * 1.1 * 1.4 / 1000


def compared(host: Host, panel: object, mask: object) -> dict[str, object]:
    """The run's numbers against this real tumour; what is told of it then is in the table, too."""
    panel.parameters.referenceMask = mask
    host.settle()
    panel.ui.compareButton.click()
    content = panel.result.nodes.comparison or {}
    table = panel.ui.comparisonTable
    rows = [table.item(row, 0).text() for row in range(table.rowCount)]
    assert content.get("real_tumour_counted") is None or rows[-1] == content["real_tumour_counted"]
    return content


def with_result(host: Host, made: MadeOutput) -> object:
    """The panel with a run and a real T1c chosen."""
    panel = opened(host, made)
    press(host, panel)
    panel.parameters.reference = slicer.util.addVolumeFromArray(made.cemri.T.copy(), ijkToRAS=made.matrix, name="p_t1c")
    return panel


@pytest.mark.parametrize(
    ("shown", "counted", "said"),
    [
        ((3,), (3,), "whose eye is open: enhancing; these do not: necrosis, oedema."),
        ((1, 3), (1, 3), "whose eye is open: necrosis, enhancing; these do not: oedema."),
        ((), (1, 2, 3), "are hidden, and all count: necrosis, oedema, enhancing."),
        ((1, 2, 3), (1, 2, 3), "All segments of p_seg count: necrosis, oedema, enhancing."),
    ],
)
def test_segments_count_as_the_panel_says(
    host: Host, made: MadeOutput, shown: tuple[int, ...], counted: tuple[int, ...], said: str
) -> None:
    """Those whose eye is open, or all where every eye is shut; said at the inputs and beside the numbers."""
    panel = with_result(host, made)
    labels = tissues(made.t1.T.shape)
    content = compared(host, panel, imported(labels, made.matrix, shown))
    true = np.isin(labels, counted)
    assert content["real_enhancing_volume_ml"] == pytest.approx(true.sum() * VOXEL_ML, abs=1e-3)
    false = made.mask.T & ~true
    assert content["false_positive_ml"] == pytest.approx(false.sum() * VOXEL_ML, abs=1e-3)
    assert said in content["real_tumour_counted"]
    assert panel.ui.masksLabel.text == content["real_tumour_counted"]
    assert said in panel.ui.compareButton.toolTip


@pytest.mark.parametrize("what", ["segment", "node"])
def test_a_hidden_tumour_is_not_0_ml(host: Host, made: MadeOutput, what: str) -> None:
    """Whoever shuts its eye to see the image has not said that there is no tumour; the panel follows the eye."""
    from D3MSynthesisLib import Grids

    panel = with_result(host, made)
    real = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "p_tumour")
    real.CreateDefaultDisplayNodes()
    real.GetSegmentation().AddEmptySegment("a", "tumour")
    true = np.ascontiguousarray(made.mask.T)
    true[tuple(np.argwhere(true)[0])] = False  # else it would be the predicted mask again
    Grids.writeMask(real, "a", true, made.matrix)
    assert "real_tumour_counted" not in compared(host, panel, real)
    assert panel.ui.masksLabel.text == ""
    if what == "segment":
        real.GetDisplayNode().SetSegmentVisibility("a", False)
    else:
        real.GetDisplayNode().SetVisibility(False)
    host.settle()
    assert "hidden" in panel.ui.masksLabel.text
    content = compared(host, panel, real)
    assert content["real_enhancing_volume_ml"] == pytest.approx(true.sum() * VOXEL_ML, abs=1e-3)
    assert content["dice"] == pytest.approx(2 * true.sum() / (2 * true.sum() + 1), abs=1e-4)
    assert "hidden" in content["real_tumour_counted"]


@pytest.mark.parametrize("year", [2020, 2023])
def test_of_brats_labels_the_enhancing_one_counts(host: Host, made: MadeOutput, year: int) -> None:
    """Necrosis and oedema are no enhancing tumour: for the numbers, and in the files for the engine."""
    panel = with_result(host, made)
    labels = tissues(made.t1.T.shape)
    true = labels == 3
    if year == 2020:
        labels[true] = 4
    mask = label_map(labels, made.matrix)
    content = compared(host, panel, mask)
    assert content["real_enhancing_volume_ml"] == pytest.approx(true.sum() * VOXEL_ML, abs=1e-3)
    assert f"label {4 if year == 2020 else 3} counts as enhancing tumour, as in BraTS" in panel.ui.masksLabel.text
    assert panel.ui.masksLabel.text == content["real_tumour_counted"]
    slicer.util.arrayFromVolume(mask)[true] = 2
    slicer.util.arrayFromVolumeModified(mask)
    panel.exit()
    panel.enter()
    assert panel.result.comparison.tumourChanged, "its labels are others now"


@pytest.mark.parametrize("role", ["referenceMask", "enhancementMask", "brainMask"])
def test_the_engine_gets_what_counts(host: Host, made: MadeOutput, role: str) -> None:
    """The file has the enhancing label alone, of a brain mask every label; the result's notices say it."""
    panel = with_result(host, made)
    labels = tissues(made.t1.T.shape)
    setattr(panel.parameters, role, label_map(labels, made.matrix))
    host.settle()
    engine = slow(host, panel, made, panel.ui.steerButton if role == "enhancementMask" else None)
    host.until((engine / "arguments.json").exists, 20)
    arguments = json.loads((engine / "arguments.json").read_text())
    option = {"referenceMask": "--reference-mask", "enhancementMask": "--enhancement-mask", "brainMask": "--brain-mask"}
    file = Path(arguments[arguments.index(option[role]) + 1])
    found = slicer.util.arrayFromVolume(slicer.util.loadVolume(str(file))) != 0
    np.testing.assert_array_equal(found, labels != 0 if role == "brainMask" else labels == 3)
    (engine / "go.txt").write_text("")
    host.until(lambda: not panel.logic.running, 20)
    said = "All labels of p_seg count." if role == "brainMask" else "Of p_seg label 3 counts as enhancing tumour"
    assert said in panel.ui.noticesLabel.text


def test_labels_that_say_nothing_are_asked_about(host: Host, made: MadeOutput) -> None:
    """Without a name in a colour table nobody knows which one enhances; with one it counts, and is named."""
    panel = with_result(host, made)
    labels = tissues(made.t1.T.shape)
    labels[labels == 2] = 5
    mask = label_map(labels, made.matrix)
    assert compared(host, panel, mask) == {}
    assert "p_seg holds the labels 1, 3, 5" in panel.ui.errorLabel.text
    assert "p_seg holds the labels 1, 3, 5" in panel.ui.stateLabel.text
    assert not panel.ui.applyButton.enabled
    panel.parameters.referenceMask, panel.parameters.enhancementMask = None, mask
    host.settle()
    assert not panel.ui.steerButton.enabled
    assert "p_seg holds the labels 1, 3, 5" in panel.ui.steerLabel.text
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableNode", "tissues")
    table.SetTypeToUser()
    table.SetNumberOfColors(6)
    for value, name in enumerate(("none", "Enhancing", "-", "non-enhancing core", "-", "oedema")):
        table.SetColor(value, name, 0.1 * value, 0.5, 0.5)
    mask.GetDisplayNode().SetAndObserveColorNodeID(table.GetID())
    host.settle()
    assert panel.ui.steerButton.enabled
    panel.parameters.enhancementMask = None
    content = compared(host, panel, mask)
    assert content["real_enhancing_volume_ml"] == pytest.approx((labels == 1).sum() * VOXEL_ML, abs=1e-3)
    assert "label 1 counts" in content["real_tumour_counted"]
    assert "of 1 (Enhancing), 3 (non-enhancing core), 5 (oedema)." in content["real_tumour_counted"]


def test_a_scan_is_no_tumour(host: Host, made: MadeOutput) -> None:
    """Chosen by mistake it would be a tumour as large as the head."""
    panel = with_result(host, made)
    scan = slicer.util.addVolumeFromArray(made.t1.T.copy(), ijkToRAS=made.matrix, name="p_swi")
    assert compared(host, panel, scan) == {}
    assert "p_swi is not a label map" in panel.ui.errorLabel.text
