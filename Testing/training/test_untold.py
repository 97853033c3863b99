"""What enhances where labels show the whole tumour alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from conftest import tiny_volumes
from d3m_training.data.cache import ENHANCING, OEDEMA, open_entry
from d3m_training.data.preparation import PrepareOptions, prepare_cache
from d3m_training.data.untold import enhancing_from_difference, labels_from_difference
from training.data_helpers import write_patient


def _tumour() -> tuple[np.ndarray, np.ndarray]:
    """(brain, tumour), (40, 48, 48): a tumour of 13.8 ml in the middle of a brain."""
    brain = np.zeros((40, 48, 48), bool)
    brain[2:-2, 2:-2, 2:-2] = True
    tumour = np.zeros_like(brain)
    tumour[8:32, 12:36, 12:36] = True
    return brain, tumour


def test_bright_parts_of_the_tumour_enhance() -> None:
    """A bright block inside the tumour does, a small one (a vessel) is not told, one outside does not count."""
    tumour = torch.zeros(20, 24, 24, dtype=torch.bool)
    tumour[2:18, 2:22, 2:12] = True
    difference = torch.zeros(20, 24, 24)
    difference[4:9, 4:9, 4:9] = 0.5  # 1 ml
    difference[14, 14, 4:8] = 0.5  # 0.03 ml
    difference[4:9, 4:9, 14:20] = 0.5
    difference[12, 4:8, 4:8] = 0.25
    enhancing, unknown = enhancing_from_difference(tumour, difference)
    assert int(enhancing.sum()) == 125
    assert bool(enhancing[4:9, 4:9, 4:9].all())
    assert int(unknown.sum()) == 4 + 16
    assert not bool((enhancing & unknown).any())


def test_tumour_that_stays_dark_is_labelled_as_not_enhancing() -> None:
    """Its T1c is its T1: tumour everywhere, enhancing nowhere. A bright block becomes the enhancing label."""
    brain, tumour = _tumour()
    t1 = np.full(brain.shape, 0.4, np.float32)
    dark = labels_from_difference(t1, t1 + 0.02, brain, tumour)
    assert dark is not None
    np.testing.assert_array_equal(dark, np.where(tumour, OEDEMA, 0))
    target = t1.copy()
    target[12:22, 16:26, 16:26] += 0.6
    told = labels_from_difference(t1, target, brain, tumour)
    assert told is not None
    np.testing.assert_array_equal(told == ENHANCING, target > 0.9)
    assert (told[tumour] > 0).all()


def test_tumour_in_doubt_counts_as_unlabelled() -> None:
    """Between bright and dark everywhere: nobody knows."""
    brain, tumour = _tumour()
    t1 = np.full(brain.shape, 0.4, np.float32)
    assert labels_from_difference(t1, t1 + 0.24, brain, tumour) is None


def test_prepared_patient_learns_from_its_own_t1c(tmp_path: Path) -> None:
    """In the cache the simulated ring is found again, although the labels show the whole tumour alone."""
    paths = write_patient(tmp_path / "data", "low", codes={1: 1, 2: 1, 4: 1}, seed=3)
    known = write_patient(tmp_path / "data", "known", seed=3 + 1)
    rows = [f"{name},{','.join(str(files[n]) for n in ('t1', 't2', 'flair', 't1c', 'seg'))}," for name, files in
            (("low", paths), ("known", known))]  # fmt: skip
    manifest = tmp_path / "set.csv"
    manifest.write_text(f"id,t1,t2,flair,t1c,seg,labels\n{rows[0]}whole\n{rows[1]}\n")
    lines: list[str] = []
    options = PrepareOptions(sizes=(2, 0, 0), workers=1)
    assert prepare_cache([manifest], tmp_path / "cache", options, lines.append) == 2
    assert any("whole tumour alone" in line for line in lines)
    entry = open_entry(tmp_path / "cache", "low")
    assert entry.labelled
    labels = tiny_volumes(3)["seg"]
    assert int(entry.tumour_voxels.sum()) == np.count_nonzero(labels)
    true, found = np.count_nonzero(labels == 4), int(entry.enhancing_voxels.sum())
    assert 0.5 * true < found < 1.6 * true
