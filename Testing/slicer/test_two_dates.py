"""Two dates in the panel: a folder of `d3m follow-up` side by side, marked, and refused where it is none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import vtk
from slicer_helpers import MadeOutput

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from panel_helpers import MARK, background, imported, label_map, opened, press, tissues  # noqa: E402
from qt_host import Host  # noqa: E402

from d3m.results.follow_up import Change, Visit, compare_visits, write_follow_up  # noqa: E402
from d3m.volumes.io.read import read_raw  # noqa: E402

CENTRE, FAR = (31, 22, 22), (14, 30, 18)


def ball(shape: tuple[int, ...], centre: tuple[int, int, int], radius: float) -> np.ndarray:
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return np.linalg.norm(grid - centre, axis=-1) <= radius


def visit(case: Any, mask: np.ndarray, gain: float, spread: float = 0.05) -> Visit:
    """A date with this predicted tumour, which is brighter by `gain`."""
    t1 = read_raw(case.t1, "t1")
    volume = mask.sum() / 1000
    stated = {"model": {"weights_sha256": "ab"}, "settings": {"steps": 2}, "inputs": {}}
    samples = (volume - spread, volume, volume + spread)
    return Visit(t1, t1.data + gain * mask, mask, case.brain, samples, stated)


@pytest.fixture(scope="module")
def written(tiny_case: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Change]:
    """A tumour that grows, and a small one that vanishes; the folder's name holds what would steer a window."""
    shape = tiny_case.brain.shape
    before = visit(tiny_case, ball(shape, CENTRE, 4) | ball(shape, FAR, 2.2), 300)
    after = visit(tiny_case, ball(shape, CENTRE, 7), 500)
    change = compare_visits(before, after)
    folder = tmp_path_factory.mktemp("follow") / "patient <b>7"
    write_follow_up(folder, before, after, change)
    return folder, change


@pytest.fixture
def load(host: Host, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path | str], Any]:
    """Press the button and choose this folder; returns the panel."""
    panel = host.openModule("D3MSynthesis").panel

    def chosen(folder: Path | str) -> Any:
        monkeypatch.setattr(host.qt.QFileDialog, "getExistingDirectory", staticmethod(lambda *_: str(folder)))
        panel.ui.datesButton.click()
        host.settle()
        return panel

    return chosen


def layers(host: Host, view: str) -> tuple[Any, Any]:
    composite = host.views[view].logic.GetSliceCompositeNode()
    found = (composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID())
    return tuple(host.scene.GetNodeByID(one or "") for one in found)


def edge(host: Host, view: str) -> str:
    """What stands at the upper edge of a view."""
    return host.application.layoutManager().sliceWidget(view).sliceView().cornerAnnotation().GetText(7) or ""


def volumes() -> list[Any]:
    return list(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"))


def test_both_dates_lie_side_by_side(
    host: Host, load: Callable[[Path | str], Any], written: tuple[Path, Change]
) -> None:
    """Each image is what its file holds, where the file has it, under its date's name; the map lies over both."""
    folder, change = written
    panel = load(folder)
    assert panel.ui.errorLabel.text == ""
    for view, name, date in (("Red", "earlier_cemri", "earlier"), ("Yellow", "later_cemri", "later")):
        under, over = layers(host, view)
        image = nibabel.load(folder / f"{name}.nii.gz")
        np.testing.assert_allclose(slicer.util.arrayFromVolume(under), np.asarray(image.dataobj).T)
        index = np.array([20, 31, 12, 1.0])
        matrix = vtk.vtkMatrix4x4()
        under.GetIJKToRASMatrix(matrix)
        np.testing.assert_allclose(matrix.MultiplyPoint(index), image.affine @ index, atol=1e-4)
        assert f"{date} synthetic CEMRI" in under.GetName()
        assert over.GetClassName() == "vtkMRMLLabelMapVolumeNode"
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(over), change.labels.T)
        assert MARK in edge(host, view)
        assert f"{date} date" in edge(host, view)
        assert "red new" in edge(host, view)
    assert slicer.util.arrayFromVolume(layers(host, "Red")[1]).max() == 3
    table = layers(host, "Red")[1].GetDisplayNode().GetColorNode()
    assert [table.GetColorName(label) for label in (1, 2, 3)] == ["stable", "new", "vanished"]
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(layers(host, "Red")[1])
    assert legend.GetVisibility()
    assert legend.GetUseColorNamesForLabels()
    assert (
        host.scene.GetFirstNodeByClass("vtkMRMLLayoutNode").GetViewArrangement()
        == slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView
    )


