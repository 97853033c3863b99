"""The panel in the host: inputs, settings, and that they live in the scene."""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from slicer_helpers import affine

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from qt_host import Host  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
UI = ROOT / "D3MSynthesis/Resources/UI/D3MSynthesis.ui"
LIBRARY = ROOT / "D3MSynthesis/D3MSynthesisLib"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """The host with the user's folder of models in a place of its own."""
    monkeypatch.setenv("D3M_MODELS", str(tmp_path / "models"))
    with Host((120, 120)) as found:
        yield found


def volume(name: str, seed: int = 0) -> object:
    """A volume node with some voxels."""
    values = np.random.default_rng(seed).uniform(0, 100, (8, 9, 10)).astype(np.float32)
    return slicer.util.addVolumeFromArray(values, ijkToRAS=affine("LPS", (10, 9, 8)), name=name)


def chosen(panel: object) -> list[str | None]:
    """Names of the chosen T1, T2, FLAIR and real T1c."""
    nodes = [getattr(panel.parameters, name) for name in ("t1", "t2", "flair", "reference")]
    return [None if node is None else node.GetName() for node in nodes]


def test_label_maps_and_hidden_volumes_are_no_scans(host: Host) -> None:
    """What a selector does not list is not chosen by its name either."""
    panel = host.openModule("D3MSynthesis").panel
    label = host.scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "p_t1")
    hidden = volume("p_t2")
    hidden.SetHideFromEditors(True)
    scan = volume("p_flair")
    host.settle()
    panel.ui.assignButton.click()
    assert chosen(panel) == [None, None, "p_flair", None]
    del label, scan


def widgets_of_ui() -> dict[str, str]:
    """Names and classes of the widgets in the .ui file."""
    return {node.get("name"): node.get("class") for node in ElementTree.parse(UI).iter("widget")}


def test_every_widget_that_is_used_is_in_the_ui_file() -> None:
    """A misspelt or removed widget would fail only when a user presses something."""
    names = widgets_of_ui()
    used = set()
    for path in LIBRARY.glob("*.py"):
        used |= set(re.findall(r"\bui\.([A-Za-z]\w+)", path.read_text(encoding="utf-8")))
    assert used > {"applyButton", "stepSlider"}
    assert used <= set(names), used - set(names)


def test_every_bound_widget_has_a_parameter(host: Host) -> None:
    """Each SlicerParameterName is a field of the parameter node, each field is bound or set by a list of the panel."""
    bound = {
        prop.find("string").text
        for prop in ElementTree.parse(UI).iter("property")
        if prop.get("name") == "SlicerParameterName"
    }
    from D3MSynthesisLib.Parameters import D3MSynthesisParameterNode

    fields = set(D3MSynthesisParameterNode.__annotations__)
    assert bound <= fields
    assert fields - bound == {"model", "device", "emptied"}  # lists that are known only when the panel is shown


def test_banner_is_always_there(host: Host) -> None:
    """The line about synthetic images stands outside every section that can be closed."""
    tree = ElementTree.parse(UI)
    sections = [node for node in tree.iter("widget") if node.get("class") == "ctkCollapsibleButton"]
    assert not any(inner.get("name") == "researchLabel" for section in sections for inner in section.iter("widget"))
    panel = host.openModule("D3MSynthesis").panel
    assert "research use only" in panel.ui.researchLabel.text


def test_inputs_are_assigned_by_their_names(host: Host) -> None:
    """Scans that come later than the panel are chosen when their names say what they are; a mask is not a scan."""
    panel = host.openModule("D3MSynthesis").panel
    assert not panel.ui.applyButton.enabled
    for name in ("BraTS-PED-1-t2f", "BraTS-PED-1-seg", "BraTS-PED-1-t1n", "BraTS-PED-1-t2w", "BraTS-PED-1-t1c"):
        volume(name)
    host.settle()
    assert chosen(panel) == [f"BraTS-PED-1-{kind}" for kind in ("t1n", "t2w", "t2f", "t1c")]
    assert panel.ui.t1Selector.currentNode().GetName() == "BraTS-PED-1-t1n"
    assert panel.ui.applyButton.enabled


