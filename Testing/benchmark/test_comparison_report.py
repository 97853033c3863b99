"""What a reader of a comparison relies on: honest statistics, and a report that is whole, safe and without network."""

from __future__ import annotations

import csv
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from d3m.errors import D3MError
from d3m_benchmark.comparison import report
from d3m_benchmark.comparison.page import MARK, Pictures, box_plots, page, picture
from d3m_benchmark.comparison.report import RungResult, Summary, csv_text, latex, markdown, summarise_rung, write_report
from d3m_benchmark.comparison.statistics import Row, smallest_p, summarise
from d3m_benchmark.comparison.table import Cell, MethodFacts, read_cells

NAN = float("nan")
HOSTILE = "<script>alert(1)</script> & | _x"


def cells(values: dict[str, list[list[float]]], metric: str = "psnr", region: str = "tumour") -> list[Cell]:
    """Values by method, patient and seed."""
    return [
        Cell(method, f"p{k}", seed, metric, region, value)
        for method, patients in values.items()
        for k, seeds in enumerate(patients)
        for seed, value in enumerate(seeds)
    ]


def against(name: str, made: list[Cell]) -> Row:
    return next(row for row in summarise(made) if row.method == name)


def summary(made: list[Cell], title: str = HOSTILE) -> Summary:
    names = dict.fromkeys(c.method for c in made)
    facts = tuple(MethodFacts(n, f"{n} {title}", HOSTILE, 10**6, 1.0, 2, 10, 60.0, "half") for n in names)
    return summarise_rung(RungResult("half", f"Conditions {HOSTILE}", facts, tuple(made), (0.5, NAN)))


def test_thirteen_pairs_at_their_smallest_p() -> None:
    """D3M better in all of 13 patients: p is 2 / 2^13, the effect 1, and Holm over two methods doubles it."""
    ours = [[20 + 0.1 * k] for k in range(13)]
    worse = [[19.9 + 0.09 * k] for k in range(13)]
    mixed = [[20 + 0.1 * k + 0.3 * (-1) ** k * (1 + k / 7)] for k in range(13)]
    made = cells({"d3m": ours, "i2sb": worse, "palette": mixed})
    row = against("i2sb", made)
    assert row.p == pytest.approx(2 / 2**13) == smallest_p(13)
    assert row.effect == 1
    assert row.p_holm == pytest.approx(2 * row.p)
    differences = np.subtract(ours, mixed)[:, 0]
    assert against("palette", made).p == pytest.approx(stats.wilcoxon(differences).pvalue)


def test_p_is_exact_where_patients_do_not_differ() -> None:
    """Patients without a difference are left out, and the others keep the exact test, however many there are."""
    same, gains = [[5.0]] * 30, [[5.0 + 0.1 * k] for k in range(1, 6)]
    row = against("i2sb", cells({"d3m": same + gains, "i2sb": same + [[5.0]] * 5}))
    assert row.p == pytest.approx(2 / 2**5)


