"""Saving a run as DICOM from Slicer: the study of the T1 that came from Slicer's database, marked as synthetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid
from slicer_helpers import make_output

from engine.dicom_helpers import write_series

slicer = pytest.importorskip("slicer")
from mrml_host import MRMLHost  # noqa: E402

from D3MSynthesisLib import DicomExport, Masks, Scene  # noqa: E402


class Database:
    """Knows where instances are, as Slicer's does: ctkDICOMDatabase.cpp (CTK 868d56c7), lines 2335 to 2352."""

    def __init__(self, files: dict[str, Path]) -> None:
        self.files = files

    def fileForInstance(self, uid: str) -> str:
        """The file of an instance; empty if it is not known."""
        return str(self.files.get(uid, ""))


def test_run_is_saved_into_the_study_of_t1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Series and segmentation lie in the study and frame of reference of T1; voxels and mask agree, seen or hidden."""
    host = MRMLHost()
    made = make_output(tmp_path / "out", "LPS")
    study, frame = generate_uid(), generate_uid()
    write_series(made.t1 - made.t1.min(), made.matrix, tmp_path / "t1", "AX T1", study, frame)
    files = {str(pydicom.dcmread(path).SOPInstanceUID): path for path in sorted((tmp_path / "t1").iterdir())}
    t1 = slicer.util.addVolumeFromArray(made.t1.T.copy(), ijkToRAS=made.matrix, name="T1")
    t1.SetAttribute("DICOM.instanceUIDs", " ".join(files))
    monkeypatch.setattr(slicer, "dicomDatabase", Database(files), raising=False)
    nodes = Scene.addRun(host.scene, made.folder, Scene.Frame("T1", made.matrix, t1))
    Masks.setThreshold(nodes, 0.2)
    nodes.segmentation.GetDisplayNode().SetSegmentVisibility(nodes.segmentID, False)  # it counts all the same
    saved = DicomExport.saveDicom(nodes, tmp_path)
    out = saved.folder
    images = [pydicom.dcmread(path) for path in sorted((out / "cemri").iterdir())]
    assert {image.StudyInstanceUID for image in images} == {study}
    assert {image.FrameOfReferenceUID for image in images} == {frame}
    assert all(image[0x0008001C].value == "YES" for image in images)
    assert {item.ReferencedSOPInstanceUID for image in images for item in image.SourceImageSequence} <= set(files)
    import highdicom

    found = highdicom.seg.segread(out / "enhancement_seg.dcm").get_volume().array.sum()
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(nodes.segmentation, nodes.segmentID, nodes.cemri)
    assert found == (mask > 0).sum() > 0


def test_run_without_dicom_source(tmp_path: Path) -> None:
    """A T1 from a file makes a study of its own; a folder that is not there is told in one sentence."""
    host = MRMLHost()
    made = make_output(tmp_path / "out", "oblique")
    t1 = slicer.util.addVolumeFromArray(made.t1.T.copy(), ijkToRAS=made.matrix, name="T1")
    nodes = Scene.addRun(host.scene, made.folder, Scene.Frame("T1", made.matrix, t1))
    saved = DicomExport.saveDicom(nodes, tmp_path)
    out = saved.folder
    assert saved.notices == ()
    Masks.setThreshold(nodes, 1.0)  # nothing is left of the mask
    (tmp_path / "empty").mkdir()
    (told,) = DicomExport.saveDicom(nodes, tmp_path / "empty").notices
    assert "left out" in told
    image = pydicom.dcmread(next((out / "cemri").iterdir()))
    assert "SYNTHETIC" in str(image.PatientName)
    assert np.asarray(image.pixel_array).size
    from D3MSynthesisLib.Engine import SynthesisError

    (tmp_path / "file").write_text("")
    with pytest.raises(SynthesisError):
        DicomExport.saveDicom(nodes, tmp_path / "file")


def test_slicers_own_exporter_is_told_what_it_is(tmp_path: Path) -> None:
    """What Slicer's exporter proposes for every volume of a run is marked: never CT, never without a description.

    The exporter's own defaults are those of DICOMScalarVolumePlugin.py (examineForExport, line 655: modality CT); its
    tag editor replaces a default by the item's attribute "DICOM." + tag (qSlicerDICOMTagEditorWidget.cxx, line 517).
    """
    host = MRMLHost()
    made = make_output(tmp_path / "out", "LPS")
    t1 = slicer.util.addVolumeFromArray(made.t1.T.copy(), ijkToRAS=made.matrix, name="T1")
    nodes = Scene.addRun(host.scene, made.folder, Scene.Frame("T1", made.matrix, t1))
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(host.scene)
    volumes = [node for node in nodes.all() if node.IsA("vtkMRMLScalarVolumeNode")]
    assert len(volumes) >= 5
    for node in volumes:
        proposed = {"Modality": "CT", "SeriesDescription": "No series description", "Manufacturer": "Unknown"}
        item = hierarchy.GetItemByDataNode(node)
        for tag in proposed:
            if hierarchy.HasItemAttribute(item, f"DICOM.{tag}"):
                proposed[tag] = hierarchy.GetItemAttribute(item, f"DICOM.{tag}")
        assert proposed["Modality"] != "CT"
        assert proposed["SeriesDescription"].startswith("SYNTHETIC, research only")
        assert "synthetic" in proposed["Manufacturer"]
        assert max(map(len, proposed.values())) <= 64, "DICOM's longest text of this kind"
