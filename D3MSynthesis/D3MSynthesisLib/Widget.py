"""The panel: brings its parts together, and lives with the module and the scene. Nothing is computed here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

import slicer
from D3MSynthesisLib import Captions, Pictures, TwoDates, Views
from D3MSynthesisLib.Comparison import MADE_FROM
from D3MSynthesisLib.Engine import SynthesisError
from D3MSynthesisLib.Handlers import askUser, connect, guarded, tellUser
from D3MSynthesisLib.InputPart import SCANS, InputPart
from D3MSynthesisLib.ModelPart import ModelPart
from D3MSynthesisLib.Parameters import parametersOf
from D3MSynthesisLib.ResultPart import ResultPart
from D3MSynthesisLib.RunPart import RunPart
from D3MSynthesisLib.Runs import alive, findRuns, separateCopies

BEFORE_A_RUN = ("inputsSection", "modelSection", "settingsSection")


class Panel(VTKObservationMixin):
    """Binds the widgets of the .ui file to the parameter node and the logic.

    Args:
        logic: A `SynthesisLogic`.
        ui: Widgets by name.
        requirements: The module's requirements.txt.
        sample: Folder of the sample case.
        confirm: Asks the user a question.
        acknowledge: Shows a text that is read before the user goes on; None: there is nobody to read it.
    """

    def __init__(
        self,
        logic: Any,
        ui: Any,
        requirements: Path,
        sample: Path,
        confirm: Any = askUser,
        acknowledge: Any = tellUser,
    ) -> None:
        VTKObservationMixin.__init__(self)
        self.logic, self.ui, self.confirm, self.acknowledge = logic, ui, confirm, acknowledge
        self.parameters: Any = None
        self._guiTag: Any = None
        self._closing = False
        self._entered = False
        self._coming = False
        self._going = False
        self._arrived: Any = None
        """A result that came while another module was shown."""

        def ask(question: str) -> bool:
            return bool(self.confirm(question))

        self.models = ModelPart(ui, self._chooseModel, ask, self._fail)
        self.inputs = InputPart(ui, sample, self._fail, self.update, lambda: self.models.further)
        self.run = RunPart(
            logic, ui, requirements, self.models, ask, lambda text: self.acknowledge(text), self.reason, self._ended
        )
        self.result = ResultPart(ui, self._fail, ask, self._steer, self._seen)
        connect(ui.datesButton, "clicked(bool)", self.onTwoDates)
        self._fail(None)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self._onSceneChanges)
        self.addObserver(scene, scene.StartImportEvent, self._onSceneChanges)
        self.addObserver(scene, scene.EndCloseEvent, self._onSceneChanged)
        self.addObserver(scene, scene.EndImportEvent, self._onSceneChanged)
        self.addObserver(scene, scene.NodeAddedEvent, self._onNodeAdded)
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self._onNodeLeaves)
        self.addObserver(scene, scene.NodeRemovedEvent, self._onNodeRemoved)
        layout = Views.layoutNode(scene)
        if layout is not None:
            self.addObserver(layout, vtk.vtkCommand.ModifiedEvent, self._onArranged)

    # The life of the panel

    def enter(self) -> None:
        """The module is shown: bind to the scene's parameters, and ask the engine once what it has here."""
        self._entered = True
        if self.parameters is None:
            self._bind()
        if not self.run.asked:
            self.run.requestInfoSoon()

    def exit(self) -> None:
        """The module is left; a run goes on, and what its result has in the views stays true."""
        self._entered = False
        self._unbind(self.result)
        self.result.away = True

    def cleanup(self) -> None:
        """Reload or end of the application: stop everything, let go of everything."""
        self._closing = self.run.closing = True
        self.logic.shutdown()
        self.result.save.shutdown()
        self._unbind()
        self.removeObservers()

    def _bind(self) -> None:
        self.parameters = parametersOf(self.logic.getParameterNode())
        self._guiTag = self.parameters.connectGui(self.ui)
        self.addObserver(self.parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParameters)
        self.models.show(self.parameters.model)
        self.run.bind(self.parameters)
        self.inputs.bind(self.parameters)
        self.result.bind(self.parameters)
        self._assign()
        self.update()
        arrived, self._arrived = self._arrived, None
        if arrived is not None and arrived.cemri.GetScene() is slicer.mrmlScene:
            self._ended(arrived)

    def _unbind(self, but: Any = None) -> None:
        """Let go of the scene's parameters; `but`: a part that keeps them."""
        if self.parameters is None and but is None:
            self.result.bind(None)
        if self.parameters is not None:
            self.parameters.disconnectGui(self._guiTag)
            self.removeObserver(self.parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParameters)
            self.parameters = None
            for part in (self.inputs, self.run, self.result):
                if part is not but:
                    part.bind(None)

    def _onSceneChanges(self, _caller: Any, _event: str) -> None:
        """A scene is closed or read: selectors drop all rows and list them again (qMRMLSceneModel.cxx, updateScene).

        What they then choose for a moment is no choice of the user.
        """
        self._unbind()
        self.result.leaveScene()

    def _onSceneChanged(self, _caller: Any, _event: str) -> None:
        if not self._closing:
            self._unbind()
            if self._entered:
                self._bind()
                qt.QTimer.singleShot(0, guarded(self._onTree))

    def _onTree(self) -> None:
        """The data tree has what was read by now: runs of an earlier copy of the scene are runs of their own."""
        if self.parameters is not None and not self._closing:
            separateCopies(slicer.mrmlScene)
            if [run.runID for run in findRuns(slicer.mrmlScene)] != [run.runID for run in self.result.runs]:
                self.result.bind(self.parameters)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeAdded(self, _caller: Any, _event: str, node: Any) -> None:
        if node.IsA("vtkMRMLScalarVolumeNode") and not self._coming and not slicer.mrmlScene.IsBatchProcessing():
            self._coming = True
            qt.QTimer.singleShot(0, guarded(self._assign))  # the node has no image yet when it is announced

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeLeaves(self, _caller: Any, _event: str, node: Any) -> None:
        """A chosen node is deleted: the choice becomes empty before the selector takes the node of the row above.

        The selector's model drops the row on this same event, with a lower priority (qMRMLSceneModel.cxx, line 381),
        and Qt's combo box then chooses the row above it: another scan, perhaps another patient's, in silence.
        """
        if not slicer.mrmlScene.IsClosing():
            self.inputs.letGo(node)

    def _onNodeRemoved(self, _caller: Any, _event: str) -> None:
        if not self._going and not slicer.mrmlScene.IsBatchProcessing():
            self._going = True
            qt.QTimer.singleShot(0, guarded(self._onLess))

    def _onLess(self) -> None:
        self._going = False
        if self._closing:
            return
        nodes = self.result.nodes
        made = [node for run in (nodes, *self.result.runs) if run is not None for node in run.all()]
        if self.parameters is not None and not all(alive(node) for node in made):
            self.result.update(nodes)  # the user deleted a run, or a part of it, in the data tree
        elif nodes is not None:
            self.result.comparison.look()  # the real tumour may be gone
        self.update()

    def _onArranged(self, layout: Any, _event: str) -> None:
        self.result.onArranged(layout.GetViewArrangement())

    def _onParameters(self, _caller: Any, _event: str) -> None:
        self.inputs.watch()
        self.result.onParameters()
        self.update()

    def _assign(self) -> None:
        self._coming = False
        if self.parameters is not None and not self.logic.running:
            self.inputs.assign()
            if self.run.strangers():
                self.ui.inputsSection.collapsed = False  # another patient came: the selectors still have the last one
            self.update()

    def onTwoDates(self, *_arguments: Any) -> None:
        """Ask for a folder of `d3m follow-up` and show it."""
        title = _("Folder that d3m follow-up wrote")
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title)
        if folder:
            self.loadTwoDates(Path(folder))

    def loadTwoDates(self, folder: Path) -> None:
        """Load two dates of one patient and show them side by side."""
        from d3m.errors import D3MError

        try:
            with slicer.util.WaitCursor():
                dates = TwoDates.addTwoDates(slicer.mrmlScene, folder)
        except D3MError as error:
            self._fail(SynthesisError(error.message, error.hint, error.kind))
            return
        self._fail(None)
        TwoDates.showTwoDates(dates)
        self.result.lendViews()  # after the layout node has told its change
        self.update()

    # Between the parts

    def _chooseModel(self, name: str) -> None:
        if self.parameters is not None:
            self.parameters.model = name
            self.models.show(name)
            self.run.bind(self.parameters)
            self.inputs.watch()
            self._assign()  # it may take further scans
            self.update()

    def reason(self) -> str | None:
        """Why it cannot run yet."""
        fault = self.inputs.reason(self.models.optional)
        return fault if fault or self.parameters is None else self.models.reason(self.parameters.model)

    def update(self, *_arguments: Any) -> None:
        """Everything that depends on what is chosen and on what goes on."""
        self.inputs.tell(self.models.optional, self.models.costWithout)
        self.run.update()
        self.result.tellOwner()
        self.result.comparison.tell()
        texts = TwoDates.changeTexts(slicer.mrmlScene)
        self.ui.datesLabel.setText("\n".join(texts))
        self.ui.datesLabel.setVisible(bool(texts))
        self._offer()

    def _seen(self) -> None:
        """Another run is shown, or other images are in the views."""
        self._offer()
        self.run.update()

    def _offer(self) -> None:
        """Whether the run that is shown can be synthesised again from a mask."""
        self.result.mask.offer(self.models.card, self._cannotSteer(), self.logic.running)

    def _cannotSteer(self) -> str | None:
        """Why the scans of the run that is shown cannot be used again."""
        nodes = self.result.nodes
        if nodes is None or self.parameters is None:
            return _("There is no result yet.")
        used = nodes.provenance.get("inputs", {})
        further = [name for name in self.models.further if name in used]
        if not all(alive(getattr(nodes, name)) for name in (*SCANS[:3], *further) if name not in nodes.missing):
            return _("A scan of this run is no longer in the scene: load it and run the synthesis again.")
        if nodes.cemri.GetAttribute(MADE_FROM["brainMask"]) and not alive(nodes.brainMask):
            return _("The brain mask of this run is no longer in the scene: load it and run the synthesis again.")
        needed = [name for name in nodes.missing if name in SCANS and name not in self.models.optional]
        if needed:
            scan = ", ".join(needed).upper()
            return _("This result was made without {scan}, which the chosen model needs: choose another model.").format(
                scan=scan
            )
        return self.models.reason(self.parameters.model)

    def _steer(self, mask: Any) -> None:
        nodes = self.result.nodes
        if nodes is not None and not self.logic.running:
            changed = [Captions.MADE_FROM[name] for name in self.result.comparison.inputsChanged if name != "givenMask"]
            if changed and not self.confirm(
                _("Changed or moved since this result was made: {scans}. Make the picture from them as they are now?")
                .format(scans=", ".join(changed))
            ):  # fmt: skip
                return
            brain, real = (node if alive(node) else None for node in (nodes.brainMask, nodes.reference))
            self.run.start(
                nodes.t1, nodes.t2, nodes.flair, brainMask=brain, reference=real, enhancementMask=mask,
                further={name: getattr(nodes, name) for name in self.models.further},
            )  # fmt: skip

    def _ended(self, nodes: Any) -> None:
        """A run has ended; the views are left alone if another patient is looked at by now."""
        if self.parameters is None:
            Pictures.hide(nodes)  # until it is shown, its mask would lie over whatever is
            self._arrived = nodes
            return
        for name in BEFORE_A_RUN:
            getattr(self.ui, name).collapsed = True
        if self.run.isLookedAt(nodes):
            self.result.present(nodes)
        else:
            Pictures.hide(nodes)
            self.result.update(self.result.nodes)
        self._assign()

    def _fail(self, error: SynthesisError | None) -> None:
        self.run.fail(error)

    # What scripts and tests ask for

    @property
    def info(self) -> Any:
        """What the engine said about this machine; None before."""
        return self.run.info
