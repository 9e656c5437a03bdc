"""The fields of the schema by dotted key: type, limit, default and description of each."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any, Optional

from lab.config.settings import Settings
from lab.config.values import Limit


def known_keys() -> dict[str, Any]:
    """Map every dotted key of the configuration to its type."""
    return {key: kind for key, kind, _, _ in _walk(Settings, "")}


def known_fields() -> dict[str, dataclasses.Field[Any]]:
    """Map every dotted key of the configuration to its field."""
    return {key: entry for key, _, entry, _ in _walk(Settings, "")}


def limits() -> dict[str, Limit]:
    """Map the dotted keys whose values are limited to their limits."""
    return {key: entry.metadata["limit"] for key, entry in known_fields().items() if "limit" in entry.metadata}


def owners() -> dict[str, type]:
    """Map every dotted key to the record that it is a field of."""
    return {key: record for key, _, _, record in _walk(Settings, "")}


def text_keys() -> frozenset[str]:
    """The keys that take free text, such as queries and paths."""
    return frozenset(key for key, kind in known_keys().items() if kind in (str, Optional[str]))


def group_names() -> frozenset[str]:
    """The configuration's groups, such as `model` and `logic`."""
    return frozenset(key for key, kind in known_keys().items() if dataclasses.is_dataclass(kind) and "." not in key)


def _walk(record: type, prefix: str) -> Iterator[tuple[str, Any, dataclasses.Field[Any], type]]:
    """Yield dotted key, type, field and record of each field, and of the fields of those that are records."""
    hints = typing.get_type_hints(record)
    for entry in dataclasses.fields(record):
        if entry.metadata.get("omegaconf_ignore"):  # a field of the record that is no key
            continue
        kind = hints[entry.name]
        yield prefix + entry.name, kind, entry, record
        if dataclasses.is_dataclass(kind):
            yield from _walk(typing.cast(type, kind), f"{prefix}{entry.name}.")
