"""The deformation: drawn as grid or arrows, its length in millimetres, and where tissue is gained or lost. MRML alone.

A run's field leads from a point of the result to where its value was taken from. Slicer draws where tissue was moved
*to*, in the world, the motion of all parent transforms included. So what is drawn is a field of its own, in the world,
under no transform: a head's own motion is no deformation. The run's transform nodes stay as they are, and hardening
them on what the image before the warp adds to T1 (recipe `default`; else on that image) reproduces the one after it.
"""

from __future__ import annotations

from typing import Any

import vtk

import slicer
from D3MSynthesisLib import Looks
from D3MSynthesisLib.Captions import CAPTION, DRAWN_FROM
from D3MSynthesisLib.Grids import fieldOf, gridPoints, gridTransform, rasBounds, transformed, worldFrom
from D3MSynthesisLib.Results import Image
from D3MSynthesisLib.Runs import PREFIX, ROLE, RUN, Nodes, alive, gridOn, proxies
from D3MSynthesisLib.Texts import _

MODES = ("off", "magnitude", "jacobian", "grid", "arrows")
SEEN_MM = 3.0
"""Length at which a long vector is drawn at least in the grid, if no cell folds."""
ARROW_MM = 9.0
"""Length of the longest arrows that are drawn enlarged; arrows have no cells that could fold."""
MAX_ENLARGEMENT = 20
DRAWN_MM = 2.0
"""Distance of the points of the drawn field, at least: the grid's lines are 6 mm apart."""
SHORTEST = Looks.MOTION_FLOOR
"""Arrows shorter than this share of the longest are left out, as the colours of the length leave them out."""
MIN_DETERMINANT = 0.02
"""A drawn cell keeps at least this share of its size."""
MOVES_MM = 1e-3
"""Below this nothing is moved."""
_LENGTHS = ((0.22, 0.36, 0.44), (0.25, 0.85, 0.55), (1.00, 0.90, 0.20))
"""Colours of grid and arrows, from no deformation to the longest."""


def sourceOf(nodes: Nodes, done: int | None) -> Any:
    """The transform node of the field that is shown: of a step that is replayed, else of the last one."""
    step = proxies(nodes).get("field")
    return step if step is not None and done is not None else nodes.deformation


def draw(nodes: Nodes, mode: str, done: int | None) -> int:
    """Draw the field as grid or arrows, or take the drawing away.

    Args:
        nodes: The run.
        mode: One of `MODES`.
        done: The step whose field is meant, None for the last.

    Returns:
        How many times it is enlarged; 0 if nothing is drawn, or nothing can be: see `worldField`.

    Raises:
        ValueError: there is no such mode.
    """
    if mode not in MODES:
        raise ValueError(f"There is no such picture of the deformation: {mode!r}.")
    source = sourceOf(nodes, done)
    field = worldField(source) if mode in ("grid", "arrows") and alive(source) else None
    if field is None:
        if alive(nodes.drawn) and nodes.drawn.GetDisplayNode() is not None:
            nodes.drawn.GetDisplayNode().SetVisibility(False)
            nodes.drawn.GetDisplayNode().SetVisibility2D(False)
        return 0
    factor = enlargement(field) if mode == "grid" else _times(ARROW_MM, _longest(field))
    node = _drawnNode(nodes)
    node.SetAndObserveTransformToParent(gridTransform(field))
    node.SetNodeReferenceID(DRAWN_FROM, source.GetID())
    _style(node.GetDisplayNode(), field, factor, mode)
    node.SetAttribute(CAPTION, _("deformation of {step}, drawn {n} times larger").format(
        step=stepName(nodes, done), n=factor) if factor > 1 else
        _("deformation of {step}, drawn true to scale").format(step=stepName(nodes, done)))  # fmt: skip
    return factor


def drawnFactor(nodes: Nodes) -> int:
    """How many times the field that is drawn now is enlarged; 0 if nothing is drawn."""
    display = nodes.drawn.GetDisplayNode() if alive(nodes.drawn) else None
    if display is None or not (display.GetVisibility() and display.GetVisibility2D()):
        return 0
    factor: int = round(display.GetGridScalePercent() / 100)
    return factor


def stepName(nodes: Nodes, done: int | None) -> str:
    """Which step a field belongs to."""
    if done is None or done >= nodes.steps:
        return _("the last step")
    return _("step {n} of {m}").format(n=done, m=nodes.steps)


def _drawnNode(nodes: Nodes) -> Any:
    if not alive(nodes.drawn):
        node = nodes.cemri.GetScene().AddNewNodeByClass("vtkMRMLTransformNode", "D3M drawn deformation")
        _mark(node, nodes, "drawn")
        node.CreateDefaultDisplayNodes()
        nodes.drawn = node
    if nodes.drawn.GetDisplayNode() is None:
        nodes.drawn.CreateDefaultDisplayNodes()
    nodes.drawn.GetDisplayNode().SetSaveWithScene(False)
    return nodes.drawn


