"""The command as a process among others: foreign environments, broken torch, odd paths, no network, sudden ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest

from conftest import TinyCase
from engine.command_helpers import ENGINE, d3m_command, environment, events, start

pytestmark = pytest.mark.long

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and limits")
root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")


def options(case: TinyCase, model: Path, out: Path | str, *more: object) -> list[object]:
    """A short run with JSON progress."""
    return ["synthesize", "--t1", case.t1, "--t2", case.t2, "--flair", case.flair, "--out", out, "--model", model,
            "--quality", "preview", "--device", "cpu", "--progress", "json", *more]  # fmt: skip


def assert_machine_error(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 3, one sentence with these words, no traceback."""
    assert done.returncode == 3, done.stdout + done.stderr
    last = events(done.stdout)[-1]
    assert (last["stage"], last["kind"]) == ("error", "machine")
    text = f"{last['message']} {last['hint']}"
    for word in words:
        assert word in text
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"torch/__init__.py": '__version__ = "1.8.1"\n'}, ("1.8.1", "too old", "2.2")),
        ({"torch.py": '__version__ = "1.13.0+cu117"\n'}, ("1.13.0+cu117", "too old")),
        ({"torch/__init__.py": "import torch._C\n"}, ("cannot be used", "torch._C")),
        ({"torch/__init__.py": "raise OSError('libtorch.so: not found')\n"}, ("cannot be used", "libtorch.so")),
        ({"torch/__init__.py": "_C\n"}, ("cannot be used", "_C")),
        ({"torch/__init__.py": ""}, ("cannot be used", "__version__")),
        (
            {"torch/__init__.py": "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n"},
            ("not installed",),
        ),
    ],
    ids=["old", "old module", "no library", "no shared object", "half imported", "empty", "missing"],
)
def test_torch_that_cannot_be_used(
    files: dict[str, str], words: tuple[str, ...], tiny_case: TinyCase, tiny_model: Path, tmp_path: Path
) -> None:
    """Missing, too old or half installed: one sentence says which and what to install."""
    for name, text in files.items():
        (tmp_path / "fake" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fake" / name).write_text(text)
    env = environment(PYTHONPATH=os.pathsep.join([str(tmp_path / "fake"), ENGINE]))
    done = d3m_command(*options(tiny_case, tiny_model, tmp_path / "out"), env=env)
    assert_machine_error(done, *words, "pip install torch")
    assert not (tmp_path / "out").exists()


def test_foreign_packages_on_pythonpath_are_named(tiny_case: TinyCase, tiny_model: Path, tmp_path: Path) -> None:
    """Another program's numpy before ours: the variable is named instead of an import traceback."""
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake/numpy.py").write_text("raise ImportError('built for another Python')\n")
    env = environment(PYTHONPATH=os.pathsep.join([str(tmp_path / "fake"), ENGINE]))
    done = d3m_command(*options(tiny_case, tiny_model, tmp_path / "out"), env=env)
    assert_machine_error(done, "numpy", "PYTHONPATH", str(tmp_path / "fake"))


def test_pythonhome_of_another_program(tmp_path: Path) -> None:
    """Python itself names the variable; a child with a cleaned environment (-E) works."""
    env = environment(PYTHONHOME=str(tmp_path / "nonexistent"))
    done = d3m_command("--version", env=env)
    assert done.returncode != 0
    assert "PYTHONHOME" in done.stderr
    code = f"import sys; sys.path.insert(0, {ENGINE!r}); from d3m.commands.app import main; "
    code += "sys.argv[1:] = ['--version']; main()"
    done = subprocess.run(
        [sys.executable, "-E", "-s", "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def plain(tiny_case: TinyCase, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The CEMRI of an ordinary run."""
    out = tmp_path_factory.mktemp("plain") / "out"
    done = d3m_command(*options(tiny_case, tiny_model, out))
    assert done.returncode == 0, done.stderr
    return cemri(out)


def cemri(out: Path) -> np.ndarray:
    """Voxels of a run's image."""
    return np.asarray(nibabel.load(out / "cemri.nii.gz").dataobj)


@pytest.mark.parametrize("place", ["Pätient 山田 (1)/it's #2 & co; $(touch x)", "long/" + "/".join(["x" * 38] * 5)])
def test_odd_paths(place: str, tiny_case: TinyCase, tiny_model: Path, tmp_path: Path, plain: np.ndarray) -> None:
    """Accents, Chinese, quotes, a leading dash, long and relative paths, a link, in the C locale: same picture."""
    folder = tmp_path / place
    folder.mkdir(parents=True)
    shutil.copy(tiny_case.t1, folder / "-t1.nii.gz")
    shutil.copy(tiny_case.t2, folder / "t2 [x].nii.gz")
    (folder / "flair.nii.gz").symlink_to(tiny_case.flair)
    shutil.copytree(tiny_model, folder / "modèle")
    env = environment(LANG="C", LC_ALL="C", PYTHONUTF8=None, PYTHONIOENCODING=None)
    done = d3m_command(
        "synthesize", "--t1=-t1.nii.gz", "--t2", "t2 [x].nii.gz", "--flair", folder / "flair.nii.gz",
        "--out", "Ergebnis 結果", "--model", folder / "modèle", "--quality", "preview", "--device", "cpu",
        env=env, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(cemri(folder / "Ergebnis 結果"), plain)
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        ["-t1.nii.gz", "t2 [x].nii.gz", "flair.nii.gz", "modèle", "Ergebnis 結果"]
    )
    text = (folder / "Ergebnis 結果/provenance.json").read_text(encoding="utf-8")
    assert "山田" not in text  # content is named by hashes alone
    assert "xxxx" not in text


def test_no_network_is_needed(tiny_case: TinyCase, tiny_model: Path, tmp_path: Path, plain: np.ndarray) -> None:
    """With every connection refused the run is the same, and an unknown model is refused at once, not looked up."""
    (tmp_path / "sitecustomize.py").write_text(
        "import socket\ndef refuse(*a, **k):\n    raise OSError('no network')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
    )
    proxy = "http://127.0.0.1:9"
    env = environment(PYTHONPATH=os.pathsep.join([str(tmp_path), ENGINE]), HTTPS_PROXY=proxy, HTTP_PROXY=proxy)
    done = d3m_command(*options(tiny_case, tiny_model, tmp_path / "out"), env=env)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(cemri(tmp_path / "out"), plain)
    started = time.monotonic()
    done = d3m_command(*options(tiny_case, Path("nosuch"), tmp_path / "other"), env=env)
    assert done.returncode == 2
    assert time.monotonic() - started < 30


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("stage", ["model", "sample", "write"])
def test_signals_end_cleanly(
    number: signal.Signals, stage: str, tiny_case: TinyCase, tiny_model: Path, tmp_path: Path
) -> None:
    """Whenever it comes, the run ends with 130 and an "interrupted" line, and nothing is left of it."""
    process = start(*options(tiny_case, tiny_model, tmp_path / "out", "--steps", 100 if stage == "sample" else 1))
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["stage"] == stage:
            process.send_signal(number)
            process.send_signal(number)  # as impatient people do
            break
    rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    last = events(rest)[-1]
    assert (last["stage"], last["kind"]) == ("error", "interrupted")
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


@posix
def test_interrupted_replacement_keeps_the_old_result(tiny_case: TinyCase, tiny_model: Path, tmp_path: Path) -> None:
    """With --force the older result stands untouched until the new one is whole."""
    out = tmp_path / "out"
    assert d3m_command(*options(tiny_case, tiny_model, out)).returncode == 0
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    process = start(*options(tiny_case, tiny_model, out, "--force", "--seed", 5))
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["stage"] == "write":
            process.terminate()
            break
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@posix
@pytest.mark.parametrize("waiting", [True, False])
def test_run_ends_with_its_parent(waiting: bool, tiny_case: TinyCase, tiny_model: Path, tmp_path: Path) -> None:
    """When the process given by --parent-pid is killed the run stops soon and leaves nothing behind.

    The parent is either the one that started the run, or another process.
    """
    arguments = list(map(str, options(tiny_case, tiny_model, tmp_path / "out", "--steps", 1000)))
    code = (
        "import os, subprocess, sys, time\n"
        "if sys.argv[1] == 'start':\n"
        "    command = [sys.executable, '-m', 'd3m', *sys.argv[2:], '--parent-pid', str(os.getpid())]\n"
        "    print(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid, flush=True)\n"
        "time.sleep(300)\n"
    )
    role = ["start", *arguments] if waiting else ["sleep"]
    parent = subprocess.Popen([sys.executable, "-c", code, *role], stdout=subprocess.PIPE, text=True, env=environment())
    assert parent.stdout is not None
    if waiting:
        child = int(parent.stdout.readline())
    else:
        process = start(*arguments, "--parent-pid", parent.pid)
        child = process.pid
        assert process.stdout is not None
        assert '"stage": "sample"' in "".join(line for line, _ in zip(process.stdout, range(5), strict=False))
    time.sleep(4)
    assert running(child)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    if waiting:
        while running(child) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not running(child)
    else:
        process.communicate(timeout=30)
        assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []


def running(pid: int) -> bool:
    """Whether a process is alive and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@posix
@pytest.mark.parametrize("gigabytes", [0.5, 0.95, 1.6, 2.5])
def test_little_memory(gigabytes: float, tiny_case: TinyCase, tiny_model: Path, tmp_path: Path) -> None:
    """Under an address limit the run works or ends with 3 and the word memory, and leaves nothing half done."""
    limit = int(gigabytes * 2**30)
    code = (
        f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))\n"
        "runpy.run_module('d3m', run_name='__main__')"
    )
    arguments = list(map(str, options(tiny_case, tiny_model, tmp_path / "out")))
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment(OPENBLAS_NUM_THREADS="1"), capture_output=True,
        text=True, check=False, timeout=200,
    )  # fmt: skip
    if done.returncode == 0:
        assert (tmp_path / "out/provenance.json").is_file()
    else:
        assert_machine_error(done, "memory")
        assert ("Raise that limit" in done.stderr) == (gigabytes < 1.2)
        assert list(tmp_path.iterdir()) == []


@root
@posix
def test_full_disk(tiny_case: TinyCase, tiny_model: Path, tmp_path: Path) -> None:
    """On a disk that is full in the middle of writing: exit code 3, "full", nothing left, an older result untouched."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = f"mount -t tmpfs -o size=300k tmpfs {disk}"
    if subprocess.run(["unshare", "-m", "sh", "-c", command], capture_output=True, check=False).returncode:
        pytest.skip("no right to mount")
    run = " ".join(f"'{a}'" for a in (sys.executable, "-m", "d3m", *options(tiny_case, tiny_model, disk / "out")))
    script = (
        f"{command} && mkdir {disk}/old && echo kept > {disk}/old/x && {run}; code=$?;"
        f" ls -A {disk}; cat {disk}/old/x; exit $code"
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stdout + done.stderr
    *lines, left, kept = done.stdout.splitlines()
    assert (left, kept) == ("old", "kept")
    assert "disk is full" in json.loads(lines[-1])["message"]


@posix
def test_reader_of_the_progress_goes_away(tiny_case: TinyCase, tiny_model: Path, tmp_path: Path) -> None:
    """When nobody reads the JSON lines any more the run ends without a traceback and without a result in pieces."""
    process = start(*options(tiny_case, tiny_model, tmp_path / "out", "--steps", 30))
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    process.wait(60)
    process.stderr.close()
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []
