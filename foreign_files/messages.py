"""What an error message may quote: one short line, whatever the value is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

MAX_QUOTED = 80
MAX_REASON = 200
MAX_PATH = 150

_MAX_ITEMS = 4
_MAX_LEVELS = 3
_MAX_BITS = 340  # about 100 digits; of longer numbers only the size is told
_CUT = "..."


def shorten(value: Any, limit: int = MAX_QUOTED) -> str:
    """Spell a foreign value for a message, as one line of bounded length and in bounded time.

    Text and paths are quoted. Of containers the first items are shown, a few levels deep, so that data that unfold to
    gigabytes cost nothing. Errors give their message without quotes.

    Args:
        value: Anything.
        limit: Most characters of the result.

    Returns:
        One line; it ends in `...` where something was left out at the end.
    """
    if isinstance(value, BaseException):
        return shorten_reason(value, limit)
    return _cut(_spell(value, limit, 0), limit)


def shorten_path(path: str | os.PathLike[str], limit: int = MAX_PATH) -> str:
    """Spell a path for a message; one that is too long loses its middle, since its end names the file.

    Args:
        path: Any path.
        limit: Most characters of the result.

    Returns:
        One line, in quotes.
    """
    text = os.fspath(path)
    ends = text if len(text) <= 2 * limit else text[:limit] + text[-limit:]  # a bounded piece, whatever comes
    spelt = _printable(repr(ends))
    if ends is text and len(spelt) <= limit:
        return spelt
    kept = limit - len(_CUT)
    return spelt[: kept // 3] + _CUT + spelt[len(spelt) - (kept - kept // 3) :]


def shorten_reason(reason: object, limit: int = MAX_REASON) -> str:
    """Put the message of an error, or any text, into one line of bounded length, without quotes.

    Args:
        reason: An exception or text; of a KeyError the key is named, of an error without a message its kind.
        limit: Most characters of the result.

    Returns:
        One line without control characters.
    """
    if isinstance(reason, KeyError) and reason.args:
        return _cut(f"no key {shorten(reason.args[0], limit)}", limit)
    text = str(reason)[: 4 * limit] or type(reason).__name__
    return _cut(" ".join(_printable(text).split()), limit)


def _spell(value: Any, limit: int, level: int) -> str:
    if isinstance(value, (str, bytes, bytearray)):
        return _spell_text(value, limit)
    if isinstance(value, os.PathLike):
        return _spell_text(os.fspath(value), limit)
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        return f"a whole number of {value.bit_length()} bits"
    if isinstance(value, Mapping):
        return _spell_items("{", value.items(), len(value), "}", limit, level)
    if isinstance(value, (list, tuple, set, frozenset)):
        opening, closing = {list: ("[", "]"), tuple: ("(", ")")}.get(type(value), ("{", "}"))
        return _spell_items(opening, value, len(value), closing, limit, level)
    return _printable(" ".join(repr(value).split()))


def _spell_text(value: str | bytes | bytearray, limit: int) -> str:
    text = repr(value[:limit])
    return _printable(text if len(value) <= limit else text[:-1] + _CUT + text[-1])


def _spell_items(opening: str, items: Iterable[Any], count: int, closing: str, limit: int, level: int) -> str:
    if count and level >= _MAX_LEVELS:
        return opening + _CUT + closing
    spelt = []
    for item, _ in zip(items, range(_MAX_ITEMS)):
        if opening == "{" and isinstance(item, tuple) and len(item) == 2:
            spelt.append(": ".join(_spell(part, limit, level + 1) for part in item))
        else:
            spelt.append(_spell(item, limit, level + 1))
    if count > _MAX_ITEMS:
        spelt.append(f"{_CUT} {count - _MAX_ITEMS} more")
    return opening + ", ".join(spelt) + closing


def _printable(text: str) -> str:
    """Escape what would break the line, move the cursor, or cannot be encoded."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in "\n\r\t" else ascii(letter)[1:-1] for letter in text)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - len(_CUT)] + _CUT