def test_views_are_linked_at_the_largest_change(
    host: Host, load: Callable[[Path | str], Any], written: tuple[Path, Change]
) -> None:
    """Both views cut the new shell, not the smaller part that vanished; one layout later they are as before."""
    turned = {view: host.views[view].node.GetOrientation() for view in ("Red", "Yellow")}
    load(written[0])
    change = written[1]
    image = nibabel.load(written[0] / "change.nii.gz")
    nodes = {view: host.views[view].node for view in ("Red", "Yellow")}
    for view, node in nodes.items():
        assert host.views[view].logic.GetSliceCompositeNode().GetLinkedControl()
        assert node.GetOrientation() == "Axial"
    positions = [[node.GetSliceToRAS().GetElement(row, 3) for row in range(3)] for node in nodes.values()]
    np.testing.assert_allclose(*positions)
    k = round((np.linalg.inv(image.affine) @ [*positions[0], 1])[2])
    new = (change.labels == 2).sum((0, 1))
    assert new[k] == new.max()
    assert nodes["Red"].GetFieldOfView() == pytest.approx(nodes["Yellow"].GetFieldOfView())
    layout = host.scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    layout.SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    host.settle()
    assert {view: host.views[view].node.GetOrientation() for view in turned} == turned


def test_the_change_is_said(load: Callable[[Path | str], Any], written: tuple[Path, Change]) -> None:
    """Millilitres of both dates, the change with its interval, and that it is more than chance."""
    ui = load(written[0]).ui
    text = ui.datesLabel.text
    stated = json.loads((written[0] / "follow_up.json").read_text())
    assert text.startswith("patient <b>7: ")
    assert f"earlier {stated['earlier']['enhancing_ml']:.1f} ml, later {stated['later']['enhancing_ml']:.1f} ml" in text
    assert written[1].sentence() in text
    assert f"{stated['interval_ml'][0]:+.1f} to {stated['interval_ml'][1]:+.1f} ml" in text
    assert "more than repeated synthesis varies by" in text
    assert "research use only" in text
    assert not ui.datesLabel.isHidden()


def test_the_panel_has_room_for_it(host: Host, load: Callable[[Path | str], Any], written: tuple[Path, Change]) -> None:
    """The sentence stands below the button, as wide as the panel, and the panel fits a screen."""
    ui = load(written[0]).ui
    widget = slicer.modules.d3msynthesis.widgetRepresentation().self()
    assert len(host.panelPicture(widget)) <= 800
    label, button = (found.geometry for found in (ui.datesLabel, ui.applyButton))
    assert label.width() >= button.width() - 2
    assert label.top() >= button.bottom()


def test_windows_are_alike(host: Host, load: Callable[[Path | str], Any], tiny_case: Any, tmp_path: Path) -> None:
    """The same tissue is as grey at both dates though the later scanner has another scale and enhances more."""
    mask = ball(tiny_case.brain.shape, CENTRE, 5)
    one, other = visit(tiny_case, mask, 300), visit(tiny_case, mask, 900)
    change = compare_visits(one, other)
    write_follow_up(tmp_path / "scales", one, other, replace(change, later_cemri=3 * change.later_cemri))
    load(tmp_path / "scales")
    shown = []
    for view in ("Red", "Yellow"):
        node = layers(host, view)[0]
        display = node.GetDisplayNode()
        low, high = display.GetWindowLevelMin(), display.GetWindowLevelMax()
        shown.append((slicer.util.arrayFromVolume(node)[22, 36, 14] - low) / (high - low))
    assert shown[0] == pytest.approx(shown[1], abs=0.05)
    assert 0.1 < shown[0] < 0.9


def test_no_change_is_no_change(load: Callable[[Path | str], Any], tiny_case: Any, tmp_path: Path) -> None:
    """A difference that repeated synthesis makes as well is said to be none; views are cut at what is stable."""
    mask = ball(tiny_case.brain.shape, CENTRE, 5)
    one, other = visit(tiny_case, mask, 300, 0.3), visit(tiny_case, mask, 300, 0.3)
    change = compare_visits(one, other)
    write_follow_up(tmp_path / "same", one, other, change)
    text = load(tmp_path / "same").ui.datesLabel.text
    assert "No change in predicted enhancement beyond the variation" in text
    assert "more than repeated" not in text


