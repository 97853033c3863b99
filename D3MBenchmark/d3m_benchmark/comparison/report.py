"""The report of a comparison: the same numbers as CSV, Markdown, LaTeX and one page to look at."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d3m.system.folders import whole_folder
from d3m.system.manifest import FolderKind
from d3m.system.storage import write_text
from d3m.system.text import for_csv
from d3m_benchmark.comparison.statistics import (
    BEST_AT_ONE,
    HIGHER_IS_BETTER,
    REFERENCE,
    Row,
    goodness,
    smallest_p,
    summarise,
)
from d3m_benchmark.comparison.table import Cell, MethodFacts

TABLES = {
    "D3M against other methods": ("t1-copy", "regression", "pix2pix", "resvit", "palette", "i2sb", "d3m"),
    "What D3M's parts are worth": ("d3m-no-mssdm-no-dsimd", "d3m-no-mssdm", "d3m-blur", "d3m-residual", "d3m"),
}
COLUMNS = {
    ("psnr", "brain"): ("PSNR brain, dB", 2), ("psnr", "tumour"): ("PSNR tumour, dB", 2),
    ("psnr", "enhancing"): ("PSNR enhancing, dB", 2), ("ssim", "brain"): ("SSIM brain", 3),
    ("ssim", "tumour"): ("SSIM tumour", 3), ("error", "enhancing"): ("Error enhancing", 3),
    ("dice", "enhancing"): ("Dice, own mask", 3), ("fp_ml", "brain"): ("False positive, ml", 1),
    ("fn_ml", "enhancing"): ("False negative, ml", 1), ("segmenter_dice", "enhancing"): ("Dice, fixed segmenter", 3),
    ("segmenter_hd95", "enhancing"): ("HD95, fixed segmenter, mm", 1), ("flicker", "brain"): ("Slice difference", 2),
    ("seconds", "volume"): ("Seconds a volume", 1),
}  # fmt: skip
"""Title and decimals of each metric and region, in the tables' order."""
DIFFERENCES = (("psnr", "tumour"), ("psnr", "enhancing"), ("error", "enhancing"), ("dice", "enhancing"),
               ("fp_ml", "brain"), ("segmenter_dice", "enhancing"))  # fmt: skip
"""For which D3M is set against each method: what a tumour's image is judged by."""
EXPLAINED = "Mean [95 % bootstrap interval]; effect (rank-biserial; 1: D3M is better in every patient); p after Holm."


@dataclass(frozen=True)
class RungResult:
    """All numbers of one rung."""

    name: str
    conditions: str
    """Resolution, budget, seeds, patients, device, versions and hashes, in sentences."""
    facts: tuple[MethodFacts, ...]
    cells: tuple[Cell, ...]
    segmenter_dice: tuple[float, ...]
    """Of the fixed segmenter on the real images, for each patient of the report; NaN where not defined."""


@dataclass(frozen=True)
class Summary:
    """A rung with its statistics."""

    result: RungResult
    rows: tuple[Row, ...]

    def row(self, method: str, column: tuple[str, str]) -> Row | None:
        """The row of a method in a column, or None."""
        return next((r for r in self.rows if r.method == method and (r.metric, r.region) == column), None)

    def best(self, methods: Sequence[str], column: tuple[str, str]) -> str | None:
        """The method with the best mean in a column: none in seconds, and none where means are over unequally many
        patients, which would favour a method that is undefined for the hard ones."""
        rows = [r for name in methods if (r := self.row(name, column)) is not None and math.isfinite(r.mean)]
        if not rows or column[0] == "seconds" or len({r.n for r in rows}) > 1:
            return None
        return max(rows, key=lambda r: float(goodness(r.metric, np.array(r.mean)))).method

    def titled(self, column: tuple[str, str]) -> str:
        """A column's title, and an arrow to where its better values are."""
        metric = column[0]
        arrow = "" if metric in BEST_AT_ONE else " ↑" if metric in HIGHER_IS_BETTER else " ↓"
        return COLUMNS[column][0] + arrow

    def text(self, method: str, column: tuple[str, str]) -> str:
        """Mean and spread for a reader, with the number of patients where some are left out."""
        row = self.row(method, column)
        if row is None or not math.isfinite(row.mean):
            return "–"
        decimals = COLUMNS[column][1]
        spread = f" ± {row.sd:.{decimals}f}" if math.isfinite(row.sd) else ""
        fewer = f" (n {row.n})" if row.n < self.pairs() else ""
        return f"{row.mean:.{decimals}f}{spread}{fewer}"

    def methods(self, table: Sequence[str]) -> list[MethodFacts]:
        """Those of a table that were run, in its order."""
        known = {f.name: f for f in self.result.facts}
        return [known[name] for name in table if name in known]

    def pairs(self) -> int:
        """Patients that most statements rest on."""
        return max((r.n for r in self.rows), default=0)


