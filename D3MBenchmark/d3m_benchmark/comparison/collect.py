"""From the finished cells on disk to the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from d3m import metrics
from d3m.errors import D3MError
from d3m_benchmark.comparison.cell import CELLS_NAME, FACTS_NAME, PICTURES_NAME, Patients, cell_folder
from d3m_benchmark.comparison.config import Comparison, Rung
from d3m_benchmark.comparison.page import Pictures, page
from d3m_benchmark.comparison.report import RungResult, summarise_rung, write_report
from d3m_benchmark.comparison.table import Cell, MethodFacts, read_cells
from d3m_training.data.cache import ENHANCING, Entry
from d3m_training.train.checkpoint import read_weights

REPORT, PRIVATE = "report", "patients"
"""Folders of the report with the sample case's pictures, and of the same with patients' pictures."""


def collect(config: Comparison, rungs: Sequence[tuple[Rung, Patients, tuple[float, ...], str]]) -> None:
    """Write `config.out`/report, which shows the sample case alone, and `config.out`/patients, which shows patients.

    Args:
        config: What was compared.
        rungs: Each with its patients, the segmenter's Dice on the real images, and how the parts were chosen.

    Raises:
        D3MError: a cell is damaged or missing; the disk is full.
    """
    results = [_result(config, rung, patients, dice, rule) for rung, patients, dice, rule in rungs]
    summaries = [summarise_rung(result) for result in results]
    drawn = {
        rung.name: _pictures(config.out, rung, patients, {f.name: f.title for f in result.facts})
        for (rung, patients, _, _), result in zip(rungs, results, strict=True)
    }
    sample = {name: [case for case in cases if case.title == SAMPLE_TITLE] for name, cases in drawn.items()}
    write_report(config.out / REPORT, config.title, summaries, page(config.title, summaries, sample))
    write_report(config.out / PRIVATE, config.title, summaries, page(config.title, summaries, drawn))


SAMPLE_TITLE = "Sample case (simulated)"


def _result(
    config: Comparison, rung: Rung, patients: Patients, segmenter_dice: tuple[float, ...], rule: str
) -> RungResult:
    cells: list[Cell] = []
    facts: list[MethodFacts] = []
    codes, torches, devices = set(), set(), set()
    for method in rung.methods:
        of_seeds = []
        for seed in rung.seeds_of(method):
            folder = cell_folder(config.out, rung.name, method, seed)
            try:
                made = json.loads((folder / FACTS_NAME).read_text(encoding="utf-8"))
                of_seeds.append(MethodFacts(**made["facts"]))
                codes.add(made["code_hash"])
                torches.add(made["torch"])
                devices.add(made["device"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise D3MError(
                    f"The cell {rung.name}/{method}/seed{seed} is damaged or missing.",
                    "Delete its folder and run the comparison again.",
                ) from error
            cells += read_cells(folder / CELLS_NAME)
        facts.append(
            replace(
                of_seeds[0],
                iterations=round(np.mean([f.iterations for f in of_seeds])),
                seconds_trained=float(np.mean([f.seconds_trained for f in of_seeds])),
            )
        )
    budget = f"{rung.minutes:g} minutes" if rung.minutes else f"{rung.iterations} iterations"
    resolution = "full resolution" if rung.coarser == 1 else f"{rung.coarser} mm in the plane"
    seeds = "1 seed" if len(rung.seeds) == 1 else f"{len(rung.seeds)} seeds, averaged first"
    conditions = (
        f"Size {rung.size}, {resolution}, {budget} of training for each method and seed, batches of {rung.batch} crops "
        f"of {rung.crop} x {rung.crop}, {seeds}, {'; '.join(sorted(devices))}. {rule} {len(patients.fit)} patients to "
        f"fit, {len(patients.choose)} to choose, {len(patients.report)} to report. Data {patients.data_hash}, code "
        f"{', '.join(sorted(codes))}, torch {', '.join(sorted(torches))}."
    )
    return RungResult(rung.name, conditions, tuple(facts), tuple(cells), segmenter_dice)


def _pictures(out: Path, rung: Rung, patients: Patients, titles: dict[str, str]) -> list[Pictures]:
    """The slice with most enhancing tumour of the sample case and of the patients that were kept."""
    seed = rung.seeds[0]
    images = {m: read_weights(cell_folder(out, rung.name, m, seed) / PICTURES_NAME) for m in rung.methods}
    kept = images[rung.methods[0]]
    cases = [(SAMPLE_TITLE, patients.sample)]
    cases += [(f"Patient {entry.id}", entry) for entry in patients.report if entry.id in kept]
    return [
        _slice_of(title, entry, {titles[m]: images[m][entry.id].float().numpy() for m in rung.methods})
        for title, entry in cases
    ]


def _slice_of(title: str, entry: Entry, made: dict[str, np.ndarray]) -> Pictures:
    scans, regions = np.asarray(entry.scans, np.float32), np.asarray(entry.regions)
    brain, enhancing = regions[:, 0] > 0, regions[:, 1] == ENHANCING
    z = int(enhancing.sum(axis=(1, 2)).argmax()) if enhancing.any() else len(brain) // 2
    real = np.where(brain, metrics.scale_by_percentiles(scans[:, 3], brain), 0)
    rows, columns = (np.flatnonzero(brain[z].any(axis=axis)) for axis in (1, 0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    fitted = {name: np.where(brain, metrics.fit(image, real, brain), 0)[z][box] for name, image in made.items()}
    shown = {name: scans[z, k][box] for k, name in enumerate(("T1", "T2", "FLAIR"))}
    return Pictures(title, shown, real[z][box], fitted, enhancing[z][box])
