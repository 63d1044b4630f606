"""Whatever ends a command, as one sentence."""

from __future__ import annotations

import errno


def sentence(error: BaseException) -> str:
    """What went wrong, on one line."""
    if isinstance(error, KeyboardInterrupt):
        text = "interrupted: what was finished is kept; give the same command again to go on"
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        text = (
            f"no room left on the disk ({error.filename or 'output'}): what was finished is kept; free some "
            "space and give the same command again"
        )
    elif isinstance(error, OSError):
        text = (
            f"cannot use {error.filename or 'a file'} ({error.strerror or error}): expected a path that can be "
            "read and written"
        )
    elif hasattr(error, "format_message"):
        text = f"{error.format_message()} See landscape --help."
    elif isinstance(error, ValueError):
        text = str(error)
    elif type(error).__name__ == "Abort":
        text = "interrupted: what was finished is kept; give the same command again to go on"
    else:
        text = f"unexpected {type(error).__name__} ({error}): set LANDSCAPE_DEBUG=1 to see where, and report it"
    return " ".join(text.split())