def test_interval_covers_a_known_difference() -> None:
    """Of 40 samples with a true difference of 0.5, about 95 % of the intervals contain it."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(40):
        common, noise = rng.normal(20, 3, 20), rng.normal(0, 0.4, 20)
        made = cells({"d3m": [[v] for v in common + 0.5 + noise], "i2sb": [[v] for v in common]})
        row = against("i2sb", made)
        covered += row.ci_low <= 0.5 <= row.ci_high
    assert covered >= 34


def test_a_patient_undefined_for_one_seed_is_undefined() -> None:
    """No method gains by failing with one seed; the spread over seeds rests on the same patients for each seed."""
    made = cells({"d3m": [[1.0, 2.0], [5.0, NAN], [3.0, 4.0]], "i2sb": [[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]})
    row = against("d3m", made)
    assert (row.n, row.mean) == (2, 2.5)
    assert row.seed_sd == pytest.approx(np.std([2, 3], ddof=1))
    assert against("i2sb", made).pairs == 2
    nowhere = against("d3m", cells({"d3m": [[NAN, NAN]], "i2sb": [[1.0, 1.0]]}))
    assert nowhere.n == 0
    assert math.isnan(nowhere.mean)
    assert math.isnan(nowhere.seed_sd)


def test_points_of_box_plots_are_the_tables_patients() -> None:
    """A patient whom the table leaves out has no point; every figure is marked as synthetic."""
    found = summary(cells({"d3m": [[1.0, 2.0], [5.0, NAN], [3.0, 4.0]], "i2sb": [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]}))
    figure = box_plots(found)
    ax = next(ax for ax in figure.axes if ax.get_title().startswith("PSNR tumour"))
    points = [sorted(line.get_ydata()) for line in ax.lines if line.get_marker() == "."]
    assert points == [[1.5, 3.5], [1, 2, 3]]
    assert MARK in str(figure.get_suptitle())
    image = np.full((24, 20), 0.5)
    drawn = picture(Pictures("Case", {"T1": image}, image, {"D3M": image}, np.zeros(image.shape, bool)))
    assert any(MARK in text.get_text() for text in drawn.texts)


def test_unequal_patients_are_told_and_none_is_best() -> None:
    """A method that is undefined for a hard patient is not printed as the best."""
    found = summary(
        cells({"d3m": [[10.0], [10.0], [40.0]], "i2sb": [[12.0], [12.0], [NAN]]}, "segmenter_hd95", "enhancing")
        + cells({"d3m": [[1.0], [2.0], [3.0]], "i2sb": [[2.0], [3.0], [4.0]]})
    )
    text = markdown("title", [found])
    assert "12.0 ± 0.0 (n 2)" in text
    assert "**12.0" not in text
    assert "**3.00 ± 1.00**" in text
    assert "HD95, fixed segmenter, mm ↓" in text
    assert "PSNR tumour, dB ↑" in text
    assert {(r["method"], r["n"]) for r in csv.DictReader(csv_text([found]).splitlines()) if "hd95" in r["metric"]} == {
        ("d3m", "3"),
        ("i2sb", "2"),
    }


class Found(HTMLParser):
    """Tags and addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href", "srcset", "action")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_needs_no_network_and_texts_stay_texts(tmp_path: Path) -> None:
    """Pictures are inside the page, which is told to load nothing else; titles with markup are shown, not run."""
    found = summary(cells({"d3m": [[1.0], [2.0], [3.0]], "i2sb": [[2.0], [3.0], [4.0]]}))
    image = np.full((24, 20), 0.5)
    case = Pictures(HOSTILE, {"T1": image}, image, {"D3M": image}, image > 0.4)
    text = page(HOSTILE, [found], {"half": [case]})
    parsed = Found(text)
    assert parsed.addresses
    assert all(address.startswith("data:image/png;base64,") for address in parsed.addresses)
    assert "default-src 'none'" in text
    assert not {"script", "link", "iframe"} & set(parsed.tags)
    assert "url(" not in text
    assert f"d3m {HOSTILE}" in parsed.text
    assert MARK in parsed.text
    write_report(tmp_path / "out", HOSTILE, [found], text)
    assert (tmp_path / "out" / "index.html").read_text(encoding="utf-8") == text


def test_markup_in_titles_does_not_break_other_tables() -> None:
    """Each Markdown row has as many cells as its head; LaTeX has no bare special character."""
    found = summary(cells({"d3m": [[1.0], [2.0], [3.0]], "i2sb": [[2.0], [3.0], [4.0]]}))
    text = markdown("title", [found])
    assert "<script>" not in text.split("### D3M against", 1)[1]
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    written = latex([found])
    assert r"\& | \_x" in written
    assert not re.search(r"(?<!\\)_", written)
    for name in ("table*", "tabular"):
        assert written.count(rf"\begin{{{name}}}") == written.count(rf"\end{{{name}}}") == 2
    assert len(re.findall(r"(?<!\\)\{", written)) == len(re.findall(r"(?<!\\)\}", written))


def test_report_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where writing fails midway the older report stays as it was and nothing else is left."""
    found = summary(cells({"d3m": [[1.0], [2.0]], "i2sb": [[2.0], [3.0]]}))
    write_report(tmp_path / "report", "first", [found], "page")
    before = {p.name: p.read_bytes() for p in (tmp_path / "report").iterdir()}
    assert {"table.csv", "table.md", "table.tex", "index.html"} <= set(before)

    def broken(_: object) -> str:
        raise MemoryError

    monkeypatch.setattr(report, "latex", broken)
    with pytest.raises(MemoryError):
        write_report(tmp_path / "report", "second", [found], "other")
    assert {p.name: p.read_bytes() for p in (tmp_path / "report").iterdir()} == before
    with pytest.raises(MemoryError):
        write_report(tmp_path / "new", "second", [found], "other")
    assert [p.name for p in tmp_path.iterdir()] == ["report"]


@pytest.mark.parametrize("text", ["", "method,patient,seed,metric,region,value\n", "a,b\n1,2\n", "\x00"])
def test_a_cut_file_of_values_is_damaged(tmp_path: Path, text: str) -> None:
    """A file that lost its values is told, not read as a method without patients."""
    (tmp_path / "cells.csv").write_text(text, encoding="utf-8")
    with pytest.raises(D3MError, match=r"cells\.csv is damaged"):
        read_cells(tmp_path / "cells.csv")
