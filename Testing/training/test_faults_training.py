"""Preparation, training and export under kill -9, full disks and second runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from conftest import write_case
from d3m.errors import D3MError
from d3m.system import own_files
from d3m.system.locks import held
from d3m.system.processes import alive
from d3m_training.cli import app
from d3m_training.data.cache import check_entries
from d3m_training.data.preparation import GRID_NAME, LOCK_NAME, PrepareOptions, check_grid, prepare_cache
from d3m_training.train.checkpoint import Ema, read_checked, restore_checkpoint, save_checkpoint, write_atomically
from d3m_training.train.runs import TrainOptions, recipe_task, run_training
from d3m_training.train.trainer import LOCK_NAME as TRAIN_LOCK

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and limits"),
]
CHECKOUT = Path(__file__).parents[2]


def silent(_: str) -> None:
    """Nobody listens."""


def prepare(place: Path, report: object = silent, recipe: str = "default") -> int:
    """Prepare `place`/data into `place`/cache."""
    return prepare_cache(
        [place / "data"],
        place / "cache",
        PrepareOptions(recipe, sizes=(1, 1, 0), workers=1),
        report,  # type: ignore[arg-type]
    )


def train(place: Path) -> Path:
    """One batch from `place`/cache into `place`/run."""
    options = TrainOptions(place / "cache", place / "run", iterations=1, batch=1, threads=1)
    return run_training(recipe_task("default"), options, silent)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Two patients."""
    for seed, name in enumerate(("P1", "P2")):
        write_case(tmp_path / "data" / name, name, seed)
    return tmp_path


def test_a_cache_under_way_is_no_cache(place: Path) -> None:
    """Stopped between two patients, nothing can be trained from it; the next preparation does only what is missing."""

    def stop(line: str) -> None:
        if line.startswith("1/2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(place, stop)
    with pytest.raises(D3MError, match="not prepared"):
        check_grid(place / "cache", "default")
    lines: list[str] = []
    assert prepare(place, lines.append) == 2
    assert "2 patients, 1 of them to be prepared." in lines
    check_grid(place / "cache", "default")
    hidden = {path.name for path in (place / "cache").iterdir() if path.name.startswith(".")}
    assert hidden <= {own_files.LIST}


def test_one_preparation_and_one_training_at_a_time(place: Path) -> None:
    """A second one in the same folder is refused while the first works."""
    prepare(place)
    code = "import sys; from pathlib import Path; from d3m.system.locks import held\n"
    code += "with held(Path(sys.argv[1]), ''): input()"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    (place / "run").mkdir()
    for lock, start, words in (
        (place / "cache" / LOCK_NAME, lambda: prepare(place), "Another preparation"),
        (
            place / "run" / TRAIN_LOCK,
            lambda: train(place),
            "Another training",
        ),
    ):
        with held(lock.with_name("other"), ""):
            other = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdin=subprocess.PIPE, env=env)
            while not lock.exists():
                assert other.poll() is None
        try:
            with pytest.raises(D3MError, match=words):
                start()
        finally:
            other.kill()
            other.communicate()


PARENT = {
    "preparation": "list(in_processes(time.sleep, [300] * 5, 2))",
    "comparison": "_run([SleepingJob()] * 3, 2, print)",
}
"""What starts two processes that would work for minutes."""
SLEEPING = """
import multiprocessing, threading, time
from d3m_benchmark.comparison import run
from d3m_benchmark.comparison.run import _run
from d3m_training.data.datasets import in_processes

class SleepingJob:
    pass

def sleep(job, report):
    time.sleep(300)

if __name__ == "__main__":
    def tell():
        while len(found := multiprocessing.active_children()) < COUNT:
            time.sleep(0.05)
        print(*(one.pid for one in found), flush=True)

    run._run_one = sleep
    threading.Thread(target=tell, daemon=True).start()
    WORK
"""


@pytest.mark.parametrize("work", PARENT)
def test_processes_end_with_the_one_that_started_them(work: str, tmp_path: Path) -> None:
    """A run that is killed leaves no process behind that waits for ever, or works on for hours."""
    script = tmp_path / "parent.py"
    count = 3 if work == "comparison" else 2  # a manager of queues among them
    script.write_text(SLEEPING.replace("COUNT", str(count)).replace("WORK", PARENT[work]))
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=env) as parent:
        assert parent.stdout is not None
        workers = [int(word) for word in parent.stdout.readline().split()]
        parent.kill()
    try:
        assert len(workers) == count
        limit = time.monotonic() + 150  # they import torch first
        while (left := [pid for pid in workers if works(pid)]) and time.monotonic() < limit:
            time.sleep(0.1)
        assert left == []
    finally:
        for pid in filter(works, workers):
            os.kill(pid, signal.SIGKILL)


def works(pid: int) -> bool:
    """Whether a process is there, and not only waits to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return alive(pid) and sys.platform != "linux"


def network() -> tuple[torch.nn.Module, Ema, torch.optim.Optimizer]:
    """Something that can be saved."""
    made = torch.nn.Linear(40, 40)
    optimizer = torch.optim.AdamW(made.parameters())
    made(torch.ones(1, 40)).sum().backward()
    optimizer.step()
    return made, Ema(made, 0.9), optimizer


def test_checkpoints_that_are_none(tmp_path: Path) -> None:
    """A file without our metadata is passed over; another network's checkpoint is refused with a sentence."""
    made, ema, optimizer = network()
    save_checkpoint(tmp_path, 1, 0.0, made, ema, optimizer)
    write_atomically(tmp_path / "checkpoint-00000002.safetensors", {"x": torch.zeros(3)}, {"other": "1"})
    found = restore_checkpoint(tmp_path, made, ema, optimizer)
    assert found is not None
    assert (found.iteration, found.skipped) == (1, ("checkpoint-00000002.safetensors",))
    with pytest.raises(D3MError, match="another network"):
        restore_checkpoint(tmp_path, torch.nn.Linear(3, 3), ema, optimizer)


