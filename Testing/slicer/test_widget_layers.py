"""What lies over images in the views: other patients' leaves a result or is named, and ours is marked everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import vtk
from slicer_helpers import MadeOutput

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from panel_helpers import MARK, background, examination, label_map, moved, opened, press, scans, tissues  # noqa: E402
from qt_host import Host  # noqa: E402

from D3MSynthesisLib import Captions, Seen  # noqa: E402


def written(host: Host, view: str = "Red") -> str:
    """What stands at the edges of a view."""
    host.settle(0.1)
    annotation = host.application.layoutManager().sliceWidget(view).sliceView().cornerAnnotation()
    return "\n".join(text.rstrip() for place in (7, 4) if (text := annotation.GetText(place) or "").strip())


def label(made: MadeOutput, name: str) -> object:
    """A label map."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, made.mask.T.astype(np.uint8))
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(made.matrix))
    return node


def segmentation(made: MadeOutput, name: str) -> object:
    """A segmentation that a person has drawn."""
    from D3MSynthesisLib.Grids import writeMask

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.GetSegmentation().SetSourceRepresentationName("Binary labelmap")
    node.GetSegmentation().AddEmptySegment("s", "tumour", (1, 0, 0))
    writeMask(node, "s", made.mask.T, made.matrix)
    return node


def model(name: str) -> object:
    """A surface that is cut by the slice views."""
    source = vtk.vtkSphereSource()
    source.SetRadius(8)
    source.Update()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", name)
    node.SetAndObservePolyData(source.GetOutput())
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetVisibility2D(True)
    return node


def test_another_patients_images_leave_a_result(host: Host, made: MadeOutput) -> None:
    """Label map, segmentation and further layers go when a result is shown; shown again, they are named."""
    panel = opened(host, made, ("5: t1", "6: t2", "7: flair"))
    p = panel.parameters
    mine, hers = segmentation(made, "own drawing"), segmentation(made, "tumour of A")
    own, surface = model("own surface"), model("surface of A")
    scan = slicer.util.addVolumeFromArray(made.t1.T + 9, ijkToRAS=made.matrix, name="t1 of A")
    other = label(made, "label of A")
    examination("B", [p.t1, p.t2, p.flair, mine, own])
    examination("A", [hers, scan, other, surface])

    def show() -> None:
        for view in Seen.composites(host.scene):
            view.SetLabelVolumeID(other.GetID())
            view.SetNthLayerVolumeID(view.LayerLabel + 1, scan.GetID())
            view.SetNthLayerOpacity(view.LayerLabel + 1, 0.7)
        hers.GetDisplayNode().SetVisibility(True)
        surface.GetDisplayNode().SetVisibility(True)

    show()
    host.settle()
    press(host, panel)
    assert written(host) == MARK
    assert not hers.GetDisplayNode().GetVisibility()
    assert not surface.GetDisplayNode().GetVisibility()
    assert mine.GetDisplayNode().GetVisibility()
    assert own.GetDisplayNode().GetVisibility()
    for view in Seen.composites(host.scene):
        assert view.GetLabelVolumeID() is None
        assert view.GetNthLayerVolumeID(view.LayerLabel + 1) in (None, "")
    show()
    assert written(host) == (
        f"{MARK}\nof another patient, examination or run: label of A, t1 of A, tumour of A, surface of A"
    )
    surface.GetDisplayNode().SetVisibility(False)
    slicer.util.setSliceViewerLayers(foreground=scan, foregroundOpacity=0.5)
    hers.GetDisplayNode().SetVisibility(False)
    for view in Seen.composites(host.scene):
        view.SetLabelVolumeID(None)
        view.SetNthLayerOpacity(view.LayerLabel + 1, 0)
    assert "of another patient, examination or run: t1 of A" in written(host)


