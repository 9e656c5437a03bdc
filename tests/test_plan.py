"""What is refused before any file is touched."""

from __future__ import annotations

import pytest
from fake_collector import FakeCollector, write_rows

from lab.config.errors import ConfigError
from lab.config.settings import DataSettings, LogicSettings, ModelSettings, Settings
from pipeline import run
from stages.plan import Steps, make_plan


@pytest.mark.parametrize("stage", ["collect", "pipeline", "batch"])
def test_unknown_template_is_refused_before_anything_is_made(stage, tmp_path, make_image) -> None:
    out = tmp_path / "out"
    data = DataSettings(
        image_file=make_image(), query="dog", data_file=str(write_rows(tmp_path, 2)), output_dir=str(out)
    )
    settings = Settings(stage=stage, model=ModelSettings(conv_mode="referseq"), data=data)
    fake = FakeCollector()
    with pytest.raises(ConfigError, match=r"model\.conv_mode to be one of .*Did you mean 'referseg'\?"):
        run(settings, fake.load)
    assert not out.exists()
    assert fake.stop_layers == []


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            ModelSettings(quantization="8bit"),
            "quantization to be none with the prompt model.conv_mode=referseg, but got 8",
        ),
        (ModelSettings(device="balanced"), "device to be auto with the prompt model.conv_mode=referseg, but got balan"),
        (ModelSettings(conv_mode="chat", views=4), "views to be 1 with model.conv_mode=chat, but got 4"),
        (ModelSettings(conv_mode="cht"), "For any other image-text model: model.conv_mode=chat or plain"),
    ],
    ids=["quantization", "balanced", "views", "template"],
)
def test_what_cannot_go_together(model, message) -> None:
    with pytest.raises(ConfigError, match=message):
        make_plan(Settings(stage="batch", model=model), Steps())


def test_any_model_may_be_quantized_and_spread() -> None:
    model = ModelSettings(conv_mode="chat", quantization="4bit", device="balanced", use_flash_attn=True)
    plan = make_plan(Settings(stage="batch", model=model), Steps())
    assert plan.shaping["model.quantization"] == "4bit"
    usual = make_plan(Settings(stage="batch"), Steps())
    assert not {"model.quantization", "logic.regions"} & set(usual.shaping)
    parts = Settings(stage="batch", logic=LogicSettings(regions="tiles"))
    assert make_plan(parts, Steps()).shaping["logic.regions"] == "tiles"


def test_query_that_no_text_holds_is_refused_before_anything_is_made(tmp_path, make_image) -> None:
    data = DataSettings(image_file=make_image(), query="the \udcff bird", output_dir=str(tmp_path / "out"))
    fake = FakeCollector()
    with pytest.raises(
        ValueError, match=r"'data.query' to be text that UTF-8 can hold, but got '\\udcff' at character 4"
    ):
        run(Settings(stage="pipeline", data=data), fake.load)
    assert not (tmp_path / "out").exists()
    assert fake.stop_layers == []
