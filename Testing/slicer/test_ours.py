"""Results that come back from files are known as such, and stay so: saved, renamed, copied, exported, cut."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from slicer_helpers import MadeOutput, make_output, save

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from panel_helpers import SCANS, opened, press  # noqa: E402
from qt_host import Host  # noqa: E402

from d3m.batch.derivatives import NAMES  # noqa: E402
from d3m.results import ours  # noqa: E402
from d3m.results.files import write_nifti  # noqa: E402
from D3MSynthesisLib import Assignment, Grids, Masks, Runs, Saving  # noqa: E402


def written(made: MadeOutput, path: Path, mask: bool = False) -> Path:
    """An image as the engine writes it, under any name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(path, made.mask.astype(np.uint8) if mask else made.cemri, made.matrix)
    return path


FILES = [
    "earlier_cemri", "later_cemri", "change", "enhancement_mask", "uncertainty", "step_003_after", "smith-t1c",
    *(f"sub-01_{ending}" for ending, _text in NAMES.values() if not ending.endswith("_xfm")), "whatever",
]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_an_image_of_the_engine_is_known_wherever_it_lies(
    host: Host, made: MadeOutput, tmp_path: Path, name: str
) -> None:
    """Follow-up, BIDS, batch, steps: the file itself says it, alone in a folder, whatever it is called."""
    host.openModule("D3MSynthesis")
    mask = name.endswith(("mask", "probseg"))
    path = written(made, tmp_path / "alone" / f"{name}.nii.gz", mask)
    node = slicer.util.loadVolume(str(path), {"labelmap": True} if mask else {})
    assert Assignment.isSynthetic(node)
    host.settle()
    assert node.GetAttribute(Assignment.SYNTHETIC) == "yes"
    (tmp_path / "real").mkdir()
    save(tmp_path / "real" / path.name, made.t1, made.matrix)
    real = slicer.util.loadVolume(str(tmp_path / "real" / path.name), {"labelmap": True} if mask else {})
    assert Assignment.isSynthetic(real) == ("desc-synth" in name), "another's file of such a name"


@pytest.mark.parametrize("how", ["saved", "renamed", "copied"])
@pytest.mark.parametrize("mask", [False, True])
def test_the_mark_stays(host: Host, made: MadeOutput, tmp_path: Path, how: str, mask: bool) -> None:
    """A scene that is saved has no folder beside it any more; a new name and a copy's say nothing."""
    host.openModule("D3MSynthesis")
    path = written(made, tmp_path / "batch" / "smith-t1c.nii.gz", mask)
    node = slicer.util.loadVolume(str(path), {"labelmap": True} if mask else {})
    host.settle()
    if how == "saved":
        assert host.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
        host.clear()
        shutil.rmtree(tmp_path / "batch")
        host.scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
        host.settle()
        node = slicer.util.getNode("smith-t1c")
    elif how == "renamed":
        node.SetName("smith tumour")
        node.SetAndObserveStorageNodeID(None)
    else:
        node = slicer.vtkSlicerVolumesLogic.CloneVolume(host.scene, node, "copy")
    assert Assignment.isSynthetic(node)


def test_every_node_of_a_run_is_known_by_its_name(host: Host, made: MadeOutput) -> None:
    """What a person saves of a run by itself and loads again has nothing but its name."""
    for name in ("uncertainty", "whole_tumour_probability"):
        shutil.copy(made.folder / "enhancement_probability.nii.gz", made.folder / f"{name}.nii.gz")
    panel = opened(host, made)
    press(host, panel)
    nodes = panel.result.nodes
    volumes = [node for node in [*nodes.all(), *Runs.proxies(nodes).values()] if node.IsA("vtkMRMLVolumeNode")]
    assert len(volumes) >= 9
    names = [node.GetName() for node in volumes]
    assert [name for name in names if not ours.is_our_name(name)] == []
    assert not any(ours.is_our_name(name) for name in ("p_t1", "SYNTHETIC T2 map", "MAGiC synthetic FLAIR", "tumour"))


@pytest.mark.parametrize("change", ["edited", "renamed"])
def test_a_saved_mask_is_no_real_tumour(host: Host, made: MadeOutput, tmp_path: Path, change: str) -> None:
    """Saved by the panel and loaded again, an edited or renamed mask is refused and told as in the scene."""
    panel = opened(host, made)
    press(host, panel)
    nodes = panel.result.nodes
    if change == "edited":
        mask = Masks.maskOf(nodes)
        mask[tuple(np.argwhere(mask)[0])] = False
        Grids.writeMask(nodes.segmentation, nodes.segmentID, mask, Grids.matrixOf(nodes.cemri))
    else:
        nodes.segmentation.GetSegmentation().GetSegment(nodes.segmentID).SetName("Tumour")
    saved = Saving.saveRun(nodes, tmp_path)
    alone = shutil.copy(saved / "enhancement.seg.nrrd", tmp_path / "tumour.seg.nrrd")
    panel.parameters.reference = slicer.util.addVolumeFromArray(made.cemri.T.copy(), ijkToRAS=made.matrix, name="p_t1c")
    for path in (saved / "enhancement.seg.nrrd", Path(alone)):
        loaded = slicer.util.loadSegmentation(str(path))
        panel.parameters.referenceMask = loaded
        panel.ui.compareButton.click()
        assert "what a synthesis made" in panel.ui.errorLabel.text
    for path in sorted(saved.glob("*.nrrd")):
        assert ours.is_our_file(path), path.name


