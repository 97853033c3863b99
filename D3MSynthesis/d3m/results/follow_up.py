"""Two dates of one patient: how the predicted enhancement changed, and whether that is more than chance."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from d3m.errors import D3MError, Notice
from d3m.results.files import write_nifti
from d3m.results.follow_up_figure import draw_follow_up
from d3m.results.provenance import STATEMENT, read_provenance
from d3m.system.folders import whole_folder
from d3m.system.manifest import FolderKind
from d3m.system.storage import write_text
from d3m.system.text import for_json
from d3m.volumes.geometry import spacing_mm, volume_ml, voxel_mm3
from d3m.volumes.grid import resample
from d3m.volumes.io.files import label
from d3m.volumes.io.read import read_raw
from d3m.volumes.preprocess.brain import solid
from d3m.volumes.preprocess.registration import align
from d3m.volumes.types import CONTRASTS, Affine, Floats, Mask, Volume

FOLLOW_UP = FolderKind("follow-up", "an earlier comparison of two dates")
LEVEL, WIDTH = 0.8, 1.2816
"""Share of a normal distribution within so many standard deviations."""
LEAST_ML = 0.1
"""Less than this is moved by the edges of voxels alone."""
AROUND_MM = 5.0
"""What lies so close to either date's enhancement is left out of the registration: it is what changes."""
STABLE, NEW, VANISHED = 1, 2, 3
"""Labels of the map of change."""


@dataclass(frozen=True)
class Visit:
    """One date's result, read back."""

    t1: Volume
    cemri: Floats
    """(X, Y, Z) on T1's grid, T1's units."""
    mask: Mask
    """(X, Y, Z), predicted enhancing tumour."""
    brain: Mask
    """(X, Y, Z)."""
    samples_ml: tuple[float, ...]
    """Enhancing tumour of each sample by itself."""
    stated: dict[str, Any]
    """Its provenance."""

    @property
    def volume_ml(self) -> float:
        """Of the mask."""
        return volume_ml(self.mask, self.t1.affine)

    @property
    def spread_ml(self) -> float:
        """Standard deviation over repeated synthesis of this date."""
        return float(np.std(self.samples_ml, ddof=1))


@dataclass(frozen=True)
class Change:
    """What changed from the earlier to the later date."""

    volume_ml: float
    """Later minus earlier."""
    interval_ml: tuple[float, float]
    """Of `LEVEL`, by what repeated synthesis of either date varies by."""
    real: bool
    """Whether the interval leaves out zero and the change is more than `LEAST_ML`."""
    labels: np.ndarray
    """(X, Y, Z) uint8 on the earlier T1's grid: 0, `STABLE`, `NEW`, `VANISHED`; only where both dates have brain."""
    new_ml: float
    vanished_ml: float
    later_cemri: Floats
    """(X, Y, Z): the later synthetic image on the earlier T1's grid, 0 where it was not scanned."""
    later_affine: Affine
    """(4, 4): the later T1's voxel index to the earlier date's RAS millimetres."""
    notices: tuple[Notice, ...]

    def sentence(self) -> str:
        """In words, for figure and terminal."""
        low, high = self.interval_ml
        interval = f"{100 * LEVEL:.0f} % interval {low:+.1f} to {high:+.1f} ml"
        if not self.real:
            return f"No change in predicted enhancement beyond the variation of repeated synthesis ({interval})."
        return f"Predicted enhancement changed by {self.volume_ml:+.1f} ml ({interval})."


def read_visit(folder: Path, date: str) -> Visit:
    """A result's folder.

    Args:
        folder: Of `d3m synthesize`.
        date: "earlier" or "later", for messages.

    Raises:
        D3MError: it is no whole result, or holds no word on how much its samples vary.
    """
    stated = read_provenance(folder)
    again = "Make it again with `d3m synthesize`, or give the study's folder."
    if stated is None:
        raise D3MError(f"The {date} folder is not a complete result of a synthesis.", again)
    samples = stated.get("sample_volumes_ml")
    if not isinstance(samples, list) or len(samples) < 2:
        raise D3MError(
            f"The {date} result has a single sample, so it is not known how much repeated synthesis varies.",
            "Make it again with --quality standard or --samples 4.",
        )
    image, mask = (read_raw(folder / f"{name}.nii.gz", "labels") for name in ("cemri", "enhancement_mask"))
    difference = read_raw(folder / "subtraction.nii.gz", "labels")
    t1 = Volume(image.data - difference.data, image.affine, image.sha256, image.qform_code, image.sform_code)
    brain = solid(ndimage.binary_closing(difference.data != 0, iterations=2))
    return Visit(t1, image.data, mask.data > 0.5, brain, tuple(float(one) for one in samples), stated)


