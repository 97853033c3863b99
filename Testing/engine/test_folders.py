"""Somebody's work is never deleted or replaced: one rule for every folder that is written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from conftest import TinyCase, write_case
from d3m.batch.cases import find_cases
from d3m.batch.local import run_batch
from d3m.errors import D3MError
from d3m.models.load import load_model, save_model
from d3m.models.store import MODEL, MODELS_VARIABLE, import_model, remove_model
from d3m.options import SynthesisOptions
from d3m.progress import ignore_progress
from d3m.results.provenance import FILE_NAME, RESULT
from d3m.synthesis import Synthesis
from d3m.system.folders import check_output, claim, tidy, whole_folder
from d3m.system.manifest import MANIFEST, PARTIAL, READY, FolderKind, relist, standing
from engine.command_helpers import d3m_command, environment

OTHER = FolderKind("other", "something else of ours")


def write(out: Path, text: str = "image", kind: FolderKind = RESULT) -> Path:
    """A folder as we write it: two files, one of them further down."""
    with whole_folder(out, kind) as folder:
        (folder / "cemri.nii.gz").write_text(text)
        (folder / "trace").mkdir()
        (folder / "trace/step.nii.gz").write_text(text)
    return out


def tree(folder: Path) -> dict[str, bytes | str]:
    """Everything in a folder: content of files, targets of links, and folders."""
    return {
        path.relative_to(folder).as_posix(): (
            f"-> {path.readlink()}" if path.is_symlink() else path.read_bytes() if path.is_file() else "folder"
        )
        for path in sorted(folder.rglob("*"))
    }


def add_link(out: Path) -> None:
    """A link to a folder elsewhere."""
    (out / "data").symlink_to(out.parent)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a hidden file": (lambda out: (out / ".env").write_text("key"), ".env"),
    "an empty folder": (lambda out: (out / "plans").mkdir(), "plans"),
    "a link": (add_link, "data"),
    "a dangling link": (lambda out: (out / "gone").symlink_to("/no/such"), "gone"),
    "hidden notes further down": (lambda out: (out / "trace/.notes").write_text("seen"), "trace/.notes"),
    "a corrected file": (lambda out: (out / "cemri.nii.gz").write_text("corrected"), "cemri.nii.gz"),
    "a file for a link": (lambda out: ((out / "cemri.nii.gz").unlink(), (out / "cemri.nii.gz").symlink_to(MANIFEST)),
                          "cemri.nii.gz"),
    "a folder for a file": (lambda out: ((out / "cemri.nii.gz").unlink(), (out / "cemri.nii.gz").mkdir()),
                            "cemri.nii.gz"),
    "a link for a folder": (lambda out: ((out / "trace").rename(out.parent / "t"), (out / "trace").symlink_to("../t")),
                            "trace"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_somebody_did_in_a_result_stays(change: str, tmp_path: Path) -> None:
    """Whatever was added or changed: the folder is refused by name before the work and again after it, and stays."""
    out = write(tmp_path / "out")
    check_output(out, RESULT, force=True)
    CHANGES[change][0](out)
    before = tree(out)
    with pytest.raises(D3MError, match="will not be replaced") as refused:
        check_output(out, RESULT, force=True)
    assert repr(CHANGES[change][1]) in refused.value.message
    with pytest.raises(D3MError, match="will not be replaced"):
        write(out)
    assert tree(out) == before


@pytest.mark.parametrize("change", ["a hidden file", "an empty folder", "a link", "a dangling link"])
def test_folders_that_only_look_empty(change: str, tmp_path: Path) -> None:
    """A folder of a user's that holds only hidden files, empty folders or links is theirs."""
    out = tmp_path / "out"
    out.mkdir()
    CHANGES[change][0](out)
    with pytest.raises(D3MError, match="something other than an earlier result"):
        check_output(out, RESULT, force=True)
    with pytest.raises(D3MError, match="something other than an earlier result"):
        write(out)
    assert len(tree(out)) == 1


