"""Installing what the engine needs, once, after one question.

Slicer's own packages are never replaced: pip gets them as constraints. PyTorch comes through the extension PyTorch
alone, which chooses the build for the graphics card. Whatever goes wrong, the module stays usable for another try.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import shutil
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import slicer
from D3MSynthesisLib import Packages
from D3MSynthesisLib.Engine import SynthesisError
from D3MSynthesisLib.Packages import TORCH, missing, torchMissing
from D3MSynthesisLib.Texts import _

__all__ = ["byHand", "ensure", "incomplete", "missing", "torchMissing"]

SHIPPED = ("numpy", "scipy", "SimpleITK", "pydicom", "highdicom", "pillow", "requests")
"""Packages that Slicer brings and uses itself."""
TORCHES = ("torch", "torchvision")
"""What the extension PyTorch installs."""
ALONE = ("deepbet",)
"""Installed without what they ask for: of deepbet the engine reads two networks and imports nothing."""
DOWNLOAD_MB = 50
"""All packages of requirements.txt with what they need; measured beside the packages that Slicer 5.13 ships."""
DISK_MB = 180
TORCH_DISK_MB = 1000
"""Without support for a graphics card; up to 7000 with it."""
PIP_OPTIONS = ("--only-binary", ":all:")
PIP_SETTINGS = {"PIP_TIMEOUT": "15", "PIP_RETRIES": "2", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
"""Without a network pip gives up in less than a minute, and it never waits for somebody to type a password."""
LOG_CHARACTERS = 40_000
_ONE_AT_A_TIME = threading.Lock()
"""Slicer handles events while pip runs, so that a button can be pressed again."""

CAUSES = (
    ("disk", ("No space left", "[Errno 28]", "not enough space", "WinError 112", "Disk quota")),
    ("certificate", ("CERTIFICATE_VERIFY_FAILED", "SSLCertVerificationError", "certificate verify failed")),
    ("proxy", ("ProxyError", "Cannot connect to proxy", "Tunnel connection failed", "407 Proxy")),
    ("network", ("NewConnectionError", "Failed to establish", "NameResolutionError", "getaddrinfo failed",
                 "ConnectTimeout", "ReadTimeout", "Network is unreachable", "Connection aborted",
                 "Connection refused", "RemoteDisconnected")),
    ("access", ("Permission denied", "[Errno 13]", "Access is denied", "WinError 5]", "WinError 32]",
                "Read-only file system", "[Errno 30]")),
    ("build", ("No matching distribution found",)),
    ("conflict", ("conflicting dependencies",)),
)  # fmt: skip
"""Words of pip's log by what they tell, the surest first."""


def incomplete(*files: Path) -> bool:
    """Whether anything is missing: of these requirements files, or torch."""
    return bool(missing(*files)) or torchMissing()


def ensure(path: Path, confirm: Callable[[str], bool], *further: Path) -> None:
    """Install what is missing; nothing happens if everything is there.

    Args:
        path: The module's requirements.txt.
        confirm: Shows a question; True only for an explicit yes.
        further: More files of requirements.

    Raises:
        SynthesisError: declined, or it did not work. It can be tried again.
    """
    packages, torch = missing(path, *further), torchMissing()
    if not packages and not torch:
        return
    if not _ONE_AT_A_TIME.acquire(blocking=False):
        raise SynthesisError(_("Packages are being installed."), _("Wait until it has finished."), "machine")
    try:
        _check(packages, torch)
        if not confirm(_question(packages, torch)):
            raise SynthesisError(
                _("The packages were not installed, because you did not agree."),
                _("Try again to be asked once more; the details tell how to install by hand."),
                "machine",
                byHand(packages, torch),
            )
        _install(packages, torch)
    finally:
        _ONE_AT_A_TIME.release()


def byHand(packages: list[str], torch: bool) -> str:
    """What to type in Slicer's Python console instead; Slicer's own packages are named with the versions they have."""
    lines = [_("To install by hand, type in Slicer's Python console:")]
    if torch:
        lines.append(
            f"import PyTorchUtils; PyTorchUtils.PyTorchUtilsLogic().installTorch(torchVersionRequirement='{TORCH}')"
        )
    if packages:
        wanted = {Packages.canonical(Packages.name(package)) for package in packages}
        kept = [pin for pin in _pins(SHIPPED) if Packages.canonical(pin.partition("==")[0]) not in wanted]
        alone, others = _alone(packages)
        if others:
            lines.append(f"slicer.util.pip_install({' '.join([*others, *kept])!r})")
        if alone:
            lines.append(f"slicer.util.pip_install({' '.join(['--no-deps', *alone])!r})")
    return "\n".join(lines)


