"""First use: what is missing is installed after one question, Slicer's own packages stay, and a failure can be mended.

pip is the real one, over wheels that are made here, in an environment of its own; nothing is downloaded. Where the
application is needed, stand-ins with the same signatures are injected: of `slicer.packaging.pip_install` (Slicer 5.13,
Base/Python/slicer/packaging.py, line 526), of `slicer.util.pip_install` (Slicer 5.10, util.py, line 3991), and of the
extension PyTorch (fepegar/SlicerPyTorch e1c85cc, PyTorchUtils.py, lines 194 and 229).
"""

from __future__ import annotations

import os
import subprocess
import sys
import types
import venv
import zipfile
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace

import pytest

slicer = pytest.importorskip("slicer")

from D3MSynthesisLib import Install, Packages  # noqa: E402
from D3MSynthesisLib.Engine import SynthesisError  # noqa: E402

CHECKOUT = Path(__file__).resolve().parents[2]
LIBRARY = CHECKOUT / "D3MSynthesis"
REQUIREMENTS = LIBRARY / "Resources" / "requirements.txt"


def make_wheel(folder: Path, name: str, version: str, *requires: str) -> None:
    """Write a pure wheel of one module."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{name}/__init__.py": f"__version__ = {version!r}\n",
        f"{info}/METADATA": metadata + "".join(f"Requires-Dist: {line}\n" for line in requires),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


class Application:
    """A Python of its own that stands for Slicer's, with pip, and with wheels to install from."""

    def __init__(self, folder: Path) -> None:
        self.wheels, self.work = folder / "wheels", folder / "work folder"  # a blank, as in many users' names
        self.work.mkdir()
        venv.create(folder / "python", with_pip=True)
        self.python = folder / "python" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        for name, version, *requires in (
            ("numpy", "1.0"), ("numpy", "2.0"),
            ("needy", "1.0", "numpy>=1"), ("needy", "2.0", "numpy>=2"),
            ("torch", "2.5", "numpy>=1"), ("torch", "2.6", "numpy>=2"), ("torch", "1.8"),
            ("helper", "1.0"), ("helper", "2.0"), ("modern", "1.0", "helper>=2"),
            ("deepbet", "1.0.2", "windows-and-buttons>=1"),
        ):  # fmt: skip
            make_wheel(self.wheels, name, version, *requires)
        (self.work / "slicer.py").write_text(
            "import subprocess, sys\n"
            "class util:\n"
            "    @staticmethod\n"
            "    def pip_install(arguments):\n"
            "        print('PIP')\n"
            "        subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', *arguments], check=True)\n"
        )
        (self.work / "PyTorchUtils.py").write_text(
            "import subprocess, sys\n"
            "class PyTorchUtilsLogic:\n"
            "    def installTorch(self, askConfirmation=False, forceComputationBackend=None,\n"
            "                     torchVersionRequirement=None, torchvisionVersionRequirement=None):\n"
            "        print('TORCH')\n"
            "        wanted = 'torch' + torchVersionRequirement\n"
            "        subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', wanted], check=True)\n"
        )

    def call(self, code: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run Python code there, without any index of packages but the wheels."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
        environment |= {
            "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels),
            "PIP_NO_CACHE_DIR": "1", "PYTHONPATH": os.pathsep.join([str(self.work), str(LIBRARY)]),
            "TMPDIR": str(self.work),
        } | changes  # fmt: skip
        command = [str(self.python), "-c", code]
        return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=self.work, timeout=120)

    def pip(self, *arguments: str) -> None:
        """Prepare what is installed."""
        done = self.call(f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-m', 'pip', '-q', "
                         f"*{arguments!r}]).returncode)")  # fmt: skip
        assert done.returncode == 0, done.stderr

    def ensure(self, *lines: str, before: str = "", **changes: str) -> str:
        """Have these requirements installed; what was asked and said, or the error's kind and text."""
        (self.work / "requirements.txt").write_text("".join(f"{line}\n" for line in lines))
        done = self.call(
            f"{before}\n"
            "from pathlib import Path\n"
            "from D3MSynthesisLib import Install\n"
            "from D3MSynthesisLib.Engine import SynthesisError\n"
            "try:\n"
            "    Install.ensure(Path('requirements.txt'), lambda question: print('ASKED', question) or True)\n"
            "except SynthesisError as error:\n"
            "    print('ERROR', error.kind, error, error.details)\n",
            **changes,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def versions(self) -> dict[str, str]:
        """What is installed."""
        code = "from D3MSynthesisLib import Packages; print(Packages.installed())"
        return dict(eval(self.call(code).stdout))


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Application:
    """One environment for the tests of pip."""
    return Application(tmp_path_factory.mktemp("application"))


def test_slicers_own_packages_stay(application: Application) -> None:
    """pip would take newer numpy for the newest torch and package; it gets those that go with the numpy there is."""
    application.pip("install", "numpy==1.0")
    said = application.ensure("needy>=1.0")
    assert said.count("ASKED") == said.count("TORCH") == said.count("PIP") == 1
    assert "ERROR" not in said
    versions = application.versions()
    assert (versions["numpy"], versions["needy"], versions["torch"]) == ("1.0", "1.0", "2.5")
    assert application.ensure("needy>=1.0") == ""  # everything is there: no question, no pip
    assert not list(application.work.glob("d3m-install-*"))


def test_old_torch_is_renewed_but_not_under_a_running_session(application: Application) -> None:
    """A torch too old is renewed; one that is loaded cannot be replaced, and the user is told to restart."""
    application.pip("install", "torch==1.8", "numpy==1.0")
    said = application.ensure("numpy>=1.0", before="import torch")
    assert "ERROR machine" in said
    assert "Restart Slicer" in said
    assert "ASKED" not in said
    assert "TORCH" in application.ensure("numpy>=1.0")
    assert application.versions()["torch"] == "2.5"


def test_package_of_another_extension_gives_way_only_if_it_must(application: Application) -> None:
    """What is neither Slicer's own nor loaded may be renewed when nothing else goes; a loaded one stays."""
    application.pip("install", "helper==1.0", "torch==2.5", "numpy==1.0")
    said = application.ensure("modern>=1.0", before="import helper")
    assert "do not agree" in said
    assert "slicer.util.pip_install('modern>=1.0 numpy==1.0')" in said
    assert application.versions()["helper"] == "1.0"
    assert "ERROR" not in application.ensure("modern>=1.0")
    assert (application.versions()["helper"], application.versions()["numpy"]) == ("2.0", "1.0")


def test_installation_that_was_broken_off_is_made_whole(application: Application) -> None:
    """Slicer was closed in the middle: pip thinks that the package is there; it is installed again, alone."""
    application.pip("install", "needy==1.0", "torch==2.5", "numpy==1.0")
    place = Path(application.call("import needy; print(needy.__file__)").stdout.strip())
    place.unlink()
    next(place.parents[1].glob("needy-*/RECORD")).unlink()
    said = application.ensure("needy>=1.0")
    assert "ERROR" not in said
    assert place.is_file()
    assert application.versions()["numpy"] == "1.0"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"PIP_NO_INDEX": "", "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"}, "no connection"),
        (
            {"PIP_NO_INDEX": "", "PIP_INDEX_URL": "https://index.invalid/simple", "PIP_RETRIES": "0",
             "HTTPS_PROXY": "http://127.0.0.1:9"},
            "the proxy of this network",
        ),
        ({}, "no build"),
    ],
)  # fmt: skip
def test_failures_are_told_in_plain_words(application: Application, changes: dict[str, str], told: str) -> None:
    """No network, a proxy in the way, no package for this system: what it is, from pip's real log, and by hand."""
    application.pip("install", "torch==2.5", "numpy==1.0")
    said = application.ensure("absent>=3.1", **changes)
    assert told in said
    assert "try again" in said
    assert "slicer.util.pip_install('absent>=3.1 numpy==1.0')" in said


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("OSError: [Errno 28] No space left on device", "disk"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] self signed'", "certificate"),
        ("OSError: Tunnel connection failed: 407 Proxy Authentication Required", "proxy"),
        ("ERROR: Could not install packages due to an OSError: [WinError 5] Access is denied: 'C:\\x.pyd'", "access"),
        ("[WinError 5050] is no such thing", "other"),
        ("", "other"),
    ],
)  # fmt: skip
def test_causes(text: str, cause: str) -> None:
    """Words of failures that cannot be made here."""
    assert Install._cause(text) == cause


