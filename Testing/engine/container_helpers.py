"""Reads Dockerfile and apptainer.def, as far as ours go."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Step:
    """An instruction of a Dockerfile."""

    word: str
    text: str
    stage: int
    """Number of the FROM that it belongs to, from 0; -1 before the first."""


def dockerfile_steps(path: Path) -> list[Step]:
    """All instructions, continued lines joined, comments left out."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    steps: list[Step] = []
    stage = -1
    for line in filter(None, (line.strip() for line in joined.splitlines())):
        word, _, text = line.partition(" ")
        stage += word == "FROM"
        steps.append(Step(word, re.sub(r"\s+", " ", text.strip()), stage))
    return steps


def copied(step: Step) -> tuple[list[str], str]:
    """Sources and destination of a COPY."""
    *sources, destination = [word for word in step.text.split() if not word.startswith("--")]
    return sources, destination


def apptainer_sections(path: Path) -> dict[str, list[str]]:
    """Lines of each section without comments and indentation; those of the header under ""."""
    sections: dict[str, list[str]] = {"": []}
    name = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("%"):
            name = line.strip()
            sections[name] = []
        elif line.strip() and not line.lstrip().startswith("#"):
            sections[name].append(line.strip())
    return sections


def sent(root: Path, name: str) -> bool:
    """Whether .dockerignore lets a path of the checkout into the build; the last rule that fits decides."""
    parts = name.split("/")
    ancestors = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    kept = True
    for line in (root / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!").removeprefix("**/")
        anywhere = line.removeprefix("!").startswith("**/")
        if pattern == "*" or any(
            one == pattern or (anywhere and fnmatch.fnmatch(one.rsplit("/", 1)[-1], pattern)) for one in ancestors
        ):
            kept = line.startswith("!")
    return kept
