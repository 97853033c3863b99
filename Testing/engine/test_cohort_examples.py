"""The examples of docs/cohorts.md run as they stand there, with the shell and a scheduler's variables."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from d3m.commands.app import app
from engine.bids_helpers import bids_dataset
from engine.command_helpers import environment

DOCUMENT = Path(__file__).parents[2] / "docs" / "cohorts.md"


def example(language: str, heading: str) -> str:
    """The first block of code below a heading."""
    section = DOCUMENT.read_text(encoding="utf-8").split(f"## {heading}", 1)[1]
    found = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found
    return found[1]


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32" or shutil.which("bash") is None, reason="a shell script")
def test_array_job_makes_its_participant(tmp_path: Path) -> None:
    """The array's second task makes the second participant and no other; sent again it finds him whole."""
    data, out = bids_dataset(tmp_path / "cohort", "01", "02"), tmp_path / "derivatives" / "d3m"
    script = (
        example("bash", "SLURM array").replace("/data/cohort", str(data)).replace("/data/derivatives/d3m", str(out))
    )
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "d3m").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m d3m "$@" --quality preview\n')
    (commands / "d3m").chmod(0o755)
    env = environment(SLURM_ARRAY_TASK_ID="1")
    env["PATH"] = f"{commands}:{env['PATH']}"
    made = out / "sub-02" / "anat" / "sub-02_desc-synthT1c_T1w.nii.gz"
    times = []
    for _ in range(2):
        done = subprocess.run(["bash", "-s"], input=script, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        times.append(made.stat().st_mtime_ns)
    assert times[0] == times[1]
    assert not (out / "sub-01").exists()


@pytest.mark.skipif(sys.platform == "win32" or shutil.which("bash") is None, reason="a shell script")
def test_array_of_the_second_thousand(tmp_path: Path) -> None:
    """OFFSET moves the array along the participants, and the libraries get the cores that were asked for."""
    for k in range(3):
        (tmp_path / f"sub-{k}").mkdir()
    (tmp_path / "d3m").write_text('#!/bin/sh\necho "$OMP_NUM_THREADS" "$@"\n')
    (tmp_path / "d3m").chmod(0o755)
    script = example("bash", "SLURM array").replace("/data/cohort", str(tmp_path))
    env = environment(SLURM_ARRAY_TASK_ID="1", OFFSET="1", SLURM_CPUS_PER_TASK="6", PATH=f"{tmp_path}:{os.defpath}")
    done = subprocess.run(["bash", "-s"], input=script, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split()[:6] == ["6", "bids", ".", "/data/derivatives/d3m", "participant", "--participant-label"]
    assert done.stdout.split()[6] == "sub-2"


def test_commands_of_the_document_are_understood() -> None:
    """Every `d3m bids` in the document has the options that the program has, the Snakemake rules' too."""
    command: Any = typer.main.get_command(app)
    lines = re.findall(r"d3m (bids [^`\n]*)", DOCUMENT.read_text(encoding="utf-8"))
    assert len(lines) >= 6
    for line in lines:
        ours = line.rstrip('"') if line.count('"') % 2 else line  # the end of a rule's shell text
        words = shlex.split(ours, comments=True)[1:]
        parsed = command.commands["bids"].make_context("bids", words)
        assert parsed.params["level"].value in ("participant", "group"), line
