"""Per patient numbers of a model on patients with a real T1c, through the `Synthesis` and metrics that users have."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from math import nan
from pathlib import Path

import numpy as np
from nibabel import orientations
from scipy import ndimage
from scipy.stats import spearmanr

from d3m import metrics
from d3m.models.card import PatientRow, ValidationRow, ValidationWithout
from d3m.models.expected_error import SPREAD
from d3m.models.load import load_model
from d3m.models.needs import check_missing
from d3m.models.store import find_model, replace_card
from d3m.options import SynthesisOptions
from d3m.results.figure import draw_figure
from d3m.results.provenance import sampling_in_words
from d3m.synthesis import Result, Synthesis
from d3m.system.folders import check_output, whole_folder
from d3m.system.manifest import FolderKind
from d3m.system.text import for_csv
from d3m.volumes.error_features import error_features
from d3m.volumes.geometry import voxel_mm3
from d3m.volumes.grid import resample, to_t1_grid
from d3m.volumes.types import Case, Floats, Mask, ModelInput, Volume
from d3m_training.calibration import mean_row
from d3m_training.data.cache import ENHANCING, scale_target
from d3m_training.data.datasets import read_patient
from d3m_training.data.labels import unify
from d3m_training.data.preparation import collect_annotated
from d3m_training.expected_error import Errors, fit_expected_error, without_each

VALIDATION = FolderKind("validation", "an earlier validation")

THRESHOLDS = tuple(round(0.05 * k, 2) for k in range(1, 19))
"""Probabilities among which the mask's threshold is chosen."""
ERROR_INTERVAL = 7
"""Of so many voxels of a brain one is looked at where errors are ranked."""
EQUAL_DICE = 0.02
"""Dice that differ by no more are equal: their standard error over a dozen patients is three times that, and the
stricter threshold takes away a fifth of the false enhancement."""


@dataclass(frozen=True)
class Evaluated:
    """One patient; `fitted` rows are after the best affine map onto the real image, see `d3m.metrics`."""

    id: str
    psnr_brain: float
    psnr_tumour: float
    psnr_enhancing: float
    ssim_brain: float
    ssim_tumour: float
    own_psnr_brain: float
    """Scaled by its own percentiles instead of fitted."""
    own_ssim_brain: float
    auc_et: float
    auc_et_real: float
    contrast: float
    contrast_real: float
    sub_corr: float
    dice: float
    false_positive_ml: float
    false_negative_ml: float
    false_slices: float
    field_inside: float
    field_border: float
    field_outside: float
    warp_gain: float
    """Mean squared error in the tumour before the last warp minus after it, times 1000, on the target's scale."""
    blur_gain: float
    """The same for a fixed 3 x 3 blur in the place of the warp."""
    flicker: float
    """Mean difference of neighbouring slices, over the real one's."""
    spread_correlation: float
    """Rank correlation of the samples' standard deviation with the error inside the brain; NaN for a single sample."""
    error_correlation: float
    """The same of the expected error, by a fit without the patient."""
    error_ratio: float
    """Mean expected error inside the brain over the mean error, by that fit."""
    t1_psnr_brain: float
    t1_psnr_tumour: float
    t1_psnr_enhancing: float
    t1_ssim_brain: float
    t1_ssim_tumour: float
    seconds: float


@dataclass(frozen=True)
class MaskCurve:
    """Dice, false positive and false negative volume of one patient at each of `THRESHOLDS`."""

    dice: tuple[float, ...]
    false_positive_ml: tuple[float, ...]
    false_negative_ml: tuple[float, ...]
    false_slices: tuple[float, ...]


@dataclass(frozen=True)
class Measured:
    """All that is measured of one patient."""

    row: Evaluated
    curve: MaskCurve
    errors: Errors | None
    """What the expected error is fitted on; None for a single sample, and where the model has such a fit already."""


