"""First look of a run's nodes: windows, colour ranges, legends. MRML alone."""

from __future__ import annotations

from typing import Any

import slicer
from D3MSynthesisLib import Masks
from D3MSynthesisLib.Colours import colourNode
from D3MSynthesisLib.Grids import resampledOn
from D3MSynthesisLib.Runs import Nodes, alive, brainOf, proxies

PROBABILITY_FLOOR = 0.05
"""Below this the probability is transparent."""
LEAST_CHANGE = 0.05
"""Of T1's window: the subtraction's range is no smaller, or the noise of a brain would look like enhancement."""
PERCENTILES = (1, 99.5)
"""Of the brain's values: the window of a scan."""
T2_PERCENTILES = (1, 97)
"""Fluid is the brightest of T2, and nobody needs its shades: the brain beside it would be dark."""
MASK_PERCENTILE = 95
"""Of the synthetic image in its mask: so much of a large lesion keeps its shades."""
MOTION_PERCENTILE = 99.9
"""Of the lengths that are not zero: a lesion of one part in a hundred keeps its colours apart."""
MOTION_FLOOR = 0.3
"""Of the longest: below it nothing is coloured, or the whole brain would be."""
UNCERTAINTY_FLOOR = 0.3
"""Of the highest: nowhere is the image certain, and what stands out is what a person should look at."""
GREY = "vtkMRMLColorTableNodeGrey"
TITLES = {
    "subtraction": "CEMRI - T1", "probability": "probability", "magnitude": "moved by (mm)",
    "uncertainty": "may be off by", "spread": "samples differ by", "jacobian": "volume, times", "error": "difference",
    "wholeTumour": "probability",
}  # fmt: skip


def applyDefaults(nodes: Nodes) -> None:
    """Windows and colours of what a run made."""
    import numpy as np

    image = slicer.util.arrayFromVolume(nodes.cemri)
    change = slicer.util.arrayFromVolume(nodes.subtraction)
    brain = change != 0  # only the brain is synthesised
    if not brain.any():
        brain = image != 0
    low, high = percentiles(image[brain] if brain.any() else image.ravel())
    mask = Masks.maskOf(nodes)
    if mask.any():
        high = max(high, float(np.percentile(image[mask], MASK_PERCENTILE)))
    window(nodes.cemri, low, high)
    for node in (nodes.sample, *(node for name, node in proxies(nodes).items() if name in ("before", "after"))):
        if node is not None:
            node.CreateDefaultDisplayNodes()
            window(node, low, high)
    limit = float(np.percentile(np.abs(change[brain]), 99)) if brain.any() else 1.0
    limit = max(limit, LEAST_CHANGE * (high - low))
    colours(nodes.subtraction, "diverging", -limit, limit)
    colours(nodes.probability, "sequential", 0.0, 1.0, PROBABILITY_FLOOR)
    lengths = slicer.util.arrayFromVolume(nodes.magnitude)
    top = upper(lengths[lengths > 0], MOTION_PERCENTILE)
    colours(nodes.magnitude, "magnitude", 0.0, top, MOTION_FLOOR * top)
    if nodes.wholeTumour is not None:
        colours(nodes.wholeTumour, "sequential", 0.0, 1.0, PROBABILITY_FLOOR)
    if nodes.uncertainty is not None:
        values = slicer.util.arrayFromVolume(nodes.uncertainty)
        top = upper(values[values > 0])
        colours(nodes.uncertainty, "sequential", 0.0, top, UNCERTAINTY_FLOOR * top)
    likely = proxies(nodes).get("mask")
    if likely is not None:
        likely.CreateDefaultDisplayNodes()
        colours(likely, "sequential", 0.0, 1.0, PROBABILITY_FLOOR)
    field = proxies(nodes).get("field")
    if field is not None:
        field.CreateDefaultDisplayNodes()
    for transform in (nodes.deformation, field):  # they are never drawn themselves: see `Field`
        display = None if transform is None else transform.GetDisplayNode()
        if display is not None:
            display.SetVisibility(False)
            display.SetVisibility2D(False)
            display.SetVisibility3D(False)
    display = nodes.segmentation.GetDisplayNode()
    display.SetVisibility2DFill(False)  # a filling would hide the enhancement
    display.SetOpacity2DFill(0.3)
    display.SetOpacity2DOutline(1.0)


