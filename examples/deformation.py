"""Read the deformation of a result with SimpleITK: `python deformation.py RESULT`, a folder that `synthesise.py` wrote.

The field is a displacement from a point of the first sample's image to the point that its value was taken from, at
the last reverse step. The file holds RAS millimetres, as NIfTI wants it; SimpleITK turns it into its own LPS.
"""

import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk

folder = Path(sys.argv[1])
field = sitk.ReadImage(str(folder / "deformation.nii.gz"), sitk.sitkVectorFloat64)
image = sitk.ReadImage(str(folder / "first_sample.nii.gz"), sitk.sitkFloat32)

millimetres = np.linalg.norm(sitk.GetArrayFromImage(field), axis=-1)
print(f"Longest displacement {millimetres.max():.2f} mm, mean {millimetres.mean():.3f} mm")

# The same field moves anything that lies in this space, here the image itself; points are moved with TransformPoint.
transform = sitk.DisplacementFieldTransform(sitk.Image(field))
middle = image.TransformContinuousIndexToPhysicalPoint([n / 2 for n in image.GetSize()])
print(f"The middle {np.round(middle, 1)} was taken from {np.round(transform.TransformPoint(middle), 1)} (LPS)")
moved = sitk.Resample(image, image, transform, sitk.sitkLinear, 0.0)
sitk.WriteImage(moved, str(folder.with_name(folder.name + "_moved.nii.gz")))
