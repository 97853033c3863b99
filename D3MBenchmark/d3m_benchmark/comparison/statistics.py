"""What a comparison's numbers say: effect sizes and intervals first, then p values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap, rankdata, wilcoxon

from d3m_benchmark.comparison.table import Cell

REFERENCE = "d3m"
"""The method that all others are compared with."""
HIGHER_IS_BETTER = frozenset({"psnr", "ssim", "dice", "segmenter_dice"})
BEST_AT_ONE = frozenset({"flicker"})
"""A ratio to the real image's; all other metrics are better when smaller."""
CONFIDENCE, RESAMPLES = 0.95, 9999


@dataclass(frozen=True)
class Row:
    """One method, metric and region; patients are the units, seeds are averaged first."""

    method: str
    metric: str
    region: str
    mean: float
    sd: float
    """Over patients."""
    seed_sd: float
    """Over seeds, of their means over patients; NaN with one seed."""
    n: int
    """Patients for whom it is defined."""
    pairs: int
    """Patients for whom it is defined for D3M too."""
    difference: float
    """Mean of D3M minus this method, over those; NaN for D3M itself."""
    ci_low: float
    ci_high: float
    """Bootstrap interval (BCa, 95 %) of the difference."""
    effect: float
    """Matched-pairs rank-biserial correlation, 1 where D3M is better in every patient, -1 where it is worse."""
    p: float
    """Wilcoxon signed-rank, two-sided."""
    p_holm: float
    """After Holm, over the other methods for this metric and region."""


def goodness(metric: str, values: np.ndarray) -> np.ndarray:
    """Values turned so that larger is better."""
    if metric in BEST_AT_ONE:
        return -np.abs(values - 1)
    return values if metric in HIGHER_IS_BETTER else -values


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p values (Holm 1979, doi:10.2307/4615733): NaN stays NaN and does not count.

    Args:
        p: Of one family.
    """
    values = np.array(p, float)
    order = np.argsort(values)[: int(np.isfinite(values).sum())]
    adjusted = np.full(len(values), np.nan)
    highest = 0.0
    for place, k in enumerate(order):
        highest = max(highest, min(1.0, values[k] * (len(order) - place)))
        adjusted[k] = highest
    return adjusted.tolist()


def rank_biserial(differences: np.ndarray) -> float:
    """(W+ - W-) / (W+ + W-) of the signed ranks without zeros (Kerby 2014, doi:10.2466/11.IT.3.1).

    Args:
        differences: (n,) positive where the first is better; NaN where no difference is left.
    """
    kept = differences[differences != 0]
    if not len(kept):
        return float("nan")
    ranks = rankdata(np.abs(kept))
    return float((ranks * np.sign(kept)).sum() / ranks.sum())


def smallest_p(pairs: int) -> float:
    """The smallest p value that the exact two-sided signed-rank test can give with so many pairs."""
    return min(1.0, 2.0 / 2.0**pairs)


def patient_means(seeds: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
    """Each patient's mean over seeds: NaN where one of them is, so that no method gains by failing now and then.

    Args:
        seeds: Values of one method and metric by patient and seed.
    """
    return {patient: float(np.mean(list(values.values()))) for patient, values in seeds.items()}


def by_patient(cells: Iterable[Cell]) -> dict[tuple[str, str], dict[str, dict[str, dict[int, float]]]]:
    """Values by metric and region, then method, patient and seed, in the order in which they come."""
    found: dict[tuple[str, str], dict[str, dict[str, dict[int, float]]]] = {}
    for cell in cells:
        of_method = found.setdefault((cell.metric, cell.region), {}).setdefault(cell.method, {})
        of_method.setdefault(cell.patient, {})[cell.seed] = cell.value
    return found


def summarise(cells: Iterable[Cell]) -> tuple[Row, ...]:
    """A row for each method, metric and region, in the order in which they come.

    Args:
        cells: Of one rung.
    """
    rows = []
    for (metric, region), methods in by_patient(cells).items():
        patients = {name: patient_means(seeds) for name, seeds in methods.items()}
        raw = [
            _row(name, metric, region, values, patients.get(REFERENCE, {}), _seed_sd(methods[name]))
            for name, values in patients.items()
        ]
        for row, adjusted in zip(raw, holm([row.p for row in raw]), strict=True):
            rows.append(Row(**{**row.__dict__, "p_holm": adjusted}))
    return tuple(rows)


def _seed_sd(patients: Mapping[str, Mapping[int, float]]) -> float:
    seeds = sorted({seed for values in patients.values() for seed in values})
    if len(seeds) < 2:
        return float("nan")
    complete = [values for values in patients.values() if all(np.isfinite(values.get(seed, np.nan)) for seed in seeds)]
    if not complete:
        return float("nan")
    return float(np.std([np.mean([values[seed] for values in complete]) for seed in seeds], ddof=1))


def _row(
    name: str, metric: str, region: str, values: Mapping[str, float], reference: Mapping[str, float], seed_sd: float
) -> Row:
    defined = np.array([v for v in values.values() if np.isfinite(v)])
    mean = float(defined.mean()) if len(defined) else float("nan")
    sd = float(defined.std(ddof=1)) if len(defined) > 1 else float("nan")
    both = [p for p, v in values.items() if np.isfinite(v) and np.isfinite(reference.get(p, np.nan))]
    difference = low = high = effect = p = float("nan")
    if name != REFERENCE and both:
        ours, theirs = (np.array([of[k] for k in both]) for of in (reference, values))
        difference = float((ours - theirs).mean())
        low, high = _interval(ours - theirs)
        better = goodness(metric, ours) - goodness(metric, theirs)
        effect = rank_biserial(better)
        if (better != 0).any():  # scipy falls back on the normal approximation where it finds zeros itself
            p = float(wilcoxon(better[better != 0]).pvalue)
    return Row(
        name, metric, region, mean, sd, seed_sd, len(defined), len(both), difference, low, high, effect, p, float("nan")
    )


def _interval(differences: np.ndarray) -> tuple[float, float]:
    if len(differences) < 3 or np.ptp(differences) == 0:
        return float("nan"), float("nan")
    found = bootstrap(
        (differences,), np.mean, confidence_level=CONFIDENCE, n_resamples=RESAMPLES, rng=np.random.default_rng(0)
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
