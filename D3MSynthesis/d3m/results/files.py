"""A result as a folder of files: it exists whole, or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel import orientations

from d3m import metrics
from d3m.errors import D3MError
from d3m.results.ours import MARK
from d3m.results.provenance import FILE_NAME, RESULT, add_files, provenance
from d3m.results.view_page import FILE_NAME as VIEW
from d3m.results.view_page import write_page
from d3m.synthesis import Result
from d3m.system.folders import whole_folder
from d3m.system.storage import write_text
from d3m.system.text import for_json
from d3m.volumes.geometry import voxel_mm3
from d3m.volumes.grid import resample
from d3m.volumes.types import STRIPPED, Affine, Case, Volume

INTENT_DISPLACEMENT = 1006
"""NIFTI_INTENT_DISPVECT: vectors are RAS millimetres, and SimpleITK and Slicer read them as a displacement field."""
WRITERS = 2
"""Images that are packed at once."""
PACKED = 0.6
"""Bytes on disk for each byte of noise-like values, at the least."""
COMPRESSION = 1
"""zlib level: the images are noise-like, so a higher one costs seconds and saves little."""
GZIP = 16 + zlib.MAX_WBITS
"""What zlib calls the format of .gz files."""
NO_EXTENSION = bytes(4)
"""What stands between the header of a NIfTI file and its voxels."""


def needed_bytes(case: Case, steps: int, trace: bool) -> int:
    """How much room a result takes at least; what is packed well, such as the background, counts for nothing.

    Args:
        case: What it is made from.
        steps: Of the sampler.
        trace: Whether each step is kept.
    """
    brain = int(case.brain.sum())
    model = int(case.brain_ml * 1000)  # voxels of the model's grid, 1 mm, in the brain
    images = 3 * 4 * brain  # float32: cemri, subtraction, probability
    fields = 3 * 4 * model
    kept = steps * (2 * 4 * model + fields) if trace else 0
    return int(PACKED * (images + fields + kept))


def write_result(
    out: Path | str,
    result: Result,
    case: Case,
    seconds: float | None = None,
    reference: Volume | None = None,
    reference_mask: Volume | None = None,
    finish: Callable[[Path, Result, Case], None] | None = None,
    replace: bool = True,
) -> None:
    """Write everything that belongs to a result.

    Args:
        out: The folder; it appears whole. Ask `check_output` first.
        result: What is written.
        case: What it was made from.
        seconds: How long the whole run took so far; None: what `result` says that it took.
        reference: A real T1c: `comparison.json` is written too.
        reference_mask: The real enhancing tumour (not zero), for `comparison.json`.
        finish: Called with the folder before its provenance is written; may give the files other names and add some.
        replace: Whether an older result there is replaced, unless somebody changed it.

    Raises:
        D3MError: the disk is full or cannot be written; the folder is there and must not be replaced.
    """
    if seconds is None:
        seconds = sum(asdict(result.timings).values())
    with whole_folder(Path(out), RESULT, replace) as folder:
        with _packers() as pool:
            waiting = []
            if reference is not None:  # it takes longest
                waiting.append(pool.submit(_write_comparison, folder, result, case, reference, reference_mask))
            waiting += [pool.submit(*one) for one in _writing(folder, result, case)]
            if result.options.page:
                waiting.append(pool.submit(write_page, folder / VIEW, result, case))
            _draw(folder, result, case)
            for one in waiting:
                one.result()
        if finish is not None:
            finish(folder, result, case)
        write_text(folder / FILE_NAME, add_files(provenance(result, case, seconds), folder))


@contextlib.contextmanager
def _packers() -> Iterator[ThreadPoolExecutor]:
    """Threads that pack images beside the drawing; what waits for them is given up when anything fails."""
    pool = ThreadPoolExecutor(WRITERS)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _writing(folder: Path, result: Result, case: Case) -> Iterator[tuple[Any, ...]]:
    """The calls that write every image of a result."""
    t1, grid = case.t1, result.grid
    for name, data in _images(result).items():
        yield write_nifti, folder / f"{name}.nii.gz", data, t1.affine, (t1.qform_code, t1.sform_code), t1.qform
    yield write_nifti, folder / "first_sample.nii.gz", result.first_sample, grid.affine
    yield write_displacement, folder / "deformation.nii.gz", result.displacement, grid.affine
    for step in result.trace:
        start = folder / "trace" / f"step_{step.steps_done:03d}"
        start.parent.mkdir(exist_ok=True)
        for name, data in (("before", step.before), ("after", step.after), ("mask", step.mask)):
            yield write_nifti, start.with_name(f"{start.name}_{name}.nii.gz"), data, grid.affine
        yield write_displacement, start.with_name(f"{start.name}_field.nii.gz"), step.displacement, grid.affine


def _write_comparison(folder: Path, result: Result, case: Case, reference: Volume, mask: Volume | None) -> None:
    compared = compare(result, case, reference, mask)
    write_text(folder / "comparison.json", json.dumps(for_json(compared), indent=1, allow_nan=False) + "\n")


def _draw(folder: Path, result: Result, case: Case) -> None:
    from d3m.results.figure import draw_figure  # matplotlib is imported while the images are being packed

    draw_figure(folder / "figure.png", result, case)
    if case.brain_source != STRIPPED:
        from d3m.results.brain_figure import draw_brain

        draw_brain(folder / "brain.png", case)


def _images(result: Result) -> dict[str, np.ndarray]:
    """File name and voxels of everything on T1's grid."""
    images: dict[str, np.ndarray] = {
        "cemri": result.cemri,
        "subtraction": result.subtraction,
        "enhancement_probability": result.enhancement_probability,
        "enhancement_mask": result.enhancement_mask.astype(np.uint8),
    }
    if result.uncertainty is not None:
        images["uncertainty"] = result.uncertainty
    if result.whole_tumour_probability is not None:
        images["whole_tumour_probability"] = result.whole_tumour_probability
    return images


