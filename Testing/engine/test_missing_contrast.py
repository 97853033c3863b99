"""Synthesis without T2 or without FLAIR: only by models that can, and said with the result."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from conftest import TinyCase
from d3m.commands.app import app
from d3m.errors import D3MError
from d3m.models.load import load_model
from d3m.options import SynthesisOptions
from d3m.synthesis import Synthesis
from d3m.volumes.preprocess.case import read_case

OPTIONS = SynthesisOptions(device="cpu", quality="preview")


@pytest.mark.parametrize("left_out", ["t2", "flair"])
def test_a_model_that_can(left_out: str, able_model: Path, tiny_case: TinyCase, tmp_path: Path) -> None:
    """The missing scan's channel is zero for the network; notice and provenance say what is missing."""
    out = tmp_path / "out"
    scans = [w for n in ("t1", "t2", "flair") if n != left_out for w in (f"--{n}", str(getattr(tiny_case, n)))]
    small = ["--model", str(able_model), "--quality", "preview", "--device", "cpu", "--progress", "none"]
    ended = CliRunner().invoke(app, ["synthesize", *scans, "--out", str(out), *small])
    assert ended.exit_code == 0, ended.output
    stated = json.loads((out / "provenance.json").read_text())
    assert stated["missing"] == [left_out]
    assert set(stated["inputs"]) == {"t1", "t2", "flair"} - {left_out}
    assert ("contrast-missing", left_out) in [(n["code"], n["volume"]) for n in stated["notices"]]
    assert (out / "figure.png").is_file()


def test_the_network_sees_nothing_of_it(able_model: Path, tiny_case: TinyCase) -> None:
    """Its plane is zero, the others are as they were; the result differs from the one with all three."""
    whole = read_case(tiny_case.t1, tiny_case.t2, tiny_case.flair)
    part = read_case(tiny_case.t1, None, tiny_case.flair)
    synthesis = Synthesis(load_model(able_model), OPTIONS)
    one, other = synthesis.prepare(whole), synthesis.prepare(part)
    assert not other.slices[:, 1].any()
    assert np.array_equal(one.slices[:, ::2], other.slices[:, ::2])
    assert not np.array_equal(synthesis.run(whole).cemri, synthesis.run(part).cemri)


def test_a_model_that_cannot(
    able_model: Path, tiny_model: Path, tiny_case: TinyCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused before anything is computed, and a model that can is named."""
    from d3m.models import needs
    from d3m.models.store import ModelEntry

    monkeypatch.setattr(
        needs, "list_models", lambda: [ModelEntry("able", able_model, True), ModelEntry("x", tmp_path, True)]
    )
    case = read_case(tiny_case.t1, tiny_case.t2, None)
    with pytest.raises(D3MError, match="FLAIR is missing, and the model tiny needs it") as caught:
        Synthesis(load_model(tiny_model), OPTIONS).run(case)
    assert "--model able" in caught.value.hint
    with pytest.raises(D3MError, match="T1 is needed"):
        read_case(tiny_case.t1, None, None)


def test_batch(able_model: Path, tiny_model: Path, tiny_case: TinyCase, tmp_path: Path) -> None:
    """A case without FLAIR runs with a model that can, and fails by itself with one that cannot."""
    table = tmp_path / "cases.csv"
    table.write_text(f"id,t1,t2,flair\na,{tiny_case.t1},{tiny_case.t2},\n")
    for model, code, word in ((able_model, 0, "a,done"), (tiny_model, 2, "FLAIR is missing")):
        out = tmp_path / model.name
        small = ["--model", str(model), "--quality", "preview", "--device", "cpu", "--progress", "none"]
        ended = CliRunner().invoke(app, ["batch", str(table), "--out", str(out), *small])
        assert ended.exit_code == code, ended.output
        assert word in (out / "summary.csv").read_text()
