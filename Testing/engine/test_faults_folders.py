"""Folders under kill -9, full disks and second runs: whole or not there, and never two writers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import TinyCase
from d3m.errors import D3MError
from d3m.results.provenance import RESULT
from d3m.system.folders import claim, put_in_order, whole_folder
from d3m.system.locks import held
from d3m.system.manifest import PARTIAL
from d3m.system.storage import replace_text
from engine.command_helpers import d3m_command, environment, events, start

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and limits")
CHECKOUT = Path(__file__).parents[2]


def names(folder: Path) -> list[str]:
    """What lies in a folder, hidden files included."""
    return sorted(path.name for path in folder.iterdir())


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a Python process that knows the engine."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())


@pytest.mark.parametrize(("step", "moment"), [(True, 0), (True, 1), *((False, k) for k in range(4))])
def test_killed_while_replacing(step: bool, moment: int, tmp_path: Path) -> None:
    """kill -9 around the exchange of two names, or the renames where the system has none: old or new, no rest."""
    out = tmp_path / "out"
    with whole_folder(out, RESULT) as folder:
        (folder / "x").write_text("old")
    code = (
        "import os, signal, sys; from pathlib import Path; import d3m.system.folders as s\n"
        "count, wanted = 0, int(sys.argv[2])\n"
        "def counted(real):\n"
        "    def step(*a, **k):\n"
        "        global count\n"
        "        if count == wanted: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        count += 1\n"
        "        return real(*a, **k)\n"
        "    return step\n"
        "if sys.argv[3] == 'True': s.swap = counted(s.swap)\n"
        "else:\n"
        "    s.swap = lambda *a: False\n"
        "    Path.rename = counted(Path.rename)\n"
        "s.shutil.rmtree = counted(s.shutil.rmtree)\n"
        "with s.whole_folder(Path(sys.argv[1]), s.FolderKind('result', 'a result')) as f: (f / 'x').write_text('new')\n"
    )
    assert child(code, out, moment, step).wait() == -signal.SIGKILL
    with claim(out):
        assert (out / "x").read_text() == ("old" if moment < (1 if step else 2) else "new")
        with whole_folder(out, RESULT) as folder:
            (folder / "x").write_text("newest")
    assert (out / "x").read_text() == "newest"
    assert names(tmp_path) == ["out"]


def test_left_overs_go_and_living_runs_stay(tmp_path: Path) -> None:
    """Putting in order removes what dead processes left, and nothing of a run that is writing."""
    (tmp_path / f"{PARTIAL}dead").mkdir()
    (tmp_path / f"{PARTIAL}dead-old").mkdir()
    (tmp_path / f"{PARTIAL}dead-old/result").mkdir()
    with whole_folder(tmp_path / "out", RESULT) as folder:
        put_in_order(tmp_path)
        (folder / "x").write_text("new")
    assert names(tmp_path) == ["out", "result"]


def test_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    """While a process lives its folder is refused; after kill -9 it is free at once."""
    code = (
        "import sys, time; from pathlib import Path; from d3m.system.folders import claim\n"
        "with claim(Path(sys.argv[1])): print('mine', flush=True); time.sleep(100)\n"
    )
    other = child(code, tmp_path / "out")
    assert other.stdout is not None
    assert other.stdout.readline() == "mine\n"
    with pytest.raises(D3MError, match="Another run"), claim(tmp_path / "out"):
        pass
    with claim(tmp_path / "elsewhere"):
        other.kill()
        other.communicate()
    with claim(tmp_path / "out"):
        assert names(tmp_path) != []
    assert names(tmp_path) == []


def test_many_ask_for_one_lock(tmp_path: Path) -> None:
    """Of four processes that take and give back one lock, never two hold it."""
    code = (
        "import os, sys, time; from pathlib import Path; from d3m.errors import D3MError\n"
        "from d3m.system.locks import held\n"
        "done = 0\n"
        "while done < 20:\n"
        "    try:\n"
        "        with held(Path(sys.argv[1]) / 'lock', 'taken'):\n"
        "            os.mkdir(sys.argv[1] + '/inside'); os.rmdir(sys.argv[1] + '/inside'); done += 1\n"
        "    except D3MError: time.sleep(0.002)\n"
    )
    processes = [child(code, tmp_path) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert names(tmp_path) == []
    with held(tmp_path / "lock", "taken"):
        pass


@pytest.mark.long
def test_second_run_into_one_folder_is_refused(tiny_case: TinyCase, tiny_model: Path, tmp_path: Path) -> None:
    """The second of two commands ends with 2 and leaves the first alone; killed, the first blocks nobody."""
    scans = ["--t1", tiny_case.t1, "--t2", tiny_case.t2, "--flair", tiny_case.flair, "--model", tiny_model]
    run = ["synthesize", *scans, "--out", tmp_path / "out", "--device", "cpu", "--progress", "json"]
    first = start(*run, "--steps", 1000)
    assert first.stdout is not None
    assert any('"stage": "sample"' in line for line in first.stdout)
    second = d3m_command(*run, "--quality", "preview")
    assert second.returncode == 2
    assert "Another run" in str(events(second.stdout)[-1]["message"])
    assert first.poll() is None
    first.kill()
    first.communicate()
    assert d3m_command(*run, "--quality", "preview").returncode == 0
    assert names(tmp_path) == ["out"]


@pytest.mark.long
def test_nowhere_to_write_but_the_output(tiny_case: TinyCase, tiny_model: Path, tmp_path: Path) -> None:
    """No home, no temporary folder, no cache, and a line break in the output's name: the run needs none of them."""
    (tmp_path / "file").write_text("")
    nowhere = str(tmp_path / "file/none")
    env = environment(HOME=nowhere, TMPDIR=nowhere, XDG_CACHE_HOME=nowhere, XDG_CONFIG_HOME=nowhere, MPLCONFIGDIR=None)
    scans = ["--t1", tiny_case.t1, "--t2", tiny_case.t2, "--flair", tiny_case.flair, "--model", tiny_model]
    done = d3m_command("synthesize", *scans, "--out", tmp_path / "line\nbreak", "--quality", "preview", env=env)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "line\nbreak/provenance.json").is_file()
    assert names(tmp_path) == ["file", "line\nbreak"]


