"""The panel: binds widgets, parameter node and logic; inputs, settings and the run. Nothing is computed here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

import slicer
from D3MSynthesisLib import Display, Inputs, Install, Scene
from D3MSynthesisLib.Engine import Cost, EngineInfo, ProgressEvent, SynthesisError
from D3MSynthesisLib.ModelPart import ModelPart
from D3MSynthesisLib.Parameters import Quality, parametersOf
from D3MSynthesisLib.ResultPart import ResultPart

SCANS = ("t1", "t2", "flair", "reference")
PYTHON_SETTING = "D3MSynthesis/Python"
SAMPLE_FILES = {"t1": "sample_t1", "t2": "sample_t2", "flair": "sample_flair", "reference": "sample_t1c"}


def duration(seconds: float) -> str:
    """Seconds, told to a person."""
    if seconds < 90:
        return _("{n} s").format(n=max(1, round(seconds)))
    return _("{n} min").format(n=round(seconds / 60))


def memory(megabytes: float) -> str:
    """An amount of memory, told to a person."""
    return _("{n} GB").format(n=f"{megabytes / 1024:.1f}")


def stageText(event: ProgressEvent) -> str:
    """What is going on, in the application's language."""
    return {
        "inputs": _("Starting the engine"),
        "read": _("Reading the scans"),
        "model": _("Loading the model"),
        "prepare": _("Putting the scans on the model's grid"),
        "sample": _("Synthesising"),
        "restore": _("Bringing the result back onto T1's grid"),
        "write": _("Writing the result"),
        "nodes": _("Showing the result"),
    }.get(event.stage, event.message or event.stage)


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
        self.devices: list[str] = []
        self._guiTag: Any = None
        self._asked = False
        self._closing = False
        self._entered = False
        self._coming = False
        self._going = False
        self._watched: list[Any] = []
        self._arrived: Any = None
        """A result that came while another module was shown."""
        self.models = ModelPart(ui, self._chooseModel, lambda question: self.confirm(question), self._fail)
        self.result = ResultPart(ui, self._fail)
        self._connect()
        self._fail(None)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self._onStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self._onSceneChanged)
        self.addObserver(scene, scene.EndImportEvent, self._onSceneChanged)
        self.addObserver(scene, scene.NodeAddedEvent, self._onNodeAdded)
        self.addObserver(scene, scene.NodeRemovedEvent, self._onNodeRemoved)
        for view in Display.composites(scene):
            self.addObserver(view, vtk.vtkCommand.ModifiedEvent, self._onView)

    def _connect(self) -> None:
        ui = self.ui
        ui.applyButton.connect("clicked(bool)", self.onApply)
        ui.sampleButton.connect("clicked(bool)", self.onSample)
        ui.assignButton.connect("clicked(bool)", self.onAssign)
        ui.hardenButton.connect("clicked(bool)", self.onHarden)
        ui.deviceBox.connect("activated(int)", self.onDevice)
        ui.pythonEdit.connect("textEdited(QString)", self.onPython)
        ui.detailsButton.connect("toggled(bool)", ui.detailsText.setVisible)
        ui.reportButton.connect("clicked(bool)", self.onReport)

    # The life of the panel

    def enter(self) -> None:
        """The module is shown: bind to the scene's parameters, and ask the engine once what it has here."""
        self._entered = True
        if self.parameters is None:
            self._bind()
        if not self._asked:
            qt.QTimer.singleShot(0, self.requestInfo)

    def exit(self) -> None:
        """The module is left; a run goes on."""
        self._entered = False
        self._unbind()

    def cleanup(self) -> None:
        """Reload or end of the application: stop everything, let go of everything."""
        self._closing = True
        self.logic.shutdown()
        self._unbind()
        self.removeObservers()

    def _bind(self) -> None:
        self.parameters = parametersOf(self.logic.getParameterNode())
        self._guiTag = self.parameters.connectGui(self.ui)
        self._takePython()
        self.addObserver(self.parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParameters)
        self._watch()
        self.models.show(self.parameters.model)
        self._showDevices()
        self.result.bind(self.parameters)
        self._assign()
        self.update()
        arrived, self._arrived = self._arrived, None
        if arrived is not None and arrived.cemri.GetScene() is slicer.mrmlScene:
            self.result.present(arrived)

    def _unbind(self) -> None:
        if self.parameters is not None:
            self.parameters.disconnectGui(self._guiTag)
            self.removeObserver(self.parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParameters)
            self.parameters = None
            self._watch()
            self.result.bind(None)

    def _onStartClose(self, _caller: Any, _event: str) -> None:
        self._unbind()

    def _onSceneChanged(self, _caller: Any, _event: str) -> None:
        if not self._closing:
            self._unbind()
            Display.markViews()  # the views were restored before their images were there
            if self._entered:
                self._bind()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeAdded(self, _caller: Any, _event: str, node: Any) -> None:
        if node.IsA("vtkMRMLSliceCompositeNode"):
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._onView)
        elif node.IsA("vtkMRMLScalarVolumeNode") and not self._coming and not slicer.mrmlScene.IsBatchProcessing():
            self._coming = True
            qt.QTimer.singleShot(0, self._assign)  # the node has no image yet when it is announced

    def _onNodeRemoved(self, _caller: Any, _event: str) -> None:
        if not self._going and not slicer.mrmlScene.IsBatchProcessing():
            self._going = True
            qt.QTimer.singleShot(0, self._onLess)

    def _onLess(self) -> None:
        self._going = False
        if self._closing:
            return
        nodes = self.result.nodes
        if self.parameters is not None and nodes is not None and nodes.cemri.GetScene() is None:
            self.result.refresh()  # the user deleted the run in the data tree
        self.update()

    def _onView(self, _caller: Any, _event: str) -> None:
        Display.markViews()

    def _onParameters(self, _caller: Any, _event: str) -> None:
        self._watch()
        self.result.onParameters()
        self.update()

    def _watch(self) -> None:
        """Follow the chosen scans: voxels may arrive late, and a scan may be put under a transform."""
        p = self.parameters
        chosen = [] if p is None else [node for node in (getattr(p, name) for name in SCANS) if node is not None]
        for nodes, others, change in (
            (self._watched, chosen, self.removeObserver),
            (chosen, self._watched, self.addObserver),
        ):
            for node in {id(node): node for node in nodes if node not in others}.values():
                for event in (node.ImageDataModifiedEvent, node.TransformModifiedEvent):
                    change(node, event, self.update)
        self._watched = chosen

    # Before the run

    def _assign(self) -> None:
        """Fill selectors that are empty; what the user chose stays."""
        self._coming = False
        if self.parameters is None or self.logic.running:
            return
        for name, node in zip(SCANS, self._found(), strict=True):
            if node is not None and getattr(self.parameters, name) is None:
                setattr(self.parameters, name, node)
        self.update()

    @staticmethod
    def _found() -> Any:
        volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        return Inputs.assignInputs([node for node in volumes if not Scene.isSynthetic(node)])

    def onAssign(self, *_arguments: Any) -> None:
        """Choose again by names and descriptions, whatever was chosen before."""
        if self.parameters is not None:
            for name, node in zip(SCANS, self._found(), strict=True):
                setattr(self.parameters, name, node)

    def onSample(self, *_arguments: Any) -> None:
        """Load the sample case and choose it."""
        try:
            nodes = {
                name: slicer.util.loadVolume(str(self.sample / f"{file}.nii.gz"))
                for name, file in reversed(SAMPLE_FILES.items())  # T1 last: it stays in the views
            }
        except RuntimeError as error:
            hint = _("Install the extension again.")
            self._fail(SynthesisError(_("The sample case cannot be loaded."), hint, "machine", str(error)))
            return
        if self.parameters is not None:
            self.parameters.brainMask = None
            for name, node in nodes.items():
                setattr(self.parameters, name, node)

    def onHarden(self, *_arguments: Any) -> None:
        """Choose copies that have their transforms applied."""
        p = self.parameters
        names = [name for name in SCANS[:3] if getattr(p, name) is not None
                 and getattr(p, name).GetParentTransformNode() is not None]  # fmt: skip
        for name, copy in zip(names, Inputs.hardenedCopies([getattr(p, name) for name in names]), strict=True):
            setattr(p, name, copy)

    def _chooseModel(self, name: str) -> None:
        if self.parameters is not None:
            self.parameters.model = name
            self.models.show(name)
            self.update()

    def reason(self) -> str | None:
        """Why it cannot run yet."""
        p = self.parameters
        if p is None:
            return _("The scene is closing.")
        return Inputs.readiness(p.t1, p.t2, p.flair, p.brainMask, p.reference, p.referenceMask) or self.models.reason(
            p.model
        )

    def cost(self) -> Cost | None:
        """What the chosen settings cost, as far as the engine has said; steps and samples set by hand included."""
        p, card = self.parameters, self.models.card
        model = next((m for m in self.info.models if m.name == card.name), None) if self.info and card else None
        if model is None or p is None:
            return None
        index = list(Quality).index(p.quality)
        qualities = card.recipe.qualities
        work = [quality.steps * quality.samples for quality in qualities]
        known = {cost.quality: cost for cost in model.costs}
        if not all(quality.value in known for quality in Quality):
            return None
        first, last = known["preview"], known["best"]
        each = (last.seconds - first.seconds) / max(work[-1] - work[0], 1)
        wanted = (p.steps or qualities[index].steps) * (p.samples or qualities[index].samples)
        cost = known[p.quality.value]
        if p.device not in ("auto", cost.device):
            return None
        return Cost(p.quality.value, cost.device, first.seconds + each * (wanted - work[0]), cost.memoryMb)

    def forecast(self) -> str:
        """How long it takes and how much memory it needs, before it is started."""
        if self.info is None:
            return _("Ready. The first run may ask to install packages.") if not self._asked else _("Ready.")
        cost = self.cost()
        if cost is None:
            return _("Ready.")
        device = next((d.title for d in self.info.devices if d.name == cost.device), cost.device)
        return _("Ready: about {time} and {memory} of memory on {device}.").format(
            time=duration(cost.seconds), memory=memory(cost.memoryMb), device=device
        )

    def update(self, *_arguments: Any) -> None:
        """Button, and the sentence above it."""
        ui, running, p = self.ui, self.logic.running, self.parameters
        reason = None if running else self.reason()
        ui.applyButton.setText(_("Cancel") if running else _("Synthesize"))
        ui.applyButton.setEnabled(not self.logic.cancelling if running else reason is None)
        ui.applyButton.setToolTip(reason or "")
        ui.progressBar.setVisible(running)
        notice = None if p is None else Inputs.transformNotice(p.t1, p.t2, p.flair)
        ui.transformLabel.setText(notice or "")
        for widget in (ui.transformLabel, ui.hardenButton):
            widget.setVisible(notice is not None)
        if not running:
            ui.stateLabel.setText(reason or self.forecast())

    # What the engine says about this machine

    def requestInfo(self) -> None:
        """Ask the engine for devices and costs; without its packages there is nothing to ask."""
        if self._closing or self.parameters is None or self.logic.running:
            return
        python = self.parameters.python
        if python or not (Install.torchMissing() or Install.missing(self.requirements)):
            self._asked = True
            self.logic.requestInfo(self.onInfo, python=python or None)

    def onInfo(self, info: EngineInfo | None, error: SynthesisError | None) -> None:
        """The engine's answer; an error is told when the user runs it, not before."""
        del error
        if self._closing or info is None:
            return
        self.info = info
        self._showDevices()
        self.update()

    def _showDevices(self) -> None:
        found = self.info.devices if self.info is not None else ()
        titles = {"auto": _("Automatic"), "cpu": _("Processor")}
        for device in found:
            if device.usable:
                size = "" if device.memoryBytes is None else f" ({memory(device.memoryBytes / 2**20)})"
                titles[device.name] = device.title + size
        wanted = self.parameters.device if self.parameters is not None else "auto"
        titles.setdefault(wanted, _("{name} (not found)").format(name=wanted))
        self.devices = list(titles)
        box = self.ui.deviceBox
        blocked = box.blockSignals(True)
        box.clear()
        box.addItems(list(titles.values()))
        box.setCurrentIndex(self.devices.index(wanted))
        box.blockSignals(blocked)
        unusable = [
            _("{name} is not usable: {reason}").format(name=device.title, reason=device.reason)
            for device in found
            if not device.usable
        ]
        box.setToolTip("\n".join([_("Where it is computed."), *unusable]))

    def onDevice(self, index: int) -> None:
        """The user chose a device."""
        if self.parameters is not None and 0 <= index < len(self.devices):
            self.parameters.device = self.devices[index]

    def onPython(self, text: str) -> None:
        """The user typed an interpreter: it is remembered on this machine."""
        slicer.app.userSettings().setValue(PYTHON_SETTING, text)

    def _takePython(self) -> None:
        """The interpreter is the one that was typed on this machine: a scene of somebody else must not start one."""
        python = str(slicer.app.userSettings().value(PYTHON_SETTING, "") or "")
        if self.parameters.python != python:
            self.parameters.python = python

    # The run

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
                self.ui.stateLabel.setText(_("Looking for packages."))
                Install.ensure(self.requirements, self.confirm)
            self.logic.run(
                p.t1, p.t2, p.flair, p.quality.value, wait=False, brainMask=p.brainMask, reference=p.reference,
                referenceMask=p.referenceMask if p.reference is not None else None,
                model=p.model or None, steps=p.steps or None, samples=p.samples or None, seed=p.seed,
                device=p.device, trace=p.keepSteps, python=p.python or None,
                progress=self.onProgress, finished=self.onFinished,
            )  # fmt: skip
        except SynthesisError as error:
            self._fail(error)
        self.update()

    def onProgress(self, event: ProgressEvent) -> None:
        """Bar and sentence."""
        if self._closing:
            return
        parts = [stageText(event)]
        if event.step is not None and event.steps:
            parts.append(_("step {n} of {m}").format(n=event.step, m=event.steps))
        if event.eta_s is not None:
            parts.append(_("about {time} left").format(time=duration(event.eta_s)))
        self.ui.progressBar.setValue(round(100 * event.fraction))
        if not self.logic.cancelling:
            self.ui.stateLabel.setText(", ".join(parts))

    def onFinished(self, nodes: Any, error: SynthesisError | None) -> None:
        """The result, or why there is none."""
        if self._closing:
            return
        self._fail(error if error is not None and error.kind != "interrupted" else None)
        if nodes is not None and self.parameters is not None:
            self.result.present(nodes)
        else:
            self._arrived = nodes
        self.update()
        if self.info is None:
            self.requestInfo()

    def _fail(self, error: SynthesisError | None) -> None:
        """Show an error, or take it away."""
        self.error = error
        self.ui.errorLabel.setText("" if error is None else str(error))
        self.ui.detailsText.setPlainText("" if error is None else error.details)
        for widget in (self.ui.errorLabel, self.ui.detailsButton, self.ui.reportButton):
            widget.setVisible(error is not None)
        self.ui.detailsText.setVisible(False)
        self.ui.detailsButton.setChecked(False)

    def onReport(self, *_arguments: Any) -> None:
        """Copy a report without names of patients or files."""
        qt.QApplication.clipboard().setText(self.logic.report(self.error, self.info))
