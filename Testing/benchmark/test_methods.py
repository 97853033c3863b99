"""Every method learns and predicts what it must; D3M's ablations and controls are what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from benchmark.method_helpers import CONTEXT, condition_of, small_batch
from d3m.diffusion.recipe import Sampling
from d3m.diffusion.sampler import State
from d3m.diffusion.volume import VolumeSampler
from d3m_benchmark.methods.ablations import RESIDUAL_SCALE, add_residual, blur, build_d3m, build_regression
from d3m_benchmark.methods.adversarial import Adversarial
from d3m_benchmark.methods.pix2pix import WIDTHS, UNetGenerator
from d3m_benchmark.methods.registry import METHODS
from d3m_benchmark.methods.resvit import SIZES, ResViTGenerator
from d3m_training.data.batches import Batch
from d3m_training.data.cache import TARGET_UPPER
from d3m_training.train.d3m import NetworkWithLoss
from d3m_training.train.method import mask_term


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same weights in every run."""
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", METHODS)
def test_method_learns_and_predicts(name: str) -> None:
    """A few iterations lower the loss on one batch; the prediction is in range, 0 outside the brain, and repeatable."""
    method = METHODS[name].build("small", CONTEXT, torch.float32)
    assert isinstance(method, nn.Module)
    batch = small_batch()
    optimizer = torch.optim.AdamW(method.network.parameters(), lr=1e-3)

    def loss() -> Tensor:
        return method(batch, torch.Generator().manual_seed(1)).total

    method.train()
    first = loss().item()
    for _ in range(8):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.9 * first
    method.eval()
    made = method.predict(condition_of(batch), 4)
    assert made.image.shape == made.probability.shape == batch.t1.shape
    assert 0 <= float(made.image.min()) < float(made.image.max()) <= TARGET_UPPER
    assert 0 <= float(made.probability.min()) <= float(made.probability.max()) <= 1
    outside = batch.brain == 0
    assert not made.image[outside].any()
    assert not made.probability[outside].any()
    assert torch.equal(made.image, method.predict(condition_of(batch), 4).image)


