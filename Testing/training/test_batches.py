"""Batches: what is drawn, and that augmentation keeps scans, target and labels together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from d3m_training.data.batches import Batch, Batches, BatchSettings
from d3m_training.data.cache import ENHANCING, NECROSIS, OEDEMA, TARGET_UPPER, Entry, Prepared, open_entry, write_entry

STILL = BatchSettings(
    size=8, crop=32, min_brain_voxels=10, centred=True, flip=False, rotation_degrees=0, scaling=0, elastic_pixels=0,
    gamma=0, gain=0, bias_field=0, noise=0, blur_share=0,
)  # fmt: skip


def _entry(folder: Path, name: str, *, size: int = 32, labelled: bool = True, enhancing: bool = True) -> Entry:
    """Six slices: T1 is the slice's number / 10, T2 a ramp along columns, FLAIR one along rows; slice 0 is empty."""
    y, x = np.mgrid[:size, :size]
    scans = np.zeros((6, 4, size, size))
    brain = np.broadcast_to(np.hypot(y - size / 2, x - size / 2) < 0.45 * size, (6, size, size)).copy()
    brain[0] = False
    scans[:, 0] = np.arange(6)[:, None, None] / 10
    scans[:, 1], scans[:, 2] = x / size, y / size
    label = np.zeros(brain.shape, np.uint8)
    if labelled:
        label[3, size // 4 : size // 2, size // 2 : 3 * size // 4] = ENHANCING if enhancing else NECROSIS
        label[4, size // 4 : size // 2, size // 2 : 3 * size // 4] = OEDEMA
    scans[:, 3] = np.where(label == ENHANCING, 1.5, scans[:, 0])
    regions = np.stack([brain, label], axis=1).astype(np.uint8)
    write_entry(folder, Prepared(name, (scans * brain[:, None]).astype(np.float16), regions, labelled), "key")
    return open_entry(folder, name)


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    """Two patients of different sizes with, one without enhancement, one without labels."""
    folder = tmp_path_factory.mktemp("cache")
    return [
        _entry(folder, "a"),
        _entry(folder, "b", size=48),
        _entry(folder, "c", enhancing=False),
        _entry(folder, "d", labelled=False),
    ]


def _same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in Batch.__dataclass_fields__)


def test_a_batch_depends_on_its_number_alone(entries: list[Entry]) -> None:
    """A resumed training sees the same batches; another seed or number gives others."""
    settings = replace(BatchSettings(), size=4, crop=32, min_brain_voxels=10)
    first = [Batches(entries, settings, seed=3).draw(k) for k in range(3)]
    later = Batches(entries, settings, seed=3)
    assert _same(later.draw(2), first[2])
    assert _same(later.draw(0), first[0])
    assert not torch.equal(first[0].condition, first[1].condition)
    assert not torch.equal(Batches(entries, settings, seed=4).draw(0).condition, first[0].condition)


def test_without_augmentation_slices_are_what_is_stored(entries: list[Entry]) -> None:
    """The published way cuts the middle out of the slice and changes no value; neighbours stand where they belong."""
    batch = Batches(entries[:1], replace(STILL, context=(-1, 0, 2)), seed=0).draw(0)
    assert batch.condition.shape == (8, 9, 32, 32)
    assert batch.t1.shape == batch.target.shape == batch.brain.shape == batch.label.shape == (8, 1, 32, 32)
    for n in range(8):
        z = round(10 * float(batch.t1[n, 0, 16, 16]))
        assert 1 <= z <= 5
        scans, regions = entries[0].scans.astype(np.float32), entries[0].regions
        brain = regions[z, 0]
        for c, offset in enumerate((-1, 0, 2)):
            stored = scans[min(z + offset, 5), :3] * brain
            np.testing.assert_allclose(batch.condition[n, 3 * c : 3 * c + 3], stored, atol=2e-5)
        np.testing.assert_allclose(batch.target[n, 0], scans[z, 3], atol=2e-5)
        np.testing.assert_array_equal(batch.label[n, 0], regions[z, 1])
        np.testing.assert_array_equal(batch.brain[n, 0], brain)


def test_shares_of_slices(entries: list[Entry]) -> None:
    """Enhancing slices are drawn as often as asked for, from every patient alike, and empty slices never."""
    batches = Batches(entries, replace(STILL, size=64, shares=(0.5, 0.25, 0.25)), seed=0)
    enhancing = tumour = count = 0
    for number in range(10):
        batch = batches.draw(number)
        has = (batch.label == ENHANCING).flatten(1).any(1)
        enhancing += int(has.sum())
        tumour += int(((batch.label > 0).flatten(1).any(1) & ~has).sum())
        count += len(has)
        assert batch.brain.flatten(1).any(1).all()
    assert enhancing / count == pytest.approx(0.5, abs=0.06)
    assert tumour / count == pytest.approx(0.25, abs=0.06)
    with pytest.raises(ValueError, match="enough brain"):
        Batches(entries, replace(STILL, min_brain_voxels=10_000), seed=0)


def test_a_set_without_enhancement_can_be_drawn(entries: list[Entry]) -> None:
    """Patients without enhancement, or without labels, fill batches by themselves; unknown labels are marked."""
    for chosen in (entries[2:], entries[3:]):
        batch = Batches(chosen, STILL, seed=1).draw(0)
        assert not (batch.label == ENHANCING).any()
        assert torch.isfinite(batch.condition).all()
    assert not Batches(entries[3:], STILL, seed=1).draw(0).labelled.any()
    assert Batches(entries[:3], STILL, seed=1).draw(0).labelled.all()


def test_scans_target_and_label_move_together(entries: list[Entry]) -> None:
    """After flip, rotation, scaling and elastic displacement the target's bright rim still lies under its label."""
    moving = replace(
        STILL, centred=False, flip=True, rotation_degrees=15, scaling=0.12, elastic_pixels=2, size=32,
        shares=(1.0, 0.0, 0.0), context=(-1, 0, 1),
    )  # fmt: skip
    batch = Batches(entries[:1], moving, seed=5).draw(0)
    label, brain = batch.label == ENHANCING, batch.brain > 0
    inner = -torch.nn.functional.max_pool2d(-label.float(), 5, 1, 2) > 0.5
    outer = torch.nn.functional.max_pool2d(label.float(), 5, 1, 2) > 0
    assert inner.sum() > 300
    assert (batch.target[inner & brain] > 1.45).all()
    assert (batch.target[~outer & brain] < 0.4).all()
    # the ramps say where a pixel comes from: inside the label they are those of the label's place
    x, y = batch.condition[:, 4:5][inner & brain] * 32, batch.condition[:, 5:6][inner & brain] * 32
    assert (x.min() > 15) & (x.max() < 24)
    assert (y.min() > 7) & (y.max() < 16)
    directions = batch.condition[:, 4].diff(dim=-1).flatten(1).median(dim=1).values
    assert (directions > 0).any()
    assert (directions < 0).any()  # left and right are exchanged in some


def test_colours_keep_their_ranges(entries: list[Entry]) -> None:
    """Contrast, noise and bias field change values, never the range, the outside or the labels; T1c changes with T1."""
    strong = replace(STILL, gamma=0.5, gain=0.3, bias_field=0.3, noise=0.05, blur_share=1.0, size=32)
    batch = Batches(entries, strong, seed=2).draw(0)
    still = Batches(entries, replace(STILL, size=32), seed=2).draw(0)
    assert torch.equal(batch.label, still.label)
    assert not torch.allclose(batch.condition, still.condition, atol=0.05)
    for image, upper in ((batch.condition, 1.0), (batch.target, TARGET_UPPER)):
        assert torch.isfinite(image).all()
        assert image.min() >= 0
        assert image.max() <= upper
        assert not (image * (1 - batch.brain)).any()
    exact = Batches(entries, replace(strong, noise=0, blur_share=0), seed=2).draw(0)
    normal = (exact.brain > 0) & (exact.label == 0) & (exact.t1 < 1)  # there T1c equals T1, also after the change
    torch.testing.assert_close(exact.target[normal], exact.t1[normal], atol=1e-3, rtol=0)


def test_the_upper_clip_is_the_recipes(entries: list[Entry]) -> None:
    """A recipe whose target ends at 1 never gets more."""
    batch = Batches(entries, replace(STILL, gain=0.5), seed=0, target_upper=1.0).draw(0)
    assert batch.target.max() <= 1


def test_contrasts_are_left_out_whole(entries: list[Entry]) -> None:
    """T2 or FLAIR is 0 in all of a slice's context in about the settings' share; never both, never T1, never T1c."""
    settings = replace(STILL, size=40, context=(0, 1), missing_shares=(0.4, 0.3))
    batch = Batches(entries, settings, seed=2).draw(0)
    usual = Batches(entries, replace(settings, missing_shares=(0.0, 0.0)), seed=2).draw(0)
    blank = batch.condition.unflatten(1, (2, 3)).flatten(3).abs().amax(3) == 0  # (N, context, contrast)
    assert (blank[:, :, 1:].all(1) | ~blank[:, :, 1:].any(1)).all()
    t2, flair = blank[:, 0, 1], blank[:, 0, 2]
    assert not (t2 & flair).any()
    assert 0.2 < t2.float().mean() < 0.6
    assert 0.1 < flair.float().mean() < 0.5
    assert torch.equal(batch.t1, usual.t1)
    assert torch.equal(batch.target, usual.target)
    kept = ~t2 & ~flair
    assert torch.equal(batch.condition[kept], usual.condition[kept])
