"""The brain in a T1 by programs that a user has installed: HD-BET (versions 1 and 2) and SynthStrip.

HD-BET (Isensee et al. 2019) and FreeSurfer's SynthStrip (Hoopes et al. 2022) have environments of their own. HD-BET's
weights must be there already: it would download them at its first run, and only its user may decide that.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np

from d3m.errors import D3MError
from d3m.volumes.preprocess.brain import solid
from d3m.volumes.types import Mask, Volume

HD_BET_VARIABLE, SYNTHSTRIP_VARIABLE = "D3M_HD_BET", "D3M_SYNTHSTRIP"
"""Environment variables: path of the program, or "off". Without them the program is looked for on PATH."""
HD_BET_WEIGHTS = ("hd-bet_params/release_2.0.0/fold_all/checkpoint_final.pth", "hd-bet_params/0.model")
"""Where HD-BET's versions 2 and 1 keep their weights in the user's home."""
TIMEOUT_S = 1800.0
"""HD-BET takes some two minutes on a processor; a machine may be ten times slower."""
HELP_TIMEOUT_S = 120.0
"""It imports torch before it answers."""


@dataclass(frozen=True)
class Program:
    """A program for brain extraction."""

    title: str
    command: str
    variable: str

    def find(self) -> Path | None:
        """The one that the variable names, or the one on PATH; None if there is none, or it is "off".

        Raises:
            D3MError: what the variable names is no program.
        """
        named = os.environ.get(self.variable, "")
        if named.lower() in ("off", "none", "0"):
            return None
        found = shutil.which(str(Path(named).expanduser()) if named else self.command)
        if found is None and named:
            raise D3MError(
                f"The environment variable {self.variable} names no program that can be started.",
                f"Set it to the path of {self.command}, to off, or remove it.",
            )
        return None if found is None else Path(found)


HD_BET = Program("HD-BET", "hd-bet", HD_BET_VARIABLE)
SYNTHSTRIP = Program("SynthStrip", "mri_synthstrip", SYNTHSTRIP_VARIABLE)


def by_hd_bet_program(t1: Volume) -> tuple[Mask | None, str]:
    """The program's mask on T1's grid, or None and why there is none; T1 is finite."""
    program = HD_BET.find()
    if program is None:
        return None, "HD-BET is not installed"
    try:
        learned = any((Path.home() / weights).is_file() for weights in HD_BET_WEIGHTS)
    except RuntimeError:  # a user without a home
        learned = False
    if not learned:
        return None, "HD-BET is installed, but its weights are not: run it once yourself to download them"
    with tempfile.TemporaryDirectory(prefix="d3m-") as name:
        folder = Path(name)
        nibabel.save(nibabel.Nifti1Image(t1.data, t1.affine), folder / "scan.nii.gz")
        text = _run([str(program), "--help"], folder, HELP_TIMEOUT_S)
        if text is None:
            return None, "HD-BET does not start"
        command = [str(program), "-i", "scan.nii.gz", "-o", "brain.nii.gz", "-device", "cpu"]
        if "--save_bet_mask" in text:  # version 2
            command += ["--disable_tta", "--save_bet_mask", "--no_bet_image"]
        else:
            command += ["-mode", "fast", "-tta", "0", "-s", "1"]
        if _run(command, folder, TIMEOUT_S) is None:
            return None, "HD-BET failed"
        for made in ("brain_bet.nii.gz", "brain_mask.nii.gz"):
            if (folder / made).is_file():
                return _read_mask(folder / made, t1, HD_BET)
    return None, "HD-BET left no mask"


def by_synthstrip(t1: Volume) -> tuple[Mask | None, str]:
    """SynthStrip's mask on T1's grid, or None and why there is none; T1 is finite."""
    program = SYNTHSTRIP.find()
    if program is None:
        return None, "SynthStrip (mri_synthstrip) is not installed"
    with tempfile.TemporaryDirectory(prefix="d3m-") as name:
        folder = Path(name)
        nibabel.save(nibabel.Nifti1Image(t1.data, t1.affine), folder / "scan.nii.gz")
        if _run([str(program), "-i", "scan.nii.gz", "-m", "brain.nii.gz"], folder, TIMEOUT_S) is None:
            return None, "SynthStrip failed"
        if not (folder / "brain.nii.gz").is_file():
            return None, "SynthStrip left no mask"
        return _read_mask(folder / "brain.nii.gz", t1, SYNTHSTRIP)


def _run(command: list[str], folder: Path, timeout: float) -> str | None:
    """What the program says, or None if it fails or takes too long."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "PYTHONPATH")}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, timeout=timeout, capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return done.stdout + done.stderr if done.returncode == 0 else None


def _read_mask(path: Path, t1: Volume, program: Program) -> tuple[Mask | None, str]:
    try:
        image = nibabel.load(path)
        data = np.asarray(image.dataobj)
    except Exception as error:  # whatever another program wrote: the other way remains, and the reason is given
        return None, f"{program.title}'s mask cannot be read ({type(error).__name__})"
    if data.shape != t1.data.shape or not np.allclose(image.affine, t1.affine, atol=1e-2):
        return None, f"{program.title}'s mask does not lie on T1's grid"
    return solid(data > 0.5), ""
