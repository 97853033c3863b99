"""The panel and steps that are replayed: what it says is what the views show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from slicer_helpers import MadeOutput

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from panel_helpers import background, opened, press  # noqa: E402
from qt_host import Host  # noqa: E402

from D3MSynthesisLib import Captions, Runs, Seen, Views  # noqa: E402


def compared(host: Host, made: MadeOutput) -> Any:
    """A panel with a result beside a real T1c."""
    panel = opened(host, made)
    panel.parameters.reference = slicer.util.addVolumeFromArray(
        np.ascontiguousarray(2 * made.cemri.T), ijkToRAS=made.matrix, name="p_t1c"
    )
    press(host, panel)
    panel.ui.compareButton.click()
    return panel


def written(host: Host) -> str:
    """What stands at the upper edge of the red view."""
    return host.application.layoutManager().sliceWidget("Red").sliceView().cornerAnnotation().GetText(7) or ""


@pytest.mark.parametrize("choice", ["picture", "overlay", "fade", "key"])
def test_back_from_a_step_the_panel_says_what_the_views_show(host: Host, made: MadeOutput, choice: str) -> None:
    """From a step that is replayed to the synthetic image: its name stays in the box, and every layout shows it."""
    from D3MSynthesisLib.Parameters import Overlay, Picture

    panel = compared(host, made)
    p, ui = panel.parameters, panel.ui
    nodes = panel.result.nodes
    ui.stepSlider.setValue(2)
    host.settle()
    assert (p.picture, background(host)) == (Picture.SAMPLE, nodes.browser.GetProxyNode(nodes.stepAfter))
    if choice == "picture":
        p.picture = Picture.CEMRI
    elif choice == "overlay":
        p.overlay = Overlay.PROBABILITY
    elif choice == "fade":
        ui.fadeSlider.setValue(0.4)
    else:
        panel.result.onOnly("cemri")
    host.settle()
    assert background(host) is nodes.cemri
    assert p.picture is Picture.CEMRI
    assert nodes.browser.GetSelectedItemNumber() + 1 == round(ui.stepSlider.value), "the toolbar has the slider's step"
    p.maskFill = True
    ui.sideBySideButton.click()
    host.settle()
    assert Seen.images(host.scene, "Yellow")[0] is nodes.cemri, "not the sample, which nobody has chosen"


@pytest.mark.parametrize("how", ["picture", "fade", "run", "other run"])
def test_before_and_after_leave_when_another_picture_is_chosen(host: Host, made: MadeOutput, how: str) -> None:
    """In two views there is no room for the synthetic image else, and its mask would lie over the sample's steps."""
    from D3MSynthesisLib.Parameters import Picture

    panel = compared(host, made)
    p, ui = panel.parameters, panel.ui
    if how == "other run":
        press(host, panel)
    nodes = panel.result.nodes
    ui.beforeAfterButton.click()
    host.settle()
    assert background(host) is nodes.browser.GetProxyNode(nodes.stepBefore)
    if how == "picture":
        p.picture = Picture.CEMRI
    elif how == "fade":
        ui.fadeSlider.setValue(0.4)
    elif how == "run":
        press(host, panel)
    else:
        panel.result.onRun(1)
    host.settle()
    cemri = panel.result.nodes.cemri
    assert [Seen.images(host.scene, view)[0] for view in Views.TWO] == [cemri, cemri]
    ui.stepSlider.setValue(2)
    nodes = panel.result.nodes
    steps = [nodes.browser.GetProxyNode(sequence) for sequence in (nodes.stepBefore, nodes.stepAfter)]
    assert [Seen.images(host.scene, view)[0] for view in Views.TWO] == steps, "steps are looked at again"
    assert not nodes.segmentation.GetDisplayNode().GetVisibility2D()


@pytest.mark.parametrize("panelIsShown", [True, False])
def test_a_step_in_a_saved_scene_is_named(host: Host, made: MadeOutput, tmp_path: Path, panelIsShown: bool) -> None:
    """Whoever opens the scene, with the panel or without, is told which sample and step it is; and by the toolbar."""
    panel = opened(host, made)
    press(host, panel)
    panel.ui.stepSlider.setValue(2)
    assert host.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    host.clear()
    if not panelIsShown:
        panel.exit()
    host.scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    host.settle()
    assert any("after the warp of step 2 of 3" in line for line in Captions.caption(host.scene, "Red"))
    (nodes,) = Runs.findRuns(host.scene)
    nodes.browser.SetSelectedItemNumber(0)
    host.settle()
    assert any("after the warp of step 1 of 3" in line for line in Captions.caption(host.scene, "Red"))
    assert any("after the warp of step 1 of 3" in line for line in written(host).split("\n"))
