"""Training of the whole-brain stage: one member a fold, each on the patients that the others hold out or share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from d3m.diffusion.networks.whole_brain import WholeBrainNetwork
from d3m.diffusion.precision import autocast
from d3m.diffusion.recipe import REGIONS, WholeBrainSizes
from d3m.errors import D3MError
from d3m.models.load import load_model
from d3m.models.store import find_model
from d3m.system.devices import fastest_dtype
from d3m_training.data.splits import group_of, hash_of, make_folds
from d3m_training.data.whole_brain import CoarsePatient, read_coarse, read_groups
from d3m_training.data.whole_brain_batches import CoarseBatch, WholeBrainBatches, WholeBrainBatchSettings
from d3m_training.train.losses import finite
from d3m_training.train.runs import training_device
from d3m_training.train.trainer import TrainSettings, train, training_in

WHOLE_SHARE = 0.1
"""Share of the iterations, the last ones, that see whole brains instead of crops: as in use."""
DROPOUT = 0.0
CROSS_ENTROPY_WEIGHTS = (3.0, 3.0, 6.0)
DICE_WEIGHT, DICE_SMOOTHING = 0.5, 30.0
ENHANCEMENT_WEIGHT, HUBER = 0.5, 0.2
TUMOUR_FACTOR = 5.0
"""The enhancement counts this much more inside the tumour."""


@dataclass(frozen=True)
class WholeBrainTerms:
    """Loss terms; the Dice are of the training volumes."""

    total: Tensor
    cross_entropy: Tensor
    enhancement: Tensor
    dice_tumour: Tensor
    dice_enhancing: Tensor


class WholeBrainTraining(nn.Module):
    """A member with its loss.

    Cross-entropy and soft Dice of each region where it is known, and the Huber loss of the enhancement:
    `L = mean_r(w_r CE_r + D/2) + H/2`, `D = 1 - (2 sum(pg) + 30) / (sum(p) + sum(g) + 30)`.

    Args:
        network: The member.
        dtype: Of its convolutions; the loss is computed in float32.
    """

    def __init__(self, network: WholeBrainNetwork, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, batch: CoarseBatch, _: torch.Generator) -> WholeBrainTerms:
        """Loss terms of one volume; dropout alone is random."""
        with autocast(self.dtype, batch.seen.device):
            out = self.network(batch.seen)[0].float()
        logits, made = out[: len(REGIONS)], out[len(REGIONS) :]
        weight = batch.brain * batch.known
        over = (1, 2, 3)
        values = functional.binary_cross_entropy_with_logits(logits, batch.regions, reduction="none")
        cross_entropy = (values * weight).sum(over) / batch.brain.sum().clamp(min=1)
        probability, truth = logits.sigmoid() * weight, batch.regions * weight
        overlap = 2 * (probability * truth).sum(over) + DICE_SMOOTHING
        dice = overlap / (probability.sum(over) + truth.sum(over) + DICE_SMOOTHING)
        counted = batch.brain * (1 + (TUMOUR_FACTOR - 1) * (batch.regions[:1] > 0.3))
        wrong = functional.smooth_l1_loss(made, batch.enhancement, beta=HUBER, reduction="none")
        enhancement = (wrong * counted).sum() / counted.sum().clamp(min=1)
        weights = torch.tensor(CROSS_ENTROPY_WEIGHTS, device=out.device)
        total = (weights * cross_entropy + DICE_WEIGHT * (1 - dice)).mean() + ENHANCEMENT_WEIGHT * enhancement
        return WholeBrainTerms(finite(total), cross_entropy.mean(), enhancement, dice[0], dice[2])


def read_all(cache: Path) -> list[CoarsePatient]:
    """Every patient of a folder that `prepare_coarse` filled.

    Raises:
        D3MError: there is none, or a file is damaged.
    """
    paths = sorted(p for p in cache.glob("*.npz") if not p.name.startswith("."))
    if not paths:
        raise D3MError("No patient is prepared in this folder.", "Run `d3m-training whole-brain prepare` first.")
    return [read_coarse(path) for path in paths]


def folds_of(patients: list[CoarsePatient], count: int, groups: Mapping[str, str]) -> tuple[frozenset[str], ...]:
    """The folds: patients with little, with more, and with untold enhancement are spread evenly, slabs for themselves:
    nothing is measured on them, but the maps of each must come from a member that has not seen them.

    Args:
        patients: All.
        count: Number of folds.
        groups: Whose visits they are: visits of a patient are in one fold.
    """
    strata = {p.id: 3 if p.partial else 2 if not p.labelled else int(p.enhancing_ml >= 5) for p in patients}
    return make_folds(strata, groups, count)


def train_fold(
    cache: Path,
    out: Path,
    fold: int,
    count: int,
    iterations: int,
    threads: int | None,
    report: Callable[[str], None],
    init: str | None = None,
) -> Path:
    """Train one member on all patients but its fold's; started again with the same folder it goes on.

    Args:
        cache: From `prepare_coarse`.
        out: For checkpoints and logs.
        fold: Whose patients are held out.
        count: Folds.
        iterations: Volumes.
        threads: Cores; None for all.
        report: Gets lines.
        init: A model's name or folder; its stage's member of this fold is where training starts from.

    Returns:
        The averaged weights.

    Raises:
        D3MError: no such fold; no labelled patient is left to train on; the model's member has seen others.
    """
    if threads:
        torch.set_num_threads(threads)
    if not 0 <= fold < count:
        raise D3MError(f"There is no fold {fold}.", f"Choose 0 to {count - 1}.")
    patients = read_all(cache)
    groups = {p.id: group_of(p.id) for p in patients} | read_groups(cache)
    held_out = folds_of(patients, count, groups)[fold]
    used = [p for p in patients if p.id not in held_out]
    if not any(p.labelled for p in used):
        raise D3MError("No patient whose labels say what enhances is left to train on.", "Prepare more patients.")
    settings = TrainSettings(
        iterations=iterations, learning_rate=2e-3, weight_decay=0.02, betas=(0.9, 0.999), ema=0.995, seed=fold,
        log_every=25, save_every=100, validate_every=0,
    )  # fmt: skip
    batch_settings, sizes = WholeBrainBatchSettings(), WholeBrainSizes()
    torch.manual_seed(fold)
    network = WholeBrainNetwork(sizes, DROPOUT)
    if init is not None:
        network.load_state_dict(_member(init, held_out).state_dict())
    network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    report(f"Fold {fold}: {len(used)} patients for training, {len(held_out)} held out, {iterations} iterations.")
    description = {
        "stage": "whole-brain", "fold": fold, "folds": count, "held_out": sorted(held_out), "patients": len(used),
        "seen": sorted({group_of(p.id) for p in used}), "init": init,
        "train": asdict(settings), "batch": asdict(batch_settings), "sizes": asdict(sizes),
    }  # fmt: skip
    batches = WholeBrainBatches(used, batch_settings, fold, round(iterations * (1 - WHOLE_SHARE)))
    with training_in(out, description):
        module = WholeBrainTraining(network, fastest_dtype(training_device()))
        return train(module, batches, settings, out, None, report)


def _member(name: str, held_out: frozenset[str]) -> WholeBrainNetwork:
    """The member of a model that was not trained on some patients.

    Raises:
        D3MError: the model has none that held out just these.
    """
    model = load_model(find_model(name))
    stage = model.card.whole_brain
    wanted = hash_of(held_out)
    if model.whole_brain is None or stage is None or wanted not in stage.held_out:
        raise D3MError(
            f"The model {model.card.name} has no member that was trained without this fold's patients.",
            "Give the same data and number of folds that its stage was trained with, or leave out --init.",
        )
    member = model.whole_brain.members[stage.held_out.index(wanted)]
    assert isinstance(member, WholeBrainNetwork)
    return member
