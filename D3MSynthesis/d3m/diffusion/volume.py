"""Sampling a whole volume, slice batch by slice batch; tensors in, tensors out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from d3m.diffusion.alone import each_alone
from d3m.diffusion.networks.slice import D3MNetwork
from d3m.diffusion.recipe import DiffusionRecipe, Sampling
from d3m.diffusion.sampler import (
    Condition,
    State,
    Step,
    gather_context,
    reverse,
    shared_noise,
    to_intensity,
    to_probability,
)
from d3m.diffusion.schedule import make_schedule, time_pairs
from d3m.errors import is_out_of_memory

CPU = torch.device("cpu")
ALONE = ("cpu",)
"""Kinds of devices on which slices are computed apart from each other; on others that would take many times as long."""


@dataclass(frozen=True)
class SampledStep:
    """A reverse step of a whole volume, on the CPU."""

    before: Tensor
    """(S, H, W) scaled intensity before the warp; 0 outside the brain."""
    after: Tensor
    """(S, H, W) after it."""
    probability: Tensor
    """(S, H, W) of the mask, 0 to 1."""
    displacement: Tensor
    """(S, 2, H, W) pixels."""


@dataclass(frozen=True)
class VolumeSample:
    """A sampled volume, on the CPU; with several samples image and probability are their mean."""

    image: Tensor
    """(S, H, W) scaled intensity, 0 outside the brain."""
    spread: Tensor | None
    """(S, H, W) standard deviation over the samples; None for a single one."""
    probability: Tensor
    """(S, H, W) of enhancing tumour, 0 to 1, mean over the samples."""
    first: Tensor
    """(S, H, W) scaled intensity of the first sample by itself, after its last warp."""
    displacement: Tensor
    """(S, 2, H, W) pixels, of the first sample's last step."""
    trace: tuple[SampledStep, ...]
    """Every step of the first sample, the last included; empty if not asked for."""
    counts: tuple[int, ...] = ()
    """Of each sample the voxels of the brain with a probability at or above `VolumeSampler.threshold`."""
    batch: int = 1
    """Slices in one call of the network; with the device and the seed it decides the last bits."""


