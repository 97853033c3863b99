"""Small BIDS data sets, and what a worker does in tests."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from conftest import write_case
from d3m.batch.cases import CaseFiles
from d3m.batch.run import Outcome, Row
from d3m.progress import ProgressCallback
from d3m.synthesis import Synthesis

SUFFIXES = {"t1": "T1w", "t2": "T2w", "flair": "FLAIR", "t1c": "ce-gadolinium_T1w"}


def bids_dataset(root: Path, *cases: str) -> Path:
    """A data set with whole cases, each given as `01` or `01/post` (participant and session)."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "Tiny", "BIDSVersion": "1.10.0"}))
    for seed, case in enumerate(cases):
        subject, _, session = case.partition("/")
        prefix = f"sub-{subject}" + (f"_ses-{session}" if session else "")
        anat = root / f"sub-{subject}" / (f"ses-{session}" if session else ".") / "anat"
        anat.mkdir(parents=True)
        made = write_case(root / ".made", "x", seed)
        for name, suffix in SUFFIXES.items():
            getattr(made, name).rename(anat / f"{prefix}_{suffix}.nii.gz")
        made.seg.unlink()
        made.folder.rmdir()
    return root


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@dataclass(frozen=True)
class MarkingWork:
    """Instead of a synthesis, a mark in a folder: a line for each time a case was run; some kill their worker."""

    folder: Path
    deadly: tuple[str, ...] = ()
    """Cases that always end their worker."""
    once: tuple[str, ...] = ()
    """Cases that end it the first time."""
    odd: tuple[str, ...] = ()
    """Cases that raise what nobody thought of."""

    def load(self) -> Synthesis:
        """Note that this process loaded its model; there is none."""
        (self.folder / f"load-{os.getpid()}-{time.monotonic_ns()}").touch()
        return object()  # type: ignore[return-value]

    def run(self, case: CaseFiles, synthesis: Synthesis, progress: ProgressCallback) -> Outcome:
        """Leave the mark, unless the case is whole: with a worker goes what it had not yet handed over."""
        mark, whole = self.folder / case.id, self.folder / f"whole-{case.id}"
        if whole.exists():
            return Outcome(Row(case.id, "skipped", "", "", 0.0, None, ""))
        before = mark.read_text().splitlines() if mark.exists() else []
        with mark.open("a") as f:
            f.write(f"{os.getpid()}\n")
        if case.id in self.deadly or (case.id in self.once and not before):
            os.kill(os.getpid(), signal.SIGKILL)
        if case.id in self.odd:
            raise ValueError("something odd")
        whole.touch()
        return Outcome(Row(case.id, "done", "", "", 0.01, None, ""))
