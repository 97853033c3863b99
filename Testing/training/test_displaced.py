"""Known displacements: made as said, undone by their inverse, and learnt from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from d3m.diffusion.warp import warp
from d3m_training.train.displaced import blurred, displaced_loss, inverse, random_field


class _Field(torch.nn.Module):
    """A network whose displacement is what is learnt, the same for all slices that it sees."""

    def __init__(self, count: int, size: int) -> None:
        super().__init__()
        self.field = torch.nn.Parameter(torch.zeros(count, 2, size // 8, size // 8))
        self.size = size

    def deform(self, mask: torch.Tensor, image: torch.Tensor, t1: torch.Tensor) -> torch.Tensor:
        """Whatever is seen."""
        assert mask.shape == image.shape == t1.shape
        return torch.nn.functional.interpolate(self.field, size=(self.size, self.size), mode="bicubic")


def _disc(count: int, size: int, radius: float, seed: int) -> torch.Tensor:
    """(count, 1, size, size): a disc somewhere near the middle of each slice."""
    generator = torch.Generator().manual_seed(seed)
    middle = size / 2 + 4 * torch.randn(count, 2, 1, 1, generator=generator)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return ((y - middle[:, :1]) ** 2 + (x - middle[:, 1:]) ** 2 < radius**2).float()


def test_field_is_smooth_and_of_the_stated_length() -> None:
    """Root mean square 1; finer nodes make rougher fields; the same seed makes the same field."""
    fields = [random_field(3, (96, 80), spacing, torch.Generator().manual_seed(1)).numpy() for spacing in (64, 16)]
    for field in fields:
        assert field.shape == (3, 2, 96, 80)
        np.testing.assert_allclose((field**2).sum(axis=1).mean(axis=(1, 2)), 1, rtol=1e-5)
    slow, quick = (np.abs(np.diff(field, axis=3)).mean() for field in fields)
    assert quick > 1.7 * slow
    again = random_field(3, (96, 80), 16, torch.Generator().manual_seed(1))
    np.testing.assert_array_equal(again, fields[1])


def test_inverse_brings_everything_back() -> None:
    """A smooth picture that is warped by a field and by its inverse is what it was, away from the border."""
    field = 4 * random_field(2, (96, 96), 48, torch.Generator().manual_seed(2))
    noise = np.random.default_rng(0).normal(size=(2, 1, 96, 96))
    picture = torch.from_numpy(ndimage.gaussian_filter(noise, (0, 0, 4, 4)) * 20).float()
    moved = warp(picture, field)
    back = warp(moved, inverse(field))
    inside = (..., slice(16, -16), slice(16, -16))
    displaced, left = ((one - picture)[inside].square().mean() for one in (moved, back))
    assert float(left) < 0.02 * float(displaced)


def test_blur_is_gaussian() -> None:
    """As scipy's with repeated borders; hardly any blur leaves the picture alone."""
    picture = torch.rand(2, 1, 20, 30, generator=torch.Generator().manual_seed(0))
    expected = ndimage.gaussian_filter(picture.double().numpy(), (0, 0, 1.7, 1.7), mode="nearest", radius=(0, 0, 5, 5))
    np.testing.assert_allclose(blurred(picture, 1.7), expected, atol=1e-6)
    assert torch.equal(blurred(picture, 0.1), picture)


def test_least_loss_is_the_way_back() -> None:
    """At the identity all of the displacement is left; the field of the least loss takes nearly all of it away."""
    enhancing, brain = _disc(4, 64, 9, 0), torch.ones(4, 1, 64, 64)
    t1 = torch.full((4, 1, 64, 64), -0.5)
    network = _Field(4, 64)
    optimizer = torch.optim.Adam(network.parameters(), 0.3)
    left = []
    for _ in range(60):
        generator = torch.Generator().manual_seed(3)  # the same displacement each time
        found = displaced_loss(network.deform, t1 + 0.5 * enhancing, t1, enhancing, brain, generator)
        left.append(float(found.left))
        optimizer.zero_grad()
        found.loss.backward()
        optimizer.step()
    assert left[0] == pytest.approx(1, abs=1e-5)
    assert left[-1] < 0.15


def test_slices_without_labels_teach_nothing() -> None:
    """Where nobody knows what enhances, there is no loss and no gradient."""
    network = _Field(2, 32)
    nothing = torch.zeros(2, 1, 32, 32)
    image = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    found = displaced_loss(network.deform, image, nothing, nothing, nothing, torch.Generator().manual_seed(0))
    found.loss.backward()
    assert float(found.loss.detach()) == 0
    assert network.field.grad is not None
    assert not network.field.grad.any()
