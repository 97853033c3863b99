"""Three volumes in, a result out: orientation, scale, devices and memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from nibabel import orientations

from conftest import TinyCase
from d3m.errors import D3MError
from d3m.models.load import load_model
from d3m.options import SynthesisOptions
from d3m.progress import Progress
from d3m.synthesis import Result, Synthesis
from d3m.system import devices
from d3m.system.devices import choose_device
from d3m.volumes.preprocess.case import read_case


def _run(model: Path, t1: Path, t2: Path, flair: Path, **settings: object) -> Result:
    return Synthesis(load_model(model), SynthesisOptions(device="cpu", **settings)).run(read_case(t1, t2, flair))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def clean(tiny_case: TinyCase, tiny_model: Path) -> Result:
    """The result of the tiny case as it is."""
    return _run(tiny_model, tiny_case.t1, tiny_case.t2, tiny_case.flair)


def _turn(path: Path, codes: str, out: Path) -> Path:
    image = nibabel.load(path)
    change = orientations.ornt_transform(orientations.io_orientation(image.affine), orientations.axcodes2ornt(codes))
    nibabel.save(image.as_reoriented(change), out)
    return out


@pytest.mark.parametrize("codes", ["RAS", "PIR", "LAS", "RSA", "LPI", "ASL"])
def test_any_orientation_gives_the_same_picture(
    clean: Result, tiny_case: TinyCase, tiny_model: Path, tmp_path: Path, codes: str
) -> None:
    """Stored otherwise, each contrast differently, the result is the same in world space and lies on T1's own grid."""
    t1 = _turn(tiny_case.t1, codes, tmp_path / "t1.nii.gz")
    t2 = _turn(tiny_case.t2, "LAS", tmp_path / "t2.nii.gz")
    flair = _turn(tiny_case.flair, "RSA", tmp_path / "flair.nii.gz")
    result = _run(tiny_model, t1, t2, flair)
    turned = nibabel.load(t1)
    assert result.cemri.shape == turned.shape
    back = nibabel.Nifti1Image(result.cemri, turned.affine)
    change = orientations.ornt_transform(
        orientations.io_orientation(turned.affine), orientations.io_orientation(nibabel.load(tiny_case.t1).affine)
    )
    np.testing.assert_allclose(np.asarray(back.as_reoriented(change).dataobj), clean.cemri, atol=1e-3)


def test_intensities_follow_t1(clean: Result, tiny_case: TinyCase, tiny_model: Path, tmp_path: Path) -> None:
    """T1 a thousand times larger gives a CEMRI a thousand times larger; T2's and FLAIR's scale does not matter."""
    for name, factor in (("t1", 1000.0), ("t2", 1e-6), ("flair", 7.0)):
        image = nibabel.load(getattr(tiny_case, name))
        data = np.asarray(image.dataobj, np.float64) * factor
        nibabel.save(nibabel.Nifti1Image(data, image.affine), tmp_path / f"{name}.nii.gz")
    result = _run(tiny_model, *(tmp_path / f"{name}.nii.gz" for name in ("t1", "t2", "flair")))
    np.testing.assert_allclose(result.cemri / 1000, clean.cemri, atol=0.02 * np.ptp(clean.cemri))


def test_same_seed_same_result(clean: Result, tiny_case: TinyCase, tiny_model: Path) -> None:
    """Bit for bit on one device; another seed gives another image."""
    again = _run(tiny_model, tiny_case.t1, tiny_case.t2, tiny_case.flair)
    np.testing.assert_array_equal(again.cemri, clean.cemri)
    np.testing.assert_array_equal(again.displacement, clean.displacement)
    other = _run(tiny_model, tiny_case.t1, tiny_case.t2, tiny_case.flair, seed=1)
    assert np.abs(other.cemri - clean.cemri).max() > 1


def test_mask_is_the_probability_at_the_cards_threshold(clean: Result, tiny_model: Path) -> None:
    """The calibrated threshold of the card decides, and the volume is that of the mask."""
    cut = load_model(tiny_model).card.mask_threshold
    np.testing.assert_array_equal(clean.enhancement_mask, clean.enhancement_probability >= cut)
    assert clean.enhancing_volume_ml == pytest.approx(clean.enhancement_mask.sum() / 1000)


def test_enhancement_gain_scales_the_difference_to_t1(clean: Result, tiny_case: TinyCase, tiny_model: Path) -> None:
    """A card's gain of one half halves the subtraction, and leaves mask and field as they are."""
    model = load_model(tiny_model)
    model = replace(model, card=replace(model.card, enhancement_gain=0.5))
    case = read_case(tiny_case.t1, tiny_case.t2, tiny_case.flair)
    result = Synthesis(model, SynthesisOptions(device="cpu")).run(case)
    np.testing.assert_allclose(result.subtraction, 0.5 * clean.subtraction, atol=1e-2)
    np.testing.assert_array_equal(result.displacement, clean.displacement)
    np.testing.assert_array_equal(result.enhancement_mask, clean.enhancement_mask)


