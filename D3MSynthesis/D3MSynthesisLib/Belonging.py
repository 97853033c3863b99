"""What folders and names say about whether scans are of one patient, where no identifier does."""

from __future__ import annotations

import functools
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import chain, combinations, islice
from pathlib import Path
from typing import Any

from d3m.results.ours import provenance_in
from D3MSynthesisLib.Identity import SERIES, STAMP, examinationHash, groupOf, identityOf, stemOf
from D3MSynthesisLib.Runs import nodesOf
from D3MSynthesisLib.Texts import _

ORIGIN = "D3M.Origin"
"""Attribute of a volume: a hash of the folder that it was read from first, since saving a scene gathers the files of
all patients in one folder; `UNKNOWN` where it came with a scene that does not tell."""
UNKNOWN = "unknown"
EXAMINATION = "D3M.Examination"
"""Attribute of what was read from a result's folder: `examinationHash` of the T1 that the result was made from."""
SEQUENCES = re.compile(
    r"t[12](?:w|n|f|c|ce|gd|gad|km|pre|post|flair|tse|fse)?|flair|mprage|mp2rage|bravo|f?spgr|vibe|tfe|tfl|tirm|dark|fluid"
    r"|space|cube|vista|(?:fr)?fse|tse|se|gre|ffe|ir|fs|fatsat|dixon|propeller|blade|dwi|adc|swi|ax|axial|sag|sagittal|cor"
    r"|coronal|tra|transversal|obl|[23]d|iso|p[2-4]|\d+mm|the|scan|series|img|image|volume|mri?|brain|nii|gz|nrrd|copy"
    r"|hardened|reg|registered|resampled|stripped|bet|norm|nd|dis[23]d|desc|preproc|acq|run|space|rec|acquisition|new"
    r"|in|on|to|of|from"
    r"|wip|sense|longtr|grappa|haste|stir|flash|fl[23]d|epi|mpr|xl|hires"
)
"""Words of a name that say nothing about a patient."""
TIMED = r"\d{14}"
"""A stamp with a time."""
MATRIX = re.compile(r"192|256|288|320|384|448|512|640|768")
"""Numbers of voxels in a series' name: "t2_tse_tra_512_5"."""
DONE = (
    r"(?:co)?reg(?:istered)?|resampled|warped|moved|aligned|transformed|hardened|cropped|output|elastix"
    r"|(?:skull)?stripped|skull|n4(?:itk)?|corrected|subtract(?:ed|ion)"
)
"""Words for what people do to scans in Slicer, and name them by: "registered T1c", "T1c_N4"."""
PROCESSED = re.compile(
    r"bias|bfc|unstripped|ss|hdbet|raw|orig(?:inal)?|(?:pre|post)?processed|std|mni|sri|atlas|isovoxel|native|data"
    r"|derivatives"
)
"""Words of a pipeline's files and folders; of one patient they tell sets of scans apart."""
OF_MASKS = re.compile(r"segs?|segmentations?|masks?|labels?|labelmaps?|tumou?rs?|lesions?|rois?|annotations?|contours?")
"""Names of masks, and of folders of them, that say nothing else."""
VISIT = re.compile(
    r"\d+|(?:pre|post)(?:op\w*)?|baseline|initial|diagnosis|recurren(?:ce|t)|follow(?:up)?|fu|op|up|ses|session|visit"
    r"|time|point|tp|timepoint|date|(?:year|month|week|day)s?"
)
"""Words of names and folders that tell dates and numbers apart."""
LOOSE = re.compile(r"\d+|ses|session|time|point|date|up")
"""Those that in one scan's name alone need not mean a visit."""
SPAN = re.compile(r"(?:year|month|week|day)s?")
"""Those before which a number stands: "6 months"."""

DATE = re.compile(r"(?<!\d)(?:19|20)\d\d(?:[01]\d[0-3]\d)?(?=(?:[0-2]\d[0-5]\d[0-5]\d)?(?!\d))")
"""Years and days in names, without the time of day behind them."""
HOLDERS = re.compile(r"nifti|nii|nrrd|files|resources|images?|anat")
"""Folders between a patient's or series' folder and its files: "T1/NIFTI/t1.nii.gz", "smith/images/t1.nii.gz"."""
MOST_FILES = 200
"""Files of a folder that are looked at."""