def test_a_drawing_beside_the_examinations_of_a_patient_is_hers(host: Host, made: MadeOutput) -> None:
    """In the data tree a segmentation may lie under the patient herself: it stays over the result, unnamed."""
    panel = opened(host, made, ("5: t1", "6: t2", "7: flair"))
    p = panel.parameters
    mine, hers = segmentation(made, "drawing"), segmentation(made, "tumour of A")
    examination("B", [p.t1, p.t2, p.flair, mine])
    examination("A", [hers])
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(host.scene)
    for node in (mine, hers):
        item = tree.GetItemByDataNode(node)
        tree.SetItemParent(item, tree.GetItemParent(tree.GetItemParent(item)))
    press(host, panel)
    assert mine.GetDisplayNode().GetVisibility()
    assert not hers.GetDisplayNode().GetVisibility()
    hers.GetDisplayNode().SetVisibility(True)
    assert written(host) == f"{MARK}\nof another patient, examination or run: tumour of A"


def test_an_earlier_run_over_a_result_is_named(host: Host, made: MadeOutput) -> None:
    """Two results of one patient look alike."""
    panel = opened(host, made)
    press(host, panel)
    first = panel.result.nodes
    press(host, panel)
    second = panel.result.nodes
    assert second.runID != first.runID
    slicer.util.setSliceViewerLayers(foreground=first.cemri, foregroundOpacity=0.5)
    assert f"of another patient, examination or run: {first.cemri.GetName()}" in written(host)
    slicer.util.setSliceViewerLayers(foreground=second.probability, foregroundOpacity=0.5)
    assert "of another" not in written(host)


def test_a_predicted_mask_is_marked_as_label_and_alone(host: Host, made: MadeOutput) -> None:
    """A label map over T1 looks as if somebody had drawn it; so does an outline in a view without an image."""
    panel = opened(host, made)
    slicer.util.setSliceViewerLayers(background=panel.parameters.t1)
    mask = slicer.util.loadVolume(str(made.folder / "enhancement_mask.nii.gz"), {"labelmap": True})
    assert written(host) == ""
    slicer.util.setSliceViewerLayers(label=mask)
    assert written(host) == "mask of a synthesis: enhancement_mask"
    slicer.util.setSliceViewerLayers(label=None)
    assert written(host) == ""
    press(host, panel)
    slicer.util.setSliceViewerLayers(background=None, foreground=None)
    assert "mask of a synthesis: Enhancing tumour (predicted)" in written(host)


def test_a_predicted_mask_as_a_model_is_marked(host: Host, made: MadeOutput) -> None:
    """Slicer makes models of segments: their surface, and its cut in the slice views, is no measured tumour."""
    panel = opened(host, made)
    press(host, panel)
    nodes = panel.result.nodes
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(host.scene)
    folder = tree.CreateFolderItem(tree.GetSceneItemID(), "models")
    nodes.segmentation.CreateClosedSurfaceRepresentation()
    slicer.vtkSlicerSegmentationsModuleLogic.ExportAllSegmentsToModels(nodes.segmentation, folder)
    nodes.segmentation.GetDisplayNode().SetVisibility(False)
    (model,) = [
        node
        for node in slicer.util.getNodesByClass("vtkMRMLModelNode")
        if not slicer.vtkMRMLSliceLogic.IsSliceModelNode(node)
    ]
    slicer.util.setSliceViewerLayers(background=nodes.t1)
    display = model.GetDisplayNode()
    display.SetVisibility2D(False)
    assert written(host) == ""
    assert Captions.surfaceCaption(host.scene, None) == f"surface: {MARK}\nEnhancing tumour (predicted)"
    display.SetVisibility2D(True)
    assert written(host) == "mask of a synthesis: Enhancing tumour (predicted)"
    display.SetVisibility(False)
    assert written(host) == ""
    assert Captions.surfaceCaption(host.scene, None) == ""


