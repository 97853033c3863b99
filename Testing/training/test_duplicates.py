"""One patient under two names is one patient."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from d3m.errors import D3MError
from d3m_training.data.datasets import check, find_patients
from d3m_training.data.duplicates import merged_groups, same_patients, voxel_fingerprint
from d3m_training.data.preparation import PrepareOptions, prepare_cache
from training.data_helpers import STYLE_2023, write_patient


def test_the_same_picture_in_any_storage() -> None:
    """Orientation, padding and another background do not hide a picture; one other voxel makes another one."""
    data = np.random.default_rng(0).integers(1, 900, (12, 10, 8)).astype(np.float32)
    data = np.pad(data, 3)
    mark = voxel_fingerprint(data)
    assert voxel_fingerprint(np.pad(data[::-1].transpose(2, 0, 1), 5)) == mark
    assert voxel_fingerprint(np.where(data == 0, -1024, data)) == mark
    data[6, 6, 6] += 1
    assert voxel_fingerprint(data) != mark


def test_chains_of_names() -> None:
    """Who shares an image with one and another image with a second is the same as both."""
    same = same_patients({"a": ("1", "2"), "b": ("3", "4"), "c": ("2", "5"), "d": ("5", "6"), "e": ("7",)})
    assert same == (("a", "c", "d"),)
    groups = merged_groups({"a": "A", "b": "B", "c": "B", "d": "D", "e": "E"}, same)
    assert len({groups[i] for i in "abcd"}) == 1  # b and c were visits of one patient before
    assert groups["e"] == "E"


def test_pooled_years(tmp_path: Path) -> None:
    """A patient of two years' data sets: one group in a drawn split; refused where the data put them in two parts."""
    write_patient(tmp_path / "train", "BraTS2021_00003", seed=1)
    again = write_patient(tmp_path / "validation", "BraTS20_Training_901", style=STYLE_2023, seed=1)
    for path in again.values():  # stored in another orientation, as another year did
        image = nibabel.load(path)
        np.asarray(image.dataobj)
        nibabel.save(nibabel.as_closest_canonical(image), path)
    write_patient(tmp_path / "train", "other", seed=2)
    patients, _ = find_patients(tmp_path)
    checked = check(patients, workers=1)
    assert checked.same == (("BraTS2021_00003", "BraTS20_Training_901"),)
    assert len({p.group for p in checked.patients}) == 2
    said: list[str] = []
    with pytest.raises(D3MError, match=r"BraTS2021_00003.*BraTS20_Training_901|are in train and in validation"):
        prepare_cache([tmp_path], tmp_path / "cache", PrepareOptions(workers=1), said.append)
    assert any("hold the same images" in line for line in said)
