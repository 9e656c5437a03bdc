"""Changes to a model for the time of a forward pass: work that nobody reads is left out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from vlm.decoder import attention_modules, find_decoder

if TYPE_CHECKING:
    import torch
    from torch import nn


def set_attention(module: Any, implementation: str) -> None:
    """Set how a transformers module computes attention from now on; it reads its config at every forward."""
    module.config._attn_implementation = implementation


@contextlib.contextmanager
def eager_attention(model: nn.Module) -> Iterator[None]:
    """Eager attention in the language model of a model, for a while."""
    decoder = find_decoder(model)
    owners = [decoder, *attention_modules(decoder).values()]
    configs: list[Any] = list({id(owner.config): owner.config for owner in owners}.values())
    before = [config._attn_implementation for config in configs]
    for config in configs:
        config._attn_implementation = "eager"
    try:
        yield
    finally:
        for config, implementation in zip(configs, before):
            config._attn_implementation = implementation


@contextlib.contextmanager
def short_last_layer(language_model: Any) -> Iterator[None]:
    """Cut the last layer down to the last token once its keys and values are stored, for a while.

    For a prefill, whose output nobody reads. What follows the cache, the output projection and the MLP, is about three
    quarters of the layer's work; its results for one token are added to all tokens, so every shape stays as it was.
    Stopping with an exception would spare the attention too, but break through the hooks of others, which never end.
    """

    def cut(module: Any, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (inputs[0][:, -1:],)

    layer = language_model.layers[-1]
    handles = [module.register_forward_pre_hook(cut) for module in (layer.self_attn.o_proj, layer.mlp)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def short_unused_vision_layers(model: Any) -> Iterator[None]:
    """Cut the vision tower down to one token above the layer whose output LLaVA takes, for a while.

    LLaVA-1.5 takes the output of the last layer but one. Layers are not taken out, since the layer to take counts from
    the last one.
    """

    def cut(module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0][:, :1], *inputs[1:])

    handles = [layer.register_forward_pre_hook(cut) for layer in unused_vision_layers(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def unused_vision_layers(model: Any) -> list[Any]:
    """Layers of the vision tower above the deepest whose output goes to the language model."""
    taken = model.config.vision_feature_layer
    depth = model.config.vision_config.num_hidden_layers
    # Output number 0 is the embedding, and the last one that of the last layer.
    deepest = max(index % (depth + 1) for index in ([taken] if isinstance(taken, int) else taken))
    stacks = (getattr(module, "layers", ()) for module in model.vision_tower.modules())
    layers: Sequence[Any] = next((stack for stack in stacks if len(stack) == depth), ())
    return list(layers[deepest:])
