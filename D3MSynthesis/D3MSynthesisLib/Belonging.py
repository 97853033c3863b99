"""What folders and names say about whether scans are of one patient, where no identifier does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from D3MSynthesisLib.Identity import groupOf, identityOf, stemOf
from D3MSynthesisLib.Places import (
    apartBy,
    fileOf,
    folderOf,
    hashOf,
    numbersArePatients,
    numbersOfPatients,
    placeOf,
    scansIn,
)
from D3MSynthesisLib.Runs import nodesOf
from D3MSynthesisLib.Texts import _
from D3MSynthesisLib.Words import (
    DATE,
    DONE,
    LOOSE,
    MATRIX,
    SEQUENCES,
    SPAN,
    TIMED,
    isOfMask,
    isOfScan,
    isOfVisit,
    numbersIn,
    restOf,
    wordsOf,
)


def nameOf(node: Any) -> str:
    """A node's name without the number that Slicer puts behind the second node of a file's name."""
    name, path = node.GetName() or "", fileOf(node)
    base = "" if path is None else path.name.split(".")[0]
    return base if base and re.fullmatch(rf"{re.escape(base)}_\d+", name) else name


def markOf(node: Any) -> str:
    """What a node's name says besides the scan, in small letters: "t1_smith" gives "smith", "001_t1" gives "001".

    Numbers of series say nothing, nor does the time in a stamp where each series has its own.
    """
    words, path = wordsOf(nameOf(node)), fileOf(node)
    ownTimes = path is not None and apartBy(TIMED, path)
    ofStudy = not ownTimes and any(re.fullmatch(TIMED, word) for word in words)
    numbers = numbersIn(words) if ofStudy or (path is not None and not numbersArePatients(path)) else set()
    said = [
        word[:8] if ownTimes and re.fullmatch(TIMED, word) else word
        for place, word in enumerate(words)
        if word not in numbers and not isOfScan(word) and not (0 < place < len(words) - 1 and MATRIX.fullmatch(word))
    ]
    return " ".join(said)


def _stem(node: Any) -> str:
    """What a node's name begins with, but for what was done to the scan: "registered smith_t1c" gives "smith".

    Empty for Slicer's own names of what it makes: "Output Volume". nnU-Net's number of a scan, "case_000n", is no part
    of it where 0 lies beside, unless each kind of scan has a folder: then patients are numbered so.
    """
    from D3MSynthesisLib.Assignment import contrastOf

    stem, path = re.sub(rf"^(?:(?:{DONE})(?:[\W_]+|$))+", "", stemOf(nameOf(node))), fileOf(node)
    channel = None if path is None or contrastOf(path.parent.name) else re.fullmatch(r"(.+_000)\d(\..+)", path.name)
    if path is not None and channel is not None and path.with_name("0".join(channel.groups())).exists():
        stem = re.sub(r"_000\d$", "", stem)
    words = wordsOf(stem)
    return "" if all(SEQUENCES.fullmatch(word) or re.fullmatch(DONE, word) for word in words) else stem


def groups(nodes: Iterable[tuple[str, Any]]) -> dict[tuple[str, str, str], dict[str, list[Any]]]:
    """Nodes by what says that they belong together, each group by kind.

    Args:
        nodes: Which scan it is ("t1" ...), and the node.

    Returns:
        By "study", "patient", "name", "folder" or "" (nothing is said), its value, and what else tells groups of
        that value apart: what names of two kinds have in common, visits, or folders of nodes with equal names.
    """
    found: dict[tuple[str, str], list[tuple[str, Any]]] = {}
    for kind, node in nodes:
        key, place = groupOf(node), placeOf(node)
        found.setdefault(("folder", place) if key == ("", "") and place else key, []).append((kind, node))
    split: dict[tuple[str, str, str], dict[str, list[Any]]] = {}
    for (what, value), members in found.items():
        parts = {"": members}
        if what in ("", "folder"):
            parts = _byMark(members)
        elif what == "name":
            parts = {
                f"{part} {place}": some
                for part, one in _bySet(members).items()
                for place, some in _byPlace(one).items()
            }
        for part, some in parts.items():
            for kind, node in some:
                split.setdefault((what, value, part), {}).setdefault(kind, []).append(node)
    return split


def _split(members: list[tuple[str, Any]], tells: Callable[[Any], str]) -> dict[str, list[tuple[str, Any]]]:
    parts: dict[str, list[tuple[str, Any]]] = {}
    for kind, node in members:
        parts.setdefault(tells(node), []).append((kind, node))
    return parts


def _byMark(members: list[tuple[str, Any]]) -> dict[str, list[tuple[str, Any]]]:
    """Nodes by the marks of their names, where scans of two kinds have one in common; else as `_bySet`."""
    parts = _split(members, markOf)
    shared = any(mark and len({kind for kind, _node in some}) > 1 for mark, some in parts.items())
    return parts if shared else _bySet(members)


def _bySet(members: list[tuple[str, Any]]) -> dict[str, list[tuple[str, Any]]]:
    """Nodes by the visits, and by what else tells sets of scans apart, in their names."""
    sets = _setWords([(kind, _restOf(node)) for kind, node in members if kind])
    words = {word for word, kinds in sets.items() if kinds - {"t1c"}}  # protocols differ for T1 and T1c, too
    return _split(members, lambda node: " ".join(sorted(_visitsIn(node) | (_restOf(node) & words))))


def _byPlace(members: list[tuple[str, Any]]) -> dict[str, list[tuple[str, Any]]]:
    """A patient's scans may lie in a folder for each kind, but two of a kind are of two patients."""
    first: dict[str, str] = {}
    apart = any(first.setdefault(kind, placeOf(node)) != placeOf(node) for kind, node in members)
    return _split(members, placeOf) if apart else {"": members}


