"""Metrics against scikit-image, MONAI, scikit-learn-like definitions and numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric, PSNRMetric, SSIMMetric
from skimage.metrics import peak_signal_noise_ratio

from d3m import metrics

RNG = np.random.default_rng(0)
SHAPE = (40, 44, 6)


def _pair() -> tuple[np.ndarray, np.ndarray]:
    real = RNG.uniform(0, 1, SHAPE)
    return np.clip(real + RNG.normal(0, 0.1, SHAPE), 0, 1), real


def test_psnr_equals_scikit_image_and_monai() -> None:
    """Over the whole image it is the usual PSNR with data range 1."""
    a, b = _pair()
    everywhere = np.ones(SHAPE, bool)
    assert metrics.psnr(a, b, everywhere) == pytest.approx(peak_signal_noise_ratio(b, a, data_range=1), abs=1e-6)
    theirs = PSNRMetric(max_val=1)(torch.tensor(a)[None, None], torch.tensor(b)[None, None])
    assert metrics.psnr(a, b, everywhere) == pytest.approx(float(theirs), abs=1e-4)


def test_ssim_equals_monai() -> None:
    """Away from the border our map's mean is MONAI's SSIM of the slice."""
    a, b = _pair()
    ours = metrics.ssim_map(a, b)
    for z in range(SHAPE[2]):
        pair = [torch.tensor(image[None, None, :, :, z], dtype=torch.float32) for image in (a, b)]
        theirs = float(SSIMMetric(spatial_dims=2, data_range=1.0)(*pair))
        assert ours[5:-5, 5:-5, z].mean() == pytest.approx(theirs, abs=1e-4)


def test_dice_equals_monai() -> None:
    """Dice of two random masks."""
    a, b = RNG.random((2, *SHAPE)) > 0.6
    theirs = DiceMetric()(torch.tensor(a)[None, None], torch.tensor(b)[None, None])
    assert metrics.dice(a, b) == pytest.approx(float(theirs), abs=1e-6)


def test_fit_is_the_least_squares_line() -> None:
    """The fitted image is numpy's polynomial fit of degree one, and no map of the same image scores better."""
    a, b = _pair()
    a = 300 * a + 17
    brain = RNG.random(SHAPE) > 0.3
    gain, offset = np.polyfit(a[brain], b[brain], 1)
    np.testing.assert_allclose(metrics.fit(a, b, brain), np.clip(gain * a + offset, 0, 1), atol=1e-9)
    assert metrics.psnr(metrics.fit(a, b, brain), b, brain) >= metrics.psnr(
        np.clip(1.1 * gain * a + offset, 0, 1), b, brain
    )


def test_auc_is_the_share_of_pairs() -> None:
    """AUC counts the pairs of an enhancing and another voxel that are ranked right, ties as half."""
    score = RNG.integers(0, 6, (5, 6, 2)).astype(float)
    positive = RNG.random(score.shape) > 0.7
    brain = RNG.random(score.shape) > 0.2
    high, low = score[brain & positive], score[brain & ~positive]
    pairs = (high[:, None] > low[None]) + 0.5 * (high[:, None] == low[None])
    assert metrics.auc(score, positive, brain) == pytest.approx(pairs.mean())
    assert np.isnan(metrics.auc(score, np.zeros_like(positive), brain))


def test_regions_have_their_distances() -> None:
    """The ring starts two voxels from the enhancing tumour and ends at four; normal tissue keeps clear of it."""
    brain = np.ones((21, 21, 21), bool)
    enhancing = np.zeros_like(brain)
    enhancing[10, 10, 10] = True
    where = metrics.regions(brain, enhancing, enhancing)
    assert where.ring[10, 10, 12:15].tolist() == [True, True, True]
    assert not where.ring[10, 10, 11]
    assert not where.ring[10, 10, 15]
    assert not where.normal[10, 10, 12]
    assert where.normal[10, 10, 13]


def test_contrast_by_hand() -> None:
    """Mean difference in the tumour minus in its ring, over the quartile range of normal tissue."""
    brain = np.ones((30, 30, 30), bool)
    enhancing = np.zeros_like(brain)
    enhancing[14:17, 14:17, 14:17] = True
    where = metrics.regions(brain, enhancing, enhancing)
    difference = np.zeros(brain.shape)
    difference[::2] = 2.0  # quartiles 0 and 2
    difference[where.ring] = 1.0
    difference[enhancing] = 7.0
    found = metrics.enhancement(difference, 3 * difference + 1, where)
    rising = np.arange(brain.size, dtype=float).reshape(brain.shape)
    assert found.contrast == pytest.approx((7 - 1) / 2)
    assert found.contrast_real == pytest.approx(found.contrast)
    assert np.isnan(found.correlation)  # the same change in all of the tumour
    assert metrics.enhancement(rising, 3 * rising + 1, where).correlation == pytest.approx(1)
    assert metrics.enhancement(rising, -rising, where).correlation == pytest.approx(-1)


def test_patients_without_enhancement_have_no_dice() -> None:
    """Dice is undefined below 50 voxels and is never averaged as 0 or 1; false volume is reported instead."""
    brain = np.ones((10, 10, 4), bool)
    predicted = np.zeros_like(brain)
    predicted[:2, :5, 0] = True
    found = metrics.overlap(predicted, np.zeros_like(brain), brain, voxel_ml=0.001)
    assert np.isnan(found.dice)
    assert found.false_positive_ml == pytest.approx(0.01)
    assert found.false_slices == pytest.approx(0.25)
    assert found.false_negative_ml == 0


