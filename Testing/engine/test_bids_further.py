"""ADC and SWI of a BIDS data set: for models that take them, and for no others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from d3m.batch.bids import find_bids_cases
from d3m.batch.bids_choice import Filters
from d3m.commands.app import app
from engine.bids_helpers import bids_dataset

SCANS = ("anat/sub-01_T1w", "anat/sub-01_T2w", "anat/sub-01_FLAIR")


def found(root: Path, *names: str, filters: Filters | None = None) -> tuple[dict[str, str | None], list[str]]:
    """What is taken of a participant with three scans and these images, and what is said about ADC and SWI."""
    bids_dataset(root)
    for name in (*SCANS, *names):
        path = root / "sub-01" / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (case,) = find_bids_cases(root, filters=filters, further=("adc", "swi"))
    assert not case.problem
    assert case.t2 == root / "sub-01/anat/sub-01_T2w.nii.gz"
    taken = {"adc": case.adc, "swi": case.swi}
    shown = {name: path and path.relative_to(root / "sub-01").as_posix() for name, path in taken.items()}
    return shown, [notice.message for notice in case.notices]


@pytest.mark.parametrize(
    ("names", "adc", "swi"),
    [
        (("dwi/sub-01_ADC", "swi/sub-01_swi"), "dwi/sub-01_ADC", "swi/sub-01_swi"),
        (("anat/sub-01_SWI", "dwi/sub-01_dwi", "dwi/sub-01_expADC"), None, "anat/sub-01_SWI"),
        (("dwi/sub-01_run-1_ADC", "dwi/sub-01_run-2_ADC"), "dwi/sub-01_run-2_ADC", None),
        (("swi/sub-01_part-mag_swi", "swi/sub-01_part-phase_swi"), None, "swi/sub-01_part-mag_swi"),
        (("dwi/sub-02_ADC",), None, None),
    ],
    ids=["plain", "capitals", "runs", "phase", "of another"],
)
def test_which_image_is_taken(names: tuple[str, ...], adc: str | None, swi: str | None, tmp_path: Path) -> None:
    """BIDS' own name of scanners' ADC maps, and the names that data sets give SWI."""
    taken, _ = found(tmp_path, *names)
    assert taken == {"adc": adc and f"{adc}.nii.gz", "swi": swi and f"{swi}.nii.gz"}


def test_what_cannot_be_told_apart_is_left_out(tmp_path: Path) -> None:
    """No case fails for an image that nobody needs: it is said; the filter file chooses."""
    names = ("dwi/sub-01_acq-a_ADC", "dwi/sub-01_acq-b_ADC")
    taken, said = found(tmp_path / "a", *names)
    assert taken["adc"] is None
    assert any("ADC has 2 candidates" in message for message in said)
    taken, _ = found(tmp_path / "b", *names, filters=Filters({"adc": {"acquisition": "b", "datatype": "dwi"}}))
    assert taken["adc"] == "dwi/sub-01_acq-b_ADC.nii.gz"


def test_given_to_models_that_take_it(tiny_model: Path, tmp_path: Path) -> None:
    """One data set, two models: the one gets ADC, and the sidecar names it; the other runs as without it."""
    import torch

    from d3m.diffusion.networks.slice import build_network
    from d3m.models.load import save_model
    from d3m.models.store import read_card

    card = read_card(tiny_model)
    sizes = replace(card.recipe.network, further=1)
    torch.manual_seed(5)
    able = replace(card, recipe=replace(card.recipe, network=sizes), contrasts=("t1", "t2", "flair", "adc"))
    save_model(tmp_path / "able", able, build_network(sizes).state_dict())
    root = bids_dataset(tmp_path / "raw", "01")
    t2 = nibabel.load(root / "sub-01/anat/sub-01_T2w.nii.gz")
    values = np.asanyarray(t2.dataobj).astype(np.float32)
    (root / "sub-01/dwi").mkdir()
    adc = nibabel.Nifti1Image(np.where(values > 0, 2000 - 3 * values, 0), t2.affine)
    nibabel.save(adc, root / "sub-01/dwi/sub-01_ADC.nii.gz")
    for model, wanted in ((tmp_path / "able", {"adc"}), (tiny_model, set())):
        out = tmp_path / f"out-{model.name}"
        settings = ("--model", model, "--quality", "preview", "--n-jobs", "1", "--device", "cpu")
        done = CliRunner().invoke(app, ["bids", *map(str, (root, out, "participant", *settings))])
        assert done.exit_code == 0, done.output
        (provenance,) = out.rglob("provenance.json")
        assert set(json.loads(provenance.read_text())["inputs"]) - {"t1", "t2", "flair"} == wanted
        sidecar = json.loads((out / "sub-01/anat/sub-01_desc-synthT1c_T1w.json").read_text())
        assert ("bids:raw:sub-01/dwi/sub-01_ADC.nii.gz" in sidecar["Sources"]) == bool(wanted)
