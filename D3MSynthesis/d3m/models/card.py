"""A model's card: what it is, how it was trained, what it may be used for. Does not import torch."""

from __future__ import annotations

import json
import re
import typing
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from d3m.diffusion.recipe import REGIONS, NetworkSizes, WholeBrainSizes
from d3m.errors import D3MError
from d3m.models.expected_error import ExpectedError
from d3m.models.patient import PatientCalibration
from d3m.models.recipes import CURRENT_NAME, Recipe
from d3m.options import MAX_SAMPLES, MAX_SLICE_INTERVAL
from d3m.volumes.input_check import InputLimits
from d3m.volumes.types import CONTRASTS, FURTHER_CONTRASTS

SCHEMA_VERSION = 2
"""2 since a model may have a whole-brain stage; cards of version 1 are read as models without one."""
READABLE_VERSIONS = (1, 2)
NO_CHOICE = {"mask_velocity": "v", "rederive_noise": True}
"""What older cards say of the diffusion and no model ever had otherwise."""
MAX_CARD_BYTES = 1_000_000
MAX_WIDTH, MAX_LEVELS, MAX_BLOCKS, MAX_CONTEXT, MAX_MEMBERS = 2048, 8, 8, 16, 16
"""Bounds of a network that is built from a card: what a card says is not trusted."""
HINT = "Export the model again with `d3m-training export`, or get the folder again."


@dataclass(frozen=True)
class ValidationRow:
    """One measured quantity on patients that were not trained on."""

    name: str
    mean: float
    sd: float
    n: int
    """Patients for whom it is defined."""
    t1_copy: float | None = None
    """The same for the copied T1, where that makes sense."""


@dataclass(frozen=True)
class PatientRow:
    """The main numbers of one validation patient."""

    id: str
    psnr_brain: float
    psnr_tumour: float
    psnr_enhancing: float | None
    dice: float | None
    false_positive_ml: float
    false_negative_ml: float


@dataclass(frozen=True)
class ValidationWithout:
    """The validation with one contrast left out."""

    contrast: str
    """"t2" or "flair"."""
    rows: tuple[ValidationRow, ...]


@dataclass(frozen=True)
class WholeBrain:
    """The whole-brain stage of a model: 3-D networks at 2 mm that say whether, how much and about where."""

    weights_sha256: str
    """Of `whole_brain.safetensors`, in hexadecimal."""
    sizes: WholeBrainSizes = field(default_factory=WholeBrainSizes)
    members: int = 1
    """Networks that were trained apart; their mean is used."""
    calibration: PatientCalibration | None = None
    """How the patient's estimate follows from the maps; None: it was not fitted, and none is given."""
    training: str = ""
    """Command, data, folds."""
    validation: tuple[ValidationRow, ...] = ()
    """Measured on patients that the member in question was not trained on."""
    validation_note: str = ""
    held_out: tuple[str, ...] = ()
    """For each member a hash of who it was not trained on: only the same cross-validation may go on from it."""


