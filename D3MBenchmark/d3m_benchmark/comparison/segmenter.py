"""The fixed segmenter: trained on real images once, it judges where every method's image seems to enhance.

A small two-dimensional network (MONAI's BasicUNet); `nnunet` is the larger choice.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.losses import DiceCELoss
from monai.metrics import compute_hausdorff_distance
from monai.networks.nets import BasicUNet
from torch import Tensor, nn

from d3m import metrics
from d3m.diffusion.precision import autocast
from d3m.system.devices import fastest_dtype
from d3m.volumes.types import Floats, Mask
from d3m_training.data.batches import Batch, Batches, BatchSettings
from d3m_training.data.cache import ENHANCING, Entry
from d3m_training.train.checkpoint import read_weights
from d3m_training.train.losses import finite
from d3m_training.train.trainer import TrainSettings, train

FEATURES = (16, 32, 64, 128, 128, 16)
INPUTS = 4
"""t1, t2, flair and the t1c in question, of the slice itself."""
SLICES = 16


@dataclass(frozen=True)
class SegmenterTerms:
    """Cross-entropy plus Dice."""

    total: Tensor


class Segmenter(nn.Module):
    """Enhancing tumour from the four contrasts, slice by slice.

    Args:
        dtype: Number format of the network's convolutions.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = BasicUNet(2, INPUTS, 1, FEATURES, act=("LeakyReLU", {"inplace": True}))
        self.loss = DiceCELoss(sigmoid=True, batch=True)
        self.dtype = dtype

    def forward(self, batch: Batch, generator: torch.Generator) -> SegmenterTerms:  # noqa: ARG002 - the trainer's
        """The loss on real images; the batch's patients must all be labelled."""
        scans = torch.cat([_own_slice(batch), batch.target], dim=1)
        enhancing = (batch.label == ENHANCING).float()
        return SegmenterTerms(finite(self.loss(self._logits(scans), enhancing)))

    def _logits(self, scans: Tensor) -> Tensor:
        with autocast(self.dtype, scans.device):
            logits: Tensor = self.network(scans.contiguous(memory_format=torch.channels_last))
        return logits.float()

    @torch.inference_mode()
    def segment(self, slices: Floats, t1c: Floats, brain: Mask) -> Mask:
        """Where an image shows enhancing tumour.

        Args:
            slices: (S, 3, H, W) t1, t2, flair in [0, 1].
            t1c: (S, H, W), real or synthetic, on T1's scale as in the cache.
            brain: (S, H, W).

        Returns:
            (S, H, W) bool.
        """
        device = next(self.network.parameters()).device
        scans = torch.from_numpy(np.concatenate([slices, t1c[:, None]], axis=1).astype(np.float32))
        mask = np.zeros(brain.shape, bool)
        self.eval()
        for index in torch.from_numpy(np.flatnonzero(brain.any(axis=(1, 2)))).split(SLICES):
            mask[index] = (self._logits(scans[index].to(device))[:, 0] > 0).cpu().numpy()
        return mask & brain


def _own_slice(batch: Batch) -> Tensor:
    """t1, t2, flair of the slice itself: the middle of the condition, whose t1 is the batch's."""
    n, channels = batch.condition.shape[:2]
    middle = (channels // 3) // 2
    return batch.condition.view(n, -1, 3, *batch.condition.shape[2:])[:, middle]


def train_segmenter(
    entries: Sequence[Entry], out: Path, settings: BatchSettings, iterations: int, seed: int,
    report: Callable[[str], None],
) -> Path:  # fmt: skip
    """Train on the real images of labelled patients, or go on where an earlier call was ended.

    Returns:
        The weights' file.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(seed)
    module = Segmenter(fastest_dtype(device))
    module.network.to(memory_format=torch.channels_last)
    batches = Batches([e for e in entries if e.labelled], settings, seed)
    train_settings = TrainSettings(
        iterations=iterations, learning_rate=2e-3, ema=0.99, seed=seed, validate_every=0, log_every=200
    )
    return train(module, batches, train_settings, out, report=report)


def load_segmenter(weights: Path, device: torch.device) -> Segmenter:
    """The segmenter that `train_segmenter` left."""
    segmenter = Segmenter(fastest_dtype(device))
    segmenter.network.load_state_dict(read_weights(weights))
    segmenter.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return segmenter


def hausdorff95(mask: Mask, true: Mask, spacing_mm: tuple[float, float, float]) -> float:
    """95 % Hausdorff distance of two masks in millimetres.

    Args:
        mask: (S, H, W).
        true: (S, H, W).
        spacing_mm: Of slices, rows and columns.

    Returns:
        NaN where one is empty or `true` is too small for `metrics.dice` to mean something.
    """
    if not mask.any() or true.sum() < metrics.MIN_DICE_VOXELS:
        return float("nan")
    either = np.nonzero(mask | true)
    box = tuple(slice(max(int(i.min()) - 1, 0), int(i.max()) + 2) for i in either)
    pair = [torch.from_numpy(m[box])[None, None].float() for m in (mask, true)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # between two functions of MONAI's own
        distance = compute_hausdorff_distance(
            pair[0], pair[1], include_background=True, percentile=95, spacing=spacing_mm
        )
    return float(distance)
