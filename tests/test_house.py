"""The house: who imports whom, how long files and functions are, and what is documented, read from the source."""

from __future__ import annotations

import ast
import functools
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

FLAT = ("collector", "analyze", "bbox", "viz", "evaluate_boxes")
"""Modules at the top level that notebooks import; the user's wish."""
BESIDE = ("picturebook", "benchmarks", "examples")
"""Packages that stand beside the house: nothing of it uses them."""
FLOORS: tuple[tuple[str, ...], ...] = (
    ("foreign_files",),
    ("lab.boxes", "lab.grids", "lab.records", "lab.regions", "lab.stations"),
    ("lab.storage", "lab.heads", "lab.datasets", "lab.statistics"),
    ("lab.config",),
    ("command_line",),
    ("llava",),
    ("vlm", "refine"),
    ("figures", "scores", "finer", "report"),
    FLAT,
    ("picturebook", "examples"),
    ("stages",),
    ("pipeline",),
    ("benchmarks",),
)
"""From the ground up; each floor imports from itself and from below. Benchmarks time the whole command line."""
FOREIGN_TO_SETTINGS = (*FLOORS[0], *FLOORS[1], *FLOORS[2], *FLOORS[5], *FLOORS[6], *FLOORS[7], *FLAT)
"""What takes plain arguments and never sees the configuration."""

LONGEST_FILE = 400
MEDIAN_FUNCTION, NINETIETH_PERCENTILE, LONGEST_FUNCTION = 8, 20, 45
LARGEST_SHARE = 1 / 3

# What is not so yet. An entry that is no longer needed fails the tests, so that the lists only shrink.
KNOWN_IMPORTS: set[tuple[str, str]] = set()
KNOWN_LONG_FILES: set[str] = set()
KNOWN_LARGE_FOLDERS: set[str] = set()
KNOWN_UNDOCUMENTED: set[str] = set()


@functools.cache
def trees() -> dict[str, ast.Module]:
    """The source of every module outside tests, by dotted name."""
    paths = [path for path in ROOT.rglob("*.py") if not _is_foreign(path.relative_to(ROOT))]
    return {_module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(paths)}


def _is_foreign(path: Path) -> bool:
    return path.parts[0] in {"tests", "outputs"} or any(part.startswith((".", "__pyc")) for part in path.parts)


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def path_of(module: str) -> Path:
    plain = ROOT / (module.replace(".", "/") + ".py")
    return plain if plain.exists() else ROOT / module.replace(".", "/") / "__init__.py"


@functools.cache
def imports() -> dict[str, frozenset[str]]:
    """The modules of ours that each module imports, anywhere in it."""
    return {module: frozenset(_imported(module, tree, late=True)) - {module} for module, tree in trees().items()}


def _imported(module: str, tree: ast.AST, late: bool) -> Iterator[str]:
    for node in ast.walk(tree) if late else _at_import_time(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in trees())
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports by a relative name, which these tests do not follow"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from (names & set(trees())) or ({str(node.module)} & set(trees()))


