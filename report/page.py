"""A run and its pictures -> the data block -> the page."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Iterable, Sequence, Set
from pathlib import Path
from typing import Any, Optional

import numpy as np

from lab.boxes import box_iou
from report.choosing import choose_kept_heads
from report.kinds import KINDS, kind_of, size_class
from report.packing import coded_maps, exact_maps, numbers, picture, script_safe_json
from report.records import FILTER_REASONS, SCORE_NAMES, Bar, DatasetPart, Head, ReportRun, ReportSample

SIZE_LIMIT = 9_700_000
"""Bytes that a report of up to 50 pictures stays below; maps of less wanted heads are left out for it."""
VIEWS = (("gallery", "Gallery"), ("explorer", "Head explorer"), ("dataset", "Data set"), ("compare", "Compare"))
SCRIPTS = (
    "geometry",
    "data",
    "dom",
    "state",
    "picture",
    "gallery",
    "matrix",
    "explorer",
    "cells",
    "charts",
    "dataset",
    "exports",
    "main",
)
STYLES = ("page", "views")
_HERE = Path(__file__).resolve().parent
_BYTES_OF_A_PICTURE, _BYTES_OF_A_SCORE, _BYTES_OF_THE_REST = 60_500, 29, 150_000


def build(run: ReportRun, samples: Iterable[ReportSample]) -> str:
    """Make the page.

    Args:
        run: What all pictures share.
        samples: The pictures, read one after the other; only what the page holds of each is kept.

    Returns:
        HTML that needs nothing else.

    Raises:
        ValueError: A picture cannot be read, or does not fit its attention.
    """
    kept, controls = choose_kept_heads(
        (run.num_layers, run.num_heads), [*run.fixed, *run.wanted], _kept_count(run), run.seed
    )
    packed = [pack_sample(sample, kept) for sample in samples]
    against = _against(run, {str(sample["id"]) for sample in packed})
    return render(run, {**_shared(run, kept, controls), "against": against, "samples": packed})


def _kept_count(run: ReportRun) -> int:
    """For how many heads there is room for a map in 8 bits on every picture."""
    heads = run.num_layers * run.num_heads
    exact = 8 * run.num_cells * 16 / 3
    fixed = _BYTES_OF_A_PICTURE + _BYTES_OF_A_SCORE * heads + exact
    room = (SIZE_LIMIT - _BYTES_OF_THE_REST) / max(run.num_samples, 1) - fixed
    return max(0, min(heads, int(room // (run.num_cells * 4 / 3 + 12))))


def pack_sample(sample: ReportSample, kept: Sequence[int]) -> dict[str, Any]:
    """What the data block says of one picture.

    Args:
        sample: The picture.
        kept: Flat indices of the heads whose maps are kept in 8 bits.

    Returns:
        Plain data.
    """
    collected, num_heads = sample.collected, sample.collected.num_heads
    maps = collected.attention.reshape(-1, collected.attention.shape[2])
    exact = sorted(flat_indices([*sample.heads, *sample.ranked], num_heads))
    peaks, codes = coded_maps(maps[list(kept)])
    return {
        "id": collected.sample.id,
        "phrase": collected.sample.query,
        "last": sample.last_token,
        "picture": picture(collected.sample.image_file, collected.image_size_wh),
        "size": list(collected.image_size_wh),
        "grid": dataclasses.asdict(collected.grid),
        "file": sample.file,
        **_result(sample),
        "heads": flat_indices(sample.heads, num_heads),
        "source": sample.source,
        "notes": list(sample.notes),
        "ranked": flat_indices(sample.ranked, num_heads),
        "why": "".join(str(int(code)) for code in np.ravel(sample.filtered)),
        "scores": {name: numbers(values) for name, values in sample.scores.items()},
        "exact": {"heads": exact, "values": exact_maps(maps[exact])},
        "coded": {"peaks": peaks, "values": codes},
    }


def _result(sample: ReportSample) -> dict[str, Any]:
    """Boxes, and what they say of each other."""
    box, truth = sample.box_xyxy, sample.truth_xyxy
    result: dict[str, Any] = {"box": _plain_box(box), "truth": _plain_box(truth), "confidence": sample.confidence}
    if truth is None:
        return {**result, "iou": None, "sizeClass": None, "kind": "nothing" if box is None else None}
    layers, heads = zip(*sample.heads) if sample.heads else ((), ())
    grid = sample.collected.grid
    combined = sample.collected.attention[list(layers), list(heads)].sum(axis=0).reshape(grid.shape)
    return {
        **result,
        "iou": 0.0 if box is None else box_iou(box, truth),
        "sizeClass": size_class(truth),
        "kind": kind_of(box, truth, combined, grid),
    }


def _plain_box(box: Optional[Sequence[float]]) -> Optional[list[float]]:
    return None if box is None else [float(edge) for edge in box]


def flat_indices(heads: Iterable[Head], num_heads: int) -> list[int]:
    """Heads as layer * heads + head, each once, in order."""
    return list(dict.fromkeys(int(layer) * num_heads + int(head) for layer, head in heads))


def _shared(run: ReportRun, kept: Sequence[int], controls: Sequence[int]) -> dict[str, Any]:
    """What the data block says of the whole run."""
    rules = run.rules
    return {
        "title": run.title,
        "model": run.model_name,
        "command": run.command,
        "about": list(run.about),
        "numLayers": run.num_layers,
        "numHeads": run.num_heads,
        "emptyLayers": list(run.empty_layers),
        "rules": {
            "k": run.top_k,
            "sigma": rules.sigma,
            "truncate": rules.truncate,
            "threshold": rules.threshold,
            "region": rules.region,
            "edges": rules.edges,
            "edgeMost": rules.edge_most,
            "edgePower": rules.edge_power,
        },
        "fixed": flat_indices(run.fixed, run.num_heads),
        "controls": [head for head in controls if head not in flat_indices(run.fixed, run.num_heads)],
        "coded": list(kept),
        "reasons": list(FILTER_REASONS),
        "kinds": [{"key": key, "name": name, "rule": rule} for key, name, rule in KINDS],
        "scoreNames": _score_names(run.dataset),
        "dataset": _dataset(run.dataset),
        "failures": [{"id": sample_id, "reason": reason} for sample_id, reason in run.failures],
    }


def _score_names(dataset: DatasetPart) -> dict[str, str]:
    return {key: name for key, name in SCORE_NAMES.items() if key != "frequency" or dataset.frequency is not None}


def _dataset(part: DatasetPart) -> dict[str, Any]:
    return {
        "numSamples": part.num_samples,
        "source": part.source,
        "frequency": None if part.frequency is None else numbers(part.frequency),
        "meanSums": numbers(part.mean_sums),
        "threshold": part.threshold,
        "bars": [_bar(bar) for bar in part.audit],
        "verdict": part.verdict,
        "scores": [_bar(bar) for bar in part.scores],
        "thresholdRange": None if part.threshold_range is None else list(part.threshold_range),
        "table": None if part.table is None else dataclasses.asdict(part.table),
    }


def _bar(bar: Bar) -> dict[str, Any]:
    ends = {"low": bar.low, "high": bar.high}
    finite = {name: None if end is None or not np.isfinite(end) else float(end) for name, end in ends.items()}
    return {"name": bar.name, "value": float(bar.value), **finite, "note": bar.note}


def _against(run: ReportRun, shown: Set[str]) -> Optional[dict[str, Any]]:
    if run.against is None:
        return None
    rows = [row for row in run.against.rows if row.id in shown]
    plain = [{"id": row.id, "box": _plain_box(row.box_xyxy), "iou": row.iou, "heads": row.heads} for row in rows]
    return {"title": run.against.title, "rows": plain, "scores": [_bar(bar) for bar in run.against.scores]}


def render(run: ReportRun, data: dict[str, Any]) -> str:
    """Put data, scripts and style into the template; the page itself allows only this very script."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    script = '(() => {\n"use strict";\n' + "\n".join(_asset(f"{name}.js") for name in SCRIPTS) + "})();\n"
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.html.j2").render(
        title=run.title,
        about=run.about,
        views=VIEWS,
        style="\n".join(_asset(f"{name}.css") for name in STYLES),
        data=script_safe_json(data),
        script=script,
        script_hash=digest,
    )


def _asset(name: str) -> str:
    return (_HERE / "static" / name).read_text(encoding="utf-8")
