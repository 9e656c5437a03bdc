"""What the host does ahead of the model: bring rows of one image together, read pictures, tokenise prompts."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Callable, TypeVar

from foreign_files.messages import shorten, shorten_reason
from lab.records import Sample
from vlm.bundle import EncodedPicture, EncodedQuery, EncodingFailure, ImageTextBundle
from vlm.images import load_image

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
class Picture:
    """An image ready for the model, with the rows that ask of it in prompts that begin alike.

    Attributes:
        encoded: The image with its queries.
        rows: Where each of its queries comes from, in their order.
    """

    encoded: EncodedPicture
    rows: tuple[Row, ...]

    @property
    def batch_key(self) -> tuple[object, ...]:
        """What images must have in common to go through the model together."""
        shapes = tuple((key, tuple(value.shape)) for key, value in self.encoded.picture_inputs.items())
        return (self.encoded.prefix_ids, shapes)

    @property
    def questions(self) -> tuple[tuple[Row, EncodedQuery], ...]:
        """Each row with its query."""
        return tuple(zip(self.rows, self.encoded.queries))

    def of(self, first: int, last: int) -> Picture:
        """The same with some of its questions."""
        encoded = replace(self.encoded, queries=self.encoded.queries[first:last])
        return Picture(encoded, self.rows[first:last])


@dataclass(frozen=True)
class Prepared:
    """What the host made of the rows of one image: pictures, one for each prefix, and rows that failed."""

    pictures: tuple[Picture, ...]
    failures: dict[int, CollectionFailure]


def prepare(rows: Sequence[Row], bundle: ImageTextBundle, answer_tokens: int = 0) -> Prepared:
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
        found = bundle.encode_picture(image, [row.sample.query for row in rows])
    except Exception as error:
        if len(rows) > 1:  # one of them may be to blame alone
            return _one_by_one(rows, bundle, answer_tokens)
        return Prepared((), {rows[0].position: CollectionFailure(rows[0].sample, _reason(error, rows[0].sample))})
    failures: dict[int, CollectionFailure] = {}
    pictures: list[Picture] = []
    for entry in found:
        if isinstance(entry, EncodingFailure):
            failures[rows[entry.number].position] = CollectionFailure(rows[entry.number].sample, entry.reason)
            continue
        fitting = [query for query in entry.queries if not _too_long(entry, query, bundle, answer_tokens)]
        for query in set(entry.queries) - set(fitting):
            row = rows[query.number]
            failures[row.position] = CollectionFailure(row.sample, _no_room(row, entry, query, bundle, answer_tokens))
        if fitting:
            asked = tuple(rows[query.number] for query in fitting)
            pictures.append(Picture(replace(entry, queries=tuple(fitting)), asked))
    return Prepared(tuple(pictures), failures)


def _one_by_one(rows: Sequence[Row], bundle: ImageTextBundle, answer_tokens: int) -> Prepared:
    parts = [prepare([row], bundle, answer_tokens) for row in rows]
    failures = {position: failure for part in parts for position, failure in part.failures.items()}
    return Prepared(tuple(picture for part in parts for picture in part.pictures), failures)


def _reason(error: Exception, sample: Sample) -> str:
    """Why a row failed, on one line; what nobody foresaw goes to the log with its place in the code, too."""
    if isinstance(error, (ValueError, OSError, MemoryError)) and not isinstance(error, UnicodeError):
        return shorten_reason(error, _MAX_REASON)
    logger.debug("Sample %s could not be prepared.", shorten(sample.id), exc_info=error)
    return f"{type(error).__name__} while the row was prepared: {shorten_reason(error, _MAX_REASON)}"


def _too_long(picture: EncodedPicture, query: EncodedQuery, bundle: ImageTextBundle, answer_tokens: int) -> bool:
    return len(picture.prefix_ids) + len(query.ids) + answer_tokens > bundle.max_positions


def _no_room(
    row: Row, picture: EncodedPicture, query: EncodedQuery, bundle: ImageTextBundle, answer_tokens: int
) -> str:
    needed = len(picture.prefix_ids) + len(query.ids) + answer_tokens
    return (
        f"Expected the prompt of sample {row.sample.id!r} to fit into the {bundle.max_positions} positions of the "
        f"model, but got {needed}, {query.segments.image.length} of them for the image. Shorten the query."
    )


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
