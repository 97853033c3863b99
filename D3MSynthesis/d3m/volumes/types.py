"""What flows through `d3m.volumes`: frozen data classes that carry their units in their docstrings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from d3m.errors import Notice

Floats = NDArray[np.float32]
Affine = NDArray[np.float64]
Mask = NDArray[np.bool_]

CONTRASTS = ("t1", "t2", "flair")
"""Order of the condition's channels in every model."""
FURTHER_CONTRASTS = ("adc", "swi")
"""What a model's card may name beside them, in the order of its channels; always optional."""
ALL_CONTRASTS = (*CONTRASTS, *FURTHER_CONTRASTS)

STRIPPED, GIVEN = "skull-stripped scans", "given mask"
"""Where a case's brain comes from, when no extractor was needed."""


@dataclass(frozen=True)
class Volume:
    """A three-dimensional image in world space."""

    data: Floats
    """(X, Y, Z), finite, the file's own intensities after its slope and intercept."""
    affine: Affine
    """(4, 4), voxel index to RAS millimetres."""
    sha256: str = ""
    """Content hash of voxels and geometry; provenance names inputs by it."""
    qform_code: int = 1
    """NIfTI code under which an output on this grid stores its quaternion (0 = none)."""
    sform_code: int = 1
    """NIfTI code under which an output on this grid stores its affine (0 = none)."""
    notices: tuple[Notice, ...] = ()
    """What was unusual about the file."""
    qform: Affine | None = None
    """(4, 4), voxel index to RAS millimetres by a NIfTI file's quaternion, which may differ from `affine`; an output on
    this grid keeps it, so that every program shows both in one place. None: the file has none."""


@dataclass(frozen=True)
class Case:
    """The scans of one patient in one frame of reference; their grids may differ."""

    t1: Volume
    t2: Volume
    flair: Volume
    brain: Mask
    """(X, Y, Z) on T1's grid."""
    notices: tuple[Notice, ...] = ()
    pose: Affine = field(default_factory=lambda: np.eye(4))
    """(4, 4), RAS to RAS millimetres, rigid: sets a tilted head upright, as the training patients stand; the identity
    where T1's own axes do."""
    brain_source: str = STRIPPED
    """`STRIPPED`, `GIVEN`, or the extractor that found the brain in T1, with its version."""
    missing: tuple[str, ...] = ()
    """Contrasts that were not given, of "t2" and "flair": their volumes are zero everywhere."""
    further: dict[str, Volume] = field(default_factory=dict)
    """Those of `FURTHER_CONTRASTS` that were given, on their own grids."""
    given_mask: Mask | None = None
    """(X, Y, Z) on T1's grid: the enhancing tumour, where a person gave it; within the brain."""
    given_mask_sha256: str = ""
    """Content hash of the file that it came from."""

    @property
    def brain_ml(self) -> float:
        """Volume of the brain in millilitres."""
        return float(self.brain.sum() * abs(np.linalg.det(self.t1.affine[:3, :3])) / 1000)

    def contrasts(self) -> tuple[Volume, Volume, Volume]:
        """The three scans in the order of `CONTRASTS`."""
        return self.t1, self.t2, self.flair

    def given(self) -> dict[str, Volume]:
        """The scans that there are, by the names in `CONTRASTS` and `FURTHER_CONTRASTS`."""
        three = dict(zip(CONTRASTS, self.contrasts(), strict=True))
        return {name: one for name, one in three.items() if name not in self.missing} | self.further


@dataclass(frozen=True)
class GridRecipe:
    """How scans are put on a model's grid; a part of the model's card."""

    percentiles: tuple[float, float] = (0.5, 99.5)
    """Intensities clipped and scaled to [0, 1]."""
    percentiles_over: Literal["brain", "volume"] = "brain"
    """Voxels that the percentiles are taken over; "volume" is the published way."""
    target: Literal["t1_scale", "percentile"] = "t1_scale"
    """Scale of the CEMRI: T1's own, fitted on normal tissue, or T1c's own percentiles (published)."""
    size: int | None = None
    """Side of a square slice in voxels, or None: the brain's box, padded to the network's stride."""


@dataclass(frozen=True)
class ModelGrid:
    """A lattice of axial slices, and where T1's own lattice lies in it."""

    shape: tuple[int, int, int]
    """(W, H, S): columns run to the patient's left, rows to posterior, slices to superior (LPS)."""
    affine: Affine
    """(4, 4), index (column, row, slice) to RAS millimetres."""
    t1_shape: tuple[int, int, int]
    """(X, Y, Z) of T1's grid."""
    t1_affine: Affine
    """(4, 4), T1's voxel index to RAS millimetres."""

    @property
    def spacing(self) -> NDArray[np.float64]:
        """(3,), millimetres along columns, rows and slices."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)


@dataclass(frozen=True)
class ModelInput:
    """One case on the model's grid, with the way back."""

    slices: Floats
    """(S, C, H, W) in [0, 1], 0 outside the brain; t1, t2, flair and what else the model takes; S runs inferior to
    superior. A contrast that is missing is 0 everywhere."""
    brain: Mask
    """(S, H, W)."""
    grid: ModelGrid
    scales: tuple[tuple[float, float], ...]
    """For each contrast the intensities that became 0 and 1."""
    recipe: GridRecipe
    notices: tuple[Notice, ...] = field(default=())
    given_mask: Floats | None = None
    """(S, H, W), 0 to 1: the enhancing tumour, where a person gave it."""
