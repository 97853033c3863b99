"""The options of a synthesis: checked where they are made, and the same on the command line."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields

import pytest
from typer.testing import CliRunner

from d3m.commands.app import app
from d3m.errors import D3MError
from d3m.options import SynthesisOptions, flag


@pytest.mark.parametrize(
    ("values", "message"),
    [({"quality": "superb"}, "no quality 'superb'"), ({"steps": 0}, "--steps 0"), ({"samples": 65}, "--samples 65"),
     ({"slice_interval": 5}, "--slice-interval 5"), ({"seed": 10**19}, "--seed")],
)  # fmt: skip
def test_impossible_options_are_refused_at_once(values: dict[str, object], message: str) -> None:
    """Before a model is loaded, with what can be chosen instead."""
    with pytest.raises(D3MError, match=message) as caught:
        SynthesisOptions(**values)  # type: ignore[arg-type]
    assert "Choose" in caught.value.hint


@pytest.mark.parametrize("command", ["synthesize", "batch", "bids"])
def test_every_field_is_an_option_of_every_command(command: str) -> None:
    """With the same spelling and the field's own text; BIDS alone has no name for steps, so no trace."""
    shown = CliRunner().invoke(app, [command, "--help"], terminal_width=200, color=False).output
    for one in fields(SynthesisOptions):
        assert (flag(one) in shown) == ((command, one.name) != ("bids", "trace")), one.name
        assert one.metadata["help"]


def test_arguments_say_what_differs_from_the_defaults() -> None:
    """What Slicer passes to the engine is what was chosen."""
    options = SynthesisOptions(quality="best", steps=3, trace=True, device="cuda:1")
    assert options.arguments() == ["--quality", "best", "--steps", "3", "--trace", "--device", "cuda:1"]
    assert SynthesisOptions().arguments() == []


def test_options_are_there_without_torch() -> None:
    """Slicer's own process makes them."""
    code = "import sys, d3m.options; d3m.options.SynthesisOptions(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
