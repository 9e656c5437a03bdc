"""The stage that checks a model: what it says, and that a picture that does not pass is a failure."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from figures.regions import draw_regions
from lab.config.errors import ConfigError
from lab.config.settings import DataSettings, ModelSettings, Settings
from lab.regions import covering
from stages import check_model
from stages.check_model import describe_check, run_check_model


def report(passed: bool, source: str = "rule", kinds: tuple[str, ...] = ("whole",)) -> dict:
    grid = {"rows": 2, "cols": 3, "x0": 0.0, "y0": 0.0, "cell_w": 20.0, "cell_h": 20.0}
    picture = {
        "image_size": [60, 40],
        "vis_len": 6,
        "separators": 0,
        "regions_from": source,
        "regions": [{"kind": kind, "grid": grid} for kind in kinds],
        "prompt": "user: <image> the cat",
        "row_read": "cat",
        "rows_off_eager": 2e-8,
        "sharing": {"way": "suffix", "difference": 1e-7, "notes": ["branches: no"]},
        "grid_probe": {"verdict": "agrees", "cells_off": 0.05, "hits": 1.0, "near_hits": 1.0, "deaf": 0},
        "passed": passed,
        "seconds": 1.25,
        "image_file": "a.png",
    }
    return {
        "model_name": "tiny",
        "class": "TinyForConditionalGeneration",
        "num_layers": 4,
        "num_heads": 2,
        "layers_without_map": [0, 2],
        "attention": "sdpa",
        "device": "cpu",
        "pictures": [picture],
        "passed": passed,
    }


def test_what_is_said():
    said = "\n".join(describe_check(report(True, "measured", ("tile",) * 6)))
    for words in (
        "TinyForConditionalGeneration, 4 layers x 2 heads, sdpa",
        "of all layers but 0, 2",
        "measured, since the family has no rule",
        "tile: 2 x 3 cells of 20.00 x 20.00 px from (0.00, 0.00)",
        "and 2 more",
        "the row of 'cat' is read",
        "plain eager attention 2.0e-08",
        "suffix, largest difference 1.0e-07; branches: no",
        "the probe agrees: 0.05 cells off",
        "check   passed",
    ):
        assert words in said
    assert "check   FAILED" in describe_check(report(False))


@pytest.mark.parametrize(("passed", "failed"), [(True, 0), (False, 1)], ids=["passes", "fails"])
def test_a_picture_that_does_not_pass_is_a_failure(passed, failed, tmp_path, monkeypatch):
    from vlm import model_check

    asked = []
    monkeypatch.setattr(check_model, "load_any", lambda model: model.name)
    monkeypatch.setattr(
        model_check, "check_model", lambda model, images, query: asked.append((model, query)) or report(passed)
    )
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    data = DataSettings(image_file=str(tmp_path / "a.png"), query="the cat", output_dir=str(tmp_path / "out"))
    result = run_check_model(Settings(stage="check_model", model=ModelSettings("a/tiny", conv_mode="chat"), data=data))
    assert result.failed == failed
    assert asked == [("a/tiny", "the cat")]
    written = json.loads((tmp_path / "out" / "a-tiny" / "check_model.json").read_text())
    assert written["passed"] == passed
    assert (tmp_path / "out" / "a-tiny" / "check_model_regions.png").is_file()


def test_a_template_of_llava_is_refused_before_anything_is_loaded():
    with pytest.raises(ConfigError, match="conv_mode to be chat or plain for stage=check_model, but got 'referseg'"):
        run_check_model(Settings(stage="check_model"))


def test_thumbnails_have_a_panel_of_their_own():
    tiles = [("tile", covering(50, 60, 2, 2)), ("tile", covering(50, 60, 2, 2, x0=50))]
    padded = [("whole", covering(100, 100, 4, 4, y0=-20))]
    thumbnail = [("thumbnail", covering(100, 60, 3, 3))]
    image = Image.new("RGB", (100, 60))
    figure = draw_regions(None, [(image, [*tiles, *thumbnail]), (image, padded)], "tiny", dpi=60)
    first, second, third = figure.axes
    assert [len(axes.patches) for axes in figure.axes] == [2, 1, 1]
    assert "2 tiles, 2 x 2 cells" in first.get_title(loc="left")
    assert "thumbnail, 3 x 3 cells" in second.get_title(loc="left")
    assert len(third.collections[0].get_segments()) == 10
    assert third.get_ylim()[0] > 80 > -20 > third.get_ylim()[1]  # the padding shows
