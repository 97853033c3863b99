"""Run or resume a whole comparison: prepare, train and measure every cell, and report."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.managers import SyncManager
from pathlib import Path

import numpy as np
import torch

from d3m import metrics
from d3m.errors import D3MError
from d3m.models.recipes import DEFAULT
from d3m.models.store import find_sample
from d3m.system.devices import visible_gpus
from d3m.system.folders import check_output
from d3m.system.locks import held
from d3m.system.processes import end_with_parent
from d3m.system.storage import replace_text, writing
from d3m_benchmark.comparison.cell import FACTS_NAME, Patients, batch_settings, cell_folder, run_cell
from d3m_benchmark.comparison.coarse import coarser, made_entries
from d3m_benchmark.comparison.collect import PRIVATE, REPORT, collect
from d3m_benchmark.comparison.config import Comparison, Rung
from d3m_benchmark.comparison.misaligned import misaligned
from d3m_benchmark.comparison.report import COMPARISON
from d3m_benchmark.comparison.segmenter import load_segmenter, train_segmenter
from d3m_training.data.cache import ENHANCING, Entry, is_whole, open_entry, prepare, write_entry
from d3m_training.data.datasets import Patient, check, read_patient
from d3m_training.data.labels import unify
from d3m_training.data.preparation import SPLIT_NAME, PrepareOptions, check_grid, network_stride, prepare_cache
from d3m_training.data.splits import group_of, read_split

TELL_SECONDS = 1.0
"""How often several processes' lines are passed on."""
LOCK_NAME = ".d3m-compare.lock"
SAMPLE = "d3m-sample"
"""Name of the sample case's entry."""
RECIPE = DEFAULT
"""Grid and target of all methods."""


@dataclass(frozen=True)
class Parts:
    """Ids of who serves for what."""

    fit: tuple[str, ...]
    choose: tuple[str, ...]
    report: tuple[str, ...]
    rule: str
    """How they were chosen, for the report."""


@dataclass(frozen=True)
class _Job:
    """One cell for a process."""

    folder: Path
    rung: Rung
    method: str
    seed: int
    patients: _Lists
    segmenter: Path
    threads: int


@dataclass(frozen=True)
class _Lists:
    """Where patients are, cheap to hand to another process."""

    folder: Path
    fit: Path
    """Of those to train on: `folder`, or where their T1c is misaligned."""
    sample: Path
    """Folder of the sample case's entry."""
    parts: Parts
    spacing_mm: tuple[float, float, float]
    data_hash: str

    def open(self) -> Patients:
        fit = [open_entry(self.fit, i) for i in self.parts.fit]
        choose, report = ([open_entry(self.folder, i) for i in ids] for ids in (self.parts.choose, self.parts.report))
        return Patients(fit, choose, report, open_entry(self.sample, SAMPLE), self.spacing_mm, self.data_hash)


def run_comparison(config: Comparison, report: Callable[[str], None]) -> None:
    """Run everything that is not done yet; the numbers are under `config.out`/cells.

    Raises:
        D3MError: the data or the cache cannot be used; another comparison runs in the folder.
    """
    for name in (REPORT, PRIVATE):
        check_output(config.out / name, COMPARISON, True, config.data)
    with writing():
        config.out.mkdir(parents=True, exist_ok=True)
    with held(config.out / LOCK_NAME, "Another comparison is running in this folder."):
        if config.data:
            prepare_cache(config.data, config.cache, PrepareOptions(RECIPE.name, workers=config.threads), report)
        check_grid(config.cache, RECIPE.name)
        parts = choose_parts(config)
        report(parts.rule)
        jobs, rungs = [], []
        for rung in config.rungs:
            patients = _lists(config, rung, parts)
            _keep_conditions(config.out, rung, patients.data_hash)
            segmenter = _segmenter(config, rung, patients, report)
            opened = patients.open()
            rungs.append((rung, opened, real_dice(segmenter, opened), parts.rule))
            for method in rung.methods:
                for seed in rung.seeds_of(method):
                    folder = cell_folder(config.out, rung.name, method, seed)
                    jobs.append(_Job(folder, rung, method, seed, patients, segmenter, config.threads))
        waiting = [job for job in jobs if not (job.folder / FACTS_NAME).is_file()]
        report(f"{len(jobs)} cells, {len(waiting)} to do.")
        _run(waiting, config.workers, report)
        collect(config, rungs)
        report(f"The report is in {config.out / REPORT}")


