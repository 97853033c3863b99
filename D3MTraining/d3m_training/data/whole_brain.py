"""Patients at 2 mm for the whole-brain stage: prepared once, with what is known of each and what is not."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from d3m.diffusion.networks.whole_brain import pool
from d3m.diffusion.recipe import WholeBrainSizes
from d3m.errors import D3MError
from d3m.models.recipes import RECIPES
from d3m.system.folders import check_place_of_work
from d3m.system.storage import replace_text, replacing, writing
from d3m.system.text import read_object
from d3m.volumes.grid import resample, to_model_input
from d3m.volumes.types import Volume
from d3m_training.data.cache import ENHANCING, NECROSIS, scale_target
from d3m_training.data.datasets import Patient, read_patient
from d3m_training.data.labels import Scheme, relabelling
from d3m_training.data.preparation import check_all, collect, network_stride
from d3m_training.data.untold import COARSE_VOXEL_ML, enhancing_from_difference

LIST_NAME = "whole_brain.json"
MARGIN_VOXELS = 3
"""Normal brain, which the scale of T1c is fitted on, keeps this far from the tumour."""


@dataclass(frozen=True)
class CoarsePatient:
    """One patient at 2 mm."""

    id: str
    labelled: bool
    """Whether labels say what enhances; if not, it is what T1c minus T1 says inside the tumour."""
    partial: bool
    """Whether it is a slab of a few slices instead of a brain."""
    scans: Tensor
    """(3, s, h, w) t1, t2, flair in [0, 1]; a missing one is 0."""
    enhancement: Tensor
    """(1, s, h, w) T1c minus T1 on T1's scale."""
    brain: Tensor
    """(1, s, h, w) 0 or 1."""
    regions: Tensor
    """(3, s, h, w) share of each voxel that is whole tumour, core, enhancing."""
    known: Tensor
    """(3, s, h, w) 1 where a region is known, else 0."""
    present: tuple[bool, bool, bool]
    """Which of the scans are there."""
    median: Tensor
    """(3, 1, 1, 1) of normal brain in each scan."""
    quartile_range: Tensor
    """(3, 1, 1, 1) likewise, at least 0.01."""

    @property
    def enhancing_ml(self) -> float:
        """Millilitres of enhancing tumour."""
        return float(self.regions[2].sum()) * COARSE_VOXEL_ML


SLAB_SHARE = 0.5
"""A brain less high than this share of its length is a slab; a whole one has 0.75."""


def prepare_coarse(
    data: Sequence[Path], cache: Path, enhancing_label: int | None, skip_bad: bool, report: Callable[[str], None]
) -> int:
    """Put patients at 2 mm into a folder; those that are there are kept.

    Args:
        data: Folders or manifests; T2 may be missing, labels may show the whole tumour alone.
        cache: Folder.
        enhancing_label: Value of the enhancing tumour, where the data do not tell it.
        skip_bad: Leave out patients with faulty files instead of stopping.
        report: Gets a line for each patient.

    Returns:
        Number of patients.

    Raises:
        D3MError: faults in the data (all are reported first).
    """
    check_place_of_work(cache, (cache / LIST_NAME).is_file(), "prepared patients", "--cache")
    patients, faults = collect(data, ("t2",))
    checked, _ = check_all([p for p in patients if p.seg is not None], faults, enhancing_label, skip_bad, report)
    used = checked.patients
    groups = {p.id: p.group for p in used}
    with writing():
        cache.mkdir(parents=True, exist_ok=True)
        replace_text(cache / LIST_NAME, json.dumps({"groups": groups}, indent=1) + "\n")
    for number, patient in enumerate(used, start=1):
        path = cache / f"{patient.id}.npz"
        if not path.exists():
            arrays = _prepare(patient, checked.schemes.get(patient.id))
            with writing(), replacing(path) as partial_file, partial_file.open("wb") as f:
                np.savez_compressed(f, **arrays)  # type: ignore[arg-type]  # numpy's stub takes names for its own switches
        report(f"{number}/{len(used)} {patient.id}")
    return len(used)


def read_groups(cache: Path) -> dict[str, str]:
    """The patient of each visit, whatever they are called; of none where an earlier version prepared the folder."""
    try:
        groups = read_object(cache / LIST_NAME, "The list of patients")["groups"]
        return {str(identifier): str(group) for identifier, group in groups.items()}
    except (D3MError, KeyError, AttributeError):
        return {}


