"""Which node is which scan, whether it can be used, and that what the engine reads is what is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from slicer_helpers import ORIENTATIONS, SHAPE, affine, points, rotation, scene_image

slicer = pytest.importorskip("slicer")
from mrml_host import MRMLHost  # noqa: E402

from d3m.volumes.preprocess.case import read_volume  # noqa: E402
from D3MSynthesisLib import Inputs  # noqa: E402


@pytest.fixture(scope="module")
def host() -> MRMLHost:
    """A scene without views."""
    return MRMLHost()


class Named:
    """What assigning needs of a node."""

    def __init__(self, name: str, **attributes: str) -> None:
        self.name, self.attributes = name, attributes

    def GetName(self) -> str:
        return self.name

    def GetAttribute(self, name: str) -> str | None:
        return self.attributes.get(name.replace(".", "_"))


SPOKEN = {
    "t1": """BraTS2021_00000_t1 | BraTS-GLI-00001-000-t1n | case_T1 | t1 | 3: T1 AX | AX T1 PRE | T1 pre contrast
        | T1w without contrast | SAG T1 FLAIR | MPRAGE | t1_mprage_sag_iso | T1 w/o contrast | T1 non-contrast
        | t1_native | 3D T1 BRAVO | T1 NO GAD | sample_t1 | T1 - precontrast | sub-01_T1w""",
    "t1c": """BraTS2021_00000_t1ce | BraTS-GLI-00001-000-t1c | case_T1Gd | T1GD | T1 post | AX T1 POST GAD | T1+C
        | T1 + C | T1w CE | T1-CE | t1_mprage_sag_iso+KM | T1 C+ | T1 with contrast | T1 gadolinium | T1Post
        | 3D T1 post-contrast | MPRAGE_GD | T1W_3D_CE | t1_km | T1c | T1CE MPRAGE | AX T1 +GD | BRAVO +C | T1 W/C
        | T1 enhanced | sub-01_ce-gadolinium_T1w | t1post | T1 Dotarem | T1_contrast""",
    "t2": "BraTS2021_00000_t2 | BraTS-GLI-00001-000-t2w | case_T2 | AX T2 TSE | sub-01_T2w | T2 FSE",
    "flair": """BraTS2021_00000_flair | BraTS-GLI-00001-000-t2f | AX T2 FLAIR | FLAIR | t2_tirm_tra_dark-fluid
        | sub-01_FLAIR | T2_space_da-fl | 3D FLAIR SAG""",
    None: """AX T2* GRE | DWI b1000 | ADC | SWI | case_seg | T1 brain mask | T1 synthetic CEMRI | localizer | T2star
        | MR | | BraTS2021_00000 | DSC perfusion | T1 T2 map | Volume""",
}
"""What names and descriptions of data sets, scanners and hospitals mean."""


@pytest.mark.parametrize(("kind", "texts"), SPOKEN.items())
def test_contrast_by_name(kind: str | None, texts: str) -> None:
    """Names of data sets, scanners and hospitals; a T1 with contrast is never a T1."""
    names = [name.strip() for name in texts.split("|")]
    assert {name: Inputs.contrastOf(name) for name in names} == dict.fromkeys(names, kind)


def test_one_patients_scans_are_taken_together() -> None:
    """Of two patients the complete one is taken whole; a synthetic result is never an input."""
    nodes = [Named(name) for name in ("A_t1", "A_flair", "B_flair", "B_t1ce", "B_t2", "B_t1")]
    nodes.insert(0, Named("B_t1", D3M_Synthetic="yes"))
    found = Inputs.assignInputs(nodes)
    assert [node.GetName() for node in found] == ["B_t1", "B_t2", "B_flair", "B_t1ce"]
    assert found.t1 is nodes[-1]


def test_hospital_names_without_a_common_stem() -> None:
    """Numbered series are found although their names have nothing in common; nothing is invented."""
    nodes = [Named(name) for name in ("7: AX T1 POST", "3: T2 TSE tra", "5: t2_tirm_dark-fluid", "4: T1 AX", "9: ADC")]
    assert [node.GetName() for node in Inputs.assignInputs(nodes)] == [
        "4: T1 AX", "3: T2 TSE tra", "5: t2_tirm_dark-fluid", "7: AX T1 POST",
    ]  # fmt: skip
    assert tuple(Inputs.assignInputs(nodes[:1])) == (None, None, None, nodes[0])
    assert tuple(Inputs.assignInputs([])) == (None, None, None, None)


def test_dicom_description_decides(host: MRMLHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node without a telling name is known by its series; an agent in the header makes it one with contrast."""
    host.openScene()
    values = {("1", "0008,103E"): "AX T1 SE", ("2", "0008,103E"): "AX T1 SE", ("2", "0018,0010"): "GADAVIST"}

    class Database:
        def instanceValue(self, uid: str, tag: str) -> str:
            return values.get((uid, tag), "")

    monkeypatch.setattr(slicer, "dicomDatabase", Database(), raising=False)
    nodes = [volume(f"MR {uid}") for uid in "12"]
    for node, uid in zip(nodes, "12", strict=True):
        node.SetAttribute("DICOM.instanceUIDs", uid)
    found = Inputs.assignInputs(nodes)
    assert (found.t1, found.t1c) == (nodes[0], nodes[1])


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
    t2.SetAttribute(Inputs.SYNTHETIC, "yes")
    assert "synthetic" in Inputs.readiness(t1, t2, flair)
    segmentation = host.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mask")
    t2.RemoveAttribute(Inputs.SYNTHETIC)
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
        "from D3MSynthesisLib import Display, Inputs, Logic, Results, Scene, Worker;"
        "new = {name.split('.')[0] for name in set(sys.modules) - before};"
        "print(sorted(new & {'torch', 'nibabel', 'SimpleITK', 'scipy', 'skimage', 'd3m', 'qt', 'PySide6'}))"
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
