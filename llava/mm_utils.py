"""Tokenisation and image preparation as only LLaVA does it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def opens_with_bos(settings: Mapping[str, Any], *, is_llama: bool) -> bool | None:
    """Whether sequences begin with BOS, by a tokenizer's settings.

    Args:
        settings: Its tokenizer_config.json.
        is_llama: Whether a tokenizer whose class is not named is LLaMA's, which begins with BOS unless told otherwise.

    Returns:
        True or False, or None where the tokenizer itself knows best.
    """
    told = settings.get("add_bos_token")
    if told is not None:
        return bool(told)
    names_llama = str(settings.get("tokenizer_class", "LlamaTokenizer")).startswith("LlamaTokenizer")
    return True if is_llama and names_llama else None


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


def piece_ids(text: str, tokenizer: Any) -> list[int]:
    """Token ids of a piece of a prompt, without special tokens, its leading blank kept."""
    return text_ids(leading_blank(text, tokenizer) + text, tokenizer)


def leading_blank(text: str, tokenizer: Any) -> str:
    """A blank to put before a text that begins with one, where the tokenizer would swallow it; else nothing."""
    return " " if text.startswith(" ") and tokenizer.is_fast and swallows_leading_space(tokenizer) else ""


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
