"""Maps of the whole-brain stage as a condition of the slices: from the members of folds to a model that uses them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import TinyCase
from d3m.diffusion.networks.slice import build_network
from d3m.errors import D3MError
from d3m.models.card import Card
from d3m.models.load import load_model, save_model
from d3m.options import SynthesisOptions
from d3m.synthesis import Synthesis
from d3m.volumes.preprocess.case import read_case
from d3m_training.data.batches import Batches, BatchSettings
from d3m_training.data.cache import ENHANCING, Prepared, entry_key, open_entry, write_entry
from d3m_training.data.preparation import PrepareOptions, prepare_cache
from d3m_training.data.whole_brain import prepare_coarse
from d3m_training.train.maps import add_maps
from d3m_training.train.runs import TrainOptions, recipe_task, run_training, start_from
from d3m_training.train.whole_brain import train_fold
from d3m_training.train.whole_brain_stage import finish_stage, read_folds
from training.data_helpers import write_patient

pytestmark = pytest.mark.long


def _silent(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patients, prepared for both stages, and three folds of one iteration each."""
    folder = tmp_path_factory.mktemp("maps")
    for k in range(6):
        write_patient(folder / "data", f"p{k}", codes={4: 2} if k % 3 == 2 else None, seed=k)
    prepare_coarse([folder / "data"], folder / "coarse", 4, False, _silent)
    options = PrepareOptions("default", sizes=(5, 1, 0), workers=1, enhancing_label=4)
    prepare_cache([folder / "data"], folder / "cache", options, _silent)
    for fold in range(3):
        train_fold(folder / "coarse", folder / f"fold{fold}", fold, 3, 1, 1, _silent)
    return folder


def test_maps_are_of_the_member_that_has_not_seen_the_patient(place: Path) -> None:
    """Each patient's maps are those of its own fold's member; contrasts, target and labels stay as they were."""
    runs = [place / f"fold{k}" for k in range(3)]
    before = {f"p{k}": open_entry(place / "cache", f"p{k}").scans[:].copy() for k in range(6)}
    assert add_maps(place / "cache", runs, _silent) == 6
    for fold in read_folds(runs):
        for identifier in fold.held_out:
            entry = open_entry(place / "cache", identifier, 3)
            np.testing.assert_array_equal(entry.scans[:, :4], before[identifier])
            scans = torch.from_numpy(np.asarray(entry.scans[:, :3], np.float32))
            with torch.inference_mode():
                maps = fold.member.predict(scans, torch.from_numpy(entry.regions[:, 0] > 0))
            expected = maps.probability.transpose(0, 1).numpy()
            np.testing.assert_allclose(entry.scans[:, 4:], expected, atol=1e-3)
    with pytest.raises(D3MError, match="Every member has seen"):
        add_maps(place / "cache", runs[:1], _silent)


def test_maps_go_with_the_picture(tmp_path: Path) -> None:
    """A map that is the label itself lies where the label lies after turning, bending, cutting and transplanting."""
    for k, name in enumerate("ab"):
        rng = np.random.default_rng(k)
        brain, label = np.ones((12, 64, 64), np.uint8), np.zeros((12, 64, 64), np.uint8)
        label[3:6, 20:32, 24 + 4 * k : 40] = ENHANCING
        scans = rng.uniform(0.3, 0.6, (12, 4, 64, 64))
        maps = np.repeat((label > 0)[:, None], 3, axis=1) * np.array([0.9, 0.8, 0.7])[:, None, None]
        values = np.concatenate([scans, maps], axis=1).astype(np.float16)
        write_entry(tmp_path, Prepared(name, values, np.stack([brain, label], axis=1), True), "key")
    settings = BatchSettings(size=24, crop=48, context=(-2, 0, 2), transplant_share=0.5, missing_shares=(0.3, 0.3))
    batches = Batches([open_entry(tmp_path, name, 3) for name in "ab"], settings, 0)
    batch = batches.draw(0)
    assert batch.condition.shape == (24, 18, 48, 48)
    planes = batch.condition.unflatten(1, (3, 6))
    torch.testing.assert_close(planes[:, 1, :1], batch.t1)
    there = (batch.label == ENHANCING)[:, 0].float()
    for channel, value in ((3, 0.9), (4, 0.8), (5, 0.7)):
        overlap = ((planes[:, 1, channel] > value / 2).float() * there).sum() / there.sum()
        assert overlap > 0.95
        assert float(planes[:, 1, channel].max()) == pytest.approx(value, abs=1e-3)
    assert bool((planes[:, :, 1].flatten(1).amax(1) == 0).any())  # a missing contrast takes no map with it
    assert float(planes[:, :, 3].flatten(1).amax(1).mean()) > 0.3


