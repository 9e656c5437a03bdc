"""Opening what a data set comes in: JSON, JSON lines, pickles, parquet, and tables of text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Callable, Optional

from lab.storage.files import read_jsonl

CSV_FIELD_LIMIT = 64 * 1024 * 1024
"""A picture may stand in a field as base64 text."""
PARQUET_BATCH = 64
"""Rows with embedded pictures are read few at a time."""


class MissingExtra(ValueError):
    """A format needs a package that is not installed."""


def read_any(path: Path) -> Any:
    """Read a file of records.

    Args:
        path: `.json`, `.jsonl`, `.p` or `.pkl`, `.parquet`, `.csv` or `.tsv`; anything else is taken for JSON.

    Returns:
        What a JSON file or a pickle holds; an iterator over the rows of all others.

    Raises:
        ValueError: The file cannot be read.
        FileNotFoundError: There is none.
    """
    if not path.is_file():
        raise FileNotFoundError(f"Expected --input to be a file, but there is none at {path}. Check the path.")
    suffix = path.suffix.lower()
    if suffix in {".p", ".pkl", ".pickle"}:
        from foreign_files.pickle_machine import dataset_budget
        from foreign_files.safe_pickle import read_plain_pickle

        return read_plain_pickle(path, dataset_budget())
    readers: dict[str, Callable[[Path], Any]] = {
        ".jsonl": read_json_lines,
        ".parquet": read_parquet,
        ".csv": read_table,
        ".tsv": read_table,
    }
    return readers.get(suffix, read_json)(path)


def read_json(path: Path) -> Any:
    """Read a JSON file; UTF-8, with or without a byte order mark, or else Windows' western encoding."""
    import json

    raw = path.read_bytes()
    try:
        return json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return json.loads(raw.decode("cp1252", "replace"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Expected {path} to be JSON, but got unreadable text: {str(error)[:120]}.") from None


def read_json_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """Read JSON lines; a broken one is an error here, since a converted data set should not lack rows."""
    for line in read_jsonl(path):
        if line.row is None:
            raise ValueError(f"Expected every line of {path} to be a JSON object: {line.error}")
        yield line.row


def read_table(path: Path) -> Iterator[Mapping[str, Any]]:
    """Read comma- or tab-separated text with a header."""
    csv.field_size_limit(CSV_FIELD_LIMIT)
    text = path.read_text(encoding="utf-8-sig")
    delimiter = "\t" if "\t" in text.split("\n", 1)[0] else ","
    yield from csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)


def read_parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    """Read a parquet file, a few rows at a time."""
    try:
        from pyarrow import parquet
    except ImportError:
        raise MissingExtra(
            f"Expected pyarrow to be installed for {path.name}, but it is not. "
            "Install it with: pip install -r requirements-datasets.txt"
        ) from None
    for batch in parquet.ParquetFile(path).iter_batches(batch_size=PARQUET_BATCH):
        yield from batch.to_pylist()


def first_record(content: Any) -> Optional[Mapping[str, Any]]:
    """The first record of a file's content, to tell the format by; None where there is none."""
    if isinstance(content, Mapping):
        return content
    if isinstance(content, Iterable):
        first = next(iter(content), None)
        return first if isinstance(first, Mapping) else None
    return None
