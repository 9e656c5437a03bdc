"""A family's own processor, made of Pillow parts, so that torchvision is needed only where there is no such part."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Parts for video and sound, which are never asked for anything here.
_UNUSED = ("video_processor", "feature_extractor")
_CONFIG_FILES = ("processor_config.json", "tokenizer_config.json", "preprocessor_config.json")


@dataclass(frozen=True)
class Processors:
    """What turns a picture and a text into a model's inputs.

    Attributes:
        processor: The family's own, which expands the image's placeholder.
        image_processor: Its part for pictures.
        tokenizer: Its part for text.
    """

    processor: Any
    image_processor: Any
    tokenizer: Any


def load_processors(name: str, model_type: str, place: Mapping[str, Any]) -> Processors:
    """Load the parts of a processor one by one, those for pictures on Pillow, and put them together.

    The automatic loader also makes a video processor, which every version of transformers builds on torchvision.

    Args:
        name: A directory or the id of a hub repository.
        model_type: Of the model's configuration.
        place: `cache_dir`, `revision` and the like, for `from_pretrained`.

    Raises:
        ValueError: If a part is missing, or can only be made with a library that is not installed.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **place)
    image_processor = _image_processor(name, place)
    for class_name in _class_names(name, model_type, place):
        kind = _family_class(class_name)
        if kind is not None:
            processor = _put_together(kind, tokenizer, image_processor, name, place)
            return Processors(processor, image_processor, tokenizer)
    import transformers

    raise ValueError(
        f"Expected transformers {transformers.__version__} to have a processor for {name!r} ({model_type!r}), but got "
        "none. Remote code is never run: use a checkpoint in the transformers format, or a newer transformers."
    )


def _class_names(name: str, model_type: str, place: Mapping[str, Any]) -> list[str]:
    """Names of processor classes: those that the checkpoint says, then the one of its model type."""
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    named = [_json(name, file, place).get("processor_class") for file in _CONFIG_FILES]
    return [found for found in (*named, PROCESSOR_MAPPING_NAMES.get(model_type)) if isinstance(found, str)]


def _family_class(class_name: str) -> Any:
    """A processor class whose unused parts may be anything; None where there is none by that name."""
    import transformers

    if class_name == "PixtralProcessor":
        return RowsProcessor  # the family's own cannot even be imported without torchvision
    kind = getattr(transformers, class_name, None)
    if kind is None or getattr(kind, "is_dummy", False) or not hasattr(kind, "from_args_and_dict"):
        return None
    return type(class_name, (kind,), {"get_possibly_dynamic_module": staticmethod(_any_class)})


def _any_class(name: str) -> type:
    """Let a part of any class pass the check of a processor's parts."""
    del name
    return object


def _put_together(kind: Any, tokenizer: Any, image_processor: Any, name: str, place: Mapping[str, Any]) -> Any:
    parts = {"tokenizer": tokenizer, "image_processor": image_processor}
    arguments = [_part(attribute, parts, kind) for attribute in _attributes(kind)]
    settings, _ = kind.get_processor_dict(name, **place)
    settings.setdefault("chat_template", getattr(tokenizer, "chat_template", None))
    try:
        processor = kind.from_args_and_dict(arguments, settings)
    except ImportError as error:
        raise ValueError(
            f"Expected the processor of {name!r} to be made, but got: {' '.join(str(error).split())[:200]}"
        ) from error
    # Version 4 gives what was not used beside it.
    return processor[0] if isinstance(processor, tuple) else processor


