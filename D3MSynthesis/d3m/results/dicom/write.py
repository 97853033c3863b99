"""A result as DICOM: an MR series that says everywhere that it is synthetic, and a segmentation of the predicted
tumour.

The series joins the study and the frame of reference of T1's DICOM series, so that a viewer lays it over T1; without
one it makes a study of its own. No tag says how an image was acquired, since none was. pydicom and highdicom are
imported where they are needed.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel import orientations

from d3m.errors import D3MError, Notice
from d3m.models.patient import PatientEstimate
from d3m.results.dicom.images import require_highdicom, segmentation, slices
from d3m.results.dicom.tags import identity, lossy, read_header
from d3m.results.provenance import sampling_in_words
from d3m.system.folders import check_output, whole_folder
from d3m.system.manifest import FolderKind
from d3m.system.text import plain, read_text
from d3m.volumes.geometry import spacing_mm
from d3m.volumes.grid import resample
from d3m.volumes.io.dicom.headers import require_pydicom
from d3m.volumes.io.dicom.series import Frame, Series
from d3m.volumes.io.dicom.study import sorted_frames
from d3m.volumes.io.read import Source, read_raw, resolve
from d3m.volumes.types import ALL_CONTRASTS, Affine, Floats, Mask

if TYPE_CHECKING:
    from d3m.synthesis import Result

SERIES_FOLDER, SEG_NAME = "cemri", "enhancement_seg.dcm"
MAX_PROVENANCE_BYTES = 10_000_000
TOLD = ("given-mask", "contrast-missing", "dicom-other-study")
"""Notices that a series carries with it: without them its picture would be misread."""
SEVERAL = "The scans are of several examinations."
"""The same where Slicer's panel knows it, from the data tree: its notices have no codes."""
OWN = "The model's own, which does not know what was changed in the mask:"
"""What stands before the patient's estimate where a person has edited the mask: what is behind may be cut off."""
MAX_TEXT = 400
"""Characters that a series says of how it was made."""
DICOM = FolderKind("dicom", "an earlier DICOM result")


@dataclass(frozen=True)
class DicomContent:
    """What goes into the series."""

    cemri: Floats
    """(X, Y, Z), T1's units."""
    mask: Mask
    """(X, Y, Z), predicted enhancing tumour."""
    affine: Affine
    """(4, 4), voxel index to RAS millimetres."""
    settings: str
    """Model, quality, steps, samples and seed, in words."""
    origin: str = "predicted"
    """Where the mask comes from, of `ours.MASKS`."""


def content_of(result: Result) -> DicomContent:
    """The content of a result."""
    s = result.options
    text = _settings(result.model_name, asdict(s))
    said = [notice.message for notice in result.notices if notice.code in TOLD]
    said += [] if result.patient is None else [result.patient.sentence()]
    origin = "predicted" if result.steering is None else "given"
    words = " ".join([text, *said])[:MAX_TEXT]
    return DicomContent(result.cemri, result.enhancement_mask, result.t1.affine, words, origin)


def content_of_files(cemri: Path, mask: Path, provenance: Path | None) -> DicomContent:
    """The content of images that were saved before.

    Raises:
        D3MError: a file cannot be read, or the mask does not belong to the image.
    """
    image, marked = read_raw(cemri, "cemri"), read_raw(mask, "labels")
    if not np.isfinite(image.data).all():
        raise D3MError("The synthetic image has values that are no numbers.", "Give the cemri.nii.gz of a result.")
    shape = image.data.shape
    inside = resample(marked.data != 0, marked.affine, image.affine, shape, order=0)
    if (marked.data != 0).any() and not inside.any():
        raise D3MError("The mask does not lie on the synthetic image.", "Give the mask of the same result.")
    text, origin = "", "predicted"
    if provenance is not None:
        try:
            content = json.loads(read_text(provenance, "The provenance", MAX_PROVENANCE_BYTES))
            text = _settings(content["model"]["name"], content["settings"])
            said = [str(one["message"]) for one in content["notices"] if one["code"] in TOLD]
            said += [SEVERAL] if int((content.get("identity") or {}).get("examinations", 0)) > 1 else []
            origin = _origin(content)
            estimate = _patient(content.get("patient_estimate"))
            if estimate and (content.get("mask") or {}).get("edited"):
                said.append(OWN)
            said += estimate
            text = plain(" ".join([text, *said]))[:MAX_TEXT]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise D3MError("The provenance cannot be read.", "Give the provenance.json of the same result.") from error
    return DicomContent(image.data, inside, image.affine, text, origin)


def _origin(content: dict[str, Any]) -> str:
    """Where the mask of a provenance comes from: Slicer's panel says whether a person has edited it."""
    given, edited = content.get("given_mask") is not None, bool((content.get("mask") or {}).get("edited"))
    return "given" if given else "edited" if edited else "predicted"


def _settings(model: str, settings: Mapping[str, Any]) -> str:
    """What the image was made with, in words."""
    return f"Model {model}, quality {settings['quality']}, {sampling_in_words(settings)}, seed {settings['seed']}."


def _patient(stated: dict[str, Any] | None) -> list[str]:
    """The patient's estimate of a provenance, in words."""
    if not stated:
        return []
    low, high = stated["volume_interval_ml"]
    likely, volume, level = (float(stated[name]) for name in ("enhancement_probability", "volume_ml", "interval_level"))
    return [PatientEstimate(likely, volume, (float(low), float(high)), level).sentence()]


