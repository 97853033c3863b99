"""What names and folders say of whose a mask is: they say what is drawn and by whom, too, and lie anywhere."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path
from typing import Any

import slicer
from d3m.results.ours import provenance_in
from D3MSynthesisLib.Belonging import (
    MOST_FILES,
    acquiredIn,
    belongsElsewhere,
    fileOf,
    hashOf,
    holdsSeveral,
    isOfOtherVisit,
    isOfScan,
    kindsIn,
    marksIn,
    nameOf,
    numbersOfPatients,
    ofOtherExamination,
    placeOf,
    scansIn,
    wasRead,
    wordsOf,
)
from D3MSynthesisLib.Identity import groupOf, identityOf
from D3MSynthesisLib.MaskSources import drawnOn, isOf

OF_RESULT = re.compile(r"(?i)(.+?)[ _]synthetic[ _]cemri(?:_\d+)?")
"""Name of the folder of a saved result, with that of its T1 (`Saving.saveRun`)."""
MASK_WORDS = re.compile(
    r"masks?|seg(?:mentations?|mented|ments?|m)?|labels?|labelmaps?|tumou?rs?|lesions?|enhanc\w*|o?edema|necro\w*|core|whole"
    r"|roi|gtv|real|true|truth|ground|gt|manual|drawn|drawing|edited|predicted|given|copy|final"
    r"|untitled|bet|hd|synth(?:etic|strip)?|unstripped|bias|parenchyma|automated|approx|[dp]seg|probseg|highres|mni(?:152)?|sri(?:24)?"
    r"|first|sample|uncertainty|probability|magnitude|deformation|earlier|later|change"
    r"|atlas|native|(?:brain|skull|tumou?r|lesion|mask|seg|label|roi){2,}|[a-z]|\d{1,3}"
)
"""Words of the name of a mask that say nothing about a patient."""
DAY = re.compile(r"(?<!\d)((?:19|20)\d\d)[-_.]?([01]\d)[-_.]?([0-3]\d)(?=(?:\d{6})?(?!\d))")
"""A date to the day, perhaps with a time."""
VISITS = re.compile(
    r"(?:19|20)\d\d(?:[01]\d[0-3]\d(?:\d{6})?)?|baseline|follow(?:up)?|fu|(?:pre|post)(?:op\w*)?|visit|tp|ses|session"
)
"""Words of dates and visits: they say nothing about who it is."""
DRAWN = re.compile(
    r"(?:[gcp]tv|roi|seg|mask|lesion|contour|outline|reader|rater|observer|expert|v)\d*|et|tc|wt|ed|ncr|net|gliomas?|gbm"
    r"|glioblastomas?|metastas[ei]s|mets?|contours|outlines|annotat\w*|delineat\w*|rt|rtstruct|struct(?:ure)?s?|draft"
    r"|results?|predictions?|output|nnunet|consensus|staple|radiolog\w*|correct\w*|manually"
    r"|left|right|bilateral|frontal|temporal|parietal|occipital|insular?|central|medial|lateral|anterior|posterior|thalam\w*"
    r"|cerebell\w*|brainstem|hemispher\w*|lobes?|corpus|callosum|ventric\w*|cavity|cystic|solid|residual|recurren\w*"
)
"""More such words; in the name of a scan they may be a person's: "gbm_001_t1"."""


def maskBelongs(mask: Any, t1: Any) -> bool | None:
    """Whether a mask is of T1's patient, as the result that it was saved with, its name, else its folder say.

    Names of masks say what is drawn, and by whom: only words that T1's has not, in place of those that it has, count,
    and other numbers behind the same words, as in "sub-001" and "sub-002".

    Returns:
        None where nothing says it.
    """
    other = ofOtherExamination(mask, t1)
    if other is not None:
        return not other
    visit = _isOfStudy(mask, t1)
    said = False if visit is False else _saidBelonging(mask, t1)
    return None if said and visit is None else said


def _isOfStudy(mask: Any, t1: Any) -> bool | None:
    """Whether the dates in a mask's name allow that it is of T1's study in DICOM, whatever else says whose it is.

    Returns:
        None for a later date: it may be that of a follow-up, or the day on which it was drawn.
    """
    dates = {"".join(found) for name in _namesOf(mask) for found in DAY.findall(name)}
    study, born = _daysOf(t1)
    if not wasRead(mask) or not study or not dates - {study, born} or study in dates:
        return True
    dates.discard(born)
    others = {_daysOf(node)[0] for node in acquiredIn(mask.GetScene())}
    return False if min(dates) < study or dates & others else None


def _daysOf(scan: Any) -> tuple[str, str]:
    """Dates of a scan's study and of the patient's birth as Slicer's DICOM module writes them into the data tree."""
    constants, scene = slicer.vtkMRMLSubjectHierarchyConstants, scan.GetScene()
    tree = None if scene is None else slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = 0 if tree is None else tree.GetItemByDataNode(scan)
    born = ""
    if item and (patient := tree.GetItemAncestorAtLevel(item, constants.GetDICOMLevelPatient())):
        born = tree.GetItemAttribute(patient, constants.GetDICOMPatientBirthDateAttributeName())
    study = re.search(r"\(((?:19|20)\d{6})\)$", identityOf(scan).title)  # "MR Skull (20210304)"
    return study[1] if study else "", born


