"""The whole-brain stage's training: incomplete patients, transplants, folds, calibration, and the way to a model."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import ndimage

from conftest import tiny_volumes
from d3m.errors import D3MError
from d3m.models.load import load_model
from d3m.options import SynthesisOptions
from d3m.synthesis import Synthesis
from d3m.volumes.preprocess.case import read_case
from d3m_training.calibration import calibrate
from d3m_training.data.splits import make_folds
from d3m_training.data.whole_brain import CoarsePatient, prepare_coarse, read_coarse, read_groups
from d3m_training.data.whole_brain_batches import WholeBrainBatches, WholeBrainBatchSettings, augment, transplant
from d3m_training.train.whole_brain import folds_of, read_all, train_fold
from d3m_training.train.whole_brain_stage import Measured, finish_stage, table
from training.data_helpers import write_patient

pytestmark = pytest.mark.long


def _silent(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six labelled patients, two of them without enhancement, and one without T2 whose labels show the whole tumour."""
    data, folder = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("coarse")
    for k in range(6):
        write_patient(data, f"p{k}", codes={4: 2} if k % 3 == 2 else None, seed=k)
    paths = write_patient(tmp_path_factory.mktemp("other"), "low", codes={1: 1, 2: 1, 4: 1}, seed=9)
    manifest = data.parent / "low.csv"
    rows = ",".join(str(paths[name]) for name in ("t1", "flair", "t1c", "seg"))
    manifest.write_text(f"id,t1,flair,t1c,seg,t2,labels\nlow,{rows},,whole\n")
    assert prepare_coarse([data, manifest], folder, 4, False, _silent) == 7
    return folder


@pytest.fixture
def patient(cache: Path) -> CoarsePatient:
    """A labelled one."""
    return read_coarse(cache / "p0.npz")


def test_coarse_regions_have_the_labels_volume(patient: CoarsePatient) -> None:
    """Pooling keeps the millilitres of each region; the regions are nested."""
    labels = tiny_volumes(0)["seg"]
    for region, values in zip(patient.regions, ((1, 2, 4), (1, 4), (4,)), strict=True):
        assert float(region.sum()) * 8 == pytest.approx(np.isin(labels, values).sum(), rel=0.02)
    assert (patient.regions[0] >= patient.regions[1]).all()
    assert (patient.regions[1] >= patient.regions[2]).all()
    assert patient.present == (True, True, True)
    assert patient.labelled
    assert not patient.partial


def test_without_classes_the_enhancement_itself_tells(cache: Path, patient: CoarsePatient) -> None:
    """Labels of the whole tumour alone, no T2: the bright ring in T1c is found; T2 is blank and said to be absent."""
    low = read_coarse(cache / "low.npz")
    assert low.present == (True, False, True)
    assert not low.labelled
    assert low.scans[1].abs().max() == 0
    assert low.scans[0].max() > 0.5
    found, true = low.regions[2] > 0.5, patient.regions[2] > 0.5  # the same simulated tumour
    overlap = 2 * (found & true).sum() / (found.sum() + true.sum())
    assert overlap > 0.6
    unknown = low.known[2] == 0
    assert not (unknown & (low.regions[0] < 0.5)).any()


def test_patients_without_t2_are_still_faults_elsewhere(cache: Path, tmp_path: Path) -> None:
    """The slice network needs all three: its preparation names who lacks T2."""
    from d3m_training.data.datasets import find_patients

    paths = write_patient(tmp_path, "x")
    paths["t2"].unlink()
    found, faults = find_patients(tmp_path)
    assert not found
    assert "no t2" in faults[0].reason


def test_transplant_moves_tumour_and_enhancement(cache: Path, patient: CoarsePatient) -> None:
    """The host's brain now has the donor's labels, and its enhancement where they are; T2 only if both had it."""
    host = read_coarse(cache / "p2.npz")  # without enhancing labels
    host = replace(host, enhancement=0 * host.enhancement)
    assert host.regions[2].max() == 0
    made = transplant(host, patient, 0.0, np.random.default_rng(0))
    assert made is not None
    enhancing = made.regions[2] > 0.5
    assert int(enhancing.sum()) == pytest.approx(int((patient.regions[2] > 0.5).sum()), rel=0.1)
    assert float(made.enhancement[0][enhancing].mean()) > float(host.enhancement[0][enhancing].mean()) + 0.2
    far = torch.from_numpy(~ndimage.binary_dilation(made.regions[0].numpy() > 0.01, iterations=6))
    far &= host.regions[0] == 0
    torch.testing.assert_close(made.scans[:, far], host.scans[:, far], atol=0.02, rtol=0)
    low = read_coarse(cache / "low.npz")
    mixed = transplant(host, low, 0.0, np.random.default_rng(0))
    assert mixed is not None
    assert mixed.present == (True, False, True)
    assert mixed.scans[1].abs().max() == 0


