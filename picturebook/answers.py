"""How often a model's first answer word is right: ``python -m picturebook.answers --dataset-jsonl FILE``."""

from __future__ import annotations

import argparse
import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from vlm.loading import LlavaBundle

logger = logging.getLogger(__name__)

GROUPINGS = ("template", "composition", "orientation")


def first_answer_word(bundle: LlavaBundle, image_path: Path, query: str) -> str:
    """The most likely word after a referring prompt, from one whole forward pass.

    Args:
        bundle: The loaded model.
        image_path: The picture.
        query: The referring expression, as given.

    Returns:
        The word of the most likely next token.
    """
    import torch

    from vlm.images import load_image

    pixels, _ = bundle.image_preprocessor(load_image(image_path))
    prompt = bundle.encode(query)
    with torch.inference_mode():
        logits = bundle.model(
            input_ids=torch.tensor([prompt.input_ids], device=bundle.device),
            pixel_values=torch.from_numpy(pixels)[None].to(bundle.device, bundle.dtype),
            logits_to_keep=1,
        ).logits
    return bundle.tokenizer.decode([int(logits[0, -1].argmax())]).strip()


def answer_accuracy(bundle: LlavaBundle, dataset: Path) -> dict[str, float]:
    """Share of right first answer words over an exported data set.

    Args:
        bundle: The loaded model.
        dataset: JSONL that `picturebook.export` wrote.

    Returns:
        The share over `all` rows, over `binding` (colour-and-kind expressions on binding scenes), and over each
        template, composition and orientation.
    """
    hits: dict[str, list[bool]] = defaultdict(list)
    for row in _rows(dataset):
        word = first_answer_word(bundle, dataset.parent / row["image_path"], row["prompt"])
        for name in _groups(row):
            hits[name].append(word == row["answer"][0])
    return {name: sum(right) / len(right) for name, right in hits.items()}


def _groups(row: dict[str, Any]) -> Iterable[str]:
    """Names of the groups that a row counts in."""
    yield "all"
    if row["composition"] == "binding" and row["template"] == "color_kind":
        yield "binding"
    for grouping in GROUPINGS:
        yield f"{grouping}={row[grouping]}"


def _rows(dataset: Path) -> list[dict[str, Any]]:
    with dataset.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Read the command line and print the shares."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", default="examples/models/picturebook-llava")
    parser.add_argument("--dataset-jsonl", type=Path, required=True, help="what picturebook.export wrote")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(arguments)
    from vlm.loading import load_llava

    shares = answer_accuracy(
        load_llava(options.model, device=options.device, conv_mode="picturebook"), options.dataset_jsonl
    )
    for name in sorted(shares, key=lambda name: (name != "all", name != "binding", name)):
        print(f"{name:24s} {shares[name]:.3f}")


if __name__ == "__main__":
    main()