def test_a_saved_scene_keeps_marks_and_sentence(
    host: Host, load: Callable[[Path | str], Any], written: tuple[Path, Change], tmp_path: Path
) -> None:
    """After it was opened again every image is synthetic, named and captioned; deleting it takes the sentence away."""
    panel = load(written[0])
    said = panel.ui.datesLabel.text
    assert host.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    host.clear()
    assert panel.ui.datesLabel.text == ""
    host.scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    host.settle()
    assert panel.ui.datesLabel.text == said
    from D3MSynthesisLib.Assignment import isSynthetic

    found = volumes()
    assert len(found) == 3
    assert len({node.GetAttribute("D3M.Run") for node in found}) == 1
    for node in found:
        assert node.GetAttribute("D3M.Synthetic") == "yes"
        node.SetAttribute("D3M.Synthetic", None)
        assert isSynthetic(node), "its name alone says so"
        node.SetAttribute("D3M.Synthetic", "yes")
    labels = next(node for node in found if node.IsA("vtkMRMLLabelMapVolumeNode"))
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(labels), written[1].labels.T)
    assert MARK in edge(host, "Red")
    assert "later date" in edge(host, "Yellow")
    host.scene.RemoveNode(labels)
    host.settle()
    assert panel.ui.datesLabel.text == ""


def test_data_tree_and_export(host: Host, load: Callable[[Path | str], Any], written: tuple[Path, Change]) -> None:
    """One folder in the data tree; Slicer's exporter is proposed a description that begins with the mark."""
    load(written[0])
    load(written[0])
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(host.scene)
    parents: dict[int, int] = {}
    for node in volumes():
        item = tree.GetItemByDataNode(node)
        parents[tree.GetItemParent(item)] = parents.get(tree.GetItemParent(item), 0) + 1
        assert tree.GetItemAttribute(item, "DICOM.SeriesDescription").startswith("SYNTHETIC")
        assert tree.GetItemAttribute(item, "DICOM.Modality") == "OT"
    assert list(parents.values()) == [3, 3]
    assert len({tree.GetItemName(item) for item in parents}) == 2
    assert len({node.GetName() for node in volumes()}) == 6


def test_beside_a_run(host: Host, made: MadeOutput, written: tuple[Path, Change]) -> None:
    """The mask of another patient's run does not lie over the dates; its picture comes without their map."""
    panel = opened(host, made)
    press(host, panel)
    result = panel.result.nodes
    assert result.segmentation.GetDisplayNode().GetVisibility()
    strange = label_map(np.ones(made.t1.T.shape, np.uint8), made.matrix, "another run's")
    strange.SetAttribute("D3M.Run", "another")
    host.views["Red"].logic.GetSliceCompositeNode().SetLabelVolumeID(strange.GetID())
    panel.loadTwoDates(written[0])
    host.settle()
    assert not host.views["Red"].logic.GetSliceCompositeNode().GetLabelVolumeID()
    assert not result.segmentation.GetDisplayNode().GetVisibility()
    assert "earlier synthetic" in background(host).GetName()
    assert [panel.ui.runBox.count, panel.result.nodes is result] == [1, True], "it is no run"
    assert "views show another result" in panel.ui.volumeLabel.text, "the volume is the run's, not of these dates"
    assert not any(getattr(panel.parameters, name) in layers(host, "Red") for name in ("t1", "t2", "flair"))
    panel.ui.fourUpButton.click()
    host.settle()
    assert layers(host, "Red") == (result.cemri, None)