class Pip:
    """Stands for Slicer's pip functions and the extension PyTorch; `fail` makes the next call fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.there: dict[str, str] = {"numpy": "2.0.2", "scipy": "1.14"}
        self.calls: list[tuple[str, ...]] = []
        self.fail: Exception | None = None
        self.gives = True
        monkeypatch.setattr(Packages, "version", self.there.get)
        monkeypatch.setattr(Packages, "installed", lambda: {Packages.canonical(n): v for n, v in self.there.items()})
        monkeypatch.setattr(Packages, "damaged", lambda package: False)
        monkeypatch.setattr(Packages, "loaded", set)
        extension = types.ModuleType("PyTorchUtils")
        extension.__spec__ = ModuleSpec("PyTorchUtils", None)
        extension.PyTorchUtilsLogic = lambda: self  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "PyTorchUtils", extension)
        packaging = types.ModuleType("slicer.packaging")
        packaging.pip_install = self.pip_install  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "slicer.packaging", packaging)

    def _raise(self) -> None:
        error, self.fail = self.fail, None
        if error is not None:
            raise error

    def installTorch(self, askConfirmation: bool = False, torchVersionRequirement: str | None = None) -> object:
        """As the extension has it: None if nothing was installed."""
        self.calls.append(("torch", str(askConfirmation), str(torchVersionRequirement)))
        if not self.gives:
            return None
        self.there["torch"] = "2.6.0+cu126"
        self._raise()
        return object()

    def pip_install(self, requirements: list[str], constraints: Path, requester: str) -> None:
        """As Slicer 5.11 and later have it."""
        self.calls.append(("pip", *requirements, constraints.read_text()))
        self._raise()
        for line in requirements:
            name, _, least = line.partition(">=")
            if least:
                self.there[name] = least


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> Pip:
    """Nothing of ours is installed; the application is a new Slicer with the extension PyTorch."""
    return Pip(monkeypatch)


def no(_question: str) -> bool:
    """A user who declines."""
    return False


def test_one_question_says_what_and_how_large(pip: Pip) -> None:
    """One question for torch and all packages; then everything is installed, and nobody is asked again."""
    asked: list[str] = []
    Install.ensure(REQUIREMENTS, lambda question: not asked.append(question))  # type: ignore[func-returns-value]
    (question,) = asked
    for word in ("PyTorch", "3 GB", "50 MB", *map(Packages.name, Packages.requirements(REQUIREMENTS))):
        assert word in question
    assert [call[0] for call in pip.calls] == ["torch", "pip", "pip"]
    assert pip.calls[0] == ("torch", "False", Packages.TORCH)
    _, alone, others = pip.calls
    assert all("numpy==2.0.2\n" in call[-1] for call in (alone, others))
    assert "--no-deps" in alone
    assert "--no-deps" not in others
    assert "--only-binary" in set(alone) & set(others)
    assert {*Packages.requirements(REQUIREMENTS)} <= {*alone, *others}
    Install.ensure(REQUIREMENTS, no)
    assert len(pip.calls) == 3


def test_no_means_that_nothing_happens(pip: Pip) -> None:
    """Declined: nothing is installed, the way by hand is told, and the next try asks again."""
    with pytest.raises(SynthesisError, match="did not agree") as caught:
        Install.ensure(REQUIREMENTS, no)
    assert pip.calls == []
    assert "numpy==2.0.2" in caught.value.details
    assert f"installTorch(torchVersionRequirement='{Packages.TORCH}')" in caught.value.details
    Install.ensure(REQUIREMENTS, lambda question: True)
    assert not Install.incomplete(REQUIREMENTS)


def test_second_try_after_a_failure_installs_only_the_rest(pip: Pip) -> None:
    """pip fails once after torch is there: an error, and the next try goes on; a lock is not left behind."""

    def failing(_question: str) -> bool:
        pip.gives = True
        return True

    pip.gives = False
    with pytest.raises(SynthesisError):
        Install.ensure(REQUIREMENTS, lambda question: True)  # the extension gave None: nothing was installed
    assert [call[0] for call in pip.calls] == ["torch"]
    Install.ensure(REQUIREMENTS, failing)
    assert [call[0] for call in pip.calls] == ["torch", "torch", "pip", "pip"]
    del pip.there["nibabel"]
    pip.fail = subprocess.CalledProcessError(1, "pip install")
    with pytest.raises(SynthesisError, match="could not be installed") as caught:
        Install.ensure(REQUIREMENTS, lambda question: True)
    assert caught.value.kind == "machine"
    assert "nibabel>=" in caught.value.details
    Install.ensure(REQUIREMENTS, lambda question: True)
    assert [call[0] for call in pip.calls][4:] == ["pip", "pip"]


def test_torch_that_is_installed_but_does_not_load_here(pip: Pip) -> None:
    """The extension imports torch at its end; if that fails in Slicer's process, the child may still be able to."""
    pip.fail = OSError("[WinError 126] c10.dll")
    Install.ensure(REQUIREMENTS, lambda question: True)
    assert not Install.incomplete(REQUIREMENTS)


