"""The synthetic image is cropped or resampled in other modules: steps and mask stay what and where they were."""

from __future__ import annotations

import numpy as np
import pytest
from slicer_helpers import MadeOutput

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from panel_helpers import background, opened, press  # noqa: E402
from qt_host import Host  # noqa: E402


def crop(host: Host, node: object, output: object = None) -> object:
    """What Slicer's module Crop Volume makes of a volume: a part about the tumour's edge, as a copy or in place."""
    logic = slicer.vtkSlicerCropVolumeLogic()
    logic.SetMRMLApplicationLogic(host.mrml.application)
    logic.SetMRMLScene(host.scene)  # the scene knows the class of its parameters now
    bounds = np.zeros(6)
    node.GetRASBounds(bounds)
    region = host.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    region.SetCenter(*(bounds[::2] + bounds[1::2]) / 2 + [4, 4, 0])
    region.SetSize(*(bounds[1::2] - bounds[::2]) / 2)
    given = host.scene.AddNewNodeByClass("vtkMRMLCropVolumeParametersNode")
    given.SetInputVolumeNodeID(node.GetID())
    given.SetROINodeID(region.GetID())
    given.SetOutputVolumeNodeID(None if output is None else output.GetID())
    given.SetVoxelBased(True)
    assert logic.Apply(given) == 0
    return host.scene.GetNodeByID(given.GetOutputVolumeNodeID())


@pytest.mark.parametrize("how", ["in place", "coarser", "a copy alone"])
def test_a_cropped_result(host: Host, made: MadeOutput, how: str) -> None:
    """Volume and steps are as before; nobody is told of an edit; what cannot be compared says so."""
    panel = opened(host, made)
    panel.parameters.reference = slicer.util.addVolumeFromArray(made.cemri.T.copy(), ijkToRAS=made.matrix, name="p_t1c")
    press(host, panel)
    panel.ui.compareButton.click()
    nodes, size = panel.result.nodes, panel.result.nodes.cemri.GetImageData().GetDimensions()
    rows = [panel.ui.comparisonTable.item(2, column).text() for column in (0, 1)]
    volume, place = nodes.enhancingVolumeMl, np.array(nodes.stepAfter.GetNthDataNode(0).GetOrigin())
    press(host, panel)
    second = panel.result.nodes
    if how == "coarser":
        array, matrix = slicer.util.arrayFromVolume(nodes.cemri)[::2].copy(), made.matrix.copy()
        matrix[:3, 2] *= 2
        slicer.util.updateVolumeFromArray(nodes.cemri, array)
        nodes.cemri.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    elif how == "in place":
        crop(host, nodes.cemri, nodes.cemri)
    else:
        crop(host, nodes.cemri)
        host.scene.RemoveNode(nodes.cemri)
    host.settle(0.6)
    panel.result.onRun([run.runID for run in reversed(panel.result.runs)].index(nodes.runID))
    host.settle(0.6)
    nodes = panel.result.nodes
    assert nodes.cemri.GetImageData().GetDimensions() != size
    assert background(host) is nodes.cemri
    assert nodes.enhancingVolumeMl == pytest.approx(volume)
    assert not nodes.edited
    assert [panel.ui.comparisonTable.item(2, column).text() for column in (0, 1)] == rows
    panel.ui.stepSlider.setValue(1)
    np.testing.assert_allclose(nodes.stepAfter.GetNthDataNode(0).GetOrigin(), place)
    np.testing.assert_allclose(background(host).GetOrigin(), place)
    for index in range(panel.ui.deformationBox.count):
        panel.ui.deformationBox.setCurrentIndex(index)
    for name in ("sideBySide", "contrasts", "comparison", "beforeAfter", "fourUp", "show3D"):
        getattr(panel.ui, f"{name}Button").click()
    panel.ui.compareButton.click()
    assert "cropped or resampled" in panel.ui.errorLabel.text
    assert second.enhancingVolumeMl == pytest.approx(volume)
    assert host.faults == []


def test_a_cropped_result_that_is_hardened_takes_its_steps_along(host: Host, made: MadeOutput) -> None:
    """After it was cropped a transform that is hardened onto it moves the steps as it did before."""
    panel = opened(host, made)
    press(host, panel)
    nodes = panel.result.nodes
    place = np.array(nodes.stepAfter.GetNthDataNode(0).GetOrigin())
    crop(host, nodes.cemri, nodes.cemri)
    host.settle(0.6)
    matrix = np.eye(4)
    matrix[:3, 3] = 5, -3, 2
    transform = host.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    nodes.cemri.SetAndObserveTransformNodeID(transform.GetID())
    nodes.cemri.HardenTransform()
    host.settle(0.6)
    np.testing.assert_allclose(nodes.stepAfter.GetNthDataNode(0).GetOrigin(), place + matrix[:3, 3], atol=1e-5)
