"""Cards, provenance and tables from strangers, changed at random: refused with a sentence, never a crash."""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import TinyCase
from d3m import metrics
from d3m.batch.cases import find_cases
from d3m.diffusion.networks.slice import build_network
from d3m.errors import D3MError
from d3m.models.card import Card
from d3m.models.recipes import RECIPES
from d3m.results.provenance import RESULT, read_provenance
from d3m.system.folders import check_output
from engine.command_helpers import ENGINE, d3m_command, environment, events

pytestmark = pytest.mark.long

T = TypeVar("T")
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**400), 10**400)
    | st.integers(-3, 3000)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["compact", "published", "v", "x0", "ddim", "mask"]),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=9,
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to everything in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, v in inner for place in _places(v, (*path, key))]


def _sentence_or(call: Callable[[], T]) -> T | None:
    """What the call returns, or None if it refused with a sentence and a way out."""
    refused: D3MError
    try:
        return call()
    except D3MError as error:
        refused = error
    assert refused.message
    assert refused.hint
    assert refused.exit_code == 2
    return None


CARDS = [json.loads(Card("m", "M", recipe, "a" * 64, extra={"a": "b"}).to_json()) for recipe in RECIPES.values()]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_changed_cards_are_refused_or_can_be_built(data: st.DataObject) -> None:
    """With any value in any place a card is refused with a sentence, or describes a network of sane size."""
    import torch

    content = copy.deepcopy(data.draw(st.sampled_from(CARDS)))
    for _ in range(data.draw(st.integers(1, 2))):
        *parents, last = data.draw(st.sampled_from(_places(content)))
        target = content
        for key in parents:
            target = target[key]
        target[last] = data.draw(json_values)
    card = _sentence_or(lambda: Card.from_json(json.dumps(content)))
    if card is None:
        return
    assert 0 < card.mask_threshold < 1
    assert math.isfinite(card.recipe.diffusion.image_upper)
    try:
        with torch.device("meta"):
            network = build_network(card.recipe.network)
    except ValueError:
        return  # `load_model` makes a sentence of it
    assert sum(p.numel() for p in network.parameters()) < 20e9


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=json_values | st.fixed_dictionaries({"files": json_values}))
def test_strange_provenance_is_no_whole_result(content: Any, tmp_path: Path) -> None:
    """Whatever JSON lies there, the folder does not count as a whole result, and is not replaced with what is in it."""
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    (out / "thesis.txt").write_text("years of work")
    (out / "provenance.json").write_text(json.dumps(content))
    assert read_provenance(out) is None
    with pytest.raises(D3MError, match="will not be replaced"):
        check_output(out, RESULT, force=True)


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b"\xff", b"", b'{"files": {"/dev/zero": {"bytes": 0}, "cemri.nii.gz": {"bytes": 0}}}']
)
def test_provenance_that_is_no_json(content: bytes, tmp_path: Path) -> None:
    """Deep nesting, other encodings, an empty file, and a path to a device that never ends."""
    (tmp_path / "provenance.json").write_bytes(content)
    assert read_provenance(tmp_path) is None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200) | st.text("t12flair,id\n\r\"';\0é/.", max_size=80).map(str.encode))
def test_strange_tables_are_refused_or_name_cases(content: bytes, tmp_path: Path) -> None:
    """A table of anything is refused with a sentence, or gives cases whose ids are safe as names of folders."""
    table = tmp_path / "cases.csv"
    table.write_bytes(b"t1,t2,flair,id\n" + content)
    cases = _sentence_or(lambda: find_cases(table)) or []
    assert all(case.id == Path(case.id).name != "" for case in cases)


