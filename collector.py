"""Image + query -> attention of the last prompt token to the image; one image prefill serves all its queries."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from lab.records import CollectedAttention, Sample
from vlm.loading import LlavaBundle
from vlm.prefix_sharing import Branches, rounds
from vlm.preparing import CollectionFailure, Picture, Prepared, Question, ahead, by_image, prepare
from vlm.prompt_encoding import EncodedPrompt
from vlm.temporary_changes import (
    attention_backend,
    attention_windows,
    kept_rows,
    only_layers,
    short_last_layer,
    short_unused_vision_layers,
)

if TYPE_CHECKING:
    import torch

__all__ = ["AttentionCollector", "Collected", "CollectionFailure"]

logger = logging.getLogger(__name__)

Collected = Union[CollectedAttention, CollectionFailure]


@dataclass(frozen=True)
class _Reading:
    """What the model gave for one question: attention `[layers, heads, visual_tokens]` and what to say of it."""

    attention: np.ndarray
    meta: dict[str, Any]


class AttentionCollector:
    """Runs a model over samples and keeps the attention of the last prompt token to the image.

    Rows about one image share one prefill: system text and image run once with a key-value cache (any attention
    backend), then the queries run against the cached keys with eager attention, side by side as branches of one
    sequence that cannot see each other. Only the last tokens' rows, cut to the image, outlive a layer.
    """

    def __init__(
        self,
        bundle: LlavaBundle,
        *,
        batch_size: int = 1,
        use_generate: bool = False,
        max_new_tokens: int = 32,
        do_sample: bool = False,
        num_beams: int = 1,
        stop_layer: int | None = None,
    ) -> None:
        """Set up a collector.

        Args:
            bundle: The loaded model.
            batch_size: Images in one prefill.
            use_generate: Whether to let the model answer, and take the first generated step's attention.
            max_new_tokens: Longest answer, for `use_generate`.
            do_sample: Whether answers are sampled, for `use_generate`.
            num_beams: Beams of the search for an answer, for `use_generate`.
            stop_layer: 0-based index of the deepest layer that is wanted; those above it do not run. None: all run.

        Raises:
            ValueError: If a number is out of range, or `stop_layer` is combined with `use_generate`.
        """
        if batch_size < 1:
            raise ValueError(f"Expected model.batch_size to be at least 1, but got {batch_size}.")
        if stop_layer is not None and not 0 <= stop_layer < bundle.num_layers:
            raise ValueError(
                f"Expected stop_layer to be a layer of the model (0 to {bundle.num_layers - 1}), but got {stop_layer}."
            )
        if stop_layer is not None and use_generate:
            raise ValueError(
                "Expected no early exit together with model.use_generate=true, since an answer takes all layers, "
                f"but got stop_layer={stop_layer}. Set model.early_exit=false."
            )
        self.bundle = bundle
        self.batch_size = batch_size
        self.use_generate = use_generate
        self.max_new_tokens = max_new_tokens
        self.do_sample = do_sample
        self.num_beams = num_beams
        self.stop_layer = stop_layer
        self._named_unknown: set[str] = set()

    def collect(self, samples: Iterable[Sample]) -> Iterator[Collected]:
        """Collect the attention of each sample.

        Args:
            samples: What to ask of which image; read a window ahead, so it may be a stream without end. Rows about one
                image are fastest when they follow one another.

        Yields:
            For each sample, in the order given, its attention or the reason why there is none.
        """
        waiting: dict[int, Collected] = {}
        next_position = 0
        prepared = self._prepared(samples)
        # The batch is read anew each time, since it shrinks where the memory does not suffice.
        while batch := list(itertools.islice(prepared, self.batch_size)):
            waiting.update(self._collect_batch(batch))
            while next_position in waiting:
                yield waiting.pop(next_position)
                next_position += 1

    # On the host ------------------------------------------------------------------------------------------------

    def _prepared(self, samples: Iterable[Sample]) -> Iterator[Prepared]:
        """Images decoded and prompts tokenised, a few images ahead of the model."""
        answer_tokens = self.max_new_tokens if self.use_generate else 0
        prepare_rows = functools.partial(prepare, bundle=self.bundle, answer_tokens=answer_tokens)
        return ahead(prepare_rows, by_image(samples), depth=self.batch_size + 1)

    def _collect_batch(self, batch: Sequence[Prepared]) -> dict[int, Collected]:
        """Run the model over a few images; by position."""
        results: dict[int, Collected] = {}
        for prepared in batch:
            results.update(prepared.failures)
        # Images share a prefill only if the text before and after them does, which is so unless a query places them.
        by_prefix: dict[tuple[int, ...], list[Picture]] = {}
        for picture in itertools.chain.from_iterable(prepared.pictures for prepared in batch):
            by_prefix.setdefault(picture.prefix_ids, []).append(picture)
        for pictures in by_prefix.values():
            results.update(self._read_or_halve(pictures))
        return results

    # On the model -----------------------------------------------------------------------------------------------

    def _read_or_halve(self, pictures: list[Picture]) -> dict[int, Collected]:
        """Read a batch, in halves where the memory does not suffice."""
        try:
            readings = self._generate(pictures) if self.use_generate else self._forward(pictures)
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
        else:
            return self._results(pictures, readings)
        # Outside the handler, so that the failed forward's tensors are gone.
        _free_memory()
        halves = _halves(pictures)
        if halves is None:
            return self._out_of_memory(pictures[0].questions[0])
        if len(pictures) > 1:
            self.batch_size = min(self.batch_size, len(halves[0]))
        logger.warning("Out of memory: going on with %d images at a time", self.batch_size)
        return {**self._read_or_halve(halves[0]), **self._read_or_halve(halves[1])}

    def _results(self, pictures: list[Picture], readings: list[list[_Reading]]) -> dict[int, Collected]:
        return {
            question.row.position: self._result(picture, question, reading)
            for picture, picture_readings in zip(pictures, readings)
            for question, reading in zip(picture.questions, picture_readings)
        }

    def _result(self, picture: Picture, question: Question, reading: _Reading) -> Collected:
        """The record of one sample, checked."""
        sample = question.row.sample
        self._name_unknown(question.prompt.unknown_words, sample)
        if question.row.as_typed != sample.query:
            logger.info("The query of sample %r is read without the white space at its ends", sample.id)
        try:
            return CollectedAttention(
                attention=reading.attention,
                grid=picture.grid,
                image_size_wh=picture.image_size_wh,
                sample=sample,
                meta={**self._meta(picture, question), **reading.meta},
            )
        except ValueError as error:
            return CollectionFailure(sample, str(error))

    def _name_unknown(self, words: Sequence[str], sample: Sample) -> None:
        """Warn of words that the tokenizer does not know, each once a run."""
        new = [word for word in words if word not in self._named_unknown]
        if new:
            self._named_unknown.update(new)
            logger.warning("The model does not know %s (sample %r)", ", ".join(map(repr, new)), sample.id)

    def _out_of_memory(self, question: Question) -> dict[int, Collected]:
        sample = question.row.sample
        reason = (
            f"Expected one image with one query to fit into the memory of {self.bundle.device}, but got out of memory "
            f"for sample {sample.id!r}. Use model.dtype=float16, a smaller model, model.use_generate=false, or "
            "model.device=cpu."
        )
        return {question.row.position: CollectionFailure(sample, reason)}

    def _forward(self, pictures: list[Picture]) -> list[list[_Reading]]:
        """Attention of every question of some images with one prefix: one prefill, then branches."""
        import torch

        model = self.bundle.model.model
        prefix = torch.tensor([picture.prefix_ids for picture in pictures], device=self.bundle.device)
        rows: list[list[np.ndarray]] = [[] for _ in pictures]
        with torch.inference_mode(), only_layers(model.language_model, self.stop_layer):
            cache = self._prefill(prefix, self._pixels(pictures))
            for prompts in rounds([[question.prompt for question in picture.questions] for picture in pictures]):
                branches = Branches.of(prompts, prefix.shape[1])
                attention = self._read_branches(branches, cache)
                cache.crop(-branches.ids.shape[1])
                for index, (image, _) in enumerate(branches.ends):
                    rows[image].append(attention[:, index])
        return [[_Reading(row, {"attention_source": "forward"}) for row in image_rows] for image_rows in rows]

    def _pixels(self, pictures: Sequence[Picture]) -> torch.Tensor:
        import torch

        stacked = torch.from_numpy(np.stack([picture.pixels for picture in pictures]))
        return stacked.to(device=self.bundle.device, dtype=self.bundle.dtype)

    def _prefill(self, prefix: torch.Tensor, pixels: torch.Tensor) -> Any:
        """Keys and values of system text and image; no logits, no attention weights."""
        from transformers import DynamicCache

        model = self.bundle.model.model
        cache = DynamicCache()
        language_model = model.language_model
        with contextlib.ExitStack() as shortened:
            shortened.enter_context(attention_backend(language_model, self.bundle.prefill_attention))
            shortened.enter_context(short_last_layer(language_model))
            shortened.enter_context(short_unused_vision_layers(model))
            model(input_ids=prefix, pixel_values=pixels, past_key_values=cache, use_cache=True)
        return cache

    def _read_branches(self, branches: Branches, cache: Any) -> np.ndarray:
        """Attention `[layers, questions, heads, visual_tokens]` of the last token of each branch, float32."""
        import torch

        device, language_model = self.bundle.device, self.bundle.model.model.language_model
        images, tokens = (torch.tensor(index, device=device) for index in zip(*branches.ends))
        first, last = self._patch_range(branches.prompt)
        with kept_rows(language_model, lambda weights: weights[images, :, tokens, first:last]) as rows:
            language_model(
                input_ids=torch.from_numpy(branches.ids).to(device),
                position_ids=torch.from_numpy(branches.positions).to(device),
                attention_mask=self._branch_mask(branches),
                past_key_values=cache,
                use_cache=True,
                output_attentions=True,
            )
        return torch.stack(rows).float().cpu().numpy()

    def _branch_mask(self, branches: Branches) -> Any:
        """One mask for all layers, or one for each kind where only some layers have a sliding window."""
        bundle = self.bundle
        masks = {
            kind: branches.mask(bundle.dtype, bundle.device, window)
            for kind, window in attention_windows(bundle.model.config.text_config).items()
        }
        return masks if len(masks) > 1 else next(iter(masks.values()))

    def _patch_range(self, prompt: EncodedPrompt) -> tuple[int, int]:
        """Positions of the patches: the image's, less a class token before them."""
        image = prompt.segments.image
        return image.start + self.bundle.class_tokens, image.end

    # Generate mode ----------------------------------------------------------------------------------------------

    def _generate(self, pictures: list[Picture]) -> list[list[_Reading]]:
        """Attention of the first generated step of every question, one after the other."""
        return [[self._answer(picture, question) for question in picture.questions] for picture in pictures]

    def _answer(self, picture: Picture, question: Question) -> _Reading:
        """Let the model answer one question."""
        import torch

        model = self.bundle.model
        ids = torch.tensor([question.prompt.input_ids], device=self.bundle.device)
        first, last = self._patch_range(question.prompt)
        language_model = model.model.language_model
        with torch.inference_mode(), kept_rows(language_model, lambda weights: weights[:, :, -1, first:last]) as rows:
            outputs = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=self._pixels([picture]),
                return_dict_in_generate=True,
                output_attentions=True,
                **self._generation_options(),
            )
        text = self.bundle.tokenizer.decode(outputs.sequences[0, ids.shape[1] :], skip_special_tokens=True).strip()
        if not rows or not getattr(outputs, "attentions", None) or any(step is None for step in outputs.attentions[0]):
            return self._forward_instead(picture, question, text)
        # Beams are copies of one another until the first step is over, so the first one's row is everyone's.
        attention = torch.stack([layer[0] for layer in rows]).float().cpu().numpy()
        meta: dict[str, Any] = {"attention_source": "generate", "generated_text": text}
        if self.num_beams > 1:
            meta["beam"] = f"0 of {self.num_beams}; all are equal at the first step"
        return _Reading(attention, meta)

    def _forward_instead(self, picture: Picture, question: Question, text: str) -> _Reading:
        logger.warning("generate returned no attentions for sample %r: forward mode is used", question.row.sample.id)
        [[reading]] = self._forward([replace(picture, questions=(question,))])
        source = "forward (generate returned no attentions)"
        return replace(reading, meta={"attention_source": source, "generated_text": text})

    def _generation_options(self) -> dict[str, Any]:
        tokenizer = self.bundle.tokenizer
        padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        options = {
            "max_new_tokens": self.max_new_tokens,
            "do_sample": self.do_sample,
            "num_beams": self.num_beams,
            "pad_token_id": padding,
        }
        # Sampling settings that a checkpoint brings along would be warned of when nothing is sampled.
        return options if self.do_sample else {**options, "temperature": None, "top_p": None, "top_k": None}

    def _meta(self, picture: Picture, question: Question) -> dict[str, Any]:
        """What is stored beside the attention: plain data only."""
        bundle, prompt, sample = self.bundle, question.prompt, question.row.sample
        return {
            "id": sample.id,
            "image_file": sample.image_file,
            "query": sample.query,
            "query_trimmed": question.row.as_typed != sample.query,
            "model_name": bundle.name,
            "image_size": list(picture.image_size_wh),
            "vis_len": picture.grid.num_cells,
            "patch_size": bundle.patch_size,
            "grid": asdict(picture.grid),
            "num_layers": bundle.num_layers,
            "num_heads": bundle.num_heads,
            "attn_dtype": "float32",
            "stop_layer": self.stop_layer,
            "prompt_template": bundle.conv_mode,
            "prompt": prompt.text,
            "segments": prompt.segments.to_list(),
            "last_prompt_token": prompt.segments.last_token,
            "unknown_words": list(prompt.unknown_words),
            "device": bundle.device_reason,
            "dtype": str(bundle.dtype).replace("torch.", ""),
            "versions": dict(bundle.versions),
        }


# Memory ---------------------------------------------------------------------------------------------------------------


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "not enough memory" in str(error)


def _free_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _halves(pictures: list[Picture]) -> tuple[list[Picture], list[Picture]] | None:
    """Two smaller batches: half of the images, or half of the questions of a single one."""
    if len(pictures) > 1:
        middle = len(pictures) // 2
        return pictures[:middle], pictures[middle:]
    picture, questions = pictures[0], pictures[0].questions
    if len(questions) == 1:
        return None
    middle = len(questions) // 2
    return [replace(picture, questions=questions[:middle])], [replace(picture, questions=questions[middle:])]
