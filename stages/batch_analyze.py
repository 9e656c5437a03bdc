"""Stage `batch_analyze`: directories of attention files -> the heads that the data set chooses, checked on boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import numpy as np

from analyze import resample_frequency, run_trials, select_dataset_heads
from command_line.results import StageResult
from lab.config.settings import Settings
from lab.heads.head_scores import DatasetSelection
from lab.heads.head_sums import count_ties
from lab.heads.heads_file import hash_inputs
from lab.heads.selection_records import SelectionSpread
from lab.heads.trials import TrialStatistics, trial_indices
from stages.audit import check_against_truth, heads_in_use
from stages.earlier_selections import refuse_to_overwrite_selection, remove_earlier_selection
from stages.plan import selection_rules
from stages.selection_figures import SelectionDrawing, draw_selection
from stages.selection_outputs import describe_selection, write_selection
from stages.summaries import describe_files
from stages.survey import Survey, attention_dirs, read_survey, settings_of_survey


def run_batch_analyze(settings: Settings) -> StageResult:
    """Choose a model's heads over directories of attention files, and check them against boxes if there are any.

    The files are read one after the other and only the scores of their heads are kept; with ground truth they are read
    a second time.

    Args:
        settings: The whole configuration.

    Returns:
        What was found; files and figures are written on the way.

    Raises:
        ValueError: There is no usable file, the files are of several models, or results of other settings are there.
    """
    survey = read_survey(settings)
    directory = Path(settings.data.analysis_dir or attention_dirs(settings)[0])
    settings = settings_of_survey(survey, settings)
    refuse_to_overwrite_selection(directory, settings)
    selection = select_dataset_heads(survey.scores, selection_rules(settings))
    used, spread = heads_in_use(settings, selection), _spread(survey, selection, settings)
    remove_earlier_selection(directory)
    digest = hash_inputs(survey.ids, survey.scores)
    written = write_selection(directory, survey, selection, spread, digest, settings.logic)
    if settings.save_fig:
        drawing = SelectionDrawing(directory, survey, selection, spread, used, settings.figures)
        written += draw_selection(drawing)
    lines = describe_selection(survey, selection, spread)
    scores: dict[str, Any] = {
        "heads": " ".join(f"L{layer}H{head}" for layer, head in selection.heads),
        "threshold": selection.common_threshold,
    }
    if settings.data.ground_truth is not None:
        check = check_against_truth(survey, selection, settings, directory)
        written, lines, scores = [*written, *check.written], [*lines, *check.lines], {**scores, **check.scores}
    return StageResult((*lines, *describe_files(written)), survey.failed, scores)


def _spread(survey: Survey, selection: DatasetSelection, settings: Settings) -> SelectionSpread:
    """How sure the choice is: pictures drawn again, ties, and trials."""
    return SelectionSpread(
        resample_frequency(survey.scores, selection, survey.pictures),
        count_ties(survey.scores, selection.rules, selection.thresholds, survey.sum_precision),
        _compare_trials(survey, settings),
    )


def _compare_trials(survey: Survey, settings: Settings) -> Optional[TrialStatistics]:
    """Compare parts or draws of the pictures (`data.trials`) or, without, the directories; None where there is one."""
    data = settings.data
    if data.trials > 1:
        trials = trial_indices(survey.pictures, data.trials, trial_size=data.trial_size, seed=data.trial_seed)
    else:
        trials = [np.flatnonzero(survey.directory_of == number) for number in np.unique(survey.directory_of)]
    return run_trials(survey.scores, selection_rules(settings), trials) if len(trials) > 1 else None
