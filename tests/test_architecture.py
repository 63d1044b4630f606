"""The rules of layout: imports go one way, figures need no torch, no file can run code, tests are packages."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = ("landscape", "analysis", "figures", "cli")
"""Each may import itself and what stands before it."""

NOT_INSTALLED = ("tests", "benchmarks", "examples", "docs")
"""What lies beside the packages in the repository, but not in a wheel."""

FIGURES_MAY = "analysis.results"
"""The one package of the layers below that figures may import."""

UNPICKLERS = ("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve")
"""Modules that run code which a file names."""

FILES = sorted(path for top in ORDER for path in (ROOT / top).rglob("*.py"))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(tree: ast.Module, place: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that the module at `place` imports, anywhere in it, by any kind of import."""
    package = place.split("/")[:-1]
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                parents = package[: len(package) + 1 - level] if level else []
                base = ".".join([*parents, *([module] if module else [])])
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in names)
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(target)), *_],
            ):
                yield node.lineno, target


def against_order(tree: ast.Module, place: str) -> list[str]:
    """The imports at `place` that go against `cli -> figures -> analysis -> landscape`."""
    home = place.split("/", maxsplit=1)[0]
    allowed = ORDER[: ORDER.index(home) + 1]

    def wrong(target: str) -> bool:
        top = target.split(".", maxsplit=1)[0]
        if home == "figures" and top in ("landscape", "analysis"):
            return target != FIGURES_MAY and not target.startswith(FIGURES_MAY + ".")
        return top in NOT_INSTALLED or (top in ORDER and top not in allowed)

    return [f"{place}:{line} imports {target}" for line, target in imports(tree, place) if wrong(target)]


def torch_imports(tree: ast.Module, place: str) -> list[str]:
    return [f"{place}:{line}" for line, target in imports(tree, place) if target.split(".")[0] == "torch"]


def code_runners(tree: ast.Module, place: str) -> list[str]:
    """The places that could run code which a file names: unpicklers, unrestrained loads, `eval`."""
    found = [(line, target) for line, target in imports(tree, place) if target.split(".")[0] in UNPICKLERS]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
        called = ast.unparse(node.func)
        if (
            called in ("eval", "exec")
            or (called == "torch.load" and keywords.get("weights_only") != "True")
            or keywords.get("allow_pickle", "False") != "False"
        ):
            found.append((node.lineno, ast.unparse(node)))
    return [f"{place}:{line} {what}" for line, what in found]


def needs_no_torch(path: Path) -> bool:
    place = name(path)
    return place.startswith(("figures/", "analysis/results/")) or place in (
        "analysis/__init__.py",
        "analysis/archive.py",
    )


def test_imports_go_one_way() -> None:
    assert [line for path in FILES for line in against_order(parsed(path), name(path))] == []


def test_figures_and_records_import_no_torch() -> None:
    assert [line for path in FILES if needs_no_torch(path) for line in torch_imports(parsed(path), name(path))] == []


def test_no_file_can_run_code() -> None:
    assert [line for path in FILES for line in code_runners(parsed(path), name(path))] == []


def test_figures_and_records_work_where_torch_is_not_installed() -> None:
    modules = ["analysis.results", "analysis.archive", "figures", "figures.report", "figures.scenes"]
    modules += [
        name(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in FILES
        if name(path).startswith("figures/") and path.stem != "__main__"
    ]
    # None in `sys.modules` is how Python itself says that a module cannot be had.
    script = f"import importlib, sys; sys.modules['torch'] = None; [*map(importlib.import_module, {modules!r})]"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_folder_of_tests_is_a_package() -> None:
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")}
    assert [name(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("landscape/training.py", "import analysis.planes"),
        ("landscape/training.py", "from figures import draw"),
        ("landscape/training.py", "importlib.import_module('cli')"),
        ("landscape/training.py", "from tests.cases import CASES"),
        ("analysis/planes.py", "def f():\n    from figures.marks import Line"),
        ("figures/scenes/surface.py", "from landscape.trajectory import Layout"),
        ("figures/scenes/surface.py", "import analysis"),
        ("figures/scenes/surface.py", "from analysis import planes"),
        ("figures/scenes/surface.py", "from analysis.results_of_mine import Plane"),
        ("figures/scenes/surface.py", "from ...analysis import planes"),
    ],
)
def test_an_import_against_the_order_is_found(place: str, line: str) -> None:
    assert len(against_order(ast.parse(line), place)) == 1


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("cli/commands.py", "import figures, analysis.planes, landscape\nfrom cli.console import say"),
        ("analysis/planes.py", "from landscape.trajectory import Trajectory\nfrom . import results"),
        ("figures/scenes/surface.py", "from analysis import results\nfrom analysis.results import Plane"),
        ("figures/scenes/surface.py", "from ..marks import Line\nimport numpy"),
    ],
)
def test_an_import_in_the_order_is_left_alone(place: str, line: str) -> None:
    assert against_order(ast.parse(line), place) == []


@pytest.mark.parametrize(
    "line", ["import torch", "from torch.nn import Module", "def f():\n    import torch.func as t"]
)
def test_an_import_of_torch_is_found(line: str) -> None:
    assert len(torch_imports(ast.parse(line), "figures/style.py")) == 1


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "eval(text)",
        "exec(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_a_way_to_run_code_is_found(line: str) -> None:
    assert len(code_runners(ast.parse(line), "landscape/store.py")) == 1


@pytest.mark.parametrize(
    "line", ["model.eval()", "torch.load(path, weights_only=True)", "np.load(path)", "evaluate(x)"]
)
def test_a_way_to_read_data_is_left_alone(line: str) -> None:
    assert code_runners(ast.parse(line), "landscape/store.py") == []
