"""Draws the window, to look at and for the documentation.

`python Testing/slicer/qt_host/window.py OUT.png [--quality Q] [--look NAME]` draws one look of the sample's result;
`python Testing/slicer/qt_host/window.py FOLDER [--quality Q] [--steps N]` draws every look into a folder, and a film
of all of them;
`--case FOLDER` takes a patient with BraTS names instead of the sample: such pictures never go into the project.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:1] = [str(HERE.parent), str(ROOT / "D3MSynthesis")]

import slicer  # noqa: E402
from qt_host import Host  # noqa: E402

SIZE = (400, 390)
PAIR = [["Red", "Yellow"]]
FOUR = [["Red", "Green"], ["Slice4", "Yellow"]]
SIX = [["Red", "Red+"], ["Green", "Green+"], ["Yellow", "Yellow+"]]
THREE = [["Red"], ["Yellow"], ["Green"]]
"""Views of a picture, column by column."""


def opened(panel: Any, *names: str) -> None:
    """Open these sections of the result, close the others."""
    for name in ("mask", "deformation", "comparison", "save"):
        getattr(panel.ui, f"{name}Section").collapsed = name not in names


def result(panel: Any) -> list[list[str]]:
    """T1 and the synthetic image with the mask's outline."""
    opened(panel, "mask")
    panel.ui.sideBySideButton.click()
    return PAIR


def subtraction(panel: Any) -> list[list[str]]:
    """What enhances, in grey."""
    panel.ui.pictureBox.setCurrentIndex(1)
    panel.ui.maskBox.setChecked(False)
    return PAIR


def colours(panel: Any) -> list[list[str]]:
    """What enhances, in colours over the synthetic image."""
    panel.ui.pictureBox.setCurrentIndex(0)
    panel.ui.overlayBox.setCurrentIndex(1)
    return PAIR


def contrasts(panel: Any) -> list[list[str]]:
    """T1, T2, FLAIR and the synthetic image."""
    panel.ui.overlayBox.setCurrentIndex(0)
    panel.ui.maskBox.setChecked(True)
    panel.ui.contrastsButton.click()
    return FOUR


def comparison(panel: Any) -> list[list[str]]:
    """With the real T1c and the difference."""
    opened(panel, "comparison")
    panel.ui.comparisonButton.click()
    return SIX


def real(panel: Any) -> list[list[str]]:
    """Faded to the real image."""
    panel.ui.sideBySideButton.click()
    panel.ui.fadeSlider.setValue(1.0)
    return PAIR


def grid(panel: Any) -> list[list[str]]:
    """The deformation as a grid."""
    opened(panel, "deformation")
    panel.ui.sideBySideButton.click()
    panel.ui.deformationBox.setCurrentIndex(3)
    return PAIR


def arrows(panel: Any) -> list[list[str]]:
    """The deformation as arrows."""
    panel.ui.deformationBox.setCurrentIndex(4)
    return PAIR


def magnitude(panel: Any) -> list[list[str]]:
    """The deformation in millimetres."""
    panel.ui.deformationBox.setCurrentIndex(1)
    return PAIR


def jacobian(panel: Any) -> list[list[str]]:
    """Where tissue is gained or lost."""
    panel.ui.deformationBox.setCurrentIndex(2)
    return PAIR


