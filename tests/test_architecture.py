"""The architecture, held: which way imports run, what importing costs, and how long files and functions may be."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pipeline.graph import find_cycle

ROOT = Path(__file__).parents[1]
PACKAGES = ("extractors", "pipeline", "trainer")
HEAVY = (
    "torch",
    "torchvision",
    "cv2",
    "dask",
    "distributed",
    "dask_jobqueue",
    "transformers",
    "timm",
    "opensmile",
    "skimage",
    "facenet_pytorch",
    "pandas",
    "numba",
)
WITHOUT_TORCH = (
    "trainer.arrays",
    "trainer.averaging",
    "trainer.compare",
    "trainer.decisions",
    "trainer.errors",
    "trainer.filling",
    "trainer.folds_file",
    "trainer.groups",
    "trainer.labels",
    "trainer.metrics",
    "trainer.pooling",
    "trainer.predictions",
    "trainer.predictions_file",
    "trainer.scores",
    "trainer.smoothing",
    "trainer.splits",
    "trainer.submission",
    "trainer.sums",
    "trainer.tasks",
    "trainer.template",
)
# The trainer reads stores by this door. Its recipes are read as stages files are, and its commands print as the others do.
LINKS = {
    "trainer.cli": {"pipeline.cli_options", "pipeline.show", "pipeline.store"},
    "trainer.recipe": {"pipeline.document", "pipeline.params"},
}
MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60


def files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in files(*PACKAGES)}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(node: ast.AST) -> Iterator[str]:
    """The modules that a statement imports: for `from package import name` the module package.name where there is one."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        for alias in node.names:
            name = f"{node.module}.{alias.name}"
            yield name if name in MODULES else str(node.module)


def everywhere(path: Path) -> set[str]:
    """What a file imports, also inside functions and for type checkers."""
    return {name for node in ast.walk(tree(path)) for name in imported(node)}


def when_loaded(body: list[ast.stmt]) -> Iterator[str]:
    """What is imported as the module is: not in functions, nor for type checkers only."""
    for node in body:
        yield from imported(node)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from when_loaded(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for part in ("body", "orelse", "finalbody"):
                yield from when_loaded(getattr(node, part, []))
            for handler in getattr(node, "handlers", []):
                yield from when_loaded(handler.body)


def top(name: str) -> str:
    return name.partition(".")[0]


def run(code: str) -> Any:
    """What a fresh interpreter prints, from JSON."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_there_is_something_to_look_at() -> None:
    assert {"extractors.contract", "extractors.face.mtcnn", "pipeline.config", "pipeline.store", "trainer"} <= MODULES.keys()


def test_imports_run_one_way() -> None:
    allowed = {"extractors": {"extractors"}, "pipeline": {"extractors", "pipeline"}, "trainer": {"trainer", "pipeline"}}
    wrong = [
        f"{name} imports {other}"
        for name, path in MODULES.items()
        for other in sorted(everywhere(path))
        if top(other) in PACKAGES and top(other) not in allowed[top(name)]
    ]
    assert wrong == []


def test_the_trainer_knows_stores_only() -> None:
    assert [
        f"{name} imports {other}"
        for name, path in MODULES.items()
        if top(name) == "trainer"
        for other in everywhere(path)
        if top(other) == "pipeline" and other not in LINKS.get(name, {"pipeline.store"})
    ] == []


def test_no_import_cycle() -> None:
    edges = {name: [other for other in when_loaded(tree(path).body) if other in MODULES] for name, path in MODULES.items()}
    assert " -> ".join(find_cycle(edges)) == ""
    assert "pipeline.errors" in edges["pipeline.document"]  # the walk sees what is there


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("dask", {"pipeline.clusters"}),
        ("distributed", {"pipeline.clusters", "pipeline.dask_pool", "pipeline.slurm_cluster"}),
        ("dask_jobqueue", {"pipeline.slurm", "pipeline.slurm_cluster"}),
        ("pydantic", {"pipeline.params"}),
        ("sklearn", set()),  # these two are what tests compare with
        ("torchmetrics", set()),
    ],
)
def test_some_packages_have_one_place(package: str, allowed: set[str]) -> None:
    users = {name for name, path in MODULES.items() if package in map(top, everywhere(path))}
    assert users <= allowed


def test_extractors_know_no_hdf5() -> None:
    assert [name for name, path in MODULES.items() if top(name) == "extractors" and "h5py" in map(top, everywhere(path))] == []


def test_importing_is_free() -> None:
    """No module loads a heavy package or starts a thread, but for the decoder, which is a process of its own."""
    names = [name for name in MODULES if top(name) != "trainer" and name != "pipeline.decoder"]
    code = f"""
import importlib, json, sys, threading
culprits = []
for name in {names!r}:
    before = set(sys.modules)
    importlib.import_module(name)
    culprits += [f"{{name}} loads {{heavy}}" for heavy in {HEAVY!r} if heavy in sys.modules and heavy not in before]
print(json.dumps([culprits, threading.active_count()]))
"""
    assert run(code) == [[], 1]


def test_scoring_needs_numpy_and_h5py_only() -> None:
    """Of the trainer, all that is not made of torch: predictions can be scored and handed in where there is none."""
    assert set(WITHOUT_TORCH) <= MODULES.keys()
    code = f"""
import importlib, json, sys
for name in {WITHOUT_TORCH!r}:
    importlib.import_module(name)
print(json.dumps(sorted({{"scipy", "sklearn", "torchmetrics", *{HEAVY!r}}} & set(sys.modules))))
"""
    assert run(code) == []


def test_reading_a_store_needs_numpy_and_h5py_only() -> None:
    code = """
import json, sys
before = set(sys.modules)
import pipeline.store
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps(sorted(new - set(sys.stdlib_module_names))))
"""
    loaded = set(run(code)) - set(PACKAGES)
    # h5py and numpy may bring modules of their own making, none of which is a package that one installs.
    installed = {name for name in loaded if name not in ("h5py", "numpy") and not name.startswith(("_", "cython"))}
    assert installed == set()


def test_choosing_what_to_train_on_needs_no_torch() -> None:
    code = """
import json, sys
import trainer.after, trainer.cli, trainer.features, trainer.order, trainer.recipe, trainer.stacking, trainer.standardiser, trainer.windows
print(json.dumps([name for name in ("torch", "scipy", "sklearn", "pandas") if name in sys.modules]))
"""
    assert run(code) == []


def test_files_are_short_enough_to_hold_in_the_head() -> None:
    lengths = {module_name(path): len(path.read_text().splitlines()) for path in files(*PACKAGES, "tests")}
    assert {name: length for name, length in lengths.items() if length > MAX_FILE_LINES} == {}


def test_functions_are_short_enough_to_see_whole() -> None:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [(name, node) for name, path in MODULES.items() for node in ast.walk(tree(path)) if isinstance(node, functions)]
    lengths = {f"{name}.{node.name}": (node.end_lineno or 0) - node.lineno + 1 for name, node in found}
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES} == {}


def test_every_module_says_what_it_is_for() -> None:
    assert [name for name, path in MODULES.items() if not ast.get_docstring(tree(path))] == []
    assert [name for name in MODULES if name.rpartition(".")[2] in ("utils", "helpers", "common", "misc")] == []
