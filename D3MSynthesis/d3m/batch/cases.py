"""Find the cases of a batch: a folder of BraTS-named files, or a table."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from d3m.errors import D3MError, Notice
from d3m.system.text import plain, read_text
from d3m.volumes.io.naming import assign, doubled
from d3m.volumes.types import ALL_CONTRASTS, CONTRASTS


@dataclass(frozen=True)
class CaseFiles:
    """One case of a batch, before anything is read."""

    id: str
    """Safe as a folder's name."""
    t1: Path | None
    """None: the file is missing, and the case will fail with that reason."""
    t2: Path | None
    flair: Path | None
    enhancement_mask: Path | None = None
    """The enhancing tumour as a person sees it; None: it is predicted."""
    notices: tuple[Notice, ...] = ()
    """What was said about the choice of the files; it goes with the result."""
    adc: Path | None = None
    """For models that take it; likewise `swi`."""
    swi: Path | None = None
    problem: str = ""
    """Why the files cannot be used, if they cannot."""


def find_cases(place: Path) -> list[CaseFiles]:
    """The cases of a folder (its own files, or one folder a case) or of a CSV table.

    Args:
        place: A folder, or a .csv with columns t1, t2, flair and, if wanted, id, adc, swi and
            enhancement_mask; relative paths are relative to it.

    Raises:
        D3MError: there are no cases, two have one id, a folder cannot be looked into, or the table lacks a column.
    """
    try:
        if place.is_dir():
            cases = _from_folder(place)
        elif place.is_file() and place.suffix.lower() == ".csv":
            cases = _from_table(place)
        else:
            fault = "is neither a folder nor a .csv table" if place.exists() else "does not exist"
            raise D3MError(f"{plain(place.name)!r} {fault}.", "Give a folder of BraTS-named cases, or a table.")
    except OSError as error:  # of a folder above, too
        raise D3MError(
            f"A folder of cases cannot be read ({error.strerror}: {plain(error.filename)!r}).",
            "Change its permissions, or give another folder.",
            "machine",
        ) from error
    seen: set[str] = set()
    for case in cases:
        if case.id.lower() in seen:  # folders of some systems do not tell upper from lower case
            raise D3MError(f"Two cases have the id {case.id!r}.", "Give each case an id of its own.")
        seen.add(case.id.lower())
    return cases


def _from_folder(folder: Path) -> list[CaseFiles]:
    cases = []
    others: list[str] = []
    for place, deeper in _places(folder):
        names = [p.name for p in place.iterdir() if p.is_file()]
        found, several = assign(names), doubled(names)
        others += [name for name in names if name.endswith((".nii", ".nii.gz"))] if not found else []
        for identifier, files in sorted(found.items()):
            paths = {contrast: place / name for contrast, name in files.items()}
            if not paths.keys() & set(CONTRASTS):  # a lone T1c or segmentation: the results of a batch, say
                continue
            notices = () if not deeper else (Notice("deeper-folders", _left_alone(deeper)),)
            case = CaseFiles(safe_id(identifier), paths.get("t1"), paths.get("t2"), paths.get("flair"), notices=notices)
            cases.append(replace(case, problem=_which(several.get(identifier, {}))))
    if not cases:
        seen = f"; found {', '.join(sorted(others)[:3])}" if others else ""
        raise D3MError(
            f"The folder holds no BraTS-named cases{seen}.",
            "Name the files <ID>_t1.nii.gz, <ID>_t2.nii.gz, <ID>_flair.nii.gz (or -t1n, -t2w, -t2f), or give a table.",
        )
    return cases


def _places(folder: Path) -> Iterator[tuple[Path, int]]:
    """The folder, those in it, and deeper ones where there is none above with scans; and how many deeper folders with
    scans are left alone beside each."""
    yield folder, 0
    for place in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        deeper = [p for p in _with_scans(place, MAX_DEPTH) if p != place]
        if not _has_scans(place):
            yield from ((inner, 0) for inner in deeper)
        yield place, len(deeper) if _has_scans(place) else 0


MAX_TABLE = 50_000_000
"""Bytes of a table; one of a hundred thousand cases has half as many."""
MAX_DEPTH = 4
"""Folders within each other that cases are looked for in."""


def _with_scans(place: Path, depth: int) -> list[Path]:
    """The folders at and below a place that hold scans of a case; links are not followed."""
    found = [place] if _has_scans(place) else []
    if depth > 0:
        inner = sorted(p for p in place.iterdir() if p.is_dir() and not p.is_symlink() and not p.name.startswith("."))
        for folder in inner:
            found += _with_scans(folder, depth - 1)
    return found


def _has_scans(place: Path) -> bool:
    return any(
        files.keys() & set(CONTRASTS) for files in assign(p.name for p in place.iterdir() if p.is_file()).values()
    )


def _left_alone(count: int) -> str:
    folders = "A deeper folder with further scans was" if count == 1 else f"{count} deeper folders with scans were"
    return f"{folders} left alone: the scans beside them are used."


def _which(several: dict[str, tuple[str, ...]]) -> str:
    """What is wrong where several files could be one contrast, if only packed and unpacked: they may differ."""
    for contrast, endings in several.items():
        if contrast in CONTRASTS:
            return f"Several files could be its {contrast.upper()}: ...{', ...'.join(endings)}."
    return ""


def _from_table(table: Path) -> list[CaseFiles]:
    images = (*ALL_CONTRASTS, "enhancement_mask")
    rows = read_table(table, "The table of cases", "case", "t1,t2,flair[,id]", CONTRASTS, images)
    return [
        CaseFiles(
            safe_id(row.get("id") or f"case{number:04d}"),
            **{name: Path(row[name]) if row.get(name) else None for name in images},  # type: ignore[arg-type]
        )
        for number, row in enumerate(rows, start=1)
    ]


def read_table(
    table: Path, title: str, unit: str, columns: str, required: Sequence[str], paths: Sequence[str]
) -> list[dict[str, str]]:
    """The rows of a CSV table by column; names in lower case, white space around names and values is dropped.

    Args:
        table: The file.
        title: What messages call it.
        unit: What messages call that which a row stands for.
        columns: What the first line holds, as messages say it.
        required: Columns that must be there.
        paths: Columns of files; relative ones are relative to the table.

    Raises:
        D3MError: it cannot be read, has no rows, or lacks a column.
    """
    text = read_text(table, title, MAX_TABLE)
    try:
        read = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
        rows = [{k.strip().lower(): (v or "").strip() for k, v in row.items() if k} for row in read]
    except csv.Error as error:
        raise D3MError(f"{title} cannot be read.", "Save it as CSV in UTF-8.") from error
    if not rows:
        raise D3MError(f"{title} has no rows.", f"Give one row per {unit}, with columns {columns}.")
    missing = [name for name in required if name not in rows[0]]
    if missing:
        hint = f"Its first line must name {columns}, with commas between them."
        raise D3MError(f"{title} has no column {', '.join(missing)}.", hint)
    for row in rows:
        row.update({name: str(table.parent / row[name]) for name in paths if row.get(name)})
    return rows


def safe_id(text: str) -> str:
    """An id that can be a folder's name on every system."""
    cleaned = re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", plain(text).strip()).strip(". ")[:100]
    return cleaned or "case"