def test_result_of_another_run_is_not_replaced_unasked(tmp_path: Path) -> None:
    """A folder that came into being during the work is not overwritten without --force."""

    def run() -> None:
        with whole_folder(tmp_path / "out", RESULT, replace=False):
            (tmp_path / "out").mkdir()
            (tmp_path / "out/x").write_text("another's")

    with pytest.raises(D3MError, match="meanwhile"):
        run()
    assert (tmp_path / "out/x").read_text() == "another's"
    assert names(tmp_path) == ["out", "out-1"]  # what was made is not lost


def test_text_is_replaced_whole(tmp_path: Path) -> None:
    """When a text does not fit on the disk the older one stays, and nothing else."""
    replace_text(tmp_path / "card.json", "old")
    code = (
        "import resource, signal, sys; from pathlib import Path; from d3m.system.storage import replace_text\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try: replace_text(Path(sys.argv[1]), 'new' * 1000)\n"
        "except OSError: sys.exit(7)\n"
    )
    assert child(code, tmp_path / "card.json").wait() == 7
    assert (tmp_path / "card.json").read_text() == "old"
    assert names(tmp_path) == ["card.json"]


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_random_kills_and_full_disks_lose_nothing() -> None:
    """Writers ended at random moments and on full disks: see the benchmark, here with few trials."""
    script = CHECKOUT / "Testing/benchmarks/faults.py"
    command = [sys.executable, str(script), "4", "export", "summary", "result"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("lost: 0") == 3


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "0<&- 1>&- 2>&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>&1"])
def test_streams_that_nobody_reads(closed: str, tmp_path: Path) -> None:
    """Closed or full standard streams: the work is done, and what a library prints never lands in a file of ours."""
    code = (
        "import os, sys; from pathlib import Path; from d3m.system.console import Reporter, run_program, session\n"
        "from d3m.progress import Progress; from d3m.errors import D3MError\n"
        "def app(prog_name):\n"
        "    with session(Reporter('json')), Path(sys.argv[1]).open('w') as f:\n"
        "        Reporter('json').progress(Progress('read', 0.0))\n"
        "        print('noise'); print('more', file=sys.stderr); f.write('ours')\n"
        "    sys.exit(0)\n"
        "run_program(app, 'd3m', ('info',))\n"
    )
    for words in ([], ["info"]):
        script = f'exec "{sys.executable}" -c "$0" "$@" {closed}'
        command = ["sh", "-c", script, code, str(tmp_path / "file"), *words]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr
        lost = closed.startswith(">")
        assert done.returncode == (3 if lost and words else 0)  # what `info` prints is all that it makes
        assert (tmp_path / "file").read_text() == "ours"
        assert ("could not be written" in done.stderr) == (closed == ">/dev/full")
