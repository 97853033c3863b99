"""BraTS-style folders and manifests: who the patients are, and what is wrong with their files."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from d3m.errors import D3MError
from d3m.volumes.naming import assign
from d3m.volumes.read import read_case, read_volume
from d3m.volumes.types import Case, Floats, Volume
from d3m_training.labels import Scheme, decide_scheme, label_values
from d3m_training.splits import group_of

IMAGES = ("t1", "t2", "flair", "t1c")


@dataclass(frozen=True)
class Patient:
    """The files of one visit of one patient."""

    id: str
    t1: Path
    t2: Path
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
    scheme: Scheme | None
    """None where no patient is annotated."""
    hashes: dict[str, tuple[str, ...]]
    """Content hashes of each patient's files, in the order t1, t2, flair, t1c, seg."""

    @property
    def unlabelled(self) -> tuple[str, ...]:
        """Patients who serve the image terms alone."""
        return tuple(p.id for p in self.patients if p.seg is None)


def find_patients(place: Path) -> tuple[list[Patient], list[Fault]]:
    """The patients of a folder of any depth, or of a CSV manifest.

    Args:
        place: A folder with one folder a patient (at any depth), or a .csv with columns id, t1, t2, flair, t1c and,
            if wanted, seg, group, split, enhancing_label; relative paths are relative to it.

    Returns:
        Patients whose four images are named, and a fault for each who lacks one.

    Raises:
        D3MError: nothing was found, or names of no known style.
    """
    if place.is_dir():
        rows = _folder_rows(place)
    elif place.is_file():
        rows = _manifest_rows(place)
    else:
        raise D3MError(f"{place.name} is neither a folder nor a manifest.", "Give the data set's folder or a .csv.")
    patients, faults = [], []
    seen: set[str] = set()
    for row in rows:
        identifier = row["id"]
        if identifier in seen:
            raise D3MError(f"Two patients have the id {identifier}.", "Give each an id of its own.")
        seen.add(identifier)
        missing = [name for name in IMAGES if not row.get(name)]
        if missing:
            faults.append(Fault(identifier, f"no {', '.join(missing)}"))
            continue
        stated = row.get("enhancing_label") or None
        patients.append(
            Patient(
                identifier,
                *(Path(row[name]) for name in IMAGES),
                Path(row["seg"]) if row.get("seg") else None,
                row.get("group") or group_of(identifier),
                row.get("split") or "",
                int(stated) if stated else None,
            )
        )
    return patients, faults


def _folder_rows(place: Path) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    unknown: list[str] = []
    for folder in [place, *sorted(p for p in place.rglob("*") if p.is_dir())]:
        names = [p.name for p in folder.iterdir() if p.is_file()]
        found = {identifier: files for identifier, files in assign(names).items() if "t1" in files or "t1c" in files or len(files) > 1}
        for identifier, files in sorted(found.items()):
            rows.append({"id": identifier} | {contrast: str(folder / name) for contrast, name in files.items()})
        if not found:
            unknown += [name for name in names if name.endswith((".nii", ".nii.gz"))]
    if not rows:
        seen = f"; found {', '.join(sorted(unknown)[:4])}" if unknown else ""
        raise D3MError(
            f"No patients with BraTS-style names were found{seen}.",
            "Name the files <ID>_t1, _t2, _flair, _t1ce, _seg (or -t1n, -t2w, -t2f, -t1c, -seg), or write a manifest.",
        )
    return rows


def _manifest_rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as f:
            rows = [{k: (v or "").strip() for k, v in row.items() if k} for row in csv.DictReader(f)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise D3MError("The manifest cannot be read.", "Save it as CSV in UTF-8.") from error
    missing = [name for name in ("id", *IMAGES) if not rows or name not in rows[0]]
    if missing:
        raise D3MError(f"The manifest has no column {', '.join(missing)}.", "Its first line must name id,t1,t2,flair,t1c[,seg].")
    for row in rows:
        for name in (*IMAGES, "seg"):
            if row.get(name):
                row[name] = str(path.parent / row[name])
    return rows


@dataclass(frozen=True)
class _Look:
    """What one worker saw of one patient."""

    id: str
    faults: tuple[str, ...]
    values: frozenset[int] | None
    hashes: tuple[str, ...]


def check(patients: Sequence[Patient], enhancing: int | None = None, workers: int = 2) -> Checked:
    """Read every file once and list everything that is wrong, before any training.

    Args:
        patients: From `find_patients`.
        enhancing: Value of the enhancing tumour, where the user states it.
        workers: Processes.

    Raises:
        D3MError: the label schemes of the whole set cannot be told or are mixed.
    """
    if workers > 1 and len(patients) > 4:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            looks = list(pool.map(_look, patients))
    else:
        looks = [_look(patient) for patient in patients]
    faults = [Fault(look.id, reason) for look in looks for reason in look.faults]
    bad = {fault.id for fault in faults}
    values = {look.id: look.values for look in looks if look.values is not None and look.id not in bad}
    stated = {p.enhancing_label for p in patients if p.enhancing_label is not None}
    if enhancing is None and len(stated) == 1:
        enhancing = stated.pop()
    scheme = decide_scheme(values, enhancing)
    good = tuple(p for p in patients if p.id not in bad)
    return Checked(good, tuple(faults), scheme, {look.id: look.hashes for look in looks})


def _look(patient: Patient) -> _Look:
    faults: list[str] = []
    values, hashes = None, []
    try:
        case, t1c, seg = read_patient(patient, _as_stored)
        hashes = [v.sha256 for v in (*case.contrasts(), t1c)] + ([seg.sha256] if seg else [])
        if seg is not None:
            values = label_values(seg.data, patient.id)
    except D3MError as error:
        faults.append(error.message)
    return _Look(patient.id, tuple(faults), values, tuple(hashes))


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
    case = read_case(patient.t1, patient.t2, patient.flair)
    t1c = read_volume(patient.t1c, "t1c")
    _check_same_grid(case.t1, t1c, "T1c")
    scans = zip(("T1", "T2", "FLAIR"), case.contrasts(), strict=True)
    for name, volume in scans:
        if volume.data.shape == t1c.data.shape and np.array_equal(volume.data, t1c.data):
            raise D3MError(f"T1c and {name} hold the same image.", "The target would stand in the input: give the right file.")
    if patient.seg is None:
        return case, t1c, None
    seg = _read_labels(patient.seg)
    _check_same_grid(case.t1, seg, "The label file")
    return case, t1c, Volume(relabel(seg.data), seg.affine, seg.sha256)


def _read_labels(path: Path) -> Volume:
    """A label map may be empty, which `read_volume` would refuse as a scan."""
    from d3m.volumes.read import read_raw

    return read_raw(path, "seg")


def _check_same_grid(t1: Volume, other: Volume, name: str) -> None:
    if other.data.shape != t1.data.shape:
        raise D3MError(
            f"{name} has the shape {' x '.join(map(str, other.data.shape))}, T1 {' x '.join(map(str, t1.data.shape))}.",
            "Training needs scans that were put on one grid.",
        )
    if np.abs(other.affine - t1.affine).max() > 0.1:
        raise D3MError(f"{name} lies elsewhere than T1.", "Training needs scans that were put on one grid.")
