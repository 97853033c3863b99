"""How good each brain extractor is: on real heads, on Colin27, and on simulated heads.

    python Testing/benchmarks/brains.py --heads HEADS --colin mricron/templates --data DATA --every 6 --write

HEADS holds a folder for each patient with `<id>_t1.nii.gz` and `<id>_brain.nii.gz`. Colin27 (one real man's head,
averaged over 27 scans) and its brain come as `ch2.nii.gz` and `ch2bet.nii.gz` in Debian's package `mricron-data`. DATA
is a folder of BraTS-style patients, around whose brains heads are simulated. Prints one row a head and extractor as it
goes, then the table of means; `--write` puts that into docs/brain-extraction.md.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Optional

import numpy as np
import typer
from hospital import add_head

from d3m.errors import D3MError
from d3m.volumes.geometry import spacing_mm
from d3m.volumes.grid import resample
from d3m.volumes.io.files import label
from d3m.volumes.io.read import read_raw
from d3m.volumes.preprocess.extraction import extract_brain
from d3m.volumes.types import CONTRASTS, Mask, Volume
from d3m_training.data.datasets import find_patients

PAGE = Path(__file__).resolve().parents[2] / "docs" / "brain-extraction.md"
BLOCK = re.compile(r"(<!-- brains -->\n)(.*?)(<!-- end -->)", re.DOTALL)
REAL = "real"


def heads(real: Path | None, colin: Path | None, data: Path | None, every: int) -> Iterator[tuple[str, Volume, Mask]]:
    """Kind, T1, and its brain on the same grid."""
    for folder in sorted(real.iterdir()) if real else ():
        t1, brain = (read_raw(folder / f"{folder.name}_{name}.nii.gz", "t1") for name in ("t1", "brain"))
        yield REAL, t1, brain.data > 0
    if colin:
        t1, brain = (read_raw(colin / f"{name}.nii.gz", "t1") for name in ("ch2", "ch2bet"))
        yield "Colin27", t1, resample(brain.data > 0, brain.affine, t1.affine, t1.data.shape, order=0)
    random = np.random.default_rng(0)
    for patient in find_patients(data)[0][::every] if data else ():
        paths = (patient.t1, patient.t2, patient.flair)
        scans = {name: read_raw(path, name) for name, path in zip(CONTRASTS, paths, strict=True)}
        stripped, head = scans["t1"], add_head(scans, random)["t1"]
        inside = resample(stripped.data != 0, stripped.affine, head.affine, head.data.shape, order=0)
        yield "simulated around a real brain", head, inside


def main(
    heads_folder: Annotated[Optional[Path], typer.Option("--heads")] = None,
    colin: Optional[Path] = None,
    data: Optional[Path] = None,
    every: Annotated[int, typer.Option(help="Simulate a head around one brain of so many.")] = 6,
    extractors: Annotated[str, typer.Option(help="Which, with commas between.")] = "deepbet,own",
    write: Annotated[bool, typer.Option("--write", help="Put the table into the documentation.")] = False,
) -> None:
    """Print the tables."""
    thickness: list[float] = []
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for number, (kind, t1, brain) in enumerate(heads(heads_folder, colin, data, every)):
        millilitres = abs(np.linalg.det(t1.affine[:3, :3])) / 1000
        if kind == REAL:
            thickness.append(float(spacing_mm(t1.affine).max()))
        for name in extractors.split(","):
            started = time.process_time()
            rows = found.setdefault((kind, name), [])
            try:
                mask = extract_brain(t1, name).mask
            except D3MError as error:
                rows.append((float("nan"), float("nan"), time.process_time() - started))
                print(f"{kind} {number}, {name}: none. {error.message}", flush=True)
                continue
            dice = 2 * (mask & brain).sum() / (mask.sum() + brain.sum())
            rows.append((float(dice), float(mask.sum() - brain.sum()) * millilitres, time.process_time() - started))
            print(f"{kind} {number}, {name}: Dice {dice:.3f}, {rows[-1][1]:+.0f} ml, {rows[-1][2]:.0f} s", flush=True)
    text = table(found, f"{REAL}, slices of {min(thickness):.1f} to {max(thickness):.1f} mm" if thickness else "")
    print(f"\n{text}", end="")
    if write:
        page = PAGE.read_text(encoding="utf-8")
        assert BLOCK.search(page), "the page has no place for the table"
        PAGE.write_text(BLOCK.sub(lambda block: block[1] + text + block[3], page), encoding="utf-8")


def table(found: dict[tuple[str, str], list[tuple[float, float, float]]], real: str) -> str:
    """The table of means as Markdown; `real` is what the real heads are called."""
    lines = [
        f"| heads ({label('t1')} alone) | extractor | found | Dice: mean (worst) | ml too much: from to | CPU s |",
        "|---|---|---|---|---|---|",
    ]
    for (kind, name), rows in found.items():
        values = np.array(rows)
        good = values[np.isfinite(values[:, 0])]
        dice, ml = good[:, 0], good[:, 1]
        numbers = "- | -"
        if len(good) == 1:
            numbers = f"{dice[0]:.3f} | {ml[0]:+.0f}"
        elif len(good):
            numbers = f"{dice.mean():.3f} ({dice.min():.3f}) | {ml.min():+.0f} to {ml.max():+.0f}"
        title, seconds = real if kind == REAL else kind, np.median(values[:, 2])
        lines.append(f"| {title} | {name} | {len(good)} of {len(rows)} | {numbers} | {seconds:.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    typer.run(main)
