"""Whether and how much enhances, for the patient: the same numbers in sentence, tables and page."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from d3m.batch.review import DICTIONARY, Entry, page, table
from d3m.batch.run import Row, estimate_of, write_summary
from d3m.models.patient import PatientEstimate
from d3m.results.dicom.write import content_of_files

SURE = PatientEstimate(0.93, 12.34, (4.2, 25.1), 0.8)
UNSURE = PatientEstimate(0.31, 0.6, (0.0, 3.4), 0.8)
STATED = {"enhancement_probability": 0.93, "volume_ml": 12.34, "volume_interval_ml": [4.2, 25.1], "interval_level": 0.8}


def test_sentence() -> None:
    """Probability, volume and interval in words; that zero is in the interval is said, and only then."""
    assert SURE.sentence() == (
        "Estimate for the patient: 93 % likely that tumour enhances; about 12.3 ml (80 % interval 4.2 to 25.1 ml)."
    )
    assert UNSURE.sentence().endswith("includes zero: this cannot be told from no enhancement.")


@pytest.mark.parametrize("stated", [None, {}, {"volume_ml": 3}, {**STATED, "volume_interval_ml": 4}, "text"])
def test_results_without_an_estimate(stated: object) -> None:
    """Older results, models without the stage and damaged files have none."""
    assert estimate_of(stated) == (None, None, None, None)


def test_tables_and_page(tmp_path: Path) -> None:
    """The batch's table, the BIDS table with its dictionary, and the page's data hold the numbers."""
    estimate = estimate_of(STATED)
    rows = [Row("a", "done", "", "", 1.0, 10.0, "", *estimate), Row("b", "failed", "", "", 1.0, None, "")]
    write_summary(tmp_path / "summary.csv", rows)
    with (tmp_path / "summary.csv").open(encoding="utf-8") as file:
        one, other = csv.DictReader(file)
    assert [one[n] for n in ("enhancement_probability", "estimated_low_ml", "estimated_high_ml")] == [
        "0.93", "4.20", "25.10",
    ]  # fmt: skip
    assert other["estimated_ml"] == ""
    entries = [
        Entry("01", "", "done", 10.0, 3.0, (), estimate=estimate),
        Entry("02", "", "missing", None, None, ()),
    ]
    lines = [dict(zip(DICTIONARY, line.split("\t"), strict=True)) for line in table(entries).splitlines()[1:]]
    assert lines[0]["enhancement_probability"] == "0.930"
    assert lines[0]["estimated_volume_high"] == "25.100"
    assert lines[1]["estimated_enhancing_volume"] == "n/a"
    text = page(entries)
    found = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    assert json.loads(found[1])[0][10] == [0.93, 12.34, 4.2, 25.1]
    assert 'data-key="6">Likely' in text


def test_dicom_text_of_a_saved_result(tmp_path: Path) -> None:
    """A series made later from a result's folder says the same of the patient."""
    import nibabel
    import numpy as np

    for name, data in (("cemri", np.random.default_rng(0).random((4, 5, 6))), ("mask", np.ones((4, 5, 6)))):
        nibabel.save(nibabel.Nifti1Image(data.astype(np.float32), np.eye(4)), tmp_path / f"{name}.nii.gz")
    stated = {
        "model": {"name": "m"}, "settings": {"quality": "best", "steps": 2, "samples": 3, "seed": 0},
        "notices": [{"code": "given-mask", "message": "Given by a person."}, {"code": "gap", "message": "Other."}],
        "patient_estimate": STATED,
    }  # fmt: skip
    (tmp_path / "provenance.json").write_text(json.dumps(stated))
    content = content_of_files(*(tmp_path / n for n in ("cemri.nii.gz", "mask.nii.gz", "provenance.json")))
    assert SURE.sentence() in content.settings
    assert "Given by a person." in content.settings
    assert "Other." not in content.settings
    assert "The model's own" not in content.settings
    (tmp_path / "provenance.json").write_text(json.dumps(stated | {"mask": {"edited": True}}))
    content = content_of_files(*(tmp_path / n for n in ("cemri.nii.gz", "mask.nii.gz", "provenance.json")))
    assert f"The model's own, which does not know what was changed in the mask: {SURE.sentence()}" in content.settings
