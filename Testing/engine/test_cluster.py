"""Cases on Dask workers: nothing is lost when one dies, and nothing is done twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("distributed")
from distributed import Client, LocalCluster

from d3m.batch import workers
from d3m.batch.bids import find_bids_cases
from d3m.batch.cases import CaseFiles
from d3m.batch.derivatives import BidsWork, start_derivatives
from d3m.batch.workers import attached_workers, local_workers, run_on_workers
from d3m.errors import D3MError, Notice
from d3m.options import SynthesisOptions
from d3m.results.provenance import read_provenance
from engine.bids_helpers import MarkingWork, bids_dataset

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a POSIX signal")


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Two workers of this machine."""
    with local_workers(2, "cpu") as found:
        yield found


def cases(*names: str) -> list[CaseFiles]:
    """Cases without files."""
    return [CaseFiles(name, None, None, None) for name in names]


@pytest.mark.long
def test_dead_worker_costs_its_case_one_retry(client: Client, tmp_path: Path) -> None:
    """A case whose worker dies is tried once more; if it dies again it is a row, and no other case is touched."""
    work = MarkingWork(tmp_path, deadly=("c03",), once=("c05",), odd=("c07",))
    names = [f"c{k:02d}" for k in range(12)]
    rows = {outcome.row.id: outcome.row for outcome in run_on_workers(client, cases(*names), work)}
    assert sorted(rows) == names
    assert {name for name, row in rows.items() if row.status == "failed"} == {"c03", "c07"}
    assert "worker ended" in rows["c03"].reason
    assert "defect (ValueError)" in rows["c07"].reason
    runs = {name: len((tmp_path / name).read_text().splitlines()) for name in names}
    assert runs == dict.fromkeys(names, 1) | {"c03": 2, "c05": 2, "c07": 2}


@pytest.mark.long
def test_model_is_loaded_once_by_each_worker(client: Client, tmp_path: Path) -> None:
    """Many cases, and as many loads as processes worked."""
    outcomes = list(run_on_workers(client, cases(*(f"c{k}" for k in range(20))), MarkingWork(tmp_path)))
    assert len(outcomes) == 20
    loads = [path.name.split("-")[1] for path in tmp_path.glob("load-*")]
    worked = {pid for k in range(20) for pid in (tmp_path / f"c{k}").read_text().split()}
    assert sorted(loads) == sorted(worked)


def test_attached_scheduler(client: Client, tmp_path: Path) -> None:
    """`--scheduler ADDRESS` uses workers that run already and leaves them running; a wrong address is one sentence."""
    with LocalCluster(
        n_workers=1, processes=False, host="127.0.0.1", protocol="tcp://", dashboard_address=None
    ) as there:
        with attached_workers(there.scheduler_address) as other:
            assert len(list(run_on_workers(other, cases("a", "b"), MarkingWork(tmp_path), at_once=2))) == 2
        assert len(there.workers) == 1  # they were not ended


def test_nobody_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever mistypes the address is told so, soon."""
    monkeypatch.setattr("d3m.batch.workers.CONNECT_S", 1)
    with pytest.raises(D3MError, match="No Dask scheduler answers"), attached_workers("tcp://127.0.0.1:1"):
        pass


@pytest.mark.long
def test_two_drivers_and_a_killed_worker(client: Client, tmp_path: Path, tiny_model: Path) -> None:
    """Two runs into one folder share the cases while a worker is killed: every result is whole, none was made twice."""
    root = bids_dataset(tmp_path / "raw", *(f"{k:02d}" for k in range(6)))
    out = tmp_path / "out"
    start_derivatives(root, out)
    work = BidsWork(root, out, SynthesisOptions(model=str(tiny_model), device="cpu", quality="preview"))
    found = find_bids_cases(root)
    rows = []

    def drive() -> None:
        rows.extend(outcome.row for outcome in run_on_workers(client, found, work))

    drivers = [threading.Thread(target=drive) for _ in range(2)]
    for driver in drivers:
        driver.start()
    limit = time.monotonic() + 60
    while not list(out.glob("sub-*/anat")) and time.monotonic() < limit:
        time.sleep(0.02)
    os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
    for driver in drivers:
        driver.join(timeout=100)
    assert not [row for row in rows if row.status == "failed"]
    done = [row.id for row in rows if row.status == "done"]
    assert len(done) == len(set(done))  # the killed one may have ended its case, which is then found whole
    for case in found:
        assert read_provenance(case.folder(out)) is not None, case.id
    assert not list(out.rglob(".d3m-partial-*"))


def test_full_disk_ends_the_run(client: Client, tmp_path: Path, tiny_model: Path) -> None:
    """What no case could survive ends all, as a sentence and not as a row a case."""
    root = bids_dataset(tmp_path / "raw", "01")
    (tmp_path / "out").write_text("a file where the folder should be")
    work = BidsWork(root, tmp_path / "out", SynthesisOptions(model=str(tiny_model), device="cpu", quality="preview"))
    with pytest.raises(D3MError, match="cannot be written"):
        list(run_on_workers(client, find_bids_cases(root), work))


def test_damaged_model_is_one_sentence(client: Client, tmp_path: Path) -> None:
    """A model that a worker cannot load ends the run with its reason."""
    work = BidsWork(tmp_path, tmp_path, replace(SynthesisOptions(model=str(tmp_path / "nosuch")), device="cpu"))
    with pytest.raises(D3MError):
        list(run_on_workers(client, cases("a"), work))


INTRUDER = """
import asyncio, os, socket, sys
from distributed.comm import connect
from distributed.security import Security

