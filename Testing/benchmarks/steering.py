"""Whether the picture follows a given mask: the slice with most enhancing tumour of each patient, and altered masks.

    python Testing/benchmarks/steering.py DATA --write

DATA is a folder of labelled BraTS-style patients that the default model has not seen. "held" holds the mask's stream to
the mask (4 steps); "composed" is what the default model's results do: the deformation follows the mask, then the
picture is changed. What the deformation alone takes off is measured with the true mask, beside a blur. Contrast is the
mean of synthetic (or real) T1c minus T1 on T1's scale of 0 to 1; PSNR is over the true enhancing tumour, and over it
with 6 voxels around. `--write` puts the table into docs/steering.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from scipy import ndimage

from d3m.diffusion.volume import VolumeSample, VolumeSampler
from d3m.models.load import Model, load_model
from d3m.models.store import find_model
from d3m.options import SynthesisOptions
from d3m.synthesis import Synthesis
from d3m.volumes.grid import resample
from d3m.volumes.io.read import read_raw
from d3m.volumes.preprocess.case import read_case
from d3m.volumes.steering import follow
from d3m.volumes.types import Floats, Mask
from d3m_training.data.datasets import Patient, find_patients

PAGE = Path(__file__).resolve().parents[2] / "docs" / "steering.md"
BLOCK = re.compile(r"(<!-- steering -->\n)(.*?)(<!-- end -->)", re.DOTALL)
ENHANCING = 4
"""Label of the enhancing tumour in BraTS until 2021."""
ALTERED: dict[str, Callable[[Mask], Mask]] = {
    "true": lambda mask: mask,
    "dilated by 3 mm": lambda mask: ndimage.binary_dilation(mask, iterations=3),
    "eroded by 1 mm": lambda mask: ndimage.binary_erosion(mask),
    "moved by 3 mm": lambda mask: ndimage.shift(mask.astype(float), (0, 3), order=0) > 0.5,
}


WARP, BLUR = "warp", "blur"
"""Keys of the shares of the squared error near the enhancing tumour that are taken off, given the true mask."""


def sample(
    model: Model, slices: Floats, brain: Mask, steps: int, mask: Floats | None = None, own_probability: bool = False
) -> VolumeSample:
    """What is sampled where there is some brain."""
    recipe = model.card.recipe
    sampling = replace(recipe.quality("preview"), steps=steps, slice_interval=1)
    given = None if mask is None else torch.from_numpy(mask)
    sampler = VolumeSampler(
        model.network, recipe.diffusion, recipe.network.context, sampling,
        trace=True, mask=given, own_probability=own_probability,
    )  # fmt: skip
    with torch.inference_mode():
        return sampler(torch.from_numpy(slices), torch.from_numpy(brain))


def rows(model: Model, patient: Patient) -> dict[str, list[float]]:
    """Measures of each way for one patient; empty without enhancing tumour."""
    if patient.seg is None:
        return {}
    case = read_case(patient.t1, patient.t2, patient.flair)
    labels = read_raw(patient.seg, "labels").data
    prepared = Synthesis(model, SynthesisOptions(device="cpu")).prepare(case)
    grid = prepared.grid

    def slices(data: np.ndarray, order: int) -> np.ndarray:
        return resample(data, case.t1.affine, grid.affine, grid.shape, order=order).transpose(2, 1, 0)

    enhancing = slices(labels == ENHANCING, 0) & prepared.brain
    if enhancing.sum() < 100:
        return {}
    k = int(enhancing.sum(axis=(1, 2)).argmax())
    real, normal = read_raw(patient.t1c, "t1c").data, case.brain & (labels == 0)
    low, high = prepared.scales[0]
    real = real * np.median(case.t1.data[normal]) / np.median(real[normal])
    truth = (slices(real, 1)[k] - low) / (high - low) - prepared.slices[k, 0]
    brain = np.zeros_like(prepared.brain)
    brain[k] = prepared.brain[k]
    t1, tumour = prepared.slices[k, 0], enhancing[k]
    near = ndimage.binary_dilation(tumour, iterations=6) & brain[k]

    def measured(image: Floats, given: Mask) -> list[float]:
        change = image - t1
        around = ndimage.binary_dilation(given, iterations=4) & ~given & brain[k]
        errors = [-10 * np.log10(((change - truth)[where] ** 2).mean()) for where in (tumour, near)]
        return [change[given].mean(), change[around].mean(), change[tumour].mean(), truth[tumour].mean(), *errors]

    def gained(made: VolumeSample) -> Floats:
        return t1 + model.card.enhancement_gain * (made.image[k].numpy() - t1)

    held = sample(model, prepared.slices, brain, 4, enhancing.astype(np.float32))
    found = {
        "no mask": measured(gained(sample(model, prepared.slices, brain, 1)), tumour),
        "true, stream held (4 steps)": measured(held.image[k].numpy(), tumour),
    }
    for name, alter in ALTERED.items():
        given = np.zeros(brain.shape, np.float32)
        given[k] = alter(tumour) & brain[k]
        made = sample(model, prepared.slices, brain, 1, given, own_probability=True)
        image, probability = gained(made)[None], made.probability[k : k + 1].numpy()
        one = follow(image, t1[None], probability, given[k : k + 1], model.card.mask_threshold)
        found[f"{name}, composed"] = measured(one[0], given[k] > 0)
        if name == "true":
            before, after = (step[k].numpy() - t1 for step in (made.trace[-1].before, made.trace[-1].after))
            error = float(((before - truth)[near] ** 2).mean())
            for way, change in ((WARP, after), (BLUR, ndimage.uniform_filter(before, 3))):
                found[way] = [1 - float(((change - truth)[near] ** 2).mean()) / error]
    return found


def main(
    data: Path,
    write: Annotated[bool, typer.Option("--write", help="Put the table into the documentation.")] = False,
) -> None:
    """Print the means over the patients."""
    torch.set_num_threads(1)
    model = load_model(find_model(None))
    found: dict[str, list[list[float]]] = {}
    patients = find_patients(data)[0]
    for patient in patients:
        for name, values in rows(model, patient).items():
            found.setdefault(name, []).append(values)
        print(patient.id, flush=True)
    measured = len(next(iter(found.values()), []))
    text = (
        f"Patients: {measured} of {len(patients)}; whoever has hardly any enhancing tumour is left out.\n\n"
        "| mask | contrast: in the mask | around it | in the true tumour (real) "
        "| PSNR tumour | PSNR with 6 mm around |\n"
        "|---|---|---|---|---|---|\n"
    )
    shares = {way: 100 * np.array(found.pop(way, [[np.nan]])).ravel() for way in (WARP, BLUR)}
    for name, values in found.items():
        m = np.nanmean(np.array(values), axis=0)
        text += f"| {name} | {m[0]:.2f} | {m[1]:.2f} | {m[2]:.2f} ({m[3]:.2f}) | {m[4]:.1f} dB | {m[5]:.1f} dB |\n"
    warp, blur = (f"{values.mean():.1f} % (sd {values.std(ddof=1):.1f})" for values in shares.values())
    text += f"\nGiven the true mask, the deformation takes {warp} off the squared error within 6 mm of the tumour, "
    text += f"a 3 x 3 blur in its place {blur}.\n"
    print(f"\n{text}", end="")
    if write:
        page = PAGE.read_text(encoding="utf-8")
        assert BLOCK.search(page), "the page has no place for the table"
        PAGE.write_text(BLOCK.sub(lambda block: block[1] + text + block[3], page), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
