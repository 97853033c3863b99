"""Card and weights to a network ready to run, and back to a folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from d3m.diffusion.networks.slice import build_network
from d3m.diffusion.networks.whole_brain import WholeBrainEnsemble
from d3m.errors import D3MError
from d3m.models.card import Card
from d3m.models.store import (
    CARD_NAME,
    MODEL,
    WEIGHTS_NAME,
    WHOLE_BRAIN_NAME,
    find_model,
    read_card,
    weights_path,
    whole_brain_path,
)
from d3m.system.folders import whole_folder
from d3m.system.manifest import file_sha256
from d3m.system.storage import usual_rights, write_text

TRAINING_ONLY = "auxiliary."
"""Weights under this name serve training alone and are not shipped."""
HEADER_BYTES_A_TENSOR = 1000
"""An entry of a name, a type, a shape and two offsets takes some 150."""


@dataclass(frozen=True)
class Model:
    """A loaded model."""

    card: Card
    network: nn.Module
    """float32, in evaluation mode, on the CPU; satisfies `d3m.diffusion.networks.slice.D3MNetwork`."""
    folder: Path
    whole_brain: WholeBrainEnsemble | None = None
    """The whole-brain stage, likewise; None if the model has none."""


def load_model(model: str | Path | None = None) -> Model:
    """Load a model: card and weights.

    Names, shapes and number formats of the weights are compared with what the card says before anything is
    allocated for them.

    Args:
        model: A name from `d3m models`, a folder, or None for the one that ships.

    Raises:
        D3MError: card or weights are missing, damaged, or do not belong together.
    """
    folder = model if isinstance(model, Path) else find_model(model)
    card = read_card(folder)
    sizes = replace(card.recipe.network, auxiliary_regions=0)
    network = _load(weights_path(folder, card), card, lambda: build_network(sizes))
    whole_brain = None
    path, stage = whole_brain_path(folder, card), card.whole_brain
    if path is not None and stage is not None:
        sizes_3d, members = stage.sizes, stage.members
        whole_brain = _load(path, card, lambda: WholeBrainEnsemble(sizes_3d, members))
    return Model(card, network, folder, whole_brain)


Network = TypeVar("Network", bound=nn.Module)


def _load(path: Path, card: Card, build: Callable[[], Network]) -> Network:
    """A network with the weights of a file.

    Raises:
        D3MError: as in `load_model`.
    """
    try:
        with torch.device("meta"):
            expected = {name: value.shape for name, value in build().state_dict().items()}
    except (ValueError, RuntimeError) as error:
        raise D3MError(
            f"The network that the card of {card.name!r} describes cannot be built.", "Get the model's folder again."
        ) from error
    _check_header(path, card.name, len(expected))
    try:
        with safe_open(path, "pt") as f:
            stored = {name: f.get_slice(name) for name in f.keys()}  # noqa: SIM118 (not a mapping)
            shapes = {name: tuple(part.get_shape()) for name, part in stored.items()}
            wrong = sorted(set(shapes) ^ set(expected)) or sorted(n for n in shapes if shapes[n] != tuple(expected[n]))
            wrong = wrong or sorted(n for n, part in stored.items() if part.get_dtype() not in ("F16", "BF16", "F32"))
            if wrong:
                raise D3MError(
                    f"The weights of {card.name!r} do not fit the network on its card (first difference: {wrong[0]}).",
                    "Get the model's folder again, or export the model again.",
                )
            weights = {name: f.get_tensor(name).float() for name in stored}
    except (SafetensorError, OSError) as error:
        raise D3MError(f"The weights of {card.name!r} cannot be read.", "Get the model's folder again.") from error
    if not all(torch.isfinite(value).all() for value in weights.values()):
        raise D3MError(f"The weights of {card.name!r} are not all finite numbers.", "Export the model again.")
    network = build()
    network.load_state_dict(weights)
    return network.eval()


def _check_header(path: Path, name: str, tensors: int) -> None:
    """Refuse a list of tensors far longer than the network's, before it is read: a million entries take gigabytes.

    The file begins with the length of that list, eight bytes (safetensors, Format).

    Raises:
        D3MError: it is too long.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > path.stat().st_size - 8:
        return  # no such file at all: the reader says so without reading on
    if length > HEADER_BYTES_A_TENSOR * (tensors + 10):
        raise D3MError(
            f"The weights of {name!r} list far more tensors than the network on their card has.",
            "Get the model's folder again, or export the model again.",
        )


def save_model(
    folder: Path, card: Card, weights: dict[str, Tensor], whole_brain: dict[str, Tensor] | None = None
) -> Card:
    """Write a model's folder, whole or not at all.

    Args:
        folder: Where; an older model there is replaced if nobody changed it, and files beside it stay.
        card: Its hashes are filled in.
        weights: State of the network; stored in float16, without what only training needs.
        whole_brain: State of the `WholeBrainEnsemble`, likewise; None keeps the one that is there if the card has it.

    Returns:
        The card as written.

    Raises:
        D3MError: the model cannot be loaded again, the disk is full, or the folder cannot be written.
    """
    try:
        with whole_folder(folder, MODEL) as partial:
            card = replace(card, weights_sha256=_save(partial / WEIGHTS_NAME, weights))
            if card.whole_brain is not None and whole_brain is not None:
                sha256 = _save(partial / WHOLE_BRAIN_NAME, whole_brain)
                card = replace(card, whole_brain=replace(card.whole_brain, weights_sha256=sha256))
            elif card.whole_brain is not None and (folder / WHOLE_BRAIN_NAME).is_file():
                shutil.copyfile(folder / WHOLE_BRAIN_NAME, partial / WHOLE_BRAIN_NAME)
            write_text(partial / CARD_NAME, card.to_json())
            load_model(partial)  # what cannot be loaded is not shipped
    except SafetensorError as error:
        raise D3MError(
            f"The model cannot be written ({error}).", "Free some space, or choose another folder.", "machine"
        ) from error
    return card


def _save(path: Path, weights: dict[str, Tensor]) -> str:
    """Write weights in float16, without what only training needs; returns the file's hash."""
    kept = {n: v.detach().half().contiguous().cpu() for n, v in weights.items() if not n.startswith(TRAINING_ONLY)}
    save_file(kept, path, {"format": "pt"})
    usual_rights(path)  # safetensors makes it readable by its owner alone
    return file_sha256(path)
