"""What of a mask counts: the segments whose eye is open, the label that is the enhancing tumour; and how it is told."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import slicer
from D3MSynthesisLib.Assignment import isSynthetic
from D3MSynthesisLib.Runs import ROLE
from D3MSynthesisLib.Texts import _

ENHANCING = re.compile(r"(?i)(?<!non)(?<!non[-_ ])enhanc")
"""In the name of a label in a colour table."""
BRATS = {(1, 2, 3): 3, (1, 2, 4): 4}
"""The enhancing tumour's label among those of a label map, where the labels themselves say it: since 2023, before."""
MAX_LABELS = 64
"""A label map has fewer; other volumes have more (as the engine has it)."""
MAX_NAMED = 6
"""Segments or labels that are named in a sentence."""
MAX_KEPT = 8

_known: dict[int, tuple[int, ...] | None] = {}
"""Labels of images that were looked at last, by the time of their last change, which no two have."""


@dataclass(frozen=True)
class Counted:
    """What of a mask node counts."""

    segments: tuple[str, ...] = ()
    """Identifiers, of a segmentation."""
    label: int | None = None
    """Of a volume; None: whatever is not zero."""
    text: str = ""
    """A sentence for the panel, where it could be taken otherwise."""
    fault: str = ""
    """Why it cannot be told, in a sentence."""


def countedOf(node: Any, tumour: bool = True) -> Counted:
    """What of a mask counts.

    Args:
        node: Volume or segmentation.
        tumour: It is the enhancing tumour; else a brain mask, of which every label counts.
    """
    if node.IsA("vtkMRMLSegmentationNode"):
        return _segmentsOf(node)
    found = labelsOf(node)
    name = node.GetName() or ""
    if found is not None and len(found) <= 1:
        return Counted()
    if not tumour:
        what = _("Whatever is not zero in {name} counts.") if found is None else _("All labels of {name} count.")
        return Counted(text=what.format(name=name))
    way = _("Convert it to a segmentation, and leave the eye of the enhancing tumour's segment open alone.")
    if found is None:
        return Counted(fault=_("{name} is not a label map: choose a mask of the tumour.").format(name=name))
    names = _names(node)
    named = [label for label in found if ENHANCING.search(names.get(label, ""))]
    label = named[0] if len(named) == 1 else None if named else BRATS.get(found)
    listed = _listed(f"{value} ({names[value]})" if value in names else str(value) for value in found)
    if label is None:
        text = _("{name} holds the labels {labels}: which of them is the enhancing tumour is not known.")
        return Counted(fault=f"{text.format(name=name, labels=listed)} {way}")
    text = _("Of {name} label {label} counts as enhancing tumour, by its name in the colour table, of {labels}.")
    if not named:
        text = _("Of {name} label {label} counts as enhancing tumour, as in BraTS, of {labels}.")
    return Counted(label=label, text=text.format(name=name, label=label, labels=listed))


def _segmentsOf(node: Any) -> Counted:
    """Segments whose eye is open; all of a run's own mask, as its volume is told; all where every eye is shut."""
    segmentation, display, name = node.GetSegmentation(), node.GetDisplayNode(), node.GetName() or ""
    every = [segmentation.GetNthSegmentID(index) for index in range(segmentation.GetNumberOfSegments())]
    shown = [segment for segment in every if display is None or display.GetSegmentVisibility(segment)]
    own = node.GetAttribute(ROLE) == "segmentation"
    counted = every if own or not shown else shown

    def names(segments: list[str]) -> str:
        return _listed(segmentation.GetSegment(segment).GetName() or segment for segment in segments)

    if not every:
        text = ""
    elif own and len(shown) < len(every):
        text = _("All segments of {name} count, hidden ones, too: {names}.")
    elif own:  # a person may have drawn oedema in it
        text = _("All segments of {name} count: {names}.") if len(every) > 1 else ""
    elif not shown:
        text = _("All segments of {name} are hidden, and all count: {names}.")
    elif len(shown) < len(every):
        text = _("Of {name} the segments count whose eye is open: {names}; these do not: {others}.")
    elif len(every) > 1:
        text = _("All segments of {name} count: {names}. Shut the eye of those that should not.")
    elif not display or display.GetVisibility():
        text = ""
    else:
        text = _("{name} is hidden, and counts.")
    others = names([segment for segment in every if segment not in counted])
    text = text.format(name=name, names=names(counted), others=others)
    image = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
    if not own and isSynthetic(image):  # Segment Editor's first source volume
        drawn = _("{name} was begun on {image}, which is synthetic.").format(name=name, image=image.GetName())
        text = f"{text} {drawn}".strip()
    return Counted(tuple(counted), text=text)


def told(masks: Iterable[tuple[Any, bool]]) -> list[str]:
    """Sentences about what counts of masks, None among them: nodes, each with whether it is the tumour."""
    return [text for node, tumour in masks if node is not None and (text := countedOf(node, tumour).text)]


def labelsOf(volume: Any) -> tuple[int, ...] | None:
    """The values of a volume that are not zero, lowest first; None if it is no label map."""
    import numpy as np

    image = volume.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None:
        return ()
    when = image.GetMTime()
    if when not in _known:
        while len(_known) >= MAX_KEPT:
            _known.pop(next(iter(_known)))
        array = slicer.util.arrayFromVolume(volume)
        found = np.unique(array[array != 0])
        whole = len(found) <= 1 or (np.isfinite(found).all() and np.abs(found - np.rint(found)).max() <= 1e-3)
        _known[when] = tuple(int(np.rint(value)) for value in found) if whole and len(found) <= MAX_LABELS else None
        if len(found) == 1:  # whatever it is: a mask of 0 and 0.5 marks something, too
            _known[when] = (1,)
    return _known[when]


def _names(volume: Any) -> dict[int, str]:
    """Names of labels in the volume's own colour table; those that come with Slicer know nothing of a tumour."""
    display = volume.GetDisplayNode()
    table = display.GetColorNode() if display is not None else None
    if table is None or not table.GetSaveWithScene():
        return {}
    count = table.GetNumberOfColors()
    names = {value: table.GetColorName(value) or "" for value in labelsOf(volume) or () if 0 <= value < count}
    return {value: name for value, name in names.items() if name and name != str(value)}


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = len(every) - MAX_NAMED
    text = ", ".join(every[:MAX_NAMED])
    return _("{names} and {n} more").format(names=text, n=more) if more > 0 else text
