"""The page of a comparison: tables, box plots and pictures in one file that opens from disk without network."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from d3m.system.text import for_html
from d3m.volumes.types import Floats, Mask
from d3m_benchmark.comparison.report import (
    COLUMNS,
    DIFFERENCES,
    EXPLAINED,
    TABLES,
    Summary,
    budget,
    difference_text,
    notes,
)
from d3m_benchmark.comparison.statistics import REFERENCE, by_patient, patient_means

PLOTS = (("psnr", "tumour"), ("psnr", "enhancing"), ("ssim", "tumour"), ("error", "enhancing"), ("dice", "enhancing"),
         ("segmenter_dice", "enhancing"), ("fp_ml", "brain"), ("fn_ml", "enhancing"))  # fmt: skip
MARK = "Synthetic images, for research only"
ERROR_RANGE = 0.5
"""Largest error that the maps show, on the fitted scale in [0, 1]."""
STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1500px; padding: 0 1.5rem; color: #1b1f24;
  background: #fff; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #8886; }
.mark { color: #a33; font-weight: 600; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 12px; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .45rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #8883; }
th:first-child, td:first-child { text-align: left; }
thead th { vertical-align: bottom; white-space: normal; min-width: 4.5rem; }
tr.ours { background: #3b7dd81c; } td.best { font-weight: 700; }
img { max-width: 100%; background: #fff; }
@media (prefers-color-scheme: dark) { body { color: #e6e6e6; background: #16181c; } .mark { color: #f88; } }
"""


@dataclass(frozen=True)
class Pictures:
    """One slice of one case."""

    title: str
    scans: Mapping[str, Floats]
    """(H, W) each, by name: T1, T2, FLAIR in [0, 1]."""
    real: Floats
    """(H, W) T1c, scaled to [0, 1]."""
    made: Mapping[str, Floats]
    """(H, W) each method's image by its title, fitted onto the real one, in [0, 1]."""
    enhancing: Mask
    """(H, W), outlined on the real image."""


