"""The page to look through, in a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from d3m.batch.review import Entry, page, table, write_review

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\t\n'"


def entries(count: int) -> list[Entry]:
    """Cases of every kind, in an order that no column has."""
    made = []
    for k in range(count):
        number = f"{(k * 7919) % count:05d}"
        if k % 10 == 3:
            made.append(Entry(number, "", "failed", None, 3.0, (), "FLAIR is cut short.", "Copy it again."))
        elif k % 10 == 5:
            made.append(Entry(number, "post", "missing", None, None, ()))
        else:
            notices = ("T2 has slices of 6 mm.",) if k % 4 == 0 else ()
            made.append(
                Entry(number, "", "done", float(k % 97), 30.0 + k % 5, notices, thumbnail="t.jpg", figure="f.png")
            )
    return made


def browse(folder: Path, entries: list[Entry], script: str) -> dict[str, object]:
    """Open the page in a browser, run a script in it, and hand back what it returned."""
    assert BROWSER is not None
    write_review(entries, folder)
    text = (folder / "review.html").read_text(encoding="utf-8")
    driver = f"""<script>
const press = (key, target = document.activeElement) =>
  target.dispatchEvent(new KeyboardEvent("keydown", {{key, bubbles: true, cancelable: true}}));
const fill = (id, value) => {{ at(id).value = value; at(id).dispatchEvent(new Event("input")); }};
const ids = () => [...space.children].sort((a, b) => a.ariaRowIndex - b.ariaRowIndex)
  .map(row => row.querySelector(".name").textContent);
const sortBy = key => document.querySelector(`#heads [data-key="${{key}}"]`).click();
const current = () => (document.querySelector(".row.chosen .name") || {{}}).textContent;
const textContent = JSON.stringify((() => {{ {script} }})());
document.body.append(Object.assign(document.createElement("pre"), {{id: "result", textContent}}));
</script></body>"""
    (folder / "driven.html").write_text(text.replace("</body>", driver), encoding="utf-8")
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,900"]
    command += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=1000", "--dump-dom"]
    done = subprocess.run(
        [*command, (folder / "driven.html").as_uri()], capture_output=True, text=True, timeout=120, encoding="utf-8",
        env=os.environ | {"HOME": str(folder)},
    )  # fmt: skip
    match = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.S)
    assert match, done.stderr[-2000:]
    content = match[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    found: dict[str, object] = json.loads(content)
    return found


browser = pytest.mark.skipif(BROWSER is None, reason="needs Chromium")


@browser
def test_thousands_of_rows_in_a_browser(tmp_path: Path) -> None:
    """10,000 cases: only what is in view exists; sorting, filters and keys do what they say, and fast."""
    found = browse(
        tmp_path,
        entries(10_000),
        """
        const r = {};
        r.rows = space.children.length; r.all = list.getAttribute("aria-rowcount"); r.start = current();
        press("ArrowDown", list); r.down = current(); press("End", list); r.end = current();
        r.endInView = ids().includes(r.end); r.rowsAtEnd = space.children.length; press("Home", list);
        const began = performance.now(); sortBy("3"); r.sortMs = performance.now() - began;
        const first = () => space.children[0].children[3].textContent;
        r.largest = first(); r.ariaSort = document.querySelectorAll("[aria-sort=descending]").length;
        sortBy("3"); r.smallest = first();
        fill("search", "cut short"); r.searched = order.length;
        r.searchedKinds = [...new Set(order.map(c => c.status))];
        fill("search", ""); fill("status", "missing"); r.missing = order.length;
        fill("status", ""); at("noticed").click(); r.noticed = order.length; at("noticed").click();
        fill("least", "90");
        r.volumes = [Math.min(...order.map(c => c.volume)), order.some(c => c.volume === null)];
        fill("search", "nothing like this"); r.empty = at("empty").hidden;
        r.count = at("count").textContent;
        press("/", list); r.focus = document.activeElement.id; press("Escape"); r.back = document.activeElement.id;
        r.network = performance.getEntriesByType("resource").filter(e => !e.name.startsWith("file:")).length;
        return r;
        """,
    )
    assert found["all"] == "10000"
    assert 5 <= int(str(found["rows"])) <= 25
    assert int(str(found["rowsAtEnd"])) <= 25
    assert (found["start"], found["down"], found["end"]) == ("sub-00000", "sub-00001", "sub-09999")
    assert found["endInView"] is True
    assert (found["largest"], found["smallest"], found["ariaSort"]) == ("96.00", "0.00", 1)
    assert (found["searched"], found["searchedKinds"], found["missing"]) == (1000, ["failed"], 1000)
    assert found["noticed"] == sum(bool(entry.notices) for entry in entries(10_000))
    assert found["volumes"] == [90, False]
    assert (found["empty"], found["count"]) == (False, "0 of 10000 cases (8000 done, 1000 failed, 1000 missing)")
    assert (found["focus"], found["back"]) == ("search", "list")
    assert found["network"] == 0
    assert float(str(found["sortMs"])) < 1000


@browser
def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    """What stands in a notice or a reason is shown, never run; a picture is loaded from beside the page."""
    from matplotlib.image import imsave

    imsave(tmp_path / "t.jpg", np.full((2, 4, 3), 0.5))
    made = [
        Entry("1", "", "failed", None, 1.0, (HOSTILE,), HOSTILE, HOSTILE),
        Entry("2", "", "done", 1.0, 1.0, (HOSTILE,), thumbnail="t.jpg", figure="javascript:document.title='owned'"),
    ]
    found = browse(
        tmp_path,
        made,
        """return {title: document.title, images: document.images.length, text: space.textContent,
        alt: document.images[0].alt, source: document.images[0].getAttribute("src"),
        wide: document.images[0].width};""",
    )
    assert "owned" not in str(found["title"])
    assert "synthetic, research use only" in str(found["title"])
    assert found["images"] == 1
    assert str(found["text"]).count("<img src=x") == 4
    assert (found["source"], found["wide"]) == ("t.jpg", 528)
    assert "synthetic" in str(found["alt"])


def test_page_asks_nothing_of_a_network() -> None:
    """No address of another machine stands in the page, and its policy would keep a browser from asking one."""
    text = page(entries(30))
    assert not re.findall(r"https?://|//[a-z]+\\.|@import|src=\"", text)
    assert "default-src 'none'" in text


def test_table_cells_cannot_break_the_table() -> None:
    """Tabs and line ends in a text become blanks: as many cells in each line as columns."""
    text = table([Entry("1", "", "failed", None, None, (HOSTILE,), HOSTILE, HOSTILE), *entries(20)])
    lines = text.splitlines()
    assert len(lines) == 22
    assert {line.count("\t") for line in lines} == {16}