def test_weights_without_maps_can_be_gone_on_with(tiny_model: Path) -> None:
    """With the weights of a model without maps a network makes at first what that model makes, whatever the maps."""
    old = load_model(tiny_model)
    sizes = replace(old.card.recipe.network, maps=3)
    network = build_network(sizes).eval()
    start_from(network, tiny_model, sizes)
    generator = torch.Generator().manual_seed(0)
    side, context = 2 * sizes.stride, len(sizes.context)
    x, m = torch.randn(2, 1, 1, side, side, generator=generator)
    contrasts = torch.rand(1, context, 3, side, side, generator=generator)
    maps = torch.rand(1, context, 3, side, side, generator=generator)
    time = torch.tensor([500])
    with torch.inference_mode():
        expected = old.network(x, m, contrasts.flatten(1, 2), time)
        made = network(x, m, torch.cat([contrasts, maps], dim=2).flatten(1, 2), time)
    for one, other in zip(made, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_training_with_maps_wants_a_cache_that_has_them(place: Path, tmp_path: Path) -> None:
    """The way to get them is named; with them training runs."""
    shutil.copytree(place / "cache", tmp_path / "cache")
    options = TrainOptions(tmp_path / "cache", tmp_path / "run", iterations=1, batch=1, threads=1)
    for k in range(6):
        entry = open_entry(tmp_path / "cache", f"p{k}")
        bare = Prepared(entry.id, np.array(entry.scans), np.array(entry.regions), entry.labelled)
        write_entry(tmp_path / "cache", bare, entry_key(tmp_path / "cache", entry.id))
    with pytest.raises(D3MError, match="no maps of the whole-brain stage"):
        run_training(recipe_task("default", maps=True), options, _silent)
    add_maps(tmp_path / "cache", [place / f"fold{k}" for k in range(3)], _silent)
    assert run_training(recipe_task("default", maps=True), options, _silent).is_file()


def test_synthesis_gives_the_slices_their_maps(place: Path, tiny_model: Path, tiny_case: TinyCase) -> None:
    """Another whole-brain stage, another picture; and a card that wants maps without a stage is refused."""
    model = Path(shutil.copytree(tiny_model, place / "model"))
    finish_stage(place / "coarse", [place / f"fold{k}" for k in range(3)], str(model), _silent)
    loaded = load_model(model)
    card = loaded.card
    sizes = replace(card.recipe.network, maps=3)
    torch.manual_seed(0)
    network = build_network(sizes)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    card = replace(card, recipe=replace(card.recipe, network=sizes))
    save_model(model, card, network.state_dict())
    case = read_case(tiny_case.t1, tiny_case.t2, tiny_case.flair)
    options = SynthesisOptions(device="cpu", quality="preview")
    with_maps = load_model(model)
    first = Synthesis(with_maps, options).run(case)
    assert with_maps.whole_brain is not None
    with torch.no_grad():
        for member in with_maps.whole_brain.members:
            member.out.bias += 4.0
    second = Synthesis(with_maps, options).run(case)
    assert np.abs(first.cemri.astype(float) - second.cemri).max() > 1e-4 * np.ptp(first.cemri)
    with pytest.raises(D3MError, match=r"network\.maps needs a whole-brain stage"):
        Card.from_json(replace(card, whole_brain=None).to_json())
    two = replace(card, recipe=replace(card.recipe, network=replace(sizes, maps=2))).to_json()
    with pytest.raises(D3MError, match=r"network\.maps is neither 0 nor 3"):
        Card.from_json(two)
