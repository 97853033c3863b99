"""BraTS-style folders and manifests: who the patients are, and what is wrong with their files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np

from d3m.batch.cases import read_table, safe_id
from d3m.errors import D3MError
from d3m.progress import Remaining
from d3m.system.processes import end_with_parent
from d3m.volumes.io.headers import corner_distance
from d3m.volumes.io.naming import EXTENSIONS, assign, doubled
from d3m.volumes.io.read import read_raw
from d3m.volumes.preprocess.case import read_case, read_volume
from d3m.volumes.types import FURTHER_CONTRASTS, Case, Floats, Volume
from d3m_training.data.duplicates import merged_groups, same_patients, voxel_fingerprint
from d3m_training.data.labels import Scheme, decide_schemes, label_values
from d3m_training.data.splits import PARTS, group_of

REPORT_S = 5.0
"""Seconds between two lines about how far the checking is."""
IMAGES = ("t1", "t2", "flair", "t1c")
SAME_GRID_MM = 0.5
"""Headers of T1, T1c and labels may place a voxel this far apart: rounding, not another position."""
SAME_CORRELATION = 0.995
"""Above it T1c is one of the inputs, in another scale; T1 and T1c of 79 patients reach 0.88 in the brain."""
_CALLED = {"t1c": "T1c", "seg": "The label file"}


@dataclass(frozen=True)
class Patient:
    """The files of one visit of one patient."""

    id: str
    t1: Path
    t2: Path | None
    """None only for those who ask for it: see `find_patients`."""
    flair: Path
    t1c: Path
    seg: Path | None
    """Tumour labels; None: image terms only."""
    group: str
    """Who it is: all visits of a group stay in one part of a split."""
    split: str = ""
    """"train", "validation", "test", or empty where the data do not say."""
    enhancing_label: int | None = None
    """Value of the enhancing tumour where the manifest states it."""
    whole_only: bool = False
    """Labels show the whole tumour alone: nothing in them says what enhances."""
    adc: Path | None = None
    """Where the manifest has it; likewise `swi`."""
    swi: Path | None = None

    @property
    def further(self) -> dict[str, Path]:
        """Those of `FURTHER_CONTRASTS` that there are."""
        paths = zip(FURTHER_CONTRASTS, (self.adc, self.swi), strict=True)
        return {name: path for name, path in paths if path is not None}


@dataclass(frozen=True)
class Fault:
    """Something that is wrong with a patient's files."""

    id: str
    reason: str


@dataclass(frozen=True)
class Checked:
    """What `check` found."""

    patients: tuple[Patient, ...]
    """Those without a fault."""
    faults: tuple[Fault, ...]
    schemes: dict[str, Scheme]
    """Of each annotated patient."""
    hashes: dict[str, tuple[str, ...]]
    """Content hashes of each patient's files, in the order t1, t2, flair, t1c, seg, then of further contrasts with
    their names."""
    same: tuple[tuple[str, ...], ...] = ()
    """Ids under which one patient is there several times, by the images themselves: they share a group."""

    @property
    def unlabelled(self) -> tuple[str, ...]:
        """Patients without labels."""
        return tuple(p.id for p in self.patients if p.seg is None)


def find_patients(place: Path, optional: Sequence[str] = ()) -> tuple[list[Patient], list[Fault]]:
    """The patients of a folder of any depth, or of a CSV manifest.

    Args:
        place: A folder whose files are named in one of the styles of `d3m.volumes.io.naming`, at any depth; folders
            called train, validation, test or unlabelled say the part of a split. Or a .csv with columns id, t1, t2,
            flair, t1c and, if wanted, adc, swi, seg, group, split, enhancing_label, labels ("whole": they show the
            whole tumour alone, any value but 0); relative paths are relative to it.
        optional: Images that may be missing: "t2".

    Returns:
        Patients whose four images are named, and a fault for each who lacks one or whose files have unknown names.

    Raises:
        D3MError: nothing was found, or names of no known style; a manifest that cannot be used.
    """
    faults: list[Fault] = []
    if place.is_dir():
        rows, faults = _folder_rows(place)
    elif place.is_file():
        rows = _manifest_rows(place)
    else:
        raise D3MError(f"{place.name} is neither a folder nor a manifest.", "Give the data set's folder or a .csv.")
    patients: list[Patient] = []
    seen: set[str] = set()
    for row in rows:
        identifier = row["id"]
        if identifier.lower() in seen:  # folders of some systems do not tell upper from lower case
            raise D3MError(f"Two patients have the id {identifier}.", "Give each an id of its own.")
        seen.add(identifier.lower())
        missing = [name for name in IMAGES if not row.get(name) and name not in optional]
        if missing:
            others = f"; found {row['beside']}" if row.get("beside") else ""
            faults.append(Fault(identifier, f"no {', '.join(missing)}{others}"))
        else:
            patients.append(_patient(row))
    return patients, faults


