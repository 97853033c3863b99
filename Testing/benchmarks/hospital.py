"""Scans as a scanner gives them, made from prepared patients, and how much a model's result suffers from them.

    python Testing/benchmarks/hospital.py make DATA OUT --kind dicom
    python Testing/benchmarks/hospital.py measure DATA --quality preview --table degradation.csv

DATA is a folder of BraTS-style patients (skull-stripped, co-registered, 1 mm). Their preparation is undone: the head is
tilted, scans get grids and orientations of their own, slices become thick, the patient moves between scans, a skull and
a scalp grow around the brain. `measure` runs `d3m synthesize` on the prepared and on the hospital-like input and moves
the result back by the known transform; what is compared lies on the prepared T1's grid. The heads are simulated: they
test the plumbing (grids, registration, extraction of the brain), not how real heads look.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Optional

import nibabel
import numpy as np
import typer
from nibabel import orientations
from scipy import ndimage
from scipy.spatial.transform import Rotation

from d3m import metrics
from d3m.models.store import find_model, read_card
from d3m.volumes.preprocess.case import read_volume
from d3m.volumes.types import CONTRASTS, Affine, Floats, Mask, Volume
from d3m_training.data.cache import ENHANCING
from d3m_training.data.datasets import Patient, check, find_patients
from d3m_training.data.labels import unify

HEAD_MM = 26
"""Room around the brain for skull, scalp and air."""
NECK_MM = 45
"""Room below the brain for what is left of face and neck."""
ROOM_MM = 3
"""Room around what a scan shows."""
SIGNALS = {
    "t1": (0.10, 0.05, 0.55, 1.30, 0.50),
    "t2": (1.00, 0.04, 0.35, 0.75, 0.25),
    "flair": (0.12, 0.04, 0.30, 0.70, 0.35),
}
"""Fluid, cortical bone, marrow, fat, muscle: signal over that of the brain's brightest 1 %, as these sequences show."""
DESCRIPTIONS = {"t1": "t1_mprage", "t2": "t2_tse", "flair": "t2_tirm_dark-fluid"}
REPORTED = ("psnr_brain", "psnr_tumour", "ssim_brain", "ssim_tumour", "dice")


@dataclass(frozen=True)
class Protocol:
    """How one contrast is scanned."""

    axes: str
    """Directions of columns, rows and slices, such as "LPS" for axial slices."""
    spacing: tuple[float, float, float]
    """Millimetres along columns, rows and slices; what is thicker than 1 mm is averaged as a slice is."""


AXIAL = Protocol("LPS", (1.0, 1.0, 1.0))
MIXED = {
    "t1": Protocol("PIR", (1.0, 1.0, 1.0)),
    "t2": Protocol("LPS", (0.8, 0.8, 2.0)),
    "flair": Protocol("LIP", (0.9, 0.9, 1.2)),
}


@dataclass(frozen=True)
class Kind:
    """One way in which scans differ from prepared ones."""

    name: str
    what: str
    protocols: dict[str, Protocol]
    tilt: float = 0.0
    """Degrees by which the head lies turned in the scanner, about an axis of its own for each patient."""
    move: float = 0.0
    """Millimetres and degrees by which the patient moves between scans."""
    skull: bool = False
    dicom: bool = False


_SAME = dict.fromkeys(CONTRASTS, AXIAL)
KINDS = {
    kind.name: kind
    for kind in (
        Kind("tilted", "head tilted by 12°, 1 mm", _SAME, tilt=12),
        Kind("grids", "three grids and orientations", MIXED),
        Kind("moved", "head moved by 4 mm and 4° between scans", _SAME, move=4),
        Kind("thick", "slices of 5 mm", dict.fromkeys(CONTRASTS, Protocol("LPS", (0.9, 0.9, 5.0)))),
        Kind("skull", "skull and scalp, 1 mm", _SAME, skull=True),
        Kind("dicom", "skull, tilt, three grids, as DICOM", MIXED, tilt=12, skull=True, dicom=True),
        Kind("all", "skull, tilt, grids, moved between scans, DICOM", MIXED, tilt=12, move=4, skull=True, dicom=True),
    )
}


