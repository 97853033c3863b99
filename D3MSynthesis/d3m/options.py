"""How a result is to be made: the one data class of command line, Python, batch, BIDS, Slicer and provenance.

Does not import torch.
"""

from __future__ import annotations

from dataclasses import Field, dataclass, field, fields
from typing import Any

from d3m.errors import D3MError

QUALITY_NAMES = ("preview", "standard", "best")
"""How much sampling a user pays for; the model's card says what each means."""
BRAIN_EXTRACTORS = ("auto", "deepbet", "hd-bet", "synthstrip", "own")
"""What finds the brain; `d3m.volumes.preprocess.extraction` has one function for each."""
MAX_STEPS = 1000
"""Times of the longest schedule; a model's own may be shorter, which `Synthesis` checks."""
MAX_SAMPLES = 64
"""More samples change the mean by less than its display shows."""
MAX_SLICE_INTERVAL = 4
"""At 1 mm the masks of every fourth slice still agree with those of all by a Dice of 0.90 and more."""
MAX_SEED = 10**18
"""What the generator of the noise takes, in a number that a person can remember."""


def _option(default: Any, text: str, panel: str = "Sampling", choices: tuple[str, ...] = ()) -> Any:
    """A field that is also an option of the command line.

    Args:
        default: Its value by default.
        text: For `--help`.
        panel: The group that shows it there.
        choices: All values that it takes, if they can be listed.
    """
    return field(default=default, metadata={"help": text, "panel": panel, "choices": choices})


@dataclass(frozen=True, kw_only=True)
class SynthesisOptions:
    """What decides a result beside the scans. A field that is added here is an option of every command.

    Raises:
        D3MError: a value out of range; whether the device is there and the model has so many steps is checked later.
    """

    model: str | None = _option(None, "Name or folder of a model (default: the one that ships).")
    """See `d3m models` for the names."""
    quality: str = _option(
        "standard",
        "How much sampling: preview is one sample, fastest; standard and best average several.",
        choices=QUALITY_NAMES,
    )
    """One of `QUALITY_NAMES`."""
    steps: int | None = _option(None, "Number of reverse steps (default: the quality's).")
    """1 to `MAX_STEPS`; None takes the quality's."""
    samples: int | None = _option(None, "Number of samples, which are averaged (default: the quality's).")
    """1 to `MAX_SAMPLES`; None takes the quality's."""
    slice_interval: int | None = _option(
        None, "Compute every N-th slice and interpolate between them (default: the quality's; 1: every slice)."
    )
    """1 to `MAX_SLICE_INTERVAL`; None takes the quality's."""
    seed: int = _option(0, "Seed of the noise: the same seed gives the same image.")
    """-`MAX_SEED` to `MAX_SEED`."""
    brain: str = _option(
        "auto",
        "How the brain is found in scans with the skull; auto: deepbet, else HD-BET, else our own.",
        "Input",
        BRAIN_EXTRACTORS,
    )
    """One of `BRAIN_EXTRACTORS`; not asked where a brain mask is given."""
    enhancing_label: str | None = _option(
        None,
        "Which label of a given enhancement mask is the enhancing tumour: values or names, separated by commas.",
        "Input",
    )
    """See `d3m.volumes.preprocess.given`; None: the only label that there is."""
    trace: bool = _option(False, "Keep every reverse step.", "Output")
    """Of the first sample."""
    page: bool = _option(False, "Also write view.html: the volumes in a browser, without a network.", "Output")
    """Some 15 MB."""
    device: str = _option("auto", "auto, cpu, cuda, cuda:N or mps.", "Running")
    """"auto" continues on the CPU where a GPU fails; a device that is named is used or refused."""

    def __post_init__(self) -> None:
        """Check what can be checked without a model."""
        for one in fields(self):
            value, choices = getattr(self, one.name), one.metadata["choices"]
            if choices and value not in choices:
                raise D3MError(f"There is no {one.name} {value!r}.", f"Choose one of: {', '.join(choices)}.")
        check_range("steps", self.steps, 1, MAX_STEPS)
        check_range("samples", self.samples, 1, MAX_SAMPLES)
        check_range("slice-interval", self.slice_interval, 1, MAX_SLICE_INTERVAL)
        check_range("seed", self.seed, -MAX_SEED, MAX_SEED)

    def arguments(self) -> list[str]:
        """These options as arguments of the command line; those that have their default are left out."""
        given: list[str] = []
        for one in fields(self):
            value = getattr(self, one.name)
            if value != one.default:
                given += [flag(one)] if value is True else [flag(one), str(value)]
        return given


def check_range(name: str, value: int | None, least: int, most: int) -> None:
    """Refuse an option that is out of its range; None is not given.

    Raises:
        D3MError: with the range.
    """
    if value is not None and not least <= value <= most:
        raise D3MError(f"--{name} {value} is out of range.", f"Choose {least} to {most}.")


def flag(one: Field[Any]) -> str:
    """How the command line spells a field."""
    return f"--{one.name.replace('_', '-')}"