def test_a_field_that_another_module_draws_is_marked(host: Host, made: MadeOutput) -> None:
    """The module Transforms draws a run's field over an acquired scan, and in 3-D, as it would draw a measured one."""
    panel = opened(host, made)
    press(host, panel)
    nodes = panel.result.nodes
    nodes.segmentation.GetDisplayNode().SetVisibility(False)
    slicer.util.setSliceViewerLayers(background=nodes.t1)
    assert written(host) == ""
    display, said = nodes.deformation.GetDisplayNode(), f"{nodes.deformation.GetName()}\n{nodes.cemri.GetName()}"
    display.SetVisibility(True)
    display.SetVisibility2D(True)
    assert written(host) == f"drawing: {MARK}\n{said}"
    assert Captions.surfaceCaption(host.scene, None) == ""
    display.SetVisibility3D(True)
    assert Captions.surfaceCaption(host.scene, None) == f"drawing: {MARK}\n{said}"
    display.SetVisibility(False)
    assert written(host) == ""
    own = host.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "registration")
    own.CreateDefaultDisplayNodes()
    own.GetDisplayNode().SetVisibility(True)
    own.GetDisplayNode().SetVisibility2D(True)
    assert written(host) == ""


@pytest.mark.parametrize("alone", ["cemri", "probability"])
def test_an_image_that_was_moved_alone_is_named(host: Host, made: MadeOutput, alone: str) -> None:
    """The data tree moves nodes one by one: an overlay that does not lie on the synthetic image is no longer its."""
    panel = opened(host, made)
    press(host, panel)
    nodes = panel.result.nodes
    panel.parameters.maskVisible = False
    panel.ui.overlayBox.setCurrentIndex(2)
    assert written(host) == MARK
    moved(getattr(nodes, alone), "transform")
    host.settle(0.7)
    assert written(host) == f"{MARK}\nnot where the synthetic image lies: {nodes.probability.GetName()}"
    panel.ui.overlayBox.setCurrentIndex(0)
    assert "not where" not in written(host)
    panel.ui.overlayBox.setCurrentIndex(2)
    for node in (nodes.cemri, nodes.probability):
        node.SetAndObserveTransformNodeID(getattr(nodes, alone).GetTransformNodeID())
    host.settle(0.7)
    assert written(host) == MARK
    nodes.cemri.HardenTransform()
    host.settle(0.7)
    assert written(host) == MARK


@pytest.mark.parametrize("alone", ["cemri", "sample", "deformation", "magnitude"])
@pytest.mark.parametrize("picture", ["arrows", "magnitude"])
def test_a_deformation_that_was_left_behind_is_named(host: Host, made: MadeOutput, alone: str, picture: str) -> None:
    """The picture that was deformed, its colours and arrows lie where they lay on the synthetic image, or are named."""
    from D3MSynthesisLib.Parameters import Deformation

    panel = opened(host, made)
    press(host, panel)
    nodes, told = panel.result.nodes, "not where the synthetic image lies"
    panel.parameters.deformation = Deformation(picture)
    host.settle(0.7)
    assert told not in written(host)
    moved(getattr(nodes, alone), "transform")
    host.settle(0.7)
    seen = ("sample", "deformation" if picture == "arrows" else "magnitude")
    named = [getattr(nodes, name).GetName() for name in seen if alone in ("cemri", name)]
    assert [line for line in written(host).split("\n") if told in line] == (
        [f"{told}: {', '.join(named)}"] if named else []
    )
    for node in nodes.all():
        if node.IsA("vtkMRMLTransformableNode"):
            node.SetAndObserveTransformNodeID(getattr(nodes, alone).GetTransformNodeID())
    host.settle(0.7)
    assert told not in written(host)
    for node in nodes.all():
        if node.IsA("vtkMRMLTransformableNode"):
            node.HardenTransform()
    host.settle(0.7)
    assert told not in written(host)


def test_a_moved_deformation_is_named_over_scans_too(host: Host, made: MadeOutput) -> None:
    """Side by side the first view has T1 alone, and the same arrows."""
    from D3MSynthesisLib.Parameters import Deformation

    panel = opened(host, made)
    press(host, panel)
    nodes = panel.result.nodes
    panel.ui.sideBySideButton.click()
    panel.parameters.deformation = Deformation.ARROWS
    moved(nodes.deformation, "transform")
    host.settle(0.7)
    for view in ("Red", "Yellow"):
        assert f"not where the synthetic image lies: {nodes.deformation.GetName()}" in written(host, view)


