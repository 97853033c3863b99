"""The part of the panel about running: settings, what it will cost, starting, progress, and errors."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

import slicer
from D3MSynthesisLib import Belonging, Frames, Identity, Inputs, Install, Runs, Seen
from D3MSynthesisLib.Engine import Cost, EngineInfo, ProgressEvent, SynthesisError
from D3MSynthesisLib.Handlers import connect, guarded
from D3MSynthesisLib.Parameters import Quality

PYTHON_SETTING = "D3MSynthesis/Python"
INFO_DELAY_MS = 1500
"""Between opening the module and asking the engine for devices and costs."""
LICENCE_SETTING = "D3MSynthesis/LicenceRead"


def duration(seconds: float) -> str:
    """Seconds, told to a person."""
    if seconds < 90:
        return _("{n} s").format(n=max(1, round(seconds)))
    return _("{n} min").format(n=round(seconds / 60))


def memory(megabytes: float) -> str:
    """An amount of memory, told to a person."""
    return _("{n} GB").format(n=f"{megabytes / 1024:.1f}")


def stageText(event: ProgressEvent) -> str:
    """What is happening, in the application's language."""
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


class RunPart:
    """Starts and stops runs, and says how they stand.

    Args:
        logic: A `SynthesisLogic`.
        ui: Widgets by name.
        requirements: The module's requirements.txt.
        models: The part about models.
        confirm: Asks the user a question.
        acknowledge: Shows a text that is read before the user goes on; None: there is nobody to read it.
        reason: Gives why the run cannot start.
        ended: Called with the nodes of a result.
    """

    def __init__(
        self,
        logic: Any,
        ui: Any,
        requirements: Path,
        models: Any,
        confirm: Callable[[str], bool],
        acknowledge: Callable[[str], bool | None],
        reason: Callable[[], str | None],
        ended: Callable[[Any], None],
    ) -> None:
        self.logic, self.ui, self.requirements, self.models = logic, ui, requirements, models
        self.confirm, self.acknowledge, self._reason, self._ended = confirm, acknowledge, reason, ended
        self.parameters: Any = None
        self.info: EngineInfo | None = None
        self.error: SynthesisError | None = None
        self.devices: list[str] = []
        self.closing = False
        self.asked = False
        self._startedWith: Any = None
        """T1 as it was chosen when the run was started."""
        self._shownBefore: set[str] = set()
        """Runs that the views had then, and results of it since."""
        self._clock: tuple[float, Cost | None, str] = (0.0, None, "")
        """When the run was started, what it was to cost, and the name of its model."""
        self._pace: dict[tuple[str, str], float] = {}
        """By model and device: how long the last run took, as a share of what was foretold at first."""
        connect(ui.applyButton, "clicked(bool)", self.onApply)
        connect(ui.deviceBox, "activated(int)", self.onDevice)
        connect(ui.pythonEdit, "textEdited(QString)", self.onPython)
        ui.detailsButton.connect("toggled(bool)", ui.detailsText.setVisible)
        connect(ui.reportButton, "clicked(bool)", self.onReport)

    def bind(self, parameters: Any) -> None:
        """Follow these parameters; None lets go of everything."""
        self.parameters = parameters
        if parameters is not None:
            self._takePython()
            self._limitSteps()
            self._showDevices()

    def _limitSteps(self) -> None:
        """No more steps than the model's card says that it can take: more would give noise."""
        card = self.models.card
        most = max((quality.steps for quality in card.recipe.qualities), default=1) if card is not None else 1000
        self.ui.stepsBox.setMaximum(most)
        self.ui.stepsBox.setToolTip(_("Reverse steps; this model takes {n} at most.").format(n=most))
        if self.parameters is not None and self.parameters.steps > most:
            self.parameters.steps = most

    def cost(self) -> Cost | None:
        """What the chosen settings cost, as far as the engine has said; steps and samples set by hand included."""
        p, card = self.parameters, self.models.card
        model = next((m for m in self.info.models if m.name == card.name), None) if self.info and card else None
        if model is None or p is None:
            return None
        qualities = card.recipe.qualities
        usual = qualities[list(Quality).index(p.quality)]
        work = [quality.work for quality in qualities]
        known = {cost.quality: cost for cost in model.costs}
        if not all(quality.value in known for quality in Quality):
            return None
        first, last = known["preview"], known["best"]
        each = (last.seconds - first.seconds) / max(work[-1] - work[0], 1)
        wanted = replace(usual, steps=p.steps or usual.steps, samples=p.samples or usual.samples).work
        cost = known[p.quality.value]
        if p.device not in ("auto", cost.device):
            return None
        seconds = (first.seconds + each * (wanted - work[0])) * self._pace.get((card.name, cost.device), 1.0)
        return Cost(p.quality.value, cost.device, seconds, cost.memoryMb)

    def forecast(self) -> str:
        """How long it takes and how much memory it needs, before it is started."""
        if self.info is None:
            return "" if self.asked else _("The first run may ask to install packages.")
        cost = self.cost()
        if cost is None:
            return ""
        device = next((d.title for d in self.info.devices if d.name == cost.device), cost.device)
        return _("About {time} and {memory} of memory on {device}.").format(
            time=duration(cost.seconds), memory=memory(cost.memoryMb), device=device
        )

    def _ready(self) -> str:
        """Whose scans are ready, the forecast, and which scan is left out: the inputs may be folded away."""
        p = self.parameters
        name = Identity.withPatient(p.t1.GetName(), p.t1)
        strangers = self.strangers()
        ready = _("Ready for {name}.").format(name=name)
        if strangers:
            ready = _("Ready for {name}, but the views show {other}: another patient or date?").format(
                name=name, other=Identity.withPatient(strangers[0].GetName(), strangers[0])
            )
        missing = Inputs.leftOut(p.t1, p.t2, p.flair, self.models.optional, self._further())
        told = [_("{scan} is left out.").format(scan=name) for name in missing]
        return " ".join(text for text in (ready, self.forecast(), *told) if text)

    def strangers(self) -> list[Any]:
        """Scans in the views that may be of another patient or date than T1, where none of the chosen is there."""
        p = self.parameters
        seen = [] if p is None or p.t1 is None else Seen.acquired(slicer.mrmlScene)
        chosen = (p.t1, p.t2, p.flair, p.reference, *self._further().values()) if seen else ()
        return [] if any(node in chosen for node in seen) else [n for n in seen if Belonging.isOfOtherVisit(n, p.t1)]

    def _further(self) -> dict[str, Any]:
        """What the model takes beside T1, T2 and FLAIR, None where nothing is chosen."""
        return {name: getattr(self.parameters, name) for name in self.models.further}

    def update(self) -> None:
        """Button, and the sentence above it."""
        ui, running = self.ui, self.logic.running
        reason = None if running else self._reason()
        ui.applyButton.setText(_("Cancel") if running else _("Synthesize"))
        ui.applyButton.setEnabled(not self.logic.cancelling if running else reason is None)
        ui.applyButton.setToolTip(reason or "")
        ui.progressBar.setVisible(running)
        if not running:
            ui.stateLabel.setText(reason or self._ready())

    # What the engine says about this machine

    def requestInfoSoon(self) -> None:
        """Ask the engine in a moment: who starts a run at once, or leaves the module, does not wait for an answer."""
        qt.QTimer.singleShot(INFO_DELAY_MS, guarded(self.requestInfo))

    def requestInfo(self) -> None:
        """Ask the engine for devices and costs; without its packages there is nothing to ask."""
        if self.closing or self.parameters is None or self.logic.running:
            return
        python = self.parameters.python
        if python or not (Install.torchMissing() or Install.missing(self.requirements)):
            self.asked = True
            self.logic.requestInfo(self.onInfo, python=python or None)

    def onInfo(self, info: EngineInfo | None, error: SynthesisError | None) -> None:
        """The engine's answer; an error is told when the user runs it, not before."""
        del error
        if self.closing or info is None:
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
        box.setToolTip("\n".join([_("The device that computes the result."), *unusable]))

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
        """Start, or cancel what is running."""
        if self.logic.running:
            self.logic.cancel()
            self.ui.stateLabel.setText(_("Cancelling."))
            self.update()
            return
        p = self.parameters
        self.start(p.t1, p.t2, p.flair, brainMask=p.brainMask, reference=p.reference,
                   referenceMask=p.referenceMask if p.reference is not None else None,
                   further=self._further())  # fmt: skip

    def start(self, t1: Any, t2: Any, flair: Any, **given: Any) -> None:
        """Start a run with the settings of the panel.

        Args:
            t1: Scans.
            t2: See `t1`; None: left out.
            flair: See `t2`.
            given: What else goes to `SynthesisLogic.run`.
        """
        self.fail(None)
        p = self.parameters
        try:
            self._licence()
            if not p.python:
                self.ui.stateLabel.setText(_("Looking for packages."))
                Install.ensure(self.requirements, self.confirm)
            self._startedWith, self._shownBefore = p.t1, Seen.runsShown(slicer.mrmlScene)
            name = self.models.card.name if self.models.card is not None else ""
            self._clock = (time.monotonic(), None if p.allFrames else self.cost(), name)
            run = functools.partial(Frames.runFrames, self.logic) if p.allFrames else self.logic.run
            run(
                t1, t2, flair, p.quality.value, wait=False, acrossStudies=p.acrossStudies,
                model=p.model or None, steps=p.steps or None, samples=p.samples or None, seed=p.seed,
                device=p.device, trace=p.keepSteps, python=p.python or None,
                progress=self.onProgress, finished=self.onFinished, **given,
            )  # fmt: skip
        except SynthesisError as error:
            self.fail(error)
        self.update()

    def _licence(self) -> None:
        """Show the licence of the weights once before they are first used.

        Raises:
            SynthesisError: the user does not go on.
        """
        card = self.models.card
        settings = slicer.app.userSettings()
        key = f"{LICENCE_SETTING}/{card.weights_sha256[:16]}" if card is not None else ""
        if card is None or not card.licence or str(settings.value(key, "") or "") == "yes":
            return
        text = _("The weights of the model {title} are used under this licence:\n\n{licence}\n\nIts images are "
                 "synthetic, for research only, and must not guide the care of a patient.")  # fmt: skip
        read = self.acknowledge(text.format(title=card.title, licence=card.licence))
        if read:
            settings.setValue(key, "yes")
        elif read is not None:
            raise SynthesisError(
                _("The synthesis was not started, because you did not go on past the licence."),
                _("Press Synthesize to read it again, or choose another model."), "interrupted",
            )  # fmt: skip

    def onProgress(self, event: ProgressEvent) -> None:
        """Bar and sentence; it says whose run it is."""
        if self.closing:
            return
        parts = [stageText(event)]
        if event.step and event.steps and event.steps > 1:  # "step 0 of 1" tells nobody anything
            parts.append(_("step {n} of {m}").format(n=event.step, m=event.steps))
        if event.eta_s is not None:
            parts.append(_("about {time} left").format(time=duration(event.eta_s)))
        self.ui.progressBar.setValue(round(100 * event.fraction))
        if not self.logic.cancelling:
            text = ", ".join(parts)
            name = self.logic.runningFor
            self.ui.stateLabel.setText(_("{name}: {progress}").format(name=name, progress=text) if name else text)

    def onFinished(self, nodes: Any, error: SynthesisError | None) -> None:
        """The result, or why there is none."""
        if self.closing:
            return
        self.fail(error if error is not None and error.kind != "interrupted" else None)
        if nodes is not None:
            self._learn()
            self._ended(nodes)
            self._shownBefore.add(nodes.runID)
        self.update()
        if self.info is None:
            self.requestInfoSoon()

    def isLookedAt(self, nodes: Any) -> bool:
        """Whether a result is of the T1 that is chosen now, and no other T1's was looked for during the run.

        Without a T1, whether no view has another's.
        """
        chosen = self.parameters.t1
        shown = Seen.runsShown(slicer.mrmlScene) - {nodes.runID}
        others = [run for run in Runs.findRuns(slicer.mrmlScene) if run.runID in shown]
        others = [run for run in others if run.t1 is None or run.t1 is not nodes.t1]
        if chosen is not None:
            sought = any(run.runID not in self._shownBefore for run in others)
            return (chosen is self._startedWith or chosen is nodes.t1) and not sought
        if others:
            return False
        own = (nodes.t1, nodes.t2, nodes.flair, nodes.adc, nodes.swi, nodes.reference)
        return all(image in own for image in Seen.acquired(slicer.mrmlScene))

    def _learn(self) -> None:
        """The engine measures its speed in a moment, in which the machine may be busy: a whole run tells it better."""
        started, cost, model = self._clock
        if cost is not None and cost.seconds > 0:
            key = (model, cost.device)
            self._pace[key] = self._pace.get(key, 1.0) * (time.monotonic() - started) / cost.seconds

    def fail(self, error: SynthesisError | None) -> None:
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
