"""Stored attention is analysed with the settings of its own model, and nothing is overwritten in silence."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from fake_collector import FakeCollector, collect_one, target_box, write_rows
from PIL import Image

import pipeline
from lab.config.errors import ConfigError
from lab.config.model_defaults import FOLLOWING, find_preset
from lab.config.schema import known_keys
from lab.config.settings import (
    PROJECT_ROOT,
    AttentionStorageSettings,
    DataSettings,
    LogicSettings,
    MaskSettings,
    ModelSettings,
    Settings,
    SmoothingSettings,
    StorageSettings,
)
from lab.heads.heads_file import FixedHead, HeadsFile, write_heads_file
from lab.records import Sample
from lab.storage import files
from lab.storage.attention_files import load_attention, save_attention
from pipeline import run
from stages.model_settings import META_KEY, record_model, settings_of_file

PICTUREBOOK = "examples/models/picturebook-llava"
# A model of its own, whose smoothing is none; the default model's is 1.
OWN = ModelSettings(name="fake/model", smoothing_sigma=0.0, mask_region="all", skip_layers=1)
OWN_LOGIC = LogicSettings(skip_layers=1, smoothing=SmoothingSettings(sigma=0.0), mask=MaskSettings(region="all"))
DEFAULTS = frozenset({"smoothing.sigma", "mask.region", "skip_layers"})


@pytest.fixture
def command_line(tmp_path, monkeypatch):
    """Run `pipeline.main` in a directory of its own, with a fake model and nothing left over in the process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(pipeline.run, "__defaults__", (FakeCollector().load,))
    handlers, level = logging.root.handlers[:], logging.root.level

    def call(*arguments: str) -> int:
        return pipeline.main([*arguments, "hydra/job_logging=none", "hydra/hydra_logging=none"])

    yield call
    logging.root.handlers[:], logging.root.level = handlers, level


def collect_own(tmp_path: Path, make_image, **data) -> Path:
    """The attention file of one sample of `OWN`, with its box."""
    data = {"image_file": make_image(), "query": "a cat", "save_id": "s", "output_dir": str(tmp_path / "out"), **data}
    run(Settings(stage="pipeline", model=OWN, logic=OWN_LOGIC, data=DataSettings(**data)), FakeCollector().load)
    return tmp_path / "out/fake-model"


# Whose settings


def test_a_file_keeps_what_its_model_brings_along(tmp_path, make_image) -> None:
    directory = collect_own(tmp_path, make_image)
    recorded = load_attention(directory / "s.pkl.gz").meta[META_KEY]
    assert recorded == record_model(OWN)
    assert (recorded["smoothing_sigma"], recorded["mask_region"], recorded["skip_layers"]) == (0.0, "all", 1)
    assert json.loads((directory / "s_meta.json").read_text())[META_KEY] == recorded


def test_visualize_under_another_model_gives_the_very_same_box(tmp_path, make_image, command_line) -> None:
    directory = collect_own(tmp_path, make_image)
    before = (directory / "s_bbox.json").read_bytes()
    assert command_line("stage=visualize", f"data.attention_file={directory / 's.pkl'}") == 0
    assert (directory / "s_bbox.json").read_bytes() == before
    assert files.load_bbox_json(directory / "s_bbox.json")["bbox_xyxy"] == target_box("a cat")


def test_analyze_under_another_model_leaves_out_the_layers_of_the_files_model(tmp_path, command_line) -> None:
    collected = collect_one(Sample("s", "x.png", "a"))
    meta = {**collected.meta, META_KEY: record_model(replace(OWN, skip_layers=4))}
    save_attention(tmp_path / "s.pkl.gz", replace(collected, meta=meta))
    assert command_line("stage=analyze", "data.attention_file=s.pkl") == 0
    assert {score.layer for score in files.load_analysis(tmp_path / "s_analysis.pkl")} == {4, 5}


def test_batch_analyze_under_another_model_scores_the_very_same_boxes(tmp_path, command_line, capsys) -> None:
    rows = write_rows(tmp_path, 12)
    data = DataSettings(data_file=str(rows), output_dir=str(tmp_path / "out"))
    run(Settings(stage="batch", model=OWN, logic=OWN_LOGIC, data=data), FakeCollector().load)
    here = f"data.batch_attention_dir={tmp_path / 'out/fake-model'}"
    assert command_line("stage=batch_analyze", here, f"data.ground_truth={rows}", "save_fig=false") == 0
    assert "mean IoU 1.0000" in capsys.readouterr().out
    record = json.loads((tmp_path / "out/fake-model/batch_selected_heads.json").read_text())
    assert record["rules"]["skip_layers"] == 1
    assert record["settings"]["smoothing"]["sigma"] == 0.0


