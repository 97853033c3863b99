"""What the engine says, as data for panel and scripts: errors, devices, models and what they cost."""

from __future__ import annotations

import json
from dataclasses import dataclass

from d3m.errors import D3MError
from d3m.progress import Progress as ProgressEvent

__all__ = ["Cost", "Device", "EngineInfo", "ModelInfo", "ProgressEvent", "SynthesisError"]


class SynthesisError(D3MError):
    """A run that did not come to a result, told to a person.

    Attributes:
        kind: One of the engine's ("input", "machine", "interrupted"), or "defect": of ours.
        message: What is wrong, in one sentence.
        hint: What to do, in one sentence.
        details: The engine's log, for the button "details".
    """

    def __init__(self, message: str, hint: str = "", kind: str = "input", details: str = "") -> None:
        super().__init__(message, hint, kind)  # type: ignore[arg-type] # the engine itself has no name for its defects
        self.details = details


@dataclass(frozen=True)
class Device:
    """A device that the engine can compute on."""

    name: str
    title: str
    memoryBytes: int | None
    usable: bool
    reason: str


@dataclass(frozen=True)
class Cost:
    """What a quality costs on the device that would be chosen."""

    quality: str
    device: str
    seconds: float
    memoryMb: float


@dataclass(frozen=True)
class ModelInfo:
    """A model that the engine finds."""

    name: str
    title: str
    removable: bool
    folder: str
    costs: tuple[Cost, ...]


@dataclass(frozen=True)
class EngineInfo:
    """What the engine says about itself and this machine."""

    version: str
    torch: str
    devices: tuple[Device, ...] = ()
    models: tuple[ModelInfo, ...] = ()

    @staticmethod
    def fromJson(text: str) -> EngineInfo:
        """Read the answer of `d3m info --json`.

        Raises:
            ValueError: it is something else.
        """
        try:
            content = json.loads(text[text.index("{") :])
            devices = tuple(
                Device(d["name"], d["title"], d.get("memory_bytes"), bool(d["usable"]), d.get("reason") or "")
                for d in content["devices"]
            )
            models = tuple(
                ModelInfo(m["name"], m["title"], bool(m["removable"]), m["folder"], tuple(
                    Cost(c["quality"], c["device"], float(c["seconds"]), float(c["memory_mb"])) for c in m["costs"]
                ))
                for m in content["models"]
            )  # fmt: skip
            return EngineInfo(content["version"], content["torch"], devices, models)
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError("This is not the engine's answer.") from error
