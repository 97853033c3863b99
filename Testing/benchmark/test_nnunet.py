"""nnU-Net in an environment of its own: what is handed to it, and how it is called, without it being installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from d3m.errors import D3MError
from d3m_benchmark.comparison import nnunet
from training.data_helpers import write_patient


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two annotated patients in the coding until 2021, one without labels."""
    folder = tmp_path_factory.mktemp("nnunet") / "data"
    write_patient(folder, "a")
    write_patient(folder, "b", seed=1)
    write_patient(folder, "c", seg=False)
    return folder


def quiet(_: str) -> None:
    """Nobody listens."""


def test_export_is_what_nnunet_reads(data: Path, tmp_path: Path) -> None:
    """Four channels and a label map for each annotated patient; nested regions in nnU-Net's order; labels unified."""
    assert nnunet.export([data], tmp_path, None, quiet) == ["a", "b"]
    folder = tmp_path / "raw" / "Dataset501_D3M"
    images = {path.name for path in (folder / "imagesTr").iterdir()}
    assert images == {f"{name}_{k:04d}.nii.gz" for name in "ab" for k in range(4)}
    description = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    assert description["numTraining"] == 2
    assert description["file_ending"] == ".nii.gz"
    assert list(description["labels"]) == ["background", "whole_tumor", "tumor_core", "enhancing_tumor"]
    assert description["labels"]["enhancing_tumor"] == 3
    label = np.asarray(nibabel.load(folder / "labelsTr" / "a.nii.gz").dataobj)
    source = np.asarray(nibabel.load(data / "a" / "a_seg.nii.gz").dataobj)
    assert np.array_equal(label == 3, source == 4)
    # what nnU-Net rebuilds from nested regions must be the label again: each region writes its own value, in order
    rebuilt = np.zeros_like(label)
    regions = [members for name, members in description["labels"].items() if name != "background"]
    for members, value in zip(regions, description["regions_class_order"], strict=True):
        rebuilt[np.isin(label, members)] = value
    assert np.array_equal(rebuilt, label)
    real = np.asarray(nibabel.load(data / "a" / "a_t1ce.nii.gz").dataobj, np.float32)
    assert np.array_equal(np.asarray(nibabel.load(folder / "imagesTr" / "a_0003.nii.gz").dataobj), real)


def test_cases_with_synthetic_images(data: Path, tmp_path: Path) -> None:
    """The synthetic image stands in the real one's place; one that is missing ends it, and nothing is left."""
    results = tmp_path / "results"
    for name in "abc":
        t1 = nibabel.load(data / name / f"{name}_t1.nii.gz")
        (results / name).mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(np.full(t1.shape, 7, np.float32), t1.affine), results / name / "cemri.nii.gz")
    assert nnunet.write_cases([data], tmp_path / "cases", results, quiet) == 3
    assert (np.asarray(nibabel.load(tmp_path / "cases" / "c_0003.nii.gz").dataobj) == 7).all()
    (results / "b" / "cemri.nii.gz").unlink()
    with pytest.raises(D3MError, match="no synthetic image of b"):
        nnunet.write_cases([data], tmp_path / "again", results, quiet)
    assert not (tmp_path / "again").exists()


@pytest.fixture
def said(tmp_path: Path) -> Path:
    """An environment whose programs write their arguments and variables into this file, and end with $CODE."""
    if sys.platform == "win32":
        pytest.skip("the stand-in is a shell script")
    said = tmp_path / "said.txt"
    for name in ("python", "nnUNetv2_plan_and_preprocess"):
        path = tmp_path / "env" / "bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n(echo \"$@\"; env) >> '{said}'\nexit ${{CODE:-0}}\n", encoding="utf-8")
        path.chmod(0o755)
    return said


def leave(work: Path, result: str) -> None:
    """What a step of nnU-Net leaves in its folder."""
    path = work / result
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


RAW, PLANS = "raw/Dataset501_D3M/dataset.json", "preprocessed/Dataset501_D3M/nnUNetPlans.json"
WEIGHTS = "results/Dataset501_D3M/nnUNetTrainer__nnUNetPlans__2d/fold_0/checkpoint_final.pth"