def _prepare(patient: Patient, scheme: Scheme | None) -> dict[str, np.ndarray]:
    """The arrays of one patient, through the same code as synthesis."""
    case, t1c, labels = read_patient(patient, relabelling(scheme))
    assert labels is not None  # only annotated patients were kept
    recipe = RECIPES["default"]
    model_input = to_model_input(case, recipe.grid, network_stride("default"))
    grid = model_input.grid

    def on_grid(volume: Volume, order: int) -> np.ndarray:
        return resample(volume.data, volume.affine, grid.affine, grid.shape, order=order).transpose(2, 1, 0)

    label = np.rint(on_grid(labels, 0)).astype(np.uint8)
    near = ndimage.binary_dilation(label > 0, iterations=MARGIN_VOXELS) & model_input.brain
    target = scale_target(model_input.slices[:, 0], on_grid(t1c, 1), model_input.brain, near, recipe.grid)
    brain = torch.from_numpy(model_input.brain)
    values = np.concatenate([model_input.slices.transpose(1, 0, 2, 3), (target - model_input.slices[:, 0])[None]])
    coarse, inside = pool(torch.from_numpy(values), brain)
    core = np.isin(label, (NECROSIS, ENHANCING))
    regions = torch.from_numpy(np.stack([label > 0, core, label == ENHANCING]).astype(np.float32))
    everywhere = torch.ones_like(brain)
    shares, _ = pool(regions, everywhere)
    present = np.array([True, patient.t2 is not None, True])
    return {
        "values": coarse.half().numpy(), "brain": inside.bool().numpy(), "regions": shares.half().numpy(),
        "present": present, "labelled": np.array(not patient.whole_only),
    }  # fmt: skip


def read_coarse(path: Path) -> CoarsePatient:
    """One patient from the folder of `prepare_coarse`.

    Raises:
        D3MError: the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as f:
            arrays = {name: f[name] for name in ("values", "brain", "regions", "present", "labelled")}
    except (OSError, ValueError, KeyError) as error:
        raise D3MError(f"{path.name} is damaged or missing.", "Remove it and prepare again.") from error
    least = WholeBrainSizes().least_size

    def padded(values: np.ndarray) -> Tensor:
        more = [(0, 0)] + [(0, max(n % 2, least - n)) for n in values.shape[1:]]
        return torch.from_numpy(np.pad(values.astype(np.float32), more))

    values, brain, regions = (padded(arrays[name]) for name in ("values", "brain", "regions"))
    labelled = bool(arrays["labelled"])
    known = torch.ones_like(regions)
    if not labelled:
        regions, known = _from_enhancement(regions, values[3])
    present = tuple(bool(there) for there in arrays["present"])
    normal = (brain[0] > 0) & (regions[0] < 0.05)
    quartiles = np.stack([np.percentile(values[c][normal].numpy(), (25, 50, 75)) for c in range(3)])
    spread = np.maximum(quartiles[:, 2] - quartiles[:, 0], 0.01)
    return CoarsePatient(
        path.stem, labelled, _is_slab(brain), values[:3], values[3:], brain, regions, known,
        (present[0], present[1], present[2]),
        torch.from_numpy(quartiles[:, 1]).float().view(3, 1, 1, 1), torch.from_numpy(spread).float().view(3, 1, 1, 1),
    )  # fmt: skip


def _is_slab(brain: Tensor) -> bool:
    height, length = (float(brain[0].amax(axes).sum()) for axes in ((1, 2), (0, 2)))
    return height < SLAB_SHARE * length


def _from_enhancement(regions: Tensor, enhancement: Tensor) -> tuple[Tensor, Tensor]:
    """Regions and what is known of them where labels show the whole tumour alone."""
    tumour = regions[0] > 0.5
    enhancing, unknown = enhancing_from_difference(tumour, enhancement)
    known = torch.ones_like(regions)
    known[1] = 1 - (tumour & ~enhancing).float()  # where the core ends is not told
    known[2] = 1 - unknown.float()
    return torch.stack([regions[0], enhancing.float(), enhancing.float()]), known
