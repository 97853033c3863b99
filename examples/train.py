"""Train on a folder of BraTS-style patients, from files to a model: `python train.py DATA WORK [ITERATIONS]`.

DATA holds one folder a patient (ID_t1, _t2, _flair, _t1ce, _seg, each .nii.gz); folders train, validation and test in
it decide the split, else it is drawn. WORK is a folder for everything that is made; started again, training resumes.
"""

import subprocess
import sys
from pathlib import Path

data, work = Path(sys.argv[1]), Path(sys.argv[2])
iterations = sys.argv[3] if len(sys.argv) > 3 else "3000"


def run(*arguments: object) -> None:
    """One command of the training, or an end with its message."""
    subprocess.run([sys.executable, "-m", "d3m_training", *map(str, arguments)], check=True)


run("prepare", data, "--cache", work / "cache")
run("train", "--cache", work / "cache", "--out", work / "run", "--iterations", iterations)
run("export", "--run", work / "run", "--out", work / "mine")
print(f"Use it: d3m synthesize --model {work / 'mine'} --t1 ... --t2 ... --flair ... --out result")
