"""The overview picture of a result: what a radiologist looks at first."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from d3m.results.provenance import sampling_in_words
from d3m.synthesis import Result
from d3m.volumes.geometry import middle_of_largest_slice
from d3m.volumes.grid import resample
from d3m.volumes.types import Case, Floats, Mask

STAMP = "SYNTHETIC — research use only"
COLUMNS = ("T1", "T2", "FLAIR", "Synthetic CEMRI", "Subtraction", "Mask and field", "Displacement")
ARROW_SPACING = 7
"""Pixels between the arrows of the field."""
MIN_ARROW = 0.15
"""Pixels; shorter displacements are not drawn."""
LONGEST_ARROW, MAX_ENLARGEMENT = 8.0, 20
"""Arrows are enlarged by a whole number, told in the caption, until the long ones have this many pixels."""


@dataclass(frozen=True)
class _Views:
    """Everything on the model's grid (W, H, S), which is axial and true to scale."""

    t1: Floats
    t2: Floats
    flair: Floats
    cemri: Floats
    subtraction: Floats
    mask: Mask
    brain: Mask
    pixels: Floats
    """(W, H, S, 2) displacement in pixels along columns and rows."""
    length: Floats
    """(W, H, S) displacement in millimetres."""
    spacing: np.ndarray
    """(3,) millimetres."""


def draw_figure(path: Path, result: Result, case: Case) -> None:
    """Draw the three planes through the largest predicted enhancement.

    Radiological convention: the patient's right is on the left of the picture. The window is that of the brain,
    the same for T1 and the synthetic CEMRI; the subtraction has zero at mid grey.

    Args:
        path: A .png file.
        result: What is shown.
        case: The scans it was made from.
    """
    views = _collect(result, case)
    x, y, z = middle_of_largest_slice(views.mask if views.mask.any() else views.brain)
    figure = Figure(figsize=(2.25 * len(COLUMNS), 7.1), facecolor="black", dpi=100)
    FigureCanvasAgg(figure)
    planes = (
        ("axial", lambda a: a[:, :, z], (0, 1), ("R", "L")),
        ("coronal", lambda a: a[:, y, ::-1], (0, 2), ("R", "L")),
        ("sagittal", lambda a: a[x, :, ::-1], (1, 2), ("A", "P")),
    )
    extents = [
        (views.spacing[b] * views.t1.shape[b], views.spacing[a] * views.t1.shape[a]) for _, _, (a, b), _ in planes
    ]
    axes = figure.subplots(
        3, len(COLUMNS), squeeze=False,
        gridspec_kw={
            "left": 0.02, "right": 0.998, "top": 0.93, "bottom": 0.05, "wspace": 0.02, "hspace": 0.03,
            "height_ratios": [height for height, _ in extents],
        },
    )  # fmt: skip
    low, high = np.percentile(views.cemri[views.brain], (1, 99.5))
    change = max(float(np.percentile(np.abs(views.subtraction[views.brain]), 99.5)), 1e-6)
    enlargement = _enlargement(views)
    longest = max(float(np.percentile(views.length[views.brain], 99)), 0.1)
    for row, (name, cut, (a, b), sides) in enumerate(planes):
        aspect = views.spacing[b] / views.spacing[a]
        shown = (
            (views.t1, low, high, "gray"),
            (views.t2, *np.percentile(views.t2[views.brain], (1, 99.5)), "gray"),
            (views.flair, *np.percentile(views.flair[views.brain], (1, 99.5)), "gray"),
            (views.cemri, low, high, "gray"),
            (views.subtraction, -change, change, "gray"),
            (views.cemri, low, high, "gray"),
            (views.length, 0, longest, "inferno"),
        )
        for column, (volume, lowest, highest, colours) in enumerate(shown):
            ax = axes[row, column]
            picture = np.where(cut(views.brain), cut(volume), lowest).T
            image = ax.imshow(picture, cmap=colours, vmin=lowest, vmax=max(highest, lowest + 1e-6), aspect=aspect)
            ax.set_axis_off()
            if row == 0:
                _write(ax, 0.5, 1.03, COLUMNS[column], color="white", fontsize=11, va="bottom", ha="center")
            if column == 0:
                _write(ax, -0.03, 0.5, name, color="0.8", fontsize=9, rotation=90, va="center", ha="right")
            _mark_sides(ax, sides)
            if column == 5:
                _draw_mask(ax, cut(views.mask))
                if row == 0:
                    _draw_field(ax, cut(views.pixels), cut(views.brain), enlargement)
            if column == 6 and row == 2:
                _colour_bar(figure, image)
        _scale_bar(axes[row, 0], views.spacing[a])
    figure.text(0.5, 0.012, f"{STAMP}.  {_caption(result, enlargement)}", color="#ffcc66", fontsize=10, ha="center")
    if result.patient is not None:
        figure.text(0.5, 0.992, result.patient.sentence(), color="0.85", fontsize=9, ha="center", va="top")
    figure.savefig(path, facecolor="black", metadata={"Description": STAMP})


