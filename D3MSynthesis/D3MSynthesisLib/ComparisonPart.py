"""The part of the panel about a real T1c: measured before or after the run, and faded to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import qt
from slicer.i18n import tr as _

import slicer
from D3MSynthesisLib import Captions, Comparison, Looks, Pictures
from D3MSynthesisLib.Belonging import isOfOtherVisit, namedOtherwise, sameExamination
from D3MSynthesisLib.Counted import told
from D3MSynthesisLib.Engine import SynthesisError
from D3MSynthesisLib.Frames import frameOf
from D3MSynthesisLib.Handlers import connect
from D3MSynthesisLib.Identity import identityOf, withPatient
from D3MSynthesisLib.Inputs import doubtfulMask
from D3MSynthesisLib.MaskSources import isOfOtherRuns
from D3MSynthesisLib.Runs import alive

SAME_ML = 0.05
"""Volumes of a mask that differ by less are told alike."""
NAME_ENDS = 12
"""Characters of a long name's ends that are told."""


@dataclass(frozen=True)
class Standing:
    """How a comparison's numbers stand now: what they are of may be another one by now, or gone."""

    maskMl: float | None = None
    """Volume of the mask as it is now."""
    maskChanged: bool = False
    """The mask is another one, whatever its volume."""
    maskDeleted: bool = False
    moved: bool = False
    """The real T1c is another one, or elsewhere."""
    deleted: bool = False
    """The real T1c is no longer in the scene."""
    tumourChanged: bool = False
    """The real tumour is another one, or elsewhere, or no longer in the scene."""
    tumour: str = ""
    """Name of the real tumour; empty where it was estimated."""
    scale: float = 1.0
    """Of volumes: a transform that the run is under may have one."""


def comparisonRows(comparison: dict[str, Any] | None, now: Standing) -> list[tuple[str, str, str]]:
    """Rows of the table beside a real T1c: name, synthetic image, what to compare it with; or a sentence alone."""
    if now.deleted and comparison:
        return [(_("The real T1c that was compared is no longer in the scene."), "", "")]
    if now.moved and comparison:
        return [(_("The real T1c has moved or changed since: press Compare again."), "", "")]
    numbers = {
        name: value * now.scale if name.endswith("_ml") and isinstance(value, (int, float)) else value
        for name, value in (comparison or {}).items()
    }
    measured = numbers.get("predicted_enhancing_volume_ml")
    covered = numbers.get("covered_share")
    other = now.maskMl is not None and measured is not None and abs(now.maskMl - measured) > SAME_ML
    other = other and covered is None  # of an earlier version, which measured all of the mask
    guessed = numbers.get("real_enhancement") == "estimated"

    def text(name: str, form: str, what: str = "{n}") -> str:
        value = numbers.get(name)
        return what.format(n=format(value, form)) if isinstance(value, (int, float)) else ""

    copied, real = _("{n} (copied T1)"), _("{n} (real T1c, estimated)") if guessed else _("{n} (real)")
    rows = [
        (_("PSNR, brain (dB)"), text("psnr_brain", ".1f"), text("psnr_brain_t1", ".1f", copied)),
        (_("SSIM, brain"), text("ssim_brain", ".3f"), text("ssim_brain_t1", ".3f", copied)),
    ]
    if now.tumourChanged:
        rows.append((_("Real tumour changed since"), _("compare again"), ""))
    if now.maskDeleted and comparison:
        volume = "" if now.tumourChanged else text("real_enhancing_volume_ml", ".1f", real)
        rows.append((_("Enhancing tumour (ml)"), _("mask deleted"), volume))
    elif now.maskChanged or other or (comparison and measured is None):
        rows.append((_("Mask changed since"), _("compare again"), ""))
    elif not now.tumourChanged:
        against = _("estimated") if guessed else now.tumour
        rows += [
            (
                _("Enhancing tumour (ml)"),
                text("predicted_enhancing_volume_ml", ".1f"),
                text("real_enhancing_volume_ml", ".1f", real),
            ),
            (_("falsely enhancing (ml)"), text("false_positive_ml", ".1f"), against),
            (_("missed (ml)"), text("false_negative_ml", ".1f"), against),
        ]
    sentences = ["" if now.tumourChanged else numbers.get("real_tumour_counted", "")]
    if covered is not None and (covered < Comparison.WHOLE or _cut(now.maskMl, measured)):
        text = _("The real T1c covers {n} % of the brain: the numbers are of that part.")
        sentences.insert(0, text.format(n=int(100 * covered)))
    return [row for row in rows if row[1]] + [(text, "", "") for text in sentences if text]