@dataclass(frozen=True)
class Visit:
    """What a scanner gives of one patient."""

    scans: dict[str, Volume]
    """t1, t2, flair."""
    pose: Affine
    """(4, 4), RAS to RAS millimetres: where the prepared T1's anatomy lies in the T1 from the scanner."""


def visit(scans: dict[str, Volume], kind: Kind, seed: int) -> Visit:
    """Undo the preparation of a patient.

    Args:
        scans: t1, t2 and flair, stripped (background 0), on one grid of 1 mm.
        kind: What is undone.
        seed: Of pose, movement, head and noise.
    """
    random = np.random.default_rng(seed)
    brain = scans["t1"].data != 0
    centre = scans["t1"].affine[:3, :3] @ np.array(ndimage.center_of_mass(brain)) + scans["t1"].affine[:3, 3]
    pose = random_rotation(random, centre, kind.tilt, kind.tilt / 2)
    if kind.skull:
        scans = add_head(scans, random)
    made = {}
    for name in CONTRASTS:
        moved = (
            pose
            if name == "t1"
            else random_rotation(random, pose[:3, :3] @ centre + pose[:3, 3], kind.move, kind.move) @ pose
        )
        made[name] = acquire(scans[name], moved, kind.protocols[name])
    return Visit(made, pose)


def random_rotation(random: np.random.Generator, centre: np.ndarray, degrees: float, millimetres: float) -> Affine:
    """A rigid transform, RAS to RAS millimetres: about a random axis through `centre`, then along a random way."""
    axis, way = random.normal(size=(2, 3))
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)).as_matrix()
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre + millimetres * way / np.linalg.norm(way)
    return matrix


def acquire(scan: Volume, pose: Affine, protocol: Protocol) -> Volume:
    """Scan anatomy that lies elsewhere, on a grid along the scanner's axes that holds all of it.

    Interpolated once, with cubic splines; in slices thicker than 1 mm several positions are averaged.

    Args:
        scan: Background 0.
        pose: (4, 4), RAS to RAS millimetres, of the anatomy.
        protocol: The grid.
    """
    axes = np.zeros((3, 3))
    for k, (axis, sign) in enumerate(orientations.axcodes2ornt(tuple(protocol.axes))):
        axes[int(axis), k] = sign
    spacing = np.array(protocol.spacing)
    parts = max(1, round(spacing[2]))
    place = pose @ scan.affine
    shown = np.argwhere(scan.data > 0.05 * scan.data.max())[::7].T
    along = axes.T @ (place[:3, :3] @ shown + place[:3, 3:])
    low, high = along.min(axis=1) - ROOM_MM, along.max(axis=1) + ROOM_MM
    shape = np.ceil((high - low) / spacing).astype(int) + 1
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = axes @ low
    fine = affine @ np.diag([1, 1, 1 / parts, 1])
    fine[:3, 3] = affine[:3, 3] - (parts - 1) / 2 * fine[:3, 2]  # the parts of a slice lie evenly about its centre
    lattice = (shape[0], shape[1], shape[2] * parts)
    data = _interpolated(scan.data, np.linalg.inv(place) @ fine, lattice, 3)
    inside = _interpolated((scan.data != 0).astype(np.float32), np.linalg.inv(place) @ fine, lattice, 1) > 0.5
    data = np.where(inside, np.maximum(data, 1e-3 * scan.data.max()), 0)  # a spline rings across the brain's edge
    return Volume(data.reshape(*shape, parts).mean(axis=3).astype(np.float32), affine)


def _interpolated(data: Floats, mapping: Affine, shape: tuple[int, int, int], order: int) -> Floats:
    return ndimage.affine_transform(data, mapping[:3, :3], mapping[:3, 3], output_shape=shape, order=order)


