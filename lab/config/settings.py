"""The configuration: a typed schema that rejects what cannot be right before anything heavy is loaded."""

# OmegaConf evaluates the annotations at run time, on Python 3.9 too, so they say Optional and List.
# ruff: noqa: UP006, UP035, UP045

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, FrozenSet, Iterator, List, Optional, Sequence

from lab.config import errors as config_errors
from lab.config.errors import ConfigError
from lab.config.model_defaults import find_following
from lab.storage.attention_files import ATTENTION_DTYPES
from lab.storage.paths import find_attention_file

PROJECT_ROOT = Path(__file__).resolve().parents[2]

STAGES = ("collect", "analyze", "visualize", "pipeline", "batch", "batch_analyze")
MODEL_DTYPES = ("auto", "float16", "bfloat16", "float32")
PREFILL_ATTENTIONS = ("eager", "sdpa")
THRESHOLD_METHODS = ("chord",)
THRESHOLD_SCOPES = ("sample", "dataset")
ENTROPY_SHARES = ("mass", "area")
MASK_METHODS = ("mean_relu",)
MASK_REGIONS = ("largest", "heaviest", "all")


# --------------------------------------------------------------------------------------------------------------------
# Schema: the same frozen records serve as Hydra's schema and as the settings that the stages get.
# --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HeadIndex:
    """One attention head, 0-based.

    Attributes:
        layer: Layer of the language model.
        head: Head within the layer.
    """

    layer: int = 0
    head: int = 0

    def __post_init__(self) -> None:
        """Reject negative indices."""
        _check_range("logic.manual_heads layer", self.layer, 0)
        _check_range("logic.manual_heads head", self.head, 0)


@dataclass(frozen=True)
class ModelSettings:
    """Group `model`: which checkpoint, and how it runs.

    Attributes:
        name: Repository on the Hugging Face hub, or a local directory.
        revision: Branch, tag or commit of the repository; null for its default.
        cache_dir: Where downloads are kept; null for the usual place.
        device: `auto`, `cpu`, `cuda` or `cuda:<id>`.
        device_id: GPU taken when `device` is `auto`.
        dtype: `auto` (float16 on a GPU, float32 on a CPU), `float16`, `bfloat16` or `float32`.
        conv_mode: Prompt template.
        use_generate: Generate text, and take the attention of the first generated step.
        max_new_tokens: Length of the generated text.
        do_sample: Sample the generated text.
        num_beams: Beams of the generation.
        use_flash_attn: Must be false; flash attention gives no attention weights.
        prefill_attention: Attention backend of the shared prefix, of which no attention is kept: `sdpa` or `eager`.
        batch_size: Images in one forward pass; all queries about an image go together.
        early_exit: Stop the forward pass after the deepest fixed head when no attention file is stored.
        smoothing_sigma: Smoothing that suits the model's grid, in cells; `logic.smoothing.sigma` refers to it.
        mask_region: Region of the mask that suits the model; `logic.mask.region` refers to it.
        skip_layers: First layers to leave out that suit the model's depth; `logic.skip_layers` refers to it.
        lowest_n: Heads counted per sample that suit the model's number of heads; `logic=paper` refers to it.
        heads_file: The model's localization heads, fixed once; `logic=paper` refers to it.
    """

    name: str = "liuhaotian/llava-v1.5-7b"
    revision: Optional[str] = None
    cache_dir: Optional[str] = None
    device: str = "auto"
    device_id: int = 0
    dtype: str = "auto"
    conv_mode: str = "referseg"
    use_generate: bool = False
    max_new_tokens: int = 32
    do_sample: bool = False
    num_beams: int = 1
    use_flash_attn: bool = False
    prefill_attention: str = "sdpa"
    batch_size: int = 1
    early_exit: bool = True
    smoothing_sigma: float = 1.0
    mask_region: str = "largest"
    skip_layers: int = 2
    lowest_n: int = 10
    heads_file: Optional[str] = None

    def __post_init__(self) -> None:
        """Reject values out of range."""
        _check_text("model.name", self.name)
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ConfigError(f"Expected model.device to be auto, cpu, cuda or cuda:<id>, but got {self.device!r}.")
        _check_range("model.device_id", self.device_id, 0)
        _check_choice("model.dtype", self.dtype, MODEL_DTYPES)
        _check_range("model.max_new_tokens", self.max_new_tokens, 1)
        _check_range("model.num_beams", self.num_beams, 1)
        _check_choice("model.prefill_attention", self.prefill_attention, PREFILL_ATTENTIONS)
        _check_range("model.batch_size", self.batch_size, 1)
        _check_range("model.smoothing_sigma", self.smoothing_sigma, 0)
        _check_choice("model.mask_region", self.mask_region, MASK_REGIONS)
        _check_range("model.skip_layers", self.skip_layers, 0)
        _check_range("model.lowest_n", self.lowest_n, 1)
        if self.use_flash_attn:
            raise ConfigError(
                "Expected model.use_flash_attn to be false, but got true: flash attention computes no attention "
                "weights that could be returned. For speed, model.prefill_attention=sdpa already serves the prefix."
            )


