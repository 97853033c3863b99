"""Faults of DICOM folders from the field: hostile sizes, broken headers, mixed patients, and choices among series."""

from __future__ import annotations

import contextlib
import copy
import gzip
import time
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, generate_uid

from conftest import AFFINE
from d3m.errors import D3MError
from d3m.volumes.io.dicom.headers import find_series, is_dicom
from d3m.volumes.io.dicom.pixels import declared_size
from d3m.volumes.io.dicom.study import choose_series, read_series
from d3m.volumes.preprocess.case import read_volume
from engine.command_helpers import d3m_command, events
from engine.dicom_helpers import to_enhanced, write_series

STUDY, FRAME = generate_uid(), generate_uid()
PICTURE = np.random.default_rng(5).integers(1, 900, (24, 20, 12)).astype(float)


def series(folder: Path, text: str = "AX T1", data: np.ndarray = PICTURE, **options: Any) -> Path:
    """Write one small series and return its folder."""
    write_series(data, AFFINE, folder, text, options.pop("study", STUDY), FRAME, **options)
    return folder


def is_picture(volume: Any, data: np.ndarray = PICTURE) -> None:
    """The values and their places are those that were written."""
    into = np.linalg.inv(volume.affine) @ AFFINE
    index = np.stack(np.meshgrid(*map(np.arange, data.shape), indexing="ij"), -1).reshape(-1, 3)
    x, y, z = np.rint(index @ into[:3, :3].T + into[:3, 3]).astype(int).T
    np.testing.assert_allclose(volume.data[x, y, z], data.ravel(), atol=1e-3)
    assert volume.data.size == data.size


def changed(**values: Any) -> Any:
    """An edit that sets (or with None deletes) elements of every slice."""

    def edit(dataset: Any, _: int) -> Any:
        for name, value in values.items():
            if value is None:
                delattr(dataset, name)
            else:
                setattr(dataset, name, value)
        return dataset

    return edit


def copied(dataset: Any, **values: Any) -> Any:
    """A second image at the same place."""
    other = copy.deepcopy(dataset)
    other.SOPInstanceUID = generate_uid()
    return changed(**values)(other, 0)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_a_bomb_in_compressed_pixels_is_not_unpacked(tmp_path: Path, syntax: str) -> None:
    """A stream that declares 6000 x 6000 pixels under a small header is refused by its own header."""
    folder = series(tmp_path / "t1")
    victim = pydicom.dcmread(folder / "0005.dcm")
    large = copy.deepcopy(victim)
    large.Rows = large.Columns = 3000
    large.PixelData = bytes(18_000_000)
    large.compress(syntax)
    (packed,) = pydicom.encaps.generate_frames(large.PixelData, number_of_frames=1)
    assert declared_size(packed) == (3000, 3000)
    large.Rows, large.Columns = victim.Rows, victim.Columns
    large.save_as(folder / "0005.dcm")
    assert (folder / "0005.dcm").stat().st_size < 10_000
    with pytest.raises(D3MError, match="An image of T1 cannot be unpacked"):
        read_series(folder, "t1")


@pytest.mark.parametrize("syntax", ["JPEGLosslessProcess14_1", "JPEG2000Lossless", "RLELossless"])
def test_what_other_programs_compressed_is_read(tmp_path: Path, syntax: str) -> None:
    """Files that GDCM packed without loss, JPEG Lossless among them, come back bit for bit."""
    gdcm = pytest.importorskip("gdcm")
    folder = series(tmp_path / "t1")
    for path in folder.iterdir():
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID.is_compressed
    is_picture(read_series(folder, "t1"))


