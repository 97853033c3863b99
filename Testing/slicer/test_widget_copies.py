"""An earlier copy of the scene is added to it: its runs are runs of their own."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from slicer_helpers import MadeOutput

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from panel_helpers import opened, press  # noqa: E402
from qt_host import Host  # noqa: E402


@pytest.mark.parametrize("panelIsShown", [True, False])
def test_a_run_that_is_read_twice_is_two_runs(host: Host, made: MadeOutput, tmp_path: Path, panelIsShown: bool) -> None:
    """Each has its own mask, volume and steps; an edit of one is told of that one alone."""
    from D3MSynthesisLib import Captions, Grids, Runs

    panel = opened(host, made)
    press(host, panel)
    assert host.scene.WriteToMRB(str(tmp_path / "earlier.mrb"))
    zipfile.ZipFile(tmp_path / "earlier.mrb").extractall(tmp_path / "earlier")
    first = panel.result.nodes
    known = first.runID
    half = made.mask.T.copy()
    half[: len(half) // 2] = False
    Grids.writeMask(first.segmentation, first.segmentID, half, made.matrix)
    host.settle(0.1)
    if not panelIsShown:
        panel.exit()
    (file,) = (tmp_path / "earlier").rglob("*.mrml")
    host.scene.SetURL(str(file))
    host.scene.Import()
    host.settle(0.2)
    runs = Runs.findRuns(host.scene)
    assert len(runs) == 2
    old, copy = runs
    assert (old.runID, old.cemri) == (known, first.cemri)
    assert {node.GetID() for node in old.all()}.isdisjoint(node.GetID() for node in copy.all())
    assert (old.steps, copy.steps) == (3, 3)
    voxel = abs(np.linalg.det(made.matrix[:3, :3])) / 1000
    assert old.enhancingVolumeMl == pytest.approx(half.sum() * voxel, rel=1e-4)
    assert copy.enhancingVolumeMl == pytest.approx(made.mask.sum() * voxel, rel=1e-4)
    assert (old.edited, copy.edited) == (True, False)
    Runs.updateProxies(copy)
    assert Runs.proxies(copy)["after"].GetAttribute("D3M.Run") == copy.runID
    Grids.writeMask(copy.segmentation, copy.segmentID, made.t1.T > 100, made.matrix)
    slicer.util.setSliceViewerLayers(background=copy.cemri)
    host.settle(0.2)
    assert copy.edited
    assert copy.enhancingVolumeMl == pytest.approx((made.t1.T > 100).sum() * voxel, rel=1e-4)
    assert old.enhancingVolumeMl == pytest.approx(half.sum() * voxel, rel=1e-4)
    old.segmentation.GetDisplayNode().SetVisibility(True)
    assert "(edited)" in Captions.maskCaption(host.scene, "Red"), "the other run's mask lies over this one's image"
    panel.enter()
    panel.result.refresh()
    assert panel.result.nodes.runID == copy.runID
    assert panel.ui.runBox.count == 2
