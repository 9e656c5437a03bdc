"""Attention rows of chosen tokens, read beside any backend and from any transformers model, never a T x T matrix.

Transformers looks the function that computes attention up in a table. For the time of a forward the entry of the
backend in use is replaced by one that lets the backend do its work, unchanged, and beside it asks the family's own
eager function for the weights of a few query tokens. Soft caps, sinks, grouped keys, odd scalings and cross attention
thus come out as the family computes them, without a line for any family here.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vlm.decoder import attention_modules, find_decoder, is_cross_attention, layer_index

if TYPE_CHECKING:
    import torch
    from torch import nn

_TABLE = "ALL_ATTENTION_FUNCTIONS"
_OWN_EAGER = "eager_attention_forward"
# Query tokens at a time where a whole output has to be computed eagerly: chunk x T numbers a head instead of T x T.
EAGER_CHUNK = 256


@dataclass
class AttentionRows:
    """What one forward gave: weights of the wanted tokens, by layer.

    Attributes:
        prompt: Layer -> `[batch, heads, queries, kept columns]`, after softmax; keys are the prompt's tokens. Layers
            without softmax attention over the prompt (recurrent, convolution, cross attention) are absent.
        cross: The same for layers whose keys are another sequence; all keys are kept.
    """

    prompt: dict[int, torch.Tensor] = field(default_factory=dict)
    cross: dict[int, torch.Tensor] = field(default_factory=dict)

    def stacked(self, *, cross: bool = False) -> torch.Tensor:
        """Rows of all layers that have a map, `[layers, batch, heads, queries, columns]`, float32, on the CPU.

        Raises:
            ValueError: If no layer was read.
        """
        import torch

        found = self.cross if cross else self.prompt
        if not found:
            raise ValueError(
                f"Expected a layer with softmax attention over the {'image' if cross else 'prompt'} to be read, but "
                "got none. This model cannot be read."
            )
        return torch.stack([found[layer].float().cpu() for layer in sorted(found)])

    def layers(self, *, cross: bool = False) -> tuple[int, ...]:
        """0-based indices of the layers in `stacked`, by the decoder's own count."""
        return tuple(sorted(self.cross if cross else self.prompt))


@dataclass(frozen=True)
class _Watched:
    """A module whose rows are wanted."""

    layer: int
    cross: bool


@dataclass
class _Reader:
    """Takes rows from watched modules, from each the first time that it runs.

    Attributes:
        watched: By the module's id.
        queries: Indices of tokens, negative ones from the end.
        columns: Keys of the prompt that are kept; None for all.
        rows: Where they go.
    """

    watched: dict[int, _Watched]
    queries: tuple[int, ...]
    columns: torch.Tensor | None
    rows: AttentionRows

    def wants(self, module: nn.Module) -> bool:
        """Whether a module's rows are still to be read; later steps of a generation are not."""
        place = self.watched.get(id(module))
        return place is not None and place.layer not in self._found(place)

    def where(self, count: int) -> list[int]:
        """The query tokens' places in a sequence of `count` tokens."""
        return [index % count for index in self.queries]

    def keep(self, module: nn.Module, weights: torch.Tensor) -> None:
        """Store `[batch, heads, queries, keys]`, cut to the wanted columns."""
        place = self.watched[id(module)]
        if self.columns is not None and not place.cross:
            weights = weights[..., self.columns.to(weights.device)]
        # A copy, since a view would keep all the keys' weights alive.
        self._found(place)[place.layer] = weights.detach().clone()

    def _found(self, place: _Watched) -> dict[int, torch.Tensor]:
        return self.rows.cross if place.cross else self.rows.prompt


@contextlib.contextmanager
def reading_rows(
    model: nn.Module, *, queries: Sequence[int] = (-1,), columns: Sequence[int] | None = None
) -> Iterator[AttentionRows]:
    """Read the attention of some query tokens during the first forward inside the block.

    The entry replaced belongs to the process: one reading at a time.

    Args:
        model: Any image-text model, or a decoder; whatever backend it is set to computes its output, bit for bit.
        queries: Places of the tokens in the sequence that the forward is given; -1 is the last one.
        columns: Keys of the prompt that are kept, such as the image's; None keeps all.

    Yields:
        The rows, filled by the forward.
    """
    import torch

    decoder = find_decoder(model)
    modules = attention_modules(decoder)
    watched = {id(module): _Watched(layer_index(name, module), is_cross_attention(name, module))
               for name, module in modules.items()}  # fmt: skip
    kept = None if columns is None else torch.as_tensor(list(columns), dtype=torch.long)
    reader = _Reader(watched, tuple(queries), kept, AttentionRows())
    backend = _backend(decoder, modules.values())
    with contextlib.ExitStack() as stack:
        if all(_asks_table(module, backend) for module in modules.values()):
            for table in _tables(modules.values()):
                stack.enter_context(_entry_replaced(table, backend, reader))
        else:
            stack.enter_context(_eager_and_cut(decoder, modules.values(), reader))
        yield reader.rows


