"""Output folders of known content, written without the engine, and an engine that only speaks its protocol."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

SHAPE = (30, 36, 24)
FIELD_SHAPE = (28, 32, 20)

ORIENTATIONS = {
    "RAS": np.diag([1.0, 1.0, 1.0]),
    "LPS": np.diag([-1.0, -1.0, 1.0]),
    "LAS": np.diag([-1.0, 1.0, 1.0]),
    "PIR": np.array([[0, 0, 1.0], [-1.0, 0, 0], [0, -1.0, 0]]),
    "ASL": np.array([[0, 0, -1.0], [1.0, 0, 0], [0, 1.0, 0]]),
    "SRA": np.array([[0, 1.0, 0], [0, 0, 1.0], [1.0, 0, 0]]),
}


def rotation(degrees_z: float, degrees_x: float) -> np.ndarray:
    """A rotation about z, then x."""
    z, x = np.radians([degrees_z, degrees_x])
    rotation = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return rotation @ np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])


def affine(
    name: str, shape: tuple[int, int, int] = SHAPE, spacing: tuple[float, float, float] = (1.0, 1.1, 1.4)
) -> np.ndarray:
    """Voxels to RAS with the volume's centre near the origin: an orientation's name, or "oblique"."""
    axes = rotation(14, -9) @ ORIENTATIONS["LPS"] if name == "oblique" else ORIENTATIONS[name]
    matrix = np.eye(4)
    matrix[:3, :3] = axes @ np.diag(spacing)
    matrix[:3, 3] = [3, -2, 5] - matrix[:3, :3] @ ((np.array(shape) - 1) / 2)
    return matrix


def points(shape: tuple[int, int, int], matrix: np.ndarray) -> np.ndarray:
    """RAS of every voxel, (X, Y, Z, 3)."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return index @ matrix[:3, :3].T + matrix[:3, 3]


def scene_image(ras: np.ndarray) -> np.ndarray:
    """A smooth image without symmetry, as a function of RAS."""
    blob = np.exp(-(((ras - [4, 1, 6]) / [7, 5, 6]) ** 2).sum(-1))
    return 120 * np.exp(-((ras / 16) ** 2).sum(-1)) + 100 * blob + 0.5 * ras[..., 0] + 30


def scene_field(ras: np.ndarray) -> np.ndarray:
    """A smooth displacement in RAS mm, different along every axis."""
    weight = np.exp(-(((ras - [3, 0, 5]) / 9) ** 2).sum(-1))[..., None]
    return weight * np.array([2.5, -1.5, 0.8])


def pull(image: np.ndarray, matrix: np.ndarray, field: np.ndarray) -> np.ndarray:
    """The image whose value at x is the old value at x + u(x); linear, by scipy."""
    ras = points(image.shape, matrix) + field
    inverse = np.linalg.inv(matrix)
    index = ras @ inverse[:3, :3].T + inverse[:3, 3]
    return ndimage.map_coordinates(image, np.moveaxis(index, -1, 0), order=1, mode="nearest")


@dataclass(frozen=True)
class MadeOutput:
    """What was written."""

    folder: Path
    t1: np.ndarray
    cemri: np.ndarray
    probability: np.ndarray
    mask: np.ndarray
    matrix: np.ndarray
    before: np.ndarray
    after: np.ndarray
    field: np.ndarray
    field_matrix: np.ndarray


def save(path: Path, data: np.ndarray, matrix: np.ndarray) -> None:
    """A NIfTI file as the engine writes it."""
    if data.ndim == 4:
        data = data[:, :, :, None, :].astype(np.float32)
    image = nibabel.Nifti1Image(data, matrix)
    image.set_qform(matrix, 1)
    image.set_sform(matrix, 1)
    if data.ndim == 5:
        image.header.set_intent(1006)
    nibabel.save(image, path)


