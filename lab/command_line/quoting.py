"""The command line: natural sentences pass through Hydra's grammar unharmed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_MULTIRUN_FLAGS = frozenset({"-m", "--multirun"})
_ESCAPED_OR_PLAIN = r"(?:[^{quote}\\]|\\.)*"
_QUOTED = re.compile("|".join(f"{quote}{_ESCAPED_OR_PLAIN.format(quote=quote)}{quote}" for quote in "'\""), re.DOTALL)
_INTERPOLATION = re.compile(r"\$\{[^{}]*\}")


def quote_text_values(arguments: Sequence[str], text_keys: Iterable[str], list_keys: Iterable[str] = ()) -> list[str]:
    """Quote the values of text keys, so that commas, quotes, brackets and equals signs in them stay text.

    Hydra gives such characters a meaning: `data.query=a cat, left` would be a list of two. In a multirun a comma
    separates the values of a sweep, so there nothing is changed. Values that are quoted for Hydra already, that are
    one interpolation, or that are `null` are left alone.

    Args:
        arguments: The command line without the program's name.
        text_keys: Dotted keys that take free text.
        list_keys: Dotted keys that take free text or a list; a list in brackets is left alone, too.

    Returns:
        A new list of arguments.
    """
    if _MULTIRUN_FLAGS & set(arguments):
        return list(arguments)
    keys, lists = frozenset(text_keys), frozenset(list_keys)
    return [
        argument if _is_list(argument, lists) else _quote_argument(argument, keys | lists) for argument in arguments
    ]


def _is_list(argument: str, list_keys: frozenset[str]) -> bool:
    key, _, value = argument.partition("=")
    return key.lstrip("+") in list_keys and value.startswith("[")


def _quote_argument(argument: str, keys: frozenset[str]) -> str:
    key, separator, value = argument.partition("=")
    if not separator or key.lstrip("+") not in keys or _is_left_alone(value):
        return argument
    return f"{key}={quote_value(value)}"


def _is_left_alone(value: str) -> bool:
    return value in {"", "null"} or _QUOTED.fullmatch(value) is not None or _INTERPOLATION.fullmatch(value) is not None


def quote_value(value: str) -> str:
    r"""Write text as a quoted value of Hydra's override grammar.

    Within the quotes a quote is escaped, and so are the backslashes right before a quote; all others are plain. An
    interpolation `${...}` is escaped, too, with the backslashes before it.

    Args:
        value: Any text.

    Returns:
        Single-quoted text that Hydra reads as the same text.
    """
    value = re.sub(r"(\\*)\$\{", lambda found: found.group(1) * 2 + r"\${", value)
    value = re.sub(r"(\\*)('|\Z)", lambda found: found.group(1) * 2 + found.group(2).replace("'", r"\'"), value)
    return f"'{value}'"
