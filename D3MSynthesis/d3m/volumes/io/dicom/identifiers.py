"""Who a DICOM header is about, taken out of the texts that are shown or kept.

Scanners' operators type names, numbers and birth dates into series descriptions. What the header itself says of the
patient, the staff, the place and the examination is removed by its value: in another spelling of umlauts and accents,
in another order or case, with or without separators, and of dates in every usual format. Long numbers, addresses and
dates of no known origin go as well: no description of a scan needs them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

PEOPLE = (
    "PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName", "ResponsiblePerson",
    "ReferringPhysicianName", "ConsultingPhysicianName", "PerformingPhysicianName", "RequestingPhysician",
    "NameOfPhysiciansReadingStudy", "PhysiciansOfRecord", "OperatorsName",
)  # fmt: skip
NUMBERS = (
    "PatientID", "OtherPatientIDs", "AccessionNumber", "StudyID", "AdmissionID", "RequestedProcedureID",
    "ScheduledProcedureStepID", "PerformedProcedureStepID", "PlacerOrderNumberImagingServiceRequest",
    "FillerOrderNumberImagingServiceRequest", "MedicalRecordLocator", "PatientTelephoneNumbers",
)  # fmt: skip
PLACES = ("PatientAddress", "InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName")
DATES = ("PatientBirthDate", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")
AGE, OTHER_IDS = "PatientAge", "OtherPatientIDsSequence"
TAGS = (*PEOPLE, *NUMBERS, *PLACES, *DATES, AGE, OTHER_IDS)
"""What of a header is read to be removed; it goes nowhere else."""
REMOVED = "..."
MAX_TEXT, MAX_WORDS, MAX_VALUES, MAX_SEPARATORS = 1024, 12, 20, 64
"""Characters of a text, words of a name, values of an element, separators in a row: longer ones were made to cost
time."""

_LETTERS = {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i", "ħ": "h"}
"""Letters that Unicode does not take apart."""
_LIGATED = {"a": "a[ae]?", "o": "oe?", "u": "ue?", "ss": "s[sz]?", "sz": "s[sz]?", "aa": "a[ae]?", "ae": "a[ae]?",
            "oe": "oe?", "ue": "ue?"}  # fmt: skip
"""Spellings of one sound: Müller, Mueller and Muller; Groß and Gross; Åse and Aase."""
_MONTHS = (
    "jan|ene|gen|sty", "feb|fev|lut", "mar|mrz|maa|mrt|mae", "apr|avr|abr|kwi", "mai|may|mag|mei|maj",
    "jun|juin|giu|cze", "jul|juil|lug|lip", "aug|aou|ago|sie", "sep|set|wrz", "okt|oct|out|ott|paz", "nov|lis",
    "dez|dec|dic|gru",
)  # fmt: skip
"""How months begin in the languages of most scanners."""
_SHAPES = (
    r"(?<!\d)\d{6,}(?!\d)", r"(?<!\d)\d{1,4}[./-]\d{1,2}[./-]\d{2,4}(?!\d)", r"\d+(?:\.\d+){4,}", r"\S+@\S+\.\S+",
)  # fmt: skip
"""Numbers of six digits and more, dates, UIDs, mail addresses."""


def without_identifiers(text: str, headers: Iterable[Any]) -> str:
    """A text of a header that names nobody.

    Args:
        text: Such as a series description.
        headers: DICOM headers, with the elements of `TAGS`, of the same patient.
    """
    text = text[:MAX_TEXT]
    signs, places = _folded(text)
    covered = [False] * len(text)
    for pattern, bounded in _patterns(headers):
        for found in re.finditer(pattern, signs):
            start, end = found.span()
            if start < end and (not bounded or _stands_alone(text, places[start], places[end - 1] + 1)):
                covered[places[start] : places[end - 1] + 1] = [True] * (places[end - 1] + 1 - places[start])
    for index, sign in enumerate(text):  # accents that stand behind their letter go with it
        if index and covered[index - 1] and unicodedata.combining(sign):
            covered[index] = True
    shown = "".join("\0" if gone else sign for sign, gone in zip(text, covered, strict=True))
    return re.sub("\0+", REMOVED, shown)


def _folded(text: str) -> tuple[str, list[int]]:
    """Small letters without accents, and where each of them is in the text."""
    signs: list[str] = []
    places: list[int] = []
    for index, sign in enumerate(text):
        for part in unicodedata.normalize("NFKD", sign).casefold():
            for letter in _LETTERS.get(part, part):
                if not unicodedata.combining(letter):
                    signs.append(letter)
                    places.append(index)
    return "".join(signs), places


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether no letter joins on to a short word: a change from small to capital letters is a border, too."""

    def border(left: str, right: str) -> bool:
        return not (left.isalpha() and right.isalpha()) or (left.islower() and right.isupper())

    return (start == 0 or border(text[start - 1], text[start])) and (
        end == len(text) or border(text[end - 1], text[end])
    )