def test_an_image_of_a_step_that_was_moved_alone_is_named(host: Host, made: MadeOutput) -> None:
    """Before and after a warp are looked at beside each other."""
    panel = opened(host, made)
    press(host, panel)
    nodes = panel.result.nodes
    panel.ui.beforeAfterButton.click()
    step = background(host)
    assert step.GetAttribute("D3M.Role") == "proxyBefore"
    assert "not where" not in written(host)
    moved(step, "transform")
    host.settle(0.7)
    assert f"not where the synthetic image lies: {step.GetName()}" in written(host)
    nodes.cemri.SetAndObserveTransformNodeID(step.GetTransformNodeID())
    host.settle(0.7)
    assert "not where" not in written(host)


@pytest.mark.parametrize("alone", ["deformation", "cemri", "all but the field"])
@pytest.mark.parametrize("harden", [False, True])
def test_the_map_of_volume_change_lies_on_the_synthetic_image(
    host: Host, made: MadeOutput, alone: str, harden: bool
) -> None:
    """Whatever was done to the field alone, or was not done to it: colours beside their picture would mislead."""
    from D3MSynthesisLib.Grids import matrixOf, worldFrom
    from D3MSynthesisLib.Parameters import Deformation

    panel = opened(host, made)
    press(host, panel)
    nodes = panel.result.nodes
    before = matrixOf(nodes.sample) @ [3, 2, 1, 1]
    whole = [node for node in nodes.all() if node.IsA("vtkMRMLTransformableNode") and node is not nodes.deformation]
    chosen = whole if alone == "all but the field" else [getattr(nodes, alone)]
    moved(chosen[0], "transform")
    for node in chosen:
        node.SetAndObserveTransformNodeID(chosen[0].GetTransformNodeID())
        if harden:
            node.HardenTransform()
    host.settle(0.7)
    panel.parameters.deformation = Deformation.JACOBIAN
    host.settle(0.7)
    shown = worldFrom(nodes.fieldMap).TransformPoint((matrixOf(nodes.fieldMap) @ [3, 2, 1, 1])[:3])
    shift = 0 if alone == "deformation" else 4
    np.testing.assert_allclose(np.subtract(shown, before[:3]), (shift, 0, 0), atol=1e-3)


def test_marks_stay_where_the_synthetic_image_has_lost_its_voxels(host: Host, made: MadeOutput) -> None:
    """A scene whose file of the image is gone shows the probability still: every view says what it is."""
    panel = opened(host, made)
    press(host, panel)
    nodes = panel.result.nodes
    nodes.cemri.SetAndObserveImageData(None)
    slicer.util.setSliceViewerLayers(background=nodes.probability, foreground=None)
    for view in ("Red", "Yellow", "Green"):
        assert written(host, view) == MARK


def test_what_a_threshold_lets_see_is_marked(host: Host, made: MadeOutput) -> None:
    """The real scan covers the synthetic one until its lower values are not drawn any more."""
    panel = opened(host, made)
    press(host, panel)
    nodes = panel.result.nodes
    panel.parameters.maskVisible = False
    slicer.util.setSliceViewerLayers(background=nodes.cemri, foreground=nodes.t1, foregroundOpacity=1.0)
    assert written(host) == ""
    display = nodes.t1.GetDisplayNode()
    display.SetThreshold(100, 10000)
    display.SetApplyThreshold(True)
    assert MARK in written(host)
    display.SetApplyThreshold(False)
    assert written(host) == ""


