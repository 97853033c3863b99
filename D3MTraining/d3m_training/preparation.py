"""From folders to a cache: the whole of `d3m-training prepare`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from d3m.errors import D3MError
from d3m.models.recipes import RECIPES
from d3m_training.cache import fingerprint, is_whole, prepare, write_entry
from d3m_training.datasets import Checked, Fault, Patient, check, find_patients, read_patient
from d3m_training.labels import Scheme, unify
from d3m_training.splits import Split, check_split, make_split, read_split, write_split

SPLIT_NAME = "split.json"
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class _Work:
    """What one process does."""

    patient: Patient
    scheme: Scheme | None
    key: str
    recipe_name: str
    cache: Path


def network_stride(recipe_name: str) -> int:
    """Multiple that rows and columns must have for a recipe's network."""
    return int(2 ** len(RECIPES[recipe_name].network.widths))


def prepare_cache(
    data: Sequence[Path],
    cache: Path,
    recipe_name: str,
    split_file: Path | None,
    sizes: tuple[int, int, int] | None,
    enhancing_label: int | None,
    skip_bad: bool,
    workers: int,
    seed: int,
    report: Callable[[str], None],
) -> int:
    """Check all patients, split them, and prepare those whose entry is missing, stale or damaged.

    Returns:
        Number of patients in the cache.

    Raises:
        D3MError: faults in the data (all of them are reported first), or a split that cannot be used.
    """
    patients, faults = collect(data)
    checked = check(patients, enhancing_label, workers)
    _report_faults([*faults, *checked.faults], skip_bad, report)
    if checked.unlabelled:
        report(f"{len(checked.unlabelled)} patients have no annotation: they serve the image terms alone.")
    if checked.scheme is not None:
        report(f"Labels: {checked.scheme.name}.")
    split = _decide_split(checked, split_file, sizes, seed)
    cache.mkdir(parents=True, exist_ok=True)
    write_split(cache / SPLIT_NAME, split)
    recipe, stride = RECIPES[recipe_name], network_stride(recipe_name)
    wanted = {*split.train, *split.validation, *split.test}
    works = []
    for patient in checked.patients:
        hashes = [*checked.hashes[patient.id], checked.scheme.name if checked.scheme else ""]
        key = fingerprint(hashes, recipe.grid, stride)
        if patient.id in wanted and not is_whole(cache, patient.id, key, thorough=True):
            works.append(_Work(patient, checked.scheme, key, recipe_name, cache))
    report(f"{len(wanted)} patients, {len(works)} of them to be prepared.")
    if workers > 1 and len(works) > 4:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for number, identifier in enumerate(pool.map(_prepare_one, works), start=1):
                report(f"{number}/{len(works)} {identifier}")
    else:
        for work in works:
            report(_prepare_one(work))
    return len(wanted)


def collect(data: Sequence[Path]) -> tuple[list[Patient], list[Fault]]:
    """Patients of several places; a folder's name or its parent's may say the part of the split."""
    patients: list[Patient] = []
    faults: list[Fault] = []
    for place in data:
        found, bad = find_patients(place)
        patients += found
        faults += bad
    names = [p.id for p in patients]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise D3MError(f"Two patients have the id {twice[0]}.", "Give each an id of its own.")
    return patients, faults


def _report_faults(faults: Sequence[Fault], skip_bad: bool, report: Callable[[str], None]) -> None:
    for fault in faults:
        report(f"{fault.id}: {fault.reason}")
    if faults and not skip_bad:
        count = len({fault.id for fault in faults})
        raise D3MError(f"{count} patients cannot be used; they are listed above.", "Mend them, or add --skip-bad.")
    if faults:
        report(f"{len({fault.id for fault in faults})} patients are left out.")


def _part_by_folder(patient: Patient) -> str:
    if patient.split:
        return patient.split
    parents = [folder.name for folder in patient.t1.parents]
    return next((name for name in parents if name in (*PARTS, "unlabelled")), "")


def _decide_split(checked: Checked, split_file: Path | None, sizes: tuple[int, int, int] | None, seed: int) -> Split:
    groups = {p.id: p.group for p in checked.patients}
    parts = {p.id: _part_by_folder(p) for p in checked.patients}
    if split_file is not None:
        split = read_split(split_file)
    elif sizes is None and all(parts.values()):
        split = Split(
            tuple(i for i, part in parts.items() if part in ("train", "unlabelled")),
            *(tuple(i for i, part in parts.items() if part == name) for name in PARTS[1:]),
            seed,
        )
    else:
        split = make_split(groups, seed, sizes)
    check_split(split, groups)
    return split


def _prepare_one(work: _Work) -> str:
    relabel = partial(unify, scheme=work.scheme) if work.scheme else lambda data: data
    case, t1c, labels = read_patient(work.patient, relabel)
    recipe = RECIPES[work.recipe_name]
    entry = prepare(work.patient.id, case, t1c, labels, recipe.grid, network_stride(work.recipe_name))
    write_entry(work.cache, entry, work.key)
    return work.patient.id
