"""Masks of the enhancing tumour in a BIDS derivative: which file belongs to which case."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from d3m.batch.bids import BidsCase
from d3m.errors import D3MError, Notice

ENDINGS = ("_mask.nii.gz", "_mask.nii", "_dseg.nii.gz", "_dseg.nii")
"""How BIDS calls a mask of one thing, and a segmentation of several."""
_ENHANCING = re.compile(r"_(?:label|desc)-(?:ET|[A-Za-z0-9]*enhanc[A-Za-z0-9]*)(?:_|$)", re.IGNORECASE)
"""What tells the enhancing tumour's mask from others beside it."""


def with_masks(cases: Sequence[BidsCase], derivative: Path) -> list[BidsCase]:
    """The cases, each with its mask of the derivative.

    Args:
        cases: From `find_bids_cases`.
        derivative: Its top folder, laid out as BIDS wants it: sub-<label>/[ses-<label>/]anat.

    Returns:
        A case without a mask gets a notice that its mask is predicted; one with several that cannot be told apart
        cannot be used, and says so.

    Raises:
        D3MError: there is no mask for any case.
    """
    result = [_with_mask(case, case.folder(derivative)) for case in cases]
    if not any(case.enhancement_mask or case.problem for case in result):
        raise D3MError(
            "The folder of enhancement masks holds none for these participants.",
            "Give the top folder of a BIDS derivative with sub-<label>/anat/sub-<label>_label-ET_mask.nii.gz.",
        )
    return result


def _with_mask(case: BidsCase, folder: Path) -> BidsCase:
    found = sorted(folder.glob(f"{case.id}_*")) if folder.is_dir() else []  # not "._sub-01_...", which macOS adds
    found = [path for path in found if path.name.endswith(ENDINGS)]
    named = [path for path in found if _ENHANCING.search(path.name)]
    chosen = named or found
    if not chosen:
        text = "No enhancement mask was given for this case: its mask is predicted."
        return replace(case, notices=(*case.notices, Notice("no-given-mask", text, "enhancement_mask")))
    if len(chosen) > 1:
        text = f"There are {len(chosen)} masks that may be the enhancing tumour's."
        return replace(case, problem=case.problem or text)
    return replace(case, enhancement_mask=chosen[0])
