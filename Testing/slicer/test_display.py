"""What is shown: slice views rendered off screen, compared with stored pictures, and the settings behind them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from slicer_helpers import make_output

slicer = pytest.importorskip("slicer")
from mrml_host import MRMLHost, readPicture, savePicture  # noqa: E402

from D3MSynthesisLib import Display, Runs, Scene  # noqa: E402

PICTURES = Path(__file__).parent / "pictures"
POSITION = (4.0, 1.0, 6.0)
"""RAS of the simulated lesion's centre."""
TOLERANCE = 0.005
"""Share of pixels that may differ by more than 40 of 255: fonts and line edges differ between drivers."""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[MRMLHost, Runs.Nodes]:
    """A result with steps and a real T1c, in three views."""
    host = MRMLHost((180, 180))
    host.addViews()
    made = make_output(tmp_path_factory.mktemp("display") / "out", "LPS")
    t1 = slicer.util.addVolumeFromArray(made.t1.T.copy(), ijkToRAS=made.matrix, name="T1")
    real = slicer.util.addVolumeFromArray(made.cemri.T[::-1, :, ::-1].copy(), ijkToRAS=made.matrix, name="T1c")
    return host, Scene.addRun(host.scene, made.folder, Scene.Frame("T1", made.matrix, t1), real)


def draw(nodes: Runs.Nodes, name: str) -> None:
    """Choose what is shown from one starting point."""
    nodes.cemri.SetAttribute("D3M.DeformationShown", "off")
    Display.showResult(nodes)
    if name == "outline":
        Display.setMask(nodes, fill=False)
    elif name in ("subtraction", "probability", "magnitude"):
        Display.setMask(nodes, visible=False)
        Display.setOverlay(nodes, name)
    elif name in ("grid", "arrows"):
        Display.setMask(nodes, visible=False)
        Display.setDeformation(nodes, name)
    elif name == "fade":
        Display.setMask(nodes, visible=False)
        Display.setFade(nodes, 0.5)
    elif name == "step":
        Display.setDeformation(nodes, "grid")
        Display.showStep(nodes, 2, "before", mask=False)


NAMES = ("mask", "outline", "subtraction", "probability", "magnitude", "grid", "arrows", "fade", "step")


@pytest.mark.parametrize("name", NAMES)
def test_views_look_as_they_did(shown: tuple[MRMLHost, Runs.Nodes], tmp_path: Path, name: str) -> None:
    """Rendered slice views agree with the stored picture, which a person has looked at."""
    host, nodes = shown
    draw(nodes, name)
    picture = host.picture(POSITION)
    Display.showFinal(nodes)
    stored = PICTURES / f"{name}.png"
    if os.environ.get("D3M_STORE_PICTURES"):
        PICTURES.mkdir(exist_ok=True)
        savePicture(stored, picture)
    savePicture(tmp_path / f"{name}.png", picture)
    different = np.abs(picture.astype(int) - readPicture(stored)).max(-1) > 40
    assert different.mean() < TOLERANCE, f"compare {tmp_path / name}.png with {stored}"


def test_pictures_differ_from_each_other() -> None:
    """The tolerance tells any two of the stored pictures apart."""
    pictures = {name: readPicture(PICTURES / f"{name}.png") for name in NAMES}
    for first in NAMES:
        for second in NAMES:
            if first < second:
                share = (np.abs(pictures[first] - pictures[second]).max(-1) > 40).mean()
                assert share > TOLERANCE, (first, second)


