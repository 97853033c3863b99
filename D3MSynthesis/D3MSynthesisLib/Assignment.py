"""Which node is which scan, by what nodes say about themselves; scans of two examinations are never mixed."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
from d3m.results.ours import is_our_file, is_our_name
from D3MSynthesisLib.Belonging import groups
from D3MSynthesisLib.Places import fileOf, placeOf

SYNTHETIC = "D3M.Synthetic"
"""Attribute of every node that this module made."""
NEEDED = ("t1", "t2", "flair")
FURTHER = {
    "adc": re.compile(r"(?<![a-z])adc(?![a-z])|apparent[ _-]?diffusion"),
    "swi": re.compile(r"(?<![a-z])sw(?:i|an)(?![a-z])|susceptibility[ _-]?weighted"),
}
"""What some models take as well, and names of it."""
_PARTS = re.compile(r"(?<![a-z])(?:seg|mask|label|mi?n?ip|pha(?:se)?|mag(?:nitude)?)(?![a-z])")
"""Words of images that belong to one of these, and are none."""
SURE = ("study", "patient", "name")
"""What of `Belonging.groups` tells patients apart by itself."""
SAYS = ("", "folder", "name")
"""What tells them apart otherwise, the least first."""


@dataclass(frozen=True)
class Assignment:
    """Which node is which scan; None where no node fits."""

    t1: Any = None
    t2: Any = None
    flair: Any = None
    t1c: Any = None
    adc: Any = None
    swi: Any = None

    def __iter__(self) -> Iterator[Any]:
        """T1, T2, FLAIR and T1c."""
        return iter((self.t1, self.t2, self.flair, self.t1c))


def isSynthetic(node: Any) -> bool:
    """Whether a node was made by a synthesis, as far as its attribute, names, segments or file tell.

    In a file a volume loses its attributes; `keepMark` gives them back.
    """
    if node is None or node.GetAttribute(SYNTHETIC) is not None:
        return node is not None
    return _isCalledOurs(node) or (node.IsA("vtkMRMLSegmentationNode") and _hasOurSegment(node.GetSegmentation()))


def _isCalledOurs(node: Any) -> bool:
    """Whether a node's name, its DICOM series or its file say that it is a result."""
    if any(is_our_name(text) for text in (node.GetName() or "", *_seriesTexts(node))):
        return True
    path = fileOf(node)
    return path is not None and _isOurFile(path, node.GetName() or "")


def keepMark(node: Any) -> bool:
    """Keep with a node that it is synthetic: it may be saved elsewhere, renamed or copied.

    Segments keep a tag of their own (`Masks.ORIGINAL`): a segmentation may have those of a person beside them.

    Returns:
        Whether this is new.
    """
    if node.GetAttribute(SYNTHETIC) is not None or not _isCalledOurs(node):
        return False
    node.SetAttribute(SYNTHETIC, "yes")
    return True


def _hasOurSegment(segmentation: Any) -> bool:
    """Whether a segment is named as one of ours, or was one when it was made, whatever it is called now."""
    from D3MSynthesisLib.Masks import segmentsOf, tagOf

    for segment in segmentsOf(segmentation):
        tag = tagOf(segment)
        if (tag is not None and not tag.endswith(" given")) or is_our_name(segment.GetName() or ""):
            return True
    return False


def _isOurFile(path: Path, name: str) -> bool:
    try:
        time = path.stat().st_mtime_ns
    except OSError:
        time = 0
    return _lookAtFile(path, name, time)


@functools.lru_cache(256)
def _lookAtFile(path: Path, name: str, _time: int) -> bool:
    """Views ask at every change; the file is read once."""
    return is_our_file(path, name)


def contrastOf(description: str) -> str | None:
    """Which scan a name or description speaks of: see `contrast_of` of the engine's `descriptions`."""
    from d3m.volumes.io.dicom.descriptions import contrast_of

    return contrast_of(description)


