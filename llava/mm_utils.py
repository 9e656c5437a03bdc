"""Tokenisation and image preparation as only LLaVA does it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def restore_bos(tokenizer: Any, settings: Mapping[str, Any]) -> None:
    """Make a LLaMA tokenizer open sequences with BOS where its settings leave that open.

    Transformers 4 takes it for granted; transformers 5 only does it if tokenizer_config.json or tokenizer.json says so.

    Args:
        tokenizer: Any transformers tokenizer; changed in place.
        settings: Its tokenizer_config.json.
    """
    is_llama = str(settings.get("tokenizer_class", "LlamaTokenizer")).startswith("LlamaTokenizer")
    if is_llama and settings.get("add_bos_token") is None and not adds_bos(tokenizer):
        tokenizer.add_bos_token = True


def pads_to_square(image_aspect_ratio: str) -> bool:
    """Whether pictures are centred on a square first, as LLaVA-1.5 has it.

    Args:
        image_aspect_ratio: What config.json says.

    Raises:
        ValueError: If it is a way of cutting pictures into tiles, which LLaVA-1.5 does not know.
    """
    if image_aspect_ratio not in {"pad", "square"}:
        raise ValueError(
            f"Expected image_aspect_ratio in config.json to be pad or square, but got {image_aspect_ratio!r}, "
            "which cuts the image into several pieces. Use a LLaVA 1.5 checkpoint."
        )
    return image_aspect_ratio == "pad"


def text_ids(text: str, tokenizer: Any) -> list[int]:
    """Token ids of a text, without special tokens."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def swallows_leading_space(tokenizer: Any) -> bool:
    """Whether a text's leading space is taken for the one that SentencePiece puts before every text, and lost.

    Fast LLaMA tokenizers do so; SentencePiece itself, which LLaVA was trained with, writes both.
    """
    ids = text_ids("a", tokenizer)
    return tokenizer.convert_ids_to_tokens(ids)[0].startswith("▁") and ids == text_ids(" a", tokenizer)


def adds_bos(tokenizer: Any) -> bool:
    """Whether this tokenizer opens every sequence with BOS."""
    bos = tokenizer.bos_token_id
    return bos is not None and list(tokenizer("a")["input_ids"])[:1] == [bos]
