"""The files for containers: what they copy exists, what they install is pinned, nobody is root, the command is ours.

No engine runs here.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

import d3m
from d3m.commands.app import app
from d3m.commands.bids import Level
from d3m.models.store import CARD_NAME, WEIGHTS_NAME, read_card
from d3m.options import SynthesisOptions
from engine.container_helpers import apptainer_sections, copied, dockerfile_steps, sent

ROOT = Path(__file__).parents[2]
STEPS = dockerfile_steps(ROOT / "Dockerfile")
APPTAINER = apptainer_sections(ROOT / "apptainer.def")
DESCRIPTOR = ROOT / "containers" / "boutiques.json"


def docker_sources() -> list[str]:
    """What the Dockerfile takes from the checkout."""
    return [source for step in STEPS if step.word == "COPY" and "--from" not in step.text for source in copied(step)[0]]


def apptainer_sources() -> list[str]:
    """What apptainer.def takes from the checkout."""
    return [line.split()[0] for line in APPTAINER["%files"]]


def tracked() -> list[str]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a checkout")
    return done.stdout.splitlines()


def installs(text: str) -> list[str]:
    """Calls of pip install."""
    return re.findall(r"pip install ([^&\n]*)", text)


def test_both_take_the_same_files_and_they_exist() -> None:
    assert sorted(docker_sources()) == sorted(apptainer_sources())
    for source in docker_sources():
        assert (ROOT / source).exists(), source


def test_what_is_copied_is_what_the_package_is_built_of() -> None:
    """Everything that pyproject.toml names for the wheel is copied and let through by .dockerignore."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    packages = re.search(r"^packages = \[(.*)\]", text, re.MULTILINE)
    assert packages
    included = re.findall(r'^"(Resources/\w+)" = ', text, re.MULTILINE)
    assert included
    needed = [*re.findall(r'"([^"]+)"', packages[1]), *included, "README.md", "LICENSE", "requirements.lock"]
    for name in needed:
        assert any(name == source or name.startswith(source + "/") for source in docker_sources()), name
        assert sent(ROOT, name), name


def test_weights_and_sample_are_inside() -> None:
    """The default model's files exist as the card says, and reach the build."""
    folder = ROOT / "Resources/Models/default"
    assert (folder / WEIGHTS_NAME).stat().st_size > 2**20
    names = [CARD_NAME, WEIGHTS_NAME] + (["whole_brain.safetensors"] if read_card(folder).whole_brain else [])
    for name in names:
        assert (folder / name).is_file()
        assert sent(ROOT, f"Resources/Models/default/{name}")
    assert sent(ROOT, "Resources/SampleData/sample_t1.nii.gz")


def test_nothing_else_is_sent() -> None:
    """Patients, results, environments and secrets that lie in a checkout stay out of the build."""
    for name in (
        "sub-01/anat/sub-01_T1w.nii.gz",
        "demo/cemri.nii.gz",
        ".venv/bin/python",
        ".git/config",
        ".env",
        "runs",
    ):
        assert not sent(ROOT, name), name
    assert not sent(ROOT, "D3MSynthesis/d3m/__pycache__/api.cpython-311.pyc")
    assert {name.split("/")[0] for name in tracked() if sent(ROOT, name)} == set(docker_sources())


@pytest.mark.parametrize("which", ["Dockerfile", "apptainer.def"])
def test_versions_are_those_of_the_lock_file(which: str) -> None:
    """Each call of pip is held to the lock file, and the program comes from the copied sources."""
    text = "\n".join(step.text for step in STEPS) if which == "Dockerfile" else "\n".join(APPTAINER["%post"])
    calls = installs(text)
    assert len(calls) == 3
    assert all("--constraint requirements.lock" in call for call in calls)
    assert any(call.strip().endswith("torch") for call in calls)
    assert '".[cluster]"' in calls[-1]
    assert re.search(r"^torch==", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE)


