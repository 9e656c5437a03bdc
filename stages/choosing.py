"""Attention of one sample -> the heads to use -> mask and box, as the settings say."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Optional

import numpy as np

from analyze import choose_heads, rank_heads, score_heads
from bbox import localize
from finer.edges import FractionalEdges
from lab.config.settings import MaskSettings, Settings
from lab.heads.head_scores import HeadTable
from lab.heads.head_sums import stored_sums
from lab.heads.heads_file import HeadsFile, check_heads_file
from lab.records import CollectedAttention, HeadChoice, HeadScore, Localization
from stages.plan import Plan, comparable_name, selection_rules

logger = logging.getLogger(__name__)


def score_sample(collected: CollectedAttention, settings: Settings) -> HeadTable:
    """Score every head of one sample by the two criteria, as the `logic` group says."""
    entropy = settings.logic.entropy
    return score_heads(
        collected.attention,
        collected.grid.shape,
        binarize_threshold=entropy.binarize_threshold,
        entropy_shares=entropy.shares,
        threshold_scale=entropy.threshold_scale,
        sums=stored_sums(collected.meta, collected.attention.shape[:2]),
    )


def rank_sample(table: HeadTable, settings: Settings) -> list[HeadScore]:
    """Rank the heads of one sample, best first, as the `logic` group says."""
    rules = selection_rules(settings)
    return rank_heads(
        table,
        threshold=rules.threshold_value,
        min_keep=rules.min_keep,
        skip_layers=rules.skip_layers,
        bottom_row_filter=rules.bottom_row_filter,
    )


def choose_for(
    collected: CollectedAttention, table: HeadTable, plan: Plan, ranked: Optional[Sequence[HeadScore]] = None
) -> HeadChoice:
    """Choose the heads to use for one sample: the plan's fixed ones, the manual ones that pass, or the best ranked.

    Args:
        collected: The sample's attention.
        table: The scores of its heads.
        plan: How to choose.
        ranked: The heads ranked by the same rules, where that is done already.

    Returns:
        The choice, with notes on all that did not go the plain way; they are logged, too.

    Raises:
        ValueError: The fixed heads were made for something else, or no head passes the filters.
    """
    overridden = _check_fixed_heads(collected, plan.heads_file, plan.settings.logic.force_heads_file)
    choice = choose_heads(
        table,
        rules=selection_rules(plan.settings),
        fixed_heads=plan.fixed_heads,
        manual_heads=plan.settings.logic.manual_head_indices,
        force_manual=plan.settings.logic.force_manual_heads,
        ranked=ranked,
    )
    level = logging.INFO if plan.settings.logic.manual_heads else logging.DEBUG
    for note in choice.notes:
        logger.log(level, "%s: %s", collected.sample.id, note)
    return dataclasses.replace(choice, notes=(*overridden, *choice.notes))


def _check_fixed_heads(collected: CollectedAttention, heads_file: HeadsFile | None, force: bool) -> tuple[str, ...]:
    """Compare the heads file with what the attention's metadata say; legacy metadata may not say it."""
    if heads_file is None:
        return ()
    meta = collected.meta
    return check_heads_file(
        heads_file,
        model_name=comparable_name(str(meta.get("model_name") or heads_file.model_name), heads_file),
        template=str(meta.get("prompt_template") or heads_file.template),
        num_layers=int(meta.get("num_layers") or collected.num_layers),
        num_heads=collected.num_heads,
        force=force,
    )


def localize_choice(collected: CollectedAttention, choice: HeadChoice, settings: Settings) -> Localization:
    """Turn the chosen heads' maps into mask and box, as the `logic` group says."""
    smoothing, mask = settings.logic.smoothing, settings.logic.mask
    return localize(
        chosen_maps(collected, choice),
        collected.grid,
        collected.image_size_wh,
        sigma=smoothing.sigma,
        truncate=smoothing.truncate,
        region=mask.region,
        relative_threshold=mask.relative_threshold,
        edges=fractional_edges(mask),
    )


def fractional_edges(mask: MaskSettings) -> Optional[FractionalEdges]:
    """How far edges of boxes move into their outer cells; None for boxes of whole cells."""
    return FractionalEdges(mask.edge_most, mask.edge_power) if mask.edges == "fractional" else None


def chosen_maps(collected: CollectedAttention, choice: HeadChoice) -> np.ndarray:
    """Maps `[K, rows, cols]` of the chosen heads, in their order."""
    layers, heads = zip(*choice.indices)
    return collected.attention[list(layers), list(heads)].reshape(-1, *collected.grid.shape)
