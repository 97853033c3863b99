"""The phantom's anatomy: tissue fractions of a deformed ICBM152 brain with vessels and a glioma."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

import nibabel
import numpy as np
from scipy import ndimage

MNI_SHIFT = np.array([119.5, -136.5, -70.0])
"""BraTS RAS millimetres plus this are ICBM152 RAS millimetres: the brain lies in the middle of the BraTS grid."""
SHARPNESS = 2.0
"""Exponent that turns the population's blurred tissue maps into those of one brain."""
NECROSIS, OEDEMA, ENHANCING = 1, 2, 4

VESSELS = (  # polylines in ICBM152 RAS millimetres, and radius
    (((0, 62, 12), (0, 55, 38), (0, 30, 58), (0, 0, 70), (0, -30, 73), (0, -60, 60), (0, -85, 32), (0, -96, 2)), 2.6),
    (((3, 8, 16), (3, -15, 15), (2, -33, 9), (0, -42, 9)), 1.0),
    (((-3, 8, 16), (-3, -15, 15), (-2, -33, 9), (0, -42, 9)), 1.0),
    (((0, -42, 9), (0, -50, 12), (0, -65, 6), (0, -84, -6)), 1.2),
    (((0, -90, -8), (22, -86, -14), (42, -72, -20), (54, -52, -26)), 1.3),
    (((0, -90, -8), (-22, -86, -14), (-42, -72, -20), (-54, -52, -26)), 1.3),
    (((6, 4, -18), (18, 4, -18), (30, 6, -16), (42, 0, -6), (46, -12, 4)), 1.1),
    (((-6, 4, -18), (-18, 4, -18), (-30, 6, -16), (-42, 0, -6), (-46, -12, 4)), 1.1),
    (((2, 10, -16), (2, 32, -6), (2, 38, 12), (2, 22, 30), (2, 0, 40)), 0.9),
    (((-2, 10, -16), (-2, 32, -6), (-2, 38, 12), (-2, 22, 30), (-2, 0, 40)), 0.9),
    (((0, -8, -24), (1, -9, -32), (0, -13, -42)), 1.4),
)
CHOROID = (((18, -38, 8), (24, -36, 0), (28, -26, -12)), ((-18, -38, 8), (-24, -36, 0), (-28, -26, -12)))


@dataclass(frozen=True)
class TumourShape:
    """Where a glioma lies and how it looks."""

    centre_mni: tuple[float, float, float] = (-40.0, -8.0, 22.0)
    """ICBM152 RAS millimetres."""
    radius_mm: float = 16.0
    """Of the enhancing part's outer surface."""
    rim_mm: float = 7.0
    """Mean thickness of the rim."""
    oedema_mm: float = 13.0
    """How far the oedema reaches along white matter."""
    enhancement: Literal["ring", "solid", "none"] = "ring"


@dataclass(frozen=True)
class Anatomy:
    """Fractions of each tissue, adding up to 1 inside the brain."""

    fractions: dict[str, np.ndarray]
    """(X, Y, Z) float32 each: white, grey, csf, oedema, necrosis, rim, vessel, choroid."""
    brain: np.ndarray
    """(X, Y, Z) bool."""
    labels: np.ndarray
    """(X, Y, Z) uint8: 1 necrosis, 2 oedema, 4 enhancing."""