def evaluate_patient(
    identifier: str, case: Case, t1c: Volume, label: Volume, synthesis: Synthesis, threshold: float | None = None
) -> tuple[Measured, Result]:
    """Synthesise one patient and measure.

    Args:
        identifier: Goes into the row.
        case: The input.
        t1c: The real image on T1's grid.
        label: Labels in the cache's coding on T1's grid.
        synthesis: With `trace` on, so that the warp's gain can be measured.
        threshold: Of the mask's probability; None takes the card's.
    """
    result = synthesis.run(case)
    reorientation = orientations.io_orientation(case.t1.affine)

    def axial(data: np.ndarray) -> np.ndarray:
        return orientations.apply_orientation(data, reorientation)

    brain, labels = axial(case.brain), axial(label.data)
    where = metrics.regions(brain, labels > 0, labels == ENHANCING)
    t1, real_raw, cemri = axial(case.t1.data), axial(t1c.data), axial(result.cemri)
    real = np.where(brain, metrics.scale_by_percentiles(real_raw, brain), 0)
    fitted, fitted_t1 = metrics.fit(cemri, real, brain), metrics.fit(t1, real, brain)
    scores, copied = metrics.similarity(fitted, real, where), metrics.similarity(fitted_t1, real, where)
    own = metrics.similarity(metrics.scale_by_percentiles(cemri, brain), real, where)
    low, high = np.percentile(t1[brain], (0.5, 99.5))
    scaled_t1 = np.clip((t1 - low) / (high - low), 0, 1)
    target = scale_target(scaled_t1, real_raw, brain, labels > 0, synthesis.model.card.recipe.grid)
    synthetic = (cemri - low) / (high - low)
    error = np.abs(synthetic - target)
    change = metrics.enhancement(synthetic - scaled_t1, target - scaled_t1, where)
    probability = axial(result.enhancement_probability)
    voxel_ml = voxel_mm3(case.t1.affine) / 1000
    cut = synthesis.model.card.mask_threshold if threshold is None else threshold
    masks = metrics.overlap(probability >= cut, where.enhancing, brain, voxel_ml)
    field = metrics.field_measures(axial(_field_on_t1(result)), where.tumour, brain)
    gain, blur = _gains(result, target, axial, where.tumour if where.tumour.any() else brain, low, high)
    row = Evaluated(
        identifier,
        scores.psnr_brain, scores.psnr_tumour, scores.psnr_enhancing, scores.ssim_brain, scores.ssim_tumour,
        own.psnr_brain, own.ssim_brain,
        change.auc, change.auc_real, change.contrast, change.contrast_real, change.correlation,
        masks.dice, masks.false_positive_ml, masks.false_negative_ml, masks.false_slices,
        field.inside, field.border, field.outside,
        gain, blur,
        metrics.slice_difference(fitted, brain) / max(metrics.slice_difference(real, brain), 1e-12),
        _spread_correlation(result, axial, error, brain), nan, nan,
        copied.psnr_brain, copied.psnr_tumour, copied.psnr_enhancing, copied.ssim_brain, copied.ssim_tumour,
        sum(asdict(result.timings).values()),
    )  # fmt: skip
    curve, errors = _curve(probability, where.enhancing, brain, voxel_ml), None
    if result.uncertainty is not None and result.uncertainty_is == SPREAD:
        errors = _errors(result, synthesis.prepare(case), high - low, axial, error, brain)
    return Measured(row, curve, errors), result


def _field_on_t1(result: Result) -> Floats:
    grid = result.grid
    parts = [resample(result.displacement[..., k], grid.affine, grid.t1_affine, grid.t1_shape) for k in range(3)]
    return np.stack(parts, axis=-1)


def _gains(
    result: Result, target: Floats, axial: Callable[[np.ndarray], np.ndarray], where: Mask, low: float, high: float
) -> tuple[float, float]:
    """What the last warp and a fixed blur in its place take off the error, times 1000."""
    if not result.trace:
        return float("nan"), float("nan")
    last, grid = result.trace[-1], result.grid

    def error(image: Floats) -> float:
        on_t1 = axial(resample(image, grid.affine, grid.t1_affine, grid.t1_shape))
        return float(np.mean((((on_t1 - low) / (high - low)) - target)[where] ** 2))

    before = error(last.before)
    blurred = ndimage.uniform_filter(last.before, (3, 3, 1), mode="nearest")
    return 1000 * (before - error(last.after)), 1000 * (before - error(blurred))


def _spread_correlation(result: Result, axial: Callable[[np.ndarray], np.ndarray], error: Floats, brain: Mask) -> float:
    if result.uncertainty is None:
        return float("nan")
    ranked = (axial(result.uncertainty)[brain][::ERROR_INTERVAL], error[brain][::ERROR_INTERVAL])
    return float(spearmanr(*ranked).statistic)


