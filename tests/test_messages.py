"""What messages quote: one short line, in no time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from foreign_files.messages import MAX_QUOTED, shorten, shorten_path, shorten_reason

KNOWN = {
    "text": ("a cat", "'a cat'"),
    "bytes": (b"ab", "b'ab'"),
    "number": (3, "3"),
    "none": (None, "None"),
    "fraction": (1.5, "1.5"),
    "path": (Path("a/b"), "'a/b'"),
    "list": ([1, "b"], "[1, 'b']"),
    "tuple": ((1, 2), "(1, 2)"),
    "dictionary": ({"a": [1]}, "{'a': [1]}"),
    "long list": (list(range(9)), "[0, 1, 2, 3, ... 5 more]"),
    "deep list": ([[[[[1]]]]], "[[[[...]]]]"),
    "huge number": (10**400, "a whole number of 1329 bits"),
    "line break": ("a\nb", r"'a\nb'"),
    "surrogate": ("\ud800", r"'\ud800'"),
    "missing key": (KeyError("x"), "no key 'x'"),
    "error of two lines": (ValueError("two\n  lines"), "two lines"),
    "empty error": (ValueError(), "ValueError"),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_answers(name: str) -> None:
    value, line = KNOWN[name]
    assert shorten(value) == line


def test_everything_is_cut_to_one_short_line() -> None:
    for value in ("x" * 10**6, b"\0" * 10**6, ["x" * 1000] * 10, {"k" * 500: "\n" * 500}, ValueError("e\n" * 10**5)):
        line = shorten(value)
        assert len(line) <= MAX_QUOTED
        assert line.isprintable()
        assert "..." in line


def test_reasons_hold_no_control_characters() -> None:
    assert shorten_reason("bad \x1b[31m\x00 byte\u2028here") == r"bad \x1b[31m\x00 byte\u2028here"
    assert len(shorten_reason("x" * 10**6)) == 200


def test_shared_lists_do_not_unfold() -> None:
    value: list[object] = ["x"]
    for _ in range(60):
        value = [value] * 10
    start = time.process_time()  # not the clock's, which a busy machine stretches
    assert len(shorten(value)) <= MAX_QUOTED
    assert time.process_time() - start < 1


def test_a_long_path_keeps_its_name() -> None:
    path = "/very" * 100 + "/picture.png"
    spelt = shorten_path(path)
    assert len(spelt) <= 150
    assert len(shorten_path("\0b" * 4000)) <= 150
    assert spelt.endswith("/picture.png'")
    assert "..." in spelt
    assert shorten_path("a\nb.png") == r"'a\nb.png'"
    assert shorten_path("short.png") == "'short.png'"
