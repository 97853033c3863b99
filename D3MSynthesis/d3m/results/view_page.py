"""A result as a page that any browser shows by a double click: linked slices, window and opacity, drawn by NiiVue.

All is in the one file, because browsers let no page from a disk read the files beside it.
"""

from __future__ import annotations

import base64
import gzip
from dataclasses import asdict, dataclass
from pathlib import Path

import nibabel
import numpy as np

import d3m
from d3m.results.provenance import STATEMENT, sampling_in_words
from d3m.results.view_html import PAGE
from d3m.synthesis import Result
from d3m.system.storage import write_text
from d3m.system.text import json_in_html
from d3m.volumes.geometry import box_of, middle_of_largest_slice, spacing_mm
from d3m.volumes.grid import resample
from d3m.volumes.types import Affine, Case, Mask

FILE_NAME = "view.html"
NIIVUE = Path(__file__).with_name("data") / "niivue.umd.js"
MARGIN_MM = 12.0
"""Around the brain: what lies farther away is not in the page."""
BRIGHTEST = 99.95
"""Percentile in the brain that keeps its value; brighter voxels, such as fat, are as bright as that."""
LEVELS = 255
"""Grey values of a volume in the page; its window starts between percentiles 1 and 99.5, as in the figure."""


@dataclass(frozen=True)
class _Panel:
    """One volume as the page shows it; voxels as a packed NIfTI image in base64."""

    name: str
    title: str
    colours: str
    window: tuple[float, float]
    full: tuple[float, float]
    """Least and largest value in the page."""
    unit: str
    image: str


def write_page(path: Path, result: Result, case: Case) -> None:
    """Write a result's page; raises `OSError`.

    Args:
        path: A .html file of some 15 MB.
        result: What is shown.
        case: The scans it was made from.
    """
    write_text(path, page(result, case))


def page(result: Result, case: Case) -> str:
    """The text of a result's page."""
    box = box_of(case.brain, np.ceil(MARGIN_MM / spacing_mm(case.t1.affine)).astype(int))
    assert box is not None  # a case has a brain
    affine = case.t1.affine.copy()
    affine[:3, 3] = (case.t1.affine @ [*(one.start for one in box), 1])[:3]
    brain = case.brain[box]

    def on_t1(data: np.ndarray, source: Affine) -> np.ndarray:
        return resample(data, source, affine, brain.shape).astype(np.float32)

    panels = [_scan(name, on_t1(one.data, one.affine), brain, affine) for name, one in case.given().items()]
    cemri = _scan("cemri", result.cemri[box], brain, affine)
    change = np.where(brain, result.subtraction[box], 0)
    most = max(float(np.percentile(np.abs(change[brain]), 99.5)), 1e-6)
    length = on_t1(np.linalg.norm(result.displacement, axis=-1), result.grid.affine) * brain
    longest = max(float(np.percentile(length[brain], 99)), 0.1)
    panels = [
        *panels,
        cemri,
        _panel("subtraction", "Subtraction", "gray", (-most, most), change.clip(-2 * most, 2 * most), affine),
        _panel("displacement", "Displacement", "inferno", (0, longest), length, affine, "mm"),
    ]
    mask = result.enhancement_mask[box]
    centre = middle_of_largest_slice(mask if mask.any() else brain)
    facts = {
        "panels": [vars(one) for one in panels],
        "mask": _packed(mask.astype(np.uint8), affine),
        "centre": [round(float(one), 2) for one in (affine @ [*centre, 1])[:3]],
        "sentence": _sentence(result),
        "statement": STATEMENT,
    }
    text = PAGE.replace("@VERSION@", d3m.__version__).replace("@DATA@", json_in_html(facts))
    return text.replace("@NIIVUE@", NIIVUE.read_text(encoding="utf-8"))  # last: the others must not be sought in it


def _scan(name: str, data: np.ndarray, brain: Mask, affine: Affine) -> _Panel:
    low, high, top = (float(v) for v in np.percentile(data[brain], (1, 99.5, BRIGHTEST)))
    title = "Synthetic CEMRI" if name == "cemri" else name.upper()
    return _panel(name, title, "gray", (low, max(high, low + 1e-6)), data.clip(None, top), affine)


def _panel(
    name: str,
    title: str,
    colours: str,
    window: tuple[float, float],
    data: np.ndarray,
    affine: Affine,
    unit: str = "",
) -> _Panel:
    full = (float(data.min()), float(data.max()))
    return _Panel(name, title, colours, window, full, unit, _packed(data, affine))


def _packed(data: np.ndarray, affine: Affine) -> str:
    """A NIfTI image of bytes, packed, in base64; values that are no bytes are scaled to them."""
    image = nibabel.Nifti1Image(data, affine)
    image.set_data_dtype(np.uint8)
    image.header.set_xyzt_units("mm")
    return base64.b64encode(gzip.compress(image.to_bytes(), 6, mtime=0)).decode("ascii")


def _sentence(result: Result) -> str:
    asked = result.options
    who = "Predicted enhancing volume" if result.steering is None else "Enhancing volume as a person gave it:"
    text = (
        f"{who} {result.enhancing_volume_ml:.1f} ml. Model {result.model_name}, {asked.quality}: "
        f"{sampling_in_words(asdict(asked))}, seed {asked.seed}."
    )
    return f"{result.patient.sentence()} {text}" if result.patient is not None else text
