"""What is shown: slice views rendered off screen, compared with stored pictures, and the settings behind them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from slicer_helpers import affine, make_output, rotation

slicer = pytest.importorskip("slicer")
from mrml_host import MRMLHost, readPicture, savePicture  # noqa: E402

from D3MSynthesisLib import Captions, Field, Looks, Masks, Pictures, Runs, Scene, Views  # noqa: E402
from D3MSynthesisLib.Pictures import Look  # noqa: E402

PICTURES = Path(__file__).parent / "pictures"
POSITION = (4.0, 1.0, 6.0)
"""RAS of the simulated lesion's centre."""
TOLERANCE = 0.005
"""Share of pixels that may differ by more than 40 of 255: fonts and line edges differ between drivers."""
REAL_SCALE = 7.3
"""How many times larger the real T1c's values are than T1's."""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[MRMLHost, Runs.Nodes]:
    """A result with steps and a real T1c of another scale, in three views."""
    host = MRMLHost((180, 180))
    host.addViews()
    made = make_output(tmp_path_factory.mktemp("display") / "out", "LPS")
    scans = [
        slicer.util.addVolumeFromArray(made.t1.T.copy() + number, ijkToRAS=made.matrix, name=name)
        for number, name in enumerate(("T1", "T2", "FLAIR"))
    ]
    real = made.cemri.T[::-1, :, ::-1].copy() * REAL_SCALE
    real = slicer.util.addVolumeFromArray(real, ijkToRAS=made.matrix, name="T1c")
    frame = Scene.Frame("T1", made.matrix, scans[0], t2=scans[1], flair=scans[2])
    nodes = Scene.addRun(host.scene, made.folder, frame, real)
    Pictures.first(nodes)
    return host, nodes


LOOKS = {
    "mask": Look(maskFill=True),
    "outline": Look(),
    "subtraction": Look(overlay="subtraction", maskVisible=False),
    "subtraction_grey": Look(picture="subtraction", maskVisible=False),
    "probability": Look(overlay="probability", maskVisible=False),
    "magnitude": Look(picture="sample", deformation="magnitude"),
    "jacobian": Look(picture="sample", deformation="jacobian"),
    "grid": Look(picture="sample", deformation="grid"),
    "arrows": Look(picture="sample", deformation="arrows"),
    "fade": Look(fade=0.5, maskVisible=False),
    "step": Look(picture="sample", step=2, stepImage="before", deformation="grid", maskVisible=False),
}


@pytest.mark.parametrize("name", LOOKS)
def test_views_look_as_they_did(shown: tuple[MRMLHost, Runs.Nodes], tmp_path: Path, name: str) -> None:
    """Rendered slice views agree with the stored picture, which a person has looked at."""
    host, nodes = shown
    Pictures.show(nodes, LOOKS[name])
    picture = host.picture(POSITION)
    Pictures.show(nodes, Look())
    stored = PICTURES / f"{name}.png"
    if os.environ.get("D3M_STORE_PICTURES"):
        PICTURES.mkdir(exist_ok=True)
        savePicture(stored, picture)
    savePicture(tmp_path / f"{name}.png", picture)
    different = np.abs(picture.astype(int) - readPicture(stored)).max(-1) > 40
    assert different.mean() < TOLERANCE, f"compare {tmp_path / name}.png with {stored}"


def test_pictures_differ_from_each_other() -> None:
    """The tolerance tells any two of the stored pictures apart, but for filling and outline of a small mask."""
    pictures = {name: readPicture(PICTURES / f"{name}.png") for name in LOOKS}
    for first in LOOKS:
        for second in LOOKS:
            if first < second:
                share = (np.abs(pictures[first] - pictures[second]).max(-1) > 40).mean()
                assert share > (0.002 if {first, second} == {"mask", "outline"} else TOLERANCE), (first, second)


