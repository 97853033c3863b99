"""Whose a mask is: it is told by its name, its folder, or the scan that it was drawn on; never guessed in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from slicer_helpers import MadeOutput, save

slicer = pytest.importorskip("slicer")
pytest.importorskip("PySide6.QtUiTools")
from panel_helpers import SCANS, SERIES, choose, dicom, examination, panel_of, press, read, scans, steered, store  # noqa: E402
from qt_host import Host  # noqa: E402

from D3MSynthesisLib import Captions  # noqa: E402
from D3MSynthesisLib.Grids import writeMask  # noqa: E402
from D3MSynthesisLib.MaskBelonging import maskBelongs  # noqa: E402


def drawnFile(made: MadeOutput, path: Path) -> object:
    """A person's segmentation, read from a file."""
    save(path, (made.t1 > 60).astype(np.uint8), made.matrix)
    mask = slicer.util.loadSegmentation(str(path))
    mask.CreateDefaultDisplayNodes()
    return mask


@pytest.mark.parametrize(
    ("name", "silent"), [("tumour", False), ("poe_tumour", True), ("anna_tumour", False), ("Segmentation", False)]
)
def test_a_persons_mask_from_a_file_beside_dicom(
    host: Host, made: MadeOutput, tmp_path: Path, name: str, silent: bool
) -> None:
    """It stays in the views; that nothing says whose it is, is told, and asked about before it is compared with."""
    panel = panel_of(host, made, tmp_path)
    nodes = dicom(host, made, "Poe", (*SERIES, "9: t1_mprage gd"))
    mask = drawnFile(made, tmp_path / f"{name}.nii.gz")
    host.settle()
    press(host, panel)
    assert mask.GetDisplayNode().GetVisibility()
    asked: list[str] = []
    panel.confirm = lambda question: bool(asked.append(question))
    panel.parameters.reference, panel.parameters.referenceMask = nodes[3], mask
    host.settle()
    assert ("Nothing says" not in panel.ui.whoseLabel.text) is silent
    panel.ui.compareButton.click()
    assert bool(asked) is not silent
    panel.parameters.referenceMask = None
    before, notices = steered(host, panel, mask)
    assert ("Nothing says" not in before) is silent
    assert any("Nothing says" in notice for notice in notices) is not silent


def drawnHere(host: Host, made: MadeOutput, image: object) -> object:
    """What Segment Editor draws on an image."""
    drawn = host.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Segmentation")
    drawn.CreateDefaultDisplayNodes()
    drawn.SetReferenceImageGeometryParameterFromVolumeNode(image)
    writeMask(drawn, drawn.GetSegmentation().AddEmptySegment("", "Segment_1"), made.t1.T > 100, made.matrix)
    host.settle()
    return drawn


@pytest.mark.parametrize("files", [False, True])
def test_a_mask_that_was_drawn_here_and_saved_anywhere(
    host: Host, made: MadeOutput, tmp_path: Path, files: bool
) -> None:
    """Who saves what Segment Editor drew on T1, in a folder of masks, is not asked whose it is, nor is it hidden."""
    panel = panel_of(host, made, tmp_path)
    if files:
        for scan in SCANS:
            save(tmp_path / f"{scan}.nii.gz", made.t1, made.matrix)
            setattr(panel.parameters, scan, slicer.util.loadVolume(str(tmp_path / f"{scan}.nii.gz")))
        host.settle()
    else:
        dicom(host, made, "Poe")
    drawn = drawnHere(host, made, panel.parameters.t1)
    (tmp_path / "archive").mkdir()
    store(drawn, tmp_path / "archive" / "Segmentation.seg.nrrd")
    press(host, panel)
    assert drawn.GetDisplayNode().GetVisibility()
    before, notices = steered(host, panel, drawn)
    assert "make sure" not in " ".join([before, *notices, panel.ui.whoseLabel.text])


