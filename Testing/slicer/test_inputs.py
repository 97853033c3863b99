"""Whether scans can be used, and that what the engine reads is what is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from slicer_helpers import ORIENTATIONS, SHAPE, affine, points, rotation, scene_image

slicer = pytest.importorskip("slicer")
from mrml_host import MRMLHost  # noqa: E402
from panel_helpers import imported, tissues  # noqa: E402

from d3m.volumes.preprocess.case import read_volume  # noqa: E402
from D3MSynthesisLib import Assignment, Inputs  # noqa: E402


@pytest.fixture(scope="module")
def host() -> MRMLHost:
    """A scene without views."""
    return MRMLHost()


def volume(name: str, matrix: np.ndarray | None = None, dtype: type = np.float32) -> object:
    """A node with the simulated image on this grid."""
    matrix = affine("LPS") if matrix is None else matrix
    data = scene_image(points(SHAPE, matrix)).astype(dtype)
    return slicer.util.addVolumeFromArray(data.T.copy(), ijkToRAS=matrix, name=name)


def linear(host: MRMLHost, matrix: np.ndarray) -> object:
    """A transform node to parent."""
    node = host.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "t")
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


def rigid(degrees: float, *shift: float) -> np.ndarray:
    """A rotation about z and a shift in mm."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation(degrees, 0), shift
    return matrix


def test_readiness_gives_one_reason(host: MRMLHost) -> None:
    """What is missing or unusable is told in a sentence that names the scan."""
    host.openScene()
    t1, t2, flair = (volume(name) for name in ("t1", "t2", "flair"))
    assert Inputs.readiness(t1, t2, flair) is None
    assert Inputs.readiness(None, None, None) == "Choose T1, T2 and FLAIR."
    assert Inputs.readiness(t1, None, flair) == "Choose T2."
    assert Inputs.readiness(t1, t1, flair) == "T1 and T2 are the same volume."
    assert "same volume" in Inputs.readiness(t1, t2, flair, reference=t1)
    empty = host.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "e")
    assert Inputs.readiness(t1, empty, flair) == "T2 has no voxels."
    colour = slicer.util.addVolumeFromArray(
        np.zeros((4, 5, 6, 3), np.uint8), name="c", nodeClassName="vtkMRMLVectorVolumeNode"
    )
    assert "colour" in Inputs.readiness(t1, t2, colour)
    flat = slicer.util.addVolumeFromArray(np.zeros((1, 5, 6), np.float32), name="f")
    assert "single slice" in Inputs.readiness(t1, flat, flair)
    assert "with contrast" in Inputs.readiness(volume("x_t1ce"), t2, flair)
    t2.SetAttribute(Assignment.SYNTHETIC, "yes")
    assert "synthetic" in Inputs.readiness(t1, t2, flair)
    segmentation = host.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mask")
    t2.RemoveAttribute(Assignment.SYNTHETIC)
    assert "no segment" in Inputs.readiness(t1, t2, flair, segmentation)


@pytest.mark.parametrize("orientation", [*ORIENTATIONS, "oblique"])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_written_without_loss(host: MRMLHost, tmp_path: Path, orientation: str, dtype: type) -> None:
    """The engine reads the same voxels at the same place, whatever the orientation."""
    host.openScene()
    matrix = affine(orientation)
    t1 = volume("T1", matrix, dtype)
    Inputs.writeInput(t1, t1, tmp_path / "t1.nrrd")
    read = read_volume(tmp_path / "t1.nrrd", "t1")
    np.testing.assert_array_equal(read.data, slicer.util.arrayFromVolume(t1).T)
    np.testing.assert_allclose(read.affine, matrix, atol=1e-6)


def overlay_error(read: object, t1_world_points: np.ndarray, t1_matrix: np.ndarray) -> float:
    """How far the written volume, seen at T1's voxels, is from the simulated image in the world."""
    from scipy import ndimage

    inverse = np.linalg.inv(read.affine)
    index = points(SHAPE, t1_matrix) @ inverse[:3, :3].T + inverse[:3, 3]
    seen = ndimage.map_coordinates(read.data.astype(float), np.moveaxis(index, -1, 0), order=1, cval=np.nan)
    difference = np.abs(seen - scene_image(t1_world_points))[6:-6, 6:-6, 6:-6]
    assert np.isfinite(difference).mean() > 0.5
    return float(np.nanmax(difference))


