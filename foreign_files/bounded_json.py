"""JSON that others wrote: read whole or line by line, with bounds on size, depth and numbers before it is parsed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from foreign_files.messages import shorten_reason

MAX_BYTES = 16 << 20
MAX_DEPTH = 50
MAX_DIGITS = 100

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_NOT_BRACKETS = re.compile(r"[^\[\]{}]+")


def read_json(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Any:
    """Read a JSON file.

    Args:
        path: UTF-8 text; a byte order mark is passed over.
        max_bytes: Most bytes that it may have.
        max_depth: Most arrays and objects that may stand within each other.

    Returns:
        What it holds.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is larger or deeper, holds a number of more than `MAX_DIGITS` digits, or is no JSON.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size  # 0 of what is no plain file
        data = file.read(min(size or max_bytes, max_bytes) + 1)
    try:
        if len(data) > max_bytes:
            raise ValueError(f"more than {max_bytes} bytes")
        return parse_json(data, max_depth=max_depth)
    except ValueError as error:
        raise ValueError(
            f"Expected {path} to hold readable JSON, but got {shorten_reason(error)}. "
            "The file is damaged or of another kind."
        ) from error


def parse_json(data: bytes, *, max_depth: int = MAX_DEPTH) -> Any:
    """Parse JSON text within bounds.

    Args:
        data: UTF-8 text, perhaps with a byte order mark.
        max_depth: Most arrays and objects that may stand within each other.

    Returns:
        What it says.

    Raises:
        ValueError: It is deeper, holds a number of more than `MAX_DIGITS` digits, or is no JSON; the message goes
            behind 'but got'.
    """
    text = (data[3:] if data.startswith(_BYTE_ORDER_MARK) else data).decode("utf-8")
    if data.count(b"[") + data.count(b"{") > max_depth and _depth(text, max_depth) > max_depth:
        raise ValueError(f"data that are nested more than {max_depth} deep")
    # Most files hold no number that long, and need no look at each.
    return (_DECODER if _LONG_NUMBER in data.translate(_NUMBERS_AS_ZEROS) else _PLAIN_DECODER).decode(text)


def _depth(text: str, max_depth: int) -> int:
    """How deep brackets are nested, those within quotes left out; counting stops above `max_depth`."""
    outside = text.replace("\\\\", "").replace('\\"', "").split('"')[::2]
    depth = deepest = 0
    for bracket in _NOT_BRACKETS.sub("", "".join(outside)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
        if deepest > max_depth:
            break
    return deepest


def _parse_int(digits: str) -> int:
    return int(_check_digits(digits))


def _parse_float(digits: str) -> float:
    return float(_check_digits(digits))


def _check_digits(digits: str) -> str:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits, where {MAX_DIGITS} are the most")
    return digits


_DECODER = json.JSONDecoder(parse_int=_parse_int, parse_float=_parse_float)
_PLAIN_DECODER = json.JSONDecoder()
_NUMBERS_AS_ZEROS = bytes(48 if byte in b"0123456789.eE+-" else 32 for byte in range(256))
_LONG_NUMBER = b"0" * (MAX_DIGITS + 1)


# ---------------------------------------------------------------------------------------------------------------------
# JSONL
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JsonlLine:
    """One line of a JSONL file that is not blank.

    Attributes:
        number: 1-based line number.
        row: The object, or None where the line is not one.
        error: Why there is no row; empty where there is.
    """

    number: int
    row: dict[str, Any] | None
    error: str = ""


def read_jsonl(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> Iterator[JsonlLine]:
    """Read a JSONL file line by line; a bad line does not stop the others.

    Args:
        path: UTF-8 text, one JSON object a line; blank lines and a byte order mark are passed over.
        max_bytes: Most bytes of one line; of a longer one nothing is read.

    Yields:
        One record for each line that is not blank.

    Raises:
        FileNotFoundError: There is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Expected a JSONL file at {path}, but found none. Check the path.")
    with open(path, "rb") as file:
        for number, line in enumerate(_lines(file, max_bytes), start=1):
            if number == 1:
                line = line[3:] if line.startswith(_BYTE_ORDER_MARK) else line
            if line.strip():
                yield _parse_line(number, line, max_bytes)


def _lines(file: BinaryIO, max_bytes: int) -> Iterator[bytes]:
    """The lines, each cut after one byte more than it may have."""
    while line := file.readline(max_bytes + 1):
        yield line
        while len(line) > max_bytes and not line.endswith(b"\n"):
            line = file.readline(max_bytes + 1)


def _parse_line(number: int, line: bytes, max_bytes: int) -> JsonlLine:
    try:
        if len(line) > max_bytes:
            raise ValueError(f"more than {max_bytes} bytes")
        value = parse_json(line)
    except UnicodeDecodeError as error:
        return JsonlLine(number, None, f"Expected line {number} to be UTF-8 text, but got {error.reason}.")
    except ValueError as error:
        reason = shorten_reason(error)
        return JsonlLine(
            number, None, f"Expected line {number} to be a JSON object, but got unreadable JSON: {reason}."
        )
    if not isinstance(value, dict):
        kind = type(value).__name__
        return JsonlLine(number, None, f"Expected line {number} to be a JSON object, but got a {kind}.")
    return JsonlLine(number, value)