@pytest.mark.parametrize(
    ("way", "silent"),
    [("scan", False), ("result", False), ("gone", False), ("tree", False), ("registered", False), ("scene", False),
     ("own", True), ("own registered", True), ("own used", True), ("alone", True)],
)  # fmt: skip
def test_whose_a_mask_is_that_was_drawn_here(
    host: Host, made: MadeOutput, tmp_path: Path, way: str, silent: bool
) -> None:
    """Its scan says it, also when that has left the scene; of a scan that says nothing it is told beside two patients.

    Nothing is told of a mask on the patient's own scan, on what has T1's voxels alone, or was compared with, and of
    any where no other patient's scan is in the scene.
    """
    panel = panel_of(host, made, tmp_path)
    if way in ("scan", "result", "gone"):
        doe = read(host, made, tmp_path / "doe", "t1", "t2", "flair", "t1c")
    elif way == "scene":
        doe = scans(made, "T1", "T2", "FLAIR", "T1c")
    else:
        doe = dicom(host, made, "Doe", (*SERIES, "9: t1_mprage gd")) if way != "alone" else []
    image = scans(made, "t1c registered")[0] if way == "registered" else doe[3] if doe else None
    if way == "result":
        choose(panel, doe[:3])
        host.settle()
        press(host, panel)
        image = panel.result.nodes.subtraction
    if not silent:
        drawn = drawnHere(host, made, image)
    if way in ("result", "gone", "tree"):
        for node in doe:
            host.scene.RemoveNode(node)
        if way == "result":
            panel.confirm = lambda _question: True
            panel.ui.removeButton.click()
        host.settle()
    if way == "scene":
        assert host.scene.WriteToMRB(str(tmp_path / "doe.mrb"))
        host.clear()
        panel = panel_of(host, made, tmp_path / "again")
    files = way in ("scan", "result", "gone", "scene")
    if files:
        poe = read(host, made, tmp_path / "poe", "t1", "t2", "flair", "t1c")
    else:
        poe = dicom(host, made, "Poe", (*SERIES, "9: t1_mprage gd"))
    if way == "scene":
        host.scene.ReadFromMRB(str(tmp_path / "doe.mrb"), False)
        host.settle()
        drawn = host.scene.GetFirstNodeByName("Segmentation")
        drawn.GetDisplayNode().SetVisibility(True)
    choose(panel, poe[:3])
    panel.parameters.reference = None
    if silent:
        (other,) = scans(made, "Output Volume")
        drawn = drawnHere(host, made, poe[3] if way == "own" else other)
        if way == "own registered":
            for node in doe:
                node.SetOrigin(9, 9, 9)
        elif way == "own used":
            panel.parameters.reference = other
        elif way == "alone":
            other.SetOrigin(9, 9, 9)
    host.settle()
    press(host, panel)
    assert bool(drawn.GetDisplayNode().GetVisibility()) is silent
    drawn.GetDisplayNode().SetVisibility(True)
    assert ("Segmentation" in Captions.strangeCaption(host.scene, "Red")) is not silent
    panel.parameters.enhancementMask = drawn
    host.settle()
    if way == "tree":  # identifiers are not doubted
        panel.ui.steerButton.click()
        assert "another patient" in panel.ui.errorLabel.text
    else:
        assert ("make sure" in panel.ui.steerLabel.text) is not silent


