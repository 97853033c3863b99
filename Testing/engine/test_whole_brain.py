"""The whole-brain stage: its maps, the patient's estimate, and the model folder that holds it."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from conftest import TinyCase
from d3m.diffusion.networks.whole_brain import WholeBrainEnsemble, WholeBrainNetwork, network_input, pool
from d3m.diffusion.recipe import WholeBrainSizes
from d3m.errors import D3MError
from d3m.models import store
from d3m.models.card import Card, WholeBrain
from d3m.models.cost import case_memory
from d3m.models.load import load_model, save_model
from d3m.models.patient import PatientCalibration, patient_features
from d3m.models.recipes import RECIPES
from d3m.models.store import import_model
from d3m.options import SynthesisOptions
from d3m.results.files import write_result
from d3m.synthesis import Synthesis
from d3m.volumes.preprocess.case import read_case

SIZES = WholeBrainSizes(widths=(8, 8))
CALIBRATION = PatientCalibration(-1.0, (0.5, 2.0), 0.1, (0.9, 0.2), (-0.6, 0.7), patients=3)


def _members(count: int = 2) -> WholeBrainEnsemble:
    """Untrained members whose answers are not all the same."""
    torch.manual_seed(3)
    ensemble = WholeBrainEnsemble(SIZES, count).eval()
    for name, value in ensemble.named_parameters():
        if ".out." in name:
            torch.nn.init.normal_(value, std=0.5)
    return ensemble


@pytest.fixture(scope="module")
def staged(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a whole-brain stage."""
    model = load_model(tiny_model)
    card = replace(model.card, name="staged", whole_brain=WholeBrain("0" * 64, SIZES, 2, CALIBRATION))
    folder = tmp_path_factory.mktemp("staged") / "staged"
    save_model(folder, card, model.network.state_dict(), _members().state_dict())
    return folder


def _brain(shape: tuple[int, int, int] = (22, 30, 26), seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    axes = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in shape), indexing="ij")
    brain = sum(axis**2 for axis in axes) < 0.9
    return torch.rand(shape[0], 3, *shape[1:]) * brain[:, None], brain  # type: ignore[union-attr]


def test_probabilities_cover_the_brain_alone() -> None:
    """On the model's own grid, odd sizes too: between 0 and 1 inside the brain and 0 outside."""
    slices, brain = _brain((21, 31, 27))
    with torch.inference_mode():
        maps = _members().predict(slices, brain)
    assert maps.probability.shape == (3, 21, 31, 27)
    assert (maps.probability[:, ~brain] == 0).all()
    inside = maps.probability[:, brain]
    assert inside.min() >= 0
    assert inside.max() <= 1
    assert inside.std() > 0.01
    assert maps.enhancing_members.shape[0] == 2
    assert not torch.equal(maps.enhancing_members[0], maps.enhancing_members[1])


def test_left_and_right_are_alike() -> None:
    """A mirrored brain gives mirrored maps."""
    slices, brain = _brain((24, 32, 32))
    members = _members()
    with torch.inference_mode():
        straight = members.predict(slices, brain).probability
        mirrored = members.predict(slices.flip(-1), brain.flip(-1)).probability
    torch.testing.assert_close(mirrored.flip(-1), straight, atol=1e-4, rtol=0)


def test_threads_do_not_show_in_the_bits() -> None:
    """The maps are the same bits with one thread and with two."""
    slices, brain = _brain()
    members = _members()
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with torch.inference_mode():
                found.append(members.predict(slices, brain).probability)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


def test_memory_of_the_stage_is_part_of_a_case(staged: Path) -> None:
    """Workers are counted by what a case takes: a run takes some 325 MB at 2 mm, and each thread has one."""
    alone = store.read_card(staged)
    sizes = WholeBrainSizes(widths=(16, 32, 64, 128))
    both = replace(alone, whole_brain=replace(alone.whole_brain, sizes=sizes, members=5))
    without = replace(alone, whole_brain=None)
    for threads in (1, 2, 4):
        more = (case_memory(both, threads) - case_memory(without, 0)) / 2**20
        assert 320 * threads < more < 450 * threads
    assert case_memory(both, 100) == case_memory(both, 10)  # no more runs than members and mirror images
    assert case_memory(both, 0) == case_memory(without, 0)  # on a GPU it is the GPU's memory


def test_fewer_members_are_the_first_ones() -> None:
    """Asking one member gives what a stage of that member alone gives, in two runs."""
    slices, brain = _brain()
    members = _members()
    alone = WholeBrainEnsemble(SIZES, 1).eval()
    alone.members[0].load_state_dict(members.members[0].state_dict())
    told: list[int] = []
    with torch.inference_mode():
        few = members.predict(slices, brain, members=1, on_pass=told.append)
        own = alone.predict(slices, brain)
    assert torch.equal(few.probability, own.probability)
    assert told == [1, 2]


