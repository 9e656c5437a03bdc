"""One flow for one sample and for many: attention -> heads -> box -> files."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol, Union

from lab.config.settings import PROJECT_ROOT, ConfigError, ModelSettings, Settings, model_directory_name
from lab.datasets.rows import RowFailure
from lab.records import CollectedAttention, HeadChoice, HeadScore, Localization, Sample
from lab.storage import files
from lab.storage.attention_files import round_attention, save_attention
from lab.storage.background import map_in_background
from lab.storage.paths import OutputPaths
from lab.storage.run_state import fingerprint

if TYPE_CHECKING:
    import numpy as np

    from lab.heads.head_scores import SelectionRules
    from lab.heads.heads_file import HeadsFile

logger = logging.getLogger(__name__)

SHAPING_MODEL_KEYS = (
    "name",
    "revision",
    "dtype",
    "conv_mode",
    "use_generate",
    "max_new_tokens",
    "do_sample",
    "num_beams",
)
_RECORDED_META_KEYS = ("model_name", "prompt_template", "generated_text", "unknown_words", "assumed")


class Collector(Protocol):
    """What `collector.AttentionCollector` does; tests put a fake in its place."""

    def collect(self, samples: Iterable[Sample]) -> Iterator[Any]:
        """Yield a `CollectedAttention`, or a failure with `sample` and `reason`, for each sample in order."""
        ...


class StageModules(Protocol):
    """The stage modules, imported when first asked for; `pipeline.py` hands them over, since `lab/` imports none."""

    @property
    def analyze(self) -> Any:
        """Scores and chooses heads."""

    @property
    def bbox(self) -> Any:
        """Makes masks and boxes."""

    @property
    def viz(self) -> Any:
        """Draws."""

    @property
    def evaluate_boxes(self) -> Any:
        """Measures against ground truth."""


CollectorLoader = Callable[[ModelSettings, Optional[int]], Collector]
Outcome = Union["ItemResult", RowFailure]


@dataclass(frozen=True)
class Steps:
    """Which results are made of a sample's attention.

    Attributes:
        attention: Write the attention file and its metadata.
        analysis: Write the ranked heads.
        box: Write mask and box.
        figure: Write the figure.
        show: Draw the figure and keep it.
    """

    attention: bool = False
    analysis: bool = False
    box: bool = False
    figure: bool = False
    show: bool = False


@dataclass(frozen=True)
class Plan:
    """All that finishing a sample needs to know.

    Attributes:
        settings: The whole configuration.
        steps: Which results to make.
        modules: The stage modules that make them.
        fixed_heads: (layer, head) of the heads to use unchanged, or None to choose them.
        heads_file: The file that names them, if any.
    """

    settings: Settings
    steps: Steps
    modules: StageModules
    fixed_heads: Optional[tuple[tuple[int, int], ...]] = None
    heads_file: Optional[HeadsFile] = None

    @property
    def stop_layer(self) -> Optional[int]:
        """The deepest fixed head's layer, where nothing deeper is wanted; else None."""
        model = self.settings.model
        wants_all = self.steps.attention or self.steps.analysis or model.use_generate
        if self.fixed_heads is None or wants_all or not model.early_exit:
            return None
        return max(layer for layer, _ in self.fixed_heads)

    @property
    def shaping(self) -> dict[str, Any]:
        """The settings that results depend on, as dotted keys with plain values."""
        settings = self.settings
        logic = dataclasses.asdict(settings.logic)
        del logic["heads_file"], logic["force_heads_file"], logic["audit_margin"]
        heads = self.fixed_heads
        logic["fixed_heads"] = None if heads is None else [f"L{layer}H{head}" for layer, head in heads]
        model = {key: getattr(settings.model, key) for key in SHAPING_MODEL_KEYS}
        storage = {"attention": {"dtype": settings.storage.attention.dtype}}
        return dict(_flatten({"model": model, "logic": logic, "storage": storage}))

    @property
    def fingerprint(self) -> str:
        """Hash of the settings that results depend on; each result carries it."""
        return fingerprint(self.shaping)


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
    figure: Any = None


def make_plan(settings: Settings, steps: Steps, modules: StageModules) -> Plan:
    """Read the heads file, if there is one and boxes are wanted, and refuse one that was made for something else.

    Args:
        settings: The whole configuration.
        steps: Which results to make.
        modules: The stage modules that make them.

    Returns:
        The plan.

    Raises:
        ValueError: The heads file is unreadable, too short, or made for another model or template.
    """
    if not steps.box or settings.logic.heads_file is None:
        return Plan(settings, steps, modules)
    from lab.heads.heads_file import check_heads_file, read_heads_file

    heads_file = read_heads_file(find_in_project(settings.logic.heads_file))
    if settings.stage in {"pipeline", "batch"}:  # other stages check what the attention file says
        check_heads_file(
            heads_file,
            model_name=_comparable_name(settings.model.name, heads_file),
            template=settings.model.conv_mode,
            num_layers=heads_file.num_layers,
            num_heads=heads_file.num_heads,
            force=settings.logic.force_heads_file,
        )
    return Plan(settings, steps, modules, heads_file.first(settings.logic.top_k), heads_file)


