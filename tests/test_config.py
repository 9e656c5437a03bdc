"""The configuration: every YAML file, every kind of mistake, natural sentences."""

from __future__ import annotations

import copy
import dataclasses
import functools
import operator
import re
import resource
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from command_line.quoting import quote_text_values, quote_value
from lab.config import schema as config
from lab.config.fields import group_names, known_keys, limits, text_keys
from lab.config.help_page import help_text
from lab.config.path_keys import expand_paths, path_keys
from lab.config.schema import register_schema, validate
from lab.config.settings import STAGES, ConfigError, HeadIndex, Settings, model_directory_name
from lab.config.values import Between

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf"

# All keys of the README, beside those that were added since.
README_KEYS = {
    "": "stage save_fig show_plot",
    "model": "name cache_dir device device_id conv_mode max_new_tokens do_sample num_beams use_generate use_flash_attn "
    "dtype revision",
    "logic": "top_k threshold.method threshold.min_keep entropy.binarize_threshold smoothing.sigma mask.method "
    "manual_heads heads_file",
    "data": "image_file query attention_file data_file process_all start_index end_index output_dir visualize_batch "
    "batch_attention_dir save_id strict overwrite trials ground_truth",
    "storage": "attention.compress attention.dtype attention.keep_meta_pickle attention.save",
}


@functools.cache
def compose_once(*overrides: str):
    """Hydra takes a fifth of a second to compose."""
    register_schema()
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def compose_config(*overrides: str):
    """Let Hydra choose the groups and judge the keys; set known keys on a copy of that, which is what Hydra does."""
    sets_known_key = [override.partition("=")[0] in known_keys() for override in overrides]
    names_group = [override.partition("=")[0] in group_names() for override in overrides]
    direct = [known and not group for known, group in zip(sets_known_key, names_group)]
    cfg = copy.deepcopy(compose_once(*(override for override, is_direct in zip(overrides, direct) if not is_direct)))
    for override, is_direct in zip(overrides, direct):
        if is_direct:
            parsed = OverridesParser.create().parse_override(override)
            OmegaConf.update(cfg, parsed.key_or_group, parsed.value(), merge=True)
    return cfg


def settings_of(*overrides: str) -> Settings:
    settings = OmegaConf.to_object(compose_config(*overrides))
    assert isinstance(settings, Settings)
    return settings


