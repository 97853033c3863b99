"""Two dates of one patient, as `d3m follow-up` wrote them: read, put into the scene, shown side by side. MRML alone."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
from D3MSynthesisLib import Captions, Looks, Pictures, Strangers, Views
from D3MSynthesisLib.Assignment import SYNTHETIC
from D3MSynthesisLib.ExportTags import tagForExport
from D3MSynthesisLib.Runs import DATES, PREFIX, ROLE, RUN, Nodes, alive, findRuns, nodesOf
from D3MSynthesisLib.Scene import MAX_NAME
from D3MSynthesisLib.Seen import composites, sliceNodes
from D3MSynthesisLib.Texts import _

NAMES = dict(
    zip(DATES, ("earlier synthetic CEMRI", "later synthetic CEMRI", "synthetic predicted change"), strict=True)
)
"""Roles of the nodes, and what their names end in."""
FILES = {"earlierDate": "earlier_cemri", "laterDate": "later_cemri", "changeMap": "change"}
LABELS = {"stable": 1, "new": 2, "vanished": 3}
COLOURS = {"stable": (1.0, 0.82, 0.3), "new": (1.0, 0.3, 0.3), "vanished": (0.3, 0.65, 1.0)}
"""As in the figure of `d3m follow-up`."""
CHANGE = PREFIX + "Change"
"""Attribute of the earlier image: what is said of the change."""
OPACITY = 0.5
"""Of the map: what enhances is seen through it."""
MAX_SENTENCE = 300
"""Characters of a sentence from the file."""
WRITES_IT = "Choose the folder that `d3m follow-up --out` wrote."


@dataclass(frozen=True)
class FollowUp:
    """The content of a folder."""

    images: dict[str, Any]
    """By role, `Volume` of the engine: (X, Y, Z), on one grid."""
    text: str
    """What is said of the change, in one line."""


@dataclass(frozen=True)
class TwoDates:
    """The nodes in the scene."""

    runID: str
    earlier: Any
    later: Any
    change: Any
    """Label map: 1 stable, 2 new, 3 vanished."""


def readFollowUp(folder: Path) -> FollowUp:
    """Read a folder of `d3m follow-up`; nothing in it is trusted.

    Raises:
        D3MError: it is no such folder, a file is damaged, or the images are not of one grid.
    """
    import numpy as np

    from d3m.errors import D3MError
    from d3m.system.text import read_object
    from d3m.volumes.io.read import read_raw

    path = folder / "follow_up.json"
    if not path.is_file():
        raise D3MError("This folder holds no comparison of two dates.", WRITES_IT)
    text = _textOf(read_object(path, "The comparison of two dates"))
    images = {}
    for role, name in FILES.items():
        file = folder / f"{name}.nii.gz"
        if not file.is_file():
            raise D3MError(f"The comparison of two dates is not complete: {file.name} is missing.", WRITES_IT)
        images[role] = read_raw(file, file.name)
        if not np.isfinite(images[role].data).all():
            raise D3MError(f"{file.name} holds values that are no numbers.", "Make the comparison again.")
    first = images["earlierDate"]
    for role, image in images.items():
        if image.data.shape != first.data.shape or not np.allclose(image.affine, first.affine, rtol=0, atol=1e-3):
            raise D3MError(f"{FILES[role]}.nii.gz lies on another grid than the earlier image.",
                           "Make the comparison again.")  # fmt: skip
    if not np.isin(images["changeMap"].data, (0, *LABELS.values())).all():
        raise D3MError("change.nii.gz has labels that no comparison has.", "Make the comparison again.")
    return FollowUp(images, text)


def _textOf(stated: dict[str, Any]) -> str:
    """What `follow_up.json` says, in words.

    Raises:
        D3MError: it is not of the kind that the engine writes.
    """
    from d3m.errors import D3MError
    from d3m.system.text import plain

    try:
        numbers = [stated["earlier"]["enhancing_ml"], stated["later"]["enhancing_ml"], stated["new_ml"],
                   stated["vanished_ml"], stated["change_ml"], *stated["interval_ml"]]  # fmt: skip
        sentence, notices = stated["sentence"], [notice["message"] for notice in stated["notices"]]
        real, known = stated["beyond_repetition"], stated["synthetic"] is True and stated["labels"] == LABELS
    except (KeyError, TypeError):
        numbers, sentence, notices, real, known = [], "", [], None, False
    whole = (
        known
        and len(numbers) == 7
        and all(isinstance(n, int | float) and not isinstance(n, bool) and abs(n) < 1e6 for n in numbers)
        and isinstance(real, bool)
        and all(isinstance(one, str) for one in (sentence, *notices))
    )
    if not whole:
        raise D3MError("follow_up.json is not what `d3m follow-up` writes.", WRITES_IT)
    earlier, later, new, vanished = numbers[:4]
    parts = [
        _("Predicted enhancement: earlier {a} ml, later {b} ml; new {c} ml, vanished {d} ml.").format(
            a=f"{earlier:.1f}", b=f"{later:.1f}", c=f"{new:.1f}", d=f"{vanished:.1f}"
        ),
        plain(sentence)[:MAX_SENTENCE],
    ]
    if real:
        parts.append(_("This is more than repeated synthesis varies by."))
    return " ".join([*parts, *(plain(notice)[:MAX_SENTENCE] for notice in notices)])


def addTwoDates(scene: Any, folder: Path) -> TwoDates:
    """Make the nodes of a folder, in a folder of their own in the data tree; nothing is overwritten.

    Raises:
        D3MError: see `readFollowUp`. The scene is unchanged then.
    """
    from d3m.system.text import plain

    found = readFollowUp(folder)
    name = plain(folder.resolve().name)[:MAX_NAME] or "follow-up"
    made: dict[str, Any] = {}
    runID = uuid.uuid4().hex[:12]
    scene.StartState(scene.BatchProcessState)
    try:
        for role, image in found.images.items():
            made[role] = _node(scene, role, f"{name} {NAMES[role]}", image, runID)
        _window(made["earlierDate"], made["laterDate"], made["changeMap"])
        made["earlierDate"].SetAttribute(CHANGE, found.text)
        _tree(scene, made, name, runID)
    except BaseException:
        for node in made.values():
            scene.RemoveNode(node)
        raise
    finally:
        scene.EndState(scene.BatchProcessState)
    return TwoDates(runID, made["earlierDate"], made["laterDate"], made["changeMap"])


def _node(scene: Any, role: str, name: str, image: Any, runID: str) -> Any:
    import numpy as np

    isMap = role == "changeMap"
    kind = "vtkMRMLLabelMapVolumeNode" if isMap else "vtkMRMLScalarVolumeNode"
    node = scene.AddNewNodeByClass(kind, scene.GenerateUniqueName(name))
    for key, value in ((RUN, runID), (ROLE, role), (SYNTHETIC, "yes")):
        node.SetAttribute(key, value)
    array = np.ascontiguousarray(image.data.T, np.uint8 if isMap else np.float32)
    slicer.util.updateVolumeFromArray(node, array)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(image.affine))
    node.CreateDefaultDisplayNodes()
    if isMap:
        node.GetDisplayNode().SetAndObserveColorNodeID(_colourNode(scene).GetID())
        node.SetAttribute(Captions.CAPTION, _("change: yellow stable, red new, blue vanished"))
    else:
        node.SetAttribute(Captions.CAPTION, _("earlier date") if role == "earlierDate" else _("later date"))
    return node


def _window(earlier: Any, later: Any, change: Any) -> None:
    """One window for both, each on its own scale: what enhances at neither date is as bright at both.

    Two acquisitions have no common scale, and a window of each image's own values would darken the brain of the date
    that enhances more.
    """
    import numpy as np

    images = [slicer.util.arrayFromVolume(node) for node in (earlier, later)]
    plain = (images[0] != 0) & (images[1] != 0) & (slicer.util.arrayFromVolume(change) == 0)
    units, ends = [], []
    for image in images:
        values = image[plain] if plain.any() else image.ravel()
        bright = values[values > values.mean()]  # air of a whole head does not count
        unit = float(np.median(bright)) if bright.size else 1.0
        units.append(unit if unit > 0 else 1.0)
        ends.append(Looks.percentiles((image[image != 0] if image.any() else image.ravel()) / units[-1]))
    low, high = min(one for one, _high in ends), max(one for _low, one in ends)
    for node, unit in zip((earlier, later), units, strict=True):
        Looks.window(node, low * unit, high * unit)


def _colourNode(scene: Any) -> Any:
    """The colours of the map, with names; one in a scene."""
    tag = "D3MChange"
    node = scene.GetSingletonNode(tag, "vtkMRMLColorTableNode")
    if node is not None:
        return node
    node = slicer.vtkMRMLColorTableNode()
    node.SetSingletonTag(tag)
    node.SetName("D3M change")
    node.SetTypeToUser()
    node.SetNumberOfColors(len(LABELS) + 1)
    node.SetColor(0, "none", 0.0, 0.0, 0.0, 0.0)
    for name, label in LABELS.items():
        node.SetColor(label, name, *COLOURS[name], 1.0)
    return scene.AddNode(node)


def _tree(scene: Any, made: dict[str, Any], name: str, runID: str) -> None:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    title = hierarchy.GenerateUniqueItemName(f"{name} (two dates, synthetic)")
    item = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), title)
    hierarchy.SetItemAttribute(item, RUN, runID)
    hierarchy.SetItemAttribute(item, SYNTHETIC, "yes")
    for node in made.values():
        own = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
        hierarchy.SetItemParent(own, item)
        tagForExport(hierarchy, own, node, "")


def findTwoDates(scene: Any) -> list[TwoDates]:
    """The comparisons of a scene that are whole, after it was opened again, too."""
    found: dict[str, dict[str, Any]] = {}
    for node in nodesOf(scene, "vtkMRMLScalarVolumeNode"):
        if node.GetAttribute(ROLE) in NAMES:
            found.setdefault(node.GetAttribute(RUN) or "", {}).setdefault(node.GetAttribute(ROLE), node)
    return [TwoDates(runID, *(one[role] for role in NAMES)) for runID, one in found.items() if len(one) == len(NAMES)]


def changeTexts(scene: Any) -> list[str]:
    """What is said of each comparison in a scene, by its name."""
    found = []
    for dates in findTwoDates(scene):
        name = (dates.earlier.GetName() or "").replace(f" {NAMES['earlierDate']}", "")
        found.append(f"{name}: {dates.earlier.GetAttribute(CHANGE) or ''} {_('Synthetic, research use only.')}")
    return found


def showTwoDates(dates: TwoDates) -> None:
    """Both dates side by side in linked views, the map over both, cut at the largest change.

    Where nothing is new or vanished the views are cut at what is stable, else at the middle of the head.
    """
    scene = dates.earlier.GetScene()
    for run in findRuns(scene):
        Pictures.hide(run)
    Strangers.dropStrangers(dates.earlier)
    Views.release(scene)
    Views.arrange(scene, Pictures.ARRANGEMENTS["sideBySide"])
    Views.link(scene, Views.TWO)
    Views.lookAt(Nodes(dates.runID, 0, None, dates.earlier), fit=True)
    Views.setImages(scene, {Views.TWO[1]: dates.later}, dates.earlier, None, 0.0)
    for composite in composites(scene):
        composite.SetForegroundVolumeID(dates.change.GetID())
        composite.SetForegroundOpacity(OPACITY)
        composite.SetCompositing(composite.Alpha)
    point = _largestChange(dates.change)
    for node in sliceNodes(scene) if point is not None else []:
        node.JumpSliceByOffsetting(*point)
    Views.copyPosition(scene, Views.TWO[0], Views.TWO[1:])
    _legend(dates.change)
    Captions.markViews()


def _largestChange(change: Any) -> Any:
    """A point of the world in the largest part of what is new or vanished, else of what is stable; None without."""
    labels = slicer.util.arrayFromVolume(change)
    changed = labels > LABELS["stable"]
    return Views.largestPart(changed if changed.any() else labels > 0, change)


def _legend(change: Any) -> None:
    logic = getattr(slicer, "vtkSlicerColorLogic", None)
    if logic is None or not alive(change):
        return
    node = logic.GetColorLegendDisplayNode(change) or logic.AddDefaultColorLegendDisplayNode(change)
    if node is not None:
        node.SetTitleText(_("enhancement"))
        node.SetUseColorNamesForLabels(True)
        node.SetNumberOfLabels(len(LABELS))
        node.SetSize(0.14, 0.3)
        node.SetPosition(0.97, 0.5)
        node.SetVisibility(True)
