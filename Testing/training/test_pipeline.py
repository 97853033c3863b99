"""The training's command line from files to a model that synthesises: the five lines of the README, in small."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from conftest import write_case
from d3m.models.store import read_card
from d3m_training.cli import app
from d3m_training.train.checkpoint import KEEP


def _run(*arguments: object, code: int = 0) -> str:
    """In this process: a new one takes seconds for its imports."""
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.output


def _run_as_a_user_does(module: str, *arguments: object) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four patients in folders named after their part of the split, one of them without annotation, prepared."""
    place = tmp_path_factory.mktemp("pipeline")
    for seed, (part, identifier) in enumerate(
        [("train", "P1"), ("train", "P2"), ("unlabelled", "P3"), ("validation", "P4")]
    ):
        case = write_case(place / "data" / part / identifier, identifier, seed)
        if part == "unlabelled":
            case.seg.unlink()
    text = _run_as_a_user_does("d3m_training", "prepare", place / "data", "--cache", place / "cache", "--workers", 1)
    assert "1 patients have no annotation" in text
    assert "4 patients are prepared" in text
    return place


def test_prepare_again_does_nothing(place: Path) -> None:
    """A second preparation finds every entry whole; a damaged one is made again."""
    text = _run("prepare", place / "data", "--cache", place / "cache", "--workers", 1)
    assert "0 of them to be prepared" in text
    scans = place / "cache" / "P1" / "scans.npy"
    data = bytearray(scans.read_bytes())
    data[-1] ^= 1
    scans.write_bytes(data)
    text = _run("prepare", place / "data", "--cache", place / "cache", "--workers", 1)
    assert "1 of them to be prepared" in text


@pytest.mark.long
def test_from_cache_to_synthesis(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """train, resume, export, validate and synthesize with the model; the card then has threshold and table."""
    run, model = place / "run", place / "mine"
    common = ("--cache", place / "cache", "--out", run, "--batch", 2, "--threads", 1, "--validate-every", 2)
    text = _run("train", *common, "--iterations", 2)
    assert "3 patients for training, 1 for validation" in text
    assert "validation at 2" in text
    assert "resumed at iteration 2" in _run("train", *common, "--iterations", 3)
    assert len(list(run.glob("checkpoint-*"))) <= KEEP
    assert len(list((run / "pictures").glob("*.png"))) == 2
    texts = place / "texts.json"
    texts.write_text(json.dumps({"title": "Mine", "licence": "none"}))
    _run("export", "--run", run, "--out", model, "--texts", texts)
    assert read_card(model).title == "Mine"
    report = place / "report"
    arguments = (place / "data" / "validation", "--model", model, "--out", report, "--quality", "preview")
    text = _run("validate", *arguments, "--write-card")
    assert "Best mask threshold" in text
    assert {p.name for p in report.iterdir()} >= {"patients.csv", "summary.md", "P4.png"}
    card = read_card(model)
    assert card.patients[0].id == "P4"
    assert {row.name for row in card.validation} >= {"psnr_brain", "dice", "warp_gain", "blur_gain"}
    assert card.optional_contrasts == ("t2", "flair")
    text = _run("validate", *arguments, "--write-card", "--without", "flair")
    assert "Without FLAIR" in text
    (without,) = read_card(model).validation_without
    assert without.contrast == "flair"
    with_all, left_out = ({row.name: row.mean for row in rows} for rows in (card.validation, without.rows))
    assert left_out["psnr_brain"] != with_all["psnr_brain"]
    assert read_card(model).validation == card.validation
    several = (place / "data" / "train", place / "data" / "validation", "--model", model, "--out", place / "several")
    _run("validate", *several, "--quality", "standard", "--write-card")
    card = read_card(model)
    assert card.expected_error is not None
    assert card.expected_error.patients == 3
    assert {row.n for row in card.validation if row.name in ("error_correlation", "error_ratio")} == {3}
    folder = place / "data" / "validation" / "P4"
    scans = [part for name in ("t1", "t2", "flair") for part in (f"--{name}", folder / f"P4_{name}.nii.gz")]
    _run_as_a_user_does(
        "d3m", "synthesize", *scans, "--model", model, "--quality", "preview", "--out", place / "result"
    )
    assert (place / "result" / "cemri.nii.gz").is_file()
    # training goes on from exported weights, by the model's name
    monkeypatch.setenv("D3M_MODELS", str(place))
    other = (
        "--cache",
        place / "cache",
        "--out",
        place / "run2",
        "--batch",
        2,
        "--iterations",
        1,
        "--validate-every",
        0,
    )
    _run("train", *other, "--init", "mine")


def test_mistakes_end_with_a_sentence(place: Path, tmp_path: Path) -> None:
    """A cache that is not there, a run that is none, data without patients: exit code 2 and what to do."""
    assert "prepare" in _run("train", "--cache", tmp_path, "--out", tmp_path / "run", code=2)
    assert "train" in _run("export", "--run", tmp_path, "--out", tmp_path / "m", code=2)
    assert "BraTS" in _run("prepare", tmp_path, "--cache", tmp_path / "c", code=2)
    assert not (tmp_path / "c").exists()
    (place / "data" / "train" / "P1" / "P1_t2.nii.gz").rename(tmp_path / "kept.nii.gz")
    try:
        text = _run("prepare", place / "data", "--cache", tmp_path / "c", "--workers", 1, code=2)
    finally:
        (tmp_path / "kept.nii.gz").rename(place / "data" / "train" / "P1" / "P1_t2.nii.gz")
    assert "P1" in text
    assert "--skip-bad" in text
