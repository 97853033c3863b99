"""Scans that are frames of a sequence: the frame is named and kept, and every frame can be run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from slicer_helpers import MadeOutput, fake_engine, make_output

slicer = pytest.importorskip("slicer")
from mrml_host import MRMLHost  # noqa: E402

from D3MSynthesisLib import Comparison, Frames, Runs  # noqa: E402
from D3MSynthesisLib.Engine import SynthesisError  # noqa: E402
from D3MSynthesisLib.Logic import SynthesisLogic  # noqa: E402

NAMES = ("t1", "t2", "flair")


@pytest.fixture
def case(tmp_path: Path) -> tuple[MRMLHost, MadeOutput, list[object], SynthesisLogic]:
    """T1, T2 and FLAIR as proxies of one browser with three frames, and an engine that gives one result."""
    host = MRMLHost()
    made = make_output(tmp_path / "made")
    browser = host.scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "dynamic")
    sequences = []
    for number, name in enumerate(NAMES):
        sequence = host.scene.AddNewNodeByClass("vtkMRMLSequenceNode", name)
        sequence.SetIndexName("time")
        sequence.SetIndexUnit("s")
        for frame in range(3):
            volume = slicer.vtkMRMLScalarVolumeNode()
            volume.SetName(name)
            slicer.util.updateVolumeFromArray(volume, (made.t1.T + 10 * frame + number).astype(np.float32))
            volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(made.matrix))
            sequence.SetDataNodeAtValue(volume, str(30 * frame))
        browser.AddSynchronizedSequenceNode(sequence)
        browser.SetSaveChanges(sequence, False)
        sequences.append(sequence)
    show(host, browser, 1)
    proxies = [browser.GetProxyNode(sequence) for sequence in sequences]
    logic = SynthesisLogic(host.scene, qt=False, engine=fake_engine(tmp_path / "engine", "finish", made.folder))
    return host, made, proxies, logic


def show(host: MRMLHost, browser: object, number: int) -> None:
    """Choose a frame, as the Sequences toolbar does."""
    browser.SetSelectedItemNumber(number)
    Runs.sequencesLogic(host.scene).UpdateProxyNodesFromSequences(browser)


def test_the_frame_is_named_and_kept(case: tuple[MRMLHost, MadeOutput, list[object], SynthesisLogic]) -> None:
    """The result refers to the frame that it was made from, whatever the sequence shows later."""
    host, made, proxies, logic = case
    frame = Frames.frameOf(proxies[0])
    assert frame.title == "frame 2 of 3, time 30 s"
    nodes = logic.run(*proxies)
    assert "frame 2 of 3" in nodes.cemri.GetName()
    show(host, frame.browser, 2)
    for node, number in ((nodes.t1, 0), (nodes.t2, 1), (nodes.flair, 2)):
        np.testing.assert_allclose(slicer.util.arrayFromVolume(node), made.t1.T + 10 + number, rtol=1e-5)
        assert Frames.frameOf(node) is None
    assert nodes.notices == ["T2 has thick slices."], "nothing was changed meanwhile"


def test_the_frame_of_a_real_scan_is_kept(case: tuple[MRMLHost, MadeOutput, list[object], SynthesisLogic]) -> None:
    """What was compared, in the run or after it, stays what it was when the sequence shows another frame."""
    host, made, proxies, logic = case
    browser = Frames.frameOf(proxies[0]).browser
    sequence = host.scene.AddNewNodeByClass("vtkMRMLSequenceNode", "t1c")
    for frame in range(3):
        volume = slicer.vtkMRMLScalarVolumeNode()
        slicer.util.updateVolumeFromArray(volume, (made.cemri.T * (1 + frame)).astype(np.float32))
        volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(made.matrix))
        sequence.SetDataNodeAtValue(volume, str(30 * frame))
    browser.AddSynchronizedSequenceNode(sequence)
    browser.SetSaveChanges(sequence, False)
    show(host, browser, 1)
    real = browser.GetProxyNode(sequence)
    nodes = logic.run(*proxies, reference=real)
    first = nodes.reference
    show(host, browser, 2)
    np.testing.assert_allclose(slicer.util.arrayFromVolume(first), 2 * made.cemri.T, rtol=1e-5)
    Comparison.compareRun(nodes, real)
    show(host, browser, 0)
    assert not Comparison.referenceChanged(nodes)
    np.testing.assert_allclose(slicer.util.arrayFromVolume(nodes.reference), 3 * made.cemri.T, rtol=1e-5)
    assert "frame 3 of 3" in nodes.reference.GetName()
    show(host, browser, 2)
    again = nodes.reference
    Comparison.compareRun(nodes, real)
    assert nodes.reference is again, "no copy of the same frame for every comparison"
    show(host, browser, 1)
    Comparison.compareRun(nodes, real)
    np.testing.assert_allclose(slicer.util.arrayFromVolume(nodes.reference), 2 * made.cemri.T, rtol=1e-5)


def test_every_frame_is_run(case: tuple[MRMLHost, MadeOutput, list[object], SynthesisLogic]) -> None:
    """A whole sequence gives one result a frame, each with its own T1, and the sequence shows what it showed."""
    _, made, proxies, logic = case
    told: list[object] = []
    results = Frames.runFrames(logic, *proxies, finished=lambda nodes, error: told.append((nodes, error)))
    assert len(results) == len(told) == 3
    for number, nodes in enumerate(results):
        np.testing.assert_allclose(slicer.util.arrayFromVolume(nodes.t1), made.t1.T + 10 * number, rtol=1e-5)
        assert f"frame {number + 1} of 3" in nodes.cemri.GetName()
    assert Frames.frameOf(proxies[0]).number == 1


def test_every_frame_without_t2(
    case: tuple[MRMLHost, MadeOutput, list[object], SynthesisLogic], able_model: Path
) -> None:
    """A scan that is left out is left out of every frame."""
    _, made, (t1, _, flair), logic = case
    results = Frames.runFrames(logic, t1, None, flair, model=str(able_model))
    assert [nodes.t2 for nodes in results] == [None] * 3
    for number, nodes in enumerate(results):
        np.testing.assert_allclose(slicer.util.arrayFromVolume(nodes.flair), made.t1.T + 10 * number + 2, rtol=1e-5)


def test_a_failed_frame_leaves_nothing(
    case: tuple[MRMLHost, MadeOutput, list[object], SynthesisLogic], tmp_path: Path
) -> None:
    """A run that comes to no result takes its copies of frames away again."""
    host, _, proxies, logic = case
    logic._engine = fake_engine(tmp_path / "broken", "error")
    before = host.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    with pytest.raises(SynthesisError):
        Frames.runFrames(logic, *proxies)
    assert host.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == before
    assert Frames.frameOf(proxies[0]).number == 1


def test_plain_volumes_are_no_frames(case: tuple[MRMLHost, MadeOutput, list[object], SynthesisLogic]) -> None:
    """What is no proxy is used as it is."""
    volume = slicer.util.addVolumeFromArray(np.zeros((3, 4, 5), np.float32), name="plain")
    scans = {"t1": volume}
    assert Frames.keep(scans) == []
    assert scans["t1"] is volume


@pytest.mark.parametrize("kind", ["vtkMRMLLabelMapVolumeNode", "vtkMRMLSegmentationNode"])
def test_the_frame_of_a_mask_is_kept(
    case: tuple[MRMLHost, MadeOutput, list[object], SynthesisLogic], kind: str
) -> None:
    """Brain and real tumour of a sequence stay those of the run's frame; hidden segments stay hidden in the copy."""
    from D3MSynthesisLib import Grids, Inputs

    host, made, proxies, logic = case
    browser = Frames.frameOf(proxies[0]).browser
    real = slicer.util.addVolumeFromArray(made.cemri.T.copy(), ijkToRAS=made.matrix, name="t1c")
    masks = []
    for name in ("brain", "tumour"):
        sequence = host.scene.AddNewNodeByClass("vtkMRMLSequenceNode", name)
        for frame in range(3):
            mask = np.ascontiguousarray(np.roll(made.mask.T, frame, 0))
            node = host.scene.AddNewNodeByClass(kind)
            if node.IsA("vtkMRMLSegmentationNode"):
                for segment, voxels in (("a", mask), ("b", np.ones_like(mask))):
                    node.GetSegmentation().AddEmptySegment(segment, segment, (1, 0, 0))
                    Grids.writeMask(node, segment, voxels, made.matrix)
            else:
                slicer.util.updateVolumeFromArray(node, mask.astype(np.uint8))
                node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(made.matrix))
            sequence.SetDataNodeAtValue(node, str(30 * frame))
            host.scene.RemoveNode(node)
        browser.AddSynchronizedSequenceNode(sequence)
        browser.SetSaveChanges(sequence, False)
        masks.append(sequence)

    def chosen(frame: int) -> list[object]:
        show(host, browser, frame)
        found = [browser.GetProxyNode(sequence) for sequence in masks]
        if kind == "vtkMRMLSegmentationNode":
            for node in found:
                node.CreateDefaultDisplayNodes()
                node.GetDisplayNode().SetSegmentVisibility("b", False)
        return found

    brain, tumour = chosen(1)
    nodes = logic.run(*proxies, brainMask=brain, reference=real, referenceMask=tumour)
    Comparison.compareRun(nodes, real, tumour)
    kept = nodes.referenceMask
    show(host, browser, 2)
    for node in (nodes.brainMask, nodes.referenceMask):
        np.testing.assert_array_equal(Inputs.maskOnGrid(node, nodes.cemri), np.roll(made.mask.T, 1, 0))
    assert not Comparison.tumourChanged(nodes)
    Comparison.compareRun(nodes, real, chosen(1)[1])
    assert nodes.referenceMask is kept, "no copy of the same frame for every comparison"
    Comparison.compareRun(nodes, real, chosen(0)[1])
    np.testing.assert_array_equal(Inputs.maskOnGrid(nodes.referenceMask, nodes.cemri), made.mask.T)


