"""What every format offers: how it is told from others, how its boxes are read, and its expressions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

from lab.datasets.expressions import Expression
from lab.datasets.sources import read_any


@dataclass(frozen=True)
class Inputs:
    """What a format is read from.

    Attributes:
        path: The file, or the directory of files.
        instances: COCO's annotations that its references point into; None where the format needs none.
        split: Only expressions of this split; None for all.
        dataset: Name of the data set, where the file does not say; empty to leave it open.
    """

    path: Path
    instances: Optional[Path] = None
    split: Optional[str] = None
    dataset: str = ""

    def records(self) -> Iterator[Mapping[str, Any]]:
        """The records of a file that is a list of them.

        Raises:
            ValueError: It is none.
        """
        content = read_any(self.path)
        if isinstance(content, Mapping):
            raise ValueError(f"Expected {self.path} to hold a list of records, but got one object. Check --format.")
        for record in content:
            if not isinstance(record, Mapping):
                raise ValueError(f"Expected the records of {self.path} to be objects, but got {str(record)[:40]!r}.")
            yield record


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        name: As `--format` takes it.
        title: What it is, for people.
        box_formats: How its boxes may be written (`lab.datasets.box_reading.READINGS`): one, or those to choose from.
        recognises: Whether the path with this first record (None for a directory) is of the format.
        read: Its expressions, in the order of the file.
    """

    name: str
    title: str
    box_formats: tuple[str, ...]
    recognises: Callable[[Path, Optional[Mapping[str, Any]]], bool]
    read: Callable[[Inputs], Iterator[Expression]]


def has_keys(record: Optional[Mapping[str, Any]], *keys: str) -> bool:
    """Whether a record has all of these keys."""
    return record is not None and all(key in record for key in keys)


def need(record: Mapping[str, Any], key: str, what: str) -> Any:
    """A value that a record must have.

    Raises:
        ValueError: It has not.
    """
    if record.get(key) is None:
        fields = ", ".join(map(str, record))[:120]
        raise ValueError(f"Expected {what} to have {key!r}, but got only {fields}. Check --format and the file.")
    return record[key]


def stated_size(record: Mapping[str, Any]) -> Optional[tuple[int, int]]:
    """Width and height that a record states, or None."""
    width, height = record.get("width"), record.get("height")
    try:
        size = int(width or 0), int(height or 0)
    except (TypeError, ValueError):
        return None
    return size if min(size) > 0 else None


def four_numbers(value: Any, what: str) -> tuple[float, float, float, float]:
    """The four numbers of a box.

    Raises:
        ValueError: They are not four numbers.
    """
    try:
        x, y, third, fourth = (float(number) for number in value)
    except (TypeError, ValueError):
        raise ValueError(f"Expected the box of {what} to be four numbers, but got {str(value)[:60]!r}.") from None
    return x, y, third, fourth
