"""Installing what the engine needs, once, after one question."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

import slicer
from D3MSynthesisLib.Engine import SynthesisError

TORCH = ">=2.2"
TORCH_SIZE = "200 MB to 3 GB"
OTHERS_SIZE = "40 MB"
KEPT = ("numpy", "scipy", "SimpleITK", "pydicom")
"""Slicer's own packages: pip may use them, never replace them."""
PIP_OPTIONS = ("--only-binary", ":all:", "--timeout", "10", "--retries", "1")
"""Without a network this fails in well under a minute."""


def _version(package: str) -> str | None:
    """Installed version, without importing the package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])


def requirements(path: Path) -> list[str]:
    """Lines of a requirements file, without comments."""
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def missing(path: Path) -> list[str]:
    """Requirements (of the form `name>=version`) that are not satisfied."""
    found = []
    for line in requirements(path):
        name, _sign, least = line.partition(">=")
        version = _version(name.strip())
        if version is None or _numbers(version) < _numbers(least):
            found.append(line)
    return found


def torchMissing() -> bool:
    """Whether torch is absent or too old."""
    version = _version("torch")
    return version is None or _numbers(version) < _numbers(TORCH)


def ensure(path: Path, confirm: Callable[[str], bool]) -> None:
    """Install what is missing; nothing happens if everything is there.

    Args:
        path: The module's requirements.txt.
        confirm: Shows a question; True only for an explicit yes.

    Raises:
        SynthesisError: declined, or it did not work. It can be tried again.
    """
    packages, torch = missing(path), torchMissing()
    if not packages and not torch:
        return
    if torch and importlib.util.find_spec("PyTorchUtils") is None:
        raise SynthesisError(
            _("PyTorch is not installed."),
            _("Install the extension PyTorch with the Extensions Manager, restart Slicer, and try again."),
            "machine",
        )
    parts = ([_("PyTorch ({size})").format(size=TORCH_SIZE)] if torch else []) + (
        [_("{names} (up to {size})").format(names=", ".join(re.split("[>=]", line)[0] for line in packages),
                                            size=OTHERS_SIZE)] if packages else []
    )  # fmt: skip
    question = _("The synthesis needs packages that are not installed yet: {parts}. Download and install them now?")
    if not confirm(question.format(parts=_(" and ").join(parts))):
        raise SynthesisError(_("The packages were not installed."), _("Press Synthesize to be asked again."), "machine")
    try:
        if torch:
            _installTorch()
        if packages:
            kept = [f"{name}=={version}" for name in KEPT if (version := _version(name))]
            slicer.util.pip_install([*PIP_OPTIONS, *packages, *kept])
    except SynthesisError:
        raise
    except Exception as error:  # pip and PyTorchUtils raise what they like; the user gets one sentence
        raise _failed(packages, str(error)) from error
    importlib.invalidate_caches()
    if (still := missing(path)) or torchMissing():
        raise _failed(still, "")


def _installTorch() -> Any:
    import PyTorchUtils

    if PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=False, torchVersionRequirement=TORCH) is None:
        raise _failed([], "PyTorchUtils.installTorch gave nothing")


def _failed(packages: list[str], details: str) -> SynthesisError:
    names = " ".join(f'"{package}"' for package in packages)
    byHand = _("install PyTorch with the module PyTorch Utils") if torchMissing() else (
        _("type in Slicer's Python console: slicer.util.pip_install('{names}')").format(names=names)
    )  # fmt: skip
    return SynthesisError(
        _("The packages could not be installed."),
        _("Check the network and the proxy and try again, or {byHand}.").format(byHand=byHand),
        "machine",
        details,
    )
