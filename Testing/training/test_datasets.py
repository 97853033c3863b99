"""Data sets as they come: names, labels, and everything that may be wrong with files, before the first step."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from conftest import AFFINE
from d3m.errors import D3MError
from d3m_training.cli import app
from d3m_training.data.cache import ENHANCING, open_entry
from d3m_training.data.datasets import check, find_patients
from d3m_training.data.labels import POST_TREATMENT, UNTIL_2021
from d3m_training.data.preparation import check_grid
from training.data_helpers import (
    STYLE_2021,
    STYLE_2023,
    STYLE_UPPER,
    copy_patient,
    truncate,
    write_image,
    write_patient,
)

PLAIN_2021 = {name: ending.removesuffix(".gz") for name, ending in STYLE_2021.items()}
UPENN = STYLE_UPPER | {"t1c": "_T1GD.nii", "seg": "_segm.nii"}
UCSF = STYLE_UPPER | {"t1c": "_T1c.nii", "seg": "_tumor_segmentation.nii"}


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of one good patient; do not change them."""
    return write_patient(tmp_path_factory.mktemp("good"), "good")


@pytest.fixture
def five(patient: dict[str, Path], tmp_path: Path) -> dict[str, dict[str, Path]]:
    """Five good patients in `tmp_path / "data"`; the test may spoil them."""
    return {name: copy_patient(patient, tmp_path / "data", name) for name in ("p1", "p2", "p3", "p4", "p5")}


def _edit(path: Path, change: Mapping[int, float] | np.ndarray) -> None:
    image = nibabel.load(path)
    data = np.asarray(image.dataobj)
    if not isinstance(change, np.ndarray):
        changed = np.select([data == old for old in change], list(change.values()), np.nan)
        change = np.where(np.isnan(changed), data, changed).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(change, image.affine), path)


