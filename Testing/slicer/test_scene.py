"""Nodes from results, over Slicer's own MRML core: geometry, mask, sign of the field, steps, saving and reopening."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from slicer_helpers import FIELD_SHAPE, SHAPE, MadeOutput, affine, make_output, points, pull, rotation

slicer = pytest.importorskip("slicer")
import vtk  # noqa: E402
from mrml_host import MRMLHost  # noqa: E402

from d3m.results.files import write_nifti  # noqa: E402
from D3MSynthesisLib import Assignment, Inputs, Masks, Runs, Saving, Scene  # noqa: E402


@pytest.fixture(scope="module")
def host() -> MRMLHost:
    """One scene for the module; every test opens its own."""
    return MRMLHost()


def t1_node(made: MadeOutput, name: str = "T1") -> object:
    """The T1 of an output folder as a node."""
    return slicer.util.addVolumeFromArray(made.t1.T.copy(), ijkToRAS=made.matrix, name=name)


def add(host: MRMLHost, made: MadeOutput, name: str = "T1", **options: object) -> Runs.Nodes:
    """The nodes of an output folder beside its T1."""
    t1 = t1_node(made, name)
    return Scene.addRun(
        host.scene, made.folder, Scene.Frame(name, made.matrix, t1, t1.GetParentTransformNode()), **options
    )


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "LAS", "PIR", "ASL", "SRA", "oblique"])
def test_every_node_lies_where_its_voxels_do(host: MRMLHost, tmp_path: Path, orientation: str) -> None:
    """Volumes have T1's geometry, the mask agrees voxel for voxel, magnitude and field lie on the model's grid."""
    host.openScene()
    made = make_output(tmp_path / "out", orientation, steps=0)
    nodes = add(host, made)
    for node, data in ((nodes.cemri, made.cemri), (nodes.probability, made.probability)):
        np.testing.assert_allclose(Inputs.matrixOf(node), made.matrix, atol=1e-9)
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), data.T)
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(nodes.segmentation, nodes.segmentID, nodes.t1)
    np.testing.assert_array_equal(mask.astype(bool), made.mask.T)
    np.testing.assert_allclose(Inputs.matrixOf(nodes.magnitude), made.field_matrix, atol=1e-5)
    length = np.linalg.norm(made.field, axis=-1)
    np.testing.assert_allclose(slicer.util.arrayFromVolume(nodes.magnitude), length.T, atol=1e-5)
    transform = nodes.deformation.GetTransformFromParent()
    ras = points(FIELD_SHAPE, made.field_matrix)
    for index in ((5, 7, 9), (20, 11, 6), (14, 16, 10)):
        moved = np.array(transform.TransformPoint(ras[index])) - ras[index]
        np.testing.assert_allclose(moved, made.field[index], atol=1e-4)


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR", "oblique"])
def test_hardening_the_field_on_the_image_before_gives_the_image_after(
    host: MRMLHost, tmp_path: Path, orientation: str
) -> None:
    """The sign of the field: within 1 % of the image's range, where the wrong sign is off by more than 10 %."""
    host.openScene()
    made = make_output(tmp_path / "out", orientation, steps=2)
    nodes = add(host, made)
    node = slicer.util.addVolumeFromArray(made.before.T.copy(), ijkToRAS=made.field_matrix, name="before")
    node.SetAndObserveTransformNodeID(nodes.deformation.GetID())
    assert node.HardenTransform()
    hardened, matrix = slicer.util.arrayFromVolume(node).T.astype(float), Inputs.matrixOf(node)
    # the hardened volume has a lattice of its own: read it at the voxels of the image after
    inverse = np.linalg.inv(matrix)
    index = points(FIELD_SHAPE, made.field_matrix) @ inverse[:3, :3].T + inverse[:3, 3]
    from scipy import ndimage

    back = ndimage.map_coordinates(hardened, np.moveaxis(index, -1, 0), order=1)
    core = np.s_[4:-4, 4:-4, 4:-4]
    span = float(np.ptp(made.after))
    assert np.abs(back - made.after)[core].max() < 0.01 * span
    assert np.abs(pull(made.before, made.field_matrix, -made.field) - made.after)[core].max() > 0.1 * span


