"""What a result says of the patient: fitted on patients with drawn labels, and on those whose T1c tells."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import tiny_volumes
from d3m.errors import D3MError
from d3m.models.load import load_model
from d3m.models.store import read_card
from d3m.options import SynthesisOptions
from d3m.synthesis import Synthesis
from d3m.system.storage import replace_text
from d3m.volumes.preprocess.case import read_case
from d3m_training.patient_estimate import patient_estimate_run
from training.data_helpers import write_patient

OPTIONS = SynthesisOptions(device="cpu", quality="preview")


def _silent(_: str) -> None:
    pass


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model, which can do without T2."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "tiny"))
    replace_text(folder / "card.json", replace(read_card(folder), optional_contrasts=("t2",)).to_json())
    return folder


def test_calibration_comes_into_card_and_results(model: Path, tmp_path: Path) -> None:
    """Six patients, one without T2 whose labels show the whole tumour alone: true volumes, fit and table, and results
    that say it."""
    data = tmp_path / "data"
    for k in range(5):
        write_patient(data, f"p{k}", codes={4: 2} if k in (2, 4) else None, seed=k)
    paths = write_patient(tmp_path / "low", "low", codes={1: 1, 2: 1, 4: 1}, seed=9)
    manifest = tmp_path / "low.csv"
    rows = ",".join(str(paths[name]) for name in ("t1", "flair", "t1c", "seg"))
    manifest.write_text(f"id,t1,flair,t1c,seg,t2,labels\nlow,{rows},,whole\n")
    lines: list[str] = []
    patient_estimate_run([data, manifest], replace(OPTIONS, model=str(model)), None, True, lines.append)
    true_ml = (tiny_volumes(0)["seg"] == 4).sum() / 1000
    assert any(f"p0: {true_ml:.1f} ml" in line for line in lines)
    assert any("p2: 0.0 ml" in line for line in lines)
    card = read_card(model)
    assert card.patient_calibration is not None
    assert card.patient_calibration.patients == 6
    table = {row.name: row for row in card.patient_validation}
    assert table["enhances_specificity"].n == 2  # p2 and p4; the ring of "low" enhances
    assert table["volume_r2_labelled"].n == 5
    synthesis = Synthesis(load_model(model), OPTIONS)
    others = [read_case(*(data / p / f"{p}_{name}.nii.gz" for name in ("t1", "t2", "flair"))) for p in ("p2", "p4")]
    volumes = [synthesis.run(case).enhancing_volume_ml for case in others]
    assert table["mask_ml_of_the_others"].mean == pytest.approx(np.mean(volumes), rel=1e-3)
    case = read_case(paths["t1"], None, paths["flair"])
    estimate = Synthesis(load_model(model), OPTIONS).run(case).patient
    assert estimate is not None
    assert np.isfinite(estimate.volume_ml)


def test_patients_who_all_enhance_calibrate_nothing(model: Path, tmp_path: Path) -> None:
    """A sentence instead of a probability that is always one; the card stays."""
    for k in range(2):
        write_patient(tmp_path / "data", f"p{k}", seed=k)
    before = (model / "card.json").read_bytes()
    with pytest.raises(D3MError, match="patients that enhance and patients that do not"):
        patient_estimate_run([tmp_path / "data"], replace(OPTIONS, model=str(model)), None, True, _silent)
    assert (model / "card.json").read_bytes() == before
