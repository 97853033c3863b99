"""Which of several images of a BIDS participant is T1w, T2w or FLAIR of the whole brain before contrast.

What decides: the entities of the name and the words in them, the sidecars, and a filter file. What nothing decides is
said, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from d3m.errors import D3MError, Notice
from d3m.system.text import plain, read_object
from d3m.volumes.io.dicom.descriptions import contrast_of

SUFFIXES = {"t1": "T1w", "t2": "T2w", "flair": "FLAIR"}
FURTHER_SUFFIXES = {"adc": ("dwi", "ADC"), "swi": ("swi", "swi")}
"""Folder, beside anat, and suffix of what some models take as well. Of these BIDS knows ADC alone, which scanners make
(dwi); SWI is named as data sets name it, in small letters or capitals."""
CONTRAST_OF = {suffix.lower(): name for name, suffix in SUFFIXES.items()} | {
    suffix.lower(): name for name, (_, suffix) in FURTHER_SUFFIXES.items()
}
"""By suffix in small letters."""
LONG_NAMES = {
    "subject": "sub", "session": "ses", "acquisition": "acq", "ceagent": "ce", "reconstruction": "rec",
    "direction": "dir", "run": "run", "echo": "echo", "flip": "flip", "inversion": "inv", "mt": "mt", "part": "part",
    "modality": "mod", "space": "space", "description": "desc", "resolution": "res", "chunk": "chunk",
}  # fmt: skip
"""PyBIDS' names of entities, which filter files use, and BIDS' own."""
NUMBERS = ("run", "echo", "flip", "inv", "chunk")
"""Entities that are numbers: run-01 and run-1 are one."""
OTHER_KEYS = ("datatype", "suffix", "extension")
_NAME = re.compile(r"((?:[a-zA-Z]+-[a-zA-Z0-9+]+_)*)(T1w|T2w|FLAIR|ADC|SWI|swi)\.(nii\.gz|nii|json)")
_CHOSEN_BY = ("rec", "acq", "run")
"""Entities in which images of one kind may differ; where they differ in another one nothing can be chosen."""
_WORDS = (re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+"), re.compile(r"[A-Z]+|[a-z]{2,}"))
"""Words of a label without spaces: "postGd" by its capitals, "MPRAGEpost" by what has none."""
_AFTER_TREATMENT = re.compile(
    r"post ?(?:op|sur|res|rt|rad|chemo|treat|tx|natal|mortem|erior|proc|train)\w*", re.IGNORECASE
)
_BEFORE = re.compile(
    r"(?<![a-z])(?:pre|no|non|not|without|w ?/ ?o|sans|ohne|sin)[ _-]*"
    r"(?:gd|gad\w*|ce|con\w*|km|c|enh\w*|inj\w*)?(?![a-z])"
)
"""What says that no agent had been given, the word for it included; every "pre" does."""
_CONTRAST = re.compile(
    r"post(?![a-z])|post ?(?:gd|gad|con|ce|km|inj)|(?<![a-z])(?:gd|gad|ce|km|gbca)(?![a-z])|gado|contrast|enhanced"
    r"|(?:mprage|mpr|spgr|bravo|vibe|tfe|flash|tse|space|cube|t1w?|ax|cor|sag|tra|3d)(?:gd|gad|ce|km)(?![a-z])"
    r"|(?<![a-z])ce(?:mprage|mpr|spgr|bravo|vibe|tfe|flash|tse|space|cube|t1)"
)
_PART = re.compile(
    r"spine|spinal|cervical|thora|lumb|neck|hipp|slab|orbit|optic|pituit|sella|hypophys|(?<![a-z])iac(?![a-z])"
    r"|petrous|temporalbone|(?<![a-z])tmj(?![a-z])|brainstem|fossa|(?<![a-z])face|sinus|larynx|chest|abdom|pelvi|knee"
    r"|shoulder|(?<![a-z])zoom(?:it)?(?![a-z])"
)
_NO_AGENT = ("", "n/a", "na", "none", "no", "null", "false", "0")
MAX_SIDECAR = 1_000_000
"""Bytes; a sidecar has some kB."""


@dataclass(frozen=True)
class Image:
    """One image by its name."""

    path: Path
    entities: tuple[tuple[str, str], ...]
    suffix: str
    extension: str

    def entity(self, name: str) -> str:
        """The value of an entity, empty if it has none of that name."""
        return dict(self.entities).get(name, "")

    def title(self) -> str:
        """What it is called in a message: never the participant."""
        shown = [f"{key}-{value}" for key, value in self.entities if key not in ("sub", "ses")]
        return "_".join(shown) or "the one without further entities"

    def words(self) -> str:
        """What its entities say, in small letters: each label as it stands, and its words ("postGd": "post gd").

        What was done to the patient ("postOp") is left out: it says nothing about the image.
        """
        labels = [value for key, value in self.entities if key not in ("sub", "ses", "run", "echo", "part")]
        labels = [_AFTER_TREATMENT.sub("", value) for value in labels]
        split = [word for value in labels for pattern in _WORDS for word in pattern.findall(value)]
        return " ".join(labels + split).lower()


def parse(path: Path) -> Image | None:
    """What a file's name says, or None if it is neither an image of these kinds nor the sidecar of one."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        return None
    pairs = tuple((key, value) for key, value in (part.split("-", 1) for part in match[1].split("_") if part))
    return Image(path, pairs, match[2], f".{match[3]}")