def _template(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """(data in [0, 1], affine) of an ICBM152 map."""
    path = files("nilearn") / "datasets" / "data" / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"
    image = nibabel.load(str(path))
    return np.asarray(image.dataobj, np.float32) / 255, image.affine


def make_anatomy(
    seed: int, tumour: TumourShape | None, affine: np.ndarray, shape: tuple[int, ...], spacing: float
) -> Anatomy:
    """Deform the atlas into one person's brain and grow the tumour.

    Args:
        seed: Decides the person and the tumour's outline.
        tumour: Or None.
        affine: Of the wanted grid, voxel index to RAS millimetres.
        shape: Of the wanted grid.
        spacing: Its voxel size, millimetres.
    """
    rng = np.random.default_rng((seed, 0))
    index = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij"))
    position = np.tensordot(affine[:3, :3], index, 1) + (affine[:3, 3] + MNI_SHIFT)[:, None, None, None]
    position = position.astype(np.float32)
    person = position + _warp(rng, shape, spacing)
    distance = None
    if tumour is not None:
        distance = _tumour_distance(rng, position, tumour, shape, spacing)
        person = person - _mass_effect(position, tumour)
    white, grey, brain = _tissue(person)
    leaves = grey * _leaves(rng, person, shape, spacing)
    white, grey = white + leaves, grey - leaves
    brain = _stripped(rng, white + grey, brain, shape, spacing)
    white, grey = white * brain, grey * brain
    csf = np.clip(1 - white - grey, 0, 1)
    fractions = {"white": white, "grey": grey, "csf": csf}
    fractions |= _vessels(rng, person, csf, brain, shape, spacing)
    labels = np.zeros(shape, np.uint8)
    if tumour is not None and distance is not None:
        lesions, labels = _lesions(rng, tumour, distance, white, csf, brain, shape, spacing)
        fractions |= lesions
    return Anatomy(_normalise(fractions), brain, labels)


def _warp(rng: np.random.Generator, shape: tuple[int, ...], spacing: float) -> np.ndarray:
    """Smooth displacement, millimetres: no brain is symmetric, none is the atlas."""
    field = np.zeros((3, *shape), np.float32)
    for sigma_mm, size_mm in ((28.0, 3.0), (9.0, 1.2)):
        for axis in range(3):
            field[axis] += _noise(rng, shape, sigma_mm / spacing) * np.float32(size_mm)
    return field


def _noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    """Smooth noise of unit standard deviation; made coarsely where it is smooth, which is as good and faster."""
    step = max(int(sigma / 3), 1)
    coarse = tuple(n // step + 8 for n in shape)
    noise = ndimage.gaussian_filter(rng.normal(size=coarse).astype(np.float32), sigma / step, mode="wrap")
    if step > 1:
        noise = ndimage.zoom(noise, step, order=1)
    noise = noise[tuple(slice(0, n) for n in shape)]
    return (noise / noise.std()).astype(np.float32)


def _tissue(position: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(white, grey, brain) at positions in ICBM152 space."""
    grey, affine = _template("gm")
    white, _ = _template("wm")
    t1, _ = _template("t1")
    inside = ndimage.binary_fill_holes(ndimage.binary_opening(t1 > 0.12, iterations=2) | (grey + white > 0.5))
    csf = np.clip(inside - grey - white, 0, 1)
    powers = [np.power(part, SHARPNESS) for part in (white, grey, csf)]
    total = np.maximum(sum(powers), 1e-6)
    source = position - affine[:3, 3][:, None, None, None].astype(np.float32)
    white, grey = (ndimage.map_coordinates(part / total * inside, source, order=1) for part in powers[:2])
    brain = ndimage.map_coordinates(inside.astype(np.float32), source, order=1) > 0.5
    labels, count = ndimage.label(brain)
    if count > 1:
        brain = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    return white * brain, grey * brain, brain


def _leaves(rng: np.random.Generator, position: np.ndarray, shape: tuple[int, ...], spacing: float) -> np.ndarray:
    """Share of white matter in the cerebellum's cortex: its leaves are too thin for the atlas, which calls all grey."""
    x, y, z = position
    below = (-4 - 0.25 * np.abs(x) - 0.4 * np.maximum(-55 - y, 0) - z) / 2.5
    cerebellum = 1 / ((1 + np.exp(-np.clip(below, -20, 20))) * (1 + np.exp(np.clip((y + 34) / 2.5, -20, 20))))
    height = np.hypot(y + 50, z + 30) + 2.5 * _noise(rng, shape, 4.0 / spacing)
    return (cerebellum * (0.42 + 0.13 * np.cos(2 * np.pi * height / 5.0))).astype(np.float32)


def _stripped(
    rng: np.random.Generator, tissue: np.ndarray, brain: np.ndarray, shape: tuple[int, ...], spacing: float
) -> np.ndarray:
    """The brain as a skull stripping leaves it: the outer fluid is cut here and kept there."""
    depth = ndimage.distance_transform_edt(brain, sampling=spacing)
    kept = brain & ((tissue > 0.5) | (depth > 1.6 + 1.4 * _noise(rng, shape, 4.0 / spacing)))
    labels, count = ndimage.label(ndimage.binary_closing(kept, iterations=1))
    if count > 1:
        labels = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    return ndimage.binary_fill_holes(labels > 0)


def _tumour_distance(
    rng: np.random.Generator, position: np.ndarray, tumour: TumourShape, shape: tuple[int, ...], spacing: float
) -> np.ndarray:
    """Distance from the tumour's centre, bent by noise so that its surfaces are irregular, millimetres."""
    stretch = np.array([1.0, 0.8, 1.15])[:, None, None, None]
    offset = (position - np.array(tumour.centre_mni)[:, None, None, None]) * stretch
    distance = np.sqrt((offset**2).sum(axis=0))
    bend = 0.22 * _noise(rng, shape, 7.0 / spacing) + 0.11 * _noise(rng, shape, 3.5 / spacing)
    # bent no more far out than at the surface, or islands of tumour would arise there
    return (distance + np.minimum(distance, tumour.radius_mm) * bend).astype(np.float32)


def _mass_effect(position: np.ndarray, tumour: TumourShape) -> np.ndarray:
    """Where tissue was pushed from: outwards by up to 4 mm at the tumour's surface, fading over 20 mm."""
    offset = position - np.array(tumour.centre_mni, np.float32)[:, None, None, None]
    length = np.sqrt((offset**2).sum(axis=0)) + 1e-3
    push = 4.0 * np.exp(-(((length - tumour.radius_mm) / 20) ** 2)) * np.minimum(length / tumour.radius_mm, 1)
    return offset / length * push.astype(np.float32)


def _lesions(
    rng: np.random.Generator,
    tumour: TumourShape,
    distance: np.ndarray,
    white: np.ndarray,
    csf: np.ndarray,
    brain: np.ndarray,
    shape: tuple[int, ...],
    spacing: float,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Soft fractions of necrosis, rim and oedema, and the labels."""
    allowed = brain & (csf < 0.75)
    core = (distance < tumour.radius_mm) & allowed
    thickness = tumour.rim_mm * np.clip(1 + 0.5 * _noise(rng, shape, 4.5 / spacing), 0.45, 2.2)
    necrosis = core & (distance < tumour.radius_mm - thickness)
    if tumour.enhancement == "solid":
        necrosis &= distance < 0.25 * tumour.radius_mm
    # fingers: oedema reaches far along white matter and hardly into cortex
    way = np.maximum(distance - tumour.radius_mm, 0)
    easy = ndimage.gaussian_filter(white, 1.0 / spacing)
    reach = tumour.oedema_mm * np.clip(easy * 1.35 - 0.25, 0, 1) * (1 + 0.3 * _noise(rng, shape, 5.0 / spacing))
    oedema = _piece((way < reach) & allowed | core, core) & ~core
    labels = np.zeros(shape, np.uint8)
    labels[oedema], labels[core], labels[necrosis] = OEDEMA, ENHANCING, NECROSIS
    enhancing = core & ~necrosis
    if tumour.enhancement == "none":
        labels[enhancing] = OEDEMA
        oedema, enhancing = oedema | enhancing, np.zeros_like(core)
    soft = {
        "oedema": 0.85 * ndimage.gaussian_filter(oedema.astype(np.float32), 1.2 / spacing),
        "rim": ndimage.gaussian_filter(enhancing.astype(np.float32), 0.6 / spacing),
        "necrosis": ndimage.gaussian_filter(necrosis.astype(np.float32), 0.6 / spacing),
    }
    # neither is the oedema equally wet everywhere, nor is necrosis all fluid
    soft["oedema"] *= np.clip(0.85 + 0.14 * _noise(rng, shape, 5.0 / spacing), 0.3, 1.15)
    debris = soft["necrosis"] * np.clip(0.25 + 0.2 * _noise(rng, shape, 2.0 / spacing), 0, 0.7)
    soft["oedema"] += debris
    soft["necrosis"] -= debris
    # the rim is not uniformly vascular
    patchy = np.clip(0.85 + 0.2 * _noise(rng, shape, 3.0 / spacing), 0.35, 1)
    soft["oedema"] += soft["rim"] * (1 - patchy)
    soft["rim"] *= patchy
    return soft, labels


def _piece(mask: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """The connected pieces of `mask` that touch `seed`."""
    labels, _ = ndimage.label(mask)
    kept = np.unique(labels[seed])
    return np.isin(labels, kept[kept > 0])


def _vessels(
    rng: np.random.Generator,
    position: np.ndarray,
    csf: np.ndarray,
    brain: np.ndarray,
    shape: tuple[int, ...],
    spacing: float,
) -> dict[str, np.ndarray]:
    """Sinuses, deep veins, large arteries, cortical veins and choroid plexus."""
    vessel = np.zeros(shape, np.float32)
    for line, radius in VESSELS:
        vessel = np.maximum(vessel, _tube(position, line, radius, spacing))
    depth = ndimage.distance_transform_edt(brain, sampling=spacing)
    # a cortical vein runs where two noise fields are both zero: the crossing of two surfaces is a line
    first, second = (_noise(rng, shape, 6.0 / spacing) for _ in range(2))
    closeness = np.sqrt(first**2 + second**2) * 5.0  # roughly millimetres from the line
    cortical = np.clip(1.1 - closeness, 0, 1) * (csf > 0.35) * (depth < 14) * (position[2] > -15)
    vessel = np.maximum(vessel, 0.8 * cortical)
    choroid = np.zeros(shape, np.float32)
    for line in CHOROID:
        choroid = np.maximum(choroid, _tube(position, line, 2.2, spacing) * (csf > 0.3))
    return {"vessel": vessel * brain, "choroid": choroid * brain}


def _tube(
    position: np.ndarray, line: tuple[tuple[float, float, float], ...], radius: float, spacing: float
) -> np.ndarray:
    """Fraction of each voxel inside a tube around a polyline."""
    result = np.zeros(position.shape[1:], np.float32)
    margin = radius + 2 * spacing
    for start, end in zip(np.array(line[:-1], float), np.array(line[1:], float), strict=True):
        low, high = np.minimum(start, end) - margin, np.maximum(start, end) + margin
        near = np.all([(position[k] > low[k]) & (position[k] < high[k]) for k in range(3)], axis=0)
        points = position[:, near] - start[:, None]
        along = np.clip(((end - start) @ points) / ((end - start) @ (end - start)), 0, 1)
        distance = np.linalg.norm(points - np.outer(end - start, along), axis=0)
        result[near] = np.maximum(result[near], np.clip((radius - distance) / spacing + 0.5, 0, 1))
    return result


def _normalise(fractions: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Later tissues displace earlier ones: necrosis and rim the oedema, that and vessels the brain's own tissue."""
    left = np.ones_like(fractions["white"])
    result = {}
    for name in ("necrosis", "rim", "vessel", "choroid", "oedema"):
        if name in fractions:
            result[name] = np.minimum(fractions[name], left)
            left = left - result[name]
    total = np.maximum(fractions["white"] + fractions["grey"] + fractions["csf"], 1e-6)
    return result | {name: fractions[name] / total * left for name in ("white", "grey", "csf")}
