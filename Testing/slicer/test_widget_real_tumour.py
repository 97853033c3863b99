"""The panel and the real tumour that a predicted mask is compared with: changed, or no real one at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from slicer_helpers import MadeOutput

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from panel_helpers import moved, opened, press  # noqa: E402
from qt_host import Host  # noqa: E402


def drawn(made: MadeOutput, name: str = "p_tumour") -> object:
    """What a person drew as the real tumour: a segmentation on the scans' grid."""
    from D3MSynthesisLib import Grids

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    for segment, mask in (("a", made.mask), ("b", np.roll(made.mask, 2, 0))):
        node.GetSegmentation().AddEmptySegment(segment, segment, (1, 0, 0))
        Grids.writeMask(node, segment, np.ascontiguousarray(mask.T), made.matrix)
    return node


@pytest.mark.parametrize("how", ["edited", "moved", "hidden", "volume"])
@pytest.mark.parametrize("before", [False, True])
def test_a_real_tumour_that_changed_is_not_told_with_old_numbers(
    host: Host, made: MadeOutput, how: str, before: bool
) -> None:
    """False and missed enhancement are of the tumour as it was drawn then; those of the whole image stay."""
    from D3MSynthesisLib import Grids

    panel = opened(host, made)
    p, ui = panel.parameters, panel.ui
    p.reference = slicer.util.addVolumeFromArray(made.cemri.T.copy(), ijkToRAS=made.matrix, name="p_t1c")
    if how == "volume":
        real = slicer.util.addVolumeFromArray(made.mask.T.astype(np.uint8), ijkToRAS=made.matrix, name="p_tumour")
    else:
        real = drawn(made)
    p.referenceMask = real
    if before:
        numbers = '{"psnr_brain": 30.0, "false_positive_ml": 1.0, "predicted_enhancing_volume_ml": %s}'
        (made.folder / "comparison.json").write_text(numbers % (made.mask.sum() * 1.54 / 1000))
    press(host, panel)
    if not before:
        ui.compareButton.click()

    def rows() -> list[str]:
        return [ui.comparisonTable.item(row, 0).text() for row in range(ui.comparisonTable.rowCount)]

    assert "falsely enhancing (ml)" in rows()
    panel.exit()
    if how == "edited":
        Grids.writeMask(real, "b", np.ascontiguousarray(made.mask.T[::-1]), made.matrix)
    elif how == "hidden":
        real.GetDisplayNode().SetSegmentVisibility("b", False)
    elif how == "volume":
        slicer.util.arrayFromVolume(real)[:4] = 1
        slicer.util.arrayFromVolumeModified(real)
    else:
        moved(real, "transform")
    host.settle()
    panel.enter()
    assert "falsely enhancing (ml)" not in rows()
    assert "Real tumour changed since" in rows()
    assert "PSNR, brain (dB)" in rows()
    ui.compareButton.click()
    assert "falsely enhancing (ml)" in rows()
    if how == "moved":
        real.SetAndObserveTransformNodeID(None)
        host.settle()
        assert "Real tumour changed since" in rows()


@pytest.mark.parametrize("synthetic", [False, True])
def test_a_tumour_that_was_drawn_on_the_synthetic_image(host: Host, made: MadeOutput, synthetic: bool) -> None:
    """Segment Editor's first source volume is kept with a segmentation: panel and numbers tell a synthetic one.

    vtkSlicerSegmentEditorLogic.cxx, line 400: where a segmentation has none yet, it takes the source volume's geometry.
    """
    panel = opened(host, made)
    p, ui = panel.parameters, panel.ui
    real = drawn(made)
    host.settle()
    press(host, panel)
    nodes = panel.result.nodes
    p.reference = slicer.util.addVolumeFromArray(made.cemri.T.copy(), ijkToRAS=made.matrix, name="p_t1c")
    real.SetReferenceImageGeometryParameterFromVolumeNode(nodes.cemri if synthetic else p.reference)
    p.referenceMask = real
    host.settle()
    ui.compareButton.click()
    text = f"p_tumour was begun on {nodes.cemri.GetName()}, which is synthetic."
    table = ui.comparisonTable
    assert (text in ui.masksLabel.text) is synthetic
    assert (text in table.item(table.rowCount - 1, 0).text()) is synthetic


def test_a_predicted_mask_is_no_real_tumour(host: Host, made: MadeOutput) -> None:
    """What another run has predicted is refused, before a run and after it; so is a synthetic image from a file."""
    panel = opened(host, made)
    press(host, panel)
    first = panel.result.nodes
    p, ui = panel.parameters, panel.ui
    p.reference = slicer.util.addVolumeFromArray(made.cemri.T.copy(), ijkToRAS=made.matrix, name="p_t1c")
    press(host, panel)
    p.referenceMask = first.segmentation
    ui.compareButton.click()
    assert "what a synthesis made" in ui.errorLabel.text
    assert panel.result.nodes.comparison is None
    assert not ui.applyButton.enabled
    assert "what a synthesis made" in ui.stateLabel.text
    p.referenceMask = None
    p.reference = slicer.util.addVolumeFromArray(made.cemri.T.copy(), ijkToRAS=made.matrix, name="synthetic_cemri")
    ui.compareButton.click()
    assert "what a synthesis made" in ui.errorLabel.text
    assert "synthetic image" in ui.stateLabel.text


def test_a_predicted_mask_from_a_file_is_no_real_tumour(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """Saved and loaded again it has no attributes; its segment's name is enough, and it is told over a scan."""
    from D3MSynthesisLib import Saving

    panel = opened(host, made)
    press(host, panel)
    saved = Saving.saveRun(panel.result.nodes, tmp_path)
    loaded = slicer.util.loadSegmentation(str(saved / "enhancement.seg.nrrd"))
    assert loaded.GetAttribute("D3M.Synthetic") is None
    panel.parameters.reference = slicer.util.addVolumeFromArray(made.cemri.T.copy(), ijkToRAS=made.matrix, name="p_t1c")
    panel.parameters.referenceMask = loaded
    panel.ui.compareButton.click()
    assert "what a synthesis made" in panel.ui.errorLabel.text
    panel.result.nodes.segmentation.GetDisplayNode().SetVisibility(False)
    loaded.CreateDefaultDisplayNodes()
    loaded.GetDisplayNode().SetVisibility(True)
    slicer.util.setSliceViewerLayers(background=panel.parameters.t1)
    text = host.application.layoutManager().sliceWidget("Red").sliceView().cornerAnnotation().GetText(4)
    assert text.rstrip() == "mask of a synthesis: Enhancing tumour (predicted)"