def add_head(scans: dict[str, Volume], random: np.random.Generator) -> dict[str, Volume]:
    """The scans with fluid, skull, marrow, fat, skin, a neck with a spinal cord, and noise, all where the brain is not.

    Args:
        scans: t1, t2 and flair, stripped, on one grid of 1 mm whose third axis runs to superior.
        random: Of thicknesses, what lies below the brain, and noise.

    Returns:
        On another grid of the same lattice, around the head.
    """
    found = np.argwhere(scans["t1"].data != 0)
    low = found.min(axis=0) - [HEAD_MM, HEAD_MM, NECK_MM]
    size = (found.max(axis=0) + 1 + HEAD_MM - low + 1) // 2 * 2
    affine = scans["t1"].affine.copy()
    affine[:3, 3] += affine[:3, :3] @ low
    whole = {name: _part(scans[name].data, low, size) for name in CONTRASTS}
    brain = whole["t1"] != 0
    tissue = head_tissue(brain[::2, ::2, ::2], random)
    made = {}
    for name in CONTRASTS:
        top = float(np.percentile(whole[name][brain], 99))
        signal = ndimage.gaussian_filter(np.take(np.array((0.0, *SIGNALS[name])), tissue), 0.4)
        signal *= 1 + 0.08 * _uneven(tissue.shape, 25, random)
        around = ndimage.zoom(signal, 2, order=1, mode="nearest", grid_mode=True)
        noisy = np.abs(around * top + random.normal(0, 0.012 * top, around.shape))
        made[name] = Volume(np.where(brain, whole[name], noisy).astype(np.float32), affine)
    return made


def _part(data: Floats, low: np.ndarray, size: np.ndarray) -> Floats:
    """The box of `size` from `low` on, which may reach beyond the data: 0 there."""
    result = np.zeros(size, np.float32)
    start, end = np.maximum(low, 0), np.minimum(low + size, data.shape)
    into = tuple(slice(a, b) for a, b in zip(start - low, end - low, strict=True))
    result[into] = data[tuple(slice(a, b) for a, b in zip(start, end, strict=True))]
    return result


def head_tissue(brain: Mask, random: np.random.Generator) -> np.ndarray:
    """What surrounds a brain, on a grid of 2 mm: 0 air or brain, then in the order of `SIGNALS`.

    Args:
        brain: (X, Y, Z); the last axis runs to superior.
        random: Of thicknesses and what lies below.
    """

    def away(mask: Mask) -> Floats:
        return 2 * ndimage.distance_transform_edt(~mask)

    hull = away(away(brain) > 8) > 8  # closed over the sulci
    depth = away(hull | brain)
    bone, fat, skin = (
        start + spread * _uneven(brain.shape, 20, random) for start, spread in ((1.5, 0.4), (7.5, 0.8), (13, 1.2))
    )
    marrow = (depth > bone + 2) & (depth < fat - 2)
    tissue = np.select([depth <= bone, marrow, depth <= fat, depth <= skin, depth <= skin + 2], [1, 3, 2, 4, 5], 0)
    # face and neck: muscle with fat and cavities in it, and the spinal cord in its fluid
    levels = np.flatnonzero(brain.any(axis=(0, 1)))
    waist = int(levels[0] + 0.35 * (levels[-1] - levels[0]))
    column = np.zeros(brain.shape, bool)
    column[:, :, :waist] = (away(brain[:, :, waist]) < 14)[:, :, None]
    texture = _uneven(brain.shape, 7, random)
    tissue = np.where(column & (tissue == 0), np.select([texture > 1.2, texture < -1.5], [4, 2], 5), tissue)
    stem = np.argwhere(brain[:, :, levels[0] : levels[0] + 2]).mean(axis=0)
    x, y = np.ogrid[: brain.shape[0], : brain.shape[1]]
    canal = np.broadcast_to(2 * np.hypot(x - stem[0], y - stem[1])[:, :, None], brain.shape)
    lower = np.arange(brain.shape[2]) < levels[0]
    tissue = np.select([lower & (canal < 6), lower & (canal < 10)], [3, 1], tissue)
    return np.where(brain, 0, tissue)


def _uneven(shape: tuple[int, ...], millimetres: float, random: np.random.Generator) -> Floats:
    """A smooth random field of standard deviation 1 on a grid of 2 mm."""
    noise = ndimage.gaussian_filter(random.normal(size=shape).astype(np.float32), millimetres / 2)
    return noise / noise.std()


def write_nifti(folder: Path, scans: dict[str, Volume]) -> None:
    """Write t1, t2 and flair into a folder, one file each."""
    folder.mkdir(parents=True)
    for name in CONTRASTS:
        nibabel.save(nibabel.Nifti1Image(scans[name].data, scans[name].affine), folder / f"{name}.nii.gz")


