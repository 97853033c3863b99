"""Prepared patients: synthesis' own grid, a target on T1's scale, entries that are whole or made again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from conftest import AFFINE, SHAPE, TinyCase
from d3m.errors import D3MError
from d3m.volumes.grid import to_model_input
from d3m.volumes.preprocess.case import read_case, read_volume
from d3m.volumes.types import Case, GridRecipe, Volume
from d3m_training.data.cache import (
    ENHANCING,
    NECROSIS,
    OEDEMA,
    TARGET_UPPER,
    Prepared,
    fingerprint,
    is_whole,
    open_entry,
    prepare,
    scale_target,
    write_entry,
)
from d3m_training.data.preparation import PrepareOptions, prepare_cache
from training.data_helpers import write_patient

RECIPE = GridRecipe()
STRIDE = 16


def _read(case: TinyCase) -> tuple[Case, Volume, Volume]:
    labels = np.asarray(nibabel.load(case.seg).dataobj)
    coded = np.select([labels == 1, labels == 2, labels == 4], [NECROSIS, OEDEMA, ENHANCING], 0).astype(np.float32)
    t1c = read_volume(case.t1c, "t1c")
    return read_case(case.t1, case.t2, case.flair), t1c, Volume(coded, t1c.affine)


def _small(name: str = "p") -> Prepared:
    rng = np.random.default_rng(1)
    regions = rng.integers(0, 2, (3, 2, 16, 16)).astype(np.uint8)
    regions[1, 1, :4, :4] = ENHANCING
    return Prepared(name, rng.random((3, 4, 16, 16)).astype(np.float16), regions, True)


def test_entry_is_what_synthesis_sees(tiny_case: TinyCase, tmp_path: Path) -> None:
    """Training sees exactly the slices that synthesis makes, and every label voxel at its place."""
    case, t1c, labels = _read(tiny_case)
    write_entry(tmp_path, prepare("p", case, t1c, labels, RECIPE, STRIDE), "key")
    entry = open_entry(tmp_path, "p")
    model_input = to_model_input(case, RECIPE, STRIDE)
    np.testing.assert_allclose(entry.scans[:, :3], model_input.slices, atol=1e-3)
    np.testing.assert_array_equal(entry.regions[:, 0], model_input.brain)
    assert entry.scans.shape[2] % STRIDE == entry.scans.shape[3] % STRIDE == 0
    assert entry.labelled
    index = np.argwhere(labels.data == ENHANCING)
    where = nibabel.affines.apply_affine(np.linalg.inv(model_input.grid.affine) @ AFFINE, index).round().astype(int)
    assert (entry.regions[where[:, 2], 1, where[:, 1], where[:, 0]] == ENHANCING).all()
    assert entry.enhancing_voxels.sum() == len(index)
    assert entry.tumour_voxels.sum() == (labels.data > 0).sum()
    assert entry.brain_voxels.sum() == model_input.brain.sum()
    rim = entry.regions[:, 1] == ENHANCING
    assert float(entry.scans[:, 3][rim].mean()) > 1.2 * float(entry.scans[:, 0][rim].mean())


def test_stored_orientation_does_not_matter(tiny_case: TinyCase, tmp_path: Path) -> None:
    """A patient stored in another orientation becomes the same entry."""
    paths = {}
    reorientation = ornt_transform(io_orientation(AFFINE), axcodes2ornt(("S", "R", "A")))
    for name in ("t1", "t2", "flair", "t1c", "seg"):
        paths[name] = tmp_path / f"{name}.nii.gz"
        nibabel.save(nibabel.load(getattr(tiny_case, name)).as_reoriented(reorientation), paths[name])
    one = prepare("p", *_read(tiny_case), RECIPE, STRIDE)
    other = prepare("p", *_read(replace(tiny_case, **paths)), RECIPE, STRIDE)
    np.testing.assert_allclose(other.scans, one.scans, atol=2e-3)
    np.testing.assert_array_equal(other.regions, one.regions)


def test_without_labels(tiny_case: TinyCase) -> None:
    """Without annotation the labels are all 0 and said to mean nothing."""
    case, t1c, _ = _read(tiny_case)
    prepared = prepare("p", case, t1c, None, RECIPE, STRIDE)
    assert not prepared.labelled
    assert not prepared.regions[:, 1].any()


def test_target_is_on_t1s_scale() -> None:
    """Normal tissue of T1c gets T1's median and quartile range, whatever T1c's units; enhancement stays brighter."""
    rng = np.random.default_rng(0)
    t1 = rng.uniform(0.2, 0.8, SHAPE).astype(np.float32)
    brain, tumour = np.zeros((2, *SHAPE), bool)
    brain[5:40, 5:50, 5:35] = True
    tumour[20:24, 20:24, 20:24] = True
    t1c = 37 + 412 * t1
    t1c[tumour] += 412 * 0.5
    scaled = scale_target(t1, t1c, brain, tumour, RECIPE)
    normal = brain & ~tumour
    np.testing.assert_allclose(scaled[normal], t1[normal], atol=1e-4)
    np.testing.assert_allclose(scaled[tumour], t1[tumour] + 0.5, atol=1e-4)
    assert not scaled[~brain].any()
    bright = scale_target(t1, np.where(tumour, 1e6, t1c).astype(np.float32), brain, tumour, RECIPE)
    assert bright.max() == TARGET_UPPER
    np.testing.assert_allclose(bright[normal], t1[normal], atol=1e-4)


@pytest.mark.parametrize("over", ["brain", "volume"])
def test_target_by_its_own_percentiles(over: str) -> None:
    """The published way: T1c's own percentiles become 0 and 1, over the brain or the whole volume."""
    rng = np.random.default_rng(0)
    t1c = rng.normal(500, 100, SHAPE).astype(np.float32)
    brain = np.zeros(SHAPE, bool)
    brain[10:30, 10:30, 10:30] = True
    t1c[~brain] *= 0.1
    recipe = GridRecipe(target="percentile", percentiles_over=over)  # type: ignore[arg-type]
    low, high = np.percentile(t1c[brain] if over == "brain" else t1c, (0.5, 99.5))
    expected = np.where(brain, np.clip((t1c - low) / (high - low), 0, 1), 0)
    np.testing.assert_allclose(scale_target(t1c, t1c, brain, ~brain, recipe), expected, atol=1e-5)