def test_user_is_not_root() -> None:
    """The last word on the user is a number other than 0, before the entry point and in the last stage."""
    last = max(step.stage for step in STEPS)
    users = [step for step in STEPS if step.word == "USER" and step.stage == last]
    assert users
    user, _, group = users[-1].text.partition(":")
    assert int(user) > 0
    assert int(group) > 0
    made = [step.text for step in STEPS if step.word == "RUN" and "useradd" in step.text]
    assert f"--uid {user}" in made[0]


def test_entry_point_is_the_command() -> None:
    """IN OUT participant are arguments of `d3m bids`, in both."""
    entries = [json.loads(step.text) for step in STEPS if step.word == "ENTRYPOINT"]
    assert entries == [["d3m", "bids"]]
    assert APPTAINER["%runscript"] == ['exec d3m bids "$@"']
    command: Any = typer.main.get_command(app)
    assert "bids" in command.commands
    paths = [step.text for step in STEPS if step.word == "ENV"] + APPTAINER["%environment"]
    assert all("/opt/d3m/bin:" in path for path in paths if "PATH=" in path and "unset" not in path)


def test_bases_are_the_same() -> None:
    (argument,) = [step.text for step in STEPS if step.word == "ARG" and step.stage == -1]
    assert argument in APPTAINER["%arguments"]


def test_bosh_accepts_the_descriptor(tmp_path: Path) -> None:
    """Boutiques' own check, which `bosh validate` runs; it refuses a descriptor that is broken."""
    bosh = pytest.importorskip("boutiques")
    refusal = pytest.importorskip("boutiques.validator").DescriptorValidationError
    bosh.validate(str(DESCRIPTOR))
    broken = json.loads(DESCRIPTOR.read_text(encoding="utf-8"))
    broken["command-line"] = broken["command-line"].replace("[LEVEL]", "")
    (tmp_path / "broken.json").write_text(json.dumps(broken), encoding="utf-8")
    with pytest.raises(refusal):
        bosh.validate(str(tmp_path / "broken.json"))


def test_descriptor_says_what_the_command_has() -> None:
    """Version, places, options, their choices, and which take several values."""
    told = json.loads(DESCRIPTOR.read_text(encoding="utf-8"))
    assert told["tool-version"] == d3m.__version__
    command: Any = typer.main.get_command(app)
    parameters = {one.name: one for one in command.commands["bids"].params}
    choices = {one.name: one.metadata["choices"] for one in fields(SynthesisOptions)}
    choices["level"] = tuple(level.value for level in Level)
    left_out = {"scheduler", "progress", "parent_pid", "help"}  # of a machine, not of an analysis
    assert {one["id"] for one in told["inputs"]} == set(parameters) - left_out
    for one in told["inputs"]:
        parameter = parameters[one["id"]]
        assert one["optional"] is not parameter.required, one["id"]
        if "command-line-flag" in one:
            assert one["command-line-flag"] in parameter.opts
        assert tuple(one.get("value-choices", ())) == choices.get(one["id"], ()), one["id"]
        assert one.get("list", False) is (parameter.multiple if "command-line-flag" in one else False), one["id"]
        assert (one["type"] == "Flag") is getattr(parameter, "is_flag", False), one["id"]


def test_simulated_invocation_is_understood(tmp_path: Path) -> None:
    """The command line that bosh makes is one that the program takes."""
    bosh = pytest.importorskip("boutiques")
    invocation = {"bids_dir": str(tmp_path), "output_dir": str(tmp_path / "out"), "level": "participant"}
    invocation |= {"quality": "preview", "dry_run": True, "seed": 3}
    (tmp_path / "call.json").write_text(json.dumps(invocation), encoding="utf-8")
    done = bosh.execute("simulate", str(DESCRIPTOR), "-i", str(tmp_path / "call.json"))
    words = done.stdout.strip().splitlines()[-1].split()
    assert words[:2] == ["d3m", "bids"]
    run = subprocess.run(
        [sys.executable, "-m", *words], capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path
    )
    assert run.returncode == 2
    assert "no such option" not in run.stderr.lower()
    assert "BIDS" in run.stderr + run.stdout  # an empty folder is no data set: the command began its work
