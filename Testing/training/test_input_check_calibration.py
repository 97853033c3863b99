"""Limits of the input check from patients, and the unusual cases that it is tried on."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from conftest import AFFINE, tiny_volumes
from d3m.errors import D3MError
from d3m.models.card import Card
from d3m.volumes.input_check import CONTRAST_FEATURES, CONTRAST_SCORE, FEATURES
from d3m.volumes.types import CONTRASTS, Volume
from d3m_training.input_check import Looked, calibrate, input_check_run, markdown, try_out
from d3m_training.unusual import KINDS
from training.data_helpers import write_patient

NAMES = [*dict.fromkeys((*(n for n in FEATURES if n != CONTRAST_SCORE), *CONTRAST_FEATURES))]


def patients(count=30, seed=0):
    """Patients with features of mean 0 and deviation 1; after agent T1's brightest voxels are thinner by 8."""
    random = np.random.default_rng(seed)
    made = []
    for k in range(count):
        features = dict(zip(NAMES, random.standard_normal(len(NAMES)), strict=True))
        enhanced = features | {"t1_top_thin": features["t1_top_thin"] + 8}
        made.append(Looked(f"p{k}", "", features, enhanced, ()))
    return made


def scans():
    """The tiny patient as volumes."""
    return {n: Volume(d, AFFINE) for n, d in tiny_volumes().items() if n != "seg"}


def made(name):
    """An unusual case of the tiny patient."""
    kind = next(k for k in KINDS if k.name.startswith(name))
    return kind.change(scans(), np.random.default_rng(0))


def test_limits_hold_all_patients_and_a_margin():
    """Every patient lies inside the limits of all; one far outside all others does not lie inside theirs."""
    group = patients()
    limits = {x.name: x for x in calibrate(group).limits}
    for name in NAMES:
        if name in FEATURES:
            values = [p.features[name] for p in group]
            assert limits[name].low < min(values)
            assert max(values) < limits[name].high
    odd = replace(group[0], features=group[0].features | {"brain_ml": 40.0})
    result = try_out([odd, *group[1:]])
    assert dict(result.alarms.codes)["unusual-size"] == 1
    assert result.alarms.cases == 30


def test_weights_find_what_the_agent_changes():
    """The score rests on the one feature that the agent changes, and tells T1c from T1 in patients it does not know."""
    group = patients()
    usual = calibrate(group[5:])
    heaviest = np.abs(usual.contrast_weights).argmax()
    assert CONTRAST_FEATURES[heaviest] == "t1_top_thin"
    limit = next(x for x in usual.limits if x.name == CONTRAST_SCORE)
    for patient in group[:5]:
        before, after = (
            np.dot(usual.contrast_weights, [f[n] for n in CONTRAST_FEATURES])
            for f in (patient.features, patient.enhanced)
        )
        assert after > limit.high > before - 1


def test_each_patient_is_judged_without_himself():
    """An unusual case of a patient is judged by limits that do not know him: his own oddity hides nothing."""
    group = patients()
    odd = replace(group[0], features=group[0].features | {"brain_ml": 40.0})
    unusual = Looked("p0", "scaled", odd.features, {}, ())
    result = try_out([odd, *group[1:], unusual, Looked("p1", "refused one", {}, {}, ("refused",))])
    assert {s.kind: (s.reported, s.cases) for s in result.caught} == {"scaled": (1, 1), "refused one": (1, 1)}
    assert "| scaled | 1 of 1 |" in markdown(result)


def test_few_patients_are_refused():
    """A handful of patients does not tell what is usual."""
    with pytest.raises(D3MError, match="do not tell what is usual"):
        calibrate(patients(9))


def test_thick_slices_are_averages_in_the_right_place():
    """A thick slice is the mean of those it covers, and lies in their middle."""
    t1 = scans()["t1"]
    thick = made("slices of 8 mm")["t1"]
    assert thick.affine[2, 2] == 8
    for k in range(thick.data.shape[2]):
        centre = (np.linalg.inv(t1.affine) @ thick.affine @ [0, 0, k, 1])[2]
        first = round(centre - 3.5)
        assert centre == pytest.approx(first + 3.5)
        if 0 <= first <= t1.data.shape[2] - 8:
            np.testing.assert_allclose(
                thick.data[:, :, k], t1.data[:, :, first : first + 8].mean(axis=2), rtol=1e-4, atol=0.1
            )
    assert made("slices of 8 mm, interpolated")["t1"].data.shape == t1.data.shape


def test_cut_and_halved_cases_keep_what_is_left_in_place():
    """What is left of a cut brain lies where it lay; a halved one has half of its voxels."""
    whole = scans()["t2"]
    for seed in range(4):  # from below and from above
        cut = next(k for k in KINDS if k.name.startswith("a third")).change(scans(), np.random.default_rng(seed))["t2"]
        start = round((np.linalg.inv(whole.affine) @ cut.affine @ [0, 0, 0, 1])[2])
        np.testing.assert_array_equal(cut.data, whole.data[:, :, start : start + cut.data.shape[2]])
    share = (made("half")["t2"].data != 0).sum() / (whole.data != 0).sum()
    assert share == pytest.approx(0.5, abs=0.05)


def test_values_of_unusual_cases():
    """The T1 that shows contrast is the T1c; an inverted scan is anticorrelated; backgrounds stay 0."""
    given = scans()
    np.testing.assert_array_equal(made("T1 that")["t1"].data, given["t1c"].data)
    brain = given["t1"].data != 0
    inverted = made("one contrast")
    assert sum(np.corrcoef(inverted[n].data[brain], given[n].data[brain])[0, 1] < -0.99 for n in CONTRASTS) == 1
    for kind in KINDS:
        if "slices" not in kind.name:
            scan = kind.change(scans(), np.random.default_rng(1))["flair"].data
            assert (scan == 0).mean() > 0.3, kind.name
            assert np.isfinite(scan).all()


@pytest.mark.long
def test_command_writes_the_card_and_reports(tmp_path, tiny_model):
    """The whole command: limits in the card, a table, and unusual cases made from the validation part only."""
    for k in range(11):
        part = "validation" if k == 0 else "train"
        write_patient(tmp_path / "data" / part, f"case{k}", seg=False, seed=k)
    model = tmp_path / "tiny"
    shutil.copytree(tiny_model, model)
    lines: list[str] = []
    result = input_check_run([tmp_path / "data"], str(model), True, 1, lines.append)
    card = Card.from_json((model / "card.json").read_text(encoding="utf-8"))
    assert card.input_check == result.input_check
    assert card.input_check is not None
    assert card.input_check.patients == 11
    assert result.alarms.cases == 11
    shares = {share.kind: share for share in result.caught}
    assert set(shares) == {kind.name for kind in KINDS}
    assert all(share.cases == 1 for share in shares.values())
    assert shares["half of the brain missing"].reported == 1
    assert "| ordinary patient |" in lines[-2]
    before = json.loads((tiny_model / "card.json").read_text(encoding="utf-8"))
    after = json.loads((model / "card.json").read_text(encoding="utf-8"))
    assert {k for k in after if after[k] != before[k]} == {"input_check"}