@dataclass(frozen=True)
class ThresholdSettings:
    """Group `logic`, criterion 1: which heads attend to the image enough.

    Attributes:
        method: `chord`, the value at the elbow of the sorted attention sums.
        scope: Elbow of each `sample`'s sums, or of the `dataset`'s mean sums.
        value: A fixed threshold in place of the elbow, such as the data set's.
        min_keep: At least so many heads are ranked, filled up by attention sum.
    """

    method: str = "chord"
    scope: str = "sample"
    value: Optional[float] = None
    min_keep: int = 3

    def __post_init__(self) -> None:
        """Reject values out of range."""
        _check_choice("logic.threshold.method", self.method, THRESHOLD_METHODS)
        _check_choice("logic.threshold.scope", self.scope, THRESHOLD_SCOPES)
        if self.value is not None:
            _check_range("logic.threshold.value", self.value, 0, 1)
        _check_range("logic.threshold.min_keep", self.min_keep, 0)


@dataclass(frozen=True)
class EntropySettings:
    """Group `logic`, criterion 2: how compact a head's map is.

    Attributes:
        binarize_threshold: A cell belongs to a component when it exceeds the map's mean by more than this.
        shares: Share of a component by attention `mass` or by `area`.
    """

    binarize_threshold: float = 0.001
    shares: str = "mass"

    def __post_init__(self) -> None:
        """Reject values out of range."""
        _check_range("logic.entropy.binarize_threshold", self.binarize_threshold, 0, 1)
        _check_choice("logic.entropy.shares", self.shares, ENTROPY_SHARES)


@dataclass(frozen=True)
class SmoothingSettings:
    """Group `logic`: the Gaussian applied to each map before the maps are summed.

    Attributes:
        sigma: Standard deviation in cells of the grid; 0 for none.
        truncate: Radius of the kernel in standard deviations.
    """

    sigma: float = 1.0
    truncate: float = 4.0

    def __post_init__(self) -> None:
        """Reject values out of range."""
        _check_range("logic.smoothing.sigma", self.sigma, 0)
        _check_range("logic.smoothing.truncate", self.truncate, 0.5)


@dataclass(frozen=True)
class MaskSettings:
    """Group `logic`: from the combined map to the mask.

    Attributes:
        method: `mean_relu`, cells above the mean of the combined map.
        region: The box holds the `largest` region of the mask (by cells), the `heaviest` (by attention), or `all`.
        relative_threshold: The threshold is this many times the mean.
    """

    method: str = "mean_relu"
    region: str = "largest"
    relative_threshold: float = 1.0

    def __post_init__(self) -> None:
        """Reject values out of range."""
        _check_choice("logic.mask.method", self.method, MASK_METHODS)
        _check_choice("logic.mask.region", self.region, MASK_REGIONS)
        _check_range("logic.mask.relative_threshold", self.relative_threshold, 0)


