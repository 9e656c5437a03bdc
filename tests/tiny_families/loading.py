"""Tiny families as the tool loads them: saved to a directory, read back from it, once for each worker."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from tests.tiny_families import FAMILIES
from vlm.any_model import AnyModel, load_any_model
from vlm.bundle import EncodedPicture

QUERY = "find the red cat"
SHAPES = {"landscape": (200, 130), "portrait": (97, 211), "square": (64, 64)}


@functools.lru_cache(maxsize=4)
def load(name: str, conv_mode: str = "chat") -> AnyModel:
    """A family's model on the CPU in float32."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as directory:
        FAMILIES[name]().save(Path(directory))
        return load_any_model(directory, device="cpu", conv_mode=conv_mode)


def picture(shape: str = "landscape", seed: int = 0) -> Image.Image:
    """A picture of noise."""
    width, height = SHAPES[shape]
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encode(bundle: AnyModel, *queries: str, shape: str = "landscape", seed: int = 0) -> EncodedPicture:
    """A picture with queries whose prompts begin alike."""
    [found] = bundle.encode_picture(picture(shape, seed), queries or (QUERY,))
    assert isinstance(found, EncodedPicture), found
    return found


def whole_inputs(bundle: AnyModel, query: str = QUERY, shape: str = "landscape", seed: int = 0) -> dict:
    """What a plain forward takes, up to the query's last token."""
    encoded = encode(bundle, query, shape=shape, seed=seed)
    length = len(encoded.prefix_ids) + len(encoded.queries[0].ids)
    inputs = bundle.encoder.run(picture(shape, seed), query)
    return {key: value[:, :length] if key in bundle.encoder.token_keys else value for key, value in inputs.items()}


def set_eager(model) -> None:
    """Let a model compute with eager attention from now on."""
    from vlm.decoder import attention_modules, find_decoder

    decoder = find_decoder(model)
    for module in (decoder, *attention_modules(decoder).values()):
        module.config._attn_implementation = "eager"
    if hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation("eager")
