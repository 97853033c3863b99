"""From trained folds to a model's whole-brain stage: measured and calibrated on patients that each member never saw."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from d3m import metrics
from d3m.diffusion.networks.whole_brain import WholeBrainEnsemble, network_input
from d3m.diffusion.precision import autocast
from d3m.diffusion.recipe import REGIONS, WholeBrainSizes
from d3m.errors import D3MError
from d3m.models.card import ValidationRow, WholeBrain
from d3m.models.load import load_model, save_model
from d3m.models.patient import patient_features
from d3m.models.store import CARD_NAME, MODEL, WHOLE_BRAIN_NAME, find_model
from d3m.system.devices import fastest_dtype
from d3m.system.folders import check_output
from d3m_training.calibration import HeldOut, calibrate, mean_row, patient_table
from d3m_training.data.splits import hash_of
from d3m_training.data.untold import COARSE_VOXEL_ML
from d3m_training.data.whole_brain import CoarsePatient
from d3m_training.data.whole_brain_batches import COARSE_SPACING
from d3m_training.train.checkpoint import read_weights
from d3m_training.train.trainer import RUN_NAME
from d3m_training.train.whole_brain import read_all

LEAST_VOXELS = 50
"""Dice is defined from so many enhancing millimetre voxels on, as in `d3m.metrics`."""


@dataclass(frozen=True)
class Measured(HeldOut):
    """A patient whom a member had not seen, with what its maps reach."""

    auc: float
    """How well the probability ranks enhancing voxels above the rest of the brain; NaN without enhancement."""
    dice_tumour: float
    dice_enhancing: tuple[float, ...]
    """At each of `CUTS`."""


CUTS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)


def finish_stage(
    cache: Path, runs: Sequence[Path], model_name: str | None, report: Callable[[str], None]
) -> WholeBrain:
    """Measure the folds on what each held out, calibrate the patient's numbers, and put the stage into a model.

    Args:
        cache: From `prepare_coarse`.
        runs: Folders of the folds' trainings.
        model_name: A model's name or folder; its slice network stays as it is.
        report: Gets the table.

    Raises:
        D3MError: a fold is not trained, or belongs to other folds; the model cannot be written.
    """
    folder = find_model(model_name)
    check_output(folder, MODEL, True)
    patients = {p.id: p for p in read_all(cache)}
    folds, seen = read_folds(runs), []
    for fold in folds:
        for identifier in fold.held_out:
            if identifier in patients and not patients[identifier].partial:
                seen.append(measure(patients[identifier], fold.member, fold.number))
                report(f"{len(seen)} {identifier}: true {seen[-1].true_ml:.1f} ml, features {seen[-1].features}")
    if len({one.id for one in seen}) != len(seen):
        raise D3MError("A patient is held out by two of the folds.", "Give folds of one cross-validation.")
    calibration = calibrate(seen)
    rows = table(seen)
    for row in rows:
        report(f"{row.name}: {row.mean:.3f} ± {row.sd:.3f} (n = {row.n})")
    stage = WholeBrain(
        "0" * 64, WholeBrainSizes(), len(folds), calibration,
        training=f"{len(folds)} members, each on the patients that its fold does not hold out.",
        validation=rows,
        validation_note=f"{len(seen)} patients, each predicted by the member that had not seen it; the patient's "
        "numbers by a calibration without the patient's fold.",
        held_out=tuple(hash_of(fold.held_out) for fold in folds),
    )  # fmt: skip
    model = load_model(folder)
    weights = {
        name.replace("members.0", f"members.{k}", 1): value
        for k, fold in enumerate(folds)
        for name, value in fold.member.state_dict().items()
    }
    slices = model.network.state_dict()
    card = save_model(folder, replace(model.card, whole_brain=stage), slices, weights)
    assert card.whole_brain is not None
    report(f"{CARD_NAME} and {WHOLE_BRAIN_NAME} are in {folder}")
    return card.whole_brain


@dataclass(frozen=True)
class Fold:
    """A trained fold."""

    number: int
    held_out: tuple[str, ...]
    seen: frozenset[str]
    """Groups of the patients it was trained on, see `group_of`."""
    member: WholeBrainEnsemble
    """With its averaged weights."""


def read_folds(runs: Sequence[Path]) -> list[Fold]:
    """The folds of one cross-validation.

    Raises:
        D3MError: a folder is not the training run of a fold, or not ended.
    """
    folds = []
    for run in runs:
        try:
            description = json.loads((run / RUN_NAME).read_text(encoding="utf-8"))
            if description["stage"] != "whole-brain":
                raise KeyError("stage")
            number, held_out = int(description["fold"]), tuple(str(one) for one in description["held_out"])
            seen = frozenset(str(one) for one in description["seen"])
            state = read_weights(run / "last.safetensors")
            member = WholeBrainEnsemble(WholeBrainSizes(), 1)
            member.members[0].load_state_dict(state)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise D3MError(
                f"{run.name} is not the training run of a fold.",
                "Give folders that `d3m-training whole-brain train` wrote.",
            ) from error
        folds.append(Fold(number, held_out, seen, member.eval()))
    return folds


def measure(patient: CoarsePatient, member: WholeBrainEnsemble, fold: int) -> Measured:
    """One patient by one member, mirror-averaged."""
    seen = network_input(patient.scans, patient.brain, patient.present, COARSE_SPACING)[None]
    cpu = torch.device("cpu")
    with torch.inference_mode(), autocast(fastest_dtype(cpu), cpu):
        network = member.members[0]
        both = torch.cat([network(seen), network(seen.flip(-1)).flip(-1)]).float()
        probability = (both[:, : len(REGIONS)].sigmoid().mean(0) * patient.brain).numpy()
    brain = patient.brain[0].numpy() > 0
    truth = patient.regions.numpy() > 0.5
    known = patient.known.numpy() > 0
    enhancing, region = probability[2], truth[2]
    where = brain & known[2]
    return Measured(
        patient.id, fold, patient.labelled, patient_features(enhancing, COARSE_VOXEL_ML), patient.enhancing_ml,
        float((enhancing >= 0.5).sum()) * COARSE_VOXEL_ML,
        metrics.auc(enhancing, region, where),
        metrics.dice(probability[0] >= 0.5, truth[0]),
        tuple(
            metrics.dice((enhancing >= cut) & where, region) if patient.enhancing_ml * 1000 >= LEAST_VOXELS else np.nan
            for cut in CUTS
        ),
    )  # fmt: skip


def table(seen: Sequence[Measured]) -> tuple[ValidationRow, ...]:
    """What the stage reaches on patients that it had not seen; the patient's numbers by fits without their fold."""
    dice = np.array([one.dice_enhancing for one in seen if one.labelled])
    best = int(np.nanmean(dice, axis=0).argmax())
    return (
        *patient_table(seen),
        mean_row("auc_enhancing_voxels", np.array([one.auc for one in seen if one.labelled])),
        mean_row("dice_whole_tumour", np.array([one.dice_tumour for one in seen])),
        mean_row(f"dice_enhancing_at_{CUTS[best]:g}", dice[:, best]),
    )
