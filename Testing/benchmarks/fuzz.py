"""Feeds the readers with damaged and hostile files, for as long as you like.

    python Testing/benchmarks/fuzz.py [--inputs N] [--seed S] [seconds for each target] [target ...]

Targets: volume (NIfTI, NRRD, MetaImage, packed or not), dicom, card, weights, table, provenance; flipped and rights
(`fuzz_disk.py`); and bombs: inputs that are large only once they are read, links to what never ends, odd provenances,
text that steers a terminal or a spreadsheet; these are always all tried, in bounded memory. With atheris
(https://github.com/google/atheris, Python 3.11 to 3.14 on Linux) the inputs are led by the code that they reach;
without it valid files are changed at random. Every input must give a result or a `D3MError` with a way out; memory is
limited, and opening a file for writing, starting a process or connecting to anything ends the run as a fault.
Prints the number of inputs tried for each target; exit code 1 and the input's file when one was not survived.

A long run: `--inputs 1000000 dicom` changes valid files at random until so many were tried, with or without atheris,
however long it takes. What the process holds in memory may not grow by more than `MAX_CREEP_BYTES` after the first
`WARM_INPUTS`, in short runs neither. Another `--seed` gives other inputs, so that long runs can be split.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib.util
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
sys.path[:0] = [str(CHECKOUT / "D3MSynthesis"), str(CHECKOUT / "Testing")]

SECONDS = 60
MEMORY_BYTES = 6 * 2**30
"""Address space: torch takes most of it, and no input of a few kilobytes may ask for the rest."""
HANG_S, PATIENCE = 20, 10
"""Seconds of processor time that an input may take, and how many times as long by the clock: a machine may be busy."""
MAX_BYTES = 6000
TARGETS = ("volume", "dicom", "card", "weights", "table", "provenance", "flipped", "rights", "bombs")
WRITING = ("rights",)
"""Targets that write, below their own folder."""
WARM_INPUTS, LOOK_EVERY = 300, 50
MAX_CREEP_BYTES = 100 * 2**20
"""What a process may hold more of in memory after any number of inputs: one that is read leaves nothing behind."""
MAX_GROWTH_BYTES = 500 * 2**20
"""A hostile input may not make the program grow by more: a scan of usual size takes less."""
CHANGES = ("os.remove", "os.rename", "os.mkdir")
FORBIDDEN = ("os.system", "subprocess.Popen", "socket.connect", "pickle.find_class")
ABSURD = (b"-1", b"0", b"9" * 30, b"1e999", b"nan", b"inf", b"", b"9" * 5000, b"../../x", b"null", b"[]")
WORDS = (b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\0\0\xc0\x7f", b"\0\0\x80\x7f")


class EscapedError(BaseException):
    """An input made the program do what no reader does; not an Exception, so that nothing swallows it."""


def _volumes() -> list[bytes]:
    """Small scans in every format."""
    import nibabel
    import numpy as np
    import SimpleITK as sitk

    x, y, z = np.meshgrid(*[np.linspace(-1, 1, 8)] * 3, indexing="ij")
    data = ((x**2 + y**2 + z**2 < 0.8) * (100 + 20 * x)).astype(np.int16)
    image = nibabel.Nifti1Image(data, np.diag([-1.0, 1, 2, 1]))
    seeds = [image.to_bytes(), nibabel.Nifti2Image(data.astype(np.float32), np.eye(4)).to_bytes()]
    itk = sitk.GetImageFromArray(data)
    with tempfile.TemporaryDirectory() as place:
        for name, packed in (("a.nrrd", False), ("b.nrrd", True), ("a.mha", False), ("b.mha", True)):
            sitk.WriteImage(itk, str(Path(place) / name), packed)
            seeds.append((Path(place) / name).read_bytes())
    return [b"\0" + seed for seed in seeds] + [b"\1" + seed for seed in seeds]


def _slices() -> list[bytes]:
    """DICOM slices: plain, compressed, and enhanced multi-frame."""
    import numpy as np
    import pydicom

    from engine.dicom_helpers import to_enhanced, write_series

    data = np.random.default_rng(0).integers(1, 999, (16, 12, 6))
    with tempfile.TemporaryDirectory() as place:
        folder, one = Path(place) / "series", Path(place) / "one.dcm"
        write_series(data, np.diag([1.0, 1, 3, 1]), folder, "T1", "1.2.3", "1.2.4")
        seeds = [path.read_bytes() for path in sorted(folder.iterdir())]
        to_enhanced(folder, one)
        seeds.append(one.read_bytes())
        dataset = pydicom.dcmread(folder / "0003.dcm")
        dataset.compress(pydicom.uid.RLELossless)
        dataset.save_as(one)
        return [*seeds, one.read_bytes()]


def _card() -> str:
    from d3m.models.card import Card
    from d3m.models.recipes import DEFAULT

    return Card("m", "M", DEFAULT, "a" * 64).to_json()


def _header() -> bytes:
    """The start of a weights' file."""
    text = json.dumps({"stem.weight": {"dtype": "F16", "shape": [8, 3], "data_offsets": [0, 48]}}).encode()
    return len(text).to_bytes(8, "little") + text + bytes(48)