def placeOf(node: Any) -> str:
    """What tells the folder that a volume was read from first from others; empty where it is not known."""
    kept = node.GetAttribute(ORIGIN)
    if kept:
        return "" if kept == UNKNOWN else str(kept)
    path = fileOf(node)
    return "" if path is None else hashOf(folderOf(path))


def hashOf(folder: Path) -> str:
    """What stands for a folder in a scene that may be passed on."""
    return hashlib.sha256(str(folder).encode()).hexdigest()[:16]


def folderOf(path: Path) -> Path:
    """The folder of a patient's files: where each series has one of its own, as in "smith/t1/t1.nii.gz", that above.

    So it is where scans and masks have folders, as in "smith/masks/left.nii.gz". A file whose name says more than the
    scan may be one of many patients' there.
    """
    series = path.parent
    while HOLDERS.fullmatch(series.name.lower()) or OF_MASKS.fullmatch(series.name.lower()):
        series = series.parent
    stamps = [word for word in wordsOf(_plainName(path)) if re.fullmatch(STAMP, word)]
    ofSeries = _isOfSeries(path, stamps) and _isOfSeries(series) and not _holdsOthers(path)
    return series.parent if ofSeries else series


def _plainName(path: Path) -> str:
    return path.name.split(".")[0].lower()


def _isOfSeries(path: Path, also: Iterable[str] = ()) -> bool:
    """Whether the name of a file or folder says which scan or mask it is, perhaps its number, and `also` these words.

    Archives write numbers of series ("smith/scans/4_t1"); elsewhere they may be patients'.
    """
    from D3MSynthesisLib.Assignment import contrastOf, furtherOf

    name = _plainName(path)
    if path.parent.name.lower() == "scans":
        name = re.sub(r"^\d+[-_. ]+", "", name)
    words = wordsOf(name)
    numbers = set() if _numbersArePatients(path) else _numbersIn(words)
    rest = [word for word in words if word not in numbers and word not in also]
    marks = " ".join(word for word in rest if not isOfScan(word))
    return bool(OF_MASKS.fullmatch(marks) or (not marks and (contrastOf(name) or furtherOf(name))))


def _numbersIn(words: list[str]) -> set[str]:
    """What of a name may be the number of a series: at its beginning or end, beside a word of the scan.

    Stamps, numbers of voxels, and what was done to the scan are passed over.
    """
    found = set()
    kept = [word for word in words if not re.fullmatch(f"{STAMP}|{DONE}", word)]
    for number, *rest in (kept, kept[::-1]) if kept else ():
        beside = next((word for word in rest if not word.isdigit()), "")
        if re.fullmatch(SERIES, number) and (isOfScan(beside) or OF_MASKS.fullmatch(beside)):
            found.add(number)
    return found


def _holdsOthers(path: Path) -> bool:
    """Whether scans of other kinds lie beside a file: then its folder "T1" is the first date's, not the T1's."""
    return len({kind for kind, _word in _beside(path)}) > 1


def numbersOfPatients(node: Any) -> bool:
    """Whether a node's file lies where numbers in names of scans are patients'."""
    path = fileOf(node)
    return path is not None and path.parent.is_dir() and _numbersArePatients(path)


def _numbersArePatients(path: Path) -> bool:
    """Whether numbers of scans in a folder may be patients': two kinds have one in common, or all are of one kind."""
    several = len({word for _kind, word in _beside(path) if re.fullmatch(SERIES, word)}) > 1
    return (several and not _apartBy(SERIES, path)) or not path.parent.is_dir()  # nobody knows


def _apartBy(pattern: str, path: Path) -> bool:
    """Whether numbers or stamps in the names of a folder's scans are others for each kind."""
    kinds: dict[str, set[str]] = {}
    for kind, word in _beside(path):
        if re.fullmatch(pattern, word):
            kinds.setdefault(word, set()).add(kind)
    return all(len(found) == 1 for found in kinds.values()) and len(set().union(*kinds.values())) > 1


