"""What is known of a model before its numbers are trusted: rows against eager attention, sharing, grid, prompt."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vlm.any_model import AnyModel
from vlm.bundle import EncodedPicture, EncodingFailure
from vlm.decoder import find_decoder
from vlm.grid_probe import check_grid
from vlm.sharing import LARGEST_DIFFERENCE, PictureReader
from vlm.temporary_changes import eager_attention

if TYPE_CHECKING:
    from PIL import Image

# Rows in float32 differ from eager attention's by 7e-7 at most where they are right.
LARGEST_ROW_DIFFERENCE = 1e-5


def check_model(bundle: AnyModel, images: Sequence[Image.Image], query: str) -> dict[str, Any]:
    """Check a loaded model on a few pictures.

    Args:
        bundle: The model.
        images: One or two pictures, best of different shapes.
        query: What to ask.

    Returns:
        Plain data: what the model is, and for each picture the prompt, the regions with their six numbers, the largest
        difference of rows from eager attention's, how prefills are shared, what the grid probe says, and seconds.

    Raises:
        ValueError: If a picture cannot be encoded.
    """
    pictures = [_checked_picture(bundle, image, query) for image in images]
    return {
        "model_name": bundle.name,
        "class": type(bundle.model).__name__,
        "model_type": str(getattr(bundle.model.config, "model_type", "")),
        "num_layers": bundle.num_layers,
        "num_heads": bundle.num_heads,
        "layers_without_map": pictures[0]["layers_without_map"],
        "attention": str(getattr(find_decoder(bundle.model).config, "_attn_implementation", "")),
        "conv_mode": bundle.conv_mode,
        "device": bundle.device_reason,
        "versions": dict(bundle.versions),
        "pictures": pictures,
        "passed": all(picture["passed"] for picture in pictures),
    }


def _checked_picture(bundle: AnyModel, image: Image.Image, query: str) -> dict[str, Any]:
    started = time.perf_counter()
    encoded = _encoded(bundle, image, query)
    reader = PictureReader(bundle)
    # Twice, since a single query has nothing to share.
    [[reading, _]] = reader.read([replace(encoded, queries=encoded.queries * 2)])
    off = _rows_against_eager(bundle, encoded, reading.layers_without_map)
    sharing = next(iter(reader.found.values()))
    verdict = check_grid(
        bundle.model,
        lambda picture: bundle.encoder.run(picture, query),
        image.size,
        encoded.regions,
        bundle.encoder.image_ids,
    )
    return {
        "image_size": list(image.size),
        "vis_len": encoded.regions.num_tokens,
        "separators": len(encoded.regions.separators),
        "regions_from": encoded.regions.source,
        "regions": [{"kind": region.kind, "grid": asdict(region.grid)} for region in encoded.regions.regions],
        "map_grid": asdict(encoded.regions.map_grid()),
        "prompt": encoded.queries[0].text,
        "segments": encoded.queries[0].segments.to_list(),
        "row_read": encoded.queries[0].segments.last_token,
        "layers_without_map": list(reading.layers_without_map),
        "rows_off_eager": off,
        "sharing": asdict(sharing),
        "grid_probe": verdict.to_dict(),
        "passed": off <= _limit(bundle) and verdict.verdict != "disagrees",
        "seconds": round(time.perf_counter() - started, 2),
    }


def _limit(bundle: AnyModel) -> float:
    """Half precision differs from itself by more than rows do from eager attention in float32."""
    import torch

    return LARGEST_ROW_DIFFERENCE if bundle.dtype == torch.float32 else max(LARGEST_DIFFERENCE, 5e-3)


def _encoded(bundle: AnyModel, image: Image.Image, query: str) -> EncodedPicture:
    [found] = bundle.encode_picture(image, [query])
    if isinstance(found, EncodingFailure):
        raise ValueError(found.reason)
    return found


def _rows_against_eager(bundle: AnyModel, encoded: EncodedPicture, without: Sequence[int]) -> float:
    """Largest difference of the rows from those of eager attention with all its weights."""
    import torch

    reader = PictureReader(bundle, share=False)
    [[reading]] = reader.read([encoded])
    inputs = reader.plain_inputs(encoded, encoded.queries[0].ids)
    with torch.inference_mode(), eager_attention(bundle.model):
        maps = getattr(bundle.model(**inputs, output_attentions=True), "attentions", None) or ()
    weights = [layer[0, :, -1].float().cpu().numpy() for layer in maps if layer is not None]
    keys = list(encoded.image_places)
    if keys:
        expected = [layer[:, keys] for layer in weights if layer.shape[-1] == inputs["input_ids"].shape[1]]
    else:
        expected = [layer for layer in weights if layer.shape[-1] == reading.attention.shape[-1]]
    rows = np.delete(reading.attention, list(without), axis=0)
    if len(expected) != len(rows):
        raise ValueError(
            f"Expected eager attention to give the weights of {len(rows)} layers, but got {len(expected)}. "
            "The rows of this model cannot be checked."
        )
    return float(np.abs(rows - np.stack(expected)).max())