def test_what_an_absent_contrast_holds_does_not_matter() -> None:
    """A missing T2 may be anything; and that it is missing shows in the answer."""
    slices, brain = _brain()
    other = slices.clone()
    other[:, 1] = 0.5
    members = _members()
    with torch.inference_mode():
        absent = [members.predict(s, brain, (True, False, True)).probability for s in (slices, other)]
        there = members.predict(slices, brain).probability
    assert torch.equal(*absent)
    assert not torch.equal(absent[0], there)


def test_pooling_is_the_mean_of_the_brain_in_each_cell() -> None:
    """What is not brain does not darken the border."""
    brain = torch.zeros(4, 4, 4, dtype=torch.bool)
    brain[:2, :2, :2] = True
    brain[0, 0, 2] = brain[0, 1, 2] = brain[1, 0, 2] = True  # three of eight voxels of the next cell
    values = torch.full((1, 4, 4, 4), 9.0)
    values[0][brain] = 2.0
    means, coarse = pool(values, brain)
    assert coarse[0, 0, 0].tolist() == [1, 1]
    torch.testing.assert_close(means[0, 0, 0], torch.tensor([2.0, 2.0]))
    assert means[0, 1].abs().max() == 0
    assert coarse[0, 1].max() == 0


def test_position_is_told_in_millimetres_from_the_middle() -> None:
    """The same brain elsewhere on the grid is described the same; twice the voxel size, twice as far."""
    values, brain = torch.ones(3, 20, 20, 20), torch.zeros(1, 20, 20, 20)
    brain[0, 2:12, 4:14, 6:16] = 1
    here = network_input(values, brain, (True, True, True), (2.0, 2.0, 2.0))
    there = network_input(values, brain.roll((3, 2, 1), (1, 2, 3)), (True, True, True), (2.0, 2.0, 2.0))
    torch.testing.assert_close(here.roll((3, 2, 1), (1, 2, 3)), there)
    wide = network_input(values, brain, (True, True, True), (4.0, 4.0, 4.0))
    torch.testing.assert_close(wide[4:7], 2 * here[4:7])
    assert here[4, 2, 4, 6] == pytest.approx(-4.5 * 2 / 80)


def test_a_member_learns() -> None:
    """A few steps on one volume with a bright spot: the spot's probability rises above all others."""
    torch.manual_seed(0)
    network = WholeBrainNetwork(SIZES)
    slices, brain = _brain((24, 24, 24))
    slices[8:14, 1, 8:14, 8:14] = 3.0
    values, coarse = pool(slices.transpose(0, 1), brain)
    seen = network_input(values, coarse, (True, True, True), (2.0, 2.0, 2.0))[None]
    truth = (values[1] > 1.5).float()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    for _ in range(30):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(seen)[0, 2], truth)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    made = network(seen)[0, 2].detach()
    assert made[truth > 0].mean() > made[truth == 0].mean() + 2


def test_estimate_follows_the_card() -> None:
    """Probability, volume and interval, computed again from the formulas of the card."""
    features = patient_features(np.full((10, 10, 10), 0.2, np.float32), 0.008)
    assert features == pytest.approx((math.log1p(1.6), 0.2))
    estimate = CALIBRATION.estimate(features)
    odds = -1.0 + 0.5 * math.log1p(1.6) + 2.0 * 0.2
    assert estimate.enhancement_probability == pytest.approx(1 / (1 + math.exp(-odds)))
    middle = 0.1 + 0.9 * math.log1p(1.6) + 0.2 * 0.2
    assert estimate.volume_ml == pytest.approx(math.exp(middle) - 1)
    assert estimate.volume_interval_ml == pytest.approx((0.0, math.exp(middle + 0.7) - 1))  # below half a millilitre
    assert estimate.interval_level == 0.8


def test_interval_leaves_zero_where_much_enhances() -> None:
    """With much enhancement the lowest volume is above zero and below the expected one."""
    estimate = CALIBRATION.estimate((3.0, 0.9))
    low, high = estimate.volume_interval_ml
    assert 0.5 < low < estimate.volume_ml < high


def test_peak_is_of_the_likeliest_half_millilitre() -> None:
    """A small sure spot has a high peak and a low expected volume."""
    spot = np.zeros((20, 20, 20), np.float32)
    spot[:5, :5, :5] = 1.0  # 1 ml of 8 ml
    volume, peak = patient_features(spot, 0.008)
    assert (volume, peak) == (pytest.approx(math.log1p(1.0)), pytest.approx(1.0))


