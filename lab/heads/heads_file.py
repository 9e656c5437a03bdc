"""The heads file: heads fixed once for a model, as YAML that people can read and check."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable, TypeVar

import numpy as np

from foreign_files.bounded_yaml import read_yaml
from foreign_files.messages import shorten, shorten_reason
from lab.heads.head_scores import DatasetScores, DatasetSelection
from lab.storage.files import atomic_write

Parsed = TypeVar("Parsed")

INDEX_BASE = 0
NUM_RUNNERS_UP = 10
_MAX_NUMBER = 1 << 40
_HEADER = "# Heads fixed once for a model; layers and heads count from 0. Use: logic.heads_file=<this file>\n"


@dataclass(frozen=True)
class FixedHead:
    """A head and the share of the samples that chose it, or None where that is not known. Both indices count from 0."""

    layer: int
    head: int
    frequency: float | None = None


@dataclass(frozen=True)
class HeadsFile:
    """Fixed heads, and what they were found with.

    Attributes:
        model_name: Name of the model, as `model.name` gives it.
        template: Key of the prompt template, as `model.conv_mode` gives it.
        num_layers: Layers of the model.
        num_heads: Heads of each layer.
        heads: The fixed heads, best first.
        runners_up: The heads that come next, for comparisons of `top_k`.
        num_samples: Samples that they were found on, or None where that is not known.
        threshold: Threshold of criterion 1, or None.
        inputs_sha256: Hash of the inputs, or an empty text.
        rules: The rules, as plain data.
        source: Where the heads come from, for people.
    """

    model_name: str
    template: str
    num_layers: int
    num_heads: int
    heads: tuple[FixedHead, ...]
    runners_up: tuple[FixedHead, ...] = ()
    num_samples: int | None = None
    threshold: float | None = None
    inputs_sha256: str = ""
    rules: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        """Reject an empty list, heads that the model does not have, and heads listed twice."""
        pairs = [(head.layer, head.head) for head in (*self.heads, *self.runners_up)]
        if not self.heads:
            raise ValueError("Expected a heads file to list at least one head, but got none.")
        if len(set(pairs)) < len(pairs):
            raise ValueError(f"Expected a heads file to list each head once, but got {shorten(pairs)}.")
        for layer, head in pairs:
            if not (0 <= layer < self.num_layers and 0 <= head < self.num_heads):
                raise ValueError(
                    f"Expected the heads of a heads file to lie in {self.num_layers} layers of {self.num_heads} heads, "
                    f"counted from 0, but got layer {layer}, head {head}."
                )

    def first(self, count: int) -> tuple[tuple[int, int], ...]:
        """(layer, head) of the first `count` heads; beyond the fixed ones the runners-up follow.

        Raises:
            ValueError: If the file does not list as many.
        """
        listed = (*self.heads, *self.runners_up)
        if count > len(listed):
            raise ValueError(
                f"Expected the heads file to list at least logic.top_k={count} heads, but got {len(listed)}. "
                "Lower logic.top_k."
            )
        return tuple((head.layer, head.head) for head in listed[:count])


def heads_file_from_selection(
    selection: DatasetSelection, *, model_name: str, template: str, inputs_sha256: str, rules: Mapping[str, Any]
) -> HeadsFile:
    """The heads file of what a data set chose; `rules` are the selection's as plain data, with what else shaped it."""
    ranked = [head for head in selection.ranked_heads() if selection.counts[head]]
    return _heads_file(
        ranked,
        selection.frequency,
        len(selection.heads),
        model_name=model_name,
        template=template,
        num_samples=selection.num_samples,
        threshold=selection.common_threshold,
        inputs_sha256=inputs_sha256,
        rules=dict(rules),
        source="stage=batch_analyze",
    )


def _heads_file(
    ranked: Sequence[tuple[int, int]], frequency: np.ndarray, num_fixed: int, **made_with: Any
) -> HeadsFile:
    """Fix the first heads of a ranking and list those that come next; `frequency` is `[layers, heads]`."""
    listed = [FixedHead(*head, float(frequency[head])) for head in ranked]
    num_layers, num_heads = frequency.shape
    return HeadsFile(
        num_layers=num_layers,
        num_heads=num_heads,
        heads=tuple(listed[:num_fixed]),
        runners_up=tuple(listed[num_fixed : num_fixed + NUM_RUNNERS_UP]),
        **made_with,
    )


def hash_inputs(ids: Sequence[str], scores: DatasetScores) -> str:
    """SHA-256 over the ids and the scores of every head on every sample, whatever the files' compression."""
    digest = hashlib.sha256(json.dumps(list(ids)).encode("utf-8"))
    for array, dtype in ((scores.attn_sum, "<f4"), (scores.spatial_entropy, "<f4"), (scores.bottom_row_focus, "?")):
        digest.update(np.ascontiguousarray(array, dtype=dtype).tobytes())
    return digest.hexdigest()


