"""One page on two dates: both synthetic images and what is new or gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from nibabel import orientations

from d3m.results.figure import STAMP
from d3m.volumes.geometry import box_of, middle_of_largest_slice, spacing_mm
from d3m.volumes.types import Floats, Mask, Volume

COLUMNS = ("T1, earlier", "Synthetic, earlier", "Synthetic, later", "New, vanished, stable")
COLOURS = {1: "#ffd24d", 2: "#ff4d4d", 3: "#4da6ff"}
"""Of the map's labels: stable, new, vanished."""


def draw_follow_up(
    path: Path, t1: Volume, earlier: Floats, later: Floats, labels: np.ndarray, brain: Mask, text: str
) -> None:
    """Draw three planes through the largest change.

    Radiological convention: the patient's right is on the left of the picture.

    Args:
        path: A .png file.
        t1: The earlier one; everything else lies on its grid.
        earlier: (X, Y, Z) synthetic image.
        later: (X, Y, Z) likewise, registered.
        labels: (X, Y, Z), 0 or a key of `COLOURS`.
        brain: (X, Y, Z), of the earlier date.
        text: The result in words.
    """
    rotation = orientations.ornt_transform(
        orientations.io_orientation(t1.affine), orientations.axcodes2ornt(("L", "P", "S"))
    )
    data, one, other, marks, inside = (
        orientations.apply_orientation(a, rotation) for a in (t1.data, earlier, later, labels, brain)
    )
    sizes = spacing_mm(t1.affine)[np.argsort(rotation[:, 0])]
    changed = marks > 1
    place = changed if changed.any() else marks > 0 if marks.any() else inside
    x, y, z = middle_of_largest_slice(place)
    box = box_of(inside, 4)
    assert box is not None  # it shows a brain
    planes = (
        ("axial", (box[0], box[1], z), (0, 1), ("R", "L")),
        ("coronal", (box[0], y, box[2]), (0, 2), ("R", "L")),
        ("sagittal", (x, box[1], box[2]), (1, 2), ("A", "P")),
    )
    low, high = np.percentile(one[inside], (1, 99.5))
    figure = Figure(figsize=(2.9 * len(COLUMNS), 9.6), facecolor="black", dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, len(COLUMNS), squeeze=False)
    for row, (name, cut, (a, b), sides) in enumerate(planes):

        def view(volume: np.ndarray, cut: tuple[Any, ...] = cut, row: int = row) -> np.ndarray:
            plane = volume[cut].T
            return plane[::-1] if row else plane  # superior is up

        for column, volume in enumerate((data, one, other, one)):
            ax = axes[row, column]
            ax.imshow(view(volume), cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=sizes[b] / sizes[a])
            ax.set_axis_off()
            if row == 0:
                ax.set_title(COLUMNS[column], color="white", fontsize=11)
            for at, side in zip((0.03, 0.97), sides, strict=True):
                ax.text(at, 0.5, side, color="0.7", fontsize=8, va="center", ha="center", transform=ax.transAxes)
        axes[row, 0].text(
            -0.03, 0.5, name, color="0.8", fontsize=9, rotation=90, va="center", ha="right",
            transform=axes[row, 0].transAxes,
        )  # fmt: skip
        for label, colour in COLOURS.items():
            mask = view(marks) == label
            if mask.any():
                axes[row, 3].contourf(mask.astype(float), levels=[0.5, 1.5], colors=[colour], alpha=0.55)
    figure.subplots_adjust(left=0.02, right=0.995, top=0.95, bottom=0.09, wspace=0.02, hspace=0.03)
    for at, (colour, word) in zip(
        (0.80, 0.87, 0.94), zip(COLOURS.values(), ("stable", "new", "vanished"), strict=True), strict=True
    ):
        figure.text(at, 0.07, word, color=colour, fontsize=10, ha="center")
    figure.text(0.5, 0.042, text, color="white", fontsize=11, ha="center")
    figure.text(0.5, 0.014, STAMP, color="#ffcc66", fontsize=10, ha="center")
    figure.savefig(path, facecolor="black", metadata={"Description": STAMP})
