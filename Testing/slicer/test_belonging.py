"""Scans without identifiers: folders and names decide what belongs together, and the panel says where they do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from slicer_helpers import MadeOutput, fake_engine, save

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from panel_helpers import SCANS, choose, examination, opened, press, read, scans  # noqa: E402
from qt_host import Host  # noqa: E402

from D3MSynthesisLib import Captions  # noqa: E402
from D3MSynthesisLib.Belonging import isOfOtherVisit  # noqa: E402
from D3MSynthesisLib.Grids import writeMask  # noqa: E402

CHOSEN = (*SCANS, "reference")


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
    "AX_T1_20200101101010_4 AX_T2_20200101101010_5 AX_FLAIR_20200101101010_6 AX_T1_POST_20200101101010_8",
    "AX_T1_20200101101010_4 AX_T2_20200101101510_5 AX_FLAIR_20200101102010_6 AX_T1_POST_20200101103010_8",
    "20200101101010_4_AX_T1 20200101101010_5_AX_T2 20200101101010_6_AX_FLAIR 20200101101010_8_AX_T1_POST",
    "SE4_AX_T1_20200101101010 SE5_AX_T2_20200101101010 SE6_AX_FLAIR_20200101101010 SE8_AX_T1_POST_20200101101010",
    "t1_mprage_sag_p2_iso_4 t2_tse_tra_512_5 t2_tirm_tra_dark-fluid_6 t1_mprage_sag_p2_iso_km_8",
    "4_AX_T1_BRAVO 5_AX_T2_FRFSE 6_Sag_CUBE_T2_FLAIR 8_AX_T1_BRAVO_POST",
    "004_t1_mprage_sag 005_t2_tse_tra 006_t2_space_dark-fluid_sag_p2_iso 008_t1_mprage_sag_km",
    "WIP_T1W_3D_TFE_SENSE_301 T2W_TSE_SENSE_401 FLAIR_longTR_SENSE_501 T1W_3D_TFE_GD_SENSE_1101",
    "T1_preop T2_preop FLAIR_preop T1c_preop",
    "smith_T1_w smith_T2_w smith_FLAIR smith_T1c",
    "UPENN-GBM-00001_11_T1 UPENN-GBM-00001_11_T2 UPENN-GBM-00001_11_FLAIR UPENN-GBM-00001_11_T1GD",
]


PICKED = [
    "T1+ T2 T2_r+ FLAIR FLAIR_r+ T1c T1c_r+",
    "smith_T1+ smith_T2 smith_T2_toT1+ smith_FLAIR smith_FLAIR_toT1+ smith_T1c+",
    "P01_t1_mprage_5+ P01_t2_tse_6+ P01_t2_flair_7+ P01_t1_space_10 P02_t1_mprage_4 P02_t2_tse_5 P02_t1_space_6",
    "sub-03_run-01_T1w sub-03_run-02_T1w+ sub-03_T2w+ sub-03_FLAIR+ sub-03_ce-gd_run-01_T1w sub-03_ce-gd_run-02_T1w+",
    "smith_T1_dixon_W+ smith_T1_dixon_F smith_T2_dixon_W+ smith_T2_dixon_F smith_FLAIR+",
    "T1_nav+ T1_thin T2+ FLAIR+ T1c_nav+ T1c_thin",
    "smith_T1+ smith_T2 smith_T2_1+ smith_FLAIR smith_FLAIR_1+ smith_T1c+",
]


@pytest.mark.parametrize("names", PICKED)
def test_scans_of_one_date_among_others(host: Host, made: MadeOutput, tmp_path: Path, names: str) -> None:
    """Registered copies, other patients, repeats and protocols beside those that are chosen: nothing is told."""
    panel = host.openModule("D3MSynthesis").panel
    nodes = read(host, made, tmp_path / "all", *names.replace("+", "").split())
    picked = [node for node, name in zip(nodes, names.split(), strict=True) if name.endswith("+")]
    for place, node in zip(CHOSEN, picked, strict=False):
        setattr(panel.parameters, place, node)
    host.settle()
    assert panel.ui.whoseLabel.text == ""


def test_the_first_date_has_a_t1_alone(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """The second date's scans are not taken for it."""
    panel = host.openModule("D3MSynthesis").panel
    names = ["smith_T1", "smith_T1_2", "smith_T2_2", "smith_FLAIR_2", "smith_T1c_2"]
    nodes = read(host, made, tmp_path / "all", *names)
    choose(panel, [nodes[0], *nodes[2:4]])
    assert "do not say the same" in panel.ui.whoseLabel.text
    panel.ui.assignButton.click()
    assert chosen(panel)[1:] in ([None] * 3, nodes[2:])
    assert panel.ui.whoseLabel.text == ""