def test_overlap_volumes() -> None:
    """False positive, false negative, predicted and true volume in millilitres."""
    true, predicted = np.zeros((2, 10, 10, 4), bool)
    true[:8, :, 0] = True
    predicted[4:, :, 0] = True
    found = metrics.overlap(predicted, true, np.ones_like(true), voxel_ml=0.008)
    assert found.dice == pytest.approx(2 * 40 / (80 + 60))
    assert (found.false_positive_ml, found.false_negative_ml) == pytest.approx((0.16, 0.32))
    assert (found.predicted_ml, found.true_ml) == pytest.approx((0.48, 0.64))


def test_field_measures_by_place() -> None:
    """A field that moves the tumour's border alone is large there, and its length is in millimetres."""
    brain = np.ones((30, 30, 8), bool)
    tumour = np.zeros_like(brain)
    tumour[8:22, 8:22, :] = True
    field = np.zeros((*brain.shape, 3))
    field[4:11, :, :, 0] = 2.0
    found = metrics.field_measures(field, tumour, brain)
    assert found.border > found.outside
    shift = metrics.field_measures(np.full((*brain.shape, 3), 1.0), tumour, brain)
    assert shift.inside == pytest.approx(3**0.5)


def test_comparison_knows_a_perfect_and_a_useless_image() -> None:
    """The real image itself scores perfectly; the copied T1 scores as the copied T1."""
    brain = np.zeros(SHAPE, bool)
    brain[4:-4, 4:-4] = True
    t1 = np.where(brain, RNG.uniform(100, 200, SHAPE), 0)
    t1c = np.where(brain, t1 + 80 * (RNG.random(SHAPE) > 0.9), 0)
    perfect = metrics.compare(t1c, t1, t1c, brain)
    # the real one is clipped at its percentiles before it is compared, so not infinite
    assert perfect.psnr_brain > 30 > perfect.psnr_brain_t1
    copied = metrics.compare(t1, t1, t1c, brain)
    assert copied.psnr_brain == pytest.approx(copied.psnr_brain_t1)
    assert np.isnan(copied.correlation)


def test_enhancement_is_estimated_without_labels() -> None:
    """A bright ball in the real T1c is found; a thin vessel, the brain's surface and noise are not."""
    grid = np.stack(np.meshgrid(*[np.arange(48)] * 3, indexing="ij"), -1)
    brain = np.linalg.norm(grid - 24, axis=-1) < 21
    t1 = np.where(brain, 100 + RNG.normal(0, 4, brain.shape), 0)
    ball = np.linalg.norm(grid - [18, 26, 24], axis=-1) < 6
    vessel = (abs(grid[..., 0] - 34) < 2) & (abs(grid[..., 1] - 24) < 2) & brain
    surface = brain & (np.linalg.norm(grid - 24, axis=-1) > 18)
    t1c = np.where(brain, 2 * t1 + 200 * (ball | vessel | surface) + RNG.normal(0, 8, brain.shape), 0)
    found = metrics.enhancing_in(t1, t1c, brain, 0.001)
    assert metrics.dice(found, ball) > 0.85
    assert not (found & vessel).any()


@pytest.mark.parametrize("outside", ["zero", "nan"])
def test_what_a_real_scan_does_not_show_is_not_judged(outside: str) -> None:
    """Tumour beyond the real T1c is neither false nor missed; a dark hole in what it shows belongs to it."""
    grid = np.stack(np.meshgrid(*[np.arange(40)] * 3, indexing="ij"), -1)
    brain = np.linalg.norm(grid - 20, axis=-1) < 18
    predicted = np.linalg.norm(grid - 20, axis=-1) < 8
    true = np.roll(predicted, 2, 0)
    t1 = np.where(brain, RNG.uniform(50, 100, brain.shape), 0)
    t1c = t1 + 100 * true
    t1c[10, 20, 25] = 0
    cut = grid[..., 2] < 20
    lost = np.where(cut, np.nan if outside == "nan" else 0, t1c)

    def numbers(real: np.ndarray, where: np.ndarray) -> dict[str, float]:
        found = metrics.beside(t1c, t1, real, brain, predicted & where, true & where, 0.001, lambda array: array)
        assert found is not None
        return found

    whole = numbers(t1c, np.ones_like(brain))
    assert whole["covered_share"] == 1
    assert whole["false_positive_ml"] == pytest.approx((predicted & ~true).sum() / 1000, abs=1e-4)
    part = numbers(lost, np.ones_like(brain))
    assert part["covered_share"] == pytest.approx((brain & ~cut).sum() / brain.sum(), abs=1e-4)
    assert part == numbers(lost, ~cut), "what lies in the other half changes nothing"
    assert part["false_positive_ml"] == pytest.approx((predicted & ~true & ~cut).sum() / 1000, abs=1e-4)
    assert metrics.beside(t1c, t1, 0 * t1c, brain, predicted, true, 0.001, lambda array: array) is None


def test_enhancement_is_estimated_up_to_where_a_scan_ends() -> None:
    """The end of a slab is no surface of the brain: tumour that it cuts is found up to there."""
    grid = np.stack(np.meshgrid(*[np.arange(48)] * 3, indexing="ij"), -1)
    brain = np.linalg.norm(grid - 24, axis=-1) < 21
    t1 = np.where(brain, 100 + RNG.normal(0, 4, brain.shape), 0)
    ball = np.linalg.norm(grid - 24, axis=-1) < 8
    seen = grid[..., 2] >= 22
    t1c = np.where(seen & brain, 2 * t1 + 200 * ball, 0)
    found = metrics.enhancing_in(t1, t1c, brain, 0.001, seen)
    assert not (found & ~seen).any()
    assert metrics.dice(found, ball & seen) > 0.8
