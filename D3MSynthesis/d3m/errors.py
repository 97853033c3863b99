"""The one error type a user may see, and the notices that travel with a result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["input", "machine", "interrupted"]

EXIT_CODES: dict[Kind, int] = {"input": 2, "machine": 3, "interrupted": 130}
"""Exit code of the command line for each kind of error; any other exception is a defect of ours and gives 1."""


class D3MError(Exception):
    """Something that the user can understand and put right.

    Attributes:
        kind: "input" (the files or the request are at fault), "machine" (memory, disk or device)
            or "interrupted" (the user or the parent process stopped the run).
        message: One sentence saying what is wrong.
        hint: One sentence saying what to do.
    """

    def __init__(self, message: str, hint: str, kind: Kind = "input") -> None:
        super().__init__(message, hint)
        self.kind: Kind = kind
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()

    @property
    def exit_code(self) -> int:
        """Exit code of the command line for this error."""
        return EXIT_CODES[self.kind]


_MEMORY_TEXTS = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "could not create a primitive",  # oneDNN, when its buffers cannot be had
    "failed to map segment",  # the loader of shared libraries
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out. torch has a class for it on GPUs; on the CPU it says so in the text of a RuntimeError."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return any(sign in text for sign in _MEMORY_TEXTS)


@dataclass(frozen=True)
class Notice:
    """A warning that travels with the result to provenance, progress and panel."""

    code: str
    """Stable short name in kebab case, such as "nan-background" or "thick-slices"."""
    message: str
    """One sentence for the user; names the contrast ("T2"), never a file or a patient."""
    volume: str | None = None
    """Contrast that the notice is about: "t1", "t2", "flair", "t1c", "brain_mask", or None for all."""
