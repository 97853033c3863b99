"""The panel in the host, over the real engine with a tiny model: run, progress, cancel, errors, results."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from qt_host import Host  # noqa: E402
from slicer_helpers import fake_engine  # noqa: E402

MARK = "synthetic, research use only"


def opened(host: Host, tiny_case: object, tiny_model: Path, reference: bool = True) -> object:
    """The panel with a tiny case loaded and a tiny model chosen."""
    panel = host.openModule("D3MSynthesis").panel
    panel.models.importFrom(tiny_model)
    names = ("t1", "t2", "flair", "t1c") if reference else ("t1", "t2", "flair")
    for name in names:
        slicer.util.loadVolume(str(getattr(tiny_case, name)))
    host.settle()
    panel.parameters.device = "cpu"
    return panel


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """The host with the user's folder of models in a place of its own."""
    monkeypatch.setenv("D3M_MODELS", str(tmp_path / "models"))
    with Host((120, 120)) as found:
        yield found


def run(host: Host, panel: object) -> list[str]:
    """Press the button and wait; returns what the line above it said."""
    said: list[str] = []
    panel.ui.applyButton.click()
    assert panel.logic.running, panel.ui.errorLabel.text

    def ended() -> bool:
        if panel.ui.stateLabel.text not in said:
            said.append(panel.ui.stateLabel.text)
        return not panel.logic.running

    host.until(ended, 120)
    return said


def nodes_of(host: Host) -> list[str]:
    """Identifiers of everything in the scene."""
    return [host.scene.GetNthNode(index).GetID() for index in range(host.scene.GetNumberOfNodes())]


