"""From nodes to nodes through the real engine with a tiny model, and every way in which a run can end otherwise."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
from slicer_helpers import fake_engine, make_output, points, rotation

slicer = pytest.importorskip("slicer")
from mrml_host import MRMLHost  # noqa: E402

from D3MSynthesisLib import Inputs, Pictures, Runs  # noqa: E402
from D3MSynthesisLib.Logic import EngineInfo, ProgressEvent, SynthesisError, SynthesisLogic  # noqa: E402
from D3MSynthesisLib.Traces import withoutNames  # noqa: E402

NAMES = ("t1", "t2", "flair", "t1c")


@pytest.fixture(scope="module")
def host() -> MRMLHost:
    """A scene without views."""
    return MRMLHost()


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Temporary folders of runs lie here, and none is left at the end of any test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield folder
    assert [path.name for path in folder.iterdir() if path.name.startswith("d3m-run-")] == []


@pytest.fixture
def scans(host: MRMLHost, tiny_case: object) -> dict[str, object]:
    """The tiny case as nodes in a fresh scene."""
    host.openScene()
    nodes = {}
    for name in NAMES:
        image = nibabel.load(getattr(tiny_case, name))
        data = np.ascontiguousarray(np.asarray(image.dataobj).T)
        nodes[name] = slicer.util.addVolumeFromArray(data, ijkToRAS=image.affine, name=f"case_{name}")
    return nodes


def inputs(scans: dict[str, object]) -> list[object]:
    """T1, T2 and FLAIR."""
    return [scans[name] for name in NAMES[:3]]


def node_ids(host: MRMLHost) -> set[str]:
    """What is in the scene."""
    return {host.scene.GetNthNode(index).GetID() for index in range(host.scene.GetNumberOfNodes())}


def wait_for(logic: SynthesisLogic, condition: object, seconds: float = 40) -> None:
    """Deliver events until something is true, as the application's timer does."""
    end = time.monotonic() + seconds
    while not condition():
        logic.poll()
        assert time.monotonic() < end
        time.sleep(0.02)


