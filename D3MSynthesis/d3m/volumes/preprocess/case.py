"""Three scans (with the brain) into a checked `Case`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from d3m.errors import D3MError, Notice
from d3m.system.threads import side_by_side
from d3m.volumes.geometry import spacing_mm
from d3m.volumes.grid import resample
from d3m.volumes.io.dicom.choice import check_one_patient
from d3m.volumes.io.dicom.series import Series
from d3m.volumes.io.files import label
from d3m.volumes.io.headers import corner_distance
from d3m.volumes.io.read import Source, read_raw, resolve
from d3m.volumes.preprocess import checks
from d3m.volumes.preprocess.atlas import find_pose
from d3m.volumes.preprocess.brain import Seen, find_brain, look, mask_from_file, settle
from d3m.volumes.preprocess.extraction import extract_brain
from d3m.volumes.preprocess.given import enhancement_from_file, segment_names
from d3m.volumes.preprocess.registration import align
from d3m.volumes.preprocess.values import check_values
from d3m.volumes.types import ALL_CONTRASTS, CONTRASTS, FURTHER_CONTRASTS, GIVEN, STRIPPED, Case, Mask, Volume

SNAP_VOXELS = 0.25
"""Scans of one shape whose headers agree to this everywhere share T1's grid: the rest is rounding."""


def read_volume(path: Source, contrast: str) -> Volume:
    """Read one NIfTI, NRRD or MetaImage file, or one DICOM series.

    Values that are not finite become background where they are connected to the outside of what is seen.

    Args:
        path: A file (its content decides the format, never its name), a DICOM series' folder, a chosen series, or an
            image in memory.
        contrast: "t1", "t2", "flair", "t1c", ...: what messages call it.

    Returns:
        Any orientation, RAS millimetres, the file's own intensities as float32; notices say what was unusual.

    Raises:
        D3MError: anything that keeps the file from being one scan, with the way to put it right.
    """
    volume = _read_checked(contrast, path)
    if contrast not in ALL_CONTRASTS and np.isfinite(volume.data).all():
        return volume  # there is nothing to settle
    return settle(volume, contrast, look(volume))


def _read_checked(contrast: str, path: Source) -> Volume:
    volume = read_raw(path, contrast)
    checks.check_content(volume.data, contrast)
    return volume


