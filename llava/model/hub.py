"""Asks the hub once what a repository holds, and says what a download will take before it begins."""

from __future__ import annotations

import functools
import logging
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

logger = logging.getLogger(__name__)

CACHE_VARIABLES = ("TRANSFORMERS_CACHE", "HF_HOME", "HF_HUB_CACHE")
GIGABYTE = 1e9
# The hub gets one chance of so many seconds; without an answer the cache is what there is.
LOOK_UP_SECONDS = 5
# Bytes of the weights of repositories that presets name, for when the hub cannot be asked.
KNOWN_BYTES = {
    "liuhaotian/llava-v1.5-7b": 13.5e9,
    "liuhaotian/llava-v1.5-13b": 26.1e9,
    "llava-hf/llava-1.5-7b-hf": 14.1e9,
    "llava-hf/llava-1.5-13b-hf": 26.7e9,
    "openai/clip-vit-large-patch14-336": 1.7e9,
}
_REPOSITORY_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_SMALL_FILES = re.compile(r"[^/]*\.(json|model|jinja)")
_SHARDS = r"(-\d+-of-\d+)?"
_WEIGHT_KINDS = (re.compile(rf"model{_SHARDS}\.safetensors"), re.compile(rf"pytorch_model{_SHARDS}\.bin"))


@dataclass(frozen=True)
class Listing:
    """What the hub says of a repository.

    Attributes:
        sizes: Bytes of each file, or None where the hub was not asked or did not answer.
        reason: Why there are no sizes.
    """

    sizes: Mapping[str, int] | None
    reason: str = ""

    def needed(self) -> list[str]:
        """The files that loading takes: settings, and the weights in the format that is read first."""
        names = sorted(self.sizes or ())
        kinds = ([name for name in names if kind.fullmatch(name)] for kind in _WEIGHT_KINDS)
        weights: list[str] = next(filter(None, kinds), [])
        return [name for name in names if _SMALL_FILES.fullmatch(name)] + weights


def export_cache_dir(cache_dir: str | None) -> None:
    """Point every variable that transformers and its hub client read at one cache.

    Call it before transformers is imported, since it reads them once. None leaves the environment as it is.

    Args:
        cache_dir: Directory for downloaded files (`model.cache_dir`).
    """
    if cache_dir is None:
        return
    if "huggingface_hub" in sys.modules:
        logger.warning("model.cache_dir was exported after the hub client was imported: it keeps its earlier cache.")
    for variable in CACHE_VARIABLES:
        os.environ[variable] = str(cache_dir)


def is_repository_id(name: str) -> bool:
    """Whether a name can be that of a hub repository (`owner/name`) rather than a path."""
    return _REPOSITORY_ID.fullmatch(name) is not None and ".." not in name and "--" not in name


@functools.cache
def look_up(name: str, revision: str | None) -> Listing:
    """Ask the hub what a repository holds, once a process and without retries.

    Args:
        name: Repository id.
        revision: Branch, tag or commit; None for the main branch.

    Returns:
        Its files, or why they are not known; then the cache is all there is.
    """
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return Listing(None, "HF_HUB_OFFLINE is set")
    try:
        info = HfApi().model_info(name, revision=revision, files_metadata=True, timeout=LOOK_UP_SECONDS)
    except Exception as error:  # the client raises errors of whichever HTTP library it uses
        return Listing(None, _reason(error))
    return Listing({file.rfilename: int(file.size or 0) for file in info.siblings or ()})


def announce_download(name: str, revision: str | None, cache_dir: str | None, bytes_per_number: int) -> None:
    """Say what will be downloaded, how much, where to, and what memory it takes; nothing if all is in the cache.

    Args:
        name: Repository id.
        revision: Branch, tag or commit.
        cache_dir: Where files are kept; None for the default place.
        bytes_per_number: Bytes of a weight as the model will hold it.
    """
    from huggingface_hub import try_to_load_from_cache

    listing = look_up(name, revision)
    cached = functools.partial(try_to_load_from_cache, name, cache_dir=cache_dir, revision=revision)
    if listing.sizes is None:
        if isinstance(cached("config.json"), str):
            logger.info("The hub was not asked for %s (%s): the files in the cache are used", name, listing.reason)
        return
    absent = [file for file in listing.needed() if not isinstance(cached(file), str)]
    if absent:
        # Published weights take two bytes a number.
        weights = sum(listing.sizes[file] for file in listing.needed() if not _SMALL_FILES.fullmatch(file))
        logger.info(
            "Downloading %s: %.1f GB in %d files, to %s; its weights will take about %.1f GB of memory",
            name,
            sum(listing.sizes[file] for file in absent) / GIGABYTE,
            len(absent),
            cache_place(cache_dir),
            weights / 2 * bytes_per_number / GIGABYTE,
        )


def cache_place(cache_dir: str | None) -> str:
    """The directory that downloaded files go to."""
    from huggingface_hub import constants

    return cache_dir or str(constants.HF_HUB_CACHE)


def size_hint(name: str) -> str:
    """How large a well-known repository is, in brackets, or nothing."""
    return f" (about {KNOWN_BYTES[name] / GIGABYTE:.1f} GB)" if name in KNOWN_BYTES else ""


def _reason(error: BaseException) -> str:
    """An error of the hub's client in a few words."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    known = {
        GatedRepoError: "its owner asks for a login, see hf auth login",
        RevisionNotFoundError: "it has no such revision",
        RepositoryNotFoundError: "there is no such repository, or it asks for a login",
    }
    for kind, words in known.items():
        if isinstance(error, kind):
            return words
    nested = re.findall(r"\[Errno -?\d+\] [A-Za-z ]+", str(error))
    return nested[-1] if nested else ((str(error).strip().splitlines() or [""])[0][:120] or type(error).__name__)
