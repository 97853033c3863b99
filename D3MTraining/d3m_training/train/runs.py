"""Whole runs: training from a cache, validation on files, export to a model's folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError

from d3m.diffusion.networks.slice import build_network
from d3m.errors import D3MError
from d3m.models.card import Card
from d3m.models.load import load_model, save_model
from d3m.models.recipes import CURRENT_NAME, RECIPES, Recipe
from d3m.models.store import CARD_NAME, MODEL, find_model
from d3m.options import SynthesisOptions
from d3m.results.figure import draw_figure
from d3m.synthesis import Synthesis
from d3m.system.devices import fastest_dtype
from d3m.system.folders import check_output, whole_folder
from d3m.system.manifest import FolderKind, relist
from d3m.system.storage import replace_text, writing
from d3m.system.text import read_object
from d3m_training import evaluate
from d3m_training.data.batches import Batches, BatchSettings
from d3m_training.data.cache import TARGET_UPPER, check_entries, open_entry
from d3m_training.data.datasets import read_patient
from d3m_training.data.labels import unify
from d3m_training.data.preparation import SPLIT_NAME, check_grid, collect_annotated
from d3m_training.data.splits import read_split
from d3m_training.train.checkpoint import read_checked
from d3m_training.train.d3m import DROPOUT, PUBLISHED_LOSS, STEP_WARP_LOSS, D3MTraining, LossSettings
from d3m_training.train.quick import quick_validation
from d3m_training.train.trainer import RUN_NAME, TrainSettings, is_first_process, train, training_in

VALIDATION = FolderKind("validation", "an earlier validation")


def recipe_settings(name: str) -> tuple[TrainSettings, BatchSettings, LossSettings]:
    """How a recipe is trained; the published numbers for "paper" and "step-warp"."""
    context = RECIPES[name].network.context
    if name == "default":
        batches = BatchSettings(context=context, transplant_share=0.6, missing_shares=(0.15, 0.1))
        loss = LossSettings(rolled_steps=(1, 4, 8, 16), truth_share=0.6, given_mask_share=0.15)
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
    return published, plain, PUBLISHED_LOSS if name == "paper" else STEP_WARP_LOSS


def train_run(
    cache: Path,
    out: Path,
    recipe_name: str,
    iterations: int | None,
    batch: int | None,
    init: Path | None,
    seed: int,
    threads: int | None,
    validate_every: int,
    report: Callable[[str], None],
) -> Path:
    """Train from a prepared cache.

    Returns:
        The best weights.

    Raises:
        D3MError: the cache is not prepared, weights to start from do not fit.
    """
    if threads:
        torch.set_num_threads(threads)
    recipe = RECIPES[recipe_name]
    settings, batch_settings, loss = recipe_settings(recipe_name)
    settings = replace(settings, iterations=iterations or settings.iterations, seed=seed, validate_every=validate_every)
    batch_settings = replace(batch_settings, size=batch or batch_settings.size)
    check_grid(cache, recipe_name)
    split = read_split(cache / SPLIT_NAME)
    try:
        entries, held_out = ([open_entry(cache, i) for i in ids] for ids in (split.train, split.validation))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise D3MError("An entry of the cache is damaged or missing.", "Run `d3m-training prepare` again.") from error
    if not entries:
        raise D3MError("No patient is in the training part.", "Make another split.")
    if is_first_process():
        check_entries(cache, (*split.train, *split.validation))
    torch.manual_seed(seed)
    network = build_network(recipe.network, DROPOUT)
    if init is not None:
        _start_from(network, init)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = D3MTraining(network, recipe.diffusion, loss, fastest_dtype(device))
    upper = TARGET_UPPER if recipe.grid.target == "t1_scale" else 1.0
    description = {
        "recipe": recipe_name, "train": asdict(settings), "batch": asdict(batch_settings), "loss": asdict(loss),
        "patients": len(entries), "init": None if init is None else init.name, "dropout": DROPOUT,
    }  # fmt: skip
    if is_first_process():
        report(
            f"{len(entries)} patients for training, {len(held_out)} for validation, {settings.iterations} iterations."
        )
    validation = partial(quick_validation, recipe, held_out, out, report) if held_out else None
    with training_in(out, description):
        return train(module, Batches(entries, batch_settings, seed, upper), settings, out, validation, report)


def _start_from(network: torch.nn.Module, folder: Path) -> None:
    weights = load_model(folder).network.state_dict()
    missing, unexpected = network.load_state_dict(weights, strict=False)
    if unexpected or any(not name.startswith("auxiliary.") for name in missing):
        raise D3MError("The weights given with --init belong to another network.", "Choose a model of the same recipe.")


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
        training = (
            f"Recipe {recipe.name}, {int(description['patients'])} patients, "
            f"{int(description['train']['iterations'])} iterations of {int(description['batch']['size'])} slices, "
            f"seed {int(description['train']['seed'])}."
        )
    except (D3MError, KeyError, TypeError, ValueError, AttributeError) as error:  # another program's, or another's tool
        raise D3MError("This is not the folder of a training.", "Give the --out of `d3m-training train`.") from error
    weights = next((run / n for n in ("best.safetensors", "last.safetensors") if (run / n).is_file()), None)
    if weights is None:
        raise D3MError("The training has no weights yet.", "Train at least until the first save.")
    try:
        card = Card(**{"title": name, "training": training} | texts, name=name, recipe=recipe, weights_sha256="0" * 64)  # type: ignore[arg-type]
    except TypeError as error:
        raise D3MError(f"The card has no such field ({error}).", "Check the file of texts.") from error
    try:
        tensors, _ = read_checked(weights)
    except (SafetensorError, OSError, ValueError) as error:
        raise D3MError(
            f"The training's {weights.name} is damaged.", "Continue the training until the next save."
        ) from error
    return save_model(out, card, tensors)


def validate_run(
    data: Sequence[Path],
    out: Path,
    model_name: str | None,
    quality: str,
    steps: int | None,
    samples: int | None,
    enhancing_label: int | None,
    device: str,
    write_card: bool,
    report: Callable[[str], None],
) -> None:
    """Measure a model patient by patient; tables and pictures go into `out`, which appears whole.

    Raises:
        D3MError: no annotated patient; a model that cannot be loaded; `out` holds something else or an input.
    """
    folder = find_model(model_name)
    check_output(out, VALIDATION, True, [*data, folder])
    checked = collect_annotated(data, enhancing_label, "Validation needs a real T1c and tumour labels.", report)
    model = load_model(folder)
    synthesis = Synthesis(
        model, SynthesisOptions(device=device, quality=quality, steps=steps, samples=samples, trace=True)
    )
    rows, curves = [], []
    with whole_folder(out, VALIDATION) as place:
        for number, patient in enumerate(checked.patients, start=1):
            case, t1c, labels = read_patient(patient, partial(unify, scheme=checked.schemes[patient.id]))
            assert labels is not None  # only annotated patients were kept
            row, curve, result = evaluate.evaluate_patient(patient.id, case, t1c, labels, synthesis)
            rows.append(row)
            curves.append(curve)
            draw_figure(place / f"{patient.id}.png", result, case)
            psnr = f"{row.psnr_brain:.2f} {row.psnr_tumour:.2f} {row.psnr_enhancing:.2f}"
            report(f"{number}/{len(checked.patients)} {row.id}: PSNR {psnr}, Dice {row.dice:.3f}")
        threshold = evaluate.best_threshold(curves)
        if threshold is None:
            threshold = model.card.mask_threshold
            report(f"No patient has enough enhancing tumour to choose the mask's threshold; it stays {threshold}.")
        else:
            report(f"Best mask threshold: {threshold}")
            rows = [_at_threshold(row, curve, threshold) for row, curve in zip(rows, curves, strict=True)]
        summary = evaluate.summarise(rows)
        evaluate.write_table(place / "patients.csv", rows)
        table = evaluate.markdown(summary, rows)
        (place / "summary.md").write_text(table, encoding="utf-8")
        report(table)
    if write_card:
        s = synthesis.sampling
        how = f"{quality}: {s.steps} steps, {s.samples} samples, {synthesis.dtype}"
        note = f"{len(rows)} patients, {how}; the mask's threshold was chosen on them."
        card = replace(
            model.card,
            mask_threshold=threshold,
            validation=summary,
            patients=evaluate.patient_rows(rows),
            validation_note=note,
        )
        with writing(), relist(folder, CARD_NAME):
            replace_text(folder / CARD_NAME, card.to_json())


def _at_threshold(row: evaluate.Evaluated, curve: evaluate.MaskCurve, threshold: float) -> evaluate.Evaluated:
    k = evaluate.THRESHOLDS.index(threshold)
    return replace(
        row,
        dice=curve.dice[k],
        false_positive_ml=curve.false_positive_ml[k],
        false_negative_ml=curve.false_negative_ml[k],
        false_slices=curve.false_slices[k],
    )
