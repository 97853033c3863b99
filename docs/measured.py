"""Numbers in README and documentation, copied from the files where measurements stand: `make numbers`.

Each block between `<!-- numbers NAME -->` and `<!-- end -->` is made here, from the default model's card, from
`Resources/Comparison/table.csv` and from `Resources/Screenshots/sample.json`. With `--check` nothing is written, and
the exit code is 1 where a text differs. With `--picture FOLDER` (a result of the sample case) the README's picture is
replaced by that result's figure.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "docs/validation.md", "docs/comparison.md")
CARD = ROOT / "Resources/Models/default/card.json"
COMPARISON = ROOT / "Resources/Comparison/table.csv"
SAMPLE_LABELS = ROOT / "Resources/SampleData/sample_seg.nii.gz"
PICTURE = ROOT / "Resources/Screenshots/sample.png"
PICTURE_FACTS = PICTURE.with_suffix(".json")
ENHANCING = 4
BLOCK = re.compile(r"(<!-- numbers ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)

ROWS = (
    ("psnr_brain", "PSNR brain, fitted (dB)", 2),
    ("psnr_tumour", "PSNR tumour, fitted (dB)", 2),
    ("psnr_enhancing", "PSNR enhancing tumour, fitted (dB)", 2),
    ("ssim_brain", "SSIM brain, fitted", 3),
    ("ssim_tumour", "SSIM tumour, fitted", 3),
    ("auc_et", "AUC of the enhancement", 3),
    ("auc_et_real", "&nbsp; the same of the real T1c", 3),
    ("contrast", "contrast of the enhancement to its surroundings", 2),
    ("contrast_real", "&nbsp; the same of the real T1c", 2),
    ("dice", "Dice of the predicted enhancing tumour", 3),
    ("false_positive_ml", "false enhancement (ml)", 1),
    ("false_negative_ml", "missed enhancement (ml)", 1),
    ("false_slices", "share of the slices without enhancement that show some", 2),
    ("warp_gain", "error removed by the last warp (x 1000)", 2),
    ("blur_gain", "&nbsp; by a 3 x 3 blur instead (x 1000)", 2),
    ("field_inside", "displacement in the enhancing tumour (mm)", 2),
    ("field_outside", "displacement in the rest of the brain (mm)", 2),
    ("error_correlation", "rank correlation of the uncertainty (expected error) with the error", 2),
    ("error_ratio", "mean expected error over the mean error", 2),
    ("spread_correlation", "rank correlation of the samples' standard deviation with the error", 2),
)
"""Name in the card, words, decimals."""

COLUMNS = (
    ("brain", "psnr", "PSNR brain", 2),
    ("tumour", "psnr", "tumour", 2),
    ("enhancing", "psnr", "enhancing", 2),
    ("tumour", "ssim", "SSIM tumour", 3),
    ("enhancing", "dice", "Dice, own mask", 3),
    ("brain", "fp_ml", "false ml", 0),
    ("enhancing", "fn_ml", "missed ml", 0),
    ("enhancing", "segmenter_dice", "Dice, fixed segmenter", 3),
    ("volume", "seconds", "s a volume", 1),
)
"""Of a comparison's table: region, metric, words, decimals."""
METHODS = {
    "t1-copy": "Copied T1",
    "regression": "One-step regression",
    "pix2pix": "Pix2Pix",
    "resvit": "ResViT",
    "palette": "Palette",
    "i2sb": "I2SB",
    "d3m": "D3M",
    "d3m-no-mssdm": "D3M without MSSDM",
    "d3m-no-mssdm-no-dsimd": "D3M without MSSDM and DSIMD",
    "d3m-residual": "D3M, correction added",
    "d3m-blur": "D3M, fixed blur",
}
"""The comparison's methods in the order of the tables; others follow under their own names."""


def _card() -> dict[str, Any]:
    card: dict[str, Any] = json.loads(CARD.read_text(encoding="utf-8"))
    return card


def _rows(card: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in card["validation"]}


def validation_table() -> str:
    """The card's validation, mean and standard deviation over patients, beside the copied T1."""
    card = _card()
    found = _rows(card)
    lines = ["| quantity | synthetic CEMRI | copied T1 | patients |", "|---|---|---|---|"]
    for name, words, decimals in ROWS:
        if name not in found:
            continue
        row = found[name]
        copied = "" if row["t1_copy"] is None else f"{row['t1_copy']:.{decimals}f}"
        spread = f"{row['mean']:.{decimals}f} ± {row['sd']:.{decimals}f}"
        lines.append(f"| {words} | {spread} | {copied} | {row['n']} |")
    return "\n".join([*lines, "", f"Measured on: {card['validation_note']}"])


