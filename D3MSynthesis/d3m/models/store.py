"""Where models and the sample case are found, and import of a model's folder. Does not import torch."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from d3m.errors import D3MError
from d3m.models.card import MAX_CARD_BYTES, Card
from d3m.system.folders import remove_folder, whole_folder
from d3m.system.manifest import MANIFEST, Files, FolderKind, Written, file_sha256, relist
from d3m.system.storage import replace_text, write_text, writing
from d3m.system.text import plain

CARD_NAME, WEIGHTS_NAME, WHOLE_BRAIN_NAME = "card.json", "weights.safetensors", "whole_brain.safetensors"
BUNDLE_MODELS = "models"
"""Where a MONAI bundle keeps a model."""
DEFAULT_NAME = "default"
MAX_WEIGHTS_BYTES = 8 * 2**30
"""The published size has some 0.3 GB; what is larger than this is not a model of ours."""
MODELS_VARIABLE = "D3M_MODELS"
"""Environment variable that names the user's folder of models."""


@dataclass(frozen=True)
class ModelEntry:
    """A model that was found."""

    name: str
    folder: Path
    removable: bool
    """Whether it lies in the user's folder, that is, was imported."""


@dataclass(frozen=True)
class SampleCase:
    """The sample that ships with the software: a simulated patient."""

    t1: Path
    t2: Path
    flair: Path
    t1c: Path
    """The simulated contrast-enhanced scan, for comparison."""
    seg: Path
    """Labels: 1 necrosis, 2 oedema, 4 enhancing tumour."""


def user_folder() -> Path:
    """Where imported models lie: `$D3M_MODELS`, or the platform's place for application data.

    Raises:
        D3MError: nothing says where that is: a user without a home, as in some containers.
    """
    try:
        return _user_folder()
    except RuntimeError as error:  # no HOME, and nobody of this number in the system's list
        raise D3MError(
            "There is no home folder to keep models in.", f"Set the environment variable {MODELS_VARIABLE}.", "machine"
        ) from error


def _user_folder() -> Path:
    if os.environ.get(MODELS_VARIABLE):
        return Path(os.environ[MODELS_VARIABLE]).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", "~/AppData/Local"))
    elif sys.platform == "darwin":
        base = Path("~/Library/Application Support")
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share")
    return base.expanduser() / "d3m" / "models"


def resource_folders() -> list[Path]:
    """Folders that may hold `Models` and `SampleData`: the installed package's, the checkout's, Slicer's."""
    package = Path(__file__).resolve().parents[1]
    candidates = [package / "resources", package.parents[1] / "Resources", package.parent / "Resources"]
    return [folder for folder in candidates if folder.is_dir()]


def list_models() -> list[ModelEntry]:
    """Every model of the search path, the user's first; a name that comes twice is taken from the first place."""
    places = [(folder / "Models", False) for folder in resource_folders()]
    with contextlib.suppress(D3MError):  # no home: then there are none of the user's
        places.insert(0, (user_folder(), True))
    found: dict[str, ModelEntry] = {}
    for place, removable in places:
        try:
            folders = sorted(folder for folder in place.iterdir() if not folder.name.startswith("."))
        except OSError:  # not there, or not readable: then there are no models in it
            continue
        for folder in folders:
            with contextlib.suppress(OSError):  # a folder without rights
                if (folder / CARD_NAME).is_file():
                    found.setdefault(folder.name, ModelEntry(folder.name, folder, removable))
    return list(found.values())


