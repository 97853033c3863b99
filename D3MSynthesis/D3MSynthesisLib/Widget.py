"""The panel: inputs, model, settings, the run, and what is shown of its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

import slicer
from D3MSynthesisLib import Display, Inputs, Install, Results, Scene
from D3MSynthesisLib.Engine import EngineInfo, ProgressEvent, SynthesisError
from D3MSynthesisLib.Parameters import D3MSynthesisParameterNode

QUALITIES = ("preview", "standard", "best")
OVERLAYS = ("none", "subtraction", "probability", "uncertainty")
DEFORMATIONS = ("off", "magnitude", "grid", "arrows")
LAYOUTS = {"sideBySideButton": "sideBySide", "fourUpButton": "fourUp", "beforeAfterButton": "beforeAfter"}
INPUTS = ("t1", "t2", "flair", "brainMask", "reference")


def duration(seconds: float) -> str:
    """Seconds, told to a person."""
    if seconds < 90:
        return _("{n} s").format(n=max(1, round(seconds)))
    return _("{n} min").format(n=round(seconds / 60))


def askUser(question: str) -> bool:
    """Ask; closing the window or Escape is a no. Nobody is asked where there is nobody to answer."""
    if slicer.app.testingEnabled() or slicer.util.mainWindow() is None:
        return False
    return bool(slicer.util.confirmYesNoDisplay(question))


class Panel(VTKObservationMixin):
    """Binds the widgets of the .ui file to the parameter node and the logic.

    Args:
        logic: A `SynthesisLogic`.
        ui: Widgets by name.
        requirements: The module's requirements.txt.
        sample: Folder of the sample case.
        confirm: Asks the user a question.
    """

    def __init__(self, logic: Any, ui: Any, requirements: Path, sample: Path, confirm: Any = askUser) -> None:
        VTKObservationMixin.__init__(self)
        self.logic, self.ui, self.requirements, self.sample, self.confirm = logic, ui, requirements, sample, confirm
        self.parameters: Any = None
        self.info: EngineInfo | None = None
        self.error: SynthesisError | None = None
        self.nodes: Any = None
        self._guiTag: Any = None
        self._busy = False
        self._closing = False
        for box, texts in (
            (ui.qualityBox, (_("Preview"), _("Standard"), _("Best"))),
            (ui.overlayBox, (_("Nothing"), _("Subtraction"), _("Probability"), _("Uncertainty"))),
            (ui.deformationBox, (_("Off"), _("Magnitude"), _("Grid"), _("Arrows"))),
        ):
            box.addItems(list(texts))
        ui.qualityBox.setCurrentIndex(1)
        self._connect()
        self._fail(None)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self._onStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self._onSceneChanged)
        self.addObserver(scene, scene.EndImportEvent, self._onSceneChanged)
        self.addObserver(scene, scene.NodeAddedEvent, self._onNodeAdded)

    def _connect(self) -> None:
        ui = self.ui
        ui.applyButton.connect("clicked(bool)", self.onApply)
        ui.sampleButton.connect("clicked(bool)", self.onSample)
        ui.detailsButton.connect("toggled(bool)", ui.detailsText.setVisible)
        ui.reportButton.connect("clicked(bool)", self.onReport)
        ui.saveButton.connect("clicked(bool)", self.onSave)
        ui.removeButton.connect("clicked(bool)", self.onRemove)
        for box in (ui.maskBox, ui.fillBox, ui.outlineBox):
            box.connect("toggled(bool)", self.onMask)
        ui.opacitySlider.connect("valueChanged(double)", self.onMask)
        ui.thresholdSlider.connect("valueChanged(double)", self.onThreshold)
        ui.stepSlider.connect("valueChanged(double)", self.onStep)
        ui.fadeSlider.connect("valueChanged(double)", self.onFade)
        ui.overlayBox.connect("currentIndexChanged(int)", self.onOverlay)
        ui.deformationBox.connect("currentIndexChanged(int)", self.onDeformation)
        ui.qualityBox.connect("currentIndexChanged(int)", self.update)
        ui.modelBox.connect("currentIndexChanged(int)", self.update)
        for name, layout in LAYOUTS.items():
            getattr(ui, name).connect("clicked(bool)", lambda _on=False, layout=layout: self.onLayout(layout))

    # The life of the panel

    def enter(self) -> None:
        """The module is shown: bind to the scene's parameters."""
        if self.parameters is None:
            self._bind()

    def exit(self) -> None:
        """The module is left; a run goes on."""
        self._unbind()

    def cleanup(self) -> None:
        """Reload or end of the application: stop everything, let go of everything."""
        self._closing = True
        self.logic.shutdown()
        self._unbind()
        self.removeObservers()

    def _bind(self) -> None:
        self.parameters = D3MSynthesisParameterNode(self.logic.getParameterNode())
        self._guiTag = self.parameters.connectGui(self.ui)
        self.addObserver(self.parameters, vtk.vtkCommand.ModifiedEvent, self.update)
        self._assign()
        runs = Scene.findRuns(slicer.mrmlScene)
        self._show(runs[-1] if runs else None, views=False)
        self.update()

    def _unbind(self) -> None:
        if self.parameters is not None:
            self.parameters.disconnectGui(self._guiTag)
            self.removeObserver(self.parameters, vtk.vtkCommand.ModifiedEvent, self.update)
            self.parameters = None

    def _onStartClose(self, _caller: Any, _event: str) -> None:
        self.nodes = None
        self._unbind()

    def _onSceneChanged(self, _caller: Any, _event: str) -> None:
        if not self._closing:
            self._unbind()
            self._bind()

    def _onNodeAdded(self, _caller: Any, _event: str) -> None:
        if not slicer.mrmlScene.IsBatchProcessing():
            qt.QTimer.singleShot(0, self._assign)  # the node has no image yet when it is announced

    # Before the run

    def _assign(self) -> None:
        """Fill selectors that are empty; what the user chose stays."""
        if self.parameters is None or self.logic.running:
            return
        volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        found = Inputs.assignInputs([node for node in volumes if not Scene.isSynthetic(node)])
        for name, node in zip(("t1", "t2", "flair", "reference"), found, strict=True):
            if node is not None and getattr(self.parameters, name) is None:
                setattr(self.parameters, name, node)
        self.update()

    def reason(self) -> str | None:
        """Why it cannot run yet."""
        if self.parameters is None:
            return _("The scene is closing.")
        p = self.parameters
        return Inputs.readiness(p.t1, p.t2, p.flair, p.brainMask, p.reference)

    def costs(self) -> str:
        """How long it takes and how much memory, as far as the engine has said."""
        quality = QUALITIES[self.ui.qualityBox.currentIndex]
        for model in self.info.models if self.info is not None else ():
            for cost in model.costs:
                if model.name == self.ui.modelBox.currentText and cost.quality == quality:
                    return _("About {time} and {memory} MB of memory on {device}.").format(
                        time=duration(cost.seconds), memory=round(cost.memoryMb), device=cost.device
                    )
        return _("Ready. The first run may ask to install packages.") if self.info is None else _("Ready.")

    def update(self, *_arguments: Any) -> None:
        """Button and sentence above it."""
        ui, running = self.ui, self.logic.running
        reason = None if running else self.reason()
        ui.applyButton.setText(_("Cancel") if running else _("Synthesize"))
        ui.applyButton.setEnabled(not self.logic.cancelling if running else reason is None)
        ui.applyButton.setToolTip(reason or "")
        ui.progressBar.setVisible(running)
        if not running:
            notice = None
            if reason is None and self.parameters is not None:
                notice = Inputs.transformNotice(self.parameters.t1, self.parameters.t2, self.parameters.flair)
            ui.stateLabel.setText(reason or " ".join(filter(None, (self.costs(), notice))))

    def requestInfo(self) -> None:
        """Ask the engine for devices, models and costs; without packages there is nothing to ask."""
        if not Install.torchMissing() and not Install.missing(self.requirements):
            self.logic.requestInfo(self.onInfo, python=self.parameters.python or None)

    def onInfo(self, info: EngineInfo | None, error: SynthesisError | None) -> None:
        """The engine's answer."""
        if self._closing or info is None:
            self.error = error
            return
        self.info = info
        self.ui.modelBox.clear()
        self.ui.modelBox.addItems([model.name for model in info.models])
        self.ui.deviceLabel.setText("\n".join(
            device.title + ("" if device.memoryBytes is None else f" ({device.memoryBytes / 2**30:.0f} GB)")
            for device in info.devices if device.usable
        ))  # fmt: skip
        self.update()

    # The run

    def onSample(self, *_arguments: Any) -> None:
        """Load the sample case."""
        for scan in ("t1", "t2", "flair", "t1c"):
            slicer.util.loadVolume(str(self.sample / f"sample_{scan}.nii.gz"))
        self._assign()

    def onApply(self, *_arguments: Any) -> None:
        """Start, or cancel what is going on."""
        if self.logic.running:
            self.logic.cancel()
            self.ui.stateLabel.setText(_("Cancelling."))
            self.update()
            return
        self._fail(None)
        p = self.parameters
        try:
            if not p.python:
                Install.ensure(self.requirements, self.confirm)
            self.logic.run(
                p.t1, p.t2, p.flair, QUALITIES[self.ui.qualityBox.currentIndex], wait=False, brainMask=p.brainMask,
                reference=p.reference, model=self.ui.modelBox.currentText or None, steps=p.steps or None,
                samples=p.samples or None, seed=p.seed, trace=p.keepSteps, python=p.python or None,
                progress=self.onProgress, finished=self.onFinished,
            )  # fmt: skip
        except SynthesisError as error:
            self._fail(error)
        self.update()

    def onProgress(self, event: ProgressEvent) -> None:
        """Stage, step and remaining time."""
        parts = [event.message or event.stage]
        if event.step is not None and event.steps is not None and not event.message:
            parts.append(_("step {step} of {steps}").format(step=event.step, steps=event.steps))
        if event.eta_s is not None:
            parts.append(_("{time} left").format(time=duration(event.eta_s)))
        self.ui.progressBar.setValue(round(100 * event.fraction))
        if not self.logic.cancelling:
            self.ui.stateLabel.setText(", ".join(parts))

    def onFinished(self, nodes: Any, error: SynthesisError | None) -> None:
        """The result, or why there is none."""
        if self._closing:
            return
        self._fail(error if error is not None and error.kind != "interrupted" else None)
        if nodes is not None:
            self._show(nodes)
            if self.info is None and self.parameters is not None:
                self.requestInfo()
        self.update()

    def _fail(self, error: SynthesisError | None) -> None:
        self.error = error
        self.ui.errorLabel.setText("" if error is None else str(error))
        self.ui.detailsText.setPlainText("" if error is None else error.details)
        for widget in (self.ui.errorLabel, self.ui.detailsButton, self.ui.reportButton):
            widget.setVisible(error is not None)
        self.ui.detailsText.setVisible(False)
        self.ui.detailsButton.setChecked(False)

    def onReport(self, *_arguments: Any) -> None:
        """Copy a report without names of patients or files."""
        qt.QApplication.clipboard().setText(self.logic.report(self.error))

    # The result

    def _show(self, nodes: Any, views: bool = True) -> None:
        ui = self.ui
        self.nodes = nodes
        ui.resultsSection.setEnabled(nodes is not None)
        ui.saveSection.setEnabled(nodes is not None)
        ui.volumeLabel.setText("")
        ui.noticesLabel.setText("")
        if nodes is None:
            self._compare(None)
            return
        self._busy = True
        ui.thresholdSlider.setValue(nodes.threshold)
        ui.stepSlider.setEnabled(nodes.steps > 0)
        ui.stepSlider.setMaximum(max(nodes.steps, 1))
        ui.stepSlider.setValue(max(nodes.steps, 1))
        ui.fadeSlider.setEnabled(nodes.reference is not None)
        self._busy = False
        ui.noticesLabel.setText("\n".join(nodes.notices))
        self._volume(nodes.enhancingVolumeMl)
        self._compare(nodes.comparison)
        if views:
            Display.showResult(nodes)
            Display.markViews()

    def _volume(self, ml: float) -> None:
        self.ui.volumeLabel.setText(_("Enhancing tumour (synthetic): {ml} ml").format(ml=f"{ml:.1f}"))

    def _compare(self, comparison: dict[str, Any] | None) -> None:
        numbers = {name: value for name, value in (comparison or {}).items() if isinstance(value, (int, float))}
        table = self.ui.comparisonTable
        table.setVisible(bool(numbers))
        table.setRowCount(len(numbers))
        for row, (name, value) in enumerate(numbers.items()):
            table.setItem(row, 0, qt.QTableWidgetItem(name.replace("_", " ")))
            table.setItem(row, 1, qt.QTableWidgetItem(f"{value:.3g}"))

    def _active(self) -> bool:
        return self.nodes is not None and not self._busy

    def onMask(self, *_arguments: Any) -> None:
        """Mask: on, fill, outline, opacity."""
        if self._active():
            ui = self.ui
            Display.setMask(self.nodes, ui.maskBox.checked, ui.fillBox.checked, ui.outlineBox.checked,
                            ui.opacitySlider.value)  # fmt: skip

    def onThreshold(self, value: float) -> None:
        """The mask follows the threshold, the volume beside it."""
        if self._active():
            self._volume(Scene.setThreshold(self.nodes, value))

    def onStep(self, value: float) -> None:
        """Replay: steps done; the last one is the result."""
        if self._active() and self.nodes.steps:
            if int(value) >= self.nodes.steps:
                Display.showFinal(self.nodes)
            else:
                Display.showStep(self.nodes, max(1, int(value)))

    def onFade(self, value: float) -> None:
        """Fade from the synthetic to the real image."""
        if self._active() and self.nodes.reference is not None:
            Display.setFade(self.nodes, value)

    def onOverlay(self, index: int) -> None:
        """One overlay at a time."""
        if self._active():
            Display.setOverlay(self.nodes, OVERLAYS[index])

    def onDeformation(self, index: int) -> None:
        """How the deformation is drawn."""
        if self._active():
            Display.setDeformation(self.nodes, DEFORMATIONS[index])
            drawn = DEFORMATIONS[index] in ("grid", "arrows")
            self.ui.enlargementLabel.setText(
                _("Drawn {n} times larger than true; arrows show where tissue moved to.").format(
                    n=Display.enlargement(self.nodes)
                ) if drawn else ""
            )  # fmt: skip

    def onLayout(self, name: str) -> None:
        """Arrange the views."""
        if self._active():
            Display.setLayout(self.nodes, name)

    def onSave(self, *_arguments: Any) -> None:
        """Save the run into a new folder inside the chosen one."""
        if not self._active():
            return
        try:
            folder = Results.saveRun(self.nodes, Path(self.ui.saveFolder.currentPath))
        except OSError as error:
            self._fail(SynthesisError(_("The result cannot be saved."), _("Choose another folder."), "machine",
                                      str(error)))  # fmt: skip
        else:
            self.ui.savedLabel.setText(_("Saved in {folder}").format(folder=folder))

    def onRemove(self, *_arguments: Any) -> None:
        """Remove the run's nodes from the scene."""
        if self._active():
            Scene.removeRun(self.nodes)
            runs = Scene.findRuns(slicer.mrmlScene)
            self._show(runs[-1] if runs else None, views=False)
