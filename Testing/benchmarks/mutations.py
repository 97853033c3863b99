"""Breaks promises in a copy of the product, one at a time, and finds out whether the harness notices.

    python Testing/benchmarks/mutations.py [name ...]

Each mutation is a change of a line or two in a copy of the sources; then the benchmark or the test that must catch it
runs there, that alone, and has to fail. All of them have to pass without a change, which is tried first. Exit code 1 if
one was not caught, if its place in the sources is gone, or if what must catch it fails anyhow. What needs root or Linux
is left out elsewhere, and said.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
COPIED = ("D3MSynthesis/d3m", "D3MTraining/d3m_training", "D3MBenchmark/d3m_benchmark", "Testing", "Resources",
          "pyproject.toml")  # fmt: skip
FAULTS = ("Testing/benchmarks/faults.py", "0")
"""Kills from the first change on that touches what stands there, and no others."""
LEFT_OUT = "not tried, since what must catch it cannot run here"


@dataclass(frozen=True)
class Mutation:
    """A promise that is broken."""

    name: str
    file: str
    old: str
    new: str
    command: tuple[str, ...]
    """What must fail: a script with its arguments, or a test."""


MUTATIONS = (
    Mutation(
        "remove, then copy, instead of the exchange",
        "D3MSynthesis/d3m/system/folders.py",
        "    if swap(partial, out):\n        return\n",
        "    shutil.rmtree(out)\n    shutil.copytree(partial, out)\n    return\n",
        (*FAULTS, "result"),
    ),
    Mutation(
        "an empty slice in every DICOM result",
        "D3MSynthesis/d3m/results/dicom/write.py",
        "            for number, dataset in enumerate(datasets, 1):\n",
        "            datasets[len(datasets) // 2].PixelData = bytes(len(datasets[0].PixelData))\n"
        "            for number, dataset in enumerate(datasets, 1):\n",
        (*FAULTS, "dicom"),
    ),
    Mutation(
        "no limit to the number of voxels",
        "D3MSynthesis/d3m/volumes/io/files.py",
        "MAX_VOXELS = 2**28",
        "MAX_VOXELS = 2**62",
        ("Testing/benchmarks/fuzz.py", "0", "bombs"),
    ),
    Mutation(
        "the older result is not looked at again",
        "D3MSynthesis/d3m/system/folders.py",
        "            _still_replaceable(partial, place, kind, replace)\n",
        "",
        ("Testing/engine/test_folders.py::test_changed_during_the_work",),
    ),
    Mutation(
        "whatever lies in a folder is ours",
        "D3MSynthesis/d3m/system/manifest.py",
        '            return Standing("changed", name, True)\n',
        "            continue\n",
        ("Testing/engine/test_folders.py::test_what_somebody_did_in_a_result_stays",),
    ),
    Mutation(
        "the clock decides over a lock",
        "D3MSynthesis/d3m/system/locks.py",
        "            if got is False:\n                return None\n",
        "",
        ("Testing/engine/test_locks.py::test_clock_that_jumps",),
    ),
    Mutation(
        "a file's rights are fixed",
        "D3MSynthesis/d3m/system/storage.py",
        "            path.chmod(stat.S_IMODE(probe.stat().st_mode))\n",
        "            path.chmod(0o644)\n",
        ("Testing/engine/test_folder_rights.py::test_umask_is_honoured",),
    ),
    Mutation(
        "a folder's rights are fixed",
        "D3MSynthesis/d3m/system/folders.py",
        "            folder.mkdir()\n            return folder\n",
        "            folder.mkdir()\n            folder.chmod(0o755)\n            return folder\n",
        ("Testing/engine/test_folder_rights.py::test_share_of_a_lab",),
    ),
    Mutation(
        "a link is replaced by a folder",
        "D3MSynthesis/d3m/system/folders.py",
        "    place = Path(os.path.realpath(out))\n",
        "    place = out.absolute()\n",
        ("Testing/engine/test_folders.py::test_links_are_followed_or_refused",),
    ),
    Mutation(
        "a header may name any file",
        "D3MSynthesis/d3m/volumes/io/files.py",
        "    if not inside or ",
        "    if ",
        ("Testing/engine/test_bounds.py::test_half_of_a_pair_that_leads_elsewhere",),
    ),
    Mutation(
        "a table may hold formulas",
        "D3MSynthesis/d3m/system/text.py",
        '        return "\'" + cell\n',
        "        return cell\n",
        ("Testing/benchmarks/fuzz.py", "0", "bombs"),
    ),
    Mutation(
        "workers let everybody in",
        "D3MSynthesis/d3m/batch/workers.py",
        "    security = Security.temporary()\n"
        '    places = {"host": LOOPBACK, "protocol": "tls://", "security": security, ',
        '    security = None\n    places = {"host": LOOPBACK, "protocol": "tcp://", "security": security, ',
        ("Testing/engine/test_cluster.py::test_another_user_of_the_machine_stays_outside",),
    ),
    Mutation(
        "a training begins in anybody's folder",
        "D3MTraining/d3m_training/train/trainer.py",
        '    check_place_of_work(folder, _is_run(folder), "a training", "--out")\n',
        "",
        ("Testing/training/test_training_folders.py::test_work_that_is_resumed_begins_in_no_folder_of_others[train]",),
    ),
    Mutation(
        "of a cache the bytes alone are compared",
        "D3MTraining/d3m_training/data/cache.py",
        "bool(as_written and _content_hash",
        "bool(_content_hash",
        ("Testing/training/test_cache.py::test_flipped_bits_in_a_header",),
    ),
    Mutation(
        "of a scan packed and unpacked one is taken",
        "D3MSynthesis/d3m/batch/cases.py",
        "        if contrast in CONTRASTS:\n",
        '        if contrast in CONTRASTS and len({ending.removesuffix(".gz") for ending in endings}) > 1:\n',
        ("Testing/engine/test_values_and_coverage.py::test_two_files_for_one_contrast",),
    ),
    Mutation(
        "a ragged edge is a gap",
        "D3MSynthesis/d3m/volumes/preprocess/coverage.py",
        "    deep &= (sizes_ml >= MIN_DEEP_ML)[pieces]\n",
        "",
        ("Testing/engine/test_values_and_coverage.py::test_a_ragged_edge_is_no_gap",),
    ),
)


def run(command: tuple[str, ...], place: Path) -> tuple[int, str]:
    """Run a script or a test of the copy: its exit code, and the end of what it said."""
    program = [sys.executable, *([] if command[0].endswith(".py") else ["-m", "pytest", "-q", "-x"])]
    folders = ("D3MSynthesis", "D3MTraining", "D3MBenchmark", "Testing")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(str(place / name) for name in folders)}
    done = subprocess.run([*program, *command], cwd=place, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout + done.stderr)[-300:]


def caught(mutation: Mutation, place: Path) -> str:
    """Empty if the mutation makes its command fail; else what is wrong."""
    path = place / mutation.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        return "its place in the sources is gone"
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        code, said = run(mutation.command, place)
    finally:
        path.write_text(text, encoding="utf-8")
    if code == 0 and re.search(r"\d skipped", said) and not re.search(r"\d passed", said):
        return LEFT_OUT
    return "" if code == 1 else f"NOT caught, exit code {code}: {said}"  # 1 is what all give when something was found


def together(commands: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Commands that do the same as these in fewer processes: tests in one, operations of one benchmark in one."""
    tests = tuple(dict.fromkeys(command[0] for command in commands if not command[0].endswith(".py")))
    scripts: dict[tuple[str, ...], list[str]] = {}
    for command in commands:
        if command[0].endswith(".py"):
            scripts.setdefault(command[:2], []).extend(command[2:])
    return [*([tests] if tests else []), *((*start, *dict.fromkeys(names)) for start, names in scripts.items())]


def main() -> int:
    """Try every mutation."""
    wanted, missed = sys.argv[1:], 0
    mutations = [mutation for mutation in MUTATIONS if not wanted or mutation.name in wanted]
    with tempfile.TemporaryDirectory(prefix="d3m-mutations-") as name:
        place = Path(name)
        for part in COPIED:
            source, target = CHECKOUT / part, place / part
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(source, target)
        for command in together([mutation.command for mutation in mutations]):
            code, said = run(command, place)
            if code:
                missed += 1
                print(f"fails without any mutation: {' '.join(command)}: {said}", flush=True)
        for mutation in mutations:
            problem = caught(mutation, place)
            missed += problem not in ("", LEFT_OUT)
            print(f"{mutation.name}: {problem or 'caught'}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
