"""Layers without attention to the image, and maps of several regions: absent from choice, sets and figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analyze import choose_heads, rank_heads, score_heads, selection_threshold
from lab.config.settings import LogicSettings, Settings
from lab.heads.dataset_selection import count_choices, select_dataset_heads, stack_scores
from lab.heads.frequency import resample_frequency
from lab.heads.head_scores import SelectionRules, kept_heads
from lab.records import CollectedAttention, Sample
from lab.regions import Region, Regions, covering, row_major
from lab.statistics.head_sets import comparison_sets
from stages.choosing import has_bottom_row, score_sample, see
from viz import draw_layer_head_map

RULES = SelectionRules(top_k=2, skip_layers=0)
WITHOUT = (0, 2)


def attention(seed: int = 0, layers: int = 4) -> np.ndarray:
    values = np.random.default_rng(seed).random((layers, 3, 16)).astype(np.float32) ** 6
    return values / values.sum(axis=2, keepdims=True) * np.linspace(0.2, 0.9, 3 * layers).reshape(layers, 3, 1)


def table_without(seed: int = 0):
    return score_heads(attention(seed), (4, 4), layers_without_map=WITHOUT)


def test_scores_are_those_of_the_other_layers_alone():
    whole, alone = table_without(), score_heads(attention()[[1, 3]], (4, 4))
    assert selection_threshold(whole, RULES) == selection_threshold(alone, RULES)
    assert selection_threshold(whole, RULES) != selection_threshold(score_heads(attention(), (4, 4)), RULES)
    renumbered = [(2 * score.layer + 1, score.head) for score in rank_heads(alone, min_keep=12, skip_layers=0)]
    assert [(score.layer, score.head) for score in rank_heads(whole, min_keep=12, skip_layers=0)] == renumbered


@pytest.mark.parametrize("kind", ["fixed_heads", "manual_heads"])
def test_heads_that_are_named_need_a_map(kind):
    with pytest.raises(ValueError, match="Expected L2H1 to have attention to the image, but got layer 2"):
        choose_heads(table_without(), rules=RULES, **{kind: [(2, 1)]})


@pytest.mark.parametrize("scope", ["sample", "dataset"])
def test_a_data_set_chooses_as_if_the_layers_were_not_there(scope):
    rules = replace(RULES, threshold_scope=scope)
    whole = stack_scores([table_without(seed) for seed in range(8)])
    alone = stack_scores([score_heads(attention(seed)[[1, 3]], (4, 4)) for seed in range(8)])
    chosen, expected = select_dataset_heads(whole, rules), select_dataset_heads(alone, rules)
    np.testing.assert_array_equal(chosen.thresholds, expected.thresholds)
    np.testing.assert_array_equal(chosen.counts[[1, 3]], expected.counts)
    assert not {layer for layer, _ in chosen.ranked_heads()} & set(WITHOUT)
    pictures = np.arange(8)
    spread = resample_frequency(whole, chosen, pictures, resamples=50)
    np.testing.assert_array_equal(spread.low[[1, 3]], resample_frequency(alone, expected, pictures, resamples=50).low)
    assert count_choices(whole.take(np.arange(3)), rules).layers_without_map == WITHOUT


def test_files_that_lack_other_layers_do_not_go_together():
    tables = [table_without(), score_heads(attention(), (4, 4), layers_without_map=(0,))]
    with pytest.raises(ValueError, match=r"maps of the same layers, \[0, 2\], but got \[0\] in sample 1"):
        stack_scores(tables)


def test_sets_to_compare_with_are_of_heads_with_a_map():
    sets = comparison_sets([(1, 0), (1, 1)], 4, 3, layers_without_map=WITHOUT)
    assert not sets.layer_matched
    assert not set((sets.members // 3).ravel()) & set(WITHOUT)
    assert set((comparison_sets([(1, 0), (1, 1)], 4, 3).members // 3).ravel()) == {0, 1, 2, 3}
    assert kept_heads((4, 3), 1, WITHOUT).tolist() == [3, 4, 5, 9, 10, 11]


def test_their_rows_are_blank_in_figures():
    values = np.full((4, 3), 0.5)
    figure = draw_layer_head_map(None, values, "t", "v", layers_without_map=WITHOUT)
    drawn = figure.axes[0].images[0].get_array()
    assert np.ma.getmaskarray(drawn).all(axis=1).tolist() == [True, False, True, False]
    assert any("blank: layers without" in text.get_text() for text in figure.texts)
    assert not np.ma.getmaskarray(draw_layer_head_map(None, values, "t", "v").axes[0].images[0].get_array()).any()


def collected(*regions: Region, tokens: int) -> CollectedAttention:
    maps = np.random.default_rng(0).random((2, 3, tokens)).astype(np.float32) / tokens
    whole = Regions(regions, tokens)
    meta = {"attn_sums": [[0.5] * 3] * 2}
    return CollectedAttention(maps, whole.map_grid(), (80, 80), Sample("a", "a.png", "q"), meta, whole)


TILES = (
    Region("tile", covering(40, 80, 4, 2), row_major(4, 2)),
    Region("tile", covering(40, 80, 4, 2, x0=40), row_major(4, 2, first=8)),
)
THUMBNAIL = Region("thumbnail", covering(80, 80, 2, 2), row_major(2, 2, first=16))


@pytest.mark.parametrize(
    ("mode", "shape", "has_rule"),
    [("merged", (4, 4), False), ("tiles", (4, 4), False), ("thumbnail", (2, 2), True)],
    ids=["merged", "tiles", "thumbnail"],
)
def test_what_is_seen_of_several_regions(mode, shape, has_rule):
    record = collected(*TILES, THUMBNAIL, tokens=21)
    settings = Settings(logic=LogicSettings(regions=mode))
    seen = see(record, settings)
    assert seen.grid.shape == shape
    assert has_bottom_row(seen) == has_rule
    # Sums are those of the map, and not the stored ones of all tokens, a separator among them.
    np.testing.assert_allclose(score_sample(seen, settings).attn_sum, seen.attention.sum(axis=2), rtol=1e-6)


def test_the_bottom_row_is_no_reason_where_the_map_is_not_square():
    maps = np.zeros((1, 1, 8), dtype=np.float32)
    maps[0, 0, 4:] = 0.2
    square = np.zeros((1, 1, 4), dtype=np.float32)
    square[0, 0, 2:] = 0.2
    sample = Sample("a", "a.png", "q")
    wide = CollectedAttention(maps, covering(80, 40, 2, 4), (80, 40), sample)
    even = CollectedAttention(square, covering(80, 80, 2, 2), (80, 80), sample)
    assert not score_sample(wide, Settings()).bottom_row_focus.any()
    assert score_sample(even, Settings()).bottom_row_focus.all()


def test_one_region_is_seen_as_it_is():
    record = CollectedAttention(attention(), covering(80, 80, 4, 4), (80, 80), Sample("a", "a.png", "q"))
    assert see(record, Settings()) is record
