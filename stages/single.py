"""A single run: a batch of one, whose failure is an error."""

from __future__ import annotations

import hashlib
import re
from contextlib import closing
from pathlib import Path

from lab.command_line.results import StageResult
from lab.config.settings import Settings
from lab.datasets.rows import RowFailure
from lab.records import Sample
from lab.storage.paths import OutputPaths
from stages.earlier_results import refuse_to_overwrite, remove_stale
from stages.loading import CollectorLoader
from stages.plan import Steps, make_plan
from stages.running import run_samples
from stages.showing import show_and_describe


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
    plan = make_plan(settings, steps)
    sample = Sample(single_id(settings), settings.data.image_file or "", settings.data.query or "")
    paths = OutputPaths(settings.result_dir, sample.id, settings.logic.top_k)
    refuse_to_overwrite(plan, sample, paths)
    collector = load(settings.model, plan.stop_layer)
    if settings.data.overwrite:
        remove_stale(plan, [(sample, paths)])
    with closing(run_samples([sample], plan, collector)) as results:
        result = next(results)
    if isinstance(result, RowFailure):
        raise ValueError(result.reason)
    return show_and_describe(result)


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
