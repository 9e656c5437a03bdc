"""Wrong overrides: whatever is typed after the program's name, it ends in one line and status 2."""

from __future__ import annotations

import random
import re

import pytest
from test_config import ROOT, compose_config

import pipeline
from lab.config.composing import check_arguments, composing
from lab.config.errors import LONGEST_LINE, ConfigError
from lab.config.fields import known_keys
from lab.config.schema import validate

KEYS = sorted(known_keys())
WORDS = ["cuda", "null", "true", "''", "' '", "L3H8", "~/none", "https://a.b/c.png"]
NUMBERS = ["-1", "1e9", "1e999", "nan", "-inf", "0.5", "9" * 30, "9" * 5000]
NESTED = ["[1,2]", "[a,[b,[c]]]", "{a:1}", "{}", "[]", "[null]", "[[[[1]]]]", "[{layer:x,head:y}]", "[L3H]"]
BROKEN = [
    "[",
    "{",
    "${",
    "${nope}",
    "${model.nope}",
    "${data}",
    "${oc.env:NO_SUCH}",
    "a,b",
    "range(1,3)",
    "\\",
    "'",
    '"',
]
TEXTS = ["x" * 300, "a/" * 200, "\x01\x1b[31m", "line\nbreak", "\u2028", "\U0001f426", "\ud800"]
VALUES = [*WORDS, *NUMBERS, *NESTED, *BROKEN, *TEXTS]


def random_override(rng: random.Random) -> str:
    """A key that is right, cut, extended or of another group, with a value of any kind."""
    key = rng.choice(KEYS)
    change = rng.choice(["", "", "", "", ".x", ".0", "s", "+", "++", "~", "group"])
    key = rng.choice(["model", "logic", "data", "storage", "figures"]) if change == "group" else key
    key = change + key if change in {"+", "++", "~"} else key + change * (change != "group")
    return f"{key}={rng.choice(VALUES)}"


def message_of_main(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert pipeline.main(arguments) == 2
    captured = capsys.readouterr()
    [line] = captured.err.splitlines()
    assert line.startswith("error: Expected ")
    assert len(line) <= LONGEST_LINE + 10
    return line


def compose_and_validate(override: str) -> None:
    with composing(lambda cfg: None):
        check_arguments([override])
        validate(compose_config(override))


@pytest.fixture(autouse=True)
def _plain_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        pytest.param("data=1", "Expected data to be the name of a file in conf/data", id="group-number"),
        pytest.param("logic=[1,2]", "Expected logic to be the name of a file in conf/logic", id="group-list"),
        pytest.param("model=null", "Expected model to be the name of a file in conf/model", id="group-null"),
        pytest.param("logic=" + "a" * 300, "one of paper, selection_v1, but got 'a{60,80}\\.\\.\\.", id="group-long"),
        pytest.param("logic.manual_heads.layer=cuda", "got 'logic.manual_heads.layer'. Did", id="below-a-list"),
        pytest.param("logic.top_k.x=1", "got 'logic.top_k.x'. Did you mean 'logic.top_k'", id="below-a-number"),
        pytest.param("logic.smoothing.sigma=1e9", "sigma to be between 0 and 100, but got 1000000000.0", id="sigma"),
        pytest.param("logic.threshold.min_keep=" + "9" * 30, "min_keep to be between 0 and", id="thirty-nines"),
        pytest.param("logic.top_k=" + "9" * 5000, "Expected", id="five-thousand-nines"),
        pytest.param("logic.top_k=${logic.top_k}", "refer to a key .*Recursive interpolation", id="own-value"),
        pytest.param("logic.manual_heads=L3H8,L2H6", r"Write a list as logic.manual_heads=\[L3H8,L2H6\]", id="commas"),
        pytest.param("logic.manual_heads=[L3]", r"such as \[L14H24, L14H13\] or .* got 'L3'", id="no-head"),
        pytest.param("logic.manual_heads=[[[[1]]]]", r"such as \[L14H24, L14H13\]", id="nested-lists"),
        pytest.param("logic.force_manual_heads=true", "Expected logic.manual_heads with", id="forced-nothing"),
        pytest.param("figures.format=gif", "figures.format to be png, pdf, svg or a list", id="format"),
        pytest.param("figures.format=[png,png]", "each once", id="format-twice"),
        pytest.param("figures.dpi=100000", "figures.dpi to be between 20 and 1200", id="dpi"),
        pytest.param("data.box_format=xyyx", "data.box_format to be one of auto, xywh.*Did you mean", id="box-format"),
        pytest.param("data.image_file=https://a.b/c.png", "a path on this machine, but got the address", id="address"),
        pytest.param("=1", "Expected", id="no-key"),
        pytest.param("--nope", "Expected flags that Hydra knows", id="flag"),
        pytest.param("--cfg=nope", "Expected flags that Hydra knows", id="flag-value"),
    ],
)
def test_wrong_arguments_end_in_one_line(override: str, message: str, tmp_path, capsys) -> None:
    line = message_of_main([override, f"hydra.run.dir={tmp_path}"], capsys)
    assert re.search(message, line)


@pytest.mark.parametrize("seed", range(6))
def test_random_overrides_end_in_one_line(seed: int, tmp_path, capsys) -> None:
    rng = random.Random(seed)
    for _ in range(8):
        overrides = [random_override(rng) for _ in range(rng.choice([1, 1, 1, 2]))]
        message_of_main([*overrides, f"hydra.run.dir={tmp_path}"], capsys)


@pytest.mark.parametrize("seed", range(8))
def test_random_values_end_in_a_config_error_of_one_line(seed: int) -> None:
    """Without an image no value is enough for a run, so that each ends in a message."""
    rng = random.Random(100 + seed)
    for _ in range(60):
        override = f"{rng.choice(KEYS)}={rng.choice(VALUES)}"
        with pytest.raises(ConfigError) as caught:
            compose_and_validate(override)
        [line] = str(caught.value).splitlines()
        assert len(line) <= LONGEST_LINE


def test_an_error_of_the_task_is_not_taken_for_one_of_the_configuration() -> None:
    def task(cfg: object) -> None:
        raise TypeError("a fault of the program")

    with pytest.raises(TypeError, match="a fault of the program"), composing(task) as watched:
        watched(None)


def test_a_config_error_is_one_printable_line_of_bounded_length() -> None:
    assert str(ConfigError("a\x1b[31m\nb\u2028c")).split() == [r"a\x1b[31m", "b\\u2028c"]
    assert len(str(ConfigError("y" * 10**6))) <= LONGEST_LINE


def test_the_sweep_of_a_wrong_value_says_so(tmp_path, capsys) -> None:
    assert pipeline.main(["-m", "logic.top_k=1,none", f"hydra.sweep.dir={tmp_path}"]) == 2
    assert "Expected logic.top_k to be a whole number" in capsys.readouterr().err