def _keep_conditions(out: Path, rung: Rung, data_hash: str) -> None:
    """Cells of one rung must have been made alike; methods and seeds may come and go.

    Raises:
        D3MError: the rung was begun with other data or conditions.
    """
    path = out / "cells" / rung.name / "conditions.json"
    aligned = {"misaligned_mm"} if rung.misaligned_mm == 0 else set()  # rungs of earlier versions do not have it
    conditions = rung.model_dump_json(exclude={"methods", "seeds"} | aligned) + f"\n{data_hash}\n"
    with writing():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            replace_text(path, conditions)
    if path.read_text(encoding="utf-8") != conditions:
        raise D3MError(
            f"The rung {rung.name} was begun with other data or conditions.",
            "Rename it, or delete its folder.",
        )


def choose_parts(config: Comparison) -> Parts:
    """Who is trained on, chosen on and reported on, from the cache's split.

    With a test part: train, validation, test. Without: the last `choose` labelled training patients are taken out for
    choosing (all visits of a patient together), and the validation part is reported on.

    Raises:
        D3MError: a part would be empty.
    """
    split = read_split(config.cache / SPLIT_NAME)

    def labelled(ids: Sequence[str]) -> list[str]:
        return [i for i in ids if open_entry(config.cache, i).labelled]

    if split.test:
        parts = Parts(
            split.train, tuple(labelled(split.validation)), tuple(labelled(split.test)),
            "Fit on the training part, thresholds chosen on the validation part, reported on the test part.",
        )  # fmt: skip
    else:
        groups = list(dict.fromkeys(group_of(i) for i in labelled(split.train)))
        taken = set(groups[-config.choose :])
        chosen = tuple(i for i in labelled(split.train) if group_of(i) in taken)
        fit = tuple(i for i in split.train if group_of(i) not in taken)
        parts = Parts(
            fit, chosen, tuple(labelled(split.validation)),
            f"Fit on {len(fit)} training patients, thresholds chosen on {len(chosen)} others, reported on the "
            "validation part.",
        )  # fmt: skip
    if not (parts.fit and parts.choose and parts.report):
        raise D3MError(
            "The split leaves no labelled patient to train on, choose on or report on.", "Give more patients."
        )
    return parts


def _lists(config: Comparison, rung: Rung, parts: Parts) -> _Lists:
    ids = (*parts.fit, *parts.choose, *parts.report)
    folder, sample, stride = config.cache, config.out / "sample", network_stride(RECIPE.name)
    prepare_sample(sample, stride)
    made = partial(made_entries, recipe=RECIPE.grid, stride=stride)
    if rung.coarser > 1:
        how, make = f"{rung.coarser} times coarser", partial(coarser, factor=rung.coarser, stride=stride)
        place = config.out / f"coarser{rung.coarser}"
        folder, sample = made(folder, place, ids, make, how), made(sample, place, (SAMPLE,), make, how)
    fit = folder
    if rung.misaligned_mm > 0:
        beside = partial(misaligned, most_mm=rung.misaligned_mm, pixel_mm=float(rung.coarser))
        elsewhere = config.out / f"coarser{rung.coarser}-misaligned{rung.misaligned_mm:g}"
        fit = made(folder, elsewhere, parts.fit, beside, f"T1c up to {rung.misaligned_mm:g} mm away")
    digest = hashlib.sha256()
    for identifier in ids:
        entry = json.loads((folder / identifier / "entry.json").read_text(encoding="utf-8"))
        digest.update(entry["sha256"].encode())
    return _Lists(folder, fit, sample, parts, (1.0, float(rung.coarser), float(rung.coarser)), digest.hexdigest()[:12])