@pytest.mark.parametrize("name", ["5: t1_mprage_sag_p2_iso", "8: AX T1 SE PRE CONTRAST 3MM", "x" * 90, "t1"])
def test_a_series_of_slicers_own_exporter_is_known(host: Host, made: MadeOutput, name: str) -> None:
    """DICOM cuts descriptions after 64 characters; the mark is at the beginning."""
    panel = opened(host, made, (name, "2: T2 TSE", "3: FLAIR"))
    press(host, panel)
    nodes = panel.result.nodes
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(host.scene)
    for node in (nodes.cemri, nodes.subtraction, nodes.probability):
        text = hierarchy.GetItemAttribute(hierarchy.GetItemByDataNode(node), "DICOM.SeriesDescription")
        again = slicer.util.addVolumeFromArray(made.cemri.T.copy(), ijkToRAS=made.matrix, name=f"9301: {text}")
        assert Assignment.isSynthetic(again)
        panel.parameters.reference = again
        assert not panel.ui.applyButton.enabled


def test_a_persons_segments_beside_a_copy_are_the_persons(host: Host, made: MadeOutput) -> None:
    """A predicted mask that was copied beside a person's segments goes again, and nothing of it stays."""
    panel = opened(host, made)
    press(host, panel)
    nodes = panel.result.nodes
    own = host.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn")
    own.GetSegmentation().AddEmptySegment("own", "tumour")
    own.GetSegmentation().CopySegmentFromSegmentation(nodes.segmentation.GetSegmentation(), nodes.segmentID)
    host.settle()
    assert Assignment.isSynthetic(own)
    own.GetSegmentation().RemoveSegment(nodes.segmentID)
    host.settle()
    assert not Assignment.isSynthetic(own)


def test_files_of_the_module_are_all_listed(tmp_path: Path) -> None:
    """A real file that somebody puts into a result's folder stays real; what the provenance lists is synthetic."""
    made = make_output(tmp_path / "case")
    save(made.folder / "t1c.nii.gz", made.t1, made.matrix)
    listed = [path for path in sorted(made.folder.rglob("*.nii.gz")) if path.name != "t1c.nii.gz"]
    assert [path.name for path in listed if not ours.is_our_file(path)] == []
    assert not ours.is_our_file(made.folder / "t1c.nii.gz")
    assert not ours.is_our_file(tmp_path / "gone.nii.gz")


def test_scans_beside_results_are_still_scans(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """Among a patient's scans a result of the batch is not taken for the real T1c."""
    panel = host.openModule("D3MSynthesis").panel
    for scan in SCANS:
        save(tmp_path / f"smith-{scan}.nii.gz", made.t1, made.matrix)
        slicer.util.loadVolume(str(tmp_path / f"smith-{scan}.nii.gz"))
    slicer.util.loadVolume(str(written(made, tmp_path / "smith-t1c.nii.gz")))
    host.settle()
    assert panel.parameters.flair.GetName() == "smith-flair"
    assert panel.parameters.reference is None


@pytest.mark.parametrize("ending", ["nii.gz", "nii", "nrrd"])
def test_a_real_t1c_beside_a_result_of_its_name(host: Host, made: MadeOutput, tmp_path: Path, ending: str) -> None:
    """smith-t1.nii.gz went in and the result is in smith: smith-t1c lies beside it, and is real."""
    panel = host.openModule("D3MSynthesis").panel
    shutil.copytree(made.folder, tmp_path / "smith")
    path = tmp_path / f"smith-t1c.{ending}"
    if ending == "nrrd":
        real = slicer.util.addVolumeFromArray(made.t1.T.copy(), ijkToRAS=made.matrix)
        storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
        storage.SetFileName(str(path))
        assert storage.WriteData(real)
        host.scene.RemoveNode(real)
    else:
        save(path, made.t1, made.matrix)
    for scan in SCANS:
        save(tmp_path / f"smith-{scan}.nii.gz", made.t1, made.matrix)
        slicer.util.loadVolume(str(tmp_path / f"smith-{scan}.nii.gz"))
    node = slicer.util.loadVolume(str(path))
    host.settle()
    assert not Assignment.isSynthetic(node)
    assert node.GetAttribute(Assignment.SYNTHETIC) is None
    panel.parameters.reference = node
    assert panel.ui.applyButton.enabled, panel.ui.stateLabel.text


def test_a_real_scan_in_a_results_folder_is_real(tmp_path: Path) -> None:
    """A NIfTI file would carry the mark: a common name does not make a scan synthetic; other formats cannot tell."""
    made = make_output(tmp_path / "case")
    (made.folder / "scans").mkdir()
    for name in ("step_009_before.nii.gz", "uncertainty.nii", "scans/subtraction.nii.gz"):
        save(made.folder / name, made.t1, made.matrix)
        assert not ours.is_our_file(made.folder / name), name
    assert ours.is_our_file(made.folder / "cemri.nrrd")
    assert not ours.is_our_file(made.folder / "scans" / "cemri.nrrd")
    other = tmp_path / "other"
    other.mkdir()
    (other / ours.PROVENANCE).write_text('{"files": {}}')
    assert not ours.is_our_file(other / "cemri.nrrd"), "another program's provenance"
