"""Which scans a model needs, and which models can do with fewer. Does not import torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

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
    able = _models_that(lambda other: set(missing) <= set(other.optional_contrasts))
    other = f", or choose --model {' or '.join(able)}" if able else "; no installed model can do without"
    raise D3MError(
        f"{names} {'is' if len(missing) == 1 else 'are'} missing, and the model {card.name} needs it.",
        f"Give the {names} scan{other}.",
    )


def check_further(card: Card, given: Collection[str]) -> None:
    """Refuse a further contrast that a model does not take.

    Args:
        card: The model's.
        given: Of `FURTHER_CONTRASTS`.

    Raises:
        D3MError: it names the models that take it.
    """
    extra = [name for name in given if name not in card.contrasts]
    if not extra:
        return
    names = " and ".join(name.upper() for name in extra)
    able = _models_that(lambda other: set(given) <= set(other.contrasts))
    raise D3MError(
        f"The model {card.name} does not take {names}.",
        f"Leave {names} out{', or choose --model ' + ' or '.join(able) if able else ''}.",
    )


def _models_that(fit: Callable[[Card], bool]) -> list[str]:
    """Names of the installed models whose card fits."""
    able = []
    for entry in list_models():
        try:
            if fit(read_card(entry.folder)):
                able.append(entry.name)
        except D3MError:  # a damaged model is none that could be offered
            continue
    return able
