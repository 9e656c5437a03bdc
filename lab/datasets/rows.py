"""Rows of an input file -> samples, and a reason for each row that cannot be one."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Optional

from lab.datasets.row_truths import read_truth_boxes
from lab.datasets.tables import find_input, quote_short, read_table
from lab.records import Sample
from lab.storage.files import JsonlLine
from lab.storage.paths import PathLike, differ_by_case_only, distinct_name, is_file

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RowFailure:
    """Why one row has no result.

    Attributes:
        line_number: 1-based line of the input file (in a JSON array, place in the array), or None for a single run.
        id: Its identifier, or None where the row has none.
        reason: One line for people.
    """

    line_number: Optional[int]
    id: Optional[str]
    reason: str


@dataclass(frozen=True)
class RowFields:
    """The keys under which a row holds what is needed.

    Attributes:
        id: Key of the identifier.
        prompt: Key of the referring expression.
        image: Key of the image's path.
    """

    id: str = "id"
    prompt: str = "prompt"
    image: str = "image_path"


@dataclass(frozen=True)
class RowSelection:
    """The chosen rows of a file.

    Attributes:
        samples: Rows that can be processed, in the order of the file.
        failures: Chosen rows that cannot.
        total: Number of rows in the whole file, blank lines left out.
    """

    samples: tuple[Sample, ...]
    failures: tuple[RowFailure, ...]
    total: int


def read_rows(
    path: PathLike,
    fields: RowFields,
    start_index: Optional[int] = None,
    end_index: Optional[int] = None,
    *,
    box_format: Optional[str] = None,
) -> RowSelection:
    """Read and check rows; images are looked for, but not opened.

    White space at the ends of a query is left out, since it would be tokens of its own; one line says so.

    Args:
        path: JSONL file, JSON array, CSV or TSV (see `read_table`); relative image paths start from the working
            directory or, failing that, from its directory.
        fields: Which keys hold what.
        start_index: First row to take, counting rows from 0; None for the first.
        end_index: Row to stop before; None for all that follow.
        box_format: How ground-truth boxes are written (`lab.datasets.box_reading.BOX_FORMATS`); None leaves them out.

    Returns:
        The rows to process, and those that cannot be.

    Raises:
        ValueError: Two rows of the file share an id, the range holds no row, or the path is a URL.
        FileNotFoundError: There is no such file.
    """
    lines = read_table(path)
    _check_no_duplicates(lines, fields.id, path)
    chosen = lines[start_index or 0 : end_index]
    if not chosen:
        raise ValueError(
            f"Expected at least one row in {path} from index {start_index or 0} up to "
            f"{'its end' if end_index is None else end_index}, but got none of its {len(lines)}. "
            "Indices count rows from 0."
        )
    directory = find_input(str(path), "the data file").parent
    find_image = functools.cache(functools.partial(_find_image, directory=directory))  # many rows share a picture
    same_but_for_case = _differ_by_case_only(lines, fields.id)
    results = [_to_sample(line, fields, find_image, same_but_for_case) for line in chosen]
    _say_what_was_trimmed(chosen, results, fields.prompt)
    samples = tuple(result for result in results if isinstance(result, Sample))
    if box_format is not None:
        boxes = read_truth_boxes(lines, fields.image, find_image, where=str(path), box_format=box_format)
        samples = tuple(replace(sample, truth_xyxy=boxes.get(sample.line_number or 0)) for sample in samples)
    return RowSelection(
        samples=samples,
        failures=tuple(result for result in results if isinstance(result, RowFailure)),
        total=len(lines),
    )


def _check_no_duplicates(lines: Sequence[JsonlLine], id_field: str, path: PathLike) -> None:
    ids = [(_read_id(line.row, id_field), line.number) for line in lines if line.row is not None]
    counts = Counter(sample_id for sample_id, _ in ids if sample_id is not None)
    repeated = [sample_id for sample_id, count in counts.items() if count > 1]
    if repeated:
        numbers = [str(number) for sample_id, number in ids if sample_id == repeated[0]]
        where = ", ".join(numbers[:6]) + (", ..." if len(numbers) > 6 else "")
        more = f" ({len(repeated) - 1} more ids repeat)" if len(repeated) > 1 else ""
        raise ValueError(
            f"Expected every row of {path} to have its own {id_field!r}, but got {quote_short(repeated[0])} in lines "
            f"{where}{more}. Results are named by id: make ids unique, or choose another key with data.id_field."
        )


def _read_id(row: Optional[dict[str, Any]], id_field: str) -> Optional[str]:
    """The id as text; whole numbers count as text."""
    value = None if row is None else row.get(id_field)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    return str(value) if str(value).strip() else None


def _differ_by_case_only(lines: Sequence[JsonlLine], id_field: str) -> frozenset[str]:
    ids = (_read_id(line.row, id_field) for line in lines)
    return differ_by_case_only(sample_id for sample_id in ids if sample_id is not None)


def _to_sample(
    line: JsonlLine, fields: RowFields, find_image: Callable[[str], str], same_but_for_case: Collection[str]
) -> Sample | RowFailure:
    if line.row is None:
        return RowFailure(line.number, None, line.error)
    sample_id = _read_id(line.row, fields.id)
    try:
        if sample_id is None:
            raise ValueError(_describe_missing(line.row, fields.id, "text or a whole number"))
        query = trim_query(check_encodable(fields.prompt, _read_text(line.row, fields.prompt)))
        image_file = find_image(_read_text(line.row, fields.image))
        stem = distinct_name(sample_id) if sample_id in same_but_for_case else None
        return Sample(sample_id, image_file, query, line.number, stem)
    except Exception as error:  # whatever is odd about a row, it costs that row alone
        return RowFailure(line.number, sample_id, str(error))


def trim_query(query: str) -> str:
    """Leave out white space at a query's ends: each blank there is another token, and other attention.

    Args:
        query: As typed, or as a row holds it.

    Returns:
        The query that the model gets.
    """
    return query.strip()


def _say_what_was_trimmed(
    lines: Sequence[JsonlLine], results: Sequence[Sample | RowFailure], prompt_field: str
) -> None:
    trimmed = [
        line.number
        for line, result in zip(lines, results)
        if isinstance(result, Sample) and line.row is not None and line.row[prompt_field] != result.query
    ]
    if trimmed:
        logger.info(
            "%d queries have white space at their ends, which is left out (the first in line %d).",
            len(trimmed),
            trimmed[0],
        )


def _read_text(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(_describe_missing(row, key, "non-empty text"))
    return value


def _describe_missing(row: dict[str, Any], key: str, wanted: str) -> str:
    if key not in row:
        names = ", ".join(quote_short(name) for name in list(row)[:8]) + (", ..." if len(row) > 8 else "")
        return f"Expected the key {key!r}, but got only {names or 'an empty object'}."
    return f"Expected {key!r} to be {wanted}, but got {quote_short(row[key])}."


def check_encodable(key: str, text: str) -> str:
    """Refuse what no text file can hold, and no tokenizer takes: half of a surrogate pair.

    Args:
        key: Where the text stands, for the message.
        text: A query.

    Returns:
        The same text.

    Raises:
        ValueError: UTF-8 cannot hold it.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        broken = quote_short(text[error.start : error.start + 1])
        raise ValueError(
            f"Expected {key!r} to be text that UTF-8 can hold, but got {broken} at character {error.start} of "
            f"{quote_short(text)}. Write the character itself, or both halves of its pair."
        ) from error
    return text


def _find_image(name: str, directory: Path) -> str:
    given = find_input(name, "an image")
    for path in (given, directory / given):
        if is_file(path):
            return str(path)
    raise ValueError(
        f"Expected an image at {quote_short(name)} (from here or from {str(directory)!r}), but found none."
    )