class Sidecars:
    """What the JSON files beside and above the images say; a folder is looked through once.

    Args:
        root: The data set's.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._found: dict[Path, list[Image]] = {}

    def of(self, image: Image) -> tuple[dict[str, object], list[str]]:
        """What all sidecars of an image say together, and what is wrong with those that cannot be read.

        A file higher up, or with fewer entities, speaks for all below (BIDS' inheritance principle); the nearest wins.
        """
        content: dict[str, object] = {}
        faults = []
        folders = [self._root, *reversed([p for p in image.path.parents if self._root in p.parents])]
        for folder in folders:
            for sidecar in sorted(self._in(folder), key=lambda one: len(one.entities)):
                if sidecar.suffix == image.suffix and set(sidecar.entities) <= set(image.entities):
                    try:
                        content |= read_object(sidecar.path, "The sidecar", MAX_SIDECAR)
                    except D3MError:
                        faults.append(f"A sidecar of {image.suffix} cannot be read; what it says was not regarded.")
        return content, faults

    def _in(self, folder: Path) -> list[Image]:
        if folder not in self._found:
            try:
                parsed = [parse(path) for path in folder.iterdir() if path.suffix == ".json"]
            except OSError:
                parsed = []
            self._found[folder] = [one for one in parsed if one is not None]
        return self._found[folder]


@dataclass(frozen=True)
class Filters:
    """What a filter file asks for: for each contrast, entities with their allowed values."""

    wanted: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Contrast to key to value; keys as in the file."""

    def allow(self, image: Image, contrast: str) -> bool:
        """Whether the file leaves an image in."""
        return all(_fits(image, key, value) for key, value in self.wanted.get(contrast, {}).items())

    def choose(self, contrast: str) -> bool:
        """Whether the file chooses among one session's images of a contrast, so that words need not decide."""
        return any(
            key not in ("subject", "session", "sub", "ses", *OTHER_KEYS) for key in self.wanted.get(contrast, ())
        )


def read_filters(path: Path) -> Filters:
    """Read a filter file as fMRIPrep and other BIDS Apps take it.

    Such as `{"t1w": {"acquisition": "mprage", "session": ["01", "02"], "reconstruction": null}}`: a value, several of
    which one must fit, null for "has no such entity", "*" for "has one". Other images than t1w, t2w and flair may be
    in it, since one file serves several programs.

    Raises:
        D3MError: it cannot be read or asks for what BIDS does not know; the key is named.
    """
    hint = 'An example: {"t1w": {"acquisition": "mprage"}, "flair": {"run": 2}}.'
    content = read_object(path, "The filter file", MAX_SIDECAR)
    if not all(isinstance(value, dict) for value in content.values()):
        raise D3MError("The filter file must name images and, for each, entities.", hint)
    wanted = {CONTRAST_OF[key.lower()]: value for key, value in content.items() if key.lower() in CONTRAST_OF}
    if not wanted:
        raise D3MError("The filter file names none of t1w, t2w and flair.", hint)
    for contrast, entities in wanted.items():
        for key, value in entities.items():
            if key not in (*LONG_NAMES, *LONG_NAMES.values(), *OTHER_KEYS):
                known = ", ".join((*LONG_NAMES, *OTHER_KEYS))
                raise D3MError(f"The filter file asks for an unknown entity {plain(key)!r}.", f"Known are: {known}.")
            if not all(isinstance(one, str | int | None) for one in (value if isinstance(value, list) else [value])):
                raise D3MError(f"The value of {plain(key)!r} in the filter file is neither text nor a number.", hint)
            if contrast == "t1" and key in ("ce", "ceagent") and value is not None:
                raise D3MError(
                    "The filter file asks for a T1w with a contrast agent.", "D3M makes it from one without."
                )
    return Filters(wanted)


def _fits(image: Image, key: str, value: object) -> bool:
    values = value if isinstance(value, list) else [value]
    if key == "datatype":
        return image.path.parent.name in values
    if key == "suffix":
        return image.suffix in values
    if key == "extension":
        return image.extension in (f".{str(one).removeprefix('.')}" for one in values)
    name = LONG_NAMES.get(key, key)
    has = image.entity(name)
    return any(_equal(has, one, name in NUMBERS) for one in values)


def _equal(has: str, wanted: object, number: bool) -> bool:
    if wanted in (None, "Query.NONE"):
        return not has
    if wanted in ("*", "Query.ANY"):
        return bool(has)
    if wanted == "Query.OPTIONAL":
        return True
    text = str(wanted)
    return has == text or (number and has.isdigit() and text.isdigit() and int(has) == int(text))


@dataclass(frozen=True)
class Choice:
    """What was chosen, and what is to be said about it."""

    path: Path | None
    notices: tuple[Notice, ...] = ()
    problem: str = ""


def choose(contrast: str, found: Sequence[Image], sidecars: Sidecars, filters: Filters) -> Choice:
    """The one image of a contrast: whole brain, before contrast, not reconstructed, and of several runs the last.

    The last one, since a scan is repeated when the one before was bad.

    Args:
        contrast: t1, t2, flair, or what else the model takes.
        found: Its images in one session that the filters leave in; without `ce-` and phase images.
        sidecars: Of the data set.
        filters: What was asked for.
    """
    label = contrast.upper()
    notices: list[Notice] = []
    against: dict[Image, str] = {}
    for image in found:
        content, faults = sidecars.of(image)
        notices += [Notice("unreadable-sidecar", fault, contrast) for fault in faults]
        reason = _agent(content) or ("" if filters.choose(contrast) else _words_against(image, content))
        if reason:
            against[image] = reason
    left = [image for image in found if image not in against]
    hint = "--bids-filter-file chooses."
    if not left and found:
        named = "; ".join(f"{image.title()}: {reason}" for image, reason in against.items())
        if contrast == "t1" or any(not reason.startswith(AFTER) for reason in against.values()):
            what = "before contrast and of the whole brain" if contrast == "t1" else "of the whole brain"
            return Choice(None, tuple(notices), f"{label} has no image {what} ({named}). {hint}")
        text = (
            f"{label} was made after a contrast agent was given ({named}): what enhances may be bright in it already."
        )
        notices.append(Notice("after-contrast", text, contrast))
        left, against = list(found), {}
    if not left:
        return Choice(None, tuple(notices))
    best = _best(left)
    if best is None:
        titles = ", ".join(image.title() for image in left)
        return Choice(
            None, tuple(notices), f"{label} has {len(left)} candidates that cannot be told apart ({titles}). {hint}"
        )
    if not best.path.exists():
        gone = f"The content of {label} is not on this disk: its file is a link to nothing."
        return Choice(best.path, tuple(notices), gone)
    if len(found) > 1:
        others = [image.title() + (f" ({against[image]})" if image in against else "") for image in found]
        others.remove(best.title())
        text = f"{label}: {len(found)} images were found; {best.title()} was taken, not {', '.join(others)}."
        notices.append(Notice("several-images", text, contrast))
    return Choice(best.path, tuple(notices))


AFTER = "after contrast"


def _agent(content: Mapping[str, object]) -> str:
    """That a sidecar names a contrast agent."""
    for key in ("ContrastBolusIngredient", "ContrastBolusAgent"):
        said = content.get(key)
        text = plain(" ".join(map(str, said)) if isinstance(said, list) else said)
        if said is not None and text.strip().lower() not in _NO_AGENT:
            return f"{AFTER}, its sidecar names {text[:40]}"
    return ""


def _words_against(image: Image, content: Mapping[str, object]) -> str:
    """Why words of the name or the sidecar speak against an image."""
    words = image.words()
    if _says_contrast(words) or contrast_of(words) == "t1c":
        return f"{AFTER} by its name"
    if _PART.search(words):
        return "not the whole brain by its name"
    for key in ("SeriesDescription", "ProtocolName"):
        text = str(content.get(key, ""))[:200]
        if contrast_of(text) == "t1c" or _says_contrast(text.lower()):
            return f"{AFTER}, its sidecar says {plain(key)}"
    if _PART.search(str(content.get("BodyPartExamined", "")).lower()[:200]):
        return "not the brain, its sidecar says BodyPartExamined"
    return ""


def _says_contrast(text: str) -> bool:
    return _CONTRAST.search(_BEFORE.sub(" ", _AFTER_TREATMENT.sub(" ", text))) is not None


def _best(found: Sequence[Image]) -> Image | None:
    """Not a reconstruction (`rec-`), no special acquisition (`acq-`), the last run. None: two cannot be told apart."""
    others = {tuple(sorted(pair for pair in image.entities if pair[0] not in _CHOSEN_BY)) for image in found}
    if len(others) > 1:
        return None

    def kind(image: Image) -> tuple[bool, bool]:
        return bool(image.entity("rec")), bool(image.entity("acq"))

    plainest = min(map(kind, found))
    left = [image for image in found if kind(image) == plainest]
    if len({(image.entity("rec"), image.entity("acq")) for image in left}) > 1:
        return None

    def run(image: Image) -> int:
        return int(image.entity("run")) if image.entity("run").isdigit() else 0

    last = max(map(run, left))
    latest = [image for image in left if run(image) == last]
    return latest[0] if len(latest) == 1 else None
