"""The fixed segmenter's distance and masks, where a mistake would change the comparison's numbers unseen."""

from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from d3m import metrics
from d3m_benchmark.comparison.segmenter import Segmenter, hausdorff95
from d3m_training.data.batches import Batch

SPACING = (3.0, 1.0, 2.0)
"""Of slices, rows and columns, in mm."""


def by_simpleitk(mask: np.ndarray, true: np.ndarray) -> float:
    """Larger of the two 95th percentiles of the distances from one surface to the other, by SimpleITK."""
    surfaces, distances = [], []
    for data in (mask, true):
        image = sitk.GetImageFromArray(data.astype(np.uint8))
        image.SetSpacing(SPACING[::-1])
        contour = sitk.LabelContour(image, fullyConnected=False)
        surfaces.append(sitk.GetArrayFromImage(contour) > 0)
        away = sitk.SignedMaurerDistanceMap(
            contour, insideIsPositive=False, squaredDistance=False, useImageSpacing=True
        )
        distances.append(np.abs(sitk.GetArrayFromImage(away)))
    return float(max(np.percentile(distances[1][surfaces[0]], 95), np.percentile(distances[0][surfaces[1]], 95)))


@pytest.mark.parametrize("seed", range(3))
def test_distance_agrees_with_simpleitk(seed: int) -> None:
    """Two uneven bodies on voxels that are no cubes: the same millimetres from another library, either way round."""
    rng = np.random.default_rng(seed)
    place = np.stack(np.meshgrid(*map(np.arange, (14, 40, 30)), indexing="ij"), -1) * SPACING
    masks = []
    for _ in range(2):
        centres = rng.uniform((12, 12, 18), (28, 28, 42), (3, 3))
        radii = rng.uniform(4, 9, 3)
        masks.append((np.linalg.norm(place[..., None, :] - centres, axis=-1) < radii).any(axis=-1))
    expected = by_simpleitk(masks[0], masks[1])
    assert expected > 1
    assert hausdorff95(masks[0], masks[1], SPACING) == pytest.approx(expected, abs=1e-4)
    assert hausdorff95(masks[1], masks[0], SPACING) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("axis", range(3))
def test_distance_of_a_moved_box(axis: int) -> None:
    """A long step along one axis counts that axis' own spacing, at the volume's border as in its middle."""
    masks = np.zeros((2, 12, 12, 12), bool)
    first, second = [slice(0, 4)] * 3, [slice(0, 4)] * 3
    second[axis] = slice(8, 12)
    masks[0][tuple(first)] = masks[1][tuple(second)] = True
    assert hausdorff95(masks[0], masks[1], SPACING) == pytest.approx(8 * SPACING[axis])


def test_distance_is_undefined_where_dice_is() -> None:
    """Nothing found, nothing there, or less than `MIN_DICE_VOXELS` there: NaN; a single found voxel is a distance."""
    true = np.zeros((4, 16, 16), bool)
    true[1, :5, :10] = True
    assert true.sum() == metrics.MIN_DICE_VOXELS
    voxel = np.zeros_like(true)
    voxel[1, 15, 15] = True
    nothing = np.zeros_like(true)
    assert hausdorff95(voxel, true, SPACING) > 10
    assert math.isnan(hausdorff95(nothing, true, SPACING))
    assert math.isnan(hausdorff95(true, nothing, SPACING))
    true[1, 0, 0] = False
    assert math.isnan(hausdorff95(true, true, SPACING))


class T1cAbove(torch.nn.Module):
    """Stands in for the network: logit positive where t1c is above t1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, scans: torch.Tensor) -> torch.Tensor:
        """(N, 4, H, W) t1, t2, flair, t1c."""
        return scans[:, 3:] - scans[:, :1]


def test_channels_and_slices_keep_their_places() -> None:
    """More slices than fit at once, some without brain between: each mask lies on its slice, and inside the brain."""
    rng = np.random.default_rng(0)
    slices = rng.uniform(0, 1, (40, 3, 16, 16)).astype(np.float32)
    t1c = rng.uniform(0, 1, (40, 16, 16)).astype(np.float32)
    brain = rng.random((40, 16, 16)) < 0.7
    brain[5:9] = False
    segmenter = Segmenter(torch.float32)
    segmenter.network = T1cAbove()  # type: ignore[assignment]
    mask = segmenter.segment(slices, t1c, brain)
    assert mask.dtype == bool
    assert np.array_equal(mask, (t1c > slices[:, 0]) & brain)


def test_training_sees_the_slice_itself_and_its_real_image() -> None:
    """Of a condition with neighbours the middle one is taken, in the order of `segment`; only value 3 is learnt."""
    rng = torch.Generator().manual_seed(0)
    condition = torch.rand(2, 9, 32, 32, generator=rng)
    target = torch.rand(2, 1, 32, 32, generator=rng)
    label = torch.randint(0, 4, (2, 1, 32, 32), generator=rng)
    batch = Batch(condition, condition[:, 3:4], target, torch.ones_like(target), label, torch.ones(2))
    segmenter = Segmenter(torch.float32)
    seen: list[torch.Tensor] = []
    segmenter.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    found = segmenter(batch, rng).total
    assert torch.equal(seen[0], torch.cat([condition[:, 3:6], target], dim=1))
    with torch.no_grad():
        p = torch.sigmoid(segmenter.network(seen[0]))
    true = (label == 3).float()
    entropy = -(true * p.log() + (1 - true) * (1 - p).log()).mean()
    dice = 1 - (2 * (p * true).sum() + 1e-5) / (p.sum() + true.sum() + 1e-5)
    assert found.item() == pytest.approx(float(entropy + dice), abs=1e-4)
