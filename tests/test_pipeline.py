"""The stages on planted attention: what they find, what they write, what they do when things go wrong."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from fake_collector import (
    GRID,
    HEADS,
    LAYERS,
    LOCALIZATION_HEADS,
    FakeCollector,
    collect_one,
    read_results,
    target_box,
    write_rows,
)

import pipeline
from command_line.tables import format_table
from lab.config.settings import (
    AttentionStorageSettings,
    ConfigError,
    DataSettings,
    HeadIndex,
    LogicSettings,
    MaskSettings,
    ModelSettings,
    Settings,
    SmoothingSettings,
    StorageSettings,
    ThresholdSettings,
)
from lab.heads.heads_file import FixedHead, HeadsFile, read_heads_file, write_heads_file
from lab.records import Sample
from lab.storage import files
from lab.storage.attention_files import save_attention
from lab.storage.background import map_in_background
from lab.storage.paths import OutputPaths, safe_name
from pipeline import run
from stages.single import single_id

ROOT = Path(__file__).parent.parent
# Without smoothing a planted block gives exactly its box.
LOGIC = LogicSettings(smoothing=SmoothingSettings(sigma=0.0))
MODEL = ModelSettings(name="fake/model")


@pytest.fixture
def fake() -> FakeCollector:
    return FakeCollector()


def make_settings(tmp_path: Path, stage: str = "pipeline", logic: LogicSettings = LOGIC, **data) -> Settings:
    data.setdefault("output_dir", str(tmp_path / "out"))
    return Settings(stage=stage, model=MODEL, logic=logic, data=DataSettings(**data))


def result_dir(tmp_path: Path) -> Path:
    return tmp_path / "out" / "fake-model"


def load_box(tmp_path: Path, sample_id: str) -> dict:
    return files.load_bbox_json(OutputPaths(result_dir(tmp_path), sample_id).bbox_json)


def done_ids(tmp_path: Path) -> set[str]:
    return {path.name[: -len("_bbox.json")] for path in result_dir(tmp_path).glob("*_bbox.json")}


def failures(tmp_path: Path) -> list[dict]:
    path = result_dir(tmp_path) / "failures.jsonl"
    return [line.row for line in files.read_jsonl(path)] if path.exists() else []


# One image, one query


def test_pipeline_finds_exactly_the_planted_box_and_writes_every_file(tmp_path, make_image, fake) -> None:
    query = "the bird on the branch"
    settings = make_settings(tmp_path, image_file=make_image("bird.png"), query=query)
    result = run(settings, fake.load)
    stem = "bird_the-bird-on-the-branch"
    names = {path.name for path in result_dir(tmp_path).iterdir()}
    endings = (".pkl.gz", "_meta.json", "_analysis.pkl", "_top3.png", "_mask.png", "_bbox.json")
    assert names == {stem + ending for ending in endings}
    record = load_box(tmp_path, stem)
    assert record["bbox_xyxy"] == target_box(query)
    assert {(head["layer"], head["head"]) for head in record["selected_heads"]} == set(LOCALIZATION_HEADS)
    assert (record["heads_source"], record["query"], record["image_size"]) == ("automatic", query, [160, 120])
    assert record["model_name"] == "fake/model"
    summary = "\n".join(result.lines)
    assert f"box     x {target_box(query)[0]:.1f} to" in summary
    assert all(name in summary for name in names)
    ranked = files.load_analysis(result_dir(tmp_path) / f"{stem}_analysis.pkl")
    assert {(score.layer, score.head) for score in ranked[:3]} == set(LOCALIZATION_HEADS)


def test_mask_is_the_planted_block(tmp_path, make_image, fake) -> None:
    from PIL import Image

    run(make_settings(tmp_path, image_file=make_image(), query="a", save_id="s"), fake.load)
    x0, y0, x1, y1 = (int(edge) for edge in target_box("a"))
    mask = np.zeros((120, 160), dtype=np.uint8)
    mask[y0:y1, x0:x1] = 255
    with Image.open(result_dir(tmp_path) / "s_mask.png") as image:
        np.testing.assert_array_equal(np.asarray(image), mask)


def test_collect_then_analyze_and_visualize_equals_pipeline(tmp_path, make_image, fake) -> None:
    single = {"image_file": make_image(), "query": "a cat", "save_id": "s"}
    run(make_settings(tmp_path, output_dir=str(tmp_path / "one"), **single), fake.load)
    in_steps = {"output_dir": str(tmp_path / "two"), **single}
    run(make_settings(tmp_path, "collect", **in_steps), fake.load)
    assert {path.name for path in (tmp_path / "two/fake-model").iterdir()} == {"s.pkl.gz", "s_meta.json"}
    stored = {"attention_file": str(tmp_path / "two/fake-model/s.pkl"), "output_dir": "unused"}
    analyzed = run(make_settings(tmp_path, "analyze", **stored), fake.load)
    run(make_settings(tmp_path, "visualize", **stored), fake.load)
    one, two = (read_results(tmp_path / name / "fake-model") for name in ("one", "two"))
    assert one == two
    assert fake.asked == ["s", "s"]
    assert any(line.split()[:2] == ["1", "L3H1"] for line in analyzed.lines)
    assert not Path("unused").exists()


def test_save_fig_false_and_storage_options(tmp_path, make_image, fake) -> None:
    settings = make_settings(tmp_path, image_file=make_image(), query="a", save_id="s")
    storage = StorageSettings(AttentionStorageSettings(compress=False, keep_meta_pickle=True, dtype="float32"))
    run(replace(settings, save_fig=False, storage=storage), fake.load)
    names = {path.name for path in result_dir(tmp_path).iterdir()}
    assert names == {"s.pkl", "s_meta.json", "s_meta.pkl", "s_analysis.pkl", "s_mask.png", "s_bbox.json"}
    with open(result_dir(tmp_path) / "s.pkl", "rb") as file:
        stored = pickle.load(file)
    assert str(stored["attn"].dtype) == "torch.float32"
    assert list(stored["attn"].shape) == [LAYERS, HEADS, 1, GRID.num_cells]


def test_show_plot_opens_a_window_without_saving(tmp_path, make_image, fake, monkeypatch) -> None:
    shown = []
    monkeypatch.setattr("viz.show", shown.append)
    settings = make_settings(tmp_path, image_file=make_image(), query="a", save_id="s")
    run(replace(settings, save_fig=False, show_plot=True), fake.load)
    assert len(shown) == 1
    assert not list(result_dir(tmp_path).glob("*_top3.png"))


def test_a_single_run_that_fails_is_an_error(tmp_path, make_image, fake) -> None:
    with pytest.raises(ValueError, match=r"broken\.png' to be a readable image"):
        run(make_settings(tmp_path, image_file=make_image("broken.png"), query="a"), fake.load)
    assert not result_dir(tmp_path).exists()


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("the bird on the branch", "bird_the-bird-on-the-branch"),
        ("birds", "bird_birds"),
        ("birds.", "bird_birds-"),
        ("Birds", "bird_birds-"),
        ("鳥", "bird_"),
        ("x" * 100, f"bird_{'x' * 60}-"),
    ],
)
def test_single_id(query: str, name: str) -> None:
    made = single_id(Settings(data=DataSettings(image_file="a/b/bird.png", query=query)))
    assert made == name or (made.startswith(name) and len(made) == len(name) + 6 and not name[-1].isalpha())


def test_single_ids_of_different_queries_differ() -> None:
    queries = ["birds", "birds.", "Birds", "birds ", "bird s", "bird-s", "鳥", "島"]
    ids = {single_id(Settings(data=DataSettings(image_file="bird.png", query=query))) for query in queries}
    assert len(ids) == len(queries)
    assert single_id(Settings(data=DataSettings(image_file="b.png", query="x", save_id="mine"))) == "mine"


# Files of the public tool


def test_visualize_reads_a_legacy_file(tmp_path, make_image, fake, caplog) -> None:
    import torch

    collected = collect_one(Sample("old", make_image(), "a"))
    tensor = torch.from_numpy(collected.attention[:, :, None, :]).half()
    meta = {"image_file": make_image(), "query": "a", "image_size": [160, 120], "vis_len": 64, "model_name": "m"}
    path = tmp_path / "old%2Fname.pkl"
    path.write_bytes(pickle.dumps({"attn": tensor, "meta": meta}))
    run(make_settings(tmp_path, "visualize", attention_file=str(path)), fake.load)
    record = files.load_bbox_json(tmp_path / "old%2Fname_bbox.json")
    assert record["bbox_xyxy"] == target_box("a")
    assert "8 x 8 grid" in record["assumed"]
    assert "assumed" in caplog.text


def test_visualize_without_its_image_says_so(tmp_path, make_image, fake) -> None:
    image = make_image()
    path = tmp_path / "s.pkl.gz"
    save_attention(path, collect_one(Sample("s", str(tmp_path / "gone.png"), "a")))
    with pytest.raises(ConfigError, match=r"gone\.png', but found none\. Say where it is with data\.image_file"):
        run(make_settings(tmp_path, "visualize", attention_file=str(path)), fake.load)
    run(make_settings(tmp_path, "visualize", attention_file=str(path), image_file=image), fake.load)
    assert (tmp_path / "s_top3.png").is_file()


# Which heads


def write_heads(path: Path, heads=((4, 2), (3, 1)), **changes) -> str:
    content = {"model_name": "fake/model", "template": "referseg", "num_layers": LAYERS, "num_heads": HEADS, **changes}
    write_heads_file(path, HeadsFile(heads=tuple(FixedHead(*head) for head in heads), **content))
    return str(path)


def test_fixed_heads_are_used_unchanged_and_in_order(tmp_path, make_image, fake) -> None:
    logic = replace(LOGIC, heads_file=write_heads(tmp_path / "heads.yaml", ((0, 0), (4, 2))), top_k=2)
    run(make_settings(tmp_path, image_file=make_image(), query="a", save_id="s", logic=logic), fake.load)
    record = load_box(tmp_path, "s")
    assert [(head["layer"], head["head"]) for head in record["selected_heads"]] == [(0, 0), (4, 2)]
    assert record["heads_source"] == "heads_file"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_name": "other/model"}, "the model is 'other/model' there and 'fake/model' here"),
        ({"template": "v1"}, "the prompt template is 'v1' there and 'referseg' here"),
        ({"num_layers": 32, "num_heads": 32}, "number of layers is 32 there and 6 here"),
    ],
)
def test_heads_of_something_else_are_refused_unless_forced(tmp_path, make_image, fake, changes, message) -> None:
    logic = replace(LOGIC, heads_file=write_heads(tmp_path / "heads.yaml", **changes), top_k=2)
    settings = make_settings(tmp_path, image_file=make_image(), query="a", save_id="s", logic=logic)
    with pytest.raises(ValueError, match=message):
        run(settings, fake.load)
    # Where names tell, no model is loaded; the number of heads is known only with the attention.
    assert len(fake.stop_layers) == ("num_layers" in changes)
    run(replace(settings, logic=replace(logic, force_heads_file=True)), fake.load)
    assert any(message in note for note in load_box(tmp_path, "s")["heads_notes"])


def test_a_heads_file_that_is_too_short_is_refused(tmp_path, make_image, fake) -> None:
    logic = replace(LOGIC, heads_file=write_heads(tmp_path / "heads.yaml"))
    with pytest.raises(ValueError, match=r"at least logic\.top_k=3 heads, but got 2"):
        run(make_settings(tmp_path, image_file=make_image(), query="a", logic=logic), fake.load)
    assert fake.stop_layers == []


def test_manual_heads_are_taken_in_order_and_failures_are_told(tmp_path, make_image, fake) -> None:
    manual = [HeadIndex(5, 0), HeadIndex(0, 0), HeadIndex(3, 1)]
    logic = replace(LOGIC, manual_heads=manual)
    result = run(make_settings(tmp_path, image_file=make_image(), query="a", save_id="s", logic=logic), fake.load)
    record = load_box(tmp_path, "s")
    assert [(head["layer"], head["head"]) for head in record["selected_heads"]] == [(5, 0), (3, 1)]
    assert record["heads_source"] == "manual"
    assert "L0H0 was not used" in record["heads_notes"][0]
    assert any("L0H0 was not used" in line for line in result.lines)


def test_manual_heads_that_all_fail_fall_back_to_the_automatic_choice(tmp_path, make_image, fake) -> None:
    logic = replace(LOGIC, manual_heads=[HeadIndex(0, 0)])
    run(make_settings(tmp_path, image_file=make_image(), query="a", save_id="s", logic=logic), fake.load)
    record = load_box(tmp_path, "s")
    assert record["heads_source"] == "automatic"
    assert "No manual head passed" in " ".join(record["heads_notes"])


# Batches


def batch_settings(tmp_path: Path, count: int = 6, **changes) -> Settings:
    logic = changes.pop("logic", LOGIC)
    rows = changes.pop("data_file", None) or str(write_rows(tmp_path, count))
    return make_settings(tmp_path, "batch", logic, data_file=rows, **changes)


def test_batch_finds_every_planted_box(tmp_path, fake) -> None:
    result = run(batch_settings(tmp_path), fake.load)
    assert done_ids(tmp_path) == {f"row{number}" for number in range(6)}
    for number in range(6):
        assert load_box(tmp_path, f"row{number}")["bbox_xyxy"] == target_box(f"thing number {number}")
    assert result.failed == 0
    assert "6 done now" in result.lines[0]
    assert "0 failed" in result.lines[0]
    assert "per image 6" in result.lines[1]
    assert not list(result_dir(tmp_path).glob("*_top3.png"))
    assert failures(tmp_path) == []


def test_batch_and_single_runs_give_the_same_files(tmp_path, fake) -> None:
    path = write_rows(tmp_path, 6)
    rows = [{**json.loads(line), "bbox": None} for line in path.read_text().splitlines()]  # a single run knows none
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(batch_settings(tmp_path, data_file=str(path), visualize_batch=True), fake.load)
    of_batch = {name: value for name, value in read_results(result_dir(tmp_path)).items() if name.startswith("row4")}
    data = {"image_file": str(tmp_path / "image1.png"), "query": "thing number 4", "save_id": "row4"}
    run(make_settings(tmp_path, output_dir=str(tmp_path / "single"), **data), fake.load)
    assert read_results(tmp_path / "single/fake-model") == of_batch


def test_rows_of_one_image_reach_the_model_together(tmp_path, fake) -> None:
    run(batch_settings(tmp_path), fake.load)
    assert fake.asked == ["row0", "row3", "row1", "row4", "row2", "row5"]


def bad_rows(tmp_path: Path) -> Path:
    path = write_rows(tmp_path, 3)
    (tmp_path / "broken.png").write_bytes(b"no image")
    bad = [
        "{not json",
        json.dumps({"id": "no_prompt", "image_path": "image0.png"}),
        json.dumps({"id": "empty_prompt", "prompt": "  ", "image_path": "image0.png"}),
        json.dumps({"id": "no_image", "prompt": "x", "image_path": "gone.png"}),
        json.dumps({"id": "bad_image", "prompt": "x", "image_path": "broken.png"}),
        json.dumps({"prompt": "x", "image_path": "image0.png"}),
        json.dumps({"id": True, "prompt": "x", "image_path": "image0.png"}),
        json.dumps(["a", "list"]),
        json.dumps({"id": 7, "prompt": "seven", "image_path": "image0.png"}),
    ]
    path.write_text(path.read_text() + "\n".join(bad) + "\n")
    return path


def test_bad_rows_are_recorded_and_the_others_go_on(tmp_path, fake) -> None:
    result = run(batch_settings(tmp_path, data_file=str(bad_rows(tmp_path))), fake.load)
    assert done_ids(tmp_path) == {"row0", "row1", "row2", "7"}
    assert result.failed == 8
    assert "8 failed" in result.lines[0]
    assert any("failures.jsonl" in line for line in result.lines)
    found = {failure["line"]: (failure["id"], failure["reason"]) for failure in failures(tmp_path)}
    expected = {
        4: (None, "unreadable JSON"),
        5: ("no_prompt", "Expected the key 'prompt', but got only 'id', 'image_path'"),
        6: ("empty_prompt", "Expected 'prompt' to be non-empty text, but got '  '"),
        7: ("no_image", "Expected an image at 'gone.png'"),
        8: ("bad_image", "to be a readable image, but got a broken file"),
        9: (None, "Expected the key 'id'"),
        10: (None, "Expected 'id' to be text or a whole number, but got True"),
        11: (None, "but got a list"),
    }
    assert found.keys() == expected.keys()
    for line, (sample_id, words) in expected.items():
        assert found[line][0] == sample_id
        assert words in found[line][1]


def test_strict_stops_at_the_first_failure_before_loading_a_model(tmp_path, fake) -> None:
    settings = batch_settings(tmp_path, data_file=str(bad_rows(tmp_path)), strict=True)
    with pytest.raises(ValueError, match=r"data\.strict=true asks \(line 4\): .*unreadable JSON"):
        run(settings, fake.load)
    assert fake.stop_layers == []


def test_strict_stops_when_the_model_fails_and_keeps_what_was_done(tmp_path, fake) -> None:
    path = write_rows(tmp_path, 30, images=30)
    (tmp_path / "image2.png").rename(tmp_path / "broken.png")
    path.write_text(path.read_text().replace("image2.png", "broken.png"))
    with pytest.raises(ValueError, match="line 3, id 'row2'"):
        run(batch_settings(tmp_path, data_file=str(path), strict=True), fake.load)
    assert {"row0", "row1"} <= done_ids(tmp_path)
    assert "row29" not in done_ids(tmp_path)
    assert [failure["id"] for failure in failures(tmp_path)] == ["row2"]


def test_duplicate_ids_are_refused_before_anything_is_written(tmp_path, fake) -> None:
    path = write_rows(tmp_path, 4)
    path.write_text(path.read_text() + json.dumps({"id": "row1", "prompt": "x", "image_path": "image0.png"}))
    with pytest.raises(ValueError, match="its own 'id', but got 'row1' in lines 2, 5"):
        run(batch_settings(tmp_path, data_file=str(path)), fake.load)
    assert fake.stop_layers == []
    assert not (tmp_path / "out").exists()


def test_field_names_are_configurable_and_images_are_found_from_here_too(tmp_path, fake, monkeypatch) -> None:
    write_rows(tmp_path, 1)
    (tmp_path / "sub").mkdir()
    path = tmp_path / "sub" / "rows.jsonl"
    path.write_text(json.dumps({"question_id": 5, "text": "x", "image": "image0.png"}))
    monkeypatch.chdir(tmp_path)
    fields = {"id_field": "question_id", "prompt_field": "text", "image_field": "image"}
    assert run(batch_settings(tmp_path, data_file="sub/rows.jsonl", **fields), fake.load).failed == 0
    assert done_ids(tmp_path) == {"5"}


@pytest.mark.parametrize(
    ("limits", "ids"),
    [
        ({"start_index": 4}, {"row4", "row5"}),
        ({"end_index": 2}, {"row0", "row1"}),
        ({"start_index": 1, "end_index": 3, "process_all": False}, {"row1", "row2"}),
        ({"start_index": 5, "end_index": 99}, {"row5"}),
        ({"process_all": True}, {f"row{number}" for number in range(6)}),
    ],
)
def test_row_ranges_count_from_0_and_end_before_end_index(tmp_path, fake, limits, ids) -> None:
    run(batch_settings(tmp_path, **limits), fake.load)
    assert done_ids(tmp_path) == ids


def test_a_range_without_rows_is_an_error(tmp_path, fake) -> None:
    with pytest.raises(ValueError, match="at least one row in .* from index 6 up to its end, but got none of its 6"):
        run(batch_settings(tmp_path, start_index=6), fake.load)


def test_awkward_ids_become_safe_file_names(tmp_path, fake) -> None:
    path = write_rows(tmp_path, 1)
    row = json.loads(path.read_text())
    ids = ["../up", "a/b", ".hidden", "ünï", "a_meta", "x" * 300]
    path.write_text("".join(json.dumps({**row, "id": sample_id}) + "\n" for sample_id in ids))
    assert run(batch_settings(tmp_path, data_file=str(path)), fake.load).failed == 0
    assert done_ids(tmp_path) == {safe_name(sample_id) for sample_id in ids}
    assert {load_box(tmp_path, sample_id)["id"] for sample_id in ids} == set(ids)
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", "out", *(f"image{n}.png" for n in range(3))}


def test_boxes_only_writes_no_attention(tmp_path, fake) -> None:
    storage = StorageSettings(AttentionStorageSettings(save=False))
    run(replace(batch_settings(tmp_path, 1), storage=storage), fake.load)
    assert {path.name for path in result_dir(tmp_path).iterdir()} == {"row0_bbox.json", "row0_mask.png", "run.json"}
    assert fake.stop_layers == [None]


@pytest.mark.parametrize(
    ("save", "early_exit", "use_generate", "stop_layer"),
    [(False, True, False, 4), (True, True, False, None), (False, False, False, None), (False, True, True, None)],
)
def test_the_forward_pass_stops_early_only_where_nothing_deeper_is_wanted(
    tmp_path, fake, save, early_exit, use_generate, stop_layer
) -> None:
    logic = replace(LOGIC, heads_file=write_heads(tmp_path / "heads.yaml"), top_k=2)
    settings = replace(
        batch_settings(tmp_path, logic=logic),
        model=replace(MODEL, early_exit=early_exit, use_generate=use_generate),
        storage=StorageSettings(AttentionStorageSettings(save=save)),
    )
    assert run(settings, fake.load).failed == 0
    assert fake.stop_layers == [stop_layer]
    assert load_box(tmp_path, "row3")["bbox_xyxy"] == target_box("thing number 3")


# Second runs


def test_finished_ids_are_skipped_and_failed_ones_tried_again(tmp_path, fake) -> None:
    path = bad_rows(tmp_path)
    run(batch_settings(tmp_path, data_file=str(path)), fake.load)
    before = failures(tmp_path)
    fake.asked.clear()
    result = run(batch_settings(tmp_path, data_file=str(path)), fake.load)
    assert fake.asked == ["bad_image"]
    assert failures(tmp_path) == before
    assert "0 done now, 4 done before, 8 failed" in result.lines[0]
    path.write_text("\n".join(path.read_text().splitlines()[:3]))
    assert run(batch_settings(tmp_path, data_file=str(path)), fake.load).failed == 0
    assert fake.asked == ["bad_image"]


def test_failures_that_were_mended_are_forgotten(tmp_path, fake) -> None:
    settings = batch_settings(tmp_path, 2)
    (tmp_path / "image1.png").rename(tmp_path / "away.png")
    assert run(settings, fake.load).failed == 1
    assert [failure["id"] for failure in failures(tmp_path)] == ["row1"]
    (tmp_path / "away.png").rename(tmp_path / "image1.png")
    assert run(settings, fake.load).failed == 0
    assert not (result_dir(tmp_path) / "failures.jsonl").exists()


def test_failures_of_other_rows_are_kept(tmp_path, fake) -> None:
    path = bad_rows(tmp_path)
    run(batch_settings(tmp_path, data_file=str(path)), fake.load)
    run(batch_settings(tmp_path, data_file=str(path), end_index=4), fake.load)
    assert sorted(failure["line"] for failure in failures(tmp_path)) == [4, 5, 6, 7, 8, 9, 10, 11]


def test_a_finished_id_lacking_a_wanted_file_is_redone(tmp_path, fake) -> None:
    run(batch_settings(tmp_path, 3), fake.load)
    (result_dir(tmp_path) / "row1.pkl.gz").unlink()
    fake.asked.clear()
    run(batch_settings(tmp_path, 3), fake.load)
    assert fake.asked == ["row1"]
    run(batch_settings(tmp_path, 3, visualize_batch=True), fake.load)
    assert fake.asked == ["row1", "row0", "row1", "row2"]
    assert len(list(result_dir(tmp_path).glob("*_top3.png"))) == 3


def test_overwrite_redoes_everything(tmp_path, fake) -> None:
    run(batch_settings(tmp_path, 2), fake.load)
    run(batch_settings(tmp_path, 2, overwrite=True), fake.load)
    assert fake.asked == ["row0", "row1"] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logic": replace(LOGIC, top_k=2)}, "logic.top_k was 3 and is 2"),
        ({"logic": replace(LOGIC, mask=MaskSettings(region="all"))}, "logic.mask.region was 'largest' and is 'all'"),
        (
            {"logic": replace(LOGIC, threshold=ThresholdSettings(value=0.3))},
            "logic.threshold.value was None and is 0.3",
        ),
        ({"model": replace(MODEL, conv_mode="v1")}, "model.conv_mode was 'referseg' and is 'v1'"),
        ({"model": replace(MODEL, use_generate=True)}, "model.use_generate was False and is True"),
        (
            {"storage": StorageSettings(AttentionStorageSettings(dtype="float32"))},
            "storage.attention.dtype was 'float16' and is 'float32'",
        ),
    ],
)
def test_other_settings_in_the_same_directory_are_refused_and_named(tmp_path, fake, change, message) -> None:
    settings = batch_settings(tmp_path, 2)
    run(settings, fake.load)
    before = read_results(result_dir(tmp_path))
    with pytest.raises(ValueError, match=f"but got others: {message}.*data.overwrite=true"):
        run(replace(settings, **change), fake.load)
    assert read_results(result_dir(tmp_path)) == before
    run(replace(settings, **change, data=replace(settings.data, overwrite=True)), fake.load)
    assert fake.asked == ["row0", "row1"] * 2


@pytest.mark.parametrize(
    "change",
    [
        {"model": replace(MODEL, device="cpu", batch_size=4)},
        {"storage": StorageSettings(AttentionStorageSettings(level=3), workers=1)},
        {"save_fig": False},
    ],
)
def test_settings_that_do_not_shape_results_may_change(tmp_path, fake, change) -> None:
    settings = batch_settings(tmp_path, 2)
    run(settings, fake.load)
    assert "2 done before" in run(replace(settings, **change), fake.load).lines[0]


def test_an_overwriting_run_that_is_stopped_leaves_no_old_result_as_done(tmp_path, fake) -> None:
    settings = batch_settings(tmp_path, 3)
    run(settings, fake.load)
    changed = replace(settings, logic=replace(LOGIC, top_k=2), data=replace(settings.data, overwrite=True))

    def interrupted(model, stop_layer=None):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(changed, interrupted)
    assert done_ids(tmp_path) == set()
    fake.asked.clear()
    run(replace(changed, data=settings.data), fake.load)
    assert sorted(fake.asked) == ["row0", "row1", "row2"]


def test_results_left_from_other_settings_are_redone_not_skipped(tmp_path, fake) -> None:
    settings = batch_settings(tmp_path, 3)
    run(settings, fake.load)
    changed = replace(settings, logic=replace(LOGIC, top_k=2))
    run(replace(changed, data=replace(settings.data, overwrite=True, end_index=1)), fake.load)
    fake.asked.clear()
    run(changed, fake.load)
    assert fake.asked == ["row1", "row2"]


def test_results_of_another_data_set_under_the_same_ids_are_refused(tmp_path, fake) -> None:
    path = write_rows(tmp_path, 2)
    run(batch_settings(tmp_path, data_file=str(path)), fake.load)
    path.write_text(path.read_text().replace("thing number 1", "something else"))
    with pytest.raises(ValueError, match="to answer 'something else' about .*another data set"):
        run(batch_settings(tmp_path, data_file=str(path)), fake.load)


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
@pytest.mark.parametrize(
    "kills", [pytest.param(6, id="6_kills"), pytest.param(20, id="20_kills", marks=pytest.mark.slow)]
)
def test_a_batch_that_is_killed_again_and_again_ends_like_an_unstopped_one(tmp_path, kills) -> None:
    rows = 5 * kills
    path = write_rows(tmp_path, rows, images=2 * kills)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    command = [sys.executable, str(ROOT / "tests/batch_to_be_killed.py"), str(path)]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    finished: dict[str, int] = {}
    for more in np.random.default_rng(kills).integers(1, 4, kills):
        _kill_after(len(finished) + int(more), [*command, str(killed), "0.05", "2"], environment, killed)
        found = {file.name: file.stat().st_mtime_ns for file in killed.glob("fake-model/*_bbox.json")}
        assert found.items() >= finished.items()  # none lost, none done again
        finished = found
    assert len(finished) < rows
    (killed / f"fake-model/.row{rows - 1}.pkl.gz.1-ab.part").write_bytes(b"cut off")
    for directory in (killed, whole):
        subprocess.run([*command, str(directory), "0", "2"], env=environment, check=True, capture_output=True)
    assert read_results(killed / "fake-model") == read_results(whole / "fake-model")
    for name, modified in finished.items():
        assert (killed / "fake-model" / name).stat().st_mtime_ns == modified


def _kill_after(boxes: int, command: list[str], environment: dict[str, str], directory: Path) -> None:
    """Start a batch, and kill it once there are so many boxes."""
    log = directory.with_suffix(".stderr")
    with open(log, "wb") as stderr:
        process = subprocess.Popen(command, env=environment, stderr=stderr)
        deadline = time.monotonic() + 600
        while len(list(directory.glob("fake-model/*_bbox.json"))) < boxes and time.monotonic() < deadline:
            assert process.poll() is None, log.read_text()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_a_retried_row_keeps_the_company_of_a_whole_run(tmp_path) -> None:
    path = write_rows(tmp_path, 12, images=5)
    whole = tmp_path / "whole"
    model = replace(MODEL, batch_size=2)
    settings = replace(batch_settings(tmp_path, data_file=str(path), output_dir=str(whole)), model=model)
    run(settings, FakeCollector(company=2).load)
    run(replace(settings, data=replace(settings.data, output_dir=str(tmp_path / "out"))), FakeCollector(company=2).load)
    written = (result_dir(tmp_path) / "row5_bbox.json").stat().st_mtime_ns
    for lost in ("row8_bbox.json", "row11.pkl.gz"):
        (result_dir(tmp_path) / lost).unlink()
    again = FakeCollector(company=2)
    result = run(replace(settings, data=replace(settings.data, output_dir=str(tmp_path / "out"))), again.load)
    assert "2 done now" in result.lines[0]
    assert again.asked == ["row0", "row5", "row10", "row1", "row6", "row11", "row2", "row7", "row3", "row8"]
    assert read_results(result_dir(tmp_path)) == read_results(whole / "fake-model")
    assert (result_dir(tmp_path) / "row5_bbox.json").stat().st_mtime_ns == written


def test_a_range_of_rows_keeps_the_company_of_the_whole_file(tmp_path) -> None:
    path = write_rows(tmp_path, 12, images=5)
    model = replace(MODEL, batch_size=2)
    for name, limits in (("out", ({"end_index": 3}, {"start_index": 3, "end_index": 7}, {})), ("whole", ({},))):
        for limit in limits:
            data = {"data_file": str(path), "output_dir": str(tmp_path / name), **limit}
            run(replace(batch_settings(tmp_path, **data), model=model), FakeCollector(company=2).load)
    assert read_results(result_dir(tmp_path)) == read_results(tmp_path / "whole/fake-model")


@pytest.mark.parametrize("what", [pytest.param("directory", id="directory"), pytest.param("boxes", id="boxes")])
def test_results_removed_under_a_batch_are_an_error(tmp_path, what) -> None:
    class Removing(FakeCollector):
        def collect(self, samples):
            for number, outcome in enumerate(super().collect(samples)):
                if number == 30 and what == "directory":
                    shutil.rmtree(result_dir(tmp_path), ignore_errors=True)
                elif number == 30:
                    next(result_dir(tmp_path).glob("*_bbox.json")).unlink()
                yield outcome

    with pytest.raises(FileNotFoundError, match=r"fake-model to .* removed .*Run the same command again\."):
        run(batch_settings(tmp_path, 60), Removing().load)


# When finishing fails


def test_a_failure_while_finishing_is_recorded_and_the_others_go_on(tmp_path, fake, monkeypatch) -> None:
    real = files.save_mask_png

    def fail_for_row1(path, mask):
        if "row1" in path.name:
            raise ZeroDivisionError("a bug")
        real(path, mask)

    monkeypatch.setattr(files, "save_mask_png", fail_for_row1)
    assert run(batch_settings(tmp_path, 3), fake.load).failed == 1
    assert done_ids(tmp_path) == {"row0", "row2"}
    assert failures(tmp_path)[0]["reason"] == "ZeroDivisionError: a bug"


def test_a_full_disk_stops_the_batch(tmp_path, fake, monkeypatch) -> None:
    def fail(path, mask):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "save_mask_png", fail)
    with pytest.raises(OSError, match="No space left"):
        run(batch_settings(tmp_path, 100), fake.load)
    assert done_ids(tmp_path) == set()
    assert len(fake.asked) < 100


def test_background_work_keeps_the_order_and_overlaps() -> None:
    running, most = 0, 0
    lock, both = threading.Lock(), threading.Barrier(2)

    def slow_for_even(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if number < 2:
            both.wait(600)  # neither can end before the other has begun
        time.sleep(0.02 if number % 2 == 0 else 0)
        with lock:
            running -= 1
        return number * 10

    assert list(map_in_background(slow_for_even, range(20), workers=3)) == list(range(0, 200, 10))
    assert 2 <= most <= 3


def test_background_work_is_bounded() -> None:
    taken = 0

    def count_up():
        nonlocal taken
        for number in range(100):
            taken = number + 1
            yield number

    gate = threading.Event()
    results = map_in_background(lambda number: gate.wait(5) and number, count_up(), workers=1, max_pending=4)
    threading.Timer(0.1, gate.set).start()
    assert next(results) in (0, True)
    assert taken <= 4
    results.close()


def test_errors_come_out_in_turn_and_nothing_is_lost() -> None:
    def items():
        yield from range(5)
        raise RuntimeError("the model broke")

    seen = []
    with pytest.raises(RuntimeError, match="the model broke"):
        seen.extend(map_in_background(lambda number: number, items(), workers=2))
    results = map_in_background(lambda number: number, items(), workers=2)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ZeroDivisionError):
        list(map_in_background(lambda number: 1 // (number - 3), range(6), workers=2))


# The heads of a data set


@pytest.fixture
def surveyed(tmp_path, fake):
    """A directory of attention files of forty rows, and the settings to survey it."""
    rows = str(write_rows(tmp_path, 40, images=10))
    run(batch_settings(tmp_path, data_file=rows), fake.load)
    logic = replace(LOGIC, lowest_n=5)
    return make_settings(tmp_path, "batch_analyze", logic, ground_truth=str(tmp_path / "rows.jsonl"))


def test_batch_analyze_finds_the_planted_heads(surveyed, tmp_path, fake) -> None:
    result = run(surveyed, fake.load)
    directory = result_dir(tmp_path)
    record = json.loads((directory / "batch_selected_heads.json").read_text())
    assert {(head["layer"], head["head"]) for head in record["heads"]} == set(LOCALIZATION_HEADS)
    assert (record["num_samples"], record["model_name"], record["template"]) == (40, "fake/model", "referseg")
    assert {entry["id"] for entry in record["files"]} == {f"row{number}" for number in range(40)}
    rows = (directory / "batch_selected_heads_counts.csv").read_text().splitlines()
    assert rows[0] == "layer,head,count,frequency,low,high,num_samples,num_pictures"
    assert len(rows) == 1 + LAYERS * HEADS
    heads = yaml.safe_load((directory / "heads.yaml").read_text())
    assert {(head["layer"], head["head"]) for head in heads["heads"]} == set(LOCALIZATION_HEADS)
    assert result.scores["heads"] == "per image"
    assert any(line.startswith("L3H1") and "100.0%" in line for line in result.lines)
    assert {path.name for path in directory.glob("*.png")} >= {"batch_elbow.png", "batch_frequency_by_samples.png"}
    assert fake.stop_layers == [None]


def test_batch_analyze_checks_heads_and_boxes_against_ground_truth(surveyed, tmp_path, fake) -> None:
    result = run(surveyed, fake.load)
    assert result.scores["mean IoU"] == 1.0
    assert result.scores["Acc@0.75"] == 1.0
    assert "verdict These heads look at the target (40 rows of 10 pictures)." in result.lines
    assert (result_dir(tmp_path) / "head_audit.csv").is_file()
    audit = json.loads((result_dir(tmp_path) / "head_audit.json").read_text())
    assert audit["verdict"]["looks_at_target"] is True
    # The criteria choose the planted heads for each image, too.
    per_image = next(rival for rival in audit["rivals"] if rival["name"] == "per image heads")
    assert (per_image["mean_iou"]["estimate"], per_image["p_value"]["value"]) == (1.0, 1.0)
    assert per_image["mean_iou"]["n"] == 40
    assert [row["name"] for row in audit["ablation"]] == [
        "both criteria", "attention sum only", "entropy only, ties shared",
    ]  # fmt: skip
    labelled = read_heads_file(result_dir(tmp_path) / "labelled_heads.yaml")
    assert set(labelled.first(3)) == set(LOCALIZATION_HEADS)
    assert labelled.rules["chosen_with"] == "ground truth"
    assert labelled.rules["num_pictures"] == 10
    logic = replace(surveyed.logic, heads_file=str(result_dir(tmp_path) / "labelled_heads.yaml"))
    elsewhere = replace(surveyed.data, analysis_dir=str(tmp_path / "again"))
    again = run(replace(surveyed, logic=logic, data=elsewhere), fake.load)
    assert any("In-sample: these heads were chosen with labels on the same attention" in line for line in again.lines)
    assert json.loads((tmp_path / "again/head_audit.json").read_text())["in_sample"] is True
    scores_only = run(replace(surveyed, data=replace(surveyed.data, audit=False)), fake.load)
    assert scores_only.scores == result.scores
    assert not any("look at the target" in line for line in scores_only.lines)


def test_the_heads_found_can_be_used_at_once(surveyed, tmp_path, fake) -> None:
    run(surveyed, fake.load)
    logic = replace(LOGIC, heads_file=str(result_dir(tmp_path) / "heads.yaml"))
    output_dir = str(tmp_path / "fixed")
    settings = batch_settings(tmp_path, logic=logic, output_dir=output_dir, data_file=str(tmp_path / "rows.jsonl"))
    assert run(settings, fake.load).failed == 0
    record = files.load_bbox_json(tmp_path / "fixed/fake-model/row1_bbox.json")
    assert record["heads_source"] == "heads_file"
    assert record["bbox_xyxy"] == target_box("thing number 1")


def test_trials_and_several_directories_are_compared(surveyed, tmp_path, fake) -> None:
    trials = run(replace(surveyed, data=replace(surveyed.data, trials=4, ground_truth=None)), fake.load)
    assert any(
        line.startswith("trials  100% of 4 choose the same 3 heads (at least 47%, 95 %)") for line in trials.lines
    )
    other = tmp_path / "other"
    other.mkdir()
    for path in list(result_dir(tmp_path).glob("row1*.pkl.gz")):
        path.rename(other / path.name)
    directories = [str(result_dir(tmp_path)), str(other)]
    data = replace(surveyed.data, batch_attention_dir=directories, ground_truth=None, analysis_dir=str(tmp_path / "a"))
    several = run(replace(surveyed, data=data, save_fig=False), fake.load)
    assert any(line.startswith("trials  100% of 2") for line in several.lines)
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        "batch_selected_heads.json",
        "batch_selected_heads_counts.csv",
        "heads.yaml",
    }


def test_a_damaged_file_is_left_out_and_counted(surveyed, tmp_path, fake, caplog) -> None:
    (result_dir(tmp_path) / "row7.pkl.gz").write_bytes(b"\x1f\x8bdamaged")
    result = run(replace(surveyed, save_fig=False), fake.load)
    assert result.failed == 1
    assert "39 files about 10 pictures of fake/model" in result.lines[0]
    assert "row7.pkl.gz" in caplog.text


def test_files_of_two_models_are_refused(surveyed, tmp_path, fake) -> None:
    stranger = replace(collect_one(Sample("zz", "x.png", "a")), meta={"model_name": "other/model"})
    save_attention(result_dir(tmp_path) / "zz.pkl.gz", stranger)
    with pytest.raises(ValueError, match=r"of one model and template, but got fake/model .* other/model .*zz\.pkl"):
        run(surveyed, fake.load)


def test_empty_directories_and_foreign_ground_truth_are_errors(surveyed, tmp_path, fake) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="attention files .* in .*empty, but got none"):
        run(replace(surveyed, data=replace(surveyed.data, batch_attention_dir=str(tmp_path / "empty"))), fake.load)
    other = tmp_path / "truth.jsonl"
    other.write_text('{"id": "elsewhere", "bbox": [0, 0, 5, 5]}\n')
    with pytest.raises(ValueError, match="to hold boxes for the ids of the attention files, such as 'row0'"):
        run(replace(surveyed, save_fig=False, data=replace(surveyed.data, ground_truth=str(other))), fake.load)


# The command line


@pytest.fixture
def command_line(tmp_path, monkeypatch):
    """Run `pipeline.main` in a directory of its own, with nothing left over in the process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    handlers, level = logging.root.handlers[:], logging.root.level

    def call(*arguments: str) -> int:
        return pipeline.main([*arguments, "hydra/job_logging=none", "hydra/hydra_logging=none"])

    yield call
    logging.root.handlers[:], logging.root.level = handlers, level