def test_filling_has_the_opacity_that_was_set(shown: tuple[MRMLHost, Runs.Nodes]) -> None:
    """The mask's filling is a mix of the image and the segment's colour; switched off, nothing of it is left."""
    host, nodes = shown
    Pictures.show(nodes, Look(maskVisible=False))
    bare = host.picture(POSITION).astype(float)
    Pictures.show(nodes, Look(maskFill=True, maskOutline=False, maskOpacity=0.4))
    filled = host.picture(POSITION).astype(float)
    changed = np.abs(filled - bare).max(-1) > 8
    expected = 0.6 * bare[changed] + 0.4 * 255 * np.array(Masks.SEGMENT_COLOUR)
    assert changed.mean() > 0.005
    assert np.median(np.abs(filled[changed] - expected)) < 6
    Pictures.show(nodes, Look(maskVisible=False))
    np.testing.assert_array_equal(host.picture(POSITION), bare)


def window_of(node: object) -> tuple[float, float]:
    """Lower and upper end of a node's window."""
    return node.GetDisplayNode().GetWindowLevelMin(), node.GetDisplayNode().GetWindowLevelMax()


def test_every_scale_has_its_own_window(shown: tuple[MRMLHost, Runs.Nodes]) -> None:
    """T1 and the synthetic image share a scale and a window; a real T1c of another scale has its own, and is seen."""
    host, nodes = shown
    image = slicer.util.arrayFromVolume(nodes.cemri)
    brain = slicer.util.arrayFromVolume(nodes.subtraction) != 0
    for node in (nodes.cemri, nodes.t1):
        assert window_of(node) == pytest.approx(np.percentile(image[brain], (1, 99.5)), rel=1e-4)
        assert not node.GetDisplayNode().GetAutoWindowLevel()
    real = slicer.util.arrayFromVolume(nodes.reference)
    low, high = window_of(nodes.reference)
    assert (low, high) == pytest.approx(np.percentile(real[brain], (1, 99.5)), rel=1e-4)
    assert (real[brain] >= high).mean() < 0.02
    assert (real[brain] >= window_of(nodes.t1)[1]).mean() > 0.5, "by T1's window it would be a white blob"
    Pictures.show(nodes, Look(fade=1.0, maskVisible=False))
    seen = host.picture(POSITION)
    Pictures.show(nodes, Look())
    assert (seen > 250).mean() < 0.05


def test_colour_ranges(shown: tuple[MRMLHost, Runs.Nodes]) -> None:
    """Zero is the middle of the subtraction's colours; low probability and no motion are transparent."""
    _, nodes = shown
    Pictures.show(nodes, Look(overlay="subtraction"))
    low, high = window_of(nodes.subtraction)
    assert low == pytest.approx(-high)
    colour = np.zeros(4)
    table = nodes.subtraction.GetDisplayNode().GetColorNode()
    table.GetColor(128, colour)
    assert colour[3] == 0
    table.GetColor(255, colour)
    assert colour[3] == 1
    Pictures.show(nodes, Look(picture="subtraction"))
    assert window_of(nodes.subtraction)[1] == pytest.approx(high)
    assert nodes.subtraction.GetDisplayNode().GetColorNode().GetName() == "Grey"
    probability = nodes.probability.GetDisplayNode()
    assert probability.GetApplyThreshold()
    assert probability.GetLowerThreshold() == pytest.approx(Looks.PROBABILITY_FLOOR)
    length = slicer.util.arrayFromVolume(nodes.magnitude)
    assert window_of(nodes.magnitude)[1] == pytest.approx(np.percentile(length[length > 0], 99.9), rel=1e-4)
    Pictures.show(nodes, Look())


def test_legend_follows_the_overlay(shown: tuple[MRMLHost, Runs.Nodes]) -> None:
    """The colour legend in mm is there with the magnitude, and gone with it."""
    _, nodes = shown
    Pictures.show(nodes, Look(picture="sample", deformation="magnitude"))
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(nodes.magnitude)
    assert legend.GetVisibility()
    assert "mm" in legend.GetTitleText()
    Pictures.show(nodes, Look(picture="sample", step=1, deformation="magnitude"))
    assert not legend.GetVisibility()
    assert "mm" in slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(nodes.fieldMap).GetTitleText()
    Pictures.show(nodes, Look())
    assert not slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(nodes.fieldMap).GetVisibility()


