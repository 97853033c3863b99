"""Whose a mask is: the result that it was saved with, the scan that it was drawn on, its name, its folder."""

from __future__ import annotations

import re
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from D3MSynthesisLib.Belonging import acquiredIn, belongsElsewhere, markOf, nameOf
from D3MSynthesisLib.Identity import birthDateOf, identityOf, stemOf
from D3MSynthesisLib.MaskSources import drawnOn, isOf
from D3MSynthesisLib.Places import (
    HOLDERS,
    MOST_FILES,
    fileOf,
    folderOf,
    hashOf,
    holdsSeveral,
    ofOtherExamination,
    placeOf,
    scansIn,
    wasRead,
)
from D3MSynthesisLib.Words import DATE, OF_MASKS, PROCESSED, isOfScan, isOfVisit, wordsOf

OF_RESULT = re.compile(r"(?i)(.+?)[ _]synthetic[ _]cemri(?:_\d+)?")
"""Name of a saved result's folder, or of its file as Slicer saves it, with that of its T1 (`Saving.saveRun`)."""
DAY = re.compile(r"(?<!\d)(?:19|20)\d\d[-_.]?[01]\d[-_.]?[0-3]\d(?=(?:\d{6})?(?!\d))")
"""A date to the day, perhaps with a time behind it."""


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
    named, sameDay = isNamedAfter(mask, t1), _isOfStudysDay(mask, t1)
    if named is False or sameDay is False or (named and _inFolderOfAnotherDate(mask, t1)):
        return False
    if named:
        return True if sameDay else None
    if identityOf(t1).known or not placeOf(mask) or not placeOf(t1):  # nobody keeps masks in a database of DICOM
        return None
    lies = _liesBy(mask, t1)
    if lies is None or lies:
        return lies
    # in other folders "case_01_seg" is half named after "case_01_ses-02_t1", as "preop_seg" is after "preop_t1"
    called = (*_called(t1, mask), *_called(t1, t1))
    return None if any(_alikeAtStart(one, _tokens(nameOf(mask))) for one in called) else False


def isOfSynthesis(mask: Any) -> bool:
    """Whether a mask is what a synthesis gave, as a person gave it to one, too."""
    from D3MSynthesisLib.Assignment import isSynthetic
    from D3MSynthesisLib.Masks import segmentsOf, tagOf

    segments = segmentsOf(mask.GetSegmentation()) if mask.IsA("vtkMRMLSegmentationNode") else []
    return isSynthetic(mask) or any(tagOf(segment) is not None for segment in segments)


def isNamedAfter(mask: Any, t1: Any) -> bool | None:
    """Whether a mask is called as T1's patient is; None where its name speaks of no patient that is known."""
    from D3MSynthesisLib.Assignment import contrastOf, nodeDescription

    path = fileOf(mask)
    names = [] if path is None else [path.parent.name, path.name.split(".")[0]]
    ofResult = next(filter(None, map(OF_RESULT.fullmatch, names)), None)
    name = ofResult[1] if ofResult else nameOf(mask)
    words, called = _tokens(name), _called(t1, mask)
    scans = [node for node in acquiredIn(mask.GetScene()) if contrastOf(nodeDescription(node))]
    others = [node for node in scans if node is not mask and belongsElsewhere(node, t1)]
    mine, theirs = _shared(t1, mask, words), max((_shared(node, mask, words) for node in others), default=0)
    if mine != theirs:
        return mine > theirs
    if any(_isNumberedApart(one, words) for one in (*called, _tokens(_byItself(t1)))):
        return False
    if ofResult and called and stemOf(name) and not _isOfAnybody(words):  # it has the name of a T1, and of another one
        return False
    return None


def _called(scan: Any, mask: Any) -> list[list[str]]:
    """How a scan's patient is called, in words: by ID and name in DICOM, else by the scan's name or folder."""
    identity = identityOf(scan)
    made = identity.patient in ("", f"Patient-{identity.study}") or identity.patient.startswith("item ")
    texts = [] if made else [identity.patient]
    if identity.known:  # the series' name is that of a sequence
        texts.append(re.sub(r" \(.*", "", identity.title.split(", ")[0]))
    else:
        texts.append(_calledInFiles(scan, mask))
    return [words for words in map(_tokens, texts) if words]


def _byName(scan: Any) -> str:
    """What a scan's name says besides the scan."""
    return stemOf(nameOf(scan)) or markOf(scan)


