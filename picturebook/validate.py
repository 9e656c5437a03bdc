"""How well the picture-book LLaVA answers, and where its heads look, on drawn scenes."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from picturebook.packing import Packed, Packer, Stage, gather_patches, language_states
from picturebook.scenes import Scene
from picturebook.shards import GRID_SIDE, Shard


@dataclass(frozen=True)
class Validation:
    """Scores on drawn scenes.

    Attributes:
        accuracy: Share of first answer words that are right.
        binding_accuracy: The same on binding scenes, colour-and-kind expressions only.
        by_template: The same for each template.
        target_share: `[layers, heads]` mean share of the image attention that lies on the target.
        target_area: Mean share of the picture that the target covers.
        box_accuracy: Acc@0.5 of the three heads of largest target share, mean threshold, no smoothing.
    """

    accuracy: float
    binding_accuracy: float
    by_template: dict[str, float]
    target_share: np.ndarray
    target_area: float
    box_accuracy: float

    def __str__(self) -> str:
        """One line for a log."""
        heads = np.argsort(-self.target_share, axis=None)[:5]
        best = [(*np.unravel_index(h, self.target_share.shape), self.target_share.flat[h]) for h in heads]
        return (
            f"first word {self.accuracy:.3f}, binding {self.binding_accuracy:.3f}, "
            + ", ".join(f"{name} {value:.2f}" for name, value in sorted(self.by_template.items()))
            + f"; target area {self.target_area:.3f}; "
            + ", ".join(f"L{layer}H{head} {share:.2f}" for layer, head, share in best)
            + f"; Acc@0.5 {self.box_accuracy:.2f}"
        )


def is_binding(scene: Scene) -> bool:
    """Whether only colour and kind together tell the pattern: two colours crossed with two kinds, four objects."""
    pairs = {(o.color, o.kind) for o in scene.objects}
    return len(scene.objects) == 4 == len(pairs) and len({c for c, _ in pairs}) == 2 == len({k for _, k in pairs})


@torch.no_grad()
def validate(model: Any, packer: Packer, shard: Shard, features: torch.Tensor, batch: int = 20) -> Validation:
    """Score a model on a shard with all patches and all templates.

    Args:
        model: The picture-book LLaVA.
        packer: Packs the queries.
        shard: Scenes that it was not trained on.
        features: `[n, patches, width]` of the frozen tower.
        batch: Images at a time.

    Returns:
        The scores.
    """
    model.set_attn_implementation("eager")
    rng = random.Random("validate")
    rows = []
    for start in range(0, len(shard.scenes), batch):
        indices = list(range(start, min(start + batch, len(shard.scenes))))
        packed = packer.pack(shard, indices, Stage("validate", 0, None, None), rng)
        rows += _batch_rows(model, packed, shard, features)
    model.set_attn_implementation("sdpa")
    return _summarise(rows)


def _batch_rows(model: Any, packed: Packed, shard: Shard, features: torch.Tensor) -> list[dict[str, Any]]:
    """One record for each query of a batch: hit, template, scene, and the image attention of its last prompt token."""
    output = language_states(model, packed, gather_patches(features, packed), output_attentions=True)
    begin, end = packed.prefix_words, packed.prefix_words + packed.patch_index.shape[1]
    rows = []
    for b, image in enumerate(packed.image_index.tolist()):
        ends = packed.first[b].nonzero()[:, 0] - 1
        guesses = model.lm_head(output.last_hidden_state[b, ends]).argmax(-1)
        hits = (guesses == packed.token_ids[b, ends + 1]).tolist()
        attention = torch.stack([layer[b][:, ends, begin:end] for layer in output.attentions]).float().cpu().numpy()
        for k, hit in enumerate(hits):
            target, template = packed.target[b][k], packed.template[b][k]
            cover = shard.target_cover[image][target]
            rows.append(_row(hit, template, shard.scenes[image], target, cover, attention[:, :, k]))
    return rows


def _row(hit: bool, template: str, scene: Scene, target: int, cover: np.ndarray, attention: np.ndarray) -> dict:
    sums = attention.sum(-1)
    return {
        "hit": hit,
        "template": template,
        "binding": template == "color_kind" and is_binding(scene),
        "sums": sums,
        "share": (attention * cover).sum(-1) / np.maximum(sums, 1e-9),
        "area": cover.mean(),
        "attention": attention / np.maximum(sums, 1e-9)[:, :, None],
        "box": _frame_in_cells(scene, target),
    }


def _summarise(rows: list[dict[str, Any]]) -> Validation:
    templates = sorted({row["template"] for row in rows})
    share = np.mean([row["share"] for row in rows], axis=0)
    best = np.argsort(-share, axis=None)[:3]
    ious = [_box_iou(_box(row["attention"].reshape(-1, GRID_SIDE, GRID_SIDE)[best].sum(0)), row["box"]) for row in rows]
    return Validation(
        accuracy=float(np.mean([row["hit"] for row in rows])),
        binding_accuracy=float(np.mean([row["hit"] for row in rows if row["binding"]])),
        by_template={t: float(np.mean([row["hit"] for row in rows if row["template"] == t])) for t in templates},
        target_share=share,
        target_area=float(np.mean([row["area"] for row in rows])),
        box_accuracy=float(np.mean(np.array(ious) >= 0.5)),
    )


def _frame_in_cells(scene: Scene, target: int) -> tuple[float, float, float, float]:
    """Frame of an object in cells of the padded square's grid."""
    dx, dy = (1.0 - scene.aspect[0]) / 2, (1.0 - scene.aspect[1]) / 2
    x0, y0, x1, y1 = scene.objects[target].frame
    return (x0 + dx) * GRID_SIDE, (y0 + dy) * GRID_SIDE, (x1 + dx) * GRID_SIDE, (y1 + dy) * GRID_SIDE


def _box(combined: np.ndarray) -> tuple[float, float, float, float]:
    labels, _ = ndimage.label(combined > combined.mean(), np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    if not len(sizes):
        return 0.0, 0.0, 0.0, 0.0
    ys, xs = np.where(labels == 1 + sizes.argmax())
    return float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1)


def _box_iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    inner = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return inner / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner)
