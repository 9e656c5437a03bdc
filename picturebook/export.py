"""Export drawn scenes as a data set: ``python -m picturebook.export --output DIR --split test --scenes 100``."""

from __future__ import annotations

import argparse
import json
import logging
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np
from PIL import Image

from picturebook.drawing import render
from picturebook.expressions import TEMPLATE_WEIGHTS, TEMPLATES, Expression, answer_words, sample_expressions
from picturebook.sampling import sample_scene
from picturebook.scenes import Rendered, Scene

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
COMPOSITIONS = ("free", "one_kind", "one_color", "binding")
LONG_SIDES = (320, 400, 480, 640)
FULL_STOP_SHARE = 0.3


def export(
    output: Path,
    split: str,
    scenes: int,
    expressions: int = 3,
    seed: int = 0,
    templates: Optional[Sequence[str]] = None,
    composition: Optional[str] = None,
) -> Path:
    """Draw scenes and write `<split>.jsonl`, `images/` and `masks/`.

    Every scene is drawn from (split, seed, number) alone: splits share no scene, and a longer export begins with the
    same scenes as a shorter one.

    Args:
        output: Folder to write to.
        split: One of `SPLITS`.
        scenes: Number of scenes.
        expressions: Expressions for each scene, at most.
        seed: Another seed gives other scenes of the same split.
        templates: Expression templates to use; None for all.
        composition: One of `COMPOSITIONS`, or None for the mixture that the model was trained on.

    Returns:
        Path of the JSONL: id, prompt, image_path and mask_path (relative to the JSONL), bbox [x, y, w, h], image_size
        [w, h], split, orientation, composition, template, answer (what the prompt leaves unsaid, the pattern first).
    """
    _check(split, templates, composition)
    for name in ("images", "masks"):
        (output / name).mkdir(parents=True, exist_ok=True)
    path = output / f"{split}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(scenes):
            for row in _export_scene(output, split, seed, number, expressions, templates, composition):
                file.write(json.dumps(row) + "\n")
    return path


def write_examples(output: Path) -> Path:
    """Draw the three example pictures with their queries into `images/` and `localization_data.jsonl`.

    Args:
        output: The examples folder.

    Returns:
        Path of the JSONL; its image paths are relative to the folder above `output`, as in the README.
    """
    from picturebook.scenes import example_scenes

    (output / "images").mkdir(parents=True, exist_ok=True)
    path = output / "localization_data.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for name, scene in example_scenes().items():
            rendered = render(scene, long_side=640)
            image_path = output / "images" / f"{name}.png"
            rendered.image.save(image_path, optimize=True)
            for number, (prompt, target) in enumerate(EXAMPLE_QUERIES[name], start=1):
                index = _find(scene, target)
                row = {
                    "id": f"{name}_{number}",
                    "prompt": prompt,
                    "image_path": image_path.relative_to(output.parent).as_posix(),
                    "bbox": _xywh(rendered.boxes_xyxy[index]),
                }
                file.write(json.dumps(row) + "\n")
    return path


def orientation(image_size_wh: tuple[int, int]) -> str:
    """Say whether a picture is landscape, portrait or square."""
    width, height = image_size_wh
    return "square" if width == height else "landscape" if width > height else "portrait"


# Query and the attributes of its target in each example scene.
EXAMPLE_QUERIES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "bird": [
        ("birds.", {"kind": "bird"}),
        ("the bird on the branch", {"kind": "bird"}),
        ("the striped house", {"kind": "house"}),
    ],
    "cat": [
        ("a cat on the floor", {"kind": "cat"}),
        ("the red ball", {"kind": "ball"}),
        ("the checked star.", {"kind": "star"}),
    ],
    "dog": [
        ("a small dog wearing a collar", {"kind": "dog", "collar": True}),
        ("the big dog", {"kind": "dog", "size": "big"}),
    ],
}


def _find(scene: Scene, attributes: dict[str, Any]) -> int:
    """Index of the one object with these attributes."""
    found = [i for i, o in enumerate(scene.objects) if all(getattr(o, k) == v for k, v in attributes.items())]
    if len(found) != 1:
        raise ValueError(f"Expected exactly one object with {attributes}, but got {len(found)}. Change the example.")
    return found[0]


def _check(split: str, templates: Optional[Sequence[str]], composition: Optional[str]) -> None:
    if split not in SPLITS:
        raise ValueError(f"Expected split to be one of {', '.join(SPLITS)}, but got {split!r}.")
    if composition is not None and composition not in COMPOSITIONS:
        raise ValueError(f"Expected composition to be one of {', '.join(COMPOSITIONS)}, but got {composition!r}.")
    for template in templates or ():
        if template not in TEMPLATES:
            raise ValueError(f"Expected templates to be among {', '.join(TEMPLATES)}, but got {template!r}.")


def _export_scene(
    output: Path,
    split: str,
    seed: int,
    number: int,
    count: int,
    templates: Optional[Sequence[str]],
    composition: Optional[str],
) -> list[dict[str, Any]]:
    """Draw one scene with its masks and return its rows."""
    rng = random.Random(f"picturebook-export-{split}-{seed}-{number}")
    composition = composition or rng.choices(COMPOSITIONS, (0.2, 0.15, 0.15, 0.5))[0]
    scene = sample_scene(rng, composition=composition)
    long_side = rng.choice(LONG_SIDES)
    weights = {name: TEMPLATE_WEIGHTS[name] for name in templates} if templates else None
    chosen = sample_expressions(scene, count, rng, weights)
    rendered = render(scene, long_side=long_side)
    name = f"{split}-{seed}-{number:05d}"
    rendered.image.save(output / "images" / f"{name}.png")
    for target in sorted({expression.target for expression in chosen}):
        mask = np.asarray(rendered.masks[target], np.uint8) * 255
        Image.fromarray(mask).save(output / "masks" / f"{name}-{target}.png")
    rows = [_row(name, k, expression, scene, rendered, rng) for k, expression in enumerate(chosen)]
    return [{**row, "split": split, "composition": composition} for row in rows]


def _row(
    name: str, number: int, expression: Expression, scene: Scene, rendered: Rendered, rng: random.Random
) -> dict[str, Any]:
    return {
        "id": f"{name}-{number}",
        "prompt": expression.text + ("." if rng.random() < FULL_STOP_SHARE else ""),
        "image_path": f"images/{name}.png",
        "mask_path": f"masks/{name}-{expression.target}.png",
        "bbox": _xywh(rendered.boxes_xyxy[expression.target]),
        "image_size": list(rendered.image.size),
        "orientation": orientation(rendered.image.size),
        "template": expression.template,
        "answer": answer_words(scene, expression),
    }


def _xywh(box_xyxy: Sequence[int]) -> list[int]:
    x0, y0, x1, y1 = (int(edge) for edge in box_xyxy)
    return [x0, y0, x1 - x0, y1 - y0]


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Read the command line and export."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/picturebook-data"))
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--expressions", type=int, default=3, help="for each scene, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--composition", choices=COMPOSITIONS, help="the training mixture when not given")
    parser.add_argument("--templates", nargs="+", choices=TEMPLATES, help="all when not given")
    parser.add_argument("--examples", action="store_true", help="write the three example pictures instead")
    options = parser.parse_args(arguments)
    if options.examples:
        logger.info("Wrote %s", write_examples(options.output))
        return
    path = export(
        options.output,
        options.split,
        options.scenes,
        options.expressions,
        options.seed,
        options.templates,
        options.composition,
    )
    with path.open(encoding="utf-8") as file:
        logger.info("Wrote %d rows to %s", sum(1 for _ in file), path)


if __name__ == "__main__":
    main()
