"""Two dates of one patient: tumours that grow, shrink and stay, in heads that lie differently."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage
from typer.testing import CliRunner

from conftest import TinyCase, write_case
from d3m.commands.app import app
from d3m.errors import D3MError
from d3m.models.load import load_model
from d3m.options import SynthesisOptions
from d3m.results.files import write_result
from d3m.results.follow_up import NEW, STABLE, VANISHED, compare_visits, read_visit, write_follow_up
from d3m.synthesis import Result, Synthesis
from d3m.volumes.preprocess.case import read_case
from d3m.volumes.types import Case
from engine.volume_helpers import rotation

MOVED = rotation(6, 2) @ np.array([[1.0, 0, 0, 3], [0, 1, 0, -2], [0, 0, 1, 2], [0, 0, 0, 1]])
"""How the later head lies."""


@pytest.fixture(scope="module")
def made(tiny_case: TinyCase, tiny_model: Path) -> tuple[Result, Case]:
    case = read_case(tiny_case.t1, tiny_case.t2, tiny_case.flair)
    result = Synthesis(load_model(tiny_model), SynthesisOptions(device="cpu", quality="preview", samples=2)).run(case)
    return result, case


def tumour(result: Result, radius: float) -> np.ndarray:
    """A ball on the patient's left."""
    grid = np.stack(np.meshgrid(*map(np.arange, result.cemri.shape), indexing="ij"), -1)
    return np.linalg.norm(grid - (30, 24, 22), axis=-1) <= radius


def visit(folder: Path, made: tuple[Result, Case], radius: float, moved: bool, spread: float = 0.05) -> Path:
    """A date's result on disk with a tumour of this size; repeated synthesis varies by `spread` ml."""
    result, case = made
    mask = tumour(result, radius)
    volume = mask.sum() / 1000
    changed = replace(
        result, enhancement_mask=mask, enhancing_volume_ml=volume,
        sample_volumes_ml=(volume - spread, volume, volume + spread),
    )  # fmt: skip
    if moved:
        t1 = replace(case.t1, affine=MOVED @ case.t1.affine)
        changed, case = replace(changed, t1=t1), replace(case, t1=t1)
    write_result(folder, changed, case, 1.0)
    return folder


@pytest.mark.parametrize(("first", "second"), [(5.0, 7.0), (7.0, 5.0)])
def test_growing_and_shrinking(first: float, second: float, made: tuple[Result, Case], tmp_path: Path) -> None:
    """The difference of the volumes with its interval; the map marks the shell in a head that lies elsewhere."""
    one = read_visit(visit(tmp_path / "a", made, first, False), "earlier")
    other = read_visit(visit(tmp_path / "b", made, second, True), "later")
    change = compare_visits(one, other)
    expected = (tumour(made[0], second).sum() - tumour(made[0], first).sum()) / 1000
    assert change.volume_ml == pytest.approx(expected)
    assert change.real
    low, high = change.interval_ml
    half = 1.2816 * np.hypot(0.05, 0.05)
    assert (low, high) == pytest.approx((expected - half, expected + half))
    shell = tumour(made[0], 7.0) & ~tumour(made[0], 5.0) & one.brain
    label = NEW if second > first else VANISHED
    assert (change.labels[shell] == label).mean() > 0.75
    assert (change.labels[tumour(made[0], 4.0) & one.brain] == STABLE).all()
    assert f"{expected:+.1f} ml" in change.sentence()
    write_follow_up(tmp_path / "out", one, other, change)
    stated = json.loads((tmp_path / "out" / "follow_up.json").read_text())
    assert stated["beyond_repetition"] is True
    labels = np.asarray(nibabel.load(tmp_path / "out" / "change.nii.gz").dataobj)
    assert (labels == label).sum() / 1000 == pytest.approx(stated["new_ml" if label == NEW else "vanished_ml"])
    assert (tmp_path / "out" / "figure.png").stat().st_size > 10_000


