"""What a result was made from, with what, and how: never a file's or a patient's name."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import d3m
from d3m.errors import D3MError
from d3m.results.ours import PROVENANCE
from d3m.system.manifest import Files, FolderKind, Written, file_sha256
from d3m.system.text import counted, for_json, read_object
from d3m.volumes.types import Case

if TYPE_CHECKING:
    from d3m.synthesis import Result

FILE_NAME = PROVENANCE
STATEMENT = (
    "Synthetic image made by a model; no contrast agent was given. For research only, not for the care of a patient."
)

_NO_PROVENANCE = (D3MError, OSError, ValueError, KeyError, TypeError, AttributeError)
"""What reading raises where somebody else's file, or none, lies under that name."""


def provenance(result: Result, case: Case, seconds: float) -> dict[str, Any]:
    """The contents of `provenance.json` but for the list of files.

    Args:
        result: What was made.
        case: What it was made from; named by content hashes alone.
        seconds: How long the whole run took.
    """
    import torch

    from d3m.system.devices import processor

    return {
        "statement": STATEMENT,
        "synthetic": True,
        "software": {"name": "D3M for 3D Slicer", "version": d3m.__version__},
        "model": {
            "name": result.model_name,
            "weights_sha256": result.model_sha256,
            "whole_brain_sha256": result.whole_brain_sha256 or None,
        },
        "inputs": {
            name: {"sha256": volume.sha256, "shape": list(volume.data.shape)} for name, volume in case.given().items()
        },
        "missing": list(result.missing),
        "given_mask": None if result.steering is None else asdict(result.steering),
        "brain": {"source": case.brain_source, "volume_ml": round(case.brain_ml, 1)},
        # the model stands above; a device that was asked for gives way to the one that was used
        "settings": {name: value for name, value in asdict(result.options).items() if name != "model"}
        | asdict(result.computation),
        "first_sample_only": [] if result.options.samples == 1 else ["first_sample", "deformation", "trace"],
        "predicted_enhancing_volume_ml": round(result.enhancing_volume_ml, 3),
        "uncertainty": None if result.uncertainty is None else f"{result.uncertainty_is}, in T1's units",
        "sample_volumes_ml": [round(one, 3) for one in result.sample_volumes_ml],
        "patient_estimate": None if result.patient is None else asdict(result.patient),
        "notices": [asdict(notice) for notice in result.notices],
        "seconds": {name: round(value, 2) for name, value in asdict(result.timings).items()}
        | {"all": round(seconds, 2)},
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "platform": {
            "system": platform.system(),
            "machine": platform.machine(),
            "processor": processor(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "conventions": {
            "grid": "T1's, but for first_sample, deformation and trace, which lie on the model's grid",
            "displacement": "RAS millimetres from a point of the result to the point its value was taken from",
        },
    }


def sampling_in_words(settings: Mapping[str, Any]) -> str:
    """How much was sampled: "1 step, 4 samples (2 of them mirrored)" or "1 step, 1 sample, every 2nd slice".

    Args:
        settings: Of the provenance, the options of a result, or a `Sampling`.
    """
    words = [counted(settings["steps"], "step"), counted(settings["samples"], "sample")]
    mirrored = settings["samples"] // 2 if settings.get("mirrored") else 0
    if mirrored:
        words[1] += f" ({mirrored} of them mirrored)"
    interval = settings.get("slice_interval") or 1
    ordinal = {2: "2nd", 3: "3rd"}.get(interval, f"{interval}th")
    return ", ".join(words if interval == 1 else [*words, f"every {ordinal} slice"])


def add_files(content: dict[str, Any], folder: Path) -> str:
    """The text of `provenance.json`, with size and hash of every file in the folder, so that a cut one is noticed."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != FILE_NAME
    }
    return json.dumps(for_json(content | {"files": files}), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def stated_provenance(folder: Path) -> dict[str, Any] | None:
    """The provenance of a result's folder as it is written there, whatever lies beside it; None if it has none."""
    try:
        content = read_object(folder / FILE_NAME, "The provenance")
        return content if content["synthetic"] and _is_ours(content) else None
    except _NO_PROVENANCE:
        return None


def _is_ours(content: dict[str, Any]) -> bool:
    """Whether values are of the kinds that we write: another program's file may have the same name and words."""
    notices = content.get("notices", [])
    numbers = [content.get("predicted_enhancing_volume_ml", 0), *content.get("seconds", {}).values()]
    return (
        all(isinstance(content.get(name, {}), dict) for name in ("settings", "model", "inputs", "files"))
        and isinstance(notices, list)
        and all(isinstance(notice, dict) and isinstance(notice["message"], str) for notice in notices)
        and all(isinstance(n, int | float) and not isinstance(n, bool) and abs(n) < 1e12 for n in numbers)
    )


def _listed_files(folder: Path) -> Files:
    """Files of a result's folder as its provenance lists them, itself included; empty if it has none."""
    try:
        path = folder / FILE_NAME
        content = read_object(path, "The provenance")
        files = {str(name): Written(int(e["bytes"]), str(e["sha256"])) for name, e in content["files"].items()}
        return files | {FILE_NAME: Written(path.stat().st_size, file_sha256(path))}
    except _NO_PROVENANCE:
        return {}


RESULT = FolderKind("result", "an earlier result", _listed_files)


def read_provenance(folder: Path, hashes: bool = True) -> dict[str, Any] | None:
    """The provenance of a result's folder if every file that it lists is there and unchanged, else None.

    Args:
        folder: The result's.
        hashes: Compare the files' contents; False: only their sizes, which is enough to list many results.
    """
    try:
        content = read_object(folder / FILE_NAME, "The provenance")
        if (
            not content["synthetic"]
            or not _is_ours(content)
            or not any(name.endswith(".nii.gz") for name in content["files"])
        ):
            return None
        for name, entry in content["files"].items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != entry["bytes"]:
                return None
            if hashes and file_sha256(path) != entry["sha256"]:
                return None
    except _NO_PROVENANCE:
        return None
    return content
