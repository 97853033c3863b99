"""Whose a mask is: the result that it was saved with, the scan that it was drawn on, its name, its folder."""

from __future__ import annotations

import re
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from D3MSynthesisLib.Belonging import (
    MOST_FILES,
    OF_MASKS,
    acquiredIn,
    belongsElsewhere,
    fileOf,
    folderOf,
    hashOf,
    holdsSeveral,
    isOfScan,
    markOf,
    nameOf,
    ofOtherExamination,
    placeOf,
    scansIn,
    wasRead,
    wordsOf,
)
from D3MSynthesisLib.Identity import birthDateOf, identityOf, stemOf
from D3MSynthesisLib.MaskSources import drawnOn, isOf

OF_RESULT = re.compile(r"(?i)(.+?)[ _]synthetic[ _]cemri(?:_\d+)?")
"""Name of the folder of a saved result, with that of its T1 (`Saving.saveRun`)."""
DAY = re.compile(r"(?<!\d)(?:19|20)\d\d[-_.]?[01]\d[-_.]?[0-3]\d(?=(?:\d{6})?(?!\d))")
"""A date to the day, perhaps with a time behind it."""
VISIT = re.compile(r"\d+|(?:pre|post)(?:op\w*)?|baseline|follow(?:up)?")
"""Words of a folder that tell dates and numbers apart."""


def maskBelongs(mask: Any, t1: Any) -> bool | None:
    """Whether a mask is of T1's patient and date.

    Of names only this is read: whether the mask is called as T1's patient is or as another's of the scene is, and
    whether a number stands in the place of T1's. Any other word may be what is drawn, or who drew it.

    Returns:
        None where nothing says it.
    """
    other = ofOtherExamination(mask, t1)
    if other is not None:
        return not other
    scan = None if wasRead(mask) else drawnOn(mask)  # a file's name and folder say more than where it is looked at
    if scan is not None:
        return isOf(scan, t1)
    named, sameDay = _isNamedAfter(mask, t1), _isOfStudysDay(mask, t1)
    if named is False or sameDay is False or (named and _inFolderOfAnotherDate(mask, t1)):
        return False
    if named:
        return True if sameDay else None
    if identityOf(t1).known or not placeOf(mask) or not placeOf(t1):  # nobody keeps masks in a database of DICOM
        return None
    own = fileOf(t1)
    if placeOf(mask) == placeOf(t1) and own is not None and not own.parent.is_dir():  # of a scene that was saved
        return None
    if _liesBy(mask, t1):
        return True
    # "case_01_seg" in another folder than "case_01_ses-02_t1" is half named after it
    return None if any(_alikeAtStart(one, _tokens(nameOf(mask))) for one in _called(t1)) else False


def isOfSynthesis(mask: Any) -> bool:
    """Whether a mask is what a synthesis gave, as a person gave it to one, too."""
    from D3MSynthesisLib.Assignment import isSynthetic
    from D3MSynthesisLib.Masks import segmentsOf, tagOf

    segments = segmentsOf(mask.GetSegmentation()) if mask.IsA("vtkMRMLSegmentationNode") else []
    return isSynthetic(mask) or any(tagOf(segment) is not None for segment in segments)


def _isNamedAfter(mask: Any, t1: Any) -> bool | None:
    """Whether a mask is called as T1's patient is; None where its name speaks of no patient that is known."""
    from D3MSynthesisLib.Assignment import contrastOf, nodeDescription

    path = fileOf(mask)
    ofResult = None if path is None else OF_RESULT.fullmatch(path.parent.name)
    name = ofResult[1] if ofResult else nameOf(mask)
    words, called = _tokens(name), _called(t1)
    scans = [node for node in acquiredIn(mask.GetScene()) if contrastOf(nodeDescription(node))]
    others = [node for node in scans if node is not mask and belongsElsewhere(node, t1)]
    mine, theirs = _shared(t1, words), max((_shared(node, words) for node in others), default=0)
    if mine != theirs:
        return mine > theirs
    if any(_isNumberedApart(one, words) for one in called):
        return False
    if ofResult and called and stemOf(name):  # it has the name of a T1, and of another one
        return False
    return None


def _called(scan: Any) -> list[list[str]]:
    """How a scan's patient is called, in words: by ID and name in DICOM, else by the scan's name or folder."""
    identity = identityOf(scan)
    made = identity.patient in ("", f"Patient-{identity.study}") or identity.patient.startswith("item ")
    texts = [] if made else [identity.patient]
    if identity.known:  # the series' name is that of a sequence
        texts.append(re.sub(r" \(.*", "", identity.title.split(", ")[0]))
    else:
        path = fileOf(scan)
        folder = "" if path is None or not path.parent.is_dir() else folderOf(path).name
        texts.append(stemOf(nameOf(scan)) or markOf(scan) or ("" if folder.isdigit() else folder))
    return [words for words in map(_tokens, texts) if words]


