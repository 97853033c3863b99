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
