"""The door from Python: lazy, and the same result from paths, images of other libraries, and arrays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

import d3m
from conftest import AFFINE, TinyCase

SCANS = ("t1", "t2", "flair")


def test_importing_is_cheap_and_the_rest_comes_when_used() -> None:
    """`import d3m` in a script or in Slicer costs nothing; every promised name is there."""
    code = (
        "import sys, d3m\n"
        "assert not {'torch', 'numpy', 'scipy', 'SimpleITK', 'matplotlib'} & set(sys.modules), 'import is not lazy'\n"
        "d3m.SynthesisOptions(quality='best')\n"
        "assert 'torch' not in sys.modules\n"
        "assert set(d3m.__all__) <= set(dir(d3m))\n"
        "assert all(getattr(d3m, name).__name__ == name for name in d3m.__all__)\n"
        "assert 'torch' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="nosuch"):
        d3m.nosuch  # noqa: B018


@pytest.fixture(scope="module")
def by_path(tiny_case: TinyCase, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> d3m.Result:
    """The result of the files, written."""
    out = tmp_path_factory.mktemp("api") / "result"
    scans = {name: str(getattr(tiny_case, name)) for name in SCANS}
    result = d3m.synthesize(**scans, out=out, model=str(tiny_model), device="cpu", quality="preview")
    written = nibabel.load(out / "cemri.nii.gz")
    np.testing.assert_allclose(np.asarray(written.dataobj), result.cemri, rtol=1e-5, atol=1e-3)
    return result


@pytest.mark.parametrize("kind", ["SimpleITK", "nibabel", "array"])
def test_images_in_memory_give_the_files_result(
    by_path: d3m.Result, tiny_case: TinyCase, tiny_model: Path, kind: str
) -> None:
    """No detour over files: the orientation of each library is understood."""

    def load(path: Path) -> object:
        if kind == "SimpleITK":
            return sitk.ReadImage(str(path))
        image = nibabel.load(path)
        return image if kind == "nibabel" else (np.asarray(image.dataobj), AFFINE)

    options = d3m.SynthesisOptions(model=str(tiny_model), device="cpu", quality="preview")
    result = d3m.synthesize(**{name: load(getattr(tiny_case, name)) for name in SCANS}, options=options)
    np.testing.assert_allclose(result.t1.affine, by_path.t1.affine, atol=1e-4)
    np.testing.assert_allclose(result.cemri, by_path.cemri, atol=1e-2)


@pytest.mark.parametrize(
    ("image", "message"),
    [(3, "int, not an image"), ((np.zeros((4, 4)), np.eye(4)), "shape"), ((np.zeros((4, 4, 4)), np.eye(3)), "affine"),
     (sitk.Image(4, 4, sitk.sitkUInt8), "one number per voxel"), ((np.zeros((4, 4, 4), complex), np.eye(4)), "type")],
)  # fmt: skip
def test_what_is_no_scan_is_refused(tiny_case: TinyCase, image: object, message: str) -> None:
    """With the name of the scan and what can be given."""
    with pytest.raises(d3m.D3MError, match=message) as caught:
        d3m.synthesize(t1=tiny_case.t1, t2=image, flair=tiny_case.flair)
    assert caught.value.message.startswith("T2")
    assert "SimpleITK" in caught.value.hint
