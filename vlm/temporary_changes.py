"""Changes to a model for the time of a forward pass: attention backend, number of layers, work that nobody reads."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    import torch


def set_attention(module: Any, implementation: str) -> None:
    """Set how a transformers module computes attention from now on; it reads its config at every forward."""
    module.config._attn_implementation = implementation


def attention_windows(text_config: Any) -> dict[str, int | None]:
    """How far back the layers of a language model look.

    Args:
        text_config: Its settings.

    Returns:
        For each kind of layer that there is (as `layer_types` calls it) its sliding window, or None where it sees all.
    """
    window = getattr(text_config, "sliding_window", None)
    everywhere = "full_attention" if window is None else "sliding_attention"
    kinds = dict.fromkeys(getattr(text_config, "layer_types", None) or [everywhere])
    return {kind: window if kind == "sliding_attention" else None for kind in kinds}


@contextlib.contextmanager
def attention_backend(language_model: Any, implementation: str) -> Iterator[None]:
    """Another attention backend for a while."""
    before = language_model.config._attn_implementation
    set_attention(language_model, implementation)
    try:
        yield
    finally:
        set_attention(language_model, before)


@contextlib.contextmanager
def only_layers(language_model: Any, stop_layer: int | None) -> Iterator[None]:
    """A language model that ends with that layer, for a while."""
    layers = language_model.layers
    if stop_layer is not None:
        language_model.layers = layers[: stop_layer + 1]
    try:
        yield
    finally:
        language_model.layers = layers


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


@contextlib.contextmanager
def kept_rows(language_model: Any, select: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Cut every layer's attention weights down as soon as they are computed, and keep what is left of the first pass.

    The layers' own forward is wrapped, since versions of transformers differ in whether they record the attentions that
    a model returns before or after a module's hooks; so they all record the cut ones, and no whole matrix outlives its
    layer.

    Yields:
        The list of kept rows, one entry a layer, filled by the first forward pass that follows.
    """
    modules = [layer.self_attn for layer in language_model.layers]
    genuine = [vars(module).get("forward") for module in modules]
    rows: list[torch.Tensor] = []

    def cutting(forward: Callable[..., tuple]) -> Callable[..., tuple]:
        @functools.wraps(forward)
        def cut(*args: Any, **options: Any) -> tuple:
            output = forward(*args, **options)
            if output[1] is None:
                return output
            selected = select(output[1])
            if len(rows) < len(modules):
                rows.append(selected)
            return (output[0], selected, *output[2:])

        return cut

    for module in modules:
        module.forward = cutting(module.forward)
    try:
        yield rows
    finally:
        for module, before in zip(modules, genuine):
            if before is None:
                del module.forward
            else:  # another library had wrapped it already
                module.forward = before
