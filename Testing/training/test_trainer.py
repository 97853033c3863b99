"""The training loop: what a night's training must not lose."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from d3m.diffusion.networks.slice import build_network
from d3m.diffusion.recipe import DiffusionRecipe, NetworkSizes
from d3m.errors import D3MError
from d3m_training.data.batches import Batches, BatchSettings
from d3m_training.data.cache import ENHANCING, NECROSIS, OEDEMA, Entry, Prepared, open_entry, write_entry
from d3m_training.train.checkpoint import Ema, restore_checkpoint, save_checkpoint
from d3m_training.train.d3m import Drawn, Loss, NetworkWithLoss, Terms
from d3m_training.train.published import StepLoss, VelocityLoss
from d3m_training.train.rolled import RolledLoss
from d3m_training.train.trainer import TrainSettings, learning_rate, train

SIZES = NetworkSizes(widths=(8, 16), context=(-1, 0, 1), auxiliary_regions=2, deformation_widths=(8, 8))
PUBLISHED_RANGE = {"image_skip": False, "image_upper": 1.0, "mask_amplitude": 1.0}
SETTINGS = TrainSettings(iterations=6, log_every=2, save_every=3, validate_every=0)


def _entry(folder: Path, name: str, labelled: bool = True, enhancing: bool = True) -> Entry:
    """A brain that is a disc with a ring-enhancing disc in it."""
    rng = np.random.default_rng(len(name))
    y, x = np.mgrid[:32, :40]
    brain = np.broadcast_to(np.hypot(y - 16, x - 20) < 14, (6, 32, 40))
    radius = np.broadcast_to(np.hypot(y - 14, x - 24), brain.shape)
    label = np.select([radius < 3, radius < 5, radius < 8], [NECROSIS, ENHANCING if enhancing else OEDEMA, OEDEMA], 0)
    scans = rng.uniform(0.3, 0.6, (6, 4, 32, 40)) * brain[:, None]
    scans[:, 3][label == ENHANCING] = 1.4
    regions = np.stack([brain, label if labelled else 0 * label], axis=1).astype(np.uint8)
    write_entry(folder, Prepared(name, scans.astype(np.float16), regions, labelled), "key")
    return open_entry(folder, name)


def _batches(folder: Path, **changes: object) -> Batches:
    entries = [_entry(folder, "a"), _entry(folder, "bb", labelled=False), _entry(folder, "ccc", enhancing=False)]
    settings = BatchSettings(size=4, crop=16, context=SIZES.context, min_brain_voxels=10)
    return Batches(entries, replace(settings, **changes), seed=3)  # type: ignore[arg-type]


def _module(loss: Loss | None = None, recipe: DiffusionRecipe | None = None, dropout: float = 0.1) -> NetworkWithLoss:
    torch.manual_seed(5)
    network = build_network(SIZES, dropout)
    return NetworkWithLoss(network, recipe or DiffusionRecipe(), loss or RolledLoss(), torch.float32)


def _quiet(_: str) -> None:
    """Nobody listens."""


def test_a_given_mask_is_held_where_it_is_known(tmp_path: Path) -> None:
    """At later times the mask's stream is the noised truth of labelled slices; others, and the first time, stay."""
    from d3m.diffusion.sampler import Condition, State
    from d3m.diffusion.schedule import diffuse

    module = _module()
    batch = replace(_batches(tmp_path / "cache").draw(0), labelled=torch.tensor([1.0, 0.0, 1.0, 0.0]))
    torch.manual_seed(0)
    x0, m0, eps, eps_mask, rolled = (torch.randn(4, 1, 16, 16) for _ in range(5))
    condition = Condition(batch.condition, batch.t1, batch.brain > 0)
    drawn = Drawn(module.recipe, module.schedule, batch, condition, x0, m0, m0, eps, eps_mask)

    def state(share: float, seed: int) -> tuple[torch.Tensor, State]:
        loss = RolledLoss(rolled_steps=(2,), truth_share=0.0, given_mask_share=share)
        generator = torch.Generator().manual_seed(seed)
        return loss.state(drawn, lambda *_: State(rolled, rolled), generator)

    times = [int(state(1.0, seed)[0][0]) for seed in range(8)]
    first, later = times.index(module.recipe.timesteps), times.index(min(times))
    assert times[later] < times[first]
    t, held = state(1.0, later)
    true = diffuse(m0, eps_mask, module.schedule.at(t))
    for k, known in enumerate((True, False, True, False)):
        assert torch.equal(held.m[k], true[k] if known else rolled[k])
    assert torch.equal(held.x, rolled)
    assert torch.equal(state(0.0, later)[1].m, rolled)
    assert torch.equal(state(1.0, first)[1].m, eps_mask)


