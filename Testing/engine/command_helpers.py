"""Run the command line as a user does: a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import d3m

ENGINE = str(Path(d3m.__file__).parents[1])


def environment(**changes: str | None) -> dict[str, str]:
    """The environment of a child that finds the engine; None takes a variable away."""
    result = os.environ | {"PYTHONPATH": ENGINE, "OMP_NUM_THREADS": "1"}
    for name, value in changes.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = value
    return result


def start(*arguments: object, env: dict[str, str] | None = None, cwd: Path | None = None) -> subprocess.Popen[str]:
    """Start `d3m` with pipes for its output."""
    return subprocess.Popen(
        [sys.executable, "-m", "d3m", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=env or environment(),
        cwd=cwd,
    )


def d3m_command(
    *arguments: object, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `d3m` to its end."""
    process = start(*arguments, env=env, cwd=cwd)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def events(text: str) -> list[dict[str, object]]:
    """The JSON lines of a run; every line must be one."""
    return [json.loads(line) for line in text.splitlines()]
