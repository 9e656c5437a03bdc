"""One prefill for all queries about a picture, in the fastest way that is right for the model, which is checked."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from vlm.attention_rows import AttentionRows, reading_rows
from vlm.branches import Branches, Ids, branch_masks, next_positions, rounds
from vlm.bundle import EncodedPicture, ImageTextBundle, RowReading
from vlm.decoder import find_decoder, only_layers
from vlm.memory import is_out_of_memory
from vlm.temporary_changes import short_last_layer, short_unused_vision_layers

if TYPE_CHECKING:
    import torch
    from torch import nn

logger = logging.getLogger(__name__)

# Largest difference of shared rows from plain ones in float32; and the part of a head's attention, on the mean, that
# may lie elsewhere, which tells also where a picture has many tokens and each gets little.
LARGEST_DIFFERENCE = 1e-4
LARGEST_PART = 1e-3
# What half precision may differ by, in units of its own rounding.
_ROUNDINGS = 10
# Layers that keep a running state instead of keys and values.
_RUNNING = {"linear_attention", "conv", "mamba", "recurrent"}
# Queries beside each other when a way is checked; a single one would not show branches that see each other.
_CHECKED_QUERIES = 3

# For each picture, for each query: rows of all layers `[layers, heads, V]`.
Rows = list[list[np.ndarray]]


@dataclass(frozen=True)
class Sharing:
    """How the prefill of pictures is shared, and how that was found right.

    Attributes:
        way: `branches`, `suffix` or `plain`.
        difference: Largest difference from a plain forward; None for `plain`.
        notes: Why faster ways were not taken.
    """

    way: str
    difference: float | None = None
    notes: tuple[str, ...] = ()


@dataclass
class _Prefill:
    """The cached part of some prompts, and what the model gave its decoder for it."""

    cache: Any
    length: int
    positions: torch.Tensor | None
    mask: object


@dataclass
class PictureReader:
    """Reads the rows of every query about pictures.

    The first picture is read both ways, shared and plainly; so is the first one that is longer than a window or chunk
    of the model's layers. Where they differ the slower way is taken, which is logged and said in what is returned.

    Attributes:
        bundle: The loaded model.
        stop_layer: Deepest layer that is wanted; those above do not run. None: all run.
        share: Whether prefills are shared at all.
    """

    bundle: ImageTextBundle
    stop_layer: int | None = None
    share: bool = True
    found: dict[tuple[bool, ...], Sharing] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find the decoder once."""
        self._decoder = find_decoder(self.bundle.model)
        self._layers: tuple[int, ...] = ()

    def read(self, pictures: Sequence[EncodedPicture]) -> list[list[RowReading]]:
        """Attention of every query's last token to the image.

        Args:
            pictures: With the same prefix, and inputs of the same shapes.

        Returns:
            For each picture, for each query.
        """
        import torch

        with torch.inference_mode(), only_layers(self._decoder, self.stop_layer):
            sharing = self._sharing(pictures)
            rows = self._ways()[sharing.way](pictures)
        without = self._without_map()
        meta = {"attention_source": "forward", "prefill_sharing": _described(sharing)}
        return [[RowReading(row, without, dict(meta)) for row in of_picture] for of_picture in rows]

    def generate(self, picture: EncodedPicture, options: Mapping[str, Any]) -> tuple[RowReading | None, list[int]]:
        """Let the model answer a picture's only query, and read the first step.

        Args:
            picture: With one query.
            options: For the model's `generate`.

        Returns:
            The row, None where the model's own loop gave none, and the tokens of the answer.
        """
        import torch

        inputs = self.plain_inputs(picture, picture.queries[0].ids)
        inputs.setdefault("attention_mask", torch.ones_like(inputs["input_ids"]))
        model: Any = self.bundle.model
        with torch.inference_mode(), self._reading(picture) as rows:
            output = model.generate(**inputs, **options, return_dict_in_generate=True)
        answer = [int(token) for token in output.sequences[0, inputs["input_ids"].shape[1] :]]
        if not rows.layers(cross=not picture.image_places):
            return None, answer
        row = self._rows(rows, picture)[0, 0]
        return RowReading(row, self._without_map()), answer

    def _without_map(self) -> tuple[int, ...]:
        """Layers that run and gave no row in the last reading."""
        return tuple(sorted(set(range(self._depth())) - set(self._layers)))

    def _depth(self) -> int:
        """Layers that run."""
        return self.bundle.num_layers if self.stop_layer is None else self.stop_layer + 1

    # Which way ---------------------------------------------------------------------------------------------------

    def _ways(self) -> dict[str, Callable[[Sequence[EncodedPicture]], Rows]]:
        return {"branches": self._by_branches, "suffix": self._by_suffix, "plain": self._plainly}

    def _sharing(self, pictures: Sequence[EncodedPicture]) -> Sharing:
        """The way for pictures of this length, found with the first of them."""
        if not self.share or (len(pictures) == 1 and len(pictures[0].queries) == 1):
            return Sharing("plain")  # nothing to share
        picture = pictures[0]
        longest = len(picture.prefix_ids) + max(len(query.ids) for query in picture.queries)
        situation = tuple(longest > limit for limit in _reaches(self._decoder))
        if situation not in self.found:
            self.found[situation] = self._choose(picture)
            logger.info("Prefill of pictures: %s", _described(self.found[situation]))
        return self.found[situation]

    def _choose(self, picture: EncodedPicture) -> Sharing:
        """The fastest way whose rows are those of plain forwards."""
        queries = [picture.queries[number % len(picture.queries)] for number in range(_CHECKED_QUERIES)]
        checked = _with_queries(picture, queries)
        [plain] = self._plainly([_with_queries(picture, picture.queries[:_CHECKED_QUERIES])])
        expected = [plain[number % len(plain)] for number in range(_CHECKED_QUERIES)]
        notes: list[str] = []
        for way in ("branches", "suffix"):
            try:
                [rows] = self._ways()[way]([checked])
                difference, part = _differences(rows, expected)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                notes.append(f"{way}: {type(error).__name__}: {' '.join(str(error).split())[:80]}")
                continue
            if difference <= self._limit(LARGEST_DIFFERENCE) and part <= self._limit(LARGEST_PART):
                return Sharing(way, difference, tuple(notes))
            notes.append(f"{way}: rows differ by up to {difference:.1g} from those of a plain forward")
        logger.warning("Every query is read with a forward of its own (%s)", "; ".join(notes))
        return Sharing("plain", None, tuple(notes))

    def _limit(self, in_float32: float) -> float:
        import torch

        rounding = float(torch.finfo(self.bundle.dtype).eps)
        return in_float32 if self.bundle.dtype == torch.float32 else max(in_float32, _ROUNDINGS * rounding)

    # Plainly -----------------------------------------------------------------------------------------------------

    def _plainly(self, pictures: Sequence[EncodedPicture]) -> Rows:
        """A forward for every query."""
        return [[self._one(picture, query.ids) for query in picture.queries] for picture in pictures]

    def plain_inputs(self, picture: EncodedPicture, ids: Ids) -> dict[str, torch.Tensor]:
        """What the whole model takes for a picture and one query."""
        inputs = self._on_device({**picture.picture_inputs, **_extended(picture.token_inputs, len(ids))})
        return {"input_ids": self._tensor([[*picture.prefix_ids, *ids]]), **inputs}

    def _one(self, picture: EncodedPicture, ids: Ids) -> np.ndarray:
        with self._reading(picture) as rows:
            self._run(self.plain_inputs(picture, ids))
        only: np.ndarray = self._rows(rows, picture)[0, 0]
        return only

    # By branches -------------------------------------------------------------------------------------------------

    def _by_branches(self, pictures: Sequence[EncodedPicture]) -> Rows:
        """One prefill, then the queries side by side through the decoder."""
        if _RUNNING & set(getattr(self._decoder.config, "layer_types", None) or ()):
            raise NotImplementedError("a running state cannot branch")
        if not pictures[0].image_places:
            raise NotImplementedError("the image is in cross attention")
        prefill = self._prefill(pictures)
        rows: Rows = [[] for _ in pictures]
        for queries in rounds([[query.ids for query in picture.queries] for picture in pictures]):
            branches = Branches.of(queries)
            attention = self._read_branches(pictures[0], branches, prefill)
            prefill.cache.crop(-branches.width)
            for picture, token in branches.ends:
                rows[picture].append(attention[(picture, token)])
        return rows

    def _read_branches(
        self, picture: EncodedPicture, branches: Branches, prefill: _Prefill
    ) -> dict[tuple[int, int], np.ndarray]:
        """Rows by picture and token."""
        masks = branch_masks(branches, prefill.length, self._decoder, prefill.mask, self.bundle.dtype)
        tokens = sorted({token for _, token in branches.ends})
        with _dense_masks(self._decoder), self._reading(picture, queries=tokens) as rows:
            self._decoder(
                input_ids=self._tensor(branches.ids),
                position_ids=next_positions(prefill.positions, prefill.length, self._tensor(branches.offset)),
                attention_mask=self._on_device(masks) if isinstance(masks, dict) else masks.to(self.bundle.device),
                past_key_values=prefill.cache,
                use_cache=True,
            )
        found = self._rows(rows, picture)
        return {end: found[end[0], tokens.index(end[1])] for end in branches.ends}

    # By suffix ---------------------------------------------------------------------------------------------------

    def _by_suffix(self, pictures: Sequence[EncodedPicture]) -> Rows:
        """A prefill for each picture, then each query through the whole model with a copy of the cache."""
        rows: Rows = []
        for picture in pictures:
            prefill = self._prefill([picture])
            rows.append([self._continue(picture, prefill, query.ids) for query in picture.queries])
        return rows

    def _continue(self, picture: EncodedPicture, prefill: _Prefill, ids: Ids) -> np.ndarray:
        offset = self._tensor([list(range(len(ids)))])
        inputs = {key: value[:, prefill.length :] for key, value in _extended(picture.token_inputs, len(ids)).items()}
        # Without a mask every model lets new tokens see all that is cached.
        inputs.pop("attention_mask", None)
        with self._reading(picture) as rows:
            self._run(
                {
                    "input_ids": self._tensor([list(ids)]),
                    "position_ids": next_positions(prefill.positions, prefill.length, offset),
                    "past_key_values": copy.deepcopy(prefill.cache),
                    "use_cache": True,
                    **self._on_device(inputs),
                }
            )
        only: np.ndarray = self._rows(rows, picture)[0, 0]
        return only

    # Around the model --------------------------------------------------------------------------------------------

    def _prefill(self, pictures: Sequence[EncodedPicture]) -> _Prefill:
        """Keys and values of what comes before the queries."""
        import torch
        from transformers import DynamicCache

        first = pictures[0]
        inputs = {
            key: torch.cat([{**picture.picture_inputs, **picture.token_inputs}[key] for picture in pictures])
            for key in (*first.picture_inputs, *first.token_inputs)
        }
        ids = self._tensor([list(first.prefix_ids)] * len(pictures))
        # Layers with a running state need the cache that their configuration asks for; others keep every key.
        running = _RUNNING & set(getattr(self._decoder.config, "layer_types", None) or ())
        cache = {} if running else {"past_key_values": DynamicCache()}
        given: dict[str, Any] = {}
        hook = self._decoder.register_forward_pre_hook(
            lambda module, args, options: given.update(options), with_kwargs=True
        )
        try:
            with _spared(self.bundle.model, self._decoder):
                output = self._run({"input_ids": ids, **self._on_device(inputs), **cache, "use_cache": True})
        finally:
            hook.remove()
        made = cache.get("past_key_values", getattr(output, "past_key_values", None))
        return _Prefill(made, len(first.prefix_ids), given.get("position_ids"), given.get("attention_mask"))

    def _run(self, inputs: Mapping[str, Any]) -> Any:
        """The model without its head where that takes the same inputs, else the whole with as few logits as it can."""
        model: Any = self.bundle.model
        base = getattr(model, "model", None)
        if base is not None and _takes(base, inputs):
            return base(**inputs)
        few = {"logits_to_keep": 1} if _takes(model, {"logits_to_keep": 1}) else {}
        return model(**inputs, **few)

    @contextlib.contextmanager
    def _reading(self, picture: EncodedPicture, queries: Sequence[int] = (-1,)) -> Iterator[AttentionRows]:
        with reading_rows(self.bundle.model, queries=queries, columns=picture.image_places or (0,)) as rows:
            yield rows

    def _rows(self, rows: AttentionRows, picture: EncodedPicture) -> np.ndarray:
        """Rows of all layers, `[pictures, queries, layers, heads, V]`; those of layers without a map are 0."""
        cross = not picture.image_places
        self._layers = rows.layers(cross=cross)
        stacked = rows.stacked(cross=cross).permute(1, 3, 0, 2, 4).numpy()
        whole = np.zeros((*stacked.shape[:2], self._depth(), *stacked.shape[3:]), dtype=np.float32)
        whole[:, :, list(self._layers)] = stacked
        return whole

    def _tensor(self, values: Any) -> torch.Tensor:
        import torch

        return torch.as_tensor(np.asarray(values), dtype=torch.long, device=self.bundle.device)

    def _on_device(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Inputs where the model is; pixels in its number format."""
        device, dtype = self.bundle.device, self.bundle.dtype
        return {
            key: value.to(device=device, dtype=dtype if value.is_floating_point() else value.dtype)
            for key, value in inputs.items()
        }


def _reaches(decoder: nn.Module) -> tuple[int, ...]:
    """How far back layers look that do not see everything."""
    config: Any = decoder.config
    found = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
    return tuple(int(value) for value in found if value)


def _takes(module: nn.Module, inputs: Mapping[str, Any]) -> bool:
    import inspect

    return set(inputs) <= set(inspect.signature(module.forward).parameters)


def _extended(token_inputs: Mapping[str, torch.Tensor], count: int) -> dict[str, torch.Tensor]:
    """Inputs by token with entries for text behind them: what the last token, itself text or followed by it, has."""
    import torch

    made = {}
    for key, value in token_inputs.items():
        last = value[:, -1:]
        if key.endswith("token_type_ids"):
            last = torch.zeros_like(last)  # the prefix may end with the image
        made[key] = torch.cat([value, last.expand(-1, count, *value.shape[2:])], dim=1)
    return made


def _with_queries(picture: EncodedPicture, queries: Sequence[Any]) -> EncodedPicture:
    import dataclasses

    return dataclasses.replace(picture, queries=tuple(queries))


def _differences(rows: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> tuple[float, float]:
    """Largest difference of one number, and the mean part of a head's attention to the picture that lies elsewhere."""
    off = np.abs(np.stack(rows) - np.stack(expected))
    total = np.stack(expected).sum(axis=-1)
    looked = total > 0
    part = float((off.sum(axis=-1)[looked] / total[looked]).mean()) if looked.any() else 0.0
    return float(off.max()), part


def _described(sharing: Sharing) -> str:
    checked = "" if sharing.difference is None else f", {sharing.difference:.1g} from a plain forward"
    notes = f" ({'; '.join(sharing.notes)})" if sharing.notes else ""
    return f"{sharing.way}{checked}{notes}"


@contextlib.contextmanager
def _spared(model: Any, decoder: Any) -> Iterator[None]:
    """A prefill without the work whose results nobody reads."""
    last = list(getattr(decoder, "layers", ()))[-1:]
    with contextlib.ExitStack() as stack:
        if last and hasattr(getattr(last[0], "self_attn", None), "o_proj") and hasattr(last[0], "mlp"):
            stack.enter_context(short_last_layer(decoder))
        if model.config.model_type == "llava":
            stack.enter_context(short_unused_vision_layers(model.model))
        yield


@contextlib.contextmanager
def _dense_masks(decoder: nn.Module) -> Iterator[None]:
    """SDPA instead of flash attention for a while, which takes no mask of its own."""
    config: Any = decoder.config
    before = config._attn_implementation
    if not str(before).startswith("flash"):
        yield
        return
    config._attn_implementation = "sdpa"
    try:
        yield
    finally:
        config._attn_implementation = before
