"""A picture and queries -> the inputs of a model, by the family's own processor, every token's place known."""

from __future__ import annotations

import functools
import inspect
import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foreign_files.messages import shorten, shorten_reason
from lab.regions import Regions
from lab.stations import TokenSegment, TokenSegments
from vlm.bundle import EncodedPicture, EncodedQuery, EncodingFailure
from vlm.chat_prompts import PromptHead, QueryTokens, query_tokens, written_once
from vlm.families import PictureFacts, known_regions
from vlm.processors import Processors

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import nn

logger = logging.getLogger(__name__)

_IDS = "input_ids"
# Names under which configurations keep the id of the token that the picture's features replace.
_IMAGE_ID_NAMES = ("image_token_id", "image_token_index", "image_patch_id")
# Tokens that a processor may add behind the query, such as PaliGemma's newline.
_MOST_ADDED = 2
_PROBE_WH = (56, 56)


@dataclass(frozen=True)
class _Asked:
    """A query with its place among those given, and its tokens."""

    number: int
    query: str
    tokens: QueryTokens


@dataclass(frozen=True)
class _Run:
    """What the processor made of one picture and one prompt, and which of its tokens are the query's."""

    inputs: dict[str, torch.Tensor]
    prefix_ids: tuple[int, ...]


class PictureEncoder:
    """Encodes pictures and queries for one model.

    The processor is asked once a picture, with its first query; other queries are tokenised beside it and checked to
    begin alike. The query's own tokens are known by their offsets in the prompt whose image is still a placeholder.
    """

    def __init__(self, processors: Processors, model: nn.Module, head: PromptHead) -> None:
        """Set up an encoder.

        Args:
            processors: The family's.
            model: Asked for the names of the inputs it takes, and for regions where its family has no rule.
            head: What comes before the query.
        """
        self.processors, self.head = processors, head
        self.config: Any = model.config
        self._model = model
        self._accepted = set(inspect.signature(model.forward).parameters) - {"labels"}
        self._measured: dict[tuple[int, int], Regions] = {}

    def encode(self, image: Image.Image, queries: Sequence[str]) -> list[EncodedPicture | EncodingFailure]:
        """Prepare a picture with its queries.

        Args:
            image: Upright, RGB.
            queries: What to ask.

        Returns:
            A picture for each beginning that some prompts share (one, unless a tokenizer joins head and query), and a
            failure for each query that cannot be asked.
        """
        failures: list[EncodingFailure] = []
        by_head: dict[tuple[int, ...], list[_Asked]] = {}
        for number, query in enumerate(queries):
            try:
                tokens = query_tokens(self.processors.tokenizer, self.head, query)
                self._refuse_image_in(tokens, query)
            except ValueError as error:
                failures.append(EncodingFailure(number, str(error)))
            else:
                by_head.setdefault(tokens.head_ids, []).append(_Asked(number, query, tokens))
        pictures: list[EncodedPicture | EncodingFailure] = []
        for asked in by_head.values():
            try:
                pictures.append(self._picture(image, asked))
            except ValueError as error:
                failures.extend(EncodingFailure(one.number, str(error)) for one in asked)
        return [*pictures, *failures]

    def run(self, image: Image.Image, query: str) -> dict[str, torch.Tensor]:
        """Everything that the model takes for one picture and one prompt, as the processor makes it.

        Raises:
            ValueError: If the checkpoint's own processor cannot lay out picture and prompt.
        """
        text = self.head.text + query
        options: dict[str, Any] = {"return_tensors": "pt"}
        if not written_once(self.processors.tokenizer, self.head.text):
            options["add_special_tokens"] = False
        try:
            made = self.processors.processor(text=[text], images=[image], **options)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise ValueError(
                f"Expected the checkpoint's processor to lay out {shorten(text)} with a picture, but got: "
                f"{shorten_reason(error).rstrip('.')}. Use another model.conv_mode, or a checkpoint whose tokenizer "
                "and processor fit each other."
            ) from error
        return {key: made[key] for key in made if key in self._accepted}

    def image_places(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Places of the image's tokens in a prompt."""
        return tuple(place for place, token in enumerate(ids) if token in self.image_ids)

    @functools.cached_property
    def image_ids(self) -> frozenset[int]:
        """Ids of the token that the picture's features replace.

        Raises:
            ValueError: If the configuration does not say.
        """
        found = [getattr(self.config, name, None) for name in _IMAGE_ID_NAMES]
        found.append(getattr(self.processors.processor, "image_token_id", None))
        ids = [int(value) for value in found if isinstance(value, int)]
        if not ids:
            raise ValueError(
                f"Expected the configuration of {self.config.model_type!r} to name its image token "
                f"({', '.join(_IMAGE_ID_NAMES)}), but got none of them. This model cannot be read."
            )
        return frozenset(ids[:1])

    @functools.cached_property
    def token_keys(self) -> frozenset[str]:
        """Names of the inputs that have an entry for each token: those that grow with the query."""
        from PIL import Image

        image = Image.new("RGB", _PROBE_WH)
        short, long = self.run(image, "a"), self.run(image, "a a a")
        added = long[_IDS].shape[1] - short[_IDS].shape[1]
        return frozenset(
            key
            for key in short
            if short[key].ndim >= 2 and added > 0 and long[key].shape[1] - short[key].shape[1] == added
        )

    # One picture ------------------------------------------------------------------------------------------------

    def _refuse_image_in(self, tokens: QueryTokens, query: str) -> None:
        if self.image_ids & set(tokens.query_ids):
            raise ValueError(
                f"Expected a query without the image's own token, but got {query[:80]!r}. Take it out of the query."
            )

    def _picture(self, image: Image.Image, asked: Sequence[_Asked]) -> EncodedPicture:
        run = self._run(image, asked[0])
        places, regions = self.image_places(run.prefix_ids), self._regions(image, run)
        count = len(run.prefix_ids)
        return EncodedPicture(
            prefix_ids=run.prefix_ids,
            image_places=places if regions.num_tokens == len(places) else (),
            picture_inputs={key: value for key, value in run.inputs.items() if key not in self.token_keys},
            token_inputs={
                key: value[:, :count] for key, value in run.inputs.items() if key in self.token_keys and key != _IDS
            },
            regions=regions,
            image_size_wh=image.size,
            queries=tuple(self._query(run.prefix_ids, one) for one in asked),
        )

    def _run(self, image: Image.Image, asked: _Asked) -> _Run:
        """Run the processor, and find the query at the end of what it made."""
        inputs = self.run(image, asked.query)
        ids = [int(token) for token in inputs[_IDS][0]]
        wanted = list(asked.tokens.query_ids)
        for added in range(_MOST_ADDED + 1):
            end = len(ids) - added
            if ids[end - len(wanted) : end] == wanted:
                return _Run(inputs, tuple(ids[: end - len(wanted)]))
        raise ValueError(
            f"Expected the prompt that the processor made to end with the query's {len(wanted)} tokens, but got "
            f"{self.processors.tokenizer.convert_ids_to_tokens(ids[-len(wanted) - 2 :])}. This model cannot be read."
        )

    def _query(self, prefix_ids: tuple[int, ...], asked: _Asked) -> EncodedQuery:
        return EncodedQuery(
            number=asked.number,
            query=asked.query,
            text=self.head.text + asked.query,
            ids=asked.tokens.query_ids,
            segments=self._segments(prefix_ids, asked.tokens.query_ids),
            unknown_words=_unknown(asked.query, asked.tokens, self.processors.tokenizer),
        )

    def _segments(self, prefix_ids: tuple[int, ...], query_ids: tuple[int, ...]) -> TokenSegments:
        """System text and role before the image, the image with all its separators, what follows it, the query."""
        places = self.image_places(prefix_ids)
        first, last = places[0], places[-1] + 1
        runs = (
            ("system", 0, prefix_ids[:first]),
            ("image", first, prefix_ids[first:last]),
            ("role", last, prefix_ids[last:]),
            ("query", len(prefix_ids), query_ids),
        )
        return TokenSegments(tuple(self._segment(name, start, ids) for name, start, ids in runs if ids))

    def _segment(self, name: str, start: int, ids: Sequence[int]) -> TokenSegment:
        shown = ids[:1] if name == "image" else ids
        return TokenSegment(name, start, len(ids), tuple(self.processors.tokenizer.convert_ids_to_tokens(list(shown))))

    # Regions ----------------------------------------------------------------------------------------------------

    def _regions(self, image: Image.Image, run: _Run) -> Regions:
        """By the family's rule, else as measured on the model, once for each size of picture."""
        places = self.image_places(run.prefix_ids)
        if not places:
            raise ValueError("Expected the prompt to hold the image's tokens, but got none. This model cannot be read.")
        count = cross_attention_keys(self.config, run.inputs) or len(places)
        facts = PictureFacts(self.config, self.processors.image_processor, run.inputs, image.size, count)
        known = known_regions(self.config.model_type, facts)
        if known is not None:
            return known
        if image.size not in self._measured:
            self._measured[image.size] = self._measure(image.size, count)
        return self._measured[image.size]

    def _measure(self, wh: tuple[int, int], count: int) -> Regions:
        from vlm.measured_regions import measure_regions

        logger.warning(
            "No grid rule for model_type %s: measuring where its %d tokens look in a picture of %d x %d",
            self.config.model_type, count, *wh,
        )  # fmt: skip
        return measure_regions(self._model, lambda picture: self.run(picture, "a"), wh, count, self.image_ids)


def _unknown(query: str, tokens: QueryTokens, tokenizer: Any) -> tuple[str, ...]:
    """Words of a query that the tokenizer can only write as its unknown token."""
    unknown = getattr(tokenizer, "unk_token_id", None)
    if unknown is None or unknown not in tokens.query_ids:
        return ()
    words = dict.fromkeys(query.split())
    return tuple(word for word in words if unknown in tokenizer(word, add_special_tokens=False)[_IDS])


def cross_attention_keys(config: Any, inputs: Mapping[str, torch.Tensor]) -> int:
    """Keys that a picture gives to cross attention (Llama 3.2 Vision); 0 where it is in the prompt instead."""
    if config.model_type != "mllama":
        return 0
    tower = config.vision_config
    per_tile = math.prod(itertools.repeat(tower.image_size // tower.patch_size, 2)) + 1
    return int(inputs["pixel_values"].shape[2]) * int(per_tile)
