"""What is written into the views: synthetic images, surfaces and masks are known as such wherever they are seen."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from slicer_helpers import MadeOutput

slicer = pytest.importorskip("slicer")
vtk = pytest.importorskip("vtk")
pytest.importorskip("PySide6.QtUiTools")
from panel_helpers import MARK, opened, press  # noqa: E402
from qt_host import Host  # noqa: E402
from qt_host.host import PANEL_WIDTH  # noqa: E402


def test_a_mask_over_an_acquired_scan_is_named(host: Host, made: MadeOutput) -> None:
    """The outline beside the synthetic image lies over T1 as well; hidden or edited it is told so; nobody else's is."""
    from D3MSynthesisLib import Grids

    def told(view: str = "Red") -> str:
        host.settle()
        return (
            host.application.layoutManager().sliceWidget(view).sliceView().cornerAnnotation().GetText(4) or ""
        ).rstrip()

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

    def written() -> str:
        host.settle()
        return corner.GetText(7) or ""

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
    assert not written(), "no surface was made yet"
    result.segmentation.CreateClosedSurfaceRepresentation()
    told = f"surface: {MARK}\nEnhancing tumour (predicted)\np_t1 synthetic CEMRI"
    assert written() == told
    result.segmentation.RemoveClosedSurfaceRepresentation()
    assert not written()
    panel.ui.show3DButton.click()
    assert (written(), other.GetText(7)) == (told, f"of another module\n{told}")
    display.SetVisibility3D(False)
    assert not written(), "the brain alone is not predicted"
    display.SetVisibility3D(True)
    assert written() == told
    display.SetSegmentVisibility(result.segmentID, False)
    assert not written()
    display.SetSegmentVisibility(result.segmentID, True)
    display.SetSegmentVisibility3D(result.segmentID, False)
    assert not written()
    display.SetSegmentVisibility3D(result.segmentID, True)
    display.AddViewNodeID(nodes[1].GetID())
    assert not written(), "it is in the other view alone"
    display.RemoveAllViewNodeIDs()
    assert written() == told
    host.scene.Clear(0)
    host.settle()
    assert not written()


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


def corner(host: Host, place: int, view: str = "Red") -> str:
    """What is written at a place of a view's corner annotation, once the application had time to."""
    host.settle()
    return (
        host.application.layoutManager().sliceWidget(view).sliceView().cornerAnnotation().GetText(place) or ""
    ).rstrip()


def show(host: Host, background: object, foreground: object = None, opacity: float = 0.0) -> None:
    """Put images into all views, as the slice views' own selectors do."""
    slicer.util.setSliceViewerLayers(background=background, foreground=foreground, foregroundOpacity=opacity)