@pytest.mark.parametrize(("top", "wanted"), [(1480.0, "1480"), (21.3, "21.3"), (0.385, "0.385")])
def test_legend_has_no_exponents(shown: tuple[MRMLHost, Runs.Nodes], top: float, wanted: str) -> None:
    """Scanners' units go into thousands: "1.48e+03" would be read by nobody, and its letters are tiny."""
    _, nodes = shown
    display = nodes.subtraction.GetDisplayNode()
    before = display.GetWindowLevelMin(), display.GetWindowLevelMax()
    display.SetWindowLevelMinMax(-top, top)
    Looks.legend(nodes.subtraction, "CEMRI - T1", True)
    found = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(nodes.subtraction)
    told = (found.GetLabelFormat() % top).strip()
    display.SetWindowLevelMinMax(*before)
    Looks.legend(nodes.subtraction, "CEMRI - T1", False)
    assert told == wanted


def background(host: MRMLHost, view: str = "Red") -> object:
    """The image in a view."""
    composite = host.views[view].logic.GetSliceCompositeNode()
    return host.scene.GetNodeByID(composite.GetBackgroundVolumeID() or "")


def test_what_is_inspected_is_what_is_shown(shown: tuple[MRMLHost, Runs.Nodes]) -> None:
    """The deformation and the steps lie over the first sample's own picture, not over the mean; the views say so."""
    host, nodes = shown
    for mode in ("grid", "arrows", "magnitude", "jacobian"):
        Pictures.show(nodes, Look(picture="sample", deformation=mode))
        assert background(host) is nodes.sample
        assert not nodes.segmentation.GetDisplayNode().GetVisibility2D(), "the mask is the mean's"
        assert any("sample" in line for line in Captions.caption(host.scene, "Red"))
    np.testing.assert_array_equal(
        slicer.util.arrayFromVolume(nodes.sample), slicer.util.arrayFromVolume(nodes.stepAfter.GetNthDataNode(2))
    )
    Pictures.show(nodes, Look(picture="sample", deformation="grid", layout="sideBySide"))
    over_t1 = Captions.caption(host.scene, "Red")
    assert over_t1[0].startswith("drawing")
    assert any("drawn" in line for line in over_t1), "the enlargement stands beside every grid"
    Pictures.show(nodes, Look(deformation="grid"))  # over the mean nothing of the sample is drawn
    assert background(host) is nodes.cemri
    assert not nodes.drawn.GetDisplayNode().GetVisibility2D()
    Pictures.show(nodes, Look())
    assert Captions.caption(host.scene, "Red") == [Captions.MARK]


def test_mark_is_gone_when_only_the_real_scan_is_seen(shown: tuple[MRMLHost, Runs.Nodes]) -> None:
    """Half-way the view says how much of it is real; at the end nothing synthetic is seen and nothing says so."""
    host, nodes = shown
    Pictures.show(nodes, Look(fade=0.25))
    assert Captions.caption(host.scene, "Red") == [Captions.MARK, "25 % of it real"]
    Pictures.show(nodes, Look(fade=1.0))
    assert background(host) is nodes.reference
    assert Captions.caption(host.scene, "Red") == []
    composite = host.views["Red"].logic.GetSliceCompositeNode()
    composite.SetBackgroundVolumeID(nodes.cemri.GetID())  # as another module may do it
    composite.SetForegroundVolumeID(nodes.reference.GetID())
    composite.SetForegroundOpacity(1.0)
    assert Captions.caption(host.scene, "Red") == []
    nodes.reference.GetDisplayNode().SetApplyThreshold(True)
    assert Captions.MARK in Captions.caption(host.scene, "Red"), "through its holes the synthetic image is seen"
    nodes.reference.GetDisplayNode().SetApplyThreshold(False)
    composite.SetForegroundVolumeID(nodes.probability.GetID())
    assert Captions.MARK in Captions.caption(host.scene, "Red")
    Pictures.show(nodes, Look())


