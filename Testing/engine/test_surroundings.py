"""What is odd around a command costs no result: variables, homes, disks, streams, numbers, names, devices."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import TinyCase
from d3m.errors import D3MError
from d3m.models.load import load_model, save_model
from d3m.options import SynthesisOptions
from d3m.results.provenance import read_provenance
from d3m.synthesis import Synthesis
from d3m.system import devices
from d3m.system.streams import scratch_beside
from d3m.volumes.preprocess.case import read_case, read_volume
from engine.command_helpers import environment, events
from engine.volume_helpers import put

pytestmark = pytest.mark.long

root_only = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can change users")


@pytest.fixture
def open_place(tiny_case: TinyCase, tiny_model: Path) -> Iterator[Path]:
    """A folder that every user can enter, with a case, a model, and `out` that everybody may write."""
    folder = Path(tempfile.mkdtemp(prefix="d3m-test-"))
    shutil.copytree(tiny_case.folder, folder / "case")
    shutil.copytree(tiny_model, folder / "model")
    (folder / "out").mkdir()
    subprocess.run(["chmod", "-R", "a+rX", str(folder)], check=True)
    (folder / "out").chmod(0o777)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def command(place: Path, name: str = "result") -> list[str]:
    """A short synthesis of the case in the open place."""
    scans = {name: place / f"case/case_{name}.nii.gz" for name in ("t1", "t2", "flair")}
    given = [str(part) for name, path in scans.items() for part in (f"--{name}", path)]
    more = ["--model", str(place / "model"), "--quality", "preview", "--device", "cpu"]
    return [sys.executable, "-m", "d3m", "synthesize", *given, "--out", str(place / "out" / name), *more]


@root_only
def test_settings_of_other_programs_and_a_user_without_a_home(open_place: Path) -> None:
    """Jupyter's plotting backend, an old matplotlib profile, warnings as errors, no HOME, a uid that nobody knows."""
    (open_place / "rc").write_bytes(b"axes.colour: \xff\xfe\nbackend: Qt4Agg\n")
    env = environment(
        MPLBACKEND="module://matplotlib_inline.backend_inline", MATPLOTLIBRC=str(open_place / "rc"),
        PYTHONWARNINGS="error", HOME=None, XDG_DATA_HOME=None, USER=None, LOGNAME=None, COLUMNS="odd",
    )  # fmt: skip
    done = subprocess.run(
        ["unshare", "-U", "--map-user=54321", "--map-group=54321", *command(open_place)],
        env=env, capture_output=True, text=True, timeout=300, cwd="/",
    )  # fmt: skip
    if "unshare" in done.stderr:
        pytest.skip("user namespaces are not allowed here")
    assert done.returncode == 0, done.stderr
    assert read_provenance(open_place / "out/result") is not None


def read_only_but(out: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    """A command where nothing but one folder can be written, temporary folders included."""
    mounts = f"mount --bind {out} {out} && mount -o remount,ro,bind /; "
    script = mounts + '(: > /tmp/d3m-probe) 2>/dev/null && echo writable || exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", script, "sh", *words],
        env=environment(TMPDIR=None, MPLCONFIGDIR=None), capture_output=True, text=True, timeout=300, cwd="/",
    )  # fmt: skip
    if "writable" in done.stdout or "unshare" in done.stderr:
        pytest.skip("mounts are not allowed here")
    return done


@root_only
@pytest.mark.skipif(sys.platform != "linux", reason="mounts of Linux")
def test_everything_is_read_only_but_the_output(open_place: Path) -> None:
    """A container with a read-only root: the result is made, and nothing else is left beside it."""
    out = open_place / "out"
    done = read_only_but(out, command(open_place))
    assert done.returncode == 0, done.stderr
    assert read_provenance(out / "result") is not None
    assert [path.name for path in out.iterdir()] == ["result"]


