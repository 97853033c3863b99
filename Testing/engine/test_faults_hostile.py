"""Scans from strangers, changed at random: read, or refused with a sentence; no crash, no hang, no file written."""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from d3m.errors import D3MError
from d3m.models.card import Card
from d3m.models.recipes import DEFAULT
from d3m.volumes.preprocess.case import read_volume
from engine.command_helpers import ENGINE, environment

TESTING = str(Path(__file__).parents[1])


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_changed_files_are_refused_or_read(tmp_path: Path) -> None:
    """Hundreds of inputs of the fuzzer without its guide, with limited memory; one seed, so the same every time."""
    code = (
        "import random, resource, sys; from pathlib import Path; from benchmarks import fuzz\n"
        "targets = {'volume': 300, 'card': 500, 'weights': 40, 'table': 200, 'dicom': 60, 'flipped': 200}\n"
        "for target, count in targets.items():\n"
        "    place = Path(sys.argv[1]) / target; place.mkdir()\n"
        "    one = fuzz.guarded(fuzz.reader_of(target, place), place)\n"
        "    rng, seeds = random.Random(7), fuzz.seeds_of(target)\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (fuzz.MEMORY_BYTES, fuzz.MEMORY_BYTES))\n"
        "    for number in range(count): one(fuzz.next_input(target, rng, seeds))\n"
        "    print(target, number + 1)\n"
    )
    env = environment(PYTHONPATH=f"{ENGINE}:{TESTING}", PYTHONWARNINGS="ignore")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["volume", "300", "card", "500", "weights", "40", "table", "200", "dicom", "60",
                                   "flipped", "200"]  # fmt: skip


def nifti(change: Callable[[bytearray], None], voxels: int = 4096) -> bytes:
    """A NIfTI file with a changed header."""
    image = nibabel.Nifti1Image(np.zeros((16, 16, 16), np.uint8), np.eye(4))
    header = bytearray(image.to_bytes()[:352])
    change(header)
    return bytes(header) + bytes(voxels)


def sizes(*numbers: int) -> Callable[[bytearray], None]:
    """Declares a size."""
    return lambda header: header.__setitem__(
        slice(40, 40 + 2 * len(numbers)), struct.pack(f"<{len(numbers)}h", *numbers)
    )


def field(offset: int, content: bytes) -> Callable[[bytearray], None]:
    """Puts bytes at a place of the header."""
    return lambda header: header.__setitem__(slice(offset, offset + len(content)), content)


NAN = struct.pack("<f", float("nan"))
HOSTILE = {
    "32767 voxels along each axis": nifti(sizes(3, 32767, 32767, 32767)),
    "negative size": nifti(sizes(3, -16, 16, 16)),
    "no axes": nifti(sizes(0, 16, 16, 16)),
    "bomb": gzip.compress(nifti(sizes(3, 640, 640, 640), 2_000_000), mtime=0),
    "NaN in the affine": nifti(field(280, NAN)),
    "infinite offset of the voxels": nifti(field(108, struct.pack("<f", float("inf")))),
    "voxels at minus one": nifti(field(108, struct.pack("<f", -1.0))),
    "voxels after 2^30 bytes": nifti(field(108, struct.pack("<f", 2.0**30))),
    "NRRD of 10^40 voxels": b"NRRD0004\ntype: float\ndimension: 3\nspace: RAS\nsizes: 9" + b"9" * 40
    + b" 9 9\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\nencoding: raw\nendian: little\n\n",
    "NRRD that skips for ever": b"NRRD0004\ntype: float\ndimension: 3\nspace: RAS\nsizes: 9 9 9\n"
    b"space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\nencoding: gzip\nendian: little\n"
    b"byte skip: 99999999999999\n\n" + gzip.compress(bytes(3000), mtime=0),
    "MetaImage of 10^30 voxels": b"ObjectType = Image\nNDims = 3\nDimSize = 9999999999 9999999999 9999999999\n"
    b"TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 1 1 1\nElementType = MET_FLOAT\n"
    b"CompressedData = True\nElementDataFile = LOCAL\n" + bytes(99),
    "MetaImage that names another file": b"ObjectType = Image\nNDims = 3\nDimSize = 9 9 9\n"
    b"TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 1 1 1\nElementType = MET_FLOAT\n"
    b"ElementDataFile = /dev/zero\n",
    "header without end": b"NRRD0004\n" + b"a: b\n" * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_headers_that_lie(name: str, tmp_path: Path) -> None:
    """Absurd sizes, offsets and numbers are refused before memory is taken for them; the contrast is named."""
    (tmp_path / "scan").write_bytes(HOSTILE[name])
    with pytest.raises(D3MError, match="T2") as caught:
        read_volume(tmp_path / "scan", "t2")
    assert caught.value.exit_code == 2
    assert caught.value.hint


def test_card_that_says_a_thing_twice() -> None:
    """Two values of one entry are refused: another program would take the other one."""
    text = Card("m", "M", DEFAULT, "a" * 64).to_json()
    assert Card.from_json(text).mask_threshold == 0.5
    with pytest.raises(D3MError, match="twice"):
        Card.from_json(text.replace('"mask_threshold": 0.5', '"mask_threshold": 0.5, "mask_threshold": 0.9'))
