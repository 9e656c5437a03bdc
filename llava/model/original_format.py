"""Loads checkpoints in LLaVA's original format into the stock transformers model."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.constants import IM_END_TOKEN, IM_START_TOKEN
from llava.mm_utils import pads_to_square
from llava.model.checkpoint_files import CheckpointFiles, refuse_faulty_tensors
from llava.model.config_checks import check_numbers
from llava.model.tokenizers import check_vocabulary, load_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import LlavaConfig, LlavaForConditionalGeneration

logger = logging.getLogger(__name__)

_LANGUAGE_MODELS = {"llava": "llama", "llava_llama": "llama", "llava_mistral": "mistral"}
_FEATURE_STRATEGIES = {"patch": "default", "cls_patch": "full"}
_PROJECTORS = {"mlp2x_gelu": "gelu", "linear": "linear"}
# What a config.json of the original format says about LLaVA itself, not about its language model.
_NOT_LANGUAGE_KEYS = {"architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "auto_map"}
# Buffers that old checkpoints saved; the model computes them itself.
_COMPUTED_SUFFIXES = ("rotary_emb.inv_freq", "embeddings.position_ids")
# Tables with a row for each token, to which the image's row is added.
_VOCABULARY_TENSORS = {"language.embed_tokens.weight", "lm_head.weight"}
# A vision tower is small beside its language model, so that its memory is told for half precision.
_BYTES_OF_HALF = 2
# The half of a CLIP repository that LLaVA does not use.
_TEXT_TOWER_PREFIXES = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")


@dataclass(frozen=True)
class OriginalCheckpoint:
    """What a checkpoint in the original format gives.

    Attributes:
        model: The stock model with all its weights, on its device.
        tokenizer: Its tokenizer.
        use_im_start_end: Whether the image stands between `<im_start>` and `<im_end>`.
    """

    model: LlavaForConditionalGeneration
    tokenizer: Any
    use_im_start_end: bool


def is_original_format(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is LLaVA's own rather than that of the Hugging Face class."""
    return "mm_vision_tower" in config and "text_config" not in config


def load_original(
    files: CheckpointFiles, config: Mapping[str, Any], *, device: torch.device, dtype: torch.dtype
) -> OriginalCheckpoint:
    """Load a checkpoint such as `liuhaotian/llava-v1.5-7b`.

    The image gets a token id of its own after the vocabulary, with rows of zeros that nothing ever reads.

    Args:
        files: The checkpoint.
        config: Its config.json.
        device: Where the weights go, tensor by tensor.
        dtype: What they become on the way.

    Raises:
        ValueError: If the config asks for what is not supported, or any tensor is missing, unexpected or misshapen.
    """
    files.check_weights()
    tower = _vision_tower_files(files, str(config["mm_vision_tower"]))
    model_config = build_config(config, _vision_config(tower))
    tokenizer = load_tokenizer(files, original=True)
    check_vocabulary(tokenizer, files.name, int(config["vocab_size"]))
    use_im_start_end = bool(config.get("mm_use_im_start_end"))
    if use_im_start_end:
        _check_image_marks(tokenizer, files.name)
    model = load_weights(files, tower, model_config, device=device, dtype=dtype)
    model.generation_config.bos_token_id = tokenizer.bos_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.suppress_tokens = [model_config.image_token_index]
    return OriginalCheckpoint(model, tokenizer, use_im_start_end)


