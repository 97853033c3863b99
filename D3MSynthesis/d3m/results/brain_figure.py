"""A picture of the brain's outline on the whole T1: where an extractor went wrong is seen at a glance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from nibabel import orientations

from d3m.volumes.geometry import spacing_mm
from d3m.volumes.types import Case

ROWS, COLUMNS = 3, 5
"""Two rows and a half of axial slices, then a coronal and a sagittal one."""
OUTLINE = "#40e070"


def draw_brain(path: Path, case: Case) -> None:
    """Draw slices through all of T1 with the outline of the brain.

    Radiological convention: the patient's right is on the left of the picture.

    Args:
        path: A .png file.
        case: Its T1 may be a whole head.
    """
    rotation = orientations.ornt_transform(
        orientations.io_orientation(case.t1.affine), orientations.axcodes2ornt(("L", "P", "S"))
    )
    t1 = orientations.apply_orientation(case.t1.data, rotation)
    brain = orientations.apply_orientation(case.brain, rotation)
    spacing = spacing_mm(case.t1.affine)
    order = np.argsort(rotation[:, 0])
    dx, dy, dz = (float(spacing[axis]) for axis in order)
    low, high = np.percentile(t1[brain], (0.5, 99.5))
    filled = np.flatnonzero(brain.any(axis=(0, 1)))
    axial = np.unique(np.linspace(filled[0], filled[-1], ROWS * COLUMNS - 2).round().astype(int))
    x, y, _ = np.argwhere(brain).mean(axis=0).round().astype(int)
    views = [(f"axial {k + 1}", t1[:, :, k], brain[:, :, k], dy / dx, ("R", "L")) for k in axial]
    views.append(("coronal", t1[:, y, ::-1], brain[:, y, ::-1], dz / dx, ("R", "L")))
    views.append(("sagittal", t1[x, :, ::-1], brain[x, :, ::-1], dz / dy, ("A", "P")))
    figure = Figure(figsize=(2.4 * COLUMNS, 2.5 * ROWS + 0.4), facecolor="black", dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.subplots(ROWS, COLUMNS).ravel()
    for ax in axes:
        ax.set_axis_off()
    for ax, (name, picture, inside, aspect, sides) in zip(axes, views, strict=False):
        ax.imshow(picture.T, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=aspect)
        if inside.any():
            ax.contour(inside.T.astype(float), levels=[0.5], colors=[OUTLINE], linewidths=0.9)
        ax.set_title(name, color="0.8", fontsize=8, pad=2)
        for place, side in zip((0.03, 0.97), sides, strict=True):
            ax.text(place, 0.5, side, color="0.7", fontsize=7, va="center", ha="center", transform=ax.transAxes)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.96, bottom=0.05, wspace=0.03, hspace=0.12)
    text = f"The brain in T1 (real scan): {case.brain_ml:.0f} ml, from: {case.brain_source}."
    figure.text(0.5, 0.015, text, color="#ffcc66", fontsize=10, ha="center")
    figure.savefig(path, facecolor="black")
