"""The comparison from data to report: its statistics, its tables, and a tiny run that is resumed."""

from __future__ import annotations

import csv
import itertools
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from conftest import TinyCase
from d3m import metrics
from d3m.errors import D3MError
from d3m.models.store import SampleCase
from d3m.system.devices import visible_gpus
from d3m_benchmark.cli import app
from d3m_benchmark.comparison import run
from d3m_benchmark.comparison.coarse import coarser
from d3m_benchmark.comparison.config import read_config
from d3m_benchmark.comparison.measure import Predicted, measure
from d3m_benchmark.comparison.misaligned import misaligned, shift_of
from d3m_benchmark.comparison.report import RungResult, csv_text, latex, markdown, summarise_rung
from d3m_benchmark.comparison.segmenter import Segmenter, load_segmenter, train_segmenter
from d3m_benchmark.comparison.statistics import holm, rank_biserial, smallest_p, summarise
from d3m_benchmark.comparison.table import Cell, MethodFacts, read_cells, write_cells
from d3m_training.data.cache import ENHANCING, NECROSIS, OEDEMA, Entry, Prepared, open_entry, write_entry
from d3m_training.data.preparation import PrepareOptions, prepare_cache
from training.data_helpers import write_patient


def test_holm_on_a_worked_example() -> None:
    """Four p values: times 4, 3, 2, 1 in ascending order, never falling; an undefined one does not count."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    adjusted = holm([0.04, float("nan"), 0.03])
    assert adjusted[0] == pytest.approx(0.06)
    assert math.isnan(adjusted[1])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_rank_biserial_by_hand() -> None:
    """Ranks of 1, 2, 3 with one negative: (1 + 3 - 2) / 6; zeros do not count."""
    assert rank_biserial(np.array([0.1, -0.2, 0.3, 0.0])) == pytest.approx(2 / 6)
    assert rank_biserial(np.array([1.0, 2.0])) == 1
    assert math.isnan(rank_biserial(np.zeros(3)))


def _cells(values: dict[str, list[float]], metric: str = "psnr", seeds: int = 1) -> list[Cell]:
    return [
        Cell(method, f"p{k}", seed, metric, "tumour", value + 0.1 * seed)
        for method, row in values.items()
        for k, value in enumerate(row)
        for seed in range(seeds)
    ]


def test_p_value_equals_enumeration() -> None:
    """With six pairs the signed-rank test's p is the share of the 64 sign patterns that are as extreme."""
    ours, theirs = [20.0, 21, 22, 23, 24, 25.5], [19.5, 20.1, 22.2, 21.7, 22.1, 22.4]
    row = next(r for r in summarise(_cells({"d3m": ours, "pix2pix": theirs})) if r.method == "pix2pix")
    differences = np.subtract(ours, theirs)
    ranks = np.argsort(np.argsort(np.abs(differences))) + 1
    observed = (ranks * np.sign(differences)).sum()
    sums = [abs((ranks * signs).sum()) for signs in itertools.product((-1, 1), repeat=6)]
    assert row.p == pytest.approx(np.mean(np.array(sums) >= abs(observed)))
    assert row.difference == pytest.approx(differences.mean())
    assert row.ci_low < row.difference < row.ci_high
    assert smallest_p(6) == 2 / 64


def test_better_means_better_whatever_the_metric() -> None:
    """A smaller false-positive volume and a ratio nearer to 1 are effects in D3M's favour."""
    ours, theirs = [1.0, 2, 3, 4], [5.0, 6, 7, 8]
    for metric, effect in (("fp_ml", 1), ("psnr", -1), ("segmenter_hd95", 1)):
        row = next(r for r in summarise(_cells({"d3m": ours, "i2sb": theirs}, metric)) if r.method == "i2sb")
        assert row.effect == effect
    rows = summarise(_cells({"d3m": [1.1, 0.9, 1.05], "i2sb": [0.6, 1.6, 0.7]}, "flicker"))
    assert next(r for r in rows if r.method == "i2sb").effect == 1


def test_undefined_patients_are_left_out_in_pairs() -> None:
    """A patient without a value for one of the two counts for neither side of their comparison; seeds come first."""
    nan = float("nan")
    rows = summarise(_cells({"d3m": [1.0, nan, 3, 4], "palette": [0.0, 1, nan, 2]}, seeds=2))
    ours, theirs = rows
    assert (ours.n, theirs.n, theirs.pairs) == (3, 3, 2)
    assert theirs.difference == pytest.approx(1.5)
    assert ours.mean == pytest.approx(np.mean([1.05, 3.05, 4.05]))
    assert ours.seed_sd == pytest.approx(np.std([0, 0.1], ddof=1))


