"""From a training's folder to a model's folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from d3m.errors import D3MError
from d3m.models.card import Card, WholeBrain
from d3m.models.load import save_model
from d3m.models.recipes import CURRENT_NAME, RECIPES, Recipe
from d3m.models.store import CARD_NAME, MODEL, read_card
from d3m.system.folders import check_output
from d3m.system.text import read_object
from d3m.volumes.types import CONTRASTS
from d3m_training.train.checkpoint import read_weights
from d3m_training.train.trainer import RUN_NAME


def export_run(run: Path, out: Path, name: str, texts: dict[str, str]) -> Card:
    """Write a model's folder from a training's best weights.

    Args:
        run: Folder of the training.
        out: Model folder.
        name: Of the model.
        texts: Fields of the card: title, data, limits, licence, citation, expected, ...

    Raises:
        D3MError: there are no weights; a text is not a field of the card.
    """
    check_output(out, MODEL, True, [run])
    try:
        description = read_object(run / RUN_NAME, "The description of the training")
        recipe: Recipe = RECIPES[CURRENT_NAME.get(description["recipe"], description["recipe"])]
        further = tuple(str(name) for name in description.get("further", ()))
        sizes = replace(recipe.network, further=len(further), maps=int(description.get("maps", 0)))
        recipe = replace(recipe, network=sizes)
        training = (
            f"Recipe {recipe.name}, {int(description['patients'])} patients, "
            f"{int(description['train']['iterations'])} iterations of {int(description['batch']['size'])} slices, "
            f"seed {int(description['train']['seed'])}."
        )
        left_out = description["batch"].get("missing_shares", (0.0, 0.0))
        optional = tuple(n for n, share in zip(("t2", "flair"), left_out, strict=True) if float(share) > 0)
    except (D3MError, KeyError, TypeError, ValueError, AttributeError) as error:  # another program's, or another's tool
        raise D3MError("This is not the folder of a training.", "Give the --out of `d3m-training train`.") from error
    weights = next((run / n for n in ("best.safetensors", "last.safetensors") if (run / n).is_file()), None)
    if weights is None:
        raise D3MError("The training has no weights yet.", "Train at least until the first save.")
    try:
        known = {"title": name, "training": training, "optional_contrasts": optional, "whole_brain": _stage(out)}
        known["contrasts"] = (*CONTRASTS, *further)
        card = Card(**known | texts, name=name, recipe=recipe, weights_sha256="0" * 64)  # type: ignore[arg-type]
    except TypeError as error:
        raise D3MError(f"The card has no such field ({error}).", "Check the file of texts.") from error
    return save_model(out, card, read_weights(weights))


def _stage(out: Path) -> WholeBrain | None:
    """The whole-brain stage of the model that lies there: it stays."""
    return read_card(out).whole_brain if (out / CARD_NAME).is_file() else None