def _cut(whole: float | None, measured: float | None) -> bool:
    """Whether a part of the mask was not measured."""
    return whole is not None and measured is not None and whole - measured > SAME_ML


def _short(name: str) -> str:
    """A node's name for a narrow column: both ends of a long one."""
    return name if len(name) <= 2 * NAME_ENDS + 1 else f"{name[:NAME_ENDS]}…{name[-NAME_ENDS:]}"


class ComparisonPart:
    """Table, fading, and the comparison of a run with a T1c that was chosen after it.

    Args:
        ui: Widgets by name.
        fail: Shows an error, or takes it away.
        faded: Called with the share of the real image, 0 to 1.
        changed: Called when the run was compared again.
        confirm: Asks the user a question.
    """

    def __init__(
        self,
        ui: Any,
        fail: Callable[[SynthesisError | None], None],
        faded: Callable[[float], None],
        changed: Callable[[], None],
        confirm: Callable[[str], bool],
    ) -> None:
        self.ui, self._fail, self._faded, self._changed, self._confirm = ui, fail, faded, changed, confirm
        self.nodes: Any = None
        self.referenceChanged = False
        """Whether the real T1c is no longer what, or where, it was when it was compared."""
        self.tumourChanged = False
        """The same of the real tumour."""
        self.inputsChanged: tuple[str, ...] = ()
        """Which scans and masks are no longer what, or where, they were when the run was started, by role."""
        self.parameters: Any = None
        self._filling = False
        table = ui.comparisonTable
        table.setColumnCount(3)
        table.setHorizontalHeaderLabels(["", _("synthetic"), _("compared with")])
        table.verticalHeader().hide()
        table.setWordWrap(False)
        table.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
        for column in (1, 2):
            table.horizontalHeader().setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
        connect(ui.fadeSlider, "valueChanged(double)", self.onFade)
        connect(ui.compareButton, "clicked(bool)", self.onCompare)

    def show(self, nodes: Any, parameters: Any) -> None:
        """Fill the part with a run."""
        self.nodes, self.parameters = nodes, parameters
        self.unfade()
        self.look()
        self.tell()

    def look(self) -> bool:
        """Look whether scans and tumour are what they were; returns whether the answer is another than before."""
        before = (self.referenceChanged, self.tumourChanged, self.inputsChanged)
        there = self.nodes is not None and alive(self.nodes.cemri)
        found = Comparison.lookAtScans(self.nodes) if there else {}
        self.referenceChanged = found.pop("reference", False)
        self.inputsChanged = tuple(name for name, changed in found.items() if changed)
        self.tumourChanged = there and Comparison.tumourChanged(self.nodes)
        return (self.referenceChanged, self.tumourChanged, self.inputsChanged) != before

    def changedText(self) -> str:
        """A sentence about scans and masks that are no longer what the run was made from; else empty."""
        names = [Captions.MADE_FROM[name] for name in self.inputsChanged]
        if not names:
            return ""
        scans = _(" and ").join(part for part in (", ".join(names[:-1]), names[-1]) if part)
        text = _("{scans} has moved or changed since: it is no longer what this result was made from.")
        if len(names) > 1:
            text = _("{scans} have moved or changed since: they are no longer what this result was made from.")
        text = text.format(scans=scans)
        return text[0].upper() + text[1:]

    def tell(self) -> None:
        """Numbers of the run, and whether it can be compared with what is chosen now."""
        nodes, table = self.nodes, self.ui.comparisonTable
        rows = [] if nodes is None else comparisonRows(nodes.comparison, self._standing())
        of = nodes.reference if nodes is not None and alive(nodes.reference) else None
        if rows and rows[0][1] and of is not None and self._otherIsChosen():
            text = _("These are numbers of {compared}: press Compare for those of {chosen}, which is chosen now.")
            compared, chosen = (withPatient(one.GetName() or "", one) for one in (of, self.parameters.reference))
            rows.insert(0, (text.format(compared=compared, chosen=chosen), "", ""))
        if rows and of is not None and self._isOfOtherExamination(of):
            rows.insert(0, (_("The real T1c is of another examination than T1."), "", ""))
        table.setVisible(bool(rows))
        table.setRowCount(len(rows))
        named = _("compared with") if of is None else _("compared with {name}").format(name=_short(of.GetName() or ""))
        table.horizontalHeaderItem(2).setText(named)
        table.horizontalHeaderItem(2).setToolTip("" if of is None else of.GetName() or "")
        table.clearSpans()
        for row, texts in enumerate(rows):
            for column, text in enumerate(texts):
                table.setItem(row, column, qt.QTableWidgetItem(text))
            if not texts[1]:
                table.setSpan(row, 0, 1, 3)  # a sentence
                table.item(row, 0).setToolTip(texts[0])
        table.setWordWrap(any(not texts[1] for texts in rows))
        table.resizeRowsToContents()
        height = sum(table.rowHeight(row) for row in range(len(rows)))
        table.setFixedHeight(height + (table.rowHeight(0) if rows else 0) + 6)  # the header is one row high
        self.ui.fadeSlider.setEnabled(of is not None)
        self.ui.fadeSlider.setToolTip("" if of is None else _("Fade to {name}.").format(name=of.GetName()))
        chosen = None if self.parameters is None else self.parameters.reference
        self.ui.compareButton.setEnabled(nodes is not None and chosen is not None)
        self.ui.compareButton.setToolTip(
            _("Choose a real T1c among the inputs, and its tumour if you have it.") if chosen is None else
            " ".join([_("Measure this run, with its mask as it is now, against {name}.").format(name=chosen.GetName()),
                      *told([(self.parameters.referenceMask, True)])])
        )  # fmt: skip

    def _isOfOtherExamination(self, reference: Any) -> bool:
        """Whether a real T1c was allowed that is of another day: so its numbers stay told."""
        studies = {identityOf(node).study for node in (reference, self.nodes.cemri)} - {""}
        return len(studies) > 1

    def _standing(self) -> Standing:
        nodes = self.nodes
        tumour = nodes.referenceMask
        return Standing(
            None if nodes.maskDeleted else nodes.enhancingVolumeMl, not nodes.maskCompared, nodes.maskDeleted,
            self.referenceChanged, not alive(nodes.reference), self.tumourChanged,
            _short(tumour.GetName() or "") if alive(tumour) else "", Comparison.scaleOf(nodes),
        )  # fmt: skip

    def _otherIsChosen(self) -> bool:
        """Whether another real T1c than the compared one is chosen now: of a frame of a sequence a copy was kept."""
        chosen = None if self.parameters is None else self.parameters.reference
        if chosen is None or chosen is self.nodes.reference:
            return False
        frame = frameOf(chosen)
        kept = None if frame is None else f"{chosen.GetName()} ({frame.title})"
        return kept is None or not (self.nodes.reference.GetName() or "").startswith(kept)

    def onCompare(self, *_arguments: Any) -> None:
        """Measure the run against the real T1c that is chosen now."""
        if self.nodes is None or self.parameters is None or self.parameters.reference is None:
            return
        doubt = self._doubtful()
        if doubt is not None and not self._confirm(
            _("Nothing says that {scan} is of the patient and date of {run}. Compare them?").format(
                scan=doubt.GetName(), run=self.nodes.cemri.GetName()
            )
        ):
            return
        try:
            with slicer.util.WaitCursor():
                p = self.parameters
                Comparison.compareRun(self.nodes, p.reference, p.referenceMask, p.acrossStudies)
                Looks.windowInputs(self.nodes)
                if alive(self.nodes.error):
                    Pictures.makeError(self.nodes)  # it may have been another real T1c's
        except SynthesisError as error:
            self._fail(error)
        else:
            self._fail(None)
            self.look()
            self.tell()
            self._changed()

    def _doubtful(self) -> Any:
        """What may be of another patient of real T1c and real tumour, or None: the next patient's may be chosen by now.

        Where both have identifiers, `compareRun` compares these.
        """
        t1, p = self.nodes.t1, self.parameters
        if not alive(t1):
            return None
        known = identityOf(t1).known
        for node in (None if p.reference is self.nodes.reference else p.reference, p.referenceMask):
            if node is None or (known and identityOf(node).known):
                continue
            if p.t1 is not t1:
                doubtful = not sameExamination(node, t1)
            elif node is p.reference:
                doubtful = isOfOtherVisit(node, t1) or isOfOtherRuns(node, t1) or namedOtherwise(node, t1)
            else:
                doubtful = doubtfulMask(node, t1)
            if doubtful:
                return node
        return None

    def unfade(self, value: float = 0.0) -> None:
        """Back to the synthetic image, or to how much of the real one the views have, without telling."""
        self._filling = True
        self.ui.fadeSlider.setValue(value)
        self._filling = False

    def onFade(self, value: float) -> None:
        """Fade from the synthetic to the real image."""
        if self.nodes is not None and not self._filling:
            self._faded(value)
