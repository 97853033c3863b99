"""One reverse step with its warp as an ONNX graph: what other runtimes than torch can compute."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from d3m.diffusion.networks.slice import D3MNetwork
from d3m.diffusion.recipe import DiffusionRecipe
from d3m.diffusion.sampler import Condition, State, estimate, to_intensity, to_probability
from d3m.diffusion.schedule import Schedule, make_schedule
from d3m.errors import D3MError
from d3m.models.load import Model

INPUTS = ("x_t", "m_t", "condition", "t1", "brain", "t", "s")
"""A recipe that has no use for T1 or the brain apart from the condition makes a graph without these."""
OUTPUTS = ("x_s", "m_s", "image", "mask_probability", "displacement")
TIMES = ("t", "s")
OPSET = 18
TOLERANCE = 1e-3
"""Largest difference from torch that an exported graph may have, in each output's own unit."""
MISSING = 'Install them with `pip install "slicer-d3m[onnx]"`.'


class ReverseStep(nn.Module):
    """From a noisy state at time t to that at time s, with the estimate in between (`d3m.diffusion.sampler`; DDIM).

    Args:
        network: Satisfies `D3MNetwork`.
        recipe: The model's.
    """

    alpha_bar: Tensor
    alpha: Tensor

    def __init__(self, network: nn.Module, recipe: DiffusionRecipe) -> None:
        super().__init__()
        schedule = make_schedule(recipe.schedule, recipe.timesteps)
        self.network, self.recipe = network, recipe
        self.register_buffer("alpha_bar", schedule.alpha_bar)
        self.register_buffer("alpha", schedule.alpha)

    def forward(
        self, x_t: Tensor, m_t: Tensor, condition: Tensor, t1: Tensor, brain: Tensor, t: Tensor, s: Tensor
    ) -> tuple[Tensor, ...]:
        """One step of N slices; H and W are multiples of the network's stride.

        Args:
            x_t: (N, 1, H, W) noisy image; pure noise at t = T.
            m_t: (N, 1, H, W) noisy mask, likewise.
            condition: (N, channels, H, W) in [0, 1]: of each slice of the context the scaled contrasts, then the maps.
            t1: (N, 1, H, W) in [0, 1]: scaled T1 of the slices themselves.
            brain: (N, 1, H, W): 1 in the brain, 0 outside.
            t: (N,) int64, 1 to T.
            s: (N,) int64, 0 to t - 1.

        Returns:
            x_s and m_s; the image as scaled intensity; the probability of enhancing tumour, 0 to 1; all
            (N, 1, H, W). Last the displacement, (N, 2, H, W) in pixels along columns and rows.
        """
        network: D3MNetwork = self.network  # type: ignore[assignment]
        schedule = Schedule(self.alpha_bar, self.alpha)
        scans = Condition(condition, t1, brain > 0.5)
        e = estimate(network, State(x_t, m_t), scans, t, schedule, self.recipe)
        after = schedule.at(s)
        x_s, m_s = after.signal * e.x0 + after.noise * e.eps, after.signal * e.m0 + after.noise * e.eps_mask
        return x_s, m_s, to_intensity(e.x0, self.recipe), to_probability(e.m0, self.recipe), e.displacement


def write_onnx(model: Model, path: Path) -> float:
    """Write a model's reverse step as ONNX, with slices, rows and columns free, and compare it with torch.

    The card stands in the file's metadata under `d3m_card`.

    Args:
        model: Its whole-brain stage is no part of the step.
        path: The .onnx file.

    Returns:
        The largest difference from torch that onnxruntime's outputs had.

    Raises:
        D3MError: onnx or onnxruntime is not installed; the graph computes something else than torch.
        OSError: it cannot be written.
    """
    try:
        import onnx
    except ImportError as error:
        raise D3MError("The packages onnx and onnxruntime are not installed.", MISSING, "machine") from error
    step = ReverseStep(model.network, model.card.recipe.diffusion).eval()
    axes = {name: {0: "slices"} if name in TIMES else {0: "slices", 2: "rows", 3: "columns"} for name in INPUTS}
    axes |= {name: {0: "slices", 2: "rows", 3: "columns"} for name in OUTPUTS}
    with warnings.catch_warnings():
        # that shapes are compared while it is traced is meant, and that this way is the older one is known: the newer
        # one needs a further package, takes ten times as long and knows no multiples for rows and columns
        warnings.simplefilter("ignore")
        torch.onnx.export(
            step,
            _example(model, 2, 2, 3, seed=0),
            str(path),
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    graph = onnx.load(path)
    onnx.helper.set_model_props(
        graph,
        {
            "d3m_card": model.card.to_json(),
            "stride": str(model.card.recipe.network.stride),
            "intended_use": model.card.intended_use,
        },
    )
    onnx.save(graph, path)
    return _check(model, step, path)


def _example(model: Model, slices: int, rows: int, columns: int, seed: int) -> tuple[Tensor, ...]:
    """Inputs of a step: `rows` and `columns` in strides; a time in the middle of the schedule."""
    stride, timesteps = model.card.recipe.network.stride, model.card.recipe.diffusion.timesteps
    generator = torch.Generator().manual_seed(seed)
    shape = (slices, 1, rows * stride, columns * stride)
    channels = model.card.recipe.network.condition_channels
    noise = (torch.randn(shape, generator=generator) for _ in range(2))
    condition = torch.rand(slices, channels, *shape[2:], generator=generator)
    brain = (torch.rand(shape, generator=generator) > 0.2).float()
    t = torch.full((slices,), max(1, timesteps * 2 // 3))
    return (*noise, condition, condition[:, :1], brain, t, t // 2)


def _check(model: Model, step: ReverseStep, path: Path) -> float:
    """The largest difference between onnxruntime and torch, on sizes other than those that were traced."""
    try:
        import onnxruntime
    except ImportError as error:
        raise D3MError("The package onnxruntime is not installed.", MISSING, "machine") from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    used = {one.name for one in session.get_inputs()}
    largest = 0.0
    for seed, size in enumerate(((1, 3, 2), (3, 2, 2)), start=1):
        inputs = _example(model, *size, seed=seed)
        with torch.inference_mode():
            expected = step(*inputs)
        given = {n: v.numpy() for n, v in zip(INPUTS, inputs, strict=True) if n in used}
        found = session.run(list(OUTPUTS), given)
        differences = [np.abs(one.numpy() - other).max() for one, other in zip(expected, found, strict=True)]
        largest = max(largest, *map(float, differences))
    if not largest <= TOLERANCE:
        raise D3MError(
            f"The exported graph differs from the model by {largest:.2g}, which is too much.",
            "Try other versions of onnx and onnxruntime, or another format.",
            "machine",
        )
    return largest
