"""Rows that share a forward pass: told by the whole file, and kept so by the real collector."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lab.config.settings import DataSettings, LogicSettings, ModelSettings, Settings, SmoothingSettings
from lab.records import Sample
from lab.storage.attention_files import load_attention
from pipeline import run
from stages.sharing import ROWS_OF_A_PICTURE, forward_groups, plan_calls

ROOT = Path(__file__).parent.parent


def make_samples(pictures: str) -> list[Sample]:
    """One sample for each letter, which names its picture."""
    return [Sample(f"{picture}{number}", picture, "x") for number, picture in enumerate(pictures)]


def ids(samples) -> str:
    return " ".join(sample.id for sample in samples)


def test_pictures_share_a_forward_in_the_order_of_their_first_row() -> None:
    groups = forward_groups(make_samples("abacbd"), 2)
    assert [(ids(group.samples), group.is_full) for group in groups] == [("a0 a2 b1 b4", True), ("c3 d5", True)]
    groups = forward_groups(make_samples("abc"), 2)
    assert [(ids(group.samples), group.is_full) for group in groups] == [("a0 b1", True), ("c2", False)]


def test_a_picture_with_very_many_rows_is_read_alone() -> None:
    many = "b" * (ROWS_OF_A_PICTURE + 1)
    groups = forward_groups(make_samples(f"a{many}cd"), 2)
    assert [len(group.samples) for group in groups] == [1, len(many), 2]
    assert [group.is_full for group in groups] == [False, False, True]


@pytest.mark.parametrize("batch_size", [pytest.param(size, id=f"{size}_pictures") for size in (1, 2, 3, 5)])
@pytest.mark.parametrize("seed", [pytest.param(seed, id=f"seed_{seed}") for seed in range(5)])
def test_what_is_pending_changes_no_forward(batch_size: int, seed: int) -> None:
    import random

    rng = random.Random(seed)
    samples = make_samples("".join(rng.choice("abcdefghijk") for _ in range(60)) + "l" * 70 + "mn")
    whole = {group.samples for group in forward_groups(samples, batch_size)}
    pending = {sample.id for sample in rng.sample(samples, 6)}
    calls = plan_calls(samples, pending, batch_size)
    read = [group.samples for call in calls for group in forward_groups(call, batch_size)]
    assert set(read) <= whole
    assert len(set(read)) == len(read)
    assert pending <= {sample.id for group in read for sample in group}
    assert all(pending & {sample.id for sample in group} for group in read)  # no more than is needed


@pytest.mark.slow
def test_a_resumed_run_of_the_picture_book_model_gives_the_very_same_numbers(tmp_path) -> None:
    rows = [json.loads(line) for line in (ROOT / "examples/localization_data.jsonl").read_text().splitlines()]
    rows = [{**row, "image_path": str(ROOT / row["image_path"])} for row in rows]
    longer = [
        {**row, "id": f"{row['id']}_long", "prompt": f"{row['prompt']} beside the small red house"} for row in rows
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *longer]))
    model = ModelSettings(
        name=str(ROOT / "examples/models/picturebook-llava"), dtype="float32", device="cpu", batch_size=2
    )
    data = DataSettings(data_file=str(path), output_dir=str(tmp_path / "whole"))
    settings = Settings(
        stage="batch", model=model, logic=LogicSettings(smoothing=SmoothingSettings(sigma=0)), data=data
    )
    run(settings)
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    directory = tmp_path / "resumed/picturebook-llava"
    for row in rows[::3]:
        (directory / f"{row['id']}_bbox.json").unlink()
        (directory / f"{row['id']}.pkl.gz").unlink()
    run(replace(settings, data=replace(data, output_dir=str(tmp_path / "resumed"))))
    for path in sorted(directory.glob("*_bbox.json")):
        whole = tmp_path / "whole/picturebook-llava" / path.name
        assert path.read_bytes() == whole.read_bytes()
        stored = path.name.replace("_bbox.json", ".pkl.gz")
        one, other = load_attention(directory / stored), load_attention(whole.with_name(stored))
        assert one.attention.tobytes() == other.attention.tobytes()
