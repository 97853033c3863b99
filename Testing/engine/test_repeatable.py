"""The same request gives the same bytes: across commands, numbers of threads and workers, and scarce memory."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from conftest import TinyCase
from engine.bids_helpers import bids_dataset
from engine.command_helpers import environment

IMAGES = {
    "cemri": "desc-synthT1c_T1w",
    "subtraction": "desc-synthSubtraction_T1w",
    "enhancement_mask": "label-enhancement_mask",
    "enhancement_probability": "label-enhancement_probseg",
    "deformation": "desc-synthT1c_xfm",
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BIDS data set with two participants."""
    return bids_dataset(tmp_path_factory.mktemp("repeat") / "raw", "01", "02")


def run(threads: int, *arguments: object) -> None:
    """A command of its own, with so many threads."""
    variables = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-m", "d3m", *map(str, arguments), "--device", "cpu", "--seed", "7"],
        env=environment(**variables), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def voxels(path: Path) -> np.ndarray:
    """An image as it is stored."""
    return np.asanyarray(nibabel.load(path).dataobj)


@pytest.mark.long
def test_one_promise_for_all_commands(raw: Path, tiny_model: Path, tmp_path: Path) -> None:
    """`synthesize` with one thread and with three, `batch` with two, `bids` with two workers: the same bytes."""
    anat = raw / "sub-01/anat"
    scans = {
        name: anat / f"sub-01_{suffix}.nii.gz" for name, suffix in (("t1", "T1w"), ("t2", "T2w"), ("flair", "FLAIR"))
    }
    model = ("--model", tiny_model, "--quality", "standard")
    given = [part for name, path in scans.items() for part in (f"--{name}", path)]
    run(1, "synthesize", *given, "--out", tmp_path / "one", *model)
    run(3, "synthesize", *given, "--out", tmp_path / "three", *model)
    (tmp_path / "cases").mkdir()
    for name, path in scans.items():
        shutil.copy(path, tmp_path / f"cases/p_{name}.nii.gz")
    run(2, "batch", tmp_path / "cases", "--out", tmp_path / "batch", *model)
    run(1, "bids", raw, tmp_path / "bids", "participant", "--n-jobs", 2, *model)
    for name, ending in IMAGES.items():
        expected = (tmp_path / f"one/{name}.nii.gz").read_bytes()
        others = [tmp_path / f"three/{name}.nii.gz", tmp_path / f"batch/p/{name}.nii.gz",
                  tmp_path / f"bids/sub-01/anat/sub-01_{ending}.nii.gz"]  # fmt: skip
        for other in others:
            assert other.read_bytes() == expected, other
    assert np.ptp(voxels(tmp_path / "one/deformation.nii.gz")) > 0


def test_what_decides_the_bits_stands_in_the_provenance(tiny_case: TinyCase, tiny_model: Path, tmp_path: Path) -> None:
    """Whoever wants the same bits again reads there what to keep: versions, device, number format, slices a call."""
    import json

    given = [part for name in ("t1", "t2", "flair") for part in (f"--{name}", getattr(tiny_case, name))]
    run(2, "synthesize", *given, "--out", tmp_path / "out", "--model", tiny_model, "--quality", "preview")
    content = json.loads((tmp_path / "out/provenance.json").read_text())
    known = content["settings"] | content.get("computation", {})
    assert known["seed"] == 7
    assert known["batch"] == 2  # a pair of slices, whatever the number of threads
    assert known["device"] == "cpu"
    assert known["precision"] in ("float32", "bfloat16")
    assert {"torch", "numpy", "machine", "processor"} <= content["platform"].keys()
