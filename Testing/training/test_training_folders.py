"""Training, comparison and nnU-Net never delete or replace what they did not write, and say so before the work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import write_case
from d3m.errors import D3MError
from d3m.options import SynthesisOptions
from d3m_benchmark.comparison.nnunet import DATASET, VARIABLES, export, install, write_cases
from d3m_benchmark.comparison.report import write_report
from d3m_training.data.cache import Prepared, write_entry
from d3m_training.data.preparation import PrepareOptions, prepare_cache
from d3m_training.data.whole_brain import prepare_coarse
from d3m_training.evaluate import validate_run
from d3m_training.train.export import export_run
from d3m_training.train.trainer import training_in


def tree(folder: Path) -> dict[str, bytes | str]:
    """Everything in a folder: content of files, targets of links, and folders."""
    return {
        path.relative_to(folder).as_posix(): (
            f"-> {path.readlink()}" if path.is_symlink() else path.read_bytes() if path.is_file() else "folder"
        )
        for path in sorted(folder.rglob("*"))
    }


def never(line: str) -> None:
    """A report of progress means that work has begun."""
    pytest.fail(f"began to work: {line}")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A data set with one patient, and a folder of documents with hidden files, an empty folder and links."""
    write_case(tmp_path / "data/P1", "P1")
    (tmp_path / "docs/plans").mkdir(parents=True)
    (tmp_path / "docs/thesis.txt").write_text("years of work")
    (tmp_path / "docs/.netrc").write_text("secret")
    (tmp_path / "docs/data").symlink_to("../data")
    (tmp_path / "docs/gone").symlink_to("/no/such")
    return tmp_path


def validate(data: Path, model: Path, out: Path) -> None:
    """`d3m-training validate`."""
    options = SynthesisOptions(model=str(model), quality="preview", device="cpu")
    validate_run([data], out, options, None, False, never)


COMMANDS: dict[str, Callable[[Path, Path, Path], object]] = {
    "validate": validate,
    "nnunet cases": lambda data, model, out: write_cases([data], out, None, never),
    "export": lambda data, model, out: export_run(data, out, "m", {}),
    "report": lambda data, model, out: write_report(out, "Title", [], "page"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_of_documents_stays(command: str, place: Path, tiny_model: Path) -> None:
    """Refused by the name of the first thing in it that is not ours; nothing in it changes."""
    before = tree(place)
    with pytest.raises(D3MError, match=r"something other than .*\('\.netrc'\); it will not be replaced"):
        COMMANDS[command](place / "data", tiny_model, place / "docs")
    assert tree(place) == before


RESUMED: dict[str, Callable[[Path, Path], object]] = {
    "train": lambda data, out: _train_in(out),
    "prepare": lambda data, out: prepare_cache([data], out, PrepareOptions(workers=1), never),
    "whole-brain prepare": lambda data, out: prepare_coarse([data], out, None, False, never),
    "nnunet install": lambda data, out: install(out, never),
}
"""Work that is resumed, and so goes on in a folder that is there."""


def _train_in(out: Path) -> None:
    with training_in(out, {"train": {}}):
        (out / "last.safetensors").write_bytes(b"weights")


@pytest.mark.parametrize("command", RESUMED)
def test_work_that_is_resumed_begins_in_no_folder_of_others(command: str, place: Path) -> None:
    """Weights, tables or lists of another program would be replaced, and taken for what an earlier run left."""
    for name in ("run.json", "last.safetensors", "log.csv", "grid.json", "P1.npz"):
        (place / "docs" / name).write_text('{"train": "another program\'s"}')
    (place / "file").write_text("mine")
    (place / "link").symlink_to(place / "docs")
    (place / "broken").symlink_to(place / "nothing")
    before = tree(place)
    for out, said in (
        ("docs", r"\('\.netrc'\)"),
        ("link", "something other"),
        ("file", "is a file"),
        ("broken", "link"),
    ):
        with pytest.raises(D3MError, match=said):
            RESUMED[command](place / "data", place / out)
    assert tree(place) == before


def test_a_training_goes_on_beside_notes(place: Path) -> None:
    """Its own folder holds what somebody added; what a killed start leaves is no hindrance."""
    (place / "run").mkdir()
    (place / "run/.d3m-train.lock").write_text("")
    (place / "run/.run.json.partial").write_text("{")
    _train_in(place / "run")
    (place / "run/notes.txt").write_text("good one")
    _train_in(place / "run")
    assert (place / "run/notes.txt").read_text() == "good one"


@pytest.mark.parametrize("command", ["validate", "nnunet cases"])
def test_output_above_the_data(command: str, place: Path, tiny_model: Path) -> None:
    """The data set's own folder, or one above it, is refused as that."""
    before = tree(place)
    for out in (place / "data", place, place / "data/P1"):
        with pytest.raises(D3MError, match=r"is or holds an input|something other"):
            COMMANDS[command](place / "data", tiny_model, out)
    assert tree(place) == before


def test_a_model_is_no_earlier_validation(place: Path, tiny_model: Path) -> None:
    """`--out` set to the model's folder by mistake does not cost the model."""
    before = tree(tiny_model)
    with pytest.raises(D3MError, match="is or holds an input"):
        validate(place / "data", tiny_model, tiny_model)
    assert tree(tiny_model) == before


def test_cache_in_the_data_set(place: Path) -> None:
    """A cache whose entry would take the place of a patient's folder is refused; entries are replaced."""
    before = tree(place)
    with pytest.raises(D3MError, match="something other than prepared patients"):
        prepare_cache([place / "data"], place / "data", PrepareOptions(workers=1), never)
    assert tree(place) == before
    import numpy as np

    prepared = Prepared("P1", np.zeros((2, 4, 8, 8), np.float16), np.zeros((2, 2, 8, 8), np.uint8), True)
    with pytest.raises(D3MError, match="something other than prepared patients"):
        write_entry(place / "data", prepared, "key")
    assert tree(place) == before
    for key in ("one", "two"):
        write_entry(place / "cache", prepared, key)
    assert '"two"' in (place / "cache/P1/entry.json").read_text()


def test_earlier_output_is_replaced_until_somebody_works_on_it(place: Path) -> None:
    """nnU-Net's cases and data are written again over their earlier selves, not over a corrected file."""
    lines: list[str] = []
    folders = {
        "cases": lambda: write_cases([place / "data"], place / "cases", None, lines.append),
        "data": lambda: export([place / "data"], place / "work", None, lines.append),
    }
    where = {"cases": place / "cases", "data": place / "work" / VARIABLES["nnUNet_raw"] / DATASET}
    for name, write in folders.items():
        write()
        write()
        changed = next(path for path in sorted(where[name].rglob("*.nii.gz")))
        changed.write_bytes(changed.read_bytes() + b"more")
        with pytest.raises(D3MError, match="was changed after it was written"):
            write()
        assert changed.read_bytes().endswith(b"more")
