"""Benchmarks that run a model: queries per second, memory, and how busy the model is in a batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np

from benchmarks.baseline import collect_plain
from benchmarks.context import Context, Skipped
from benchmarks.inputs import make_samples, write_pictures
from benchmarks.measure import MEGABYTE, Row, Timing, run_child, time_in_turn
from benchmarks.models import LLAVA_7B, PICTUREBOOK, TOY, picturebook_bundle, random_bundle
from collector import AttentionCollector
from lab.config.settings import AttentionStorageSettings, DataSettings, Settings, StorageSettings
from lab.records import CollectedAttention, Sample
from stages.plan import Steps, make_plan
from stages.running import run_samples
from vlm.loading import LlavaBundle

EXIT_LAYER = 15
REFCOCO_VAL_EXPRESSIONS, REFCOCO_VAL_IMAGES = 10_834, 1_500
# What equal means: DESIGN.md's bound in float32; in float16 the rounding of scores that are sums over 32 layers.
TOLERANCE = {"float32": 1e-5, "float16": 5e-3}


@dataclass(frozen=True)
class Load:
    """How much is asked of a model.

    Attributes:
        images: Number of pictures.
        plain_rows: The baseline runs so many rows at most; each takes it as long as any other.
        repeats: Timed repeats.
    """

    images: int
    plain_rows: int
    repeats: int


@dataclass(frozen=True)
class Comparison:
    """Both ways on the same rows.

    Attributes:
        plain_rate: Queries per second, one row and one full forward after the other.
        rates: Queries per second of each collector.
        cpu_ratios: How many times the processor time of a query each collector saves.
        differences: Largest absolute difference of each collector's attention from the baseline's.
    """

    plain_rate: float
    rates: tuple[float, ...]
    cpu_ratios: tuple[float, ...]
    differences: tuple[float, ...]


# Queries per second ---------------------------------------------------------------------------------------------------


def measure_toy(context: Context) -> Iterator[Row]:
    """Queries per second of the toy with 576 visual tokens, on the CPU."""
    bundle = context.bundle("toy", lambda: random_bundle(TOY, "toy with 576 visual tokens"))
    yield from queries_per_second("toy", bundle, _cpu_load(context), context)


def measure_picturebook(context: Context) -> Iterator[Row]:
    """Queries per second of the picture-book model, on the CPU."""
    if not (PICTUREBOOK / "config.json").is_file():
        raise Skipped(f"the picture-book model is not at {PICTUREBOOK.relative_to(PICTUREBOOK.parents[2])}")
    bundle = context.bundle("picturebook", picturebook_bundle)
    yield from queries_per_second("picturebook", bundle, _cpu_load(context), context)


def measure_7b(context: Context) -> Iterator[Row]:
    """Queries per second, memory and the time for RefCOCO val of a random model of the size of LLaVA-1.5-7B."""
    bundle = _bundle_7b(context)
    load = Load(images=2, plain_rows=2, repeats=1) if context.quick else Load(images=4, plain_rows=7, repeats=5)
    stop_layers = (None, EXIT_LAYER)
    yield from queries_per_second("llava7b", bundle, load, context, stop_layers=stop_layers)
    yield _cuda_memory(bundle, context)


def _bundle_7b(context: Context) -> LlavaBundle:
    import torch

    if not torch.cuda.is_available():
        raise Skipped("torch finds no CUDA device")
    return context.bundle("llava7b", lambda: random_bundle(LLAVA_7B, "random 7B", "cuda"))


def _cpu_load(context: Context) -> Load:
    return Load(images=1, plain_rows=1, repeats=1) if context.quick else Load(images=2, plain_rows=4, repeats=3)


def queries_per_second(
    case: str,
    bundle: LlavaBundle,
    load: Load,
    context: Context,
    *,
    stop_layers: Sequence[Optional[int]] = (None,),
) -> Iterator[Row]:
    """Collect with more and more queries an image.

    Args:
        case: Name for the rows.
        bundle: The model.
        load: How much is asked of it.
        context: Options and pictures.
        stop_layers: A collector is measured for each: None for all layers, or the last one to run.
    """
    pictures = write_pictures(context.directory / "pictures", load.images)
    collectors = [AttentionCollector(bundle, stop_layer=layer) for layer in stop_layers]
    for count in context.query_counts:
        compared = compare(bundle, collectors, make_samples(pictures, count), load)
        measured = zip(stop_layers, compared.rates, compared.cpu_ratios, compared.differences)
        for stop_layer, rate, cpu_ratio, difference in measured:
            until = "" if stop_layer is None else f", stop after layer {stop_layer}"
            yield Row(
                case,
                f"{count} {'query' if count == 1 else 'queries'} an image{until}",
                rate,
                "queries/s",
                compared.plain_rate,
                more_is_better=True,
                difference=difference,
                tolerance=TOLERANCE[str(bundle.dtype).replace("torch.", "")],
                note=_projection(rate, compared.plain_rate) if count == 7 and bundle.device.type == "cuda" else "",
                details={
                    "queries_per_image": count,
                    "images": load.images,
                    "stop_layer": stop_layer,
                    "cpu_ratio": cpu_ratio,
                },
            )


def compare(
    bundle: LlavaBundle, collectors: Sequence[AttentionCollector], samples: Sequence[Sample], load: Load
) -> Comparison:
    """Time the baseline and the collectors in turn on the same samples, and compare what they give."""
    plain_samples = samples[: load.plain_rows]

    def plainly() -> list[np.ndarray]:
        return [collect_plain(bundle, sample) for sample in plain_samples]

    def collect_with(collector: AttentionCollector) -> Callable[[], list[np.ndarray]]:
        return lambda: [attention_of(result) for result in collector.collect(samples)]

    plain, *here = time_in_turn(plainly, *map(collect_with, collectors), repeats=load.repeats)
    return Comparison(
        plain_rate=len(plain_samples) / plain.median,
        rates=tuple(len(samples) / timing.median for timing in here),
        cpu_ratios=tuple(
            (plain.cpu_median / len(plain_samples)) / (timing.cpu_median / len(samples)) for timing in here
        ),
        differences=tuple(_difference(timing, plain) for timing in here),
    )


def attention_of(result: Any) -> np.ndarray:
    """The attention that a collector gave.

    Raises:
        RuntimeError: If it gave a failure.
    """
    if not isinstance(result, CollectedAttention):
        raise RuntimeError(f"The collector failed: {result.reason}")
    return result.attention


def _difference(here: Timing, plain: Timing) -> float:
    """Largest difference over the layers that ran."""
    return max(float(np.abs(ours - full[: len(ours)]).max()) for ours, full in zip(here.result, plain.result))


def _projection(rate: float, plain_rate: float) -> str:
    """The time for RefCOCO val, with about seven expressions an image."""
    here, plain = (REFCOCO_VAL_EXPRESSIONS / value / 60 for value in (rate, plain_rate))
    return (
        f"RefCOCO val ({REFCOCO_VAL_EXPRESSIONS:,} expressions, {REFCOCO_VAL_IMAGES:,} images), projected: "
        f"{here:.1f} min, plain {plain:.1f} min"
    )


# Memory ---------------------------------------------------------------------------------------------------------------


def measure_memory(context: Context) -> Iterator[Row]:
    """Peak memory of the toy, above the loaded model, each way in a process of its own."""
    for queries in (1,) if context.quick else (1, 7):
        paths = {side: str(context.directory / f"{side}.npy") for side in ("here", "plain")}
        here, plain = (
            run_child("collect", threads=context.threads, side=side, queries=queries, path=path)
            for side, path in paths.items()
        )
        yield Row(
            "memory",
            f"toy, peak above the loaded model, {queries} {'query' if queries == 1 else 'queries'}",
            here["added_mb"],
            "MB",
            plain["added_mb"],
            difference=float(np.abs(np.load(paths["here"]) - np.load(paths["plain"])).max()),
            tolerance=TOLERANCE["float32"],
            note=f"whole process: {here['peak_mb']:,.0f} MB, plain {plain['peak_mb']:,.0f} MB",
            details={"here": here, "plain": plain},
        )


def _cuda_memory(bundle: LlavaBundle, context: Context) -> Row:
    """Peak of allocated GPU memory above the weights, seven queries of one image."""
    samples = make_samples(write_pictures(context.directory / "pictures", 1), 7)
    collector = AttentionCollector(bundle)
    plain, expected = _cuda_peak_mb(lambda: collect_plain(bundle, samples[0]))
    here, results = _cuda_peak_mb(lambda: list(collector.collect(samples)))
    return Row(
        "llava7b",
        "peak GPU memory above the weights, 7 queries",
        here,
        "MB",
        plain,
        difference=float(np.abs(attention_of(results[0]) - expected).max()),
        tolerance=TOLERANCE["float16"],
        note=f"{here / len(samples):,.0f} MB a query here; the plain way runs one query at a time",
    )


def _cuda_peak_mb(function: Callable[[], Any]) -> tuple[float, Any]:
    """Peak above what is allocated already, and what the function returns."""
    import torch

    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = function()
    return (torch.cuda.max_memory_allocated() - before) / MEGABYTE, result


# Overlap --------------------------------------------------------------------------------------------------------------


@dataclass
class BusyClock:
    """Adds up the time that a model is at work."""

    seconds: float = 0.0
    _depth: int = 0
    _started: float = field(default=0.0)

    def start(self, *_: Any) -> None:
        """A module begins; modules within it do not count again."""
        if self._depth == 0:
            _wait_for_gpu()
            self._started = time.perf_counter()
        self._depth += 1

    def stop(self, *_: Any) -> None:
        """A module ends."""
        self._depth -= 1
        if self._depth == 0:
            _wait_for_gpu()
            self.seconds += time.perf_counter() - self._started


@contextmanager
def busy_clock(bundle: LlavaBundle) -> Iterator[BusyClock]:
    """Watch the model and its language model, which the collector calls on its own."""
    clock = BusyClock()
    handles = []
    for module in (bundle.model.model, bundle.model.model.language_model):
        handles += [module.register_forward_pre_hook(clock.start), module.register_forward_hook(clock.stop)]
    try:
        yield clock
    finally:
        for handle in handles:
            handle.remove()


def measure_overlap(context: Context) -> Iterator[Row]:
    """Share of a batch's wall time in which the model is at work, with and without attention files."""
    import torch

    if torch.cuda.is_available():
        bundle = _bundle_7b(context)
    else:
        bundle = context.bundle("toy", lambda: random_bundle(TOY, "toy with 576 visual tokens"))
    images = 2 if context.quick else 40 if bundle.device.type == "cuda" else 8
    samples = make_samples(write_pictures(context.directory / "pictures", images), 7)
    busy_share(bundle, samples[:7], context.directory, save_attention=True)  # warm-up
    for save_attention in (True, False):
        share, seconds = busy_share(bundle, samples, context.directory, save_attention=save_attention)
        what = "attention files and boxes" if save_attention else "boxes only"
        note = f"{len(samples)} rows, {len(samples) / seconds:.3g} rows/s with all files written"
        yield Row("overlap", f"model at work, {what}", 100 * share, "%", more_is_better=True, note=note)


def busy_share(
    bundle: LlavaBundle, samples: Iterable[Sample], directory: Path, *, save_attention: bool
) -> tuple[float, float]:
    """Run a batch up to its files; returns the model's share of the wall time, and the wall time in seconds."""
    settings = Settings(
        stage="batch",
        data=DataSettings(output_dir=str(directory / "overlap")),
        storage=StorageSettings(attention=AttentionStorageSettings(save=save_attention)),
    )
    plan = make_plan(settings, Steps(attention=save_attention, analysis=save_attention, box=True))
    settings.result_dir.mkdir(parents=True, exist_ok=True)
    with busy_clock(bundle) as clock:
        started = time.perf_counter()
        for _ in run_samples(list(samples), plan, AttentionCollector(bundle)):
            pass
        wall = time.perf_counter() - started
    return clock.seconds / wall, wall


def _wait_for_gpu() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