class _BadGradient(torch.nn.Module):
    """The square of one weight, with a gradient that is not a number in the given calls."""

    def __init__(self, bad: set[int]) -> None:
        super().__init__()
        self.network = torch.nn.Linear(1, 1, bias=False)
        self.bad, self.calls = bad, 0

    def forward(self, _: object, __: torch.Generator) -> Terms:
        weight = self.network.weight.sum()
        # the root of zero has an infinite slope, and infinity times zero is not a number: the loss stays finite
        harm = torch.sqrt(0 * weight) if self.calls in self.bad else 0 * weight
        self.calls += 1
        return Terms(weight.square() + harm, *(weight.detach() for _ in range(8)))


def test_one_bad_gradient_spoils_no_weights(tmp_path: Path) -> None:
    """An iteration whose gradient is not finite is left out, and said; the others count. If most are so, training ends
    with a sentence, and what it wrote before is whole."""
    batches = _batches(tmp_path / "cache")
    torch.manual_seed(0)
    module, lines = _BadGradient({2}), list[str]()
    before = float(module.network.weight.detach())
    weights = load_file(train(module, batches, SETTINGS, tmp_path / "once", report=lines.append))
    assert abs(float(module.network.weight.detach())) < abs(before)
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert [line for line in lines if "not finite" in line] == [
        "iteration 3 has a gradient that is not finite; it is left out"
    ]
    long = replace(SETTINGS, iterations=20)
    with pytest.raises(D3MError, match="diverged"):
        train(_BadGradient(set(range(4, 20))), batches, long, tmp_path / "often", report=_quiet)
    kept = load_file(tmp_path / "often" / "last.safetensors")
    assert all(torch.isfinite(value).all() for value in kept.values())


def test_resumed_training_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    """Whoever stops a training in the middle gets the same weights, averages and optimiser state in the end."""
    batches = _batches(tmp_path / "cache")
    train(_module(), batches, SETTINGS, tmp_path / "whole", report=_quiet)

    class StoppedError(Exception):
        """The machine went down."""

    def stop(_: dict[str, torch.Tensor], iteration: int) -> float:
        if iteration == 4:
            raise StoppedError
        return math.nan

    with pytest.raises(StoppedError):
        train(_module(), batches, replace(SETTINGS, validate_every=1), tmp_path / "resumed", stop, report=_quiet)
    lines: list[str] = []
    train(_module(), batches, SETTINGS, tmp_path / "resumed", report=lines.append)
    assert lines[0].startswith("resumed at iteration 3")
    name = "checkpoint-00000006.safetensors"
    whole, resumed = load_file(tmp_path / "whole" / name), load_file(tmp_path / "resumed" / name)
    assert whole.keys() == resumed.keys()
    assert any(key.startswith("optimizer.") for key in whole)
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key


def test_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path) -> None:
    """A newest checkpoint cut short by a full disk costs some iterations, not the training."""
    batches = _batches(tmp_path / "cache")
    train(_module(), batches, SETTINGS, tmp_path / "run", report=_quiet)
    newest = tmp_path / "run" / "checkpoint-00000006.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1000])
    lines: list[str] = []
    train(_module(), batches, SETTINGS, tmp_path / "run", report=lines.append)
    assert lines[0] == "resumed at iteration 3; checkpoint-00000006.safetensors is damaged"
    newest.write_bytes(b"")
    (tmp_path / "run" / "checkpoint-00000003.safetensors").write_bytes(b"x")
    with pytest.raises(D3MError, match="damaged"):
        train(_module(), batches, SETTINGS, tmp_path / "run", report=_quiet)


