"""A model's folder may come from a stranger: whatever is in it, it is refused in a sentence or it is a model."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
import shutil
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d3m.errors import D3MError
from d3m.models.card import Card
from d3m.models.load import load_model
from d3m.models.store import find_model, import_model, list_models, read_card, remove_model

links = pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that may be damaged."""
    return Path(shutil.copytree(tiny_model, tmp_path / "given"))


def with_weights(folder: Path, content: bytes) -> None:
    """Put other weights there and let the card name them, so that the hash agrees."""
    (folder / "weights.safetensors").write_bytes(content)
    card = json.loads((folder / "card.json").read_text())
    card["weights_sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "card.json").write_text(json.dumps(card))


@links
@pytest.mark.parametrize("name", ["card.json", "weights.safetensors"])
def test_links_out_of_the_folder_are_not_followed(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither loading nor importing reads a file elsewhere through a model's folder."""
    monkeypatch.setenv("D3M_MODELS", str(tmp_path / "own"))
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    for act in (load_model, import_model):
        with pytest.raises(D3MError, match="link"):
            act(folder)
    assert not (tmp_path / "own").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_do_not_hang(folder: Path) -> None:
    """A named pipe in place of a file is refused, not waited for."""
    for name in ("weights.safetensors", "card.json"):
        (folder / name).unlink()
        os.mkfifo(folder / name)
        with pytest.raises(D3MError, match=name):
            load_model(folder)


def test_nothing_is_unpickled(folder: Path, tmp_path: Path) -> None:
    """A pickle under the name of the weights is not opened as one."""

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "exploded",)

    with_weights(folder, pickle.dumps(Bomb()))
    with pytest.raises(D3MError, match="cannot be read"):
        load_model(folder)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"[]",
        json.dumps({"x": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}).encode(),
        json.dumps({"x": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 0]}}).encode(),
        json.dumps({"x": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}}).encode(),
        json.dumps({"x": {"dtype": "Q1", "shape": [1], "data_offsets": [0, 1]}}).encode(),
        b"\xff" * 50,
    ],
)
def test_headers_that_lie(header: bytes, folder: Path) -> None:
    """Sizes that a header claims are compared with the file and the card before memory is taken for them."""
    for length in (len(header), 2**63, 2**20):
        with_weights(folder, struct.pack("<Q", length) + header + bytes(8))
        with pytest.raises(D3MError, match="weights"):
            load_model(folder)


NAMES = ["published", "compact", "../../x", "cosine", "step", "x0", "percentile", "dpmpp_2m"]
NUMBERS = [10**400, -1, 0, 2**31, 4097, 13]
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(NUMBERS),
    st.sampled_from(NAMES),
    st.lists(st.integers(-9, 5000), max_size=14),
    st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a JSON object."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_cards_changed_at_random(data: st.DataObject, tiny_model: Path) -> None:
    """Any value in any place: a sentence or a card that survives its own JSON, and never a network of absurd size."""
    content = json.loads((tiny_model / "card.json").read_text())
    for _ in range(data.draw(st.integers(1, 2))):
        *path, last = data.draw(st.sampled_from(places(content)[1:]))
        target = content
        for key in path:
            target = target[key]
        target[last] = data.draw(LEAVES)
    try:
        card = Card.from_json(json.dumps(content))
    except D3MError:
        return
    text = card.to_json()
    assert Card.from_json(text).to_json() == text
    assert max(card.recipe.network.widths) <= 4096


@pytest.mark.long
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_networks_of_other_sizes_are_refused(data: st.DataObject, tiny_model: Path, tmp_path_factory: Any) -> None:
    """A card that describes another network than its weights are for is refused, whatever sizes it names."""
    content = json.loads((tiny_model / "card.json").read_text())
    before = copy.deepcopy(content["recipe"]["network"])
    network = content["recipe"]["network"]
    widths = st.lists(st.sampled_from([8, 16, 24, 40, 64, 512, 2048]), min_size=2, max_size=8)
    network["architecture"] = data.draw(st.sampled_from(["compact", "published"]))
    network["widths"] = data.draw(widths)
    network["deformation_widths"] = data.draw(widths)
    network["blocks_per_level"] = data.draw(st.integers(1, 8))
    network["context"] = [0, *data.draw(st.lists(st.integers(-50, 50), max_size=6))]
    network["deformation_inputs"] = data.draw(
        st.lists(st.sampled_from(["mask", "image", "t1"]), min_size=1, max_size=3)
    )
    if network == before:
        return
    folder = tmp_path_factory.mktemp("sizes")
    shutil.copy(tiny_model / "weights.safetensors", folder)
    (folder / "card.json").write_text(json.dumps(content))
    with pytest.raises(D3MError):
        load_model(folder)


@links
def test_removing_a_linked_model_leaves_its_target(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who linked a model into the own folder loses the link alone."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "linked").symlink_to(tiny_model)
    monkeypatch.setenv("D3M_MODELS", str(own))
    assert "linked" in [entry.name for entry in list_models()]
    assert read_card(find_model("linked")).name == "tiny"
    remove_model("linked")
    assert (tiny_model / "card.json").is_file()
    assert "linked" not in [entry.name for entry in list_models()]
