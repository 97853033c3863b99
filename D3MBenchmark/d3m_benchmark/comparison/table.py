"""The numbers of a comparison, one row each, as they are kept between runs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from d3m.errors import D3MError
from d3m.system.storage import replace_text, writing
from d3m.system.text import for_csv


@dataclass(frozen=True)
class Cell:
    """One measured value."""

    method: str
    patient: str
    seed: int
    metric: str
    region: str
    value: float
    """NaN: not defined for this patient."""


@dataclass(frozen=True)
class MethodFacts:
    """How a method's numbers came about."""

    name: str
    title: str
    source: str
    parameters: int
    """That prediction uses."""
    gmac: float
    """Billions of multiply-accumulates for one slice, all steps."""
    steps: int
    """Passes through the network that a prediction takes."""
    iterations: int
    """Batches of training; the mean over seeds."""
    seconds_trained: float
    """The mean over seeds."""
    rung: str
    """Under which conditions."""


def write_cells(path: Path, cells: Iterable[Cell]) -> None:
    """Write values as CSV, whole or not at all.

    Raises:
        D3MError: the disk is full.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in fields(Cell)], lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: for_csv(v) for k, v in {**asdict(cell), "value": repr(cell.value)}.items()} for cell in cells)
    with writing():
        replace_text(path, text.getvalue())


def read_cells(path: Path) -> tuple[Cell, ...]:
    """Values that `write_cells` wrote.

    Raises:
        D3MError: the file is damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as f:
            cells = tuple(
                Cell(r["method"], r["patient"], int(r["seed"]), r["metric"], r["region"], float(r["value"]))
                for r in csv.DictReader(f, strict=True)
            )
            if not cells:
                raise ValueError("no values")
            return cells
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise D3MError(f"{path.name} is damaged.", "Delete it and run the comparison again.") from error