def _patterns(headers: Iterable[Any]) -> Iterator[tuple[str, bool]]:
    """Regular expressions over folded text, and whether what they find must stand alone."""
    for shape in _SHAPES:
        yield shape, False
    known = list(headers)
    for name in PEOPLE:
        for value in _values(known, name):
            yield from _person(value)
    for name in PLACES:
        for value in _values(known, name):
            for word in _words(value):
                if len(word) > 2:
                    yield _spelled(word), len(word) < 4
    for value in [*(v for name in NUMBERS for v in _values(known, name)), *_other_ids(known)]:
        yield from _number(value)
    for name in DATES:
        for value in _values(known, name):
            yield from _date(value, birth=name == "PatientBirthDate")
    for value in _values(known, AGE):
        if digits := re.match(r"0*(\d+)", value):
            yield rf"(?<!\d)0*{digits[1]} ?-?(?:y(?:o|rs?|ears?)?|j(?:ahre?)?|a(?:ns?|nni|nos)?)(?![^\W_])", False


def _values(headers: Sequence[Any], name: str) -> set[str]:
    """The texts of an element, one or many, in all headers."""
    found: set[str] = set()
    for header in headers:
        value = header.get(name)
        if value is not None and value != "":
            many = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
            found |= {str(one)[:MAX_TEXT] for one in list(many)[:MAX_VALUES]}
    return {text for text in found if text.strip()}


def _other_ids(headers: Sequence[Any]) -> Iterator[str]:
    for header in headers:
        for item in list(header.get(OTHER_IDS) or ())[:MAX_VALUES]:
            yield from _values([item], "PatientID")


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", _folded(text)[0])


def _spelled(word: str) -> str:
    """A folded word in all its spellings."""
    parts = re.findall("ss|sz|aa|ae|oe|ue|.", word)
    return "".join(_LIGATED.get(part, re.escape(part)) for part in parts)


def _person(name: str) -> Iterator[tuple[str, bool]]:
    """Each part of a name, and two parts side by side without a space between them."""
    words = [word for group in re.split("[=^]", name) for word in _words(group)[:MAX_WORDS]]
    for word in words:
        if any(ord(sign) > 0x2E80 for sign in word):  # scripts that know no spaces
            yield re.escape(word), False
        elif len(word) == 1:
            yield rf"(?<![^\W_]){re.escape(word)}(?![^\W_])", False
        else:
            yield _spelled(word), len(word) < 4
    for one in words:
        for other in words:
            if one != other and len(one + other) > 3:
                yield rf"{_spelled(one)}[\W_]{{0,2}}{_spelled(other)}", False


def _number(value: str) -> Iterator[tuple[str, bool]]:
    """An identifier with any separators, leading zeros or none; and its long parts by themselves."""
    signs = "".join(_words(value))
    if not signs:
        return
    longest = max(map(len, re.findall(r"[\W_]+", value)), default=0)
    between = rf"[\W_]{{0,{min(max(longest, 2), MAX_SEPARATORS)}}}"
    if signs.isdigit():
        digits = signs.lstrip("0") or signs
        joined = between.join(map(re.escape, digits))
        alone = r"(?<!\d)0*{}(?!\d)" if len(digits) > 2 else r"(?<![^\W_])0*{}(?![^\W_])"
        yield alone.format(joined), False
        return
    joined = between.join(map(re.escape, signs))
    yield joined if len(signs) > 3 else rf"(?<![^\W_]){joined}(?![^\W_])", False
    for part in re.findall(r"\d{3,}|[^\W\d_]{4,}", signs):
        digits = part.lstrip("0")
        yield rf"(?<!\d)0*{digits}(?!\d)" if digits and part.isdigit() else _spelled(part), False


def _date(value: str, birth: bool) -> Iterator[tuple[str, bool]]:
    """A day in every order, with month names, two or four digits of the year; of a birth also the year alone."""
    numbers = re.findall(r"\d+", value)
    if len(numbers) == 1 and len(numbers[0]) == 8:
        year, month, day = numbers[0][:4], numbers[0][4:6], numbers[0][6:]
    elif len(numbers) == 3 and len(numbers[0]) == 4:
        year, month, day = numbers
    elif len(numbers) == 3 and len(numbers[2]) == 4:
        day, month, year = numbers
    else:
        yield from _number(value)
        return
    if int(month) > 12:
        month, day = day, month
    if not 1 <= int(month) <= 12:
        yield from _number(value)
        return
    named = rf"(?:{_MONTHS[int(month) - 1]})[a-z]*"
    years = rf"(?:{year}|{year[2:]})"
    padded, loose = (f"{int(day):02d}", f"{int(month):02d}"), (f"0?{int(day)}", f"(?:0?{int(month)}|{named})")
    for (d, m), between in ((padded, r"[\W_]{0,2}"), (loose, r"[\W_]{1,2}"), ((loose[0], named), r"[\W_]{0,2}")):
        for order in ((years, m, d), (d, m, years), (m, d, years)):
            yield rf"(?<!\d){between.join(order)}(?!\d)", False
    if birth:
        yield rf"(?<!\d){year}(?!\d)", False
