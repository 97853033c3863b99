"""Training from a prepared cache: the one runner of `d3m-training train` and `d3m-benchmark train`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from d3m.diffusion.networks.slice import build_network
from d3m.diffusion.recipe import CONDITION_CHANNELS, REGIONS, NetworkSizes
from d3m.errors import D3MError
from d3m.models.load import load_model
from d3m.models.recipes import RECIPES, Recipe
from d3m.system.devices import fastest_dtype
from d3m_training.data.batches import Batches, BatchSettings
from d3m_training.data.cache import TARGET_UPPER, check_entries, open_entry
from d3m_training.data.preparation import SPLIT_NAME, check_grid
from d3m_training.data.splits import read_split
from d3m_training.train.d3m import DROPOUT, NetworkWithLoss
from d3m_training.train.published import StepLoss, VelocityLoss
from d3m_training.train.quick import quick_validation
from d3m_training.train.rolled import RolledLoss
from d3m_training.train.trainer import TrainSettings, is_first_process, train, training_in

STEM = "encoder.stem.mix.weight"
"""The first convolution of the compact network."""


@dataclass(frozen=True)
class TrainOptions:
    """What a person chooses for a training; the rest is the recipe's or the method's."""

    cache: Path
    """From `prepare_cache`."""
    out: Path
    """For checkpoints and logs; training resumes from it."""
    iterations: int | None = None
    """Batches; None takes the task's own number."""
    batch: int | None = None
    """Slices in a batch; None takes the task's own number."""
    seed: int = 0
    """Decides weights, batches and noise."""
    threads: int | None = None
    """Cores; None for all."""
    validate_every: int = 0
    """Iterations between validations; 0: never."""


@dataclass(frozen=True)
class Task:
    """What is trained."""

    title: str
    recipe: Recipe
    """Whose grid and scale the cache must have."""
    settings: TrainSettings
    batches: BatchSettings
    build: Callable[[], nn.Module]
    """Network and losses, called once the seed is set."""
    description: Mapping[str, object]
    """What the training's folder says about it, beside settings, batches and patients."""
    sampled: Recipe | None = None
    """The model's recipe, if it can be validated by sampling."""


def recipe_task(name: str, init: Path | None = None, maps: bool = False, further: Sequence[str] = ()) -> Task:
    """The training of a recipe's own model.

    Args:
        name: One of `RECIPES`.
        init: Model whose weights training starts from.
        maps: Whether the maps of the whole-brain stage are part of the condition.
        further: Those of `FURTHER_CONTRASTS` that the cache has: part of the condition, too.
    """
    recipe = RECIPES[name]
    recipe = replace(recipe, network=replace(recipe.network, further=len(further)))
    if maps:
        recipe = replace(recipe, network=replace(recipe.network, maps=len(REGIONS)))
    settings, batches, loss = recipe_settings(name)

    def build() -> nn.Module:
        network = build_network(recipe.network, DROPOUT)
        if init is not None:
            start_from(network, init, recipe.network)
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return NetworkWithLoss(network, recipe.diffusion, loss, fastest_dtype(training_device()))

    described = {
        "recipe": name, "further": list(further), "maps": recipe.network.maps, "loss": asdict(loss),
        "init": None if init is None else init.name, "dropout": DROPOUT,
    }  # fmt: skip
    return Task(f"Recipe {name}", recipe, settings, batches, build, described, recipe)