def test_run_with_the_real_engine(host: MRMLHost, scans: dict[str, object], tiny_model: Path) -> None:
    """T1 under a transform, all three named alike, a real T1c, the steps: everything arrives where T1 is shown."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation(15, 0), [20, 0, 0]
    parent = host.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    parent.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    for node in scans.values():
        node.SetName("MR")
        node.SetAndObserveTransformNodeID(parent.GetID())
    before = {name: slicer.util.arrayFromVolume(node).copy() for name, node in scans.items()}
    heard: list[ProgressEvent] = []
    nodes = SynthesisLogic(host.scene).run(
        *inputs(scans),
        model=str(tiny_model),
        seed=3,
        trace=True,
        samples=2,
        reference=scans["t1c"],
        progress=heard.append,
    )
    assert nodes.cemri.GetName() == "MR synthetic CEMRI"
    assert nodes.cemri.GetTransformNodeID() == parent.GetID()
    np.testing.assert_allclose(Inputs.matrixOf(nodes.cemri), Inputs.matrixOf(scans["t1"]))
    t1 = before["t1"]
    cemri = slicer.util.arrayFromVolume(nodes.cemri)
    np.testing.assert_allclose(cemri - t1, slicer.util.arrayFromVolume(nodes.subtraction), atol=1e-2)
    np.testing.assert_array_equal(cemri[t1 == 0], 0)
    assert nodes.steps == 3
    assert nodes.uncertainty is not None
    assert nodes.comparison["psnr_brain"] > 0
    assert nodes.provenance["settings"]["seed"] == 3
    for name, node in scans.items():
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), before[name])
        assert node.GetTransformNodeID() == parent.GetID()
    fractions = [event.fraction for event in heard]
    assert fractions == sorted(fractions)
    assert {"read", "sample", "write", "nodes"} <= {event.stage for event in heard}
    assert any(event.step and event.steps for event in heard)

    # the engine's own field: hardening it on the image before the last warp gives the image after it
    Pictures.selectStep(nodes, nodes.steps)
    found = Runs.proxies(nodes)
    grid = Inputs.matrixOf(found["before"])
    image = slicer.util.arrayFromVolume(found["before"]).copy()
    after = slicer.util.arrayFromVolume(found["after"]).T.astype(float)
    copy = slicer.util.addVolumeFromArray(image, ijkToRAS=grid, name="copy")
    field = host.scene.AddNewNodeByClass("vtkMRMLTransformNode", "copy")
    field.CopyContent(found["field"])
    copy.SetAndObserveTransformNodeID(field.GetID())
    copy.HardenTransform()
    from scipy import ndimage

    inverse = np.linalg.inv(Inputs.matrixOf(copy))
    index = points(after.shape, grid) @ inverse[:3, :3].T + inverse[:3, 3]
    back = ndimage.map_coordinates(
        slicer.util.arrayFromVolume(copy).T.astype(float), np.moveaxis(index, -1, 0), order=1
    )
    core = np.s_[5:-5, 5:-5, 4:-4]
    moved = float(np.abs(image.T - after)[core].mean())
    assert moved > 0.5, "the tiny model's field must do something"
    assert np.abs(back - after)[core].mean() < 0.15 * moved
    last = slicer.util.arrayFromGridTransform(nodes.deformation)
    np.testing.assert_allclose(slicer.util.arrayFromGridTransform(found["field"]), last, atol=1e-5)

    # a second run makes new nodes and leaves the first alone
    kept = cemri.copy()
    logic = SynthesisLogic(host.scene, qt=False)
    told: list[tuple[object, object]] = []
    logic.run(
        *inputs(scans), model=str(tiny_model), quality="preview", wait=False, finished=lambda *end: told.append(end)
    )
    assert logic.running
    with pytest.raises(SynthesisError, match="already running"):
        logic.run(*inputs(scans))
    wait_for(logic, lambda: told)
    second, error = told[0]
    assert error is None
    assert second.cemri.GetName() != nodes.cemri.GetName()
    assert second.folderItem != nodes.folderItem
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(nodes.cemri), kept)
    assert [run.runID for run in Runs.findRuns(host.scene)] == [nodes.runID, second.runID]


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory and file size")
@pytest.mark.parametrize(("limit", "word"), [("memory", "memory"), ("disk", "disk is full")])
def test_machine_at_its_limit(
    host: MRMLHost, scans: dict[str, object], tiny_model: Path, tmp_path: Path, limit: str, word: str
) -> None:
    """Too little memory or disk is told as such, as the machine's fault."""
    launcher = tmp_path / "python-with-limit"
    option = "-v 700000" if limit == "memory" else "-f 100"
    launcher.write_text(f'#!/bin/bash\nulimit {option}\ntrap "" XFSZ\nexec "{sys.executable}" "$@"\n')
    launcher.chmod(0o755)
    before = node_ids(host)
    with pytest.raises(SynthesisError) as caught:
        SynthesisLogic(host.scene).run(*inputs(scans), model=str(tiny_model), quality="preview", python=str(launcher))
    assert caught.value.kind == "machine", caught.value.details
    assert word in str(caught.value).lower(), caught.value.details
    assert node_ids(host) == before
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_what_the_engine_offers(
    host: MRMLHost, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Devices, models and costs come from the engine itself, so that nothing of torch is loaded in Slicer."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny").symlink_to(tiny_model)
    monkeypatch.setenv("D3M_MODELS", str(tmp_path / "models"))
    told: list[tuple[EngineInfo, SynthesisError]] = []
    SynthesisLogic(host.scene).requestInfo(lambda *end: told.append(end), wait=True)
    info, error = told[0]
    assert error is None
    assert "cpu" in {device.name for device in info.devices}
    tiny = next(model for model in info.models if model.name == "tiny")
    assert tiny.removable
    assert [cost.quality for cost in tiny.costs] == ["preview", "standard", "best"]
    assert all(cost.seconds > 0 and cost.memoryMb > 0 for cost in tiny.costs)


def test_answer_that_is_none(host: MRMLHost, tmp_path: Path) -> None:
    """An engine that says something else is an error, not an exception in the panel."""
    told: list[tuple[object, SynthesisError]] = []
    engine = fake_engine(tmp_path / "engine", "environment")
    SynthesisLogic(host.scene, engine=engine).requestInfo(lambda *end: told.append(end), wait=True)
    assert told[0][0] is None
    assert isinstance(told[0][1], SynthesisError)