def _patient(row: dict[str, str]) -> Patient:
    """A patient of a complete row.

    Raises:
        D3MError: an id that cannot be a folder's name, an unknown part, or a value that is no number.
    """
    identifier, split, stated = row["id"], row.get("split", "").lower(), row.get("enhancing_label", "")
    if identifier != safe_id(identifier):
        raise D3MError(f"The id {identifier!r} cannot be the name of a folder.", "Use letters, digits, - and _.")
    if split not in ("", *PARTS):
        raise D3MError(f"{identifier} is in the part {split!r}.", f"The parts are {', '.join(PARTS)}.")
    if stated not in ("", "3", "4"):
        raise D3MError(
            f"{identifier} has the enhancing_label {stated!r}.", "It is 4 until BraTS 2021, 3 from 2023, or empty."
        )
    if row.get("labels", "") not in ("", "whole"):
        raise D3MError(f"{identifier} has {row['labels']!r} in the column labels.", 'Write "whole" or leave it empty.')
    t1, flair, t1c = (Path(row[name]) for name in ("t1", "flair", "t1c"))
    adc, swi = (Path(row[name]) if row.get(name) else None for name in FURTHER_CONTRASTS)
    return Patient(
        identifier,
        t1,
        Path(row["t2"]) if row.get("t2") else None,
        flair,
        t1c,
        Path(row["seg"]) if row.get("seg") else None,
        row.get("group") or group_of(identifier),
        split,
        int(stated) if stated else None,
        row.get("labels") == "whole",
        adc,
        swi,
    )


def _folder_rows(place: Path) -> tuple[list[dict[str, str]], list[Fault]]:
    rows: list[dict[str, str]] = []
    faults: list[Fault] = []
    unknown: list[str] = []
    for folder in _folders(place):
        names = sorted(p.name for p in folder.iterdir() if p.is_file())
        images = [name for name in names if name.endswith(EXTENSIONS) and not name.startswith(".")]
        found = assign(names)
        several = doubled(images)
        for identifier, files in sorted(found.items()):
            for contrast, endings in several.get(identifier, {}).items():
                faults.append(Fault(identifier, f"several files could be its {contrast}: {_few(list(endings))}"))
            row = {contrast: str(folder / name) for contrast, name in files.items()}
            row |= {"id": identifier, "split": _part(place, folder), "beside": _few(images)}
            _add_row(rows, row)
        # one patient's folder may hold other images too; elsewhere what has no known name may be a patient
        odd = [] if len(found) == 1 else [name for name in images if not any(name.startswith(i) for i in found)]
        if odd:
            unknown += odd
            faults.append(Fault(folder.name, f"names of no known style: {_few(odd)}"))
    if not rows:
        seen = f"; found {_few(sorted(unknown))}" if unknown else ""
        raise D3MError(
            f"No patients with BraTS-style names were found{seen}.",
            "Name the files <ID>_t1, _t2, _flair, _t1ce, _seg (or -t1n, -t2w, -t2f, -t1c, -seg), or write a manifest.",
        )
    return rows, faults


def _add_row(rows: list[dict[str, str]], row: dict[str, str]) -> None:
    """Add a row, or what it has to the patient's own where labels lie in a folder of their own."""
    own = next((r for r in rows if r["id"] == row["id"]), None)
    if own is None or any(name in own and name in row for name in (*IMAGES, "seg")):
        rows.append(row)
    else:
        own |= {name: row[name] for name in (*IMAGES, "seg") if name in row}
        own["split"] = own["split"] or row["split"]


