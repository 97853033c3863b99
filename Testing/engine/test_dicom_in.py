"""DICOM series as archives deliver them: read like the files they were made from, or refused with a hint."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless, generate_uid

from conftest import AFFINE, tiny_volumes
from d3m.errors import D3MError
from d3m.volumes.io.dicom.study import choose_series, read_series
from d3m.volumes.preprocess.case import read_case, read_volume
from engine.dicom_helpers import to_enhanced, write_series

STUDY, FRAME = generate_uid(), generate_uid()


def tilted(degrees: float = 7.0) -> np.ndarray:
    """The tiny case's affine, turned about the left-right axis, with 1.2 mm slices."""
    angle = np.radians(degrees)
    rotation = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    matrix = AFFINE.copy()
    matrix[:3, :3] = rotation @ AFFINE[:3, :3] @ np.diag([1, 1, 1.2])
    return matrix


@pytest.fixture(scope="module")
def t1() -> np.ndarray:
    """Whole numbers, so that nothing is lost in DICOM."""
    return np.rint(tiny_volumes()["t1"])


def series(folder: Path, data: np.ndarray, matrix: np.ndarray = AFFINE, text: str = "AX T1", **options: Any) -> Path:
    """Write one series and return its folder."""
    write_series(data, matrix, folder, text, STUDY, FRAME, **options)
    return folder


def same_picture(volume: Any, data: np.ndarray, matrix: np.ndarray, tolerance: float = 1e-3) -> None:
    """Every voxel of the source is in the volume, at its own place in space."""
    index = np.stack(np.meshgrid(*map(np.arange, data.shape), indexing="ij"), -1).reshape(-1, 3)
    into = np.linalg.inv(volume.affine) @ matrix
    found = index @ into[:3, :3].T + into[:3, 3]
    assert np.abs(found - np.rint(found)).max() < 0.02 + tolerance
    x, y, z = np.rint(found).astype(int).T
    np.testing.assert_allclose(volume.data[x, y, z], data.ravel(), atol=tolerance)
    assert volume.data.size == data.size


@pytest.mark.parametrize("axes", [("L", "P", "S"), ("L", "P", "I"), ("P", "I", "R"), ("L", "I", "A"), ("L", "A", "S")])
def test_any_acquisition_lies_where_it_was(tmp_path: Path, t1: np.ndarray, axes: tuple[str, str, str]) -> None:
    """Axial, sagittal and coronal series, either way round and tilted, with random file names."""
    names = [f"{name:x}" for name in np.random.default_rng(1).permutation(1000)]
    folder = series(tmp_path / "t1", t1, tilted(), axes=axes, names=lambda index: names[index])
    same_picture(read_volume(folder, "t1"), t1, tilted())


def test_geometry_agrees_with_simpleitk(tmp_path: Path, t1: np.ndarray) -> None:
    """The same origin, spacing and directions as GDCM's reader, and the same values."""
    folder = series(tmp_path / "t1", t1, tilted())
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    volume = read_series(folder, "t1")
    lps = np.diag([-1, -1, 1, 1]) @ volume.affine
    np.testing.assert_allclose(lps[:3, 3], image.GetOrigin(), atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(lps[:3, :3], axis=0), image.GetSpacing(), atol=1e-4)
    directions = np.array(image.GetDirection()).reshape(3, 3)
    np.testing.assert_allclose(lps[:3, :3] / np.linalg.norm(lps[:3, :3], axis=0), directions, atol=1e-5)
    np.testing.assert_array_equal(volume.data, sitk.GetArrayFromImage(image).T)


def test_one_file_stands_for_its_series(tmp_path: Path, t1: np.ndarray) -> None:
    """A single file of a series, as a file dialog gives it, is read as the whole series."""
    folder = series(tmp_path / "t1", t1)
    series(tmp_path / "t1", t1 + 7, text="AX T2", names=lambda index: f"other{index}.dcm")
    same_picture(read_volume(folder / "0011.dcm", "t1"), t1, AFFINE)


def test_rescaling_of_each_slice_counts(tmp_path: Path, t1: np.ndarray) -> None:
    """A slope and intercept that differ from slice to slice give the intensities back."""

    def edit(dataset: Any, z: int) -> Any:
        stored = np.frombuffer(dataset.PixelData, "<u2")
        dataset.RescaleSlope, dataset.RescaleIntercept = str(0.5 + z), str(-3 * z)
        dataset.PixelData = np.rint((stored + 3 * z) / (0.5 + z)).astype("<u2").tobytes()
        return dataset

    volume = read_volume(series(tmp_path / "t1", t1, edit=edit), "t1")
    same_picture(volume, t1, AFFINE, tolerance=0.5 * (0.5 + t1.shape[2]))


