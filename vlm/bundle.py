"""What a loaded model offers, whatever its family: from pictures and queries to inputs and the places of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from lab.regions import Regions
from lab.stations import TokenSegments

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import nn


@dataclass(frozen=True)
class EncodedQuery:
    """A query about a picture, as the tokens behind the shared ones.

    Attributes:
        number: Its place among the queries that were given.
        query: As given.
        text: The whole prompt, a placeholder standing for the image.
        ids: Tokens behind the prefix; the last one's attention is read.
        segments: Of the whole prompt, the image expanded.
        unknown_words: Words that the tokenizer has no token for.
    """

    number: int
    query: str
    text: str
    ids: tuple[int, ...]
    segments: TokenSegments
    unknown_words: tuple[str, ...] = ()


@dataclass(frozen=True)
class EncodedPicture:
    """A picture with queries whose prompts begin alike.

    Attributes:
        prefix_ids: Tokens that all its prompts begin with, the image's among them.
        image_places: Places of the image's tokens in the prefix, V of them; empty where the image is not in the prompt
            but the keys of cross attention.
        picture_inputs: What the model takes for the picture alone: pixels, sizes and the like.
        token_inputs: What it takes for each token of the prefix beside its id, `[1, tokens, ...]`.
        regions: Where the image's tokens lie in the picture.
        image_size_wh: Width and height of the picture.
        queries: What is asked of it.
    """

    prefix_ids: tuple[int, ...]
    image_places: tuple[int, ...]
    picture_inputs: Mapping[str, torch.Tensor]
    token_inputs: Mapping[str, torch.Tensor]
    regions: Regions
    image_size_wh: tuple[int, int]
    queries: tuple[EncodedQuery, ...]


class ImageTextBundle(Protocol):
    """A loaded model with all that belongs to it."""

    @property
    def model(self) -> nn.Module:
        """In evaluation mode."""
        ...

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        ...

    @property
    def name(self) -> str:
        """A directory or the id of a hub repository."""
        ...

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Number format of its weights."""
        ...

    @property
    def device_reason(self) -> str:
        """Why this device and this format."""
        ...

    @property
    def conv_mode(self) -> str:
        """Key of the prompt template."""
        ...

    @property
    def versions(self) -> dict[str, str]:
        """Of torch, transformers and this tool."""
        ...

    @property
    def num_layers(self) -> int:
        """Layers of the language model."""
        ...

    @property
    def num_heads(self) -> int:
        """Query heads of each layer."""
        ...

    @property
    def max_positions(self) -> int:
        """Longest sequence of the language model."""
        ...

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels as the model sees them."""
        ...

    def encode_picture(self, image: Image.Image, queries: Sequence[str]) -> list[EncodedPicture | EncodingFailure]:
        """Prepare a picture with its queries: an entry for each prefix, and for each query that cannot be asked."""
        ...


@dataclass(frozen=True)
class EncodingFailure:
    """A query that cannot be asked.

    Attributes:
        number: Its place among the queries that were given.
        reason: Why, in one sentence.
    """

    number: int
    reason: str


@dataclass(frozen=True)
class RowReading:
    """What the model gave for one query.

    Attributes:
        attention: `[layers, heads, V]`, float32, after softmax; rows of layers without a map are 0 and not to be
            used.
        layers_without_map: 0-based indices of layers that have no softmax attention to the image.
        meta: What to say of it: where the row comes from, how the prefill was shared.
    """

    attention: Any
    layers_without_map: tuple[int, ...]
    meta: dict[str, Any] = field(default_factory=dict)