@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("path", ["smith/glioma", "masks/smith_seg"])
def test_ones_own_mask_in_a_scene_that_was_saved(
    host: Host, made: MadeOutput, tmp_path: Path, path: str, other: bool
) -> None:
    """After a scene was saved and opened again its own mask is not called another patient's; another's there is."""
    panel = panel_of(host, made, tmp_path)
    t1 = read(host, made, tmp_path / "smith", *SCANS)[0]
    if other:
        read(host, made, tmp_path / "jones", *SCANS)
        path = "jones/glioma"
    (tmp_path / path).parent.mkdir(exist_ok=True)
    mask = drawnFile(made, tmp_path / f"{path}.nii.gz")
    host.settle()
    assert maskBelongs(mask, t1) is not other
    assert host.scene.WriteToMRB(str(tmp_path / "smith.mrb"))
    host.clear()
    panel = panel_of(host, made, tmp_path / "again")
    host.scene.ReadFromMRB(str(tmp_path / "smith.mrb"), False)
    host.settle()
    mask = host.scene.GetFirstNodeByName(Path(path).name)
    assert (maskBelongs(mask, panel.parameters.t1) is False) is other
    press(host, panel)
    assert bool(mask.GetDisplayNode().GetVisibility()) is not other


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_what_was_made_of_the_first_date(host: Host, made: MadeOutput, tmp_path: Path, shift: float) -> None:
    """Of two dates in DICOM the first's registered T1c, and what was drawn on it, are not taken for the second's.

    The second's own registered T1c and mask are, without a question. Registered images lie outside both examinations.
    """
    panel, asked, drawn = panel_of(host, made, tmp_path), [], []
    panel.confirm = lambda question: bool(asked.append(question))  # no
    for date in ("20210304", "20210910"):
        nodes = scans(made, *SERIES)
        registered = scans(made, f"T1c registered {date[:4]}")[0]
        for node in (*nodes, registered):
            node.SetOrigin(np.add(node.GetOrigin(), shift * len(drawn)))
        examination("Doe", nodes, date)
        host.settle()
        choose(panel, nodes)
        panel.parameters.reference = registered
        drawn.append((registered, drawnHere(host, made, registered)))
        panel.parameters.referenceMask = drawn[-1][1]
        host.settle()
        press(host, panel)
        panel.ui.compareButton.click()
        assert asked == []
    (first, mask), (_own, own) = drawn
    assert [bool(node.GetDisplayNode().GetVisibility()) for node in (mask, own)] == [False, True]
    mask.GetDisplayNode().SetVisibility(True)
    assert Captions.strangeCaption(host.scene, "Red").endswith(mask.GetName())
    for name, node in (("referenceMask", mask), ("reference", first)):
        setattr(panel.parameters, name, node)
        host.settle()
        panel.ui.compareButton.click()
        assert node.GetName() in asked.pop()
        panel.parameters.referenceMask = None
    panel.parameters.enhancementMask = mask
    host.settle()
    assert "make sure" in panel.ui.steerLabel.text