@pytest.fixture(scope="module")
def done(
    tmp_path_factory: pytest.TempPathFactory, tiny_case: object, tiny_model: Path
) -> Iterator[tuple[Host, object, list[str]]]:
    """A finished run of three steps and a real T1c, and what was said meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D3M_MODELS", str(tmp_path_factory.mktemp("models")))
        with Host((120, 120)) as host:
            panel = opened(host, tiny_case, tiny_model)
            said = run(host, panel)
            yield host, panel, said


def background(host: Host, view: str = "Red") -> object:
    """The image in a slice view."""
    composite = host.views[view].logic.GetSliceCompositeNode()
    return host.scene.GetNodeByID(composite.GetBackgroundVolumeID() or "")


def foreground(host: Host) -> object:
    """The image over it, None if it is not seen."""
    composite = host.views["Red"].logic.GetSliceCompositeNode()
    return host.scene.GetNodeByID(composite.GetForegroundVolumeID() or "") if composite.GetForegroundOpacity() else None


def marked(host: Host, view: str) -> bool:
    """Whether a view says that what it shows is synthetic."""
    text = host.application.layoutManager().sliceWidget(view).sliceView().cornerAnnotation()
    return any(MARK in (text.GetText(corner) or "") for corner in range(8))


def test_result_is_shown_and_marked(done: tuple[Host, object, list[str]]) -> None:
    """After the run the synthetic image is in the views, marked, with its volume beside the threshold."""
    host, panel, _ = done
    nodes = panel.result.nodes
    assert background(host) is nodes.cemri
    assert panel.ui.errorLabel.text == ""
    assert f"{nodes.enhancingVolumeMl:.1f} ml" in panel.ui.volumeLabel.text
    for view in host.application.layoutManager().sliceViewNames():
        assert marked(host, view)
    assert panel.ui.applyButton.text == "Synthesize"
    assert not panel.ui.progressBar.isVisibleTo(panel.ui.progressBar.parent())


def test_progress_names_stages_steps_and_time(done: tuple[Host, object, list[str]]) -> None:
    """While it runs the line says what is done, which step of how many, and how long it will still take."""
    said = " | ".join(done[2])
    for text in ("Starting the engine", "Synthesising", "of 3", "left"):
        assert text in said


def test_table_beside_a_real_image(done: tuple[Host, object, list[str]]) -> None:
    """The table has the numbers of the comparison, to the digits shown."""
    _, panel, _ = done
    table, numbers = panel.ui.comparisonTable, panel.result.nodes.comparison
    rows = {table.item(row, 0).text(): table.item(row, 1).text() for row in range(table.rowCount)}
    assert rows["PSNR, brain (dB)"] == f"{numbers['psnr_brain']:.1f}"
    assert rows["missed (ml)"] == f"{numbers['false_negative_ml']:.1f}"
    assert rows["Enhancing tumour (ml)"] == f"{numbers['predicted_enhancing_volume_ml']:.1f}"


def test_overlays_change_the_views(done: tuple[Host, object, list[str]]) -> None:
    """Each choice shows its image or drawing, and "nothing" takes it away."""
    host, panel, _ = done
    nodes, ui = panel.result.nodes, panel.ui
    for index, expected in ((1, nodes.subtraction), (2, nodes.probability), (0, None)):
        ui.overlayBox.setCurrentIndex(index)
        assert foreground(host) is expected
    ui.deformationBox.setCurrentIndex(1)
    assert foreground(host) is nodes.magnitude
    assert background(host) is nodes.sample
    assert "millimetres" in ui.enlargementLabel.text
    ui.deformationBox.setCurrentIndex(2)
    assert foreground(host) is nodes.fieldMap
    assert "gained" in ui.enlargementLabel.text
    for index, kind in ((3, "VIS_MODE_GRID"), (4, "VIS_MODE_GLYPH")):
        ui.deformationBox.setCurrentIndex(index)
        display = nodes.drawn.GetDisplayNode()
        assert display.GetVisibility2D()
        assert display.GetVisualizationMode() == getattr(display, kind)
        factor = round(display.GetGridScalePercent() / 100)
        drawn = f"Drawn {factor} times larger than true" if factor > 1 else "Drawn true to scale"
        assert drawn in ui.enlargementLabel.text
        assert "the last step" in ui.enlargementLabel.text
    assert "by itself" in ui.pictureLabel.text
    ui.overlayBox.setCurrentIndex(2)  # an overlay belongs to the synthetic image
    assert background(host) is nodes.cemri
    assert not display.GetVisibility2D()
    assert ui.deformationBox.currentIndex == 0
    assert not ui.enlargementLabel.isVisibleTo(ui.enlargementLabel.parent())
    ui.overlayBox.setCurrentIndex(0)


def test_pictures(done: tuple[Host, object, list[str]]) -> None:
    """The synthetic image, its subtraction in grey, and the sample by itself; the panel says which is which."""
    host, panel, _ = done
    nodes, ui = panel.result.nodes, panel.ui
    for index, expected in ((1, nodes.subtraction), (2, nodes.sample), (0, nodes.cemri)):
        ui.pictureBox.setCurrentIndex(index)
        assert background(host) is expected
        assert ui.pictureLabel.isVisibleTo(ui.pictureLabel.parent()) == (index == 2)


@pytest.mark.parametrize("key", ["t1", "reference", "flip", "dragged"])
def test_nothing_is_told_of_a_picture_that_is_not_seen(done: tuple[Host, object, list[str]], key: str) -> None:
    """T1 or the real T1c in every view is neither the sample by itself nor coloured, and back they are."""
    host, panel, _ = done
    nodes, ui = panel.result.nodes, panel.ui
    ui.deformationBox.setCurrentIndex(1)
    host.settle()
    assert "by itself" in ui.pictureLabel.text
    assert "Colours" in ui.enlargementLabel.text
    if key == "flip":
        panel.result.onFlip()
    elif key == "dragged":
        slicer.util.setSliceViewerLayers(background=nodes.t1, foreground=None)
    else:
        panel.result.onOnly(key)
    host.settle()
    assert background(host) is (nodes.reference if key == "reference" else nodes.t1)
    assert ui.pictureLabel.text == ui.enlargementLabel.text == ""
    slicer.util.setSliceViewerLayers(background=nodes.sample, foreground=nodes.magnitude, foregroundOpacity=0.5)
    host.settle()
    assert "by itself" in ui.pictureLabel.text
    assert "Colours" in ui.enlargementLabel.text
    ui.deformationBox.setCurrentIndex(0)
    ui.pictureBox.setCurrentIndex(0)


def test_overlay_that_is_not_there_is_explained(done: tuple[Host, object, list[str]]) -> None:
    """Where there is no spread, or no map of the tumour, to be shown the panel says why."""
    host, panel, _ = done
    panel.ui.overlayBox.setCurrentIndex(3)
    assert foreground(host) is None
    assert "one sample" in panel.ui.pictureLabel.text
    panel.ui.overlayBox.setCurrentIndex(4)
    assert foreground(host) is None
    assert "whole brain" in panel.ui.pictureLabel.text
    panel.ui.overlayBox.setCurrentIndex(0)
    assert panel.ui.pictureLabel.text == ""


def test_mask_switches(done: tuple[Host, object, list[str]]) -> None:
    """Shown, filled, outlined and the opacity go to the segmentation."""
    _, panel, _ = done
    display, ui = panel.result.nodes.segmentation.GetDisplayNode(), panel.ui
    assert not display.GetVisibility2DFill(), "a filling would hide the enhancement"
    ui.fillBox.setChecked(True)
    assert display.GetVisibility2DFill()
    ui.fillBox.setChecked(False)
    ui.maskOpacitySlider.setValue(0.8)
    assert not display.GetVisibility2DFill()
    assert display.GetVisibility2DOutline()
    assert display.GetOpacity2DFill() == pytest.approx(0.8)
    ui.maskBox.setChecked(False)
    assert not display.GetVisibility()
    ui.maskBox.setChecked(True)
    assert display.GetVisibility()


def test_threshold_changes_mask_and_volume(done: tuple[Host, object, list[str]]) -> None:
    """The mask is the probability cut at the slider, voxel for voxel, and the volume follows."""
    _, panel, _ = done
    nodes = panel.result.nodes
    probability = slicer.util.arrayFromVolume(nodes.probability)
    level = float(np.round(np.percentile(probability[probability > 0], 60), 2))
    panel.ui.thresholdSlider.setValue(level)
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(nodes.segmentation, nodes.segmentID, nodes.cemri)
    np.testing.assert_array_equal(mask > 0, (probability >= level) & (probability > 0))
    ml = mask.sum() * np.prod(nodes.cemri.GetSpacing()) / 1000
    assert f"{ml:.1f} ml" in panel.ui.volumeLabel.text


def test_steps_are_replayed(done: tuple[Host, object, list[str]]) -> None:
    """The slider shows each step before and after its warp, and at its end the result again."""
    host, panel, _ = done
    nodes, ui = panel.result.nodes, panel.ui
    assert ui.stepSlider.maximum == nodes.steps == 3
    ui.stepSlider.setValue(1)
    after = slicer.util.arrayFromVolume(background(host)).copy()
    np.testing.assert_array_equal(after, slicer.util.arrayFromVolume(nodes.stepAfter.GetNthDataNode(0)))
    ui.stepImageBox.setCurrentIndex(0)
    before = slicer.util.arrayFromVolume(background(host))
    np.testing.assert_array_equal(before, slicer.util.arrayFromVolume(nodes.stepBefore.GetNthDataNode(0)))
    assert (before != after).any()
    ui.stepSlider.setValue(3)
    assert background(host) is not nodes.sample, "the last step before its warp is not the sample's end"
    ui.stepImageBox.setCurrentIndex(1)
    assert background(host) is nodes.sample
    ui.pictureBox.setCurrentIndex(0)
    assert background(host) is nodes.cemri


def test_slider_and_sequences_toolbar_follow_each_other(done: tuple[Host, object, list[str]]) -> None:
    """What the toolbar chooses is shown and told by the slider, and the other way round."""
    host, panel, _ = done
    nodes, ui = panel.result.nodes, panel.ui
    nodes.browser.SetSelectedItemNumber(0)
    assert ui.stepSlider.value == 1
    shown = slicer.util.arrayFromVolume(background(host))
    np.testing.assert_array_equal(shown, slicer.util.arrayFromVolume(nodes.stepAfter.GetNthDataNode(0)))
    ui.stepSlider.setValue(2)
    assert nodes.browser.GetSelectedItemNumber() == 1
    ui.stepSlider.setValue(3)
    ui.pictureBox.setCurrentIndex(0)


def test_steps_are_capped_by_the_card(done: tuple[Host, object, list[str]]) -> None:
    """More steps than the model was made for cannot be asked for."""
    _, panel, _ = done
    most = max(quality.steps for quality in panel.models.card.recipe.qualities)
    panel.ui.stepsBox.setValue(900)
    assert panel.parameters.steps == panel.ui.stepsBox.value == most
    panel.ui.stepsBox.setValue(0)


def test_fading_takes_overlays_away(done: tuple[Host, object, list[str]]) -> None:
    """Fading to the real image is not mixed with an overlay, and an overlay ends the fading."""
    host, panel, _ = done
    nodes, ui = panel.result.nodes, panel.ui
    ui.overlayBox.setCurrentIndex(1)
    ui.fadeSlider.setValue(0.5)
    assert foreground(host) is nodes.reference
    assert ui.overlayBox.currentIndex == 0
    ui.overlayBox.setCurrentIndex(1)
    assert foreground(host) is nodes.subtraction
    assert ui.fadeSlider.value == 0
    ui.overlayBox.setCurrentIndex(0)
    ui.fadeSlider.setValue(1.0)
    assert background(host) is nodes.reference
    assert not marked(host, "Red"), "nothing synthetic is seen any more"
    ui.fadeSlider.setValue(0.0)
    assert background(host) is nodes.cemri
    assert marked(host, "Red")


def test_fading_where_images_were_subtracted(done: tuple[Host, object, list[str]]) -> None:
    """Who has subtracted two images in a view has the mean of both again, not their difference, when she fades."""
    host, panel, _ = done
    ui = panel.ui
    ui.fadeSlider.setValue(0.5)
    expected = [view.grab() for view in host.views.values()]
    ui.fadeSlider.setValue(0.0)
    for view in host.views.values():
        composite = view.logic.GetSliceCompositeNode()
        composite.SetCompositing(composite.Subtract)
    ui.fadeSlider.setValue(0.5)
    for view, picture in zip(host.views.values(), expected, strict=True):
        np.testing.assert_array_equal(view.grab(), picture)
    ui.fadeSlider.setValue(0.0)


def test_flipping(done: tuple[Host, object, list[str]]) -> None:
    """One button, and one key, show T1 and the picture in turn at the same place."""
    host, panel, _ = done
    nodes = panel.result.nodes
    for expected in (nodes.t1, nodes.cemri, nodes.t1, nodes.cemri):
        panel.ui.flipButton.click()
        assert background(host) is expected
        assert marked(host, "Red") == (expected is nodes.cemri)
    keys = {shortcut.key.toString(): shortcut for shortcut in panel.result._shortcuts}
    for key, expected in (("Alt+T", nodes.t1), ("Alt+T", nodes.cemri), ("Alt+1", nodes.t1), ("Alt+3", nodes.reference),
                          ("Alt+2", nodes.cemri)):  # fmt: skip
        if key == "Alt+2":  # also where the real scan is seen
            panel.ui.fadeSlider.setValue(1.0)
        keys[key].activated.emit()
        assert background(host) is expected
    panel.ui.fadeSlider.setValue(1.0)
    panel.ui.sideBySideButton.click()
    assert background(host, "Yellow") is nodes.cemri
    panel.ui.fadeSlider.setValue(0.0)


def test_layout_buttons(done: tuple[Host, object, list[str]]) -> None:
    """Side by side has T1 and the synthetic image, linked; before/after has the last warp's two images."""
    host, panel, _ = done
    nodes, ui = panel.result.nodes, panel.ui
    ui.sideBySideButton.click()
    assert (background(host, "Red"), background(host, "Yellow")) == (nodes.t1, nodes.cemri)
    assert host.views["Red"].logic.GetSliceCompositeNode().GetLinkedControl()
    assert (marked(host, "Red"), marked(host, "Yellow")) == (False, True)
    ui.beforeAfterButton.click()
    assert (marked(host, "Red"), marked(host, "Yellow")) == (True, True)
    shown = [slicer.util.arrayFromVolume(background(host, view)) for view in ("Red", "Yellow")]
    np.testing.assert_array_equal(shown[0], slicer.util.arrayFromVolume(nodes.stepBefore.GetNthDataNode(2)))
    np.testing.assert_array_equal(shown[1], slicer.util.arrayFromVolume(nodes.stepAfter.GetNthDataNode(2)))
    ui.contrastsButton.click()
    for view, image in zip(("Red", "Slice4", "Green"), (nodes.t1, nodes.t2, nodes.flair), strict=True):
        assert background(host, view) is image
        assert not marked(host, view)
    ui.comparisonButton.click()
    assert background(host, "Green+") is nodes.reference
    assert background(host, "Yellow+") is nodes.error
    ui.fourUpButton.click()
    ui.pictureBox.setCurrentIndex(0)
    assert background(host, "Green") is nodes.cemri
    composite = host.views["Green"].logic.GetSliceCompositeNode()
    composite.SetBackgroundVolumeID(nodes.t1.GetID())  # by the view's own selector, without the panel
    assert not marked(host, "Green")
    composite.SetBackgroundVolumeID(nodes.cemri.GetID())
    assert marked(host, "Green")


