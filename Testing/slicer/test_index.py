"""What Slicer's Extensions Index checks of an extension and of its entry, as tests of our own; no network."""

from __future__ import annotations

import ast
import json
import re
import struct
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
ENTRY = CHECKOUT / "Resources" / "D3M.json"
CMAKE = (CHECKOUT / "CMakeLists.txt").read_text(encoding="utf-8")
PAGE = "https://github.com/SlicerD3M/SlicerD3M"
RAW = "https://raw.githubusercontent.com/SlicerD3M/SlicerD3M/main/"
SCHEMA = {
    "$schema": str, "category": str, "scm_url": str, "scm_revision": str, "scm_type": str, "build_dependencies": list,
    "build_subdirectory": str, "enabled": bool, "tier": int,
}  # fmt: skip
"""Keys of the entry by schema 1.0.1, which allows no others."""
REQUIRED = {"$schema", "category", "scm_url"}
SHIPPED = {"slicer", "vtk", "qt", "ctk", "SimpleITK", "numpy", "scipy"}
"""What a module's file may import when Slicer starts, besides the standard library."""
OWN = {"D3MSynthesis", "D3MSynthesisLib", "D3MTraining"}
TORCH_FREE = {"d3m.errors", "d3m.progress", "d3m.results.ours"}
"""Of the engine; they import the standard library alone."""
LIMIT_FILES = 80 * 2**20
LIMIT_HISTORY = 250 * 2**20

MODULE_FILES = [
    CHECKOUT / "D3MSynthesis" / "D3MSynthesis.py",
    CHECKOUT / "D3MTraining" / "D3MTraining.py",
    *(
        path
        for path in sorted((CHECKOUT / "D3MSynthesis" / "D3MSynthesisLib").glob("*.py"))
        if path.name != "bootstrap.py"
    ),
]
"""Files that Slicer's own process imports; engine, training and their bootstrap run in processes of their own."""


def entry() -> dict[str, object]:
    """The entry for the Extensions Index."""
    return dict(json.loads(ENTRY.read_text(encoding="utf-8")))


def setting(name: str) -> str:
    """A setting of the top CMakeLists.txt, which must stand on one line, as the index reads it."""
    (value,) = re.findall(rf'^set\({name} "([^"\n]+)"\)$', CMAKE, re.MULTILINE)
    return str(value)


def git(*arguments: str) -> str:
    """Ask git about this checkout."""
    done = subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("this is not a git checkout")
    return done.stdout


def test_entry_follows_the_schema() -> None:
    """Line ends, keys and types; a category that the index knows; a version of the schema that it accepts."""
    text = ENTRY.read_bytes()
    assert b"\r" not in text
    assert text.endswith(b"}\n")
    content = entry()
    assert set(content) >= REQUIRED
    assert set(content) <= set(SCHEMA)
    assert all(type(value) is SCHEMA[key] for key, value in content.items())
    assert "slicer-extension-catalog-entry-schema-v1.0.1.json" in str(content["$schema"])
    assert content["category"] == setting("EXTENSION_CATEGORY") == "Image Synthesis"
    assert content["tier"] in (1, 3, 5)


def test_names() -> None:
    """The extension's name has no "Slicer" in front, the repository's has; the project is called as the entry."""
    assert not ENTRY.stem.startswith("Slicer")
    assert re.findall(r"project\s*\(\s*([^\s)]+)", CMAKE, re.IGNORECASE)[0] == ENTRY.stem
    address = urlsplit(str(entry()["scm_url"]))
    assert address.scheme == "https"
    assert re.match(r"Slicer", address.path.split("/")[-1])
    assert entry()["scm_url"] == setting("EXTENSION_HOMEPAGE") == PAGE
    assert entry()["build_dependencies"] == setting("EXTENSION_DEPENDS").split()


def test_description_is_for_people() -> None:
    """A few sentences on one line that say what it is for, its licences, and what is known about patents."""
    text = setting("EXTENSION_DESCRIPTION")
    for words in ("synthetic", "research use only", "Apache License 2.0", "CC BY-NC 4.0", "patents are known"):
        assert words in text
    assert ";" not in text  # Slicer's packaging passes it on unquoted, and CMake would cut it there
    assert len(text) < 700
    assert setting("EXTENSION_CONTRIBUTORS")