def seeds_of(target: str) -> list[bytes]:
    """Valid inputs to start from."""
    if target == "volume":
        return _volumes()
    if target == "dicom":
        return _slices()
    if target == "card":
        return [_card().encode()]
    if target == "weights":
        return [_header()]
    if target in ("flipped", "rights"):
        return [bytes(8)]
    if target == "table":
        return [b"t1,t2,flair,id\na.nii,b.nii,c.nii,p1\n", "\ufefft1;t2\n".encode()]
    files = {"cemri.nii.gz": {"bytes": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}}
    return [json.dumps({"files": files, "inputs": {}}).encode()]


def reader_of(target: str, place: Path) -> Callable[[bytes], None]:
    """What is done with one input; it lies below `place`."""
    from d3m.batch.cases import find_cases
    from d3m.errors import D3MError
    from d3m.models.card import Card
    from d3m.models.load import load_model
    from d3m.results.provenance import RESULT, read_provenance
    from d3m.system.manifest import standing
    from d3m.volumes.io.dicom.study import choose_series, read_series
    from d3m.volumes.preprocess.case import read_volume

    def volume(data: bytes) -> None:
        content = gzip.compress(data[1:], 1) if data[:1] == b"\1" else data[1:]
        (place / "in").write_bytes(content)
        read_volume(place / "in", "t1")

    def dicom(data: bytes) -> None:
        (place / "series/0003.dcm").write_bytes(data)
        try:
            choose_series(place / "series")
        except D3MError:
            read_series(place / "series", "t1")

    def card(data: bytes) -> None:
        Card.from_json(data.decode("utf-8", "replace"))

    def weights(data: bytes) -> None:
        (place / "weights.safetensors").write_bytes(data)
        text = _card().replace("a" * 64, hashlib.sha256(data).hexdigest())
        (place / "card.json").write_text(text)
        load_model(place)

    def table(data: bytes) -> None:
        (place / "cases.csv").write_bytes(data)
        for case in find_cases(place / "cases.csv"):
            if Path(case.id).name != case.id:
                raise EscapedError(f"id {case.id!r}")

    def provenance(data: bytes) -> None:
        (place / "provenance.json").write_bytes(data)
        read_provenance(place)
        if standing(place, RESULT).state == "ours":
            raise EscapedError("a folder of others passes for ours")

    if target == "dicom":
        (place / "series").mkdir()
        for number, slice_ in enumerate(_slices()[:6]):
            (place / f"series/{number:04d}.dcm").write_bytes(slice_)
    if target in ("flipped", "rights"):
        from benchmarks import fuzz_disk

        made: Callable[[bytes], None] = getattr(fuzz_disk, target)(place)
        return made
    (place / "cemri.nii.gz").write_bytes(b"abc")
    return {"volume": volume, "dicom": dicom, "card": card, "weights": weights, "table": table}.get(target, provenance)


