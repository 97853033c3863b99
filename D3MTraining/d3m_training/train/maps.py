"""Maps of the whole-brain stage for the slices' training: each patient's by members that have not seen it.

Maps of patients that a member was trained on are better than those of new ones; slices that learn from them would trust
maps too much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from d3m.diffusion.networks.whole_brain import WholeBrainEnsemble, contrasts_of
from d3m.diffusion.recipe import CONDITION_CHANNELS
from d3m.errors import D3MError
from d3m.system.devices import fastest_dtype
from d3m.system.storage import writing
from d3m_training.data.cache import Entry, Prepared, entry_key, open_entry, write_entry
from d3m_training.data.preparation import SPLIT_NAME, further_of
from d3m_training.data.splits import group_of, read_split
from d3m_training.train.whole_brain_stage import read_folds


def add_maps(cache: Path, runs: Sequence[Path], report: Callable[[str], None]) -> int:
    """Give every patient of a slice cache its maps; older maps are replaced.

    Args:
        cache: From `prepare_cache`.
        runs: Folders of all folds' trainings.
        report: Gets a line for each patient.

    Returns:
        Number of patients.

    Raises:
        D3MError: a fold is not trained, every member has seen some patient, the disk is full.
    """
    folds = read_folds(runs)
    split = read_split(cache / SPLIT_NAME)
    identifiers = [*split.train, *split.validation, *split.test]
    further = len(further_of(cache))
    for number, identifier in enumerate(identifiers, start=1):
        group = group_of(identifier)
        unseen = [fold for fold in folds if group not in fold.seen]
        if not unseen:
            raise D3MError(f"Every member has seen {identifier}.", "Give all folds of one cross-validation.")
        entry = open_entry(cache, identifier, further=further)
        maps = np.mean([_maps(entry, fold.member) for fold in unseen], axis=0)
        scans = np.concatenate([entry.scans, maps.astype(np.float16)], axis=1)
        with writing():
            prepared = Prepared(identifier, scans, np.asarray(entry.regions), entry.labelled)
            write_entry(cache, prepared, entry_key(cache, identifier))
        report(f"{number}/{len(identifiers)} {identifier}: maps of {len(unseen)} members")
    return len(identifiers)


def _maps(entry: Entry, member: WholeBrainEnsemble) -> np.ndarray:
    """(S, maps, H, W) probabilities of the regions."""
    scans = torch.from_numpy(np.asarray(entry.scans[:, :CONDITION_CHANNELS], np.float32))
    brain = torch.from_numpy(np.asarray(entry.regions[:, 0]) > 0)
    with torch.inference_mode():
        made = member.predict(scans, brain, contrasts_of(scans), dtype=fastest_dtype(torch.device("cpu")))
        return made.probability.transpose(0, 1).numpy()
