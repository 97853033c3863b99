"""Where scans and masks were read from, and what the names in their folders say."""

from __future__ import annotations

import functools
import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from d3m.results.ours import provenance_in
from D3MSynthesisLib.Identity import SERIES, STAMP, examinationHash, identityOf
from D3MSynthesisLib.Words import OF_MASKS, PROCESSED, TIMED, isOfMask, isOfScan, isOfVisit, numbersIn, restOf, wordsOf

ORIGIN = "D3M.Origin"
"""Attribute of a volume: a hash of the folder that it was read from first, since saving a scene gathers the files of
all patients in one folder; `UNKNOWN` where it came with a scene that does not tell."""
UNKNOWN = "unknown"
EXAMINATION = "D3M.Examination"
"""Attribute of what was read from a result's folder: `examinationHash` of the T1 that the result was made from."""
HOLDERS = re.compile(r"nifti|nii|nrrd|files|resources|images?|anat")
"""Folders between a patient's or series' folder and its files: "T1/NIFTI/t1.nii.gz", "smith/images/t1.nii.gz"."""
MOST_FILES = 200
"""Files of a folder that are looked at."""


def placeOf(node: Any) -> str:
    """What tells the folder that a volume was read from first from others; empty where it is not known."""
    kept = node.GetAttribute(ORIGIN)
    if kept:
        return "" if kept == UNKNOWN else str(kept)
    path = fileOf(node)
    return "" if path is None else hashOf(folderOf(path))


def hashOf(folder: Path) -> str:
    """What stands for a folder in a scene that may be passed on."""
    return hashlib.sha256(str(folder).encode()).hexdigest()[:16]


def folderOf(path: Path) -> Path:
    """The folder of a patient's files: where each series has one of its own, as in "smith/t1/t1.nii.gz", that above.

    So it is where scans and masks have folders, as in "smith/masks/left.nii.gz". A file whose name says more than the
    scan may be one of many patients' there.
    """
    series = path.parent
    while HOLDERS.fullmatch(series.name.lower()) or OF_MASKS.fullmatch(series.name.lower()):
        series = series.parent
    stamps = [word for word in wordsOf(_plainName(path)) if re.fullmatch(STAMP, word)]
    ofSeries = _isOfSeries(path, stamps) and _isOfSeries(series) and not _holdsOthers(path)
    return series.parent if ofSeries else series


def _plainName(path: Path) -> str:
    return path.name.split(".")[0].lower()


def _isOfSeries(path: Path, also: Iterable[str] = ()) -> bool:
    """Whether the name of a file or folder says which scan or mask it is, perhaps its number, and `also` these words.

    Archives write numbers of series ("smith/scans/4_t1"); elsewhere they may be patients'.
    """
    from D3MSynthesisLib.Assignment import contrastOf, furtherOf

    name = _plainName(path)
    if path.parent.name.lower() == "scans":
        name = re.sub(r"^\d+[-_. ]+", "", name)
    words = wordsOf(name)
    numbers = set() if numbersArePatients(path) else numbersIn(words)
    rest = [word for word in words if word not in numbers and word not in also]
    marks = " ".join(word for word in rest if not isOfScan(word))
    return bool(OF_MASKS.fullmatch(marks) or (not marks and (contrastOf(name) or furtherOf(name))))


def _holdsOthers(path: Path) -> bool:
    """Whether scans of other kinds lie beside a file: then its folder "T1" is the first date's, not the T1's."""
    return len({kind for kind, _word in _beside(path)}) > 1


def numbersOfPatients(node: Any) -> bool:
    """Whether a node's file lies where numbers in names of scans are patients'."""
    path = fileOf(node)
    return path is not None and path.parent.is_dir() and numbersArePatients(path)


def numbersArePatients(path: Path) -> bool:
    """Whether numbers of scans in a folder may be patients': two kinds have one in common, or all are of one kind."""
    several = len({word for _kind, word in _beside(path) if re.fullmatch(SERIES, word)}) > 1
    return (several and not apartBy(SERIES, path)) or not path.parent.is_dir()  # nobody knows


def apartBy(pattern: str, path: Path) -> bool:
    """Whether numbers or stamps in the names of a folder's scans are others for each kind."""
    kinds: dict[str, set[str]] = {}
    for kind, word in _beside(path):
        if re.fullmatch(pattern, word):
            kinds.setdefault(word, set()).add(kind)
    return all(len(found) == 1 for found in kinds.values()) and len(set().union(*kinds.values())) > 1