@pytest.mark.parametrize("who", ["t2", "t1", "both", "different", "nested"])
def test_linear_transforms_count_as_shown(host: MRMLHost, tmp_path: Path, who: str) -> None:
    """T2 shown in place by a transform is written where it is shown relative to T1; the nodes stay as they are."""
    host.openScene()
    a, b = rigid(15, 20, -4, 3), rigid(-8, 2, 5, -6)
    transforms = {
        "t2": (None, a), "t1": (a, None), "both": (a, a), "different": (a, b), "nested": (None, a @ b),
    }  # fmt: skip
    first, second = transforms[who]

    # local grids are chosen so that both show the same world
    def local(matrix: np.ndarray | None, orientation: str) -> tuple[object, np.ndarray]:
        world = affine(orientation)
        inverse = np.eye(4) if matrix is None else np.linalg.inv(matrix)
        data = scene_image(points(SHAPE, world)).astype(np.float32)
        node = slicer.util.addVolumeFromArray(data.T.copy(), ijkToRAS=inverse @ world, name="MR")
        return node, world

    t1, world = local(first, "LPS")
    t2, _ = local(second, "oblique")
    if first is not None:
        t1.SetAndObserveTransformNodeID(linear(host, first).GetID())
    if second is not None and who == "both":
        t2.SetAndObserveTransformNodeID(t1.GetTransformNodeID())
    elif who == "nested":
        outer, inner = linear(host, a), linear(host, b)
        inner.SetAndObserveTransformNodeID(outer.GetID())
        t2.SetAndObserveTransformNodeID(inner.GetID())
    elif second is not None:
        t2.SetAndObserveTransformNodeID(linear(host, second).GetID())
    before = (Inputs.matrixOf(t2).copy(), t2.GetTransformNodeID(), slicer.util.arrayFromVolume(t2).copy())
    for name, node in (("t1", t1), ("t2", t2)):
        Inputs.writeInput(node, t1, tmp_path / f"{name}.nrrd")
    read = {name: read_volume(tmp_path / f"{name}.nrrd", name) for name in ("t1", "t2")}
    np.testing.assert_allclose(read["t1"].affine, Inputs.matrixOf(t1), atol=1e-6)
    assert (
        overlay_error(read["t2"], points(SHAPE, world), read["t1"].affine) < 4
    )  # of 250, by interpolation; the transforms shift by 20 mm
    np.testing.assert_array_equal(read["t2"].data, before[2].T)
    np.testing.assert_array_equal(Inputs.matrixOf(t2), before[0])
    assert t2.GetTransformNodeID() == before[1]
    assert ("Under a transform" in (Inputs.transformNotice(t1, t2, t2) or "")) == (who != "none")


@pytest.mark.parametrize("kind", ["shear", "warp"])
def test_other_transforms_are_resampled_and_told(host: MRMLHost, tmp_path: Path, kind: str) -> None:
    """A sheared or warped T2 is written as it is shown, resampled onto T1, and the panel is told so."""
    host.openScene()
    t1, t2 = volume("T1"), volume("T2", affine("oblique"))
    if kind == "shear":
        matrix = np.eye(4)
        matrix[0, 1], matrix[:3, 3] = 0.2, [1, 2, 3]
        node = linear(host, matrix)
        inverse = np.linalg.inv(matrix)

        def back(ras: np.ndarray) -> np.ndarray:
            return ras @ inverse[:3, :3].T + inverse[:3, 3]
    else:
        from slicer_helpers import scene_field

        from D3MSynthesisLib.Grids import gridTransform
        from D3MSynthesisLib.Results import Image

        node = host.scene.AddNewNodeByClass("vtkMRMLTransformNode", "warp")
        grid = affine("RAS", (50, 50, 50), (1.5, 1.5, 1.5))
        field = np.moveaxis(scene_field(points((50, 50, 50), grid)), (0, 1, 2), (2, 1, 0))
        node.SetAndObserveTransformFromParent(gridTransform(Image(field, grid)))

        def back(ras: np.ndarray) -> np.ndarray:
            return ras + scene_field(ras)

    t2.SetAndObserveTransformNodeID(node.GetID())
    assert "resampled" in Inputs.transformNotice(t1, t2, volume("FLAIR"))
    Inputs.writeInput(t2, t1, tmp_path / "t2.nrrd")
    read = read_volume(tmp_path / "t2.nrrd", "t2")
    np.testing.assert_allclose(read.affine, Inputs.matrixOf(t1), atol=1e-6)
    expected = scene_image(back(points(SHAPE, affine("LPS"))))
    core = np.s_[10:-10, 10:-10, 8:-8]
    assert np.abs(read.data - expected)[core].max() < 3


