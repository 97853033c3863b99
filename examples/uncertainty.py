"""How far off the image is likely to be, from several samples: `python uncertainty.py [T1 T2 FLAIR [OUT]]`.

Scans are read once and the model is loaded once; the result is written with nibabel, as any other array would be.
"""

import sys

import nibabel
import numpy as np

import d3m
from d3m.models.store import find_sample

sample = find_sample()
t1, t2, flair = sys.argv[1:4] or (sample.t1, sample.t2, sample.flair)
out = sys.argv[4] if len(sys.argv) > 4 else "uncertainty.nii.gz"

case = d3m.read_case(t1, t2, flair)
synthesis = d3m.Synthesis(d3m.load_model(), d3m.SynthesisOptions(quality="preview", samples=4))
result = synthesis.run(case)

assert result.uncertainty is not None  # None for a single sample
enhancement = np.abs(result.subtraction)[case.brain].mean()
uncertainty = result.uncertainty[case.brain].mean()
print(f"Mean change against T1 in the brain {enhancement:.1f}, mean {result.uncertainty_is} {uncertainty:.1f}")
nibabel.save(nibabel.Nifti1Image(result.uncertainty, case.t1.affine), out)