@dataclass(frozen=True)
class VolumeSampler:
    """How a volume is sampled.

    On a CPU the same seed gives the same volume bit for bit, whatever `batch` and the number of threads: `together`
    slices are computed alone (see `d3m.diffusion.alone`). Elsewhere the bits also depend on `VolumeSample.batch`.

    Args and attributes: see the fields.
    """

    network: D3MNetwork
    recipe: DiffusionRecipe
    context: tuple[int, ...]
    """Slices of the condition, relative to the one synthesised."""
    sampling: Sampling
    seed: int = 0
    """Decides the noise."""
    batch: int = 8
    """Slices at once; halved when memory runs out. On a CPU each, or `together` of them, has a thread of its own (no
    more than torch may use), and what is done stays done; elsewhere they are one call of the network, and with half as
    many all begins again."""
    trace: bool = False
    device: torch.device = CPU

    threshold: float = 0.5
    """Probability from which on voxels are counted, sample by sample."""
    mask: Tensor | None = None
    """(S, H, W) in [0, 1], on the CPU: enhancing tumour that the mask's stream is held to; None: it is sampled."""
    together: int = 1
    """Slices in one call of the network on a CPU."""
    own_probability: bool = False
    """Whether the probability is what the network says by itself, also where a mask is given."""

    def __call__(self, slices: Tensor, brain: Tensor, on_step: Callable[[int], None] | None = None) -> VolumeSample:
        """Sample a volume.

        Args:
            slices: (S, C, H, W) in [0, 1] on the CPU; t1, t2, flair and, if the network takes them, further
                contrasts and maps.
            brain: (S, H, W) bool; slices without brain are not sampled.
            on_step: Called after each reverse step of a batch of slices with the number of slice steps done,
                out of `slice_steps(brain)`; may raise to end the run.

        Raises:
            torch.OutOfMemoryError, RuntimeError: a single slice does not fit into memory.
        """
        with _repeatable(self.device):
            return self._in_memory(slices, brain, on_step)

    def _in_memory(self, slices: Tensor, brain: Tensor, on_step: Callable[[int], None] | None) -> VolumeSample:
        """With as many slices at once as there is memory for."""
        batch = self.batch
        while True:
            try:
                return self._samples(slices, brain, batch, _Counter(on_step))
            except (RuntimeError, MemoryError) as error:  # of both kinds: torch.OutOfMemoryError
                if not is_out_of_memory(error) or batch == 1 or self.device.type in ALONE:
                    raise
            # only here, where the error with its hold on everything that the network had made is gone
            batch //= 2
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _samples(self, slices: Tensor, brain: Tensor, batch: int, counter: _Counter) -> VolumeSample:
        mean, probability = torch.zeros(brain.shape), torch.zeros(brain.shape)
        square = torch.zeros(brain.shape) if self.sampling.samples > 1 else None
        first: VolumeSample | None = None
        counts = []
        for k in range(self.sampling.samples):
            if self.sampling.mirrored and k % 2:
                sample = self._mirrored_sample(slices, brain, self.seed + k, batch, counter)
            else:
                sample = self._sample(slices, brain, self.seed + k, batch, self.trace and k == 0, counter)
            first = first or sample
            delta = sample.image - mean  # Welford: no sum of squares that cancels
            mean += delta / (k + 1)
            counts.append(int(((sample.probability >= self.threshold) & brain).sum()))
            probability += (sample.probability - probability) / (k + 1)
            if square is not None:
                square += delta * (sample.image - mean)
        assert first is not None  # samples >= 1
        spread = None if square is None else (square / (self.sampling.samples - 1)).sqrt()
        return replace(first, image=mean, spread=spread, probability=probability, counts=tuple(counts))

    def slice_steps(self, brain: Tensor) -> int:
        """Reverse steps of single slices in all: what `on_step` counts up to."""
        return len(self._computed(brain)) * self.sampling.steps * self.sampling.samples

    def _computed(self, brain: Tensor) -> Tensor:
        """(N,) the slices that the network sees: of those with brain every `slice_interval`-th, and the last."""
        wanted = torch.nonzero(brain.flatten(1).any(dim=1))[:, 0]
        chosen = wanted[:: self.sampling.slice_interval]
        return chosen if len(chosen) == 0 or chosen[-1] == wanted[-1] else torch.cat([chosen, wanted[-1:]])

    def _mirrored_sample(self, slices: Tensor, brain: Tensor, seed: int, batch: int, counter: _Counter) -> VolumeSample:
        """Of the mirror image, turned back; image and probability alone, since the field is the first sample's."""
        sampler = self if self.mask is None else replace(self, mask=self.mask.flip(-1))
        sample = sampler._sample(slices.flip(-1), brain.flip(-1), seed, batch, False, counter)
        return replace(sample, image=sample.image.flip(-1), probability=sample.probability.flip(-1))

    def _sample(
        self, slices: Tensor, brain: Tensor, seed: int, batch: int, trace: bool, counter: _Counter
    ) -> VolumeSample:
        kept = self.sampling.steps if trace else 1
        traced = [_nothing_yet(brain.shape) for _ in range(kept)]
        wanted = self._computed(brain)

        alone = self.device.type in ALONE
        threads = min(batch, torch.get_num_threads())
        batch = self.together if alone else batch

        def steps(start: int) -> Iterator[int]:
            """The reverse steps of a batch of slices, and as many steps of single slices."""
            index = wanted[start : start + batch]
            # filled up, since the number of slices in a call shows in the last bits of each
            filled = torch.cat([index, index[-1:].expand(batch - len(index))])
            for step in self._steps(slices, brain, filled, seed):
                if trace or step.index == self.sampling.steps:
                    self._store(traced[step.index - 1 if trace else 0], step, index, brain)
                yield len(index)

        starts = range(0, len(wanted), batch)
        if alone:
            each_alone(steps, starts, threads, counter.add)
        else:
            for count in itertools.chain.from_iterable(map(steps, starts)):
                counter.add(count)
        if self.sampling.slice_interval > 1:
            for one in traced:
                interpolate_between(one, wanted, slices[:, 0], brain)
        last = traced[-1]
        every = tuple(traced) if trace else ()
        return VolumeSample(last.after, None, last.probability, last.after, last.displacement, every, batch=batch)

    def _steps(self, slices: Tensor, brain: Tensor, index: Tensor, seed: int) -> Iterator[Step]:
        """The reverse steps of some slices."""
        on_cpu = gather_context(slices, brain, index, self.context)
        held = None if self.mask is None else self.mask[index][:, None].to(self.device)
        scans, t1, inside = (part.to(self.device) for part in (on_cpu.slices, on_cpu.t1, on_cpu.brain))
        condition = Condition(scans, t1, inside, held)
        noise = shared_noise((slices.shape[2], slices.shape[3]), seed, self.device)
        shape = (len(index), 1, *slices.shape[2:])
        state = State(noise.x.expand(shape), noise.m.expand(shape))
        pairs = time_pairs(self.recipe.timesteps, self.sampling.steps, self.recipe.time_spacing)
        schedule = make_schedule(self.recipe.schedule, self.recipe.timesteps)
        return reverse(self.network, state, condition, pairs, schedule, self.recipe, self.sampling.solver)

    def _store(self, into: SampledStep, step: Step, index: Tensor, brain: Tensor) -> None:
        """Keep what a step made of the first `len(index)` slices."""
        e, inside, count = step.estimate, brain[index], len(index)
        into.before[index] = to_intensity(e.x0_before, self.recipe)[:count, 0].cpu() * inside
        into.after[index] = to_intensity(e.x0, self.recipe)[:count, 0].cpu() * inside
        mask = e.m0_before if self.own_probability else e.m0
        into.probability[index] = to_probability(mask, self.recipe)[:count, 0].cpu() * inside
        into.displacement[index] = e.displacement[:count].cpu()


