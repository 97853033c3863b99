"""The panel without T2 or without FLAIR: only with models that can, said before and with the result."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from qt_host import Host  # noqa: E402

SCANS = ("t1", "t2", "flair")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """The host with the user's folder of models in a place of its own."""
    monkeypatch.setenv("D3M_MODELS", str(tmp_path / "models"))
    with Host((120, 120)) as found:
        yield found


def volume(name: str) -> object:
    """A volume node with some voxels."""
    values = np.random.default_rng(len(name)).uniform(0, 100, (8, 9, 10)).astype(np.float32)
    return slicer.util.addVolumeFromArray(values, name=name)


def opened(host: Host, model: Path, names: tuple[str, ...]) -> object:
    """The panel with this model, and volumes of these names in the scene."""
    panel = host.openModule("D3MSynthesis").panel
    panel.models.importFrom(model)
    for name in names:
        volume(name)
    host.settle()
    return panel


def seen(widget: object) -> bool:
    """Whether a widget is shown when its section is open."""
    return bool(widget.isVisibleTo(widget.parent()))


@pytest.mark.parametrize("left_out", ["T2", "FLAIR"])
def test_one_scan_may_be_left_out_if_the_card_says_so(
    host: Host, able_model: Path, tiny_model: Path, left_out: str
) -> None:
    """The inputs and the line above the button say which scan is left out; other models ask for it."""
    panel = opened(host, able_model, tuple(f"p_{n}" for n in SCANS if n != left_out.lower()))
    ui = panel.ui
    assert ui.applyButton.enabled, ui.stateLabel.text
    assert ui.leftOutLabel.text.startswith(f"{left_out} is left out")
    assert "less exact" in ui.leftOutLabel.text
    assert seen(ui.leftOutLabel)
    assert ui.stateLabel.text.startswith("Ready")
    assert f"{left_out} is left out" in ui.stateLabel.text
    assert "patients" not in ui.leftOutLabel.text, "this card has no numbers of it"
    assert left_out in ui.cardText.toPlainText()
    panel.models.importFrom(tiny_model)
    assert not ui.applyButton.enabled
    assert ui.stateLabel.text == f"Choose {left_out}."
    assert not seen(ui.leftOutLabel)
    panel.models.importFrom(able_model)
    volume(f"p_{left_out.lower()}")
    host.settle()
    assert ui.applyButton.enabled
    assert not seen(ui.leftOutLabel)
    assert "left out" not in ui.stateLabel.text


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ((), "Choose T1, T2 and FLAIR."),
        (("p_t1",), "Choose T2 or FLAIR, or both."),
        (("p_t2",), "Choose T1."),
        (("p_t2", "p_flair"), "Choose T1."),
    ],
)
def test_not_both_and_never_t1(host: Host, able_model: Path, names: tuple[str, ...], reason: str) -> None:
    """T1 is always needed, and one of the others."""
    panel = opened(host, able_model, names)
    assert not panel.ui.applyButton.enabled
    assert panel.ui.stateLabel.text == reason
    assert not seen(panel.ui.leftOutLabel)


@pytest.mark.parametrize("role", ["flair", "reference"])
def test_what_the_user_emptied_stays_empty(host: Host, able_model: Path, tmp_path: Path, role: str) -> None:
    """Neither a new volume, nor another look at the module, nor the scene opened again fills it; the button does."""
    names = {"t1": "p_t1", "t2": "p_t2", "flair": "p_flair", "reference": "p_t1ce"}
    panel = opened(host, able_model, tuple(names.values()))
    selector = getattr(panel.ui, f"{role}Selector")
    assert selector.currentNode() is not None
    selector.setCurrentNode(None)
    others = {name for name in names if name != role}
    volume(f"p2_{names[role]}")
    volume(names[role])
    host.settle()
    assert getattr(panel.parameters, role) is None
    panel.exit()
    panel.enter()
    assert getattr(panel.parameters, role) is None
    assert host.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    host.clear()
    host.scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    host.settle()
    assert getattr(panel.parameters, role) is None
    assert all(getattr(panel.parameters, name) is not None for name in others)
    panel.ui.assignButton.click()
    assert getattr(panel.parameters, role) is not None
    selector.setCurrentNode(None)
    volume("p_other")
    host.settle()
    assert getattr(panel.parameters, role) is None, "who empties it again means it"


def test_what_was_emptied_for_one_patient_is_filled_for_the_next(host: Host, able_model: Path) -> None:
    """A scan that one patient lacks is no reason to leave out another's, which would pass as left out on purpose."""
    panel = opened(host, able_model, ("p_t1", "p_t2", "p_flair"))
    panel.ui.flairSelector.setCurrentNode(None)
    assert panel.parameters.emptied == "flair"
    panel.parameters.t1 = volume("p_t1w")
    host.settle()
    assert panel.parameters.emptied == "flair", "another T1 of the same patient"
    panel.parameters.t1, panel.parameters.t2 = volume("q_t1"), volume("q_t2")
    late = volume("q_flair")
    host.settle()
    assert panel.parameters.flair is late


