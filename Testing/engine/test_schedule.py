"""Schedules, velocities and times against formulas written out independently."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from monai.networks.schedulers import DDPMScheduler

from d3m.diffusion.schedule import diffuse, make_schedule, split_velocity, time_pairs, velocity


def test_sigmoid_follows_its_paper() -> None:
    """alpha_bar(t) = (v_end - sigmoid((t (end - start) + start) / tau)) / (v_end - v_start)."""
    alpha_bar = make_schedule("sigmoid", 1000).alpha_bar.numpy()

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    for t in (0, 1, 250, 500, 900, 999):
        wanted = (sigmoid(3) - sigmoid(t / 1000 * 6 - 3)) / (sigmoid(3) - sigmoid(-3))
        assert alpha_bar[t] == pytest.approx(wanted, rel=1e-9)
    assert alpha_bar[1000] <= 1e-8


def test_cosine_follows_its_paper() -> None:
    """alpha_bar(t) = f(t) / f(0) with f(t) = cos^2((t / T + s) / (1 + s) pi / 2)."""
    alpha_bar = make_schedule("cosine", 500).alpha_bar.numpy()
    f = np.cos((np.arange(501) / 500 + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(alpha_bar[:-1], f[:-1] / f[0], rtol=1e-9)


def test_linear_equals_monai() -> None:
    """The linear schedule of Ho et al. is that of MONAI's scheduler."""
    ours = make_schedule("linear", 1000).alpha_bar[1:].float()
    theirs = DDPMScheduler(1000, schedule="linear_beta", beta_start=1e-4, beta_end=0.02).alphas_cumprod
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["sigmoid", "cosine", "linear"])
def test_alpha_is_the_single_step(name: str) -> None:
    """The product of the single steps is alpha_bar, which falls all the way."""
    schedule = make_schedule(name, 200)  # type: ignore[arg-type]
    torch.testing.assert_close(schedule.alpha.cumprod(0), schedule.alpha_bar)
    assert (schedule.alpha_bar.diff() <= 0).all()
    assert schedule.alpha_bar[0] == 1


@pytest.mark.parametrize("kind", ["v", "v_step"])
def test_velocity_has_an_exact_inverse(kind: str) -> None:
    """Image and noise come back from x_t and the velocity at every time."""
    schedule = make_schedule("sigmoid", 1000)
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 12, 1, 3, 3, generator=generator)
    t = torch.tensor([1, 2, 10, 50, 100, 300, 500, 700, 900, 990, 999, 1000])
    noise = schedule.at(t)
    v = velocity(x0, eps, noise, kind)  # type: ignore[arg-type]
    found = split_velocity(diffuse(x0, eps, noise), v, noise, kind)  # type: ignore[arg-type]
    torch.testing.assert_close(found[0], x0, atol=2e-5, rtol=0)
    torch.testing.assert_close(found[1], eps, atol=2e-5, rtol=0)


def test_seed_velocity_as_written_out() -> None:
    """x0 = (sqrt(alpha) x_t - sqrt(1 - abar) v) / D with D = sqrt(alpha abar) + 1 - abar, by hand at one time."""
    schedule = make_schedule("sigmoid", 1000)
    t = 700
    a, ab = float(schedule.alpha[t]), float(schedule.alpha_bar[t])
    x_t, v = 0.7, -0.3
    d = math.sqrt(a * ab) + 1 - ab
    x0, eps = split_velocity(
        torch.full((1, 1, 1, 1), x_t), torch.full((1, 1, 1, 1), v), schedule.at(torch.tensor([t])), "v_step"
    )
    assert float(x0) == pytest.approx((math.sqrt(a) * x_t - math.sqrt(1 - ab) * v) / d, abs=1e-6)
    assert float(eps) == pytest.approx((math.sqrt(1 - ab) * x_t + math.sqrt(ab) * v) / d, abs=1e-6)


def test_the_two_velocities_differ_where_it_matters() -> None:
    """Near pure noise a network trained for one is useless under the other."""
    noise = make_schedule("sigmoid", 1000).at(torch.tensor([990]))
    x0, eps = torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), -0.5)
    assert abs(float(velocity(x0, eps, noise, "v") - velocity(x0, eps, noise, "v_step"))) > 0.4


@pytest.mark.parametrize(
    ("steps", "spacing"), [(1, 1.0), (4, 2.0), (10, 1.0), (250, 1.0), (1000, 1.0), (37, 2.0), (1000, 2.0)]
)
def test_time_pairs_walk_from_noise_to_image(steps: int, spacing: float) -> None:
    """The pairs join, fall strictly, start at T and end at 0."""
    pairs = time_pairs(1000, steps, spacing)
    assert len(pairs) == steps
    assert pairs[0][0] == 1000
    assert pairs[-1][1] == 0
    assert all(t > s for t, s in pairs)
    assert all(a[1] == b[0] for a, b in pairwise(pairs))


def test_even_times_are_even() -> None:
    """Spacing 1 is the evenly strided schedule; spacing 2 stays near noise longer."""
    assert time_pairs(1000, 4) == [(1000, 750), (750, 500), (500, 250), (250, 0)]
    assert time_pairs(1000, 4, 2.0) == [(1000, 938), (938, 750), (750, 438), (438, 0)]


def test_absurd_steps_are_refused() -> None:
    """Zero steps or more than there are times make no schedule."""
    for steps in (0, 1001):
        with pytest.raises(ValueError, match="between 1 and 1000"):
            time_pairs(1000, steps)
