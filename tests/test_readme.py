"""The README is true to the letter: its commands run, its keys exist, its files are there."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_checkpoints

from lab.config.document import document
from lab.config.fields import group_names, known_keys

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands_of(page: Path) -> list[str]:
    """The lines of a page's bash blocks."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


NAMED_COMMANDS = {f"{page.stem}-{n:02}": line for page in PAGES for n, line in enumerate(commands_of(page), start=1)}
COMMANDS = list(NAMED_COMMANDS.values())
RUN = {name: line for name, line in NAMED_COMMANDS.items() if not line.startswith("make")}
TREE = re.findall(r"^([\w./]+) {2,}\S", re.search(r"## Files\n+```\n(.*?)```", README, re.DOTALL)[1], re.MULTILINE)

# Sizes that take minutes on a laptop, cut down so that the command itself is what is tested.
SMALLER = {
    r"--scenes \d+": "--scenes 3",
    r"data\.trials=\d+": "data.trials=2",
    r"(picturebook\.train\b)": r"\1 --shards 1 --scenes-each 40 --vision-steps 1 --bind-steps 1 --widen-steps 1 "
    "--whole-steps 1 --places-steps 1 --vision-batch 2 --language-batch 2 --text-heads 2 --output outputs/trained",
    r"(benchmarks\.run\b)": r"\1 --quick --only startup",
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the project, with a tiny random checkpoint where a real one would be fetched from the hub."""
    folder = tmp_path_factory.mktemp("checkout") / "project"
    ignored = shutil.ignore_patterns(".git", ".venv*", "outputs", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, folder, ignore=ignored)
    tokenizer, model = tiny_checkpoints.train_sentencepiece(folder / "outputs"), tiny_checkpoints.random_model()
    tower = tiny_checkpoints.write_vision_tower(folder / "outputs" / "tower", model)
    tensors = tiny_checkpoints.published_names(model)
    tiny_checkpoints.write_original(folder / "liuhaotian" / "llava-v1.5-7b", tensors, tokenizer, str(tower))
    return folder


class Chain:
    """The commands of the pages in their order, each run once; later ones read what earlier ones wrote.

    A test asks for the outcome of its own command. Those before it run first, unless they have run already, so that
    the order of the tests does not matter, nor whether all of them are run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outcomes: dict[str, subprocess.CompletedProcess] = {}

    def outcome(self, name: str) -> subprocess.CompletedProcess:
        for earlier in RUN:
            if earlier not in self.outcomes:
                self.outcomes[earlier] = self._run(RUN[earlier])
            if earlier == name:
                break
        return self.outcomes[name]

    def _run(self, command: str) -> subprocess.CompletedProcess:
        for pattern, smaller in SMALLER.items():
            command = re.sub(pattern, smaller, command)
        program, *arguments = shlex.split(command)
        assert program == "python", command
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        return subprocess.run(
            [sys.executable, *arguments], cwd=self.folder, capture_output=True, text=True, env=environment
        )


@pytest.fixture(scope="module")
def chain(checkout):
    return Chain(checkout)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_command_runs(chain, name):
    done = chain.outcome(name)
    assert done.returncode == 0, RUN[name] + "\n" + done.stdout[-2000:] + done.stderr[-2000:]
    assert done.stdout.strip() or done.stderr.strip()


@pytest.mark.slow
def test_figures_are_drawn_from_what_the_commands_wrote(chain):
    chain.outcome(list(RUN)[-1])
    figures = chain.folder / "examples" / "figures"
    # Those of the report are taken in a browser, by examples.make_report_screenshots.
    names = {path.name for path in figures.iterdir() if not path.name.startswith("report_")}
    shutil.rmtree(figures)
    command = [sys.executable, "-m", "examples.make_figures"]
    drawn = subprocess.run(command, cwd=chain.folder, capture_output=True, text=True)
    assert drawn.returncode == 0, drawn.stderr
    assert {path.name for path in figures.iterdir()} == names


@pytest.mark.parametrize("name", [name for name in NAMED_COMMANDS if name not in RUN])
def test_make_target_exists(name):
    target = NAMED_COMMANDS[name].split()[1]
    assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_demo_is_the_first_command_of_the_specification():
    recipe = re.search(r"^demo:.*\n\t(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert "pipeline.py stage=pipeline model=picturebook data.image_file=examples/images/bird.png" in recipe
    assert 'data.query="birds."' in recipe


def test_the_page_of_keys_is_what_the_schema_says():
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == document(), "docs/configuration.md is out of date: run python -m lab.config.document"


def test_every_key_that_a_page_names_exists():
    words = "|".join(sorted(group_names()))
    for page in PAGES:
        named = set(re.findall(rf"`((?:{words})\.[\w.]+)`", page.read_text(encoding="utf-8")))
        named = {key for key in named if not re.search(r"\.(py|csv|json|png|html)$", key)}
        assert named <= set(known_keys()), page.name


def test_no_key_in_a_command_is_unknown():
    words = "|".join(sorted(group_names()))
    used = {key for command in COMMANDS for key in re.findall(rf"\b((?:{words})\.[\w.]+)=", command)}
    assert used
    assert used <= set(known_keys())


def test_the_tree_names_what_is_there():
    assert len(TREE) >= 10
    assert all((ROOT / name).exists() for name in TREE)
    listed = {name.rstrip("/") for name in TREE}
    ours = {path.name for path in ROOT.iterdir() if path.suffix == ".py" or (path.is_dir() and path.name[0] != ".")}
    assert {name for name in ours if name not in {"outputs", "__pycache__"}} <= listed


def test_pictures_and_links_exist():
    targets = re.findall(r"\]\(((?!http)[^)#]+)\)", README)
    assert targets
    assert all((ROOT / target).exists() for target in targets)


def test_anchors_exist():
    titles = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    headings = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\(#([\w-]+)\)", README)) <= headings
