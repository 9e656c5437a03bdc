"""`logic.refine=sam` through the stages, with planted attention and tiny random Segment Anything models."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_collector import FakeCollector, write_rows
from PIL import Image
from test_pipeline import LOGIC, ROOT, make_settings, result_dir
from tiny_sams import make_sam

import refine.refiner
from lab.config.path_keys import expand_paths
from lab.config.settings import ConfigError, LogicSettings, MaskSettings, SamSettings, Settings
from pipeline import run
from refine.sam import embed_picture, load_sam, masks_from_boxes
from stages.plan import Plan, Steps


@pytest.fixture(scope="module")
def sam_directory(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_sam(tmp_path_factory.mktemp("sam")))


def with_sam(name: str | None, prompt: str = "box", logic: LogicSettings = LOGIC) -> LogicSettings:
    return replace(logic, refine="sam", sam=SamSettings(name=name, prompt=prompt))


def read(tmp_path: Path, sample_id: str) -> tuple[dict, np.ndarray]:
    directory = result_dir(tmp_path)
    mask = np.asarray(Image.open(directory / f"{sample_id}_mask.png"))
    return json.loads((directory / f"{sample_id}_bbox.json").read_text()), mask


def run_batch(tmp_path: Path, logic: LogicSettings, **data: object):
    return run(make_settings(tmp_path, "batch", logic, **data), FakeCollector().load)


def test_batch_writes_the_masks_of_the_model_and_keeps_the_boxes(tmp_path, sam_directory) -> None:
    rows = write_rows(tmp_path, 4, images=2)
    run_batch(tmp_path / "plain", LOGIC, data_file=str(rows))
    run_batch(tmp_path / "sam", with_sam(sam_directory), data_file=str(rows))
    sam = load_sam(sam_directory)
    for number in range(4):
        plain, plain_mask = read(tmp_path / "plain", f"row{number}")
        record, mask = read(tmp_path / "sam", f"row{number}")
        assert record["bbox_xyxy"] == plain["bbox_xyxy"]
        assert "refine" not in plain
        picture = embed_picture(sam, Image.open(tmp_path / f"image{number % 2}.png"))
        expected, guesses = masks_from_boxes(sam, picture, np.array([record["bbox_xyxy"]]))
        np.testing.assert_array_equal(mask, expected[0] * np.uint8(255))
        assert (mask != plain_mask).any()
        assert record["refine"] == {
            "method": "sam",
            "model": sam_directory,
            "prompt": "box",
            "predicted_iou": pytest.approx(guesses[0]),
        }


@pytest.mark.parametrize("prompt", ["points", "box_points"])
def test_points_reach_the_record(tmp_path, sam_directory, prompt: str) -> None:
    rows = write_rows(tmp_path, 2)
    run_batch(tmp_path, with_sam(sam_directory, prompt), data_file=str(rows))
    record, _ = read(tmp_path, "row1")
    assert record["refine"]["prompt"] == prompt
    x0, y0, x1, y1 = record["bbox_xyxy"]
    assert all(x0 < x < x1 and y0 < y < y1 for x, y in record["refine"]["points_xy"])
    assert record["refine"]["points_xy"]


def test_a_resumed_run_gives_the_same_bytes(tmp_path, sam_directory) -> None:
    rows = write_rows(tmp_path, 5, images=2)
    for name, parts in (("whole", ({},)), ("parts", ({"end_index": 2}, {}))):
        for part in parts:
            run_batch(tmp_path / name, with_sam(sam_directory, "points"), data_file=str(rows), **part)
    whole, parts = (
        {
            path.name: path.read_bytes()
            for path in result_dir(tmp_path / name).iterdir()
            if path.name.endswith(("_mask.png", "_bbox.json"))
        }
        for name in ("whole", "parts")
    )
    assert len(whole) == 10
    assert whole == parts


def test_a_finished_run_loads_nothing_and_another_prompt_is_another_result(
    tmp_path, sam_directory, monkeypatch
) -> None:
    rows = write_rows(tmp_path, 2)
    run_batch(tmp_path, with_sam(sam_directory), data_file=str(rows))

    def fail(*_: object) -> None:
        raise AssertionError("embedded")

    monkeypatch.setattr(refine.refiner, "embed_picture", fail)
    run_batch(tmp_path, with_sam(sam_directory), data_file=str(rows))
    with pytest.raises(ValueError, match="logic.sam.prompt"):
        run_batch(tmp_path, with_sam(sam_directory, "points"), data_file=str(rows))


def test_a_row_without_a_box_has_the_empty_mask(tmp_path, sam_directory, make_image) -> None:
    logic = with_sam(sam_directory, logic=replace(LOGIC, mask=MaskSettings(relative_threshold=100)))
    settings = make_settings(tmp_path, image_file=make_image(), query="a", save_id="s", logic=logic)
    run(settings, FakeCollector().load)
    record, mask = read(tmp_path, "s")
    assert record["bbox_xyxy"] is None
    assert record["refine"] is None
    assert not mask.any()


def test_a_checkpoint_that_cannot_be_loaded_ends_the_run_before_any_row(tmp_path) -> None:
    rows = write_rows(tmp_path, 3)
    with pytest.raises(ValueError, match=r"^Expected logic\.sam\.name to be a Segment Anything checkpoint"):
        run_batch(tmp_path, with_sam(str(tmp_path)), data_file=str(rows))
    assert not list(result_dir(tmp_path).glob("*_bbox.json"))


def test_visualize_refines_a_stored_file(tmp_path, sam_directory, make_image) -> None:
    settings = make_settings(tmp_path, image_file=make_image(), query="a", save_id="s")
    run(settings, FakeCollector().load)
    _, plain = read(tmp_path, "s")
    stored = {"attention_file": str(result_dir(tmp_path) / "s.pkl.gz"), "overwrite": True}
    again = make_settings(tmp_path, "visualize", with_sam(sam_directory), **stored)
    run(again, FakeCollector().load)
    record, mask = read(tmp_path, "s")
    assert record["refine"]["model"] == sam_directory
    assert (mask != plain).any()


# Settings


def test_sam_needs_a_name() -> None:
    with pytest.raises(ConfigError, match=r"logic\.sam\.name with logic\.refine=sam, but got none"):
        LogicSettings(refine="sam")


def test_a_home_directory_in_the_name_is_expanded(monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    settings = expand_paths(Settings(logic=LogicSettings(sam=SamSettings(name="~/sam"))))
    assert settings.logic.sam.name == "/home/someone/sam"


def test_without_sam_the_fingerprint_is_as_it_was() -> None:
    plain = Plan(Settings(), Steps(box=True)).shaping
    assert not [key for key in plain if key.startswith(("logic.sam", "logic.refine"))]
    named = LogicSettings(sam=SamSettings(name="x", prompt="points"))
    assert Plan(Settings(logic=named), Steps(box=True)).shaping == plain


@pytest.mark.slow
@pytest.mark.parametrize("prompt", ["box", "points"])
def test_from_the_command_line(tmp_path, sam_directory, prompt: str) -> None:
    shutil.copy(ROOT / "examples/images/bird.png", tmp_path)
    command = [sys.executable, str(ROOT / "pipeline.py"), "stage=pipeline", "model=picturebook", "data.query=the bird"]
    options = [f"data.image_file={tmp_path}/bird.png", f"data.output_dir={tmp_path}/out", "data.save_id=s"]
    sam = ["logic.refine=sam", f"logic.sam.name={sam_directory}", f"logic.sam.prompt={prompt}"]
    subprocess.run([*command, *options, *sam, f"hydra.run.dir={tmp_path}/hydra"], check=True, cwd=tmp_path)
    directory = tmp_path / "out" / "picturebook-llava"
    record = json.loads((directory / "s_bbox.json").read_text())
    assert record["refine"]["prompt"] == prompt
    assert Image.open(directory / "s_mask.png").size == Image.open(tmp_path / "bird.png").size
