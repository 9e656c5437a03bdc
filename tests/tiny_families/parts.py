"""What the tiny families are made of: a tokenizer of words, small towers and texts, weights for uneven attention."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedTokenizerFast

MAJOR = int(transformers.__version__.split(".")[0])
WORDS = [
    *("a", "the", "on", "of", "in", "left", "right", "big", "small", "red", "blue", "green"),
    *("cat", "dog", "bird", "box", "ball", "find", "where", "is", "user", "assistant", "USER", "ASSISTANT", ".", ":"),
]
TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 400,
    "max_position_embeddings": 4096,
    "pad_token_id": 3,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
HEAD_DIM = {"head_dim": 16}
TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}
CLIP = {**TOWER, "model_type": "clip_vision_model", "projection_dim": 32}
SIGLIP = {**TOWER, "model_type": "siglip_vision_model", "vision_use_head": False}
# Closes the turn as real templates do, which a prompt that ends with the query must not.
TEMPLATE = (
    "{%% for message in messages %%}%s{{ message['role'] }} : {%% for part in message['content'] %%}"
    "{%% if part['type'] == 'image' %%}%s{%% else %%}{{ part['text'] | trim }}{%% endif %%}{%% endfor %%}"
    "</s>\n{%% endfor %%}{%% if add_generation_prompt %%}assistant : {%% endif %%}"
)


@dataclass
class TinyFamily:
    """A random model with what its checkpoint directory holds beside the weights.

    Attributes:
        model: In evaluation mode, float32.
        tokenizer: Knows the family's special tokens.
        image_processor: The family's, on Pillow.
        processor_class: Name of the family's processor.
        placeholder: What the chat template writes for an image.
        settings: Arguments of the processor.
        bos: What the chat template writes first.
    """

    model: Any
    tokenizer: Any
    image_processor: Any
    processor_class: str
    placeholder: str
    settings: dict[str, Any] = field(default_factory=dict)
    bos: str = ""

    def save(self, directory: Path) -> Path:
        """Lay out a checkpoint directory as it would come from a hub."""
        self.model.save_pretrained(directory)
        self.tokenizer.chat_template = TEMPLATE % (self.bos, self.placeholder)
        self.tokenizer.save_pretrained(directory)
        self.image_processor.save_pretrained(directory)
        settings = {"processor_class": self.processor_class, **self.settings}
        (directory / "processor_config.json").write_text(json.dumps(settings), encoding="utf-8")
        return directory


def tokenizer(named: dict[str, str] | None = None, plain: tuple[str, ...] = (), *, of_bytes: bool = False) -> Any:
    """A tokenizer of whole words, or of single bytes.

    Args:
        named: Special tokens that the tokenizer has as attributes.
        plain: Other special tokens.
        of_bytes: For families whose tokenizer class is fixed and splits text its own way.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet()) if of_bytes else WORDS
    vocabulary = {word: number for number, word in enumerate(["<unk>", "<s>", "</s>", "<pad>", *alphabet])}
    if of_bytes:
        words = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
        words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        **({"extra_special_tokens": named} if named else {}),
    )
    if plain:
        tokens = [transformers.AddedToken(token, special=True, normalized=False) for token in plain]
        made.add_tokens(tokens, special_tokens=True)
    return made


def pillow(name: str, **settings: Any) -> Any:
    """An image processor on Pillow; version 5 gave that kind a name of its own."""
    kind = getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
    return kind(**settings)


def rope(section: tuple[int, int, int] | None = None, **more: Any) -> dict[str, Any]:
    """Settings of rotary positions, which moved to one place in version 5."""
    sections = {"mrope_section": list(section)} if section else {}
    if MAJOR >= 5:
        return {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, **sections, **more}}
    return {"rope_theta": 10000.0, "rope_scaling": {"rope_type": "default", **sections}, **more} if section else {}


def uneven(model: Any, seed: int = 0) -> Any:
    """Give a model weights that keep signals at their size and make its attention far from even."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2:
                scale = 1.0 if "embed" in name else parameter[0].numel() ** -0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
            elif not torch.isfinite(parameter).all():
                parameter.zero_()
    return model.eval()


def new(model_class: str, config: Any) -> Any:
    """An uneven model of a configuration."""
    torch.manual_seed(0)
    return uneven(getattr(transformers, model_class)(config))


def config_of(name: str, **settings: Any) -> Any:
    """A configuration by its class name."""
    return getattr(transformers, name)(**settings)