def _manifest(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", newline="") as f:
        writer = csv.DictWriter(f, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def _prepare(*arguments: object) -> tuple[int, str]:
    ended = CliRunner().invoke(app, ["prepare", *map(str, arguments), "--workers", "1"])
    assert not ended.exception or isinstance(ended.exception, SystemExit), ended.exception
    return ended.exit_code, ended.output


@pytest.mark.parametrize(
    "style",
    [STYLE_2021, PLAIN_2021, STYLE_2023, STYLE_UPPER, UPENN, UCSF],
    ids=["2021", "nii", "2023", "upper", "upenn", "ucsf"],
)
@pytest.mark.parametrize("reverse", [False, True])
def test_each_file_takes_its_role(
    style: Mapping[str, str], reverse: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target never becomes an input: t1 does not find t1ce, in any style and in any order of the folder."""
    for identifier in ("BraTS-GLI-00001-000", "x_t1"):
        for ending in (*style.values(), ".txt", "_adc.nii.gz"):
            place = tmp_path / identifier / f"{identifier}{ending}"
            place.parent.mkdir(exist_ok=True)
            place.touch()
            place.with_name(f"._{place.name}").touch()
    listed = Path.iterdir

    def iterdir(self: Path) -> Iterator[Path]:
        return iter(sorted(listed(self), reverse=reverse))

    monkeypatch.setattr(Path, "iterdir", iterdir)
    patients, faults = find_patients(tmp_path)
    assert [p.id for p in patients] == ["BraTS-GLI-00001-000", "x_t1"]
    assert faults == []
    for found in patients:
        for name, ending in style.items():
            assert getattr(found, name).name == found.id + ending


def test_one_folder_for_all_and_labels_apart(tmp_path: Path) -> None:
    """All files in one folder, or the labels in a folder of their own, are the same patients."""
    for identifier in ("a", "b"):
        for name, ending in STYLE_2023.items():
            place = tmp_path / ("labels" if name == "seg" else "images") / f"{identifier}{ending}"
            place.parent.mkdir(exist_ok=True)
            place.touch()
    patients, faults = find_patients(tmp_path)
    assert [(p.id, p.seg and p.seg.name) for p in patients] == [("a", "a-seg.nii.gz"), ("b", "b-seg.nii.gz")]
    assert faults == []


def test_unknown_names_are_refused_with_what_was_found(tmp_path: Path) -> None:
    """Names of no known style are told, not passed over: alone, beside good ones, and for one contrast of five."""
    for name in ("p_T1pre.nii.gz", "p_T1post.nii.gz", "p_T2w.nii.gz"):
        (tmp_path / "odd").mkdir(exist_ok=True)
        (tmp_path / "odd" / name).touch()
    with pytest.raises(D3MError, match="found p_T1post.nii.gz, p_T1pre.nii.gz, p_T2w.nii.gz"):
        find_patients(tmp_path)
    for name, ending in STYLE_2021.items():
        for identifier in ("fine", "mixed"):
            (tmp_path / identifier).mkdir(exist_ok=True)
            other = "_t1post.nii.gz" if (identifier, name) == ("mixed", "t1c") else ending
            (tmp_path / identifier / f"{identifier}{other}").touch()
    patients, faults = find_patients(tmp_path)
    assert [p.id for p in patients] == ["fine"]
    reasons = {fault.id: fault.reason for fault in faults}
    assert reasons.keys() == {"odd", "mixed"}
    assert "p_T1post.nii.gz" in reasons["odd"]
    assert reasons["mixed"].startswith("no t1c")
    assert "mixed_t1post.nii.gz" in reasons["mixed"]
    with pytest.raises(D3MError, match="neither a folder nor"):
        find_patients(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(D3MError, match="No patients"):
        find_patients(tmp_path / "empty")


def test_folders_tell_the_part_but_not_those_above(tmp_path: Path) -> None:
    """A folder "test" somewhere above the data puts nobody into the test part."""
    root = tmp_path / "test" / "data"
    for part in ("train", "validation", "unlabelled", "test"):
        for ending in STYLE_2021.values():
            place = root / part / "HGG" / f"{part}1" / f"{part}1{ending}"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
    parts = {p.id: p.split for p in find_patients(root)[0]}
    assert parts == {"train1": "train", "validation1": "validation", "unlabelled1": "train", "test1": "test"}
    (alone,) = find_patients(root / "validation")[0]
    assert alone.split == "validation"
    (alone,) = find_patients(root / "validation" / "HGG")[0]
    assert alone.split == ""


def test_manifest(patient: dict[str, Path], tmp_path: Path) -> None:
    """A table names files of any name, relative to itself, with group, part and the enhancing tumour's value."""
    (tmp_path / "files").mkdir()
    names = {}
    for contrast, path in patient.items():
        shutil.copyfile(path, tmp_path / "files" / f"scan {contrast}.nii.gz")
        names[contrast] = f"files/scan {contrast}.nii.gz"
    rows: list[dict[str, object]] = [
        {"id": "a", **names, "group": "anna", "split": "Train", "enhancing_label": 4},
        {"id": "b_visit2", **names, "seg": "", "group": "", "split": "", "enhancing_label": ""},
        {"id": "c", **names, "flair": "", "group": "", "split": "", "enhancing_label": ""},
        {"id": "d", **names, "t2": "files/gone.nii.gz", "group": "", "split": "", "enhancing_label": ""},
    ]
    patients, faults = find_patients(_manifest(tmp_path / "set.csv", rows))
    assert [(p.id, p.group, p.split, p.enhancing_label, p.seg is None) for p in patients] == [
        ("a", "anna", "train", 4, False),
        ("b_visit2", "b", "", None, True),
        ("d", "d", "", None, False),
    ]
    assert [(fault.id, fault.reason) for fault in faults] == [("c", "no flair")]
    said: list[str] = []
    checked = check(patients, workers=1, report=said.append)
    assert said[:2] == ["Checking every file of 3 patients.", *said[1:2]]
    assert said[1].startswith("Checked 1 of 3, about ")
    assert [p.id for p in checked.patients] == ["a", "b_visit2"]
    assert checked.unlabelled == ("b_visit2",)
    assert checked.schemes == {"a": UNTIL_2021}
    (fault,) = checked.faults
    assert fault.id == "d"
    assert "T2 does not exist" in fault.reason


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": ""}, "Line 2 .* no id"),
        ({"id": "../escape"}, "cannot be the name of a folder"),
        ({"split": "training"}, "the part 'training'"),
        ({"enhancing_label": "four"}, "enhancing_label 'four'"),
    ],
)
def test_bad_rows_of_a_manifest(change: dict[str, object], words: str, tmp_path: Path) -> None:
    """A wrong cell is named in one sentence."""
    row: dict[str, object] = {
        "id": "a",
        "t1": "1",
        "t2": "2",
        "flair": "f",
        "t1c": "c",
        "split": "",
        "enhancing_label": "",
    }
    with pytest.raises(D3MError, match=words):
        find_patients(_manifest(tmp_path / "set.csv", [row | change]))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no rows"),
        (b"id,t1,t2,flair,t1c\n", "no rows"),
        (b"id;t1;t2;flair;t1c\na;1;2;3;4\n", "no column"),
        (b"id,t1,t2,t1c\na,1,2,3\n", "no column flair"),
        (b"id,t1,t2,flair,t1c\na,1,2,3,4\nA,1,2,3,4\n", "Two patients have the id A"),
        (b"\xff\xfe\x00id", "not UTF-8"),
    ],
)
def test_tables_that_are_no_manifest(content: bytes, words: str, tmp_path: Path) -> None:
    """Another kind of table is refused in one sentence."""
    (tmp_path / "set.csv").write_bytes(content)
    with pytest.raises(D3MError, match=words):
        find_patients(tmp_path / "set.csv")