def find_model(name_or_folder: str | None = None) -> Path:
    """The folder of a model.

    Args:
        name_or_folder: A name from `list_models`, a path to a folder, or None for the default model.

    Raises:
        D3MError: there is none; those that are there are named.
    """
    wanted = name_or_folder or DEFAULT_NAME
    models = list_models()
    for entry in models:
        if entry.name == wanted:
            return entry.folder
    if folder := _as_folder(wanted):
        try:
            folder = _in_bundle(folder)
            if (folder / CARD_NAME).is_file():
                return folder
        except OSError as error:
            raise D3MError(
                f"The folder given as model cannot be read ({error.strerror}).", "Check its permissions."
            ) from error
        raise D3MError(
            f"The folder given as model has no {CARD_NAME}.", "Choose the folder that `d3m-training export` wrote."
        )
    names = ", ".join(entry.name for entry in models) or "none"
    raise D3MError(f"There is no model {wanted!r}.", f"Choose one of: {names}; or give the path to a model's folder.")


def _as_folder(text: str) -> Path | None:
    """The folder that the text is a path to, if it is one."""
    try:
        folder = Path(text).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # too long, an unknown user after "~", a character no path has
        return None


def _in_bundle(folder: Path) -> Path:
    """The model's folder in that of a MONAI bundle; any other folder itself."""
    inner = folder / BUNDLE_MODELS
    return inner if not (folder / CARD_NAME).is_file() and (inner / CARD_NAME).is_file() else folder


def _own_file(folder: Path, name: str, what: str) -> Path:
    """A regular file that lies in the folder itself.

    Raises:
        D3MError: it is not there, or a link leads elsewhere: a model's folder must not reach other files.
    """
    path = folder / name
    if not path.is_file():
        raise D3MError(f"{what} cannot be read: there is no {name}.", "Get the model's folder again.")
    if path.resolve().parent != folder.resolve():
        raise D3MError(
            f"The model's {name} is a link to another place.", "Copy the file itself into the model's folder."
        )
    return path


def replace_card(folder: Path, card: Card) -> None:
    """Put another card into a model's folder, whose list of files goes with it.

    Raises:
        D3MError: the disk is full, or the folder cannot be written.
    """
    with writing(), relist(folder, CARD_NAME):
        replace_text(folder / CARD_NAME, card.to_json())


def read_card(folder: Path) -> Card:
    """The checked card of a model's folder.

    Raises:
        D3MError: it is missing, unreadable or invalid.
    """
    try:
        path = _own_file(folder, CARD_NAME, "The model's card")
        if path.stat().st_size > MAX_CARD_BYTES:
            raise D3MError(
                f"The model's card is larger than {MAX_CARD_BYTES // 1000} kB.", "Get the model's folder again."
            )
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise D3MError(f"The model's card cannot be read ({error.strerror}).", "Check the model's folder.") from error
    except UnicodeDecodeError as error:
        raise D3MError("The model's card is not UTF-8 text.", "Get the model's folder again.") from error
    return Card.from_json(text)


def weights_path(folder: Path, card: Card) -> Path:
    """The weights of a model, checked against the card.

    Raises:
        D3MError: missing, too large, a link out of the folder, or not those that the card was written for.
    """
    return _checked_weights(folder, WEIGHTS_NAME, card, card.weights_sha256)


def whole_brain_path(folder: Path, card: Card) -> Path | None:
    """The weights of a model's whole-brain stage, checked against the card; None if the model has none.

    Raises:
        D3MError: as in `weights_path`.
    """
    if card.whole_brain is None:
        return None
    return _checked_weights(folder, WHOLE_BRAIN_NAME, card, card.whole_brain.weights_sha256)


def _checked_weights(folder: Path, name: str, card: Card, sha256: str) -> Path:
    path = _own_file(folder, name, f"The model {card.name!r}")
    if path.stat().st_size > MAX_WEIGHTS_BYTES:
        raise D3MError(f"The weights of {card.name!r} are larger than 8 GiB.", "This is not a model of this software.")
    try:
        found = file_sha256(path)
    except OSError as error:
        raise D3MError(
            f"The weights of {card.name!r} cannot be read ({error.strerror}).", "Check the model's folder."
        ) from error
    if found != sha256:
        raise D3MError(
            f"The weights of {card.name!r} do not match their card: the file was changed or is damaged.",
            "Get the model's folder again, or export the model again.",
        )
    return path