def test_mask_from_a_segmentation(host: MRMLHost, tmp_path: Path) -> None:
    """A brain mask that was drawn in Slicer reaches the engine on T1's grid."""
    host.openScene()
    t1 = volume("T1", affine("oblique"))
    segmentation = host.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "brain")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(t1)
    identifier = segmentation.GetSegmentation().AddEmptySegment("brain")
    mask = slicer.util.arrayFromVolume(t1) > 100
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), segmentation, identifier, t1)
    Inputs.writeInput(segmentation, t1, tmp_path / "mask.nrrd")
    read = read_volume(tmp_path / "mask.nrrd", "brain_mask")
    np.testing.assert_array_equal(read.data > 0, mask.T)
    np.testing.assert_allclose(read.affine, Inputs.matrixOf(t1), atol=1e-6)


@pytest.mark.parametrize("shown", [(3,), (1, 3), (2,)])
def test_segments_that_share_an_image_count_alone(host: MRMLHost, tmp_path: Path, shown: tuple[int, ...]) -> None:
    """Slicer imports a label map into one image for all segments: what is hidden of it does not count."""
    host.openScene()
    t1 = volume("T1", affine("oblique"))
    labels = tissues(slicer.util.arrayFromVolume(t1).shape)
    node = imported(labels, affine("oblique"), shown)
    np.testing.assert_array_equal(Inputs.maskOnGrid(node, t1), np.isin(labels, shown))
    Inputs.writeInput(node, t1, tmp_path / "mask.nrrd")
    np.testing.assert_array_equal(read_volume(tmp_path / "mask.nrrd", "labels").data.T > 0, np.isin(labels, shown))


def test_a_segment_that_is_a_surface_counts(host: MRMLHost) -> None:
    """A segment without a label map is converted, whatever value it would have among others."""
    host.openScene()
    t1 = volume("T1", affine("LPS"))
    labels = tissues(slicer.util.arrayFromVolume(t1).shape)
    node = imported(labels, affine("LPS"))
    segments = node.GetSegmentation()
    assert segments.CreateRepresentation("Closed surface")
    segments.SetSourceRepresentationName("Closed surface")
    segments.RemoveRepresentation("Binary labelmap")
    found, true = Inputs.maskOnGrid(node, t1), labels == 3
    assert (found & ~labels.astype(bool)).sum() < 0.3 * true.sum()
    assert (found & true).sum() > 0.6 * true.sum()
    assert not (found & (labels == 2)).sum() > 0.3 * true.sum()


def test_hardened_copies_leave_the_nodes(host: MRMLHost) -> None:
    """The copy lies where the volume is shown; the volume and its transform stay."""
    host.openScene()
    t1 = volume("T1")
    t1.SetAndObserveTransformNodeID(linear(host, rigid(10, 5, 0, 0)).GetID())
    (copy,) = Inputs.hardenedCopies([t1])
    bounds, expected = np.zeros(6), np.zeros(6)
    t1.GetRASBounds(expected)
    copy.GetRASBounds(bounds)
    np.testing.assert_allclose(bounds, expected, atol=1e-6)
    assert copy.GetTransformNodeID() is None
    assert t1.GetTransformNodeID() is not None
    np.testing.assert_allclose(Inputs.matrixOf(t1), affine("LPS"))


def test_nothing_heavy_is_imported() -> None:
    """The library loads neither torch nor numpy's heavy friends."""
    import subprocess
    import sys

    code = (
        "import sys; import slicer; before = set(sys.modules);"
        "from D3MSynthesisLib import Field, Inputs, Logic, Pictures, Results, Scene, Worker;"
        "new = {name.split('.')[0] for name in set(sys.modules) - before};"
        "print(sorted(new & {'torch', 'nibabel', 'SimpleITK', 'scipy', 'skimage', 'qt', 'PySide6'}))"
    )
    library = str(Path(Inputs.__file__).parents[1])
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": library, "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "[]"