def test_only_its_own_kind_is_replaced(tmp_path: Path) -> None:
    """A validation does not replace a model, though both are ours and untouched."""
    out = write(tmp_path / "out", kind=OTHER)
    with pytest.raises(D3MError, match="something other than an earlier result"):
        check_output(out, RESULT, force=True)
    check_output(out, OTHER, force=True)


def test_damage_is_nobodys_work(tmp_path: Path) -> None:
    """A file that was cut, or is missing, does not keep a result from being made again."""
    import gzip

    with whole_folder(tmp_path / "out", RESULT) as folder:
        (folder / "a.nii.gz").write_bytes(gzip.compress(os.urandom(5000)))
        (folder / "b.json").write_text("{}")
    (tmp_path / "out/a.nii.gz").write_bytes((tmp_path / "out/a.nii.gz").read_bytes()[:-9])
    (tmp_path / "out/b.json").unlink()
    assert standing(tmp_path / "out", RESULT).state == "ours"


def test_changed_during_the_work(tmp_path: Path) -> None:
    """What somebody does in the folder while the run goes on stays, and what the run made is kept beside it."""
    out = write(tmp_path / "out")

    def run() -> None:
        with whole_folder(out, RESULT) as folder:
            (folder / "cemri.nii.gz").write_text("new")
            (out / "notes.txt").write_text("mine")

    with pytest.raises(D3MError, match="'out-1'"):
        run()
    assert (out / "notes.txt").read_text() == "mine"
    assert (tmp_path / "out-1/cemri.nii.gz").read_text() == "new"


