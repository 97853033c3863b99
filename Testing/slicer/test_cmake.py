"""The CMake lists name every file that must be installed, and the folder that they install works."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

CHECKOUT = Path(__file__).resolve().parents[2]
MODULES = ("D3MSynthesis", "D3MTraining")
NOT_INSTALLED = {"CMakeLists.txt"}
SHARED = ("Models", "SampleData")
"""Folders of the top-level Resources that are installed; the others belong to the repository's page."""


def lists(module: str) -> dict[str, list[str]]:
    """Every `set(NAME file ...)` of a module's CMakeLists.txt."""
    text = (CHECKOUT / module / "CMakeLists.txt").read_text(encoding="utf-8")
    text = re.sub(r"#.*", "", text)
    found = {name: files.split() for name, files in re.findall(r"set\((\w+)\s+([^)]*)\)", text)}
    for name, patterns in re.findall(r"file\(GLOB_RECURSE (\w+) RELATIVE \S+ CONFIGURE_DEPENDS ([^)]*)\)", text):
        folder = CHECKOUT / module
        globbed = [path.relative_to(folder).as_posix() for pattern in patterns.split()
                   for path in (folder / pattern).parent.rglob(Path(pattern).name)]  # fmt: skip
        for files in found.values():
            if f"${{{name}}}" in files:
                files.remove(f"${{{name}}}")
                files.extend(sorted(globbed))
    return found


def tracked(*folders: str) -> set[str]:
    """Files of these folders that git knows, or all but caches where there is no git; relative to the checkout."""
    command = ["git", "ls-files", *folders]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return {name for name in done.stdout.splitlines() if (CHECKOUT / name).is_file()}
    files = (path for folder in folders for path in (CHECKOUT / folder).rglob("*") if path.is_file())
    return {path.relative_to(CHECKOUT).as_posix() for path in files if "__pycache__" not in path.parts}


@pytest.mark.parametrize("module", MODULES)
def test_lists_and_tree_agree(module: str) -> None:
    """What is not listed works from the sources and is absent from the package; what is listed too much stops CMake."""
    found = lists(module)
    scripts, resources = found["MODULE_PYTHON_SCRIPTS"], found["MODULE_PYTHON_RESOURCES"]
    files = {name.removeprefix(f"{module}/") for name in tracked(module)} - NOT_INSTALLED
    assert set(scripts) | set(resources) == files
    assert all(name.endswith(".py") for name in scripts)  # CTK adds .py to anything else
    assert resources == sorted(resources), "sorted, so that two people's additions do not collide"
    for names in (scripts, resources):
        assert len(names) == len(set(names))


def test_shared_resources_agree() -> None:
    """The default model and the sample case are listed, all of them."""
    listed = lists("D3MSynthesis")["SHARED_RESOURCES"]
    files = tracked(*(f"Resources/{name}" for name in SHARED))
    assert {f"Resources/{name}" for name in listed} == files


