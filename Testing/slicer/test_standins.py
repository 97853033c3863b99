"""The stand-ins behave as the widgets that they stand in for, where a test of the panel depends on it.

Files and lines are of Slicer 583e9b37 (5.13, August 2026) and of CTK 868d56c7. What is real here: Qt's own widgets,
MRML, `slicer.util`. What only the application can show stands in `docs/slicer_protocol.md`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from qt_host import Host, widgets  # noqa: E402


@pytest.fixture
def host() -> Iterator[Host]:
    """The host."""
    with Host((60, 60)) as found:
        yield found


@pytest.fixture
def selector(host: Host) -> tuple[widgets.StandInNodeComboBox, list[object], list[object]]:
    """A selector of scalar volumes that may be empty, three volumes, and the nodes that it told."""
    found = widgets.StandInNodeComboBox()
    found.nodeTypes, found.noneEnabled, found.showChildNodeTypes = ["vtkMRMLScalarVolumeNode"], True, False
    found.setMRMLScene(host.scene)
    nodes = [slicer.util.addVolumeFromArray(np.zeros((2, 3, 4), np.float32), name=name) for name in "abc"]
    told: list[object] = []
    found.currentNodeChanged.connect(told.append)
    return found, nodes, told


def test_selector_starts_empty(selector: tuple[widgets.StandInNodeComboBox, list[object], list[object]]) -> None:
    """With `noneEnabled` a new scene and new nodes choose nothing.

    qMRMLNodeComboBox.cxx, lines 790 to 868 (setMRMLScene: without an earlier node the empty identifier is chosen) and
    901 to 925 (setCurrentNodeIDInternal: an unknown identifier is row 0, "None").
    """
    found, _, told = selector
    assert found.currentNode() is None
    assert told == []


def test_selector_tells_a_choice(selector: tuple[widgets.StandInNodeComboBox, list[object], list[object]]) -> None:
    """A choice by node is told as a node, and a node of the same name is another choice.

    qMRMLNodeComboBox.cxx, lines 719 to 745 (emitCurrentNodeChanged) and 1195 (Qt's currentTextChanged, which Qt sends
    with every change of the row, equal texts included).
    """
    found, nodes, told = selector
    nodes[1].SetName("a")
    found._refresh()
    found.setCurrentNode(nodes[0])
    found.setCurrentNode(nodes[1])
    assert told == nodes[:2]


def test_selector_takes_the_row_above_a_deleted_node(
    selector: tuple[widgets.StandInNodeComboBox, list[object], list[object]],
) -> None:
    """When the chosen node is deleted, the node of the row above is chosen: the panel must empty the choice before.

    qMRMLSceneModel.cxx, lines 381 (the row goes on NodeAboutToBeRemovedEvent, priority -10) and 1184 to 1224; Qt's
    combo box then chooses row - 1; qMRMLNodeComboBox.cxx, line 719, tells that node.
    """
    found, nodes, told = selector
    found.setCurrentNode(nodes[2])
    slicer.mrmlScene.RemoveNode(nodes[2])
    assert found.currentNode() is nodes[1]
    assert told[-1] is nodes[1]


def test_panel_does_not_take_the_row_above(host: Host) -> None:
    """Who deletes T2 has to choose one; no other scan slips into its place, masks and the real T1c alike."""
    panel = host.openModule("D3MSynthesis").panel
    names = {"t1": "p_t1", "t2": "p_t2", "flair": "p_flair", "reference": "p_t1ce", "brainMask": "p_mask"}
    for parameter, name in names.items():
        node = slicer.util.addVolumeFromArray(np.ones((8, 9, 10), np.float32), name=name)
        setattr(panel.parameters, parameter, node)
    host.settle()
    for parameter in ("brainMask", "reference", "flair", "t2"):
        others = {other: getattr(panel.parameters, other) for other in names if other != parameter}
        slicer.mrmlScene.RemoveNode(getattr(panel.parameters, parameter))
        host.settle()
        assert getattr(panel.parameters, parameter) is None
        assert {other: getattr(panel.parameters, other) for other in others} == others
    assert panel.ui.stateLabel.text.startswith("Choose T2 ")


def test_hidden_nodes_are_not_listed(
    selector: tuple[widgets.StandInNodeComboBox, list[object], list[object]],
) -> None:
    """What is drawn from (a node hidden from editors) cannot be chosen as a scan.

    qMRMLSortFilterProxyModel.cxx, line 233 (filterAcceptsRow): HideFromEditors leaves a node out without showHidden.
    """
    found, nodes, _ = selector
    nodes[0].SetHideFromEditors(True)
    found._refresh()
    assert found._identifiers == ["", nodes[1].GetID(), nodes[2].GetID()]


def test_label_maps_are_a_class_of_their_own(
    host: Host, selector: tuple[widgets.StandInNodeComboBox, list[object], list[object]]
) -> None:
    """Without `showChildNodeTypes` exactly the named classes are listed.

    qMRMLSortFilterProxyModel.cxx, line 276 (filterAcceptsRow): the class name must be equal.
    """
    found, nodes, _ = selector
    label = host.scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "label")
    assert label.GetID() not in found._identifiers
    assert len(found._identifiers) == 1 + len(nodes)


def test_slider_is_cut_to_its_range_and_tells_it(host: Host) -> None:
    """A smaller maximum cuts the value and tells the new one; values are rounded to the decimals.

    ctkSliderWidget.cpp, lines 238 to 253 (setMaximum: the spin box cuts, the slider follows and tells) and 305 to 321
    (setValue goes to the spin box, which rounds). Of the setters value and decimals are slots, the others properties
    (ctkSliderWidget.h, lines 51 to 67 and 275 to 280).
    """
    slider = widgets.StandInSliderWidget()
    slider.maximum, slider.decimals = 10.0, 0
    told: list[float] = []
    slider.valueChanged.connect(told.append)
    slider.setValue(7.6)
    slider.maximum = 3.0
    assert told == [8.0, 3.0]
    assert not hasattr(slider, "setMaximum")
    del host


def test_section_keeps_what_it_holds(host: Host) -> None:
    """A closed section opens with its widgets as they were; what was hidden stays hidden.

    ctkCollapsibleButton.cpp, lines 121 to 161 and 740 to 772: children are hidden while it is closed, and the wish of
    whoever hides or shows one meanwhile is kept in "visibilityToParent". The stand-in is only made low.
    """
    panel = host.openModule("D3MSynthesis").panel
    ui = panel.ui
    for collapsed in (True, False):
        ui.inputsSection.collapsed = collapsed
        assert ui.inputsSection.collapsed == collapsed
        assert not ui.hardenButton.isVisibleTo(ui.inputsSection)
    assert ui.t1Selector.isVisibleTo(ui.inputsSection)


def test_folder_button_tells_its_folder(host: Host) -> None:
    """The folder is a property; setting another one tells it. ctkDirectoryButton.cpp, lines 143 to 170; .h, line 57."""
    button = widgets.StandInDirectoryButton()
    told: list[str] = []
    button.directoryChanged.connect(told.append)
    button.directory = "/somewhere"
    assert told == ["/somewhere"]
    assert button.directory == "/somewhere"
    del host


def test_layouts_have_the_views_that_the_panel_fills(host: Host) -> None:
    """Two over two: Red, Slice4, Green, Yellow; three over three: Red, Green, Yellow, Red+, Green+, Yellow+.

    vtkMRMLLayoutLogic.cxx, lines 558 (twoOverTwoView) and 296 (threeOverThreeView); the layout manager makes views that
    are missing when the layout is chosen (qMRMLLayoutManager.cxx, line 611, onLayoutNodeModifiedEvent).
    """
    from mrml_host import LAYOUTS

    from D3MSynthesisLib import Views

    layouts = slicer.vtkMRMLLayoutNode
    assert LAYOUTS[layouts.SlicerLayoutTwoOverTwoView] == Views.FOUR
    assert LAYOUTS[layouts.SlicerLayoutThreeOverThreeView] == Views.SIX
    Views.arrange(host.scene, layouts.SlicerLayoutThreeOverThreeView)
    assert set(Views.SIX) <= set(host.application.layoutManager().sliceViewNames())


def test_slicers_own_annotations_leave_the_marks_place_free(host: Host) -> None:
    """What Slicer writes into the corners does not wipe the mark, which stands at the upper edge.

    SliceViewAnnotations.py (DataProbe), lines 402 and 666: positions 0 to 3 alone are written and cleared. Only
    setCornerAnnotationText of ctkVTKAbstractView.cpp, line 348, clears all; the panel writes the mark again with the
    next change of the view's images.
    """
    from D3MSynthesisLib import Captions

    node = slicer.util.addVolumeFromArray(np.ones((8, 9, 10), np.float32), name="made")
    node.SetAttribute("D3M.Synthetic", "yes")
    host.openModule("D3MSynthesis")
    slicer.util.setSliceViewerLayers(background=node)
    corner = host.application.layoutManager().sliceWidget("Red").sliceView().cornerAnnotation()
    assert corner.GetText(Captions.UPPER_EDGE) == Captions.MARK
    for position in range(4):
        corner.SetText(position, "B: made")
    Captions.markViews()
    assert corner.GetText(Captions.UPPER_EDGE) == Captions.MARK
    corner.ClearAllTexts()
    host.views["Red"].logic.GetSliceCompositeNode().Modified()
    assert corner.GetText(Captions.UPPER_EDGE) == Captions.MARK