def test_main_prints_the_summary_and_exits_with_0(tmp_path, command_line, capsys) -> None:
    save_attention(tmp_path / "s.pkl.gz", collect_one(Sample("s", "x.png", "a cat, left")))
    assert command_line("stage=analyze", "data.attention_file=s.pkl", "model.name=fake/model") == 0
    out = capsys.readouterr().out
    assert "query   'a cat, left' in x.png (160 x 120 px)" in out
    assert "s_analysis.pkl" in out
    assert (tmp_path / "s_analysis.pkl").is_file()
    assert "HYDRA_FULL_ERROR" not in os.environ


def test_main_reports_a_failing_stage_in_one_line_and_exits_with_1(tmp_path, command_line, capsys) -> None:
    (tmp_path / "s.pkl.gz").write_bytes(b"")
    assert command_line("stage=analyze", "data.attention_file=s.pkl") == 1
    err = capsys.readouterr().err
    assert err == "error: Expected s.pkl.gz to be a pickle, but got an empty file. Delete it and collect again.\n"


def test_main_exits_with_2_for_a_wrong_configuration(command_line, capsys) -> None:
    assert command_line("stage=analyze", "data.attention_file=none.pkl") == 2
    assert command_line("logic.topk=3") == 2
    assert "Traceback" not in capsys.readouterr().err


