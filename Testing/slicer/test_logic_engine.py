"""From three volume nodes to the nodes of a result through the real engine, with a tiny untrained model."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from conftest import TinyCase

slicer = pytest.importorskip("slicer")
vtk = pytest.importorskip("vtk")
from mrml_host import MRMLHost  # noqa: E402

from D3MSynthesisLib import Runs  # noqa: E402
from D3MSynthesisLib.Logic import SynthesisLogic  # noqa: E402
from D3MSynthesisLib.Traces import FOLDER_PREFIX  # noqa: E402


@pytest.fixture(scope="module")
def host() -> MRMLHost:
    """One host for all tests of this file."""
    return MRMLHost()


@pytest.fixture
def inputs(host: MRMLHost, tiny_case: TinyCase) -> list[object]:
    """A fresh scene with T1, T2, FLAIR and a real T1c, all under one oblique transform."""
    host.openScene()
    rotation = vtk.vtkTransform()
    rotation.Translate(12, -30, 7)
    rotation.RotateZ(20)
    rotation.RotateX(-11)
    registration = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "registration")
    registration.SetMatrixTransformToParent(rotation.GetMatrix())
    nodes = []
    for kind in ("t1", "t2", "flair", "t1c"):
        image = nibabel.load(getattr(tiny_case, kind))
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", f"Doe^John/../{kind}")
        slicer.util.updateVolumeFromArray(node, np.asarray(image.dataobj).T)
        node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(image.affine))
        node.SetAndObserveTransformNodeID(registration.GetID())
        nodes.append(node)
    return nodes


def own_folders() -> list[Path]:
    """Temporary folders of the runs of this process."""
    return list(Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}{os.getpid()}-*"))


def toIndex(node: object, ras: np.ndarray) -> np.ndarray:
    """Voxel indices, (3, ...), of local RAS points, (..., 3)."""
    matrix = vtk.vtkMatrix4x4()
    node.GetRASToIJKMatrix(matrix)
    inverse = slicer.util.arrayFromVTKMatrix(matrix)
    return np.moveaxis(ras @ inverse[:3, :3].T + inverse[:3, 3], -1, 0)


def localRas(node: object) -> np.ndarray:
    """RAS in the node's local frame of every voxel, (K, J, I, 3)."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    forward = slicer.util.arrayFromVTKMatrix(matrix)
    k, j, i = np.indices(slicer.util.arrayFromVolume(node).shape)
    return np.stack([i, j, k], -1) @ forward[:3, :3].T + forward[:3, 3]


def test_run_under_a_transform_with_steps(inputs: list[object], tiny_model: Path, tmp_path: Path) -> None:
    """Results overlay T1 in the world, every step is there, hardening the last field on the image before the last warp
    gives the image after it, and nothing stays on disk.
    """
    whole = tmp_path / "whole"  # a model that moves the whole image, not the enhancement alone
    shutil.copytree(tiny_model, whole)
    card = json.loads((whole / "card.json").read_text())
    card["recipe"]["diffusion"] |= {"warp": "x0", "training_warp": "x0"}
    (whole / "card.json").write_text(json.dumps(card))
    t1, t2, flair, t1c = inputs
    before = [slicer.util.arrayFromVolume(node).copy() for node in inputs]
    events = []
    nodes = SynthesisLogic(qt=False).run(
        t1, t2, flair, reference=t1c, model=str(whole), device="cpu", seed=5, trace=True, progress=events.append
    )
    assert nodes is not None
    assert own_folders() == []
    for node, array in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), array)
    bounds, expected = np.zeros(6), np.zeros(6)
    nodes.cemri.GetRASBounds(bounds)
    t1.GetRASBounds(expected)
    np.testing.assert_allclose(bounds, expected, atol=1e-6)
    assert nodes.cemri.GetParentTransformNode() is t1.GetParentTransformNode()
    assert nodes.provenance["settings"]["seed"] == 5
    assert nodes.comparison is not None
    assert nodes.reference is t1c
    assert [event.fraction for event in events] == sorted(event.fraction for event in events)

    assert nodes.steps == 3
    nodes.browser.SetSelectedItemNumber(nodes.steps - 1)
    Runs.updateProxies(nodes)
    proxies = Runs.proxies(nodes)
    moved = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "moved")
    image = vtk.vtkImageData()
    image.DeepCopy(proxies["before"].GetImageData())
    moved.CopyOrientation(proxies["before"])
    moved.SetAndObserveImageData(image)
    field = slicer.mrmlScene.AddNewNodeByClass(
        "vtkMRMLTransformNode", "field"
    )  # the local frame, without T1's transform
    field.SetAndObserveTransformFromParent(nodes.deformation.GetTransformFromParent())
    moved.SetAndObserveTransformNodeID(field.GetID())
    assert moved.HardenTransform()
    after = slicer.util.arrayFromVolume(proxies["after"])
    index = toIndex(moved, localRas(proxies["after"]))[::-1]
    found = ndimage.map_coordinates(slicer.util.arrayFromVolume(moved).astype(float), index, order=1, mode="nearest")
    core = np.s_[4:-4, 4:-4, 4:-4]
    change = np.abs(after - slicer.util.arrayFromVolume(proxies["before"]))[core]
    assert change.max() > 1, "a field that moves nothing would prove nothing"
    assert np.abs(found - after)[core].max() < 1e-4 * np.ptp(after)


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_cancel_and_close_leave_the_scene_as_it_was(inputs: list[object], tiny_model: Path, end: str) -> None:
    """Cancelled while it samples, or the scene closed: over within two seconds, no node, no folder, no late result."""
    t1, t2, flair, _ = inputs
    scene = slicer.mrmlScene
    count = scene.GetNumberOfNodes()
    events, ends = [], []
    logic = SynthesisLogic(qt=False)
    logic.run(
        t1, t2, flair, wait=False, model=str(tiny_model), device="cpu", steps=200, progress=events.append,
        finished=lambda nodes, error: ends.append((nodes, error)),
    )  # fmt: skip
    until = time.monotonic() + 90
    while not any(event.stage == "sample" for event in events) and logic.running and time.monotonic() < until:
        logic.poll()
        time.sleep(0.02)
    assert logic.running
    asked = time.monotonic()
    if end == "cancel":
        logic.cancel()
        while logic.running and time.monotonic() < asked + 10:
            logic.poll()
            time.sleep(0.02)
    else:
        scene.Clear(False)
    assert time.monotonic() - asked < 2.5
    assert not logic.running
    assert own_folders() == []
    assert len(ends) == 1
    assert ends[0][0] is None
    assert ends[0][1].kind == "interrupted"
    if end == "cancel":
        assert scene.GetNumberOfNodes() == count
    else:
        assert Runs.findRuns(scene) == []
