"""What more reverse steps do to one sample: `python steps.py DATA [PATIENTS]`.

Each patient of a validation folder is synthesised as `preview` does (one sample, every third slice), in 1, 4, 8, 16 and
32 steps, and measured as `d3m-training validate` does. Printed: a Markdown table of means over the patients.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from d3m.models.load import load_model
from d3m.models.store import find_model
from d3m.options import SynthesisOptions
from d3m.synthesis import Synthesis
from d3m_training.data.datasets import check, find_patients, read_patient
from d3m_training.data.labels import relabelling
from d3m_training.evaluate import Evaluated, evaluate_patient

STEPS = (1, 4, 8, 16, 32)
QUANTITIES = {
    "psnr_brain": "PSNR brain",
    "psnr_tumour": "tumour",
    "psnr_enhancing": "enhancing",
    "contrast": "contrast",
    "auc_et": "AUC",
    "dice": "Dice",
    "false_positive_ml": "false (ml)",
    "false_negative_ml": "missed (ml)",
}


def main(data: Path, count: int | None) -> None:
    """Print the table; a line for each patient as it is done goes to standard error."""
    model = load_model(find_model(None))
    rows: dict[int, list[Evaluated]] = {steps: [] for steps in STEPS}
    checked = check(find_patients(data)[0], workers=1)
    for patient in checked.patients[:count]:
        case, t1c, label = read_patient(patient, relabelling(checked.schemes[patient.id]))
        for steps in STEPS:
            synthesis = Synthesis(model, SynthesisOptions(quality="preview", device="cpu", steps=steps))
            rows[steps].append(evaluate_patient(patient.id, case, t1c, label, synthesis)[0].row)
        print(patient.id, file=sys.stderr, flush=True)
    print(f"| steps | {' | '.join(QUANTITIES.values())} |\n|---|{'---|' * len(QUANTITIES)}")
    for steps, found in rows.items():
        cells = [f"{np.nanmean([getattr(row, name) for row in found]):.3f}" for name in QUANTITIES]
        print(f"| {steps} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
