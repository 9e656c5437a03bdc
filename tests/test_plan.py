"""What is refused before any file is touched."""

from __future__ import annotations

import pytest
from fake_collector import FakeCollector, write_rows

from lab.config.errors import ConfigError
from lab.config.settings import DataSettings, ModelSettings, Settings
from pipeline import run


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


def test_query_that_no_text_holds_is_refused_before_anything_is_made(tmp_path, make_image) -> None:
    data = DataSettings(image_file=make_image(), query="the \udcff bird", output_dir=str(tmp_path / "out"))
    fake = FakeCollector()
    with pytest.raises(
        ValueError, match=r"'data.query' to be text that UTF-8 can hold, but got '\\udcff' at character 4"
    ):
        run(Settings(stage="pipeline", data=data), fake.load)
    assert not (tmp_path / "out").exists()
    assert fake.stop_layers == []
