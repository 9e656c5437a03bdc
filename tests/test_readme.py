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

from lab.config.schema import known_keys

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip()
]
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


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith("make")])
def test_command_runs(checkout, command):
    for pattern, smaller in SMALLER.items():
        command = re.sub(pattern, smaller, command)
    program, *arguments = shlex.split(command)
    assert program == "python", command
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, *arguments], cwd=checkout, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert done.stdout.strip() or done.stderr.strip()


@pytest.mark.slow
def test_figures_are_drawn_from_what_the_commands_wrote(checkout):
    """Runs after the commands, in their checkout."""
    if not (checkout / "outputs" / "test-audit").is_dir():
        pytest.skip("the commands have not run: run this file as a whole")
    figures = checkout / "examples" / "figures"
    names = {path.name for path in figures.iterdir()}
    shutil.rmtree(figures)
    done = subprocess.run([sys.executable, "-m", "examples.make_figures"], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in figures.iterdir()} == names


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make")])
def test_make_target_exists(command):
    target = command.split()[1]
    assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_demo_is_the_first_command_of_the_specification():
    recipe = re.search(r"^demo:.*\n\t(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert "pipeline.py stage=pipeline model=picturebook data.image_file=examples/images/bird.png" in recipe
    assert 'data.query="birds."' in recipe


def test_every_key_is_explained_and_no_other():
    explained = set(re.findall(r"`((?:model|logic|data|storage)\.[\w.]+|stage|save_fig|show_plot)`", README))
    keys = {key for key in known_keys() if not key.startswith("logic.manual_heads.")}  # fields of a list's entries
    leaves = {key for key in keys if not any(other.startswith(key + ".") for other in keys)}
    assert leaves <= explained
    assert {key for key in explained if not re.search(r"\.(py|csv|json|png)$", key)} <= leaves


def test_no_key_in_a_command_is_unknown():
    used = {key for command in COMMANDS for key in re.findall(r"\b((?:data|logic|storage|model)\.[\w.]+)=", command)}
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
