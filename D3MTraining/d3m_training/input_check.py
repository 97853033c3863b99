"""Limits of the input check: calibrated on patients, tried on each of them in turn, and on unusual cases."""

from __future__ import annotations

import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from d3m.errors import D3MError
from d3m.models.card import Card
from d3m.models.recipes import Recipe
from d3m.models.store import find_model, read_card, replace_card
from d3m.volumes.grid import to_model_input
from d3m.volumes.input_check import (
    CONTRAST_FEATURES,
    CONTRAST_SCORE,
    FEATURES,
    FeatureLimit,
    InputLimits,
    judge,
    measure,
)
from d3m.volumes.preprocess.case import read_case, read_volume
from d3m.volumes.types import CONTRASTS, Case, GridRecipe
from d3m_training.data.datasets import Patient, in_processes
from d3m_training.data.preparation import collect
from d3m_training.unusual import KINDS, Unusual, write_scans

MARGIN = 1.5
"""Limits lie this many robust standard deviations beyond the lowest and the highest patient; brains, scanners and
tumours differ by more than any sample of patients shows."""
ORDER_MARGIN = 0.5
"""The same for how contrasts go together: that is decided by physics and differs less."""
MIN_SPREAD = 0.1
"""Share of the range from lowest to highest that the robust standard deviation is at least."""
MIN_PATIENTS = 10
"""Fewer say nothing about what is usual."""
RIDGE = 1e-3
"""Share of each feature's variance that is added to it, so that the covariance can be inverted."""


@dataclass(frozen=True)
class Looked:
    """What the checks see of one case."""

    id: str
    kind: str
    """Name of the unusual kind; empty for a patient as he is."""
    features: Mapping[str, float]
    """Of `d3m.volumes.input_check.measure`; empty if the case was refused."""
    enhanced: Mapping[str, float]
    """The same with the real T1c in the place of T1; empty for unusual kinds."""
    said: tuple[str, ...]
    """Codes of the notices that the case has from reading, or "refused"."""


@dataclass(frozen=True)
class Share:
    """How many cases of a kind were reported."""

    kind: str
    reported: int
    cases: int
    codes: tuple[tuple[str, int], ...]
    """Codes of the notices and how often they were given, the most frequent first."""


@dataclass(frozen=True)
class Calibrated:
    """The limits of all patients, and how they do on patients that they were not taken from."""

    input_check: InputLimits
    alarms: Share
    """Over the patients as they are, each judged by limits of all others."""
    caught: tuple[Share, ...]
    """Over unusual cases, judged by limits without the patient that they were made from."""


def calibrate(patients: Sequence[Looked]) -> InputLimits:
    """The limits of the features of patients.

    The weights of the contrast score are those of Fisher's linear discriminant (Fisher 1936,
    doi:10.1111/j.1469-1809.1936.tb02137.x) between T1 and T1c of the same patients.

    Args:
        patients: As they are, with the features of their T1c.

    Raises:
        D3MError: too few patients.
    """
    if len(patients) < MIN_PATIENTS:
        raise D3MError(
            f"{len(patients)} patients do not tell what is usual.",
            f"Give at least {MIN_PATIENTS + 1}, better all there are.",
        )
    before, after = (
        np.array([[features[name] for name in CONTRAST_FEATURES] for features in group])
        for group in ([p.features for p in patients], [p.enhanced for p in patients])
    )
    covariance = np.cov(before.T) + np.cov(after.T)
    covariance += RIDGE * np.diag(np.diag(covariance)) + 1e-12 * np.eye(len(covariance))
    weights = np.linalg.solve(covariance, after.mean(axis=0) - before.mean(axis=0))
    scores = before @ weights
    weights = weights / max(float(scores.std()), 1e-12)
    limits = []
    for name, feature in FEATURES.items():
        if name == CONTRAST_SCORE:
            own = before @ weights
            limits.append(FeatureLimit(name, float(own.min()), float(own.max())))
            continue
        values = np.array([p.features[name] for p in patients])
        low, high = float(values.min()), float(values.max())
        quartiles = np.percentile(values, (25, 75))
        spread = max(float(quartiles[1] - quartiles[0]) / 1.349, MIN_SPREAD * (high - low))
        margin = (ORDER_MARGIN if feature.code == "unusual-contrast" else MARGIN) * spread
        limits.append(FeatureLimit(name, low - margin, high + margin))
    rounded = tuple(FeatureLimit(x.name, _rounded(x.low), _rounded(x.high)) for x in limits)
    return InputLimits(rounded, tuple(_rounded(w) for w in weights), len(patients))


def _rounded(value: float) -> float:
    """To six digits: a card is read by people."""
    return float(f"{value:.6g}")


