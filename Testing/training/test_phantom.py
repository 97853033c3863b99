"""The simulated patient: geometry, anatomy, signals, and the files that ship as sample case."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

import d3m

pytest.importorskip("nilearn", reason="the atlas comes with nilearn")

from d3m_training.phantom import AFFINE, SHAPE, TISSUES, Phantom, inversion_recovery, make_phantom, spin_echo
from d3m_training.phantom_anatomy import TumourShape

SPACING = 4.0
"""Millimetres; coarse, so that a phantom takes a second."""
SAMPLE = Path(d3m.__file__).resolve().parents[2] / "Resources" / "SampleData"
SCANS = ("t1", "t2", "flair", "t1c")


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    """A patient with a ring-enhancing glioma."""
    return make_phantom(3, spacing_mm=SPACING)


@pytest.fixture(scope="module")
def sample() -> dict[str, np.ndarray]:
    """The volumes that ship."""
    return {n: np.asarray(nibabel.load(SAMPLE / f"sample_{n}.nii.gz").dataobj) for n in (*SCANS, "seg")}


def test_field_of_view_is_that_of_brats(phantom: Phantom) -> None:
    """The grid spans the BraTS field of view at the wanted spacing; background is exactly 0 in every scan alike."""
    assert phantom.t1.shape == tuple(int(n / SPACING) for n in SHAPE)
    assert np.allclose(phantom.affine @ [1, 1, 1, 1], AFFINE @ [SPACING, SPACING, SPACING, 1])
    brain = phantom.t1 > 0
    assert all(np.array_equal(getattr(phantom, n) > 0, brain) for n in SCANS)
    assert 900 < brain.sum() * SPACING**3 / 1000 < 1900  # millilitres


def test_same_seed_same_patient(phantom: Phantom) -> None:
    """A seed decides everything; another seed is another person."""
    again, other = make_phantom(3, spacing_mm=SPACING), make_phantom(4, spacing_mm=SPACING)
    for name in (*SCANS, "seg"):
        assert np.array_equal(getattr(phantom, name), getattr(again, name))
        assert not np.array_equal(getattr(phantom, name), getattr(other, name))


def test_oedema_surrounds_rim_surrounds_necrosis(sample: dict[str, np.ndarray]) -> None:
    """Labels are those of BraTS, lie inside the brain, and are nested."""
    seg = sample["seg"]
    assert set(np.unique(seg)) == {0, 1, 2, 4}
    assert (sample["t1"][seg > 0] > 0).all()
    necrosis, rim = seg == 1, seg == 4
    neighbours = ndimage.binary_dilation(necrosis) & ~necrosis & (seg > 0)
    assert (seg[neighbours] == 4).mean() > 0.95
    outwards = ndimage.binary_dilation(rim) & ~rim & (seg > 0)
    assert set(np.unique(seg[outwards])) == {1, 2}
    assert ndimage.label(rim, np.ones((3, 3, 3)))[1] <= 3


def test_brain_is_neither_symmetric_nor_uniform(sample: dict[str, np.ndarray]) -> None:
    """The left half is not the mirrored right half, away from the tumour too."""
    t1 = sample["t1"].astype(float)
    mirrored = t1[::-1]  # the atlas' midline is the grid's
    both = (t1 > 0) & (mirrored > 0) & ~ndimage.binary_dilation(sample["seg"] > 0, iterations=8)
    both &= both[::-1]
    assert np.corrcoef(t1[both], mirrored[both])[0, 1] < 0.9


@pytest.mark.parametrize(
    ("scan", "darkest_first"),
    [("t1", ("csf", "necrosis", "grey", "white")), ("t2", ("white", "grey", "oedema", "necrosis", "csf"))],
)
def test_signal_order(scan: str, darkest_first: tuple[str, ...]) -> None:
    """Tissues follow each other as in every textbook's T1 and T2 images."""
    if scan == "t1":
        signals = [inversion_recovery(TISSUES[n], 2.3, 1.0, 0.003, False) for n in darkest_first]
    else:
        signals = [spin_echo(TISSUES[n], 4.5, 0.08) for n in darkest_first]
    assert signals == sorted(signals)
    assert min(b / max(a, 1e-9) for a, b in pairwise(signals)) > 1.03


