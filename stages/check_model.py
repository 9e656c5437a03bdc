"""Stage `check_model`: what is known of a model before its numbers are trusted, on one or two pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from command_line.results import StageResult
from foreign_files.messages import shorten
from lab.config.errors import ConfigError
from lab.config.settings import PROJECT_ROOT, Settings
from lab.grids import Grid
from lab.storage.files import save_json
from stages.loading import load_any
from stages.summaries import describe_files

if TYPE_CHECKING:
    from PIL import Image

EXAMPLES = ("examples/images/bird.png", "examples/images/cat.png")
QUERY = "the bird on the branch"
REGIONS_SHOWN = 4


def run_check_model(settings: Settings) -> StageResult:
    """Check a model's rows, sharing, grid and prompt; print the report, and write it as JSON and a figure.

    Args:
        settings: The whole configuration; without `data.image_file` two example pictures are taken.

    Returns:
        The report; a picture that does not pass counts as failed.

    Raises:
        ConfigError: The prompt is a template of LLaVA-1.5, which is not read by way of a chat template.
        ValueError: The model cannot be loaded or read, or a picture not be encoded.
    """
    _refuse_llava_template(settings)
    from vlm.images import load_image
    from vlm.model_check import check_model

    names = (settings.data.image_file,) if settings.data.image_file else tuple(map(_example, EXAMPLES))
    images = [load_image(name) for name in names]
    report = check_model(load_any(settings.model), images, settings.data.query or QUERY)
    for name, picture in zip(names, report["pictures"]):
        picture["image_file"] = name
    settings.result_dir.mkdir(parents=True, exist_ok=True)
    path = settings.result_dir / "check_model.json"
    save_json(path, report)
    written = [path, *(_draw(settings, images, report) if settings.save_fig else [])]
    failed = sum(not picture["passed"] for picture in report["pictures"])
    return StageResult((*describe_check(report), *describe_files(written)), failed, {"passed": report["passed"]})


def _refuse_llava_template(settings: Settings) -> None:
    model = settings.model
    if not model.reads_any_model:
        raise ConfigError(
            f"Expected model.conv_mode to be chat or plain for stage=check_model, but got {model.conv_mode!r}, a "
            "template of LLaVA-1.5. Take model=auto model.name=<repository or directory in the transformers format>."
        )


def _example(name: str) -> str:
    return str(PROJECT_ROOT / name)


def describe_check(report: Mapping[str, Any]) -> list[str]:
    """Say what the check found, for people.

    Args:
        report: What `vlm.model_check.check_model` gives, with the name of each picture.

    Returns:
        Lines.
    """
    missing = ", ".join(map(str, report["layers_without_map"]))
    return [
        f"model   {report['model_name']}: {report['class']}, {report['num_layers']} layers x "
        f"{report['num_heads']} heads, {report['attention']} attention on {report['device']}",
        f"maps    {f'of all layers but {missing}' if missing else 'of all layers'}",
        *(line for picture in report["pictures"] for line in _describe_picture(picture)),
        f"check   {'passed' if report['passed'] else 'FAILED'}",
    ]


def _describe_picture(picture: Mapping[str, Any]) -> list[str]:
    width, height = picture["image_size"]
    probe, sharing = picture["grid_probe"], picture["sharing"]
    difference = "" if sharing["difference"] is None else f", largest difference {sharing['difference']:.1e}"
    how = "by the family's rule" if picture["regions_from"] == "rule" else "measured, since the family has no rule"
    return [
        f"picture {picture['image_file']} ({width} x {height} px), {picture['seconds']:.1f} s",
        f"tokens  {picture['vis_len']}, of them {picture['separators']} separators; regions {how}",
        *_describe_regions(picture["regions"]),
        f"prompt  {shorten(picture['prompt'], 200)}, the row of {picture['row_read']!r} is read",
        f"rows    largest difference from plain eager attention {picture['rows_off_eager']:.1e}",
        f"sharing {sharing['way']}{difference}{''.join(f'; {note}' for note in sharing['notes'])}",
        f"grid    {_describe_probe(probe)}",
    ]


def _describe_regions(regions: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for region in regions[:REGIONS_SHOWN]:
        grid = Grid(**region["grid"])
        lines.append(
            f"region  {region['kind']}: {grid.rows} x {grid.cols} cells of {grid.cell_w:.2f} x {grid.cell_h:.2f} px "
            f"from ({grid.x0:.2f}, {grid.y0:.2f})"
        )
    rest = len(regions) - len(lines)
    return [*lines, *([f"        and {rest} more"] if rest else [])]


def _describe_probe(probe: Mapping[str, Any]) -> str:
    off = "the tower has no gradient" if probe["cells_off"] is None else f"{probe['cells_off']:.2f} cells off"
    return f"the probe {probe['verdict']}: {off}; {probe['hits']:.0%} of painted cells change their own token most"


def _draw(settings: Settings, images: Sequence[Image.Image], report: Mapping[str, Any]) -> list[Path]:
    from figures.regions import draw_regions
    from figures.writing import write_formats

    parts = [
        [(str(region["kind"]), Grid(**region["grid"])) for region in picture["regions"]]
        for picture in report["pictures"]
    ]
    figure = draw_regions(None, list(zip(images, parts)), str(report["class"]), dpi=settings.figures.dpi)
    return write_formats(figure, settings.result_dir / "check_model_regions.png", settings.figures.formats)
