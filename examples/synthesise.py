"""A synthetic contrast-enhanced MRI of one patient: `python synthesise.py [T1 T2 FLAIR [OUT]]`.

Without arguments the simulated patient that ships with the software is taken.
"""

import sys

import d3m
from d3m.models.store import find_sample

sample = find_sample()
t1, t2, flair = sys.argv[1:4] or (sample.t1, sample.t2, sample.flair)
out = sys.argv[4] if len(sys.argv) > 4 else "synthetic"

result = d3m.synthesize(t1=t1, t2=t2, flair=flair, out=out, quality="preview", seed=0, force=True)

print(f"Predicted enhancing tumour: {result.enhancing_volume_ml:.1f} ml")
for notice in result.notices:
    print(f"Notice: {notice.message}")
print(f"Figure and volumes are in {out}; they are synthetic and for research use only.")
