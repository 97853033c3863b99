"""Cards, the store and loading: a model folder is data from strangers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from d3m.errors import D3MError
from d3m.models import store
from d3m.models.card import Card
from d3m.models.load import load_model, save_model
from d3m.models.recipes import RECIPES
from d3m.models.store import file_sha256, find_model, import_model, list_models, read_card, remove_model
from d3m.system.manifest import MANIFEST


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for imported models."""
    monkeypatch.setenv(store.MODELS_VARIABLE, str(tmp_path / "own"))
    return tmp_path / "own"


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that may be damaged."""
    return Path(shutil.copytree(tiny_model, tmp_path / "copy" / "tiny"))


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_card_survives_json(name: str) -> None:
    """Every recipe comes back from the card exactly: velocities, warp placement, sizes, normalisation."""
    card = Card("m", "Title Ö", RECIPES[name], "a" * 64, mask_threshold=0.35, extra={"note": "x"})
    assert Card.from_json(card.to_json()) == card


def _damage(copy: Path, change: object) -> None:
    content = json.loads((copy / "card.json").read_text())
    change(content)  # type: ignore[operator]
    (copy / "card.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(schema_version=99), "version 99"),
        (lambda c: c.pop("recipe"), "lacks recipe"),
        (lambda c: c.update(surprise=1), "surprise"),
        (lambda c: c.update(name="../../etc"), "card.name"),
        (lambda c: c.update(weights_sha256="zz"), "SHA-256"),
        (lambda c: c.update(mask_threshold=1.5), "mask_threshold"),
        (lambda c: c.update(slice_sigma=-0.1), "slice_sigma"),
        (lambda c: c.update(mask_threshold="high"), "str, not float"),
        (lambda c: c.update(contrasts=["t2", "t1", "flair"]), "contrasts"),
        (lambda c: c["recipe"]["network"].update(widths=[10**9, 10**9]), "widths"),
        (lambda c: c["recipe"]["network"].update(widths=[8] * 100), "widths"),
        (lambda c: c["recipe"]["network"].update(context=[-1, 1]), "context"),
        (lambda c: c["recipe"]["network"].update(blocks_per_level=10**6), "blocks_per_level"),
        (lambda c: c["recipe"]["network"].update(architecture="os.system"), "architecture"),
        (lambda c: c["recipe"]["diffusion"].update(timesteps=-1), "timesteps"),
        (lambda c: c["recipe"]["diffusion"].update(warp="nowhere"), "warp"),
        (lambda c: c["recipe"]["diffusion"].update(mask_amplitude=0), "scale out of range"),
        (lambda c: c["recipe"]["grid"].update(percentiles=[99, 1]), "percentiles"),
        (lambda c: c["recipe"]["grid"].update(size=10**6), "size"),
        (lambda c: c["recipe"].update(qualities=[]), "qualities"),
        (lambda c: c["recipe"].update(network=[]), "not an object"),
    ],
)
def test_bad_cards_are_refused_by_name(copy: Path, change: object, message: str) -> None:
    """Whatever is wrong with a card is named, before a network is built from it."""
    _damage(copy, change)
    with pytest.raises(D3MError, match=message):
        load_model(copy)


def test_cards_that_are_no_cards(copy: Path) -> None:
    """Not JSON, not an object, huge, not UTF-8, deeply nested: one sentence each."""
    for content in (b"{", b"[]", b"\xff\xfe", b"x" * 2_000_000, b"[" * 100_000):
        (copy / "card.json").write_bytes(content)
        with pytest.raises(D3MError, match="card"):
            read_card(copy)
    (copy / "card.json").unlink()
    with pytest.raises(D3MError, match="cannot be read"):
        read_card(copy)


def _repoint(copy: Path) -> None:
    """Let the card name the weights that are there, so that the check behind the hash is reached."""
    digest = file_sha256(copy / "weights.safetensors")
    _damage(copy, lambda c: c.update(weights_sha256=digest))


def test_changed_weights_are_noticed(copy: Path) -> None:
    """A single changed byte, a cut file, or a missing one."""
    path = copy / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(D3MError, match="do not match their card"):
        load_model(copy)
    path.unlink()
    with pytest.raises(D3MError, match=r"no weights\.safetensors"):
        load_model(copy)


def test_weights_of_another_network(copy: Path) -> None:
    """Missing, additional, misshapen or oddly typed weights, NaN, and files that are not safetensors at all."""
    path = copy / "weights.safetensors"
    good = load_file(path)
    first = sorted(good)[0]
    for bad in (
        {k: v for k, v in good.items() if k != first},
        good | {"extra": torch.zeros(1)},
        good | {first: torch.zeros(3, 3, 3)},
        good | {first: good[first].to(torch.int32)},
        good | {first: torch.full_like(good[first], float("nan"))},
    ):
        save_file(bad, path)
        _repoint(copy)
        with pytest.raises(D3MError, match="weights"):
            load_model(copy)
    import pickle

    for content in (b"", pickle.dumps({"a": 1}), (2**62).to_bytes(8, "little") + b"{}"):
        path.write_bytes(content)
        _repoint(copy)
        with pytest.raises(D3MError, match="cannot be read"):
            load_model(copy)


def test_weights_come_back_as_float32(tiny_model: Path) -> None:
    """Stored in half precision, loaded in single, in evaluation mode."""
    model = load_model(tiny_model)
    stored = load_file(tiny_model / "weights.safetensors")
    assert {v.dtype for v in stored.values()} == {torch.float16}
    for name, value in model.network.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, stored[name].float())
    assert not model.network.training


def test_training_only_weights_are_not_shipped(tiny_model: Path, tmp_path: Path) -> None:
    """The auxiliary head stays in the training; the exported model loads without it."""
    from d3m.diffusion.networks.slice import build_network

    card = read_card(tiny_model)
    sizes = replace(card.recipe.network, auxiliary_regions=2)
    network = build_network(sizes)
    assert any(name.startswith("auxiliary.") for name in network.state_dict())
    card = replace(card, recipe=replace(card.recipe, network=sizes))
    save_model(tmp_path / "m", card, network.state_dict())
    assert not any(name.startswith("auxiliary.") for name in load_file(tmp_path / "m" / "weights.safetensors"))
    load_model(tmp_path / "m")


def test_export_over_an_older_model_keeps_its_notes(tiny_model: Path, copy: Path) -> None:
    """Replacing weights and card leaves TRAINING.md where it is; a failed export changes nothing."""
    (copy / "TRAINING.md").write_text("notes")
    before = (copy / "card.json").read_bytes()
    model = load_model(tiny_model)
    with pytest.raises(D3MError):
        save_model(copy, replace(model.card, name="Not A Name"), model.network.state_dict())
    assert (copy / "card.json").read_bytes() == before
    save_model(copy, replace(model.card, title="New"), model.network.state_dict())
    assert read_card(copy).title == "New"
    assert (copy / "TRAINING.md").read_text() == "notes"
    assert [p.name for p in copy.parent.iterdir()] == ["tiny"]


def test_import_list_remove(tiny_model: Path, own_folder: Path) -> None:
    """An imported model is found by its name, cannot be imported twice, and can be removed again."""
    entry = import_model(tiny_model)
    assert find_model("tiny") == own_folder / "tiny" == entry.folder
    assert sorted(p.name for p in own_folder.rglob("*") if p.is_file()) == [
        MANIFEST,
        "card.json",
        "weights.safetensors",
    ]
    with pytest.raises(D3MError, match="already"):
        import_model(tiny_model)
    remove_model("tiny")
    assert "tiny" not in [m.name for m in list_models()]
    with pytest.raises(D3MError, match="no model 'tiny'"):
        find_model("tiny")


def test_import_takes_nothing_but_card_and_weights(copy: Path, own_folder: Path, tmp_path: Path) -> None:
    """Other files, folders and links of the folder stay behind; a damaged model leaves nothing."""
    (copy / "evil.py").write_text("raise SystemExit")
    (copy / "link").symlink_to("/etc")
    import_model(copy)
    assert sorted(p.name for p in (own_folder / "tiny").iterdir()) == [MANIFEST, "card.json", "weights.safetensors"]
    remove_model("tiny")
    (copy / "weights.safetensors").write_bytes(b"short")
    with pytest.raises(D3MError):
        import_model(copy)
    assert list(own_folder.iterdir()) == []


def test_shipped_models_cannot_be_removed(own_folder: Path) -> None:
    """The default model ships; only imported ones go away."""
    with pytest.raises(D3MError, match="ships"):
        remove_model("default")


def test_unknown_model_names_those_that_are_there(own_folder: Path, tmp_path: Path) -> None:
    """The message lists what can be chosen; a folder without a card says so."""
    with pytest.raises(D3MError, match=r"no model 'nosuch'.*default"):
        find_model("nosuch")
    with pytest.raises(D3MError, match=r"no card\.json"):
        find_model(str(tmp_path))


def test_default_model_is_sound() -> None:
    """The model that ships loads, fits its card, is small, and says what it was trained on and may be used for."""
    folder = find_model()
    model = load_model(folder)
    assert (folder / "weights.safetensors").stat().st_size <= 25_000_000
    card = model.card
    assert card.recipe == replace(RECIPES["default"], qualities=card.recipe.qualities)
    for text in (card.data, card.training, card.limits, card.licence, card.citation, card.expected):
        assert len(text) > 20
    assert "CC BY-NC 4.0" in card.licence
    assert "research" in card.intended_use.lower()
    assert {row.name for row in card.validation} >= {"psnr_brain", "psnr_tumour", "dice", "false_positive_ml"}
    assert len(card.patients) == 13
