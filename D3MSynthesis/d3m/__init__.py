"""D3M: a deformation-driven diffusion model that synthesises contrast-enhanced brain MRI.

The package knows nothing of 3D Slicer or Qt. Importing it does not import torch.
Its images are synthetic and for research use only.
"""

__version__ = "0.1.0"