def test_links_are_followed_or_refused(tmp_path: Path) -> None:
    """A link to an earlier result still is one afterwards, and its target is new; a link to nothing is refused."""
    write(tmp_path / "real", "old")
    (tmp_path / "out").symlink_to("real")
    check_output(tmp_path / "out", RESULT, force=True)
    with claim(tmp_path / "out"):
        write(tmp_path / "out", "new")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "real/cemri.nii.gz").read_text() == "new"
    for target in ("nothing", "loop"):
        (tmp_path / "loop").unlink(missing_ok=True)
        (tmp_path / "loop").symlink_to(target)
        with pytest.raises(D3MError, match="link to nothing"):
            check_output(tmp_path / "loop", RESULT, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loop", "out", "real"]


@pytest.mark.parametrize("force", [False, True])
def test_output_above_an_input(force: bool, tmp_path: Path) -> None:
    """A folder that holds an input, itself or through a link, is refused."""
    scan = write(tmp_path / "out") / "cemri.nii.gz"
    (tmp_path / "link").symlink_to(tmp_path)
    for given in (scan, tmp_path / "link/out/cemri.nii.gz", tmp_path / "out"):
        with pytest.raises(D3MError, match="is or holds an input"):
            check_output(tmp_path / "out", RESULT, force, [given])
    check_output(tmp_path / "out" / "inner", RESULT, force, [scan])


@pytest.mark.parametrize("earlier", [False, True])
def test_folder_of_the_shell_stays_the_same(earlier: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--out .`: the folder is written into, so that the shell does not end up in one that is gone."""
    out = tmp_path / "out"
    out.mkdir()
    if earlier:
        write(out, "old")
        (out / "trace/step.nii.gz").replace(out / "cemri.nii.gz")  # one file less, of the same content
    monkeypatch.chdir(out)
    number = out.stat().st_ino
    check_output(Path(), RESULT, force=earlier)
    with claim(Path()), whole_folder(Path(), RESULT) as folder:
        (folder / "other.nii.gz").write_text("new")
    assert out.stat().st_ino == number
    assert {path.name for path in out.iterdir()} == {"other.nii.gz", MANIFEST}
    assert os.listdir() == os.listdir(out)  # noqa: PTH208
    assert standing(out, RESULT).state == "ours"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("moment", range(7))
def test_killed_while_moving_in(moment: int, tmp_path: Path) -> None:
    """kill -9 before each change that moving into a folder that stays makes: the next run finishes it.

    Before the first one, the renaming, the old content stays; from then on it becomes the new one.
    """
    out = write(tmp_path / "out", "old")
    code = (  # without what loads torch: a child that fails for another reason must not look like a killed one
        "import os, signal, sys; from pathlib import Path; import d3m.system.folders as s\n"
        "from d3m.system.manifest import FolderKind\n"
        "count = 0\n"
        "def counted(real):\n"
        "    def step(*a, **k):\n"
        "        global count\n"
        "        if count == int(sys.argv[1]): os.kill(os.getpid(), signal.SIGKILL)\n"
        "        count += 1\n"
        "        return real(*a, **k)\n"
        "    return step\n"
        "for name in ('rename', 'replace', 'unlink'): setattr(Path, name, counted(getattr(Path, name)))\n"
        "with s.whole_folder(Path(), FolderKind(sys.argv[2], '')) as f:\n"
        "    for name in ('cemri.nii.gz', 'a', 'b'): (f / name).write_text('new')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(moment), RESULT.name],
        cwd=out,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (-signal.SIGKILL if moment < 6 else 0, "")
    check_output(out, RESULT, force=True)
    tidy(out)
    assert standing(out, RESULT).state == "ours"
    assert not [path for path in out.iterdir() if path.name.startswith((PARTIAL, READY))]
    old, new = {"cemri.nii.gz", "trace", "trace/step.nii.gz", MANIFEST}, {"cemri.nii.gz", "a", "b", MANIFEST}
    assert set(tree(out)) == (old if moment == 0 else new)
    assert (out / "cemri.nii.gz").read_text() == ("old" if moment == 0 else "new")


def test_what_is_ready_is_not_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole result that waits to be moved in, and whose list cannot be read just now, waits on."""
    out = write(tmp_path / "out", "old")
    with whole_folder(tmp_path / "new", RESULT) as folder:
        (folder / "cemri.nii.gz").write_text("new")
    ready = (tmp_path / "new").rename(out / f"{READY}1")
    monkeypatch.setattr("d3m.system.folders.read_manifest", lambda _: None)  # as when the disk answers EIO
    tidy(out)
    assert (ready / "cemri.nii.gz").read_text() == "new"
    monkeypatch.undo()
    tidy(out)
    assert not ready.exists()
    assert (out / "cemri.nii.gz").read_text() == "new"


def test_results_of_earlier_versions(tmp_path: Path) -> None:
    """A result without a manifest is known by the list in its provenance, and as well protected."""
    out = write(tmp_path / "out")
    files = json.loads((out / MANIFEST).read_text())["files"]
    (out / MANIFEST).unlink()
    (out / FILE_NAME).write_text(json.dumps({"synthetic": True, "files": files}))
    assert standing(out, RESULT).state == "ours"
    (out / ".env").write_text("key")
    assert standing(out, RESULT).state == "changed"
    (out / ".env").unlink()
    (out / "cemri.nii.gz").write_text("corrected")
    with pytest.raises(D3MError, match=r"'cemri.nii.gz' in the output folder was changed"):
        check_output(out, RESULT, force=True)


@pytest.mark.parametrize("name", ["../victim", "/etc/passwd", "trace/../../victim"])
def test_manifest_that_leads_out_of_its_folder(name: str, tmp_path: Path) -> None:
    """A manifest that somebody made cannot have files elsewhere removed or moved."""
    (tmp_path / "victim").write_text("mine")
    out = tmp_path / "out"
    for folder in (out, out / f"{READY}1"):
        folder.mkdir()
        content = {"kind": "result", "files": {name: {"bytes": 4, "sha256": "0" * 64}}}
        (folder / MANIFEST).write_text(json.dumps(content))
    tidy(out)
    write(out)
    assert (tmp_path / "victim").read_text() == "mine"


def test_model_beside_notes(tiny_model: Path, tmp_path: Path) -> None:
    """Exported again, a model is replaced and what lies beside it stays; a card that was edited is not replaced."""
    model = load_model(tiny_model)

    def export() -> None:
        save_model(tmp_path / "m", model.card, model.network.state_dict())

    export()
    (tmp_path / "m/TRAINING.md").write_text("notes")
    add_link(tmp_path / "m")
    (tmp_path / "m/gone").symlink_to("/no/such")
    export()
    assert (tmp_path / "m/TRAINING.md").read_text() == "notes"
    assert (tmp_path / "m/data").is_symlink()
    assert (tmp_path / "m/gone").is_symlink()
    with relist(tmp_path / "m", "card.json"):  # as --write-card does
        (tmp_path / "m/card.json").write_text((tmp_path / "m/card.json").read_text() + "\n")
    export()
    (tmp_path / "m/card.json").write_text((tmp_path / "m/card.json").read_text() + "\n\n")
    with pytest.raises(D3MError, match=r"'card.json' in the output folder was changed"):
        check_output(tmp_path / "m", MODEL, force=True)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/a.txt").write_text("work")
    with pytest.raises(D3MError, match="something other than an earlier model"):
        save_model(tmp_path / "thesis", model.card, model.network.state_dict())
    assert tree(tmp_path / "thesis") == {"a.txt": b"work"}


def test_removing_a_model_spares_notes(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`d3m models remove` removes a model, not what somebody put beside it."""
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    import_model(tiny_model)
    (tmp_path / "tiny/.notes").write_text("mine")
    with pytest.raises(D3MError, match=r"'\.notes'"):
        remove_model("tiny")
    (tmp_path / "tiny/.notes").unlink()
    remove_model("tiny")
    assert not (tmp_path / "tiny").exists()


def correct(mask: Path) -> bytes:
    """Correct a mask by hand."""
    image = nibabel.load(mask)
    data = np.asarray(image.dataobj).copy()
    data[20:24, 20:24, 20:24] = 1 - data[20:24, 20:24, 20:24]
    nibabel.save(nibabel.Nifti1Image(data, image.affine, image.header), mask)
    return mask.read_bytes()


def test_batch_keeps_what_was_corrected(tiny_model: Path, tmp_path: Path) -> None:
    """A corrected mask survives, with any settings; the case is called kept, and why; its brats copy stays as well."""
    for name in "ab":
        write_case(tmp_path / "in" / name, name)
    synthesis = Synthesis(load_model(tiny_model), SynthesisOptions(device="cpu", quality="preview"))

    def run(seed: int) -> dict[str, str]:
        chosen = Synthesis(synthesis.model, SynthesisOptions(device="cpu", quality="preview", seed=seed))
        rows = run_batch(find_cases(tmp_path / "in"), tmp_path / "out", chosen, True, ignore_progress)
        return {row.id: f"{row.status} {row.reason}".strip() for row in rows}

    assert run(0) == {"a": "done", "b": "done"}
    mask = tmp_path / "out/a/enhancement_mask.nii.gz"
    corrected = correct(mask)
    why = "kept 'enhancement_mask.nii.gz' was changed after the result was written."
    assert run(0) == {"a": why, "b": "skipped"}
    (tmp_path / "out/b/.notes").write_text("hidden")
    assert run(1) == {"a": why, "b": "kept '.notes' was added after the result was written."}
    assert mask.read_bytes() == corrected
    assert (tmp_path / "out/b/.notes").read_text() == "hidden"
    (tmp_path / "out/b/.notes").unlink()
    (tmp_path / "out/b-t1c.nii.gz").write_bytes(b"a real one")
    row = run(1)["b"]
    assert row.startswith("failed 'b-t1c.nii.gz' is in the output folder already")
    assert (tmp_path / "out/b-t1c.nii.gz").read_bytes() == b"a real one"


@pytest.mark.long
def test_commands_refuse_before_the_work(tiny_case: TinyCase, tiny_model: Path, tmp_path: Path) -> None:
    """From the command line: a dangling link and a folder with an input end with 2 before anything is read."""
    case = shutil.copytree(tiny_case.folder, tmp_path / "case")
    before = tree(case)
    scans = ["--t1", case / tiny_case.t1.name, "--t2", case / tiny_case.t2.name, "--flair", tiny_case.flair]
    (tmp_path / "link").symlink_to("nowhere")
    for out in (case, tmp_path / "link", tmp_path):
        run = d3m_command("synthesize", *scans, "--model", tiny_model, "--out", out, "--force")
        assert run.returncode == 2, run.stderr
    assert tree(case) == before
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["case", "link"]