def without_table() -> str:
    """The card's validation with each contrast left out, beside the one with all."""
    card = _card()
    tables = {one["contrast"]: {row["name"]: row for row in one["rows"]} for one in card.get("validation_without", ())}
    if not tables:
        return "The default model needs T1, T2 and FLAIR."
    tables = {"all three": _rows(card)} | {f"without {name.upper()}": rows for name, rows in tables.items()}
    lines = [f"| quantity | {' | '.join(tables)} |", f"|---|{'---|' * len(tables)}"]
    for name, words, decimals in ROWS:
        cells = [rows.get(name) for rows in tables.values()]
        if all(cell is not None for cell in cells):
            spreads = [f"{cell['mean']:.{decimals}f} ± {cell['sd']:.{decimals}f}" for cell in cells if cell]
            lines.append(f"| {words} | {' | '.join(spreads)} |")
    return "\n".join(lines)


PATIENT_ROWS = (
    ("enhances_balanced_accuracy", "does it enhance: balanced accuracy", 2),
    ("enhances_sensitivity", "&nbsp; enhancing patients recognised", 2),
    ("enhances_specificity", "&nbsp; others recognised", 2),
    ("mask_ml_of_the_others", "&nbsp; mask of the others: false enhancement (ml)", 1),
    ("enhances_auc", "&nbsp; area under the ROC curve", 2),
    ("enhances_squared_error", "&nbsp; squared error of the probability (Brier score)", 3),
    ("enhances_squared_error_of_the_usual_share", "&nbsp; the same, if everybody is given the share of all", 3),
    ("volume_r2", "volume: R2", 2),
    ("volume_r2_labelled", "&nbsp; R2 of the patients with drawn labels", 2),
    ("volume_error_ml", "&nbsp; absolute error (ml)", 1),
    ("interval_coverage", "&nbsp; true volume within the interval", 2),
)
"""Name in the card, words, decimals."""


def patient_table() -> str:
    """How good the estimate of whether and how much enhances is, each patient's by a fit without the patient."""
    rows = {row["name"]: row for row in _card()["patient_validation"]}
    lines = ["| quantity | mean | patients |", "|---|---|---|"]
    return "\n".join(
        [*lines, *(f"| {words} | {rows[name]['mean']:.{n}f} | {rows[name]['n']} |" for name, words, n in PATIENT_ROWS)]
    )


def patients_table() -> str:
    """Each validation patient, worst Dice first."""
    lines = [
        "| patient | PSNR brain | tumour | enhancing | Dice | false (ml) | missed (ml) |",
        "|---|---|---|---|---|---|---|",
    ]

    def text(value: float | None, decimals: int) -> str:
        return "–" if value is None else f"{value:.{decimals}f}"

    for p in sorted(_card()["patients"], key=lambda p: -1.0 if p["dice"] is None else p["dice"]):
        numbers = [text(p[name], 2) for name in ("psnr_brain", "psnr_tumour", "psnr_enhancing", "dice")]
        numbers += [text(p[name], 1) for name in ("false_positive_ml", "false_negative_ml")]
        lines.append(f"| `{p['id']}` | {' | '.join(numbers)} |")
    return "\n".join(lines)


