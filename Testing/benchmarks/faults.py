"""Kills writers at random moments and fills their disk, and counts what was lost.

    python Testing/benchmarks/faults.py [trials] [operation ...]

Each operation is done once in peace, then again and again in a child process: half of the children are ended by
SIGKILL at a random moment of their work, half may write no file larger than a random size, as on a full disk.
Afterwards what stands under the final name must be whole (the older or the newer), a full disk must be told as such,
and doing it once more must work. Operations: result (NIfTI, trace, figure, provenance), dicom, export and import of a
model, table of a batch, cache, checkpoint, training (resumed after each kill; must end in the same bits).
Exit code 1 if anything was lost. Linux and macOS.
"""

from __future__ import annotations

import csv
import os
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
sys.path[:0] = [str(CHECKOUT / "D3MSynthesis"), str(CHECKOUT / "D3MTraining"), str(CHECKOUT / "Testing")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402

TRIALS = 100
FULL, DEFECT = 3, 1


@dataclass(frozen=True)
class Operation:
    """Something that writes."""

    name: str
    write: Callable[[], None]
    whole: Callable[[], bool]
    """Whether what stands under the final name is whole."""
    tidy: Callable[[], list[str]]
    """What is left over after a failure that the program noticed."""


def hidden(folder: Path) -> list[str]:
    """Temporary files and folders."""
    return [path.name for path in folder.iterdir() if path.name.startswith(".") or path.name.endswith(".partial")]


def make_model(place: Path) -> Path:
    """A tiny untrained model."""
    from d3m.diffusion.networks.slice import build_network
    from d3m.diffusion.recipe import NetworkSizes, Sampling
    from d3m.models.card import Card
    from d3m.models.load import save_model
    from d3m.models.recipes import DEFAULT

    torch.manual_seed(0)
    sizes = NetworkSizes(widths=(8, 16), context=(-1, 0, 1), deformation_widths=(8, 8))
    recipe = replace(DEFAULT, network=sizes, qualities=(Sampling(2),) * 3)
    save_model(place / "tiny", Card("tiny", "Tiny", recipe, "0" * 64), build_network(sizes).state_dict())
    return place / "tiny"


def writers(place: Path) -> list[Operation]:
    """The operations of the engine, in `place`."""
    from conftest import write_case
    from d3m.batch.run import Row, write_summary
    from d3m.models.load import load_model, save_model
    from d3m.models.store import MODELS_VARIABLE, import_model, remove_model
    from d3m.options import SynthesisOptions
    from d3m.results.dicom.write import content_of, write_dicom
    from d3m.results.files import write_result
    from d3m.results.provenance import read_provenance
    from d3m.synthesis import Synthesis
    from d3m.system.folders import put_in_order
    from d3m.volumes.preprocess.case import read_case

    model = load_model(make_model(place))
    files = write_case(place / "case")
    case = read_case(files.t1, files.t2, files.flair)
    result = Synthesis(model, SynthesisOptions(device="cpu", quality="preview", trace=True)).run(case)
    rows = [Row(f"case{k}", "done", "", "", 1.0, 2.0, "") for k in range(2000)]
    for name in ("result", "export", "import", "summary", "dicom"):
        (place / name).mkdir()
    os.environ[MODELS_VARIABLE] = str(place / "import")

    def order(folder: Path, name: str = "out") -> Path:
        put_in_order(folder, name)
        return folder / name

    def read_summary() -> bool:
        with (place / "summary/summary.csv").open(encoding="utf-8") as f:
            return [row["id"] for row in csv.DictReader(f)] == [row.id for row in rows]

    def imported() -> bool:
        put_in_order(place / "import", "tiny")
        return not (place / "import/tiny").exists() or bool(load_model(place / "import/tiny"))

    def again() -> None:
        if (place / "import/tiny").exists():
            remove_model("tiny")
        import_model(model.folder)

    def dicom() -> None:
        import shutil

        shutil.rmtree(place / "dicom/out", ignore_errors=True)
        write_dicom(place / "dicom/out", content_of(result), [])

    def series() -> bool:
        out = order(place / "dicom")
        return not out.exists() or len(list((out / "cemri").glob("*.dcm"))) == case.t1.data.shape[2]

    return [
        Operation(
            "result",
            lambda: write_result(place / "result/out", result, case, 1.0),
            lambda: read_provenance(order(place / "result")) is not None,
            lambda: hidden(place / "result"),
        ),
        Operation("dicom", dicom, series, lambda: hidden(place / "dicom")),
        Operation(
            "export",
            lambda: void(save_model(place / "export/out", model.card, model.network.state_dict())),
            lambda: bool(load_model(order(place / "export"))),
            lambda: hidden(place / "export"),
        ),
        Operation("import", again, imported, lambda: hidden(place / "import")),
        Operation(
            "summary",
            lambda: write_summary(place / "summary/summary.csv", rows),
            read_summary,
            lambda: hidden(place / "summary"),
        ),
    ]


def void(_: object) -> None:
    """Forget a value."""


def trainers(place: Path) -> list[Operation]:
    """The operations of the training, in `place`."""
    from d3m.system.storage import writing
    from d3m_training.data.cache import Prepared, is_whole, write_entry
    from d3m_training.train.checkpoint import Ema, restore_checkpoint, save_checkpoint

    (place / "cache").mkdir()
    (place / "checkpoint").mkdir()
    rng = np.random.default_rng(0)
    scans = rng.random((20, 4, 64, 64), np.float32).astype(np.float16)
    prepared = Prepared("patient", scans, np.ones((20, 2, 64, 64), np.uint8), True)
    network = torch.nn.Linear(300, 300)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 300)).sum().backward()
    optimizer.step()
    ema = Ema(network, 0.9)

    def fill() -> None:
        with writing():
            write_entry(place / "cache", prepared, "key")

    def entry() -> bool:
        folder = place / "cache"
        return not (folder / "patient/entry.json").exists() or is_whole(folder, "patient", "key", thorough=True)

    def save() -> None:
        found = restore_checkpoint(place / "checkpoint", network, ema, optimizer)
        first = 0 if found is None else found.iteration
        for number in range(first + 1, first + 4):
            save_checkpoint(place / "checkpoint", number, 0.0, network, ema, optimizer)

    def restored() -> bool:
        found = restore_checkpoint(place / "checkpoint", network, ema, optimizer)
        return found is not None and not found.skipped

    return [
        Operation("cache", fill, entry, lambda: hidden(place / "cache")),
        Operation("checkpoint", save, restored, lambda: hidden(place / "checkpoint")),
    ]


