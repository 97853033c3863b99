"""Where the time of `d3m synthesize --example --quality preview` goes: `python everyday.py [RUNS]`.

Each run is a process of its own, as a user starts it. Seconds of the clock, and of all cores together; the runs'
least, since other programs only ever add to it.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
PHASES = {
    "start": "Python and what reads scans are imported",
    "read": "scans are read, checked and placed; the brain is found; torch is imported",
    "model": "the model is loaded",
    "prepare": "scans are put on the model's grid",
    "sample": "the network",
    "restore": "the result is brought back onto T1's grid",
    "write": "comparison, figure and files",
}
CHILD = """
import time
marks = [("start", time.perf_counter(), time.process_time())]
import gc, json, sys
from d3m import api
from d3m.commands.synthesize import _enhancing
from d3m.models.store import find_sample
from d3m.system.console import YOUNG_OBJECTS

gc.set_threshold(YOUNG_OBJECTS)  # as the command does

def mark(event):
    if event.stage != marks[-1][0]:
        marks.append((event.stage, time.perf_counter(), time.process_time()))

s = find_sample()
api.synthesize(
    t1=s.t1, t2=s.t2, flair=s.flair, reference=s.t1c, reference_mask=_enhancing(s.seg), out=sys.argv[1],
    quality="preview", progress=mark,
)
marks.append(("end", time.perf_counter(), time.process_time()))
print(json.dumps(marks))
"""


def run(out: Path) -> dict[str, tuple[float, float]]:
    """Seconds of the clock and of the cores for each phase of one run."""
    env = os.environ | {"PYTHONPATH": str(CHECKOUT / "D3MSynthesis"), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run([sys.executable, "-c", CHILD, str(out)], env=env, capture_output=True, text=True, check=True)
    marks = json.loads(done.stdout.splitlines()[-1])
    phases: dict[str, tuple[float, float]] = {}
    for (name, wall, cpu), (_, wall_end, cpu_end) in itertools.pairwise(marks):
        before = phases.get(name, (0.0, 0.0))
        phases[name] = (before[0] + wall_end - wall, before[1] + cpu_end - cpu)
    return phases


def main(count: int) -> None:
    """Print the split."""
    with tempfile.TemporaryDirectory() as place:
        runs = [run(Path(place) / str(number)) for number in range(count)]
    best = {name: tuple(min(one[name][k] for one in runs) for k in (0, 1)) for name in runs[0]}
    print(f"{'':8s} {'clock':>8s} {'cores':>8s}")
    for name, (wall, cpu) in best.items():
        print(f"{name:8s} {wall:7.2f}s {cpu:7.2f}s  {PHASES.get(name, '')}")
    print(f"{'all':8s} {sum(w for w, _ in best.values()):7.2f}s {sum(c for _, c in best.values()):7.2f}s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