def _backend(decoder: nn.Module, modules: Any) -> str:
    """Name of the attention that the decoder is set to."""
    config: Any = next((module.config for module in modules), decoder.config)
    return str(config._attn_implementation or "eager")


def _asks_table(module: nn.Module, backend: str) -> bool:
    """Whether a module looks its attention up in the table, under this backend; versions before 5 do not for eager."""
    names = inspect.unwrap(type(module).forward).__code__.co_names
    return _TABLE in names and (backend != "eager" or "get_interface" in names)


def _tables(modules: Any) -> list[MutableMapping[str, Callable[..., Any]]]:
    """The tables that the modules' files use: one for all, unless a file has made its own."""
    found = {id(table): table for table in (_globals(module)[_TABLE] for module in modules)}
    return list(found.values())


def _globals(module: nn.Module) -> dict[str, Any]:
    """The names of the file in which a module's forward was written."""
    return inspect.unwrap(type(module).forward).__globals__  # type: ignore[no-any-return]


# In place of a backend ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _entry_replaced(table: MutableMapping[str, Callable[..., Any]], backend: str, reader: _Reader) -> Iterator[None]:
    """Put a reading function in the place of a backend, under its name, so that masks are made as ever."""
    local: Mapping[str, Any] = getattr(table, "_local_mapping", table)
    before = local.get(backend)
    table[backend] = _reading(table.get(backend), backend, reader)
    try:
        yield
    finally:
        if before is None:
            # Only the entry of this table goes; the backend's own one stays where it was.
            del table[backend]
        else:
            table[backend] = before


def _reading(genuine: Callable[..., Any] | None, backend: str, reader: _Reader) -> Callable[..., Any]:
    """An attention function that reads rows and leaves the output to another one.

    Args:
        genuine: The backend's function; None for eager attention, of which every family has its own.
        backend: Its name.
        reader: Takes the rows.
    """

    def attention(
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **options: Any,
    ) -> Any:
        if reader.wants(module):
            _read(reader, module, query, key, value, attention_mask, options)
        watched = id(module) in reader.watched
        if watched and (genuine is None or _cannot_compute(backend, module, options)):
            return _eager_in_chunks(module, query, key, value, attention_mask, options)
        # By its name, as models hand it on: some pass it only so.
        return (genuine or own_eager(module))(module, query, key, value, attention_mask=attention_mask, **options)

    return attention


def _cannot_compute(backend: str, module: nn.Module, options: Mapping[str, Any]) -> bool:
    """Whether SDPA would refuse (transformers 5) or silently leave out (4) what this layer needs."""
    return backend == "sdpa" and (options.get("softcap") is not None or hasattr(module, "sinks"))


def _read(
    reader: _Reader,
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    options: Mapping[str, Any],
) -> None:
    """Ask the family's eager function for the wanted rows; `query` is `[batch, heads, tokens, width]`."""
    where = reader.where(query.shape[2])
    added = _mask_of_rows(module, query, key, mask, where, options)
    _, weights = own_eager(module)(module, query[:, :, where], key, value, added, **_options_of(options, where, query))
    reader.keep(module, weights)


def _options_of(options: Mapping[str, Any], where: list[int], query: torch.Tensor) -> dict[str, Any]:
    """The options with a bias `[batch, heads, queries, keys]` cut to some queries."""
    bias = options.get("position_bias")
    if getattr(bias, "ndim", 0) != 4 or bias is None or bias.shape[2] != query.shape[2]:
        return dict(options)
    return {**options, "position_bias": bias[:, :, where]}