def prepare_sample(folder: Path, stride: int) -> None:
    """Put the sample case on the model's grid, as a patient of a cache of its own."""
    if is_whole(folder, SAMPLE):
        return
    sample = find_sample()
    patient = Patient(SAMPLE, sample.t1, sample.t2, sample.flair, sample.t1c, sample.seg, SAMPLE)
    scheme = check([patient], None, workers=1).schemes[SAMPLE]
    case, t1c, labels = read_patient(patient, partial(unify, scheme=scheme))
    write_entry(folder, prepare(SAMPLE, case, t1c, labels, RECIPE.grid, stride), "sample")


def _segmenter(config: Comparison, rung: Rung, patients: _Lists, report: Callable[[str], None]) -> Path:
    """The fixed segmenter of a resolution, trained on those that the methods are trained on."""
    torch.set_num_threads(config.threads)
    entries: list[Entry] = [open_entry(patients.folder, i) for i in patients.parts.fit]
    settings = replace(batch_settings(rung), context=(0,))
    folder = config.out / f"segmenter{rung.coarser}"
    return train_segmenter(
        entries, folder, settings, config.segmenter_iterations, 0, lambda line: report(f"segmenter: {line}")
    )


def real_dice(weights: Path, patients: Patients) -> tuple[float, ...]:
    """Dice of the fixed segmenter on the real images of the report; NaN where there is too little to segment."""
    segmenter = load_segmenter(weights, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    found = []
    for entry in patients.report:
        scans, regions = np.asarray(entry.scans, np.float32), np.asarray(entry.regions)
        true = regions[:, 1] == ENHANCING
        mask = segmenter.segment(scans[:, :3], scans[:, 3], regions[:, 0] > 0)
        found.append(metrics.dice(mask, true) if true.sum() >= metrics.MIN_DICE_VOXELS else float("nan"))
    return tuple(found)


def _run(jobs: Sequence[_Job], workers: int, report: Callable[[str], None]) -> None:
    """All cells, one after the other, or several at once."""
    places = process_devices(workers, visible_gpus())
    count = min(len(places), len(jobs))
    if count <= 1:
        for job in jobs:
            _run_one(job, report)
        return
    context = multiprocessing.get_context("spawn")
    manager = SyncManager(ctx=context)
    manager.start(end_with_parent)
    with manager:
        free, lines = manager.Queue(), manager.Queue()
        for device in places:
            free.put(device)
        with ProcessPoolExecutor(count, context, _take_device, (free,)) as pool:
            waiting = {pool.submit(_run_one, job, lines.put) for job in jobs}
            while waiting:
                done, waiting = wait(waiting, timeout=TELL_SECONDS, return_when=FIRST_COMPLETED)
                while not lines.empty():
                    report(lines.get())
                for ended in done:
                    ended.result()


def process_devices(workers: int, gpus: list[str]) -> list[str]:
    """What each process gets as CUDA_VISIBLE_DEVICES; empty without GPUs.

    Args:
        workers: Processes at once, on each GPU where there are any: one small network leaves a large card idle.
        gpus: From `visible_gpus`.
    """
    return gpus * workers or [""] * workers


def _take_device(free: queue.Queue[str]) -> None:
    """A process sees one GPU, before torch looks, and ends with this run."""
    end_with_parent()
    device = free.get()
    if device:
        os.environ["CUDA_VISIBLE_DEVICES"] = device


def _run_one(job: _Job, report: Callable[[str], None]) -> None:
    run_cell(job.folder, job.rung, job.method, job.seed, job.patients.open(), job.segmenter, job.threads, report)
