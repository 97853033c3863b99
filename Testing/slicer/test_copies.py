"""What Slicer makes of files of results keeps the mark: converted, exported, copied; what is a person's stays hers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from slicer_helpers import MadeOutput, save

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from panel_helpers import opened, press  # noqa: E402
from qt_host import Host  # noqa: E402

from D3MSynthesisLib import Assignment, Captions  # noqa: E402

FILE = "enhancement_mask.nii.gz"


def label_map(host: Host, path: Path) -> object:
    """A label map from a file."""
    node = slicer.util.loadVolume(str(path), {"labelmap": True})
    host.settle()
    return node


def converted(host: Host, label: object, into: object = None) -> object:
    """As the data tree's menu makes a segmentation of a label map, or the Segmentations module adds it to one."""
    node = into or host.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{label.GetName()}-segmentation")
    slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(label, node)
    node.CreateDefaultDisplayNodes()
    host.settle()
    return node


def empty(host: Host, name: str = "drawn") -> object:
    """A person's own segmentation."""
    node = host.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    host.settle()
    return node


def ids(node: object) -> list[str]:
    """Of a segmentation's segments."""
    segmentation = node.GetSegmentation()
    return [segmentation.GetNthSegmentID(index) for index in range(segmentation.GetNumberOfSegments())]


@pytest.mark.parametrize("how", ["converted", "added", "copied", "loaded", "exported", "cloned", "model"])
def test_a_mask_of_the_engine_is_known_in_whatever_is_made_of_it(host: Host, made: MadeOutput, how: str) -> None:
    """Under a name that says nothing it is captioned over a scan, and refused as the real tumour."""
    panel = opened(host, made)
    press(host, panel)
    path = made.folder / FILE
    if how in ("converted", "added"):
        label = label_map(host, path)
        node = converted(host, label, empty(host) if how == "added" else None)
        host.scene.RemoveNode(label)
    else:
        loaded = slicer.util.loadSegmentation(str(path))
        host.settle()
        segments = loaded.GetSegmentation()
        if how == "copied":
            node = empty(host)
            node.GetSegmentation().CopySegmentFromSegmentation(segments, ids(loaded)[0])
        elif how == "loaded":  # of itself, without its file, and the mark of the node
            node = empty(host)
            node.GetSegmentation().DeepCopy(segments)
        elif how == "exported":
            node = host.scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", f"{loaded.GetName()}-label")
            slicer.vtkSlicerSegmentationsModuleLogic.ExportAllSegmentsToLabelmapNode(loaded, node)
        elif how == "cloned":
            node = empty(host, f"{loaded.GetName()} Copy_1")
            node.GetSegmentation().AddEmptySegment("later", "tumour")
        else:
            segments.GetNthSegment(0).SetName("tumour")
            node = host.scene.AddNewNodeByClass("vtkMRMLModelNode", "tumour")
        host.settle()
    assert Assignment.isSynthetic(node)
    if how == "model":
        return
    panel.result.nodes.segmentation.GetDisplayNode().SetVisibility(False)
    if node.IsA("vtkMRMLSegmentationNode"):
        node.CreateDefaultDisplayNodes()
        node.SetName("tumour")
        slicer.util.setSliceViewerLayers(background=panel.parameters.t1)
    else:
        slicer.util.setSliceViewerLayers(background=panel.parameters.t1, label=node)
    assert Captions.maskCaption(host.scene, "Red").startswith(Captions.MASK)
    panel.parameters.reference = slicer.util.addVolumeFromArray(made.cemri.T.copy(), ijkToRAS=made.matrix, name="p_t1c")
    panel.parameters.referenceMask = node
    panel.confirm = lambda _question: True  # nothing says whose it is
    panel.ui.compareButton.click()
    assert "what a synthesis made" in panel.ui.errorLabel.text


def test_a_persons_mask_beside_it_is_hers(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """A real label map of the same name, what is made of it, and what she drew beside an imported mask."""
    panel = opened(host, made)
    press(host, panel)
    label = label_map(host, made.folder / FILE)
    voxels = (made.t1 > 60).astype(np.uint8)
    save(tmp_path / FILE, voxels, made.matrix)
    hers = label_map(host, tmp_path / FILE)
    assert hers.GetName() != label.GetName()
    assert not Assignment.isSynthetic(hers)
    assert not Assignment.isSynthetic(converted(host, hers))
    own = empty(host)
    converted(host, hers, own)
    assert not Assignment.isSynthetic(own)
    converted(host, label, own)
    assert Assignment.isSynthetic(own)
    alone = empty(host, "alone")
    alone.GetSegmentation().CopySegmentFromSegmentation(own.GetSegmentation(), ids(own)[0])
    host.settle()
    assert not Assignment.isSynthetic(alone)
    scan = slicer.util.addVolumeFromArray(made.t1.T.copy(), ijkToRAS=made.matrix, name=f"{label.GetName()}_2")
    host.settle()
    assert not Assignment.isSynthetic(scan), "a number is no sign of a copy"
