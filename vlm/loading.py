"""Loads a checkpoint with all that is needed to ask it something: model, tokenizer, preprocessing, prompt template."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab.regions import Regions
from llava.constants import TOOL_VERSION
from llava.conversation import PromptTemplate, get_template
from llava.model.builder import LoadedModel, load_model, read_image_settings
from llava.model.checkpoint_files import CheckpointFiles
from vlm.bundle import EncodedPicture, EncodedQuery, EncodingFailure
from vlm.device import choose_device
from vlm.image_preprocessing import ImagePreprocessor, ImageRule
from vlm.placement import require_library
from vlm.prompt_encoding import EncodedPrompt, encode_prompt
from vlm.temporary_changes import set_attention

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from transformers import LlavaForConditionalGeneration

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LlavaBundle:
    """A loaded model with all that belongs to it.

    Attributes:
        model: The stock model, in evaluation mode, rows of its attention are read beside whatever computes it.
        tokenizer: Its tokenizer.
        image_preprocessor: Turns a picture into pixels and a grid.
        name: What was asked for: a directory or the id of a hub repository.
        conv_mode: Key of the prompt template.
        device: Where the model is.
        dtype: Number format of its weights.
        device_reason: Why this device and this format.
        image_token_id: Token id that stands for the image.
        visual_tokens: Positions that an image takes; one more than the grid has cells where a class token leads.
        grid_shape: Rows and columns of patches.
        patch_size: Side of a patch in pixels as the model sees them.
        max_positions: Longest sequence of the language model.
        versions: Of torch, transformers and this tool.
        template: The prompt template.
        use_im_start_end: Whether the image stands between `<im_start>` and `<im_end>`.
    """

    model: LlavaForConditionalGeneration
    tokenizer: Any
    image_preprocessor: ImagePreprocessor
    name: str
    conv_mode: str
    device: torch.device
    dtype: torch.dtype
    device_reason: str
    image_token_id: int
    visual_tokens: int
    grid_shape: tuple[int, int]
    patch_size: int
    max_positions: int
    versions: dict[str, str]
    template: PromptTemplate
    use_im_start_end: bool = False

    @property
    def num_layers(self) -> int:
        """Layers of the language model."""
        return int(self.model.config.text_config.num_hidden_layers)

    @property
    def num_heads(self) -> int:
        """Attention heads of each layer of the language model."""
        return int(self.model.config.text_config.num_attention_heads)

    def encode(self, query: str) -> EncodedPrompt:
        """A query as the model reads it: laid out by the template, tokenised.

        Args:
            query: The referring expression.

        Raises:
            ValueError: If the query places several images, or nothing follows the image.
        """
        return encode_prompt(
            self.template.parts(query, use_im_start_end=self.use_im_start_end),
            self.tokenizer,
            image_token_id=self.image_token_id,
            image_token_count=self.visual_tokens,
        )

    def encode_picture(self, image: Image.Image, queries: Sequence[str]) -> list[EncodedPicture | EncodingFailure]:
        """Prepare a picture with its queries: an entry for each prefix, and for each query that cannot be asked."""
        import torch

        pixels, grid = self.image_preprocessor(image)
        failures: list[EncodingFailure] = []
        by_prefix: dict[tuple[int, ...], list[tuple[EncodedPrompt, EncodedQuery]]] = {}
        for number, query in enumerate(queries):
            try:
                prompt = self.encode(query)
            except ValueError as error:
                failures.append(EncodingFailure(number, str(error)))
                continue
            asked = EncodedQuery(number, query, prompt.text, prompt.suffix_ids, prompt.segments, prompt.unknown_words)
            by_prefix.setdefault(prompt.prefix_ids, []).append((prompt, asked))
        inputs = {"pixel_values": torch.from_numpy(pixels)[None]}
        pictures = [
            EncodedPicture(
                prefix_ids=prefix,
                image_places=self._patch_places(rows[0][0]),
                picture_inputs=inputs,
                token_inputs={},
                regions=Regions.single(grid),
                image_size_wh=image.size,
                queries=tuple(asked for _, asked in rows),
            )
            for prefix, rows in by_prefix.items()
        ]
        return [*pictures, *failures]

    def _patch_places(self, prompt: EncodedPrompt) -> tuple[int, ...]:
        """Places of the patches: the image's, less a class token before them."""
        image = prompt.segments.image
        return tuple(range(image.start + self.class_tokens, image.end))

    @property
    def class_tokens(self) -> int:
        """Visual tokens before the first patch: 1 with a class token, else 0."""
        return self.visual_tokens - self.grid_shape[0] * self.grid_shape[1]


