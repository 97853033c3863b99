"""What is said of a result beside it: which run it is, its volume, what the picture and the deformation are."""

from __future__ import annotations

import html
from datetime import datetime
from typing import Any

import slicer
from D3MSynthesisLib import Field, Identity, Pictures, Runs, Seen
from D3MSynthesisLib.Counted import told
from D3MSynthesisLib.Parameters import Deformation, Overlay, Picture
from D3MSynthesisLib.Texts import _


def stepsTip(steps: int) -> str:
    """Why the replay has so many positions."""
    if steps == 0:
        return _("The steps of this run were not kept: see the settings.")
    if steps == 1:
        return _("This run has one step; the quality Best has more.")
    return _("Replays the reverse process of the first sample, from its first estimate to its last; the Sequences "
             "toolbar follows.")  # fmt: skip


def runTitle(nodes: Any) -> str:
    """What tells a run from others: T1, patient and examination, time, quality, model, a scan that was left out."""
    content = nodes.provenance
    try:
        made = datetime.fromisoformat(content.get("created", "")).astimezone()
        time = made.strftime("%H:%M" if made.date() == datetime.now().astimezone().date() else "%Y-%m-%d %H:%M")
    except ValueError:
        time = ""
    quality, model = content.get("settings", {}).get("quality"), content.get("model", {}).get("name")
    parts = [Identity.identityOf(nodes.cemri).title, time, quality, model, nodes.without]
    return f"{nodes.title} ({', '.join(str(part) for part in parts if part)})"


def volumeText(nodes: Any, chosen: Any, changed: str) -> str:
    """The volume of the enhancing tumour, and what has to be known of it, as HTML.

    Args:
        nodes: The run.
        chosen: The T1 that is chosen for the next one, or None.
        changed: What is said where the run's inputs are no longer what they were.
    """
    form = _("Predicted enhancing tumour: <b>{ml} ml</b>")
    if nodes.edited:
        form = _("Enhancing tumour, edited: <b>{ml} ml</b>")
    elif nodes.given:
        form = _("Enhancing tumour, given: <b>{ml} ml</b>")
    text = form.format(ml=f"{nodes.enhancingVolumeMl:.1f}")
    if nodes.maskDeleted:
        text = _("The mask of the enhancing tumour was deleted: it has no volume.")
    else:
        text = "<br>".join([text, *map(html.escape, told([(nodes.segmentation, True)]))])
    if nodes.estimate:
        text += f"<br>{html.escape(nodes.estimate)}"
        if nodes.edited or nodes.maskDeleted:
            text += " " + _("This is the model's own: it does not know what was changed in the mask.")
    if chosen is not None and chosen is not nodes.t1:
        name = html.escape(Identity.withPatient(nodes.t1Name, nodes.cemri))
        text += "<br>" + _("This is a result of {name}, not of the T1 that is chosen now.").format(name=name)
    if changed:
        text += "<br>" + changed
    seen = Seen.runsShown(slicer.mrmlScene)
    others = [] if nodes.runID in seen else [*Seen.owners(slicer.mrmlScene, seen), *Seen.withoutRun(nodes)]
    if others:
        other = html.escape(", ".join(others))
        text += "<br>" + _("The views show another result: {name}.").format(name=other)
    return text


def pictureText(nodes: Any, picture: Picture, overlay: Overlay) -> str:
    """What is seen, which need not be what is chosen: a key, or another module, may have put T1 into the views."""
    said = []
    if Pictures.inspected(nodes):
        said.append(_sampleText(nodes.samples))
    elif picture is Picture.SAMPLE and not Pictures.canInspect(nodes):
        said.append(_("This run has not kept the picture that its deformation belongs to."))
    if overlay is Overlay.UNCERTAINTY and not Runs.alive(nodes.uncertainty):
        said.append(_("This run has one sample, so there is no uncertainty: choose the quality Best, or more samples."))
    elif not nodes.errorExpected and Pictures.inViews(nodes, nodes.uncertainty):
        said.append(_("Shown: by how much the samples differ. That hardly says how far off the image is: its model's "
                      "card does not know that."))  # fmt: skip
    if overlay is Overlay.WHOLE_TUMOUR and not Runs.alive(nodes.wholeTumour):
        said.append(_("This run's model does not look at the whole brain first, so there is none."))
    return " ".join(said)


def _sampleText(samples: int) -> str:
    if samples > 1:
        text = _("Shown: sample 1 of {n} by itself. The synthetic CEMRI is the mean of all {n}, with the model's gain "
                 "and smoothing.")  # fmt: skip
        return text.format(n=samples)
    return _("Shown: the sample by itself. The synthetic CEMRI has the model's gain and smoothing in addition.")


def fieldText(nodes: Any, mode: Deformation, step: int | None, factor: int) -> str:
    """Whose the field is, and how it is drawn: `factor` times larger than true (0: it cannot be drawn)."""
    if mode is Deformation.OFF or not Pictures.canInspect(nodes):
        return ""
    if mode in (Deformation.GRID, Deformation.ARROWS) and not factor:
        return _("The field cannot be drawn: a transform that is no matrix was hardened onto it.")
    if mode in (Deformation.MAGNITUDE, Deformation.JACOBIAN) and not Pictures.coloured(nodes):
        return ""
    which = _("Field of {step}, {sample}.").format(step=Field.stepName(nodes, step), sample=Pictures.sampleText(nodes))
    if mode is Deformation.MAGNITUDE:
        return which + " " + _("Colours: by how many millimetres it moved the image.")
    if mode is Deformation.JACOBIAN:
        return which + " " + _("Colours: above 1 tissue was gained, below 1 lost.")
    drawn = _("Drawn {n} times larger than true;") if factor > 1 else _("Drawn true to scale;")
    return f"{which} {drawn.format(n=factor)} " + _("it shows where tissue was moved to.")