def check_heads_file(
    heads_file: HeadsFile, *, model_name: str, template: str, num_layers: int, num_heads: int, force: bool = False
) -> tuple[str, ...]:
    """Refuse heads that were found with another model or template.

    Args:
        heads_file: The heads.
        model_name: Name of the model in use.
        template: Key of its prompt template.
        num_layers: Its layers.
        num_heads: Its heads a layer.
        force: Use the heads all the same (`logic.force_heads_file`), as long as the model has them.

    Returns:
        Sentences on what was overridden, to be recorded in the output; empty where all fits.

    Raises:
        ValueError: If something does not fit and is not forced, or the model does not have the heads.
    """
    pairs = (
        ("model", heads_file.model_name, model_name),
        ("prompt template", heads_file.template, template),
        ("number of layers", heads_file.num_layers, num_layers),
        ("number of heads a layer", heads_file.num_heads, num_heads),
    )
    differences = [f"the {what} is {there!r} there and {here!r} here" for what, there, here in pairs if there != here]
    missing = [head for head in heads_file.heads if head.layer >= num_layers or head.head >= num_heads]
    if missing:
        raise ValueError(
            f"Expected the model {model_name!r} to have layer {missing[0].layer}, head {missing[0].head} of the heads "
            f"file, but got {num_layers} layers of {num_heads} heads. Find its own heads with stage=batch_analyze."
        )
    if differences and not force:
        raise ValueError(
            f"Expected the heads file to be made for this model and template, but got others: {'; '.join(differences)}."
            " Find the heads with stage=batch_analyze, or set logic.force_heads_file=true."
        )
    return tuple(f"The heads file was used although {difference}." for difference in differences)


# ---------------------------------------------------------------------------------------------------------------------
# YAML
# ---------------------------------------------------------------------------------------------------------------------


def heads_file_record(heads_file: HeadsFile) -> dict[str, Any]:
    """Content of the YAML file as plain data."""
    return {
        "model_name": heads_file.model_name,
        "template": heads_file.template,
        "index_base": INDEX_BASE,
        "num_layers": heads_file.num_layers,
        "num_heads": heads_file.num_heads,
        "heads": [_fixed_head_record(head) for head in heads_file.heads],
        "runners_up": [_fixed_head_record(head) for head in heads_file.runners_up],
        "num_samples": heads_file.num_samples,
        "threshold": heads_file.threshold,
        "inputs_sha256": heads_file.inputs_sha256,
        "rules": dict(heads_file.rules),
        "source": heads_file.source,
    }


def write_heads_file(path: str | os.PathLike[str], heads_file: HeadsFile) -> None:
    """Write a heads file, whole or not at all."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes out what stands twice, since the reader takes no references."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    record = heads_file_record(heads_file)
    text = yaml.dump(record, Dumper=Dumper, sort_keys=False, default_flow_style=None, width=120)
    atomic_write(path, (_HEADER + text).encode("utf-8"))


def read_heads_file(path: str | os.PathLike[str]) -> HeadsFile:
    """Read a heads file.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is not a heads file, or counts heads from another number than 0.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"Expected a heads file at {os.fspath(path)}, but found none. Make one with stage=batch_analyze."
        )
    try:
        return _parse_heads_file(read_yaml(path))
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        what = shorten_reason(f"the field {error}" if isinstance(error, KeyError) else error)
        raise ValueError(f"Expected {os.fspath(path)} to be a heads file, but got a problem with it: {what}") from error


def _parse_heads_file(record: Any) -> HeadsFile:
    if not isinstance(record, Mapping):
        raise ValueError(f"Expected a mapping with model_name, template and heads, but got {type(record).__name__}.")
    if record["index_base"] != INDEX_BASE:
        raise ValueError(
            f"Expected index_base to be {INDEX_BASE}, but got {shorten(record['index_base'])}. Subtract it from each "
            f"layer and head and set index_base: {INDEX_BASE}."
        )
    return HeadsFile(
        model_name=_text(record["model_name"], "model_name"),
        template=_text(record["template"], "template"),
        num_layers=_whole_number(record["num_layers"], "num_layers"),
        num_heads=_whole_number(record["num_heads"], "num_heads"),
        heads=_parse_heads(record["heads"], "heads"),
        runners_up=_parse_heads(record.get("runners_up") or [], "runners_up"),
        num_samples=_or_none(_whole_number, record.get("num_samples"), "num_samples"),
        threshold=_or_none(_number, record.get("threshold"), "threshold"),
        inputs_sha256=_text(record.get("inputs_sha256") or "", "inputs_sha256"),
        rules=_rules(record.get("rules") or {}),
        source=_text(record.get("source") or "", "source"),
    )


def _fixed_head_record(head: FixedHead) -> dict[str, Any]:
    return {"layer": head.layer, "head": head.head, "frequency": head.frequency}


def _parse_heads(value: Any, name: str) -> tuple[FixedHead, ...]:
    if not isinstance(value, list):
        raise ValueError(f"Expected {name} to be a list of heads, but got {shorten(value)}.")
    return tuple(map(_parse_fixed_head, value))


def _parse_fixed_head(record: Any) -> FixedHead:
    if not isinstance(record, Mapping):
        raise ValueError(f"Expected each head to be a mapping with layer and head, but got {shorten(record)}.")
    return FixedHead(
        _whole_number(record["layer"], "layer"),
        _whole_number(record["head"], "head"),
        _or_none(_number, record.get("frequency"), "frequency"),
    )


def _rules(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"Expected rules to be a mapping, but got {shorten(value)}.")
    return dict(value)


def _or_none(parse: Callable[[Any, str], Parsed], value: Any, name: str) -> Parsed | None:
    return None if value is None else parse(value, name)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, (str, int, float)):
        raise ValueError(f"Expected {name} to be text, but got {shorten(value)}.")
    return str(value)


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"Expected {name} to be a number, but got {shorten(value)}.")
    return float(value)


def _whole_number(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MAX_NUMBER:
        raise ValueError(f"Expected {name} to be a whole number, but got {shorten(value)}.")
    return value
