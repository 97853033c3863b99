"""Models and sample case are found from an installed wheel, from Slicer's layout and from a checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import d3m
from engine.command_helpers import environment

CHECKOUT = Path(d3m.__file__).resolve().parents[2]


def run_sample(place: Path, out: Path, cwd: Path) -> None:
    """Run the sample case with the packages of `place`, far from the checkout."""
    env = environment(PYTHONPATH=str(place), D3M_MODELS=str(cwd / "none"))
    code = "import sys, d3m.commands.app as c; print(c.__file__, file=sys.stderr); c.main()"
    command = [sys.executable, "-c", code, "synthesize", "--example", "--quality", "preview", "--out", str(out)]
    done = subprocess.run(
        [*command, "--device", "cpu"], env=env, cwd=cwd, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(str(place))
    content = json.loads((out / "provenance.json").read_text(encoding="utf-8"))
    assert content["model"]["name"] == "default"
    assert "comparison.json" in content["files"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built without network and outside the checkout."""
    pytest.importorskip("hatchling")
    place = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "demo", "runs", "Testing")
    shutil.copytree(CHECKOUT, place / "source", ignore=ignored)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)]
    done = subprocess.run(command, cwd=place / "source", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = place.glob("*.whl")
    return built


def test_wheel_holds_what_is_needed_and_nothing_else(wheel: Path) -> None:
    """Engine, training, model, sample and licence; no test, cache or file of Slicer's; small enough to hand on."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    resources = {name.removeprefix("d3m/resources/") for name in names if name.startswith("d3m/resources/")}
    assert {"Models/default/card.json", "Models/default/weights.safetensors"} <= resources
    assert {f"SampleData/sample_{n}.nii.gz" for n in ("t1", "t2", "flair", "t1c", "seg")} <= resources
    assert {"d3m/py.typed", "d3m/commands/app.py", "d3m/batch/local.py", "d3m_training/py.typed"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"d3m", "d3m_training", "d3m_benchmark"}
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".ui"))]
    assert wheel.stat().st_size < 40e6


@pytest.mark.long
def test_wheel_installed_elsewhere_runs_the_sample(wheel: Path, tmp_path: Path) -> None:
    """Installed into another folder, the sample goes through the default model, and both commands are there."""
    place = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(place)]
    done = subprocess.run([*command, str(wheel)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    scripts = {path.stem for path in (place / ("Scripts" if os.name == "nt" else "bin")).iterdir()}
    assert {"d3m", "d3m-training", "d3m-benchmark"} <= scripts
    run_sample(place, tmp_path / "out", tmp_path)


@pytest.mark.long
def test_slicers_layout_runs_the_sample(tmp_path: Path) -> None:
    """As the extension is installed: `d3m` and `Resources` beside each other in one folder of modules."""
    place = tmp_path / "qt-scripted-modules"
    shutil.copytree(Path(d3m.__file__).parent, place / "d3m", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Models", "SampleData"):
        shutil.copytree(CHECKOUT / "Resources" / name, place / "Resources" / name)
    run_sample(place, tmp_path / "out", tmp_path)
