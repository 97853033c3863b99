"""The published network as it computes: shapes, sharing, gradients, and a whole sampling with its recipes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from d3m.diffusion.networks.blocks import SpaceToDepth, TimeMLP
from d3m.diffusion.networks.deformation import PublishedDeformation
from d3m.diffusion.networks.published import PublishedBlock, PublishedNetwork, RMSNorm
from d3m.diffusion.networks.slice import build_network
from d3m.diffusion.precision import MixedPrecision
from d3m.diffusion.recipe import Sampling
from d3m.diffusion.volume import VolumeSampler
from d3m.models.recipes import PAPER, STEP_WARP, Recipe
from d3m_training.data.preparation import network_stride

SIZES = replace(PAPER.network, widths=(8, 8, 8, 16, 16), deformation_widths=(4, 8, 8, 8))


def _network(seed: int = 0) -> PublishedNetwork:
    torch.manual_seed(seed)
    network = build_network(SIZES)
    assert isinstance(network, PublishedNetwork)
    return network


def _inputs(size: int = 32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, m = torch.randn(2, 2, 1, size, size, generator=generator)
    return x, m, torch.rand(2, 3, size, size, generator=generator), torch.tensor([900, 100])


def test_every_multiple_of_the_stride_works() -> None:
    """Network and deformation module take any slice whose sides are multiples of `stride`."""
    network = _network()
    for rows, columns in ((1, 1), (1, 3), (3, 2)):
        shape = (1, 1, rows * network.stride, columns * network.stride)
        image, condition = torch.zeros(shape), torch.zeros(1, 3, *shape[2:])
        with torch.inference_mode():
            x, m = network(image, image, condition, torch.tensor([500]))
            u = network.deform(m, x, image)
        assert x.shape == m.shape == shape
        assert u.shape == (1, 2, *shape[2:])


def test_the_stride_is_the_least_that_works() -> None:
    """Caches pad slices to the recipe's stride: the network's own, and half of it is too small for the network."""
    network, stride = _network(), PAPER.network.stride
    assert network.stride == SIZES.stride == stride == 16
    shape = (1, 1, stride // 2, stride // 2)
    image, condition = torch.zeros(shape), torch.zeros(1, 3, *shape[2:])
    with torch.inference_mode(), pytest.raises((RuntimeError, ValueError)):
        network.deform(network(image, image, condition, torch.tensor([500]))[1], image, image)
    assert network_stride("paper") == network_stride("step-warp") == stride


def test_the_decoders_share_encoder_and_nothing_else() -> None:
    """The mask's error reaches encoder and mask decoder, but never a weight of the image decoder."""
    network = _network()
    _, mask = network(*_inputs())
    mask.square().mean().backward()
    reached = {name.split(".")[0] for name, weight in network.named_parameters() if weight.grad is not None}
    assert reached == {"stem", "time", "levels", "down", "middle", "mask_decoder"}
    for name, weight in network.named_parameters():
        if name.split(".")[0] in reached:
            assert weight.grad is not None, name
            assert weight.grad.abs().max() > 0, name


def test_decoders_read_every_skip_and_the_stem() -> None:
    """Both outputs depend on each of the eight skips, on the stem, on the innermost features and on the time."""
    network = _network()
    generator = torch.Generator().manual_seed(4)
    # the inputs of level k's two skips, at full, half, quarter and eighth resolution
    shapes = [(1, width, 32 >> k, 32 >> k) for k, width in enumerate(SIZES.widths[:-1]) for _ in range(2)]
    skips = [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]
    stem, inner, time = (
        torch.randn(shape, generator=generator, requires_grad=True)
        for shape in ((1, SIZES.widths[0], 32, 32), (1, SIZES.widths[-1], 4, 4), (1, 4 * SIZES.widths[0]))
    )
    for decoder in (network.image_decoder, network.mask_decoder):
        output = decoder(inner, skips, stem, time)
        assert output.shape == (1, 1, 32, 32)
        for gradient in torch.autograd.grad(output.square().sum(), [*skips, stem, inner, time]):
            assert gradient.abs().max() > 1e-6


