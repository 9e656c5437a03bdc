"""A single run: a batch of one, whose failure is an error."""

from __future__ import annotations

import hashlib
import logging
import re
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from pathlib import Path

from command_line.results import StageResult
from lab.config.settings import Settings
from lab.datasets.rows import RowFailure, check_encodable, trim_query
from lab.records import Sample
from lab.storage.claims import claim_rows
from lab.storage.paths import OutputPaths, safe_name
from stages.earlier_results import refuse_to_overwrite, remove_stale
from stages.loading import CollectorLoader
from stages.plan import Plan, Steps, make_plan
from stages.running import Outcome, run_samples
from stages.showing import show_and_describe

logger = logging.getLogger(__name__)


def run_single(settings: Settings, load: CollectorLoader, steps: Steps) -> StageResult:
    """Ask one thing of one image.

    Args:
        settings: The whole configuration.
        load: Makes the collector.
        steps: Which results to make.

    Returns:
        What was found; the files are written on the way.

    Raises:
        ValueError: The sample failed, or there are results of something else under its name.
    """
    settings = _trim_query(settings)
    plan = make_plan(settings, steps)
    sample = Sample(single_id(settings), settings.data.image_file or "", settings.data.query or "")
    with _claim(settings.result_dir, sample):
        result = _run_one(sample, plan, load)
    if isinstance(result, RowFailure):
        raise ValueError(result.reason)
    return show_and_describe(result)


def _run_one(sample: Sample, plan: Plan, load: CollectorLoader) -> Outcome:
    settings = plan.settings
    paths = OutputPaths.of_sample(settings.result_dir, sample, settings.logic.top_k)
    refuse_to_overwrite(plan, sample, paths)
    collector = load(settings.model, plan.stop_layer)
    if settings.data.overwrite:
        remove_stale(plan, [(sample, paths)])
    with closing(run_samples([sample], plan, collector)) as results:
        return next(results)


def _trim_query(settings: Settings) -> Settings:
    query = check_encodable("data.query", settings.data.query or "")
    if trim_query(query) == query:
        return settings
    logger.warning("The query has white space at its ends, which is left out.")
    return replace(settings, data=replace(settings.data, query=trim_query(query)))


def _claim(directory: Path, sample: Sample) -> AbstractContextManager[None]:
    """Keep a batch that fills the directory from making the same id; where there is no directory, there is no batch."""
    return claim_rows(directory, [safe_name(sample.id)]) if directory.is_dir() else nullcontext()


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