def training_device() -> torch.device:
    """Where trainings run."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def recipe_settings(name: str) -> tuple[TrainSettings, BatchSettings, RolledLoss | VelocityLoss | StepLoss]:
    """How a recipe is trained; the published numbers for "paper" and "step-warp"."""
    context = RECIPES[name].network.context
    if name == "default":
        batches = BatchSettings(context=context, transplant_share=0.6, missing_shares=(0.3, 0.1))
        loss = RolledLoss(
            rolled_steps=(1, 4, 8, 16), truth_share=0.6, given_mask_share=0.15, displaced=2.0, smoothness=0.005,
            field_outside=0.04,
        )  # fmt: skip
        return TrainSettings(), batches, loss
    published = TrainSettings(
        iterations=200_000, learning_rate=8e-5, constant_rate=True, weight_decay=0.0, ema=0.995,
        save_every=2000, validate_every=5000,
    )  # fmt: skip
    plain = BatchSettings(
        size=16,
        crop=256,
        context=context,
        flip=False,
        rotation_degrees=0,
        scaling=0,
        elastic_pixels=0,
        gamma=0,
        gain=0,
        bias_field=0,
        noise=0,
        blur_share=0,
        centred=True,
    )
    return published, plain, VelocityLoss() if name == "paper" else StepLoss()


def run_training(task: Task, options: TrainOptions, report: Callable[[str], None]) -> Path:
    """Train from a prepared cache.

    Returns:
        The best weights, or the averaged ones where there is no validation.

    Raises:
        D3MError: the cache is not prepared, weights to start from do not fit.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    settings = replace(
        task.settings,
        iterations=options.iterations or task.settings.iterations,
        seed=options.seed,
        validate_every=options.validate_every,
    )
    batches = replace(task.batches, size=options.batch or task.batches.size)
    check_grid(options.cache, task.recipe.name)
    split = read_split(options.cache / SPLIT_NAME)
    used = (split.train, split.validation if task.sampled else ())
    try:
        sizes = task.recipe.network
        entries, held_out = ([open_entry(options.cache, i, sizes.maps, sizes.further) for i in ids] for ids in used)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise D3MError("An entry of the cache is damaged or missing.", "Run `d3m-training prepare` again.") from error
    if not entries:
        raise D3MError("No patient is in the training part.", "Make another split.")
    if is_first_process():
        check_entries(options.cache, (*used[0], *used[1]))
    torch.manual_seed(options.seed)
    module = task.build()
    upper = TARGET_UPPER if task.recipe.grid.target == "t1_scale" else 1.0
    description = {"train": asdict(settings), "batch": asdict(batches), "patients": len(entries), **task.description}
    if is_first_process():
        held = f", {len(held_out)} for validation" if task.sampled else ""
        report(f"{task.title}: {len(entries)} patients for training{held}, {settings.iterations} iterations.")
    validation = None
    if task.sampled and held_out:
        validation = partial(quick_validation, task.sampled, held_out, options.out, report)
    with training_in(options.out, description):
        return train(
            module, Batches(entries, batches, options.seed, upper), settings, options.out, validation, report=report
        )


def start_from(network: torch.nn.Module, folder: Path, sizes: NetworkSizes) -> None:
    """Take a model's weights; inputs that it does not know start at zero.

    Raises:
        D3MError: it is another network's.
    """
    model = load_model(folder)
    weights = model.network.state_dict()
    known = model.card.recipe.network
    if (sizes.further, sizes.maps) != (known.further, known.maps) and STEM in weights:
        weights[STEM] = _with_room(weights[STEM], known, sizes)
    try:
        missing, unexpected = network.load_state_dict(weights, strict=False)
    except RuntimeError:  # sizes of tensors
        missing, unexpected = [], ["sizes"]
    if unexpected or any(not name.startswith("auxiliary.") for name in missing):
        raise D3MError("The weights given with --init belong to another network.", "Choose a model of the same recipe.")


def _with_room(weight: Tensor, known: NetworkSizes, sizes: NetworkSizes) -> Tensor:
    """The first convolution of the compact network with further contrasts and maps among its inputs, which count for
    nothing yet.

    Args:
        weight: (outputs, 4 * (2 + (3 + further + maps) * context), kernel, kernel); the states, then each slice's
            channels.
        known: Sizes of the network that it belongs to.
        sizes: Those of the network that shall start from it.
    """
    by_channel = weight.unflatten(1, (-1, 4))
    states, seen = by_channel[:, :2], by_channel[:, 2:].unflatten(1, (len(known.context), -1))
    parts = seen.split((CONDITION_CHANNELS, known.further, known.maps), dim=2)
    wanted = (CONDITION_CHANNELS, sizes.further, sizes.maps)
    filled = [part if part.shape[2] else part.new_zeros(*part.shape[:2], n, *part.shape[3:])
              for part, n in zip(parts, wanted, strict=True)]  # fmt: skip
    return torch.cat([states, torch.cat(filled, dim=2).flatten(1, 2)], dim=1).flatten(1, 2)