def limit_time(seconds: float) -> None:
    """End what follows by `EscapedError` when it has taken so much processor time, or hangs; 0: no more."""

    def hang(*_: object) -> None:
        raise EscapedError("took too long")

    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, hang)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE * seconds)


def guarded(read: Callable[[bytes], None], place: Path, changing: bool = False) -> Callable[[bytes], None]:
    """One input: anything but an end without error or a `D3MError` with a way out is passed on."""
    from d3m.errors import D3MError

    watching = False
    own = str(place)

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if not watching:
            return
        if event == "open" and isinstance(arguments[2], int):
            writes = arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and not str(arguments[0]).startswith((own, "/dev/null")):
                raise EscapedError(f"wrote {arguments[0]}")
        elif event in FORBIDDEN or (event in CHANGES and not changing):
            raise EscapedError(event)

    sys.addaudithook(watch)

    def one(data: bytes) -> None:
        nonlocal watching
        watching = True
        limit_time(HANG_S)
        try:
            read(data)
        except D3MError as error:
            if not (error.message and error.hint):
                raise EscapedError("an error without a way out") from error
        finally:
            watching = False
            limit_time(0)

    return one


def bombs(place: Path) -> dict[str, Callable[[], object]]:
    """Hostile inputs below `place`, each with what reads it."""
    import numpy as np
    import pydicom

    from d3m.batch.cases import find_cases
    from d3m.batch.run import Row, write_summary
    from d3m.errors import D3MError
    from d3m.models.load import load_model
    from d3m.results.provenance import RESULT, read_provenance
    from d3m.system.folders import check_output
    from d3m.volumes.io.dicom.study import choose_series
    from d3m.volumes.preprocess.case import read_volume

    def packed() -> None:
        header = bytearray(_volumes()[0][1:353])
        header[40:48] = np.array([3, 700, 700, 700], "<i2").tobytes()
        header[70:74] = np.array([2, 8], "<i2").tobytes()
        with gzip.open(place / "a.nii.gz", "wb", 1) as f:
            f.write(bytes(header))
            for _ in range(328):
                f.write(bytes(2**20))
        read_volume(place / "a.nii.gz", "t1")

    def wide() -> None:
        header = bytearray(_volumes()[0][1:353])
        header[40:48] = np.array([3, 650, 650, 650], "<i2").tobytes()
        header[70:74] = np.array([2, 8], "<i2").tobytes()
        header[76:92] = np.array([1, 0.4, 0.4, 0.4], "<f4").tobytes()
        header[280:328] = np.c_[np.diag([-0.4, 0.4, 0.4]), np.zeros(3)].astype("<f4").tobytes()
        with (place / "wide.nii").open("wb") as f:  # as long as it says, and no room on the disk
            f.write(bytes(header))
            f.truncate(len(header) + 650**3)
        try:
            read_volume(place / "wide.nii", "t1")
        except D3MError as error:
            if error.kind == "machine":
                raise EscapedError(f"only the memory is a limit: {error}") from error
            raise

    def sparse() -> None:
        (place / "study").mkdir()
        for number, slice_ in enumerate(_slices()[:6]):
            (place / f"study/{number:04d}.dcm").write_bytes(slice_)
        last = pydicom.dcmread(place / "study/0005.dcm")
        start = len((place / "study/0005.dcm").read_bytes())
        with (place / "study/0005.dcm").open("ab") as f:
            f.write(b"\xfe\x7f\x01\x10OB\0\0" + (2 * 2**30).to_bytes(4, "little"))
            f.truncate(start + 2 * 2**30)
        assert last is not None
        choose_series(place / "study")

    def header() -> None:
        entries = {f"w{k}": {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]} for k in range(300_000)}
        text = json.dumps(entries).encode()
        data = len(text).to_bytes(8, "little") + text
        (place / "weights.safetensors").write_bytes(data)
        (place / "card.json").write_text(_card().replace("a" * 64, hashlib.sha256(data).hexdigest()))
        load_model(place)

    def endless() -> None:
        (place / "zero.nii.gz").symlink_to("/dev/zero")
        read_volume(place / "zero.nii.gz", "t1")

    def pipe() -> None:
        os.mkfifo(place / "pipe.nii.gz")
        read_volume(place / "pipe.nii.gz", "t1")

    def odd() -> None:
        out = place / "out"
        out.mkdir()
        for text in ('{"synthetic": Infinity}', "[" * 50_000, '{"files": {"../../x": {}}}', '{"files": NaN}', "7"):
            (out / "provenance.json").write_text(text)
            if read_provenance(out) is not None:
                raise EscapedError(f"passes for whole: {text[:40]}")
        check_output(out, RESULT, force=True)
        raise EscapedError("a folder of others would be replaced")

    def text() -> None:
        (place / "c.csv").write_text('t1,t2,flair,id\na,b,c,=SUM(A1)\nd,e,f,"\x1b[2Jx"\n')
        names = [case.id for case in find_cases(place / "c.csv")]
        write_summary(place / "s.csv", [Row(name, "failed", name, "", 0.0, None, name) for name in names])
        written = (place / "s.csv").read_text()
        if "\x1b" in written or "\n=" in written or ",=" in written:
            raise EscapedError(f"raw text in a table: {written!r}")

    return {"packed": packed, "wide": wide, "sparse": sparse, "header": header, "endless": endless, "pipe": pipe,
            "odd": odd, "text": text}  # fmt: skip


