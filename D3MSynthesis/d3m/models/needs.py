"""Which scans a model needs, and which models can do with fewer. Does not import torch."""

from __future__ import annotations

from collections.abc import Sequence

from d3m.errors import D3MError
from d3m.models.card import Card
from d3m.models.store import list_models, read_card


def check_missing(card: Card, missing: Sequence[str]) -> None:
    """Refuse to run a model without a scan that it needs.

    Args:
        card: The model's.
        missing: Contrasts that were not given.

    Raises:
        D3MError: it names the models that can do without.
    """
    if set(missing) <= set(card.optional_contrasts):
        return
    names = " and ".join(name.upper() for name in missing)
    able = []
    for entry in list_models():
        try:
            if set(missing) <= set(read_card(entry.folder).optional_contrasts):
                able.append(entry.name)
        except D3MError:  # a damaged model is none that could be offered
            continue
    other = f", or choose --model {' or '.join(able)}" if able else "; no installed model can do without"
    raise D3MError(
        f"{names} {'is' if len(missing) == 1 else 'are'} missing, and the model {card.name} needs it.",
        f"Give the {names} scan{other}.",
    )
