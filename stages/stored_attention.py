"""A stored attention file -> a record whose prompt template goes by the name that it has today."""

from __future__ import annotations

import dataclasses
import logging

from lab.records import CollectedAttention
from lab.storage.attention_files import load_attention
from lab.storage.paths import PathLike
from llava.conversation import TEMPLATES, template_of_prompt

logger = logging.getLogger(__name__)


def load_stored(path: PathLike, image_file: str | None = None) -> CollectedAttention:
    """Read an attention file; if its template's name has come to mean other words since, go by its prompt's words.

    Args:
        path: `.pkl` or `.pkl.gz`; its twin is taken where it is missing.
        image_file: Image to use instead of the one in the metadata.

    Returns:
        See `lab.storage.attention_files.load_attention`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, holds code, or is not an attention file.
    """
    collected = load_attention(path, image_file)
    name, prompt = collected.meta.get("prompt_template"), collected.meta.get("prompt")
    if name not in TEMPLATES or not isinstance(prompt, str) or _makes(name, prompt, collected.sample.query):
        return collected
    today = template_of_prompt(prompt, collected.sample.query)
    if today is None:
        return collected
    logger.debug("%s names the template %s, whose words are those of %s today.", path, name, today)
    return dataclasses.replace(collected, meta={**collected.meta, "prompt_template": today})


def _makes(name: str, prompt: str, query: str) -> bool:
    """Whether a template makes a prompt."""
    try:
        return TEMPLATES[name].prompt(query) == prompt
    except ValueError:  # a query that no template can lay out
        return False
