"""The drawn deformation: the head's own motion is no part of it, no cell folds, and gained tissue is told from lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from slicer_helpers import FIELD_SHAPE, affine, make_output, points, rotation, scene_field

slicer = pytest.importorskip("slicer")
import vtk  # noqa: E402
from mrml_host import MRMLHost  # noqa: E402

from D3MSynthesisLib import Field, Grids, Runs, Scene  # noqa: E402
from D3MSynthesisLib.Results import Image  # noqa: E402


@pytest.fixture
def host() -> MRMLHost:
    """A scene without views."""
    return MRMLHost()


def run(host: MRMLHost, folder: Path, parent: object = None, orientation: str = "oblique") -> Runs.Nodes:
    """A result, its T1 under a transform if one is given."""
    made = make_output(folder / "out", orientation)
    t1 = slicer.util.addVolumeFromArray(made.t1.T.copy(), ijkToRAS=made.matrix, name="T1")
    if parent is not None:
        t1.SetAndObserveTransformNodeID(parent.GetID())
    return Scene.addRun(host.scene, made.folder, Scene.Frame("T1", made.matrix, t1, parent))


def rigid(host: MRMLHost, degrees: float, shift: tuple[float, float, float]) -> tuple[object, np.ndarray]:
    """A transform node to parent, and its matrix."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation(degrees, 0), shift
    node = host.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node, matrix


def test_a_heads_own_motion_is_no_deformation(host: MRMLHost, tmp_path: Path) -> None:
    """With T1 turned and shifted by centimetres, the drawn field is the field alone, turned with the head."""
    parent, matrix = rigid(host, 25, (40, -10, 5))
    nodes = run(host, tmp_path, parent)
    factor = Field.draw(nodes, "grid", None)
    assert nodes.drawn.GetParentTransformNode() is None
    toWorld = vtk.vtkGeneralTransform()
    nodes.drawn.GetTransformToWorld(toWorld)
    longest = 0.0
    for local in ((3.0, 0.0, 5.0), (8.0, -4.0, 2.0), (-3.0, 6.0, 9.0)):
        source = np.array(local)
        target = source.copy()
        for _ in range(40):  # the point y with y + u(y) = source is where its tissue was moved to
            target = source - scene_field(target)
        here = (matrix @ [*source, 1])[:3]
        drawn = np.array(toWorld.TransformPoint(here)) - here
        expected = matrix[:3, :3] @ (target - source)
        np.testing.assert_allclose(drawn, expected, atol=0.12)
        longest = max(longest, float(np.linalg.norm(drawn)))
    assert 0.5 < longest < 4
    far = (matrix @ [60, 60, 60, 1])[:3]
    np.testing.assert_allclose(toWorld.TransformPoint(far), far, atol=1e-3)
    assert 1 <= factor <= Field.MAX_ENLARGEMENT


def test_drawing_follows_a_warped_head(host: MRMLHost, tmp_path: Path) -> None:
    """Under a transform that is not linear the drawn field is what the run's field does in the world."""
    grid = affine("RAS", (60, 60, 60), (2.0, 2.0, 2.0))
    bend = np.moveaxis(3 * np.sin(points((60, 60, 60), grid) / 15), (0, 1, 2), (2, 1, 0))
    parent = host.scene.AddNewNodeByClass("vtkMRMLTransformNode", "warp")
    parent.SetAndObserveTransformToParent(Grids.gridTransform(Image(bend, grid)))
    nodes = run(host, tmp_path, parent)
    Field.draw(nodes, "arrows", None)
    toWorld = Grids.worldFrom(nodes.deformation)
    local = np.array([3.0, 0.0, 5.0])
    moved = nodes.deformation.GetTransformToParent().TransformPoint(*local)
    here, there = np.array(toWorld.TransformPoint(local)), np.array(toWorld.TransformPoint(moved))
    drawn = np.array(nodes.drawn.GetTransformToParent().TransformPoint(here)) - here
    np.testing.assert_allclose(drawn, there - here, atol=0.15)
    assert np.linalg.norm(drawn) > 0.5


