"""Keys that hold paths: `~` is the home directory in all of them, and none takes an address of the web."""

from __future__ import annotations

import dataclasses
import os.path
import re
from typing import Any, TypeVar

from foreign_files.messages import shorten
from lab.config.errors import ConfigError
from lab.config.fields import known_fields
from lab.config.settings import Settings

Group = TypeVar("Group")


def path_keys() -> frozenset[str]:
    """The dotted keys that hold paths."""
    return frozenset(key for key, entry in known_fields().items() if entry.metadata.get("path"))


def expand_paths(settings: Settings) -> Settings:
    """Expand `~` in every path, in the model's name where it is a path, and refuse addresses.

    Args:
        settings: The whole configuration.

    Returns:
        A copy with whole paths.

    Raises:
        ConfigError: A path is an address such as `https://...`.
    """
    groups = {
        entry.name: _expand_group(getattr(settings, entry.name), entry.name)
        for entry in dataclasses.fields(settings)
        if dataclasses.is_dataclass(getattr(settings, entry.name))
    }
    return dataclasses.replace(settings, **groups)


def _expand_group(group: Group, prefix: str) -> Group:
    record: Any = group
    paths = {
        entry.name: _expand(f"{prefix}.{entry.name}", getattr(record, entry.name))
        for entry in dataclasses.fields(record)
        if entry.metadata.get("path")
    }
    groups = {
        entry.name: _expand_group(getattr(record, entry.name), f"{prefix}.{entry.name}")
        for entry in dataclasses.fields(record)
        if dataclasses.is_dataclass(getattr(record, entry.name))
    }
    expanded: Group = dataclasses.replace(record, **paths, **groups)
    return expanded


def _expand(key: str, value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_expand(key, entry) for entry in value]
    if not isinstance(value, str):
        return value
    if re.match(r"[a-z][a-z0-9+.-]+://", value, flags=re.IGNORECASE):
        raise ConfigError(
            f"Expected {key} to be a path on this machine, but got the address {shorten(value)}. "
            "Download it first, and give the path of the file."
        )
    return os.path.expanduser(value)
