"""Who a header is about is taken out of what is shown and kept, whatever its shape."""

from __future__ import annotations

import string
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import generate_uid

from conftest import AFFINE
from d3m.volumes.io.dicom.choice import choose_series
from d3m.volumes.io.dicom.identifiers import REMOVED, without_identifiers
from engine.dicom_helpers import write_series

PERSON = {"PatientName": "Müller-Lüdenscheid^Änne Li", "PatientID": "0048151", "PatientBirthDate": "19520307",
          "AccessionNumber": "ACC-77/1203", "OtherPatientIDs": ["X99", "K-4242"], "StudyID": "23",
          "ReferringPhysicianName": "Grün^Jörg", "InstitutionName": "Klinikum Süd", "PatientAge": "072Y",
          "StudyDate": "20240611"}  # fmt: skip
TELLING = (
    "Müller", "MUELLER", "muller", "Mu\u0308ller", "mueller", "LUEDENSCHEID", "Anne", "aenne", "ÄNNE", "Li", "LI", "li",
    "AenneLi", "LI_MUELLER", "0048151", "48151", "48-151", "048 151", "07.03.1952", "7.3.52", "1952-03-07",
    "03/07/1952", "19520307", "070352", "7. März 1952", "7-Mar-1952", "7MAR52", "1952", "ACC-77/1203", "acc771203",
    "771203", "X99", "K4242", "4242", "23", "Gruen", "GRUN", "Joerg", "Klinikum", "Sued", "72Y", "72 yo",
    "11.06.2024", "11 Jun 24",
)  # fmt: skip


@pytest.mark.parametrize("telling", TELLING)
@pytest.mark.parametrize("around", ["AX T1 {}", "{} AX T1", "T1_{}_tra", "t1 ({}) w/o"])
def test_every_spelling_goes(telling: str, around: str) -> None:
    """Name parts, numbers and dates go in any spelling and place; what says the contrast stays."""
    told = without_identifiers(around.format(telling), [PERSON])
    assert told == around.format(REMOVED)


def test_ordinary_descriptions_stay() -> None:
    """What describes a scan is shown as it is."""
    for text in ("AX T1 MPRAGE nativ", "t2_tse_tra_p2_4mm", "FLAIR 3D sag 1.0 iso", "T1 SE KM", "Ax T1 3 mm FS"):
        assert without_identifiers(text, [PERSON]) == text
        assert without_identifiers(text, [{}]) == text


AROUND, CASES = ("{} T1", "T1 {}", "T1_{}_x", "{}"), (str.upper, str.lower, str)
DAYS = ("%d.%m.%Y", "%Y-%m-%d", "%m/%d/%Y", "%d%m%y", "%y%m%d", "%d %b %Y", "%d-%B-%y", "%Y")
letters = st.text(st.sampled_from(string.ascii_letters + "äöüßéèñçåøæłšžığ"), min_size=2, max_size=14)
numbers = st.text(st.sampled_from(string.ascii_uppercase + string.digits + "-/. _"), min_size=3, max_size=16).filter(
    lambda text: any(c.isalnum() for c in text)
)


def flat(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text).casefold() if not unicodedata.combining(c))


@settings(max_examples=150, deadline=None)
@given(letters, letters, st.sampled_from(AROUND), st.sampled_from(CASES))
def test_any_name_goes(family: str, given_name: str, around: str, case: Any) -> None:
    """Whatever a patient is called: neither part of the name is left as a word, with its accents or without."""
    for part in (family, given_name):
        for spelled in (part, "".join(c for c in unicodedata.normalize("NFKD", part) if not unicodedata.combining(c))):
            told = without_identifiers(around.format(case(spelled)), [{"PatientName": f"{family}^{given_name}"}])
            assert told == around.format(REMOVED)


@settings(max_examples=150, deadline=None)
@given(numbers, st.sampled_from(["{} 3D", "3D {}", "x_{}_x"]))
def test_any_number_goes(number: str, around: str) -> None:
    """Whatever an identifier is made of: it goes as it is, in small letters, and without separators."""
    for name in ("PatientID", "AccessionNumber", "OtherPatientIDs"):
        for spelled in (number.strip(" -/._"), number.lower().strip(" -/._"), "".join(filter(str.isalnum, number))):
            told = without_identifiers(around.format(spelled), [{name: number}])
            assert flat(spelled) not in flat(told).replace("3d", "").replace("x", "") or flat(spelled) in ("x", "3d")


@settings(max_examples=60, deadline=None)
@given(st.dates(), st.sampled_from(DAYS))
def test_any_birth_date_goes(day: Any, how: str) -> None:
    """A birth date goes in every order."""
    if day.year < 1000:
        return
    told = without_identifiers(f"T1 {day.strftime(how)} tra", [{"PatientBirthDate": day.strftime("%Y%m%d")}])
    assert told == f"T1 {REMOVED} tra"


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60), st.dictionaries(st.sampled_from(sorted(PERSON)), st.text(max_size=40), max_size=5))
def test_any_text_is_no_defect(text: str, header: dict[str, str]) -> None:
    """Odd headers raise nothing."""
    without_identifiers(text, [header])


def test_a_study_is_chosen_by_what_is_not_shown(tmp_path: Path) -> None:
    """A patient called Li whose number stands in every description: nothing of it is in the notices, and a patient
    whose name is that of a scan still gets the right one."""
    study, frame = generate_uid(), generate_uid()
    data = np.full((24, 24, 12), 7.0)

    def mark(dataset: Any, _: int) -> Any:
        dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "Flair^Li", "31415", "19520307"
        return dataset

    for number, text in enumerate(("AX T1 LI 31415", "AX T2 li 07.03.52", "FLAIR 1952-03-07 031415"), 1):
        write_series(data, AFFINE, tmp_path / str(number), text, study, frame, number, mark)
    chosen = choose_series(tmp_path)
    assert [one.number for one in (chosen.t1, chosen.t2, chosen.flair)] == [1, 2, 3]
    told = " ".join(notice.message for notice in chosen.notices) + repr(chosen.t1.description) + chosen.t2.line()
    for secret in ("31415", "LI ", "li ", "1952", "07.03.52"):
        assert secret not in told, secret


@pytest.mark.parametrize("charset", [None, "ISO_IR 6", "ISO_IR 100"])
def test_utf8_without_a_character_set(tmp_path: Path, charset: str | None) -> None:
    """Texts that are UTF-8 are read as such, so that a name in two spellings is found; real Latin-1 stays that."""
    from d3m.volumes.io.dicom.headers import find_series

    def mark(encoding: str) -> Any:
        def edit(dataset: Any, _: int) -> Any:
            del dataset.SpecificCharacterSet
            if charset:
                dataset.SpecificCharacterSet = charset
            dataset.add_new("PatientName", "PN", "Müller".encode(encoding))
            dataset.add_new("SeriesDescription", "LO", "T1 größer Mueller".encode(encoding))
            return dataset

        return edit

    for encoding in ("utf-8", "latin-1"):
        write_series(np.full((8, 8, 6), 5.0), AFFINE, tmp_path / encoding, "", "1.2", "1.3", 1, mark(encoding))
        [series] = find_series(tmp_path / encoding)
        assert series.description == f"T1 größer {REMOVED}"
