"""File names of BraTS-style data: which file is which contrast. Pure text, no files are opened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

EXTENSIONS = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Style:
    """How one family of data sets names its files: `<id><separator><suffix><extension>`."""

    name: str
    separator: str
    suffixes: tuple[tuple[str, str], ...]
    """(contrast, suffix), for t1, t2, flair, t1c and seg."""


STYLES = (
    Style("BraTS until 2021", "_", (("t1", "t1"), ("t2", "t2"), ("flair", "flair"), ("t1c", "t1ce"), ("seg", "seg"))),
    Style("BraTS from 2023", "-", (("t1", "t1n"), ("t2", "t2w"), ("flair", "t2f"), ("t1c", "t1c"), ("seg", "seg"))),
    Style("upper case", "_", (("t1", "T1"), ("t2", "T2"), ("flair", "FLAIR"), ("t1c", "T1Gd"), ("seg", "seg"))),
    Style("upper case", "_", (("t1", "T1"), ("t2", "T2"), ("flair", "FLAIR"), ("t1c", "T1CE"), ("seg", "seg"))),
    Style("upper case", "_", (("t1", "T1"), ("t2", "T2"), ("flair", "FLAIR"), ("t1c", "T1C"), ("seg", "seg"))),
    Style("upper case", "_", (("t1", "T1"), ("t2", "T2"), ("flair", "Flair"), ("t1c", "T1GD"), ("seg", "GlistrBoost"))),
    Style("UPENN-GBM", "_", (("t1", "T1"), ("t2", "T2"), ("flair", "FLAIR"), ("t1c", "T1GD"), ("seg", "segm"))),
    Style(
        "UCSF-PDGM",
        "_",
        (("t1", "T1"), ("t2", "T2"), ("flair", "FLAIR"), ("t1c", "T1c"), ("seg", "tumor_segmentation")),
    ),
)
"""Suffixes are compared whole, so that "t1" is never found in "t1ce"."""


def split_name(name: str) -> tuple[str, str, str] | None:
    """(id, separator, suffix) of a file's name, or None if it is not an image of any style."""
    if name.startswith("."):  # hidden: macOS puts "._X_t1.nii.gz" beside the "X_t1.nii.gz" that it copies
        return None
    for extension in EXTENSIONS:
        if name.endswith(extension):
            stem = name[: -len(extension)]
            break
    else:
        return None
    endings = {(style.separator, suffix) for style in STYLES for _, suffix in style.suffixes}
    found = [ending for ending in endings if stem.endswith("".join(ending))]
    if not found:
        return None
    separator, suffix = max(found, key=lambda ending: len(ending[1]))
    return stem[: -len(separator) - len(suffix)], separator, suffix


def assign(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Which file is which contrast, for each case.

    Args:
        names: Names of files, in any order.

    Returns:
        For each id the contrasts ("t1", "t2", "flair", "t1c", "seg") and their files' names. The style is that
        which explains most of a case's files. Names of no style are left out; `doubled` says where there was a choice.
    """
    cases: dict[tuple[str, str], dict[str, list[str]]] = {}
    for name in sorted(names):
        parts = split_name(name)
        if parts is not None:
            identifier, separator, suffix = parts
            cases.setdefault((identifier, separator), {}).setdefault(suffix, []).append(name)
    result: dict[str, dict[str, str]] = {}
    for (identifier, separator), found in cases.items():
        candidates = [style for style in STYLES if style.separator == separator]
        best = max(candidates, key=lambda style: sum(suffix in found for _, suffix in style.suffixes))
        assigned = {contrast: found[suffix][0] for contrast, suffix in best.suffixes if suffix in found}
        if len(assigned) > len(result.get(identifier, {})):
            result[identifier] = assigned
    return result


def doubled(names: Iterable[str]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Contrasts of a case that several files could be.

    Args:
        names: Names of files of one folder, in any order.

    Returns:
        For each id the contrasts with more than one candidate, and how their names end: `_flair.nii.gz`,
        `_FLAIR.nii.gz`. Which of them is meant cannot be known; `assign` takes the one whose style explains most.
    """
    kinds = {(style.separator, suffix): contrast for style in STYLES for contrast, suffix in style.suffixes}
    found: dict[str, dict[str, list[str]]] = {}
    for name in sorted(names):
        parts = split_name(name)
        if parts is not None:
            identifier, separator, suffix = parts
            contrast = kinds[separator, suffix]
            found.setdefault(identifier, {}).setdefault(contrast, []).append(name[len(identifier) :])
    several = {key: {c: tuple(e) for c, e in one.items() if len(e) > 1} for key, one in found.items()}
    return {key: one for key, one in several.items() if one}