@pytest.mark.parametrize("names", GOOD)
def test_scans_of_one_folder_are_taken_without_a_word(host: Host, made: MadeOutput, tmp_path: Path, names: str) -> None:
    """What lies in one folder and is named alike, or by the scan alone, is chosen by itself, and nothing is doubted."""
    panel = host.openModule("D3MSynthesis").panel
    nodes = read(host, made, tmp_path / "smith", *names.split())
    assert chosen(panel) == nodes
    assert panel.ui.whoseLabel.text == ""
    assert not any(isOfOtherVisit(node, nodes[0]) for node in nodes[1:])


@pytest.mark.parametrize("done", ["bias", "raw"])
def test_processed_copies_in_the_folder(host: Host, made: MadeOutput, tmp_path: Path, done: str) -> None:
    """The scans with plain names are chosen, though processed copies of some lie beside."""
    panel = host.openModule("D3MSynthesis").panel
    nodes = read(host, made, tmp_path / "smith", "t1", f"t1_{done}", "t2", f"t2_{done}", "flair", "t1c")
    assert chosen(panel) == [nodes[0], nodes[2], *nodes[4:]]
    assert panel.ui.whoseLabel.text == ""


@pytest.mark.parametrize(
    ("mine", "other"),
    [("001_t1 001_t2", "002_flair"), ("t1_smith t2_smith", "flair_jones"), ("T1_001 T2_001", "FLAIR_002"),
     ("12_t1 12_t2", "13_flair 13_t1c"), ("t1_12 t2_12", "flair_13"), ("t1-GLI-00001 t2-GLI-00001", "flair-GLI-00002"),
     ("SE12_t1 SE12_t2", "SE13_flair"), ("512_t1_tse 512_t2_tse", "256_flair"), ("t1_2020 t2_2020", "flair_2021"),
     ("AX_T1_20200101101010_4 AX_T2_20200101101010_5", "AX_FLAIR_20200101143000_6"),
     ("20200101101010_4_T1 20200101101010_5_T2", "20210101101010_6_FLAIR")],
)  # fmt: skip
def test_one_folder_of_several_patients(host: Host, made: MadeOutput, tmp_path: Path, mine: str, other: str) -> None:
    """The patient may stand anywhere in a name; who chooses another's FLAIR by hand is told."""
    panel = host.openModule("D3MSynthesis").panel
    nodes = read(host, made, tmp_path / "all", *mine.split())
    others = read(host, made, tmp_path / "all", *other.split())
    assert chosen(panel) == [*nodes, None, None]
    panel.parameters.flair = others[0]
    assert "different patients" in panel.ui.whoseLabel.text
    assert isOfOtherVisit(others[0], nodes[0])
    panel.parameters.t2 = None
    assert "different patients" in panel.ui.whoseLabel.text


LATER = ("{}_fu1", "smith_{}_fu1", "{}_m06", "smith_{}_visit2", "{}_2", "smith_{}_2", "smith_{}_relapse", "{}_Mar2021")


