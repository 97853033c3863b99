"""The overview picture: sides, marks and odd results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from matplotlib.image import imread

from conftest import TinyCase
from d3m.models.load import load_model
from d3m.options import SynthesisOptions
from d3m.results.figure import COLUMNS, TOP, draw_figure
from d3m.synthesis import Result, Synthesis
from d3m.volumes.preprocess.case import read_case
from d3m.volumes.types import Case


@pytest.fixture(scope="module")
def made(tiny_case: TinyCase, tiny_model: Path) -> tuple[Result, Case]:
    """A result whose mask is the true enhancing tumour, on the patient's left, anterior and superior."""
    case = read_case(tiny_case.t1, tiny_case.t2, tiny_case.flair)
    result = Synthesis(load_model(tiny_model), SynthesisOptions(device="cpu", quality="preview")).run(case)
    seg = np.asarray(nibabel.load(tiny_case.seg).dataobj)
    return replace(result, enhancement_mask=seg == 4), case


def panels(path: Path) -> np.ndarray:
    """The picture as (3, 7, height, width, 3) panels, roughly: rows are planes, columns as named."""
    picture = imread(path)[:, :, :3]
    picture = picture[int(0.07 * len(picture)) : int(0.95 * len(picture))]
    height, width = len(picture) // 3, picture.shape[1] // len(COLUMNS)
    return np.stack([
        np.stack([picture[r * height : (r + 1) * height, c * width : (c + 1) * width] for c in range(len(COLUMNS))])
        for r in range(3)
    ])  # fmt: skip


def centre(found: np.ndarray) -> np.ndarray:
    """(row, column) of the middle of what was found."""
    assert found.any()
    return np.argwhere(found).mean(axis=0)


def test_patients_left_is_on_the_right(made: tuple[Result, Case], tmp_path: Path) -> None:
    """Radiological convention in the axial and coronal views, anterior to the left in the sagittal one."""
    result, case = made
    draw_figure(tmp_path / "figure.png", result, case)
    view = panels(tmp_path / "figure.png")
    affine, shape = case.t1.affine, case.t1.data.shape
    world = affine @ [*np.argwhere(result.enhancement_mask).mean(axis=0), 1]
    middle = affine @ [*(np.array(shape) - 1) / 2, 1]
    assert world[0] < middle[0] - 3  # the lesion is on the patient's left (RAS: x grows to the right)
    assert world[1] > middle[1] + 3  # and anterior
    for plane, axis, sign in ((0, 1, 1), (1, 1, 1), (2, 1, -1)):
        panel = view[plane, 5]
        outline = (panel[..., 0] > 0.7) & (panel[..., 1] < 0.45) & (panel[..., 2] < 0.45)
        brain = view[plane, 0].mean(axis=-1) > 0.15
        brain[int(0.85 * len(brain)) :] = False  # without the scale bar
        assert sign * (centre(outline)[axis] - centre(brain)[axis]) > 2
    axial = view[0, 5]
    red = (axial[..., 0] > 0.7) & (axial[..., 1] < 0.45) & (axial[..., 2] < 0.45)
    assert centre(red)[0] < centre(view[0, 0].mean(axis=-1) > 0.15)[0]  # anterior is up


@pytest.mark.parametrize("change", ["no mask", "one voxel", "no field", "flat", "thick"])
def test_odd_results_are_drawn(change: str, made: tuple[Result, Case], tiny_case: TinyCase, tmp_path: Path) -> None:
    """Nothing predicted, a single voxel, no displacement, a constant image, thick slices: still a picture."""
    result, case = made
    empty = np.zeros_like(result.enhancement_mask)
    if change == "no mask":
        result = replace(result, enhancement_mask=empty)
    elif change == "one voxel":
        empty[24, 28, 20] = True
        result = replace(result, enhancement_mask=empty)
    elif change == "no field":
        result = replace(result, displacement=np.zeros_like(result.displacement))
    elif change == "flat":
        result = replace(result, cemri=np.zeros_like(result.cemri), subtraction=np.zeros_like(result.subtraction))
    else:
        image = nibabel.load(tiny_case.flair)
        thick = np.asarray(image.dataobj).reshape(48, 56, 8, 5).mean(axis=3)
        affine = image.affine @ np.diag([1, 1, 5, 1.0])
        affine[:3, 3] = (image.affine @ [0, 0, 2, 1])[:3]
        nibabel.save(nibabel.Nifti1Image(thick, affine), tmp_path / "flair.nii.gz")
        case = read_case(tiny_case.t1, tiny_case.t2, tmp_path / "flair.nii.gz")
    draw_figure(tmp_path / "figure.png", result, case)
    picture = imread(tmp_path / "figure.png")[:, :, :3]
    assert picture.std() > 0.05
    orange = (picture[..., 0] > 0.8) & (picture[..., 2] < 0.5) & (picture[..., 1] > 0.6)
    assert orange[int(0.94 * len(picture)) :].any()  # the statement that it is synthetic


def test_a_scan_that_was_not_given_is_named(made: tuple[Result, Case], tmp_path: Path) -> None:
    """The heading of its empty column says so; the other headings stay."""
    result, case = made
    headings = []
    for missing in ((), ("t2",)):
        draw_figure(tmp_path / "figure.png", replace(result, missing=missing), case)
        band = imread(tmp_path / "figure.png")[:TOP, :, :3].min(axis=-1) > 0.5
        headings.append([part.any(axis=0).sum() for part in np.array_split(band, len(COLUMNS), axis=1)])
    complete, without = headings
    assert without[1] > 3 * complete[1]
    assert without[:1] + without[2:] == complete[:1] + complete[2:]