def _folders(place: Path) -> list[Path]:
    """A folder and all below it, without hidden ones, in one order whatever the system lists first."""
    below = (p for p in place.rglob("*") if p.is_dir())
    return [place, *sorted(p for p in below if not any(n.startswith(".") for n in p.relative_to(place).parts))]


def _part(place: Path, folder: Path) -> str:
    """The part of a split that the data's folders tell by name, the innermost first; folders above do not count."""
    for name in reversed((place.resolve().name, *folder.relative_to(place).parts)):
        if name.lower() in PARTS:
            return name.lower()
        if name.lower() == "unlabelled":
            return "train"
    return ""


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")


def _manifest_rows(path: Path) -> list[dict[str, str]]:
    images = (*IMAGES, *FURTHER_CONTRASTS, "seg")
    rows = read_table(path, "The manifest", "visit", "id,t1,t2,flair,t1c[,seg]", ("id", *IMAGES), images)
    for number, row in enumerate(rows, start=2):
        if not row["id"]:
            raise D3MError(f"Line {number} of the manifest has no id.", "Give each visit an id of its own.")
    return rows


@dataclass(frozen=True)
class _Look:
    """What one worker saw of one patient."""

    id: str
    faults: tuple[str, ...]
    values: frozenset[int] | None
    hashes: tuple[str, ...]
    fingerprints: tuple[str, ...] = ()
    """What `voxel_fingerprint` says of each image."""


def check(
    patients: Sequence[Patient],
    enhancing: int | None = None,
    workers: int = 2,
    report: Callable[[str], None] | None = None,
) -> Checked:
    """Read every file once and list everything that is wrong, before any training.

    Args:
        patients: From `find_patients`.
        enhancing: Value of the enhancing tumour, where the user states it; a manifest's own statement goes first.
        workers: Processes.
        report: Gets a line at once, and then every few seconds.

    Raises:
        D3MError: the label schemes of the whole set are mixed, or contradict what is stated.
    """
    looks = []
    tell = report or (lambda _: None)
    remaining, said = Remaining(), time.monotonic()
    tell(f"Checking every file of {len(patients)} patients.")
    for number, look in enumerate(in_processes(_look, patients, workers), start=1):
        looks.append(look)
        if time.monotonic() - said > REPORT_S or number == 1:
            said = time.monotonic()
            tell(f"Checked {number} of {len(patients)}{left(remaining, number / len(patients))}")
    faults = tuple(Fault(look.id, reason) for look in looks for reason in look.faults)
    bad = {fault.id for fault in faults}
    good = tuple(p for p in patients if p.id not in bad)
    values = {look.id: look.values for look in looks if look.values is not None and look.id not in bad}
    stated = {p.id: p.enhancing_label for p in patients if p.enhancing_label is not None}
    try:
        schemes = decide_schemes(values, stated, enhancing)
    except D3MError as error:
        if not faults:
            raise
        listed = "; ".join(f"{fault.id}: {fault.reason}" for fault in faults)  # all that is wrong, in one go
        raise D3MError(f"{error.message} Besides: {listed}", error.hint, error.kind) from error
    same = same_patients({look.id: look.fingerprints for look in looks if look.id not in bad})
    groups = merged_groups({p.id: p.group for p in good}, same)
    good = tuple(replace(p, group=groups[p.id]) for p in good)
    return Checked(good, faults, schemes, {look.id: look.hashes for look in looks}, same)


def left(remaining: Remaining, done: float) -> str:
    """How a line of progress ends: the time that remains, when `done` (0 to 1) of the work is done."""
    seconds = remaining(done)
    if seconds is None or done >= 1:
        return ""
    return f", about {seconds / 60:.0f} min left" if seconds >= 90 else f", about {seconds:.0f} s left"


Item = TypeVar("Item")
Made = TypeVar("Made")