def png_size(path: Path) -> tuple[int, int]:
    """Width and height of a PNG file."""
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def test_pictures_exist() -> None:
    """Icon and screenshots lie where their addresses say, as PNG; both modules have an icon of their own."""
    (icon,), screenshots = setting("EXTENSION_ICONURL").split(), setting("EXTENSION_SCREENSHOTURLS").split()
    assert all(address.startswith(RAW) for address in (icon, *screenshots))
    assert png_size(CHECKOUT / icon.removeprefix(RAW)) == (128, 128)
    assert all(min(png_size(CHECKOUT / address.removeprefix(RAW))) >= 400 for address in screenshots)
    film = CHECKOUT / "Resources/Screenshots/panel.gif"
    assert film.stat().st_size <= 3_000_000, "it is loaded with the page"
    for name in ("D3MSynthesis", "D3MTraining"):
        assert png_size(CHECKOUT / name / "Resources" / "Icons" / f"{name}.png") == (128, 128)


def test_addresses_of_this_project_exist() -> None:
    """Every address below our page, in any text of the project, names a file or folder that is in the tree."""
    pattern = re.compile(rf"(?:{re.escape(PAGE)}/(?:blob|tree|raw)/main/|{re.escape(RAW)})([\w./%-]+)")
    found = 0
    for name in git("ls-files").splitlines():
        path = CHECKOUT / name
        if path.suffix in (".py", ".md", ".txt", ".toml", ".cff", ".json", ".ui", ".cmake") and path.is_file():
            for target in pattern.findall(path.read_text(encoding="utf-8")):
                found += 1
                assert (CHECKOUT / target.rstrip(".")).exists(), f"{name}: {target}"
    assert found >= 2


def test_licence() -> None:
    """A licence in the root, the one that the page, the package and the description name."""
    text = (CHECKOUT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0" in text
    assert "Apache" in (CHECKOUT / "README.md").read_text(encoding="utf-8")
    assert 'license = "Apache-2.0"' in (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")


def test_size() -> None:
    """Files, and history: models in it count, each object once."""
    files = sum(
        (CHECKOUT / name).stat().st_size for name in git("ls-files").splitlines() if (CHECKOUT / name).is_file()
    )
    # Not count-objects: it counts an object as often as this checkout's packs happen to hold it.
    history = int(git("rev-list", "--objects", "--disk-usage", "HEAD"))
    assert 0 < history < LIMIT_HISTORY
    assert files < LIMIT_FILES


def at_file_scope(tree: ast.Module) -> list[ast.stmt]:
    """Statements that are run when a file is imported, those inside if and try included, those of functions not."""
    found: list[ast.stmt] = []
    left: list[ast.stmt] = list(tree.body)
    while left:
        statement = left.pop()
        found.append(statement)
        if isinstance(statement, (ast.If, ast.Try, ast.With, ast.For, ast.While, ast.ClassDef)):
            for name in ("body", "orelse", "finalbody"):
                left += getattr(statement, name, [])
            for handler in getattr(statement, "handlers", []):
                left += handler.body
    return found


@pytest.mark.parametrize("path", MODULE_FILES, ids=lambda path: path.name)
def test_nothing_foreign_and_nothing_done_at_import(path: Path) -> None:
    """At Slicer's start only what Slicer has is imported, and nothing is called but what makes classes."""
    for statement in at_file_scope(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom) and statement.level == 0:
            names = [str(statement.module)]
        for name in names:
            known = name in TORCH_FREE or name.split(".")[0] in SHIPPED | OWN | sys.stdlib_module_names
            assert known, f"line {statement.lineno}: {name}"
        assert not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)), statement.lineno


def test_torch_comes_through_its_extension_alone() -> None:
    """pip is called in one file; it is never asked for torch, and no list of packages names torch."""
    callers = [path.name for path in MODULE_FILES if "pip_install" in path.read_text(encoding="utf-8")]
    assert callers == ["Install.py"]
    tree = ast.parse((CHECKOUT / "D3MSynthesis" / "D3MSynthesisLib" / "Install.py").read_text(encoding="utf-8"))
    called = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    pips = [node for node in called if ast.unparse(node.func).endswith(("pip_install", "_pipInstall"))]
    assert pips
    assert not [node for node in pips if "torch" in ast.unparse(node)]
    for place in ("D3MSynthesis/Resources/requirements.txt", "D3MTraining/Resources/training_requirements.txt"):
        assert not re.search(r"^torch", (CHECKOUT / place).read_text(encoding="utf-8"), re.MULTILINE)


def test_page_has_what_the_index_wants() -> None:
    """Summary, picture that exists, research use, method and how to cite, licence, that nothing is sent."""
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    assert text.startswith("# ")
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert pictures
    for target in [*pictures, *re.findall(r"(?<!!)\[[^\]]*\]\(([^)#:]+)\)", text)]:
        assert (CHECKOUT / target).exists(), target
    for words in ("research", "MICCAI 2025", "Nothing is sent", "Licence", "cit"):
        assert words in text, words
