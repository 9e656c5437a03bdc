"""A stored file's template is the one whose words its prompt has, whatever it was called at the time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fake_collector import collect_one

import pipeline
from command_line.results import StageResult
from lab.config.settings import DataSettings, LogicSettings, ModelSettings, Settings
from lab.heads.heads_file import FixedHead, HeadsFile, write_heads_file
from lab.records import Sample
from lab.storage.attention_files import save_attention
from llava.conversation import get_template
from pipeline import main, run
from stages.stored_attention import load_stored

QUERY = "a cat"
OLD_PROMPT = get_template("picturebook").prompt(QUERY)


def save(path: Path, **meta: object) -> Path:
    collected = collect_one(Sample("s", "x.png", QUERY))
    save_attention(path, replace(collected, meta={**collected.meta, **meta}))
    return path


@pytest.mark.parametrize(
    ("named", "prompt", "today"),
    [
        pytest.param("referseg", OLD_PROMPT, "picturebook", id="renamed"),
        pytest.param("referseg", get_template("referseg").prompt(QUERY), "referseg", id="published"),
        pytest.param("vicuna_v1", get_template("v1").prompt(QUERY), "vicuna_v1", id="two_names_for_one_text"),
        pytest.param("referseg", "Words of nobody.\n<image>\na cat", "referseg", id="words_of_no_template"),
        pytest.param("mine", OLD_PROMPT, "mine", id="template_of_others"),
        pytest.param("referseg", ["no", "text"], "referseg", id="prompt_that_is_no_text"),
        pytest.param(None, OLD_PROMPT, None, id="no_name"),
    ],
)
def test_template_goes_by_the_prompts_words(tmp_path, named, prompt, today) -> None:
    path = save(tmp_path / "s.pkl.gz", prompt_template=named, prompt=prompt)
    assert load_stored(path).meta["prompt_template"] == today


def test_query_that_no_template_lays_out(tmp_path) -> None:
    collected = collect_one(Sample("s", "x.png", "<image> and <image>"))
    save_attention(tmp_path / "s.pkl", replace(collected, meta={**collected.meta, "prompt": OLD_PROMPT}))
    assert load_stored(tmp_path / "s.pkl").meta["prompt_template"] == "referseg"


def test_heads_of_the_picture_book_serve_files_from_before_its_template_had_a_name(tmp_path, make_image) -> None:
    path = save(tmp_path / "s.pkl.gz", prompt_template="referseg", prompt=OLD_PROMPT)
    heads = (FixedHead(3, 1, 1.0),)
    write_heads_file(tmp_path / "heads.yaml", HeadsFile("fake/model", "picturebook", 6, 4, heads))
    logic = LogicSettings(heads_file=str(tmp_path / "heads.yaml"), top_k=1)
    data = DataSettings(attention_file=str(path), image_file=make_image())
    run(Settings(stage="visualize", model=ModelSettings(name="fake/model"), logic=logic, data=data))
    record = json.loads((tmp_path / "s_bbox.json").read_text())
    assert record["prompt_template"] == "picturebook"
    assert record["heads_source"] == "heads_file"


@pytest.mark.parametrize(
    "image_file",
    [pytest.param("a" * 90_000, id="longer_than_any_path"), pytest.param("a\0b" * 900, id="with_nul")],
)
def test_picture_at_a_path_that_no_system_takes(tmp_path, monkeypatch, capsys, image_file) -> None:
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "s.pkl.gz", model_name="examples/models/picturebook-llava")
    collected = load_stored(path, image_file)
    save_attention(path, collected)
    quiet = ("hydra/job_logging=none", "hydra/hydra_logging=none", "model=picturebook", "logic.heads_file=null")
    assert main(["stage=visualize", f"data.attention_file={path}", *quiet]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: Expected the image of 's' at 'a")
    assert line.endswith("but found none. Say where it is with data.image_file.")
    assert len(line) < 250


def test_errors_are_one_line_of_bounded_length(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def fail(settings: Settings, load: object) -> StageResult:
        raise ValueError("Expected x, but got " + "y\n" * 9000)

    monkeypatch.setitem(pipeline.STAGES, "analyze", fail)
    path = save(tmp_path / "s.pkl.gz")
    assert main(["stage=analyze", f"data.attention_file={path}", "hydra/job_logging=none"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: Expected x, but got y y ")
    assert len(line) < 1100
