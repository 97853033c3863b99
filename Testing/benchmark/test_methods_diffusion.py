"""Palette and I2SB: the processes that their papers define, and what a prediction must be."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from monai.networks.schedulers import DDPMScheduler
from torch import Tensor, nn

from d3m.diffusion.sampler import Condition
from d3m_benchmark.methods.i2sb import BETA_MAX, ImageBridge, between, build_i2sb, make_bridge
from d3m_benchmark.methods.networks import SingleDecoder
from d3m_benchmark.methods.palette import Palette, build_palette, sampling_gamma, training_gamma
from d3m_training.data.batches import Batch
from d3m_training.data.cache import ENHANCING, TARGET_UPPER

CONTEXT = (-2, 0, 2)
Diffusion = Palette | ImageBridge


class Answer(nn.Module):
    """In the place of a network: answers by a function of the noisy image and the time, and notes what it was asked."""

    stride = 1

    def __init__(self, answer: Callable[[Tensor, Tensor], Tensor], logit: float = 1.0) -> None:
        super().__init__()
        self.answer, self.logit = answer, logit
        self.asked: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        noisy = x[:, :1]
        self.asked.append((noisy, t))
        return torch.cat([self.answer(noisy, t), torch.full_like(noisy, self.logit)], dim=1)


def _batch(n: int = 4, height: int = 32, width: int = 64) -> Batch:
    """A brain that is the left half; T1c is T1 with a bright square."""
    condition = 0.2 + 0.5 * torch.rand(n, 9, height, width, generator=torch.Generator().manual_seed(1))
    brain = torch.zeros(n, 1, height, width)
    brain[..., : width // 2] = 1
    label = torch.zeros(n, 1, height, width, dtype=torch.int64)
    label[:, :, 8:20, 4:16] = ENHANCING
    condition = condition * brain
    t1 = condition[:, 3:4]
    target = torch.where(label == ENHANCING, 1.5, t1)
    return Batch(condition, t1, target, brain, label, torch.ones(n))


def _condition(batch: Batch) -> Condition:
    return Condition(batch.condition, batch.t1, batch.brain > 0)


def _scaled(intensity: Tensor) -> Tensor:
    return 2 * intensity / TARGET_UPPER - 1


def _numpy_gamma(steps: int, first: float, last: float) -> np.ndarray:
    return np.concatenate([[1.0], np.cumprod(1 - np.linspace(first, last, steps))])


def _numpy_betas(times: int, beta_max: float) -> np.ndarray:
    """Of the bridge, as its paper's code has them."""
    ramp = np.linspace(np.sqrt(1e-4), np.sqrt(beta_max / times), times) ** 2
    return np.concatenate([ramp[: times // 2], ramp[: times // 2][::-1]])


def _perfect_noise(x0: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Palette's noise where x0 is known; the time is 1000 gamma."""

    def answer(x: Tensor, t: Tensor) -> Tensor:
        gamma = (t / 1000)[:, None, None, None].double()
        return ((x - gamma.sqrt() * x0) / (1 - gamma).sqrt()).float()

    return answer


def _perfect_direction(x0: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """I2SB's (x_t - x0) / s_t where x0 is known."""
    sums = np.concatenate([[0.0], np.cumsum(_numpy_betas(1000, BETA_MAX))])

    def answer(x: Tensor, t: Tensor) -> Tensor:
        s = torch.from_numpy(np.sqrt(sums[t.numpy()])).float()
        return (x - x0) / s[:, None, None, None]

    return answer


def _small(kind: str, widths: tuple[int, ...] = (16, 32, 32)) -> Diffusion:
    """A narrow network whose head is not zero."""
    torch.manual_seed(2)
    network = SingleDecoder(10, 2, widths)
    nn.init.normal_(network.head.weight, std=0.02)
    return Palette(network, torch.float32, 4) if kind == "palette" else ImageBridge(network, torch.float32, 4)


def test_bridge_posterior_is_what_simulation_gives() -> None:
    """Random walks from x0 with the bridge's betas: x_t, given where a walk ended, has our mean and variance."""
    betas, x0, paths = _numpy_betas(40, 0.3), 0.4, 200_000
    rng = np.random.default_rng(0)
    walks = x0 + np.cumsum(rng.normal(size=(40, paths)) * np.sqrt(betas)[:, None], axis=0)
    end, bridge = walks[-1], make_bridge(40, 0.3)
    for t in (1, 10, 20, 33, 39):
        x_t = walks[t - 1]
        slope, offset = np.polyfit(end, x_t, 1)  # both are Gaussian: the conditional mean is a line
        spread = np.std(x_t - slope * end - offset)
        before, after = bridge.from_start[t], bridge.to_end[t]
        at_0, at_1 = (
            float(between(torch.tensor(x0), torch.tensor(x1), before, after, torch.zeros(()))) for x1 in (0.0, 1.0)
        )
        deviation = float(between(torch.zeros(()), torch.zeros(()), before, after, torch.ones(())))
        assert at_1 - at_0 == pytest.approx(slope, abs=0.01)
        assert at_0 == pytest.approx(offset, abs=0.01)
        assert deviation == pytest.approx(spread, rel=0.02)


def test_bridge_has_the_published_width_and_begins_and_ends_at_the_images() -> None:
    """Peak beta 1.87e-4 and standard deviation at most 0.188 for N = 1000, beta_max = 0.3; x0 at 0 and x1 at N."""
    bridge = make_bridge(1000, 0.3)
    betas = bridge.from_start.diff()
    np.testing.assert_allclose(betas, _numpy_betas(1000, 0.3), rtol=1e-9)
    assert float(betas.max()) == pytest.approx(1.87e-4, rel=3e-3)
    zero, one = torch.zeros(1001, dtype=torch.float64), torch.ones(1001, dtype=torch.float64)
    deviation = between(zero, zero, bridge.from_start, bridge.to_end, one)
    assert float(deviation.max()) == pytest.approx(0.188, abs=5e-4)
    x0, x1, z = (torch.tensor(v, dtype=torch.float64) for v in (-0.3, 0.8, 5.0))
    drawn = between(x0, x1, bridge.from_start, bridge.to_end, z)
    assert float(drawn[0]) == pytest.approx(-0.3, abs=1e-12)
    assert float(drawn[-1]) == pytest.approx(0.8, abs=1e-12)


@pytest.mark.parametrize(
    ("gamma", "betas"),
    [
        (training_gamma(), np.linspace(1e-6, 1e-2, 2000)),
        (sampling_gamma(1000), np.linspace(1e-4, 0.09, 1000)),
    ],
    ids=["training", "sampling"],
)
def test_palettes_marginals_are_its_steps_one_after_the_other(gamma: Tensor, betas: np.ndarray) -> None:
    """x = sqrt(1 - beta) x + sqrt(beta) z, again and again, has mean sqrt(gamma) x0 and variance 1 - gamma."""
    factor, variance = 1.0, 0.0
    for beta, reached in zip(betas, gamma[1:].tolist(), strict=True):
        factor, variance = factor * np.sqrt(1 - beta), (1 - beta) * variance + beta
        assert factor == pytest.approx(np.sqrt(reached), rel=1e-9)
        assert variance == pytest.approx(1 - reached, abs=1e-9)


def test_few_steps_of_palette_stay_where_the_network_has_learnt() -> None:
    """Evenly out of the published levels down to training's last, and one step from the published end to there."""
    published, floor = _numpy_gamma(1000, 1e-4, 0.09), float(training_gamma()[-1])
    assert floor == pytest.approx(4.4e-5, rel=0.01)
    for steps in (10, 20, 50, 400):
        gamma = sampling_gamma(steps).numpy()
        assert len(gamma) == steps + 1
        assert gamma[0] == 1
        assert floor <= gamma[-2] < 1.1 * floor
        assert gamma[-1] == pytest.approx(published[-1], rel=1e-9, abs=0)
        places = np.abs(np.log(published[:, None]) - np.log(gamma)).argmin(axis=0)
        np.testing.assert_allclose(published[places], gamma, rtol=1e-9)
        assert np.ptp(np.diff(places[:-1])) <= 1
        assert np.diff(places).min() >= 1
    for steps in (1, 700):
        assert len(sampling_gamma(steps)) == steps + 1
        assert (sampling_gamma(steps).diff() < 0).all()


def test_palette_trains_on_levels_between_neighbouring_steps() -> None:
    """What the network sees has the mean and spread of the level that it is told, and levels are not the steps' own."""
    batch = _batch(64, 32, 32)
    x0 = _scaled(batch.target)
    network = Answer(lambda x, t: torch.zeros_like(x))
    Palette(network, torch.float32, 1)(batch, torch.Generator().manual_seed(0))
    ((x, t),) = network.asked
    gamma = (t / 1000).double()
    noise = (x - gamma.sqrt()[:, None, None, None] * x0) / (1 - gamma).sqrt()[:, None, None, None]
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)
    assert float((noise.std(dim=(1, 2, 3)) - 1).abs().max()) < 0.1
    steps = training_gamma()
    place = torch.searchsorted(steps.flip(0), gamma)
    assert float(gamma.max()) > 0.9
    assert float(gamma.min()) < 0.01
    between_steps = torch.minimum((gamma - steps.flip(0)[place]).abs(), (gamma - steps.flip(0)[place - 1]).abs())
    assert int((between_steps > 1e-6).sum()) > 50
    assert len(set(gamma.tolist())) == 64


def test_palettes_sampler_is_the_ddpm_of_monai() -> None:
    """All 1,000 steps with any network: image by image what MONAI's scheduler makes of the same noise."""

    def answer(x: Tensor, t: Tensor) -> Tensor:
        return 0.7 * x + 0.2 * torch.sin(3 * x.roll(1, dims=3)) + 0.1 * torch.cos(t / 200)[:, None, None, None]

    palette = Palette(Answer(answer, 0.4), torch.float32, 1000)
    condition = Condition(torch.zeros(1, 9, 6, 10), torch.zeros(1, 1, 6, 10), torch.ones(1, 1, 6, 10) > 0)
    made = palette.predict(condition, seed=4)
    scheduler = DDPMScheduler(1000, "linear_beta", beta_start=1e-4, beta_end=0.09)
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(1, 1, 6, 10, generator=generator)
    for k in reversed(range(1000)):
        eps = answer(x, 1000 * scheduler.alphas_cumprod[k][None])
        x, _ = scheduler.step(eps, k, x, generator)
    wanted = (x + 1) * TARGET_UPPER / 2
    assert float(wanted.std()) > 0.1
    torch.testing.assert_close(made.image, wanted, atol=2e-3, rtol=0)
    torch.testing.assert_close(made.probability, torch.sigmoid(torch.full_like(x, 0.4)))


@pytest.mark.parametrize("steps", [2, 7, 50])
def test_palette_with_perfect_noise_walks_the_marginals_to_the_image(steps: int) -> None:
    """At every step the sample has mean sqrt(gamma) x0 and variance 1 - gamma, and the last one is x0."""
    x0 = torch.full((1, 1, 160, 128), 0.3)
    network = Answer(_perfect_noise(x0))
    brain = torch.ones(x0.shape) > 0
    made = Palette(network, torch.float32, steps).predict(Condition(torch.zeros(1, 9, 160, 128), x0, brain), 0)
    assert len(network.asked) == steps
    for (x, t), gamma in zip(network.asked, sampling_gamma(steps).flip(0).tolist(), strict=False):
        assert float(t) == pytest.approx(1000 * gamma, rel=1e-5)
        assert float(x.mean()) == pytest.approx(0.3 * gamma**0.5, abs=0.03)
        assert float(x.std()) == pytest.approx((1 - gamma) ** 0.5, abs=0.03)
    torch.testing.assert_close(made.image, (x0 + 1) * TARGET_UPPER / 2, atol=1e-3, rtol=0)


@pytest.mark.parametrize("steps", [1, 2, 10, 999])
def test_bridge_with_perfect_directions_walks_the_marginals_to_the_image(steps: int) -> None:
    """It starts at T1 without noise, has at every step the bridge's mean and spread, and ends at T1c."""
    shape = (1, 1, 72, 56)
    x0, t1 = torch.full(shape, 0.6), torch.full(shape, 0.45)
    network = Answer(_perfect_direction(x0))
    condition = Condition(torch.zeros(1, 9, 72, 56), t1, torch.ones(shape) > 0)
    made = ImageBridge(network, torch.float32, steps).predict(condition, 0)
    assert len(network.asked) == steps
    sums = np.concatenate([[0.0], np.cumsum(_numpy_betas(1000, BETA_MAX))])
    times = [int(t) for _, t in network.asked]
    assert times[0] == 1000
    assert all(a > b for a, b in zip(times, [*times[1:], 0], strict=True))
    assert max(a - b for a, b in zip(times, [*times[1:], 0], strict=True)) <= 1000 // steps + 1
    x1 = float(_scaled(t1).mean())
    for x, t in network.asked:
        share = sums[int(t)] / sums[-1]
        assert float(x.mean()) == pytest.approx((1 - share) * 0.6 + share * x1, abs=0.01)
        assert float(x.std()) == pytest.approx(np.sqrt(sums[int(t)] * (1 - share)), abs=0.01)
    torch.testing.assert_close(made.image, (x0 + 1) * TARGET_UPPER / 2, atol=1e-3, rtol=0)


def test_perfect_networks_have_no_loss() -> None:
    """What training asks for is what sampling uses: noise at 1000 gamma, and (x_t - x0) / s_t at t."""
    batch = _batch(16)
    x0 = _scaled(batch.target)
    generator = torch.Generator().manual_seed(3)
    palette = Palette(Answer(_perfect_noise(x0)), torch.float32, 1)(batch, generator)
    bridge = ImageBridge(Answer(_perfect_direction(x0)), torch.float32, 1)(batch, generator)
    assert float(palette.noise) < 1e-3
    assert float(bridge.direction) < 1e-6
    for terms, process in ((palette, palette.noise), (bridge, bridge.direction)):  # what is left is the mask's
        assert float(terms.mask) > 0.1
        assert float(terms.total - process) == pytest.approx(0.1 * float(terms.mask), rel=1e-3)


def test_bridge_trains_on_its_posterior() -> None:
    """What the network sees at t has the posterior's mean and spread between T1c and T1."""
    batch = _batch(64, 32, 32)
    network = Answer(lambda x, t: torch.zeros_like(x))
    ImageBridge(network, torch.float32, 1)(batch, torch.Generator().manual_seed(0))
    ((x, t),) = network.asked
    cumulated = np.concatenate([[0.0], np.cumsum(_numpy_betas(1000, BETA_MAX))])
    sums, whole = cumulated[t.numpy()], cumulated[-1]
    share = torch.from_numpy(sums / whole).float()[:, None, None, None]
    rest = x - (1 - share) * _scaled(batch.target) - share * _scaled(batch.t1)
    spread = torch.from_numpy(np.sqrt(sums * (1 - sums / whole))).float()
    assert float(rest.mean()) == pytest.approx(0, abs=0.005)
    torch.testing.assert_close(rest.std(dim=(1, 2, 3)), spread, atol=0.02, rtol=0)
    assert int(t.min()) >= 1
    assert int(t.max()) > 900


@pytest.mark.parametrize("kind", ["palette", "i2sb"])
def test_a_few_iterations_lower_both_terms(kind: str) -> None:
    """On one batch, in the format that CPUs train in: image and mask are learnt."""
    method, batch = _small(kind), _batch()
    method.dtype = torch.bfloat16

    def losses() -> tuple[float, float]:
        with torch.no_grad():
            found = [method(batch, torch.Generator().manual_seed(100 + k)) for k in range(8)]
        return sum(float(f.total) for f in found), sum(float(f.mask) for f in found)

    before = losses()
    optimizer = torch.optim.AdamW(method.network.parameters(), lr=3e-3)
    for number in range(40):
        terms = method(batch, torch.Generator().manual_seed(number))
        assert terms.total.dtype == torch.float32
        terms.total.backward()
        optimizer.step()
        optimizer.zero_grad()
    after = losses()
    assert after[0] < 0.75 * before[0]
    assert after[1] < 0.75 * before[1]


@pytest.mark.parametrize("kind", ["palette", "i2sb"])
def test_a_prediction_is_an_image_of_the_brain_and_the_seed(kind: str) -> None:
    """Shape and ranges, nothing outside the brain, the same again for a seed, another image for another seed."""
    method, batch = _small(kind), _batch(2)
    made, again, other = (method.predict(_condition(batch), seed) for seed in (7, 7, 8))
    inside = batch.brain > 0
    assert made.image.shape == made.probability.shape == (2, 1, 32, 64)
    assert float(made.image.min()) >= 0
    assert float(made.image.max()) <= TARGET_UPPER
    assert 0 < float(made.probability[inside].min()) <= float(made.probability[inside].max()) < 1
    assert not made.image[~inside].any()
    assert not made.probability[~inside].any()
    assert torch.equal(made.image, again.image)
    assert torch.equal(made.probability, again.probability)
    assert float((made.image - other.image).abs().max()) > 1e-3


@pytest.mark.parametrize("kind", ["palette", "i2sb"])
def test_a_slice_does_not_depend_on_its_neighbours_in_the_batch(kind: str) -> None:
    """All noise is one for all slices: a volume does not flicker with how it is cut into batches."""
    method, batch = _small(kind), _batch(3)
    twice = batch.condition[[0, 1, 0]]
    together = method.predict(Condition(twice, twice[:, 3:4], batch.brain > 0), 5)
    alone = method.predict(Condition(twice[2:], twice[2:, 3:4], batch.brain[2:] > 0), 5)
    torch.testing.assert_close(together.image[:1], together.image[2:], atol=1e-5, rtol=0)
    torch.testing.assert_close(together.image[2:], alone.image, atol=1e-4, rtol=0)
    assert float((together.image[0] - together.image[1]).abs().max()) > 1e-3


@pytest.mark.parametrize("build", [build_palette, build_i2sb])
def test_sizes(build: Callable[..., Diffusion]) -> None:
    """Small is within D3M's budget; published has the size of Palette's re-implementation, and takes non-squares."""
    small, published = (build(size, CONTEXT, torch.float32) for size in ("small", "published"))
    count = [sum(p.numel() for p in method.network.parameters()) / 1e6 for method in (small, published)]
    assert count == pytest.approx([5.74, 56.58], abs=0.01)
    assert (small.stride, published.stride) == (32, 8)
    batch = _batch(1, 16, 24)
    published.steps = 1
    made = published.predict(_condition(batch), 0)
    assert made.image.shape == (1, 1, 16, 24)
    assert torch.isfinite(made.image).all()