@dataclass(frozen=True)
class Card:
    """The contents of `card.json`."""

    name: str
    """Lower case letters, digits, "-" and "_": also the folder's name."""
    title: str
    recipe: Recipe
    weights_sha256: str
    """Of `weights.safetensors`, in hexadecimal."""
    mask_threshold: float = 0.5
    """Probability from which a voxel counts as enhancing tumour, 0 to 1; calibrated on validation patients."""
    enhancement_gain: float = 1.0
    """Factor on the synthetic image's difference to T1, 0 to 2, for models on T1's scale: below 1 it shrinks what a
    model that saw few patients overstates; calibrated on validation patients. The trace shows the image without it."""
    slice_sigma: float = 0.0
    """Standard deviation, 0 to 4 slices, of the Gaussian mean over neighbouring slices that the mask's probability and,
    for models on T1's scale, the difference to T1 are given: what a slice-by-slice model leaves as stripes in other
    planes goes. 0 leaves each slice as it is. Trace, displacement and the samples' spread are without it."""
    contrasts: tuple[str, ...] = CONTRASTS
    """What the model is conditioned on, in the order of its channels: T1, T2, FLAIR, and "adc" and "swi" if it takes
    them, which are always optional."""
    optional_contrasts: tuple[str, ...] = ()
    """Those of "t2" and "flair" that it can do without (one at a time): it was trained with them left out."""
    mask_steering: bool = False
    """Whether its image stream follows a given mask by itself; else `d3m.volumes.steering` changes the picture."""
    data: str = ""
    """What it was trained on, with citations."""
    training: str = ""
    """Command, budget and device."""
    validation_note: str = ""
    """On what and how the numbers were measured."""
    validation: tuple[ValidationRow, ...] = ()
    validation_without: tuple[ValidationWithout, ...] = ()
    """The same patients, threshold and quality without each of `optional_contrasts`."""
    patients: tuple[PatientRow, ...] = ()
    patient_calibration: PatientCalibration | None = None
    """How the patient's estimate follows from the mask's probability; None: it was not fitted. A whole-brain stage's
    own goes before it."""
    patient_validation: tuple[ValidationRow, ...] = ()
    """How good that estimate is, each patient's by a fit without the patient."""
    expected_error: ExpectedError | None = None
    """How far off the image is likely to be, voxel by voxel; None: it was not fitted, and the uncertainty is the
    standard deviation over the samples."""
    input_check: InputLimits | None = None
    """Between which limits ordinary cases lie; None: it was not measured, and nothing is reported as unusual."""
    expected: str = ""
    """What the scans must be like."""
    intended_use: str = "Research only. The images are synthetic; they must not guide the care of a patient."
    limits: str = ""
    licence: str = ""
    citation: str = ""
    whole_brain: WholeBrain | None = None
    """The stage that looks at the whole brain first; None: the model has none."""
    schema_version: int = SCHEMA_VERSION
    extra: dict[str, str] = field(default_factory=dict)
    """Anything else that its author wants to say."""

    def to_json(self) -> str:
        """Text of `card.json`."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @staticmethod
    def from_json(text: str) -> Card:
        """Read and check the text of a `card.json`.

        Raises:
            D3MError: it is not a card, of another version, or asks for something absurd; the field is named.
        """
        if len(text.encode()) > MAX_CARD_BYTES:
            raise D3MError(f"The model's card is larger than {MAX_CARD_BYTES // 1000} kB.", HINT)
        try:
            data = json.loads(text, object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            raise D3MError(f"The model's card is not valid JSON ({str(error).splitlines()[0]}).", HINT) from error
        if not isinstance(data, dict):
            raise D3MError("The model's card is not a JSON object.", HINT)
        version = data.get("schema_version")
        if version not in READABLE_VERSIONS or isinstance(version, bool):
            readable = " and ".join(map(str, READABLE_VERSIONS))
            raise D3MError(
                f"The model's card has version {version!r}; this software reads versions {readable}.",
                "Update the software, or export the model again.",
            )
        card: Card = _build(Card, _in_todays_words(data) | {"schema_version": SCHEMA_VERSION}, "card")
        _check(card)
        return card


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; one that says a thing twice would be read differently by other programs."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it has an entry twice")
    return found


def _in_todays_words(data: dict[str, Any]) -> dict[str, Any]:
    """The same card in today's words: version 0.1 had other names for a recipe, its velocity and the input check."""
    data = dict(data)
    if "familiarity" in data:  # the older name
        data["input_check"] = data.pop("familiarity")  # the older name
    recipe = data.get("recipe")
    if isinstance(recipe, dict):
        data["recipe"] = recipe = dict(recipe)
        name, diffusion = recipe.get("name"), recipe.get("diffusion")
        if isinstance(name, str):
            recipe["name"] = CURRENT_NAME.get(name, name)
        if isinstance(diffusion, dict):
            recipe["diffusion"] = diffusion = {k: v for k, v in diffusion.items() if (k, v) not in NO_CHOICE.items()}
            if diffusion.get("image_velocity") == "seed":
                diffusion["image_velocity"] = "v_step"
    return data