def test_result_is_saved_as_files(done: tuple[Host, object, list[str]], tmp_path: Path) -> None:
    """The save button writes everything with its provenance; a folder that is not there is told in one sentence."""
    _, panel, _ = done
    panel.ui.saveFolder.directory = str(tmp_path)
    panel.ui.saveButton.click()
    (folder,) = tmp_path.iterdir()
    assert {"synthetic_cemri.nrrd", "enhancement.seg.nrrd", "deformation.nii.gz", "provenance.json"} <= {
        path.name for path in folder.iterdir()
    }
    assert str(folder) in panel.ui.savedLabel.text
    panel.ui.saveFolder.directory = str(tmp_path / "not there")
    panel.ui.saveButton.click()
    assert "cannot be saved" in panel.ui.errorLabel.text


@pytest.mark.long
def test_second_run_overwrites_nothing(host: Host, tiny_case: object, tiny_model: Path) -> None:
    """Two runs have nodes of their own; either can be shown, and one can be removed."""
    panel = opened(host, tiny_case, tiny_model)
    panel.parameters.keepSteps = False
    run(host, panel)
    first = panel.result.nodes
    kept = slicer.util.arrayFromVolume(first.cemri).copy()
    panel.ui.seedBox.setValue(3)
    run(host, panel)
    second = panel.result.nodes
    assert second.runID != first.runID
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(first.cemri), kept)
    assert panel.ui.runBox.count == 2
    panel.ui.runBox.setCurrentIndex(1)
    panel.result.onRun(1)
    assert background(host) is first.cemri
    panel.confirm = lambda question: False
    panel.ui.removeButton.click()
    assert first.cemri.GetScene() is not None, "who closes the question keeps the result"
    panel.confirm = lambda question: True
    panel.ui.removeButton.click()
    assert panel.result.nodes.runID == second.runID
    assert first.cemri.GetScene() is None
    host.scene.RemoveNode(second.cemri)
    host.settle()
    assert panel.result.nodes is None
    assert not panel.ui.resultsSection.enabled


