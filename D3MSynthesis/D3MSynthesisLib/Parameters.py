"""What the panel remembers in the scene."""

import enum
import typing
from typing import Annotated

from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import Default, WithinRange, parameterNodeWrapper

import slicer


class Quality(enum.Enum):
    """How much sampling a user pays for; the values are the engine's."""

    PREVIEW = "preview"
    STANDARD = "standard"
    BEST = "best"

    def label(self) -> str:
        """What the panel calls it."""
        return {
            Quality.PREVIEW: _("Preview (fastest)"),
            Quality.STANDARD: _("Standard"),
            Quality.BEST: _("Best (slowest)"),
        }[self]


class Picture(enum.Enum):
    """What the slice views show of a run; the values are `Pictures.PICTURES`."""

    CEMRI = "cemri"
    SUBTRACTION = "subtraction"
    SAMPLE = "sample"

    def label(self) -> str:
        """What the panel calls it."""
        return {
            Picture.CEMRI: _("Synthetic CEMRI"),
            Picture.SUBTRACTION: _("Subtraction (synthetic minus T1)"),
            Picture.SAMPLE: _("First sample by itself, with its deformation and steps"),
        }[self]


class Overlay(enum.Enum):
    """What lies over the picture; the values are `Pictures.OVERLAYS`."""

    NONE = "none"
    SUBTRACTION = "subtraction"
    PROBABILITY = "probability"
    UNCERTAINTY = "uncertainty"
    WHOLE_TUMOUR = "wholeTumour"

    def label(self) -> str:
        """What the panel calls it."""
        return {
            Overlay.NONE: _("Nothing"),
            Overlay.SUBTRACTION: _("Subtraction, in colours"),
            Overlay.PROBABILITY: _("Probability of enhancing tumour"),
            Overlay.UNCERTAINTY: _("Uncertainty: how far off it may be"),
            Overlay.WHOLE_TUMOUR: _("Probability of tumour, oedema included"),
        }[self]


class Deformation(enum.Enum):
    """How the deformation is drawn; the values are `Field.MODES`."""

    OFF = "off"
    MAGNITUDE = "magnitude"
    JACOBIAN = "jacobian"
    GRID = "grid"
    ARROWS = "arrows"

    def label(self) -> str:
        """What the panel calls it."""
        return {
            Deformation.OFF: _("Off"),
            Deformation.MAGNITUDE: _("Magnitude in millimetres"),
            Deformation.JACOBIAN: _("Tissue gained or lost (Jacobian)"),
            Deformation.GRID: _("Grid"),
            Deformation.ARROWS: _("Arrows"),
        }[self]


class StepImage(enum.Enum):
    """Which image of a step is replayed; the values are those of `Pictures.Look`."""

    BEFORE = "before"
    AFTER = "after"

    def label(self) -> str:
        """What the panel calls it."""
        return {StepImage.BEFORE: _("before the warp"), StepImage.AFTER: _("after the warp")}[self]


MaskNode = slicer.vtkMRMLScalarVolumeNode | slicer.vtkMRMLLabelMapVolumeNode | slicer.vtkMRMLSegmentationNode | None
"""A selector lists exactly the classes that are named here: label maps too, although they are scalar volumes."""


@parameterNodeWrapper
class D3MSynthesisParameterNode:
    """Inputs and settings of the panel; saved with the scene. No postponed annotations: the wrapper reads types."""

    t1: slicer.vtkMRMLScalarVolumeNode
    t2: slicer.vtkMRMLScalarVolumeNode
    flair: slicer.vtkMRMLScalarVolumeNode
    adc: slicer.vtkMRMLScalarVolumeNode
    """For models that take it; likewise `swi`."""
    swi: slicer.vtkMRMLScalarVolumeNode
    brainMask: MaskNode
    reference: slicer.vtkMRMLScalarVolumeNode
    referenceMask: MaskNode
    emptied: str
    """Scans whose selectors the user emptied, separated by spaces: they are not filled by names."""
    acrossStudies: bool
    """Scans may be of several examinations of one patient."""
    allFrames: bool
    """Of sequences every frame, one after the other."""
    enhancementMask: MaskNode
    """To synthesize from; None: the mask of the run that is shown."""

    model: str
    """Name of a model; empty: the one that ships."""
    quality: Annotated[Quality, Default(Quality.STANDARD)]
    steps: Annotated[int, WithinRange(0, 1000), Default(0)]
    """Reverse steps; 0 takes the quality's."""
    samples: Annotated[int, WithinRange(0, 32), Default(0)]
    """Samples; 0 takes the quality's."""
    seed: Annotated[int, WithinRange(0, 999999), Default(0)]
    device: Annotated[str, Default("auto")]
    keepSteps: Annotated[bool, Default(True)]
    python: str
    """Interpreter that has torch, if it is not Slicer's own."""

    maskVisible: Annotated[bool, Default(True)]
    maskFill: Annotated[bool, Default(False)]
    maskOutline: Annotated[bool, Default(True)]
    maskOpacity: Annotated[float, WithinRange(0.0, 1.0), Default(0.3)]
    picture: Annotated[Picture, Default(Picture.CEMRI)]
    overlay: Annotated[Overlay, Default(Overlay.NONE)]
    overlayOpacity: Annotated[float, WithinRange(0.0, 1.0), Default(0.6)]
    deformation: Annotated[Deformation, Default(Deformation.OFF)]
    stepImage: Annotated[StepImage, Default(StepImage.AFTER)]


def parametersOf(node):
    """The parameters in a node; a choice that this version does not know, in a scene of another one, is made again.

    Args:
        node: The module's parameter node.

    Returns:
        A `D3MSynthesisParameterNode`.
    """
    for name, annotation in D3MSynthesisParameterNode.__annotations__.items():
        kind = next(iter(typing.get_args(annotation)), None)
        known = kind.__members__ if isinstance(kind, enum.EnumMeta) else None
        if known is not None and node.HasParameter(name) and node.GetParameter(name) not in known:
            node.UnsetParameter(name)
    return D3MSynthesisParameterNode(node)