def _listed_by_card(folder: Path) -> Files:
    """Card and weights of a folder without a manifest, if they belong together."""
    try:
        card = read_card(folder)
        paths = (folder / CARD_NAME, weights_path(folder, card), whole_brain_path(folder, card))
    except (D3MError, OSError):
        return {}
    found = [path for path in paths if path is not None]
    return {path.name: Written(path.stat().st_size, file_sha256(path)) for path in found}


MODEL = FolderKind("model", "an earlier model", _listed_by_card, shared=True)
"""A model's folder; TRAINING.md and the like stay in it."""


def import_model(folder: Path) -> ModelEntry:
    """Copy a model into the user's folder; card and weights alone, whole or not at all.

    Args:
        folder: A model's, or one that `d3m.models.exchange` wrote.

    Raises:
        D3MError: the folder holds no sound model, or the name is taken; the disk is full or not writable.
    """
    if folder.is_file():
        raise D3MError(
            f"A model is a folder with {CARD_NAME}; {plain(folder.name)!r} is a file.",
            "Give the folder that it lies in: an ONNX file alone has no weights that can be brought back.",
        )
    folder = _in_bundle(folder)
    card = read_card(folder)
    weights = [path for path in (weights_path(folder, card), whole_brain_path(folder, card)) if path is not None]
    target = user_folder() / card.name
    taken = next((entry for entry in list_models() if entry.name == card.name), None)
    if taken is not None:
        way = f"change the name in the folder's {CARD_NAME}, or use the folder as it is (--model FOLDER)."
        raise D3MError(
            f"There is a model {card.name!r} already.",
            f"Remove that one first, {way}" if taken.removable else f"It ships with the software: {way}",
        )
    if os.path.lexists(target):
        raise D3MError(f"A folder {card.name!r} that is not a model is in the way.", f"Remove {target}.")
    try:
        with whole_folder(target, MODEL, replace=False) as partial:
            write_text(partial / CARD_NAME, card.to_json())
            for path in weights:
                shutil.copyfile(path, partial / path.name)
            weights_path(partial, card)  # a full disk or a file that changed meanwhile is noticed
            whole_brain_path(partial, card)
    except D3MError as error:
        if error.kind != "machine":
            raise
        hint = f"Free some space, or set {MODELS_VARIABLE} to a folder that can be written."
        raise D3MError(error.message.replace("result", "model"), hint, "machine") from error
    return ModelEntry(card.name, target, True)


def remove_model(name: str) -> None:
    """Remove an imported model.

    Raises:
        D3MError: there is no such model, or it ships with the software.
    """
    for entry in list_models():
        if entry.name == name:
            if not entry.removable:
                raise D3MError(f"The model {name!r} ships with the software.", "Only imported models can be removed.")
            try:
                if entry.folder.is_symlink():
                    entry.folder.unlink()
                else:
                    _refuse_others_files(entry.folder)
                    remove_folder(entry.folder)
            except OSError as error:
                raise D3MError(
                    f"The model cannot be removed ({error.strerror}).", "Check the folder's permissions.", "machine"
                ) from error
            return
    raise D3MError(f"There is no model {name!r}.", "See `d3m models`.")


def _refuse_others_files(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        if path.name not in (CARD_NAME, WEIGHTS_NAME, WHOLE_BRAIN_NAME, MANIFEST) or path.is_dir():
            raise D3MError(
                f"The model's folder holds something other than the model ({path.name!r}); it will not be removed.",
                f"Move it away first; the folder is {folder}.",
            )


def find_sample() -> SampleCase:
    """The sample case.

    Raises:
        D3MError: it was not installed.
    """
    for place in resource_folders():
        folder = place / "SampleData"
        paths = [folder / f"sample_{name}.nii.gz" for name in ("t1", "t2", "flair", "t1c", "seg")]
        if all(path.is_file() for path in paths):
            return SampleCase(*paths)
    raise D3MError("The sample case is not installed.", "Install the package again, or run from a complete checkout.")