def write_study(folder: Path, scans: dict[str, Volume]) -> None:
    """Write t1, t2 and flair as three series of one study into one folder, file names without meaning."""
    from pydicom.uid import generate_uid

    folder.mkdir(parents=True)
    study, frame = generate_uid(), generate_uid()
    for number, name in enumerate(CONTRASTS, start=1):
        _write_series(folder, scans[name], DESCRIPTIONS[name], number, study, frame)


def _write_series(folder: Path, scan: Volume, description: str, number: int, study: str, frame: str) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    series = generate_uid()
    to_lps = np.diag([-1.0, -1.0, 1.0])
    spacing = np.linalg.norm(scan.affine[:3, :3], axis=0)
    directions = to_lps @ scan.affine[:3, :3] / spacing
    slope = float(scan.data.max()) / 4000
    for k in range(scan.data.shape[2]):
        d, meta = Dataset(), FileMetaDataset()
        meta.MediaStorageSOPClassUID = d.SOPClassUID = MRImageStorage
        meta.MediaStorageSOPInstanceUID = d.SOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        d.file_meta, d.Modality, d.ImageType = meta, "MR", ["ORIGINAL", "PRIMARY", "M", "NORM"]
        d.PatientName, d.PatientID, d.PatientBirthDate, d.PatientSex = "Simulated^Head", "SIM1", "19500101", "O"
        d.StudyInstanceUID, d.SeriesInstanceUID, d.FrameOfReferenceUID = study, series, frame
        d.StudyDate, d.StudyTime, d.AccessionNumber, d.StudyID = "20240101", "101010", "1", "1"
        d.SeriesDescription, d.SeriesNumber, d.InstanceNumber = description, number, k + 1
        d.ScanningSequence, d.SequenceVariant, d.ScanOptions, d.MRAcquisitionType = "SE", "SK", "", "2D"
        d.ImagePositionPatient = [f"{v:.6f}" for v in to_lps @ (scan.affine[:3, :3] @ [0, 0, k] + scan.affine[:3, 3])]
        d.ImageOrientationPatient = [f"{v:.6f}" for v in directions[:, :2].T.ravel()]
        d.PixelSpacing = [f"{spacing[1]:.6f}", f"{spacing[0]:.6f}"]
        d.SliceThickness = d.SpacingBetweenSlices = f"{spacing[2]:.6f}"
        pixels = np.round(scan.data[:, :, k].T / slope).astype("<u2")
        d.Rows, d.Columns = pixels.shape
        d.PixelData = np.ascontiguousarray(pixels).tobytes()
        d.RescaleSlope, d.RescaleIntercept, d.RescaleType = f"{slope:.9g}", "0", "US"
        d.SamplesPerPixel, d.PhotometricInterpretation, d.PixelRepresentation = 1, "MONOCHROME2", 0
        d.BitsAllocated, d.BitsStored, d.HighBit = 16, 12, 11
        d.save_as(folder / f"IM{number:02d}{k:04d}", enforce_file_format=True)


@dataclass(frozen=True)
class Measured:
    """A result against the real T1c, on the prepared T1's grid; undefined values are NaN."""

    id: str
    kind: str
    psnr_brain: float
    psnr_tumour: float
    ssim_brain: float
    ssim_tumour: float
    dice: float
    """Of the enhancing tumour, at the model's threshold."""
    notices: str
    """Codes of the notices, or why there is no result."""


def seed_of(identifier: str) -> int:
    """A patient's own seed."""
    return zlib.crc32(identifier.encode())


def read_scans(patient: Patient) -> dict[str, Volume]:
    """t1, t2, flair and t1c of a prepared patient."""
    return {name: read_volume(getattr(patient, name), name) for name in (*CONTRASTS, "t1c")}


