"""Checkpoints as safetensors: whole or not at all, and exact."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from d3m.errors import D3MError
from d3m.system.storage import usual_rights, writing

SAVING = ".saving"
"""Folder for a file that is being written; what a kill leaves in it goes away with the next save."""
HASH = "sha256"
"""Entry of a file's metadata: hash of all else in it."""
OLDER_METADATA = frozenset(("iteration", "best", "score"))
"""All that a file of version 0.1 may say: one that says more, and has no hash, is damaged."""
KEEP = 2
"""Checkpoints kept: when the newest is damaged, the one before it serves."""


class Ema:
    """Exponential moving average of a network's weights (Polyak and Juditsky 1992).

    Args:
        network: Whose weights are followed; the average starts as a copy.
        decay: Share of the old average kept at each update, once warmed up.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, iteration: int) -> None:
        """Follow the network; early on the average forgets faster: decay is at most (1 + i) / (10 + i)."""
        decay = min(self.decay, (1 + iteration) / (10 + iteration))
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value, 1 - decay)
            else:
                self.weights[name].copy_(value)


@dataclass(frozen=True)
class Restored:
    """Where training resumes."""

    iteration: int
    best: float
    """Best validation score so far; minus infinity if there was none."""
    skipped: tuple[str, ...]
    """Names of damaged checkpoints that were passed over."""


def write_atomically(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file beside `path`, flush it to the disk, and rename it.

    Raises:
        D3MError: the disk is full or cannot be written; an older file of that name is untouched.
    """
    place = path.parent / SAVING  # the library leaves a file with a name of its own when it is killed
    partial = place / path.name
    try:
        with writing():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            try:
                kept = {k: v.detach().contiguous().cpu() for k, v in tensors.items()}
                save_file(kept, partial, metadata | {HASH: _content_hash(kept, metadata)})
            except SafetensorError as error:  # it wraps the system's error and keeps only its text
                raise D3MError(
                    f"The weights cannot be written ({error}).",
                    "Free some space or change the permissions; the training resumes from its last checkpoint.",
                    "machine",
                ) from error
            usual_rights(partial)  # safetensors makes it readable by its owner alone
            with partial.open("rb+") as f:
                os.fsync(f.fileno())
            partial.replace(path)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def read_checked(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file that `write_atomically` made.

    Raises:
        ValueError: its content is not what was written: a disk or a transfer has changed it.
        SafetensorError, OSError: it cannot be read at all.
    """
    with safe_open(path, "pt") as f:
        tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (not a mapping)
        metadata = dict(f.metadata() or {})
    written = metadata.pop(HASH, None)
    older = written is None and set(metadata) <= OLDER_METADATA  # before there was a hash
    if not older and written != _content_hash(tensors, metadata):
        raise ValueError("the content is not what was written")
    return tensors, metadata


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a file that `write_atomically` made, as they were written.

    Raises:
        D3MError: it is missing, or not what was written.
    """
    try:
        return read_checked(path)[0]
    except (SafetensorError, OSError, ValueError) as error:
        raise D3MError(
            f"The training's {path.name} is damaged or missing.",
            "Remove it, and continue the training: it is written again.",
        ) from error


def _content_hash(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_checkpoint(
    folder: Path, iteration: int, best: float, network: nn.Module, ema: Ema, optimizer: torch.optim.Optimizer
) -> Path:
    """Save everything that training needs to go on exactly.

    Noise, slices and dropout are functions of the seed and the iteration, so no random state has to be kept.
    """
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"ema.{name}": value for name, value in ema.weights.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value).clone() for key, value in state.items()}
    path = folder / f"checkpoint-{iteration:08d}.safetensors"
    write_atomically(path, tensors, {"iteration": str(iteration), "best": json.dumps(best)})
    for old in _checkpoints(folder)[:-KEEP]:
        old.unlink()
    return path


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*.safetensors"))


def restore_checkpoint(folder: Path, network: nn.Module, ema: Ema, optimizer: torch.optim.Optimizer) -> Restored | None:
    """Restore the newest whole checkpoint, or return None where there is none.

    A damaged one is passed over and named.

    Raises:
        D3MError: all of them are damaged, or they are of another network.
    """
    skipped: list[str] = []
    for path in reversed(_checkpoints(folder)):
        try:
            tensors, metadata = read_checked(path)
            iteration, best = int(metadata["iteration"]), float(json.loads(metadata["best"]))
        except (SafetensorError, OSError, TypeError, KeyError, ValueError, RuntimeError, OverflowError):
            skipped.append(path.name)
            continue
        try:
            network.load_state_dict(_part(tensors, "network."))
        except RuntimeError as error:
            raise D3MError(
                "The checkpoint in this folder is of another network.",
                "Choose the recipe it began with, or another --out.",
            ) from error
        ema.weights = _part(tensors, "ema.")
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in _part(tensors, "optimizer.").items():
            index, key = name.split(".", 1)
            states.setdefault(int(index), {})[key] = value
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": states, "param_groups": groups})
        return Restored(iteration, best, tuple(skipped))
    if skipped:
        raise D3MError(
            f"Every checkpoint is damaged ({', '.join(skipped)}).",
            "Remove them to start again, or choose another --out.",
        )
    return None


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
