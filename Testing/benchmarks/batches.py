"""How many augmented slices a second the training gets here.

    python Testing/benchmarks/batches.py

Prints slices a second for one process with one thread and for all cores, on a made-up cache of ordinary size.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from d3m.models.recipes import DEFAULT
from d3m_training.data.batches import Batches, BatchSettings
from d3m_training.data.cache import Prepared, open_entry, write_entry

PATIENTS, SLICES, HEIGHT, WIDTH, DRAWS = 4, 140, 192, 160, 30


def main() -> None:
    """Measure and print."""
    rng, cores = np.random.default_rng(0), torch.get_num_threads()
    with tempfile.TemporaryDirectory() as place:
        entries = []
        for k in range(PATIENTS):
            scans = rng.random((SLICES, 4, HEIGHT, WIDTH), np.float32).astype(np.float16)
            regions = np.ones((SLICES, 2, HEIGHT, WIDTH), np.uint8)
            regions[:, 1] = rng.integers(0, 4, (SLICES, 1, 1))
            write_entry(Path(place), Prepared(f"patient{k}", scans, regions, True), "benchmark")
            entries.append(open_entry(Path(place), f"patient{k}"))
        batches = Batches(entries, BatchSettings(context=DEFAULT.network.context), seed=0)
        for threads in sorted({1, cores}):
            torch.set_num_threads(1)  # the drawing threads share the cores
            for number in range(3):
                batches.draw(number)
            start = time.perf_counter()
            for _ in batches.ahead(range(DRAWS), workers=threads):
                pass
            rate = DRAWS * batches.settings.size / (time.perf_counter() - start)
            print(f"{threads} drawing threads: {rate:.0f} augmented slices a second, crops of {batches.settings.crop}")


if __name__ == "__main__":
    main()