def test_cells_come_back_from_disk(tmp_path: Path) -> None:
    """Values survive exactly, undefined ones too; a damaged file is named."""
    cells = [Cell("d3m", "a,b", 1, "psnr", "brain", 1 / 3), Cell("d3m", 'c"', 0, "dice", "enhancing", float("nan"))]
    write_cells(tmp_path / "cells.csv", cells)
    back = read_cells(tmp_path / "cells.csv")
    assert back[0] == cells[0]
    assert back[1].patient == 'c"'
    assert math.isnan(back[1].value)
    (tmp_path / "cells.csv").write_text("method,patient\nx\n", encoding="utf-8")
    with pytest.raises(D3MError, match=r"cells\.csv is damaged"):
        read_cells(tmp_path / "cells.csv")


def _result() -> RungResult:
    cells = _cells({"d3m": [20.0, 21, 22], "i2sb": [19.0, 20, 21.5]})
    facts = tuple(MethodFacts(n, f"{n} <&_", "x & y", 1_500_000, 1.0, 2, 10, 60.0, "half") for n in ("d3m", "i2sb"))
    return RungResult("half", "Conditions with 5 % & more.", facts, tuple(cells), (0.5, float("nan")))


def test_tables_agree_and_are_escaped() -> None:
    """CSV, Markdown and LaTeX hold the same means; the best is bold; special characters stay harmless."""
    summary = summarise_rung(_result())
    rows = list(csv.DictReader(csv_text([summary]).splitlines()))
    assert [(r["method"], r["mean"]) for r in rows] == [("d3m", "21"), ("i2sb", "20.167")]
    assert rows[1]["budget"] == "10 iterations, 1.0 min"
    assert "**21.00 ± 1.00**" in markdown("title", [summary])
    text = latex([summary])
    assert r"\textbf{21.00 $\pm$ 1.00}" in text
    assert r"d3m <\&\_" in text
    assert r"5 \% \& more" in text


def _entry(folder: Path, name: str) -> Entry:
    rng = np.random.default_rng(len(name))
    y, x = np.mgrid[:32, :64]
    brain = np.broadcast_to(np.hypot(y - 16, x - 32) < 15, (6, 32, 64))
    radius = np.broadcast_to(np.hypot(y - 14, x - 34), brain.shape)
    label = np.select([radius < 3, radius < 6, radius < 9], [NECROSIS, ENHANCING, OEDEMA], 0)
    scans = rng.uniform(0.3, 0.6, (6, 4, 32, 64)) * brain[:, None]
    scans[:, 3][label == ENHANCING] = 1.4
    regions = np.stack([brain, label], axis=1).astype(np.uint8)
    write_entry(folder, Prepared(name, scans.astype(np.float16), regions, True), "key")
    return open_entry(folder, name)