def test_cancel_is_quick_and_leaves_the_scene(host: Host, tiny_case: object, tiny_model: Path, tmp_path: Path) -> None:
    """Cancel ends an engine that does not listen within two seconds; the scene is as before, and it can run again."""
    panel = opened(host, tiny_case, tiny_model)
    panel.logic._engine = fake_engine(tmp_path / "engine", "stubborn")
    before = nodes_of(host)
    panel.ui.applyButton.click()
    assert panel.ui.applyButton.text == "Cancel"
    host.until(lambda: "Starting" not in panel.ui.stateLabel.text, 20)
    start = time.monotonic()
    panel.ui.applyButton.click()
    assert not panel.ui.applyButton.enabled
    host.until(lambda: not panel.logic.running, 10)
    assert time.monotonic() - start < 2.0
    assert nodes_of(host) == before
    assert panel.ui.errorLabel.text == ""
    assert panel.ui.applyButton.text == "Synthesize"
    assert panel.ui.applyButton.enabled


def test_an_error_is_one_sentence_with_details_and_report(
    host: Host, tiny_case: object, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong and how to put it right stand in the panel, the log behind a button; the report has no names."""
    panel = opened(host, tiny_case, tiny_model, reference=False)
    t2 = panel.parameters.t2
    t2.SetName("MUELLER_ANNA_t2")
    slicer.util.arrayFromVolume(t2)[:] = 7.0
    before = nodes_of(host)
    run(host, panel)
    ui = panel.ui
    assert "T2" in ui.errorLabel.text
    assert nodes_of(host) == before
    assert not ui.detailsText.isVisibleTo(ui.detailsText.parent())
    ui.detailsButton.click()
    assert ui.detailsText.isVisibleTo(ui.detailsText.parent())
    ui.reportButton.click()
    report = host.qt.QApplication.clipboard().text()
    assert ui.errorLabel.text.split(".")[0] in report
    assert "MUELLER" not in report
    assert str(Path(tiny_case.t1).parent) not in report
    panel.ui.errorLabel.setText("")


@pytest.mark.long
def test_scene_closed_in_the_middle_of_a_run(host: Host, tiny_case: object, tiny_model: Path, tmp_path: Path) -> None:
    """The run ends with its scene, nothing of it arrives in the next one, and the panel works there."""
    panel = opened(host, tiny_case, tiny_model)
    panel.logic._engine = fake_engine(tmp_path / "engine", "stubborn")
    panel.ui.applyButton.click()
    host.until(lambda: "Starting" not in panel.ui.stateLabel.text, 20)
    host.clear()
    assert not panel.logic.running
    assert slicer.util.getNodesByClass("vtkMRMLSegmentationNode") == []
    assert "Choose" in panel.ui.stateLabel.text
    panel.logic._engine = None
    for name in ("t1", "t2", "flair"):
        slicer.util.loadVolume(str(getattr(tiny_case, name)))
    host.settle()
    run(host, panel)
    assert background(host) is panel.result.nodes.cemri


def test_module_closed_in_the_middle_of_a_run(host: Host, tiny_case: object, tiny_model: Path, tmp_path: Path) -> None:
    """A reload ends the run; the new panel starts fresh."""
    widget = host.openModule("D3MSynthesis")
    panel = widget.panel
    panel.models.importFrom(tiny_model)
    for name in ("t1", "t2", "flair"):
        slicer.util.loadVolume(str(getattr(tiny_case, name)))
    host.settle()
    panel.logic._engine = fake_engine(tmp_path / "engine", "stubborn")
    panel.ui.applyButton.click()
    host.until(lambda: "Starting" not in panel.ui.stateLabel.text, 20)
    again = host.reloadModule(widget).panel
    assert not panel.logic.running
    assert again.ui.applyButton.text == "Synthesize"
    assert again.ui.applyButton.enabled


def test_forecast_says_time_memory_and_device(host: Host, tiny_case: object, tiny_model: Path) -> None:
    """Before the run the line says how long it will take; more steps take longer; another device is not guessed."""
    panel = opened(host, tiny_case, tiny_model)
    panel.run.requestInfo()
    host.until(lambda: panel.info is not None, 60)
    panel.parameters.device = "auto"
    assert "About" in panel.ui.stateLabel.text
    assert "GB" in panel.ui.stateLabel.text
    panel.ui.stepsBox.setValue(1)
    few = panel.run.cost().seconds
    panel.ui.samplesBox.setValue(30)
    assert panel.run.cost().seconds > few
    panel.parameters.device = "cuda:7"
    assert panel.run.cost() is None
    assert panel.ui.deviceBox.count >= 2


@pytest.mark.long
def test_forecast_learns_from_a_run(host: Host, tiny_case: object, tiny_model: Path) -> None:
    """Where the machine was busy while its speed was measured, the time is right after the first run."""
    from dataclasses import replace

    panel = opened(host, tiny_case, tiny_model)
    panel.run.requestInfo()
    host.until(lambda: panel.info is not None, 60)
    models = tuple(
        replace(model, costs=tuple(replace(cost, seconds=cost.seconds + 3000) for cost in model.costs))
        for model in panel.info.models
    )
    panel.run.info = replace(panel.info, models=models)
    panel.update()
    assert "About 5" in panel.ui.stateLabel.text  # some 50 minutes
    start = time.monotonic()
    run(host, panel)
    elapsed = time.monotonic() - start
    assert panel.run.cost().seconds == pytest.approx(elapsed, abs=2)
    assert f"{round(elapsed / 60)} min" in panel.ui.stateLabel.text or " s and" in panel.ui.stateLabel.text


def test_declined_installation_is_told(host: Host, tiny_case: object, tiny_model: Path) -> None:
    """Who declines the installation is told that nothing was installed, and may press the button again."""
    panel = opened(host, tiny_case, tiny_model)
    import D3MSynthesisLib.RunPart as RunPart
    from D3MSynthesisLib.Engine import SynthesisError

    def ensure(*_arguments: object) -> None:
        raise SynthesisError("The packages were not installed.", "Press Synthesize to be asked again.", "machine")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunPart.Install, "ensure", ensure)
        panel.ui.applyButton.click()
    assert not panel.logic.running
    assert "asked again" in panel.ui.errorLabel.text
    assert panel.ui.applyButton.enabled


@pytest.mark.long
def test_real_tumour_counts_false_and_missed(host: Host, tiny_case: object, tiny_model: Path) -> None:
    """With the real tumour as a label volume the table counts against it; without a real T1c it is not used."""
    panel = opened(host, tiny_case, tiny_model)
    real = slicer.util.loadVolume(str(tiny_case.seg), {"labelmap": True})
    labels = slicer.util.arrayFromVolume(real)
    labels[:] = labels == 4
    panel.ui.referenceMaskSelector.setCurrentNode(real)
    panel.parameters.keepSteps = False
    run(host, panel)
    numbers = panel.result.nodes.comparison
    assert numbers["real_enhancement"] == "labels"
    ml = labels.sum() * np.prod(real.GetSpacing()) / 1000
    assert numbers["real_enhancing_volume_ml"] == pytest.approx(ml, rel=1e-3)
    panel.parameters.reference = None
    run(host, panel)
    assert panel.result.nodes.comparison is None


@pytest.mark.long
def test_comparison_after_the_run(host: Host, tiny_case: object, tiny_model: Path) -> None:
    """A real T1c that is chosen after the run gives the numbers that the engine gives when it is chosen before."""
    panel = opened(host, tiny_case, tiny_model)
    panel.parameters.keepSteps = False
    run(host, panel)
    expected = panel.result.nodes.comparison
    real = panel.parameters.reference
    panel.parameters.reference = None
    run(host, panel)
    nodes = panel.result.nodes
    assert nodes.comparison is None
    assert not panel.ui.compareButton.enabled
    panel.parameters.reference = real
    panel.ui.compareButton.click()
    assert nodes.reference is real
    for name, value in expected.items():
        if isinstance(value, float):
            assert nodes.comparison[name] == pytest.approx(value, abs=0.02), name
    assert panel.ui.comparisonTable.rowCount == 5
    assert panel.ui.fadeSlider.enabled
    real_label = slicer.util.loadVolume(str(tiny_case.seg), {"labelmap": True})
    labels = slicer.util.arrayFromVolume(real_label)
    labels[:] = labels == 4
    panel.parameters.referenceMask = real_label
    panel.ui.compareButton.click()
    ml = labels.sum() * np.prod(real_label.GetSpacing()) / 1000
    assert nodes.comparison["real_enhancement"] == "labels"
    assert nodes.comparison["real_enhancing_volume_ml"] == pytest.approx(ml, rel=1e-3)
