"""The command `landscape`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

# The toolkit's own packages come first, also where the user's PYTHONPATH names a folder with an `analysis` of its own.
_HOME = str(Path(__file__).resolve().parent.parent)
sys.path[:] = [_HOME, *(entry for entry in sys.path if entry != _HOME)]


def main() -> None:
    """Runs the command line. Errors end it with one sentence on stderr and status 2, success with 0."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit status."""
    from cli.errors import Interrupted, sentence, unread

    try:
        with _stopped_as_by_ctrl_c():
            from cli.commands import app

            app(list(arguments) or ["--help"], prog_name="landscape", standalone_mode=False)
            sys.stdout.flush()
    except BaseException as error:
        if unread(error):
            _leave_stdout()
            return 0
        if os.environ.get("LANDSCAPE_DEBUG"):
            raise
        gap = "\n" if isinstance(error, Interrupted | KeyboardInterrupt) and sys.stderr.isatty() else ""
        print(f"{gap}landscape: {sentence(error)}", file=sys.stderr)
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            return 2
        _leave_stdout()
        return 2
    return 0


@contextlib.contextmanager
def _stopped_as_by_ctrl_c() -> Iterator[None]:
    """A scheduler's SIGTERM and a closed terminal's SIGHUP end a command as Ctrl-C does: what was done is kept."""
    signals = [s for s in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) is signal.SIG_DFL]
    try:
        for number in signals:
            signal.signal(number, signal.default_int_handler)
        yield
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_DFL)


def _leave_stdout() -> None:
    """What stdout still holds goes nowhere, so that Python does not stumble over it at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
