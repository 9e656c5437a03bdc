"""Values of keys: what each field of a settings record may hold, said where the field is, checked in one place."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional, Protocol

from foreign_files.messages import shorten
from lab.config.errors import ConfigError

COUNT_LIMIT = 10**12
"""Above any number of rows, samples or files."""


class Limit(Protocol):
    """What a value may be."""

    def check(self, key: str, value: Any) -> None:
        """Raise `ConfigError` where the value of `key` is none of the allowed ones."""

    def describe(self) -> str:
        """Say in a few words which values are allowed."""


@dataclass(frozen=True)
class Between:
    """A finite number from `low` to `high`, both included."""

    low: float
    high: float

    def check(self, key: str, value: Any) -> None:
        """Reject a number out of range, and NaN."""
        if not (math.isfinite(value) and self.low <= value <= self.high):
            raise ConfigError(f"Expected {key} to be between {self.low} and {self.high}, but got {shorten(value)}.")

    def describe(self) -> str:
        """Such as `1 to 64`."""
        return f"{self.low:,} to {self.high:,}"


@dataclass(frozen=True)
class OneOf:
    """One of a few words."""

    choices: tuple[str, ...]

    def check(self, key: str, value: Any) -> None:
        """Reject any other word, and name the nearest."""
        if value in self.choices:
            return
        near = difflib.get_close_matches(str(value)[:100], self.choices, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"Expected {key} to be one of {', '.join(self.choices)}, but got {shorten(value)}.{hint}")

    def describe(self) -> str:
        """The words."""
        return ", ".join(f"`{choice}`" for choice in self.choices)


@dataclass(frozen=True)
class Matching:
    """Text of a certain form."""

    pattern: str
    form: str

    def check(self, key: str, value: Any) -> None:
        """Reject text of any other form."""
        if isinstance(value, str) and not re.fullmatch(self.pattern, value):
            raise ConfigError(f"Expected {key} to be {self.form}, but got {shorten(value)}.")

    def describe(self) -> str:
        """The form."""
        return self.form


NON_EMPTY = Matching(r"(?s).*\S.*", "non-empty text")


def number(default: Optional[float], low: float, high: float) -> Any:
    """Make a field for a number from `low` to `high`; null only where it is the default."""
    return dataclasses.field(default=default, metadata={"limit": Between(low, high)})


def choice(default: str, *others: str) -> Any:
    """Make a field for one of a few words, the default first."""
    return dataclasses.field(default=default, metadata={"limit": OneOf((default, *others))})


def text(default: Optional[str], limit: Matching = NON_EMPTY) -> Any:
    """Make a field for text that says something."""
    return dataclasses.field(default=default, metadata={"limit": limit})


def path(default: Optional[str] = None) -> Any:
    """Make a field for a path; `lab.config.path_keys` expands `~` in it and refuses addresses."""
    return dataclasses.field(default=default, metadata={"path": True, "limit": NON_EMPTY})


def check_fields(record: Any, prefix: str) -> None:
    """Check every field of a settings record against its own limit.

    Args:
        record: The record, a dataclass whose fields were made by the functions above.
        prefix: Dotted name of the record in the configuration, such as `logic.threshold`; empty for the root.

    Raises:
        ConfigError: A value is out of range, or none of the choices.
    """
    for key, entry in limited_fields(type(record), prefix):
        value = getattr(record, entry.name)
        if value is not None:
            entry.metadata["limit"].check(key, value)


def limited_fields(record: type, prefix: str) -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    """Yield dotted key and field of each field with a limit."""
    for entry in dataclasses.fields(record):
        if "limit" in entry.metadata:
            yield f"{prefix}.{entry.name}".lstrip("."), entry