def test_filling_has_the_opacity_that_was_set(shown: tuple[MRMLHost, Runs.Nodes]) -> None:
    """The mask's filling is a mix of the image and the segment's colour; switched off, nothing of it is left."""
    host, nodes = shown
    Display.showResult(nodes)
    Display.setMask(nodes, visible=False)
    bare = host.picture(POSITION).astype(float)
    Display.setMask(nodes, outline=False, opacity=0.4)
    filled = host.picture(POSITION).astype(float)
    changed = np.abs(filled - bare).max(-1) > 8
    expected = 0.6 * bare[changed] + 0.4 * 255 * np.array(Scene.SEGMENT_COLOUR)
    assert changed.mean() > 0.005
    assert np.median(np.abs(filled[changed] - expected)) < 6
    Display.setMask(nodes, visible=False)
    np.testing.assert_array_equal(host.picture(POSITION), bare)


def test_first_look(shown: tuple[MRMLHost, Runs.Nodes]) -> None:
    """The window comes from the synthetic image's own percentiles, and T1 is seen with the same one."""
    _, nodes = shown
    Display.showResult(nodes)
    image = slicer.util.arrayFromVolume(nodes.cemri)
    brain = slicer.util.arrayFromVolume(nodes.subtraction) != 0
    low, high = np.percentile(image[brain], (1, 99.5))
    for node in (nodes.cemri, nodes.t1, nodes.reference):
        display = node.GetDisplayNode()
        assert display.GetWindowLevelMin() == pytest.approx(low, rel=1e-4)
        assert display.GetWindowLevelMax() == pytest.approx(high, rel=1e-4)
        assert not display.GetAutoWindowLevel()


def test_colour_ranges(shown: tuple[MRMLHost, Runs.Nodes]) -> None:
    """Zero is the middle of the subtraction's colours; low probability and no motion are transparent."""
    _, nodes = shown
    display = nodes.subtraction.GetDisplayNode()
    assert display.GetWindowLevelMin() == pytest.approx(-display.GetWindowLevelMax())
    colour = np.zeros(4)
    table = display.GetColorNode()
    table.GetColor(128, colour)
    assert colour[3] == 0
    table.GetColor(255, colour)
    assert colour[3] == 1
    probability = nodes.probability.GetDisplayNode()
    assert probability.GetApplyThreshold()
    assert probability.GetLowerThreshold() == pytest.approx(Display.PROBABILITY_FLOOR)
    length = slicer.util.arrayFromVolume(nodes.magnitude)
    assert nodes.magnitude.GetDisplayNode().GetWindowLevelMax() == pytest.approx(
        np.percentile(length[length > 0], 99), rel=1e-4
    )


def test_legend_follows_the_overlay(shown: tuple[MRMLHost, Runs.Nodes]) -> None:
    """The colour legend in mm is there with the magnitude, and gone with it."""
    _, nodes = shown
    Display.setOverlay(nodes, "magnitude")
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(nodes.magnitude)
    assert legend.GetVisibility()
    assert "mm" in legend.GetTitleText()
    Display.setOverlay(nodes, "none")
    assert not legend.GetVisibility()


def test_layouts(shown: tuple[MRMLHost, Runs.Nodes]) -> None:
    """Pairs show two axial, linked views of different images; four-up restores the directions."""
    host, nodes = shown
    composites = {view.node.GetLayoutName(): view.logic.GetSliceCompositeNode() for view in host.views.values()}
    layout = host.scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    Display.setFade(nodes, 1.0)
    Display.setLayout(nodes, "sideBySide")
    assert layout.GetViewArrangement() == layout.SlicerLayoutSideBySideView
    assert composites["Red"].GetBackgroundVolumeID() == nodes.t1.GetID()
    assert composites["Yellow"].GetBackgroundVolumeID() == nodes.cemri.GetID()
    assert not composites["Yellow"].GetForegroundVolumeID()
    assert all(composite.GetLinkedControl() for composite in composites.values())
    assert host.views["Yellow"].node.GetOrientation() == "Axial"
    Display.setLayout(nodes, "beforeAfter")
    before, after = (host.scene.GetNodeByID(composites[view].GetBackgroundVolumeID()) for view in ("Red", "Yellow"))
    assert (before.GetAttribute("D3M.Role"), after.GetAttribute("D3M.Role")) == ("proxyBefore", "proxyAfter")
    Display.setLayout(nodes, "fourUp")
    assert layout.GetViewArrangement() == layout.SlicerLayoutFourUpView
    assert host.views["Yellow"].node.GetOrientation() == "Sagittal"
    assert nodes.segmentation.GetClosedSurfaceInternalRepresentation(nodes.segmentID).GetNumberOfPoints() > 50
    Display.showFinal(nodes)