def test_a_mask_on_the_second_examination_of_a_day(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """Who allows the T1c of another examination, and gives the mask drawn on it, sees that mask over the result."""
    panel = panel_of(host, made, tmp_path)
    nodes, later = scans(made, *SERIES), scans(made, "9: t1_mprage gd")
    examination("Doe", nodes, "20210304")
    examination("Doe", later, "20210304b")
    host.settle()
    choose(panel, nodes)
    panel.parameters.reference = later[0]
    mask = drawnHere(host, made, later[0])
    examination("Doe", [mask], "20210304b")
    panel.parameters.referenceMask, panel.parameters.acrossStudies = mask, True
    host.settle()
    press(host, panel)
    assert mask.GetDisplayNode().GetVisibility()
    assert Captions.strangeCaption(host.scene, "Red") == ""


@pytest.mark.parametrize(
    ("folder", "name", "silent"), [("doe", "seg-segmentation", False), ("poe", "seg", True), ("doe", "Result", False)]
)
@pytest.mark.parametrize("copied", [False, True])
def test_whose_a_mask_is_that_was_imported(
    host: Host, made: MadeOutput, tmp_path: Path, folder: str, name: str, silent: bool, copied: bool
) -> None:
    """A label map's folder says whose its segmentation is, or that of another segmentation whose segment is copied."""
    panel = panel_of(host, made, tmp_path)
    for who in ("doe", "poe"):
        nodes = read(host, made, tmp_path / who, "t1", "t2", "flair")
    path = tmp_path / folder / "seg.nii.gz"
    save(path, (made.t1 > 60).astype(np.uint8), made.matrix)
    if copied:
        source = slicer.util.loadSegmentation(str(path))
    else:
        source = slicer.util.loadVolume(str(path), {"labelmap": True})
    host.settle()
    mask = host.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    mask.CreateDefaultDisplayNodes()
    if copied:
        segments = source.GetSegmentation()
        mask.GetSegmentation().CopySegmentFromSegmentation(segments, segments.GetNthSegmentID(0))
    else:
        slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(source, mask)
    host.settle()
    host.scene.RemoveNode(source)
    choose(panel, nodes)
    host.settle()
    press(host, panel)
    assert bool(mask.GetDisplayNode().GetVisibility()) is silent
    panel.parameters.enhancementMask = mask
    host.settle()
    assert ("make sure" in panel.ui.steerLabel.text) is not silent


def test_two_doubtful_masks_are_both_told(host: Host, made: MadeOutput, tmp_path: Path) -> None:
    """A doubt about the brain mask does not hide that about the mask of the picture."""
    panel = panel_of(host, made, tmp_path)
    dicom(host, made, "Poe")
    masks = [drawnFile(made, tmp_path / f"{name}.nii.gz") for name in ("brain_mask", "tumour")]
    host.settle()
    panel.parameters.brainMask, panel.parameters.enhancementMask = masks
    host.settle()
    assert all(f"Nothing says that {mask.GetName()}" in panel.ui.whoseLabel.text for mask in masks)


@pytest.mark.parametrize(
    ("patient", "name", "wanted"),
    [
        ("UPENN-GBM-00002", "UPENN-GBM-00001_11_segm", False),
        ("UPENN-GBM-00001", "UPENN-GBM-00001_11_segm", True),
        ("TCGA-02-0002", "TCGA-02-0001_GlistrBoost", False),
        ("TCGA-02-0001", "TCGA-02-0001_GlistrBoost", True),
        ("Subject 001", "subject_002_seg", False),
        ("Subject 001", "subject_001_seg", True),
        ("Patient 1", "patient_2_tumour", False),
        ("ANON0002", "ANON0001_seg", False),
        ("ANON0002", "ANON2_seg", True),
        ("Site 1 Jones", "site1_smith_seg", None),
        ("Doe^John", "Doe_seg", True),
        ("Doe^John", "Doe_Jane_seg", None),
        ("4711", "9_t1_mprage_KM_seg", None),
        ("4711", "20230101_seg", None),
        ("1", "Segmentation_1", None),
        ("1", "T1_seg", None),
        ("1", "001_tumour", True),
        ("Doe^John", "doe_john_glioma_by_anna", True),
        ("Doe^John", "anna_seg", None),
    ],
)
def test_whose_a_mask_is_by_a_patients_name_in_dicom(
    host: Host, made: MadeOutput, tmp_path: Path, patient: str, name: str, wanted: bool | None
) -> None:
    """One word in common, such as a study's, is not enough; another number behind it is another patient."""
    t1 = dicom(host, made, patient)[0]
    save(tmp_path / f"{name}.nii.gz", made.mask.astype(np.uint8), made.matrix)
    mask = slicer.util.loadSegmentation(str(tmp_path / f"{name}.nii.gz"))
    host.settle()
    assert maskBelongs(mask, t1) is wanted


@pytest.mark.parametrize(
    ("folders", "names"), [(("2020", "2021"), ("smith", "smith")), (("all", "all"), ("101", "102"))]
)
def test_the_real_tumour_of_another_date_or_number(
    host: Host, made: MadeOutput, tmp_path: Path, folders: tuple[str, str], names: tuple[str, str]
) -> None:
    """A mask named as a date's or patient's files is not laid over the other's result, nor measured unasked."""
    panel, asked, masks = panel_of(host, made, tmp_path), [], []
    panel.confirm = lambda question: bool(asked.append(question))  # no
    for folder, name in zip(folders, names, strict=True):
        (tmp_path / folder).mkdir(exist_ok=True)
        nodes = []
        for kind in (*SCANS, "t1c", "seg"):
            path = tmp_path / folder / f"{name}_{kind}.nii.gz"
            save(path, made.mask.astype(np.uint8) if kind == "seg" else made.t1 + len(masks), made.matrix)
            nodes.append((slicer.util.loadSegmentation if kind == "seg" else slicer.util.loadVolume)(str(path)))
            host.settle()
        *chosen, real, mask = nodes
        masks.append(mask)
        choose(panel, chosen)
        panel.parameters.reference = real
        host.settle()
        press(host, panel)
    first, own = masks
    assert own.GetDisplayNode().GetVisibility()
    assert not first.GetDisplayNode().GetVisibility()
    panel.parameters.referenceMask = own
    host.settle()
    panel.ui.compareButton.click()
    assert asked == []
    panel.parameters.referenceMask = first
    host.settle()
    panel.ui.compareButton.click()
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("name", "patient", "wanted"),
    [
        ("smith_seg", "Smith^Anna", True), ("smith_2020_postop_seg", "Smith^Anna", True),
        ("jones_seg", "Smith^Anna", False), ("tumour", "Smith^Anna", None),
    ],
)  # fmt: skip
def test_a_mask_that_is_called_as_another_patient_of_the_scene(
    host: Host, made: MadeOutput, tmp_path: Path, name: str, patient: str, wanted: bool | None
) -> None:
    """With Smith's and Jones's scans there a mask called Jones is not Smith's; a plain name is nobody's, and hidden."""
    panel = panel_of(host, made, tmp_path)
    dicom(host, made, "Jones^Bob")
    save(tmp_path / f"{name}.nii.gz", made.mask.astype(np.uint8), made.matrix)
    mask = slicer.util.loadSegmentation(str(tmp_path / f"{name}.nii.gz"))
    mine = dicom(host, made, patient)
    assert maskBelongs(mask, mine[0]) is wanted
    choose(panel, mine)
    host.settle()
    press(host, panel)
    assert bool(mask.GetDisplayNode().GetVisibility()) is (wanted is True)
    mask.GetDisplayNode().SetVisibility(True)
    told = {True: "", False: "of another patient", None: "nothing says of which patient"}[wanted]
    caption = Captions.strangeCaption(host.scene, "Red")
    assert told in caption
    assert bool(caption) is (wanted is not True)


