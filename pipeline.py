"""The command line: a table of stages."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Callable, Optional

<<<<<<< HEAD
from lab.command_line.program import run_program
from lab.command_line.results import StageResult
from lab.config.settings import Settings
from stages.loading import CollectorLoader, load_collector
=======
from lab.command_line.quoting import quote_text_values
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
>>>>>>> 9781467


def collect(settings: Settings, load: CollectorLoader) -> StageResult:
    """One image, one query -> attention file."""
    from stages.collect import run_collect

    return run_collect(settings, load)


def analyze(settings: Settings, load: CollectorLoader) -> StageResult:
    """Attention file -> ranked heads beside it."""
    from stages.analyze import run_analyze

    return run_analyze(settings)


def visualize(settings: Settings, load: CollectorLoader) -> StageResult:
    """Attention file -> figure, mask and box beside it."""
    from stages.visualize import run_visualize

    return run_visualize(settings)


def pipeline(settings: Settings, load: CollectorLoader) -> StageResult:
    """One image, one query -> attention file, ranked heads, figure, mask and box."""
    from stages.pipeline import run_pipeline

    return run_pipeline(settings, load)


def batch(settings: Settings, load: CollectorLoader) -> StageResult:
    """JSONL file -> the results of each row; finished rows are skipped, failed ones recorded."""
    from stages.batch import run_batch

    return run_batch(settings, load)


def batch_analyze(settings: Settings, load: CollectorLoader) -> StageResult:
    """Directories of attention files -> the heads that the data set chooses, checked against boxes if there are any."""
    from stages.batch_analyze import run_batch_analyze

    return run_batch_analyze(settings)


# What a stage needs is imported when it is run: the help page starts at once.
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


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; None for those of the process.

    Returns:
        Exit status: 0, 1 where a stage or a row failed, 2 where the configuration is wrong.
    """
    return run_program(run, arguments)


if __name__ == "__main__":
    sys.exit(main())
