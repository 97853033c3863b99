"""Files that promise more than a head can be, or reach for other files, are refused before they cost anything."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from d3m.batch.cases import find_cases
from d3m.errors import D3MError
from d3m.volumes.io import files
from d3m.volumes.io.read import read_raw
from d3m_training.data.datasets import find_patients
from engine.volume_helpers import brains, lps_affine, put

SECRET = bytes(range(97, 123)) * 400
NRRD = (
    "NRRD0004\ntype: uchar\ndimension: 3\nspace: left-posterior-superior\nsizes: 20 20 20\n"
    "space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\nencoding: raw\ndata file: {}\n\n"
)
META = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nCompressedData = False\nTransformMatrix = 1 0 0 0 1 0 0 0 1\n"
    "Offset = 0 0 0\nElementSpacing = 1 1 1\nDimSize = 20 20 20\nElementType = MET_UCHAR\nElementDataFile = {}\n"
)


@pytest.mark.parametrize("header", [NRRD, META], ids=["nrrd", "metaimage"])
@pytest.mark.parametrize(
    "named", ["{secret}", "../secret.bin", "below/../../secret.bin", "link.bin", "linked/secret.bin", "..\\secret.bin",
              "C:\\secret.bin", "\\\\host\\share\\x", "~/secret.bin", "LIST", "list 2", "s%02d.bin 1 20 1", "loop.bin"]
)  # fmt: skip
def test_voxels_of_other_folders_are_not_read(tmp_path: Path, header: str, named: str) -> None:
    """Whatever way a header names a file outside of its folder: nothing of that file is read."""
    (tmp_path / "secret.bin").write_bytes(SECRET)
    place = tmp_path / "case"
    (place / "below").mkdir(parents=True)
    (place / "link.bin").symlink_to(tmp_path / "secret.bin")
    (place / "linked").symlink_to(tmp_path)
    (place / "loop.bin").symlink_to(place / "loop.bin")
    path = place / "t2.txt"
    text = header.format(named.format(secret=tmp_path / "secret.bin"))
    path.write_text(text + ("a.bin\nb.bin\n" if "ist" in named.lower() else ""), encoding="utf-8")
    with pytest.raises(D3MError) as caught:
        read_raw(path, "t2")
    assert "T2" in caught.value.message


@pytest.mark.parametrize("header", [NRRD, META], ids=["nrrd", "metaimage"])
@pytest.mark.parametrize("named", ["t2.raw", "below/t2.raw", "./t2.raw"])
def test_voxels_beside_the_header_are_read(tmp_path: Path, header: str, named: str) -> None:
    """Files beside the header and below are what the formats are for; also through a link to the folder."""
    (tmp_path / "case/below").mkdir(parents=True)
    (tmp_path / "case" / named).write_bytes(SECRET[:8000])
    (tmp_path / "case/t2.txt").write_text(header.format(named), encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "case")
    for place in ("case", "link"):
        assert read_raw(tmp_path / place / "t2.txt", "t2").data.ravel(order="F")[:3].tolist() == [97, 98, 99]


def test_half_of_a_pair_that_leads_elsewhere(tmp_path: Path) -> None:
    """The .img of a NIfTI pair may not be a link to a file somewhere else."""
    import nibabel

    data = np.arange(8000, dtype=np.uint8).reshape(20, 20, 20)
    nibabel.save(nibabel.Nifti1Pair(data, lps_affine((20, 20, 20))), tmp_path / "t2.hdr")
    assert read_raw(tmp_path / "t2.hdr", "t2").data.max() == 255
    (tmp_path / "inner").mkdir()
    shutil.move(tmp_path / "t2.hdr", tmp_path / "inner/t2.hdr")
    (tmp_path / "inner/t2.img").symlink_to(tmp_path / "t2.img")
    with pytest.raises(D3MError, match="outside of its own folder"):
        read_raw(tmp_path / "inner/t2.hdr", "t2")


def packed_zeros(path: Path, side: int, spacing: float) -> Path:
    """A cube of zeros: a megabyte of them packs to a thousandth."""
    shape = (side,) * 3
    head = path.with_suffix(".head")
    put(head, np.zeros((5, 5, 5), np.uint8), lps_affine(shape, (spacing,) * 3), dtype="u1")
    content = bytearray(head.read_bytes()[:352])
    content[40:48] = np.array([3, *shape], "<i2").tobytes()
    with gzip.open(path, "wb", 9) as file:
        file.write(bytes(content))
        for _ in range(side):
            file.write(bytes(side * side))
    return path


def test_packed_emptiness_costs_nothing(tmp_path: Path) -> None:
    """A header that is true, a file of some kB, and a gigabyte of nothing: refused before any voxel is unpacked."""
    path = packed_zeros(tmp_path / "t1.nii.gz", 440, 0.5)
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    with pytest.raises(D3MError, match="next to nothing is packed"):
        read_raw(path, "t1")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6
    with pytest.raises(D3MError, match="no scan of a head is so large"):
        read_raw(packed_zeros(tmp_path / "t2.nii.gz", 300, 4.0), "t2")


def test_more_than_the_free_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would not fit is said with both numbers, as the machine's fault, and nothing is allocated."""
    t1, _, _ = brains()
    put(tmp_path / "t1.nii", t1, lps_affine())
    monkeypatch.setattr(files, "free_memory", lambda: 500_000)
    with pytest.raises(D3MError, match=r"T1 has 48 x 56 x 40 voxels: 0.0 GiB of memory would be needed") as caught:
        read_raw(tmp_path / "t1.nii", "t1")
    assert caught.value.kind == "machine"


@pytest.mark.parametrize(("factor", "word"), [(1e300, "large"), (1e-300, "small")])
def test_values_beyond_single_precision(tmp_path: Path, factor: float, word: str) -> None:
    """A scan in absurd units is told as that, not as one of zeros; a few odd voxels do not spoil it."""
    t1, _, _ = brains()
    path = tmp_path / "t2.nii"
    put(path, t1.astype(np.float64) * factor, lps_affine(), dtype="f8")
    with pytest.raises(D3MError, match=f"too {word} for a scan"):
        read_raw(path, "t2")
    odd = t1.astype(np.float64)
    odd[0, 0, :3] = factor
    put(path, odd, lps_affine(), dtype="f8")
    assert np.array_equal(read_raw(path, "t2").data[1:], t1[1:])


def test_a_long_list_of_tensors_is_not_read(tmp_path: Path, tiny_model: Path) -> None:
    """A weights file whose list of tensors has far too many entries is refused by the length of that list."""
    from d3m.models.load import load_model

    folder = tmp_path / "tiny"
    shutil.copytree(tiny_model, folder)
    many = {f"tensor{k:07d}": {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]} for k in range(100_000)}
    text = json.dumps(many).encode()
    (folder / "weights.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    card["weights_sha256"] = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(D3MError, match="far more tensors"):
        load_model(folder)


def test_a_table_without_an_end(tmp_path: Path) -> None:
    """A table that is one long line, of cases or of training data, is not read as a whole."""
    for find, name in ((find_cases, "cases"), (find_patients, "patients")):
        table = tmp_path / f"{name}.csv"
        with table.open("wb") as f:
            f.write(b"id,t1,t2,flair,t1c\n")
            f.truncate(200_000_000)
        with pytest.raises(D3MError, match="larger than"):
            find(table)