@pytest.mark.long
@pytest.mark.parametrize("where", ["private", "meta", "text", "pixels"])
def test_huge_elements_are_not_read(tmp_path: Path, where: str) -> None:
    """An element of gigabytes (a hole in the file, so that it costs no disk) is passed over or refused, never read."""
    data = np.arange(16 * 16 * 8.0).reshape(16, 16, 8)
    write_series(data, AFFINE, tmp_path / "t1", "T1", "1.2", "1.3")
    path = sorted((tmp_path / "t1").iterdir())[3]
    content, hole = path.read_bytes(), 1_500_000_000
    pixels = content.index(b"\xe0\x7f\x10\x00OW")
    places = {
        "private": (pixels, b"\xd1\x7f\x10\x00OB\0\0"), "meta": (132, b"\x02\x00\x02\x01OB\0\0"),
        "text": (content.index(b"\x08\x00\x3e\x10"), b"\x08\x00\x3e\x10UT\0\0"),
        "pixels": (pixels, b"\xe0\x7f\x10\x00OW\0\0"),
    }  # fmt: skip
    at, head = places[where]
    with path.open("wb") as file:
        file.write(content[:at] + head + hole.to_bytes(4, "little"))
        file.seek(hole, 1)
        file.write(content[at:] if where != "pixels" else b"")
        file.truncate()
    tracemalloc.start()
    if where in ("meta", "pixels"):
        with pytest.raises(D3MError):
            read_series(tmp_path / "t1", "t1")
    else:
        assert np.array_equal(read_series(tmp_path / "t1", "t1").data, data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


@pytest.mark.parametrize("before", [True, False])
def test_a_sequence_of_countless_items_is_not_read(tmp_path: Path, before: bool) -> None:
    """Each empty item of eight bytes would cost a kilobyte and some time; the file counts as damaged."""
    folder = series(tmp_path / "a")
    path = folder / "0003.dcm"
    content = path.read_bytes()
    start = b"\x29\x00\x01\x10SQ\0\0" if before else b"\xfe\x7f\x01\x10SQ\0\0"
    items = start + b"\xff" * 4 + (b"\xfe\xff\x00\xe0" + bytes(4)) * 300_000 + b"\xfe\xff\xdd\xe0" + bytes(4)
    place = content.index(b"\xe0\x7f\x10\x00") if before else len(content)
    path.write_bytes(content[:place] + items + content[place:])
    started = time.process_time()
    with pytest.raises(D3MError, match="lacks 1 slice"):
        read_series(folder, "t1")
    assert time.process_time() - started < 5


def test_a_packed_header_is_not_unpacked(tmp_path: Path) -> None:
    """Files of the deflated syntax, which may grow without bounds before they are known, are counted as damaged."""
    folder = series(tmp_path / "t1")
    name = folder / "0003.dcm"
    dataset = pydicom.dcmread(name)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    dataset.save_as(name, enforce_file_format=True)
    with pytest.raises(D3MError, match="lacks 1 slice"):
        read_series(folder, "t1")
    assert find_series(folder)[0].damaged == 1


def test_damaged_files_are_counted(tmp_path: Path) -> None:
    """A header cut at the stack's end cannot show as a gap: a notice says that slices may be missing."""
    folder = series(tmp_path / "t1")
    last = folder / "0011.dcm"
    last.write_bytes(last.read_bytes()[:300])
    volume = read_series(folder, "t1")
    assert volume.data.shape[2] == 11
    assert any("1 DICOM file beside T1 cannot be read" in notice.message for notice in volume.notices)


def test_files_without_preamble_are_read(tmp_path: Path) -> None:
    """Old archives leave out the preamble and the group that names the transfer syntax."""
    folder = series(tmp_path / "t1")
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        bare = pydicom.Dataset({tag: dataset[tag] for tag in dataset.keys() if tag.group != 2})  # noqa: SIM118
        pydicom.dcmwrite(path, bare, implicit_vr=True, little_endian=True)
        assert path.read_bytes()[128:132] != b"DICM"
        assert is_dicom(path)
    is_picture(read_volume(folder, "t1"))


@pytest.mark.parametrize(("stored", "signed"), [(12, 1), (12, 0), (10, 0), (16, 1)])
def test_unused_bits_do_not_count(tmp_path: Path, stored: int, signed: int) -> None:
    """Overlays in the high bits are taken away, and the sign of a short number is kept."""
    data = PICTURE - 450 if signed else PICTURE

    def edit(dataset: Any, z: int) -> Any:
        values = np.frombuffer(dataset.PixelData, "<u2").astype("<i4") - (450 if signed else 0)
        bits = values & (2**stored - 1)
        bits |= 0xFFFF & ~(2**stored - 1) if z % 2 and stored < 16 else 0
        dataset.PixelData = bits.astype("<u2").tobytes()
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = stored, stored - 1, signed
        return dataset

    if stored == 10:
        data = np.minimum(data, 1023)
    is_picture(read_series(series(tmp_path / "t1", edit=edit), "t1"), data)


def test_other_pixel_sizes_are_another_stack(tmp_path: Path) -> None:
    """Images of the same matrix but another field of view are not mixed into the scan."""
    half = ["0.1", "0.1"]
    volume = read_series(
        series(tmp_path / "t1", edit=lambda d, z: [d, copied(d, PixelSpacing=half)] if z in (3, 4) else d), "t1"
    )
    is_picture(volume)
    assert any("2 images of another" in notice.message for notice in volume.notices)
    with pytest.raises(D3MError, match="several stacks"):
        read_series(series(tmp_path / "x", edit=lambda d, z: changed(PixelSpacing=half)(d, z) if z < 6 else d), "t1")


def moved(step: float, only: int | None = None) -> Any:
    """An edit that moves slices to the left: each a little further, or one alone."""

    def edit(dataset: Any, z: int) -> Any:
        x, y, place = dataset.ImagePositionPatient
        if only is None or z == only:
            dataset.ImagePositionPatient = [f"{float(x) + step * (z if only is None else 1):.5f}", y, place]
        return dataset

    return edit


def test_sheared_stacks_are_refused(tmp_path: Path) -> None:
    """Planes that are pushed sideways one after another make a box that no viewer shows right."""
    with pytest.raises(D3MError, match="not at right angles"):
        read_series(series(tmp_path / "t1", edit=moved(0.3)), "t1")
    with pytest.raises(D3MError, match="do not lie one behind the other"):
        read_series(series(tmp_path / "t2", edit=moved(8.0, only=5)), "t1")


def test_uneven_spacing_is_refused(tmp_path: Path) -> None:
    """Spacing that grows from slice to slice is not averaged away."""

    def edit(dataset: Any, z: int) -> Any:
        x, y, place = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, f"{float(place) + 0.03 * z * z:.4f}"]
        return dataset

    with pytest.raises(D3MError, match="unevenly spaced"):
        read_series(series(tmp_path / "t1", edit=edit), "t1")


