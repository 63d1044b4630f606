"""Whatever ends a command, as one sentence."""

from __future__ import annotations

import errno
from typing import Any

OURS = ("landscape", "analysis", "figures", "cli")
INTERRUPTED = "interrupted: what was finished is kept; give the same command again to go on"


class Interrupted(Exception):
    """Ctrl-C, or a signal that is treated as such."""


def sentence(error: BaseException) -> str:
    """What went wrong, on one line."""
    return " ".join(_text(error).split())


def _text(error: BaseException) -> str:
    said = str(error)
    if isinstance(error, Interrupted | KeyboardInterrupt):
        return INTERRUPTED
    if hasattr(error, "format_message"):
        return _usage(error)
    if said and (_ours(type(error).__module__) or (isinstance(error, ValueError | OSError) and _raised_by_us(error))):
        return said
    if isinstance(error, OSError):
        return _file(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return (
            f"out of memory ({said or 'no more to be had'}): what was finished is kept; take fewer jobs, a smaller "
            "model or less data, and give the same command again"
        )
    return f"unexpected {type(error).__name__} ({said}): set LANDSCAPE_DEBUG=1 to see where, and report it"


def _file(error: OSError) -> str:
    where = error.filename or "a file"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"no room left on the disk ({error.filename or error.strerror}): what was finished is kept; free some "
            "space and give the same command again"
        )
    return (
        f"cannot use {where} ({error.strerror or error}): expected a path that can be read and written; choose another"
    )


def _usage(error: Any) -> str:
    """What Typer says of a command's words, with what came and where to look."""
    context = getattr(error, "ctx", None)
    text = str(error.format_message()).strip().rstrip(".").replace(". ", "; ")
    text = text[:1].lower() + text[1:]
    got = getattr(error.__cause__, "errors", list)()
    if got:
        text += f", got {got[0].get('input')!r}"
    commands = getattr(getattr(context, "command", None), "commands", None)
    if commands:
        text += f": expected one of {', '.join(commands)}"
    return f"{text}; see {context.command_path if context is not None else 'landscape'} --help"


def _ours(module: str) -> bool:
    return module.split(".")[0] in OURS


def _raised_by_us(error: BaseException) -> bool:
    """Whether the toolkit itself raised an error, and so wrote its text for the user."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and _ours(str(trace.tb_frame.f_globals.get("__name__")))
