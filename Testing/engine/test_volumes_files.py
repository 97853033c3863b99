"""Reading files: every storage, every packing, every kind of damage."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from d3m.errors import D3MError
from d3m.volumes.preprocess.case import read_volume
from engine.volume_helpers import brains, lps_affine, nifti_bytes, nrrd_bytes, put, rotation

AFFINE = rotation(7, 2) @ rotation(5, 0) @ lps_affine(spacing=(1.0, 1.2, 1.5))


@pytest.fixture(scope="module")
def scan():
    """A T2-like brain."""
    return brains()[1]


def itk_image(data, affine):
    """The SimpleITK image with this affine (RAS): its world is LPS."""
    image = SimpleITK.GetImageFromArray(data.transpose(2, 1, 0))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    flip = np.diag([-1.0, -1.0, 1.0])
    image.SetSpacing(spacing.tolist())
    image.SetOrigin((flip @ affine[:3, 3]).tolist())
    image.SetDirection((flip @ (affine[:3, :3] / spacing)).ravel().tolist())
    return image


def refused(path, *words, contrast="t2"):
    """The file is refused with exit code 2, naming the contrast and all words."""
    with pytest.raises(D3MError) as caught:
        read_volume(path, contrast)
    assert caught.value.exit_code == 2
    assert caught.value.hint
    for word in (contrast.upper(), *words):
        assert word.lower() in caught.value.message.lower(), caught.value.message


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "f4", "f8"])
def test_storage_types(tmp_path, scan, dtype, order):
    """Any number type in either byte order gives the same intensities and geometry as nibabel reads."""
    path = put(tmp_path / "t2.nii.gz", np.minimum(scan, 120), AFFINE, dtype, order=order)
    volume = read_volume(path, "t2")
    expected = nibabel.load(path)
    assert volume.data.dtype == np.float32
    np.testing.assert_array_equal(volume.data, np.asarray(expected.dataobj, np.float32))
    np.testing.assert_allclose(volume.affine, expected.affine, atol=1e-4)
    assert not volume.notices


def test_slope_and_intercept(tmp_path, scan):
    """Stored integers are scaled as the header says; a slope of zero or none means no scaling."""
    stored = np.rint(scan).astype("i2")
    scaled = read_volume(put(tmp_path / "a.nii", stored, AFFINE, "i2", slope=0.5, inter=-3.0), "t2")
    np.testing.assert_allclose(scaled.data, stored * 0.5 - 3)
    for slope in (0.0, float("nan")):
        plain = read_volume(put(tmp_path / "b.nii", stored, AFFINE, "i2", slope=slope, inter=7.0), "t2")
        np.testing.assert_array_equal(plain.data, stored)
    refused(put(tmp_path / "c.nii", stored, AFFINE, "i2", slope=1.0, inter=float("nan")), "intercept")


def test_content_decides_packing(tmp_path, scan):
    """A .nii.gz that is not packed, a .nii that is, a file packed twice, and a wrong ending are read all the same."""
    content = nifti_bytes(scan, AFFINE)
    forms = {
        "plain.nii.gz": content,
        "packed.nii": gzip.compress(content, 1),
        "twice.nii.gz": gzip.compress(gzip.compress(content, 1), 1),
        "no_ending": content,
        "other.nrrd": content,
    }
    for name, form in forms.items():
        (tmp_path / name).write_bytes(form)
        np.testing.assert_array_equal(read_volume(tmp_path / name, "flair").data, scan)


def test_nifti_2_and_pairs(tmp_path, scan):
    """NIfTI-2 and header/voxel pairs (packed or not, either half given) are read."""
    image = nibabel.Nifti2Image(scan, AFFINE)
    nibabel.save(image, tmp_path / "two.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "two.nii.gz", "t1").data, scan)
    nibabel.save(nibabel.Nifti1Pair(scan, AFFINE), tmp_path / "pair.img")
    for half in ("pair.img", "pair.hdr"):
        volume = read_volume(tmp_path / half, "t1")
        np.testing.assert_array_equal(volume.data, scan)
        np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)
    nibabel.save(nibabel.Nifti1Pair(scan, AFFINE), tmp_path / "packed.img.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "packed.img.gz", "t1").data, scan)
    (tmp_path / "pair.img").unlink()
    refused(tmp_path / "pair.hdr", "does not exist", contrast="t1")


def test_analyze_is_refused_by_name(tmp_path, scan):
    """An Analyze pair cannot tell left from right."""
    nibabel.save(nibabel.AnalyzeImage(scan, np.diag([1, 1, 1, 1.0])), tmp_path / "old.img")
    refused(tmp_path / "old.img", "Analyze", "left")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("ending", ["nrrd", "nhdr", "mha", "mhd"])
def test_nrrd_and_metaimage_as_itk_writes_them(tmp_path, scan, ending, dtype, compressed):
    """What SimpleITK writes is read with the intensities and the world coordinates that it had."""
    data = scan.astype(dtype)
    path = tmp_path / f"scan.{ending}"
    SimpleITK.WriteImage(itk_image(data, AFFINE), str(path), useCompression=compressed)
    volume = read_volume(path, "flair")
    np.testing.assert_array_equal(volume.data, data.astype(np.float32))
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-4)


@pytest.mark.parametrize("space", ["left-posterior-superior", "right-anterior-superior", "left-anterior-superior"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", ">i2"])
def test_nrrd_spaces(tmp_path, scan, space, dtype):
    """An NRRD of any anatomical space and byte order lies where SimpleITK puts it, packed or not."""
    for encoding in ("raw", "gzip"):
        path = tmp_path / "scan.nrrd"
        path.write_bytes(nrrd_bytes(scan, AFFINE, space, encoding=encoding, dtype=dtype))
        volume = read_volume(path, "t2")
        np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)
        np.testing.assert_array_equal(volume.data, scan.astype(dtype))
        image = SimpleITK.ReadImage(str(path))
        world = np.array(image.TransformIndexToPhysicalPoint((3, 4, 5))) * (-1, -1, 1)
        np.testing.assert_allclose((volume.affine @ (3, 4, 5, 1))[:3], world, atol=1e-3)


def test_nrrd_without_anatomical_space(tmp_path, scan):
    """An NRRD that does not say where left is, is refused."""
    content = nrrd_bytes(scan, AFFINE)
    (tmp_path / "a.nrrd").write_bytes(content.replace(b"space: left-posterior-superior\n", b""))
    refused(tmp_path / "a.nrrd", "orientation")
    (tmp_path / "b.nrrd").write_bytes(content.replace(b"left-posterior-superior", b"scanner-xyz"))
    refused(tmp_path / "b.nrrd", "orientation")


def test_colour_series_and_complex(tmp_path, scan):
    """Colours, series, vector fields and complex numbers are refused by name, in every format."""
    shape = scan.shape
    refused(put(tmp_path / "rgb.nii", np.zeros((*shape, 3), "u1"), AFFINE, "u1", dims=shape, code=128), "RGB")
    refused(put(tmp_path / "complex.nii", scan, AFFINE, "c8"), "complex")
    refused(put(tmp_path / "series.nii", np.stack([scan, scan], -1), AFFINE), "4-D")
    refused(put(tmp_path / "field.nii", np.stack([scan] * 3, -1)[:, :, :, None], AFFINE), "5-D")
    colours = SimpleITK.Compose(*[itk_image(scan, AFFINE)] * 3)
    for ending in ("nrrd", "mha"):
        SimpleITK.WriteImage(colours, str(tmp_path / f"c.{ending}"))
        refused(tmp_path / f"c.{ending}", "RGB")


@pytest.mark.parametrize("extra", [(1,), (1, 1), (1, 1, 1, 1)])
def test_further_axes_of_length_one(tmp_path, scan, extra):
    """A fourth and further axis of length one is no fourth dimension."""
    volume = read_volume(put(tmp_path / "t1.nii.gz", scan.reshape(*scan.shape, *extra), AFFINE), "t1")
    np.testing.assert_array_equal(volume.data, scan)


def test_nothing_to_see(tmp_path, scan):
    """All zeros, one value, no number at all, and a single slice are refused, each by name."""
    refused(put(tmp_path / "a.nii", scan * 0, AFFINE), "zeros")
    refused(put(tmp_path / "b.nii", scan * 0 + 5, AFFINE), "same value")
    refused(put(tmp_path / "c.nii", scan * np.nan, AFFINE), "NaN")
    refused(put(tmp_path / "d.nii", scan[:, :, 20:21], AFFINE), "single slice")
    refused(put(tmp_path / "e.nii", scan[:, :, 20], AFFINE), "single slice")
    refused(put(tmp_path / "f.nii", scan[:, :, 20:22], AFFINE), "2 slices")


def test_not_there_or_not_a_file(tmp_path):
    """Missing, empty, a folder, a broken link, a name too long, a pipe: one sentence each."""
    refused(tmp_path / "missing.nii.gz", "does not exist")
    (tmp_path / "empty.nii.gz").write_bytes(b"")
    refused(tmp_path / "empty.nii.gz", "empty")
    refused(tmp_path, "folder")
    (tmp_path / "broken.nii").symlink_to(tmp_path / "nowhere.nii")
    refused(tmp_path / "broken.nii", "does not exist")
    (tmp_path / "loop.nii").symlink_to(tmp_path / "loop.nii")
    refused(tmp_path / "loop.nii")
    refused(tmp_path / ("x" * 300 + ".nii"), "too long")
    refused(tmp_path / "empty.nii.gz" / "below.nii", "does not exist")
    os.mkfifo(tmp_path / "pipe.nii")
    refused(tmp_path / "pipe.nii", "pipe")
    with pytest.raises(D3MError):
        read_volume(Path("nul\0byte.nii"), "t2")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may read everything")
def test_forbidden(tmp_path, scan):
    """A file that may not be read says so."""
    path = put(tmp_path / "t2.nii", scan, AFFINE)
    path.chmod(0)
    refused(path, "may not be read")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"hello, this is a text file" * 40, "not an image"),
        (b"PK\x03\x04" + bytes(600), "ZIP"),
        (b"\x89PNG\r\n" + bytes(600), "PNG"),
        (bytes(128) + b"DICM" + bytes(600), "DICOM"),
        (gzip.compress(b"packed text " * 99, mtime=0), "not an image"),
        (b"\x1f\x8b\x08\x00broken", ""),
        (b"\x1f\x8b", ""),
        (b"N", "not an image"),
        (b"NRRD0004\n", ""),
        (b"NRRD0004\ntype: float\nsizes: a b c\n\n", "damaged"),
        (b"ObjectType = Image\nNDims = 3\n", ""),
        (np.random.default_rng(0).bytes(5000), "not an image"),
    ],
)
def test_not_an_image(tmp_path, content, word):
    """Anything else is refused, with what it is where that can be told."""
    (tmp_path / "x.nii.gz").write_bytes(content)
    refused(tmp_path / "x.nii.gz", word)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.9999])
def test_truncated(tmp_path, scan, share):
    """A file that ends early is refused in every format and packing."""
    forms = {
        "a.nii": nifti_bytes(scan, AFFINE),
        "a.nii.gz": gzip.compress(nifti_bytes(scan, AFFINE), 1),
        "a.nrrd": nrrd_bytes(scan, AFFINE),
        "b.nrrd": nrrd_bytes(scan, AFFINE, encoding="gzip"),
    }
    for compressed in (False, True):
        SimpleITK.WriteImage(itk_image(scan, AFFINE), str(tmp_path / "whole.mha"), useCompression=compressed)
        forms[f"{compressed}.mha"] = (tmp_path / "whole.mha").read_bytes()
    for name, form in forms.items():
        (tmp_path / name).write_bytes(form[: int(len(form) * share)])
        refused(tmp_path / name, "truncated" if share > 0.1 else "")


def test_flipped_bits_in_packed_data(tmp_path, scan):
    """Packed data whose checksum is wrong are not used."""
    packed = bytearray(gzip.compress(nifti_bytes(scan, AFFINE), 1))
    packed[-6] ^= 0xFF
    (tmp_path / "a.nii.gz").write_bytes(bytes(packed))
    refused(tmp_path / "a.nii.gz", "damaged")


@pytest.mark.parametrize(
    "dims", [(32767, 32767, 32767), (30000, 30000, 40), (-5, 56, 40), (0, 56, 40), (4096, 4096, 12)]
)
@pytest.mark.parametrize("packed", [False, True])
def test_absurd_sizes_ask_for_no_memory(tmp_path, scan, dims, packed):
    """A header that declares more than the file can hold is refused before memory is asked for."""
    import tracemalloc

    content = nifti_bytes(scan[:8], AFFINE, dims=dims)
    path = tmp_path / "a.nii"
    path.write_bytes(gzip.compress(content) if packed else content)
    tracemalloc.start()
    refused(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_decompression_bomb(tmp_path, scan):
    """A file that unpacks to far more than its header declares costs no more than what is declared."""
    import tracemalloc

    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    out = io.BytesIO()
    out.write(packer.compress(nifti_bytes(scan, AFFINE)))
    for _ in range(64):
        out.write(packer.compress(bytes(2**22)))
    out.write(packer.flush())
    (tmp_path / "bomb.nii.gz").write_bytes(out.getvalue())
    tracemalloc.start()
    np.testing.assert_array_equal(read_volume(tmp_path / "bomb.nii.gz", "t1").data, scan)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


def test_nrrd_absurd_size(tmp_path, scan):
    """NRRD and MetaImage headers of absurd sizes are refused as NIfTI's are."""
    content = nrrd_bytes(scan, AFFINE).replace(b"sizes: 48", b"sizes: 480000000000000000000")
    (tmp_path / "a.nrrd").write_bytes(content)
    refused(tmp_path / "a.nrrd", "no scan of a head is so large")
    SimpleITK.WriteImage(itk_image(scan, AFFINE), str(tmp_path / "a.mha"))
    content = (tmp_path / "a.mha").read_bytes().replace(b"DimSize = 48", b"DimSize = 48000")
    (tmp_path / "a.mha").write_bytes(content)
    refused(tmp_path / "a.mha", "no scan of a head is so large")