def test_tumour_outside_the_host_is_not_transplanted(patient: CoarsePatient) -> None:
    """A host whose brain ends where the tumour would be is not used."""
    narrow = replace(patient, id="narrow", brain=patient.brain * (patient.regions[:1] == 0))
    assert transplant(narrow, patient, 0.0, np.random.default_rng(1)) is None


def test_draws_are_the_same_every_time(cache: Path) -> None:
    """A volume is a function of seed and number; crops have the crop's size, later ones are whole."""
    patients = [read_coarse(path) for path in sorted(cache.glob("*.npz"))]
    settings = WholeBrainBatchSettings(crop=(16, 32, 16))
    first, second = (WholeBrainBatches(patients, settings, 3, cropped=8) for _ in range(2))
    for number, ahead in enumerate(second.ahead(range(10))):
        drawn = first.draw(number)
        torch.testing.assert_close(drawn.seen, ahead.seen, atol=0, rtol=0)
        assert (drawn.seen.shape[2:] == (16, 32, 16)) == (number < 8)
        assert torch.isfinite(drawn.seen).all()
        assert set(drawn.known.unique().tolist()) <= {0.0, 1.0}


def test_contrasts_are_left_out_never_both(patient: CoarsePatient) -> None:
    """Each of T2 and FLAIR is missing now and then and blank then; one of them is always there."""
    settings = WholeBrainBatchSettings(no_t2_share=0.4, no_flair_share=0.4)
    seen = [augment(patient, settings, np.random.default_rng(k), None).seen[0] for k in range(12)]
    flags = {(bool(s[7].any()), bool(s[8].any())) for s in seen}
    assert {(True, False), (False, True)} <= flags
    assert (False, False) not in flags
    for s in seen:
        assert s[7].any() == s[1].any()
        assert s[8].any() == s[2].any()


def test_one_patient_under_two_names_is_in_one_fold(cache: Path, tmp_path: Path) -> None:
    """The same images under another id: nobody is trained on and held out at once."""
    data = tmp_path / "data"
    paths = write_patient(data, "p0", seed=0)
    (data / "other_9").mkdir()
    for path in paths.values():
        (data / "other_9" / path.name.replace("p0", "other_9")).write_bytes(path.read_bytes())
    lines: list[str] = []
    assert prepare_coarse([data], tmp_path / "coarse", 4, False, lines.append) == 2
    assert "other_9 and p0 hold the same images: they count as one patient." in lines
    groups = read_groups(tmp_path / "coarse")
    assert groups["other_9"] == groups["p0"]
    others = [p for p in read_all(cache) if p.id != "p0"]
    folds = folds_of([*others, *read_all(tmp_path / "coarse")], 3, {p.id: p.id for p in others} | groups)
    assert any({"other_9", "p0"} <= fold for fold in folds)


def test_slabs_are_held_out_as_well(cache: Path) -> None:
    """Of a few slices nothing is measured, but slices that learn from maps need some that the patient was not in."""
    patients = [replace(p, partial=p.id in ("p1", "p4")) for p in read_all(cache)]
    folds = folds_of(patients, 3, {p.id: p.id for p in patients})
    assert frozenset().union(*folds) == {p.id for p in patients}
    assert not any({"p1", "p4"} <= fold for fold in folds)


def test_folds_need_no_seed() -> None:
    """The same patients are dealt the same way whatever their order; visits stay together; kinds are spread."""
    strata = {f"p{k:02}": int(k % 4 == 0) for k in range(40)} | {"twin_a": 0, "twin_b": 0}
    groups = {i: i.split("_")[0] for i in strata}
    folds = make_folds(strata, groups, 5)
    assert folds == make_folds(dict(reversed(strata.items())), groups, 5)
    assert sum(map(len, folds)) == 42
    assert frozenset().union(*folds) == set(strata)
    assert [sum(strata[i] for i in fold) for fold in folds] == [2] * 5
    assert any({"twin_a", "twin_b"} <= fold for fold in folds)
    with pytest.raises(D3MError, match="cannot be put into"):
        make_folds({"a": 0}, {"a": "a"}, 2)


