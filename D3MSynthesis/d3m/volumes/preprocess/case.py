"""Files into checked `Volume`s, and three of them (with the brain) into a `Case`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from d3m.errors import D3MError
from d3m.volumes.grid import resample
from d3m.volumes.io import nifti, textheaders
from d3m.volumes.io.dicom import study as dicom
from d3m.volumes.io.dicom.choice import check_one_patient, series_in
from d3m.volumes.io.dicom.headers import is_dicom, starts_like_dicom
from d3m.volumes.io.dicom.series import Series
from d3m.volumes.io.files import (
    ARCHIVES,
    PICTURES,
    check_size,
    content_hash,
    damaged,
    decoded,
    label,
    open_file,
    read_numbers,
    reading,
    skip,
    truncated,
    unpack,
)
from d3m.volumes.io.headers import Header, corner_distance
from d3m.volumes.preprocess import checks
from d3m.volumes.preprocess.atlas import find_pose
from d3m.volumes.preprocess.brain import Seen, find_brain, look, mask_from_file, settle
from d3m.volumes.preprocess.extraction import extract_brain
from d3m.volumes.preprocess.registration import align
from d3m.volumes.types import CONTRASTS, GIVEN, STRIPPED, Case, Floats, Mask, Volume

SNAP_VOXELS = 0.25
"""Scans of one shape whose headers agree to this everywhere share T1's grid: the rest is rounding."""
KNOWN_FORMATS = "Give a NIfTI (.nii, .nii.gz), NRRD or MetaImage (.mha, .mhd) file, or a DICOM series' folder."

Source = Path | Series
"""Where a scan is: a file, a folder with a DICOM series, or a series that was chosen."""


def read_volume(path: Source, contrast: str) -> Volume:
    """Read one NIfTI, NRRD or MetaImage file, or one DICOM series.

    Values that are not finite become background where they are connected to the outside of what is seen.

    Args:
        path: A file (its content decides the format, never its name), a DICOM series' folder, or a chosen series.
        contrast: "t1", "t2", "flair", "t1c", ...: what messages call it.

    Returns:
        Any orientation, RAS millimetres, the file's own intensities as float32; notices say what was unusual.

    Raises:
        D3MError: anything that keeps the file from being one scan, with the way to put it right.
    """
    volume = read_raw(path, contrast)
    checks.check_content(volume.data, contrast)
    return settle(volume, contrast, look(volume))


def resolve(path: Source, contrast: str) -> Source:
    """The series in a DICOM folder or of a DICOM file; anything else as it is.

    Raises:
        D3MError: no series, or several that fit.
    """
    return series_in(Path(path), contrast) if not isinstance(path, Series) and is_dicom(Path(path)) else path


def read_raw(path: Source, contrast: str) -> Volume:
    """As `read_volume`, but of any content: values may be infinite or not a number, or all the same."""
    if isinstance(path, Series) or is_dicom(Path(path)):
        return dicom.read_series(path, contrast)
    path = Path(path)
    pair = nifti.pair_files(path)
    with open_file(path if pair is None else pair[0], contrast) as file, reading(contrast):
        size = _size(file)
        stream, packed = unpack(file)
        head = stream.read(544)
        stream.seek(0)
        if nifti.version(head):
            header, flat = _nifti(stream, size, packed, pair, contrast)
        elif head.startswith(b"NRRD"):
            header, flat = _text(textheaders.parse_nrrd(stream, path, contrast), stream, size, packed, contrast)
        elif b"NDims" in head and b"=" in head:
            header, flat = _text(textheaders.parse_meta(stream, path, contrast), stream, size, packed, contrast)
        else:
            raise _unknown(head, contrast, path)
    data = flat.reshape(header.shape, order="F")
    codes = (header.qform_code, header.sform_code)
    return Volume(data, header.affine, content_hash(data, header.affine), *codes, header.notices)


def _size(file: BinaryIO) -> int:
    end = file.seek(0, 2)
    file.seek(0)
    return end


def _nifti(
    stream: BinaryIO, size: int, packed: bool, pair: tuple[Path, Path] | None, contrast: str
) -> tuple[Header, Floats]:
    """Header and values; `stream` is at the header."""
    block = stream.read(544)
    stream.seek(0)
    if len(block) < (348 if nifti.version(block) == 1 else 540):
        raise truncated(contrast, len(block), 348)
    header, offset, separate = nifti.parse(block, contrast)
    if not separate:
        return header, _values(stream, header, offset, size, packed, contrast)
    if pair is None:
        raise D3MError(
            f"{label(contrast)} is only the header of a NIfTI pair.", "Give the .hdr file with its .img file beside it."
        )
    with open_file(pair[1], contrast) as voxels:
        inner, inner_packed = unpack(voxels)
        return header, _values(inner, header, offset, _file_size(pair[1]), inner_packed, contrast)


def _file_size(path: Path) -> int:
    return path.stat().st_size


def _values(stream: BinaryIO, header: Header, offset: int, size: int, packed: bool, contrast: str) -> Floats:
    """(count,) from the byte `offset` of `stream` on; `size` is that of the file on disk."""
    check_size(header.shape, header.dtype.itemsize, size if packed else size - offset, packed, contrast)
    skip(stream, offset)
    count = int(np.prod(header.shape, dtype=np.int64))
    return read_numbers(stream, count, header.dtype, header.slope, header.intercept, contrast)


