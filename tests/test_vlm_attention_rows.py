"""Rows read beside a backend against those of eager attention with all its weights, family by family."""

from __future__ import annotations

import pytest
import torch
import transformers

from tests.tiny_families import FAMILIES, OLDEST
from tests.tiny_families.loading import load, set_eager, whole_inputs
from vlm import attention_rows
from vlm.attention_rows import reading_rows
from vlm.decoder import attention_modules, find_decoder, only_layers

IS_OLD = int(transformers.__version__.split(".")[0]) < 5
NAMES = OLDEST if IS_OLD else tuple(FAMILIES)
# Chosen by class before 4.53, so that the table is not asked.
BY_CLASS = {"qwen2_5_vl"} if IS_OLD else set()
# Layers that are linear, or whose keys are the picture.
WITHOUT_MAP = {"qwen3_5": (0, 2), "mllama": (1, 3)}


@pytest.fixture
def fresh():
    """Load models anew where a test changes them."""
    yield load
    load.cache_clear()


def read(model, inputs, **options):
    with torch.no_grad(), reading_rows(model, **options) as rows:
        logits = model(**inputs).logits
    return rows, logits


def eager_maps(model, inputs) -> list[torch.Tensor]:
    set_eager(model)
    with torch.no_grad():
        output = model(**inputs, output_attentions=True)
    return [weights[0] for weights in output.attentions if weights is not None]


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_those_of_eager_attention_and_logits_stay(name, fresh):
    bundle = fresh(name)
    inputs = whole_inputs(bundle)
    with torch.no_grad():
        plain = bundle.model(**inputs).logits
    rows, logits = read(bundle.model, inputs)
    if name in BY_CLASS:
        torch.testing.assert_close(logits, plain, rtol=0, atol=1e-5)
    else:
        assert torch.equal(logits, plain)
    assert rows.layers() == tuple(set(range(bundle.num_layers)) - set(WITHOUT_MAP.get(name, ())))
    found = {**rows.prompt, **rows.cross}
    maps = eager_maps(bundle.model, inputs)
    assert len(maps) == len(found)
    for layer, weights in zip(sorted(found), maps):
        torch.testing.assert_close(found[layer][0, :, 0], weights[:, -1], rtol=0, atol=1e-5)
        assert weights[:, -1].std() > 1e-3  # uneven enough to tell rows apart


@pytest.mark.parametrize("name", ["llava", "gemma3", "gemma3_softcap", "qwen3_5"])
def test_several_queries_and_columns(name, fresh):
    if name not in NAMES:
        pytest.skip("needs a newer transformers")
    bundle = fresh(name)
    inputs = whole_inputs(bundle)
    rows, _ = read(bundle.model, inputs, queries=(-3, 2), columns=(1, 4))
    maps = eager_maps(bundle.model, inputs)
    for layer, weights in zip(rows.layers(), maps):
        expected = weights[:, [weights.shape[1] - 3, 2]][:, :, [1, 4]]
        torch.testing.assert_close(rows.prompt[layer][0], expected, rtol=0, atol=1e-5)


def test_layers_without_a_map_are_absent_and_named_by_the_decoder(fresh):
    if IS_OLD:
        pytest.skip("needs a newer transformers")
    bundle = fresh("qwen3_5")
    rows, _ = read(bundle.model, whole_inputs(bundle))
    assert rows.layers() == (1, 3)
    assert rows.stacked().shape[0] == 2
    assert torch.isfinite(rows.stacked()).all()


def test_cross_attention_is_kept_apart(fresh):
    if IS_OLD:
        pytest.skip("needs a newer transformers")
    bundle = fresh("mllama")
    rows, _ = read(bundle.model, whole_inputs(bundle), columns=(0, 1))
    assert rows.layers() == (0, 2)
    assert rows.layers(cross=True) == (1, 3)
    assert rows.stacked(cross=True).shape[-1] == 4 * 17  # columns are the prompt's, not the picture's
    assert rows.stacked().shape[-1] == 2


