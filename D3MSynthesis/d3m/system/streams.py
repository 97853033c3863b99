"""What a command finds around it, made harmless: streams that cannot be written, other programs' settings.

A log's full disk must not cost a result, nor may what Jupyter or an old profile exports for another program.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from typing import TextIO

from d3m.system.manifest import PARTIAL


class Lossy(io.RawIOBase):
    """A standard stream that swallows what it cannot write; that a reader is gone is still told.

    Args:
        descriptor: 1 or 2.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.lost: OSError | None = None
        """Why something could not be written."""

    def writable(self) -> bool:
        """It is there to be written."""
        return True

    def fileno(self) -> int:
        """Of the file below."""
        return self.descriptor

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self.descriptor)

    def write(self, data: object) -> int:
        """Write, or do as if.

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        content = memoryview(data)  # type: ignore[arg-type]
        while self.lost is None:
            try:
                return os.write(self.descriptor, content)
            except BrokenPipeError:
                raise
            except BlockingIOError:  # a pipe that its reader made so
                select.select([], [self.descriptor], [])
            except OSError as error:
                self.lost = error
        return len(content)


def open_streams() -> None:
    """Give the process standard streams that are open and cannot fail.

    Where its caller closed one, the next file that is opened would get its number, and what a library prints would
    land in it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.dup(number), "w" if number else "r"))
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):
            continue
        if sys.platform == "win32":  # there a console is no file
            stream.reconfigure(errors="backslashreplace")
        elif _number(stream) == number:
            with contextlib.suppress(OSError):
                stream.flush()
            setattr(sys, name, _wrapped(number, stream))


def _wrapped(number: int, stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """A console that cannot show a path's characters must not fail a run either."""
    raw = Lossy(number)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=raw.isatty() or number == 2,
    )


def _number(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


def lost_output() -> OSError | None:
    """Why something that was printed on stdout could not be written, or None."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.lost if isinstance(raw, Lossy) else None


def calm_environment() -> None:
    """Take away what other programs' settings would do to the libraries that a command uses."""
    os.environ["MPLBACKEND"] = "agg"  # figures are files; Jupyter's backend is not installed everywhere
    if sys.platform != "win32":
        os.environ["MATPLOTLIBRC"] = os.devnull  # a user's style, or an old file that today's version refuses
    # Threads that wait for each other in a busy loop are twenty times slower when another program has one of the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if any(option.startswith("e") for option in sys.warnoptions):  # PYTHONWARNINGS=error: meant for tests of a program
        os.environ.pop("PYTHONWARNINGS", None)
        sys.warnoptions.clear()
        warnings.resetwarnings()
        for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", kind)


@contextlib.contextmanager
def scratch_beside(out: Path) -> Iterator[None]:
    """Give libraries a place for temporary files where the system's cannot be written: beside the output, or in it.

    matplotlib cannot even be imported without one. The place goes away with the block.

    Args:
        out: Of the command; what is wrong with it is said later, by who writes it.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        place = next((p for p in (out.absolute().parent, out.absolute()) if os.access(p, os.W_OK | os.X_OK)), None)
    else:
        place = None
    if place is None:
        yield
        return
    try:
        folder = tempfile.mkdtemp(prefix=f"{PARTIAL}scratch-", dir=place)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC):
            raise
        yield
        return
    before = {name: os.environ.get(name) for name in ("TMPDIR", "MPLCONFIGDIR")}
    os.environ |= {"TMPDIR": folder, "MPLCONFIGDIR": folder}
    tempfile.tempdir = folder
    try:
        yield
    finally:
        tempfile.tempdir = None
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        rmtree(folder, ignore_errors=True)
