"""Runs a batch over a slow fake collector; a test kills it on the way."""

from __future__ import annotations

import sys

from fake_collector import FakeCollector

from lab.config.settings import DataSettings, ModelSettings, Settings
from pipeline import run

if __name__ == "__main__":
    data_file, output_dir, seconds, pictures = sys.argv[1:]
    settings = Settings(
        stage="batch",
        model=ModelSettings(name="fake/model", batch_size=int(pictures)),
        data=DataSettings(data_file=data_file, output_dir=output_dir, visualize_batch=False),
    )
    run(settings, FakeCollector(seconds=float(seconds), company=int(pictures)).load)
