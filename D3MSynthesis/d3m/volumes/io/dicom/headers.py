"""DICOM images in folders: found among other files, and their headers read. pydicom is imported here only."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from d3m.errors import D3MError
from d3m.volumes.io.dicom import identifiers
from d3m.volumes.io.dicom.series import Frame, Series, frames_of, series_of
from d3m.volumes.io.files import ARCHIVES

MAX_FILES = 50_000
"""Files looked at in a folder; a study of a head has some thousands."""
MAX_FILE_BYTES = 2**31
"""No image of a head is larger; what is, was made to fill memory."""
MAX_ELEMENT_BYTES = 2**16
"""Of an element of a header other than a sequence; texts have at most some thousand characters."""
MAX_ITEMS, ITEM, ITEM_BYTES = 200_000, b"\xfe\xff\x00\xe0", 8
"""Items of sequences in one file: of five thousand frames; each costs a kilobyte of memory once it is read."""
MAX_META_BYTES = 2**20
"""From where the header must begin at the latest."""
MR_IMAGES = "1.2.840.10008.5.1.4.1.1.4"
"""How the SOP classes of MR images begin (DICOM PS3.4, B.5): without a matrix such a file was cut."""
DEFLATED = "1.2.840.10008.1.2.1.99"
"""Transfer syntax whose header is packed, too: it unpacks to any size before anything of it can be judged."""
TAGS = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription",
    "ProtocolName", "Modality", "ImageType", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation",
    "NumberOfFrames", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "EchoTime", "RepetitionTime",
    "InversionTime", "ContrastBolusAgent", "ContrastBolusAgentSequence",
    "ContrastBolusVolume", "ContrastBolusTotalDose", "ContrastBolusIngredient", "DiffusionBValue",
    "TemporalPositionIdentifier", "RescaleSlope", "RescaleIntercept", "SpecificCharacterSet",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", *identifiers.TAGS,
)  # fmt: skip
"""What is read of a header. What tells who the patient is serves to refuse two patients, and to be taken out of
descriptions; it goes nowhere."""
NOT_SAID = ("", "ISO_IR 6", "ISO 2022 IR 6", "ISO_IR 100")
"""Character sets of headers that many programs fill with UTF-8 all the same."""


def require_pydicom() -> Any:
    """The package pydicom.

    Raises:
        D3MError: it is not installed.
    """
    try:
        import pydicom
    except ImportError as error:
        raise D3MError(
            "DICOM files cannot be read: the package pydicom is not installed.",
            'Install it with "pip install pydicom", or convert the series to NIfTI with dcm2niix.',
            "machine",
        ) from error
    if not hasattr(pydicom, "pixels"):
        raise D3MError(
            f"DICOM files cannot be read: pydicom {pydicom.__version__} is too old.",
            'Install pydicom 3 with "pip install --upgrade pydicom".',
            "machine",
        )
    return pydicom


def starts_like_dicom(start: bytes) -> bool:
    """Whether a file's first 136 bytes are those of DICOM; old archives leave out the preamble before the groups."""
    return start[128:132] == b"DICM" or _bare(start)


def _bare(start: bytes) -> bool:
    """Whether the first element is one of group 8, little endian, without a preamble (DICOM PS3.10, 7.1)."""
    return start[:2] == b"\x08\x00" and start[3:4] == b"\x00" and len(start) >= 136


def is_dicom(path: Path) -> bool:
    """Whether this is a folder, or a DICOM file by its content."""
    try:
        if path.is_dir():
            return True
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return starts_like_dicom(file.read(136))
    except (OSError, ValueError):
        return False  # what cannot be opened is reported by the reader of files


def is_file(place: Path, name: str = "The study") -> bool:
    """Whether this is a file; raises `D3MError` where that cannot be looked at."""
    try:
        return place.is_file()
    except OSError as error:
        raise D3MError(f"{name} cannot be read ({error.strerror}).", "Check its name and its permissions.") from error