def check_dicom_output(out: Path, force: bool, result: Path | None = None, inputs: Iterable[Path] = ()) -> None:
    """Find out before the work whether DICOM can be written.

    Args:
        out: The folder for DICOM.
        force: An earlier DICOM result there may be replaced.
        result: The folder that the result itself goes to.
        inputs: What is read.

    Raises:
        D3MError: a package is missing; the folder is there, or cannot be written, or one folder holds the other.
    """
    require_pydicom()
    require_highdicom()
    another = "Choose another --dicom-out."
    if result is not None:
        one, other = out.resolve(), result.resolve()
        if one == other or one in other.parents or other in one.parents:
            raise D3MError("The DICOM folder and the output folder lie in each other.", another)
    try:
        check_output(out, DICOM, force, inputs)
    except D3MError as error:
        raise D3MError(
            error.message.replace("output folder", "DICOM folder"),
            error.hint.replace("--out", "--dicom-out"),
            error.kind,
        ) from error


def write_dicom(
    out: Path, content: DicomContent, sources: Sequence[Source | None], replace: bool = False
) -> tuple[Notice, ...]:
    """Write series and segmentation into a new folder, whole or not at all.

    Args:
        out: The folder: `cemri/0001.dcm`, ... and `enhancement_seg.dcm` (none for an empty mask).
        content: Image and mask on one grid.
        sources: T1, T2 and FLAIR as they were read, and further contrasts as in `ALL_CONTRASTS`; those of DICOM
            are referred to, and T1's decides patient, study, frame of reference, and how slices, rows and columns run.
        replace: Whether the folder may be there; ask `check_dicom_output` before.

    Returns:
        What was unusual.

    Raises:
        D3MError: a package is missing, or the disk is full or cannot be written.
    """
    require_highdicom()
    notices: list[Notice] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those about a name or a date show it
        datasets, mask = _datasets(content, sources, notices)
        if mask is None:
            text = "The mask of enhancing tumour is empty: the DICOM segmentation is left out."
            notices.append(Notice("dicom-empty-mask", text))
        with whole_folder(out, DICOM, replace) as folder:
            (folder / SERIES_FOLDER).mkdir()
            for number, dataset in enumerate(datasets, 1):
                dataset.save_as(folder / SERIES_FOLDER / f"{number:04d}.dcm", enforce_file_format=True)
            if mask is not None:
                mask.save_as(folder / SEG_NAME, enforce_file_format=True)
    return tuple(notices)


def _datasets(
    content: DicomContent, sources: Sequence[Source | None], notices: list[Notice]
) -> tuple[list[Any], Any | None]:
    """The slices, and the segmentation unless it is empty.

    highdicom makes the segmentation while the slices are still nobody's: it refuses patients whose sex or birth date
    is not as the standard demands.
    """
    series = [
        None if source is None else _series_of(source, contrast)
        for source, contrast in zip(sources, ALL_CONTRASTS, strict=False)
    ]
    frames = [
        [] if one is None else sorted_frames(one, contrast)
        for one, contrast in zip(series, ALL_CONTRASTS, strict=False)
    ]
    headers = [None if one is None else read_header(one.files[0]) for one in series]
    t1 = frames[0] if frames else []
    image, mask, affine = _turned(content, ("L", "P", "S") if not t1 else orientations.aff2axcodes(_directions(t1)))
    datasets = slices(image, affine, content.settings, [one for one in frames if one])
    seg = segmentation(datasets, mask, content.origin) if mask.any() else None
    whose = identity(headers[0] if t1 else None, not t1 or _same_grid(t1, affine, image.shape), notices)
    lost = lossy([header for header in headers if header is not None])
    for dataset in datasets:
        dataset.update(whose.position)
        dataset.update(lost)
    for dataset in datasets if seg is None else [*datasets, seg]:
        if "SpecificCharacterSet" in dataset:
            del dataset.SpecificCharacterSet
        dataset.update(whose.subject)
    return datasets, seg


def _series_of(source: Source, contrast: str) -> Series | None:
    found = resolve(source, contrast)
    return found if isinstance(found, Series) else None


def _directions(frames: Sequence[Frame]) -> Affine:
    """(4, 4) whose columns run as a series' rows, columns and slices do; RAS."""
    row, column = frames[0].orientation.reshape(2, 3)
    lps: Affine = np.eye(4)
    lps[:3, 0], lps[:3, 1], lps[:3, 2] = row, column, np.cross(row, column)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def _turned(content: DicomContent, codes: Sequence[str]) -> tuple[Floats, Mask, Affine]:
    """Image, mask and affine with axes that run as the codes say; no values change."""
    reorientation = orientations.ornt_transform(
        orientations.io_orientation(content.affine), orientations.axcodes2ornt(tuple(codes))
    )
    affine: Affine = content.affine @ orientations.inv_ornt_aff(reorientation, content.cemri.shape)
    image, mask = (orientations.apply_orientation(data, reorientation) for data in (content.cemri, content.mask))
    return image, mask, affine


def _same_grid(frames: Sequence[Frame], affine: Affine, shape: tuple[int, ...]) -> bool:
    """Whether the corners of a grid are those of a series: both runs are foot to head, row by row."""
    first, last = frames[0], frames[-1]
    rows, columns = first.shape
    corners = np.array([[i, j, k, 1] for i in (0, shape[0] - 1) for j in (0, shape[1] - 1) for k in (0, shape[2] - 1)])
    found = (corners @ affine.T)[:, :3] * [-1, -1, 1]
    row, column = first.orientation.reshape(2, 3)
    wanted = np.array([
        frame.position + i * row * frame.spacing[1] + j * column * frame.spacing[0]
        for i in (0, columns - 1) for j in (0, rows - 1) for frame in (first, last)
    ])  # fmt: skip
    limit = max(1.0, float(spacing_mm(affine).max()) / 2)
    return bool(shape[:2] == (columns, rows) and np.linalg.norm(found - wanted, axis=1).max() <= limit)
