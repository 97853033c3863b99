"""Three volumes in, a result out: the only place where volumes, models and diffusion meet."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from d3m.diffusion.networks.slice import slice_memory_mb, together_on_cpu
from d3m.diffusion.networks.whole_brain import POOLING, WholeBrainMaps, contrasts_of
from d3m.diffusion.recipe import REGIONS, Sampling
from d3m.diffusion.volume import SampledStep, VolumeSample, VolumeSampler
from d3m.errors import D3MError, Notice
from d3m.models.card import Card
from d3m.models.expected_error import EXPECTED_ERROR, SPREAD
from d3m.models.load import Model, load_model
from d3m.models.needs import check_further, check_missing
from d3m.models.patient import PatientEstimate, patient_features
from d3m.models.placed import Placed
from d3m.options import SynthesisOptions, check_range
from d3m.progress import Progress, ProgressCallback, Remaining, ignore_progress
from d3m.system.devices import all_memory, free_memory
from d3m.system.text import plain
from d3m.volumes.error_features import error_features
from d3m.volumes.geometry import volume_ml, voxel_mm3
from d3m.volumes.grid import (
    displacement_mm,
    mean_over_slices,
    restore_cemri,
    to_model_input,
    to_t1_grid,
    volume_from_slices,
)
from d3m.volumes.input_check import check
from d3m.volumes.steering import follow
from d3m.volumes.types import CONTRASTS, Case, Floats, Mask, ModelGrid, ModelInput, Volume

MAX_BATCH = 64
"""Slices at once on a GPU; more do not make it faster."""
OTHER_BATCH = 8
"""Slices at once on a device that does not tell its memory."""

PREVIEW_MEMBERS = 1
"""Members of the whole-brain stage that quality "preview" asks: a second or two instead of several."""
BEGIN_FRACTION, SLICES_FRACTION = 0.05, 0.3
"""Share of a run that is done when the scans are on the grid, and when the whole brain has been looked at."""


@dataclass(frozen=True)
class Computation:
    """How a result was computed; with model, input and options it decides the last bit of it."""

    solver: str
    device: str
    """The one that was used, such as "cuda:0"."""
    precision: str
    """Number format of the convolutions."""
    batch: int
    """Slices in one call of the network; on a CPU always as many, and the number of threads does not matter either."""
    mirrored: bool
    """Whether every other sample is of the mirror image."""


@dataclass(frozen=True)
class Steering:
    """A mask of the enhancing tumour that a person gave."""

    sha256: str
    """Content hash of its file."""
    way: str
    """"stream": the mask's stream was held to it; "composed": the picture was changed by `d3m.volumes.steering`, after
    the deformation had followed the mask if the recipe moves the enhancement alone."""
    predicted_volume_ml: float | None
    """What the model by itself would have marked; None where its stream was held."""


@dataclass(frozen=True)
class Timings:
    """Seconds spent."""

    prepare: float
    sample: float
    restore: float


@dataclass(frozen=True)
class TraceStep:
    """One reverse step on the model's grid."""

    steps_done: int
    before: Floats
    """(W, H, S) in T1's units, before the warp."""
    after: Floats
    """(W, H, S) in T1's units, after it."""
    mask: Floats
    """(W, H, S) probability of enhancing tumour."""
    displacement: Floats
    """(W, H, S, 3) RAS millimetres, output point to input point."""


