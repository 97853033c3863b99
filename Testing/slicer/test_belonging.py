"""Scans without identifiers: folders and names decide what belongs together, and the panel says where they do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from slicer_helpers import MadeOutput, save

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from panel_helpers import SCANS, opened  # noqa: E402
from qt_host import Host  # noqa: E402

CHOSEN = (*SCANS, "reference")


def read(host: Host, made: MadeOutput, folder: Path, *names: str) -> list[object]:
    """Volumes of files of these names, read one after the other as a person drags them in."""
    folder.mkdir(parents=True, exist_ok=True)
    nodes = []
    for name in names:
        save(folder / f"{name}.nii.gz", made.t1, made.matrix)
        nodes.append(slicer.util.loadVolume(str(folder / f"{name}.nii.gz")))
        host.settle()
    return nodes


def chosen(panel: object) -> list[object]:
    """T1, T2, FLAIR and the real T1c as they are chosen."""
    return [getattr(panel.parameters, name) for name in CHOSEN]


GOOD = [
    "t1 t2 flair t1c",
    "T1 T2 FLAIR T1Gd",
    "smith_t1 smith_t2 smith_flair smith_t1ce",
    "001_t1 001_t2 001_flair 001_t1ce",
    "t1_smith t2_smith flair_smith t1c_smith",
    "BraTS-GLI-00001-000-t1n BraTS-GLI-00001-000-t2w BraTS-GLI-00001-000-t2f BraTS-GLI-00001-000-t1c",
    "sub-01_T1w sub-01_T2w sub-01_FLAIR sub-01_ce-gadolinium_T1w",
    "MRI_HEAD_3D_T1_2020_3 MRI_HEAD_AX_T2_2020_4 MRI_HEAD_SAG_CUBE_FLAIR_2020_5 MRI_HEAD_3D_T1_GD_2020_9",
    "5_t1_mprage_sag_p2_iso 6_t2_tse_tra_3mm 7_t2_tirm_tra_dark-fluid 9_t1_mprage_sag_p2_iso_KM",
]


@pytest.mark.parametrize("names", GOOD)
def test_scans_of_one_folder_are_taken_without_a_word(host: Host, made: MadeOutput, tmp_path: Path, names: str) -> None:
    """What lies in one folder and is named alike, or by the scan alone, is chosen by itself, and nothing is doubted."""
    panel = host.openModule("D3MSynthesis").panel
    nodes = read(host, made, tmp_path / "smith", *names.split())
    assert chosen(panel) == nodes
    assert panel.ui.whoseLabel.text == ""


@pytest.mark.parametrize(
    ("mine", "other"),
    [("001_t1 001_t2", "002_flair"), ("t1_smith t2_smith", "flair_jones"), ("T1_001 T2_001", "FLAIR_002"),
     ("12_t1 12_t2", "13_flair 13_t1c"), ("t1-GLI-00001 t2-GLI-00001", "flair-GLI-00002")],
)  # fmt: skip
def test_one_folder_of_several_patients(host: Host, made: MadeOutput, tmp_path: Path, mine: str, other: str) -> None:
    """The patient may stand anywhere in a name; who chooses another's FLAIR by hand is told."""
    panel = host.openModule("D3MSynthesis").panel
    nodes = read(host, made, tmp_path / "all", *mine.split())
    others = read(host, made, tmp_path / "all", *other.split())
    assert chosen(panel) == [*nodes, None, None]
    panel.parameters.flair = others[0]
    assert "different patients" in panel.ui.whoseLabel.text


@pytest.mark.parametrize("names", ["t1 t2 flair t1c", "case_t1 case_t2 case_flair case_t1c"])
def test_the_next_patients_folder(host: Host, made: MadeOutput, tmp_path: Path, names: str) -> None:
    """Files of equal names in two folders are of two patients: the next one's T1 among the last one's scans is told."""
    panel = host.openModule("D3MSynthesis").panel
    smith = read(host, made, tmp_path / "smith", *names.split())
    jones = read(host, made, tmp_path / "jones", *names.split()[:3])
    assert chosen(panel) == smith
    mask = host.scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "mask")
    panel.parameters.brainMask = mask
    panel.parameters.t1 = jones[0]
    assert "different folders" in panel.ui.whoseLabel.text
    assert panel.parameters.brainMask is None
    for name in CHOSEN[1:]:
        setattr(panel.parameters, name, None)
    panel.parameters.emptied = ""
    panel.inputs.assign()
    assert chosen(panel) == [*jones, None]
    assert panel.ui.whoseLabel.text == ""


