"""Outputs behave like other programs' outputs: rights, shares, mounts, full and read-only disks."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from conftest import TinyCase
from d3m.commands.app import app
from d3m.errors import D3MError
from d3m.models.load import load_model, save_model
from d3m.models.store import MODEL
from d3m.options import SynthesisOptions
from d3m.results.files import needed_bytes, write_nifti, write_result
from d3m.results.provenance import RESULT
from d3m.synthesis import Synthesis
from d3m.system.folders import check_output, check_space, claim, tidy, whole_folder
from d3m.system.manifest import MANIFEST, standing
from d3m.system.storage import replace_text
from d3m.volumes.preprocess.case import read_case
from d3m_training.cli import app as training_app

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX rights and mounts")
READ_ONLY = Path("/sys")
"""On Linux nobody, not even root, can make a folder there."""


def fill(out: Path, model: Path) -> list[Path]:
    """Every way in which the engine writes; returns what was written."""
    loaded = load_model(model)
    with whole_folder(out / "result", RESULT) as folder:
        (folder / "trace").mkdir()
        write_nifti(folder / "trace/a.nii.gz", np.zeros((4, 4, 4), np.float32), np.eye(4))
    save_model(out / "model", loaded.card, loaded.network.state_dict())
    replace_text(out / "summary.tsv", "a\tb\n")
    return sorted(path for path in out.rglob("*"))


def mode(path: Path) -> int:
    """Its permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(("mask", "folder", "file"), [(0o077, 0o700, 0o600), (0o002, 0o775, 0o664)])
def test_umask_is_honoured(mask: int, folder: int, file: int, tiny_model: Path, tmp_path: Path) -> None:
    """What a user set as umask holds for every folder and file: private stays private, shared is shared."""
    before = os.umask(mask)
    try:
        written = fill(tmp_path, tiny_model)
    finally:
        os.umask(before)
    assert {mode(path) for path in written if path.is_dir()} == {folder}
    assert {mode(path) for path in written if path.is_file()} == {file}


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="gives folders to another group: needs root")
def test_share_of_a_lab(tiny_model: Path, tmp_path: Path) -> None:
    """In a folder with the setgid bit everything belongs to the folder's group, and folders keep the bit."""
    os.chown(tmp_path, -1, 54321)
    tmp_path.chmod(0o2775)
    written = fill(tmp_path, tiny_model)
    assert {path.stat().st_gid for path in written} == {54321}
    assert all(mode(path) & stat.S_ISGID for path in written if path.is_dir())