def added(host: MRMLHost, browser: object, made: MadeOutput, name: str, times: tuple[int, ...]) -> object:
    """A sequence of constant volumes whose value is their time."""
    sequence = host.scene.AddNewNodeByClass("vtkMRMLSequenceNode", name)
    sequence.SetIndexName("trigger")
    sequence.SetIndexUnit("")
    for time in times:
        volume = slicer.vtkMRMLScalarVolumeNode()
        volume.SetName(name)
        slicer.util.updateVolumeFromArray(volume, np.full(made.t1.T.shape, time, np.float32))
        volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(made.matrix))
        sequence.SetDataNodeAtValue(volume, str(time))
    browser.AddSynchronizedSequenceNode(sequence)
    browser.SetSaveChanges(sequence, False)
    return sequence


def perfusion(host: MRMLHost, made: MadeOutput, times: tuple[int, ...]) -> tuple[object, object]:
    """A browser whose master has the times 0, 10, 20 and 30, and T1's sequence beside it."""
    browser = host.scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "perfusion")
    added(host, browser, made, "master", (0, 10, 20, 30))
    return browser, added(host, browser, made, "dynamic_t1", times)


def test_a_frame_is_counted_in_its_own_sequence(
    case: tuple[MRMLHost, MadeOutput, list[object], SynthesisLogic],
) -> None:
    """The browser's master has frames that T1 lacks: name and voxels are of one frame, and every frame is run once."""
    host, made, proxies, logic = case
    browser, sequence = perfusion(host, made, (10, 30))
    show(host, browser, 3)
    t1 = browser.GetProxyNode(sequence)
    for item, title in (
        (1, "frame 1 of 2, trigger 10"),
        (2, "frame 1 of 2, trigger 10"),
        (3, "frame 2 of 2, trigger 30"),
    ):
        show(host, browser, item)
        assert Frames.frameOf(t1).title == title
        assert slicer.util.arrayFromVolume(t1)[0, 0, 0] == int(title.split()[-1])
    t2 = browser.GetProxyNode(browser.GetMasterSequenceNode())
    results = Frames.runFrames(logic, t1, t2, proxies[2])
    assert [slicer.util.arrayFromVolume(nodes.t2)[0, 0, 0] for nodes in results] == [10, 30], "of the same times"
    assert [slicer.util.arrayFromVolume(nodes.t1)[0, 0, 0] for nodes in results] == [10, 30]
    assert [f"trigger {time}" in nodes.cemri.GetName() for nodes, time in zip(results, (10, 30), strict=True)] == [
        True
    ] * 2
    assert browser.GetSelectedItemNumber() == 3


