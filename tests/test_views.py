"""`model.views=4` through a collector that sees only what lies in the files of the views."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lab.config.settings import ConfigError, ModelSettings, Settings
from lab.records import CollectedAttention, Grid, Sample
from lab.storage.attention_files import load_attention
from stages import views
from stages.loading import _with_views
from stages.model_settings import record_model
from stages.plan import Plan, Steps
from stages.views import ViewsCollector
from vlm.preparing import CollectionFailure

ROOT = Path(__file__).parent.parent
CELLS = 8
GREY = (100, 100, 100)


@dataclass
class RedSeer:
    """A collector whose one head attends to what is red in its picture, cell by cell, on a grid over the whole file."""

    asked: list[Sample] = field(default_factory=list)

    def collect(self, samples: Iterable[Sample]) -> Iterator[Any]:
        for sample in samples:
            self.asked.append(sample)
            if not Path(sample.image_file).is_file():
                yield CollectionFailure(sample, f"no {sample.image_file}")
                continue
            image = Image.open(sample.image_file)
            red = (np.asarray(image.convert("RGB")) == (255, 0, 0)).all(axis=2)
            side = len(red)
            rows = np.minimum(np.arange(side) * CELLS // side, CELLS - 1)
            cells = np.zeros((CELLS, CELLS))
            np.add.at(cells, (rows[:, None], rows[None]), red)
            attention = (cells / max(cells.sum(), 1)).reshape(1, 1, -1).astype(np.float32)
            grid = Grid(CELLS, CELLS, 0.0, 0.0, side / CELLS, side / CELLS)
            yield CollectedAttention(attention, grid, image.size, sample, {"image_file": sample.image_file})


def picture(path: Path, box: tuple[int, int, int, int], size: tuple[int, int] = (140, 70)) -> str:
    image = Image.new("RGB", size, (0, 0, 255))
    image.paste((255, 0, 0), box)
    image.save(path)
    return str(path)


def collector() -> ViewsCollector:
    return ViewsCollector(RedSeer(), cells=CELLS, background=GREY)


def centre(collected: CollectedAttention) -> tuple[float, float]:
    grid, a_map = collected.grid, collected.attention[0, 0].reshape(collected.grid.shape)
    x = grid.x0 + (np.arange(grid.cols) + 0.5) * grid.cell_w
    y = grid.y0 + (np.arange(grid.rows) + 0.5) * grid.cell_h
    return float((a_map.sum(0) * x).sum() / a_map.sum()), float((a_map.sum(1) * y).sum() / a_map.sum())


def test_the_map_lies_where_the_object_is_on_half_cells(tmp_path) -> None:
    file = picture(tmp_path / "a.png", (20, 10, 60, 50))
    [collected] = collector().collect([Sample("s", file, "red")])
    assert collected.grid.shape == (15, 15)
    assert collected.grid.cell_w == 160 / 8 / 2
    assert collected.image_size_wh == (140, 70)
    assert collected.sample == Sample("s", file, "red")
    assert collected.meta["image_file"] == file
    assert collected.meta["views"] == 4
    assert collected.attention.sum() == pytest.approx(1, abs=1e-5)
    x, y = centre(collected)
    assert abs(x - 40) < 2
    assert abs(y - 30) < 2


def test_rows_keep_their_order_and_each_view_is_read_for_all_of_them(tmp_path) -> None:
    files = [picture(tmp_path / f"{n}.png", (20 * n, 10, 20 * n + 40, 50)) for n in range(3)]
    samples = [Sample(f"{n}-{query}", files[n], query) for n in range(3) for query in "ab"]
    collecting = collector()
    results = list(collecting.collect(samples))
    assert [result.sample for result in results] == samples
    for number in range(3):
        assert abs(centre(results[2 * number])[0] - (20 * number + 20)) < 2
    asked = collecting.inner.asked
    assert len(asked) == 24
    assert [sample.query for sample in asked[:8]] == ["a", "b"] * 4
    assert len({sample.image_file for sample in asked}) == 12
    assert not [sample for sample in asked if Path(sample.image_file).exists()]


def test_a_picture_that_cannot_be_read_fails_alone_under_its_own_name(tmp_path) -> None:
    good, bad = picture(tmp_path / "a.png", (20, 10, 60, 50)), str(tmp_path / "missing.png")
    samples = [Sample("1", bad, "x"), Sample("2", bad, "y"), Sample("3", good, "z")]
    first, second, third = collector().collect(samples)
    assert (first.sample, second.sample) == tuple(samples[:2])
    assert first.reason == f"no {bad}"
    assert isinstance(third, CollectedAttention)


def test_files_are_removed_when_the_reader_stops(tmp_path) -> None:
    collecting = collector()
    results = collecting.collect([Sample("1", picture(tmp_path / "a.png", (20, 10, 60, 50)), "x")] * 2)
    next(results)
    directory = Path(collecting.inner.asked[0].image_file).parent
    assert directory.is_dir()
    assert len(list(directory.iterdir())) == 4
    next(results)
    with pytest.raises(StopIteration):
        next(results)
    assert not directory.exists()


def test_files_of_a_picture_are_gone_when_the_next_one_is_done(tmp_path) -> None:
    collecting = collector()
    files = [picture(tmp_path / f"{n}.png", (20, 10, 60, 50)) for n in range(2)]
    results = collecting.collect([Sample(file, file, "x") for file in files])
    next(results)
    directory = Path(collecting.inner.asked[0].image_file).parent
    next(results)
    assert {path.name[0] for path in directory.iterdir()} == {"1"}
    results.close()
    assert not directory.exists()


def test_huge_pictures_are_shrunk_and_the_map_still_lies_right(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(views, "LONGEST_SIDE", 70)
    image = Image.new("RGB", (140, 280), (0, 0, 255))
    image.paste((255, 0, 0), (20, 40, 100, 120))
    monkeypatch.setattr(views, "_shrink", lambda image, shrink=views._shrink: _hard(shrink(image)))
    image.save(tmp_path / "a.png")
    collecting = collector()
    [collected] = collecting.collect([Sample("s", str(tmp_path / "a.png"), "red")])
    assert collected.image_size_wh == (140, 280)
    assert collected.grid.cell_w == pytest.approx(4 * 80 / 8 / 2)
    x, y = centre(collected)
    assert abs(x - 60) < 4
    assert abs(y - 80) < 4


def _hard(image: Image.Image) -> Image.Image:
    """A resampled picture of two colours with each pixel one of them again."""
    red = np.asarray(image)[..., 0] > 127
    return Image.fromarray(np.where(red[..., None], (255, 0, 0), (0, 0, 255)).astype(np.uint8))


# Settings


def test_models_that_do_not_pad_are_refused() -> None:
    preprocessor = SimpleNamespace(rule=SimpleNamespace(pad_to_square=False))
    with pytest.raises(ValueError, match=r"model\.views=4 with a model that pads pictures to squares"):
        _with_views(RedSeer(), preprocessor)


@pytest.mark.parametrize("count", [0, 2, 3, 9], ids=str)
def test_views_are_one_or_four(count: int) -> None:
    with pytest.raises(ConfigError, match=r"Expected model\.views to be"):
        ModelSettings(views=count)


def test_one_view_has_the_fingerprint_it_had_and_four_have_another() -> None:
    assert "model.views" not in Plan(Settings(), Steps(box=True)).shaping
    assert Plan(Settings(model=ModelSettings(views=4)), Steps(box=True)).shaping["model.views"] == 4
    assert record_model(ModelSettings(views=4))["views"] == 4


@pytest.mark.slow
def test_from_the_command_line(tmp_path) -> None:
    image = ROOT / "examples/images/bird.png"
    command = [sys.executable, str(ROOT / "pipeline.py"), "stage=pipeline", "model=picturebook", "model.views=4"]
    options = ["data.query=the bird", f"data.image_file={image}", f"data.output_dir={tmp_path}/out", "data.save_id=s"]
    subprocess.run([*command, *options, f"hydra.run.dir={tmp_path}/hydra"], check=True, cwd=tmp_path)
    directory = tmp_path / "out" / "picturebook-llava"
    collected = load_attention(directory / "s.pkl.gz")
    assert collected.grid.shape == (31, 31)
    assert collected.meta["views"] == 4
    assert list(collected.image_size_wh) == list(Image.open(image).size)
    record = json.loads((directory / "s_bbox.json").read_text())
    stored = [*command[:2], "stage=visualize", "model=picturebook", f"data.attention_file={directory}/s.pkl.gz"]
    subprocess.run([*stored, "data.overwrite=true", f"hydra.run.dir={tmp_path}/hydra2"], check=True, cwd=tmp_path)
    assert json.loads((directory / "s_bbox.json").read_text())["bbox_xyxy"] == record["bbox_xyxy"]
