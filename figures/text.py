"""Words on a page: which font can draw them, how wide they are, where a line breaks."""

from __future__ import annotations

import functools

import numpy as np
from matplotlib import font_manager
from matplotlib.font_manager import FontProperties

# Sought among the installed fonts, for queries in scripts that DejaVu Sans (which comes with matplotlib) lacks.
MORE_FONTS = (
    "Noto Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans CJK KR",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Noto Emoji",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans",
    "Malgun Gothic",
    "Nirmala UI",
    "Arial Unicode MS",
)
MISSING_CHARACTER = "\u25a1"


def quote(query: str) -> str:
    """The query between quotation marks."""
    return f"“{query.strip()}”"


def wrap(text: str, room: float, size: float, weight: str = "normal", *, max_lines: int = 3) -> list[str]:
    """Break text into lines of at most `room` inches, at spaces where there are any; what is too much ends in "…"."""
    words = printable(text).split()
    lines = [""]
    while words and len(lines) <= max_lines:
        joined = f"{lines[-1]} {words[0]}".strip()
        if text_width(joined, size, weight) <= room:
            lines[-1] = joined
            words.pop(0)
        elif lines[-1]:
            lines.append("")
        else:
            head = _longest_fitting(words[0], room, size, weight)
            lines[-1], words[0] = words[0][:head], words[0][head:]
            lines.append("")
    if words or len(lines) > max_lines and lines[max_lines]:
        lines = lines[:max_lines]
        cut = _longest_fitting(lines[-1], room - text_width("…", size, weight), size, weight)
        lines[-1] = lines[-1][:cut].rstrip() + "…"
    return [line for line in lines if line]


def _longest_fitting(text: str, room: float, size: float, weight: str) -> int:
    """How many of the first characters fit into `room` inches; at least one."""
    widths = np.cumsum([_advance(character, weight) for character in text]) * size / 72
    return max(1, int(np.searchsorted(widths, room, side="right")))


@functools.lru_cache(maxsize=4096)
def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Width of a line of text in inches."""
    return sum(_advance(character, weight) for character in text) * size / 72


@functools.lru_cache(maxsize=4096)
def _advance(character: str, weight: str) -> float:
    """Width of a character in units of the letter size."""
    path = next((path for path in _font_paths(weight) if ord(character) in _characters_of(path)), None)
    if path is None:
        return 1.0
    font = font_manager.get_font(path)
    font.set_size(100, 72)
    return font.load_char(ord(character)).linearHoriAdvance / 65536 / 100


def printable(text: str) -> str:
    """The text on one line, with a box in the place of each character that no installed font can draw.

    Replacing them beforehand keeps matplotlib from warning of each; `warnings` filters are shared by all threads.
    """
    known = [_characters_of(path) for path in _font_paths("normal")]
    line = " ".join(text.split())
    shown = (character for character in line if character.isprintable() or ord(character) == 0x200D)
    return "".join(
        character if any(ord(character) in characters for characters in known) else MISSING_CHARACTER
        for character in shown
    )


@functools.lru_cache(maxsize=1)
def font_families() -> tuple[str, ...]:
    """DejaVu Sans and those of `MORE_FONTS` that are installed."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in MORE_FONTS if name in installed))


@functools.lru_cache(maxsize=4)
def _font_paths(weight: str) -> tuple[str, ...]:
    """Files of the font families."""
    return tuple(str(font_manager.findfont(FontProperties(family=name, weight=weight))) for name in font_families())


@functools.lru_cache(maxsize=64)
def _characters_of(font_path: str) -> frozenset[int]:
    """Code points that a font can draw."""
    return frozenset(font_manager.get_font(font_path).get_charmap())


def line_height(size: float) -> float:
    """Distance between two lines of text, in inches."""
    return size * 1.35 / 72
