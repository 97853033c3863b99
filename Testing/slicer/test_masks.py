"""The mask that a person edits: kept, named, measured, and never wiped without a question."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from slicer_helpers import MadeOutput, make_output, save, write_provenance

slicer = pytest.importorskip("slicer")
from mrml_host import MRMLHost  # noqa: E402

from D3MSynthesisLib import Grids, Masks, Runs, Scene  # noqa: E402


@pytest.fixture
def made(tmp_path: Path) -> tuple[Runs.Nodes, MadeOutput]:
    """A result in a scene of its own."""
    host = MRMLHost()
    output = make_output(tmp_path / "out", "oblique", steps=0)
    t1 = slicer.util.addVolumeFromArray(output.t1.T.copy(), ijkToRAS=output.matrix, name="T1")
    return Scene.addRun(host.scene, output.folder, Scene.Frame("T1", output.matrix, t1)), output


def paint(nodes: Runs.Nodes, mask: np.ndarray, identifier: str | None = None) -> None:
    """Change the segment as an effect of Segment Editor does."""
    Grids.writeMask(nodes.segmentation, identifier or nodes.segmentID, mask, Grids.matrixOf(nodes.cemri))


def test_an_edit_is_named_and_measured(made: tuple[Runs.Nodes, MadeOutput]) -> None:
    """What a person removes is gone from the volume; taken back, the mask is the predicted one again."""
    nodes, output = made
    assert not Masks.noticeEdit(nodes)
    assert not nodes.edited
    edited = output.mask.T.copy()
    edited[: len(edited) // 2] = False
    paint(nodes, edited)
    assert Masks.noticeEdit(nodes)
    assert nodes.edited
    assert nodes.enhancingVolumeMl == pytest.approx(edited.sum() * 1.0 * 1.1 * 1.4 / 1000, rel=1e-4)
    assert nodes.segmentation.GetSegmentation().GetSegment(nodes.segmentID).GetName() == Masks.EDITED_NAME
    assert Masks.record(nodes)["edited"]
    paint(nodes, output.mask.T)
    assert not Masks.record(nodes)["edited"], "nobody has looked since, as in a script"
    paint(nodes, edited)
    assert Masks.record(nodes)["edited"]
    paint(nodes, output.mask.T)
    assert Masks.noticeEdit(nodes)
    assert not nodes.edited
    assert nodes.segmentation.GetSegmentation().GetSegment(nodes.segmentID).GetName() == Masks.SEGMENT_NAME


def test_a_voxel_at_the_threshold_is_no_edit(tmp_path: Path) -> None:
    """Of a real patient's voxels one may lie within a millionth of the threshold; nobody has edited the mask then."""
    MRMLHost()
    output = make_output(tmp_path / "made")
    probability = output.probability.copy()
    edge = tuple(np.argwhere(~output.mask & (probability > 0.2))[0])
    probability[edge] = np.float32(0.3) - np.float32(5e-7)
    save(output.folder / "enhancement_probability.nii.gz", probability, output.matrix)
    (output.folder / "provenance.json").unlink()
    write_provenance(output.folder)
    t1 = slicer.util.addVolumeFromArray(output.t1.T, ijkToRAS=output.matrix, name="T1")
    frame = Scene.Frame("T1", output.matrix, t1)
    nodes = Scene.addRun(slicer.mrmlScene, output.folder, frame)
    assert nodes.threshold == 0.3
    assert not Masks.noticeEdit(nodes)
    assert not nodes.edited


def test_segments_that_were_added_count(made: tuple[Runs.Nodes, MadeOutput]) -> None:
    """A second lesion that is drawn as a segment of its own is part of the mask; a new threshold starts again."""
    nodes, output = made
    extra = np.zeros(output.mask.T.shape, bool)
    extra[2:5, 2:6, 2:7] = True
    nodes.segmentation.GetSegmentation().AddEmptySegment("mine", "Second lesion")
    paint(nodes, extra, "mine")
    Masks.noticeEdit(nodes)
    assert nodes.edited
    np.testing.assert_array_equal(Masks.maskOf(nodes), output.mask.T | extra)
    Masks.setThreshold(nodes, nodes.threshold)
    assert not nodes.edited
    np.testing.assert_array_equal(Masks.maskOf(nodes), output.mask.T)


