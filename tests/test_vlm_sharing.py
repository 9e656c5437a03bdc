"""Shared prefills against plain forwards, family by family; what is found wrong is not used, and said."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
import transformers

from tests.tiny_families import FAMILIES, OLDEST
from tests.tiny_families.loading import encode, load
from vlm import sharing
from vlm.sharing import PictureReader

IS_OLD = int(transformers.__version__.split(".")[0]) < 5
NAMES = OLDEST if IS_OLD else tuple(FAMILIES)
QUERIES = ("find the red cat", "the ball", "where is the big blue dog in the box")
# The prompt sees itself both ways, so that the prefix depends on the query.
BIDIRECTIONAL = {"paligemma", "paligemma2"}
# A running state cannot branch; nor is the picture in the prompt where it is in cross attention.
BY_SUFFIX = {"qwen3_5", "mllama"}
# Version 4 gives its masks to the layers in a way of its own.
PLAIN = BIDIRECTIONAL | ({"gemma3"} if IS_OLD else set())


def plain_rows(bundle, picture) -> list[np.ndarray]:
    [rows] = PictureReader(bundle, share=False).read([picture])
    return [row.attention for row in rows]


@pytest.mark.parametrize("name", NAMES)
def test_shared_rows_are_those_of_plain_forwards(name):
    bundle = load(name)
    reader = PictureReader(bundle)
    # The second picture has another shape: nothing of the first may stay on the model.
    for shape in ("landscape", "portrait"):
        picture = encode(bundle, *QUERIES, shape=shape)
        [rows] = reader.read([picture])
        expected = plain_rows(bundle, picture)
        assert len(rows) == len(QUERIES)
        for row, plain in zip(rows, expected):
            assert row.attention.shape == (bundle.num_layers, bundle.num_heads, picture.regions.num_tokens)
            np.testing.assert_allclose(row.attention, plain, rtol=0, atol=1e-5)
    way = {found.way for found in reader.found.values()}
    assert way == {"plain" if name in PLAIN else "suffix" if name in BY_SUFFIX else "branches"}


def test_a_single_query_has_nothing_to_share():
    bundle = load("llava")
    reader = PictureReader(bundle)
    [[row]] = reader.read([encode(bundle, QUERIES[0])])
    assert row.meta["prefill_sharing"] == "plain"
    assert not reader.found


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "internvl"])
def test_two_queries_are_checked_as_three(name, monkeypatch):
    bundle = load(name)
    reader = PictureReader(bundle)
    seen = []
    genuine = reader._read_branches
    monkeypatch.setattr(reader, "_read_branches", lambda *args: seen.append(len(args[1].ends)) or genuine(*args))
    [rows] = reader.read([encode(bundle, *QUERIES[:2])])
    assert seen == [3, 2]
    for row, plain in zip(rows, plain_rows(bundle, encode(bundle, *QUERIES[:2]))):
        np.testing.assert_allclose(row.attention, plain, rtol=0, atol=1e-5)


def test_a_prompt_that_sees_itself_is_read_plainly_and_said_so(caplog):
    if IS_OLD:
        pytest.skip("needs a newer transformers")
    bundle = load("paligemma")
    with caplog.at_level(logging.WARNING):
        [[row, *_]] = PictureReader(bundle).read([encode(bundle, *QUERIES)])
    assert "Every query is read with a forward of its own" in caplog.text
    assert row.meta["prefill_sharing"].startswith("plain (branches: rows differ by up to")


def test_the_way_is_found_again_where_pictures_are_longer_than_a_window(monkeypatch):
    bundle = load("bakllava") if not IS_OLD else load("llava")
    reader = PictureReader(bundle)
    monkeypatch.setattr(sharing, "_reaches", lambda decoder: (22,))
    reader.read([encode(bundle, "ball", "cat")])
    reader.read([encode(bundle, "cat", "ball")])
    assert list(reader.found) == [(False,)]
    reader.read([encode(bundle, *QUERIES)])
    assert list(reader.found) == [(False,), (True,)]


def test_branches_that_see_each_other_are_noticed(monkeypatch):
    bundle = load("llava")
    monkeypatch.setattr(sharing, "branch_masks", lambda *args: torch.zeros(()))
    reader = PictureReader(bundle)
    [[row, _]] = reader.read([encode(bundle, *QUERIES[:2])])
    assert row.meta["prefill_sharing"].startswith("suffix, ")
    np.testing.assert_allclose(row.attention, plain_rows(bundle, encode(bundle, QUERIES[0]))[0], rtol=0, atol=1e-5)


def test_running_out_of_memory_is_not_taken_for_a_way_that_fails(monkeypatch):
    bundle = load("llava")

    def exhausted(self, pictures):
        raise MemoryError

    monkeypatch.setattr(PictureReader, "_by_branches", exhausted)
    with pytest.raises(MemoryError):
        PictureReader(bundle).read([encode(bundle, *QUERIES)])


@pytest.mark.parametrize("name", ["llava", "gemma3", "qwen3_5"])
def test_early_exit(name):
    if name not in NAMES:
        pytest.skip("needs a newer transformers")
    bundle = load(name)
    picture = encode(bundle, *QUERIES)
    [rows] = PictureReader(bundle, stop_layer=1).read([picture])
    for row, whole in zip(rows, plain_rows(bundle, picture)):
        np.testing.assert_allclose(row.attention, whole[:2], rtol=0, atol=1e-5)
        assert row.layers_without_map == ((0,) if name == "qwen3_5" else ())


def test_several_pictures_in_one_prefill():
    bundle = load("llava")
    pictures = [encode(bundle, *QUERIES, seed=0), encode(bundle, QUERIES[2], seed=1)]
    rows = PictureReader(bundle).read(pictures)
    assert [len(of_picture) for of_picture in rows] == [3, 1]
    for of_picture, picture in zip(rows, pictures):
        for row, plain in zip(of_picture, plain_rows(bundle, picture)):
            np.testing.assert_allclose(row.attention, plain, rtol=0, atol=1e-5)


def test_more_query_tokens_than_fit_one_forward(monkeypatch):
    from vlm import branches

    bundle = load("llava")
    monkeypatch.setattr(branches, "MAX_BRANCH_TOKENS", 5)
    picture = encode(bundle, *QUERIES)
    [rows] = PictureReader(bundle).read([picture])
    for row, plain in zip(rows, plain_rows(bundle, picture)):
        np.testing.assert_allclose(row.attention, plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision_is_judged_by_its_own_rounding(dtype):
    import dataclasses

    bundle = load("llava")
    bundle.model.to(dtype)
    half = dataclasses.replace(bundle, dtype=dtype)
    try:
        [[row, *_]] = PictureReader(half).read([encode(half, *QUERIES)])
    finally:
        bundle.model.float()
        load.cache_clear()
    assert row.meta["prefill_sharing"].startswith("branches, ")
