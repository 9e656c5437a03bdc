"""Checks of single values: a number's range, a choice, text that says something."""

from __future__ import annotations

import difflib

from lab.config.errors import ConfigError


def check_range(key: str, value: float, low: float, high: float | None = None) -> None:
    """Reject a number below `low`, above `high`, or not finite."""
    if not (value >= low and (high is None or value <= high) and value != float("inf")):
        wanted = f"at least {low}" if high is None else f"between {low} and {high}"
        raise ConfigError(f"Expected {key} to be {wanted}, but got {value}.")


def check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    """Reject what is not one of the choices, and name the nearest."""
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"Expected {key} to be one of {', '.join(choices)}, but got {value!r}.{hint}")


def check_text(key: str, value: str) -> None:
    """Reject text of blanks alone."""
    if not value.strip():
        raise ConfigError(f"Expected {key} to be non-empty text, but got {value!r}.")
