"""Queries about drawn scenes packed as branches of one sequence an image, with the prompt that the pipeline uses."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

import torch

from llava.constants import IMAGE_TOKEN
from picturebook.expressions import answer_words, sample_expressions
from picturebook.scenes import Scene
from picturebook.shards import Shard
from picturebook.vocabulary import BOS, EOS, prompt_frame, split_words, vocabulary

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration

IGNORED = -100
FULL_STOP_SHARE = 0.3


@dataclass(frozen=True)
class Stage:
    """A part of the language model's training.

    Attributes:
        name: For the log and the checkpoint.
        steps: Optimiser steps.
        patches: Image patches that the language model sees of each image, drawn by chance at their true positions
            (dropping most of them makes the search for binding several times as fast), or None for all.
        weights: Weight of each expression template in use, or None for the world's own mixture.
        head_dropout: Share of attention heads silenced by chance.
    """

    name: str
    steps: int
    patches: Optional[int]
    weights: Optional[Mapping[str, float]]
    head_dropout: float = 0.0


@dataclass(frozen=True)
class Packed:
    """Images with their queries packed as branches of one sequence each.

    Attributes:
        image_index: `[batch]` index of each image in its shard.
        patch_index: `[batch, patches]` patches kept, ascending.
        token_ids: `[batch, length]`.
        positions: `[batch, length]`; every branch goes on from the end of the prefix.
        branch: `[batch, length]`; 0 for the prefix, -1 for padding.
        labels: `[batch, length]`; the token itself where it belongs to an answer, else `IGNORED`.
        first: `[batch, length]` bool; the first word of each answer.
        prefix_words: Number of tokens before the image.
        template: name of the template of each branch, one list an image.
        target: index of the target of each branch, one list an image.
    """

    image_index: torch.Tensor
    patch_index: torch.Tensor
    token_ids: torch.Tensor
    positions: torch.Tensor
    branch: torch.Tensor
    labels: torch.Tensor
    first: torch.Tensor
    prefix_words: int
    template: Sequence[Sequence[str]]
    target: Sequence[Sequence[int]]


class Packer:
    """Writes queries about drawn scenes and packs them with the prompt that the pipeline uses."""

    def __init__(self, num_patches: int, queries: int) -> None:
        """Remember the sizes and split the prompt at the image."""
        self.words = vocabulary()
        self.num_patches = num_patches
        self.queries = queries
        before, after = prompt_frame()
        self.before = [self.words[BOS], *self._encode(before)]
        self.after = self._encode(after)

    def pack(self, shard: Shard, indices: Sequence[int], stage: Stage, rng: random.Random) -> Packed:
        """Pack scenes of a shard, each with its own queries."""
        rows = [self._row(shard, index, stage, rng) for index in indices]
        length = max(len(row["ids"]) for row in rows)

        def padded(key: str, fill: int) -> torch.Tensor:
            return torch.tensor([row[key] + [fill] * (length - len(row[key])) for row in rows])

        return Packed(
            image_index=torch.tensor(list(indices)),
            patch_index=torch.tensor([row["patches"] for row in rows]),
            token_ids=padded("ids", 0),
            positions=padded("positions", 0),
            branch=padded("branch", -1),
            labels=padded("labels", IGNORED),
            first=padded("first", 0).bool(),
            prefix_words=len(self.before),
            template=[row["template"] for row in rows],
            target=[row["target"] for row in rows],
        )

    def _row(self, shard: Shard, index: int, stage: Stage, rng: random.Random) -> dict[str, list[Any]]:
        patches = list(range(self.num_patches))
        if stage.patches:
            patches = sorted(rng.sample(patches, stage.patches))
        start, image = len(self.before), self.words[IMAGE_TOKEN]
        ids = self.before + [image] * len(patches) + self.after
        end = start + self.num_patches + len(self.after)
        positions = [*range(start), *(start + patch for patch in patches), *range(start + self.num_patches, end)]
        row: dict[str, list[Any]] = {
            "patches": patches,
            "ids": ids,
            "positions": positions,
            "branch": [0] * len(ids),
            "labels": [IGNORED] * len(ids),
            "first": [0] * len(ids),
            "template": [],
            "target": [],
        }
        self._add_branches(row, shard.scenes[index], stage, rng, end)
        return row

    def _add_branches(
        self, row: dict[str, list[Any]], scene: Scene, stage: Stage, rng: random.Random, end: int
    ) -> None:
        expressions = sample_expressions(scene, self.queries, rng, stage.weights)
        for number, expression in enumerate(expressions, start=1):
            query = self._encode(expression.text + (" ." if rng.random() < FULL_STOP_SHARE else ""))
            answer = [self.words[word] for word in answer_words(scene, expression)] + [self.words[EOS]]
            length = len(query) + len(answer)
            row["ids"] += query + answer
            row["positions"] += range(end, end + length)
            row["branch"] += [number] * length
            row["labels"] += [IGNORED] * len(query) + answer
            row["first"] += [0] * len(query) + [1] + [0] * (len(answer) - 1)
            row["template"].append(expression.template)
            row["target"].append(expression.target)

    def _encode(self, text: str) -> list[int]:
        return [self.words[word] for word in split_words(text)]


def branch_bias(packed: Packed, dtype: torch.dtype) -> torch.Tensor:
    """Additive attention mask `[batch, 1, length, length]`: causal; a branch sees the prefix and itself."""
    branch = packed.branch
    length = branch.shape[1]
    seen = (branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None])
    seen &= torch.ones(length, length, dtype=torch.bool, device=branch.device).tril()
    seen |= torch.eye(length, dtype=torch.bool, device=branch.device)
    return torch.zeros(seen.shape, dtype=dtype, device=branch.device).masked_fill(~seen, -1e9)[:, None]


def language_states(
    model: LlavaForConditionalGeneration, packed: Packed, features: torch.Tensor, **options: Any
) -> Any:
    """Run the language model over packed sequences.

    Args:
        model: The picture-book LLaVA.
        packed: The sequences.
        features: `[batch, patches, vision_width]` features of the frozen tower for the patches kept.
        options: Further arguments of the language model.

    Returns:
        The language model's output, with `last_hidden_state` `[batch, length, text_width]`.
    """
    image = model.model.multi_modal_projector(features)
    words = model.get_input_embeddings()(packed.token_ids)
    start, end = packed.prefix_words, packed.prefix_words + image.shape[1]
    embedded = torch.cat([words[:, :start], image.to(words.dtype), words[:, end:]], dim=1)
    return model.model.language_model(
        inputs_embeds=embedded,
        attention_mask=branch_bias(packed, embedded.dtype),
        position_ids=packed.positions,
        use_cache=False,
        **options,
    )


def gather_patches(features: torch.Tensor, packed: Packed) -> torch.Tensor:
    """Features `[batch, patches, width]` of the patches that each packed sequence keeps, in float32."""
    chosen = features[packed.image_index]
    index = packed.patch_index[:, :, None].expand(-1, -1, chosen.shape[2])
    return chosen.gather(1, index).float()
