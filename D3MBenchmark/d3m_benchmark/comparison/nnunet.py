"""nnU-Net as the fixed segmenter, in an environment of its own and as a child process.

Beside a CPU build of torch it breaks torchvision, and with it MONAI; so it never shares an environment with this
package. Source for names, files and variables: MIC-DKFZ/nnUNet, version 2.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import nibabel
import numpy as np

from d3m.errors import D3MError
from d3m.system.folders import check_output, check_place_of_work, whole_folder
from d3m.system.manifest import FolderKind
from d3m.system.storage import write_text, writing
from d3m_training.data.cache import ENHANCING, NECROSIS, OEDEMA
from d3m_training.data.datasets import read_patient
from d3m_training.data.labels import unify
from d3m_training.data.preparation import collect, collect_annotated

DATASET_ID = 501
DATASET = f"Dataset{DATASET_ID}_D3M"
MODALITIES = ("t1", "t2", "flair", "t1c")
"""Channels 0000 to 0003."""
LABELS: Mapping[str, int | list[int]] = {
    "background": 0,
    "whole_tumor": [NECROSIS, OEDEMA, ENHANCING],
    "tumor_core": [NECROSIS, ENHANCING],
    "enhancing_tumor": ENHANCING,
}
"""nnU-Net's nested regions, in the spelling of its examples; the cache's coding of labels is that of BraTS 2023."""
REGIONS_ORDER = (OEDEMA, NECROSIS, ENHANCING)
"""What each region writes where they overlap."""
TORCH = "torch==2.13.0"
VARIABLES = {"nnUNet_raw": "raw", "nnUNet_preprocessed": "preprocessed", "nnUNet_results": "results"}
CHILD = Path(__file__).with_name("nnunet_child.py")
MARK = ".d3m-nnunet"
"""Lies in an environment that `install` made."""


def install(environment: Path, report: Callable[[str], None]) -> None:
    """Make an environment with nnU-Net in it; needs the network.

    torchvision, which nnU-Net's parts ask for, is taken out again: beside a CPU build of torch its import fails.

    Args:
        environment: Folder; made where it is missing, and gone on with where an earlier call began it.
        report: Gets lines.

    Raises:
        D3MError: something else lies in the folder; it cannot be written; pip could not install it.
    """
    _begin(environment)
    steps = (
        [sys.executable, "-m", "venv", str(environment)],
        [*_pip(environment, "install"), TORCH],
        [*_pip(environment, "install"), TORCH, "nnunetv2"],
        [*_pip(environment, "uninstall"), "--yes", "torchvision"],
    )
    for step in steps:
        report(" ".join(step[-3:]))
        _run(step, _without_ours(), "nnU-Net could not be installed.", "Check the network, then run it again.")


def _begin(environment: Path) -> None:
    """Make and mark the folder of an environment: pip must not change one that somebody else made."""
    mark = environment / MARK
    check_place_of_work(environment, mark.is_file(), "what `nnunet install` made", "--env")
    with writing():
        environment.mkdir(parents=True, exist_ok=True)
        write_text(mark, "An environment with nnU-Net, made and changed by `d3m-benchmark nnunet install`.\n")


EXPORTED = FolderKind("nnunet-data", "an earlier export for nnU-Net")
CASES = FolderKind("nnunet-cases", "cases that were written for nnU-Net")
PREDICTED = FolderKind("nnunet-predictions", "earlier label maps of nnU-Net")


def export(data: Sequence[Path], work: Path, enhancing_label: int | None, report: Callable[[str], None]) -> list[str]:
    """Write annotated patients as nnU-Net's training data.

    Args:
        data: Folders of BraTS-style patients, or manifests.
        work: nnU-Net's raw, preprocessed and results folders lie in it.
        enhancing_label: Value of the enhancing tumour where the data do not tell.
        report: Gets lines.

    Returns:
        The ids that were written.

    Raises:
        D3MError: no annotated patient; the disk is full.
    """
    out = work / VARIABLES["nnUNet_raw"] / DATASET
    check_output(out, EXPORTED, True, data)
    checked = collect_annotated(data, enhancing_label, "nnU-Net learns from patients with tumour labels.", report)
    patients = checked.patients
    with whole_folder(out, EXPORTED) as place:
        for number, patient in enumerate(patients, start=1):
            case, t1c, labels = read_patient(patient, partial(unify, scheme=checked.schemes[patient.id]))
            assert labels is not None  # only annotated patients were kept
            _write_case(place / "imagesTr", patient.id, [v.data for v in case.contrasts()] + [t1c.data], case.t1.affine)
            _write(place / "labelsTr" / f"{patient.id}.nii.gz", np.rint(labels.data).astype(np.uint8), case.t1.affine)
            report(f"{number}/{len(patients)} {patient.id}")
        description = {
            "channel_names": {str(k): name for k, name in enumerate(MODALITIES)},
            "labels": LABELS,
            "regions_class_order": list(REGIONS_ORDER),
            "numTraining": len(patients),
            "file_ending": ".nii.gz",
        }
        (place / "dataset.json").write_text(json.dumps(description, indent=1), encoding="utf-8")
    return [patient.id for patient in patients]


def write_cases(data: Sequence[Path], out: Path, synthetic: Path | None, report: Callable[[str], None]) -> int:
    """Write patients as nnU-Net takes them for prediction, with their real T1c or a synthetic one.

    Args:
        data: Folders of BraTS-style patients, or manifests; labels are not needed.
        out: New folder.
        synthetic: Results of `d3m batch`: a folder for each patient with `cemri.nii.gz`; None takes the real T1c.
        report: Gets lines.

    Returns:
        Number of patients.

    Raises:
        D3MError: a synthetic image is missing or lies on another grid; the disk is full.
    """
    check_output(out, CASES, True, [*data, *([] if synthetic is None else [synthetic])])
    patients, faults = collect(data)
    for fault in faults:
        report(f"Left out: {fault.id}: {fault.reason}")
    with whole_folder(out, CASES) as place:
        for number, patient in enumerate(patients, start=1):
            case, t1c, _ = read_patient(patient, lambda labels: labels)
            last = t1c.data
            if synthetic is not None:
                path = synthetic / patient.id / "cemri.nii.gz"
                if not path.is_file():
                    raise D3MError(f"There is no synthetic image of {patient.id}.", "Run `d3m batch` on all patients.")
                image = nibabel.load(path)
                if image.shape != t1c.data.shape or not np.allclose(image.affine, case.t1.affine, atol=1e-3):
                    raise D3MError(
                        f"The synthetic image of {patient.id} lies on another grid than T1.", "Make it again."
                    )
                last = np.asarray(image.dataobj, np.float32)
            _write_case(place, patient.id, [v.data for v in case.contrasts()] + [last], case.t1.affine)
            report(f"{number}/{len(patients)} {patient.id}")
    return len(patients)


def plan(environment: Path, work: Path, configuration: str) -> None:
    """nnU-Net's fingerprint, plans and preprocessing of the exported data.

    Raises:
        D3MError: nnU-Net is not installed, nothing is exported, or it failed.
    """
    command = _program(environment, "nnUNetv2_plan_and_preprocess")
    if not command.is_file():
        raise _missing(environment)
    _check_done(work, "plan")
    arguments = ["-d", str(DATASET_ID), "-c", configuration, "--verify_dataset_integrity", "-np", "1"]
    _run([str(command), *arguments], variables(work), "nnU-Net could not plan.", "See its output above.")


def child(environment: Path, work: Path, action: str, **options: object) -> None:
    """Train or predict in nnU-Net's environment.

    Args:
        environment: From `install`.
        work: As for `export`.
        action: "train" or "predict".
        options: Of `nnunet_child`.

    Raises:
        D3MError: nnU-Net is not installed, the step before is not done, or it failed.
    """
    python = _program(environment, "python")
    if not python.is_file():
        raise _missing(environment)
    _check_done(work, action)
    listed = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    _run(
        # isolated: else the folder of the script comes first, and our modules hide the standard library's
        [str(python), "-I", str(CHILD), action, "--dataset", DATASET, *listed],
        variables(work), f"nnU-Net could not {action}.", "See its output above.",
    )  # fmt: skip


def predict(environment: Path, work: Path, cases: Path, out: Path, **options: object) -> None:
    """Segment cases; the label maps stand in `out` when all are there.

    Args:
        environment: From `install`.
        work: As for `export`.
        cases: From `write_cases`.
        out: New folder, or one with earlier label maps that nobody changed.
        options: Of `nnunet_child`.

    Raises:
        D3MError: as `child`; `out` holds something else or cannot be written.
    """
    check_output(out, PREDICTED, True, [cases, work, environment])
    with whole_folder(out, PREDICTED) as place:
        child(environment, work, "predict", **options, cases=cases.absolute(), out=place)


def variables(work: Path) -> dict[str, str]:
    """The environment of a child process: nnU-Net's folders, one process each, nothing of ours."""
    folders = {name: str(work.absolute() / folder) for name, folder in VARIABLES.items()}
    return {**_without_ours(), **folders, "nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "1"}


def _without_ours() -> dict[str, str]:
    """Without folders of modules: pip would take what lies there for installed already."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}


def _check_done(work: Path, action: str) -> None:
    """Whether the step before `action` has left its result, since nnU-Net itself would end in a traceback."""
    before, folder, made = {
        "plan": ("export", "nnUNet_raw", "dataset.json"),
        "train": ("plan", "nnUNet_preprocessed", "nnUNetPlans.json"),
        "predict": ("train", "nnUNet_results", "*/fold_*/checkpoint_final.pth"),
    }[action]
    if not any((work / VARIABLES[folder] / DATASET).glob(made)):
        raise D3MError(
            f"nnU-Net cannot {action} in {work.name} yet.", f"Run `d3m-benchmark nnunet {before}` with the same --work."
        )


def _write_case(folder: Path, identifier: str, images: Sequence[np.ndarray], affine: np.ndarray) -> None:
    for k, image in enumerate(images):
        _write(folder / f"{identifier}_{k:04d}.nii.gz", image.astype(np.float32), affine)


def _write(path: Path, data: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    with writing():
        nibabel.save(nibabel.Nifti1Image(data, affine), path)


def _program(environment: Path, name: str) -> Path:
    return environment / (f"Scripts/{name}.exe" if os.name == "nt" else f"bin/{name}")


def _pip(environment: Path, action: str) -> list[str]:
    return [str(_program(environment, "python")), "-m", "pip", action, "--quiet", "--disable-pip-version-check"]


def _missing(environment: Path) -> D3MError:
    return D3MError(
        f"nnU-Net is not installed in {environment.name}.", "Run `d3m-benchmark nnunet install` with the same --env."
    )


def _run(command: Sequence[str], environment: Mapping[str, str], failed: str, hint: str) -> None:
    """Run a command; what it says goes to the console."""
    try:
        done = subprocess.run(list(command), env=dict(environment), check=False, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise D3MError(failed, hint, "machine") from error
    if done.returncode:
        raise D3MError(f"{failed[:-1]} (exit code {done.returncode}).", hint, "machine")