@pytest.mark.parametrize(
    "override",
    [
        pytest.param("logic.smoothing.sigma=1.0", id="logic_as_the_default_model_has_it"),
        pytest.param("model.smoothing_sigma=1.0", id="model_key"),
    ],
)
def test_what_the_user_says_wins(tmp_path, make_image, command_line, override) -> None:
    directory = collect_own(tmp_path, make_image)
    stored = ("stage=visualize", f"data.attention_file={directory / 's.pkl'}", "data.overwrite=true")
    assert command_line(*stored, override) == 0
    assert files.load_bbox_json(directory / "s_bbox.json")["bbox_xyxy"] != target_box("a cat")


def make_stored(**changes) -> Settings:
    return replace(Settings(), follows_model=DEFAULTS, **changes)


def test_an_older_file_takes_the_preset_with_its_name() -> None:
    found = settings_of_file({"model_name": PICTUREBOOK, "prompt_template": "referseg"}, make_stored(), "x.pkl")
    preset = find_preset(PICTUREBOOK, PROJECT_ROOT / "conf")
    assert preset is not None
    assert found.logic.smoothing.sigma == preset["smoothing_sigma"] == 0.0
    assert found.logic.mask.region == preset["mask_region"] == "heaviest"
    assert found.model.name == PICTUREBOOK
    from_elsewhere = settings_of_file({"model_name": f"/elsewhere/{PICTUREBOOK}"}, make_stored(), "x.pkl")
    assert from_elsewhere.logic == found.logic


def test_an_older_file_of_the_configured_model_takes_what_is_configured() -> None:
    own = replace(OWN, name="fake/model")
    found = settings_of_file({"model_name": "fake/model"}, make_stored(model=own), "x.pkl")
    assert (found.logic.smoothing.sigma, found.logic.mask.region, found.logic.skip_layers) == (0.0, "all", 1)


def test_an_older_file_of_an_unknown_model_is_refused_unless_all_is_said() -> None:
    with pytest.raises(ConfigError, match=r"x\.pkl to be of the configured model .* but got one of 'no/such'.*Say mod"):
        settings_of_file({"model_name": "no/such"}, make_stored(), "x.pkl")
    said = settings_of_file({"model_name": "no/such"}, replace(make_stored(), follows_model=frozenset()), "x.pkl")
    assert said.logic == Settings().logic


def test_a_file_that_names_no_model_is_told(caplog) -> None:
    assert settings_of_file({}, make_stored(), "x.pkl").logic == Settings().logic
    assert "x.pkl does not name its model: the settings of liuhaotian/llava-v1.5-7b are used" in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"smoothing_sigma": -1}, id="out_of_range"),
        pytest.param({"smoothing_sigma": "abc"}, id="text"),
        pytest.param({"mask_region": ["all"]}, id="a_list"),
    ],
)
def test_nonsense_in_a_file_is_refused(wrong) -> None:
    with pytest.raises(ConfigError, match=r"settings in the metadata of x\.pkl to be valid, but got: "):
        settings_of_file({"model_name": "m", META_KEY: {**record_model(OWN), **wrong}}, make_stored(), "x.pkl")


def test_files_collected_with_different_settings_of_a_model_are_refused(tmp_path, command_line, capsys) -> None:
    directory = tmp_path / "mixed"
    for name, model in (("a", OWN), ("b", replace(OWN, smoothing_sigma=2.0))):
        collected = collect_one(Sample(name, "x.png", "a"))
        save_attention(
            directory / f"{name}.pkl.gz",
            replace(collected, meta={**collected.meta, META_KEY: record_model(model)}),
        )
    assert command_line("stage=batch_analyze", f"data.batch_attention_dir={directory}", "save_fig=false") == 1
    assert "with the same settings of their model, but got others in" in capsys.readouterr().err
    same = ("logic.smoothing.sigma=0", "save_fig=false")
    assert command_line("stage=batch_analyze", f"data.batch_attention_dir={directory}", *same) == 0


def test_the_files_number_type_is_kept(tmp_path, make_image) -> None:
    storage = StorageSettings(AttentionStorageSettings(dtype="float32"))
    data = DataSettings(image_file=make_image(), query="a cat", save_id="s", output_dir=str(tmp_path / "out"))
    settings = Settings(stage="pipeline", model=OWN, logic=OWN_LOGIC, data=data, storage=storage)
    run(settings, FakeCollector().load)
    directory = tmp_path / "out/fake-model"
    before = (directory / "s_bbox.json").read_bytes()
    run(Settings(stage="visualize", logic=OWN_LOGIC, data=DataSettings(attention_file=str(directory / "s.pkl"))))
    assert (directory / "s_bbox.json").read_bytes() == before