def test_coarser_entries_keep_means_and_labels(tmp_path: Path) -> None:
    """Blocks hold the mean over their brain voxels and the label that most of them have; padding is background."""
    entry = _entry(tmp_path, "a")
    made = coarser(entry, 2, 32)
    assert made.scans.shape == (6, 4, 32, 32)
    blocks = np.asarray(entry.scans[:, 3], np.float32).reshape(6, 16, 2, 32, 2).mean(axis=(2, 4))
    full = np.asarray(entry.regions[:, 0]).reshape(6, 16, 2, 32, 2).all(axis=(2, 4))
    assert np.allclose(made.scans[:, 3, :16][full], blocks[full], atol=2e-3)
    assert not made.scans[:, :, 16:].any()
    labels = np.asarray(entry.regions[:, 1])
    for z, y, x in np.argwhere(full):
        counts = np.bincount(labels[z, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel(), minlength=4)
        found = made.regions[z, 1, y, x]
        assert counts[found] == counts.max()
        assert found == ENHANCING or counts[ENHANCING] < counts.max()


def _centre(weight: np.ndarray) -> np.ndarray:
    """(2,) row and column of the middle of mass."""
    return np.array([(weight * axis).sum() for axis in np.mgrid[:32, :64]]) / weight.sum()


def test_misaligned_patients_have_t1c_and_labels_elsewhere(tmp_path: Path) -> None:
    """The rim and its label move by the stated millimetres, 1 to 3 of them; nothing else does, and each patient has a
    direction of its own."""
    entry = _entry(tmp_path, "a")
    shift = shift_of("a", 3.0)
    assert 1 <= np.linalg.norm(shift) <= 3
    assert not np.allclose(shift, shift_of("b", 3.0))
    made = misaligned(entry, 3.0, 0.5)
    assert np.array_equal(made.scans[:, :3], entry.scans[:, :3])
    assert np.array_equal(made.regions[:, 0], entry.regions[:, 0])
    before, after = (np.asarray(regions[3, 1]) == ENHANCING for regions in (entry.regions, made.regions))
    assert _centre(after) - _centre(before) == pytest.approx(shift / 0.5, abs=0.5)
    bright = [np.clip(np.asarray(scans[3, 3], np.float32) - 0.8, 0, None) for scans in (entry.scans, made.scans)]
    assert _centre(bright[1]) - _centre(bright[0]) == pytest.approx(shift / 0.5, abs=0.5)


def test_perfect_and_copied_images_are_measured_as_such(tmp_path: Path) -> None:
    """The real image, in any units, has no error and Dice 1; volumes are in millilitres."""
    entry = _entry(tmp_path, "a")
    enhancing = np.asarray(entry.regions[:, 1]) == ENHANCING
    target = np.asarray(entry.scans[:, 3], np.float32)
    perfect = Predicted(0.7 * target + 0.1, enhancing.astype(np.float32), 1.0)
    found = measure(perfect, entry, 0.5, 0.004)
    assert found.error_enhancing == pytest.approx(0, abs=1e-3)
    assert found.ssim_brain == pytest.approx(1, abs=1e-3)
    assert (found.dice, found.fp_ml, found.fn_ml) == (1, 0, 0)
    nothing = measure(replace(perfect, probability=np.zeros_like(target)), entry, 0.5, 0.004)
    assert nothing.fn_ml == pytest.approx(enhancing.sum() * 0.004)


def test_segmenter_learns_and_is_kept(tmp_path: Path) -> None:
    """Trained on one patient it finds his enhancement; what is loaded from disk finds the same."""
    from d3m_training.data.batches import BatchSettings

    entry = _entry(tmp_path / "cache", "a")
    settings = BatchSettings(size=8, crop=32, min_brain_voxels=10, rotation_degrees=0, scaling=0, elastic_pixels=0)
    weights = train_segmenter([entry], tmp_path / "run", settings, 40, 0, lambda _: None)
    segmenter = load_segmenter(weights, torch.device("cpu"))
    assert isinstance(segmenter, Segmenter)
    scans, regions = np.asarray(entry.scans, np.float32), np.asarray(entry.regions)
    mask = segmenter.segment(scans[:, :3], scans[:, 3], regions[:, 0] > 0)
    assert metrics.dice(mask, regions[:, 1] == ENHANCING) > 0.8
    assert not segmenter.segment(scans[:, :3], scans[:, 0], regions[:, 0] > 0)[:, 10:20].sum() > mask.sum()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tiny patients to train on and two to report on."""
    folder = tmp_path_factory.mktemp("comparison") / "data"
    for part, names in (("train", "abc"), ("validation", "de")):
        for name in names:
            write_patient(folder / part, name, seed=ord(name))
    return folder


@pytest.mark.parametrize(
    ("workers", "gpus", "expected"), [(1, 0, [""]), (2, 0, ["", ""]), (1, 2, ["0", "1"]), (2, 2, ["0", "1", "0", "1"])]
)
def test_processes_are_spread_over_gpus(workers: int, gpus: int, expected: list[str]) -> None:
    """Every card is used before one has a second process."""
    assert run.process_devices(workers, [str(k) for k in range(gpus)]) == expected


def test_only_the_gpus_that_the_user_left_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gives a comparison the third and fifth card of a machine gets these, not the first two."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,4")
    assert run.process_devices(2, visible_gpus()) == ["2", "4", "2", "4"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus() == ["0", "1"]


@pytest.mark.long
def test_comparison_runs_and_resumes(
    data: Path, tiny_case: TinyCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a folder of patients to tables and pages; what is lost is made again by two processes, with the
    same numbers."""
    sample = SampleCase(tiny_case.t1, tiny_case.t2, tiny_case.flair, tiny_case.t1c, tiny_case.seg)
    monkeypatch.setattr(run, "find_sample", lambda: sample)
    methods = ["t1-copy", "d3m", "pix2pix"]
    rung = {"name": "tiny", "methods": methods, "coarser": 2, "iterations": 2, "batch": 2, "crop": 32, "seeds": [0, 1],
            "misaligned_mm": 2}  # fmt: skip
    config = {
        "data": [str(data)],
        "cache": "cache",
        "out": "out",
        "choose": 1,
        "segmenter_iterations": 2,
        "rungs": [rung],
    }
    (tmp_path / "c.json").write_text(json.dumps(config), encoding="utf-8")
    lines: list[str] = []
    run.run_comparison(read_config(tmp_path / "c.json"), lines.append)
    assert "5 cells, 5 to do." in lines
    report = tmp_path / "out" / "report"
    rows = list(csv.DictReader((report / "table.csv").open(encoding="utf-8")))
    assert {row["method"] for row in rows} == set(methods)
    assert len({(r["metric"], r["region"]) for r in rows}) == 13
    assert all(row["n"] == "2" for row in rows if row["metric"] == "psnr")
    page = (report / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"(?:src|href)\s*=\s*['\"](?!data:)", page)
    assert "Patient d" not in page
    assert "Patient d" in (tmp_path / "out" / "patients" / "index.html").read_text(encoding="utf-8")
    assert "research only" in page

    moved = sorted(path.name for path in (tmp_path / "out/coarser2-misaligned2").iterdir())
    assert moved == ["a", "b"]  # those to train on alone
    as_it_was, beside = (open_entry(tmp_path / "out" / name, "a") for name in ("coarser2", "coarser2-misaligned2"))
    assert not np.array_equal(as_it_was.scans[:, 3], beside.scans[:, 3])

    facts = json.loads((tmp_path / "out/cells/tiny/d3m/seed0/facts.json").read_text(encoding="utf-8"))
    assert facts["facts"]["iterations"] == 2
    assert facts["data_hash"]
    assert facts["code_hash"]
    kept = (report / "table.csv").read_text(encoding="utf-8")
    for cell in ("d3m/seed1", "pix2pix/seed0"):
        shutil.rmtree(tmp_path / "out/cells/tiny" / cell)
    lines.clear()
    (tmp_path / "c.json").write_text(json.dumps(config | {"workers": 2}), encoding="utf-8")
    run.run_comparison(read_config(tmp_path / "c.json"), lines.append)
    assert "5 cells, 2 to do." in lines
    assert any(line.startswith("tiny pix2pix seed 0") for line in lines)
    changed = config | {"rungs": [rung | {"iterations": 3}]}
    (tmp_path / "c.json").write_text(json.dumps(changed), encoding="utf-8")
    with pytest.raises(D3MError, match="tiny was begun with other data or conditions"):
        run.run_comparison(read_config(tmp_path / "c.json"), lines.append)
    seconds = {"seconds"}
    before, after = (
        [{k: v for k, v in row.items() if k != "budget"} for row in csv.DictReader(text.splitlines())]
        for text in (kept, (report / "table.csv").read_text(encoding="utf-8"))
    )
    assert [r for r in before if r["metric"] not in seconds] == [r for r in after if r["metric"] not in seconds]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"methods": ["d3m", "gan"]}, "unknown methods gan"),
        ({"methods": ["pix2pix"]}, "d3m is not among"),
        ({"iterations": None}, "either minutes or iterations"),
        ({"epochs": 3}, "epochs"),
    ],
)
def test_faults_in_the_file_are_named(tmp_path: Path, change: dict[str, object], said: str) -> None:
    """A wrong entry is told in one sentence, before anything is prepared."""
    rung = {"name": "r", "iterations": 2, **change}
    (tmp_path / "c.json").write_text(json.dumps({"cache": "x", "out": "o", "rungs": [rung]}), encoding="utf-8")
    with pytest.raises(D3MError, match="In the comparison's file, rungs") as told:
        read_config(tmp_path / "c.json")
    assert said in str(told.value)


def test_one_method_alone(data: Path, tmp_path: Path) -> None:
    """`train` leaves weights and says what they are; a method that does not exist is told with the choice."""
    runner = CliRunner()
    prepare_cache([data], tmp_path / "cache", PrepareOptions(workers=1), lambda _: None)
    assert "i2sb" in runner.invoke(app, ["methods"]).output
    command = ["train", "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "run"), "--iterations", "1"]
    command += ["--batch", "1", "--threads", "1"]
    done = runner.invoke(app, [*command, "i2sb"])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["method"] == "i2sb"
    assert (tmp_path / "run" / "last.safetensors").is_file()
    refused = runner.invoke(app, [*command, "gan"])
    assert refused.exit_code == 2
