"""First reading of directories of attention files: the scores of all heads on every file."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, TypeVar, Union

import numpy as np

from analyze import stack_scores
from command_line.progress import progress_bar
from lab.config.settings import Settings
from lab.heads.head_scores import DatasetScores, HeadTable
from lab.heads.head_sums import sum_precision
from lab.records import CollectedAttention
from lab.statistics.bootstrap import cluster_numbers
from lab.storage.background import map_in_background
from lab.storage.paths import list_attention_files
from stages.choosing import NO_BOTTOM_ROW, has_bottom_row, score_sample, see
from stages.guard import describe_exception
from stages.model_settings import META_KEY, settings_of_file
from stages.stored_attention import load_stored

logger = logging.getLogger(__name__)

Found = TypeVar("Found")

_MADE_WITH_KEYS = ("model_name", "prompt_template", META_KEY)


@dataclass(frozen=True)
class Origin:
    """What an attention file says of its making.

    Attributes:
        model_name: Name of the model.
        template: Name of the prompt template.
    """

    model_name: str
    template: str


@dataclass(frozen=True)
class Source:
    """One attention file, and what it is about.

    Attributes:
        path: The file.
        id: Identifier of its sample.
        origin: What it says of its making.
        picture: Name of the picture; all files of one name are about one picture.
        sum_precision: Relative precision of its attention sums.
        made_with: What it says of the settings that belong to its model.
        image_size_wh: Width and height of its picture, in pixels.
        has_bottom_row: Whether the rule of the bottom row means something on its map.
    """

    path: Path
    id: str
    origin: Origin
    picture: str
    sum_precision: float
    made_with: Mapping[str, Any] = field(default_factory=dict)
    image_size_wh: tuple[int, int] = (0, 0)
    has_bottom_row: bool = True


@dataclass(frozen=True)
class Unusable:
    """One attention file that could not be used.

    Attributes:
        path: The file.
        reason: One line for people.
    """

    path: Path
    reason: str


@dataclass(frozen=True)
class Survey:
    """The files that were read, and the scores of all their heads.

    Attributes:
        sources: The files, in the order of the scores.
        directory_of: `[files]` int, number of the directory that each came from.
        scores: Scores of every head on every file.
        failed: Number of files that could not be used.
    """

    sources: tuple[Source, ...]
    directory_of: np.ndarray
    scores: DatasetScores
    failed: int

    @property
    def ids(self) -> tuple[str, ...]:
        """Identifier of each file."""
        return tuple(source.id for source in self.sources)

    @property
    def pictures(self) -> np.ndarray:
        """Number of the picture of each file, `[files]` int, from 0."""
        return cluster_numbers([source.picture for source in self.sources])

    @property
    def sum_precision(self) -> float:
        """Relative precision of the least precise sums."""
        return max(source.sum_precision for source in self.sources)

    @property
    def origin(self) -> Origin:
        """What all files say of their making."""
        return self.sources[0].origin


def attention_dirs(settings: Settings) -> tuple[str, ...]:
    """The directories to read: those given, or the model's own."""
    return settings.data.attention_dirs or (str(settings.result_dir),)


def read_survey(settings: Settings) -> Survey:
    """Score every file of every directory; only the scores are kept.

    Args:
        settings: The whole configuration.

    Returns:
        The scores and where they came from.

    Raises:
        ValueError: There is no usable file, or the files are of several models.
    """
    by_directory = [list_attention_files(directory) for directory in attention_dirs(settings)]
    directory_of = {path: number for number, paths in enumerate(by_directory) for path in paths}
    if not directory_of:
        raise ValueError(
            f"Expected attention files (.pkl.gz or .pkl) in {', '.join(attention_dirs(settings))}, but got none. "
            "Make some with stage=batch, with storage.attention.save=true."
        )
    sources: list[Source] = []
    unusable: list[Unusable] = []
    scores = stack_scores(_tables(list(directory_of), settings, sources, unusable))
    if settings.logic.bottom_row_filter and not all(source.has_bottom_row for source in sources):
        logger.info("%s", NO_BOTTOM_ROW)
    directories = np.array([directory_of[source.path] for source in sources])
    return Survey(tuple(sources), directories, scores, len(unusable))