def _alone(packages: list[str]) -> tuple[list[str], list[str]]:
    """Those that are installed without what they ask for, and the others."""
    return [p for p in packages if Packages.name(p) in ALONE], [p for p in packages if Packages.name(p) not in ALONE]


def _question(packages: list[str], torch: bool) -> str:
    parts = []
    if torch:
        parts.append(_("PyTorch (200 MB; up to 3 GB where there is an NVIDIA graphics card)"))
    if packages:
        names = ", ".join(Packages.name(package) for package in packages)
        parts.append(_("{names} (up to {size} MB)").format(names=names, size=DOWNLOAD_MB))
    return _(
        "D3M needs Python packages that are not installed yet: {parts}. They are downloaded from the Python "
        "Package Index and from PyTorch's site into Slicer's own Python; what Slicer brings itself is not changed. "
        "Nothing is sent. Download and install them now?"
    ).format(parts=_(" and ").join(parts))


def _check(packages: list[str], torch: bool) -> None:
    """Find out whether it can work at all, before anybody is asked.

    Raises:
        SynthesisError: it cannot.
    """
    if torch and importlib.util.find_spec("PyTorchUtils") is None:
        raise SynthesisError(
            _("PyTorch is not installed, and the extension PyTorch, which installs it, is not there."),
            _("Open the Extensions Manager, install the extension PyTorch, restart Slicer, and try again."),
            "machine",
        )
    loaded = Packages.loaded() if packages or torch else set()
    wanted = [Packages.name(package) for package in packages] + (["torch"] if torch else [])
    if inUse := [package for package in wanted if Packages.canonical(package) in loaded]:
        raise SynthesisError(
            _("An unsuitable version of {names} is in use in this session of Slicer.").format(names=", ".join(inUse)),
            _("Restart Slicer and try again before you use other modules."),
            "machine",
            byHand(packages, torch),
        )
    site = _sitePackages()
    if not site.is_dir():
        return  # pip will make it, or say why not
    try:
        with tempfile.TemporaryFile(dir=site):
            pass
    except OSError as error:
        raise _failure("disk" if error.errno == 28 else "access", packages, torch, str(error)) from error
    needed = (TORCH_DISK_MB if torch else 0) + (DISK_MB if packages else 0)
    if shutil.disk_usage(site).free < needed * 2**20:
        raise _failure("disk", packages, torch, "")