def _nothing_yet(shape: tuple[int, ...]) -> SampledStep:
    """A step of a volume of (S, H, W), to be filled slice by slice."""
    before, after, probability = (torch.zeros(shape) for _ in range(3))
    return SampledStep(before, after, probability, torch.zeros(shape[0], 2, *shape[1:]))


def interpolate_between(step: SampledStep, computed: Tensor, t1: Tensor, brain: Tensor) -> None:
    """Fill the slices between those that were computed, each from its two neighbours, by distance.

    Of the images it is the difference from T1 that is interpolated, since T1 itself is known everywhere. What is not
    brain in a neighbour does not count; where neither is brain there, T1 and an empty mask remain.

    Args:
        step: Is changed.
        computed: (N,) slices, ascending.
        t1: (S, H, W), scaled like the images.
        brain: (S, H, W) bool.
    """
    for low, high in itertools.pairwise(computed.tolist()):
        for index in range(low + 1, high):
            share = (index - low) / (high - low)
            weights = torch.stack([(1 - share) * brain[low], share * brain[high]])
            weights = weights / weights.sum(0).clamp(min=1e-6) * brain[index]
            for image in (step.before, step.after):
                difference = (weights * (image[[low, high]] - t1[[low, high]])).sum(0)
                image[index] = (t1[index] + difference) * brain[index]
            step.probability[index] = (weights * step.probability[[low, high]]).sum(0)
            step.displacement[index] = torch.lerp(step.displacement[low], step.displacement[high], share)


@contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """Let cuDNN take the same algorithm each time, instead of the one that is fastest at the moment."""
    backend: Any = torch.backends.cudnn
    before = backend.benchmark, backend.deterministic
    if device.type == "cuda":
        backend.benchmark, backend.deterministic = False, True
    try:
        yield
    finally:
        if device.type == "cuda":
            backend.benchmark, backend.deterministic = before


class _Counter:
    """Counts slice steps and tells them."""

    def __init__(self, on_step: Callable[[int], None] | None) -> None:
        self.done = 0
        self._on_step = on_step

    def add(self, count: int) -> None:
        self.done += count
        if self._on_step is not None:
            self._on_step(self.done)
