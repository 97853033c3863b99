"""The part of the panel about models: which there are, what their cards say, import and removal."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

import slicer
from D3MSynthesisLib.Assignment import FURTHER
from D3MSynthesisLib.Engine import SynthesisError
from D3MSynthesisLib.Handlers import connect

ROWS = ("psnr_brain", "psnr_tumour", "ssim_brain", "ssim_tumour", "dice", "false_positive_ml", "false_negative_ml")
"""Rows of a card's validation that are told in the panel; the card has them all."""


WITHOUT_ROWS = {"psnr_tumour": ".1f", "dice": ".2f", "false_negative_ml": ".1f"}
"""What is told of a scan that is left out, and how it is written."""


def rowName(name: str) -> str:
    """What the panel calls a measured quantity."""
    return {
        "psnr_brain": _("PSNR, brain (dB)"),
        "ssim_brain": _("SSIM, brain"),
        "psnr_tumour": _("PSNR, tumour (dB)"),
        "ssim_tumour": _("SSIM, tumour"),
        "dice": _("Dice of the mask"),
        "false_positive_ml": _("falsely enhancing (ml)"),
        "false_negative_ml": _("missed enhancement (ml)"),
    }.get(name, name.replace("_", " "))


def furtherOf(card: Any) -> tuple[str, ...]:
    """What a model takes beside T1, T2 and FLAIR: "adc", "swi"."""
    return tuple(name for name in card.contrasts if name in FURTHER)


def cardText(card: Any) -> str:
    """A model's card in short, as HTML; what the card says is text, never markup."""

    def paragraph(title: str, text: str) -> str:
        return f"<p><b>{html.escape(title)}</b> {html.escape(text)}</p>" if text else ""

    rows = "".join(
        f"<tr><td>{html.escape(rowName(row.name))}</td><td>&nbsp;{row.mean:.3g} ± {row.sd:.2g}</td>"
        f"<td>&nbsp;{'' if row.t1_copy is None else format(row.t1_copy, '.3g')}</td></tr>"
        for row in card.validation
        if row.name in ROWS
    )
    head = f"<tr><td></td><td>&nbsp;{html.escape(_('model'))}</td><td>&nbsp;{html.escape(_('copied T1'))}</td></tr>"
    return "".join(
        (
            f"<p><b>{html.escape(card.title)}</b></p>",
            paragraph(_("Use:"), card.intended_use),
            paragraph(_("Expects:"), card.expected),
            paragraph(_("One of these may be left out:"), ", ".join(name.upper() for name in card.optional_contrasts)),
            paragraph(_("Takes as well, if there:"), ", ".join(name.upper() for name in furtherOf(card))),
            paragraph(_("Limits:"), card.limits),
            paragraph(_("Validated:"), card.validation_note),
            f"<table>{head}{rows}</table>" if rows else "",
            paragraph(_("Trained on:"), card.data),
            paragraph(_("Licence of the weights:"), card.licence),
            paragraph(_("Cite:"), card.citation),
        )
    )


