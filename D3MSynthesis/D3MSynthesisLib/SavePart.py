"""The part of the panel about taking a result out: files, DICOM, Slicer's DICOM database, and removing it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

import slicer
from D3MSynthesisLib import DicomExport, Saving, Scene
from D3MSynthesisLib.Engine import SynthesisError
from D3MSynthesisLib.Handlers import connect


class SavePart:
    """Saves and removes the run that is shown.

    Args:
        ui: Widgets by name.
        confirm: Asks the user a question.
        fail: Shows an error, or takes it away.
        removed: Called after a run was removed.
        qt: See `Worker`: what DICOM is written with.
    """

    def __init__(
        self,
        ui: Any,
        confirm: Callable[[str], bool],
        fail: Callable[[SynthesisError | None], None],
        removed: Callable[[], None],
        qt: Any = None,
    ) -> None:
        self.ui, self._confirm, self._fail, self._removed, self._qt = ui, confirm, fail, removed, qt
        self.nodes: Any = None
        self.parameters: Any = None
        self.export: DicomExport.DicomExport | None = None
        """The export that is running."""
        self._saved: tuple[Path, str, str] | None = None
        """Folder, run and mask of the last result that was saved."""
        place = getattr(slicer.app, "defaultScenePath", None)
        if isinstance(place, str) and place:
            ui.saveFolder.directory = place  # by itself the button shows where Slicer was started
        ui.databaseBox.setEnabled(False)
        connect(ui.dicomBox, "toggled(bool)", ui.databaseBox.setEnabled)
        connect(ui.saveButton, "clicked(bool)", self.onSave)
        connect(ui.removeButton, "clicked(bool)", self.onRemove)

    def show(self, nodes: Any, parameters: Any) -> None:
        """Save this run from now on."""
        self.nodes, self.parameters = nodes, parameters
        if self.export is None:
            self.ui.savedLabel.setText("")

    def onSave(self, *_arguments: Any) -> None:
        """Save the run into a new folder inside the chosen one; DICOM is written in the background."""
        if self.export is not None:
            self.export.cancel()
        elif self.nodes is not None and self.parameters is not None:
            self.saveInto(Path(self.ui.saveFolder.directory), self.ui.dicomBox.checked)

    def saveInto(self, folder: Path, dicom: bool) -> None:
        """Save the run as files, and as DICOM if wanted."""
        try:
            with slicer.util.WaitCursor():
                saved = Saving.saveRun(self.nodes, folder)
            self._fail(None)
            self._saved = (saved, self.nodes.runID, self._mask())
            self._tell(_("Saved in {folder}").format(folder=saved))
            if dicom:
                self.export = DicomExport.DicomExport(
                    self.nodes, saved, lambda done, error: self._written(saved, done, error),
                    self.parameters.python or None, qt=self._qt,
                )  # fmt: skip
                self._tell(_("Saved in {folder}").format(folder=saved), _("Writing DICOM ..."))
                self.ui.saveButton.setText(_("Cancel DICOM"))
                self.export.start()
        except SynthesisError as error:
            self._end()
            self._fail(error)
        except OSError as error:
            hint = _("Choose another folder, which you may write to and which has space.")
            self._fail(SynthesisError(_("The result cannot be saved."), hint, "machine", str(error)))
        except BaseException:
            self._end()  # else the button would cancel for ever what was never started
            raise

    def _tell(self, *lines: str) -> None:
        self.ui.savedLabel.setText("\n".join(lines))

    def _end(self) -> None:
        self.export = None
        self.ui.saveButton.setText(_("Save result"))

    def _written(self, saved: Path, done: Any, error: SynthesisError | None) -> None:
        self._end()
        said = [_("Saved in {folder}").format(folder=saved)]
        if error is not None:
            if error.kind == "interrupted":
                said.append(_("DICOM was not written: you cancelled it."))
            else:
                self._fail(error)
        else:
            said += done.notices
            if self.ui.databaseBox.checked:
                said.append(self._import(done.folder))
        self._tell(*said)
        self.look()

    def _mask(self) -> str:
        return "" if self.nodes.maskDeleted else str(self.nodes.maskDigest)

    def look(self) -> None:
        """What was saved is no longer what is shown, once the mask was changed."""
        if self._saved is not None and self.export is None and self.nodes is not None:
            folder, run, mask = self._saved
            if run == self.nodes.runID and mask != self._mask():
                self._tell(_("The mask was changed after the result was saved in {folder}.").format(folder=folder))
                self._saved = None

    @staticmethod
    def _import(folder: Path) -> str:
        """Copy the files into Slicer's DICOM database, and look whether they are there: Slicer says little of it."""
        database = getattr(slicer, "dicomDatabase", None)
        if database is None or not database.isOpen:
            return _("Slicer has no DICOM database open: add the folder by hand in its DICOM module.")
        import pydicom
        from DICOMLib import DICOMUtils

        DICOMUtils.importDicom(str(folder), database, copyFiles=True)
        for path in (path for path in folder.rglob("*.dcm") if path.is_file()):
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SOPInstanceUID"])
            if not database.fileForInstance(str(header.SOPInstanceUID)):
                return _("Slicer's DICOM database has not taken the files: add the folder by hand in its DICOM module.")
        return _("Added to Slicer's DICOM database, marked as synthetic.")

    def shutdown(self) -> None:
        """The module closes."""
        if self.export is not None:
            self.export.shutdown()
            self.export = None

    def onRemove(self, *_arguments: Any) -> None:
        """Remove the run's nodes from the scene, after a question."""
        if self.nodes is None:
            return
        name = self.nodes.cemri.GetName()
        if self._confirm(
            _("Remove {name} and all that belongs to it from the scene? What is not saved is lost.").format(name=name)
        ):
            Scene.removeRun(self.nodes)
            self._removed()