def test_slice_sigma_is_a_gaussian_mean_over_slices(clean: Result, tiny_case: TinyCase, tiny_model: Path) -> None:
    """A card's sigma of one slice weighs slices by exp(-d^2 / 2), in the brain alone; the field stays as it is."""
    model = load_model(tiny_model)
    model = replace(model, card=replace(model.card, slice_sigma=1.0))
    result = Synthesis(model, SynthesisOptions(device="cpu")).run(
        read_case(tiny_case.t1, tiny_case.t2, tiny_case.flair)
    )
    brain, slices = clean.brain, np.arange(clean.brain.shape[2])
    weights = np.exp(-0.5 * (slices[:, None] - slices) ** 2.0)
    for made, before in (
        (result.subtraction, clean.subtraction), (result.enhancement_probability, clean.enhancement_probability),
    ):  # fmt: skip
        total, share = (np.where(brain, values, 0) @ weights for values in (before, np.ones_like(before)))
        np.testing.assert_allclose(made[brain], total[brain] / share[brain], atol=1e-3 * np.ptp(before))
    assert np.abs(result.subtraction - clean.subtraction).max() > 1e-2 * np.ptp(clean.subtraction)
    np.testing.assert_array_equal(result.displacement, clean.displacement)


def test_displacement_is_in_millimetres_of_the_slices(clean: Result) -> None:
    """The field has no component through the slices of the model's grid, and none outside the brain."""
    through = clean.grid.affine[:3, 2] / np.linalg.norm(clean.grid.affine[:3, 2])
    assert np.abs(clean.displacement @ through).max() < 1e-5
    assert np.abs(clean.displacement).max() > 0.01


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quality": "superb"}, "no quality 'superb'"),
        ({"steps": 0}, "--steps 0"),
        ({"steps": 1001}, "--steps 1001"),
        ({"samples": 65}, "--samples 65"),
        ({"device": "cuda:99"}, "cuda:99 is not available"),
        ({"device": "abacus"}, "no device 'abacus'"),
    ],
)
def test_impossible_settings_are_refused(tiny_model: Path, settings: dict[str, object], message: str) -> None:
    """Each with what can be chosen instead."""
    with pytest.raises(D3MError, match=message):
        Synthesis(load_model(tiny_model), SynthesisOptions(**settings))  # type: ignore[arg-type]


def test_more_steps_than_the_model_was_made_for_are_told(tiny_case: TinyCase, tiny_model: Path) -> None:
    """Steps beyond those of the best quality give a notice; the qualities themselves do not."""
    case = read_case(tiny_case.t1, tiny_case.t2, tiny_case.flair)
    model = load_model(tiny_model)
    result = Synthesis(model, SynthesisOptions(device="cpu", quality="preview", steps=7)).run(case)
    assert [notice.message for notice in result.notices if notice.code == "many-steps"] != []
    assert not any(
        notice.code == "many-steps"
        for notice in Synthesis(model, SynthesisOptions(device="cpu", quality="best")).run(case).notices
    )


def test_progress_grows_and_counts_steps(tiny_case: TinyCase, tiny_model: Path) -> None:
    """Fractions rise from 0 towards 1, the steps end at their number, and the remaining time is told."""
    seen: list[Progress] = []
    case = read_case(tiny_case.t1, tiny_case.t2, tiny_case.flair)
    Synthesis(load_model(tiny_model), SynthesisOptions(device="cpu", quality="best")).run(case, seen.append)
    fractions = [event.fraction for event in seen]
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] < 0.1 < 0.9 < fractions[-1] <= 1
    sampling = [event for event in seen if event.stage == "sample"]
    assert (sampling[-1].step, sampling[-1].steps) == (6, 6)
    assert all(event.eta_s is not None and event.eta_s >= 0 for event in sampling)


def test_interrupting_the_progress_ends_the_run(tiny_case: TinyCase, tiny_model: Path) -> None:
    """Whoever raises from the progress callback stops the sampling."""

    def stop(event: Progress) -> None:
        if event.stage == "sample":
            raise D3MError("stop", "", "interrupted")

    with pytest.raises(D3MError, match="stop"):
        Synthesis(load_model(tiny_model), SynthesisOptions(device="cpu")).run(
            read_case(tiny_case.t1, tiny_case.t2, tiny_case.flair), stop
        )