def picture(case: Pictures) -> Figure:
    """Scans and real image, then each method with its error map below."""
    methods = list(case.made)
    columns = max(math.ceil(len(methods) / 2), 4)
    rows = 1 + 2 * math.ceil(len(methods) / columns)
    height, width = case.real.shape
    figure = Figure(figsize=(1.75 * columns, 1.75 * rows * height / width + 0.6), facecolor="black")
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        rows, columns, gridspec_kw={"left": 0, "right": 1, "top": 0.95, "bottom": 0.045, "wspace": 0.02, "hspace": 0.13}
    )
    for ax in axes.flat:
        ax.set_axis_off()
    shown = [*case.scans.items(), ("Real T1c", case.real)]
    for ax, (name, image) in zip(axes[0], shown, strict=False):
        _show(ax, name, image, "gray", 0, 1)
    if case.enhancing.any():
        axes[0][len(shown) - 1].contour(case.enhancing.astype(float), levels=[0.5], colors=["#e4c441"], linewidths=0.6)
    for k, name in enumerate(methods):
        row, column = 1 + 2 * (k // columns), k % columns
        _show(axes[row][column], name, case.made[name], "gray", 0, 1)
        error = np.ma.masked_where(case.real == 0, case.made[name] - case.real)
        _show(axes[row + 1][column], "", error, "RdBu_r", -ERROR_RANGE, ERROR_RANGE)
    figure.text(0.5, 0.985, f"{case.title}. {MARK}.", color="white", ha="center", va="top", fontsize=9)
    figure.text(
        0.5, 0.012, f"Below each method: synthetic minus real, blue darker, red brighter (± {ERROR_RANGE}). "
        "Yellow: enhancing tumour.", color="white", ha="center", fontsize=8,
    )  # fmt: skip
    return figure


def _show(ax: object, title: str, image: Floats, colours: str, low: float, high: float) -> None:
    ax.imshow(image, cmap=colours, vmin=low, vmax=high, interpolation="bilinear")  # type: ignore[attr-defined]
    ax.set_title(title, color="white", fontsize=8, pad=2)  # type: ignore[attr-defined]


def box_plots(summary: Summary) -> Figure:
    """A box for each method, a point for each patient; D3M darker."""
    methods, found = list(summary.result.facts), by_patient(summary.result.cells)
    figure = Figure(figsize=(14, 3.1 * math.ceil(len(PLOTS) / 2)), layout="constrained")
    FigureCanvasAgg(figure)
    jitter = np.random.default_rng(0)
    for ax, column in zip(figure.subplots(math.ceil(len(PLOTS) / 2), 2).flat, PLOTS, strict=False):
        seeds = found.get(column, {})
        means = [patient_means(seeds.get(f.name, {})).values() for f in methods]
        values = [[value for value in of_method if math.isfinite(value)] for of_method in means]
        boxes = ax.boxplot(values, widths=0.6, showfliers=False, patch_artist=True, medianprops={"color": "black"})
        for place, (facts, box) in enumerate(zip(methods, boxes["boxes"], strict=True), start=1):
            box.set_facecolor("#3b7dd8" if facts.name == REFERENCE else "#c9d7ea")
            points = values[place - 1]
            ax.plot(
                place + jitter.uniform(-0.15, 0.15, len(points)), points, ".", color="#333", markersize=4, alpha=0.7
            )
        ax.set_title(summary.titled(column), fontsize=10)
        ax.set_xticks(range(1, len(methods) + 1), [f.title for f in methods], rotation=28, ha="right", fontsize=8)
        ax.grid(axis="y", alpha=0.3)
    figure.suptitle(f"Boxes: median and quartiles; points: patients. {MARK}.", fontsize=10)
    return figure


def page(title: str, summaries: Sequence[Summary], pictures: Mapping[str, Sequence[Pictures]]) -> str:
    """Text of the HTML page.

    Args:
        title: Of the comparison.
        summaries: The rungs.
        pictures: Cases to show, by the rung's name.
    """
    parts = [f"<h1>{for_html(title)}</h1><p class='mark'>{MARK}.</p>"]
    for summary in summaries:
        parts.append(f"<h2>{for_html(summary.result.name)}</h2><ul>")
        parts += [f"<li>{for_html(note)}</li>" for note in notes(summary)]
        parts.append("</ul>")
        parts += [_table(name, summary, members) for name, members in TABLES.items()]
        parts.append(_differences(summary))
        parts.append(_costs(summary))
        parts.append("<h3>Every patient</h3>" + _image(box_plots(summary), "Box plots of each metric and method"))
        for case in pictures.get(summary.result.name, ()):
            parts.append(f"<h3>{for_html(case.title)}</h3>" + _image(picture(case), f"{case.title}: every method"))
    return (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><meta http-equiv='Content-Security-Policy' "
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f"<meta name='viewport' content='width=device-width'><title>{for_html(title)}</title><style>{STYLE}</style>"
        f"</head><body>{''.join(parts)}</body></html>\n"
    )


def _table(name: str, summary: Summary, members: Sequence[str]) -> str:
    methods = summary.methods(members)
    body = []
    for facts in methods:
        cells = []
        for column in COLUMNS:
            best = summary.best([m.name for m in methods], column) == facts.name
            text = for_html(summary.text(facts.name, column)).replace(" (n", "<br>(n")
            cells.append(f"<td class='best'>{text}</td>" if best else f"<td>{text}</td>")
        ours = " class='ours'" if facts.name == REFERENCE else ""
        body.append(f"<tr{ours}><td>{for_html(facts.title)}</td>{''.join(cells)}</tr>")
    return _html_table(name, ["Method", *map(summary.titled, COLUMNS)], body)


def _differences(summary: Summary) -> str:
    body = []
    for facts in summary.result.facts:
        if facts.name == REFERENCE:
            continue
        texts = [difference_text(summary.row(facts.name, c), COLUMNS[c][1]) for c in DIFFERENCES]
        cells = [f"<td>{for_html(text).replace('; ', '<br>', 1)}</td>" for text in texts]
        body.append(f"<tr><td>{for_html(facts.title)}</td>{''.join(cells)}</tr>")
    return _html_table("D3M minus each method", ["Method", *map(summary.titled, DIFFERENCES)], body, EXPLAINED)


def _costs(summary: Summary) -> str:
    body = [
        f"<tr><td>{for_html(f.title)}</td><td>{for_html(f.source)}</td><td>{f.parameters / 1e6:.1f}</td>"
        f"<td>{f.gmac:.2f}</td><td>{f.steps}</td><td>{for_html(budget(f))}</td></tr>"
        for f in summary.result.facts
    ]
    head = ["Method", "Source", "Parameters, M", "GMAC a slice", "Steps", "Training"]
    return _html_table("What each method costs", head, body)


def _html_table(title: str, head: Sequence[str], body: Sequence[str], explained: str = "") -> str:
    cells = "".join(f"<th scope='col'>{for_html(text)}</th>" for text in head)
    return (
        f"<h3>{for_html(title)}</h3>{f'<p>{for_html(explained)}</p>' if explained else ''}"
        f"<div class='wide'><table><thead><tr>{cells}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _image(figure: Figure, described: str) -> str:
    drawn, data = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    Image.open(drawn).convert("RGB").quantize(256).save(data, format="png", optimize=True)  # half the size
    coded = base64.b64encode(data.getvalue()).decode()
    return f"<img alt='{for_html(described)}' src='data:image/png;base64,{coded}'>"