def test_flair_nulls_fluid_and_shows_oedema(sample: dict[str, np.ndarray]) -> None:
    """In FLAIR oedema is brighter than the rest of the brain, and the ventricles, brightest in T2, are dark."""
    flair, seg = sample["flair"].astype(float), sample["seg"]
    healthy = np.median(flair[(flair > 0) & (seg == 0)])
    assert np.median(flair[seg == 2]) > 1.2 * healthy
    deep = ndimage.distance_transform_edt(flair > 0) > 25
    fluid = deep & (seg == 0) & (sample["t2"] > np.percentile(sample["t2"][flair > 0], 97))
    assert fluid.sum() > 1000
    assert np.median(flair[fluid]) < 0.6 * healthy


def test_enhancement_only_where_gadolinium_goes(sample: dict[str, np.ndarray]) -> None:
    """The rim enhances strongly and everything else, vessels apart, does not: T1 and T1c share their scale."""
    t1, seg = sample["t1"].astype(float), sample["seg"]
    gain = sample["t1c"] - t1
    white = np.percentile(t1[t1 > 0], 90)
    assert np.median(gain[seg == 4]) > 0.4 * white
    assert abs(np.median(gain[seg == 2])) < 0.03 * white
    inner = ndimage.binary_erosion(seg == 1)  # a voxel away from the rim, whose partial volume enhances
    assert inner.sum() > 500
    assert abs(np.median(gain[inner])) < 0.03 * white
    elsewhere = gain[(t1 > 0) & ~ndimage.binary_dilation(seg == 4, iterations=2)]
    share = (elsewhere > 0.3 * white).mean()
    assert 0.0005 < share < 0.03  # sinuses, veins, choroid plexus


@pytest.mark.long
def test_variants_of_the_tumour(phantom: Phantom) -> None:
    """A healthy brain has no labels, a tumour without enhancement no rim, a solid one hardly any necrosis."""
    healthy = make_phantom(3, None, SPACING)
    assert not healthy.seg.any()
    silent = make_phantom(3, TumourShape(enhancement="none"), SPACING)
    assert 4 not in silent.seg
    assert 2 in silent.seg
    solid = make_phantom(3, TumourShape(enhancement="solid"), SPACING)
    assert (solid.seg == 4).sum() > 10 * (solid.seg == 1).sum()
    small = make_phantom(3, TumourShape(radius_mm=10.0), SPACING)
    assert np.isin(small.seg, (1, 4)).sum() < 0.6 * np.isin(phantom.seg, (1, 4)).sum()


def test_sample_files(sample: dict[str, np.ndarray]) -> None:
    """BraTS geometry in every file, six megabytes in all, and the atlas' notice beside them."""
    for name, data in sample.items():
        image = nibabel.load(SAMPLE / f"sample_{name}.nii.gz")
        assert data.shape == SHAPE
        assert np.array_equal(image.affine, AFFINE)
        assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
    assert sum(path.stat().st_size for path in SAMPLE.glob("*.nii.gz")) <= 6_000_000
    notice = (SAMPLE / "README.md").read_text(encoding="utf-8")
    assert "Copyright (C) 1993-2009 Louis Collins" in notice
    assert "10.1016/j.neuroimage.2010.07.033" in notice


def test_sample_has_the_contrast_of_patients(sample: dict[str, np.ndarray]) -> None:
    """Quartiles between the 0.5th and 99.5th percentile are within 0.19 of the mean of 13 patients with gliomas."""
    patients = {"t1": (0.50, 0.63, 0.73), "t2": (0.27, 0.34, 0.42), "flair": (0.36, 0.44, 0.53)}
    for name, quartiles in patients.items():
        values = sample[name][sample[name] > 0].astype(float)
        low, high = np.percentile(values, (0.5, 99.5))
        found = np.percentile((values - low) / (high - low), (25, 50, 75))
        assert np.allclose(found, quartiles, atol=0.19), name
