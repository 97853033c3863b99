"""A case of a BIDS data set into BIDS derivatives, each file beside a sidecar that marks it as synthetic."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.image import imsave
from nibabel import orientations

import d3m
from d3m.batch.bids import DESCRIPTION, SOFTWARE, BidsCase, check_dataset
from d3m.batch.cases import CaseFiles
from d3m.batch.run import Outcome, Row, run_case
from d3m.errors import D3MError
from d3m.options import SynthesisOptions
from d3m.progress import ProgressCallback
from d3m.results.provenance import STATEMENT
from d3m.results.view_page import FILE_NAME as VIEW
from d3m.synthesis import Result, Synthesis
from d3m.system.folders import put_in_order, tidy
from d3m.system.locks import hold
from d3m.system.own_files import write_own
from d3m.system.storage import replace_text, writing
from d3m.system.text import for_json, read_object
from d3m.volumes.geometry import spacing_mm
from d3m.volumes.types import ALL_CONTRASTS, Case, Floats

BIDS_VERSION = "1.10.0"
NAMES = {
    "cemri": ("desc-synthT1c_T1w", "Synthetic contrast-enhanced T1-weighted image."),
    "subtraction": ("desc-synthSubtraction_T1w", "Synthetic contrast-enhanced image minus T1w: what enhances."),
    "uncertainty": ("desc-synthUncertainty_T1w", "How far off the synthetic image may be, in T1w's intensities."),
    "enhancement_mask": ("label-enhancement_mask", "Predicted enhancing tumour."),
    "enhancement_probability": ("label-enhancement_probseg", "Predicted probability of enhancing tumour."),
    "whole_tumour_probability": (
        "label-tumour_probseg",
        "Predicted probability of any tumour, oedema included, from the whole brain at 2 mm.",
    ),
    "first_sample": (
        "desc-synthFirstSample_T1w",
        "The first sample by itself, which the deformation ends in; on the model's own grid.",
    ),
    "deformation": (
        "desc-synthT1c_xfm",
        "Displacement of the last step, RAS millimetres, from a point of the result to the point its value was "
        "taken from; on the model's own grid.",
    ),
}
"""Of each file that a result has: what follows the participant's name in BIDS, and its description."""
THUMBNAIL = "desc-synthT1c_thumbnail.jpg"
FIGURE = "desc-synthT1c_figure.png"
PAGE = f"desc-synthT1c_{VIEW}"
THUMBNAIL_SIDE = 132
"""Pixels of each of a thumbnail's four pictures."""
STATE = ".d3m"
"""Folder for the rows of cases and their locks."""
IGNORED = ("**/.d3m*", "provenance.json", "*_xfm.nii.gz", "*_xfm.json", f"*_{FIGURE.split('_')[1]}", "*_thumbnail.jpg",
           f"*_{VIEW}", "summary.tsv", "summary.json", "review.html")  # fmt: skip
"""What BIDS has no names for (transforms: BEP014 is a draft)."""
README = f"""Synthetic contrast-enhanced brain MRI, made by D3M from T1w, T2w and FLAIR.

{STATEMENT}

desc-synthT1c_T1w is the synthetic image on T1w's grid. It has no `ce-` entity, because no agent was given.
Each sidecar says "Synthetic": true. review.html, where it exists, shows all cases; summary.tsv has their numbers.
"""


@dataclass(frozen=True)
class BidsWork:
    """What is done with each case of a BIDS data set."""

    root: Path
    """The data set; nothing is written into it."""
    out: Path
    options: SynthesisOptions

    def load(self) -> Synthesis:
        """The model, loaded."""
        return Synthesis.load(self.options)

    def run(self, case: CaseFiles, synthesis: Synthesis, progress: ProgressCallback) -> Outcome:
        """Write one case's derivatives, unless they are whole or another run has the case in hand.

        Raises:
            D3MError: the disk is full or cannot be written; the user stopped the run.
        """
        assert isinstance(case, BidsCase)
        folder = case.folder(self.out)
        with hold(self.out / STATE / "locks" / case.id) as ours:
            if not ours:
                return Outcome(Row(case.id, "elsewhere", "", "", 0.0, None, ""))
            if folder.parent.is_dir():
                with writing():
                    put_in_order(folder.parent)  # what a process that was killed left
                    tidy(folder)

            def finish(made: Path, result: Result, scans: Case) -> None:
                _to_bids(made, case, self.root, result, scans)

            outcome = run_case(case, folder, synthesis, progress, finish)
            store_row(self.out, outcome.row)
        return outcome


