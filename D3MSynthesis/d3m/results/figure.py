"""The overview picture of a result: what a radiologist looks at first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from d3m.arrays import values_in
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
WIDTH, HEIGHT = 1575, 710
"""Pixels of the picture."""
LEFT, RIGHT, TOP, BOTTOM, BETWEEN = 31, 1572, 50, 674, 4
"""Where the panels lie in it, and what is left between them."""
COMPRESSION = 3
"""zlib level: the usual one takes more than twice as long for the same size."""


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
    length: Floats
    """(W, H, S) displacement in millimetres."""
    spacing: np.ndarray
    """(3,) millimetres."""


class _Panel(NamedTuple):
    """Where the pixels of a cut are drawn. All panels share one pair of axes in pixels of the picture, from its upper
    left corner: axes of their own take matplotlib longer than all else."""

    axes: Axes
    left: float
    top: float
    size: np.ndarray
    """(2,) of a pixel of the cut, along its columns and rows."""
    shape: tuple[int, int]
    """Columns and rows of the cut."""
    spacing: float
    """Millimetres of a pixel of the cut along its columns."""

    def place(self, column: Any, row: Any) -> tuple[Any, Any]:
        """The middle of a pixel of the cut, or of many."""
        return self.left + (column + 0.5) * self.size[0], self.top + (row + 0.5) * self.size[1]

    def part(self, x: float, y: float) -> tuple[float, float]:
        """A place in parts of the panel, from its lower left corner."""
        width, height = self.size * self.shape
        return self.left + x * width, self.top + (1 - y) * height

    def write(self, x: float, y: float, words: str, **how: Any) -> None:
        """Text at a place in parts of the panel."""
        self.axes.text(*self.part(x, y), words, **how)


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
    figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), facecolor="black", dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(HEIGHT, 0))
    axes.set_axis_off()
    planes = (
        ("axial", lambda a: a[:, :, z], (0, 1), ("R", "L")),
        ("coronal", lambda a: a[:, y, ::-1], (0, 2), ("R", "L")),
        ("sagittal", lambda a: a[x, :, ::-1], (1, 2), ("A", "P")),
    )
    panels = _panels(axes, views, [across for _, _, across, _ in planes])
    low, high = np.percentile(values_in(views.cemri, views.brain), (1, 99.5))
    change = max(float(np.percentile(np.abs(values_in(views.subtraction, views.brain)), 99.5)), 1e-6)
    directions = (result.grid.affine[:3, :2] / result.grid.spacing[:2] ** 2).astype(np.float32)  # mm to pixels
    enlargement = _enlargement(result.displacement, directions, views.brain)
    longest = max(float(np.percentile(values_in(views.length, views.brain), 99)), 0.1)
    shown = (
        (views.t1, low, high, "gray"),
        (views.t2, *np.percentile(values_in(views.t2, views.brain), (1, 99.5)), "gray"),
        (views.flair, *np.percentile(values_in(views.flair, views.brain), (1, 99.5)), "gray"),
        (views.cemri, low, high, "gray"),
        (views.subtraction, -change, change, "gray"),
        (views.cemri, low, high, "gray"),
        (views.length, 0, longest, "inferno"),
    )
    for (name, cut, _, sides), row in zip(planes, panels, strict=True):
        for heading, panel, (volume, lowest, highest, colours) in zip(COLUMNS, row, shown, strict=True):
            picture = np.where(cut(views.brain), cut(volume), lowest).T
            (left, bottom), (right, top) = panel.part(0, 0), panel.part(1, 1)
            image = axes.imshow(
                picture, cmap=colours, vmin=lowest, vmax=max(highest, lowest + 1e-6), aspect="auto",
                extent=(left, right, bottom, top),
            )  # fmt: skip
            if row is panels[0]:
                heading += " (not given)" if heading.lower() in result.missing else ""
                panel.write(0.5, 1.03, heading, color="white", fontsize=11, va="bottom", ha="center")
            panel.write(0.02, 0.5, sides[0], color="0.7", fontsize=8, va="center")
            panel.write(0.98, 0.5, sides[1], color="0.7", fontsize=8, va="center", ha="right")
        row[0].write(-0.03, 0.5, name, color="0.8", fontsize=9, rotation=90, va="center", ha="right")
        _scale_bar(row[0])
        _draw_mask(row[5], cut(views.mask))
    _draw_field(panels[0][5], result.displacement[:, :, z] @ directions, views.brain[:, :, z], enlargement)
    _colour_bar(figure, image)
    figure.text(0.5, 0.012, f"{STAMP}.  {_caption(result, enlargement)}", color="#ffcc66", fontsize=10, ha="center")
    if result.patient is not None:
        figure.text(0.5, 0.992, result.patient.sentence(), color="0.85", fontsize=9, ha="center", va="top")
    figure.savefig(path, facecolor="black", metadata={"Description": STAMP}, pil_kwargs={"compress_level": COMPRESSION})


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
    return _Views(
        t1=on_grid(case.t1.data, t1_affine),
        t2=on_grid(case.t2.data, case.t2.affine),
        flair=on_grid(case.flair.data, case.flair.affine),
        cemri=on_grid(result.cemri, t1_affine),
        subtraction=on_grid(result.subtraction, t1_affine),
        mask=on_grid(result.enhancement_mask, t1_affine, 0),
        brain=on_grid(case.brain, t1_affine, 0),
        length=np.linalg.norm(result.displacement, axis=-1),
        spacing=grid.spacing,
    )


def _panels(axes: Axes, views: _Views, planes: Sequence[tuple[int, int]]) -> list[list[_Panel]]:
    """Rows of panels of the same scale, as wide and high as there is room for, each in the middle of its cell.

    Args:
        axes: In pixels of the picture.
        views: For shapes and spacing.
        planes: Axes of the volume along columns and rows of each row's cuts.
    """
    width = (RIGHT - LEFT + BETWEEN) / len(COLUMNS)
    sizes = [views.spacing[list(plane)] * np.take(views.t1.shape, plane) for plane in planes]
    heights = np.array([size[1] for size in sizes])
    heights = heights / heights.sum() * (BOTTOM - TOP - (len(planes) - 1) * BETWEEN)
    tops = TOP + np.cumsum([0, *(heights[:-1] + BETWEEN)])
    rows = []
    for plane, size, top, height in zip(planes, sizes, tops, heights, strict=True):
        scale = min((width - BETWEEN) / size[0], height / size[1])
        left, down = (np.array([width - BETWEEN, height]) - scale * size) / 2
        shape = (views.t1.shape[plane[0]], views.t1.shape[plane[1]])
        pixel = scale * views.spacing[list(plane)]
        millimetres = float(views.spacing[plane[0]])
        rows.append([
            _Panel(axes, LEFT + k * width + left, top + down, pixel, shape, millimetres) for k in range(len(COLUMNS))
        ])  # fmt: skip
    return rows


def _draw_mask(panel: _Panel, mask: Mask) -> None:
    if mask.any():
        x, y = panel.place(np.arange(mask.shape[0]), np.arange(mask.shape[1]))
        panel.axes.contour(x, y, mask.T.astype(float), levels=[0.5], colors=["#ff4040"], linewidths=0.9)


def _enlargement(displacement: Floats, directions: Floats, brain: Mask) -> int:
    """By how much the arrows are enlarged to be seen: a whole number from 1 to `MAX_ENLARGEMENT`."""
    moved = np.stack([values_in(part, brain) for part in np.moveaxis(displacement, -1, 0)])
    long = float(np.percentile(np.hypot(*(directions.T @ moved)), 99))
    return int(np.clip(round(LONGEST_ARROW / max(long, 1e-6)), 1, MAX_ENLARGEMENT))


def _draw_field(panel: _Panel, pixels: np.ndarray, brain: Mask, enlargement: int) -> None:
    """Arrows where tissue moved to: against the field, which points to where each value came from.

    Args:
        panel: Where.
        pixels: (W, H, 2) displacement in pixels along columns and rows.
        brain: (W, H).
        enlargement: Of the arrows.
    """
    x, y = np.mgrid[
        ARROW_SPACING // 2 : brain.shape[0] : ARROW_SPACING, ARROW_SPACING // 2 : brain.shape[1] : ARROW_SPACING
    ]
    u = -pixels[x, y]
    drawn = brain[x, y] & (np.linalg.norm(u, axis=-1) > MIN_ARROW)
    if drawn.any():
        panel.axes.quiver(
            *panel.place(x[drawn], y[drawn]), *(u[drawn] * panel.size).T,
            color="#40d0ff", angles="xy", scale_units="xy", scale=1 / enlargement, units="dots", width=1.1,
        )  # fmt: skip


def _scale_bar(panel: _Panel, millimetres: float = 50.0) -> None:
    """A bar of 50 mm in the lower left corner."""
    rows, length = panel.shape[1], millimetres / panel.spacing
    x, y = panel.place(np.array([4, 4 + length]), np.full(2, rows - 5.5))
    panel.axes.plot(x, y, color="white", linewidth=1.5)
    middle, bottom = panel.place(4 + length / 2, rows - 8.5)
    panel.axes.text(middle, bottom, "5 cm", color="white", fontsize=7, ha="center", va="bottom")


def _colour_bar(figure: Figure, image: object) -> None:
    place = figure.add_axes((0.875, 0.062, 0.1, 0.012))
    bar = figure.colorbar(image, cax=place, orientation="horizontal")  # type: ignore[arg-type]
    bar.ax.tick_params(colors="white", labelsize=7, length=2, pad=1)
    bar.ax.text(0.5, 1.2, "mm", transform=bar.ax.transAxes, color="white", fontsize=7, va="bottom", ha="center")