def find_in_project(path: str) -> str:
    """Give a relative path that exists only from the project's root as a path from there; any other as it is."""
    from_root = PROJECT_ROOT / path
    return str(from_root) if not Path(path).exists() and from_root.exists() else path


def run_samples(samples: Sequence[Sample], plan: Plan, collector: Collector) -> Generator[Outcome, None, None]:
    """Collect attention in this thread and finish it in background threads.

    Args:
        samples: What to ask of which image.
        plan: What to make, and how.
        collector: Runs the model.

    Yields:
        The results or the failure of each sample, in order.

    Raises:
        OSError: Results cannot be written; samples that were begun are finished first.
    """

    def finish(outcome: Any) -> Outcome:
        return _finish_or_fail(outcome, plan)

    yield from map_in_background(finish, collector.collect(samples), workers=plan.settings.storage.workers)


def _finish_or_fail(outcome: Any, plan: Plan) -> Outcome:
    """Make all results of what the collector gave for one sample; its failure must not stop the others."""
    sample = outcome.sample
    if not isinstance(outcome, CollectedAttention):
        return RowFailure(sample.line_number, sample.id, outcome.reason)
    try:
        paths = OutputPaths(plan.settings.result_dir, sample.id, plan.settings.logic.top_k)
        return finish_sample(outcome, plan, paths)
    except OSError:  # such as a full disk, which fails every sample that follows
        raise
    except ValueError as error:
        return RowFailure(sample.line_number, sample.id, str(error))
    except Exception as error:
        logger.exception("Sample %r failed in a way that should not happen.", sample.id)
        return RowFailure(sample.line_number, sample.id, f"{type(error).__name__}: {error}")


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
    rounded = round_attention(collected.attention, plan.settings.storage.attention.dtype)
    result = ItemResult(dataclasses.replace(collected, attention=rounded))
    written: list[Path] = []
    if steps.attention:
        written += _write_attention(result, plan, paths)
    if steps.analysis or steps.box:
        result = _choose(result, plan)
    if steps.analysis:
        files.save_analysis(paths.analysis, result.ranked)
        written.append(paths.analysis)
    if steps.box:
        result = dataclasses.replace(result, localization=localize_choice(result.collected, result.choice, plan))
    if steps.figure or steps.show:
        result = dataclasses.replace(result, figure=_draw(result, plan, paths))
    if steps.figure:
        written.append(paths.figure)
    if steps.box:
        written += _write_box(result, plan, paths)
    return dataclasses.replace(result, written=tuple(written))


# --------------------------------------------------------------------------------------------------------------------
# Heads and box
# --------------------------------------------------------------------------------------------------------------------


def selection_rules(settings: Settings) -> SelectionRules:
    """Turn the `logic` group into the rules of `analyze`."""
    from lab.heads.head_scores import SelectionRules

    logic = settings.logic
    return SelectionRules(
        top_k=logic.top_k,
        min_keep=logic.threshold.min_keep,
        skip_layers=logic.skip_layers,
        bottom_row_filter=logic.bottom_row_filter,
        binarize_threshold=logic.entropy.binarize_threshold,
        entropy_shares=logic.entropy.shares,
        threshold_method=logic.threshold.method,
        threshold_value=logic.threshold.value,
        threshold_scope=logic.threshold.scope,
        lowest_n=logic.lowest_n,
    )


def _choose(result: ItemResult, plan: Plan) -> ItemResult:
    """Score the heads; rank them for the analysis, and choose those to use for the box."""
    analyze = plan.modules.analyze
    rules, collected = selection_rules(plan.settings), result.collected
    table = analyze.score_heads(
        collected.attention,
        collected.grid.shape,
        binarize_threshold=rules.binarize_threshold,
        entropy_shares=rules.entropy_shares,
    )
    ranked: Optional[Sequence[HeadScore]] = None
    if plan.steps.analysis:
        ranked = analyze.rank_heads(
            table,
            threshold=rules.threshold_value,
            min_keep=rules.min_keep,
            skip_layers=rules.skip_layers,
            bottom_row_filter=rules.bottom_row_filter,
        )
    choice = choose_for(collected, table, plan, ranked) if plan.steps.box else None
    return dataclasses.replace(result, ranked=tuple(ranked or ()), choice=choice)