def test_modules_do_not_overwrite_each_other() -> None:
    """Both modules land in one folder: no file comes from two, and no top-level name is one that others use."""
    places = [name for module in MODULES for key in ("MODULE_PYTHON_SCRIPTS", "MODULE_PYTHON_RESOURCES")
              for name in lists(module)[key]]  # fmt: skip
    places += [f"Resources/{name}" for name in lists("D3MSynthesis")["SHARED_RESOURCES"]]
    assert len(places) == len({name.lower() for name in places})
    tops = {name.split("/")[0] for name in places} - {"Resources"}
    assert tops == {"D3MSynthesis.py", "D3MSynthesisLib", "d3m", "D3MTraining.py", "d3m_training"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configured, built and installed by CMake with a stand-in for Slicer's macros; the folder of build and prefix."""
    own = Path(sys.executable).parent / ("cmake.exe" if os.name == "nt" else "cmake")
    cmake = str(own) if own.is_file() else shutil.which("cmake")
    if cmake is None or shutil.which("make") is None:
        pytest.skip("CMake and make are needed")
    place = tmp_path_factory.mktemp("cmake")
    build, prefix = place / "build", place / "prefix"
    languages = [
        f"-DCMAKE_{language}_{setting}"
        for language in ("C", "CXX")  # our project has them, by default, but
        for setting in (f"COMPILER={sys.executable}", "COMPILER_FORCED=1", "COMPILER_ID_RUN=1")
    ]  # needs none
    host = Path(__file__).parent / "cmake_host"
    for command in (
        [cmake, "-G", "Unix Makefiles", "-S", str(CHECKOUT), "-B", str(build), f"-DSlicer_DIR={host}", *languages],
        [cmake, "--build", str(build)],
        [cmake, "--install", str(build), "--prefix", str(prefix)],
    ):  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
    return place


@pytest.fixture(scope="module")
def layout(installed: Path) -> Path:
    """The flat folder of modules, as it lies in an installed Slicer."""
    return installed / "prefix" / "lib" / "Slicer-5.13" / "qt-scripted-modules"


def in_layout(layout: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python far from the checkout, with the installed folder alone on its path."""
    environment = os.environ | {"PYTHONPATH": str(layout), "OMP_NUM_THREADS": "1", "D3M_MODELS": str(layout / "none")}
    command = [sys.executable, "-P" if sys.version_info >= (3, 11) else "-B", *map(str, arguments)]
    done = subprocess.run(command, env=environment, cwd=layout.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


def test_installed_layout_is_complete(installed: Path, layout: Path) -> None:
    """Every file of both modules is there once, nothing else is, and Slicer's packaging found all it reads."""
    files = {path.relative_to(layout).as_posix() for path in layout.rglob("*")
             if path.is_file() and "__pycache__" not in path.parts}  # fmt: skip
    expected = {name.split("/", 1)[1] for name in tracked(*MODULES)} - NOT_INSTALLED
    expected |= tracked(*(f"Resources/{name}" for name in SHARED))
    assert files == expected
    for name in ("Resources/Models/default/weights.safetensors", "Resources/SampleData/sample_t1.nii.gz"):
        assert (layout / name).read_bytes() == (CHECKOUT / name).read_bytes()
    described = dict(line.split("\t") for line in (installed / "build" / "description.txt").read_text().splitlines())
    entry = json.loads((CHECKOUT / "Resources" / "D3M.json").read_text(encoding="utf-8"))
    assert described["CATEGORY"] == entry["category"]
    assert described["DEPENDS"].split() == entry["build_dependencies"]
    assert described["HOMEPAGE"] == entry["scm_url"]
    tests = (installed / "build" / "tests.txt").read_text().split()
    assert sorted(tests) == ["D3MSynthesis.py", "D3MTraining.py"]


def test_model_and_sample_are_found_there(layout: Path) -> None:
    """The engine takes model and sample from the installed folder, and names no place of the checkout."""
    code = (
        "import d3m, d3m_training; from d3m.models import store; from D3MSynthesisLib import Child\n"
        "print(d3m.__file__, d3m_training.__file__, store.find_model(), store.find_sample().t1, Child.engineFolder(),\n"
        "      sep='\\n')"
    )
    paths = in_layout(layout, "-c", code).stdout.split("\n")[:5]
    assert [Path(path).resolve().relative_to(layout.resolve()).as_posix() for path in paths] == [
        "d3m/__init__.py",
        "d3m_training/__init__.py",
        "Resources/Models/default",
        "Resources/SampleData/sample_t1.nii.gz",
        "d3m",
    ]


def test_commands_run_there(layout: Path) -> None:
    """`python -m d3m info` lists the default model; the training, which finds the engine beside it, checks a cache."""
    assert "model default" in in_layout(layout, "-m", "d3m", "info").stdout
    code = (
        "import pkgutil, importlib, d3m, d3m_training\n"
        "for package in (d3m, d3m_training):\n"
        "    for found in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if not found.name.endswith('__main__'):\n"
        "            try:\n"
        "                importlib.import_module(found.name)\n"
        "            except ModuleNotFoundError as error:\n"
        "                assert error.name.split('.')[0] not in ('d3m', 'd3m_training'), error\n"
    )
    in_layout(layout, "-c", code)


def test_training_runs_there_through_the_worker(layout: Path, tmp_path: Path) -> None:
    """As the module D3MTraining starts it: a child with a clean environment that is given both folders."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from D3MSynthesisLib.Worker import Worker\n"
        "ends = []\n"
        "worker = Worker(print, ends.append, qt=False)\n"
        "place = Path(sys.argv[1])\n"
        "arguments = ['train', '--cache', str(place / 'none'), '--out', str(place / 'run'), '--progress', 'json']\n"
        "worker.start(arguments, place, program=Path(sys.argv[2]) / 'd3m_training')\n"
        "worker.wait()\n"
        "print(ends[0].kind, ends[0].message)\n"
    )
    assert "input The cache is not prepared." in in_layout(layout, "-c", code, tmp_path, layout).stdout