def test_folds_become_a_stage(cache: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Three folds, one iteration each: measured on what they held out, calibrated, and in the model that users run."""
    runs = []
    for fold in range(3):
        runs.append(tmp_path / f"fold{fold}")
        train_fold(cache, runs[-1], fold, 3, 1, 1, _silent)
    held = [json.loads((run / "run.json").read_text())["held_out"] for run in runs]
    assert sorted(i for ids in held for i in ids) == ["low", "p0", "p1", "p2", "p3", "p4", "p5"]
    model = Path(shutil.copytree(tiny_model, tmp_path / "tiny"))
    lines: list[str] = []
    stage = finish_stage(cache, runs, str(model), lines.append)
    assert stage.members == 3
    assert stage.calibration is not None
    assert stage.calibration.patients == 7
    assert {row.name for row in stage.validation} >= {"enhances_balanced_accuracy", "volume_r2", "interval_coverage"}
    loaded = load_model(model)
    assert loaded.whole_brain is not None
    weights = torch.cat([p.flatten() for p in loaded.whole_brain.members[1].parameters()])
    assert torch.isfinite(weights).all()
    further = load_file(train_fold(cache, tmp_path / "further", 1, 3, 1, 1, _silent, init=str(model)))
    for name, value in loaded.whole_brain.members[1].state_dict().items():  # one step away from where it started
        assert torch.allclose(further[name], value, atol=5e-3), name
    with pytest.raises(D3MError, match="has no member that was trained without"):
        train_fold(cache, tmp_path / "other", 0, 4, 1, 1, _silent, init=str(model))
    paths = write_patient(tmp_path / "new", "n", seed=20)
    result = Synthesis(loaded, SynthesisOptions(device="cpu", quality="preview")).run(
        read_case(paths["t1"], paths["t2"], paths["flair"])
    )
    assert result.patient is not None
    low, high = result.patient.volume_interval_ml
    assert low <= result.patient.volume_ml <= high


def test_a_training_goes_on_where_it_ended(cache: Path, tmp_path: Path) -> None:
    """Started again it has nothing to do and gives the same weights; folds that are not there are refused."""
    first = train_fold(cache, tmp_path / "run", 0, 3, 1, 1, _silent).read_bytes()
    lines: list[str] = []
    assert train_fold(cache, tmp_path / "run", 0, 3, 1, 1, lines.append).read_bytes() == first
    assert any("resumed at iteration 1" in line for line in lines)
    with pytest.raises(D3MError, match="no fold 3"):
        train_fold(cache, tmp_path / "run", 3, 3, 1, 1, _silent)


def test_stage_needs_trainings_of_folds(cache: Path, tiny_model: Path, tmp_path: Path) -> None:
    """A folder that is no fold's training is named."""
    with pytest.raises(D3MError, match="is not the training run of a fold"):
        finish_stage(cache, [tmp_path], str(tiny_model), _silent)


def _seen(count: int = 200, noise: float = 0.15) -> list[Measured]:
    """Patients whose log volume follows their first feature, and who enhance as their volume says."""
    rng = np.random.default_rng(5)
    made = []
    for k in range(count):
        log_ml = max(0.0, rng.normal(1.5, 1.2))
        features = (log_ml + rng.normal(0, noise), min(1.0, log_ml / 3))
        made.append(
            Measured(f"p{k}", k % 5, True, features, math.expm1(log_ml), math.expm1(features[0]), 0.9, 0.8, (0.5,) * 8)
        )
    return made


def test_calibration_recovers_what_it_was_made_of() -> None:
    """Volumes are recovered, the interval holds eight of ten, and the probability tells who enhances."""
    fitted = calibrate(_seen())
    rows = {row.name: row for row in table(_seen())}
    assert rows["volume_r2"].mean > 0.7
    assert 0.72 < rows["interval_coverage"].mean < 0.88
    assert rows["enhances_balanced_accuracy"].mean > 0.8
    sure, not_at_all = fitted.estimate((3.0, 1.0)), fitted.estimate((0.0, 0.0))
    assert sure.enhancement_probability > 0.9
    assert not_at_all.enhancement_probability < 0.4
    assert not_at_all.volume_interval_ml[0] == 0


def test_calibration_needs_both_kinds() -> None:
    """Nobody enhances, or one fold: nothing can be fitted, and a sentence says so."""
    with pytest.raises(D3MError, match="need two folds"):
        calibrate([replace(one, true_ml=0.0) for one in _seen(20)])
    with pytest.raises(D3MError, match="need two folds"):
        calibrate([replace(one, fold=0) for one in _seen(20)])
