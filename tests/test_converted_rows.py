"""A data set in another format: converted, run through the picture-book model, and scored, as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from lab.datasets.pictures import read_size
from picturebook.export import export

ROOT = Path(__file__).resolve().parent.parent


def run(*arguments: object) -> str:
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_converted_rows_run_through_a_batch_and_are_scored_unchanged(tmp_path: Path) -> None:
    source = export(tmp_path / "drawn", "test", scenes=2, expressions=2, seed=11)
    drawn = [json.loads(line) for line in source.read_text().splitlines()]
    table = tmp_path / "table.csv"
    names = [Path(row["image_path"]).name for row in drawn]
    boxes = [[x, y, x + w, y + h] for x, y, w, h in (row["bbox"] for row in drawn)]
    lines = [
        ",".join([row["id"], name, f'"{row["prompt"]}"', *map(str, box)]) for row, name, box in zip(drawn, names, boxes)
    ]
    table.write_text("\n".join(["id,image,expression,x1,y1,x2,y2", *lines]) + "\n")
    pictures = next(path.parent for path in (tmp_path / "drawn").rglob(names[0]))
    rows = tmp_path / "rows.jsonl"
    run("-m", "lab.datasets", "convert", "--format", "auto", "--input", table, "--images", pictures, "--output", rows)
    converted = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [row["bbox_xyxy"] for row in converted] == boxes
    out = tmp_path / "out"
    run("pipeline.py", "stage=batch", "model=picturebook", "logic=paper", f"data.data_file={rows}",
        f"data.output_dir={out}", f"hydra.run.dir={tmp_path}/hydra")  # fmt: skip
    scores = tmp_path / "scores.json"
    run("evaluate_boxes.py", "--dataset-jsonl", rows, "--pred-root", out / "picturebook-llava", "--json", scores)
    assert json.loads(scores.read_text())["overall"]["num_rows"] == len(drawn) == 4


def test_a_picture_that_pillow_refuses_as_a_bomb_has_no_size(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "large.png"
    Image.new("L", (100, 100)).save(path)
    assert read_size(path) == (100, 100)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert read_size(path) is None