def test_result_has_the_patients_numbers(staged: Path, tiny_case: TinyCase, tmp_path: Path) -> None:
    """Synthesis gives estimate and map, writes them, and the provenance says which weights they come from."""
    case = read_case(tiny_case.t1, tiny_case.t2, tiny_case.flair)
    result = Synthesis(load_model(staged), SynthesisOptions(device="cpu", quality="preview")).run(case)
    assert result.patient is not None
    assert 0 <= result.patient.enhancement_probability <= 1
    assert result.whole_tumour_probability is not None
    assert result.whole_tumour_probability.shape == case.t1.data.shape
    assert (result.whole_tumour_probability[~case.brain] == 0).all()
    write_result(tmp_path / "out", result, case, 1.0)
    content = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert content["patient_estimate"]["volume_ml"] == pytest.approx(result.patient.volume_ml)
    assert content["model"]["whole_brain_sha256"] == store.file_sha256(staged / store.WHOLE_BRAIN_NAME)
    written = nibabel.load(tmp_path / "out" / "whole_tumour_probability.nii.gz")
    np.testing.assert_allclose(np.asarray(written.dataobj), result.whole_tumour_probability, atol=1e-6)


def test_the_stage_is_told_that_t2_is_missing(staged: Path, tiny_case: TinyCase) -> None:
    """Without T2, for a model that can do without it, the estimate is that of the stage without T2."""
    model = load_model(staged)
    model = replace(model, card=replace(model.card, optional_contrasts=("t2",)))
    synthesis = Synthesis(model, SynthesisOptions(device="cpu", quality="preview"))
    case = read_case(tiny_case.t1, None, tiny_case.flair)
    result = synthesis.run(case)
    scans = synthesis.prepare(case)
    assert model.whole_brain is not None
    with torch.inference_mode():
        slices, brain = torch.from_numpy(scans.slices), torch.from_numpy(scans.brain)
        maps = model.whole_brain.predict(slices, brain, (True, False, True), members=1)
    expected = CALIBRATION.estimate(patient_features(maps.enhancing_members[0].numpy(), 0.008))
    assert result.patient is not None
    assert result.patient.volume_ml == pytest.approx(expected.volume_ml, rel=1e-4)


def test_models_without_the_stage_give_none(tiny_model: Path, tiny_case: TinyCase, tmp_path: Path) -> None:
    """No stage, no number and no file: nothing is made up."""
    case = read_case(tiny_case.t1, tiny_case.t2, tiny_case.flair)
    result = Synthesis(load_model(tiny_model), SynthesisOptions(device="cpu", quality="preview")).run(case)
    assert result.patient is None
    assert result.whole_tumour_probability is None
    write_result(tmp_path / "out", result, case, 1.0)
    assert json.loads((tmp_path / "out" / "provenance.json").read_text())["patient_estimate"] is None
    assert not (tmp_path / "out" / "whole_tumour_probability.nii.gz").exists()