@pytest.mark.parametrize(
    ("scan", "mask", "wanted"),
    [
        ("all/t1_001", "all/seg_001", True),
        ("all/001_t1", "masks/001_seg", False),
        ("smith/raw/smith_t1", "smith/reg/smith_seg", True),
        ("sub-01/anat/sub-01_T1w", "derivatives/net-1.5/sub-01/anat/sub-01_desc-tumor_mask", True),
        ("smith/2021/smith_t1", "smith/2020/smith_seg", False),
        ("smith/postop/smith_t1", "smith/preop/smith_seg", False),
        ("UPENN-GBM-00001_11_T1_unstripped", "UPENN-GBM-00001_11_automated_approx_segm", True),
    ],
)
def test_whose_a_mask_is_by_numbers_and_folders(
    host: Host, made: MadeOutput, tmp_path: Path, scan: str, mask: str, wanted: bool | None
) -> None:
    """Numbers at the end count as those at the beginning; folders of a step of work are not those of dates."""
    nodes = []
    beside = Path(mask).parent / Path(scan).name.replace("sub-01_", "sub-01_desc-preproc_")
    for path in dict.fromkeys((scan, str(beside))):  # a scan of T1's kind lies beside the mask as well
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        save(tmp_path / f"{path}.nii.gz", made.t1, made.matrix)
        nodes.append(slicer.util.loadVolume(str(tmp_path / f"{path}.nii.gz")))
    (tmp_path / mask).parent.mkdir(parents=True, exist_ok=True)
    save(tmp_path / f"{mask}.nii.gz", made.mask.astype(np.uint8), made.matrix)
    node = slicer.util.loadSegmentation(str(tmp_path / f"{mask}.nii.gz"))
    host.settle()
    assert maskBelongs(node, nodes[0]) is wanted