def summarise_rung(result: RungResult) -> Summary:
    """Compute a rung's statistics."""
    return Summary(result, summarise(result.cells))


COMPARISON = FolderKind("comparison", "an earlier report of a comparison")


def write_report(out: Path, title: str, summaries: Sequence[Summary], page: str) -> None:
    """Write the report's folder, whole or not at all.

    Args:
        out: The folder; an older one is replaced if nobody changed it.
        title: Of the comparison.
        summaries: The rungs, the first one first.
        page: Text of `index.html`.

    Raises:
        D3MError: the disk is full.
    """
    with whole_folder(out, COMPARISON) as place:
        write_text(place / "table.csv", csv_text(summaries))
        write_text(place / "table.md", markdown(title, summaries))
        write_text(place / "table.tex", latex(summaries))
        write_text(place / "index.html", page)


def csv_text(summaries: Sequence[Summary]) -> str:
    """Every row of every rung."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["rung", "method", "region", "metric", "mean", "sd", "seed_sd", "n", "difference", "ci_low", "ci_high",
         "effect", "p", "p_holm", "budget"]
    )  # fmt: skip
    for summary in summaries:
        facts = {f.name: f for f in summary.result.facts}
        for r in summary.rows:
            numbers = (r.difference, r.ci_low, r.ci_high, r.effect, r.p, r.p_holm)
            writer.writerow(
                [for_csv(summary.result.name), for_csv(r.method), r.region, r.metric,
                 _csv(r.mean), _csv(r.sd), _csv(r.seed_sd), r.n, *(_csv(v) for v in numbers), budget(facts[r.method])]
            )  # fmt: skip
    return text.getvalue()


def _csv(value: float) -> str:
    return f"{value:.5g}" if math.isfinite(value) else ""


def budget(facts: MethodFacts) -> str:
    """What a method's training took."""
    if not facts.iterations:
        return "none"
    return f"{facts.iterations} iterations, {facts.seconds_trained / 60:.1f} min"


def notes(summary: Summary) -> list[str]:
    """What a reader must know about a rung's numbers."""
    defined = [v for v in summary.result.segmenter_dice if math.isfinite(v)]
    n, others = summary.pairs(), sum(f.name != REFERENCE for f in summary.result.facts)
    lines = [
        summary.result.conditions,
        f"Mean ± standard deviation over {n} patients; PSNR, SSIM and error after the best linear fit onto the real "
        "image. A patient for whom a value is not defined is left out; (n ...) says how many remain, and no mean is "
        "marked as the best among unequally many. Slice difference: neighbouring slices' over that of the real image, "
        "best at 1.",
        f"With {n} pairs no p value can be smaller than {smallest_p(n):.1g} (exact signed-rank test); Holm's "
        f"correction then multiplies the smallest by the number of methods set against D3M ({others} at most).",
    ]
    if defined:
        spread = f" ± {np.std(defined, ddof=1):.3f}" if len(defined) > 1 else ""
        lines.append(
            f"The fixed segmenter reaches a Dice of {np.mean(defined):.3f}{spread} on the real images "
            f"(n = {len(defined)}): what a perfect synthesis would get."
        )
    return lines