class ModelPart:
    """Fills the list of models and shows the card of the chosen one.

    Args:
        ui: Widgets by name.
        choose: Called with a model's name when the user chose it.
        confirm: Asks the user a question.
        fail: Shows an error, or takes it away.
    """

    def __init__(
        self,
        ui: Any,
        choose: Callable[[str], None],
        confirm: Callable[[str], bool],
        fail: Callable[[SynthesisError | None], None],
    ) -> None:
        self.ui, self._choose, self._confirm, self._fail = ui, choose, confirm, fail
        self.names: list[str] = []
        self.card: Any = None
        connect(ui.modelBox, "activated(int)", self.onChosen)
        connect(ui.importButton, "clicked(bool)", self.onImport)
        connect(ui.openModelsButton, "clicked(bool)", self.onOpen)
        connect(ui.removeModelButton, "clicked(bool)", self.onRemove)

    def show(self, name: str) -> None:
        """List the models that are there now, and show the card of this one (empty: the one that ships)."""
        from d3m.errors import D3MError
        from d3m.models import store

        entries = store.list_models()
        self.names = [entry.name for entry in entries]
        wanted = name or store.DEFAULT_NAME
        box = self.ui.modelBox
        blocked = box.blockSignals(True)
        box.clear()
        box.addItems(self.names + ([] if wanted in self.names else [_("{name} (missing)").format(name=wanted)]))
        box.setCurrentIndex(self.names.index(wanted) if wanted in self.names else len(self.names))
        box.blockSignals(blocked)
        self.ui.removeModelButton.setEnabled(any(entry.name == wanted and entry.removable for entry in entries))
        self.card = None
        try:
            self.card = store.read_card(store.find_model(wanted))
        except D3MError as error:
            self.ui.cardText.setHtml(html.escape(f"{error.message} {error.hint}"))
        else:
            self.ui.cardText.setHtml(cardText(self.card))

    @property
    def optional(self) -> tuple[str, ...]:
        """Of "t2" and "flair" those that the chosen model can do without, one at a time."""
        return () if self.card is None else tuple(self.card.optional_contrasts)

    @property
    def further(self) -> tuple[str, ...]:
        """What the chosen model takes beside T1, T2 and FLAIR."""
        return () if self.card is None else furtherOf(self.card)

    def costWithout(self, contrast: str) -> str:
        """What leaving "t2" or "flair" out has cost on the card's patients, in a sentence; empty if it is not known."""
        card = self.card
        found = [one.rows for one in card.validation_without if one.contrast == contrast] if card is not None else []
        if not found:
            return ""
        whole, less = ({row.name: row for row in rows} for rows in (card.validation, found[0]))
        parts = [
            _("{quantity} {less} instead of {whole}").format(
                quantity=rowName(name), less=format(less[name].mean, form), whole=format(whole[name].mean, form)
            )
            for name, form in WITHOUT_ROWS.items()
            if name in whole and name in less
        ]
        if not parts:
            return ""
        count = max(less[name].n for name in WITHOUT_ROWS if name in whole and name in less)
        return _("On {n} patients: {parts}.").format(n=count, parts=", ".join(parts))

    def reason(self, name: str) -> str | None:
        """Why the chosen model cannot be used; None if it can."""
        if self.card is not None:
            return None
        return _("The model {name} cannot be used: choose another one.").format(name=name or "default")

    def onChosen(self, index: int) -> None:
        """The user chose a model."""
        if 0 <= index < len(self.names):
            self._choose(self.names[index])

    def onImport(self, *_arguments: Any) -> None:
        """Ask for a model's folder and copy it."""
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Folder of a model"))
        if folder:
            self.importFrom(Path(folder))

    def importFrom(self, folder: Path) -> None:
        """Copy a model and choose it."""
        from d3m.errors import D3MError
        from d3m.models import store

        try:
            entry = store.import_model(folder)
        except D3MError as error:
            self._fail(SynthesisError(error.message, error.hint, error.kind))
        else:
            self._fail(None)
            self._choose(entry.name)

    def onOpen(self, *_arguments: Any) -> None:
        """Show the user's folder of models in the system's file manager."""
        from d3m.models import store

        folder = store.user_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = _("The folder of models cannot be made.")
            self._fail(SynthesisError(message, _("Check the folder's permissions."), "machine", str(error)))
        else:
            qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder)))

    def onRemove(self, *_arguments: Any) -> None:
        """Remove the chosen model, after a question."""
        from d3m.errors import D3MError
        from d3m.models import store

        index = self.ui.modelBox.currentIndex
        if not 0 <= index < len(self.names):
            return
        name = self.names[index]
        if not self._confirm(_("Remove the imported model {name} from this computer?").format(name=name)):
            return
        try:
            store.remove_model(name)
        except D3MError as error:
            self._fail(SynthesisError(error.message, error.hint, error.kind))
        else:
            self._choose("")
