"""Workloads that run in a process of their own, since they are asked for its peak memory."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Optional

import numpy as np

from benchmarks.host import time_call
from benchmarks.inputs import QUERIES, make_attention, make_collected, make_samples, write_pictures
from benchmarks.measure import PeakMemory
from lab.config.settings import AttentionStorageSettings, DataSettings, ModelSettings, Settings, StorageSettings
from lab.records import CollectedAttention, Sample


def collect(side: str, queries: int, path: str) -> dict[str, float]:
    """The toy and one image: `here` with the collector, or `plain`; the attention goes to a `.npy` file."""
    from benchmarks.baseline import collect_plain
    from benchmarks.collecting import attention_of
    from benchmarks.models import TOY, random_bundle
    from collector import AttentionCollector

    attention: list[np.ndarray] = []
    bundle = random_bundle(TOY, "toy")
    with tempfile.TemporaryDirectory() as name:
        samples = make_samples(write_pictures(Path(name), 1), queries)
        if side == "here":
            collector = AttentionCollector(bundle)
            report = _measure(lambda: attention.extend(map(attention_of, collector.collect(samples))))
        else:
            report = _measure(lambda: attention.extend(collect_plain(bundle, sample) for sample in samples))
    np.save(path, np.stack(attention))
    return report


def batch_analyze(directory: str) -> dict[str, float]:
    """The stage `batch_analyze` over a directory of attention files."""
    import pipeline
    from lab.storage.attention_files import load_attention
    from lab.storage.paths import list_attention_files

    load_attention(list_attention_files(directory)[0])  # imports torch
    with tempfile.TemporaryDirectory() as name:
        data = DataSettings(batch_attention_dir=directory, analysis_dir=name)
        settings = Settings(stage="batch_analyze", save_fig=False, data=data)
        return _measure(lambda: pipeline.run(settings))


def batch(rows: int) -> dict[str, float]:
    """The stage `batch` over many rows, boxes only, with a model that takes no time."""
    import pipeline

    with tempfile.TemporaryDirectory() as name:
        data_file = _write_rows(Path(name), rows)
        settings = Settings(
            stage="batch",
            model=ModelSettings(name="pretended"),
            data=DataSettings(data_file=str(data_file), output_dir=str(Path(name) / "results")),
            storage=StorageSettings(attention=AttentionStorageSettings(save=False)),
        )
        collector = PretendedCollector()

        def load(model: ModelSettings, stop_layer: Optional[int] = None) -> PretendedCollector:
            return collector

        return _measure(lambda: pipeline.run(settings, load))


class PretendedCollector:
    """Gives attention of the size of LLaVA-1.5-7B's without a model."""

    def __init__(self) -> None:
        """Make some attention to give copies of."""
        self._attention = [make_attention(seed) for seed in range(4)]

    def collect(self, samples: Iterable[Sample]) -> Iterator[CollectedAttention]:
        """Yield attention for each sample; an array of its own, as a model would."""
        for number, sample in enumerate(samples):
            yield make_collected(sample, self._attention[number % len(self._attention)].copy())


def _write_rows(directory: Path, rows: int) -> Path:
    """A data file that asks of one picture, which is never opened, again and again."""
    [picture] = write_pictures(directory, 1)
    path = directory / "rows.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            row = {"id": f"row-{number:06}", "image_path": picture, "prompt": QUERIES[number % len(QUERIES)]}
            file.write(json.dumps(row) + "\n")
    return path


def _measure(function: Callable[[], Any]) -> dict[str, float]:
    memory = PeakMemory()
    seconds = time_call(function)
    return {"seconds": seconds, "peak_mb": memory.peak_mb, "added_mb": memory.added_mb}


WORKLOADS: dict[str, Callable[..., dict[str, float]]] = {
    "collect": collect,
    "batch_analyze": batch_analyze,
    "batch": batch,
}


def main() -> None:
    """Run the workload that the first argument names, with the second one's JSON as keywords; report in JSON."""
    print(json.dumps(WORKLOADS[sys.argv[1]](**json.loads(sys.argv[2]))))


if __name__ == "__main__":
    main()