@dataclass(frozen=True)
class Result:
    """A synthetic CEMRI and what belongs to it; for research use only."""

    cemri: Floats
    """(X, Y, Z) on T1's grid, T1's units; T1 itself outside the brain."""
    subtraction: Floats
    """(X, Y, Z) CEMRI minus T1: what enhances."""
    enhancement_probability: Floats
    """(X, Y, Z), 0 to 1."""
    enhancement_mask: Mask
    """(X, Y, Z), probability at or above the card's threshold; or the mask that a person gave."""
    first_sample: Floats
    """(W, H, S) on `grid`, T1's units: the first sample by itself, before mean, gain and smoothing; the image that
    `displacement` and `trace` end in."""
    displacement: Floats
    """(W, H, S, 3) RAS millimetres on `grid`, output point to input point; of the first sample's last step."""
    uncertainty: Floats | None
    """(X, Y, Z) in T1's units: the expected absolute error where the model's card says how it follows, else the
    standard deviation over the samples (see `uncertainty_is`); None for one sample."""
    trace: tuple[TraceStep, ...]
    t1: Volume
    brain: Mask
    """(X, Y, Z)."""
    grid: ModelGrid
    notices: tuple[Notice, ...]
    enhancing_volume_ml: float
    options: SynthesisOptions
    """As they were asked for, but with steps, samples and slice interval filled in."""
    computation: Computation
    timings: Timings
    model_name: str
    model_sha256: str
    uncertainty_is: str = SPREAD
    """`SPREAD` or `EXPECTED_ERROR`."""
    sample_volumes_ml: tuple[float, ...] = ()
    """Enhancing tumour of each sample by itself, on the model's grid: how much repeated synthesis varies."""
    patient: PatientEstimate | None = None
    """Whether and how much enhances; None where the model's card has no calibration, or a person gave the mask."""
    whole_tumour_probability: Floats | None = None
    """(X, Y, Z), 0 to 1, from the whole brain at 2 mm; None where the model has no whole-brain stage."""
    steering: Steering | None = None
    """How the picture follows a mask that a person gave; None: the model predicted the mask."""
    whole_brain_sha256: str = ""
    """Of the whole-brain stage's weights; empty where the model has none."""
    missing: tuple[str, ...] = ()
    """Contrasts that the model takes and the case lacks."""