def _text(
    found: textheaders.TextHeader, stream: BinaryIO, size: int, packed: bool, contrast: str
) -> tuple[Header, Floats]:
    """Header and values of NRRD and MetaImage; `stream` is behind the header."""
    if found.data_file is None:
        return found.header, _encoded(found, stream, size, packed, contrast, stream.tell())
    with open_file(found.data_file, contrast) as file:
        return found.header, _encoded(found, file, _file_size(found.data_file), False, contrast, 0)


def _encoded(
    found: textheaders.TextHeader, stream: BinaryIO, size: int, packed: bool, contrast: str, start: int
) -> Floats:
    """(count,) values; `start` is where `stream` stands."""
    header = found.header
    for _ in range(min(found.skip_lines, 1000)):
        stream.readline(textheaders.MAX_LINE_BYTES)
    if found.skip_bytes < 0:
        if packed or found.encoding != "raw":
            raise damaged(contrast, "its header counts the voxels from the end of a packed file")
        start = size - int(np.prod(header.shape, dtype=np.int64)) * header.dtype.itemsize
        check_size(header.shape, header.dtype.itemsize, size, False, contrast)
        stream.seek(start)
    elif found.encoding == "raw":
        skip(stream, min(found.skip_bytes, size * 1100))
        start += found.skip_bytes
    stream = decoded(stream, found.encoding)
    if found.encoding != "raw" and found.skip_bytes > 0:
        skip(stream, min(found.skip_bytes, nifti.MAX_OFFSET))
    is_packed = packed or found.encoding != "raw"
    check_size(header.shape, header.dtype.itemsize, size if is_packed else size - start, is_packed, contrast)
    count = int(np.prod(header.shape, dtype=np.int64))
    return read_numbers(stream, count, header.dtype, 1.0, 0.0, contrast)


def _unknown(head: bytes, contrast: str, path: Path) -> D3MError:
    """The error for content that is none of the known formats, naming what it is instead."""
    name = label(contrast)
    if starts_like_dicom(head):
        return D3MError(f"{name} is a packed DICOM file: {path}.", "Unpack it first, with the others of its series.")
    if nifti.is_analyze(head):
        return D3MError(
            f"{name} is an Analyze 7.5 file, which cannot tell left from right.",
            "Convert the scan from DICOM to NIfTI again.",
        )
    for magic, kind in {**ARCHIVES, **PICTURES}.items():
        if head.startswith(magic):
            return D3MError(f"{name} is {kind}, not a scan: {path}.", KNOWN_FORMATS)
    return D3MError(f"{name} is not an image that can be read: {path}.", KNOWN_FORMATS)


def read_case(t1: Source, t2: Source, flair: Source, brain_mask: Source | None = None, extractor: str = "auto") -> Case:
    """Read the three scans of a patient, check that they belong together, and find the brain.

    Args:
        t1: The T1 without contrast agent: a file, a DICOM series' folder, or a chosen series.
        t2: The T2.
        flair: The FLAIR.
        brain_mask: What is not zero in the brain, in T1's frame of reference; None: the scans are skull-stripped, or
            one of them is, or the brain is looked for in T1.
        extractor: What looks for it: one of `d3m.options.BRAIN_EXTRACTORS`.

    Returns:
        The scans on their own grids (T2 and FLAIR registered to T1 if they were not), the brain on T1's, and how the
        head is tilted; notices of the scans included.

    Raises:
        D3MError: a file that cannot be used, the same image twice, scans that do not overlap or cannot be registered,
            whole heads in which no brain is found, a mask that does not fit.
    """
    sources: dict[str, Source] = {"t1": t1, "t2": t2, "flair": flair}
    checks.check_paths({name: Path(one) for name, one in sources.items() if not isinstance(one, Series)})
    sources = {name: resolve(one, name) for name, one in sources.items()}
    notices = check_one_patient({name: one for name, one in sources.items() if isinstance(one, Series)})
    volumes: dict[str, Volume] = {}
    for contrast in CONTRASTS:
        volume = read_raw(sources[contrast], contrast)
        checks.check_content(volume.data, contrast)
        volumes[contrast] = _snapped(volume, volumes.get("t1", volume))
    checks.check_fields_of_view(volumes)
    seen = {name: look(volume) for name, volume in volumes.items()}
    mask, source = None, STRIPPED
    if brain_mask is not None:
        source = GIVEN
        mask = mask_from_file(_snapped(read_raw(brain_mask, "brain_mask"), volumes["t1"]), volumes["t1"])
    if mask is None and all(one.problem for one in seen.values()):
        found_brain = extract_brain(volumes["t1"], extractor)
        mask, source = found_brain.mask, found_brain.how
        notices += found_brain.notices
    volumes, said = align(volumes, _compared(volumes, seen, mask))
    notices += said
    brain, found = find_brain(volumes, seen, mask)
    settled = {name: settle(volume, name, seen[name], brain, volumes["t1"].affine) for name, volume in volumes.items()}
    notices += [notice for volume in settled.values() for notice in volume.notices]
    notices += found
    notices += checks.thick_slices(settled)
    notices += checks.compare_contrasts(settled, brain)
    pose, said = find_pose(settled["t1"], brain)
    notices += said
    return Case(settled["t1"], settled["t2"], settled["flair"], brain, tuple(notices), pose, source)


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
    spacing = np.linalg.norm(t1.affine[:3, :3], axis=0).min()
    if corner_distance(volume.affine, t1.affine, t1.data.shape) > SNAP_VOXELS * spacing:
        return volume
    return replace(volume, affine=t1.affine)
