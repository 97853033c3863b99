"""How a command talks: progress as a bar or as JSON lines, errors as one sentence, ends that leave nothing behind."""

from __future__ import annotations

import _thread
import contextlib
import gc
import itertools
import json
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib import metadata
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bar

from d3m.errors import EXIT_CODES, D3MError, Notice, is_out_of_memory
from d3m.progress import Progress
from d3m.system.limits import check_memory, free_memory
from d3m.system.processes import alive
from d3m.system.storage import OF_THE_MACHINE, disk_error
from d3m.system.streams import calm_environment, lost_output, open_streams
from d3m.system.text import for_terminal, plain

ProgressMode = Literal["auto", "json", "none"]
PARENT_POLL_S = 0.5
GRACE_S = 5.0
"""Time for the main thread to clean up before the process is ended without it."""
INTERRUPTED = "The run was stopped."
AMPLE_MEMORY = 4 * 2**30
"""Bytes that are free where torch is loaded beside something else."""
LEAST_MEMORY = int(1.2 * 2**30)
"""Bytes of address space that loading torch and the libraries beside it takes, with a margin: 1.05 GiB on Linux."""
YOUNG_OBJECTS = 50_000
"""Objects after which Python looks for garbage: at its usual 700 imports alone are half a second of looking."""
DISTRIBUTION, SOURCE = "slicer-d3m", "git+https://github.com/SlicerD3M/SlicerD3M"
DEVELOPERS = ("docs", "test")
"""Extras that nobody needs for running it."""


class Reporter:
    """Tells a person or a program how a command goes.

    Args:
        mode: "auto" draws a bar on a terminal and says little elsewhere, "json" prints one object a line on
            stdout, "none" is silent but for notices and errors.
    """

    def __init__(self, mode: ProgressMode) -> None:
        self.json, self.auto = mode == "json", mode == "auto"
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.stopping = False
        """A signal asked for the end; libraries sometimes swallow the exception that it became."""
        self._stage = ""
        self._bar: Bar | None = None
        if mode == "auto" and self.console.is_terminal:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[left]}"),
            )
            self._bar = Bar(*columns, console=self.console, transient=True)
            self._task = self._bar.add_task("", total=1.0, left="")
        self._plain = mode == "auto" and self._bar is None

    def progress(self, event: Progress) -> None:
        """Show one event.

        Raises:
            KeyboardInterrupt: a signal asked for the end meanwhile.
        """
        if self.stopping:
            raise KeyboardInterrupt
        if self.json:
            self._line(asdict(event) | {"message": plain(event.message)})
        elif self._bar is not None:
            self._bar.start()
            left = "" if event.eta_s is None else f"{event.eta_s:.0f} s left"
            shown = for_terminal(event.message or event.stage)
            self._bar.update(self._task, completed=event.fraction, description=shown, left=left)
        elif self._plain and event.stage != self._stage:
            self.say(event.message or event.stage)
        self._stage = event.stage

    def notice(self, notice: Notice) -> None:
        """Show a warning on stderr."""
        self.console.print(f"[yellow]Notice:[/yellow] {escape(for_terminal(notice.message))}")

    def say(self, text: str) -> None:
        """Show a line on stderr, whatever it holds."""
        self.console.print(for_terminal(text), markup=False)

    def done(self, **fields: object) -> None:
        """Say that the command has ended well."""
        self.stop()
        if self.json:
            self._line({"stage": "done", **fields})

    def failed(self, error: D3MError) -> None:
        """Say what went wrong and how to put it right."""
        self.stop()
        if self.json:
            try:
                told = {"message": plain(error.message), "hint": plain(error.hint)}
                self._line({"stage": "error", "kind": error.kind, **told})
            except OSError:  # nobody is listening any more
                _silence()
        with contextlib.suppress(OSError):
            sys.stderr.write(
                f"Error: {for_terminal(error)}\n"
            )  # not through rich, which would import more when memory has run out

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def _line(self, content: dict[str, object]) -> None:
        sys.stdout.write(json.dumps(content, ensure_ascii=True) + "\n")
        sys.stdout.flush()