def test_hardening_still_reproduces_the_image(host: MRMLHost, tmp_path: Path) -> None:
    """Drawing leaves the run's transform node as it is: it still moves the image before the warp onto the one after."""
    parent, _ = rigid(host, 10, (20, 0, 0))
    nodes = run(host, tmp_path, parent, "LPS")
    point = points(FIELD_SHAPE, affine("LPS", FIELD_SHAPE, (1.2, 1.2, 1.6)))[14, 16, 10]
    before = nodes.deformation.GetTransformFromParent().TransformPoint(point)
    for mode in ("grid", "arrows", "off"):
        Field.draw(nodes, mode, None)
    assert nodes.deformation.GetTransformNodeID() == parent.GetID()
    np.testing.assert_array_equal(nodes.deformation.GetTransformFromParent().TransformPoint(point), before)
    np.testing.assert_allclose(np.subtract(before, point), scene_field(point), atol=0.01)
    assert not nodes.deformation.GetDisplayNode().GetVisibility2D(), "only the drawn field is drawn"


def wave(amplitude: float, length: float) -> Image:
    """A field along x that squeezes and stretches: its derivative is at most 2 pi amplitude / length."""
    grid = affine("LAS", (40, 10, 10), (1.5, 2.0, 2.0))
    field = np.zeros((40, 10, 10, 3))
    field[..., 0] = amplitude * np.sin(2 * np.pi * points((40, 10, 10), grid)[..., 0] / length)
    return Image(np.moveaxis(field, (0, 1, 2), (2, 1, 0)).astype(np.float32), grid)


def folds(field: Image, factor: int) -> bool:
    """Whether any two neighbouring points of the enlarged field change places, by their positions themselves."""
    ras = Grids.gridPoints(field.array.shape[:3], field.ijkToRAS)[..., 0] + factor * field.array[..., 0]
    steps = np.diff(ras, axis=2) * np.sign(field.ijkToRAS[0, 0])
    return bool((steps <= 0).any())


@pytest.mark.parametrize(("amplitude", "length"), [(0.2, 30), (0.05, 30), (0.4, 12), (1.0, 200), (0.01, 60)])
def test_no_drawn_cell_folds(amplitude: float, length: float) -> None:
    """The enlargement is the largest that is wanted and leaves neighbours in their order."""
    field = wave(amplitude, length)
    factor = Field.enlargement(field)
    assert not folds(field, factor)
    wanted = min(max(round(Field.SEEN_MM / np.percentile(np.abs(field.array[..., 0]), 99)), 1), Field.MAX_ENLARGEMENT)
    assert factor <= wanted
    assert factor == wanted or folds(field, factor + 1) or Field.enlargement(field) + 1 > wanted


def test_large_fields_are_not_enlarged(host: MRMLHost, tmp_path: Path) -> None:
    """A field of many millimetres is drawn true to scale, and the view says so."""
    nodes = run(host, tmp_path)
    field = Grids.fieldOf(nodes.deformation)
    assert Field.enlargement(Image(field.array * 2, field.ijkToRAS)) == 1
    nodes.deformation.SetAndObserveTransformFromParent(
        Grids.gridTransform(Image((field.array * 2).astype(np.float32), field.ijkToRAS))
    )
    assert Field.draw(nodes, "grid", None) == 1
    assert "true to scale" in nodes.drawn.GetAttribute("D3M.Caption")


def test_short_arrows_are_left_out(host: MRMLHost, tmp_path: Path) -> None:
    """Where nearly nothing moves no arrow covers the image."""
    nodes = run(host, tmp_path)
    Field.draw(nodes, "arrows", None)
    least = nodes.drawn.GetDisplayNode().GetGlyphDisplayRangeMinMm()
    length = slicer.util.arrayFromVolume(nodes.magnitude)
    long = np.percentile(length[length > Field.MOVES_MM], 99)
    assert 0.25 * long < least < 0.45 * long


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "oblique"])
def test_gained_and_lost_tissue(orientation: str) -> None:
    """Tissue that was blown up by a tenth in every direction has 1.33 times its volume; what was squeezed has less."""
    for stretch in (1.1, 0.8):
        grid = affine(orientation, (16, 16, 16), (1.0, 1.5, 2.0))
        ras = points((16, 16, 16), grid)
        back = ras / stretch - ras  # a result point's value comes from nearer to the middle if tissue was blown up
        field = Image(np.moveaxis(back, (0, 1, 2), (2, 1, 0)).astype(np.float32), grid)
        change = Field.volumeChange(field)
        moved = np.linalg.norm(field.array, axis=-1) > 0
        np.testing.assert_allclose(change[moved], stretch**3, rtol=1e-3)


