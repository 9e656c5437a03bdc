"""Regions: tokens and cells, and attention as one map."""

from __future__ import annotations

import dataclasses
import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.grids import Grid
from lab.records import CollectedAttention, Sample
from lab.regions import Region, Regions, covering, finest_grid, row_major
from lab.storage.attention_files import build_meta, load_attention, save_attention
from vlm.tile_formulas import tiled

WH = (200, 100)
GRID = {"rows": 2, "cols": 2, "x0": 0.0, "y0": 0.0, "cell_w": 50.0, "cell_h": 50.0}


def tiles_with_thumbnail() -> Regions:
    """Two tiles side by side of 2 x 2 tokens, and a thumbnail of 2 x 2."""
    return Regions(tuple(tiled(WH, (2, 1), side=2)), 12)


def test_a_single_grid_is_its_own_map():
    regions = Regions.single(Grid(3, 4, 0.0, -20.0, 50.0, 50.0))
    attention = np.arange(12, dtype=np.float32)[None]
    assert regions.is_single
    assert regions.map_grid() == Grid(3, 4, 0.0, -20.0, 50.0, 50.0)
    assert np.array_equal(regions.as_map(attention)[0], np.arange(12).reshape(3, 4))


def test_merged_map_puts_each_share_where_it_lies():
    regions = tiles_with_thumbnail()
    attention = np.zeros(12)
    attention[5] = 1.0  # second tile, upper right cell
    attention[8] = 4.0  # thumbnail, upper left cell: two cells of the finest grid wide
    merged = regions.as_map(attention)
    assert regions.map_grid() == Grid(2, 4, 0.0, 0.0, 50.0, 50.0)
    assert merged.tolist() == [[2.0, 2.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]]


def test_a_region_alone():
    regions = tiles_with_thumbnail()
    attention = np.arange(12, dtype=np.float64)
    assert regions.as_map(attention, "thumbnail").tolist() == [[8, 9], [10, 11]]
    assert regions.as_map(attention, "tiles").tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]


def test_a_picture_with_one_region_gives_it_for_every_mode():
    regions = Regions.single(covering(10, 10, 2, 2))
    for mode in ("merged", "thumbnail", "tiles"):
        assert regions.as_map(np.arange(4.0), mode).tolist() == [[0, 1], [2, 3]]


def test_unknown_modes_and_missing_kinds_are_refused():
    tiles_only = Regions(tuple(tiled(WH, (2, 1), side=2, thumbnail="none")), 8)
    with pytest.raises(ValueError, match="Expected logic.regions to be one of merged, thumbnail, tiles, but got 'all'"):
        tiles_only.map_grid("all")
    with pytest.raises(ValueError, match="Expected the picture to have a region for logic.regions=thumbnail"):
        tiles_only.map_grid("thumbnail")


def test_separators_belong_to_no_cell():
    grid = covering(*WH, 2, 3)
    regions = Regions((Region("whole", grid, row_major(2, 3, row_step=4)),), 8)
    assert regions.separators == (3, 7)
    assert not regions.is_single
    attention = np.ones(8)
    assert regions.as_map(attention).sum() == 6


def test_cells_without_a_token_hold_nothing():
    region = Region("whole", covering(*WH, 1, 3), np.array([[0, -1, 1]]))
    assert Regions((region,), 2).as_map(np.array([2.0, 3.0])).tolist() == [[2.0, 0.0, 3.0]]


def test_one_token_cannot_have_two_cells():
    grid = covering(*WH, 1, 2)
    with pytest.raises(ValueError, match="one cell at most"):
        Regions((Region("whole", grid, np.array([[0, 0]])),), 2)


def test_tokens_lie_within_the_image():
    with pytest.raises(ValueError, match="Expected the regions to lie within the image's 3 tokens, but got token 3"):
        Regions((Region("whole", covering(*WH, 2, 2), row_major(2, 2)),), 3)


@pytest.mark.parametrize("regular", [True, False], ids=["regular", "irregular"])
def test_a_round_trip_through_json(regular):
    token_of = row_major(2, 3, first=4, row_step=5) if regular else np.array([[0, 2, 1], [5, 4, 3]])
    regions = Regions((Region("tile", Grid(2, 3, 1.5, -2.0, 3.25, 4.0), token_of),), 20)
    rows = json.loads(json.dumps(regions.to_list()))
    assert ("token_of" in rows[0]) != regular
    again = Regions.from_list(rows, 20)
    assert again.regions[0].grid == regions.regions[0].grid
    assert again.regions[0].kind == "tile"
    assert np.array_equal(again.regions[0].token_of, token_of)


@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(40, 900),
    st.integers(40, 900),
    st.integers(0, 9),
)
def test_merging_keeps_the_sum_over_cells(cols, rows, side, width, height, seed):
    found = tiled((width, height), (cols, rows), side=side)
    count = sum(region.token_of.size for region in found)
    attention = np.random.default_rng(seed).random((2, 3, count))
    merged = Regions(tuple(found), count).as_map(attention)
    np.testing.assert_allclose(merged.sum(axis=(-2, -1)), attention.sum(axis=-1), rtol=1e-9)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))
