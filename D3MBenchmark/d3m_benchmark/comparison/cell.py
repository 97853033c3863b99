"""One method with one seed: trained, its threshold chosen, and measured on every patient of the report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import nn

import d3m
import d3m_benchmark
import d3m_training
from d3m import metrics
from d3m.diffusion.sampler import Condition
from d3m.system.devices import fastest_dtype
from d3m.system.storage import replace_text, writing
from d3m_benchmark.comparison.budget import clock, giga_macs, iterations_in, parameters
from d3m_benchmark.comparison.config import Rung
from d3m_benchmark.comparison.measure import Measures, dice_curve, measure, predict_volume
from d3m_benchmark.comparison.segmenter import hausdorff95, load_segmenter
from d3m_benchmark.comparison.table import Cell, MethodFacts, write_cells
from d3m_benchmark.methods.registry import METHODS, T1_COPY
from d3m_benchmark.methods.training import fresh_method
from d3m_training.data.batches import Batches, BatchSettings
from d3m_training.data.cache import ENHANCING, Entry
from d3m_training.evaluate import threshold_of
from d3m_training.train.checkpoint import read_weights, write_atomically
from d3m_training.train.method import Method, Prediction
from d3m_training.train.trainer import train

FACTS_NAME, CELLS_NAME, PLAN_NAME, PICTURES_NAME = "facts.json", "cells.csv", "plan.json", "pictures.safetensors"
DRAWN = 3
"""Patients of the report that are drawn."""
REGIONS = {
    "psnr_brain": ("psnr", "brain"), "psnr_tumour": ("psnr", "tumour"), "psnr_enhancing": ("psnr", "enhancing"),
    "ssim_brain": ("ssim", "brain"), "ssim_tumour": ("ssim", "tumour"), "error_enhancing": ("error", "enhancing"),
    "flicker": ("flicker", "brain"), "dice": ("dice", "enhancing"), "fp_ml": ("fp_ml", "brain"),
    "fn_ml": ("fn_ml", "enhancing"),
}  # fmt: skip
"""Metric and region of each of `Measures`."""
MASK_METRICS = tuple(REGIONS[key] for key in ("dice", "fp_ml", "fn_ml"))


@dataclass(frozen=True)
class Patients:
    """Who serves for what, at the rung's resolution."""

    fit: Sequence[Entry]
    choose: Sequence[Entry]
    report: Sequence[Entry]
    sample: Entry
    """The sample case: drawn, not measured."""
    spacing_mm: tuple[float, float, float]
    """Of slices, rows and columns."""
    data_hash: str
    """Of all their content."""


@dataclass(frozen=True)
class CellFacts:
    """How one cell was made; kept beside its numbers."""

    facts: MethodFacts
    threshold: float
    """Of the mask, chosen on the patients for that."""
    data_hash: str
    code_hash: str
    """Of the sources that made it."""
    torch: str
    device: str


def cell_folder(out: Path, rung: str, method: str, seed: int) -> Path:
    """Where a cell's training and numbers are."""
    return out / "cells" / rung / method / f"seed{seed}"


def code_hash() -> str:
    """Hash of the sources of engine, training and benchmark."""
    digest = hashlib.sha256()
    for package in (d3m, d3m_training, d3m_benchmark):
        root = Path(str(package.__file__)).parent
        for source in sorted(root.rglob("*.py")):
            digest.update(source.relative_to(root).as_posix().encode() + source.read_bytes())
    return digest.hexdigest()[:12]


def run_cell(
    folder: Path, rung: Rung, name: str, seed: int, patients: Patients, segmenter_weights: Path, threads: int,
    report: Callable[[str], None],
) -> None:  # fmt: skip
    """Train and measure one method; what is done already is not done again.

    Args:
        folder: Of this cell.
        rung: Its conditions.
        name: Of the method.
        seed: Decides weights, batches and noise.
        patients: Who.
        segmenter_weights: From `train_segmenter`.
        threads: Cores.
        report: Gets lines.
    """
    torch.set_num_threads(threads)
    folder.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == T1_COPY:
        predict, facts = copy_t1, MethodFacts(T1_COPY, "Copied T1", "no training", 0, 0.0, 0, 0, 0.0, rung.name)
    else:
        method, facts = _trained(folder, rung, name, seed, patients, device, threads, report)
        predict = partial(method.predict, seed=seed)
    context = rung.context
    threshold = _choose(predict, patients.choose, context, device)
    segmenter = load_segmenter(segmenter_weights, device)
    voxel_ml = float(np.prod(patients.spacing_mm)) / 1000
    cells: list[Cell] = []
    images = {patients.sample.id: predict_volume(predict, patients.sample, context, device).image}
    for entry in patients.report:
        predicted = predict_volume(predict, entry, context, device)
        if len(images) <= DRAWN:
            images[entry.id] = predicted.image
        values = measured_values(measure(predicted, entry, threshold, voxel_ml))
        if name == T1_COPY:  # it claims no mask
            values |= dict.fromkeys(MASK_METRICS, float("nan"))
        values["seconds", "volume"] = predicted.seconds
        slices, regions = np.asarray(entry.scans[:, :3], np.float32), np.asarray(entry.regions)
        found = segmenter.segment(slices, predicted.image, regions[:, 0] > 0)
        values |= segmented_values(found, regions[:, 1] == ENHANCING, patients.spacing_mm)
        cells += [Cell(name, entry.id, seed, metric, region, value) for (metric, region), value in values.items()]
        report(f"{rung.name} {name} seed {seed}: {entry.id}  tumour PSNR {values['psnr', 'tumour']:.2f}")
    write_cells(folder / CELLS_NAME, cells)
    write_atomically(folder / PICTURES_NAME, {k: torch.from_numpy(v).half() for k, v in images.items()}, {})
    made = CellFacts(facts, threshold, patients.data_hash, code_hash(), version("torch"), device_name(device, threads))
    with writing():  # last: where it is, the cell is whole
        replace_text(folder / FACTS_NAME, json.dumps(asdict(made), indent=1) + "\n")


