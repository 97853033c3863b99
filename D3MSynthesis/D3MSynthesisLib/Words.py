"""Words of names of scans, masks and folders: which say nothing about a patient, and which tell visits."""

from __future__ import annotations

import re

from D3MSynthesisLib.Identity import BIDS, SERIES, STAMP

SEQUENCES = re.compile(
    r"t[12](?:w|n|f|c|ce|gd|gad|km|pre|post|flair|tse|fse)?|flair|mprage|mp2rage|bravo|f?spgr|vibe|tfe|tfl|tirm|dark|fluid"
    r"|space|cube|vista|(?:fr)?fse|tse|se|gre|ffe|ir|fs|fatsat|dixon|propeller|blade|dwi|adc|swi|ax|axial|sag|sagittal|cor"
    r"|coronal|tra|transversal|obl|[23]d|iso|p[2-4]|\d+mm|the|scan|series|img|image|volume|mri?|brain|nii|gz|nrrd|copy"
    r"|hardened|reg|registered|resampled|stripped|bet|norm|nd|dis[23]d|desc|preproc|acq|run|space|rec|acquisition|new"
    r"|in|on|to|of|from"
    r"|wip|sense|longtr|grappa|haste|stir|flash|fl[23]d|epi|mpr|xl|hires"
)
"""Words of a name that say nothing about a patient."""
DIXON = re.compile(r"w|f|water|fat|ip|op|opp")
"""The images of a Dixon scan; the words are other ones elsewhere."""
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
    r"|derivatives|rigid|affine|resliced|denoised?|crop|masked|biascorr(?:ected)?|brats|anon(?:ymi[sz]ed)?|defaced"
)
"""Words of a pipeline's files and folders; of one patient they tell sets of scans apart."""
OF_MASKS = re.compile(r"segs?|segmentations?|masks?|labels?|labelmaps?|tumou?rs?|lesions?|rois?|annotations?|contours?")
"""Names of masks, and of folders of them, that say nothing else."""
SPAN = r"(?:year|month|week|day)s?"
"""Words before which a number stands: "6 months"."""
VISIT = re.compile(
    r"\d+|(?:pre|post)(?:op\w*)?|baseline|initial|diagnosis|recurren(?:ce|t)|follow(?:up)?|fu|op|up|ses|session|visit"
    rf"|time|point|tp|timepoint|date|{SPAN}"
)
"""Words of names and folders that tell dates and numbers apart."""
LOOSE = re.compile(r"\d+|ses|session|time|point|date|up|pre\w*|baseline|initial|diagnosis")
"""Those that in one scan's name alone need not mean another visit than the first."""
DATE = re.compile(r"(?<!\d)(?:19|20)\d\d(?:[01]\d[0-3]\d)?(?=(?:[0-2]\d[0-5]\d[0-5]\d)?(?!\d))")
"""Years and days in names, without the time of day behind them."""


def wordsOf(name: str) -> list[str]:
    """The words of a name, in small letters."""
    text = re.sub(r"^\s*\d+\s*:\s*", "", name)  # the series' number, as Slicer's DICOM module writes it
    return re.findall(r"[^\W_]+", text.lower())


def numbersIn(words: list[str]) -> set[str]:
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


def isOfVisit(word: str) -> bool:
    """Whether a word tells visits, dates or numbers apart: "fu", "ses02", "6months"."""
    return all(map(VISIT.fullmatch, re.findall(r"\d+|\D+", word)))


def isOfScan(word: str) -> bool:
    """Whether a word speaks of a sequence or contrast."""
    from d3m.volumes.io.dicom import descriptions

    known = {*descriptions.CONTRAST_WORDS, *descriptions.AGENTS, *descriptions.ALONE_AFTER, *descriptions.WITHOUT_WORDS,
             *descriptions.ALONE_WITHOUT, "c"}  # fmt: skip
    return word in known or SEQUENCES.fullmatch(word) is not None or re.fullmatch(DONE, word) is not None


def isOfMask(said: tuple[str, ...]) -> bool:
    """Whether a scan's name says besides that it is a mask: "T1c_tumour"."""
    return bool(said) and all(map(OF_MASKS.fullmatch, said))


def restOf(name: str) -> frozenset[str]:
    """What a name says besides the scan and what was done to it: the patient, the visit, numbers, days.

    Of a stamp the time may be each series' own, and numbers beside it are series'.
    """
    words = wordsOf(re.sub(BIDS, "", name))
    dropped = numbersIn(words) if any(re.fullmatch(TIMED, word) for word in words) else set()
    rest = (word for word in words if word not in dropped and not isOfScan(word) and not PROCESSED.fullmatch(word))
    return frozenset(
        word[:8] if re.fullmatch(TIMED, word) else word
        for word in rest
        if not ("dixon" in words and DIXON.fullmatch(word))
    )
