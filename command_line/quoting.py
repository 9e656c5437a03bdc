"""The command line: natural sentences pass through Hydra's grammar unharmed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Callable

_MULTIRUN_FLAGS = frozenset({"-m", "--multirun"})
# What follows these is a sentence for the model: quotes and ${...} in it are the user's own.
_SENTENCE_KEYS = frozenset({"data.query"})
_ESCAPED_OR_PLAIN = r"(?:[^{quote}\\]|\\.)*"
_QUOTED = re.compile("|".join(f"{quote}{_ESCAPED_OR_PLAIN.format(quote=quote)}{quote}" for quote in "'\""), re.DOTALL)
_INTERPOLATION = re.compile(r"\$\{[^{}]*\}")
_SWEEP = re.compile(r"(?:choice|range|interval|glob|sort|shuffle|tag|extend_list)\(.*\)", re.DOTALL)
_WORD = re.compile(r"(?!(?:true|false|null|nan|inf)\Z)[A-Za-z_]\w*", re.IGNORECASE)
# A value of a sweep: quoted as a whole, or anything up to the next comma.
_PIECE = re.compile(rf"\s*(?:{_QUOTED.pattern})\s*(?=,|\Z)|[^,]*", re.DOTALL)


def quote_text_values(arguments: Sequence[str], text_keys: Iterable[str], list_keys: Iterable[str] = ()) -> list[str]:
    """Quote the values of text keys, so that commas, quotes, brackets and equals signs in them stay text.

    Hydra gives such characters a meaning: `data.query=a cat, left` would be a list of two. A query reaches the model
    just as it was typed, be it in quotes or with `${...}` in it. Of other text keys, values that are quoted for Hydra
    already or that are one interpolation are left to Hydra. `null` and nothing at all mean no value.

    In a multirun a comma separates the values of a sweep; each of them is quoted on its own. A value that holds a
    comma itself is put in quotes there, which are then not part of it.

    Args:
        arguments: The command line without the program's name.
        text_keys: Dotted keys that take free text.
        list_keys: Dotted keys that take free text or a list; a list in brackets is left alone, too.

    Returns:
        A new list of arguments.
    """
    if _MULTIRUN_FLAGS & set(arguments):
        texts = frozenset(text_keys)
        return [_quote_argument(argument, texts, _quote_sweep) for argument in arguments]
    lists = frozenset(list_keys)
    keys = frozenset(text_keys) | lists
    return [
        argument if _is_list(argument, lists) else _quote_argument(argument, keys, _quote_one) for argument in arguments
    ]


def _is_list(argument: str, list_keys: frozenset[str]) -> bool:
    key, _, value = argument.partition("=")
    return key.lstrip("+") in list_keys and value.startswith("[")


def _quote_argument(argument: str, keys: frozenset[str], quote: Callable[[str, bool], str]) -> str:
    key, separator, value = argument.partition("=")
    name = key.lstrip("+")
    if not separator or name not in keys:
        return argument
    return f"{key}={quote(value, name in _SENTENCE_KEYS)}"


def _quote_one(value: str, is_sentence: bool) -> str:
    return value if _is_left_alone(value, is_sentence) else quote_value(value)


def _is_left_alone(value: str, is_sentence: bool) -> bool:
    if value in {"", "null"}:
        return True
    return not is_sentence and bool(_QUOTED.fullmatch(value) or _INTERPOLATION.fullmatch(value))


def _quote_sweep(value: str, is_sentence: bool) -> str:
    """Quote each value of a sweep; one that is in quotes already, a plain word or a function of Hydra stays."""
    if _SWEEP.fullmatch(value):
        return value
    return ",".join(_quote_piece(piece, is_sentence) for piece in _split_at_commas(value))


def _quote_piece(piece: str, is_sentence: bool) -> str:
    if _QUOTED.fullmatch(piece.strip()) or _WORD.fullmatch(piece):
        return piece
    return _quote_one(piece, is_sentence)


def _split_at_commas(value: str) -> list[str]:
    """Split at the commas that stand outside of quotes."""
    pieces, position = [], 0
    while True:
        found = _PIECE.match(value, position)
        assert found is not None, "a piece may be empty"
        pieces.append(found.group())
        position = found.end() + 1
        if position > len(value):
            return pieces


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