def broken(folder: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    path = copy / "follow_up.json"
    stated = json.loads(path.read_text())
    path.write_text(json.dumps(change(stated) or stated))
    return copy


def rewritten(
    folder: Path, name: str, change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
) -> None:
    image = nibabel.load(folder / name)
    nibabel.save(nibabel.Nifti1Image(*change(np.asarray(image.dataobj), image.affine)), folder / name)


def other_grid(data: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return data, affine + np.diag([0, 0, 0.5, 0])


def other_labels(data: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.where(data == 2, 7, data).astype(np.uint8), affine


def cut(data: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return data[:-3], affine


def test_folders_that_are_none_are_refused(
    host: Host, load: Callable[[Path | str], Any], written: tuple[Path, Change], made: MadeOutput, tmp_path: Path
) -> None:
    """A sentence with a way out for each, and nothing new in the scene."""
    folder = written[0]
    cases: list[tuple[Path, str]] = [
        (tmp_path, "holds no comparison of two dates"),
        (made.folder, "holds no comparison"),
    ]

    def copied(name: str) -> Path:
        shutil.copytree(folder, tmp_path / name)
        return tmp_path / name

    (copied("missing") / "later_cemri.nii.gz").unlink()
    cases.append((tmp_path / "missing", "later_cemri.nii.gz is missing"))
    packed = copied("short") / "earlier_cemri.nii.gz"
    packed.write_bytes(packed.read_bytes()[:2000])
    cases.append((tmp_path / "short", "EARLIER_CEMRI"))
    (copied("text") / "follow_up.json").write_text("{broken")
    cases.append((tmp_path / "text", "comparison of two dates"))
    for name, file, change, said in (
        ("grid", "later_cemri.nii.gz", other_grid, "another grid"),
        ("cut", "change.nii.gz", cut, "another grid"),
        ("labels", "change.nii.gz", other_labels, "labels that no comparison has"),
    ):
        rewritten(copied(name), file, change)
        cases.append((tmp_path / name, said))
    for path, said in cases:
        panel = load(path)
        assert said in panel.ui.errorLabel.text, path
        assert panel.ui.datesLabel.text == ""
    assert volumes() == []
    assert slicer.util.getNodesByClass("vtkMRMLLabelMapVolumeNode") == []


@pytest.mark.parametrize("label", [False, True])
def test_no_mask_of_anybody_lies_over_them(
    host: Host, load: Callable[[Path | str], Any], made: MadeOutput, written: tuple[Path, Change], label: bool
) -> None:
    """A tumour that is in the scene may be another patient's: it is hidden, and named where it is shown again."""
    panel = opened(host, made)
    mask = (label_map if label else imported)(tissues(made.t1.T.shape), made.matrix)

    def show() -> None:
        if label:
            slicer.util.setSliceViewerLayers(label=mask)
        else:
            mask.GetDisplayNode().SetVisibility(True)
        host.settle()

    def edge() -> str:
        return host.application.layoutManager().sliceWidget("Red").sliceView().cornerAnnotation().GetText(4) or ""

    show()
    press(host, panel)
    load(written[0])
    composite = host.views["Red"].logic.GetSliceCompositeNode()
    seen = bool(composite.GetLabelVolumeID()) if label else bool(mask.GetDisplayNode().GetVisibility())
    assert not seen
    assert edge().strip() == ""
    show()
    assert edge().startswith("of another patient, examination or run: p_seg")


@pytest.mark.parametrize(
    "change",
    [
        lambda stated: stated.pop("sentence") and None,
        lambda stated: stated.update(synthetic=False),
        lambda stated: stated.update(interval_ml=[1.0]),
        lambda stated: stated.update(new_ml="much"),
        lambda stated: stated.update(new_ml=1e300),
        lambda stated: stated.update(beyond_repetition="yes"),
        lambda stated: stated.update(labels={"stable": 2, "new": 1, "vanished": 3}),
        lambda stated: stated.update(earlier=[1]),
        lambda stated: stated.update(notices="none"),
        lambda stated: stated.update(sentence=7),
    ],
)
def test_numbers_of_another_kind_are_refused(
    load: Callable[[Path | str], Any],
    written: tuple[Path, Change],
    tmp_path: Path,
    change: Callable[[dict[str, Any]], Any],
) -> None:
    """What the file says is not trusted."""
    panel = load(broken(written[0], tmp_path, change))
    assert "is not what `d3m follow-up` writes" in panel.ui.errorLabel.text
    assert volumes() == []


def test_a_sentence_that_floods_or_steers(
    load: Callable[[Path | str], Any], written: tuple[Path, Change], tmp_path: Path
) -> None:
    """It is shown as one short line of plain text; what the comparison noticed is said as well."""

    def change(stated: dict[str, Any]) -> None:
        stated["sentence"] = "No\nchange \u202e" + "x" * 10_000
        stated["notices"] = [{"message": "Both results were made from the same T1."}]

    text = load(broken(written[0], tmp_path, change)).ui.datesLabel.text
    assert len(text) < 800
    assert "\n" not in text
    assert "\u202e" not in text
    assert "from the same T1" in text


def test_closing_the_dialog_changes_nothing(load: Callable[[Path | str], Any]) -> None:
    """Nothing is chosen: nothing is loaded, nothing is said."""
    panel = load("")
    assert volumes() == []
    assert panel.ui.datesLabel.text == ""
    assert panel.ui.errorLabel.text == ""
