"""Which patients are trained on, chosen on, and reported on; all visits of a patient stay together."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from d3m.errors import D3MError

PUBLISHED = {1470: (1001, 250, 219), 307: (173, 43, 91)}
"""Patients of BraSyn and BraTS-PEDs in the paper: all of them, and how they were split."""
DEFAULT_SHARES = (0.7, 0.15, 0.15)


@dataclass(frozen=True)
class Split:
    """Ids of the patients' visits."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    seed: int = 0


def group_of(identifier: str) -> str:
    """The patient of a visit: `BraTSReg_002_00` and `_01` are one, `BraTS-GLI-00001-000` and `-001` too."""
    for pattern in (r"(BraTS-[A-Za-z]+-\d+)-\d{3}", r"(BraTSReg_\d+)_\d{2}", r"(UPENN-GBM-\d+)_\d{2}", r"(.+?)[_-](?:ses|visit|tp)[_-]?\d+"):
        match = re.fullmatch(pattern, identifier, re.IGNORECASE)
        if match:
            return match.group(1)
    return identifier


def make_split(groups: Mapping[str, str], seed: int = 0, sizes: tuple[int, int, int] | None = None) -> Split:
    """Split patients at random.

    Args:
        groups: Patient of each visit's id.
        seed: Decides.
        sizes: Patients for training, validation and test; None: the published sizes for as many patients as the
            paper had, else 70, 15 and 15 per cent.

    Raises:
        D3MError: more patients are asked for than there are.
    """
    patients = sorted(set(groups.values()))
    count = len(patients)
    if sizes is None:
        sizes = PUBLISHED.get(count)
    if sizes is None:
        validation, test = (round(count * share) for share in DEFAULT_SHARES[1:])
        sizes = (count - validation - test, validation, test)
    if sum(sizes) > count:
        raise D3MError(f"The split asks for {sum(sizes)} patients; there are {count}.", "Ask for fewer.")
    random.Random(seed).shuffle(patients)
    first, second = sizes[0], sizes[0] + sizes[1]
    parts = (patients[:first], patients[first:second], patients[second : sum(sizes)])
    return Split(*(tuple(sorted(i for i, g in groups.items() if g in set(part))) for part in parts), seed)


def check_split(split: Split, groups: Mapping[str, str]) -> None:
    """Find out whether a split can be used.

    Raises:
        D3MError: an id stands twice, is not in the data, or a patient's visits are in two parts.
    """
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    where: dict[str, str] = {}
    for part, ids in parts.items():
        for identifier in ids:
            if identifier not in groups:
                raise D3MError(f"The split names {identifier}, which is not in the data.", "Make the split again.")
            patient = groups[identifier]
            if where.setdefault(patient, part) != part:
                raise D3MError(
                    f"Visits of the patient {patient} stand in {where[patient]} and in {part}.",
                    "Put all visits of a patient into one part.",
                )


def write_split(path: Path, split: Split) -> None:
    """Write a split as JSON."""
    path.write_text(json.dumps(asdict(split), indent=1) + "\n", encoding="utf-8")


def read_split(path: Path) -> Split:
    """Read what `write_split` wrote.

    Raises:
        D3MError: it is not such a file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        parts = [tuple(str(i) for i in content.get(name, ())) for name in ("train", "validation", "test")]
        return Split(*parts, int(content.get("seed", 0)))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise D3MError("The split file cannot be read.", 'It is JSON with "train", "validation" and "test".') from error