def test_staying(made: tuple[Result, Case], tmp_path: Path) -> None:
    """A difference that repeated synthesis also makes is not called a change."""
    one = read_visit(visit(tmp_path / "a", made, 5.0, False, spread=0.3), "earlier")
    other = read_visit(visit(tmp_path / "b", made, 5.4, False, spread=0.3), "later")
    change = compare_visits(one, other)
    assert 0 < change.volume_ml < 0.5
    assert not change.real
    assert change.interval_ml[0] < 0 < change.interval_ml[1]
    assert change.sentence().startswith("No change")


def test_command(made: tuple[Result, Case], tmp_path: Path) -> None:
    """Two result folders in, one folder out; a second run needs --force. One examination under two names is said."""
    one, other = visit(tmp_path / "a", made, 5.0, False), visit(tmp_path / "b", made, 7.0, False)
    words = ["follow-up", "--before", str(one), "--after", str(other), "--out", str(tmp_path / "out")]
    ended = CliRunner().invoke(app, words)
    assert ended.exit_code == 0, ended.output
    assert "changed by +0." in ended.output
    assert "from the same T1, T2, FLAIR" in " ".join(ended.output.split())
    assert CliRunner().invoke(app, words).exit_code == 2
    assert CliRunner().invoke(app, [*words, "--force"]).exit_code == 0


def test_studies(tiny_case: TinyCase, tiny_model: Path, tmp_path: Path) -> None:
    """Scans that are no result yet are synthesised first, with as many samples as the interval needs."""
    one = write_case(tmp_path / "one", "one").folder
    other = write_case(tmp_path / "other", "other", seed=1).folder
    words = ["follow-up", "--before", str(one), "--after", str(other), "--out", str(tmp_path / "out")]
    small = ["--model", str(tiny_model), "--quality", "preview", "--device", "cpu"]
    ended = CliRunner().invoke(app, [*words, *small])
    assert ended.exit_code == 0, ended.output
    for name in ("earlier", "later"):
        stated = json.loads((tmp_path / f"out-{name}" / "provenance.json").read_text())
        assert len(stated["sample_volumes_ml"]) == 2
    assert "same-image" not in (tmp_path / "out" / "follow_up.json").read_text()


def test_refusals(made: tuple[Result, Case], tmp_path: Path) -> None:
    """One date twice, a damaged result, a single sample, other settings, a given mask: a sentence, nothing written."""
    one = visit(tmp_path / "a", made, 5.0, False)
    words = ["follow-up", "--before", str(one), "--out", str(tmp_path / "out")]
    assert "same folder" in CliRunner().invoke(app, [*words, "--after", str(one)]).output
    damaged = tmp_path / "b"
    shutil.copytree(one, damaged)
    (damaged / "cemri.nii.gz").write_bytes(b"")
    ended = CliRunner().invoke(app, [*words, "--after", str(damaged)])
    assert ended.exit_code == 2
    assert "not a complete result" in " ".join(ended.output.split())
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "T1 Monday.nii.gz").write_bytes(b"anything")
    said = " ".join(CliRunner().invoke(app, [*words, "--after", str(strange)]).output.split())
    assert "no BraTS-named cases; found T1 Monday.nii.gz. Name the files" in said
    result, case = made
    write_result(tmp_path / "c", replace(result, sample_volumes_ml=(1.0,)), case, 1.0)
    with pytest.raises(D3MError, match="single sample"):
        read_visit(tmp_path / "c", "later")
    visit_one = read_visit(one, "earlier")
    other = replace(visit_one, stated=visit_one.stated | {"model": {"weights_sha256": "0"}})
    with pytest.raises(D3MError, match="different models"):
        compare_visits(visit_one, other)
    settings = visit_one.stated["settings"]
    every = replace(visit_one, stated=visit_one.stated | {"settings": settings | {"slice_interval": 3}})
    with pytest.raises(D3MError, match="different qualities"):
        compare_visits(visit_one, every)
    drawn = replace(visit_one, stated=visit_one.stated | {"given_mask": {"sha256": "0"}})
    for one_date, other_date in ((visit_one, drawn), (drawn, drawn)):
        with pytest.raises(D3MError, match="given by a person"):
            compare_visits(one_date, other_date)
    assert not (tmp_path / "out").exists()
    assert ndimage.label(visit_one.brain)[1] == 1
