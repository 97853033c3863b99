"""The page of a result: everything is in it, it is what was computed, and a browser draws it without a network."""

from __future__ import annotations

import base64
import gzip
import io
import itertools
import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from matplotlib.image import imread

from conftest import TinyCase
from d3m import api
from d3m.results.view_page import NIIVUE
from engine.bids_helpers import bids_dataset
from engine.test_bids import bids
from engine.test_review import BROWSER, browser

LICENCE_LINE = "Redistributions in binary form must reproduce the above copyright notice"


@pytest.fixture(scope="module")
def made(tiny_case: TinyCase, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result's folder with its page."""
    out = tmp_path_factory.mktemp("view") / "result"
    scans = {"t1": tiny_case.t1, "t2": tiny_case.t2, "flair": tiny_case.flair}
    api.synthesize(**scans, out=out, model=str(tiny_model), quality="preview", device="cpu", page=True)
    return out


def _facts(folder: Path) -> dict[str, Any]:
    text = (folder / "view.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found
    facts: dict[str, Any] = json.loads(found[1])
    return facts


def _volume(packed: str) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(packed)))


def test_the_page_holds_the_result_itself(made: Path, tiny_case: TinyCase) -> None:
    """Each volume lies where it lies in the result, with its values to a grey level; the page is marked."""
    facts = _facts(made)
    panels = {one["name"]: one for one in facts["panels"]}
    assert list(panels) == ["t1", "t2", "flair", "cemri", "subtraction", "displacement"]
    expected = {name: nibabel.load(getattr(tiny_case, name)) for name in ("t1", "t2", "flair")}
    expected |= {name: nibabel.load(made / f"{name}.nii.gz") for name in ("cemri", "subtraction")}
    for name, image in expected.items():
        shown = _volume(panels[name]["image"])
        offset = np.linalg.inv(image.affine) @ shown.affine
        assert np.allclose(offset[:3, :3], np.eye(3), atol=1e-5), name
        start = np.rint(offset[:3, 3]).astype(int)
        box = tuple(slice(s, s + n) for s, n in zip(start, shown.shape, strict=True))
        brain = tiny_case.brain[box]
        assert brain.sum() == tiny_case.brain.sum(), "the brain is cut"
        low, high = panels[name]["full"]
        true = np.clip(image.get_fdata()[box][brain], low, high)
        assert np.abs(shown.get_fdata()[brain] - true).max() <= (high - low) / 255 + 1e-3, name
        dark, bright = panels[name]["window"]
        assert dark < bright <= high * 1.01, name
        assert dark == -bright if name == "subtraction" else dark >= low, name
    mask = nibabel.load(made / "enhancement_mask.nii.gz").get_fdata()
    assert _volume(facts["mask"]).get_fdata().sum() == mask.sum()
    field = nibabel.load(made / "deformation.nii.gz").get_fdata()[..., 0, :]
    longest = np.linalg.norm(field, axis=-1).max()
    assert _volume(panels["displacement"]["image"]).get_fdata().max() == pytest.approx(longest, rel=0.1)
    assert "Synthetic image" in facts["statement"]


def test_the_page_asks_nothing_of_a_network(made: Path) -> None:
    """Its policy lets no browser ask another machine or read a file, and it has no element that would."""
    text = (made / "view.html").read_text(encoding="utf-8")
    own = text.replace(NIIVUE.read_text(encoding="utf-8"), "")
    assert len(text) - len(own) > 2_000_000
    assert not re.findall(r"https?://|@import|\ssrc=\"|<link", own)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', own)
    assert policy
    assert "default-src 'none'" in policy[1]
    assert not re.findall(r"\*|https?:|'self'|file:", policy[1])
    assert LICENCE_LINE in (NIIVUE.with_name("README.md")).read_text(encoding="utf-8").replace("\n       ", " ")


def test_a_page_is_written_only_if_asked(tiny_case: TinyCase, tiny_model: Path, tmp_path: Path) -> None:
    scans = {"t1": tiny_case.t1, "t2": tiny_case.t2, "flair": tiny_case.flair}
    api.synthesize(**scans, out=tmp_path / "out", model=str(tiny_model), quality="preview", device="cpu")
    assert not (tmp_path / "out" / "view.html").exists()


def test_the_review_page_opens_it(tiny_model: Path, tmp_path: Path) -> None:
    """In BIDS derivatives it has a BIDS name, the review page leads to it, and a second run finds nothing to do."""
    root, out = bids_dataset(tmp_path / "raw", "01"), tmp_path / "out"
    options = ("--model", tiny_model, "--quality", "preview", "--page")
    assert bids(root, out, "participant", *options).exit_code == 0
    (page,) = out.rglob("*view.html")
    assert page.name == "sub-01_desc-synthT1c_view.html"
    made = page.stat().st_mtime_ns
    again = bids(root, out, "participant", *options)
    assert again.exit_code == 0, again.output
    assert page.stat().st_mtime_ns == made
    assert bids(root, out, "group").exit_code == 0
    assert page.relative_to(out).as_posix() in (out / "review.html").read_text(encoding="utf-8")
    assert "*_view.html" in (out / ".bidsignore").read_text(encoding="utf-8")


