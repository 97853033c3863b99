"""What the panel remembers in the scene."""

from typing import Annotated

from slicer.parameterNodeWrapper import Default, WithinRange, parameterNodeWrapper

import slicer


@parameterNodeWrapper
class D3MSynthesisParameterNode:
    """Inputs and settings of the panel; saved with the scene. No postponed annotations: the wrapper reads types."""

    t1: slicer.vtkMRMLScalarVolumeNode
    t2: slicer.vtkMRMLScalarVolumeNode
    flair: slicer.vtkMRMLScalarVolumeNode
    brainMask: slicer.vtkMRMLScalarVolumeNode | slicer.vtkMRMLSegmentationNode | None
    reference: slicer.vtkMRMLScalarVolumeNode
    steps: Annotated[int, WithinRange(0, 1000), Default(0)]
    """Reverse steps; 0 takes the quality's."""
    samples: Annotated[int, WithinRange(0, 32), Default(0)]
    """Samples; 0 takes the quality's."""
    seed: Annotated[int, WithinRange(0, 999999), Default(0)]
    keepSteps: Annotated[bool, Default(True)]
    python: str
    """Interpreter that has torch, if it is not Slicer's own."""
