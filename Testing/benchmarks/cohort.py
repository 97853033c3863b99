"""What the engine for many cases costs, and what it loses when workers die.

    python Testing/benchmarks/cohort.py overhead|scaling|memory|many|killed [--cases N] [--workers N]

- overhead: seconds of a case through Dask beyond the same case without it, per cent of a real case of the bundled
  sample at quality preview.
- scaling: cases a second by two workers over that by one.
- memory: resident memory of driver and workers over many cases.
- many: cases without a sampler, a real result folder each: does the time of a case grow with their number? Then the
  table and the page of all.
- killed: workers killed at random moments while tiny cases run; each result must be whole, and none made twice.

Everything runs on tiny volumes but for the sample case; one run, ratios; the machine should be idle.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import write_case
from d3m.batch.bids import BidsCase, find_bids_cases
from d3m.batch.cases import CaseFiles
from d3m.batch.derivatives import THUMBNAIL, BidsWork, start_derivatives, store_row
from d3m.batch.review import collect, write_review
from d3m.batch.run import Outcome, Row
from d3m.batch.workers import local_workers, run_on_workers
from d3m.options import SynthesisOptions
from d3m.progress import ProgressCallback, ignore_progress
from d3m.results.provenance import RESULT, add_files, read_provenance
from d3m.synthesis import Synthesis
from d3m.system.folders import whole_folder

SUFFIXES = (("t1", "T1w"), ("t2", "T2w"), ("flair", "FLAIR"))
MIB = 2**20


@dataclass(frozen=True)
class StandIn:
    """Instead of the sampler: writes a whole result folder from one that was made before."""

    out: Path
    pattern: Path
    """A thumbnail and a small image that every case gets."""

    def load(self) -> Synthesis:
        """No model."""
        return object()  # type: ignore[return-value]

    def run(self, case: CaseFiles, synthesis: Synthesis, progress: ProgressCallback) -> Outcome:
        """A folder with provenance, an image and a thumbnail, written as every result is."""
        assert isinstance(case, BidsCase)
        started = time.monotonic()
        with whole_folder(case.folder(self.out), RESULT) as folder:
            shutil.copyfile(self.pattern / "image.nii.gz", folder / f"{case.id}_desc-synthT1c_T1w.nii.gz")
            shutil.copyfile(self.pattern / "thumbnail.jpg", folder / f"{case.id}_{THUMBNAIL}")
            content = {"synthetic": True, "predicted_enhancing_volume_ml": 1.0, "notices": [], "seconds": {"all": 0.1}}
            (folder / "provenance.json").write_text(add_files(content, folder))
        row = Row(case.id, "done", "", "", time.monotonic() - started, 1.0, "")
        store_row(self.out, row)
        return Outcome(row)


def dataset(root: Path, count: int) -> Path:
    """A BIDS data set of one tiny patient under many names."""
    made = write_case(root / ".made", "x")
    (root / "dataset_description.json").write_text(json.dumps({"Name": "Cohort", "BIDSVersion": "1.10.0"}))
    for number in range(count):
        anat = root / f"sub-{number:05d}" / "anat"
        anat.mkdir(parents=True)
        for name, suffix in SUFFIXES:
            os.link(getattr(made, name), anat / f"sub-{number:05d}_{suffix}.nii.gz")
    return root


def tiny_model(folder: Path) -> Path:
    """An untrained model that runs in a blink."""
    import torch

    from d3m.diffusion.networks.slice import build_network
    from d3m.diffusion.recipe import NetworkSizes, Sampling
    from d3m.models.card import Card
    from d3m.models.load import save_model
    from d3m.models.recipes import DEFAULT

    torch.manual_seed(0)
    sizes = NetworkSizes(widths=(8, 16), context=(-1, 0, 1), deformation_widths=(8, 8))
    recipe = DEFAULT.__class__(**{**DEFAULT.__dict__, "network": sizes, "qualities": (Sampling(steps=1),) * 3})
    save_model(folder, Card("tiny", "Tiny", recipe, "0" * 64, mask_threshold=0.5), build_network(sizes).state_dict())
    return folder


def work_for(place: Path, count: int) -> tuple[BidsWork, list[BidsCase]]:
    """Tiny cases with a tiny model."""
    root = dataset(place / "raw", count)
    start_derivatives(root, place / "out")
    settings = SynthesisOptions(model=str(tiny_model(place / "model")), device="cpu", quality="preview")
    return BidsWork(root, place / "out", settings), find_bids_cases(root)


def overhead(place: Path, count: int, _: int) -> None:
    """Tiny cases one after the other in this process, then through one worker; CPU time, so that others do not count.

    The share is of a real case: the bundled sample at quality preview.
    """
    from d3m.models.store import find_sample
    from d3m.volumes.preprocess.case import read_case

    work, cases = work_for(place, count)
    synthesis = work.load()
    half = len(cases) // 2
    work.run(cases[0], synthesis, ignore_progress)
    own = psutil.Process()
    before = sum(own.cpu_times()[:2])
    plain = [work.run(case, synthesis, ignore_progress).row.seconds for case in cases[1:half]]
    direct = (sum(own.cpu_times()[:2]) - before) / len(plain)
    with local_workers(1, "cpu") as client:
        outcomes = run_on_workers(client, cases[half:], work)
        next(outcomes)  # loads the model
        (worker,) = client.run(os.getpid).values()
        processes = [own, psutil.Process(worker)]
        started = [sum(p.cpu_times()[:2]) for p in processes]
        rest = len(list(outcomes))
        used = sum(sum(p.cpu_times()[:2]) - s for p, s in zip(processes, started, strict=True)) / rest
    sample = find_sample()
    real = Synthesis.load(SynthesisOptions(device="cpu", quality="preview"))
    before = sum(own.cpu_times()[:2])
    real.run(read_case(sample.t1, sample.t2, sample.flair))
    whole = sum(own.cpu_times()[:2]) - before
    print(f"a tiny case alone {1000 * direct:.0f} ms, through a worker {1000 * used:.0f} ms of CPU (n = {rest})")
    print(f"engine {1000 * (used - direct):.0f} ms a case = {100 * (used - direct) / whole:.2f} % of a real one "
          f"({whole:.1f} s of CPU, preview)")  # fmt: skip


def scaling(place: Path, count: int, _: int) -> None:
    """Cases a second by two workers over that by one."""
    work, cases = work_for(place, 2 * count + 4)
    rates = []
    for workers, some in ((1, cases[: count + 2]), (2, cases[count + 2 :])):
        with local_workers(workers, "cpu") as client:
            outcomes = run_on_workers(client, some, work)
            for _ in range(2):
                next(outcomes)
            started = time.monotonic()
            rates.append(len(list(outcomes)) / (time.monotonic() - started))
    print(f"1 worker {rates[0]:.2f} cases/s, 2 workers {rates[1]:.2f} cases/s: ratio {rates[1] / rates[0]:.2f}")
    print(f"(n = {count} each; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)")


def memory(place: Path, count: int, workers: int) -> None:
    """Resident memory after a tenth of the cases and at the end."""
    work, cases = work_for(place, count)
    with local_workers(workers, "cpu") as client:
        held: list[tuple[int, int]] = []
        pids: list[int] = []
        for _ in run_on_workers(client, cases, work):
            pids = pids or list(client.run(os.getpid).values())
            held.append((psutil.Process().memory_info().rss, max(psutil.Process(p).memory_info().rss for p in pids)))
    early = held[len(held) // 10 : len(held) // 5]
    late = held[-len(early) :]
    for index, name in enumerate(("driver", "largest worker")):
        a, b = (statistics.median(pair[index] for pair in part) for part in (early, late))
        print(f"{name}: {a / MIB:.0f} MiB after {len(held) // 10} cases, {b / MIB:.0f} MiB after {len(held)}: "
              f"{100 * (b / a - 1):+.1f} %")  # fmt: skip


def many(place: Path, count: int, workers: int) -> None:
    """Time of a case among the first and the last tenth; then the page of all."""
    root = dataset(place / "raw", count)
    started = time.monotonic()
    cases = find_bids_cases(root)
    print(f"{count} cases found in {time.monotonic() - started:.1f} s")
    out, pattern = place / "out", place / "pattern"
    start_derivatives(root, out)
    pattern.mkdir()
    shutil.copyfile(root / ".made" / "x_t1.nii.gz", pattern / "image.nii.gz")
    (pattern / "thumbnail.jpg").write_bytes(bytes(12_000))
    tenth = max(count // 10, 2)
    marks = (0, tenth, count - 1 - tenth, count - 1)
    used: list[float] = []
    started = time.monotonic()
    with local_workers(workers, "cpu") as client:
        for number, _ in enumerate(run_on_workers(client, cases, StandIn(out, pattern))):
            if number in marks:  # CPU time of driver and workers, so that other programs do not count
                family = [psutil.Process(), *psutil.Process().children(recursive=True)]
                used.append(sum(sum(process.cpu_times()[:2]) for process in family))
    first, last = used[1] - used[0], used[3] - used[2]
    print(f"{1000 * first / tenth:.1f} ms of CPU a case in the first tenth, {1000 * last / tenth:.1f} ms in the last: "
          f"ratio {last / first:.2f}; {time.monotonic() - started:.0f} s in all; "
          f"driver {psutil.Process().memory_info().rss / MIB:.0f} MiB")  # fmt: skip
    started = time.monotonic()
    entries = collect(cases, out)
    write_review(entries, out)
    size = (out / "review.html").stat().st_size
    print(f"table and page of {len(entries)} cases: {time.monotonic() - started:.1f} s, {size / MIB:.1f} MiB")


def killed(place: Path, count: int, workers: int) -> None:
    """Ten kills at random moments; a second run then does what was given up after its retry."""
    work, cases = work_for(place, count)
    made: list[str] = []
    failed: list[str] = []
    kills = 0
    with local_workers(workers, "cpu") as client:
        random_source, ended = random.Random(0), threading.Event()

        def kill() -> None:
            nonlocal kills
            while kills < 10 and not ended.wait(random_source.uniform(0.2, 2.0) * max(count / 200, 0.2)):
                children = [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]
                if len(children) == workers:  # those that were killed before are back
                    random_source.choice(children).kill()
                    kills += 1

        killer = threading.Thread(target=kill)
        for number, outcome in enumerate(run_on_workers(client, cases, work)):
            if number == 0:
                killer.start()
            (made if outcome.row.status == "done" else failed).append(outcome.row.id)
        ended.set()
        killer.join()
        again = [outcome.row for outcome in run_on_workers(client, cases, work)]
    skipped = sum(row.status == "skipped" for row in again)
    whole = sum(read_provenance(case.folder(work.out)) is not None for case in cases)
    left = len(list(work.out.rglob(".d3m-partial-*")))
    print(f"{kills} workers killed in {count} cases: {len(made)} done, {len(failed)} ended otherwise "
          f"(found whole at the retry, or given up)")  # fmt: skip
    print(f"made twice: {len(made) - len(set(made))}; second run: {skipped} there already, {len(again) - skipped} "
          f"made; whole in the end: {whole} of {count}; left over: {left}")  # fmt: skip


PARTS = {"overhead": (overhead, 40), "scaling": (scaling, 40), "memory": (memory, 300), "many": (many, 10_000),
         "killed": (killed, 200)}  # fmt: skip


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--cases", type=int)
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    run, count = PARTS[chosen.part]
    with tempfile.TemporaryDirectory() as place:
        run(Path(place), chosen.cases or count, chosen.workers)


if __name__ == "__main__":
    main()