@contextlib.contextmanager
def session(reporter: Reporter, parent_pid: int | None = None) -> Iterator[None]:
    """Run a command's work: signals and errors become messages and exit codes.

    Args:
        reporter: Tells them.
        parent_pid: The run ends when this process is gone.

    Raises:
        SystemExit: with the exit code of `d3m.errors.EXIT_CODES`, or 1 for a defect of ours.
    """

    def interrupted(_: int, __: FrameType | None) -> None:
        if not reporter.stopping:  # a second signal must not disturb the cleaning up after the first
            reporter.stopping = True
            raise KeyboardInterrupt  # not an Exception: libraries that are being imported catch those

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, interrupted) for number in (signal.SIGTERM, signal.SIGINT)}
    if parent_pid is not None:
        threading.Thread(target=_end_with, args=(parent_pid, os.getppid() == parent_pid), daemon=True).start()
    try:
        _check_environment()
        yield
    except D3MError as error:
        reporter.failed(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        reporter.failed(D3MError(INTERRUPTED, "", "interrupted"))
        sys.exit(130)
    except BrokenPipeError:
        _silence()
        sys.exit(130)  # whoever read our progress is gone
    except Exception as defect:
        if is_out_of_memory(defect):
            hint = "Close other programs, use --quality preview, leave out --trace, or use another machine."
            reporter.failed(D3MError("Not enough memory on this machine.", hint, "machine"))
            sys.exit(EXIT_CODES["machine"])
        if _of_a_package(defect):
            reporter.failed(_unusable_package(defect))
            sys.exit(EXIT_CODES["machine"])
        if isinstance(defect, PermissionError) and defect.filename:
            message = f"A file or folder cannot be used ({defect.strerror}: {plain(defect.filename)!r})."
            reporter.failed(D3MError(message, "Change its permissions, or choose another one.", "machine"))
            sys.exit(EXIT_CODES["machine"])
        if isinstance(defect, OSError) and defect.errno in OF_THE_MACHINE:
            reporter.failed(disk_error(defect))
            sys.exit(EXIT_CODES["machine"])
        traceback.print_exc()
        message = f"The program has a defect ({type(defect).__name__})."
        reporter.failed(D3MError(message, "Please report it with the text above.", "machine"))
        sys.exit(1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _silence() -> None:
    """Throw away what still waits to be printed: Python would complain when it cannot at the end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_program(app: Callable[..., object], name: str, prints: Sequence[str] = ()) -> None:
    """A command's entry point: its streams and its environment made harmless, then the command.

    Args:
        app: The command line.
        name: Of the program.
        prints: Arguments that show that what is printed is all that is made: it is an error then if that is lost.

    Raises:
        SystemExit: always, with the exit code.
    """
    calm_environment()
    open_streams()
    gc.set_threshold(YOUNG_OBJECTS)
    try:
        app(prog_name=name)
    except SystemExit as end:
        tell_wrong_usage(end, sys.argv[1:])
        lost = lost_output()
        if lost is None:
            raise
        sys.stderr.write(f"Notice: what was printed could not be written ({lost.strerror}); see where it goes.\n")
        if not end.code and any(argument in prints for argument in sys.argv[1:]):
            sys.exit(EXIT_CODES["machine"])
        raise
    finally:
        gc.freeze()  # at its end Python would look for garbage in all that was imported, for half a second


def tell_wrong_usage(end: SystemExit, arguments: Sequence[str]) -> None:
    """Say as JSON, where that was asked for, that the options were wrong; the text on stderr was for a person.

    Args:
        end: What the parser of the command line raised.
        arguments: Of the command line.
    """
    asked = "--progress=json" in arguments or "--json" in arguments
    asked = asked or any(pair == ("--progress", "json") for pair in itertools.pairwise(arguments))
    explain = getattr(end.__context__, "format_message", None)
    if asked and end.code and explain is not None:
        error = {"stage": "error", "kind": "input", "message": explain(), "hint": "See the command's --help."}
        sys.stdout.write(json.dumps(error, ensure_ascii=True) + "\n")
        sys.stdout.flush()


def _check_environment() -> None:
    """Notice when the environment puts foreign packages before ours, as other programs' settings do.

    Raises:
        D3MError: numpy cannot be used; PYTHONPATH is named if it is at fault.
    """
    try:
        import numpy

        numpy.zeros(1).sum()
    except Exception as error:
        raise D3MError(f"numpy cannot be used here ({type(error).__name__}).", _repair(), "machine") from error


def _of_a_package(error: BaseException) -> bool:
    """Whether another package could not be imported: for whatever reason, its own settings in the environment too."""
    if isinstance(error, ImportError):
        return not (error.name or "").startswith("d3m")
    names = [str(frame.f_globals.get("__name__", "")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    imports = [k for k, name in enumerate(names) if name.startswith("importlib._bootstrap")]
    return bool(imports) and imports[-1] + 1 < len(names) and not names[imports[-1] + 1].startswith("d3m")


def _unusable_package(error: BaseException) -> D3MError:
    """What a user is told when a package that we need is missing, damaged, or another program's."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    extra = _extra_with(error.name or "") if isinstance(error, ModuleNotFoundError) else None
    if extra is not None:
        return D3MError(
            f"This needs the extra {extra} ({reason}).",
            f'Install it: pip install "{DISTRIBUTION}[{extra}] @ {SOURCE}", or pip install ".[{extra}]" in a checkout.',
            "machine",
        )
    return D3MError(f"A Python package that is needed cannot be used ({reason}).", _repair(), "machine")


def _repair() -> str:
    """What to do about packages that cannot be used: PYTHONPATH is named if it may be at fault."""
    where = os.environ.get("PYTHONPATH")
    if where:
        return f"The environment variable PYTHONPATH names other packages ({where}): unset it."
    return "Install the package again into an environment of its own."


def _extra_with(module: str) -> str | None:
    """The extra of this program that brings a package, if one does."""
    try:
        wanted = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:  # used from a folder
        return None
    for line in wanted:
        named = re.match(r"([\w.-]+).*extra == ['\"]([\w-]+)", line)
        if named and named[1].lower().replace("-", "_") == module.split(".")[0].lower() and named[2] not in DEVELOPERS:
            return named[2]
    return None


def _foreign_place(package: str) -> str | None:
    """The entry of PYTHONPATH that a package is taken from, if it is taken from one."""
    spec = PathFinder.find_spec(package)
    origin = None if spec is None else spec.origin
    for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        if entry and origin is not None and Path(origin).is_relative_to(Path(entry).absolute()):
            return entry
    return None


def _end_with(pid: int, direct: bool) -> None:
    """Ask this process to stop once process `pid` is gone."""
    while alive(pid) and not (direct and os.getppid() != pid):  # a dead parent's number may live on as a zombie
        time.sleep(PARENT_POLL_S)
    if sys.platform == "win32":  # there a signal to oneself is an immediate end
        _thread.interrupt_main(signal.SIGTERM)
    else:
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)  # a main thread inside a long computation cannot react
    os._exit(130)


def load_torch() -> None:
    """Begin to load torch beside what follows, where memory is ample: `require_torch` waits for it.

    Raises:
        D3MError: as `require_torch`, where torch is missing, or memory so scarce that loading it at the same time as
            scans might end the process.
    """
    free = free_memory()
    if (free is not None and free < AMPLE_MEMORY) or find_spec("torch") is None:
        require_torch()
    elif "torch" not in sys.modules:
        threading.Thread(target=_import_torch, name="torch").start()  # waited for where the program ends before


def _import_torch() -> None:
    with contextlib.suppress(Exception):  # told by `require_torch`
        import torch  # noqa: F401


def require_torch() -> None:
    """Find out in one sentence whether torch can be used.

    Raises:
        D3MError: torch is missing, too old, or only half installed; or the memory granted cannot hold it, which must be
            known before: libraries that get none while they are loaded end the process, wait for ever, or say nothing.
    """
    check_memory(LEAST_MEMORY, "The program")
    hint = "Install torch 2.2 or later: `pip install torch`; inside 3D Slicer use the PyTorch extension."
    if place := _foreign_place("torch"):
        hint += f" It is taken from {place}, because the environment variable PYTHONPATH names that folder: unset it."
    try:
        import torch

        found = str(torch.__version__)
        version = tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in found.split(".")[:2])
        if version >= (2, 2):
            torch.zeros(1).add_(1)
    except Exception as error:  # a half installed torch fails in every imaginable way
        if isinstance(error, ModuleNotFoundError) and error.name == "torch":
            raise D3MError("torch is not installed.", hint, "machine") from error
        if is_out_of_memory(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise D3MError(f"torch is there but cannot be used ({reason}).", hint, "machine") from error
    if version < (2, 2):
        raise D3MError(f"torch {found} is too old.", hint, "machine")
