"""What is compared: the file that `d3m-benchmark compare --config` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from d3m.errors import D3MError
from d3m_benchmark.methods.registry import METHODS, T1_COPY


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rung(_Part):
    """Methods that are trained and measured under equal conditions."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,40}$")
    """Of its folder, and how the tables call it."""
    methods: tuple[str, ...] = (T1_COPY, *METHODS)
    """Names of `methods.registry`; "d3m" must be among them, since all others are compared with it."""
    size: Literal["small", "published"] = "small"
    coarser: int = Field(default=1, ge=1, le=8)
    """How many times coarser in the plane than the cache; 2 is half resolution."""
    misaligned_mm: float = Field(default=0.0, ge=0, le=20)
    """In training T1c and labels lie up to so many millimetres beside the other scans; see `misaligned`."""
    minutes: float | None = Field(default=None, gt=0)
    """Training time of each method and seed on this machine: what a method's speed allows is what it gets."""
    iterations: int | None = Field(default=None, gt=0)
    """Batches of each method and seed, instead of `minutes`."""
    batch: int = Field(default=16, ge=1)
    crop: int = Field(default=128, ge=16)
    """Side of the training slices in pixels of the rung's resolution."""
    context: tuple[int, ...] = (-2, 0, 2)
    """Slices of the condition, relative to the one synthesised."""
    seeds: tuple[int, ...] = (0,)

    def seeds_of(self, method: str) -> tuple[int, ...]:
        """The seeds of a method; where nothing is drawn, the first alone."""
        return self.seeds[:1] if method == T1_COPY else self.seeds

    @model_validator(mode="after")
    def _check(self) -> Rung:
        unknown = sorted(set(self.methods) - {T1_COPY, *METHODS})
        if unknown:
            raise ValueError(f"unknown methods {', '.join(unknown)}; there are {', '.join((T1_COPY, *METHODS))}")
        if "d3m" not in self.methods:
            raise ValueError("d3m is not among the methods")
        if (self.minutes is None) == (self.iterations is None):
            raise ValueError("give either minutes or iterations")
        if 0 not in self.context or not self.seeds:
            raise ValueError("context must contain 0, and there must be a seed")
        return self


class Comparison(_Part):
    """A whole comparison."""

    data: tuple[Path, ...] = ()
    """Folders of BraTS-style patients or manifests, as for `d3m-training prepare`; none: the cache is prepared already.
    """
    cache: Path
    """Prepared patients; made from `data` where they are missing."""
    out: Path
    """Everything that is made: trainings, numbers, and the report."""
    title: str = "D3M and other methods"
    rungs: tuple[Rung, ...] = Field(min_length=1)
    choose: int = Field(default=7, ge=1)
    """Labelled training patients on whom thresholds are chosen where the split has no test part; else its validation
    part serves."""
    segmenter_iterations: int = Field(default=2000, ge=1)
    """Batches of the fixed segmenter, once for each resolution."""
    threads: int = Field(default=1, ge=1)
    """Cores of each process."""
    workers: int = Field(default=1, ge=1)
    """Processes at once; with GPUs, so many on each of them."""


def read_config(path: Path) -> Comparison:
    """Read and check a comparison's JSON; relative paths start at its folder.

    Raises:
        D3MError: it is not one; the entry is named.
    """
    try:
        read = Comparison.model_validate_json(path.read_bytes())
    except OSError as error:
        raise D3MError("The comparison's file cannot be read.", "Check --config.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise D3MError(
            f"In the comparison's file, {where}: {first['msg']}.", "See docs/comparison.md for an example."
        ) from error
    base = path.resolve().parent
    data = tuple(base / place for place in read.data)
    return read.model_copy(update={"data": data, "cache": base / read.cache, "out": base / read.out})