def start_derivatives(root: Path, out: Path) -> None:
    """Write what describes the derivatives as a data set.

    Raises:
        D3MError: the disk is full or cannot be written.
    """
    source: dict[str, object] = {"URL": root.resolve().as_uri()}
    if doi := check_dataset(root).get("DatasetDOI"):
        source["DOI"] = doi
    description = {
        "Name": "Synthetic contrast-enhanced MRI (research use only)",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": SOFTWARE, "Version": d3m.__version__, "Description": STATEMENT}],
        "SourceDatasets": [source],
        "DatasetLinks": {"raw": root.resolve().as_uri()},
    }
    with writing():
        out.mkdir(parents=True, exist_ok=True)
    write_ours(out / DESCRIPTION, json.dumps(for_json(description), indent=1, allow_nan=False) + "\n")
    write_ours(out / "README", README)
    write_ours(out / ".bidsignore", "\n".join(IGNORED) + "\n")


def write_ours(path: Path, text: str) -> None:
    """Write a text file in the place of people: a file there that somebody changed is kept under another name.

    Raises:
        D3MError: the disk is full or cannot be written.
    """
    with writing():
        write_own(path, text)


def store_row(out: Path, row: Row) -> None:
    """Keep how a case ended; that it was skipped says only that an earlier row of a whole result is right."""
    path = out / STATE / "cases" / f"{row.id}.json"
    if row.status == "elsewhere":
        return
    if row.status == "skipped":
        earlier = read_row(path)
        if earlier is not None and earlier.status == "done":
            return
        row = replace(row, status="done", reason="", hint="")
    with writing():
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, json.dumps(for_json(asdict(row)), ensure_ascii=False, allow_nan=False) + "\n")


def read_row(path: Path) -> Row | None:
    """A row that was kept, or None if the file is missing or damaged."""
    try:
        kept = read_object(path, "The row")
        if "mend" in kept:  # the older name, of version 0.1
            kept["hint"] = kept.pop("mend")  # the older name
        row = Row(**kept)
    except (D3MError, TypeError):
        return None
    texts = (row.id, row.status, row.reason, row.hint, row.notices)
    numbers = (row.seconds, 0.0 if row.enhancing_ml is None else row.enhancing_ml)
    whole = all(isinstance(text, str) for text in texts) and all(isinstance(n, int | float) for n in numbers)
    return row if whole else None


def _to_bids(made: Path, case: BidsCase, root: Path, result: Result, scans: Case) -> None:
    """Give a result's files their BIDS names and sidecars, and add the thumbnail."""
    uris = {
        contrast: f"bids:raw:{path.relative_to(root).as_posix()}"
        for contrast in ALL_CONTRASTS
        if (path := getattr(case, contrast)) is not None
    }
    outside = ~scans.brain
    common = {
        "Synthetic": True,
        "Statement": STATEMENT,
        "Sources": list(uris.values()),
        "SpatialReference": uris["t1"],
        # what lies outside of the brain in the synthetic image is T1's
        "SkullStripped": bool(np.count_nonzero(scans.t1.data[outside]) < 0.01 * outside.sum()),
        "Model": {"Name": result.model_name, "WeightsSHA256": result.model_sha256},
        "Sampling": {"Quality": result.options.quality, "Steps": result.options.steps,
                     "Samples": result.options.samples, "SliceInterval": result.options.slice_interval,
                     "Seed": result.options.seed},
    }  # fmt: skip
    for name, (ending, description) in NAMES.items():
        source = made / f"{name}.nii.gz"
        if not source.exists():  # the uncertainty of a single sample
            continue
        content: dict[str, object] = {"Description": f"{description} {STATEMENT}"} | common
        if ending.endswith(("mask", "probseg")):
            content["Type"] = "Lesion"
        if name == "uncertainty":
            content["Quantity"] = result.uncertainty_is
        if name in ("first_sample", "deformation"):
            content["SpatialReference"] = "The model's grid: axial slices, LPS."
        source.rename(made / f"{case.id}_{ending}.nii.gz")
        (made / f"{case.id}_{ending}.json").write_text(
            json.dumps(for_json(content), indent=1, allow_nan=False) + "\n", encoding="utf-8"
        )
    (made / "figure.png").rename(made / f"{case.id}_{FIGURE}")
    if result.options.page:
        (made / VIEW).rename(made / f"{case.id}_{PAGE}")
    write_thumbnail(made / f"{case.id}_{THUMBNAIL}", result)