@pytest.mark.parametrize("alone", ["cemri", "segmentation"])
@pytest.mark.parametrize("how", ["matrix", "warp"])
def test_a_mask_that_was_left_behind_is_named(host: Host, made: MadeOutput, alone: str, how: str) -> None:
    """An outline beside its enhancement would be read as another lesion; moved with it, nothing is told."""
    panel = opened(host, made)
    press(host, panel)
    nodes, told = panel.result.nodes, "not where the synthetic image lies"
    if how == "matrix":
        moved(getattr(nodes, alone), "transform")  # by whole voxels
    else:
        warp = host.scene.AddNewNodeByClass("vtkMRMLTransformNode", "warp")
        warp.SetAndObserveTransformFromParent(nodes.deformation.GetTransformFromParent())
        getattr(nodes, alone).SetAndObserveTransformNodeID(warp.GetID())
    host.settle(0.7)
    assert f"{told}: {nodes.segmentation.GetName()}" in written(host)
    nodes.segmentation.GetDisplayNode().SetVisibility(False)
    assert told not in written(host)
    nodes.segmentation.GetDisplayNode().SetVisibility(True)
    for node in (nodes.cemri, nodes.segmentation):
        node.SetAndObserveTransformNodeID(getattr(nodes, alone).GetTransformNodeID())
    host.settle(0.7)
    assert told not in written(host)
    if how == "matrix":
        nodes.cemri.HardenTransform()  # the mask is under the transform still
        host.settle(0.7)
        assert told not in written(host)


@pytest.mark.parametrize(
    ("scan", "strange"), [("jones_t1", True), ("smith_t1c", False), ("perfusion map", False), ("T1", True)]
)
@pytest.mark.parametrize("over", ["enhancement probability", "synthetic subtraction"])
def test_a_scan_of_another_patient_by_its_name_or_folder(
    host: Host, made: MadeOutput, tmp_path: Path, over: str, scan: str, strange: bool
) -> None:
    """Who opens the eye of the next patient's scan has it under the overlay of the result before: it is named."""
    panel = opened(host, made, ("smith_t1", "smith_t2", "smith_flair"))
    place = tmp_path / "smith" / "t1.nii.gz"
    for node in (panel.parameters.t1, panel.parameters.t2, panel.parameters.flair):
        node.AddDefaultStorageNode()
        node.GetStorageNode().SetFileName(str(place))
    press(host, panel)
    panel.result.nodes.segmentation.GetDisplayNode().SetVisibility(False)
    other = slicer.util.addVolumeFromArray(made.t1.T + 9, ijkToRAS=made.matrix, name=scan)
    other.AddDefaultStorageNode()
    other.GetStorageNode().SetFileName(str(place if not strange else tmp_path / "jones" / "t1.nii.gz"))
    overlay = slicer.util.getNode(f"smith_t1 {over}")
    slicer.util.setSliceViewerLayers(background=other, foreground=overlay, foregroundOpacity=0.6)
    assert (f"of another patient, examination or run: {scan}" in written(host)) is strange
    for name in ("smith_t1", "smith_flair"):
        slicer.util.setSliceViewerLayers(background=slicer.util.getNode(name))
        assert "of another patient" not in written(host)


def test_a_mask_of_another_patient_over_a_part_of_a_result(host: Host, made: MadeOutput) -> None:
    """Over the subtraction, which does not know its scans, it is named as over the synthetic image."""
    panel = opened(host, made, ("smith_t1", "smith_t2", "smith_flair"))
    press(host, panel)
    panel.result.nodes.segmentation.GetDisplayNode().SetVisibility(False)
    scans(made, "jones_t1")
    drawn = segmentation(made, "jones tumour")
    for picture in (panel.result.nodes.cemri, panel.result.nodes.subtraction):
        slicer.util.setSliceViewerLayers(background=picture)
        assert "of another patient, examination or run: jones tumour" in written(host)
    drawn.SetName("smith tumour")
    host.settle()
    Captions.markViews()
    assert "of another patient" not in written(host)


