"""Image + query -> attention of the last prompt token to the image; one image prefill serves all its queries."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Callable, TypeVar, Union

import numpy as np

from lab.records import CollectedAttention, Grid, Sample
from llava.mm_utils import EncodedPrompt, encode_prompt, load_image
from llava.model.builder import LlavaBundle, set_attention

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

# Rows that are looked at together to find those about one image; the output of a row waits for at most so many others.
WINDOW_ROWS = 64
# Query tokens of one image in one forward; more are split, so that memory does not grow with the queries of an image.
MAX_BRANCH_TOKENS = 256

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class CollectionFailure:
    """A sample that gave no attention.

    Attributes:
        sample: What was asked of which image.
        reason: Why it failed, in one sentence.
    """

    sample: Sample
    reason: str


Collected = Union[CollectedAttention, CollectionFailure]


@dataclass(frozen=True)
class _Row:
    """A sample with its place in the output."""

    position: int
    sample: Sample


@dataclass(frozen=True)
class _Question:
    """A row with its tokens."""

    row: _Row
    prompt: EncodedPrompt


@dataclass(frozen=True)
class _Picture:
    """An image ready for the model, with questions whose prompts are the same up to the image's end.

    Attributes:
        pixels: `[3, height, width]`, float32, normalised.
        grid: Where its patches lie.
        image_size_wh: Size of the original.
        questions: What is asked of it.
    """

    pixels: np.ndarray
    grid: Grid
    image_size_wh: tuple[int, int]
    questions: tuple[_Question, ...]

    @property
    def prefix_ids(self) -> tuple[int, ...]:
        """Tokens that all its questions share."""
        return self.questions[0].prompt.prefix_ids


@dataclass(frozen=True)
class _Prepared:
    """What the host made of the rows of one image: pictures, one for each prefix, and rows that failed."""

    pictures: tuple[_Picture, ...]
    failures: dict[int, CollectionFailure]


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

    def _prepared(self, samples: Iterable[Sample]) -> Iterator[_Prepared]:
        """Images decoded and prompts tokenised, a few images ahead of the model."""
        return _ahead(self._prepare, _by_image(samples, WINDOW_ROWS), depth=self.batch_size + 1)

    def _prepare(self, rows: list[_Row]) -> _Prepared:
        """Everything about one image that needs no model."""
        try:
            image = load_image(rows[0].sample.image_file)
            pixels, grid = self.bundle.image_preprocessor(image)
        except (ValueError, MemoryError) as error:
            return _Prepared((), {row.position: CollectionFailure(row.sample, str(error)) for row in rows})
        failures: dict[int, CollectionFailure] = {}
        by_prefix: dict[tuple[int, ...], list[_Question]] = {}
        for row in rows:
            try:
                prompt = self._encode(row.sample)
            except ValueError as error:
                failures[row.position] = CollectionFailure(row.sample, str(error))
                continue
            by_prefix.setdefault(prompt.prefix_ids, []).append(_Question(row, prompt))
        pictures = [_Picture(pixels, grid, image.size, tuple(questions)) for questions in by_prefix.values()]
        return _Prepared(tuple(pictures), failures)

    def _encode(self, sample: Sample) -> EncodedPrompt:
        bundle = self.bundle
        prompt = encode_prompt(
            bundle.template.parts(sample.query, use_im_start_end=bundle.use_im_start_end),
            bundle.tokenizer,
            image_token_id=bundle.image_token_id,
            image_token_count=bundle.visual_tokens,
        )
        needed = len(prompt.input_ids) + (self.max_new_tokens if self.use_generate else 0)
        if needed > bundle.max_positions:
            raise ValueError(
                f"Expected the prompt of sample {sample.id!r} to fit into the {bundle.max_positions} positions of the "
                f"model, but got {needed}, {bundle.visual_tokens} of them for the image. Shorten the query."
            )
        return prompt

    def _collect_batch(self, batch: Sequence[_Prepared]) -> dict[int, Collected]:
        """Run the model over a few images; by position."""
        results: dict[int, Collected] = {}
        for prepared in batch:
            results.update(prepared.failures)
        # Images share a prefill only if the text before and after them does, which is so unless a query places them.
        by_prefix: dict[tuple[int, ...], list[_Picture]] = {}
        for picture in itertools.chain.from_iterable(prepared.pictures for prepared in batch):
            by_prefix.setdefault(picture.prefix_ids, []).append(picture)
        for pictures in by_prefix.values():
            results.update(self._read_or_halve(pictures))
        return results

    # On the model -----------------------------------------------------------------------------------------------

    def _read_or_halve(self, pictures: list[_Picture]) -> dict[int, Collected]:
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

    def _results(self, pictures: list[_Picture], readings: list[list[_Reading]]) -> dict[int, Collected]:
        return {
            question.row.position: self._result(picture, question, reading)
            for picture, picture_readings in zip(pictures, readings)
            for question, reading in zip(picture.questions, picture_readings)
        }

    def _result(self, picture: _Picture, question: _Question, reading: _Reading) -> Collected:
        """The record of one sample, checked."""
        sample = question.row.sample
        self._name_unknown(question.prompt.unknown_words, sample)
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

    def _out_of_memory(self, question: _Question) -> dict[int, Collected]:
        sample = question.row.sample
        reason = (
            f"Expected one image with one query to fit into the memory of {self.bundle.device}, but got out of memory "
            f"for sample {sample.id!r}. Use model.dtype=float16, a smaller model, model.use_generate=false, or "
            "model.device=cpu."
        )
        return {question.row.position: CollectionFailure(sample, reason)}

    def _forward(self, pictures: list[_Picture]) -> list[list[_Reading]]:
        """Attention of every question of some images with one prefix: one prefill, then branches."""
        import torch

        model = self.bundle.model.model
        prefix = torch.tensor([picture.prefix_ids for picture in pictures], device=self.bundle.device)
        rows: list[list[np.ndarray]] = [[] for _ in pictures]
        with torch.inference_mode(), _only_layers(model.language_model, self.stop_layer):
            cache = self._prefill(prefix, self._pixels(pictures))
            for prompts in _rounds(pictures):
                branches = _Branches.of(prompts, prefix.shape[1])
                attention = self._read_branches(branches, cache)
                cache.crop(-branches.ids.shape[1])
                for index, (image, _) in enumerate(branches.ends):
                    rows[image].append(attention[:, index])
        return [[_Reading(row, {"attention_source": "forward"}) for row in image_rows] for image_rows in rows]

    def _pixels(self, pictures: Sequence[_Picture]) -> torch.Tensor:
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
            shortened.enter_context(_attention(language_model, self.bundle.prefill_attention))
            shortened.enter_context(_short_last_layer(language_model))
            shortened.enter_context(_short_unused_vision_layers(model))
            model(input_ids=prefix, pixel_values=pixels, past_key_values=cache, use_cache=True)
        return cache

    def _read_branches(self, branches: _Branches, cache: Any) -> np.ndarray:
        """Attention `[layers, questions, heads, visual_tokens]` of the last token of each branch, float32."""
        import torch

        device, language_model = self.bundle.device, self.bundle.model.model.language_model
        images, tokens = (torch.tensor(index, device=device) for index in zip(*branches.ends))
        first, last = self._patch_range(branches.prompt)
        with _kept_rows(language_model, lambda weights: weights[images, :, tokens, first:last]) as rows:
            language_model(
                input_ids=torch.from_numpy(branches.ids).to(device),
                position_ids=torch.from_numpy(branches.positions).to(device),
                attention_mask=branches.mask(self.bundle.dtype, device),
                past_key_values=cache,
                use_cache=True,
                output_attentions=True,
            )
        return torch.stack(rows).float().cpu().numpy()

    def _patch_range(self, prompt: EncodedPrompt) -> tuple[int, int]:
        """Positions of the patches: the image's, less a class token before them."""
        image = prompt.segments.image
        return image.start + self.bundle.class_tokens, image.end

    # Generate mode ----------------------------------------------------------------------------------------------

    def _generate(self, pictures: list[_Picture]) -> list[list[_Reading]]:
        """Attention of the first generated step of every question, one after the other."""
        return [[self._answer(picture, question) for question in picture.questions] for picture in pictures]

    def _answer(self, picture: _Picture, question: _Question) -> _Reading:
        """Let the model answer one question."""
        import torch

        model = self.bundle.model
        ids = torch.tensor([question.prompt.input_ids], device=self.bundle.device)
        first, last = self._patch_range(question.prompt)
        language_model = model.model.language_model
        with torch.inference_mode(), _kept_rows(language_model, lambda weights: weights[:, :, -1, first:last]) as rows:
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

    def _forward_instead(self, picture: _Picture, question: _Question, text: str) -> _Reading:
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

    def _meta(self, picture: _Picture, question: _Question) -> dict[str, Any]:
        """What is stored beside the attention: plain data only."""
        bundle, prompt, sample = self.bundle, question.prompt, question.row.sample
        return {
            "id": sample.id,
            "image_file": sample.image_file,
            "query": sample.query,
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


# Branches: the queries of an image side by side -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Branches:
    """Query tokens of several images, those of one image one after the other in one row.

    Attributes:
        ids: `[images, tokens]` token ids, short rows padded with id 0.
        positions: `[images, tokens]` position of each token; every branch goes on where the prefix ends.
        branch: `[images, tokens]` number of the branch that a token belongs to; padding is branch -1.
        ends: (image, token) of each branch's last token, image by image.
        prefix_length: Number of cached tokens before the branches.
        prompt: Any one of the prompts; all have the same image range.
    """

    ids: np.ndarray
    positions: np.ndarray
    branch: np.ndarray
    ends: tuple[tuple[int, int], ...]
    prefix_length: int
    prompt: EncodedPrompt

    @classmethod
    def of(cls, prompts: Sequence[Sequence[EncodedPrompt]], prefix_length: int) -> _Branches:
        """Lay out the prompts of each image; at least one image has some."""
        width = max(sum(len(prompt.suffix_ids) for prompt in row) for row in prompts)
        ids = np.zeros((len(prompts), width), dtype=np.int64)
        positions = np.full_like(ids, prefix_length)
        branch = np.full_like(ids, -1)
        ends = []
        for image, row in enumerate(prompts):
            start = 0
            for number, prompt in enumerate(row):
                length = len(prompt.suffix_ids)
                ids[image, start : start + length] = prompt.suffix_ids
                positions[image, start : start + length] += np.arange(length)
                branch[image, start : start + length] = number
                start += length
                ends.append((image, start - 1))
        return cls(ids, positions, branch, tuple(ends), prefix_length, next(filter(None, prompts))[0])

    def mask(self, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Added to the scores, `[images, 1, tokens, prefix + tokens]`: a branch sees the prefix and its own past."""
        import torch

        branch = torch.from_numpy(self.branch).to(device)
        same = branch[:, :, None] == branch[:, None, :]
        hidden = ~torch.tril(same)
        added = torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill(hidden, torch.finfo(dtype).min)
        return torch.nn.functional.pad(added, (self.prefix_length, 0))[:, None]


def _rounds(pictures: Sequence[_Picture]) -> Iterator[list[list[EncodedPrompt]]]:
    """For each forward, the prompts of each image, as many as `MAX_BRANCH_TOKENS` allow; none where all are done."""
    per_image = [_shares([question.prompt for question in picture.questions]) for picture in pictures]
    for prompts in itertools.zip_longest(*per_image, fillvalue=[]):
        yield list(prompts)


def _shares(prompts: Sequence[EncodedPrompt]) -> list[list[EncodedPrompt]]:
    shares: list[list[EncodedPrompt]] = []
    room = 0
    for prompt in prompts:
        length = len(prompt.suffix_ids)
        if length > room:
            shares.append([])
            room = max(MAX_BRANCH_TOKENS, length)
        shares[-1].append(prompt)
        room -= length
    return shares


# Around the model -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _attention(language_model: Any, implementation: str) -> Iterator[None]:
    """Another attention backend for a while."""
    before = language_model.config._attn_implementation
    set_attention(language_model, implementation)
    try:
        yield
    finally:
        set_attention(language_model, before)


@contextlib.contextmanager
def _only_layers(language_model: Any, stop_layer: int | None) -> Iterator[None]:
    """A language model that ends with that layer, for a while."""
    layers = language_model.layers
    if stop_layer is not None:
        language_model.layers = layers[: stop_layer + 1]
    try:
        yield
    finally:
        language_model.layers = layers


@contextlib.contextmanager
def _short_last_layer(language_model: Any) -> Iterator[None]:
    """Cut the last layer down to the last token once its keys and values are stored, for a while.

    For a prefill, whose output nobody reads. What follows the cache, the output projection and the MLP, is about three
    quarters of the layer's work; its results for one token are added to all tokens, so every shape stays as it was.
    Stopping with an exception would spare the attention too, but break through the hooks of others, which never end.
    """

    def cut(module: Any, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (inputs[0][:, -1:],)

    layer = language_model.layers[-1]
    handles = [module.register_forward_pre_hook(cut) for module in (layer.self_attn.o_proj, layer.mlp)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _short_unused_vision_layers(model: Any) -> Iterator[None]:
    """Cut the vision tower down to one token above the layer whose output LLaVA takes, for a while.

    LLaVA-1.5 takes the output of the last layer but one. Layers are not taken out, since the layer to take counts from
    the last one.
    """

    def cut(module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0][:, :1], *inputs[1:])

    handles = [layer.register_forward_pre_hook(cut) for layer in _unused_vision_layers(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _unused_vision_layers(model: Any) -> list[Any]:
    """Layers of the vision tower above the deepest whose output goes to the language model."""
    taken = model.config.vision_feature_layer
    depth = model.config.vision_config.num_hidden_layers
    # Output number 0 is the embedding, and the last one that of the last layer.
    deepest = max(index % (depth + 1) for index in ([taken] if isinstance(taken, int) else taken))
    stacks = (getattr(module, "layers", ()) for module in model.vision_tower.modules())
    layers: Sequence[Any] = next((stack for stack in stacks if len(stack) == depth), ())
    return list(layers[deepest:])


@contextlib.contextmanager
def _kept_rows(language_model: Any, select: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Cut every layer's attention weights down as soon as they are computed, and keep what is left of the first pass.

    The layers' own forward is wrapped, since versions of transformers differ in whether they record the attentions that
    a model returns before or after a module's hooks; so they all record the cut ones, and no whole matrix outlives its
    layer.

    Yields:
        The list of kept rows, one entry a layer, filled by the first forward pass that follows.
    """
    modules = [layer.self_attn for layer in language_model.layers]
    genuine = [vars(module).get("forward") for module in modules]
    rows: list[torch.Tensor] = []

    def cutting(forward: Callable[..., tuple]) -> Callable[..., tuple]:
        @functools.wraps(forward)
        def cut(*args: Any, **options: Any) -> tuple:
            output = forward(*args, **options)
            if output[1] is None:
                return output
            selected = select(output[1])
            if len(rows) < len(modules):
                rows.append(selected)
            return (output[0], selected, *output[2:])

        return cut

    for module in modules:
        module.forward = cutting(module.forward)
    try:
        yield rows
    finally:
        for module, before in zip(modules, genuine):
            if before is None:
                del module.forward
            else:  # another library had wrapped it already
                module.forward = before


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "not enough memory" in str(error)


def _free_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _halves(pictures: list[_Picture]) -> tuple[list[_Picture], list[_Picture]] | None:
    """Two smaller batches: half of the images, or half of the questions of a single one."""
    if len(pictures) > 1:
        middle = len(pictures) // 2
        return pictures[:middle], pictures[middle:]
    picture, questions = pictures[0], pictures[0].questions
    if len(questions) == 1:
        return None
    middle = len(questions) // 2
    return [replace(picture, questions=questions[:middle])], [replace(picture, questions=questions[middle:])]


# Streams --------------------------------------------------------------------------------------------------------------


def _by_image(samples: Iterable[Sample], window_rows: int) -> Iterator[list[_Row]]:
    """Rows about the same image together, found within a window of the input.

    A window ends where the image changes, so that input sorted by image is never cut within one; but an image with
    very many rows does not make it grow without bound.
    """
    window: dict[str, list[_Row]] = {}
    count, previous = 0, None
    for position, sample in enumerate(samples):
        full = count >= window_rows and sample.image_file != previous
        if full or count >= 4 * window_rows:
            yield from window.values()
            window, count = {}, 0
        window.setdefault(sample.image_file, []).append(_Row(position, sample))
        count, previous = count + 1, sample.image_file
    yield from window.values()


def _ahead(function: Callable[[_Item], _Result], items: Iterable[_Item], depth: int) -> Iterator[_Result]:
    """Results of a function in order, computed in a thread at most `depth` items ahead of who takes them."""
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare")
    pending: deque[Future[_Result]] = deque()
    try:
        for item in items:
            pending.append(executor.submit(function, item))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
        executor.shutdown(wait=True)
