"""Tumours in other patients' slices: labels and enhancement go along, everything else stays the host's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from d3m_training.data.batches import Batches, BatchSettings
from d3m_training.data.cache import ENHANCING, OEDEMA, TARGET_UPPER, Entry, Prepared, open_entry, write_entry
from d3m_training.data.transplant import NormalBrain, Transplanter, gather

SIZE, SLICES = 96, 8


def _entry(folder: Path, name: str, seed: int, gain: float, *, labelled: bool = True, tumour: bool = True) -> Entry:
    """A round brain of smooth noise around 0.4; a bright enhancing square with oedema around it in slices 3 to 5."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2 + 0.5
    brain = np.broadcast_to(np.hypot(y, x) < 44, (SLICES, SIZE, SIZE))
    scans = 0.4 + gain * ndimage.gaussian_filter(rng.normal(0, 1, (SLICES, 3, SIZE, SIZE)), (0, 0, 2, 2))
    label = np.zeros(brain.shape, np.uint8)
    if tumour:
        label[3:6, 40:60, 50:70] = OEDEMA
        label[3:6, 46:54, 56:64] = ENHANCING
    scans[:, 2][label > 0] += 0.3
    target = scans[:, :1] + 0.6 * (label == ENHANCING)[:, None]
    whole = np.concatenate([scans, target], axis=1) * brain[:, None]
    regions = np.stack([brain, label if labelled else 0 * label], axis=1).astype(np.uint8)
    write_entry(folder, Prepared(name, whole.clip(0, TARGET_UPPER).astype(np.float16), regions, labelled), "key")
    return open_entry(folder, name)


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    """A patient with tumour, one labelled without any, whose contrast is twice as strong, and one without labels."""
    folder = tmp_path_factory.mktemp("cache")
    return [
        _entry(folder, "donor", 0, 0.2),
        _entry(folder, "host", 1, 0.4, tumour=False),
        _entry(folder, "unlabelled", 2, 0.2, labelled=False, tumour=False),
    ]


def test_the_host_gets_tumour_labels_and_enhancement(entries: list[Entry]) -> None:
    """The donor's labels stand in the host; T1c exceeds T1 there by the donor's enhancement in the host's contrast."""
    donor, host, _ = entries
    context = (-1, 0, 1)
    transplant = Transplanter(entries, context, TARGET_UPPER)
    moved = transplant(donor, 4, np.random.default_rng(0))
    assert moved is not None
    original = gather(donor, 4, context)
    for c in range(3):
        for value in (OEDEMA, ENHANCING):
            assert (moved.regions[c, 1] == value).sum() == (original.regions[c, 1] == value).sum()
    gain = NormalBrain.of(host).quartile_range[0] / NormalBrain.of(donor).quartile_range[0]
    assert 1.5 < gain < 2.6
    core = ndimage.binary_erosion(moved.regions[1, 1] == ENHANCING, iterations=2)
    rise = (moved.planes[1, 3] - moved.planes[1, 0])[core]
    unclipped = (
        (moved.planes[1, 3][core] < TARGET_UPPER) & (moved.planes[1, 0][core] < 1) & (moved.planes[1, 0][core] > 0)
    )
    np.testing.assert_allclose(rise[unclipped], 0.6 * gain, atol=0.02)


def test_the_rest_stays_the_hosts(entries: list[Entry]) -> None:
    """Away from the tumour every pixel of every contrast is that of some slice of the host."""
    donor, host, _ = entries
    moved = Transplanter(entries, (0,), TARGET_UPPER)(donor, 4, np.random.default_rng(3))
    assert moved is not None
    far = ~ndimage.binary_dilation(moved.regions[0, 1] > 0, structure=np.ones((17, 17)))
    apart = [
        np.abs(moved.planes[0][:, far] - np.asarray(host.scans[z], np.float32)[:, far]).max() for z in range(SLICES)
    ]
    assert min(apart) == 0


def test_only_other_labelled_patients_are_hosts(entries: list[Entry]) -> None:
    """A patient alone, or beside one whose tumour nobody drew, keeps its slice."""
    donor, _, unlabelled = entries
    assert Transplanter([donor, unlabelled], (0,), TARGET_UPPER)(donor, 4, np.random.default_rng(0)) is None


def test_a_tumour_too_large_for_the_host_stays(entries: list[Entry], tmp_path: Path) -> None:
    """It would lie outside the brain: no transplant."""
    donor, host, _ = entries
    regions = np.asarray(host.regions).copy()
    regions[:, 0, :, SIZE // 2 - 12 :] = 0  # a narrow brain
    regions[:, 0, :, : SIZE // 2 - 30] = 0
    narrow = Prepared("narrow", np.asarray(host.scans), regions, True)
    write_entry(tmp_path, narrow, "key")
    entry = replace(open_entry(tmp_path, "narrow"), brain_voxels=np.full(SLICES, 9999))
    big = np.asarray(donor.regions).copy()
    big[4, 1] = np.where(big[4, 0] > 0, OEDEMA, 0)
    transplant = Transplanter([replace(donor, regions=big), entry], (0,), TARGET_UPPER)
    assert transplant(replace(donor, regions=big), 4, np.random.default_rng(0)) is None


def test_batches_hold_transplants_and_stay_functions_of_their_number(entries: list[Entry]) -> None:
    """With a share of one the enhancing slices are others than without; the same number gives the same batch."""
    settings = BatchSettings(
        size=4, crop=64, shares=(1.0, 0.0, 0.0), min_brain_voxels=10, noise=0, transplant_share=1.0
    )
    with_them = Batches(entries, settings, seed=1)
    again = Batches(entries, settings, seed=1)
    without = Batches(entries, replace(settings, transplant_share=0.0), seed=1)
    first, second, plain = with_them.draw(0), again.draw(0), without.draw(0)
    assert (first.condition == second.condition).all()
    assert (first.condition != plain.condition).any()
    assert (first.label == ENHANCING).any()
    bright = first.target[first.label == ENHANCING] - first.t1[first.label == ENHANCING]
    assert bright.mean() > 0.4


def test_a_contrast_that_one_of_them_lacks_stays_missing(entries: list[Entry]) -> None:
    """A host without T2 does not get one where the tumour is."""
    donor, host, _ = entries
    scans = np.asarray(host.scans).copy()
    scans[:, 1] = 0
    transplant = Transplanter([donor, replace(host, scans=scans)], (0,), TARGET_UPPER)
    moved = transplant(donor, 4, np.random.default_rng(0))
    assert moved is not None
    assert not moved.planes[:, 1].any()
    assert moved.planes[:, 2].any()
