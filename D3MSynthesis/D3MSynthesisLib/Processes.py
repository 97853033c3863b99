"""One child process that is read while it runs: a plain subprocess, or a QProcess in the application."""

from __future__ import annotations

import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

from D3MSynthesisLib.Child import NO_WINDOW

MAX_LINE = 1 << 20
"""Characters of one line that are kept: a child gone mad must not fill Slicer's memory."""


def applicationQt() -> Any:
    """The module `qt` inside the application, else None."""
    try:
        import qt

        import slicer
    except ImportError:
        return None
    return qt if hasattr(slicer, "app") and hasattr(qt, "QProcess") else None


class PlainProcess:
    """A subprocess; two threads read it, and everything is delivered by `poll`."""

    def __init__(
        self, onStdout: Callable[[str], None], onStderr: Callable[[str], None], onEnd: Callable[[int | None], None]
    ) -> None:
        self._onText = {"out": onStdout, "err": onStderr}
        self._onEnd = onEnd
        self._queue: queue.Queue[tuple[str, str]] = queue.Queue()
        self._open = 2
        self._timers: list[tuple[float, Callable[[], None]]] = []

    def start(self, command: list[str], environment: dict[str, str], folder: str) -> None:
        self._child = subprocess.Popen(
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, encoding="utf-8", errors="replace", start_new_session=os.name != "nt",
            creationflags=NO_WINDOW,
        )  # fmt: skip
        for name, stream in (("out", self._child.stdout), ("err", self._child.stderr)):
            threading.Thread(target=self._read, args=(name, stream), daemon=True).start()

    def _read(self, name: str, stream: Any) -> None:
        while text := stream.readline(MAX_LINE):
            self._queue.put((name, text))
        self._queue.put(("end", name))

    def pid(self) -> int | None:
        return self._child.pid

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        self._timers.append((time.monotonic() + seconds, action))

    def kill(self) -> None:
        self._child.kill()

    def poll(self, patience: float = 0.0) -> None:
        """Deliver what has come; wait `patience` seconds for the first piece."""
        for timer in [timer for timer in self._timers if timer[0] <= time.monotonic()]:
            self._timers.remove(timer)
            timer[1]()
        try:
            item = self._queue.get(timeout=patience) if patience else self._queue.get_nowait()
            while True:
                if item[0] == "end":
                    self._open -= 1
                else:
                    self._onText[item[0]](item[1])
                item = self._queue.get_nowait()
        except queue.Empty:
            pass
        # A grandchild may hold the pipes open after the child has ended: then the end counts, not the pipes.
        code = self._child.poll()
        if code is not None and (self._open <= 0 or (self._queue.empty() and self._sinceEnd() > 0.2)):
            for stream in (self._child.stdout, self._child.stderr):
                if self._open <= 0 and stream is not None:
                    stream.close()
            self._onEnd(code)

    def _sinceEnd(self) -> float:
        self._endedAt: float = getattr(self, "_endedAt", time.monotonic())
        return time.monotonic() - self._endedAt


class QtProcess:
    """A QProcess, for the application: its signals come on the main thread, in every version of Slicer."""

    def __init__(
        self,
        qt: Any,
        onStdout: Callable[[str], None],
        onStderr: Callable[[str], None],
        onEnd: Callable[[int | None], None],
    ) -> None:
        self._qt = qt
        self._onStdout, self._onStderr, self._onEnd = onStdout, onStderr, onEnd
        self._decoders = {name: _decoder() for name in ("out", "err")}
        self._done = False

    def start(self, command: list[str], environment: dict[str, str], folder: str) -> None:
        qt = self._qt
        self._process = qt.QProcess()
        variables = qt.QProcessEnvironment()
        for name, value in environment.items():
            variables.insert(name, value)
        self._process.setProcessEnvironment(variables)
        self._process.setWorkingDirectory(folder)
        self._process.connect("readyReadStandardOutput()", self._readOut)
        self._process.connect("readyReadStandardError()", self._readErr)
        self._process.connect("finished(int,QProcess::ExitStatus)", self._finished)
        self._process.start(command[0], command[1:])
        self._process.closeWriteChannel()  # whoever asks something on stdin meets its end, instead of waiting for ever
        if not self._process.waitForStarted(10000):
            raise OSError("the interpreter cannot be started")

    def _readOut(self) -> None:
        self._onStdout(self._decoders["out"].decode(_bytes(self._process.readAllStandardOutput())))

    def _readErr(self) -> None:
        self._onStderr(self._decoders["err"].decode(_bytes(self._process.readAllStandardError())))

    def _finished(self, exitCode: int = 0, exitStatus: Any = 0) -> None:
        if self._done:
            return
        self._done = True
        self._readOut()
        self._readErr()
        crashed = int(getattr(exitStatus, "value", exitStatus)) != 0
        self._onEnd(-int(exitCode) if crashed and int(exitCode) > 0 else int(exitCode))
        self._process.deleteLater()  # it holds the methods that its signals call, and they hold it

    def pid(self) -> int | None:
        number = self._process.processId
        return int(number() if callable(number) else number) or None

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        self._qt.QTimer.singleShot(int(seconds * 1000), action)

    def kill(self) -> None:
        self._process.kill()

    def poll(self, patience: float = 0.0) -> None:
        if patience and not self._done and self._process.waitForFinished(int(patience * 1000)) and not self._done:
            self._finished(self._process.exitCode(), self._process.exitStatus())


def _decoder() -> Any:
    """A decoder that waits for the rest of a character that was cut between two pieces."""
    import codecs

    return codecs.getincrementaldecoder("utf-8")(errors="replace")


def _bytes(array: Any) -> bytes:
    """The bytes of a QByteArray, in PythonQt as in PySide."""
    data = array.data()
    return data.encode("utf-8", "surrogateescape") if isinstance(data, str) else bytes(data)