@pytest.mark.parametrize("package", ["scipy", "nibabel", "safetensors"])
def test_any_foreign_package_is_named(package: str, tiny_case: TinyCase, tiny_model: Path, tmp_path: Path) -> None:
    """Another program's package before ours ends with 3 and PYTHONPATH in the sentence, not with a traceback."""
    (tmp_path / "fake").mkdir()
    (tmp_path / f"fake/{package}.py").write_text("raise ImportError('built for another Python')\n")
    env = environment(PYTHONPATH=os.pathsep.join([str(tmp_path / "fake"), ENGINE]))
    scans = ["--t1", tiny_case.t1, "--t2", tiny_case.t2, "--flair", tiny_case.flair, "--model", tiny_model]
    done = d3m_command("synthesize", *scans, "--out", tmp_path / "out", "--progress", "json", env=env)
    assert done.returncode == 3, done.stderr
    last = events(done.stdout)[-1]
    assert last["kind"] == "machine"
    assert "built for another Python" in str(last["message"])
    assert str(tmp_path / "fake") in str(last["hint"])
    assert "Traceback" not in done.stderr


def test_foreign_torch_names_the_variable(tmp_path: Path) -> None:
    """A torch that comes from PYTHONPATH and does not work: the folder and the variable are named."""
    (tmp_path / "torch.py").write_text("raise OSError('wrong architecture')\n")
    code = "from d3m.system.console import require_torch; require_torch()"
    env = environment(PYTHONPATH=os.pathsep.join([str(tmp_path), ENGINE]))
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert f"It is taken from {tmp_path}, because the environment variable PYTHONPATH" in done.stderr


@pytest.mark.parametrize("encoding", ["cp1252", "ascii:strict"])
def test_any_console_encoding(encoding: str, tiny_case: TinyCase, tiny_model: Path, tmp_path: Path) -> None:
    """A console that cannot show the folder's name does not turn a good run into an error."""
    scans = ["--t1", tiny_case.t1, "--t2", tiny_case.t2, "--flair", tiny_case.flair, "--model", tiny_model]
    out = tmp_path / "結果"
    done = d3m_command(
        "synthesize", *scans, "--out", out, "--quality", "preview", env=environment(PYTHONIOENCODING=encoding)
    )
    assert done.returncode == 0, done.stderr
    assert (out / "provenance.json").is_file()
    assert "figure.png" in done.stdout


def test_similarity_is_that_of_the_whole_slice() -> None:
    """SSIM near the brain equals the map computed over the whole field of view, also at the picture's border."""
    rng = np.random.default_rng(1)
    x, y, z = np.ogrid[:60, :70, :5]
    brain = np.broadcast_to((x - 12) ** 2 + (y - 50) ** 2 < 300, (60, 70, 5)) & (z > 0)
    real = np.where(brain, rng.random(brain.shape), 0)
    image = np.where(brain, real + rng.normal(0, 0.1, brain.shape), 0)
    tumour = brain & ((x - 10) ** 2 + (y - 45) ** 2 < 40)
    found = metrics.similarity(image, real, metrics.regions(brain, tumour, tumour))
    whole = metrics.ssim_map(image, real)
    assert found.ssim_brain == pytest.approx(whole[brain].mean(), abs=1e-6)
    assert found.ssim_tumour == pytest.approx(whole[tumour].mean(), abs=1e-6)
    nothing = np.zeros_like(brain)
    assert np.isnan(metrics.similarity(image, real, metrics.regions(nothing, nothing, nothing)).ssim_brain)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_export_to_a_full_disk_leaves_nothing(tiny_model: Path, tmp_path: Path) -> None:
    """A model that does not fit on the disk, or whose place does not exist, ends with a sentence and leaves nothing."""
    code = (
        "import resource, signal, sys; from pathlib import Path; from d3m.models.load import load_model, save_model\n"
        f"model = load_model(Path({str(tiny_model)!r})); signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        "save_model(Path(sys.argv[1]), model.card, model.network.state_dict())"
    )
    for place in (tmp_path / "out", tmp_path / "nosuch/out"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(place)], env=environment(), capture_output=True, text=True, check=False
        )
        assert "D3MError: The model cannot be written" in done.stderr.splitlines()[-1]
        assert list(tmp_path.iterdir()) == []
