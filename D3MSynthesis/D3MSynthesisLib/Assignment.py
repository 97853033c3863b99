"""Which node is which scan, by what nodes say about themselves; scans of two examinations are never mixed."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
from D3MSynthesisLib.Belonging import groups, placeOf

SYNTHETIC = "D3M.Synthetic"
"""Attribute of every node that this module made."""
OURS = re.compile(
    r"(?i)synthetic[ _,]+(?:cemri|subtraction|first[ _]sample|predicted|(?:before|after)[ _]warp)"
    r"|desc-synth(?:t1c|subtraction|spread|firstsample)|enhancing tumour \((?:predicted|edited)\)"
)
"""Names that results have in the scene, in files, BIDS derivatives and DICOM; scanners make synthetic contrasts of
their own."""
PROVENANCE = "provenance.json"
"""Lies in the folder of every result."""
IN_RESULT = re.compile(
    r"(?i)(?:cemri|subtraction|first_sample|enhancement_(?:probability|mask)|uncertainty|whole_tumour_probability"
    r"|step_\d+_(?:before|after|mask))(?:_\d+)?|(?P<case>.+)-t1c(?:_\d+)?"
)
"""Names of the engine's files and of a batch's copies: others may use them, too, so their folder is looked at. Slicer
numbers a second node of a name."""
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
    """Whether a node was made by a synthesis, or is named so: in a file a volume loses its attributes, not its name.

    Of a segmentation the names of its segments count, too.
    """
    if node is None or node.GetAttribute(SYNTHETIC) is not None:
        return node is not None
    names = [node.GetName() or ""]
    if node.IsA("vtkMRMLSegmentationNode"):
        segments = node.GetSegmentation()
        names += [segments.GetNthSegment(index).GetName() or "" for index in range(segments.GetNumberOfSegments())]
    return any(OURS.search(name) for name in names) or _isOfResult(node)


def _isOfResult(node: Any) -> bool:
    """Whether a node was read from a file of a result's folder, or from a batch's copy beside one."""
    named = IN_RESULT.fullmatch(node.GetName() or "")
    storage = node.GetStorageNode() if named and node.IsA("vtkMRMLStorableNode") else None
    if storage is None or not storage.GetFileName():
        return False
    place = Path(storage.GetFileName()).parent
    near = (place / named["case"],) if named["case"] else (place, place.parent)  # steps lie one folder deeper
    return any((folder / PROVENANCE).is_file() for folder in near)


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
    texts = [node.GetName() or ""]
    instances = node.GetAttribute("DICOM.instanceUIDs")
    database = getattr(slicer, "dicomDatabase", None)
    if instances and database is not None:
        for tag in ("0008,103E", "0018,1030"):
            texts.append(database.instanceValue(instances.split()[0], tag) or "")
        if database.instanceValue(instances.split()[0], "0018,0010"):
            texts.append("with contrast")
    return " ; ".join(text for text in texts if text)


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
