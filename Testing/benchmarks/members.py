"""Are networks that are trained apart better than one? `python members.py CACHE OUT [ITERATIONS]`.

Half resolution, one core, short trainings: for choosing between ideas, not for shipping. CACHE is made by `d3m-training
prepare` with training and validation patients. Five folds by patient over the labelled training patients (who is held
out of which is written to OUT/folds.json; patients without labels serve all); for each a network that has not seen it,
and two on everybody: for as many batches as a member, and for three times as many. Resumes where it was.

Printed: the members on the patients that each has not seen; on the validation patients one member (mean over the five),
the mean of the five members' images and probabilities, and the two on everybody, all at the threshold that the members'
held-out patients give; the differences with the p value of Wilcoxon's signed-rank test over patients, not corrected for
their number; and how the members' spread goes with the error of their mean, as a rank correlation over the brain.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas
import torch
from scipy.stats import spearmanr, wilcoxon
from torch import nn

from d3m import metrics
from d3m.models.recipes import DEFAULT
from d3m_benchmark.comparison.cell import batch_settings
from d3m_benchmark.comparison.coarse import coarser, made_entries
from d3m_benchmark.comparison.config import Rung
from d3m_benchmark.comparison.measure import Predicted, dice_curve, measure, predict_volume
from d3m_benchmark.methods.registry import METHODS
from d3m_benchmark.methods.training import fresh_method
from d3m_training.data.batches import Batches
from d3m_training.data.cache import ENHANCING, Entry, open_entry
from d3m_training.data.preparation import SPLIT_NAME, network_stride
from d3m_training.data.splits import group_of, make_folds, read_split
from d3m_training.evaluate import threshold_of
from d3m_training.train.checkpoint import read_weights
from d3m_training.train.method import Method
from d3m_training.train.trainer import train

FOLDS, LONGER = 5, 3
RUNG = Rung(name="members", methods=("d3m",), coarser=2, iterations=850, crop=64)
VOXEL_ML = RUNG.coarser**2 / 1000
"""Of a voxel of 2 x 2 x 1 mm."""
MUCH_ML = 5.0
"""Of enhancing tumour: patients below and above are spread over the folds."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Data:
    """Everybody at the rung's resolution."""

    labelled: dict[str, Entry]
    others: tuple[Entry, ...]
    """Of the training part, without labels."""
    validation: tuple[Entry, ...]
    folds: tuple[frozenset[str], ...]


def open_data(cache: Path, out: Path) -> Data:
    """Read the cache, coarser; decide who is in which fold."""
    split, stride = read_split(cache / SPLIT_NAME), network_stride(DEFAULT.name)
    make = partial(coarser, factor=RUNG.coarser, stride=stride)
    ids = (*split.train, *split.validation)
    folder = made_entries(cache, out / "coarser", ids, make, "coarser", DEFAULT.grid, stride)
    fit = [open_entry(folder, i) for i in split.train]
    labelled = {entry.id: entry for entry in fit if entry.labelled}
    strata = {i: int(_enhancing_ml(entry) >= MUCH_ML) for i, entry in labelled.items()}
    folds = make_folds(strata, {i: group_of(i) for i in labelled}, FOLDS)
    (out / "folds.json").write_text(json.dumps([sorted(fold) for fold in folds], indent=1) + "\n")
    validation = [open_entry(folder, i) for i in split.validation]
    return Data(
        labelled,
        tuple(entry for entry in fit if not entry.labelled),
        tuple(entry for entry in validation if entry.labelled),
        folds,
    )


def _enhancing_ml(entry: Entry) -> float:
    return float((np.asarray(entry.regions[:, 1]) == ENHANCING).sum()) * VOXEL_ML