def original_image_settings(files: CheckpointFiles, config: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """How images are prepared: padded to a square if the checkpoint says so, then as the vision tower's own processor.

    Args:
        files: The checkpoint.
        config: Its config.json.

    Returns:
        The vision tower's processor settings, and whether images are padded first.
    """
    tower = _vision_tower_files(files, str(config["mm_vision_tower"]))
    tower.announce(_BYTES_OF_HALF)
    pad_to_square = pads_to_square(str(config.get("image_aspect_ratio") or "square"))
    preprocessor = tower.json("preprocessor_config.json")
    if not preprocessor:
        size = _vision_config(tower)["image_size"]
        logger.warning("Vision tower %s has no preprocessor_config.json: CLIP's own at %d px is used.", tower, size)
        preprocessor = {"image_processor_type": "CLIPImageProcessor", "size": size, "crop_size": size}
    return preprocessor, pad_to_square


# Config -------------------------------------------------------------------------------------------------------------


def build_config(config: Mapping[str, Any], vision_config: Mapping[str, Any]) -> LlavaConfig:
    """Translate a config.json of the original format.

    Args:
        config: The checkpoint's config.json.
        vision_config: The vision half of its vision tower's config.json.

    Returns:
        The stock config; its vocabulary is one larger, and the last id is the image.
    """
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, MistralConfig

    model_type = _choice(config, "model_type", "llava", _LANGUAGE_MODELS)
    language_class = {"llama": LlamaConfig, "mistral": MistralConfig}[model_type]
    language = {
        key: value
        for key, value in config.items()
        if key not in _NOT_LANGUAGE_KEYS and not key.startswith(("mm_", "tune_mm", "freeze_mm", "image_", "use_mm"))
    }
    image_token_id = int(config["vocab_size"])
    text_config = language_class.from_dict({**language, "vocab_size": image_token_id + 1})
    vision = CLIPVisionConfig.from_dict({**vision_config, "model_type": "clip_vision_model"})
    patches = (vision.image_size // vision.patch_size) ** 2
    strategy = _choice(config, "mm_vision_select_feature", "patch", _FEATURE_STRATEGIES)
    return LlavaConfig(
        vision_config=vision,
        text_config=text_config,
        image_token_index=image_token_id,
        projector_hidden_act=_choice(config, "mm_projector_type", "linear", _PROJECTORS),
        vision_feature_layer=int(config.get("mm_vision_select_layer", -2)),
        vision_feature_select_strategy=strategy,
        image_seq_length=patches + (strategy == "full"),
        tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
    )


def _choice(config: Mapping[str, Any], key: str, default: str, known: Mapping[str, str]) -> str:
    value = config.get(key) or default
    if value not in known:
        raise ValueError(f"Expected {key} in config.json to be one of {', '.join(known)}, but got {value!r}.")
    return known[value]


def _vision_tower_files(files: CheckpointFiles, tower: str) -> CheckpointFiles:
    """The vision tower's own files: a folder of the checkpoint, any directory, or a hub repository."""
    inside = Path(files.name, tower)
    if files.is_local and inside.is_dir():
        return CheckpointFiles(str(inside))
    where = f"mm_vision_tower in config.json of {files.name!r}"
    return CheckpointFiles(tower, cache_dir=files.cache_dir, named_in=where)


def _vision_config(tower: CheckpointFiles) -> dict[str, Any]:
    tower.require("config.json")
    config = tower.json("config.json")
    vision: dict[str, Any] = config.get("vision_config", config)
    if not isinstance(vision, dict) or "image_size" not in vision or "patch_size" not in vision:
        raise ValueError(
            f"Expected config.json of vision tower {tower.name!r} to be that of a CLIP vision model, "
            "but got one without image_size and patch_size."
        )
    check_numbers(vision, f"config.json of vision tower {tower.name!r}")
    return vision


def _check_image_marks(tokenizer: Any, name: str) -> None:
    known = tokenizer.get_vocab()
    missing = [token for token in (IM_START_TOKEN, IM_END_TOKEN) if token not in known]
    if missing:
        raise ValueError(
            f"Expected the tokenizer of {name!r} to know {' and '.join(missing)}, since its config.json sets "
            "mm_use_im_start_end, but got one without. Fetch its added_tokens.json too."
        )


# Weights ------------------------------------------------------------------------------------------------------------


def load_weights(
    files: CheckpointFiles, tower: CheckpointFiles, config: LlavaConfig, *, device: torch.device, dtype: torch.dtype
) -> LlavaForConditionalGeneration:
    """Build the model without memory for its weights, then put each tensor where it belongs.

    Args:
        files: The checkpoint; its own vision tower, if it holds one, goes before `tower`'s.
        tower: Files of the vision tower.
        config: What to build.
        device: Where the weights go.
        dtype: What they become.

    Raises:
        ValueError: If a tensor is missing, unexpected or misshapen; all of them are counted, the first few named.
    """
    from transformers import LlavaForConditionalGeneration

    with parameters_without_memory():
        model = LlavaForConditionalGeneration(config)
    loader = _WeightLoader(model, config, device, dtype)
    for name, tensor in files.tensors():
        loader.put(name, tensor, in_tower=False)
    if not loader.has_vision_tower:
        for name, tensor in tower.tensors():
            loader.put(name, tensor, in_tower=True)
    loader.finish(files.name)
    return model.eval()


@contextlib.contextmanager
def parameters_without_memory() -> Iterator[None]:
    """Within, new modules get parameters of a shape but without memory, while buffers are computed as ever.

    `torch.device("meta")` would leave buffers such as the rotary frequencies, which no checkpoint holds, empty too.
    """
    import torch

    register = torch.nn.Module.register_parameter

    def register_on_meta(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter | None) -> None:
        if parameter is not None:
            parameter = torch.nn.Parameter(parameter.to("meta"), requires_grad=False)
        register(module, name, parameter)

    torch.nn.Module.register_parameter = register_on_meta  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        torch.nn.Module.register_parameter = register  # type: ignore[method-assign]


class _WeightLoader:
    """Puts tensors named as in the original format into a model, and keeps account of what does not fit."""

    def __init__(
        self,
        model: LlavaForConditionalGeneration,
        config: LlavaConfig,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.model = model
        self.config = config
        self.device = device
        self.dtype = dtype
        self.names = {_canonical(name): name for name in model.state_dict()}
        self.tied = bool(config.tie_word_embeddings)
        self.loaded: set[str] = set()
        self.unexpected: list[str] = []
        self.misshapen: list[str] = []

    @property
    def has_vision_tower(self) -> bool:
        return any(name.startswith("vision.") for name in self.loaded)

    def put(self, name: str, tensor: torch.Tensor, *, in_tower: bool) -> None:
        """Place one tensor of a checkpoint, or note why it has no place."""
        if name.endswith(_COMPUTED_SUFFIXES) or (in_tower and name.startswith(_TEXT_TOWER_PREFIXES)):
            return
        canonical = _canonical("vision_tower." + name if in_tower else name)
        if self.tied and canonical == "lm_head.weight":
            return
        if canonical not in self.names:
            self.unexpected.append(name)
            return
        expected = list(self.model.get_parameter(self.names[canonical]).shape)
        expected[0] -= canonical in _VOCABULARY_TENSORS
        if list(tensor.shape) == expected:
            self._assign(canonical, _append_zero_row(tensor) if canonical in _VOCABULARY_TENSORS else tensor)
        else:
            self.misshapen.append(f"{name} {list(tensor.shape)} instead of {expected}")
        self.loaded.add(canonical)

    def finish(self, checkpoint: str) -> None:
        """Fill in what no checkpoint holds, move the buffers, and refuse the model if anything is amiss."""
        import torch

        if self.config.projector_hidden_act == "linear" and "projector.linear_1.weight" in self.loaded:
            # One linear layer is two with nothing between, the second of which changes nothing.
            width = self.config.text_config.hidden_size
            self._assign("projector.linear_2.weight", torch.eye(width))
            self._assign("projector.linear_2.bias", torch.zeros(width))
            self.loaded |= {"projector.linear_2.weight", "projector.linear_2.bias"}
        computed = {"lm_head.weight"} if self.tied else set()
        missing = [_original_name(name) for name in self.names if name not in self.loaded | computed]
        refuse_faulty_tensors(checkpoint, missing=missing, unexpected=self.unexpected, misshapen=self.misshapen)
        if self.tied:
            self.model.tie_weights()
        for module in self.model.modules():
            for name, buffer in module._buffers.items():
                module._buffers[name] = buffer if buffer is None else buffer.to(self.device)

    def _assign(self, canonical: str, tensor: torch.Tensor) -> None:
        import torch

        path, _, leaf = self.names[canonical].rpartition(".")
        # A copy, also where nothing changes: a mapped file must not stay open behind the model's back.
        moved = tensor.to(device=self.device, dtype=self.dtype, copy=True)
        setattr(self.model.get_submodule(path), leaf, torch.nn.Parameter(moved, requires_grad=False))


def _append_zero_row(tensor: torch.Tensor) -> torch.Tensor:
    """Add the image token's row."""
    import torch

    return torch.cat([tensor, tensor.new_zeros(1, tensor.shape[1])])


def _canonical(name: str) -> str:
    """One name for a tensor, whatever the format and the version of transformers call it.

    Checkpoints say `model.layers.0...`, `model.vision_tower.vision_tower.vision_model...`, `model.mm_projector.0...`;
    transformers 4.52 `model.language_model.layers.0...`, `model.vision_tower.vision_model...`, and newer versions leave
    `vision_model` out.
    """
    if name.endswith("lm_head.weight"):
        return "lm_head.weight"
    if "vision_tower." in name:
        inner = name.rpartition("vision_tower.")[2]
        return "vision." + (inner[len("vision_model.") :] if inner.startswith("vision_model.") else inner)
    if "multi_modal_projector." in name:
        return "projector." + name.rpartition("multi_modal_projector.")[2]
    if "mm_projector." in name:
        layer, _, leaf = ("." + name.rpartition("mm_projector.")[2]).rpartition(".")
        return "projector." + {"": "linear_1.", ".0": "linear_1.", ".2": "linear_2."}.get(layer, layer) + leaf
    inner = name.rpartition("language_model.")[2]
    return "language." + (inner[len("model.") :] if inner.startswith("model.") else inner)


def _original_name(canonical: str) -> str:
    """What the original format calls a tensor, for error messages."""
    kind, _, rest = canonical.partition(".")
    if kind == "projector":
        return "model.mm_projector." + rest.replace("linear_1", "0").replace("linear_2", "2")
    return {"language": "model.", "vision": "vision_model."}.get(kind, kind + ".") + rest