def markdown(title: str, summaries: Sequence[Summary]) -> str:
    """Tables with methods as rows, the best value of a column bold; then D3M against each method."""
    lines = [f"# {title}", "", "Synthetic images, for research only.", ""]
    for summary in summaries:
        lines += [f"## {summary.result.name}", "", *(f"- {note}" for note in notes(summary)), ""]
        for name, members in TABLES.items():
            methods = summary.methods(members)
            lines += [f"### {name}", "", "| method | " + " | ".join(map(summary.titled, COLUMNS)) + " |"]
            lines.append("|---" * (len(COLUMNS) + 1) + "|")
            for facts in methods:
                cells = []
                for column in COLUMNS:
                    text = summary.text(facts.name, column)
                    best = summary.best([m.name for m in methods], column) == facts.name
                    cells.append(f"**{text}**" if best else text)
                lines.append(f"| {_cell(facts.title)} | " + " | ".join(cells) + " |")
            lines.append("")
        lines += [
            "### What each method costs",
            "",
            "| method | source | parameters, M | GMAC a slice | steps | budget |",
        ]
        lines.append("|---|---|---|---|---|---|")
        lines += [
            f"| {_cell(f.title)} | {_cell(f.source)} | {f.parameters / 1e6:.1f} | {f.gmac:.2f} | {f.steps} | "
            f"{budget(f)} |"
            for f in summary.result.facts
        ]
        lines += ["", *differences(summary), ""]
    return "\n".join(lines).rstrip() + "\n"


def differences(summary: Summary) -> list[str]:
    """D3M minus each method: interval, effect and p, for the metrics that tumours are judged by."""
    head = " | ".join(map(summary.titled, DIFFERENCES))
    lines = [
        "### D3M minus each method",
        "",
        EXPLAINED,
        "",
        f"| method | {head} |",
        "|---" * (len(DIFFERENCES) + 1) + "|",
    ]
    for facts in summary.result.facts:
        if facts.name == REFERENCE:
            continue
        cells = [difference_text(summary.row(facts.name, c), COLUMNS[c][1]) for c in DIFFERENCES]
        lines.append(f"| {_cell(facts.title)} | " + " | ".join(cells) + " |")
    return lines


def _cell(text: str) -> str:
    """A text for a cell of a Markdown table."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def difference_text(row: Row | None, decimals: int) -> str:
    """Difference, interval, effect and p in a cell."""
    if row is None or not math.isfinite(row.difference):
        return "–"
    interval = f" [{row.ci_low:+.{decimals}f}, {row.ci_high:+.{decimals}f}]" if math.isfinite(row.ci_low) else ""
    p = f"; p {row.p_holm:.2g}" if math.isfinite(row.p_holm) else ""
    return f"{row.difference:+.{decimals}f}{interval}; {row.effect:+.2f}{p}"


LATEX = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
         "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "±": r"$\pm$",
         "–": "--", "↑": r"$\uparrow$", "↓": r"$\downarrow$"}  # fmt: skip


def latex_text(text: str) -> str:
    """A text for LaTeX."""
    return "".join(LATEX.get(letter, letter) for letter in text)


def latex(summaries: Sequence[Summary]) -> str:
    """The same tables for booktabs."""
    lines = ["% Needs \\usepackage{booktabs,graphicx}. Synthetic images, for research only."]
    for summary in summaries:
        for name, members in TABLES.items():
            methods = summary.methods(members)
            lines += [
                r"\begin{table*}", rf"\caption{{{latex_text(f'{name}. {summary.result.conditions}')}}}",
                r"\resizebox{\textwidth}{!}{%", r"\begin{tabular}{l" + "r" * len(COLUMNS) + "}", r"\toprule",
                "Method & " + " & ".join(latex_text(summary.titled(c)) for c in COLUMNS) + r" \\", r"\midrule",
            ]  # fmt: skip
            for facts in methods:
                cells = []
                for column in COLUMNS:
                    text = latex_text(summary.text(facts.name, column))
                    best = summary.best([m.name for m in methods], column) == facts.name
                    cells.append(rf"\textbf{{{text}}}" if best else text)
                lines.append(f"{latex_text(facts.title)} & " + " & ".join(cells) + r" \\")
            lines += [r"\bottomrule", r"\end{tabular}}", r"\end{table*}", ""]
    return "\n".join(lines)