def find_series(place: Path, name: str = "The study") -> list[Series]:
    """The series of images in a folder and the folders inside it; other files are passed over.

    Links to folders are followed, each folder once, so that loops end. Links to nothing are counted: of a data set
    under git-annex the rest was not fetched.

    Args:
        place: A folder or its DICOMDIR, or one DICOM file: then its series among the files beside it.
        name: What messages call it.

    Raises:
        D3MError: nothing there is DICOM; too many files; a folder that cannot be read.
    """
    wanted, deep = None, True
    if is_file(place, name):
        head = _read_header(place, _start_of(place))
        if head is None:
            raise D3MError(f"{name} is not a DICOM image that can be read: {place}.", "Export the series again.")
        if "DirectoryRecordSequence" not in head:
            wanted, deep = _key_of(head), False
        place = place.parent
    found: dict[tuple[str, ...], list[tuple[Path, Any, list[Frame | None]]]] = {}
    damaged, packed = 0, ""
    broken: dict[Path, int] = {}
    for path, start in _files(place, deep, broken):
        if not starts_like_dicom(start):
            if not path.name.endswith(".nii.gz"):  # an image, nothing to unpack
                packed = packed or next((kind for magic, kind in PACKED.items() if start.startswith(magic)), "")
            continue
        header = _read_header(path, start)
        try:
            if header is None:
                damaged += start[128:132] == b"DICM"
            elif not header.get("Rows") or not header.get("Columns"):
                damaged += str(header.file_meta.get("MediaStorageSOPClassUID", "")).startswith(MR_IMAGES)
            elif wanted in (None, _key_of(header)):
                image = path, header, frames_of(path, header)
                found.setdefault(_key_of(header), []).append(image)
        except (TypeError, ValueError, AttributeError, OverflowError, IndexError):  # several values where one belongs
            damaged += 1
    if not found:
        what = "a folder without any DICOM image" + (f" that can be read ({damaged} are damaged)" if damaged else "")
        hint = "Give a NIfTI, NRRD or MetaImage file, or the folder of a DICOM series."
        if broken and not damaged:
            what = f"a folder with {sum(broken.values())} files that are links to nothing, and no DICOM image"
            hint = "Fetch the files first (for instance with datalad get, or git annex get)."
        elif packed and not damaged:
            what, hint = f"a folder that holds {packed}, but no DICOM image", "Unpack it first, and give that folder."
        raise D3MError(f"{name} is {what}.", hint)
    series = [series_of(uid, images, damaged, broken) for (_, _, uid, *_), images in found.items()]
    return sorted(series, key=lambda one: (one.number is None, one.number or 0, one.uid))


PACKED = {**ARCHIVES, b"\x1f\x8b": "a gzip file"}


def _key_of(header: Any) -> tuple[str, ...]:
    """What images of one series share; some anonymisers take the UID away, or give it to every series."""
    patient, study, uid, number, text = (
        str(header.get(name) or "")
        for name in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription")
    )
    return patient, study, uid or f"{number} {text}"


def _files(place: Path, deep: bool, broken: dict[Path, int]) -> Iterator[tuple[Path, bytes]]:
    """Every file that can be opened, with its first bytes; links to nothing are counted by folder in `broken`."""
    count, seen = 0, {os.path.realpath(place)}

    def refuse(error: OSError) -> None:
        raise D3MError(f"A folder cannot be read ({error.strerror}).", "Check its name and its permissions.") from error

    for folder, inner, names in os.walk(place, onerror=refuse, followlinks=True):
        wanted = []
        for name in sorted(inner) if deep else ():
            real = os.path.realpath(Path(folder) / name)
            if real not in seen:
                seen.add(real)
                wanted.append(name)
        inner[:] = wanted
        for name in sorted(names):
            path = Path(folder) / name
            try:
                if not path.is_file():
                    if path.is_symlink() and not path.exists():
                        broken[path.parent] = broken.get(path.parent, 0) + 1
                    continue
                with path.open("rb") as file:
                    start = file.read(136)
            except OSError as error:
                raise D3MError(
                    f"A file in the folder cannot be read ({error.strerror}).", "Check the permissions of the files."
                ) from error
            count += 1
            if count > MAX_FILES:
                raise D3MError(f"There are more than {MAX_FILES} files in this folder.", "Give one study's folder.")
            yield path, start


