"""The panel and a picture from a mask: edited, hidden in part, or of another patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from slicer_helpers import MadeOutput, save, write_provenance

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from panel_helpers import SCANS, moved, opened, press, slow  # noqa: E402
from qt_host import Host  # noqa: E402


def test_a_mask_to_synthesize_from_is_not_another_patients(host: Host, made: MadeOutput) -> None:
    """It was chosen beside one patient's result; beside another one's it would make a picture unasked."""
    panel = opened(host, made)
    press(host, panel)
    for scan in SCANS:
        node = slicer.util.addVolumeFromArray(made.t1.T + 9, ijkToRAS=made.matrix, name=f"q_{scan}")
        setattr(panel.parameters, scan, node)
    press(host, panel)
    press(host, panel)
    mask = slicer.util.addVolumeFromArray(made.mask.T.astype(np.uint8), ijkToRAS=made.matrix, name="drawn")
    panel.parameters.enhancementMask = mask
    panel.result.onRun(1)
    assert panel.parameters.enhancementMask is mask, "another run of the same patient"
    panel.exit()
    panel.enter()
    assert panel.parameters.enhancementMask is mask
    panel.result.onRun(2)
    assert panel.result.nodes.t1.GetName() == "p_t1"
    assert panel.parameters.enhancementMask is None


def test_synthesis_from_an_edited_mask(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """The card says how it is done; the mask as edited reaches the engine, and the result is called given."""
    import json
    from dataclasses import dataclass

    from d3m.volumes.preprocess.case import read_volume
    from D3MSynthesisLib import Grids

    panel = opened(host, made)
    press(host, panel)
    ui, nodes = panel.ui, panel.result.nodes
    assert "changed afterwards" in ui.steerButton.toolTip, "this model's card does not say that it follows a mask"

    @dataclass
    class Card:
        """A card that says so."""

        mask_steering: bool = True

        def __getattr__(self, name: str) -> object:
            return getattr(kept, name)

    kept = panel.models.card
    panel.models.card = Card()
    panel.update()
    assert "by itself." in ui.steerButton.toolTip
    assert ui.steerButton.enabled
    edited = made.mask.T.copy()
    edited[: len(edited) // 2] = False
    Grids.writeMask(nodes.segmentation, nodes.segmentID, edited, Grids.matrixOf(nodes.cemri))
    host.settle()
    (made.folder / "provenance.json").unlink()  # the engine gives a mask that it was given as probabilities of 0 and 1
    save(made.folder / "enhancement_probability.nii.gz", made.mask.astype(np.float32), made.matrix)
    write_provenance(made.folder)
    content = json.loads((made.folder / "provenance.json").read_text())
    content["given_mask"] = {"sha256": "0" * 64, "way": "stream"}
    (made.folder / "provenance.json").write_text(json.dumps(content))
    engine = slow(host, panel, made, ui.steerButton)
    host.until((engine / "arguments.json").exists, 20)
    arguments = json.loads((engine / "arguments.json").read_text())
    given = read_volume(Path(arguments[arguments.index("--enhancement-mask") + 1]), "brain_mask")
    np.testing.assert_array_equal(given.data > 0, edited.T)
    (engine / "go.txt").write_text("")
    host.until(lambda: not panel.logic.running, 30)
    assert panel.ui.errorLabel.text == ""
    assert "given: <b>" in ui.volumeLabel.text
    assert "made from this mask" in ui.editedLabel.text
    assert not ui.thresholdSlider.enabled, "there is no probability to be cut"
    segment = panel.result.nodes.segmentation.GetSegmentation().GetSegment(panel.result.nodes.segmentID)
    assert segment.GetName() == "Enhancing tumour (given)"


def test_masks_of_an_earlier_patient_are_not_kept(host: Host, made: MadeOutput) -> None:
    """The next patient's T1 is chosen by hand: masks go; another T1 of the same patient leaves them."""
    panel = opened(host, made)
    p = panel.parameters
    mask = slicer.util.addVolumeFromArray(made.mask.T.astype(np.uint8), ijkToRAS=made.matrix, name="brain mask")
    again, other = (
        slicer.util.addVolumeFromArray(made.t1.T + 9, ijkToRAS=made.matrix, name=name) for name in ("p_t1w", "q_t1")
    )
    p.brainMask = p.enhancementMask = mask
    p.acrossStudies = True
    p.t1 = again
    assert p.brainMask is mask
    p.t1 = other
    assert (p.brainMask, p.enhancementMask, p.acrossStudies) == (None, None, False)
    p.brainMask = mask
    panel.exit()
    panel.enter()
    assert panel.parameters.t1 is other
    assert panel.parameters.brainMask is mask


def test_a_hidden_part_of_the_mask_is_synthesized_from(host: Host, made: MadeOutput) -> None:
    """The volume that is told is of the whole mask, and so is the picture, whatever the eye of a segment says."""
    import json

    from d3m.volumes.preprocess.case import read_volume

    panel = opened(host, made)
    press(host, panel)
    nodes = panel.result.nodes
    nodes.segmentation.GetDisplayNode().SetSegmentVisibility(nodes.segmentID, False)
    engine = slow(host, panel, made, panel.ui.steerButton)
    host.until((engine / "arguments.json").exists, 20)
    arguments = json.loads((engine / "arguments.json").read_text())
    given = read_volume(Path(arguments[arguments.index("--enhancement-mask") + 1]), "brain_mask")
    (engine / "go.txt").write_text("")
    host.until(lambda: not panel.logic.running, 30)
    np.testing.assert_array_equal(given.data > 0, made.mask)


def test_masks_of_scans_without_names_are_not_kept(host: Host, made: MadeOutput) -> None:
    """Two T1 that say nothing of a patient may be of two; the same T1 with its transform applied is one."""
    panel = opened(host, made, ("T1", "T2", "FLAIR"))
    p = panel.parameters
    p.brainMask = mask = slicer.util.addVolumeFromArray(made.mask.T.astype(np.uint8), ijkToRAS=made.matrix, name="m")
    moved(p.t1, "transform")
    panel.ui.hardenButton.click()
    assert p.t1.GetName() == "T1 hardened"
    assert p.brainMask is mask
    p.t1 = slicer.util.addVolumeFromArray(made.t1.T + 9, ijkToRAS=made.matrix, name="T1 (2)")
    assert p.brainMask is None