def compare_visits(before: Visit, after: Visit) -> Change:
    """Register the later date to the earlier one and say what changed.

    Raises:
        D3MError: the results are of different models or settings, or follow a given mask; they do not show the same
            head.
    """
    _check_alike(before.stated, after.stated)
    shown = {"t1": _without_tumour(before), "after": _without_tumour(after)}
    placed, notices = align({"t1": before.t1, "after": after.t1}, shown)
    same = [label(name) for name in CONTRASTS if _same_image(before.stated, after.stated, name)]
    if same:
        text = f"Both results were made from the same {', '.join(same)}: they may not be of two dates."
        notices.append(Notice("same-image", text))
    affine = placed["after"].affine
    shape = before.t1.data.shape
    later, later_brain = (
        resample(one.astype(np.float32), affine, before.t1.affine, shape) >= 0.5 for one in (after.mask, after.brain)
    )
    both = before.brain & later_brain
    labels = np.zeros(shape, np.uint8)
    labels[both & before.mask & later] = STABLE
    labels[both & ~before.mask & later] = NEW
    labels[both & before.mask & ~later] = VANISHED
    voxel_ml = voxel_mm3(before.t1.affine) / 1000
    change = after.volume_ml - before.volume_ml
    half = WIDTH * float(np.hypot(before.spread_ml, after.spread_ml))
    return Change(
        volume_ml=change,
        interval_ml=(change - half, change + half),
        real=abs(change) > max(half, LEAST_ML),
        labels=labels,
        new_ml=float((labels == NEW).sum() * voxel_ml),
        vanished_ml=float((labels == VANISHED).sum() * voxel_ml),
        later_cemri=resample(after.cemri, affine, before.t1.affine, shape),
        later_affine=affine,
        notices=tuple(notices),
    )


def _check_alike(before: dict[str, Any], after: dict[str, Any]) -> None:
    if before.get("given_mask") is not None or after.get("given_mask") is not None:
        raise D3MError(
            "The enhancing tumour of a result was given by a person: its volume is no prediction that could change.",
            "Make both results without a mask of the enhancement.",
        )
    for name, one, other in (
        ("models", before["model"].get("weights_sha256"), after["model"].get("weights_sha256")),
        ("qualities", _quality(before["settings"]), _quality(after["settings"])),
        ("contrasts", before.get("missing", []), after.get("missing", [])),
    ):
        if one != other:
            raise D3MError(
                f"The two results were made with different {name}: their difference says nothing about the patient.",
                "Make both in the same way.",
            )


def _quality(settings: dict[str, Any]) -> tuple[Any, Any]:
    """Reverse steps and slice interval; results of earlier versions computed every slice."""
    return settings.get("steps"), settings.get("slice_interval", 1)


def _same_image(before: dict[str, Any], after: dict[str, Any], contrast: str) -> bool:
    one, other = (stated.get("inputs", {}).get(contrast) for stated in (before, after))
    return isinstance(one, dict) and isinstance(other, dict) and one.get("sha256") == other.get("sha256")


def _without_tumour(visit: Visit) -> Mask:
    if not visit.mask.any():
        return visit.brain
    spacing = spacing_mm(visit.t1.affine)
    return np.asarray(visit.brain & (ndimage.distance_transform_edt(~visit.mask, sampling=spacing) > AROUND_MM))


def write_follow_up(out: Path, before: Visit, after: Visit, change: Change, replace: bool = False) -> None:
    """Write map, images, figure and numbers into a folder that exists whole or not at all.

    Raises:
        D3MError: the disk is full or cannot be written; the folder is there and must not be replaced.
    """
    codes = (before.t1.qform_code, before.t1.sform_code)
    with whole_folder(out, FOLLOW_UP, replace) as folder:
        images = {"change": change.labels, "earlier_cemri": before.cemri, "later_cemri": change.later_cemri}
        for name, data in images.items():
            write_nifti(folder / f"{name}.nii.gz", data, before.t1.affine, codes)
        draw_follow_up(
            folder / "figure.png", before.t1, before.cemri, change.later_cemri, change.labels, before.brain,
            f"Earlier {before.volume_ml:.1f} ml, later {after.volume_ml:.1f} ml. {change.sentence()}",
        )  # fmt: skip
        content = {
            "statement": STATEMENT,
            "synthetic": True,
            "sentence": change.sentence(),
            "earlier": _numbers(before),
            "later": _numbers(after),
            "change_ml": round(change.volume_ml, 3),
            "interval_ml": [round(one, 3) for one in change.interval_ml],
            "interval_level": LEVEL,
            "beyond_repetition": change.real,
            "new_ml": round(change.new_ml, 3),
            "vanished_ml": round(change.vanished_ml, 3),
            "labels": {"stable": STABLE, "new": NEW, "vanished": VANISHED},
            "later_index_to_earlier_ras": change.later_affine.tolist(),
            "notices": [asdict(notice) for notice in change.notices],
        }
        write_text(folder / "follow_up.json", json.dumps(for_json(content), indent=1, allow_nan=False) + "\n")


def _numbers(visit: Visit) -> dict[str, Any]:
    return {
        "enhancing_ml": round(visit.volume_ml, 3),
        "samples_ml": list(visit.samples_ml),
        "model": visit.stated["model"],
        "inputs": visit.stated["inputs"],
        "patient_estimate": visit.stated.get("patient_estimate"),
    }
