"""Whatever ends a command, as one sentence."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable
from typing import Any

OURS = ("landscape", "analysis", "figures", "cli")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNEXPECTED = "unexpected"


class Interrupted(Exception):
    """Ctrl-C, or a signal that is treated as such."""


class Unread(Exception):
    """Whoever read the results has read enough."""


def unread(error: BaseException) -> bool:
    """Whether a command ended since nobody reads any more; Rich, which prints the help, makes an exit of it."""
    return isinstance(error.__context__ if isinstance(error, SystemExit) else error, BrokenPipeError | Unread)


def interrupted(error: BaseException, came: bool) -> bool:
    """Whether an interruption ended a command, if one came: itself, or as the error that a library made of it.

    What went wrong while files were put in order after it is an error of its own, such as a full disk.
    """
    if isinstance(error, Interrupted | KeyboardInterrupt):
        return True
    return came and not (_follows_interruption(error) and not sentence(error).startswith(_UNEXPECTED))


def _follows_interruption(error: BaseException) -> bool:
    before = error.__context__
    while before is not None and not isinstance(before, KeyboardInterrupt):
        before = before.__context__
    return before is not None


def sentence(error: BaseException) -> str:
    """What went wrong, on one line."""
    return " ".join(_text(error).split())


def _text(error: BaseException) -> str:
    said = str(error)
    if hasattr(error, "format_message"):
        return _usage(error)
    if isinstance(error, OSError) and error.errno is not None:
        return _file(error)
    below = re.search(r"errno = (\d+), error message = '(.*?)'", said)
    if below and not _ours(type(error).__module__):
        return _file(OSError(int(below[1]), below[2]))  # what HDF5 met in the system
    if said and (_ours(type(error).__module__) or (isinstance(error, ValueError | OSError) and _raised_by_us(error))):
        return said
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return (
            f"out of memory ({said or 'no more to be had'}): what was finished is kept; take fewer jobs, a smaller "
            "model or less data, and give the same command again"
        )
    return f"{_UNEXPECTED} {type(error).__name__} ({said}): set LANDSCAPE_DEBUG=1 to see where, and report it"


def _file(error: OSError) -> str:
    where = error.filename or "a file"
    if error.errno in FULL:
        return (
            f"no room left on the disk ({error.filename or error.strerror}): what was finished is kept; free some "
            "space and give the same command again"
        )
    return (
        f"cannot use {where} ({error.strerror or error}): expected a path that can be read and written; choose another"
    )


def _usage(error: Any) -> str:
    """What Typer says of a command's words, with the nearest valid ones and what came."""
    context = getattr(error, "ctx", None)
    commands = getattr(getattr(context, "command", None), "commands", {})
    name = re.search(r"command '(.*?)'", error.message)
    if hasattr(error, "possibilities"):
        text = f"unknown option {error.option_name}{_nearest(error.option_name, error.possibilities or ())}"
    elif commands and name:
        text = f"unknown command {name[1]!r}: expected one of {', '.join(commands)}{_nearest(name[1], commands)}"
    else:
        text = str(error.format_message()).strip().rstrip(".").replace(": Input", ": input")
        text = text[:1].lower() + text[1:]
        refused: list[Any] = getattr(error.__cause__, "errors", list)()
        text += f", got {refused[0].get('input')!r}" if refused else ""
    return f"{text}; see {context.command_path if context is not None else 'landscape'} --help"


def _nearest(given: str, valid: Iterable[str]) -> str:
    close = difflib.get_close_matches(given, list(valid), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def _ours(module: str) -> bool:
    return module.split(".", maxsplit=1)[0] in OURS


def _raised_by_us(error: BaseException) -> bool:
    """Whether the toolkit itself raised an error, and so wrote its text for the user."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and _ours(str(trace.tb_frame.f_globals.get("__name__")))