class Synthesis:
    """Makes results from cases with one loaded model.

    Args:
        model: Loaded; moved to the device.
        options: Quality, seed, device, ...; `model` in them is not looked at: see `load`.

    Raises:
        D3MError: more steps than the model's schedule has; a device that is not there.
    """

    def __init__(self, model: Model, options: SynthesisOptions | None = None) -> None:
        recipe, options = model.card.recipe, options or SynthesisOptions()
        self.sampling = _sampling(recipe.quality(options.quality), options, recipe.diffusion.timesteps)
        chosen = {name: getattr(self.sampling, name) for name in ("steps", "samples", "slice_interval")}
        self.options = replace(options, **chosen)
        self.on = Placed(model, options.device)
        self._own_notices = self.on.notices
        most = max(one.steps for one in recipe.qualities)
        if self.sampling.steps > most:
            text = f"{self.sampling.steps} steps are more than this model's best quality takes ({most}): expect noise."
            self._own_notices += (Notice("many-steps", text),)
        self.model = model

    @classmethod
    def load(cls, options: SynthesisOptions) -> Synthesis:
        """With the model that the options name.

        Raises:
            D3MError: there is no such model, it is damaged; what `Synthesis` raises.
        """
        return cls(load_model(options.model), options)

    def prepare(self, case: Case) -> ModelInput:
        """The case on the model's grid."""
        card = self.model.card
        return to_model_input(case, card.recipe.grid, self.on.network.stride, card.contrasts)

    def run(self, case: Case, progress: ProgressCallback = ignore_progress) -> Result:
        """Synthesise the CEMRI of one case.

        Args:
            case: Checked scans of one patient, with the brain.
            progress: Told about each step; may raise to end the run.

        Raises:
            D3MError: the scans cannot be put on the grid; not enough memory; the model gives no finite numbers.
        """
        check_missing(self.model.card, case.missing)
        check_further(self.model.card, case.further)
        remaining = Remaining()
        started = time.monotonic()
        progress(Progress("prepare", 0.0, message="Putting the scans on the model's grid"))
        model_input = self.prepare(case)
        usual = self.model.card.input_check
        unusual = () if usual is None else check(case, model_input, usual)
        prepared = time.monotonic()
        (maps, sample), notices = self._sample(model_input, progress, remaining)
        sampled = time.monotonic()
        progress(Progress("restore", 0.97, eta_s=remaining(0.97), message="Bringing the result back onto T1's grid"))
        with torch.inference_mode():
            result = self._result(case, model_input, sample, maps)
        timings = Timings(prepared - started, sampled - prepared, time.monotonic() - sampled)
        return replace(
            result,
            timings=timings,
            notices=(
                *model_input.notices,
                *_without(self.model.card, case),
                *unusual,
                *self._own_notices,
                *notices,
                *result.notices,
            ),
        )

    def _sample(
        self, model_input: ModelInput, progress: ProgressCallback, remaining: Remaining
    ) -> tuple[tuple[WholeBrainMaps | None, VolumeSample], tuple[Notice, ...]]:
        """Compute on the device; `auto` continues on the CPU when a GPU fails or cannot hold a single slice."""
        try:
            return self._sample_on(model_input, progress, remaining), ()
        except FloatingPointError as error:
            raise D3MError(
                f"The model {plain(self.model.card.name)!r} gives no finite numbers on these scans ({error}).",
                "Get the model's folder again, or choose another --model; on a GPU try --device cpu.",
            ) from error
        except (RuntimeError, MemoryError) as error:  # of both kinds: torch.OutOfMemoryError
            notice = self.on.fall_back(error)
        return self._sample_on(model_input, progress, remaining), (notice,)

    def _sample_on(
        self, model_input: ModelInput, progress: ProgressCallback, remaining: Remaining
    ) -> tuple[WholeBrainMaps | None, VolumeSample]:
        maps = None if self.on.whole_brain is None else self._look_at_whole_brain(model_input, progress, remaining)
        begin = BEGIN_FRACTION if maps is None else SLICES_FRACTION
        recipe = self.model.card.recipe
        sampler = VolumeSampler(
            self.on.network,
            recipe.diffusion,
            recipe.network.context,
            self.sampling,
            self.options.seed,
            self._batch(model_input),
            self.options.trace,
            self.on.device,
            threshold=self.model.card.mask_threshold,
            together=together_on_cpu(recipe.network),
        )
        # where the enhancement alone is moved, the field brings what the model painted to where the mask wants it
        follows = self.model.card.mask_steering or recipe.diffusion.warp == "enhancement"
        if model_input.given_mask is not None and follows:
            given = torch.from_numpy(model_input.given_mask)
            sampler = replace(sampler, mask=given, own_probability=not self.model.card.mask_steering)
        brain, slices = torch.from_numpy(model_input.brain), torch.from_numpy(model_input.slices)
        if maps is not None and recipe.network.maps:
            slices = torch.cat([slices, maps.probability.transpose(0, 1)], dim=1)
        total, steps = sampler.slice_steps(brain), self.sampling.steps * self.sampling.samples

        def on_step(done: int) -> None:
            fraction = begin + (0.95 - begin) * done / total
            step = done * steps // total
            progress(Progress("sample", fraction, step, steps, remaining(fraction), "Computing the slices"))

        with torch.inference_mode():
            return maps, sampler(slices, brain, on_step)

    def _look_at_whole_brain(
        self, model_input: ModelInput, progress: ProgressCallback, remaining: Remaining
    ) -> WholeBrainMaps:
        """What the whole-brain stage says, on the model's grid."""
        stage = self.on.whole_brain
        assert stage is not None  # the caller asked
        members = PREVIEW_MEMBERS if self.options.quality == "preview" else None

        def on_pass(done: int) -> None:
            fraction = BEGIN_FRACTION + (SLICES_FRACTION - BEGIN_FRACTION) * done / stage.passes(members)
            progress(Progress("sample", fraction, eta_s=remaining(fraction), message="Looking at the whole brain"))

        slices = torch.from_numpy(model_input.slices[:, : len(CONTRASTS)])
        with torch.inference_mode():
            return stage.predict(
                slices,
                torch.from_numpy(model_input.brain),
                contrasts_of(slices),
                _slices_spacing(model_input.grid),
                members,
                device=self.on.device,
                dtype=self.on.dtype,
                on_pass=on_pass,
            )

    def _batch(self, model_input: ModelInput) -> int:
        """Slices, or on a CPU calls with slices, at once: what half of the memory holds.

        A GPU counts with all of its memory, what other programs have of it too: the number shows in the last bits.
        """
        pixels = model_input.slices.shape[2] * model_input.slices.shape[3]
        slice_bytes = slice_memory_mb(self.model.card.recipe.network, pixels) * 2**20
        if self.on.device.type == "cpu":
            free, most = free_memory(self.on.device), torch.get_num_threads()
            slice_bytes *= together_on_cpu(self.model.card.recipe.network)
        elif self.on.device.type == "cuda":
            free, most = all_memory(self.on.device), MAX_BATCH
        else:
            free, most = None, OTHER_BATCH
        return most if free is None else int(np.clip(free / 2 // slice_bytes, 1, most))

    def _patient(
        self, model_input: ModelInput, maps: WholeBrainMaps | None, case: Case, probability: Floats
    ) -> PatientEstimate | None:
        """Whether and how much enhances, if the model's card says how that follows from the maps or from the mask's
        probability, which says nothing where a person has given the mask."""
        card = self.model.card
        if maps is not None and card.whole_brain is not None and card.whole_brain.calibration is not None:
            voxel_ml = float(np.prod(model_input.grid.spacing)) * POOLING**3 / 1000
            features = patient_features(maps.enhancing_members.mean(0).numpy(), voxel_ml)
            return card.whole_brain.calibration.estimate(features)
        if card.patient_calibration is None or case.given_mask is not None:
            return None
        features = patient_features(probability[case.brain], voxel_mm3(case.t1.affine) / 1000)
        return card.patient_calibration.estimate(features)

    def _result(self, case: Case, model_input: ModelInput, sample: VolumeSample, maps: WholeBrainMaps | None) -> Result:
        grid, card = model_input.grid, self.model.card
        low, high = model_input.scales[0]
        t1, image, gain = model_input.slices[:, 0], sample.image.numpy(), 1.0
        if card.recipe.grid.target == "t1_scale":
            gain = card.enhancement_gain
            image = t1 + gain * mean_over_slices(image - t1, model_input.brain, card.slice_sigma)
        smoothed = mean_over_slices(sample.probability.numpy(), model_input.brain, card.slice_sigma)
        probability = np.where(case.brain, to_t1_grid(smoothed, grid), 0).astype(np.float32, copy=False)
        mask = probability >= card.mask_threshold
        steering = None
        if case.given_mask is not None and model_input.given_mask is not None:
            predicted = None if card.mask_steering else _millilitres(mask, case.t1)
            if not card.mask_steering:
                image = follow(image, t1, smoothed, model_input.given_mask, card.mask_threshold)
            way = "stream" if card.mask_steering else "composed"
            steering = Steering(case.given_mask_sha256, way, predicted)
            mask, probability = case.given_mask, case.given_mask.astype(np.float32)
        cemri = restore_cemri(image, model_input, case.t1, case.brain)
        uncertainty = None
        if sample.spread is not None:
            uncertain = np.float32(gain) * sample.spread.numpy()
            if card.expected_error is not None:
                features = error_features(model_input.slices, image - t1, uncertain, model_input.brain)
                uncertain = card.expected_error(features)
            uncertainty = np.where(case.brain, to_t1_grid(uncertain, grid) * (high - low), 0).astype(
                np.float32, copy=False
            )
        volume_ml = _millilitres(mask, case.t1)
        patient, tumour = self._patient(model_input, maps, case, probability), None
        if maps is not None:
            tumour = to_t1_grid(maps.probability[REGIONS.index("whole_tumour")].numpy(), grid)
            tumour = np.where(case.brain, tumour, 0).astype(np.float32, copy=False)
        notices = () if mask.any() else (Notice("no-enhancement", "The model predicts no enhancing tumour."),)
        if steering is not None:
            notices = (_given_notice(steering, volume_ml),)
        return Result(
            cemri=cemri,
            subtraction=cemri - case.t1.data,
            enhancement_probability=probability,
            enhancement_mask=mask,
            first_sample=_in_t1_units(sample.first, model_input),
            displacement=displacement_mm(_inside(sample.displacement, model_input), grid),
            uncertainty=uncertainty,
            trace=tuple(self._trace_step(k, step, model_input) for k, step in enumerate(sample.trace, start=1)),
            t1=case.t1,
            brain=case.brain,
            grid=grid,
            notices=notices,
            enhancing_volume_ml=volume_ml,
            options=self.options,
            computation=Computation(
                self.sampling.solver,
                str(self.on.device),
                str(self.on.dtype).removeprefix("torch."),
                sample.batch,
                self.sampling.mirrored,
            ),
            timings=Timings(0, 0, 0),
            model_name=card.name,
            model_sha256=card.weights_sha256,
            uncertainty_is=SPREAD if card.expected_error is None else EXPECTED_ERROR,
            sample_volumes_ml=tuple(count * float(np.prod(grid.spacing)) / 1000 for count in sample.counts),
            patient=patient,
            steering=steering,
            whole_tumour_probability=tumour,
            whole_brain_sha256=card.whole_brain.weights_sha256 if card.whole_brain else "",
            missing=_missing(card, case),
        )

    def _trace_step(self, done: int, step: SampledStep, model_input: ModelInput) -> TraceStep:
        return TraceStep(
            done,
            _in_t1_units(step.before, model_input),
            _in_t1_units(step.after, model_input),
            volume_from_slices(step.probability.numpy()),
            displacement_mm(_inside(step.displacement, model_input), model_input.grid),
        )


def _without(card: Card, case: Case) -> tuple[Notice, ...]:
    """What is said of further contrasts that the model takes and the case lacks."""
    return tuple(
        Notice("contrast-missing", f"{name.upper()} was not given: the picture was made without it.", name)
        for name in _missing(card, case)
        if name not in CONTRASTS  # of these the case itself says it
    )


def _missing(card: Card, case: Case) -> tuple[str, ...]:
    """Contrasts that the model takes and the case lacks."""
    return tuple(name for name in card.contrasts if name not in case.given())


def _millilitres(mask: Mask, t1: Volume) -> float:
    return volume_ml(mask, t1.affine)


def _given_notice(steering: Steering, volume_ml: float) -> Notice:
    text = f"The enhancing tumour ({volume_ml:.1f} ml) was given by a person, not predicted; the picture was made to "
    text += "follow it."
    if steering.predicted_volume_ml is not None:
        text += f" By itself the model would have marked {steering.predicted_volume_ml:.1f} ml."
    return Notice("given-mask", text, "enhancement_mask")


def _in_t1_units(values: torch.Tensor, model_input: ModelInput) -> Floats:
    """Scaled slices, (S, H, W), as a volume on the model's grid, (W, H, S)."""
    low, high = model_input.scales[0]
    return (low + (high - low) * volume_from_slices(values.numpy())).astype(np.float32, copy=False)


def _slices_spacing(grid: ModelGrid) -> tuple[float, float, float]:
    """Millimetres along slices, rows and columns: the order of arrays (S, H, W)."""
    columns, rows, slices = (float(mm) for mm in grid.spacing)
    return slices, rows, columns


def _inside(displacement: torch.Tensor, model_input: ModelInput) -> Floats:
    """The field inside the brain: outside nothing is synthesised, so nothing is moved there."""
    field: Floats = displacement.numpy() * model_input.brain[:, None]
    return field


def _sampling(usual: Sampling, options: SynthesisOptions, timesteps: int) -> Sampling:
    """The quality's sampling with what the user set instead."""
    check_range("steps", options.steps, 1, timesteps)
    return replace(
        usual,
        steps=options.steps or usual.steps,
        samples=options.samples or usual.samples,
        slice_interval=options.slice_interval or usual.slice_interval,
    )
