"""From folders to a cache: the whole of `d3m-training prepare`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from d3m.errors import D3MError
from d3m.models.recipes import RECIPES
from d3m.progress import Remaining
from d3m.system.folders import check_place_of_work
from d3m.system.locks import held
from d3m.system.own_files import write_own
from d3m.system.storage import replace_text, writing
from d3m.system.text import read_object
from d3m.volumes.types import CONTRASTS, FURTHER_CONTRASTS, GridRecipe
from d3m_training.data.cache import Prepared, check_place, fingerprint, is_whole, prepare, write_entry
from d3m_training.data.datasets import Checked, Fault, Patient, check, find_patients, in_processes, left, read_patient
from d3m_training.data.labels import Scheme, relabelling
from d3m_training.data.splits import PARTS, Split, check_split, conflicts, make_split, read_split, split_text
from d3m_training.data.untold import labels_from_difference

SPLIT_NAME = "split.json"
GRID_NAME = "grid.json"
FURTHER = "further"
"""Where it names the further contrasts; older caches have none."""
LOCK_NAME = ".d3m-prepare.lock"


@dataclass(frozen=True)
class _Work:
    """What one process does."""

    patient: Patient
    scheme: Scheme | None
    """None: no labels, or labels of the whole tumour alone."""
    key: str
    recipe_name: str
    cache: Path
    further: tuple[str, ...]
    """What all entries of the cache have room for."""


def network_stride(recipe_name: str) -> int:
    """Multiple that rows and columns must have for a recipe's network."""
    return RECIPES[recipe_name].network.stride


@dataclass(frozen=True)
class PrepareOptions:
    """How a cache is prepared."""

    recipe_name: str = "default"
    """Whose grid and normalisation."""
    split_file: Path | None = None
    """Split to use; None: folders or the manifest decide, else a new random one."""
    sizes: tuple[int, int, int] | None = None
    """Patients for training, validation and test."""
    enhancing_label: int | None = None
    """Value of the enhancing tumour; None: found out."""
    skip_bad: bool = False
    """Leave out patients with faulty files instead of stopping."""
    workers: int = 2
    """Processes."""
    seed: int = 0
    """Decides a new random split."""
    without_t2: bool = False
    """Take patients who lack T2 too, for a model that shall do without it."""


def prepare_cache(data: Sequence[Path], cache: Path, options: PrepareOptions, report: Callable[[str], None]) -> int:
    """Check all patients, split them, and prepare those whose entry is missing, stale or damaged.

    Returns:
        Number of patients in the cache.

    Raises:
        D3MError: faults in the data (all of them are reported first), a split that cannot be used, or a cache folder
            that holds something else.
    """
    patients, faults = collect(data, ("t2",) if options.without_t2 else ())
    check_place(cache, [patient.id for patient in patients])
    check_place_of_work(cache, (cache / SPLIT_NAME).is_file(), "a cache", "--cache")
    split, clashes = _stated_split(patients, options.split_file, options.sizes, options.seed)
    faults += clashes
    checked, faulty = check_all(patients, faults, options.enhancing_label, options.skip_bad, report, options.workers)
    groups = {p.id: p.group for p in checked.patients}
    split = make_split(groups, options.seed, options.sizes) if split is None else split.without(faulty)
    check_split(split, groups)
    _report_use(checked, split, report)
    with writing():
        cache.mkdir(parents=True, exist_ok=True)
    with held(cache / LOCK_NAME, "Another preparation is writing into this cache."):
        return _fill(checked, split, cache, options.recipe_name, options.workers, report)


def check_all(
    patients: Sequence[Patient],
    faults: Sequence[Fault],
    enhancing: int | None,
    skip_bad: bool,
    report: Callable[[str], None],
    workers: int = 2,
) -> tuple[Checked, frozenset[str]]:
    """Check every file, and report all that is wrong: what needs no reading first.

    Args:
        patients: Whose files are read.
        faults: What is known to be wrong already, with these or other patients.
        enhancing: Value of the enhancing tumour; None: found out.
        skip_bad: Leave out patients with faults instead of stopping.
        report: Gets the lines.
        workers: Processes.

    Returns:
        What was found, without the patients with faults; and the ids of all who have one.

    Raises:
        D3MError: there are faults, and they must not be skipped; what `check` raises.
    """
    for fault in faults:
        report(f"{fault.id}: {fault.reason}")
    checked = check(patients, enhancing, workers, report)
    for fault in checked.faults:
        report(f"{fault.id}: {fault.reason}")
    for ids in checked.same:
        report(f"{' and '.join(ids)} hold the same images: they count as one patient.")
    faulty = frozenset(fault.id for fault in (*faults, *checked.faults))
    if faulty and not skip_bad:
        count = "1 patient" if len(faulty) == 1 else f"{len(faulty)} patients"
        raise D3MError(f"{count} cannot be used; the reasons are above.", "Correct them, or add --skip-bad.")
    if faulty:
        report(f"{len(faulty)} left out because of faulty files.")
    return replace(checked, patients=tuple(p for p in checked.patients if p.id not in faulty)), faulty