def test_fingerprint_changes_with_all_that_matters() -> None:
    """Another scan, recipe or network makes an entry stale; nothing else does."""
    key = fingerprint(["a", "b"], RECIPE, STRIDE)
    assert key == fingerprint(["a", "b"], GridRecipe(), STRIDE)
    others = [
        fingerprint(["a", "c"], RECIPE, STRIDE),
        fingerprint(["b", "a"], RECIPE, STRIDE),
        fingerprint(["a", "b"], replace(RECIPE, target="percentile"), STRIDE),
        fingerprint(["a", "b"], RECIPE, 2 * STRIDE),
    ]
    assert len({key, *others}) == 5


@pytest.mark.parametrize("damage", ["voxel", "cut", "header", "json", "list", "no hash", "count", "gone"])
def test_damage_is_noticed(damage: str, tmp_path: Path) -> None:
    """An entry that a full disk or a bad copy has spoilt is not whole, however it is spoilt."""
    write_entry(tmp_path, _small(), "key")
    assert is_whole(tmp_path, "p", "key", thorough=True)
    assert is_whole(tmp_path, "p")
    assert not is_whole(tmp_path, "p", "other")
    assert not is_whole(tmp_path, "q")
    scans, entry = tmp_path / "p" / "scans.npy", tmp_path / "p" / "entry.json"
    content = scans.read_bytes()
    if damage == "voxel":
        scans.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    elif damage == "cut":
        scans.write_bytes(content[:-10])
    elif damage == "header":
        scans.write_bytes(bytes(16) + content[16:])
    elif damage == "json":
        entry.write_text(entry.read_text()[:20])
    elif damage == "list":
        entry.write_text("[]")
    elif damage == "count":
        fields = json.loads(entry.read_text())
        fields["tumour_voxels"][0] += 1
        entry.write_text(json.dumps(fields))
    elif damage == "no hash":
        fields = json.loads(entry.read_text())
        del fields["sha256"]
        entry.write_text(json.dumps(fields))
    else:
        scans.unlink()
    assert not is_whole(tmp_path, "p", "key", thorough=True)