def _tables(
    paths: Sequence[Path], settings: Settings, sources: list[Source], unusable: list[Unusable]
) -> Iterator[HeadTable]:
    """The scores of each usable file; what it is about is added to the one list, files left out to the other."""
    for found in read_each(paths, lambda path: _score(path, settings), settings, "score"):
        if isinstance(found, Unusable):
            unusable.append(found)
            logger.warning("Left out %s: %s", found.path, found.reason)
            continue
        source, table = found
        _check_origin(source, sources)
        sources.append(source)
        yield table


def read_each(
    paths: Sequence[Path], function: Callable[[Path], Found], settings: Settings, what: str
) -> Iterator[Union[Found, Unusable]]:
    """Apply a function to files in background threads, under a progress bar; a bad file does not stop the others.

    Args:
        paths: Attention files.
        function: What to make of each.
        settings: How many threads.
        what: Name of the progress bar.

    Yields:
        What the function gave, or why a file is unusable, in order.
    """

    def guarded(path: Path) -> Union[Found, Unusable]:
        try:
            return function(path)
        except Exception as error:
            logger.debug("%s could not be used.", path, exc_info=error)
            return Unusable(path, describe_exception(error))

    results = map_in_background(guarded, paths, workers=settings.storage.workers)
    with progress_bar(results, total=len(paths), unit="file", label=what) as bar:
        yield from bar


def _score(path: Path, settings: Settings) -> tuple[Source, HeadTable]:
    collected = see(load_stored(path), settings)
    if isinstance(collected.meta.get(META_KEY), Mapping):
        settings_of_file(collected.meta, settings, path)  # what cannot be its model's settings costs this file alone
    sample, origin = collected.sample, _origin_of(collected, settings)
    # A file that does not name its picture is taken to have one of its own.
    picture = sample.image_file or f"picture of {sample.id}"
    made_with = {key: collected.meta[key] for key in _MADE_WITH_KEYS if key in collected.meta}
    precision = sum_precision(collected.meta)
    source = Source(
        path, sample.id, origin, picture, precision, made_with, collected.image_size_wh, has_bottom_row(collected)
    )
    return source, score_sample(collected, settings)


def _origin_of(collected: CollectedAttention, settings: Settings) -> Origin:
    """Model and template; files of the public tool do not say the template, so that the configured one is taken."""
    meta = collected.meta
    return Origin(
        model_name=str(meta.get("model_name") or settings.model.name),
        template=str(meta.get("prompt_template") or settings.model.conv_mode),
    )


def settings_of_survey(survey: Survey, settings: Settings) -> Settings:
    """Take what belongs to a model from the attention files, and all else from the configuration.

    Args:
        survey: The files that were read.
        settings: The whole configuration.

    Returns:
        The configuration for these files.

    Raises:
        ValueError: The files say different things, or nothing is known of their model.
    """
    sources: dict[str, Source] = {}
    for source in survey.sources:
        sources.setdefault(repr(sorted(source.made_with.items())), source)
    first, *others = sources.values()
    chosen = settings_of_file(first.made_with, settings, first.path)
    for other in others:
        if settings_of_file(other.made_with, settings, other.path).logic != chosen.logic:
            raise ValueError(
                "Expected all attention files to be collected with the same settings of their model, but got others in "
                f"{first.path} and {other.path}. Set {', '.join(f'logic.{key}' for key in settings.follows_model)} to "
                "what is to be taken."
            )
    return chosen


def _check_origin(source: Source, before: Sequence[Source]) -> None:
    if before and source.origin != before[0].origin:
        here, there = source.origin, before[0].origin
        raise ValueError(
            f"Expected all attention files to be of one model and template, but got {there.model_name} with "
            f"{there.template} in {before[0].path} and {here.model_name} with {here.template} in {source.path}. "
            "Give directories of one model."
        )