def test_field_agrees_with_simpleitk(host: MRMLHost, tmp_path: Path) -> None:
    """SimpleITK's reading of deformation.nii.gz moves points as the node does, in its own LPS."""
    import SimpleITK as sitk

    host.openScene()
    made = make_output(tmp_path / "out", "oblique", steps=0)
    nodes = add(host, made)
    field = sitk.ReadImage(str(made.folder / "deformation.nii.gz"), sitk.sitkVectorFloat64)
    theirs = sitk.DisplacementFieldTransform(field)
    ours = nodes.deformation.GetTransformFromParent()
    flip = np.array([-1.0, -1.0, 1.0])
    for point in ([3.0, 0.5, 5.2], [-2.0, 3.0, 1.0], [6.0, -4.0, 8.0]):
        expected = flip * theirs.TransformPoint((flip * point).tolist())
        np.testing.assert_allclose(ours.TransformPoint(point), expected, atol=2e-3)


def test_files_of_a_result_are_known_by_their_folder(host: MRMLHost, tmp_path: Path) -> None:
    """Loaded by drag and drop, the engine's files and a batch's BraTS-named copies are synthetic; a real scan of such a
    name is not, and none of them is taken for the real T1c."""
    host.openScene()
    made = make_output(tmp_path / "case")
    trace = made.folder / "trace"
    trace.mkdir(exist_ok=True)
    write_nifti(tmp_path / "case-t1c.nii.gz", made.cemri, made.matrix)

    def read(path: Path, name: str) -> object:
        node = slicer.util.addVolumeFromArray(made.t1.T.copy(), ijkToRAS=made.matrix, name=name)
        node.AddDefaultStorageNode()
        node.GetStorageNode().SetFileName(str(path))
        return node

    ours = [
        read(made.folder / "cemri.nii.gz", "cemri"), read(made.folder / "cemri.nii.gz", "cemri_1"),
        read(trace / "step_001_after.nii.gz", "step_001_after"), read(tmp_path / "case-t1c.nii.gz", "case-t1c"),
    ]  # fmt: skip
    real = [
        read(tmp_path / "cemri.nii.gz", "cemri_2"), read(tmp_path / "other-t1c.nii.gz", "other-t1c"),
        slicer.util.addVolumeFromArray(made.t1.T.copy(), ijkToRAS=made.matrix, name="case-t1c"),
    ]  # fmt: skip
    assert [Assignment.isSynthetic(node) for node in (*ours, *real)] == [True] * 4 + [False] * 3
    t1 = t1_node(made, "case-t1n")
    assert Assignment.assignInputs([ours[3], t1]).t1c is None


def test_marks_and_terminology(host: MRMLHost, tmp_path: Path) -> None:
    """Every node says that it is synthetic and how it was made; the segment has name, colour and a SNOMED code."""
    host.openScene()
    nodes = add(host, make_output(tmp_path / "out"))
    assert nodes.cemri.GetName() == "T1 synthetic CEMRI"
    for node in [*nodes.all(), *Runs.proxies(nodes).values()]:
        assert Assignment.isSynthetic(node), node.GetName()
        assert (node.GetAttribute("D3M.Seed"), node.GetAttribute("D3M.Quality")) == ("7", "standard")
        assert (node.GetAttribute("D3M.Model"), node.GetAttribute("D3M.ModelSha256")) == ("tiny", "ab" * 32)
    assert not Assignment.isSynthetic(nodes.t1)
    segment = nodes.segmentation.GetSegmentation().GetSegment(nodes.segmentID)
    value = vtk.reference("")
    assert segment.GetTag(segment.GetTerminologyEntryTagName(), value)
    assert "SCT^86049000^Neoplasm, Primary" in str(value)
    assert "Segmentation category and type - DICOM master list" in str(value)  # Slicer's list that has this type
    assert segment.GetName() == "Enhancing tumour (predicted)"
    assert segment.GetColor() == Masks.SEGMENT_COLOUR
    assert nodes.segmentation.GetSegmentation().GetSourceRepresentationName() == "Binary labelmap"
    assert nodes.notices == ["T2 has thick slices."]


