"""One-time preparation of patients through `d3m.volumes` into arrays that training maps into memory."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from d3m.diffusion.recipe import REGIONS
from d3m.errors import D3MError
from d3m.system.text import plain
from d3m.volumes.grid import resample, to_model_input
from d3m.volumes.types import CONTRASTS, FURTHER_CONTRASTS, Case, Floats, GridRecipe, Mask, ModelGrid, Volume

FORMAT = 3
"""Raised whenever the arrays' meaning changes; older entries are rebuilt."""
TARGET_UPPER = 2.0
"""The target on T1's scale is clipped to [0, 2]: 0 to 3 % of a brain are."""
NECROSIS, OEDEMA, ENHANCING = 1, 2, 3
"""Labels in the cache; 0 is no tumour."""
ENTRY_FILES = ("scans.npy", "regions.npy", "entry.json")


@dataclass(frozen=True)
class Prepared:
    """One patient on the model's grid."""

    id: str
    scans: np.ndarray
    """(S, 4 + further + maps, H, W) float16: t1, t2, flair in [0, 1], the target t1c in [0, TARGET_UPPER], further
    contrasts in [0, 1] and the maps of the whole-brain stage, none or `REGIONS`; 0 outside the brain."""
    regions: np.ndarray
    """(S, 2, H, W) uint8: brain (0 or 1), label (see `NECROSIS`, `OEDEMA`, `ENHANCING`)."""
    labelled: bool
    """Whether the labels are known; if not, they are all 0 and mean nothing."""


def scale_target(t1: Floats, t1c: Floats, brain: Mask, tumour: Mask, recipe: GridRecipe) -> Floats:
    """T1c on the scale that the recipe trains for.

    "t1_scale": the linear map after which median and quartile range of normal brain equal those of the scaled T1.
    "percentile": its own percentiles become 0 and 1.

    Args:
        t1: Scaled T1, any shape.
        t1c: Same shape, any units.
        brain: Same shape.
        tumour: Same shape; left out of "normal".
        recipe: Decides.

    Returns:
        float32 in [0, `TARGET_UPPER`] or [0, 1]; 0 outside the brain.
    """
    if recipe.target == "percentile":
        over = t1c[brain] if recipe.percentiles_over == "brain" else t1c
        low, high = np.percentile(over, recipe.percentiles)
        scaled = np.clip((t1c - low) / max(high - low, 1e-6), 0, 1)
    else:
        normal = brain & ~tumour
        quartiles_t1 = np.percentile(t1[normal], (25, 50, 75))
        quartiles = np.percentile(t1c[normal], (25, 50, 75))
        gain = (quartiles_t1[2] - quartiles_t1[0]) / max(quartiles[2] - quartiles[0], 1e-6)
        scaled = np.clip((t1c - quartiles[1]) * gain + quartiles_t1[1], 0, TARGET_UPPER)
    return np.where(brain, scaled, 0).astype(np.float32)


def _on_grid(data: np.ndarray, affine: np.ndarray, grid: ModelGrid, order: int) -> np.ndarray:
    """(X, Y, Z) to (S, H, W)."""
    return resample(data, affine, grid.affine, grid.shape, order=order).transpose(2, 1, 0)


def prepare(
    patient_id: str,
    case: Case,
    t1c: Volume,
    labels: Volume | None,
    recipe: GridRecipe,
    stride: int,
    further: Sequence[str] = (),
) -> Prepared:
    """Put one patient on the model's grid, exactly as synthesis does.

    Args:
        patient_id: Goes into the entry's name.
        case: The scans and the brain.
        t1c: The real contrast-enhanced scan.
        labels: Tumour labels in the cache's coding, or None.
        recipe: The model's.
        stride: Multiple that rows and columns must have.
        further: Those of `FURTHER_CONTRASTS` that all entries of the cache have room for; 0 where a patient lacks one.
    """
    model_input = to_model_input(case, recipe, stride, (*CONTRASTS, *further))
    target = _on_grid(t1c.data, t1c.affine, model_input.grid, 1)
    label = np.zeros(model_input.brain.shape, np.uint8)
    if labels is not None:
        label = _on_grid(np.rint(labels.data), labels.affine, model_input.grid, 0).astype(np.uint8)
    target = scale_target(model_input.slices[:, 0], target, model_input.brain, label > 0, recipe)
    scans = np.insert(model_input.slices, len(CONTRASTS), target, axis=1).astype(np.float16)
    regions = np.stack([model_input.brain.astype(np.uint8), label], axis=1)
    return Prepared(patient_id, scans, regions, labels is not None)


