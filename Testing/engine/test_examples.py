"""What stands in `examples` runs as it stands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from conftest import TinyCase, write_case

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def environment(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The tiny model in the place of the one that ships."""
    models = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny_model, models / "default")
    path = os.pathsep.join(sys.path)
    return os.environ | {"D3M_MODELS": str(models), "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}


def run(name: str, *arguments: object, env: dict[str, str], cwd: Path) -> str:
    """Run an example as a user does."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_synthesise_and_its_deformation(environment: dict[str, str], tiny_case: TinyCase, tmp_path: Path) -> None:
    """The field is read with the length that the engine made."""
    scans = (tiny_case.t1, tiny_case.t2, tiny_case.flair)
    assert "Predicted enhancing tumour" in run("synthesise.py", *scans, "result", env=environment, cwd=tmp_path)
    text = run("deformation.py", "result", env=environment, cwd=tmp_path)
    field = np.asarray(nibabel.load(tmp_path / "result" / "deformation.nii.gz").dataobj)
    assert f"Longest displacement {np.linalg.norm(field, axis=-1).max():.2f} mm" in text
    assert (tmp_path / "result_moved.nii.gz").is_file()


def test_uncertainty(environment: dict[str, str], tiny_case: TinyCase, tmp_path: Path) -> None:
    """The uncertainty lies on T1's grid and is not zero in the brain."""
    run("uncertainty.py", tiny_case.t1, tiny_case.t2, tiny_case.flair, "s.nii.gz", env=environment, cwd=tmp_path)
    spread = nibabel.load(tmp_path / "s.nii.gz")
    np.testing.assert_array_equal(spread.affine, nibabel.load(tiny_case.t1).affine)
    assert np.asarray(spread.dataobj)[tiny_case.brain].mean() > 0


def test_notebook(environment: dict[str, str], tiny_case: TinyCase, tmp_path: Path) -> None:
    """Its cells run in order, with the paths of another patient in their place."""
    cells = json.loads((EXAMPLES / "first_steps.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert code[0].endswith("t1, t2, flair = sample.t1, sample.t2, sample.flair")
    code.insert(1, f"t1, t2, flair = {(str(tiny_case.t1), str(tiny_case.t2), str(tiny_case.flair))!r}")
    script = tmp_path / "notebook.py"
    script.write_text("\n".join(code), encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "synthetic" / "cemri.nii.gz").is_file()


@pytest.mark.long
def test_train(environment: dict[str, str], tmp_path: Path) -> None:
    """From a folder of patients to a model's folder."""
    for seed, (part, identifier) in enumerate((("train", "P1"), ("validation", "P2"))):
        write_case(tmp_path / "data" / part / identifier, identifier, seed=seed)
    text = run("train.py", tmp_path / "data", tmp_path / "work", 1, env=environment, cwd=tmp_path)
    assert "d3m synthesize --model" in text
    assert (tmp_path / "work" / "mine" / "card.json").is_file()
