"""Tiny models of many families, saved as checkpoints, through the stages from the command line."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import transformers

import pipeline
from lab.storage.attention_files import load_attention
from tests.tiny_families import FAMILIES, OLDEST
from tests.tiny_families.loading import QUERY, picture

IS_OLD = int(transformers.__version__.split(".")[0]) < 5
NAMES = OLDEST if IS_OLD else tuple(FAMILIES)
WITHOUT_MAP = {"qwen3_5": [0, 2], "mllama": [0, 2]}
COMMON = ("model=auto", "model.device=cpu", "logic.skip_layers=0", "data.overwrite=true")


@pytest.fixture(scope="module", autouse=True)
def quiet_libraries():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


@pytest.fixture
def family(tmp_path, monkeypatch, request):
    """A saved family with two pictures, and the command line on it; gives the directory of its results."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    FAMILIES[request.param]().save(tmp_path / "checkpoint")
    picture().save(tmp_path / "a.png")
    picture("portrait", seed=1).save(tmp_path / "b.png")
    root = logging.getLogger()
    handlers = list(root.handlers)

    def run(*arguments: str) -> int:
        return pipeline.main([*COMMON, "model.name=./checkpoint", "data.output_dir=out", *arguments])

    yield request.param, run, tmp_path / "out" / "checkpoint"
    root.handlers[:] = handlers


@pytest.mark.slow
@pytest.mark.parametrize("family", NAMES, indirect=True)
def test_every_stage_runs(family):
    name, run, out = family
    one = ("data.image_file=a.png", f"data.query={QUERY}", "data.save_id=one")

    assert run("stage=collect", *one) == 0
    collected = load_attention(out / "one.pkl.gz")
    without = WITHOUT_MAP.get(name, [])
    assert list(collected.layers_without_map) == without
    with_map = np.delete(collected.attention, without, axis=0)
    assert (with_map.sum(axis=2) > 0).all()

    assert run("stage=pipeline", *one) == 0
    heads = json.loads((out / "one_bbox.json").read_text())["selected_heads"]
    assert heads
    assert not {head["layer"] for head in heads} & set(without)
    assert (out / "one_top3.png").is_file()

    rows = [
        {"id": f"{image}{number}", "image_path": f"{image}.png", "prompt": query, "bbox": [10, 20, 60, 90]}
        for image in "ab"
        for number, query in enumerate((QUERY, "the big blue dog"))
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (out.parent.parent / "rows.jsonl").write_text(lines)
    assert run("stage=batch", "data.data_file=rows.jsonl", "storage.attention.dtype=float32") == 0
    read = {row["id"]: load_attention(out / f"{row['id']}.pkl.gz") for row in rows}
    # What shares a picture's prefill reads as what is asked alone.
    np.testing.assert_allclose(read["a0"].attention, collected.attention, atol=2e-3)
    assert np.abs(read["a0"].attention - read["a1"].attention).max() > 1e-4

    assert run("stage=check_model", "data.image_file=b.png", f"data.query={QUERY}") == 0
    report = json.loads((out / "check_model.json").read_text())
    assert report["passed"]
    assert report["layers_without_map"] == without
    assert (out / "check_model_regions.png").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["smolvlm" if IS_OLD else "mllama"], indirect=True)
def test_a_data_set_chooses_among_layers_with_a_map(family):
    name, run, out = family
    rows = [
        {"id": f"{image}{number}", "image_path": f"{image}.png", "prompt": query, "bbox": [10, 20, 60, 90]}
        for image in "ab"
        for number, query in enumerate((QUERY, "the big blue dog"))
    ]
    (out.parent.parent / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run("stage=batch", "data.data_file=rows.jsonl") == 0
    assert (
        run(
            "stage=batch_analyze",
            "logic=paper",
            "data.ground_truth=rows.jsonl",
            "data.box_format=xyxy",
            "logic.top_k=2",
        )
        == 0
    )
    for table in ("batch_selected_heads_counts.csv", "head_audit.csv"):
        lines = (out / table).read_text().splitlines()[1:]
        layers = {int(line.split(",")[0]) for line in lines}
        assert not layers & set(WITHOUT_MAP.get(name, []))
        assert layers


@pytest.mark.parametrize("family", ["internvl"], indirect=True)
@pytest.mark.parametrize(("mode", "cells"), [("merged", 24), ("thumbnail", 4), ("tiles", 24)])
def test_the_regions_that_are_asked_for_are_seen(family, mode, cells, capsys):
    _, run, out = family
    one = ("data.image_file=a.png", f"data.query={QUERY}", "data.save_id=one")
    assert run("stage=pipeline", f"logic.regions={mode}", *one) == 0
    assert load_attention(out / "one.pkl.gz").attention.shape[2] == 28  # all tokens are kept, whatever is seen of them
    record = json.loads((out / "one_bbox.json").read_text())
    skipped = [note for note in record["heads_notes"] if "bottom row was skipped" in note]
    assert len(skipped) == (0 if mode == "thumbnail" else 1)
    assert run("stage=analyze", f"data.attention_file={out / 'one.pkl.gz'}", f"logic.regions={mode}") == 0
    collected = load_attention(out / "one.pkl.gz").seen_as(mode)
    assert collected.grid.num_cells == cells


def test_a_template_of_llava_is_not_checked(capsys):
    assert pipeline.main(["stage=check_model", "model=picturebook"]) == 2
    assert "conv_mode to be chat or plain for stage=check_model, but got 'picturebook'" in capsys.readouterr().err
