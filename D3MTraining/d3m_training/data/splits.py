"""Which patients are trained on, chosen on, and reported on; all visits of a patient stay together."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from d3m.errors import D3MError
from d3m.system.text import read_object

PARTS = ("train", "validation", "test")
PUBLISHED = {1470: (1001, 250, 219), 307: (173, 43, 91)}
"""Patients of BraSyn and BraTS-PEDs in the paper: all of them, and how they were split."""
DEFAULT_SHARES = (0.7, 0.15, 0.15)
VISITS = (
    (r"(BraTS(?:-[A-Z]+)+-\d+)-\d{1,3}", r"\1"),  # BraTS-GLI-00001-000
    (r"(BraTSReg_\d+)_\d{2}(?:_\d+)?", r"\1"),  # BraTSReg_002_00, BraTSReg_002_01_0106
    (r"BraTS\d{2}(_[A-Z\d]+_[A-Z\d]+)_\d+", r"BraTS\1"),  # Brats18_CBICA_ABM_1 came again as BraTS19_CBICA_ABM_1
    (r"BraTS(_[A-Z\d]+_pat\d+)_\d+", r"BraTS\1"),  # brats_tcia_pat222_0002, of BraTS 2015
    (r"(UPENN-GBM-\d+)_\d{2}", r"\1"),
    (r"(UCSF-PDGM-\d+)_FU\d+d?", r"\1"),
    (r"(TCGA-\w{2}-\w{4})[_-].+", r"\1"),  # TCGA-CS-4941_1996.07.09
    (r"(.+?)[_-](?:session|ses)[_-]?[A-Z\d]+", r"\1"),  # sub-01_ses-pre
    (r"(.+?)[_-](?:visit|timepoint|time|tp|week|month|day|fu)[_-]?\d+(?:[_-]\d+)?", r"\1"),
)
"""Names of visits, and what of them names the patient."""


@dataclass(frozen=True)
class Split:
    """Ids of the patients' visits."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    seed: int = 0

    def parts(self) -> dict[str, tuple[str, ...]]:
        """The ids by the part's name."""
        return dict(zip(PARTS, (self.train, self.validation, self.test), strict=True))

    def ids(self) -> frozenset[str]:
        """All of them."""
        return frozenset((*self.train, *self.validation, *self.test))

    def without(self, ids: frozenset[str]) -> Split:
        """The same split, without some ids."""
        kept = [tuple(i for i in part if i not in ids) for part in (self.train, self.validation, self.test)]
        return Split(kept[0], kept[1], kept[2], self.seed)


def group_of(identifier: str) -> str:
    """The patient of a visit: `BraTSReg_002_00` and `_01` are one, `BraTS-GLI-00001-000` and `-001` too."""
    for pattern, patient in VISITS:
        match = re.fullmatch(pattern, identifier, re.IGNORECASE)
        if match:
            return match.expand(patient)
    return identifier


def make_split(groups: Mapping[str, str], seed: int = 0, sizes: tuple[int, int, int] | None = None) -> Split:
    """Split patients at random.

    Args:
        groups: Patient of each visit's id.
        seed: Decides.
        sizes: Patients for training, validation and test; None: the published sizes for as many patients (or visits)
            as the paper had, else 70, 15 and 15 per cent. Sizes that only the visits suffice for count visits.

    Raises:
        D3MError: more are asked for than there are, or a size is negative.
    """
    members: dict[str, list[str]] = {}
    for identifier, patient in sorted(groups.items()):
        members.setdefault(patient, []).append(identifier)
    count, visits = len(members), len(groups)
    if sizes is None:
        sizes = PUBLISHED.get(count) or PUBLISHED.get(visits)
    if sizes is None:
        validation, test = (round(count * share) for share in DEFAULT_SHARES[1:])
        sizes = (count - validation - test, validation, test)
    if min(sizes) < 0:
        raise D3MError("A part of the split cannot have less than 0 patients.", "Give three numbers, each 0 or larger.")
    if sum(sizes) > visits:
        raise D3MError(f"The split asks for {sum(sizes)} patients; there are {count}.", "Ask for fewer.")
    by_visits = sum(sizes) > count
    patients = sorted(members)
    rng = random.Random(seed)
    rng.shuffle(patients)
    if by_visits:  # those with most visits first, so that single visits are left to fill the parts exactly
        patients.sort(key=lambda p: -len(members[p]))
    parts: list[list[str]] = [[], [], []]
    room = list(sizes)
    for patient in patients:
        needed = len(members[patient]) if by_visits else 1
        open_parts = [k for k in range(3) if room[k] >= needed]
        if open_parts:
            part = rng.choices(open_parts, [room[k] for k in open_parts])[0] if by_visits else open_parts[0]
            room[part] -= needed
            parts[part] += members[patient]
    if by_visits and any(room):
        raise D3MError(
            f"Parts of {sizes[0]}, {sizes[1]} and {sizes[2]} cannot be made of {count} patients with {visits} visits.",
            "Ask for other sizes.",
        )
    return Split(tuple(sorted(parts[0])), tuple(sorted(parts[1])), tuple(sorted(parts[2])), seed)


