"""Tiny data sets on disk, in the styles that public ones are named."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from pathlib import Path

import nibabel
import numpy as np

from conftest import AFFINE, tiny_volumes

STYLE_2021 = {
    "t1": "_t1.nii.gz",
    "t1c": "_t1ce.nii.gz",
    "t2": "_t2.nii.gz",
    "flair": "_flair.nii.gz",
    "seg": "_seg.nii.gz",
}
STYLE_2023 = {
    "t1": "-t1n.nii.gz",
    "t1c": "-t1c.nii.gz",
    "t2": "-t2w.nii.gz",
    "flair": "-t2f.nii.gz",
    "seg": "-seg.nii.gz",
}
STYLE_UPPER = {"t1": "_T1.nii", "t1c": "_T1Gd.nii", "t2": "_T2.nii", "flair": "_FLAIR.nii", "seg": "_seg.nii"}


def write_image(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """Write a NIfTI file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data, affine), path)
    return path


def write_patient(
    folder: Path,
    identifier: str,
    codes: Mapping[int, int] | None = None,
    style: Mapping[str, str] = STYLE_2021,
    seg: bool = True,
    seed: int = 0,
) -> dict[str, Path]:
    """Write a patient into a folder of its own.

    Args:
        folder: Of the data set.
        identifier: Also the patient's folder.
        codes: What becomes of the values 1 (necrosis), 2 (oedema) and 4 (enhancing); None leaves them.
        style: Ending of each file's name.
        seg: Whether there are labels.
        seed: Of the noise.
    """
    volumes = tiny_volumes(seed)
    if codes is not None:
        labels = volumes["seg"]
        volumes["seg"] = np.select([labels == old for old in codes], [np.uint8(new) for new in codes.values()], labels)
    paths = {}
    for name, ending in style.items():
        if name != "seg" or seg:
            paths[name] = write_image(folder / identifier / f"{identifier}{ending}", volumes[name])
    return paths


def copy_patient(paths: Mapping[str, Path], folder: Path, identifier: str) -> dict[str, Path]:
    """Copy a patient's files under another id, which is quicker than making them; one voxel of each image differs, so
    that it is another patient."""
    (folder / identifier).mkdir(parents=True)
    copied = {}
    for name, path in paths.items():
        copied[name] = folder / identifier / path.name.replace(path.parent.name, identifier)
        image = nibabel.load(path)
        data = np.asanyarray(image.dataobj).copy()
        if name != "seg":
            data[tuple(n // 2 for n in data.shape)] += 1 + zlib.crc32(identifier.encode()) % 97 / 8
        nibabel.save(nibabel.Nifti1Image(data, image.affine), copied[name])
    return copied


def truncate(path: Path) -> None:
    """Cut a file as a broken download does."""
    content = path.read_bytes()
    gzip.decompress(content)  # it was whole
    path.write_bytes(content[: len(content) // 2])
