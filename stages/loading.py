"""Settings of the model -> the collector that runs it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Callable, Optional, Protocol

from lab.config.settings import ModelSettings
from lab.records import Sample
from stages.plan import find_in_project

if TYPE_CHECKING:
    from collector import Collected
    from vlm.image_preprocessing import ImagePreprocessor


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
    from vlm.loading import load_llava

    bundle = load_llava(
        find_in_project(model.name),
        cache_dir=model.cache_dir,
        revision=model.revision,
        device=model.device,
        device_id=model.device_id,
        dtype=model.dtype,
        conv_mode=model.conv_mode,
        use_flash_attn=model.use_flash_attn,
        prefill_attention=model.prefill_attention,
    )
    collector = AttentionCollector(
        bundle,
        batch_size=model.batch_size,
        use_generate=model.use_generate,
        max_new_tokens=model.max_new_tokens,
        do_sample=model.do_sample,
        num_beams=model.num_beams,
        stop_layer=stop_layer,
    )
    return collector if model.views == 1 else _with_views(collector, bundle.image_preprocessor)


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
