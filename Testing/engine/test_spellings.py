"""Old words still work, with a notice: options, commands, recipes, cards and kept rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from d3m.batch.derivatives import read_row
from d3m.commands.app import app
from d3m.errors import D3MError
from d3m.models.card import SCHEMA_VERSION, Card
from d3m.models.recipes import DEFAULT, STEP_WARP
from d3m.system.spellings import D3M, TRAINING, respelt
from d3m.volumes.input_check import FeatureLimit, InputLimits


@pytest.mark.parametrize(
    ("renamed", "old", "new"),
    [
        (D3M, "synthesize --sample --samples 2 --out O", "synthesize --example --samples 2 --out O"),
        (TRAINING, "train --recipe seed --seed 3", "train --recipe step-warp --seed 3"),
        (TRAINING, "prepare DATA --recipe=seed", "prepare DATA --recipe=step-warp"),
        (TRAINING, "familiarity DATA --write-card", "input-check DATA --write-card"),
    ],
)
def test_old_spelling_is_understood_and_told(
    renamed: tuple, old: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The old word is replaced, nothing beside it, and the new one is told, on stderr."""
    assert respelt(old.split(), renamed) == new.split()
    told = capsys.readouterr()
    assert told.out == ""
    assert "is now called" in told.err
    assert respelt(new.split(), renamed) == new.split()
    assert capsys.readouterr().err == ""


def test_a_value_that_looks_like_an_old_word_stays() -> None:
    """A folder named "seed" or "familiarity" is a folder."""
    words = ["train", "--cache", "seed", "--out", "familiarity", "--recipe", "default"]
    assert respelt(words, TRAINING) == words


def test_the_program_takes_the_old_option(tmp_path: Path) -> None:
    """`--sample` gets as far as `--example` does: here to an output folder that is in use."""
    (tmp_path / "kept.txt").write_text("mine")
    for option in ("--example", "--sample"):
        ended = CliRunner().invoke(app, ["synthesize", option, "--out", str(tmp_path)])
        assert ended.exit_code == 2
        assert "No such option" not in ended.output


def test_card_of_version_1() -> None:
    """Recipe, velocity and limits under their old names are read as under the new ones."""
    limits = InputLimits((FeatureLimit("brain_ml", 1000, 1900),))
    card = Card("m", "M", STEP_WARP, "a" * 64, input_check=limits)
    old = json.loads(card.to_json())
    assert old["schema_version"] == SCHEMA_VERSION == 2
    old["schema_version"] = 1
    old["familiarity"] = old.pop("input_check")
    old["recipe"]["name"] = old["recipe"]["diffusion"]["image_velocity"] = "seed"
    assert Card.from_json(json.dumps(old)) == card
    plain = json.loads(Card("m", "M", DEFAULT, "a" * 64).to_json()) | {"schema_version": 1}
    plain["recipe"]["diffusion"] |= {"mask_velocity": "v", "rederive_noise": True}  # choices that are none any more
    assert Card.from_json(json.dumps(plain)).recipe == DEFAULT
    plain["recipe"]["diffusion"]["rederive_noise"] = False
    with pytest.raises(D3MError, match="rederive_noise"):
        Card.from_json(json.dumps(plain))


def test_row_of_an_earlier_version(tmp_path: Path) -> None:
    """What a batch kept before the column's name changed is still read."""
    row = {"id": "a", "status": "failed", "reason": "Cut.", "mend": "Send it again.", "seconds": 1.0,
           "enhancing_ml": None, "notices": ""}  # fmt: skip
    path = tmp_path / "row.json"
    path.write_text(json.dumps(row))
    kept = read_row(path)
    assert kept is not None
    assert kept.hint == "Send it again."