def _fill(
    checked: Checked, split: Split, cache: Path, recipe_name: str, workers: int, report: Callable[[str], None]
) -> int:
    """Prepare what is missing, stale or damaged; returns the number of patients in the cache."""
    recipe, stride = RECIPES[recipe_name], network_stride(recipe_name)
    wanted = split.ids()
    used = [patient for patient in checked.patients if patient.id in wanted]
    further = tuple(name for name in FURTHER_CONTRASTS if any(name in patient.further for patient in used))
    works = []
    for patient in used:
        scheme = checked.schemes.get(patient.id)
        hashes = [*checked.hashes[patient.id], scheme.name if scheme else "", *further]
        key = fingerprint(hashes, recipe.grid, stride)
        if not is_whole(cache, patient.id, key, thorough=True):
            works.append(_Work(patient, scheme, key, recipe_name, cache, further))
    for name in further:
        report(f"{name.upper()}: {sum(name in patient.further for patient in used)} of {len(used)} patients have it.")
    report(f"{len(wanted)} patients, {len(works)} of them to be prepared.")
    with writing():
        if works:  # until all are there this is no cache: entries of two grids must not be trained on together
            (cache / GRID_NAME).unlink(missing_ok=True)
        kept = write_own(cache / SPLIT_NAME, split_text(split))
    if kept is not None:
        report(f"{SPLIT_NAME} in the cache was changed by hand; it is kept as {kept.name}.")
    remaining = Remaining()
    for number, identifier in enumerate(in_processes(_prepare_one, works, workers), start=1):
        report(f"{number}/{len(works)} {identifier}{left(remaining, number / len(works))}")
    with writing():
        replace_text(cache / GRID_NAME, json.dumps(_grid(recipe_name) | {FURTHER: further}) + "\n")
    return len(wanted)


def _grid(recipe_name: str) -> dict[str, object]:
    """What must be equal for a cache to serve a recipe, as JSON has it."""
    grid = {**asdict(RECIPES[recipe_name].grid), "stride": network_stride(recipe_name)}
    return dict(json.loads(json.dumps(grid)))


def further_of(cache: Path) -> tuple[str, ...]:
    """The further contrasts that the entries of a prepared cache have room for.

    Raises:
        D3MError: it is not prepared.
    """
    found = _read_grid(cache).get(FURTHER, ())
    return tuple(name for name in FURTHER_CONTRASTS if isinstance(found, list) and name in found)


def _read_grid(cache: Path) -> dict[str, Any]:
    try:
        return read_object(cache / GRID_NAME, "The grid of the cache")
    except D3MError as error:
        raise D3MError("The cache is not prepared.", "Run `d3m-training prepare` first.") from error


def check_grid(cache: Path, recipe_name: str) -> None:
    """Find out whether a cache was prepared for a recipe.

    Raises:
        D3MError: it was prepared on another grid or scale, or not at all.
    """
    grid = _read_grid(cache)
    if {name: value for name, value in grid.items() if name != FURTHER} != _grid(recipe_name):
        raise D3MError(
            f"The cache was prepared on another grid than that of the recipe {recipe_name}.",
            f"Run `d3m-training prepare --recipe {recipe_name}`, into another folder if you need both.",
        )


def collect(data: Sequence[Path], optional: Sequence[str] = ()) -> tuple[list[Patient], list[Fault]]:
    """Patients of several places.

    Args:
        data: Folders or manifests.
        optional: Images that may be missing, see `find_patients`.

    Raises:
        D3MError: a place without patients, or two patients with one id.
    """
    patients: list[Patient] = []
    faults: list[Fault] = []
    for place in data:
        found, bad = find_patients(place, optional)
        patients += found
        faults += bad
    _check_ids(patients)
    return patients, faults


