"""What Slicer's own DICOM exporter proposes for what is synthetic. MRML alone."""

from __future__ import annotations

from typing import Any

import slicer
from d3m.results.ours import EXPORT

EXPORT_TAGS = {
    "Modality": "OT",
    "Manufacturer": "D3M for 3D Slicer (synthetic image)",
    "Model": "D3M, research use only",
    "SeriesNumber": "9301",
}
"""What Slicer's DICOM exporter proposes for a volume of ours. It starts from modality CT and no description
(DICOMScalarVolumePlugin.py, examineForExport), and its tag editor replaces each by the item's attribute "DICOM.<tag>"
(qSlicerDICOMTagEditorWidget.cxx, setExportables). The panel's own export is the one that marks images fully."""


def tagForExport(hierarchy: Any, item: int, node: Any, without: str) -> None:
    """The description begins with the mark: DICOM cuts what is longer than 64 characters."""
    prefix = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMAttributePrefix()
    text = ", ".join(part for part in (EXPORT, without) if part)
    for tag, value in (EXPORT_TAGS | {"SeriesDescription": f"{text}: {node.GetName()}"}).items():
        hierarchy.SetItemAttribute(item, prefix + tag, value[:64])


def tagArrived(node: Any) -> None:
    """Tag a volume that was read from a file, or made of a result: a clone, a crop, the difference from a real T1c."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene())
    item = hierarchy.GetItemByDataNode(node)
    prefix = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMAttributePrefix()
    if item and not hierarchy.GetItemAttribute(item, prefix + "SeriesDescription"):
        tagForExport(hierarchy, item, node, "")
