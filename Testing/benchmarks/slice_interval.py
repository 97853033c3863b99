"""What computing every N-th slice costs in accuracy: `python slice_interval.py DATA [PATIENTS]`.

Each patient of a validation folder is synthesised as `preview` does, from every slice and from every second, third and
fourth one; what lies between is interpolated. Printed: how far the result is from the one of all slices, and the Dice
against the labels of both.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel
import numpy as np

from d3m import metrics
from d3m.models.load import load_model
from d3m.models.store import find_model
from d3m.options import SynthesisOptions
from d3m.synthesis import Synthesis
from d3m.volumes.preprocess.case import read_case
from d3m_training.data.cache import ENHANCING
from d3m_training.data.datasets import find_patients
from d3m_training.data.labels import unify
from d3m_training.data.preparation import check

INTERVALS = (2, 3, 4)


def main(data: Path, count: int | None) -> None:
    """Print a row for each patient and interval."""
    model = load_model(find_model(None))
    print(f"{'patient':24s} interval   PSNR to all   Dice with all   Dice with truth (of all)")
    checked = check(find_patients(data)[0], workers=1)
    for patient in checked.patients[:count]:
        case = read_case(patient.t1, patient.t2, patient.flair)
        results = {}
        for interval in (1, *INTERVALS):
            options = SynthesisOptions(quality="preview", device="cpu", slice_interval=interval)
            results[interval] = Synthesis(model, options).run(case)
        full = results[1]
        low, high = np.percentile(case.t1.data[case.brain], (0.5, 99.5))
        truth = None
        if patient.seg is not None:
            labels = np.asarray(nibabel.load(patient.seg).dataobj, np.float32)
            truth = unify(labels, checked.schemes[patient.id]) == ENHANCING
        for interval in INTERVALS:
            made = results[interval]
            psnr = metrics.psnr(made.cemri / (high - low), full.cemri / (high - low), case.brain)
            row = f"{patient.id:24s} {interval:8d} {psnr:10.1f} dB"
            row += f"   {metrics.dice(made.enhancement_mask, full.enhancement_mask):13.3f}"
            if truth is not None and truth.any():
                own, all_of_it = (metrics.dice(one.enhancement_mask, truth) for one in (made, full))
                row += f"   {own:.3f} ({all_of_it:.3f})"
            print(row, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
