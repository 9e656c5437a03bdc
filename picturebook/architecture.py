"""The shape of the picture-book LLaVA: a stock LlavaForConditionalGeneration, small."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llava.constants import IMAGE_TOKEN
from picturebook.shards import GRID_SIDE, IMAGE_SIDE, PATCH_SIDE
from picturebook.vocabulary import BOS, EOS, PAD, vocabulary

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration

# Content is matched over hundreds of positions: with a large base most rotary dimensions hardly turn over the image.
ROPE_THETA = 1_000_000.0

MAX_POSITIONS = 1024


def build_model(
    vision_width: int = 128,
    vision_layers: int = 4,
    text_width: int = 128,
    text_layers: int = 4,
    text_heads: int = 8,
    head_dim: int = 32,
) -> LlavaForConditionalGeneration:
    """Build the model with random weights.

    As in LLaVA-1.5 the image features are those before the last layer of the tower, without the class token.

    Args:
        vision_width: Hidden size of the tower.
        vision_layers: Layers of the tower; the last is not used.
        text_width: Hidden size of the language model.
        text_layers: Layers of the language model.
        text_heads: Attention heads of each of them.
        head_dim: Width of a head.

    Returns:
        The model, in training mode, with random weights.
    """
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    words = vocabulary()
    vision = CLIPVisionConfig(
        hidden_size=vision_width,
        intermediate_size=vision_width * 3,
        num_hidden_layers=vision_layers,
        num_attention_heads=4,
        image_size=IMAGE_SIDE,
        patch_size=PATCH_SIDE,
    )
    text = LlamaConfig(
        vocab_size=len(words),
        hidden_size=text_width,
        intermediate_size=text_width * 3,
        num_hidden_layers=text_layers,
        num_attention_heads=text_heads,
        num_key_value_heads=text_heads,
        head_dim=head_dim,
        max_position_embeddings=MAX_POSITIONS,
        rope_theta=ROPE_THETA,
        pad_token_id=words[PAD],
        bos_token_id=words[BOS],
        eos_token_id=words[EOS],
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=words[IMAGE_TOKEN],
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=GRID_SIDE**2,
    )
    config._attn_implementation = "sdpa"
    return LlavaForConditionalGeneration(config)