def test_everything_is_as_before_afterwards_also_after_an_error(fresh):
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    bundle = fresh("llava")
    before = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def fail() -> None:
        with reading_rows(bundle.model):
            assert ALL_ATTENTION_FUNCTIONS["sdpa"] is not before
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before
    assert "sdpa" not in ALL_ATTENTION_FUNCTIONS._local_mapping


def test_an_entry_of_somebody_else_is_put_back(fresh):
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    bundle = fresh("llava")
    genuine = ALL_ATTENTION_FUNCTIONS["sdpa"]
    calls = []

    def theirs(*args, **options):
        calls.append(1)
        return genuine(*args, **options)

    ALL_ATTENTION_FUNCTIONS["sdpa"] = theirs
    try:
        rows, _ = read(bundle.model, whole_inputs(bundle))
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is theirs
    finally:
        del ALL_ATTENTION_FUNCTIONS["sdpa"]
    assert calls
    assert rows.layers() == (0, 1, 2)


def test_modules_wrapped_by_others_keep_their_wrapping(fresh, monkeypatch):
    bundle = fresh("llava")
    inputs = whole_inputs(bundle)
    expected, _ = read(bundle.model, inputs)
    monkeypatch.setattr(attention_rows, "_asks_table", lambda module, backend: False)
    [module, *_] = attention_modules(find_decoder(bundle.model)).values()
    genuine = module.forward

    def theirs(*args, **options):
        return genuine(*args, **options)

    module.forward = theirs
    rows, _ = read(bundle.model, inputs)
    assert vars(module)["forward"] is theirs
    for layer in expected.layers():
        torch.testing.assert_close(rows.prompt[layer], expected.prompt[layer], rtol=0, atol=1e-5)
    others = list(attention_modules(find_decoder(bundle.model)).values())[1:]
    assert not any("forward" in vars(other) for other in others)


def test_only_the_first_step_of_a_generation_is_read(fresh):
    bundle = fresh("llava")
    inputs = whole_inputs(bundle)
    with torch.no_grad(), reading_rows(bundle.model) as rows:
        bundle.model.generate(**inputs, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    expected, _ = read(bundle.model, inputs)
    for layer in expected.layers():
        torch.testing.assert_close(rows.prompt[layer], expected.prompt[layer], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["llava", "gemma3"])
def test_early_exit_gives_the_same_rows_up_to_that_layer(name, fresh):
    bundle = fresh(name)
    inputs = whole_inputs(bundle)
    whole, _ = read(bundle.model, inputs)
    with only_layers(find_decoder(bundle.model), 1):
        short, _ = read(bundle.model, inputs)
    assert short.layers() == (0, 1)
    assert len(find_decoder(bundle.model).layers) == 3
    for layer in short.layers():
        assert torch.equal(short.prompt[layer], whole.prompt[layer])


def test_a_model_without_softmax_attention_is_refused_in_one_line():
    with pytest.raises(ValueError, match="Expected a layer with softmax attention.*but got none"):
        attention_rows.AttentionRows().stacked()


def test_windows_given_as_a_number_are_kept():
    """Flash attention takes neither a 4-D mask nor shows its window there."""
    query = torch.zeros(1, 2, 6, 4)
    module = torch.nn.Module()
    added = attention_rows._mask_of_rows(module, query, query, None, [5], {"sliding_window": 3})
    assert (added[0, 0, 0] < 0).tolist() == [True, True, True, False, False, False]


def test_padding_given_by_token_is_kept():
    query = torch.zeros(1, 2, 4, 4)
    mask = torch.tensor([[0, 1, 1, 1]])
    added = attention_rows._mask_of_rows(torch.nn.Module(), query, query, mask, [2], {})
    assert (added[0, 0, 0] < 0).tolist() == [True, False, False, True]