@pytest.mark.parametrize("how", ["merged", "saved"])
def test_voxels_that_moved_to_another_segment_are_an_edit_after_saving(
    made: tuple[Runs.Nodes, MadeOutput], tmp_path: Path, how: str
) -> None:
    """Saving merges the segments into one image: each is still its own voxels alone."""
    nodes, output = made
    mask = output.mask.T
    core = mask.copy()
    core[..., : int(np.median(np.argwhere(mask)[:, 2]))] = False
    nodes.segmentation.GetSegmentation().AddEmptySegment("core", "Necrotic core")
    paint(nodes, core, "core")
    paint(nodes, mask & ~core)
    Masks.noticeEdit(nodes)
    assert nodes.edited
    if how == "merged":
        nodes.segmentation.GetSegmentation().CollapseBinaryLabelmaps(False)
    else:
        assert slicer.mrmlScene.WriteToMRB(str(tmp_path / "scene.mrb"))
        slicer.mrmlScene.Clear(False)
        assert slicer.mrmlScene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
        (nodes,) = Runs.findRuns(slicer.mrmlScene)
    assert nodes.segmentation.GetSegmentation().GetNumberOfLayers() == 1
    np.testing.assert_array_equal(
        Grids.segmentOn(nodes.segmentation, nodes.segmentID, nodes.cemri), mask & ~core, "the segment alone"
    )
    np.testing.assert_array_equal(Masks.maskOf(nodes), mask)
    Masks.noticeEdit(nodes)
    assert nodes.edited
    assert nodes.segmentation.GetSegmentation().GetSegment(nodes.segmentID).GetName() == Masks.EDITED_NAME
    paint(nodes, mask & ~core)
    np.testing.assert_array_equal(Masks.maskOf(nodes), mask, "the other segment is left alone")


