"""Queries of a picture side by side in one sequence that cannot see each other: their layout, positions and masks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import nn

# Query tokens of one picture in one forward; more are split, so that memory does not grow with its queries.
MAX_BRANCH_TOKENS = 256

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Branches:
    """Query tokens of several pictures, those of one picture one after the other in one row.

    Attributes:
        ids: `[pictures, tokens]` token ids, short rows padded with id 0.
        offset: `[pictures, tokens]` place of each token within its branch.
        branch: `[pictures, tokens]` number of the branch that a token belongs to; padding is branch -1.
        ends: (picture, token) of each branch's last token, picture by picture.
    """

    ids: np.ndarray
    offset: np.ndarray
    branch: np.ndarray
    ends: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, queries: Sequence[Sequence[Ids]]) -> Branches:
        """Lay out the queries of each picture; at least one picture has some."""
        width = max(sum(len(ids) for ids in row) for row in queries)
        ids = np.zeros((len(queries), width), dtype=np.int64)
        offset, branch = np.zeros_like(ids), np.full_like(ids, -1)
        ends = []
        for picture, row in enumerate(queries):
            start = 0
            for number, query in enumerate(row):
                end = start + len(query)
                ids[picture, start:end] = query
                offset[picture, start:end] = np.arange(len(query))
                branch[picture, start:end] = number
                ends.append((picture, end - 1))
                start = end
        return cls(ids, offset, branch, tuple(ends))

    @property
    def width(self) -> int:
        """Tokens in a row."""
        return int(self.ids.shape[1])

    def visible(self, prefix: int, *, window: int | None = None, chunk: int | None = None) -> np.ndarray:
        """Which keys a token sees, `[pictures, 1, tokens, prefix + tokens]` bool: the prefix and its branch's past.

        Args:
            prefix: Number of cached tokens before the branches.
            window: Number of tokens that a layer looks back, its own among them.
            chunk: Number of tokens in a chunk, beyond which a layer does not look.
        """
        pictures, width = self.ids.shape
        place = self.offset + prefix
        before = np.broadcast_to(np.arange(prefix), (pictures, prefix))
        keys = np.concatenate([before, place], axis=1)[:, None, :]
        same = np.tril(self.branch[:, :, None] == self.branch[:, None, :])
        seen = np.concatenate([np.ones((pictures, width, prefix), dtype=bool), same], axis=2)
        if window:
            seen &= place[:, :, None] - keys < window
        if chunk:
            seen &= place[:, :, None] // chunk == keys // chunk
        return seen[:, None]


def rounds(queries: Sequence[Sequence[Ids]], limit: int | None = None) -> Iterator[list[list[Ids]]]:
    """For each forward, the queries of each picture, as many as the limit allows; none where all are done."""
    most = limit or MAX_BRANCH_TOKENS
    for row in itertools.zip_longest(*(_shares(ids, most) for ids in queries), fillvalue=[]):
        yield list(row)


def _shares(queries: Sequence[Ids], limit: int) -> list[list[Ids]]:
    shares: list[list[Ids]] = []
    room = 0
    for query in queries:
        if len(query) > room:
            shares.append([])
            room = max(limit, len(query))
        shares[-1].append(query)
        room -= len(query)
    return shares


def branch_masks(branches: Branches, prefix: int, decoder: nn.Module, given: object, dtype: torch.dtype) -> Any:
    """Masks for a decoder, added to the scores: one tensor, or one for each kind of layer where its layers differ.

    Args:
        branches: The layout.
        prefix: Number of cached tokens before the branches.
        decoder: Its configuration tells kinds of layers, windows and chunks.
        given: The mask that the model itself gave its decoder; a dict tells which kinds there are.
        dtype: Of the scores.
    """
    config: Any = decoder.config
    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None)
    limits = {"sliding_attention": {"window": window}, "chunked_attention": {"chunk": _chunk(config)}}
    if isinstance(given, dict):
        kinds = set(given)
    if isinstance(given, dict) or len(kinds) > 1:
        return {kind: _added(branches.visible(prefix, **limits.get(kind, {})), dtype) for kind in kinds}
    # One kind of layer: a window, if there is one, is that of all.
    alone = limits.get(next(iter(kinds)), {}) if kinds else {"window": window}
    return _added(branches.visible(prefix, **alone), dtype)


def _chunk(config: Any) -> int | None:
    return getattr(config, "attention_chunk_size", None)


def _added(visible: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    import torch

    hidden = torch.from_numpy(~visible)
    return torch.zeros(hidden.shape, dtype=dtype).masked_fill(hidden, torch.finfo(dtype).min)


def next_positions(given: torch.Tensor | None, prefix: int, offset: torch.Tensor) -> torch.Tensor:
    """Positions of tokens behind a prefix, laid out as the model gave its decoder those of the prefix.

    Where positions have several axes (time, height, width), text behind an image goes on from the largest of all.

    Args:
        given: `[pictures, prefix]`, `[axes, pictures, prefix]`, or None where the decoder counts for itself. Four axes
            are a plain count followed by the other three.
        prefix: Number of tokens of the prefix.
        offset: `[pictures, tokens]` place of each token behind the prefix.
    """
    import torch

    if given is None:
        return offset + prefix
    if given.dim() == 2:
        return offset + given.max(dim=-1, keepdim=True).values + 1
    if given.shape[0] == 4:
        plain = next_positions(given[0], prefix, offset)
        return torch.cat([plain[None], next_positions(given[1:], prefix, offset)])
    # The decoder may have been given one row of positions for a batch of one.
    largest = given.amax(dim=(0, 2), keepdim=True) + 1
    return (offset[None] + largest).expand(given.shape[0], *offset.shape)