def test_of_magnitude_and_phase_the_magnitude_is_read(tmp_path: Path) -> None:
    """Both at each place, in one series: the scan is the magnitude, and the notice says what was left out."""

    def edit(dataset: Any, _: int) -> Any:
        return [copied(dataset, ImageType=["ORIGINAL", "PRIMARY", "P"], PixelData=bytes(960)), dataset]

    volume = read_series(series(tmp_path / "t1", edit=edit), "t1")
    is_picture(volume)
    assert any("12 images of another" in notice.message for notice in volume.notices)


@pytest.mark.parametrize("tag", ["DiffusionBValue", "TemporalPositionIdentifier"])
def test_diffusion_and_dynamic_series_are_refused(tmp_path: Path, tag: str) -> None:
    """Which of several weightings or times is meant cannot be known."""

    def edit(dataset: Any, _: int) -> Any:
        setattr(dataset, tag, 0)
        return [dataset, copied(dataset, **{tag: 1000}, PixelData=bytes(960))]

    with pytest.raises(D3MError, match="several stacks"):
        read_series(series(tmp_path / "t2", edit=edit), "t2")


def test_an_incomplete_second_echo_does_no_harm(tmp_path: Path) -> None:
    """Echoes are told apart by their times, though the second one lacks slices and one place is rounded."""

    def edit(dataset: Any, z: int) -> Any:
        dataset.EchoTime = "9.8" if z % 2 else "9.81"
        late = copied(dataset, EchoTime="90", PixelData=bytes(960))
        x, y, place = late.ImagePositionPatient
        late.ImagePositionPatient = [x, y, f"{float(place) + 0.004:.5f}"]
        return [dataset, late] if z < 9 else dataset

    volume = read_series(series(tmp_path / "t1", edit=edit), "t1")
    is_picture(volume)
    assert any("2 echoes; the one at 9.8 ms" in notice.message for notice in volume.notices)