def own_eager(module: nn.Module) -> Callable[..., Any]:
    """The eager attention of the file that a module's forward was written in.

    Raises:
        ValueError: If there is none.
    """
    for names in (_globals(module), vars(sys.modules[type(module).__module__])):
        if _OWN_EAGER in names:
            return names[_OWN_EAGER]  # type: ignore[no-any-return]
    raise ValueError(
        f"Expected the file of {type(module).__name__} to define {_OWN_EAGER}, but got none. This model cannot be read."
    )


def _eager_in_chunks(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    options: Mapping[str, Any],
) -> tuple[torch.Tensor, None]:
    """The output of the family's eager attention, `[batch, tokens, heads, width]`, a few queries at a time."""
    import torch

    outputs = []
    for start in range(0, query.shape[2], EAGER_CHUNK):
        where = list(range(start, min(start + EAGER_CHUNK, query.shape[2])))
        added = _mask_of_rows(module, query, key, mask, where, options)
        part = own_eager(module)(module, query[:, :, where], key, value, added, **_options_of(options, where, query))
        outputs.append(part[0])
    return torch.cat(outputs, dim=1), None


def _mask_of_rows(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor | None,
    where: list[int],
    options: Mapping[str, Any],
) -> torch.Tensor | None:
    """What is added to the scores of some queries, `[batch, 1, queries, keys]`; None where they see every key.

    Backends leave the mask out where causality says it all, and flash attention takes padding as `[batch, keys]` and a
    window as a number.
    """
    if mask is not None and mask.dim() == 4:
        rows = mask[:, :, where, : key.shape[2]]
        return _added(~rows, query) if _is_bool(rows) else rows
    hidden = _hidden_by_place(module, query, key, where, options)
    if mask is not None and mask.dim() == 2:
        hidden = hidden | ~mask[:, None, None, -key.shape[2] :].bool()
    return _added(hidden, query) if bool(hidden.any()) else None


def _is_bool(tensor: torch.Tensor) -> bool:
    import torch

    return tensor.dtype == torch.bool


def _hidden_by_place(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, where: list[int], options: Mapping[str, Any]
) -> torch.Tensor:
    """Keys that a query must not see by their places alone, `[1, 1, queries, keys]` bool."""
    import torch

    queries, keys = query.shape[2], key.shape[2]
    place = torch.tensor(where, device=query.device)[:, None] + (keys - queries)
    other = torch.arange(keys, device=query.device)[None]
    causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    hidden = other > place if causal else torch.zeros_like(other > place)
    if options.get("sliding_window"):
        hidden = hidden | (other <= place - options["sliding_window"])
    return hidden[None, None]


def _added(hidden: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    import torch

    lowest = torch.finfo(query.dtype).min
    return torch.zeros(hidden.shape, dtype=query.dtype, device=query.device).masked_fill(hidden, lowest)


# Modules that do not ask ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _eager_and_cut(decoder: nn.Module, modules: Any, reader: _Reader) -> Iterator[None]:
    """Run eager attention whose weights are cut right behind each module: right, but with a matrix for each layer.

    For modules that choose their attention by class (Qwen2-VL before 4.53), and eager attention before version 5.
    """
    modules = list(modules)
    configs: list[Any] = list({id(owner.config): owner.config for owner in [*modules, decoder]}.values())
    before = [config._attn_implementation for config in configs]
    genuine = [vars(module).get("forward") for module in modules]
    for config in configs:
        config._attn_implementation_internal = "eager"
    for module in modules:
        module.forward = _cutting(module, module.forward, reader)
    try:
        yield
    finally:
        for module, forward in zip(modules, genuine):
            if forward is None:
                del module.forward
            else:  # another library had wrapped it already
                module.forward = forward
        for config, implementation in zip(configs, before):
            config._attn_implementation_internal = implementation


def _cutting(module: nn.Module, forward: Callable[..., Any], reader: _Reader) -> Callable[..., Any]:
    """A module's forward that asks for its weights and hands their rows to a reader."""

    @functools.wraps(forward)
    def cutting(*args: Any, **options: Any) -> Any:
        output = forward(*args, **{**options, "output_attentions": True})
        weights = output[1]
        if weights is None:
            raise ValueError(
                f"Expected {type(module).__name__} to give its attention weights under eager attention, but got none. "
                "Use a newer version of transformers, or load the model with eager attention."
            )
        if reader.wants(module):
            reader.keep(module, weights[:, :, reader.where(weights.shape[2])])
        return (output[0], None, *output[2:])

    return cutting
