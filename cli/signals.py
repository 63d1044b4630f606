"""Ctrl-C, a scheduler's SIGTERM and a closed terminal's SIGHUP: each ends a command, whatever Python is doing.

A signal raises `KeyboardInterrupt`, so that what is at work puts its files in order. Python drops an exception that is
raised while an object is taken away, in the callback of a weak reference or in one of a C library, and a library may
turn it into an error of its own: so the signal is remembered as well, what was dropped is raised again, and the places
that tell of progress look whether one came.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import weakref
from collections.abc import Iterator
from types import FrameType
from typing import Any

STATUS = 2
INTERRUPTED = "interrupted: what was finished is kept; give the same command again to go on"
AT_ONCE = "landscape: interrupted again, ended at once: what was saved is kept; give the same command again to go on"

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_UNHEEDED = (signal.SIG_DFL, signal.default_int_handler)
_SOON = 0.02
"""Seconds until what could not be raised is raised again."""
_LATEST = 5.0
"""Seconds after which an interruption is raised also where it does harm: an import may never end."""
_BURST = 1.0
"""Seconds in which further signals count as the same one: `timeout` and schedulers send several."""


class Interruption:
    """The signals that end a command, from `install` on."""

    def __init__(self) -> None:
        self._came: float | None = None
        self._before: dict[int, Any] = {}
        self._again = self._over = False

    def install(self) -> None:
        """Heeds the signals that nobody else does."""
        self._came, self._again, self._over = None, False, False
        with contextlib.suppress(ValueError):  # not in the main thread: signals are somebody else's there
            for number in _SIGNALS:
                if signal.getsignal(number) in _UNHEEDED:
                    self._before[number] = signal.signal(number, self._heed)
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._heed_again)
        self._hook, sys.unraisablehook = sys.unraisablehook, self._dropped

    def leave(self) -> None:
        """The process ends with its status: Python gives signals their default back on its way out, which would end it
        with theirs.
        """
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)

    def remove(self) -> None:
        """As it was before."""
        if self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}
        sys.unraisablehook = self._hook

    @contextlib.contextmanager
    def heeded(self) -> Iterator[None]:
        """Heeds signals in its body."""
        self.install()
        try:
            yield
        finally:
            self.remove()

    @property
    def came(self) -> bool:
        """Whether a signal came before the command was over."""
        return self._came is not None

    def check(self) -> None:
        """Raises what came and was lost. Says nothing while files are put in order after an interruption."""
        if self.came and not self._over and not isinstance(sys.exc_info()[1], KeyboardInterrupt):
            raise KeyboardInterrupt

    def finish(self) -> None:
        """The command is over: only its last words are left, which nothing interrupts, no alarm that is set either."""
        self._over, self._again = True, False
        with contextlib.suppress(ValueError):
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _heed(self, number: int, frame: FrameType | None) -> None:
        if self._came is None:
            if not self._over:
                self._came = time.monotonic()
                self._raise(frame)
        elif time.monotonic() - self._came > _BURST:
            _end_at_once()

    def _heed_again(self, number: int, frame: FrameType | None) -> None:
        if self._again:
            self._again = False
            self._raise(frame)

    def _raise(self, frame: FrameType | None) -> None:
        if self._over:
            return
        if self._came is not None and time.monotonic() - self._came < _LATEST and _does_harm(frame):
            self._raise_soon()
        else:
            raise KeyboardInterrupt

    def _raise_soon(self) -> None:
        if self._over:
            return
        self._again = True
        signal.setitimer(signal.ITIMER_REAL, _SOON)

    def _dropped(self, ignored: Any) -> None:
        if self.came and issubclass(ignored.exc_type, KeyboardInterrupt):
            self._raise_soon()
        else:
            self._hook(ignored)


def _does_harm(frame: FrameType | None) -> bool:
    """Whether Python imports, takes an object away or starts a process: an exception is lost there, or something left
    half done.
    """
    while frame is not None:
        code = frame.f_code
        if (
            code.co_filename.startswith("<frozen importlib")
            or code.co_name == "__del__"
            or code.co_filename == weakref.__file__
            or (code.co_name == "submit" and code.co_filename.endswith("futures/process.py"))
        ):
            return True
        frame = frame.f_back
    return False


def _end_at_once() -> None:
    cursor = "\x1b[?25h\n" if sys.stderr is not None and sys.stderr.isatty() else ""
    os.write(2, f"{cursor}{AT_ONCE}\n".encode())
    os._exit(STATUS)


interruption = Interruption()
"""The one of this process."""
