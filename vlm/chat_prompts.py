"""A prompt that ends with the query, from any chat template, and which of its tokens are the query's.

The method reads the query's last token with nothing behind it. A template closes the turn even without a generation
prompt, so it is rendered once with a mark in the query's place and cut there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

CONV_MODES = ("chat", "plain")
# No template trims, escapes or splits it, and no query contains it.
_MARK = "\u2042query\u2042"
_QUOTED = 120


@dataclass(frozen=True)
class PromptHead:
    """Everything before the query.

    Attributes:
        text: With the image's placeholder in it.
        conv_mode: `chat` or `plain`.
    """

    text: str
    conv_mode: str


def prompt_head(renderer: Any, conv_mode: str, *, placeholder: str | None = None) -> PromptHead:
    """The part of a prompt that all queries about a picture share.

    Args:
        renderer: A processor or tokenizer with `apply_chat_template`.
        conv_mode: `chat` (the checkpoint's template, cut where the query begins) or `plain` (the image and nothing
            else).
        placeholder: What stands for the image, for `plain`; None to take it from the template.

    Raises:
        ValueError: If the template is missing, changes the query, or puts it before the image.
    """
    if conv_mode not in CONV_MODES:
        raise ValueError(
            f"Expected model.conv_mode to be one of {', '.join(CONV_MODES)} for this model, but got {conv_mode!r}."
        )
    if conv_mode == "plain":
        return PromptHead(placeholder or image_placeholder(renderer), conv_mode)
    head = _before_query(renderer, [{"type": "image"}, {"type": "text", "text": _MARK}])
    if head == _before_query(renderer, [{"type": "text", "text": _MARK}]):
        raise ValueError(
            f"Expected the chat template to put the image before the query, but got {_cut(head)!r} before it. "
            "Use model.conv_mode=plain."
        )
    return PromptHead(head, conv_mode)


def image_placeholder(renderer: Any) -> str:
    """What a chat template writes for an image, found by rendering a turn with and without one."""
    with_image = _before_query(renderer, [{"type": "image"}, {"type": "text", "text": _MARK}])
    without = _before_query(renderer, [{"type": "text", "text": _MARK}])
    start = len(os.path.commonprefix([with_image, without]))
    end = len(os.path.commonprefix([with_image[start:][::-1], without[start:][::-1]]))
    found = with_image[start : len(with_image) - end].strip()
    if not found:
        raise ValueError(f"Expected the chat template to write something for an image, but got {_cut(with_image)!r}.")
    return found


def _before_query(renderer: Any, content: Sequence[dict[str, str]]) -> str:
    messages = [{"role": "user", "content": list(content)}]
    try:
        rendered = str(renderer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False))
    except (ValueError, TypeError, ImportError) as error:
        reason = _cut(" ".join(str(error).split())).rstrip(".")
        raise ValueError(
            f"Expected the checkpoint to have a chat template, but got: {reason}. Use model.conv_mode=plain."
        ) from error
    head, mark, _ = rendered.partition(_MARK)
    if not mark:
        raise ValueError(
            f"Expected the chat template to keep the query as it is, but got {_cut(rendered)!r}. "
            "Use model.conv_mode=plain."
        )
    return head


def written_once(tokenizer: Any, head: str) -> bool:
    """Whether the tokenizer should add its special tokens: not where the template has written BOS already."""
    bos = getattr(tokenizer, "bos_token", None)
    return not (bos and head.startswith(bos))


@dataclass(frozen=True)
class QueryTokens:
    """Tokens of a prompt whose image is still one placeholder.

    Attributes:
        head_ids: Up to the query.
        query_ids: The query's own; a token that reaches over its beginning is one of them.
    """

    head_ids: tuple[int, ...]
    query_ids: tuple[int, ...]


def query_tokens(tokenizer: Any, head: PromptHead, query: str) -> QueryTokens:
    """Tokenise head and query as one text and tell them apart.

    Raises:
        ValueError: If the query has no token of its own.
    """
    options = {"add_special_tokens": False}
    if getattr(tokenizer, "is_fast", False):
        encoded = tokenizer(head.text + query, return_offsets_mapping=True, **options)
        ids = list(encoded["input_ids"])
        inside = [end > len(head.text) for _, end in encoded["offset_mapping"]]
        first = inside.index(True) if True in inside else len(ids)
    else:
        ids = list(tokenizer(head.text + query, **options)["input_ids"])
        alone = list(tokenizer(head.text, **options)["input_ids"])
        first = len(os.path.commonprefix([ids, alone]))
    if first == len(ids):
        raise ValueError(f"Expected the query to have at least one token, but got none for {_cut(query)!r}.")
    return QueryTokens(tuple(ids[:first]), tuple(ids[first:]))


def _cut(text: str) -> str:
    """A foreign text short enough for a message of one line."""
    return text if len(text) <= _QUOTED else text[:_QUOTED] + "..."