@pytest.mark.parametrize("start", [(0, 0, 0), (3, 9, 5), (17, 14, 10)])
def test_gained_and_lost_tissue_where_little_moves(
    monkeypatch: pytest.MonkeyPatch, start: tuple[int, int, int]
) -> None:
    """A field of one place, at an edge, too: as central differences give it, and quickly, for steps are dragged."""
    grid = affine("oblique", (14, 18, 20), (1.0, 1.5, 2.0))
    vectors = np.zeros((20, 18, 14, 3), np.float32)
    place = tuple(slice(at, at + 3) for at in start)
    vectors[place] = np.random.default_rng(4).normal(size=vectors[place].shape) / 4
    expected = np.ones(vectors.shape[:3])
    inverse, last = np.linalg.inv(grid[:3, :3]), np.array(vectors.shape[:3]) - 1
    for index in np.argwhere(vectors.any(-1)):
        along = []
        for axis in (2, 1, 0):  # of i, j, k; at an edge the one difference that there is
            up, down = index.copy(), index.copy()
            up[axis], down[axis] = min(index[axis] + 1, last[axis]), max(index[axis] - 1, 0)
            along.append((vectors[tuple(up)] - vectors[tuple(down)]) / (up[axis] - down[axis]))
        determinant = np.linalg.det(np.eye(3) + np.stack(along, -1) @ inverse)
        expected[tuple(index)] = 1 / max(determinant, 0.05) if determinant > 0 else 0
    looked, original = [], Field.gradient
    monkeypatch.setattr(
        Field, "gradient", lambda field, sides: (looked.append(field.array.shape), original(field, sides))[1]
    )
    change = Field.volumeChange(Image(vectors, grid))
    np.testing.assert_allclose(change, expected, rtol=1e-4)
    assert max(np.max(shape[:3]) for shape in looked) <= 7
    assert (Field.volumeChange(Image(np.zeros_like(vectors), grid)) == 1).all()


def test_jacobian_of_a_step_lies_on_its_grid(host: MRMLHost, tmp_path: Path) -> None:
    """The map is where the field is, under T1's transform, and is not saved: it is made again."""
    parent, _ = rigid(host, 10, (20, 0, 0))
    nodes = run(host, tmp_path, parent)
    node = Field.mapNode(nodes, "jacobian", None)
    np.testing.assert_allclose(Grids.matrixOf(node), Grids.matrixOf(nodes.sample), atol=1e-5)
    assert node.GetTransformNodeID() == parent.GetID()
    assert not node.GetSaveWithScene()
    low, high = node.GetDisplayNode().GetWindowLevelMin(), node.GetDisplayNode().GetWindowLevelMax()
    assert (low + high) / 2 == pytest.approx(1), "unchanged tissue has no colour"
    values = slicer.util.arrayFromVolume(node)
    assert values.min() < 0.98
    assert values.max() > 1.02


def test_field_of_a_node_is_what_was_put_in() -> None:
    """Reading a node's field gives vectors and grid back, oblique ones too."""
    grid = affine("oblique", (8, 9, 10), (1.0, 1.1, 1.4))
    vectors = np.random.default_rng(0).normal(size=(10, 9, 8, 3)).astype(np.float32)
    node = slicer.vtkMRMLTransformNode()
    node.SetAndObserveTransformFromParent(Grids.gridTransform(Image(vectors, grid)))
    found = Grids.fieldOf(node)
    np.testing.assert_allclose(found.array, vectors, atol=1e-6)
    np.testing.assert_allclose(found.ijkToRAS, grid, atol=1e-6)
