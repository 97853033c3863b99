"""Card and weights to a network ready to run, and back to a folder."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from d3m.diffusion.networks.slice import build_network
from d3m.errors import D3MError
from d3m.models.card import Card
from d3m.models.store import CARD_NAME, WEIGHTS_NAME, file_sha256, read_card, weights_path
from d3m.system.storage import whole_folder, write_text

TRAINING_ONLY = "auxiliary."
"""Weights under this name serve training alone and are not shipped."""


@dataclass(frozen=True)
class Model:
    """A loaded model."""

    card: Card
    network: nn.Module
    """float32, in evaluation mode, on the CPU; satisfies `d3m.diffusion.networks.slice.D3MNetwork`."""
    folder: Path


def load_model(folder: Path) -> Model:
    """Load a model from its folder.

    Names, shapes and number formats of the weights are compared with what the card says before anything is
    allocated for them.

    Raises:
        D3MError: card or weights are missing, damaged, or do not belong together.
    """
    card = read_card(folder)
    path = weights_path(folder, card)
    sizes = replace(card.recipe.network, auxiliary_regions=0)
    try:
        with torch.device("meta"):
            expected = {name: value.shape for name, value in build_network(sizes).state_dict().items()}
    except (ValueError, RuntimeError) as error:
        raise D3MError(
            f"The network that the card of {card.name!r} describes cannot be built.", "Get the model's folder anew."
        ) from error
    try:
        with safe_open(path, "pt") as f:
            stored = {name: f.get_slice(name) for name in f.keys()}  # noqa: SIM118 (not a mapping)
            shapes = {name: tuple(part.get_shape()) for name, part in stored.items()}
            wrong = sorted(set(shapes) ^ set(expected)) or sorted(n for n in shapes if shapes[n] != tuple(expected[n]))
            wrong = wrong or sorted(n for n, part in stored.items() if part.get_dtype() not in ("F16", "BF16", "F32"))
            if wrong:
                raise D3MError(
                    f"The weights of {card.name!r} do not fit the network on its card (first difference: {wrong[0]}).",
                    "Get the model's folder anew, or export the model again.",
                )
            weights = {name: f.get_tensor(name).float() for name in stored}
    except (SafetensorError, OSError) as error:
        raise D3MError(f"The weights of {card.name!r} cannot be read.", "Get the model's folder anew.") from error
    if not all(torch.isfinite(value).all() for value in weights.values()):
        raise D3MError(f"The weights of {card.name!r} are not all finite numbers.", "Export the model again.")
    network = build_network(sizes)
    network.load_state_dict(weights)
    return Model(card, network.eval(), folder)


def save_model(folder: Path, card: Card, weights: dict[str, Tensor]) -> Card:
    """Write a model's folder, whole or not at all.

    Args:
        folder: Where; an older model there is replaced at once, its other files are kept.
        card: Its hash is filled in.
        weights: State of the network; stored in float16, without what only training needs.

    Returns:
        The card as written.

    Raises:
        D3MError: the model cannot be loaded again, the disk is full, or the folder cannot be written.
    """
    try:
        with whole_folder(folder) as partial:
            if folder.is_dir():  # keep TRAINING.md and the like
                shutil.copytree(folder, partial, dirs_exist_ok=True)
            kept = {
                n: v.detach().half().contiguous().cpu() for n, v in weights.items() if not n.startswith(TRAINING_ONLY)
            }
            save_file(kept, partial / WEIGHTS_NAME, {"format": "pt"})
            (partial / WEIGHTS_NAME).chmod(0o644)  # safetensors makes it readable by its owner alone
            card = replace(card, weights_sha256=file_sha256(partial / WEIGHTS_NAME))
            write_text(partial / CARD_NAME, card.to_json())
            load_model(partial)  # what cannot be loaded is not shipped
    except SafetensorError as error:
        raise D3MError(
            f"The model cannot be written ({error}).", "Free some space, or choose another folder.", "machine"
        ) from error
    return card
