"""A mask of the enhancing tumour that a person gives: read, checked, and followed by the picture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from conftest import AFFINE, SHAPE, TinyCase
from d3m.commands.app import app
from d3m.diffusion.recipe import WarpPlacement
from d3m.diffusion.sampler import Condition, State, reverse, to_probability
from d3m.diffusion.schedule import make_schedule
from d3m.errors import D3MError
from d3m.models.load import Model, load_model
from d3m.options import SynthesisOptions
from d3m.synthesis import Result, Synthesis
from d3m.volumes.preprocess.case import read_case
from d3m.volumes.steering import CONTRAST, follow

OPTIONS = SynthesisOptions(device="cpu", quality="preview")
PLACE = np.s_[20:28, 24:34, 16:22]
"""In the brain, away from the true tumour."""


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return load_model(tiny_model)


def save(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nibabel.save(nibabel.Nifti1Image(data.astype(np.uint8), affine), path)
    return path


def drawn(label: int = 1) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[PLACE] = label
    return mask


def synthesised(tiny_case: TinyCase, model: Model, mask: Path | None, label: str | None = None) -> Result:
    case = read_case(
        tiny_case.t1, tiny_case.t2, tiny_case.flair, enhancement_mask=mask, enhancing_label=label
    )  # fmt: skip
    return Synthesis(model, OPTIONS).run(case)


def placed(model: Model, warp: WarpPlacement) -> Model:
    """The model with its warp at another place."""
    recipe = model.card.recipe
    moved = replace(recipe, diffusion=replace(recipe.diffusion, warp=warp))
    return replace(model, card=replace(model.card, recipe=moved))


def test_the_picture_follows_the_mask(tiny_case: TinyCase, model: Model, tmp_path: Path) -> None:
    """Brighter where the mask says so and not elsewhere; the result's mask is the given one, and that is said."""
    still = placed(model, "x0")  # the deformation does not follow the mask
    free = synthesised(tiny_case, still, None)
    result = synthesised(tiny_case, still, save(tmp_path / "mask.nii.gz", drawn()))
    assert np.array_equal(result.enhancement_mask, drawn() > 0)
    inside = np.zeros(SHAPE, bool)
    inside[22:26, 26:32, 17:21] = True
    change = result.subtraction - free.subtraction
    low, high = np.percentile(free.t1.data[tiny_case.brain], (0.5, 99.5))
    assert change[inside].mean() > 0.9 * CONTRAST * (high - low)
    away = tiny_case.brain.copy()
    away[17:31, 21:37, 13:25] = False
    assert change[away].max() < 0.02 * (high - low)  # nothing is added elsewhere
    assert result.enhancing_volume_ml == pytest.approx(drawn().sum() / 1000)
    assert [n.code for n in result.notices].count("given-mask") == 1
    assert result.steering is not None
    assert result.steering.predicted_volume_ml == pytest.approx(free.enhancing_volume_ml)


def test_what_the_model_suspects_elsewhere_goes() -> None:
    """Brightening that the model takes for tumour goes where the mask has none; what is no tumour stays."""
    t1 = np.full((1, 8, 8), 0.5, np.float32)
    image, probability = t1 + 0.4, np.zeros_like(t1)
    probability[0, :, :4] = 0.6
    made = follow(image, t1, probability, np.zeros_like(t1), 0.3)
    assert made[0, :, :4] == pytest.approx(t1[0, :, :4])
    assert made[0, :, 4:] == pytest.approx(image[0, :, 4:])


def test_a_model_that_can_is_held(tiny_case: TinyCase, model: Model, tmp_path: Path) -> None:
    """With a card that says so the mask's stream is held to the mask at every step, and nothing is painted."""
    able = replace(model, card=replace(model.card, mask_steering=True))
    mask = save(tmp_path / "mask.nii.gz", drawn())
    case = read_case(tiny_case.t1, tiny_case.t2, tiny_case.flair, enhancement_mask=mask)
    result = Synthesis(able, replace(OPTIONS, steps=3, trace=True)).run(case)
    assert result.steering is not None
    assert result.steering.way == "stream"
    held = [step.mask > 0.5 for step in result.trace]
    assert len(held) == 3
    assert all(np.array_equal(one, held[0]) for one in held)
    assert held[0].sum() == drawn().sum()
    free = Synthesis(able, replace(OPTIONS, steps=3)).run(replace(case, given_mask=None))
    assert not np.allclose(result.cemri, free.cemri)