def test_run_stands_in_a_folder_under_the_study_of_t1(host: MRMLHost, tmp_path: Path) -> None:
    """The subject hierarchy has one folder a run; a second run makes new nodes and a second folder."""
    host.openScene()
    made = make_output(tmp_path / "out")
    t1 = t1_node(made)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(host.scene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(t1) or hierarchy.CreateItem(study, t1), study)
    first, second = (Scene.addRun(host.scene, made.folder, Scene.Frame("T1", made.matrix, t1)) for _ in range(2))
    assert first.folderItem != second.folderItem
    assert first.cemri.GetName() != second.cemri.GetName()
    for nodes in (first, second):
        assert hierarchy.GetItemParent(nodes.folderItem) == study
        for node in nodes.all():
            assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == nodes.folderItem
    Scene.removeRun(first)
    assert [nodes.runID for nodes in Runs.findRuns(host.scene)] == [second.runID]


def test_results_follow_the_transform_of_t1(host: MRMLHost, tmp_path: Path) -> None:
    """With T1 under a transform everything overlays it in the world, once."""
    host.openScene()
    made = make_output(tmp_path / "out")
    t1 = t1_node(made)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation(15, 0), [20, 0, -5]
    parent = host.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    parent.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    t1.SetAndObserveTransformNodeID(parent.GetID())
    nodes = Scene.addRun(host.scene, made.folder, Scene.Frame("T1", made.matrix, t1, parent))
    for node in [*nodes.all(), *Runs.proxies(nodes).values()]:
        if node.IsA("vtkMRMLTransformableNode"):
            assert node.GetTransformNodeID() == parent.GetID(), node.GetName()
    world = np.zeros(6)
    t1.GetRASBounds(world)
    ours = np.zeros(6)
    nodes.cemri.GetRASBounds(ours)
    np.testing.assert_allclose(ours, world)


def test_threshold_makes_the_mask_anew(host: MRMLHost, tmp_path: Path) -> None:
    """The mask's volume in ml is the number of voxels above the threshold times their size."""
    host.openScene()
    made = make_output(tmp_path / "out", threshold=0.3)
    nodes = add(host, made)
    voxel = 1.0 * 1.1 * 1.4 / 1000
    assert nodes.threshold == pytest.approx(0.3)
    assert nodes.enhancingVolumeMl == pytest.approx(made.mask.sum() * voxel, rel=1e-5)
    volume = Masks.setThreshold(nodes, 0.6)
    expected = made.probability >= 0.6
    assert volume == nodes.enhancingVolumeMl or volume == pytest.approx(nodes.enhancingVolumeMl, rel=1e-5)
    assert volume == pytest.approx(expected.sum() * voxel)
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(nodes.segmentation, nodes.segmentID, nodes.t1)
    np.testing.assert_array_equal(mask.astype(bool), expected.T)


def test_empty_mask(host: MRMLHost, tmp_path: Path) -> None:
    """A patient without enhancement has an empty segment and 0 ml, and the scene works."""
    host.openScene()
    made = make_output(tmp_path / "out", threshold=2.0)
    nodes = add(host, made)
    assert nodes.enhancingVolumeMl == 0
    assert Masks.setThreshold(nodes, 0.5) > 0
    assert Masks.setThreshold(nodes, 1.0) == 0


def test_steps_run_from_noise_to_result(host: MRMLHost, tmp_path: Path) -> None:
    """The slider's item k shows what stood after k+1 steps: image, mask and field together."""
    from D3MSynthesisLib import Pictures

    host.openScene()
    made = make_output(tmp_path / "out", steps=12)
    nodes = add(host, made)
    assert nodes.steps == 12
    for done in (1, 2, 10, 12):
        Pictures.selectStep(nodes, done)
        assert nodes.browser.GetSelectedItemNumber() == done - 1
        found = Runs.proxies(nodes)
        np.testing.assert_allclose(slicer.util.arrayFromVolume(found["after"]), made.after.T * done / 12, rtol=1e-5)
        assert slicer.util.arrayFromVolume(found["mask"]).max() == pytest.approx(0.1 * done)
        point = points(FIELD_SHAPE, made.field_matrix)[14, 16, 10]
        moved = np.array(found["field"].GetTransformFromParent().TransformPoint(point)) - point
        np.testing.assert_allclose(moved, made.field[14, 16, 10] * done / 12, atol=1e-4)


