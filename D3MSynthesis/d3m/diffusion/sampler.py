"""One reverse step with its deformation, and the loop over steps. Training differentiates through the same step.

| here | paper | meaning |
|---|---|---|
| `x_t`, `m_t` | x_t, m_t | noisy image and mask, model range, (N, 1, H, W) |
| `x0`, `m0` | x0_hat, m0_hat | data predictions |
| `eps`, `eps_mask` | eps_hat | noise predictions |
| `displacement` | u | field of the deformation module, pixels |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from d3m.diffusion.networks.slice import D3MNetwork
from d3m.diffusion.recipe import DiffusionRecipe, Solver
from d3m.diffusion.schedule import Noise, Schedule, split_velocity
from d3m.diffusion.warp import warp


@dataclass(frozen=True)
class Condition:
    """What the synthesis is conditioned on."""

    slices: Tensor
    """(N, channels, H, W) in [0, 1]: t1, t2, flair, further contrasts and maps of each slice of the context."""
    t1: Tensor
    """(N, 1, H, W) in [0, 1]: T1 of the slice itself."""
    brain: Tensor
    """(N, 1, H, W) bool: where there is something to synthesise."""
    mask: Tensor | None = None
    """(N, 1, H, W) in [0, 1]: enhancing tumour that is given; the mask stream is held to it. None: it is sampled."""


@dataclass(frozen=True)
class State:
    """Noisy image and mask at one time; for the second-order solver also the last data prediction."""

    x: Tensor
    m: Tensor
    previous: tuple[Tensor, Tensor, float] | None = None
    """(x0, m0, lambda) of the step before."""


@dataclass(frozen=True)
class Estimate:
    """What the network makes of a noisy state, with the deformation."""

    x0_before: Tensor
    """Data prediction before the warp."""
    x0: Tensor
    """Data prediction after the warp."""
    eps: Tensor
    m0_before: Tensor
    """Mask's data prediction before it is clamped and warped: what training must see, since a clamp has no gradient."""
    m0: Tensor
    """Mask's data prediction (after the warp where the recipe warps the mask), in [-amplitude, amplitude]."""
    eps_mask: Tensor
    displacement: Tensor
    """(N, 2, H, W) pixels."""
    velocity_image: Tensor
    """The velocities as they are compared with the truth: warped for `warp="velocity"`, else the network's."""
    velocity_mask: Tensor


def to_model_range(intensity: Tensor, recipe: DiffusionRecipe) -> Tensor:
    """Scaled intensity in [0, image_upper] to [-1, 1]."""
    return 2 * intensity / recipe.image_upper - 1


def to_intensity(image: Tensor, recipe: DiffusionRecipe) -> Tensor:
    """Model range to scaled intensity, clipped to [0, image_upper]."""
    return ((image + 1) * recipe.image_upper / 2).clamp(0, recipe.image_upper)


def to_mask_range(probability: Tensor, recipe: DiffusionRecipe) -> Tensor:
    """A value in [0, 1] as the mask's data: in [-amplitude, amplitude]."""
    return (2 * probability - 1) * recipe.mask_amplitude


def to_probability(m0: Tensor, recipe: DiffusionRecipe) -> Tensor:
    """The mask's data prediction as a value in [0, 1]."""
    return ((m0 / recipe.mask_amplitude + 1) / 2).clamp(0, 1)


Correction = Callable[[Estimate, State, Condition, Noise, DiffusionRecipe], Estimate]
"""What happens to an estimate after the deformation module: the warp at one of its places."""


def estimate(
    network: D3MNetwork,
    state: State,
    condition: Condition,
    t: Tensor,
    schedule: Schedule,
    recipe: DiffusionRecipe,
    correct: Correction | None = None,
) -> Estimate:
    """Data and noise predictions at time t, warped where `recipe.warp` says.

    Args:
        network: Its raw outputs are velocities, relative to T1 and to an empty mask with `image_skip`.
        state: Noisy image and mask, (N, 1, H, W).
        condition: Of the same slices.
        t: (N,) integer times.
        schedule: The model's.
        recipe: The model's.
        correct: In the place of the warp; for controls that ask what the warp is worth.
    """
    noise = schedule.at(t)
    raw_image, raw_mask = network(state.x, state.m, condition.slices, t)
    return estimate_from_outputs(network, raw_image, raw_mask, state, condition, noise, recipe, correct)


