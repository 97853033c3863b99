"""What tests of the panel do with it: scans are loaded, the button is pressed, and an image lies in a view."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from slicer_helpers import MadeOutput, fake_engine, save

import slicer

if TYPE_CHECKING:
    from qt_host import Host

SCANS = ("t1", "t2", "flair")
MARK = "synthetic, research use only"
SERIES = ("5: t1_mprage", "6: t2_tse", "7: t2_flair")
"""As Slicer's DICOM module names scans."""


def opened(host: Host, made: MadeOutput, names: tuple[str, str, str] = ("p_t1", "p_t2", "p_flair")) -> object:
    """The panel with three scans of these names chosen, and an engine that gives `made`."""
    panel = host.openModule("D3MSynthesis").panel
    for number, (scan, name) in enumerate(zip(SCANS, names, strict=True)):
        array = np.ascontiguousarray(made.t1.T + number)
        node = slicer.util.addVolumeFromArray(array, ijkToRAS=made.matrix, name=name)
        node.SetName(name)  # an empty name, too
        setattr(panel.parameters, scan, node)
    host.settle()
    panel.logic._engine = fake_engine(made.folder.parent / "engine", "finish", made.folder)
    return panel


def press(host: Host, panel: object) -> None:
    """Press the button and wait until the run has ended."""
    assert panel.ui.applyButton.enabled, panel.ui.stateLabel.text
    panel.ui.applyButton.click()
    host.until(lambda: not panel.logic.running, 30)


def slow(host: Host, panel: object, made: MadeOutput, button: object = None) -> Path:
    """Start a run that goes on until it is let go; returns the engine's folder."""
    engine = fake_engine(made.folder.parent / "slow", "waits", made.folder)
    panel.logic._engine = engine
    (button or panel.ui.applyButton).click()
    host.until((engine / "pid.txt").exists, 20)
    return engine


def tissues(shape: tuple[int, ...]) -> np.ndarray:
    """Labels of a tumour as BraTS has them since 2023, (K, J, I): 1 necrosis, 2 oedema, 3 enhancing."""
    labels = np.zeros(shape, np.uint8)
    for value, size in ((2, (4, 10, 9)), (3, (3, 6, 5)), (1, (2, 3, 2))):
        labels[tuple(slice(n // 2 - half, n // 2 + half) for n, half in zip(shape, size, strict=True))] = value
    return labels


def label_map(labels: np.ndarray, matrix: np.ndarray, name: str = "p_seg") -> object:
    """A label map node in the scene."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, labels)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    node.CreateDefaultDisplayNodes()
    return node


def imported(labels: np.ndarray, matrix: np.ndarray, shown: tuple[int, ...] = (3,)) -> object:
    """The labels as segments that share one image, as Slicer imports a label map; eyes of others are shut."""
    source = label_map(labels, matrix)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "p_seg")
    node.CreateDefaultDisplayNodes()
    slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(source, node)
    slicer.mrmlScene.RemoveNode(source)
    segments = node.GetSegmentation()
    assert segments.GetNumberOfLayers() == 1
    for value, name in enumerate(("necrosis", "oedema", "enhancing"), 1):
        identifier = segments.GetNthSegmentID(value - 1)
        segments.GetSegment(identifier).SetName(name)
        node.GetDisplayNode().SetSegmentVisibility(identifier, value in shown)
    return node


def scans(made: MadeOutput, *names: str) -> list[object]:
    """Volumes of these names."""
    array = np.ascontiguousarray(made.t1.T + 9)
    return [slicer.util.addVolumeFromArray(array.copy(), ijkToRAS=made.matrix, name=name) for name in names]


def read(host: Host, made: MadeOutput, folder: Path, *names: str) -> list[object]:
    """Volumes of files of these names, read one after the other as a person drags them in."""
    folder.mkdir(parents=True, exist_ok=True)
    nodes = []
    for name in names:
        save(folder / f"{name}.nii.gz", made.t1, made.matrix)
        nodes.append(slicer.util.loadVolume(str(folder / f"{name}.nii.gz")))
        host.settle()
    return nodes


def choose(panel: object, nodes: list[object]) -> None:
    """T1, T2 and FLAIR."""
    for scan, node in zip(SCANS, nodes, strict=True):
        setattr(panel.parameters, scan, node)


def smith_and_jones(host: Host, made: MadeOutput) -> tuple[object, object]:
    """The panel with a result of Jones, who is chosen, after one of Smith; and what Smith's run made."""
    panel = opened(host, made, ("smith_t1", "smith_t2", "smith_flair"))
    press(host, panel)
    smith = panel.result.nodes
    choose(panel, scans(made, "jones_t1", "jones_t2", "jones_flair"))
    host.settle()
    press(host, panel)
    return panel, smith


def examination(patient: str, nodes: list[object], date: str = "") -> None:
    """Put nodes under a patient of the data tree, in an examination of a date."""
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    person = tree.CreateSubjectItem(tree.GetSceneItemID(), patient)
    study = tree.CreateStudyItem(person, f"{patient} study {date}".strip())
    tree.SetItemUID(person, "DICOM", patient)
    tree.SetItemUID(study, "DICOM", f"1.2.{patient}{date}")
    for node in nodes:
        tree.SetItemParent(tree.GetItemByDataNode(node) or tree.CreateItem(study, node), study)


def background(host: Host) -> object:
    """The image in the red view."""
    composite = host.views["Red"].logic.GetSliceCompositeNode()
    return host.scene.GetNodeByID(composite.GetBackgroundVolumeID() or "")


def moved(real: object, how: str) -> None:
    """What people do to a scan in other modules."""
    if how == "transform":
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        real.SetAndObserveTransformNodeID(node.GetID())
        matrix = np.eye(4)
        matrix[0, 3] = 4
        node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    elif how == "origin":
        real.SetOrigin(*np.add(real.GetOrigin(), (0, 3, 0)))
    elif how == "voxels":
        slicer.util.arrayFromVolume(real)[4] *= 2
        slicer.util.arrayFromVolumeModified(real)
    else:  # resampled to half as many slices
        slicer.util.updateVolumeFromArray(real, slicer.util.arrayFromVolume(real)[::2].copy())


def panel_of(host: Host, made: MadeOutput, folder: Path) -> object:
    """The panel, with an engine."""
    panel = host.openModule("D3MSynthesis").panel
    panel.logic._engine = fake_engine(folder / "engine", "finish", made.folder)
    return panel


def dicom(host: Host, made: MadeOutput, patient: str, names: tuple[str, ...] = SERIES) -> list[object]:
    """Scans of a patient as Slicer's DICOM module loads them: in the data tree, without files."""
    nodes = scans(made, *names)
    examination(patient, nodes)
    host.settle()
    return nodes


def store(node: object, path: Path) -> None:
    """Save a node as Slicer does: its storage node keeps the file's name."""
    if node.GetStorageNode() is None:
        node.AddDefaultStorageNode()
    node.GetStorageNode().SetFileName(str(path))
    assert node.GetStorageNode().WriteData(node)


def steered(host: Host, panel: object, mask: object) -> tuple[str, list[str]]:
    """What stands above the button before a picture is made from a mask, and what the result says."""
    panel.parameters.enhancementMask = mask
    host.settle()
    before = panel.ui.steerLabel.text
    count = panel.ui.runBox.count
    panel.ui.steerButton.click()
    host.until(lambda: not panel.logic.running, 30)
    assert panel.ui.runBox.count == count + 1, panel.ui.errorLabel.text
    return before, panel.result.nodes.notices
