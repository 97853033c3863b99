"""A run of the scene as DICOM: by the engine, in a process of its own, as everything that needs its packages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
from D3MSynthesisLib import Inputs, Masks
from D3MSynthesisLib.Engine import SynthesisError
from D3MSynthesisLib.Grids import matrixOf
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


class DicomExport:
    """Writes a marked series and a segmentation, as the mask is now, into the folder `dicom` of `folder`.

    The series joins the study of T1's DICOM series if T1 was loaded from Slicer's DICOM database.

    Args:
        nodes: The run's `Runs.Nodes`.
        folder: An existing folder.
        finished: Called once, on the main thread, with what was written or an error.
        python: Interpreter that the user chose.
        engine: Folder of the package `d3m`, if not the one beside this.
        qt: See `Worker`.
    """

    def __init__(
        self,
        nodes: Any,
        folder: Path,
        finished: Callable[[SavedDicom | None, SynthesisError | None], None],
        python: str | None = None,
        engine: Path | None = None,
        qt: Any = None,
    ) -> None:
        self._nodes, self._folder, self._finished = nodes, folder, finished
        self._python, self._engine = python, engine
        self._worker = Worker(lambda _event: None, self._onFinished, qt)
        self._temporary: Path | None = None

    def start(self) -> None:
        """Start writing.

        Raises:
            SynthesisError: it cannot be started, or the run's mask was deleted.
        """
        nodes = self._nodes
        if nodes.maskDeleted:  # an empty one would say that nothing enhances
            raise SynthesisError(_("The mask was deleted from the scene, and DICOM is not written without it."),
                                 _("Run the synthesis again, or save without DICOM."))  # fmt: skip
        self._temporary = temporary = newFolder()
        try:
            Inputs.writeInput(nodes.cemri, nodes.cemri, temporary / "cemri.nrrd")
            Inputs.writeInput(_wholeMask(nodes), nodes.cemri, temporary / "mask.nrrd")
            content = nodes.provenance | {"mask": Masks.record(nodes)}
            (temporary / "provenance.json").write_text(json.dumps(content), encoding="utf-8")
            arguments = ["dicom", "cemri.nrrd", "mask.nrrd", "--provenance", "provenance.json", "--json",
                         "--out", str(self._folder / FOLDER)]  # fmt: skip
            source = sourceFile(nodes.t1)
            if source is not None:
                arguments += ["--t1", str(source)]
            self._worker.start(arguments, temporary, self._python, self._engine)
        except OSError as error:
            self._clean()
            raise SynthesisError(_("The DICOM files cannot be written."), _("Choose another folder."), "machine",
                                 str(error)) from error  # fmt: skip
        except BaseException:
            self._clean()
            raise

    def wait(self) -> None:
        """Return when it is done."""
        self._worker.wait()

    def cancel(self) -> None:
        """Stop; nothing is left of it."""
        self._worker.cancel()

    def shutdown(self) -> None:
        """End it now: the module or the application is closing."""
        self._finished = lambda _done, _error: None
        self._worker.shutdown()

    def _clean(self) -> None:
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _onFinished(self, outcome: Outcome) -> None:
        self._clean()
        if outcome.status == "done":
            self._finished(SavedDicom(self._folder / FOLDER, outcome.notices), None)
        else:
            error = SynthesisError(outcome.message, outcome.hint, outcome.kind or "defect", outcome.details)
            self._finished(None, error)


def _wholeMask(nodes: Any) -> Any:
    """The mask as a volume outside the scene: segments that a person has hidden belong to it, as to its volume."""
    import numpy as np

    volume = slicer.vtkMRMLScalarVolumeNode()
    volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrixOf(nodes.cemri)))
    slicer.util.updateVolumeFromArray(volume, Masks.maskOf(nodes).astype(np.uint8))
    return volume


def saveDicom(nodes: Any, folder: Path, python: str | None = None, engine: Path | None = None) -> SavedDicom:
    """Write DICOM and wait for it; see `DicomExport`.

    Raises:
        SynthesisError: it could not be written, with what to do.
    """
    ends: list[tuple[SavedDicom | None, SynthesisError | None]] = []
    export = DicomExport(nodes, folder, lambda done, error: ends.append((done, error)), python, engine, False)
    export.start()
    export.wait()
    ((done, error),) = ends
    if done is None:
        raise error if error is not None else SynthesisError(_("The DICOM files cannot be written."))
    return done


def sourceFile(node: Any) -> Path | None:
    """A file of the DICOM series that a volume was loaded from; None if it was not, or the file is gone."""
    instances = (node.GetAttribute("DICOM.instanceUIDs") or "").split() if node is not None else []
    database = getattr(slicer, "dicomDatabase", None)
    if not instances or database is None:
        return None
    name = database.fileForInstance(instances[0])
    return Path(name) if name and Path(name).is_file() else None
