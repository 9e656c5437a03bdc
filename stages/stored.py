"""A stored attention file -> results beside it."""

from __future__ import annotations

from lab.command_line.results import StageResult
from lab.config.settings import Settings
from lab.storage.attention_files import load_attention
from lab.storage.paths import OutputPaths, find_attention_file
from stages.plan import Steps, make_plan
from stages.sample import finish_sample
from stages.showing import show_and_describe


def run_stored(settings: Settings, steps: Steps) -> StageResult:
    """Finish a stored attention file; the results go beside it.

    Args:
        settings: The whole configuration.
        steps: Which results to make.

    Returns:
        What was found; the files are written on the way.
    """
    plan = make_plan(settings, steps)
    path = find_attention_file(settings.data.attention_file or "")
    collected = load_attention(path, settings.data.image_file)
    return show_and_describe(finish_sample(collected, plan, OutputPaths.beside(path, settings.logic.top_k)))
