"""Training in several processes, as `accelerate launch` starts them: the same gradient as in one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from d3m_training.data.preparation import PrepareOptions, prepare_cache
from training.data_helpers import write_patient

pytestmark = pytest.mark.long

SCRIPT = '''
"""One iteration of training in the folder given; in as many processes as were started."""
import sys
from pathlib import Path

import numpy as np
import torch

from d3m.diffusion.networks.slice import build_network
from d3m.diffusion.recipe import DiffusionRecipe, NetworkSizes
from d3m_training.data.batches import Batches, BatchSettings
from d3m_training.data.cache import ENHANCING, Prepared, open_entry, write_entry
from d3m_training.train.d3m import NetworkWithLoss
from d3m_training.train.rolled import RolledLoss
from d3m_training.train.trainer import TrainSettings, train

SIZES = NetworkSizes(widths=(8, 16), context=(-1, 0, 1), auxiliary_regions=2, deformation_widths=(8, 8))


def pieces(folder):
    """The module and the batches: the same in every process."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :40]
    brain = np.broadcast_to(np.hypot(y - 16, x - 20) < 14, (6, 32, 40))
    label = np.where(np.broadcast_to(np.hypot(y - 14, x - 24), brain.shape) < 5, ENHANCING, 0)
    scans = rng.uniform(0.3, 0.6, (6, 4, 32, 40)) * brain[:, None]
    regions = np.stack([brain, label], axis=1).astype(np.uint8)
    if not folder.exists():
        write_entry(folder, Prepared("a", scans.astype(np.float16), regions, True), "key")
    torch.manual_seed(5)
    module = NetworkWithLoss(build_network(SIZES, 0.1), DiffusionRecipe(), RolledLoss(), torch.float32)
    return module, Batches([open_entry(folder, "a")], BatchSettings(size=2, crop=16, context=SIZES.context,
                                                                   min_brain_voxels=10), seed=3)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    module, batches = pieces(folder / "cache")
    settings = TrainSettings(iterations=1, clip=1e9, weight_decay=0, log_every=1, save_every=1, validate_every=0)
    train(module, batches, settings, folder / "run", report=lambda _: None)
'''


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _moments(run: Path) -> dict[str, torch.Tensor]:
    """What the optimiser saw: after one step its first moment is a tenth of the gradient."""
    state = load_file(run / "checkpoint-00000001.safetensors")
    return {key: value for key, value in state.items() if key.startswith("optimizer.") and key.endswith("exp_avg")}


def _launch(*command: str) -> str:
    """Run something in two processes; what they said."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "1",
    }
    launch = ["-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={_port()}"]
    done = subprocess.run(
        [sys.executable, *launch, *command], capture_output=True, text=True, timeout=240, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed part")
def test_two_processes_have_the_gradient_of_one(tmp_path: Path) -> None:
    """Two processes (gloo) with a batch each step along the mean of both batches' gradients, reckoned here in one."""
    script = tmp_path / "training_once.py"
    script.write_text(SCRIPT, encoding="utf-8")
    sys.path.insert(0, str(tmp_path))
    try:
        import training_once
    finally:
        sys.path.remove(str(tmp_path))
    module, batches = training_once.pieces(tmp_path / "cache")
    numbers = range(2)
    for number, batch in zip(numbers, batches.ahead(numbers), strict=True):
        torch.manual_seed(number)  # as the trainer seeds dropout and noise: by the batch's number
        terms = module(batch, torch.Generator().manual_seed(number))
        (terms.total / 2).backward()
    wanted = {name: p.grad for name, p in module.network.named_parameters() if p.grad is not None}

    _launch(str(script), str(tmp_path))
    moments = _moments(tmp_path / "run")
    assert len(moments) == len(wanted)
    found = sorted((value * 10 for value in moments.values()), key=lambda t: (t.numel(), float(t.double().norm())))
    expected = sorted(wanted.values(), key=lambda t: (t.numel(), float(t.double().norm())))
    assert max(float(value.abs().max()) for value in expected) > 1e-4
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed part")
def test_command_runs_in_two_processes(tmp_path: Path) -> None:
    """The second process is not taken for another training in the folder; one of them speaks and saves."""
    for name in "ab":
        write_patient(tmp_path / "data" / "train", name)
    cache = tmp_path / "cache"
    prepare_cache([tmp_path / "data"], cache, PrepareOptions(workers=1), lambda _: None)
    options = ["--iterations", "1", "--batch", "1", "--validate-every", "0", "--threads", "1"]
    said = _launch("-m", "d3m_training", "train", "--cache", str(cache), "--out", str(tmp_path / "run"), *options)
    assert said.count("2 patients") == 1
    assert (tmp_path / "run" / "checkpoint-00000001.safetensors").is_file()