def steps(panel: Any) -> list[list[str]]:
    """The sample on its way, in three directions."""
    panel.ui.deformationBox.setCurrentIndex(0)
    panel.ui.fourUpButton.click()
    panel.ui.stepSlider.setValue(max(1, panel.result.nodes.steps // 2))
    return THREE


def warp(panel: Any) -> list[list[str]]:
    """Before and after the last warp."""
    panel.ui.stepSlider.setValue(panel.result.nodes.steps)
    panel.ui.beforeAfterButton.click()
    return PAIR


LOOKS: tuple[Callable[[Any], list[list[str]]], ...] = (
    result, subtraction, colours, contrasts, comparison, real, grid, arrows, magnitude, jacobian, steps, warp,
)  # fmt: skip


def load(panel: Any, case: Path | None) -> None:
    """The sample, or a patient with BraTS names."""
    if case is None:
        panel.inputs.onSample()
        return
    for name, suffix in (("t1", "t1"), ("t2", "t2"), ("flair", "flair"), ("reference", "t1ce")):
        (path,) = case.glob(f"*_{suffix}.nii.gz")
        setattr(panel.parameters, name, slicer.util.loadVolume(str(path)))


def made(panel: Any, folder: Path) -> None:
    """Show a result of the engine that lies in a folder, as if it had just been made."""
    from D3MSynthesisLib import Scene
    from D3MSynthesisLib.Grids import matrixOf

    p = panel.parameters
    frame = Scene.Frame(p.t1.GetName(), matrixOf(p.t1), p.t1, t2=p.t2, flair=p.flair)
    panel._ended(Scene.addRun(slicer.mrmlScene, folder, frame, p.reference))


def main(out: Path, case: Path | None, result_folder: Path | None, quality: str, count: int, wanted: str) -> None:
    """Load, run, and draw."""
    with Host(SIZE) as host:
        widget = host.openModule("D3MSynthesis")
        panel = widget.panel

        def take(name: str, columns: list[list[str]]) -> None:
            host.settle()
            if not out.suffix:
                host.picture(widget, out / f"{name}.png", columns)

        if not out.suffix:
            out.mkdir(parents=True, exist_ok=True)
        take("empty", PAIR)
        load(panel, case)
        for name in ("Red", "Yellow"):
            host.views[name].logic.FitSliceToBackground()
        if result_folder is None:
            host.until(lambda: panel.info is not None, 120)
            take("loaded", PAIR)
            panel.parameters.quality = type(panel.parameters.quality)(quality)
            panel.parameters.steps = count
            panel.ui.applyButton.click()
            host.until(lambda: panel.ui.progressBar.value > 40 or not panel.logic.running, 1800)
            if panel.logic.running:
                take("running", PAIR)
            host.until(lambda: not panel.logic.running, 1800)
        else:
            panel.logic.requestInfo = lambda *_arguments, **_named: None  # nothing is run: no time of this machine
            take("loaded", PAIR)
            made(panel, result_folder)
        print(panel.ui.stateLabel.text, panel.ui.errorLabel.text)
        for look in LOOKS:
            columns = look(panel)
            take(look.__name__, columns)
            if out.suffix and look.__name__ == wanted:
                host.settle()
                host.picture(widget, out, columns)
                return
        if not out.suffix:
            film(out)


def film(folder: Path) -> None:
    """Make one GIF, 1000 pixels wide, of the pictures in a folder, in their order."""
    from PIL import Image

    names = ["empty", "loaded", "running", *(look.__name__ for look in LOOKS)]
    pictures = [
        Image.open(folder / f"{name}.png").convert("RGB") for name in names if (folder / f"{name}.png").exists()
    ]
    width, height = (max(picture.size[axis] for picture in pictures) for axis in (0, 1))
    frames = []
    for picture in pictures:
        sheet = Image.new("RGB", (width, height), (24, 24, 24))
        sheet.paste(picture, (0, 0))
        small = sheet.resize((1000, round(height * 1000 / width)), Image.Resampling.LANCZOS)
        frames.append(small.quantize(96, dither=Image.Dither.NONE))
    frames[0].save(folder / "film.gif", save_all=True, append_images=frames[1:], duration=2000, loop=0, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--case", type=Path)
    parser.add_argument("--result", type=Path, help="an output folder of `d3m synthesize --trace`; else it is made")
    parser.add_argument("--quality", default="standard")
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--look", default="result", choices=[look.__name__ for look in LOOKS])
    given = parser.parse_args()
    main(given.out, given.case, given.result, given.quality, given.steps, given.look)
