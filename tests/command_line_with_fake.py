"""Runs the command line over a fake collector; environment variables say what it does and what it waits for.

`FAKE_LOADED` names a file that is made when the model would be loaded, `FAKE_GATE` one without which no mask is
written: a row that waits for it makes a file of the same name with its own name added.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from fake_collector import FakeCollector

import pipeline
from lab.storage import files


def main() -> int:
    """Put the fake in place, and run the command line."""
    fake = FakeCollector()

    def load(model, stop_layer=None):
        if os.environ.get("FAKE_LOADED"):
            Path(os.environ["FAKE_LOADED"]).touch()
        return fake.load(model, stop_layer)

    save_mask = files.save_mask_png

    def save_mask_behind_the_gate(path, mask):
        gate, deadline = Path(os.environ["FAKE_GATE"]), time.monotonic() + 300
        gate.with_name(f"{gate.name}-{path.name}").touch()
        while not gate.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        save_mask(path, mask)

    if os.environ.get("FAKE_GATE"):
        files.save_mask_png = save_mask_behind_the_gate
    pipeline.run.__defaults__ = (load,)
    return pipeline.main()


if __name__ == "__main__":
    sys.exit(main())