def holdsSeveral(folder: Path) -> bool | None:
    """Whether scans of one kind in a folder are named for several patients or dates, or numbers may be patients'.

    A name of one kind that says more than another one is of what was made from that, as "T1_orig" is.

    Returns:
        None where such names of several kinds say the same word: a date, as in "T1_fu" and "T2_fu", is told from what
        was done, but a patient is not.
    """
    marks: dict[str, set[tuple[str, ...]]] = {}
    for kind, said, _numbers in scansIn(folder):
        if not _isOfMask(said):
            marks.setdefault(kind, set()).add(tuple(word for word in said if not PROCESSED.fullmatch(word)))
    made = [{one for one in found if any(set(other) < set(one) for other in found)} for found in marks.values()]
    alike = [one for one, count in Counter(chain(*made)).items() if count > 1]
    apart = any(len(found - more) > 1 for found, more in zip(marks.values(), made, strict=True))
    dated = any(map(isOfVisit, chain(*alike)))
    if apart or dated or _numbersArePatients(folder / "any"):
        return True
    return None if alike else False


def _isOfMask(said: tuple[str, ...]) -> bool:
    """Whether a scan's name says besides that it is a mask: "T1c_tumour"."""
    return bool(said) and all(map(OF_MASKS.fullmatch, said))


def _beside(path: Path) -> set[tuple[str, str]]:
    """Kind, and each number and stamp, of the scans in the folder of a file or folder whose names say nothing else."""
    return {(kind, word) for kind, said, numbers in scansIn(path.parent) if not said for word in (*numbers, "")}


def scansIn(folder: Path) -> frozenset[tuple[str, tuple[str, ...], frozenset[str]]]:
    """Of each file or folder in a folder that is called as a scan the kind, what its name says besides, and numbers."""
    try:
        return _lookInto(folder, folder.stat().st_mtime_ns)
    except OSError:  # moved away since it was read
        return frozenset()


@functools.lru_cache(256)
def _lookInto(folder: Path, _time: int) -> frozenset[tuple[str, tuple[str, ...], frozenset[str]]]:
    """`scansIn`; views ask at every change, the folder is read once."""
    from D3MSynthesisLib.Assignment import contrastOf

    found = set()
    for path in islice(folder.iterdir(), MOST_FILES):
        words = wordsOf(_plainName(path))
        stamps, numbers = {word for word in words if re.fullmatch(STAMP, word)}, _numbersIn(words)
        if kind := contrastOf(_plainName(path)):
            said = tuple(word for word in words if word not in stamps | numbers and not isOfScan(word))
            timed = any(re.fullmatch(TIMED, word) for word in stamps)  # then numbers are series' in any case
            found.add((kind, said, frozenset(stamps if timed else stamps | numbers)))
    return frozenset(found)


def keepPlace(node: Any, fromScene: bool = False, like: Any = None) -> None:
    """Remember where a volume was read from.

    Args:
        node: The volume.
        fromScene: It came with a scene, and lies where that was saved.
        like: The volume that it was made from.
    """
    if node.GetAttribute(ORIGIN) is None:
        place = UNKNOWN if fromScene else placeOf(node if like is None else like)
        if place:
            if not fromScene and (examination := _examinationOf(node if like is None else like)):
                node.SetAttribute(EXAMINATION, examination)
            node.SetAttribute(ORIGIN, place)


def wasRead(node: Any) -> bool:
    """Whether a node came from a file of its own; what was made in the scene, and saved from there, did not."""
    return node.GetAttribute(ORIGIN) not in (None, UNKNOWN)


def _examinationOf(node: Any) -> str:
    """`EXAMINATION` of a node, by its result's provenance where nobody has kept it; empty if nothing tells it."""
    kept, path = node.GetAttribute(EXAMINATION), fileOf(node)
    if kept or path is None or node.GetAttribute(ORIGIN):
        return kept or ""
    try:
        return str(((provenance_in(path.parent) or {}).get("identity") or {})["hashes"]["t1"]["study"])
    except (KeyError, TypeError, AttributeError):  # of scans without identifiers, or not written by the panel
        return ""


def ofOtherExamination(mask: Any, t1: Any) -> bool | None:
    """Whether a mask lay in the folder of a result of another examination than T1's; None where nothing tells it."""
    theirs, mine = _examinationOf(mask), examinationHash(identityOf(t1))
    return theirs != mine if theirs and mine else None


def fileOf(node: Any) -> Path | None:
    """The file that a node was read from; None if there is none."""
    storage = node.GetStorageNode() if node.IsA("vtkMRMLStorableNode") and hasattr(node, "GetStorageNode") else None
    name = storage.GetFileName() if storage is not None else None
    return Path(name) if name else None


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
    ownTimes = path is not None and _apartBy(TIMED, path)
    ofStudy = not ownTimes and any(re.fullmatch(TIMED, word) for word in words)
    numbers = _numbersIn(words) if ofStudy or (path is not None and not _numbersArePatients(path)) else set()
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


