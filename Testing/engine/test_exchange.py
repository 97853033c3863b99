"""Export as ONNX, MONAI bundle and Hugging Face folder: others can use it, and it comes back as the same model."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from conftest import TinyCase
from d3m.commands.app import app
from d3m.diffusion.networks.slice import build_network
from d3m.diffusion.networks.whole_brain import WholeBrainEnsemble
from d3m.diffusion.recipe import REGIONS, WholeBrainSizes
from d3m.diffusion.sampler import Condition, State, reverse, to_intensity, to_probability
from d3m.diffusion.schedule import make_schedule
from d3m.errors import D3MError
from d3m.models import store
from d3m.models.card import Card, ValidationRow, ValidationWithout, WholeBrain
from d3m.models.exchange import FORMATS, export_model
from d3m.models.load import load_model, save_model
from d3m.models.recipes import PAPER
from d3m.models.store import import_model, read_card
from d3m.system.manifest import file_sha256

SCHEMA = Path(__file__).with_name("data") / "meta_schema_20240725.json"
"""MONAI's schema for a bundle's metadata, unchanged but for white space (Project-MONAI/MONAI-extra-test-data, release
0.8.1; Apache-2.0): `verify_metadata` would download it."""


@pytest.fixture
def named(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model with a licence and numbers on its card."""
    card = replace(
        read_card(tiny_model),
        licence="CC BY-NC 4.0, research use only",
        limits="Not for <b>anybody</b>.",
        validation=(ValidationRow("psnr_brain", 20.1, 1.0, 3, 19.0), ValidationRow("auc_et", 0.75, 0.1, 3)),
        optional_contrasts=("t2",),
        validation_without=(ValidationWithout("t2", (ValidationRow("psnr_brain", 18.4, 1.0, 3, 19.0),)),),
        patient_validation=(ValidationRow("volume_error_ml", 7.5, 2.0, 9),),
    )
    folder = tmp_path / "named"
    save_model(folder, card, load_file(tiny_model / "weights.safetensors"))
    return folder


@pytest.fixture
def full(tiny_model: Path, tmp_path: Path) -> Path:
    """A model with all that a model may have: ADC and SWI, a whole-brain stage, and its maps for the slices."""
    torch.manual_seed(3)
    stage = WholeBrainEnsemble(WholeBrainSizes((8, 16)), 2)
    card = read_card(tiny_model)
    sizes = replace(card.recipe.network, further=2, maps=3)
    network = build_network(sizes)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    recipe, whole_brain = replace(card.recipe, network=sizes), WholeBrain("0" * 64, WholeBrainSizes((8, 16)), 2)
    card = replace(card, recipe=recipe, whole_brain=whole_brain, contrasts=("t1", "t2", "flair", "adc", "swi"))
    save_model(tmp_path / "full", card, network.state_dict(), stage.state_dict())
    return tmp_path / "full"