@pytest.mark.parametrize("contrast", ["t1", "t2", "flair"])
@pytest.mark.parametrize("change", ["copy", "scaled", "whole numbers"])
def test_target_that_is_an_input_is_refused(
    contrast: str, change: str, patient: dict[str, Path], tmp_path: Path
) -> None:
    """T1c must not be one of the inputs, also not in another scale or storage type."""
    files = copy_patient(patient, tmp_path, "p")
    data = np.asarray(nibabel.load(files[contrast]).dataobj)
    new = {"copy": data, "scaled": data * 0.37, "whole numbers": np.rint(data / 2).astype(np.int16)}[change]
    write_image(files["t1c"], new)
    checked = check(find_patients(tmp_path)[0], workers=1)
    assert checked.patients == ()
    assert f"T1c and {contrast.upper()} hold the same image" in checked.faults[0].reason


def test_everything_wrong_is_in_one_list(five: dict[str, dict[str, Path]], tmp_path: Path) -> None:
    """A missing contrast, a cut file, another shape, labels elsewhere, two faults of one patient: all at once."""
    five["p1"]["flair"].unlink()
    truncate(five["p2"]["t2"])
    _edit(five["p2"]["seg"], {4: 4.5})
    write_image(five["p3"]["t1c"], np.ones((20, 20, 20), np.float32) * np.arange(20, dtype=np.float32))
    turned = AFFINE.copy()
    turned[:3, :3] = turned[:3, :3] @ [[0.9962, -0.0872, 0], [0.0872, 0.9962, 0], [0, 0, 1]]  # 5 degrees
    write_image(five["p4"]["seg"], np.asarray(nibabel.load(five["p4"]["seg"]).dataobj), turned)
    five["p5"]["seg"].unlink()
    code, text = _prepare(tmp_path / "data", "--cache", tmp_path / "cache")
    assert code == 2
    assert "p1: no flair" in text
    assert "p2: T2 " in text
    assert "p2: The label file of p2 holds the value 4.5" in text
    assert "p3: T1c has the shape 20 x 20 x 20, T1 48 x 56 x 40" in text
    assert "p4: The label file lies elsewhere than T1" in text
    assert "4 patients cannot be used" in text
    assert not (tmp_path / "cache").exists()
    code, text = _prepare(tmp_path / "data", "--cache", tmp_path / "cache", "--skip-bad", "--sizes", "1,0,0")
    assert code == 0
    assert "4 left out because of faulty files" in text
    assert "1 patients have no annotation (p5): they are used for the image terms only" in text
    entry = open_entry(tmp_path / "cache", "p5")
    assert not entry.labelled