@dataclass(frozen=True)
class LogicSettings:
    """Group `logic`: how heads are chosen and turned into a box.

    Attributes:
        top_k: Number of heads to combine.
        threshold: Criterion 1.
        entropy: Criterion 2.
        bottom_row_filter: Leave out heads that look at the bottom row of the grid.
        skip_layers: The first layers, left out.
        lowest_n: Heads counted per sample for the selection frequency; null for `top_k`.
        smoothing: Smoothing of each map.
        mask: From the combined map to the mask.
        manual_heads: Ordered heads to prefer; those that fail the criteria are passed over.
        heads_file: Heads fixed once for the model, used unchanged for every image.
        force_heads_file: Use the heads file although it was made for another model or template.
    """

    top_k: int = 3
    threshold: ThresholdSettings = field(default_factory=ThresholdSettings)
    entropy: EntropySettings = field(default_factory=EntropySettings)
    bottom_row_filter: bool = True
    skip_layers: int = 2
    lowest_n: Optional[int] = None
    smoothing: SmoothingSettings = field(default_factory=SmoothingSettings)
    mask: MaskSettings = field(default_factory=MaskSettings)
    manual_heads: List[HeadIndex] = field(default_factory=list)
    heads_file: Optional[str] = None
    force_heads_file: bool = False

    def __post_init__(self) -> None:
        """Reject values out of range, heads named twice, and two sources of heads at once."""
        _check_range("logic.top_k", self.top_k, 1)
        _check_range("logic.skip_layers", self.skip_layers, 0)
        if self.lowest_n is not None:
            _check_range("logic.lowest_n", self.lowest_n, 1)
        if len(set(self.manual_head_indices)) < len(self.manual_heads):
            raise ConfigError("Expected logic.manual_heads to name each head once, but got one twice.")
        if self.manual_heads and self.heads_file:
            raise ConfigError(
                "Expected either logic.manual_heads or logic.heads_file, but got both. Leave one of them out."
            )

    @property
    def manual_head_indices(self) -> tuple[tuple[int, int], ...]:
        """(layer, head) of each manual head."""
        return tuple((index.layer, index.head) for index in self.manual_heads)


@dataclass(frozen=True)
class DataSettings:
    """Group `data`: what goes in, where results go.

    Attributes:
        image_file: Image of a single run.
        query: Referring expression of a single run.
        save_id: Name of a single run's files; null for image name and query.
        attention_file: Attention file for `analyze` and `visualize`.
        data_file: JSONL file for `batch`.
        id_field: Key of a row's identifier.
        prompt_field: Key of a row's referring expression.
        image_field: Key of a row's image path.
        process_all: Whether all rows are processed; null for all unless an index is given.
        start_index: First row, counting from 0.
        end_index: Row to stop before.
        output_dir: Root of all results; a directory for each model is made in it.
        visualize_batch: Draw a figure for each row of a batch.
        strict: Stop a batch at the first row that fails.
        overwrite: Redo finished rows, and allow a directory made with other settings.
        batch_attention_dir: Directory of attention files for `batch_analyze`, or a list of them; null for the model's
            directory under `output_dir`.
        analysis_dir: Where `batch_analyze` writes; null for the (first) directory that it reads.
        trials: Number of parts or resamples whose selection frequencies are compared.
        trial_size: Samples of each trial, drawn without replacement; null to split the data into `trials` parts.
        trial_seed: Seed of that split or draw.
        ground_truth: JSONL file with boxes, for the head audit and for scores.
        audit: Compare the heads with ground truth, if it is given; false for scores alone.
    """

    image_file: Optional[str] = None
    query: Optional[str] = None
    save_id: Optional[str] = None
    attention_file: Optional[str] = None
    data_file: Optional[str] = None
    id_field: str = "id"
    prompt_field: str = "prompt"
    image_field: str = "image_path"
    process_all: Optional[bool] = None
    start_index: Optional[int] = None
    end_index: Optional[int] = None
    output_dir: str = "outputs/results"
    visualize_batch: bool = False
    strict: bool = False
    overwrite: bool = False
    batch_attention_dir: Any = None
    analysis_dir: Optional[str] = None
    trials: int = 1
    trial_size: Optional[int] = None
    trial_seed: int = 0
    ground_truth: Optional[str] = None
    audit: bool = True

    def __post_init__(self) -> None:
        """Reject values out of range and row ranges that contradict each other."""
        for name in ("id_field", "prompt_field", "image_field", "output_dir"):
            _check_text(f"data.{name}", getattr(self, name))
        _check_range("data.trials", self.trials, 1)
        _check_range("data.trial_seed", self.trial_seed, 0)
        if self.trial_size is not None:
            _check_range("data.trial_size", self.trial_size, 1)
        if self.save_id is not None:
            _check_text("data.save_id", self.save_id)
        self._check_row_range()
        self._check_directories()

    def _check_row_range(self) -> None:
        if self.start_index is not None:
            _check_range("data.start_index", self.start_index, 0)
        if self.end_index is not None:
            _check_range("data.end_index", self.end_index, (self.start_index or 0) + 1)
        limited = self.start_index is not None or self.end_index is not None
        if self.process_all is True and limited:
            raise ConfigError(
                "Expected either data.process_all=true or a range of rows, but got both. "
                "Leave out process_all, or data.start_index and data.end_index."
            )
        if self.process_all is False and not limited:
            raise ConfigError(
                "Expected data.start_index or data.end_index with data.process_all=false, but got neither. "
                "Say which rows to process, counting from 0 and stopping before end_index."
            )

    def _check_directories(self) -> None:
        if not all(isinstance(directory, str) and directory for directory in self.attention_dirs):
            raise ConfigError(
                "Expected data.batch_attention_dir to be a directory or a list of directories, "
                f"but got {self.batch_attention_dir!r}."
            )

    @property
    def attention_dirs(self) -> tuple[Any, ...]:
        """The directories of `batch_attention_dir`, none where it is null."""
        value = self.batch_attention_dir
        return () if value is None else tuple(value) if isinstance(value, list) else (value,)