def doubt(nodes: Iterable[Any]) -> str:
    """A sentence where names or folders speak of several patients, or nothing of one; empty if all is well.

    Args:
        nodes: Chosen scans; whether identifiers agree is asked elsewhere.
    """
    chosen = list(nodes)
    if len(chosen) < 2:
        return ""
    told = disagreement(chosen)
    if told:
        return told
    stems = [_stem(node) for node in chosen]
    marks = [markOf(node) for node in chosen]
    named, placed = [bool(stem) for stem in stems], [bool(placeOf(node)) for node in chosen]
    either = [one or other for one, other in zip(named, placed, strict=True)]
    linked = all(either) and any(one and other for one, other in zip(named, placed, strict=True))
    if all(named) or all(placed) or linked or (marks[0] and len(set(marks)) == 1):
        return ""
    return _("Nothing says that these scans are of one patient: make sure that they are.")


def disagreement(nodes: list[Any]) -> str:
    """A sentence where names or folders of scans speak of several patients, else empty."""
    stems = [_stem(node) for node in nodes]
    marks = [markOf(node) for node in nodes]
    several = sorted({stem for stem in stems if stem})
    if len(several) < 2:
        several = _disagreeing(marks, several[0] if several else "", any(map(numbersOfPatients, nodes)))
    if len(several) > 1:
        text = _("The names speak of different patients ({names}): make sure that they are one.")
        return text.format(names=", ".join(several[:4]))
    if len({placeOf(node) for node in nodes} - {""}) > 1:
        return _("The scans were read from different folders: make sure that they are of one patient.")
    if any(_setsApart(node, nodes[0]) for node in nodes[1:]):
        text = _("The names do not say the same ({names}): make sure that the scans are of one patient and date.")
        return text.format(names=", ".join(map(nameOf, nodes)))
    return ""


def apart(one: Any, other: Any) -> bool:
    """Whether names or folders say of two scans that they are of two patients; identifiers are asked elsewhere."""
    stems = {_stem(one), _stem(other)}
    if "" not in stems:
        return len(stems) > 1 and not (_isMapBeside(one, other) or _isMapBeside(other, one))
    places, marks = {placeOf(one), placeOf(other)} - {""}, [_said(one), _said(other)]
    return len(places) > 1 or len(_disagreeing(marks, "", any(map(numbersOfPatients, (one, other))))) > 1


