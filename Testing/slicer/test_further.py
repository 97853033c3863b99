"""The panel with models that take ADC or SWI as well: selectors for these alone, and the engine gets what is chosen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from qt_host import Host  # noqa: E402


@pytest.fixture(scope="module")
def adc_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that takes ADC."""
    import torch

    from d3m.diffusion.networks.slice import build_network
    from d3m.models.load import save_model
    from d3m.models.store import read_card

    card = read_card(tiny_model)
    torch.manual_seed(5)
    sizes = replace(card.recipe.network, further=1)
    network = build_network(sizes)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    recipe = replace(card.recipe, network=sizes)
    card = replace(card, name="further", recipe=recipe, contrasts=("t1", "t2", "flair", "adc"))
    folder = tmp_path_factory.mktemp("further") / "further"
    save_model(folder, card, network.state_dict())
    return folder


def volume(name: str) -> object:
    """A volume node with some voxels."""
    values = np.random.default_rng(len(name)).uniform(0, 100, (8, 9, 10)).astype(np.float32)
    return slicer.util.addVolumeFromArray(values, name=name)


def seen(widget: object) -> bool:
    """Whether a widget is shown when its section is open."""
    return bool(widget.isVisibleTo(widget.parent()))


def shown(ui: object) -> list[str]:
    """Which of the selectors of further scans are shown, with their titles."""
    found = [name for name in ("adc", "swi") if seen(getattr(ui, f"{name}Selector"))]
    assert found == [name for name in ("adc", "swi") if seen(getattr(ui, f"{name}SelectorTitle"))]
    return found


def test_a_selector_for_what_the_card_names(host: Host, adc_model: Path, tiny_model: Path) -> None:
    """It is filled by name; what is missing is told; with another model nothing of it counts."""
    panel = host.openModule("D3MSynthesis").panel
    nodes = {name: volume(f"p_{name}") for name in ("t1", "t2", "flair", "adc", "swi")}
    host.settle()
    ui, p = panel.ui, panel.parameters
    assert shown(ui) == []
    assert p.adc is None
    panel.models.importFrom(adc_model)
    assert shown(ui) == ["adc"]
    assert (p.adc, p.swi) == (nodes["adc"], None)
    assert "ADC" in ui.cardText.toPlainText()
    assert ui.applyButton.enabled
    assert "left out" not in ui.stateLabel.text
    ui.adcSelector.setCurrentNode(None)
    host.settle()
    assert ui.applyButton.enabled, "it is optional"
    assert ui.leftOutLabel.text.startswith("ADC is left out")
    assert "ADC is left out" in ui.stateLabel.text
    volume("p_adc_again")
    host.settle()
    assert p.adc is None, "it was emptied on purpose"
    p.adc = nodes["t2"]
    assert ui.stateLabel.text == "T2 and ADC are the same volume."
    assert not ui.applyButton.enabled
    panel.models.importFrom(tiny_model)
    assert shown(ui) == []
    assert ui.applyButton.enabled, "this model does not take it, so it is not looked at"


def test_another_patients_map_is_not_kept(host: Host, adc_model: Path) -> None:
    """When T1 becomes another patient's, the map of the one before goes, as masks do."""
    panel = host.openModule("D3MSynthesis").panel
    panel.models.importFrom(adc_model)
    for name in ("t1", "t2", "flair", "adc"):
        volume(f"p_{name}")
    host.settle()
    assert panel.parameters.adc is not None
    panel.parameters.t1 = volume("q_t1")
    host.settle()
    assert panel.parameters.adc is None
    panel.parameters.t2, panel.parameters.flair = volume("q_t2"), volume("q_flair")
    late = volume("q_ADC")
    host.settle()
    assert panel.parameters.adc is late


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        ("p_t1 p_t2 p_flair q_adc", None),
        ("p_t1 p_t2 p_flair p_adc p_adc2", None),
        ("3:T1_AX 4:AX_T2 5:FLAIR 6:ep2d_diff_ADC", "6:ep2d_diff_ADC"),
        ("3:T1_AX 4:AX_T2 5:FLAIR 6:ADC_mask 7:eADC", None),
        ("T1 T2 FLAIR Apparent_Diffusion_Coefficient", "Apparent_Diffusion_Coefficient"),
    ],
    ids=["of another", "two", "scanner", "no map", "in words"],
)
def test_a_map_is_found_by_name(host: Host, adc_model: Path, names: str, chosen: str | None) -> None:
    """Of the same examination, and only where there is one: nothing optional is guessed."""
    panel = host.openModule("D3MSynthesis").panel
    panel.models.importFrom(adc_model)
    for name in names.split():
        volume(name)
    host.settle()
    assert panel.parameters.flair is not None
    found = panel.parameters.adc
    assert (None if found is None else found.GetName()) == chosen


@pytest.mark.long
def test_the_engine_gets_it(host: Host, adc_model: Path, tiny_model: Path, tiny_case: object, tmp_path: Path) -> None:
    """A real run with and without ADC: other pictures, and provenance and notices say which; a new picture from the
    mask has it again, after the scene was opened anew, too."""
    from D3MSynthesisLib import Grids
    from D3MSynthesisLib.Engine import SynthesisError

    panel = host.openModule("D3MSynthesis").panel
    panel.models.importFrom(adc_model)
    for name in ("t1", "t2", "flair"):
        slicer.util.loadVolume(str(getattr(tiny_case, name)))
    host.settle()
    p, ui = panel.parameters, panel.ui
    values = slicer.util.arrayFromVolume(p.t2)
    adc = slicer.util.addVolumeFromArray(np.where(values > 0, 2000 - 3 * values, 0), name="adc of this patient")
    adc.CopyOrientation(p.t2)
    p.adc, p.device = adc, "cpu"
    ui.qualityBox.setCurrentIndex(0)

    def run(button: object) -> object:
        button.click()
        assert panel.logic.running, ui.errorLabel.text
        host.until(lambda: not panel.logic.running, 120)
        assert ui.errorLabel.text == ""
        return panel.result.nodes

    given = run(ui.applyButton)
    assert set(given.provenance["inputs"]) == {"t1", "t2", "flair", "adc"}
    assert given.missing == []
    assert given.adc is adc
    p.adc = None
    without = run(ui.applyButton)
    assert without.missing == ["adc"]
    assert "ADC was not given" in ui.noticesLabel.text
    pictures = [slicer.util.arrayFromVolume(nodes.cemri) for nodes in (given, without)]
    assert np.abs(pictures[0] - pictures[1]).max() > 0
    assert ui.steerButton.enabled, "nothing that the model needs is missing"
    panel.result.onRun(1)
    assert panel.result.nodes.runID == given.runID
    drawn = pictures[0] > np.percentile(pictures[0], 98)
    Grids.writeMask(given.segmentation, given.segmentID, drawn, Grids.matrixOf(given.cemri))
    assert host.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    host.clear()
    host.scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    host.settle()
    assert panel.parameters.model == "further"
    index = [nodes.runID for nodes in reversed(panel.result.runs)].index(given.runID)
    panel.result.onRun(index)
    steered = run(ui.steerButton)
    assert set(steered.provenance["inputs"]) == {"t1", "t2", "flair", "adc"}
    host.scene.RemoveNode(steered.adc)
    host.settle()
    assert not ui.steerButton.enabled
    assert "no longer in the scene" in ui.steerButton.toolTip
    p = panel.parameters
    with pytest.raises(SynthesisError, match="does not take ADC"):
        panel.logic.run(
            p.t1, p.t2, p.flair, "preview", further={"adc": volume("adc")}, model=str(tiny_model), device="cpu"
        )