def _errors(
    result: Result,
    model_input: ModelInput,
    scale: float,
    axial: Callable[[np.ndarray], np.ndarray],
    error: Floats,
    brain: Mask,
) -> Errors:
    """Some voxels of the brain: what the error is expected from, and the error."""
    grid, t1 = model_input.grid, result.t1
    assert result.uncertainty is not None  # the caller asked
    difference, spread = (
        resample(image / np.float32(scale), t1.affine, grid.affine, grid.shape).transpose(2, 1, 0)
        for image in (result.subtraction, result.uncertainty)
    )
    features = error_features(model_input.slices, difference, spread, model_input.brain)
    on_t1 = [axial(to_t1_grid(one, grid))[brain][::ERROR_INTERVAL] for one in features]
    return Errors(np.stack(on_t1), error[brain][::ERROR_INTERVAL])


def _curve(probability: Floats, true: Mask, brain: Mask, voxel_ml: float) -> MaskCurve:
    measured = [metrics.overlap(probability >= cut, true, brain, voxel_ml) for cut in THRESHOLDS]
    return MaskCurve(
        tuple(m.dice for m in measured),
        tuple(m.false_positive_ml for m in measured),
        tuple(m.false_negative_ml for m in measured),
        tuple(m.false_slices for m in measured),
    )


def best_threshold(curves: Iterable[MaskCurve]) -> float | None:
    """The threshold for the mask, or None without any patient for whom Dice is defined.

    The largest whose mean Dice over the patients comes within `EQUAL_DICE` of the best one's: equally good, with less
    false enhancement.
    """
    return threshold_of([curve.dice for curve in curves])


def threshold_of(dices: Sequence[Sequence[float]]) -> float | None:
    """As `best_threshold`, from each patient's Dice at each of `THRESHOLDS`; the comparison's rule, too."""
    table = np.array([dice for dice in dices if not np.isnan(dice).any()])
    if not len(table):
        return None
    means = table.mean(axis=0)
    return THRESHOLDS[int(np.flatnonzero(means >= means.max() - EQUAL_DICE)[-1])]


T1_COPY = {
    "psnr_brain": "t1_psnr_brain",
    "psnr_tumour": "t1_psnr_tumour",
    "psnr_enhancing": "t1_psnr_enhancing",
    "ssim_brain": "t1_ssim_brain",
    "ssim_tumour": "t1_ssim_tumour",
}


def summarise(rows: Sequence[Evaluated]) -> tuple[ValidationRow, ...]:
    """Mean, standard deviation and number of patients of each quantity; undefined values are left out and counted."""
    table = []
    for field in fields(Evaluated):
        if field.name == "id" or field.name.startswith("t1_"):
            continue
        values = _defined(rows, field.name)
        if not len(values):
            continue
        copied = _defined(rows, T1_COPY[field.name]) if field.name in T1_COPY else np.array([])
        t1_copy = round(float(copied.mean()), 4) if len(copied) else None
        table.append(replace(mean_row(field.name, values), t1_copy=t1_copy))
    return tuple(table)


def _defined(rows: Sequence[Evaluated], name: str) -> np.ndarray:
    values = np.array([getattr(row, name) for row in rows], float)
    return values[np.isfinite(values)]


def patient_rows(rows: Sequence[Evaluated]) -> tuple[PatientRow, ...]:
    """The card's row for each patient."""

    def defined(value: float) -> float | None:
        return round(value, 3) if np.isfinite(value) else None

    return tuple(
        PatientRow(
            r.id, round(r.psnr_brain, 3), round(r.psnr_tumour, 3), defined(r.psnr_enhancing), defined(r.dice),
            round(r.false_positive_ml, 2), round(r.false_negative_ml, 2),
        )
        for r in rows
    )  # fmt: skip


def write_table(path: Path, rows: Sequence[Evaluated]) -> None:
    """One row a patient, as CSV."""
    with path.open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, [field.name for field in fields(Evaluated)])
        writer.writeheader()
        for row in rows:
            writer.writerow({k: for_csv(v if isinstance(v, str) else f"{v:.5g}") for k, v in asdict(row).items()})


def markdown(summary: Sequence[ValidationRow], rows: Sequence[Evaluated]) -> str:
    """The summary as a Markdown table, and for how many patients which quantity is not defined.

    Args:
        summary: Of `rows`.
        rows: The patients.
    """
    lines = ["| quantity | mean | sd | n | copied T1 |", "|---|---|---|---|---|"]
    for row in summary:
        copied = "" if row.t1_copy is None else f"{row.t1_copy:.3f}"
        lines.append(f"| {row.name} | {row.mean:.3f} | {row.sd:.3f} | {row.n} | {copied} |")
    for field in fields(Evaluated):
        missing = 0 if field.name == "id" else len(rows) - len(_defined(rows, field.name))
        if missing:
            lines += [""] * (lines[-1].startswith("|")) + [f"- {field.name}: not defined for {missing} of {len(rows)}."]
    return "\n".join(lines) + "\n"


