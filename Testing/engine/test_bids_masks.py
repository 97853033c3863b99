"""Masks of a BIDS derivative: each case gets its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from d3m.batch.bids import BidsCase
from d3m.batch.bids_masks import with_masks
from d3m.errors import D3MError


def case(subject: str, session: str = "") -> BidsCase:
    scan = Path("scan.nii.gz")
    return BidsCase(f"sub-{subject}", scan, scan, scan, subject=subject, session=session)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_each_case_gets_its_own(tmp_path: Path) -> None:
    """By participant and session; the enhancing tumour's among several; none is said; doubt is the case's problem."""
    touch(
        tmp_path,
        "sub-01/anat/sub-01_label-ET_mask.nii.gz",
        "sub-01/anat/sub-01_label-WT_mask.nii.gz",
        "sub-01/anat/sub-01_label-ET_mask.json",
        "sub-02/ses-a/anat/sub-02_ses-a_dseg.nii.gz",
        "sub-03/anat/sub-03_desc-one_mask.nii.gz",
        "sub-03/anat/sub-03_desc-two_mask.nii.gz",
        "sub-05/anat/sub-05_desc-enhancingTumour_mask.nii.gz",
        "sub-05/anat/sub-05_desc-brain_mask.nii.gz",
    )
    cases = [case("01"), case("02", "a"), case("02", "b"), case("03"), case("04"), case("05")]
    one, two, other_session, three, four, five = with_masks(cases, tmp_path)
    assert one.enhancement_mask == tmp_path / "sub-01/anat/sub-01_label-ET_mask.nii.gz"
    assert two.enhancement_mask == tmp_path / "sub-02/ses-a/anat/sub-02_ses-a_dseg.nii.gz"
    assert five.enhancement_mask == tmp_path / "sub-05/anat/sub-05_desc-enhancingTumour_mask.nii.gz"
    assert three.enhancement_mask is None
    assert "2 masks" in three.problem
    for without in (other_session, four):
        assert without.enhancement_mask is None
        assert [notice.code for notice in without.notices] == ["no-given-mask"]


def test_no_mask_at_all(tmp_path: Path) -> None:
    """A wrong folder is an error, not a run that predicts everything."""
    with pytest.raises(D3MError, match="holds none for these participants"):
        with_masks([case("01")], tmp_path)