def load_llava(
    name: str,
    *,
    cache_dir: str | None = None,
    revision: str | None = None,
    device: str = "auto",
    device_id: int = 0,
    dtype: str = "auto",
    conv_mode: str = "referseg",
    use_flash_attn: bool = False,
    prefill_attention: str = "sdpa",
) -> LlavaBundle:
    """Load a checkpoint in Hugging Face or original format.

    Args:
        name: A directory or the id of a hub repository.
        cache_dir: Where downloaded files are kept; None for the default place.
        revision: Branch, tag or commit of a hub repository.
        device: `auto`, `cpu` or `cuda:<id>`.
        device_id: Index of the GPU when `device` is `auto`.
        dtype: `auto` (float16 on CUDA, float32 on CPU), `float16`, `bfloat16` or `float32`.
        conv_mode: Key of a prompt template.
        use_flash_attn: Whether the language model computes with FlashAttention.
        prefill_attention: `sdpa` or `eager`: what it computes with otherwise.

    Raises:
        ValueError: If an option is not valid, or the checkpoint is not whole, not reachable or not supported.
    """
    if use_flash_attn:
        require_library("flash_attn", "model.use_flash_attn=true")
    if prefill_attention not in {"sdpa", "eager"}:
        raise ValueError(f"Expected model.prefill_attention to be sdpa or eager, but got {prefill_attention!r}.")
    template = get_template(conv_mode)
    torch_device, torch_dtype, reason = choose_device(device, device_id, dtype)
    logger.info("Loading %s on %s", name, reason)
    files = CheckpointFiles(name, cache_dir, revision)
    files.announce(torch_dtype.itemsize)
    image_rule = _image_rule(files)
    loaded = load_model(files, torch_device, torch_dtype)
    set_attention(loaded.model.model.language_model, "flash_attention_2" if use_flash_attn else prefill_attention)
    set_attention(loaded.model.model.vision_tower, "sdpa")
    return _bundle(loaded, image_rule, name, template, torch_device, torch_dtype, reason)


def _image_rule(files: CheckpointFiles) -> ImageRule:
    settings = read_image_settings(files)
    return ImageRule.from_config(settings.processor, pad_to_square=settings.pad_to_square)


def _bundle(
    loaded: LoadedModel,
    image_rule: ImageRule,
    name: str,
    template: PromptTemplate,
    device: torch.device,
    dtype: torch.dtype,
    reason: str,
) -> LlavaBundle:
    config = loaded.model.config
    vision = config.vision_config
    side = vision.image_size // vision.patch_size
    preprocessor = ImagePreprocessor(image_rule, patch_size=vision.patch_size, input_size=vision.image_size)
    return LlavaBundle(
        model=loaded.model,
        tokenizer=loaded.tokenizer,
        image_preprocessor=preprocessor,
        name=name,
        conv_mode=template.key,
        device=device,
        dtype=dtype,
        device_reason=reason,
        image_token_id=int(config.image_token_index),
        visual_tokens=side * side + _class_tokens(config),
        grid_shape=(side, side),
        patch_size=int(vision.patch_size),
        max_positions=int(config.text_config.max_position_embeddings),
        versions=_versions(),
        template=template,
        use_im_start_end=loaded.use_im_start_end,
    )


def _class_tokens(config: Any) -> int:
    """Visual tokens before the first patch."""
    kind, strategy = config.vision_config.model_type, config.vision_feature_select_strategy
    if kind == "clip_vision_model":
        return int(strategy == "full")
    if kind == "siglip_vision_model" and strategy == "full":
        return 0
    raise ValueError(
        "Expected the vision tower to be CLIP (vision_feature_select_strategy default or full) or SigLIP (full), "
        f"but got {kind!r} with {strategy!r}, whose patches cannot be told from its other tokens."
    )


def _versions() -> dict[str, str]:
    import torch
    import transformers

    return {"torch": torch.__version__, "transformers": transformers.__version__, "tool": TOOL_VERSION}