def make_output(folder: Path, orientation: str = "LPS", steps: int = 3, threshold: float = 0.3) -> MadeOutput:
    """Write a complete output folder: T1's grid in this orientation, the field on an oblique grid of its own."""
    folder.mkdir(parents=True)
    matrix = affine(orientation)
    field_matrix = affine("oblique" if orientation == "oblique" else orientation, FIELD_SHAPE, (1.2, 1.2, 1.6))
    ras, field_ras = points(SHAPE, matrix), points(FIELD_SHAPE, field_matrix)
    t1 = scene_image(ras).astype(np.float32)
    rim = np.exp(-((np.linalg.norm(ras - [4, 1, 6], axis=-1) - 5) ** 2) / 3)
    probability = (0.9 * rim).astype(np.float32)
    mask = probability >= threshold
    cemri = (t1 + 90 * rim).astype(np.float32)
    field = scene_field(field_ras)
    before = scene_image(field_ras).astype(np.float32)
    after = pull(before, field_matrix, field).astype(np.float32)
    for name, data in (
        ("cemri", cemri),
        ("subtraction", cemri - t1),
        ("enhancement_probability", probability),
        ("enhancement_mask", mask.astype(np.uint8)),
    ):
        save(folder / f"{name}.nii.gz", data, matrix)
    save(folder / "deformation.nii.gz", field, field_matrix)
    save(folder / "first_sample.nii.gz", after, field_matrix)
    if steps:
        (folder / "trace").mkdir()
    for done in range(1, steps + 1):
        share = done / steps
        start = f"trace/step_{done:03d}"
        save(folder / f"{start}_before.nii.gz", (before * share).astype(np.float32), field_matrix)
        save(folder / f"{start}_after.nii.gz", (after * share).astype(np.float32), field_matrix)
        save(folder / f"{start}_mask.nii.gz", np.full(FIELD_SHAPE, 0.1 * done, np.float32), field_matrix)
        save(folder / f"{start}_field.nii.gz", field * share, field_matrix)
    write_provenance(folder)
    return MadeOutput(folder, t1, cemri, probability, mask, matrix, before, after, field, field_matrix)


def write_provenance(folder: Path) -> None:
    """The list of files, and the settings of a run."""
    files = {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    content = {
        "synthetic": True,
        "software": {"name": "D3M for 3D Slicer", "version": "0.1.0"},
        "model": {"name": "tiny", "weights_sha256": "ab" * 32},
        "settings": {"quality": "standard", "seed": 7, "steps": 3, "samples": 1},
        "notices": [{"code": "x", "message": "T2 has thick slices.", "volume": "t2"}],
        "files": files,
    }
    (folder / "provenance.json").write_text(json.dumps(content), encoding="utf-8")


FAKE_ENGINE = """
import json, os, pathlib, shutil, signal, subprocess, sys, time
def say(**event): print(json.dumps(event), flush=True)
behaviour = (pathlib.Path(__file__).parent / "behaviour.txt").read_text()
out = sys.argv[sys.argv.index("--out") + 1] if "--out" in sys.argv else ""
if behaviour == "environment":
    print(json.dumps({"env": dict(os.environ), "path": sys.path, "file": __file__, "flags": sys.flags.no_user_site}))
    sys.exit(0)
say(stage="read", fraction=0.0, step=None, steps=None, eta_s=None, message="Reading")
say(stage="sample", fraction=0.5, step=1, steps=2, eta_s=1.5, message="Step 1 of 2")
if behaviour == "garbage":
    sys.stdout.buffer.write(b"\\xff\\xfe not text\\n{broken\\n[1, 2]\\n{\\"no\\": \\"stage\\"}\\n{\\"stage\\": 3}\\n")
    sys.stdout.buffer.write(b"no newline yet")
    sys.stdout.flush()
    print(" \\u5c71 on stderr", file=sys.stderr)
    say(stage="sample", fraction="half", step="one", steps=None, eta_s=float("nan"), message=None)
if behaviour in ("slow", "stubborn"):
    if behaviour == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
        child = subprocess.Popen([sys.executable, "-c", deaf])
        (pathlib.Path(__file__).parent / "grandchild.txt").write_text(str(child.pid))
    (pathlib.Path(__file__).parent / "pid.txt").write_text(str(os.getpid()))
    time.sleep(60)
if behaviour == "waits":
    (pathlib.Path(__file__).parent / "arguments.json").write_text(json.dumps(sys.argv[1:]))
    (pathlib.Path(__file__).parent / "pid.txt").write_text(str(os.getpid()))
    while not (pathlib.Path(__file__).parent / "go.txt").exists():
        time.sleep(0.02)
if behaviour == "asks":
    sys.stdin.read()
if behaviour == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if behaviour == "memory":
    raise MemoryError
if behaviour == "missing":
    import a_package_that_is_not_there
if behaviour == "error":
    print("C:/patients/Doe^John/t1.nrrd cannot be read", file=sys.stderr)
    say(stage="error", kind="input", message="T2 has no orientation.", hint="Export it again.")
    sys.exit(2)
source = (pathlib.Path(__file__).parent / "source.txt")
if source.exists():
    shutil.copytree(source.read_text(), out)
if behaviour == "cut":
    (pathlib.Path(out) / "cemri.nii.gz").write_bytes(b"short")
say(stage="done", out=out)
"""


def fake_engine(folder: Path, behaviour: str, source: Path | None = None) -> Path:
    """A package `d3m` that behaves so; `source` is the output folder that it hands out."""
    package = folder / "d3m"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(FAKE_ENGINE)
    (package / "behaviour.txt").write_text(behaviour)
    if source is not None:
        (package / "source.txt").write_text(str(source))
    return package
