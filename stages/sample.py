"""Finishing one sample: attention -> heads -> box -> files, the same for one and for many."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from foreign_files.messages import shorten, shorten_path
from lab.config.errors import ConfigError
from lab.heads.head_sums import SUMS_KEY, sums_record
from lab.records import CollectedAttention, HeadChoice, HeadScore, Localization, Sample
from lab.storage import files
from lab.storage.attention_files import round_attention, save_attention
from lab.storage.paths import OutputPaths, is_file
from stages.choosing import choose_for, chosen_maps, localize_choice, rank_sample, score_sample, see
from stages.earlier_results import refuse_other_ranking
from stages.model_settings import META_KEY, record_model
from stages.plan import Plan, find_in_project
from stages.refining import refine_mask

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RECORDED_META_KEYS = (
    "model_name",
    "prompt_template",
    "generated_text",
    "unknown_words",
    "assumed",
    "image_bytes",
    "image_sha256",
)


@dataclass(frozen=True)
class ItemResult:
    """The results of one sample.

    Attributes:
        collected: Its attention, rounded to the stored dtype.
        ranked: Heads, best first; empty where no analysis was asked for.
        choice: The heads that were used, if any.
        localization: Where they look, if that was asked for.
        written: Paths of the files.
        figure: The figure, if it was asked to be kept.
    """

    collected: CollectedAttention
    ranked: tuple[HeadScore, ...] = ()
    choice: Optional[HeadChoice] = None
    localization: Optional[Localization] = None
    written: tuple[Path, ...] = ()
    figure: Optional[Figure] = None


def finish_sample(collected: CollectedAttention, plan: Plan, paths: OutputPaths) -> ItemResult:
    """Make and write all wanted results of one sample; the box comes last, and says that the sample is done.

    Args:
        collected: Its attention.
        plan: What to make, and how.
        paths: Where to write.

    Returns:
        The results.

    Raises:
        ValueError: No head passes the filters, or the image cannot be read.
    """
    steps = plan.steps
    result = ItemResult(_round(collected, plan.settings.storage.attention.dtype))
    written: list[Path] = []
    if steps.attention:
        written += _write_attention(result.collected, plan, paths)
    if steps.analysis or steps.box:
        result = _choose(result, plan)
    if steps.analysis:
        refuse_other_ranking(plan, result.ranked, paths)
        files.save_analysis(paths.analysis, result.ranked)
        written.append(paths.analysis)
    if result.choice is not None:
        result = _localize_and_draw(result, result.choice, plan, paths)
    return dataclasses.replace(result, written=(*written, *result.written))


def _round(collected: CollectedAttention, dtype: str) -> CollectedAttention:
    """Attention as it is stored; its sums from before, which decide between equal entropies, go into the meta."""
    meta = collected.meta
    if SUMS_KEY not in meta and meta.get("attn_dtype") == "float32":
        meta = {**meta, SUMS_KEY: sums_record(collected.attention)}
    return dataclasses.replace(collected, attention=round_attention(collected.attention, dtype), meta=meta)


def _choose(result: ItemResult, plan: Plan) -> ItemResult:
    """Score the heads; rank them for the analysis, and choose those to use for the box."""
    seen = see(result.collected, plan.settings)
    table = score_sample(seen, plan.settings)
    ranked = rank_sample(table, plan.settings) if plan.steps.analysis else None
    choice = choose_for(seen, table, plan, ranked) if plan.steps.box else None
    return dataclasses.replace(result, ranked=tuple(ranked or ()), choice=choice)


def _localize_and_draw(result: ItemResult, choice: HeadChoice, plan: Plan, paths: OutputPaths) -> ItemResult:
    """Make figure, mask and box of the chosen heads."""
    steps, collected = plan.steps, see(result.collected, plan.settings)
    localization, refined = refine_mask(
        collected, localize_choice(collected, choice, plan.settings), plan, lambda: _find_image(collected.sample)
    )
    figure: Optional[Figure] = None
    drawn: list[Path] = []
    if steps.figure or steps.show:
        figure = _draw(collected, choice, localization, plan)
        drawn = _write_figure(figure, plan, paths)
    files.save_mask_png(paths.mask, localization.mask)
    extra = {**_origin(collected, plan), **refined}
    files.save_bbox_json(paths.bbox_json, collected.sample, localization, choice, extra)
    written = (*drawn, paths.mask, paths.bbox_json)
    return dataclasses.replace(
        result, localization=localization, figure=figure if steps.show else None, written=written
    )


def _write_attention(collected: CollectedAttention, plan: Plan, paths: OutputPaths) -> list[Path]:
    storage = plan.settings.storage.attention
    meta = {**collected.meta, META_KEY: record_model(plan.settings.model)}
    collected = dataclasses.replace(collected, meta=meta)
    path = paths.attention(storage.compress)
    meta = save_attention(path, collected, dtype=storage.dtype, compress=storage.compress, level=storage.level)
    files.save_meta_json(paths.meta_json, meta)
    if not storage.keep_meta_pickle:
        return [path, paths.meta_json]
    files.save_meta_pickle(paths.meta_pickle, meta)
    return [path, paths.meta_json, paths.meta_pickle]


def _write_figure(figure: Figure, plan: Plan, paths: OutputPaths) -> list[Path]:
    from viz import write_formats

    return write_formats(figure, paths.figure(), plan.figure_formats)


def _draw(collected: CollectedAttention, choice: HeadChoice, localization: Localization, plan: Plan) -> Figure:
    from viz import draw_top_heads
    from vlm.images import load_image

    logic = plan.settings.logic
    return draw_top_heads(
        None,
        load_image(_find_image(collected.sample)),
        chosen_maps(collected, choice),
        collected.grid,
        choice,
        localization,
        collected.sample.query,
        sigma=logic.smoothing.sigma,
        truncate=logic.smoothing.truncate,
        truth_box_xyxy=collected.sample.truth_xyxy,
        model_name=str(collected.meta.get("model_name") or "") or None,
        top_k=logic.top_k,
        dpi=plan.settings.figures.dpi,
    )


def _find_image(sample: Sample) -> str:
    path = find_in_project(sample.image_file) if sample.image_file else ""
    if not is_file(path):
        raise ConfigError(
            f"Expected the image of {shorten(sample.id)} at {shorten_path(path or '(no path recorded)')}, but found "
            "none. Say where it is with data.image_file."
        )
    return path


def _origin(collected: CollectedAttention, plan: Plan) -> dict[str, object]:
    """What the box's record says of its making."""
    meta = collected.meta
    return {**{key: meta[key] for key in _RECORDED_META_KEYS if meta.get(key)}, "run": plan.fingerprint}
