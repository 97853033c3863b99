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

from D3MSynthesisLib import DicomExport, Scene  # noqa: E402


class Database:
    """Knows where instances are, as Slicer's does."""

    def __init__(self, files: dict[str, Path]) -> None:
        self.files = files

    def fileForInstance(self, uid: str) -> str:
        """The file of an instance; empty if it is not known."""
        return str(self.files.get(uid, ""))


def test_run_is_saved_into_the_study_of_t1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Series and segmentation lie in the study and frame of reference of T1; voxels and the changed mask agree."""
    host = MRMLHost()
    made = make_output(tmp_path / "out", "LPS")
    study, frame = generate_uid(), generate_uid()
    write_series(made.t1 - made.t1.min(), made.matrix, tmp_path / "t1", "AX T1", study, frame)
    files = {str(pydicom.dcmread(path).SOPInstanceUID): path for path in sorted((tmp_path / "t1").iterdir())}
    t1 = slicer.util.addVolumeFromArray(made.t1.T.copy(), ijkToRAS=made.matrix, name="T1")
    t1.SetAttribute("DICOM.instanceUIDs", " ".join(files))
    monkeypatch.setattr(slicer, "dicomDatabase", Database(files), raising=False)
    nodes = Scene.addRun(host.scene, made.folder, Scene.Frame("T1", made.matrix, t1))
    Scene.setThreshold(nodes, 0.2)
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
    Scene.setThreshold(nodes, 1.0)  # nothing is left of the mask
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
