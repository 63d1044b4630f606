"""The command `landscape`."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# The toolkit's own packages come first, also where the user's PYTHONPATH names a folder with an `analysis` of its own.
_HOME = str(Path(__file__).resolve().parent.parent)
sys.path[:] = [_HOME, *(entry for entry in sys.path if entry != _HOME)]

from cli.signals import INTERRUPTED, STATUS, interruption  # noqa: E402


def main() -> None:
    """Runs the command line. Errors end it with one sentence on stderr and status 2, success with 0."""
    interruption.install()  # to the very end: nothing interrupts Python while it takes itself down
    atexit.register(interruption.leave)
    sys.exit(_run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit status."""
    with interruption.heeded():
        return _run(arguments)


def _run(arguments: Sequence[str]) -> int:
    with warnings.catch_warnings():
        warnings.showwarning = functools.partial(_noted, warnings.showwarning)
        return _ended(arguments)


def _noted(usual: Callable[..., None], message: Warning | str, category: type[Warning], *place: Any) -> None:
    """The toolkit's own warnings on one line, all others as usual."""
    if category.__module__ == "landscape.errors":
        print(f"landscape: note: {message}", file=sys.stderr)
    else:
        usual(message, category, *place)


def _ended(arguments: Sequence[str]) -> int:
    try:
        from cli.commands import app

        app(list(arguments) or ["--help"], prog_name="landscape", standalone_mode=False)
        sys.stdout.flush()
        interruption.check()
        interruption.finish()
    except BaseException as error:
        interruption.finish()
        return _said(error)
    return 0


def _said(error: BaseException) -> int:
    """Says what ended a command, and returns its exit status."""
    from cli.errors import interrupted, sentence, unread

    if unread(error):
        _leave_stdout()
        return 0
    if os.environ.get("LANDSCAPE_DEBUG"):
        raise error
    stopped = interrupted(error, interruption.came)
    gap = "\n" if stopped and sys.stderr.isatty() else ""
    print(f"{gap}landscape: {INTERRUPTED if stopped else sentence(error)}", file=sys.stderr)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        return STATUS
    _leave_stdout()
    return STATUS


def _leave_stdout() -> None:
    """What stdout still holds goes nowhere, so that Python does not stumble over it at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