def _install(packages: list[str], torch: bool) -> None:
    """Install; afterwards it is looked up whether everything is there, whatever pip said.

    Raises:
        SynthesisError: something is still missing.
    """
    with tempfile.TemporaryDirectory(prefix="d3m-install-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        log = folder / "pip.log"
        said = ""
        try:
            if torch:
                with _pipSettings(log, _write(folder / "shipped.txt", _pins(SHIPPED))):
                    _installTorch()
        except Exception as error:  # the extension and pip raise what they like; it counts what is there then
            said += f"\n{type(error).__name__}: {error}"
        importlib.invalidate_caches()
        try:
            if packages and not torchMissing():
                with _pipSettings(log):
                    _installPackages(packages, folder, log)
        except Exception as error:
            said += f"\n{type(error).__name__}: {error}"
        importlib.invalidate_caches()
        still, torch = Packages.unmet(packages), torchMissing()
        if still or torch:
            text = _read(log) + said
            raise _failure(_cause(text), still, torch, text)


def _installTorch() -> None:
    import PyTorchUtils

    logic = PyTorchUtils.PyTorchUtilsLogic()
    if Packages.damaged("torch"):
        logic.uninstallTorch()
    logic.installTorch(askConfirmation=False, torchVersionRequirement=TORCH)  # None if it was not installed


def _installPackages(packages: list[str], folder: Path, log: Path) -> None:
    """Everything that is there stays as it is; if that cannot be, at least what Slicer brings or has loaded."""
    names = [Packages.name(package) for package in packages]
    everything = _write(folder / "everything.txt", _pins(Packages.installed(), without=names))
    if broken := [name for name in names if Packages.damaged(name)]:  # pip takes these for installed
        same = [f"{name}=={Packages.version(name)}" for name in broken]
        _pipInstall([*PIP_OPTIONS, "--ignore-installed", "--no-deps", *same], everything)
    alone, packages = _alone(packages)
    if alone:
        _pipInstall([*PIP_OPTIONS, "--no-deps", *alone], everything)
    if not packages:
        return
    try:
        _pipInstall([*PIP_OPTIONS, *packages], everything)
    except Exception:
        if _cause(_read(log)) != "conflict":
            raise
        important = _pins({*SHIPPED, *TORCHES, *Packages.loaded()}, without=names)
        _pipInstall([*PIP_OPTIONS, *packages], _write(folder / "important.txt", important))


def _pipInstall(arguments: list[str], constraints: Path) -> None:
    try:
        from slicer.packaging import pip_install
    except ImportError:  # Slicer 5.10 and before
        slicer.util.pip_install([*arguments, "--constraint", str(constraints)])
    else:
        pip_install(arguments, constraints=constraints, requester="D3M Synthesis")


def _pins(names: Iterable[str], without: Iterable[str] = ()) -> list[str]:
    """`name==version` of those of these packages that are there."""
    left = {Packages.canonical(name) for name in names} - {Packages.canonical(name) for name in without}
    return [f"{name}=={version}" for name, version in sorted(Packages.installed().items()) if name in left]


@contextlib.contextmanager
def _pipSettings(log: Path, constraints: Path | None = None) -> Iterator[None]:
    """Settings for every pip that is started meanwhile, also by the extension PyTorch; the user's own ones stay."""
    settings = {"PIP_LOG": str(log)} | PIP_SETTINGS
    if constraints is not None:  # several are divided by blanks, which a path may have, an address not
        settings["PIP_CONSTRAINT"] = " ".join([*os.environ.get("PIP_CONSTRAINT", "").split(), constraints.as_uri()])
    before = dict(os.environ)
    if "PIP_DEFAULT_TIMEOUT" in before:
        del settings["PIP_TIMEOUT"]
    try:
        for name, value in settings.items():
            if name not in before or name in ("PIP_LOG", "PIP_CONSTRAINT"):
                os.environ[name] = value
        yield
    finally:
        for name in settings:
            if name in before:
                os.environ[name] = before[name]
            else:
                os.environ.pop(name, None)


def _sitePackages() -> Path:
    return Path(sysconfig.get_path("purelib"))


def _write(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def _read(log: Path) -> str:
    try:
        return log.read_text(encoding="utf-8", errors="replace")[-LOG_CHARACTERS:]
    except OSError:
        return ""  # pip did not come to writing one


def _cause(text: str) -> str:
    """What pip's log tells about a failure; "other" if nothing."""
    return next((cause for cause, words in CAUSES if any(word in text for word in words)), "other")


def _failure(cause: str, packages: list[str], torch: bool, text: str) -> SynthesisError:
    """One sentence, what to do, and in the details the way by hand and pip's log."""
    needed = (TORCH_DISK_MB if torch else 0) + (DISK_MB if packages else 0)
    again = _("Then try again; the details tell how to install by hand.")
    told = {
        "disk": (
            _("There is not enough space on the disk for the packages."),
            _("Free {size} MB where Slicer is installed, and as much for temporary files.").format(size=needed),
        ),
        "certificate": (
            _("The packages could not be downloaded: the certificate of the server is not accepted."),
            _("Behind a proxy that opens connections, ask for its certificate and set the environment variable "
              "PIP_CERT to that file before Slicer starts."),
        ),
        "proxy": (
            _("The packages could not be downloaded: the proxy of this network did not let it pass."),
            _("Set the environment variable HTTPS_PROXY to the proxy, with name and password if it asks for them, "
              "before Slicer starts."),
        ),
        "network": (
            _("The packages could not be downloaded: there is no connection."),
            _("Connect this computer to the internet, or set the environment variable HTTPS_PROXY to its proxy."),
        ),
        "access": (
            _("Files of Slicer's Python cannot be written, or are in use."),
            _("Restart Slicer, if need be once as administrator, or install Slicer into a folder of your own."),
        ),
        "conflict": (
            _("The packages do not agree with others that are installed in Slicer."),
            _("Choose a separate Python in the settings of this module, or remove the other packages."),
        ),
        "build": (
            _("The package index has no build of a package for this system and this version of Slicer."),
            _("Update Slicer, or choose a separate Python in the settings of this module."),
        ),
        "other": (_("The packages could not be installed."), _("See the details.")),
    }  # fmt: skip
    message, hint = told[cause]
    return SynthesisError(message, f"{hint} {again}", "machine", f"{byHand(packages, torch)}\n\n{text}".strip())