@pytest.mark.parametrize("later", LATER)
def test_one_folder_of_two_dates(host: Host, made: MadeOutput, tmp_path: Path, later: str) -> None:
    """Only the second date's names say a date: who mixes the dates by hand is told, and a comparison asks."""
    panel = host.openModule("D3MSynthesis").panel
    kinds = (*SCANS, "t1c")
    first = read(host, made, tmp_path / "all", *(later.format(kind).rsplit("_", 1)[0] for kind in kinds))
    second = read(host, made, tmp_path / "all", *map(later.format, kinds))
    assert chosen(panel) == first
    assert panel.ui.whoseLabel.text == ""
    panel.parameters.t2 = second[1]
    assert "do not say the same" in panel.ui.whoseLabel.text
    panel.parameters.t2 = first[1]
    panel.logic._engine = fake_engine(tmp_path / "engine", "finish", made.folder)
    press(host, panel)
    asked: list[str] = []
    panel.confirm = lambda text: asked.append(text) or False
    for real in (first[3], second[3]):
        panel.parameters.reference = real
        panel.ui.compareButton.click()
        host.settle()
        assert len(asked) == (real is second[3])
    panel.parameters.t1 = second[0]
    panel.ui.assignButton.click()
    assert chosen(panel) == second
    assert panel.ui.whoseLabel.text == ""


@pytest.mark.parametrize("later", ["T2_fu1", "FLAIR_postop", "smith_FLAIR_6months", "T1c_fu", "smith_T1c_visit_2"])
def test_one_scan_of_a_later_date(host: Host, made: MadeOutput, tmp_path: Path, later: str) -> None:
    """It fills no gap; who chooses it by hand is told."""
    panel = host.openModule("D3MSynthesis").panel
    stem = "smith_" if later.startswith("smith") else ""
    kinds = ["T1", "T2", "FLAIR", "T1c"]
    number = next(n for n, kind in enumerate(kinds) if later.removeprefix(stem).startswith(f"{kind}_"))
    nodes = read(host, made, tmp_path / "all", *(later if n == number else f"{stem}{kinds[n]}" for n in range(4)))
    assert chosen(panel) == [None if n == number else node for n, node in enumerate(nodes)]
    setattr(panel.parameters, CHOSEN[number], nodes[number])
    assert "do not say the same" in panel.ui.whoseLabel.text