def geometry(host: MRMLHost, view: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Where a view looks: its matrix, its origin, millimetres a pixel."""
    node = host.views[view].node
    matrix = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS()).copy()
    return matrix, np.array(node.GetXYZOrigin()), node.GetFieldOfView()[0] / node.GetDimensions()[0]


@pytest.mark.parametrize(
    ("name", "views", "images"),
    [
        ("sideBySide", ("Red", "Yellow"), ("t1", "cemri")),
        ("contrasts", Views.FOUR, ("t1", "t2", "flair", "cemri")),
        ("comparison", Views.SIX, ("t1", "t2", "flair", "cemri", "reference", "error")),
    ],
)
def test_linked_layouts(
    shown: tuple[MRMLHost, Runs.Nodes], name: str, views: tuple[str, ...], images: tuple[str, ...]
) -> None:
    """Every view has its image, axial, at the same place, as large as the others, and follows the first one."""
    host, nodes = shown
    Views.lookAt(nodes, fit=True)
    host.views["Yellow"].node.SetFieldOfView(35, 35, 1)
    host.views["Red"].node.JumpSliceByOffsetting(0, 0, 3)
    Pictures.setLayout(nodes, name)
    Pictures.show(nodes, Look(layout=name))
    for view, image in zip(views, images, strict=True):
        assert background(host, view) is getattr(nodes, image), view
        assert host.views[view].node.GetOrientation() == "Axial"
        for mine, first in zip(geometry(host, view), geometry(host, views[0]), strict=True):
            np.testing.assert_allclose(mine, first, atol=1e-6)
        assert host.views[view].logic.GetSliceCompositeNode().GetLinkedControl()
    point = slicer.util.arrayFromVTKMatrix(host.views[views[0]].node.GetSliceToRAS())[:3, 3]
    assert point[2] == pytest.approx(3), "the slice that was looked at stays"
    logic = host.views[views[0]].logic
    logic.StartSliceOffsetInteraction()  # as a person who scrolls
    logic.SetSliceOffset(-2.0)
    logic.EndSliceOffsetInteraction()
    assert [host.views[view].logic.GetSliceOffset() for view in views] == pytest.approx([-2.0] * len(views))
    Pictures.setLayout(nodes, "fourUp")
    Pictures.show(nodes, Look(layout="fourUp"))
    assert [host.views[view].node.GetOrientation() for view in ("Red", "Yellow", "Green")] == [
        "Axial", "Sagittal", "Coronal",
    ]  # fmt: skip
    assert {background(host, view) for view in ("Red", "Yellow", "Green")} == {nodes.cemri}


def test_views_are_given_back(shown: tuple[MRMLHost, Runs.Nodes]) -> None:
    """Views that a layout turned and linked are afterwards turned and grouped as the person had them."""
    host, nodes = shown
    Pictures.setLayout(nodes, "comparison")
    Pictures.setLayout(nodes, "fourUp")
    tilted = geometry(host, "Green")[0]
    tilted[:3, :3] = tilted[:3, :3] @ rotation(12, 5)
    host.views["Green"].node.GetSliceToRAS().DeepCopy(slicer.util.vtkMatrixFromArray(tilted))
    host.views["Green"].node.UpdateMatrices()
    host.views["Yellow"].node.SetViewGroup(4)
    host.views["Red"].logic.GetSliceCompositeNode().SetLinkedControl(False)
    before = {view: (geometry(host, view)[0][:3, :3], host.views[view].node.GetViewGroup()) for view in host.views}
    for name in ("contrasts", "comparison", "sideBySide"):
        Pictures.setLayout(nodes, name)
    Views.release(host.scene)
    for view, (axes, group) in before.items():
        np.testing.assert_allclose(geometry(host, view)[0][:3, :3], axes, atol=1e-9)
        assert host.views[view].node.GetViewGroup() == group, view
    assert {host.views[view].node.GetViewGroup() for view in Views.SIX[3:]} == {1}
    assert not host.views["Red"].logic.GetSliceCompositeNode().GetLinkedControl()
    host.views["Yellow"].node.SetViewGroup(0)
    Pictures.setLayout(nodes, "fourUp")


def test_a_large_lesion_keeps_its_shades(tmp_path: Path) -> None:
    """Enhancement that fills much of the brain is not cut to white; T2 that a person has windowed keeps its window."""
    host = MRMLHost()
    made = make_output(tmp_path / "out")
    scans = [slicer.util.addVolumeFromArray(made.t1.T.copy() + 1, ijkToRAS=made.matrix) for _ in range(3)]
    scans[1].GetDisplayNode().SetAutoWindowLevel(False)
    scans[1].GetDisplayNode().SetWindowLevelMinMax(11, 77)
    frame = Scene.Frame("T1", made.matrix, scans[0], t2=scans[1], flair=scans[2])
    nodes = Scene.addRun(host.scene, made.folder, frame)
    Pictures.first(nodes)
    assert (made.cemri[made.mask] > window_of(nodes.cemri)[1]).mean() < 0.06
    assert window_of(scans[1]) == (11, 77)
    assert window_of(scans[2])[1] < window_of(nodes.cemri)[1], "its own"


@pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_window_knows_numbers_alone(tmp_path: Path, hole: float, share: float) -> None:
    """A scan without data in a part of the brain, or in all of it, is seen by the values that it has."""
    host = MRMLHost()
    made = make_output(tmp_path / "out")
    names = ("T1", "T2", "FLAIR", "T1c")
    scans = [slicer.util.addVolumeFromArray(made.t1.T + 1, ijkToRAS=made.matrix, name=name) for name in names]
    brain = (made.cemri != made.t1).T
    half = int(share * brain.shape[0])
    for scan in scans[1:]:
        array = slicer.util.arrayFromVolume(scan)
        array[:half][brain[:half]] = hole
        values = array[np.isfinite(array)]
    frame = Scene.Frame("T1", made.matrix, scans[0], t2=scans[1], flair=scans[2])
    nodes = Scene.addRun(host.scene, made.folder, frame, reference=scans[3])
    Pictures.first(nodes)
    for scan in scans[1:]:
        low, high = window_of(scan)
        assert values.max() >= high > low >= 0, scan.GetName()
        assert high > np.median(values), scan.GetName()


def test_windows_of_a_person_stay(shown: tuple[MRMLHost, Runs.Nodes]) -> None:
    """The subtraction's window, grey or coloured, is not set again with every change of something else."""
    _, nodes = shown
    for look in (Look(picture="subtraction"), Look(overlay="subtraction")):
        Pictures.show(nodes, look)
        before = window_of(nodes.subtraction)
        Looks.window(nodes.subtraction, before[0] + 3, before[1] + 4)
        Pictures.show(nodes, replace(look, maskVisible=False))
        assert window_of(nodes.subtraction) == (before[0] + 3, before[1] + 4)
        Looks.window(nodes.subtraction, *before)
    Pictures.show(nodes, Look())


def test_error_map_has_no_scale(shown: tuple[MRMLHost, Runs.Nodes]) -> None:
    """A real image that is the synthetic one on another scale has no error; one in another place has."""
    _, nodes = shown
    real = slicer.util.arrayFromVolume(nodes.reference)
    kept = real.copy()
    brain = slicer.util.arrayFromVolume(nodes.subtraction) != 0
    real[:] = 3.5 * slicer.util.arrayFromVolume(nodes.cemri) + 100
    assert slicer.util.arrayFromVolume(Pictures.makeError(nodes))[brain].max() < 0.01
    real[:] = kept
    error = slicer.util.arrayFromVolume(Pictures.makeError(nodes))
    assert error[brain].max() > 20
    assert not error[~brain].any()


def test_before_and_after_the_warp(shown: tuple[MRMLHost, Runs.Nodes]) -> None:
    """The two images of the step that is replayed stand side by side, the last one's at first."""
    host, nodes = shown
    for step in (None, 1):
        Pictures.setLayout(nodes, "beforeAfter")
        Pictures.show(nodes, Look(picture="sample", step=step, layout="beforeAfter"))
        for view, sequence in (("Red", nodes.stepBefore), ("Yellow", nodes.stepAfter)):
            expected = slicer.util.arrayFromVolume(sequence.GetNthDataNode((step or nodes.steps) - 1))
            np.testing.assert_array_equal(slicer.util.arrayFromVolume(background(host, view)), expected)
    Pictures.setLayout(nodes, "fourUp")
    Pictures.show(nodes, Look())


def test_surfaces_of_tumour_and_brain(shown: tuple[MRMLHost, Runs.Nodes]) -> None:
    """In 3-D both have a surface; the brain's is seen through, and nothing of it is drawn in the slices."""
    _, nodes = shown
    Pictures.show3D(nodes)
    tumour = nodes.segmentation.GetClosedSurfaceInternalRepresentation(nodes.segmentID)
    brain = nodes.brain.GetClosedSurfaceInternalRepresentation("Brain")
    assert tumour.GetNumberOfPoints() > 50
    assert np.prod(np.diff(np.reshape(brain.GetBounds(), (3, 2)))) > np.prod(
        np.diff(np.reshape(tumour.GetBounds(), (3, 2)))
    )
    display = nodes.brain.GetDisplayNode()
    assert 0 < display.GetOpacity3D() < 0.5
    assert not display.GetVisibility2D()
    assert nodes.brain in Runs.findRuns(nodes.cemri.GetScene())[0].all()


def test_deformation_of_the_step_is_drawn_in_the_replay(shown: tuple[MRMLHost, Runs.Nodes]) -> None:
    """While a step is shown, grid, arrows, length and volume change are that step's; afterwards the last one's."""
    _, nodes = shown

    def strongest() -> float:
        transform = nodes.drawn.GetTransformToParent()
        return float(np.linalg.norm(np.subtract(transform.TransformPoint(3, 0, 5), (3, 0, 5))))

    look = Look(picture="sample", deformation="arrows")
    Pictures.show(nodes, look)
    last = strongest()
    Pictures.show(nodes, replace(look, step=1))
    assert strongest() == pytest.approx(last / 3, rel=0.1), "the simulated steps grow evenly"
    assert "step 1 of 3" in nodes.drawn.GetAttribute(Captions.CAPTION)
    Pictures.show(nodes, replace(look, step=1, deformation="magnitude"))
    of_step = slicer.util.arrayFromVolume(nodes.fieldMap)
    np.testing.assert_allclose(of_step, slicer.util.arrayFromVolume(nodes.magnitude) / 3, atol=1e-4)
    assert window_of(nodes.fieldMap) == window_of(nodes.magnitude), "one range for all steps"
    Pictures.show(nodes, look)
    assert strongest() == pytest.approx(last)
    assert "the last step" in nodes.drawn.GetAttribute(Captions.CAPTION)
    Pictures.show(nodes, Look())
    assert not nodes.drawn.GetDisplayNode().GetVisibility()


def test_views_come_to_the_brain(shown: tuple[MRMLHost, Runs.Nodes]) -> None:
    """Views that look elsewhere show the whole brain after a run, cut at the largest enhancement; others only jump."""
    host, nodes = shown
    Pictures.setLayout(nodes, "fourUp")
    point = Views.lesion(nodes)
    red, yellow = host.views["Red"].node, host.views["Yellow"].node
    Views.lookAt(nodes, fit=True)
    before = geometry(host, "Red")
    yellow.SetXYZOrigin(0, 0, 0)
    yellow.GetSliceToRAS().SetElement(1, 3, 500.0)
    yellow.UpdateMatrices()
    red.JumpSliceByOffsetting(0, 0, -10)
    Pictures.first(nodes)
    assert geometry(host, "Red")[2] == before[2], "a view that shows the brain keeps its zoom"
    for view, axis in (("Red", 2), ("Yellow", 0), ("Green", 1)):
        matrix = slicer.util.arrayFromVTKMatrix(host.views[view].node.GetSliceToRAS())
        assert matrix[axis, 3] == pytest.approx(point[axis], abs=1e-3)
    bounds = Views.brainBounds(nodes)
    middle = slicer.util.arrayFromVTKMatrix(yellow.GetSliceToRAS())[:3, 3]
    np.testing.assert_allclose(middle[1:], bounds.mean(0)[1:], atol=1e-3)
    assert yellow.GetFieldOfView()[0] > (bounds[1] - bounds[0])[1]


def test_largest_enhancement_is_found(shown: tuple[MRMLHost, Runs.Nodes]) -> None:
    """Of two lesions the larger one is looked at, at a point that is in it; without any there is none."""
    _, nodes = shown
    kept = nodes.threshold
    probability = slicer.util.arrayFromVolume(nodes.probability)
    before = probability.copy()
    probability[:] = 0
    probability[4:8, 4:8, 4:8] = 0.9
    probability[12:20, 20:30, 10:20] = 0.9
    probability[15:17, 24:27, 14:17] = 0  # a ring's middle does not enhance
    Masks.setThreshold(nodes, 0.5)
    index = np.linalg.inv(affine("LPS")) @ [*Views.lesion(nodes), 1]
    i, j, k = (round(float(value)) for value in index[:3])
    assert probability[k, j, i] > 0
    assert 12 <= k < 20
    Masks.setThreshold(nodes, 1.0)
    assert Views.lesion(nodes) is None
    probability[:] = before
    Masks.setThreshold(nodes, kept)


def test_modes_and_layouts_are_checked(shown: tuple[MRMLHost, Runs.Nodes]) -> None:
    """A word that means nothing is refused."""
    _, nodes = shown
    for look in (Look(picture="t1"), Look(overlay="x"), Look(deformation="x"), Look(layout="x"), Look(step=9)):
        with pytest.raises(ValueError, match="There is no"):
            Pictures.show(nodes, look)
    with pytest.raises(ValueError, match="There is no"):
        Pictures.setLayout(nodes, "x")
    with pytest.raises(ValueError, match="There is no"):
        Field.draw(nodes, "x", None)


def test_old_runs_without_a_sample_show_no_deformation(tmp_path: Path) -> None:
    """A result that has neither steps nor the first sample has no picture that its field belongs to."""
    from slicer_helpers import write_provenance

    host = MRMLHost((60, 60))
    host.addViews()
    made = make_output(tmp_path / "out", steps=0)
    for name in ("first_sample.nii.gz", "provenance.json"):
        (made.folder / name).unlink()
    write_provenance(made.folder)
    nodes = Scene.addRun(host.scene, made.folder, Scene.Frame("T1", made.matrix))
    assert not Pictures.canInspect(nodes)
    assert Pictures.show(nodes, Look(picture="sample", deformation="grid")) == 0
    assert background(host) is nodes.cemri
    assert nodes.drawn is None


def test_noise_does_not_look_like_enhancement(tmp_path: Path) -> None:
    """In a brain in which nothing enhances the subtraction is dark, not stretched until its noise is white."""
    host = MRMLHost((60, 60))
    made = make_output(tmp_path / "out", steps=0)
    noise = np.random.default_rng(0).normal(0, 0.1, made.t1.shape).astype(np.float32)
    from slicer_helpers import save, write_provenance

    save(made.folder / "cemri.nii.gz", made.t1 + noise, made.matrix)
    save(made.folder / "subtraction.nii.gz", noise, made.matrix)
    (made.folder / "provenance.json").unlink()
    write_provenance(made.folder)
    nodes = Scene.addRun(host.scene, made.folder, Scene.Frame("T1", made.matrix))
    assert window_of(nodes.subtraction)[1] > 10 * np.abs(noise).std()


def test_nothing_of_another_run_lies_over_it(tmp_path: Path) -> None:
    """Mask, surfaces and drawing of the run that was shown before, perhaps another patient's, are not seen any more."""
    host = MRMLHost((60, 60))
    host.addViews()
    made = make_output(tmp_path / "out", steps=2)
    first, second = (Scene.addRun(host.scene, made.folder, Scene.Frame(name, made.matrix)) for name in ("A", "B"))
    Pictures.first(first)
    assert Pictures.show(first, Look(picture="sample", deformation="grid")) > 0
    Pictures.show3D(first)

    def seen(nodes: Runs.Nodes) -> list[bool]:
        return [bool(node.GetDisplayNode().GetVisibility()) for node in (nodes.segmentation, nodes.brain, nodes.drawn)]

    assert seen(first) == [True, True, True]
    Pictures.first(second)
    Pictures.show(second, Look())
    assert second.segmentation.GetDisplayNode().GetVisibility()
    assert seen(first) == [False, False, False]
    assert not any("deformation" in line for line in Captions.caption(host.scene, "Red"))
    Pictures.first(first)
    Pictures.show(first, Look())
    assert first.segmentation.GetDisplayNode().GetVisibility()
    assert not second.segmentation.GetDisplayNode().GetVisibility()