def _at_import_time(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run when the module is imported: not those in functions, nor below `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        is_typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not is_typing and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node
            yield from _at_import_time(node)


def room_of(module: str, rooms: tuple[str, ...]) -> str | None:
    return next((room for room in rooms if module == room or module.startswith(f"{room}.")), None)


def floor_of(module: str) -> int:
    found = [level for level, rooms in enumerate(FLOORS) if room_of(module, rooms)]
    assert found or module == "lab", f"{module} is on no floor: give it one in FLOORS"
    return found[0] if found else 0


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for module, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield f"{module}.{node.name}", node


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function, less its docstring."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function) is None:
        return lines
    docstring = function.body[0]
    return lines - ((docstring.end_lineno or 0) - docstring.lineno + 1)


# Floors


def test_every_module_has_a_floor() -> None:
    assert len(trees()) > 50
    assert max(map(floor_of, trees())) == len(FLOORS) - 1


def test_imports_go_down_only() -> None:
    up = {(a, b) for a, found in imports().items() for b in found if floor_of(b) > floor_of(a)}
    assert up == KNOWN_IMPORTS


def test_nothing_imports_what_stands_beside_the_house() -> None:
    into = {(a, b) for a, found in imports().items() for b in found if room_of(b, BESIDE)}
    assert {(a, b) for a, b in into if room_of(a, BESIDE) != room_of(b, BESIDE) and not room_of(a, BESIDE)} == set()


def test_only_stages_and_the_command_line_see_settings() -> None:
    seen = {(a, b) for a, found in imports().items() for b in found if room_of(b, ("lab.config",))}
    assert {pair for pair in seen if room_of(pair[0], FOREIGN_TO_SETTINGS)} == set()


def test_no_module_imports_itself_in_a_circle() -> None:
    """At import time; an import within a function waits, and one below TYPE_CHECKING never happens."""
    graph = {module: set(_imported(module, tree, late=False)) - {module} for module, tree in trees().items()}
    left = set(graph)
    while True:
        free = {module for module in left if not graph[module] & left}
        if not free:
            break
        left -= free
    assert left == set()


# Sizes


def lines_of(module: str) -> int:
    return len(path_of(module).read_text(encoding="utf-8").splitlines())


def test_no_file_is_longer_than_a_few_pages() -> None:
    assert {module for module in trees() if lines_of(module) > LONGEST_FILE} == KNOWN_LONG_FILES


def test_no_folder_holds_more_than_a_third_of_the_code() -> None:
    total = sum(map(lines_of, trees()))
    folders = {module.partition(".")[0] for module in trees() if path_of(module).parent != ROOT}
    shares = {f: sum(lines_of(m) for m in trees() if room_of(m, (f,))) / total for f in folders}
    assert {folder for folder, share in shares.items() if share > LARGEST_SHARE} == KNOWN_LARGE_FOLDERS


def test_functions_are_short() -> None:
    lengths = sorted(length(function) for _, function in functions())
    assert statistics.median(lengths) <= MEDIAN_FUNCTION
    assert lengths[int(0.9 * len(lengths))] <= NINETIETH_PERCENTILE
    assert [name for name, function in functions() if length(function) > LONGEST_FUNCTION] == []


# Words


def test_every_public_function_class_and_module_is_documented() -> None:
    found = {module for module, tree in trees().items() if tree.body and ast.get_docstring(tree) is None}
    for module, tree in trees().items():
        found |= {f"{module}.{name}" for name in _undocumented(tree)}
    assert found == KNOWN_UNDOCUMENTED


def _undocumented(node: ast.AST, prefix: str = "") -> Iterator[str]:
    """Public functions, classes and their public methods without a docstring; what is in a function is private."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and child.name[0] != "_":
            if ast.get_docstring(child) is None and not _is_overload(child):
                yield prefix + child.name
            if isinstance(child, ast.ClassDef):
                yield from _undocumented(child, f"{prefix}{child.name}.")


def _is_overload(node: ast.AST) -> bool:
    decorators = getattr(node, "decorator_list", [])
    return any(ast.unparse(decorator).endswith("overload") for decorator in decorators)


def test_no_parameter_carries_a_module() -> None:
    named = {name for name, function in functions() if "ModuleType" in ast.unparse(function.args)}
    assert named == set()


@pytest.mark.parametrize("module", ["pipeline", "evaluate_boxes"])
def test_heavy_libraries_wait(module: str) -> None:
    """Nothing that the module imports when it is imported brings torch, transformers or matplotlib along."""
    reached, queue = set(), [module]
    while queue:
        name = queue.pop()
        if name not in reached:
            reached.add(name)
            queue += _imported(name, trees()[name], late=False)
    heavy = {"torch", "transformers", "matplotlib"}
    for name in reached:
        nodes = [node for node in _at_import_time(trees()[name]) if isinstance(node, (ast.Import, ast.ImportFrom))]
        roots = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        roots |= {str(node.module).split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
        assert not roots & heavy, f"{name} imports {roots & heavy} when {module} starts"
