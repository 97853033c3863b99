"""From a scanner's DICOM study in the scene (skull, three grids, tilted head) to a DICOM series, by the Slicer logic.

As a program it does the same with a study of your own and the default model:

    PYTHONPATH=D3MSynthesis python Testing/slicer/test_dicom_study.py STUDY OUT
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

slicer = pytest.importorskip("slicer")
from mrml_host import MRMLHost  # noqa: E402

from D3MSynthesisLib import Assignment, DicomExport  # noqa: E402
from D3MSynthesisLib.Logic import SynthesisLogic  # noqa: E402


@dataclass(frozen=True)
class Database:
    """Knows where instances are and what stands in them, as Slicer's does.

    ctkDICOMDatabase.cpp (CTK 868d56c7), lines 2335 to 2352 (fileForInstance) and 2621 to 2644 (instanceValue).
    """

    files: dict[str, Path]

    def fileForInstance(self, uid: str) -> str:
        """The file of an instance."""
        return str(self.files[uid])

    def instanceValue(self, uid: str, tag: str) -> str:
        """A tag's value as text; empty where it is not there."""
        group, element = (int(part, 16) for part in tag.split(","))
        found = pydicom.dcmread(self.files[uid], stop_before_pixels=True).get((group, element))
        return "" if found is None else str(found.value)


def loadStudy(folder: Path) -> tuple[Database, list[Any]]:
    """Every series as a volume node, read by SimpleITK, with the attribute that Slicer's DICOM module sets."""
    reader, files, nodes = sitk.ImageSeriesReader(), {}, []
    for series in reader.GetGDCMSeriesIDs(str(folder)):
        paths = [Path(name) for name in reader.GetGDCMSeriesFileNames(str(folder), series)]
        image = sitk.ReadImage([str(path) for path in paths])
        toRAS = np.diag([-1.0, -1.0, 1.0, 1.0])
        matrix = np.eye(4)
        matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
        matrix[:3, 3] = image.GetOrigin()
        headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
        node = slicer.util.addVolumeFromArray(
            sitk.GetArrayFromImage(image), ijkToRAS=toRAS @ matrix, name=f"series {headers[0].SeriesNumber}"
        )
        instances = [str(header.SOPInstanceUID) for header in headers]
        node.SetAttribute("DICOM.instanceUIDs", " ".join(instances))
        files |= dict(zip(instances, paths, strict=True))
        nodes.append(node)
    return Database(files), nodes


def loadMask(path: Path) -> Any:
    """A mask's file as a label map node."""
    image = nibabel.load(path)
    return slicer.util.addVolumeFromArray(
        np.asarray(image.dataobj).T.astype(np.uint8), ijkToRAS=image.affine, nodeClassName="vtkMRMLLabelMapVolumeNode"
    )


def throughSlicer(
    host: MRMLHost, study: Path, out: Path, model: str | None, brain: Path | None = None
) -> tuple[Any, Any, Path]:
    """The inputs that were found, the result's nodes, and the folder of the DICOM series."""
    slicer.dicomDatabase, nodes = loadStudy(study)
    try:
        found = Assignment.assignInputs(nodes)
        mask = None if brain is None else loadMask(brain)
        result = SynthesisLogic(host.scene).run(
            found.t1, found.t2, found.flair, quality="preview", model=model, brainMask=mask
        )
        assert result is not None
        return found, result, DicomExport.saveDicom(result, out).folder
    finally:
        del slicer.dicomDatabase


@pytest.mark.long
def test_study_goes_through_the_logic(tmp_path: Path, tiny_model: Path) -> None:
    """Scans are found by description; the result lies on T1's grid and its series in T1's study, frame and place."""
    from benchmarks.hospital import CONTRASTS, DESCRIPTIONS, KINDS, inputs, visit
    from d3m.models.store import find_sample
    from d3m.volumes.preprocess.case import read_volume
    from d3m.volumes.types import Volume

    sample, coarse = find_sample(), 5
    scans = {name: read_volume(getattr(sample, name), name) for name in CONTRASTS}
    small = {
        name: Volume(np.ascontiguousarray(v.data[::coarse, ::coarse, ::coarse]), v.affine) for name, v in scans.items()
    }
    kind = KINDS["dicom"]
    inputs(tmp_path / "study", visit(small, kind, seed=3), kind, small["t1"])  # no brain is found in so small a head
    found, result, folder = throughSlicer(
        MRMLHost(), tmp_path / "study", tmp_path, str(tiny_model), tmp_path / "brain.nii.gz"
    )
    paths = {pydicom.dcmread(p, stop_before_pixels=True).SeriesDescription: p for p in (tmp_path / "study").iterdir()}
    t1 = pydicom.dcmread(paths[DESCRIPTIONS["t1"]])
    database, (again,) = loadStudy(folder / "cemri")
    assert np.allclose(
        slicer.util.arrayFromVTKMatrix(volumeMatrix(again)), slicer.util.arrayFromVTKMatrix(volumeMatrix(found.t1)),
        atol=1e-3,
    )  # fmt: skip
    assert slicer.util.arrayFromVolume(again).shape == slicer.util.arrayFromVolume(found.t1).shape
    made = slicer.util.arrayFromVolume(result.cemri)
    assert np.abs(slicer.util.arrayFromVolume(again) - made).max() <= np.ptp(made) / 4095
    uid = next(iter(database.files))
    assert database.instanceValue(uid, "0020,000D") == t1.StudyInstanceUID
    assert database.instanceValue(uid, "0020,0052") == t1.FrameOfReferenceUID
    assert "SYNTHETIC" in database.instanceValue(uid, "0008,103E")


def volumeMatrix(node: Any) -> Any:
    """Voxels to RAS."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return matrix


if __name__ == "__main__":
    inputs, _, series = throughSlicer(MRMLHost(), Path(sys.argv[1]), Path(sys.argv[2]), None)
    print(f"T1: {inputs.t1.GetName()}, T2: {inputs.t2.GetName()}, FLAIR: {inputs.flair.GetName()}; series in {series}")
