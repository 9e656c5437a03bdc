"""The plain way to do what the tool does: the measure of its speed and, being simple, of its correctness."""

from __future__ import annotations

import gzip
import math
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lab.records import Sample
from vlm.images import load_image
from vlm.loading import LlavaBundle
from vlm.prompt_encoding import encode_prompt
from vlm.temporary_changes import eager_attention

BINARIZE_THRESHOLD = 0.001
SKIP_LAYERS = 2


@dataclass(frozen=True)
class PlainScore:
    """What the two criteria say of one head; see `lab.records.HeadScore`."""

    layer: int
    head: int
    attn_sum: float
    entropy: float
    bottom_row_focus: bool
    num_components: int


def collect_plain(bundle: LlavaBundle, sample: Sample) -> np.ndarray:
    """Run one row through one full forward in eager mode, keep all attentions, and cut the row that is wanted.

    Args:
        bundle: The loaded model.
        sample: What to ask of which image.

    Returns:
        Attention `[layers, heads, visual_tokens]` of the last prompt token, float32.
    """
    import torch

    pixels, _ = bundle.image_preprocessor(load_image(sample.image_file))
    prompt = encode_prompt(
        bundle.template.parts(sample.query, use_im_start_end=bundle.use_im_start_end),
        bundle.tokenizer,
        image_token_id=bundle.image_token_id,
        image_token_count=bundle.visual_tokens,
    )
    input_ids = torch.tensor([prompt.input_ids], device=bundle.device)
    with torch.no_grad(), eager_attention(bundle.model):
        outputs = bundle.model(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            pixel_values=torch.from_numpy(pixels)[None].to(bundle.device, bundle.dtype),
            output_attentions=True,
        )
    image = prompt.segments.image
    first = image.start + bundle.class_tokens
    return np.stack([layer[0, :, -1, first : image.end].float().cpu().numpy() for layer in outputs.attentions])


def read_plain(path: Path) -> np.ndarray:
    """Read an attention file `[layers, heads, 1, visual_tokens]` as `[layers, heads, visual_tokens]`, float32.

    The pickle is trusted, which the tool does not do: only for files that the benchmark made itself.
    """
    with gzip.open(path, "rb") as file:
        content = pickle.load(file)
    return content["attn"][:, :, 0].float().numpy()


def analyze_plain(attention: np.ndarray, grid_shape: tuple[int, int]) -> tuple[list[PlainScore], list[PlainScore]]:
    """Score every head of one sample in a loop, and rank those that pass.

    Args:
        attention: `[layers, heads, visual_tokens]`, float32.
        grid_shape: Rows and columns of the grid.

    Returns:
        The scores of all heads, and the ranked ones, best first.
    """
    layers, heads, _ = attention.shape
    scores = [
        score_plain(attention[layer, head].reshape(grid_shape), layer, head)
        for layer in range(layers)
        for head in range(heads)
    ]
    threshold = _elbow(sorted(score.attn_sum for score in scores))
    ranked = [score for score in scores if _passes(score, threshold)]
    return scores, sorted(ranked, key=lambda score: (score.entropy, -score.attn_sum, score.layer, score.head))


def score_plain(attention_map: np.ndarray, layer: int, head: int) -> PlainScore:
    """Score one head's map `[rows, cols]`: attention sum, entropy over components, focus on the bottom row."""
    from scipy.ndimage import label

    excess = np.maximum(attention_map - np.float32(attention_map.mean(dtype=np.float64)), 0)
    labels, num_components = label(excess > BINARIZE_THRESHOLD, structure=np.ones((3, 3)))
    masses = [float(excess[labels == component].sum()) for component in range(1, num_components + 1)]
    entropy = -sum(mass / sum(masses) * math.log(mass / sum(masses)) for mass in masses) if masses else math.inf
    in_bottom_row = float(excess[-1][labels[-1] > 0].sum())
    attn_sum = float(attention_map.sum(dtype=np.float64))
    return PlainScore(layer, head, attn_sum, entropy, in_bottom_row > 0.5 * sum(masses), num_components)


def _elbow(ordered: list[float]) -> float:
    """The value farthest from the chord between first and last."""
    first, last, count = ordered[0], ordered[-1], len(ordered)
    chord = [first + (last - first) * index / (count - 1) for index in range(count)]
    return max(zip(ordered, chord), key=lambda pair: abs(pair[0] - pair[1]))[0]


def _passes(score: PlainScore, threshold: float) -> bool:
    visible = score.num_components > 0 and not score.bottom_row_focus
    return score.layer >= SKIP_LAYERS and score.attn_sum >= threshold and visible