def _fail(where: str, problem: str) -> D3MError:
    return D3MError(f"In the model's card, {where} {problem}.", HINT)


def _build(kind: Any, value: Any, where: str) -> Any:
    """`value` (from JSON) as `kind`, checked; nested data classes, tuples, literals and optional values."""
    if is_dataclass(kind) and isinstance(kind, type):
        return _build_dataclass(kind, value, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        if value not in arguments:
            raise _fail(where, f"is {value!r}, not one of {', '.join(map(repr, arguments))}")
        return value
    if origin in (Union, UnionType):
        if value is None:
            return None
        return _build(next(a for a in arguments if a is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise _fail(where, "is not a list")
        inner = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(inner) != len(value):
            raise _fail(where, f"has {len(value)} entries instead of {len(inner)}")
        return tuple(_build(k, v, f"{where}[{n}]") for n, (k, v) in enumerate(zip(inner, value, strict=True)))
    if origin is dict:
        if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
            raise _fail(where, "is not an object of texts")
        return dict(value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise _fail(where, "is too large") from error
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _fail(where, f"is {type(value).__name__}, not {kind.__name__}")
    return value


def _build_dataclass(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _fail(where, "is not an object")
    known = {f.name for f in fields(kind)}
    unknown = sorted(set(value) - known)
    if unknown:
        raise _fail(where, f"has unknown entries: {', '.join(unknown)[:200]}")
    hints = typing.get_type_hints(kind)
    made = {}
    for f in fields(kind):
        if f.name in value:
            made[f.name] = _build(hints[f.name], value[f.name], f"{where}.{f.name}")
        elif f.default is MISSING and f.default_factory is MISSING:
            raise _fail(where, f"lacks {f.name}")
    return kind(**made)


def _check(card: Card) -> None:
    """Bounds that types do not express."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", card.name):
        raise _fail("card.name", "is not made of lower case letters, digits, - and _")
    if not re.fullmatch(r"[0-9a-f]{64}", card.weights_sha256):
        raise _fail("card.weights_sha256", "is not a SHA-256 hash")
    if not 0 < card.mask_threshold < 1:
        raise _fail("card.mask_threshold", f"is {card.mask_threshold}, not between 0 and 1")
    if not 0 < card.enhancement_gain <= 2:
        raise _fail("card.enhancement_gain", f"is {card.enhancement_gain}, not between 0 and 2")
    if not 0 <= card.slice_sigma <= 4:
        raise _fail("card.slice_sigma", f"is {card.slice_sigma}, not between 0 and 4")
    if card.input_check is not None and (problem := card.input_check.problem()):
        raise _fail("card.input_check", problem)
    if card.patient_calibration is not None and (problem := card.patient_calibration.problem()):
        raise _fail("card.patient_calibration", problem)
    if card.expected_error is not None and (problem := card.expected_error.problem()):
        raise _fail("card.expected_error", problem)
    further = card.contrasts[len(CONTRASTS) :]
    if card.contrasts[: len(CONTRASTS)] != CONTRASTS or further != tuple(n for n in FURTHER_CONTRASTS if n in further):
        raise _fail("card.contrasts", f"is not {', '.join(CONTRASTS)}, then any of {', '.join(FURTHER_CONTRASTS)}")
    if card.recipe.network.further != len(further):
        raise _fail("card.recipe.network.further", f"is not the number of further contrasts, {len(further)}")
    if card.whole_brain is not None:
        _check_whole_brain(card.whole_brain, card.recipe)
    elif card.recipe.network.maps:
        raise _fail("card.recipe.network.maps", "needs a whole-brain stage")
    _check_sizes(card.recipe.network)
    diffusion, grid = card.recipe.diffusion, card.recipe.grid
    if not 1 <= diffusion.timesteps <= 100_000:
        raise _fail("card.recipe.diffusion.timesteps", "is out of range")
    if not (
        0 < diffusion.image_upper <= 100 and 0 < diffusion.mask_amplitude <= 100 and 0 < diffusion.time_spacing <= 10
    ):
        raise _fail("card.recipe.diffusion", "has a scale out of range")
    if not 0 <= grid.percentiles[0] < grid.percentiles[1] <= 100:
        raise _fail("card.recipe.grid.percentiles", "are not two ascending percentages")
    if grid.size is not None and not 32 <= grid.size <= 1024:
        raise _fail("card.recipe.grid.size", "is not between 32 and 1024")
    for quality in card.recipe.qualities:
        if not (1 <= quality.steps <= diffusion.timesteps and 1 <= quality.samples <= MAX_SAMPLES):
            raise _fail("card.recipe.qualities", "has steps or samples out of range")
        if not 1 <= quality.slice_interval <= MAX_SLICE_INTERVAL:
            raise _fail("card.recipe.qualities", "has a slice interval out of range")


def _check_whole_brain(stage: WholeBrain, recipe: Recipe) -> None:
    where, widths = "card.whole_brain", stage.sizes.widths
    if not re.fullmatch(r"[0-9a-f]{64}", stage.weights_sha256):
        raise _fail(f"{where}.weights_sha256", "is not a SHA-256 hash")
    if not 2 <= len(widths) <= MAX_LEVELS or not all(1 <= w <= MAX_WIDTH for w in widths):
        raise _fail(f"{where}.sizes.widths", f"must be 2 to {MAX_LEVELS} numbers up to {MAX_WIDTH}")
    if not 1 <= stage.members <= MAX_MEMBERS:
        raise _fail(f"{where}.members", f"is not between 1 and {MAX_MEMBERS}")
    if stage.calibration is not None and (problem := stage.calibration.problem()):
        raise _fail(f"{where}.calibration", problem)
    if recipe.grid.size is not None or recipe.grid.percentiles_over != "brain":
        raise _fail(where, "needs a recipe whose grid is the brain's box, scaled inside the brain")


def _check_sizes(sizes: NetworkSizes) -> None:
    where = "card.recipe.network"
    for name, widths in (("widths", sizes.widths), ("deformation_widths", sizes.deformation_widths)):
        if not 2 <= len(widths) <= MAX_LEVELS or not all(1 <= w <= MAX_WIDTH for w in widths):
            raise _fail(f"{where}.{name}", f"must be 2 to {MAX_LEVELS} numbers up to {MAX_WIDTH}")
    if sizes.architecture == "compact" and any(w % 8 for w in sizes.widths):
        raise _fail(f"{where}.widths", "must be multiples of 8")
    if not 1 <= sizes.blocks_per_level <= MAX_BLOCKS:
        raise _fail(f"{where}.blocks_per_level", f"is not between 1 and {MAX_BLOCKS}")
    if 0 not in sizes.context or len(sizes.context) > MAX_CONTEXT or not all(abs(c) <= 50 for c in sizes.context):
        raise _fail(f"{where}.context", "must contain 0 and stay within 50 slices")
    if sizes.maps not in (0, len(REGIONS)):
        raise _fail(f"{where}.maps", f"is neither 0 nor {len(REGIONS)}")
    if not 0 <= sizes.auxiliary_regions <= 8:
        raise _fail(f"{where}.auxiliary_regions", "is out of range")
    if sizes.max_displacement is not None and not 0 < sizes.max_displacement <= 100:
        raise _fail(f"{where}.max_displacement", "is not between 0 and 100")
    if not sizes.deformation_inputs:
        raise _fail(f"{where}.deformation_inputs", "is empty")