def _start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(136)


def _read_header(path: Path, start: bytes) -> Any:
    """The header of a DICOM image or directory; None for a damaged one, and for any other file."""
    pydicom = require_pydicom()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they may show what is in the header
        # a damaged header may raise anything; such a file is no image of a series
        try:
            if start[128:132] == b"DICM":
                _check_size(path)
                meta = pydicom.filereader.read_file_meta_info(path)
                if str(meta.get("TransferSyntaxUID", "")) == DEFLATED:
                    return None
            elif not _bare(start) or path.stat().st_size > MAX_FILE_BYTES:
                return None
            _check_items(path)
            tags = [*TAGS, "DirectoryRecordSequence"]
            header = pydicom.dcmread(
                path, defer_size=MAX_ELEMENT_BYTES, stop_before_pixels=True, specific_tags=tags, force=True
            )
            _drop_oversized(header)
            _as_utf8(header)
            for part in (header.file_meta, header):
                part.walk(lambda *_: None)  # elements are converted when they are looked at, also inside sequences
        except Exception:
            return None
    return header


def _check_size(path: Path) -> None:
    """Refuse files, and elements before the header, that are larger than any image's.

    Raises:
        ValueError: they are.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError("larger than any image")
    with path.open("rb") as file:
        file.seek(132)
        while file.tell() < MAX_META_BYTES:
            head = file.read(8)
            if len(head) < 8 or head[:2] != b"\x02\x00":
                return
            long = head[4:6] in (b"OB", b"OW", b"UN", b"UT", b"SQ", b"OF", b"UC", b"UR")
            file.seek(int.from_bytes(file.read(4) if long else head[6:8], "little"), 1)
    raise ValueError("more before the header than any file has")


def _check_items(path: Path) -> None:
    """Refuse countless items of sequences, private ones included: they are all made on the way to what is wanted.

    Raises:
        ValueError: there are more than in any image.
    """
    if path.stat().st_size <= MAX_ITEMS * ITEM_BYTES:
        return
    with path.open("rb") as file:
        found = sum(block.count(ITEM) for block in iter(lambda: file.read(2**24), b""))
    if found > MAX_ITEMS:
        raise ValueError("more items of sequences than any image has")


def _drop_oversized(header: Any) -> None:
    """Forget elements that were not read because they are too large; sequences of many frames may be."""
    lookup = require_pydicom().datadict.dictionary_VR
    for tag in list(header.keys()):
        element = header.get_item(tag, keep_deferred=True)
        if element.value is None and element.length > MAX_ELEMENT_BYTES and (element.VR or lookup(tag)) != "SQ":
            del header[tag]


def _as_utf8(header: Any) -> None:
    """Read texts as UTF-8 where they are that, and the header names no character set, or the usual wrong one.

    What is not ASCII and still valid UTF-8 is nothing else but by a rare chance.
    """
    if str(header.get("SpecificCharacterSet") or "") not in NOT_SAID:
        return
    lookup = require_pydicom().datadict.dictionary_VR
    elements = [header.get_item(tag, keep_deferred=True) for tag in list(header.keys())]
    texts = b" ".join(
        element.value
        for element in elements
        if isinstance(element.value, bytes) and (element.VR or lookup(element.tag)) in TEXT_VRS
    )
    if not texts.isascii() and is_utf8(texts):
        header.set_original_encoding(*header.original_encoding, ["utf8"])


TEXT_VRS = ("PN", "LO", "SH", "LT", "ST", "UT", "UC")


def is_utf8(content: bytes) -> bool:
    """Whether bytes are valid UTF-8."""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
