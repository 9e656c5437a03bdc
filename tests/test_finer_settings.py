"""From the settings to finer boxes: what the stages make of `logic.mask.edges`."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from fake_collector import FakeCollector
from test_pipeline import make_settings, result_dir

from bbox import localize
from finer.edges import FractionalEdges
from lab.config.settings import ConfigError, LogicSettings, MaskSettings, Settings
from lab.records import HeadChoice, HeadScore
from lab.storage.attention_files import load_attention
from pipeline import run
from stages.choosing import chosen_maps
from stages.plan import Plan, Steps

FRACTIONAL = LogicSettings(mask=MaskSettings(edges="fractional", edge_most=0.5, edge_power=0.5))


def test_fractional_edges_reach_the_box(tmp_path, make_image) -> None:
    settings = make_settings(tmp_path, image_file=make_image(), query="a", save_id="s", logic=FRACTIONAL)
    run(settings, FakeCollector().load)
    record = json.loads((result_dir(tmp_path) / "s_bbox.json").read_text())
    collected = load_attention(result_dir(tmp_path) / "s.pkl.gz")
    choice = HeadChoice(tuple(HeadScore(**head) for head in record["selected_heads"]), "automatic")
    options = {"sigma": 1.0, "region": "largest"}  # smoothed, a planted block has faint outer lines
    maps = chosen_maps(collected, choice)
    expected = localize(maps, collected.grid, collected.image_size_wh, edges=FractionalEdges(0.5, 0.5), **options)
    assert record["bbox_xyxy"] == list(expected.box_xyxy)
    assert record["bbox_xyxy"] != list(localize(maps, collected.grid, collected.image_size_wh, **options).box_xyxy)


def test_results_of_whole_cells_have_the_fingerprint_they_had() -> None:
    def shaping(logic: LogicSettings) -> dict:
        return Plan(replace(Settings(), logic=logic), Steps(box=True)).shaping

    plain = shaping(LogicSettings())
    assert not [key for key in plain if "edge" in key]
    assert shaping(LogicSettings(mask=MaskSettings(edge_most=0.1))) == plain
    fractional = shaping(FRACTIONAL)
    assert {key: fractional[key] for key in fractional.keys() - plain.keys()} == {
        "logic.mask.edges": "fractional",
        "logic.mask.edge_most": 0.5,
        "logic.mask.edge_power": 0.5,
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [("edges", "halves"), ("edge_most", 1.0), ("edge_power", 0.0)],
    ids=["unknown edges", "most of one", "no power"],
)
def test_edges_out_of_range_are_refused(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"Expected logic.mask.{key} to be "):
        MaskSettings(**{key: value})
