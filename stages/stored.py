"""A stored attention file -> results beside it."""

from __future__ import annotations

from command_line.results import StageResult
from lab.config.settings import Settings
from lab.storage.paths import OutputPaths, find_attention_file
from stages.earlier_results import refuse_to_overwrite, remove_of_other_settings
from stages.model_settings import settings_of_file
from stages.plan import Steps, make_plan
from stages.sample import finish_sample
from stages.showing import show_and_describe
from stages.stored_attention import load_stored


def run_stored(settings: Settings, steps: Steps) -> StageResult:
    """Finish a stored attention file with the settings of its own model; the results go beside it.

    Args:
        settings: The whole configuration.
        steps: Which results to make.

    Returns:
        What was found; the files are written on the way.

    Raises:
        ValueError: There are results of other settings beside the file, or it is of a model that is not known.
    """
    path = find_attention_file(settings.data.attention_file or "")
    collected = load_stored(path, settings.data.image_file)
    plan = make_plan(settings_of_file(collected.meta, settings, path), steps)
    paths = OutputPaths.beside(path, settings.logic.top_k)
    refuse_to_overwrite(plan, collected.sample, paths)
    remove_of_other_settings(plan, paths)
    return show_and_describe(finish_sample(collected, plan, paths))
