"""The training loop, top to bottom: one process here, any number of GPUs through accelerate."""

from __future__ import annotations

import csv
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from d3m.errors import D3MError
from d3m.system.folders import check_place_of_work
from d3m.system.locks import held
from d3m.system.storage import replace_text, writing
from d3m.system.text import read_object
from d3m_training.data.drawing import Source
from d3m_training.train.checkpoint import Ema, restore_checkpoint, save_checkpoint, write_atomically
from d3m_training.train.losses import LossTerms

LOCK_NAME = ".d3m-train.lock"
RUN_NAME = "run.json"
"""Says what a training is."""
MOST_SKIPPED = 10
"""Iterations without a finite gradient that one start of a training forgives."""


@dataclass(frozen=True)
class TrainSettings:
    """How long and how fast a model is trained."""

    iterations: int = 8000
    learning_rate: float = 1e-3
    deformation_rate: float = 1.0
    """Learning rate of the deformation module, relative to the others'."""
    constant_rate: bool = False
    """The published way; otherwise 500 iterations of warm-up, then a cosine to 1 % of the rate."""
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0
    """Largest norm of the gradient."""
    ema: float = 0.999
    seed: int = 0
    log_every: int = 50
    save_every: int = 500
    validate_every: int = 1000
    """0: never."""


def learning_rate(settings: TrainSettings, iteration: int) -> float:
    """The rate at an iteration: a function of it alone, so that a resumed run has the same."""
    if settings.constant_rate:
        return settings.learning_rate
    warm = min(500, max(settings.iterations // 10, 1))
    if iteration < warm:
        return settings.learning_rate * (iteration + 1) / warm
    share = min((iteration - warm) / max(settings.iterations - warm, 1), 1.0)
    return settings.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2)


@contextmanager
def training_in(folder: Path, description: Mapping[str, object]) -> Iterator[None]:
    """Keep other trainings out of a folder, and write down what this one is.

    Of several processes of one training (`accelerate launch`, `torchrun`) the first does it for all.

    Args:
        folder: Of the training; made where it is missing.
        description: Content of its `RUN_NAME`.

    Raises:
        D3MError: another training is running there; it holds somebody's files; it cannot be written.
    """
    if not is_first_process():
        yield
        return
    check_place_of_work(folder, _is_run(folder), "a training", "--out")
    with writing():
        folder.mkdir(parents=True, exist_ok=True)
    with held(folder / LOCK_NAME, "Another training is running in this folder."), writing():
        replace_text(folder / RUN_NAME, json.dumps(description, indent=1) + "\n")
        yield


def _is_run(folder: Path) -> bool:
    """Whether a training was begun in a folder: by this program, not by another that has a `RUN_NAME`, too."""
    try:
        return isinstance(read_object(folder / RUN_NAME, "The description of the training").get("train"), dict)
    except D3MError:
        return False


def is_first_process() -> bool:
    """Whether this is the only process of a training, or the first of them."""
    return int(os.environ.get("RANK", "0")) == 0


def train(
    module: nn.Module,
    batches: Source[Any],
    settings: TrainSettings,
    folder: Path,
    validate: Callable[[dict[str, torch.Tensor], int], float] | None = None,
    report: Callable[[str], None] = print,
) -> Path:
    """Train, and go on from the newest checkpoint in `folder` if there is one.

    Args:
        module: Its forward pass takes (batch, generator) and returns `LossTerms`; its `network` is what is trained.
        batches: Where slices come from; batch i of process p of P has the number i P + p.
        settings: How long and how fast.
        folder: For checkpoints, logs and the best weights; outside the source tree.
        validate: Takes averaged weights and the iteration; returns a score, larger is better, NaN is never best.
        report: Gets a line for a person now and then.

    Returns:
        The averaged weights: the best by validation where there was any, else the last.

    Raises:
        D3MError: training diverged; the disk is full; every checkpoint is damaged or of another network.
    """
    folder.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(mixed_precision="no")  # the module casts its convolutions itself; equations stay float32
    network: nn.Module = module.network  # type: ignore[assignment]
    optimizer = torch.optim.AdamW(
        _parameter_groups(network, settings), lr=settings.learning_rate, betas=settings.betas,
        weight_decay=settings.weight_decay,
    )  # fmt: skip
    module, optimizer = accelerator.prepare(module, optimizer)
    ema = Ema(network, settings.ema)
    restored = restore_checkpoint(folder, network, ema, optimizer.optimizer)
    iteration, best = (restored.iteration, restored.best) if restored else (0, -math.inf)
    tell = report if accelerator.is_main_process else _silent
    if restored:
        tell(f"resumed at iteration {iteration}" + "".join(f"; {name} is damaged" for name in restored.skipped))
    log = _Log(folder, accelerator.is_main_process)
    started, first = time.monotonic(), iteration
    last_path, best_path = folder / "last.safetensors", folder / "best.safetensors"
    module.train()
    processes, own, skipped = accelerator.num_processes, accelerator.process_index, 0
    numbers = range(iteration * processes + own, settings.iterations * processes, processes)
    for number, drawn in zip(numbers, batches.ahead(numbers), strict=True):
        torch.manual_seed(settings.seed * 1_000_003 + number)  # dropout
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + number)
        batch = drawn.to(accelerator.device)
        rate = learning_rate(settings, iteration)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["relative_rate"]
        terms: LossTerms = module(batch, generator)
        accelerator.backward(terms.total)
        norm = accelerator.clip_grad_norm_(network.parameters(), settings.clip)
        if norm is None or math.isfinite(norm):
            optimizer.step()
        else:  # a step would spoil all weights; bfloat16 convolutions of oneDNN gave such a gradient once in thousands
            skipped += 1
            tell(f"iteration {iteration + 1} has a gradient that is not finite; it is left out")
            if skipped > MOST_SKIPPED:
                raise D3MError(
                    "Training has diverged: its gradients are not finite.",
                    "Start it again with a lower learning rate; its last checkpoint is whole.",
                )
        optimizer.zero_grad()
        ema.update(network, iteration)
        iteration += 1
        log.add(terms)
        if iteration % settings.log_every == 0:
            seconds = (time.monotonic() - started) / (iteration - first)
            remaining = seconds * (settings.iterations - iteration)
            means = log.write(iteration, rate)
            tell(f"{iteration}/{settings.iterations}  {means}  {seconds:.2f} s/it  {_clock(remaining)} left")
        ended = iteration == settings.iterations
        if validate and settings.validate_every and (iteration % settings.validate_every == 0 or ended):
            score = validate(ema.weights, iteration) if accelerator.is_main_process else -math.inf
            if score > best:  # False for NaN
                best = score
                write_atomically(best_path, ema.weights, {"iteration": str(iteration), "score": f"{score:.6f}"})
        if (iteration % settings.save_every == 0 or ended) and accelerator.is_main_process:
            save_checkpoint(folder, iteration, best, network, ema, optimizer.optimizer)
            write_atomically(last_path, ema.weights, {"iteration": str(iteration)})
    log.close()
    return best_path if best > -math.inf else last_path