def holdsSeveral(folder: Path) -> bool | None:
    """Whether scans of one kind in a folder are named for several patients or dates, or numbers may be patients'.

    A name of one kind that says more than another one is of what was made from that, as "T1_orig" is.

    Returns:
        None where such names of several kinds say the same word: a date, as in "T1_fu" and "T2_fu", is told from what
        was done, but a patient is not.
    """
    marks: dict[str, set[tuple[str, ...]]] = {}
    for scan in scansIn(folder):
        if not isOfMask(scan.said):
            marks.setdefault(scan.kind, set()).add(tuple(word for word in scan.said if not PROCESSED.fullmatch(word)))
    made = [{one for one in found if any(set(other) < set(one) for other in found)} for found in marks.values()]
    alike = [one for one, count in Counter(chain(*made)).items() if count > 1]
    apart = any(len(found - more) > 1 for found, more in zip(marks.values(), made, strict=True))
    dated = any(map(isOfVisit, chain(*alike)))
    if apart or dated or numbersArePatients(folder / "any"):
        return True
    return None if alike else False


def _beside(path: Path) -> set[tuple[str, str]]:
    """Kind, and each number and stamp, of the scans in the folder of a file or folder whose names say nothing else."""
    return {(scan.kind, word) for scan in scansIn(path.parent) if not scan.said for word in (*scan.numbers, "")}


@dataclass(frozen=True)
class Called:
    """What the name of a file or folder says that is called as a scan."""

    kind: str
    said: tuple[str, ...]
    """What it says besides, without numbers and stamps."""
    numbers: frozenset[str]
    """Stamps, and what may be the number of a series."""
    rest: frozenset[str]
    """`restOf` it."""


def scansIn(folder: Path) -> frozenset[Called]:
    """What each file or folder in a folder says that is called as a scan."""
    try:
        return _lookInto(folder, folder.stat().st_mtime_ns)
    except OSError:  # moved away since it was read
        return frozenset()


@functools.lru_cache(256)
def _lookInto(folder: Path, _time: int) -> frozenset[Called]:
    """`scansIn`; views ask at every change, the folder is read once."""
    from D3MSynthesisLib.Assignment import contrastOf

    found = set()
    for path in islice(folder.iterdir(), MOST_FILES):
        name = _plainName(path)
        words = wordsOf(name)
        stamps, numbers = {word for word in words if re.fullmatch(STAMP, word)}, numbersIn(words)
        if kind := contrastOf(name):
            said = tuple(word for word in words if word not in stamps | numbers and not isOfScan(word))
            timed = any(re.fullmatch(TIMED, word) for word in stamps)  # then numbers are series' in any case
            found.add(Called(kind, said, frozenset(stamps if timed else stamps | numbers), restOf(name)))
    return frozenset(found)


def keepPlace(node: Any, fromScene: bool = False, like: Any = None) -> None:
    """Remember where a volume was read from.

    Args:
        node: The volume.
        fromScene: It came with a scene, and lies where that was saved.
        like: The volume that it was made from.
    """
    if node.GetAttribute(ORIGIN) is None:
        place = UNKNOWN if fromScene else placeOf(node if like is None else like)
        if place:
            if not fromScene and (examination := _examinationOf(node if like is None else like)):
                node.SetAttribute(EXAMINATION, examination)
            node.SetAttribute(ORIGIN, place)


def wasRead(node: Any) -> bool:
    """Whether a node came from a file of its own; what was made in the scene, and saved from there, did not."""
    return node.GetAttribute(ORIGIN) not in (None, UNKNOWN)


def _examinationOf(node: Any) -> str:
    """`EXAMINATION` of a node, by its result's provenance where nobody has kept it; empty if nothing tells it."""
    kept, path = node.GetAttribute(EXAMINATION), fileOf(node)
    if kept or path is None or node.GetAttribute(ORIGIN):
        return kept or ""
    try:
        return str(((provenance_in(path.parent) or {}).get("identity") or {})["hashes"]["t1"]["study"])
    except (KeyError, TypeError, AttributeError):  # of scans without identifiers, or not written by the panel
        return ""


def ofOtherExamination(mask: Any, t1: Any) -> bool | None:
    """Whether a mask lay in the folder of a result of another examination than T1's; None where nothing tells it."""
    theirs, mine = _examinationOf(mask), examinationHash(identityOf(t1))
    return theirs != mine if theirs and mine else None


def fileOf(node: Any) -> Path | None:
    """The file that a node was read from; None if there is none."""
    storage = node.GetStorageNode() if node.IsA("vtkMRMLStorableNode") and hasattr(node, "GetStorageNode") else None
    name = storage.GetFileName() if storage is not None else None
    return Path(name) if name else None
