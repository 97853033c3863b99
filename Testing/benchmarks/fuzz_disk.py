"""What a disk and its rights can do to files that were whole: two targets of `fuzz.py`.

"flipped": bits of results, weights, cache entries and checkpoints change; none may pass for what was written. "rights":
files and folders lose rights while something reads or writes there (as another user where root runs it); what lay there
stays, old or new, and whoever cannot go on says so.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

NOBODY = 65534
MODES = (0o000, 0o100, 0o200, 0o300, 0o400, 0o500, 0o600)


class LostError(BaseException):
    """Damage passed for what was written, or something was lost; not an Exception, so that nothing swallows it."""


def flipped(place: Path) -> Callable[[bytes], None]:
    """Flips bits of one file, which the input chooses, and asks whoever would use it."""
    import numpy as np
    import torch
    from safetensors import SafetensorError

    from benchmarks.faults import make_model
    from d3m.errors import D3MError
    from d3m.models.load import load_model
    from d3m.results.provenance import FILE_NAME, RESULT, add_files, read_provenance
    from d3m.system.folders import whole_folder
    from d3m_training.data.cache import Prepared, is_whole, open_entry, write_entry
    from d3m_training.train.checkpoint import read_checked, write_atomically

    rng = np.random.default_rng(0)
    with whole_folder(place / "result", RESULT) as folder:
        (folder / "cemri.nii.gz").write_bytes(rng.bytes(3000))
        (folder / "figure.png").write_bytes(rng.bytes(3000))
        (folder / FILE_NAME).write_text(add_files({"inputs": {}}, folder))
    model = make_model(place)
    scans = rng.random((4, 4, 16, 16), np.float32).astype(np.float16)
    write_entry(place / "cache", Prepared("p", scans, np.ones((4, 2, 16, 16), np.uint8), True), "key")
    tensors = {"a": torch.ones(20, 20), "b": torch.arange(64.0)}
    write_atomically(place / "run/checkpoint.safetensors", tensors, {"iteration": "3"})

    def result() -> bool:
        return read_provenance(place / "result") is not None

    def weights() -> bool:
        try:
            load_model(model)
        except D3MError as error:
            return not error.hint
        return True

    def entry() -> bool:
        if not is_whole(place / "cache", "p", thorough=True):
            return False
        try:
            found = open_entry(place / "cache", "p")
        except (OSError, ValueError, KeyError, TypeError):  # as a training does
            return False
        # what changes nothing, such as a blank in a header, may pass
        return not (np.array_equal(found.scans, scans) and (np.asarray(found.regions) == 1).all() and found.labelled)

    def checkpoint() -> bool:
        try:
            found, said = read_checked(place / "run/checkpoint.safetensors")
        except (SafetensorError, OSError, ValueError):
            return False
        same = found.keys() == tensors.keys() and all(torch.equal(found[name], tensors[name]) for name in tensors)
        return not (same and said["iteration"] == "3")

    asked = [(place / f"result/{name}", result) for name in ("cemri.nii.gz", "figure.png")]
    asked += [(model / "weights.safetensors", weights)]
    asked += [(place / f"cache/p/{name}", entry) for name in ("scans.npy", "regions.npy", "entry.json")]
    asked += [(place / "run/checkpoint.safetensors", checkpoint)]

    def one(data: bytes) -> None:
        chance = random.Random(data)
        path, passes = chance.choice(asked)
        before = path.read_bytes()
        after = bytearray(before)
        reach = chance.choice([len(before), min(len(before), 200)])  # headers more often than their share
        for _ in range(chance.choice([1, 1, 2, 5])):
            after[chance.randrange(reach)] ^= 1 << chance.randrange(8)
        path.write_bytes(after)
        try:
            if bytes(after) != before and passes():
                raise LostError(f"flipped bits in {path.name} passed")
        finally:
            path.write_bytes(before)

    return one


def rights(place: Path) -> Callable[[bytes], None]:
    """Takes rights away, which the input chooses, and lets something read or write there."""
    from benchmarks.faults import make_model
    from benchmarks.fuzz import seeds_of
    from d3m.batch.cases import find_cases
    from d3m.batch.run import Row, write_summary
    from d3m.errors import D3MError
    from d3m.models.load import load_model
    from d3m.results.provenance import RESULT, read_provenance
    from d3m.system.folders import check_output, claim, tidy, whole_folder
    from d3m.system.manifest import standing
    from d3m.volumes.io.dicom.study import choose_series
    from d3m.volumes.preprocess.case import read_volume

    given, made = place / "given", place / "made"
    for folder in (given / "series", given / "cohort/P1", made / "others"):
        folder.mkdir(parents=True)
    (given / "t1.nii").write_bytes(seeds_of("volume")[0][1:])
    (made / "others/thesis.txt").write_text("years of work")
    for number, slice_ in enumerate(seeds_of("dicom")[:4]):
        (given / f"series/{number}.dcm").write_bytes(slice_)
    for name in ("t1", "t2", "flair"):
        (given / f"cohort/P1/P1_{name}.nii").write_bytes(b"scan")
    model = make_model(given)
    rows = [Row("P1", "done", "", "", 1.0, 2.0, "")]

    def write(version: bytes, out: Path = made / "out") -> None:
        check_output(out, RESULT, True, [given])
        with claim(out), whole_folder(out, RESULT) as folder:
            (folder / "cemri.nii.gz").write_bytes(version)

    actions: Sequence[Callable[[], object]] = (
        lambda: read_volume(given / "t1.nii", "t1"),
        lambda: choose_series(given / "series"),
        lambda: find_cases(given / "cohort"),
        lambda: load_model(model),
        lambda: read_provenance(made / "out"),
        lambda: write_summary(made / "others/summary.csv", rows),
        lambda: write(b"new"),
        lambda: write(b"new", made / "deeper/out"),
    )

    def attempt(action: Callable[[], object]) -> None:
        try:
            action()
        except D3MError as error:
            if not (error.message and error.hint):
                raise LostError("an error without a way out") from error

    write(b"old")
    for action in actions:  # what is imported late is imported now: another user may not be able to
        attempt(action)
    if os.getuid() == 0:
        for path in (place, *place.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)

    def one(data: bytes) -> None:
        chance = random.Random(data)
        paths = sorted(p for p in place.rglob("*") if not p.is_symlink())
        chosen = sorted(chance.sample(paths, chance.choice([1, 1, 2])))
        modes = [stat.S_IMODE(path.stat().st_mode) for path in chosen]
        for path in reversed(chosen):  # the deeper one first
            path.chmod(chance.choice(MODES))
        try:
            attempt(chance.choice(actions))
        finally:
            for path, mode in zip(chosen, modes, strict=True):
                if os.path.lexists(path):  # a folder may have been exchanged with a new one
                    path.chmod(mode)
        tidy(made / "out")
        if standing(made / "out", RESULT).state != "ours":
            raise LostError(f"the result: {standing(made / 'out', RESULT)}")
        if (made / "out/cemri.nii.gz").read_bytes() not in (b"old", b"new"):
            raise LostError("the result is neither the old nor the new one")
        if (made / "others/thesis.txt").read_text() != "years of work":
            raise LostError("a file of somebody else")

    return one