def _silent(_: str) -> None:
    """What the first process says, the others need not say again."""


def _parameter_groups(network: nn.Module, settings: TrainSettings) -> list[dict[str, object]]:
    """The deformation module apart, with its own rate."""
    field = [p for name, p in network.named_parameters() if name.startswith("deformation.")]
    rest = [p for name, p in network.named_parameters() if not name.startswith("deformation.")]
    groups = [(rest, 1.0), (field, settings.deformation_rate)]
    return [{"params": params, "relative_rate": rate} for params, rate in groups if params]


def _clock(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"


class _Log:
    """Means of the terms since the last line, as CSV and for TensorBoard."""

    def __init__(self, folder: Path, active: bool) -> None:
        self._sums: dict[str, float] = {}
        self._count = 0
        self._path = folder / "log.csv" if active else None
        self._board = None
        if active:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:  # the CSV has the same numbers
                return
            self._board = SummaryWriter(str(folder / "tensorboard"))

    def add(self, terms: LossTerms) -> None:
        for field in fields(terms):  # type: ignore[arg-type]
            self._sums[field.name] = self._sums.get(field.name, 0.0) + float(getattr(terms, field.name).detach())
        self._count += 1

    def write(self, iteration: int, rate: float) -> str:
        means = {name: value / self._count for name, value in self._sums.items()}
        self._sums, self._count = {}, 0
        if self._path is not None:
            new = not self._path.exists()
            with self._path.open("a", newline="", encoding="utf-8") as f:
                writer = csv.writer(f)
                if new:
                    writer.writerow(["iteration", "rate", *means])
                writer.writerow([iteration, f"{rate:.6g}", *(f"{v:.6g}" for v in means.values())])
        if self._board is not None:
            for name, value in means.items():
                self._board.add_scalar(name, value, iteration)
        return "  ".join(f"{name} {value:.4f}" for name, value in means.items())

    def close(self) -> None:
        if self._board is not None:
            self._board.close()