def _check_ids(patients: Sequence[Patient]) -> None:
    """Refuse two patients with one id."""
    twice = [name for name, count in Counter(p.id for p in patients).items() if count > 1]
    if twice:
        raise D3MError(f"Two patients have the id {twice[0]}.", "Give each an id of its own.")


def collect_annotated(data: Sequence[Path], enhancing: int | None, why: str, report: Callable[[str], None]) -> Checked:
    """Patients of several places that have labels and no fault; what is left out is reported.

    Args:
        data: Folders or manifests.
        enhancing: Value of the enhancing tumour, or None to find it out.
        why: A sentence that says what labels are needed for, should there be none.
        report: Gets a line for each patient that is left out.

    Raises:
        D3MError: nobody is left, or as in `collect`.
    """
    patients, faults = collect(data)
    checked = check([p for p in patients if p.seg is not None and not p.whole_only], enhancing, 1, report)
    for fault in (*faults, *checked.faults):
        report(f"Left out: {fault.id}: {fault.reason}")
    if not checked.patients:
        raise D3MError("No annotated patient was found.", why)
    return checked


def _report_use(checked: Checked, split: Split, report: Callable[[str], None]) -> None:
    """Say what the data are used for."""
    if checked.unlabelled:
        names = ", ".join(checked.unlabelled[:5]) + (", ..." if len(checked.unlabelled) > 5 else "")
        report(
            f"{len(checked.unlabelled)} patients have no annotation ({names}): they are used for the image terms only."
        )
    whole = sum(p.whole_only for p in checked.patients)
    if whole:
        report(f"Labels of {whole} patients show the whole tumour alone: T1c minus T1 inside it says what enhances.")
    for name, count in Counter(scheme.name for scheme in checked.schemes.values()).items():
        report(f"Labels of {count} patients: {name}.")
    report(", ".join(f"{part}: {len(ids)}" for part, ids in split.parts().items()) + ".")
    unused = [p.id for p in checked.patients if p.id not in split.ids()]
    if unused:
        report(f"{len(unused)} patients are in no part of the split and are left out.")


def _stated_split(
    patients: Sequence[Patient], split_file: Path | None, sizes: tuple[int, int, int] | None, seed: int
) -> tuple[Split | None, list[Fault]]:
    """The split of a file or of the data themselves, and a fault for each visit of a patient in two of its parts.

    Raises:
        D3MError: the file cannot be used; only some patients state a part.
    """
    if split_file is not None:
        split = read_split(split_file)
    elif sizes is None and any(p.split for p in patients):
        silent = [p.id for p in patients if not p.split]
        if silent:
            raise D3MError(
                f"{len(silent)} patients are in no part of the split ({silent[0]}), the others are.",
                "Put all into folders train, validation and test, or give --split or --sizes.",
            )
        train, validation, test = (tuple(p.id for p in patients if p.split == part) for part in PARTS)
        split = Split(train, validation, test, seed)
    else:
        return None, []
    return split, [
        Fault(identifier, f"visits of the patient {clash.patient} are in {' and in '.join(clash.parts)}")
        for clash in conflicts(split, {p.id: p.group for p in patients})
        for identifier in clash.ids
    ]


def told_by_difference(entry: Prepared, recipe: GridRecipe) -> Prepared:
    """An entry whose labels show the whole tumour alone, with what T1c minus T1 says of the enhancement.

    It says nothing where T1c is not on T1's scale; such a patient serves the image terms alone.
    """
    t1, target = (entry.scans[:, channel].astype(np.float32) for channel in (0, len(CONTRASTS)))
    brain, tumour = (entry.regions[:, k] > 0 for k in (0, 1))
    label = labels_from_difference(t1, target, brain, tumour) if recipe.target == "t1_scale" else None
    regions = np.stack([entry.regions[:, 0], np.zeros_like(entry.regions[:, 1]) if label is None else label], axis=1)
    return replace(entry, regions=regions, labelled=label is not None)


def _prepare_one(work: _Work) -> str:
    case, t1c, labels = read_patient(work.patient, relabelling(work.scheme))
    recipe = RECIPES[work.recipe_name]
    stride = network_stride(work.recipe_name)
    entry = prepare(work.patient.id, case, t1c, labels, recipe.grid, stride, work.further)
    if work.patient.whole_only:
        entry = told_by_difference(entry, recipe.grid)
    with writing():
        write_entry(work.cache, entry, work.key)
    return work.patient.id