def furtherOf(description: str) -> str | None:
    """Which of `FURTHER` a name or description speaks of."""
    text = description.lower()
    found = [name for name, words in FURTHER.items() if words.search(text)]
    return found[0] if len(found) == 1 and not _PARTS.search(text) else None


def nodeDescription(node: Any) -> str:
    """What a node says about itself: its name, and the descriptions of its DICOM series if it came from one."""
    texts = [node.GetName() or "", *_seriesTexts(node)]
    return " ; ".join(text for text in texts if text)


def _seriesTexts(node: Any) -> list[str]:
    """What the DICOM series says that a node came from; empty if it came from none."""
    instances = node.GetAttribute("DICOM.instanceUIDs")
    database = getattr(slicer, "dicomDatabase", None)
    if not instances or database is None:
        return []
    texts = [database.instanceValue(instances.split()[0], tag) or "" for tag in ("0008,103E", "0018,1030")]
    return [*texts, "with contrast"] if database.instanceValue(instances.split()[0], "0018,0010") else texts


def assignInputs(
    nodes: Iterable[Any],
    describe: Callable[[Any], str] = nodeDescription,
    chosen: Iterable[Any] = (),
    further: Collection[str] = (),
) -> Assignment:
    """Find T1, T2, FLAIR, and a real T1 with contrast, among volume nodes, by what they say about themselves.

    Nodes are grouped by examination (data tree, DICOM), else by the patient's part of their names, else by the folder
    that they were read from (see `Belonging.groups`). A gap in one group is never filled from another: it is left to
    the user.

    Args:
        nodes: In the order of the scene; nodes made by this module are left out.
        describe: Gives the text for a node.
        chosen: Nodes that the user has chosen: only their group is looked at, none if they are of several.
        further: Those of `FURTHER` that are looked for.

    Returns:
        Of the group that fills most places the first node of a kind, and what it has once of `further`. Nodes whose
        names say nothing about a patient are one group if each kind is there once; else nobody can tell which belong
        together.
    """
    wanted = [node for node in chosen if node is not None]
    scans = []
    for node in nodes:
        if node is None or isSynthetic(node):
            continue
        text = describe(node)
        kind = contrastOf(text) or furtherOf(text)
        if kind is not None and (kind not in FURTHER or kind in further):
            scans.append((kind, node))
    found = groups([*scans, *(("", node) for node in wanted if not any(node is one for _kind, one in scans))])
    mine = [group for group in found.items() if any(one is node for some in group[1].values() for one in some
                                                    for node in wanted)]  # fmt: skip
    if wanted:
        return _first(*mine[0]) if len(mine) == 1 else Assignment()
    found = _joined({key: some for key, some in found.items() if key[0] in SURE or _isClear(some)})
    best = max(found, key=lambda key: sum(kind in found[key] for kind in NEEDED), default=None)
    return Assignment() if best is None else _first(best, found[best])


def _isClear(group: dict[str, list[Any]]) -> bool:
    """Whether each kind is there once."""
    return all(len(found) == 1 for kind, found in group.items() if kind and kind not in FURTHER)


def _first(key: tuple[str, str, str], group: dict[str, list[Any]]) -> Assignment:
    if key[0] not in SURE and not _isClear(group):
        return Assignment()
    taken = {kind: found[0] for kind, found in group.items() if kind and (kind not in FURTHER or len(found) == 1)}
    return Assignment(**taken)


def _joined(
    found: dict[tuple[str, str, str], dict[str, list[Any]]],
) -> dict[tuple[str, str, str], dict[str, list[Any]]]:
    """Of two groups the one without names of a patient fills the other's gaps, unless its folder is another one."""
    if len(found) != 2 or any(key[0] in ("study", "patient") for key in found):
        return found
    (bare, some), (key, other) = sorted(found.items(), key=lambda group: (SAYS.index(group[0][0]), group[0][2]))
    places = {placeOf(node) for nodes in other.values() for node in nodes}
    apart = bare[0] == "name" or bare[2] or (bare[0] == "folder" and places != {bare[1]})
    return found if apart or some.keys() & other.keys() else {key: some | other}
