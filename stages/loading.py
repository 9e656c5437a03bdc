"""Settings of the model -> the collector that runs it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol

from lab.config.settings import ModelSettings
from lab.records import Sample

if TYPE_CHECKING:
    from collector import AttentionCollector, Collected
    from vlm.any_model import AnyModel
    from vlm.bundle import ImageTextBundle
    from vlm.image_preprocessing import ImagePreprocessor
    from vlm.loading import LlavaBundle


class Collector(Protocol):
    """What `collector.AttentionCollector` does; tests put a fake in its place."""

    def collect(self, samples: Iterable[Sample]) -> Iterator[Collected]:
        """Yield attention, or the reason why there is none, for each sample in order."""
        ...


CollectorLoader = Callable[[ModelSettings, Optional[int]], Collector]


def load_collector(model: ModelSettings, stop_layer: Optional[int] = None) -> Collector:
    """Load the model, and make the collector that runs it.

    Args:
        model: Which checkpoint, and how it runs.
        stop_layer: Deepest layer that is wanted; None for all.

    Returns:
        The collector.
    """
    from llava.model.hub import export_cache_dir

    export_cache_dir(model.cache_dir)  # transformers reads it when it is imported, below
    from collector import AttentionCollector

    if model.reads_any_model:
        return _collector(AttentionCollector, load_any(model), model, stop_layer)
    bundle = _load_llava(model)
    collector = _collector(AttentionCollector, bundle, model, stop_layer)
    return collector if model.views == 1 else _with_views(collector, bundle.image_preprocessor)


def _collector(
    kind: type[AttentionCollector], bundle: ImageTextBundle, model: ModelSettings, stop_layer: Optional[int]
) -> Collector:
    return kind(
        bundle,
        batch_size=model.batch_size,
        use_generate=model.use_generate,
        max_new_tokens=model.max_new_tokens,
        do_sample=model.do_sample,
        num_beams=model.num_beams,
        stop_layer=stop_layer,
    )


def load_any(model: ModelSettings) -> AnyModel:
    """Load any image-text model by its settings.

    Args:
        model: Which checkpoint, and how it runs; its prompt is `chat` or `plain`.

    Returns:
        The model with all that belongs to it.

    Raises:
        ValueError: If it cannot be loaded or read.
    """
    from vlm.any_model import load_any_model

    return load_any_model(_checkpoint(model), quantization=model.quantization, **_common(model))


def _load_llava(model: ModelSettings) -> LlavaBundle:
    from vlm.loading import load_llava

    return load_llava(_checkpoint(model), prefill_attention=model.prefill_attention, **_common(model))


def _common(model: ModelSettings) -> dict[str, Any]:
    """Options of both ways to load."""
    return {
        "cache_dir": model.cache_dir,
        "revision": model.revision,
        "device": model.device,
        "device_id": model.device_id,
        "dtype": model.dtype,
        "conv_mode": model.conv_mode,
        "use_flash_attn": model.use_flash_attn,
    }


def _with_views(collector: Collector, preprocessor: ImagePreprocessor) -> Collector:
    """Make the collector look at each picture four times."""
    from stages.views import ViewsCollector

    if not preprocessor.rule.pad_to_square:
        raise ValueError(
            "Expected model.views=4 with a model that pads pictures to squares, such as LLaVA-1.5, but got one that "
            "resizes or crops them, whose cells would not stay the same from view to view. Set model.views=1."
        )
    cells = preprocessor.input_size // preprocessor.patch_size
    return ViewsCollector(collector, cells=cells, background=preprocessor.rule.background)


def _checkpoint(model: ModelSettings) -> str:
    """The checkpoint's name or directory; what looks for it waits, since the help page imports this file."""
    from stages.plan import find_in_project

    return find_in_project(model.name)