def fake_logic(
    host: MRMLHost, tmp_path: Path, behaviour: str, orientation: str = "LPS"
) -> tuple[SynthesisLogic, list[object]]:
    """A logic over an engine that only speaks, and three inputs."""
    made = make_output(tmp_path / "made", orientation)
    host.openScene()
    nodes = [
        slicer.util.addVolumeFromArray(made.t1.T.copy(), ijkToRAS=made.matrix, name=f"Doe_{name}") for name in NAMES[:3]
    ]
    return SynthesisLogic(host.scene, qt=False, engine=fake_engine(tmp_path / "engine", behaviour, made.folder)), nodes


def test_damaged_result(host: MRMLHost, tmp_path: Path) -> None:
    """A result that is cut off is an error with details, and nothing of it is shown."""
    logic, nodes = fake_logic(host, tmp_path, "cut")
    before = node_ids(host)
    with pytest.raises(SynthesisError, match="cannot be read") as caught:
        logic.run(*nodes)
    assert caught.value.kind == "defect"
    assert "not complete" in caught.value.details
    assert node_ids(host) == before


def test_scene_closed_during_a_run(host: MRMLHost, tmp_path: Path) -> None:
    """The child ends at once, nothing comes into the new scene, and the next run works."""
    logic, nodes = fake_logic(host, tmp_path, "stubborn")
    told: list[tuple[object, SynthesisError]] = []
    heard: list[ProgressEvent] = []
    logic.run(*nodes, wait=False, finished=lambda *end: told.append(end), progress=heard.append)
    wait_for(logic, lambda: len(heard) >= 3 and (tmp_path / "engine" / "d3m" / "pid.txt").exists())
    start = time.monotonic()
    host.scene.Clear(0)
    assert time.monotonic() - start < 3
    assert told[0][1].kind == "interrupted"
    assert not logic.running
    assert Runs.findRuns(host.scene) == []
    assert slicer.util.getNodesByClass("vtkMRMLVolumeNode") == []
    again, nodes = fake_logic(host, tmp_path / "again", "success")
    assert again.run(*nodes).cemri is not None


@pytest.mark.parametrize("deleted", [0, 1, 2])
def test_input_deleted_during_a_run(host: MRMLHost, tmp_path: Path, deleted: int) -> None:
    """Inputs were written before, so the run finishes; without T1 its place is remembered."""
    logic, nodes = fake_logic(host, tmp_path, "success", "oblique")
    expected = Inputs.matrixOf(nodes[0]).copy()
    told: list[tuple[Runs.Nodes, object]] = []
    heard: list[ProgressEvent] = []
    logic.run(*nodes, wait=False, finished=lambda *end: told.append(end), progress=heard.append)
    host.scene.RemoveNode(nodes[deleted])
    wait_for(logic, lambda: told)
    result, error = told[0]
    assert error is None
    np.testing.assert_allclose(Inputs.matrixOf(result.cemri), expected)
    assert result.cemri.GetName() == "Doe_t1 synthetic CEMRI"
    assert (result.t1 is None) == (deleted == 0)
    Pictures.show(result, Pictures.Look())


def test_transform_changed_during_a_run(host: MRMLHost, tmp_path: Path) -> None:
    """A transform that T1 was put under meanwhile holds for the results too."""
    logic, nodes = fake_logic(host, tmp_path, "success")
    told: list[tuple[Runs.Nodes, object]] = []
    logic.run(*nodes, wait=False, finished=lambda *end: told.append(end))
    parent = host.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "later")
    nodes[0].SetAndObserveTransformNodeID(parent.GetID())
    wait_for(logic, lambda: told)
    assert told[0][0].cemri.GetTransformNodeID() == parent.GetID()


def test_transform_hardened_during_a_run(host: MRMLHost, tmp_path: Path) -> None:
    """The results lie where T1 is, although the transform that they are made under is no longer T1's."""
    logic, nodes = fake_logic(host, tmp_path, "success", "oblique")
    parent = host.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "registration")
    matrix = np.eye(4)
    matrix[:3] = [[0, -1, 0, 20], [1, 0, 0, -7], [0, 0, 1, 3]]
    parent.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    for node in nodes:
        node.SetAndObserveTransformNodeID(parent.GetID())
    told: list[tuple[Runs.Nodes, object]] = []
    logic.run(*nodes, wait=False, finished=lambda *end: told.append(end))
    nodes[0].HardenTransform()
    wait_for(logic, lambda: told)
    result = told[0][0]
    assert nodes[0].GetParentTransformNode() is None
    for node in (result.cemri, result.segmentation, result.deformation):
        assert node.GetTransformNodeID() == parent.GetID()
    np.testing.assert_allclose(matrix @ Inputs.matrixOf(result.cemri), Inputs.matrixOf(nodes[0]), atol=1e-6)
    assert any("T1 was moved" in text for text in result.notices)