def test_killed_while_saving_keeps_the_older_checkpoint(tmp_path: Path) -> None:
    """kill -9 in the middle of a save leaves no half checkpoint under a whole one's name."""
    code = """
import os, signal, sys
from pathlib import Path
import d3m_training.train.checkpoint as c
real = c.save_file
def slow(tensors, path, metadata):
    real(tensors, path, metadata)
    if int(metadata["iteration"]) == 2:
        Path(path).write_bytes(Path(path).read_bytes()[:100])
        os.kill(os.getpid(), signal.SIGKILL)
c.save_file = slow
import torch
network = torch.nn.Linear(2, 2)
optimizer = torch.optim.AdamW(network.parameters())
network(torch.ones(1, 2)).sum().backward(); optimizer.step()
for i in (1, 2):
    c.save_checkpoint(Path(sys.argv[1]), i, 0.0, network, c.Ema(network, 0.9), optimizer)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert done.returncode == -signal.SIGKILL
    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(network.parameters())
    restored = restore_checkpoint(tmp_path, network, Ema(network, 0.9), optimizer)
    assert restored is not None
    assert (restored.iteration, restored.skipped) == (1, ())


def test_best_is_never_chosen_by_nan(tmp_path: Path) -> None:
    """Validation patients without enhancement give no Dice; such a score must not win."""
    scores = iter([0.3, math.nan, 0.2])
    best = train(
        _module(), _batches(tmp_path / "cache"), replace(SETTINGS, validate_every=2), tmp_path / "run",
        lambda weights, iteration: next(scores), report=_quiet,
    )  # fmt: skip
    assert best.name == "best.safetensors"
    from safetensors import safe_open

    with safe_open(best, "pt") as f:
        assert f.metadata()["iteration"] == "2"


def test_patients_without_enhancement_or_labels_train(tmp_path: Path) -> None:
    """Twenty steps on patients two of whom have no enhancing voxel: every term stays finite."""
    folder = tmp_path / "cache"
    entries = [_entry(folder, "a", labelled=False), _entry(folder, "bb", enhancing=False)]
    batches = Batches(entries, BatchSettings(size=2, crop=16, context=SIZES.context, min_brain_voxels=10), seed=0)
    train(_module(), batches, replace(SETTINGS, iterations=20), tmp_path / "run", report=_quiet)
    rows = (tmp_path / "run" / "log.csv").read_text().splitlines()
    assert len(rows) == 11
    assert all(math.isfinite(float(value)) for row in rows[1:] for value in row.split(","))


@pytest.mark.parametrize(
    ("loss", "recipe"),
    [
        (RolledLoss(), DiffusionRecipe()),
        (
            VelocityLoss(),
            DiffusionRecipe(training_warp="velocity", warp_mask=True, **PUBLISHED_RANGE),
        ),
        (
            StepLoss(),
            DiffusionRecipe(image_velocity="v_step", training_warp="step", **PUBLISHED_RANGE),
        ),
    ],
    ids=["default", "paper", "step-warp"],
)  # fmt: skip
def test_each_recipe_learns(tmp_path: Path, loss: Loss, recipe: DiffusionRecipe) -> None:
    """Every recipe's loss falls on a batch that it sees again and again, and its field's module gets gradients."""
    module = _module(loss, recipe, dropout=0.0)
    batch = _batches(tmp_path / "cache").draw(0)
    optimizer = torch.optim.Adam(module.parameters(), 2e-3)
    values = []
    for _ in range(60):
        terms = module(batch, torch.Generator().manual_seed(1))
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
        values.append(float(terms.total.detach()))
    assert values[-1] < 0.8 * values[0]
    flow = module.network.deformation.flow.weight.grad  # type: ignore[union-attr]
    assert flow.abs().sum() > 0


def test_learning_rate_is_a_function_of_the_iteration() -> None:
    """Warm-up from a small rate to the full one, then down to one per cent; the published way stays constant."""
    settings = TrainSettings(iterations=10_000)
    assert learning_rate(settings, 0) == pytest.approx(1e-3 / 500)
    assert learning_rate(settings, 500) == pytest.approx(1e-3)
    assert learning_rate(settings, 5250) == pytest.approx(1e-3 * 0.505, rel=1e-3)
    assert learning_rate(settings, 10_000) == pytest.approx(1e-5)
    assert learning_rate(replace(settings, constant_rate=True), 7) == 1e-3


def test_average_follows_the_weights() -> None:
    """After many equal updates the average is the weights; one update moves it by one minus the decay."""
    network = torch.nn.Linear(1, 1)
    with torch.no_grad():
        network.weight.fill_(0.0)
    ema = Ema(network, 0.9)
    with torch.no_grad():
        network.weight.fill_(1.0)
    ema.update(network, iteration=10_000)
    assert float(ema.weights["weight"]) == pytest.approx(0.1)
    for _ in range(200):
        ema.update(network, iteration=10_000)
    assert float(ema.weights["weight"]) == pytest.approx(1.0, abs=1e-6)


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    """A long training does not fill the disk."""
    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(network.parameters())
    for iteration in range(4):
        save_checkpoint(tmp_path, iteration, 0.0, network, Ema(network, 0.9), optimizer)
    assert [p.name for p in sorted(tmp_path.iterdir())] == [f"checkpoint-{k:08d}.safetensors" for k in (2, 3)]


def test_batches_drawn_ahead_are_the_same(tmp_path: Path) -> None:
    """Threads that draw ahead change neither a batch nor the order."""
    batches = _batches(tmp_path / "cache")
    for number, batch in enumerate(batches.ahead(range(5))):
        expected = batches.draw(number)
        assert torch.equal(batch.condition, expected.condition)
        assert torch.equal(batch.target, expected.target)
