"""Several runs in one panel: whose each is, which one is looked at, and what the next press of the button does."""

from __future__ import annotations

from pathlib import Path

import pytest
from slicer_helpers import MadeOutput, fake_engine

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from panel_helpers import SCANS, choose, opened, press, read, scans, slow  # noqa: E402
from qt_host import Host  # noqa: E402

from D3MSynthesisLib import Captions  # noqa: E402


def test_a_second_run_is_not_listed_under_the_next_patients_t1(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """Files of equal names: Slicer calls Jones's T1 "t1_1", and no result of Smith's may be called so."""
    panel = host.openModule("D3MSynthesis").panel
    panel.logic._engine = fake_engine(tmp_path / "engine", "finish", made.folder)
    smith = read(host, made, tmp_path / "smith", *SCANS)
    press(host, panel)
    assert panel.ui.inputsSection.collapsed
    jones = read(host, made, tmp_path / "jones", *SCANS)
    assert jones[0].GetName() == "t1_1"
    # the selectors still have Smith's scans: they are seen again, and the line above the button says so
    assert not panel.ui.inputsSection.collapsed
    assert panel.ui.stateLabel.text.startswith("Ready for t1, but the views show")
    press(host, panel)
    assert panel.result.nodes.t1 is smith[0]
    assert panel.ui.runBox.currentText.startswith("t1 (run 2) (")
    for node in panel.result.nodes.all():
        if node is not None:
            assert not node.GetName().startswith("t1_1"), node.GetName()
    choose(panel, jones)
    host.settle()
    assert "This is a result of t1, not of the T1 that is chosen now" in panel.ui.volumeLabel.text
    press(host, panel)
    assert panel.result.nodes.t1 is jones[0]
    titles = [panel.ui.runBox.itemText(index).split(" (standard")[0] for index in range(panel.ui.runBox.count)]
    assert titles == ["t1_1", "t1 (run 2)", "t1"]
    for node in smith:
        host.scene.RemoveNode(node)
    host.settle()
    panel.ui.runBox.setCurrentIndex(1)
    panel.result.onRun(1)
    host.settle()
    assert "This is a result of t1, not of the T1 that is chosen now" in panel.ui.volumeLabel.text


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [("2020", "2021", "smith_{}"), ("", "", "smith_{}_{}")],
    ids=["a folder for each date", "dates in names"],
)
def test_files_of_two_dates(host: Host, made: MadeOutput, tmp_path: Path, first: str, second: str, name: str) -> None:
    """Names that begin alike do not make scans of two dates one: nothing of the first goes to the second unasked."""
    panel = host.openModule("D3MSynthesis").panel
    panel.logic._engine = fake_engine(tmp_path / "engine", "finish", made.folder)
    old, new = (
        read(host, made, tmp_path / "smith" / folder, *(name.format(scan, date) for scan in (*SCANS, "t1c")))
        for folder, date in ((first, "2020"), (second, "2021"))
    )
    asked: list[str] = []
    panel.confirm = lambda question: bool(asked.append(question)) or True
    runs = []
    for files in (old, new):
        panel.parameters.reference = None
        choose(panel, files[:3])
        host.settle()
        press(host, panel)
        runs.append(panel.result.nodes)
    # the first date's T1c and mask beside the second date's result
    slicer.util.setSliceViewerLayers(foreground=old[3], foregroundOpacity=0.5)
    assert old[3].GetName() in Captions.strangeCaption(host.scene, "Red")
    panel.parameters.enhancementMask = runs[0].segmentation
    host.settle()
    assert "belongs to a result of another T1" in panel.ui.steerLabel.text + panel.ui.whoseLabel.text
    panel.parameters.enhancementMask = runs[1].segmentation
    panel.result.onRun(1)  # the run before
    host.settle()
    assert panel.parameters.enhancementMask is None
    # the second date's T1c beside the first date's result
    panel.parameters.reference = new[3]
    host.settle()
    panel.ui.compareButton.click()
    assert len(asked) == 1
    assert "patient and date" in asked[0]