def make_folds(strata: Mapping[str, int], groups: Mapping[str, str], count: int) -> tuple[frozenset[str], ...]:
    """Parts of a cross-validation: the same ones wherever the same patients are, with no seed and no file.

    Args:
        strata: For each visit's id a kind; each kind is spread over all folds.
        groups: Patient of each visit's id; the visits of a patient stay together, in the stratum of the first.
        count: Folds.

    Returns:
        For each fold the ids that are held out.

    Raises:
        D3MError: fewer patients than folds.
    """
    members: dict[str, list[str]] = {}
    for identifier in sorted(strata):
        members.setdefault(groups[identifier], []).append(identifier)
    if len(members) < count:
        raise D3MError(f"{len(members)} patients cannot be put into {count} folds.", "Ask for fewer folds.")

    def order(patient: str) -> tuple[int, str]:
        return strata[members[patient][0]], hashlib.sha256(patient.encode()).hexdigest()

    dealt: list[list[str]] = [[] for _ in range(count)]
    for place, patient in enumerate(sorted(members, key=order)):
        dealt[place % count] += members[patient]
    return tuple(frozenset(fold) for fold in dealt)


@dataclass(frozen=True)
class Conflict:
    """A patient with visits in two parts of a split."""

    patient: str
    parts: tuple[str, ...]
    ids: tuple[str, ...]


def conflicts(split: Split, groups: Mapping[str, str]) -> list[Conflict]:
    """The patients whose visits are in different parts: what is learnt on one would be tested on the other.

    Args:
        split: What is looked at.
        groups: Patient of each visit's id; ids that are not in it are left out.
    """
    where: dict[str, dict[str, list[str]]] = {}
    for part, ids in split.parts().items():
        for identifier in ids:
            if identifier in groups:
                where.setdefault(groups[identifier], {}).setdefault(part, []).append(identifier)
    return [
        Conflict(patient, tuple(parts), tuple(i for ids in parts.values() for i in ids))
        for patient, parts in where.items()
        if len(parts) > 1
    ]


def check_split(split: Split, groups: Mapping[str, str]) -> None:
    """Find out whether a split can be used.

    Raises:
        D3MError: an id occurs twice, is not in the data, or a patient's visits are in two parts.
    """
    for part, ids in split.parts().items():
        twice = sorted({i for i in ids if ids.count(i) > 1}) if len(set(ids)) < len(ids) else []
        if twice:
            raise D3MError(f"The split names {twice[0]} twice in {part}.", "Name each id once.")
    absent = sorted(split.ids() - groups.keys())
    if absent:
        names = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
        raise D3MError(f"The split names {names}, which the data do not have.", "Make the split again.")
    for conflict in conflicts(split, groups):
        raise D3MError(
            f"Visits of the patient {conflict.patient} are in {' and in '.join(conflict.parts)}: "
            f"{', '.join(conflict.ids[:6])}.",
            "Put all visits of a patient into one part.",
        )


def split_text(split: Split) -> str:
    """A split as JSON."""
    return json.dumps(asdict(split), indent=1) + "\n"


def read_split(path: Path) -> Split:
    """Read a split file, as `split_text` makes it.

    Raises:
        D3MError: it is not such a file.
    """
    hint = 'It is JSON with lists of ids under "train", "validation" and, if wanted, "test".'
    try:
        content = read_object(path, "The split file")
        parts = [content["train"], content["validation"], content.get("test", [])]
        seed = int(content.get("seed", 0))
    except (D3MError, ValueError, TypeError, OverflowError, AttributeError, KeyError) as error:
        raise D3MError("The split file cannot be read.", hint) from error
    if not all(isinstance(part, list) and all(isinstance(i, str) for i in part) for part in parts):
        raise D3MError("The split file cannot be read.", hint)
    train, validation, test = (tuple(part) for part in parts)
    return Split(train, validation, test, seed)


def hash_of(fold: Iterable[str]) -> str:
    """A short name for who a fold holds out, from which nobody is known."""
    return hashlib.sha256("\n".join(sorted(fold)).encode()).hexdigest()[:16]