def try_bombs(place: Path) -> int:
    """Each hostile input in a process of its own, so that what it takes is seen; returns their number."""
    from d3m.errors import D3MError

    found = bombs(place)
    for name, read in found.items():
        number = os.fork()
        if number:
            _, status = os.waitpid(number, 0)
            if status:
                raise EscapedError(f"{name}: not survived ({status})")
            continue
        code = 1
        try:
            limit_time(3 * HANG_S)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            try:
                read()
            except D3MError as error:
                if not (error.message and error.hint):
                    raise EscapedError("an error without a way out") from error
            growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
            if growth > MAX_GROWTH_BYTES:
                raise EscapedError(f"took {growth / 2**20:.0f} MiB")
            code = 0
        except BaseException as error:
            os.write(2, f"{name}: {type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    return len(found)


def change(rng: random.Random, seeds: list[bytes]) -> bytes:
    """A valid file with some bytes flipped, cut, doubled, exchanged, or a number in it made absurd."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice([1, 1, 2, 4, 9])):
        at, way = rng.randrange(len(data) or 1), rng.randrange(7)
        if way == 0 and data:
            data[at % len(data)] = rng.randrange(256)
        elif way == 1:
            data[at : at + 4] = rng.choice(WORDS)
        elif way == 2:
            del data[at : at + rng.choice([1, 8, 300])]
        elif way == 3:
            data[at:at] = data[at : at + rng.choice([1, 30, 300])]
        elif way == 4:
            other = rng.choice(seeds)
            data[at : at + 40] = other[at : at + 40]
        elif way == 5:
            found = list(re.finditer(rb"-?\d+(\.\d+)?", bytes(data)))
            if found:
                match = rng.choice(found)
                data[match.start() : match.end()] = rng.choice(ABSURD)
        else:
            data[:400] = data[:400].replace(bytes([data[at % len(data)]]) if data else b"x", b"\x80")
    return bytes(data)


def next_input(target: str, rng: random.Random, seeds: list[bytes]) -> bytes:
    """An input by chance: a changed file, or for what a disk does just a choice."""
    return rng.randbytes(8) if target in ("flipped", "rights") else change(rng, seeds)


class Creep:
    """Memory that a process holds, looked at now and then."""

    def __init__(self) -> None:
        self.first = 0

    def look(self, tried: int) -> None:
        """After so many inputs; raises `EscapedError` where it has grown."""
        if tried == WARM_INPUTS:
            self.first = self._held()
        elif tried > WARM_INPUTS and tried % LOOK_EVERY == 0 and self.grown() > MAX_CREEP_BYTES:
            raise EscapedError(f"{self.grown() / 2**20:.0f} MiB more are held after {tried} inputs")

    def grown(self) -> int:
        """Bytes more than when it was warm; 0 before that."""
        return self._held() - self.first if self.first else 0

    @staticmethod
    def _held() -> int:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


def run_target(target: str, seconds: float, inputs: int, seed: int) -> None:
    """Try inputs for some time, or so many, in a process of its own: memory is limited, and a crash must not end the
    others."""
    place = Path(tempfile.mkdtemp(prefix="d3m-fuzz-"))
    try:
        if target == "bombs":
            print(f"Done {try_bombs(place)} runs", file=sys.stderr)
            return
        seeds = seeds_of(target)
        led = importlib.util.find_spec("atheris") is not None and not inputs
        if led:
            import atheris

            with atheris.instrument_imports(include=["d3m"], enable_loader_override=False):
                read = reader_of(target, place)
        else:
            read = reader_of(target, place)
        one = guarded(read, place, target in WRITING)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        if led:
            corpus = place / "corpus"
            corpus.mkdir()
            for number, seed in enumerate(seeds):
                (corpus / str(number)).write_bytes(seed)
            options = [f"-max_total_time={seconds:.0f}", f"-max_len={MAX_BYTES}", f"-seed={seed}", "-rss_limit_mb=0"]
            options += [f"-artifact_prefix={tempfile.gettempdir()}/d3m-fuzz-{target}-", "-print_final_stats=0"]
            atheris.Setup([sys.argv[0], *options, str(corpus)], one)
            atheris.Fuzz()
        rng, tried, until = random.Random(seed), 0, time.monotonic() + seconds
        creep = Creep()
        while tried < inputs if inputs else time.monotonic() < until:
            data = next_input(target, rng, seeds)
            tried += 1
            try:
                one(data)
                creep.look(tried)
            except BaseException:
                kept = Path(tempfile.gettempdir()) / f"d3m-fuzz-{target}-{tried}"
                kept.write_bytes(data)
                print(f"Test unit written to {kept}", file=sys.stderr)
                raise
        print(f"Done {tried} runs, {creep.grown() / 2**20:.0f} MiB more are held", file=sys.stderr)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def main() -> int:
    """Try every target and print how many inputs each survived."""
    parser = argparse.ArgumentParser(description="Feeds the readers with damaged and hostile files.")
    parser.add_argument("given", nargs="*", metavar="seconds or target")
    parser.add_argument("--inputs", type=int, default=0, help="so many for each target, however long it takes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", choices=TARGETS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    numbers = [float(one) for one in options.given if one not in TARGETS]
    seconds = numbers[0] if numbers else SECONDS
    if options.child:
        run_target(options.child, seconds, options.inputs, options.seed)
        return 0
    failed = 0
    led = importlib.util.find_spec("atheris") is not None and not options.inputs
    print("with atheris" if led else "without atheris: changed at random")
    for target in [one for one in options.given if one in TARGETS] or TARGETS:
        command = [sys.executable, __file__, "--child", target, str(seconds)]
        command += ["--inputs", str(options.inputs), "--seed", str(options.seed)]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
        tried = re.findall(r"Done (\d+) runs(.*)", done.stderr)
        if done.returncode or not tried:
            failed += 1
            print(done.stderr[-3000:])
            print(f"{target}: an input was not survived", flush=True)
        else:
            count, held = tried[-1]
            print(f"{target}: {int(count):,} inputs tried, each read or refused with a sentence{held}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