@pytest.mark.parametrize("saved", [False, True])
def test_another_folders_scan_fills_no_gap(host: Host, made: MadeOutput, tmp_path: Path, saved: bool) -> None:
    """Smith has no FLAIR: Jones's is not taken, not even where a saved scene has put all files in one folder."""
    panel = host.openModule("D3MSynthesis").panel
    read(host, made, tmp_path / "smith", "t1", "t2")
    read(host, made, tmp_path / "jones", "flair")
    if saved:
        assert host.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
        host.clear()
        host.scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
        host.settle()
        panel.ui.assignButton.click()
    assert [node and node.GetName() for node in chosen(panel)] == ["t1", "t2", None, None]
    panel.parameters.flair = slicer.util.getNode("flair")
    assert "different folders" in panel.ui.whoseLabel.text


def test_scans_that_say_nothing(host: Host, made: MadeOutput) -> None:
    """Volumes that were never a file, with names of the scan alone, are taken, but not without a word."""
    panel = opened(host, made, ("T1", "T2", "FLAIR"))
    assert "Nothing says" in panel.ui.whoseLabel.text


@pytest.mark.parametrize("names", [SCANS, tuple(f"jones_{scan}" for scan in SCANS)])
def test_a_mask_of_a_patient_who_went_while_another_module_was_shown(
    host: Host, made: MadeOutput, names: tuple[str, ...]
) -> None:
    """Scans may come and go behind the panel's back; a mask of those that went is not kept for those that came."""
    panel = opened(host, made, ("smith_t1", "smith_t2", "smith_flair"))
    mask = host.scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "brain")
    for name in ("brainMask", "referenceMask", "enhancementMask"):
        setattr(panel.parameters, name, mask)
    panel.parameters.acrossStudies = True
    panel.exit()
    panel.enter()
    assert panel.parameters.brainMask is mask, "nothing has changed"
    panel.exit()
    for scan in SCANS:
        host.scene.RemoveNode(slicer.util.getNode(f"smith_{scan}"))
    for name in names:
        slicer.util.addVolumeFromArray(np.ascontiguousarray(made.t1.T), ijkToRAS=made.matrix, name=name)
    panel.enter()
    host.settle()
    assert panel.parameters.t1.GetName() == names[0]
    assert [getattr(panel.parameters, name) for name in ("brainMask", "referenceMask", "enhancementMask")] == [None] * 3
    assert not panel.parameters.acrossStudies


@pytest.mark.parametrize(
    ("scan", "mask", "strange"),
    [
        ("sub-001_T1w", "sub-002_seg", True),
        ("sub-01_ses-1_T1w", "sub-01_ses-2_dseg", True),
        ("case_12_t1", "case_13_tumour", True),
        ("Brats18_TCIA01_147_1_t1", "Brats18_TCIA01_150_1_seg", True),
        ("001_t1", "002_seg", True),
        ("sub-001_T1w", "sub-1_seg_2", False),
        ("smith_t1_2", "smith_seg_1", False),
        ("401_t1", "Segmentation_3", False),
        ("sub-01_T1w", "tumour", False),
        *(("smith_t1", name, False) for name in ("ET", "GTV1", "glioma", "contour_2", "annotation", "reader1_final")),
        ("smith_t1", "jones_glioma", True),
        ("gbm_001_t1", "gbm_002_seg", True),
        ("gbm001_t1", "gbm002_seg", True),
        ("met12_t1", "met13_mask", True),
        ("pat01_visit1_t1", "pat1_visit1_seg", False),
        ("pat01_visit1_t1", "pat01_visit2_seg", True),
    ],
)
def test_a_mask_of_the_next_number(
    host: Host, made: MadeOutput, tmp_path: Path, scan: str, mask: str, strange: bool
) -> None:
    """Patients are often numbered: another number behind the same word tells a mask of another one; series', none."""
    panel = host.openModule("D3MSynthesis").panel
    t1, drawn = read(host, made, tmp_path, scan, mask)
    panel.parameters.t1, panel.parameters.brainMask = t1, drawn
    host.settle()
    assert ("may be of another patient" in panel.ui.whoseLabel.text) is strange