VISITS = (
    "baseline",
    "initial",
    "follow-up",
    "ses-01",
    "week-000-1",
    "visit1",
    "tp1",
    "v1",
    "m06",
    "MRI",
    "brain",
    "preprocessed",
    "raw",
)


@pytest.mark.parametrize(
    ("scans", "mask", "wanted"),
    [
        *(
            ("smith/images/T1", f"smith/{mask}", True)
            for mask in ("masks/tumour", "labels/seg", "annotations/left_rim")
        ),
        ("smith/T1", "smith/annotations/tumour", True),
        ("smith/T1 smith/T1c smith/T1_orig", "smith/T1c_tumour", True),
        ("imagesTr/case_001_0000_t1", "labelsTr/case_001", None),
        ("smith/T1_fu smith/T2_fu smith/T1 smith/T2", "smith/tumour", False),
        ("smith/smith_T1 smith/smith_T1c", "smith/T1c_tumour", True),
        ("all/01_T1 all/01_T2 all/02_T1 all/02_T2", "all/Segmentation_1", False),
        ("all/patient_smith_T1", "else/patient_jones_seg", None),
        ("all/001_T1 all/001_T2 all/002_T1", "all/002_T1_seg", False),
        ("all/001_T1 all/001_T2 all/002_T1", "all/001_T2_seg", True),
        ("images/case12/t1", "labels/case12", True),
        ("images/case12/t1", "labels/case13", False),
        ("smith/T1/T1", "smith/T1/left_tumour", True),
        ("Patient-001/week-000-1/T1", "Patient-001/week-000-1/DeepBraTumIA-segmentation/native/ct1_seg_mask", True),
        ("smith/smith_T1", "smith/nnunet/seg", True),
        ("smith/smith_T1", "smith/drmeyer/seg", True),
        ("all/smith_T1 all/drmeyer/T1", "all/drmeyer/seg", False),
        ("all/T1 all/jones/images/T1", "all/jones/masks/seg", False),
        ("smith/T1", "smith/2020/seg", False),
        ("smith/T1", "smith/12/seg", False),
        ("all/smith_T1 all/jones_T1", "all/masks/tumour", False),
        ("all/smith_T1 all/jones_T1", "all/seg_jones", False),
        ("all/T1 else/jones_T1", "all/jones_seg", False),
        ("all/T1 else/jones_T1", "all/masks/jones_seg", False),
        ("all/001_T1 all/001_T2 all/002_T1", "all/masks/tumour", False),
        ("all/T1_12 all/T2_12 all/T1_13", "all/seg_13", False),
        ("all/T1_12 all/T2_12 all/T1_13", "all/seg_12", True),
        ("smith/T1_4 smith/T2_5", "smith/seg_13", True),
        ("smith_T1", "left_frontal_tumor", True),
        ("smith_T1", "drmeyer_tumor", True),
        ("smith_T1pre", "smith_drmeyer_seg", True),
        ("smith_T1 jones_T1", "drmeyer_tumor", False),
        ("t1_002 t2_002 t1_001", "seg_001", False),
        ("T1_to_SRI", "brainTumorMask_SRI", True),
        *((f"smith/{visit}/T1", f"masks/jones_{visit}_seg", False) for visit in VISITS),
        *((f"smith/{visit}/T1", f"masks/smith_{visit}_seg", True) for visit in VISITS),
        ("smith/baseline/T1", "masks/smith_followup_seg", None),
        ("smith/baseline/T1 jones/followup/T1", "masks/jones_baseline_seg", False),
        ("smith/preop/T1", "jones/preop/preop_seg", None),
        *((f"smith/{prefix}_T1", f"jones/{prefix}_seg", None) for prefix in ("preop", "anat", "n4", "20200115")),
        ("smith/2020/preop_T1", "jones/2020_preop_seg", False),
        ("smith/preop_T1 smith/postop_T1", "smith/nnunet/preop_seg", True),
        ("smith/preop_T1 smith/postop_T1", "smith/postop_seg", False),
        ("smith/T1", "smith/ses-02/seg", False),
        ("d/smith_0000", "d/jones_seg", None),
        *((f"smith/t1 smith/t1_{done} smith/t2 smith/t2_{done}", "smith/seg", True) for done in ("bias", "mni", "raw")),
        ("smith/t1 smith/t1_xyz smith/t2 smith/t2_xyz", "smith/seg", None),
        *(
            (f"smith/T1 smith/T2 smith/T1_{date} smith/T2_{date}", f"smith/{date}_seg", False)
            for date in ("fu1", "visit2", "6months")
        ),
        ("smith/MRI/T1", "smith/tumour", None),
        ("smith/MRI/T1", "masks/smith_seg", None),
        ("smith/baseline/T1", "masks/baseline_seg", None),
        ("p/01/T1", "p/masks/01_seg", None),
        ("ivy/W10/T1", "ivy/W11/W11_seg", False),
        ("d/scans/smith/smith_T1", "m/masks/smith_seg", True),
        ("p/01/T1", "p/masks/02_seg", False),
    ],
)
def test_whose_a_mask_is_by_where_it_lies(
    host: Host, made: MadeOutput, tmp_path: Path, scans: str, mask: str, wanted: bool | None
) -> None:
    """A mask below a patient's folder is his, unless scans, a date or another's name are between.

    Elsewhere its name has to say so, by more than a visit, a date or a kind of scan, which each patient may have.
    """
    nodes = []
    for path in (*scans.split(), mask):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        save(tmp_path / f"{path}.nii.gz", made.mask.astype(np.uint8) if path == mask else made.t1, made.matrix)
    for path in scans.split():
        nodes.append(slicer.util.loadVolume(str(tmp_path / f"{path}.nii.gz")))
    nodes.append(slicer.util.loadSegmentation(str(tmp_path / f"{mask}.nii.gz")))
    host.openModule("D3MSynthesis")
    host.settle()
    assert maskBelongs(nodes[-1], nodes[0]) is wanted


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("smith_seg", None),
        ("smith_20210304_seg", True),
        ("smith_20210304101010_seg", True),
        ("smith_19500101_seg", None),
        ("smith_19500101_20210304_seg", True),
        ("smith_20200115_seg", False),
        ("smith_2020-01-15_seg", False),
        ("smith_19500101_20200115_seg", False),
        ("smith_20221224_seg", False),
        ("smith_20220510_seg", None),
        ("20200115_tumour", False),
    ],
)
def test_a_mask_named_for_another_date_than_the_study(
    host: Host, made: MadeOutput, tmp_path: Path, name: str, wanted: bool | None
) -> None:
    """An earlier date than the study's in DICOM is another visit, as another study's is; a later one may be a day of
    drawing."""
    nodes = scans(made, "5: t1_mprage", "5: t1_mprage_1")
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(host.scene)
    person = tree.CreateSubjectItem(tree.GetSceneItemID(), "Smith^Anna (4711)")
    tree.SetItemAttribute(person, "DICOM.PatientBirthDate", "19500101")
    for node, date in zip(nodes, ("20210304", "20221224"), strict=True):
        study = tree.CreateStudyItem(person, f"MR Skull ({date})")
        tree.SetItemParent(tree.GetItemByDataNode(node) or tree.CreateItem(study, node), study)
    save(tmp_path / f"{name}.nii.gz", made.mask.astype(np.uint8), made.matrix)
    host.openModule("D3MSynthesis")
    mask = slicer.util.loadSegmentation(str(tmp_path / f"{name}.nii.gz"))
    host.settle()
    assert maskBelongs(mask, nodes[0]) is wanted
