"""Errors that a user can act on: one sentence that says what was expected, what came and what to do."""

from __future__ import annotations

import contextlib
import difflib
import re
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path


class LandscapeError(ValueError):
    """Input that cannot be used. The command line prints its text on one line and ends with status 2."""


class LandscapeWarning(UserWarning):
    """Something that may make numbers other than what is meant. The command line prints its text on one line."""


class TrainingDiverged(LandscapeError):
    """A training loss was no longer finite. The snapshots recorded before are kept.

    Attributes: `step`, the step at which it happened; `task`, the first task it happened to.
    """

    def __init__(self, step: int, task: str, value: float) -> None:
        self.step, self.task, self.value = step, task, value
        super().__init__(
            f"the training loss of task {task!r} became {value} at step {step}; the snapshots before it are kept: "
            "try a smaller learning rate, or look at that batch"
        )

    def __reduce__(self) -> tuple[type[TrainingDiverged], tuple[int, str, float]]:
        return type(self), (self.step, self.task, self.value)


def unknown(kind: str, given: str, valid: Iterable[str]) -> LandscapeError:
    """The error for a name that is not among the valid ones, with the nearest valid one."""
    names = sorted(valid)
    by_fold = {name.casefold(): name for name in names}
    close = difflib.get_close_matches(given.casefold(), by_fold, n=1, cutoff=0.5)
    nearest = f"; did you mean {by_fold[close[0]]!r}?" if close else ""
    return LandscapeError(f"unknown {kind} {given!r}: expected one of {', '.join(names)}{nearest}")


@contextlib.contextmanager
def failures_of(what: str, expected: str, kinds: tuple[type[BaseException], ...] = (Exception,)) -> Iterator[None]:
    """Whatever a user's own code raises inside becomes one sentence that names its type, its text and its place.

    The sentence: `WHAT failed with TYPE at FILE:LINE (TEXT): EXPECTED`. Our own errors and those of too little memory
    pass unchanged, and so does what is not of these `kinds`.
    """
    try:
        yield
    except LandscapeError:
        raise
    except kinds as error:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            raise
        said = " ".join(str(error).split()) or "without a text"
        raise LandscapeError(
            f"{what} failed with {type(error).__name__} at {_place(error)} ({said}): {expected}"
        ) from error


def _place(error: BaseException) -> str:
    """File and line where an error was raised; in code of libraries or of ours, the user's line that called it."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _LIBRARIES.search(frame.filename)]
    users = [frame for frame in own if not Path(frame.filename).is_relative_to(_HERE)]
    last = (users or own or frames)[-1]
    return f"{last.filename}:{last.lineno}"


_LIBRARIES = re.compile(r"site-packages|dist-packages|[\\/]lib[\\/]python3|<frozen")
_HERE = Path(__file__).parent