def _mark(node: Any, nodes: Nodes, role: str) -> None:
    """Make a node part of the run; it is made again when it is needed, so no scene file has it."""
    for name, value in ((RUN, nodes.runID), (ROLE, role), (PREFIX + "Synthetic", "yes")):
        node.SetAttribute(name, value)
    node.SetDescription("Synthetic, made by D3M; research use only")
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(False)


def _style(display: Any, field: Image, factor: int, mode: str) -> None:
    top = _longest(field)
    display.SetVisualizationMode(display.VIS_MODE_GRID if mode == "grid" else display.VIS_MODE_GLYPH)
    display.SetGridSpacingMm(6.0)
    display.SetGridResolutionMm(1.0)
    display.SetGridScalePercent(100 * factor)
    display.SetGridShowNonWarped(False)
    display.SetGlyphSpacingMm(4.0)
    display.SetGlyphScalePercent(100 * factor)
    display.SetGlyphDisplayRangeMinMm(max(SHORTEST * top, 0.5 / factor))
    display.SetGlyphDisplayRangeMaxMm(50.0)
    ramp = vtk.vtkColorTransferFunction()  # Slicer's own has everything below a millimetre in dark grey
    for share, colour in zip((0.0, 0.3, 1.0), _LENGTHS, strict=True):
        ramp.AddRGBPoint(share * top, *colour)
    display.SetColorMap(ramp)
    display.GetColorNode().SetSaveWithScene(False)  # else every scene file would have one that nobody uses
    display.SetVisibility3D(False)
    display.SetVisibility2D(True)
    display.SetVisibility(True)


def _long(field: Image, percentile: float = 99) -> float:
    """Length of a long vector: a percentile of those that are not zero, mm."""
    length = lengthOf(field)
    return Looks.upper(length[length > MOVES_MM], percentile)


def _longest(field: Image) -> float:
    """Length of the longest vectors but for single ones, mm: the upper end of the colours."""
    return _long(field, Looks.MOTION_PERCENTILE)


def worldField(source: Any) -> Image | None:
    """Where a run's field moves tissue *to*, RAS millimetres in the world, on a grid in the world.

    None where the node has no field any more: a warp was hardened onto it.

    Args:
        source: A transform node; the transforms that it is under move the grid, they are no part of the field.
    """
    import numpy as np

    field = fieldOf(source)
    if field is None:
        return None
    moves = np.linalg.norm(field.array, axis=-1) > MOVES_MM
    toWorld = worldFrom(source)
    if not moves.any():
        return Image(np.zeros((2, 2, 2, 3), np.float32), field.ijkToRAS)
    spacing = np.linalg.norm(field.ijkToRAS[:3, :3], axis=0)  # of i, j, k
    stride = np.maximum(1, np.round(DRAWN_MM / spacing)).astype(int)
    reach = np.ceil(float(np.abs(field.array).max()) / spacing).astype(int) + 2
    ends = []
    for axis, size in enumerate(moves.shape):
        index = np.flatnonzero(moves.any(axis=tuple({0, 1, 2} - {axis})))
        margin = int(reach[2 - axis])
        ends.append((max(index[0] - margin, 0), min(index[-1] + margin + 1, size)))
    matrix = np.array(field.ijkToRAS, float)
    matrix[:3, 3] += matrix[:3, :3] @ [ends[2][0], ends[1][0], ends[0][0]]
    matrix[:3, :3] *= stride
    shape = tuple(
        int(np.ceil((end - start - 1) / stride[2 - axis])) + 1 for axis, (start, end) in enumerate(ends)
    )  # of k, j, i
    parent = source.GetParentTransformNode()
    linear = vtk.vtkMatrix4x4()
    if parent is None or parent.GetMatrixTransformToWorld(linear):
        grid = slicer.util.arrayFromVTKMatrix(linear) @ matrix
        if abs(_cosines(grid) - np.eye(3)).max() > 1e-3:  # shears cannot be drawn on a grid of their own
            grid, shape = _box(grid, shape)
    else:
        corners = rasBounds(transformed(gridPoints(shape, matrix), toWorld))
        grid, shape = _boxOf(corners)
    world = gridPoints(shape, grid)
    local = transformed(world, toWorld.GetInverse())
    moved = transformed(transformed(local, gridTransform(field).GetInverse()), toWorld)
    return Image((moved - world).astype(np.float32), grid)


def _cosines(matrix: Any) -> Any:
    import numpy as np

    axes = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    return axes.T @ axes


def _box(matrix: Any, shape: Any) -> tuple[Any, Any]:
    return _boxOf(rasBounds(gridPoints(shape, matrix)))


def _boxOf(bounds: Any) -> tuple[Any, Any]:
    """A grid along the world's axes that holds a box."""
    import numpy as np

    grid = np.diag([DRAWN_MM, DRAWN_MM, DRAWN_MM, 1.0])
    grid[:3, 3] = bounds[0]
    return grid, tuple(int(size) for size in np.ceil((bounds[1] - bounds[0]) / DRAWN_MM).astype(int)[::-1] + 1)


