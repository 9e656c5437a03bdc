"""Rows of an input file: forms of files, odd rows, paths."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from lab.datasets.rows import RowFields, read_rows
from lab.datasets.tables import quote_short, read_table


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(b"picture")
    return tmp_path


def row(sample_id: object = "x", prompt: str = "the bird", image: str = "a.png") -> dict:
    return {"id": sample_id, "prompt": prompt, "image_path": image}


def write(directory: Path, name: str, content: str | bytes) -> Path:
    path = directory / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return path


def read(path: Path, **limits) -> tuple[list[tuple], list[tuple]]:
    selection = read_rows(path, RowFields(), **limits)
    found = [(sample.line_number, sample.id, sample.query) for sample in selection.samples]
    return found, [(failure.line_number, failure.id, failure.reason) for failure in selection.failures]


# One bad row costs that row


def test_a_lone_surrogate_costs_its_row(directory) -> None:
    lines = [json.dumps(row("a")), r'{"id": "b", "prompt": "the \ud800 bird", "image_path": "a.png"}']
    found, failures = read(write(directory, "rows.jsonl", "\n".join(lines)))
    assert found == [(1, "a", "the bird")]
    [(line, sample_id, reason)] = failures
    assert (line, sample_id) == (2, "b")
    assert reason.startswith(r"Expected 'prompt' to be text that UTF-8 can hold, but got '\ud800' at character 4")
    reason.encode("ascii")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_path": "https://x.org/a.png"}, "a path of this machine, but got the URL 'https://x.org/a.png'"),
        ({"image_path": "s3://bucket/a.png"}, "Download it first"),
        ({"image_path": "a\0.png"}, r"Expected an image at 'a\x00.png'"),
        ({"image_path": "a" * 5000}, "Expected an image at 'aaaa"),
        ({"image_path": "~nobody-of-this-name/a.png"}, "Expected an image at '~nobody-of-this-name/a.png'"),
        ({"prompt": ["a"] * 5000}, "Expected 'prompt' to be non-empty text, but got ['a', 'a'"),
        ({"prompt": None}, "but got None"),
        ({"id": 1.5}, "text or a whole number, but got 1.5"),
        ({"id": {}}, "but got {}"),
    ],
    ids=["http", "s3", "nul", "long", "no-home", "list", "null", "fraction", "object"],
)
def test_an_odd_value_costs_its_row_and_is_told_in_one_short_line(directory, change, words) -> None:
    lines = [json.dumps(row("a")), json.dumps({**row("b"), **change})]
    found, failures = read(write(directory, "rows.jsonl", "\n".join(lines)))
    assert [sample_id for _, sample_id, _ in found] == ["a"]
    [(_, _, reason)] = failures
    assert words in reason
    assert len(reason) < 400
    assert "\n" not in reason


def test_many_keys_are_not_all_listed(directory) -> None:
    path = write(directory, "rows.jsonl", json.dumps({f"key{number}": 1 for number in range(1000)}))
    [(_, _, reason)] = read(path)[1]
    assert "'key0', 'key1'" in reason
    assert len(reason) < 200


def test_an_id_in_a_thousand_lines_is_told_in_one_short_line(directory) -> None:
    path = write(directory, "rows.jsonl", "\n".join([json.dumps(row("x" * 500))] * 1000))
    with pytest.raises(ValueError, match=r"in lines 1, 2, 3, 4, 5, 6, \.\.\.\. Results are named by id") as caught:
        read(path)
    assert len(str(caught.value)) < 500


def test_white_space_at_the_ends_of_a_query_is_left_out_and_said_once(directory, caplog) -> None:
    caplog.set_level(logging.INFO)
    prompts = ["the bird", "the bird ", "\tthe bird\n", " the  bird"]
    path = write(directory, "rows.jsonl", "\n".join(json.dumps(row(n, text)) for n, text in enumerate(prompts)))
    assert [query for _, _, query in read(path)[0]] == ["the bird", "the bird", "the bird", "the  bird"]
    assert [record.getMessage() for record in caplog.records] == [
        "3 queries have white space at their ends, which is left out (the first in line 2)."
    ]


def test_a_clean_file_is_read_without_a_word(directory, caplog) -> None:
    caplog.set_level(logging.INFO)
    read(write(directory, "rows.jsonl", json.dumps(row())))
    assert caplog.records == []


# Forms of files

EXPECTED = [("a", "the bird, left"), ("7", 'a "red" box')]


@pytest.mark.parametrize("indent", [None, 2], ids=["one-line", "pretty-printed"])
@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_a_json_array_is_read(directory, name, indent) -> None:
    rows = [row("a", EXPECTED[0][1]), row(7, EXPECTED[1][1])]
    path = write(directory, name, b"\xef\xbb\xbf" + json.dumps(rows, indent=indent).encode())
    found, failures = read(path)
    assert [entry[1:] for entry in found] == EXPECTED
    assert [entry[0] for entry in found] == [1, 2]
    assert failures == []


def test_items_of_an_array_that_are_no_objects_cost_themselves_only(directory) -> None:
    path = write(directory, "rows.json", json.dumps([row("a"), 5, row("b")], indent=1))
    found, failures = read(path)
    assert [entry[:2] for entry in found] == [(1, "a"), (3, "b")]
    assert failures == [(2, None, "Expected item 2 of the array to be a JSON object, but got a int.")]


def test_lines_the_first_of_which_is_an_array_stay_lines(directory) -> None:
    path = write(directory, "rows.jsonl", '["a", "list"]\n' + json.dumps(row("b")))
    found, failures = read(path)
    assert [entry[:2] for entry in found] == [(2, "b")]
    assert failures == [(1, None, "Expected line 1 to be a JSON object, but got a list.")]


def test_one_object_over_many_lines_is_one_error_and_not_one_for_each_line(directory) -> None:
    path = write(directory, "rows.json", json.dumps({"data": [row("a"), row("b")], "info": 1}, indent=2))
    with pytest.raises(ValueError, match=r"on each line, or one array .* one JSON object with the keys 'data', 'info'"):
        read(path)


CSV = {
    "comma": ("rows.csv", 'id,prompt,image_path\r\na,"the bird, left",a.png\r\n\r\n7,"a ""red"" box",a.png\r\n'),
    "semicolon": ("rows.csv", 'id;prompt;image_path\na;the bird, left;a.png\n7;"a ""red"" box";a.png\n'),
    "tab": ("rows.tsv", '\ufeffid\tprompt\timage_path\na\tthe bird, left\ta.png\n7\t"a ""red"" box"\ta.png\n'),
}


@pytest.mark.parametrize("form", list(CSV))
def test_a_table_with_a_header_is_read(directory, form) -> None:
    name, content = CSV[form]
    found, failures = read(write(directory, name, content))
    assert [entry[1:] for entry in found] == EXPECTED
    assert failures == []


def test_bad_lines_of_a_table_cost_themselves_only(directory) -> None:
    content = b"id,prompt,image_path\na,the bird,a.png\nb,too,many,cells,here\nc,\xff,a.png\nd,the bird,a.png\n"
    found, failures = read(write(directory, "rows.csv", content))
    assert [entry[:2] for entry in found] == [(2, "a"), (5, "d")]
    assert [failure[0] for failure in failures] == [3, 4]
    assert "to have 3 cells, but got 5" in failures[0][2]
    assert "UTF-8 can hold" in failures[1][2]


@pytest.mark.parametrize(
    ("content", "words"),
    [("", "an empty file"), ("id,prompt,prompt\n", "'prompt' twice")],
    ids=["empty", "twice"],
)
def test_a_table_without_a_usable_header_is_refused(directory, content, words) -> None:
    with pytest.raises(ValueError, match=f"to name the columns, each once, but got {words}"):
        read_table(write(directory, "rows.csv", content))


# Paths


def test_urls_are_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"the data file to be a path of this machine, .*Download it first"):
        read_rows("https://x.org/rows.jsonl", RowFields())


def test_the_home_directory_is_meant_by_a_tilde(directory, monkeypatch) -> None:
    home = directory / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    (home / "b.png").write_bytes(b"picture")
    write(home, "rows.jsonl", json.dumps(row("a", image="~/b.png")))
    selection = read_rows("~/rows.jsonl", RowFields())
    assert [sample.image_file for sample in selection.samples] == [str(home / "b.png")]


def test_what_is_quoted_is_short() -> None:
    assert quote_short("a" * 10_000_000) == "'" + "a" * 76 + "..."
    assert len(quote_short(list(range(10**6)))) == 80
    assert quote_short("a\nb") == r"'a\nb'"