def _caption(result: Result, enlargement: int) -> str:
    s = result.options
    sampling = sampling_in_words(asdict(s))
    volume = "Predicted enhancing volume" if result.steering is None else "Mask given by a person,"
    return (
        f"{volume} {result.enhancing_volume_ml:.1f} ml. Model {result.model_name}, "
        f"{s.quality}: {sampling}, seed {s.seed}. Arrows: where tissue was moved to, x{enlargement}."
    )


def _collect(result: Result, case: Case) -> _Views:
    grid = result.grid

    def on_grid(data: np.ndarray, affine: np.ndarray, order: int = 1) -> np.ndarray:
        return resample(data, affine, grid.affine, grid.shape, order=order)

    t1_affine = case.t1.affine
    directions = (grid.affine[:3, :2] / grid.spacing[:2] ** 2).astype(np.float32)
    return _Views(
        t1=on_grid(case.t1.data, t1_affine),
        t2=on_grid(case.t2.data, case.t2.affine),
        flair=on_grid(case.flair.data, case.flair.affine),
        cemri=on_grid(result.cemri, t1_affine),
        subtraction=on_grid(result.subtraction, t1_affine),
        mask=on_grid(result.enhancement_mask, t1_affine, 0),
        brain=on_grid(case.brain, t1_affine, 0),
        pixels=result.displacement @ directions,
        length=np.linalg.norm(result.displacement, axis=-1),
        spacing=grid.spacing,
    )


def _mark_sides(ax: Axes, sides: tuple[str, str]) -> None:
    _write(ax, 0.02, 0.5, sides[0], color="0.7", fontsize=8, va="center")
    _write(ax, 0.98, 0.5, sides[1], color="0.7", fontsize=8, va="center", ha="right")


def _write(ax: Axes, x: float, y: float, words: str, **how: Any) -> None:
    """Text at a place in parts of the axes. Not a title: matplotlib would make all ticks to find room for that."""
    ax.text(x, y, words, transform=ax.transAxes, **how)


def _draw_mask(ax: Axes, mask: Mask) -> None:
    if mask.any():
        ax.contour(mask.T.astype(float), levels=[0.5], colors=["#ff4040"], linewidths=0.9)


def _enlargement(views: _Views) -> int:
    """By how much the arrows are enlarged to be seen: a whole number from 1 to `MAX_ENLARGEMENT`."""
    long = float(np.percentile(np.linalg.norm(views.pixels[views.brain], axis=-1), 99))
    return int(np.clip(round(LONGEST_ARROW / max(long, 1e-6)), 1, MAX_ENLARGEMENT))


def _draw_field(ax: Axes, pixels: np.ndarray, brain: Mask, enlargement: int) -> None:
    """Arrows where tissue moved to: against the field, which points to where each value came from."""
    x, y = np.mgrid[
        ARROW_SPACING // 2 : brain.shape[0] : ARROW_SPACING, ARROW_SPACING // 2 : brain.shape[1] : ARROW_SPACING
    ]
    u = -pixels[x, y]
    drawn = brain[x, y] & (np.linalg.norm(u, axis=-1) > MIN_ARROW)
    if drawn.any():
        ax.quiver(
            x[drawn], y[drawn], u[drawn, 0], u[drawn, 1],
            color="#40d0ff", angles="xy", scale_units="xy", scale=1 / enlargement, width=0.006,
        )  # fmt: skip


def _scale_bar(ax: Axes, spacing: float, millimetres: float = 50.0) -> None:
    """A bar of 50 mm in the lower left corner."""
    length = millimetres / spacing
    bottom = ax.get_ylim()[0]
    ax.plot([4, 4 + length], [bottom - 5, bottom - 5], color="white", linewidth=1.5)
    ax.text(4 + length / 2, bottom - 8, "5 cm", color="white", fontsize=7, ha="center", va="bottom")


def _colour_bar(figure: Figure, image: object) -> None:
    place = figure.add_axes((0.875, 0.062, 0.1, 0.012))
    bar = figure.colorbar(image, cax=place, orientation="horizontal")  # type: ignore[arg-type]
    bar.ax.tick_params(colors="white", labelsize=7, length=2, pad=1)
    _write(bar.ax, 0.5, 1.2, "mm", color="white", fontsize=7, va="bottom", ha="center")