def fingerprint(source_hashes: list[str], recipe: GridRecipe, stride: int) -> str:
    """Hash that changes with the sources, the recipe or the format."""
    text = json.dumps([FORMAT, source_hashes, asdict(recipe), stride], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def check_place(folder: Path, identifiers: Iterable[str]) -> None:
    """Find out before the work whether entries can be written: only entries are ever replaced.

    Raises:
        D3MError: something else has the name of an entry, such as a patient's folder.
    """
    for identifier in identifiers:
        place = folder / identifier
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            strange = place.name
        else:
            inside = sorted(place.iterdir()) if place.is_dir() else []
            strange = next((p.name for p in inside if p.name not in ENTRY_FILES or p.is_symlink() or p.is_dir()), "")
        if strange:
            raise D3MError(
                f"The cache's folder holds something other than prepared patients ({identifier}: {strange!r}); it will "
                "not be replaced.",
                "Choose another --cache: a folder of its own.",
            )


def write_entry(folder: Path, prepared: Prepared, key: str) -> None:
    """Write one entry whole or not at all; an older one is replaced.

    Args:
        folder: The cache.
        prepared: What is written.
        key: From `fingerprint`.

    Raises:
        D3MError: something that is no entry lies there.
        OSError: the disk is full or cannot be written.
    """
    check_place(folder, [prepared.id])
    partial, final = folder / f".{prepared.id}.partial", folder / prepared.id
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        np.save(partial / "scans.npy", prepared.scans)
        np.save(partial / "regions.npy", prepared.regions)
        label = prepared.regions[:, 1]
        entry = {
            "key": key,
            "labelled": prepared.labelled,
            "shape": list(label.shape),
            "bytes": [(partial / name).stat().st_size for name in ("scans.npy", "regions.npy")],
            "sha256": _content_hash(prepared.scans, prepared.regions),
            "tumour_voxels": (label > 0).sum(axis=(1, 2)).tolist(),
            "enhancing_voxels": (label == ENHANCING).sum(axis=(1, 2)).tolist(),
            "brain_voxels": prepared.regions[:, 0].sum(axis=(1, 2), dtype=int).tolist(),
        }
        entry["check"] = _text_hash(entry)
        (partial / "entry.json").write_text(json.dumps(entry), encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # a full disk needs its room back


def _content_hash(scans: np.ndarray, regions: np.ndarray) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(scans).data)
    digest.update(np.ascontiguousarray(regions).data)
    return digest.hexdigest()


def _text_hash(entry: dict[str, object]) -> str:
    """Of what `entry.json` says, but for the hash itself."""
    text = json.dumps({name: value for name, value in entry.items() if name != "check"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def check_entries(folder: Path, ids: Sequence[str]) -> None:
    """Find out before a training whether what it would learn from is what was prepared: every byte is read.

    Raises:
        D3MError: entries are damaged or missing; they are named.
    """
    damaged = [patient_id for patient_id in ids if not is_whole(folder, patient_id, thorough=True)]
    if damaged:
        raise D3MError(
            f"{len(damaged)} of {len(ids)} entries of the cache are damaged, {plain(damaged[0])} first.",
            "Run `d3m-training prepare` again: it makes them again.",
        )


@dataclass(frozen=True)
class Entry:
    """A patient of the cache; its arrays are mapped, not read."""

    id: str
    scans: np.ndarray
    """As in `Prepared`."""
    regions: np.ndarray
    """As in `Prepared`."""
    labelled: bool
    tumour_voxels: np.ndarray
    """(S,) voxels with any label."""
    enhancing_voxels: np.ndarray
    """(S,) enhancing voxels."""
    brain_voxels: np.ndarray
    """(S,)."""
    further: int = 0
    """Further contrasts, after the target."""


def is_whole(folder: Path, patient_id: str, key: str | None = None, *, thorough: bool = False) -> bool:
    """Whether an entry is there, of this key, and undamaged.

    Args:
        folder: The cache.
        patient_id: The entry's name.
        key: From `fingerprint`; None accepts any.
        thorough: Also compare the content's hash.
    """
    place = folder / patient_id
    try:
        entry = json.loads((place / "entry.json").read_text(encoding="utf-8"))
        sizes = [(place / name).stat().st_size for name in ("scans.npy", "regions.npy")]
        if entry.get("check", "") not in ("", _text_hash(entry)):  # older entries have none
            return False
        if sizes != entry["bytes"] or (key is not None and entry["key"] != key):
            return False
        if not thorough:
            return True
        scans, regions = (np.load(place / name, mmap_mode="r") for name in ("scans.npy", "regions.npy"))
        count, height, width = entry["shape"]
        channels = scans.shape[1] if scans.ndim == 4 else 0
        # the hash is of bytes alone
        as_written = (scans.dtype, scans.shape) == (np.float16, (count, channels, height, width))
        as_written &= 4 <= channels <= 4 + len(FURTHER_CONTRASTS) + len(REGIONS)
        as_written &= (regions.dtype, regions.shape) == (np.uint8, (count, 2, height, width))
        return bool(as_written and _content_hash(scans, regions) == entry["sha256"])
    except Exception:  # whatever damage looks like (numpy parses a header as Python), the entry is made again
        return False


def entry_key(folder: Path, patient_id: str) -> str:
    """The fingerprint that an entry was made with."""
    return str(json.loads((folder / patient_id / "entry.json").read_text(encoding="utf-8"))["key"])


def open_entry(folder: Path, patient_id: str, maps: int = 0, further: int = 0) -> Entry:
    """Map one entry of the cache.

    Args:
        folder: The cache.
        patient_id: The entry's name.
        maps: Maps of the whole-brain stage that are wanted; the others are left out.
        further: Further contrasts that the cache has (`preparation.further_of`).

    Raises:
        D3MError: it has no maps.
    """
    place = folder / patient_id
    entry = json.loads((place / "entry.json").read_text(encoding="utf-8"))
    scans = np.load(place / "scans.npy", mmap_mode="r")[:, : 4 + further + maps]
    if scans.shape[1] < 4 + further + maps:
        raise D3MError("The cache has no maps of the whole-brain stage.", "Run `d3m-training whole-brain maps` first.")
    return Entry(
        patient_id,
        scans,
        np.load(place / "regions.npy", mmap_mode="r"),
        bool(entry["labelled"]),
        np.array(entry["tumour_voxels"]),
        np.array(entry["enhancing_voxels"]),
        np.array(entry["brain_voxels"]),
        further,
    )
