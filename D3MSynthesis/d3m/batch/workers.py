"""Many cases on Dask workers: on this machine, or on a cluster that somebody else runs."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from d3m.batch.cases import CaseFiles
from d3m.batch.run import Outcome, Row, Work, explain
from d3m.errors import D3MError
from d3m.progress import ignore_progress

if TYPE_CHECKING:
    from distributed import Client

MEMORY_MARGIN = 0.95
"""Share of the machine's memory, divided among the workers, at which a worker is ended and its case tried again."""
CONNECT_S = 20


def count_workers(device: str) -> int:
    """Workers that suit this machine: one a GPU, or one a pair of cores."""
    import torch

    if device in ("auto", "cuda") and torch.cuda.is_available():
        return torch.cuda.device_count()
    return max(1, _cores() // 2)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def local_workers(count: int, device: str) -> Iterator[Client]:
    """Start workers on this machine, each a process of its own with its share of cores, memory and GPUs.

    Args:
        count: How many.
        device: What `choose_device` takes; "auto" and "cuda" give each worker one GPU in turn.

    Raises:
        D3MError: Dask is not installed.
    """
    _require_dask()
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster
    from distributed.system import MEMORY_LIMIT  # knows the limits of containers and batch systems

    from d3m.system.devices import visible_gpus

    gpus = visible_gpus() if device in ("auto", "cuda") else []
    memory = MEMORY_LIMIT // count
    threads = max(1, _cores() // count)
    workers = {}
    for number in range(count):
        environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
        options = {
            "nthreads": 1,
            "env": environment,
            "memory_limit": memory,
            "dashboard": False,
            "silence_logs": logging.CRITICAL,
        }
        workers[number] = {"cls": Nanny, "options": options | {"host": "127.0.0.1"}}
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
    }
    scheduler = {
        "cls": Scheduler,
        "options": {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"},
    }
    with dask.config.set(settings):
        cluster = SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.CRITICAL)
        try:
            with Client(cluster) as client:
                yield client
        finally:
            with suppress(TimeoutError, asyncio.TimeoutError):  # a worker in a long computation ends with this process
                cluster.close()


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


def run_on_workers(client: Client, cases: Iterable[CaseFiles], work: Work, at_once: int = 1) -> Iterator[Outcome]:
    """Run cases on workers, in no particular order.

    A case that ends its worker, or fails for a reason that may be gone at a second try, is tried once more. No more
    cases are given away than there are workers, so that a worker that dies takes one case with it, and the driver's
    memory does not grow with their number.

    Args:
        client: From `local_workers` or `attached_workers`.
        cases: What is run.
        work: What is done with each; each worker loads its model once.
        at_once: Cases given away even if fewer workers are there yet: an adaptive cluster grows by what waits.

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
        with suppress(OSError, asyncio.TimeoutError):  # workers that are gone or busy; they keep a model for nothing
            if client.status == "running":
                client.unregister_worker_plugin(name)


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
        import distributed  # noqa: F401
    except ImportError as error:
        raise D3MError(
            "Several workers need Dask, which is not installed.",
            "Install it: pip install 'slicer-d3m[cluster]', or use --n-jobs 1.",
            "machine",
        ) from error
