"""Text from outside reaches nobody raw: terminal, tables, pages and JSON."""

from __future__ import annotations

import csv
import html.parser
import io
import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import TinyCase
from d3m.batch.review import Entry, page, table
from d3m.batch.run import Row, write_summary
from d3m.errors import D3MError
from d3m.system import text as gate
from engine.command_helpers import d3m_command, environment

NASTY = (
    "a\x1b]0;owned\x07b\x9b31mc\u202eTXT.exe\u2066\n\tx\u2028y\u200b\ufeff</script><img src=x onerror=alert(1)>\udcfc"
)
"""Escape and C1 sequences, turned reading direction, line breaks, invisible signs, the end of a script, a lone half."""
FORMULAS = ("=SUM(A1:A9)", "+cmd|' /C calc'!A0", "-2+3+cmd", "@SUM(1)", " =1+1", "\t=1", "\r=1", "＝1+1", "|calc", "%x")


def steers(text: str) -> list[str]:
    """Characters that steer a display: all control, format, surrogate and separator classes but the space."""
    kept = ("\u200c", "\u200d")
    return [c for c in text if c not in kept and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")]


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=())))
def test_nothing_steers_a_terminal(text: str) -> None:
    """Whatever the text, one line without control signs comes out, and twice is as once."""
    line = gate.for_terminal(text)
    assert steers(line) == []
    assert "\n" not in line
    line.encode("utf-8")
    assert gate.for_terminal(line) == line


def test_ordinary_text_stays() -> None:
    """Names of any language are shown as they are; the bytes of an old server become letters."""
    for text in ("Müller", "山田太郎", "مریم\u200cها", "naïve – test (1) & co", "T1 w/o <b>", "", "👨‍👩‍👧"):
        assert gate.plain(text) == text
    assert gate.plain(b"M\xfcller".decode("utf-8", "surrogateescape")) == "Müller"


@pytest.mark.parametrize("formula", FORMULAS)
def test_no_cell_is_a_formula(formula: str) -> None:
    """What a spreadsheet would compute becomes text, and numbers stay numbers."""
    assert gate.for_csv(formula)[0] == "'"
    for number in ("-1.5", "+3", "-inf", "1e-5", "-0", "nan"):
        assert gate.for_csv(number) == number
    assert gate.for_csv(-2.5) == "-2.5"
    assert gate.for_csv(None) == ""


@settings(max_examples=40, deadline=None)
@given(st.recursive(st.none() | st.floats() | st.integers() | st.text(st.characters(exclude_categories=())),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20))  # fmt: skip
def test_json_is_json(value: object) -> None:
    """Strict readers take it, also inside a script element, and half characters never reach a file."""
    text = json.dumps(gate.for_json(value), ensure_ascii=False, allow_nan=False)
    text.encode("utf-8")
    packed = gate.json_in_html(value)
    assert json.loads(packed) == json.loads(text)
    assert "<" not in packed
    assert "&" not in packed


def test_html_has_no_element_of_the_text() -> None:
    """Neither as an element's text nor in an attribute does the text make tags."""
    tags: list[str] = []

    class Parser(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            tags.append(tag)

    Parser().feed(f"<p title='{gate.for_html(NASTY)}' class=\"{gate.for_html(NASTY)}\">{gate.for_html(NASTY)}</p>")
    assert tags == ["p"]


def test_summary_of_a_batch(tmp_path: Path) -> None:
    """Ids and reasons that are formulas or control signs are text in the table, and one row stays one row."""
    rows = [Row(formula, "failed", NASTY, "", 1.0, None, NASTY) for formula in FORMULAS]
    write_summary(tmp_path / "summary.csv", rows)
    raw = (tmp_path / "summary.csv").read_bytes().decode("utf-8")
    assert steers(raw.replace("\r\n", "")) == []
    for row in csv.DictReader(io.StringIO(raw, newline="")):
        assert row["id"].startswith("'")
        assert row["seconds"] == "1.0"


def test_review_of_a_cohort() -> None:
    """The same for the page and the table of a BIDS run."""
    entry = Entry("01", "", "failed", None, float("inf"), (NASTY, "=1+1"), "=cmd|x", "-1+1")
    written = page([entry])
    data = written.split('id="data">')[1].split("</script>")[0]
    [shown] = json.loads(data)
    assert shown[4] is None
    assert steers("".join(shown[5]) + shown[6]) == []
    assert "onerror=alert(1)>" not in written
    cells = table([entry]).splitlines()[1].split("\t")
    assert [cell for cell in cells if cell[:1] in "=+-@"] == []


def test_titles_of_models_on_the_terminal(tmp_path: Path, tiny_model: Path) -> None:
    """A card's title cannot colour, move or rename the terminal that lists it."""
    folder = tmp_path / "models" / "tiny"
    folder.mkdir(parents=True)
    card = json.loads((tiny_model / "card.json").read_text(encoding="utf-8"))
    (folder / "card.json").write_text(json.dumps(card | {"title": NASTY[:-1]}), encoding="utf-8")
    (folder / "weights.safetensors").write_bytes((tiny_model / "weights.safetensors").read_bytes())
    done = d3m_command("models", env=environment(D3M_MODELS=str(tmp_path / "models")))
    assert done.returncode == 0, done.stderr
    assert "tiny (imported): a" in done.stdout
    assert steers(done.stdout.replace("\n", "")) == []


def test_errors_and_json_lines(tmp_path: Path, tiny_case: TinyCase) -> None:
    """A file's own words in an error neither steer the terminal nor the program that reads the lines."""
    path = tmp_path / "t2.nrrd"
    path.write_bytes(b"NRRD0004\ntype: float\ndimension: 3\nspace: left-posterior-superior\nsizes: 9 9 9\n"
                     b"space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n"
                     b"encoding: \x9b31m\x1b[2J\n\n")  # fmt: skip
    arguments = ("--t1", tiny_case.t1, "--t2", path, "--flair", tiny_case.flair, "--out", tmp_path / "out")
    done = d3m_command("synthesize", *arguments, "--progress", "json")
    assert done.returncode == 2
    last = json.loads(done.stdout.splitlines()[-1])
    assert steers(last["message"] + last["hint"]) == []
    assert steers(done.stderr.replace("\n", "")) == []


def test_small_files_only(tmp_path: Path) -> None:
    """A text file is never read beyond its limit, and what is no text is said."""
    path = tmp_path / "card.json"
    with path.open("wb") as file:
        file.truncate(3 * 2**30)  # sparse
    with pytest.raises(D3MError, match="larger than"):
        gate.read_text(path, "The card", 1000)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(D3MError, match="not UTF-8"):
        gate.read_text(path, "The card", 1000)
    with pytest.raises(D3MError, match="does not exist"):
        gate.read_text(tmp_path, "The card", 1000)
    path.write_bytes("\ufeff{}".encode())
    assert gate.read_text(path, "The card", 1000) == "{}"
