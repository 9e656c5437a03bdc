"""The check of a model: what it says of right ones, and that wrong rows and grids do not pass."""

from __future__ import annotations

import json

import pytest
import transformers

from tests.tiny_families import FAMILIES, OLDEST
from tests.tiny_families.loading import QUERY, load, picture
from vlm import model_check
from vlm.model_check import check_model

IS_OLD = int(transformers.__version__.split(".")[0]) < 5
NAMES = OLDEST if IS_OLD else tuple(FAMILIES)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_family_passes(name):
    bundle = load(name)
    report = check_model(bundle, [picture()], QUERY)
    assert report["passed"], report
    json.dumps(report)
    [found] = report["pictures"]
    assert found["rows_off_eager"] <= 1e-5
    assert found["row_read"] == ("t" if name == "qwen3_5" else "cat")
    assert report["layers_without_map"] == {"qwen3_5": [0, 2], "mllama": [0, 2]}.get(name, [])
    assert bundle.model.config.get_text_config()._attn_implementation != "eager" or "cap" in name or "2" in name


def test_what_is_said_of_a_model():
    report = check_model(load("internvl"), [picture(), picture("portrait")], QUERY)
    assert report["class"] == "InternVLForConditionalGeneration"
    assert (report["num_layers"], report["num_heads"], report["attention"]) == (3, 4, "sdpa")
    first, second = report["pictures"]
    assert (first["vis_len"], second["vis_len"]) == (28, 12)
    assert [region["kind"] for region in first["regions"]] == ["tile"] * 6 + ["thumbnail"]
    assert first["map_grid"]["rows"] == 4
    assert first["sharing"]["way"] == "branches"
    assert first["grid_probe"]["verdict"] == "agrees"
    assert first["prompt"].endswith(QUERY)


def test_wrong_rows_do_not_pass(monkeypatch):
    bundle = load("llava")
    genuine = model_check.PictureReader.read

    def wrong(self, pictures):
        readings = genuine(self, pictures)
        readings[0][0].attention[:] += 1e-3
        return readings

    monkeypatch.setattr(model_check.PictureReader, "read", wrong)
    report = check_model(bundle, [picture()], QUERY)
    assert not report["passed"]
    assert report["pictures"][0]["rows_off_eager"] == pytest.approx(1e-3, rel=0.01)


def test_a_wrong_grid_does_not_pass(monkeypatch):
    from vlm import families

    bundle = load("llava")
    flipped = families.row_major(4, 4)[:, ::-1]
    grid = families.covering(200, 130, 4, 4)
    monkeypatch.setitem(families.RULES, "llava", lambda facts: [families.Region("whole", grid, flipped)])
    report = check_model(bundle, [picture()], QUERY)
    assert report["pictures"][0]["grid_probe"]["verdict"] == "disagrees"
    assert not report["passed"]


def test_a_picture_that_cannot_be_encoded():
    with pytest.raises(ValueError, match="Expected the query to have at least one token"):
        check_model(load("llava"), [picture()], "  ")
