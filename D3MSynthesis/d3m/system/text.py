"""The gate for text from outside: what a file, a header or a table says, before a person or another program reads it.

Such text may steer a terminal, end an element of a page, be a spreadsheet's formula, turn the reading direction, or not
be text at all. There is one function for each place where it ends up. No import but the standard library's.
"""

from __future__ import annotations

import html
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from d3m.errors import D3MError

MAX_TERMINAL = 4000
"""Characters that a message shows; what is longer was made to flood."""
FORMULA_SIGNS = "=+-@\uff1d\uff0b\uff0d\uff20|%"
"""What a spreadsheet takes for the start of a formula, in their full-width forms, too (OWASP, CSV Injection); the last
two started commands in older ones."""
MAX_JSON = 20_000_000
"""Bytes of a JSON file of ours: the list of a result's files has some hundred for each."""
JOINERS = "\u200c\u200d"
"""Zero-width (non-)joiner: Persian and Indian words are spelled with them, and they steer nothing."""


def counted(number: int, noun: str) -> str:
    """ "1 step", "2 steps"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def plain(text: object) -> str:
    """One line of text that steers nothing.

    Control characters, marks that turn the reading direction, invisible and private characters become visible codes
    such as ``\\x1b``; line breaks, tabs and odd spaces become spaces. A byte of a file name that is no UTF-8 is read
    as Latin-1, as old servers wrote it.

    Args:
        text: Anything; it is made a string first.
    """
    return "".join(map(_shown, str(text)))


def _shown(sign: str) -> str:
    if sign.isprintable() or sign in JOINERS:
        return sign
    if sign.isspace():
        return " "
    code = ord(sign)
    if 0xDC80 <= code <= 0xDCFF:  # how Python carries a byte of a name that is not UTF-8
        return _shown(chr(code - 0xDC00))
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 2**16 else f"\\U{code:08x}"


def for_terminal(text: object, limit: int = MAX_TERMINAL) -> str:
    """One line for a terminal, a log, or a label of a window.

    Args:
        text: From outside.
        limit: Characters; what is longer loses its end.
    """
    line = plain(text)
    return line if len(line) <= limit else line[: limit - 3] + "..."


def for_csv(value: object) -> str:
    """One cell of a table: never a spreadsheet's formula.

    Numbers stay as they are, -1.5 included; other text that could start a formula gets the apostrophe that makes
    spreadsheets take it for text.
    """
    if value is None:
        return ""
    cell = plain(value)
    if cell.lstrip()[:1] in tuple(FORMULA_SIGNS) and not _is_number(cell):
        return "'" + cell
    return cell


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def for_html(text: object) -> str:
    """Text for an element or a quoted attribute of a page."""
    return html.escape(plain(text), quote=True)


def for_json(value: Any) -> Any:
    """A value that any JSON reader takes: no NaN or infinity (they become null), no half characters.

    Args:
        value: Of dictionaries, lists, tuples, texts, numbers, booleans, None and paths.
    """
    if isinstance(value, str | os.PathLike):
        return plain(os.fspath(value) if isinstance(value, os.PathLike) else value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {plain(key): for_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [for_json(entry) for entry in value]
    return value


def json_in_html(value: Any) -> str:
    """JSON that can stand inside a script element: nothing in it ends the element or starts a comment."""
    packed = json.dumps(for_json(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        packed = packed.replace(sign, f"\\u{ord(sign):04x}")
    return packed


def read_text(path: Path, what: str, limit: int) -> str:
    """A small text file, never more of it than `limit`.

    Args:
        path: UTF-8, with or without a byte order mark.
        what: How messages call it: "The card".
        limit: Bytes.

    Raises:
        D3MError: missing, not a regular file, unreadable, too large, or not UTF-8.
    """
    try:
        if not path.is_file():
            raise D3MError(f"{what} does not exist or is not a file: {plain(path)}.", "Check the path that you gave.")
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise D3MError(f"{what} cannot be read ({plain(reason)}).", "Check the file and its permissions.") from error
    if len(content) > limit:
        raise D3MError(f"{what} is larger than {limit // 1000} kB.", "Give the right file.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise D3MError(f"{what} is not UTF-8 text.", "Save it as UTF-8.") from error


def read_object(path: Path, what: str, limit: int = MAX_JSON) -> dict[str, Any]:
    """A JSON file with an object, as ours all are.

    Args:
        path: UTF-8.
        what: How messages call it: "The card".
        limit: Bytes.

    Raises:
        D3MError: it cannot be read, is no JSON (NaN and infinity are none), nests too deep, or holds no object.
    """
    try:
        content = json.loads(read_text(path, what, limit), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        reason = "it nests too deep" if isinstance(error, RecursionError) else plain(error)
        raise D3MError(f"{what} is not valid JSON ({reason}).", "Correct the file, or leave it out.") from error
    if not isinstance(content, dict):
        raise D3MError(f"{what} holds no JSON object.", "Correct the file, or leave it out.")
    return content


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")