def comparison_table(rung: str) -> str:
    """Means over patients (and seeds) of every method of one rung."""
    found: dict[str, dict[tuple[str, str], float]] = {}
    budgets: dict[str, str] = {}
    with COMPARISON.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["rung"] == rung and row["mean"]:
                found.setdefault(row["method"], {})[row["region"], row["metric"]] = float(row["mean"])
                budgets[row["method"]] = row["budget"].split(",")[0].removesuffix(" iterations").replace("none", "–")
    if not found:
        raise ValueError(f"{COMPARISON.name} has no rung {rung!r}")
    lines = [
        f"| method | iterations | {' | '.join(words for *_, words, _ in COLUMNS)} |",
        "|---|---|" + "---|" * len(COLUMNS),
    ]
    for method in sorted(found, key=lambda name: list(METHODS).index(name) if name in METHODS else len(METHODS)):
        values = (found[method].get((region, metric)) for region, metric, *_ in COLUMNS)
        cells = ("–" if v is None else f"{v:.{c[3]}f}" for v, c in zip(values, COLUMNS, strict=True))
        lines.append(f"| {METHODS.get(method, method)} | {budgets[method]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def limits() -> str:
    """What it cannot do, in three lines."""
    card = _card()
    row = _rows(card)
    dice, false, missed = row["dice"], row["false_positive_ml"], row["false_negative_ml"]
    contrast, real = row["contrast"]["mean"], row["contrast_real"]["mean"]
    tumour, labelled = row["psnr_tumour"], [p["dice"] for p in card["patients"] if p["dice"] is not None]
    poor = sum(value <= 0.3 for value in labelled)
    trained = card["data"].split(",")[0].split(" from ")[0]
    return f"""- **It misses and invents enhancement.** Mean Dice {dice["mean"]:.2f} on {dice["n"]} patients with \
enhancing tumour;
  {poor} of them have 0.3 or less. On average over {false["n"]} patients, {missed["mean"]:.1f} ml are missed and \
{false["mean"]:.1f} ml are false.
- **It shows too little contrast:** {contrast:.1f} against {real:.1f} in the real scans. In the tumour its PSNR is
  {tumour["mean"]:.1f} dB; a mere copy of T1 has {tumour["t1_copy"]:.1f} dB.
- **It has seen few patients:** {trained}. Other diseases,
  children and treated tumours are untested."""


def sample_caption() -> str:
    """What the picture of the sample case shows, and what is true."""
    facts = json.loads(PICTURE_FACTS.read_text(encoding="utf-8"))
    labels = nibabel.load(SAMPLE_LABELS)
    voxel_ml = abs(np.linalg.det(labels.affine[:3, :3])) / 1000
    truth = float((np.asarray(labels.dataobj) == ENHANCING).sum()) * voxel_ml
    predicted = facts["enhancing_volume_ml"]
    said = "" if abs(predicted - truth) < 0.2 * truth else f", {predicted / truth:.1f} times the true {truth:.1f} ml"
    judged = f": the model marks too {'much' if predicted > truth else 'little'} here" if said else ""
    estimate = facts["patient_estimate"]
    low, high = estimate["volume_interval_ml"]
    return (
        "*The bundled sample, a simulated patient, through the default model (`make demo`). Its predicted enhancing "
        f"tumour\nmeasures {predicted:.1f} ml{said or f'; the true one measures {truth:.1f} ml'}{judged}. Its "
        f"[estimate](docs/validation.md#whether-and-how-much-enhances) "
        f"for the patient:\n{estimate['volume_ml']:.1f} ml, {100 * estimate['interval_level']:.0f} % interval "
        f"{low:.1f} to {high:.1f} ml.*"
    )


BLOCKS: dict[str, Callable[[], str]] = {
    "validation": validation_table,
    "without": without_table,
    "patient": patient_table,
    "patients": patients_table,
    "limits": limits,
    "sample": sample_caption,
    "full": lambda: comparison_table("full"),
    "half": lambda: comparison_table("half"),
    "half-aligned": lambda: comparison_table("half-aligned"),
    "half-misaligned": lambda: comparison_table("half-misaligned"),
    "seeds": lambda: comparison_table("seeds"),
    "half-seeds": lambda: comparison_table("half-seeds"),
    "half-long": lambda: comparison_table("half-long"),
}


def renewed(text: str) -> str:
    """A document's text with its blocks made again."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{BLOCKS[found[2]]()}\n\n{found[4]}", text)


def problems() -> list[str]:
    """What is out of date, one sentence each."""
    found = [
        f"{name} has other numbers than the model's card: run `make numbers`."
        for name in DOCUMENTS
        if (text := (ROOT / name).read_text(encoding="utf-8")) != renewed(text)
    ]
    facts = json.loads(PICTURE_FACTS.read_text(encoding="utf-8"))
    if any(facts[name] != _card()[name] for name in ("weights_sha256", "patient_calibration")):
        found.append("The README's picture is of another model: run `make picture`.")
    return found


def take_picture(result: Path) -> None:
    """Make a result's figure the README's picture."""
    provenance = json.loads((result / "provenance.json").read_text(encoding="utf-8"))
    facts = {
        "weights_sha256": provenance["model"]["weights_sha256"],
        "patient_calibration": _card()["patient_calibration"],
        "enhancing_volume_ml": provenance["predicted_enhancing_volume_ml"],
        "patient_estimate": provenance["patient_estimate"],
    }
    shutil.copyfile(result / "figure.png", PICTURE)
    PICTURE_FACTS.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a text differs")
    parser.add_argument("--picture", type=Path, metavar="FOLDER", help="a result of the sample case")
    asked = parser.parse_args()
    if asked.picture is not None:
        take_picture(asked.picture)
    if asked.check:
        found = problems()
        print("\n".join(found))
        return 1 if found else 0
    for name in DOCUMENTS:
        path = ROOT / name
        path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
