"""The brain in a whole head: by HD-BET where that is installed, else by its tissue and an average brain, offline.

HD-BET (Isensee et al. 2019) is a program of its own with an environment of its own. Its weights must be there already:
it would download them at its first run, and only its user may decide that.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

from d3m.errors import D3MError, Notice
from d3m.volumes.grid import resample
from d3m.volumes.preprocess.atlas import RIM_MM, TRAINING_PITCH, atlas, atlas_in, atlas_picture
from d3m.volumes.preprocess.brain import EXTRACT, solid
from d3m.volumes.preprocess.heads import middle_of_brain, peeled
from d3m.volumes.preprocess.matching import Match, Picture, grown, picture, search, turn_about
from d3m.volumes.preprocess.registration import STARTS_DEGREES, edge_agreement
from d3m.volumes.types import Floats, Mask, Volume

PROGRAM_VARIABLE = "D3M_HD_BET"
"""Environment variable: path of the program hd-bet, or "off". Without it the program is looked for on PATH."""
PROGRAM = "hd-bet"
WEIGHTS = ("hd-bet_params/release_2.0.0/fold_all/checkpoint_final.pth", "hd-bet_params/0.model")
"""Where versions 2 and 1 keep their weights in the user's home."""
TIMEOUT_S = 1800.0
"""HD-BET takes some two minutes on a processor; a machine may be ten times slower."""
HELP_TIMEOUT_S = 120.0
"""It imports torch before it answers."""

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


def extract_brain(t1: Volume) -> tuple[Mask, list[Notice]]:
    """Find the brain in a whole head.

    Args:
        t1: Any orientation, with skull.

    Returns:
        (X, Y, Z) on T1's grid; a notice that says how it was found and how to give a better one.

    Raises:
        D3MError: no brain was found.
    """
    mask, why = _by_program(t1)
    how = "HD-BET"
    if mask is None:
        mask, how = _by_tissue(t1), f"its tissue, checked against an average brain ({why})"
    if mask is None:
        mask, how = _by_atlas(t1), f"an average brain ({why})"
    millilitres = float(mask.sum() * abs(np.linalg.det(t1.affine[:3, :3])) / 1000)
    if not VOLUME_ML[0] <= millilitres <= VOLUME_ML[1]:
        raise _not_found(f"what {how.split(' (')[0]} marks measures {millilitres:.0f} ml")
    text = f"T1 is not brain-extracted; its brain was found with {how}."
    if how != "HD-BET":
        text += " Look at its border; a better mask can be given as brain mask (--brain-mask)."
    return mask, [Notice("brain-extracted", text, "t1")]


def _not_found(why: str) -> D3MError:
    return D3MError(f"T1 is not brain-extracted (skull-stripped), and no brain was found in it: {why}.", EXTRACT)


def find_program() -> Path | None:
    """HD-BET's program: the one that `$D3M_HD_BET` names, or the one on PATH; None if there is none, or it is "off".

    Raises:
        D3MError: what the variable names is no program.
    """
    named = os.environ.get(PROGRAM_VARIABLE, "")
    if named.lower() in ("off", "none", "0"):
        return None
    if named:
        found = shutil.which(str(Path(named).expanduser()))
        if found is None:
            raise D3MError(
                f"The environment variable {PROGRAM_VARIABLE} names no program that can be started.",
                f"Set it to the path of {PROGRAM}, to off, or remove it.",
            )
        return Path(found)
    found = shutil.which(PROGRAM)
    return None if found is None else Path(found)


def _by_program(t1: Volume) -> tuple[Mask | None, str]:
    """HD-BET's mask, or None and why there is none."""
    program = find_program()
    if program is None:
        return None, "HD-BET is not installed"
    if not any((Path.home() / weights).is_file() for weights in WEIGHTS):
        return None, "HD-BET is installed, but its weights are not: run it once yourself to download them"
    with tempfile.TemporaryDirectory(prefix="d3m-") as name:
        folder = Path(name)
        nibabel.save(nibabel.Nifti1Image(_finite(t1.data), t1.affine), folder / "scan.nii.gz")
        text = _run([str(program), "--help"], folder, HELP_TIMEOUT_S)
        if text is None:
            return None, "HD-BET does not start"
        command = [str(program), "-i", "scan.nii.gz", "-o", "brain.nii.gz", "-device", "cpu"]
        if "--save_bet_mask" in text:  # version 2
            command += ["--disable_tta", "--save_bet_mask", "--no_bet_image"]
        else:
            command += ["-mode", "fast", "-tta", "0", "-s", "1"]
        if _run(command, folder, TIMEOUT_S) is None:
            return None, "HD-BET failed"
        for made in ("brain_bet.nii.gz", "brain_mask.nii.gz"):
            if (folder / made).is_file():
                return _read_mask(folder / made, t1)
    return None, "HD-BET left no mask"


def _finite(data: Floats) -> Floats:
    """Values that are not finite become the lowest of the others."""
    finite = np.isfinite(data)
    return data if finite.all() else np.where(finite, data, data[finite].min())


def _run(command: list[str], folder: Path, timeout: float) -> str | None:
    """What the program says, or None if it fails or takes too long."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "PYTHONPATH")}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, timeout=timeout, capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return done.stdout + done.stderr if done.returncode == 0 else None


def _read_mask(path: Path, t1: Volume) -> tuple[Mask | None, str]:
    try:
        image = nibabel.load(path)
        data = np.asarray(image.dataobj)
    except Exception as error:  # whatever another program wrote: the other way remains, and the reason is said
        return None, f"HD-BET's mask cannot be read ({type(error).__name__})"
    if data.shape != t1.data.shape or not np.allclose(image.affine, t1.affine, atol=1e-2):
        return None, "HD-BET's mask does not lie on T1's grid"
    return solid(data > 0.5), ""


def _by_tissue(t1: Volume) -> Mask | None:
    """Tissue in the middle of the head that hangs together once thin bridges to its surroundings are cut.

    None unless an average brain is found in it, in a size that brains have.
    """
    head = Volume(_finite(t1.data), t1.affine)
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
        mask = _grown_back(core, tissue, bridge)
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


def _grown_back(core: Mask, tissue: Mask, bridge: float) -> Mask:
    """What was eroded from `core` is put back, and the fluid in its clefts with it."""
    back = ndimage.distance_transform_edt(~core, sampling=FINE_MM) <= bridge + FINE_MM / 2
    brain = tissue & back
    return solid(_closed(brain, FINE_MM))


def _by_atlas(t1: Volume) -> Mask:
    """The registered average brain, its surface moved to where T1's tissue ends."""
    head = Volume(_finite(t1.data), t1.affine)
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
    average = grown(atlas_picture(ROUGH_MM), RIM_MM)
    centre = average.places().mean(axis=1)
    middle = _middle(rough)
    starts = []
    for degrees, size in itertools.product(STARTS_DEGREES, SIZES):
        start = np.eye(4)
        start[:3, :3] = size * turn_about(centre, (degrees[0] + TRAINING_PITCH, degrees[1], degrees[2]))[:3, :3]
        start[:3, 3] = middle - start[:3, :3] @ centre
        starts.append(start)
    rough = peeled(rough)
    found = [
        search(average, rough, start, kind="similarity", step=6.0, smallest=0.2, iterations=30, masked=False)
        for start in starts
    ]
    found = [match for match in found if _plausible(match)] or found
    best = sorted(found, key=lambda match: -match.likeness)[:3]
    wide = grown(atlas_picture(COARSE_MM), RIM_MM)
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
