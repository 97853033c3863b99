"""The part of the panel about the scans: which node is which, whose they are, transforms that they are under."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

import slicer
from D3MSynthesisLib import Frames, Inputs, SampleCase
from D3MSynthesisLib.Assignment import FURTHER, assignInputs
from D3MSynthesisLib.Belonging import acquiredIn, isOfOtherVisit, markOf, saysNothing
from D3MSynthesisLib.Counted import told
from D3MSynthesisLib.Engine import SynthesisError
from D3MSynthesisLib.Handlers import connect, guarded
from D3MSynthesisLib.Identity import groupOf, identityOf
from D3MSynthesisLib.MaskSources import othersThan
from D3MSynthesisLib.Places import placeOf, wasRead

SCANS = ("t1", "t2", "flair", "reference")
MASKS = ("brainMask", "referenceMask", "enhancementMask")
CHOSEN = (*SCANS, *FURTHER, *MASKS)
"""Parameters that are nodes."""
LAST = "D3M.LastT1"
"""Reference and attribute of the parameter node: the T1 that the masks were chosen with, and whose it is."""
SPOKEN = "D3M.SpokenT1"
"""Reference of the parameter node: the last T1 that said whose it is; those after it were made from it."""
NOBODY = "nobody"


def _whose(t1: Any) -> str:
    """What tells a T1's patient and examination from others; `NOBODY` where it says nothing of them."""
    group, place = groupOf(t1), placeOf(t1)
    if not group[1] and place:  # one folder may have the scans of several
        group = ("folder", markOf(t1))
    elif not group[1]:
        return NOBODY
    text = " ".join((*group, "" if group[0] in ("study", "patient") else place))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _staysWith(spoken: Any, t1: Any) -> bool:
    """Whether a T1 is `SPOKEN`, or was made in the scene, as "T1 N4" is, where only that one's patient and date are.

    Two T1 that both say nothing may be of two patients.
    """

    def speaks(node: Any) -> bool:
        return wasRead(node) or identityOf(node).known

    if spoken is None or not speaks(spoken):
        return False
    if spoken is t1:
        return True
    scene = t1.GetScene()
    # "T1_fu N4" is of the later date, should that be loaded
    others = {markOf(node) for node in acquiredIn(scene) if speaks(node)} - {"", markOf(spoken)}
    return not (speaks(t1) or markOf(t1) in others or othersThan(spoken, scene))


