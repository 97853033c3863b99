"""Draws the window with the sample case, to look at and for the documentation.

`python Testing/slicer/qt_host/window.py OUT.png [preview|standard|best]` draws the sample loaded, or its result;
`python Testing/slicer/qt_host/window.py FOLDER QUALITY [STEPS]` draws one picture of everything that can be shown.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:1] = [str(HERE.parent), str(ROOT / "D3MSynthesis")]

import slicer  # noqa: E402
from qt_host import Host  # noqa: E402

SIZE = (520, 470)
PAIR = [["Red", "Yellow"]]
"""Views of the picture, column by column."""


def middle(nodes: Any) -> tuple[float, float, float]:
    """RAS of the middle of the predicted tumour's largest axial slice."""
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(nodes.segmentation, nodes.segmentID, nodes.cemri)
    k = int(mask.sum(axis=(1, 2)).argmax())
    j, i = (float(np.mean(index)) for index in np.nonzero(mask[k]))
    matrix = slicer.util.arrayFromVTKMatrix(_matrix(nodes.cemri))
    return tuple((matrix @ [i, j, k, 1])[:3])


def centre(volume: Any) -> tuple[float, float, float]:
    """RAS of a volume's middle."""
    bounds = [0.0] * 6
    volume.GetRASBounds(bounds)
    return tuple((bounds[2 * axis] + bounds[2 * axis + 1]) / 2 for axis in range(3))


def _matrix(volume: Any) -> Any:
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return matrix


def result(panel: Any) -> None:
    """T1 and the synthetic image."""
    panel.ui.sideBySideButton.click()


def subtraction(panel: Any) -> None:
    """What enhances first."""
    panel.ui.sideBySideButton.click()
    panel.ui.maskBox.setChecked(False)
    panel.ui.overlayBox.setCurrentIndex(1)


def grid(panel: Any) -> None:
    """The deformation as a grid."""
    panel.ui.sideBySideButton.click()
    panel.ui.maskBox.setChecked(True)
    panel.ui.overlayBox.setCurrentIndex(0)
    panel.ui.deformationBox.setCurrentIndex(2)


def magnitude(panel: Any) -> None:
    """The deformation in millimetres."""
    panel.ui.maskBox.setChecked(False)
    panel.ui.deformationBox.setCurrentIndex(1)


def steps(panel: Any) -> None:
    """The image on the way from noise to the result."""
    panel.ui.deformationBox.setCurrentIndex(0)
    panel.ui.fourUpButton.click()
    panel.ui.stepSlider.setValue(max(1, panel.result.nodes.steps // 2))


def warp(panel: Any) -> None:
    """Before and after the last warp."""
    panel.ui.stepSlider.setValue(panel.result.nodes.steps)
    panel.ui.maskBox.setChecked(True)
    panel.ui.fillBox.setChecked(False)
    panel.ui.beforeAfterButton.click()


LOOKS: tuple[Callable[[Any], None], ...] = (result, subtraction, grid, magnitude, steps, warp)


def main(out: Path, quality: str | None, count: int) -> None:
    """Load the sample, run it if a quality is given, and draw."""
    with Host(SIZE) as host:
        widget = host.openModule("D3MSynthesis")
        panel = widget.panel
        one = out.suffix == ".png"
        if not one:
            out.mkdir(parents=True, exist_ok=True)
            host.picture(widget, out / "empty.png", (0, 0, 0), PAIR)
        panel.onSample()
        host.until(lambda: panel.info is not None, 60)
        host.settle()
        if not one or not quality:
            host.picture(widget, out if one else out / "loaded.png", centre(panel.parameters.t1), PAIR)
        if not quality:
            return
        panel.parameters.quality = type(panel.parameters.quality)(quality)
        panel.parameters.steps = count
        panel.ui.applyButton.click()
        if not one:
            host.until(lambda: panel.ui.progressBar.value > 30, 300)
            host.picture(widget, out / "running.png", centre(panel.parameters.t1), PAIR)
        host.until(lambda: not panel.logic.running, 600)
        print(panel.ui.stateLabel.text, panel.ui.errorLabel.text)
        place = middle(panel.result.nodes)
        for look in LOOKS[:1] if one else LOOKS:
            look(panel)
            host.settle()
            host.picture(widget, out if one else out / f"{look.__name__}.png", place, PAIR)


if __name__ == "__main__":
    given = [*sys.argv[1:], "", ""]
    main(Path(given[0]), given[1] or None, int(given[2] or 0))
