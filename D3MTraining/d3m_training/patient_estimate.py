"""Whether and how much enhances in the patient, from the slice network's mask: fitted, measured, put into the card."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from d3m.diffusion.networks.whole_brain import POOLING
from d3m.models.load import load_model
from d3m.models.patient import patient_features
from d3m.models.store import find_model, replace_card
from d3m.options import SynthesisOptions
from d3m.progress import Remaining
from d3m.synthesis import Synthesis
from d3m.volumes.geometry import volume_ml, voxel_mm3
from d3m_training.calibration import HeldOut, calibrate, patient_table
from d3m_training.data.cache import ENHANCING, prepare
from d3m_training.data.datasets import Patient, check, left, read_patient
from d3m_training.data.labels import Scheme, relabelling
from d3m_training.data.preparation import collect, told_by_difference
from d3m_training.data.untold import COARSE_VOXEL_ML


def patient_estimate_run(
    data: Sequence[Path],
    options: SynthesisOptions,
    enhancing_label: int | None,
    write_card: bool,
    report: Callable[[str], None],
) -> None:
    """Fit how "does it enhance?" and the millilitres follow from the mask's probability.

    Args:
        data: Folders or manifests of patients that the model was not trained on. Labels may show the whole tumour
            alone: T1c minus T1 inside it says what enhances.
        options: Model, quality, device.
        enhancing_label: Value of the enhancing tumour, where the data do not tell it.
        write_card: Write calibration and table into the model's card.
        report: Gets a line for each patient, and the table.

    Raises:
        D3MError: all or none of the patients enhance, too few of them, or a model that cannot be loaded.
    """
    folder = find_model(options.model)
    model = load_model(folder)
    patients, faults = collect(data, ("t2",) if "t2" in model.card.optional_contrasts else ())
    checked = check([patient for patient in patients if patient.seg is not None], enhancing_label, 1, report)
    for fault in (*faults, *checked.faults):
        report(f"Left out: {fault.id}: {fault.reason}")
    folds = {group: number for number, group in enumerate(dict.fromkeys(one.group for one in checked.patients))}
    synthesis, seen, remaining = Synthesis(model, options), [], Remaining()
    for number, patient in enumerate(checked.patients, start=1):
        one = _predict(patient, checked.schemes.get(patient.id), synthesis, folds[patient.group])
        if one is None:
            told = "left out, T1c minus T1 does not say clearly what enhances"
        else:
            seen.append(one)
            predicted, peak = math.expm1(one.features[0]), one.features[1]
            told = f"{one.true_ml:.1f} ml, expected by the mask {predicted:.1f} ml, likeliest part {peak:.2f}"
        done = number / len(checked.patients)
        report(f"{number}/{len(checked.patients)} {patient.id}: {told}{left(remaining, done)}")
    calibration, rows = calibrate(seen), patient_table(seen)
    for row in rows:
        report(f"{row.name}: {row.mean:.3f} ± {row.sd:.3f} (n = {row.n})")
    if write_card:
        card = replace(model.card, patient_calibration=calibration, patient_validation=rows)
        replace_card(folder, card)


def _predict(patient: Patient, scheme: Scheme | None, synthesis: Synthesis, fold: int) -> HeldOut | None:
    """One patient; None where nothing says what enhances."""
    case, t1c, labels = read_patient(patient, relabelling(scheme))
    assert labels is not None  # only annotated patients were kept
    if patient.whole_only:
        recipe = synthesis.model.card.recipe
        entry = prepare(patient.id, case, t1c, labels, recipe.grid, recipe.network.stride)
        entry = told_by_difference(entry, recipe.grid)
        if not entry.labelled:
            return None
        true_ml = float((entry.regions[:, 1] == ENHANCING).sum()) * COARSE_VOXEL_ML / POOLING**3
    else:
        true_ml = volume_ml(labels.data == ENHANCING, labels.affine)
    result = synthesis.run(case)
    features = patient_features(result.enhancement_probability[case.brain], voxel_mm3(case.t1.affine) / 1000)
    return HeldOut(patient.id, fold, not patient.whole_only, features, true_ml, result.enhancing_volume_ml)