def test_unusable_gpu_is_named_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that is visible but cannot compute: auto continues on the CPU and says so; by name it is refused."""
    found = [
        devices.DeviceInfo("cuda:0", "Old GPU", 2**32, False, "no kernel image is available"),
        devices.DeviceInfo("cpu", "CPU", 2**33, True),
    ]
    monkeypatch.setattr(devices, "list_devices", lambda: found)
    device, notices = choose_device("auto")
    assert device.type == "cpu"
    assert "Old GPU" in notices[0].message
    assert "no kernel image" in notices[0].message
    with pytest.raises(D3MError, match="no kernel image"):
        choose_device("cuda")


def test_memory_that_does_not_suffice_is_the_machines_fault(
    tiny_case: TinyCase, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a single slice does not fit the message says memory and what to change, with exit code 3."""
    synthesis = Synthesis(load_model(tiny_model), SynthesisOptions(device="cpu"))

    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(synthesis.on.network.network, "forward", full)
    with pytest.raises(D3MError, match="memory") as caught:
        synthesis.run(read_case(tiny_case.t1, tiny_case.t2, tiny_case.flair))
    assert caught.value.exit_code == 3


def test_defects_are_not_called_memory(tiny_case: TinyCase, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another RuntimeError is a defect of ours and is not dressed up."""
    synthesis = Synthesis(load_model(tiny_model), SynthesisOptions(device="cpu"))

    def broken(*_: object) -> None:
        raise RuntimeError("size mismatch")

    monkeypatch.setattr(synthesis.on.network.network, "forward", broken)
    with pytest.raises(RuntimeError, match="size mismatch"):
        synthesis.run(read_case(tiny_case.t1, tiny_case.t2, tiny_case.flair))


def test_every_device_here_gives_the_same_picture(clean: Result, tiny_case: TinyCase, tiny_model: Path) -> None:
    """On each usable device of this machine the result is the CPU's, up to its number format."""
    case = read_case(tiny_case.t1, tiny_case.t2, tiny_case.flair)
    for info in devices.list_devices():
        if info.usable:
            result = Synthesis(load_model(tiny_model), SynthesisOptions(device=info.name)).run(case)
            difference = np.abs(result.cemri - clean.cemri)
            assert difference.mean() < 0.01 * np.ptp(clean.cemri), info.name


@pytest.mark.long
@pytest.mark.parametrize(("name", "solver"), [("paper", "ddim"), ("step-warp", "dpmpp_2m")])
def test_published_recipes_run(tiny_case: TinyCase, tmp_path: Path, name: str, solver: str) -> None:
    """Recipes "paper" and "step-warp" go from files to a result: 256 x 256 slices, percentile scale (small network)."""
    from d3m.diffusion.networks.slice import build_network
    from d3m.diffusion.recipe import Sampling
    from d3m.models.card import Card
    from d3m.models.load import save_model
    from d3m.models.recipes import RECIPES

    recipe = RECIPES[name]
    sizes = replace(recipe.network, widths=(4, 4, 4, 4, 4), deformation_widths=(4, 4, 4, 4))
    recipe = replace(recipe, network=sizes, qualities=(Sampling(1, solver=solver),) * 3)  # type: ignore[arg-type]
    torch.manual_seed(0)
    save_model(tmp_path / name, Card(name, name, recipe, "0" * 64), build_network(sizes).state_dict())
    for contrast in ("t1", "t2", "flair"):  # a few slices are enough, and at this size each costs seconds
        slab = nibabel.load(getattr(tiny_case, contrast)).slicer[:, :, 16:24]
        nibabel.save(slab, tmp_path / f"{contrast}.nii.gz")
    result = _run(tmp_path / name, *(tmp_path / f"{contrast}.nii.gz" for contrast in ("t1", "t2", "flair")))
    assert result.grid.shape[:2] == (256, 256)
    assert np.isfinite(result.cemri).all()
    low, high = np.percentile(result.t1.data[result.brain], (0, 100))
    assert result.cemri[result.brain].min() >= low - 0.1 * (high - low)


def test_the_interval_of_slices_is_the_qualitys_or_the_users(tiny_case: TinyCase, tiny_model: Path) -> None:
    """A quality's interval is used and recorded, and an option overrides it; the progress ends at its end."""
    case, model = read_case(tiny_case.t1, tiny_case.t2, tiny_case.flair), load_model(tiny_model)
    qualities = tuple(replace(one, slice_interval=2) for one in model.card.recipe.qualities)
    sparse = replace(model, card=replace(model.card, recipe=replace(model.card.recipe, qualities=qualities)))
    seen: list[Progress] = []
    options = SynthesisOptions(device="cpu", quality="preview")
    full = Synthesis(model, options).run(case)
    skipping = Synthesis(sparse, options).run(case, seen.append)
    asked = Synthesis(sparse, replace(options, slice_interval=1)).run(case)
    assert [one.options.slice_interval for one in (full, skipping, asked)] == [1, 2, 1]
    np.testing.assert_array_equal(full.cemri, asked.cemri)
    assert not np.array_equal(full.cemri, skipping.cemri)
    last = [event for event in seen if event.stage == "sample"][-1]
    assert last.step == last.steps == 1