def trained(folder: Path, entries: list[Entry], seed: int, iterations: int) -> Method:
    """A network fitted on some patients, with its averaged weights; a training that is there is gone on with."""
    folder.mkdir(parents=True, exist_ok=True)
    method = fresh_method("d3m", RUNG.size, RUNG.context, CPU, seed)
    assert isinstance(method, nn.Module)
    settings = replace(
        METHODS["d3m"].settings(RUNG.size),
        iterations=iterations,
        seed=seed,
        validate_every=0,
        save_every=max(50, iterations // 6),
    )
    batches = Batches(entries, batch_settings(RUNG), seed)
    weights = train(method, batches, settings, folder, report=partial(print, folder.name, file=sys.stderr))
    method.network.load_state_dict(read_weights(weights))
    return method.eval()


def predicted(method: Method, entry: Entry) -> Predicted:
    """One sample in one step, as `preview` draws it."""
    return predict_volume(partial(method.predict, seed=0), entry, RUNG.context, CPU)


def mean_of(parts: list[Predicted]) -> Predicted:
    """The mean image and probability."""
    image, probability = (np.mean([getattr(p, name) for p in parts], axis=0) for name in ("image", "probability"))
    return Predicted(image, probability, sum(part.seconds for part in parts))


def numbers(made: Predicted, entry: Entry, threshold: float) -> dict[str, float]:
    """A patient's numbers: `Measures`, the mask's AUC, its volume and the true one."""
    true, brain = (np.asarray(entry.regions[:, 1]) == ENHANCING, np.asarray(entry.regions[:, 0]) > 0)
    auc = metrics.auc(made.probability, true, brain) if true.any() else float("nan")
    told = asdict(measure(made, entry, threshold, VOXEL_ML))
    ml = float((made.probability >= threshold).sum()) * VOXEL_ML
    return told | {"auc_mask": auc, "ml": ml, "true_ml": _enhancing_ml(entry)}


def agreement(parts: list[Predicted], entry: Entry) -> float:
    """Rank correlation over the brain of the members' spread with the absolute error of their mean."""
    brain, target = np.asarray(entry.regions[:, 0]) > 0, np.asarray(entry.scans[:, 3], np.float32)
    real = np.where(brain, metrics.scale_by_percentiles(target, brain), 0)
    fitted = metrics.fit(mean_of(parts).image, real, brain)
    spread = np.std([part.image for part in parts], axis=0)
    return float(spearmanr(spread[brain], np.abs(fitted - real)[brain]).statistic)


SHOWN = ("psnr_brain", "psnr_tumour", "psnr_enhancing", "ssim_tumour", "dice", "fp_ml", "fn_ml", "auc_mask")


def row(name: str, table: pandas.DataFrame) -> str:
    """A line of the printed table: means over patients, share with a Dice above 0.5, R2 of the volume."""
    error = ((table.ml - table.true_ml) ** 2).sum()
    r2 = 1 - error / ((table.true_ml - table.true_ml.mean()) ** 2).sum()
    good = (table.dice.dropna() > 0.5).mean()
    values = " | ".join(f"{table[key].mean():.3f}" for key in SHOWN)
    return f"| {name} | {len(table)} | {values} | {good:.0%} | {r2:.2f} |"


def main(cache: Path, out: Path, iterations: int) -> None:
    """Train what is missing, and print the tables."""
    torch.set_num_threads(1)
    data = open_data(cache, out)
    members = []
    for number, fold in enumerate(data.folds):
        fit = [*data.others, *(entry for i, entry in data.labelled.items() if i not in fold)]
        members.append(trained(out / f"member{number}", fit, number, iterations))
    held = {i: predicted(members[k], data.labelled[i]) for k, fold in enumerate(data.folds) for i in sorted(fold)}
    threshold = threshold_of([dice_curve(made, data.labelled[i]) for i, made in held.items()])
    assert threshold is not None, "no held-out patient has enough enhancing tumour"
    print(f"Threshold {threshold}, {iterations} iterations a member")
    print(f"| networks | patients | {' | '.join(SHOWN)} | Dice > 0.5 | R2 of the volume |")
    print("|---" * (len(SHOWN) + 4) + "|")
    unseen = pandas.DataFrame([numbers(made, data.labelled[i], threshold) for i, made in held.items()])
    print(row("members, each on those it has not seen", unseen), flush=True)

    parts = {entry.id: [predicted(member, entry) for member in members] for entry in data.validation}
    entries = {entry.id: entry for entry in data.validation}
    single = [
        pandas.DataFrame({i: numbers(made[k], entries[i], threshold) for i, made in parts.items()}).T
        for k in range(FOLDS)
    ]
    tables = {
        "one member": sum(single[1:], single[0]) / FOLDS,
        "mean of five": pandas.DataFrame(
            {i: numbers(mean_of(made), entries[i], threshold) for i, made in parts.items()}
        ).T,
    }
    everybody = [*data.others, *data.labelled.values()]
    for name, times in (("one on everybody", 1), ("one on everybody, three times as long", LONGER)):
        method = trained(out / f"everybody{times}", everybody, FOLDS, times * iterations)
        tables[name] = pandas.DataFrame({i: numbers(predicted(method, e), e, threshold) for i, e in entries.items()}).T
    for name, table in tables.items():
        print(row(name, table))
    for name in tables:
        if name != "mean of five":
            told = []
            for key in SHOWN:
                difference = (tables["mean of five"][key] - tables[name][key]).dropna()
                told.append(f"{key} {difference.mean():+.3f} (p {wilcoxon(difference).pvalue:.2g})")
            print(f"Mean of five minus {name}: {', '.join(told)}")
    found = [agreement(made, entries[i]) for i, made in parts.items()]
    print(f"Spread of the five against the error of their mean: {np.mean(found):.2f} (sd {np.std(found, ddof=1):.2f})")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else RUNG.iterations or 0)
