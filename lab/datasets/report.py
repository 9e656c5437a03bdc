"""What a conversion read, counted and set beside the published sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Optional

from lab.datasets.box_reading import ReadBoxes
from lab.datasets.expressions import Expression
from lab.datasets.formats.base import Format
from lab.datasets.pictures import FoundPicture
from lab.datasets.published import merged_splits, published_sizes

NAMED = 3


@dataclass(frozen=True)
class SplitCount:
    """What was read of one split, and what is published of it."""

    dataset: str
    split: str
    split_by: str
    refs: int
    expressions: int
    pictures: int
    published: tuple[str, ...]
    matches: Optional[bool]


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion read.

    Attributes:
        format_name: The format.
        format_why: How it was told.
        box_reading: How boxes were read; empty where there are none.
        box_why: What spoke for it.
        splits: Counts by data set and split.
        without_text: Sentences without words, left out.
        without_target: Expressions that refer to nothing.
        several_targets: Expressions with several boxes.
        boxes_outside: Boxes that leave their picture by more than a pixel.
        boxes_unreadable: Boxes without extent.
        pictures_missing: Pictures that were not found, by name.
        sizes_that_differ: Pictures whose size is not the one that the data set states.
        merged: Why the file looks like two splits in one; empty where it does not.
    """

    format_name: str
    format_why: str
    box_reading: str
    box_why: str
    splits: tuple[SplitCount, ...]
    without_text: int
    without_target: int
    several_targets: int
    boxes_outside: int
    boxes_unreadable: int
    pictures_missing: tuple[str, ...]
    sizes_that_differ: tuple[str, ...]
    merged: str

    @property
    def is_clean(self) -> bool:
        """Whether every row can be used as it is."""
        return not (self.pictures_missing or self.boxes_unreadable or self.merged or self.sizes_that_differ)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        lines = [f"format   {self.format_name}, {self.format_why}"]
        if self.box_reading:
            lines.append(f"boxes    {self.box_reading}, {self.box_why}")
        for split in self.splits:
            lines.append(_split_line(split))
        counts = {
            "sentences without words, left out": self.without_text,
            "expressions without a target": self.without_target,
            "expressions with several targets": self.several_targets,
            "boxes that leave their picture": self.boxes_outside,
            "boxes without extent, or in shares of a picture of unknown size": self.boxes_unreadable,
        }
        lines += [f"         {count} {what}" for what, count in counts.items() if count]
        lines += _named_line(self.pictures_missing, "pictures not found")
        lines += _named_line(self.sizes_that_differ, "pictures of another size than stated")
        return lines + ([f"MERGED   {self.merged}"] if self.merged else [])


def make_report(
    form: Format,
    why: str,
    expressions: Sequence[Expression],
    pictures: Sequence[FoundPicture],
    boxes: Optional[ReadBoxes],
    without_text: int,
) -> ConversionReport:
    """Count what was read."""
    missing = dict.fromkeys(str(found.path) for found in pictures if not found.on_disk)
    differing = dict.fromkeys(str(found.path) for found in pictures if found.stated_size_wh is not None)
    splits = _count_splits(expressions)
    return ConversionReport(
        format_name=form.name,
        format_why=why,
        box_reading="" if boxes is None else boxes.reading.description,
        box_why="" if boxes is None else boxes.why,
        splits=splits,
        without_text=without_text,
        without_target=sum(not expression.boxes for expression in expressions),
        several_targets=sum(len(expression.boxes) > 1 for expression in expressions),
        boxes_outside=0 if boxes is None else len(boxes.outside),
        boxes_unreadable=0 if boxes is None else len(boxes.unreadable),
        pictures_missing=tuple(missing),
        sizes_that_differ=tuple(differing),
        merged=_merged(expressions, splits),
    )


def _count_splits(expressions: Sequence[Expression]) -> tuple[SplitCount, ...]:
    groups: dict[tuple[str, str, str], list[Expression]] = {}
    for expression in expressions:
        groups.setdefault((expression.dataset, expression.split, expression.split_by), []).append(expression)
    return tuple(_count(key, group) for key, group in groups.items())


def _count(key: tuple[str, str, str], group: Sequence[Expression]) -> SplitCount:
    dataset, split, split_by = key
    refs, pictures = len(_ref_keys(group)), len({expression.picture.key for expression in group})
    known = published_sizes(dataset, split, split_by)
    texts = tuple(
        f"{maker}: {size.refs:,} refs, {size.expressions or 'unknown':{',' if size.expressions else ''}} expressions, "
        f"{size.pictures:,} pictures"
        for maker, size in known.items()
    )
    has_refs = any(expression.ref_id is not None for expression in group)
    matches = [
        (size.expressions == len(group) if size.expressions else size.refs == refs)
        and (size.refs == refs or not has_refs)
        for size in known.values()
    ]
    return SplitCount(dataset, split, split_by, refs, len(group), pictures, texts, any(matches) if matches else None)


def _ref_keys(group: Sequence[Expression]) -> set[Any]:
    """References; where a file has none, its annotations or boxes on a picture stand for them."""
    return {(each.picture.key, each.ann_id or each.boxes) if each.ref_id is None else each.ref_id for each in group}


def _merged(expressions: Sequence[Expression], splits: Sequence[SplitCount]) -> str:
    """A split in which annotations repeat over references, or whose size is the sum of two published ones."""
    for split in splits:
        pair = () if split.matches else merged_splits(split.dataset, split.refs)
        if pair:
            return (
                f"{split.refs:,} references under {split.dataset} {split.split} are as many as {pair[0]} and {pair[1]} "
                "have together."
            )
    owners: dict[Any, set[Any]] = {}
    for expression in expressions:
        if expression.ann_id is not None and expression.ref_id is not None:
            owners.setdefault((expression.dataset, expression.split, expression.ann_id), set()).add(expression.ref_id)
    repeated = [key for key, refs in owners.items() if len(refs) > 1]
    if repeated and len(repeated) > 0.01 * len(owners):
        example = repeated[0][2]
        return f"{len(repeated)} of {len(owners)} annotations stand under several references, such as {example}."
    return ""


def _split_line(split: SplitCount) -> str:
    name = " ".join(part for part in (split.dataset, split.split_by, split.split) if part) or "no split named"
    read = f"read     {name}: {split.refs:,} refs, {split.expressions:,} expressions, {split.pictures:,} pictures"
    if not split.published:
        return read
    verdict = "as published" if split.matches else "NOT as published"
    return f"{read}; {verdict} ({'; '.join(split.published)})"


def _named_line(names: Counter[str] | Sequence[str], what: str) -> list[str]:
    if not names:
        return []
    shown = ", ".join(list(names)[:NAMED])
    return [f"         {len(names)} {what}: {shown}{', ...' if len(names) > NAMED else ''}"]