def estimate_from_outputs(
    network: D3MNetwork,
    raw_image: Tensor,
    raw_mask: Tensor,
    state: State,
    condition: Condition,
    noise: Noise,
    recipe: DiffusionRecipe,
    correct: Correction | None = None,
) -> Estimate:
    """As `estimate`, from the network's raw outputs: training has them together with others."""
    t1 = to_model_range(condition.t1, recipe)
    v_image, v_mask = raw_image, raw_mask
    if recipe.image_skip:  # raw 0 means: the image is T1, the mask is empty (exactly so at pure noise)
        v_image = raw_image - noise.noise * t1
        v_mask = raw_mask + noise.noise * recipe.mask_amplitude
    x0, eps = split_velocity(state.x, v_image, noise, recipe.image_velocity)
    m0, eps_mask = split_velocity(state.m, v_mask, noise, "v")
    if recipe.blank_outside:
        x0 = torch.where(condition.brain, x0, -1.0)
    m0_before, m0 = m0, m0.clamp(-recipe.mask_amplitude, recipe.mask_amplitude)
    if condition.mask is not None:
        m0 = to_mask_range(condition.mask, recipe)
        eps_mask = (state.m - noise.signal * m0) / noise.noise
    displacement = network.deform(m0 / recipe.mask_amplitude, x0.clamp(-1, 1), t1)
    unwarped = Estimate(x0, x0, eps, m0_before, m0, eps_mask, displacement, v_image, v_mask)
    corrected = (correct or _PLACEMENTS[recipe.warp])(unwarped, state, condition, noise, recipe)
    if condition.mask is not None:  # the warp moves the picture towards the given mask, never the mask itself
        corrected = replace(corrected, m0=m0, eps_mask=eps_mask)
    return corrected


def _warp_step(e: Estimate, _state: State, _condition: Condition, _noise: Noise, recipe: DiffusionRecipe) -> Estimate:
    """The sum sqrt(abar_s) x0 + sqrt(1 - abar_s) eps is warped; the warp is linear, so both terms are."""
    if recipe.warp_mask:
        m0, eps_mask = warp(torch.cat([e.m0, e.eps_mask], dim=1), e.displacement).chunk(2, dim=1)
        e = replace(e, m0=m0, eps_mask=eps_mask)
    x0, eps = warp(torch.cat([e.x0, e.eps], dim=1), e.displacement).chunk(2, dim=1)
    return replace(e, x0=x0, eps=eps)


def _warp_velocity(e: Estimate, state: State, _condition: Condition, noise: Noise, recipe: DiffusionRecipe) -> Estimate:
    """The predicted velocities are warped; data and noise follow from them."""
    v_image = warp(e.velocity_image, e.displacement)
    x0, eps = split_velocity(state.x, v_image, noise, recipe.image_velocity)
    e = replace(e, x0=x0, eps=eps, velocity_image=v_image)
    if recipe.warp_mask:
        v_mask = warp(e.velocity_mask, e.displacement)
        m0, eps_mask = split_velocity(state.m, v_mask, noise, "v")
        m0 = m0.clamp(-recipe.mask_amplitude, recipe.mask_amplitude)
        e = replace(e, m0=m0, eps_mask=eps_mask, velocity_mask=v_mask)
    return e


def _warp_x0(e: Estimate, state: State, _condition: Condition, noise: Noise, recipe: DiffusionRecipe) -> Estimate:
    """The data prediction is warped; the noise follows from x_t and it."""
    return _with_x0(e, warp(e.x0.clamp(-1, 1), e.displacement), state, noise, recipe)


def _warp_enhancement(
    e: Estimate, state: State, condition: Condition, noise: Noise, recipe: DiffusionRecipe
) -> Estimate:
    """What the data prediction adds to T1 is warped: x0 = T1 + phi_u(x0_hat - T1). The anatomy stays where T1 has it.

    [ours]
    """
    t1 = to_model_range(condition.t1, recipe)
    return _with_x0(e, move_enhancement(e.x0.clamp(-1, 1), t1, e.displacement), state, noise, recipe)


def move_enhancement(image: Tensor, t1: Tensor, displacement: Tensor) -> Tensor:
    """T1 + phi_u(image - T1): the enhancement moves, the anatomy stays.

    Args:
        image: (N, 1, H, W), synthetic T1c, any scale.
        t1: Likewise, on the same scale.
        displacement: (N, 2, H, W), pixels.
    """
    return t1 + warp(image - t1, displacement)


def _with_x0(e: Estimate, x0: Tensor, state: State, noise: Noise, recipe: DiffusionRecipe) -> Estimate:
    """The estimate with a corrected data prediction; the mask moves along where the recipe warps it."""
    eps = (state.x - noise.signal * x0) / noise.noise
    m0 = warp(e.m0, e.displacement) if recipe.warp_mask else e.m0
    eps_mask = (state.m - noise.signal * m0) / noise.noise
    return replace(e, x0=x0, eps=eps, m0=m0, eps_mask=eps_mask)


_PLACEMENTS: dict[str, Correction] = {
    "step": _warp_step,
    "velocity": _warp_velocity,
    "x0": _warp_x0,
    "enhancement": _warp_enhancement,
}


def ddim(_state: State, e: Estimate, _t: int, s: int, schedule: Schedule) -> State:
    """x_s = sqrt(abar_s) x0 + sqrt(1 - abar_s) eps (Song et al. 2021, arXiv:2010.02502, eq. 12, eta = 0)."""
    signal, noise = float(schedule.alpha_bar[s].sqrt()), float((1 - schedule.alpha_bar[s]).sqrt())
    return State(signal * e.x0 + noise * e.eps, signal * e.m0 + noise * e.eps_mask)


