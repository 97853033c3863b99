"""ADC and SWI beside T1, T2 and FLAIR: from a manifest through training and export to a result, and without them."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from scipy import ndimage
from typer.testing import CliRunner

import d3m
from conftest import AFFINE, SHAPE, TinyCase, write_case
from d3m.commands.app import app
from d3m.diffusion.networks.slice import build_network
from d3m.errors import D3MError
from d3m.models.card import Card
from d3m.models.load import load_model
from d3m.models.store import read_card
from d3m.options import SynthesisOptions
from d3m.synthesis import Synthesis
from d3m.volumes.preprocess.case import read_case
from d3m_training.cli import app as training_app
from d3m_training.data.batches import Batches, BatchSettings
from d3m_training.data.cache import ENHANCING, Prepared, open_entry, write_entry
from d3m_training.data.preparation import GRID_NAME, PrepareOptions, check_grid, further_of, prepare_cache
from d3m_training.train.export import export_run
from d3m_training.train.runs import TrainOptions, recipe_task, run_training, start_from

pytestmark = pytest.mark.long

QUIET = BatchSettings(
    size=24, crop=48, context=(-2, 0, 2), gamma=0, gain=0, bias_field=0, noise=0, blur_share=0, transplant_share=0.5
)
SMALL = ("--quality", "preview", "--device", "cpu", "--progress", "none")


def _silent(_: str) -> None:
    pass


def write_adc(case: TinyCase, name: str = "adc", affine: np.ndarray = AFFINE) -> Path:
    """A map that none of the other contrasts shows: it is dark in the rim and has a gradient of its own."""
    rng = np.random.default_rng(len(name))
    label = np.asanyarray(nibabel.load(case.seg).dataobj)
    values = ndimage.gaussian_filter(np.where(label == 4, 500.0, 900.0), 0.6) + 4 * np.arange(SHAPE[2])
    values += 0.5 * np.asanyarray(nibabel.load(case.t2).dataobj) + rng.normal(0, 8, SHAPE)
    path = case.folder / f"{case.t1.name.removesuffix('_t1.nii.gz')}_{name}.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.where(case.brain, values, 0).astype(np.float32), affine), path)
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five patients by a manifest, the first without ADC: prepared, trained for three iterations, exported."""
    folder = tmp_path_factory.mktemp("further")
    with (folder / "patients.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("id", "t1", "t2", "flair", "t1c", "seg", "adc", "swi"))
        for k in range(5):
            case = write_case(folder / "data", f"p{k}", k)
            paths = [path.relative_to(folder) for path in (case.t1, case.t2, case.flair, case.t1c, case.seg)]
            table.writerow((f"p{k}", *paths, write_adc(case).relative_to(folder) if k else "", ""))
    lines: list[str] = []
    options = PrepareOptions("default", sizes=(4, 1, 0), workers=1)
    prepare_cache([folder / "patients.csv"], folder / "cache", options, lines.append)
    assert "ADC: 4 of 5 patients have it." in lines
    arguments = ["--cache", folder / "cache", "--out", folder / "run", "--iterations", 3, "--batch", 2, "--threads", 1]
    ended = CliRunner().invoke(training_app, ["train", *map(str, arguments), "--validate-every", "3"])
    assert ended.exit_code == 0, ended.output
    export_run(folder / "run", folder / "mine", "mine", {})
    return folder


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> TinyCase:
    """A patient with ADC and SWI beside the scans; those are no inputs of `tiny_case`."""
    case = write_case(tmp_path_factory.mktemp("patient") / "case")
    write_adc(case)
    write_adc(case, "swi")
    return case


def _scans(case: TinyCase) -> list[str]:
    return [word for name in ("t1", "t2", "flair") for word in (f"--{name}", str(getattr(case, name)))]


def test_the_cache_has_them_after_the_target(place: Path) -> None:
    """Values as an independent scaling by percentiles gives them; 0 everywhere where a patient has none."""
    assert further_of(place / "cache") == ("adc",)
    entry = open_entry(place / "cache", "p1", further=1)
    data = np.asanyarray(nibabel.load(place / "data" / "p1_adc.nii.gz").dataobj)
    brain = np.asanyarray(nibabel.load(place / "data" / "p1_t1.nii.gz").dataobj) > 0
    low, high = np.percentile(data[brain], (0.5, 99.5))
    inside = np.asarray(entry.regions[:, 0]) > 0
    scaled = ((data - low) / (high - low)).clip(0, 1)
    np.testing.assert_allclose(np.sort(entry.scans[:, 4][inside]), np.sort(scaled[brain]), atol=2e-3)
    in_file = np.corrcoef(data[brain], np.asanyarray(nibabel.load(place / "data" / "p1_t2.nii.gz").dataobj)[brain])
    in_cache = np.corrcoef(entry.scans[:, 4][inside].astype(float), entry.scans[:, 1][inside].astype(float))
    assert in_cache[0, 1] == pytest.approx(in_file[0, 1], abs=0.02)  # it lies where the other contrasts lie
    assert not open_entry(place / "cache", "p0", further=1).scans[:, 4].any()


def test_a_cache_of_before_is_read(place: Path, tmp_path: Path) -> None:
    """Its grid says nothing of further contrasts, and its entries are opened as ever."""
    content = json.loads((place / "cache" / GRID_NAME).read_text())
    del content["further"]
    (tmp_path / GRID_NAME).write_text(json.dumps(content))
    check_grid(tmp_path, "default")
    assert further_of(tmp_path) == ()
    assert open_entry(place / "cache", "p1").scans.shape[1] == 4
    with pytest.raises(D3MError, match="not prepared"):
        further_of(tmp_path / "none")


def test_they_go_with_the_picture_and_are_left_out_of_some_slices(tmp_path: Path) -> None:
    """Turned, bent, cut and transplanted a further contrast stays on its brain; a missing one stays missing."""
    for k, name in enumerate("abc"):
        rng = np.random.default_rng(k)
        label = np.zeros((12, 64, 64), np.uint8)
        label[3:6, 20:32, 24 + 4 * k : 40] = ENHANCING
        scans = rng.uniform(0.3, 0.6, (12, 5, 64, 64))
        scans[:, 4] = scans[:, 2] if name != "c" else 0  # FLAIR again: wherever it goes, both must agree
        regions = np.stack([np.ones_like(label), label], axis=1)
        write_entry(tmp_path, Prepared(name, scans.astype(np.float16), regions, True), "key")
    entries = [open_entry(tmp_path, name, further=1) for name in "abc"]
    batch = Batches(entries[:2], replace(QUIET, further_missing_share=0.4), 0).draw(0)
    planes = batch.condition.unflatten(1, (3, 4))
    torch.testing.assert_close(planes[:, 1, :1], batch.t1)
    there = planes[:, :, 3].flatten(1).amax(1) > 0
    assert 4 < int(there.sum()) < 22
    torch.testing.assert_close(planes[there][:, :, 3], planes[there][:, :, 2], atol=2e-3, rtol=0)
    noisy = Batches(entries[2:], BatchSettings(size=6, crop=48, noise=0.1), 0).draw(0)
    assert not noisy.condition[:, 3].any()
    assert noisy.condition[:, 2].any()


def test_draws_without_them_are_what_they_were(place: Path) -> None:
    """The three contrasts and the target of a draw do not depend on whether a cache has room for more."""
    bare, more = ([open_entry(place / "cache", f"p{k}", further=n) for k in range(1, 4)] for n in (0, 1))
    plain, wide = (Batches(entries, replace(QUIET, transplant_share=0), 3).draw(5) for entries in (bare, more))
    np.testing.assert_array_equal(plain.condition, wide.condition.unflatten(1, (3, 4))[:, :, :3].flatten(1, 2))
    np.testing.assert_array_equal(plain.target, wide.target)


def test_the_card_names_them_and_the_network_takes_them(place: Path) -> None:
    card = read_card(place / "mine")
    assert card.contrasts == ("t1", "t2", "flair", "adc")
    assert card.optional_contrasts == ("t2", "flair")
    network = load_model(place / "mine").network
    assert network.encoder.stem.mix.weight.shape[1] == 4 * (2 + 4 * 3)  # type: ignore[union-attr]


def test_a_result_with_and_without(place: Path, patient: TinyCase, tmp_path: Path) -> None:
    """The picture depends on it; provenance, notice and page say which it was made from."""
    adc = write_adc(patient)
    made = {}
    for name, given in (("with", ["--adc", str(adc)]), ("without", [])):
        words = ["synthesize", *_scans(patient), *given, "--model", str(place / "mine"), "--page"]
        ended = CliRunner().invoke(app, [*words, "--out", str(tmp_path / name), *SMALL])
        assert ended.exit_code == 0, ended.output
        made[name] = json.loads((tmp_path / name / "provenance.json").read_text())
    assert set(made["with"]["inputs"]) == {"t1", "t2", "flair", "adc"}
    assert made["with"]["missing"] == []
    assert set(made["without"]["inputs"]) == {"t1", "t2", "flair"}
    assert made["without"]["missing"] == ["adc"]
    assert "ADC was not given" in " ".join(notice["message"] for notice in made["without"]["notices"])
    pictures = [np.asanyarray(nibabel.load(tmp_path / name / "cemri.nii.gz").dataobj) for name in made]
    assert not np.array_equal(*pictures)
    shown = [re.findall(r'"title": ?"(\w+)"', (tmp_path / name / "view.html").read_text("utf-8")) for name in made]
    assert [titles[:4] for titles in shown] == [["T1", "T2", "FLAIR", "ADC"], ["T1", "T2", "FLAIR", "Subtraction"]]


def test_the_network_sees_it_in_its_place(place: Path, patient: TinyCase) -> None:
    """ADC is the fourth plane, zero where it is missing; the other planes do not change."""
    synthesis = Synthesis(load_model(place / "mine"), SynthesisOptions(device="cpu", quality="preview"))
    cases = [read_case(patient.t1, patient.t2, patient.flair, further=f) for f in ({"adc": write_adc(patient)}, {})]
    one, other = (synthesis.prepare(case).slices for case in cases)
    assert one.shape[1] == 4
    np.testing.assert_array_equal(one[:, :3], other[:, :3])
    assert not other[:, 3].any()
    assert np.corrcoef(one[:, 3][one[:, 1] > 0], one[:, 1][one[:, 1] > 0])[0, 1] > 0.2


def test_it_is_registered_to_t1(patient: TinyCase) -> None:
    """A header 5 mm off is corrected, as T2's and FLAIR's are, and what T1 shows decides about the brain alone."""
    shifted = AFFINE.copy()
    shifted[1, 3] += 5
    moved = write_adc(patient, "swi", shifted)
    plain = read_case(patient.t1, patient.t2, patient.flair)
    case = read_case(patient.t1, patient.t2, patient.flair, further={"swi": moved})
    write_adc(patient, "swi")
    assert ("registered", "swi") in [(notice.code, notice.volume) for notice in case.notices]
    assert np.abs(case.further["swi"].affine[:3, 3] - AFFINE[:3, 3]).max() < 1.5
    np.testing.assert_array_equal(case.brain, plain.brain)


def test_models_that_do_not_take_it_refuse(
    place: Path, tiny_model: Path, patient: TinyCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is read; a model that does is named."""
    from d3m.models import needs
    from d3m.models.store import ModelEntry

    monkeypatch.setattr(needs, "list_models", lambda: [ModelEntry("mine", place / "mine", True)])
    scans = {"t1": patient.t1, "t2": patient.t2, "flair": patient.flair}
    with pytest.raises(D3MError, match="The model tiny does not take ADC") as caught:
        d3m.synthesize(**scans, adc=tmp_path / "none.nii.gz", model=str(tiny_model))
    assert caught.value.hint == "Leave ADC out, or choose --model mine."
    with pytest.raises(D3MError, match="The model mine does not take SWI") as caught:
        d3m.synthesize(**scans, swi=write_adc(patient, "swi"), model=str(place / "mine"))
    assert caught.value.hint == "Leave SWI out."
    with pytest.raises(D3MError, match="ADC and T2 hold the same image|T2 and ADC hold the same image"):
        d3m.synthesize(**scans, adc=patient.t2, model=str(place / "mine"))


def test_batch(place: Path, tiny_model: Path, patient: TinyCase, tmp_path: Path) -> None:
    """A column of the table; a second run skips the case, and one without the map makes it again."""
    table, adc = tmp_path / "cases.csv", write_adc(patient)
    head = f"a,{patient.t1},{patient.t2},{patient.flair}"
    table.write_text(f"id,t1,t2,flair,adc\n{head},{adc}\n")
    for model, code, word in (("mine", 0, "a,done"), ("mine", 0, "a,skipped"), ("tiny", 2, "does not take ADC")):
        folder = place / "mine" if model == "mine" else tiny_model
        words = ["batch", str(table), "--out", str(tmp_path / model), "--model", str(folder), *SMALL]
        ended = CliRunner().invoke(app, words)
        assert ended.exit_code == code, ended.output
        assert word in (tmp_path / model / "summary.csv").read_text()
    assert "adc" in json.loads((tmp_path / "mine" / "a" / "provenance.json").read_text())["inputs"]
    table.write_text(f"id,t1,t2,flair,adc\n{head},\n")
    words = ["batch", str(table), "--out", str(tmp_path / "mine"), "--model", str(place / "mine"), *SMALL]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert "a,done" in (tmp_path / "mine" / "summary.csv").read_text()


def test_weights_without_them_can_be_gone_on_with(tiny_model: Path, place: Path, tmp_path: Path) -> None:
    """A network that starts from a model without further contrasts makes at first what that model makes."""
    old = load_model(tiny_model)
    sizes = replace(old.card.recipe.network, further=2, maps=3)
    network = build_network(sizes).eval()
    start_from(network, tiny_model, sizes)
    generator = torch.Generator().manual_seed(0)
    side = 2 * sizes.stride
    x, m = torch.randn(2, 1, 1, side, side, generator=generator)
    contrasts, others = (torch.rand(1, 3, n, side, side, generator=generator) for n in (3, 5))
    with torch.inference_mode():
        expected = old.network(x, m, contrasts.flatten(1, 2), torch.tensor([500]))
        made = network(x, m, torch.cat([contrasts, others], dim=2).flatten(1, 2), torch.tensor([500]))
    for one, other in zip(made, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    task = recipe_task("default", place / "mine", further=("adc",))
    assert run_training(task, TrainOptions(place / "cache", tmp_path / "run", 1, 1, threads=1), _silent).is_file()


@pytest.mark.parametrize(
    ("contrasts", "further"),
    [(("t1", "t2", "flair", "adc"), 0), (("t1", "t2", "flair"), 1), (("t1", "t2", "flair", "dwi"), 1),
     (("t1", "t2", "flair", "swi", "adc"), 2), (("t1", "t2", "adc"), 0), (("t1", "t2", "flair", "adc", "adc"), 2)],
)  # fmt: skip
def test_cards_that_make_no_sense(contrasts: tuple[str, ...], further: int, tiny_model: Path) -> None:
    card = read_card(tiny_model)
    sizes = replace(card.recipe.network, further=further)
    text = replace(card, contrasts=contrasts, recipe=replace(card.recipe, network=sizes)).to_json()
    with pytest.raises(D3MError, match=r"contrasts|further"):
        Card.from_json(text)


def test_a_faulty_map_is_named_before_training(place: Path, tmp_path: Path) -> None:
    """`prepare` says which file it is."""
    rows = list(csv.DictReader((place / "patients.csv").open()))
    (tmp_path / "adc.nii.gz").write_bytes(b"nothing")
    for row in rows:
        row |= {name: str(place / row[name]) for name in ("t1", "t2", "flair", "t1c", "seg", "adc") if row[name]}
    rows[2]["adc"] = str(tmp_path / "adc.nii.gz")
    with (tmp_path / "patients.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    lines: list[str] = []
    with pytest.raises(D3MError, match="1 patient cannot be used"):
        prepare_cache([tmp_path / "patients.csv"], tmp_path / "cache", PrepareOptions(workers=1), lines.append)
    assert any(line.startswith("p2: ADC ") for line in lines)
