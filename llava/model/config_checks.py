"""Checks a config.json before anything is built of it: numbers that are numbers, weights that are plain."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

# Whole numbers that a model is built of, with the largest that any model could have.
_COUNTS = {
    "vocab_size": 10_000_000,
    "hidden_size": 1_000_000,
    "intermediate_size": 10_000_000,
    "num_hidden_layers": 10_000,
    "num_attention_heads": 10_000,
    "num_key_value_heads": 10_000,
    "head_dim": 100_000,
    "max_position_embeddings": 1_000_000_000,
    "sliding_window": 1_000_000_000,
    "image_size": 100_000,
    "patch_size": 100_000,
    "mm_hidden_size": 1_000_000,
}
_QUANTISED = ("quantization_config", "quantization", "quantize_config")


def check_numbers(config: Mapping[str, Any], where: str) -> None:
    """Refuse sizes that are no whole numbers above 0 of a possible size.

    Args:
        config: Settings of a model, without those of models within it.
        where: The file, for the message.

    Raises:
        ValueError: On the first that is not.
    """
    for key, most in _COUNTS.items():
        value = config.get(key)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (whole and 1 <= value <= most):
            raise ValueError(
                f"Expected {key} in {where} to be a whole number from 1 to {most}, but got {reprlib.repr(value)}. "
                "Fetch the file again."
            )


def check_image_token(config: Mapping[str, Any], rows: int, where: str) -> None:
    """Refuse an image token that the model has no row for.

    Args:
        config: A config.json of the Hugging Face format.
        rows: Size of the model's vocabulary.
        where: The file, for the message.

    Raises:
        ValueError: If the id is none of the vocabulary.
    """
    value = config.get("image_token_index", config.get("image_token_id"))
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value is not None and not (whole and 0 <= value < rows):
        raise ValueError(
            f"Expected image_token_index in {where} to lie within the vocabulary (0 to {rows - 1}), "
            f"but got {reprlib.repr(value)}. Set it to the id of <image>, and vocab_size to the rows of the embeddings."
        )


def refuse_quantised(config: Mapping[str, Any], name: str) -> None:
    """Refuse weights of fewer bits than numbers have, which no plain tensor can be read from.

    Args:
        config: A config.json.
        name: Of the checkpoint.

    Raises:
        ValueError: If it says that its weights are quantised.
    """
    found = next((config[key] for key in _QUANTISED if config.get(key)), None)
    if found is not None:
        method = found.get("quant_method") if isinstance(found, dict) else found
        raise ValueError(
            f"Expected the weights of {name!r} to be float16, bfloat16 or float32, but got quantised ones "
            f"({reprlib.repr(method)}, by its config.json). Use the checkpoint that they were made of."
        )