@pytest.mark.parametrize("kind", ["same file", "other UID"])
def test_duplicates_are_ignored_and_said(tmp_path: Path, t1: np.ndarray, kind: str) -> None:
    """Slices that the archive sent twice change nothing."""

    def edit(dataset: Any, z: int) -> Any:
        again = copy.deepcopy(dataset)
        if kind == "other UID":
            again.SOPInstanceUID = generate_uid()
        return [dataset, again] if z % 9 == 4 else dataset

    volume = read_volume(series(tmp_path / "t1", t1, edit=edit), "t1")
    same_picture(volume, t1, AFFINE)
    (notice,) = [notice for notice in volume.notices if notice.code == "dicom-duplicates"]
    assert notice.message.startswith(f"{len(range(4, t1.shape[2], 9))} duplicate")


def test_two_images_at_one_place_are_refused(tmp_path: Path, t1: np.ndarray) -> None:
    """Which of them is right cannot be known."""

    def edit(dataset: Any, z: int) -> Any:
        other = copy.deepcopy(dataset)
        other.SOPInstanceUID = generate_uid()
        other.PixelData = np.roll(np.frombuffer(other.PixelData, "<u2"), 5).tobytes()
        return [dataset, other] if z == 20 else dataset

    with pytest.raises(D3MError, match="two different images at one place"):
        read_volume(series(tmp_path / "t1", t1, edit=edit), "t1")


def test_missing_slices_are_refused(tmp_path: Path, t1: np.ndarray) -> None:
    """A gap inside the stack is named; nothing is invented for it."""
    folder = series(tmp_path / "t1", t1, edit=lambda dataset, z: None if z in (10, 11) else dataset)
    with pytest.raises(D3MError, match=r"T1 lacks 2 slices inside the stack, from 9 to 12 mm behind its first slice"):
        read_volume(folder, "t1")


def test_rounded_headers_are_accepted(tmp_path: Path, t1: np.ndarray) -> None:
    """Positions off by some micrometres and directions of three digits are a good series."""

    def edit(dataset: Any, z: int) -> Any:
        off = np.random.default_rng(z).uniform(-0.004, 0.004)
        x, y, place = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [f"{x:.5f}", f"{y:.5f}", f"{float(place) + off:.5f}"]
        dataset.ImageOrientationPatient = [f"{value:.3f}" for value in dataset.ImageOrientationPatient]
        return dataset

    same_picture(read_volume(series(tmp_path / "t1", t1, tilted(), edit=edit), "t1"), t1, tilted())


def test_stray_images_and_other_files_are_left_out(tmp_path: Path, t1: np.ndarray) -> None:
    """A localiser of another plane and size in the series, a DICOMDIR and texts beside it: the scan is read."""

    def edit(dataset: Any, z: int) -> Any:
        if z:
            return dataset
        scout = copy.deepcopy(dataset)
        scout.SOPInstanceUID, scout.ImageType = generate_uid(), ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        scout.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        scout.Rows = scout.Columns = 16
        scout.PixelData = bytes(512)
        return [scout, dataset]

    folder = series(tmp_path / "t1", t1, edit=edit, names=lambda index: f"IM{index}")
    (folder / "notes.txt").write_text("not an image")
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(40))
    volume = read_volume(folder, "t1")
    same_picture(volume, t1, AFFINE)
    assert any("1 image of another orientation" in notice.message for notice in volume.notices)


def test_three_planes_are_no_scan(tmp_path: Path, t1: np.ndarray) -> None:
    """A localiser is refused as what it is."""

    def edit(dataset: Any, z: int) -> Any:
        if z % 2:
            dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        return dataset

    with pytest.raises(D3MError, match="several stacks"):
        read_volume(series(tmp_path / "t1", t1, edit=edit), "t1")