def test_full_disk_while_saving(tmp_path: Path) -> None:
    """Exit code 3's kind of error; the older checkpoint serves, and the room is given back."""
    code = (
        "import resource, signal, sys, torch; from pathlib import Path; from d3m.errors import D3MError\n"
        "from d3m_training.train.checkpoint import write_atomically as write\n"
        "path = Path(sys.argv[1]) / 'last.safetensors'; write(path, {'x': torch.zeros(9)}, {})\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (999, 999))\n"
        "try: write(path, {'x': torch.zeros(9999)}, {})\n"
        "except D3MError as error: sys.exit(error.exit_code)\n"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=env, check=False).returncode == 3
    assert [path.name for path in tmp_path.iterdir()] == ["last.safetensors"]
    assert (tmp_path / "last.safetensors").stat().st_size < 999


def test_random_kills_and_full_disks_lose_nothing() -> None:
    """Checkpoints and cache under kills and full disks: see the benchmark, here with few trials."""
    script = CHECKOUT / "Testing/benchmarks/faults.py"
    command = [sys.executable, str(script), "10", "cache", "checkpoint"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("lost: 0") == 2


def test_half_a_grid_file_is_no_cache(place: Path) -> None:
    """A cache whose description was cut is told as not prepared, and preparing again repairs it."""
    prepare(place)
    text = (place / "cache" / GRID_NAME).read_text()
    (place / "cache" / GRID_NAME).write_text(text[: len(text) // 2])
    with pytest.raises(D3MError, match="not prepared"):
        check_grid(place / "cache", "default")
    prepare(place)
    assert json.loads((place / "cache" / GRID_NAME).read_text()) == json.loads(text)


def flip(path: Path, share: float) -> None:
    """Change one bit of a file, `share` of its length from its start, as a bad disk or memory does."""
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 4
    path.write_bytes(content)


def test_nothing_is_learned_from_flipped_bytes(place: Path) -> None:
    """One bit of the cache is another than was prepared: the training does not begin; preparing again repairs it."""
    prepare(place)
    flip(place / "cache/P1/scans.npy", 0.7)
    with pytest.raises(D3MError, match="entries of the cache are damaged, P1 first") as caught:
        train(place)
    assert "prepare" in caught.value.hint
    assert not (place / "run").exists()
    lines: list[str] = []
    prepare(place, lines.append)
    assert "2 patients, 1 of them to be prepared." in lines
    check_entries(place / "cache", ("P1", "P2"))


@pytest.mark.parametrize("share", [0.3, 0.5, 0.99])
def test_flipped_bytes_in_a_checkpoint(share: float, tmp_path: Path) -> None:
    """A checkpoint with one changed bit is damaged, wherever the bit is, and the older one serves."""
    made, ema, optimizer = network()
    older = {name: value.clone() for name, value in made.state_dict().items()}
    save_checkpoint(tmp_path, 3, 0.5, made, ema, optimizer)
    with torch.no_grad():
        made.weight += 1
    flip(save_checkpoint(tmp_path, 6, 0.7, made, ema, optimizer), share)
    restored = restore_checkpoint(tmp_path, made, ema, optimizer)
    assert restored is not None
    assert (restored.iteration, restored.best) == (3, 0.5)
    assert restored.skipped == ("checkpoint-00000006.safetensors",)
    assert torch.equal(made.state_dict()["weight"], older["weight"])


def test_checkpoints_of_older_versions_serve(tmp_path: Path) -> None:
    """Files that were written before there was a hash in them are read as they were."""
    made, ema, optimizer = network()
    path = save_checkpoint(tmp_path, 3, 0.5, made, ema, optimizer)
    tensors, metadata = read_checked(path)
    save_file(tensors, path, metadata)
    assert restore_checkpoint(tmp_path, made, ema, optimizer) is not None


RUN = {"recipe": "default", "patients": 2, "train": {"iterations": 1, "seed": 0}, "batch": {"size": 1}}


@pytest.mark.parametrize(
    ("run", "texts", "words"),
    [
        ({"name": "of another program"}, "{}", "not the folder of a training"),
        (RUN | {"recipe": "nosuch"}, "{}", "not the folder of a training"),
        (RUN | {"train": [1]}, "{}", "not the folder of a training"),
        ([1, 2], "{}", "not the folder of a training"),
        (RUN, None, "does not exist"),
        (RUN, "{", "not valid JSON"),
        (RUN, "[]", "no JSON object"),
        (RUN, "\xff", "not UTF-8"),
        (RUN, '{"title": NaN}', "not valid JSON"),
        (RUN, '{"colour": "red"}', "no such field"),
    ],
)
def test_export_of_what_is_none(run: object, texts: str | None, words: str, tmp_path: Path) -> None:
    """A foreign run.json, missing or bad texts: exit code 2 and one sentence, no model."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text(json.dumps(run))
    save_file({"a": torch.zeros(1)}, tmp_path / "run/best.safetensors")
    if texts is not None:
        (tmp_path / "texts.json").write_bytes(texts.encode("latin-1"))
    arguments = ["export", "--run", "run", "--out", "model", "--texts", "texts.json"]
    done = CliRunner().invoke(app, [str(tmp_path / part) if part in ("run", "model", "texts.json") else part
                                    for part in arguments])  # fmt: skip
    assert done.exit_code == 2, done.output
    assert words in " ".join(done.output.split())
    assert "Traceback" not in done.output
    assert not (tmp_path / "model").exists()
