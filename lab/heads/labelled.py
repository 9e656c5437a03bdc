"""The file of heads chosen with labels: how they were chosen, on what, and whether they are used on the same rows."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab.heads.heads_file import FixedHead, HeadsFile
from lab.heads.label_search import LabelledSet, best_set

SOURCE = "stage=batch_analyze: the set of heads whose box fits the ground truth best on these rows, chosen with labels"


@dataclass(frozen=True)
class LabelledRows:
    """The rows that heads were chosen on with labels.

    Attributes:
        truth_file: Path of the ground truth, as given.
        truth_sha256: Hash of its bytes.
        attention_dirs: Directories of the attention files, as given.
        attention_sha256: Hash of ids and attention sums of the rows, such as `hash_attention` gives.
        split: Split that the rows name, such as `validation`; empty where they name none, or several by commas.
        num_rows: Number of rows.
        num_pictures: Number of pictures.
    """

    truth_file: str
    truth_sha256: str
    attention_dirs: tuple[str, ...]
    attention_sha256: str
    split: str
    num_rows: int
    num_pictures: int

    def rules(self, sets: Sequence[LabelledSet], names: Sequence[str]) -> dict[str, Any]:
        """What stands under `rules` in the heads file; `names` are those of the candidates."""
        return {
            "chosen_with": "ground truth",
            "criterion": "mean IoU of the box of the set",
            "candidates": f"the {len(names)} heads of best own IoU",
            "truth_file": self.truth_file,
            "truth_sha256": self.truth_sha256,
            "attention_dirs": list(self.attention_dirs),
            "attention_sha256": self.attention_sha256,
            "split": self.split,
            "num_rows": self.num_rows,
            "num_pictures": self.num_pictures,
            "sets": [found.to_dict(names) for found in sets],
        }


def labelled_heads_file(
    rows: LabelledRows,
    sets: Sequence[LabelledSet],
    candidates: Sequence[tuple[int, int]],
    *,
    top_k: int,
    shape: tuple[int, int],
    model_name: str,
    template: str,
) -> HeadsFile:
    """The best set of `top_k` heads as a heads file; the best sets of other sizes stand in its rules.

    Args:
        rows: What they were chosen on.
        sets: The sets that were found.
        candidates: (layer, head) that they are of.
        top_k: Size of the set to use; the nearest size where none of that size was found.
        shape: Layers of the model, and heads of each.
        model_name: Name of the model.
        template: Key of the prompt template.

    Returns:
        The heads file.
    """
    size = min({len(found.members) for found in sets}, key=lambda one: abs(one - top_k))
    best = best_set([found for found in sets if len(found.members) == size])
    names = [f"L{layer}H{head}" for layer, head in candidates]
    return HeadsFile(
        model_name=model_name,
        template=template,
        num_layers=shape[0],
        num_heads=shape[1],
        heads=tuple(FixedHead(*candidates[member]) for member in best.members),
        num_samples=rows.num_rows,
        inputs_sha256=rows.attention_sha256,
        rules=rows.rules(sets, names),
        source=SOURCE,
    )


def in_sample_warning(heads_file: HeadsFile | None, rows: LabelledRows) -> str | None:
    """A sentence where heads chosen with labels are used on the rows that they were chosen on; else None."""
    if heads_file is None or heads_file.rules.get("chosen_with") != "ground truth":
        return None
    same_attention = heads_file.rules.get("attention_sha256") == rows.attention_sha256
    if not same_attention and heads_file.rules.get("truth_sha256") != rows.truth_sha256:
        return None
    what = "attention files" if same_attention else "ground truth"
    return (
        f"In-sample: these heads were chosen with labels on the same {what}, so that their scores are too good. "
        "Use them on another split."
    )


def hash_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def hash_attention(ids: Sequence[str], sums: np.ndarray) -> str:
    """SHA-256 over ids and attention sums `[samples, layers, heads]`, in the order of the ids, whatever the rules."""
    order = sorted(range(len(ids)), key=lambda at: ids[at])
    digest = hashlib.sha256(json.dumps([ids[at] for at in order]).encode("utf-8"))
    digest.update(np.ascontiguousarray(sums[order], dtype="<f4").tobytes())
    return digest.hexdigest()


def split_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """The splits that rows name under `split`, by commas; empty where they name none."""
    return ",".join(sorted({str(row["split"])[:50] for row in rows if row.get("split")})[:5])