@pytest.mark.parametrize(("old", "new"), [(b"'<f2'", b"'>f2'"), (b"False", b"Fals\xe5"), (b"(2, 4,", b"(2, 0,")])
def test_flipped_bits_in_a_header(old: bytes, new: bytes, tmp_path: Path) -> None:
    """A header that calls the same bytes other numbers, or is none any more: the entry is damaged."""
    scans = np.random.default_rng(0).random((2, 4, 8, 8)).astype(np.float16)
    write_entry(tmp_path, Prepared("p", scans, np.zeros((2, 2, 8, 8), np.uint8), True), "key")
    path = tmp_path / "p/scans.npy"
    assert is_whole(tmp_path, "p", thorough=True)
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    assert not is_whole(tmp_path, "p", thorough=True)


def test_entries_are_replaced_whole(tmp_path: Path) -> None:
    """What an interrupted run left is swept away, and arrays are mapped, not read."""
    (tmp_path / ".p.partial").mkdir()
    (tmp_path / ".p.partial" / "scans.npy").write_bytes(b"half")
    write_entry(tmp_path, _small(), "old")
    write_entry(tmp_path, replace(_small(), labelled=False), "new")
    assert [p.name for p in tmp_path.iterdir()] == ["p"]
    assert is_whole(tmp_path, "p", "new", thorough=True)
    entry = open_entry(tmp_path, "p")
    assert isinstance(entry.scans, np.memmap)
    assert not entry.labelled
    assert entry.enhancing_voxels.tolist() == [0, 16, 0]


def test_patients_without_t2_are_taken_if_asked_for(tmp_path: Path) -> None:
    """By default who lacks T2 is a fault; for a model that can do without it, T2 is 0 in the cache."""
    for seed, name in enumerate(("a", "b")):
        paths = write_patient(tmp_path / "data", name, seed=seed)
    paths["t2"].unlink()
    with pytest.raises(D3MError, match="cannot be used"):
        prepare_cache([tmp_path / "data"], tmp_path / "c", PrepareOptions(sizes=(2, 0, 0), workers=1), lambda _: None)
    options = PrepareOptions(sizes=(2, 0, 0), workers=1, without_t2=True)
    assert prepare_cache([tmp_path / "data"], tmp_path / "cache", options, lambda _: None) == 2
    with_t2, without = (open_entry(tmp_path / "cache", name).scans for name in ("a", "b"))
    assert with_t2[:, 1].any()
    assert not without[:, 1].any()
    assert without[:, 0].any()
    assert without[:, 2].any()


def test_a_split_corrected_by_hand_is_kept(tmp_path: Path) -> None:
    """Preparing again writes its own split and keeps the one that somebody changed, saying where."""
    for seed, name in enumerate("ab"):
        write_patient(tmp_path / "data", name, seed=seed)
    split, said = tmp_path / "cache/split.json", list[str]()

    def prepare(seed: int) -> str:
        prepare_cache(
            [tmp_path / "data"], split.parent, PrepareOptions(sizes=(1, 1, 0), workers=1, seed=seed), said.append
        )
        return split.read_text(encoding="utf-8")

    first = prepare(0)
    assert prepare(1) != first
    assert not list(split.parent.glob("split-*"))
    split.write_text('{"train": ["b"], "validation": ["a"]}')
    prepare(0)
    assert split.with_name("split-1.json").read_text() == '{"train": ["b"], "validation": ["a"]}'
    assert [line for line in said if "split-1.json" in line]
    assert split.read_text(encoding="utf-8") == first