def test_deformation_of_the_step_is_drawn_in_the_replay(shown: tuple[MRMLHost, Runs.Nodes]) -> None:
    """While a step is shown the grid is that step's; afterwards that of the last step again, at true place."""
    _, nodes = shown
    Display.showResult(nodes)
    Display.setDeformation(nodes, "arrows")
    step = Runs.proxies(nodes)["field"].GetDisplayNode()
    final = nodes.deformation.GetDisplayNode()
    assert (bool(final.GetVisibility()), bool(step.GetVisibility())) == (True, False)
    Display.showStep(nodes, 1)
    assert (bool(final.GetVisibility()), bool(step.GetVisibility())) == (False, True)
    assert step.GetVisualizationMode() == step.VIS_MODE_GLYPH
    Display.showFinal(nodes)
    assert (bool(final.GetVisibility()), bool(step.GetVisibility())) == (True, False)
    Display.setDeformation(nodes, "off")
    assert not final.GetVisibility()


def test_small_fields_are_enlarged_and_large_ones_are_not(shown: tuple[MRMLHost, Runs.Nodes]) -> None:
    """Arrows of a tenth of a millimetre are drawn larger by a factor that the panel can tell."""
    _, nodes = shown
    display = nodes.magnitude.GetDisplayNode()
    low, high = display.GetWindowLevelMin(), display.GetWindowLevelMax()
    try:
        for top, factor in ((0.3, 10), (6.0, 1), (0.001, Display.MAX_ENLARGEMENT)):
            display.SetWindowLevelMinMax(0, top)
            assert Display.enlargement(nodes) == factor
    finally:
        display.SetWindowLevelMinMax(low, high)


def test_wrong_words_are_refused(shown: tuple[MRMLHost, Runs.Nodes]) -> None:
    """A misspelt overlay, mode, layout or step is an error, not an empty view."""
    _, nodes = shown
    for call in (
        lambda: Display.setOverlay(nodes, "heat"),
        lambda: Display.setDeformation(nodes, "contour"),
        lambda: Display.setLayout(nodes, "three"),
        lambda: Display.showStep(nodes, 0),
        lambda: Display.showStep(nodes, 4),
    ):
        with pytest.raises(ValueError, match="There is no"):
            call()


def test_deleted_nodes_do_not_disturb(tmp_path: Path) -> None:
    """When the user deleted parts of a result the switches still work."""
    host = MRMLHost((60, 60))
    host.addViews()
    made = make_output(tmp_path / "out", steps=1)
    t1 = slicer.util.addVolumeFromArray(made.t1.T.copy(), ijkToRAS=made.matrix, name="T1")
    nodes = Scene.addRun(host.scene, made.folder, Scene.Frame("T1", made.matrix, t1))
    for node in (t1, nodes.segmentation, nodes.deformation, nodes.magnitude, nodes.subtraction):
        host.scene.RemoveNode(node)
    Display.showResult(nodes)
    for overlay in Display.OVERLAYS:
        Display.setOverlay(nodes, overlay)
    for mode in ("grid", "magnitude", "off"):
        Display.setDeformation(nodes, mode)
    Display.showStep(nodes, 1)
    for layout in ("sideBySide", "fourUp", "beforeAfter"):
        Display.setLayout(nodes, layout)
    Display.setFade(nodes, 0.5)
    (again,) = Runs.findRuns(host.scene)
    assert again.segmentation is None
    assert again.t1 is None