def gradient(field: Image, sides: tuple[int, int, int]) -> Any:
    """Derivatives of a field, (K, J, I, 3, 3), [..., c, a]: of component c along RAS axis a.

    Args:
        field: RAS millimetres.
        sides: Of k, j, i: 1 for the difference to the next voxel, -1 to the one before; at an edge the other one.
    """
    import numpy as np

    parts = []
    for axis, side in enumerate(sides):
        step = np.diff(field.array.astype(np.float64), axis=axis)
        edge = np.take(step, [-1 if side > 0 else 0], axis=axis)
        parts.append(np.concatenate([step, edge] if side > 0 else [edge, step], axis=axis))
    perVoxel = np.stack(parts[::-1], -1)  # along i, j, k
    return perVoxel @ np.linalg.inv(field.ijkToRAS[:3, :3])


def _times(wanted: float, length: float) -> int:
    """How many times a vector is enlarged to have a length that is wanted; mm."""
    return int(min(max(round(wanted / length), 1), MAX_ENLARGEMENT))


def enlargement(field: Image) -> int:
    """How many times a field is drawn enlarged in the grid: most are fractions of a millimetre.

    So many times that a long vector is seen, but not so many that a cell of the drawn grid would fold.
    """
    import numpy as np

    wanted = _times(SEEN_MM, _long(field))
    factors = np.arange(1, wanted + 1)
    least = np.full(len(factors), np.inf)
    for k in (-1, 1):
        for j in (-1, 1):
            for i in (-1, 1):  # the corners of every cell
                g = gradient(field, (k, j, i))
                first = np.trace(g, axis1=-2, axis2=-1)
                second = (first**2 - np.einsum("...ab,...ba->...", g, g)) / 2
                third = np.linalg.det(g)
                for index, f in enumerate(factors):  # det(1 + f g) = 1 + f tr g + ...
                    least[index] = min(least[index], float((1 + f * (first + f * (second + f * third))).min()))
    folded = np.flatnonzero(least < MIN_DETERMINANT)
    return int(max(1, folded[0])) if len(folded) else int(wanted)


def lengthOf(field: Image) -> Any:
    """Length of every vector, mm, (K, J, I) float32."""
    import numpy as np

    return np.linalg.norm(field.array.astype(np.float64), axis=-1).astype(np.float32)


def volumeChange(field: Image) -> Any:
    """By how many times the tissue at a point of the result became larger: above 1 gained, below 1 lost.

    The field leads back, so it is one over the determinant of its derivative. Where the field folds, 0.

    Args:
        field: A run's field, from a point of the result to where its value was taken from; RAS millimetres.

    Returns:
        (K, J, I) float32.
    """
    import numpy as np

    length = lengthOf(field)
    change = np.ones(length.shape, np.float32)
    box = tuple(_within(length.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
    if 0 in length[box].shape:
        return change
    part = Image(field.array[box], field.ijkToRAS)
    g = (gradient(part, (1, 1, 1)) + gradient(part, (-1, -1, -1))) / 2 + np.eye(3)
    determinant = np.einsum("...a,...a->...", g[..., 0], np.cross(g[..., 1], g[..., 2]))
    inverse = np.where(determinant > 0, 1 / np.maximum(determinant, 0.05), 0)
    inverse[length[box] == 0] = 1
    change[box] = inverse
    return change


def _within(moves: Any) -> slice:
    """From the first to the last that is true, and two beside each, which differences there need."""
    import numpy as np

    index = np.flatnonzero(moves)
    return slice(max(index[0] - 2, 0), index[-1] + 3) if len(index) else slice(0, 0)


def mapNode(nodes: Nodes, mode: str, done: int | None) -> Any:
    """The volume that colours show: length ("magnitude") or volume change ("jacobian") of the field that is shown."""
    import numpy as np

    if mode == "magnitude" and sourceOf(nodes, done) is nodes.deformation:
        return nodes.magnitude
    source = sourceOf(nodes, done)
    field = fieldOf(source) if alive(source) else None
    if field is None:
        return None
    values = lengthOf(field) if mode == "magnitude" else volumeChange(field)
    node = nodes.fieldMap
    if not alive(node):
        node = nodes.cemri.GetScene().AddNewNodeByClass("vtkMRMLScalarVolumeNode", "D3M deformation map")
        _mark(node, nodes, "fieldMap")
        nodes.fieldMap = node
    slicer.util.updateVolumeFromArray(node, values)
    there = gridOn(source, nodes.cemri, values.shape[::-1])  # whatever was done to the field alone
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(field.ijkToRAS if there is None else there))
    node.SetAndObserveTransformNodeID(nodes.cemri.GetTransformNodeID())
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
        node.GetDisplayNode().SetSaveWithScene(False)
    if mode == "magnitude":  # one range for all steps, so that they can be compared
        top = Looks.upper(values, Looks.MOTION_PERCENTILE)
        if alive(nodes.magnitude):
            top = nodes.magnitude.GetDisplayNode().GetWindowLevelMax()
        Looks.colours(node, "magnitude", 0.0, top, Looks.MOTION_FLOOR * top)
    else:
        limit = max(float(np.percentile(np.abs(values - 1), 99.9)), 0.01)
        Looks.colours(node, "diverging", 1 - limit, 1 + limit)
    return node