def test_mount_that_knows_no_rights(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On CIFS, exFAT or NTFS every chmod is refused: nothing is lost for that."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise PermissionError(1, "Operation not permitted")

    for name in ("chmod", "fchmod", "lchmod"):
        monkeypatch.setattr(os, name, refuse, raising=False)
    fill(tmp_path, tiny_model)
    assert standing(tmp_path / "result", RESULT).state == "ours"
    assert standing(tmp_path / "model", MODEL).state == "ours"


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, 4 MB large, mounted below a folder."""
    place = tmp_path / "mounted"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(place)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.skipif(shutil.which("mount") is None, reason="needs mount")
def test_output_is_a_mount_point(mount: Path) -> None:
    """As in every container: an empty mount is written into, and an earlier result there is replaced in it."""
    for text in ("old", "new"):
        check_output(mount, RESULT, force=text == "new")
        with claim(mount), whole_folder(mount, RESULT) as folder:
            (folder / "cemri.nii.gz").write_text(text)
            (folder / f"{text}.json").write_text(text)
        assert {path.name: path.read_text() for path in mount.iterdir() if path.name != MANIFEST} == {
            "cemri.nii.gz": text,
            f"{text}.json": text,
        }
    assert os.path.ismount(mount)
    assert [path.name for path in mount.parent.iterdir()] == [mount.name]


@pytest.mark.skipif(shutil.which("mount") is None, reason="needs mount")
def test_full_disk(mount: Path) -> None:
    """On a real small file system: said before the work where it can be known, and else nothing is left or lost."""
    with pytest.raises(D3MError, match=r"4 MB are free, and the result needs at least 9 MB") as told:
        check_space(mount / "out", 9_000_000)
    assert told.value.exit_code == 3
    for inner in ("out", "."):  # beside it, and into the mount point itself
        out = mount / inner
        with whole_folder(out, RESULT) as folder:
            (folder / "cemri.nii.gz").write_text("old")

        def run(out: Path = out) -> None:
            with whole_folder(out, RESULT) as folder:
                (folder / "cemri.nii.gz").write_bytes(os.urandom(5_000_000))

        with pytest.raises(D3MError, match="disk is full") as told:
            run()
        assert told.value.exit_code == 3
        assert (out / "cemri.nii.gz").read_text() == "old"
        tidy(out)
        assert {path.name for path in out.iterdir()} <= {"cemri.nii.gz", MANIFEST}
        shutil.rmtree(mount / "out", ignore_errors=True)


def test_room_is_estimated_from_below(tiny_case: TinyCase, tiny_model: Path, tmp_path: Path) -> None:
    """The room that is asked for is most of what a result takes, and never more."""
    case = read_case(tiny_case.t1, tiny_case.t2, tiny_case.flair)
    for trace in (False, True):
        synthesis = Synthesis(load_model(tiny_model), SynthesisOptions(device="cpu", trace=trace))
        out = tmp_path / str(trace)
        write_result(out, synthesis.run(case), case, 1.0)
        figure = (out / "figure.png").stat().st_size
        taken = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) - figure
        assert 0.3 * taken < needed_bytes(case, synthesis.sampling.steps, trace) < taken


@pytest.mark.skipif(sys.platform != "linux", reason="needs a place where nobody can write")
def test_read_only_places_have_exit_code_3(
    tiny_case: TinyCase, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command that writes says that the place cannot be written, before the work, with exit code 3."""
    out = str(READ_ONLY / "d3m-out")
    scans = [text for name in ("t1", "t2", "flair") for text in (f"--{name}", str(getattr(tiny_case, name)))]
    data, model = str(tiny_case.folder), str(tiny_model)
    bids = tmp_path / "bids"
    (bids / "sub-01/anat").mkdir(parents=True)
    (bids / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    for name, suffix in (("t1", "T1w"), ("t2", "T2w"), ("flair", "FLAIR")):
        (bids / f"sub-01/anat/sub-01_{suffix}.nii.gz").symlink_to(getattr(tiny_case, name))
    monkeypatch.setenv("D3M_MODELS", out)
    engine = {
        "synthesize": [*scans, "--model", model, "--out", out],
        "batch": [data, "--model", model, "--out", out],
        "bids": [str(bids), out, "participant", "--model", model],
        "dicom": [str(tiny_case.t1), str(tiny_case.seg), "--out", out],
        "models": ["import", model],
    }
    training = {
        "prepare": [data, "--cache", out],
        "validate": [data, "--model", model, "--out", out],
        "sample": ["--out", out],
    }
    runner = CliRunner()
    for command, program in [(engine, app), (training, training_app)]:
        for name, arguments in command.items():  # type: ignore[attr-defined]
            done = runner.invoke(program, [name, *arguments])  # type: ignore[arg-type]
            assert done.exit_code == 3, f"{name}: {done.output} {done.exception}"


def test_both_orientations_of_t1_are_kept(tiny_case: TinyCase, tiny_model: Path, tmp_path: Path) -> None:
    """A T1 whose qform and sform differ by 9.9 mm: both stay as they were, so that ITK shows the two together."""
    image = nibabel.load(tiny_case.t1)
    moved = image.affine.copy()
    moved[0, 3] += 9.9
    image.set_qform(moved, 1)
    image.set_sform(image.affine if image.get_qform() is None else nibabel.load(tiny_case.t1).affine, 2)
    nibabel.save(image, tmp_path / "t1.nii.gz")
    case = read_case(tmp_path / "t1.nii.gz", tiny_case.t2, tiny_case.flair)
    made = Synthesis(load_model(tiny_model), SynthesisOptions(device="cpu", quality="preview"))
    assert "two-orientations" in {notice.code for notice in case.notices}
    write_result(tmp_path / "out", made.run(case), case, 1.0)
    t1, seen = nibabel.load(tmp_path / "t1.nii.gz"), sitk.ReadImage(str(tmp_path / "t1.nii.gz"))
    for name in ("cemri", "subtraction", "enhancement_mask", "enhancement_probability"):
        made = nibabel.load(tmp_path / f"out/{name}.nii.gz")
        for ours, theirs in zip(
            (*made.get_qform(coded=True), *made.get_sform(coded=True)),
            (*t1.get_qform(coded=True), *t1.get_sform(coded=True)),
            strict=True,
        ):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)
        shown = sitk.ReadImage(str(tmp_path / f"out/{name}.nii.gz"))
        np.testing.assert_allclose(shown.GetOrigin(), seen.GetOrigin(), atol=1e-4)
        np.testing.assert_allclose(shown.GetDirection(), seen.GetDirection(), atol=1e-4)