def in_processes(function: Callable[[Item], Made], items: Sequence[Item], workers: int) -> Iterator[Made]:
    """`function` of each item, in order; in several processes where that pays.

    Raises:
        D3MError: a process was ended from outside, as systems do when memory runs out.
    """
    if workers < 2 or len(items) < 5:
        yield from map(function, items)
        return
    try:
        with ProcessPoolExecutor(workers, get_context("spawn"), end_with_parent) as pool:
            yield from pool.map(function, items)
    except BrokenProcessPool as error:
        raise D3MError(
            "A process was stopped from outside, probably because memory ran out.",
            "Close other programs, or use --workers 1.",
            "machine",
        ) from error


def _look(patient: Patient) -> _Look:
    try:
        case, t1c, seg = read_patient(patient, _as_stored)
        values = None if seg is None or patient.whole_only else label_values(seg.data, patient.id)
    except D3MError as error:
        return _Look(patient.id, tuple(_all_faults(patient, error.message)), None, ())
    hashes = [v.sha256 for v in (*case.contrasts(), t1c)] + ([seg.sha256] if seg else [])
    hashes += [f"{name} {volume.sha256}" for name, volume in case.further.items()]
    marks = tuple(voxel_fingerprint(v.data) for v in (*case.given().values(), t1c))
    return _Look(patient.id, (), values, tuple(hashes), marks)


def _all_faults(patient: Patient, first: str) -> list[str]:
    """What is wrong with each file by itself, after reading them together failed for the reason `first`."""
    faults: list[str] = []
    volumes: dict[str, Volume] = {}
    for name in (*IMAGES, *FURTHER_CONTRASTS, "seg"):
        path: Path | None = getattr(patient, name)
        if path is None:
            continue
        try:
            volumes[name] = _read_labels(path) if name == "seg" else read_volume(path, name)
            if name == "seg" and not patient.whole_only:
                label_values(volumes[name].data, patient.id)
            if name in ("t1c", "seg") and "t1" in volumes:
                _check_same_grid(volumes["t1"], volumes[name], _CALLED[name])
        except D3MError as error:
            faults.append(error.message)
    return faults if first in faults else [first, *faults]


def _as_stored(data: Floats) -> Floats:
    return data


def read_patient(patient: Patient, relabel: Callable[[Floats], Floats]) -> tuple[Case, Volume, Volume | None]:
    """Read a patient's files.

    Args:
        patient: Whose.
        relabel: Applied to the labels.

    Returns:
        The scans with the brain, the real T1c, and the labels where there are any.

    Raises:
        D3MError: a file cannot be used, T1c or labels lie on another grid than T1, or T1c is T1 again.
    """
    case = read_case(patient.t1, patient.t2, patient.flair, further=patient.further)
    t1c = read_volume(patient.t1c, "t1c")
    _check_same_grid(case.t1, t1c, _CALLED["t1c"])
    for name, volume in case.given().items():
        if volume.data.shape == t1c.data.shape and _same_image(volume.data[case.brain], t1c.data[case.brain]):
            raise D3MError(
                f"T1c and {name.upper()} hold the same image.",
                "The target would be part of the input: give the right file.",
            )
    if patient.seg is None:
        return case, t1c, None
    seg = _read_labels(patient.seg)
    _check_same_grid(case.t1, seg, _CALLED["seg"])
    return case, t1c, Volume(relabel(seg.data), seg.affine, seg.sha256)


def _same_image(one: Floats, other: Floats) -> bool:
    """Whether values are equal, or equal but for scale and rounding."""
    if np.array_equal(one, other):
        return True
    if one.std() == 0 or other.std() == 0:
        return False
    return float(np.corrcoef(one, other)[0, 1]) > SAME_CORRELATION


def _read_labels(path: Path) -> Volume:
    """A label map may be empty, which `read_volume` would refuse as a scan."""
    return read_raw(path, "seg")


def _check_same_grid(t1: Volume, other: Volume, name: str) -> None:
    if other.data.shape != t1.data.shape:
        raise D3MError(
            f"{name} has the shape {' x '.join(map(str, other.data.shape))}, T1 {' x '.join(map(str, t1.data.shape))}.",
            "Training needs scans that were put on one grid.",
        )
    apart = corner_distance(other.affine, t1.affine, t1.data.shape)
    if apart > SAME_GRID_MM:
        raise D3MError(
            f"{name} lies elsewhere than T1: by their headers they are up to {apart:.3g} mm apart.",
            "Training needs scans that were put on one grid.",
        )