def test_a_scene_is_marked_without_the_panel(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """Who opens a saved scene and never the module sees the mark, too; a file's name is enough for it."""
    from D3MSynthesisLib import Saving

    widget = host.openModule("D3MSynthesis")
    panel = opened(host, made)
    press(host, panel)
    saved = Saving.saveRun(panel.result.nodes, tmp_path)
    assert host.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    for found in (widget, slicer.modules.d3msynthesis.widgetRepresentation().self()):
        host.closeModule(found)
    host.clear()
    assert corner(host, 7) == ""
    host.scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    show(host, next(node for node in volumes if node.GetName() == "p_t1 synthetic CEMRI"))
    assert corner(host, 7) == MARK
    acquired = next(node for node in volumes if node.GetName() == "p_t1")
    show(host, acquired)
    assert corner(host, 7) == ""
    segmentation = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")[0]
    segmentation.GetDisplayNode().SetVisibility(False)
    assert corner(host, 4) == ""
    segmentation.GetDisplayNode().SetVisibility(True)
    assert corner(host, 4).startswith("mask of a synthesis")
    for name in ("synthetic_cemri", "synthetic_subtraction", "synthetic_first_sample"):
        show(host, acquired)
        show(host, slicer.util.loadVolume(str(saved / f"{name}.nrrd")))
        assert corner(host, 7) == MARK, name


def test_other_modules_change_what_is_marked(host: Host, made: MadeOutput) -> None:
    """In Segment Editor or Segmentations a mask is edited, hidden and shown; the panel is not looked at then."""
    from D3MSynthesisLib import Grids

    panel = opened(host, made)
    press(host, panel)
    nodes = panel.result.nodes
    panel.ui.sideBySideButton.click()
    panel.exit()
    nodes.segmentation.GetDisplayNode().SetVisibility(False)
    assert corner(host, 4) == ""
    nodes.segmentation.GetDisplayNode().SetVisibility(True)
    assert "(predicted)" in corner(host, 4)
    Grids.writeMask(nodes.segmentation, nodes.segmentID, made.mask.T[::-1].copy(), Grids.matrixOf(nodes.cemri))
    host.settle()
    assert "(edited)" in corner(host, 4)
    panel.enter()
    assert panel.result.nodes.edited


def test_what_lies_over_another_result_is_named(host: Host, made: MadeOutput) -> None:
    """One patient's outline or drawing over another one's synthetic image, or scan, says whose it is."""
    panel = opened(host, made)
    press(host, panel)
    first = panel.result.nodes
    for scan in ("t1", "t2", "flair"):
        node = slicer.util.addVolumeFromArray(made.t1.T + 9, ijkToRAS=made.matrix, name=f"q_{scan}")
        setattr(panel.parameters, scan, node)
    press(host, panel)
    second = panel.result.nodes
    assert corner(host, 4) == "", "its own mask"
    panel.ui.deformationBox.setCurrentIndex(3)
    assert "q_t1 synthetic CEMRI" not in corner(host, 7), "its own drawing"
    show(host, first.cemri)
    second.segmentation.GetDisplayNode().SetVisibility2D(True)
    assert corner(host, 4) == "mask of a synthesis: Enhancing tumour (predicted)\nq_t1 synthetic CEMRI"
    assert corner(host, 7).startswith(f"{MARK}\ndeformation of the last step")
    assert corner(host, 7).endswith("\nq_t1 synthetic CEMRI")
    show(host, first.t1)
    assert corner(host, 7).startswith(f"drawing: {MARK}\ndeformation of the last step")
    assert corner(host, 7).endswith("\nq_t1 synthetic CEMRI")


def test_synthetic_images_in_3d_are_marked(host: Host, made: MadeOutput, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice that is shown in a 3-D view, and a volume that is rendered there, are as synthetic as in the slices.

    vtkMRMLColorLegendDisplayableManager.cxx (UpdateActor) finds slices in a 3-D view in the same way.
    """
    text, node = vtk.vtkCornerAnnotation(), host.scene.AddNewNodeByClass("vtkMRMLViewNode")
    view = SimpleNamespace(cornerAnnotation=lambda: text, mrmlViewNode=lambda: node, scheduleRender=lambda: None)
    manager = host.application.layoutManager()
    monkeypatch.setattr(manager, "threeDViewCount", 1, raising=False)
    monkeypatch.setattr(manager, "threeDWidget", lambda _index: SimpleNamespace(threeDView=lambda: view), raising=False)
    panel = opened(host, made)
    press(host, panel)
    nodes, red = panel.result.nodes, host.views["Red"].node
    told = f"{MARK}\np_t1 synthetic CEMRI"
    assert not text.GetText(7)
    red.SetSliceVisible(True)
    assert text.GetText(7) == told
    show(host, nodes.t1)
    assert not text.GetText(7), "an acquired scan"
    show(host, nodes.cemri)
    red.AddThreeDViewID("vtkMRMLViewNodeOther")
    assert not text.GetText(7), "it is in another view"
    red.RemoveAllThreeDViewIDs()
    assert text.GetText(7) == told
    red.SetSliceVisible(False)
    assert not text.GetText(7)
    host.scene.RegisterNodeClass(slicer.vtkMRMLGPURayCastVolumeRenderingDisplayNode())  # the application's module does
    display = host.scene.AddNewNodeByClass("vtkMRMLGPURayCastVolumeRenderingDisplayNode")
    display.SetVisibility(False)
    nodes.cemri.AddAndObserveDisplayNodeID(display.GetID())
    display.SetVisibility(True)
    assert text.GetText(7) == told
    display.SetVisibility(False)
    assert not text.GetText(7)


def test_a_step_that_another_module_chose_is_named_and_drawn(host: Host, made: MadeOutput) -> None:
    """The Sequences toolbar plays a run's steps while another module is shown: text and drawing are of that step."""
    panel = opened(host, made)
    press(host, panel)
    nodes, ui = panel.result.nodes, panel.ui
    ui.stepSlider.setValue(3)
    ui.deformationBox.setCurrentIndex(3)
    ui.stepImageBox.setCurrentIndex(0)
    assert "before the warp of the last step" in corner(host, 7)
    panel.exit()
    nodes.browser.SetSelectedItemNumber(0)
    host.settle()
    written = corner(host, 7)
    assert "before the warp of step 1 of 3" in written
    assert "deformation of step 1 of 3" in written
    show(host, nodes.t2)
    nodes.browser.SetSelectedItemNumber(1)
    host.settle()
    composite = host.views["Red"].logic.GetSliceCompositeNode()
    assert composite.GetBackgroundVolumeID() == nodes.t2.GetID(), "nothing of the run was looked at"
    proxy = nodes.browser.GetProxyNode(nodes.stepBefore)
    show(host, proxy)
    assert "before the warp of step 2 of 3" in corner(host, 7)


def test_an_edit_is_named_without_the_panel(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """The mask of a run that the panel does not show, or of a scene that is opened without it, is edited."""
    from D3MSynthesisLib import Grids, Runs

    def edit(nodes: object) -> str:
        Grids.writeMask(nodes.segmentation, nodes.segmentID, made.mask.T[::-1].copy(), Grids.matrixOf(nodes.cemri))
        host.settle()
        return nodes.segmentation.GetSegmentation().GetSegment(nodes.segmentID).GetName()

    widget = host.openModule("D3MSynthesis")
    panel = opened(host, made)
    press(host, panel)
    press(host, panel)
    other, shown = Runs.findRuns(host.scene)
    assert panel.result.nodes.runID == shown.runID
    assert host.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    assert edit(other) == "Enhancing tumour (edited)"
    assert (other.edited, shown.edited) == (True, False)
    assert edit(shown) == "Enhancing tumour (edited)"
    assert "edited" in panel.ui.volumeLabel.text, "the panel tells its own, whoever has noticed it first"
    for found in (widget, slicer.modules.d3msynthesis.widgetRepresentation().self()):
        host.closeModule(found)
    host.clear()
    host.scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    host.settle()
    nodes = Runs.findRuns(host.scene)[0]
    assert not nodes.edited
    assert edit(nodes) == "Enhancing tumour (edited)"


def test_images_that_are_added_or_subtracted_are_marked(host: Host, made: MadeOutput) -> None:
    """Slicer can add two images, and newer versions show further layers: a real scan then covers nothing."""
    panel = opened(host, made)
    press(host, panel)
    nodes = panel.result.nodes
    composite = host.views["Red"].logic.GetSliceCompositeNode()
    show(host, nodes.cemri, nodes.t2, 1.0)
    assert corner(host, 7) == ""
    composite.SetCompositing(composite.Add)
    assert corner(host, 7) == MARK
    composite.SetCompositing(composite.Alpha)
    if hasattr(composite, "GetNumberOfAdditionalLayers"):
        show(host, nodes.t1)
        assert corner(host, 7) == ""
        composite.SetNthLayerVolumeID(composite.LayerLabel + 1, nodes.cemri.GetID())
        composite.SetNthLayerOpacity(composite.LayerLabel + 1, 0.5)
        assert corner(host, 7) == MARK


def test_a_restored_view_of_the_scene_is_marked(host: Host, made: MadeOutput) -> None:
    """A scene view brings an image back that was removed since: nodes that are there are restored before it.

    The order is that of vtkMRMLSceneViewNode.cxx, RestoreScene.
    """
    panel = opened(host, made)
    press(host, panel)
    cemri = panel.result.nodes.cemri
    composite = host.views["Red"].logic.GetSliceCompositeNode()
    assert corner(host, 7) == MARK
    identifier = cemri.GetID()
    host.scene.RemoveNode(cemri)
    show(host, panel.parameters.t1)
    host.settle()
    assert corner(host, 7) == ""
    host.scene.StartState(host.scene.RestoreState)
    composite.SetBackgroundVolumeID(identifier)
    host.scene.AddNode(cemri)
    host.scene.EndState(host.scene.RestoreState)
    assert host.scene.GetNodeByID(composite.GetBackgroundVolumeID()) is cemri
    assert corner(host, 7) == MARK


def test_what_is_marked_is_not_kept_for_ever(host: Host) -> None:
    """Marks live as long as Slicer; segmentations of other modules, with their voxels, go with their scene."""
    host.openModule("D3MSynthesis")
    kept = vtk.vtkWeakReference()
    node = host.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "of another module")
    node.GetSegmentation().AddEmptySegment("a", "Tumour", (1, 0, 0))
    host.settle()
    kept.Set(node.GetSegmentation())
    del node
    host.clear()
    host.settle()
    assert kept.Get() is None


def clone(host: Host, node: object) -> object:
    """What Clone of the data tree does (vtkSlicerSubjectHierarchyModuleLogic.cxx, lines 390 to 441)."""
    copy = host.scene.AddNewNodeByClass(node.GetClassName())
    copy.CreateDefaultDisplayNodes()
    copy.CopyContent(node)
    copy.SetName(f"{node.GetName()} Copy")
    host.settle()
    return copy


def test_an_edited_copy_of_a_mask_is_named_so(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """Cloned, copied into another segmentation, or read from a file: a mask is called predicted as long as it is."""
    from D3MSynthesisLib import Grids

    def names(node: object) -> tuple[str, str]:
        host.settle()
        return node.GetName(), node.GetSegmentation().GetNthSegment(0).GetName()

    def write(node: object, mask: object) -> None:
        identifier = node.GetSegmentation().GetNthSegmentID(0)
        Grids.writeMask(node, identifier, mask, Grids.matrixOf(nodes.cemri))

    panel = opened(host, made)
    press(host, panel)
    nodes = panel.result.nodes
    original = slicer.util.arrayFromVolume(nodes.probability) >= nodes.threshold
    edited = original.copy()
    edited[tuple(index[0] for index in original.nonzero())] = False
    copy = clone(host, nodes.segmentation)
    predicted = ("p_t1 enhancing tumour (predicted) Copy", "Enhancing tumour (predicted)")
    assert names(copy) == predicted
    panel.ui.thresholdSlider.setValue(0.9)
    assert names(copy) == predicted, "the copy is of the threshold before"
    panel.exit()
    write(copy, edited)
    assert names(copy) == ("p_t1 enhancing tumour (edited) Copy", "Enhancing tumour (edited)")
    assert names(nodes.segmentation) == ("p_t1 enhancing tumour (predicted)", "Enhancing tumour (predicted)")
    nodes.segmentation.GetDisplayNode().SetVisibility(False)
    show(host, nodes.t1)
    assert corner(host, 4).startswith("mask of a synthesis: Enhancing tumour (edited)")
    write(copy, original)
    assert names(copy) == predicted, "the edit was undone"

    own = host.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn by hand")
    source = nodes.segmentation.GetSegmentation()
    assert own.GetSegmentation().CopySegmentFromSegmentation(source, nodes.segmentID)
    assert names(own) == ("drawn by hand", "Enhancing tumour (predicted)")
    write(own, edited)
    assert names(own) == ("drawn by hand", "Enhancing tumour (edited)")

    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(tmp_path / "mask.seg.nrrd"))
    assert storage.WriteData(nodes.segmentation)
    write(nodes.segmentation, edited)
    assert names(nodes.segmentation) == ("p_t1 enhancing tumour (edited)", "Enhancing tumour (edited)")
    read = host.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "read")
    assert storage.ReadData(read)
    assert names(read) == ("read", "Enhancing tumour (predicted)")
    write(read, edited)
    assert names(read) == ("read", "Enhancing tumour (edited)")
    read.CreateDefaultDisplayNodes()
    copy.GetDisplayNode().SetVisibility(False)
    assert corner(host, 4) == "mask of a synthesis: Enhancing tumour (edited)", "it is still not what a person drew"


def test_a_moved_scan_is_told_whichever_module_is_shown(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """T1 or the real T1c is moved in a scene that was just read: the views say so, and no old difference is seen."""
    panel = opened(host, made)
    press(host, panel)
    panel.parameters.reference = slicer.util.addVolumeFromArray(made.cemri.T, ijkToRAS=made.matrix, name="p_t1c")
    panel.ui.compareButton.click()
    panel.ui.comparisonButton.click()
    assert host.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    panel.exit()
    host.clear()
    host.scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    assert panel.result.nodes is None, "nothing of the scene is followed by the panel"
    volumes = {node.GetName(): node for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")}
    difference = volumes["p_t1 synthetic CEMRI minus real T1c"]

    def move(node: object) -> None:
        transform = host.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        matrix = vtk.vtkMatrix4x4()
        matrix.SetElement(0, 3, 4)
        transform.SetMatrixTransformToParent(matrix)
        node.SetAndObserveTransformNodeID(transform.GetID())
        node.HardenTransform()

    def told(name: str) -> str:
        show(host, volumes[name])
        return " ".join(line for line in corner(host, 4).splitlines() if "since" in line)

    move(volumes["p_t2"])
    host.settle(0.8)
    assert (told("p_t1"), told("p_t1c")) == ("", "")
    move(volumes["p_t1"])
    host.until(lambda: told("p_t1") == "T1 moved or changed since the synthesis", 5)
    assert told("p_t1c") == ""
    show(host, difference)
    volumes["p_t1c"].SetOrigin(1, 2, 3)
    composite = host.views["Red"].logic.GetSliceCompositeNode()
    host.until(lambda: composite.GetBackgroundVolumeID() != difference.GetID(), 5)
    assert told("p_t1c") == "real T1c moved or changed since it was compared"


def test_lines_in_a_view_do_not_touch(made: MadeOutput) -> None:
    """What is written over a scan stands above Slicer's own names of the images, each line by itself."""

    def lines() -> int:
        """How many rows of letters there are, with dark pixels between them; all else in the view is grey or black."""
        picture = host.window(widget, [["Red"]])[:, PANEL_WIDTH:].astype(int)
        letters = ((picture[..., 0] - picture[..., 2] > 60) & (picture[..., 1] > 0.75 * picture[..., 0])).any(1)
        return int((letters[1:] & ~letters[:-1]).sum())

    with Host((400, 390)) as host:
        widget = host.openModule("D3MSynthesis")
        panel = opened(host, made)
        press(host, panel)
        nodes = panel.result.nodes
        spacing = host.application.layoutManager().sliceWidget("Red").sliceView().cornerAnnotation().GetTextProperty()
        show(host, nodes.t1)
        assert lines() == 3, "mask, whose, background"
        show(host, nodes.t1, nodes.t2, 0.4)
        assert lines() == 4, "and foreground"
        label = host.scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "drawn")
        slicer.util.setSliceViewerLayers(label=label)
        assert lines() == 5, "and label"
        assert spacing.GetLineSpacing() > 1
        slicer.util.setSliceViewerLayers(label=None)
        nodes.segmentation.GetDisplayNode().SetVisibility(False)
        show(host, nodes.t2)
        host.settle()
        assert spacing.GetLineSpacing() == vtk.vtkTextProperty().GetLineSpacing(), "Slicer's own, without ours"
