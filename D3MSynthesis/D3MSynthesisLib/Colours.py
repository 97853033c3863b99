"""Colour tables of the overlays."""

from __future__ import annotations

from typing import Any

import slicer

# Anchors of perceptually even colour maps, from dark to light, and of a diverging one with white in the middle.
_MAPS = {
    "sequential": ((0.00, 0.00, 0.01), (0.26, 0.04, 0.41), (0.58, 0.15, 0.40), (0.87, 0.32, 0.23), (0.99, 0.65, 0.04),
                   (0.99, 1.00, 0.64)),
    "magnitude": ((0.27, 0.00, 0.33), (0.23, 0.32, 0.55), (0.13, 0.57, 0.55), (0.37, 0.79, 0.38), (0.99, 0.91, 0.14)),
    "diverging": ((0.02, 0.19, 0.38), (0.26, 0.58, 0.76), (0.97, 0.97, 0.97), (0.95, 0.45, 0.25), (0.60, 0.02, 0.10)),
}  # fmt: skip


TRANSPARENT = 0.2
"""Share of a diverging table's half, from its middle, that nothing is seen of: noise would lie over the whole brain."""


def colourNode(scene: Any, kind: str) -> Any:
    """A colour table: "sequential", "magnitude" or "diverging" (transparent in the middle); one of each in a scene."""
    import numpy as np

    tag = f"D3M{kind}"
    node = scene.GetSingletonNode(tag, "vtkMRMLColorTableNode")
    if node is not None:
        return node
    node = slicer.vtkMRMLColorTableNode()
    node.SetSingletonTag(tag)
    node.SetName(f"D3M {kind}")
    node.SetTypeToUser()
    node.SetNumberOfColors(256)
    anchors = np.array(_MAPS[kind])
    position = np.linspace(0, len(anchors) - 1, 256)
    colours = np.stack([np.interp(position, range(len(anchors)), anchors[:, c]) for c in range(3)], 1)
    alpha = np.ones(256)
    if kind == "diverging":  # a table's opacity counts as all or nothing (vtkMRMLScalarVolumeDisplayNode, AlphaLogic)
        alpha = (np.abs(np.linspace(-1, 1, 256)) > TRANSPARENT).astype(float)
    for index, (red, green, blue) in enumerate(colours):
        node.SetColor(index, f"{index}", float(red), float(green), float(blue), float(alpha[index]))
    return scene.AddNode(node)
