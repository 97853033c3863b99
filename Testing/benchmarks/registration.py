"""How far registration reaches and how exact it is, on prepared patients whose T2 and FLAIR are moved by known amounts.

    python Testing/benchmarks/registration.py DATA --every 4
    python Testing/benchmarks/registration.py DATA --every 4 --slices 5 --skull

DATA is a folder of BraTS-style patients. What is reported is the largest error anywhere in the brain, after motion
about a random axis and along a random way; it holds what the patients' own preparation left (its own row: no motion).
Heads are simulated.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from hospital import add_head, random_rotation

from d3m.errors import D3MError
from d3m.volumes.io.read import read_raw
from d3m.volumes.preprocess.matching import largest_motion, picture
from d3m.volumes.preprocess.registration import align
from d3m.volumes.types import CONTRASTS, Mask, Volume
from d3m_training.data.datasets import find_patients

MOTIONS = ((0.0, 0.0), (4.0, 4.0), (15.0, 15.0), (30.0, 30.0))
"""Degrees and millimetres."""


def thick(volume: Volume, mask: Mask, millimetres: int) -> tuple[Volume, Mask]:
    """Slices averaged to the thickness (the volume has slices of 1 mm), and the mask likewise."""
    if millimetres == 1:
        return volume, mask
    count = volume.data.shape[2] // millimetres
    shape = (*volume.data.shape[:2], count, millimetres)
    affine = volume.affine.copy()
    affine[:3, 3] += (millimetres - 1) / 2 * affine[:3, 2]
    affine[:3, 2] *= millimetres
    cut = np.s_[:, :, : count * millimetres]
    data = volume.data[cut].reshape(shape).mean(axis=3)
    return Volume(data, affine), mask[cut].reshape(shape).mean(axis=3) > 0.5


def main(
    data: Path,
    every: Annotated[int, typer.Option(help="Take one of so many patients.")] = 1,
    slices: Annotated[int, typer.Option(help="Thickness of the T2's and FLAIR's slices in mm.")] = 1,
    skull: Annotated[bool, typer.Option(help="Simulate heads; T1's brain is given.")] = False,
) -> None:
    """Print one row for each motion."""
    random = np.random.default_rng(0)
    rows: dict[tuple[float, float], list[tuple[float, float, float]]] = {motion: [] for motion in MOTIONS}
    refused = dict.fromkeys(MOTIONS, 0)
    for patient in find_patients(data)[0][::every]:
        paths = (patient.t1, patient.t2, patient.flair)
        scans = {name: read_raw(path, name) for name, path in zip(CONTRASTS, paths, strict=True)}
        masks = {name: scan.data != 0 for name, scan in scans.items()}
        if skull:
            stripped, masks = scans["t1"], {}
            scans = add_head(scans, random)
            masks = {name: np.ones(scan.data.shape, bool) for name, scan in scans.items()}
            masks["t1"] = on_lattice(stripped, scans["t1"])
        places = picture(scans["t1"], masks["t1"], 4.0).places()
        for degrees, millimetres in MOTIONS:
            moved, shown, truth = dict(scans), dict(masks), {}
            for name in ("t2", "flair"):
                truth[name] = random_rotation(random, places.mean(axis=1), degrees, millimetres)
                scan, shown[name] = thick(scans[name], masks[name], slices)
                moved[name] = replace(scan, affine=truth[name] @ scan.affine)
            started = time.process_time()
            try:
                found, _ = align(moved, shown)
            except D3MError:
                refused[degrees, millimetres] += 1
                continue
            seconds = time.process_time() - started
            for name in ("t2", "flair"):
                left = found[name].affine @ np.linalg.inv(moved[name].affine) @ truth[name]
                rows[degrees, millimetres].append(
                    (largest_motion(truth[name], places), largest_motion(left, places), seconds)
                )
    print(f"T2 and FLAIR of {slices} mm, {'simulated heads' if skull else 'stripped'}; mm in the brain")
    print("| moved by | error before | error after: median | largest | refused | s for both |")
    print("|---|---|---|---|---|---|")
    for (degrees, millimetres), values in rows.items():
        before, after, seconds = np.array(values).T if values else np.full((3, 1), np.nan)
        print(
            f"| {degrees:g}°, {millimetres:g} mm | {before.max():.1f} | {np.median(after):.2f} | {after.max():.2f} "
            f"| {refused[degrees, millimetres]} | {np.median(seconds):.1f} |",
            flush=True,
        )


def on_lattice(stripped: Volume, head: Volume) -> Mask:
    """The brain of a stripped scan on the lattice of its head."""
    from d3m.volumes.grid import resample

    return resample(stripped.data != 0, stripped.affine, head.affine, head.data.shape, order=0)


if __name__ == "__main__":
    typer.run(main)
