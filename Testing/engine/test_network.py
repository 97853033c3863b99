"""Networks: published sizes by hand count, blocks against MONAI's, and what the compact one promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from monai.networks.nets.diffusion_model_unet import DiffusionUNetResnetBlock, get_timestep_embedding
from torch.utils.flop_counter import FlopCounterMode

from d3m.diffusion.networks.blocks import ResidualBlock, time_embedding
from d3m.diffusion.networks.deformation import CompactDeformation
from d3m.diffusion.networks.published import HEAD_WIDTH, HEADS, FullAttention, LinearAttention
from d3m.diffusion.networks.slice import build_network
from d3m.diffusion.precision import MixedPrecision
from d3m.diffusion.recipe import NetworkSizes
from d3m.models.recipes import DEFAULT, PAPER

SMALL = NetworkSizes(widths=(8, 16, 24), context=(-1, 0, 1), auxiliary_regions=2, deformation_widths=(8, 8))


def _parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _published_count() -> int:
    """Weights of the published network, counted by hand from its description."""
    dim, time = 64, 256
    pairs = [(64, 64), (64, 128), (128, 256), (256, 512)]
    inner = HEADS * HEAD_WIDTH

    def conv(a: int, b: int, k: int, bias: bool = True) -> int:
        return a * b * k * k + (b if bias else 0)

    def block(a: int, b: int) -> int:
        shortcut = conv(a, b, 1) if a != b else 0
        return time * 2 * b + 2 * b + conv(a, b, 3) + b + conv(b, b, 3) + b + shortcut

    def linear_attention(c: int) -> int:
        return c + conv(c, 3 * inner, 1, bias=False) + conv(inner, c, 1) + c

    def full_attention(c: int) -> int:
        return c + conv(c, 3 * inner, 1, bias=False) + conv(inner, c, 1)

    total = conv(5, dim, 7) + (dim * time + time) + (time * time + time)
    for k, (a, b) in enumerate(pairs):
        last = k == 3
        total += 2 * block(a, a) + (full_attention(a) if last else linear_attention(a))
        total += conv(a, b, 3) if last else conv(4 * a, b, 1)
    total += 2 * block(512, 512) + full_attention(512)
    decoder = block(2 * dim, dim) + conv(dim, 1, 1)
    for k, (a, b) in enumerate(reversed(pairs)):
        decoder += 2 * block(b + a, b) + (full_attention(b) if k == 0 else linear_attention(b)) + conv(b, a, 3)
    total += 2 * decoder
    encoder = conv(1, 16, 4) + conv(16, 32, 4) + 2 * conv(32, 32, 4)
    ups = conv(32, 32, 3) + 2 * conv(64, 32, 3) + conv(48, 32, 3)
    full = conv(33, 32, 3) + conv(32, 16, 3) + conv(16, 16, 3)
    return total + encoder + ups + full + conv(16, 2, 3)


def test_published_size() -> None:
    """Recipe "paper" has the parameters of its description, 55.8 million, and takes 203 GMAC a slice."""
    with torch.device("meta"):
        network = build_network(PAPER.network)
        image, condition = torch.zeros(1, 1, 256, 256), torch.zeros(1, 3, 256, 256)
        with FlopCounterMode(display=False) as counter:
            x, m = network(image, image, condition, torch.zeros(1))
            u = network.deform(m, x, image)  # type: ignore[operator]
    assert x.shape == m.shape == (1, 1, 256, 256)
    assert u.shape == (1, 2, 256, 256)
    assert _parameters(network) == _published_count()
    assert _parameters(network) == pytest.approx(55.8e6, rel=0.01)
    assert counter.get_total_flops() / 2e9 == pytest.approx(203, rel=0.01)


def test_compact_size() -> None:
    """The default network stays small enough for two cores."""
    with torch.device("meta"):
        network = build_network(DEFAULT.network)
        image, condition = torch.zeros(1, 1, 192, 160), torch.zeros(1, 9, 192, 160)
        with FlopCounterMode(display=False) as counter:
            network(image, image, condition, torch.zeros(1))
    assert _parameters(network) < 8e6
    assert counter.get_total_flops() / 2e9 < 2.6


def test_time_embedding_equals_monai() -> None:
    """The sinusoidal embedding is MONAI's."""
    t = torch.tensor([0, 1, 17, 500, 1000])
    torch.testing.assert_close(time_embedding(t, 32), get_timestep_embedding(t, 32), atol=1e-5, rtol=1e-5)


def test_residual_block_equals_monai() -> None:
    """With equal weights our residual block is MONAI's diffusion U-Net block."""
    torch.manual_seed(0)
    ours = ResidualBlock(16, 24, 32)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    theirs = DiffusionUNetResnetBlock(2, 16, 32, 24, norm_num_groups=8, norm_eps=1e-6)
    names = {
        "norm1": "norm1", "conv1": "conv1.conv", "time": "time_emb_proj", "norm2": "norm2", "conv2": "conv2.conv",
        "shortcut": "skip_connection.conv",
    }  # fmt: skip
    weights = {
        name.replace(name.split(".")[0], names[name.split(".")[0]], 1): value
        for name, value in ours.state_dict().items()
    }
    theirs.load_state_dict(weights)
    x, time = torch.randn(2, 16, 12, 10), torch.randn(2, 32)
    torch.testing.assert_close(ours(x, time), theirs(x, time), atol=1e-4, rtol=1e-4)