def _isMapBeside(image: Any, scan: Any) -> bool:
    """Whether an image that is none of the scans is called as a scan's patient is: "smith_rCBV" beside "smith_T1"."""
    from D3MSynthesisLib.Assignment import contrastOf, furtherOf

    if contrastOf(nameOf(image)) or furtherOf(nameOf(image)):
        return False
    return re.match(rf"{re.escape(_stem(scan))}[\W_]", _stem(image)) is not None


def _said(node: Any) -> str:
    """`markOf` without the number by which Slicer tells what it makes from others: "Volume_1"."""
    mark = markOf(node)
    return "" if not placeOf(node) and re.fullmatch(r"[1-9]\d?", mark) else mark


def acquiredIn(scene: Any) -> list[Any]:
    """The scalar volumes of a scene that no synthesis has made; none without one."""
    from D3MSynthesisLib.Assignment import isSynthetic

    found = [] if scene is None else nodesOf(scene, "vtkMRMLScalarVolumeNode")
    return [node for node in found if not (isSynthetic(node) or node.IsA("vtkMRMLLabelMapVolumeNode"))]


def severalPatients(scene: Any) -> bool:
    """Whether acquired scans of several patients are in a scene, by their identifiers."""
    return len({identityOf(node).patient for node in acquiredIn(scene)} - {""}) > 1


def belongsElsewhere(scan: Any, t1: Any) -> bool:
    """Whether identifiers, else names or folders, say that a scan is of another patient than T1."""
    mine, theirs = identityOf(t1).patient, identityOf(scan).patient
    return mine != theirs if mine and theirs else apart(scan, t1)


def isOfOtherVisit(scan: Any, t1: Any) -> bool:
    """Whether a scan is of another patient than T1, as `belongsElsewhere` has it, or of another date."""
    return belongsElsewhere(scan, t1) or _ofAnotherDate(scan, t1)


def _ofAnotherDate(scan: Any, t1: Any) -> bool:
    """Whether identifiers say that two scans are of two examinations; else names, or folders of two dates.

    A patient's scans may lie in a folder for each kind: two folders that have a scan of one kind are of two dates.
    """
    studies = [identityOf(node).study for node in (scan, t1)]
    if all(studies):
        return studies[0] != studies[1]
    if _setsApart(scan, t1):
        return True
    group = groupOf(scan)
    if group[0] != "name" or group != groupOf(t1):
        return False
    dates = [set(DATE.findall(nameOf(node))) for node in (scan, t1)]
    if all(dates) and not dates[0] & dates[1]:
        return True
    places = [placeOf(node) for node in (scan, t1)]
    if not all(places) or places[0] == places[1]:
        return False
    named = [scan, t1, *(node for node in acquiredIn(scan.GetScene()) if groupOf(node) == group)]
    return bool(kindsIn(named, places[0]) & kindsIn(named, places[1]))


def _setsApart(scan: Any, t1: Any) -> bool:
    """Whether names tell two visits, or two sets of scans in one place: "T1", and "T2_fu" or, beside "T1_2", "T2_2"."""
    if _visitsIn(scan) != _visitsIn(t1):
        return True
    theirs, mine = _restOf(scan), _restOf(t1)
    sets = _setWords([(kind, rest) for kind, rest in _namesBeside(scan, t1) if rest >= theirs & mine])
    if not sets.keys().isdisjoint(theirs - mine):
        return True
    kind = _kindOf(scan)  # a scan that is there once is every set's, if others of its kind need not be
    return any(kind in sets[word] or sets[word] - {"t1c"} for word in (mine - theirs) & sets.keys())


def _namesBeside(scan: Any, t1: Any) -> list[tuple[str, frozenset[str]]]:
    """Kind and `restOf` the names of all scans in the one place of two; none if they lie in two."""
    paths = [fileOf(node) for node in (scan, t1)]
    if None in paths or paths[0].parent != paths[1].parent or placeOf(scan) != placeOf(t1):
        return []
    if placeOf(t1) == hashOf(folderOf(paths[1])):
        return [(one.kind, one.rest) for one in scansIn(paths[0].parent) if not isOfMask(one.said)]
    # a scene that was saved gathers the files of all patients
    mine = [node for node in acquiredIn(t1.GetScene()) if placeOf(node) == placeOf(t1)]
    return [(_kindOf(node), _restOf(node)) for node in mine]