def _saidBelonging(mask: Any, t1: Any) -> bool | None:
    """`maskBelongs` by names and folders."""
    theirs, mine = _persons(mask), _persons(t1)
    theirs = {word for word in theirs if word in mine or not DRAWN.fullmatch(word)}
    numbers = _numbersAgree(mask, t1)
    if numbers is False or _besideAnotherDate(mask, t1):
        return False
    if _isNamedAfter(theirs, t1):
        return True
    between = _between(mask, t1)
    if between is not None and _isOfAnother(theirs | between, t1, mask.GetScene()):
        between = None
    if theirs and mine:
        if theirs <= mine or mine <= theirs:
            return True
        return None if between is not None and _endsWithWho(mask, theirs, t1) else False
    scan = drawnOn(mask)
    if scan is not None and not wasRead(mask):  # Segment Editor calls all of them "Segmentation", saved anywhere
        return isOf(scan, t1)
    if between is not None:
        return None if between and mine else True
    if (
        placeOf(mask) and placeOf(t1) and not t1.GetAttribute("DICOM.instanceUIDs")
    ):  # nobody keeps masks in a database of DICOM
        return None if numbers else False
    if numbers and not (theirs and _called(t1)):  # "site1_smith" is not said to be of "Site 1 Jones"
        return True
    drawn = scan is not None and not isOfSynthesis(mask)  # whose result is read may look at it in Segment Editor, too
    if drawn and not isOfOtherVisit(scan, t1):
        return True
    patient = identityOf(t1).patient
    others = [node for node in acquiredIn(mask.GetScene()) if identityOf(node).patient not in ("", patient)]
    return False if patient and any(_isNamedAfter(theirs, node) for node in others) else None


def _isNamedAfter(words: set[str], scan: Any) -> bool:
    """Whether words of a mask's name are all of a patient's in DICOM, or have all of the patient's ID or name."""
    called = [persons for persons in map(_personsIn, _called(scan)) if persons]
    persons = {word for word in words if not VISITS.fullmatch(word)}
    whole = bool(persons and called) and persons <= set.union(*called)
    return whole or any(parts <= words for parts in called)


def isOfSynthesis(mask: Any) -> bool:
    """Whether a mask is what a synthesis gave, as a person gave it to one, too."""
    from D3MSynthesisLib.Assignment import isSynthetic
    from D3MSynthesisLib.Masks import segmentsOf, tagOf

    segments = segmentsOf(mask.GetSegmentation()) if mask.IsA("vtkMRMLSegmentationNode") else []
    return isSynthetic(mask) or any(tagOf(segment) is not None for segment in segments)


def _called(scan: Any) -> list[str]:
    """A patient's ID and name in DICOM: the series' name has neither."""
    identity = identityOf(scan)
    made = identity.patient in ("", f"Patient-{identity.study}") or identity.patient.startswith("item ")
    return [text for text in ("" if made else identity.patient, identity.title.split(", ")[0]) if text]


def _besideAnotherDate(mask: Any, t1: Any) -> bool:
    """Whether a mask lies beside scans of T1's name, in another folder that has a scan of the same kind as T1's."""
    place, other = placeOf(mask), placeOf(t1)
    if not place or not other or place == other:
        return False
    paths = (fileOf(mask), fileOf(t1))
    if all(paths) and not _datesDiffer(*(path.parent for path in paths if path)):
        return False
    named = [node for node in acquiredIn(mask.GetScene()) if groupOf(node) == groupOf(t1)]
    return bool(kindsIn(named, place) & kindsIn(named, other))


def _datesDiffer(one: Path, other: Path) -> bool:
    """Whether folders differ by a number or visit: "smith/2020" and "smith/2021", not "smith/raw" and "smith/reg".

    Folders of a scene that was saved are one, and tell nothing: then they may.
    """
    if one == other:
        return True
    told = []
    for folder in (one, other):
        text = re.sub(r"derivatives/[^/]*/?", "", folder.as_posix().lower())  # a pipeline's name has its version
        told.append(
            [word.lstrip("0") for word in re.findall(r"\d+|[a-z]+", text) if word.isdigit() or VISITS.fullmatch(word)]
        )
    return told[0] != told[1]


def _between(mask: Any, t1: Any) -> set[str] | None:
    """Words that may be a person's of the folders between T1's and a mask in or below that; None if it lies elsewhere.

    So it does where scans, a date or a number are between; and where T1's folder has scans of several patients what
    does not lie beside them. A saved result is whose the folder above it is.
    """
    path, own, place = fileOf(mask), fileOf(t1), placeOf(t1)
    if not place or not placeOf(mask):
        return None
    together = placeOf(mask) == place
    if path is None or (own is not None and own.parent == path.parent and together):
        return set() if together else None
    if provenance_in(path.parent) is not None:
        return set() if together or place in set(map(hashOf, path.parent.parents)) else None
    if own is not None and holdsSeveral(own.parent):
        return None
    words: list[str] = []
    for folder in () if together else (path.parent, *path.parent.parents):
        if hashOf(folder) == place:
            together = not any(map(VISITS.fullmatch, words))
            break
        if folder.name.isdigit() or (_holdsScans(folder) and (own is None or folder != own.parent)):
            break
        words += wordsOf(folder.name)
    return {word for word in _personsIn(" ".join(words)) if not DRAWN.fullmatch(word)} if together else None


