"""Splits: no patient is learnt on and tested on."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3m.errors import D3MError
from d3m_training.data.splits import Split, check_split, conflicts, group_of, make_split, read_split, split_text


@pytest.mark.parametrize(
    "visits",
    [
        ("BraTSReg_002_00", "BraTSReg_002_01"),
        ("BraTSReg_002_00_0000", "BraTSReg_002_01_0106"),
        ("BraTS-GLI-00001-000", "BraTS-GLI-00001-001"),
        ("BraTS-PED-00017-000", "BraTS-PED-00017-002"),
        ("BraTS-MET-00110-000", "BraTS-MET-00110-101"),
        ("BraTS-MEN-RT-0005-1", "BraTS-MEN-RT-0005-2"),
        ("BraTS15_tcia_pat222_1", "BraTS15_tcia_pat222_2"),
        ("brats_tcia_pat222_0002", "brats_tcia_pat222_0113"),
        ("Brats18_CBICA_ABM_1", "BraTS19_CBICA_ABM_1"),
        ("UPENN-GBM-00006_11", "UPENN-GBM-00006_21"),
        ("UCSF-PDGM-0391", "UCSF-PDGM-0391_FU001d"),
        ("TCGA-CS-4941", "TCGA-CS-4941_1996.07.09"),
        ("sub-01_ses-pre", "sub-01_ses-02"),
        ("Patient-005_week-000-1", "Patient-005_week-012"),
        ("p7_visit1", "p7_visit2"),
        ("100101A_time1", "100101A_time2"),
    ],
)
def test_visits_of_one_patient(visits: tuple[str, str]) -> None:
    """The visits that public data sets name are one patient."""
    assert group_of(visits[0]).lower() == group_of(visits[1]).lower()


@pytest.mark.parametrize(
    "patients",
    [
        ("BraTS2021_00000", "BraTS2021_00002"),
        ("BraTS20_Training_001", "BraTS20_Training_002"),
        ("Brats18_2013_2_1", "Brats18_2013_23_1"),
        ("Brats18_2013_3_1", "Brats18_TCIA_3_1"),
        ("BraTS-GLI-00027-000", "BraTS-GLI-00028-000"),
        ("BraTS-GLI-00001-000", "BraTS-MET-00001-000"),
        ("BraTSReg_002_00", "BraTSReg_003_00"),
        ("BRATS_HG0001", "BRATS_HG0002"),
        ("TCGA-DU-7294", "TCGA-FG-6692"),
        ("UPENN-GBM-00006_11", "UPENN-GBM-00007_11"),
        ("patient_1", "patient_2"),
    ],
)
def test_different_patients_stay_different(patients: tuple[str, str]) -> None:
    """A patient's number is not taken for a visit's."""
    assert group_of(patients[0]) != group_of(patients[1])


@pytest.mark.parametrize(("count", "sizes"), [(1470, (1001, 250, 219)), (307, (173, 43, 91)), (100, (70, 15, 15))])
def test_published_sizes(count: int, sizes: tuple[int, int, int]) -> None:
    """Pointed at BraSyn or BraTS-PEDs, the split has the paper's sizes; other data are split 70, 15 and 15 per cent."""
    names = [f"BraTS-GLI-{k:05d}-000" for k in range(count)]
    split = make_split({n: group_of(n) for n in names}, seed=1)
    assert tuple(map(len, split.parts().values())) == sizes
    assert split.ids() == set(names)
    assert split == make_split({n: group_of(n) for n in reversed(names)}, seed=1)
    assert split != make_split({n: group_of(n) for n in names}, seed=2)


def test_published_sizes_with_several_visits() -> None:
    """BraSyn has 1470 scans of fewer patients: the parts still have the published sizes, and no patient is torn."""
    names = [f"BraTS-GLI-{k:05d}-{v:03d}" for k in range(1400) for v in range(2 if k < 70 else 1)]
    groups = {n: group_of(n) for n in names}
    split = make_split(groups, seed=3)
    assert tuple(map(len, split.parts().values())) == (1001, 250, 219)
    assert conflicts(split, groups) == []
    assert any(n.endswith("001") for n in split.validation + split.test)


@given(st.dictionaries(st.text("ab01", min_size=1), st.sampled_from("pqrstu"), min_size=1), st.integers(0, 5))
def test_visits_stay_together(groups: dict[str, str], seed: int) -> None:
    """Whatever the data, every visit is in one part and a patient's visits are in the same."""
    split = make_split(groups, seed)
    check_split(split, groups)
    assert split.ids() == groups.keys()
    assert sum(map(len, split.parts().values())) == len(groups)


def test_sizes_that_are_asked_for() -> None:
    """Sizes count patients; more than there are is refused, less leaves some out."""
    groups = {f"p{k}_visit{v}": f"p{k}" for k in range(6) for v in range(2)}
    split = make_split(groups, 0, (2, 1, 1))
    assert tuple(map(len, split.parts().values())) == (4, 2, 2)
    assert tuple(map(len, make_split(groups, 0, (8, 2, 2)).parts().values())) == (8, 2, 2)
    for sizes in ((10, 2, 2), (3, 4, -1), (9, 2, 1)):
        with pytest.raises(D3MError):
            make_split(groups, 0, sizes)


def test_a_patient_in_two_parts_is_found() -> None:
    """Learning on one visit and testing on the other is refused with the patient and the parts."""
    groups = {"a_00": "a", "a_01": "a", "b": "b", "c": "c"}
    split = Split(("a_00", "b"), ("c",), ("a_01",))
    (found,) = conflicts(split, groups)
    assert (found.patient, found.parts, found.ids) == ("a", ("train", "test"), ("a_00", "a_01"))
    with pytest.raises(D3MError, match="patient a are in train and in test"):
        check_split(split, groups)
    for bad, words in (
        (Split(("b", "b"), (), ()), "b twice in train"),
        (Split(("b",), ("b",), ()), "patient b are in"),
        (Split(("b", "gone"), ("lost",), ()), "gone, lost"),
    ):
        with pytest.raises(D3MError, match=words):
            check_split(bad, groups)


def test_split_files(tmp_path: Path) -> None:
    """A split is the same after writing and reading; files that are none are refused, not read as empty."""
    split = Split(("a", "ü"), ("b",), (), 7)
    (tmp_path / "split.json").write_text(split_text(split), encoding="utf-8")
    assert read_split(tmp_path / "split.json") == split
    (tmp_path / "two.json").write_text('{"train": ["a"], "validation": ["b"]}')
    assert read_split(tmp_path / "two.json") == Split(("a",), ("b",), ())
    for content in ("", "[]", "{}", '{"train": "abc", "validation": []}', '{"train": [1], "validation": []}', "\x00"):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(D3MError, match="split file cannot be read"):
            read_split(tmp_path / "bad.json")
    with pytest.raises(D3MError, match="split file cannot be read"):
        read_split(tmp_path / "absent.json")
