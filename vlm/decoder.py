"""The language model inside an image-text model: where it is, and which of its modules attend."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

# Names under which families keep the language model, and those of the towers beside it.
_DECODER_NAMES = ("language_model", "text_model", "text_decoder")
_TOWER = re.compile(r"(^|\.)(vision|visual|image|img|audio|vq|video)[a-z_]*(\.|$)")
_DEEPEST_NESTING = 4


def find_decoder(model: nn.Module) -> nn.Module:
    """Give the stack of layers that reads the prompt.

    Args:
        model: An image-text model with or without a head on top, or a language model alone.
    """
    inner: Any = model
    found: Any
    for _ in range(_DEEPEST_NESTING):
        for name in _DECODER_NAMES:
            if getattr(inner, name, None) is not None:
                found = _without_head(getattr(inner, name))
                return found  # type: ignore[no-any-return]
        if not hasattr(inner, "model"):
            break
        inner = inner.model
    getter: Any = getattr(model, "get_decoder", None)
    found = getter() if callable(getter) else inner
    return found  # type: ignore[no-any-return]


def _without_head(found: Any) -> Any:
    """Versions before 4.53 keep the language model with its head."""
    return found.model if hasattr(found, "lm_head") and hasattr(found, "model") else found


def attention_modules(decoder: nn.Module) -> dict[str, nn.Module]:
    """Modules of a decoder that compute attention, by their names within it; towers that sit inside are left out."""
    return {
        name: module
        for name, module in decoder.named_modules()
        if _attends(module)
        and hasattr(module, "config")
        and not _TOWER.search(name)
        # A wrapper around an attention module is not asked twice.
        and not any(_attends(child) for child in module.children())
    }


def _attends(module: nn.Module) -> bool:
    return "attention" in type(module).__name__.lower()


def layer_index(name: str, module: nn.Module) -> int:
    """The decoder's own 0-based number of the layer that a module belongs to.

    Args:
        name: Its name within the decoder; the first number in it tells.
        module: Asked for `layer_idx` where the name has no number.
    """
    numbers = re.findall(r"(?:^|\.)(\d+)(?:\.|$)", name)
    return int(numbers[0]) if numbers else int(getattr(module, "layer_idx", 0) or 0)


def is_cross_attention(name: str, module: nn.Module) -> bool:
    """Whether a module's keys are another sequence than the prompt, such as the image's states (Llama 3.2 Vision)."""
    return "cross" in type(module).__name__.lower() or "cross_attn" in name or "encoder_attn" in name


def number_of_layers(decoder: nn.Module) -> int:
    """Layers of a decoder, those without softmax attention counted."""
    config: Any = decoder.config
    return int(config.num_hidden_layers)


def number_of_heads(decoder: nn.Module) -> int:
    """Query heads of each attention layer of a decoder."""
    config: Any = decoder.config
    return int(config.num_attention_heads)


@contextlib.contextmanager
def only_layers(decoder: nn.Module, deepest: int | None) -> Iterator[None]:
    """Let a decoder end with one of its layers, for a while.

    The list is shortened rather than the forward broken off, since hooks of other libraries expect every module that
    begins to end.

    Args:
        decoder: Its layers are in `layers`; one that keeps them elsewhere runs whole.
        deepest: 0-based index of the last layer that runs; None for all.
    """
    layers: Any = getattr(decoder, "layers", None)
    if deepest is None or layers is None:
        yield
        return
    decoder.layers = layers[: deepest + 1]
    try:
        yield
    finally:
        decoder.layers = layers