def test_an_edited_mask_stays_so_without_its_probability(made: tuple[Runs.Nodes, MadeOutput]) -> None:
    """Whoever deletes the probability does not make a drawn mask a predicted one, nor a predicted one a drawn one."""
    nodes, output = made
    slicer.mrmlScene.RemoveNode(nodes.probability)
    assert not Masks.noticeEdit(nodes)
    assert not nodes.edited
    for part in (2, 3):
        edited = output.mask.T.copy()
        edited[: len(edited) // part] = False
        paint(nodes, edited)
        Masks.noticeEdit(nodes)
        assert nodes.edited
    assert nodes.segmentation.GetSegmentation().GetSegment(nodes.segmentID).GetName() == Masks.EDITED_NAME


def test_an_empty_mask_of_a_high_threshold_is_not_edited(tmp_path: Path) -> None:
    """A model that asks for more than 0.5 found nothing: what it said is not taken for a person's edit."""
    host = MRMLHost()
    output = make_output(tmp_path / "out", steps=0)
    for name, data in (
        ("enhancement_probability", np.minimum(output.probability, 0.62).astype(np.float32)),
        ("enhancement_mask", np.zeros(output.mask.shape, np.uint8)),
    ):
        save(output.folder / f"{name}.nii.gz", data, output.matrix)
    (output.folder / "provenance.json").unlink()
    write_provenance(output.folder)
    nodes = Scene.addRun(host.scene, output.folder, Scene.Frame("T1", output.matrix))
    assert output.probability.max() > 0.62
    assert not Masks.noticeEdit(nodes)
    assert not nodes.edited
    assert 0.62 < nodes.threshold <= 1


def test_a_deleted_segment_is_no_error(made: tuple[Runs.Nodes, MadeOutput]) -> None:
    """Without its segment the volume is 0; the threshold makes the segment again, with colour and terminology."""
    nodes, output = made
    nodes.segmentation.GetSegmentation().RemoveSegment(nodes.segmentID)
    assert Masks.noticeEdit(nodes)
    assert nodes.edited
    assert nodes.enhancingVolumeMl == 0
    Masks.setThreshold(nodes, 0.3)
    segment = nodes.segmentation.GetSegmentation().GetSegment(nodes.segmentID)
    assert segment.GetColor() == Masks.SEGMENT_COLOUR
    np.testing.assert_array_equal(Masks.maskOf(nodes), output.mask.T)
    slicer.mrmlScene.RemoveNode(nodes.segmentation)
    assert not Masks.maskOf(nodes).any()
    Masks.noticeEdit(nodes)
    assert nodes.enhancingVolumeMl == 0


def test_edits_survive_a_saved_scene(made: tuple[Runs.Nodes, MadeOutput], tmp_path: Path) -> None:
    """After reopening, the edited mask is there, and is known as edited."""
    nodes, output = made
    edited = output.mask.T.copy()
    edited[:, : edited.shape[1] // 2] = False
    paint(nodes, edited)
    Masks.noticeEdit(nodes)
    slicer.mrmlScene.WriteToMRB(str(tmp_path / "scene.mrb"))
    host = MRMLHost()
    assert host.scene.ReadFromMRB(str(tmp_path / "scene.mrb"), True)
    (again,) = Runs.findRuns(host.scene)
    assert again.edited
    assert not Masks.noticeEdit(again)
    np.testing.assert_array_equal(Masks.maskOf(again), edited)


def test_an_edit_that_nobody_has_noticed_is_named_in_the_file(
    made: tuple[Runs.Nodes, MadeOutput], tmp_path: Path
) -> None:
    """A script edits the mask and saves the run at once."""
    from D3MSynthesisLib import Saving

    nodes, output = made
    paint(nodes, output.mask.T[::-1].copy())
    header = (Saving.saveRun(nodes, tmp_path) / "enhancement.seg.nrrd").read_bytes()[:4000]
    assert b"Enhancing tumour (edited)" in header
    assert b"predicted" not in header


def test_voxels_of_a_segment_of_its_own_are_an_edit(made: tuple[Runs.Nodes, MadeOutput]) -> None:
    """Segment Editor takes the voxels of a new segment from the others: the whole mask is then as large as before."""
    nodes, output = made
    core = output.mask.T.copy()
    core[:, :, : core.shape[2] // 2] = False
    assert core.any()
    segments = nodes.segmentation.GetSegmentation()
    segments.AddEmptySegment("mine", "necrotic core")
    paint(nodes, core, "mine")
    Masks.noticeEdit(nodes)
    assert not nodes.edited, "it only lies over the predicted one"
    assert Masks.drawnBy(nodes) == (False, ["necrotic core"])
    paint(nodes, output.mask.T & ~core)
    Masks.noticeEdit(nodes)
    assert nodes.edited
    np.testing.assert_array_equal(Masks.maskOf(nodes), output.mask.T)
    segments.RemoveSegment(nodes.segmentID)
    paint(nodes, output.mask.T, "mine")
    Masks.noticeEdit(nodes)
    segments.AddEmptySegment("other", "other")
    Masks.noticeEdit(nodes)
    assert nodes.edited, "the predicted segment is gone"


def test_a_name_and_a_colour_that_a_person_chose_stay(made: tuple[Runs.Nodes, MadeOutput]) -> None:
    """Another threshold changes voxels alone."""
    nodes, _ = made
    segment = nodes.segmentation.GetSegmentation().GetSegment(nodes.segmentID)
    segment.SetName("rim of the left lesion")
    segment.SetColor(0.0, 0.5, 1.0)
    Masks.setThreshold(nodes, 0.6)
    segment = nodes.segmentation.GetSegmentation().GetSegment(nodes.segmentID)
    assert segment.GetName() == "rim of the left lesion"
    assert segment.GetColor() == (0.0, 0.5, 1.0)
