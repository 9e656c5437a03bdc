"""Prompts that end with the query, from templates of several habits."""

from __future__ import annotations

import pytest

from tests.tiny_families.parts import tokenizer
from vlm.chat_prompts import image_placeholder, prompt_head, query_tokens, written_once

TURN = "{%% for m in messages %%}%s{%% for c in m.content %%}%s{%% endfor %%}%s{%% endfor %%}"
PARTS = "{% if c.type == 'image' %}<image>{% else %}{{ c.text }}{% endif %}"
QWEN = "<|im_start|>system\nYou are helpful.<|im_end|>\n" + TURN % ("<|im_start|>user\n", PARTS, "<|im_end|>\n")
GEMMA = "<s>" + TURN % ("<start_of_turn>user\n", PARTS.replace("c.text }}", "c.text | trim }}"), "<end_of_turn>\n")
SMOL = TURN % (
    "<|im_start|>User:{% if m.content[0].type == 'text' %} {% endif %}", PARTS, "<end_of_utterance>\n"
)  # fmt: skip
IMAGE_LAST = TURN % ("[INST]", "{% if c.type == 'text' %}{{ c.text }}{% endif %}", "<image>[/INST]")
SHOUTING = TURN % ("", "{% if c.type == 'image' %}<image>{% else %}{{ c.text | upper }}{% endif %}", "")


def words(template: str | None = None):
    made = tokenizer({"image_token": "<image>"})
    made.chat_template = template
    return made


@pytest.mark.parametrize(
    ("template", "head"),
    [
        (QWEN, "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\n<image>"),
        (GEMMA, "<s><start_of_turn>user\n<image>"),
        (SMOL, "<|im_start|>User:<image>"),
    ],
    ids=["system text", "BOS", "space without an image"],
)
def test_the_prompt_is_cut_where_the_query_begins(template, head):
    assert prompt_head(words(template), "chat").text == head


@pytest.mark.parametrize("template", [QWEN, GEMMA, SMOL], ids=["qwen", "gemma", "smol"])
def test_a_plain_prompt_is_the_image_alone(template):
    assert image_placeholder(words(template)) == "<image>"
    assert prompt_head(words(template), "plain").text == "<image>"
    assert prompt_head(words(template), "plain", placeholder="<boi>").text == "<boi>"


def test_an_image_behind_the_query_is_refused():
    with pytest.raises(ValueError, match="Expected the chat template to put the image before the query"):
        prompt_head(words(IMAGE_LAST), "chat")


def test_a_template_that_changes_the_query_is_refused():
    with pytest.raises(ValueError, match="Expected the chat template to keep the query as it is"):
        prompt_head(words(SHOUTING), "chat")


def test_a_missing_template_is_refused_in_one_line():
    with pytest.raises(ValueError, match="^Expected the checkpoint to have a chat template.*conv_mode=plain.$"):
        prompt_head(words(), "chat")


def test_the_reason_for_a_missing_template_ends_in_one_full_stop():
    class NoTemplate:
        def apply_chat_template(self, messages, **options):
            raise ValueError("This processor has none.")

    with pytest.raises(ValueError, match=r"but got: This processor has none\. Use model\.conv_mode=plain\.$"):
        prompt_head(NoTemplate(), "chat")


def test_unknown_modes_are_refused():
    with pytest.raises(ValueError, match="Expected model.conv_mode to be one of chat, plain"):
        prompt_head(words(QWEN), "referseg")


def test_bos_is_written_once():
    assert not written_once(words(), "<s>user")
    assert written_once(words(), "user <s>")


@pytest.mark.parametrize("fast", [True, False], ids=["offsets", "no offsets"])
def test_the_querys_own_tokens_are_known(fast, monkeypatch):
    made = words(GEMMA)
    monkeypatch.setattr(type(made), "is_fast", property(lambda self: fast))
    found = query_tokens(made, prompt_head(made, "chat"), "the red cat")
    assert made.convert_ids_to_tokens(list(found.query_ids)) == ["the", "red", "cat"]
    assert made.convert_ids_to_tokens(list(found.head_ids))[-1] == "<image>"


def test_a_query_without_tokens_is_refused():
    made = words(GEMMA)
    with pytest.raises(ValueError, match="Expected the query to have at least one token"):
        query_tokens(made, prompt_head(made, "chat"), "   ")
