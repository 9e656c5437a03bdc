"""Hydra entry point: a table of stages, one short function each."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Optional

from lab.command_line.quoting import quote_text_values
from lab.config.composing import check_arguments, composing
from lab.config.help_page import help_text
from lab.config.schema import explain, register_schema, text_keys, validate
from lab.config.settings import PROJECT_ROOT, ConfigError, ModelSettings, Settings
from lab.datasets.rows import RowFailure, RowFields, group_by_image, read_rows
from lab.records import Sample
from lab.storage import files
from lab.storage.attention_files import load_attention
from lab.storage.paths import OutputPaths, find_attention_file
from lab.storage.run_state import FailureLog, WantedFiles, claim_directory, find_finished
from stages.flow import (
    Collector,
    CollectorLoader,
    ItemResult,
    Plan,
    Steps,
    find_in_project,
    finish_sample,
    make_plan,
    run_samples,
)
from stages.summaries import (
    BatchCounts,
    describe_batch,
    describe_box,
    describe_choice,
    describe_files,
    describe_ranking,
    describe_sample,
    describe_sweep,
)

logger = logging.getLogger(__name__)

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130


class StageModules:
    """The stage modules that the flow in `lab/` works with, each imported when it is first asked for."""

    @property
    def analyze(self) -> ModuleType:
        """Scores and chooses heads."""
        import analyze

        return analyze

    @property
    def bbox(self) -> ModuleType:
        """Makes masks and boxes."""
        import bbox

        return bbox

    @property
    def viz(self) -> ModuleType:
        """Draws; brings matplotlib along."""
        import viz

        return viz

    @property
    def evaluate_boxes(self) -> ModuleType:
        """Measures against ground truth."""
        import evaluate_boxes

        return evaluate_boxes


def load_collector(model: ModelSettings, stop_layer: Optional[int] = None) -> Collector:
    """Load the model, and make the collector that runs it.

    Args:
        model: Which checkpoint, and how it runs.
        stop_layer: Deepest layer that is wanted; None for all.

    Returns:
        The collector.
    """
    from llava.model.checkpoint_files import export_cache_dir

    export_cache_dir(model.cache_dir)  # transformers reads it when it is imported, below
    from collector import AttentionCollector
    from llava.model.builder import load_llava

    bundle = load_llava(
        find_in_project(model.name),
        cache_dir=model.cache_dir,
        revision=model.revision,
        device=model.device,
        device_id=model.device_id,
        dtype=model.dtype,
        conv_mode=model.conv_mode,
        use_flash_attn=model.use_flash_attn,
        prefill_attention=model.prefill_attention,
    )
    return AttentionCollector(
        bundle,
        batch_size=model.batch_size,
        use_generate=model.use_generate,
        max_new_tokens=model.max_new_tokens,
        do_sample=model.do_sample,
        num_beams=model.num_beams,
        stop_layer=stop_layer,
    )


@dataclass(frozen=True)
class StageResult:
    """What a stage found, for people and for the table of a sweep.

    Attributes:
        lines: Readable summary.
        failed: Number of rows without a result.
        scores: Named values; a sweep lists them by job.
    """

    lines: tuple[str, ...]
    failed: int = 0
    scores: Mapping[str, Any] = field(default_factory=dict)


# --------------------------------------------------------------------------------------------------------------------
# Stages
# --------------------------------------------------------------------------------------------------------------------


def collect(settings: Settings, load: CollectorLoader) -> StageResult:
    """One image, one query -> attention file."""
    return _run_single(settings, load, Steps(attention=True))


def pipeline(settings: Settings, load: CollectorLoader) -> StageResult:
    """One image, one query -> attention file, ranked heads, figure, mask and box."""
    save = settings.storage.attention.save
    steps = Steps(attention=save, analysis=True, box=True, figure=settings.save_fig, show=settings.show_plot)
    return _run_single(settings, load, steps)


def analyze(settings: Settings, load: CollectorLoader) -> StageResult:
    """Attention file -> ranked heads beside it."""
    return _run_stored(settings, Steps(analysis=True))


def visualize(settings: Settings, load: CollectorLoader) -> StageResult:
    """Attention file -> figure, mask and box beside it."""
    return _run_stored(settings, Steps(box=True, figure=settings.save_fig, show=settings.show_plot))


def batch(settings: Settings, load: CollectorLoader) -> StageResult:
    """JSONL file -> the results of each row; finished rows are skipped, failed ones recorded."""
    data = settings.data
    plan = make_plan(settings, _batch_steps(settings), StageModules())
    fields = RowFields(data.id_field, data.prompt_field, data.image_field)
    rows = read_rows(data.data_file or "", fields, data.start_index, data.end_index)
    finished = _prepare_directory(plan, rows.samples)
    pending = group_by_image(sample for sample in rows.samples if sample.id not in finished)
    failures = FailureLog(settings.result_dir, str(data.data_file))
    failures.forget([sample.line_number for sample in rows.samples])
    failures.forget([failure.line_number for failure in rows.failures])
    for failure in rows.failures:
        _record_failure(failure, failures, data.strict)
    collector = load(settings.model, plan.stop_layer) if pending else None
    started = time.perf_counter()
    failed, sources = _run_batch(pending, plan, collector, failures) if collector else (0, Counter())
    counts = BatchCounts(
        done=len(pending) - failed,
        skipped=len(finished),
        failed=failed + len(rows.failures),
        seconds=time.perf_counter() - started,
        sources=dict(sources),
    )
    return StageResult(tuple(describe_batch(counts, settings.result_dir, failures.path)), counts.failed)


def batch_analyze(settings: Settings, load: CollectorLoader) -> StageResult:
    """Directories of attention files -> the heads that the data set chooses, checked against boxes if there are any."""
    from stages.survey import survey_attention

    found = survey_attention(settings, StageModules())
    return StageResult(found.lines, found.failed, found.scores)


STAGES: dict[str, Callable[[Settings, CollectorLoader], StageResult]] = {
    "collect": collect,
    "analyze": analyze,
    "visualize": visualize,
    "pipeline": pipeline,
    "batch": batch,
    "batch_analyze": batch_analyze,
}


def run(settings: Settings, load: CollectorLoader = load_collector) -> StageResult:
    """Run the stage that the settings name.

    Args:
        settings: The whole configuration.
        load: Makes the collector; only stages that run the model call it.

    Returns:
        What the stage found.
    """
    return STAGES[settings.stage](settings, load)


# --------------------------------------------------------------------------------------------------------------------
# Single runs
# --------------------------------------------------------------------------------------------------------------------


def single_id(settings: Settings) -> str:
    """Name a single run's files: `data.save_id`, or the image's name with the query.

    The query is spelt in lower case with hyphens. Where that loses something (a full stop, a capital, length), six
    digits of its hash follow, since another query must not overwrite the files.
    """
    data = settings.data
    if data.save_id is not None:
        return data.save_id
    query = data.query or ""
    slug = re.sub(r"[^a-z0-9]+", "-", query.lower()).strip("-")[:60].strip("-")
    if slug.replace("-", " ") != query:
        digest = hashlib.sha256(query.encode("utf-8", "surrogatepass")).hexdigest()[:6]
        slug = f"{slug}-{digest}".lstrip("-")
    return f"{Path(data.image_file or '').stem}_{slug}"


def _run_single(settings: Settings, load: CollectorLoader, steps: Steps) -> StageResult:
    """A batch of one, whose failure is an error."""
    plan = make_plan(settings, steps, StageModules())
    sample = Sample(single_id(settings), settings.data.image_file or "", settings.data.query or "")
    with closing(run_samples([sample], plan, load(settings.model, plan.stop_layer))) as results:
        result = next(results)
    if isinstance(result, RowFailure):
        raise ValueError(result.reason)
    return _show_and_describe(result)


def _run_stored(settings: Settings, steps: Steps) -> StageResult:
    """Finish a stored attention file; the results go beside it."""
    plan = make_plan(settings, steps, StageModules())
    path = find_attention_file(settings.data.attention_file or "")
    collected = load_attention(path, settings.data.image_file)
    return _show_and_describe(finish_sample(collected, plan, OutputPaths.beside(path, settings.logic.top_k)))


def _show_and_describe(result: ItemResult) -> StageResult:
    lines = describe_sample(result.collected)
    if result.choice is None:
        lines += describe_ranking(result.ranked)
    else:
        lines += describe_choice(result.choice)
    if result.localization is not None:
        lines.append(describe_box(result.localization))
    if result.figure is not None:
        from viz import show

        show(result.figure)
    return StageResult((*lines, *describe_files(result.written)))


# --------------------------------------------------------------------------------------------------------------------
# Batches
# --------------------------------------------------------------------------------------------------------------------


def _batch_steps(settings: Settings) -> Steps:
    """Ranked heads go with attention files: a run for boxes alone needs none and, stopping early, sees only some."""
    save = settings.storage.attention.save
    return Steps(attention=save, analysis=save, box=True, figure=settings.data.visualize_batch)


def _prepare_directory(plan: Plan, samples: Sequence[Sample]) -> frozenset[str]:
    """Claim the directory for these settings, clear what a killed run left, and find the ids that are finished."""
    settings = plan.settings
    directory, top_k, overwrite = settings.result_dir, settings.logic.top_k, settings.data.overwrite
    claim_directory(directory, plan.shaping, overwrite)
    finished: frozenset[str] = frozenset()
    if not overwrite:
        wanted = WantedFiles(plan.steps.attention, plan.steps.figure)
        finished = find_finished(directory, samples, plan.fingerprint, wanted, top_k)
    pending = [OutputPaths(directory, sample.id, top_k) for sample in samples if sample.id not in finished]
    for wanted_paths in pending:  # a sample that is being redone is not done, should this run be stopped
        wanted_paths.bbox_json.unlink(missing_ok=True)
    files.remove_partial_files(directory, (path for wanted_paths in pending for path in wanted_paths.all_paths()))
    return finished


def _run_batch(
    pending: Sequence[Sample], plan: Plan, collector: Collector, failures: FailureLog
) -> tuple[int, Counter[str]]:
    """Run the samples under a progress bar; count the failures, and where the others' heads came from."""
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    failed, sources = 0, Counter[str]()
    with closing(run_samples(pending, plan, collector)) as results, logging_redirect_tqdm():
        for result in tqdm(results, total=len(pending), unit="row", desc="batch", smoothing=0.05):
            if isinstance(result, RowFailure):
                failed += 1
                _record_failure(result, failures, plan.settings.data.strict)
            elif result.choice is not None:
                sources[result.choice.source] += 1
    return failed, sources