def test_a_frame_that_the_browser_lacks_is_told(
    case: tuple[MRMLHost, MadeOutput, list[object], SynthesisLogic],
) -> None:
    """A frame that no item of the browser shows is not run as another one."""
    host, made, proxies, logic = case
    browser, sequence = perfusion(host, made, (10, 15, 17, 30))
    show(host, browser, 1)
    runs = len(Runs.findRuns(host.scene))
    with pytest.raises(SynthesisError, match="1 of the 4 frames"):
        Frames.runFrames(logic, browser.GetProxyNode(sequence), *proxies[1:])
    assert len(Runs.findRuns(host.scene)) == runs


def test_a_proxy_that_was_left_as_it_was_is_named_by_its_voxels(
    case: tuple[MRMLHost, MadeOutput, list[object], SynthesisLogic],
) -> None:
    """Where a sequence ignores a missing item, or two browsers share a proxy, its voxels tell the frame."""
    host, made, _, _ = case
    browser, sequence = perfusion(host, made, (10, 30))
    browser.SetMissingItemMode(sequence, browser.MissingItemIgnore)
    show(host, browser, 3)
    t1 = browser.GetProxyNode(sequence)
    show(host, browser, 2)
    assert slicer.util.arrayFromVolume(t1)[0, 0, 0] == 30
    assert Frames.frameOf(t1).number == 1
    other = host.scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "second")
    other.AddSynchronizedSequenceNode(sequence)
    other.SetSaveChanges(sequence, False)
    other.AddProxyNode(t1, sequence, False)
    for item, chosen in ((0, other), (3, browser), (0, other)):
        show(host, chosen, item)
        assert Frames.frameOf(t1).title.endswith(f"{int(slicer.util.arrayFromVolume(t1)[0, 0, 0])}")


def test_a_hardened_copy_of_a_frame_is_named_by_it(
    case: tuple[MRMLHost, MadeOutput, list[object], SynthesisLogic],
) -> None:
    """The copy is no frame any more, and the result bears its name."""
    from D3MSynthesisLib.Inputs import hardenedCopies

    _, _, proxies, _ = case
    (copy,) = hardenedCopies(proxies[:1])
    assert "frame 2 of 3, time 30 s" in copy.GetName()
