"""The named recipes: what a model can be trained as. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass

from d3m.diffusion.recipe import DiffusionRecipe, NetworkSizes, Sampling
from d3m.options import QUALITY_NAMES
from d3m.volumes.types import GridRecipe


@dataclass(frozen=True)
class Recipe:
    """Everything that a model was trained as; it is part of the card."""

    name: str
    network: NetworkSizes
    diffusion: DiffusionRecipe
    grid: GridRecipe
    qualities: tuple[Sampling, Sampling, Sampling]
    """What `preview`, `standard` and `best` mean for this model."""

    def quality(self, name: str) -> Sampling:
        """Sampling of a quality by its name, one of `QUALITY_NAMES`."""
        return self.qualities[QUALITY_NAMES.index(name)]


_PUBLISHED_NETWORK = NetworkSizes(
    architecture="published",
    widths=(64, 64, 128, 256, 512),
    blocks_per_level=2,
    deformation_widths=(16, 32, 32, 32),
    deformation_inputs=("mask",),
    max_displacement=None,
)
_PUBLISHED_GRID = GridRecipe(percentiles_over="volume", target="percentile", size=256)
_PUBLISHED_QUALITIES = (Sampling(steps=10, solver="dpmpp_2m"), Sampling(steps=50), Sampling(steps=250))

STEP_WARP = Recipe(
    "step-warp",
    _PUBLISHED_NETWORK,
    DiffusionRecipe(
        image_velocity="v_step",
        warp="step",
        training_warp="step",
        image_upper=1.0,
        mask_amplitude=1.0,
        image_skip=False,
        blank_outside=False,
        time_spacing=1.0,
    ),
    GridRecipe(target="percentile", size=256),
    _PUBLISHED_QUALITIES,
)
"""The paper's equations as this project first read them: the sum of image and noise is warped at each step."""

PAPER = Recipe(
    "paper",
    _PUBLISHED_NETWORK,
    DiffusionRecipe(
        warp="x0",
        training_warp="velocity",
        warp_mask=True,
        image_upper=1.0,
        mask_amplitude=1.0,
        image_skip=False,
        blank_outside=False,
        time_spacing=1.0,
    ),
    _PUBLISHED_GRID,
    _PUBLISHED_QUALITIES,
)
"""The authors' public code (github.com/PangHaowen-hub/D3M): velocities warped in training, estimates in sampling."""

DEFAULT = Recipe(
    "default",
    NetworkSizes(context=(-2, 0, 2), auxiliary_regions=2, max_displacement=6.0),
    DiffusionRecipe(warp="enhancement", training_warp="enhancement"),
    GridRecipe(),
    (
        Sampling(steps=1, slice_interval=3),
        Sampling(steps=1, samples=4, mirrored=True),
        Sampling(steps=2, samples=8, mirrored=True),
    ),
)
"""Ours: small enough for two CPU cores, trained on its own estimates near pure noise, on T1's intensity scale."""

RECIPES = {recipe.name: recipe for recipe in (STEP_WARP, PAPER, DEFAULT)}

CURRENT_NAME = {"seed": "step-warp"}
"""Of recipes that had another name once; it is found in older cards and trainings."""