def try_out(looked: Sequence[Looked]) -> Calibrated:
    """Calibrate on all patients, and count alarms with limits that do not know the patient.

    Args:
        looked: Patients as they are, and unusual cases made from some of them.

    Raises:
        D3MError: too few patients.
    """
    patients = [one for one in looked if not one.kind]
    raised: dict[str, list[set[str]]] = {}
    for patient in patients:
        usual = calibrate([p for p in patients if p.id != patient.id])
        for one in looked:
            if one.id == patient.id:
                codes = {notice.code for notice in judge(one.features, usual, frozenset(one.said))}
                raised.setdefault(one.kind, []).append(codes | set(one.said if one.kind else ()))
    shares = [
        Share(
            kind, sum(map(bool, found)), len(found), tuple(Counter(c for codes in found for c in codes).most_common())
        )
        for kind, found in raised.items()
    ]
    alarms = next(share for share in shares if not share.kind)
    return Calibrated(calibrate(patients), alarms, tuple(share for share in shares if share.kind))


@dataclass(frozen=True)
class _Work:
    """One patient, and whether unusual cases are made from him."""

    patient: Patient
    grid: GridRecipe
    stride: int
    unusual: bool


def _look(case: Case, work: _Work) -> dict[str, float]:
    return measure(case, to_model_input(case, work.grid, work.stride))


def _look_at(work: _Work) -> list[Looked]:
    """A patient as he is, and all unusual cases made from him; nothing if the files cannot be used."""
    patient = work.patient
    try:
        case = read_case(patient.t1, patient.t2, patient.flair)
        scans = {name: read_volume(getattr(patient, name), name) for name in (*CONTRASTS, "t1c")}
        enhanced = _look(replace(case, t1=scans["t1c"]), work)
        found = [Looked(patient.id, "", _look(case, work), enhanced, tuple(n.code for n in case.notices))]
    except D3MError:
        return []
    for kind in KINDS if work.unusual else ():
        random = np.random.default_rng(zlib.crc32(f"{patient.id}{kind.name}".encode()))
        with tempfile.TemporaryDirectory() as folder:
            found.append(_look_unusual(patient.id, kind, write_scans(Path(folder), kind.change(scans, random)), work))
    return found


def _look_unusual(identifier: str, kind: Unusual, files: Mapping[str, Path], work: _Work) -> Looked:
    try:
        case = read_case(files["t1"], files["t2"], files["flair"])
        return Looked(identifier, kind.name, _look(case, work), {}, tuple(n.code for n in case.notices))
    except D3MError:
        return Looked(identifier, kind.name, {}, {}, ("refused",))


def input_check_run(
    data: Sequence[Path], model_name: str | None, write_card: bool, workers: int, report: Callable[[str], None]
) -> Calibrated:
    """Calibrate the input check of a model; its weights play no part, its grid does.

    Unusual cases are made from the patients of the part "validation", or from all where the data state no parts.

    Args:
        data: Folders of patients with T1c, or manifests.
        model_name: A model's name or folder.
        write_card: Write the limits into the model's card.
        workers: Processes.
        report: Told each line of the result.

    Raises:
        D3MError: too few patients; a model that cannot be found.
    """
    folder = find_model(model_name)
    card = read_card(folder)
    patients, faults = collect(data)
    for fault in faults:
        report(f"Left out: {fault.id}: {fault.reason}")
    stated = any(p.split == "validation" for p in patients)
    make = partial(_Work, grid=card.recipe.grid, stride=_stride(card.recipe))
    works = [make(p, unusual=p.split == "validation" or not stated) for p in patients]
    looked: list[Looked] = []
    for work, found in zip(works, in_processes(_look_at, works, workers), strict=True):
        if not found:
            report(f"Left out: {work.patient.id}: its files cannot be used.")
        looked += found
    result = try_out(looked)
    report(markdown(result))
    if write_card:
        with_limits: Card = replace(card, input_check=result.input_check)
        replace_card(folder, with_limits)
        report(f"The limits of {result.input_check.patients} patients are in the card of {card.name}.")
    return result


def _stride(recipe: Recipe) -> int:
    return int(2 ** len(recipe.network.widths))


def markdown(result: Calibrated) -> str:
    """The shares as a Markdown table."""
    lines = ["| case | reported | by |", "|---|---|---|"]
    for share in (result.alarms, *result.caught):
        codes = ", ".join(f"{code} {count}" for code, count in share.codes[:4])
        lines.append(f"| {share.kind or 'ordinary patient'} | {share.reported} of {share.cases} | {codes} |")
    caught, cases = sum(s.reported for s in result.caught), sum(s.cases for s in result.caught)
    lines.append(f"| **all unusual** | {caught} of {cases} | |")
    return "\n".join(lines) + "\n"