def test_extension_pytorch_is_missing(pip: Pip, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it nobody is asked, and the user is told where to get it; with torch there it is not needed."""
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    monkeypatch.setattr(Install.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SynthesisError, match="Extensions Manager"):
        Install.ensure(REQUIREMENTS, pytest.fail)
    pip.there["torch"] = "2.4"
    Install.ensure(REQUIREMENTS, lambda question: True)
    assert [call[0] for call in pip.calls] == ["pip", "pip"]


def test_older_slicer_has_another_pip(pip: Pip, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slicer 5.10 and before: `slicer.util.pip_install` with one list of arguments."""
    got: list[list[str]] = []

    def pip_install(requirements: list[str]) -> None:
        got.append(requirements)
        constraints = Path(requirements[requirements.index("--constraint") + 1])
        pip.pip_install([r for r in requirements if ">=" in r], constraints, "")

    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    monkeypatch.setattr(slicer.util, "pip_install", pip_install)
    Install.ensure(REQUIREMENTS, lambda question: True)
    assert ["--no-deps" in given for given in got] == [True, False]
    assert not Install.incomplete(REQUIREMENTS)


def test_nobody_is_asked_for_what_cannot_work(pip: Pip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder that cannot be written and a full disk are told before the question."""
    monkeypatch.setattr(Install.shutil, "disk_usage", lambda place: SimpleNamespace(free=900 * 2**20))
    with pytest.raises(SynthesisError, match="not enough space.*1180 MB"):
        Install.ensure(REQUIREMENTS, pytest.fail)
    monkeypatch.setattr(Install, "_sitePackages", lambda: Path("/proc/self"))
    if Path("/proc/self").is_dir():
        with pytest.raises(SynthesisError, match="cannot be written"):
            Install.ensure(REQUIREMENTS, pytest.fail)


def test_pressed_twice(pip: Pip) -> None:
    """Slicer handles events while pip runs: a second press asks nothing and breaks nothing."""

    def again(question: str) -> bool:
        with pytest.raises(SynthesisError, match="being installed"):
            Install.ensure(REQUIREMENTS, pytest.fail)
        return True

    Install.ensure(REQUIREMENTS, again)
    assert not Install.incomplete(REQUIREMENTS)


def test_environment_is_as_before(pip: Pip, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings for pip hold for pip alone; the user's own are respected, and constraints are added to theirs."""
    seen: list[dict[str, str]] = []
    monkeypatch.setenv("PIP_CONSTRAINT", "mine.txt")
    monkeypatch.setenv("PIP_RETRIES", "9")
    monkeypatch.delenv("PIP_LOG", raising=False)
    before = dict(os.environ)
    original: Callable[..., object] = pip.installTorch
    monkeypatch.setattr(pip, "installTorch", lambda **named: (seen.append(dict(os.environ)), original(**named))[1])
    Install.ensure(REQUIREMENTS, lambda question: True)
    assert seen[0]["PIP_CONSTRAINT"].startswith("mine.txt file:")
    assert seen[0]["PIP_RETRIES"] == "9"
    assert "PIP_LOG" in seen[0]
    assert dict(os.environ) == before


def test_nothing_at_import() -> None:
    """Importing the installer runs no pip, asks nothing, and loads none of the packages."""
    code = (
        "import sys, D3MSynthesisLib.Install\n"
        "print(sorted(m for m in ('torch', 'pip', 'nibabel', 'matplotlib.pyplot', 'typer') if m in sys.modules))"
    )
    environment = os.environ | {"PYTHONPATH": str(LIBRARY)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_a_package_whose_files_alone_are_read(application: Application) -> None:
    """deepbet comes without the user interface that it asks for (no such package is there), the others as usual."""
    said = application.ensure("deepbet>=1.0.2", "needy>=1.0")
    assert "ERROR" not in said
    assert application.versions()["deepbet"] == "1.0.2"
    assert "'--no-deps deepbet>=1.0.2'" in Install.byHand(["deepbet>=1.0.2", "needy>=1.0"], False)


def test_list_is_what_the_engine_needs() -> None:
    """requirements.txt names what pyproject.toml asks for, less torch, what Slicer ships, and the decoders of
    compressed DICOM files, which Slicer reads itself; in a form we can read."""
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = Packages.requirements(REQUIREMENTS)
    decoders = {"pyjpegls", "pylibjpeg", "pylibjpeg-openjpeg", "python-gdcm"}
    left = {*map(Packages.canonical, Install.SHIPPED), "torch", *decoders}
    assert set(lines) == {d for d in project["dependencies"] if Packages.canonical(Packages.name(d)) not in left}
    assert all(line.count(">=") == 1 and not set(line) & set(" ;,<!~[") for line in lines)
    training = Packages.requirements(CHECKOUT / "D3MTraining" / "Resources" / "training_requirements.txt")
    assert set(training) <= set(project["optional-dependencies"]["training"])


def test_whole_packages_are_not_damaged() -> None:
    """The packages of this environment, torch with its thousands of files among them, count as whole, and fast."""
    import time

    start = time.process_time()
    assert Install.missing(REQUIREMENTS) == []
    assert not Install.torchMissing()
    assert time.process_time() - start < 2
    assert Packages.unmet(["a-package-that-is-not-there>=1", "numpy>=99"]) == [
        "a-package-that-is-not-there>=1",
        "numpy>=99",
    ]
