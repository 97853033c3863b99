"""What methods lose where T1c lay beside the other scans in training: `python misaligned.py OUT ALIGNED MISALIGNED`.

OUT is the folder of a comparison (`d3m-benchmark compare`), the others name two of its rungs that differ in
`misaligned_mm` alone. Value of the second rung minus that of the first, mean over patients; then D3M's change minus the
method's with the p value of Wilcoxon's signed-rank test over patients, not corrected for their number.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas
from scipy.stats import wilcoxon

METRICS = (
    ("psnr", "brain"),
    ("psnr", "tumour"),
    ("psnr", "enhancing"),
    ("ssim", "brain"),
    ("ssim", "tumour"),
    ("dice", "enhancing"),
    ("fp_ml", "brain"),
    ("fn_ml", "enhancing"),
)


def changes(out: Path, aligned: str, misaligned: str) -> pandas.DataFrame:
    """One row for each method, metric, region and patient; seeds are averaged."""
    key = ["method", "metric", "region", "patient"]
    found = []
    for rung in (aligned, misaligned):
        tables = [pandas.read_csv(path) for path in sorted((out / "cells" / rung).glob("*/seed*/cells.csv"))]
        found.append(pandas.concat(tables).groupby(key).value.mean())
    return (found[1] - found[0]).dropna().reset_index()


def main(out: Path, aligned: str, misaligned: str) -> None:
    """Print a table."""
    table = changes(out, aligned, misaligned)
    methods = [name for name in table.method.unique() if name != "t1-copy"]
    heads = ["quantity", *methods, *(f"d3m minus {name}" for name in methods if name != "d3m")]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for metric, region in METRICS:
        chosen = table[(table.metric == metric) & (table.region == region)]
        wide = chosen.pivot(index="patient", columns="method", values="value").dropna()
        cells = [f"{wide[name].mean():+.3f}" for name in methods]
        for name in methods:
            if name != "d3m":
                difference = wide["d3m"] - wide[name]
                cells.append(f"{difference.mean():+.3f} (p {wilcoxon(difference).pvalue:.2g})")
        print(f"| {metric} {region} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:4])