def write_nifti(
    path: Path, data: np.ndarray, affine: Affine, codes: tuple[int, int] = (1, 1), qform: Affine | None = None
) -> None:
    """Write a NIfTI image so that a full disk is noticed.

    Args:
        path: Ends with .nii.gz.
        data: (X, Y, Z) or (X, Y, Z, 1, 3).
        affine: Voxel index to RAS millimetres.
        codes: qform and sform code; (0, 0) becomes (1, 1), since an image without orientation cannot be trusted.
        qform: What the quaternion says, if it is not `affine`.
    """
    image = nibabel.Nifti1Image(data, affine)
    qform_code, sform_code = codes if any(codes) else (1, 1)
    image.set_qform(affine if qform is None or not qform_code else qform, qform_code, strip_shears=True)
    image.set_sform(affine, sform_code)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = MARK
    if data.ndim == 5:
        image.header.set_intent(INTENT_DISPLACEMENT)
    image.header.set_slope_inter(1, 0)
    image.header["vox_offset"] = image.header.single_vox_offset
    # without nibabel's own writer, which would copy all voxels twice
    _write_packed(path, image.header.binaryblock + NO_EXTENSION, np.ascontiguousarray(data.T).data.cast("B"))


def _write_packed(path: Path, header: bytes, voxels: memoryview) -> None:
    # what repeats in noise-like images are runs of zeros around the brain: to look for no more takes half the time, and
    # no more room; other surroundings repeat every four bytes
    strategy = zlib.Z_DEFAULT_STRATEGY if any(voxels[-4:]) else zlib.Z_RLE
    packer = zlib.compressobj(COMPRESSION, zlib.DEFLATED, GZIP, strategy=strategy)
    with path.open("wb") as f:
        f.write(packer.compress(header))
        f.write(packer.compress(voxels))
        f.write(packer.flush())
        f.flush()
        os.fsync(f.fileno())


def write_displacement(path: Path, displacement: np.ndarray, affine: Affine) -> None:
    """Write a field of RAS millimetres, (W, H, S, 3), as SimpleITK and Slicer read it: NIfTI, 5-D, intent 1006."""
    write_nifti(path, displacement[:, :, :, None, :].astype(np.float32), affine)


def compare(result: Result, case: Case, reference: Volume, mask: Volume | None = None) -> dict[str, float | str | None]:
    """The numbers of `comparison.json`: the synthetic image beside a real T1c of the same patient.

    Args:
        result: The synthetic one.
        case: Its input.
        reference: A real T1c in the same frame; resampled onto T1's grid.
        mask: The real enhancing tumour in the same frame (not zero); None: estimated from the T1c's brightness.
    """
    shape, affine = case.t1.data.shape, case.t1.affine
    t1c = resample(reference.data, reference.affine, affine, shape)
    reorientation = orientations.io_orientation(affine)  # slices must be axial for SSIM

    def axial(data: np.ndarray) -> np.ndarray:
        return orientations.apply_orientation(data, reorientation)

    enhancing = None if mask is None else resample(mask.data != 0, mask.affine, affine, shape, order=0)
    compared = metrics.beside(
        result.cemri, case.t1.data, t1c, case.brain, result.enhancement_mask, enhancing, voxel_mm3(affine) / 1000, axial
    )
    if compared is None:
        raise D3MError("The reference does not overlap the brain in T1.", "Choose a T1c of the same examination.")
    return compared
