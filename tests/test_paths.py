"""Names of files: safe, distinct, found again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.storage import paths
from lab.storage.paths import (
    OutputPaths,
    differ_by_case_only,
    distinct_name,
    find_attention_file,
    find_stem,
    list_attention_files,
    possible_stems,
    safe_name,
)


@pytest.mark.parametrize(
    ("sample_id", "name"),
    [
        ("example_1", "example_1"),
        ("a.b-c", "a.b-c"),
        ("a/b", "a%2Fb"),
        ("../x", "%2E.%2Fx"),
        (".", "%2E"),
        ("..", "%2E."),
        ("a b%", "a%20b%25"),
        ("naïve", "na%C3%AFve"),
        ("a\x00\\", "a%00%5C"),
        ("a~", "a%7E"),
        ("a_meta", "a%5Fmeta"),
        ("a_analysis", "a%5Fanalysis"),
        ("\ud800", "%ED%A0%80"),
        ("con", "%63on"),
        ("nul.x", "%6Eul.x"),
        ("com1", "%63om1"),
        ("CON", "%43ON"),
        ("console", "console"),
        ("a ", "a%20"),
        ("Bird", "Bird"),
        ("É", "%C3%89"),
    ],
    ids=ascii,
)
def test_safe_name_known_answers(sample_id: str, name: str) -> None:
    assert safe_name(sample_id) == name


def test_safe_name_refuses_empty_id() -> None:
    with pytest.raises(ValueError, match="id to be non-empty text"):
        safe_name("")


def test_safe_name_cuts_long_ids_and_keeps_them_apart() -> None:
    names = {safe_name("é" * 400 + ending) for ending in ("", "a", "b")}
    assert len(names) == 3
    assert all(len(name) == 160 and re.fullmatch(r"[A-Za-z0-9_.%-]+~[0-9a-f]{20}", name) for name in names)


any_id = st.text(st.characters(exclude_categories=()), min_size=1, max_size=300) | st.sampled_from(
    [
        "a_meta",
        "a%5Fmeta",
        "_analysis",
        "~",
        "a" * 200,
        "A" * 200,
        "Ab",
        "aB",
        "ab",
        "ab~1",
        "con",
        "CON",
        "nul.",
        "aux.b",
    ]
)


@given(any_id, any_id)
def test_safe_name_never_leaves_the_directory_and_never_collides(first: str, second: str) -> None:
    name = safe_name(first)
    assert re.fullmatch(r"[A-Za-z0-9_.%~-]{1,160}", name)
    assert not name.startswith(".")
    assert (name == safe_name(second)) == (first == second)
    assert (distinct_name(first).lower() == distinct_name(second).lower()) == (first == second)
    assert name.split(".")[0].lower() not in {"con", "prn", "aux", "nul", "com1", "lpt9"}


@given(any_id)
def test_ids_that_differ_by_case_only_are_two_files_everywhere(sample_id: str) -> None:
    variants = {sample_id, sample_id.lower(), sample_id.upper(), sample_id.swapcase(), sample_id.title()} - {""}
    assert len({distinct_name(variant).lower() for variant in variants}) == len(variants)


@pytest.mark.parametrize(
    ("sample_id", "name"),
    [("Bird", "Bird~1"), ("bIrd", "bIrd~2"), ("COCO_7", "COCO_7~f"), ("bird", "bird"), ("CON", "%43ON~7")],
    ids=["first", "second", "four", "none", "device"],
)
def test_distinct_name_says_which_letters_are_capitals(sample_id: str, name: str) -> None:
    assert distinct_name(sample_id) == name


def test_only_ids_that_meet_another_need_a_distinct_name() -> None:
    assert differ_by_case_only(["Bird", "bird", "Cat", "dog"]) == {"Bird", "bird"}


def test_results_are_found_under_any_name_that_a_run_may_have_given() -> None:
    assert find_stem("Bird", {"Bird_bbox.json"}) == "Bird"
    assert find_stem("Bird", {"Bird_bbox.json", "Bird~1_bbox.json"}) == "Bird~1"
    assert find_stem("Bird", {"bird_bbox.json"}) == "Bird"
    assert find_stem("con", {"con.pkl.gz"}, [".pkl.gz"]) == "con"
    assert find_stem("bird", set()) == "bird"


def test_no_file_of_one_id_is_a_file_of_another(tmp_path: Path) -> None:
    ids = ["a", "a_meta", "a_analysis", "a_top3", "a_mask", "a_bbox", "a.pkl"]
    paths = [path for sample_id in ids for path in OutputPaths(tmp_path, sample_id).all_paths()]
    assert len(set(paths)) == len(paths)


def test_output_paths_are_those_of_the_readme(tmp_path: Path) -> None:
    paths = OutputPaths(tmp_path, "sample", top_k=5)
    names = [path.name for path in (paths.attention(), paths.analysis, paths.figure(), paths.mask, paths.bbox_json)]
    assert names == ["sample.pkl.gz", "sample_analysis.pkl", "sample_top5.png", "sample_mask.png", "sample_bbox.json"]
    assert [paths.attention(False).name, paths.meta_json.name] == ["sample.pkl", "sample_meta.json"]


def test_a_twin_is_found_from_every_spelling(tmp_path: Path) -> None:
    (tmp_path / "x.y.pkl.gz").write_bytes(b"x")
    for name in ("x.y.pkl", "x.y.pkl.gz", "x.y"):
        assert find_attention_file(tmp_path / name).name == "x.y.pkl.gz"
    with pytest.raises(FileNotFoundError, match="no_such.pkl .*found none"):
        find_attention_file(tmp_path / "no_such.pkl")


def test_list_attention_files_leaves_other_pickles_out(tmp_path: Path) -> None:
    for name in ("b.pkl", "a.pkl.gz", "a_analysis.pkl", "a_meta.pkl", ".c.pkl.gz.1-ab.part", "d_bbox.json"):
        (tmp_path / name).write_bytes(b"x")
    assert [path.name for path in list_attention_files(tmp_path)] == ["a.pkl.gz", "b.pkl"]
    with pytest.raises(NotADirectoryError, match=r"data\.batch_attention_dir"):
        list_attention_files(tmp_path / "none")


@given(any_id | st.from_regex(r"[a-z0-9_]{1,12}", fullmatch=True) | st.sampled_from(["com1", "a_analysis", "x" * 161]))
def test_the_short_way_to_the_stems_is_the_long_way(sample_id: str) -> None:
    cut = paths._cut(paths._encode(sample_id), sample_id)  # as versions gave it that knew no devices
    assert possible_stems(sample_id) == tuple(dict.fromkeys((distinct_name(sample_id), safe_name(sample_id), cut)))
