"""README and documentation: short, their numbers those of the files, their links and commands real."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

import d3m
from d3m.commands.app import app
from d3m_benchmark.cli import app as benchmark_app
from d3m_training.cli import app as training_app

ROOT = Path(__file__).parents[2]
PROGRAMS = {"d3m": app, "d3m-training": training_app, "d3m-benchmark": benchmark_app}
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]


def names(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    """The headings of a page as they are linked to."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def commands() -> list[tuple[str, str]]:
    """Every line with one of the programs in the pages' blocks of code, and the page that it stands in."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"^```(?:bash)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            lines = block.replace("\\\n", " ").splitlines()
            found += [
                (names(page), line.strip()) for line in lines if re.match(r"\s*d3m(-training|-benchmark)? ", line)
            ]
    return found


def test_readme_is_short() -> None:
    """A page that is read in a minute: at most 7 kB."""
    assert (ROOT / "README.md").stat().st_size <= 7000


def test_numbers_are_those_of_the_files() -> None:
    """Tables and sentences say what card, comparison and sample say; the picture is one of this model."""
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "measured.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_links_lead_somewhere(page: Path) -> None:
    """Files exist, and so do the headings that links point to."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        other = (page.parent / file).resolve() if file else page
        assert other.exists(), f"{target} does not exist"
        if anchor and other.suffix == ".md":
            assert anchor in anchors(other), f"{target}: no such heading"


@pytest.mark.parametrize(("page", "line"), commands(), ids=str)
def test_commands_are_understood(page: str, line: str) -> None:
    """Each command that a page shows has the options that the program has."""
    program, *words = shlex.split(line, comments=True)
    words = [word for word in words if word != "..."]
    command: Any = typer.main.get_command(PROGRAMS[program])
    while words and hasattr(command, "commands"):
        name = words.pop(0)
        if name.startswith("-"):
            return  # --help and --version of the program itself
        assert name in command.commands, f"{page}: {program} has no command {name}"
        command = command.commands[name]
    with command.make_context(program, words, resilient_parsing="..." in line) as context:
        assert context.params is not None


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_python_examples_name_what_exists(page: Path) -> None:
    """Python that a page shows is Python, and what it takes from `d3m` is there."""
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        if "rule all:" in block:  # Snakemake
            continue
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "d3m":
                assert hasattr(d3m, node.attr), f"d3m.{node.attr}"
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "d3m":
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)