def test_two_dates_of_two_patients_whose_files_are_called_alike(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """A step of work stands before each name: the patient is the folder, and each patient's scans stay together."""
    panel = host.openModule("D3MSynthesis").panel
    names = [f"reg_{kind}{date}" for date in ("", "_fu") for kind in SCANS]
    people = [read(host, made, tmp_path / who, *names) for who in ("p01", "p02")]
    for nodes in people:
        for start in (0, 3):
            panel.parameters.t1 = nodes[start]
            panel.ui.assignButton.click()
            assert chosen(panel)[:3] == nodes[start : start + 3]


@pytest.mark.parametrize(
    "place", ["{name}/{name}", "{name}/NIFTI/{name}", "scans/{number}-{name}/resources/NIFTI/files/{name}",
              "{number}_{name}/NIFTI/{name}", "AX {name}/{number}_AX_{name}"],
)  # fmt: skip
def test_a_folder_for_each_series(host: Host, made: MadeOutput, tmp_path: Path, place: str) -> None:
    """Series that lie in folders of their own, all with plain names, are of the folder above; a mask is, too."""
    panel = host.openModule("D3MSynthesis").panel
    kinds = ("t1", "t2", "flair", "t1c", "seg")
    people = {
        who: [
            read(host, made, path.parent, path.name)[0]
            for path in (
                tmp_path / who / place.format(name=name, number=number) for number, name in enumerate(kinds, first)
            )
        ]
        for who, first in (("smith", 1), ("jones", 4))
    }
    assert chosen(panel) == people["smith"][:4]
    assert panel.ui.whoseLabel.text == ""
    panel.parameters.brainMask = people["smith"][4]
    host.settle()
    assert panel.ui.whoseLabel.text == ""
    panel.parameters.brainMask = people["jones"][4]
    host.settle()
    assert "may be of another patient" in panel.ui.whoseLabel.text
    panel.parameters.flair = people["jones"][2]
    assert "different folders" in panel.ui.whoseLabel.text


def test_channels_of_one_case(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """nnU-Net numbers a case's scans from 0000: these are of one patient, unless the case is another one."""
    panel = host.openModule("D3MSynthesis").panel
    one, two = (read(host, made, tmp_path, *(f"{case}_000{n}" for n in range(4))) for case in ("case_001", "case_002"))
    choose(panel, one[:3])
    panel.parameters.reference = one[3]
    host.settle()
    assert panel.ui.whoseLabel.text == ""
    assert not isOfOtherVisit(one[1], one[0])
    panel.parameters.t2 = two[1]
    host.settle()
    assert "different patients (case_001, case_002)" in panel.ui.whoseLabel.text
    assert isOfOtherVisit(two[1], one[0])


def test_folders_of_dates_that_are_called_as_scans_are(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """A patient's first and second date, in folders T1 and T2 with all scans in each, are not taken for one."""
    for date in ("T1", "T2"):
        for name in SCANS:
            (tmp_path / date).mkdir(exist_ok=True)
            save(tmp_path / date / f"{name}.nii.gz", made.t1, made.matrix)
    panel = host.openModule("D3MSynthesis").panel
    first = slicer.util.loadVolume(str(tmp_path / "T1" / "t1.nii.gz"))
    second = slicer.util.loadVolume(str(tmp_path / "T2" / "t2.nii.gz"))
    host.settle()
    assert chosen(panel)[:2] == [first, None]
    panel.parameters.t2 = second
    host.settle()
    assert "different folders" in panel.ui.whoseLabel.text


def test_a_folder_for_each_series_of_many_patients(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """Where the file says who it is, or the folder may be a person's, folders are told apart as they are."""
    panel = host.openModule("D3MSynthesis").panel
    for folder, names in ((tmp_path / "a", ("t1", "t2")), (tmp_path / "p2", ("t1",)), (tmp_path / "p3", ("t2",))):
        for name in names:
            read(host, made, folder / name if folder.name == "a" else folder, "7" if folder.name == "a" else name)
    for name in ("t1", "t2"):  # folders and files of many patients, by number
        for number in (4, 5):
            (tmp_path / "b" / f"{number}_{name}").mkdir(parents=True)
            (tmp_path / "c" / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "c" / name / f"{number}_{name}.nii.gz").touch()
    read(host, made, tmp_path / "b" / "4_t1", "t1w")
    read(host, made, tmp_path / "b" / "5_t2", "t2w")
    read(host, made, tmp_path / "c" / "t1", "4_t1")
    read(host, made, tmp_path / "c" / "t2", "5_t2")
    for pair in (("7", "7_1"), ("t1", "t2"), ("t1w", "t2w"), ("4_t1", "5_t2")):
        panel.parameters.t1, panel.parameters.t2 = (slicer.util.getNode(name) for name in pair)
        panel.parameters.flair = None
        host.settle()
        assert "different" in panel.ui.whoseLabel.text, pair


@pytest.mark.parametrize("name", ["Registered T1c", "T1c_N4", "aligned_T1c", "coreg_smith_t1c", "T1c_1"])
def test_what_was_done_to_a_scan_is_no_person(host: Host, made: MadeOutput, name: str) -> None:
    """Who registers the real T1c names it so: it is nobody else's, in the views, in the panel and beside Compare."""
    panel = opened(host, made, ("smith_t1", "smith_t2", "smith_flair"))
    press(host, panel)
    asked: list[str] = []
    panel.confirm = lambda question: bool(asked.append(question)) or True
    for real in (name, f"jones_{name}"):
        node = slicer.util.addVolumeFromArray(np.ascontiguousarray(made.cemri.T), ijkToRAS=made.matrix, name=real)
        slicer.util.setSliceViewerLayers(foreground=node, foregroundOpacity=0.5)
        assert (real in Captions.strangeCaption(host.scene, "Red")) is (real != name)
        panel.parameters.reference = node
        host.settle()
        assert ("different patients" in panel.ui.whoseLabel.text) is (real != name)
        panel.ui.compareButton.click()
        assert bool(asked) is (real != name)


@pytest.mark.parametrize("kind", ["dicom", "files"])
def test_what_was_made_in_the_scene_stays_with_its_patient(
    host: Host, made: MadeOutput, tmp_path: Path, kind: str
) -> None:
    """What Slicer's modules make says nothing of a patient: Doe's is not kept with Roe's T1, but with Doe's own."""
    panel = host.openModule("D3MSynthesis").panel
    if kind == "dicom":
        t1, again, roe = scans(made, "5: t1_mprage", "6: t1_vibe", "5: t1_mprage")
        examination("Doe", [t1, again])
        examination("Roe", [roe])
    else:
        t1, again = read(host, made, tmp_path / "doe", "t1", "t1_vibe")
        (roe,) = read(host, made, tmp_path / "roe", "t1")
    choose(panel, [t1, *scans(made, "t2 registered", "flair registered")])
    panel.parameters.reference = scans(made, "t1c registered")[0]
    host.settle()
    doe = chosen(panel)
    panel.parameters.t1 = again
    host.settle()
    assert chosen(panel) == [again, *doe[1:]]
    panel.parameters.t1 = roe
    host.settle()
    assert chosen(panel) == [roe, None, None, None]
    assert "Choose T2" in panel.ui.stateLabel.text
    if kind == "dicom":  # who chooses them nevertheless is told, and so is who looks at the result
        panel.logic._engine = fake_engine(tmp_path / "engine", "finish", made.folder)
        choose(panel, [roe, *doe[1:3]])
        host.settle()
        press(host, panel)
        assert "Nothing said of some scans whose they are" in panel.ui.noticesLabel.text


@pytest.mark.parametrize("alone", [True, False])
def test_a_t1_that_was_made_from_the_patients(host: Host, made: MadeOutput, tmp_path: Path, alone: bool) -> None:
    """Who corrects T1 first, and chooses "T1 N4", keeps the patient's other scans, unless another patient is there."""
    panel = host.openModule("D3MSynthesis").panel
    nodes = read(host, made, tmp_path / "smith", *SCANS, "t1c")
    if not alone:
        read(host, made, tmp_path / "jones", "t1")
    choose(panel, nodes[:3])
    panel.parameters.reference = nodes[3]
    host.settle()
    scans(made, "T2 bias")
    for corrected in scans(made, "T1 N4", "T1 N4 stripped", "T1 bias"):
        panel.parameters.t1 = corrected
        host.settle()
        assert chosen(panel) == [corrected, *(nodes[1:] if alone else [None] * 3)]
    if alone:
        panel.ui.assignButton.click()
        host.settle()
        assert chosen(panel) == [corrected, *nodes[1:]]
        panel.parameters.t1 = nodes[0]
        host.settle()
        assert chosen(panel) == nodes


@pytest.mark.parametrize("other", ["fu", "fu1", "jones"])
def test_a_t1_that_was_made_from_the_other_ones(host: Host, made: MadeOutput, tmp_path: Path, other: str) -> None:
    """Scans of one folder, some of a later date or another patient: that T1, corrected, is not the first T1's."""
    panel = host.openModule("D3MSynthesis").panel
    nodes = read(host, made, tmp_path / "smith", *SCANS, *(f"{name}_{other}" for name in SCANS))
    choose(panel, nodes[:3])
    host.settle()
    (corrected,) = scans(made, f"T1_{other} N4")
    panel.parameters.t1 = corrected
    host.settle()
    panel.ui.assignButton.click()
    host.settle()
    assert not {*nodes[1:3]} & {*chosen(panel)}


@pytest.mark.parametrize("kind", ["dicom", "files"])
def test_assign_by_name_takes_the_scans_of_the_patient_whose_t1_is_chosen(
    host: Host, made: MadeOutput, tmp_path: Path, kind: str
) -> None:
    """With two patients loaded Roe's T1 is enough to say whose scans are wanted."""
    panel = host.openModule("D3MSynthesis").panel
    if kind == "dicom":
        doe, roe = scans(made, "5: t1", "6: t2", "7: flair"), scans(made, "5: t1", "6: t2", "7: flair")
        examination("Doe", doe)
        examination("Roe", roe)
    else:
        doe, roe = (read(host, made, tmp_path / name, *SCANS) for name in ("doe", "roe"))
    choose(panel, doe)
    panel.parameters.t1 = roe[0]
    host.settle()
    panel.ui.assignButton.click()
    host.settle()
    assert chosen(panel) == [*roe, None]


@pytest.mark.parametrize(
    ("name", "stranger"),
    [("smith_rCBV", False), ("smith_CT", False), ("Output Volume", False), ("T1c in T1 space", False),
     ("Subtraction", False), ("jones_rCBV", True), ("jones_T1c", True), ("smithson_CT", True)],
)  # fmt: skip
def test_images_in_the_views_that_are_none_of_the_scans(
    host: Host, made: MadeOutput, tmp_path: Path, name: str, stranger: bool
) -> None:
    """A patient's own map in the views is no stranger, nor is what a module calls as it calls all that it makes."""
    panel = host.openModule("D3MSynthesis").panel
    read(host, made, tmp_path / "smith", "smith_T1", "smith_T2", "smith_FLAIR")
    slicer.util.setSliceViewerLayers(background=scans(made, name)[0])
    host.settle()
    assert ("another patient or date?" in panel.ui.stateLabel.text) is stranger


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
        ("sub-001_T1w", "sub-1_seg_2", False),
        ("smith_t1_2", "smith_seg_1", False),
        ("401_t1", "Segmentation_3", False),
        ("sub-01_T1w", "tumour", False),
        *(("smith_t1", name, False) for name in ("ET", "GTV1", "glioma", "contour_2", "annotation", "reader1_final")),
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


@pytest.mark.parametrize("names", ["t1 t2 flair t1c", "{}_t1 {}_t2 {}_flair {}_t1c"])
@pytest.mark.parametrize("on", ["t1c", "cemri"])
def test_what_was_drawn_on_the_last_patient(host: Host, made: MadeOutput, tmp_path: Path, names: str, on: str) -> None:
    """Segment Editor calls every drawing "Segmentation": Smith's does not stay over Jones's result, his own does."""
    panel = host.openModule("D3MSynthesis").panel
    panel.logic._engine = fake_engine(tmp_path / "engine", "finish", made.folder)
    people = {who: read(host, made, tmp_path / who, *names.format(*[who] * 4).split()) for who in ("smith", "jones")}
    press(host, panel)
    image = people["smith"][3] if on == "t1c" else panel.result.nodes.cemri
    drawn = host.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Segmentation")
    drawn.CreateDefaultDisplayNodes()
    drawn.SetReferenceImageGeometryParameterFromVolumeNode(image)
    segment = drawn.GetSegmentation().AddEmptySegment("", "Segment_1")
    writeMask(drawn, segment, made.t1.T > 100, made.matrix)
    host.settle()
    assert Captions.strangeCaption(host.scene, "Red") == ""
    press(host, panel)
    assert drawn.GetDisplayNode().GetVisibility()
    for scan, node in zip(CHOSEN, people["jones"], strict=True):
        setattr(panel.parameters, scan, node)
    host.settle()
    press(host, panel)
    assert panel.result.nodes.t1 is people["jones"][0]
    assert not drawn.GetDisplayNode().GetVisibility()
    drawn.GetDisplayNode().SetVisibility(True)
    assert "Segmentation" in Captions.strangeCaption(host.scene, "Red")
