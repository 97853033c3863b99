"""Find the cases of a BIDS data set: one for each participant and session.

Names and entities follow the Brain Imaging Data Structure, version 1.10 (bids-specification.readthedocs.io).
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from d3m.batch.bids_choice import CONTRAST_OF, FURTHER_SUFFIXES, Choice, Filters, Image, Sidecars, choose, parse
from d3m.batch.cases import CaseFiles
from d3m.errors import D3MError, Notice
from d3m.system.folders import followed
from d3m.system.text import read_object
from d3m.volumes.types import CONTRASTS

DESCRIPTION = "dataset_description.json"
SOFTWARE = "D3M for 3D Slicer"
"""Name in `GeneratedBy` of what we wrote."""
_LABEL = re.compile(r"[a-zA-Z0-9+]+")


@dataclass(frozen=True)
class BidsCase(CaseFiles):
    """One participant's examination."""

    subject: str = ""
    """Without `sub-`."""
    session: str = ""
    """Without `ses-`; empty if there are none."""

    def folder(self, out: Path) -> Path:
        """Where its derivatives lie."""
        place = out / f"sub-{self.subject}"
        return (place / f"ses-{self.session}" if self.session else place) / "anat"


def find_bids_cases(
    root: Path,
    participants: Sequence[str] = (),
    sessions: Sequence[str] = (),
    filters: Filters | None = None,
    further: Collection[str] = (),
) -> list[BidsCase]:
    """The cases of a BIDS data set.

    Args:
        root: Folder of the data set.
        participants: Labels, with or without `sub-`; none: all.
        sessions: Labels, with or without `ses-`; none: all.
        filters: Which images may be used; a case that they leave no image of is none.
        further: Of `FURTHER_CONTRASTS` those that the model takes.

    Raises:
        D3MError: it is no BIDS data set, it is empty, or a label does not exist; the filters leave nothing.
    """
    check_dataset(root)
    wanted = _labels(participants, "sub")
    subjects = {folder.name[4:]: folder for folder in _folders(root, "sub")}
    if not subjects:
        raise D3MError("The data set has no participants.", "It must hold folders named sub-<label>.")
    _check_known(wanted, subjects, "participant")
    found: list[tuple[str, str, Path]] = []
    for label, folder in subjects.items():
        if wanted and label not in wanted:
            continue
        inner = [(label, place.name[4:], place) for place in _folders(folder, "ses")]
        if (folder / "anat").is_dir() or not inner:
            inner.insert(0, (label, "", folder))
        found += inner
    wanted_sessions = _labels(sessions, "ses")
    _check_known(wanted_sessions, {session for _, session, _ in found}, "session")
    sidecars, allowed = Sidecars(root), filters or Filters()
    wanted_places = [one for one in found if not wanted_sessions or one[1] in wanted_sessions]
    cases = [_case(*one, sidecars, allowed, further) for one in wanted_places]
    if not any(cases):
        raise D3MError("The filter file leaves no image.", "Check its values against the names of the files.")
    return [case for case in cases if case is not None]


def check_dataset(root: Path) -> dict[str, object]:
    """The description of a BIDS data set.

    Raises:
        D3MError: it is none.
    """
    hint = "Give the top folder of a BIDS data set."
    if not root.is_dir():
        raise D3MError("The BIDS data set is not there.", hint)
    if not (root / DESCRIPTION).exists():
        raise D3MError(f"The folder is not a BIDS data set: it has no {DESCRIPTION}.", hint)
    try:
        content = read_object(root / DESCRIPTION, DESCRIPTION)
    except D3MError as error:
        raise D3MError(f"{DESCRIPTION} of the data set cannot be read.", "Check it with the BIDS validator.") from error
    if "BIDSVersion" not in content:
        raise D3MError(f"{DESCRIPTION} has no BIDSVersion.", "Check the data set with the BIDS validator.")
    return content