@pytest.mark.parametrize(("contrast", "kept"), [("t1", 10), ("t2", 90)])
def test_interleaved_echoes_are_told_apart(tmp_path: Path, t1: np.ndarray, contrast: str, kept: float) -> None:
    """Of a double echo the late one is the T2; the choice is said."""

    def edit(dataset: Any, z: int) -> Any:
        late = copy.deepcopy(dataset)
        dataset.EchoTime, late.EchoTime = "10", "90"
        late.SOPInstanceUID = generate_uid()
        late.PixelData = (np.frombuffer(late.PixelData, "<u2") * 2).astype("<u2").tobytes()
        return [dataset, late]

    volume = read_volume(series(tmp_path / contrast, t1, edit=edit), contrast)
    same_picture(volume, t1 * (2 if contrast == "t2" else 1), AFFINE)
    assert any(f"at {kept:g} ms" in notice.message for notice in volume.notices)


@pytest.mark.parametrize("backwards", [False, True])
def test_enhanced_multi_frame(tmp_path: Path, t1: np.ndarray, backwards: bool) -> None:
    """Geometry that stands only in the functional groups is found, in either order of the frames."""
    folder = series(tmp_path / "slices", t1, tilted())
    (tmp_path / "enhanced").mkdir()
    to_enhanced(folder, tmp_path / "enhanced/t1.dcm", backwards)
    for place in (tmp_path / "enhanced", tmp_path / "enhanced/t1.dcm"):
        same_picture(read_volume(place, "t1"), t1, tilted())


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_compressed_pixels(tmp_path: Path, t1: np.ndarray, syntax: str) -> None:
    """What archives compress without loss comes back bit for bit."""

    def edit(dataset: Any, _: int) -> Any:
        dataset.compress(syntax)
        return dataset

    try:
        folder = series(tmp_path / "t1", t1, edit=edit)
    except (RuntimeError, NotImplementedError):
        pytest.skip("no encoder for the test's own files")
    same_picture(read_volume(folder, "t1"), t1, AFFINE)