@root_only
@pytest.mark.skipif(sys.platform != "linux", reason="mounts of Linux")
def test_bids_app_on_a_read_only_system(open_place: Path) -> None:
    """The output folder itself is all that can be written, as in a container: both levels run, and leave no scratch."""
    anat, out = open_place / "bids" / "sub-01" / "anat", open_place / "out"
    anat.mkdir(parents=True)
    (open_place / "bids" / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    for name, suffix in (("t1", "T1w"), ("t2", "T2w"), ("flair", "FLAIR")):
        shutil.copy(open_place / f"case/case_{name}.nii.gz", anat / f"sub-01_{suffix}.nii.gz")
    words = [sys.executable, "-m", "d3m", "bids", str(open_place / "bids"), str(out)]
    small = ["--model", str(open_place / "model"), "--quality", "preview", "--device", "cpu"]
    for more in (["participant", *small, "--dry-run"], ["participant", *small], ["group"]):
        done = read_only_but(out, [*words, *more])
        assert done.returncode == 0, done.stderr
        assert not [path.name for path in out.iterdir() if "scratch" in path.name]
    assert (out / "sub-01" / "anat" / "sub-01_desc-synthT1c_T1w.nii.gz").is_file()
    assert (out / "review.html").is_file()


def test_scratch_beside_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no temporary folder can be written one stands beside the output while the command runs, and no longer."""

    def none() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", none)
    monkeypatch.delenv("MPLCONFIGDIR", raising=False)
    with scratch_beside(tmp_path / "out"):
        assert Path(tempfile.gettempdir()).parent == tmp_path
        assert os.environ["MPLCONFIGDIR"] == tempfile.gettempdir()
    assert list(tmp_path.iterdir()) == []
    assert "MPLCONFIGDIR" not in os.environ


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_log_on_a_full_disk(open_place: Path) -> None:
    """The log's disk is full: the result is made, and the cause is named where somebody may see it."""
    for streams, arguments in ((">/dev/full", ["--progress", "json"]), (">/dev/full 2>/dev/full", [])):
        name = "json" if arguments else "plain"
        script = f'exec "$@" {streams}'
        done = subprocess.run(
            ["bash", "-c", script, "sh", *command(open_place, name), *arguments],
            env=environment(), capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert read_provenance(open_place / "out" / name) is not None
        if arguments:
            assert "printed could not be written" in done.stderr
            assert "Traceback" not in done.stderr


@pytest.mark.parametrize("seed", [2**64, 10**30, -(10**30)])
def test_seed_that_no_generator_takes(seed: int, open_place: Path) -> None:
    """A seed beyond what the generator takes is a request's fault, said before anything is read."""
    with pytest.raises(D3MError, match="seed") as caught:
        Synthesis.load(SynthesisOptions(model=str(open_place / "model"), seed=seed))
    assert caught.value.exit_code == 2


def test_device_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUDA library that cannot be loaded: `auto` goes on with the CPU, `cuda` is the machine's fault, a typo ours."""

    def broken(*_: object) -> bool:
        raise OSError("libcudnn.so.9: cannot open shared object file")

    monkeypatch.setattr(torch.cuda, "is_available", broken)
    device, notices = devices.choose_device("auto")
    assert device.type == "cpu"
    assert "libcudnn" in notices[0].message
    with pytest.raises(D3MError, match="libcudnn") as caught:
        devices.choose_device("cuda")
    assert caught.value.exit_code == 3
    assert devices.visible_gpus() == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", broken)
    assert devices.choose_device("auto")[0].type == "cpu"
    with pytest.raises(D3MError, match="no device 'gpu'") as caught:
        devices.choose_device("gpu")
    assert caught.value.exit_code == 2


def test_huge_weights_are_the_models_fault(tiny_model: Path, tiny_case: TinyCase, tmp_path: Path) -> None:
    """Finite numbers that overflow in the network: one sentence about the model, no picture of nothing."""
    model = load_model(tiny_model)
    weights = {name: value * 3e4 if "conv" in name else value for name, value in model.network.state_dict().items()}
    weights = {name: value.clamp(-6e4, 6e4) for name, value in weights.items()}
    weights = {name: torch.full_like(value, 6e4) if value.ndim > 1 else value for name, value in weights.items()}
    save_model(tmp_path / "huge", replace(model.card, name="huge"), weights)
    case = read_case(tiny_case.t1, tiny_case.t2, tiny_case.flair)
    synthesis = Synthesis.load(SynthesisOptions(model=str(tmp_path / "huge"), quality="standard", device="cpu"))
    with pytest.raises(D3MError, match="'huge' gives no finite numbers") as caught:
        synthesis.run(case)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("scale", [1e60, 1e-60])
def test_numbers_that_float32_cannot_hold(scale: float, tiny_case: TinyCase, tmp_path: Path) -> None:
    """float64 far from what an image has is named as such, not "only zeros"; a few voxels of it are background."""
    import nibabel

    image = nibabel.load(tiny_case.t1)
    data = np.asarray(image.dataobj, np.float64)
    put(tmp_path / "t1.nii", data * scale, image.affine, "f8")
    with pytest.raises(D3MError, match=r"T1 .*(too large|too small)"):
        read_volume(tmp_path / "t1.nii", "t1")
    data[0, 0, :5] = np.finfo(np.float64).max  # how some programs mark what is missing
    put(tmp_path / "few.nii", data, image.affine, "f8")
    assert read_volume(tmp_path / "few.nii", "t1").data.max() < 1e6


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
def test_latin_1_file_names(tiny_case: TinyCase, tiny_model: Path, tmp_path: Path) -> None:
    """Folders of an old server: both cases are made, and the table says their names in readable letters."""
    for patient in (b"M\xfcller", b"good"):
        folder = os.fsencode(tmp_path) + b"/cases/" + patient
        Path(os.fsdecode(folder)).mkdir(parents=True)
        for contrast in ("t1", "t2", "flair"):
            shutil.copy(getattr(tiny_case, contrast), folder + b"/" + patient + f"_{contrast}.nii.gz".encode())
    command = [sys.executable, "-m", "d3m", "batch", str(tmp_path / "cases"), "--out", str(tmp_path / "out")]
    command += ["--model", str(tiny_model), "--quality", "preview", "--device", "cpu", "--progress", "json"]
    for _ in range(2):
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert events(done.stdout)[-1]["stage"] == "done"
    table = (tmp_path / "out/summary.csv").read_text(encoding="utf-8")
    assert "Müller" in table
    assert table.count("skipped") == 2


ODD = {
    "a list of settings": {"settings": [1, 2]},
    "notices of another kind": {"notices": ["text", 5]},
    "a volume that is text": {"predicted_enhancing_volume_ml": "much"},
    "seconds without numbers": {"seconds": {"all": None}},
    "a model that is a name": {"model": "default"},
    "a number that JSON has not": {"predicted_enhancing_volume_ml": float("inf")},
    "not a number": {"seconds": {"all": float("nan")}},
    "files of another kind": {"files": ["cemri.nii.gz"]},
}


@pytest.mark.parametrize("kind", ODD)
def test_provenance_of_another_program(kind: str, tmp_path: Path) -> None:
    """One odd file under our name: the cohort's page and table are made, and are valid JSON."""
    from d3m.batch.bids import BidsCase
    from d3m.batch.review import collect, page, write_review

    folder = tmp_path / "sub-01/anat"
    folder.mkdir(parents=True)
    (folder / "cemri.nii.gz").write_bytes(b"x")
    files = {"cemri.nii.gz": {"bytes": 1, "sha256": "0"}}
    (folder / "provenance.json").write_text(json.dumps({"synthetic": True, "files": files} | ODD[kind]))
    entries = collect([BidsCase("sub-01", None, None, None, subject="01")], tmp_path)
    assert [entry.status for entry in entries] == ["missing"]
    write_review(entries, tmp_path)
    assert "Infinity" not in page(entries)


@pytest.mark.parametrize("content", ["[", '{"id": 5}', '{"seconds": "x"}', "[1]", "null"])
def test_damaged_row(content: str, tmp_path: Path) -> None:
    """A row of a run that another program wrote over is no row."""
    from d3m.batch.derivatives import read_row

    (tmp_path / "row.json").write_text(content)
    assert read_row(tmp_path / "row.json") is None
    whole = {"id": "a", "status": "done", "reason": "", "hint": "", "seconds": "1", "enhancing_ml": None, "notices": ""}
    (tmp_path / "row.json").write_text(json.dumps(whole))
    assert read_row(tmp_path / "row.json") is None