def test_child_is_called_with_its_folders(said: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child gets nnU-Net's folders, one process, none of our import paths, and every option; failures are told."""
    environment, work = tmp_path / "env", tmp_path / "work"
    for result in (RAW, PLANS, WEIGHTS):
        leave(work, result)
    monkeypatch.setenv("PYTHONPATH", "ours")
    nnunet.child(environment, work, "train", configuration="2d", fold=0, epochs=2, iterations=3)
    text = said.read_text(encoding="utf-8")
    assert text.startswith("-I ")  # our own statistics.py must not hide Python's
    assert text.splitlines()[0].endswith(
        "nnunet_child.py train --dataset Dataset501_D3M --configuration 2d --fold 0 --epochs 2 --iterations 3"
    )
    for name, folder in (("nnUNet_raw", "raw"), ("nnUNet_preprocessed", "preprocessed"), ("nnUNet_results", "results")):
        assert f"{name}={work / folder}\n" in text
    assert "nnUNet_n_proc_DA=1\n" in text
    assert "PYTHONPATH" not in text
    said.unlink()
    nnunet.plan(environment, work, "2d")
    assert said.read_text(encoding="utf-8").startswith("-d 501 -c 2d --verify_dataset_integrity")
    monkeypatch.setenv("CODE", "3")
    with pytest.raises(D3MError, match=r"could not predict \(exit code 3\)"):
        nnunet.child(environment, work, "predict")
    with pytest.raises(D3MError, match="not installed in nowhere"):
        nnunet.child(tmp_path / "nowhere", work, "predict")


def test_a_step_too_early_names_the_one_before(said: Path, tmp_path: Path) -> None:
    """Nothing is started where the step before left nothing; the hint is that step, and after it the step runs."""
    environment, work = tmp_path / "env", tmp_path / "work"
    steps = (
        ("export", RAW, lambda: nnunet.plan(environment, work, "2d")),
        ("plan", PLANS, lambda: nnunet.child(environment, work, "train")),
        ("train", WEIGHTS, lambda: nnunet.child(environment, work, "predict")),
    )
    for before, result, step in steps:
        with pytest.raises(D3MError) as told:
            step()
        assert f"nnunet {before}`" in told.value.hint
        assert not said.exists()
        leave(work, result)
        step()
        said.unlink()


def test_install_pins_torch_and_takes_torchvision_out(
    said: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nnU-Net comes with torch named beside it, so that it brings no other; torchvision goes last; failures are told.

    pip must not see our modules: what lies in PYTHONPATH counts for it as installed.
    """
    monkeypatch.setenv("PYTHONPATH", "ours")
    monkeypatch.setattr(nnunet.sys, "executable", str(tmp_path / "env" / "bin" / "python"))
    (tmp_path / "env" / nnunet.MARK).touch()  # an installation that was broken off is gone on with
    nnunet.install(tmp_path / "env", quiet)
    text = said.read_text(encoding="utf-8")
    calls = [line for line in text.splitlines() if line.startswith("-m ")]
    assert calls[0] == f"-m venv {tmp_path / 'env'}"
    assert ["torch==2.13.0" in call for call in calls] == [False, True, True, False]
    assert calls[2].endswith("torch==2.13.0 nnunetv2")
    assert "uninstall" in calls[3]
    assert calls[3].endswith("--yes torchvision")
    assert "PYTHONPATH" not in text
    monkeypatch.setenv("CODE", "1")
    with pytest.raises(D3MError, match="could not be installed") as told:
        nnunet.install(tmp_path / "env", quiet)
    assert told.value.kind == "machine"


def test_install_leaves_other_folders_alone(said: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment or folder of somebody's is refused before anything runs; a new or empty folder is taken."""
    monkeypatch.setattr(nnunet.sys, "executable", str(tmp_path / "env" / "bin" / "python"))
    monkeypatch.setattr(nnunet, "_program", lambda *_: tmp_path / "env" / "bin" / "python")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / ".netrc").touch()
    for name in ("env", "mine", "mine/.netrc"):
        with pytest.raises(D3MError, match="something other than|is a file"):
            nnunet.install(tmp_path / name, quiet)
    assert not said.exists()
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new/inner", "new/inner"):
        nnunet.install(tmp_path / name, quiet)
        assert len(said.read_text(encoding="utf-8").splitlines()) > 4
        said.unlink()


def test_predictions_are_whole_and_replace_nothing_else(said: Path, tmp_path: Path) -> None:
    """Label maps that somebody corrected, and folders of others, stay; a failure leaves the earlier ones."""
    environment, work, out = tmp_path / "env", tmp_path / "work", tmp_path / "out"
    leave(work, WEIGHTS)
    (tmp_path / "cases").mkdir()
    script = environment / "bin" / "python"
    for code, text in ((0, "one"), (0, "two"), (1, "three")):
        end = '; do [ "$1" = --out ] && echo ' + text + ' > "$2/a.nii.gz"; shift; done'
        script.write_text(f"#!/bin/sh\nwhile [ $# -gt 0 ]{end}\nexit {code}\n", encoding="utf-8")
        if code:
            with pytest.raises(D3MError, match="could not predict"):
                nnunet.predict(environment, work, tmp_path / "cases", out)
        else:
            nnunet.predict(environment, work, tmp_path / "cases", out)
    assert (out / "a.nii.gz").read_text() == "two\n"
    (out / "a.nii.gz").write_text("corrected by hand")
    for place in (out, tmp_path / "cases", work, tmp_path):
        with pytest.raises(D3MError, match=r"will not be replaced|is or holds an input"):
            nnunet.predict(environment, work, tmp_path / "cases", place)
    assert (out / "a.nii.gz").read_text() == "corrected by hand"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cases", "env", "out", "work"]