def test_visits_in_two_parts_are_in_the_same_list(patient: dict[str, Path], tmp_path: Path) -> None:
    """A patient with one visit in training and one in validation is found with the damaged files, before any work."""
    data = tmp_path / "data"
    copy_patient(patient, data / "train", "BraTSReg_002_00")
    copy_patient(patient, data / "train", "a")
    copy_patient(patient, data / "validation", "BraTSReg_002_01")
    truncate(copy_patient(patient, data / "validation", "b")["t1c"])
    code, text = _prepare(data, "--cache", tmp_path / "cache")
    assert code == 2
    for visit in ("BraTSReg_002_00", "BraTSReg_002_01"):
        assert f"{visit}: visits of the patient BraTSReg_002 are in train and in validation" in text
    assert "b: T1c " in text
    assert "3 patients cannot be used" in text
    split = tmp_path / "split.json"
    split.write_text(
        json.dumps({"train": ["a", "BraTSReg_002_00", "BraTSReg_002_01"], "validation": [], "test": ["b"]})
    )
    code, text = _prepare(data, "--cache", tmp_path / "cache", "--split", split, "--skip-bad")
    assert code == 0
    assert "train: 3, validation: 0, test: 0." in text
    assert json.loads((tmp_path / "cache" / "split.json").read_text())["test"] == []


def test_parts_that_only_some_state(patient: dict[str, Path], tmp_path: Path) -> None:
    """Patients outside of train, validation and test are not drawn into a new split silently."""
    copy_patient(patient, tmp_path / "data" / "test", "a")
    copy_patient(patient, tmp_path / "data" / "more", "b")
    code, text = _prepare(tmp_path / "data", "--cache", tmp_path / "cache")
    assert code == 2
    assert "1 patients are in no part of the split (b)" in text


def test_schemes_of_a_whole_set(patient: dict[str, Path], tmp_path: Path) -> None:
    """A set of every coding is refused; without the old one it is read as 2024's; a manifest can state each."""
    codings: dict[str, dict[int, int]] = {
        "old": {4: 4},
        "new": {4: 3},
        "after": {4: 3, 1: 4},  # the core was cut out
        "none": {4: 2},
    }
    data = tmp_path / "data"
    for name, change in codings.items():
        _edit(copy_patient(patient, data, name)["seg"], change)
    code, text = _prepare(data, "--cache", tmp_path / "cache")
    assert code == 2
    assert "mixes label schemes" in text
    for name in ("old", "new", "after"):
        assert name in text
    patients = find_patients(data)[0]
    checked = check([p for p in patients if p.id != "old"], workers=1)
    assert set(checked.schemes.values()) == {POST_TREATMENT}
    rows: list[dict[str, object]] = [
        {"id": p.id, "t1": p.t1, "t2": p.t2, "flair": p.flair, "t1c": p.t1c, "seg": p.seg, "split": "train"}
        | {"enhancing_label": 4 if p.id == "old" else 3}
        for p in patients
    ]
    table = _manifest(tmp_path / "set.csv", rows)
    assert _prepare(table, "--cache", tmp_path / "cache")[0] == 0
    enhancing = {p.id: int(open_entry(tmp_path / "cache", p.id).enhancing_voxels.sum()) for p in patients}
    assert enhancing["old"] == enhancing["new"] == enhancing["after"] > 0
    assert enhancing["none"] == 0
    labels = open_entry(tmp_path / "cache", "after").regions[:, 1]
    assert not (labels == 1).any()  # a cavity is no core
    assert (labels == ENHANCING).any()


def test_labels_that_cannot_be_used(five: dict[str, dict[str, Path]], tmp_path: Path) -> None:
    """Labels stored as 3.9999 are read, an MR image or NaN in their place is refused by the patient's name."""
    _edit(five["p1"]["seg"], {4: 3.9999, 0: 0.0})
    shutil.copyfile(five["p2"]["t2"], five["p2"]["seg"])
    bad = np.asarray(nibabel.load(five["p3"]["seg"]).dataobj).astype(np.float32)
    bad[0, 0, 0] = np.nan
    _edit(five["p3"]["seg"], bad)
    _edit(five["p4"]["seg"], np.zeros_like(bad, dtype=np.uint8))  # no tumour at all
    checked = check(find_patients(tmp_path / "data")[0], workers=1)
    assert [p.id for p in checked.patients] == ["p1", "p4", "p5"]
    assert set(checked.schemes.values()) == {UNTIL_2021}
    reasons = {fault.id: fault.reason for fault in checked.faults}
    assert "p2 holds" in reasons["p2"]
    assert "an image, not a label map" in reasons["p2"]
    assert "p3 holds values that are not finite" in reasons["p3"]


