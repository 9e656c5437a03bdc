"""Random LLaVA models of the sizes that matter, made in memory, and the picture-book model from its files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.inputs import QUERIES
from benchmarks.measure import PROJECT_ROOT
from llava.conversation import get_template
from vlm.image_preprocessing import ImagePreprocessor, ImageRule
from vlm.loading import LlavaBundle, load_llava
from vlm.temporary_changes import set_attention

if TYPE_CHECKING:
    import torch

PICTUREBOOK = PROJECT_ROOT / "examples" / "models" / "picturebook-llava"
SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
# Words longer than this are split, so that the system text takes as many tokens as LLaVA's own tokenizer makes of it.
LONGEST_PIECE = 7


@dataclass(frozen=True)
class Shape:
    """Sizes of a random model; `spread` is the standard deviation of its weights, large enough to look unevenly."""

    hidden: int
    inner: int
    layers: int
    heads: int
    vocabulary: int
    spread: float
    vision_hidden: int
    vision_inner: int
    vision_layers: int
    vision_heads: int
    image_size: int = 336
    patch_size: int = 14

    @property
    def grid_side(self) -> int:
        """Patches along a side of the image."""
        return self.image_size // self.patch_size


TINY = Shape(32, 64, 4, 4, 512, 0.2, 16, 32, 3, 2, image_size=56)
TOY = Shape(256, 688, 8, 16, 512, 0.1, 128, 256, 4, 4)
LLAVA_7B = Shape(4096, 11008, 32, 32, 32064, 0.02, 1024, 4096, 24, 16)


def picturebook_bundle() -> LlavaBundle:
    """Load the picture-book model onto the CPU.

    Raises:
        ValueError: If it is not there.
    """
    return load_llava(str(PICTUREBOOK), device="cpu", dtype="float32", conv_mode="picturebook")


def random_bundle(shape: Shape, name: str, device: str = "cpu") -> LlavaBundle:
    """Make a random model right on the device: float32 on the CPU, float16 on a GPU.

    Args:
        shape: Its sizes.
        name: What it is called.
        device: `cpu` or `cuda`.
    """
    import torch
    import transformers

    place = torch.device(device)
    dtype = torch.float16 if place.type == "cuda" else torch.float32
    side = shape.grid_side
    return LlavaBundle(
        model=_random_model(shape, place, dtype),
        tokenizer=_tokenizer(),
        image_preprocessor=ImagePreprocessor(
            ImageRule(pad_to_square=True, resize=shape.image_size, crop_hw=None), shape.patch_size, shape.image_size
        ),
        name=name,
        conv_mode="referseg",
        device=place,
        dtype=dtype,
        device_reason=f"{device}, for the benchmark",
        image_token_id=SPECIAL_TOKENS.index("<image>"),
        visual_tokens=side * side,
        grid_shape=(side, side),
        patch_size=shape.patch_size,
        max_positions=2048,
        versions={"torch": torch.__version__, "transformers": transformers.__version__},
        template=get_template("referseg"),
    )


def _random_model(shape: Shape, device: torch.device, dtype: torch.dtype) -> Any:
    import torch
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    text = LlamaConfig(
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        vocab_size=shape.vocabulary,
        max_position_embeddings=2048,
        initializer_range=shape.spread,
    )
    vision = CLIPVisionConfig(
        hidden_size=shape.vision_hidden,
        intermediate_size=shape.vision_inner,
        num_hidden_layers=shape.vision_layers,
        num_attention_heads=shape.vision_heads,
        image_size=shape.image_size,
        patch_size=shape.patch_size,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=SPECIAL_TOKENS.index("<image>"),
        image_seq_length=shape.grid_side**2,
        initializer_range=shape.spread,
    )
    torch.manual_seed(0)
    with _default_dtype(dtype), device:
        model = LlavaForConditionalGeneration(config).eval()
    set_attention(model, "eager")
    set_attention(model.model.language_model, "eager")
    set_attention(model.model.vision_tower, "sdpa")
    return model


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make new parameters in this format."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _tokenizer() -> Any:
    """A tokenizer that knows the pieces of the prompt and of the queries."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(" +"), "removed"),
            pre_tokenizers.Split(Regex(rf"\n|[A-Za-z]{{1,{LONGEST_PIECE}}}|[^A-Za-z\s]"), "isolated"),
        ]
    )
    parts = get_template("referseg").parts(" ".join(QUERIES))
    pieces = {piece for part in parts for piece, _ in splitter.pre_tokenize_str(part.text) if part.name != "image"}
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *sorted(pieces)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
