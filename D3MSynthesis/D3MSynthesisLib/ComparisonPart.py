"""The part of the panel about a real T1c: measured before or after the run, and faded to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
from slicer.i18n import tr as _

import slicer
from D3MSynthesisLib import Comparison, Looks, Pictures
from D3MSynthesisLib.Engine import SynthesisError
from D3MSynthesisLib.Handlers import connect
from D3MSynthesisLib.Identity import groupOf, identityOf
from D3MSynthesisLib.Runs import alive

SAME_ML = 0.05
"""Volumes of a mask that differ by less are told alike."""


def comparisonRows(
    comparison: dict[str, Any] | None,
    maskMl: float | None = None,
    changed: bool = False,
    moved: bool = False,
    tumour: bool = False,
) -> list[tuple[str, str, str]]:
    """Rows of the table beside a real T1c: name, synthetic image, what to compare it with.

    Args:
        comparison: The run's.
        maskMl: Volume of the mask as it is now: numbers of a mask that was another one are not told.
        changed: The mask is another one, whatever its volume.
        moved: The real T1c is another one, or elsewhere.
        tumour: The real tumour is another one, or elsewhere.
    """
    if moved and comparison:
        return [(_("The real T1c has moved or changed since: press Compare again."), "", "")]
    numbers = comparison or {}
    measured = numbers.get("predicted_enhancing_volume_ml")
    changed = changed or (maskMl is not None and measured is not None and abs(maskMl - measured) > SAME_ML)
    guessed = numbers.get("real_enhancement") == "estimated"

    def text(name: str, form: str, what: str = "{n}") -> str:
        value = numbers.get(name)
        return what.format(n=format(value, form)) if isinstance(value, (int, float)) else ""

    copied, real = _("{n} (copied T1)"), _("{n} (real T1c, estimated)") if guessed else _("{n} (real)")
    rows = [
        (_("PSNR, brain (dB)"), text("psnr_brain", ".1f"), text("psnr_brain_t1", ".1f", copied)),
        (_("SSIM, brain"), text("ssim_brain", ".3f"), text("ssim_brain_t1", ".3f", copied)),
    ]
    if changed:
        rows.append((_("Mask changed since"), _("compare again"), ""))
    if tumour:
        rows.append((_("Real tumour changed since"), _("compare again"), ""))
    if changed or tumour:
        return [row for row in rows if row[1]]
    rows += [
        (
            _("Enhancing tumour (ml)"),
            text("predicted_enhancing_volume_ml", ".1f"),
            text("real_enhancing_volume_ml", ".1f", real),
        ),
        (_("falsely enhancing (ml)"), text("false_positive_ml", ".1f"), _("estimated") if guessed else ""),
        (_("missed (ml)"), text("false_negative_ml", ".1f"), _("estimated") if guessed else ""),
    ]
    return [row for row in rows if row[1]]


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
        self.t1Changed = False
        """Whether T1 is no longer what, or where, it was when the run was started."""
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
        before = (self.referenceChanged, self.tumourChanged, self.t1Changed)
        there = self.nodes is not None and alive(self.nodes.cemri)
        found = Comparison.lookAtScans(self.nodes) if there else {"reference": False, "t1": False}
        self.referenceChanged, self.t1Changed = found["reference"], found["t1"]
        self.tumourChanged = there and Comparison.tumourChanged(self.nodes)
        return (self.referenceChanged, self.tumourChanged, self.t1Changed) != before

    def tell(self) -> None:
        """Numbers of the run, and whether it can be compared with what is chosen now."""
        nodes, table = self.nodes, self.ui.comparisonTable
        rows = []
        if nodes is not None:
            rows = comparisonRows(
                nodes.comparison,
                nodes.enhancingVolumeMl,
                not nodes.maskCompared,
                self.referenceChanged,
                self.tumourChanged,
            )
        table.setVisible(bool(rows))
        table.setRowCount(len(rows))
        for row, texts in enumerate(rows):
            for column, text in enumerate(texts):
                table.setItem(row, column, qt.QTableWidgetItem(text))
        table.clearSpans()
        table.setWordWrap(self.referenceChanged)
        if self.referenceChanged and rows:
            table.setSpan(0, 0, 1, 3)  # a sentence
            table.item(0, 0).setToolTip(rows[0][0])
        table.resizeRowsToContents()
        height = sum(table.rowHeight(row) for row in range(len(rows)))
        table.setFixedHeight(height + (table.rowHeight(0) if rows else 0) + 6)  # the header is one row high
        self.ui.fadeSlider.setEnabled(nodes is not None and alive(nodes.reference))
        chosen = None if self.parameters is None else self.parameters.reference
        self.ui.compareButton.setEnabled(nodes is not None and chosen is not None)
        self.ui.compareButton.setToolTip(
            _("Choose a real T1c among the inputs, and its tumour if you have it.") if chosen is None else
            _("Measure this run, with its mask as it is now, against {name}.").format(name=chosen.GetName())
        )  # fmt: skip

    def onCompare(self, *_arguments: Any) -> None:
        """Measure the run against the real T1c that is chosen now."""
        if self.nodes is None or self.parameters is None or self.parameters.reference is None:
            return
        doubt = self._doubtful()
        if doubt is not None and not self._confirm(
            _("Nothing says that {scan} is of the patient of {run}. Compare them?").format(
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
        if not alive(t1) or p.t1 is t1:
            return None
        mine, known = groupOf(t1), identityOf(t1).known
        for node in (None if p.reference is self.nodes.reference else p.reference, p.referenceMask):
            if node is None or (known and identityOf(node).known):
                continue
            if groupOf(node) != mine or not mine[1]:
                return node
        return None

    def unfade(self) -> None:
        """Back to the synthetic image, without telling."""
        self._filling = True
        self.ui.fadeSlider.setValue(0)
        self._filling = False

    def onFade(self, value: float) -> None:
        """Fade from the synthetic to the real image."""
        if self.nodes is not None and not self._filling:
            self._faded(value)
