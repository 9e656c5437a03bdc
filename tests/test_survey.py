"""A file that is damaged, hostile or odd costs a survey that file, and nothing else."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import crafted_files
import pytest
from fake_collector import FakeCollector, collect_one, write_rows

from lab.config.settings import DataSettings, ModelSettings, Settings
from lab.records import Sample
from lab.storage import files
from lab.storage.attention_files import save_attention
from pipeline import run
from stages.model_settings import META_KEY, record_model

OWN = ModelSettings(name="fake/model")
FORGED = crafted_files.call(crafted_files.NDARRAY, *map(crafted_files.plain, ((1,), "O", b"A" * 8)))
HOSTILE = {
    "code": pickle.dumps(crafted_files.Call(eval, "1")),
    "forged": crafted_files.with_meta("query", FORGED),
    "nested": crafted_files.whole(b"}(" + b")" + b"\x85" * 100_000 + b"K\x01u"),
    "inflating": crafted_files.gzip_of_zeros(1 << 30),
    "cut": crafted_files.saved({"attn": 1})[:-30],
    "negative": pickle.dumps({"attn": -crafted_files.ATTENTION, "meta": crafted_files.META}),
}


@pytest.fixture
def surveyed(tmp_path):
    """Settings of a survey over twelve good files, made by a batch."""
    rows = write_rows(tmp_path, 12)
    data = DataSettings(data_file=str(rows), output_dir=str(tmp_path / "out"))
    run(Settings(stage="batch", model=OWN, data=data), FakeCollector().load)
    data = replace(data, data_file=None, ground_truth=str(rows), analysis_dir=str(tmp_path / "heads"))
    return Settings(stage="batch_analyze", model=OWN, data=data, save_fig=False)


def selected(directory: Path) -> object:
    return files.read_json(directory / "batch_selected_heads.json")["heads"]


@pytest.mark.parametrize("name", [None, *HOSTILE])
def test_hostile_files_cost_themselves_alone(name, surveyed, tmp_path, caplog) -> None:
    good = run(replace(surveyed, data=replace(surveyed.data, analysis_dir=str(tmp_path / "before"))))
    hostile = {name: HOSTILE[name]} if name else HOSTILE
    for key, data in hostile.items():
        ending = "pkl.gz" if data[:2] == b"\x1f\x8b" else "pkl"
        (tmp_path / "out/fake-model" / f"a_{key}.{ending}").write_bytes(data)
    result = run(surveyed)
    assert (good.failed, result.failed) == (0, len(hostile))
    assert selected(tmp_path / "heads") == selected(tmp_path / "before")
    assert (tmp_path / "heads/head_audit.json").read_bytes() == (tmp_path / "before/head_audit.json").read_bytes()
    for key in hostile:
        assert f"a_{key}" in caplog.text


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param({META_KEY: {**record_model(OWN), "smoothing_sigma": "wide"}}, id="settings_of_other_types"),
        pytest.param({META_KEY: {**record_model(OWN), "skip_layers": -7}}, id="settings_out_of_range"),
        pytest.param({"attn_sums": [[[]]]}, id="sums_of_no_shape"),
        pytest.param({"attn_sums": [[-1.0] * 4] * 6}, id="negative_sums"),
    ],
)
def test_odd_metadata_cost_their_file_alone(odd, surveyed, tmp_path) -> None:
    collected = collect_one(Sample("a", "x.png", "a"))
    save_attention(tmp_path / "out/fake-model/a.pkl.gz", replace(collected, meta={**collected.meta, **odd}))
    assert run(surveyed).failed == 1


def test_whatever_goes_wrong_with_a_file_costs_it_alone(surveyed, monkeypatch) -> None:
    from stages import survey

    score = survey._score

    def fail_once(path: Path, settings: Settings) -> object:
        if path.name.startswith("row3"):
            raise RecursionError("odd")
        return score(path, settings)

    monkeypatch.setattr(survey, "_score", fail_once)
    assert run(surveyed).failed == 1
