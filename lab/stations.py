"""Which tokens of a prompt are what: segments of the sequence that the language model sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

SEGMENT_NAMES = ("system", "role", "image", "query")


@dataclass(frozen=True)
class TokenSegment:
    """A run of tokens that come from one part of the prompt.

    Attributes:
        name: `system` (with BOS), `role` (role names and whatever else the template adds), `image` or `query`.
        start: 0-based position of its first token in the expanded sequence, where the image takes all its positions.
        length: Number of positions.
        tokens: The tokens as the tokenizer writes them; for the image just the placeholder, once.
    """

    name: str
    start: int
    length: int
    tokens: tuple[str, ...]

    def __post_init__(self) -> None:
        """Reject unknown names and empty runs."""
        if self.name not in SEGMENT_NAMES:
            raise ValueError(f"Expected a token segment to be one of {SEGMENT_NAMES}, but got {self.name!r}.")
        if self.start < 0 or self.length < 1:
            raise ValueError(
                f"Expected token segment {self.name!r} to start at 0 or later with a length of at least 1, "
                f"but got start {self.start}, length {self.length}."
            )
        if self.name != "image" and len(self.tokens) != self.length:
            raise ValueError(
                f"Expected token segment {self.name!r} to hold {self.length} tokens, but got {len(self.tokens)}."
            )

    @property
    def end(self) -> int:
        """Position after its last token."""
        return self.start + self.length


@dataclass(frozen=True)
class TokenSegments:
    """All segments of one prompt, in order, without gaps.

    Attributes:
        segments: The segments; exactly one of them is the image.
    """

    segments: tuple[TokenSegment, ...]

    def __post_init__(self) -> None:
        """Check that the segments follow one another and hold one image."""
        position = 0
        for segment in self.segments:
            if segment.start != position:
                raise ValueError(
                    f"Expected token segment {segment.name!r} to start at {position}, where the one before it ends, "
                    f"but got {segment.start}."
                )
            position = segment.end
        images = sum(segment.name == "image" for segment in self.segments)
        if images != 1:
            raise ValueError(f"Expected token segments to hold exactly one image, but got {images}.")

    @property
    def length(self) -> int:
        """Number of positions of the whole sequence."""
        return self.segments[-1].end

    @property
    def image(self) -> TokenSegment:
        """The image's segment."""
        return next(segment for segment in self.segments if segment.name == "image")

    @property
    def last_token(self) -> str:
        """The token whose attention the method reads, as the tokenizer writes it."""
        return self.segments[-1].tokens[-1]

    def named(self, name: str) -> tuple[TokenSegment, ...]:
        """Every segment of that name, in order."""
        return tuple(segment for segment in self.segments if segment.name == name)

    def to_list(self) -> list[dict[str, Any]]:
        """Plain data for `meta`."""
        return [
            {"name": segment.name, "start": segment.start, "length": segment.length, "tokens": list(segment.tokens)}
            for segment in self.segments
        ]

    @classmethod
    def from_list(cls, rows: Iterable[Mapping[str, Any]]) -> TokenSegments:
        """The inverse of `to_list`."""
        return cls(
            tuple(
                TokenSegment(row["name"], int(row["start"]), int(row["length"]), tuple(row["tokens"])) for row in rows
            )
        )
