"""The part of the panel about a result: which run, which picture, the deformation and its steps, layouts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import vtk
from slicer.util import VTKObservationMixin

import slicer
from D3MSynthesisLib import Captions, Field, Pictures, Runs, Seen, Views
from D3MSynthesisLib.Belonging import sameExamination
from D3MSynthesisLib.ComparisonPart import ComparisonPart
from D3MSynthesisLib.Engine import SynthesisError
from D3MSynthesisLib.Handlers import connect, guarded
from D3MSynthesisLib.MaskPart import MaskPart
from D3MSynthesisLib.Parameters import Deformation, Overlay, Picture
from D3MSynthesisLib.ResultTexts import fieldText, pictureText, runTitle, stepsTip, volumeText
from D3MSynthesisLib.SavePart import SavePart

LAYOUTS = {
    "sideBySideButton": "sideBySide", "contrastsButton": "contrasts", "comparisonButton": "comparison",
    "fourUpButton": "fourUp", "beforeAfterButton": "beforeAfter",
}  # fmt: skip
SECTIONS = ("resultsSection", "maskSection", "deformationSection", "comparisonSection", "saveSection")
LOOK = ("maskVisible", "maskFill", "maskOutline", "maskOpacity", "picture", "overlay", "overlayOpacity", "deformation",
        "stepImage")  # fmt: skip
"""Parameters that decide how a result looks."""
MASK_LOOK = {"maskVisible", "maskFill", "maskOutline", "maskOpacity"}
"""Those that change the mask alone, not the images in the views."""


class ResultPart(VTKObservationMixin):
    """Shows one run of the scene, as the parameters say.

    Args:
        ui: Widgets by name.
        fail: Shows an error, or takes it away.
        confirm: Asks the user a question.
        steer: Called with a mask node, to make a picture from it.
        shown: Called when another run is shown, or none, and when the views show something else.
        processes: See the argument `qt` of `Worker`.
    """

    def __init__(
        self,
        ui: Any,
        fail: Callable[[SynthesisError | None], None],
        confirm: Callable[[str], bool],
        steer: Callable[[Any], None],
        shown: Callable[[], None],
        processes: Any = None,
    ) -> None:
        VTKObservationMixin.__init__(self)
        self.ui = ui
        self.nodes: Any = None
        self.runs: list[Any] = []
        self.parameters: Any = None
        self.mask = MaskPart(ui, confirm, self._tell, steer)
        self.comparison = ComparisonPart(ui, fail, self.onFade, self._compared, confirm)
        self.save = SavePart(ui, confirm, fail, self.update, processes)
        self._known: tuple[Any, ...] | None = None
        self._step = 0
        self._layout = "all"
        self._last = ""
        """Identifier of the run that was shown last: another module may be visited meanwhile."""
        self._lastT1: Any = None
        """T1 of that run."""
        self._flipped = False
        self.away = False
        """Another module is shown; what is in the views is followed all the same."""
        self._filling = False
        self._moving = False
        self._looking = False
        self._telling = False
        connect(ui.runBox, "activated(int)", self.onRun)
        connect(ui.stepSlider, "valueChanged(double)", self.onStep)
        connect(ui.flipButton, "clicked(bool)", self.onFlip)
        connect(ui.show3DButton, "clicked(bool)", self.onShow3D)
        for name, layout in LAYOUTS.items():
            connect(getattr(ui, name), "clicked(bool)", lambda _on=False, layout=layout: self.onLayout(layout))
        self._shortcuts = []
        for keys, action in (
            ("Alt+T", self.onFlip),
            ("Alt+1", lambda: self.onOnly("t1")),
            ("Alt+2", lambda: self.onOnly("cemri")),
            ("Alt+3", lambda: self.onOnly("reference")),
        ):
            shortcut = qt.QShortcut(qt.QKeySequence(keys), ui.researchLabel)
            connect(shortcut, "activated()", action)
            self._shortcuts.append(shortcut)
        self._shown: Callable[[], None] = lambda: None
        self.show(None)
        self._shown = shown

    def bind(self, parameters: Any) -> None:
        """Follow these parameters (None: no scene), and the run that the views show, without touching the views."""
        self.parameters, self.away = parameters, False
        self.update()
        self._known = self._values()

    def update(self, keep: Any = None) -> None:
        """As `refresh`, where the views go on showing what they show."""
        self.refresh(keep)
        self._adopt()

    def leaveScene(self) -> None:
        """The scene is closed, or another one is read: what its views show is no longer ours."""
        self._layout, self._lastT1 = "all", None

    def _adopt(self) -> None:
        """What is told of step and drawing is what the views have: a scene's file has no drawing."""
        nodes, p = self.nodes, self.parameters
        if nodes is None or p is None:
            return
        self._filling = True
        if nodes.steps:
            self._step = min(max(nodes.browser.GetSelectedItemNumber() + 1, 1), nodes.steps)
            self.ui.stepSlider.setValue(self._step)
        if Runs.alive(nodes.reference):
            self.comparison.unfade(Views.opacityOf(nodes.reference))
        self._factor = Field.drawnFactor(nodes)
        if not (self._factor if p.deformation in (Deformation.GRID, Deformation.ARROWS) else Pictures.coloured(nodes)):
            p.deformation = Deformation.OFF
        self._filling = False
        self._tellPicture()

    def refresh(self, keep: Any = None) -> None:
        """List the scene's runs again; chosen is the run `keep`, else that of the views, the last, or the newest."""
        self.runs = Runs.findRuns(slicer.mrmlScene) if self.parameters is not None else []
        box = self.ui.runBox
        blocked = box.blockSignals(True)
        box.clear()
        box.addItems([runTitle(run) for run in reversed(self.runs)])
        chosen = self.runs[-1] if self.runs else None
        for wanted in (set() if keep is None else {keep.runID}, Seen.runsShown(slicer.mrmlScene), {self._last}):
            found = [run for run in self.runs if run.runID in wanted]
            if found:
                chosen = found[-1]
                break
        if chosen is not None:
            box.setCurrentIndex(len(self.runs) - 1 - self.runs.index(chosen))
        box.blockSignals(blocked)
        self.show(chosen)

    def show(self, nodes: Any) -> None:
        """Fill the panel with a run; the views stay as they are."""
        ui = self.ui
        self.removeObservers()
        self.nodes = nodes
        if nodes is not None and nodes.runID != self._last:
            self._letMaskGo(nodes)
        if nodes is not None:
            self._last, self._lastT1 = nodes.runID, nodes.t1
        self._step = 0 if nodes is None else nodes.steps
        self._flipped = False
        for section in SECTIONS:
            getattr(ui, section).setEnabled(nodes is not None)
            getattr(ui, section).setVisible(nodes is not None)
        for part in (self.mask, self.comparison, self.save):
            part.show(nodes, self.parameters)
        self._tell()
        self._shown()
        if nodes is None:
            return
        self._filling = True
        ui.stepSlider.minimum = 1  # PythonQt knows the properties of CTK's widgets, not all of their setters
        ui.stepSlider.maximum = max(nodes.steps, 1)
        ui.stepSlider.setValue(max(nodes.steps, 1))
        self._filling = False
        ui.stepSlider.setEnabled(nodes.steps > 1)
        ui.stepSlider.setToolTip(stepsTip(nodes.steps))
        for widget in (ui.stepImageBox, ui.beforeAfterButton):
            widget.setEnabled(nodes.steps > 0)
        if nodes.browser is not None:
            self.addObserver(nodes.browser, vtk.vtkCommand.ModifiedEvent, self._onBrowser)
        for node in {nodes.cemri, nodes.deformation} - {None}:
            self.addObserver(node, node.TransformModifiedEvent, self._onMoved)
        for view in Seen.composites(slicer.mrmlScene):
            self.addObserver(view, vtk.vtkCommand.ModifiedEvent, self._onView)
        self._observeReference()
        if self.comparison.referenceChanged:
            Pictures.hideError(nodes)

    def _onView(self, _caller: Any, _event: str) -> None:
        """Another image was chosen in a view, by hand: it may be another result's, and the numbers are not its."""
        if not self._telling:
            self._telling = True
            qt.QTimer.singleShot(0, guarded(self._tellSoon))

    def _tellSoon(self) -> None:
        self._telling = False
        self.tellOwner()
        self._tellPicture()
        self._shown()

    def _observeReference(self) -> None:
        for real in (getattr(self.nodes, name) for name in Runs.INPUTS):
            if not Runs.alive(real):
                continue
            followed = [(real, real.TransformModifiedEvent), (real, vtk.vtkCommand.ModifiedEvent)]
            if real.IsA("vtkMRMLSegmentationNode"):
                segmentation, kind = real.GetSegmentation(), slicer.vtkSegmentation
                followed.append((real, real.DisplayModifiedEvent))  # hidden segments do not count
                for event in (kind.SourceRepresentationModified, kind.SegmentAdded, kind.SegmentRemoved):
                    followed.append((segmentation, event))
            else:
                followed.append((real, real.ImageDataModifiedEvent))
            for caller, event in followed:
                if not self.hasObserver(caller, event, self._onReference):
                    self.addObserver(caller, event, self._onReference)

    def _letMaskGo(self, nodes: Any) -> None:
        """A mask to synthesize from was chosen for the run before: it is not put on another T1 unasked."""
        before, p = self._lastT1, self.parameters
        if before is None or before is nodes.t1 or p is None or p.enhancementMask is None:
            return
        if not (Runs.alive(nodes.t1) and Runs.alive(before) and sameExamination(before, nodes.t1)):
            p.enhancementMask = None

    def present(self, nodes: Any) -> None:
        """Show a run that has just ended, in the views too."""
        self.refresh(nodes)
        self._present(self.nodes if self.nodes is not None else nodes)

    def _present(self, nodes: Any) -> None:
        self.show(nodes)
        p = self.parameters
        self._filling = True
        p.picture, p.deformation = Picture.CEMRI, Deformation.OFF  # a result is looked at first, not how it came
        self._filling = False
        self._known = self._values()
        Pictures.first(nodes)
        self.apply()

    # What is said

    def _tell(self) -> None:
        """Volume, whose it is, notices, and what the picture and the deformation are."""
        ui, nodes = self.ui, self.nodes
        ui.noticesLabel.setText("" if nodes is None else "\n".join(nodes.notices))
        ui.noticesLabel.setVisible(bool(nodes is not None and nodes.notices))
        ui.volumeLabel.setText("" if nodes is None else self._volumeText())
        self._tellPicture()
        self.comparison.tell()
        self.save.look()
        Captions.markViews()  # an edited mask is named so

    def tellOwner(self) -> None:
        """The chosen T1 changed: say whether the result is its."""
        if self.nodes is not None and Runs.alive(self.nodes.cemri):  # its scene may be closed by now
            self.ui.volumeLabel.setText(self._volumeText())

    def _volumeText(self) -> str:
        chosen = None if self.parameters is None else self.parameters.t1
        changed = self.comparison.changedText() if self.comparison.inputsChanged else ""
        return volumeText(self.nodes, chosen, changed)

    def _tellPicture(self) -> None:
        nodes, p = self.nodes, self.parameters
        picture, field = "", ""
        if nodes is not None and Runs.alive(nodes.cemri) and p is not None:
            picture = pictureText(nodes, p.picture, p.overlay)
            field = fieldText(nodes, p.deformation, self._look().step, self._factor)
        for label, text in ((self.ui.pictureLabel, picture), (self.ui.enlargementLabel, field)):
            label.setText(text)
            label.setVisible(bool(text))

    # How it looks

    def _values(self) -> tuple[Any, ...] | None:
        return None if self.parameters is None else tuple(getattr(self.parameters, name) for name in LOOK)

    def _look(self) -> Pictures.Look:
        p = self.parameters
        return Pictures.Look(
            picture=p.picture.value, step=self._step or None, stepImage=p.stepImage.value, overlay=p.overlay.value,
            overlayOpacity=p.overlayOpacity, deformation=p.deformation.value, maskVisible=p.maskVisible,
            maskFill=p.maskFill, maskOutline=p.maskOutline, maskOpacity=p.maskOpacity,
            fade=self.ui.fadeSlider.value, layout=self._layout,
            referenceChanged=self.comparison.referenceChanged,
        )  # fmt: skip

    _factor = 0

    def apply(self) -> None:
        """Show the run as the parameters say, at the step of the slider."""
        self._flipped = False
        self._factor = Pictures.show(self.nodes, self._look())
        self._tellPicture()

    def onParameters(self) -> None:
        """The parameters changed: show what is new, and what goes with it."""
        values = self._values()
        if values == self._known or self._filling:
            return
        old, self._known = self._known, values
        if old is None or values is None or self.nodes is None:
            return
        changed = {name for name, before, after in zip(LOOK, old, values, strict=True) if before != after}
        self._filling = True
        try:
            self._reconcile(changed)
        finally:
            self._filling = False
        self._known = self._values()
        if changed <= MASK_LOOK and self.parameters.picture is not Picture.SAMPLE:
            Pictures.showMask(self.nodes, self._look())
        else:
            self.apply()

    def _reconcile(self, changed: set[str]) -> None:
        """Deformation and steps are looked at over the sample's own picture; overlays belong to the synthetic image."""
        p = self.parameters
        if changed & {"picture", "overlay", "deformation", "stepImage"}:
            self.comparison.unfade()
        if ("deformation" in changed and p.deformation is not Deformation.OFF) or (
            "stepImage" in changed and self.nodes.steps
        ):
            p.picture = Picture.SAMPLE
        elif "overlay" in changed and p.overlay is not Overlay.NONE and p.picture is Picture.SAMPLE:
            p.picture = Picture.CEMRI
        if p.picture is not Picture.SAMPLE:
            p.deformation = Deformation.OFF

    def _active(self) -> bool:
        there = self.nodes is not None and Runs.alive(self.nodes.cemri)
        return there and self.parameters is not None and not self._filling

    def _choose(self, picture: Picture) -> None:
        """Another picture, without showing it yet."""
        self._filling = True
        self.parameters.picture = picture
        if picture is not Picture.SAMPLE:
            self.parameters.deformation = Deformation.OFF
        self._filling = False
        self._known = self._values()

    def onRun(self, index: int) -> None:
        """The user chose another run of the scene."""
        if 0 <= index < len(self.runs) and self.parameters is not None:
            self._present(self.runs[len(self.runs) - 1 - index])

    def onStep(self, value: float) -> None:
        """Replay: steps done, of the first sample."""
        if self._active() and self.nodes.steps:
            self._step = min(max(1, round(value)), self.nodes.steps)
            self.comparison.unfade()
            self._choose(Picture.SAMPLE)
            self.apply()

    def _onBrowser(self, _caller: Any, _event: str) -> None:
        """The Sequences toolbar chose a step, or plays them: slider and drawing follow, where this run is looked at."""
        if self.nodes is None or self.nodes.browser is None or self._filling:
            return
        if self.away and self.nodes.runID not in Seen.runsShown(slicer.mrmlScene):
            return
        done = self.nodes.browser.GetSelectedItemNumber() + 1
        if 1 <= done <= self.nodes.steps and done != self._step and self.parameters is not None:
            guarded(self.ui.stepSlider.setValue)(done)

    def _onMoved(self, _caller: Any, _event: str) -> None:
        if not self._moving:  # the nodes of a folder are put under a transform one by one
            self._moving = True
            qt.QTimer.singleShot(0, guarded(self._moved))

    def _moved(self) -> None:
        """The run was put under another transform, or its transform changed: what was made for the views follows."""
        self._moving = False
        if not self._active() or not Runs.alive(self.nodes.cemri):
            return
        Pictures.follow(self.nodes)
        self.mask.lookAtScale()
        self._factor = Pictures.draw(self.nodes, self._look())
        self._tellPicture()
        self._lookAtReference()

    def _onReference(self, _caller: Any, _event: str) -> None:
        if not self._looking:  # a transform that is dragged tells every step
            self._looking = True
            qt.QTimer.singleShot(0, guarded(self._lookAtReference))

    def _lookAtReference(self) -> None:
        """A scan may have moved or changed since it was compared, or since the run."""
        self._looking = False
        if self.nodes is not None and Runs.alive(self.nodes.cemri) and self.comparison.look():
            self.comparison.tell()
            self.tellOwner()
            Captions.markViews()
            if self.comparison.referenceChanged:
                Pictures.hideError(self.nodes)
            elif self._layout == "comparison":
                self.apply()

    def onFade(self, value: float) -> None:
        """Fade from the synthetic to the real image; an overlay would cover it."""
        if self._active() and Runs.alive(self.nodes.reference):
            self._choose(Picture.CEMRI)
            self._filling = True
            self.parameters.overlay = Overlay.NONE
            self._filling = False
            self._known = self._values()
            del value  # the slider has it
            self.apply()

    def _compared(self) -> None:
        """The run was measured against another real T1c: it is the one that is seen."""
        self._observeReference()
        self._tell()
        if self._layout == "comparison":
            self.apply()

    def onLayout(self, name: str) -> None:
        """Arrange the views."""
        if not self._active():
            return
        if name == "comparison" and not Runs.alive(self.nodes.reference):
            return
        if name == "beforeAfter":
            self._choose(Picture.SAMPLE)
        Pictures.setLayout(self.nodes, name)
        self._layout = name  # after the layout node has told its change
        self.comparison.unfade()  # each layout shows the synthetic image by itself
        self.apply()

    def onArranged(self, arrangement: int) -> None:
        """A layout was chosen, here or elsewhere in Slicer: views that ours had turned and linked are as before."""
        if arrangement != Pictures.ARRANGEMENTS.get(self._layout):
            self._layout = "all"
            Views.release(slicer.mrmlScene)
        self._onView(None, "")  # views that are seen no more, or again, may show another result

    def lendViews(self) -> None:
        """Something else than the run has been put side by side in linked views: they stay linked until a layout is
        chosen."""
        self._layout, self._flipped = "sideBySide", False

    def onShow3D(self, *_arguments: Any) -> None:
        """Surfaces of tumour and brain."""
        if self._active():
            with slicer.util.WaitCursor():
                Pictures.show3D(self.nodes)
            self._layout = "all"
            self._filling = True
            self.parameters.maskVisible = True  # without the tumour nobody would know what is shown
            self._filling = False
            self._known = self._values()
            self.apply()

    def onFlip(self, *_arguments: Any) -> None:
        """T1 in every view, and back to what was there."""
        if not self._active() or not Runs.alive(self.nodes.t1):
            return
        if self._flipped:
            self.apply()
        else:
            Views.setImages(slicer.mrmlScene, {}, self.nodes.t1, None, 0.0)
            Captions.markViews()
            self._flipped = True

    def onOnly(self, name: str) -> None:
        """One image in every view: "t1", "cemri" or "reference"."""
        if not self._active() or not Runs.alive(getattr(self.nodes, name)):
            return
        self._layout = "all"
        if name == "cemri":
            self.comparison.unfade()
            self._choose(Picture.CEMRI)
            self.apply()
        else:
            Views.setImages(slicer.mrmlScene, {}, getattr(self.nodes, name), None, 0.0)
            Captions.markViews()
            self._flipped = False
