"""JSON, JSON lines and YAML within bounds: what is good is read as ever, what costs is refused first."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml

from foreign_files.bounded_json import MAX_DEPTH, parse_json, read_json, read_jsonl
from foreign_files.bounded_yaml import MAX_DEPTH as MAX_YAML_DEPTH
from foreign_files.bounded_yaml import read_yaml


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _nested(depth: int) -> bytes:
    return b"[" * depth + b"1" + b"]" * depth


def test_good_json_is_read_as_json_reads_it(tmp_path: Path) -> None:
    value = {"a": [1, -2, 0.5, 1e300, None, True, 'é\\" [[[{{{ \n'], "b": {"c": {}}, "d": 10**99, "e": "[" * 500}
    data = json.dumps(value).encode()
    assert read_json(_write(tmp_path / "a.json", data)) == value
    assert read_json(_write(tmp_path / "a.json", b"\xef\xbb\xbf" + data)) == value
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


def test_depth_is_counted_outside_of_quotes() -> None:
    assert parse_json(_nested(MAX_DEPTH)) is not None
    with pytest.raises(ValueError, match="nested more than 50 deep"):
        parse_json(_nested(MAX_DEPTH + 1))
    quoted = json.dumps({"a": '\\"' + "[" * 100 + "\\", "b": [[]] * 100}).encode()
    assert parse_json(quoted) == json.loads(quoted)
    with pytest.raises(ValueError, match="nested more than 3 deep"):
        parse_json(_nested(4), max_depth=3)


@pytest.mark.parametrize("digits", ["9" * 101, "0." + "1" * 100, "1e" + "1" * 100], ids=["whole", "fraction", "power"])
def test_long_numbers_are_refused_and_the_file_is_named(tmp_path: Path, digits: str) -> None:
    path = _write(tmp_path / "a.json", b'{"a": ' + digits.encode() + b"}")
    with pytest.raises(ValueError, match=rf"Expected {path} to hold readable JSON, but got a number of 10\d digits"):
        read_json(path)


def test_large_files_are_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.json", b" " * 100 + b"1")
    assert read_json(path, max_bytes=101) == 1
    with pytest.raises(ValueError, match="more than 100 bytes"):
        read_json(path, max_bytes=100)


def test_a_long_line_costs_itself_only(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.jsonl", b'{"a": 1}\n{"a": "' + b"b" * 5000 + b'"}\n\n{"a": 2}\n' + b"c" * 3000)
    lines = [(line.number, line.row, line.error[-24:]) for line in read_jsonl(path, max_bytes=1000)]
    assert lines == [
        (1, {"a": 1}, ""),
        (2, None, "JSON: more than 1000 bytes."[-24:]),
        (4, {"a": 2}, ""),
        (5, None, "JSON: more than 1000 bytes."[-24:]),
    ]


def test_a_line_as_long_as_may_be_is_read(tmp_path: Path) -> None:
    row = b'{"a": "' + b"b" * 91 + b'"}'
    path = _write(tmp_path / "a.jsonl", row + b"\n" + row)
    assert [line.error for line in read_jsonl(path, max_bytes=len(row) + 1)] == ["", ""]


def test_checking_costs_little(tmp_path: Path) -> None:
    """Twice the time of json.loads would be felt with 100,000 rows."""
    row = json.dumps({"id": "row", "prompt": "the bird on the left", "image_path": "a/b.jpg", "bbox": [1, 2, 3, 4]})
    lines = [row.encode()] * 20_000

    def seconds(parse) -> float:
        start = time.process_time()
        for line in lines:
            parse(line)
        return time.process_time() - start

    plain = min(seconds(json.loads) for _ in range(3))
    assert min(seconds(parse_json) for _ in range(3)) < 5 * plain + 0.5


# YAML


def test_good_yaml_is_read_as_yaml_reads_it(tmp_path: Path) -> None:
    text = "a: &a {b: 1, c: [0.5, x]}\nd: *a\ne: [*a, *a]\nf: null\ng: é\nh: {<<: *a, b: 2}\n"
    assert read_yaml(_write(tmp_path / "a.yaml", text.encode())) == yaml.safe_load(text)


def test_depth_of_yaml_counts_through_references(tmp_path: Path) -> None:
    depth = MAX_YAML_DEPTH - 1
    good = "[" * depth + "]" * depth
    assert read_yaml(_write(tmp_path / "a.yaml", good.encode())) == yaml.safe_load(good)
    half = "[" * 8 + "]" * 8
    assert read_yaml(_write(tmp_path / "a.yaml", f"a: &a {half}\nb: [[*a]]\n".encode())) is not None
    with pytest.raises(ValueError, match="nested more than 20 deep"):
        read_yaml(_write(tmp_path / "a.yaml", f"a: &a {half}\nb: &b {'[' * 8}*a{']' * 8}\nc: [[[[*b]]]]\n".encode()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "expected"),
        ("a: *b", "unfold"),
        ("!!python/name:os.system", "could not determine"),
        ("a: " + "9" * 101, "digits"),
    ],
    ids=["unclosed", "unknown reference", "code", "number"],
)
def test_bad_yaml_is_told_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_yaml(_write(tmp_path / "a.yaml", text.encode()))
    assert str(caught.value).isprintable()