def test_the_deformation_goes_from_the_own_picture_to_the_mask(
    tiny_case: TinyCase, model: Model, tmp_path: Path
) -> None:
    """Where the enhancement alone is moved: before the warp stands what the model paints by itself, its own volume is
    still told, and the field is another one than without a mask."""
    moving = placed(model, "enhancement")
    case = read_case(tiny_case.t1, tiny_case.t2, tiny_case.flair, enhancement_mask=save(tmp_path / "m.nii.gz", drawn()))
    options = replace(OPTIONS, trace=True)
    result = Synthesis(moving, options).run(case)
    free = Synthesis(moving, options).run(replace(case, given_mask=None))
    span = np.ptp(free.trace[0].before)  # at the first time the mask's stream is noise, but for 1e-4 of the mask
    np.testing.assert_allclose(result.trace[0].before, free.trace[0].before, atol=0.01 * span)
    assert result.steering is not None
    assert result.steering.predicted_volume_ml == pytest.approx(free.enhancing_volume_ml, rel=0.01)
    assert np.abs(result.displacement - free.displacement).max() > 0.01
    np.testing.assert_array_equal(result.displacement, result.trace[0].displacement)


def test_the_stream_has_its_noise_at_each_time(model: Model) -> None:
    """At time s the mask's stream is sqrt(abar) m0 + sqrt(1 - abar) eps, with the noise that it began with."""
    recipe = model.card.recipe.diffusion
    schedule = make_schedule(recipe.schedule, recipe.timesteps)
    generator = torch.Generator().manual_seed(0)
    x, m = torch.randn(2, 1, 1, 16, 16, generator=generator)
    mask = (torch.rand(1, 1, 16, 16, generator=generator) > 0.5).float()
    slices = torch.rand(1, 9, 16, 16, generator=generator)
    condition = Condition(slices, slices[:, :1], torch.ones(1, 1, 16, 16, dtype=torch.bool), mask)
    with torch.inference_mode():
        steps = list(
            reverse(model.network, State(x, m), condition, [(1000, 600), (600, 300), (300, 0)], schedule, recipe)
        )
    for step in steps[:2]:
        a = float(schedule.alpha_bar[step.s])
        expected = a**0.5 * (2 * mask - 1) * recipe.mask_amplitude + (1 - a) ** 0.5 * m
        torch.testing.assert_close(step.state.m, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(to_probability(steps[-1].estimate.m0, recipe), mask)


def test_other_grids_and_labels(tiny_case: TinyCase, tmp_path: Path) -> None:
    """A mask at 2 mm, upside down, is brought onto T1's grid; its label is chosen; that it was moved is said."""
    coarse = drawn(4)[::2, ::2, ::2][:, :, ::-1]
    affine = AFFINE @ np.diag([2.0, 2, -2, 1])
    affine[:3, 3] = (AFFINE @ [0.5, 0.5, 2 * coarse.shape[2] - 1.5, 1])[:3]
    coarse[22:24, 20:22, 8:10] = 1
    path = save(tmp_path / "mask.nii.gz", coarse, affine)
    case = read_case(tiny_case.t1, tiny_case.t2, tiny_case.flair, enhancement_mask=path, enhancing_label="4")
    assert case.given_mask is not None
    assert (case.given_mask & (drawn() > 0)).sum() > 0.95 * drawn().sum()
    assert case.given_mask.sum() < 1.05 * drawn().sum()
    assert "mask-resampled" in [n.code for n in case.notices]


def test_names_of_segments(tiny_case: TinyCase, tmp_path: Path) -> None:
    """A segmentation that 3D Slicer saved: its segments have names."""
    import SimpleITK as sitk

    data = drawn(2)
    data[10:14, 20:24, 16:20] = 1
    image = sitk.GetImageFromArray(data.transpose(2, 1, 0))
    image.SetOrigin((-24, -28, -20))
    for number, name, value in ((0, "Necrosis", 1), (1, "Enhancing rim", 2)):
        image.SetMetaData(f"Segment{number}_Name", name)
        image.SetMetaData(f"Segment{number}_LabelValue", str(value))
    path = tmp_path / "drawn.seg.nrrd"
    sitk.WriteImage(image, str(path))
    scans = (tiny_case.t1, tiny_case.t2, tiny_case.flair)
    case = read_case(*scans, enhancement_mask=path, enhancing_label="enhancing rim")
    assert np.array_equal(case.given_mask, drawn() > 0)
    with pytest.raises(D3MError, match=r"Necrosis, Enhancing rim.*which of them is the enhancing tumour was not given"):
        read_case(*scans, enhancement_mask=path)


def _two_labels() -> np.ndarray:
    mask = drawn(4)
    mask[10:14, 20:24, 16:20] = 1
    return mask


def _elsewhere() -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[:4, :4, :4] = 1
    return mask


@pytest.mark.parametrize(
    ("data", "shift", "label", "words"),
    [
        (np.zeros(SHAPE), 0, None, "is empty"),
        (_two_labels(), 0, None, "holds 1, 4: which of them is the enhancing tumour was not given"),
        (_two_labels(), 0, "3", "has no label 3: it holds 1, 4"),
        (_two_labels(), 0, "rim", "has no label rim"),
        (drawn(), 300, None, "0 % of the enhancement mask lies where T1 was scanned"),
        (_elsewhere(), 0, None, "0 % of the enhancement mask lies in the brain"),
        (np.ones(SHAPE), 0, None, "of the enhancement mask lies in the brain|marks 100 % of the brain"),
        (np.arange(np.prod(SHAPE)).reshape(SHAPE) % 200, 0, None, "is not a label map"),
    ],
)
def test_masks_that_cannot_be(
    data: np.ndarray, shift: float, label: str | None, words: str, tiny_case: TinyCase, tmp_path: Path
) -> None:
    """Empty, of another patient or place, the brain's, no label map, an unknown label: a sentence with a way out."""
    affine = AFFINE.copy()
    affine[0, 3] += shift
    path = save(tmp_path / "mask.nii.gz", data, affine)
    with pytest.raises(D3MError, match=words) as caught:
        read_case(tiny_case.t1, tiny_case.t2, tiny_case.flair, enhancement_mask=path, enhancing_label=label)
    assert caught.value.exit_code == 2
    assert caught.value.hint


def test_command_line_and_batch(tiny_case: TinyCase, tiny_model: Path, tmp_path: Path) -> None:
    """`--enhancement-mask`, and the table's column; another mask makes the case again, the same one does not."""
    mask, out = save(tmp_path / "mask.nii.gz", drawn(4)), tmp_path / "out"
    scans = {"t1": tiny_case.t1, "t2": tiny_case.t2, "flair": tiny_case.flair}
    small = ["--model", str(tiny_model), "--quality", "preview", "--device", "cpu", "--progress", "none"]
    given = [word for name, path in scans.items() for word in (f"--{name}", str(path))]
    ended = CliRunner().invoke(
        app,
        ["synthesize", *given, "--enhancement-mask", str(mask), "--enhancing-label", "4", "--out", str(out), *small],
    )
    assert ended.exit_code == 0, ended.output
    stated = json.loads((out / "provenance.json").read_text())
    assert stated["given_mask"]["way"] == "composed"
    assert stated["settings"]["enhancing_label"] == "4"
    assert "given by a person" in " ".join(n["message"] for n in stated["notices"])
    assert np.array_equal(np.asarray(nibabel.load(out / "enhancement_mask.nii.gz").dataobj), drawn())
    table = tmp_path / "cases.csv"
    table.write_text("id,t1,t2,flair,enhancement_mask\n" + f"a,{','.join(map(str, scans.values()))},{mask}\n")
    results = tmp_path / "results"
    for expected in ("done", "skipped"):
        ended = CliRunner().invoke(app, ["batch", str(table), "--out", str(results), *small])
        assert ended.exit_code == 0, ended.output
        assert f"a,{expected}" in (results / "summary.csv").read_text()
    other = drawn(4)
    other[PLACE][:2] = 0
    save(mask, other)
    assert CliRunner().invoke(app, ["batch", str(table), "--out", str(results), *small]).exit_code == 0
    assert "a,done" in (results / "summary.csv").read_text()
    assert np.asarray(nibabel.load(results / "a" / "enhancement_mask.nii.gz").dataobj).sum() == (other > 0).sum()