def test_dicom_descriptions_decide_too(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Series without telling names are assigned by their DICOM descriptions."""
    texts = {"1.1": "AX T1 MPRAGE", "1.2": "AX T2 TSE", "1.3": "AX FLAIR", "1.4": "AX T1 MPRAGE +C"}

    class Database:
        def instanceValue(self, uid: str, tag: str) -> str:
            return texts[uid] if tag == "0008,103E" else ""

    monkeypatch.setattr(slicer, "dicomDatabase", Database(), raising=False)
    panel = host.openModule("D3MSynthesis").panel
    for number, uid in enumerate(texts):
        node = volume(f"{number}: series")
        node.SetAttribute("DICOM.instanceUIDs", uid)
    host.settle()
    assert chosen(panel) == ["0: series", "1: series", "2: series", "3: series"]


def test_what_the_user_chose_stays(host: Host) -> None:
    """A new volume does not replace a choice; "Assign by name" takes what else is of the patient whose T1 is chosen."""
    panel = host.openModule("D3MSynthesis").panel
    volume("a_t1")
    other, own = volume("b_t1"), volume("b_t2")
    host.settle()
    panel.ui.t1Selector.setCurrentNode(other)
    volume("a_t2")
    volume("a_flair")
    host.settle()
    assert chosen(panel)[0] == "b_t1"
    panel.ui.assignButton.click()
    p = panel.parameters
    assert [p.t1, p.t2, p.flair] == [other, own, None]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ((), "Choose T1, T2 and FLAIR."),
        (("p_t1", "p_t2"), "Choose FLAIR."),
        (("p_t1", "p_t2", "p_flair"), None),
    ],
)
def test_the_line_says_why_it_cannot_run(
    host: Host, tiny_model: Path, names: tuple[str, ...], reason: str | None
) -> None:
    """The button is enabled only when everything is there, and its reason stands above it and in its tip."""
    panel = host.openModule("D3MSynthesis").panel
    panel.models.importFrom(tiny_model)
    for name in names:
        volume(name)
    host.settle()
    assert panel.ui.applyButton.enabled == (reason is None)
    assert panel.ui.applyButton.toolTip == (reason or "")
    assert panel.ui.stateLabel.text.startswith(reason or "Ready")


def test_t1_with_contrast_is_refused(host: Host) -> None:
    """The T1 that already shows contrast cannot be chosen as input without being told."""
    panel = host.openModule("D3MSynthesis").panel
    for name in ("p_t1", "p_t2", "p_flair", "p_t1ce"):
        volume(name)
    host.settle()
    panel.parameters.reference = None
    panel.ui.t1Selector.setCurrentNode(slicer.util.getNode("p_t1ce"))
    assert not panel.ui.applyButton.enabled
    assert "before contrast" in panel.ui.stateLabel.text


def test_transforms_are_told_and_can_be_hardened(host: Host) -> None:
    """A scan under a transform is named; the offered copies are chosen, the scan itself stays as it is."""
    panel = host.openModule("D3MSynthesis").panel
    nodes = [volume(name) for name in ("p_t1", "p_t2", "p_flair")]
    host.settle()
    assert not panel.ui.hardenButton.isVisibleTo(panel.ui.hardenButton.parent())
    transform = host.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    nodes[1].SetAndObserveTransformNodeID(transform.GetID())
    assert "T2" in panel.ui.transformLabel.text
    panel.ui.hardenButton.click()
    assert panel.parameters.t2 is not nodes[1]
    assert panel.parameters.t2.GetParentTransformNode() is None
    assert nodes[1].GetParentTransformNode() is transform
    assert panel.parameters.t1 is nodes[0]
    assert panel.ui.transformLabel.text == ""


def test_voxels_that_come_late_are_seen(host: Host) -> None:
    """A reader announces a node before it has voxels: the button is ready as soon as they are there."""
    panel = host.openModule("D3MSynthesis").panel
    late = host.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "p_t1")
    for name in ("p_t2", "p_flair"):
        volume(name)
    host.settle()
    assert panel.ui.stateLabel.text == "T1 has no voxels."
    slicer.util.updateVolumeFromArray(late, np.ones((8, 9, 10), np.float32))
    assert panel.ui.applyButton.enabled


def test_what_was_cleared_stays_clear(host: Host) -> None:
    """A real T1c that the user took away does not come back because a node of another kind is added."""
    panel = host.openModule("D3MSynthesis").panel
    volume("p_t1ce")
    host.settle()
    assert chosen(panel)[3] == "p_t1ce"
    panel.ui.referenceSelector.setCurrentNode(None)
    host.scene.AddNewNodeByClass("vtkMRMLModelNode", "model")
    host.settle()
    assert chosen(panel)[3] is None


def test_a_label_map_can_be_the_brain_mask(host: Host) -> None:
    """The selector lists label maps, which are a class of their own for it, and segmentations."""
    panel = host.openModule("D3MSynthesis").panel
    for kind in ("vtkMRMLLabelMapVolumeNode", "vtkMRMLSegmentationNode"):
        node = host.scene.AddNewNodeByClass(kind, "mask")
        host.settle()
        panel.ui.brainMaskSelector.setCurrentNode(node)
        assert panel.parameters.brainMask is node
        assert kind in list(panel.ui.brainMaskSelector.nodeTypes)


def test_a_scene_brings_no_interpreter(host: Host, tmp_path: Path) -> None:
    """What is started is what was typed on this machine, whatever a scene that was opened says."""
    panel = host.openModule("D3MSynthesis").panel
    panel.parameters.python = "/somebody/elses/python"
    assert host.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    panel.parameters.python = ""
    panel.ui.pythonEdit.setText("/mine")
    panel.ui.pythonEdit.textEdited.emit("/mine")
    host.clear()
    assert panel.parameters.python == "/mine"
    host.scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    host.settle()
    assert panel.parameters.python == "/mine"
    assert panel.ui.pythonEdit.text == "/mine"


def test_a_scene_of_another_version_does_not_break_the_panel(host: Host) -> None:
    """A choice that this version does not know costs that setting, not the panel."""
    panel = host.openModule("D3MSynthesis").panel
    panel.ui.seedBox.setValue(5)
    panel.exit()
    node = panel.logic.getParameterNode()
    node.SetDisableModifiedEvent(True)  # as if it had been read from a file
    node.SetParameter("quality", "FASTEST")
    node.SetDisableModifiedEvent(False)
    panel.enter()
    assert panel.parameters.quality.name == "STANDARD"
    assert panel.ui.seedBox.value == 5
    assert panel.ui.stateLabel.text == "Choose T1, T2 and FLAIR."


def test_labels_are_buddies_and_plain_text(host: Host) -> None:
    """A screen reader finds the name of a field; what files and models say is never taken for markup."""
    panel = host.openModule("D3MSynthesis").panel
    rows = ("maskButtonsTitle", "layoutButtonsTitle")  # several widgets with texts of their own
    titles = [name for name in widgets_of_ui() if name.endswith("Title") and name not in rows]
    assert len(titles) > 20
    assert [name for name in titles if getattr(panel.ui, name).buddy() is None] == []
    for label in (panel.ui.errorLabel, panel.ui.noticesLabel, panel.ui.savedLabel, panel.ui.stateLabel):
        assert label.textFormat == host.qt.Qt.PlainText


def test_settings_come_back_with_a_saved_scene(host: Host, tmp_path: Path) -> None:
    """Inputs, settings and the look of results are restored from the scene file, into the widgets too."""
    panel = host.openModule("D3MSynthesis").panel
    for name in ("p_t1", "p_t2", "p_flair"):
        volume(name)
    host.settle()
    ui = panel.ui
    ui.seedBox.setValue(77)
    ui.qualityBox.setCurrentIndex(2)
    ui.keepStepsBox.setChecked(False)
    ui.maskOpacitySlider.setValue(0.6)
    ui.deformationBox.setCurrentIndex(2)
    assert host.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    host.clear()
    assert chosen(panel)[:3] == [None, None, None]
    assert ui.seedBox.value == 0
    host.scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    host.settle()
    assert chosen(panel)[:3] == ["p_t1", "p_t2", "p_flair"]
    assert (ui.seedBox.value, ui.qualityBox.currentIndex, ui.keepStepsBox.checked) == (77, 2, False)
    assert ui.maskOpacitySlider.value == pytest.approx(0.6)
    assert ui.deformationBox.currentIndex == 2


def test_values_out_of_range_cannot_be_set(host: Host) -> None:
    """A script that sets a parameter gets an error, not a run that fails later."""
    panel = host.openModule("D3MSynthesis").panel
    with pytest.raises(ValueError, match="range"):
        panel.parameters.steps = 5000


def test_models_can_be_imported_chosen_and_removed(
    host: Host, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An imported model is chosen and its card shown; removal is asked for, and the one that ships stays."""
    panel = host.openModule("D3MSynthesis").panel
    ui, questions = panel.ui, []
    assert not ui.removeModelButton.enabled
    assert "Limits:" in ui.cardText.toPlainText()
    monkeypatch.setattr(host.qt.QFileDialog, "getExistingDirectory", staticmethod(lambda *_: str(tiny_model)))
    ui.importButton.click()
    assert ui.errorLabel.text == ""
    assert panel.parameters.model == panel.models.card.name != "default"
    assert ui.removeModelButton.enabled
    assert panel.ui.errorLabel.text == ""
    ui.importButton.click()
    assert "already" in ui.errorLabel.text
    panel.confirm = lambda question: questions.append(question)  # neither yes nor no: a closed window
    ui.removeModelButton.click()
    assert ui.removeModelButton.enabled
    panel.confirm = lambda question: True
    ui.removeModelButton.click()
    assert len(questions) == 1
    assert panel.parameters.model == ""
    assert panel.models.card.name == "default"
    assert [ui.modelBox.itemText(index) for index in range(ui.modelBox.count)] == ["default"]


def test_card_text_is_never_markup(host: Host) -> None:
    """What an imported card says cannot change the panel: tags are shown as they are."""
    from dataclasses import replace

    from d3m.models.store import find_model, read_card
    from D3MSynthesisLib.ModelPart import cardText

    card = replace(read_card(find_model(None)), title="<img src='file:///x'>", limits="<b>none</b>")
    text = cardText(card)
    assert "<img" not in text
    assert "&lt;b&gt;none" in text


def test_a_missing_model_is_named(host: Host) -> None:
    """A scene that was saved with a model that is not on this computer says so, and cannot run until it is changed."""
    panel = host.openModule("D3MSynthesis").panel
    for name in ("p_t1", "p_t2", "p_flair"):
        volume(name)
    host.settle()
    panel._chooseModel("elsewhere")
    assert not panel.ui.applyButton.enabled
    assert "elsewhere" in panel.ui.stateLabel.text
    panel._chooseModel("")
    assert panel.ui.applyButton.enabled


def test_reload_lets_go_of_everything(host: Host) -> None:
    """After a reload the old panel hears nothing any more, and the new one has the scene's settings."""
    widget = host.openModule("D3MSynthesis")
    widget.panel.ui.seedBox.setValue(5)
    old = widget.panel
    again = host.reloadModule(widget)
    assert old.parameters is None
    volume("x_t1")
    host.settle()
    assert old.parameters is None
    assert again.panel.ui.seedBox.value == 5
    assert chosen(again.panel)[0] == "x_t1"


def test_sample_case_is_registered_and_loaded(host: Host) -> None:
    """Sample Data lists the case with files that exist; the panel's button loads and chooses it."""
    panel = host.openModule("D3MSynthesis").panel
    (given,) = host.samples
    from urllib.parse import unquote, urlparse

    assert all(Path(unquote(urlparse(uri).path)).is_file() for uri in given["uris"])
    assert Path(given["thumbnailFileName"]).is_file()
    panel.ui.sampleButton.click()
    assert chosen(panel) == ["sample_t1", "sample_t2", "sample_flair", "sample_t1c"]
    import nibabel

    path = ROOT / "Resources/SampleData/sample_seg.nii.gz"
    enhancing = np.asarray(nibabel.load(path).dataobj) == 4
    label = slicer.util.arrayFromVolume(panel.parameters.referenceMask)
    np.testing.assert_array_equal(label.T > 0, enhancing)
    for uri, checksum in zip(given["uris"], given["checksums"], strict=True):
        content = Path(unquote(urlparse(uri).path)).read_bytes()
        assert checksum == f"SHA256:{hashlib.sha256(content).hexdigest()}"


def test_masks_of_an_earlier_patient_are_not_kept(host: Host) -> None:
    """Who turns to the sample has no mask of the patient before; assigning the same patient's scans again keeps it."""
    panel = host.openModule("D3MSynthesis").panel
    for name in ("p_t1", "p_t2", "p_flair"):
        volume(name)
    host.settle()
    mask = host.scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "mask")
    for name in ("brainMask", "referenceMask", "enhancementMask"):
        setattr(panel.parameters, name, mask)
    panel.ui.assignButton.click()
    assert panel.parameters.brainMask is mask
    panel.ui.sampleButton.click()
    assert panel.parameters.brainMask is None
    assert panel.parameters.enhancementMask is None
    assert panel.parameters.referenceMask is not mask


def test_an_error_in_a_handler_is_shown(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect behind a button is told with its details in the application, and is an error where tests run."""
    from D3MSynthesisLib.Handlers import guarded

    def fails() -> None:
        raise RuntimeError("a defect of ours")

    told: list[tuple[str, str]] = []
    monkeypatch.setattr(
        slicer.util, "errorDisplay", lambda text, detailedText="", **_: told.append((str(text), str(detailedText)))
    )
    monkeypatch.setattr(host.application, "testingEnabled", lambda: False)
    with pytest.raises(RuntimeError):  # the console has it, too
        guarded(fails)()
    ((text, details),) = told
    assert "this did not work" in text
    assert "a defect of ours" in text + details
