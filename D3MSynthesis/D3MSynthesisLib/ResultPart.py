"""The part of the panel about a result: overlays, mask, replay of the steps, layouts, numbers, saving."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

import slicer
from D3MSynthesisLib import DicomExport, Display, Results, Runs, Scene
from D3MSynthesisLib.Engine import SynthesisError
from D3MSynthesisLib.Parameters import Deformation, Overlay, StepImage

LAYOUTS = {"sideBySideButton": "sideBySide", "fourUpButton": "fourUp", "beforeAfterButton": "beforeAfter"}
LOOK = (
    "maskVisible",
    "maskFill",
    "maskOutline",
    "maskOpacity",
    "overlay",
    "overlayOpacity",
    "deformation",
    "stepImage",
)
"""Parameters that decide how a result looks."""


def comparisonRows(comparison: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    """Rows of the table beside a real T1c: name, synthetic image, what to compare it with."""
    numbers = comparison or {}
    guessed = numbers.get("real_enhancement") == "estimated"

    def text(name: str, form: str, what: str = "{n}") -> str:
        value = numbers.get(name)
        return what.format(n=format(value, form)) if isinstance(value, (int, float)) else ""

    copied, real = _("{n} (copied T1)"), _("{n} (real T1c, estimated)") if guessed else _("{n} (real)")
    rows = [
        (_("PSNR, brain (dB)"), text("psnr_brain", ".1f"), text("psnr_brain_t1", ".1f", copied)),
        (_("SSIM, brain"), text("ssim_brain", ".3f"), text("ssim_brain_t1", ".3f", copied)),
        (
            _("Enhancing tumour (ml)"),
            text("predicted_enhancing_volume_ml", ".1f"),
            text("real_enhancing_volume_ml", ".1f", real),
        ),
        (_("falsely enhancing (ml)"), text("false_positive_ml", ".1f"), _("estimated") if guessed else ""),
        (_("missed (ml)"), text("false_negative_ml", ".1f"), _("estimated") if guessed else ""),
    ]
    return [row for row in rows if row[1]]


def stepsTip(steps: int) -> str:
    """Why the replay has so many positions."""
    if steps == 0:
        return _("The steps of this run were not kept: see the settings.")
    if steps == 1:
        return _("This run has one step; the quality Best has more.")
    return _("Replays the reverse process, from noise to the result.")


class ResultPart:
    """Shows one run of the scene, as the parameters say.

    Args:
        ui: Widgets by name.
        fail: Shows an error, or takes it away.
    """

    def __init__(self, ui: Any, fail: Callable[[SynthesisError | None], None]) -> None:
        self.ui, self._fail = ui, fail
        self.nodes: Any = None
        self.runs: list[Any] = []
        self.parameters: Any = None
        self._look: tuple[Any, ...] | None = None
        self._step = 0
        self._filling = False
        ui.comparisonTable.setColumnCount(3)
        ui.comparisonTable.setHorizontalHeaderLabels(["", _("synthetic"), _("compared with")])
        ui.comparisonTable.verticalHeader().hide()
        ui.comparisonTable.setWordWrap(False)
        ui.comparisonTable.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
        for column in (1, 2):
            ui.comparisonTable.horizontalHeader().setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
        place = getattr(slicer.app, "defaultScenePath", None)
        if isinstance(place, str) and place:
            ui.saveFolder.directory = place  # by itself the button shows where Slicer was started
        ui.runBox.connect("activated(int)", self.onRun)
        ui.thresholdSlider.connect("valueChanged(double)", self.onThreshold)
        ui.stepSlider.connect("valueChanged(double)", self.onStep)
        ui.fadeSlider.connect("valueChanged(double)", self.onFade)
        ui.saveButton.connect("clicked(bool)", self.onSave)
        ui.removeButton.connect("clicked(bool)", self.onRemove)
        for name, layout in LAYOUTS.items():
            getattr(ui, name).connect("clicked(bool)", lambda _on=False, layout=layout: self.onLayout(layout))
        self.show(None)

    def bind(self, parameters: Any) -> None:
        """Follow these parameters (None: no scene), and show the scene's newest run without touching the views."""
        self.parameters = parameters
        self._look = self._lookNow()
        self.refresh()

    def refresh(self) -> None:
        """List the scene's runs again; the newest is chosen."""
        self.runs = Runs.findRuns(slicer.mrmlScene) if self.parameters is not None else []
        box = self.ui.runBox
        blocked = box.blockSignals(True)
        box.clear()
        box.addItems([run.cemri.GetName() for run in reversed(self.runs)])
        box.blockSignals(blocked)
        self.show(self.runs[-1] if self.runs else None)

    def show(self, nodes: Any) -> None:
        """Fill the panel with a run; the views stay as they are."""
        ui = self.ui
        self.nodes = nodes
        self._step = 0 if nodes is None else nodes.steps
        for section in (ui.resultsSection, ui.saveSection):
            section.setEnabled(nodes is not None)
            section.setVisible(nodes is not None)
        ui.savedLabel.setText("")
        self._tell(nodes)
        if nodes is None:
            return
        self._filling = True
        ui.thresholdSlider.setValue(nodes.threshold)
        ui.stepSlider.minimum = 1  # PythonQt knows the properties of CTK's widgets, not all of their setters
        ui.stepSlider.maximum = max(nodes.steps, 1)
        ui.stepSlider.setValue(max(nodes.steps, 1))
        ui.fadeSlider.setValue(0)
        self._filling = False
        ui.stepSlider.setEnabled(nodes.steps > 1)
        ui.stepSlider.setToolTip(stepsTip(nodes.steps))
        ui.stepImageBox.setEnabled(nodes.steps > 0)
        ui.beforeAfterButton.setEnabled(nodes.steps > 0)
        ui.fadeSlider.setEnabled(nodes.reference is not None)

    def present(self, nodes: Any) -> None:
        """Show a run that has just ended, in the views too."""
        self.refresh()
        self._present(next((run for run in self.runs if run.runID == nodes.runID), nodes))

    def _present(self, nodes: Any) -> None:
        self.show(nodes)
        self.parameters.stepImage = StepImage.AFTER  # a result is looked at first, not a step on the way
        Display.showResult(nodes)
        self._apply()

    def _tell(self, nodes: Any) -> None:
        """Volume, notices and numbers."""
        ui = self.ui
        ui.noticesLabel.setText("" if nodes is None else "\n".join(nodes.notices))
        ui.noticesLabel.setVisible(bool(nodes is not None and nodes.notices))
        self._volume()
        self._enlargement()
        rows = comparisonRows(None if nodes is None else nodes.comparison)
        table = ui.comparisonTable
        table.setVisible(bool(rows))
        table.setRowCount(len(rows))
        for row, texts in enumerate(rows):
            for column, text in enumerate(texts):
                table.setItem(row, column, qt.QTableWidgetItem(text))
        table.resizeRowsToContents()
        height = sum(table.rowHeight(row) for row in range(len(rows)))
        table.setFixedHeight(height + (table.rowHeight(0) if rows else 0) + 6)  # the header is one row high

    def _volume(self) -> None:
        text = ""
        if self.nodes is not None:
            ml = f"{self.nodes.enhancingVolumeMl:.1f}"
            text = _("Predicted enhancing tumour: <b>{ml} ml</b>").format(ml=ml)
        self.ui.volumeLabel.setText(text)

    def _enlargement(self) -> None:
        text = ""
        if self.nodes is not None and self.parameters is not None:
            shown = self.parameters.deformation
            if shown in (Deformation.GRID, Deformation.ARROWS):
                text = _("Drawn {n} times larger than true; it shows where tissue was moved to.").format(
                    n=Display.enlargement(self.nodes)
                )
            elif shown is Deformation.MAGNITUDE:
                text = _("Colours: by how many millimetres the last step moved the image.")
        self.ui.enlargementLabel.setText(text)
        self.ui.enlargementLabel.setVisible(bool(text))

    # How it looks

    def _lookNow(self) -> tuple[Any, ...] | None:
        return None if self.parameters is None else tuple(getattr(self.parameters, name) for name in LOOK)

    def onParameters(self) -> None:
        """The parameters changed: show what is new."""
        look = self._lookNow()
        if look == self._look:
            return
        old, self._look = self._look, look
        overlay = LOOK.index("overlay")
        if old is not None and look is not None and old[overlay] != look[overlay]:
            self._unfade()
        image = LOOK.index("stepImage")
        if self.nodes is not None and self.parameters is not None:
            if old is not None and old[image] != look[image] and not self._replaying():
                Display.showFinal(self.nodes)
            self._apply()

    def _unfade(self) -> None:
        self._filling = True
        self.ui.fadeSlider.setValue(0)
        self._filling = False

    def _apply(self) -> None:
        """Show the run as the parameters say, at the step of the slider."""
        p, nodes = self.parameters, self.nodes
        if self._replaying():
            Display.showStep(nodes, self._step, p.stepImage.value, p.maskVisible)
            Display.setDeformation(nodes, p.deformation.value, p.overlayOpacity)
        else:
            Display.setMask(nodes, p.maskVisible, p.maskFill, p.maskOutline, p.maskOpacity)
            if self.ui.fadeSlider.value == 0:
                Display.setOverlay(nodes, p.overlay.value, p.overlayOpacity)
            Display.setDeformation(nodes, p.deformation.value, p.overlayOpacity)
        self._enlargement()

    def _replaying(self) -> bool:
        """Whether a step is shown: an earlier one, or the last one's image before its warp."""
        before = self.parameters.stepImage is StepImage.BEFORE
        return self._step >= 1 and (self._step < self.nodes.steps or before)

    def _active(self) -> bool:
        return self.nodes is not None and self.parameters is not None and not self._filling

    def onRun(self, index: int) -> None:
        """The user chose another run of the scene."""
        if 0 <= index < len(self.runs) and self.parameters is not None:
            self._present(self.runs[len(self.runs) - 1 - index])

    def onThreshold(self, value: float) -> None:
        """The mask follows the threshold, the volume beside it."""
        if self._active():
            Scene.setThreshold(self.nodes, value)
            self._volume()

    def onStep(self, value: float) -> None:
        """Replay: steps done; the last one is the result."""
        if self._active() and self.nodes.steps:
            self._step = min(max(1, round(value)), self.nodes.steps)
            self._unfade()
            if not self._replaying():
                Display.showFinal(self.nodes)
            self._apply()

    def onFade(self, value: float) -> None:
        """Fade from the synthetic to the real image; an overlay would cover it."""
        if self._active() and self.nodes.reference is not None:
            p = self.parameters
            p.overlay = Overlay.NONE
            if p.deformation is Deformation.MAGNITUDE:
                p.deformation = Deformation.OFF
            self._look = self._lookNow()
            Display.setFade(self.nodes, value)

    def onLayout(self, name: str) -> None:
        """Arrange the views."""
        if self._active():
            Display.setLayout(self.nodes, name)
            Display.markViews()

    # Saving and removing

    def onSave(self, *_arguments: Any) -> None:
        """Save the run into a new folder inside the chosen one."""
        if self._active():
            with slicer.util.WaitCursor():
                self.saveInto(Path(self.ui.saveFolder.directory), self.ui.dicomBox.checked)

    def saveInto(self, folder: Path, dicom: bool) -> None:
        """Save the run as files, and as DICOM if wanted."""
        try:
            saved = Results.saveRun(self.nodes, folder)
            told: tuple[str, ...] = ()
            if dicom:
                told = DicomExport.saveDicom(self.nodes, saved, self.parameters.python or None).notices
        except SynthesisError as error:
            self._fail(error)
        except OSError as error:
            hint = _("Choose another folder, with rights and space to write.")
            self._fail(SynthesisError(_("The result cannot be saved."), hint, "machine", str(error)))
        else:
            self._fail(None)
            self.ui.savedLabel.setText("\n".join([_("Saved in {folder}").format(folder=saved), *told]))

    def onRemove(self, *_arguments: Any) -> None:
        """Remove the run's nodes from the scene."""
        if self._active():
            Scene.removeRun(self.nodes)
            self.refresh()
