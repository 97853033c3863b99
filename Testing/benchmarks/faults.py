"""Kills writers at every step and fills their disk, and counts what was lost.

    python Testing/benchmarks/faults.py [trials] [operation ...]

Each operation has two versions of a content. One stands there, the other is written over it in a child process, again
and again: ended by SIGKILL before each change of the file system (always from the first one on that touches what
stands there, earlier ones by chance), at random moments, with a limit to the size of a file, and, as root on Linux,
on a real file system of few megabytes that is full. Afterwards the content must be one of the two, whole and voxel by
voxel; after a full disk, which must be told as such, the older one. Doing it once more must work. Operations: result
(NIfTI, trace, figure, provenance), inside (the same into a folder that stays), dicom, export and import of a model,
table of a batch, cache, checkpoint, training (resumed after each kill; must end in the same bits).
Exit code 1 if anything was lost. Linux and macOS.
"""

from __future__ import annotations

import csv
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
sys.path[:0] = [str(CHECKOUT / "D3MSynthesis"), str(CHECKOUT / "D3MTraining"), str(CHECKOUT / "Testing")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import nibabel  # noqa: E402
import numpy as np  # noqa: E402
import pydicom  # noqa: E402
import torch  # noqa: E402

from d3m.system.manifest import MANIFEST  # noqa: E402
from d3m.system.own_files import LIST  # noqa: E402

TRIALS = 100
FULL, DEFECT = 3, 1


EVENTS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree", "shutil.copyfile")
"""What Python tells before it changes the file system; opening a file for writing is added to them."""


@dataclass(frozen=True)
class Operation:
    """Something that writes."""

    name: str
    folder: Path
    """Where it writes."""
    write: Callable[[int], None]
    """Write version 0 or 1."""
    version: Callable[[], int | None]
    """Which version stands there, compared in full; None: nothing does. Raises if it is neither."""
    vanishes: bool = False
    """Whether nothing at all may be there in between, as between a removal and an import."""


def hidden(folder: Path) -> list[str]:
    """Temporary files and folders."""
    lists = (MANIFEST, LIST)
    names = (path.name for path in folder.rglob("*") if path.name not in lists)
    return [name for name in names if name.startswith(".") or name.endswith(".partial")]


def same(found: np.ndarray, wanted: Sequence[np.ndarray], tolerance: float = 1e-4) -> int:
    """Which of the contents is found.

    Raises:
        ValueError: none of them.
    """
    for number, content in enumerate(wanted):
        if found.shape == content.shape and np.allclose(found, content, atol=tolerance * max(np.ptp(content), 1e-6)):
            return number
    raise ValueError("the content is none that was written")


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
    from d3m.results.provenance import RESULT, read_provenance
    from d3m.synthesis import Synthesis
    from d3m.system.folders import tidy
    from d3m.system.manifest import standing
    from d3m.volumes.preprocess.case import read_case

    model = load_model(make_model(place))
    files = write_case(place / "case")
    case = read_case(files.t1, files.t2, files.flair)
    results = [
        Synthesis(model, SynthesisOptions(device="cpu", quality="preview", trace=True, seed=seed)).run(case)
        for seed in (0, 1)
    ]
    weights = [{name: value * factor for name, value in model.network.state_dict().items()} for factor in (1, 0.5)]
    rows = [[Row(f"case{k}", "done", "", "", 1.0, version, "") for k in range(2000)] for version in (2.0, 3.0)]
    for name in ("result", "inside/out", "export", "import", "summary", "dicom", "models/0", "models/1"):
        (place / name).mkdir(parents=True)
    os.environ[MODELS_VARIABLE] = str(place / "import")
    for version in (0, 1):
        save_model(place / f"models/{version}/tiny", model.card, weights[version])

    def result_in(out: Path) -> Callable[[], int | None]:
        def version() -> int | None:
            tidy(out)
            if not out.exists():
                return None
            if read_provenance(out) is None or standing(out, RESULT).state != "ours":
                raise ValueError("not whole")
            found = nibabel.load(out / "cemri.nii.gz").get_fdata()
            number = same(found, [one.cemri for one in results])
            field = nibabel.load(out / "deformation.nii.gz").get_fdata()[:, :, :, 0]
            same(field, [results[number].displacement])  # both of one version
            return number

        return version

    def weights_in(folder: Path) -> Callable[[], int | None]:
        def version() -> int | None:
            tidy(folder)
            if not folder.exists():
                return None
            name, wanted = next(iter(model.network.state_dict().items()))
            found = load_model(folder).network.state_dict()[name].numpy()
            return same(found, [wanted.numpy(), 0.5 * wanted.numpy()], 2e-3)

        return version

    def again(version: int) -> None:
        if (place / "import/tiny").exists():
            remove_model("tiny")
        import_model(place / f"models/{version}/tiny")

    def summary() -> int | None:
        path = place / "summary/summary.csv"
        if not path.exists():
            return None
        with path.open(encoding="utf-8", newline="") as f:
            found = list(csv.DictReader(f))
        if [row["id"] for row in found] != [row.id for row in rows[0]]:
            raise ValueError("rows are missing")
        return same(np.array([float(row["enhancing_ml"]) for row in found]), [np.full(2000, 2.0), np.full(2000, 3.0)])

    def series() -> int | None:
        out = place / "dicom/out"
        tidy(out)
        if not out.exists():
            return None
        volume = np.full(case.t1.data.shape, np.nan)
        for path in (out / "cemri").glob("*.dcm"):
            slice_ = pydicom.dcmread(path)
            x, y, z = np.array(slice_.ImagePositionPatient, float) * [-1, -1, 1]
            first = np.rint(np.linalg.solve(case.t1.affine, [x, y, z, 1]))[:3].astype(int)
            pixels = slice_.pixel_array * float(slice_.RescaleSlope) + float(slice_.RescaleIntercept)
            if (first[:2] != 0).any():
                raise ValueError("a slice lies elsewhere")
            volume[:, :, first[2]] = pixels.T
        return same(volume, [one.cemri for one in results], 1e-3)

    return [
        Operation(
            "result",
            place / "result",
            lambda version: write_result(place / "result/out", results[version], case, 1.0),
            result_in(place / "result/out"),
        ),
        Operation(
            "inside",
            place / "inside/out",
            lambda version: in_folder(place / "inside/out", lambda: write_result(Path(), results[version], case, 1.0)),
            result_in(place / "inside/out"),
            vanishes=True,
        ),
        Operation(
            "dicom",
            place / "dicom",
            lambda version: void(write_dicom(place / "dicom/out", content_of(results[version]), [], replace=True)),
            series,
        ),
        Operation(
            "export",
            place / "export",
            lambda version: void(save_model(place / "export/out", model.card, weights[version])),
            weights_in(place / "export/out"),
        ),
        Operation("import", place / "import", again, weights_in(place / "import/tiny"), vanishes=True),
        Operation(
            "summary",
            place / "summary",
            lambda version: void(write_summary(place / "summary/summary.csv", rows[version])),
            summary,
        ),
    ]


def in_folder(folder: Path, work: Callable[[], None]) -> None:
    """Do something in a folder, as a shell does."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        work()
    finally:
        os.chdir(before)


def void(*_: object) -> None:
    """Forget values."""


def trainers(place: Path) -> list[Operation]:
    """The operations of the training, in `place`."""
    from d3m.system.storage import writing
    from d3m_training.data.cache import Prepared, is_whole, write_entry
    from d3m_training.train.checkpoint import Ema, restore_checkpoint, save_checkpoint

    (place / "cache").mkdir()
    (place / "checkpoint").mkdir()
    rng = np.random.default_rng(0)
    scans = [rng.random((20, 4, 64, 64), np.float32).astype(np.float16) for _ in range(2)]
    prepared = [Prepared("patient", one, np.ones((20, 2, 64, 64), np.uint8), True) for one in scans]
    network = torch.nn.Linear(300, 300)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 300)).sum().backward()
    optimizer.step()
    ema = Ema(network, 0.9)

    def fill(version: int) -> None:
        with writing():
            write_entry(place / "cache", prepared[version], str(version))

    def entry() -> int | None:
        folder = place / "cache"
        if not (folder / "patient/entry.json").exists():
            return None
        return next(version for version in (0, 1) if is_whole(folder, "patient", str(version), thorough=True))

    def save(version: int) -> None:
        found = restore_checkpoint(place / "checkpoint", network, ema, optimizer)
        first = 0 if found is None else found.iteration
        for number in range(first + 1, first + 4):
            save_checkpoint(place / "checkpoint", number, 0.0, network, ema, optimizer)

    def restored() -> int | None:
        found = restore_checkpoint(place / "checkpoint", network, ema, optimizer)
        if found is None or found.skipped:
            raise ValueError("no whole checkpoint")
        return 0

    return [
        Operation("cache", place / "cache", fill, entry, vanishes=True),
        Operation("checkpoint", place / "checkpoint", save, restored),
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


def counted(write: Callable[[], None], folder: Path, report: Callable[[int, int], None], last: int = -1) -> None:
    """Do the work; killed before the change of the file system with the number `last`.

    Args:
        write: The work.
        folder: Where it writes.
        report: Told how many changes there were, and which was the first that touched what stands in the folder, not
            only temporary files.
        last: No change has the number -1.
    """
    from d3m.system import folders

    count, first, exchange = 0, -1, getattr(folders, "swap", None)

    def step(touching: bool) -> None:
        nonlocal count, first
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)
        if touching and first < 0:
            first = count
        count += 1

    def told(event: str, arguments: tuple[object, ...]) -> None:
        writes = event == "open" and isinstance(arguments[1], str) and arguments[1][:1] in ("w", "x", "a")
        if writes or event in EVENTS:
            step(any(stands(name, folder) for name in arguments[:2]))

    sys.addaudithook(told)
    if exchange is not None:  # the system's own function tells nothing
        folders.swap = lambda one, other: (step(True), exchange(one, other), step(True))[1]
    write()
    report(count, count if first < 0 else first)


def stands(name: object, folder: Path) -> bool:
    """Whether a name is that of something lasting below a folder: temporary names begin with a point."""
    if not isinstance(name, (str, os.PathLike)):
        return False
    path = Path(os.path.realpath(name))
    within = path.parts[len(folder.parts) :] if path.is_relative_to(folder) else ()
    return bool(within) and not any(part.startswith(".") for part in within)


def changes_of(write: Callable[[], None], folder: Path) -> tuple[int, int]:
    """How many times the work changes the file system, and which change is the first that touches what stands there."""
    reading, writing = os.pipe()
    number = child(lambda: counted(write, folder, lambda *told: void(os.write(writing, str(told).encode()))))
    os.waitpid(number, 0)
    os.close(writing)
    with os.fdopen(reading) as f:
        steps, first = re.findall(r"\d+", f.read())
    return int(steps), int(first)


def try_out(operation: Operation, trials: int, rng: random.Random) -> tuple[int, int, list[str]]:
    """Kill and fill; returns how many were killed in the middle, met a full disk, and what was lost."""
    operation.write(0)
    started = time.monotonic()
    operation.write(1)
    duration, killed, full = time.monotonic() - started, 0, 0
    lost = [] if operation.version() is not None else ["not whole after an undisturbed run"]
    steps, first = changes_of(lambda: operation.write(0), operation.folder)
    others = rng.sample(range(first), min(first, trials))
    plans: list[tuple[str, float]] = [("step", k) for k in (*range(first, steps + 1), *others)]
    plans += [("moment", rng.uniform(0, 1.1 * duration)) for _ in range(trials // 2)]
    plans += [("limit", 10 ** rng.uniform(0, 6)) for _ in range(trials // 2)]
    before = operation.version()
    for kind, value in plans:
        new = 1 - (before or 0)
        older = hidden(operation.folder)  # of killed writers: the next ones remove it in time

        def write(version: int = new) -> None:
            operation.write(version)

        if kind == "limit":
            _, status = os.waitpid(child(write, int(value)), 0)
        elif kind == "step":
            _, status = os.waitpid(child(lambda k=int(value), work=write: counted(work, operation.folder, void, k)), 0)  # type: ignore[misc]
        else:
            number = child(write)
            try:
                time.sleep(value)
            finally:  # a child that outlives an interrupted benchmark would miss what the benchmark removes
                os.kill(number, signal.SIGKILL)
                _, status = os.waitpid(number, 0)
        told = f"{kind} {value:.3g}"
        killed += os.WIFSIGNALED(status)
        code = os.waitstatus_to_exitcode(status)
        if kind == "limit":
            full += code == FULL
            if code not in (0, FULL):
                lost.append(f"{told}: a full disk was not told as such")
            if code == FULL and (left := sorted(set(hidden(operation.folder)) - set(older))):
                lost.append(f"{told}: left {left}")
        try:
            found = operation.version()
        except Exception as error:  # whatever it is, something was lost
            lost.append(f"{told}: {type(error).__name__}: {error}")
            operation.write(new)
            found = operation.version()
        if found is None and not operation.vanishes:
            lost.append(f"{told}: nothing is there")
        if kind == "limit" and code == FULL and found != before and not operation.vanishes:
            lost.append(f"{told}: a full disk changed the older content")
        before = found
    operation.write(0)
    return killed, full, lost


def small_disk(place: Path) -> list[str]:
    """A result and a summary on a real file system that is full; what was lost, or nothing where none can be made."""
    import subprocess

    from d3m.errors import D3MError
    from d3m.results.provenance import RESULT
    from d3m.system.folders import tidy, whole_folder
    from d3m.system.own_files import write_own

    disk = place / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        done = None
    if done is None or done.returncode:
        print("disk: not tried, since nothing can be mounted here")
        return []
    lost = []
    try:
        for out in (disk / "out", disk):  # beside a folder, and into the mount point
            for size in (100_000, 2_000_000, 100_000):
                try:
                    with whole_folder(out, RESULT) as folder:
                        (folder / "a.bin").write_bytes(os.urandom(size))
                    code = 0
                except D3MError as error:
                    code = error.exit_code
                tidy(out)
                if code != (FULL if size > 1_000_000 else 0):
                    lost.append(f"{size} bytes: exit code {code}")
                if (out / "a.bin").stat().st_size != 100_000 or [n for n in hidden(disk) if "disk" not in n]:
                    lost.append(f"{size} bytes: {sorted(p.name for p in out.iterdir())}")
            if out != disk:
                import shutil

                shutil.rmtree(out)
        write_own(disk / "summary.csv", "old")
        try:
            write_own(disk / "summary.csv", "new" * 500_000)
            lost.append("a table larger than the disk was written")
        except OSError:
            pass
        if (disk / "summary.csv").read_text() != "old":
            lost.append("a full disk cost the older table")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    print(f"disk: lost: {len(lost)}")
    return lost


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
        place = Path(os.path.realpath(name))
        engine = {"result", "inside", "dicom", "export", "import", "summary"}
        made = writers(place) if not wanted or engine & set(wanted) else []
        made += trainers(place) if not wanted or {"cache", "checkpoint"} & set(wanted) else []
        for operation in made:
            if wanted and operation.name not in wanted:
                continue
            killed, full, lost = try_out(operation, trials, random.Random(operation.name))
            print(f"{operation.name}: {killed} killed, {full} on a full disk, lost: {len(lost)}", flush=True)
            bad += len(lost)
            print("".join(f"  {line}\n" for line in lost[:5]), end="")
        if not wanted or "disk" in wanted:
            lost = small_disk(place)
            bad += len(lost)
            print("".join(f"  {line}\n" for line in lost), end="")
        if not wanted or "training" in wanted:
            (place / "training").mkdir()
            killed, lost = training_survives(place / "training", max(1, trials // 10), random.Random(1))
            print(f"training: {killed} killed and resumed, lost: {len(lost)}", *lost, flush=True)
            bad += len(lost)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