@dataclass(frozen=True)
class AttentionStorageSettings:
    """Group `storage`: how attention files are written.

    Attributes:
        save: Write attention files; without them a batch gives boxes only.
        compress: gzip (`.pkl.gz`) or not (`.pkl`).
        dtype: Number type of the stored tensor; what is analysed is rounded the same way.
        level: gzip level.
        keep_meta_pickle: Write `<id>_meta.pkl` beside `<id>_meta.json`.
    """

    save: bool = True
    compress: bool = True
    dtype: str = "float16"
    level: int = 1
    keep_meta_pickle: bool = False

    def __post_init__(self) -> None:
        """Reject values out of range."""
        _check_choice("storage.attention.dtype", self.dtype, ATTENTION_DTYPES)
        _check_range("storage.attention.level", self.level, 0, 9)


@dataclass(frozen=True)
class StorageSettings:
    """Group `storage`.

    Attributes:
        attention: How attention files are written.
        workers: Background threads that analyse, draw and write while the model works.
    """

    attention: AttentionStorageSettings = field(default_factory=AttentionStorageSettings)
    workers: int = 2

    def __post_init__(self) -> None:
        """Reject values out of range."""
        _check_range("storage.workers", self.workers, 1, 64)


@dataclass(frozen=True)
class Settings:
    """The whole configuration, checked.

    Attributes:
        stage: What to do.
        save_fig: Save the figure of a single run.
        show_plot: Show the figure of a single run in a window.
        model: Which checkpoint, and how it runs.
        logic: How heads are chosen and turned into a box.
        data: What goes in, where results go.
        storage: How attention files are written.
        follows_model: Keys of `logic`, such as `smoothing.sigma`, whose values came with the model; not a key itself.
    """

    stage: str = "pipeline"
    save_fig: bool = True
    show_plot: bool = False
    model: ModelSettings = field(default_factory=ModelSettings)
    logic: LogicSettings = field(default_factory=LogicSettings)
    data: DataSettings = field(default_factory=DataSettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
    follows_model: FrozenSet[str] = field(default=frozenset(), metadata={"omegaconf_ignore": True})

    def __post_init__(self) -> None:
        """Reject an unknown stage."""
        _check_choice("stage", self.stage, STAGES)

    @property
    def result_dir(self) -> Path:
        """Directory of this model's results."""
        return Path(self.data.output_dir) / model_directory_name(self.model.name)


def model_directory_name(name: str) -> str:
    """Turn a model's name into the name of its directory of results.

    A hub name has its '/' turned into '-'; of a longer or rooted path the last part is taken.

    Args:
        name: Such as `liuhaotian/llava-v1.5-7b` or `examples/models/picturebook-llava`.

    Returns:
        Such as `liuhaotian-llava-v1.5-7b` or `picturebook-llava`.
    """
    parts = [part for part in re.split(r"[/\\]", name) if part not in {"", "."}]
    is_path = len(parts) > 2 or name.startswith((".", "/", "~", "\\")) or ":" in name
    joined = parts[-1] if is_path and parts else "-".join(parts)
    cleaned = re.sub(r"[^\w.-]", "_", joined, flags=re.ASCII).lstrip(".")
    return cleaned or "model"


# --------------------------------------------------------------------------------------------------------------------
# Hydra
# --------------------------------------------------------------------------------------------------------------------


def register_schema() -> None:
    """Make the schema known to Hydra under the name that `conf/config.yaml` starts from."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=make_schema())


def help_text(overrides: Sequence[str], directory: Path) -> str:
    """Compose the help page: stages, groups, and the configuration as the overrides make it.

    Hydra's own way to the same page lists all groups that it knows, and copies the schema each time: half a second.

    Args:
        overrides: Arguments of the form key=value.
        directory: Where `config.yaml` is.

    Returns:
        The page.
    """
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf, open_dict

    register_schema()
    with initialize_config_dir(config_dir=str(directory), version_base="1.3"):
        cfg = compose("config", overrides=list(overrides), return_hydra_config=True)
    page = str(cfg.hydra.help.template)
    with open_dict(cfg):
        del cfg["hydra"]
    return page.replace("$CONFIG", OmegaConf.to_yaml(cfg))


def make_schema() -> Any:
    """Build the typed configuration that every YAML file and override is merged into."""
    from omegaconf import OmegaConf

    schema = OmegaConf.structured(Settings)
    _thaw(schema)
    return schema


def _thaw(node: Any) -> None:
    """Take off the read-only mark that OmegaConf derives from frozen dataclasses; the settings stay frozen."""
    from omegaconf import DictConfig

    node._set_flag("readonly", None)
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig):
            _thaw(child)


def validate(cfg: Any) -> Settings:
    """Turn the composed configuration into checked settings.

    Args:
        cfg: What Hydra composed on the schema.

    Returns:
        Frozen settings; the inputs that the stage needs exist.

    Raises:
        ConfigError: A value is of the wrong type or out of range, or an input is missing.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    _check_keys(cfg)
    try:
        settings = OmegaConf.to_object(cfg)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    if not isinstance(settings, Settings):
        raise ConfigError(f"Expected the configuration to follow the schema, but got {type(settings).__name__}.")
    check_inputs(settings)
    return dataclasses.replace(settings, follows_model=find_following(cfg))


def _check_keys(cfg: Any) -> None:
    """Refuse keys that the schema does not know: `+key=value` adds them past Hydra's own check."""
    from omegaconf import OmegaConf

    known = known_keys()
    content = OmegaConf.to_container(cfg, resolve=False)
    for key in _dotted_keys(typing.cast("dict[str, Any]", content), ""):
        if key not in known:
            raise ConfigError(config_errors.explain_unknown_key(key, known))


def _dotted_keys(tree: dict[str, Any], prefix: str) -> Iterator[str]:
    for key, value in tree.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _dotted_keys(value, f"{prefix}{key}.")


# --------------------------------------------------------------------------------------------------------------------
# Inputs of the stages
# --------------------------------------------------------------------------------------------------------------------


def check_inputs(settings: Settings) -> None:
    """Check that the stage has what it needs, before anything heavy is loaded.

    Raises:
        ConfigError: An input is not given, or does not exist.
    """
    data, stage = settings.data, settings.stage
    if stage in {"collect", "pipeline"}:
        _need_text(stage, "data.image_file", data.image_file, "examples/images/bird.png")
        _need_text(stage, "data.query", data.query, '"the bird on the branch"')
        _need_file("data.image_file", data.image_file)
    elif stage in {"analyze", "visualize"}:
        _need_text(stage, "data.attention_file", data.attention_file, f"{settings.result_dir}/sample.pkl.gz")
        _need_attention_file(data.attention_file or "")
        _need_file("data.image_file", data.image_file)
    elif stage == "batch":
        _need_text(stage, "data.data_file", data.data_file, "examples/localization_data.jsonl")
        _need_file("data.data_file", data.data_file)
    else:
        for directory in data.attention_dirs or (str(settings.result_dir),):
            _need_directory("data.batch_attention_dir", directory)
        _need_file("data.ground_truth", data.ground_truth)
    if stage == "collect" and not settings.storage.attention.save:
        raise ConfigError("Expected storage.attention.save to be true for stage=collect, but got false.")
    _check_heads(settings)
    if stage in {"collect", "pipeline", "batch"}:
        _check_template(settings.model.conv_mode)


def _check_heads(settings: Settings) -> None:
    """Check that stages that choose heads can do so."""
    logic = settings.logic
    found_here = settings.stage == "batch_analyze" and logic.heads_file == settings.model.heads_file
    if logic.heads_file is not None and not found_here and not (PROJECT_ROOT / logic.heads_file).is_file():
        _need_file("logic.heads_file", logic.heads_file)
    if settings.stage in {"collect", "analyze", "batch_analyze"}:
        return
    if logic.threshold.scope == "dataset" and logic.heads_file is None and logic.threshold.value is None:
        raise ConfigError(
            "Expected logic.heads_file or logic.threshold.value with logic.threshold.scope=dataset, but got neither. "
            "Collect with stage=batch logic=selection_v1, find the heads with stage=batch_analyze logic=paper, "
            "and pass the heads.yaml that it writes."
        )


def _check_template(conv_mode: str) -> None:
    from llava.conversation import get_template

    try:
        get_template(conv_mode)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _need_text(stage: str, key: str, value: str | None, example: str) -> None:
    if value is None or not value.strip():
        raise ConfigError(f"Expected {key} to be given for stage={stage}, but got nothing. Add {key}={example}.")


def _need_file(key: str, value: str | None) -> None:
    if value is not None and not Path(value).is_file():
        raise ConfigError(f"Expected {key} to be an existing file, but got {value!r}.{_suggest_path(value)}")


def _need_directory(key: str, value: str) -> None:
    if not Path(value).is_dir():
        raise ConfigError(f"Expected {key} to be an existing directory, but got {value!r}.{_suggest_path(value)}")


def _need_attention_file(value: str) -> None:
    try:
        find_attention_file(value)
    except FileNotFoundError as error:
        raise ConfigError(str(error)) from error


def _suggest_path(value: str) -> str:
    parent = Path(value).parent
    if not parent.is_dir():
        return f" There is no directory {str(parent)!r} either (paths start from {str(Path.cwd())!r})."
    near = difflib.get_close_matches(Path(value).name, sorted(entry.name for entry in parent.iterdir()), n=1)
    return f" Did you mean {str(parent / near[0])!r}?" if near else ""


# --------------------------------------------------------------------------------------------------------------------
# Checks of single values
# --------------------------------------------------------------------------------------------------------------------


def _check_range(key: str, value: float, low: float, high: float | None = None) -> None:
    if not (value >= low and (high is None or value <= high) and value != float("inf")):
        wanted = f"at least {low}" if high is None else f"between {low} and {high}"
        raise ConfigError(f"Expected {key} to be {wanted}, but got {value}.")


def _check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"Expected {key} to be one of {', '.join(choices)}, but got {value!r}.{hint}")


def _check_text(key: str, value: str) -> None:
    if not value.strip():
        raise ConfigError(f"Expected {key} to be non-empty text, but got {value!r}.")


# --------------------------------------------------------------------------------------------------------------------
# Keys
# --------------------------------------------------------------------------------------------------------------------


def known_keys() -> dict[str, Any]:
    """Map every dotted key of the configuration to its type."""
    return dict(_walk_keys(Settings, ""))


def text_keys() -> frozenset[str]:
    """The keys that take free text, such as queries and paths."""
    return frozenset(key for key, kind in known_keys().items() if kind in (str, Optional[str]))


def _walk_keys(record: type, prefix: str) -> Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(record)
    for entry in dataclasses.fields(record):
        if entry.metadata.get("omegaconf_ignore"):
            continue
        kind = hints[entry.name]
        yield prefix + entry.name, kind
        for inner in (kind, *typing.get_args(kind)):
            if dataclasses.is_dataclass(inner):
                yield from _walk_keys(typing.cast(type, inner), f"{prefix}{entry.name}.")


def explain(error: BaseException) -> str:
    """Say in one line what is wrong with the configuration; see `lab.config.errors.explain`."""
    return config_errors.explain(error, known_keys())