def test_a_deleted_scan_may_be_replaced(host: Host, able_model: Path) -> None:
    """Who deletes a volume and loads it again has not emptied the selector; a new scene remembers nothing."""
    panel = opened(host, able_model, ("p_t1", "p_t2", "p_flair"))
    host.scene.RemoveNode(panel.parameters.flair)
    again = volume("p_flair")
    host.settle()
    assert panel.parameters.flair is again
    panel.ui.flairSelector.setCurrentNode(None)
    host.clear()
    for name in SCANS:
        volume(f"q_{name}")
    host.settle()
    assert panel.parameters.flair.GetName() == "q_flair"


def test_a_scene_that_is_added_empties_nothing(host: Host, able_model: Path, tmp_path: Path) -> None:
    """Selectors list all rows again at the end of an import (qMRMLSceneModel.cxx, line 1455): nobody chose nothing."""
    panel = opened(host, able_model, ("p_t1", "p_t2", "p_flair"))
    assert host.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    tag = host.scene.AddObserver(
        host.scene.EndImportEvent,
        lambda *_: [getattr(panel.ui, f"{n}Selector").setCurrentNode(None) for n in SCANS],
        1.0,
    )
    host.scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    host.scene.RemoveObserver(tag)
    host.settle()
    assert [getattr(panel.parameters, name).GetName() for name in SCANS] == ["p_t1", "p_t2", "p_flair"]
    assert panel.parameters.emptied == ""


@pytest.mark.long
def test_the_result_says_it(host: Host, able_model: Path, tiny_model: Path, tiny_case: object, tmp_path: Path) -> None:
    """A real run without FLAIR: in the list, the notices, nodes, the data tree, layouts, mask, files and DICOM."""
    import json

    import pydicom

    from D3MSynthesisLib import DicomExport, Runs

    panel = opened(host, able_model, ())
    for name in ("t1", "t2"):
        slicer.util.loadVolume(str(getattr(tiny_case, name)))
    host.settle()
    panel.parameters.device = "cpu"
    panel.ui.qualityBox.setCurrentIndex(0)
    panel.ui.applyButton.click()
    assert panel.logic.running, panel.ui.errorLabel.text
    host.until(lambda: not panel.logic.running, 120)
    ui, nodes = panel.ui, panel.result.nodes
    assert ui.errorLabel.text == ""
    assert nodes.t2 is panel.parameters.t2
    assert nodes.flair is None
    assert "without FLAIR" in ui.runBox.currentText
    assert "FLAIR was not given" in ui.noticesLabel.text
    assert nodes.provenance["missing"] == ["flair"]
    assert {node.GetAttribute("D3M.Missing") for node in nodes.all()} == {"flair"}
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(host.scene)
    assert "without FLAIR" in tree.GetItemName(nodes.folderItem)
    item = tree.GetItemByDataNode(nodes.cemri)
    assert "without FLAIR" in tree.GetItemAttribute(item, "DICOM.SeriesDescription")
    ui.contrastsButton.click()
    host.settle()
    shown = {view: host.views[view].logic.GetSliceCompositeNode().GetBackgroundVolumeID() for view in host.views}
    assert list(shown.values()).count(nodes.t2.GetID()) == 1
    assert None in shown.values(), "FLAIR's place stays empty"
    assert ui.steerButton.enabled
    panel.models.importFrom(tiny_model)
    assert not ui.steerButton.enabled
    assert "without FLAIR" in ui.steerButton.toolTip
    panel.models.importFrom(able_model)
    assert [run.missing for run in Runs.findRuns(host.scene)] == [["flair"]]
    (tmp_path / "saved").mkdir()
    panel.result.save.saveInto(tmp_path / "saved", False)
    (saved,) = (tmp_path / "saved").iterdir()
    assert json.loads((saved / "provenance.json").read_text())["missing"] == ["flair"]
    written = DicomExport.saveDicom(nodes, tmp_path)
    header = pydicom.dcmread(next((written.folder / "cemri").glob("*.dcm")), stop_before_pixels=True)
    assert "FLAIR was not given" in str(header)


@pytest.mark.parametrize("left_out", ["T2", "FLAIR"])
def test_what_leaving_out_costs_is_told(host: Host, left_out: str) -> None:
    """The sentence has the numbers of the default model's card, beside those with all three scans."""
    import json
    import re
    from pathlib import Path

    panel = host.openModule("D3MSynthesis").panel
    for name in (f"p_{n}" for n in SCANS if n != left_out.lower()):
        volume(name)
    host.settle()
    card = json.loads((Path(__file__).parents[2] / "Resources/Models/default/card.json").read_text())
    rows = next(one["rows"] for one in card["validation_without"] if one["contrast"] == left_out.lower())
    text = panel.ui.leftOutLabel.text
    for name, title, digits in (("psnr_tumour", "PSNR, tumour (dB)", 1), ("dice", "Dice of the mask", 2)):
        less, whole = (next(r["mean"] for r in found if r["name"] == name) for found in (rows, card["validation"]))
        found = re.search(rf"{re.escape(title)} ([\d.]+) instead of ([\d.]+)", text)
        assert found, text
        assert [float(number) for number in found.groups()] == [round(less, digits), round(whole, digits)]
    assert f"On {max(row['n'] for row in rows)} patients" in text
