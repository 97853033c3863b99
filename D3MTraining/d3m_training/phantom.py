"""A simulated patient: ICBM152 tissue, a glioma, and four scans from signal equations.

The tissue maps are the ICBM152 2009a ones that nilearn ships (Copyright (C) 1993-2009 Louis Collins, McConnell Brain
Imaging Centre, Montreal Neurological Institute, McGill University; Fonov et al. 2011,
doi:10.1016/j.neuroimage.2010.07.033).
Signal: inversion recovery and spin echo (Bernstein, King and Zhou 2004, Handbook of MRI Pulse Sequences, ch. 14).
Relaxation times at 3 T: grey and white matter near Wansapura et al. 1999, doi:10.1002/(SICI)1522-2586(199904)9:4<531;
CSF, vessels, choroid plexus and tumour have plausible values that were chosen for appearance.
Relaxivity of gadolinium 4.5 /(mM s), Rohrer et al. 2005, doi:10.1097/01.rli.0000184756.66360.d3.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

from d3m.system.folders import check_output, whole_folder
from d3m.system.manifest import FolderKind
from d3m_training.phantom_anatomy import Anatomy, TumourShape, make_anatomy

SHAPE, AFFINE = (240, 240, 155), np.array([[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]], float)
"""Grid of the BraTS data: LPS, 1 mm."""
RELAXIVITY = 4.5
"""Of gadolinium, 1 / (mM s)."""
LEVELS = 110.0
"""The brightest one per thousand of a scan gets this value, so that the files stay small."""


@dataclass(frozen=True)
class Tissue:
    """Proton density (water is 1), T1 and T2 in seconds, and the gadolinium that it takes up in mM."""

    density: float
    t1: float
    t2: float
    gadolinium: float = 0.0


TISSUES = {
    "white": Tissue(0.70, 0.832, 0.075),
    "grey": Tissue(0.83, 1.331, 0.098),
    "csf": Tissue(0.94, 3.8, 0.8),
    "oedema": Tissue(0.84, 1.40, 0.150),
    "necrosis": Tissue(0.94, 2.0, 0.20),
    "rim": Tissue(0.84, 1.30, 0.095, 0.22),
    "vessel": Tissue(0.85, 1.60, 0.055, 0.34),
    "choroid": Tissue(0.90, 1.80, 0.180, 0.20),
}


@dataclass(frozen=True)
class Phantom:
    """Four scans and the truth, all on one grid."""

    t1: np.ndarray
    """(X, Y, Z) uint8, 0 outside the brain."""
    t2: np.ndarray
    flair: np.ndarray
    t1c: np.ndarray
    seg: np.ndarray
    """(X, Y, Z) uint8: 1 necrosis, 2 oedema, 4 enhancing tumour."""
    affine: np.ndarray
    """Voxel index to RAS millimetres."""


def inversion_recovery(tissue: Tissue, repetition: float, inversion: float, echo: float, gadolinium: bool) -> float:
    """|PD (1 - 2 exp(-TI / T1) + exp(-TR / T1)) exp(-TE / T2)|, times in seconds."""
    t1 = _t1(tissue, gadolinium)
    magnetisation = 1 - 2 * np.exp(-inversion / t1) + np.exp(-repetition / t1)
    return float(abs(tissue.density * magnetisation * np.exp(-echo / tissue.t2)))


def spin_echo(tissue: Tissue, repetition: float, echo: float) -> float:
    """PD (1 - exp(-TR / T1)) exp(-TE / T2), times in seconds."""
    return float(tissue.density * (1 - np.exp(-repetition / tissue.t1)) * np.exp(-echo / tissue.t2))


def _t1(tissue: Tissue, gadolinium: bool) -> float:
    """1 / T1 grows by relaxivity times concentration."""
    rate = 1 / tissue.t1 + (RELAXIVITY * tissue.gadolinium if gadolinium else 0.0)
    return 1 / rate


def make_phantom(seed: int, tumour: TumourShape | None = TumourShape(), spacing_mm: float = 1.0) -> Phantom:  # noqa: B008
    """Simulate a patient.

    Args:
        seed: Decides shape of brain and tumour, texture, bias field and noise.
        tumour: Where and how large, or None for a healthy brain.
        spacing_mm: Voxel size; the field of view is that of BraTS.
    """
    scale = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    shape = tuple(max(int(n / spacing_mm), 1) for n in SHAPE)
    anatomy = make_anatomy(seed, tumour, AFFINE @ scale, shape, spacing_mm)
    rng = np.random.default_rng((seed, 1))
    texture = _texture(rng, shape, spacing_mm)
    signals = {
        "t1": {n: inversion_recovery(t, 2.3, 1.0, 0.003, False) for n, t in TISSUES.items()},
        "t2": {n: spin_echo(t, 4.5, 0.08) for n, t in TISSUES.items()},
        "flair": {n: inversion_recovery(t, 9.0, 2.5, 0.11, False) for n, t in TISSUES.items()},
        "t1c": {n: inversion_recovery(t, 2.3, 1.0, 0.003, True) for n, t in TISSUES.items()},
    }
    fields = {
        "t1": (bias := _bias_field(rng, shape)),
        "t2": _bias_field(rng, shape),
        "flair": _bias_field(rng, shape),
        "t1c": bias,
    }
    scans = {
        name: _scan(anatomy, signals[name], texture, fields[name], rng, 0.013 if name in ("t1", "t1c") else 0.018)
        for name in ("t1", "t2", "flair", "t1c")
    }
    gain = LEVELS / np.percentile(scans["t1c"][anatomy.brain], 99.9)  # one scanner: T1 and T1c share their scale
    scaled = {
        name: np.rint(
            scan * (gain if name in ("t1", "t1c") else LEVELS / np.percentile(scan[anatomy.brain], 99.9))
        ).clip(1, 255)
        for name, scan in scans.items()
    }
    images = {name: np.where(anatomy.brain, scan, 0).astype(np.uint8) for name, scan in scaled.items()}
    return Phantom(**images, seg=anatomy.labels, affine=AFFINE @ scale)


def _scan(
    anatomy: Anatomy,
    signal: dict[str, float],
    texture: np.ndarray,
    bias: np.ndarray,
    rng: np.random.Generator,
    noise: float,
) -> np.ndarray:
    """Partial volumes times signals, blurred by the point spread, with bias field and Rician noise."""
    image = np.zeros(anatomy.brain.shape, np.float32)
    for name, fraction in anatomy.fractions.items():
        image += fraction * np.float32(signal[name])
    # the outermost voxels hold dark bone and dura as well
    edge = np.clip(ndimage.gaussian_filter(anatomy.brain.astype(np.float32), 0.9) * 1.7 - 0.5, 0.12, 1)
    image = ndimage.gaussian_filter(image * texture, 0.45) * edge * bias
    sigma = noise * signal["white"] * (2.0 if signal["white"] < 0.2 else 1.0)
    real = image + rng.normal(0, sigma, image.shape).astype(np.float32)
    return np.hypot(real, rng.normal(0, sigma, image.shape).astype(np.float32))


def _texture(rng: np.random.Generator, shape: tuple[int, ...], spacing: float) -> np.ndarray:
    """Tissue is not uniform: fine and coarse multiplicative variation of a few per cent."""
    result = np.ones(shape, np.float32)
    for sigma_mm, share in ((1.2, 0.03), (6.0, 0.03)):
        field = ndimage.gaussian_filter(rng.normal(size=shape).astype(np.float32), sigma_mm / spacing)
        result += np.float32(share) * field / field.std()
    return result


def _bias_field(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """exp of a random smooth polynomial: some 10 per cent from side to side."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij", sparse=True)
    c = rng.normal(0, 0.07, 6)
    return np.exp(c[0] * x + c[1] * y + c[2] * z + c[3] * x * y + c[4] * (x**2 - 0.3) + c[5] * (z**2 - 0.3)).astype(
        np.float32
    )


SAMPLE = FolderKind("sample", "an earlier sample case")


def write_sample(out: Path, seed: int = 11) -> None:
    """Write the sample case: `sample_{t1,t2,flair,t1c,seg}.nii.gz`.

    Args:
        out: The folder; an earlier sample case there is replaced.
        seed: The one that ships is 11.

    Raises:
        D3MError: the folder holds something else, or cannot be written.
    """
    check_output(out, SAMPLE, True)
    phantom = make_phantom(seed)
    with whole_folder(out, SAMPLE) as place:
        for name in ("t1", "t2", "flair", "t1c", "seg"):
            image = nibabel.Nifti1Image(getattr(phantom, name), phantom.affine)
            image.header.set_xyzt_units("mm")
            image.header["descrip"] = b"simulated patient, no real data"
            with (place / f"sample_{name}.nii.gz").open("wb") as f, gzip.GzipFile("", "wb", 9, f, mtime=0) as packed:
                packed.write(image.to_bytes())