def _byItself(scan: Any) -> str:
    """How a scan is called by its name, else its folder: a patient, or a visit, which "v 1" need not tell."""
    path = fileOf(scan)
    return _byName(scan) or ("" if path is None else folderOf(path).name)


def _calledInFiles(scan: Any, mask: Any) -> str:
    """How a scan's patient is called by its name, else its folder.

    Each patient may have the visit or kind of scan that these say: away from the scan the folders above count, too.
    """
    path, text = fileOf(scan), _byName(scan)
    above = [] if path is None or not path.parent.is_dir() else [one.name for one in (folderOf(path) / "_").parents]
    if not text and above:
        text = "" if above[0].isdigit() else above[0]
        above = above[1:]
    while _isOfAnybody(_tokens(text)) and _between(mask, scan) is None:
        text, above = (f"{above[0]} {text}", above[1:]) if above else ("", [])
    return text


def _isOfAnybody(words: list[str]) -> bool:
    """Whether no word of a name can be a patient's; a number alone can, but for a date."""
    said = [word for word in words if not word.isdigit() or DATE.fullmatch(word)]
    return bool(said) and all(map(_isPlain, said))


def _shared(scan: Any, mask: Any, words: list[str]) -> int:
    """How many of the words by which a scan's patient is called a mask's name has, together; 0 if not all of them.

    Of a person's name in DICOM the family's is enough where the mask's says nothing else. A number alone counts at the
    beginning, and at the end where files are called so: Slicer calls its own "Segmentation_1".
    """
    known, found = identityOf(scan).known, 0
    for called in _called(scan, mask):
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
    """Whether a word is a number, or says what a file is or of which scan or visit, and no more."""
    known = isOfScan(word) or isOfVisit(word) or re.fullmatch("[dmvwy]", word) is not None  # as in "v1", "m06"
    return known or any(words.fullmatch(word) for words in (OF_MASKS, HOLDERS, PROCESSED))


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
    told = [{word for part in path.parent.parts for word in _tokens(part) if isOfVisit(word)} for path in (one, other)]
    return not (told[0] <= told[1] or told[1] <= told[0])  # a pipeline's folder may add its version


def _liesBy(mask: Any, t1: Any) -> bool | None:
    """Whether a mask lies in T1's folder or below it, where no other patient's or date's scans are.

    Returns:
        None where nothing says it: T1's file is gone, as of a scene that was saved, or is not called as a scan is; or
        the mask lies above it, and is called as its folders and scans are.
    """
    from D3MSynthesisLib.Assignment import contrastOf

    own, between = fileOf(t1), _between(mask, t1)
    if own is not None and not own.parent.is_dir():
        places = {placeOf(node) for node in acquiredIn(t1.GetScene()) if belongsElsewhere(node, t1)}
        return False if placeOf(mask) in places - {placeOf(t1)} else None
    several = False if own is None else holdsSeveral(own.parent)
    if several or any(_isOfOthers(one) for one in between or () if own is None or one != own.parent):
        return False
    if between is not None:
        isCalled = own is None or contrastOf(own.name) or contrastOf(own.parent.name)
        return True if several is False and isCalled else None
    return None if own is not None and _liesAbove(mask, own) else False


def _between(mask: Any, scan: Any) -> list[Path] | None:
    """The folders between a mask and the scan's folder, none where that is its own; None where it is not below that.

    Folders of a scene that was saved are one: the places say where the files were before.
    """
    path, place = fileOf(mask), placeOf(scan)
    if placeOf(mask) == place != "":
        return []
    folders = [] if path is None else list(path.parents)
    found = next((number for number, folder in enumerate(folders) if hashOf(folder) == place), None)
    return None if found is None else folders[:found]


def _liesAbove(mask: Any, own: Path) -> bool:
    """Whether a mask lies above T1's file, beside no scans, and is called as folders between, scans and masks are."""
    path = fileOf(mask)
    folder = next((folder for folder in own.parents if hashOf(folder) == placeOf(mask)), None)
    if folder is None or path is None or scansIn(path.parent):
        return False
    mine = {word for part in own.relative_to(folder).parts for word in _tokens(part)}
    return all(word in mine or isOfScan(word) or OF_MASKS.fullmatch(word) for word in _tokens(nameOf(mask)))


def _isOfOthers(folder: Path) -> bool:
    """Whether a folder is that of a number or date, or has scans, itself or in one of its folders."""
    if all(map(isOfVisit, _tokens(folder.name))):
        return True
    below = [path for path in islice(folder.iterdir(), MOST_FILES) if path.is_dir()] if folder.is_dir() else []
    return any(map(scansIn, (folder, *below)))