def batch_settings(rung: Rung) -> BatchSettings:
    """What all methods of a rung are trained with; bends and slices' sizes are alike in millimetres everywhere."""
    usual = BatchSettings()
    return BatchSettings(
        size=rung.batch,
        crop=rung.crop,
        context=rung.context,
        elastic_pixels=usual.elastic_pixels / rung.coarser,
        min_brain_voxels=usual.min_brain_voxels // rung.coarser**2,
    )


def measured_values(measures: Measures) -> dict[tuple[str, str], float]:
    """By metric and region."""
    return {REGIONS[key]: value for key, value in asdict(measures).items()}


def segmented_values(
    found: np.ndarray, true: np.ndarray, spacing_mm: tuple[float, float, float]
) -> dict[tuple[str, str], float]:
    """Dice and Hausdorff distance of what the fixed segmenter finds, by metric and region."""
    dice = metrics.dice(found, true) if true.sum() >= metrics.MIN_DICE_VOXELS else float("nan")
    return {
        ("segmenter_dice", "enhancing"): dice,
        ("segmenter_hd95", "enhancing"): hausdorff95(found, true, spacing_mm),
    }


def copy_t1(condition: Condition) -> Prediction:
    """T1 as the image, nothing as the mask."""
    return Prediction(condition.t1 * condition.brain, torch.zeros_like(condition.t1))


def device_name(device: torch.device, threads: int) -> str:
    """For the report."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {threads} {'core' if threads == 1 else 'cores'}, {fastest_dtype(device)}".replace("torch.", "")


def _trained(
    folder: Path, rung: Rung, name: str, seed: int, patients: Patients, device: torch.device,
    threads: int, report: Callable[[str], None],
) -> tuple[Method, MethodFacts]:  # fmt: skip
    """The method with the averaged weights of its training."""
    spec = METHODS[name]
    build = partial(fresh_method, name, rung.size, rung.context, device, seed)
    batch = batch_settings(rung)
    batches = Batches(patients.fit, batch, seed)
    plan = folder / PLAN_NAME
    if not plan.is_file():  # how much fits is measured once, so that a resumed training has the same schedule
        iterations = rung.iterations or iterations_in(rung.minutes or 0, build, batches, device, threads)
        with writing():
            replace_text(plan, json.dumps({"iterations": iterations}) + "\n")
    iterations = int(json.loads(plan.read_text(encoding="utf-8"))["iterations"])
    settings = replace(
        spec.settings(rung.size),
        iterations=iterations,
        seed=seed,
        validate_every=0,
        save_every=max(50, iterations // 6),
    )
    method = build()
    assert isinstance(method, nn.Module)
    seconds = _Clock(folder, device, threads)

    def tell(line: str) -> None:
        report(f"{rung.name} {name} seed {seed}: {line}")

    with seconds:
        weights = train(method, batches, settings, folder, report=tell)
    method.network.load_state_dict(read_weights(weights))
    method.to(device).eval()
    shape = patients.report[0].scans.shape[-2:]
    return method, MethodFacts(
        name, spec.title, spec.source, parameters(method.network), giga_macs(method, rung.context, shape, device),
        method.steps, iterations, seconds.total, rung.name,
    )  # fmt: skip


class _Clock:
    """Seconds of training, those before an interruption included as far as they were saved; see `budget.clock`."""

    def __init__(self, folder: Path, device: torch.device, threads: int) -> None:
        self._path = folder / "seconds.txt"
        self._now = partial(clock, device, threads)
        self.total = float(self._path.read_text()) if self._path.is_file() else 0.0

    def __enter__(self) -> None:
        self._started = self._now()

    def __exit__(self, *error: object) -> None:
        self.total += self._now() - self._started
        replace_text(self._path, f"{self.total:.1f}\n")


def _choose(
    predict: Callable[[Condition], Prediction], entries: Sequence[Entry], context: tuple[int, ...], device: torch.device
) -> float:
    """The mask's threshold, by the rule of `d3m-training validate`."""
    curves = [dice_curve(predict_volume(predict, entry, context, device), entry) for entry in entries]
    threshold = threshold_of(curves)
    return 0.5 if threshold is None else threshold