@pytest.mark.parametrize("kind", ["mrb", "folder"])
def test_saving_and_reopening_the_scene(host: MRMLHost, tmp_path: Path, kind: str) -> None:
    """Everything that the panel needs survives: nodes, marks, mask, direction of the field, steps, threshold."""
    from D3MSynthesisLib import Pictures

    host.openScene()
    made = make_output(tmp_path / "out", "oblique")
    nodes = add(host, made, 'T1/ax: "Ö" [1]*?')
    Masks.setThreshold(nodes, 0.6)
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(nodes.segmentation, nodes.segmentID, nodes.t1).copy()
    names = sorted(node.GetName() for node in nodes.all())
    if kind == "mrb":
        assert host.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    else:
        (tmp_path / "scene").mkdir()
        assert host.scene.SaveSceneToSlicerDataBundleDirectory(str(tmp_path / "scene"))
    scene = host.openScene()
    if kind == "mrb":
        assert scene.ReadFromMRB(str(tmp_path / "scene.mrb"), True)
    else:
        scene.SetURL(str(next((tmp_path / "scene").glob("*.mrml"))))
        assert scene.Import()
    (again,) = Runs.findRuns(scene)
    assert sorted(node.GetName() for node in again.all()) == names
    assert again.t1.GetName() == 'T1/ax: "Ö" [1]*?'
    assert all(Assignment.isSynthetic(node) for node in again.all())
    assert again.threshold == pytest.approx(0.6)
    back = slicer.util.arrayFromSegmentBinaryLabelmap(again.segmentation, again.segmentID, again.cemri)
    np.testing.assert_array_equal(back, mask)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(again.cemri), made.cemri.T)
    point = points(FIELD_SHAPE, made.field_matrix)[14, 16, 10]
    moved = np.array(again.deformation.GetTransformFromParent().TransformPoint(point)) - point
    np.testing.assert_allclose(moved, made.field[14, 16, 10], atol=1e-4)
    assert again.steps == 3
    for done in (1, 3):
        Pictures.selectStep(again, done)
        found = Runs.proxies(again)
        np.testing.assert_allclose(slicer.util.arrayFromVolume(found["before"]), made.before.T * done / 3, rtol=1e-5)
        moved = np.array(found["field"].GetTransformFromParent().TransformPoint(point)) - point
        np.testing.assert_allclose(moved, made.field[14, 16, 10] * done / 3, atol=1e-4)
    assert again.folderItem
    assert again.provenance["settings"]["seed"] == 7
    colour = np.ones(4)
    again.subtraction.GetDisplayNode().GetColorNode().GetColor(128, colour)
    assert colour[3] == pytest.approx(0, abs=0.01), "zero is transparent"
    third = Scene.addRun(scene, made.folder, Scene.Frame(again.t1.GetName(), made.matrix, again.t1))
    assert [run.runID for run in Runs.findRuns(scene)] == [again.runID, third.runID]
    assert len(slicer.util.getNodesByClass("vtkMRMLColorTableNode")) == len(
        {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLColorTableNode")}
    )


@pytest.mark.parametrize("name", ["", "x" * 300, "a/b\\c:d*?[1]<>|", "山田 Ö"])
def test_odd_names(host: MRMLHost, tmp_path: Path, name: str) -> None:
    """Results of a T1 with an impossible name can be saved, as scene and as files, and found again."""
    host.openScene()
    made = make_output(tmp_path / "out", steps=1)
    t1 = t1_node(made, "T1")
    t1.SetName(name)
    nodes = Scene.addRun(host.scene, made.folder, Scene.Frame(name, made.matrix, t1))
    saved = Saving.saveRun(nodes, tmp_path)
    assert saved.parent == tmp_path
    t1.SetName("T1")  # its own name is the user's affair
    assert host.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    assert host.openScene().ReadFromMRB(str(tmp_path / "scene.mrb"), True)
    assert len(Runs.findRuns(host.scene)) == 1


@pytest.mark.parametrize("damage", ["missing", "short", "no provenance", "not NIfTI"])
def test_incomplete_result_changes_nothing(host: MRMLHost, tmp_path: Path, damage: str) -> None:
    """A result that is not whole is refused, and no node of it stays in the scene."""
    host.openScene()
    made = make_output(tmp_path / "out")
    path = made.folder / "trace" / "step_002_field.nii.gz"
    if damage == "missing":
        path.unlink()
    elif damage == "short":
        path.write_bytes(path.read_bytes()[:-20])
    elif damage == "no provenance":
        (made.folder / "provenance.json").unlink()
    else:
        size = path.stat().st_size
        path.write_bytes(b"\x1f\x8b" + b"0" * (size - 2))
    t1 = t1_node(made)
    before = {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLDisplayableNode")}
    with pytest.raises((ValueError, OSError)):
        Scene.addRun(host.scene, made.folder, Scene.Frame("T1", made.matrix, t1))
    assert {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLDisplayableNode")} == before
    assert Runs.findRuns(host.scene) == []


def test_saved_files_are_read_by_others(host: MRMLHost, tmp_path: Path) -> None:
    """SimpleITK finds image, mask and field at the right place; saving twice makes two folders."""
    import SimpleITK as sitk

    host.openScene()
    made = make_output(tmp_path / "out", "oblique")
    nodes = add(host, made)
    first, second = Saving.saveRun(nodes, tmp_path), Saving.saveRun(nodes, tmp_path)
    assert first != second
    image = sitk.ReadImage(str(first / "synthetic_cemri.nrrd"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), made.cemri.T)
    corner = image.TransformContinuousIndexToPhysicalPoint([3.0, 5.0, 7.0])
    np.testing.assert_allclose(np.array(corner) * [-1, -1, 1], (made.matrix @ [3, 5, 7, 1])[:3], atol=1e-4)
    field = sitk.ReadImage(str(first / "deformation.nii.gz"))
    vector = np.array(field[14, 16, 10]) * [-1, -1, 1]
    np.testing.assert_allclose(vector, made.field[14, 16, 10], atol=1e-4)
    mask = sitk.Resample(
        sitk.ReadImage(str(first / "enhancement.seg.nrrd")), image, sitk.Transform(), sitk.sitkNearestNeighbor
    )
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask) > 0, made.mask.T)
    assert (first / "provenance.json").is_file()
    assert not list(tmp_path.glob(".d3m*"))
    assert nodes.cemri.GetStorageNode() is None


def test_scene_helper_shapes() -> None:
    """The orientations that the tests use are what their names say."""
    import nibabel

    for name in ("RAS", "LPS", "LAS", "PIR", "ASL", "SRA"):
        assert "".join(nibabel.aff2axcodes(affine(name, SHAPE))) == name


def test_many_runs_leave_nothing_behind_when_removed(host: MRMLHost, tmp_path: Path) -> None:
    """Nodes, display and storage nodes and items of a removed run are gone, however often it is done."""
    host.openScene()
    made = make_output(tmp_path / "out", steps=2)
    t1 = t1_node(made)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(host.scene)
    counts = []
    for _ in range(4):
        nodes = Scene.addRun(host.scene, made.folder, Scene.Frame("T1", made.matrix, t1))
        Masks.setThreshold(nodes, 0.4)
        Scene.removeRun(nodes)
        items = vtk.vtkIdList()
        hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), items, True)
        counts.append((host.scene.GetNumberOfNodes(), items.GetNumberOfIds()))
    assert len(set(counts)) == 1, counts


def test_a_copy_of_a_result_does_not_take_its_place(host: MRMLHost, tmp_path: Path) -> None:
    """Cloned nodes bear all attributes (vtkMRMLNode.cxx, CopyContent); the run keeps its own picture and mask."""
    host.openScene()
    nodes = add(host, make_output(tmp_path / "out", steps=0))
    for node in (nodes.cemri, nodes.segmentation):
        copy = host.scene.CreateNodeByClass(node.GetClassName())
        copy.UnRegister(None)
        copy.Copy(node)
        host.scene.AddNode(copy)
    (found,) = Runs.findRuns(host.scene)
    assert found.cemri is nodes.cemri
    assert found.segmentation is nodes.segmentation
