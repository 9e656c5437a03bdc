"""What the language model is given for each image token, caught before its first layer runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vlm.decoder import find_decoder

if TYPE_CHECKING:
    import torch
    from torch import nn


class _CaughtError(Exception):
    """Stops a forward at the language model's door."""


def image_features(model: nn.Module, inputs: Mapping[str, torch.Tensor], image_ids: frozenset[int]) -> torch.Tensor:
    """Embeddings `[V, width]` of the image's tokens, in their order; the cross attention's keys where there are such.

    The forward is broken off behind the vision tower, so this costs no more than that.

    Args:
        model: The whole model.
        inputs: Of one picture and any prompt.
        image_ids: Ids of the image's tokens.
    """
    import torch

    caught: dict[str, torch.Tensor] = {}
    hooks = _hooks(model, caught)
    try:
        model(**inputs)
    except _CaughtError:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    if "cross_attention_states" in caught:
        states = caught["cross_attention_states"]
        return states.reshape(-1, states.shape[-1])
    ids = inputs["input_ids"][0]
    return caught["inputs_embeds"][0][torch.isin(ids, torch.tensor(sorted(image_ids), device=ids.device))]


def _hooks(model: nn.Module, caught: dict[str, torch.Tensor]) -> list[Any]:
    decoder: Any = find_decoder(model)

    def at_decoder(module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        del module, args
        for key in ("inputs_embeds", "cross_attention_states"):
            if options.get(key) is not None:
                caught[key] = options[key]
        if caught:
            raise _CaughtError

    def at_first_layer(module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        # Some models put the picture in within the decoder.
        del module
        caught["inputs_embeds"] = args[0] if args else options["hidden_states"]
        raise _CaughtError

    hooks = [decoder.register_forward_pre_hook(at_decoder, with_kwargs=True)]
    if hasattr(decoder, "layers"):
        hooks.append(decoder.layers[0].register_forward_pre_hook(at_first_layer, with_kwargs=True))
    return hooks