def test_what_follows_the_model_is_no_key_of_the_configuration() -> None:
    assert "follows_model" not in known_keys()
    assert {f"logic.{key}" for key in FOLLOWING} | {f"model.{key}" for key in FOLLOWING.values()} <= set(known_keys())


# Earlier results


def single(tmp_path: Path, stage: str = "pipeline", logic: LogicSettings = OWN_LOGIC, **data) -> Settings:
    data = {"output_dir": str(tmp_path / "out"), "save_id": "s", **data}
    return Settings(stage=stage, model=OWN, logic=logic, data=DataSettings(**data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"query": "a dog"}, "they answer 'a cat'", id="another_query"),
        pytest.param({"image_file": "y.png"}, "they are about '.*x.png'", id="another_picture"),
        pytest.param({"logic": replace(OWN_LOGIC, top_k=2)}, "they were made with other settings", id="other_settings"),
    ],
)
@pytest.mark.parametrize("stage", [pytest.param("pipeline", id="pipeline"), pytest.param("collect", id="collect")])
def test_a_single_run_overwrites_nothing_of_something_else(tmp_path, make_image, stage, change, message) -> None:
    directory = collect_own(tmp_path, make_image)
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    question = {"image_file": make_image(), "query": "a cat", **change}
    if "image_file" in change:
        question["image_file"] = str(tmp_path / "y.png")
        Image.new("RGB", (160, 120), (9, 9, 9)).save(tmp_path / "y.png")
    settings = single(tmp_path, stage, **question)
    fake = FakeCollector()
    if stage == "collect" and "logic" in change:  # attention does not depend on how it is analysed
        run(settings, fake.load)
        return
    with pytest.raises(ValueError, match=f"no results of something else under the name 's', but got some: {message}"):
        run(settings, fake.load)
    assert fake.stop_layers == []  # told before a model is loaded
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    run(replace(settings, data=replace(settings.data, overwrite=True)), fake.load)
    assert load_attention(directory / "s.pkl.gz").sample.query == question["query"]


def test_the_same_run_again_and_the_same_picture_elsewhere_are_no_loss(tmp_path, make_image) -> None:
    collect_own(tmp_path, make_image)
    collect_own(tmp_path, make_image)
    (tmp_path / "copy").mkdir()
    collect_own(tmp_path, make_image, image_file=make_image("copy/x.png"))


def test_visualize_and_analyze_overwrite_nothing_of_other_settings(tmp_path, make_image) -> None:
    directory = collect_own(tmp_path, make_image)
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    other = replace(OWN_LOGIC, top_k=2, skip_layers=4)
    for stage, message in (("visualize", "made with other settings"), ("analyze", "to hold the ranking that these")):
        data = DataSettings(attention_file=str(directory / "s.pkl"))
        settings = Settings(stage=stage, model=OWN, logic=other, data=data)
        with pytest.raises(ValueError, match=f"{message}.*data.overwrite=true"):
            run(settings)
        assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    run(replace(settings, stage="visualize", data=replace(data, overwrite=True)))
    names = {path.name for path in directory.iterdir()}
    assert names == {"s.pkl.gz", "s_meta.json", "s_top2.png", "s_mask.png", "s_bbox.json"}


def test_what_a_run_redoes_it_removes_first(tmp_path, make_image) -> None:
    directory = collect_own(tmp_path, make_image)
    (directory / "s_top3_top3.png").write_bytes(b"of the id s_top3")
    question = {"image_file": make_image(), "query": "a dog", "overwrite": True}
    run(single(tmp_path, "collect", **question), FakeCollector().load)
    assert {path.name for path in directory.iterdir()} == {"s.pkl.gz", "s_meta.json", "s_top3_top3.png"}


def test_a_batch_that_redoes_leaves_nothing_old_beside(tmp_path) -> None:
    rows = write_rows(tmp_path, 3)
    data = DataSettings(data_file=str(rows), output_dir=str(tmp_path / "out"), visualize_batch=True)
    settings = Settings(stage="batch", model=OWN, logic=OWN_LOGIC, data=data)
    run(settings, FakeCollector().load)
    directory = tmp_path / "out/fake-model"
    again = replace(settings, logic=replace(OWN_LOGIC, top_k=2), data=replace(data, overwrite=True))
    boxes_only = replace(again, storage=StorageSettings(AttentionStorageSettings(save=False)))
    run(boxes_only, FakeCollector().load)
    endings = {".pkl.gz", "_meta.json", "_top2.png", "_mask.png", "_bbox.json"}  # the attention is what it was
    assert {path.name for path in directory.glob("row*")} == {f"row{n}{end}" for n in range(3) for end in endings}
    other_prompt = replace(boxes_only, model=replace(OWN, conv_mode="v1"))
    run(other_prompt, FakeCollector().load)
    endings -= {".pkl.gz", "_meta.json"}
    assert {path.name for path in directory.glob("row*")} == {f"row{n}{end}" for n in range(3) for end in endings}


