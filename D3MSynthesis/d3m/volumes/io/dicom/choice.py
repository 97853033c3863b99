"""Which series of a study is T1 without contrast agent, T2 and FLAIR; and which series a folder was given for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from d3m.errors import D3MError, Notice
from d3m.volumes.io.dicom.descriptions import contrast_of, says_without
from d3m.volumes.io.dicom.headers import find_series, is_file
from d3m.volumes.io.dicom.series import Series
from d3m.volumes.io.files import label
from d3m.volumes.types import CONTRASTS

MIN_SLICES = 8
"""A series with fewer is a localiser or a sample, not a scan of a brain."""
MAX_IMAGES = 4
"""Images at one place; a dynamic series has more, a multi-echo one may have so many."""
MAX_LISTED = 30
PLAIN_WORDS = (
    "ax", "axi", "axial", "tra", "transversal", "sag", "sagittal", "cor", "coronal", "obl", "oblique", "brain", "head",
    "cranial", "neuro", "kopf", "routine", "mr", "mri", "series", "scan", "se", "tse", "fse", "fast", "turbo", "spin",
    "echo", "ir",
)  # fmt: skip
"""Words of a description that do not tell which contrast it is."""
BY_FOLDER = "Give the folder of each scan yourself: --t1, --t2, --flair"


@dataclass(frozen=True)
class Choice:
    """The series of a study that serve as inputs. Each carries the notice that says so."""

    t1: Series
    t2: Series
    flair: Series
    notices: tuple[Notice, ...] = ()


def choose_series(study: Path) -> Choice:
    """Choose T1 before contrast, T2 and FLAIR among a study's series.

    By description, and where that says nothing by echo, repetition and inversion time. Derived images, localisers,
    dynamic series and series with a contrast agent are never chosen, nor is a T1 that came after one of those.

    Args:
        study: A folder, with folders inside it or not; or a file in it, such as its DICOMDIR.

    Raises:
        D3MError: no series fits one of the three (all are listed), or the folder holds several patients or studies.
    """
    found = find_series(study.parent if is_file(study) else study)
    _check_one_study(found, "The folder")
    chosen = {contrast: _best(contrast, found) for contrast in CONTRASTS}
    notices = tuple(notice for one in chosen.values() for notice in one.notices)
    return Choice(chosen["t1"], chosen["t2"], chosen["flair"], notices)


def series_in(place: Path, contrast: str) -> Series:
    """The one series that a folder or file was given for.

    Args:
        place: A folder, or one DICOM file of the series. Of several series the only one that is a scan of this kind
            is taken, and a notice in it says so.
        contrast: "t1", "t2", "flair", ...

    Raises:
        D3MError: no DICOM; several series fit, or several patients or studies are there.
    """
    found = find_series(place, label(contrast))
    if len(found) == 1:
        return found[0]
    name = label(contrast)
    _check_one_study(found, f"The folder given as {name}")
    scans = [one for one in found if _usable(one)]
    fitting = [one for one in scans if kind_of(one) == contrast]
    if contrast == "t1" and len(fitting) > 1:
        fitting = _before_agent(fitting, found)
    if contrast == "t1" and len(fitting) > 1:
        fitting = [one for one in fitting if _says_without(one)] or fitting
    if not fitting and len(scans) == 1 and kind_of(scans[0]) is None:
        fitting = scans
    if len(fitting) != 1:
        raise D3MError(
            f"The folder given as {name} holds {len(found)} series: {_listed(found)}.",
            f"Put the series you mean into a folder of its own, or give one of its files as --{contrast}.",
        )
    text = f"{name} is {fitting[0].line()}, of {len(found)} series in the folder."
    return replace(fitting[0], notices=(Notice("dicom-choice", text, contrast),))


def check_one_patient(series: dict[str, Series]) -> list[Notice]:
    """Compare the identifiers of scans that were given one by one.

    Returns:
        A notice if the scans are of several examinations.

    Raises:
        D3MError: they are of several patients.
    """
    names = list(series)
    notices = []
    for name in names[1:]:
        first, other = series[names[0]], series[name]
        if first.patient and other.patient and first.patient != other.patient:
            raise D3MError(
                f"{label(names[0])} and {label(name)} are of different patients (their DICOM identifiers differ).",
                "Give scans of one patient; if they are of one, convert them to NIfTI with dcm2niix.",
            )
        if first.study_uid and other.study_uid and first.study_uid != other.study_uid:
            text = f"{label(names[0])} and {label(name)} are of different examinations (DICOM studies)."
            notices.append(Notice("dicom-other-study", text, name))
    return notices


def kind_of(series: Series) -> str | None:
    """Which scan a series is: "t1", "t2", "flair", "t1c", or None.

    By description; by times where it says nothing. Echo, repetition and inversion times of usual protocols,
    milliseconds; a proton density has T1's echo time, but a long repetition time and no inversion.
    """
    kind = contrast_of(series.words)
    if kind is None and not _says_something(series.words):
        te, tr, ti = series.echo_time, series.repetition_time, series.inversion_time
        if te is not None and tr is not None:
            if ti is not None and ti > 1500 and te > 60:
                kind = "flair"
            elif te > 60 and tr > 2000:
                kind = "t2"
            elif te < 30 and (tr < 1200 or (ti is not None and 300 < ti < 1500 and tr < 3500)):
                kind = "t1"
    return "t1c" if kind == "t1" and series.contrast_agent else kind


def _says_something(description: str) -> bool:
    """Whether a description has a word, rather than only a plane, a sequence or a number."""
    words = [word for word in description.lower().replace("_", " ").split() if word.isalpha()]
    return any(word not in PLAIN_WORDS for word in words)


def _best(contrast: str, found: Sequence[Series]) -> Series:
    """The series for a contrast: a T1 that calls itself native, then the one with most slices, of equals the first."""
    name = label(contrast)
    fitting = [one for one in found if _usable(one) and kind_of(one) == contrast]
    late: list[Series] = []
    if contrast == "t1":
        before = _before_agent(fitting, found)
        late = [one for one in fitting if one not in before]
        fitting = before
    if not fitting:
        reason = f" ({late[0].line()} came after the contrast agent)" if late else ""
        raise D3MError(
            f"This study has no {name} series that can be used{reason}. Found: {_listed(found)}.",
            f"{BY_FOLDER} (here: --{contrast}).",
        )
    native = [one for one in fitting if contrast == "t1" and _says_without(one)]
    best = min(native or fitting, key=lambda one: (-_places(one), one.number is None, one.number or 0))
    text = f"{name} is {best.line()}"
    others = [one for one in fitting if one is not best]
    if others:
        why = (
            "the first of several that fit equally well"
            if _places(others[0]) == _places(best)
            else "it has most slices"
        )
        why = "it calls itself native" if native and len(native) < len(fitting) else why
        text += f" ({why}; also possible: {'; '.join(one.line() for one in others)})"
    return replace(best, notices=(Notice("dicom-choice", text + ".", contrast),))


def _before_agent(t1s: Sequence[Series], found: Sequence[Series]) -> list[Series]:
    """Those that were numbered before the first series with a contrast agent, or say that they are without.

    After an injection every T1 shows it, whatever its header says.
    """
    numbers = [one.number for one in found if one.number is not None and not one.derived and kind_of(one) == "t1c"]
    first = min(numbers, default=None)
    return [one for one in t1s if first is None or one.number is None or one.number < first or _says_without(one)]


def _says_without(series: Series) -> bool:
    """Whether its description says that there is no contrast agent in it."""
    return says_without(series.words)


def _usable(series: Series) -> bool:
    """Whether it can be a scan: acquired, an MRI, of enough slices, and not a film of few."""
    places = _places(series)
    return (
        not series.derived
        and series.modality in ("MR", "")
        and places >= MIN_SLICES
        and len(series.frames) <= MAX_IMAGES * places
    )


def _places(series: Series) -> int:
    """Different positions, to a tenth of a millimetre."""
    return len({tuple(np.round(frame.position, 1)) for frame in series.frames})


def _check_one_study(found: Sequence[Series], what: str) -> None:
    if len({(one.patient, one.study_uid) for one in found}) > 1:
        raise D3MError(
            f"{what} holds more than one patient or study.",
            "Give the folder of one study (--dicom), or one folder for each scan (--t1, --t2, --flair).",
        )


def _listed(found: Sequence[Series]) -> str:
    more = f"; and {len(found) - MAX_LISTED} more" if len(found) > MAX_LISTED else ""
    return "; ".join(one.line() for one in found[:MAX_LISTED]) + more
