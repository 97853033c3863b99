"""Reverse steps and the loop over them, against MONAI, analytic results and equations written out."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from monai.networks.schedulers import DDIMScheduler
from torch import Tensor

from d3m.diffusion.recipe import DiffusionRecipe, NetworkSizes, Sampling
from d3m.diffusion.sampler import (
    Condition,
    State,
    estimate,
    gather_context,
    reverse,
    shared_noise,
    to_intensity,
    to_model_range,
    to_probability,
)
from d3m.diffusion.schedule import make_schedule, split_velocity, time_pairs
from d3m.diffusion.volume import VolumeSampler
from d3m.diffusion.warp import warp

PLAIN = DiffusionRecipe(image_skip=False, blank_outside=False, image_upper=1.0, mask_amplitude=1.0, time_spacing=1.0)
SCHEDULE = make_schedule("sigmoid", 1000)


class Given:
    """A network that says what it is told to: fixed velocities and a fixed field."""

    stride = 1

    def __init__(self, v_image: Tensor, v_mask: Tensor, u: Tensor) -> None:
        self.v_image, self.v_mask, self.u = v_image, v_mask, u

    def __call__(self, x_t: Tensor, m_t: Tensor, condition: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.v_image, self.v_mask

    def deform(self, mask: Tensor, image: Tensor, t1: Tensor) -> Tensor:
        return self.u


class Gaussian:
    """The exact denoiser of data drawn from N(mean, spread^2): E[x0 | x_t], as a velocity."""

    stride = 1

    def __init__(self, mean: float, spread: float) -> None:
        self.mean, self.variance = mean, spread**2

    def __call__(self, x_t: Tensor, m_t: Tensor, condition: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        ab = SCHEDULE.alpha_bar[t.cpu()].float().reshape(-1, 1, 1, 1)
        a, s2 = ab.sqrt(), 1 - ab
        x0 = (self.variance * a * x_t + s2 * self.mean) / (ab * self.variance + s2)
        return (a * x_t - x0) / s2.sqrt(), 0 * m_t

    def deform(self, mask: Tensor, image: Tensor, t1: Tensor) -> Tensor:
        return torch.zeros(len(mask), 2, *mask.shape[2:])


def _fields(seed: int = 0, shape: tuple[int, ...] = (2, 1, 9, 11)) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    x, m, v, w = 0.4 * torch.randn(4, *shape, generator=generator)
    u = torch.randn(shape[0], 2, *shape[2:], generator=generator)
    return x, m, v, w, u


def _condition(shape: tuple[int, ...] = (2, 1, 9, 11)) -> Condition:
    return Condition(torch.zeros(shape[0], 3, *shape[2:]), torch.full(shape, 0.5), torch.ones(shape, dtype=torch.bool))


def test_ddim_equals_monai() -> None:
    """Step for step our DDIM is MONAI's scheduler with v-prediction, on the same alpha_bar."""
    steps = 20
    scheduler = DDIMScheduler(1000, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=True)
    # their index t is our t + 1: index 0 is the first noisy time
    scheduler.alphas_cumprod = SCHEDULE.alpha_bar[1:].float()
    scheduler.final_alpha_cumprod = torch.tensor(1.0)
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(0)
    theirs = torch.randn(1, 1, 4, 4, generator=generator)
    velocities = [torch.randn(1, 1, 4, 4, generator=generator) for _ in range(steps)]
    pairs = [(int(t) + 1, max(int(t) + 1 - 1000 // steps, 0)) for t in scheduler.timesteps]
    ours = State(theirs.clone(), theirs.clone())
    recipe = replace(PLAIN, warp="step")
    for (t, s), v in zip(pairs, velocities, strict=True):
        theirs, _ = scheduler.step(v, t - 1, theirs)
        network = Given(v, v, torch.zeros(1, 2, 4, 4))
        shape = (1, 1, 4, 4)
        ours = next(reverse(network, ours, _condition(shape), [(t, s)], SCHEDULE, recipe)).state
    torch.testing.assert_close(ours.x, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m"])
def test_solvers_reach_the_exact_solution(solver: str) -> None:
    """For Gaussian data the probability flow is known: x_0 = mean + spread x_T, whatever the path."""
    mean, spread = 0.2, 0.3
    start = torch.linspace(-2, 2, 9).reshape(1, 1, 1, 9)
    pairs = time_pairs(1000, 400)
    shape = (1, 1, 1, 9)
    for step in reverse(Gaussian(mean, spread), State(start, start), _condition(shape), pairs, SCHEDULE, PLAIN, solver):  # type: ignore[arg-type]
        last = step
    torch.testing.assert_close(last.state.x, mean + spread * start, atol=0.01, rtol=0)


@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("dpmpp_2m", 2)])
def test_order_of_convergence(solver: str, order: int) -> None:
    """Half the step divides the error by 2 (DDIM) or 4 (DPM-Solver++(2M)) along the exact flow of Gaussian data."""
    mean, spread = 0.2, 0.5
    z = torch.linspace(-1.2, 1.2, 9).reshape(1, 1, 1, 9)

    def exact(t: int) -> Tensor:
        ab = float(SCHEDULE.alpha_bar[t])
        return ab**0.5 * mean + (ab * spread**2 + 1 - ab) ** 0.5 * z

    def error(steps: int) -> float:
        times = [900 - 800 * k // steps for k in range(steps + 1)]
        state = State(exact(900), exact(900))
        network, condition = Gaussian(mean, spread), _condition((1, 1, 1, 9))
        *_, last = reverse(network, state, condition, list(pairwise(times)), SCHEDULE, PLAIN, solver)  # type: ignore[arg-type]
        return float((last.state.x - exact(100)).abs().max())

    assert math.log2(error(20) / error(40)) == pytest.approx(order, abs=0.35)


def test_second_order_needs_fewer_steps() -> None:
    """With as many steps DPM-Solver++(2M) is several times closer to the exact solution than DDIM."""
    mean, spread = 0.2, 0.5
    start = torch.linspace(-1.2, 1.2, 9).reshape(1, 1, 1, 9)
    errors = {}
    for solver in ("ddim", "dpmpp_2m"):
        pairs, condition = time_pairs(1000, 25), _condition((1, 1, 1, 9))
        steps = list(reverse(Gaussian(mean, spread), State(start, start), condition, pairs, SCHEDULE, PLAIN, solver))  # type: ignore[arg-type]
        # the network is exact, so what x_0 lacks at the last but one time is the solver's error
        state = steps[-2].state
        ab = float(SCHEDULE.alpha_bar[time_pairs(1000, 25)[-2][1]])
        exact = ab**0.5 * mean + (ab * spread**2 + 1 - ab) ** 0.5 * start
        errors[solver] = float((state.x - exact).abs().max())
    assert errors["dpmpp_2m"] < 0.3 * errors["ddim"]


def test_warp_of_the_step() -> None:
    """warp="step": x_s = phi_u(sqrt(abar_s) x0 + sqrt(1 - abar_s) eps); the mask is not warped."""
    x, m, v, w, u = _fields()
    t, s = 600, 400
    step = next(reverse(Given(v, w, u), State(x, m), _condition(), [(t, s)], SCHEDULE, replace(PLAIN, warp="step")))
    noise = SCHEDULE.at(torch.tensor([t, t]))
    x0, eps = split_velocity(x, v, noise, "v")
    m0, eps_mask = split_velocity(m, w, noise, "v")
    a, b = float(SCHEDULE.alpha_bar[s].sqrt()), float((1 - SCHEDULE.alpha_bar[s]).sqrt())
    torch.testing.assert_close(step.state.x, warp(a * x0 + b * eps, u), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(step.state.m, a * m0.clamp(-1, 1) + b * eps_mask, atol=1e-5, rtol=1e-5)


def test_warp_of_the_velocity() -> None:
    """warp="velocity": both velocities are warped with the field of the unwarped mask."""
    x, m, v, w, u = _fields(1)
    recipe = replace(PLAIN, warp="velocity", warp_mask=True)
    e = estimate(Given(v, w, u), State(x, m), _condition(), torch.tensor([300, 300]), SCHEDULE, recipe)
    noise = SCHEDULE.at(torch.tensor([300, 300]))
    torch.testing.assert_close(e.velocity_image, warp(v, u))
    torch.testing.assert_close(e.x0, split_velocity(x, warp(v, u), noise, "v")[0])
    torch.testing.assert_close(e.m0, split_velocity(m, warp(w, u), noise, "v")[0].clamp(-1, 1))
    torch.testing.assert_close(e.x0_before, split_velocity(x, v, noise, "v")[0])


def test_warp_of_the_data_prediction() -> None:
    """warp="x0": the clipped data prediction is warped; the noise follows from it."""
    x, m, v, w, u = _fields(2)
    recipe = replace(PLAIN, warp="x0", warp_mask=True)
    e = estimate(Given(v, w, u), State(x, m), _condition(), torch.tensor([800, 800]), SCHEDULE, recipe)
    noise = SCHEDULE.at(torch.tensor([800, 800]))
    x0, _ = split_velocity(x, v, noise, "v")
    moved = warp(x0.clamp(-1, 1), u)
    torch.testing.assert_close(e.x0, moved)
    torch.testing.assert_close(e.eps, (x - noise.signal * moved) / noise.noise)
    torch.testing.assert_close(e.m0, warp(split_velocity(m, w, noise, "v")[0].clamp(-1, 1), u))


def test_warp_of_the_enhancement() -> None:
    """warp="enhancement": what is not T1 moves, T1 stays, and the noise follows; without enhancement nothing moves."""
    x, m, v, w, u = _fields(5)
    recipe = replace(PLAIN, warp="enhancement")
    t1 = torch.rand(x.shape, generator=torch.Generator().manual_seed(5))
    condition = replace(_condition(), t1=t1)
    t = torch.tensor([800, 800])
    e = estimate(Given(v, w, u), State(x, m), condition, t, SCHEDULE, recipe)
    noise, anatomy = SCHEDULE.at(t), to_model_range(t1, recipe)
    x0 = split_velocity(x, v, noise, "v")[0].clamp(-1, 1)
    torch.testing.assert_close(e.x0 - anatomy, warp(x0 - anatomy, u))
    torch.testing.assert_close(noise.signal * e.x0 + noise.noise * e.eps, x)
    torch.testing.assert_close(e.m0, split_velocity(m, w, noise, "v")[0].clamp(-1, 1))
    silent = (noise.signal * x - anatomy) / noise.noise  # the velocity that says: the image is T1
    still = estimate(Given(silent, w, u), State(x, m), condition, t, SCHEDULE, recipe)
    torch.testing.assert_close(still.x0, anatomy, atol=1e-5, rtol=1e-5)


def test_skip_means_t1_and_an_empty_mask() -> None:
    """With the skip a silent network at pure noise says: the image is T1, there is no enhancement."""
    recipe = DiffusionRecipe()
    x, m, v, _, u = _fields(3)
    e = estimate(Given(0 * v, 0 * v, 0 * u), State(x, m), _condition(), torch.tensor([1000, 1000]), SCHEDULE, recipe)
    torch.testing.assert_close(to_intensity(e.x0, recipe), torch.full_like(x, 0.5), atol=1e-3, rtol=0)
    assert to_probability(e.m0, recipe).max() < 1e-3


def test_nothing_is_moved_in_from_outside_the_brain() -> None:
    """Outside the brain the estimate is background before the warp, so its border gets no strange tissue."""
    x, m, v, w, u = _fields(4)
    inside = torch.zeros(2, 1, 9, 11, dtype=torch.bool)
    inside[..., 2:7, 3:8] = True
    condition = replace(_condition(), brain=inside)
    e = estimate(Given(v, w, 0 * u), State(x, m), condition, torch.tensor([500, 500]), SCHEDULE, DiffusionRecipe())
    assert (e.x0_before[~inside] == -1).all()
    assert (e.x0[~inside] == -1).all()


def test_ranges_are_inverse() -> None:
    """Scaled intensity and model range convert into each other for both scales of the target."""
    for upper in (1.0, 2.0):
        recipe = DiffusionRecipe(image_upper=upper)
        image = torch.linspace(0, upper, 7)
        torch.testing.assert_close(to_intensity(to_model_range(image, recipe), recipe), image)
        assert float(to_model_range(torch.tensor(upper), recipe)) == 1


def test_context_repeats_the_outermost_slices() -> None:
    """The condition of a slice is its neighbours' contrasts; at the ends the last slice stands in."""
    contrasts = torch.tensor([0.0, 0.1, 0.2]).reshape(1, 3, 1, 1)
    slices = torch.arange(5.0).reshape(5, 1, 1, 1).expand(5, 3, 2, 2) + contrasts
    brain = torch.ones(5, 2, 2, dtype=torch.bool)
    found = gather_context(slices, brain, torch.tensor([0, 2, 4]), (-2, 0, 1))
    assert found.slices.shape == (3, 9, 2, 2)
    expected = [0, 0.1, 0.2, 0, 0.1, 0.2, 1, 1.1, 1.2]
    assert found.slices[0, :, 0, 0].tolist() == pytest.approx(expected)
    assert found.slices[2, ::3, 0, 0].tolist() == pytest.approx([2, 4, 4])
    assert found.t1[:, 0, 0, 0].tolist() == [0, 2, 4]


def test_noise_is_shared_and_decided_by_the_seed() -> None:
    """Every slice starts from the same noise; another seed gives other noise; image and mask differ."""
    a, b, c = (shared_noise((6, 7), seed, torch.device("cpu")) for seed in (1, 1, 2))
    assert torch.equal(a.x, b.x)
    assert not torch.equal(a.x, c.x)
    assert not torch.equal(a.x, a.m)


class Scripted:
    """A small deterministic network that depends on everything it is given."""

    stride = 1

    def __init__(self) -> None:
        torch.manual_seed(7)
        self.conv = torch.nn.Conv2d(5, 2, 3, padding=1)
        self.sizes: set[int] = set()
        self.limit: int | None = None

    def __call__(self, x_t: Tensor, m_t: Tensor, condition: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        self.sizes.add(len(x_t))
        if self.limit is not None and len(x_t) > self.limit:
            raise torch.OutOfMemoryError("too many slices")
        image, mask = self.conv(torch.cat([x_t, m_t, condition], 1)).chunk(2, 1)
        return image, mask

    def deform(self, mask: Tensor, image: Tensor, t1: Tensor) -> Tensor:
        return torch.cat([mask, image], 1)


class Crowded(Scripted):
    """A network for which there is memory in some threads at a time only."""

    def __init__(self, places: int) -> None:
        super().__init__()
        self.places, self.inside, self.refused = places, 0, 0
        self.lock = threading.Lock()

    def __call__(self, x_t: Tensor, m_t: Tensor, condition: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        with self.lock:
            self.inside += 1
            allowed = self.inside <= self.places
        try:
            if not allowed:
                self.refused += 1
                raise torch.OutOfMemoryError("too many slices")
            time.sleep(0.01)
            return super().__call__(x_t, m_t, condition, t)
        finally:
            with self.lock:
                self.inside -= 1


def _sampler(network: Scripted, **changes: object) -> VolumeSampler:
    values = {"network": network, "recipe": DiffusionRecipe(), "context": (0,), "sampling": Sampling(3), "batch": 4}
    return VolumeSampler(**(values | changes))  # type: ignore[arg-type]


def _volume() -> tuple[Tensor, Tensor]:
    slices = torch.rand(10, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    brain = torch.zeros(10, 8, 8, dtype=torch.bool)
    brain[1:9, 1:7, 1:7] = True
    return slices * brain[:, None], brain


@torch.no_grad()
def test_same_seed_same_volume_bit_for_bit() -> None:
    """Two runs with one seed are identical; another seed differs."""
    slices, brain = _volume()
    a, b = (_sampler(Scripted(), seed=5)(slices, brain) for _ in range(2))
    assert torch.equal(a.image, b.image)
    assert torch.equal(a.displacement, b.displacement)
    assert not torch.equal(a.image, _sampler(Scripted(), seed=6)(slices, brain).image)


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices are computed in batches, as on a device that is too slow for single ones."""
    monkeypatch.setattr("d3m.diffusion.volume.ALONE", ())


@pytest.fixture
def four_threads() -> Iterator[None]:
    """The threads that a machine with four cores has."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@torch.no_grad()
def test_memory_running_out_halves_the_batch_and_keeps_the_picture(as_on_a_gpu: None) -> None:
    """With half the batch all begins again, so that the batch that is told decides every bit of the volume."""
    slices, brain = _volume()
    tight = Scripted()
    tight.limit = 2
    counts: list[int] = []
    found = _sampler(tight, seed=5)(slices, brain, counts.append)
    assert found.batch == 2
    assert torch.equal(found.image, _sampler(Scripted(), seed=5, batch=2)(slices, brain).image)
    assert counts == sorted(counts)
    assert counts[-1] == _sampler(tight).slice_steps(brain)
    tight.limit = 0
    with pytest.raises(torch.OutOfMemoryError):
        _sampler(tight)(slices, brain)


@torch.no_grad()
def test_the_last_batch_is_filled_up(as_on_a_gpu: None) -> None:
    """Every call has one size: the number of slices in a call shows in the last bits of each."""
    slices, brain = _volume()
    network = Scripted()
    whole = _sampler(network, batch=3)(slices, brain)  # 8 slices
    assert network.sizes == {3}
    assert (whole.image[brain] > 0).any()
    torch.testing.assert_close(whole.image, _sampler(Scripted(), batch=1)(slices, brain).image, atol=1e-5, rtol=0)


@torch.no_grad()
def test_slices_together_on_a_cpu(four_threads: None) -> None:
    """Always as many in a call, the last ones filled up; each slice is what it is alone, and is counted once."""
    slices, brain = _volume()
    network, counts = Scripted(), list[int]()
    whole = _sampler(network, together=3)(slices, brain, counts.append)  # 8 slices
    assert network.sizes == {3}
    assert whole.batch == 3
    assert counts[-1] == 8 * 3
    alone = _sampler(Scripted())(slices, brain)
    torch.testing.assert_close(whole.image, alone.image, atol=1e-5, rtol=0)
    torch.testing.assert_close(whole.displacement, alone.displacement, atol=1e-5, rtol=0)


@pytest.mark.parametrize("together", [1, 4])
@torch.no_grad()
def test_threads_and_batch_do_not_show_in_the_result(together: int, four_threads: None) -> None:
    """One core or four, eight slices at once or one: the same bits, with a network whose convolutions would differ.

    The libraries split a convolution by the threads and slices that they are given.
    """
    from d3m.diffusion.networks.slice import build_network

    torch.manual_seed(0)
    network = build_network(NetworkSizes(widths=(32, 64), context=(-1, 0, 1))).eval()
    for name, value in network.named_parameters():
        if "head" in name or "flow" in name:
            torch.nn.init.normal_(value, std=0.05)
    slices = torch.rand(6, 3, 48, 40, generator=torch.Generator().manual_seed(0))
    brain = torch.ones(6, 48, 40, dtype=torch.bool)
    found = []
    for threads, batch in ((1, 1), (4, 1), (2, 2), (4, 8), (3, 8)):
        torch.set_num_threads(threads)
        sampler = VolumeSampler(network, DiffusionRecipe(), (-1, 0, 1), Sampling(2, samples=2), batch=batch, trace=True)  # type: ignore[arg-type]
        found.append(replace(sampler, together=together)(slices, brain))
        assert torch.get_num_threads() == threads  # as before
    for other in found[1:]:
        for name in ("image", "probability", "spread", "displacement"):
            assert torch.equal(getattr(found[0], name), getattr(other, name)), name
        assert torch.equal(found[0].trace[0].before, other.trace[0].before)
        assert other.batch == together


@torch.no_grad()
def test_memory_running_out_between_threads_loses_nothing(four_threads: None) -> None:
    """Slices that found no memory beside others are done again beside fewer; the bits are those of a quiet machine."""
    slices, brain = _volume()
    expected = _sampler(Scripted(), seed=5)(slices, brain)
    crowded = Crowded(places=1)
    counts: list[int] = []
    found = _sampler(crowded, seed=5)(slices, brain, counts.append)
    assert crowded.refused
    assert torch.equal(found.image, expected.image)
    assert torch.equal(found.displacement, expected.displacement)
    assert counts[-1] == _sampler(crowded).slice_steps(brain)
    with pytest.raises(torch.OutOfMemoryError):
        _sampler(Crowded(places=0))(slices, brain)


@torch.no_grad()
def test_errors_and_stops_end_every_thread(four_threads: None) -> None:
    """What goes wrong in a thread is raised where the sampling was asked for; a stop leaves nothing running."""
    slices, brain = _volume()

    class Broken(Scripted):
        def deform(self, mask: Tensor, image: Tensor, t1: Tensor) -> Tensor:
            raise ValueError("odd")

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(ValueError, match="odd"):
        _sampler(Broken())(slices, brain)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        _sampler(Scripted())(slices, brain, stop)
    assert threading.active_count() == before


@torch.no_grad()
def test_trace_keeps_every_step_of_the_first_sample() -> None:
    """The last traced step is the result; before and after differ by exactly the traced field."""
    slices, brain = _volume()
    sample = _sampler(Scripted(), trace=True)(slices, brain)
    assert len(sample.trace) == 3
    last = sample.trace[-1]
    assert torch.equal(last.after, sample.image)
    assert torch.equal(last.displacement, sample.displacement)
    moved = warp(last.before[:, None], last.displacement)[:, 0]
    torch.testing.assert_close(moved[brain], last.after[brain], atol=1e-5, rtol=0)


@torch.no_grad()
def test_several_samples_give_mean_and_spread() -> None:
    """Mean and spread over samples are numpy's over runs with consecutive seeds; the field is the first's."""
    slices, brain = _volume()
    runs = [_sampler(Scripted(), seed=3 + k)(slices, brain) for k in range(4)]
    found = _sampler(Scripted(), seed=3, sampling=Sampling(3, samples=4))(slices, brain)
    images = torch.stack([run.image for run in runs])
    torch.testing.assert_close(found.image, images.mean(0), atol=1e-6, rtol=0)
    assert found.spread is not None
    torch.testing.assert_close(found.spread, images.std(0), atol=1e-5, rtol=0)
    chances = torch.stack([run.probability for run in runs])
    torch.testing.assert_close(found.probability, chances.mean(0), atol=1e-6, rtol=0)
    assert torch.equal(found.displacement, runs[0].displacement)
    assert runs[0].spread is None


@torch.no_grad()
@pytest.mark.parametrize("given", [False, True])
def test_every_other_sample_is_of_the_mirror_image(given: bool) -> None:
    """The second sample is what numpy's mirror image of everything gives, a mask that is given too, turned back; the
    field stays the first sample's."""
    slices, brain = _volume()
    brain[:, :, 5:] = False  # not symmetric
    slices = slices * brain[:, None]
    mask = (torch.rand(brain.shape, generator=torch.Generator().manual_seed(1)) * brain) if given else None

    def turned(values: Tensor) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values.numpy()[..., ::-1]))

    one = _sampler(Scripted(), seed=3, mask=mask)(slices, brain)
    other = _sampler(Scripted(), seed=4, mask=None if mask is None else turned(mask))(turned(slices), turned(brain))
    sampling = Sampling(3, samples=2, mirrored=True)
    found = _sampler(Scripted(), seed=3, mask=mask, sampling=sampling)(slices, brain)
    torch.testing.assert_close(found.image, (one.image + turned(other.image)) / 2, atol=1e-6, rtol=0)
    expected = (one.probability + turned(other.probability)) / 2
    torch.testing.assert_close(found.probability, expected, atol=1e-6, rtol=0)
    assert torch.equal(found.displacement, one.displacement)
    plain = _sampler(Scripted(), seed=3, mask=mask, sampling=Sampling(3, samples=2))(slices, brain)
    assert not torch.allclose(found.image, plain.image, atol=1e-3)


@torch.no_grad()
def test_slices_without_brain_cost_nothing_and_stay_empty() -> None:
    """Empty slices are not sampled, and nothing appears outside the brain."""
    slices, brain = _volume()
    sample = _sampler(Scripted())(slices, brain)
    assert (sample.image[~brain] == 0).all()
    assert (sample.probability[~brain] == 0).all()
    assert _sampler(Scripted()).slice_steps(brain) == 8 * 3


@torch.no_grad()
@pytest.mark.parametrize("interval", [2, 3])
def test_slices_between_follow_their_neighbours(interval: int) -> None:
    """Of the slices with brain every n-th and the last are those of a full run; between, numpy's interpolation of the
    difference from T1, of the probability and of the field; nothing outside the brain, and the work is counted."""
    slices, brain = _volume()
    brain[4, 1:4], brain[5] = False, False  # a corner that a neighbour lacks, and a slice without brain
    slices = slices * brain[:, None]
    sampling = Sampling(3, slice_interval=interval)
    full = _sampler(Scripted(), trace=True)(slices, brain)
    found = _sampler(Scripted(), trace=True, sampling=sampling)(slices, brain)
    wanted = [1, 2, 3, 4, 6, 7, 8]
    computed = sorted({*wanted[::interval], 8})
    assert _sampler(Scripted(), sampling=sampling).slice_steps(brain) == 3 * len(computed)
    t1, inside = slices[:, 0].numpy(), brain.numpy()
    for own, theirs in zip(found.trace, full.trace, strict=True):
        for name in ("before", "after", "probability", "displacement"):
            mine, all_of_it = getattr(own, name).numpy(), getattr(theirs, name).numpy()
            np.testing.assert_array_equal(mine[computed], all_of_it[computed])
            if name == "displacement":
                continue
            base = np.zeros_like(t1) if name == "probability" else t1
            for index, row, column in np.argwhere(inside):
                known = [k for k in computed if inside[k, row, column]]
                low, high = (max(k for k in computed if k <= index), min(k for k in computed if k >= index))
                known = [k for k in known if k in (low, high)]
                values = [(all_of_it - base)[k, row, column] for k in known]
                expected = np.interp(index, known, values) if known else 0.0
                np.testing.assert_allclose(mine[index, row, column], base[index, row, column] + expected, atol=1e-5)
            assert not mine[~inside].any()
    assert torch.equal(found.image, found.trace[-1].after)
    field = full.displacement[1] + (full.displacement[1 + interval] - full.displacement[1]) / interval
    torch.testing.assert_close(found.displacement[2], field)


def test_small_networks_meet_the_protocol() -> None:
    """The sampler runs the real compact network end to end."""
    from d3m.diffusion.networks.slice import build_network

    network = build_network(NetworkSizes(widths=(8, 16), deformation_widths=(8, 8))).eval()
    slices, brain = _volume()
    with torch.inference_mode():
        sample = VolumeSampler(network, DiffusionRecipe(), (0,), Sampling(1, solver="dpmpp_2m"))(slices, brain)  # type: ignore[arg-type]
    # a silent network with the skip leaves T1
    torch.testing.assert_close(sample.image[brain], slices[:, 0][brain], atol=0.05, rtol=0)