def test_a_run_of_an_earlier_versions_scene_is_told_from_another_t1s(host: Host, made: MadeOutput) -> None:
    """There Slicer numbered the runs of a T1: "t1 synthetic CEMRI_1" is the second of t1."""
    panel = opened(host, made, ("t1", "t2", "flair"))
    press(host, panel)
    cemri = panel.result.nodes.cemri
    cemri.RemoveAttribute("D3M.T1Name")
    cemri.SetName("t1 synthetic CEMRI_1")
    panel.result.refresh()
    assert panel.ui.runBox.currentText.startswith("t1 (run 2) (")


def test_the_step_that_is_told_is_the_one_in_the_views(host: Host, made: MadeOutput) -> None:
    """Jones's run ends while Smith's first step is looked at: the panel goes on telling Smith's first step."""
    panel = opened(host, made, ("smith_t1", "smith_t2", "smith_flair"))
    press(host, panel)
    smith = [getattr(panel.parameters, name) for name in SCANS]
    choose(panel, scans(made, "jones_t1", "jones_t2", "jones_flair"))
    host.settle()
    engine = slow(host, panel, made)
    choose(panel, smith)
    host.settle()
    panel.ui.deformationBox.setCurrentIndex(1)
    panel.ui.stepSlider.setValue(1)
    host.settle()
    before = panel.ui.enlargementLabel.text
    (engine / "go.txt").write_text("")
    host.until(lambda: not panel.logic.running, 20)
    host.settle()
    assert panel.result.nodes.t1 is smith[0]
    assert panel.ui.stepSlider.value == 1
    assert panel.ui.enlargementLabel.text == before


def test_the_fade_is_told_as_the_views_have_it(host: Host, made: MadeOutput) -> None:
    """Half of the real T1c is seen; another module is visited: the slider says half afterwards as well."""
    panel = opened(host, made)
    (panel.parameters.reference,) = scans(made, "p_t1c")
    press(host, panel)
    panel.ui.fadeSlider.setValue(0.5)
    host.settle()
    panel.exit()
    panel.enter()
    host.settle()
    assert panel.ui.fadeSlider.value == pytest.approx(0.5)


def test_after_a_run_was_removed_step_and_fade_are_told_as_the_views_have_them(host: Host, made: MadeOutput) -> None:
    """The older run is shown in the panel: its step was chosen before, and half of the real T1c is still seen."""
    panel = opened(host, made)
    (panel.parameters.reference,) = scans(made, "p_t1c")
    press(host, panel)
    panel.ui.stepSlider.setValue(1)
    host.settle()
    press(host, panel)
    panel.ui.fadeSlider.setValue(0.5)
    host.settle()
    panel.confirm = lambda _question: True
    panel.ui.removeButton.click()
    host.settle()
    assert panel.ui.runBox.count == 1
    assert panel.ui.stepSlider.value == 1
    assert panel.ui.fadeSlider.value == pytest.approx(0.5)


def test_a_saved_result_is_told_to_be_older_than_the_mask(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """The mask is changed after saving: "Saved in ..." does not go on standing below it."""
    panel = opened(host, made)
    press(host, panel)
    panel.result.save.saveInto(tmp_path, False)
    assert panel.ui.savedLabel.text.startswith("Saved in")
    segmentation = panel.result.nodes.segmentation.GetSegmentation()
    segmentation.RemoveSegment(segmentation.GetNthSegmentID(0))
    host.settle()
    assert "changed after the result was saved" in panel.ui.savedLabel.text


def test_the_samples_label_is_not_saved_over_its_file(host: Host) -> None:
    """The label in the scene is the enhancing tumour alone: its node names no file that it would be saved to."""
    panel = host.openModule("D3MSynthesis").panel
    panel.ui.sampleButton.click()
    host.settle()
    assert panel.parameters.referenceMask.GetStorageNode() is None
    assert panel.ui.masksLabel.text == ""
