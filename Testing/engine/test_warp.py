"""The warp against SimpleITK, and its gradients against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from d3m.diffusion.warp import smoothness, warp


def _smooth_field(seed: int, shape: tuple[int, int], size: float) -> torch.Tensor:
    coarse = torch.randn(1, 2, 5, 5, generator=torch.Generator().manual_seed(seed)) * size
    return torch.nn.functional.interpolate(coarse, size=shape, mode="bicubic", align_corners=True)


def test_warp_equals_simpleitk() -> None:
    """Every pixel agrees with ITK's resampling through the same displacement field, to 1e-4 absolute."""
    shape = (37, 52)
    image = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(1))
    u = _smooth_field(2, shape, 2.5)
    field = sitk.GetImageFromArray(u[0].permute(1, 2, 0).double().numpy(), isVector=True)
    source = sitk.GetImageFromArray(image[0, 0].numpy())
    resampler = sitk.ResampleImageFilter()
    resampler.SetReferenceImage(source)
    resampler.SetTransform(sitk.DisplacementFieldTransform(field))
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.SetUseNearestNeighborExtrapolator(True)
    expected = sitk.GetArrayFromImage(resampler.Execute(source))
    y, x = np.mgrid[: shape[0], : shape[1]]
    px, py = x + u[0, 0].numpy(), y + u[0, 1].numpy()
    inside = (px >= 0) & (px <= shape[1] - 1) & (py >= 0) & (py <= shape[0] - 1)
    assert inside.mean() > 0.8
    difference = np.abs(warp(image, u)[0, 0].numpy() - expected)
    assert difference[inside].max() < 1e-4


def test_zero_field_is_the_identity() -> None:
    """Nothing moves without a displacement; recipes that call grid_sample otherwise shrink the image."""
    image = torch.randn(2, 3, 192, 160, generator=torch.Generator().manual_seed(0))
    assert (warp(image, torch.zeros(2, 2, 192, 160)) - image).abs().max() < 1e-6


def test_whole_pixels_shift_with_border_padding() -> None:
    """u = (+2, 0) takes each value from two columns to the right; beyond the border the last column goes on."""
    image = torch.arange(12.0).reshape(1, 1, 2, 6)
    u = torch.zeros(1, 2, 2, 6)
    u[:, 0] = 2
    assert warp(image, u)[0, 0, 0].tolist() == pytest.approx([2, 3, 4, 5, 5, 5])
    u = torch.zeros(1, 2, 2, 6)
    u[:, 1] = 1
    assert warp(image, u)[0, 0, 0].tolist() == pytest.approx([6, 7, 8, 9, 10, 11])


def test_gradients_of_image_and_displacement() -> None:
    """The deformation module is trained through the second of them."""
    generator = torch.Generator().manual_seed(3)
    image = torch.rand(1, 2, 5, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    # away from whole pixels, where the bilinear kernel has a kink
    u = (0.3 + 0.4 * torch.rand(1, 2, 5, 6, dtype=torch.float64, generator=generator)).requires_grad_()
    with torch.no_grad():
        u[..., -1] -= 1
        u[..., -1, :] -= 1
    assert torch.autograd.gradcheck(warp, (image, u))


def test_half_precision_images_keep_exact_coordinates() -> None:
    """Coordinates are computed in float32 even when the image is bfloat16."""
    image = torch.linspace(0, 1, 400).reshape(1, 1, 1, 400).expand(1, 1, 4, 400)
    u = torch.full((1, 2, 4, 400), 0.25)
    u[:, 1] = 0
    low = warp(image.bfloat16(), u)
    assert low.dtype == torch.bfloat16
    assert (low.float() - warp(image, u)).abs().max() < 0.01


def test_smoothness_by_hand() -> None:
    """S(u) is half the sum of the mean squared forward differences along x and y."""
    u = torch.zeros(1, 2, 3, 4)
    u[0, 0] = torch.tensor([[0.0, 1.0, 2.0, 3.0]]).expand(3, 4)
    # along x: channel 0 differs by 1 everywhere, channel 1 by 0: mean 0.5; along y nothing
    assert float(smoothness(u)) == pytest.approx(0.25)
    assert float(smoothness(torch.ones(1, 2, 3, 4))) == 0


def test_wrong_shapes_are_named() -> None:
    """A field of another size is a mistake that must not be broadcast away."""
    with pytest.raises(ValueError, match=r"\(1, 2, 5, 6\).*\(1, 1, 5, 7\)"):
        warp(torch.zeros(1, 1, 5, 7), torch.zeros(1, 2, 5, 6))