def _json(name: str, file: str, place: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON file of a checkpoint; empty where there is none."""
    import json

    from transformers.utils import cached_file

    found = cached_file(name, file, _raise_exceptions_for_missing_entries=False, **place)
    if found is None:
        return {}
    content = json.loads(Path(found).read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


def _image_processor(name: str, place: Mapping[str, Any]) -> Any:
    """The picture part on Pillow.

    Raises:
        ValueError: If transformers has it on torchvision only, and that is not installed.
    """
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(name, trust_remote_code=False, **_pillow_option(), **place)
    except (ImportError, ValueError) as error:
        if "torchvision" not in str(error).lower():
            raise
        raise ValueError(
            f"Expected the image processor of {name!r} to be made with Pillow alone, but got one that transformers "
            "has on torchvision only. Install the torchvision that belongs to your torch: pip install torchvision."
        ) from error


def _pillow_option() -> dict[str, Any]:
    """How `from_pretrained` is asked for the Pillow kind; the option was renamed in version 5."""
    import transformers

    return {"backend": "pil"} if int(transformers.__version__.split(".")[0]) >= 5 else {"use_fast": False}


def _attributes(kind: Any) -> list[str]:
    """Names of the parts that a processor is made of, in the order of its arguments."""
    if hasattr(kind, "get_attributes"):
        return list(kind.get_attributes())
    return list(kind.attributes)


def _part(attribute: str, parts: Mapping[str, Any], kind: Any) -> Any:
    if attribute in parts:
        return parts[attribute]
    if attribute in _UNUSED:
        return _Unused()
    raise ValueError(
        f"Expected {kind.__name__} to be made of tokenizer, image_processor and parts for sound or video, but got "
        f"{attribute!r} among its parts. This model cannot be read."
    )


class _Unused(dict):  # type: ignore[type-arg]
    """A part that is never used: whatever is looked up in it while a processor is put together is there and empty."""

    valid_kwargs = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __missing__(self, key: str) -> int:
        return 0


class RowsProcessor:
    """Pixtral's layout, also Mistral 3's and LightOnOCR's: a token behind each row of patches, another at the end."""

    attributes = ("image_processor", "tokenizer")

    def __init__(
        self,
        image_processor: Any,
        tokenizer: Any,
        *,
        patch_size: int = 16,
        spatial_merge_size: int = 1,
        chat_template: str | None = None,
        image_token: str = "[IMG]",
        image_break_token: str = "[IMG_BREAK]",
        image_end_token: str = "[IMG_END]",
    ) -> None:
        """Set up a processor; the arguments are the keys of a checkpoint's processor_config.json."""
        self.image_processor, self.tokenizer, self.chat_template = image_processor, tokenizer, chat_template
        self.cell = patch_size * spatial_merge_size
        self.image_token, self.break_token, self.end_token = image_token, image_break_token, image_end_token

    @classmethod
    def get_processor_dict(cls, name: str, **place: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Settings of a checkpoint, and nothing else."""
        return {**_chat_template_file(name, place), **_json(name, "processor_config.json", place)}, {}

    @classmethod
    def from_args_and_dict(cls, arguments: Sequence[Any], settings: Mapping[str, Any]) -> RowsProcessor:
        """Make a processor of its parts and a checkpoint's settings."""
        known = inspect.signature(cls.__init__).parameters
        image_processor, tokenizer = arguments
        others = {key: value for key, value in settings.items() if key in known and key not in cls.attributes}
        return cls(image_processor, tokenizer, **others)

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
        """Render a conversation."""
        return str(self.tokenizer.apply_chat_template(messages, chat_template=self.chat_template, **options))

    def __call__(
        self, *, text: Sequence[str], images: Sequence[Any], return_tensors: str = "pt", **text_options: Any
    ) -> dict[str, Any]:
        """Prepare one picture and one text with its placeholder."""
        cell = {"height": self.cell, "width": self.cell}
        pictures = self.image_processor(list(images), patch_size=cell, return_tensors=return_tensors)
        height, width = (int(side) for side in pictures["image_sizes"][0])
        rows = [self.image_token * (width // self.cell)] * (height // self.cell)
        expanded = text[0].replace(self.image_token, self.break_token.join(rows) + self.end_token, 1)
        return {**self.tokenizer([expanded], return_tensors=return_tensors, **text_options), **pictures}


def _chat_template_file(name: str, place: Mapping[str, Any]) -> dict[str, Any]:
    """A chat template kept in a file of its own, as newer checkpoints do."""
    return {key: value for key, value in _json(name, "chat_template.json", place).items() if key == "chat_template"}
