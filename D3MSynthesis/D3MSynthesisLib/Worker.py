"""The engine as a child process: command line in, progress out, and an end that is certain.

A crash, too little memory or a cancel ends the child alone, never Slicer, and the memory of the GPU is free again.
In the application the process is a QProcess, whose signals arrive on the main thread; scripts and tests use a plain
subprocess, which is looked after by `Worker.poll` or `Worker.wait`. What is said and what it means is the same.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from D3MSynthesisLib.Child import (
    BOOTSTRAP,
    childEnvironment,
    engineFolder,
    explainEnd,
    findPython,
    parseEvent,
    signalTree,
)
from D3MSynthesisLib.Processes import MAX_LINE, PlainProcess, QtProcess, applicationQt

GRACE_S = 1.0
"""Time between asking the child to stop and killing it, so that a cancel is done within two seconds."""
LOG_CHARACTERS = 200_000
"""The end of the child's talk that is kept; a child gone mad must not fill Slicer's memory."""


@dataclass(frozen=True)
class Outcome:
    """How a child ended."""

    status: str
    """"done", "error" or "cancelled"."""
    kind: str = ""
    """Of an error: "input", "machine", "interrupted", or "defect"."""
    message: str = ""
    """What went wrong, in one sentence."""
    hint: str = ""
    """What to do about it, in one sentence."""
    details: str = ""
    """The end of the child's log."""
    exitCode: int | None = None
    output: str = ""
    """What was said on stdout, without the lines of progress."""
    notices: tuple[str, ...] = ()
    """What the child's last line says that one should know."""


class Worker:
    """One run of the engine at a time.

    Args:
        onEvent: Called with every JSON object that the child prints, on the main thread.
        onFinished: Called once with the outcome, on the main thread, after the last event.
        qt: The module `qt` to make the process a QProcess, False for a plain subprocess, None to choose:
            QProcess in the application.
    """

    def __init__(
        self, onEvent: Callable[[dict[str, Any]], None], onFinished: Callable[[Outcome], None], qt: Any = None
    ) -> None:
        self._onEvent = onEvent
        self._onFinished = onFinished
        self._qt = applicationQt() if qt is None else qt
        self._process: PlainProcess | QtProcess | None = None
        self._reset()

    def _reset(self) -> None:
        self._cancelled = False
        self._askedAt: float | None = None
        self._childPid: int | None = None
        self._last: dict[str, Any] = {}
        self._log: list[str] = []
        self._logSize = 0
        self._output: list[str] = []
        self._partial = ""

    @property
    def running(self) -> bool:
        """Whether a child is alive, or its end has not been told yet."""
        return self._process is not None

    @property
    def cancelling(self) -> bool:
        """Whether the child was asked to stop and has not ended yet."""
        return self.running and self._cancelled

    @property
    def log(self) -> str:
        """What the child wrote on stderr, and what it said on stdout that is no progress."""
        return "".join(self._log)

    def start(
        self,
        arguments: list[str],
        folder: Path,
        python: str | None = None,
        engine: Path | None = None,
        program: Path | None = None,
    ) -> None:
        """Start `d3m` with these arguments.

        Args:
            arguments: Without the program's name.
            folder: The run's own folder: the child works in it, and removes it if Slicer dies.
            python: Interpreter that the user chose.
            engine: Folder of the package, if not the one beside this.
            program: Folder of a package that is run instead and that uses the engine, such as `d3m_training`.

        Raises:
            RuntimeError: a child is running.
            OSError: the interpreter cannot be started.
        """
        if self.running:
            raise RuntimeError("A run is already running.")
        self._reset()
        interpreter = findPython(python)
        places = [str(engine or engineFolder()), str(program or ""), str(folder)]
        command = [interpreter, "-s", str(BOOTSTRAP), *places, str(os.getpid()), *arguments]
        environment = childEnvironment(interpreter)
        if self._qt:
            self._process = QtProcess(self._qt, self._stdout, self._stderr, self._ended)
        else:
            self._process = PlainProcess(self._stdout, self._stderr, self._ended)
        try:
            self._process.start(command, environment, str(folder))
        except OSError:
            self._process = None
            raise

    def cancel(self) -> None:
        """Ask the child to stop; it is killed with all its children if it has not ended a second later."""
        process = self._process
        if process is None or self._cancelled:
            return
        self._cancelled = True
        self._askedAt = time.monotonic()
        self._signal(kill=False)
        process.later(GRACE_S, self._killIfAlive)

    def _killIfAlive(self) -> None:
        if self._process is not None and self._cancelled:
            self._signal(kill=True)

    def _signal(self, kill: bool) -> None:
        if self._process is not None:
            signalTree({pid for pid in (self._childPid, self._process.pid()) if pid}, kill)
            if kill:
                self._process.kill()

    def poll(self) -> None:
        """Deliver what a plain subprocess has said so far; a QProcess does so by itself."""
        if self._process is not None:
            self._process.poll()

    def wait(self, timeout: float | None = None) -> bool:
        """Deliver everything until the child has ended.

        Returns:
            Whether it has ended.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while self._process is not None:
            self._process.poll(0.05)
            if until is not None and time.monotonic() > until:
                break
        return self._process is None

    def shutdown(self) -> None:
        """End the child now, at the latest in two seconds: Slicer or the scene is closing."""
        self.cancel()
        if not self.wait(GRACE_S):
            self._signal(kill=True)
            self.wait(GRACE_S)

    def _stdout(self, text: str) -> None:
        lines = (self._partial + text).split("\n")
        self._partial = lines.pop()[-MAX_LINE:]
        for line in lines:
            self._line(line)

    def _line(self, line: str) -> None:
        event = parseEvent(line)
        if event is None:
            if line.strip():
                self._output.append(line[:MAX_LINE])
                self._stderr(line + "\n")
            return
        if event["stage"] == "started":
            self._childPid = event["pid"] if isinstance(event.get("pid"), int) else None
            return
        self._last = event
        if not self._cancelled and event["stage"] not in ("done", "error"):
            self._onEvent(event)

    def _stderr(self, text: str) -> None:
        self._log.append(text)
        self._logSize += len(text)
        while self._logSize > LOG_CHARACTERS and len(self._log) > 1:
            self._logSize -= len(self._log.pop(0))

    def _ended(self, exitCode: int | None) -> None:
        if self._partial:
            self._line(self._partial)
            self._partial = ""
        self._signalRest()
        self._process = None
        self._onFinished(self._outcome(exitCode))

    def _signalRest(self) -> None:
        """Children that the child has left behind end too."""
        if self._childPid and os.name != "nt":
            with contextlib.suppress(OSError):
                os.killpg(self._childPid, signal.SIGKILL)

    def _outcome(self, exitCode: int | None) -> Outcome:
        common = {"details": self.log, "exitCode": exitCode, "output": "\n".join(self._output)}
        stage = self._last.get("stage")
        if self._cancelled:
            return Outcome("cancelled", "interrupted", "The synthesis was cancelled.", "", **common)
        if stage == "done" and exitCode == 0:
            said = self._last.get("notices")
            return Outcome("done", **common, notices=tuple(map(str, said)) if isinstance(said, list) else ())
        if stage == "error":
            texts = {name: str(self._last.get(name) or "") for name in ("kind", "message", "hint")}
            if exitCode == 1:
                texts["kind"] = "defect"
            return Outcome("error", **texts, **common)
        if exitCode == 0 and self._output and stage is None:
            return Outcome("done", **common)  # commands that print a text, such as `info --json`
        return Outcome("error", *explainEnd(exitCode, self.log), **common)
