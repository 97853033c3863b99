"""Tiny cases and models that many tests share."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny volumes gain nothing from threads and lose much on a busy machine

import nibabel
import numpy as np
import pytest
from scipy import ndimage

gc.set_threshold(50_000)  # hundreds of modules are loaded: at the usual pace garbage is looked for all the time

SHAPE = (48, 56, 40)
AFFINE = np.array([[-1.0, 0, 0, 24], [0, -1.0, 0, 28], [0, 0, 1.0, -20], [0, 0, 0, 1]])
"""LPS at 1 mm, as BraTS is."""


@dataclass(frozen=True)
class TinyCase:
    """Files of a small simulated brain with a ring-enhancing lesion."""

    folder: Path
    t1: Path
    t2: Path
    flair: Path
    t1c: Path
    seg: Path
    brain: np.ndarray
    """(X, Y, Z) bool."""


def tiny_volumes(seed: int = 0) -> dict[str, np.ndarray]:
    """t1, t2, flair, t1c and seg (BraTS until 2021) on `SHAPE`; background 0."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    brain = (x / 0.8) ** 2 + (y / 0.85) ** 2 + (z / 0.8) ** 2 < 1
    white = (x / 0.5) ** 2 + (y / 0.55) ** 2 + (z / 0.5) ** 2 < 1
    fluid = (np.abs(x) < 0.08) & (np.abs(y) < 0.3) & (np.abs(z) < 0.2)
    radius = np.sqrt(((x - 0.3) * 24) ** 2 + ((y + 0.2) * 28) ** 2 + ((z - 0.1) * 20) ** 2)
    seg = np.select([radius < 3, radius < 6, radius < 9], [1, 4, 2], 0)
    tissue = np.select([fluid, seg == 1, seg == 4, seg == 2, white], [0, 1, 2, 3, 4], 5)
    levels = {  # fluid, necrosis, rim, oedema, white, grey
        "t1": (60, 90, 220, 240, 420, 300),
        "t2": (900, 700, 420, 520, 190, 290),
        "flair": (60, 240, 420, 560, 260, 340),
        "t1c": (60, 100, 700, 250, 430, 310),
    }
    volumes: dict[str, np.ndarray] = {}
    for name, values in levels.items():
        image = ndimage.gaussian_filter(np.take(np.array(values, float), tissue), 0.6)
        image = image * (1 + 0.1 * y) + rng.normal(0, 6, SHAPE)
        volumes[name] = np.where(brain, np.maximum(image, 1), 0).astype(np.float32)
    volumes["seg"] = np.where(brain, seg, 0).astype(np.uint8)
    return volumes


def write_case(folder: Path, identifier: str = "case", seed: int = 0) -> TinyCase:
    """Write the tiny volumes with BraTS names."""
    folder.mkdir(parents=True, exist_ok=True)
    volumes = tiny_volumes(seed)
    paths = {}
    for name, suffix in (("t1", "t1"), ("t2", "t2"), ("flair", "flair"), ("t1c", "t1ce"), ("seg", "seg")):
        paths[name] = folder / f"{identifier}_{suffix}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(volumes[name], AFFINE), paths[name])
    return TinyCase(folder, **paths, brain=volumes["t1"] > 0)


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Files are not forced onto the disk in this process, which takes a third of the tests' time; children do it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def tiny_case(tmp_path_factory: pytest.TempPathFactory) -> TinyCase:
    """A small simulated brain on disk; do not change its files."""
    return write_case(tmp_path_factory.mktemp("case") / "case")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an untrained model that is small enough to run in a blink; its field is not zero."""
    import torch

    from d3m.diffusion.networks.slice import build_network
    from d3m.diffusion.recipe import NetworkSizes, Sampling
    from d3m.models.card import Card
    from d3m.models.load import save_model
    from d3m.models.recipes import DEFAULT

    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = NetworkSizes(widths=(8, 16), context=(-1, 0, 1), deformation_widths=(8, 8))
    network = build_network(sizes)
    for name, value in network.named_parameters():
        if "head" in name or "flow" in name:
            torch.nn.init.normal_(value, std=0.05)
    recipe = replace(
        DEFAULT, network=sizes, qualities=(Sampling(steps=1), Sampling(steps=3), Sampling(steps=2, samples=3))
    )
    folder = tmp_path_factory.mktemp("models") / "tiny"
    card = Card("tiny", "Tiny untrained model", recipe, "0" * 64, mask_threshold=0.5)
    save_model(folder, card, network.state_dict())
    return folder


@pytest.fixture(scope="session")
def able_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a card that says that T2 or FLAIR may be missing."""
    from d3m.models.load import load_model, save_model

    model = load_model(tiny_model)
    folder = tmp_path_factory.mktemp("able") / "able"
    card = replace(model.card, name="able", optional_contrasts=("t2", "flair"))
    save_model(folder, card, model.network.state_dict())
    return folder