# Earlier selections


@pytest.fixture
def surveyed(tmp_path):
    rows = write_rows(tmp_path, 24)
    data = DataSettings(data_file=str(rows), output_dir=str(tmp_path / "out"))
    run(Settings(stage="batch", model=OWN, logic=OWN_LOGIC, data=data), FakeCollector().load)
    data = replace(data, data_file=None, ground_truth=str(rows), analysis_dir=str(tmp_path / "heads"))
    return Settings(stage="batch_analyze", model=OWN, logic=OWN_LOGIC, data=data)


def test_a_survey_removes_what_it_makes_stale(surveyed, tmp_path) -> None:
    run(surveyed)
    heads = tmp_path / "heads"
    (heads / "batch_1_top3.png").write_bytes(b"of the id batch_1")
    audit = {"head_audit.csv", "head_audit.json", "head_audit.png", "labelled_heads.yaml"}
    assert audit < {path.name for path in heads.iterdir()}
    run(replace(surveyed, save_fig=False, data=replace(surveyed.data, ground_truth=None)))
    tables = {"batch_selected_heads.json", "batch_selected_heads_counts.csv", "heads.yaml"}
    assert {path.name for path in heads.iterdir()} == {*tables, "batch_1_top3.png"}


def test_heads_found_with_other_settings_are_not_overwritten(surveyed, tmp_path) -> None:
    run(replace(surveyed, save_fig=False))
    before = (tmp_path / "heads/heads.yaml").read_bytes()
    other = replace(surveyed, save_fig=False, logic=replace(OWN_LOGIC, top_k=2))
    with pytest.raises(ValueError, match=r"but got others: logic\.top_k was 3 and is 2\. .*data\.overwrite=true"):
        run(other)
    assert (tmp_path / "heads/heads.yaml").read_bytes() == before
    run(replace(other, data=replace(other.data, overwrite=True)))
    assert (tmp_path / "heads/heads.yaml").read_bytes() != before


def test_the_heads_file_in_use_is_not_overwritten(surveyed, tmp_path) -> None:
    run(replace(surveyed, save_fig=False))
    in_use = replace(surveyed, logic=replace(OWN_LOGIC, heads_file=str(tmp_path / "heads/heads.yaml")))
    with pytest.raises(ValueError, match=r"heads\.yaml to stay while they are scored.*another data\.analysis_dir"):
        run(replace(in_use, data=replace(in_use.data, overwrite=True)))


def test_the_heads_of_the_scores_are_the_heads_that_were_scored(surveyed, tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    heads = tuple(FixedHead(layer, head) for layer, head in ((2, 0), (3, 2), (4, 1)))
    write_heads_file(path, HeadsFile("fake/model", "referseg", 6, 4, heads))
    scores_only = replace(surveyed, save_fig=False, data=replace(surveyed.data, audit=False))
    given = run(replace(scores_only, logic=replace(OWN_LOGIC, heads_file=str(path))))
    assert given.scores["heads"] == "L2H0 L3H2 L4H1"
    assert given.scores["mean IoU"] < 0.9
    data = replace(scores_only.data, analysis_dir=str(tmp_path / "per_image"))
    assert run(replace(scores_only, data=data)).scores["heads"] == "per image"


# The answer


def test_the_answer_of_the_model_is_shown(tmp_path, make_image) -> None:
    class Answering(FakeCollector):
        def collect(self, samples):
            for outcome in super().collect(samples):
                yield replace(outcome, meta={**outcome.meta, "generated_text": "on the\nbranch"})

    settings = single(tmp_path, image_file=make_image(), query="where is it?")
    settings = replace(settings, model=replace(OWN, use_generate=True))
    assert "answer  'on the\\nbranch'" in run(settings, Answering().load).lines
    data = DataSettings(attention_file=str(tmp_path / "out/fake-model/s.pkl"))
    shown = run(Settings(stage="visualize", logic=OWN_LOGIC, data=data))
    assert "answer  'on the\\nbranch'" in shown.lines
