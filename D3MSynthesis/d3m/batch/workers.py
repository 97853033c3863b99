"""Many cases on Dask workers: on this machine, or on a cluster that somebody else runs."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from d3m.batch.cases import CaseFiles
from d3m.batch.run import Outcome, Row, Work, explain
from d3m.errors import D3MError, Notice
from d3m.progress import ignore_progress
from d3m.system import limits

if TYPE_CHECKING:
    from distributed import Client

MEMORY_MARGIN = 0.95
"""Share of the machine's memory, divided among the workers, at which a worker is ended and its case tried again."""
CONNECT_S = 20
LOOPBACK = "127.0.0.1"
RESERVE = 1.2
"""Memory of a worker over what a case of ordinary size needs: larger scans, Dask itself."""
WAITING_S = 20.0
"""A scheduler may be without workers for so long before that is said."""


def worker_memory(model: str | None) -> int:
    """Bytes of memory that a worker needs for a case of ordinary size.

    Args:
        model: Name or folder.

    Raises:
        D3MError: there is no such model, or its card is damaged.
    """
    from d3m.models.cost import case_memory
    from d3m.models.store import find_model, read_card

    return int(case_memory(read_card(find_model(model)), 2) * RESERVE)


def count_workers(device: str, need: int) -> int:
    """Workers that suit this machine: one a GPU, or one a pair of cores, and no more than memory holds.

    One where processes cannot talk to each other.

    Args:
        device: What `choose_device` takes.
        need: Bytes of memory that a worker needs.
    """
    from d3m.system.devices import visible_gpus

    gpus = visible_gpus() if device in ("auto", "cuda") else []
    wanted = len(gpus) or max(1, limits.cores() // 2)
    memory = min((one for one in (limits.memory_limit(), limits.free_together()) if one is not None), default=None)
    if memory is not None:
        wanted = max(1, min(wanted, int(memory * MEMORY_MARGIN // need)))
    try:
        _require_loopback()
    except D3MError:
        return 1
    return wanted


@contextmanager
def local_workers(count: int, device: str) -> Iterator[Client]:
    """Start workers on this machine, each a process of its own with its share of cores, memory and GPUs.

    Whoever can reach a scheduler can run code as its owner, and every user of a machine can reach its loopback
    interface: all talk is encrypted, with a certificate that exists in these processes' memory alone.

    Args:
        count: How many.
        device: What `choose_device` takes; "auto" and "cuda" give each worker one GPU in turn.

    Raises:
        D3MError: Dask is not installed; processes cannot talk to each other here.
    """
    _require_dask()
    _require_loopback()
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster
    from distributed.security import Security

    from d3m.system.devices import visible_gpus

    gpus = visible_gpus() if device in ("auto", "cuda") else []
    limit = limits.memory_limit()
    threads = max(1, limits.cores() // count)
    security = Security.temporary()
    places = {"host": LOOPBACK, "protocol": "tls://", "security": security, "dashboard": False}
    places["dashboard_address"] = f"{LOOPBACK}:0"  # its server listens even if it shows nothing
    with TemporaryDirectory(prefix="d3m-workers-", ignore_cleanup_errors=True) as scratch:  # of its owner alone
        workers = {}
        for number in range(count):
            environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
            if gpus:
                environment["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
            options = {
                "nthreads": 1,
                "env": environment,
                "memory_limit": 0 if limit is None else limit // count,  # 0: none
                "local_directory": scratch,
                "silence_logs": logging.CRITICAL,
            }
            workers[number] = {"cls": Nanny, "options": options | places}
        settings = {
            # results are small, so that nothing is gained by writing them to disk or pausing; a worker that is ended
            # costs its case a second try, which we count ourselves
            "distributed.worker.memory.target": False,
            "distributed.worker.memory.spill": False,
            "distributed.worker.memory.pause": False,
            "distributed.worker.memory.terminate": MEMORY_MARGIN,
            # a worker that was ended comes back when it has loaded its libraries again, which may take long on a busy
            # machine; Dask would give it up after 15 s
            "distributed.deploy.lost-worker-timeout": "7 days",
            "distributed.scheduler.allowed-failures": 0,
            "distributed.scheduler.worker-saturation": 1.0,
            "distributed.admin.log-length": 0,
            "distributed.worker.profile.enabled": False,
            # web pages about the work need no key
            "distributed.scheduler.http.routes": [],
            "distributed.worker.http.routes": [],
            "temporary-directory": scratch,
        }
        scheduler = {"cls": Scheduler, "options": {"port": 0} | places}
        with dask.config.set(settings):
            try:
                cluster = SpecCluster(
                    workers=workers, scheduler=scheduler, security=security, silence_logs=logging.CRITICAL
                )
            except (OSError, RuntimeError, asyncio.TimeoutError) as error:
                raise _no_workers(error) from error
            try:
                with Client(cluster) as client:
                    yield client
            finally:
                with suppress(TimeoutError, asyncio.TimeoutError):  # one in a long computation ends with this process
                    cluster.close()


def _require_loopback() -> None:
    """Find out at once whether processes of this machine can talk to each other; Dask would try for half a minute."""
    try:
        with socket.create_server((LOOPBACK, 0)) as server:
            socket.create_connection(server.getsockname(), timeout=CONNECT_S).close()
    except OSError as error:
        raise _no_workers(error) from error


def _no_workers(error: BaseException) -> D3MError:
    first: BaseException = error
    while (before := first.__cause__ or first.__context__) is not None:
        first = before
    reason = (str(first).splitlines() or [type(first).__name__])[0]
    return D3MError(
        f"Several workers cannot be started here ({reason}).",
        "Use --n-jobs 1; several need connections to 127.0.0.1 (the loopback interface) and shared memory (/dev/shm).",
        "machine",
    )


@contextmanager
def attached_workers(address: str) -> Iterator[Client]:
    """Use the workers of a scheduler that runs already.

    Args:
        address: Such as `tcp://host:8786`, or the path of its scheduler file.

    Raises:
        D3MError: Dask is not installed; nothing answers there.
    """
    _require_dask()
    from distributed import Client

    given = {"scheduler_file": address} if address.endswith(".json") else {"address": address}
    try:
        client = Client(**given, timeout=CONNECT_S)
    except (OSError, ValueError) as error:
        raise D3MError(f"No Dask scheduler answers at {address}.", "Check --scheduler, and that it runs.") from error
    with client:
        yield client


def run_on_workers(
    client: Client,
    cases: Iterable[CaseFiles],
    work: Work,
    at_once: int = 1,
    tell: Callable[[Notice], None] | None = None,
) -> Iterator[Outcome]:
    """Run cases on workers, in no particular order.

    A case that ends its worker, or fails for a reason that may be gone at a second try, is tried once more. No more
    cases are given away than there are workers, so that a worker that dies takes one case with it, and the driver's
    memory does not grow with their number.

    Args:
        client: From `local_workers` or `attached_workers`.
        cases: What is run.
        work: What is done with each; each worker loads its model once.
        at_once: Cases given away even if fewer workers are there yet: an adaptive cluster grows by what waits.
        tell: Told when no worker is there; called from another thread.

    Yields:
        Each case's outcome as it ends.

    Raises:
        D3MError: the disk is full, or the scheduler is gone, or its workers cannot run this program.
    """
    from distributed import as_completed

    name = f"d3m-{uuid.uuid4().hex}"
    _register(client, work, name)
    waiting = iter(cases)
    running: dict[Any, CaseFiles] = {}
    retried: set[str] = set()
    done = as_completed([], raise_errors=False)

    def submit(case: CaseFiles) -> None:
        future = client.submit(_run, name, case, key=f"{name}-{uuid.uuid4().hex}", pure=False)
        running[future.key] = case
        done.add(future)

    def fill() -> None:
        wanted = max(at_once, len(client.scheduler_info(n_workers=-1)["workers"]))
        while len(running) < wanted:
            case = next(waiting, None)
            if case is None:
                return
            submit(case)

    ended = threading.Event()
    if tell is not None:
        threading.Thread(target=_watch, args=(client, tell, ended), daemon=True).start()
    try:
        fill()
        for future in done:
            case = running.pop(future.key)
            outcome = _outcome(case, future)
            future.release()
            if outcome.row.status == "failed" and outcome.kind == "machine" and case.id not in retried:
                retried.add(case.id)
                submit(case)
                continue
            yield outcome
            fill()
    finally:
        ended.set()
        with suppress(OSError, asyncio.TimeoutError):  # workers that are gone or busy; they keep a model for nothing
            if client.status == "running":
                client.unregister_worker_plugin(name)


def _watch(client: Client, tell: Callable[[Notice], None], ended: threading.Event) -> None:
    """Say once, each time that it happens, that the scheduler has no worker: nobody else would."""
    said = False
    while not ended.wait(WAITING_S / 4 if said else WAITING_S):
        try:
            count = len(client.scheduler_info(n_workers=-1)["workers"])
        except Exception:  # the scheduler is gone or slow, which the main thread notices by itself
            continue
        if count == 0 and not said:
            text = "0 workers have joined the scheduler, so that no case can run yet; waiting. Start workers there."
            tell(Notice("no-workers", text))
        said = count == 0


def _register(client: Client, work: Work, name: str) -> None:
    """Give every worker, those that come later too, what it needs to run cases."""
    from distributed import WorkerPlugin

    class Loaded(WorkerPlugin):
        """Keeps a worker's model between cases."""

        def __init__(self) -> None:
            self.work = work
            self.synthesis: Any = None

        def setup(self, worker: Any) -> None:  # noqa: ARG002 Dask's interface
            self.one_at_a_time = threading.Lock()  # a worker with several threads still runs one case at a time

        def run(self, case: CaseFiles) -> Outcome:
            with self.one_at_a_time:
                if self.synthesis is None:
                    self.synthesis = self.work.load()
                return self.work.run(case, self.synthesis, ignore_progress)

    try:
        client.register_plugin(Loaded(), name=name)
    except Exception as error:  # whatever keeps a worker from importing this program
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise D3MError(
            f"The workers cannot run D3M ({reason}).", "Install the same version of D3M where they run.", "machine"
        ) from error


def _run(name: str, case: CaseFiles) -> Outcome:
    """Runs on a worker."""
    from distributed import get_worker

    plugin: Any = get_worker().plugins[name]
    outcome: Outcome = plugin.run(case)
    return outcome


def _outcome(case: CaseFiles, future: Any) -> Outcome:
    """What came of a case.

    Raises:
        D3MError: what ends all cases.
    """
    from distributed.scheduler import KilledWorker

    if future.status == "finished":
        outcome: Outcome = future.result()
        return outcome
    if future.status != "error":
        raise D3MError(
            "The Dask scheduler is gone.", "Start it again, then run this command again: it resumes.", "machine"
        )
    error = future.exception()
    if isinstance(error, D3MError):
        raise error
    if isinstance(error, KilledWorker):
        reason = "The worker ended while it ran this case: it was stopped, or ran out of memory."
        row = Row(case.id, "failed", reason, "Run it again, or with fewer workers.", 0.0, None, "")
        return Outcome(row, "machine")
    reason, hint, kind = explain(error)
    return Outcome(Row(case.id, "failed", reason, hint, 0.0, None, ""), kind)


def _require_dask() -> None:
    try:
        import cryptography  # noqa: F401 (of Dask's certificates)
        import distributed  # noqa: F401
    except ImportError as error:
        raise D3MError(
            "Several workers need Dask, which is not installed.",
            "Install it: pip install 'slicer-d3m[cluster]', or use --n-jobs 1.",
            "machine",
        ) from error