@pytest.mark.parametrize("ending", ["nii.gz", "nrrd", "mha", "mhd"])
def test_difficult_names(tmp_path, scan, ending, monkeypatch):
    """Names with spaces, accents, Chinese, quotes and dashes, long and relative paths, and links are read."""
    folder = tmp_path / "Pätient 山田 (1)" / "it's #2 & co" / ("long" * 30)
    folder.mkdir(parents=True)
    plain = tmp_path / f"plain.{ending}"
    if ending == "nii.gz":
        put(plain, scan, AFFINE)
    else:
        SimpleITK.WriteImage(itk_image(scan, AFFINE), str(plain))
    for file in tmp_path.glob("plain.*"):
        (folder / file.name).write_bytes(file.read_bytes())
    path = (folder / plain.name).rename(folder / f"-t1 ö.{ending}")
    monkeypatch.chdir(folder)
    link = tmp_path / "link"
    link.symlink_to(path)
    for name in (path, Path(path.name), *([] if ending == "mhd" else [link])):
        np.testing.assert_array_equal(read_volume(name, "t1").data, scan)


def test_hash_is_of_the_content(tmp_path, scan):
    """The hash depends on voxels and geometry alone: not on format, packing or storage."""
    whole = np.rint(scan)
    one = read_volume(put(tmp_path / "a.nii.gz", whole, AFFINE), "t1")
    path = tmp_path / "b.nrrd"
    path.write_bytes(nrrd_bytes(whole, one.affine, dtype="<i2"))
    assert read_volume(path, "t1").sha256 == one.sha256
    other = whole.copy()
    other[20, 20, 20] += 1
    assert read_volume(put(tmp_path / "c.nii", other, AFFINE), "t1").sha256 != one.sha256
    moved = AFFINE.copy()
    moved[0, 3] += 1
    assert read_volume(put(tmp_path / "d.nii", whole, moved), "t1").sha256 != one.sha256
