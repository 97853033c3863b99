"""The part of the panel about the mask: threshold, edits by a person, and a new picture from the mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

import slicer
from D3MSynthesisLib import Inputs, Masks
from D3MSynthesisLib.Counted import countedOf
from D3MSynthesisLib.Grids import voxelMl
from D3MSynthesisLib.Handlers import connect, guarded
from D3MSynthesisLib.Runs import alive

LEAST_SCALE = 0.01
"""Share of a volume: a transform that changes it by no more is not told."""


class MaskPart(VTKObservationMixin):
    """Threshold, edits and their volume.

    Args:
        ui: Widgets by name.
        confirm: Asks the user a question.
        changed: Called when the mask is another one.
        steer: Called with a mask node, to make a picture from it.
    """

    def __init__(
        self, ui: Any, confirm: Callable[[str], bool], changed: Callable[[], None], steer: Callable[[Any], None]
    ) -> None:
        VTKObservationMixin.__init__(self)
        self.ui, self._confirm, self._changed, self._steer = ui, confirm, changed, steer
        self.nodes: Any = None
        self.parameters: Any = None
        self._filling = False
        self._coming = False
        self._seen: tuple[Any, ...] = ()
        """Of the mask what is told: others may have noticed an edit first."""
        self._voxelMl = 0.0
        """Volume of a voxel when the mask was measured."""
        connect(ui.thresholdSlider, "valueChanged(double)", self.onThreshold)
        connect(ui.steerButton, "clicked(bool)", self.onSteer)

    def show(self, nodes: Any, parameters: Any) -> None:
        """Fill the part with a run, and follow its mask."""
        self.removeObservers()
        self.nodes, self.parameters = nodes, parameters
        if nodes is None:
            self.ui.volumeLabel.setToolTip("")
            return
        if alive(nodes.cemri):
            Masks.noticeEdit(nodes)  # in Segment Editor, say: nobody looks while another module is open
            self._seen = self._state()
        self._slide(nodes.threshold)
        self.ui.thresholdSlider.setEnabled(alive(nodes.probability) and not nodes.given)
        if alive(nodes.segmentation):
            segmentation, kind = nodes.segmentation.GetSegmentation(), slicer.vtkSegmentation
            for event in (kind.SourceRepresentationModified, kind.SegmentAdded, kind.SegmentRemoved):
                self.addObserver(segmentation, event, self._onEdited)
        self._tell()

    def _slide(self, value: float) -> None:
        self._filling = True
        self.ui.thresholdSlider.setValue(value)
        self._filling = False

    def _onEdited(self, _caller: Any, _event: str) -> None:
        if not self._coming:  # an effect of Segment Editor announces several changes at once
            self._coming = True
            qt.QTimer.singleShot(0, guarded(self.look))

    def look(self) -> None:
        """See whether a person has changed the mask; its volume follows."""
        self._coming = False
        if self.nodes is None:
            return  # the panel may be gone by now
        if self.nodes.cemri.GetScene() is not None:
            Masks.noticeEdit(self.nodes)
            before, self._seen = self._seen, self._state()
            if self._seen != before:
                self._changed()
        self._tell()

    def lookAtScale(self) -> None:
        """The run was moved: under a transform with scale its volume is another one."""
        if self.nodes is not None and voxelMl(self.nodes.grid) != self._voxelMl:
            self.look()

    def _state(self) -> tuple[Any, ...]:
        self._voxelMl = voxelMl(self.nodes.grid)
        return self.nodes.edited, self.nodes.enhancingVolumeMl, self.nodes.maskDigest

    def _tell(self) -> None:
        text = ""
        nodes = self.nodes
        if nodes is not None:
            if not alive(nodes.segmentation):
                text = _("The mask was deleted from the scene.")
            elif nodes.segmentation.GetSegmentation().GetSegment(nodes.segmentID) is None:
                text = _("The predicted segment was deleted: move the threshold to have it again.")
            elif nodes.edited:
                text = _("Edited: this is no longer what the model predicted.")
            elif nodes.given:
                text = _("Given: the picture was made from this mask.")
        self.ui.editedLabel.setText(text)
        self.ui.editedLabel.setVisible(bool(text))
        self.ui.volumeLabel.setToolTip(self._scaledText())

    def _scaledText(self) -> str:
        """A sentence where a transform with scale makes the volume that is told another one than that of the files."""
        nodes = self.nodes
        if nodes is None or not alive(nodes.cemri) or nodes.maskDeleted:
            return ""
        if abs(voxelMl(nodes.grid) / voxelMl(nodes.grid, world=False) - 1) <= LEAST_SCALE:
            return ""
        text = _("The volume is as scaled by the transform that T1 is under. What is saved has {ml} ml, without it.")
        return text.format(ml=f"{Masks.savedVolumeMl(nodes):.1f}")

    def onThreshold(self, value: float) -> None:
        """The mask follows the threshold, the volume beside it; what a person drew is not wiped without a question."""
        nodes = self.nodes
        if nodes is None or self._filling or not alive(nodes.probability) or not alive(nodes.segmentation):
            return
        if self._coming:
            self.look()
        question = self._question()
        if question and not self._confirm(question):
            self._slide(nodes.threshold)
            return
        Masks.setThreshold(nodes, value)
        self._changed()
        self._tell()

    def _question(self) -> str:
        """What is asked before the mask is made again; empty where nobody has drawn in it."""
        edited, added = Masks.drawnBy(self.nodes)
        if added:
            text = _("Segments were added to the mask ({names}). Make it again from the probability, and lose them?")
            return text.format(names=", ".join(added))
        return _("The mask was edited. Make it again from the probability, and lose the edits?") if edited else ""

    # A picture from the mask

    def offer(self, card: Any, reason: str | None, running: bool) -> None:
        """Offer the picture from a mask; the model's card says whether its picture follows a mask by itself.

        Args:
            card: The chosen model's, None without one.
            reason: Why the run's scans cannot be used.
            running: Whether a synthesis is running.
        """
        for widget in (self.ui.steerButton, self.ui.steerSelector, self.ui.steerSelectorTitle):
            widget.setVisible(card is not None)
        given = self._given()
        counted = None if given is None else countedOf(given)
        told = "" if counted is None or card is None else counted.fault or counted.text
        if counted is not None and card is not None and alive(self.nodes.t1):  # the inputs are folded away
            told = " ".join(text for text in (told, Inputs.maskNotice(self.nodes.t1, [given])) if text)
        self.ui.steerLabel.setText(told)
        self.ui.steerLabel.setVisible(bool(told))
        able = counted is not None and not counted.fault
        self.ui.steerButton.setEnabled(card is not None and not running and reason is None and able)
        way = (
            _("This model's picture follows a mask by itself.")
            if card is not None and card.mask_steering
            else _("This model's picture does not follow a mask by itself: it is changed afterwards, and says so.")
        )
        text = _("Make a picture that enhances where this mask is, and nowhere else, from the same scans.")
        self.ui.steerButton.setToolTip(reason or f"{text} {way}")

    def _given(self) -> Any:
        if self.nodes is None or self.parameters is None:
            return None
        chosen = self.parameters.enhancementMask
        return chosen if chosen is not None else (self.nodes.segmentation if alive(self.nodes.segmentation) else None)

    def onSteer(self, *_arguments: Any) -> None:
        """Make a picture from the mask."""
        mask = self._given()
        if mask is not None:
            self._steer(mask)