def test_natural_sentences_reach_the_stage(tmp_path, make_image, command_line, fake, monkeypatch, capsys) -> None:
    monkeypatch.setattr(pipeline.run, "__defaults__", (fake.load,))
    query = 'the cat\'s bowl, left of the "red" (small) box = {1}'
    assert command_line(f"data.query={query}", f"data.image_file={make_image('a, b (1).png')}", "data.save_id=s") == 0
    record = files.load_bbox_json(tmp_path / "outputs/results/liuhaotian-llava-v1.5-7b/s_bbox.json")
    assert record["query"] == query


def test_main_exits_with_1_when_rows_failed(tmp_path, command_line, fake, monkeypatch, capsys) -> None:
    monkeypatch.setattr(pipeline.run, "__defaults__", (fake.load,))
    assert command_line("stage=batch", f"data.data_file={bad_rows(tmp_path)}") == 1
    assert "8 failed" in capsys.readouterr().out


def test_a_sweep_over_stored_attention_ends_in_one_table(surveyed, tmp_path, command_line, capsys) -> None:
    before = {path.name for path in result_dir(tmp_path).iterdir()}
    status = command_line(
        "-m",
        "stage=batch_analyze",
        f"data.batch_attention_dir={result_dir(tmp_path)}",
        f"data.ground_truth={tmp_path / 'rows.jsonl'}",
        "data.audit=false",
        "save_fig=false",
        "logic.top_k=1,3",
        "logic.smoothing.sigma=0,2",
    )
    assert status == 0
    table = capsys.readouterr().out.split("\n\n")[-1].splitlines()
    columns = "job logic.top_k logic.smoothing.sigma heads threshold mean IoU Acc@0.25 Acc@0.5 Acc@0.75"
    assert table[0].split() == columns.split()
    assert len(table) == 6
    assert table[1].split()[1:3] == ["1", "0"]
    assert table[1].split()[3:5] == ["per", "image"]
    assert float(table[1].split()[6]) == 1.0
    assert float(table[2].split()[6]) < 1.0
    assert {path.name for path in result_dir(tmp_path).iterdir()} == before
    assert len(list(tmp_path.glob("outputs/hydra/multirun/*/*/*/heads.yaml"))) == 4


def test_format_table() -> None:
    rows = [{"head": "L1H2", "share": "5.0%"}, {"head": "L10H20", "share": "100.0%", "more": "x"}]
    assert format_table(rows) == ["head     share  more", "L1H2      5.0%", "L10H20  100.0%  x"]
    assert format_table([]) == []
