"""Heads chosen with labels, as a reference: search, file, and a warning where they are used on their own rows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import numpy as np

from bbox import localize_each, smooth_maps
from lab.boxes import Box, box_ious
from lab.config.settings import Settings
from lab.heads.audit import HeadAudit
from lab.heads.heads_file import HeadsFile, write_heads_file
from lab.heads.label_search import NUM_CANDIDATES, best_set, search_sets
from lab.heads.labelled import (
    LabelledRows,
    hash_attention,
    hash_file,
    in_sample_warning,
    labelled_heads_file,
    split_of,
)
from lab.records import Grid
from stages.audit_outputs import AuditedRows
from stages.stored_attention import load_stored
from stages.survey import Unusable, attention_dirs, read_each

logger = logging.getLogger(__name__)

_Maps = tuple[np.ndarray, Grid, tuple[int, int], Box]


def warn_in_sample(heads_file: Optional[HeadsFile], audited: AuditedRows, settings: Settings) -> Optional[str]:
    """A sentence, logged as well, where the heads were chosen with labels on these rows; else None."""
    warning = in_sample_warning(heads_file, labelled_rows(audited, settings))
    if warning:
        logger.warning("%s", warning)
    return warning


def labelled_rows(audited: AuditedRows, settings: Settings) -> LabelledRows:
    """What identifies the rows that have a ground truth."""
    survey, truth_file = audited.survey, str(settings.data.ground_truth)
    ids = [survey.ids[row] for row in audited.rows]
    return LabelledRows(
        truth_file=truth_file,
        truth_sha256=hash_file(truth_file),
        attention_dirs=attention_dirs(settings),
        attention_sha256=hash_attention(ids, survey.scores.attn_sum[audited.rows]),
        split=split_of([truth.row for truth in audited.truths]),
        num_rows=len(ids),
        num_pictures=audited.num_pictures,
    )


def write_labelled(
    directory: Path, audit: HeadAudit, audited: AuditedRows, settings: Settings
) -> tuple[Path, list[str]]:
    """Search the sets of heads whose box fits the ground truth best, and write the best as a heads file.

    Args:
        directory: Where to write.
        audit: The audit; its heads of best own IoU are the candidates.
        audited: The rows.
        settings: The whole configuration.

    Returns:
        Path of the file, and a summary.
    """
    candidates = audit.ranked_heads()[:NUM_CANDIDATES]
    rows = _read_maps(audited, candidates, settings)
    mask = settings.logic.mask

    def mean_ious(sets: np.ndarray) -> np.ndarray:
        total = np.zeros(len(sets))
        for maps, grid, size, truth_xyxy in rows:
            sums = maps[sets].sum(axis=1)
            boxes = localize_each(sums, grid, size, region=mask.region, relative_threshold=mask.relative_threshold)[1]
            total += box_ious(boxes, np.array(truth_xyxy))
        return total / len(rows)

    found = search_sets(mean_ious, len(candidates))
    heads_file = labelled_heads_file(
        labelled_rows(audited, settings),
        found,
        candidates,
        top_k=settings.logic.top_k,
        shape=(audit.rank.shape[0], audit.rank.shape[1]),
        model_name=audited.survey.origin.model_name,
        template=audited.survey.origin.template,
    )
    path = directory / "labelled_heads.yaml"
    write_heads_file(path, heads_file)
    best = best_set(found)
    names = " ".join("L{}H{}".format(*candidates[member]) for member in best.members)
    return path, [
        f"labels  the best set of heads that labels find here, in-sample: {names}, mean IoU {best.mean_iou:.4f}"
    ]


def _read_maps(audited: AuditedRows, candidates: Sequence[tuple[int, int]], settings: Settings) -> list[_Maps]:
    """Smoothed maps of the candidates on every row, with what a box needs: a third reading, float32 to save memory."""
    layers, heads = np.array(candidates).T
    truths = {truth.id: truth.target_xyxy for truth in audited.truths}
    smoothing = settings.logic.smoothing

    def read(path: Path) -> _Maps:
        collected = load_stored(path)
        maps = collected.attention[layers, heads].reshape(-1, *collected.grid.shape)
        smoothed = smooth_maps(maps, sigma=smoothing.sigma, truncate=smoothing.truncate).astype(np.float32)
        return smoothed, collected.grid, collected.image_size_wh, truths[collected.sample.id]

    rows = []
    for found in read_each([audited.survey.sources[row].path for row in audited.rows], read, settings, "labels"):
        if isinstance(found, Unusable):
            raise ValueError(found.reason)
        rows.append(found)
    return rows
