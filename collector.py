"""Image + query -> attention of the last prompt token to the image; one image prefill serves all its queries."""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, Union

from lab.records import CollectedAttention, Sample
from vlm.bundle import EncodedQuery, ImageTextBundle, RowReading
from vlm.memory import free_memory, is_out_of_memory
from vlm.preparing import CollectionFailure, Picture, Prepared, Row, ahead, by_image, prepare
from vlm.sharing import PictureReader

__all__ = ["AttentionCollector", "Collected", "CollectionFailure"]

logger = logging.getLogger(__name__)

Collected = Union[CollectedAttention, CollectionFailure]


class AttentionCollector:
    """Runs a model over samples and keeps the attention of the last prompt token to the image.

    Rows about one image share one prefill where that is right for the model (see `vlm.sharing`), and are read beside
    whatever attention the model computes with (see `vlm.attention_rows`).
    """

    def __init__(
        self,
        bundle: ImageTextBundle,
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
        self._reader = PictureReader(bundle, stop_layer)
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
        # Images share a forward only if their prompts begin alike and their inputs have the same shapes.
        together: dict[tuple[object, ...], list[Picture]] = {}
        for picture in itertools.chain.from_iterable(prepared.pictures for prepared in batch):
            together.setdefault(picture.batch_key, []).append(picture)
        for pictures in together.values():
            results.update(self._read_or_halve(pictures))
        return results

    # On the model -----------------------------------------------------------------------------------------------

    def _read_or_halve(self, pictures: list[Picture]) -> dict[int, Collected]:
        """Read a batch, in halves where the memory does not suffice."""
        try:
            readings = self._generate(pictures) if self.use_generate else self._forward(pictures)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        else:
            return self._results(pictures, readings)
        # Outside the handler, so that the failed forward's tensors are gone.
        free_memory()
        halves = _halves(pictures)
        if halves is None:
            return self._out_of_memory(pictures[0].rows[0])
        if len(pictures) > 1:
            self.batch_size = min(self.batch_size, len(halves[0]))
        logger.warning("Out of memory: going on with %d images at a time", self.batch_size)
        return {**self._read_or_halve(halves[0]), **self._read_or_halve(halves[1])}

    def _results(self, pictures: list[Picture], readings: list[list[RowReading]]) -> dict[int, Collected]:
        return {
            row.position: self._result(picture, row, query, reading)
            for picture, picture_readings in zip(pictures, readings)
            for (row, query), reading in zip(picture.questions, picture_readings)
        }

    def _result(self, picture: Picture, row: Row, query: EncodedQuery, reading: RowReading) -> Collected:
        """The record of one sample, checked."""
        sample, encoded = row.sample, picture.encoded
        self._name_unknown(query.unknown_words, sample)
        if row.as_typed != sample.query:
            logger.info("The query of sample %r is read without the white space at its ends", sample.id)
        try:
            return CollectedAttention(
                attention=reading.attention,
                grid=encoded.regions.map_grid(),
                image_size_wh=encoded.image_size_wh,
                sample=sample,
                meta={**self._meta(picture, row, query), **reading.meta},
                regions=None if encoded.regions.is_single else encoded.regions,
                layers_without_map=reading.layers_without_map,
            )
        except ValueError as error:
            return CollectionFailure(sample, str(error))

    def _name_unknown(self, words: Sequence[str], sample: Sample) -> None:
        """Warn of words that the tokenizer does not know, each once a run."""
        new = [word for word in words if word not in self._named_unknown]
        if new:
            self._named_unknown.update(new)
            logger.warning("The model does not know %s (sample %r)", ", ".join(map(repr, new)), sample.id)

    def _out_of_memory(self, row: Row) -> dict[int, Collected]:
        reason = (
            f"Expected one image with one query to fit into the memory of {self.bundle.device}, but got out of memory "
            f"for sample {row.sample.id!r}. Use model.dtype=float16, a smaller model, model.use_generate=false, or "
            "model.device=cpu."
        )
        return {row.position: CollectionFailure(row.sample, reason)}

    def _forward(self, pictures: list[Picture]) -> list[list[RowReading]]:
        """Attention of every question of some images that go together."""
        return self._reader.read([picture.encoded for picture in pictures])

    # Generate mode ----------------------------------------------------------------------------------------------

    def _generate(self, pictures: list[Picture]) -> list[list[RowReading]]:
        """Attention of the first generated step of every question, one after the other."""
        return [[self._answer(picture, number) for number in range(len(picture.rows))] for picture in pictures]

    def _answer(self, picture: Picture, number: int) -> RowReading:
        """Let the model answer one question."""
        single = picture.of(number, number + 1)
        reading, tokens = self._reader.generate(single.encoded, self._generation_options())
        text = self.bundle.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        if reading is None:
            return self._forward_instead(single, text)
        meta: dict[str, Any] = {"attention_source": "generate", "generated_text": text}
        if self.num_beams > 1:
            # Beams are copies of one another until the first step is over, so the first one's row is everyone's.
            meta["beam"] = f"0 of {self.num_beams}; all are equal at the first step"
        return replace(reading, meta=meta)

    def _forward_instead(self, picture: Picture, text: str) -> RowReading:
        sample = picture.rows[0].sample
        logger.warning("generate returned no attentions for sample %r: forward mode is used", sample.id)
        [[reading]] = self._forward([picture])
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

    def _meta(self, picture: Picture, row: Row, query: EncodedQuery) -> dict[str, Any]:
        """What is stored beside the attention: plain data only."""
        bundle, sample, regions = self.bundle, row.sample, picture.encoded.regions
        return {
            "id": sample.id,
            "image_file": sample.image_file,
            "query": sample.query,
            "query_trimmed": row.as_typed != sample.query,
            "model_name": bundle.name,
            "image_size": list(picture.encoded.image_size_wh),
            "vis_len": regions.num_tokens,
            "patch_size": bundle.patch_size,
            "grid": asdict(regions.map_grid()),
            "num_layers": bundle.num_layers,
            "num_heads": bundle.num_heads,
            "attn_dtype": "float32",
            "stop_layer": self.stop_layer,
            "prompt_template": bundle.conv_mode,
            "prompt": query.text,
            "segments": query.segments.to_list(),
            "last_prompt_token": query.segments.last_token,
            "unknown_words": list(query.unknown_words),
            "device": bundle.device_reason,
            "dtype": str(bundle.dtype).replace("torch.", ""),
            "versions": dict(bundle.versions),
        }


def _halves(pictures: list[Picture]) -> tuple[list[Picture], list[Picture]] | None:
    """Two smaller batches: half of the images, or half of the questions of a single one."""
    if len(pictures) > 1:
        middle = len(pictures) // 2
        return pictures[:middle], pictures[middle:]
    [picture] = pictures
    middle = len(picture.rows) // 2
    if not middle:
        return None
    return [picture.of(0, middle)], [picture.of(middle, len(picture.rows))]