class InputPart(VTKObservationMixin):
    """Chooses scans and follows them.

    Args:
        ui: Widgets by name.
        sample: Folder of the sample case.
        fail: Shows an error, or takes it away.
        changed: Called when a chosen scan is another one, or lies elsewhere.
        taken: Gives those of `FURTHER` that the chosen model takes; selectors of others are hidden and do not count.
    """

    def __init__(
        self,
        ui: Any,
        sample: Path,
        fail: Callable[[SynthesisError | None], None],
        changed: Callable[..., None],
        taken: Callable[[], Collection[str]],
    ) -> None:
        VTKObservationMixin.__init__(self)
        self.ui, self.sample, self._fail, self._changed, self._taken = ui, sample, fail, changed, taken
        self.parameters: Any = None
        self._watched: list[Any] = []
        self._masks: list[Any] = []
        self._before: dict[str, Any] = {}
        """What was chosen when it was looked at last."""
        self._tree: Any = None
        self._dragged = False
        connect(ui.sampleButton, "clicked(bool)", self.onSample)
        connect(ui.assignButton, "clicked(bool)", self.onAssign)
        connect(ui.hardenButton, "clicked(bool)", self.onHarden)

    def bind(self, parameters: Any) -> None:
        """Follow these parameters; None lets go of everything."""
        self.parameters, self._before = parameters, {}
        tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        for known in {self._tree, tree} - {None}:
            if self.hasObserver(known, known.SubjectHierarchyItemReparentedEvent, self._onTree):
                self.removeObserver(known, known.SubjectHierarchyItemReparentedEvent, self._onTree)
        self._tree = None if parameters is None else tree
        if self._tree is not None:
            self.addObserver(tree, tree.SubjectHierarchyItemReparentedEvent, self._onTree)
        self.watch()

    def _onTree(self, _caller: Any, _event: str) -> None:
        """Scans may be dragged to another patient in the data tree, one by one; masks may be shown and hidden."""
        if not self._dragged:
            self._dragged = True
            qt.QTimer.singleShot(0, guarded(self._whoseIsIt))

    def _whoseIsIt(self) -> None:
        self._dragged = False
        if self.parameters is not None:
            self._changed()

    def chosen(self) -> dict[str, Any]:
        """T1, T2, FLAIR, the real T1c and what else the model takes, None where nothing is chosen."""
        names = (*SCANS, *self._taken())
        return {name: None if self.parameters is None else getattr(self.parameters, name) for name in names}

    def further(self) -> dict[str, Any]:
        """What else the model takes, None where nothing is chosen."""
        return {name: node for name, node in self.chosen().items() if name in FURTHER}

    def watch(self) -> None:
        """Follow the chosen scans: voxels may arrive late, and a scan may be put under a transform."""
        self._noticeEmptied()
        self._leave()
        chosen = [node for node in self.chosen().values() if node is not None]
        for nodes, others, change in (
            (self._watched, chosen, self.removeObserver),
            (chosen, self._watched, self.addObserver),
        ):
            for node in {id(node): node for node in nodes if node not in others}.values():
                for event in (node.ImageDataModifiedEvent, node.TransformModifiedEvent):
                    change(node, event, self._changed)
        self._watched = chosen
        self._watchMasks()

    def _watchMasks(self) -> None:
        """Follow the chosen masks: which of their segments are shown says what counts, and has many events."""
        chosen = [] if self.parameters is None else [getattr(self.parameters, name) for name in MASKS]
        masks = list({id(node): node for node in chosen if node is not None}.values())
        added, removed = slicer.vtkSegmentation.SegmentAdded, slicer.vtkSegmentation.SegmentRemoved
        for nodes, others, change in (
            (self._masks, masks, self.removeObserver),
            (masks, self._masks, self.addObserver),
        ):
            for node in [node for node in nodes if node not in others]:
                change(node, node.DisplayModifiedEvent, self._onTree)
                if node.IsA("vtkMRMLSegmentationNode"):
                    for event in (added, removed):
                        change(node, event, self._onTree)
                else:
                    change(node, node.ImageDataModifiedEvent, self._onTree)
        self._masks = masks

    def _noticeEmptied(self) -> None:
        """Remember which selectors the user emptied: a scan may be left out on purpose."""
        names = (*SCANS, *FURTHER)
        chosen = {name: None if self.parameters is None else getattr(self.parameters, name) for name in names}
        before, self._before = self._before, chosen
        if self.parameters is None or slicer.mrmlScene.IsBatchProcessing():
            return  # a scene is read or restored
        known = self.parameters.emptied.split()
        emptied = [name for name in names if chosen[name] is None and (name in known or before.get(name) is not None)]
        if emptied != known:
            self.parameters.emptied = " ".join(emptied)

    def _set(self, name: str, node: Any) -> None:
        """Choose, not by the user: a selector that becomes empty so may be filled again."""
        if node is None:
            self._before[name] = None
        setattr(self.parameters, name, node)

    def _leave(self) -> None:
        """Where T1 is of another patient or examination than the one before, nothing else of that one is kept.

        Masks are chosen in a section that may be folded, and one without identifiers fits every patient on one grid.
        """
        t1 = None if self.parameters is None else self.parameters.t1
        if t1 is None or slicer.mrmlScene.IsImporting():  # a scene's file brings T1 with masks of its own
            return
        kept = self.parameters.parameterNode  # with the scene: it may change while another module is shown
        before, whose = kept.GetNodeReference(LAST), kept.GetAttribute(LAST)
        now = _whose(t1)
        if before is not t1 or whose != now:
            kept.SetNodeReferenceID(LAST, t1.GetID())
            kept.SetAttribute(LAST, now)
        isNext = whose is not None and (whose != now or now == NOBODY)
        stays = before is t1 or _staysWith(kept.GetNodeReference(SPOKEN) or before, t1)
        if not stays:
            kept.SetNodeReferenceID(SPOKEN, t1.GetID())
        if isNext and not stays:
            self._forget()
            for name in SCANS[1:]:
                scan = getattr(self.parameters, name)
                if scan is not None and self._staysBehind(name, scan, t1):
                    self._set(name, None)

    @staticmethod
    def _staysBehind(name: str, scan: Any, t1: Any) -> bool:
        """Whether a scan that was chosen with another patient's T1 is not kept with this one.

        What was made in the scene, "t2 registered", says nothing of a patient. T2 and FLAIR that say another one are
        told, since the next ones are chosen with T1; a real T1c would be compared with the result.
        """
        return saysNothing(scan, t1) or (name == "reference" and isOfOtherVisit(scan, t1))

    def _forget(self) -> None:
        self.parameters.emptied = ""  # what one patient's scans lack says nothing of another's
        for name in (*FURTHER, *MASKS):
            self._set(name, None)
        self.parameters.acrossStudies = False

    def letGo(self, node: Any) -> None:
        """Choose nothing in place of a node."""
        for name in CHOSEN if self.parameters is not None else ():
            if getattr(self.parameters, name) is node:
                self._set(name, None)

    def assign(self) -> None:
        """Fill selectors that are empty, from the examination of what is chosen; the user's choices stay."""
        if self.parameters is None:
            return
        emptied = self.parameters.emptied.split()
        for name, node in self._found(self.chosen().values()).items():
            if node is not None and getattr(self.parameters, name) is None and name not in emptied:
                setattr(self.parameters, name, node)

    def _found(self, chosen: Iterable[Any]) -> dict[str, Any]:
        """Among what the selectors list: label maps and other volumes that only inherit from scans are none."""
        volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        listed = [node for node in volumes
                  if node.GetClassName() == "vtkMRMLScalarVolumeNode" and not node.GetHideFromEditors()]  # fmt: skip
        found = assignInputs(listed, chosen=chosen, further=self._taken())
        return dict(zip(SCANS, found, strict=True)) | {name: getattr(found, name) for name in self._taken()}

    def reason(self, optional: Collection[str]) -> str | None:
        """Why these scans cannot be used yet; `optional`: those that the model can do without."""
        p = self.parameters
        if p is None:
            return _("The scene is closing.")
        return Inputs.readiness(p.t1, p.t2, p.flair, p.brainMask, p.reference, p.referenceMask, p.acrossStudies,
                                optional=optional, further=self.further())  # fmt: skip

    def tell(self, optional: Collection[str], cost: Callable[[str], str]) -> None:
        """Whose scans they are, which one is left out, and what is done about transforms and sequences.

        Args:
            optional: "t2" and "flair", where the model can do without.
            cost: Gives what was measured without one of them, in a sentence, or nothing.
        """
        ui, p = self.ui, self.parameters
        scans, further = list(self.chosen().values()), self.further()
        for name in FURTHER:
            for widget in (getattr(ui, f"{name}Selector"), getattr(ui, f"{name}SelectorTitle")):
                widget.setVisible(name in further)
        masks = [] if p is None or p.t1 is None else [getattr(p, name) for name in MASKS]
        notice = Inputs.maskNotice(p.t1, masks) if masks else None
        text = " ".join(one for one in (Inputs.whose(scans), notice) if one)
        frame = None if p is None else Frames.frameOf(p.t1)
        if frame is not None:
            text = f"{text} {_('T1 is {frame}.').format(frame=frame.title)}".strip()
        ui.whoseLabel.setText(text)
        ui.whoseLabel.setVisible(bool(text))
        masks = [] if p is None else told([(p.brainMask, False), (p.referenceMask, True)])
        ui.masksLabel.setText("\n".join(masks))
        ui.masksLabel.setVisible(bool(masks))
        missing = Inputs.leftOut(*scans[:3], optional, further)
        text = _("{scan} is left out: the picture is made without it, and will be less exact.")
        lines = [f"{text.format(scan=name)} {cost(name.lower())}".strip() for name in missing]
        ui.leftOutLabel.setText("\n".join(lines))
        ui.leftOutLabel.setVisible(bool(missing))
        ui.acrossBox.setVisible(Inputs.studiesDiffer(scans))
        ui.allFramesBox.setVisible(frame is not None and frame.count > 1)
        notice = None if p is None else Inputs.transformNotice(p.t1, p.t2, p.flair, further)
        ui.transformLabel.setText(notice or "")
        for widget in (ui.transformLabel, ui.hardenButton):
            widget.setVisible(notice is not None)

    def onAssign(self, *_arguments: Any) -> None:
        """Choose again by names and descriptions: of the patient whose T1 is chosen, whatever else was before."""
        if self.parameters is None:
            return
        t1 = self.parameters.t1
        spoken = None if t1 is None else self.parameters.parameterNode.GetNodeReference(SPOKEN) or t1
        found = self._found([] if spoken is None else [spoken])
        if found["t1"] is None:
            found = self._found([])
        elif found["t1"] is spoken:
            found["t1"] = t1
        self._takeAll(found)

    def _takeAll(self, nodes: dict[str, Any]) -> None:
        """Choose scans; masks of an earlier patient are not kept."""
        self.parameters.emptied = ""
        if nodes["t1"] is not self.parameters.t1:
            self._forget()
        for name in ("t1", *(name for name in nodes if name != "t1")):  # masks go when T1 comes
            self._set(name, nodes[name])

    def onSample(self, *_arguments: Any) -> None:
        """Load the sample case with its label, and choose it."""
        try:
            nodes = SampleCase.load(self.sample)
        except RuntimeError as error:
            hint = _("Install the extension again.")
            self._fail(SynthesisError(_("The sample case cannot be loaded."), hint, "machine", str(error)))
            return
        if self.parameters is not None:
            self._takeAll(nodes)

    def onHarden(self, *_arguments: Any) -> None:
        """Choose copies that have their transforms applied."""
        p = self.parameters
        names = [name for name in (*SCANS[:3], *self._taken()) if getattr(p, name) is not None
                 and getattr(p, name).GetParentTransformNode() is not None]  # fmt: skip
        kept = {name: getattr(p, name) for name in (*SCANS[1:], *FURTHER, *MASKS, "acrossStudies", "emptied")}
        for name, copy in zip(names, Inputs.hardenedCopies([getattr(p, name) for name in names]), strict=True):
            setattr(p, name, copy)
            kept.pop(name, None)
        for name, value in kept.items():  # the patient is the same
            setattr(p, name, value)