own = Security.temporary().get_connection_args("client")

async def enter(port, protocol, arguments):
    try:
        comm = await asyncio.wait_for(connect(f"{protocol}://127.0.0.1:{port}", timeout=5, **arguments), 10)
    except (Exception, asyncio.TimeoutError):
        return
    print("IN", protocol, port)
    comm.abort()

async def main(ports):
    await asyncio.gather(*(enter(p, name, a) for p in ports for name, a in (("tcp", {}), ("tls", own))))

def look(port, page):
    with socket.create_connection(("127.0.0.1", int(port)), timeout=3) as there:
        there.sendall(f"GET {page} HTTP/1.0\\r\\n\\r\\n".encode())
        if b" 200 " in there.recv(100):
            print("PAGE", port, page)

asyncio.run(main(["1"]))  # imports what it needs
os.setgroups([]); os.setgid(65534); os.setuid(65534)
assert os.getuid() == os.geteuid() == 65534
asyncio.run(main(sys.argv[1:]))
for port in sys.argv[2:]:
    for page in ("/json/counts.json", "/metrics"):
        try:
            look(port, page)
        except OSError:
            pass
sys.stdout.flush()
os._exit(0)
"""


def listening() -> set[tuple[str, int]]:
    """Addresses at which this process and its workers listen."""
    import psutil

    me = psutil.Process()
    found = [one for process in (me, *me.children(recursive=True)) for one in process.net_connections("inet")]
    return {(one.laddr.ip, one.laddr.port) for one in found if one.status == psutil.CONN_LISTEN}


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user")
def test_another_user_of_the_machine_stays_outside(client: Client) -> None:
    """Scheduler, nannies, workers and their web servers: nobody gets in who has not this run's certificate."""
    found = listening()
    assert len(found) >= 5  # a scheduler, two nannies, two workers
    assert {host for host, _ in found} == {"127.0.0.1"}
    with LocalCluster(
        n_workers=0, processes=False, host="127.0.0.1", protocol="tcp://", dashboard_address=None
    ) as other:
        door = other.scheduler_address.rpartition(":")[2]  # one that stands open
        done = subprocess.run(
            [sys.executable, "-c", INTRUDER, door, *(str(port) for _, port in found)],
            capture_output=True, text=True, timeout=300, cwd="/",
        )  # fmt: skip
    assert done.stdout.split("\n") == [f"IN tcp {door}", ""], done.stdout + done.stderr
    assert client.submit(os.getuid).result() == os.getuid()  # ours still works


def test_scratch_folders_are_private(client: Client) -> None:
    """What workers put on disk lies in a folder that its owner alone can enter."""
    for place in client.run(lambda dask_worker: dask_worker.local_directory).values():
        top = next(path for path in Path(place).parents if path.name.startswith("d3m-workers-"))
        assert top.stat().st_mode & 0o777 == 0o700


def test_no_worker_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A scheduler without workers: the user is told instead of waiting for ever before a silent screen."""
    assert workers.WAITING_S < 30
    monkeypatch.setattr(workers, "WAITING_S", 0.2)
    told: list[Notice] = []
    ended: list[BaseException] = []

    def drive(address: str) -> None:
        try:
            with attached_workers(address) as client:
                list(run_on_workers(client, cases("a"), MarkingWork(tmp_path), tell=told.append))
        except BaseException as error:
            ended.append(error)

    with LocalCluster(
        n_workers=0, processes=False, dashboard_address=None, host="127.0.0.1", protocol="tcp://"
    ) as empty:
        driver = threading.Thread(target=drive, args=(empty.scheduler_address,), daemon=True)
        driver.start()
        limit = time.monotonic() + 60
        while not told and time.monotonic() < limit:
            time.sleep(0.05)
        time.sleep(0.5)
    assert [notice.message.split(",")[0] for notice in told] == ["0 workers have joined the scheduler"]  # once
    driver.join(60)
    assert ended


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="network namespaces need root")
def test_no_loopback_interface(tmp_path: Path) -> None:
    """Where processes cannot talk to each other, that is one sentence and the way out, at once."""
    code = (
        "from d3m.batch.workers import local_workers\n"
        "from d3m.errors import D3MError\n"
        "try:\n    local_workers(2, 'cpu').__enter__()\n"
        "except D3MError as error:\n    print(error.exit_code, error)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment
    )
    if "unshare" in done.stderr:
        pytest.skip("network namespaces are not allowed here")
    assert done.stdout.startswith("3 Several workers cannot be started here"), done.stdout + done.stderr
    assert "--n-jobs 1" in done.stdout
