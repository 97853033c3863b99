"""The panel and the scans and masks that a run was made from: when they are changed or moved later, it says so."""

from __future__ import annotations

import numpy as np
import pytest
from slicer_helpers import MadeOutput

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from panel_helpers import label_map, opened, press, slow  # noqa: E402
from qt_host import Host  # noqa: E402

GIVEN = ("t2", "flair", "brainMask")
TITLES = {"t2": "T2", "flair": "FLAIR", "brainMask": "The brain mask"}


def with_brain(host: Host, made: MadeOutput) -> object:
    """The panel with scans and a brain mask."""
    panel = opened(host, made)
    brain = label_map((made.t1.T > 40).astype(np.uint8), made.matrix, "brain")
    panel.parameters.brainMask = brain
    return panel


def change(node: object, how: str) -> object:
    """Change a scan as other modules do; returns the transform that it is under now, None without one."""
    if how == "voxels":
        slicer.util.arrayFromVolume(node)[:12] = 0
        slicer.util.arrayFromVolumeModified(node)
        return None
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = np.eye(4)
    matrix[0, 3] = 25
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    node.SetAndObserveTransformNodeID(transform.GetID())
    return transform


@pytest.mark.parametrize("how", ["moved", "voxels"])
@pytest.mark.parametrize("name", GIVEN)
def test_a_scan_that_is_no_longer_what_went_in_is_told(host: Host, made: MadeOutput, name: str, how: str) -> None:
    """T2, FLAIR and brain mask as T1: in the panel, in the view that shows it, and before it is used again."""
    from D3MSynthesisLib import Captions

    panel = with_brain(host, made)
    press(host, panel)
    nodes, ui, asked = panel.result.nodes, panel.ui, []
    scan = getattr(nodes, name)
    slicer.util.setSliceViewerLayers(background=scan)
    assert "since" not in ui.volumeLabel.text
    assert Captions.changedCaption(host.scene, "Red") == ""
    transform = change(scan, how)
    host.settle(0.1)
    assert f"{TITLES[name]} has moved or changed since" in ui.volumeLabel.text
    assert "moved or changed since the synthesis" in Captions.changedCaption(host.scene, "Red")
    panel.confirm = lambda question: bool(asked.append(question))
    ui.steerButton.click()
    assert not panel.logic.running
    assert TITLES[name].lower() in asked[0].lower()
    if transform is not None:
        scan.SetAndObserveTransformNodeID(None)
        host.settle(0.1)
        assert "since" not in ui.volumeLabel.text


def test_all_that_changed_is_told_in_one_sentence(host: Host, made: MadeOutput) -> None:
    """Two scans are named together."""
    panel = with_brain(host, made)
    press(host, panel)
    for name in ("t1", "flair"):
        change(getattr(panel.result.nodes, name), "voxels")
    host.settle(0.1)
    assert "T1 and FLAIR have moved or changed since" in panel.ui.volumeLabel.text


def test_a_given_mask_that_is_edited_later_is_told(host: Host, made: MadeOutput) -> None:
    """A picture from a mask is of the mask as it was."""
    from D3MSynthesisLib import Masks

    panel = opened(host, made)
    press(host, panel)
    first = panel.result.nodes
    panel.parameters.enhancementMask = first.segmentation
    engine = slow(host, panel, made, panel.ui.steerButton)
    (engine / "go.txt").write_text("")
    host.until(lambda: not panel.logic.running, 20)
    host.settle(0.1)
    assert panel.result.nodes.runID != first.runID
    assert panel.result.nodes.givenMask is first.segmentation
    assert "since" not in panel.ui.volumeLabel.text
    Masks.setThreshold(first, 0.7)
    host.settle(0.1)
    assert "The given mask has moved or changed since" in panel.ui.volumeLabel.text


def test_a_scan_that_moves_during_a_run_is_told(host: Host, made: MadeOutput) -> None:
    """The result is of T2 where it was; what is saved says so, too."""
    panel = with_brain(host, made)
    p = panel.parameters
    engine = slow(host, panel, made)
    change(p.t2, "moved")
    change(p.brainMask, "voxels")
    host.settle(0.1)
    (engine / "go.txt").write_text("")
    host.until(lambda: not panel.logic.running, 20)
    host.settle(0.1)
    notices = panel.result.nodes.notices
    assert [text for text in notices if text.startswith("T2 does not lie by T1 any more")]
    assert [text for text in notices if text.startswith("The brain mask was changed or moved")]
    assert "T2 and the brain mask have moved or changed since" in panel.ui.volumeLabel.text