def test_enhanced_frames_of_several_kinds_are_told_apart(tmp_path: Path) -> None:
    """b-values that stand only in the frames' own groups keep a multi-frame file from being one scan."""

    def edit(dataset: Any, _: int) -> Any:
        return [dataset, copied(dataset, PixelData=bytes(960))]

    folder = series(tmp_path / "slices", edit=edit)
    to_enhanced(folder, tmp_path / "all.dcm")
    dataset = pydicom.dcmread(tmp_path / "all.dcm")
    for index, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        item = pydicom.Dataset()
        item.DiffusionBValue = 1000.0 * (index % 2)
        group.MRDiffusionSequence = [item]
    dataset.save_as(tmp_path / "all.dcm")
    with pytest.raises(D3MError, match="several stacks"):
        read_series(tmp_path / "all.dcm", "t2")
    agent = pydicom.Dataset()
    agent.CodeValue = "C-B03B1"
    dataset.ContrastBolusAgentSequence = [agent]
    dataset.save_as(tmp_path / "all.dcm")
    assert find_series(tmp_path / "all.dcm")[0].contrast_agent


@pytest.mark.parametrize(
    "values",
    [
        {"Rows": "20\\20"},
        {"SamplesPerPixel": "one"},
        {"SeriesNumber": "abc"},
        {"NumberOfFrames": "x"},
        {"NumberOfFrames": "100000"},
        {"RescaleSlope": "nan"},
        {"ImageType": 7},
        {"PerFrameFunctionalGroupsSequence": "no sequence"},
    ],
)
def test_elements_of_a_wrong_type_are_no_defect(tmp_path: Path, values: dict[str, Any]) -> None:
    """Each header is read or refused in a sentence, though an element is not what the standard says."""

    def edit(dataset: Any, _: int) -> Any:
        for name, value in values.items():
            if isinstance(value, int):
                dataset.add_new(name, "US", value)
            else:
                dataset.add_new(name, "LO", value)
        return dataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = series(tmp_path / "t1", edit=edit)
    if ("NumberOfFrames" in values and values["NumberOfFrames"] == "100000") or "PerFrame" in next(iter(values)):
        with pytest.raises(D3MError):
            read_series(folder, "t1")
    else:
        with contextlib.suppress(D3MError):
            is_picture(read_series(folder, "t1"))


def test_a_damaged_file_meta_is_a_damaged_file(tmp_path: Path) -> None:
    """An unknown type of value before the header proper is no defect of ours."""
    folder = series(tmp_path / "t1")
    last = folder / "0011.dcm"
    last.write_bytes(last.read_bytes().replace(b"\x02\x00\x02\x00UI", b"\x02\x00\x02\x00U1", 1))
    assert find_series(folder)[0].damaged == 1


def test_a_single_image_type_counts(tmp_path: Path) -> None:
    """A type of one word is a word, not letters."""
    one = find_series(series(tmp_path / "t1", edit=changed(ImageType="DERIVED")))[0]
    assert one.derived
    volume = read_series(tmp_path / "t1", "t1")
    assert any(notice.code == "dicom-derived" for notice in volume.notices)


def test_other_modalities_are_refused(tmp_path: Path) -> None:
    """A CT is no T1."""
    with pytest.raises(D3MError, match="not an MRI.*CT"):
        read_series(series(tmp_path / "t1", edit=changed(Modality="CT")), "t1")