def test_block_as_written_out() -> None:
    """conv, RMS norm, (1 + scale) h + shift, SiLU; conv, RMS norm, SiLU; plus the input."""
    torch.manual_seed(3)
    block = PublishedBlock(4, 6, 8)
    with torch.no_grad():
        for gain in (block.norm1.gain, block.norm2.gain):
            gain.normal_(1, 0.2)
    x, time = torch.randn(2, 4, 5, 7), torch.randn(2, 8)
    both = functional.silu(time) @ block.time.weight.T + block.time.bias
    scale, shift = both[:, :6, None, None], both[:, 6:, None, None]

    def normalised(h: Tensor, gain: Tensor) -> Tensor:
        return h / h.square().mean(1, keepdim=True).sqrt() * gain

    h = normalised(functional.conv2d(x, block.conv1.weight, block.conv1.bias, padding=1), block.norm1.gain)
    h = h * (1 + scale) + shift
    h = h * torch.sigmoid(h)
    h = normalised(functional.conv2d(h, block.conv2.weight, block.conv2.bias, padding=1), block.norm2.gain)
    assert isinstance(block.shortcut, nn.Conv2d)
    expected = h * torch.sigmoid(h) + functional.conv2d(x, block.shortcut.weight, block.shortcut.bias)
    torch.testing.assert_close(block(x, time), expected, atol=1e-5, rtol=1e-5)


def test_rms_norm_equals_torch() -> None:
    """RMS over the channels of each pixel, as torch's RMSNorm over the last axis."""
    x = torch.randn(2, 12, 3, 4, generator=torch.Generator().manual_seed(0))
    expected = nn.RMSNorm(12, eps=0.0)(x.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(RMSNorm(12)(x), expected, atol=1e-5, rtol=1e-5)
    assert torch.isfinite(RMSNorm(12)(torch.zeros(1, 12, 2, 2))).all()


def test_space_to_depth_keeps_every_pixel() -> None:
    """With an identity for the mixing, the four pixels of a 2 x 2 block become four channels, row by row."""
    layer = SpaceToDepth(1, 4)
    with torch.no_grad():
        layer.mix.weight.copy_(torch.eye(4)[:, :, None, None])
        layer.mix.bias.zero_()  # type: ignore[union-attr]
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert layer(image)[0, :, 0, 1].tolist() == [2, 3, 6, 7]


def test_times_of_a_batch_are_told_apart() -> None:
    """Each slice gets the features of its own time, whatever else is in the batch."""
    torch.manual_seed(0)
    time = TimeMLP(8, 16)
    together = time(torch.tensor([10, 999]))
    torch.testing.assert_close(together[1:], time(torch.tensor([999])))
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_deformation_starts_near_the_identity_and_is_unbounded() -> None:
    """A fresh field is far below a pixel; with large last weights it exceeds every bound of the compact one."""
    torch.manual_seed(0)
    module = PublishedDeformation(1, (4, 8, 8, 8))
    mask = torch.rand(1, 1, 32, 48)
    assert module(mask).abs().max() < 1e-3
    nn.init.normal_(module.flow.weight, std=100)
    assert module(mask).abs().max() > 4


def test_mixed_precision_hands_back_float32() -> None:
    """Under bfloat16 the published network differs by rounding, and image, mask and field stay float32."""
    network = _network().eval()
    x, m, condition, t = _inputs()
    exact, half = MixedPrecision(network, torch.float32), MixedPrecision(network, torch.bfloat16)
    with torch.inference_mode():
        for a, b in zip(exact(x, m, condition, t), half(x, m, condition, t), strict=True):
            assert b.dtype == torch.float32
            assert (a - b).abs().max() < 0.1 * a.abs().max()
        a = network(x, m, condition, t)
        assert all(torch.equal(p, q) for p, q in zip(a, exact(x, m, condition, t), strict=True))
        assert half.deform(m, x, x).dtype == torch.float32
    assert half.stride == network.stride


@pytest.mark.parametrize("recipe", [STEP_WARP, PAPER], ids=lambda recipe: recipe.name)
def test_published_recipes_sample_a_volume(recipe: Recipe) -> None:
    """Both recipes run from noise to a finite volume, the same twice; outside the brain it is background."""
    generator = torch.Generator().manual_seed(2)
    slices = torch.rand(3, 3, 32, 32, generator=generator)
    brain = torch.zeros(3, 32, 32, dtype=torch.bool)
    brain[:, 6:26, 5:28] = True
    network = MixedPrecision(_network().eval(), torch.float32)
    for sampling in (Sampling(3), Sampling(3, solver="dpmpp_2m")):
        sampler = VolumeSampler(network, recipe.diffusion, (0,), sampling, batch=2)
        with torch.inference_mode():
            first, second = sampler(slices, brain), sampler(slices, brain)
        assert torch.equal(first.image, second.image)
        assert torch.isfinite(first.image).all()
        assert ((first.image >= 0) & (first.image <= recipe.diffusion.image_upper)).all()
        assert (first.image[~brain] == 0).all()
        assert ((first.probability >= 0) & (first.probability <= 1)).all()