def test_another_modules_text_takes_no_mark_away(host: Host, made: MadeOutput) -> None:
    """Both stand there, and the mark goes by itself."""
    panel = opened(host, made)
    annotation = host.application.layoutManager().sliceWidget("Red").sliceView().cornerAnnotation()
    annotation.SetText(7, "Biopsy\nplan")
    annotation.SetText(4, "not for guidance")
    press(host, panel)
    nodes = panel.result.nodes
    host.settle(0.1)
    assert annotation.GetText(7) == f"Biopsy\nplan\n{MARK}"
    panel.ui.pictureBox.setCurrentIndex(2)
    assert annotation.GetText(7) == f"Biopsy\nplan\n{MARK}\nthe sample by itself"
    slicer.util.setSliceViewerLayers(background=nodes.t1)
    panel.ui.pictureBox.setCurrentIndex(0)
    slicer.util.setSliceViewerLayers(background=nodes.t1)
    assert annotation.GetText(7) == "Biopsy\nplan"
    assert annotation.GetText(4).startswith("not for guidance\nmask of a synthesis: ")
    nodes.segmentation.GetDisplayNode().SetVisibility(False)
    host.settle(0.1)
    assert annotation.GetText(4) == "not for guidance"


def test_a_synthetic_layer_in_a_3d_view_is_marked(host: Host, made: MadeOutput) -> None:
    """A slice in 3-D shows its label map and further layers, too."""
    panel = opened(host, made)
    press(host, panel)
    nodes = panel.result.nodes
    nodes.segmentation.GetDisplayNode().SetVisibility(False)
    slicer.util.setSliceViewerLayers(background=nodes.t1, foreground=None)
    (red,) = [node for node in Seen.sliceNodes(host.scene) if node.GetLayoutName() == "Red"]
    red.SetSliceVisible(True)
    assert Captions.surfaceCaption(host.scene, None) == ""
    (view,) = [node for node in Seen.composites(host.scene) if node.GetLayoutName() == "Red"]
    view.SetNthLayerVolumeID(view.LayerLabel + 1, nodes.cemri.GetID())
    view.SetNthLayerOpacity(view.LayerLabel + 1, 0.5)
    assert Captions.surfaceCaption(host.scene, None) == f"{MARK}\n{nodes.cemri.GetName()}"


@pytest.mark.parametrize("over", ["label map", "colours", "turned", "whole"])
def test_an_image_that_does_not_cover_the_synthetic_one(host: Host, made: MadeOutput, over: str) -> None:
    """Beside a slab that is turned, or through values without colour, the synthetic image is seen, and marked."""
    panel = opened(host, made)
    slicer.util.setSliceViewerLayers(background=panel.parameters.t1)
    press(host, panel)
    nodes = panel.result.nodes
    nodes.segmentation.GetDisplayNode().SetVisibility(False)
    labels = tissues(made.t1.T.shape)
    if over == "turned":
        matrix, turn = np.eye(4), np.radians(35)
        matrix[1:3, 1:3] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        matrix[:3, 3] = [3, -2, 5] - matrix[:3, :3] @ [29.5, 39.5, 7.5]
        scan = slicer.util.addVolumeFromArray(np.full((16, 80, 60), 100.0), ijkToRAS=matrix, name="slab")
        inner, outer = np.zeros(6), np.zeros(6)
        nodes.cemri.GetRASBounds(inner)
        scan.GetRASBounds(outer)
        assert (outer[::2] < inner[::2]).all(), "its bounds alone would tell that it covers"
        assert (outer[1::2] > inner[1::2]).all()
    elif over == "label map":
        scan = label_map(labels, made.matrix)
    else:
        scan = slicer.util.addVolumeFromArray(labels.astype(np.int16), ijkToRAS=made.matrix, name="classes")
    if over == "colours":
        table = host.scene.AddNewNodeByClass("vtkMRMLColorTableNode")
        table.SetTypeToUser()
        table.SetNumberOfColors(4)
        for value in range(4):
            table.SetColor(value, str(value), 1, 0, 0, float(value > 0))
        scan.GetDisplayNode().SetAndObserveColorNodeID(table.GetID())
    slicer.util.setSliceViewerLayers(background=nodes.t1, foreground=scan, foregroundOpacity=1.0)
    assert written(host) == ""
    slicer.util.setSliceViewerLayers(background=nodes.cemri)
    assert written(host) == ("" if over == "whole" else MARK)
