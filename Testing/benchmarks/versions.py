"""How the default model got better from version to version: `python Testing/benchmarks/versions.py [--write]`.

The cards of all versions stand in the history of this repository (a clone that was cut short has not all of them).
Each version's validation, and what it gained over the one before, patient by patient, with Wilcoxon's signed-rank test.
With `--write` the documentation's curve is drawn anew. Of each version the last card counts; "9m" is the ninth
with every other sample of the mirror image.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import wilcoxon

ROOT = Path(__file__).resolve().parents[2]
CARD = "Resources/Models/default/card.json"
CURVE = ROOT / "Resources/Screenshots/versions.png"
PATIENT_QUANTITIES = {
    "psnr_tumour": "tumour dB",
    "psnr_enhancing": "enhancing dB",
    "dice": "Dice",
    "false_positive_ml": "false ml",
    "false_negative_ml": "missed ml",
}
PANELS = (
    ("PSNR above a copy of T1 (dB)", {"psnr_tumour": "tumour", "psnr_enhancing": "enhancing tumour"}),
    ("", {"auc_et": "AUC of the enhancement", "dice": "Dice of the mask"}),
    ("ml", {"false_positive_ml": "false enhancement", "false_negative_ml": "missed enhancement"}),
)


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def versions() -> dict[str, dict[str, Any]]:
    """The cards of all versions by their names, the first one first; what is not committed yet counts as the last."""
    texts = [_git("show", f"{at}:{CARD}") for at in _git("log", "--reverse", "--format=%H", "--", CARD).split()]
    texts.append((ROOT / CARD).read_text(encoding="utf-8"))
    numbers: dict[str, int] = {}
    last: dict[str, dict[str, Any]] = {}
    for card in map(json.loads, texts):
        number = numbers.setdefault(card["weights_sha256"], len(numbers) + 1)
        mirrored = any(quality.get("mirrored") for quality in card["recipe"]["qualities"])
        last[f"{number}{'m' * mirrored}"] = card
    return last


def _rows(card: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A card's validation by the quantities' names."""
    return {row["name"]: row for row in card["validation"]}


def gains(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What each quantity gained over the patients whom both cards have, and how likely chance gives as much."""
    cells = []
    for name in PATIENT_QUANTITIES:
        values = [{p["id"]: p[name] for p in card["patients"] if p[name] is not None} for card in (before, after)]
        both = sorted(values[0].keys() & values[1].keys())
        change = np.array([values[1][one] - values[0][one] for one in both])
        p = wilcoxon(change).pvalue if change.any() else 1.0
        cells.append(f"{change.mean():+.3f} (p {p:.2g})")
    return cells


def draw(cards: dict[str, dict[str, Any]]) -> None:
    """One panel for each kind of quantity, versions along the bottom."""
    figure = Figure((9, 2.6), layout="constrained")
    for axes, (unit, quantities) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for name, words in quantities.items():
            rows = [_rows(card)[name] for card in cards.values()]
            axes.plot(list(cards), [row["mean"] - (row["t1_copy"] or 0.0) for row in rows], "o-", label=words)
        axes.set_ylabel(unit)
        axes.set_xlabel("version")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize="small")
    figure.savefig(CURVE, dpi=110)


def main(write: bool) -> None:
    """Print the tables; draw the curve."""
    cards = versions()
    print(f"| version | threshold | brain dB | AUC | contrast | {' | '.join(PATIENT_QUANTITIES.values())} |")
    for name, card in cards.items():
        rows = _rows(card)
        cells = [
            f"{rows[quantity]['mean']:.3f}" for quantity in ("psnr_brain", "auc_et", "contrast", *PATIENT_QUANTITIES)
        ]
        print(f"| {name} | {card['mask_threshold']} | {' | '.join(cells)} |")
    print(f"\n| gained over the one before | {' | '.join(PATIENT_QUANTITIES.values())} |")
    for before, (name, after) in zip(cards.values(), list(cards.items())[1:], strict=False):
        print(f"| {name} | {' | '.join(gains(before, after))} |")
    if write:
        draw(cards)


if __name__ == "__main__":
    main("--write" in sys.argv[1:])