def test_proxy_that_moves_on_during_a_run(host: MRMLHost, tmp_path: Path) -> None:
    """The voxels of the moment of the start are used, whatever a sequence shows later; names are no file names."""
    logic, nodes = fake_logic(host, tmp_path, "slow")
    original = slicer.util.arrayFromVolume(nodes[0]).copy()
    nodes[0].SetName('../../x: "*?')
    told: list[object] = []
    logic.run(*nodes, wait=False, finished=lambda *end: told.append(end))
    slicer.util.arrayFromVolume(nodes[0])[:] = 0
    folder = next(Path(tempfile.gettempdir()).glob("d3m-run-*"))
    assert sorted(path.name for path in folder.glob("*.nrrd")) == ["flair.nrrd", "t1.nrrd", "t2.nrrd"]
    from d3m.volumes.preprocess.case import read_volume

    np.testing.assert_array_equal(read_volume(folder / "t1.nrrd", "t1").data, original.T)
    logic.shutdown()
    assert told


def test_python_that_cannot_be_started(host: MRMLHost, tmp_path: Path) -> None:
    """The user's wrong choice is told; nothing hangs, and the right choice works afterwards."""
    logic, nodes = fake_logic(host, tmp_path, "success")
    with pytest.raises(SynthesisError, match="cannot be started"):
        logic.run(*nodes, python=str(tmp_path / "no"))
    assert not logic.running
    assert logic.run(*nodes).cemri is not None


def test_not_ready_starts_nothing(host: MRMLHost, tmp_path: Path, tiny_model: Path, able_model: Path) -> None:
    """A request that cannot work is refused before anything is written; what a model's card allows is not."""
    logic, nodes = fake_logic(host, tmp_path, "success")
    with pytest.raises(SynthesisError, match="Choose T2"):
        logic.run(nodes[0], None, nodes[2], wait=False, model=str(tiny_model))
    with pytest.raises(SynthesisError, match="T2 or FLAIR"):
        logic.run(nodes[0], wait=False, model=str(able_model))
    with pytest.raises(SynthesisError, match="nowhere"):
        logic.run(nodes[0], None, nodes[2], wait=False, model="nowhere")
    assert not logic.running
    result = logic.run(nodes[0], None, nodes[2], model=str(able_model))
    assert (result.t1, result.t2, result.flair) == (nodes[0], None, nodes[2])


def test_report_names_nobody(host: MRMLHost, tmp_path: Path) -> None:
    """The text to copy has versions, error and log, and neither node nor file nor patient."""
    logic, nodes = fake_logic(host, tmp_path, "error")
    for node in nodes:
        node.SetName(f"{node.GetName()} Doe^John 1970")
    with pytest.raises(SynthesisError) as caught:
        logic.run(*nodes)
    error = SynthesisError(
        caught.value.message, caught.value.hint, "input", f"{caught.value.details}\nread {nodes[1].GetName()}"
    )
    text = logic.report(error)
    for word in ("T2 has no orientation", "Export it again", "Python", "VTK", "D3M 0"):
        assert word in text
    for word in ("Doe", "John", "patients", "t1.nrrd", str(tmp_path)):
        assert word not in text


def test_lines_of_code_stay_in_a_report() -> None:
    """A traceback still tells which line of which file of ours failed."""
    text = withoutNames(
        '  File "/home/anna/x/d3m/cli.py", line 12, in main\nhalf/half at 1/2; C:\\Users\\anna\\t1.nii', []
    )
    assert 'File "cli.py", line 12' in text
    assert "anna" not in text
    assert "1/2" in text


@pytest.mark.skipif(sys.platform == "win32", reason="no signal asks there")
def test_folders_of_dead_sessions_are_removed(host: MRMLHost, temporary: Path) -> None:
    """Scans that a killed Slicer left behind are removed at the next start; those of a living one stay."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    dead, living, other = (
        temporary / name for name in (f"d3m-run-{child.pid}-a", f"d3m-run-{os.getppid()}-a", "d3m-run-x")
    )
    for folder in (dead, living, other):
        folder.mkdir()
    SynthesisLogic(host.scene)
    assert not dead.exists()
    assert living.exists()
    assert other.exists()
    living.rmdir()
    other.rmdir()
