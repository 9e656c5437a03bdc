"""What the host does ahead of the model: bring rows of one image together, read pictures, tokenise prompts."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Callable, TypeVar

import numpy as np

from lab.messages import shorten, shorten_reason
from lab.records import Grid, Sample
from vlm.images import load_image
from vlm.loading import LlavaBundle
from vlm.prompt_encoding import EncodedPrompt

logger = logging.getLogger(__name__)

_MAX_REASON = 1000
# Rows that are looked at together to find those about one image; the output of a row waits for at most so many others.
WINDOW_ROWS = 64

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class CollectionFailure:
    """A sample that gave no attention.

    Attributes:
        sample: What was asked of which image.
        reason: Why it failed, in one sentence.
    """

    sample: Sample
    reason: str


@dataclass(frozen=True)
class Row:
    """A sample with its place in the output.

    Attributes:
        position: 0-based.
        sample: What is asked of which image, the query without white space at its ends: each blank would be a token.
        as_typed: The query with it.
    """

    position: int
    sample: Sample
    as_typed: str

    @classmethod
    def of(cls, position: int, sample: Sample) -> Row:
        """Trim a sample's query."""
        return cls(position, replace(sample, query=sample.query.strip()), sample.query)


@dataclass(frozen=True)
class Question:
    """A row with its tokens."""

    row: Row
    prompt: EncodedPrompt


@dataclass(frozen=True)
class Picture:
    """An image ready for the model, with questions whose prompts are the same up to the image's end.

    Attributes:
        pixels: `[3, height, width]`, float32, normalised.
        grid: Where its patches lie.
        image_size_wh: Size of the original.
        questions: What is asked of it.
    """

    pixels: np.ndarray
    grid: Grid
    image_size_wh: tuple[int, int]
    questions: tuple[Question, ...]

    @property
    def prefix_ids(self) -> tuple[int, ...]:
        """Tokens that all its questions share."""
        return self.questions[0].prompt.prefix_ids


@dataclass(frozen=True)
class Prepared:
    """What the host made of the rows of one image: pictures, one for each prefix, and rows that failed."""

    pictures: tuple[Picture, ...]
    failures: dict[int, CollectionFailure]


def prepare(rows: Sequence[Row], bundle: LlavaBundle, answer_tokens: int = 0) -> Prepared:
    """Do everything about one image that needs no model.

    Args:
        rows: Samples about the same image.
        bundle: Whose preprocessing, tokenizer and template to use.
        answer_tokens: Positions to keep free for an answer.

    Returns:
        The image with its questions, in groups of one prefix, and the rows that failed.
    """
    try:
        image = load_image(rows[0].sample.image_file)
        pixels, grid = bundle.image_preprocessor(image)
    except Exception as error:
        reason = _reason(error, rows[0].sample)
        return Prepared((), {row.position: CollectionFailure(row.sample, reason) for row in rows})
    failures: dict[int, CollectionFailure] = {}
    by_prefix: dict[tuple[int, ...], list[Question]] = {}
    for row in rows:
        try:
            prompt = _encode(row.sample, bundle, answer_tokens)
        except Exception as error:
            failures[row.position] = CollectionFailure(row.sample, _reason(error, row.sample))
            continue
        by_prefix.setdefault(prompt.prefix_ids, []).append(Question(row, prompt))
    pictures = [Picture(pixels, grid, image.size, tuple(questions)) for questions in by_prefix.values()]
    return Prepared(tuple(pictures), failures)


def _reason(error: Exception, sample: Sample) -> str:
    """Why a row failed, on one line; what nobody foresaw goes to the log with its place in the code, too."""
    if isinstance(error, (ValueError, OSError, MemoryError)) and not isinstance(error, UnicodeError):
        return shorten_reason(error, _MAX_REASON)
    logger.debug("Sample %s could not be prepared.", shorten(sample.id), exc_info=error)
    return f"{type(error).__name__} while the row was prepared: {shorten_reason(error, _MAX_REASON)}"


def by_image(samples: Iterable[Sample]) -> Iterator[list[Row]]:
    """Rows about the same image together, found within a window of `WINDOW_ROWS` rows of the input.

    A window ends where the image changes, so that input sorted by image is never cut within one; but an image with
    very many rows does not make it grow without bound.
    """
    window: dict[str, list[Row]] = {}
    count, previous = 0, None
    for position, sample in enumerate(samples):
        full = count >= WINDOW_ROWS and sample.image_file != previous
        if full or count >= 4 * WINDOW_ROWS:
            yield from window.values()
            window, count = {}, 0
        window.setdefault(sample.image_file, []).append(Row.of(position, sample))
        count, previous = count + 1, sample.image_file
    yield from window.values()


def ahead(function: Callable[[_Item], _Result], items: Iterable[_Item], depth: int) -> Iterator[_Result]:
    """Results of a function in order, computed in a thread at most `depth` items ahead of who takes them."""
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare")
    pending: deque[Future[_Result]] = deque()
    try:
        for item in items:
            pending.append(executor.submit(function, item))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
        executor.shutdown(wait=True)


def _encode(sample: Sample, bundle: LlavaBundle, answer_tokens: int) -> EncodedPrompt:
    prompt = bundle.encode(sample.query)
    needed = len(prompt.input_ids) + answer_tokens
    if needed > bundle.max_positions:
        raise ValueError(
            f"Expected the prompt of sample {sample.id!r} to fit into the {bundle.max_positions} positions of the "
            f"model, but got {needed}, {bundle.visual_tokens} of them for the image. Shorten the query."
        )
    return prompt
