"""The panel and steps that are replayed: what it says is what the views show."""

from __future__ import annotations

import numpy as np
import pytest
from slicer_helpers import MadeOutput

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from panel_helpers import background, opened, press  # noqa: E402
from qt_host import Host  # noqa: E402

from D3MSynthesisLib import Views  # noqa: E402


@pytest.mark.parametrize("choice", ["picture", "overlay", "fade", "key"])
def test_back_from_a_step_the_panel_says_what_the_views_show(host: Host, made: MadeOutput, choice: str) -> None:
    """From a step that is replayed to the synthetic image: its name stays in the box, and every layout shows it."""
    from D3MSynthesisLib.Parameters import Overlay, Picture

    panel = opened(host, made)
    p, ui = panel.parameters, panel.ui
    p.reference = slicer.util.addVolumeFromArray(
        np.ascontiguousarray(2 * made.cemri.T), ijkToRAS=made.matrix, name="p_t1c"
    )
    press(host, panel)
    ui.compareButton.click()
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
    assert Views.images(host.scene, "Yellow")[0] is nodes.cemri, "not the sample, which nobody has chosen"