def read_case(
    t1: Source,
    t2: Source | None,
    flair: Source | None,
    brain_mask: Source | None = None,
    extractor: str = "auto",
    enhancement_mask: Source | None = None,
    enhancing_label: str | None = None,
    further: Mapping[str, Source] | None = None,
) -> Case:
    """Read the scans of a patient, check that they belong together, and find the brain.

    Args:
        t1: The T1 without contrast agent: a file, a DICOM series' folder, a chosen series, or an image in memory (of
            SimpleITK or nibabel, or an array with its affine in RAS).
        t2: The T2; None: it is missing, and only some models can do without.
        flair: The FLAIR; None likewise, but not both.
        brain_mask: What is not zero in the brain, in T1's frame of reference; None: the scans are skull-stripped, or
            one of them is, or the brain is looked for in T1.
        extractor: What looks for it: one of `d3m.options.BRAIN_EXTRACTORS`.
        enhancement_mask: The enhancing tumour as a person sees it, a label map in T1's frame of reference: the picture
            follows it. None: the model predicts it.
        enhancing_label: Which label that is; see `enhancement_from_file`.
        further: Those of `FURTHER_CONTRASTS` that there are, by name; they are registered to T1 and not looked at for
            the brain.

    Returns:
        The scans on their own grids (all registered to T1 if they were not), the brain on T1's, and how the
        head is tilted; notices of the scans included. What is missing is zero.

    Raises:
        D3MError: a file that cannot be used, the same image twice, scans that do not overlap or cannot be registered,
            whole heads in which no brain is found, a mask that does not fit.
    """
    given: dict[str, Source | None] = {"t1": t1, "t2": t2, "flair": flair}
    sources = {name: one for name, one in given.items() if one is not None}
    missing = tuple(name for name in CONTRASTS if name not in sources)
    if "t1" in missing or len(missing) > 1:
        raise D3MError("T1 is needed, and T2 or FLAIR or both.", "Give the scans that are missing.")
    sources |= {name: further[name] for name in FURTHER_CONTRASTS if further and name in further}
    checks.check_paths({name: Path(one) for name, one in sources.items() if isinstance(one, (str, Path))})
    sources = {name: resolve(one, name) for name, one in sources.items()}
    notices = check_one_patient({name: one for name, one in sources.items() if isinstance(one, Series)})
    read = side_by_side(_read_checked, sources)
    volumes = {name: _snapped(volume, read["t1"]) for name, volume in read.items()}
    checks.check_fields_of_view(volumes)
    seen = _look_at(volumes)
    mask, source = None, STRIPPED
    if brain_mask is not None:
        source = GIVEN
        mask = mask_from_file(_snapped(read_raw(brain_mask, "brain_mask"), volumes["t1"]), volumes["t1"])
    main = [name for name in volumes if name in CONTRASTS]
    if mask is None and all(seen[name].problem for name in main):
        found_brain = extract_brain(volumes["t1"], extractor)
        mask, source = found_brain.mask, found_brain.how
        notices += found_brain.notices
    volumes, said = align(volumes, _compared(volumes, seen, mask))
    notices += said
    brain, found = find_brain({name: volumes[name] for name in main}, seen, mask)
    settled = side_by_side(lambda name, volume: settle(volume, name, seen[name], brain, volumes["t1"].affine), volumes)
    notices += [notice for volume in settled.values() for notice in volume.notices]
    notices += found
    notices += checks.thick_slices(settled)
    notices += checks.compare_contrasts(settled, brain)
    pose, said = find_pose(settled["t1"], brain, tuple(settled[name] for name in main if name != "t1"))
    notices += said
    drawn = None
    if enhancement_mask is not None:
        names = segment_names(Path(enhancement_mask)) if isinstance(enhancement_mask, (str, Path)) else {}
        labels = _snapped(read_raw(enhancement_mask, "enhancement_mask"), settled["t1"])
        drawn, said = enhancement_from_file(labels, settled["t1"], brain, enhancing_label, names)
        notices += said
    for name in missing:
        text = f"{label(name)} was not given: the picture was made without it, and is less exact."
        notices.append(Notice("contrast-missing", text, name))
        settled[name] = Volume(np.zeros_like(settled["t1"].data), settled["t1"].affine)
    return Case(
        settled["t1"],
        settled["t2"],
        settled["flair"],
        brain,
        tuple(notices),
        pose,
        source,
        missing,
        {name: one for name, one in settled.items() if name not in CONTRASTS},
        None if drawn is None else drawn.mask,
        "" if drawn is None else drawn.sha256,
    )


def _look_at(volumes: dict[str, Volume]) -> dict[str, Seen]:
    """What each scan shows, several at once.

    Raises:
        D3MError: the values of one make no sense.
    """

    def look_at(name: str, volume: Volume) -> Seen:
        seen = look(volume)
        check_values(volume.data, seen.inside, not seen.problem, name)
        return seen

    return side_by_side(look_at, volumes)


def _compared(volumes: dict[str, Volume], seen: dict[str, Seen], mask: Mask | None) -> dict[str, Mask]:
    """What registration looks at in each scan, on its own grid: the brain where it is known, else all."""
    compared = {name: one.inside if not one.problem else np.isfinite(volumes[name].data) for name, one in seen.items()}
    stripped = [name for name, one in seen.items() if not one.problem]
    t1 = volumes["t1"]
    if mask is not None:
        compared["t1"] = mask
    elif "t1" not in stripped and stripped:
        other = volumes[stripped[0]]
        compared["t1"] = resample(compared[stripped[0]], other.affine, t1.affine, t1.data.shape, order=0)
    return compared


def _snapped(volume: Volume, t1: Volume) -> Volume:
    """The volume with T1's own affine where the two differ by rounding alone."""
    if volume.data.shape != t1.data.shape or volume is t1:
        return volume
    spacing = spacing_mm(t1.affine).min()
    if corner_distance(volume.affine, t1.affine, t1.data.shape) > SNAP_VOXELS * spacing:
        return volume
    return replace(volume, affine=t1.affine)
