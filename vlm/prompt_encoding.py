"""From the parts of a prompt to token ids, with the segment that each of them belongs to."""

from __future__ import annotations

import bisect
import itertools
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lab.stations import TokenSegment, TokenSegments
from llava.constants import IMAGE_TOKEN
from llava.conversation import PromptPart
from llava.mm_utils import adds_bos, leading_blank, text_ids


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as token ids, the image taking as many of them as the model has visual tokens.

    Attributes:
        text: The prompt, `<image>` standing for the image.
        input_ids: Token ids of the expanded sequence.
        segments: Which of them are what.
        unknown_words: Words that the tokenizer has no token for.
    """

    text: str
    input_ids: tuple[int, ...]
    segments: TokenSegments
    unknown_words: tuple[str, ...]

    @property
    def prefix_ids(self) -> tuple[int, ...]:
        """Everything up to the image's last token: the same for many queries about one image."""
        return self.input_ids[: self.segments.image.end]

    @property
    def suffix_ids(self) -> tuple[int, ...]:
        """Everything after the image; never empty."""
        return self.input_ids[self.segments.image.end :]


def encode_prompt(
    parts: Sequence[PromptPart], tokenizer: Any, *, image_token_id: int, image_token_count: int
) -> EncodedPrompt:
    """Tokenise a prompt as LLaVA was trained: the text before and after the image each on its own, BOS once.

    A SentencePiece tokenizer opens each piece with a lone `▁` where the piece starts with a newline; it stays.

    Args:
        parts: The prompt, as a `llava.conversation.PromptTemplate` lays it out; one part is the image.
        tokenizer: Any transformers tokenizer.
        image_token_id: Id that stands for the image, repeated.
        image_token_count: Number of positions that the image takes.

    Raises:
        ValueError: If nothing follows the image, whose last token would then be the query's row.
    """
    image_index = [part.name for part in parts].index("image")
    before, after = parts[:image_index], parts[image_index + 1 :]
    pieces = [
        *_segment_tokens(before, tokenizer, bos=True),
        ("image", [image_token_id] * image_token_count, [IMAGE_TOKEN]),
        *_segment_tokens(after, tokenizer, bos=False),
    ]
    if pieces[-1][0] == "image":
        raise ValueError(
            "Expected the prompt to end with text, since the last token's attention is read, but got an image at the "
            f"end of {''.join(part.text for part in parts)!r}. Put words after {IMAGE_TOKEN}."
        )
    starts = itertools.accumulate([0, *(len(ids) for _, ids, _ in pieces)])
    segments = [
        TokenSegment(name, start, len(ids), tuple(tokens)) for (name, ids, tokens), start in zip(pieces, starts)
    ]
    return EncodedPrompt(
        text="".join(part.text for part in parts),
        input_ids=tuple(itertools.chain.from_iterable(ids for _, ids, _ in pieces)),
        segments=TokenSegments(tuple(segments)),
        unknown_words=unknown_words("".join(part.text for part in parts if part.name != "image"), tokenizer),
    )


def unknown_words(text: str, tokenizer: Any) -> tuple[str, ...]:
    """Words of a text that the tokenizer can only write as its unknown token, each once, in order."""
    unknown = tokenizer.unk_token_id
    found: dict[str, None] = {}
    if unknown is None or unknown not in text_ids(text, tokenizer):
        return ()
    for chunk in text.split():
        word = chunk.strip(string.punctuation)
        for candidate in (word, chunk):
            if candidate and unknown in text_ids(candidate, tokenizer):
                found[candidate] = None
                break
    return tuple(found)


def _segment_tokens(
    parts: Sequence[PromptPart], tokenizer: Any, *, bos: bool
) -> list[tuple[str, list[int], list[str]]]:
    """Tokenise the parts as one text and give each token to the part that it ends in."""
    text = "".join(part.text for part in parts)
    ids, owners = _owned_ids(text, list(itertools.accumulate(len(part.text) for part in parts)), tokenizer)
    if bos and adds_bos(tokenizer):
        ids, owners = [tokenizer.bos_token_id, *ids], [0, *owners]
    names = [part.name for part in parts] or ["system"]
    tokens = tokenizer.convert_ids_to_tokens(ids)
    runs = itertools.groupby(zip(owners, ids, tokens), key=lambda row: row[0])
    return [
        (names[owner], [row[1] for row in rows], [row[2] for row in rows])
        for owner, rows in ((owner, list(group)) for owner, group in runs)
    ]


def _owned_ids(text: str, part_ends: list[int], tokenizer: Any) -> tuple[list[int], list[int]]:
    """Token ids of a text, and for each the index of the part that its last character lies in."""
    if not text:
        return [], []
    last_part = len(part_ends) - 1
    if tokenizer.is_fast:
        extra = leading_blank(text, tokenizer)
        encoded = tokenizer(extra + text, add_special_tokens=False, return_offsets_mapping=True)
        ids = list(encoded["input_ids"])
        borders, places = part_ends, [max(start, end - 1) - len(extra) for start, end in encoded["offset_mapping"]]
    else:
        # Without offsets, the tokens of the text up to a border tell how many lie before it.
        ids = text_ids(text, tokenizer)
        borders, places = [len(text_ids(text[:end], tokenizer)) for end in part_ends], list(range(len(ids)))
    return ids, [min(bisect.bisect_right(borders, place), last_part) for place in places]