def wordsOf(name: str) -> list[str]:
    """The words of a name, in small letters."""
    text = re.sub(r"^\s*\d+\s*:\s*", "", name)  # the series' number, as Slicer's DICOM module writes it
    return re.findall(r"[^\W_]+", text.lower())


def isOfVisit(word: str) -> bool:
    """Whether a word tells visits, dates or numbers apart: "fu", "ses02", "6months"."""
    return all(map(VISIT.fullmatch, re.findall(r"\d+|\D+", word)))


def isOfScan(word: str) -> bool:
    """Whether a word speaks of a sequence or contrast."""
    from d3m.volumes.io.dicom import descriptions

    known = {*descriptions.CONTRAST_WORDS, *descriptions.AGENTS, *descriptions.ALONE_AFTER, *descriptions.WITHOUT_WORDS,
             *descriptions.ALONE_WITHOUT, "c"}  # fmt: skip
    return word in known or SEQUENCES.fullmatch(word) is not None or re.fullmatch(DONE, word) is not None


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
    words = _setWords((kind, _restOf(node)) for kind, node in members)
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
    if any(_setsApart(*pair) for pair in combinations(nodes, 2)):
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


def _setsApart(one: Any, other: Any) -> bool:
    """Whether names tell two visits, or two sets of scans of one folder: "T1", and "T2_fu" or, beside "T2", "T2_2"."""
    if _visitsIn(one) != _visitsIn(other):
        return True
    paths = [fileOf(node) for node in (one, other)]
    if None in paths or paths[0].parent != paths[1].parent:
        return False
    places = {hashOf(folderOf(path)) for path in paths}
    if not {node.GetAttribute(ORIGIN) for node in (one, other)} <= {None, *places}:
        return False  # a scene that was saved gathers the files of all patients, and numbers them
    names = (
        (kind, _telling((*said, *numbers))) for kind, said, numbers in scansIn(paths[0].parent) if not _isOfMask(said)
    )
    return not _setWords(names).isdisjoint(_restOf(one) ^ _restOf(other))


def _setWords(names: Iterable[tuple[str, frozenset[str]]]) -> set[str]:
    """Words with and without which two kinds of scans are there: "2" of "T1", "T2", "T1_2" and "T2_2".

    Args:
        names: Of each scan the kind, and what its name says besides (`_restOf`).
    """
    kinds: dict[str, list[frozenset[str]]] = {}
    for kind, rest in names:
        kinds.setdefault(kind, []).append(rest)
    some = Counter(chain(*(frozenset.union(*rests) - frozenset.intersection(*rests) for rests in kinds.values())))
    return {word for word, count in some.items() if count > 1}


def _restOf(node: Any) -> frozenset[str]:
    """What a node's name says besides the scan and what was done to it: the patient, the visit, numbers, days."""
    words = wordsOf(nameOf(node))
    series = _numbersIn(words) if any(re.fullmatch(TIMED, word) for word in words) else set()
    return _telling(word for word in words if word not in series and not isOfScan(word))


def _telling(words: Iterable[str]) -> frozenset[str]:
    """Words without those of pipelines, and stamps without the time, which may be each series' own."""
    return frozenset(word[:8] if re.fullmatch(TIMED, word) else word for word in words if not PROCESSED.fullmatch(word))


def _visitsIn(node: Any) -> frozenset[str]:
    """The words of a node's name that tell visits, with their numbers: "fu1", "visit 2", "6 months"."""
    words = wordsOf(nameOf(node))
    visits = {
        place for place, word in enumerate(words) if isOfVisit(word) and not (LOOSE.fullmatch(word) or isOfScan(word))
    }
    before = {place - 1 for place in visits if place and SPAN.fullmatch(words[place])}
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


def kindsIn(scans: list[Any], place: str) -> set[str]:
    """Kinds of the scans that lie in a place."""
    from D3MSynthesisLib.Assignment import contrastOf, nodeDescription

    return {contrastOf(nodeDescription(node)) or "" for node in scans if placeOf(node) == place} - {""}


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