DRIVER = """(async () => {
  const wait = ms => new Promise(done => setTimeout(done, ms));
  for (let k = 0; k < 1200 && !document.body.dataset.ready; k++) await wait(100);
  const r = {ready: document.body.dataset.ready, place: at("place").textContent, views: views.length};
  if (!r.ready) return r;
  r.boxes = views.map(({figure}) => figure.getBoundingClientRect()).map(b => [b.left, b.top, b.right, b.bottom]);
  const before = [...views[0].nv.scene.crosshairPos];
  views[3].nv.moveCrosshairInVox(0, 0, 4);
  views[3].nv.drawScene();
  r.moved = [...views[3].nv.scene.crosshairPos][2] - before[2];
  r.linked = views.map(({nv}) => nv.scene.crosshairPos[2] - before[2]);
  at("which").value = "3"; at("which").dispatchEvent(new Event("change"));
  at("width").value = at("width").max; at("width").dispatchEvent(new Event("input"));
  r.windows = views.map(({nv}) => nv.volumes[0].cal_max - nv.volumes[0].cal_min);
  at("mask").value = "0"; at("mask").dispatchEvent(new Event("input"));
  r.masks = views.map(({nv}) => nv.volumes[1].opacity);
  await wait(500);  // until it is drawn
  r.network = performance.getEntriesByType("resource").filter(e => !/^(blob|data):/.test(e.name)).map(e => e.name);
  return r;
})()"""


def _evaluate(page: Path, script: str, profile: Path) -> dict[str, Any]:
    """Open a page in a browser and hand back what a script made of it and its picture; in real time, as drawing is.

    Speaks Chromium's protocol over its pipes 3 and 4 (JSON with a zero byte after each message).
    """
    assert BROWSER is not None
    for_browser, to_browser = os.pipe()
    from_browser, for_us = os.pipe()
    command = [BROWSER, "--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    command += [f"--user-data-dir={profile}", "--window-size=1000,800", "--remote-debugging-pipe", page.as_uri()]
    child = subprocess.Popen(
        command,
        close_fds=False,
        preexec_fn=lambda: (os.dup2(for_browser, 3), os.dup2(for_us, 4)),
        stderr=subprocess.DEVNULL,
        env=os.environ | {"HOME": str(profile)},
    )
    os.close(for_browser)
    os.close(for_us)
    numbers = itertools.count(1)
    with open(to_browser, "wb") as out, open(from_browser, "rb") as back:  # noqa: PTH123 (pipes)
        rest = b""

        def call(method: str, session: str | None = None, **parameters: object) -> dict[str, Any]:
            nonlocal rest
            number = next(numbers)
            message = {"id": number, "method": method, "params": parameters}
            out.write(json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
            out.flush()
            while True:
                *whole, rest = rest.split(b"\0")
                for text in whole:
                    answer = json.loads(text)
                    if answer.get("id") == number:
                        result: dict[str, Any] = answer["result"]
                        return result
                more = back.read1(1 << 20)
                assert more, "the browser ended"
                rest += more

        try:
            target = next(t for t in call("Target.getTargets")["targetInfos"] if t["type"] == "page")
            session = call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
            loaded = "document.readyState + location.protocol"
            while call("Runtime.evaluate", session, expression=loaded)["result"]["value"] != "completefile:":
                time.sleep(0.1)
            made = call("Runtime.evaluate", session, expression=script, awaitPromise=True, returnByValue=True)
            assert "exceptionDetails" not in made, made
            found: dict[str, Any] = made["result"]["value"]
            picture = base64.b64decode(call("Page.captureScreenshot", session)["data"])
            return found | {"picture": imread(io.BytesIO(picture), format="png")}
        finally:
            child.kill()
            child.wait()


@pytest.mark.long
@browser
def test_a_browser_draws_it(made: Path, tmp_path: Path) -> None:
    """Six linked panels with pictures in them; window and opacity do what they say."""
    found = _evaluate(made / "view.html", DRIVER, tmp_path / "profile")
    assert found["ready"] == "true", found["place"]
    assert found["views"] == 6
    for left, top, right, bottom in np.array(found["boxes"]).astype(int):
        panel = found["picture"][top + 30 : bottom - 25, left:right, :3].mean(axis=2)
        assert np.ptp(panel) > 0.5, "nothing is drawn"
        assert len(np.unique(panel.round(2))) > 10, "no picture with many grey values"
    assert found["moved"] > 0
    assert np.allclose(found["linked"], found["moved"])
    assert found["windows"][0] == found["windows"][3] > found["windows"][1] > 0
    assert found["masks"] == [0] * 6
    assert found["network"] == []
