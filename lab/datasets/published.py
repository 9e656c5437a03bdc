"""Published sizes of the splits, to set beside what was read: a mismatch is a wrong or merged file.

References and pictures: the data set cards of TensorFlow Datasets for RefCOCO. Expressions: the totals of the REFER
interface and of Ref-L4 (arXiv 2406.16866), split by split.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class SplitSize:
    """How large a split is; None where no figure is published."""

    refs: int
    expressions: Optional[int]
    pictures: int


PUBLISHED: dict[tuple[str, str, str], SplitSize] = {
    ("refcoco", "unc", "train"): SplitSize(42404, 120624, 16994),
    ("refcoco", "unc", "val"): SplitSize(3811, 10834, 1500),
    ("refcoco", "unc", "testA"): SplitSize(1975, 5657, 750),
    ("refcoco", "unc", "testB"): SplitSize(1810, 5095, 750),
    ("refcoco", "google", "train"): SplitSize(40000, None, 19213),
    ("refcoco", "google", "val"): SplitSize(5000, None, 4559),
    ("refcoco", "google", "test"): SplitSize(5000, None, 4527),
    ("refcoco+", "unc", "train"): SplitSize(42278, 120191, 16992),
    ("refcoco+", "unc", "val"): SplitSize(3805, 10758, 1500),
    ("refcoco+", "unc", "testA"): SplitSize(1975, 5726, 750),
    ("refcoco+", "unc", "testB"): SplitSize(1798, 4889, 750),
    ("refcocog", "umd", "train"): SplitSize(42226, 80512, 21899),
    ("refcocog", "umd", "val"): SplitSize(2573, 4896, 1300),
    ("refcocog", "umd", "test"): SplitSize(5023, 9602, 2600),
    ("refcocog", "google", "train"): SplitSize(44822, None, 24698),
    ("refcocog", "google", "val"): SplitSize(5000, None, 4650),
}


def published_sizes(dataset: str, split: str, split_by: str = "") -> dict[str, SplitSize]:
    """Published sizes that a split may be compared with, by the maker of the split."""
    return {
        maker: size
        for (name, maker, part), size in PUBLISHED.items()
        if name == dataset and part == split and split_by in ("", maker)
    }


def merged_splits(dataset: str, num_refs: int) -> tuple[str, ...]:
    """Two published splits of a data set whose references add up to just this number, or nothing."""
    entries = [(f"{maker} {part}", size.refs) for (name, maker, part), size in PUBLISHED.items() if name == dataset]
    for index, (first, first_refs) in enumerate(entries):
        for second, second_refs in entries[index + 1 :]:
            if first_refs + second_refs == num_refs:
                return first, second
    return ()
