"""Draws the window with the sample case: `python Testing/slicer/qt_host/window.py OUT.png [preview|standard|best]`."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:1] = [str(HERE.parent), str(ROOT / "D3MSynthesis")]

from qt_host import Host  # noqa: E402


def main(out: Path, quality: str | None) -> None:
    """Load the sample, run it if a quality is given, and draw."""
    with Host((420, 420)) as host:
        widget = host.openModule("D3MSynthesis")
        panel = widget.panel
        panel.onSample()
        host.settle()
        if quality:
            panel.parameters.quality = type(panel.parameters.quality)(quality)
            panel.ui.applyButton.click()
            host.until(lambda: not panel.logic.running, 300)
            host.until(lambda: panel.info is not None, 60)
        shown = panel.result.nodes.segmentation if quality else panel.parameters.t1
        bounds = [0.0] * 6
        shown.GetRASBounds(bounds)
        middle = tuple((bounds[2 * axis] + bounds[2 * axis + 1]) / 2 for axis in range(3))
        host.picture(widget, out, middle, [["Red", "Yellow"], ["Green"]])
        print(panel.ui.stateLabel.text, panel.ui.errorLabel.text)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
