"""Which Python packages are there, looked up without importing any of them: Slicer starts no faster for torch."""

from __future__ import annotations

import csv
import importlib.metadata
import re
import sys
from pathlib import Path

TORCH = ">=2.2"
"""What the engine needs."""
LIBRARIES = (".so", ".pyd", ".dll", ".dylib")


def version(package: str) -> str | None:
    """Installed version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def damaged(package: str) -> bool:
    """Whether an installation was broken off: its list of files is missing, or files that it lists.

    Only files that an import needs at once are looked for. pip writes the list last.
    """
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    record = distribution.read_text("RECORD")
    if record is None:
        return distribution.read_text("METADATA") is not None  # other formats have other lists
    names = (row[0] for row in csv.reader(record.splitlines()) if row)
    return any(
        not Path(str(distribution.locate_file(name))).exists()
        for name in names
        if name.endswith(LIBRARIES) or name.endswith("/__init__.py")
    )


def numbers(text: str) -> tuple[int, ...]:
    """The leading numbers of a version."""
    return tuple(int(part) for part in re.findall(r"\d+", text.split("+")[0])[:3])


def name(requirement: str) -> str:
    """The package of a line `name>=version`."""
    return requirement.partition(">=")[0].strip()


def requirements(*files: Path) -> list[str]:
    """Lines of requirements files, without comments."""
    lines = [line.split("#")[0].strip() for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line]


def unmet(lines: list[str]) -> list[str]:
    """Those of these requirements, of the form `name>=version`, that are absent, too old or damaged."""
    found = []
    for line in lines:
        package, _, least = line.partition(">=")
        installed = version(package.strip())
        if installed is None or numbers(installed) < numbers(least) or damaged(package.strip()):
            found.append(line)
    return found


def missing(*files: Path) -> list[str]:
    """Unmet lines of requirements files."""
    return unmet(requirements(*files))


def torchMissing() -> bool:
    """Whether torch is absent, too old or damaged."""
    installed = version("torch")
    return installed is None or numbers(installed) < numbers(TORCH) or damaged("torch")


def canonical(package: str) -> str:
    """The one spelling of a package's name."""
    return re.sub(r"[-_.]+", "-", package).lower()


def installed() -> dict[str, str]:
    """Versions of all packages that are there, by canonical name."""
    return {
        canonical(distribution.metadata["Name"]): distribution.version
        for distribution in importlib.metadata.distributions()
        if distribution.metadata["Name"]
    }


def loaded() -> set[str]:
    """Canonical names of the packages that this process has imported; on Windows their files cannot be replaced."""
    return {
        canonical(package)
        for module, packages in importlib.metadata.packages_distributions().items()
        if module in sys.modules
        for package in packages
    }
