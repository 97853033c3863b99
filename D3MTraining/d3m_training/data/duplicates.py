"""One patient under several names: found by the images themselves, whatever the files are called.

Public data sets rename their patients every year. Who is in training under one name and in validation under another
makes a model look better than it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from d3m.volumes.types import Floats


def voxel_fingerprint(data: Floats) -> str:
    """A hash of which values an image holds and how often, but for the background's.

    The same picture has it in another orientation, cropped, padded, or under another header: data sets store their
    patients anew each year, and rename them.
    """
    values, counts = np.unique(data[np.isfinite(data)], return_counts=True)
    keep = np.arange(len(values)) != counts.argmax()
    digest = hashlib.sha256(values[keep].astype("<f4").tobytes())
    digest.update(counts[keep].astype("<i8").tobytes())
    return digest.hexdigest()


def same_patients(fingerprints: Mapping[str, tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    """Ids that share an image, in sets of two and more."""
    owner: dict[str, str] = {}
    sets: dict[str, list[str]] = {identifier: [identifier] for identifier in fingerprints}
    for identifier, marks in fingerprints.items():
        for mark in marks:
            other = owner.setdefault(mark, identifier)
            if sets[other] is not sets[identifier]:
                joined = sets[other] + sets[identifier]
                sets |= dict.fromkeys(joined, joined)
    unique = {tuple(sorted(ids)) for ids in sets.values() if len(ids) > 1}
    return tuple(sorted(unique))


def merged_groups(groups: Mapping[str, str], same: Sequence[tuple[str, ...]]) -> dict[str, str]:
    """The group of each id, one for all visits of those who are the same patient.

    Args:
        groups: Patient of each visit's id.
        same: From `same_patients`.
    """
    other: dict[str, str] = {}

    def root(group: str) -> str:
        while other.get(group, group) != group:
            group = other[group]
        return group

    for ids in same:
        for identifier in ids[1:]:
            other[root(groups[identifier])] = root(groups[ids[0]])
    return {identifier: root(group) for identifier, group in groups.items()}