def inputs(folder: Path, made: Visit, kind: Kind, brain: Volume | None = None) -> list[str]:
    """Write what the scanner gives; the options of `d3m synthesize` that name it.

    Args:
        folder: New.
        made: By `visit`.
        kind: Files or DICOM.
        brain: The prepared T1's brain (not 0), to be given as a mask beside the folder; None: no mask is given.
    """
    if kind.dicom:
        write_study(folder, made.scans)
        options = ["--dicom", str(folder)]
    else:
        write_nifti(folder, made.scans)
        options = [text for name in CONTRASTS for text in (f"--{name}", str(folder / f"{name}.nii.gz"))]
    if brain is not None:
        t1 = made.scans["t1"]
        mapping = np.linalg.inv(made.pose @ brain.affine) @ t1.affine
        mask = _interpolated((brain.data != 0).astype(np.float32), mapping, t1.data.shape, 0)
        path = folder.parent / "brain.nii.gz"
        nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), t1.affine), path)
        options += ["--brain-mask", str(path)]
    return options


def synthesize(arguments: Sequence[str], out: Path, quality: str, model: str | None) -> str:
    """Run `d3m synthesize`; its error, or nothing."""
    command = [sys.executable, "-m", "d3m", "synthesize", *arguments, "--out", str(out), "--quality", quality]
    command += ["--slice-interval", "1"]  # measures the input's preparation, not the interpolation of `preview`
    if model is not None:
        command += ["--model", model]
    done = subprocess.run([*command, "--progress", "json"], capture_output=True, encoding="utf-8", check=False)
    if done.returncode == 0:
        return ""
    lines = done.stdout.strip().splitlines()
    try:
        return str(json.loads(lines[-1])["message"])
    except (IndexError, KeyError, ValueError):
        return done.stderr.strip()[-300:] or f"exit code {done.returncode}"


def carried_back(path: Path, pose: Affine, t1: Volume) -> Floats:
    """An output volume, (X, Y, Z) on the prepared T1's grid, by the known pose; cubic splines."""
    image = nibabel.load(path)
    mapping = np.linalg.inv(image.affine) @ pose @ t1.affine
    data = np.asarray(image.dataobj, np.float32)
    if np.allclose(mapping, np.eye(4), atol=1e-6) and data.shape == t1.data.shape:
        return data
    return _interpolated(data, mapping, t1.data.shape, 3)


def score(out: Path, pose: Affine, scans: dict[str, Volume], labels: np.ndarray, threshold: float) -> dict[str, float]:
    """Compare an output folder with the real T1c, through `d3m.metrics`."""
    t1 = scans["t1"]
    brain = t1.data != 0
    axial = orientations.io_orientation(t1.affine)
    where = metrics.regions(
        *(orientations.apply_orientation(mask, axial) for mask in (brain, labels > 0, labels == ENHANCING))
    )
    cemri, probability, real = (
        orientations.apply_orientation(image, axial)
        for image in (
            carried_back(out / "cemri.nii.gz", pose, t1),
            carried_back(out / "enhancement_probability.nii.gz", pose, t1),
            scans["t1c"].data,
        )
    )
    real = np.where(where.brain, metrics.scale_by_percentiles(real, where.brain), 0)
    scores = metrics.similarity(metrics.fit(cemri, real, where.brain), real, where)
    masks = metrics.overlap((probability >= threshold) & where.brain, where.enhancing, where.brain, 0.001)
    return {
        "psnr_brain": scores.psnr_brain,
        "psnr_tumour": scores.psnr_tumour,
        "ssim_brain": scores.ssim_brain,
        "ssim_tumour": scores.ssim_tumour,
        "dice": masks.dice,
    }


def measure_patient(
    identifier: str,
    scans: dict[str, Volume],
    labels: np.ndarray,
    arguments: Sequence[str],
    pose: Affine,
    kind: str,
    quality: str,
    model: str | None,
    folder: Path,
) -> Measured:
    """Synthesise from files and compare; a refusal becomes a row without numbers."""
    out = folder / "out"
    problem = synthesize(arguments, out, quality, model)
    if problem:
        return Measured(identifier, kind, *[float("nan")] * len(REPORTED), f"no result: {problem}")
    notices = json.loads((out / "provenance.json").read_text(encoding="utf-8"))["notices"]
    numbers = score(out, pose, scans, labels, read_card(find_model(model)).mask_threshold)
    return Measured(identifier, kind, **numbers, notices=" ".join(sorted({n["code"] for n in notices})))