def message_of(*overrides: str) -> str:
    """The one line that a wrong configuration gives, as the command line would print it."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - Hydra raises several kinds
        validate(compose_config(*overrides))
    message = config.explain(caught.value)
    assert "\n" not in message
    return message


# The YAML files


def test_default_configuration_is_what_the_readme_says() -> None:
    settings = settings_of()
    assert settings.model.name == "liuhaotian/llava-v1.5-7b"
    assert settings.model.conv_mode == "referseg"
    assert settings.data.output_dir == "outputs/results"
    assert (settings.logic.top_k, settings.logic.threshold.method, settings.logic.mask.method) == (
        3,
        "chord",
        "mean_relu",
    )
    assert settings.storage.attention.dtype == "float16"
    assert settings.storage.attention.compress
    assert not settings.storage.attention.keep_meta_pickle


@pytest.mark.parametrize("group", README_KEYS)
def test_every_key_of_the_readme_exists_and_is_spelt_out_in_yaml(group: str) -> None:
    written: dict = {}
    for path in (CONF / group).glob("*.yaml"):
        written = OmegaConf.to_container(OmegaConf.merge(written, yaml.safe_load(path.read_text())))
    for key in README_KEYS[group].split():
        assert f"{group}.{key}".lstrip(".") in known_keys()
        node = written
        for part in key.split("."):
            assert part in node
            node = node[part]


@pytest.mark.parametrize("group", ["data", "figures", "logic", "model", "report", "storage"])
def test_every_option_of_every_group_composes_and_passes_its_checks(group: str) -> None:
    options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    assert options
    for option in options:
        given = ["model.name=a/b"] if option == "auto" else []
        assert isinstance(settings_of(f"{group}={option}", *given), Settings)


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("llava15_7b", "liuhaotian/llava-v1.5-7b"),
        ("llava15_13b", "liuhaotian/llava-v1.5-13b"),
        ("llava15_7b_hf", "llava-hf/llava-1.5-7b-hf"),
        ("llava15_13b_hf", "llava-hf/llava-1.5-13b-hf"),
        ("picturebook", "examples/models/picturebook-llava"),
        ("llava_next_7b", "llava-hf/llava-v1.6-mistral-7b-hf"),
        ("llava_next_13b", "llava-hf/llava-v1.6-vicuna-13b-hf"),
        ("llava_onevision_7b", "llava-hf/llava-onevision-qwen2-7b-ov-hf"),
        ("qwen25_vl_3b", "Qwen/Qwen2.5-VL-3B-Instruct"),
        ("qwen25_vl_7b", "Qwen/Qwen2.5-VL-7B-Instruct"),
        ("qwen3_vl_4b", "Qwen/Qwen3-VL-4B-Instruct"),
        ("qwen3_vl_8b", "Qwen/Qwen3-VL-8B-Instruct"),
        ("internvl3_2b", "OpenGVLab/InternVL3-2B-hf"),
        ("internvl3_8b", "OpenGVLab/InternVL3-8B-hf"),
        ("gemma3_4b", "google/gemma-3-4b-it"),
        ("smolvlm2", "HuggingFaceTB/SmolVLM2-2.2B-Instruct"),
        ("paligemma2", "google/paligemma2-3b-mix-448"),
        ("idefics3", "HuggingFaceM4/Idefics3-8B-Llama3"),
        ("mistral_small31", "mistralai/Mistral-Small-3.1-24B-Instruct-2503"),
        ("llama32_vision_11b", "meta-llama/Llama-3.2-11B-Vision-Instruct"),
        ("glm41v", "zai-org/GLM-4.1V-9B-Thinking"),
    ],
)
def test_model_options(option: str, name: str) -> None:
    assert settings_of(f"model={option}").model.name == name


def test_presets_of_any_model_have_its_prompts_and_no_heads_of_another() -> None:
    presets = [path.stem for path in (CONF / "model").glob("*.yaml") if "llava15" not in path.stem]
    for option in sorted(set(presets) - {"auto", "picturebook"}):
        model = settings_of(f"model={option}").model
        assert model.reads_any_model, option
        assert model.conv_mode == ("plain" if option == "paligemma2" else "chat")
        assert model.heads_file is None
    assert not settings_of().model.reads_any_model


@pytest.mark.parametrize("option", sorted(path.stem for path in (CONF / "heads").glob("llava*.yaml")))
def test_heads_files_of_the_paper_belong_to_their_models(option: str) -> None:
    from lab.heads.heads_file import read_heads_file

    model = settings_of(f"model={option}").model
    heads = read_heads_file(ROOT / str(model.heads_file))
    assert heads.model_name == model.name
    wanted = ((14, 24), (14, 13), (14, 26)) if "7b" in option else ((15, 39), (16, 30), (7, 2))
    assert heads.first(3) == wanted


def test_the_two_presets_differ_in_the_points_of_the_paper() -> None:
    ours, paper = settings_of("logic=selection_v1").logic, settings_of("logic=paper").logic
    assert (ours.threshold.scope, paper.threshold.scope) == ("sample", "dataset")
    assert (ours.entropy.shares, paper.entropy.shares) == ("mass", "area")
    assert (ours.entropy.binarize_threshold, paper.entropy.binarize_threshold) == (0.001, 0.0)
    assert (ours.bottom_row_filter, paper.bottom_row_filter) == (True, False)
    assert (ours.lowest_n, paper.lowest_n) == (None, 10)
    assert (ours.smoothing.truncate, paper.smoothing.truncate) == (4.0, 3.0)
    assert (ours.heads_file, paper.heads_file) == (None, "conf/heads/llava15_7b.yaml")


def test_smoothing_follows_the_model_unless_it_is_set() -> None:
    suits = settings_of("model=picturebook").model.smoothing_sigma
    assert suits < 1.0
    assert settings_of("model=picturebook").logic.smoothing.sigma == suits
    assert settings_of("model=picturebook", "logic=paper").logic.smoothing.sigma == suits
    assert settings_of("model=picturebook", "logic.smoothing.sigma=2").logic.smoothing.sigma == 2.0


def test_settings_are_frozen() -> None:
    settings = settings_of()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.logic.top_k = 1  # type: ignore[misc]


def test_a_default_is_the_same_in_yaml_and_in_the_schema() -> None:
    """Both are written for people to read; only the heads of the default model are named in YAML alone."""
    composed = settings_of()
    assert dataclasses.replace(composed, model=dataclasses.replace(composed.model, heads_file=None)) == Settings()


@pytest.mark.parametrize(
    "spelling",
    [
        "[{layer: 14, head: 24}, {layer: 3, head: 1}]",
        "[L14H24,L3H1]",
        "[l14h24, L03H01]",
        "[L14H24,{layer: 3, head: 1}]",
        "'L14H24, L3H1'",
    ],
)
def test_manual_heads_are_read_in_order_as_people_spell_them(spelling: str) -> None:
    settings = settings_of(f"logic.manual_heads={spelling}")
    assert settings.logic.manual_head_indices == ((14, 24), (3, 1))
    assert settings.logic.manual_heads == [HeadIndex(14, 24), HeadIndex(3, 1)]


def test_forced_heads_are_all_used() -> None:
    heads = "logic.manual_heads=[L1H0,L1H1,L1H2,L1H3]"
    assert settings_of(heads).logic.top_k == 3
    assert settings_of(heads, "logic.force_manual_heads=true").logic.top_k == 4
    assert settings_of("logic.manual_heads=[L1H0]", "logic.force_manual_heads=true").logic.top_k == 3


@pytest.mark.parametrize(("value", "formats"), [("pdf", ("pdf",)), ("[png,svg]", ("png", "svg"))], ids=["one", "two"])
def test_figures_are_written_in_one_format_or_several(value: str, formats: tuple[str, ...]) -> None:
    assert settings_of(f"figures.format={value}").figures.formats == formats


def test_every_number_has_bounds() -> None:
    keys = {key for key, kind in known_keys().items() if {int, float} & {kind, *typing.get_args(kind)}}
    assert keys
    assert keys <= {key for key, limit in limits().items() if isinstance(limit, Between)}


@pytest.mark.parametrize("key", sorted(path_keys()))
def test_every_path_expands_the_home_directory(key: str, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = expand_paths(settings_of(f"{key}='~/x'"))
    assert operator.attrgetter(key)(settings) == f"{tmp_path}/x"


def test_paths_of_a_list_are_expanded_too(monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    settings = expand_paths(settings_of("data.batch_attention_dir=['~/a',b]"))
    assert settings.data.attention_dirs == ("/home/me/a", "b")


# Mistakes


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.querry=x", r"got 'data\.querry'\. Did you mean 'data\.query'\?"),
        ("logic.topk=1", r"Did you mean 'logic\.top_k'\?"),
        ("data.top_k=1", r"Did you mean 'logic\.top_k'\?"),
        ("storage.compress=true", r"Did you mean 'storage\.attention\.compress'\?"),
        ("modle=picturebook", r"Did you mean 'model'\?"),
        ("+data.qeury=x", r"got 'data\.qeury'\. Did you mean 'data\.query'\?"),
        ("+nonsense=x", r"got 'nonsense'\. See python pipeline\.py --help"),
        ("~data.query", r"Expected data\.query to be set, but got a request to remove it"),
        (
            "logic.manual_heads=[{layr: 1, head: 2}]",
            r"such as \[L14H24, L14H13\] or .*, but got \{'layr': 1, 'head': 2\}",
        ),
        ("model=llava15_7", r"one of .*picturebook, .* but got 'llava15_7'\. Did you mean model=llava15_7b\?"),
        ("logic=papre", r"Did you mean logic=paper\?"),
        ("logic.top_k=three", r"Expected logic\.top_k to be a whole number, but got.*'three'"),
        ("logic.top_k=1.5", r"Expected logic\.top_k to be a whole number"),
        ("logic.top_k=null", r"Expected logic\.top_k to be a whole number"),
        ("logic.smoothing.sigma=wide", r"Expected logic\.smoothing\.sigma to be a number"),
        ("logic.threshold.value=x", r"Expected logic\.threshold\.value to be a number or null"),
        ("logic.smoothing.sigma=${model.smoothing}", r"Expected logic\.smoothing\.sigma to refer to a key .*smoothing"),
        ("save_fig=perhaps", r"Expected save_fig to be true or false"),
        ("logic.threshold=3", r"Expected logic\.threshold to be a valid value"),
        ("data.query=[a,b]", r"Expected data\.query to be text or null"),
        ("data.image_file={a: 1}", r"Expected data\.image_file to be text or null"),
        ("logic.top_k=0", r"Expected logic\.top_k to be between 1 and 10000, but got 0"),
        ("logic.skip_layers=-1", r"logic\.skip_layers to be between 0 and 10000"),
        ("logic.smoothing.sigma=-1", r"logic\.smoothing\.sigma to be between 0 and 100, but got -1"),
        ("logic.smoothing.sigma=nan", r"logic\.smoothing\.sigma to be between 0 and 100, but got nan"),
        ("logic.smoothing.sigma=inf", r"logic\.smoothing\.sigma to be between 0 and 100, but got inf"),
        ("logic.smoothing.truncate=0", r"logic\.smoothing\.truncate to be between 0\.5 and 20"),
        ("logic.entropy.binarize_threshold=2", r"binarize_threshold to be between 0 and 1, but got 2"),
        ("logic.entropy.shares=count", r"logic\.entropy\.shares to be one of mass, area, but got 'count'"),
        ("logic.threshold.method=cord", r"one of chord, but got 'cord'\. Did you mean 'chord'\?"),
        ("logic.threshold.scope=batch", r"one of sample, dataset, but got 'batch'"),
        ("logic.threshold.value=1.5", r"logic\.threshold\.value to be between 0 and 1"),
        ("logic.mask.region=biggest", r"logic\.mask\.region to be one of .*largest"),
        ("logic.lowest_n=0", r"logic\.lowest_n to be between 1 and"),
        (
            "logic.manual_heads=[{layer: -1, head: 2}]",
            r"logic\.manual_heads\.layer to be between 0 and 9999, but got -1",
        ),
        ("logic.manual_heads=[{layer: 1, head: 2}, {layer: 1, head: 2}]", "each head once"),
        ("model.device=gpu", r"model\.device to be auto, cpu, cuda or cuda:<id>, or balanced, but got 'gpu'"),
        ("model.dtype=half", r"model\.dtype to be one of auto, float16"),
        ("model.quantization=2bit", "model.quantization to be one of none, 8bit, 4bit"),
        ("logic.regions=all", r"logic\.regions to be one of merged, thumbnail, tiles, but got 'all'"),
        ("model=auto", r"model\.name to be non-empty text, .* such as model\.name=Qwen"),
        ("model.prefill_attention=flash", r"prefill_attention to be one of sdpa, eager"),
        ("model.batch_size=0", r"model\.batch_size to be between 1 and"),
        ("model.num_beams=0", r"model\.num_beams to be between 1 and"),
        ("model.name=''", r"model\.name to be non-empty text"),
        ("storage.attention.dtype=float8", r"storage\.attention\.dtype to be one of float16, bfloat16, float32"),
        ("storage.attention.level=10", r"storage\.attention\.level to be between 0 and 9"),
        ("storage.workers=0", r"storage\.workers to be between 1 and 64"),
        ("data.trials=0", r"data\.trials to be between 1 and"),
        ("data.start_index=-1", r"data\.start_index to be between 0 and"),
        ("data.batch_attention_dir=[a,3]", r"directory or a list of directories, but got \['a', 3\]"),
        ("stage=pipelin", r"stage to be one of .* but got 'pipelin'\. Did you mean 'pipeline'\?"),
    ],
)
def test_each_mistake_is_named_in_one_line(override: str, message: str, make_image) -> None:
    others = (f"data.image_file={make_image()}", "data.query=bird")
    assert re.search(message, message_of(*others, override))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.start_index=5", "data.end_index=5"], r"data\.end_index to be between 6 and 1\d+, but got 5"),
        (["data.process_all=true", "data.end_index=5"], "either data.process_all=true or a range"),
        (["data.process_all=false"], "Expected data.start_index or data.end_index with data.process_all=false"),
        (
            ["logic.heads_file=x.yaml", "logic.manual_heads=[{layer: 1, head: 2}]"],
            "either logic.manual_heads or logic.heads_file",
        ),
    ],
)
def test_contradictions_are_refused(overrides: list[str], message: str) -> None:
    assert re.search(message, message_of(*overrides))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stage=pipeline"], r"data\.image_file to be given for stage=pipeline"),
        (["stage=collect", "data.image_file=README.md"], r"data\.query to be given for stage=collect"),
        (
            ["stage=pipeline", "data.query=x", "data.image_file=tests/none.png"],
            r"existing file, but got 'tests/none\.png'",
        ),
        (
            ["stage=pipeline", "data.query=x", "data.image_file=tests/conftst.py"],
            r"Did you mean 'tests/conftest\.py'\?",
        ),
        (["stage=pipeline", "data.query=x", "data.image_file=nowhere/a.png"], "There is no directory 'nowhere' either"),
        (
            ["stage=pipeline", "data.query=x", "data.image_file=examples/images"],
            r"but got the directory 'examples/images'\. Name a file in it, such as 'examples/images/\w+\.\w+'\.$",
        ),
        (["stage=batch_analyze", "data.batch_attention_dir=pipeline.py"], r"but got the file 'pipeline\.py'"),
        (["stage=analyze", "data.attention_file=tests"], r"data\.attention_file to be a file, but got the directory"),
        (["stage=pipeline", "data.query=x", f"data.image_file={'x' * 5000}"], r"existing file, but got 'x+"),
        (["stage=pipeline", "data.query=' '", "data.image_file=pipeline.py"], r"data\.query to be given"),
        (["stage=analyze"], r"data\.attention_file to be given for stage=analyze"),
        (["stage=visualize", "data.attention_file=none.pkl"], r"attention file at none\.pkl"),
        (["stage=batch"], r"data\.data_file to be given for stage=batch"),
        (["stage=batch", "data.data_file=none.jsonl"], r"Expected data\.data_file to be an existing file"),
        (["stage=batch_analyze", "data.batch_attention_dir=none"], r"batch_attention_dir to be an existing directory"),
        (["stage=batch_analyze", "data.batch_attention_dir=tests", "data.ground_truth=x"], r"data\.ground_truth"),
        (["stage=batch", "data.data_file=pipeline.py", "logic.heads_file=x.yaml"], r"logic\.heads_file"),
        (
            ["stage=batch", "data.data_file=pipeline.py", "logic=paper", "logic.heads_file=null"],
            r"logic\.heads_file or logic\.threshold\.value",
        ),
        (
            ["stage=collect", "data.image_file=pipeline.py", "data.query=x", "storage.attention.save=false"],
            r"storage\.attention\.save to be true for stage=collect",
        ),
    ],
)
def test_missing_inputs_of_each_stage_are_named(overrides: list[str], message: str, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    assert re.search(message, message_of(*overrides))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nmae: x\n", r"got 'model\.nmae'\. Did you mean 'model\.name'\?"),
        ("device_id: first\n", r"Expected model\.device_id to be a whole number"),
        ("name: [x\n", "Expected a valid configuration, but got: while parsing a flow sequence"),
        ("defaults: [llava]\n", "'model/llava'|model to be one of"),
    ],
)
def test_mistakes_in_a_yaml_file_of_ones_own_are_named(tmp_path, monkeypatch, capsys, content, message) -> None:
    import pipeline

    (tmp_path / "own/model").mkdir(parents=True)
    (tmp_path / "own/model/mine.yaml").write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    assert pipeline.main(["--config-dir", "own", "model=mine"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert re.search(message, line)


# Names of directories


@pytest.mark.parametrize(
    ("name", "directory"),
    [
        ("liuhaotian/llava-v1.5-7b", "liuhaotian-llava-v1.5-7b"),
        ("gpt2", "gpt2"),
        ("examples/models/picturebook-llava", "picturebook-llava"),
        ("./llava", "llava"),
        ("/data/models/llava-7b/", "llava-7b"),
        ("../x", "x"),
        ("C:\\models\\my llava", "my_llava"),
        ("..", "model"),
    ],
)
def test_model_directory_name(name: str, directory: str) -> None:
    assert model_directory_name(name) == directory


# Natural sentences on the command line


def read_by_hydra(argument: str) -> object:
    value = OverridesParser.create().parse_override(argument).value()
    return OmegaConf.create({"value": value}).value


awkward = st.text(st.sampled_from("'\"\\${}=,[]() \n\t:a.~+#%@é") | st.characters(exclude_categories=("Cs",)))


@given(awkward)
def test_any_text_survives_hydras_grammar(text: str) -> None:
    assert read_by_hydra(f"data.query={quote_value(text)}") == text


@pytest.mark.parametrize(
    "sentence",
    [
        "a cat, left of the dog",
        "the dog's ball (red)",
        'the "stop" sign',
        '"stop" sign',
        "x=1, y=[2]",
        "100%",
        "1e3",
        "true",
        "'tis the dog's",
        "ends in a backslash \\",
        "price ${x} and more",
        "birds.",
    ],
)
def test_natural_sentences_just_work(sentence: str) -> None:
    [argument] = quote_text_values([f"data.query={sentence}"], text_keys())
    assert read_by_hydra(argument) == sentence


@pytest.mark.parametrize(
    "argument",
    [
        "data.query=null",
        "data.query=",
        "data.save_id='quoted, already'",
        'data.save_id="quoted, already"',
        "data.image_file=${data.save_id}",
        "logic.top_k=3",
        "stage",
        "--help",
    ],
)
def test_other_arguments_are_left_alone(argument: str) -> None:
    assert quote_text_values([argument], text_keys()) == [argument]


def test_a_path_is_text_and_a_list_of_paths_a_list() -> None:
    keys = ["data.batch_attention_dir"]
    [one] = quote_text_values(["data.batch_attention_dir=~/a b"], text_keys(), keys)
    assert read_by_hydra(one) == "~/a b"
    assert quote_text_values(["data.batch_attention_dir=[a,b]"], text_keys(), keys) == [
        "data.batch_attention_dir=[a,b]"
    ]


def test_commas_stay_sweeps_in_a_multirun() -> None:
    arguments = ["-m", "data.query=a,b"]
    assert quote_text_values(arguments, text_keys()) == arguments


def test_text_keys_are_those_that_take_text() -> None:
    keys = text_keys()
    assert {"data.query", "data.image_file", "model.name", "logic.heads_file"} <= keys
    assert not {"logic.top_k", "data.strict", "model", "data.batch_attention_dir"} & keys


# Start-up


def run_python(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600)


def test_help_needs_nothing_heavy_and_names_all_stages_and_models() -> None:
    code = (
        "import sys, pipeline; status = pipeline.main(['--help']); "
        "heavy = {'torch', 'transformers', 'matplotlib', 'scipy', 'PIL'} & set(sys.modules); "
        "assert not heavy, heavy; sys.exit(status)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run_python("-c", code)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert after.ru_utime - before.ru_utime < 2  # seconds of computing; about half a second where nothing else runs
    for word in (*STAGES, *(path.stem for path in (CONF / "model").glob("*.yaml")), "paper", "data.query"):
        assert word in done.stdout


def test_help_shows_what_the_overrides_make() -> None:
    page = help_text(["model=picturebook", "logic.top_k=7"], CONF)
    assert "name: examples/models/picturebook-llava" in page
    assert "top_k: 7" in page
    assert "$CONFIG" not in page
    assert "hydra:" not in page


def test_a_mistake_on_the_command_line_exits_with_2_and_one_line(tmp_path: Path) -> None:
    done = run_python("pipeline.py", "data.querry=x", f"hydra.run.dir={tmp_path}")
    assert done.returncode == 2
    assert (
        done.stderr == "error: Expected a key of the configuration, but got 'data.querry'. Did you mean 'data.query'?\n"
    )
    assert done.stdout == ""


def test_a_config_error_subclass_is_a_value_error() -> None:
    assert issubclass(ConfigError, ValueError)
