"""Values without physical sense, parts of the brain that a scan or a mask lacks, two files for one contrast."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from d3m.batch.cases import find_cases
from d3m.errors import D3MError
from d3m.volumes.io.naming import doubled
from d3m.volumes.preprocess.case import read_case
from d3m.volumes.preprocess.coverage import gap_of, place_of
from d3m.volumes.preprocess.values import check_values
from d3m.volumes.types import Volume
from engine.volume_helpers import brains, lps_affine, put, with_head

AFFINE = lps_affine()


@pytest.fixture(scope="module")
def scans() -> list[np.ndarray]:
    """T1, T2, FLAIR of a stripped brain."""
    return brains()


def paths(folder: Path, scans: list[np.ndarray], affines: tuple[np.ndarray, ...] = (AFFINE,) * 3) -> list[Path]:
    """The three scans as files."""
    return [put(folder / f"{n}.nii.gz", s, a) for n, s, a in zip(("t1", "t2", "flair"), scans, affines, strict=True)]


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("kind", ["stripped", "head"])
def test_wrapped_numbers(tmp_path: Path, scans: list[np.ndarray], which: int, kind: str) -> None:
    """Unsigned numbers that were stored as signed ones: the brightest are negative. Refused by name, with the count."""
    changed = [s.copy() for s in scans]
    full = changed[which] / changed[which].max() * 65000
    wrapped = np.rint(full).astype("u2").view("i2").astype(np.float32)
    if kind == "head":
        changed = [ndimage.gaussian_filter(with_head(s), 0.7) for s in changed]  # tissues mix, as in any real voxel
        wrapped = np.rint(changed[which] / changed[which].max() * 65000).astype("u2").view("i2").astype(np.float32)
    changed[which] = wrapped
    with pytest.raises(D3MError, match="16-bit numbers have wrapped around") as caught:
        read_case(*paths(tmp_path, changed))
    assert caught.value.message.startswith(("T1", "T2", "FLAIR")[which])


def test_negative_values_that_are_meant(scans: list[np.ndarray]) -> None:
    """Offsets, all-negative scans, a little ringing and values around zero are no wrap and no CT."""
    t1 = scans[0]
    inside = ndimage.binary_fill_holes(t1 > 0)
    ringing = np.where(inside, t1 - 0.1 * t1.max() * (np.random.default_rng(0).random(t1.shape) < 0.01), 0)
    normalised = np.where(inside, (t1 - t1[inside].mean()) / t1[inside].std(), 0)
    for data in (t1 - 1024, t1 + 100, t1 - t1.max(), ringing, normalised, 14 * t1 - 1024, 1000 * t1 / t1.max() - 1000):
        check_values(data.astype(np.float32), inside, True, "t1")


@pytest.mark.parametrize("offset", [0, 1024])
@pytest.mark.parametrize("contrast", ["t1", "flair"])
def test_ct(tmp_path: Path, scans: list[np.ndarray], contrast: str, offset: int) -> None:
    """Hounsfield units, also shifted to be positive, are told as a CT; whatever it is given for."""
    away = ndimage.distance_transform_edt(scans[0] == 0)
    noise = np.random.default_rng(0).normal(0, 4, scans[0].shape)
    tissue = np.where(scans[0] > 80, 28, 37) + noise
    units = np.select([away == 0, away <= 2, away <= 6, away <= 9], [tissue, 12, 1200, 45], -1000) + offset
    heads = dict(zip(("t1", "t2", "flair"), (with_head(s) for s in scans), strict=True))
    heads[contrast] = units.astype(np.float32)
    with pytest.raises(D3MError, match=f"{contrast.upper()} looks like a CT"):
        read_case(*paths(tmp_path, list(heads.values())))


@pytest.mark.parametrize(("planes", "words"), [
    (np.s_[:, :, 31:], r"the top \d mm of the brain"), (np.s_[:, :, :9], r"the bottom \d mm of the brain"),
    (np.s_[:12], r"the right \d mm of the brain"), (np.s_[:, 18:26], r"a band of 8 mm, .* from the front of the brain"),
])  # fmt: skip
@pytest.mark.parametrize("which", [1, 2])
def test_where_a_scan_has_no_data(
    tmp_path: Path, scans: list[np.ndarray], which: int, planes: tuple[slice, ...], words: str
) -> None:
    """A scan that was filled up with zeros, by whatever little: nothing is synthesised there, and it is said where."""
    changed = [s.copy() for s in scans]
    changed[which][planes] = 0
    case = read_case(*paths(tmp_path, changed))
    notices = [n for n in case.notices if n.code == "gap"]
    assert [n.volume for n in notices] == [("t1", "t2", "flair")[which]]
    whole = ndimage.binary_fill_holes(scans[0] > 0)
    lost = np.zeros_like(whole)
    lost[planes] = whole[planes]
    assert (case.brain & lost).sum() < 0.02 * lost.sum()
    assert (whole & ~lost & ~case.brain).sum() < 50
    assert re.search(words, notices[0].message), notices[0].message


@pytest.mark.parametrize("which", [0, 2])
def test_what_was_filled_with_another_value_than_the_background(
    tmp_path: Path, scans: list[np.ndarray], which: int
) -> None:
    """A slab that was turned, filled up with a constant and cut out along the whole brain shows nothing beyond it."""
    whole = ndimage.binary_fill_holes(scans[0] > 0)
    x, _, z = (g - (n - 1) / 2 for g, n in zip(np.indices(whole.shape), whole.shape, strict=True))
    beyond = whole & (np.abs(x + 0.08 * z) > 7)
    changed = [s.copy() for s in scans]
    changed[which][beyond] = 0.125
    case = read_case(*paths(tmp_path, changed))
    assert [n.volume for n in case.notices if n.code == "gap"] == [("t1", "t2", "flair")[which]]
    assert (case.brain & beyond).sum() < 0.02 * beyond.sum()
    assert (whole & ~beyond & ~case.brain).sum() < 50


def test_dark_fluid_without_noise_is_no_gap(tmp_path: Path) -> None:
    """A windowed scan shows fluid as one value, in the ventricles and at the surface; none of it is a gap."""
    shape = (96, 112, 80)
    scans = [np.kron(s, np.ones((2, 2, 2), np.float32)) for s in brains()]  # twice as large: 8 mm of fluid
    whole = ndimage.binary_fill_holes(scans[0] > 0)
    fluid = (scans[0] > 0) & (ndimage.median_filter(scans[0], 5) < 40)
    assert fluid.sum() > 4000
    depth = ndimage.distance_transform_edt(whole)
    scans[0][fluid | (whole & (depth < 3.5))] = 1
    affine = lps_affine(shape)
    case = read_case(*paths(tmp_path, scans, (affine,) * 3))
    assert "gap" not in [n.code for n in case.notices]
    assert (whole & ~case.brain).sum() == 0


def test_a_ragged_edge_is_no_gap() -> None:
    """A scan that was stripped by itself lacks crumbs of the others' brain all over its edge: none is a gap, however
    many there are; a larger piece is."""
    shape = (90, 90, 90)
    radius = np.sqrt(sum((axis - 45.0) ** 2 for axis in np.indices(shape)))
    brain, shown = radius < 40, radius < 40
    crumbs = np.zeros(shape, bool)
    for place in itertools.product((25, 45, 65), repeat=3):
        if place != (45, 45, 45):
            away = np.array(place) - 45
            x, y, z = np.rint(45 + 35 * away / np.linalg.norm(away)).astype(int)
            crumbs[x - 4 : x + 5, y - 4 : y + 5, z - 4 : z + 5] = True
    volume = Volume(np.where(brain, np.float32(1), np.float32(0)), np.eye(4))
    assert not gap_of(brain, shown & ~crumbs, volume, volume).any()
    hole = np.zeros(shape, bool)
    hole[10:25, 38:53, 38:53] = True
    gap = gap_of(brain, shown & ~crumbs & ~hole, volume, volume)
    assert gap[hole & brain].all()
    assert not (gap & ~hole & ~crumbs).any()


def test_a_box_that_ends_below_the_vertex(tmp_path: Path, scans: list[np.ndarray]) -> None:
    """A scan with fewer slices: beyond its box nothing is synthesised, however little it is."""
    affine = AFFINE.copy()
    changed = [scans[0], np.ascontiguousarray(scans[1][:, :, :32]), scans[2]]
    case = read_case(*paths(tmp_path, changed, (AFFINE, affine, AFFINE)))
    assert not case.brain[:, :, 32:].any()
    [notice] = [n for n in case.notices if n.code == "gap"]
    assert re.search(r"T2 does not cover the top [23] mm of the brain", notice.message)


def test_a_thick_t1_beside_thin_scans_has_no_gap(tmp_path: Path, scans: list[np.ndarray]) -> None:
    """T1 of 6 mm beside 1 mm: the borders differ by half a slice, which is no gap; nothing of the brain is lost."""
    thick = np.stack([scans[0][:, :, k : k + 6].mean(axis=2) for k in range(0, 36, 6)], axis=2)
    affine = AFFINE @ np.diag([1, 1, 6, 1.0])
    affine[:3, 3] = (AFFINE @ [0, 0, 2.5, 1])[:3]
    case = read_case(*paths(tmp_path, [thick, scans[1], scans[2]], (affine, AFFINE, AFFINE)))
    assert "gap" not in [n.code for n in case.notices]
    assert ("thick-slices", "t1") in [(n.code, n.volume) for n in case.notices]


def test_a_brain_mask_without_the_tumour(tmp_path: Path) -> None:
    """A mask that leaves out what all scans show is said with millilitres and place; a tight one is not."""
    scans = brains(lesion=7)
    t1, t2, flair = paths(tmp_path, scans)
    brain = ndimage.binary_fill_holes(scans[0] > 0)
    x, y, z = (g - (n - 1) / 2 for g, n in zip(np.indices(brain.shape), brain.shape, strict=True))
    tumour = np.sqrt((x - 8) ** 2 + (y + 6) ** 2 + (z - 1) ** 2) < 10
    mask = put(tmp_path / "mask.nii.gz", (brain & ~tumour).astype(np.float32), AFFINE)
    case = read_case(t1, t2, flair, mask)
    [notice] = [n for n in case.notices if n.code == "mask-leaves-out"]
    expected = (brain & tumour).sum() / 1000
    assert f"{expected:.0f} ml of brain that T1, T2, FLAIR show" in notice.message
    tight = put(tmp_path / "tight.nii.gz", ndimage.binary_erosion(brain, iterations=2).astype(np.float32), AFFINE)
    assert "mask-leaves-out" not in [n.code for n in read_case(t1, t2, flair, tight).notices]


def test_places_in_words() -> None:
    """A piece inside is said by its depth; flipped lattices name the same side."""
    brain = np.zeros((40, 40, 40), bool)
    brain[5:35, 5:35, 5:35] = True
    part = np.zeros_like(brain)
    part[5:9, 5:35, 5:35] = True
    assert place_of(part, brain, np.eye(4)) == "the left 4 mm of the brain"
    assert place_of(part, brain, np.diag([-2.0, 1, 1, 1])) == "the right 8 mm of the brain"
    part[:] = False
    part[15:20, 15:20, 20:25] = True
    assert "mm below its top" in place_of(part, brain, np.eye(4))


def test_two_files_for_one_contrast(tmp_path: Path, scans: list[np.ndarray]) -> None:
    """Which of P1_flair and P1_FLAIR, or of P2_t1 packed and unpacked, is meant cannot be known: the case says so, the
    others go on."""
    for name in ("P1_t1", "P1_t2", "P1_flair", "P1_FLAIR", "P2_t1", "P2_t2", "P2_flair", "P3_t1", "P3_t2", "P3_flair"):
        put(tmp_path / f"{name}.nii.gz", scans[0], AFFINE)
    put(tmp_path / "P2_t1.nii", scans[0] * 2, AFFINE)
    one, two, three = find_cases(tmp_path)
    assert one.problem == "Several files could be its FLAIR: ..._FLAIR.nii.gz, ..._flair.nii.gz."
    assert two.problem == "Several files could be its T1: ..._t1.nii, ..._t1.nii.gz."
    assert three.problem == ""
    assert doubled(["a_t1.nii", "a_t1ce.nii.gz", "a_t2.nii"]) == {}


def test_deeper_folders(tmp_path: Path, scans: list[np.ndarray]) -> None:
    """Scans deeper down are found where nothing lies above them, and said to be left alone where something does."""
    for place in ("site/p1", "p2", "p2/raw", "p2/raw/older"):
        (tmp_path / place).mkdir(parents=True)
        for contrast in ("t1", "t2", "flair"):
            put(tmp_path / place / f"{place.split('/')[-1]}_{contrast}.nii.gz", scans[0], AFFINE)
    (tmp_path / "site/loop").symlink_to(tmp_path)
    cases = {case.id: case for case in find_cases(tmp_path)}
    assert set(cases) == {"p1", "p2"}
    assert not cases["p1"].notices
    assert cases["p2"].notices[0].message.startswith("2 deeper folders with scans were left alone")