def table(rows: Sequence[Measured]) -> str:
    """Markdown: for each kind, the mean difference to the same patient's prepared input, and the worst patient's."""
    prepared = {row.id: row for row in rows if row.kind == "prepared"}
    lines = ["| input | patients | " + " | ".join(REPORTED) + " | no result |"]
    lines.append("|---" * (len(REPORTED) + 3) + "|")
    for kind in dict.fromkeys(row.kind for row in rows):
        own = [row for row in rows if row.kind == kind]
        cells = []
        for name in REPORTED:
            digits = 2 if name.startswith("psnr") else 3
            values = np.array([getattr(row, name) for row in own])
            if kind != "prepared":
                values = values - np.array([getattr(prepared[row.id], name) for row in own])
            values = values[np.isfinite(values)]
            if not len(values):
                cells.append("-")
            elif kind == "prepared":
                cells.append(f"{values.mean():.{digits}f}")
            else:
                cells.append(f"{values.mean():+.{digits}f} (worst {values.min():+.{digits}f})")
        what = "prepared: absolute" if kind == "prepared" else KINDS[kind].what
        failed = sum(row.notices.startswith("no result") for row in own)
        lines.append(f"| {what} | {len(own)} | " + " | ".join(cells) + f" | {failed} |")
    return "\n".join(lines) + "\n"


app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
KindOption = Annotated[
    Optional[list[str]], typer.Option("--kind", help=f"{', '.join(KINDS)}; may be given several times. Default: all.")
]


def _chosen(kinds: list[str] | None) -> list[Kind]:
    unknown = [name for name in kinds or () if name not in KINDS]
    if unknown:
        raise typer.BadParameter(f"There is no kind {unknown[0]}.")
    return [KINDS[name] for name in kinds or KINDS]


@app.command()
def make(data: Path, out: Path, kind: KindOption = None) -> None:
    """Write hospital-like scans of each patient into OUT/KIND/ID."""
    patients, _ = find_patients(data)
    for patient in patients:
        scans = read_scans(patient)
        for chosen in _chosen(kind):
            inputs(out / chosen.name / patient.id, visit(scans, chosen, seed_of(patient.id)), chosen)
            typer.echo(f"{chosen.name} {patient.id}")


@app.command()
def measure(
    data: Path,
    table_file: Annotated[Path, typer.Option("--table", help="CSV of all rows; rows that it has are not made again.")],
    kind: KindOption = None,
    quality: str = "preview",
    model: Optional[str] = None,
    patients: Annotated[int, typer.Option(help="The first so many patients; 0: all.")] = 0,
    mask: Annotated[bool, typer.Option("--mask", help="Give the true brain with what has a skull.")] = False,
) -> None:
    """Measure what each kind of hospital-like input costs; print a table."""
    found, _ = find_patients(data)
    checked = check([p for p in found if p.seg is not None], workers=1)
    rows = _known(table_file)
    done = {(row.id, row.kind) for row in rows}
    for patient in checked.patients[: patients or None]:
        scans = read_scans(patient)
        assert patient.seg is not None
        labels = unify(np.asarray(nibabel.load(patient.seg).dataobj, np.float32), scheme=checked.schemes[patient.id])
        for chosen in (None, *_chosen(kind)):
            name = "prepared" if chosen is None else chosen.name
            if (patient.id, name) in done:
                continue
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary)
                if chosen is None:
                    arguments = [t for c in CONTRASTS for t in (f"--{c}", str(getattr(patient, c)))]
                    pose = np.eye(4)
                else:
                    made = visit(scans, chosen, seed_of(patient.id))
                    brain = scans["t1"] if mask and chosen.skull else None
                    arguments, pose = inputs(folder / "in", made, chosen, brain), made.pose
                row = measure_patient(patient.id, scans, labels, arguments, pose, name, quality, model, folder)
            rows.append(row)
            _append(table_file, row)
            typer.echo(f"{name} {row.id}: {row.psnr_brain:.2f} dB, Dice {row.dice:.3f}, {row.notices}")
    typer.echo(table(rows))


def _known(path: Path) -> list[Measured]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as f:
        texts = ("id", "kind", "notices")
        return [Measured(**{k: v if k in texts else float(v) for k, v in row.items()}) for row in csv.DictReader(f)]


def _append(path: Path, row: Measured) -> None:
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, list(Measured.__dataclass_fields__))
        if new:
            writer.writeheader()
        writer.writerow(vars(row))


if __name__ == "__main__":
    app()