def test_tiles_and_thumbnail_fit_the_finest_grid(cols, rows, side):
    grid = finest_grid([region.grid for region in tiled((317, 211), (cols, rows), side=side)])
    assert grid.shape == (rows * side, cols * side)


# With attention, in files ---------------------------------------------------------------------------------------------


def collected_of_tiles(**changes) -> CollectedAttention:
    regions = tiles_with_thumbnail()
    attention = np.random.default_rng(0).random((3, 2, 12)).astype(np.float32) / 12
    record = CollectedAttention(attention, regions.map_grid(), WH, Sample("a", "x.png", "the bird"), regions=regions)
    return dataclasses.replace(record, **changes)


def test_collected_attention_seen_as_one_map():
    record = collected_of_tiles(layers_without_map=(1,))
    seen = record.seen_as("merged")
    assert seen.attention.shape == (3, 2, 8)
    assert seen.grid == Grid(2, 4, 0.0, 0.0, 50.0, 50.0)
    assert seen.layers_without_map == (1,)
    np.testing.assert_allclose(seen.attention.sum(-1), record.attention.sum(-1), rtol=1e-6)
    assert record.seen_as("thumbnail").grid.shape == (2, 2)


def test_collected_attention_of_one_grid_is_seen_as_it_is():
    record = CollectedAttention(np.zeros((1, 1, 4), np.float32), covering(*WH, 2, 2), WH, Sample("a", "x", "q"))
    assert record.seen_as("thumbnail") is record


def test_attention_must_fit_its_regions_and_layers():
    with pytest.raises(ValueError, match=r"as its regions were made for \(12\), but got 8"):
        collected_of_tiles(attention=np.zeros((3, 2, 8), np.float32))
    with pytest.raises(ValueError, match="Expected layers_without_map to be layers from 0 to 2, but got 3"):
        collected_of_tiles(layers_without_map=(3,))


def test_regions_survive_an_attention_file(tmp_path):
    record = collected_of_tiles(layers_without_map=(0, 2))
    meta = save_attention(tmp_path / "a.pkl.gz", record)
    assert meta["vis_len"] == 12
    again = load_attention(tmp_path / "a.pkl.gz")
    assert again.attention.shape == record.attention.shape
    assert again.layers_without_map == (0, 2)
    assert [region.kind for region in again.regions.regions] == ["tile", "tile", "thumbnail"]
    np.testing.assert_allclose(again.seen_as().attention, record.seen_as().attention, atol=1e-3)


def test_files_of_one_grid_say_nothing_of_regions(tmp_path):
    record = CollectedAttention(np.zeros((1, 1, 4), np.float32), covering(*WH, 2, 2), WH, Sample("a", "x.png", "q"))
    assert not {"regions", "regions_from", "layers_without_map"} & set(save_attention(tmp_path / "a.pkl.gz", record))


@pytest.mark.parametrize(
    "change",
    [
        {"regions": "abc"},
        {"regions": [{"kind": "tile"}]},
        {"regions": [3]},
        {"regions": [{"kind": "tile", "grid": {"rows": 10**9, "cols": 10**9}, "first_token": 0, "row_step": 1}]},
        {"regions": [dict(kind="a", grid=GRID, first_token=0, row_step=2)]},
        {"regions": [dict(kind="tile", grid={**GRID, "rows": 10**9, "cols": 10**9}, first_token=0, row_step=2)]},
        {"regions": [dict(kind="tile", grid=GRID, first_token=10**30, row_step=2)]},
        {"regions": [dict(kind="tile", grid=GRID, token_of=[[0, 1], [2]])]},
        {"regions": [dict(kind="tile", grid=GRID, token_of=[[0, 1], [2, 50]])]},
        {"regions": [dict(kind="tile", grid={**GRID, "cell_w": True}, first_token=0, row_step=2)]},
        {"regions": [dict(kind="tile", grid=GRID, first_token=0, row_step=2)], "regions_from": "nowhere"},
        {
            "regions": [
                dict(kind="tile", grid=GRID, first_token=0, row_step=2),
                dict(kind="tile", grid={**GRID, "cell_w": 1e-5, "cell_h": 1e-5}, first_token=4, row_step=2),
            ]
        },
        {"layers_without_map": [9]},
        {"layers_without_map": "1"},
    ],
    ids=[
        "text", "no grid", "numbers", "half a grid", "kind", "cells", "first token", "ragged", "outside", "edge",
        "source", "finest", "layer", "layers as text",
    ],
)  # fmt: skip
def test_forged_regions_are_refused_in_one_line(tmp_path, change):
    record = collected_of_tiles()
    meta = {**build_meta(record, "float32"), **change}
    content = {"attn": record.attention[:, :, None], "meta": meta}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"^Expected (the regions|layers_without_map) in the metadata of .*[^\n]*$"):
        load_attention(tmp_path / "a.pkl")
