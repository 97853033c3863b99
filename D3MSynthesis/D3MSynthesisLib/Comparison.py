"""A run beside a real T1c that was chosen after it: the numbers that the engine gives when it is chosen before."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import slicer
from D3MSynthesisLib.Assignment import SYNTHETIC
from D3MSynthesisLib.Engine import SynthesisError
from D3MSynthesisLib.Grids import matrixOf, resampledOn, voxelMl
from D3MSynthesisLib.Identity import identityOf
from D3MSynthesisLib.Inputs import maskOnGrid
from D3MSynthesisLib.Masks import maskOf, measure
from D3MSynthesisLib.Runs import INPUTS, PREFIX, Nodes, alive, brainOf
from D3MSynthesisLib.Texts import _

LEAST_VOXELS = 1000
"""Of the brain that the real T1c must show."""


def compareRun(nodes: Nodes, reference: Any, referenceMask: Any = None, acrossStudies: bool = False) -> dict[str, Any]:
    """Measure a run against a real T1c and keep the numbers with it.

    Args:
        nodes: The run; its mask counts as it is now.
        reference: The real T1c; it is used as it is shown, and resampled onto the synthetic image's grid.
        referenceMask: The real enhancing tumour, volume or segmentation node; else it is estimated from brightness.
        acrossStudies: They may be of another examination of the patient.

    Raises:
        SynthesisError: it is synthetic, another patient's or examination's, does not show this brain, or T1 is gone.
    """
    import numpy as np

    from d3m import metrics

    if not alive(nodes.t1):
        raise SynthesisError(
            _("The T1 of this run is no longer in the scene."), _("Load it again and run the synthesis again.")
        )
    mine = identityOf(nodes.t1)
    if reference.GetAttribute(SYNTHETIC) or (referenceMask is not None and referenceMask is nodes.segmentation):
        raise SynthesisError(
            _("The real T1c and its tumour cannot be what a synthesis made."), _("Choose an acquired scan and its own.")
        )
    for name, node in ((_("The real T1c"), reference), (_("The real tumour"), referenceMask)):
        theirs = identityOf(node)
        if mine.patient and theirs.patient and mine.patient != theirs.patient:
            text = _("{scan} is of another patient than T1.").format(scan=name)
            raise SynthesisError(text, _("Choose this patient's."))
        if not acrossStudies and mine.study and theirs.study and mine.study != theirs.study:
            text = _("{scan} is of another examination than T1.").format(scan=name)
            raise SynthesisError(text, _("Choose this examination's, or allow scans of several examinations."))
    real = resampledOn(reference, nodes.cemri)
    brain = brainOf(nodes) & (real != 0)
    if brain.sum() < LEAST_VOXELS:
        raise SynthesisError(
            _("The real T1c does not overlap the brain in T1."), _("Choose a T1c of the same examination.")
        )
    order = _sliceLast(matrixOf(nodes.cemri))

    def axial(array: Any) -> Any:
        return np.transpose(array, order)

    cemri, t1 = slicer.util.arrayFromVolume(nodes.cemri), resampledOn(nodes.t1, nodes.cemri)
    images = metrics.compare(axial(cemri), axial(t1), axial(real), axial(brain))
    ml, predicted = voxelMl(nodes.cemri), maskOf(nodes)
    true = (
        metrics.enhancing_in(t1, real, brain, ml) if referenceMask is None else maskOnGrid(referenceMask, nodes.cemri)
    )
    masks = metrics.overlap(predicted, true, brain, ml)
    numbers = asdict(images) | {
        "predicted_enhancing_volume_ml": float(predicted.sum() * ml),
        "real_enhancing_volume_ml": masks.true_ml,
        "false_positive_ml": masks.false_positive_ml,
        "false_negative_ml": masks.false_negative_ml,
        "dice": masks.dice,
    }
    content: dict[str, Any] = {
        name: round(float(value), 4) if np.isfinite(value) else None for name, value in numbers.items()
    }
    content["real_enhancement"] = "estimated" if referenceMask is None else "labels"
    measure(nodes, predicted)
    nodes.cemri.SetAttribute(PREFIX + "ComparedMask", nodes.maskDigest)
    nodes.cemri.SetAttribute(PREFIX + "Comparison", json.dumps(content))
    nodes.cemri.SetNodeReferenceID(PREFIX + INPUTS["reference"], reference.GetID())
    nodes.reference = reference
    return content


def _sliceLast(ijkToRAS: Any) -> tuple[int, int, int]:
    """Order of array axes, of (k, j, i), that has the one nearest to head-foot last."""
    import numpy as np

    across = 2 - int(np.argmax(np.abs(ijkToRAS[2, :3]) / np.linalg.norm(ijkToRAS[:3, :3], axis=0)))
    first, second = (axis for axis in range(3) if axis != across)
    return first, second, across
