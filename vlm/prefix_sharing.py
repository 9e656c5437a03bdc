"""The queries about an image side by side, as branches of one sequence that cannot see each other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vlm.prompt_encoding import EncodedPrompt

if TYPE_CHECKING:
    import torch

# Query tokens of one image in one forward; more are split, so that memory does not grow with the queries of an image.
MAX_BRANCH_TOKENS = 256


@dataclass(frozen=True)
class Branches:
    """Query tokens of several images, those of one image one after the other in one row.

    Attributes:
        ids: `[images, tokens]` token ids, short rows padded with id 0.
        positions: `[images, tokens]` position of each token; every branch goes on where the prefix ends.
        branch: `[images, tokens]` number of the branch that a token belongs to; padding is branch -1.
        ends: (image, token) of each branch's last token, image by image.
        prefix_length: Number of cached tokens before the branches.
        prompt: Any one of the prompts; all have the same image range.
    """

    ids: np.ndarray
    positions: np.ndarray
    branch: np.ndarray
    ends: tuple[tuple[int, int], ...]
    prefix_length: int
    prompt: EncodedPrompt

    @classmethod
    def of(cls, prompts: Sequence[Sequence[EncodedPrompt]], prefix_length: int) -> Branches:
        """Lay out the prompts of each image; at least one image has some."""
        width = max(sum(len(prompt.suffix_ids) for prompt in row) for row in prompts)
        ids = np.zeros((len(prompts), width), dtype=np.int64)
        positions = np.full_like(ids, prefix_length)
        branch = np.full_like(ids, -1)
        ends = []
        for image, row in enumerate(prompts):
            start = 0
            for number, prompt in enumerate(row):
                length = len(prompt.suffix_ids)
                ids[image, start : start + length] = prompt.suffix_ids
                positions[image, start : start + length] += np.arange(length)
                branch[image, start : start + length] = number
                start += length
                ends.append((image, start - 1))
        return cls(ids, positions, branch, tuple(ends), prefix_length, next(filter(None, prompts))[0])

    def mask(self, dtype: torch.dtype, device: torch.device, window: int | None = None) -> torch.Tensor:
        """Added to the scores, `[images, 1, tokens, prefix + tokens]`: a branch sees the prefix and its own past.

        Args:
            dtype: Number format of the scores.
            device: Where they are.
            window: A token sees itself and so many positions before it, less one; None for all.
        """
        import torch

        branch = torch.from_numpy(self.branch).to(device)
        own_past = torch.tril(branch[:, :, None] == branch[:, None, :])
        seen = torch.nn.functional.pad(own_past, (self.prefix_length, 0), value=True)
        if window is not None:
            seen &= self._distances(device) < window
        added = torch.zeros(seen.shape, dtype=dtype, device=device)
        return added.masked_fill(~seen, torch.finfo(dtype).min)[:, None]

    def _distances(self, device: torch.device) -> torch.Tensor:
        """How many positions each token stands behind each other one, `[images, tokens, prefix + tokens]`."""
        import torch

        positions = torch.from_numpy(self.positions).to(device)
        prefix = torch.arange(self.prefix_length, device=device).expand(len(positions), -1)
        return positions[:, :, None] - torch.cat([prefix, positions], dim=1)[:, None, :]


def rounds(prompts_of_images: Sequence[Sequence[EncodedPrompt]]) -> Iterator[list[list[EncodedPrompt]]]:
    """For each forward, the prompts of each image, as many as `MAX_BRANCH_TOKENS` allow; none where all are done."""
    per_image = [_shares(prompts) for prompts in prompts_of_images]
    for prompts in itertools.zip_longest(*per_image, fillvalue=[]):
        yield list(prompts)


def _shares(prompts: Sequence[EncodedPrompt]) -> list[list[EncodedPrompt]]:
    shares: list[list[EncodedPrompt]] = []
    room = 0
    for prompt in prompts:
        length = len(prompt.suffix_ids)
        if length > room:
            shares.append([])
            room = max(MAX_BRANCH_TOKENS, length)
        shares[-1].append(prompt)
        room -= length
    return shares