def _shared(scan: Any, words: list[str]) -> int:
    """How many of the words by which a scan's patient is called a mask's name has, together; 0 if not all of them.

    Of a person's name in DICOM the family's is enough where the mask's says nothing else. A number alone counts at the
    beginning, and at the end where files are called so: Slicer calls its own "Segmentation_1".
    """
    known, found = identityOf(scan).known, 0
    for called in _called(scan):
        size = len(called)
        if size == 1 and called[0].isdigit():
            atEnd = not known and words[:1] != ["segmentation"] and words[-1:] == called
            found = max(found, words[:1] == called, atEnd)
        elif any(words[start : start + size] == called for start in range(len(words))):
            found = max(found, size)
        elif known and not any(map(str.isdigit, called)) and called[0] in words:
            plain = all(word in called or _isPlain(word) for word in words)
            found = max(found, sum(word in words for word in called) if plain else 0)
    return found


def _isPlain(word: str) -> bool:
    """Whether a word of a mask's name is a number, or says what it is or of which scan or visit, and no more."""
    return bool(word.isdigit() or isOfScan(word) or OF_MASKS.fullmatch(word) or VISIT.fullmatch(word))


def _isNumberedApart(called: list[str], words: list[str]) -> bool:
    """Whether a name begins as a patient is called, with another number: "sub 1 ses 2" and "sub 1 ses 3"."""
    alike = _alikeAtStart(called, words)
    return alike > 0 and all(rest[alike : alike + 1] and rest[alike].isdigit() for rest in (called, words))


def _alikeAtStart(called: list[str], words: list[str]) -> int:
    """How many words two names begin with alike."""
    return sum(1 for _pair in takewhile(lambda pair: pair[0] == pair[1], zip(called, words, strict=False)))


def _tokens(text: str) -> list[str]:
    """Words and numbers of a name, numbers without zeros before: "anon0002_t1_seg" is anon, 2, t1, seg."""
    parts = [part for word in wordsOf(text) for part in ([word] if isOfScan(word) else re.findall(r"\d+|\D+", word))]
    return [part.lstrip("0") or "0" if part.isdigit() else part for part in parts]


def _isOfStudysDay(mask: Any, t1: Any) -> bool | None:
    """Whether the dates in a mask's name allow that it is of T1's study in DICOM.

    Returns:
        None without a date where several studies of the patient are loaded; and for a later date, which may be the day
        on which it was drawn, or a follow-up's that is not loaded.
    """
    days = {re.sub(r"\D", "", day) for day in DAY.findall(nameOf(mask))} - {birthDateOf(t1)}
    scans = acquiredIn(mask.GetScene())
    if not days:
        mine, loaded = identityOf(t1), map(identityOf, scans)
        return None if len({one.study for one in loaded if one.patient == mine.patient != ""}) > 1 else True
    study, others = _dayOf(t1), set(map(_dayOf, scans))
    if not study or study in days:
        return True
    return False if min(days) < study or days & others else None


def _dayOf(scan: Any) -> str:
    study = re.search(r"\(((?:19|20)\d{6})\)$", identityOf(scan).title)  # "MR Skull (20210304)", as Slicer writes it
    return study[1] if study else ""


def _inFolderOfAnotherDate(mask: Any, t1: Any) -> bool:
    """Whether the folders of a mask and T1 differ by dates or numbers: "smith/2020", "smith/2021"."""
    one, other = fileOf(mask), fileOf(t1)
    if one is None or other is None or placeOf(mask) == placeOf(t1):
        return False
    told = [
        {word for part in path.parent.parts for word in _tokens(part) if VISIT.fullmatch(word)} for path in (one, other)
    ]
    return not (told[0] <= told[1] or told[1] <= told[0])  # a pipeline's folder may add its version


def _liesBy(mask: Any, t1: Any) -> bool:
    """Whether a mask lies in T1's folder or below it, where no other patient's or date's scans are.

    Folders of a scene that was saved are one: the places say where the files were before.
    """
    path, own, place = fileOf(mask), fileOf(t1), placeOf(t1)
    if own is not None and holdsSeveral(own.parent):
        return False
    if placeOf(mask) == place:
        return True
    between: list[Path] = []
    for folder in () if path is None else path.parents:
        if hashOf(folder) == place:
            return not any(_isOfOthers(one) for one in between if own is None or one != own.parent)
        between.append(folder)
    return False


def _isOfOthers(folder: Path) -> bool:
    """Whether a folder is that of a number or date, or has scans, itself or in one of its folders."""
    if folder.name.isdigit() or VISIT.fullmatch(folder.name.lower()):
        return True
    below = [path for path in islice(folder.iterdir(), MOST_FILES) if path.is_dir()] if folder.is_dir() else []
    return any(map(scansIn, (folder, *below)))