def windowInputs(nodes: Nodes) -> None:
    """Scans beside the result: T1 has the synthetic image's own window, they share one scale; others have their own.

    A real T1c comes from another acquisition: by T1's window much of its brain may be white. T2 and FLAIR keep a window
    that a person has set.
    """
    display = nodes.cemri.GetDisplayNode()
    if alive(nodes.t1) and nodes.t1.GetDisplayNode() is not None:
        window(nodes.t1, display.GetWindowLevelMin(), display.GetWindowLevelMax())
    if alive(nodes.reference) and nodes.reference.GetDisplayNode() is not None:
        _ownWindow(nodes, nodes.reference)
    for node, ends in ((nodes.t2, T2_PERCENTILES), (nodes.flair, PERCENTILES)):
        if alive(node) and node.GetDisplayNode() is not None and node.GetDisplayNode().GetAutoWindowLevel():
            _ownWindow(nodes, node, ends, fromBlack=True)


def _ownWindow(nodes: Nodes, node: Any, ends: tuple[float, float] = PERCENTILES, fromBlack: bool = False) -> None:
    """A window by the scan's own values in the brain that was synthesised; `fromBlack`: no signal is black.

    Of T2 the darkest in the brain may be its white matter, which is not black.
    """
    values = finite(resampledOn(node, nodes.cemri)[brainOf(nodes)])
    if not values.any():
        values = finite(slicer.util.arrayFromVolume(node))
    if values.any():
        low, high = percentiles(values[values != 0], ends)
        window(node, min(low, 0.0) if fromBlack else low, high)


def finite(values: Any) -> Any:
    """The numbers among values, in a row: what resampled a scan may have written NaN where it has no data."""
    import numpy as np

    return values[np.isfinite(values)]


def percentiles(values: Any, ends: tuple[float, float] = PERCENTILES) -> tuple[float, float]:
    """Lower and upper end of a window."""
    import numpy as np

    low, high = (float(value) for value in np.percentile(finite(values), ends))
    return low, max(high, low + 1e-6)


def upper(values: Any, percentile: float = 99) -> float:
    """Upper end of a colour range: a percentile of what is not zero."""
    import numpy as np

    values = finite(values)
    return max(float(np.percentile(values, percentile)), 1e-3) if values.size else 1.0


def window(volume: Any, low: float, high: float) -> None:
    """Set a window that stays."""
    display = volume.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(low, high)


def colours(volume: Any, kind: str, low: float, high: float, floor: float | None = None) -> None:
    """Set a colour table of `Colours` and its range; values below the floor are transparent."""
    display = volume.GetDisplayNode()
    display.SetAndObserveColorNodeID(colourNode(volume.GetScene(), kind).GetID())
    display.SetInterpolate(True)
    window(volume, low, high)
    display.SetApplyThreshold(floor is not None)
    if floor is not None:
        display.SetThreshold(floor, 1e9)


def isGrey(volume: Any) -> bool:
    """Whether a volume is shown in shades of grey: the person may have chosen another window for it."""
    return bool(volume.GetDisplayNode().GetColorNodeID() == GREY)


def grey(volume: Any, low: float, high: float) -> None:
    """Show a volume in shades of grey."""
    display = volume.GetDisplayNode()
    display.SetAndObserveColorNodeID(GREY)
    display.SetApplyThreshold(False)
    window(volume, low, high)


def legend(volume: Any, title: str, visible: bool) -> None:
    """Show or hide the colour legend of a volume: at the right edge, beside the brain."""
    if not alive(volume):
        return
    logic = getattr(slicer, "vtkSlicerColorLogic", None)
    if logic is None:
        return
    node = logic.GetColorLegendDisplayNode(volume)
    if node is None:
        if not visible:
            return
        node = logic.AddDefaultColorLegendDisplayNode(volume)
        if node is None:
            return
        node.SetNumberOfLabels(5)
        node.SetSize(0.12, 0.45)
        node.SetPosition(0.97, 0.5)
    node.SetSaveWithScene(volume.GetSaveWithScene())
    # letters are as large as the longest label leaves room: as many everywhere, and none for an exponent
    node.SetLabelFormat("%6.0f" if volume.GetDisplayNode().GetWindowLevelMax() >= 100 else "%6.3g")
    node.SetTitleText(title)
    node.SetVisibility(visible)