@pytest.mark.parametrize("which", ["named", "full"])
@pytest.mark.parametrize("format_name", sorted(FORMATS))
def test_an_export_comes_back_as_the_same_model(
    format_name: str, which: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights bit for bit, and the same card; `--model` takes the export's folder, too."""
    named: Path = request.getfixturevalue(which)
    if format_name == "onnx":
        pytest.importorskip("onnxruntime")
    monkeypatch.setenv(store.MODELS_VARIABLE, str(tmp_path / "own"))
    out = tmp_path / "export"
    export_model(str(named), out, format_name)
    assert read_card(store.find_model(str(out))) == read_card(named)
    entry = import_model(out)
    assert file_sha256(entry.folder / "weights.safetensors") == file_sha256(named / "weights.safetensors")
    if which == "full":
        stages = [file_sha256(folder / "whole_brain.safetensors") for folder in (entry.folder, named)]
        assert stages[0] == stages[1]
    assert load_model("tiny").card == read_card(named)


def test_an_export_is_replaced_only_if_asked_and_unchanged(tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "export"
    arguments = ["models", "export", str(tiny_model), str(out), "--format", "huggingface"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert "--force" in CliRunner().invoke(app, arguments).output
    assert CliRunner().invoke(app, [*arguments, "--force"]).exit_code == 0
    (out / "README.md").write_text("mine")
    refused = CliRunner().invoke(app, [*arguments, "--force"])
    assert refused.exit_code == 2
    assert "was changed" in refused.output
    assert (out / "README.md").read_text() == "mine"


def test_an_onnx_file_alone_is_no_model(tmp_path: Path) -> None:
    """A graph has no card of ours and no weights by name: the sentence says what to give instead."""
    (tmp_path / "step.onnx").write_bytes(b"graph")
    with pytest.raises(D3MError, match="Give the folder"):
        import_model(tmp_path / "step.onnx")


def _run_onnx(path: Path, model: Path, slices: int, rows: int, columns: int) -> list[float]:
    """Largest differences of each output over a whole reverse process of three steps, from our own sampler's."""
    onnxruntime = pytest.importorskip("onnxruntime")
    loaded = load_model(model)
    recipe, stride = loaded.card.recipe, loaded.card.recipe.network.stride
    shape = (slices, 1, rows * stride, columns * stride)
    torch.manual_seed(5)
    x, m = torch.randn(2, *shape)
    condition = torch.rand(slices, recipe.network.condition_channels, *shape[2:])
    t1, brain = torch.rand(shape), torch.rand(shape) > 0.3
    timesteps = recipe.diffusion.timesteps
    pairs = [(timesteps, timesteps // 2), (timesteps // 2, 7), (7, 0)]
    schedule = make_schedule(recipe.diffusion.schedule, timesteps)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    used = {one.name for one in session.get_inputs()}
    state, differences = [x.numpy(), m.numpy()], [0.0]
    with torch.inference_mode():
        scans = Condition(condition, t1, brain)
        for step in reverse(loaded.network, State(x, m), scans, pairs, schedule, recipe.diffusion):
            given = (*state, condition.numpy(), t1.numpy(), brain.float().numpy(), *np.full((2, slices), 0))
            inputs = dict(zip(("x_t", "m_t", "condition", "t1", "brain", "t", "s"), given, strict=True))
            inputs = {name: value for name, value in inputs.items() if name in used}
            inputs |= {"t": np.full(slices, step.t), "s": np.full(slices, step.s)}
            found = session.run(["x_s", "m_s", "image", "mask_probability", "displacement"], inputs)
            e = step.estimate
            expected = (
                step.state.x,
                step.state.m,
                to_intensity(e.x0, recipe.diffusion),
                to_probability(e.m0, recipe.diffusion),
                e.displacement,
            )
            differences += [float(np.abs(a.numpy() - b).max()) for a, b in zip(expected, found, strict=True)]
            assert float(e.displacement.abs().max()) > 0.01  # else the warp would not be in the comparison
            state = found[:2]
    return differences


def test_onnx_steps_are_the_samplers_own(tiny_model: Path, tmp_path: Path) -> None:
    """Three steps in onnxruntime, on sizes that it was not traced with, end where our sampler ends."""
    pytest.importorskip("onnxruntime")
    assert "reverse_step.onnx" in {path.name for path in _exported(tiny_model, tmp_path, "onnx").iterdir()}
    for size in ((1, 3, 4), (5, 2, 3)):
        assert max(_run_onnx(tmp_path / "export" / "reverse_step.onnx", tiny_model, *size)) < 1e-3


def test_onnx_of_the_published_network(tmp_path: Path) -> None:
    """Attention and the older equations are exported as well."""
    pytest.importorskip("onnxruntime")
    sizes = replace(PAPER.network, widths=(8, 8, 16), deformation_widths=(8, 8))
    torch.manual_seed(1)
    network = build_network(sizes)
    torch.nn.init.normal_(network.deformation.flow.weight, std=0.2)  # type: ignore[union-attr, arg-type]
    card = Card("published", "Published", replace(PAPER, network=sizes), "0" * 64)
    save_model(tmp_path / "published", card, network.state_dict())
    folder = _exported(tmp_path / "published", tmp_path, "onnx")
    assert max(_run_onnx(folder / "reverse_step.onnx", tmp_path / "published", 2, 3, 2)) < 1e-3


def _exported(model: Path, tmp_path: Path, format_name: str) -> Path:
    export_model(str(model), tmp_path / "export", format_name)
    return tmp_path / "export"


def test_monai_accepts_and_runs_the_bundle(named: Path, tiny_case: TinyCase, tmp_path: Path) -> None:
    """`verify_metadata` finds no error (and finds one where there is one); the inference configuration synthesises."""
    bundle = pytest.importorskip("monai.bundle")
    folder = _exported(named, tmp_path, "monai")
    metadata = folder / "configs" / "metadata.json"
    bundle.verify_metadata(meta_file=str(metadata), filepath=str(SCHEMA))
    content = json.loads(metadata.read_text())
    assert content["eval_metrics"] == {"psnr_brain": 20.1, "auc_et": 0.75}
    del content["task"]
    (tmp_path / "bad.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="task"):
        bundle.verify_metadata(meta_file=str(tmp_path / "bad.json"), filepath=str(SCHEMA))
    bundle.run(
        config_file=str(folder / "configs" / "inference.json"),
        bundle_root=str(folder),
        t1=str(tiny_case.t1),
        t2=str(tiny_case.t2),
        flair=str(tiny_case.flair),
        output_dir=str(tmp_path / "made"),
    )
    made = json.loads((tmp_path / "made" / "provenance.json").read_text())
    assert made["model"]["weights_sha256"] == read_card(named).weights_sha256
    logging.getLogger("monai").setLevel(logging.WARNING)


def test_all_that_a_model_takes_is_exported(full: Path, tiny_case: TinyCase, tmp_path: Path) -> None:
    """The graph has room for ADC, SWI and maps, and equals the sampler; MONAI's bundle describes and takes them."""
    pytest.importorskip("onnxruntime")
    bundle = pytest.importorskip("monai.bundle")
    graph = _exported(full, tmp_path / "onnx", "onnx")
    assert max(_run_onnx(graph / "reverse_step.onnx", full, 3, 3, 4)) < 1e-3
    assert "whole-brain stage, which is not in the graph" in (graph / "README.md").read_text()
    assert "from T1, T2, FLAIR, ADC and SWI" in (graph / "README.md").read_text()
    folder = _exported(full, tmp_path / "monai", "monai")
    bundle.verify_metadata(meta_file=str(folder / "configs" / "metadata.json"), filepath=str(SCHEMA))
    described = json.loads((folder / "configs" / "metadata.json").read_text())["network_data_format"]["inputs"]
    channels = described["condition"]["channel_def"]
    assert [channels[str(k)].split()[0] for k in range(8)] == ["t1", "t2", "flair", "adc", "swi", *REGIONS]
    assert described["condition"]["num_channels"] == 3 * 8
    adc = tmp_path / "adc.nii.gz"
    image = nibabel.load(tiny_case.t2)
    values = np.random.default_rng(0).uniform(400, 900, image.shape) * tiny_case.brain
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), image.affine), adc)
    given = {name: str(getattr(tiny_case, name)) for name in ("t1", "t2", "flair")}
    bundle.run(
        config_file=str(folder / "configs" / "inference.json"),
        bundle_root=str(folder),
        **given,
        adc=str(adc),
        quality="preview",
        output_dir=str(tmp_path / "made"),
    )
    made = json.loads((tmp_path / "made" / "provenance.json").read_text())
    assert set(made["inputs"]) == {"t1", "t2", "flair", "adc"}
    assert made["missing"] == ["swi"]
    logging.getLogger("monai").setLevel(logging.WARNING)


@pytest.mark.parametrize("form", ["onnx", "monai", "huggingface"])
def test_the_readme_has_every_table_of_the_card(form: str, named: Path, tmp_path: Path) -> None:
    """With all scans, without T2, and whether and how much enhances."""
    (readme,) = _exported(named, tmp_path, form).rglob("README.md")
    parts = dict(part.split("\n", 1) for part in readme.read_text(encoding="utf-8").split("\n## ")[1:])
    assert "| psnr_brain | 20.100 | 1.000 | 3 |" in parts["Validation"]
    assert "| psnr_brain | 18.400 | 1.000 | 3 |" in parts["Validation without T2"]
    assert "| volume_error_ml | 7.500 | 2.000 | 9 |" in parts["Whether and how much enhances"]


def test_the_hub_reads_the_model_card(named: Path, tmp_path: Path) -> None:
    """Front matter as huggingface_hub parses it; what a card says is no markup."""
    hub = pytest.importorskip("huggingface_hub")
    folder = _exported(named, tmp_path, "huggingface")
    card = hub.ModelCard.load(folder / "README.md")
    assert card.data.license == "cc-by-nc-4.0"
    assert card.data.library_name == "slicer-d3m"
    assert "research-only" in card.data.tags
    assert card.data.metrics == ["psnr", "roc_auc"]
    assert {(r.metric_type, r.metric_value) for r in card.data.eval_results} == {("psnr", 20.1), ("roc_auc", 0.75)}
    assert "&lt;b&gt;anybody" in card.text
    assert "<b>" not in card.text