def validate_run(
    data: Sequence[Path],
    out: Path,
    options: SynthesisOptions,
    enhancing_label: int | None,
    write_card: bool,
    report: Callable[[str], None],
    without: str | None = None,
) -> None:
    """Measure a model patient by patient; tables and pictures go into `out`, which appears whole.

    Args:
        data: Folders or manifests.
        out: For tables and pictures.
        options: Model, quality, device.
        enhancing_label: Value of the enhancing tumour, where the data do not tell it.
        write_card: Write threshold and table into the model's card; without a contrast the table alone.
        report: Gets a line for each patient, and the table.
        without: "t2" or "flair" is left out; the mask's threshold stays the card's.

    Raises:
        D3MError: no annotated patient; a model that cannot be loaded or cannot do without the contrast; `out` holds
            something else or an input.
    """
    folder = find_model(options.model)
    check_output(out, VALIDATION, True, [*data, folder])
    checked = collect_annotated(data, enhancing_label, "Validation needs a real T1c and tumour labels.", report)
    model = load_model(folder)
    if without is not None:
        check_missing(model.card, (without,))
    bare = replace(model, card=replace(model.card, expected_error=None))  # it is fitted anew below
    synthesis = Synthesis(bare, replace(options, trace=True))
    measured = []
    with whole_folder(out, VALIDATION) as place:
        for number, patient in enumerate(checked.patients, start=1):
            case, t1c, labels = read_patient(patient, partial(unify, scheme=checked.schemes[patient.id]))
            assert labels is not None  # only annotated patients were kept
            if without is not None:
                case = _left_out(case, without)
            one, result = evaluate_patient(patient.id, case, t1c, labels, synthesis)
            draw_figure(place / f"{patient.id}.png", result, case)
            row = one.row
            measured.append(one)
            psnr = f"{row.psnr_brain:.2f} {row.psnr_tumour:.2f} {row.psnr_enhancing:.2f}"
            report(f"{number}/{len(checked.patients)} {row.id}: PSNR {psnr}, Dice {row.dice:.3f}")
        rows, curves = [one.row for one in measured], [one.curve for one in measured]
        errors = [one.errors for one in measured if one.errors is not None]
        if without is None and len(errors) == len(rows) > 1:
            rows = [
                replace(row, error_correlation=expected.correlation, error_ratio=expected.ratio)
                for row, expected in zip(rows, without_each(errors), strict=True)
            ]
        threshold = model.card.mask_threshold
        if without is not None:
            report(f"Without {without.upper()}, at the card's mask threshold of {threshold}.")
        elif (best := best_threshold(curves)) is None:
            report(f"No patient has enough enhancing tumour to choose the mask's threshold; it stays {threshold}.")
        else:
            threshold = best
            report(f"Best mask threshold: {threshold}")
            rows = [_at_threshold(row, curve, threshold) for row, curve in zip(rows, curves, strict=True)]
        summary = summarise(rows)
        write_table(place / "patients.csv", rows)
        table = markdown(summary, rows)
        (place / "summary.md").write_text(table, encoding="utf-8")
        report(table)
    if write_card:
        if without is None:
            s = synthesis.sampling
            how = f"{options.quality}: {sampling_in_words(asdict(s))}, {synthesis.on.dtype}"
            note = f"{len(rows)} patients, {how}; the mask's threshold was chosen on them"
            note += ", the expected error fitted." if errors else "."
            card = replace(
                model.card,
                mask_threshold=threshold,
                validation=summary,
                validation_without=(),
                patients=patient_rows(rows),
                validation_note=note,
                expected_error=fit_expected_error(errors) if errors else model.card.expected_error,
            )
        else:
            others = [one for one in model.card.validation_without if one.contrast != without]
            card = replace(model.card, validation_without=(*others, ValidationWithout(without, summary)))
        replace_card(folder, card)


def _left_out(case: Case, contrast: str) -> Case:
    """The case as if a contrast had not been given."""
    volume: Volume = getattr(case, contrast)
    return replace(case, missing=(contrast,), **{contrast: replace(volume, data=np.zeros_like(volume.data))})  # type: ignore[arg-type]


def _at_threshold(row: Evaluated, curve: MaskCurve, threshold: float) -> Evaluated:
    k = THRESHOLDS.index(threshold)
    return replace(
        row,
        dice=curve.dice[k],
        false_positive_ml=curve.false_positive_ml[k],
        false_negative_ml=curve.false_negative_ml[k],
        false_slices=curve.false_slices[k],
    )