def child(write: Callable[[], None], limit: int | None = None) -> int:
    """Start the work in a process of its own; `limit`: bytes that a file may have."""
    from d3m.errors import D3MError

    number = os.fork()
    if number:
        return number
    code = DEFECT
    try:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        write()
        code = 0
    except D3MError as error:
        code = FULL if error.kind == "machine" else DEFECT
        if code == DEFECT:
            os.write(2, f"{error}\n".encode())
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)


def try_out(operation: Operation, trials: int, rng: random.Random) -> tuple[int, int, list[str]]:
    """Kill and fill; returns how many were killed in the middle, met a full disk, and what was lost."""
    started = time.monotonic()
    operation.write()
    duration, killed, full = time.monotonic() - started, 0, 0
    lost = [] if operation.whole() else ["not whole after an undisturbed run"]
    for trial in range(trials):
        if trial % 2 == 0:
            number = child(operation.write)
            try:
                time.sleep(rng.uniform(0, 1.1 * duration))
            finally:  # a child that outlives an interrupted benchmark would miss what the benchmark removes
                os.kill(number, signal.SIGKILL)
                _, status = os.waitpid(number, 0)
            killed += os.WIFSIGNALED(status)
        else:
            _, status = os.waitpid(child(operation.write, int(10 ** rng.uniform(0, 6))), 0)
            code = os.waitstatus_to_exitcode(status)
            full += code == FULL
            if code not in (0, FULL):
                lost.append(f"trial {trial}: a full disk was not told as such")
            if code == FULL and (left := operation.tidy()):
                lost.append(f"trial {trial}: left {left}")
        try:
            good = operation.whole()
        except Exception as error:  # whatever it is, something was lost
            good = False
            lost.append(f"trial {trial}: {type(error).__name__}: {error}")
        if not good:
            lost.append(f"trial {trial}: something in pieces passes for whole")
    operation.write()
    return killed, full, lost


def training_survives(place: Path, kills: int, rng: random.Random) -> tuple[int, list[str]]:
    """Kill a training again and again; in the end its weights are those of an undisturbed one."""
    from safetensors.torch import load_file

    from d3m_training.train.trainer import train
    from training.test_trainer import SETTINGS, _batches, _module

    batches = _batches(place / "entries")
    settings = replace(SETTINGS, iterations=12, save_every=1)

    def run(folder: Path) -> None:
        void(train(_module(), batches, settings, folder, report=lambda _: None))

    started = time.monotonic()
    _, status = os.waitpid(child(lambda: run(place / "whole")), 0)
    duration, killed = time.monotonic() - started, 0
    if status:
        return 0, ["the undisturbed training failed"]
    for _ in range(kills):
        number = child(lambda: run(place / "killed"))
        time.sleep(rng.uniform(0.3, 0.8) * duration)
        os.kill(number, signal.SIGKILL)
        _, status = os.waitpid(number, 0)
        killed += os.WIFSIGNALED(status)
    os.waitpid(child(lambda: run(place / "killed")), 0)
    name = "checkpoint-00000012.safetensors"
    one, other = load_file(place / "whole" / name), load_file(place / "killed" / name)
    same = one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    return killed, [] if same else ["the resumed training differs from an undisturbed one"]


def main() -> int:
    """Try every operation and print the counts."""
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else TRIALS
    wanted, bad = sys.argv[2:], 0
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with tempfile.TemporaryDirectory(prefix="d3m-faults-", ignore_cleanup_errors=True) as name:
        place = Path(name)
        engine = {"result", "dicom", "export", "import", "summary"}
        made = writers(place) if not wanted or engine & set(wanted) else []
        made += trainers(place) if not wanted or {"cache", "checkpoint"} & set(wanted) else []
        for operation in made:
            if wanted and operation.name not in wanted:
                continue
            killed, full, lost = try_out(operation, trials, random.Random(operation.name))
            print(f"{operation.name}: {killed} killed, {full} on a full disk, lost: {len(lost)}", flush=True)
            bad += len(lost)
            print("".join(f"  {line}\n" for line in lost[:5]), end="")
        if not wanted or "training" in wanted:
            (place / "training").mkdir()
            killed, lost = training_survives(place / "training", max(1, trials // 10), random.Random(1))
            print(f"training: {killed} killed and resumed, lost: {len(lost)}", *lost, flush=True)
            bad += len(lost)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