def write_thumbnail(path: Path, result: Result) -> None:
    """T1, synthetic image, subtraction and mask side by side in the axial slice with most enhancement, as JPEG.

    The patient's right is on the left of each picture.
    """
    affine = result.t1.affine
    reorientation = orientations.ornt_transform(orientations.io_orientation(affine), orientations.axcodes2ornt("LPS"))
    volumes = [result.t1.data, result.cemri, result.subtraction, result.enhancement_mask, result.brain]
    t1, cemri, subtraction, mask, brain = (orientations.apply_orientation(volume, reorientation) for volume in volumes)
    counted = mask if mask.any() else brain
    z = int(counted.sum(axis=(0, 1)).argmax())
    low, high = (float(v) for v in np.percentile(cemri[brain], (1, 99.5)))
    change = max(float(np.percentile(np.abs(subtraction[brain]), 99.5)), 1e-6)
    views = [
        _grey(t1[:, :, z], low, high),
        _grey(cemri[:, :, z], low, high),
        _grey(subtraction[:, :, z] * brain[:, :, z], -change, change),
    ]
    overlay = views[1].copy()
    overlay[mask[:, :, z]] = 0.5 * overlay[mask[:, :, z]] + (127, 20, 20)
    spacing = spacing_mm(affine)[turn_order(affine)]
    strip = np.concatenate([_fit(view, spacing) for view in (*views, overlay)], axis=1)
    imsave(path, strip.astype(np.uint8), format="jpg", pil_kwargs={"quality": 82})


def turn_order(affine: np.ndarray) -> list[int]:
    """Which voxel axes run left-right and front-back."""
    axes = orientations.io_orientation(affine)[:, 0]
    return [int(np.flatnonzero(axes == world)[0]) for world in (0, 1)]


def _grey(plane: Floats, low: float, high: float) -> np.ndarray:
    """(X, Y) into (X, Y, 3), 0 to 255."""
    scaled = np.clip((plane - low) / max(high - low, 1e-6), 0, 1) * 255
    return np.repeat(scaled[..., None], 3, axis=-1)


def _fit(view: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """(X, Y, 3) into a square of `THUMBNAIL_SIDE`, true to scale, nearest neighbour, rows downwards."""
    extent = float(max(view.shape[0] * spacing[0], view.shape[1] * spacing[1]))
    place = (np.arange(THUMBNAIL_SIDE) + 0.5) / THUMBNAIL_SIDE * extent
    picked = []
    for axis in (0, 1):
        margin = (extent - view.shape[axis] * spacing[axis]) / 2
        picked.append(np.floor((place - margin) / spacing[axis]).astype(int))
    inside = [(index >= 0) & (index < size) for index, size in zip(picked, view.shape, strict=False)]
    square = np.zeros((THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3))
    columns, rows = picked[0][inside[0]], picked[1][inside[1]]
    square[np.ix_(inside[1], inside[0])] = view[np.ix_(columns, rows)].transpose(1, 0, 2)
    return square
