"""Built-in problems by name, and a user's own by the place of the function that makes it."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, get_type_hints

from landscape.errors import LandscapeError, failures_of, unknown
from landscape.problem import Origin, Problem
from landscape.problems import digits, quadratic, toy
from landscape.randomness import seeded

BUILT_IN: dict[str, Callable[..., Problem]] = {"digits": digits.make, "quadratic": quadratic.make, "toy": toy.make}


def load(name: str, settings: Mapping[str, Any] | None = None) -> Problem:
    """A problem by name.

    Args:
        name: `digits`, `quadratic` or `toy`; or a function of the user's own that returns a `Problem`, as
            `path/to/file.py:make` or `package.module:make`. Its code is run: name only what you trust.
        settings: arguments of the function; they must fit into JSON.

    Raises:
        LandscapeError: no such problem (with the nearest name), file, function or setting.
    """
    settings = dict(settings or {})
    make = BUILT_IN[name] if name in BUILT_IN else _users_own(name)
    _require_settings(name, make, settings)
    with seeded(0, "problem"), _failures_of(name):
        problem = make(**settings)
    if not isinstance(problem, Problem):
        raise LandscapeError(f"{name} returned {type(problem).__name__}: expected a landscape.Problem")
    return problem.came_from(Origin(name, settings, built_in=name in BUILT_IN))


def _require_settings(name: str, make: Callable[..., Problem], settings: Mapping[str, Any]) -> None:
    taken = inspect.signature(make).parameters
    for key, parameter in taken.items():
        if parameter.kind in _NAMED and parameter.default is inspect.Parameter.empty and key not in settings:
            raise LandscapeError(
                f"the problem {name} needs a value for {key!r}, which has no default: set it with --set {key}=..., "
                "or give the function a default"
            )
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in taken.values()):
        return
    for key in settings:
        if key not in taken:
            raise (
                unknown(f"setting of the problem {name}", key, taken)
                if taken
                else LandscapeError(f"the problem {name} takes no settings, got {key!r}: leave it out")
            )
    if name in BUILT_IN:
        _require_kinds(get_type_hints(make), settings)


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_KINDS: dict[Any, tuple[str, tuple[type, ...]]] = {
    int: ("a whole number", (int,)),
    float: ("a number", (int, float)),
    str: ("a text", (str,)),
    bool: ("true or false", (bool,)),
}


def _require_kinds(hints: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        words, kinds = _KINDS.get(hints.get(key), ("", (object,)))
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds and words):
            raise LandscapeError(f"expected {key} as {words}, got {value!r}")


def _users_own(name: str) -> Callable[..., Problem]:
    place, colon, function = name.rpartition(":")
    if not colon and name.endswith(".py"):
        raise LandscapeError(
            f"expected the function that makes the problem after the file, as {name}:FUNCTION, got {name!r} alone"
        )
    if not colon:
        raise unknown("problem", name, [*BUILT_IN, "path/to/file.py:make", "package.module:make"])
    module = _from_file(Path(place)) if place.endswith(".py") else _from_package(place)
    make = getattr(module, function, None)
    if not callable(make):
        functions = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise unknown(f"function in {place}", function, functions or ["a function that returns a Problem"])
    found: Callable[..., Problem] = make
    return found


def _from_file(path: Path) -> Any:
    if not path.is_file():
        raise LandscapeError(f"there is no file {path}: expected a Python file with a function that returns a Problem")
    folder = str(path.parent.resolve())
    if folder not in sys.path:
        sys.path.append(folder)
    spec = importlib.util.spec_from_file_location(f"landscape_user_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    with _failures_of(str(path)):
        spec.loader.exec_module(module)
    return module


def _from_package(name: str) -> Any:
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        with _failures_of(name):
            return importlib.import_module(name)
    except LandscapeError as error:
        missing = error.__cause__
        if isinstance(missing, ModuleNotFoundError) and f"{name}.".startswith(f"{missing.name}."):
            raise LandscapeError(
                f"cannot import {name} ({missing}): expected an importable module, or a file as path/to/file.py:make"
            ) from missing
        raise


def _failures_of(name: str) -> AbstractContextManager[None]:
    expected = "expected it to make a problem; mend it, or the settings given to it"
    return failures_of(name, expected, (Exception, SystemExit))