def _record_failure(failure: RowFailure, failures: FailureLog, strict: bool) -> None:
    failures.add(failure)
    where = f"line {failure.line_number}" + ("" if failure.id is None else f", id {failure.id!r}")
    if strict:
        raise ValueError(f"Stopped at the first row that failed, as data.strict=true asks ({where}): {failure.reason}")
    logger.warning("No result for %s: %s", where, failure.reason)


# --------------------------------------------------------------------------------------------------------------------
# Command line
# --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One run of a stage: the only one, or one of a sweep.

    Attributes:
        overrides: What the command line set for it.
        exit_status: 0, or what went wrong.
        result: What the stage found, if it came to an end.
    """

    overrides: tuple[str, ...]
    exit_status: int
    result: Optional[StageResult] = None


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; None for those of the process.

    Returns:
        Exit status: 0, 1 where a stage or a row failed, 2 where the configuration is wrong.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    full_error = bool(os.environ.get("HYDRA_FULL_ERROR"))
    jobs: list[Job] = []
    try:
        _run_hydra(lambda cfg: jobs.append(_run_job(cfg, full_error)), arguments)
    except KeyboardInterrupt:
        print("Stopped. The same command goes on where it was.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        if full_error or not _is_config_error(error):
            raise
        print(f"error: {explain(error)}", file=sys.stderr)
        return EXIT_USAGE
    if len(jobs) > 1:
        scores = [None if job.result is None else job.result.scores for job in jobs]
        print("\n".join(["", *describe_sweep([job.overrides for job in jobs], scores)]))
    return max((job.exit_status for job in jobs), default=EXIT_OK)


def _run_hydra(task: Callable[[Any], None], arguments: Sequence[str]) -> None:
    """Let Hydra compose the configuration and call the task: once, or for each job of a sweep."""
    import hydra

    config_dir = PROJECT_ROOT / "conf"
    check_arguments(arguments)
    quoted = quote_text_values(arguments, text_keys())
    overrides = [argument for argument in quoted if argument not in {"--help", "-h"}]
    if len(overrides) < len(quoted) and not any(argument.startswith("-") for argument in overrides):
        with composing(task):
            print(help_text(overrides, config_dir))
        return
    register_schema()
    with composing(task) as watched, _hydra_process_state(["pipeline.py", *quoted]):
        hydra.main(version_base="1.3", config_path=str(config_dir), config_name="config")(watched)()


@contextmanager
def _hydra_process_state(argv: list[str]) -> Iterator[None]:
    """Hand Hydra its arguments, and make it raise errors instead of printing them in its own way."""
    before = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = argv, "1"
    try:
        yield
    finally:
        sys.argv = before[0]
        if before[1] is None:
            del os.environ["HYDRA_FULL_ERROR"]


def _is_config_error(error: Exception) -> bool:
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    return isinstance(error, (HydraException, OmegaConfBaseException, YAMLError, ConfigError))


def _run_job(cfg: Any, full_error: bool) -> Job:
    """Run one job, and say in one line what went wrong, if anything did."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    listed: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)  # with `${...}` as typed
    overrides = tuple(listed)
    try:
        result = run(_keep_sweep_apart(validate(cfg)))
    except (ValueError, OSError, ImportError) as error:
        if full_error:
            raise
        logger.debug("The stage failed.", exc_info=True)
        print(f"error: {error}", file=sys.stderr)
        return Job(overrides, EXIT_USAGE if isinstance(error, ConfigError) else EXIT_FAILED)
    print("\n".join(result.lines))
    return Job(overrides, EXIT_FAILED if result.failed else EXIT_OK, result)


def _keep_sweep_apart(settings: Settings) -> Settings:
    """In a sweep, let each job's data set analysis go to the job's own directory, unless told otherwise."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra_settings = HydraConfig.get()
    if hydra_settings.mode != RunMode.MULTIRUN or settings.data.analysis_dir is not None:
        return settings
    return replace(settings, data=replace(settings.data, analysis_dir=hydra_settings.runtime.output_dir))


if __name__ == "__main__":
    sys.exit(main())