def test_nothing_is_prepared_twice_and_changes_are_noticed(five: dict[str, dict[str, Path]], tmp_path: Path) -> None:
    """A second run does nothing; a changed scan, a damaged entry or other labels are prepared again, and only these."""
    cache = tmp_path / "cache"
    assert "5 patients, 5 of them" in _prepare(tmp_path / "data", "--cache", cache)[1]
    assert "5 patients, 0 of them" in _prepare(tmp_path / "data", "--cache", cache)[1]
    scan = np.asarray(nibabel.load(five["p2"]["t1c"]).dataobj)
    write_image(five["p2"]["t1c"], scan * (1 + 0.01 * (scan > 400)))
    damaged = cache / "p4" / "scans.npy"
    content = bytearray(damaged.read_bytes())
    content[:8] = b"\0" * 8
    damaged.write_bytes(content)
    text = _prepare(tmp_path / "data", "--cache", cache)[1]
    assert "5 patients, 2 of them" in text
    assert "p2" in text
    assert "p4" in text


def test_processes_find_the_same(five: dict[str, dict[str, Path]], tmp_path: Path) -> None:
    """Two processes, as on Windows started again, find what one finds."""
    truncate(five["p3"]["flair"])
    patients = find_patients(tmp_path / "data")[0]
    assert check(patients, workers=2) == check(patients, workers=1)


def test_validation_without_enhancing_tumour(patient: dict[str, Path], tiny_model: Path, tmp_path: Path) -> None:
    """Patients without enhancement have no Dice: it is counted, never NaN in a mean."""
    data = tmp_path / "data"
    _edit(copy_patient(patient, data, "none")["seg"], {4: 2})
    _edit(copy_patient(patient, data, "empty")["seg"], {1: 0, 2: 0, 4: 0})
    truncate(copy_patient(patient, data, "cut")["t2"])
    options = ["--out", tmp_path / "out", "--model", tiny_model, "--quality", "preview", "--device", "cpu"]
    ended = CliRunner().invoke(app, ["validate", *map(str, [data, *options])])
    assert ended.exit_code == 0, ended.output
    with (tmp_path / "out" / "patients.csv").open() as f:
        rows = {row["id"]: row for row in csv.DictReader(f)}
    assert rows.keys() == {"none", "empty"}
    for row in rows.values():
        assert row["dice"] == "nan"
        assert row["false_positive_ml"] not in ("nan", "")
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert "nan" not in summary
    table = [line.split("|") for line in summary.splitlines()[2:] if line.startswith("|")]
    counts = {cells[1].strip(): cells[4].strip() for cells in table}
    assert counts["psnr_brain"] == counts["false_positive_ml"] == "2"
    assert counts["psnr_tumour"] == "1"
    assert "dice" not in counts
    assert "- dice: not defined for 2 of 2." in summary
    assert "- psnr_tumour: not defined for 1 of 2." in summary
    assert "it stays 0.5" in ended.output
    assert "Left out: cut: T2 " in ended.output


def test_a_cache_serves_its_own_recipe(patient: dict[str, Path], tmp_path: Path) -> None:
    """Training on arrays of another grid or scale would go on for days and be worth nothing: it does not start."""
    copy_patient(patient, tmp_path / "data" / "train", "a")
    assert _prepare(tmp_path / "data", "--cache", tmp_path / "cache")[0] == 0
    check_grid(tmp_path / "cache", "default")
    for cache, recipe in (("cache", "paper"), ("absent", "default")):
        options = ["--cache", tmp_path / cache, "--out", tmp_path / "run", "--recipe", recipe, "--iterations", 1]
        ended = CliRunner().invoke(app, ["train", *map(str, options)])
        assert ended.exit_code == 2
        assert "d3m-training prepare" in ended.output
    assert not (tmp_path / "run").exists()