def test_a_missing_decoder_is_named_before_the_work(
    tmp_path: Path, t1: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence says which compression it is and what to install."""
    import pydicom

    def edit(dataset: Any, _: int) -> Any:
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.70"
        dataset.PixelData = pydicom.encaps.encapsulate([bytes(10)])
        return dataset

    folder = series(tmp_path / "t1", t1, edit=edit)

    class Nothing:
        is_available = False

    monkeypatch.setattr(pydicom.pixels, "get_decoder", lambda uid: Nothing())
    with pytest.raises(D3MError, match=r"T1 is compressed \(JPEG Lossless\).*pip install python-gdcm") as caught:
        read_volume(folder, "t1")
    assert caught.value.kind == "machine"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"PixelSpacing": None}, "lack position"),
        ({"ImageOrientationPatient": None}, "lack position"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "make no plane"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "inverted"),
        ({"ImageType": ["DERIVED", "PRIMARY", "M", "MOSAIC"]}, "mosaic"),
        ({"Rows": 60000, "Columns": 60000}, "T1"),
        ({"PixelData": b"\0\0"}, "T1"),
        ({"ImagePositionPatient": ["1e400", "0", "0"]}, "lack position"),
    ],
)
def test_what_is_no_scan_is_refused(tmp_path: Path, t1: np.ndarray, change: dict[str, Any], words: str) -> None:
    """Each fault of the headers has its sentence; nothing is allocated for absurd sizes."""

    def edit(dataset: Any, z: int) -> Any:
        for name, value in change.items():
            if value is None:
                delattr(dataset, name)
            elif name == "ImagePositionPatient":
                dataset.add_new("ImagePositionPatient", "LO", value)
            else:
                setattr(dataset, name, value)
        return dataset if z < 12 else None

    with pytest.raises(D3MError, match=words):
        read_volume(series(tmp_path / "t1", t1, edit=edit), "t1")


def test_a_loop_of_links_ends(tmp_path: Path, t1: np.ndarray) -> None:
    """A link to the folder above does not send the search round in circles."""
    folder = series(tmp_path / "t1", t1)
    (folder / "again").symlink_to(folder, target_is_directory=True)
    same_picture(read_volume(folder, "t1"), t1, AFFINE)


def test_linked_folders_are_read(tmp_path: Path, t1: np.ndarray) -> None:
    """A study put together from links to the folders of series is one."""
    study(tmp_path / "store")
    (tmp_path / "study").mkdir()
    for folder in (tmp_path / "store").iterdir():
        (tmp_path / "study" / f"link{folder.name}").symlink_to(folder, target_is_directory=True)
    assert [one.number for one in (lambda c: (c.t1, c.t2, c.flair))(choose_series(tmp_path / "study"))] == [1, 2, 3]


def test_links_to_nothing_are_said(tmp_path: Path, t1: np.ndarray) -> None:
    """Of a series under git-annex some files are not there: their number is said; with none there, what to do."""
    folder = series(tmp_path / "t1", t1)
    for path in sorted(folder.iterdir())[-5:]:
        path.unlink()
        path.symlink_to(tmp_path / "annex" / path.name)
    [notice] = [n for n in read_volume(folder, "t1").notices if n.code == "dicom-broken-links"]
    assert "5 files beside T1 are links to nothing" in notice.message
    for path in folder.iterdir():
        path.unlink()
        path.symlink_to(tmp_path / "annex" / path.name)
    with pytest.raises(D3MError, match="links to nothing"):
        read_volume(folder, "t1")


def study(folder: Path, **more: tuple[str, Any]) -> Path:
    """A study's folder with T1, T2, FLAIR and further series: description and an edit."""
    volumes = tiny_volumes()
    wanted: dict[str, tuple[str, Any]] = {
        "t1": ("ax t1 mprage", None), "t2": ("AX T2 TSE", None), "flair": ("T2_FLAIR", None), **more,
    }  # fmt: skip
    for number, (name, (text, edit)) in enumerate(wanted.items(), 1):
        data = np.rint(volumes.get(name, volumes["t1c"]))
        options = {} if edit is None else {"edit": edit}
        series(folder / f"{number}", data, text=text, number=number, **options)
    return folder


def contrast_agent(dataset: Any, _: int) -> Any:
    """As scanners mark series after the injection."""
    dataset.ContrastBolusAgent = "Gadovist"
    return dataset


def derived(dataset: Any, _: int) -> Any:
    """As computed maps are marked."""
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    return dataset


def test_series_of_a_study_are_chosen_and_said(tmp_path: Path) -> None:
    """The T1 before contrast, T2 and FLAIR are found among post-contrast, derived and short series."""
    folder = study(
        tmp_path / "study",
        t1c=("ax t1 mprage", contrast_agent),
        named=("AX T1 +C", None),
        map=("AX T1", derived),
        scout=("T1 loc", lambda dataset, z: dataset if z < 4 else None),
    )
    choice = choose_series(folder)
    assert [one.number for one in (choice.t1, choice.t2, choice.flair)] == [1, 2, 3]
    assert all("PID" not in notice.message and "ller" not in notice.message for notice in choice.notices)
    case = read_case(choice.t1, choice.t2, choice.flair)
    same_picture(case.t2, np.rint(tiny_volumes()["t2"]), AFFINE)


def test_one_folder_for_all_three(tmp_path: Path) -> None:
    """The study's folder given to each option: each takes the series that is described so, and says it."""
    folder = study(tmp_path / "study", map=("AX T1 map", derived))
    case = read_case(folder, folder, folder)
    same_picture(case.flair, np.rint(tiny_volumes()["flair"]), AFFINE)
    assert {notice.volume for notice in case.notices if notice.code == "dicom-choice"} == {"t1", "t2", "flair"}


def test_what_cannot_be_chosen_is_listed(tmp_path: Path) -> None:
    """Without a T2 the sentence lists what is there, by number, description and kind, and never by patient."""
    volumes = tiny_volumes()
    for number, (name, text) in enumerate((("t1", "AX T1"), ("flair", "FLAIR")), 1):
        series(tmp_path / f"s/{number}", np.rint(volumes[name]), text=text, number=number)
    with pytest.raises(
        D3MError, match=r"This study has no T2 series that.*series 1 \(AX T1; 40 images, ORIGINAL\)"
    ) as e:
        choose_series(tmp_path / "s")
    assert "PID" not in str(e.value)
    assert "--t2" in e.value.hint


def test_two_patients_are_refused(tmp_path: Path) -> None:
    """A folder of several patients is not mixed."""
    folder = study(tmp_path / "study")

    def other(dataset: Any, _: int) -> Any:
        dataset.PatientID = "somebody else"
        return dataset

    series(folder / "x", np.rint(tiny_volumes(3)["t1"]), text="AX T1", edit=other)
    with pytest.raises(D3MError, match="more than one patient"):
        choose_series(folder)


def test_a_t1_with_contrast_agent_is_told(tmp_path: Path, t1: np.ndarray) -> None:
    """Values cannot show it, the header can: the notice travels with the scan."""
    volume = read_volume(series(tmp_path / "t1", t1, edit=contrast_agent), "t1")
    assert any(notice.code == "t1-contrast-agent" for notice in volume.notices)