def _holdsScans(folder: Path) -> bool:
    """Whether scans lie in a folder, or in one of its folders."""
    folders = [path for path in islice(folder.iterdir(), MOST_FILES) if path.is_dir()] if folder.is_dir() else []
    return any(map(scansIn, (folder, *folders)))


def _isOfAnother(words: set[str], t1: Any, scene: Any) -> bool:
    """Whether words of a mask's name or folders are a patient's of the scene who is not T1's."""
    from D3MSynthesisLib.Assignment import contrastOf, nodeDescription

    mine = _persons(t1)
    return any(
        words & (_persons(node) - mine) and contrastOf(nodeDescription(node)) and belongsElsewhere(node, t1)
        for node in acquiredIn(scene)
    )


def _endsWithWho(mask: Any, words: set[str], t1: Any) -> bool:
    """Whether words stand behind what is drawn, as those of who drew it do, where T1's name begins with the patient."""
    first, ofT1 = (next(iter(wordsOf(nameOf(node))), "") for node in (mask, t1))
    return first not in words and ofT1 in _persons(t1)


def _namesOf(node: Any) -> list[str]:
    """A node's name, and that of the T1 of the result that it was saved with: the file's name is the same in all."""
    path = fileOf(node)
    found = None if path is None else OF_RESULT.fullmatch(path.parent.name)
    return [nameOf(node)] if found is None else [nameOf(node), found[1]]


def _persons(node: Any) -> set[str]:
    """Words of a name that may be a person's."""
    return {word for name in _namesOf(node) for word in _personsIn(name)}


def _personsIn(text: str) -> set[str]:
    """Words of a text that may be a person's, numbers in them without zeros before: "pat01" is "pat1"."""
    words = (word for word in marksIn(text) if not MASK_WORDS.fullmatch(word))
    return {re.sub(r"(?<=[a-z])0+(?=\d)", "", word) for word in words}


def _numbersAgree(mask: Any, t1: Any) -> bool | None:
    """Whether the numbers behind the same words of a person or visit are the same, as in "sub-01_ses-02".

    Returns:
        None where there are none to compare.
    """
    found = {_endsAgree(mask, t1)}
    for one in map(_tokens, _namesOf(mask)):
        for other in map(_tokens, [*_namesOf(t1), *_called(t1)]):
            shared = [word for word in one if word in other and _isOfPerson(word)]
            found |= {_alike(one[one.index(word) :], other[other.index(word) :]) for word in shared}
    return False if False in found else True if True in found else None


def _alike(one: list[str], other: list[str]) -> bool | None:
    """Whether words that begin alike have the same number as well; None where they part before one."""
    numbered = None
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            return False if mine.isdigit() and theirs.isdigit() else numbered
        numbered = True if mine.isdigit() else numbered
    return numbered


def _tokens(text: str) -> list[str]:
    """Words of a text; those that may be a person's are parted from their numbers: "anon0002_t1" is anon, 2, t1."""
    found = []
    for word in wordsOf(text):
        parts = re.findall(r"\d+|\D+", word) if _isOfPerson(word) else [word]
        found += [part.lstrip("0") or "0" if part.isdigit() else part for part in parts]
    return found


def _isOfPerson(word: str) -> bool:
    """Whether a word may speak of a person or visit, and is no number by itself."""
    return not (word.isdigit() or MASK_WORDS.fullmatch(word) or isOfScan(word))


def _endsAgree(mask: Any, t1: Any) -> bool | None:
    """Whether the numbers that two names begin or end with are the same, where they are patients' and not series'.

    They are where they are filled up with zeros ("001_t1"), or where scans of two kinds in the folder have one in
    common ("101_t1" and "101_t2").
    """
    last = [next(iter(wordsOf(nameOf(node))[-1:]), "") for node in (mask, t1)]
    if all(re.fullmatch(r"0\d+", word) for word in last) and len(last[0]) == len(last[1]):  # "t1_001"
        return last[0] == last[1]
    if all(map(str.isdigit, last)) and numbersOfPatients(t1):  # "t1_12"
        return int(last[0]) == int(last[1])
    first = [wordsOf(nameOf(node))[:1] for node in (mask, t1)]
    one, other = ("" if not words or not words[0].isdigit() else words[0] for words in first)
    if not one or not other:
        return None
    if int(one) == int(other):
        return True if one.startswith("0") else None
    if one.startswith("0") and other.startswith("0"):
        return False
    beside = [node for node in acquiredIn(mask.GetScene()) if wordsOf(nameOf(node))[:1] == [other]]
    return False if placeOf(t1) and len(kindsIn(beside, placeOf(t1))) > 1 else None