def _setWords(names: list[tuple[str, frozenset[str]]]) -> dict[str, set[str]]:
    """Words with and without which T1 is there, and the other kinds that have them: "2" of "T1", "T1_2" and "T2_2".

    A second date has a T1 of its own; what was registered to T1, and is called "T2_reg", has not.

    Args:
        names: Of each scan the kind, and `restOf` its name.
    """
    ofT1 = [rest for kind, rest in names if kind == "t1"]
    words = frozenset.union(*ofT1) - frozenset.intersection(*ofT1) if ofT1 else frozenset()
    found = {word: {kind for kind, rest in names if word in rest} - {"t1"} for word in words}
    return {word: kinds for word, kinds in found.items() if kinds}


def _restOf(node: Any) -> frozenset[str]:
    """`restOf` a node's name."""
    return restOf(nameOf(node))


def _visitsIn(node: Any) -> frozenset[str]:
    """The words of a node's name that tell visits, with their numbers: "fu1", "visit 2", "6 months"."""
    words = wordsOf(nameOf(node))
    visits = {
        place for place, word in enumerate(words) if isOfVisit(word) and not (LOOSE.fullmatch(word) or isOfScan(word))
    }
    before = {place - 1 for place in visits if place and re.fullmatch(SPAN, words[place])}
    beside = before | {place + 1 for place in visits if place + 1 < len(words)}
    return frozenset(words[place] for place in visits | {place for place in beside if words[place].isdigit()})


def sameExamination(one: Any, other: Any) -> bool:
    """Whether identifiers, else names and folders, say of two nodes that they are of one patient and date."""
    return one is other or (groupOf(one) == groupOf(other) != ("", "") and not isOfOtherVisit(one, other))


def saysNothing(scan: Any, t1: Any) -> bool:
    """Whether nothing says of a scan that it is of T1's patient or of another, as of what a module has made."""
    if (identityOf(scan).known and identityOf(t1).known) or sameExamination(scan, t1) or isOfOtherVisit(scan, t1):
        return False
    return not any(what(scan) == what(t1) != "" for what in (placeOf, markOf))


def namedOtherwise(one: Any, other: Any) -> bool:
    """Whether one of two scans has identifiers, and the other, which has none, the name of somebody else."""
    if identityOf(one).known == identityOf(other).known:
        return False
    owner, named = (one, other) if identityOf(one).known else (other, one)
    identity = identityOf(owner)
    known = set(wordsOf(f"{identity.patient} {identity.title}"))
    words = [word for word in wordsOf(_stem(named)) if not word.isdigit()]
    return bool(words) and known.isdisjoint(words)


def kindsIn(scans: list[Any], place: str) -> set[str]:
    """Kinds of the scans that lie in a place."""
    return {_kindOf(node) for node in scans if placeOf(node) == place} - {""}


def _kindOf(node: Any) -> str:
    from D3MSynthesisLib.Assignment import contrastOf, nodeDescription

    return contrastOf(nodeDescription(node)) or ""


def _disagreeing(marks: list[str], stem: str, ofPatients: bool) -> list[str]:
    """What names say besides the scan, if it is not the same.

    Args:
        marks: `markOf` of each name.
        stem: What the names begin with: then only what some share behind it and others have not is of interest.
        ofPatients: Numbers are patients'; else numbers that are all different are those of series.
    """
    begin = set(re.findall(r"[^\W_]+", stem))
    behind = [" ".join(word for word in mark.split() if word not in begin) for mark in marks]
    said = [mark for mark in behind if mark]
    distinct = sorted(set(said))
    numbers = not ofPatients and all(re.fullmatch(r"(?:se)?[1-9]\d{0,2}", mark) for mark in said)
    return [] if len(distinct) == len(said) and (stem or numbers) else distinct