def test_full_attention_equals_torch() -> None:
    """With equal weights our attention is torch's multi-head attention on the normalised pixels."""
    torch.manual_seed(0)
    ours = FullAttention(HEADS * HEAD_WIDTH)
    theirs = torch.nn.MultiheadAttention(HEADS * HEAD_WIDTH, HEADS, bias=True, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.to_qkv.weight[:, :, 0, 0])
        theirs.in_proj_bias.zero_()
        theirs.out_proj.weight.copy_(ours.to_out.weight[:, :, 0, 0])
        theirs.out_proj.bias.copy_(ours.to_out.bias)
    x = torch.randn(2, HEADS * HEAD_WIDTH, 5, 6)
    flat = ours.norm(x).flatten(2).mT
    expected = x + theirs(flat, flat, flat)[0].mT.reshape(x.shape)
    torch.testing.assert_close(ours(x), expected, atol=1e-4, rtol=1e-4)


def test_linear_attention_by_explicit_sums() -> None:
    """out = sum over positions of softmax(k) v, read by softmax(q): the matrices multiplied in the other order."""
    torch.manual_seed(0)
    layer = LinearAttention(16)
    x = torch.randn(1, 16, 4, 3)
    q, k, v = layer.to_qkv(layer.norm(x)).reshape(3, HEADS, HEAD_WIDTH, 12)
    q, k = q.softmax(1) / HEAD_WIDTH**0.5, k.softmax(2)
    mixed = torch.stack([(v[h] @ (k[h].mT @ q[h])) for h in range(HEADS)]).reshape(1, -1, 4, 3)
    torch.testing.assert_close(layer(x), x + layer.to_out(mixed), atol=1e-5, rtol=1e-5)


def test_fresh_network_predicts_nothing_and_moves_nothing() -> None:
    """Before training the image is T1, the mask empty and the field zero: training starts from the identity."""
    network = build_network(SMALL)
    image, condition = torch.randn(2, 1, 16, 24), torch.rand(2, 9, 16, 24)
    x, m = network(image, image, condition, torch.tensor([1000, 500]))
    assert x.abs().max() == 0
    assert m.abs().max() == 0
    assert network.deform(m, x, image).abs().max() == 0  # type: ignore[operator]


def test_both_decoders_read_the_condition() -> None:
    """Image and mask both depend on the scans, on each other's noisy state, and on the time."""
    torch.manual_seed(1)
    network = build_network(SMALL)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, m, c = torch.randn(1, 1, 16, 16), torch.randn(1, 1, 16, 16), torch.rand(1, 9, 16, 16)
    t = torch.tensor([500])
    base = network(x, m, c, t)
    for changed in ((x + 1, m, c, t), (x, m + 1, c, t), (x, m, c * 0.5, t), (x, m, c, t + 300)):
        other = network(*changed)
        assert all((a - b).abs().max() > 1e-4 for a, b in zip(base, other, strict=True))


def test_displacement_is_bounded() -> None:
    """However large the activations, the field stays within its bound, and reaches towards it."""
    torch.manual_seed(0)
    module = CompactDeformation(3, (8, 8), max_displacement=4.0)
    torch.nn.init.normal_(module.flow.weight, std=50)
    u = module(10 * torch.randn(2, 3, 16, 16)).detach()
    assert 3.5 < float(u.abs().max()) <= 4.0


def test_deformation_sees_what_its_recipe_says() -> None:
    """With "mask" alone neither image nor T1 changes the field."""
    torch.manual_seed(0)
    network = build_network(replace(SMALL, deformation_inputs=("mask",)))
    torch.nn.init.normal_(network.deformation.flow.weight)  # type: ignore[union-attr, arg-type]
    mask, image = torch.randn(1, 1, 16, 16), torch.randn(1, 1, 16, 16)
    a = network.deform(mask, image, image)  # type: ignore[operator]
    assert torch.equal(a, network.deform(mask, 0 * image, 5 * image))  # type: ignore[operator]
    assert not torch.equal(a, network.deform(0 * mask, image, image))  # type: ignore[operator]


def test_bfloat16_is_close_to_float32() -> None:
    """Half precision changes the raw outputs by rounding, not by content."""
    torch.manual_seed(2)
    network = build_network(SMALL).eval()
    for name, parameter in network.named_parameters():
        if "head" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    x, c, t = torch.randn(2, 1, 32, 32), torch.rand(2, 9, 32, 32), torch.tensor([1000, 300])
    with torch.inference_mode():
        exact = MixedPrecision(network, torch.float32)(x, x, c, t)
        half = MixedPrecision(network, torch.bfloat16)(x, x, c, t)
    for a, b in zip(exact, half, strict=True):
        assert b.dtype == torch.float32
        assert (a - b).abs().max() < 0.05 * a.abs().max()
