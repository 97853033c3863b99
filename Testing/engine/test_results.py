"""A result on disk: whole or absent, readable by others, marked as synthetic, right in world space."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from conftest import TinyCase
from d3m.errors import D3MError
from d3m.models.load import load_model
from d3m.options import SynthesisOptions
from d3m.results.files import compare, write_nifti, write_result
from d3m.results.ours import is_our_file
from d3m.results.provenance import RESULT, read_provenance
from d3m.synthesis import Result, Synthesis
from d3m.system.folders import check_output, whole_folder
from d3m.system.manifest import MANIFEST
from d3m.volumes.preprocess.case import read_case, read_volume
from d3m.volumes.types import Case, Volume


@pytest.fixture(scope="module")
def made(tiny_case: TinyCase, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result, Case]:
    """A traced result with three samples, written with a comparison."""
    case = read_case(tiny_case.t1, tiny_case.t2, tiny_case.flair)
    options = SynthesisOptions(device="cpu", quality="best", trace=True, seed=4)
    result = Synthesis(load_model(tiny_model), options).run(case)
    out = tmp_path_factory.mktemp("out") / "result"
    write_result(out, result, case, 1.0, read_volume(tiny_case.t1c, "t1c"))
    return out, result, case


def test_every_file_of_the_interface_is_there(made: tuple[Path, Result, Case]) -> None:
    """What the documentation promises, and nothing else."""
    out, _, _ = made
    names = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    steps = [f"trace/step_{k:03d}_{part}.nii.gz" for k in (1, 2) for part in ("after", "before", "field", "mask")]
    assert names == sorted(
        [MANIFEST, "cemri.nii.gz", "comparison.json", "deformation.nii.gz", "enhancement_mask.nii.gz", "figure.png",
         "first_sample.nii.gz",
         "enhancement_probability.nii.gz", "provenance.json", "subtraction.nii.gz", "uncertainty.nii.gz", *steps]
    )  # fmt: skip


def test_images_lie_on_t1s_grid_and_say_that_they_are_synthetic(
    made: tuple[Path, Result, Case], tiny_case: TinyCase
) -> None:
    """Shape, affine and orientation of T1; the header says what the image is; the mask holds 0 and 1."""
    out, result, _ = made
    t1 = nibabel.load(tiny_case.t1)
    for name in ("cemri", "subtraction", "enhancement_probability", "enhancement_mask", "uncertainty"):
        image = nibabel.load(out / f"{name}.nii.gz")
        assert image.shape == t1.shape
        np.testing.assert_allclose(image.affine, t1.affine, atol=1e-6)
        assert bytes(image.header["descrip"]).startswith(b"synthetic, research use only")
        assert image.header.get_xyzt_units()[0] == "mm"
    mask = np.asarray(nibabel.load(out / "enhancement_mask.nii.gz").dataobj)
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 1}
    assert mask.sum() / 1000 == pytest.approx(result.enhancing_volume_ml)


def test_every_image_is_recognised(made: tuple[Path, Result, Case], tmp_path: Path) -> None:
    """Beside its provenance, and alone under another name; what somebody lays beside it is not ours."""
    out, _, case = made
    images = sorted(out.rglob("*.nii.gz"))
    assert len(images) >= 15
    for number, path in enumerate(images):
        moved = tmp_path / f"image{number}.nii.gz"
        shutil.copy(path, moved)
        assert is_our_file(path)
        assert is_our_file(moved)
    nibabel.save(nibabel.Nifti1Image(case.t1.data, case.t1.affine), tmp_path / "cemri.nii.gz")
    assert not is_our_file(tmp_path / "cemri.nii.gz")


def test_parts_fit_together(made: tuple[Path, Result, Case], tiny_case: TinyCase) -> None:
    """CEMRI = T1 + subtraction; outside the brain the CEMRI is T1 and everything else 0."""
    out, _, _ = made

    def load(path: Path) -> np.ndarray:
        return np.asarray(nibabel.load(path).dataobj)

    t1, cemri = load(tiny_case.t1), load(out / "cemri.nii.gz")
    np.testing.assert_allclose(load(out / "subtraction.nii.gz"), cemri - t1, atol=1e-3)
    outside = ~tiny_case.brain
    np.testing.assert_array_equal(cemri[outside], t1[outside])
    for name in ("subtraction", "enhancement_probability", "enhancement_mask", "uncertainty"):
        assert not load(out / f"{name}.nii.gz")[outside].any()
    assert load(out / "uncertainty.nii.gz")[tiny_case.brain].mean() > 0


def test_field_file_moves_the_image_as_the_engine_did(made: tuple[Path, Result, Case], tmp_path: Path) -> None:
    """SimpleITK reads the field (as LPS); applied to what the image before the last warp adds to T1, it gives what the
    image after it adds."""
    out, _, case = made
    before = sitk.ReadImage(str(out / "trace" / "step_002_before.nii.gz"), sitk.sitkFloat64)
    after = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "trace" / "step_002_after.nii.gz"), sitk.sitkFloat64))
    field = sitk.ReadImage(str(out / "trace" / "step_002_field.nii.gz"), sitk.sitkVectorFloat64)
    ras = np.asarray(nibabel.load(out / "trace" / "step_002_field.nii.gz").dataobj)
    assert nibabel.load(out / "trace" / "step_002_field.nii.gz").header["intent_code"] == 1006
    assert ras.shape == (*before.GetSize(), 1, 3)
    np.testing.assert_allclose(
        sitk.GetArrayFromImage(field), ras[:, :, :, 0].transpose(2, 1, 0, 3) * [-1, -1, 1], atol=1e-5
    )
    assert np.abs(ras).max() > 0.05
    # T1 as the model sees it: clipped to its percentiles, the lower one outside the brain
    low, high = np.percentile(case.t1.data[case.brain], (0.5, 99.5))
    seen = np.where(case.brain, np.clip(case.t1.data, low, high), low)
    whole = nibabel.Nifti1Image(seen, case.t1.affine)
    nibabel.save(whole, tmp_path / "t1.nii")
    t1 = sitk.Resample(sitk.ReadImage(str(tmp_path / "t1.nii"), sitk.sitkFloat64), before, sitk.Transform(), 1, low)
    transform = sitk.DisplacementFieldTransform(sitk.Image(field))
    moved = sitk.Resample(before - t1, before, transform, sitk.sitkLinear) + t1
    inside = sitk.GetArrayFromImage(before) != sitk.GetArrayFromImage(before).min()
    from scipy.ndimage import binary_erosion

    inside = binary_erosion(inside, iterations=3)  # at the very border the two pad differently
    difference = np.abs(sitk.GetArrayFromImage(moved) - after)[inside]
    assert inside.sum() > 5000
    assert difference.max() < 1e-3 * np.ptp(after)


def test_trace_ends_in_the_result(made: tuple[Path, Result, Case], tiny_case: TinyCase) -> None:
    """The field of the result is that of the last step of the first sample."""
    out, _, _ = made
    last = np.asarray(nibabel.load(out / "trace" / "step_002_field.nii.gz").dataobj)
    np.testing.assert_array_equal(last, np.asarray(nibabel.load(out / "deformation.nii.gz").dataobj))
    after = np.asarray(nibabel.load(out / "trace" / "step_002_after.nii.gz").dataobj)
    first = nibabel.load(out / "first_sample.nii.gz")
    np.testing.assert_array_equal(np.asarray(first.dataobj), after)
    np.testing.assert_allclose(first.affine, nibabel.load(out / "deformation.nii.gz").affine)


def test_provenance_names_content_and_not_people(made: tuple[Path, Result, Case], tiny_case: TinyCase) -> None:
    """Hashes, settings and versions are there; no path and no file name is."""
    out, result, case = made
    text = (out / "provenance.json").read_text()
    content = json.loads(text)
    assert content["synthetic"] is True
    assert "research" in content["statement"]
    assert content["inputs"]["t1"]["sha256"] == case.t1.sha256
    assert content["settings"]["seed"] == 4
    assert content["model"]["weights_sha256"] == result.model_sha256
    assert "deformation" in content["first_sample_only"]
    assert tiny_case.folder.name + "_t1" not in text
    assert str(tiny_case.folder) not in text
    assert read_provenance(out) is not None


def test_a_cut_file_is_not_taken_for_whole(made: tuple[Path, Result, Case], tmp_path: Path) -> None:
    """A result with a shortened or missing file has no valid provenance."""
    import shutil

    for name in ("cemri.nii.gz", "figure.png"):
        copy = Path(shutil.copytree(made[0], tmp_path / name))
        data = (copy / name).read_bytes()
        (copy / name).write_bytes(data[: len(data) // 2])
        assert read_provenance(copy) is None
        (copy / name).unlink()
        assert read_provenance(copy) is None


def test_nothing_stays_after_a_failure(tmp_path: Path) -> None:
    """An error in the middle leaves neither the folder nor a temporary one, and an older result as it was."""
    out = tmp_path / "result"
    with whole_folder(out, RESULT) as folder:
        (folder / "provenance.json").write_text("old")

    def fail() -> None:
        with whole_folder(out, RESULT) as folder:
            (folder / "half").write_text("half")
            raise D3MError("stop", "", "interrupted")

    with pytest.raises(D3MError, match="stop"):
        fail()
    assert [p.name for p in tmp_path.iterdir()] == ["result"]
    assert (out / "provenance.json").read_text() == "old"
    with whole_folder(out, RESULT) as folder:
        (folder / "new").write_text("new")
    assert {p.name for p in out.iterdir()} == {"new", MANIFEST}
    assert [p.name for p in tmp_path.iterdir()] == ["result"]


def test_a_full_disk_is_noticed(tmp_path: Path) -> None:
    """When a file cannot be written whole the run ends with exit code 3 and nothing is left."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        with (
            pytest.raises(D3MError, match="disk is full") as caught,
            whole_folder(tmp_path / "result", RESULT) as folder,
        ):
            write_nifti(folder / "a.nii.gz", np.random.default_rng(0).normal(size=(60, 60, 60)), np.eye(4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


def test_output_folder_is_checked_before_the_work(tmp_path: Path) -> None:
    """An existing folder is refused without --force, and with it where it holds something else than a result."""
    out = tmp_path / "out"
    check_output(out, RESULT, force=False)
    check_output(tmp_path / "a" / "b" / "c", RESULT, force=False)
    out.mkdir()
    check_output(out, RESULT, force=False)  # as a container's bind mount is
    with whole_folder(out, RESULT) as folder:
        (folder / "cemri.nii.gz").write_text("a result")
    with pytest.raises(D3MError, match="exists already"):
        check_output(out, RESULT, force=False)
    check_output(out, RESULT, force=True)
    (out / "thesis.docx").write_text("years of work")
    with pytest.raises(D3MError, match="will not be replaced"):
        check_output(out, RESULT, force=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(D3MError, match="is a file"):
        check_output(tmp_path / "file" / "out", RESULT, force=False)
    if os.getuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(D3MError, match="cannot be written"):
            check_output(tmp_path / "locked" / "out", RESULT, force=False)


def test_figure_is_a_picture_that_says_synthetic(made: tuple[Path, Result, Case]) -> None:
    """The figure is a readable PNG, wide, not blank, and carries the statement in its metadata."""
    from PIL import Image

    with Image.open(made[0] / "figure.png") as picture:
        assert picture.size[0] > 1200
        assert "SYNTHETIC" in picture.info["Description"]
        pixels = np.asarray(picture.convert("L"))
    assert pixels.std() > 20


def test_comparison_has_numbers(made: tuple[Path, Result, Case]) -> None:
    """With a real T1c the folder says how close the synthetic image is, beside the copied T1."""
    content = json.loads((made[0] / "comparison.json").read_text())
    assert content["psnr_brain_t1"] > 10
    assert content["ssim_brain_t1"] > 0.5
    assert set(content) >= {"psnr_brain", "ssim_brain", "correlation", "predicted_enhancing_volume_ml"}
    assert content["real_enhancement"] == "estimated"


def test_volumes_beside_a_real_mask(made: tuple[Path, Result, Case], tiny_case: TinyCase) -> None:
    """With a real mask, false and missed enhancement are counted in millilitres of T1's voxels, on any lattice."""
    _, result, case = made
    size = np.linalg.norm(case.t1.affine[:3, :3], axis=0).prod() / 1000
    real = result.enhancement_mask & case.brain
    real[: real.shape[0] // 2] = False
    turned = Volume(real[::-1, :, ::-1].astype(np.float32), case.t1.affine @ flipped(real.shape), "mask")
    found = compare(result, case, read_volume(tiny_case.t1c, "t1c"), turned)
    assert found["real_enhancement"] == "labels"
    assert found["real_enhancing_volume_ml"] == pytest.approx(real.sum() * size, abs=1e-3)
    assert found["false_positive_ml"] == pytest.approx((result.enhancement_mask & ~real).sum() * size, abs=1e-3)
    assert found["false_negative_ml"] == 0


def test_a_real_scan_of_a_part_is_compared_there(made: tuple[Path, Result, Case], tiny_case: TinyCase) -> None:
    """A slab through the brain: what was predicted outside of it is not false, and the share is told."""
    _, result, case = made
    assert json.loads((made[0] / "comparison.json").read_text())["covered_share"] == 1
    whole = read_volume(tiny_case.t1c, "t1c")
    cut = whole.data.shape[0] // 2
    slab = Volume(whole.data[:cut].copy(), whole.affine, "slab")
    found = compare(result, case, slab, Volume(np.zeros(case.t1.data.shape, np.float32), case.t1.affine, "none"))
    to_slab = np.linalg.inv(slab.affine) @ case.t1.affine
    index = (
        np.einsum("ij,j...->i...", to_slab[:3, :3], np.indices(case.t1.data.shape)) + to_slab[:3, 3, None, None, None]
    )
    inside = ((index > -0.5) & (index < np.array(slab.data.shape)[:, None, None, None] - 0.5)).all(0)
    size = np.linalg.norm(case.t1.affine[:3, :3], axis=0).prod() / 1000
    assert 0.1 < found["covered_share"] < 0.9
    assert found["covered_share"] == pytest.approx((inside & case.brain).sum() / case.brain.sum(), abs=0.01)
    assert (result.enhancement_mask & ~inside).sum() * size > 0.01, "or nothing is tested"
    assert found["false_positive_ml"] == pytest.approx((result.enhancement_mask & inside).sum() * size, rel=0.05)
    assert found["false_positive_ml"] == found["predicted_enhancing_volume_ml"]


def flipped(shape: tuple[int, ...]) -> np.ndarray:
    """Index matrix of a volume whose first and last axes run backwards."""
    matrix = np.diag([-1.0, 1.0, -1.0, 1.0])
    matrix[:3, 3] = [shape[0] - 1, 0, shape[2] - 1]
    return matrix
