"""Built-in problems by name, and a user's own by the place of the function that makes it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from landscape.errors import LandscapeError, unknown
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
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in taken.values()):
        return
    for key in settings:
        if key not in taken:
            raise (
                unknown(f"setting of the problem {name}", key, taken)
                if taken
                else LandscapeError(f"the problem {name} takes no settings, got {key!r}: leave it out")
            )


def _users_own(name: str) -> Callable[..., Problem]:
    place, colon, function = name.rpartition(":")
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


@contextlib.contextmanager
def _failures_of(name: str) -> Iterator[None]:
    """Whatever a user's own code raises becomes one sentence that names type, text and place."""
    try:
        yield
    except LandscapeError:
        raise
    except (Exception, SystemExit) as error:
        said = " ".join(str(error).split()) or "without a text"
        raise LandscapeError(
            f"{name} failed with {type(error).__name__} at {_place(error)} ({said}): expected it to make a problem; "
            "mend it, or the settings given to it"
        ) from error


def _place(error: BaseException) -> str:
    """File and line where an error was raised; in code of other libraries, the line that called into them."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _LIBRARIES.search(frame.filename)]
    return f"{(own or frames)[-1].filename}:{(own or frames)[-1].lineno}"


_LIBRARIES = re.compile(r"site-packages|dist-packages|[\\/]lib[\\/]python3|<frozen")
