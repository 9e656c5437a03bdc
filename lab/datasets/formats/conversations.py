"""Conversations as LLaVA and InternVL are tuned on: boxes stand in the text of the answers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Optional

from lab.datasets.expressions import Expression, Picture
from lab.datasets.formats.base import Format, Inputs, four_numbers, has_keys, need, stated_size
from lab.datasets.formats.coco_names import coco_names

_NUMBER = r"-?\d+(?:\.\d+)?"
_BOX = re.compile(rf"\[\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\]")
_REF = re.compile(r"<ref>(.*?)</ref>", re.S)


def is_conversations(path: Path, record: Optional[Mapping[str, Any]]) -> bool:
    """`conversations` with an image."""
    return has_keys(record, "conversations", "image")


def read_conversations(inputs: Inputs) -> Iterator[Expression]:
    """One expression for each turn whose answer is boxes; other turns are passed over."""
    for number, row in enumerate(inputs.records()):
        what = f"conversation {number + 1}"
        turns = need(row, "conversations", what)
        picture = Picture(coco_names(str(need(row, "image", what))), None, stated_size(row))
        for sent_id, (question, answer) in enumerate(zip(turns[::2], turns[1::2])):
            boxes = _BOX.findall(str(answer.get("value", "")))
            phrase = _phrase(str(question.get("value", "")))
            if boxes and phrase:
                yield Expression(
                    prompt=phrase,
                    picture=picture,
                    boxes=tuple(four_numbers(box, what) for box in boxes),
                    dataset=inputs.dataset,
                    split=inputs.split or "",
                    ref_id=row.get("id", number),
                    sent_id=sent_id,
                )


def _phrase(question: str) -> str:
    """What is asked for: within <ref> marks, or else after the last colon; a full stop at the end is the turn's."""
    marked = _REF.search(question)
    if marked:
        return marked[1].strip()
    text = question.replace("<image>", "").strip()
    return re.sub(r"\.$", "", text.rsplit(":", 1)[1].strip()).strip() if ":" in text else ""


CONVERSATIONS = Format(
    "conversations",
    "conversations of LLaVA or InternVL, boxes in the text",
    ("xyxy_unit", "xyxy_padded", "xyxy_thousand", "xyxy"),
    is_conversations,
    read_conversations,
)