def choose_for(
    collected: CollectedAttention, table: Any, plan: Plan, ranked: Optional[Sequence[HeadScore]] = None
) -> HeadChoice:
    """Choose the heads to use for one sample: the plan's fixed ones, the manual ones that pass, or the best ranked.

    Args:
        collected: The sample's attention.
        table: The scores of its heads, `lab.heads.head_scores.HeadTable`.
        plan: How to choose.
        ranked: The heads ranked by the same rules, where that is done already.

    Returns:
        The choice, with notes on all that did not go the plain way; they are logged, too.

    Raises:
        ValueError: The fixed heads were made for something else, or no head passes the filters.
    """
    overridden = _check_fixed_heads(collected, plan.heads_file, plan.settings.logic.force_heads_file)
    choice = plan.modules.analyze.choose_heads(
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
    from lab.heads.heads_file import check_heads_file

    meta = collected.meta
    return check_heads_file(
        heads_file,
        model_name=_comparable_name(str(meta.get("model_name") or heads_file.model_name), heads_file),
        template=str(meta.get("prompt_template") or heads_file.template),
        num_layers=int(meta.get("num_layers") or collected.num_layers),
        num_heads=collected.num_heads,
        force=force,
    )


def _comparable_name(name: str, heads_file: HeadsFile) -> str:
    """A model's name; spelt as in the heads file where both name the same directory of results."""
    same = model_directory_name(name) == model_directory_name(heads_file.model_name)
    return heads_file.model_name if same else name


def localize_choice(collected: CollectedAttention, choice: HeadChoice | None, plan: Plan) -> Localization:
    """Turn the chosen heads' maps into mask and box, as the `logic` group says."""
    smoothing, mask = plan.settings.logic.smoothing, plan.settings.logic.mask
    return plan.modules.bbox.localize(
        _chosen_maps(collected, choice),
        collected.grid,
        collected.image_size_wh,
        sigma=smoothing.sigma,
        truncate=smoothing.truncate,
        region=mask.region,
        relative_threshold=mask.relative_threshold,
    )


def _chosen_maps(collected: CollectedAttention, choice: HeadChoice | None) -> np.ndarray:
    """Maps `[K, rows, cols]` of the chosen heads, in their order."""
    assert choice is not None, "boxes and figures are made of chosen heads"
    layers, heads = zip(*choice.indices)
    return collected.attention[list(layers), list(heads)].reshape(-1, *collected.grid.shape)


# --------------------------------------------------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------------------------------------------------


def _write_attention(result: ItemResult, plan: Plan, paths: OutputPaths) -> list[Path]:
    storage = plan.settings.storage.attention
    path = paths.attention(storage.compress)
    meta = save_attention(path, result.collected, dtype=storage.dtype, compress=storage.compress, level=storage.level)
    files.save_meta_json(paths.meta_json, meta)
    if not storage.keep_meta_pickle:
        return [path, paths.meta_json]
    files.save_meta_pickle(paths.meta_pickle, meta)
    return [path, paths.meta_json, paths.meta_pickle]


def _draw(result: ItemResult, plan: Plan, paths: OutputPaths) -> Any:
    """Draw the figure, and write it if wanted; it is given back only if it is to be shown."""
    from llava.mm_utils import load_image

    assert result.choice is not None, "a figure shows chosen heads"
    assert result.localization is not None, "a figure shows a box"
    collected, smoothing = result.collected, plan.settings.logic.smoothing
    image = load_image(_find_image(collected.sample))
    figure = plan.modules.viz.draw_top_heads(
        paths.figure if plan.steps.figure else None,
        image,
        _chosen_maps(collected, result.choice),
        collected.grid,
        result.choice,
        result.localization,
        collected.sample.query,
        sigma=smoothing.sigma,
        truncate=smoothing.truncate,
        model_name=str(collected.meta.get("model_name") or "") or None,
    )
    return figure if plan.steps.show else None


def _find_image(sample: Sample) -> str:
    path = find_in_project(sample.image_file) if sample.image_file else ""
    if not Path(path).is_file():
        raise ConfigError(
            f"Expected the image of {sample.id!r} at {path or '(no path recorded)'!r}, but found none. "
            "Say where it is with data.image_file."
        )
    return path


def _write_box(result: ItemResult, plan: Plan, paths: OutputPaths) -> list[Path]:
    assert result.choice is not None, "a box is made of chosen heads"
    assert result.localization is not None, "a box is asked for"
    meta = result.collected.meta
    extra = {key: meta[key] for key in _RECORDED_META_KEYS if meta.get(key)}
    extra["run"] = plan.fingerprint
    files.save_mask_png(paths.mask, result.localization.mask)
    files.save_bbox_json(paths.bbox_json, result.collected.sample, result.localization, result.choice, extra)
    return [paths.mask, paths.bbox_json]


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