def check_places(root: Path, out: Path) -> None:
    """Find out before anything is written whether the derivatives can lie in `out`.

    Raises:
        D3MError: `out` lies inside the data set (but not in its `derivatives`) or around it, holds something else,
            or cannot be written.
    """
    inside, outside = followed(out), root.resolve()
    hint = "Choose another OUTPUT_DIR; inside the data set only derivatives/<name> is possible."
    allowed = (outside / "derivatives") in inside.parents
    if inside == outside or (outside in inside.parents and not allowed):
        raise D3MError("The output folder lies inside the data set.", hint)
    if inside in outside.parents:
        raise D3MError("The data set lies inside the output folder.", hint)
    if out.exists():
        if not out.is_dir():
            raise D3MError("The output folder is a file.", "Choose another OUTPUT_DIR.")
        if not is_ours(out) and _holds_files(out):
            raise D3MError("The output folder holds something other than derivatives of D3M.", hint)
    place = inside
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        hint = "Choose another OUTPUT_DIR, or change the folder's permissions."
        raise D3MError("The output folder cannot be written.", hint, "machine")


def _holds_files(folder: Path) -> bool:
    """Whether a folder holds more than hidden files and empty folders, which workflow managers make beforehand."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    return any(not any(part.startswith(".") for part in path.parts) for path in files)


def is_ours(out: Path) -> bool:
    """Whether a folder holds derivatives that we made."""
    try:
        content = read_object(out / DESCRIPTION, DESCRIPTION)
        return any(entry["Name"] == SOFTWARE for entry in content["GeneratedBy"])
    except (D3MError, OSError, KeyError, TypeError):
        return False


def _folders(place: Path, kind: str) -> list[Path]:
    """Folders named `<kind>-<label>`.

    Raises:
        D3MError: a label holds characters that BIDS does not allow.
    """
    folders = sorted(p for p in place.glob(f"{kind}-*") if p.is_dir())
    for folder in folders:
        if not _LABEL.fullmatch(folder.name[4:]):
            raise D3MError(
                f"The folder name {folder.name!r} is not valid in BIDS.", "Labels may have letters and digits only."
            )
    return folders


def _labels(given: Sequence[str], kind: str) -> set[str]:
    return {label.removeprefix(f"{kind}-") for label in given}


def _check_known(wanted: set[str], known: dict[str, Path] | set[str], kind: str) -> None:
    missing = sorted(wanted - set(known))
    if missing:
        shown = ", ".join(sorted(label for label in known if label)[:5])
        raise D3MError(
            f"The data set has no {kind} {', '.join(missing)}.",
            f"It has, for example: {shown}." if shown else f"It has no {kind}s: leave the option out.",
        )


def _case(
    subject: str, session: str, folder: Path, sidecars: Sidecars, filters: Filters, further: Collection[str]
) -> BidsCase | None:
    """One participant's examination; None if the filters leave nothing of what it has."""
    identifier = f"sub-{subject}" + (f"_ses-{session}" if session else "")
    places = [folder / name for name in ("anat", *(FURTHER_SUFFIXES[one][0] for one in further))]
    images: dict[str, list[Image]] = {contrast: [] for contrast in (*CONTRASTS, *further)}
    filtered = False
    for path in (path for place in places if place.is_dir() for path in sorted(place.iterdir())):
        image = parse(path)
        if image is None or image.extension == ".json" or not path.name.startswith(f"{identifier}_"):
            continue
        if image.entity("ce") or image.entity("part") not in ("", "mag"):  # a contrast agent was given; a phase image
            continue
        contrast = CONTRAST_OF[image.suffix.lower()]
        if contrast not in images:
            continue
        if filters.allow(image, contrast):
            images[contrast].append(image)
        else:
            filtered = True
    if filtered and not any(images.values()):
        return None
    chosen = {contrast: choose(contrast, found, sidecars, filters) for contrast, found in images.items()}
    for name in further:  # nobody needs it: a case does not fail for it
        if chosen[name].problem:
            notice = Notice("not-chosen", chosen[name].problem, name)
            chosen[name] = Choice(None, (*chosen[name].notices, notice))
    return BidsCase(
        identifier,
        chosen["t1"].path,
        chosen["t2"].path,
        chosen["flair"].path,
        notices=tuple(notice for choice in chosen.values() for notice in choice.notices),
        adc=chosen["adc"].path if "adc" in chosen else None,
        swi=chosen["swi"].path if "swi" in chosen else None,
        problem=" ".join(choice.problem for choice in chosen.values() if choice.problem),
        subject=subject,
        session=session,
    )