def dpmpp_2m(state: State, e: Estimate, t: int, s: int, schedule: Schedule) -> State:
    """DPM-Solver++(2M) in data prediction (Lu et al. 2022, arXiv:2211.01095, algorithm 2).

    With lambda = log(alpha / sigma), h = lambda_s - lambda_t and r = h_before / h the data prediction is
    D = (1 + 1 / 2r) x0 - 1 / 2r x0_before and x_s = (sigma_s / sigma_t) x_t - alpha_s (exp(-h) - 1) D.
    The step to s = 0 is D itself, of first order.
    """
    alpha_bar_t, alpha_bar_s = schedule.alpha_bar[t], schedule.alpha_bar[s]
    log_snr_t = float((alpha_bar_t / (1 - alpha_bar_t)).log() / 2)
    if s == 0:
        return State(e.x0, e.m0, (e.x0, e.m0, log_snr_t))
    h = float((alpha_bar_s / (1 - alpha_bar_s)).log() / 2) - log_snr_t
    data, mask = e.x0, e.m0
    if state.previous is not None:
        weight = h / (2 * (log_snr_t - state.previous[2]))
        data = (1 + weight) * e.x0 - weight * state.previous[0]
        mask = (1 + weight) * e.m0 - weight * state.previous[1]
    decay = float(((1 - alpha_bar_s) / (1 - alpha_bar_t)).sqrt())
    gain = float(alpha_bar_s.sqrt()) * -float(torch.expm1(torch.tensor(-h, dtype=torch.float64)))
    return State(decay * state.x + gain * data, decay * state.m + gain * mask, (e.x0, e.m0, log_snr_t))


_SOLVERS: dict[Solver, Callable[[State, Estimate, int, int, Schedule], State]] = {"ddim": ddim, "dpmpp_2m": dpmpp_2m}


@dataclass(frozen=True)
class Step:
    """One reverse step that has been taken, from time t to s."""

    index: int
    """Steps done, this one included."""
    t: int
    s: int
    estimate: Estimate
    state: State
    """At time s."""


def reverse(
    network: D3MNetwork,
    state: State,
    condition: Condition,
    pairs: Iterable[tuple[int, int]],
    schedule: Schedule,
    recipe: DiffusionRecipe,
    solver: Solver = "ddim",
    correct: Correction | None = None,
) -> Iterator[Step]:
    """Walk through the reverse process; the caller takes what it wants of each step.

    Args:
        network: See `estimate`.
        state: At the time of the first pair, usually pure noise.
        condition: Of the same slices.
        pairs: (t, s), from `time_pairs`.
        schedule: The model's.
        recipe: The model's.
        solver: "ddim" or "dpmpp_2m".
        correct: See `estimate`.

    Yields:
        A `Step` after each pair; the last one's estimate is the result.
    """
    advance = _SOLVERS[solver]
    own_noise = state.m
    for index, (t, s) in enumerate(pairs, start=1):
        if condition.mask is not None:
            state = replace(state, m=_held(condition.mask, own_noise, schedule.alpha_bar[t], recipe))
        times = torch.full((len(state.x),), t, device=state.x.device)
        e = estimate(network, state, condition, times, schedule, recipe, correct)
        state = advance(state, e, t, s, schedule)
        yield Step(index, t, s, e, state)


def _held(mask: Tensor, noise: Tensor, alpha_bar: Tensor, recipe: DiffusionRecipe) -> Tensor:
    """A given mask at one time of the forward process: sqrt(abar_t) m0 + sqrt(1 - abar_t) eps, with one eps for all.

    As in RePaint (Lugmayr et al. 2022, arXiv:2201.09865, eq. 8a), for the whole of the mask's stream.
    """
    return float(alpha_bar.sqrt()) * to_mask_range(mask, recipe) + float((1 - alpha_bar).sqrt()) * noise


def shared_noise(shape: tuple[int, int], seed: int, device: torch.device) -> State:
    """Initial noise of one slice, the same for every slice of a volume and on every device.

    Sharing it halves the flicker between neighbouring slices.

    Args:
        shape: (H, W).
        seed: Decides it.
        device: Where the result lies; the numbers are drawn on the CPU.

    Returns:
        State with x and m of shape (1, 1, H, W).
    """
    generator = torch.Generator().manual_seed(seed)
    x, m = torch.randn(2, 1, 1, *shape, generator=generator)
    return State(x.to(device), m.to(device))


def gather_context(slices: Tensor, brain: Tensor, index: Tensor, context: tuple[int, ...]) -> Condition:
    """The condition of some slices of a volume; beyond its ends the outermost slice is repeated.

    Args:
        slices: (S, C, H, W); t1 first.
        brain: (S, H, W) bool.
        index: (N,) slices to be synthesised.
        context: Offsets in slices.
    """
    offsets = torch.tensor(context, device=index.device)
    wanted = (index[:, None] + offsets).clamp(0, len(slices) - 1)
    gathered = slices[wanted]  # (N, context, C, H, W)
    return Condition(gathered.flatten(1, 2), slices[index, :1], brain[index][:, None])
