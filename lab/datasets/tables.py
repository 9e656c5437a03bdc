"""Rows of a file, whatever its form: JSON lines, one JSON array, or a table with a header (CSV, TSV)."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from lab.storage.files import JsonlLine, read_jsonl
from lab.storage.paths import PathLike

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_TABLE_ENDINGS = (".csv", ".tsv", ".tab")
_QUOTED_LENGTH = 80


def read_table(path: PathLike) -> list[JsonlLine]:
    """Read the rows of a file; a bad row does not stop the others.

    Args:
        path: JSON lines; one JSON array of objects; or a table whose first line names the columns: `.csv` (with
            commas, or with semicolons if its header has more of those) or `.tsv`. UTF-8, with or without a byte order
            mark; `~` is the home directory.

    Returns:
        A record for each row, with its line; in a JSON array, whose rows have no line of their own, with its place in
        the array, from 1.

    Raises:
        ValueError: The path is a URL, or the file is JSON of another kind.
        FileNotFoundError: There is no such file.
    """
    found = find_input(str(path), "the data file")
    if found.suffix.lower() in _TABLE_ENDINGS:
        return list(_read_delimited(found))
    if _begins_with_bracket(found):
        rows = _read_array(found)
        if rows is not None:
            return rows
    lines = list(read_jsonl(found))
    if len(lines) > 1 and all(line.row is None for line in lines):
        _refuse_one_object(found)
    return lines


def find_input(name: str, what: str) -> Path:
    """Turn what a user gave as an input's path into a path: `~` is the home directory, and URLs are refused.

    Args:
        name: What was given.
        what: What it is, for the error.

    Returns:
        The path; it need not exist.

    Raises:
        ValueError: It is a URL.
    """
    if _URL.match(name):
        raise ValueError(
            f"Expected {what} to be a path of this machine, but got the URL {quote_short(name)}. "
            "Download it first, and give the path of the copy."
        )
    return Path(os.path.expanduser(name))


def quote_short(value: Any) -> str:
    """Quote a foreign value in one short line.

    Args:
        value: Anything that a file held.

    Returns:
        Its representation, at most 80 characters long.
    """
    text = repr(value[: 2 * _QUOTED_LENGTH] if isinstance(value, (str, list)) else value)
    return text if len(text) <= _QUOTED_LENGTH else f"{text[: _QUOTED_LENGTH - 3]}..."


# --------------------------------------------------------------------------------------------------------------------
# JSON
# --------------------------------------------------------------------------------------------------------------------


def _begins_with_bracket(path: Path) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        start = file.read(4096)
    return start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def _read_array(path: Path) -> list[JsonlLine] | None:
    """Read one array; None if the file is something else, such as JSON lines the first of which is an array."""
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, list) or _is_one_line_of_cells(values):
        return None
    return [_as_row(number, value) for number, value in enumerate(values, start=1)]


def _is_one_line_of_cells(values: list[Any]) -> bool:
    return bool(values) and not any(isinstance(value, dict) for value in values)


def _as_row(number: int, value: Any) -> JsonlLine:
    if isinstance(value, dict):
        return JsonlLine(number, value)
    kind = type(value).__name__
    return JsonlLine(number, None, f"Expected item {number} of the array to be a JSON object, but got a {kind}.")


def _refuse_one_object(path: Path) -> None:
    """Say once, not for each line, that a file is one object over many lines."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        return
    keys = ", ".join(quote_short(key) for key in list(value)[:4]) if isinstance(value, dict) else ""
    kind = f"one JSON object with the keys {keys}" if keys else f"one JSON {type(value).__name__}"
    raise ValueError(
        f"Expected {path} to hold a JSON object on each line, or one array of objects, but got {kind}. "
        "Write its rows as an array, or one on each line (`jq -c '.[]'` does so with an array inside)."
    )


# --------------------------------------------------------------------------------------------------------------------
# Tables
# --------------------------------------------------------------------------------------------------------------------


def _read_delimited(path: Path) -> Iterator[JsonlLine]:
    """Read a table; cells are text."""
    if not path.is_file():
        raise FileNotFoundError(f"Expected a table at {path}, but found none. Check the path.")
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=_delimiter(path, file))
        columns = [name.strip() for name in next(reader, [])]
        _check_columns(columns, path)
        yield from _read_cells(reader, columns)


def _delimiter(path: Path, file: TextIO) -> str:
    if path.suffix.lower() != ".csv":
        return "\t"
    header = file.readline()
    file.seek(0)
    return ";" if header.count(";") > header.count(",") else ","


def _check_columns(columns: list[str], path: Path) -> None:
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if not columns or repeated:
        got = f"{quote_short(repeated[0])} twice" if repeated else "an empty file"
        raise ValueError(f"Expected the first line of {path} to name the columns, each once, but got {got}.")


def _read_cells(reader: Any, columns: list[str]) -> Iterator[JsonlLine]:
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield JsonlLine(reader.line_num, None, f"Expected line {reader.line_num} to be cells, but got: {error}.")
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(columns):
            reason = f"Expected line {reader.line_num} to have {len(columns)} cells, but got {len(cells)}."
            yield JsonlLine(reader.line_num, None, f"{reason} Cells that hold the separator need quotes.")
            continue
        yield JsonlLine(reader.line_num, dict(zip(columns, cells)))