@pytest.mark.parametrize("name", ["pix2pix", "resvit", "palette", "i2sb"])
def test_unknown_labels_teach_no_mask(name: str) -> None:
    """What stands in the label of an unlabelled slice changes nothing in the loss."""
    method = METHODS[name].build("small", CONTEXT, torch.float32)
    assert isinstance(method, nn.Module)
    method.eval()
    unlabelled = replace(small_batch(2), labelled=torch.zeros(2))
    losses = [
        method(batch, torch.Generator().manual_seed(1)).total.item()
        for batch in (unlabelled, replace(unlabelled, label=torch.zeros_like(unlabelled.label)))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def parameters_in_millions(build: object) -> float:
    """Counted without allocating them."""
    with torch.device("meta"):
        return sum(p.numel() for p in build().parameters()) / 1e6  # type: ignore[operator]


def test_published_generators_have_the_published_sizes() -> None:
    """54.41 M for Pix2Pix's U-Net, 123.45 M for ResViT (3 channels in, 1 out), as counted from the public classes."""
    unet = parameters_in_millions(lambda: UNetGenerator(3, 1, WIDTHS["published"]))
    vision = parameters_in_millions(lambda: ResViTGenerator(3, 1, SIZES["published"]))
    assert unet == pytest.approx(54.41, abs=0.01)
    assert vision == pytest.approx(123.45, abs=0.01)


def test_mask_that_misses_everything_still_learns() -> None:
    """A D3M so sure of an empty mask that sampling clamps it is still pushed towards the tumour."""
    method = METHODS["d3m"].build("small", CONTEXT, torch.float32)
    assert isinstance(method, NetworkWithLoss)
    with torch.no_grad():
        method.network.mask_head.bias.fill_(50)  # type: ignore[union-attr]
    method(small_batch(), torch.Generator().manual_seed(0)).total.backward()
    assert (method.network.mask_head.bias.grad > 0.01).all()  # type: ignore[union-attr]


def test_resvit_shares_one_transformer() -> None:
    """Both blocks with a transformer use the same layers: the paper's saving."""
    network = ResViTGenerator(3, 1, SIZES["small"])
    calls = []
    network.transformer.register_forward_hook(lambda *_: calls.append(1))
    network(torch.rand(1, 3, 32, 48))
    assert len(calls) == 2


def test_discriminator_sees_patches_of_seventy_pixels() -> None:
    """One of its outputs depends on 70 x 70 pixels, as in Pix2Pix."""
    method = METHODS["pix2pix"].build("small", CONTEXT, torch.float32)
    assert isinstance(method, Adversarial)
    discriminator = method.network.discriminator.eval()
    seen = torch.rand(1, 4, 160, 160, requires_grad=True)
    out = discriminator(seen)[-1]
    out[0, 0, out.shape[2] // 2, out.shape[3] // 2].backward()
    reached = seen.grad.abs().sum(dim=1)[0] > 0  # type: ignore[union-attr]
    rows, columns = (np.flatnonzero(reached.any(dim=axis).numpy()) for axis in (1, 0))
    assert (rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1) == (70, 70)


@pytest.mark.parametrize("name", ["pix2pix", "resvit"])
def test_adversaries_do_not_share_gradients(name: str) -> None:
    """One total gives the generator and the discriminator just the gradients of their own losses."""
    method = METHODS[name].build("small", CONTEXT, torch.float32)
    assert isinstance(method, Adversarial)
    method.eval()  # neither dropout nor batch statistics, so that both ways see the same
    batch = small_batch()
    method(batch, torch.Generator()).total.backward()
    together = {key: p.grad.clone() for key, p in method.network.named_parameters() if p.grad is not None}
    for own in ("generator", "discriminator"):
        method.zero_grad()
        apart = _separate_loss(method, batch, own)
        apart.backward()
        for key, p in method.network.named_parameters():
            if key.startswith(f"{own}."):
                assert torch.allclose(p.grad, together[key], atol=1e-6), key  # type: ignore[arg-type]


def _separate_loss(method: Adversarial, batch: Batch, of: str) -> Tensor:
    """The textbook way: two losses, each for its own network, by hand."""
    own = 2 * batch.condition[:, 3:6] - 1
    out = method.network.generator(batch.condition)
    made = torch.where(batch.brain > 0, torch.tanh(out[:, :1]), -1.0)
    real = batch.target - 1  # the range [0, 2] to [-1, 1]
    judge = method.network.discriminator

    def criterion(image: Tensor, wanted: float) -> Tensor:
        judged = judge(torch.cat([own, image], dim=1))[-1]
        target = torch.full_like(judged, wanted)
        if isinstance(method.criterion.loss_fct, nn.MSELoss):
            return nn.functional.mse_loss(judged, target)
        return nn.functional.binary_cross_entropy_with_logits(judged, target)

    if of == "discriminator":
        return 0.5 * (criterion(real, 1.0) + criterion(made.detach(), 0.0))
    pixel = ((made - real).abs() * batch.brain).sum() / batch.brain.sum()
    return 100 * pixel + criterion(made, 1.0) + 20 * mask_term(out[:, 1:], batch)


def test_d3m_predicts_as_the_engine_samples() -> None:
    """The comparison's D3M is the engine's: the same weights and seed give the same volume."""
    method = build_d3m("small", CONTEXT, torch.float32).eval()
    for name, value in method.network.named_parameters():
        if "head" in name or "flow" in name:
            nn.init.normal_(value, std=0.05)
    batch = small_batch(1)
    brain = batch.brain > 0
    slices = batch.t1.expand(1, 3, *batch.t1.shape[2:])
    condition = replace(condition_of(batch), slices=slices.repeat(1, 3, 1, 1))
    sampler = VolumeSampler(method.network, method.sampling_recipe, CONTEXT, Sampling(method.steps), seed=9)  # type: ignore[arg-type]
    with torch.inference_mode():
        expected = sampler(slices, brain[:, 0])
    made = method.predict(condition, 9)
    assert torch.allclose(made.image[:, 0], expected.image, atol=1e-5)
    assert torch.allclose(made.probability[:, 0], expected.probability, atol=1e-5)


def _estimate(method: NetworkWithLoss, batch: Batch) -> tuple[object, State, object]:
    from d3m.diffusion.sampler import estimate

    noise = torch.randn(2, *batch.t1.shape)
    state = State(noise[0], noise[1])
    times = torch.full((len(batch.t1),), 700)
    with torch.no_grad():
        e = estimate(method.network, state, condition_of(batch), times, method.schedule, method.recipe)  # type: ignore[arg-type]
    return e, state, method.schedule.at(times)


def test_controls_do_what_they_say() -> None:
    """The blur is a 3 x 3 mean; the residual adds the network's first output in the brain; neither moves anything."""
    method = build_d3m("small", CONTEXT, torch.float32).eval()
    nn.init.normal_(method.network.deformation.flow.weight, std=0.1)  # type: ignore[union-attr, arg-type]
    batch = small_batch()
    e, state, noise = _estimate(method, batch)
    condition = condition_of(batch)
    clean = e.x0_before.clamp(-1, 1)  # type: ignore[attr-defined]
    blurred = blur(replace(e, x0=e.x0_before), state, condition, noise, method.recipe)  # type: ignore[arg-type, attr-defined, type-var]
    expected = ndimage.uniform_filter(clean.numpy(), (1, 1, 3, 3), mode="nearest")
    assert np.allclose(blurred.x0, expected, atol=1e-5)
    added = add_residual(replace(e, x0=e.x0_before), state, condition, noise, method.recipe)  # type: ignore[arg-type, attr-defined, type-var]
    inside = e.x0_before > -1  # type: ignore[attr-defined]
    difference = (added.x0 - clean)[inside]
    assert torch.allclose(difference, RESIDUAL_SCALE * e.displacement[:, :1][inside], atol=1e-5)  # type: ignore[attr-defined]
    for corrected in (blurred, added):
        assert not corrected.displacement.any()
        remade = noise.signal * corrected.x0 + noise.noise * corrected.eps  # type: ignore[attr-defined]
        assert torch.allclose(remade, state.x, atol=1e-4)


def test_regression_is_free_of_noise() -> None:
    """One-step regression predicts one thing: no seed changes it."""
    method = build_regression("small", CONTEXT, torch.float32).eval()
    nn.init.normal_(method.network.inner.image_head.weight, std=0.1)  # type: ignore[union-attr, arg-type]
    condition = condition_of(small_batch())
    assert torch.equal(method.predict(condition, 0).image, method.predict(condition, 1).image)
