"""Small synthetic scans, and files written field by field so that no library tidies their headers."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
from scipy import ndimage

SHAPE = (48, 56, 40)
NIFTI_CODES = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512, "u4": 768, "i8": 1024, "c8": 32}


def lps_affine(shape=SHAPE, spacing=(1.0, 1.0, 1.0)):
    """Index to RAS millimetres for data stored left, posterior, superior, centred."""
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def rotation(degrees, axis):
    """A (4, 4) rotation about a world axis (0 x, 1 y, 2 z)."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    one, two = (a for a in range(3) if a != axis)
    matrix = np.eye(4)
    matrix[one, one] = matrix[two, two] = c
    matrix[one, two], matrix[two, one] = -s, s
    return matrix


def brains(shape=SHAPE, seed=0, offset=(0, 0, 0), lesion=5):
    """T1, T2 and FLAIR of one skull-stripped brain-like object: white and grey matter, fluid, a lesion on the left.

    Returns:
        Three (X, Y, Z) float32 arrays, 0 outside.
    """
    random = np.random.default_rng(seed)
    x, y, z = (
        g - (n - 1) / 2 - o
        for g, n, o in zip(np.meshgrid(*map(np.arange, shape), indexing="ij"), shape, offset, strict=True)
    )
    wavy = 1 + 0.04 * np.sin(x / 3) * np.cos(y / 4)
    radius = np.sqrt((x / 17) ** 2 + (y / 21) ** 2 + (z / 15) ** 2) * wavy
    tissue = np.select([radius > 1, radius > 0.95, radius > 0.75], [0, 3, 2], 1)
    tissue[np.sqrt((x / 4) ** 2 + (y / 8) ** 2 + (z / 4) ** 2) < 1] = 3
    tissue[np.sqrt((x - 8) ** 2 + (y + 6) ** 2 + (z - 1) ** 2) < lesion] = 4
    signals = {"t1": (0, 100, 70, 20, 60), "t2": (0, 30, 42, 110, 118), "flair": (0, 50, 62, 14, 105)}
    scans = []
    for values in signals.values():
        clean = np.array(values, np.float32)[tissue]
        noisy = clean * (1 + 0.03 * random.standard_normal(shape)).astype(np.float32)
        scans.append(np.where(tissue > 0, np.maximum(noisy, 1), 0).astype(np.float32))
    return scans


def with_head(scan, seed=0):
    """The scan with skull and scalp around the brain, and noise in the air: everything a scanner sees."""
    random = np.random.default_rng(seed)
    away = ndimage.distance_transform_edt(scan == 0)
    bright = np.percentile(scan[scan > 0], 99)
    noise = np.abs(random.normal(0, 0.01 * bright, scan.shape))
    layers = np.select([away == 0, away <= 2, away <= 6, away <= 12], [scan, 0, 0.05 * bright, 1.2 * bright], 0)
    return (layers + np.where(away > 0, noise, 0)).astype(np.float32)


def quaternion(affine):
    """(b, c, d), qfac and the voxel sizes that a NIfTI header stores for an affine of right angles."""
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    rotation = affine[:3, :3] / sizes
    qfac = 1.0
    if np.linalg.det(rotation) < 0:
        rotation, qfac = rotation * [1, 1, -1], -1.0
    from scipy.spatial.transform import Rotation

    b, c, d, a = Rotation.from_matrix(rotation).as_quat()
    return np.array([b, c, d]) * (1 if a >= 0 else -1), qfac, sizes


def nifti_bytes(
    data, affine, dtype="f4", *, qform=None, sform=None, qcode=1, scode=1, units=2, order="<", slope=0.0, inter=0.0,
    dims=None, code=None, offset=352.0, magic=b"n+1\0",
):  # fmt: skip
    """A NIfTI-1 file, every field as it is told."""
    (b, c, d), qfac, sizes = quaternion(affine if qform is None else qform)
    start = (affine if qform is None else qform)[:3, 3]
    rows = affine if sform is None else sform
    shape = data.shape if dims is None else dims
    dim = [len(shape), *shape, *[1] * (7 - len(shape))]
    pixdim = [qfac, *sizes, 1, 1, 1, 1]
    number = NIFTI_CODES[dtype] if code is None else code
    header = struct.pack(order + "i", 348) + bytes(36)
    header += struct.pack(order + "8h", *dim) + bytes(14)
    header += struct.pack(order + "hhh", number, 8 * np.dtype(dtype).itemsize, 0)
    header += struct.pack(order + "8f", *pixdim) + struct.pack(order + "fff", offset, slope, inter)
    header += struct.pack(order + "hbb", 0, 0, units) + bytes(4 * 4 + 8 + 80 + 24)
    header += struct.pack(order + "hh", qcode, scode) + struct.pack(order + "6f", b, c, d, *start)
    header += np.asarray(rows[:3], order + "f4").tobytes() + bytes(16) + magic
    assert len(header) == 348
    voxels = data.astype(np.dtype(dtype).newbyteorder(order)).tobytes("F")
    return header + (bytes(4) if magic == b"n+1\0" else b"") + voxels


def put(path, data, affine, dtype="f4", **fields):
    """Write a NIfTI-1 file, packed if its name says so."""
    content = nifti_bytes(data, affine, dtype, **fields)
    Path(path).write_bytes(gzip.compress(content, 1) if str(path).endswith(".gz") else content)
    return Path(path)


def nrrd_bytes(data, affine, space="left-posterior-superior", *, encoding="raw", dtype="<f4", extra=()):
    """An NRRD file in any of the three anatomical spaces."""
    signs = np.array([-1 if "left" in space else 1, -1 if "posterior" in space else 1, 1.0])
    vectors = signs[:, None] * affine[:3]
    text = ["(" + ",".join(f"{v:.10g}" for v in column) + ")" for column in vectors.T]
    names = {"<f4": "float", ">f4": "float", "<i2": "short", ">i2": "short", "<f8": "double", "u1": "uchar"}
    lines = [
        "NRRD0004", "# made by a test", f"type: {names[dtype]}", "dimension: 3", f"space: {space}",
        "sizes: " + " ".join(map(str, data.shape)), "space directions: " + " ".join(text[:3]),
        "kinds: domain domain domain", f"endian: {'big' if dtype[0] == '>' else 'little'}", f"encoding: {encoding}",
        f"space origin: {text[3]}", *extra,
    ]  # fmt: skip
    voxels = data.astype(dtype).tobytes("F")
    return ("\n".join(lines) + "\n\n").encode() + (gzip.compress(voxels, 1) if encoding == "gzip" else voxels)