def test_packed_files_are_named(tmp_path: Path) -> None:
    """A folder of archives, and a packed slice, are told to be unpacked."""
    folder = series(tmp_path / "t1")
    (tmp_path / "zip").mkdir()
    (tmp_path / "zip/study.zip").write_bytes(b"PK\x03\x04" + bytes(200))
    with pytest.raises(D3MError, match="holds a ZIP archive, but no DICOM image"):
        read_volume(tmp_path / "zip", "t1")
    (tmp_path / "images").mkdir()
    (tmp_path / "images/t1.nii.gz").write_bytes(gzip.compress(bytes(400)))
    with pytest.raises(D3MError, match="a folder without any DICOM image") as caught:
        read_volume(tmp_path / "images", "t1")
    assert "Unpack" not in caught.value.hint
    (tmp_path / "slice.dcm.gz").write_bytes(gzip.compress((folder / "0001.dcm").read_bytes()))
    with pytest.raises(D3MError, match="packed DICOM file"):
        read_volume(tmp_path / "slice.dcm.gz", "t1")


def directory(folder: Path) -> Path:
    """A DICOMDIR that is whole enough to be told."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.MediaStorageDirectoryStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.FileSetID = "A"
    dataset.DirectoryRecordSequence = []
    dataset.save_as(folder / "DICOMDIR", enforce_file_format=True)
    return folder / "DICOMDIR"


def study(folder: Path, *scans: tuple[str, Any]) -> Path:
    """A study of the series in this order; the second is T2, the third FLAIR if no others are given."""
    usual = scans or (("AX T1", None), ("AX T2", None), ("AX FLAIR", None))
    for number, (text, edit) in enumerate(usual, 1):
        options = {"edit": edit} if edit else {}
        series(folder / str(number), text, number=number, **options)
    return folder


def test_a_dicomdir_stands_for_its_folder(tmp_path: Path) -> None:
    """The file that a CD shows first may be given."""
    folder = study(tmp_path / "s")
    assert choose_series(directory(folder)).flair.number == 3
    inner = directory(folder / "1")
    is_picture(read_volume(inner, "t1"))


def test_a_file_stands_for_the_files_beside_it_only(tmp_path: Path) -> None:
    """Folders below are not searched for more of its series, however many files they hold."""
    folder = study(tmp_path / "s")
    (folder / "2/0000.dcm").rename(folder / "loose.dcm")
    with pytest.raises(D3MError, match=r"T2 is a single slice"):
        read_volume(folder / "loose.dcm", "t2")


def agent(text: str) -> Any:
    """An edit that names a contrast agent."""
    return changed(ContrastBolusAgent=text)


def test_a_t1_after_the_injection_is_not_chosen(tmp_path: Path) -> None:
    """Its header may be silent, but it was numbered after a series with contrast agent and has more slices."""
    folder = study(
        tmp_path / "s", ("AX T1", lambda d, z: d if z < 10 else None), ("AX T2", None), ("AX FLAIR", None),
        ("AX T1 SE", agent("Dotarem")), ("3D T1 MPRAGE", None),
    )  # fmt: skip
    assert choose_series(folder).t1.number == 1
    late = study(tmp_path / "late", ("AX T1", agent("Dotarem")), ("AX T2", None), ("FLAIR", None), ("T1 MPRAGE", None))
    with pytest.raises(D3MError, match="came after the contrast agent"):
        choose_series(late)


def test_no_agent_is_no_agent(tmp_path: Path) -> None:
    """Scanners write NONE where none was given."""
    assert choose_series(study(tmp_path / "s", ("T1", agent("NONE")), ("T2", None), ("FLAIR", None))).t1.number == 1


def test_a_dynamic_series_is_no_t1(tmp_path: Path) -> None:
    """Six times over the same places: not the scan with most slices."""

    def edit(dataset: Any, _: int) -> Any:
        return [copied(dataset, TemporalPositionIdentifier=time) for time in range(6)]

    folder = study(tmp_path / "s", ("AX T1 dyn", edit), ("AX T2", None), ("AX FLAIR", None), ("AX T1", None))
    assert choose_series(folder).t1.number == 4


@pytest.mark.parametrize(
    ("times", "kind"),
    [
        ({"EchoTime": "12", "RepetitionTime": "550"}, "t1"),
        ({"EchoTime": "3", "RepetitionTime": "2100", "InversionTime": "900"}, "t1"),
        ({"EchoTime": "95", "RepetitionTime": "4500"}, "t2"),
        ({"EchoTime": "120", "RepetitionTime": "9000", "InversionTime": "2500"}, "flair"),
        ({"EchoTime": "20", "RepetitionTime": "2500"}, None),
    ],
)
def test_times_decide_where_the_description_is_silent(tmp_path: Path, times: dict[str, str], kind: str | None) -> None:
    """Usual protocols; a proton density is none of the three."""
    from d3m.volumes.io.dicom.choice import kind_of

    assert kind_of(find_series(series(tmp_path / "x", "AX TSE", edit=changed(**times)))[0]) == kind


def test_what_a_series_calls_itself_is_compared(tmp_path: Path) -> None:
    """A T2 given as T1 is read, with a notice."""
    volume = read_series(series(tmp_path / "x", "AX T2 FSE"), "t1")
    assert any("calls itself a T2" in notice.message for notice in volume.notices)


def test_patients_are_not_mixed(tmp_path: Path) -> None:
    """One folder with the T1 of one and the T2 of another patient, and two folders, are refused."""
    from d3m.volumes.preprocess.case import read_case

    one = series(tmp_path / "all/t1", "AX T1")
    two = series(tmp_path / "all/t2", "AX T2", edit=changed(PatientID="other"))
    with pytest.raises(D3MError, match="more than one patient"):
        read_volume(tmp_path / "all", "t1")
    with pytest.raises(D3MError, match="T1 and T2 are of different patients") as caught:
        read_case(one, two, one / "0001.dcm")
    assert "PID" not in str(caught.value)


def test_one_uid_for_two_patients_is_no_series(tmp_path: Path) -> None:
    """Anonymisers that give every image one UID do not make one scan of two heads."""
    uid = generate_uid()
    series(tmp_path / "a", edit=changed(SeriesInstanceUID=uid))
    series(tmp_path / "b", edit=changed(SeriesInstanceUID=uid, PatientID="other"), data=PICTURE[::-1])
    assert len(find_series(tmp_path)) == 2


def test_descriptions_lose_names_and_control_signs(tmp_path: Path) -> None:
    """A description with the patient's name in it is shown without, and cannot steer a terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = series(tmp_path / "x", "T1 MÖLLER \x1b[31m PID-4711 " + "long " * 12)
    (one,) = find_series(folder)
    assert "ller" not in one.line().lower()
    assert "4711" not in one.line()
    assert "\x1b" not in one.line()
    assert len(one.description) <= 64


def test_odd_values_are_not_printed(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """What pydicom warns about, with the value, stays unsaid: it may be a name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = series(tmp_path / "x", edit=changed(StudyDate="Möller^Änne", SeriesInstanceUID="1.2.Möller"))
    recwarn.clear()
    read_series(folder, "t1")
    assert not recwarn.list


@pytest.mark.parametrize("arguments", [["synthesize"], ["synthesize", "--out", "x", "--quality", "great"], ["nothing"]])
def test_wrong_usage_ends_with_a_json_line(arguments: list[str]) -> None:
    """A program that asked for JSON is told as JSON that its options are wrong."""
    ended = d3m_command(*arguments, "--progress", "json")
    assert ended.returncode == 2
    (last,) = events(ended.stdout)
    assert (last["stage"], last["kind"]) == ("error", "input")
    assert last["message"]
    assert last["hint"]
