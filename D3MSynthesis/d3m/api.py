"""One patient from scans to a result: what `d3m.synthesize` and the command of that name do."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d3m.models.needs import check_further, check_missing
from d3m.models.store import find_model, read_card
from d3m.options import SynthesisOptions
from d3m.progress import Progress, ProgressCallback, ignore_progress
from d3m.results.provenance import RESULT
from d3m.system.console import load_torch, require_torch
from d3m.system.folders import check_output, check_space, claim
from d3m.volumes.io.dicom.series import Series
from d3m.volumes.io.read import Scan, Source, read_raw, resolve
from d3m.volumes.preprocess.case import read_case, read_volume
from d3m.volumes.types import ALL_CONTRASTS, CONTRASTS, FURTHER_CONTRASTS

if TYPE_CHECKING:
    from d3m.synthesis import Result

INPUT_NAMES = (*ALL_CONTRASTS, "brain_mask", "t1c", "labels", "enhancement_mask")


def synthesize(
    *,
    t1: Source,
    t2: Source | None = None,
    flair: Source | None = None,
    adc: Source | None = None,
    swi: Source | None = None,
    out: Path | str | None = None,
    dicom_out: Path | str | None = None,
    brain_mask: Source | None = None,
    enhancement_mask: Source | None = None,
    reference: Source | None = None,
    reference_mask: Source | None = None,
    force: bool = False,
    progress: ProgressCallback = ignore_progress,
    options: SynthesisOptions | None = None,
    **changed: Any,
) -> Result:
    """Make a synthetic contrast-enhanced MRI from one patient's T1, T2 and FLAIR; for research use only.

    Each scan is a path (NIfTI, NRRD, MetaImage, or the folder of a DICOM series), an image of SimpleITK or nibabel, or
    a pair of an array (X, Y, Z) and its affine (4, 4), voxel index to RAS millimetres. Their grids may differ.

    Args:
        t1: The T1 without contrast agent.
        t2: The T2; None: it is missing, and only some models can do without (`optional_contrasts` of their cards).
        flair: The FLAIR; likewise, but not both.
        adc: The map of apparent diffusion coefficients, for models that take it (`contrasts` of their cards).
        swi: The susceptibility-weighted image; likewise.
        out: Folder for the files of the result, which appears whole or not at all; None: nothing is written.
        dicom_out: Folder for a DICOM series marked as synthetic and a DICOM segmentation.
        brain_mask: What is not zero in the brain; None: the scans are skull-stripped, or the brain is looked for.
        enhancement_mask: The enhancing tumour as a person sees it, a label map: the picture follows it.
        reference: A real T1c to compare with; the numbers go into `out/comparison.json`.
        reference_mask: The real enhancing tumour (not zero), for the same file.
        force: Replace an earlier result.
        progress: Told about each step; may raise to end the run.
        options: How it is made.
        changed: Fields of `SynthesisOptions` by name, such as quality="preview", seed=3, device="cpu".

    Returns:
        The volumes on T1's grid, the deformation in millimetres, and what was noticed.

    Raises:
        D3MError: scans that cannot be used, an option out of range, not enough memory or disk space, no torch.
    """
    started, wanted = time.monotonic(), replace(options or SynthesisOptions(), **changed)
    scans = (t1, t2, flair, adc, swi, brain_mask, reference, reference_mask, enhancement_mask)
    given = zip(INPUT_NAMES, scans, strict=True)
    inputs = {name: resolve(one, name) for name, one in given if one is not None}
    folder = find_model(wanted.model)
    card, further = read_card(folder), {name: inputs[name] for name in FURTHER_CONTRASTS if name in inputs}
    check_missing(card, [name for name in CONTRASTS if name not in inputs])
    check_further(card, further)
    kept = [folder, *(path for one in inputs.values() for path in _files(one))]
    result_folder, dicom_folder = (None if place is None else Path(place) for place in (out, dicom_out))
    if result_folder is not None:
        check_output(result_folder, RESULT, force, kept)
    if dicom_folder is not None:
        from d3m.results.dicom.write import check_dicom_output, content_of, write_dicom

        check_dicom_output(dicom_folder, force, result_folder, kept)
    progress(Progress("read", 0.0, message="Reading the scans"))
    load_torch()
    with ThreadPoolExecutor(1) as pool:  # what the result is compared with, beside the scans
        beside = pool.submit(read_volume, inputs["t1c"], "t1c") if "t1c" in inputs else None
        case = read_case(
            inputs["t1"],
            inputs.get("t2"),
            inputs.get("flair"),
            inputs.get("brain_mask"),
            wanted.brain,
            inputs.get("enhancement_mask"),
            wanted.enhancing_label,
            further,
        )
        real = None if beside is None else beside.result()
    require_torch()
    from d3m.models.load import load_model
    from d3m.results.files import needed_bytes, write_result
    from d3m.synthesis import Synthesis

    real_mask = read_raw(inputs["labels"], "labels") if "labels" in inputs else None
    with contextlib.nullcontext() if result_folder is None else claim(result_folder):
        if result_folder is not None:  # an older result that a killed run was replacing may have come back
            check_output(result_folder, RESULT, force, kept)
        progress(Progress("model", 0.0, message="Loading the model"))
        synthesis = Synthesis(load_model(folder), wanted)
        if result_folder is not None:
            check_space(result_folder, needed_bytes(case, synthesis.sampling.steps, wanted.trace))
        result = synthesis.run(case, progress)
        progress(Progress("write", 0.98, message="Writing the result"))
        if result_folder is not None:
            seconds = time.monotonic() - started
            write_result(result_folder, result, case, seconds, real, real_mask, replace=force)
        if dicom_folder is not None:
            sources = [inputs.get(name) for name in ALL_CONTRASTS]
            said = write_dicom(dicom_folder, content_of(result), sources, force)
            result = replace(result, notices=(*result.notices, *said))
    return result


def _files(scan: Scan) -> Sequence[Path]:
    """What a scan is read from, which no output may replace."""
    if isinstance(scan, Series):
        return sorted({path.parent for path in scan.files})
    return [scan] if isinstance(scan, Path) else []
