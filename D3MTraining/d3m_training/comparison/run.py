"""Run or resume a whole comparison: prepare, train and measure every cell, and report."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from d3m.errors import D3MError
from d3m.models.recipes import DEFAULT
from d3m.storage import held
from d3m_training.cache import Entry, open_entry
from d3m_training.comparison.cell import FACTS_NAME, Patients, batch_settings, run_cell
from d3m_training.comparison.coarse import coarse_entries
from d3m_training.comparison.config import Comparison, Rung
from d3m_training.comparison.segmenter import train_segmenter
from d3m_training.methods.registry import T1_COPY
from d3m_training.preparation import SPLIT_NAME, check_grid, network_stride, prepare_cache
from d3m_training.splits import group_of, read_split

LOCK_NAME = ".d3m-compare.lock"
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
    parts: Parts
    spacing_mm: tuple[float, float, float]
    data_hash: str

    def open(self) -> Patients:
        fit, choose, report = (
            [open_entry(self.folder, i) for i in ids] for ids in (self.parts.fit, self.parts.choose, self.parts.report)
        )
        return Patients(fit, choose, report, self.spacing_mm, self.data_hash)


def run_comparison(config: Comparison, report: Callable[[str], None]) -> None:
    """Run everything that is not done yet; the numbers are under `config.out`/cells.

    Raises:
        D3MError: the data or the cache cannot be used; another comparison runs in the folder.
    """
    config.out.mkdir(parents=True, exist_ok=True)
    with held(config.out / LOCK_NAME, "Another comparison is running in this folder."):
        if config.data:
            prepare_cache(config.data, config.cache, RECIPE.name, None, None, None, False, config.threads, 0, report)
        check_grid(config.cache, RECIPE.name)
        parts = choose_parts(config)
        report(parts.rule)
        jobs = []
        for rung in config.rungs:
            patients = _lists(config, rung, parts)
            segmenter = _segmenter(config, rung, patients, report)
            for method in rung.methods:
                for seed in rung.seeds if method != T1_COPY else rung.seeds[:1]:
                    folder = cell_folder(config.out, rung.name, method, seed)
                    jobs.append(_Job(folder, rung, method, seed, patients, segmenter, config.threads))
        waiting = [job for job in jobs if not (job.folder / FACTS_NAME).is_file()]
        report(f"{len(jobs)} cells, {len(waiting)} to do.")
        _run(waiting, config.workers, report)


def cell_folder(out: Path, rung: str, method: str, seed: int) -> Path:
    """Where a cell's training and numbers are."""
    return out / "cells" / rung / method / f"seed{seed}"


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
    folder = config.cache if rung.coarser == 1 else config.out / f"coarser{rung.coarser}"
    coarse_entries(config.cache, folder, ids, rung.coarser, RECIPE.grid, network_stride(RECIPE.name))
    digest = hashlib.sha256()
    for identifier in ids:
        entry = json.loads((folder / identifier / "entry.json").read_text(encoding="utf-8"))
        digest.update(entry["sha256"].encode())
    return _Lists(folder, parts, (1.0, float(rung.coarser), float(rung.coarser)), digest.hexdigest()[:12])


def _segmenter(config: Comparison, rung: Rung, patients: _Lists, report: Callable[[str], None]) -> Path:
    """The fixed segmenter of a resolution, trained on those that the methods are trained on."""
    torch.set_num_threads(config.threads)
    entries: list[Entry] = [open_entry(patients.folder, i) for i in patients.parts.fit]
    settings = replace(batch_settings(rung), context=(0,))
    folder = config.out / f"segmenter{rung.coarser}"
    return train_segmenter(
        entries, folder, settings, config.segmenter_iterations, 0, lambda line: report(f"segmenter: {line}")
    )


def _run(jobs: Sequence[_Job], workers: int, report: Callable[[str], None]) -> None:
    """All cells, one after the other, or several at once; each GPU has one."""
    devices = [str(k) for k in range(torch.cuda.device_count())]
    count = min(len(devices) or workers, len(jobs))
    if count <= 1:
        for job in jobs:
            _run_one(job, report)
        return
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        free, lines = manager.Queue(), manager.Queue()
        for device in devices or [""] * count:
            free.put(device)
        with ProcessPoolExecutor(count, context, _take_device, (free,)) as pool:
            waiting = {pool.submit(_run_one, job, lines.put) for job in jobs}
            for done in as_completed(waiting):
                for line in _lines(lines):
                    report(line)
                done.result()


def _lines(lines: queue.Queue[str]) -> Iterator[str]:
    while not lines.empty():
        yield lines.get()


def _take_device(free: queue.Queue[str]) -> None:
    """Each process sees one GPU, before torch looks."""
    device = free.get()
    if device:
        os.environ["CUDA_VISIBLE_DEVICES"] = device


def _run_one(job: _Job, report: Callable[[str], None]) -> None:
    run_cell(job.folder, job.rung, job.method, job.seed, job.patients.open(), job.segmenter, job.threads, report)
