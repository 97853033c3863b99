"""A run of the scene as DICOM: by the engine, in a process of its own, as everything that needs its packages."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
from D3MSynthesisLib import Inputs
from D3MSynthesisLib.Engine import SynthesisError
from D3MSynthesisLib.Texts import _
from D3MSynthesisLib.Traces import newFolder
from D3MSynthesisLib.Worker import Outcome, Worker

FOLDER = "dicom"


@dataclass(frozen=True)
class SavedDicom:
    """What was written."""

    folder: Path
    notices: tuple[str, ...]
    """What one should know, such as that the mask is empty or that T1's headers were incomplete."""


def saveDicom(nodes: Any, folder: Path, python: str | None = None, engine: Path | None = None) -> SavedDicom:
    """Write a marked series and a segmentation, as the mask is now, into the folder `dicom` of `folder`.

    The series joins the study of T1's DICOM series if T1 was loaded from Slicer's DICOM database.

    Args:
        nodes: The run's `Runs.Nodes`.
        folder: An existing folder.
        python: Interpreter that the user chose.
        engine: Folder of the package `d3m`, if not the one beside this.

    Returns:
        The new folder and notices.

    Raises:
        SynthesisError: it could not be written, with what to do.
    """
    temporary = newFolder()
    ends: list[Outcome] = []
    try:
        Inputs.writeInput(nodes.cemri, nodes.cemri, temporary / "cemri.nrrd")
        Inputs.writeInput(nodes.segmentation, nodes.cemri, temporary / "mask.nrrd")
        (temporary / "provenance.json").write_text(json.dumps(nodes.provenance), encoding="utf-8")
        arguments = ["dicom", "cemri.nrrd", "mask.nrrd", "--provenance", "provenance.json", "--json",
                     "--out", str(folder / FOLDER)]  # fmt: skip
        source = sourceFile(nodes.t1)
        if source is not None:
            arguments += ["--t1", str(source)]
        worker = Worker(lambda _event: None, ends.append, False)
        worker.start(arguments, temporary, python, engine)
        worker.wait()
    except OSError as error:
        raise SynthesisError(_("The DICOM files cannot be written."), _("Choose another folder."), "machine",
                             str(error)) from error  # fmt: skip
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    (outcome,) = ends
    if outcome.status != "done":
        raise SynthesisError(outcome.message, outcome.hint, outcome.kind or "defect", outcome.details)
    return SavedDicom(folder / FOLDER, outcome.notices)


def sourceFile(node: Any) -> Path | None:
    """A file of the DICOM series that a volume was loaded from; None if it was not, or the file is gone."""
    instances = (node.GetAttribute("DICOM.instanceUIDs") or "").split() if node is not None else []
    database = getattr(slicer, "dicomDatabase", None)
    if not instances or database is None:
        return None
    name = database.fileForInstance(instances[0])
    return Path(name) if name and Path(name).is_file() else None