def test_the_mask_tells_of_the_patient_where_there_is_no_stage(tiny_model: Path, tiny_case: TinyCase) -> None:
    """From the probability on T1's grid, brain alone, as the formula says; of a mask that was given nothing is told."""
    model = load_model(tiny_model)
    model = replace(model, card=replace(model.card, patient_calibration=CALIBRATION))
    case = read_case(tiny_case.t1, tiny_case.t2, tiny_case.flair)
    synthesis = Synthesis(model, SynthesisOptions(device="cpu", quality="preview"))
    result = synthesis.run(case)
    voxel_ml = float(abs(np.linalg.det(case.t1.affine[:3, :3]))) / 1000
    inside = np.sort(result.enhancement_probability[case.brain].astype(float))
    features = (math.log1p(inside.sum() * voxel_ml), inside[-round(0.5 / voxel_ml) :].mean())
    odds = -1.0 + 0.5 * features[0] + 2.0 * features[1]
    assert result.patient is not None
    assert result.patient.enhancement_probability == pytest.approx(1 / (1 + math.exp(-odds)), rel=1e-4)
    assert result.patient.volume_ml == pytest.approx(math.expm1(0.1 + 0.9 * features[0] + 0.2 * features[1]), rel=1e-3)
    given = np.zeros(case.brain.shape, bool)
    given[tuple(np.argwhere(case.brain)[len(inside) // 2])] = True
    assert synthesis.run(replace(case, given_mask=given)).patient is None


def test_a_stage_goes_before_the_mask(staged: Path, tiny_case: TinyCase) -> None:
    """Two calibrations in one card: the whole-brain stage's is used."""
    model, case = load_model(staged), read_case(tiny_case.t1, tiny_case.t2, tiny_case.flair)
    options = SynthesisOptions(device="cpu", quality="preview")
    both = replace(model, card=replace(model.card, patient_calibration=replace(CALIBRATION, volume_intercept=3.0)))
    assert Synthesis(both, options).run(case).patient == Synthesis(model, options).run(case).patient


def test_a_bad_calibration_is_refused_by_name() -> None:
    """What the card says of the mask is not trusted either; a good one survives JSON."""
    card = Card("m", "T", RECIPES["default"], "a" * 64, patient_calibration=CALIBRATION)
    assert Card.from_json(card.to_json()) == card
    with pytest.raises(D3MError, match="patient_calibration has quantiles"):
        Card.from_json(replace(card, patient_calibration=replace(CALIBRATION, residuals=(1.0, -1.0))).to_json())


def test_cards_of_the_first_version_are_read() -> None:
    """A card written before there was a whole-brain stage is a model without one."""
    content = json.loads(Card("m", "T", RECIPES["default"], "a" * 64).to_json())
    del content["whole_brain"]
    content["schema_version"] = 1
    assert Card.from_json(json.dumps(content)).whole_brain is None


def test_card_with_the_stage_survives_json() -> None:
    """Sizes, members and calibration come back exactly."""
    card = Card("m", "T", RECIPES["default"], "a" * 64, whole_brain=WholeBrain("b" * 64, SIZES, 5, CALIBRATION))
    assert Card.from_json(card.to_json()) == card


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (WholeBrain("zz", SIZES), "whole_brain.weights_sha256"),
        (WholeBrain("b" * 64, WholeBrainSizes((8, 10**9))), "widths"),
        (WholeBrain("b" * 64, SIZES, 10**6), "members"),
        (WholeBrain("b" * 64, SIZES, 1, replace(CALIBRATION, volume_weights=(1.0,))), "weights"),
        (WholeBrain("b" * 64, SIZES, 1, replace(CALIBRATION, volume_intercept=math.inf)), "no sense"),
        (WholeBrain("b" * 64, SIZES, 1, replace(CALIBRATION, residuals=(1.0, -1.0))), "order"),
        (WholeBrain("b" * 64, SIZES, 1, replace(CALIBRATION, level=1.5)), "level"),
    ],
)
def test_bad_stages_are_refused_by_name(stage: WholeBrain, message: str) -> None:
    """What the card says of the stage is not trusted."""
    text = Card("m", "T", RECIPES["default"], "a" * 64, whole_brain=stage).to_json()
    with pytest.raises(D3MError, match=message):
        Card.from_json(text)


def test_recipes_on_another_grid_have_no_stage() -> None:
    """The published recipes scale over the whole volume; the stage is not for them."""
    text = Card("m", "T", RECIPES["paper"], "a" * 64, whole_brain=WholeBrain("b" * 64, SIZES)).to_json()
    with pytest.raises(D3MError, match="whole_brain needs"):
        Card.from_json(text)


@pytest.mark.parametrize("damage", ["changed", "missing", "link"])
def test_damaged_stage_is_refused(staged: Path, tmp_path: Path, damage: str) -> None:
    """Weights of the stage are checked as the others are."""
    copy = Path(shutil.copytree(staged, tmp_path / "copy"))
    path = copy / store.WHOLE_BRAIN_NAME
    if damage == "changed":
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(bytes(content))
    else:
        path.rename(tmp_path / "elsewhere.safetensors")
        if damage == "link":
            path.symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(D3MError, match="do not match their card|there is no whole_brain|is a link"):
        load_model(copy)


def test_imported_models_keep_the_stage(staged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing copies both files of weights."""
    monkeypatch.setenv(store.MODELS_VARIABLE, str(tmp_path / "own"))
    entry = import_model(staged)
    assert load_model(entry.folder).whole_brain is not None


def test_saving_keeps_or_removes_the_stage(staged: Path, tmp_path: Path) -> None:
    """New slice weights keep the stage that is there; a card without a stage leaves no file of one behind."""
    copy = Path(shutil.copytree(staged, tmp_path / "copy"))
    model = load_model(copy)
    save_model(copy, model.card, model.network.state_dict())
    assert load_model(copy).whole_brain is not None
    save_model(copy, replace(model.card, whole_brain=None), model.network.state_dict())
    assert load_model(copy).whole_brain is None
    assert not (copy / store.WHOLE_BRAIN_NAME).exists()
